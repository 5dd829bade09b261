//! A shard: one thread, one ring, and everything of the users whose home it is.
//!
//! [`Shard::turn`] is the whole program: completions, messages of other shards, replies of the
//! sidecar, timers, then one send per connection with something to say, then one wait. Each stage
//! has a budget. Never: blocks, locks, names a protocol.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use rustls::ServerConfig;
use storage::Reply;

use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::ShardConfig;
use crate::conn::{BatchPool, Phase, Quiet};
use crate::control::{Control, Snapshot};
use crate::hand_over::{Arrivals, Token};
use crate::home::effects::{Effects, Timer};
use crate::home::{Home, Identity};
use crate::io::{Completion, Io, Now, ShardIndex, Slot, Wait};
use crate::limits::{
    LAG_MS, OUTPUT_HIGH_WATER, PUBLISHES_OUTSTANDING_SHARD, SLOW_CONSUMER_MS, TURN_COMPLETIONS,
    TURN_DRAIN, TURN_MESH, TURN_REPLIES, TURN_TIMERS,
};
use crate::mesh::{Mesh, ShardMessage};
use crate::metrics::Counters;
use crate::table::Table;
use crate::timers::TimerWheel;
use crate::world::{FrameCache, World};

/// Everything a shard is given at start.
pub struct Parts<I: Io, B: Backend> {
    pub config: Arc<ShardConfig>,
    pub identity: Identity,
    pub io: I,
    pub backend: B,
    pub mesh: Mesh,
    pub control: Receiver<Control>,
    pub tls: Option<Arc<ServerConfig>>,
    /// Milliseconds since 1970 when the engine's clock was zero.
    pub unix_base_ms: u64,
    /// Slots kept free for hand-overs: accepts stop below.
    pub slot_reserve: u32,
}

/// One shard.
pub struct Shard<I: Io, B: Backend> {
    pub(crate) home: Home,
    pub(crate) world: World<I, B>,
    pub(crate) identity: Identity,
    pub(crate) arrivals: Arrivals,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) hand_overs: u32,
    /// Logins of terminals that are told apart by nothing but their connection.
    pub(crate) connections: u64,
    /// What a decoder took out of the packet at hand.
    pub(crate) scratch: Vec<u8>,
    /// Logins at the authenticator.
    pub(crate) logins_pending: u32,
    /// Connections whose handshake bytes wait for the next turn's budget: one receive each, copied
    /// out of the pool that everybody needs.
    pub(crate) handshakes: VecDeque<(Slot, Vec<u8>)>,
    pub(crate) handshake_budget: u32,
    /// Publishers not read until a queue behind them has room.
    pub(crate) held: VecDeque<Slot>,
    /// Plaintext of one receive under TLS.
    pub(crate) plain: Vec<u8>,
    control: Receiver<Control>,
    slot_reserve: u32,
    accepting: bool,
    /// Connections that may still be admitted, in millionths; a debt where more accepts were armed
    /// than there was room for.
    admission: i64,
    lagging: bool,
    /// Who waits to hear that this shard has drained.
    draining: Option<Sender<ShardIndex>>,
    drained: bool,
    stopped: bool,
}

impl<I: Io, B: Backend> Shard<I, B> {
    pub fn new(parts: Parts<I, B>) -> Self {
        let slots = parts.io.capacity();
        let now = parts.io.now();
        Self {
            home: Home::new(Arc::clone(&parts.config), parts.identity, slots),
            world: World {
                io: parts.io,
                backend: parts.backend,
                mesh: parts.mesh,
                config: parts.config,
                conns: Table::new(),
                timers: TimerWheel::new(),
                counters: Counters::default(),
                clock: Clock::new(now),
                now,
                unix_base_ms: parts.unix_base_ms,
                dirty: Vec::new(),
                resumed: Vec::new(),
                waiting_requests: VecDeque::new(),
                refused_groups: Vec::new(),
                pool: BatchPool::default(),
                frames: FrameCache::default(),
                live: 0,
            },
            identity: parts.identity,
            arrivals: Arrivals::default(),
            tls: parts.tls,
            hand_overs: 0,
            connections: 0,
            scratch: Vec::new(),
            logins_pending: 0,
            handshakes: VecDeque::new(),
            handshake_budget: 0,
            held: VecDeque::new(),
            plain: Vec::new(),
            control: parts.control,
            slot_reserve: parts.slot_reserve,
            accepting: false,
            admission: 0,
            lagging: false,
            draining: None,
            drained: false,
            stopped: false,
        }
    }

