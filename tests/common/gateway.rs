//! A gateway of its own for a test: folder, configuration, addresses, process.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use codec::binary::client::Tail;
use tempfile::TempDir;

use super::client::{Client, Door, Stream};
use super::http::Ask;
use super::{PATIENCE, eventually};

/// The password of every user that [`Setup::local_users`] makes.
pub(crate) const PASSWORD: &str = "secret";

/// One of [`Setup::listener`].
#[derive(Debug)]
struct Listener {
    protocol: &'static str,
    transport: &'static str,
    /// Empty: the gateway's own.
    tenant: &'static str,
}

/// What a gateway is like; the defaults are one shard and open logins, where the user named `u7`
/// has the id 7.
#[derive(Debug)]
pub(crate) struct Setup {
    keys: Vec<(String, String)>,
    listeners: Vec<Listener>,
    commands: Vec<Vec<String>>,
    http: bool,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let (keys, listeners, commands) = (Vec::new(), Vec::new(), Vec::new());
        let setup = Self { keys, listeners, commands, http: false };
        setup.set("node.shards", 1).set("auth.mode", "\"open\"")
    }

    /// A key and its value as TOML; the last one counts.
    pub(crate) fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn shards(self, count: u16) -> Self {
        self.set("node.shards", count)
    }

    /// One more listener; its address is [`Site::listener`] of the number of those before it.
    pub(crate) fn listener(self, protocol: &'static str, transport: &'static str) -> Self {
        self.listener_of(protocol, transport, "")
    }

    /// As [`Setup::listener`], of another tenant, `org/appkey`.
    pub(crate) fn listener_of(
        mut self,
        protocol: &'static str,
        transport: &'static str,
        tenant: &'static str,
    ) -> Self {
        self.listeners.push(Listener { protocol, transport, tenant });
        self
    }

    /// Beside binary, every protocol that people speak, over TCP, and the HTTP that goes with them.
    pub(crate) fn everyone(self) -> Self {
        let all = ["simple-text", "simple-im", "im-demo"];
        all.into_iter().fold(self.http(), |setup, protocol| setup.listener(protocol, "tcp"))
    }

    /// The protocols' HTTP is served at [`Site::http`].
    pub(crate) fn http(self) -> Self {
        Self { http: true, ..self }
    }

    /// Retries after 150 ms, twice: a client that never acknowledges is closed after half a second.
    pub(crate) fn quick_retries(self) -> Self {
        self.set("delivery.retry_interval_ms", 150).set("delivery.retry_max", 2)
    }

    /// No retry while a test is busy with its other clients.
    pub(crate) fn patient(self) -> Self {
        self.set("delivery.retry_interval_ms", 60_000)
    }

    /// Users `u1` to `u<count>` in the store, all with [`PASSWORD`]; nobody else may log in.
    pub(crate) fn local_users(self, count: u32) -> Self {
        let count = count.to_string();
        let add = ["user", "add", "--id", "1", "--password", PASSWORD, "--count", &count];
        self.set("auth.mode", "\"local\"").command(&add)
    }

    /// User `u<user>` with [`PASSWORD`] and [`phone`]; only users made so may log in.
    pub(crate) fn local_person(self, user: u32) -> Self {
        let (id, name, phone) = (user.to_string(), format!("u{user}"), phone(user));
        let who = ["--id", &id, "--name", &name, "--phone", &phone, "--password", PASSWORD];
        self.set("auth.mode", "\"local\"").command(&[&["user", "add"], &who[..]].concat())
    }

    /// Users, groups, messages and tokens are in these servers instead of a file; the words for
    /// PostgreSQL are host, user and dbname.
    pub(crate) fn external(self, servers: &storage::ExternalConfig) -> Self {
        let words = servers.postgres.split(' ').filter_map(|word| word.split_once('='));
        let word = |name| {
            let mut values = words.clone().filter(|(known, _)| *known == name);
            values.next().expect("host, user and dbname").1
        };
        let (host, user, name) = (word("host").replace('/', "%2F"), word("user"), word("dbname"));
        self.set("store.backend", "\"external\"")
            .set("store.postgres", format!("\"postgres://{user}@{host}/{name}\""))
            .set("store.redis", format!("{:?}", servers.redis))
            .set("store.timeout_ms", servers.timeout.as_millis())
    }

    pub(crate) fn group(self, id: u32, members: &[u32]) -> Self {
        let members: Vec<String> = members.iter().map(u32::to_string).collect();
        self.command(&["group", "create", "--id", &id.to_string(), "--members", &members.join(",")])
    }

    /// A command for the store before the first start.
    pub(crate) fn command(mut self, arguments: &[&str]) -> Self {
        self.commands.push(arguments.iter().map(|&argument| argument.to_owned()).collect());
        self
    }

    pub(crate) fn start(self) -> Gateway {
        Site::new(self).start()
    }
}

