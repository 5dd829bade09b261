//! Group sets in a real Redis of the test's own: a private server behind a socket in a directory of
//! its own, killed, frozen and started again. Without `redis-server` on the path the tests say so
//! and check nothing, or fail (`servers`).

#[path = "external/servers.rs"]
mod servers;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use codec::{GroupId, GroupKey, TenantId, UserId};
use redis::Commands;
use storage::StoreError;
use storage::groups::{GroupSource, RedisConfig, RedisGroups};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A private server, ended with the test.
struct Server {
    dir: TempDir,
    process: Option<Child>,
}

impl Server {
    /// `None`, said aloud, if the machine has no Redis.
    fn start() -> Option<Self> {
        if !servers::redis_is_there() {
            return None;
        }
        let mut server = Self { dir: tempfile::tempdir().unwrap(), process: None };
        server.run(&[]);
        Some(server)
    }

    /// Starts the process and waits until it answers.
    fn run(&mut self, options: &[&str]) {
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while self.try_admin().is_none() {
            assert_eq!(process.try_wait().unwrap(), None, "redis-server has ended");
            assert!(Instant::now() < deadline, "redis-server does not come up");
            std::thread::yield_now();
        }
        self.process = Some(process);
    }

    fn socket(&self) -> String {
        self.dir.path().join("redis.sock").to_str().unwrap().to_owned()
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("a running server").id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn url(&self) -> String {
        format!("unix://{}?db=1", self.socket())
    }

    /// A connection of the test's own to database 1.
    fn admin(&self) -> redis::Connection {
        self.try_admin().expect("a running server")
    }

    fn try_admin(&self) -> Option<redis::Connection> {
        let client = redis::Client::open(self.url()).unwrap();
        let connection = client.get_connection_with_timeout(PATIENCE).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(connection)
    }

    fn fill(&self, group: u32, members: &[&str]) {
        let _: i64 = self.admin().sadd(format!("im_group:{group}"), members).unwrap();
    }

    fn groups(&self) -> RedisGroups {
        self.groups_with(RedisConfig::default())
    }

    fn groups_with(&self, config: RedisConfig) -> RedisGroups {
        RedisGroups::new(RedisConfig { url: self.url(), ..config }).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn group(id: u32) -> GroupKey {
    GroupKey { tenant: TenantId(0), id: GroupId(id) }
}

/// Asks until the answer is as it should be: the breaker's pauses pass meanwhile.
fn ask_until<T: std::fmt::Debug>(mut ask: impl FnMut() -> T, done: impl Fn(&T) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if done(&answer) {
            return;
        }
        assert!(Instant::now() < deadline, "still {answer:?}");
        std::thread::yield_now();
    }
}

#[test]
fn members_are_the_unsigned_decimals_of_the_set_in_database_1() {
    let Some(server) = Server::start() else { return };
    server.fill(1234, &["7", "4294967295", "0", "alice", "-1", "4294967296", "", "007"]);
    server.fill(u32::MAX, &["1"]);
    let mut admin = server.admin();
    let _: () = redis::cmd("SELECT").arg(0).query(&mut admin).unwrap();
    let _: i64 = admin.sadd("im_group:5", "1").unwrap();

    let mut groups = server.groups();
    let members = groups.members(group(1234)).unwrap();
    assert_eq!(*members, [UserId(0), UserId(7), UserId(u32::MAX)]);
    assert_eq!(groups.skipped(), 4);
    assert_eq!(*groups.members(group(u32::MAX)).unwrap(), [UserId(1)]);
    assert!(groups.members(group(5)).unwrap().is_empty(), "that was in database 0");
    assert!(groups.members(group(6)).unwrap().is_empty(), "no such set");
}

#[test]
fn a_key_of_another_type_is_unavailable_and_harms_nothing_else() {
    let Some(server) = Server::start() else { return };
    let _: () = server.admin().set("im_group:1", "text").unwrap();
    server.fill(2, &["5"]);
    let mut groups = server.groups();
    for _ in 0..3 {
        assert_eq!(groups.members(group(1)), Err(StoreError::Unavailable));
        assert_eq!(*groups.members(group(2)).unwrap(), [UserId(5)], "no breaker");
    }
    ask_until(|| clients(&server), |&count| count == 1);
}

#[test]
fn a_set_beyond_the_bound_is_refused_unread() {
    let Some(server) = Server::start() else { return };
    let ids: Vec<String> = (0..1001).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    server.fill(1, &ids[..1000]);
    server.fill(2, &ids);
    let mut groups = server.groups_with(RedisConfig { members_max: 1000, ..Default::default() });
    assert_eq!(groups.members(group(1)).unwrap().len(), 1000);
    assert_eq!(groups.members(group(2)), Err(StoreError::Full));
    assert_eq!(calls(&server, "smembers"), 1);
}

/// Connections of the gateway: all but the asking one.
fn clients(server: &Server) -> usize {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.admin()).unwrap();
    list.lines().count() - 1
}

fn calls(server: &Server, command: &str) -> u64 {
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut server.admin()).unwrap();
    let prefix = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or("0,");
    line.split(',').next().unwrap().parse().unwrap()
}

