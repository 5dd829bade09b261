//! Goal: at each of its limits the gateway slows those who reach for more, never spins, never
//! forgets what it acknowledged, and is as before when they let go.
//!
//! Method: small limits, and clients that take all they can get; gauges, memory and processor time
//! of the process while they do.

mod common;
mod fault;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use codec::{MessageId, PublishKind};
use common::{Client, Gateway, PATIENCE, Seen, Setup, Stream, Want, eventually, id};
use fault::{Healthy, Process, within};

#[test]
fn a_rush_of_logins_is_admitted_at_the_rate_and_nobody_is_turned_away() {
    const RATE: u32 = 20;
    const CLIENTS: u32 = 100;
    let gateway = Arc::new(Setup::new().set("limits.logins_per_second", RATE).start());
    let mut ann = gateway.login(1);
    let mut ben = gateway.login(2);
    let start = Instant::now();
    let clients: Vec<JoinHandle<Client>> = (100..100 + CLIENTS)
        .map(|user| {
            let gateway = Arc::clone(&gateway);
            std::thread::spawn(move || gateway.login(user))
        })
        .collect();
    // Whoever is in talks on.
    for number in 1..=50 {
        ann.publish(Want::User(2), id(number), "hello");
        ben.take_push(id(number), "hello");
        ann.expect_ack(PublishKind::User, id(number));
    }
    for client in clients {
        drop(client.join().expect("everybody comes in"));
    }
    let took = start.elapsed();
    println!("{CLIENTS} logins at {RATE} per second took {took:?}");
    // A second's worth may have been saved up, and a few accepts are always under way.
    let least = Duration::from_secs(1) * (CLIENTS - RATE - 20) / RATE;
    assert!(took >= least, "{took:?}, not {least:?}");
}

