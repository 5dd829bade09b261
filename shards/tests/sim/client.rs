//! One client: connects, logs in, publishes, acknowledges, misbehaves as its profile says, and
//! tells the oracle everything.
//!
//! ```text
//!   Away --time--> Upgrading --101--> Greeting --ack--> Online
//!     ^  <------------- end of the connection, for any reason ----'
//! ```

use std::collections::BTreeMap;

use codec::{MessageId, PublishKind};
use shards::io::Now;
use shards::io::sim::{ClientId, Rng, SimNet};

use super::oracle::{Draft, Oracle, To, id_of};
use super::plan::{Acks, GHOST, Layout, Profile, USERS};
use super::speech::{self, Heard, Pushed};
use super::wire::{Incoming, Transport, Wire};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away,
    Upgrading,
    Greeting,
    Online,
}

/// What a script may use while it runs.
pub struct Cx<'a> {
    pub net: &'a SimNet,
    pub oracle: &'a mut Oracle,
    pub groups: &'a BTreeMap<u32, Vec<u32>>,
}

/// A push that is to be acknowledged.
#[derive(Debug)]
struct Debt {
    index: usize,
    kind: PublishKind,
    /// As it was pushed.
    id: MessageId,
}

pub struct Client {
    pub profile: Profile,
    rng: Rng,
    phase: Phase,
    conn: ClientId,
    wire: Wire,
    /// Published and not acknowledged: when it was last sent.
    unacked: BTreeMap<usize, Now>,
    /// Acknowledgements it owes, and when.
    owed: Vec<(Now, Debt)>,
    reconnect_at: Now,
    /// Upgrade and login must be over by then.
    patience: Now,
    publish_at: Now,
    /// The next freeze, or the end of one.
    freeze_at: Now,
    frozen: bool,
    leave_at: Now,
}

impl Client {
    pub fn new(profile: Profile, mut rng: Rng, now: Now) -> Self {
        let reconnect_at = now.plus_ms(rng.below(300));
        Self {
            profile,
            rng,
            phase: Phase::Away,
            conn: ClientId(u32::MAX),
            wire: Wire::new(Transport::Tcp),
            unacked: BTreeMap::new(),
            owed: Vec::new(),
            reconnect_at,
            patience: NEVER,
            publish_at: NEVER,
            freeze_at: NEVER,
            frozen: false,
            leave_at: NEVER,
        }
    }

    /// The connection whose news this client waits for.
    pub fn conn(&self) -> Option<ClientId> {
        (self.phase != Phase::Away).then_some(self.conn)
    }

    /// Publishes nothing new.
    pub fn stop_publishing(&mut self) {
        self.profile.publishes = 0;
        self.publish_at = NEVER;
    }

    /// Bad habits end: everything unacknowledged is sent again until it is safe.
    pub fn calm(&mut self, kind: u8, cx: &mut Cx<'_>) {
        self.profile = self.profile.calmed(kind);
        (self.freeze_at, self.leave_at, self.publish_at) = (NEVER, NEVER, NEVER);
        if self.frozen {
            self.frozen = false;
            cx.net.client_unfreeze(self.conn);
        }
        // Logs in anew, as the kind of terminal it is from now on.
        if self.phase != Phase::Away {
            self.leave(200, cx);
        }
    }

    /// It has nothing left to do, and is there to be pushed to.
    pub fn is_settled(&self) -> bool {
        let there = self.phase == Phase::Online || self.profile.wrong_password;
        there && self.unacked.is_empty() && self.owed.is_empty()
    }

    pub fn state(&self) -> String {
        format!("{:?} {:?} unacked {:?}", self.profile, self.phase, self.unacked.keys())
    }

    /// When something is to be done without any news.
    pub fn next_time(&self) -> Now {
        if self.phase == Phase::Away {
            return self.reconnect_at;
        }
        let owed = self.owed.iter().map(|(at, _)| *at).min().unwrap_or(NEVER);
        let resend = match self.phase {
            Phase::Online => self.unacked.values().min().map_or(NEVER, |at| at.plus_ms(RESEND_MS)),
            _ => NEVER,
        };
        let times = [owed, resend, self.patience, self.publish_at, self.freeze_at, self.leave_at];
        times.into_iter().min().unwrap_or(NEVER)
    }

