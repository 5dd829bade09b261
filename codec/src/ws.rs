//! WebSocket framing (RFC 6455), sans-io: bytes in, events out; messages in, bytes out.
//!
//! ```text
//!   socket bytes --> Ws::decode --> Event { Message | Ping | Pong | Close }
//!                    |  whole in the input: unmasked there and borrowed from it
//!                    `- split over inputs:  gathered in an Assembly that exists only meanwhile
//!   payload -------> encode ------> one frame, appended
//! ```
//!
//! Owns: framing rules, masking, reassembly, UTF-8 of text, close codes, the opening handshake
//! ([`handshake`]). Never: answering. The caller sends the Pong to a Ping and the Close to a
//! Close, and ends the connection on a [`WsError`]. No extension is ever agreed.

mod assembly;
mod encode;
mod error;
pub mod handshake;
mod header;
mod mask;
#[cfg(test)]
mod tests;

use std::ops::{Deref, DerefMut};

use assembly::{Assembly, Frame};
pub use encode::{encode, encode_close, encode_control, encode_header};
pub use error::WsError;
use header::Header;
pub use mask::apply_mask;

/// The longest payload of a control frame (section 5.5).
pub const CONTROL_MAX: usize = 125;
/// Fragments without a byte that one message may have. The message bound limits those with one;
/// these would otherwise go on for ever. Some clients end a message with an empty fragment, none
/// needs many.
pub const EMPTY_FRAGMENTS_MAX: usize = 64;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer's frames must be masked.
    Server,
    /// The peer's frames must not be masked.
    Client,
}

/// The frame types of section 11.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    #[inline]
    fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    fn number(self) -> u8 {
        self as u8
    }

    /// Close, Ping or Pong.
    #[inline]
    pub fn is_control(self) -> bool {
        self.number() >= Self::Close.number()
    }
}

/// The bytes of an event, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The frame was whole in the input: its bytes there.
    Borrowed(&'a mut [u8]),
    /// It was put together from several inputs or frames.
    Owned(Vec<u8>),
}

impl Deref for Payload<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl DerefMut for Payload<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// What the peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message. `opcode` is `Text` (then the payload is UTF-8) or `Binary`.
    Message {
        opcode: Opcode,
        payload: Payload<'a>,
    },
    /// To be answered with a Pong of the same payload, at most [`CONTROL_MAX`] bytes.
    Ping(Payload<'a>),
    Pong(Payload<'a>),
    /// The peer sends nothing more. The code is one that may be sent, the reason is UTF-8.
    Close {
        code: Option<u16>,
        reason: Payload<'a>,
    },
}

/// One step of [`Ws::decode`].
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Bytes of the input that are done with, at least one if there was one. Short of the whole
    /// input only with an event or at the end of a fragment: call again with the rest.
    pub consumed: usize,
    pub event: Option<Event<'a>>,
}

/// The receiving half of one connection, after the handshake. 16 bytes, and nothing on the heap
/// between messages.
#[derive(Debug)]
pub struct Ws {
    role: Role,
    /// A Close has come, or an error: the rest of the stream means nothing.
    ended: bool,
    assembly: Option<Box<Assembly>>,
}

const _: () = assert!(size_of::<Ws>() <= 16);

impl Ws {
    pub fn new(role: Role) -> Self {
        Self { role, ended: false, assembly: None }
    }

