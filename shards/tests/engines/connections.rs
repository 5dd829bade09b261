//! One engine: receive, send, close and everything that can come between them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use shards::io::uring::{UringConfig, UringIo};
use shards::io::{Completion, Errno, Piece, SendBatch, Sizes, Slot, Wait};
use socket2::SockRef;

use crate::harness::*;

on_every_engine! {
    many_connections_hear_their_own_bytes_and_every_slot_is_freed,
    bytes_arrive_in_order_however_they_are_cut,
    a_large_batch_is_finished_piece_by_piece_for_a_slow_reader,
    a_peers_end_and_a_peers_reset_are_told_apart,
    a_close_ends_an_armed_receive_and_the_peer_sees_the_end,
    a_close_beside_arriving_bytes_keeps_the_buffer,
    a_close_cancels_a_send_to_a_frozen_peer_and_gives_the_batch_back,
    an_empty_buffer_pool_only_delays_receives,
    a_stale_handle_touches_nobody,
    unsent_counts_what_the_peer_has_not_taken,
    an_engine_dropped_with_everything_in_flight_closes_its_connections,
}

fn shared(bytes: &Arc<[u8]>, times: usize) -> SendBatch {
    (0..times).map(|_| Piece::Shared(Arc::clone(bytes))).collect()
}

/// Clients that each send `rounds` messages and check that the same comes back.
fn echo_clients(address: SocketAddr, count: usize, rounds: usize) {
    let mut streams: Vec<TcpStream> = (0..count).map(|_| client(address)).collect();
    for round in 0..rounds {
        for (i, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&[(i + round) as u8; 100]).expect("written");
        }
        for (i, stream) in streams.iter_mut().enumerate() {
            let mut answer = [0; 100];
            stream.read_exact(&mut answer).expect("answered");
            assert_eq!(answer, [(i + round) as u8; 100]);
        }
    }
}

fn every_client_is_answered<E: TestEngine>(
    mut io: E,
    address: SocketAddr,
    count: usize,
    rounds: usize,
) {
    let clients = thread::spawn(move || echo_clients(address, count, rounds));
    let mut closed = 0;
    drive(&mut io, |io, completion| {
        echo(io, completion, &mut closed);
        (closed == count).then_some(())
    });
    clients.join().expect("clients saw what they sent");
    assert_eq!(io.free_slots(), io.capacity());
}

fn many_connections_hear_their_own_bytes_and_every_slot_is_freed<E: TestEngine>() {
    let (io, address) = engine::<E>(small());
    every_client_is_answered(io, address, 1, 200);
    let (io, address) = engine::<E>(small());
    every_client_is_answered(io, address, 200, 20);
}

/// Goal: a full submission queue and an overflowing completion queue cost nothing but time.
#[test]
fn tiny_queues_lose_no_completion() {
    let config = UringConfig { entries: 2, cq_entries: 4, ..small().into() };
    let (io, address) = accepting(|listener| UringIo::new(config, vec![listener]));
    every_client_is_answered(io, address, 200, 10);
}

fn bytes_arrive_in_order_however_they_are_cut<E: TestEngine>() {
    let (mut io, address) = engine::<E>(Sizes { buffer_size: 64, ..small() });
    let (mut stream, slot) = connect(&mut io, address);
    let sent = pattern(10_000);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        let mut rest = &copy[..];
        for len in (1..).map(|i| i * 7 % 301 + 1) {
            let (now, later) = rest.split_at(len.min(rest.len()));
            stream.write_all(now).expect("written");
            rest = later;
            if rest.is_empty() {
                return stream;
            }
        }
        unreachable!("every round writes")
    });
    let mut received = Vec::new();
    while received.len() < sent.len() {
        let bytes = receive(&mut io, slot);
        assert!((1..=64).contains(&bytes.len()));
        received.extend(bytes);
    }
    assert!(received == sent);
    drop(writer.join().expect("written"));
}

