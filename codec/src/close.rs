//! Why the gateway ends a connection: the one vocabulary all layers use.
//!
//! Each protocol says with [`crate::AnyProtocol::encode`] which packet, if any, goes before the
//! close; the ws framing maps the reason to a close code.

/// Why a connection ends. Each variant is one value of the metric label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The peer closed the stream or sent a ws Close.
    PeerClosed,
    /// The peer said goodbye in its own protocol (DISCONNECT).
    PeerDisconnected,
    /// The socket failed.
    SocketError,
    /// ws framing was violated (RFC 6455 section 7.4.1, 1002).
    WsProtocol,
    /// ws text was not UTF-8 (1007).
    WsText,
    /// A ws message was over the bound (1009).
    WsTooLarge,
    /// The upgrade request was refused with an HTTP error.
    UpgradeRefused,
    /// A packet was malformed before login, or too many were after it.
    Malformed,
    /// A message of the wrong type (text where binary is spoken) (1003).
    TextMessage,
    /// TLS failed.
    Tls,
    /// No complete login within the deadline.
    LoginDeadline,
    /// Wrong name or password, unknown vhost: the protocol's refusal was sent.
    LoginRefused,
    /// A second CONNECT on one connection.
    DuplicateConnect,
    /// The authenticator is down or full: no verdict, so that the client tries again (1013).
    AuthUnavailable,
    /// The same terminal logged in elsewhere.
    Replaced,
    /// Too many heartbeats unanswered.
    HeartbeatLost,
    /// A push was not acknowledged after the last retry.
    AckTimeout,
    /// Nothing drained for the slow-consumer time.
    SlowConsumer,
    /// The publish door could not make a request safe in time.
    DoorTimeout,
    /// Not on the publish door's allow-list.
    NotAllowed,
    /// Hand-over to the home shard failed (1013).
    HandOver,
    /// The gateway is over its limits (1013).
    Overload,
    /// The gateway stops (1001).
    Shutdown,
}

impl CloseReason {
    pub const ALL: [Self; 23] = [
        Self::PeerClosed,
        Self::PeerDisconnected,
        Self::SocketError,
        Self::WsProtocol,
        Self::WsText,
        Self::WsTooLarge,
        Self::UpgradeRefused,
        Self::Malformed,
        Self::TextMessage,
        Self::Tls,
        Self::LoginDeadline,
        Self::LoginRefused,
        Self::DuplicateConnect,
        Self::AuthUnavailable,
        Self::Replaced,
        Self::HeartbeatLost,
        Self::AckTimeout,
        Self::SlowConsumer,
        Self::DoorTimeout,
        Self::NotAllowed,
        Self::HandOver,
        Self::Overload,
        Self::Shutdown,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::PeerDisconnected => "peer_disconnected",
            Self::SocketError => "socket_error",
            Self::WsProtocol => "ws_protocol",
            Self::WsText => "ws_text",
            Self::WsTooLarge => "ws_too_large",
            Self::UpgradeRefused => "upgrade_refused",
            Self::Malformed => "malformed",
            Self::TextMessage => "text_message",
            Self::Tls => "tls",
            Self::LoginDeadline => "login_deadline",
            Self::LoginRefused => "login_refused",
            Self::DuplicateConnect => "duplicate_connect",
            Self::AuthUnavailable => "auth_unavailable",
            Self::Replaced => "replaced",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::AckTimeout => "ack_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::DoorTimeout => "door_timeout",
            Self::NotAllowed => "not_allowed",
            Self::HandOver => "hand_over",
            Self::Overload => "overload",
            Self::Shutdown => "shutdown",
        }
    }

    /// The ws close code of this reason (RFC 6455 section 7.4.1); `None`: no Close frame is sent.
    pub fn ws_code(self) -> Option<u16> {
        match self {
            Self::PeerClosed | Self::SocketError | Self::UpgradeRefused | Self::Tls => None,
            Self::PeerDisconnected | Self::LoginRefused | Self::Replaced => Some(1000),
            Self::Shutdown => Some(1001),
            Self::WsProtocol | Self::Malformed | Self::DuplicateConnect => Some(1002),
            Self::TextMessage => Some(1003),
            Self::WsText => Some(1007),
            Self::LoginDeadline | Self::HeartbeatLost | Self::AckTimeout | Self::NotAllowed => {
                Some(1008)
            }
            Self::WsTooLarge => Some(1009),
            Self::AuthUnavailable
            | Self::HandOver
            | Self::Overload
            | Self::SlowConsumer
            | Self::DoorTimeout => Some(1013),
        }
    }
}
