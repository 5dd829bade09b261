//! The seam between a protocol and everything else, and the table of protocols.
//!
//! A protocol is one file (or folder) beside this one and one line in `protocols!` below. Nothing
//! else in the gateway names it.

use crate::error::{Decoded, WireError};
use crate::manners::Manners;
use crate::message::Content;
use crate::packet::{Connect, Outgoing, Packet, Refusal};

/// A client protocol: the per-connection codec state and its rules.
///
/// Over ws, one message is one packet. On a byte stream (tcp, tls), [`Protocol::frame`] finds
/// the packets.
pub trait Protocol: Sized {
    /// The configuration name.
    const NAME: &'static str;
    /// A back end's door: no login, trusted by address, replies in request order.
    const DOOR: bool = false;
    /// The protocol whose message ids and bodies it carries: its own, or that of the clients
    /// behind whom a door stands.
    const SYNTAX: &'static str = Self::NAME;
    /// The longest packet a client may send, in bytes without framing: the bound of a ws message
    /// and of [`Protocol::frame`].
    const PACKET_MAX: usize;
    /// Over ws, packets are text messages.
    const TEXT: bool = false;
    /// Logins that one connection may try before it is closed.
    const LOGIN_TRIES: u8 = 1;
    /// Some of its clients cannot acknowledge a push, see [`crate::Acks::Bytes`].
    const SILENT_RECEIVERS: bool = false;
    /// Pushes carry the gateway's ids, see [`crate::Message::id_for`].
    const PUSHES_STAMPS: bool = false;
    /// What `[protocol.NAME]` configures.
    type Settings;

    /// The state of a fresh connection.
    fn new() -> Self;

    /// Finds the next packet on a byte stream: `value` is the range of the packet inside the
    /// input, without the framing that `consumed` counts.
    ///
    /// Called again with a longer input from the same start until it gives a frame, so that an
    /// implementation may remember how far it has looked. `quiet`: for a while nothing more has
    /// come, or nothing more will; only then an answer other than [`Decoded::Unsure`] is owed.
    ///
    /// # Errors
    /// [`WireError`] as soon as the header shows a packet over the bound.
    fn frame(
        &mut self,
        settings: &Self::Settings,
        input: &[u8],
        quiet: bool,
    ) -> Result<Decoded<std::ops::Range<usize>>, WireError>;

    /// Decodes one packet, the whole of `bytes`: a ws message, or what [`Protocol::frame`] found
    /// last, so that an implementation may remember what it saw there. `scratch` comes empty; a
    /// protocol whose packets cannot be borrowed from as they are puts what it took out of them
    /// there.
    ///
    /// # Errors
    /// [`WireError`] if the packet is malformed; the state is as before.
    fn decode<'a>(
        &mut self,
        settings: &Self::Settings,
        bytes: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Packet<'a>, WireError>;

    /// The packet that was decoded last carries another one: it is to be decoded again.
    fn has_more(&self) -> bool {
        false
    }

    /// The login that was decoded last holds; called before [`Outgoing::Accepted`] is encoded.
    fn accepted(&mut self) {}

    /// What the settings forbid in a login, before credentials are looked at.
    ///
    /// # Errors
    /// The [`Refusal`] to send before the close.
    fn check_connect(_settings: &Self::Settings, _connect: &Connect<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Appends one packet (without ws framing) to `out`. Writes nothing where the protocol has no
    /// such word. On a byte stream `stream` is true and the packet gets the protocol's own framing.
    fn encode(
        &self,
        settings: &Self::Settings,
        outgoing: &Outgoing<'_>,
        stream: bool,
        out: &mut Vec<u8>,
    );

    /// Connections with equal variants encode a push that did not wait in the store to equal bytes:
    /// the key under which a group message's encoding is shared. `None`: it is not shared.
    fn push_variant(&self, settings: &Self::Settings) -> Option<u8>;

    /// How the session behaves; asked after the login was decoded, see [`Manners::tentative`].
    fn manners(&self, _settings: &Self::Settings) -> Manners {
        Manners::default()
    }

    /// What a body in this protocol's syntax says. Whatever it is, it has a content.
    fn content(body: &[u8]) -> Content<'_>;
}

macro_rules! protocols {
    ($($variant:ident, $field:ident: $ty:ty;)*) => {
        /// A row of the table of protocols.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ProtocolId { $($variant),* }

        impl ProtocolId {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The configuration name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => <$ty>::NAME),* }
            }

            /// See [`Protocol::DOOR`].
            pub fn is_door(self) -> bool {
                match self { $(Self::$variant => <$ty>::DOOR),* }
            }