    /// Decodes up to one event from the front of `input`, unmasking there what it consumes.
    ///
    /// `message_max` bounds a message in bytes over all its fragments; it may be raised between
    /// calls (after a login) and is applied as soon as a header claims more. After a Close or an
    /// error everything is consumed and ignored (section 5.5.1).
    ///
    /// ```
    /// # use codec::ws::{Event, Role, Ws, WsError};
    /// # fn received(ws: &mut Ws, input: &mut [u8]) -> Result<(), WsError> {
    /// let mut at = 0;
    /// while at < input.len() {
    ///     let step = ws.decode(&mut input[at..], 65_536)?;
    ///     at += step.consumed;
    ///     match step.event {
    ///         Some(Event::Message { payload, .. }) => println!("{} bytes", payload.len()),
    ///         Some(Event::Ping(_) | Event::Pong(_) | Event::Close { .. }) | None => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// # let mut ws = Ws::new(Role::Client);
    /// # received(&mut ws, &mut [0x82, 1, 7]).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`WsError`]: the connection must end with its close code.
    #[inline]
    pub fn decode<'a>(
        &mut self,
        input: &'a mut [u8],
        message_max: usize,
    ) -> Result<Step<'a>, WsError> {
        if self.ended {
            return Ok(Step { consumed: input.len(), event: None });
        }
        self.step(input, message_max).inspect_err(|_| self.end())
    }

    /// A Close has come, or an error: nothing more is decoded.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Bytes on the heap: 0 unless a header, a frame or a message is split, and then at most
    /// twice what came of it, a small constant, and never more of a message than its bound.
    pub fn heap_bytes(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.heap_bytes())
    }

    #[inline]
    fn step<'a>(&mut self, input: &'a mut [u8], max: usize) -> Result<Step<'a>, WsError> {
        if let Some(frame) = self.assembly.as_mut().and_then(|assembly| assembly.frame.take()) {
            return self.resume(frame, input, 0, max);
        }
        let Some((header, start)) = self.header(input)? else {
            return Ok(Step { consumed: input.len(), event: None });
        };
        let len = self.payload_len(&header, max)?;
        let is_fragment = !header.fin || header.opcode == Opcode::Continuation;
        if is_fragment || input.len() - start < len {
            let frame = self.assembly.get_or_insert_default().begin(&header, len)?;
            return self.resume(frame, input, start, max);
        }
        self.release();
        let payload = &mut input[start..start + len];
        apply_mask(payload, header.key);
        if header.opcode == Opcode::Text && simdutf8::basic::from_utf8(payload).is_err() {
            return Err(WsError::NotUtf8);
        }
        self.complete(header.opcode, Payload::Borrowed(payload), start + len)
    }

    /// The next header and where its payload starts in `input`.
    #[inline]
    fn header(&mut self, input: &[u8]) -> Result<Option<(Header, usize)>, WsError> {
        if self.assembly.is_none() {
            if let Some(header) = Header::parse(input, self.role)? {
                return Ok(Some((header, header.size)));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        self.assembly.get_or_insert_default().header(input, self.role)
    }

    /// The length of a frame that may come now, checked before a byte of it is kept.
    #[inline]
    fn payload_len(&self, header: &Header, max: usize) -> Result<usize, WsError> {
        let unfinished = self.assembly.as_ref().and_then(|assembly| assembly.message.as_ref());
        let room = match (header.opcode, unfinished) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => CONTROL_MAX,
            (Opcode::Continuation, None) => return Err(WsError::NothingToContinue),
            (Opcode::Continuation, Some(message)) => max.saturating_sub(message.payload.len()),
            (Opcode::Text | Opcode::Binary, None) => max,
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(WsError::MessageUnfinished),
        };
        match usize::try_from(header.payload_len) {
            Ok(len) if len <= room => Ok(len),
            _ => Err(WsError::TooLarge),
        }
    }

    /// Goes on with a frame whose next payload byte is at `start`.
    #[cold]
    fn resume<'a>(
        &mut self,
        frame: Frame,
        input: &'a mut [u8],
        start: usize,
        max: usize,
    ) -> Result<Step<'a>, WsError> {
        let assembly = self.assembly.get_or_insert_default();
        let (taken, completed) = assembly.feed(frame, &mut input[start..], max)?;
        self.release();
        let consumed = start + taken;
        match completed {
            Some((opcode, payload)) => self.complete(opcode, Payload::Owned(payload), consumed),
            None => Ok(Step { consumed, event: None }),
        }
    }

    /// Gives the heap back as soon as nothing is split.
    #[inline]
    fn release(&mut self) {
        self.assembly.take_if(|assembly| assembly.is_idle());
    }

    #[inline]
    fn complete<'a>(
        &mut self,
        opcode: Opcode,
        payload: Payload<'a>,
        consumed: usize,
    ) -> Result<Step<'a>, WsError> {
        let event = match opcode {
            Opcode::Close => return self.close(payload, consumed),
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                Event::Message { opcode, payload }
            }
        };
        Ok(Step { consumed, event: Some(event) })
    }

    #[cold]
    fn close<'a>(&mut self, payload: Payload<'a>, consumed: usize) -> Result<Step<'a>, WsError> {
        self.end();
        Ok(Step { consumed, event: Some(close_event(payload)?) })
    }

    fn end(&mut self) {
        self.ended = true;
        self.assembly = None;
    }
}

/// A Close body: nothing, or a code and a reason (section 5.5.1).
fn close_event(payload: Payload<'_>) -> Result<Event<'_>, WsError> {
    let code = match *payload {
        [] => return Ok(Event::Close { code: None, reason: payload }),
        [_] => return Err(WsError::CloseBody),
        [high, low, ..] => u16::from_be_bytes([high, low]),
    };
    if !may_be_sent(code) {
        return Err(WsError::CloseCode);
    }
    let reason = match payload {
        Payload::Borrowed(bytes) => Payload::Borrowed(&mut bytes[2..]),
        Payload::Owned(mut bytes) => Payload::Owned(bytes.split_off(2)),
    };
    if simdutf8::basic::from_utf8(&reason).is_err() {
        return Err(WsError::NotUtf8);
    }
    Ok(Event::Close { code: Some(code), reason })
}

/// Codes that may stand in a Close frame: the registered ones (1004-1006 and 1015 are reserved)
/// and the ranges of libraries and applications (section 7.4.2).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
