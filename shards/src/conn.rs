//! A connection as a flat record: what its socket is doing, its framing, its output.
//!
//! ```text
//!            Accepted                    HandedIn + Adopt
//!               |                               |
//!   (tls) -> Upgrade -> Login -> Authenticating |         packets, heartbeats
//!               |         |        |      \     v        /
//!               |         |        |       +-> Online --+
//!               |         |        +-> HandingOver -> (gone: another shard has it)
//!               v         v        v            |
//!                Closing: last words, then the kernel's close -> Free
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use codec::ws::Ws;
use codec::{AnyProtocol, ProtocolId};

use crate::hand_over::{HandOver, Token};
use crate::home::session::Deadline;
use crate::io::{ListenerIndex, Now, Piece, SendBatch, ShardIndex};
use crate::tls::Tls;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection on this slot.
    #[default]
    Free,
    /// ws: the HTTP upgrade request has not come whole.
    Upgrade,
    /// The first packet must be a login.
    Login,
    /// The authenticator has the credentials. Nothing is read.
    Authenticating,
    /// Output drains, then the descriptor goes to the home shard. Nothing is read.
    HandingOver,
    /// Packets go to the session.
    Online,
    /// Last words are on their way; what comes in is only looked at for the peer's Close.
    Closing,
    /// The kernel is closing it.
    Closed,
}

/// How packets are found in the bytes.
#[derive(Debug, Default)]
pub(crate) enum Framing {
    /// An HTTP request comes first.
    #[default]
    Upgrade,
    Ws(Ws),
    /// The protocol's own frames.
    Stream,
}

/// Whether the bytes that were not parsed are a whole packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// That is not the question.
    #[default]
    No,
    /// They are if nothing more comes.
    Waiting,
    /// Nothing more has come.
    Over,
}

/// Packets of a connection on which each leaves alone.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    pub(crate) packets: VecDeque<Vec<u8>>,
    /// Bytes of all.
    pub(crate) bytes: usize,
}

/// Bytes read and not parsed: a head or a packet that came in part, or what followed a login. Most
/// connections have none.
#[derive(Debug, Default)]
pub(crate) struct Spill(
    #[expect(clippy::box_collection, reason = "a pointer instead of three words")]
    Option<Box<Vec<u8>>>,
);

impl Spill {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.0.take().map_or_else(Vec::new, |bytes| *bytes)
    }

    pub(crate) fn put(&mut self, bytes: Vec<u8>) {
        self.0 = (!bytes.is_empty()).then(|| Box::new(bytes));
    }
}

/// What a login waits with.
#[derive(Debug)]
pub(crate) struct LoginWait {
    /// `None`: he said his number, not his name.
    pub(crate) name: Option<Arc<[u8]>>,
    pub(crate) terminal: u64,
    /// The ws message of the login, if it carries more than that.
    pub(crate) message: Vec<u8>,
    /// Once verified and to be handed over: where, and with what.
    pub(crate) hand_over: Option<(ShardIndex, Token, crate::home::Login)>,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) listener: ListenerIndex,
    pub(crate) receiving: bool,
    pub(crate) sending: bool,
    /// In the list of connections to flush.
    pub(crate) dirty: bool,
    /// In the list of publishers that wait for a queue to empty.
    pub(crate) held: bool,
    /// Bytes were left unparsed because too much output waits.
    pub(crate) choked: bool,
    /// What may be a whole packet waits for silence to tell.
    pub(crate) quiet: Quiet,
    /// Silence until then makes it one.
    pub(crate) quiet_until: Now,
    /// Until then a packet that has begun must have gone on; 0: none has.
    pub(crate) packet_until: Now,
    /// Bytes received since that was decided.
    pub(crate) packet_bytes: u32,
    /// Until then the login must be complete.
    pub(crate) login_until: Now,
    /// Logins tried, and packets that were none.
    pub(crate) tries: u8,
    /// Packets leave alone, so far apart.
    pub(crate) gap_ms: u16,
    /// The client has acknowledged something since the last packet left.
    pub(crate) gap_over: bool,
    /// The peer's ws Close has come, or its end of the stream.
    pub(crate) peer_done: bool,
    /// Bytes received before the login, saturating.
    pub(crate) early_bytes: u16,
    pub(crate) protocol: AnyProtocol,
    pub(crate) framing: Framing,
    pub(crate) tls: Option<Box<Tls>>,
    pub(crate) wait: Option<Box<LoginWait>>,
    pub(crate) spill: Spill,
    /// Output of this turn.
    pub(crate) output: Option<SendBatch>,
    /// Packets that leave after the one in `output` or in the socket, one by one.
    pub(crate) paced: Option<Box<Paced>>,
    /// Plaintext bytes queued ever, and those of them given to the engine.
    pub(crate) queued: u64,
    pub(crate) flushed: u64,
    /// Of those, bytes whose send has ended.
    pub(crate) completed: u64,
    /// When the socket last took something, or was given something while idle.
    pub(crate) progress_at: Now,
    pub(crate) deadline: Deadline,
}

