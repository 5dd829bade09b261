//! Goal: no acknowledged message is lost when the gateway is killed.
//!
//! Method: senders and receivers of every sort (direct, group, back end; quick, silent, offline)
//! are under way when SIGKILL comes, twenty times on one store. What a message says and to whom it
//! goes follows from its number, so every receiver can judge what he gets; at the end every message
//! that was acknowledged to its sender must have come to each of its recipients.

mod common;
mod fault;

use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use codec::{MessageId, PublishKind};
use common::{Client, Door, Gateway, PATIENCE, Seen, Setup, Site, Stream, Want, eventually, id};
use fault::try_send;

const ROUNDS: u32 = 20;
/// The last of the senders, behind three users; it publishes to users only.
const BACK_END: u32 = 4;
const QUICK: [u32; 2] = [11, 12];
/// Reads and never acknowledges before the end.
const SILENT: u32 = 13;
/// Logs in at the end for the first time.
const OFFLINE: u32 = 14;
const RECEIVERS: [u32; 4] = [QUICK[0], QUICK[1], SILENT, OFFLINE];
const GROUP: u32 = 100;
/// The users who send, and every receiver.
const MEMBERS: [u32; 7] = [1, 2, 3, QUICK[0], QUICK[1], SILENT, OFFLINE];
/// Unacknowledged publishes of one sender.
const IN_FLIGHT: usize = 16;
/// Numbers of one sender.
const NUMBERS: u32 = 10_000_000;

#[test]
fn twenty_kills_under_load_lose_nothing_acknowledged() {
    let setup = Setup::new()
        .shards(2)
        .set("delivery.retry_interval_ms", 100)
        .set("delivery.retry_max", 1)
        .set("store.user_max_messages", 1_000_000);
    let mut site = Site::new(setup.group(GROUP, &MEMBERS));
    let mut senders: Vec<Sender> = (1..=BACK_END).map(Sender::new).collect();
    let mut receivers: Vec<Receiver> = RECEIVERS.map(Receiver::new).into();
    let mut random = Random(0x5eed);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let gateway = Arc::new(site.start());
        (senders, receivers) = one_round(&gateway, senders, receivers, 50 + random.below(10_000));
        let gateway = Arc::into_inner(gateway).expect("every client has ended");
        site = gateway.kill();
    }
    let rounds_took = start.elapsed();
    let dead = site.good(&["deadletter", "list"]).lines().count();
    site.good(&["deadletter", "requeue", "--all"]);
    let gateway = Arc::new(site.start());
    for receiver in receivers.iter_mut().filter(|receiver| receiver.user == SILENT) {
        // What he has seen and never acknowledged must come again.
        receiver.got.clear();
    }
    receivers.extend(senders.iter_mut().filter_map(|sender| sender.inbox.take()));
    let receivers = take_the_rest(&gateway, receivers, &senders);
    report(&senders, &receivers, dead, rounds_took);
}

/// Load until so many more messages are acknowledged, then SIGKILL.
fn one_round(
    gateway: &Arc<Gateway>,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    goal: u32,
) -> (Vec<Sender>, Vec<Receiver>) {
    let acked = Arc::new(AtomicU32::new(0));
    let publish = |mut sender: Sender| {
        let (gateway, acked) = (Arc::clone(gateway), Arc::clone(&acked));
        std::thread::spawn(move || {
            sender.publish_until_the_end(&gateway, &acked);
            sender
        })
    };
    let receive = |mut receiver: Receiver| {
        let gateway = Arc::clone(gateway);
        std::thread::spawn(move || {
            receiver.receive_until_the_end(&gateway);
            receiver
        })
    };
    let receiving: Vec<_> = receivers.into_iter().map(receive).collect();
    let publishing: Vec<_> = senders.into_iter().map(publish).collect();
    eventually("the load goes on", || acked.load(Ordering::Relaxed) >= goal);
    gateway.signal("KILL");
    (joined(publishing), joined(receiving))
}

fn joined<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("no client was surprised")).collect()
}

