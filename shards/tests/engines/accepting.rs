//! Admission: the switch, the reserve, the full table, listeners that fail.

use std::io::{Read, Write};
use std::net::TcpStream;

use shards::io::sys;
use shards::io::uring::{UringConfig, UringIo};
use shards::io::{Completion, Errno, Sizes, Slot, Wait};
use socket2::{Domain, Socket, Type};

use crate::harness::*;

on_every_engine! {
    withdrawn_accepts_leave_connections_to_whoever_accepts_next,
    a_full_table_accepts_again_when_a_slot_is_freed,
    a_failing_listener_backs_off,
    sizes_that_contradict_each_other_are_named,
}

fn withdrawn_accepts_leave_connections_to_whoever_accepts_next<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let (_first, _) = connect(&mut io, address);
    io.set_accepting(false);
    nothing_happens(&mut io);
    let stream = client(address);
    nothing_happens(&mut io);
    io.set_accepting(true);
    let local = stream.local_addr().expect("connected");
    drive(&mut io, |_, completion| match completion {
        Completion::Accepted { peer, .. } => (peer == local).then_some(()),
        other => panic!("{other:?} instead of a connection"),
    });
}

/// Goal: what the table cannot hold above its reserve waits in the kernel and is let in as soon as
/// a slot is freed; nobody is turned away.
fn a_full_table_accepts_again_when_a_slot_is_freed<E: TestEngine>() {
    let (mut io, address) = engine::<E>(Sizes { slots: 8, slot_reserve: 2, ..small() });
    let mut streams: Vec<TcpStream> = (0..10).map(|_| client(address)).collect();
    let mut slots: Vec<Slot> = Vec::new();
    drive(&mut io, |_, completion| match completion {
        Completion::Accepted { slot, .. } => {
            slots.push(slot);
            (slots.len() == 6).then_some(())
        }
        other => panic!("{other:?} instead of a connection"),
    });
    assert!(nothing_happens(&mut io) < 10, "a full table spins");
    assert_eq!(io.free_slots(), 2);
    for _ in 0..4 {
        io.close(slots.remove(0));
        drive(&mut io, |_, completion| match completion {
            Completion::Closed { .. } => None,
            Completion::Accepted { slot, .. } => {
                slots.push(slot);
                Some(())
            }
            other => panic!("{other:?} instead of a connection"),
        });
    }
    for stream in &mut streams[4..] {
        stream.write_all(b"x").expect("written");
    }
    for slot in slots {
        assert_eq!(receive(&mut io, slot), b"x");
        close(&mut io, slot);
    }
    for stream in &mut streams[4..] {
        assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0);
    }
}

/// Goal: a listener that cannot accept is retried at intervals. Method: a socket that was never
/// told to listen fails every accept.
fn a_failing_listener_backs_off<E: TestEngine>() {
    let broken = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let mut io = E::make(small(), vec![broken.into()]).expect("a ring");
    io.set_accepting(true);
    let start = sys::now();
    let (mut failures, mut turns) = (0, 0);
    // The second and the third round wait 100 ms each.
    while failures < 3 * E::ACCEPTS_AT_ONCE {
        assert!(sys::now() < start.plus_ms(PATIENCE_MS), "{failures} failures");
        io.wait(Wait::Until(start.plus_ms(PATIENCE_MS)));
        turns += 1;
        while let Some(completion) = io.next() {
            match completion {
                Completion::AcceptFailed { listener: 0, error: Errno(libc::EINVAL) } => {
                    failures += 1;
                }
                other => panic!("{other:?} instead of a failed accept"),
            }
        }
    }
    assert!(sys::now() >= start.plus_ms(200), "{failures} failures without a pause");
    assert!(turns < 40, "{turns} turns for three rounds");
}

fn sizes_that_contradict_each_other_are_named<E: TestEngine>() {
    let refused = |sizes: Sizes| {
        E::open(sizes, Vec::new()).map(drop).expect_err("impossible sizes").to_string()
    };
    assert!(refused(Sizes { slots: 8, slot_reserve: 8, ..small() }).contains("slot_reserve"));
    assert!(refused(Sizes { buffers: 0, ..small() }).contains("buffers"));
    assert!(refused(Sizes { buffer_size: 0, ..small() }).contains("buffer_size"));
    assert!(refused(Sizes { accepts_per_listener: 0, ..small() }).contains("accepts_per_listener"));
}

#[test]
fn sizes_that_no_ring_can_have_are_named() {
    let refused = |config: UringConfig| {
        UringIo::new(config, Vec::new()).expect_err("impossible sizes").to_string()
    };
    assert!(refused(UringConfig { entries: 0, ..small().into() }).contains("entries"));
    let error = refused(Sizes { slots: u32::MAX, ..small() }.into());
    assert!(error.contains("limit of open files") && error.contains("Fix:"), "{error}");
}
