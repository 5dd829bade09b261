//! Goal: a Redis or a user centre that is dead, frozen or talks nonsense costs those who need it
//! their answer, for a bounded time, and nobody anything else; and it may come back at any time.
//!
//! Method: a private redis-server that is killed, stopped and started again; a user centre of a few
//! lines whose behaviour the test changes. Needs `redis-server`.

mod common;
mod fault;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use codec::PublishKind;
use codec::binary::client::Tail;
use common::{Client, Gateway, PATIENCE, Seen, Setup, Want, connect_packet, eventually, id};
use fault::{Healthy, Process, resend_until_safe, within};
use tempfile::TempDir;

const GROUP: u32 = 77;

#[test]
fn a_dead_redis_costs_group_messages_their_acknowledgement_until_it_is_back() {
    let mut redis = Redis::start();
    let gateway = redis.gateway();
    let (mut ann, mut ben) = (gateway.login(1), gateway.login(2));
    ann.publish(Want::Group(GROUP), id(1), "all is well");
    ben.take_push(id(1), "all is well");
    ann.expect_ack(PublishKind::Group, id(1));
    let healthy = Healthy::talk(&gateway);
    redis.kill();
    let before = gateway.metric("ringpost_group_unavailable_total");
    for number in 2..12 {
        ann.publish(Want::Group(GROUP), id(number), "is anybody there?");
    }
    eventually("every failure is counted", || {
        gateway.metric("ringpost_publishes_failed_total") >= 10
    });
    assert!(gateway.metric("ringpost_group_unavailable_total") > before);
    ann.expect_silence();
    ben.expect_silence();
    redis.start_again();
    resend_until_safe_with(&mut ann, &mut ben, 2, "is anybody there?");
    for number in 3..12 {
        resend_until_safe_with(&mut ann, &mut ben, number, "is anybody there?");
    }
    healthy.assert_unaffected();
}

#[test]
fn a_frozen_redis_is_waited_for_only_so_long() {
    let redis = Redis::start();
    let gateway = redis.gateway();
    let (mut ann, mut ben) = (gateway.login(1), gateway.login(2));
    ann.publish(Want::Group(GROUP), id(1), "all is well");
    ben.take_push(id(1), "all is well");
    ann.expect_ack(PublishKind::Group, id(1));
    let healthy = Healthy::talk(&gateway);
    redis.freeze();
    let start = Instant::now();
    for number in 2..102 {
        ann.publish(Want::Group(GROUP), id(number), "is anybody there?");
    }
    within(Duration::from_secs(10), "all of them have failed", || {
        gateway.metric("ringpost_publishes_failed_total") >= 100
    });
    println!("a hundred publishes behind a frozen Redis failed within {:?}", start.elapsed());
    assert!(gateway.metric("ringpost_group_unavailable_total") > 0);
    // A new login and its direct messages do not wait for it.
    let mut carol = gateway.login(3);
    carol.publish_safely(Want::User(4), id(200), "to nobody who is there");
    ann.expect_silence();
    redis.thaw();
    resend_until_safe_with(&mut ann, &mut ben, 2, "is anybody there?");
    healthy.assert_unaffected();
}