/// Goal: a batch far larger than the socket's buffer goes out whole, in order, reported as it
/// goes, and comes back. Method: the reader starts only after the first short send.
fn a_large_batch_is_finished_piece_by_piece_for_a_slow_reader<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let (mut stream, slot) = connect(&mut io, address);
    let bytes = pattern(12_000_000);
    let mut pieces: Vec<Piece> = Vec::new();
    for (i, part) in bytes.chunks(9_973).enumerate() {
        let shared = i % 2 == 1;
        pieces.push(if shared { Piece::Shared(part.into()) } else { Piece::Owned(part.to_vec()) });
        pieces.push(Piece::Owned(Vec::new()));
    }
    let count = pieces.len();
    io.send(slot, pieces.into_iter().collect());
    let (start, started) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        started.recv().expect("the sender lives");
        let mut read = vec![0; 12_000_000];
        stream.read_exact(&mut read).expect("all of it");
        read
    });
    let (mut total, mut short) = (0, 0);
    let batch = drive(&mut io, |_, completion| match completion {
        Completion::Sent { slot: from, bytes, batch } if from == slot && bytes > 0 => {
            total += bytes;
            if batch.is_none() {
                short += 1;
                let _ = start.send(());
            }
            batch
        }
        other => panic!("{other:?} instead of a send"),
    });
    assert_eq!((total, batch.len(), batch.pieces.len()), (bytes.len(), bytes.len(), count));
    assert!(short > 0, "the socket took 12 MB at once");
    assert!(reader.join().expect("read") == bytes);
}

fn a_peers_end_and_a_peers_reset_are_told_apart<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let (stream, slot) = connect(&mut io, address);
    io.receive(slot);
    stream.shutdown(Shutdown::Write).expect("shut down");
    drive(&mut io, |_, completion| match completion {
        Completion::ReceiveEnded { slot: from, error: None } if from == slot => Some(()),
        other => panic!("{other:?} instead of an end"),
    });
    close(&mut io, slot);
    let (stream, slot) = connect(&mut io, address);
    io.receive(slot);
    io.wait(Wait::Poll);
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(stream);
    drive(&mut io, |_, completion| match completion {
        Completion::ReceiveEnded { slot: from, error: Some(Errno(libc::ECONNRESET)) } => {
            (from == slot).then_some(())
        }
        other => panic!("{other:?} instead of a reset"),
    });
    io.send(slot, owned(b"too late"));
    drive(&mut io, |_, completion| match completion {
        Completion::SendFailed { slot: from, error: Errno(libc::EPIPE), batch } => {
            (from == slot && batch.len() == 8).then_some(())
        }
        other => panic!("{other:?} instead of a failed send"),
    });
    close(&mut io, slot);
}

/// Goal: closing needs nothing from the peer, whatever is armed, and the peer hears it at once.
fn a_close_ends_an_armed_receive_and_the_peer_sees_the_end<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    for turns in 0..3 {
        let (mut stream, slot) = connect(&mut io, address);
        let (_idle, other) = connect(&mut io, address);
        io.receive(other);
        io.receive(slot);
        (0..turns).for_each(|_| io.wait(Wait::Poll));
        io.close(slot);
        io.close(slot);
        drive(&mut io, |_, completion| match completion {
            Completion::Closed { slot: closed } => (closed == slot).then_some(()),
            other => panic!("{other:?} instead of a close"),
        });
        assert_eq!(stream.read(&mut [0; 8]).expect("the end, not a time-out"), 0);
        close(&mut io, other);
    }
    assert_eq!(io.free_slots(), io.capacity());
}

