//! The real program against little servers that do it wrong: whatever they do, the run ends soon,
//! says what happened, writes its report, and is not green.
//!
//! The servers speak the bare relay's protocol (`src/client/relay.rs`), or say the same few bytes
//! to everybody.

use serde_json::Value;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than any of these runs takes on a busy machine, and far shorter than a run that hangs.
const SOON: Duration = Duration::from_secs(90);

/// Every scenario that needs nothing but logins and pairs.
const SCENARIOS: [&str; 4] = [
    "pairs --pairs 4",
    "connect --concurrency 8",
    "idle --connections 8 --base 2 --settle 0.1",
    "storm --connections 8 --settle 0.1",
];
const QUICK: &str = "--warm-up 0.2 --duration 0.5 --patience 1";

/// What a run left behind.
struct Run {
    text: String,
    report: Value,
}

impl Run {
    fn strings(&self, what: &str) -> String {
        let list = self.report[what].as_array().expect("a list").iter();
        list.map(|text| text.as_str().expect("text")).collect::<Vec<_>>().join("\n")
    }

    fn figure(&self, name: &str) -> f64 {
        self.report["figures"][name].as_f64().unwrap_or_else(|| panic!("{name}: {}", self.text))
    }
}

/// Runs the program, which must fail, in time and in words.
fn failed_run(line: &str) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let mut program = Command::new(env!("CARGO_BIN_EXE_ringpost-perf"));
    program.args(line.split_ascii_whitespace()).arg("--json").arg(&json);
    let output = ended(program, line);
    reported(line, &output, &json)
}

fn reported(line: &str, output: &Output, json: &Path) -> Run {
    let out = String::from_utf8_lossy(&output.stdout);
    let text = format!("{line}\n{out}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}");
    let json = std::fs::read(json).unwrap_or_else(|error| panic!("no report: {error}\n{text}"));
    let report: Value = serde_json::from_slice(&json).expect("a whole report");
    assert_eq!(report["ok"], false, "{text}");
    assert!(out.contains("FAILED: "), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    Run { text, report }
}

/// The end of `program`, which comes soon.
fn ended(mut program: Command, line: &str) -> Output {
    let child = program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("it starts");
    let pid = child.id().to_string();
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    receiver.recv_timeout(SOON).map_or_else(
        |_| {
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
            panic!("{line}: it hangs");
        },
        |output| output.expect("its output"),
    )
}

/// A relay that changes its mind.
#[derive(Default)]
struct Relay {
    /// Who is logged in, by number.
    users: Mutex<HashMap<u32, TcpStream>>,
    logins: AtomicUsize,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gate {
    #[default]
    Open,
    /// As a process that was stopped: the kernel takes connections and bytes, and nobody reads.
    Frozen,
}

/// What a relay does when so many have logged in.
#[derive(Clone, Copy, Debug)]
enum Then {
    Freezes,
    /// As a process that was killed: every socket ends, and the port is closed.
    Dies,
    /// It logs users in, throws them out at once, and never takes number 8.
    Flaps,
}

impl Relay {
    /// A relay that changes after `logins`.
    fn start(logins: usize, then: Then) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let relay = Arc::new(Self::default());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                relay.pass();
                if relay.logins.load(Ordering::SeqCst) >= logins && matches!(then, Then::Dies) {
                    return;
                }
                let relay = relay.clone();
                thread::spawn(move || relay.serve(stream, logins, then));
            }
        });
        address
    }

    /// Goes on when the gate is open.
    fn pass(&self) {
        let gate = self.gate.lock().expect("no panic");
        drop(self.changed.wait_while(gate, |gate| *gate == Gate::Frozen).expect("no panic"));
    }

    fn serve(&self, mut stream: TcpStream, logins: usize, then: Then) -> Option<()> {
        let mut number = [0; 4];
        stream.read_exact(&mut number).ok()?;
        let number = u32::from_be_bytes(number);
        let flaps = matches!(then, Then::Flaps) && self.logins.load(Ordering::SeqCst) >= logins;
        if flaps && number == 8 {
            return None;
        }
        self.users.lock().ok()?.insert(number, stream.try_clone().ok()?);
        stream.write_all(b"k").ok()?;
        if self.logins.fetch_add(1, Ordering::SeqCst) + 1 == logins {
            match then {
                Then::Freezes => *self.gate.lock().ok()? = Gate::Frozen,
                Then::Dies => {
                    for user in self.users.lock().ok()?.values() {
                        let _ = user.shutdown(Shutdown::Both);
                    }
                }
                Then::Flaps => {}
            }
        }
        if flaps {
            return stream.shutdown(Shutdown::Both).ok();
        }
        let mut bytes = [0; 4096];
        loop {
            self.pass();
            let length = stream.read(&mut bytes).ok().filter(|length| *length > 0)?;
            self.pass();
            let partner = (number.wrapping_sub(1) ^ 1).wrapping_add(1);
            if let Some(partner) = self.users.lock().ok()?.get_mut(&partner) {
                let _ = partner.write_all(&bytes[..length]);
            }
        }
    }
}