#[test]
fn a_user_centre_that_does_not_decide_is_never_a_refusal_and_recovers() {
    let centre = Centre::start();
    let gateway = centre.gateway();
    for (name, uid) in [("ann", 1), ("ben", 2)] {
        let mut client = login(&gateway, name);
        client.expect_accepted();
        client.publish_safely(Want::User(50), id(uid), "in");
        client.close();
    }
    let healthy = Healthy::talk(&gateway);
    centre.behave(Behaviour::Deny);
    let mut denied = login(&gateway, "carol");
    denied.expect(Seen::ConnectAck(3));
    denied.expect_close(1000);
    for trouble in [
        Behaviour::Error,
        Behaviour::Nonsense,
        Behaviour::HangUp,
        Behaviour::Endless,
        Behaviour::Frozen,
        Behaviour::Down,
    ] {
        centre.behave(trouble);
        let before = gateway.metric("ringpost_auth_verdicts_total{verdict=\"unavailable\"}");
        let mut clients: Vec<_> =
            (0..4).map(|number| login(&gateway, &format!("new{number}"))).collect();
        for client in &mut clients {
            assert_eq!(client.next(), Seen::Close(Some(1013)), "{trouble:?}");
            client.expect(Seen::End);
        }
        let after = gateway.metric("ringpost_auth_verdicts_total{verdict=\"unavailable\"}");
        assert!(after >= before + 4, "{trouble:?}");
        // Whom the cache knows comes in.
        let mut ann = login(&gateway, "ann");
        ann.expect_accepted();
        ann.close();
        centre.behave(Behaviour::Pass);
        // It may be left alone for some seconds after its failures.
        within(PATIENCE, "logins pass again", || {
            login(&gateway, &format!("after {trouble:?}")).next() == Seen::ConnectAck(0)
        });
    }
    healthy.assert_unaffected();
}

#[test]
fn logins_that_wait_for_a_slow_user_centre_are_not_cut_by_the_deadline() {
    let centre = Centre::start();
    let gateway = Setup::new()
        .set("auth.mode", "\"http\"")
        .set("auth.http_url", format!("\"{}\"", centre.url()))
        .set("limits.login_deadline_ms", 300)
        .start();
    centre.behave(Behaviour::Slow);
    let start = Instant::now();
    let mut client = login(&gateway, "ann");
    client.expect_accepted();
    assert!(start.elapsed() > Duration::from_millis(900), "the centre took its time");
    assert_eq!(gateway.metric("ringpost_closed_total{shard=\"0\",reason=\"login_deadline\"}"), 0);
}

fn login(gateway: &Gateway, name: &str) -> Client {
    let mut client = gateway.dial();
    client.send(connect_packet(name, "secret", Tail::Plain));
    client
}

/// As [`resend_until_safe`] to the group, with its other member taking what comes.
fn resend_until_safe_with(ann: &mut Client, ben: &mut Client, number: u32, body: &str) {
    std::thread::scope(|scope| {
        scope.spawn(|| ben.take_push(id(number), body));
        resend_until_safe(ann, Want::Group(GROUP), id(number), body);
    });
}

/// A redis-server of our own, with users 1 and 2 in [`GROUP`].
struct Redis {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Redis {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let folder = tempfile::tempdir().expect("a folder");
        let child = Self::spawn(address, &folder);
        let redis = Self { child, address, folder };
        redis.fill();
        redis
    }

    fn spawn(address: SocketAddr, folder: &TempDir) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"]);
        command.arg(address.port().to_string()).arg("--dir").arg(folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("redis-server is installed")
    }

    /// Waits until it answers; the set is made anew, since it keeps nothing on disk.
    fn fill(&self) {
        let command = format!("SELECT 1\r\nSADD im_group:{GROUP} 1 2\r\n");
        let say = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(command.as_bytes())?;
            let mut answers = BufReader::new(stream).lines();
            let mut answer = || answers.next().unwrap_or_else(|| Ok(String::new()));
            Ok(answer()? == "+OK" && answer()? == ":2")
        };
        eventually("Redis answers", || say().unwrap_or(false));
    }

    /// A gateway that asks it each time.
    fn gateway(&self) -> Gateway {
        Setup::new()
            .shards(2)
            .set("groups.source", "\"redis\"")
            .set("groups.redis", format!("\"redis://{}/1\"", self.address))
            .set("groups.cache_ms", 0)
            .start()
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("our child");
    }

    fn start_again(&mut self) {
        self.child = Self::spawn(self.address, &self.folder);
        self.fill();
    }

    fn freeze(&self) {
        Process(self.child.id()).signal("STOP");
    }

    fn thaw(&self) {
        Process(self.child.id()).signal("CONT");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    /// The uid is a number made of the name.
    Pass,
    /// As `Pass`, after a second.
    Slow,
    Deny,
    /// Status 500, whatever the body says.
    Error,
    Nonsense,
    /// Closes in the middle of its answer.
    HangUp,
    /// An answer that never ends.
    Endless,
    /// Takes requests and never answers.
    Frozen,
    /// Nobody listens.
    Down,
}

