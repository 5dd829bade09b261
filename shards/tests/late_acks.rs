//! What a client has been sent and acknowledges late, or never, where nothing is sent again: the
//! window waits for the slow, goes on without the silent, and no acknowledgement is lost.
//!
//! Method: the core alone, with a store of rows and a clock that the test turns.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use codec::{
    Acks, CloseReason, Heartbeat, Manners, Message, MessageId, Outgoing, Packet, ProtocolId,
    Target, TenantId, UserId, UserKey,
};
use shards::home::effects::{Effects, Timer};
use shards::home::{Home, Login};
use shards::io::{Now, ShardIndex, Slot};
use shards::limits::{LET_GO, WINDOW_MESSAGES, WINDOW_SILENCE_MS};
use shards::mesh::ShardMessage;
use shards::timers::{TimerId, TimerWheel};
use shards::{Identity, ShardConfig};
use storage::{Request, Row};

#[test]
fn a_client_that_acknowledges_slowly_keeps_everything_in_its_window() {
    let mut user = User::with_rows(300);
    user.log_in();
    let mut acked = 0;
    // Each is a minute old when it is acknowledged, but something always is.
    while let Some(id) = user.world.pushed.pop_front() {
        user.pass_ms(u64::from(WINDOW_SILENCE_MS) * 9 / 10);
        user.ack(&id);
        acked += 1;
        let unacknowledged = user.world.pushed.len();
        assert!(unacknowledged <= usize::from(WINDOW_MESSAGES), "{unacknowledged}");
    }
    assert_eq!(acked, 300, "each came once");
    user.log_in_again();
    assert!(user.world.pushed.is_empty(), "nothing is left");
}

#[test]
fn late_acknowledgements_are_of_the_oldest_push_with_their_id() {
    // Ids are not unique: ten different ones.
    let mut user = User::with_rows(200);
    user.log_in();
    user.pass_ms(10 * u64::from(WINDOW_SILENCE_MS));
    assert_eq!(user.world.pushed.len(), 200, "what is behind a window is not held up by silence");
    for acked in 1..=200 {
        let id = user.world.pushed.pop_front().expect("200 pushes");
        user.ack(&id);
        let first = user.world.rows.keys().next().copied();
        assert_eq!(first, (acked < 200).then_some(acked + 1), "rows go in order");
        assert_eq!(user.world.rows.len() as u64, 200 - acked);
    }
    user.log_in_again();
    assert!(user.world.pushed.is_empty(), "nothing is left");
}

#[test]
fn a_client_that_never_acknowledges_gets_everything_and_once_more_at_the_next_login() {
    let (rows, window) = (LET_GO as u64 + 300, u64::from(WINDOW_MESSAGES));
    let mut user = User::with_rows(rows);
    user.log_in();
    for again in [true, false] {
        assert_eq!(user.world.pushed.len() as u64, window, "one window at once");
        user.pass_ms(rows * u64::from(WINDOW_SILENCE_MS) / 32);
        assert_eq!(user.world.pushed.len() as u64, rows, "and the others in time");
        assert_eq!(user.world.rows.len() as u64, rows, "nothing is lost");
        if again {
            user.world.pushed.clear();
            user.log_in_again();
        }
    }
    // What was given up is remembered up to a bound, and the rest waits for the next login.
    while let Some(id) = user.world.pushed.pop_front() {
        user.ack(&id);
    }
    assert_eq!(user.world.rows.len() as u64, rows - LET_GO as u64 - rows % window);
}

#[test]
fn where_nobody_can_tell_what_has_arrived_everything_comes_and_stays_in_the_store() {
    let mut user = User::with_rows(200);
    user.manners.acks = Acks::Bytes;
    user.world.unsent = None;
    user.log_in();
    assert_eq!(user.world.pushed.len(), usize::from(WINDOW_MESSAGES), "one window at once");
    user.pass_ms(10 * u64::from(WINDOW_SILENCE_MS));
    assert_eq!(user.world.pushed.len(), 200, "and the others in time");
    assert_eq!(user.world.rows.len(), 200, "nothing is lost");
}