/// Goal: bytes that arrive while a close is on its way are not reported, and their buffer is not
/// lost. Method: the pool has one buffer, which another connection uses afterwards.
fn a_close_beside_arriving_bytes_keeps_the_buffer<E: TestEngine>() {
    let (mut io, address) = engine::<E>(Sizes { buffers: 1, ..small() });
    for turns in 0..3 {
        let (mut stream, slot) = connect(&mut io, address);
        stream.write_all(b"unread").expect("written");
        io.receive(slot);
        (0..turns).for_each(|_| io.wait(Wait::Poll));
        io.close(slot);
        drive(&mut io, |io, completion| match completion {
            Completion::Closed { .. } => Some(()),
            Completion::Received { buf, .. } => {
                io.recycle(buf);
                None
            }
            other => panic!("{other:?} instead of a close"),
        });
        let (mut stream, slot) = connect(&mut io, address);
        stream.write_all(b"heard").expect("written");
        assert_eq!(receive(&mut io, slot), b"heard");
        close(&mut io, slot);
    }
}

fn a_close_cancels_a_send_to_a_frozen_peer_and_gives_the_batch_back<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let (mut stream, slot) = connect(&mut io, address);
    let bytes = Arc::<[u8]>::from(pattern(16_000_000));
    io.send(slot, shared(&bytes, 1));
    io.receive(slot);
    drive(&mut io, |_, completion| matches!(completion, Completion::Sent { .. }).then_some(()));
    io.close(slot);
    let mut failed = false;
    drive(&mut io, |_, completion| match completion {
        Completion::SendFailed { slot: from, error, batch } => {
            assert_eq!((from, error, batch.len()), (slot, Errno(libc::ECANCELED), bytes.len()));
            failed = true;
            None
        }
        Completion::Sent { batch: None, .. } => None,
        Completion::Closed { .. } => Some(()),
        other => panic!("{other:?} while closing"),
    });
    assert!(failed);
    assert_eq!(Arc::strong_count(&bytes), 1, "the engine kept the bytes");
    let mut read = Vec::new();
    stream.read_to_end(&mut read).expect("the rest of the socket, then the end");
    assert!(read.len() < bytes.len() && bytes.starts_with(&read));
}

/// Goal: an empty pool delays receives, neither failing nor spinning. Method: 50 connections have
/// bytes waiting before the first receive is armed; the pool has two buffers, held for a while.
fn an_empty_buffer_pool_only_delays_receives<E: TestEngine>() {
    const CLIENTS: usize = 50;
    let (mut io, address) = engine::<E>(Sizes { buffers: 2, ..small() });
    let pairs: Vec<(TcpStream, Slot)> = (0..CLIENTS).map(|_| connect(&mut io, address)).collect();
    for (mut stream, slot) in pairs.iter().map(|(stream, slot)| (stream, *slot)) {
        stream.write_all(&slot.index.to_ne_bytes()).expect("written");
        io.receive(slot);
    }
    let mut held = Vec::new();
    drive(&mut io, |_, completion| {
        let Completion::Received { buf, .. } = completion else { panic!("{completion:?}") };
        held.push(buf);
        (held.len() == 2).then_some(())
    });
    nothing_happens(&mut io);
    let missed = no_buffer(&io);
    assert!(missed >= CLIENTS as u64 - 2);
    assert!(nothing_happens(&mut io) < 10, "waiting for buffers spins");
    assert_eq!(no_buffer(&io), missed);
    held.into_iter().for_each(|buf| io.recycle(buf));
    let mut left = CLIENTS - 2;
    drive(&mut io, |io, completion| {
        let Completion::Received { slot, buf } = completion else { panic!("{completion:?}") };
        assert_eq!(*buf, slot.index.to_ne_bytes());
        io.recycle(buf);
        left -= 1;
        (left == 0).then_some(())
    });
}

