//! Goal: the gateway starts, reloads and stops as its operator and its service manager expect, and
//! nothing acknowledged depends on how it stops.
//!
//! Method: signals, files and wrong configurations given to the real program; what clients, the
//! admin address, the notification socket and the exit code show of it.

mod common;
mod fault;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use codec::PublishKind;
use codec::binary::client::Tail;
use common::{Gateway, PATIENCE, Seen, Setup, Site, Stream, Want, eventually, id};
use fault::{Healthy, Process, collect};

/// `node.drain_ms` of these tests.
const DRAIN: Duration = Duration::from_secs(8);

fn setup() -> Setup {
    Setup::new().set("node.drain_ms", DRAIN.as_millis())
}

#[test]
fn last_words_arrive_over_tls_before_its_own_goodbye() {
    let gateway = setup().start();
    let mut old = gateway.dial_wss();
    old.login("u3", "", Tail::Terminal { role: 2, client: 2 });
    let mut new = gateway.dial_wss();
    new.login("u3", "", Tail::Terminal { role: 2, client: 2 });
    old.expect(Seen::Logout);
    old.expect_close(1000);
    gateway.signal("TERM");
    new.expect_close(1001);
    assert_eq!(stopped(gateway).0, Some(0));
}

#[test]
fn a_drain_says_goodbye_with_1001_exits_with_0_and_keeps_what_was_not_acknowledged() {
    let gateway = setup().shards(2).start();
    let (mut ann, mut ben) = (gateway.login(1), gateway.login(2));
    let mut unknown = gateway.dial();
    // Stored already when the drain comes, and in flight when it comes.
    ann.publish(Want::User(2), id(1), "stored behind his silence");
    ben.expect_push(id(1), "stored behind his silence");
    ann.expect_ack(PublishKind::User, id(1));
    ann.publish(Want::User(2), id(2), "under way");
    ben.expect_push(id(2), "under way");
    let start = Instant::now();
    gateway.signal("TERM");
    unknown.expect_close(1001);
    ben.expect_close(1001);
    // The drain may have stored the message before Ann's connection ended, or behind it.
    match ann.next() {
        Seen::Ack(PublishKind::User, safe) => {
            assert_eq!(safe, id(2));
            ann.expect_close(1001);
        }
        other => assert_eq!(other, Seen::Close(Some(1001))),
    }
    let (status, site) = stopped(gateway);
    assert_eq!(status, Some(0));
    assert!(start.elapsed() < DRAIN, "everybody said goodbye; it took {:?}", start.elapsed());
    let gateway = site.start();
    let mut ben = gateway.login(2);
    let seen = collect(&mut ben, &[id(1), id(2)]);
    assert_eq!(seen[0], (id(1), b"stored behind his silence".to_vec()));
    assert_eq!(seen[1], (id(2), b"under way".to_vec()));
}

#[test]
fn peers_that_say_nothing_do_not_delay_a_drain_beyond_its_bound() {
    let gateway = setup().shards(2).start();
    let clients: Vec<_> = (1..=20).map(|user| gateway.login(user)).collect();
    let sockets: Vec<_> = (0..20).map(|_| Stream::plain(gateway.site().tcp())).collect();
    let mut handshakes = Vec::new();
    for _ in 0..5 {
        handshakes.push(Stream::plain(gateway.site().wss()));
    }
    let start = Instant::now();
    gateway.signal("TERM");
    let (status, _) = stopped(gateway);
    assert_eq!(status, Some(0));
    assert!(start.elapsed() < DRAIN, "{:?}", start.elapsed());
    drop((clients, sockets, handshakes));
}

