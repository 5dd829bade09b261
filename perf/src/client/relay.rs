//! The bare relay of `benches/runtimes`: the server forwards bytes, the frames are the clients'
//! own.
//!
//! ```text
//!   login:  | number: u32 |                                  answered by one byte, `k`
//!   frame:  | length of the rest: u16 | kind: u8 | slot: u16 | sequence: u64 | payload ... |
//! ```
//!
//! Big-endian. Odd number n is paired with n + 1: whatever one says, the other hears. A message
//! (kind 0) is answered by an acknowledgement (kind 1, no payload) through the same relay.

use super::{Arrival, Client, Endpoint, Event, Login, Parsed, Refused, Target};
use std::borrow::Cow;

/// One end of a pair.
#[derive(Debug)]
pub(crate) struct Relay {
    user: u32,
    welcome: bool,
}

impl Client for Relay {
    fn new(login: Login) -> Self {
        Self { user: login.user, welcome: false }
    }

    fn hello(&mut self, _endpoint: &Endpoint, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.user.to_be_bytes());
    }

    fn next<'a>(&mut self, input: &'a mut [u8], out: &mut Vec<u8>) -> Parsed<'a> {
        if !self.welcome {
            return match input.first() {
                None => Ok(None),
                Some(&WELCOME) => {
                    self.welcome = true;
                    Ok(Some((1, Event::Ready)))
                }
                Some(_) => Err(Refused::Malformed("no welcome")),
            };
        }
        let Some(length) = input.first_chunk() else {
            return Ok(None);
        };
        let end = LENGTH + usize::from(u16::from_be_bytes(*length));
        if end < LENGTH + HEAD {
            return Err(Refused::Malformed("a frame shorter than its head"));
        }
        let Some(body) = input.get(LENGTH..end) else {
            return Ok(None);
        };
        let (head, payload) = body.split_at(HEAD);
        let slot = u16::from_be_bytes([head[1], head[2]]);
        let seq = u64::from_be_bytes(*head.last_chunk().expect("a head ends with its sequence"));
        let event = match (head[0], payload.is_empty()) {
            (MESSAGE, _) => {
                push_head(ACK, slot, seq, 0, out);
                let (from, seq) = (Some(partner(self.user)), Some(seq));
                let payload = Cow::Borrowed(payload);
                Event::Delivered(Arrival { payload, from, seq, label: None })
            }
            (ACK, true) => Event::Acked { slot, seq: Some(seq) },
            (ACK, false) => return Err(Refused::Malformed("an acknowledgement with a payload")),
            _ => return Err(Refused::Malformed("unexpected kind of frame")),
        };
        Ok(Some((end, event)))
    }

    /// There is one way to go: `to` is in the payload, where its arrival is checked.
    fn publish(&mut self, _to: Target, slot: u16, seq: u64, payload: &[u8], out: &mut Vec<u8>) {
        push_head(MESSAGE, slot, seq, payload.len(), out);
        out.extend_from_slice(payload);
    }

    fn goodbye(&mut self, _out: &mut Vec<u8>) {}
}

fn push_head(kind: u8, slot: u16, seq: u64, payload: usize, out: &mut Vec<u8>) {
    let rest = u16::try_from(HEAD + payload).expect("the command line bounds payloads");
    out.extend_from_slice(&rest.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(&slot.to_be_bytes());
    out.extend_from_slice(&seq.to_be_bytes());
}

/// 1 and 2, 3 and 4, ...
fn partner(user: u32) -> u32 {
    (user.wrapping_sub(1) ^ 1).wrapping_add(1)
}

const WELCOME: u8 = b'k';
const MESSAGE: u8 = 0;
const ACK: u8 = 1;
const LENGTH: usize = 2;
/// Kind, slot, sequence.
const HEAD: usize = 1 + 2 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(user: u32) -> Relay {
        let mut client = Relay::new(Login { user, group: None, qos: 1, run: 0 });
        let mut welcome = [WELCOME];
        assert_eq!(client.next(&mut welcome, &mut Vec::new()), Ok(Some((1, Event::Ready))));
        client
    }

    #[test]
    fn a_message_and_its_acknowledgement_go_from_one_to_the_other() {
        // 3 sends to 4, split at every point; the acknowledgement goes the same way back.
        let (mut wire, payload) = (Vec::new(), [9; 300]);
        client(3).publish(Target::User(4), 5, 6, &payload, &mut wire);
        for split in 0..wire.len() {
            let mut part = wire[..split].to_vec();
            assert_eq!(client(4).next(&mut part, &mut Vec::new()), Ok(None));
        }
        let (total, mut ack) = (wire.len(), Vec::new());
        let payload = Cow::Borrowed(&payload[..]);
        let (from, seq) = (Some(3), Some(6));
        let event = Event::Delivered(Arrival { payload, from, seq, label: None });
        assert_eq!(client(4).next(&mut wire, &mut ack), Ok(Some((total, event))));
        let event = Event::Acked { slot: 5, seq: Some(6) };
        assert_eq!(client(3).next(&mut ack, &mut Vec::new()), Ok(Some((LENGTH + HEAD, event))));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut fresh = Relay::new(Login { user: 1, group: None, qos: 1, run: 0 });
        assert!(fresh.next(&mut [b'x'], &mut Vec::new()).is_err());
        let head = |rest: u16, kind: u8| {
            let mut frame = vec![0; LENGTH + HEAD + 1];
            frame[..LENGTH].copy_from_slice(&rest.to_be_bytes());
            frame[LENGTH] = kind;
            frame
        };
        let short = head(HEAD as u16 - 1, MESSAGE);
        let talkative = head(HEAD as u16 + 1, ACK);
        let unknown = head(HEAD as u16, 2);
        for mut bad in [short, talkative, unknown] {
            assert!(client(1).next(&mut bad, &mut Vec::new()).is_err(), "{bad:x?}");
        }
    }
}
