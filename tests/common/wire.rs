//! A byte stream of packets, whatever tells where one ends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use codec::{Decoded, WireError};

use super::client::Stream;

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// One packet, without its framing.
    Packet(Vec<u8>),
    /// The end of the stream.
    End,
}

/// Where the next packet of the input is; the second argument: nothing more comes at the moment.
pub(crate) type Found = Result<Decoded<Range<usize>>, WireError>;

pub(crate) struct Wire {
    pub(crate) stream: Stream,
    read: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn dial(to: SocketAddr) -> Self {
        Self::new(Stream::plain(to))
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection is open");
    }

    /// The next packet within `patience`; `None`: nothing whole came.
    #[track_caller]
    pub(crate) fn see(
        &mut self,
        patience: Duration,
        mut find: impl FnMut(&[u8], bool) -> Found,
    ) -> Option<Got> {
        let end = Instant::now() + patience;
        let mut quiet = false;
        loop {
            let mut wait = end.saturating_duration_since(Instant::now());
            if !self.read.is_empty() {
                let found = find(&self.read, quiet);
                match found.expect("the gateway sends only what its protocol has") {
                    Decoded::Frame { value, consumed } => {
                        let packet = self.read[value].to_vec();
                        self.read.drain(..consumed);
                        return Some(Got::Packet(packet));
                    }
                    Decoded::Unsure => wait = wait.min(QUIET),
                    Decoded::NeedMore { .. } => {}
                }
            }
            if wait.is_zero() {
                return None;
            }
            match self.receive(wait) {
                Some(0) => return Some(Got::End),
                Some(_) => quiet = false,
                None if end > Instant::now() => quiet = true,
                None => return None,
            }
        }
    }

    /// Everything that one read gives, as clients take it that know no frames.
    #[track_caller]
    pub(crate) fn chunk(&mut self, patience: Duration) -> Option<Got> {
        assert!(self.read.is_empty(), "packets and reads do not go together");
        match self.receive(patience)? {
            0 => Some(Got::End),
            _ => Some(Got::Packet(std::mem::take(&mut self.read))),
        }
    }

    /// Bytes that came; 0 at the end of the stream, `None` if the time is over.
    fn receive(&mut self, wait: Duration) -> Option<usize> {
        self.stream.socket().set_read_timeout(Some(wait)).expect("a time-out");
        let mut more = [0; 4096];
        match self.stream.read(&mut more) {
            Ok(bytes) => {
                self.read.extend_from_slice(&more[..bytes]);
                Some(bytes)
            }
            Err(error) if is_timeout(&error) => None,
            Err(_) => Some(0),
        }
    }
}

pub(super) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Silence after which what may be a packet is one.
const QUIET: Duration = Duration::from_millis(20);