    /// Turns until told to stop.
    pub fn run(&mut self) {
        while !self.turn() {}
    }

    /// One turn; `true` once the shard was told to stop.
    pub fn turn(&mut self) -> bool {
        self.world.mesh.awake();
        let now = self.world.clock.begin(self.world.io.now());
        self.refill_admission(now);
        self.world.now = now;
        self.world.counters.turns += 1;
        self.handshake_budget = self.world.config.handshakes_per_turn;
        self.take_handshakes(now);
        let mut busy = self.take_completions(now);
        busy |= self.take_messages(now);
        busy |= self.take_replies(now);
        self.take_controls();
        busy |= self.fire_timers(now);
        self.home.end_slow(now, &mut self.world);
        self.drain(now);
        self.resume_reading(now);
        self.flush();
        self.set_accepting();
        let wait = self.how_long(busy, now);
        let wait = self.world.clock.end(wait);
        self.world.io.wait(wait);
        self.stopped
    }

    fn take_completions(&mut self, now: Now) -> bool {
        for _ in 0..TURN_COMPLETIONS {
            let Some(completion) = self.world.io.next() else { return false };
            self.completion(completion, now);
        }
        true
    }

    fn completion(&mut self, completion: Completion<I::Buf>, now: Now) {
        match completion {
            Completion::Accepted { slot, listener, peer } => {
                self.admission -= ONE_ADMISSION;
                self.accepted(slot, listener, peer);
            }
            Completion::AcceptFailed { .. } => self.world.counters.accept_failures += 1,
            Completion::HandedIn { slot, token } => {
                self.handed_in(slot, Token::from_bits(token), now);
            }
            Completion::Received { slot, buf } => {
                self.world.clock.received();
                self.received(slot, buf, now);
            }
            Completion::ReceiveEnded { slot, error } => self.receive_ended(slot, error, now),
            Completion::Sent { slot, bytes, batch } => {
                self.world.counters.bytes_out += bytes as u64;
                if let Some(conn) = self.world.conn(slot) {
                    conn.progress_at = now;
                }
                if let Some(batch) = batch {
                    self.world.pool.give(batch);
                    self.sent(slot, now);
                }
            }
            Completion::SendFailed { slot, batch, .. } => {
                self.world.pool.give(batch);
                if let Some(conn) = self.world.conn(slot) {
                    conn.sending = false;
                }
                self.lost(slot, codec::CloseReason::SocketError, now);
            }
            Completion::Unsent { slot, bytes } => {
                // Under TLS the socket holds more bytes than were queued: taking them for plaintext
                // errs towards waiting.
                if let Some(sent) = self.world.conn(slot).map(|conn| conn.completed) {
                    self.home.unsent(slot, sent, bytes.map(u64::from), now, &mut self.world);
                }
            }
            Completion::HandedOver { slot, result } => self.handed_over(slot, result, now),
            Completion::Closed { slot } => self.world.release(slot),
            Completion::Dialed { .. } => unreachable!("a gateway never dials"),
        }
    }