/// Where a gateway runs: outlives the process, so that it can be started again.
pub(crate) struct Site {
    folder: TempDir,
    setup: Setup,
    address: Ipv4Addr,
    ports: Ports,
}

#[derive(Clone, Debug)]
struct Ports {
    ws: u16,
    wss: u16,
    tcp: u16,
    door: u16,
    admin: u16,
    http: u16,
    more: Vec<u16>,
}

impl Site {
    pub(crate) fn new(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = own_address();
        let ports = Ports::free(address, setup.listeners.len());
        let site = Self { folder, setup, address, ports };
        site.write_configuration();
        for command in &site.setup.commands {
            let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
            site.good(&arguments);
        }
        site
    }

    /// Changes a key; counts from the next start (or SIGHUP).
    pub(crate) fn set(&mut self, key: &str, value: impl ToString) {
        let setup = Setup { keys: std::mem::take(&mut self.setup.keys), ..Setup::new() };
        self.setup.keys = setup.set(key, value).keys;
        self.write_configuration();
    }

    /// Runs the program on this site's configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.program(arguments).output().expect("the program runs")
    }

    /// Runs and gives what was printed.
    #[track_caller]
    pub(crate) fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let reason = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {reason}");
        String::from_utf8(output.stdout).expect("the program writes text")
    }

    /// The program with `arguments`, to be started.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        command.args(arguments).arg("--config").arg(self.path("ringpost.toml"));
        // What a test sets counts, whatever the environment says of all tests.
        for (key, _) in &self.setup.keys {
            let name = key.replace(['.', '-'], "_").to_uppercase();
            command.env_remove(format!("RINGPOST_{name}"));
        }
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The embedded store's file.
    pub(crate) fn database(&self) -> PathBuf {
        self.path("data").join("ringpost.db")
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) fn start(mut self) -> Gateway {
        for _ in 0..CLASHES_MAX {
            let mut gateway = self.spawn();
            if gateway.wait_ready() {
                return gateway;
            }
            // Somebody took a port between our look and the start.
            self = gateway.into_site();
            self.ports = Ports::free(self.address, self.setup.listeners.len());
            self.write_configuration();
        }
        panic!("no free ports on {}", self.address);
    }

    /// Starts the gateway and waits for nothing.
    pub(crate) fn spawn(self) -> Gateway {
        self.spawn_with(|_| {})
    }

    /// As [`Site::spawn`], after a change to the command: its environment, say.
    pub(crate) fn spawn_with(self, change: impl FnOnce(&mut Command)) -> Gateway {
        let mut command = self.program(&["serve"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().expect("the program runs");
        let log = Log::of(child.stderr.take().expect("it is piped"));
        Gateway { site: Some(self), child, log }
    }

    pub(crate) fn ws(&self) -> SocketAddr {
        self.at(self.ports.ws)
    }

    pub(crate) fn wss(&self) -> SocketAddr {
        self.at(self.ports.wss)
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        self.at(self.ports.tcp)
    }

    pub(crate) fn door(&self) -> SocketAddr {
        self.at(self.ports.door)
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.at(self.ports.admin)
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.at(self.ports.http)
    }

    /// The first listener of this protocol that [`Setup::listener`] made.
    #[track_caller]
    pub(crate) fn of(&self, protocol: &str) -> SocketAddr {
        let at = self.setup.listeners.iter().position(|own| own.protocol == protocol);
        self.listener(at.expect("the set-up has it"))
    }

    /// The `at`-th of [`Setup::listener`].
    pub(crate) fn listener(&self, at: usize) -> SocketAddr {
        self.at(self.ports.more[at])
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, port))
    }

    fn write_configuration(&self) {
        let mut text = String::new();
        let mut put = |key: &str, value: &str| {
            let _ = writeln!(text, "{key} = {value}");
        };
        put("node.data_dir", &format!("{:?}", self.path("data")));
        let http = if self.setup.http { self.http().to_string() } else { String::new() };
        put("http.bind", &format!("\"{http}\""));
        put("admin.bind", &format!("\"{}\"", self.admin()));
        for (key, value) in &self.setup.keys {
            put(key, value);
        }
        let mut listen = |protocol: &str, transport: &str, bind: SocketAddr, tenant: &str| {
            let _ = writeln!(text, "[[listener]]\nprotocol = \"{protocol}\"");
            let _ = writeln!(text, "transport = \"{transport}\"\nbind = \"{bind}\"");
            let _ = writeln!(text, "tenant = \"{tenant}\"");
        };
        for (at, own) in self.setup.listeners.iter().enumerate() {
            listen(own.protocol, own.transport, self.listener(at), own.tenant);
        }
        listen("binary", "ws", self.ws(), "");
        listen("binary", "wss", self.wss(), "");
        listen("binary", "tcp", self.tcp(), "");
        listen("binary-publish", "tcp", self.door(), "");
        fs::write(self.path("ringpost.toml"), text).expect("the folder can be written");
    }
}

