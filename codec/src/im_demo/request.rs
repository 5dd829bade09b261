//! What a client's Request asks for.
//!
//! Owns: which payloads make sense. Never: the answer's place in the order of requests, which the
//! packet carries on: every request becomes exactly one packet that is answered.

use super::Settings;
use super::command::{Header, Question, Request, text};
use super::fields::Value;
use super::types::{ChatType, ContactOp, GroupOp, RequestType};
use crate::error::WireError;
use crate::ids::MessageId;
use crate::packet::{Destination, Failure, Packet, Publish};
use crate::query::Query;

/// The packet for a request.
pub(super) fn packet<'a>(
    settings: &Settings,
    request: &Request<'a>,
    scratch: &'a mut Vec<u8>,
) -> Packet<'a> {
    let Some(id) = MessageId::new(request.id) else {
        return refused(MessageId::from([]), Failure::BadRequest);
    };
    match request.kind() {
        Some(RequestType::Message) => match destination(settings, request.payload, scratch) {
            Ok(to) => {
                let keep = request.offline.unwrap_or(settings.offline_default);
                Packet::Publish(Publish { id, to, body: request.payload, keep })
            }
            Err(why) => refused(id, why),
        },
        Some(RequestType::Contact) => {
            contact(request.payload).map_or_else(|why| refused(id, why), |q| Packet::Query(id, q))
        }
        Some(RequestType::Group) => {
            group(request.payload).map_or_else(|why| refused(id, why), |q| Packet::Query(id, q))
        }
        None => refused(id, Failure::Unsupported),
    }
}

fn refused(id: MessageId, why: Failure) -> Packet<'static> {
    Packet::Query(id, Query::Refused(why))
}

/// For whom a Message is that makes sense.
fn destination<'a>(
    settings: &Settings,
    message: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<Destination<'a>, Failure> {
    let header = Header::parse(message).map_err(bad)?;
    if header.kind().is_some() {
        text(header.payload, Value::text).map_err(bad)?;
    }
    match ChatType::try_from(header.chat) {
        Err(_) => Err(Failure::Unsupported),
        Ok(_) if header.to.is_empty() => match &settings.default_to {
            Some(group) => {
                scratch.extend_from_slice(group);
                Ok(Destination::GroupName(scratch))
            }
            None => Err(Failure::NoRecipient),
        },
        Ok(ChatType::Single) => Ok(Destination::Name(header.to)),
        Ok(ChatType::Group) => Ok(Destination::GroupName(header.to)),
    }
}

fn contact(payload: &[u8]) -> Result<Query, Failure> {
    let contact = Question::contact(payload).map_err(bad)?;
    match ContactOp::try_from(contact.op) {
        Ok(ContactOp::List) => Ok(Query::Contacts),
        Ok(ContactOp::Add) => named(contact.id).map(Query::AddContact),
        Ok(ContactOp::Remove) => named(contact.id).map(Query::RemoveContact),
        Err(_) => Err(Failure::Unsupported),
    }
}

fn group(payload: &[u8]) -> Result<Query, Failure> {
    let group = Question::group(payload, GROUP_USERS_MAX).map_err(bad)?;
    match GroupOp::try_from(group.op) {
        Ok(GroupOp::List) => Ok(Query::Groups),
        Ok(GroupOp::Create) if group.users.len() > GROUP_USERS_MAX => Err(Failure::TooMany),
        Ok(GroupOp::Create) => Ok(Query::CreateGroup {
            id: group.id.into(),
            title: group.title.into(),
            users: group.users.into_iter().map(Box::from).collect(),
        }),
        Ok(GroupOp::Join) => named(group.id).map(Query::JoinGroup),
        Ok(GroupOp::Leave) => named(group.id).map(Query::LeaveGroup),
        Ok(GroupOp::Members) => named(group.id).map(Query::Members),
        Err(_) => Err(Failure::Unsupported),
    }
}

/// Whom or which the question is about must be said.
fn named(name: &[u8]) -> Result<Box<[u8]>, Failure> {
    if name.is_empty() { Err(Failure::BadRequest) } else { Ok(name.into()) }
}

/// A payload is a message of its own: the Command around it is right.
fn bad(_: WireError) -> Failure {
    Failure::BadRequest
}

/// Users that a new group can be made with; others join it later. An empty name takes two bytes on
/// the wire and more in memory.
const GROUP_USERS_MAX: usize = 1 << 12;