    /// Everything in flight on a connection has gone to the socket.
    fn sent(&mut self, slot: Slot, now: Now) {
        let Some(conn) = self.world.conn(slot) else { return };
        conn.sending = false;
        conn.completed = conn.flushed;
        let (offset, phase) = (conn.flushed, conn.phase);
        self.home.sent(slot, offset, now, &mut self.world);
        match phase {
            Phase::Closing => self.world.finish_closing(slot),
            Phase::HandingOver => self.start_hand_over(slot),
            _ => self.go_on_reading(slot, now),
        }
        // What was queued meanwhile goes out at the end of this turn.
        if self.world.conn(slot).is_some_and(|conn| conn.has_output()) {
            self.world.mark_dirty(slot);
        }
    }

    /// Nothing more has come for a while, or will: what may be a whole packet is one.
    pub(crate) fn silence(&mut self, slot: Slot, now: Now) {
        if let Some(conn) = self.world.conn(slot).filter(|conn| conn.quiet == Quiet::Waiting) {
            conn.quiet = Quiet::Over;
            self.feed(slot, &mut [], now);
            if let Some(conn) = self.world.conn(slot).filter(|conn| conn.quiet == Quiet::Over) {
                conn.quiet = Quiet::No;
            }
            self.arm_receive(slot);
        }
    }

    /// The connection is gone without our doing.
    pub(crate) fn lost(&mut self, slot: Slot, reason: codec::CloseReason, now: Now) {
        self.home.ended(slot, reason, now, &mut self.world);
        self.world.close(slot, reason);
        if self.world.conn(slot).is_some_and(|conn| conn.phase == Phase::Closing) {
            self.world.close_now(slot);
        }
    }

    /// Parses what was left unparsed, and reads on.
    fn go_on_reading(&mut self, slot: Slot, now: Now) {
        if self.world.conn(slot).is_some_and(|conn| std::mem::take(&mut conn.choked)) {
            self.feed(slot, &mut [], now);
        }
        self.arm_receive(slot);
    }

    /// Reads a connection again if nothing speaks against it.
    pub(crate) fn arm_receive(&mut self, slot: Slot) {
        let may_read = self.home.may_read(slot);
        let Some(conn) = self.world.conn(slot) else { return };
        let reads = matches!(conn.phase, Phase::Upgrade | Phase::Login | Phase::Online);
        if reads
            && may_read
            && !conn.receiving
            && !conn.held
            && !conn.peer_done
            && conn.backlog() < OUTPUT_HIGH_WATER
        {
            conn.receiving = true;
            self.world.io.receive(slot);
        }
    }

    fn take_messages(&mut self, now: Now) -> bool {
        for _ in 0..TURN_MESH {
            let Some((from, message)) = self.world.mesh.receive() else { return false };
            if matches!(message, ShardMessage::Group { .. }) {
                // Who changes a group hears of it after the store has told us: whatever he says to
                // the group then finds the change.
                self.take_replies(now);
            }
            match message {
                ShardMessage::Adopt { token, state } => self.adopt(token, state, now),
                message => self.home.message(from, message, now, &mut self.world),
            }
        }
        true
    }

    fn take_replies(&mut self, now: Now) -> bool {
        for group in std::mem::take(&mut self.world.refused_groups) {
            let unavailable = Err(storage::StoreError::Unavailable);
            self.home.members(group, unavailable, now, &mut self.world);
        }
        for _ in 0..TURN_REPLIES {
            let Some(reply) = self.world.backend.poll() else {
                self.world.submit_waiting();
                return false;
            };
            let (home, world) = (&mut self.home, &mut self.world);
            match reply {
                Reply::Appended { user, seq, result } => {
                    home.appended(user, seq, result, now, world);
                }
                Reply::Rows { user, result } => home.rows(user, result, now, world),
                Reply::Members { group, result } => home.members(group, result, now, world),
                Reply::Auth { token, verdict } => self.verdict(token, &verdict, now),
                Reply::Requeued { user } => home.requeued(user, world),
                Reply::StoreChanged => home.store_changed(),
                Reply::Resolved { token, result } => home.resolved(token, result, now, world),
                Reply::Answer { token, result } => home.answered(token, result, now, world),
                Reply::GroupChanged { group } => home.group_changed(group),
            }
        }
        true
    }

