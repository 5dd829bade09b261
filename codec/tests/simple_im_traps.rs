//! The traps of the specification's section 11 that the codec alone can fall into, by the number of
//! their row.

#[path = "common/simple_im.rs"]
mod common;

use codec::protocol::Protocol;
use codec::simple_im::client::{Framer, ServerPacket, decode_server};
use codec::simple_im::{Dialect, Settings};
use codec::{
    Accepted, CloseReason, Decoded, GroupId, MessageId, News, Notice, Outgoing, Packet, ProtocolId,
    PublishKind, Refusal, UserId,
};
use common::{
    Connection, DIALECTS, Heard, Original, TOKEN, To, Value, body, login, message, pushed,
    to_group, to_user,
};

const M: &str = r#"[m] id = "a_02" c = "hello" [m.from] id = 1 device = "android" [m.to] id = 3"#;

/// The login of user `id` as it was heard.
fn connect(id: &str) -> Heard {
    let (name, device) = (id.to_owned(), "android".to_owned());
    Heard::Connect { name, proof: format!("token {TOKEN}"), device }
}

fn accepted() -> Outgoing<'static> {
    Outgoing::Accepted(Accepted {
        user: UserId(5),
        name: b"alice",
        session: 1,
        time_ms: 2,
        heartbeat_s: 0,
    })
}

#[test]
fn simple_im_trap_01_one_line_without_an_end_is_a_packet() {
    let mut connection = Connection::new();
    assert_eq!(connection.receive(login(Dialect::Single).as_bytes()), [connect("1")]);
    assert_eq!(connection.receive(M.as_bytes()), []);
    let publish = Heard::Publish { id: "a_02".into(), to: To::User(3), body: body(b"hello") };
    assert_eq!(connection.quiet(), [publish]);
    assert_eq!(connection.pending(), 0);
}

#[test]
fn simple_im_trap_02_a_user_id_has_quotes_or_none() {
    for id in ["1", "\"1\"", "+1", "\"+1\"", "001", "\"0001\""] {
        let packet = format!(
            "[r] id = \"a_01\" t = \"login\" [r.user] id = {id} device = \"android\" \
             token = \"{TOKEN}\""
        );
        assert_eq!(Connection::new().receive(packet.as_bytes()), [connect("1")], "{id}");
        let packet = format!("[m] id = \"x\" c = \"\" [m.to] id = {id} ");
        let heard = Connection::of(Dialect::Single).receive(packet.as_bytes());
        let publish = Heard::Publish { id: "x".into(), to: To::User(1), body: body(b"") };
        assert_eq!(heard, [publish], "{id}");
    }
    for id in ["-1", "\"\"", "4294967296", "one", "1.5", "[1]", "\"1 \""] {
        let packet = format!("[m] id = \"x\" c = \"\" [m.to] id = {id} ");
        let heard = Connection::of(Dialect::Single).receive(packet.as_bytes());
        assert!(matches!(heard[..], [Heard::Wrong(_)]), "{id}: {heard:?}");
    }
}

#[test]
fn simple_im_trap_03_ids_are_used_again() {
    let mut connection = Connection::of(Dialect::Single);
    assert!(!connection.codec.manners(&connection.settings).unique_ids);
    let twice = [connection.packet(M), connection.packet(M)];
    assert!(matches!(&twice, [Heard::Publish { .. }, Heard::Publish { .. }]));
}

#[test]
fn simple_im_trap_04_packets_leave_one_at_a_time() {
    for dialect in DIALECTS {
        let connection = Connection::of(dialect);
        let manners = connection.codec.manners(&connection.settings);
        assert!(manners.gap_ms > 0 && manners.resends.is_none());
        // One packet per call, and nothing behind it that a second could be mistaken for.
        Original::parse(&connection.push(&message(to_user(3), &body(b"hi"))), dialect);
        Original::parse(connection.send(&accepted()).as_bytes(), dialect);
    }
}

