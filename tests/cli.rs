//! The commands of the built program, each on a store of its own in a temporary folder.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use storage::Admin as _;
use storage::SqliteStore;
use storage::sqlite::Options;
use tempfile::TempDir;

/// A folder with a configuration whose store lies in it.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        let text = format!("node.data_dir = {data:?}\n{more}");
        fs::write(folder.path().join("r.toml"), text).expect("the folder can be written");
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a UTF-8 path").to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringpost"))
            .args(arguments)
            .args(["--config", &self.path("r.toml")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that fails early does not read its input.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("the program ends")
    }

    /// Runs and gives what was printed.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("the program writes text")
    }

    /// Runs and gives the reason of the failure; the exit code must be 1.
    fn bad(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        stderr(&output)
    }

    fn store(&self) -> SqliteStore {
        let path = Path::new(&self.path("data")).join("ringpost.db");
        SqliteStore::open(&path, Options::default()).expect("the store is there")
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn users_are_made_listed_and_forgotten() {
    let site = Site::new();
    site.good(&["user", "add", "--id", "7", "--name", "ann", "--password", "x", "--phone", "+49"]);
    site.good(&["user", "add", "--id", "8", "--name", "ben", "--password", "x"]);
    assert_eq!(site.good(&["user", "list"]), "7\tann\t+49\n8\tben\t-\n");
    assert!(
        site.bad(&["user", "add", "--id", "7", "--name", "c", "--password", "x"]).contains("7")
    );
    let taken = site.bad(&["user", "add", "--id", "9", "--name", "ann", "--password", "x"]);
    assert!(taken.contains("\"ann\" is taken"), "{taken}");
    site.good(&["user", "del", "--name", "ann"]);
    site.good(&["user", "del", "--id", "8"]);
    assert_eq!(site.good(&["user", "list"]), "");
    assert!(site.bad(&["user", "del", "--name", "ann"]).contains("there is no user \"ann\""));
}

#[test]
fn passwords_are_kept_as_hashes_and_can_come_from_standard_input() {
    let site = Site::new();
    let add = ["user", "add", "--id", "1", "--name", "ann", "--password-stdin"];
    let output = site.run_with(&add, "correct horse\nsecond line\n");
    assert!(output.status.success(), "{}", stderr(&output));
    let file = fs::read(Path::new(&site.path("data")).join("ringpost.db")).expect("the store");
    let holds = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"$argon2id$") && !holds(b"correct horse"));
}

#[test]
fn many_users_are_made_at_once_or_not_at_all() {
    let site = Site::new();
    let many = |id: &str, count: &str| {
        let count = ["--count", count, "--name-template", "u{n}", "--password", "x"];
        site.run(&[&["user", "add", "--id", id], &count[..]].concat())
    };
    assert!(many("1", "5000").status.success());
    let list = site.good(&["user", "list"]);
    assert_eq!(list.lines().count(), 5000);
    assert!(list.contains("\n42\tu42\t-\n"));
    assert_eq!(many("4999", "10").status.code(), Some(1), "two of them are taken");
    assert_eq!(site.good(&["user", "list"]).lines().count(), 5000, "none was made");
    assert!(stderr(&many("4294967295", "2")).contains("use a smaller --id"));
    let plain = site.bad(&[
        "user",
        "add",
        "--id",
        "1",
        "--count",
        "2",
        "--password",
        "x",
        "--name-template",
        "u",
    ]);
    assert!(plain.contains("needs {n}"), "{plain}");
}

#[test]
fn groups_are_made_changed_listed_and_forgotten() {
    let site = Site::new();
    site.good(&["group", "create", "--id", "12", "--members", "1,2,3"]);
    site.good(&["group", "create", "--id", "13"]);
    site.good(&["group", "add", "--id", "13", "--members", "4"]);
    let removed = site.good(&["group", "remove", "--id", "12", "--members", "2,99"]);
    assert_eq!(removed, "1 removed from group 12\n");
    assert_eq!(site.good(&["group", "list"]), "12\t2 members\n13\t1 members\n");
    site.good(&["group", "remove", "--id", "13"]);
    assert_eq!(site.good(&["group", "list"]), "12\t2 members\n");
    assert!(site.bad(&["group", "create", "--id", "12"]).contains("the group id 12 is taken"));
    assert!(site.bad(&["group", "add", "--id", "5", "--members", "1"]).contains("no group 5"));
}