const _: () = assert!(size_of::<Conn>() <= 168, "one for every slot, a million in all");

impl Default for Conn {
    fn default() -> Self {
        Self {
            generation: 0,
            phase: Phase::Free,
            listener: 0,
            receiving: false,
            sending: false,
            dirty: false,
            held: false,
            choked: false,
            quiet: Quiet::No,
            quiet_until: Now(0),
            packet_until: Now(0),
            packet_bytes: 0,
            login_until: Now(0),
            tries: 0,
            gap_ms: 0,
            gap_over: false,
            peer_done: false,
            early_bytes: 0,
            protocol: AnyProtocol::new(ProtocolId::ALL[0]),
            framing: Framing::Upgrade,
            tls: None,
            wait: None,
            spill: Spill::default(),
            output: None,
            paced: None,
            queued: 0,
            flushed: 0,
            completed: 0,
            progress_at: Now(0),
            deadline: Deadline::default(),
        }
    }
}

impl Conn {
    /// Something is to be sent: what was queued, or what TLS itself has to say.
    pub(crate) fn has_output(&self) -> bool {
        self.has_output_now() || self.paced.is_some()
    }

    /// The same without what must wait its turn.
    pub(crate) fn has_output_now(&self) -> bool {
        let closing = self.phase == Phase::Closing;
        let tls_output = |tls: &Tls| tls.has_output() || (closing && tls.may_close());
        self.output.is_some() || self.tls.as_deref().is_some_and(tls_output)
    }

    /// When the next packet may leave, where each leaves alone.
    pub(crate) fn gap_ends_at(&self) -> Now {
        match self.gap_over {
            true => Now(0),
            false => self.progress_at.plus_ms(u64::from(self.gap_ms)),
        }
    }

    /// What was received ends within a packet, or within what carries one.
    pub(crate) fn is_midway(&self) -> bool {
        let of_ws = |framing: &Framing| match framing {
            Framing::Ws(ws) => ws.heap_bytes() > 0,
            Framing::Upgrade | Framing::Stream => false,
        };
        !self.spill.is_empty()
            || of_ws(&self.framing)
            || self.tls.as_deref().is_some_and(Tls::is_midway)
    }

    /// Bytes waiting to be sent.
    pub(crate) fn backlog(&self) -> usize {
        (self.queued - self.flushed) as usize
    }

    /// The state that goes to another shard, with a verified login.
    pub(crate) fn take_hand_over(
        &mut self,
        login: crate::home::Login,
        message: Vec<u8>,
    ) -> HandOver {
        HandOver {
            framing: std::mem::take(&mut self.framing),
            protocol: std::mem::replace(&mut self.protocol, AnyProtocol::new(ProtocolId::ALL[0])),
            tls: self.tls.take(),
            spill: self.spill.take(),
            message,
            login,
        }
    }
}

/// The end of a connection's output, to append to.
pub(crate) fn writer<'a>(
    output: &'a mut Option<SendBatch>,
    pool: &mut BatchPool,
) -> &'a mut Vec<u8> {
    let pieces = &mut output.get_or_insert_with(|| pool.take()).pieces;
    if !matches!(pieces.last(), Some(Piece::Owned(_))) {
        pieces.push(Piece::Owned(Vec::new()));
    }
    match pieces.last_mut() {
        Some(Piece::Owned(bytes)) => bytes,
        _ => unreachable!("pushed above"),
    }
}

/// Sent batches kept with their buffers for reuse.
#[derive(Debug, Default)]
pub(crate) struct BatchPool(Vec<SendBatch>);

impl BatchPool {
    pub(crate) fn take(&mut self) -> SendBatch {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn give(&mut self, mut batch: SendBatch) {
        use crate::limits::{SPARE_BUFFER_BYTES, SPARE_BUFFERS};
        batch.pieces.truncate(1);
        if let [Piece::Owned(bytes)] = &mut batch.pieces[..]
            && bytes.capacity() <= SPARE_BUFFER_BYTES
            && self.0.len() < SPARE_BUFFERS
        {
            bytes.clear();
            self.0.push(batch);
        }
    }
}