/// Goal: a handle to a closed connection does nothing to its successor in the same slot.
fn a_stale_handle_touches_nobody<E: TestEngine>() {
    let config = Sizes { slots: 2, slot_reserve: 1, ..small() };
    let (mut io, address) = engine::<E>(config);
    let (_, mut stale) = connect(&mut io, address);
    close(&mut io, stale);
    let (mut stream, mut slot) = connect(&mut io, address);
    while slot.index != stale.index {
        close(&mut io, slot);
        stale = if stale.index == slot.index { slot } else { stale };
        (stream, slot) = connect(&mut io, address);
    }
    assert_ne!(slot.generation, stale.generation);
    io.send(stale, owned(b"to nobody"));
    io.receive(stale);
    io.unsent(stale);
    io.hand_over(stale, 0, 1);
    io.close(stale);
    nothing_happens(&mut io);
    stream.write_all(b"still here").expect("written");
    assert_eq!(receive(&mut io, slot), b"still here");
    send(&mut io, slot, b"and you");
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"and you");
}

/// `None`: the kernel cannot be asked.
fn unsent<E: TestEngine>(io: &mut E, slot: Slot) -> Option<u32> {
    io.unsent(slot);
    drive(io, |_, completion| match completion {
        Completion::Unsent { slot: from, bytes } if from == slot => Some(bytes),
        // A part of what is being sent, as the peer's window grows.
        Completion::Sent { batch: None, .. } => None,
        other => panic!("{other:?} instead of a count"),
    })
}

fn unsent_counts_what_the_peer_has_not_taken<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let (mut stream, slot) = connect(&mut io, address);
    if !E::counts_unsent() {
        // The kernel's own answer, and the one that is given without asking it again.
        assert_eq!((unsent(&mut io, slot), unsent(&mut io, slot)), (None, None));
        stream.write_all(b"no harm done").expect("written");
        assert_eq!(receive(&mut io, slot), b"no harm done");
        return;
    }
    assert_eq!(unsent(&mut io, slot), Some(0));
    let bytes = pattern(16_000_000);
    io.send(slot, owned(&bytes));
    drive(&mut io, |_, completion| matches!(completion, Completion::Sent { .. }).then_some(()));
    let waiting = unsent(&mut io, slot);
    assert!(waiting > Some(0), "a peer that reads nothing took everything: {waiting:?}");
    let reader = thread::spawn(move || {
        let mut read = vec![0; 16_000_000];
        stream.read_exact(&mut read).expect("all of it");
        stream
    });
    drive(&mut io, |_, completion| match completion {
        Completion::Sent { batch, .. } => batch.map(drop),
        other => panic!("{other:?} instead of a send"),
    });
    let _stream = reader.join().expect("read");
    while unsent(&mut io, slot) > Some(0) {}
}

/// Goal: nothing the kernel still uses goes before it is done with it. Method: accepts, polls, a
/// stuck send, a buffer on loan and the waker are all outstanding when the engine is dropped.
fn an_engine_dropped_with_everything_in_flight_closes_its_connections<E: TestEngine>() {
    let (mut io, address) = engine::<E>(small());
    let bytes = Arc::<[u8]>::from(pattern(16_000_000));
    let pairs: Vec<(TcpStream, Slot)> = (0..7).map(|_| connect(&mut io, address)).collect();
    for (_, slot) in &pairs[..5] {
        io.receive(*slot);
        io.send(*slot, shared(&bytes, 3));
    }
    let (mut stream, slot) = (&pairs[5].0, pairs[5].1);
    stream.write_all(b"on loan").expect("written");
    io.receive(slot);
    let loan = drive(&mut io, |_, completion| match completion {
        Completion::Received { buf, .. } => Some(buf),
        _ => None,
    });
    io.send(pairs[6].1, shared(&bytes, 2));
    let waker = io.waker();
    drop(io);
    waker.wake();
    assert_eq!(&*loan, b"on loan");
    assert_eq!(Arc::strong_count(&bytes), 1, "batches outlive the engine");
    for (mut stream, _) in pairs {
        let mut sink = Vec::new();
        let end = stream.read_to_end(&mut sink);
        assert!(end.is_ok() || end.is_err_and(|e| e.raw_os_error() == Some(libc::ECONNRESET)));
    }
    assert!(TcpStream::connect(address).is_err(), "the listener is still open");
}
