//! Real servers for tests: those that `tests/run` has started, or private ones, ended with the
//! test that needs them last. Where there are no programs, tests say so and check nothing, or fail.
//!
//!   STORE_TEST_POSTGRES      libpq words without a database: host=/run/x user=postgres
//!   STORE_TEST_REDIS_STORE   unix:///run/x/redis.sock, with many databases
//!   STORE_TEST_REQUIRED      not empty: a test without its servers fails, as inside `tests/run`

#![allow(dead_code, reason = "each test program uses a part")]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use storage::{ExternalConfig, ExternalStore};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where one test's database and Redis database are.
pub(crate) struct Place {
    pub(crate) config: ExternalConfig,
    servers: Option<Arc<Servers>>,
}

/// Private servers.
pub(crate) struct Servers {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
}

static SHARED: Mutex<Weak<Servers>> = Mutex::new(Weak::new());

impl Place {
    /// An empty place on servers that other tests use, too. `None`, said aloud: there are none.
    pub(crate) fn new() -> Option<Self> {
        let (postgres, redis, servers) =
            match (given("STORE_TEST_POSTGRES"), given("STORE_TEST_REDIS_STORE")) {
                (Some(postgres), Some(redis)) => (postgres, redis, None),
                _ => {
                    let servers = Servers::shared()?;
                    (servers.postgres.words(), servers.redis.url(), Some(servers))
                }
            };
        let config = ExternalConfig {
            postgres: new_database(&postgres),
            redis: new_redis_database(&redis),
            timeout: Duration::from_secs(20),
            ..ExternalConfig::default()
        };
        Some(Self { config, servers })
    }

    /// Whether [`Self::new`] gives one.
    pub(crate) fn is_available() -> bool {
        let servers = ["STORE_TEST_POSTGRES", "STORE_TEST_REDIS_STORE"];
        servers.iter().all(|name| given(name).is_some()) || redis_is_there() && Postgres::is_there()
    }

    pub(crate) fn open(&self) -> ExternalStore {
        ExternalStore::open(&self.config).unwrap()
    }

    pub(crate) fn sql(&self) -> Sql {
        Sql::connect(&self.config.postgres)
    }

    pub(crate) fn redis(&self) -> redis::Connection {
        connect(&self.config.redis)
    }
}

/// The operator's own connection to Redis.
pub(crate) fn connect(url: &str) -> redis::Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

impl Servers {
    /// `None`, said aloud, if the machine does not have them.
    pub(crate) fn start() -> Option<Self> {
        Some(Self { postgres: Postgres::start()?, redis: Redis::start()? })
    }

    fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap();
        if let Some(servers) = shared.upgrade() {
            return Some(servers);
        }
        let servers = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&servers);
        Some(servers)
    }

    pub(crate) fn config(&self) -> ExternalConfig {
        ExternalConfig {
            postgres: new_database(&self.postgres.words()),
            redis: self.redis.url(),
            ..ExternalConfig::default()
        }
    }
}

/// The operator's own session.
pub(crate) struct Sql {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Sql {
    pub(crate) fn connect(words: &str) -> Self {
        Self::try_connect(words).unwrap()
    }

    fn try_connect(words: &str) -> Result<Self, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(words, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Self { runtime, client })
    }

    pub(crate) fn run(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap();
    }

    /// What goes wrong with it.
    pub(crate) fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(sql))
    }

    /// All rows of all columns as text, `|` between columns.
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        use tokio_postgres::SimpleQueryMessage::Row;
        let messages = self.runtime.block_on(self.client.simple_query(sql)).unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            Row(row) => {
                let columns = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL"));
                Some(columns.collect::<Vec<_>>().join("|"))
            }
            _ => None,
        });
        rows.collect()
    }
}

fn new_database(words: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    let name = format!("ringpost_{}_{number}", std::process::id());
    let operator = Sql::connect(&format!("{words} dbname=postgres"));
    operator.run(&format!("DROP DATABASE IF EXISTS {name}"));
    operator.run(&format!("CREATE DATABASE {name}"));
    format!("{words} dbname={name}")
}

/// A variable of the environment that says something.
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Notes that a test cannot check anything, which inside `tests/run` is its failure.
fn missing(what: &str) {
    assert!(given("STORE_TEST_REQUIRED").is_none(), "{what} is not installed");
    eprintln!("SKIPPED: {what} is not installed; nothing was checked");
}

/// Whether there is a Redis to start; if not, it is said aloud.
pub(crate) fn redis_is_there() -> bool {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if version.is_err() {
        missing("redis-server");
    }
    version.is_ok()
}

/// A number that no other test process has; database 0 counts.
fn new_redis_database(url: &str) -> String {
    let mut counter = connect(url);
    let number: u64 = redis::cmd("INCR").arg("databases").query(&mut counter).unwrap();
    let url = format!("{url}?db={}", 1 + number % (REDIS_DATABASES - 1));
    redis::cmd("FLUSHDB").exec(&mut connect(&url)).unwrap();
    url
}