#[test]
fn what_the_store_has_leaves_memory_once_it_is_in_flight_to_nobody() {
    let mut user = User::with_rows(0);
    user.log_in();
    // Beside it a terminal that cannot acknowledge: while the other can, its word is nothing.
    user.manners.acks = Acks::Bytes;
    user.log_in_at(BESIDE);
    user.world.appends = Some(VecDeque::new());
    user.deliver(message(9));
    user.pass_ms(1_000);
    assert_eq!(user.world.pushed.len(), 2);
    let slot = user.slot();
    user.home.ended(slot, CloseReason::PeerClosed, user.world.now, &mut user.world);
    assert_eq!(user.home.gauges().deliveries, 1, "the store does not have it yet");
    let appends = user.world.appends.take().expect("set above");
    assert_eq!(appends.len(), 1, "it was silent");
    for seq in appends {
        user.home.appended(KEY, seq, Ok(()), user.world.now, &mut user.world);
    }
    assert_eq!(user.home.gauges().deliveries, 0);
}

#[test]
fn a_window_does_not_move_while_what_is_in_it_has_not_arrived() {
    let mut user = User::with_rows(200);
    user.world.unsent = Some(u64::MAX);
    user.log_in();
    user.pass_ms(10 * u64::from(WINDOW_SILENCE_MS));
    assert_eq!(user.world.pushed.len(), usize::from(WINDOW_MESSAGES));
    user.world.unsent = Some(0);
    user.pass_ms(10 * u64::from(WINDOW_SILENCE_MS));
    assert_eq!(user.world.pushed.len(), 200);
}

/// A user with rows in the store, his terminal, and the world around his home shard.
struct User {
    home: Home,
    world: World,
    /// Of the next login.
    manners: Manners,
    generation: u32,
}

const KEY: UserKey = UserKey { tenant: TenantId(0), id: UserId(7) };
/// Another terminal of the user.
const BESIDE: Slot = Slot { index: 1, generation: 0 };

impl User {
    /// `seq` 1, 2, 3 ...
    fn with_rows(rows: u64) -> Self {
        let config = ShardConfig { persist_after_ms: 200, ..common::config(ProtocolId::SimpleIm) };
        let identity = Identity { shard: 0, first_seq: 1 << 41, boot: 7, hash_key: [1, 2] };
        let home = Home::new(Arc::new(config), identity, 64);
        let mut world = World { unsent: Some(0), ..World::default() };
        for seq in 1..=rows {
            let row = Row { seq, message: message(seq), charges: 0, suspect: false };
            world.rows.insert(seq, row);
        }
        let manners = Manners {
            resends: None,
            heartbeat: Heartbeat::None,
            unique_ids: false,
            ..Manners::default()
        };
        Self { home, world, manners, generation: 0 }
    }

    fn slot(&self) -> Slot {
        Slot { index: 0, generation: self.generation }
    }

    fn log_in(&mut self) {
        self.world.end = 0;
        self.log_in_at(self.slot());
    }

    fn log_in_at(&mut self, slot: Slot) {
        let login = Login {
            user: KEY,
            terminal: slot.index.into(),
            name: None,
            binds: false,
            listener: 0,
            protocol: ProtocolId::SimpleIm,
            manners: self.manners,
        };
        self.home.login(slot, login, self.world.now, &mut self.world);
        self.settle();
    }

    fn log_in_again(&mut self) {
        let slot = self.slot();
        self.home.ended(slot, CloseReason::PeerClosed, self.world.now, &mut self.world);
        self.generation += 1;
        self.log_in();
    }

    fn ack(&mut self, id: &MessageId) {
        self.home.packet(self.slot(), &Packet::Ack(*id), self.world.now, &mut self.world);
        self.settle();
    }

    fn deliver(&mut self, message: Arc<Message>) {
        let request = ShardMessage::NO_REPLY;
        let deliver = ShardMessage::Deliver { to: KEY, message, keep: true, request };
        self.home.message(0, deliver, self.world.now, &mut self.world);
        self.settle();
    }

    /// Time goes by, and everything happens that is due.
    fn pass_ms(&mut self, ms: u64) {
        let end = self.world.now.plus_ms(ms);
        while self.world.now < end {
            self.world.now = self.world.now.plus_ms(50).min(end);
            self.settle();
        }
    }

