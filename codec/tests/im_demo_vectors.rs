//! The byte samples of the im-demo protocol's specification, both ways: through the published
//! messages, and through the codec that reads and writes in place.

mod common;

use codec::im_demo::client::{self, ServerPacket};
use codec::im_demo::types::{
    self, ChatType, Command, ConAck, Contact, ContactOp, Disconnect, Ping, Request, RequestOption,
    Response,
};
use codec::im_demo::{ImDemo, Settings, stream};
use codec::protocol::Protocol;
use codec::{
    Answer, CloseReason, Connect, Decoded, Destination, Failure, GroupId, Message, MessageId, News,
    Notice, Outgoing, Packet, Proof, ProtocolId, Publish, Push, Query, Receipt, Target, Terminal,
    UserId, UserKey,
};
use common::{accepted, hex, packet, scratch};
use prost::Message as _;

/// The samples of the original: bytes with their length, and what they say.
#[test]
fn samples_of_the_original_say_what_the_specification_says() {
    let txt = types::MessageTxt { txt: "hi".into() }.encode_to_vec();
    let message = types::Message { payload: txt, ..Default::default() }.encode_to_vec();
    let request = Request { payload: message, ..Request::default() };
    let opts = vec![RequestOption { offline: true }];
    let con_ack = |status, reason: Option<&str>| {
        let reason = reason.map(str::to_owned);
        Command { conack: Some(ConAck { status, reason, ..ConAck::default() }), ..command() }
    };
    let response = |code, reason: &str| {
        let reason = reason.to_owned();
        Command { response: Some(Response { code, reason, ..Response::default() }), ..command() }
    };
    let disconnect = Disconnect { code: 1, reason: "replaced".into() };
    let samples = [
        (
            "1e 08 01 1a 1a 0a 04 61 63 6d 65 12 03 64 65 76 1a 05 61 6c 69 63 65 \
             22 06 73 33 63 72 65 74",
            Command { connect: Some(login()), ..command() },
        ),
        ("04 08 01 22 00", con_ack(0, None)),
        ("11 08 01 22 0d 08 01 12 09 62 61 64 20 74 6f 6b 65 6e", con_ack(1, Some("bad token"))),
        (
            "0c 08 01 32 08 12 06 12 04 0a 02 68 69",
            Command { request: Some(request.clone()), ..command() },
        ),
        (
            "10 08 01 32 0c 12 06 12 04 0a 02 68 69 1a 02 08 01",
            Command { request: Some(Request { opts, ..request }), ..command() },
        ),
        ("04 08 01 3a 00", response(0, "")),
        (
            "14 08 01 3a 10 08 02 12 0c 6e 6f 20 72 65 63 69 70 69 65 6e 74",
            response(2, "no recipient"),
        ),
        (
            "10 08 01 2a 0c 08 01 12 08 72 65 70 6c 61 63 65 64",
            Command { disconnect: Some(disconnect), ..command() },
        ),
    ];
    for (bytes, says) in samples {
        same(bytes, &says);
    }
}

