//! The signals of the service manager.
//!
//! Owns: which signals mean what. Never: what is then done (that is [`crate::serve`]'s).

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What the process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Listens from its creation on; orders given between two [`Signals::next`] are not lost.
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// # Errors
    /// The handlers cannot be installed.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next order. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hangup.recv() => Order::Reload,
        }
    }

    /// Waits for the next order to stop.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Order::Stop {}
    }
}
