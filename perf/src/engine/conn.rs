//! One connection: bytes in, events and bytes out, TLS between.
//!
//! Owns: the client's state, the beginning of a frame whose rest has not come, unsent bytes.
//! Never: asks the kernel for anything.

use crate::client::{Client, Endpoint, Event, Refused, Target};
use crate::scenario::told;
use crate::tls;
use rustls::ClientConnection;
use shards::io::Slot;
use std::fmt;
use std::io;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Dialing,
    Live(Slot),
    Closing,
}

#[derive(Debug)]
pub(super) struct Conn<C> {
    pub(super) state: State,
    client: C,
    tls: Option<Box<ClientConnection>>,
    /// The beginning of a frame whose rest has not come.
    spill: Vec<u8>,
    /// As it goes on the wire.
    pub(super) out: Vec<u8>,
    /// A send is in flight.
    pub(super) sending: bool,
    /// It is in the engine's list of connections with something to send.
    pub(super) dirty: bool,
    /// To be closed when everything is sent.
    pub(super) closing: bool,
    pub(super) logged_in: bool,
    dialled_ns: u64,
    /// Why it is closing. Valid exactly while [`State::Closing`].
    pub(super) why: Option<Closed>,
}

/// What a handler may do to the connection that it was called for. Everything it says leaves in
/// one send at the end of the turn.
pub(crate) struct Port<'a, C> {
    client: &'a mut C,
    out: &'a mut Vec<u8>,
    closing: &'a mut bool,
    /// When the bytes at hand were received, in nanoseconds of the run.
    pub now_ns: u64,
    /// When this connection was begun, likewise.
    pub dialled_ns: u64,
}

impl<C: Client> Port<'_, C> {
    pub(crate) fn publish(&mut self, to: Target, slot: u16, seq: u64, payload: &[u8]) {
        self.client.publish(to, slot, seq, payload, self.out);
    }

    /// Says good-bye and closes after the send.
    pub(crate) fn close(&mut self) {
        self.client.goodbye(self.out);
        *self.closing = true;
    }
}

/// Why a connection is gone.
#[derive(Debug)]
pub(crate) enum Closed {
    /// As the handler wished.
    Asked,
    /// The server closed without a word.
    ByServer,
    Refused(Refused),
    Broken(io::Error),
}

impl Closed {
    /// The same may go well at another time; a refusal by the protocol's own word will not.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::ByServer | Self::Broken(_) | Self::Refused(Refused::Goodbye))
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => write!(f, "closed as asked"),
            Self::ByServer => write!(f, "the server closed the connection"),
            Self::Refused(why) => why.fmt(f),
            Self::Broken(error) => f.write_str(&told(error)),
        }
    }
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl<C: Client> Conn<C> {
    pub(super) fn new(client: C, tls: Option<Box<ClientConnection>>, dialled_ns: u64) -> Self {
        Self {
            state: State::Dialing,
            client,
            tls,
            spill: Vec::new(),
            out: Vec::new(),
            sending: false,
            dirty: false,
            closing: false,
            logged_in: false,
            dialled_ns,
            why: None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_)) && !self.closing
    }

    /// Queues everything that is said before the server speaks.
    pub(super) fn hello(&mut self, endpoint: &Endpoint, plain: &mut Vec<u8>) -> Result<(), Closed> {
        match &mut self.tls {
            None => self.client.hello(endpoint, &mut self.out),
            Some(tls) => {
                plain.clear();
                self.client.hello(endpoint, plain);
                tls::seal(tls, plain, &mut self.out)?;
            }
        }
        Ok(())
    }

    /// Queues what `act` says. `plain` is scratch space, as below.
    pub(super) fn say(
        &mut self,
        plain: &mut Vec<u8>,
        now_ns: u64,
        act: impl FnOnce(&mut Port<'_, C>),
    ) -> Result<(), Closed> {
        plain.clear();
        let out = if self.tls.is_some() { &mut *plain } else { &mut self.out };
        let (client, closing, dialled_ns) = (&mut self.client, &mut self.closing, self.dialled_ns);
        act(&mut Port { client, out, closing, now_ns, dialled_ns });
        self.seal(plain)
    }

    /// Works off received bytes: events to `on_event`, answers queued. Plain bytes of whole frames
    /// are read where they are; `input` is scratch space for the others.
    pub(super) fn hear(
        &mut self,
        bytes: &mut [u8],
        input: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        now_ns: u64,
        on_event: &mut impl FnMut(Event<'_>, &mut Port<'_, C>),
    ) -> Result<(), Closed> {
        plain.clear();
        let bytes = if self.tls.is_none() && self.spill.is_empty() {
            bytes
        } else {
            input.clear();
            input.append(&mut self.spill);
            match &mut self.tls {
                None => input.extend_from_slice(bytes),
                Some(tls) => tls::open(tls, bytes, input)?,
            }
            &mut input[..]
        };
        let out = if self.tls.is_some() { &mut *plain } else { &mut self.out };
        let (client, closing, dialled_ns) = (&mut self.client, &mut self.closing, self.dialled_ns);
        let mut port = Port { client, out, closing, now_ns, dialled_ns };
        let used = feed(bytes, &mut port, on_event).map_err(Closed::Refused)?;
        self.spill.extend_from_slice(&bytes[used..]);
        if self.spill.len() > MAX_SPILL {
            return Err(Closed::Refused(Refused::Malformed("a frame over all bounds")));
        }
        self.seal(plain)
    }

    fn seal(&mut self, plain: &[u8]) -> Result<(), Closed> {
        if let Some(tls) = &mut self.tls {
            tls::seal(tls, plain, &mut self.out)?;
        }
        Ok(())
    }
}

/// Hands every whole frame to the client and its events on; returns the bytes used.
fn feed<C: Client>(
    input: &mut [u8],
    port: &mut Port<'_, C>,
    on_event: &mut impl FnMut(Event<'_>, &mut Port<'_, C>),
) -> Result<usize, Refused> {
    let mut at = 0;
    while at < input.len() {
        let Some((used, event)) = port.client.next(&mut input[at..], port.out)? else {
            break;
        };
        at += used;
        if event != Event::Nothing {
            on_event(event, port);
        }
    }
    Ok(at)
}

/// No protocol here has a frame that long.
const MAX_SPILL: usize = 256 * 1024;