#[test]
fn samples_of_the_extension_say_what_the_specification_says() {
    let txt = types::MessageTxt { txt: "hi".into() }.encode_to_vec();
    let to_bob = types::Message { payload: txt, to: "bob".into(), ..Default::default() };
    let request = |r#type, payload: Vec<u8>, id: &str| {
        let id = id.to_owned();
        Command {
            request: Some(Request { r#type, payload, id, ..Default::default() }),
            ..command()
        }
    };
    same(
        "15 08 01 32 11 12 0b 12 04 0a 02 68 69 22 03 62 6f 62 22 02 6d 31",
        &request(0, to_bob.encode_to_vec(), "m1"),
    );
    let response = Response { id: "m1".into(), ..Response::default() };
    same("08 08 01 3a 04 1a 02 6d 31", &Command { response: Some(response), ..command() });
    let ping = || Some(Ping::default());
    same("04 08 01 42 00", &Command { ping: ping(), ..command() });
    same("04 08 01 4a 00", &Command { pong: ping(), ..command() });
    same("00", &Command::default());
    same("02 08 01", &command());
    same("0a 08 01 32 06 08 01 22 02 63 31", &request(1, Vec::new(), "c1"));
    let add = Contact { op: 1, user: "bob".into() }.encode_to_vec();
    same("13 08 01 32 0f 08 01 12 07 08 01 12 03 62 6f 62 22 02 63 32", &request(1, add, "c2"));
}

/// Fields that are appended stand behind the sender's, so only decoding gives the sample's message.
#[test]
fn the_sample_of_a_push_is_understood() {
    let bytes = hex(
        "20 08 01 32 1c 12 16 12 04 0a 02 68 69 22 03 62 6f 62 1a 05 61 6c 69 63 65 32 02 73 39
         22 02 73 39",
    );
    let Ok(ServerPacket::Push { id, message, stored }) = client::decode_server(&bytes[1..]) else {
        panic!("a push")
    };
    assert_eq!((id.as_str(), stored), ("s9", false));
    assert_eq!((&*message.from, &*message.to, &*message.id), ("alice", "bob", "s9"));
    let txt = types::MessageTxt::decode(&*message.payload).unwrap();
    assert_eq!(txt.txt, "hi");
}

#[test]
fn every_packet_of_a_client_is_understood() {
    let alice = Connect {
        name: b"alice",
        proof: Proof::Password(b"s3cret"),
        role: None,
        terminal: Terminal::Device(b""),
        vhost: None,
        tenant: Some((b"acme", b"dev")),
    };
    let phone = Connect { terminal: Terminal::Device(b"phone"), ..alice };
    let hi = hex("12 04 0a 02 68 69 22 03 62 6f 62");
    let id = |id: &str| MessageId::new(id.as_bytes()).unwrap();
    let publish = |to, body| Publish { id: id("m1"), to, body, keep: false };
    let refused = Packet::Query(id(""), Query::Refused(Failure::NoRecipient));
    let to_group = hex("12 04 0a 02 68 69 22 02 31 32 28 01");
    let group = Publish { id: id("m2"), ..publish(Destination::GroupName(b"12"), &to_group) };
    let create = Query::CreateGroup {
        id: Box::default(),
        title: b"team"[..].into(),
        users: vec![b"bob"[..].into()],
    };
    for (name, expected) in [
        ("connect", Packet::Connect(alice)),
        ("connect_ext", Packet::Connect(phone)),
        ("request_original", refused.clone()),
        ("request_original_offline", refused),
        ("request_to_bob", Packet::Publish(publish(Destination::Name(b"bob"), &hi))),
        ("request_to_group", Packet::Publish(group)),
        ("contact_list", Packet::Query(id("c1"), Query::Contacts)),
        ("contact_add", Packet::Query(id("c2"), Query::AddContact(b"bob"[..].into()))),
        ("group_create", Packet::Query(id("g1"), create)),
        ("ack", Packet::Ack(id("s9"))),
        ("ack_oldest", Packet::AckOldest),
        ("ping", Packet::Ping),
        ("pong", Packet::Pong),
        ("alive", Packet::Nothing),
        ("disconnect", Packet::Disconnect),
    ] {
        let bytes = packet("im-demo", name);
        let decoded = ImDemo::new().decode(&Settings::default(), &bytes, scratch());
        assert_eq!(decoded, Ok(expected), "{name}");
    }
}

#[test]
fn client_writes_the_samples() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let sample = |name| packet("im-demo", name);
    assert_eq!(written(&|out| client::connect(login(), false, out)), sample("connect"));
    let to = (ChatType::Single, "bob");
    let sent = written(&|out| client::send(to, "m1", "hi", None, false, out));
    assert_eq!(sent, sample("request_to_bob"));
    let to = (ChatType::Group, "12");
    let sent = written(&|out| client::send(to, "m2", "hi", None, false, out));
    assert_eq!(sent, sample("request_to_group"));
    let op = ContactOp::Add;
    let asked = written(&|out| client::contact(op, "bob", "c2", false, out));
    assert_eq!(asked, sample("contact_add"));
    let group = types::Group {
        op: 1,
        name: "team".into(),
        users: vec!["bob".into()],
        ..Default::default()
    };
    assert_eq!(written(&|out| client::group(&group, "g1", false, out)), sample("group_create"));
    assert_eq!(written(&|out| client::ack("s9", false, out)), sample("ack"));
    assert_eq!(written(&|out| client::ack("", false, out)), sample("ack_oldest"));
    assert_eq!(written(&|out| client::ping(0, false, out)), sample("ping"));
    assert_eq!(written(&|out| client::pong(Ping::default(), false, out)), sample("pong"));
    assert_eq!(written(&|out| client::alive(false, out)), sample("alive"));
    assert_eq!(written(&|out| client::disconnect(false, out)), sample("disconnect"));
    assert_eq!(written(&|out| client::alive(true, out)), hex("02 08 01"), "with its length");
}

