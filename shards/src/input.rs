//! From received bytes to packets: TLS, upgrade, frames, and what each packet does.
//!
//! A frame is parsed where the kernel put it. Bytes are copied only when a head, a packet or a
//! frame is split over two receives, or when they follow a login that is being checked.

use std::net::SocketAddr;

use codec::ws::{self, Event, Opcode, Role, Ws, handshake};
use codec::{Answer, CloseReason, Decoded, Failure, Malformed, Outgoing, Packet, Query};

use crate::backend::Backend;
use crate::conn::{Conn, Framing, Phase, Quiet};
use crate::home::effects::Effects;
use crate::io::{Errno, Io, ListenerIndex, Now, Slot};
use crate::limits::{
    HANDSHAKE_BYTES, HANDSHAKES_WAITING, LOGIN_BYTES, OUTPUT_HIGH_WATER, PACKET_PROGRESS_BYTES,
    PACKET_STALL_MS, PUBLISHES_OUTSTANDING_SHARD, QUIET_MS,
};
use crate::shard::Shard;
use crate::tls::Tls;
use crate::world::World;

/// What is left of the bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packets {
    /// Another packet is in them.
    More,
    Done,
    /// Another one, that must wait for the login.
    Later,
}

impl<I: Io, B: Backend> Shard<I, B> {
    pub(crate) fn accepted(&mut self, slot: Slot, listener: ListenerIndex, peer: SocketAddr) {
        self.world.counters.accepted += 1;
        let config = std::sync::Arc::clone(&self.world.config);
        let Some(entry) = config.listeners.get(usize::from(listener)) else { return };
        let tls = match (entry.tls, &self.tls) {
            (false, _) => None,
            (true, Some(config)) => Tls::new(config).ok().map(Box::new),
            (true, None) => None,
        };
        let no_tls = entry.tls && tls.is_none();
        let framing = match &entry.ws_paths {
            Some(_) => Framing::Upgrade,
            None => Framing::Stream,
        };
        let phase = match (&entry.ws_paths, entry.protocol.is_door()) {
            (Some(_), _) => Phase::Upgrade,
            (None, false) => Phase::Login,
            (None, true) => Phase::Online,
        };
        let protocol = codec::AnyProtocol::new(entry.protocol);
        *self.world.conns.entry(slot.index) = Conn {
            generation: slot.generation,
            phase,
            listener,
            protocol,
            framing,
            tls,
            ..Conn::default()
        };
        self.world.live += 1;
        let allowed = entry.allow.is_empty() || entry.allow.iter().any(|a| a.contains(peer.ip()));
        if !allowed || no_tls {
            let reason = if allowed { CloseReason::Tls } else { CloseReason::NotAllowed };
            self.world.counters.refused += 1;
            self.world.counters.count_closed(reason);
            return self.world.close_now(slot);
        }
        if phase == Phase::Online {
            self.home.open_door(slot, listener, self.world.now);
        } else {
            let deadline = self.world.now.plus_ms(config.login_deadline_ms);
            self.world.conns.entry(slot.index).login_until = deadline;
            self.world.want_deadline(slot, deadline);
        }
        self.arm_receive(slot);
    }

    pub(crate) fn received(&mut self, slot: Slot, mut buf: I::Buf, now: Now) {
        self.world.counters.bytes_in += buf.len() as u64;
        if let Some(conn) = self.world.conn(slot) {
            conn.receiving = false;
            conn.packet_bytes = conn.packet_bytes.saturating_add(buf.len() as u32);
            if !self.is_handshake_over_budget(slot, &buf, now) {
                self.take_bytes(slot, &mut buf, now);
            }
        }
        self.world.io.recycle(buf);
    }

