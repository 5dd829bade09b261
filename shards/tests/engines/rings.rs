//! Several rings on their own threads: hand-over, doorbells; wakers from outside.

use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use shards::io::sys;
use shards::io::uring::{UringConfig, UringIo};
use shards::io::{Completion, Errno, Io, Slot, Wait};

use crate::harness::*;

const TOKEN: u64 = (1 << 48) - 2;

/// The target of hand-overs: ring 1, without a listener, on a thread of its own.
struct Target {
    ring: RawFd,
    /// Closes the oldest connection it got.
    close: Sender<()>,
    /// First bytes of each connection it got, and afterwards a message per close.
    heard: Receiver<Vec<u8>>,
    waker: sys::Waker,
    thread: thread::JoinHandle<()>,
}

/// Starts a ring that takes what it is handed, reads once and answers "taken". Ends when `close`
/// is dropped.
fn target(slots: u32, source: RawFd) -> Target {
    let (close, closes) = mpsc::channel();
    let (hear, heard) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let config = UringConfig { slots, slot_reserve: 0, ..small() };
        let mut io = UringIo::new(config, Vec::new()).expect("a ring");
        io.connect_peers(vec![source, io.ring_fd()]);
        tell.send((io.ring_fd(), io.waker())).expect("the test waits");
        serve_target(&mut io, &closes, &hear);
    });
    let (ring, waker) = told.recv().expect("the target starts");
    Target { ring, close, heard, waker, thread }
}

fn serve_target(io: &mut UringIo, closes: &Receiver<()>, hear: &Sender<Vec<u8>>) {
    let mut slots: Vec<Slot> = Vec::new();
    loop {
        io.wait(Wait::Until(sys::now().plus_ms(PATIENCE_MS)));
        while let Some(completion) = io.next() {
            match completion {
                Completion::HandedIn { slot, token: TOKEN } => {
                    slots.push(slot);
                    io.receive(slot);
                }
                Completion::Received { slot, buf } => {
                    hear.send(buf.to_vec()).expect("the test listens");
                    io.recycle(buf);
                    io.send(slot, owned(b"taken"));
                }
                Completion::Sent { .. } => {}
                Completion::Closed { .. } => hear.send(Vec::new()).expect("the test listens"),
                other => panic!("{other:?} at the target"),
            }
        }
        match closes.try_recv() {
            Ok(()) => io.close(slots.remove(0)),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => return,
        }
    }
}

impl Target {
    fn hear(&self) -> Vec<u8> {
        self.heard.recv_timeout(Duration::from_millis(PATIENCE_MS)).expect("heard in time")
    }

    fn close_oldest(&self) {
        self.close.send(()).expect("the target lives");
        self.waker.wake();
        assert_eq!(self.hear(), b"");
    }

    fn end(self) {
        drop(self.close);
        self.waker.wake();
        self.thread.join().expect("the target saw nothing wrong");
    }
}

fn hand_over(io: &mut UringIo, slot: Slot) -> Result<(), Errno> {
    io.hand_over(slot, 1, TOKEN);
    drive(io, |_, completion| match completion {
        Completion::HandedOver { slot: from, result } if from == slot => Some(result),
        other => panic!("{other:?} instead of a hand-over"),
    })
}

/// Goal: what the source has not read is read by the target, and the peer notices nothing.
#[test]
fn a_handed_over_connection_keeps_its_unread_bytes() {
    let (mut io, address) = engine(small());
    let target = target(4, io.ring_fd());
    io.connect_peers(vec![io.ring_fd(), target.ring]);
    for round in 0..20_u8 {
        let (mut stream, slot) = connect(&mut io, address);
        stream.write_all(&[round; 10]).expect("written");
        assert_eq!(receive(&mut io, slot), [round; 10]);
        stream.write_all(&[round + 100; 20]).expect("written");
        assert_eq!(hand_over(&mut io, slot), Ok(()));
        assert_eq!(io.free_slots(), io.capacity());
        assert_eq!(target.hear(), [round + 100; 20]);
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("answered by the target");
        assert_eq!(&answer, b"taken");
        target.close_oldest();
        assert_eq!(stream.read(&mut answer).expect("the end"), 0);
    }
    target.end();
}

