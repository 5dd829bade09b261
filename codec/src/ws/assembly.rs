//! What a connection keeps between two inputs: the pieces of a split header, frame or message.
//!
//! Owns: the growth of these buffers, and text checked as it comes. A buffer grows with the bytes
//! that came, to at most twice as many and never past the message bound; a length field only
//! lowers that. Never: decisions that need no memory of earlier bytes (those are in [`super::Ws`]).

use super::header::{HEADER_MAX, Header};
use super::mask::apply_mask;
use super::{EMPTY_FRAGMENTS_MAX, Opcode, Role, WsError};

/// At most one of `header` (not empty) and `frame` is in use; `message` spans frames.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    header: PartialHeader,
    /// The frame whose payload has not come whole.
    pub(super) frame: Option<Frame>,
    /// The payload of that frame so far, if it is a control frame.
    control: Vec<u8>,
    pub(super) message: Option<Message>,
}

/// The first bytes of a header that was cut off.
#[derive(Debug, Default)]
struct PartialHeader {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

/// The part of a frame that is still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    opcode: Opcode,
    fin: bool,
    /// In phase with the next byte.
    key: [u8; 4],
    left: usize,
}

/// A message that has not come whole. `valid <= payload.len()`.
#[derive(Debug)]
pub(super) struct Message {
    opcode: Opcode,
    pub(super) payload: Vec<u8>,
    /// Of a text message: this many bytes are UTF-8, and what follows may still become it.
    valid: usize,
    empty_fragments: usize,
}

/// What a frame completed: a message, or a control frame.
pub(super) type Completed = (Opcode, Vec<u8>);

impl Assembly {
    /// Nothing is waiting for more bytes.
    pub(super) fn is_idle(&self) -> bool {
        self.header.len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Bytes on the heap, with its own.
    pub(super) fn heap_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.payload.capacity());
        size_of::<Self>() + self.control.capacity() + message
    }

    /// Reads a header that may have begun in earlier inputs. With it comes how many bytes of
    /// `input` it took; without one it took all of them.
    pub(super) fn header(
        &mut self,
        input: &[u8],
        role: Role,
    ) -> Result<Option<(Header, usize)>, WsError> {
        let PartialHeader { bytes, len } = &mut self.header;
        let earlier = *len;
        let taken = input.len().min(HEADER_MAX - earlier);
        bytes[earlier..earlier + taken].copy_from_slice(&input[..taken]);
        match Header::parse(&bytes[..earlier + taken], role)? {
            Some(header) => {
                *len = 0;
                Ok(Some((header, header.size - earlier)))
            }
            None => {
                *len += taken;
                Ok(None)
            }
        }
    }

    /// Starts the payload of a frame whose length is already bounded and whose place in the
    /// message is right.
    pub(super) fn begin(&mut self, header: &Header, payload_len: usize) -> Result<Frame, WsError> {
        let &Header { opcode, fin, key, .. } = header;
        if !opcode.is_control() {
            let message = self.message.get_or_insert_with(|| Message::new(opcode));
            if payload_len == 0 && !fin {
                message.empty_fragments += 1;
                if message.empty_fragments > EMPTY_FRAGMENTS_MAX {
                    return Err(WsError::EmptyFragments);
                }
            }
        }
        Ok(Frame { opcode, fin, key, left: payload_len })
    }

    /// Takes the next payload bytes of `frame`, the first of `input`. Returns how many, and what
    /// they completed.
    pub(super) fn feed(
        &mut self,
        mut frame: Frame,
        input: &mut [u8],
        message_max: usize,
    ) -> Result<(usize, Option<Completed>), WsError> {
        let taken = frame.left.min(input.len());
        let chunk = &mut input[..taken];
        apply_mask(chunk, frame.key);
        frame.key.rotate_left(taken % 4);
        frame.left -= taken;
        if frame.opcode.is_control() {
            self.control.extend_from_slice(chunk);
        } else if let Some(message) = &mut self.message {
            message.append(chunk, frame.bound(message.payload.len() + taken, message_max))?;
        }
        if frame.left > 0 {
            self.frame = Some(frame);
            return Ok((taken, None));
        }
        if frame.opcode.is_control() {
            return Ok((taken, Some((frame.opcode, std::mem::take(&mut self.control)))));
        }
        let Some(message) = self.message.take_if(|_| frame.fin) else { return Ok((taken, None)) };
        Ok((taken, Some(message.finish()?)))
    }
}

impl Frame {
    /// How long the message can become, with `len` bytes of it there.
    fn bound(&self, len: usize, message_max: usize) -> usize {
        if self.fin { len + self.left } else { message_max }
    }
}

impl Message {
    fn new(opcode: Opcode) -> Self {
        Self { opcode, payload: Vec::new(), valid: 0, empty_fragments: 0 }
    }

    /// `bound` is the length beyond which the message cannot grow.
    fn append(&mut self, chunk: &[u8], bound: usize) -> Result<(), WsError> {
        let len = self.payload.len() + chunk.len();
        if len > self.payload.capacity() {
            let target = (2 * len).min(bound).max(len);
            self.payload.reserve_exact(target - self.payload.len());
        }
        self.payload.extend_from_slice(chunk);
        match self.opcode {
            Opcode::Text => self.validate(),
            _ => Ok(()),
        }
    }

    /// Fails at the first byte that no further byte can make right.
    fn validate(&mut self) -> Result<(), WsError> {
        match simdutf8::compat::from_utf8(&self.payload[self.valid..]) {
            Ok(_) => self.valid = self.payload.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(WsError::NotUtf8),
        }
        Ok(())
    }

    fn finish(self) -> Result<Completed, WsError> {
        if self.opcode == Opcode::Text && self.valid < self.payload.len() {
            return Err(WsError::NotUtf8);
        }
        Ok((self.opcode, self.payload))
    }
}