    /// Does everything there is to do.
    pub fn poll(&mut self, cx: &mut Cx<'_>) {
        let now = cx.net.now();
        if self.phase == Phase::Away {
            if now >= self.reconnect_at {
                self.connect(cx);
            }
            return;
        }
        self.read(cx);
        if self.phase != Phase::Away {
            self.timers(now, cx);
        }
    }

    fn connect(&mut self, cx: &mut Cx<'_>) {
        let now = cx.net.now();
        let Profile { user, layout, transport, .. } = self.profile;
        let listener = match (layout, transport) {
            (Layout::Door, _) => LISTENER_DOOR,
            (_, Transport::Ws) => LISTENER_WS,
            (_, Transport::Tcp) => LISTENER_TCP,
            (_, Transport::Varint) => LISTENER_NAMED,
        };
        self.conn = cx.net.connect(listener);
        let user = (layout != Layout::Door).then_some(user);
        cx.oracle.connected(self.conn, user, layout);
        self.wire = Wire::new(transport);
        self.patience = now.plus_ms(PATIENCE_MS);
        cx.net.client_send(self.conn, &self.wire.hello());
        match (layout, transport) {
            (Layout::Door, _) => self.online(cx),
            (_, Transport::Ws) => self.phase = Phase::Upgrading,
            (_, Transport::Tcp | Transport::Varint) => self.greet(cx),
        }
    }

    fn greet(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Greeting;
        self.send(&speech::login(&self.profile), cx);
        if self.profile.pipelines {
            self.send_unacked(cx);
            if self.profile.publishes > 0 {
                self.publish(cx);
            }
        }
    }

    fn online(&mut self, cx: &mut Cx<'_>) {
        let now = cx.net.now();
        if !self.profile.pipelines {
            self.send_unacked(cx);
        }
        self.phase = Phase::Online;
        self.patience = NEVER;
        self.plan_publish(now);
        if self.profile.freezes {
            self.freeze_at = now.plus_ms(self.rng.below(4_000));
        }
        if self.profile.leaves {
            self.leave_at = now.plus_ms(self.rng.below(6_000));
        }
    }

    fn read(&mut self, cx: &mut Cx<'_>) {
        let bytes = cx.net.client_recv(self.conn);
        self.wire.feed(&bytes);
        while self.phase != Phase::Away {
            match self.wire.next() {
                Ok(Some(incoming)) => self.incoming(incoming, cx),
                Ok(None) => break,
                Err(what) => {
                    cx.oracle.violated(format!("{:?} on {:?}: {what}", self.profile, self.conn));
                    return;
                }
            }
        }
        let ended = cx.net.client_eof(self.conn) || cx.net.client_was_reset(self.conn);
        if self.phase != Phase::Away && ended {
            self.ended(1_500, false, cx);
        }
    }

    fn incoming(&mut self, incoming: Incoming, cx: &mut Cx<'_>) {
        match incoming {
            Incoming::Upgraded => self.greet(cx),
            Incoming::Packet(packet) => match speech::hear(self.profile.layout, &packet) {
                Ok(heard) => self.heard(heard, cx),
                Err(error) => cx.oracle.violated(format!("{:?}: {error}", self.conn)),
            },
            Incoming::Close(code) => {
                let answer = self.wire.close(code, &mut self.rng);
                cx.net.client_send(self.conn, &answer);
                cx.net.client_close(self.conn);
                self.ended(1_500, self.profile.wrong_password, cx);
            }
        }
    }

