//! What surrounds the sans-io core on a shard: connections, engine, mesh, timers, the sidecar's
//! port. It carries out the core's [`Effects`] and decides nothing about messages.

use std::collections::VecDeque;
use std::sync::Arc;

use codec::ws::{self, Opcode};
use codec::{
    CloseReason, GroupKey, Manners, Message, Outgoing, ProtocolId, Push, Target, TenantId,
};
use storage::Request;

use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::ShardConfig;
use crate::conn::{BatchPool, Conn, Framing, Phase, writer};
use crate::home::effects::{Effects, Timer};
use crate::io::{Io, Now, Piece, ShardIndex, Slot};
use crate::limits::{CLOSE_DEADLINE_MS, COPY_BYTES, SLOW_CONSUMER_MS};
use crate::mesh::{Mesh, ShardMessage};
use crate::metrics::Counters;
use crate::mutants::{self, Mutant};
use crate::table::Table;
use crate::timers::{TimerId, TimerWheel};
use crate::tls::TlsFailed;

pub(crate) struct World<I: Io, B: Backend> {
    pub(crate) io: I,
    pub(crate) backend: B,
    pub(crate) mesh: Mesh,
    pub(crate) config: Arc<ShardConfig>,
    pub(crate) conns: Table<Conn>,
    pub(crate) timers: TimerWheel<Timer>,
    pub(crate) counters: Counters,
    pub(crate) clock: Clock,
    /// The shard's time of this turn.
    pub(crate) now: Now,
    /// Milliseconds since 1970 when the engine's clock was zero.
    pub(crate) unix_base_ms: u64,
    /// Connections with something to flush at the end of the turn.
    pub(crate) dirty: Vec<Slot>,
    /// Connections that may be read again.
    pub(crate) resumed: Vec<Slot>,
    /// Requests for which the sidecar's queue had no room, in order.
    pub(crate) waiting_requests: VecDeque<Request>,
    /// Groups whose members nobody could be asked for: answered as unavailable.
    pub(crate) refused_groups: Vec<GroupKey>,
    pub(crate) pool: BatchPool,
    pub(crate) frames: FrameCache,
    /// Connections that are not free.
    pub(crate) live: u32,
}