#[test]
fn a_drain_under_load_ends_in_time_and_loses_nothing_acknowledged() {
    let gateway = setup().shards(2).start();
    let mut ben = gateway.login(20);
    let (told, tells) = std::sync::mpsc::channel();
    let sender = |user: u32| {
        let (mut client, told) = (gateway.login(user), told.clone());
        std::thread::spawn(move || {
            let mut safe = Vec::new();
            for number in user * 1_000_000.. {
                // To somebody on each shard, there and not there.
                let to = Want::User(20 + number % 4);
                let message = id(number);
                if !fault::try_send(&mut client, to.publish(message, b"in the rush")) {
                    return safe;
                }
                loop {
                    match client.see(PATIENCE) {
                        Some(Seen::Ack(_, known)) if known == message => break,
                        Some(Seen::Close(_)) => {}
                        Some(Seen::End) => return safe,
                        other => panic!("{other:?} to a sender"),
                    }
                }
                safe.push((20 + number % 4, message));
                // Nobody listens once the test has heard enough.
                let _ = told.send(());
            }
            safe
        })
    };
    let senders: Vec<_> = (1..=6).map(sender).collect();
    let reader = std::thread::spawn(move || {
        let mut taken = Vec::new();
        loop {
            match ben.see(PATIENCE) {
                Some(Seen::Push { id, .. }) => {
                    let mut packet = Vec::new();
                    codec::binary::client::ack(PublishKind::User, &id, &mut packet);
                    taken.push(id);
                    fault::try_send(&mut ben, packet);
                }
                Some(Seen::Close(_)) => {}
                Some(Seen::End) => return taken,
                other => panic!("{other:?} to a receiver"),
            }
        }
    });
    for _ in 0..200 {
        common::hear(&tells, "messages become safe");
    }
    let start = Instant::now();
    gateway.signal("TERM");
    let (status, site) = stopped(gateway);
    let took = start.elapsed();
    assert_eq!(status, Some(0));
    assert!(took < DRAIN, "the drain took {took:?}");
    let taken = reader.join().expect("no surprise");
    let safe: Vec<_> =
        senders.into_iter().flat_map(|sender| sender.join().expect("no surprise")).collect();
    let gateway = site.start();
    for user in 20..24 {
        let owed = safe.iter().filter(|(to, id)| *to == user && !taken.contains(id));
        let owed: Vec<_> = owed.map(|(_, id)| *id).collect();
        collect(&mut gateway.login(user), &owed);
    }
    println!("drained in {took:?}; {} acknowledged messages, none lost", safe.len());
}

#[test]
fn readiness_ends_before_the_clients_connections_do() {
    let gateway = setup().start();
    let mut ann = gateway.login(1);
    assert_eq!(gateway.get("/readyz").0, 200);
    assert_eq!(gateway.get("/healthz").0, 200);
    gateway.signal("TERM");
    // Her Close waits for an answer: until she gives it, the drain goes on.
    assert!(ann.socket.read().expect("a message").is_close());
    let (status, text) = gateway.get("/readyz");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("draining"), "{text}");
    assert_eq!(stopped(gateway).0, Some(0));
}

#[test]
fn the_service_manager_hears_ready_reloading_stopping_and_a_watchdog_that_lives() {
    let site = Site::new(setup());
    let path = site.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let gateway = site.spawn_with(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    let hear = |what: &str| {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut text = [0; 1024];
            let length = socket.recv(&mut text).expect("a notification");
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            if text.lines().any(|line| line == what) {
                return;
            }
            assert!(Instant::now() < end, "{what} is not said: {text}");
        }
    };
    hear("READY=1");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    gateway.signal("HUP");
    hear("RELOADING=1");
    hear("READY=1");
    gateway.signal("TERM");
    hear("STOPPING=1");
    assert_eq!(stopped(gateway).0, Some(0));
}

#[test]
fn sighup_serves_the_new_certificate_to_new_connections_and_keeps_the_old_ones() {
    let mut site = Site::new(setup());
    let (cert, key) = (site.path("cert.pem"), site.path("key.pem"));
    certificate(&cert, &key);
    site.set("tls.cert", format!("{cert:?}"));
    site.set("tls.key", format!("{key:?}"));
    let mut gateway = site.start();
    let served = |gateway: &Gateway| match gateway.dial_wss().socket.get_ref() {
        Stream::Tls(stream) => {
            let chain = stream.conn.peer_certificates().expect("a certificate");
            chain[0].as_ref().to_vec()
        }
        Stream::Plain(_) => panic!("wss is TLS"),
    };
    let first = served(&gateway);
    let mut old = gateway.dial_wss();
    old.login("u1", "", Tail::Plain);
    certificate(&cert, &key);
    gateway.signal("HUP");
    eventually("the new certificate is served", || served(&gateway) != first);
    let second = served(&gateway);
    old.publish_safely(Want::User(2), id(1), "over the old certificate");
    // What cannot be read changes nothing.
    std::fs::write(&cert, "no certificate").expect("a file");
    gateway.signal("HUP");
    assert!(gateway.wait_log("the certificate stays as it was"));
    assert_eq!(served(&gateway), second);
    // Nor does a configuration that is wrong, and a right one counts.
    gateway.site_mut().set("delivery.retry_max", 1000);
    gateway.signal("HUP");
    assert!(gateway.wait_log("not reloaded"));
    gateway.site_mut().set("delivery.retry_max", 3);
    gateway.site_mut().set("node.log_level", "\"error\"");
    gateway.signal("HUP");
    old.publish_safely(Want::User(2), id(2), "and again");
    gateway.site_mut().set("node.log_level", "\"info\"");
    gateway.signal("HUP");
    assert!(gateway.wait_log("reloaded applied"));
}