#[test]
fn gateway_writes_the_samples() {
    let (id, why) = (MessageId::from([]), Failure::NoRecipient);
    let said = |state: &ImDemo, outgoing: &Outgoing<'_>| {
        let mut out = Vec::new();
        state.encode(&Settings::default(), outgoing, true, &mut out);
        out
    };
    let original = after("connect");
    assert_eq!(said(&original, &accepted()), hex("04 08 01 22 00"));
    let receipt = Some(Receipt { stamp: 1, time_ms: 2, stored: false });
    let kind = codec::PublishKind::User;
    let ack = Outgoing::PublishAck(kind, id, receipt);
    assert_eq!(said(&original, &ack), hex("04 08 01 3a 00"));
    let failed = Outgoing::PublishFailed { id, why, to: b"" };
    assert_eq!(
        said(&original, &failed),
        hex("14 08 01 3a 10 08 02 12 0c 6e 6f 20 72 65 63 69 70 69 65 6e 74")
    );
    let replaced = Outgoing::Goodbye(CloseReason::Replaced);
    assert_eq!(
        said(&original, &replaced),
        hex("10 08 01 2a 0c 08 01 12 08 72 65 70 6c 61 63 65 64")
    );
    let m1 = MessageId::from(*b"m1");
    let ack = Outgoing::PublishAck(kind, m1, None);
    assert_eq!(said(&after("connect_ext"), &ack), hex("08 08 01 3a 04 1a 02 6d 31"));
    let done = Outgoing::Answer(m1, &Answer::Done);
    assert_eq!(said(&after("connect_ext"), &done), hex("08 08 01 3a 04 1a 02 6d 31"));
    assert_eq!(said(&after("connect_ext"), &Outgoing::Ping), hex("04 08 01 42 00"));
    assert_eq!(said(&after("connect_ext"), &Outgoing::Pong), hex("04 08 01 4a 00"));
}

#[test]
fn a_push_is_the_sender_s_message_with_the_gateway_s_fields_behind() {
    let message = Message {
        stamp: 0x1f,
        id: MessageId::from(*b"m1"),
        from: Some(UserKey { id: UserId(42), ..UserKey::default() }),
        from_name: b"alice"[..].into(),
        to: Target::User(UserKey::default()),
        protocol: ProtocolId::ImDemo,
        time_ms: 300,
        body: hex("12 04 0a 02 68 69 22 03 62 6f 62").into(),
    };
    let mut out = Vec::new();
    let push = Outgoing::Push(Push { message: &message, stored: true });
    let mut bob = ImDemo::new();
    let mut login = Vec::new();
    let connect = types::Connect { user: "bob".into(), ..self::login() };
    client::connect(connect, false, &mut login);
    bob.decode(&Settings::default(), &login, scratch()).unwrap();
    bob.encode(&Settings::default(), &push, true, &mut out);
    let expected = hex("6a 08 01 32 66
         12 3e 12 04 0a 02 68 69 22 03 62 6f 62      # the sender's
         1a 05 \"alice\" 22 03 \"bob\" 28 00         # from, to, chat
         32 20 \"0000000000000000000000000000001f\"  # id
         38 ac 02                                    # time
         1a 02 08 01                                 # it was stored
         22 20 \"0000000000000000000000000000001f\"");
    assert_eq!(out, expected);
    let Ok(Decoded::Frame { value, .. }) = stream::frame(u32::MAX, &out) else { panic!("a frame") };
    let heard = client::decode_server(&out[value]);
    let Ok(ServerPacket::Push { id, stored: true, message }) = heard else { panic!("{heard:?}") };
    assert_eq!((id, message.time), ("0000000000000000000000000000001f".to_owned(), 300));
}

