//! What goes wrong around a gateway, for the fault tests.
//!
//! Owns: a look at a process from outside ([`Process`]), traffic that must not suffer
//! ([`Healthy`]), and clients that survive a gateway's death ([`Peer`]). Never: what a test
//! expects of the gateway under the fault.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use codec::{MessageId, PublishKind};
use tungstenite::Message;

use crate::common::{Client, Gateway, PATIENCE, Seen, Want, id};

/// A process as the kernel shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Processor time used so far, in user and kernel.
    pub(crate) fn cpu(self) -> Duration {
        let stat = self.read("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("the name stands in parentheses");
        let ticks = |at: usize| -> u64 {
            fields.split(' ').nth(at).expect("a field").parse().expect("a number of ticks")
        };
        // Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second on Linux.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(self) -> u64 {
        let statm = self.read("statm");
        let pages: u64 =
            statm.split(' ').nth(1).expect("a field").parse().expect("a number of pages");
        pages * 4096
    }

    /// Sends a signal, by its name without SIG.
    pub(crate) fn signal(self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.0.to_string()]).status();
        assert!(status.expect("kill runs").success(), "no process {} to signal", self.0);
    }

    fn read(self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).expect("the process runs")
    }
}

/// Tries until `condition` holds, for at most `patience`.
#[track_caller]
pub(crate) fn within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Publishes the same message again and again, as clients do without an acknowledgement, until it
/// is acknowledged.
#[track_caller]
pub(crate) fn resend_until_safe(client: &mut Client, to: Want<'_>, message: MessageId, body: &str) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        client.publish(to, message, body);
        if client.see(Duration::from_millis(500)) == Some(Seen::Ack(to.kind(), message)) {
            return;
        }
    }
    panic!("never acknowledged");
}

/// Two users who talk to each other all the time, and may not notice what the test does to others.
pub(crate) struct Healthy {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU32>,
    thread: JoinHandle<Duration>,
}

impl Healthy {
    /// Users 901 and 902 begin to talk.
    pub(crate) fn talk(gateway: &Gateway) -> Self {
        let (mut ann, mut ben) = (gateway.login(901), gateway.login(902));
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            let mut worst = Duration::ZERO;
            for number in 900_000_000.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                ann.publish(Want::User(902), id(number), "how are you?");
                ben.take_push(id(number), "how are you?");
                ann.expect_ack(PublishKind::User, id(number));
                worst = worst.max(start.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
                // Fifty messages a second leave the processor to the fault.
                std::thread::park_timeout(Duration::from_millis(20));
            }
            worst
        });
        Self { stop, rounds, thread }
    }

    /// So many messages have got through.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Ends the talk; it went on to the end, and no message took long.
    #[track_caller]
    pub(crate) fn assert_unaffected(self) {
        let before = self.rounds();
        within(PATIENCE, "the healthy pair goes on", || {
            self.rounds() > before || self.thread.is_finished()
        });
        self.stop.store(true, Ordering::Relaxed);
        let rounds = Arc::clone(&self.rounds);
        let worst = self.thread.join().expect("the healthy pair saw nothing unexpected");
        let rounds = rounds.load(Ordering::Relaxed);
        println!("healthy pair: {rounds} messages, the slowest took {worst:?}");
        assert!(worst < HITCH, "a message of the healthy pair took {worst:?}");
    }
}

/// What a healthy pair on a busy test machine never waits for a message that no disk touches. A
/// gateway that blocks on a fault blocks for seconds.
const HITCH: Duration = Duration::from_secs(2);

/// Sends without minding that the gateway may be dead; `false`: it is.
pub(crate) fn try_send(client: &mut Client, packet: Vec<u8>) -> bool {
    client.socket.send(Message::binary(packet)).is_ok()
}

/// Reads and acknowledges pushes until all of `wanted` have come; gives everything that came.
#[track_caller]
pub(crate) fn collect(client: &mut Client, wanted: &[MessageId]) -> Vec<(MessageId, Vec<u8>)> {
    let mut missing = wanted.to_vec();
    let mut seen = Vec::new();
    while !missing.is_empty() {
        match client.see(PATIENCE) {
            Some(Seen::Push { id, body } | Seen::GroupPush { id, body, .. }) => {
                client.ack(PublishKind::User, id);
                missing.retain(|wanted| *wanted != id);
                seen.push((id, body));
            }
            other => panic!("{other:?}, and {} messages are missing", missing.len()),
        }
    }
    seen
}