            /// See [`Protocol::PACKET_MAX`].
            pub fn packet_max(self) -> usize {
                match self { $(Self::$variant => <$ty>::PACKET_MAX),* }
            }

            /// Messages of both have the same syntax, see [`Protocol::SYNTAX`].
            pub fn shares_syntax(self, other: Self) -> bool {
                let syntax = |id| match id { $(Self::$variant => <$ty>::SYNTAX),* };
                self == other || syntax(self) == syntax(other)
            }

            /// See [`Protocol::TEXT`].
            pub fn is_text(self) -> bool {
                match self { $(Self::$variant => <$ty>::TEXT),* }
            }

            /// See [`Protocol::LOGIN_TRIES`].
            pub fn login_tries(self) -> u8 {
                match self { $(Self::$variant => <$ty>::LOGIN_TRIES),* }
            }

            /// See [`Protocol::SILENT_RECEIVERS`].
            pub fn has_silent_receivers(self) -> bool {
                match self { $(Self::$variant => <$ty>::SILENT_RECEIVERS),* }
            }

            /// See [`Protocol::PUSHES_STAMPS`].
            pub fn pushes_stamps(self) -> bool {
                match self { $(Self::$variant => <$ty>::PUSHES_STAMPS),* }
            }

            /// See [`Protocol::content`].
            pub fn content(self, body: &[u8]) -> Content<'_> {
                match self { $(Self::$variant => <$ty>::content(body)),* }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|id| id.name() == name)
            }

            /// The number under which stored messages keep their protocol.
            pub fn number(self) -> u8 {
                self as u8
            }

            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }

        /// Every protocol's settings.
        #[derive(Clone, Debug, Default)]
        pub struct Settings { $(pub $field: <$ty as Protocol>::Settings),* }

        /// The codec state of one connection.
        #[derive(Debug)]
        pub enum AnyProtocol { $($variant($ty)),* }

        impl AnyProtocol {
            pub fn new(id: ProtocolId) -> Self {
                match id { $(ProtocolId::$variant => Self::$variant(<$ty>::new())),* }
            }

            pub fn id(&self) -> ProtocolId {
                match self { $(Self::$variant(_) => ProtocolId::$variant),* }
            }

            /// See [`Protocol::frame`].
            pub fn frame(
                &mut self,
                settings: &Settings,
                input: &[u8],
                quiet: bool,
            ) -> Result<Decoded<std::ops::Range<usize>>, WireError> {
                match self { $(Self::$variant(p) => p.frame(&settings.$field, input, quiet)),* }
            }

            /// See [`Protocol::decode`].
            pub fn decode<'a>(
                &mut self,
                settings: &Settings,
                bytes: &'a [u8],
                scratch: &'a mut Vec<u8>,
            ) -> Result<Packet<'a>, WireError> {
                match self { $(Self::$variant(p) => p.decode(&settings.$field, bytes, scratch)),* }
            }

            /// See [`Protocol::has_more`].
            pub fn has_more(&self) -> bool {
                match self { $(Self::$variant(p) => p.has_more()),* }
            }

            /// See [`Protocol::accepted`].
            pub fn accepted(&mut self) {
                match self { $(Self::$variant(p) => p.accepted()),* }
            }

            /// See [`Protocol::manners`].
            pub fn manners(&self, settings: &Settings) -> Manners {
                match self { $(Self::$variant(p) => p.manners(&settings.$field)),* }
            }

            /// See [`Protocol::check_connect`].
            pub fn check_connect(
                &self,
                settings: &Settings,
                connect: &Connect<'_>,
            ) -> Result<(), Refusal> {
                match self {
                    $(Self::$variant(_) => <$ty>::check_connect(&settings.$field, connect)),*
                }
            }

            /// See [`Protocol::encode`].
            pub fn encode(
                &self,
                settings: &Settings,
                outgoing: &Outgoing<'_>,
                stream: bool,
                out: &mut Vec<u8>,
            ) {
                match self {
                    $(Self::$variant(p) => p.encode(&settings.$field, outgoing, stream, out)),*
                }
            }

            /// See [`Protocol::push_variant`]; unique over all protocols.
            pub fn push_variant(&self, settings: &Settings) -> Option<u16> {
                let variant = match self {
                    $(Self::$variant(p) => p.push_variant(&settings.$field)?),*
                };
                Some(u16::from(self.id().number()) << 8 | u16::from(variant))
            }
        }
    };
}

protocols! {
    Binary, binary: crate::binary::Binary;
    BinaryPublish, binary_publish: crate::binary::door::BinaryPublish;
    SimpleText, simple_text: crate::simple_text::SimpleText;
    ImDemo, im_demo: crate::im_demo::ImDemo;
    SimpleIm, simple_im: crate::simple_im::SimpleIm;
}