/// Says `answer` to everybody who says anything.
fn parrot(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(answer);
                }
            });
        }
    });
    address
}

#[test]
fn a_port_where_nobody_listens_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    for scenario in SCENARIOS {
        let run = failed_run(&format!("{scenario} --protocol relay --url tcp://{address} {QUICK}"));
        assert!(run.strings("failures").contains("refused"), "{}", run.text);
        assert_eq!(run.report["partial"], true, "{}", run.text);
    }
}

#[test]
fn a_server_that_takes_connections_and_says_nothing_is_told() {
    // The kernel accepts for it.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    for scenario in SCENARIOS {
        let run = failed_run(&format!("{scenario} --url tcp://{address} {QUICK}"));
        let why = run.strings("failures");
        if scenario.starts_with("connect") {
            assert!(why.contains("8 logins had not ended"), "{}", run.text);
            assert!(why.contains("nobody logged in"), "{}", run.text);
        } else {
            assert!(why.contains("nothing has happened for 1s"), "{}", run.text);
            assert!(why.contains("0 of 8 connections"), "{}", run.text);
        }
    }
}

#[test]
fn a_server_whose_queue_is_full_is_given_up_without_waiting_for_it() {
    // Nobody accepts, and the kernel keeps two: the others get no answer to their first packet.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    socket.listen(1).expect("it listens");
    let address = socket.local_addr().expect("bound").as_socket().expect("of IPv4");
    for scenario in SCENARIOS {
        let run = failed_run(&format!("{scenario} --url tcp://{address} {QUICK}"));
        let series = run.report["series"].as_array().expect("a series");
        let end_s = series.last().expect("samples")["at_s"].as_f64().expect("a time");
        assert!(end_s < 60.0, "{}", run.text);
    }
}

#[test]
fn a_server_that_freezes_in_the_middle_of_logins_is_told_with_their_age() {
    let address = Relay::start(12, Then::Freezes);
    let run = failed_run(&format!(
        "connect --protocol relay --url tcp://{address} --concurrency 8 --warm-up 0 --duration 1 \
         --patience 2"
    ));
    let why = run.strings("failures");
    assert!(why.contains("logins had not ended"), "{}", run.text);
    // They count with the time that they were waited for.
    assert!(run.figure("login_max_us") >= 2e6, "{}", run.text);
    assert!(run.figure("rate_per_s") > 0.0, "{}", run.text);
}

#[test]
fn a_server_that_freezes_while_a_crowd_is_held_is_told() {
    for (scenario, logins) in [(SCENARIOS[2], 8), (SCENARIOS[3], 16)] {
        let address = Relay::start(logins, Then::Freezes);
        let run = failed_run(&format!("{scenario} --protocol relay --url tcp://{address} {QUICK}"));
        let why = run.strings("failures");
        assert!(why.contains("still alive?") && why.contains("0 of 8 deliveries"), "{}", run.text);
    }
}

