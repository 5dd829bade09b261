//! MQTT 3.1.1, as much of it as a load client needs: QoS 0 and 1, clean sessions, no keep-alive.
//!
//! ```text
//!   | type, flags: 1 byte | remaining length: 1-4 bytes of 7 bits, low first | body |
//! ```
//!
//! User `n` receives on topic `u/n`, group `g` on `g/<g>`. A packet id is the in-flight slot + 1.

use super::{Arrival, Client, Endpoint, Event, Login, Parsed, Refused, Target};
use std::borrow::Cow;
use std::io::Write;

/// One MQTT session.
#[derive(Debug)]
pub(crate) struct Mqtt {
    login: Login,
}

impl Client for Mqtt {
    fn new(login: Login) -> Self {
        Self { login }
    }

    /// CONNECT (MQTT-3.1); SUBSCRIBE waits for the answer, as brokers count a login then.
    fn hello(&mut self, _endpoint: &Endpoint, out: &mut Vec<u8>) {
        let mut id = Name::default();
        write!(id, "u{}", self.login.user).expect("a name fits");
        let id = id.as_bytes();
        out.extend_from_slice(&[CONNECT, 12 + id.len() as u8]);
        out.extend_from_slice(b"\0\x04MQTT\x04");
        out.extend_from_slice(&[CLEAN_SESSION, 0, 0]);
        push_string(id, out);
    }

    fn next<'a>(&mut self, input: &'a mut [u8], out: &mut Vec<u8>) -> Parsed<'a> {
        let Some((head, end)) = frame(input)? else {
            return Ok(None);
        };
        let first = input[0];
        let event = self.handle(first, &input[head..end], out)?;
        Ok(Some((end, event)))
    }

    fn publish(&mut self, to: Target, slot: u16, _seq: u64, payload: &[u8], out: &mut Vec<u8>) {
        let mut topic = Name::default();
        match to {
            Target::User(user) => write!(topic, "u/{user}"),
            Target::Group(group) => write!(topic, "g/{group}"),
        }
        .expect("a topic fits");
        let topic = topic.as_bytes();
        let qos = self.login.qos;
        out.push(PUBLISH | qos << 1);
        push_length(2 + topic.len() + 2 * usize::from(qos) + payload.len(), out);
        push_string(topic, out);
        if qos > 0 {
            out.extend_from_slice(&(slot + 1).to_be_bytes());
        }
        out.extend_from_slice(payload);
    }

    fn goodbye(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[DISCONNECT, 0]);
    }
}

impl Mqtt {
    fn handle<'a>(
        &mut self,
        first: u8,
        body: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Event<'a>, Refused> {
        match (first & 0xf0, body) {
            (PUBLISH, _) => Self::pushed(first >> 1 & 3, body, out),
            (PUBACK, &[high, low]) => {
                let slot = u16::from_be_bytes([high, low]).checked_sub(1);
                let slot = slot.ok_or(Refused::Malformed("packet id 0"))?;
                Ok(Event::Acked { slot, seq: None })
            }
            (CONNACK, &[_, 0]) => {
                self.subscribe(out);
                Ok(Event::Nothing)
            }
            (CONNACK, &[_, code]) => Err(Refused::Login(u16::from(code))),
            (SUBACK, [_, _, codes @ ..]) if codes.iter().all(|&c| c == self.login.qos) => {
                Ok(Event::Ready)
            }
            (SUBACK, _) => Err(Refused::Malformed("subscription refused")),
            (PINGRESP, _) => Ok(Event::Nothing),
            _ => Err(Refused::Malformed("unexpected packet type")),
        }
    }

    /// SUBSCRIBE (MQTT-3.8) to the user's own topic and to his group's.
    fn subscribe(&self, out: &mut Vec<u8>) {
        let mut topics = [Name::default(), Name::default()];
        write!(topics[0], "u/{}", self.login.user).expect("a topic fits");
        if let Some(group) = self.login.group {
            write!(topics[1], "g/{group}").expect("a topic fits");
        }
        let wanted = topics.iter().map(Name::as_bytes).filter(|topic| !topic.is_empty());
        let length: usize = wanted.clone().map(|topic| topic.len() + 3).sum();
        out.push(SUBSCRIBE);
        push_length(2 + length, out);
        out.extend_from_slice(&[0, 1]);
        for topic in wanted {
            push_string(topic, out);
            out.push(self.login.qos);
        }
    }

    /// PUBLISH (MQTT-3.3) from the broker; QoS 1 is acknowledged at once.
    fn pushed<'a>(qos: u8, body: &'a [u8], out: &mut Vec<u8>) -> Result<Event<'a>, Refused> {
        const SHORT: Refused = Refused::Malformed("short PUBLISH");
        let (length, rest) = body.split_first_chunk().ok_or(SHORT)?;
        let topic = usize::from(u16::from_be_bytes(*length));
        let (topic, rest) = rest.split_at_checked(topic).ok_or(SHORT)?;
        let group = topic.strip_prefix(b"g/").map(|number| {
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            number.ok_or(Refused::Malformed("a topic that nobody subscribed to"))
        });
        let label = Some(group.transpose()?);
        let payload = if qos == 0 {
            rest
        } else {
            let (id, payload) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
            out.extend_from_slice(&[PUBACK, 2, id[0], id[1]]);
            payload
        };
        Ok(Event::Delivered(Arrival {
            payload: Cow::Borrowed(payload),
            from: None,
            seq: None,
            label,
        }))
    }
}