    fn fire_timers(&mut self, now: Now) -> bool {
        if !self.world.clock.may_fire() {
            return false;
        }
        for _ in 0..TURN_TIMERS {
            let Some(timer) = self.world.timers.expired(now) else { return false };
            match timer {
                Timer::Session(slot) => self.home.session_timer(slot, now, &mut self.world),
                Timer::User(user) => self.home.user_timer(user, now, &mut self.world),
                Timer::Conn(slot) => self.conn_timer(slot, now),
                Timer::HandOver(token) => self.give_up_hand_over(token),
            }
        }
        true
    }

    fn conn_timer(&mut self, slot: Slot, now: Now) {
        let Some(conn) = self.world.conn(slot) else { return };
        conn.deadline.fired();
        // The timer may be an older one: only a silence that was long enough counts.
        let quiet_until = (conn.quiet == Quiet::Waiting).then_some(conn.quiet_until);
        match quiet_until {
            Some(until) if now < until => self.world.want_deadline(slot, until),
            Some(_) => self.silence(slot, now),
            None => {}
        }
        if !self.packet_goes_on(slot, now) {
            return;
        }
        let Some(conn) = self.world.conn(slot) else { return };
        match conn.phase {
            Phase::Upgrade | Phase::Login if now < conn.login_until => {
                let at = conn.login_until;
                self.world.want_deadline(slot, at);
            }
            Phase::Upgrade | Phase::Login => {
                self.world.close(slot, codec::CloseReason::LoginDeadline);
            }
            Phase::Closing => self.world.close_now(slot),
            Phase::Online if conn.gap_ms > 0 && !conn.sending && conn.has_output() => {
                self.world.mark_dirty(slot);
            }
            Phase::Online if conn.sending => {
                let at = conn.progress_at.plus_ms(SLOW_CONSUMER_MS);
                if now >= at {
                    self.lost(slot, codec::CloseReason::SlowConsumer, now);
                } else {
                    self.world.want_deadline(slot, at);
                }
            }
            _ => {}
        }
    }

    fn take_controls(&mut self) {
        while let Ok(control) = self.control.try_recv() {
            match control {
                Control::Snapshot(reply) => {
                    // A caller that has given up waiting is no concern of ours.
                    let _ = reply.send(self.snapshot());
                }
                Control::Tls(config) => self.tls = Some(config),
                Control::Notice { to, notice } => {
                    for &to in &to {
                        self.home.hear(to, &notice, &mut self.world);
                    }
                }
                Control::Drain(reply) => self.draining = Some(reply),
                Control::Stop => self.stopped = true,
            }
        }
    }

    fn drain(&mut self, now: Now) {
        if self.draining.is_none() {
            return;
        }
        let sessions_gone = self.home.drain(TURN_DRAIN, now, &mut self.world);
        if !sessions_gone {
            return;
        }
        let others: Vec<Slot> = self
            .world
            .conns
            .iter()
            .filter(|(_, conn)| matches!(conn.phase, Phase::Upgrade | Phase::Login))
            .map(|(index, conn)| Slot { index, generation: conn.generation })
            .collect();
        for slot in others {
            self.world.close(slot, codec::CloseReason::Shutdown);
        }
        let quiet = self.world.live == 0
            && self.home.is_quiet()
            && self.arrivals.is_empty()
            && self.world.waiting_requests.is_empty()
            && self.world.mesh.waiting() == 0;
        if quiet
            && !std::mem::replace(&mut self.drained, true)
            && let Some(reply) = &self.draining
        {
            // Whoever has given up waiting stops us all the same.
            let _ = reply.send(self.identity.shard);
        }
    }