#[test]
fn simple_im_trap_05_escapes_follow_the_receivers_dialect() {
    let said = b"a \"quote\"\\n \\ [m] \n\r\t\0 end\\";
    let flat = b"a 'quote'\\n \\ [m] \n\r\t\0 end\\";
    for dialect in DIALECTS {
        let bytes = Connection::of(dialect).push(&message(to_user(3), &body(said)));
        let expected = if dialect == Dialect::Single { said } else { flat };
        assert_eq!(Original::parse(&bytes, dialect).text("c"), expected, "{dialect:?}");
    }
    // A backslash that a `[[x]]` client sends is a byte.
    let mut connection = Connection::of(Dialect::Flat);
    let heard = connection.packet(r#"[[m]] id = "x" c = "C:\new\" to = 3"#);
    let Heard::Publish { body: sent, .. } = heard else { panic!("{heard:?}") };
    assert_eq!(sent, body(br"C:\new\"));
}

#[test]
fn simple_im_trap_06_replies_echo_id_and_t_and_refusals_say_why() {
    for (dialect, id, t) in
        [(Dialect::Single, "a_04", "reconnect"), (Dialect::Nested, "abc_01", "login")]
    {
        let mut connection = Connection::new();
        let packet = login(dialect).replace("a_01", id).replace("\"login\"", &format!("\"{t}\""));
        assert_eq!(connection.receive(packet.as_bytes()), [connect("1")]);
        let ok = connection.send(&accepted());
        let ok = Original::parse(ok.as_bytes(), dialect);
        assert_eq!((ok.name.as_str(), ok.number("s"), ok.get("r")), ("rr", 0, None));
        assert_eq!((ok.text("id"), ok.text("t")), (id.as_bytes(), t.as_bytes()));
        for refusal in [Refusal::BadCredentials, Refusal::Duplicate, Refusal::UnknownTenant] {
            let refused = connection.send(&Outgoing::Refused(refusal));
            let refused = Original::parse(refused.as_bytes(), dialect);
            assert_eq!((refused.number("s"), refused.text("r")), (1, &b"token error"[..]));
            assert_eq!((refused.text("id"), refused.text("t")), (id.as_bytes(), t.as_bytes()));
        }
    }
}

#[test]
fn simple_im_trap_07_a_replaced_connection_hears_nothing() {
    for reason in CloseReason::ALL {
        assert_eq!(Connection::of(Dialect::Single).send(&Outgoing::Goodbye(reason)), "");
    }
}

#[test]
fn simple_im_trap_09_tokens_are_bytes_of_any_length() {
    for token in ["+/+/", "abcdefghijklmnop", TOKEN, &"x".repeat(2000), "a b%2B=="] {
        let packet = login(Dialect::Single).replace(TOKEN, token);
        let heard = Connection::new().receive(packet.as_bytes());
        let [Heard::Connect { proof, .. }] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(*proof, format!("token {token}"));
    }
}

#[test]
fn simple_im_trap_11_an_ack_is_an_ack_and_nothing_more() {
    for dialect in DIALECTS {
        let mut connection = Connection::of(dialect);
        let mut ack = Vec::new();
        common::client(dialect).ack(&MessageId::new(b"a_02").unwrap(), &mut ack);
        assert_eq!(connection.receive(&ack), [Heard::Ack("a_02".into())]);
        // The echo of our own.
        let id = MessageId::new(b"a_02").unwrap();
        let ours = connection.send(&Outgoing::PublishAck(PublishKind::User, id, None));
        assert_eq!(connection.receive(ours.as_bytes()), [Heard::Ack("a_02".into())]);
    }
}

#[test]
fn simple_im_trap_12_a_group_message_does_not_kill_its_receiver() {
    let group = message(to_group(12), &body(b"hi"));
    for dialect in DIALECTS {
        let mut connection = Connection::of(dialect);
        let knows = matches!(dialect, Dialect::Flat | Dialect::Device);
        let packet = Original::parse(&connection.push(&group), dialect).name;
        assert_eq!(packet, if knows { "gm" } else { "m" }, "{dialect:?}");
        connection.settings = Settings { group_as_message: false, ..Settings::default() };
        assert_eq!(Original::parse(&connection.push(&group), dialect).name, "gm");
    }
}

#[test]
fn simple_im_trap_13_the_addressees_device_and_the_named_sender_mean_nothing() {
    let packet = r#"[m] id = "a_02" c = "hi" [m.from] id = 99 device = "ipad"
        [m.to] id = 3 device = "none""#;
    let heard = Connection::of(Dialect::Single).receive(packet.as_bytes());
    let publish = Heard::Publish { id: "a_02".into(), to: To::User(3), body: body(b"hi") };
    assert_eq!(heard, [publish]);
}

#[test]
fn simple_im_trap_14_brackets_and_tables_follow_the_receiver() {
    let mut bodies = Vec::new();
    for sender in DIALECTS {
        let mut packet = Vec::new();
        let to = codec::simple_im::client::To::User(UserId(3));
        common::client(sender).message(b"a_02", to, b"hello", &mut packet);
        let heard = Connection::of(sender).packet(str::from_utf8(&packet).unwrap());
        let Heard::Publish { body, .. } = heard else { panic!("{heard:?}") };
        bodies.push(body);
    }
    // Nothing of the sender's dialect is left.
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{bodies:?}");
    for dialect in DIALECTS {
        let bytes = Connection::of(dialect).push(&message(to_user(3), &bodies[0]));
        let packet = Original::parse(&bytes, dialect);
        let flat = matches!(dialect, Dialect::Flat | Dialect::Device);
        let (to, from) = if flat { ("to", "from") } else { ("to.id", "from.id") };
        assert_eq!((packet.number(to), packet.number(from)), (3, 1), "{dialect:?}");
        assert_eq!(packet.number("ts"), 1_443_856_541);
        let device = Value::Text(b"android".to_vec());
        let key = if dialect == Dialect::Device { "d" } else { "from.device" };
        let expected = (dialect != Dialect::Flat).then_some(&device);
        assert_eq!(packet.get(key), expected, "{dialect:?}");
        assert_eq!(pushed(&bytes).text, &b"hello"[..]);
    }
}

#[test]
fn simple_im_trap_16_coalesced_packets_come_in_wire_order() {
    for dialect in DIALECTS {
        let client = common::client(dialect);
        let mut stream = login(dialect).into_bytes();
        let to = codec::simple_im::client::To::User(UserId(3));
        for number in 0..50 {
            client.message(format!("m{number}").as_bytes(), to, b"x", &mut stream);
        }
        let mut connection = Connection::new();
        let mut heard = connection.receive(&stream);
        heard.extend(connection.quiet());
        let ids: Vec<_> = heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Publish { id, .. } => Some(id.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(ids, (0..50).map(|number| format!("m{number}")).collect::<Vec<_>>());
        assert_eq!(heard.len(), 51, "{dialect:?}");
    }
}

/// Every change, by user 7 on his `ipad`.
fn notices() -> Vec<Notice> {
    let (to, group, member) = (UserId(1), GroupId(3), UserId(8));
    let news = [
        News::ContactAsked { to, ask: b"it's \"me\""[..].into() },
        News::ContactAccepted { to },
        News::ContactDeleted { to },
        News::GroupCreated { group, key: b"0123456789abcde+"[..].into() },
        News::GroupDeleted { group },
        News::MemberAdded { group, member },
        News::MemberRemoved { group, member },
    ];
    let notice = |news| {
        let (name, device) = (b"bob"[..].into(), b"ipad"[..].into());
        Notice { by: UserId(7), name, device, time_ms: 1_463_900_000_123, news }
    };
    news.into_iter().map(notice).collect()
}

#[test]
fn later_clients_are_told_of_contacts_and_groups_and_earlier_ones_which_would_die_of_it_are_not() {
    let who = "from = 7 to = 1 ts = 1463900000 id = \"n_1463900000\" d = \"ipad\"";
    let group = "from = 7 g_id = 3 ts = 1463900000 id = \"gn_1463900000\" d = \"ipad\"";
    let expected = [
        format!("[[n]] {who} ask = \"it's 'me'\" t = \"add_contact\""),
        format!("[[n]] {who} t = \"accept_contact\""),
        format!("[[n]] {who} t = \"delete_contact\""),
        format!("[[gn]] {group} g_key = \"0123456789abcde+\" t = \"create_group\""),
        format!("[[gn]] {group} t = \"delete_group\""),
        format!("[[gn]] {group} member_id = 8 t = \"create_group_member\""),
        format!("[[gn]] {group} member_id = 8 t = \"delete_group_member\""),
    ];
    for (notice, expected) in notices().iter().zip(expected) {
        for dialect in DIALECTS {
            let knows = matches!(dialect, Dialect::Flat | Dialect::Device);
            let said = Connection::of(dialect).send(&Outgoing::Notice(1, notice));
            assert_eq!(said, if knows { &*expected } else { "" }, "{dialect:?}");
        }
        let Ok(ServerPacket::Notice(heard)) = decode_server(expected.as_bytes()) else {
            panic!("{expected}")
        };
        assert!(expected.contains(&format!(" t = \"{}\"", heard.what.escape_ascii())));
        assert_eq!(heard.from, UserId(7));
        let packet = Framer::new(Dialect::Device).frame(expected.as_bytes(), false);
        assert!(
            matches!(packet, Ok(Decoded::Frame { consumed, .. }) if consumed == expected.len())
        );
    }
}

#[test]
fn the_device_that_made_a_change_is_not_told_of_it_but_the_user_s_others_are() {
    // `Connection` is user 1 with `android`.
    for (by, device, is_told) in [(1, "android", false), (1, "ipad", true), (7, "android", true)] {
        for notice in notices() {
            let notice = Notice { by: UserId(by), device: device.as_bytes().into(), ..notice };
            let said = Connection::of(Dialect::Device).send(&Outgoing::Notice(1, &notice));
            assert_eq!(!said.is_empty(), is_told, "{by} {device}");
        }
    }
    // That somebody has him among his contacts without being asked is unheard of here.
    let added = Notice { news: News::ContactAdded, ..notices().remove(0) };
    assert_eq!(Connection::of(Dialect::Device).send(&Outgoing::Notice(1, &added)), "");
}

/// What has no row: nothing of the gateway's other words reaches these clients.
#[test]
fn words_that_clients_do_not_know_are_not_written() {
    let connection = Connection::of(Dialect::Single);
    let id = MessageId::new(b"a_02").unwrap();
    let why = codec::Failure::Unknown;
    for outgoing in [
        Outgoing::PublishFailed { id, why, to: b"" },
        Outgoing::Joined(b"x"),
        Outgoing::Left(b"x"),
        Outgoing::Present(&[]),
        Outgoing::Answer(id, &codec::Answer::Done),
        Outgoing::Ping,
        Outgoing::Pong,
        Outgoing::Invalid(codec::Malformed::Syntax),
    ] {
        assert_eq!(connection.send(&outgoing), "", "{outgoing:?}");
    }
    assert_eq!(ProtocolId::from_name("simple-im"), Some(ProtocolId::SimpleIm));
    let mut scratch = Vec::new();
    let mut codec = codec::simple_im::SimpleIm::new();
    let packet = codec.decode(&Settings::default(), b"[a] id=\"x\"", &mut scratch);
    assert!(matches!(packet, Ok(Packet::Ack(_))));
}
