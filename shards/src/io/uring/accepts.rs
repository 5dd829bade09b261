//! Which accepts are armed: how many per listener, when to withdraw them, when to back off.
//!
//! Owns: the listening sockets and the state of each accept operation. Never: looks at a
//! connection, or keeps an address (the ring does, while the kernel may write it).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::io::{ListenerIndex, Now};

/// What the kernel knows of one accept operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Armed,
    /// Asked back. It may still accept.
    Withdrawn,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// Operations in state `Armed`.
    armed: u32,
    /// Do not arm before this.
    retry_at: Option<Now>,
}

/// What [`Accepts::adjust`] wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Arm { op: u32, listener: RawFd },
    Withdraw { op: u32 },
}

/// The accepts of one ring. Operation `op` belongs to listener `op / per_listener`.
#[derive(Debug)]
pub(crate) struct Accepts {
    listeners: Vec<Listener>,
    states: Vec<State>,
    per_listener: u32,
    reserve: u32,
    on: bool,
}

impl Accepts {
    pub(crate) fn new(listeners: Vec<OwnedFd>, per_listener: u32, reserve: u32) -> Self {
        let ops = listeners.len() * per_listener as usize;
        let listener = |socket| Listener { socket, armed: 0, retry_at: None };
        Self {
            listeners: listeners.into_iter().map(listener).collect(),
            states: vec![State::Idle; ops],
            per_listener,
            reserve,
            on: false,
        }
    }

    /// Operations in all.
    pub(crate) fn ops(&self) -> usize {
        self.states.len()
    }

    pub(crate) fn set_on(&mut self, on: bool) {
        self.on = on;
    }

    pub(crate) fn listener(&self, op: u32) -> ListenerIndex {
        (op / self.per_listener) as ListenerIndex
    }

    /// The operation has completed. `true`: it had been withdrawn.
    pub(crate) fn completed(&mut self, op: u32) -> bool {
        let before = std::mem::replace(&mut self.states[op as usize], State::Idle);
        if before == State::Armed {
            self.listeners[(op / self.per_listener) as usize].armed -= 1;
        }
        before == State::Withdrawn
    }

    /// The listener cannot accept at the moment: nothing is armed on it until `retry_at`.
    pub(crate) fn back_off(&mut self, op: u32, retry_at: Now) {
        self.listeners[(op / self.per_listener) as usize].retry_at = Some(retry_at);
    }

    /// The nearest end of a back-off.
    pub(crate) fn deadline(&self) -> Option<Now> {
        self.listeners.iter().filter_map(|listener| listener.retry_at).min()
    }

    /// One step towards the right number of armed accepts, given the free slots of the table.
    /// Call until `None`.
    pub(crate) fn adjust(&mut self, now: Now, free: u32) -> Option<Change> {
        let most = self.wanted(free);
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            listener.retry_at = listener.retry_at.filter(|&at| at > now);
            let wanted = if listener.retry_at.is_some() { 0 } else { most };
            let first = index * self.per_listener as usize;
            let states = &mut self.states[first..first + self.per_listener as usize];
            if listener.armed < wanted
                && let Some(idle) = states.iter().position(|&state| state == State::Idle)
            {
                states[idle] = State::Armed;
                listener.armed += 1;
                let op = (first + idle) as u32;
                return Some(Change::Arm { op, listener: listener.socket.as_raw_fd() });
            }
            if listener.armed > wanted
                && let Some(armed) = states.iter().position(|&state| state == State::Armed)
            {
                states[armed] = State::Withdrawn;
                listener.armed -= 1;
                return Some(Change::Withdraw { op: (first + armed) as u32 });
            }
        }
        None
    }

    /// Accepts per listener: together they fit above the reserve, but each listener has one while
    /// there is anything above it.
    fn wanted(&self, free: u32) -> u32 {
        if !self.on || free <= self.reserve {
            return 0;
        }
        let share = (free - self.reserve) / (self.listeners.len() as u32).max(1);
        share.clamp(1, self.per_listener)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn accepts(reserve: u32) -> Accepts {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("a loopback port").into();
        Accepts::new(vec![bind(), bind()], 4, reserve)
    }

    fn settle(accepts: &mut Accepts, ms: u64, free: u32) -> (Vec<u32>, Vec<u32>) {
        let (mut armed, mut withdrawn) = (Vec::new(), Vec::new());
        while let Some(change) = accepts.adjust(Now(ms * 1_000), free) {
            match change {
                Change::Arm { op, .. } => armed.push(op),
                Change::Withdraw { op } => withdrawn.push(op),
            }
        }
        (armed, withdrawn)
    }

    #[test]
    fn accepts_follow_the_switch_and_the_free_slots_above_the_reserve() {
        let mut accepts = accepts(10);
        assert_eq!(settle(&mut accepts, 0, 100), (vec![], vec![]));
        accepts.set_on(true);
        assert_eq!(settle(&mut accepts, 0, 100).0.len(), 8);
        assert_eq!(settle(&mut accepts, 0, 14), (vec![], vec![0, 1, 4, 5]));
        assert_eq!(settle(&mut accepts, 0, 10), (vec![], vec![2, 3, 6, 7]));
        assert!(accepts.completed(0) && accepts.completed(4));
        assert_eq!(settle(&mut accepts, 0, 11), (vec![0, 4], vec![]));
        assert!(!accepts.completed(0));
        accepts.set_on(false);
        assert_eq!(settle(&mut accepts, 0, 11), (vec![], vec![4]));
    }

    #[test]
    fn a_listener_that_backs_off_waits_for_its_moment_and_the_other_does_not() {
        let mut accepts = accepts(0);
        accepts.set_on(true);
        settle(&mut accepts, 0, 100);
        accepts.completed(1);
        accepts.back_off(1, Now(50_000));
        assert_eq!(accepts.deadline(), Some(Now(50_000)));
        assert_eq!(settle(&mut accepts, 10, 100), (vec![], vec![0, 2, 3]));
        assert_eq!(settle(&mut accepts, 50, 100), (vec![1], vec![]));
        assert_eq!(accepts.deadline(), None);
    }
}
