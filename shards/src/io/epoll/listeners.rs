//! The listening sockets: which may have somebody waiting, and which back off.
//!
//! Never: decides whether the table has room.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};
use rustix::net::{SocketFlags, acceptfrom_with};

use crate::io::Now;

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// Reported ready, and no accept has found nobody since.
    ready: bool,
    /// No accept before this.
    retry_at: Option<Now>,
}

#[derive(Debug)]
pub(crate) struct Listeners {
    listeners: Vec<Listener>,
    on: bool,
}

impl Listeners {
    pub(crate) fn new(sockets: Vec<OwnedFd>) -> Self {
        let listener = |socket| Listener { socket, ready: false, retry_at: None };
        Self { listeners: sockets.into_iter().map(listener).collect(), on: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }

    pub(crate) fn set_on(&mut self, on: bool) {
        self.on = on;
    }

    pub(crate) fn reported(&mut self, index: usize) {
        self.listeners[index].ready = true;
    }

    /// Ends the back-offs whose time has come.
    pub(crate) fn advance(&mut self, now: Now) {
        for listener in &mut self.listeners {
            listener.retry_at = listener.retry_at.filter(|&at| at > now);
        }
    }

    pub(crate) fn may_accept(&self, index: usize) -> bool {
        let listener = &self.listeners[index];
        self.on && listener.ready && listener.retry_at.is_none()
    }

    /// Takes who waits first. EAGAIN: nobody does.
    pub(crate) fn accept(&mut self, index: usize) -> Result<(OwnedFd, SocketAddr)> {
        let listener = &mut self.listeners[index];
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match acceptfrom_with(&listener.socket, flags) {
            Ok((socket, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Ok((socket, peer.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())))
            }
            Err(error) => {
                listener.ready &= error != Errno::AGAIN;
                Err(error)
            }
        }
    }

    pub(crate) fn back_off(&mut self, index: usize, retry_at: Now) {
        self.listeners[index].retry_at = Some(retry_at);
    }

    /// The nearest end of a back-off.
    pub(crate) fn deadline(&self) -> Option<Now> {
        self.listeners.iter().filter_map(|listener| listener.retry_at).min()
    }
}
