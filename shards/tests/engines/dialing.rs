//! The client role: connections that the engine opens itself.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use shards::io::{Completion, Dial, Errno, Slot};
use socket2::{Domain, Socket, Type};

use crate::harness::{TestEngine, close, drive, engine, on_every_engine, receive, send, small};

on_every_engine! {
    a_dialled_connection_sends_receives_and_closes_like_an_accepted_one,
    a_server_that_speaks_first_is_heard,
    a_refused_dial_says_so_and_costs_no_slot,
    a_dial_into_a_full_table_fails_alone,
    an_engine_that_ends_amid_dials_leaves_no_half_open_socket,
}

fn socket() -> OwnedFd {
    Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket").into()
}

fn dial<E: TestEngine + Dial>(io: &mut E, to: SocketAddr, token: u64) -> Result<Slot, Errno> {
    io.dial(socket(), to, token);
    drive(io, |_, completion| match completion {
        Completion::Dialed { token: answered, result } if answered == token => Some(result),
        Completion::Accepted { .. } => None,
        other => panic!("{other:?} instead of a connection"),
    })
}

fn a_dialled_connection_sends_receives_and_closes_like_an_accepted_one<E: TestEngine + Dial>() {
    let (mut server, address) = engine::<E>(small());
    let (mut client, _) = engine::<E>(small());
    client.dial(socket(), address, 7);
    let there = drive(&mut client, |_, completion| match completion {
        Completion::Dialed { token: 7, result } => Some(result.expect("connected")),
        other => panic!("{other:?} instead of a connection"),
    });
    let here = drive(&mut server, |_, completion| match completion {
        Completion::Accepted { slot, .. } => Some(slot),
        other => panic!("{other:?} instead of a connection"),
    });
    let free = client.free_slots();
    for round in 1..100_usize {
        send(&mut client, there, &vec![round as u8; round]);
        assert_eq!(receive(&mut server, here), vec![round as u8; round]);
        send(&mut server, here, &[round as u8]);
        assert_eq!(receive(&mut client, there), [round as u8]);
    }
    close(&mut client, there);
    assert_eq!(client.free_slots(), free + 1);
}

fn a_server_that_speaks_first_is_heard<E: TestEngine + Dial>() {
    let server = TcpListener::bind("127.0.0.1:0").expect("bound");
    let (mut io, _) = engine::<E>(small());
    let to = server.local_addr().expect("bound");
    let speaks = thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("connected");
        stream.write_all(b"first").expect("said");
    });
    io.dial(socket(), to, 1);
    let slot = drive(&mut io, |_, completion| match completion {
        Completion::Dialed { result, .. } => Some(result.expect("connected")),
        other => panic!("{other:?} instead of a connection"),
    });
    assert_eq!(receive(&mut io, slot), b"first");
    speaks.join().expect("said");
}

fn a_refused_dial_says_so_and_costs_no_slot<E: TestEngine + Dial>() {
    let (mut io, _) = engine::<E>(small());
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = closed.local_addr().expect("bound");
    drop(closed);
    let free = io.free_slots();
    for token in 0..2 * u64::from(free) {
        assert_eq!(dial(&mut io, nobody, token), Err(Errno(libc::ECONNREFUSED)));
    }
    let (_server, other) = engine::<E>(small());
    assert!(dial(&mut io, other, 1 << 40).is_ok());
    assert_eq!(io.free_slots(), free - 1);
}

fn a_dial_into_a_full_table_fails_alone<E: TestEngine + Dial>() {
    let mut config = small();
    (config.slots, config.slot_reserve) = (16, 2);
    let (mut io, _) = engine::<E>(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("bound");
    let mut slots = Vec::new();
    let refused = loop {
        match dial(&mut io, to, slots.len() as u64) {
            Ok(slot) => slots.push(slot),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, Errno(libc::ENFILE));
    assert_eq!(slots.len() as u32, 16);
    close(&mut io, slots[3]);
    assert!(dial(&mut io, to, 99).is_ok(), "a freed slot can be dialled again");
}

fn an_engine_that_ends_amid_dials_leaves_no_half_open_socket<E: TestEngine + Dial>() {
    // The backlog of one is full, so later connects stay under way.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&any.into()).expect("bound");
    listener.listen(1).expect("listening");
    let to = listener.local_addr().expect("bound").as_socket().expect("an address");
    let (mut io, _) = engine::<E>(small());
    for token in 0..16 {
        io.dial(socket(), to, token);
    }
    drive(&mut io, |_, completion| matches!(completion, Completion::Dialed { .. }).then_some(()));
    drop(io);
    listener.set_nonblocking(true).expect("an option");
    let mut ended = 0;
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(false).expect("an option");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
        let mut bytes = [std::mem::MaybeUninit::uninit(); 1];
        let heard = stream.recv(&mut bytes).map_err(|error| error.kind());
        assert!(matches!(heard, Ok(0) | Err(ErrorKind::ConnectionReset)), "its end: {heard:?}");
        ended += 1;
    }
    assert!(ended > 0, "at least the first was connected, and its end was told");
}