impl<I: Io, B: Backend> World<I, B> {
    /// The connection, if the slot still belongs to it.
    pub(crate) fn conn(&mut self, slot: Slot) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(slot.index)?;
        let same = conn.generation == slot.generation || mutants::on(Mutant::NoGenerationCheck);
        (same && conn.phase != Phase::Free).then_some(conn)
    }

    pub(crate) fn mark_dirty(&mut self, slot: Slot) {
        if let Some(conn) = self.conn(slot)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Sends what a connection has queued, if nothing is in flight on it.
    ///
    /// # Errors
    /// Its TLS is broken; the connection is to be ended.
    pub(crate) fn flush(&mut self, slot: Slot) -> Result<(), TlsFailed> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(slot.index) else { return Ok(()) };
        if conn.generation != slot.generation || conn.phase == Phase::Free {
            return Ok(());
        }
        conn.dirty = false;
        if conn.sending || conn.phase == Phase::Closed || !conn.has_output() {
            return Ok(());
        }
        if let Err(wait) = unpace(conn, &mut self.pool, now) {
            self.want_deadline(slot, wait);
            return Ok(());
        }
        let Some(conn) = self.conns.get_mut(slot.index) else { return Ok(()) };
        conn.flushed = conn.queued - conn.paced.as_ref().map_or(0, |paced| paced.bytes as u64);
        let mut batch = conn.output.take();
        if let Some(tls) = &mut conn.tls {
            let mut sealed = self.pool.take();
            let mut cipher = match sealed.pieces.pop() {
                Some(Piece::Owned(bytes)) => bytes,
                _ => Vec::new(),
            };
            let mut sealed_all = tls.seal(batch.as_ref(), &mut cipher);
            if conn.phase == Phase::Closing {
                // After the last words, never before them.
                sealed_all = sealed_all.and_then(|()| tls.close(&mut cipher));
            }
            sealed.pieces.push(Piece::Owned(cipher));
            if let Some(plain) = batch.replace(sealed) {
                self.pool.give(plain);
            }
            sealed_all?;
        }
        let Some(batch) = batch.filter(|batch| !batch.is_empty()) else { return Ok(()) };
        conn.sending = true;
        conn.progress_at = now;
        let online = conn.phase == Phase::Online;
        self.io.send(slot, batch);
        if online {
            self.want_deadline(slot, now.plus_ms(SLOW_CONSUMER_MS));
        }
        Ok(())
    }

    /// The connection's timer fires at `at` or before.
    pub(crate) fn want_deadline(&mut self, slot: Slot, at: Now) {
        let Some(conn) = self.conn(slot) else { return };
        let mut deadline = conn.deadline;
        deadline.want(self, Timer::Conn(slot), at);
        self.conns.entry(slot.index).deadline = deadline;
    }

    pub(crate) fn clear_deadline(&mut self, slot: Slot) {
        let Some(conn) = self.conn(slot) else { return };
        let mut deadline = conn.deadline;
        deadline.cancel(self);
        self.conns.entry(slot.index).deadline = deadline;
    }

    /// A closing connection whose last words are out: waits for the peer's Close, or ends it.
    pub(crate) fn finish_closing(&mut self, slot: Slot) {
        let Some(conn) = self.conn(slot).filter(|conn| conn.phase == Phase::Closing) else {
            return;
        };
        let drained = !conn.sending && !conn.has_output();
        let waits = matches!(conn.framing, Framing::Ws(_)) && !conn.peer_done;
        if drained && !waits {
            self.close_now(slot);
        } else if drained && !conn.receiving {
            conn.receiving = true;
            self.io.receive(slot);
        }
    }

    /// The peer has said its ws Close and ours is queued: nothing more is said.
    pub(crate) fn close_after_peer(&mut self, slot: Slot) {
        let now = self.now;
        let Some(conn) = self.conn(slot) else { return };
        if matches!(conn.phase, Phase::Closing | Phase::Closed) {
            return;
        }
        conn.phase = Phase::Closing;
        self.counters.count_closed(CloseReason::PeerClosed);
        self.clear_deadline(slot);
        self.want_deadline(slot, now.plus_ms(CLOSE_DEADLINE_MS));
        self.mark_dirty(slot);
    }

    /// Gives the connection to the kernel to close, whatever is still queued.
    pub(crate) fn close_now(&mut self, slot: Slot) {
        let Some(conn) = self.conn(slot) else { return };
        if conn.phase == Phase::Closed {
            return;
        }
        conn.phase = Phase::Closed;
        conn.output = None;
        self.clear_deadline(slot);
        self.io.close(slot);
    }

    /// The slot is free again.
    pub(crate) fn release(&mut self, slot: Slot) {
        if self.conn(slot).is_some() {
            self.clear_deadline(slot);
            *self.conns.entry(slot.index) = Conn::default();
            self.live -= 1;
        }
    }

    /// Queues a request again until the sidecar takes it; order is kept.
    pub(crate) fn submit_waiting(&mut self) {
        while let Some(request) = self.waiting_requests.pop_front() {
            if let Err(request) = self.backend.submit(request) {
                self.waiting_requests.push_front(request);
                break;
            }
        }
    }

    /// A queue of requests or of messages to other shards is filling.
    pub(crate) fn under_pressure(&self) -> bool {
        !self.waiting_requests.is_empty() || self.mesh.is_congested() || self.backend.load() > 0.5
    }

    /// Queues bytes that are no packet: HTTP, ws control frames.
    pub(crate) fn write(&mut self, slot: Slot, write: impl FnOnce(&mut Vec<u8>)) {
        if self.conn(slot).is_none() {
            return;
        }
        let conn = self.conns.entry(slot.index);
        let out = writer(&mut conn.output, &mut self.pool);
        let before = out.len();
        write(out);
        conn.queued += (out.len() - before) as u64;
        self.mark_dirty(slot);
    }

    fn last_words(&mut self, slot: Slot, reason: CloseReason) {
        let spoken = self.conn(slot).is_some_and(|conn| {
            matches!(conn.phase, Phase::Login | Phase::Authenticating | Phase::Online)
        });
        // A refusal is a last word of its own, and who has said goodbye wants to hear none.
        let is_said = matches!(reason, CloseReason::LoginRefused | CloseReason::PeerDisconnected);
        if spoken && !is_said {
            self.transmit(slot, &Outgoing::Goodbye(reason));
        }
        let over_ws = self.conn(slot).is_some_and(|conn| matches!(conn.framing, Framing::Ws(_)));
        if over_ws && let Some(code) = reason.ws_code() {
            self.write(slot, |out| ws::encode_close(out, Some(code), None));
        }
    }

    fn put(&mut self, slot: Slot, outgoing: &Outgoing<'_>) -> Option<u64> {
        let Self { conns, pool, frames, config, .. } = self;
        let conn = conns.get_mut(slot.index).filter(|conn| conn.generation == slot.generation)?;
        if matches!(conn.phase, Phase::Free | Phase::Closing | Phase::Closed) {
            return None;
        }
        if let Outgoing::Push(Push { message, stored: false }) = outgoing
            && matches!(message.to, Target::Group(_) | Target::Room(_))
            && conn.gap_ms == 0
            && let Some(variant) = conn.protocol.push_variant(&config.protocols)
        {
            let frame = frames.get(conn, &config.protocols, message, variant);
            conn.queued += frame.len() as u64;
            if frame.len() <= COPY_BYTES {
                writer(&mut conn.output, pool).extend_from_slice(&frame);
            } else {
                conn.output.get_or_insert_with(|| pool.take()).pieces.push(Piece::Shared(frame));
            }
            return Some(conn.queued);
        }
        let over_ws = matches!(conn.framing, Framing::Ws(_));
        if conn.gap_ms > 0 && (conn.sending || conn.has_output()) {
            let mut packet = Vec::new();
            frame(over_ws, &conn.protocol, &config.protocols, outgoing, &mut packet);
            conn.queued += packet.len() as u64;
            if !packet.is_empty() {
                let paced = conn.paced.get_or_insert_default();
                paced.bytes += packet.len();
                paced.packets.push_back(packet);
            }
            return Some(conn.queued);
        }
        let out = writer(&mut conn.output, pool);
        let before = out.len();
        frame(over_ws, &conn.protocol, &config.protocols, outgoing, out);
        conn.queued += (out.len() - before) as u64;
        Some(conn.queued)
    }
}