impl Ports {
    /// Ports that nobody has on `address` now, `more` of them beside the fixed ones.
    fn free(address: Ipv4Addr, more: usize) -> Self {
        let listeners: Vec<TcpListener> = (0..6 + more)
            .map(|_| TcpListener::bind((address, 0)).expect("a free port on loopback"))
            .collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
        let ports: Vec<u16> = listeners.iter().map(port).collect();
        let [ws, wss, tcp, door, admin, http] = *ports.first_chunk().expect("six");
        Self { ws, wss, tcp, door, admin, http, more: ports[6..].to_vec() }
    }
}

/// A loopback address for this gateway alone, so that tests side by side never meet.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(64) + NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, a, b, c] = number.to_be_bytes();
    // Neither 127.0.0.x nor the last byte's ends, which other programs like.
    Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))
}

/// The running process; killed when dropped.
pub(crate) struct Gateway {
    /// Taken only when the process has ended.
    site: Option<Site>,
    child: Child,
    log: Log,
}

impl Gateway {
    pub(crate) fn site(&self) -> &Site {
        self.site.as_ref().expect("the process has not been given up")
    }

    pub(crate) fn site_mut(&mut self) -> &mut Site {
        self.site.as_mut().expect("the process has not been given up")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A ws connection that has not logged in.
    pub(crate) fn dial(&self) -> Client {
        Client::upgrade(Stream::plain(self.site().ws()), "ws://localhost/ws")
    }

    /// As [`Gateway::dial`]; `None`: the gateway is dead, or does not want anybody now.
    pub(crate) fn try_dial(&self) -> Option<Client> {
        let socket = TcpStream::connect_timeout(&self.site().ws(), PATIENCE).ok()?;
        Client::try_upgrade(Stream::Plain(socket), "ws://localhost/ws")
    }

    /// A wss connection that has not logged in.
    pub(crate) fn dial_wss(&self) -> Client {
        Client::upgrade(Stream::tls(self.site().wss(), true), "wss://localhost/wss")
    }

    /// A connection of the publish door.
    pub(crate) fn door(&self) -> Door {
        Door::new(Stream::plain(self.site().door()))
    }

    /// A client connection on plain TCP that has not logged in.
    pub(crate) fn tcp(&self) -> Door {
        Door::new(Stream::plain(self.site().tcp()))
    }

    /// User `u<user>`, logged in over ws, as the client revision without a terminal kind.
    #[track_caller]
    pub(crate) fn login(&self, user: u32) -> Client {
        self.login_as(user, Tail::Plain)
    }

    #[track_caller]
    pub(crate) fn login_as(&self, user: u32, tail: Tail<'_>) -> Client {
        let mut client = self.dial();
        client.login(&format!("u{user}"), PASSWORD, tail);
        client
    }

    /// A token of the HTTP login for a [`Setup::local_person`].
    #[track_caller]
    pub(crate) fn token(&self, user: u32) -> String {
        let body = format!("phone={}&password={PASSWORD}", phone(user));
        let told = Ask::post("/server/login", &body).send(self.site().http());
        let own = self.site().of("simple-im");
        assert!(told.text().starts_with("[response] status = 0 "), "{told:?}");
        assert_eq!(told.quoted("server"), own.ip().to_string());
        assert_eq!(told.quoted("port"), own.port().to_string());
        assert!(told.text().ends_with(&format!(" id = {user}")), "{told:?}");
        told.quoted("token")
    }

    /// Sends a signal, by its name without SIG.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill runs").success(), "no process {pid} to signal");
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(mut self) -> (ExitStatus, Site) {
        self.signal("TERM");
        let status = self.wait();
        (status, self.into_site())
    }

    /// SIGKILL: the process gets no chance to do anything more.
    pub(crate) fn kill(mut self) -> Site {
        self.child.kill().expect("it runs");
        assert_eq!(self.wait().signal(), Some(9));
        self.into_site()
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Everything it has said.
    pub(crate) fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Waits until a line of the log contains `text`; `false`: the process ended without.
    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) -> bool {
        self.log.wait(text)
    }

    /// Waits for readiness; `false`: an address was taken.
    fn wait_ready(&mut self) -> bool {
        let last = format!("binary-publish on tcp://{}", self.site().door());
        if !self.wait_log(&last) {
            let status = self.wait();
            let log = self.log();
            assert!(log.to_lowercase().contains("in use"), "{status}, not ready:\n{log}");
            return false;
        }
        eventually("/readyz says ready", || self.get("/readyz").0 == 200);
        true
    }

    /// Status and body of a GET on the admin address; status 0: nobody answers.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let told = Ask::get(path).try_send(self.site().admin());
        told.and_then(|told| Some((told.status()?, told.text()))).unwrap_or_default()
    }

