//! The gateway's side of a protocol, for the tests of its client.

use super::{Client, Endpoint, Event, Login, Refused};
use codec::{
    Accepted, AnyProtocol, Decoded, GroupId, GroupKey, Message, Outgoing, Packet, ProtocolId,
    Settings, Target, TenantId, UserId, UserKey,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(super) const LOGIN: Login = Login { user: 42, group: Some(700), qos: 1, run: 7 };

/// Somewhere without TLS and WebSocket.
pub(super) const ENDPOINT: Endpoint = Endpoint {
    address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1),
    host: String::new(),
    path: String::new(),
    tls: false,
    ws: false,
};

/// One connection, as the gateway sees it.
pub(super) struct Server {
    protocol: AnyProtocol,
    settings: Settings,
    /// Not over ws, which is the test's own affair.
    stream: bool,
}

impl Server {
    pub(super) const ACCEPTED: Accepted<'static> =
        Accepted { user: UserId(LOGIN.user), name: b"u42", session: 1, time_ms: 2, heartbeat_s: 3 };

    pub(super) fn new(id: ProtocolId) -> Self {
        Self { protocol: AnyProtocol::new(id), settings: Settings::default(), stream: true }
    }

    pub(super) fn over_ws(id: ProtocolId) -> Self {
        Self { stream: false, ..Self::new(id) }
    }

    /// `bytes` are one packet; what `is` makes of it.
    pub(super) fn hears<T>(&mut self, bytes: &[u8], is: impl FnOnce(Packet<'_>) -> T) -> T {
        let all = Ok(Decoded::Frame { value: 0..bytes.len(), consumed: bytes.len() });
        let found = match self.stream {
            true => self.protocol.frame(&self.settings, bytes, true),
            false => all,
        };
        let Ok(Decoded::Frame { value, consumed }) = found else { panic!("no packet: {found:?}") };
        assert_eq!(consumed, bytes.len());
        let mut scratch = Vec::new();
        let packet = self.protocol.decode(&self.settings, &bytes[value], &mut scratch);
        is(packet.expect("the gateway understands it"))
    }

    pub(super) fn says(&mut self, outgoing: &Outgoing<'_>) -> Vec<u8> {
        if let Outgoing::Accepted(_) = outgoing {
            self.protocol.accepted();
        }
        let mut out = Vec::new();
        self.protocol.encode(&self.settings, outgoing, self.stream, &mut out);
        out
    }
}

/// What the client makes of one packet.
pub(super) fn hear<C: Client>(client: &mut C, packet: &[u8]) -> Result<Event<'static>, Refused> {
    let mut packet = packet.to_vec();
    let heard = client.next(&mut packet, &mut Vec::new())?;
    Ok(heard.map_or(Event::Nothing, |(_, event)| event.into_owned()))
}

/// A message from user 41 to user 42, or to a group.
pub(super) fn message(
    protocol: ProtocolId,
    group: Option<u32>,
    body: impl Into<Vec<u8>>,
) -> Message {
    let tenant = TenantId(0);
    let to = match group {
        Some(group) => Target::Group(GroupKey { tenant, id: GroupId(group) }),
        None => Target::User(UserKey { tenant, id: UserId(42) }),
    };
    Message {
        stamp: 5,
        id: [].into(),
        from: Some(UserKey { tenant, id: UserId(41) }),
        from_name: b"u41"[..].into(),
        to,
        protocol,
        time_ms: 2,
        body: body.into().into_boxed_slice(),
    }
}