#[test]
fn connections_are_shared_bounded_and_shrink_to_the_pool_size() {
    let Some(server) = Server::start() else { return };
    server.fill(1, &["5"]);
    let config = RedisConfig { pool_size: 2, pool_max: 6, timeout: PATIENCE, ..Default::default() };
    let mut sources = server.groups_with(config).into_sources();
    assert_eq!(sources.len(), 6);
    for source in &mut sources {
        source.members(group(1)).unwrap();
    }
    // One at a time needs one connection. (The test's own take a moment to go.)
    ask_until(|| clients(&server), |&count| count == 1);

    // All six at once: nobody gets an answer before all have asked.
    ask_until(|| sockets(&server), |&count| count == 1);
    server.signal("-STOP");
    std::thread::scope(|scope| {
        for source in &mut sources {
            scope.spawn(|| source.members(group(1)).expect("an answer"));
        }
        ask_until(|| sockets(&server), |&count| count == 6);
        server.signal("-CONT");
    });
    ask_until(|| clients(&server), |&count| count == 2);
}

/// Ends of connections that the kernel holds for the server, accepted or not; the listening socket
/// is one more.
fn sockets(server: &Server) -> usize {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    table.lines().filter(|line| line.ends_with(&server.socket())).count() - 1
}

#[test]
fn a_restart_of_redis_goes_unnoticed_and_a_dead_one_is_answered_quickly() {
    let Some(mut server) = Server::start() else { return };
    server.fill(1, &["5"]);
    let mut groups = server.groups();
    assert_eq!(groups.members(group(1)).unwrap().len(), 1);

    server.kill();
    server.run(&[]);
    server.fill(1, &["5", "6"]);
    assert_eq!(groups.members(group(1)).unwrap().len(), 2, "the old connection was stale");

    server.kill();
    let start = Instant::now();
    for _ in 0..1000 {
        assert_eq!(groups.members(group(1)), Err(StoreError::Unavailable));
    }
    assert!(start.elapsed() < PATIENCE / 3, "{:?}", start.elapsed());

    server.run(&[]);
    server.fill(1, &["7"]);
    ask_until(|| groups.members(group(1)), |answer| answer.as_ref().is_ok_and(|m| m.len() == 1));
}

#[test]
fn the_default_url_form_works_over_tcp() {
    let Some(mut server) = Server::start() else { return };
    server.kill();
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port().to_string();
    drop(probe);
    server.run(&["--port", &port, "--bind", "127.0.0.1"]);
    server.fill(1, &["5"]);
    let url = format!("redis://127.0.0.1:{port}/1");
    let mut groups = RedisGroups::new(RedisConfig { url, ..Default::default() }).unwrap();
    assert_eq!(*groups.members(group(1)).unwrap(), [UserId(5)]);
}

#[test]
fn a_redis_that_hangs_costs_one_time_out_and_then_nothing() {
    let Some(server) = Server::start() else { return };
    server.fill(1, &["5"]);
    let timeout = Duration::from_millis(100);
    let mut groups = server.groups_with(RedisConfig { timeout, ..Default::default() });
    assert_eq!(groups.members(group(1)).unwrap().len(), 1);
    server.signal("-STOP");
    let start = Instant::now();
    assert_eq!(groups.members(group(1)), Err(StoreError::Unavailable));
    assert!(start.elapsed() >= timeout, "it waited for the answer");
    let start = Instant::now();
    assert_eq!(groups.members(group(1)), Err(StoreError::Unavailable));
    assert!(start.elapsed() < timeout, "the breaker answered");
    server.signal("-CONT");
    ask_until(|| groups.members(group(1)), |answer| answer.as_ref().is_ok_and(|m| m.len() == 1));
}