/// A user centre.
struct Centre {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    listener: Mutex<Option<Listening>>,
}

struct Listening {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Centre {
    fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let behaviour = Arc::new(Mutex::new(Behaviour::Pass));
        let listening = Listening::start(socket, &behaviour);
        Self { address, behaviour, listener: Mutex::new(Some(listening)) }
    }

    fn url(&self) -> String {
        format!("http://{}/auth", self.address)
    }

    fn gateway(&self) -> Gateway {
        Setup::new()
            .shards(2)
            .set("auth.mode", "\"http\"")
            .set("auth.http_url", format!("\"{}\"", self.url()))
            .set("auth.http_timeout_ms", 500)
            .start()
    }

    fn behave(&self, next: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = next;
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        match (next, listener.take()) {
            (Behaviour::Down, Some(listening)) => listening.end(self.address),
            (Behaviour::Down, None) => {}
            (_, Some(listening)) => *listener = Some(listening),
            (_, None) => {
                let socket = TcpListener::bind(self.address).expect("its own port");
                *listener = Some(Listening::start(socket, &self.behaviour));
            }
        }
    }
}

impl Listening {
    fn start(socket: TcpListener, behaviour: &Arc<Mutex<Behaviour>>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (stopped, behaviour) = (Arc::clone(&stop), Arc::clone(behaviour));
        let thread = std::thread::spawn(move || {
            for stream in socket.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let behaviour = Arc::clone(&behaviour);
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || serve(stream, &behaviour));
            }
        });
        Self { stop, thread }
    }

    fn end(self, address: SocketAddr) {
        self.stop.store(true, Ordering::Relaxed);
        // It waits for a connection.
        drop(TcpStream::connect(address));
        self.thread.join().expect("it only accepts");
    }
}

/// Answers the requests of one connection, each as the centre behaves at that moment.
fn serve(mut stream: TcpStream, behaviour: &Mutex<Behaviour>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    while let Some(form) = request(&mut reader) {
        let now = *behaviour.lock().unwrap_or_else(PoisonError::into_inner);
        let name = form.split('&').next().expect("the name comes first");
        let pass = format!("{{\"result\":\"pass\",\"uid\":{}}}", uid(name));
        let answer = match now {
            Behaviour::Pass => reply(200, &pass),
            Behaviour::Slow => {
                let end = Instant::now() + Duration::from_secs(1);
                while Instant::now() < end {
                    std::thread::park_timeout(end - Instant::now());
                }
                reply(200, &pass)
            }
            Behaviour::Deny => reply(200, "{\"result\":\"denied\"}"),
            Behaviour::Error => reply(500, "{\"result\":\"denied\"}"),
            Behaviour::Nonsense => reply(200, "<b>Warning</b>: mysql_connect()"),
            Behaviour::HangUp => reply(200, &pass)[..40].to_owned(),
            Behaviour::Endless => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n";
                let junk = "x".repeat(64 * 1024);
                let mut open = stream.write_all(head.as_bytes()).is_ok();
                while open {
                    open = stream.write_all(junk.as_bytes()).is_ok();
                }
                return;
            }
            Behaviour::Frozen => {
                // Until the gateway has had enough.
                let _ = reader.read(&mut [0]);
                return;
            }
            Behaviour::Down => return,
        };
        let sent = stream.write_all(answer.as_bytes());
        if sent.is_err() || now == Behaviour::HangUp {
            return;
        }
    }
}

/// The body of the next request; `None`: there is none.
fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

fn reply(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Of `u<number>` the number; other names have numbers that differ enough.
fn uid(field: &str) -> u32 {
    let name = field.trim_start_matches("username=");
    let number = name.strip_prefix('u').and_then(|digits| digits.parse().ok());
    number.unwrap_or_else(|| {
        name.bytes().fold(10_000, |sum, byte| sum * 31 % 1_000_003 + u32::from(byte))
    })
}
