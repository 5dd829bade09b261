//! The open questions and the traps of the im-demo protocol's specification that the codec decides
//! alone, one test per row, numbered as there.

mod common;

use codec::error::Malformed;
use codec::im_demo::client::{self, ServerPacket};
use codec::im_demo::types::{self, ChatType, Command, Request, RequestOption, Response};
use codec::im_demo::{ImDemo, Settings, stream};
use codec::protocol::Protocol;
use codec::{
    Acks, Answer, Answers, CloseReason, Connect, Contact, Content, Decoded, Destination, Failure,
    Group, GroupId, GroupKey, Heartbeat, Message, MessageId, News, Notice, Outgoing, Packet, Proof,
    ProtocolId, PublishKind, Push, Query, Receipt, Refusal, Resends, Target, UserId, UserKey,
};
use common::{accepted, hex, packet, push, scratch};
use prost::Message as _;

#[test]
fn im_demo_ambiguity_01_sub_messages_count_and_the_table_s_fields_do_not() {
    // The table's `command` and `payload` are unknown fields, whatever they hold.
    for field in ["10 03", "12 04 0a 02 68 69"] {
        assert_eq!(decode(&hex(&format!("08 01 {field}"))), Ok(Packet::Nothing));
        let both = hex(&format!("08 01 {field} 42 00"));
        assert_eq!(decode(&both), Ok(Packet::Ping));
    }
}

#[test]
fn im_demo_ambiguity_02_a_length_has_up_to_five_bytes() {
    let frame = |bytes: &str| stream::frame(u32::MAX, &hex(bytes));
    for (bytes, prefix) in [("02", 1), ("82 00", 2), ("82 80 00", 3), ("82 80 80 80 00", 5)] {
        let value = prefix..prefix + 2;
        let whole = Decoded::Frame { consumed: value.end, value };
        assert_eq!(frame(&format!("{bytes} 08 01 ff")), Ok(whole), "{bytes}");
    }
    assert_eq!(
        frame("82 80 80 80 80 00 08 01").map_err(|error| error.what),
        Err(Malformed::TooLarge)
    );
}

#[test]
fn im_demo_ambiguity_03_numbers_of_one_byte_are_int32_on_the_wire() {
    let disconnect = hex("2a 03 08 ac 02");
    assert_eq!(decode(&disconnect), Ok(Packet::Disconnect), "300 is no INT8");
    for why in FAILURES {
        let id = MessageId::from([]);
        let out = encode(&ImDemo::new(), &Outgoing::PublishFailed { id, why, to: b"" });
        assert!(matches!(response(&out).code, 1..=127), "{why:?}");
    }
    for reason in CloseReason::ALL {
        let out = encode(&ImDemo::new(), &Outgoing::Goodbye(reason));
        if !out.is_empty() {
            let said = Command::decode(&*out).unwrap().disconnect.unwrap();
            assert!((0..=6).contains(&said.code), "{reason:?}");
        }
    }
}

#[test]
fn im_demo_ambiguity_04_any_version_is_accepted_and_1_is_sent() {
    for version in ["", "08 00", "08 02", "08 ff ff ff ff ff ff ff ff ff 01"] {
        assert_eq!(decode(&hex(&format!("{version} 42 00"))), Ok(Packet::Ping), "{version}");
    }
    for outgoing in everything() {
        for state in [after("connect"), after("connect_ext")] {
            let out = encode(&state, &outgoing);
            if !out.is_empty() {
                assert_eq!(Command::decode(&*out).unwrap().version, 1, "{outgoing:?}");
            }
        }
    }
}

