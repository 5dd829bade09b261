//! `ringpost chat`: a person at a terminal, or a script, as a client of the gateway.
//!
//! Owns: the prompt, names, what is printed. Never: the gateway's insides; it connects like any
//! client. Standard input may be a terminal or a pipe; its end quits once the login is decided and
//! everything said is safe, or after a grace time.

mod input;
mod link;
mod payload;
mod session;

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use codec::binary::MESSAGE_ID;
use codec::{GroupId, MessageId, UserId};

use crate::demo;
use crate::exit::Failure;
use input::Line;
use link::{Order, Report, Url};
use session::{Event, NotTaken, Session, To};

/// Who chats, and where.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) url: String,
    /// `None`: the demo's for its users; else asked for.
    pub(crate) password: Option<String>,
    /// Known users by name. Numbers always work.
    pub(crate) users: BTreeMap<String, u32>,
}

/// Runs until /quit, the end of the input, or the gateway's last word.
///
/// # Errors
/// The URL is wrong, there was no login, or messages were left that nobody acknowledged.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let url = Url::parse(&options.url).map_err(Failure::new)?;
    let password = match options.password {
        Some(password) => password,
        None if demo::is_user(&options.name) => demo::PASSWORD.to_owned(),
        None => ask_password(&options.name)?,
    };
    let session = Session::new(&options.name, &password);
    let (orders, taken) = mpsc::channel();
    let (heard, hears) = mpsc::channel();
    let typed = heard.clone();
    let report = move |report| {
        // The terminal may be gone already; then nobody is interested.
        let _ = heard.send(Heard::Link(report));
    };
    let network = spawn("link", move || link::run(&url, session, &taken, &report))?;
    // Not joined: it may wait for a line that never comes.
    spawn("input", move || read_lines(&typed))?;
    let me = options.users.get(&options.name).copied();
    let terminal =
        Terminal { name: options.name, me, users: options.users, url: options.url, orders };
    let result = terminal.run(&hears);
    let _ = network.join();
    result
}

fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(|error| Failure::other("a thread cannot start", error))
}

/// What the terminal's loop waits for.
enum Heard {
    Typed(String),
    InputEnded,
    Link(Report),
}

fn read_lines(typed: &Sender<Heard>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if typed.send(Heard::Typed(line)).is_err() {
            return;
        }
    }
    let _ = typed.send(Heard::InputEnded);
}

struct Terminal {
    name: String,
    /// Our own number, if the name is known here.
    me: Option<u32>,
    users: BTreeMap<String, u32>,
    url: String,
    orders: Sender<Order>,
}

impl Terminal {
    fn run(self, hears: &Receiver<Heard>) -> Result<(), Failure> {
        let mut refused = None;
        for heard in hears {
            match heard {
                Heard::Typed(line) => self.typed(&line),
                Heard::InputEnded => self.order(Order::Quit),
                Heard::Link(Report::Session(Event::Final(why))) => refused = Some(why),
                Heard::Link(Report::Ended { ever_accepted, unsafe_count }) => {
                    return match (refused, ever_accepted, unsafe_count) {
                        (Some(why), _, _) => Err(Failure::new(why)),
                        (None, false, _) => Err(Failure::new("never logged in")),
                        (None, true, 0) => Ok(()),
                        (None, true, left) => {
                            Err(Failure::new(format!("{left} messages were not acknowledged")))
                        }
                    };
                }
                Heard::Link(report) => say(&self.describe(report)),
            }
        }
        Ok(())
    }

    fn typed(&self, line: &str) {
        match input::parse(line) {
            Line::Empty => {}
            Line::Quit => self.order(Order::Quit),
            Line::Help => say(input::HELP),
            Line::Wrong(why) => say(why),
            Line::User(name, text) => match self.user(name) {
                Some(id) => self.say_to(To::User(UserId(id)), id, name, text),
                None => say(&format!("nobody here is called {name}; a number works too")),
            },
            Line::Group(name, text) => match group(name) {
                Some(id) => self.say_to(To::Group(GroupId(id)), id, &format!("@{name}"), text),
                None => say(&format!("no group here is called {name}; a number works too")),
            },
        }
    }

    fn say_to(&self, to: To, number: u32, name: &str, text: &str) {
        let body = payload::text(self.me, &self.name, number, text);
        let label = payload::harmless(&format!("{name}: {text}"));
        match fresh_id() {
            Ok(id) => self.order(Order::Say { to, id, body, label }),
            Err(error) => say(&format!("not sent, no random id: {error}")),
        }
    }

    fn order(&self, order: Order) {
        // The link has ended only if its report is on the way.
        let _ = self.orders.send(order);
    }

    fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied().or_else(|| name.parse().ok())
    }

    fn describe(&self, report: Report) -> String {
        match report {
            Report::Session(Event::Accepted { sent }) => {
                let number = self.me.map_or_else(String::new, |id| format!(" ({id})"));
                let waited = match sent {
                    0 => String::new(),
                    sent => format!("; {sent} sent that had waited"),
                };
                format!("you are {}{number} on {}{waited}; /help helps", self.name, self.url)
            }
            Report::Session(Event::Message { group, body }) => self.message(group, &body),
            Report::Session(Event::Safe { label }) => format!("\u{2713} {label}"),
            Report::Session(Event::Final(why)) => why.to_owned(),
            Report::Lost { reason, pause } => {
                let reason = payload::harmless(&reason);
                format!("no connection ({reason}); again in {:.1} s", pause.as_secs_f32())
            }
            Report::NotTaken { label, why: NotTaken::OutboxFull } => {
                format!("not sent, too many messages wait already: {label}")
            }
            Report::NotTaken { label: _, why: NotTaken::TooLong } => {
                "not sent, too long".to_owned()
            }
            Report::Ended { .. } => String::new(),
        }
    }

    /// The sender as this side knows him, or as the payload calls him.
    fn message(&self, group: Option<GroupId>, body: &[u8]) -> String {
        let shown = payload::show(body);
        let known = self.users.iter().find(|(_, id)| Some(**id) == shown.from);
        let sender = match (known, shown.name, shown.from) {
            (Some((name, _)), _, _) => name.clone(),
            (None, Some(name), Some(id)) if name != id.to_string() => format!("{name} ({id})"),
            (None, Some(name), _) => name,
            (None, None, Some(id)) => id.to_string(),
            (None, None, None) => "?".to_owned(),
        };
        match group {
            Some(group) => format!("[{}] {sender}: {}", group_name(group), shown.text),
            None => format!("{sender}: {}", shown.text),
        }
    }
}

/// A group by the demo's name or by number.
fn group(name: &str) -> Option<u32> {
    if name == demo::GROUP.0 { Some(demo::GROUP.1) } else { name.parse().ok() }
}

fn group_name(group: GroupId) -> String {
    if group.0 == demo::GROUP.1 { demo::GROUP.0.to_owned() } else { format!("#{group}") }
}

/// 32 hexadecimal digits, as all clients of the protocol make them.
fn fresh_id() -> Result<MessageId, getrandom::Error> {
    let mut random = [0; MESSAGE_ID / 2];
    getrandom::fill(&mut random)?;
    let mut id = [0; MESSAGE_ID];
    for (pair, byte) in id.chunks_exact_mut(2).zip(random) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    Ok(id.into())
}

fn say(line: &str) {
    // Where nobody reads, nobody misses it.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Reads a line without echo, where there is a terminal to ask at.
fn ask_password(name: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(format!("{name} needs --password")));
    }
    let echo = |mode| Command::new("stty").arg(mode).stdin(Stdio::inherit()).status();
    let _ = write!(io::stderr(), "password of {name}: ");
    let hidden = echo("-echo").is_ok_and(|status| status.success());
    let mut password = String::new();
    let read = io::stdin().read_line(&mut password);
    if hidden {
        let _ = echo("echo");
        let _ = writeln!(io::stderr());
    }
    read.map_err(|error| Failure::other("the password cannot be read", error))?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal() -> (Terminal, Receiver<Order>) {
        let (orders, taken) = mpsc::channel();
        let users = demo::users();
        let me = users.get("alice").copied();
        let url = "ws://a/ws".to_owned();
        (Terminal { name: "alice".to_owned(), me, users, url, orders }, taken)
    }

    #[test]
    fn typed_lines_become_messages_to_the_right_place() {
        let (terminal, taken) = terminal();
        let cases = [
            ("bob hi", Some(To::User(UserId(1002)))),
            ("77 hi", Some(To::User(UserId(77)))),
            ("@demo hi", Some(To::Group(GroupId(1)))),
            ("#9 hi", Some(To::Group(GroupId(9)))),
            ("nobody hi", None),
            ("@nogroup hi", None),
            ("/help", None),
        ];
        for (line, expected) in cases {
            terminal.typed(line);
            let said = taken.try_recv().ok().map(|order| match order {
                Order::Say { to, .. } => to,
                Order::Quit => panic!("{line} quits"),
            });
            assert_eq!(said, expected, "{line}");
        }
        terminal.typed("/quit");
        assert!(matches!(taken.try_recv(), Ok(Order::Quit)));
    }

    #[test]
    fn messages_show_who_speaks_and_where() {
        let (terminal, _taken) = terminal();
        let from = |id, name, to| payload::text(id, name, to, "hi");
        assert_eq!(terminal.message(None, &from(Some(1002), "x", 1001)), "bob: hi");
        assert_eq!(terminal.message(None, &from(Some(7), "dora", 1001)), "dora (7): hi");
        assert_eq!(terminal.message(None, &from(None, "dora", 1001)), "dora: hi");
        assert_eq!(terminal.message(None, b"\x00"), "?: \\u{0}");
        let group = Some(GroupId(1));
        assert_eq!(terminal.message(group, &from(Some(1003), "", 1)), "[demo] carol: hi");
        assert_eq!(terminal.message(Some(GroupId(2)), b"hi"), "[#2] ?: hi");
    }

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let (one, two) = (fresh_id().expect("random"), fresh_id().expect("random"));
        assert_ne!(one, two);
        assert!(one.as_bytes().iter().all(u8::is_ascii_hexdigit));
        assert_eq!(one.as_bytes().len(), 32);
    }
}