    /// The sum of a metric over shards and labels, such as `ringpost_logins_total`. A name may go
    /// on with the beginning of its labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        let lines = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let whole = name.contains('{') || rest.starts_with(['{', ' ']);
            whole.then(|| rest.rsplit(' ').next()?.parse::<u64>().ok()).flatten()
        });
        lines.sum()
    }

    /// The site of a process that has ended.
    pub(crate) fn into_site(mut self) -> Site {
        self.site.take().expect("it is given up once")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}\n--- end of it ---", self.log());
        }
    }
}

/// The process's stderr, read as it comes.
#[derive(Clone)]
struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn of(stderr: ChildStderr) -> Self {
        let log = Self(Arc::default());
        let writer = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                writer.change(|lines| lines.lines.push(line));
            }
            writer.change(|lines| lines.ended = true);
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        let (lines, changed) = &*self.0;
        change(&mut lines.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    #[track_caller]
    fn wait(&self, text: &str) -> bool {
        let (lines, changed) = &*self.0;
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let said = |lines: &Lines| lines.lines.iter().any(|line| line.contains(text));
        let waited = changed
            .wait_timeout_while(lines, PATIENCE, |lines| !lines.ended && !said(lines))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.1.timed_out(), "not in the log: {text}\n{}", waited.0.lines.join("\n"));
        said(&waited.0)
    }
}

/// The phone number of a [`Setup::local_person`].
pub(crate) fn phone(user: u32) -> String {
    format!("1850126{user:04}")
}

/// How often ports are looked for.
const CLASHES_MAX: u32 = 10;
