//! The open questions and the traps of the simple-text protocol's specification that the codec
//! decides alone, one test per row, numbered as there.

mod common;

use codec::error::Malformed;
use codec::protocol::Protocol;
use codec::simple_text::client::{self, ServerPacket};
use codec::simple_text::{Dialect, Settings, SimpleText};
use codec::{
    CloseReason, Connect, Decoded, Destination, Failure, GroupId, GroupKey, Message, MessageId,
    Outgoing, Packet, Proof, ProtocolId, Refusal, Target, TenantId, UserId, UserKey,
};
use common::{accepted, packet, push, scratch};

#[test]
fn simple_text_ambiguity_01_replies_are_in_both_dialects_and_the_login_tells_which() {
    let message = message(Target::Room(TenantId::default()), "hi");
    for form in ["login_source", "login_doc"] {
        let expected = concat!(
            r#"{"command":"message","result":{"text":"hi","user":"bob","type":"public"},"#,
            r#""messages":[{"user_id":"bob","message":"hi"}]}"#
        );
        assert_eq!(encode(&after(form), &push(&message)), expected, "{form}");
    }
    let forms = [
        ("login_source", Dialect::Source),
        ("login_source_password", Dialect::Source),
        ("login_doc", Dialect::Doc),
        ("login_doc_fields", Dialect::Doc),
        ("login_doc_message", Dialect::Doc),
    ];
    for (form, dialect) in forms {
        let answered = !encode(&after(form), &accepted()).is_empty();
        assert_eq!(answered, dialect == Dialect::Doc, "{form}");
        for only in [Dialect::Source, Dialect::Doc] {
            let settings = Settings { dialect: Some(only), ..Settings::default() };
            let bytes = packet("simple-text", form);
            let decoded = SimpleText::new().decode(&settings, &bytes, scratch());
            assert_eq!(decoded.is_ok(), only == dialect, "{form} where {only:?} is spoken");
        }
    }
}

#[test]
fn simple_text_ambiguity_02_a_line_is_an_object_and_an_object_may_have_several_lines() {
    let objects = ["{\"command\":\"list\"}", "{\r\n  \"command\" :\n\n\t\"list\"\n}"];
    for object in objects {
        for end in ["\n", "\r", "\r\n", " \t\r\n"] {
            assert_eq!(frames(&format!("{object}{end}{object}{end}")), [object; 2]);
        }
        assert_eq!(frames(&format!("{object}{object}\n")), [object; 2], "on one line");
        let unsure = SimpleText::new().frame(&Settings::default(), object.as_bytes(), false);
        assert_eq!(unsure, Ok(Decoded::Unsure));
        let whole = SimpleText::new().frame(&Settings::default(), object.as_bytes(), true);
        let range = Decoded::Frame { value: 0..object.len(), consumed: object.len() };
        assert_eq!(whole, Ok(range), "without a newline, after silence");
    }
}

#[test]
fn simple_text_ambiguity_03_names_in_a_list_are_strings() {
    let names = [b"bob"[..].into(), b"mark"[..].into()];
    assert_eq!(
        encode(&SimpleText::new(), &Outgoing::Present(&names)),
        concat!(
            r#"{"command":"list","result":{"text":"Online list","users":["bob","mark"]},"#,
            r#""list":["bob","mark"]}"#
        )
    );
    assert_eq!(
        encode(&SimpleText::new(), &Outgoing::Present(&[])),
        r#"{"command":"list","result":{"text":"Online list","users":[]},"list":[]}"#
    );
}

#[test]
fn simple_text_ambiguity_05_a_login_is_answered_by_silence_or_by_a_list_of_messages() {
    assert_eq!(encode(&after("login_source"), &accepted()), "");
    let line = r#"{"command":"message","messages":[]}"#;
    assert_eq!(encode(&after("login_doc"), &accepted()), line);
    let mut out = Vec::new();
    after("login_source").encode(&Settings::default(), &accepted(), true, &mut out);
    assert_eq!(out, b"", "not even an end of line");
}

