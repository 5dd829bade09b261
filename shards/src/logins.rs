//! From credentials to a session on the home shard: the authenticator, and the hand-over.
//!
//! While credentials are checked nothing is armed on the connection, so a hand-over has nothing to
//! cancel. Only the home shard registers the session and says that the login is accepted. A
//! failure that is not a verdict closes without one: clients then try again.

use std::hash::Hasher as _;
use std::sync::Arc;

use codec::{CloseReason, Connect, Outgoing, Refusal, Terminal, UserKey};
use siphasher::sip::SipHasher13;
use storage::{AuthRequest, AuthVerdict, Proof, Request, TenantRef};

use crate::backend::Backend;
use crate::conn::{Conn, Framing, LoginWait, Phase};
use crate::hand_over::{HandOver, Token};
use crate::home::Login;
use crate::home::effects::Effects;
use crate::io::{Errno, Io, Now, Slot};
use crate::limits::NAME_BYTES;
use crate::mesh::ShardMessage;
use crate::mutants::{self, Mutant};
use crate::router::home_of_user;
use crate::shard::Shard;

impl<I: Io, B: Backend> Shard<I, B> {
    /// The first packet of a connection.
    pub(crate) fn start_login(&mut self, slot: Slot, connect: &Connect<'_>) {
        let conn = self.world.conns.entry(slot.index);
        if let Err(refusal) = conn.protocol.check_connect(&self.world.config.protocols, connect) {
            return self.refuse_login(slot, refusal);
        }
        if connect.name.is_empty() || connect.name.len() > NAME_BYTES {
            return self.refuse_login(slot, Refusal::BadCredentials);
        }
        if self.logins_pending >= self.world.config.logins_pending_max {
            return self.world.close(slot, CloseReason::AuthUnavailable);
        }
        let tenant = match connect.tenant {
            Some((org, appkey)) => TenantRef::Named { org: org.into(), appkey: appkey.into() },
            None => TenantRef::Id(self.world.origin(slot).0),
        };
        let request = AuthRequest {
            token: pack(slot),
            realm: self.realm(slot),
            tenant,
            name: connect.name.into(),
            proof: Proof::from(connect.proof),
            device: match connect.terminal {
                Terminal::Device(name) => name.into(),
                Terminal::Kind(_) | Terminal::Connection => Box::default(),
            },
            role: connect.role,
            taken: false,
        };
        let terminal = self.terminal(slot, connect.terminal);
        self.authenticate(slot, terminal, request);
    }

    /// The authenticator of the connection's listener.
    fn realm(&mut self, slot: Slot) -> u16 {
        let listener = self.world.conns.entry(slot.index).listener;
        self.world.config.listeners.get(usize::from(listener)).map_or(0, |entry| entry.realm)
    }

    /// Which of its user's terminals the connection is: a number that two of them share only if one
    /// takes the other's place. Devices are told apart by a hash of their names.
    fn terminal(&mut self, slot: Slot, terminal: Terminal<'_>) -> u64 {
        let protocol = u64::from(self.world.origin(slot).1.number());
        let (form, number) = match terminal {
            Terminal::Kind(kind) => (0, u64::from(kind)),
            Terminal::Device(name) => {
                let mut hasher = SipHasher13::new();
                hasher.write(name);
                (1, hasher.finish())
            }
            Terminal::Connection => {
                self.connections += 1;
                (2, u64::from(self.identity.shard) << 40 | self.connections)
            }
        };
        protocol << 58 | form << 56 | number & ((1 << 56) - 1)
    }

    /// A verdict that the client hears; where it may try again, the connection stays.
    fn refuse_login(&mut self, slot: Slot, refusal: Refusal) {
        let Some(conn) = self.world.conn(slot) else { return };
        conn.phase = Phase::Login;
        self.world.transmit(slot, &Outgoing::Refused(refusal));
        self.try_again(slot, CloseReason::LoginRefused);
    }

    /// Something before the login went wrong; the last one that is forgiven ends the connection.
    pub(crate) fn try_again(&mut self, slot: Slot, reason: CloseReason) {
        let Some(conn) = self.world.conn(slot) else { return };
        conn.tries = conn.tries.saturating_add(1);
        if conn.tries >= conn.protocol.id().login_tries() {
            return self.world.close(slot, reason);
        }
        let deadline = self.world.now.plus_ms(self.world.config.login_deadline_ms);
        self.world.conns.entry(slot.index).login_until = deadline;
        self.world.want_deadline(slot, deadline);
    }

