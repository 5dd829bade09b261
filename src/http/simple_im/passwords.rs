//! The passwords' turns: what hashes and verifies them takes tens of milliseconds and 19 MiB each,
//! and runs beside the accounts.
//!
//! Owns: how many wait and how many run. Never: the accounts, so that nobody else waits meanwhile.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::answer::Answer;

pub(super) struct Passwords {
    /// Bounds those that wait.
    pub(super) turns: Semaphore,
    /// Bounds those that run, and with them memory and blocking threads.
    running: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self { turns: Semaphore::new(WAITING_MAX), running: Arc::new(Semaphore::new(RUNNING_MAX)) }
    }

    /// Runs what hashes or verifies on a blocking thread, in its turn. The error: there is none.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Answer> {
        let _turn = self.turns.try_acquire().map_err(|_| Answer::unavailable())?;
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running = running.map_err(|_| Answer::unavailable())?;
        let done = tokio::task::spawn_blocking(move || {
            // Held also when nobody waits for the answer any more.
            let _running = running;
            work()
        });
        done.await.map_err(|_| Answer::unavailable())
    }
}

/// Waiting and running: who comes last waits a second or two.
pub(super) const WAITING_MAX: usize = 128;
/// Passwords at once: 38 MiB.
const RUNNING_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn two_run_at_once_the_rest_waits_and_who_finds_no_turn_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let passwords = Arc::new(Passwords::new());
            let (begins, begun) = channel();
            let (hold, held) = channel::<()>();
            let held = Arc::new(Mutex::new(held));
            let at_work = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
            let work = || {
                let (begins, held, at_work) = (begins.clone(), held.clone(), at_work.clone());
                move || {
                    let (now, most) = &*at_work;
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let _ = begins.send(());
                    // Until the other end is dropped.
                    let _ = held.lock().expect("nobody panics").recv();
                    now.fetch_sub(1, Ordering::SeqCst);
                }
            };
            let waiters: Vec<_> = (0..WAITING_MAX)
                .map(|_| {
                    let (passwords, work) = (Arc::clone(&passwords), work());
                    tokio::spawn(async move { passwords.run(work).await })
                })
                .collect();
            while passwords.turns.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            assert!(passwords.run(|| ()).await.is_err(), "no turn");
            (0..RUNNING_MAX).for_each(|_| begun.recv().expect("it begins"));
            drop(hold);
            for waiter in waiters {
                assert!(waiter.await.expect("nobody panics").is_ok(), "his turn came");
            }
            assert_eq!(at_work.1.load(Ordering::SeqCst), RUNNING_MAX);
            assert!(passwords.run(|| ()).await.is_ok());
        });
    }
}