/// Everybody logs in and acknowledges everything, in time or not at all.
fn take_the_rest(
    gateway: &Arc<Gateway>,
    receivers: Vec<Receiver>,
    senders: &[Sender],
) -> Vec<Receiver> {
    let safe: Vec<u32> = senders.iter().flat_map(|sender| sender.safe.clone()).collect();
    let take = |mut receiver: Receiver| {
        let gateway = Arc::clone(gateway);
        let mine = |number: &u32| recipients(*number).contains(&receiver.user);
        let wanted: Vec<u32> = safe.iter().copied().filter(mine).collect();
        std::thread::spawn(move || {
            let mut client = gateway.login(receiver.user);
            // What has not come by then is counted as lost.
            let end = Instant::now() + PATIENCE;
            let missing = |receiver: &Receiver| wanted.iter().find(|n| !receiver.got.contains(n));
            let mut next = missing(&receiver).copied();
            while let Some(number) = next
                && Instant::now() < end
            {
                receiver.take(&mut client, Duration::from_secs(1), true);
                if receiver.got.contains(&number) {
                    next = missing(&receiver).copied();
                }
            }
            receiver
        })
    };
    joined(receivers.into_iter().map(take).collect())
}

fn report(senders: &[Sender], receivers: &[Receiver], dead: usize, took: Duration) {
    let published: u32 = senders.iter().map(|sender| sender.next - sender.first).sum();
    let safe: usize = senders.iter().map(|sender| sender.safe.len()).sum();
    let owed: usize = senders
        .iter()
        .flat_map(|sender| &sender.safe)
        .map(|number| recipients(*number).len())
        .sum();
    let copies: usize = receivers.iter().map(|receiver| receiver.copies).sum();
    let missing: usize = senders
        .iter()
        .flat_map(|sender| &sender.safe)
        .flat_map(|number| recipients(*number).into_iter().map(move |user| (number, user)))
        .filter(|(number, user)| {
            let receiver = receivers.iter().find(|receiver| receiver.user == *user);
            !receiver.expect("every recipient took part").got.contains(number)
        })
        .count();
    println!(
        "{ROUNDS} kills in {took:.1?}: {published} published, {safe} acknowledged, {owed} \
         deliveries owed for them, {copies} copies received, {dead} dead letters put back, \
         {missing} lost"
    );
    assert_eq!(missing, 0);
    assert!(safe >= 20 * ROUNDS as usize, "there was hardly any load");
}

/// To whom a message goes.
fn target(number: u32) -> Want<'static> {
    let back_end = number / NUMBERS == BACK_END;
    match number % 5 {
        0 if !back_end => Want::Group(GROUP),
        0 | 1 => Want::User(QUICK[0]),
        2 => Want::User(QUICK[1]),
        3 => Want::User(SILENT),
        _ => Want::User(OFFLINE),
    }
}

fn recipients(number: u32) -> Vec<u32> {
    match target(number) {
        Want::User(user) => vec![user],
        _ => MEMBERS.into_iter().filter(|member| *member != number / NUMBERS).collect(),
    }
}

/// What a message says: its number, and some more whose length differs.
fn body(number: u32) -> String {
    format!("message {number} {}", "x".repeat((number % 1500) as usize))
}

fn number_of(id: &MessageId) -> u32 {
    let text = std::str::from_utf8(id.as_bytes()).expect("our ids are text");
    u32::from_str_radix(text.trim_start_matches('0'), 16).expect("our ids are numbers")
}

struct Sender {
    user: u32,
    first: u32,
    next: u32,
    /// Published and not acknowledged, oldest first: published again at the next start.
    waiting: Vec<u32>,
    safe: Vec<u32>,
    /// What comes to him as a member of the group.
    inbox: Option<Receiver>,
}

impl Sender {
    fn new(user: u32) -> Self {
        let first = user * NUMBERS;
        let inbox = Some(Receiver::new(user));
        Self { user, first, next: first, waiting: Vec::new(), safe: Vec::new(), inbox }
    }

    fn publish_until_the_end(&mut self, gateway: &Gateway, acked: &AtomicU32) {
        // The others may have reached the goal before this one is in.
        if self.user == BACK_END {
            if let Ok(socket) = TcpStream::connect(gateway.site().door()) {
                self.publish_at_the_door(Door::new(Stream::Plain(socket)), acked);
            }
        } else if let Some(client) = try_login(gateway, self.user) {
            self.publish_as_user(client, acked);
        }
    }

    fn publish_as_user(&mut self, mut client: Client, acked: &AtomicU32) {
        for number in self.waiting.clone() {
            if !try_send(&mut client, packet(number)) {
                return;
            }
        }
        loop {
            while self.waiting.len() < IN_FLIGHT {
                let number = self.number();
                if !try_send(&mut client, packet(number)) {
                    return;
                }
            }
            match client.see(Duration::from_secs(2)) {
                Some(Seen::Ack(kind, id)) => {
                    assert_eq!(kind, target(number_of(&id)).kind());
                    self.acknowledged(&id, acked);
                }
                Some(Seen::Push { id, body } | Seen::GroupPush { id, body, .. }) => {
                    let inbox = self.inbox.as_mut().expect("taken at the end");
                    inbox.note(&id, &body);
                    if !acknowledge(&mut client, id) {
                        return;
                    }
                }
                None => {
                    // No acknowledgement for so long is what a client's resend is for.
                    for number in self.waiting.clone() {
                        if !try_send(&mut client, packet(number)) {
                            return;
                        }
                    }
                }
                Some(Seen::End) => return,
                Some(other) => panic!("{other:?} to a sender"),
            }
        }
    }