    /// What the client sent behind a login that was refused is looked at now.
    fn go_on_after_refusal(&mut self, slot: Slot, now: Now) {
        if self.world.conn(slot).is_some_and(|conn| conn.phase == Phase::Login) {
            self.feed(slot, &mut [], now);
            self.arm_receive(slot);
        }
    }

    fn authenticate(&mut self, slot: Slot, terminal: u64, request: AuthRequest) {
        let by_number = matches!(request.proof, Proof::Token(_));
        let name = (!by_number).then(|| Arc::from(&*request.name));
        if self.world.backend.submit(Request::Auth(request)).is_err() {
            return self.world.close(slot, CloseReason::AuthUnavailable);
        }
        self.logins_pending += 1;
        // The login deadline stands still while we, not the client, are slow.
        self.world.clear_deadline(slot);
        let conn = self.world.conns.entry(slot.index);
        conn.phase = Phase::Authenticating;
        conn.wait =
            Some(Box::new(LoginWait { name, terminal, message: Vec::new(), hand_over: None }));
    }

    /// Keeps a message whose login is being checked, for what comes behind it.
    pub(crate) fn keep_message(&mut self, slot: Slot, message: Vec<u8>) {
        if let Some(wait) = self.world.conn(slot).and_then(|conn| conn.wait.as_mut()) {
            wait.message = message;
        }
    }

    /// The authenticator's answer.
    pub(crate) fn verdict(&mut self, token: u64, verdict: &AuthVerdict, now: Now) {
        self.logins_pending -= 1;
        let slot = unpack(token);
        if self.world.conn(slot).is_none_or(|conn| conn.phase != Phase::Authenticating) {
            return;
        }
        match verdict {
            AuthVerdict::Pass { user, name } => self.verified(slot, *user, name.clone(), now),
            AuthVerdict::Denied => {
                self.refuse_login(slot, Refusal::BadCredentials);
                self.go_on_after_refusal(slot, now);
            }
            AuthVerdict::UnknownTenant => {
                self.refuse_login(slot, Refusal::UnknownTenant);
                self.go_on_after_refusal(slot, now);
            }
            AuthVerdict::Unavailable => self.world.close(slot, CloseReason::AuthUnavailable),
        }
    }

    /// `name`: the user's own, if it is not what he logged in with.
    fn verified(&mut self, slot: Slot, user: UserKey, name: Option<Arc<[u8]>>, now: Now) {
        let config = Arc::clone(&self.world.config);
        let conn = self.world.conns.entry(slot.index);
        let Some(wait) = &mut conn.wait else { return };
        let listener = config.listeners.get(usize::from(conn.listener));
        let login = Login {
            user,
            terminal: wait.terminal,
            name: name.or_else(|| wait.name.clone()),
            binds: listener.is_some_and(|listener| listener.binds_names),
            listener: conn.listener,
            protocol: conn.protocol.id(),
            manners: conn.protocol.manners(&config.protocols),
        };
        let home = home_of_user(user, self.world.config.shards);
        if home == self.identity.shard {
            let message = std::mem::take(&mut wait.message);
            conn.wait = None;
            return self.go_online(slot, login, message, now);
        }
        self.hand_overs = self.hand_overs.wrapping_add(1);
        let token = Token::new(self.identity.shard, self.hand_overs);
        wait.hand_over = Some((home, token, login));
        conn.phase = Phase::HandingOver;
        if conn.output.is_some() {
            self.world.mark_dirty(slot);
        }
        self.start_hand_over(slot);
    }