#[test]
fn a_server_that_freezes_under_load_is_told() {
    let address = Relay::start(8, Then::Freezes);
    let run =
        failed_run(&format!("{} --protocol relay --url tcp://{address} {QUICK}", SCENARIOS[0]));
    assert!(run.strings("failures").contains("never acknowledged"), "{}", run.text);
}

#[test]
fn a_server_that_dies_in_the_middle_is_told_with_what_was_done() {
    for (scenario, logins) in SCENARIOS.into_iter().zip([8, 12, 8, 8]) {
        let address = Relay::start(logins, Then::Dies);
        let run = failed_run(&format!("{scenario} --protocol relay --url tcp://{address} {QUICK}"));
        let why = run.strings("failures");
        let told = ["closed the connection", "reset", "Broken pipe", "refused"];
        assert!(told.iter().any(|word| why.contains(word)), "{}", run.text);
        assert_eq!(run.report["partial"], true, "{}", run.text);
        assert!(!run.report["series"].as_array().expect("a series").is_empty(), "{}", run.text);
    }
}

#[test]
fn a_crowd_that_never_gets_back_is_given_up_although_something_happens_all_the_time() {
    let address = Relay::start(8, Then::Flaps);
    let target = format!("--protocol relay --url tcp://{address}");
    let run = failed_run(&format!("{} {target} {QUICK}", SCENARIOS[3]));
    let why = run.strings("failures");
    assert!(why.contains("\"return\" has not ended within 3 s"), "{}", run.text);
}

#[test]
fn a_login_that_is_refused_is_told_in_the_protocols_words() {
    // CONNACK: bad user name or password; not authorised. No HTTP at all.
    for (answer, protocol, url, told) in [
        (&b"\x20\x02\x00\x04"[..], "mqtt", "tcp", "refused the login (code 4)"),
        (b"\x20\x02\x00\x05", "mqtt", "tcp", "refused the login (code 5)"),
        (b"HTTP/1.1 403 No\r\n\r\n", "binary", "ws", "answered 403"),
        (b"SSH-2.0-x\r\n\r\n", "binary", "ws", "not HTTP"),
        (b"x", "relay", "tcp", "make no sense"),
    ] {
        let address = parrot(answer);
        for scenario in SCENARIOS {
            let target = format!("--protocol {protocol} --url {url}://{address}");
            let run = failed_run(&format!("{scenario} {target} {QUICK}"));
            assert!(run.strings("failures").contains(told), "{told}: {}", run.text);
        }
    }
}

#[test]
fn an_address_that_is_not_ours_is_named() {
    let address = parrot(b"x");
    let line = format!("pairs --url tcp://{address} --bind-addrs 192.0.2.7 {QUICK}");
    let run = failed_run(&line);
    let told = "192.0.2.7 is no address of this machine (--bind-addrs)";
    assert!(run.strings("failures").contains(told), "{}", run.text);
}

#[test]
fn too_few_open_files_are_told_with_the_limit() {
    let address = Relay::start(usize::MAX, Then::Freezes);
    // Below what one ring needs; enough for some rings, and not for so many logins at a time.
    for limit in [100, 140] {
        let folder = tempfile::tempdir().expect("a folder");
        let json = folder.path().join("report.json");
        let line = format!(
            "idle --connections 1000 --base 2 --protocol relay --url tcp://{address} {QUICK}"
        );
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {limit}; exec \"$@\"")).arg("sh");
        shell.arg(env!("CARGO_BIN_EXE_ringpost-perf")).args(line.split_ascii_whitespace());
        shell.arg("--json").arg(&json);
        let run = reported(&line, &ended(shell, &line), &json);
        let why = run.strings("failures");
        assert!(why.contains("ulimit -Hn") && !why.contains("os error"), "{limit}: {}", run.text);
    }
}