    /// All that was sent leaves, all that was asked is answered.
    fn settle(&mut self) {
        loop {
            let (now, end) = (self.world.now, self.world.end);
            for slot in [self.slot(), BESIDE] {
                self.home.sent(slot, end, now, &mut self.world);
            }
            if let Some(timer) = self.world.timers.expired(now) {
                match timer {
                    Timer::Session(slot) => self.home.session_timer(slot, now, &mut self.world),
                    Timer::User(user) => self.home.user_timer(user, now, &mut self.world),
                    Timer::Conn(_) | Timer::HandOver(_) => {}
                }
            } else if let Some(slot) = self.world.asked_unsent.pop() {
                let unsent = self.world.unsent.map(|unsent| unsent.min(end));
                self.home.unsent(slot, end, unsent, now, &mut self.world);
            } else if let Some((after, max)) = self.world.reads.pop_front() {
                let mut rows: Vec<Row> = self.world.rows_after(after);
                let more = rows.len() > max;
                rows.truncate(max);
                self.home.rows(KEY, Ok((rows, more)), now, &mut self.world);
            } else if self.world.end == end {
                return;
            }
        }
    }
}

/// The id is one of ten.
fn message(seq: u64) -> Arc<Message> {
    Arc::new(Message {
        stamp: seq.into(),
        id: MessageId::new(format!("{}", seq % 10).as_bytes()).expect("short"),
        from: None,
        from_name: Arc::default(),
        to: Target::User(KEY),
        protocol: ProtocolId::SimpleIm,
        time_ms: 0,
        body: Box::from(&b"hello"[..]),
    })
}

#[derive(Default)]
struct World {
    now: Now,
    timers: TimerWheel<Timer>,
    rows: BTreeMap<u64, Row>,
    /// `after` and the most rows of reads that are not answered.
    reads: VecDeque<(u64, usize)>,
    /// Ids of pushes that the client has not acknowledged.
    pushed: VecDeque<MessageId>,
    /// The connections' output, in packets; how many of the last the peer's kernel has not, if
    /// that can be told.
    end: u64,
    unsent: Option<u64>,
    asked_unsent: Vec<Slot>,
    /// `seq` of appends that are not answered, where there may be some.
    appends: Option<VecDeque<u64>>,
}

impl World {
    fn rows_after(&self, after: u64) -> Vec<Row> {
        self.rows.range(after + 1..).map(|(_, row)| row.clone()).collect()
    }
}

impl Effects for World {
    fn transmit(&mut self, _: Slot, outgoing: &Outgoing<'_>) -> u64 {
        if let Outgoing::Push(push) = outgoing {
            self.pushed.push_back(push.message.id);
        }
        self.end += 1;
        self.end
    }

    fn close(&mut self, _: Slot, reason: CloseReason) {
        panic!("nobody gives a reason to be closed: {reason:?}");
    }

    fn backlog(&self, _: Slot) -> usize {
        0
    }

    fn unsent(&mut self, slot: Slot) {
        self.asked_unsent.push(slot);
    }

    fn resume(&mut self, _: Slot) {}

    fn is_read(&self, _: Slot) -> bool {
        true
    }

    fn manners(&self, _: Slot) -> Manners {
        Manners::default()
    }

    fn route(&mut self, _: ShardIndex, message: ShardMessage) {
        panic!("there is one shard: {message:?}");
    }

    fn store(&mut self, request: Request) {
        match request {
            Request::Read { after, rows, .. } => self.reads.push_back((after, rows as usize)),
            Request::Delete { seq, .. } => {
                assert!(self.rows.remove(&seq).is_some(), "{seq} is deleted once");
            }
            Request::FailedRound { .. } => {}
            Request::Append(append) => {
                self.appends.as_mut().expect("nobody is silent").push_back(append.seq);
            }
            other => panic!("nothing else is to be stored: {other:?}"),
        }
    }

    fn arm(&mut self, timer: Timer, at: Now) -> TimerId {
        self.timers.arm(timer, at)
    }

    fn cancel(&mut self, timer: TimerId) {
        self.timers.cancel(timer);
    }

    fn origin(&self, _: Slot) -> (TenantId, ProtocolId) {
        (TenantId(0), ProtocolId::SimpleIm)
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}
