//! The epoll set: what is registered, and what it reports.
//!
//! Everything is edge-triggered and registered once; only a connection whose send once found no
//! room is changed, once. Never: remembers readiness, reads or writes.

use std::fmt;
use std::io::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Bytes, an end or an error to read.
pub(crate) const READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);
/// Room to write as well.
pub(crate) const READ_WRITE: EventFlags = READ.union(EventFlags::OUT);
/// The peer will send nothing more, or the socket has failed.
pub(crate) const ENDED: EventFlags =
    EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Reports `interest` of `fd` from now on, also what is ready already. Closing the descriptor
    /// ends it.
    pub(crate) fn add(&self, fd: impl AsFd, tag: u64, interest: EventFlags) -> Result<()> {
        let data = EventData::new_u64(tag);
        Ok(epoll::add(&self.epoll, fd, data, interest | EventFlags::ET)?)
    }

    /// Changes the interest; what is ready already is reported.
    pub(crate) fn modify(&self, fd: impl AsFd, tag: u64, interest: EventFlags) -> Result<()> {
        let data = EventData::new_u64(tag);
        Ok(epoll::modify(&self.epoll, fd, data, interest | EventFlags::ET)?)
    }

    /// Forgets a descriptor that stays open. One that could not be registered is forgotten already.
    pub(crate) fn delete(&self, fd: impl AsFd) {
        match epoll::delete(&self.epoll, fd) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => panic!("epoll_ctl: {}", Error::from(error)),
        }
    }

    /// Waits for events, up to `timeout` rounded up to a millisecond; `None`: does not sleep.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = timeout.unwrap_or_default();
        let timeout = Timespec::try_from(timeout).expect("waits are shorter than an age");
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait: {}", Error::from(error)),
        }
    }

    /// Events of the last wait.
    pub(crate) fn events(&self) -> usize {
        self.events.len()
    }

    /// The tag of an event, and what is ready.
    pub(crate) fn event(&self, at: usize) -> (u64, EventFlags) {
        (self.events[at].data.u64(), self.events[at].flags)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Poller({:?}, {} events)", self.epoll, self.events.len())
    }
}

/// Events of one wait; more are reported by the next.
const EVENTS: usize = 1024;