#[test]
fn simple_text_ambiguity_07_characters_are_unicode_scalar_values() {
    for char in ["x", "界", "😀"] {
        assert!(send_chars(char, 140, 140).is_ok(), "{char}");
        assert_eq!(send_chars(char, 141, 140), Err(Malformed::TooLong), "{char}");
    }
    // Two escapes, one character.
    let text = r"\ud83d\ude00".repeat(140);
    assert!(decode(&format!(r#"{{"command":"send","message":"{text}"}}"#)).is_ok());
    assert!(send_chars("x", 10_000, 0).is_ok(), "switched off");
}

#[test]
fn simple_text_ambiguity_08_too_long_a_text_is_refused_as_a_whole() {
    assert_eq!(send_chars("x", 200, 140), Err(Malformed::TooLong));
    let reply = encode(&SimpleText::new(), &Outgoing::Invalid(Malformed::TooLong));
    assert_eq!(failed(&reply), (400, "Message is longer than 140 characters".into()));
}

#[test]
fn simple_text_ambiguity_09_errors_are_404_for_logins_and_400_for_all_else() {
    let code = |outgoing| failed(&encode(&SimpleText::new(), &outgoing)).0;
    for refusal in [Refusal::Duplicate, Refusal::BadCredentials, Refusal::UnknownTenant] {
        assert_eq!(code(Outgoing::Refused(refusal)), 404);
    }
    for what in Malformed::ALL {
        assert_eq!(code(Outgoing::Invalid(what)), 400);
    }
    let id = MessageId::from([]);
    for why in [Failure::Unknown, Failure::Offline, Failure::Busy, Failure::NotAllowed] {
        assert_eq!(code(Outgoing::PublishFailed { id, why, to: b"bob" }), 400);
    }
    assert_eq!(
        encode(&SimpleText::new(), &Outgoing::Invalid(Malformed::LoginFirst)),
        concat!(
            r#"{"command":"fail","result":{"error":400,"reason":"login first"},"#,
            r#""fail":{"error_code":400,"reason":"login first"}}"#
        )
    );
}

#[test]
fn simple_text_ambiguity_10_notices_are_public_messages() {
    let word = |outgoing| encode(&SimpleText::new(), &outgoing);
    assert_eq!(
        word(Outgoing::Joined(b"alice")),
        concat!(
            r#"{"command":"message","result":{"text":"Online !","user":"alice","type":"public"},"#,
            r#""messages":[{"user_id":"alice","message":"Online !"}]}"#
        )
    );
    assert_eq!(
        word(Outgoing::Left(b"alice")),
        concat!(
            r#"{"command":"message","result":{"text":"Offline !","user":"alice","type":"public"},"#,
            r#""messages":[{"user_id":"alice","message":"Offline !"}]}"#
        )
    );
}

#[test]
fn simple_text_ambiguity_11_exit_ends_the_session_in_both_forms() {
    for form in ["exit", "{\"command\":\"exit\"}", r#"{"command":"exit","message":"exit"}"#] {
        assert_eq!(decode(form), Ok(Packet::Disconnect), "{form}");
    }
    assert_eq!(frames("exit\r\n"), ["exit"]);
    for other in ["exit now", "Exit", "\"exit\""] {
        assert_eq!(decode(other), Err(Malformed::Syntax), "{other}");
    }
}

#[test]
fn simple_text_ambiguity_13_a_second_login_of_the_same_user_means_nothing() {
    let settings = Settings::default();
    let mut text = after("login_doc");
    for form in ["login_source", "login_doc", "login_doc_fields"] {
        let bytes = packet("simple-text", form);
        let again = text.decode(&settings, &bytes, scratch());
        assert!(matches!(again, Ok(Packet::Connect(_))), "{form}: the first one does not hold yet");
    }
    text.accepted();
    for form in ["login_source", "login_doc", "login_doc_fields"] {
        let bytes = packet("simple-text", form);
        assert_eq!(text.decode(&settings, &bytes, scratch()), Ok(Packet::Nothing), "{form}");
    }
    let other = text.decode(&settings, br#"{"command":"login bob/x"}"#, scratch());
    assert!(matches!(other, Ok(Packet::Connect(connect)) if connect.name == b"bob"));
    assert_eq!(failed(&encode(&text, &Outgoing::Refused(Refusal::Duplicate))).0, 404);
    let bytes = packet("simple-text", "login_source");
    assert_eq!(text.decode(&settings, &bytes, scratch()), Ok(Packet::Nothing), "still alice");
}

#[test]
fn simple_text_trap_01_every_line_for_the_original_client_has_a_result() {
    for outgoing in everything() {
        for form in ["login_source", "login_source_password"] {
            let mut out = Vec::new();
            after(form).encode(&Settings::default(), &outgoing, true, &mut out);
            if out.is_empty() {
                continue;
            }
            let line = std::str::from_utf8(&out).unwrap().strip_suffix("\r\n").unwrap();
            assert!(!line.contains(['\r', '\n']), "{line:?}");
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["result"].is_object(), "{line}");
        }
    }
}

#[test]
fn simple_text_trap_02_a_login_needs_no_password() {
    let bytes = packet("simple-text", "login_source");
    let connect = connect(std::str::from_utf8(&bytes).unwrap());
    assert_eq!(connect.name, b"alice");
    assert!(connect.proof == Proof::Nothing);
}

#[test]
fn simple_text_trap_03_to_means_nothing_in_a_list_request() {
    for to in ["\"*\"", "\"\"", "\"bob\"", "null", "7"] {
        let line = format!(r#"{{ "command": "list", "message": "list", "to": {to}}}"#);
        assert_eq!(decode(&line), Ok(Packet::WhoIsHere), "{to}");
    }
}

#[test]
fn simple_text_trap_04_private_without_a_name_is_refused() {
    let is_public = |to: &str| {
        let line = format!(r#"{{"command":"send","message":"hi"{to}}}"#);
        let room = Destination::Room;
        decode(&line).map(|packet| matches!(packet, Packet::Publish(publish) if publish.to == room))
    };
    assert_eq!(is_public(r#","to":"""#), Err(Malformed::Field));
    assert_eq!(is_public(r#","to":7"#), Err(Malformed::Field));
    assert_eq!(is_public(r#","to":{}"#), Err(Malformed::Field));
    for everybody in ["", r#","to":"*""#, r#","to":null"#, r#","to":"bob","to":"*""#] {
        assert_eq!(is_public(everybody), Ok(true), "{everybody}");
    }
}

#[test]
fn simple_text_trap_05_everything_is_escaped() {
    let nasty = "\"quote\"\\\n\r\t\0\u{1b}\u{7f}\u{2028}你😀";
    for outgoing in [
        push(&Message { from_name: nasty.as_bytes().into(), ..message(user(), nasty) }),
        Outgoing::Joined(nasty.as_bytes()),
        Outgoing::Left(nasty.as_bytes()),
        Outgoing::Present(&[nasty.as_bytes().into()]),
        Outgoing::PublishFailed {
            id: MessageId::from([]),
            why: Failure::Unknown,
            to: nasty.as_bytes(),
        },
    ] {
        let line = encode(&SimpleText::new(), &outgoing);
        assert!(!line.contains(|char: char| char < ' '), "{line:?}");
        let heard = format!("{:?}", client::decode_server(line.as_bytes()).unwrap());
        assert!(heard.contains(format!("{nasty:?}").trim_matches('"')), "{heard}");
    }
    // And the escapes that come in are undone.
    let line = format!(r#"{{"command":"send","message":{}}}"#, serde_json::json!(nasty));
    let Ok(Packet::Publish(publish)) = decode(&line) else { panic!("{line}") };
    assert_eq!(publish.body, nasty.as_bytes());
}

#[test]
fn simple_text_trap_06_a_typed_quote_spoils_its_line_and_no_other() {
    for typed in ["\"", "say \"no\"", "\\", "\\q", "\"}", "{\"a\":1}", "\"]", "\u{7}"] {
        let line = format!(r#"{{ "command": "send", "message": "{typed}", "to": "*"}}"#);
        let list = r#"{ "command": "list", "message": "list", "to": "*"}"#;
        for end in ["\r\n", "\n", "\r"] {
            let found = frames(&format!("{line}{end}{list}{end}"));
            assert_eq!(found.last().map(|last| &**last), Some(list), "{typed}");
            for bad in &found[..found.len() - 1] {
                assert!(decode(bad).is_err(), "{typed}: {bad}");
            }
        }
    }
    // A raw newline in a string ends the line, too.
    let found = frames("{\"command\":\"send\",\"message\":\"a\nb\"}\n{\"command\":\"list\"}\n");
    assert_eq!(found, ["{\"command\":\"send\",\"message\":\"a", "b\"}", "{\"command\":\"list\"}"]);
}

#[test]
fn simple_text_trap_07_lone_surrogates_are_refused() {
    for escape in [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800x", r"\ud83d\u0041"] {
        let line = format!(r#"{{"command":"send","message":"{escape}"}}"#);
        assert_eq!(decode(&line), Err(Malformed::Syntax), "{escape}");
        assert_eq!(frames(&format!("{line}\n")), [line], "one request");
    }
}

#[test]
fn simple_text_trap_08_raw_text_is_refused_and_typed_json_is_understood() {
    let input = "hello there\r\nlist\r\n{\"command\":\"list\"}\r\n[1]\r\n\"x\"\r\n";
    let found = frames(input);
    assert_eq!(found, ["hello there", "list", "{\"command\":\"list\"}", "[1]", "\"x\""]);
    let decoded: Vec<_> = found.iter().map(|line| decode(line)).collect();
    let refused = Err(Malformed::Syntax);
    assert_eq!(
        decoded,
        [refused.clone(), refused.clone(), Ok(Packet::WhoIsHere), refused.clone(), refused]
    );
    let reply = encode(&SimpleText::new(), &Outgoing::Invalid(Malformed::Syntax));
    assert_eq!(failed(&reply), (400, "Failed while processing the request".into()));
}

#[test]
fn simple_text_trap_09_numbers_are_numbers_and_texts_are_strings() {
    for outgoing in everything() {
        let line = encode(&after("login_source"), &outgoing);
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        let result = &value["result"];
        match value["command"].as_str().unwrap() {
            "message" => {
                assert!(["text", "user", "type"].iter().all(|key| result[key].is_string()));
            }
            "fail" => {
                assert!(result["error"].is_u64() && value["fail"]["error_code"].is_u64());
                assert!(result["reason"].is_string() && value["fail"]["reason"].is_string());
            }
            "list" => {
                let names = result["users"].as_array().unwrap();
                assert!(result["text"].is_string() && names.iter().all(|name| name.is_string()));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn names_follow_the_rules() {
    let check = |name: &str| {
        let line = format!(r#"{{"command":"login","user":{}}}"#, serde_json::json!(name));
        SimpleText::check_connect(&Settings::default(), &connect(&line))
    };
    let long = "x".repeat(64);
    for good in ["a", "alice", "dummy", "你好", "a*b", "#a", &long] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    let long = "x".repeat(65);
    for bad in ["", "*", "a b", "a\u{3000}b", "a\tb", "a/b", "a\"b", "a\0", "a\u{7f}", &long] {
        assert_eq!(check(bad), Err(Refusal::BadCredentials), "{bad:?}");
    }
    // The original server takes these for a missing name.
    for inner in [r#"{}"#, r#"{"user":"dummy"}"#, r#"{"user":7}"#, r#"{"user":null}"#] {
        let line = format!(r#"{{"command":"login","message":{inner}}}"#);
        let checked = SimpleText::check_connect(&Settings::default(), &connect(&line));
        assert_eq!(checked, Err(Refusal::BadCredentials), "{inner}");
    }
}

#[test]
fn requests_out_of_the_grammar_are_refused() {
    use Malformed::{Field, Syntax, UnknownCommand};
    for (line, what) in [
        (r#"{}"#, Field),
        (r#"{"command":7}"#, Field),
        (r#"{"command":null}"#, Field),
        (r#"{"command":"fail","message":""}"#, UnknownCommand),
        (r#"{"command":"LIST"}"#, UnknownCommand),
        (r#"{"command":"login"}"#, Field),
        (r#"{"command":"login","message":7}"#, Field),
        (r#"{"command":"login","message":{"user":"alice","password":7}}"#, Field),
        (r#"{"command":"login","user":"alice","password":[]}"#, Field),
        (r#"{"command":"send"}"#, Field),
        (r#"{"command":"send","message":null}"#, Field),
        (r#"{"command":"send","message":{"user":"alice"}}"#, Field),
        (r#"{"command":"send","message":[1]}"#, Field),
        (r#"{"command":"send","message":"a" "to":"b"}"#, Syntax),
        (r#"{"command":"list"} x"#, Syntax),
        (r#"{"command":"list",}"#, Syntax),
        ("\u{feff}{\"command\":\"list\"}", Syntax),
    ] {
        assert_eq!(decode(line), Err(what), "{line}");
    }
    let settings = Settings::default();
    let text = b"{\"command\":\"send\",\"message\":\"\xff\"}";
    let decoded = SimpleText::new().decode(&settings, text, scratch());
    assert_eq!(decoded.map_err(|error| error.what), Err(Syntax));
}

#[test]
fn pushes_say_who_wrote_and_to_whom() {
    let shown = |message: &Message| {
        let line = encode(&SimpleText::new(), &push(message));
        match client::decode_server(line.as_bytes()) {
            Ok(ServerPacket::Message { user, text, private, group }) => {
                (user.into_owned(), text.into_owned(), private, group.map(|id| id.into_owned()))
            }
            other => panic!("{other:?}"),
        }
    };
    let said = |user: &str, private, group: Option<&str>| {
        (user.to_owned(), "hi".to_owned(), private, group.map(str::to_owned))
    };
    assert_eq!(shown(&message(user(), "hi")), said("bob", true, None));
    let room = Target::Room(TenantId::default());
    assert_eq!(shown(&message(room, "hi")), said("bob", false, None));
    let group = Target::Group(GroupKey { id: GroupId(u32::MAX), ..GroupKey::default() });
    assert_eq!(shown(&message(group, "hi")), said("bob", false, Some("4294967295")));
    let nameless = Message { from_name: Default::default(), ..message(user(), "hi") };
    assert_eq!(shown(&nameless), said("42", true, None));
    assert_eq!(shown(&Message { from: None, ..nameless }), said("server", true, None));
    let bytes = Message { body: b"\xff"[..].into(), ..message(user(), "") };
    assert_eq!(shown(&bytes).1, "/w==", "base64");
}

#[test]
fn failed_publishes_are_told_in_the_original_s_words() {
    let id = MessageId::from([]);
    for why in [Failure::Unknown, Failure::Offline] {
        let reply = encode(&SimpleText::new(), &Outgoing::PublishFailed { id, why, to: b"bob" });
        assert_eq!(failed(&reply).1, "User <bob> is offline or user doesn't exists.");
    }
}

fn decode(line: &str) -> Result<Packet<'_>, Malformed> {
    let decoded = SimpleText::new().decode(&Settings::default(), line.as_bytes(), scratch());
    decoded.map_err(|error| error.what)
}

fn connect(line: &str) -> Connect<'_> {
    match decode(line) {
        Ok(Packet::Connect(connect)) => connect,
        other => panic!("{other:?}"),
    }
}

/// A text of `count` characters where `max_chars` are allowed.
fn send_chars(char: &str, count: usize, max_chars: u32) -> Result<(), Malformed> {
    let settings = Settings { max_chars, ..Settings::default() };
    let mut line = Vec::new();
    client::send(None, &char.repeat(count), &mut line);
    let decoded = SimpleText::new().decode(&settings, &line, scratch());
    decoded.map(drop).map_err(|error| error.what)
}

/// All requests of a stream that ends with a whole line.
fn frames(input: &str) -> Vec<String> {
    let mut text = SimpleText::new();
    let (mut found, mut rest) = (Vec::new(), input.as_bytes());
    while let Ok(Decoded::Frame { value, consumed }) = text.frame(&Settings::default(), rest, false)
    {
        found.push(String::from_utf8(rest[value].to_vec()).unwrap());
        rest = &rest[consumed..];
    }
    assert_eq!(rest, b"");
    found
}

/// The codec of a connection that sent this login.
fn after(form: &str) -> SimpleText {
    let mut text = SimpleText::new();
    text.decode(&Settings::default(), &packet("simple-text", form), scratch()).unwrap();
    text
}

fn encode(text: &SimpleText, outgoing: &Outgoing<'_>) -> String {
    let mut out = Vec::new();
    text.encode(&Settings::default(), outgoing, false, &mut out);
    String::from_utf8(out).unwrap()
}

fn failed(line: &str) -> (u16, String) {
    match client::decode_server(line.as_bytes()) {
        Ok(ServerPacket::Fail { code, reason }) => (code, reason.into_owned()),
        other => panic!("{other:?}"),
    }
}

fn user() -> Target {
    Target::User(UserKey::default())
}

fn message(to: Target, text: &str) -> Message {
    Message {
        stamp: 1,
        id: MessageId::from([]),
        from: Some(UserKey { id: UserId(42), ..UserKey::default() }),
        from_name: b"bob"[..].into(),
        to,
        protocol: ProtocolId::SimpleText,
        time_ms: 2,
        body: text.as_bytes().into(),
    }
}

/// Every word for which something may be written.
fn everything() -> Vec<Outgoing<'static>> {
    let message: &'static Message = Box::leak(Box::new(message(user(), "hi")));
    let names: &'static [Box<[u8]>] = Box::leak(vec![b"bob"[..].into()].into_boxed_slice());
    let mut all = vec![
        accepted(),
        push(message),
        Outgoing::Joined(b"bob"),
        Outgoing::Left(b"bob"),
        Outgoing::Present(names),
        Outgoing::Present(&[]),
        Outgoing::Refused(Refusal::BadCredentials),
        Outgoing::Ping,
        Outgoing::Pong,
    ];
    all.extend(Malformed::ALL.map(Outgoing::Invalid));
    all.extend(CloseReason::ALL.map(Outgoing::Goodbye));
    all
}
