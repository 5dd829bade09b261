//! Two people at their terminals: `ringpost chat` twice, through the gateway that the program
//! starts without a configuration file, apart from its addresses and its folder.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use common::{Setup, Site, hear};

/// A `ringpost chat` with its input and its output.
struct Chat {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Chat {
    fn start(site: &Site, name: &str, more: &[&str]) -> Self {
        let url = format!("ws://{}/ws", site.ws());
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringpost"))
            .args(["chat", name, "--url", &url])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program runs");
        let (tell, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    fn types(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{line}").expect("it reads");
    }

    #[track_caller]
    fn shows(&self, expected: &str) {
        let line = hear(&self.lines, expected);
        assert!(line.contains(expected), "{line:?} instead of {expected:?}");
    }

    /// The end of its input ends it.
    fn leave(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().expect("it is our child").success());
        assert_eq!(self.lines.iter().collect::<Vec<_>>(), Vec::<String>::new());
    }
}

/// The demo's users and group, as `ringpost serve` makes them.
fn demo() -> Setup {
    let mut setup = Setup::new().shards(2).set("auth.mode", "\"local\"");
    for (name, number) in [("alice", "1001"), ("bob", "1002"), ("carol", "1003")] {
        let password = ["--password", "ringpost"];
        let add = [&["user", "add", "--id", number, "--name", name], &password[..]].concat();
        setup = setup.command(&add);
    }
    setup.group(1, &[1001, 1002, 1003])
}

#[test]
fn two_people_talk_directly_and_in_the_group() {
    let gateway = demo().start();
    let mut alice = Chat::start(gateway.site(), "alice", &[]);
    alice.shows("you are alice (1001)");
    let mut bob = Chat::start(gateway.site(), "bob", &[]);
    bob.shows("you are bob (1002)");

    alice.types("bob hello, \u{1f980}");
    bob.shows("alice: hello, \u{1f980}");
    alice.shows("\u{2713} bob: hello, \u{1f980}");
    bob.types("@demo hello everybody");
    alice.shows("bob: hello everybody");
    bob.shows("\u{2713} @demo: hello everybody");
    bob.types("1001 by number");
    alice.shows("bob: by number");
    bob.shows("\u{2713} 1001: by number");

    // Carol was away all the time.
    let carol = Chat::start(gateway.site(), "carol", &[]);
    carol.shows("you are carol (1003)");
    carol.shows("bob: hello everybody");
    for chat in [alice, bob, carol] {
        chat.leave();
    }
}

#[test]
fn wrong_password_ends_it_with_a_reason() {
    let gateway = demo().start();
    let url = format!("ws://{}/ws", gateway.site().ws());
    let chat = ["chat", "alice", "--url", &url, "--password", "wrong"];
    let output = gateway.site().run(&chat);
    assert_eq!(output.status.code(), Some(1));
    let reason = String::from_utf8_lossy(&output.stderr);
    assert!(reason.contains("password"), "{reason}");
}
