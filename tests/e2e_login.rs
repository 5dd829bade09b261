//! Logins through the real program: who may in, by which authority, over which transport, and the
//! way to the home shard.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use codec::PublishKind::User;
use codec::binary::client::Tail;
use common::{
    Ask, Client, Door, Gateway, ImClient, Seen, Setup, Stream, Want, connect_packet, hear, id,
};

#[track_caller]
fn expect_denied(gateway: &Gateway, name: &str, password: &str) {
    let mut client = gateway.dial();
    client.send(connect_packet(name, password, Tail::Plain));
    client.expect(Seen::ConnectAck(3));
    client.expect_close(1000);
}

#[test]
fn local_users_log_in_with_their_password_and_nobody_else_does() {
    let gateway = Setup::new().shards(2).local_users(3).start();
    let mut ann = gateway.login(1);
    let mut ben = gateway.login(2);
    expect_denied(&gateway, "u1", "wrong");
    expect_denied(&gateway, "U1", "secret");
    expect_denied(&gateway, "nobody", "secret");
    // Who was refused has not disturbed who is in.
    ann.publish(Want::User(2), id(1), "hello");
    ben.take_push(id(1), "hello");
    ann.expect_ack(User, id(1));
    gateway.site().good(&["user", "add", "--id", "77", "--name", "late", "--password", "x"]);
    let mut late = gateway.dial();
    late.login("late", "x", Tail::Plain);
    ann.publish(Want::User(77), id(2), "welcome");
    late.take_push(id(2), "welcome");
}

#[test]
fn open_mode_takes_any_password_and_makes_users_on_the_fly() {
    let gateway = Setup::new().shards(2).start();
    let mut named = gateway.dial();
    named.login("demo|##|h5|##|1001", "", Tail::Role(b'2'));
    let mut ann = gateway.login(1);
    ann.publish(Want::User(1001), id(1), "your name ends in your number");
    named.take_push(id(1), "your name ends in your number");
}

#[test]
fn unknown_vhost_is_refused_with_its_code() {
    let gateway = Setup::new().set("protocol.binary.vhosts", "[\"com.example\"]").start();
    let mut known = gateway.dial();
    known.login("u1", "x", Tail::Vhost(b"com.example"));
    let mut unknown = gateway.dial();
    unknown.send(connect_packet("u1", "x", Tail::Vhost(b"com.other")));
    unknown.expect(Seen::ConnectAck(2));
    unknown.expect_close(1000);
}

#[test]
fn silent_connections_end_at_the_login_deadline() {
    let gateway = Setup::new().set("limits.login_deadline_ms", 300).start();
    gateway.dial().expect_close(1008);
    // Before the upgrade there is no ws to close.
    gateway.tcp().expect(Seen::End);
}

/// The user centre: answers what the test says, and shows what was asked.
struct Centre {
    address: SocketAddr,
    asked: Receiver<(String, String)>,
}

impl Centre {
    /// `answer` gets the body of the request and gives status and body.
    fn start(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (tell, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let Some((head, body)) = request(&stream) else { continue };
                let (status, text) = answer(&body);
                let length = text.len();
                let head_line = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n");
                let reply = format!("{head_line}Connection: close\r\n\r\n{text}");
                let sent = (&stream).write_all(reply.as_bytes());
                if tell.send((head, body)).is_err() || sent.is_err() {
                    return;
                }
            }
        });
        Self { address, asked }
    }

    fn setup(&self) -> Setup {
        let url = format!("\"http://{}/auth\"", self.address);
        Setup::new().shards(2).set("auth.mode", "\"http\"").set("auth.http_url", url)
    }
}