    fn resume_reading(&mut self, now: Now) {
        for slot in std::mem::take(&mut self.world.resumed) {
            self.go_on_reading(slot, now);
        }
        // One after the other while there is room, and not before there is some: each takes up
        // again where it was held, which is not worth it for a single message.
        if self.home.publishes() > PUBLISHES_OUTSTANDING_SHARD * 3 / 4 {
            return;
        }
        for _ in 0..self.held.len() {
            if self.under_pressure() {
                return;
            }
            let Some(slot) = self.held.pop_front() else { return };
            if let Some(conn) = self.world.conn(slot) {
                conn.held = false;
            }
            self.feed(slot, &mut [], now);
            self.arm_receive(slot);
        }
    }

    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.world.dirty);
        for slot in dirty.drain(..) {
            if self.world.flush(slot).is_err() {
                self.hang_up(slot, codec::CloseReason::Tls, self.world.now);
            }
            self.world.finish_closing(slot);
        }
        if self.world.dirty.is_empty() {
            self.world.dirty = dirty;
        }
        let World { mesh, io, .. } = &mut self.world;
        mesh.flush(|to| io.doorbell(to));
    }

    fn set_accepting(&mut self) {
        let free = self.world.io.capacity().saturating_sub(self.world.live);
        let admits = self.world.config.logins_per_second == 0 || self.admission >= ONE_ADMISSION;
        let wanted = self.draining.is_none() && !self.lagging && admits && free > self.slot_reserve;
        if wanted != self.accepting {
            self.accepting = wanted;
            self.world.io.set_accepting(wanted);
        }
    }

    /// A second's worth of admissions may be saved up.
    fn refill_admission(&mut self, now: Now) {
        let rate = i64::from(self.world.config.logins_per_second);
        let elapsed_us = (now.0 - self.world.now.0).min(1_000_000) as i64;
        let refill = elapsed_us * rate;
        self.admission = (self.admission + refill).min(rate * ONE_ADMISSION);
    }

    fn how_long(&mut self, busy: bool, now: Now) -> Wait {
        let took = self.world.io.clock().ms_since(self.world.clock.engine());
        self.lagging = took >= LAG_MS;
        self.world.counters.lagging_turns += u64::from(self.lagging);
        let more = busy
            || self.stopped
            || self.lagging
            || !self.world.dirty.is_empty()
            || !self.world.refused_groups.is_empty()
            || !self.handshakes.is_empty();
        if more || !self.world.mesh.prepare_sleep() {
            return Wait::Poll;
        }
        let longest = match self.world.waiting_requests.is_empty() && self.held.is_empty() {
            // The watchdog wants a sign of life now and then.
            true => now.plus_ms(1_000),
            // Room in the sidecar's queue is not announced.
            false => now.plus_ms(1),
        };
        let refilled = self.accepting || self.draining.is_some();
        let longest = if refilled { longest } else { longest.min(now.plus_ms(10)) };
        let timer = self.world.timers.next_deadline().unwrap_or(longest);
        Wait::Until(timer.min(longest))
    }

    fn snapshot(&self) -> Snapshot {
        let mut counters = self.home.counters.clone();
        counters.add(&self.world.counters);
        counters.mesh_sent += self.world.mesh.sent;
        counters.mesh_full += self.world.mesh.full;
        counters.stood_still_ms += self.world.clock.stood_still_ms();
        Snapshot {
            shard: self.identity.shard,
            counters,
            gauges: self.home.gauges(),
            connections: u64::from(self.world.live),
            slots: u64::from(self.world.io.capacity()),
            timers: self.world.timers.len() as u64,
            mesh_waiting: self.world.mesh.waiting() as u64,
            store_waiting: self.world.waiting_requests.len() as u64,
            logins_pending: u64::from(self.logins_pending),
            publishers_held: self.held.len() as u64,
            accepting: self.accepting,
            engine: self.world.io.figures(),
        }
    }
}

/// The admission bucket counts in millionths, so that a microsecond adds the rate to it.
const ONE_ADMISSION: i64 = 1_000_000;