#[test]
fn a_full_target_refuses_and_the_connection_stays_where_it_was() {
    let (mut io, address) = engine(small());
    let target = target(1, io.ring_fd());
    io.connect_peers(vec![io.ring_fd(), target.ring]);
    let (mut first, slot) = connect(&mut io, address);
    first.write_all(b"first").expect("written");
    assert_eq!(hand_over(&mut io, slot), Ok(()));
    assert_eq!(target.hear(), b"first");
    let (mut second, slot) = connect(&mut io, address);
    second.write_all(b"second").expect("written");
    assert_eq!(hand_over(&mut io, slot), Err(Errno(libc::ENFILE)));
    assert_eq!(receive(&mut io, slot), b"second");
    send(&mut io, slot, b"kept");
    let mut answer = [0; 4];
    second.read_exact(&mut answer).expect("answered by the source");
    assert_eq!(&answer, b"kept");
    target.close_oldest();
    second.write_all(b"again").expect("written");
    assert_eq!(hand_over(&mut io, slot), Ok(()));
    assert_eq!(target.hear(), b"again");
    target.end();
}

#[test]
fn hand_overs_to_rings_that_are_gone_or_unknown_fail_and_doorbells_do_no_harm() {
    let (mut io, address) = engine(small());
    let target = target(1, io.ring_fd());
    let gone = target.ring;
    target.end();
    io.connect_peers(vec![io.ring_fd(), gone]);
    let (mut stream, slot) = connect(&mut io, address);
    assert!(hand_over(&mut io, slot).is_err());
    io.doorbell(1);
    io.doorbell(7);
    io.hand_over(slot, 7, TOKEN);
    drive(&mut io, |_, completion| match completion {
        Completion::HandedOver { result: Err(Errno(libc::ESRCH)), .. } => Some(()),
        other => panic!("{other:?} instead of a refusal"),
    });
    stream.write_all(b"unharmed").expect("written");
    assert_eq!(receive(&mut io, slot), b"unharmed");
}

/// Goal: a sleeping ring hears a doorbell and a waker long before its own deadline.
#[test]
fn doorbells_and_wakers_end_a_wait() {
    let mut io = UringIo::new(small(), Vec::new()).expect("a ring");
    let (tell, told) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let mut io = UringIo::new(small(), Vec::new()).expect("a ring");
        tell.send((io.ring_fd(), io.waker())).expect("the test waits");
        for _ in 0..200 {
            io.wait(Wait::Until(sys::now().plus_ms(PATIENCE_MS)));
            assert!(io.next().is_none(), "a wake-up is not a completion");
            wake.send(()).expect("the test waits");
        }
    });
    let (ring, waker) = told.recv().expect("the sleeper starts");
    io.connect_peers(vec![ring]);
    let start = Instant::now();
    for round in 0..200 {
        if round % 2 == 0 {
            io.doorbell(0);
            io.doorbell(0);
            io.wait(Wait::Poll);
        } else {
            waker.wake();
        }
        woken.recv_timeout(Duration::from_millis(PATIENCE_MS / 2)).expect("woken");
    }
    assert!(start.elapsed() < Duration::from_millis(PATIENCE_MS), "some wait ran its time out");
    sleeper.join().expect("woken by nothing else");
}

/// Goal: a wake-up is remembered when nobody sleeps, and a wait with nothing to hear ends by its
/// deadline, not before.
#[test]
fn early_wake_ups_count_and_quiet_waits_last() {
    let mut io = UringIo::new(small(), Vec::new()).expect("a ring");
    io.waker().wake();
    let start = sys::now();
    io.wait(Wait::Until(start.plus_ms(PATIENCE_MS)));
    assert!(io.now().ms_since(start) < PATIENCE_MS);
    assert!(io.next().is_none());
    let turns = nothing_happens(&mut io);
    assert!((1..5).contains(&turns), "{turns} turns in one wait");
}