    /// Handshake bytes cost CPU before anybody has said who he is: they are counted, and wait for
    /// a turn with budget left.
    fn is_handshake_over_budget(&mut self, slot: Slot, bytes: &[u8], now: Now) -> bool {
        let Some(conn) = self.world.conn(slot) else { return false };
        if !conn.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            return false;
        }
        conn.early_bytes = conn.early_bytes.saturating_add(bytes.len() as u16);
        if usize::from(conn.early_bytes) > HANDSHAKE_BYTES {
            self.hang_up(slot, CloseReason::Tls, now);
            return true;
        }
        if self.handshake_budget == 0 && self.handshakes.len() >= HANDSHAKES_WAITING {
            self.hang_up(slot, CloseReason::Overload, now);
            return true;
        }
        if self.handshake_budget == 0 {
            conn.receiving = true;
            self.handshakes.push_back((slot, bytes.to_vec()));
            return true;
        }
        self.handshake_budget -= 1;
        false
    }

    /// Handshakes that were over the budget of the turn before.
    pub(crate) fn take_handshakes(&mut self, now: Now) {
        while self.handshake_budget > 0
            && let Some((slot, mut bytes)) = self.handshakes.pop_front()
        {
            self.handshake_budget -= 1;
            if let Some(conn) = self.world.conn(slot) {
                conn.receiving = false;
                self.take_bytes(slot, &mut bytes, now);
            }
        }
    }

    pub(crate) fn receive_ended(&mut self, slot: Slot, error: Option<Errno>, now: Now) {
        let Some(conn) = self.world.conn(slot) else { return };
        conn.receiving = false;
        conn.peer_done = true;
        self.silence(slot, now);
        let Some(conn) = self.world.conn(slot) else { return };
        match conn.phase {
            Phase::Closing => self.world.finish_closing(slot),
            Phase::Closed => {}
            _ => {
                let reason = match error {
                    None => CloseReason::PeerClosed,
                    Some(_) => CloseReason::SocketError,
                };
                self.lost(slot, reason, now);
            }
        }
    }

    fn take_bytes(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        let Some(conn) = self.world.conn(slot) else { return };
        match &mut conn.tls {
            None => self.feed(slot, bytes, now),
            Some(tls) => {
                let mut plain = std::mem::take(&mut self.plain);
                plain.clear();
                let was_handshaking = tls.is_handshaking();
                let opened = tls.open(bytes, &mut plain);
                if was_handshaking && !tls.is_handshaking() {
                    // From here on plaintext counts.
                    conn.early_bytes = 0;
                }
                self.world.mark_dirty(slot);
                self.feed(slot, &mut plain, now);
                self.plain = plain;
                match opened {
                    Ok(false) => {}
                    Ok(true) => self.receive_ended(slot, None, now),
                    Err(_) => self.tls_failed(slot, now),
                }
            }
        }
        self.arm_receive(slot);
        self.world.finish_closing(slot);
    }

    /// Nothing the peer sends can be read any more, his ws Close neither.
    fn tls_failed(&mut self, slot: Slot, now: Now) {
        match self.world.conn(slot) {
            Some(conn) if conn.phase == Phase::Closing => conn.peer_done = true,
            _ => self.hang_up(slot, CloseReason::Tls, now),
        }
    }

    /// A queue behind the publishers is filling: they are not read until it is not.
    pub(crate) fn under_pressure(&self) -> bool {
        self.world.under_pressure() || self.home.publishes() > PUBLISHES_OUTSTANDING_SHARD
    }

    /// A publisher whose messages would only lengthen a queue that is too long already.
    fn hold(&mut self, slot: Slot) {
        if let Some(conn) = self.world.conn(slot)
            && !conn.held
        {
            conn.held = true;
            self.world.counters.publishers_held += 1;
            self.held.push_back(slot);
        }
    }

    /// Parses plaintext of a connection, after what is left from before, and keeps what is not a
    /// whole packet yet, or must wait because the queues behind it are full.
    pub(crate) fn feed(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        let Some(conn) = self.world.conn(slot) else { return };
        let mut spill = conn.spill.take();
        if spill.is_empty() {
            let parsed = self.parse(slot, bytes, now);
            spill.extend_from_slice(&bytes[parsed..]);
        } else {
            spill.extend_from_slice(bytes);
            let parsed = self.parse(slot, &mut spill, now);
            spill.drain(..parsed);
        }
        if let Some(conn) = self.world.conn(slot).filter(|_| !spill.is_empty()) {
            conn.early_bytes = spill.len().min(usize::from(u16::MAX)) as u16;
            conn.spill.put(spill);
        }
        self.count_early(slot);
        self.watch_packet(slot, now);
    }

    /// From its first byte on a packet has its time.
    pub(crate) fn watch_packet(&mut self, slot: Slot, now: Now) {
        let Some(conn) = self.world.conn(slot).filter(|conn| conn.phase == Phase::Online) else {
            return;
        };
        if !conn.is_midway() {
            conn.packet_until = Now(0);
        } else if conn.packet_until == Now(0) {
            let until = now.plus_ms(PACKET_STALL_MS);
            (conn.packet_until, conn.packet_bytes) = (until, 0);
            self.world.want_deadline(slot, until);
        }
    }

    /// `false`: a packet that had begun has not gone on in its time, and its connection is ended.
    pub(crate) fn packet_goes_on(&mut self, slot: Slot, now: Now) -> bool {
        let Some(conn) = self.world.conn(slot) else { return true };
        if conn.phase != Phase::Online || conn.packet_until == Now(0) {
            return true;
        }
        if now >= conn.packet_until {
            // What we do not read cannot go on.
            if conn.receiving && conn.packet_bytes < PACKET_PROGRESS_BYTES {
                self.world.counters.count_malformed(Malformed::Unfinished);
                self.hang_up_malformed(slot, Malformed::Unfinished, now);
                return false;
            }
            (conn.packet_until, conn.packet_bytes) = (now.plus_ms(PACKET_STALL_MS), 0);
        }
        let until = conn.packet_until;
        self.world.want_deadline(slot, until);
        true
    }

    /// How many of the bytes are done with; the others need more, or wait for the login.
    fn parse(&mut self, slot: Slot, bytes: &mut [u8], now: Now) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            let Some(conn) = self.world.conn(slot) else { return bytes.len() };
            if conn.phase == Phase::Online && self.is_choked(slot) {
                return at;
            }
            let Some(conn) = self.world.conn(slot) else { return bytes.len() };
            let consumed = match (conn.phase, &mut conn.framing) {
                (Phase::Online, _) if conn.held => return at,
                (Phase::Online, _) if self.home.is_deaf(slot) => return bytes.len(),
                (Phase::Authenticating | Phase::HandingOver, _) => return at,
                (Phase::Upgrade, _) => self.parse_upgrade(slot, rest),
                (Phase::Closing, Framing::Ws(_)) => {
                    self.parse_last(slot, rest);
                    return bytes.len();
                }
                (Phase::Login | Phase::Online, Framing::Ws(ws)) => {
                    let mut ws = std::mem::replace(ws, Ws::new(Role::Server));
                    let consumed = self.parse_ws(slot, &mut ws, rest, now);
                    if let Some(conn) = self.world.conn(slot) {
                        conn.framing = Framing::Ws(ws);
                    }
                    Some(consumed)
                }
                (Phase::Login | Phase::Online, _) => self.parse_stream(slot, rest, now),
                _ => return bytes.len(),
            };
            match consumed {
                Some(consumed) => at += consumed,
                None => return at,
            }
        }
        at
    }

    /// Nothing more is taken from a connection that has too much unanswered, or that does not read
    /// its answers, which may be longer than the questions. It goes on when that is over.
    fn is_choked(&mut self, slot: Slot) -> bool {
        let may_read = self.home.may_read(slot) || self.home.is_deaf(slot);
        let Some(conn) = self.world.conn(slot) else { return false };
        conn.choked = !may_read || conn.backlog() >= OUTPUT_HIGH_WATER;
        conn.choked
    }

    /// A peer that has not logged in may make us hold so much and no more.
    fn count_early(&mut self, slot: Slot) {
        let Some(conn) = self.world.conn(slot) else { return };
        let handshaking = conn.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        let login = conn.phase == Phase::Login && !handshaking;
        if login && usize::from(conn.early_bytes) > LOGIN_BYTES {
            self.world.close(slot, CloseReason::Malformed);
        }
    }

    /// `None`: more is needed.
    fn parse_upgrade(&mut self, slot: Slot, bytes: &[u8]) -> Option<usize> {
        let World { conns, config, .. } = &self.world;
        let conn = conns.get(slot.index)?;
        let listener = config.listeners.get(usize::from(conn.listener))?;
        let paths = listener.ws_paths.as_deref().unwrap_or_default();
        let seen = usize::from(conn.early_bytes);
        let is_door = listener.protocol.is_door();
        let consumed = match handshake::parse_upgrade(bytes, seen, paths) {
            Ok(Decoded::NeedMore { .. } | Decoded::Unsure) => return None,
            Ok(Decoded::Frame { value, consumed }) => {
                self.world.write(slot, |out| handshake::write_accept(out, value.key, None));
                Some(consumed)
            }
            Err(refusal) => {
                self.world.write(slot, |out| refusal.write(out));
                None
            }
        };
        self.world.conns.entry(slot.index).early_bytes = 0;
        let Some(consumed) = consumed else {
            self.world.close(slot, CloseReason::UpgradeRefused);
            return Some(bytes.len());
        };
        let conn = self.world.conns.entry(slot.index);
        conn.framing = Framing::Ws(Ws::new(Role::Server));
        conn.phase = Phase::Login;
        if is_door {
            conn.phase = Phase::Online;
            let listener = conn.listener;
            self.world.clear_deadline(slot);
            self.home.open_door(slot, listener, self.world.now);
        }
        Some(consumed)
    }

    /// Takes frames until the bytes or the connection's willingness to read end.
    fn parse_ws(&mut self, slot: Slot, ws: &mut Ws, bytes: &mut [u8], now: Now) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let choked = self.is_choked(slot);
            let Some(conn) = self.world.conn(slot) else { return bytes.len() };
            let message_max = match conn.phase {
                Phase::Online if conn.held => return at,
                Phase::Online if choked => return at,
                Phase::Online if self.home.is_deaf(slot) => return bytes.len(),
                Phase::Online => conn.protocol.id().packet_max(),
                Phase::Login => LOGIN_BYTES,
                _ => return at,
            };
            let logging_in = conn.phase == Phase::Login;
            match ws.decode(&mut bytes[at..], message_max) {
                Ok(step) => {
                    at += step.consumed;
                    if logging_in {
                        conn.early_bytes = conn.early_bytes.saturating_add(step.consumed as u16);
                    }
                    if let Some(event) = step.event {
                        self.event(slot, event, now);
                    }
                }
                Err(error) => {
                    self.hang_up(slot, error.close_reason(), now);
                    return bytes.len();
                }
            }
        }
        at
    }

    fn event(&mut self, slot: Slot, event: Event<'_>, now: Now) {
        match event {
            Event::Message { opcode, payload } => {
                let Some(conn) = self.world.conn(slot) else { return };
                conn.packet_until = Now(0);
                let text = conn.protocol.id().is_text();
                if opcode == Opcode::Text && !text {
                    return self.hang_up(slot, CloseReason::TextMessage, now);
                }
                self.packets(slot, &payload, now);
            }
            Event::Ping(payload) => {
                let pong = |out: &mut Vec<u8>| {
                    ws::encode_control(out, Opcode::Pong, &payload, None);
                };
                self.world.write(slot, pong);
            }
            Event::Pong(_) => {}
            Event::Close { code, .. } => {
                if let Some(conn) = self.world.conn(slot) {
                    conn.peer_done = true;
                }
                self.world.write(slot, |out| ws::encode_close(out, code, None));
                self.home.ended(slot, CloseReason::PeerClosed, now, &mut self.world);
                self.world.close_after_peer(slot);
            }
        }
    }

    /// Packets of a protocol with its own framing. `None`: more is needed.
    fn parse_stream(&mut self, slot: Slot, bytes: &mut [u8], now: Now) -> Option<usize> {
        self.world.conn(slot)?;
        let World { conns, config, .. } = &mut self.world;
        let conn = conns.get_mut(slot.index)?;
        // A login that ends with a number is not waited for: it proves itself, and while a receive
        // is armed the connection could not be handed over.
        let logging_in = conn.phase == Phase::Login;
        let quiet = conn.quiet == Quiet::Over || logging_in;
        match conn.protocol.frame(&config.protocols, bytes, quiet) {
            // What is not whole yet is counted where it is kept, see `count_early`.
            Ok(Decoded::Frame { consumed, .. }) if logging_in && consumed > LOGIN_BYTES => {
                self.world.close(slot, CloseReason::Malformed);
                Some(bytes.len())
            }
            Ok(Decoded::NeedMore { .. }) => None,
            Ok(Decoded::Unsure) => {
                let until = now.plus_ms(QUIET_MS);
                conn.quiet = Quiet::Waiting;
                conn.quiet_until = until;
                self.world.want_deadline(slot, until);
                None
            }
            Ok(Decoded::Frame { value, consumed }) => {
                conn.quiet = Quiet::No;
                conn.packet_until = Now(0);
                loop {
                    match self.packet(slot, &bytes[value.clone()], now) {
                        Packets::More => {}
                        Packets::Done => return Some(consumed),
                        // It is found again when the login has come to its end.
                        Packets::Later => return None,
                    }
                }
            }
            Err(error) => {
                self.world.counters.count_malformed(error.what);
                self.hang_up_malformed(slot, error.what, now);
                Some(bytes.len())
            }
        }
    }

    /// The packets of one ws message; those behind a login wait for it.
    pub(crate) fn packets(&mut self, slot: Slot, bytes: &[u8], now: Now) {
        loop {
            match self.packet(slot, bytes, now) {
                Packets::More => {}
                Packets::Done => return,
                Packets::Later => return self.keep_message(slot, bytes.to_vec()),
            }
        }
    }

    /// One packet, in the connection's present phase.
    fn packet(&mut self, slot: Slot, bytes: &[u8], now: Now) -> Packets {
        if self.world.conn(slot).is_none() {
            return Packets::Done;
        }
        let conn = self.world.conns.entry(slot.index);
        let phase = conn.phase;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        match (phase, conn.protocol.decode(&self.world.config.protocols, bytes, &mut scratch)) {
            (Phase::Online, Ok(packet)) => self.online(slot, &packet, now),
            (Phase::Online, Err(error)) => {
                self.world.counters.count_malformed(error.what);
                self.home.malformed(slot, error.what, now, &mut self.world);
            }
            (Phase::Login, Ok(Packet::Connect(connect))) => self.start_login(slot, &connect),
            (Phase::Login, Ok(packet)) => self.before_login(slot, &packet),
            (Phase::Login, Err(error)) => self.not_a_login(slot, error.what),
            _ => {}
        }
        self.scratch = scratch;
        let Some(conn) = self.world.conn(slot) else { return Packets::Done };
        match conn.phase {
            Phase::Login | Phase::Online if conn.protocol.has_more() => Packets::More,
            Phase::Authenticating | Phase::HandingOver if conn.protocol.has_more() => {
                Packets::Later
            }
            _ => Packets::Done,
        }
    }

    fn online(&mut self, slot: Slot, packet: &Packet<'_>, now: Now) {
        self.home.packet(slot, packet, now, &mut self.world);
        match packet {
            Packet::Publish(_) | Packet::Query(..) | Packet::WhoIsHere if self.under_pressure() => {
                self.hold(slot);
            }
            Packet::Ack(_) => self.end_gap(slot),
            _ => {}
        }
    }

    /// The client is ready for its next packet, where each leaves alone.
    fn end_gap(&mut self, slot: Slot) {
        if let Some(conn) = self.world.conn(slot).filter(|conn| conn.gap_ms > 0) {
            conn.gap_over = true;
            self.world.mark_dirty(slot);
        }
    }

    /// A packet that is no login. Where a login may be tried again, a client may take his leave
    /// instead, and what means nothing costs no try.
    fn before_login(&mut self, slot: Slot, packet: &Packet<'_>) {
        let Some(conn) = self.world.conn(slot) else { return };
        match (packet, conn.protocol.id().login_tries() > 1) {
            // Whoever asked: it is told him, and why the connection ends.
            (Packet::Query(id, Query::Refused(why @ Failure::Unsupported)), false) => {
                self.world.transmit(slot, &Outgoing::Answer(*id, &Answer::Failed(*why)));
                self.not_a_login(slot, Malformed::LoginFirst);
            }
            (Packet::Nothing, true) => {}
            (Packet::Disconnect, true) => self.world.close(slot, CloseReason::PeerDisconnected),
            _ => self.not_a_login(slot, Malformed::LoginFirst),
        }
    }

    /// A first packet that makes no sense, or is no login.
    fn not_a_login(&mut self, slot: Slot, what: Malformed) {
        self.world.counters.count_malformed(what);
        let Some(conn) = self.world.conn(slot) else { return };
        if conn.protocol.id().login_tries() > 1 {
            self.world.transmit(slot, &Outgoing::Invalid(what));
        }
        self.try_again(slot, CloseReason::Malformed);
    }

    /// A stream whose framing is broken cannot go on.
    fn hang_up_malformed(&mut self, slot: Slot, what: Malformed, now: Now) {
        let conn = self.world.conns.entry(slot.index);
        if conn.protocol.id().is_door() {
            return self.home.malformed(slot, what, now, &mut self.world);
        }
        if conn.phase == Phase::Online {
            self.world.transmit(slot, &Outgoing::Invalid(what));
        }
        self.hang_up(slot, CloseReason::Malformed, now);
    }

    pub(crate) fn hang_up(&mut self, slot: Slot, reason: CloseReason, now: Now) {
        self.home.ended(slot, reason, now, &mut self.world);
        self.world.close(slot, reason);
    }

    /// Our Close is out; everything but the peer's Close is ignored.
    fn parse_last(&mut self, slot: Slot, bytes: &mut [u8]) {
        let Some(conn) = self.world.conn(slot) else { return };
        let message_max = conn.protocol.id().packet_max();
        let Framing::Ws(ws) = &mut conn.framing else { return };
        if ws.is_ended() {
            // After a framing error frames cannot be told apart: what comes is taken for the Close.
            conn.peer_done = true;
            return;
        }
        let mut at = 0;
        while at < bytes.len() {
            match ws.decode(&mut bytes[at..], message_max) {
                Ok(step) => {
                    at += step.consumed;
                    if matches!(step.event, Some(Event::Close { .. })) {
                        conn.peer_done = true;
                        return;
                    }
                }
                Err(_) => {
                    conn.peer_done = true;
                    return;
                }
            }
        }
    }
}