#[test]
fn tenants_have_users_of_their_own() {
    let site = Site::new();
    let add = |tenant: &[&str]| {
        let user = ["user", "add", "--id", "1", "--name", "ann", "--password", "x"];
        site.good(&[&user[..], tenant].concat())
    };
    add(&[]);
    add(&["--org", "acme", "--appkey", "chat"]);
    add(&["--org", "acme"]);
    assert_eq!(site.good(&["user", "list", "--org", "acme", "--appkey", "chat"]), "1\tann\t-\n");
    assert_eq!(site.good(&["user", "list", "--org", "other"]), "");
    let tenants = site.store().tenants().expect("readable");
    let names: Vec<_> = tenants.iter().map(|t| format!("{}/{}", t.org, t.appkey)).collect();
    assert!(names.contains(&"acme/chat".to_owned()), "{names:?}");
    assert!(names.contains(&"acme/default".to_owned()), "{names:?}");
    assert!(site.bad(&["user", "list", "--org", "a/b"]).contains("is no tenant"));
}

#[test]
fn dead_letters_that_are_not_there_are_not_changed() {
    let site = Site::new();
    assert_eq!(site.good(&["deadletter", "list"]), "");
    assert_eq!(site.good(&["deadletter", "requeue", "--all"]), "0 put back\n");
    assert_eq!(site.good(&["deadletter", "drop", "--all"]), "0 forgotten\n");
    assert!(site.bad(&["deadletter", "drop", "7"]).contains("there is no dead letter 7"));
}

#[test]
fn dead_letters_are_listed_put_back_and_forgotten() {
    use codec::{Message, ProtocolId, Target, TenantId, UserId, UserKey};
    use storage::store::Write;
    use storage::{Append, DeadReason, Store as _};

    let site = Site::new();
    let user = UserKey { tenant: TenantId(0), id: UserId(5) };
    let mut store = site.store();
    for seq in 1..=3 {
        let message = Message {
            stamp: u128::from(seq),
            id: [b'a'; 32].into(),
            from: Some(UserKey { id: UserId(6), ..user }),
            from_name: std::sync::Arc::default(),
            to: Target::User(user),
            protocol: ProtocolId::ALL[0],
            time_ms: 0,
            body: Box::from(*b"not to be shown"),
        };
        let append = Append { user, seq, message: message.into(), binding: None };
        let dead = Write::DeadLetter { user, seq, reason: DeadReason::Poison };
        let written = store.write(&[Write::Append(append), dead]);
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    }
    let list = site.good(&["deadletter", "list"]);
    assert_eq!(list.lines().count(), 3);
    assert!(list.contains("\tdefault/default user 5\tpoison\tfrom 6, 15 bytes, id aaaa"), "{list}");
    assert!(!list.contains("not to be shown"));
    let first = list.split('\t').next().expect("a number");
    assert_eq!(site.good(&["deadletter", "requeue", first]), "1 put back\n");
    assert_eq!(site.good(&["deadletter", "drop", "--all"]), "2 forgotten\n");
    assert_eq!(site.good(&["deadletter", "list"]), "");
    let (rows, _) = store.read(user, 0, 10, 1000).expect("readable");
    assert_eq!(rows.len(), 1);
}

#[test]
fn the_exit_code_tells_wrong_usage_from_a_wrong_configuration() {
    let site = Site::with("[delivery]\nretry_max = 1000\n");
    for command in [&["check"][..], &["serve"], &["user", "list"], &["doctor"], &["chat", "a"]] {
        let output = site.run(command);
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        let expected = format!("{}:3:13: delivery.retry_max: 1000 is", site.path("r.toml"));
        assert!(stderr(&output).starts_with(&expected), "{}", stderr(&output));
    }
    for wrong in [&["frobnicate"][..], &["user", "add"], &["chat"], &["group", "add", "--id", "x"]]
    {
        assert_eq!(Site::new().run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_missing_certificate_is_found_by_check() {
    let site = Site::with("[tls]\ncert = \"/nonexistent.pem\"\nkey = \"/nonexistent.key\"\n");
    let output = site.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).starts_with("/nonexistent.pem: no certificate: "));
}

#[test]
fn the_environment_overrides_the_file() {
    let site = Site::with("[delivery]\nretry_max = 1\n");
    let check = |name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        command.args(["check", "--config", &site.path("r.toml")]).env(name, value);
        command.output().expect("the program runs")
    };
    let output = check("RINGPOST_NODE_SHARDS", "3");
    assert!(String::from_utf8_lossy(&output.stdout).contains("3 shards"));
    let output = check("RINGPOST_NODE_SHRDS", "3");
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("did you mean RINGPOST_NODE_SHARDS?"));
}

#[test]
fn chat_says_why_there_is_no_conversation() {
    let site = Site::new();
    let wrong = site.bad(&["chat", "alice", "--url", "wss://127.0.0.1:1/ws"]);
    assert!(wrong.contains("is not a ws:// URL"), "{wrong}");
    let nobody = site.bad(&["chat", "stranger"]);
    assert!(nobody.contains("stranger needs --password"), "{nobody}");
    // Port 1 refuses; the end of the input ends the attempts.
    let output = site.run(&["chat", "alice", "--url", "ws://127.0.0.1:1/ws"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("never logged in"), "{}", stderr(&output));
    let tries = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(tries.contains("no connection (127.0.0.1:1: "), "{tries}");
}