    /// The session begins; what the client sent after its login is parsed now.
    fn go_online(&mut self, slot: Slot, login: Login, message: Vec<u8>, now: Now) {
        if let Some(name) = login.name.as_deref().filter(|_| self.home.is_name_taken(&login)) {
            // Somebody of another name has this id; the authenticator finds a free one.
            let request = AuthRequest {
                token: pack(slot),
                realm: self.realm(slot),
                tenant: TenantRef::Id(login.user.tenant),
                name: name.into(),
                proof: Proof::Nothing,
                device: Box::default(),
                role: None,
                taken: true,
            };
            self.authenticate(slot, login.terminal, request);
            return self.keep_message(slot, message);
        }
        let conn = self.world.conns.entry(slot.index);
        conn.phase = Phase::Online;
        conn.protocol.accepted();
        if matches!(conn.framing, Framing::Stream) {
            conn.gap_ms = login.manners.gap_ms;
        }
        self.home.login(slot, login, now, &mut self.world);
        if !message.is_empty() {
            self.packets(slot, &message, now);
        }
        let spill = self.world.conn(slot).map(|conn| conn.spill.take());
        if let Some(mut spill) = spill.filter(|spill| !spill.is_empty()) {
            self.feed(slot, &mut spill, now);
        }
        self.watch_packet(slot, now);
        self.arm_receive(slot);
    }

    /// Passes the descriptor on as soon as nothing is in flight on it.
    pub(crate) fn start_hand_over(&mut self, slot: Slot) {
        let Some(conn) = self.world.conn(slot) else { return };
        if conn.sending || conn.has_output() {
            return self.world.mark_dirty(slot);
        }
        let wait = conn.wait.as_ref().and_then(|wait| wait.hand_over.as_ref());
        let Some(&(home, token, _)) = wait else { return };
        self.world.io.hand_over(slot, home, token.to_bits());
    }

    /// The engine has passed a descriptor on, or could not.
    pub(crate) fn handed_over(&mut self, slot: Slot, result: Result<(), Errno>, now: Now) {
        let Some(conn) = self.world.conn(slot) else { return };
        let Some(LoginWait { message, hand_over, .. }) = conn.wait.take().map(|wait| *wait) else {
            return;
        };
        let Some((home, token, login)) = hand_over else { return };
        if result.is_err() {
            self.world.counters.hand_overs_failed += 1;
            return self.hang_up(slot, CloseReason::HandOver, now);
        }
        let mut state = Box::new(conn.take_hand_over(login, message));
        self.world.counters.handed_over += 1;
        if mutants::on(Mutant::HandOverLosesBytes) {
            state.spill.clear();
        }
        self.world.release(slot);
        self.world.mesh.send(home, ShardMessage::Adopt { token, state });
    }

    /// A descriptor from another shard.
    pub(crate) fn handed_in(&mut self, slot: Slot, token: Token, now: Now) {
        *self.world.conns.entry(slot.index) =
            Conn { generation: slot.generation, phase: Phase::HandingOver, ..Conn::default() };
        self.world.live += 1;
        if let Some(state) = self.arrivals.descriptor(token, slot, now, &mut self.world) {
            self.join(slot, *state, now);
        }
    }

    /// A connection's state from another shard.
    pub(crate) fn adopt(&mut self, token: Token, state: Box<HandOver>, now: Now) {
        if let Some((slot, state)) = self.arrivals.state(token, state, now, &mut self.world) {
            self.join(slot, *state, now);
        }
    }

    pub(crate) fn give_up_hand_over(&mut self, token: Token) {
        if let Some(slot) = self.arrivals.give_up(token) {
            self.world.counters.hand_overs_failed += 1;
            self.world.counters.count_closed(CloseReason::HandOver);
            self.world.close_now(slot);
        }
    }

    /// Both halves are here: the connection is this shard's now.
    fn join(&mut self, slot: Slot, state: HandOver, now: Now) {
        let HandOver { framing, protocol, tls, spill, message, login } = state;
        let conn = self.world.conns.entry(slot.index);
        debug_assert!(conn.phase == Phase::HandingOver && conn.generation == slot.generation);
        conn.listener = login.listener;
        conn.framing = framing;
        conn.protocol = protocol;
        conn.tls = tls;
        conn.spill.put(spill);
        self.go_online(slot, login, message, now);
    }
}

/// A slot as the authenticator's token.
fn pack(slot: Slot) -> u64 {
    u64::from(slot.generation) << 32 | u64::from(slot.index)
}

fn unpack(token: u64) -> Slot {
    Slot { index: token as u32, generation: (token >> 32) as u32 }
}