#[test]
fn im_demo_ambiguity_05_a_login_is_answered_with_a_status() {
    assert_eq!(encode(&after("connect"), &accepted()), hex("08 01 22 00"));
    let refused = encode(&after("connect"), &Outgoing::Refused(Refusal::BadCredentials));
    let con_ack = Command::decode(&*refused).unwrap().conack.unwrap();
    assert_eq!(con_ack.status(), types::Status::Fail);
    assert_eq!(con_ack.reason.as_deref(), Some("bad user or token"));
    let ext = encode(&after("connect_ext"), &accepted());
    let Ok(ServerPacket::ConAck(con_ack)) = client::decode_server(&ext) else { panic!("a ConAck") };
    assert_eq!(con_ack.status(), types::Status::Ok);
    assert_eq!((con_ack.ext, con_ack.heartbeat, con_ack.time), (1, 30, 1_700_000_000_000));
    assert_eq!(con_ack.session, "9");
}

#[test]
fn im_demo_ambiguity_07_a_token_is_opaque() {
    for token in ["", " a b ", "{\"jwt\":1}", "\u{0}\u{7f}", &"x".repeat(2000)] {
        let bytes = login(types::Connect { token: token.into(), ..alice() });
        let connect = connect(&bytes);
        assert!(connect.proof == Proof::Password(token.as_bytes()));
        assert_eq!(ImDemo::check_connect(&Settings::default(), &connect), Ok(()));
    }
}

#[test]
fn im_demo_ambiguity_08_one_option_that_says_offline_is_enough() {
    assert!(keeps("1a 02 08 01 1a 02 08 00", false));
    assert!(keeps("1a 02 08 00 1a 02 08 01", false));
    assert!(keeps("1a 00 1a 02 08 01 1a 00", false));
    assert!(!keeps("1a 02 08 00 1a 00", true));
}

#[test]
fn im_demo_ambiguity_09_no_option_is_not_stored_unless_configured() {
    assert!(!keeps("", false));
    assert!(keeps("", true));
}