pub(crate) const REDIS_DATABASES: u64 = 4096;

/// A private Redis that keeps what it acknowledges.
pub(crate) struct Redis {
    dir: TempDir,
    process: Option<Child>,
}

impl Redis {
    pub(crate) fn start() -> Option<Self> {
        if !redis_is_there() {
            return None;
        }
        let mut server = Self { dir: tempfile::tempdir().unwrap(), process: None };
        server.run(&[]);
        Some(server)
    }

    /// Starts the process on its directory and waits until it answers.
    pub(crate) fn run(&mut self, options: &[&str]) {
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--databases", &REDIS_DATABASES.to_string()])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("redis-server", &mut process, || {
            let client = redis::Client::open(self.url()).unwrap();
            let connection = client.get_connection_with_timeout(PATIENCE);
            connection.is_ok_and(|mut c| redis::cmd("PING").exec(&mut c).is_ok())
        });
        self.process = Some(process);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.process.as_ref().expect("a running server").id());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running server").id()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A private PostgreSQL behind a socket.
pub(crate) struct Postgres {
    programs: PathBuf,
    owner: Option<(u32, u32)>,
    dir: TempDir,
    process: Option<Child>,
}

impl Postgres {
    /// Whether there is one to start; if not, it is said aloud.
    fn is_there() -> bool {
        let there = postgres_programs().is_some();
        if !there {
            missing("PostgreSQL");
        }
        there
    }

    pub(crate) fn start() -> Option<Self> {
        if !Self::is_there() {
            return None;
        }
        let programs = postgres_programs()?;
        // It refuses to run as root.
        let root = number_of("id", &["-u"]) == Some(0);
        let postgres = |what| number_of("id", &[what, "postgres"]).expect("the package's user");
        let owner = root.then(|| (postgres("-u"), postgres("-g")));
        let dir = tempfile::tempdir().unwrap();
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(dir.path(), Some(user), Some(group)).unwrap();
        }
        let mut server = Self { programs, owner, dir, process: None };
        let made = server
            .command("initdb")
            .args(["--username", "postgres", "--auth", "trust", "--no-sync", "--encoding", "UTF8"])
            .args(["--locale", "C", "-D"])
            .arg(server.data())
            .status();
        assert!(made.unwrap().success(), "initdb");
        server.run();
        Some(server)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn run(&mut self) {
        let mut process = self
            .command("postgres")
            .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
            .arg("-k")
            .arg(self.dir.path())
            .arg("-D")
            .arg(self.data())
            .spawn()
            .unwrap();
        let words = format!("{} dbname=postgres", self.words());
        wait_for("postgres", &mut process, || Sql::try_connect(&words).is_ok());
        self.process = Some(process);
    }

    /// How to reach it, without a database.
    pub(crate) fn words(&self) -> String {
        format!("host={} user=postgres", self.dir.path().display())
    }

    /// Ends it without a checkpoint or a goodbye.
    pub(crate) fn kill(&mut self) {
        if self.process.is_none() {
            return;
        }
        let children = self.signal("-KILL");
        let leader = self.process.take().map(|mut process| process.wait());
        leader.expect("it ran").unwrap();
        // A new one does not start while one of them still has the memory that they share.
        let deadline = Instant::now() + PATIENCE;
        let has_memory = |child: &String| {
            std::fs::read_to_string(format!("/proc/{child}/maps"))
                .is_ok_and(|maps| !maps.is_empty())
        };
        while children.iter().any(has_memory) {
            assert!(Instant::now() < deadline, "a killed process does not end");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// To all its processes; gives the leader's children.
    pub(crate) fn signal(&self, name: &str) -> Vec<String> {
        let leader = self.process.as_ref().expect("a running server").id();
        let children = format!("/proc/{leader}/task/{leader}/children");
        let children = std::fs::read_to_string(children).unwrap();
        let children: Vec<_> = children.split_whitespace().map(str::to_owned).collect();
        signal(name, leader);
        for child in &children {
            // Some end by themselves.
            let _ = Command::new("kill").args([name, child]).stderr(Stdio::null()).status();
        }
        children
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The directory of the newest installed version.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .map(|version| version.path())
        .filter_map(|path| {
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin"))).filter(|(_, bin)| bin.join("initdb").exists())
        })
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs)
}

fn number_of(program: &str, args: &[&str]) -> Option<u32> {
    let output = Command::new(program).args(args).output().ok()?;
    str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn wait_for(name: &str, process: &mut Child, is_up: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_up() {
        assert_eq!(process.try_wait().unwrap(), None, "{name} has ended");
        assert!(Instant::now() < deadline, "{name} does not come up");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Whether a directory of the system is there, for tests that explain why they do nothing.
pub(crate) fn is_there(path: &str) -> bool {
    Path::new(path).exists()
}
