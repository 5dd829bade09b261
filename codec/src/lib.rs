//! Bytes to types and back, for every protocol the gateway speaks.
//!
//! Two layers:
//!
//! ```text
//!   framing    ws (RFC 6455), or a protocol's own frames on a byte stream
//!   protocol   one packet: binary, im_demo, ...  ->  Packet<'a>   /   Outgoing<'a>  ->  bytes
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
pub mod im_demo;
pub mod manners;
pub mod message;
pub mod notice;
pub mod packet;
pub mod protocol;
pub mod query;
mod reader;
pub mod simple_im;
pub mod simple_text;
mod words;
pub mod ws;

pub use close::CloseReason;
pub use error::{Decoded, Malformed, WireError};
pub use ids::{GroupId, GroupKey, MessageId, TenantId, UserId, UserKey};
pub use manners::{Acks, Answers, Echo, Heartbeat, Manners, Patience, Resends};
pub use message::{Content, Message, Target};
pub use notice::{News, Notice};
pub use packet::{
    Accepted, Connect, Destination, Failure, Outgoing, Packet, Proof, Publish, PublishKind, Push,
    Receipt, Refusal, Terminal, UserList,
};
pub use protocol::{AnyProtocol, ProtocolId, Settings};
pub use query::{Answer, Contact, Group, Query};