#[test]
fn without_a_free_slot_newcomers_wait_without_a_spin_and_slots_come_back() {
    let gateway = Setup::new().set("limits.connections_per_shard", 16).start();
    let healthy = Healthy::talk(&gateway);
    let mut ann = gateway.login(1);
    let mut idle = Vec::new();
    eventually("no more are accepted", || {
        idle.push(TcpStream::connect(gateway.site().ws()).expect("the backlog has room"));
        gateway.metric("ringpost_accepting") == 0
    });
    for _ in 0..30 {
        idle.push(TcpStream::connect(gateway.site().ws()).expect("the backlog has room"));
    }
    let process = Process(gateway.pid());
    let (cpu, start) = (process.cpu(), Instant::now());
    // Nothing is to be seen for so long: the time in which a spin would show.
    assert_eq!(ann.see(Duration::from_secs(2)), None);
    let share = (process.cpu() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("without a slot: {:.1} % of a processor", share * 100.0);
    assert!(share < 0.25, "{share} of a processor to accept nobody");
    assert!(gateway.metric("ringpost_connections") <= 16);
    ann.publish_safely(Want::User(2), id(1), "not affected");
    drop(idle);
    for user in 10..20 {
        let mut client = None;
        within(PATIENCE, "a login when slots are free", || {
            client = try_login(&gateway, user);
            client.is_some()
        });
        client.expect("it was waited for").publish_safely(Want::User(2), id(user), "back");
    }
    healthy.assert_unaffected();
}

#[test]
fn a_flood_to_a_silent_receiver_is_slowed_bounded_and_not_lost() {
    const MESSAGES: u32 = 10_000;
    let gateway = Setup::new().set("store.user_max_messages", 100_000).start();
    let healthy = Healthy::talk(&gateway);
    let mut ann = gateway.login(1);
    let silent = gateway.login(2);
    let process = Process(gateway.pid());
    let memory = process.memory();
    let ids: Vec<MessageId> = (1..=MESSAGES).map(id).collect();
    let body = "y".repeat(100);
    let packets = ids.iter().map(|id| Want::User(2).publish(*id, body.as_bytes())).collect();
    let writer = write_all(&ann, packets);
    let (mut acked, mut most) = (0, 0);
    let mut look = Instant::now();
    while acked < MESSAGES {
        match ann.next() {
            Seen::Ack(PublishKind::User, _) => acked += 1,
            other => panic!("{other:?} to a publisher"),
        }
        if look.elapsed() > Duration::from_millis(20) {
            look = Instant::now();
            most = most.max(gateway.metric("ringpost_publishes_outstanding"));
        }
    }
    writer.join().expect("it was only slowed");
    let grown = process.memory().saturating_sub(memory);
    println!("{MESSAGES} publishes: at most {most} outstanding, {} KiB more", grown >> 10);
    // The bound, what one receive of 4 KiB may bring beyond it, and the healthy pair's one.
    assert!(most <= 256 + 4096 / 150 + 1, "{most} publishes outstanding");
    assert!(grown < 64 << 20, "{grown} bytes");
    drop(silent);
    let seen = fault::collect(&mut gateway.login(2), &ids);
    let mut order: Vec<MessageId> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for (id, said) in seen {
        assert!(said == body.as_bytes());
        if known.insert(id.as_bytes().to_vec()) {
            order.push(id);
        }
    }
    assert!(order == ids, "in the order in which they were published");
    healthy.assert_unaffected();
}

#[test]
fn a_full_store_queue_slows_publishers_and_nobody_who_needs_no_store() {
    const SENDERS: u32 = 8;
    const MESSAGES: u32 = 1_500;
    let setup = Setup::new().shards(2).set("store.queue", 16);
    let gateway = Arc::new(setup.set("store.user_max_messages", 100_000).start());
    let healthy = Healthy::talk(&gateway);
    let numbers = |user: u32| (user * 100_000..user * 100_000 + MESSAGES).map(id);
    let senders: Vec<_> = (1..=SENDERS)
        .map(|user| {
            let mut client = gateway.login(user);
            let to = Want::User(50 + user % 4);
            let packets = numbers(user).map(|id| to.publish(id, &[b'z'; 200])).collect();
            std::thread::spawn(move || {
                let writer = write_all(&client, packets);
                for _ in 0..MESSAGES {
                    assert!(matches!(client.next(), Seen::Ack(PublishKind::User, _)));
                }
                writer.join().expect("it was only slowed");
            })
        })
        .collect();
    for sender in senders {
        sender.join().expect("everything is acknowledged in the end");
    }
    let held = gateway.metric("ringpost_publishers_held_total");
    let full = gateway.metric("ringpost_store_queue_full_total");
    println!("publishers were held {held} times, the queue was full {full} times");
    assert!(held > 0, "the queue was never over half full");
    assert_eq!(gateway.metric("ringpost_publishers_not_read"), 0, "all are read again");
    for receiver in 50..54 {
        let from = (1..=SENDERS).filter(|user| 50 + user % 4 == receiver);
        let owed: Vec<MessageId> = from.flat_map(numbers).collect();
        fault::collect(&mut gateway.login(receiver), &owed);
    }
    healthy.assert_unaffected();
}

#[test]
fn a_publisher_that_reads_no_acknowledgements_is_read_no_more_until_it_does() {
    const COPIES: usize = 300_000;
    let gateway = Setup::new().start();
    let healthy = Healthy::talk(&gateway);
    let mut ann = gateway.login(1);
    ann.publish_safely(Want::User(9), id(1), "known");
    let process = Process(gateway.pid());
    let memory = process.memory();
    // Resends of a message that is safe: each is owed an acknowledgement at once.
    let packet = Want::User(9).publish(id(1), b"known");
    let writer = write_all(&ann, vec![packet; COPIES]);
    let read = || gateway.metric("ringpost_duplicates_total");
    let mut before = 0;
    within(PATIENCE, "it is no longer read", || {
        let now = read();
        let stands = now > 0 && now == before;
        before = now;
        std::thread::park_timeout(Duration::from_millis(300));
        stands
    });
    println!("{before} of {COPIES} resends were read");
    assert!(before < COPIES as u64, "all of them were read");
    let grown = process.memory().saturating_sub(memory);
    assert!(grown < 16 << 20, "{grown} bytes for acknowledgements that nobody reads");
    for _ in 0..COPIES {
        ann.expect_ack(PublishKind::User, id(1));
    }
    writer.join().expect("it was only slowed");
    healthy.assert_unaffected();
}

/// Writes packets, each as a masked frame, as fast as the gateway takes them, from a thread.
fn write_all(client: &Client, packets: Vec<Vec<u8>>) -> JoinHandle<()> {
    let Stream::Plain(socket) = client.socket.get_ref() else { panic!("these are plain") };
    let mut socket = socket.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        for packets in packets.chunks(256) {
            bytes.clear();
            for packet in packets {
                // A mask of zeros leaves the packet as it is.
                bytes.extend_from_slice(&[0x82, 0x80 | 126]);
                bytes.extend_from_slice(&(packet.len() as u16).to_be_bytes());
                bytes.extend_from_slice(&[0; 4]);
                bytes.extend_from_slice(packet);
                if packet.len() < 126 {
                    // The shortest form is the only one.
                    let start = bytes.len() - packet.len() - 8;
                    bytes.drain(start + 2..start + 4);
                    bytes[start + 1] = 0x80 | packet.len() as u8;
                }
            }
            socket.write_all(&bytes).expect("the connection stays open");
        }
    })
}

/// `None`: not now.
fn try_login(gateway: &Gateway, user: u32) -> Option<Client> {
    let mut client = gateway.try_dial()?;
    let name = format!("u{user}");
    let tail = codec::binary::client::Tail::Plain;
    fault::try_send(&mut client, common::connect_packet(&name, "", tail));
    (client.see(PATIENCE) == Some(Seen::ConnectAck(0))).then_some(client)
}