impl<I: Io, B: Backend> Effects for World<I, B> {
    fn transmit(&mut self, slot: Slot, outgoing: &Outgoing<'_>) -> u64 {
        let end = self.put(slot, outgoing);
        if end.is_some() {
            self.mark_dirty(slot);
        }
        end.unwrap_or_default()
    }

    fn close(&mut self, slot: Slot, reason: CloseReason) {
        let Some(conn) = self.conn(slot) else { return };
        if matches!(conn.phase, Phase::Closing | Phase::Closed) {
            return;
        }
        self.counters.count_closed(reason);
        if matches!(reason, CloseReason::PeerClosed | CloseReason::SocketError) {
            return self.close_now(slot);
        }
        self.last_words(slot, reason);
        let now = self.now;
        let conn = self.conns.entry(slot.index);
        conn.phase = Phase::Closing;
        self.clear_deadline(slot);
        self.want_deadline(slot, now.plus_ms(CLOSE_DEADLINE_MS));
        self.mark_dirty(slot);
    }

    fn backlog(&self, slot: Slot) -> usize {
        self.conns.get(slot.index).map_or(0, Conn::backlog)
    }

    fn unsent(&mut self, slot: Slot) {
        if self.conn(slot).is_some_and(|conn| conn.phase == Phase::Online) {
            self.io.unsent(slot);
        }
    }

    fn resume(&mut self, slot: Slot) {
        if self.conn(slot).is_some_and(|conn| !conn.receiving) {
            self.resumed.push(slot);
        }
    }

    fn is_read(&self, slot: Slot) -> bool {
        self.conns.get(slot.index).is_some_and(|conn| conn.receiving)
    }

    fn manners(&self, slot: Slot) -> Manners {
        let conn = self.conns.get(slot.index);
        conn.map_or_else(Manners::default, |conn| conn.protocol.manners(&self.config.protocols))
    }

    fn route(&mut self, to: ShardIndex, message: ShardMessage) {
        self.mesh.send(to, message);
    }

    fn store(&mut self, request: Request) {
        // Member lists have a queue of their own, which must not hold up the store's.
        if let Request::Members { group } = request {
            if self.backend.submit(request).is_err() {
                self.refused_groups.push(group);
            }
            return;
        }
        if !self.waiting_requests.is_empty() {
            return self.waiting_requests.push_back(request);
        }
        if let Err(request) = self.backend.submit(request) {
            self.counters.store_queue_full += 1;
            self.waiting_requests.push_back(request);
        }
    }