    fn heard(&mut self, heard: Heard, cx: &mut Cx<'_>) {
        match heard {
            Heard::LoggedIn(holds) => self.logged_in(holds, cx),
            Heard::Push(push) => self.pushed(&push, cx),
            Heard::Acked(id, kind, called) => {
                cx.oracle.publish_acked(self.conn, &id, kind, called.as_ref());
                self.is_over(&id);
            }
            Heard::NotNow(id) => cx.oracle.publish_failed(self.conn, &id),
            Heard::NotAllowed(id) => {
                cx.oracle.publish_refused(self.conn, &id);
                self.is_over(&id);
            }
            Heard::Ping if self.profile.answers_pings => {
                self.send(&speech::pong(self.profile.layout), cx);
            }
            // Leaves the terminal to whoever it is now, for a while.
            Heard::Replaced => {
                cx.oracle.replaced(self.conn);
                self.leave(8_000, cx);
            }
            Heard::Ping | Heard::Goodbye => {}
        }
    }

    /// The message needs not be sent again.
    fn is_over(&mut self, id: &MessageId) {
        self.unacked.retain(|index, _| id_of(*index) != id.as_bytes());
    }

    fn logged_in(&mut self, holds: bool, cx: &mut Cx<'_>) {
        if holds == self.profile.wrong_password || self.phase != Phase::Greeting {
            cx.oracle.violated(format!("a login that holds ({holds}) in {}", self.state()));
        }
        if holds {
            self.online(cx);
        } else {
            self.leave(20_000, cx);
        }
    }

    fn pushed(&mut self, push: &Pushed, cx: &mut Cx<'_>) {
        let now = cx.net.now();
        if self.phase != Phase::Online {
            return cx.oracle.violated(format!("a push before the login: {}", self.state()));
        }
        let Some(index) = cx.oracle.pushed(self.conn, push, now) else { return };
        if self.profile.fears_poison && cx.oracle.record(index).poison {
            return self.leave(1_000, cx);
        }
        let kind = push.group.map_or(PublishKind::User, |_| PublishKind::Group);
        let debt = Debt { index, kind, id: push.id };
        match self.profile.acks {
            Acks::AtOnce => self.acknowledge(&debt, cx),
            Acks::Shuffled(ms) => self.owed.push((now.plus_ms(self.rng.below(ms)), debt)),
            Acks::Never => {}
        }
    }

    fn acknowledge(&mut self, debt: &Debt, cx: &mut Cx<'_>) {
        cx.oracle.receipt(self.conn, debt.index, cx.net.now());
        self.send(&speech::ack(self.profile.layout, debt.kind, &debt.id), cx);
    }

    fn timers(&mut self, now: Now, cx: &mut Cx<'_>) {
        if now >= self.patience || now >= self.leave_at {
            return self.leave(2_000, cx);
        }
        if now >= self.freeze_at {
            self.toggle_freeze(now, cx);
        }
        while let Some(due) = self.owed.iter().position(|(at, _)| *at <= now) {
            let (_, debt) = self.owed.swap_remove(due);
            self.acknowledge(&debt, cx);
        }
        if self.phase != Phase::Online {
            return;
        }
        self.resend(now, cx);
        if now >= self.publish_at {
            if self.unacked.len() < self.profile.window {
                self.publish(cx);
            }
            self.plan_publish(now);
        }
    }

    fn toggle_freeze(&mut self, now: Now, cx: &mut Cx<'_>) {
        self.frozen = !self.frozen;
        if self.frozen {
            cx.oracle.froze(self.conn);
            cx.net.client_freeze(self.conn);
        } else {
            cx.net.client_unfreeze(self.conn);
        }
        self.freeze_at = now.plus_ms(500 + self.rng.below(5_000));
    }

    fn resend(&mut self, now: Now, cx: &mut Cx<'_>) {
        let due = |at: &Now| at.plus_ms(RESEND_MS) <= now;
        if !self.unacked.values().any(due) {
            return;
        }
        if self.profile.layout == Layout::Door {
            // The door answers in order: a request is repeated on a new connection only.
            return self.leave(500, cx);
        }
        let old = self.unacked.iter().filter(|(_, at)| due(at)).map(|(index, _)| *index);
        for index in old.collect::<Vec<_>>() {
            self.transmit(index, cx);
        }
    }

