//! The engine against the real kernel: loopback sockets, `std::net` clients, no sleeps.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use shards::io::sys::{self, ListenOptions};
use shards::io::uring::{RecvBuf, UringConfig, UringIo};
use shards::io::{Completion, Io, Piece, SendBatch, Wait};

const PATIENCE_MS: u64 = 20_000;

fn small() -> UringConfig {
    UringConfig {
        entries: 64,
        cq_entries: 256,
        slots: 256,
        slot_reserve: 8,
        buffers: 64,
        buffer_size: 4096,
        accepts_per_listener: 4,
    }
}

/// An engine that accepts on a loopback port.
fn engine(config: UringConfig) -> (UringIo, SocketAddr) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let listener = sys::listen(any, ListenOptions::default()).expect("a loopback listener");
    let address = listener.local_addr().expect("bound").as_socket().expect("an address");
    let mut io = UringIo::new(config, vec![listener.into()]).expect("a ring");
    io.set_accepting(true);
    (io, address)
}

/// Runs turns until `on` returns something for a completion.
fn drive<T>(
    io: &mut UringIo,
    mut on: impl FnMut(&mut UringIo, Completion<RecvBuf>) -> Option<T>,
) -> T {
    let deadline = sys::now().plus_ms(PATIENCE_MS);
    loop {
        while let Some(completion) = io.next() {
            if let Some(found) = on(io, completion) {
                return found;
            }
        }
        assert!(sys::now() < deadline, "what was waited for has not happened");
        io.wait(Wait::Until(deadline));
    }
}

fn owned(bytes: &[u8]) -> SendBatch {
    SendBatch { pieces: vec![Piece::Owned(bytes.to_vec())] }
}

/// Answers every byte, closes what the peer closes. Counts the closed.
fn echo(io: &mut UringIo, completion: Completion<RecvBuf>, closed: &mut usize) {
    match completion {
        Completion::Accepted { slot, .. } => io.receive(slot),
        Completion::Received { slot, buf } => {
            let batch = owned(&buf);
            io.recycle(buf);
            io.send(slot, batch);
        }
        Completion::Sent { slot, batch: Some(_), .. } => io.receive(slot),
        Completion::Sent { batch: None, .. } => {}
        Completion::ReceiveEnded { slot, .. } | Completion::SendFailed { slot, .. } => {
            io.close(slot);
        }
        Completion::Closed { .. } => *closed += 1,
        other => panic!("{other:?} in an echo server"),
    }
}

#[test]
fn many_connections_hear_their_own_bytes_and_every_slot_is_freed() {
    const CLIENTS: usize = 100;
    let (mut io, address) = engine(small());
    let clients = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> =
            (0..CLIENTS).map(|_| TcpStream::connect(address).expect("connected")).collect();
        for round in 0..20_usize {
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&[(i + round) as u8; 100]).expect("written");
            }
            for (i, stream) in streams.iter_mut().enumerate() {
                let mut answer = [0; 100];
                stream.read_exact(&mut answer).expect("answered");
                assert_eq!(answer, [(i + round) as u8; 100]);
            }
        }
    });
    let mut closed = 0;
    drive(&mut io, |io, completion| {
        echo(io, completion, &mut closed);
        (closed == CLIENTS).then_some(())
    });
    clients.join().expect("clients saw what they sent");
    assert_eq!(io.free_slots(), io.capacity());
}
