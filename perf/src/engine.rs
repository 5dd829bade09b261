//! The loop: one thread, one epoll set, at most one write per ready connection and turn.
//!
//! Owns: connections, shared buffers, the run's clock, the login histogram. Never: knows what is
//! sent or why; a [`Handler`] does.

use crate::client::{Client, Event, Login, Refused, Target};
use crate::transport::{Dialer, Progress, Transport};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::time::{Duration, Instant};

/// What happens on logged-in connections.
pub(crate) trait Handler<C: Client> {
    /// Called for every event of connection `conn`, in order.
    fn on_event(&mut self, conn: usize, event: Event<'_>, port: &mut Port<'_, C>);
}

/// What a handler may do to the connection that it was called for. Everything it says leaves in
/// one write when the connection's input is worked off.
pub(crate) struct Port<'a, C> {
    client: &'a mut C,
    out: &'a mut Vec<u8>,
    closing: &'a mut bool,
    /// When the bytes at hand were read, in nanoseconds of the run.
    pub now_ns: u64,
}

impl<C: Client> Port<'_, C> {
    pub(crate) fn publish(&mut self, to: Target, slot: u16, seq: u64, payload: &[u8]) {
        self.client.publish(to, slot, seq, payload, self.out);
    }

    /// Says good-bye and closes after the write.
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

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => write!(f, "closed as asked"),
            Self::ByServer => write!(f, "the server closed the connection"),
            Self::Refused(why) => why.fmt(f),
            Self::Broken(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Nanoseconds since the run began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// All connections of a run.
pub(crate) struct Engine<C> {
    poll: Poll,
    events: Events,
    conns: Vec<Option<Conn<C>>>,
    dialer: Dialer,
    scratch: Scratch,
    closed: Vec<(usize, Closed)>,
    pub clock: Clock,
    /// Logins since the start.
    pub logins: u64,
    /// Nanoseconds from the dial to the session being usable.
    pub login_ns: Histogram<u64>,
}

struct Conn<C> {
    transport: Transport,
    client: C,
    /// The beginning of a frame whose rest has not come.
    spill: Vec<u8>,
    dialled_ns: u64,
    closing: bool,
}

/// Buffers that serve one connection after the other.
struct Scratch {
    wire: Box<[u8]>,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl<C: Client> Engine<C> {
    pub(crate) fn new(dialer: Dialer) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            conns: Vec::new(),
            dialer,
            scratch: Scratch {
                wire: vec![0; READ].into_boxed_slice(),
                input: Vec::with_capacity(2 * READ),
                out: Vec::with_capacity(READ),
            },
            closed: Vec::new(),
            clock: Clock(Instant::now()),
            logins: 0,
            login_ns: histogram(),
        })
    }

    /// Connects `login` as connection `index`, the next free or a closed one.
    pub(crate) fn open(&mut self, index: usize, login: Login) -> io::Result<()> {
        let mut client = C::new(login);
        let mut transport = self.dialer.dial()?;
        self.scratch.out.clear();
        client.hello(&self.dialer.endpoint, &mut self.scratch.out);
        transport.prepare(&self.scratch.out)?;
        // Edge-triggered: both interests are registered once for the life of the connection.
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut transport.stream, Token(index), interests)?;
        let dialled_ns = self.clock.now_ns();
        let conn = Conn { transport, client, spill: Vec::new(), dialled_ns, closing: false };
        if index == self.conns.len() {
            self.conns.push(None);
        }
        assert!(self.conns[index].is_none(), "connection {index} is still in use");
        self.conns[index] = Some(conn);
        Ok(())
    }

    /// Waits for readiness, at most `timeout`, and works off everything that is ready.
    pub(crate) fn turn(
        &mut self,
        handler: &mut impl Handler<C>,
        timeout: Duration,
    ) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let Self { conns, events, scratch, clock, closed, logins, login_ns, .. } = self;
        for event in events.iter() {
            let Token(index) = event.token();
            let Some(conn) = conns.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            let mut logged_in = false;
            let until_closed = event.is_read_closed();
            let outcome = conn.service(scratch, *clock, until_closed, |event, port| {
                logged_in |= event == Event::Ready;
                handler.on_event(index, event, port);
            });
            if logged_in {
                *logins += 1;
                login_ns.saturating_record(clock.now_ns() - conn.dialled_ns);
            }
            if let Err(why) = outcome {
                conns[index] = None;
                closed.push((index, why));
            }
        }
        Ok(())
    }

    /// Lets `act` say something on a connection that has no input at the moment.
    pub(crate) fn with(&mut self, index: usize, act: impl FnOnce(&mut Port<'_, C>)) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        self.scratch.out.clear();
        act(&mut Port {
            client: &mut conn.client,
            out: &mut self.scratch.out,
            closing: &mut conn.closing,
            now_ns: self.clock.now_ns(),
        });
        if let Err(why) = conn.transmit(&self.scratch.out) {
            self.conns[index] = None;
            self.closed.push((index, why));
        }
    }

    /// A connection that closed since the last call.
    pub(crate) fn next_closed(&mut self) -> Option<(usize, Closed)> {
        self.closed.pop()
    }
}

impl<C: Client> Conn<C> {
    /// Works off one readiness: what is unsent, then all input, then the answers.
    fn service(
        &mut self,
        scratch: &mut Scratch,
        clock: Clock,
        until_closed: bool,
        mut on_event: impl FnMut(Event<'_>, &mut Port<'_, C>),
    ) -> Result<(), Closed> {
        self.transport.flush()?;
        let Scratch { wire, input, out } = scratch;
        out.clear();
        loop {
            input.clear();
            input.append(&mut self.spill);
            let progress = self.transport.read(wire, input)?;
            let mut port = Port {
                client: &mut self.client,
                out,
                closing: &mut self.closing,
                now_ns: clock.now_ns(),
            };
            let used = feed(input, &mut port, &mut on_event).map_err(Closed::Refused)?;
            self.spill.extend_from_slice(&input[used..]);
            if self.spill.len() > MAX_SPILL {
                return Err(Closed::Refused(Refused::Malformed("a frame over all bounds")));
            }
            match progress {
                Progress::More => {}
                Progress::Drained => break,
                Progress::Closed => return Err(Closed::ByServer),
                // The server closed before or after these bytes: no further edge would tell.
                Progress::Some if until_closed => {}
                Progress::Some => break,
            }
        }
        self.transmit(out)
    }

    fn transmit(&mut self, out: &[u8]) -> Result<(), Closed> {
        self.transport.write(out)?;
        if self.closing && self.transport.all_sent() {
            return Err(Closed::Asked);
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

/// From 1 us to 60 s with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are constant")
}

/// Readiness events per turn.
const EVENTS: usize = 1024;
/// Bytes per read.
const READ: usize = 64 * 1024;
/// No protocol here has a frame that long.
const MAX_SPILL: usize = 256 * 1024;