/// Where the body of the first packet starts and ends, once all of it is there.
pub(crate) fn frame(input: &[u8]) -> Result<Option<(usize, usize)>, Refused> {
    let mut length = 0;
    for at in 1..=4 {
        let Some(&byte) = input.get(at) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let end = at + 1 + length;
            return Ok((input.len() >= end).then_some((at + 1, end)));
        }
    }
    Err(Refused::Malformed("remaining length over four bytes"))
}

fn push_length(mut length: usize, out: &mut Vec<u8>) {
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn push_string(string: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(string.len() as u16).to_be_bytes());
    out.extend_from_slice(string);
}

/// A short text on the stack: a letter, a stroke and a decimal.
#[derive(Clone, Copy, Default)]
struct Name {
    bytes: [u8; 16],
    len: usize,
}

impl Name {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Name {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let mut room = &mut self.bytes[self.len..];
        let written = room.write(text)?;
        self.len += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
/// With the flags that MQTT-3.8.1-1 demands.
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;
const CLEAN_SESSION: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(qos: u8) -> Mqtt {
        Mqtt::new(Login { user: 42, group: Some(7), qos, run: 0 })
    }

    #[test]
    fn a_login_is_connect_then_subscribe() {
        let (mut client, mut out) = (client(1), Vec::new());
        let endpoint = Endpoint {
            address: ([127, 0, 0, 1], 1883).into(),
            host: String::new(),
            path: String::new(),
            tls: false,
            ws: false,
        };
        client.hello(&endpoint, &mut out);
        assert_eq!(out, b"\x10\x0f\0\x04MQTT\x04\x02\0\0\0\x03u42");
        out.clear();
        assert_eq!(client.next(&mut [0x20, 2, 0, 0], &mut out), Ok(Some((4, Event::Nothing))));
        assert_eq!(out, b"\x82\x0f\0\x01\0\x04u/42\x01\0\x03g/7\x01");
        let mut granted = [0x90, 4, 0, 1, 1, 1];
        assert_eq!(client.next(&mut granted, &mut out), Ok(Some((6, Event::Ready))));
        assert_eq!(client.next(&mut [0x20, 2, 0, 5], &mut out), Err(Refused::Login(5)));
    }

    #[test]
    fn a_push_of_any_length_waits_for_its_last_byte_and_is_acknowledged() {
        // Publish to ourselves over every quality and two lengths, at every split point.
        for (qos, length) in [(0, 10), (1, 10), (0, 300), (1, 300)] {
            let (mut client, mut wire) = (client(qos), Vec::new());
            let payload = vec![9; length];
            client.publish(Target::User(42), 4, 0, &payload, &mut wire);
            for split in 0..wire.len() {
                let mut part = wire[..split].to_vec();
                assert_eq!(client.next(&mut part, &mut Vec::new()), Ok(None));
            }
            let (total, mut out) = (wire.len(), Vec::new());
            let payload = Cow::Borrowed(&payload[..]);
            let label = Some(None);
            let event = Event::Delivered(Arrival { payload, from: None, seq: None, label });
            assert_eq!(client.next(&mut wire, &mut out), Ok(Some((total, event))));
            let ack: &[u8] = if qos == 1 { &[0x40, 2, 0, 5] } else { &[] };
            assert_eq!(out, ack);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut client = client(1);
        for bad in [&[0x40, 2, 0, 0][..], &[0x30, 1, 9], &[0x30, 255, 255, 255, 255], &[0xf0, 0]] {
            let mut bad = bad.to_vec();
            assert!(client.next(&mut bad, &mut Vec::new()).is_err(), "{bad:x?}");
        }
    }
}
