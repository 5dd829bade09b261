//! What the engines of one process share: a bell to wake each, and its inbox of connections.
//!
//! A connection is passed on by moving its descriptor through the target's inbox. `room` counts
//! the slots that are neither used nor promised, and whoever wants one takes it here first: so the
//! inbox never holds more than the target's table has room for, and a sender knows at once when
//! that is full. Never: holds a lock, or waits for the other shard.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::io::sys::Waker;

/// A connection on its way. Its slot at the target is promised.
#[derive(Debug)]
pub(crate) struct HandIn {
    pub(crate) socket: OwnedFd,
    pub(crate) token: u64,
}

/// One engine as the others see it.
#[derive(Clone, Debug)]
pub struct EpollPeer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    room: AtomicU32,
    /// The bell was rung and not yet heard.
    rung: AtomicBool,
    bell: Waker,
    /// Bounded by `room`.
    inbox: Sender<HandIn>,
}

impl EpollPeer {
    /// The shared half of an engine with so many slots, and the inbox that it reads.
    pub(crate) fn new(slots: u32, bell: Waker) -> (Self, Receiver<HandIn>) {
        let (inbox, arrivals) = unbounded();
        let (room, rung) = (AtomicU32::new(slots), AtomicBool::new(false));
        (Self(Arc::new(Shared { room, rung, bell, inbox })), arrivals)
    }

    /// Slots neither used nor promised.
    pub(crate) fn room(&self) -> u32 {
        self.0.room.load(Ordering::Relaxed)
    }

    /// Takes the room of one slot if more than `above` are left.
    pub(crate) fn take_room(&self, above: u32) -> bool {
        let less = |room: u32| (room > above).then(|| room - 1);
        self.0.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    pub(crate) fn give_room(&self) {
        self.0.room.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a connection into the inbox; room was taken for it. Gives it back if the engine is
    /// gone.
    pub(crate) fn hand_in(&self, socket: OwnedFd, token: u64) -> Result<(), OwnedFd> {
        let sent = self.0.inbox.send(HandIn { socket, token });
        sent.map_err(|error| error.into_inner().socket)
    }

    /// Makes the engine's current or next wait return, and then look into its inbox.
    pub(crate) fn ring(&self) {
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            self.0.bell.wake();
        }
    }

    /// The engine has woken: everything handed in before a ring that is not rung again is in the
    /// inbox now.
    pub(crate) fn heard(&self) {
        self.0.rung.swap(false, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::io::sys;

    #[test]
    fn room_is_taken_above_a_reserve_only_and_never_twice() {
        let (_, bell) = sys::waker().expect("an eventfd");
        let (peer, _arrivals) = EpollPeer::new(3, bell);
        assert!(peer.take_room(2) && !peer.take_room(2));
        assert!(peer.take_room(0) && peer.take_room(0) && !peer.take_room(0));
        peer.give_room();
        assert_eq!(peer.room(), 1);
    }

    /// Goal: only the first of several rings costs a system call, until it was heard.
    #[test]
    fn a_bell_that_was_rung_is_not_rung_again_before_it_is_heard() {
        let (file, bell) = sys::waker().expect("an eventfd");
        let (peer, _arrivals) = EpollPeer::new(1, bell);
        let rings = || {
            let mut count = [0; 8];
            (&*file).read_exact(&mut count).expect("it was rung");
            u64::from_ne_bytes(count)
        };
        (0..5).for_each(|_| peer.ring());
        assert_eq!(rings(), 1);
        peer.ring();
        peer.heard();
        peer.ring();
        assert_eq!(rings(), 1);
    }

    #[test]
    fn what_is_handed_to_an_engine_that_is_gone_comes_back() {
        let (_, bell) = sys::waker().expect("an eventfd");
        let (peer, arrivals) = EpollPeer::new(1, bell);
        let socket = || std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket").into();
        peer.hand_in(socket(), 1).expect("the engine lives");
        drop(arrivals);
        peer.hand_in(socket(), 2).expect_err("the engine is gone");
    }
}