    fn send_unacked(&mut self, cx: &mut Cx<'_>) {
        for index in self.unacked.keys().copied().collect::<Vec<_>>() {
            self.transmit(index, cx);
        }
    }

    fn plan_publish(&mut self, now: Now) {
        let wait = now.plus_ms(self.rng.below(400));
        self.publish_at = if self.profile.publishes > 0 { wait } else { NEVER };
    }

    fn publish(&mut self, cx: &mut Cx<'_>) {
        self.profile.publishes -= 1;
        let from = (self.profile.layout != Layout::Door).then_some(self.profile.user);
        let to = self.target(cx.groups);
        let len = match self.rng.below(10) {
            0 => 0,
            1 => 200 + self.rng.index(2_500),
            _ => self.rng.index(60),
        };
        let poison = matches!(to, To::User(_)) && self.rng.chance(60_000);
        let text = cx.oracle.next_text();
        let letter = |rng: &mut Rng| b'a' + rng.below(26) as u8;
        let body = match text {
            None => (0..len).map(|_| self.rng.next_u64() as u8).collect(),
            Some(text) => text.bytes().chain((0..len).map(|_| letter(&mut self.rng))).collect(),
        };
        let by_name = self.profile.layout == Layout::Named;
        let index = cx.oracle.compose(Draft { from, by_name, to, poison, body });
        self.transmit(index, cx);
    }

    fn target(&mut self, groups: &BTreeMap<u32, Vec<u32>>) -> To {
        let group = 1 + self.rng.below(groups.len() as u64) as u32;
        match self.rng.below(20) {
            0 => To::User(GHOST),
            1..=3 => To::Group(group),
            4 if self.profile.layout != Layout::Named => {
                let users = (1..=USERS).filter(|_| self.rng.chance(500_000)).collect();
                To::Part(group, users)
            }
            _ => To::User(1 + self.rng.below(u64::from(USERS)) as u32),
        }
    }

    fn transmit(&mut self, index: usize, cx: &mut Cx<'_>) {
        self.unacked.insert(index, cx.net.now());
        cx.oracle.transmitted(self.conn, index);
        let packet = speech::publish(self.profile.layout, cx.oracle.record(index), index);
        self.send(&packet, cx);
    }

    fn send(&mut self, packet: &[u8], cx: &mut Cx<'_>) {
        let bytes = self.wire.packet(packet, &mut self.rng);
        cx.net.client_send(self.conn, &bytes);
    }

    /// Ends the connection, politely or not, and comes back later.
    fn leave(&mut self, away_ms: u64, cx: &mut Cx<'_>) {
        match self.rng.below(3) {
            0 => cx.net.client_reset(self.conn),
            1 => {
                let goodbye = self.wire.close(1000, &mut self.rng);
                cx.net.client_send(self.conn, &goodbye);
                cx.net.client_close(self.conn);
            }
            _ => cx.net.client_close(self.conn),
        }
        self.ended(away_ms, true, cx);
    }

    fn ended(&mut self, away_ms: u64, by_client: bool, cx: &mut Cx<'_>) {
        cx.oracle.ended(self.conn, by_client, cx.net.now());
        self.phase = Phase::Away;
        self.owed.clear();
        self.frozen = false;
        (self.patience, self.publish_at) = (NEVER, NEVER);
        (self.freeze_at, self.leave_at) = (NEVER, NEVER);
        self.reconnect_at = cx.net.now().plus_ms(20 + self.rng.below(away_ms));
    }
}

pub const LISTENER_WS: u8 = 0;
pub const LISTENER_TCP: u8 = 1;
pub const LISTENER_DOOR: u8 = 2;
pub const LISTENER_NAMED: u8 = 3;

const NEVER: Now = Now(u64::MAX);
/// A publish is repeated when it is not acknowledged for so long.
const RESEND_MS: u64 = 4_000;
/// A login takes so long at most before the client gives up.
const PATIENCE_MS: u64 = 12_000;