#[test]
fn im_demo_ambiguity_10_pushes_are_requests_and_their_acks_responses() {
    let message = message(user(), ProtocolId::ImDemo, &hex("12 04 0a 02 68 69"));
    let out = encode(&after("connect"), &push(&message));
    let request = Command::decode(&*out).unwrap().request.unwrap();
    assert_eq!(request.r#type(), types::RequestType::Message);
    assert_eq!(request.id, "00000000000000000000000000000001");
    let mut ack = Vec::new();
    client::ack(&request.id, false, &mut ack);
    let id = message.id_for(ProtocolId::ImDemo);
    assert_eq!(decode(&ack), Ok(Packet::Ack(id)));
    assert_eq!(decode(&hex("3a 00")), Ok(Packet::AckOldest), "an original's");
}

#[test]
fn im_demo_trap_01_zero_values_are_not_on_the_wire() {
    assert_eq!(encode(&after("connect"), &accepted()), hex("08 01 22 00"));
    let receipt = Some(Receipt { stamp: 1, time_ms: 2, stored: false });
    let ack = Outgoing::PublishAck(PublishKind::User, MessageId::from([]), receipt);
    assert_eq!(encode(&after("connect"), &ack), hex("08 01 3a 00"));
    // And they may be there, too.
    for request in ["32 0d 08 00 12 09 08 00", "32 09 12 07"] {
        let request = hex(&format!("{request} 12 00 22 03 62 6f 62"));
        assert!(matches!(decode(&request), Ok(Packet::Publish(_))), "{request:x?}");
    }
}

#[test]
fn im_demo_trap_02_a_reason_that_is_empty_is_not_one_that_is_absent() {
    let absent = Command::decode(&*hex("22 00")).unwrap().conack.unwrap();
    let empty = Command::decode(&*hex("22 02 12 00")).unwrap().conack.unwrap();
    assert_eq!((absent.reason, empty.reason.as_deref()), (None, Some("")));
    assert!(include_str!("../../proto/im_demo.proto").contains("optional string reason = 2;"));
}

#[test]
fn im_demo_trap_03_an_option_may_be_present_and_empty() {
    let option = RequestOption { offline: false };
    let request = Request { opts: vec![option], ..Request::default() };
    assert_eq!(request.encode_to_vec(), hex("1a 00"));
    assert!(!keeps("1a 00", true), "it says no");
}

#[test]
fn im_demo_trap_04_negative_numbers_take_ten_bytes() {
    let minus_one = "ff ff ff ff ff ff ff ff ff 01";
    for command in ["08 # 42 00", "2a 0b 08 # 42 00", "42 0b 08 #", "3a 0b 08 # 42 00"] {
        let bytes = hex(&command.replace('#', minus_one));
        assert!(decode(&bytes).is_ok(), "{command}");
    }
    let bytes = login(types::Connect { ext: -1, ..alice() });
    let mut state = ImDemo::new();
    state.decode(&Settings::default(), &bytes, scratch()).unwrap();
    assert_eq!(encode(&state, &accepted()), hex("08 01 22 00"), "no extension");
    let request = hex(&format!("32 0d 08 {minus_one} 12 00"));
    assert_eq!(decode(&request), refused("", Failure::Unsupported));
    assert_eq!(what(&hex("08 ff ff ff ff ff ff ff ff ff 02")), Malformed::Syntax, "65 bits");
}

#[test]
fn im_demo_trap_05_strings_that_are_not_utf8_spoil_the_command() {
    for field in
        ["1a 03 1a 01 ff", "32 03 22 01 ff", "3a 03 1a 01 ff", "3a 03 12 01 ff", "2a 03 12 01 ff"]
    {
        let bytes = hex(&format!("08 01 {field}"));
        assert!(Command::decode(&*bytes).is_err());
        assert_eq!(what(&bytes), Malformed::Syntax, "{field}");
    }
    let unknown = hex("08 01 7a 01 ff 42 00");
    assert_eq!(decode(&unknown), Ok(Packet::Ping), "what nobody knows is no string");
    let out = encode(&after("connect"), &Outgoing::Goodbye(CloseReason::Malformed));
    assert_eq!(Command::decode(&*out).unwrap().disconnect.unwrap().code, 3);
}

#[test]
fn im_demo_trap_06_unknown_fields_and_types_are_relayed() {
    // Type 9, a forged sender, id and time, and fields 20 and 21 that nobody knows.
    let forged = "08 09 12 02 00 ff 1a 03 65 76 65 32 01 78 38 07";
    let body = hex(&format!("{forged} 22 03 62 6f 62 a0 01 05 aa 01 02 68 69"));
    let request = Request { payload: body.clone(), ..Request::default() };
    let command = Command { request: Some(request), ..Command::default() }.encode_to_vec();
    let Ok(Packet::Publish(publish)) = decode(&command) else { panic!("a publish") };
    assert_eq!(publish.body, body);
    let message = message(user(), ProtocolId::ImDemo, &body);
    let out = encode(&after("connect_ext"), &push(&message));
    let payload = Command::decode(&*out).unwrap().request.unwrap().payload;
    assert_eq!(payload[..body.len()], body);
    let heard = types::Message::decode(&*payload).unwrap();
    assert_eq!((heard.r#type, &*heard.payload), (9, &[0, 0xff][..]));
    assert_eq!((&*heard.from, &*heard.to, heard.time), ("carol", "alice", 1234));
    assert_eq!(heard.id, "00000000000000000000000000000001");
}

#[test]
fn im_demo_trap_07_frames_split_and_join_anywhere() {
    let stream = common::stream("im-demo");
    let frames = |chunk: usize| {
        let (mut found, mut input) = (Vec::new(), Vec::new());
        for piece in stream.chunks(chunk) {
            input.extend_from_slice(piece);
            while let Ok(Decoded::Frame { value, consumed }) = stream::frame(u32::MAX, &input) {
                found.push(input[value].to_vec());
                input.drain(..consumed);
            }
        }
        found
    };
    let whole = frames(stream.len());
    assert_eq!(whole.len(), 9);
    for chunk in 1..stream.len() {
        assert_eq!(frames(chunk), whole, "chunks of {chunk}");
    }
}

#[test]
fn im_demo_trap_08_a_command_may_hold_several_messages_or_none() {
    let mut state = ImDemo::new();
    let all = |state: &mut ImDemo, bytes: &[u8]| {
        let mut kinds = Vec::new();
        loop {
            let bytes = bytes.to_vec().leak();
            kinds.push(match state.decode(&Settings::default(), bytes, scratch()).unwrap() {
                Packet::Connect(_) => "connect",
                Packet::Disconnect => "disconnect",
                Packet::Query(..) | Packet::Publish(_) => "request",
                Packet::Ack(_) | Packet::AckOldest => "response",
                Packet::Ping => "ping",
                Packet::Pong => "pong",
                Packet::Nothing => "nothing",
                Packet::WhoIsHere => "who is here",
                Packet::ConnectAgain => "connect again",
            });
            if !state.has_more() {
                return kinds;
            }
        }
    };
    // All of them, the highest number first.
    let command = hex("4a 00 42 00 3a 00 32 00 2a 00 22 00 1a 00 08 01");
    let expected = ["connect", "disconnect", "request", "response", "ping", "pong"];
    assert_eq!(all(&mut state, &command), expected);
    assert_eq!(all(&mut state, &command), expected, "and again");
    assert_eq!(all(&mut state, &hex("42 00 1a 00")), ["connect", "ping"]);
    for nothing in ["", "08 01", "22 00", "12 00"] {
        assert_eq!(all(&mut state, &hex(nothing)), ["nothing"], "{nothing}");
    }
    // Twice the same is one, the last value of each field counting.
    let twice = hex("32 06 12 02 0a 00 22 00 32 03 22 01 78");
    assert_eq!(decode(&twice), refused("x", Failure::BadRequest));
}

#[test]
fn im_demo_trap_09_a_bad_payload_is_code_2_and_not_the_end() {
    for (kind, payload) in [
        ("00", "ff"),       // no field
        ("00", "22 05 62"), // cut short
        ("00", "22 01 ff"), // no UTF-8
        ("00", "1a 01 ff"), // the same in a field that only the gateway sets
        ("00", "12 01 ff"), // the text in it is broken
        ("00", "20 01"),    // `to` is a number
        ("01", "12 01 ff"),
        ("01", "08 01"), // add nobody
        ("02", "22 01 ff"),
        ("02", "08 02"), // join none
    ] {
        let payload = hex(payload);
        let mut request = hex(&format!("08 {kind} 22 02 6d 31 12"));
        request.push(payload.len() as u8);
        request.extend(payload);
        let mut command = vec![0x32, request.len() as u8];
        command.extend(request);
        assert_eq!(decode(&command), refused("m1", Failure::BadRequest), "{command:x?}");
    }
    let id = MessageId::from([]);
    let answer = Answer::Failed(Failure::BadRequest);
    assert_eq!(response(&encode(&after("connect"), &Outgoing::Answer(id, &answer))).code, 2);
}

#[test]
fn im_demo_trap_10_field_2_of_a_command_has_no_meaning() {
    assert!(include_str!("../../proto/im_demo.proto").contains("reserved 2;"));
    for outgoing in everything() {
        for state in [after("connect"), after("connect_ext")] {
            // A parser that knows field 2 only.
            #[derive(Clone, PartialEq, prost::Message)]
            struct Second {
                #[prost(int32, optional, tag = "2")]
                second: Option<i32>,
            }
            let out = encode(&state, &outgoing);
            assert_eq!(Second::decode(&*out).unwrap().second, None, "{outgoing:?}");
        }
    }
}

#[test]
fn originals_and_extended_clients_have_their_manners() {
    let settings = Settings::default();
    let original = after("connect").manners(&settings);
    assert_eq!((original.acks, original.resends), (Acks::Bytes, None));
    assert_eq!((original.heartbeat, original.answers), (Heartbeat::None, Answers::InOrder));
    let ext = after("connect_ext").manners(&settings);
    // After 10, 20 and 30 seconds; at 40 it waits for the next login.
    let resends = Resends { interval_ms: 10_000, max: 3, ends: false };
    assert_eq!((ext.acks, ext.resends), (Acks::Packets, Some(resends)));
    assert_eq!((ext.heartbeat, ext.answers), (Heartbeat::Expected, Answers::InOrder));
    for silent in [Outgoing::Ping, Outgoing::Pong, Outgoing::Joined(b"bob"), Outgoing::Left(b"bob")]
    {
        assert_eq!(encode(&after("connect"), &silent), b"", "{silent:?}");
    }
    let mut state = after("connect_ext");
    state.decode(&settings, &hex("42 02 08 07"), scratch()).unwrap();
    assert_eq!(encode(&state, &Outgoing::Pong), hex("08 01 4a 02 08 07"), "the same content");
}

#[test]
fn names_have_bounds_and_tenants_are_pairs() {
    let (any, own) =
        (Settings { default_tenant: false, ..Settings::default() }, Settings::default());
    let check = |settings: &Settings, changed: types::Connect| {
        let bytes = login(changed);
        let decoded = ImDemo::new().decode(settings, &bytes, scratch());
        let Ok(Packet::Connect(connect)) = decoded else { panic!("{decoded:?}") };
        (ImDemo::check_connect(settings, &connect), connect.tenant.is_none())
    };
    let none = types::Connect { org: String::new(), appkey: String::new(), ..alice() };
    assert_eq!(check(&any, alice()), (Ok(()), false));
    assert_eq!(check(&any, none.clone()), (Err(Refusal::UnknownTenant), false));
    assert_eq!(check(&own, none), (Ok(()), true));
    let half = types::Connect { org: String::new(), ..alice() };
    assert_eq!(check(&own, half), (Err(Refusal::UnknownTenant), false));
    for bad in [&"x".repeat(65), "a\nb", "\u{0}"] {
        for (changed, refusal) in [
            (types::Connect { org: bad.to_owned(), ..alice() }, Refusal::UnknownTenant),
            (types::Connect { appkey: bad.to_owned(), ..alice() }, Refusal::UnknownTenant),
            (types::Connect { user: bad.to_owned(), ..alice() }, Refusal::BadCredentials),
            (types::Connect { device: bad.to_owned(), ..alice() }, Refusal::BadCredentials),
        ] {
            assert_eq!(check(&any, changed).0, Err(refusal), "{bad:?}");
        }
    }
    let nobody = types::Connect { user: String::new(), ..alice() };
    assert_eq!(check(&any, nobody).0, Err(Refusal::BadCredentials));
    let long = types::Connect { user: "x".repeat(64), device: "d d".into(), ..alice() };
    assert_eq!(check(&any, long).0, Ok(()));
}

#[test]
fn requests_become_what_they_ask_for() {
    let settings = Settings { default_to: Some(b"lobby"[..].into()), ..Settings::default() };
    let original = packet("im-demo", "request_original");
    let decoded = ImDemo::new().decode(&settings, &original, scratch());
    let Ok(Packet::Publish(publish)) = decoded else { panic!("{decoded:?}") };
    assert_eq!(publish.to, Destination::GroupName(b"lobby"));
    assert_eq!(publish.id.as_bytes(), b"");
    let long = Request { id: "x".repeat(65), ..Request::default() };
    assert_eq!(decode(request(long)), refused("", Failure::BadRequest));
    let fits = Request { id: "x".repeat(64), ..Request::default() };
    assert_eq!(decode(request(fits)), refused(&"x".repeat(64), Failure::NoRecipient));
    let unknown = |r#type, op: u8| Request { r#type, payload: vec![8, op], ..Request::default() };
    for unknown in [unknown(3, 0), unknown(1, 3), unknown(2, 5)] {
        assert_eq!(decode(request(unknown)), refused("", Failure::Unsupported));
    }
    let chat = types::Message { to: "bob".into(), chat: 2, ..types::Message::default() };
    let chat = Request { payload: chat.encode_to_vec(), ..Request::default() };
    assert_eq!(decode(request(chat)), refused("", Failure::Unsupported));
    let name = || Box::from(&b"bob"[..]);
    for (op, query) in [
        (types::ContactOp::List, Query::Contacts),
        (types::ContactOp::Add, Query::AddContact(name())),
        (types::ContactOp::Remove, Query::RemoveContact(name())),
    ] {
        let mut out = Vec::new();
        client::contact(op, "bob", "", false, &mut out);
        assert_eq!(decode(&out), Ok(Packet::Query(MessageId::from([]), query)));
    }
    for (op, query) in [
        (0, Query::Groups),
        (2, Query::JoinGroup(name())),
        (3, Query::LeaveGroup(name())),
        (4, Query::Members(name())),
    ] {
        let group = types::Group { op, id: "bob".into(), ..types::Group::default() };
        let mut out = Vec::new();
        client::group(&group, "", false, &mut out);
        assert_eq!(decode(&out), Ok(Packet::Query(MessageId::from([]), query)));
    }
    let users = vec![String::new(); 5000];
    let group = types::Group { op: 1, users, ..types::Group::default() };
    let mut out = Vec::new();
    client::group(&group, "g", false, &mut out);
    assert_eq!(decode(&out), refused("g", Failure::TooMany));
}

#[test]
fn failures_have_their_codes() {
    let code = |why| {
        let id = MessageId::from([]);
        let failed = encode(&ImDemo::new(), &Outgoing::PublishFailed { id, why, to: b"bob" });
        let answered = encode(&ImDemo::new(), &Outgoing::Answer(id, &Answer::Failed(why)));
        assert_eq!(failed, answered);
        response(&failed).code
    };
    assert_eq!(FAILURES.map(code), [2, 4, 5, 6, 7, 8, 9, 10, 2, 3]);
}

#[test]
fn answers_carry_lists() {
    let (id, name) = (MessageId::from(*b"c1"), |name: &str| Box::from(name.as_bytes()));
    let contact = |who, online| Contact { id: UserId(1), name: name(who), online };
    let contacts = Answer::Contacts(vec![contact("bob", true), contact("carol", false)]);
    let group =
        |id| Group { id: name(id), title: name("t"), owner: name("o"), users: vec![name("u")] };
    let groups = Answer::Groups(vec![group("12"), group("team")]);
    let settings = Settings { list_in_reason: true, ..Settings::default() };
    let said = |client: &str, settings: &Settings, answer: &Answer| {
        let mut out = Vec::new();
        after(client).encode(settings, &Outgoing::Answer(id, answer), false, &mut out);
        response(&out)
    };
    for client in ["connect", "connect_ext"] {
        let heard = said(client, &Settings::default(), &contacts);
        assert_eq!((heard.code, &*heard.id, &*heard.reason), (0, "c1", ""));
        let items = types::ContactList::decode(&*heard.payload).unwrap().items;
        let items: Vec<_> = items.iter().map(|item| (&*item.user, item.online)).collect();
        assert_eq!(items, [("bob", true), ("carol", false)]);
        let heard = said(client, &Settings::default(), &groups);
        let items = types::GroupList::decode(&*heard.payload).unwrap().items;
        assert_eq!((&*items[1].id, &*items[1].name, &*items[1].owner), ("team", "t", "o"));
        assert_eq!(items[1].users, ["u"]);
    }
    assert_eq!(said("connect", &settings, &contacts).reason, "bob,carol");
    assert_eq!(said("connect", &settings, &groups).reason, "12,team");
    assert_eq!(said("connect_ext", &settings, &contacts).reason, "");
}

#[test]
fn receipts_are_for_extended_clients() {
    let receipt = Some(Receipt { stamp: 0xabc, time_ms: 1_700_000_000_000, stored: false });
    let ack = Outgoing::PublishAck(PublishKind::User, MessageId::from(*b"m1"), receipt);
    let heard = response(&encode(&after("connect_ext"), &ack));
    assert_eq!((heard.code, &*heard.id), (0, "m1"));
    let receipt = types::MessageAck::decode(&*heard.payload).unwrap();
    assert_eq!(receipt.id, "00000000000000000000000000000abc");
    assert_eq!(receipt.time, 1_700_000_000_000);
    assert_eq!(response(&encode(&after("connect"), &ack)).payload, b"");
}

#[test]
fn group_pushes_name_the_group_as_the_sender_did() {
    let group = Target::Group(GroupKey { id: GroupId(12), ..GroupKey::default() });
    let heard = |message: &Message| {
        let out = encode(&after("connect_ext"), &push(message));
        let Ok(ServerPacket::Push { message, .. }) = client::decode_server(&out) else {
            panic!("a push")
        };
        assert_eq!(message.chat(), ChatType::Group);
        (message.from, message.to)
    };
    let body = |to: &str, chat| {
        types::Message { to: to.into(), chat, ..types::Message::default() }.encode_to_vec()
    };
    let from = "carol".to_owned();
    for (to, chat, shown) in [("team", 1, "team"), ("", 0, "12"), ("#team", 0, "12"), ("", 1, "12")]
    {
        let message = message(group, ProtocolId::ImDemo, &body(to, chat));
        assert_eq!(heard(&message), (from.clone(), shown.to_owned()), "{to} {chat}");
    }
    let message = message(group, ProtocolId::SimpleText, b"hi");
    assert_eq!(heard(&message), (from, "12".to_owned()));
}

#[test]
fn messages_of_other_protocols_arrive_as_text() {
    let heard = |message: &Message| {
        let out = encode(&after("connect"), &Outgoing::Push(Push { message, stored: false }));
        let Ok(ServerPacket::Push { message, .. }) = client::decode_server(&out) else {
            panic!("a push")
        };
        assert_eq!((message.r#type(), &*message.to), (types::MessageType::Txt, "alice"));
        (message.from, types::MessageTxt::decode(&*message.payload).unwrap().txt)
    };
    let from = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let text = message(user(), ProtocolId::SimpleText, "你好".as_bytes());
    assert_eq!(heard(&text), from("carol", "你好"));
    assert_eq!(heard(&Message { body: Box::default(), ..text }), from("carol", ""));
    let nameless = message(user(), ProtocolId::Binary, b"\xff");
    let nameless = Message { from_name: Default::default(), ..nameless };
    assert_eq!(heard(&nameless), from("42", "/w=="));
    assert_eq!(heard(&Message { from: None, ..nameless }), from("", "/w=="));
}

#[test]
fn other_protocols_read_texts_and_images() {
    let content = |body: &str| ImDemo::content(Box::leak(hex(body).into_boxed_slice()));
    assert_eq!(content("12 04 0a 02 68 69 22 03 62 6f 62"), Content::Text("hi"));
    assert_eq!(content("08 01 12 04 0a 02 68 69"), Content::Image("hi"));
    assert_eq!(content(""), Content::Text(""));
    assert_eq!(content("08 02 12 02 68 69"), Content::Opaque(b"hi"));
    assert_eq!(content("12 02 0a 09"), Content::Opaque(b"\x0a\x09"), "no MessageTxt");
    assert_eq!(content("ff"), Content::Opaque(b"\xff"));
}

fn decode(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let decoded = ImDemo::new().decode(&Settings::default(), bytes, scratch());
    decoded.map_err(|error| error.what)
}

fn what(bytes: &[u8]) -> Malformed {
    decode(bytes).expect_err("a malformed packet")
}

fn connect(bytes: &[u8]) -> Connect<'_> {
    match decode(bytes) {
        Ok(Packet::Connect(connect)) => connect,
        other => panic!("{other:?}"),
    }
}

fn refused(id: &str, why: Failure) -> Result<Packet<'static>, Malformed> {
    Ok(Packet::Query(MessageId::new(id.as_bytes()).unwrap(), Query::Refused(why)))
}

/// Whether a message to bob with these options is kept for him.
fn keeps(opts: &str, offline_default: bool) -> bool {
    let settings = Settings { offline_default, ..Settings::default() };
    let mut request = hex("12 05 22 03 62 6f 62");
    request.extend(hex(opts));
    let mut command = vec![0x32, request.len() as u8];
    command.extend(request);
    match ImDemo::new().decode(&settings, &command, scratch()) {
        Ok(Packet::Publish(publish)) => publish.keep,
        other => panic!("{other:?}"),
    }
}

fn request(request: Request) -> &'static [u8] {
    Command { request: Some(request), ..Command::default() }.encode_to_vec().leak()
}

fn alice() -> types::Connect {
    let [org, appkey, user] = ["acme", "dev", "alice"].map(str::to_owned);
    types::Connect { org, appkey, user, ..types::Connect::default() }
}

fn login(connect: types::Connect) -> Vec<u8> {
    let mut out = Vec::new();
    client::connect(connect, false, &mut out);
    out
}

/// The codec of alice's connection, after this login.
fn after(name: &str) -> ImDemo {
    let mut state = ImDemo::new();
    state.decode(&Settings::default(), &packet("im-demo", name), scratch()).unwrap();
    state
}

fn encode(state: &ImDemo, outgoing: &Outgoing<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    state.encode(&Settings::default(), outgoing, false, &mut out);
    out
}

fn response(bytes: &[u8]) -> Response {
    match client::decode_server(bytes) {
        Ok(ServerPacket::Response(response)) => response,
        other => panic!("{other:?}"),
    }
}

fn user() -> Target {
    Target::User(UserKey::default())
}

fn message(to: Target, protocol: ProtocolId, body: &[u8]) -> Message {
    Message {
        stamp: 1,
        id: MessageId::from(*b"m1"),
        from: Some(UserKey { id: UserId(42), ..UserKey::default() }),
        from_name: b"carol"[..].into(),
        to,
        protocol,
        time_ms: 1234,
        body: body.into(),
    }
}

/// Carol has added alice.
fn notice() -> &'static Notice {
    let (name, device) = (b"carol"[..].into(), b""[..].into());
    let (time_ms, news) = (1234, News::ContactAdded);
    Box::leak(Box::new(Notice { by: UserId(42), name, device, time_ms, news }))
}

/// Every word for which something may be written.
fn everything() -> Vec<Outgoing<'static>> {
    let body = hex("12 04 0a 02 68 69");
    let message: &'static Message = Box::leak(Box::new(message(user(), ProtocolId::ImDemo, &body)));
    let id = message.id;
    let receipt = Some(Receipt { stamp: 1, time_ms: 2, stored: false });
    let mut all = vec![
        accepted(),
        Outgoing::Refused(Refusal::BadCredentials),
        Outgoing::PublishAck(PublishKind::User, id, receipt),
        push(message),
        Outgoing::Answer(id, &Answer::Done),
        Outgoing::Notice(1, notice()),
        Outgoing::Ping,
        Outgoing::Pong,
    ];
    all.extend(FAILURES.map(|why| Outgoing::PublishFailed { id, why, to: b"bob" }));
    all.extend(CloseReason::ALL.map(Outgoing::Goodbye));
    all
}

const FAILURES: [Failure; 10] = [
    Failure::NoRecipient,
    Failure::Unknown,
    Failure::NotAllowed,
    Failure::Offline,
    Failure::TooLarge,
    Failure::TooMany,
    Failure::Busy,
    Failure::Exists,
    Failure::BadRequest,
    Failure::Unsupported,
];
