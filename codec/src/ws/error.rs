//! What can be wrong with a peer's frames, and which close code each fault has.

use crate::close::CloseReason;

/// A violation of RFC 6455 by the peer. It ends the connection with the code of
/// [`WsError::close_reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WsError {
    /// RSV1, RSV2 or RSV3 is set and no extension was agreed (section 5.2).
    ReservedBits,
    /// Opcode 3-7 or 11-15 (section 5.2).
    ReservedOpcode,
    /// A client's frame is not masked (section 5.1).
    Unmasked,
    /// A server's frame is masked (section 5.1).
    Masked,
    /// The length has a shorter form (section 5.2).
    LengthNotMinimal,
    /// The most significant bit of a 64-bit length is set (section 5.2).
    LengthTopBit,
    /// A control frame without FIN (section 5.5).
    ControlFragmented,
    /// A control frame of more than 125 bytes (section 5.5).
    ControlTooLong,
    /// A continuation frame and no message to continue (section 5.4).
    NothingToContinue,
    /// A new message inside an unfinished one (section 5.4).
    MessageUnfinished,
    /// More than [`super::EMPTY_FRAGMENTS_MAX`] fragments without a byte in one message.
    EmptyFragments,
    /// A Close body of one byte (section 5.5.1).
    CloseBody,
    /// A close code that must not be sent (section 7.4).
    CloseCode,
    /// A text message or a close reason is not UTF-8 (section 8.1).
    NotUtf8,
    /// A message over the bound (section 10.4).
    TooLarge,
}

impl WsError {
    pub const ALL: [Self; 15] = [
        Self::ReservedBits,
        Self::ReservedOpcode,
        Self::Unmasked,
        Self::Masked,
        Self::LengthNotMinimal,
        Self::LengthTopBit,
        Self::ControlFragmented,
        Self::ControlTooLong,
        Self::NothingToContinue,
        Self::MessageUnfinished,
        Self::EmptyFragments,
        Self::CloseBody,
        Self::CloseCode,
        Self::NotUtf8,
        Self::TooLarge,
    ];

    /// Why the connection ends; its [`CloseReason::ws_code`] is 1002, 1007 or 1009.
    pub fn close_reason(self) -> CloseReason {
        match self {
            Self::NotUtf8 => CloseReason::WsText,
            Self::TooLarge => CloseReason::WsTooLarge,
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::Masked
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::NothingToContinue
            | Self::MessageUnfinished
            | Self::EmptyFragments
            | Self::CloseBody
            | Self::CloseCode => CloseReason::WsProtocol,
        }
    }

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved_bits",
            Self::ReservedOpcode => "reserved_opcode",
            Self::Unmasked => "unmasked",
            Self::Masked => "masked",
            Self::LengthNotMinimal => "length_not_minimal",
            Self::LengthTopBit => "length_top_bit",
            Self::ControlFragmented => "control_fragmented",
            Self::ControlTooLong => "control_too_long",
            Self::NothingToContinue => "nothing_to_continue",
            Self::MessageUnfinished => "message_unfinished",
            Self::EmptyFragments => "empty_fragments",
            Self::CloseBody => "close_body",
            Self::CloseCode => "close_code",
            Self::NotUtf8 => "not_utf8",
            Self::TooLarge => "too_large",
        }
    }
}

impl From<WsError> for CloseReason {
    fn from(error: WsError) -> Self {
        error.close_reason()
    }
}

impl std::fmt::Display for WsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

impl std::error::Error for WsError {}