    fn arm(&mut self, timer: Timer, at: Now) -> TimerId {
        self.timers.arm(timer, at)
    }

    fn cancel(&mut self, timer: TimerId) {
        self.timers.cancel(timer);
    }

    fn origin(&self, slot: Slot) -> (TenantId, ProtocolId) {
        let listener = self.conns.get(slot.index).map_or(0, |conn| conn.listener);
        let listener = self.config.listeners.get(usize::from(listener));
        listener.map_or((TenantId(0), ProtocolId::ALL[0]), |l| (l.tenant, l.protocol))
    }

    fn unix_ms(&self) -> u64 {
        self.unix_base_ms + self.clock.engine().0 / 1_000
    }
}

/// Frames of group messages, encoded once per form and shared by all receivers of this shard.
#[derive(Debug, Default)]
pub(crate) struct FrameCache {
    entries: VecDeque<CachedFrame>,
}

#[derive(Debug)]
struct CachedFrame {
    stamp: u128,
    variant: u16,
    over_ws: bool,
    frame: Arc<[u8]>,
}

impl FrameCache {
    /// Messages whose receivers are still being served within one turn.
    const ENTRIES: usize = 16;

    fn get(
        &mut self,
        conn: &Conn,
        settings: &codec::Settings,
        message: &Message,
        variant: u16,
    ) -> Arc<[u8]> {
        let over_ws = matches!(conn.framing, Framing::Ws(_));
        let same = |entry: &&CachedFrame| {
            entry.stamp == message.stamp && entry.variant == variant && entry.over_ws == over_ws
        };
        if let Some(entry) = self.entries.iter().rev().find(same) {
            return Arc::clone(&entry.frame);
        }
        let mut bytes = Vec::with_capacity(message.body.len() + 64);
        let push = Outgoing::Push(Push { message, stored: false });
        frame(over_ws, &conn.protocol, settings, &push, &mut bytes);
        let frame: Arc<[u8]> = bytes.into();
        if self.entries.len() >= Self::ENTRIES {
            self.entries.pop_front();
        }
        let stamp = message.stamp;
        self.entries.push_back(CachedFrame { stamp, variant, over_ws, frame: Arc::clone(&frame) });
        frame
    }
}

/// Moves the next packet of a connection on which each leaves alone to its output. One that is
/// being closed says no more.
///
/// # Errors
/// It is too early; when it will not be.
fn unpace(conn: &mut Conn, pool: &mut BatchPool, now: Now) -> Result<(), Now> {
    let closing = conn.phase == Phase::Closing;
    if conn.gap_ms == 0 || conn.phase == Phase::Closed {
        return Ok(());
    }
    if closing {
        // Together they would be read as one. Nothing of it is lost: it was not acknowledged.
        if let Some(paced) = conn.paced.take() {
            conn.queued -= paced.bytes as u64;
        }
        return Ok(());
    }
    let free_at = conn.gap_ends_at();
    if now < free_at {
        return Err(free_at);
    }
    conn.gap_over = false;
    while let Some(paced) = &mut conn.paced
        && conn.output.is_none()
    {
        if let Some(packet) = paced.packets.pop_front() {
            paced.bytes -= packet.len();
            writer(&mut conn.output, pool).extend_from_slice(&packet);
        }
        if paced.packets.is_empty() {
            conn.paced = None;
        }
    }
    Ok(())
}

/// Appends one packet in its framing; nothing where the protocol has no such word.
fn frame(
    over_ws: bool,
    protocol: &codec::AnyProtocol,
    settings: &codec::Settings,
    outgoing: &Outgoing<'_>,
    out: &mut Vec<u8>,
) {
    if !over_ws {
        return protocol.encode(settings, outgoing, true, out);
    }
    let before = out.len();
    let mut empty = false;
    let opcode = if protocol.id().is_text() { Opcode::Text } else { Opcode::Binary };
    ws::encode(out, opcode, None, len_hint(outgoing), |out| {
        let start = out.len();
        protocol.encode(settings, outgoing, false, out);
        empty = out.len() == start;
    });
    if empty {
        out.truncate(before);
    }
}

/// About how long the packet will be; a wrong guess costs a move of the payload.
fn len_hint(outgoing: &Outgoing<'_>) -> usize {
    match outgoing {
        Outgoing::Push(push) => push.message.body.len() + 40,
        _ => 33,
    }
}