    fn publish_at_the_door(&mut self, mut door: Door, acked: &AtomicU32) {
        let write = |door: &mut Door, number: u32| {
            let packet = packet(number);
            let mut bytes = (packet.len() as u32).to_be_bytes().to_vec();
            bytes.extend_from_slice(&packet);
            std::io::Write::write_all(&mut door.wire.stream, &bytes).is_ok()
        };
        for number in self.waiting.clone() {
            if !write(&mut door, number) {
                return;
            }
        }
        loop {
            while self.waiting.len() < IN_FLIGHT {
                let number = self.number();
                if !write(&mut door, number) {
                    return;
                }
            }
            match door.see(Duration::from_secs(10)) {
                Some(Seen::Ack(_, id)) => self.acknowledged(&id, acked),
                Some(Seen::End) => return,
                other => panic!("{other:?} to a back end"),
            }
        }
    }

    /// The next message's number; it waits for its acknowledgement from now on.
    fn number(&mut self) -> u32 {
        self.next += 1;
        self.waiting.push(self.next - 1);
        self.next - 1
    }

    fn acknowledged(&mut self, id: &MessageId, acked: &AtomicU32) {
        let number = number_of(id);
        if let Some(at) = self.waiting.iter().position(|waiting| *waiting == number) {
            self.waiting.remove(at);
            self.safe.push(number);
            acked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn packet(number: u32) -> Vec<u8> {
    target(number).publish(id(number), body(number).as_bytes())
}

struct Receiver {
    user: u32,
    got: HashSet<u32>,
    /// Pushes, the repeated ones too.
    copies: usize,
}

/// What a look at a connection gave.
#[derive(PartialEq, Eq)]
enum Take {
    Took,
    Nothing,
    End,
}

impl Receiver {
    fn new(user: u32) -> Self {
        Self { user, got: HashSet::new(), copies: 0 }
    }

    /// Logs in again whenever the gateway has had enough of its silence.
    fn receive_until_the_end(&mut self, gateway: &Gateway) {
        let patience = Duration::from_secs(2);
        while self.user != OFFLINE
            && let Some(mut client) = try_login(gateway, self.user)
        {
            while self.take(&mut client, patience, self.user != SILENT) != Take::End {}
        }
    }

    fn take(&mut self, client: &mut Client, patience: Duration, answers: bool) -> Take {
        match client.see(patience) {
            Some(Seen::Push { id, body } | Seen::GroupPush { id, body, .. }) => {
                self.note(&id, &body);
                match !answers || acknowledge(client, id) {
                    true => Take::Took,
                    false => Take::End,
                }
            }
            Some(Seen::Close(_) | Seen::End) => Take::End,
            None => Take::Nothing,
            Some(other) => panic!("{other:?} to a receiver"),
        }
    }

    /// A push must be a message that was published, to this user, as it was published.
    fn note(&mut self, id: &MessageId, said: &[u8]) {
        let number = number_of(id);
        assert!(recipients(number).contains(&self.user), "{number} came to {}", self.user);
        assert!(said == body(number).as_bytes(), "{number} was changed on its way");
        self.got.insert(number);
        self.copies += 1;
    }
}

fn acknowledge(client: &mut Client, id: MessageId) -> bool {
    let mut packet = Vec::new();
    codec::binary::client::ack(PublishKind::User, &id, &mut packet);
    try_send(client, packet)
}

/// `None`: the gateway is dead.
fn try_login(gateway: &Gateway, user: u32) -> Option<Client> {
    let mut client = gateway.try_dial()?;
    let name = format!("u{user}");
    let packet = common::connect_packet(&name, "", codec::binary::client::Tail::Plain);
    if !try_send(&mut client, packet) {
        return None;
    }
    match client.see(PATIENCE) {
        Some(Seen::ConnectAck(0)) => Some(client),
        Some(Seen::End) => None,
        other => panic!("{other:?} to a login"),
    }
}

/// xorshift64: the moments of death differ, and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(bound)) as u32
    }
}