#[test]
fn a_second_gateway_on_the_same_addresses_fails_and_says_why() {
    let gateway = setup().start();
    let mut healthy = gateway.login(1);
    let other = tempfile::tempdir().expect("a folder");
    let mut second = gateway.site().program(&["serve"]);
    let output = second.env("RINGPOST_NODE_DATA_DIR", other.path()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let address = gateway.site().ws().to_string();
    let said = text.to_lowercase().contains("in use") && text.contains(&address);
    assert!(said, "{text}");
    healthy.publish_safely(Want::User(2), id(1), "not disturbed");
}

#[test]
fn check_of_a_wrong_file_exits_with_78_and_names_the_place() {
    let mut site = Site::new(setup());
    site.set("limits.buffers_per_shard", "\"many\"");
    for command in ["check", "serve"] {
        let output = site.run(&[command]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("limits.buffers_per_shard") && text.contains("ringpost.toml:"));
    }
}

#[test]
fn metrics_are_openmetrics_and_move_with_what_happens() {
    let gateway = setup().start();
    let healthy = Healthy::talk(&gateway);
    let before = |name: &str| gateway.metric(name);
    let (accepted, logins) = (before("ringpost_accepted_total"), before("ringpost_logins_total"));
    let safe = before("ringpost_publishes_safe_total");
    let mut ann = gateway.login(1);
    ann.publish_safely(Want::User(2), id(1), "one");
    ann.send([0xee]);
    ann.expect(Seen::Invalid);
    ann.close();
    let mut text = gateway.dial();
    text.socket.send(tungstenite::Message::text("hello")).expect("it is open");
    text.expect_close(1003);
    let moved = |name: &str, least: u64| {
        eventually(name, || gateway.metric(name) >= least);
    };
    moved("ringpost_accepted_total", accepted + 2);
    moved("ringpost_logins_total", logins + 1);
    moved("ringpost_publishes_safe_total", safe + 1);
    moved("ringpost_store_rows_total", 1);
    moved("ringpost_closed_total{shard=\"0\",reason=\"peer_closed\"}", 1);
    moved("ringpost_closed_total{shard=\"0\",reason=\"text_message\"}", 1);
    moved("ringpost_malformed_total{shard=\"0\",reason=\"unknown_command\"}", 1);
    healthy.assert_unaffected();
    well_formed(&gateway.get("/metrics").1);
    let memory = gateway.metric("ringpost_memory_bytes");
    let seen = Process(gateway.pid()).memory();
    assert!(memory.abs_diff(seen) < 16 << 20, "{memory} is said, {seen} is so");
    assert_eq!(gateway.get("/nothing").0, 404);
}

/// As the OpenMetrics text format has it: families whole, each with its type, counters that end in
/// `_total`, no sample twice, and the end.
#[track_caller]
fn well_formed(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("the text has its end");
    let (mut family, mut kind) = (String::new(), String::new());
    let (mut families, mut samples) = (Vec::new(), std::collections::HashSet::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.split(' ');
            let (what, name) = (words.next().expect("a word"), words.next().expect("a name"));
            if what == "TYPE" {
                assert!(!families.contains(&name), "{name} comes twice");
                families.push(name);
                (family, kind) = (name.to_owned(), words.next().expect("a type").to_owned());
            }
            assert_eq!(name, family, "{line}");
            assert!(["TYPE", "UNIT", "HELP"].contains(&what), "{line}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
        assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
        assert!(samples.insert(sample), "{sample} comes twice");
        let name = sample.split('{').next().expect("a name");
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            other => panic!("{other} is no type we have"),
        };
        let rest = name.strip_prefix(&family).expect("samples stand in their family");
        assert!(suffixes.contains(&rest), "{line} in a {kind}");
    }
    assert!(families.len() > 50, "{} families", families.len());
}

/// Waits for the end that a signal has asked for.
fn stopped(mut gateway: Gateway) -> (Option<i32>, Site) {
    let code = gateway.wait().code();
    (code, gateway.into_site())
}

/// A new self-signed certificate.
fn certificate(cert: &Path, key: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(cert, made.cert.pem()).expect("a file");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("a file");
}
