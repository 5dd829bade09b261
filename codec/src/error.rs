//! What can be wrong with a peer's bytes.

/// A decoder's answer for bytes that are not wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// Not a whole frame yet; `total` is how many bytes the frame needs at least, counted from the
    /// start of the input.
    NeedMore { total: usize },
    /// One frame; `consumed` bytes of the input belong to it.
    Frame { value: T, consumed: usize },
    /// What is there may be a whole frame, or the beginning of a longer one: only silence tells.
    Unsure,
}

/// Malformed bytes of a peer. Small and `Copy`: no text is built for an attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// What was wrong; also the `reason` label of the metric.
    pub what: Malformed,
    /// Byte offset in the packet, saturating.
    pub offset: u16,
}

/// Why a packet is refused. Each variant is one value of the metric label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// No bytes at all.
    Empty,
    /// The packet type is unknown, or not one that this side may send.
    UnknownCommand,
    /// A field runs over the end.
    Truncated,
    /// Bytes are left after the last field.
    TrailingBytes,
    /// A length field is over the configured bound.
    TooLarge,
    /// CONNECT fits none of the accepted layouts.
    ConnectLayout,
    /// A text message where only binary ones are spoken.
    TextMessage,
    /// Not in the protocol's grammar.
    Syntax,
    /// A field that the packet must have is missing or of the wrong type.
    Field,
    /// A text of more characters than are allowed.
    TooLong,
    /// Only a login may come first.
    LoginFirst,
    /// It began, and did not go on.
    Unfinished,
}

impl Malformed {
    pub const ALL: [Self; 12] = [
        Self::Empty,
        Self::UnknownCommand,
        Self::Truncated,
        Self::TrailingBytes,
        Self::TooLarge,
        Self::ConnectLayout,
        Self::TextMessage,
        Self::Syntax,
        Self::Field,
        Self::TooLong,
        Self::LoginFirst,
        Self::Unfinished,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::UnknownCommand => "unknown_command",
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::TooLarge => "too_large",
            Self::ConnectLayout => "connect_layout",
            Self::TextMessage => "text_message",
            Self::Syntax => "syntax",
            Self::Field => "field",
            Self::TooLong => "too_long",
            Self::LoginFirst => "login_first",
            Self::Unfinished => "unfinished",
        }
    }
}

impl WireError {
    pub fn new(what: Malformed, offset: usize) -> Self {
        Self { what, offset: u16::try_from(offset).unwrap_or(u16::MAX) }
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}", self.what.label(), self.offset)
    }
}

impl std::error::Error for WireError {}