#[test]
fn who_was_added_as_a_contact_hears_of_it_in_a_request_with_an_id_of_its_own() {
    let notice = Notice {
        by: UserId(42),
        name: b"alice"[..].into(),
        device: b"ipad"[..].into(),
        time_ms: 300,
        news: News::ContactAdded,
    };
    let said = |client: &ImDemo, stream, notice: &Notice| {
        let mut out = Vec::new();
        client.encode(&Settings::default(), &Outgoing::Notice(0x1f, notice), stream, &mut out);
        out
    };
    let expected = hex("33 08 01 32 2f
         08 01 12 09 08 01 12 05 \"alice\"           # CONTACT: ADD, user
         22 20 \"0000000000000000000000000000001f\"");
    assert_eq!(said(&after("connect_ext"), true, &notice), expected);
    assert_eq!(said(&after("connect_ext"), false, &notice), expected[1..]);
    let Ok(ServerPacket::Contact { id, contact }) = client::decode_server(&expected[1..]) else {
        panic!("news of a contact")
    };
    assert_eq!(id, "0000000000000000000000000000001f");
    assert_eq!(contact, Contact { op: ContactOp::Add.into(), user: "alice".into() });
    // To that answer nothing is due, and it is taken for no push's.
    let mut answer = Vec::new();
    client::ack(&id, false, &mut answer);
    let heard = after("connect_ext").decode(&Settings::default(), &answer, scratch());
    assert_eq!(heard, Ok(Packet::Ack(MessageId::of_stamp(0x1f))));
    // An original hears nothing, and nobody of what has no form here.
    assert_eq!(said(&after("connect"), true, &notice), b"");
    let (to, group) = (UserId(1), GroupId(2));
    for news in [
        News::ContactAsked { to, ask: b"hi"[..].into() },
        News::ContactAccepted { to },
        News::ContactDeleted { to },
        News::GroupCreated { group, key: b"key"[..].into() },
        News::GroupDeleted { group },
        News::MemberAdded { group, member: to },
        News::MemberRemoved { group, member: to },
    ] {
        let other = Notice { news, ..notice.clone() };
        assert_eq!(said(&after("connect_ext"), true, &other), b"", "{:?}", other.news);
    }
}

/// The published schema has the numbers and the types of the structs: every field of every struct
/// is in it, under its name.
#[test]
fn the_published_schema_names_every_field() {
    let proto = include_str!("../../proto/im_demo.proto");
    let structs = include_str!("../src/im_demo/types.rs");
    let mut number = "";
    let mut fields = 0;
    for line in structs.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once("tag = \"") {
            number = rest.split('"').next().unwrap();
        } else if let Some(field) = line.strip_prefix("pub ").filter(|_| line.ends_with(',')) {
            let name = field.split(':').next().unwrap().trim_start_matches("r#");
            let declared = format!(" {name} = {number};");
            assert!(proto.contains(&declared), "{declared}");
            fields += 1;
        }
    }
    let declared = proto.lines().filter(|line| line.starts_with("  ") && line.contains(" = "));
    // The values of enums have no type.
    let is_field = |line: &&str| line.split_whitespace().nth(1) != Some("=");
    assert_eq!(fields, declared.filter(is_field).count());
}

/// A sample with its length and what it says, both ways.
fn same(bytes: &str, says: &Command) {
    let bytes = hex(bytes);
    assert_eq!(says.encode_length_delimited_to_vec(), bytes, "{says:?}");
    assert_eq!(Command::decode_length_delimited(&*bytes).as_ref(), Ok(says));
    let whole = Decoded::Frame { value: 1..bytes.len(), consumed: bytes.len() };
    assert_eq!(stream::frame(u32::MAX, &bytes), Ok(whole));
    assert!(ImDemo::new().decode(&Settings::default(), &bytes[1..], scratch()).is_ok());
}

fn login() -> types::Connect {
    types::Connect {
        org: "acme".into(),
        appkey: "dev".into(),
        user: "alice".into(),
        token: "s3cret".into(),
        ..types::Connect::default()
    }
}

fn command() -> Command {
    Command { version: 1, ..Command::default() }
}

/// The codec of a connection that sent this CONNECT.
fn after(name: &str) -> ImDemo {
    let mut state = ImDemo::new();
    state.decode(&Settings::default(), &packet("im-demo", name), scratch()).unwrap();
    state
}
