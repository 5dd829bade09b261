//! What the relays share: the login, the table of users, the bounds, the listening address.
//!
//! ```text
//!   client -> relay   | number n: u32, big-endian | bytes for the partner ...
//!   relay -> client   | k                         | bytes of the partner ...
//! ```
//!
//! Odd n is paired with n + 1. A number that is taken, or is none, closes the newcomer; bytes for a
//! partner who is not there close the speaker; a partner who does not take his bytes is closed at
//! [`QUEUE`]. Never: reads or writes a socket. That is what is measured.
#![forbid(unsafe_code)]

pub mod gateway;
pub mod session;

use std::error::Error;
use std::net::SocketAddr;

use shards::io::sys;

/// Bytes of one receive, at most: the gateway's default.
pub const READ: usize = 4096;
/// Bytes that wait for one slow client, at most: beyond it he is closed.
pub const QUEUE: usize = 256 * 1024;
/// Connections of one listener that the kernel completes ahead of the accepts.
pub const BACKLOG: i32 = 4096;
/// The highest number: the size of the table.
pub const USERS: u32 = 1_000_000;
/// What a client hears when he is logged in.
pub const WELCOME: &[u8] = b"k";

/// The address to listen on, from the command line. Raises the soft limit of open files.
pub fn address() -> Result<SocketAddr, Box<dyn Error>> {
    sys::raise_file_limit()?;
    let argument = std::env::args().nth(1);
    let address = argument.ok_or("say where to listen: ADDRESS:PORT")?;
    address.parse().map_err(|error| format!("{address}: {error}").into())
}

/// A login, in however many pieces it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hello {
    bytes: [u8; 4],
    len: u8,
}

impl Hello {
    /// The number, once it is complete.
    pub fn number(&self) -> Option<u32> {
        (usize::from(self.len) == self.bytes.len()).then(|| u32::from_be_bytes(self.bytes))
    }

    /// Takes the bytes of the login from the front of `input` and returns the rest.
    pub fn take<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        let len = usize::from(self.len);
        let room = self.bytes.len() - len;
        let (mine, rest) = input.split_at(room.min(input.len()));
        self.bytes[len..len + mine.len()].copy_from_slice(mine);
        self.len += mine.len() as u8;
        rest
    }
}

/// Who is logged in, and as which connection.
#[derive(Debug)]
pub struct Users<H> {
    /// By number; grows where it is, in memory that is only reserved.
    handles: Vec<Option<H>>,
}

impl<H: Clone> Users<H> {
    #[expect(clippy::new_without_default, reason = "it reserves megabytes")]
    pub fn new() -> Self {
        Self { handles: Vec::with_capacity(USERS as usize + 1) }
    }

    /// False if the number is taken, or is none.
    #[must_use]
    pub fn log_in(&mut self, number: u32, handle: H) -> bool {
        if !(1..=USERS).contains(&number) {
            return false;
        }
        let index = number as usize;
        if self.handles.len() <= index {
            self.handles.resize(index + 1, None);
        }
        let place = &mut self.handles[index];
        let free = place.is_none();
        if free {
            *place = Some(handle);
        }
        free
    }

    pub fn log_out(&mut self, number: u32) {
        self.handles[number as usize] = None;
    }

    /// The other one of the pair, if he is there. `number` is logged in.
    pub fn partner(&self, number: u32) -> Option<H> {
        let partner = ((number - 1) ^ 1) + 1;
        self.handles.get(partner as usize)?.clone()
    }
}
