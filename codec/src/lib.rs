//! Bytes to types and back, for every protocol the gateway speaks.
//!
//! Two layers:
//!
//! ```text
//!   framing    ws (RFC 6455), or a protocol's own frames on a byte stream
//!   protocol   one packet: binary, ...  ->  Packet<'a>   /   Outgoing<'a>  ->  bytes
//! ```
//!
//! Owns: wire layouts, identifiers, the message vocabulary, the table of protocols.
//! Never: sockets, clocks, threads, `unsafe`. A packet borrows from the receive buffer; nothing is
//! allocated from a length field that a peer sent.
#![forbid(unsafe_code)]

pub mod binary;
pub mod close;
pub mod error;
pub mod ids;
pub mod message;
pub mod packet;
pub mod protocol;
mod reader;
pub mod ws;

pub use close::CloseReason;
pub use error::{Decoded, WireError};
pub use ids::{GroupId, GroupKey, MessageId, TenantId, UserId, UserKey};
pub use message::{Message, Target};
pub use packet::{Connect, Destination, Outgoing, Packet, Publish, PublishKind, Refusal, UserList};
pub use protocol::{AnyProtocol, ProtocolId, Settings};
