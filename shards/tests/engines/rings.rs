//! Several engines on their own threads: hand-over, doorbells; wakers from outside.

use std::io::{Read, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use shards::io::sys;
use shards::io::{Completion, Errno, Sizes, Slot, Wait};

use crate::harness::*;

on_every_engine! {
    a_handed_over_connection_keeps_its_unread_bytes,
    a_full_target_refuses_and_the_connection_stays_where_it_was,
    hand_overs_to_engines_that_are_gone_or_unknown_fail_and_doorbells_do_no_harm,
    doorbells_and_wakers_end_a_wait,
    early_wake_ups_count_and_quiet_waits_last,
}

const TOKEN: u64 = (1 << 48) - 2;

/// The target of hand-overs: engine 1, without a listener, on a thread of its own.
struct Target<E: TestEngine> {
    peer: E::Peer,
    /// Closes the oldest connection it got.
    close: Sender<()>,
    /// First bytes of each connection it got, and afterwards a message per close.
    heard: Receiver<Vec<u8>>,
    waker: sys::Waker,
    thread: thread::JoinHandle<()>,
}

/// Starts an engine that takes what it is handed, reads once, answers "taken" and then tells what
/// it read. Ends when `close` is dropped.
fn target<E: TestEngine>(slots: u32, source: E::Peer) -> Target<E> {
    let (close, closes) = mpsc::channel();
    let (hear, heard) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let config = Sizes { slots, slot_reserve: 0, ..small() };
        let mut io = E::make(config, Vec::new()).expect("an engine");
        io.connect_peers(vec![source, io.peer()]);
        tell.send((io.peer(), io.waker())).expect("the test waits");
        serve_target(&mut io, &closes, &hear);
    });
    let (peer, waker) = told.recv().expect("the target starts");
    Target { peer, close, heard, waker, thread }
}

fn serve_target<E: TestEngine>(io: &mut E, closes: &Receiver<()>, hear: &Sender<Vec<u8>>) {
    let mut slots: Vec<Slot> = Vec::new();
    let mut read = Vec::new();
    loop {
        io.wait(Wait::Until(sys::now().plus_ms(PATIENCE_MS)));
        while let Some(completion) = io.next() {
            match completion {
                Completion::HandedIn { slot, token: TOKEN } => {
                    slots.push(slot);
                    io.receive(slot);
                }
                Completion::Received { slot, buf } => {
                    read = buf.to_vec();
                    io.recycle(buf);
                    io.send(slot, owned(b"taken"));
                }
                Completion::Sent { .. } => {
                    hear.send(std::mem::take(&mut read)).expect("the test listens");
                }
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

impl<E: TestEngine> Target<E> {
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

fn hand_over<E: TestEngine>(io: &mut E, slot: Slot) -> Result<(), Errno> {
    io.hand_over(slot, 1, TOKEN);
    drive(io, |_, completion| match completion {
        Completion::HandedOver { slot: from, result } if from == slot => Some(result),
        other => panic!("{other:?} instead of a hand-over"),
    })
}

/// Goal: what the source has not read is read by the target, and the peer notices nothing.
fn a_handed_over_connection_keeps_its_unread_bytes<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let target = target::<E>(4, io.peer());
    io.connect_peers(vec![io.peer(), target.peer.clone()]);
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

fn a_full_target_refuses_and_the_connection_stays_where_it_was<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let target = target::<E>(1, io.peer());
    io.connect_peers(vec![io.peer(), target.peer.clone()]);
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

fn hand_overs_to_engines_that_are_gone_or_unknown_fail_and_doorbells_do_no_harm<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let target = target::<E>(1, io.peer());
    let gone = target.peer.clone();
    target.end();
    io.connect_peers(vec![io.peer(), gone]);
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

/// Goal: a sleeping engine hears a doorbell and a waker long before its own deadline.
fn doorbells_and_wakers_end_a_wait<E: TestEngine>() {
    let mut io = E::make(small(), Vec::new()).expect("an engine");
    let (tell, told) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let mut io = E::make(small(), Vec::new()).expect("an engine");
        tell.send((io.peer(), io.waker())).expect("the test waits");
        for _ in 0..200 {
            io.wait(Wait::Until(sys::now().plus_ms(PATIENCE_MS)));
            assert!(io.next().is_none(), "a wake-up is not a completion");
            wake.send(()).expect("the test waits");
        }
    });
    let (peer, waker) = told.recv().expect("the sleeper starts");
    io.connect_peers(vec![peer]);
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
fn early_wake_ups_count_and_quiet_waits_last<E: TestEngine>() {
    let mut io = E::make(small(), Vec::new()).expect("an engine");
    io.waker().wake();
    let start = sys::now();
    io.wait(Wait::Until(start.plus_ms(PATIENCE_MS)));
    assert!(io.now().ms_since(start) < PATIENCE_MS);
    assert!(io.next().is_none());
    let turns = nothing_happens(&mut io);
    assert!((1..5).contains(&turns), "{turns} turns in one wait");
}
