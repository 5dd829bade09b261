//! The messages of `proto/im_demo.proto`, where everything is explained.
//!
//! Owns: names, numbers and types of the fields. Never: the hot path; what clients send most and
//! what they are sent most is read and written in place, see `fields` and `reply`.

use prost::{Enumeration, Message as Proto};

#[derive(Clone, PartialEq, Proto)]
pub struct Command {
    #[prost(int32, tag = "1")]
    pub version: i32,
    #[prost(message, optional, tag = "3")]
    pub connect: Option<Connect>,
    #[prost(message, optional, tag = "4")]
    pub conack: Option<ConAck>,
    #[prost(message, optional, tag = "5")]
    pub disconnect: Option<Disconnect>,
    #[prost(message, optional, tag = "6")]
    pub request: Option<Request>,
    #[prost(message, optional, tag = "7")]
    pub response: Option<Response>,
    #[prost(message, optional, tag = "8")]
    pub ping: Option<Ping>,
    #[prost(message, optional, tag = "9")]
    pub pong: Option<Ping>,
}

#[derive(Clone, PartialEq, Proto)]
pub struct Connect {
    #[prost(string, tag = "1")]
    pub org: String,
    #[prost(string, tag = "2")]
    pub appkey: String,
    #[prost(string, tag = "3")]
    pub user: String,
    #[prost(string, tag = "4")]
    pub token: String,
    #[prost(int32, tag = "5")]
    pub ext: i32,
    #[prost(string, tag = "6")]
    pub device: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Status {
    Ok = 0,
    Fail = 1,
}

#[derive(Clone, PartialEq, Proto)]
pub struct ConAck {
    #[prost(enumeration = "Status", tag = "1")]
    pub status: i32,
    #[prost(string, optional, tag = "2")]
    pub reason: Option<String>,
    #[prost(int32, tag = "3")]
    pub ext: i32,
    #[prost(int32, tag = "4")]
    pub heartbeat: i32,
    #[prost(string, tag = "5")]
    pub session: String,
    #[prost(int64, tag = "6")]
    pub time: i64,
}

#[derive(Clone, PartialEq, Proto)]
pub struct Disconnect {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// `Option` in the document.
#[derive(Clone, PartialEq, Proto)]
pub struct RequestOption {
    #[prost(bool, tag = "1")]
    pub offline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum RequestType {
    Message = 0,
    Contact = 1,
    Group = 2,
}

#[derive(Clone, PartialEq, Proto)]
pub struct Request {
    #[prost(enumeration = "RequestType", tag = "1")]
    pub r#type: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    pub opts: Vec<RequestOption>,
    #[prost(string, tag = "4")]
    pub id: String,
}

#[derive(Clone, PartialEq, Proto)]
pub struct Response {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub reason: String,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(bytes = "vec", tag = "4")]
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum MessageType {
    Txt = 0,
    Image = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum ChatType {
    Single = 0,
    Group = 1,
}

#[derive(Clone, PartialEq, Proto)]
pub struct Message {
    #[prost(enumeration = "MessageType", tag = "1")]
    pub r#type: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
    #[prost(string, tag = "3")]
    pub from: String,
    #[prost(string, tag = "4")]
    pub to: String,
    #[prost(enumeration = "ChatType", tag = "5")]
    pub chat: i32,
    #[prost(string, tag = "6")]
    pub id: String,
    #[prost(int64, tag = "7")]
    pub time: i64,
}

#[derive(Clone, PartialEq, Proto)]
pub struct MessageTxt {
    #[prost(string, tag = "1")]
    pub txt: String,
}

#[derive(Clone, PartialEq, Proto)]
pub struct MessageImg {
    #[prost(string, tag = "1")]
    pub url: String,
}

#[derive(Clone, PartialEq, Proto)]
pub struct Ping {
    #[prost(int64, tag = "1")]
    pub time: i64,
}

#[derive(Clone, PartialEq, Proto)]
pub struct MessageAck {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(int64, tag = "2")]
    pub time: i64,
    #[prost(bool, tag = "3")]
    pub stored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum ContactOp {
    List = 0,
    Add = 1,
    Remove = 2,
}

#[derive(Clone, PartialEq, Proto)]
pub struct Contact {
    #[prost(enumeration = "ContactOp", tag = "1")]
    pub op: i32,
    #[prost(string, tag = "2")]
    pub user: String,
}

#[derive(Clone, PartialEq, Proto)]
pub struct ContactList {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<ContactItem>,
}

#[derive(Clone, PartialEq, Proto)]
pub struct ContactItem {
    #[prost(string, tag = "1")]
    pub user: String,
    #[prost(bool, tag = "2")]
    pub online: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum GroupOp {
    List = 0,
    Create = 1,
    Join = 2,
    Leave = 3,
    Members = 4,
}

#[derive(Clone, PartialEq, Proto)]
pub struct Group {
    #[prost(enumeration = "GroupOp", tag = "1")]
    pub op: i32,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub users: Vec<String>,
}

#[derive(Clone, PartialEq, Proto)]
pub struct GroupList {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<GroupItem>,
}

#[derive(Clone, PartialEq, Proto)]
pub struct GroupItem {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub owner: String,
    #[prost(string, repeated, tag = "4")]
    pub users: Vec<String>,
}