/// Head, in lower case, and body.
fn request(stream: &TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

#[test]
fn user_centre_decides_and_names_the_user() {
    let centre = Centre::start(|body| {
        let pass = body.contains("password=a%2Bb+c");
        let verdict =
            if pass { r#"{"result":"pass","uid":1234}"# } else { r#"{"result":"denied"}"# };
        (200, verdict.to_owned())
    });
    let gateway = centre.setup().start();
    let mut client = gateway.dial();
    client.login("xyb|##|app|##|1234", "a+b c", Tail::Terminal { role: 2, client: 2 });
    let (head, body) = hear(&centre.asked, "the user centre is asked");
    assert!(head.starts_with("post /auth http/1.1\r\n"), "{head}");
    assert!(head.contains("accept: application/json"), "{head}");
    assert_eq!(body, "username=xyb%7C%23%23%7Capp%7C%23%23%7C1234&password=a%2Bb+c&role=2");
    expect_denied(&gateway, "xyb|##|app|##|1234", "wrong");
    let (_, body) = hear(&centre.asked, "the user centre is asked");
    assert!(!body.contains("role"), "no role came with the login: {body}");
    // The uid is the user's address, whatever his name.
    let mut other = gateway.dial();
    other.login("another name", "a+b c", Tail::Plain);
    other.note_to_self(1234, id(1), "to 1234");
    client.take_push(id(1), "to 1234");
    assert!(!gateway.log().contains("a+b c") && !gateway.log().contains("a%2Bb"));
}

#[test]
fn user_centre_decides_about_the_http_login_too_and_open_logins_share_their_ids() {
    let centre = Centre::start(|body| {
        let verdict = match body {
            "username=18500000009&password=right" => r#"{"result":"pass","uid":1234}"#,
            _ => r#"{"result":"denied"}"#,
        };
        (200, verdict.to_owned())
    });
    let gateway = centre.setup().everyone().start();
    let login = |gateway: &Gateway, body: &str| {
        Ask::post("/server/login", body).send(gateway.site().http())
    };
    let told = login(&gateway, "phone=18500000009&password=wrong");
    assert_eq!(told.text(), "[response] status = 1");
    let told = login(&gateway, "phone=18500000009&password=right");
    assert!(told.text().ends_with(" id = 1234"), "{told:?}");
    ImClient::dial(&gateway, 1234, "android").login(&told.quoted("token"));
    // Neither name has a number of its own: who comes first has the first id, whichever way.
    let gateway = Setup::new().everyone().start();
    let told = login(&gateway, "phone=alice&password=any");
    let id = told.text().rsplit(' ').next().and_then(|id| id.parse::<u32>().ok());
    let id = id.unwrap_or_else(|| panic!("{told:?}"));
    let mut bob = gateway.dial();
    bob.login("bob", "any", Tail::Plain);
    let mut alice = gateway.dial();
    alice.login("alice", "any", Tail::Plain);
    bob.publish(Want::User(id), common::id(1), "hello");
    alice.take_push(common::id(1), "hello");
    bob.expect_ack(User, common::id(1));
}

#[test]
fn user_centre_that_is_down_gives_no_verdict_and_is_asked_again() {
    // 1013 without an acknowledgement: clients come back, which they do not after a refusal.
    let dead = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = dead.local_addr().expect("it is bound");
    drop(dead);
    let url = format!("\"http://{address}/auth\"");
    let down = Setup::new().set("auth.mode", "\"http\"").set("auth.http_url", url).start();
    let mut client = down.dial();
    client.send(connect_packet("u1", "x", Tail::Plain));
    client.expect_close(1013);

    for answer in [(500, "{\"result\":\"pass\",\"uid\":1}"), (200, "nonsense"), (200, "{}")] {
        let centre = Centre::start(move |_| (answer.0, answer.1.to_owned()));
        let gateway = centre.setup().start();
        let mut client = gateway.dial();
        client.send(connect_packet("u1", "x", Tail::Plain));
        client.expect_close(1013);
    }
}

#[test]
fn wss_carries_everything_that_ws_does() {
    let gateway = Setup::new().shards(3).start();
    let mut clients: Vec<Client> = (1..=6)
        .map(|user| {
            let mut client = gateway.dial_wss();
            client.login(&format!("u{user}"), "x", Tail::Plain);
            client
        })
        .collect();
    let body = "long ".repeat(6000);
    for n in 0..6_usize {
        let to = (n + 1) % 6;
        clients[n].publish(Want::User(to as u32 + 1), id(n as u32), &body);
        clients[to].take_push(id(n as u32), &body);
        clients[n].expect_ack(User, id(n as u32));
    }
    let pinger = clients.pop().expect("six");
    pinger.close();
    assert!(gateway.metric("ringpost_handed_over_total") > 0, "six users live on three shards");
}

#[test]
fn what_follows_the_login_in_the_same_segment_goes_with_the_connection() {
    // Goal: nothing is lost or reordered in a hand-over. Method: login and publishes in one write,
    // from many connections to users homed on every shard, over every transport.
    let gateway = Setup::new().shards(3).patient().start();
    const CLIENTS: u32 = 60;
    const EACH: u32 = 20;
    let publishes = |from: u32| {
        let to = Want::User(1000 + (from + 1) % CLIENTS);
        (0..EACH).map(move |n| to.publish(id(from * 100 + n), format!("{from} {n}").as_bytes()))
    };
    let connect = |from: u32| connect_packet(&format!("u{}", 1000 + from), "x", Tail::Plain);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|from| {
            let mut client = if from % 4 == 0 { gateway.dial_wss() } else { gateway.dial() };
            client.send_together(std::iter::once(connect(from)).chain(publishes(from)));
            client
        })
        .collect();
    for (from, client) in (0..).zip(&mut clients) {
        client.expect_accepted();
        let sender = (from + CLIENTS - 1) % CLIENTS;
        let mut acks = (0..EACH).map(|n| id(from * 100 + n));
        let mut pushes = (0..EACH).map(|n| id(sender * 100 + n));
        let (mut acked, mut pushed) = (0, 0);
        while acked < EACH || pushed < EACH {
            match client.next() {
                Seen::Ack(User, id) => {
                    assert_eq!(Some(id), acks.next(), "acknowledgements in order");
                    acked += 1;
                }
                Seen::Push { id, .. } => {
                    assert_eq!(Some(id), pushes.next(), "pushes in order");
                    client.ack(User, id);
                    pushed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(gateway.metric("ringpost_handed_over_total") > 0);
    assert_eq!(gateway.metric("ringpost_hand_overs_failed_total"), 0);
}

#[test]
fn login_in_pieces_is_a_login() {
    let gateway = Setup::new().shards(3).start();
    for user in 1..=6 {
        let mut client = gateway.tcp();
        let mut bytes = Vec::new();
        let packet = connect_packet(&format!("u{user}"), "x", Tail::Plain);
        codec::binary::stream::framed(true, &mut bytes, |out| out.extend(&packet));
        for byte in bytes {
            client.send_bytes(&[byte]);
        }
        client.expect(Seen::ConnectAck(0));
        assert_eq!(client.see(Duration::from_millis(10)), None);
    }
}

#[test]
fn other_paths_and_plain_http_are_refused() {
    let gateway = Setup::new().start();
    for (path, status) in [("/ws", "101"), ("/", "404"), ("/elsewhere", "404")] {
        let mut stream = TcpStream::connect(gateway.site().ws()).expect("it listens");
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a time-out");
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
        let head = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade";
        let request = format!("GET {path} HTTP/1.1\r\n{head}\r\n{key}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {line}");
    }
}

#[test]
fn both_protocols_are_served_on_every_transport() {
    let gateway = Setup::new()
        .shards(2)
        .listener("binary", "tls")
        .listener("binary-publish", "tls")
        .listener("binary-publish", "ws")
        .listener("binary-publish", "wss")
        .start();
    let address = |at| gateway.site().listener(at);
    let mut client = Door::new(Stream::tls(address(0), true));
    client.send([&connect_packet("u1", "x", Tail::Plain)[..]]);
    client.expect(Seen::ConnectAck(0));
    client.publish(Want::User(7), id(0), "from a client on tls");
    client.expect_ack(User, id(0));

    let mut door = Door::new(Stream::tls(address(1), true));
    door.publish(Want::User(7), id(1), "through the door on tls");
    door.expect_ack(User, id(1));
    let ws = Client::upgrade(Stream::plain(address(2)), "ws://localhost/ws");
    let wss = Client::upgrade(Stream::tls(address(3), true), "wss://localhost/wss");
    for (mut door, n) in [(ws, 2), (wss, 3)] {
        door.publish_safely(Want::User(7), id(n), "through the door on ws");
    }
    assert_eq!(gateway.login(7).take_pushes(4), [id(0), id(1), id(2), id(3)]);
}
