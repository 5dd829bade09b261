//! Half a minute of every scenario against a gateway of its own: that all of it works, not how
//! fast.
//!
//! Owns: the gateway's process, its configuration and its ports. Never: judges a speed.

use crate::args::{Args, Command as Parsed, Smoke};
use crate::run::wait_for;
use clap::Parser;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Runs everything. `run` runs one scenario and says whether it was good. `false`: one was not.
///
/// # Errors
/// If the gateway cannot be built, started or ended in order.
pub(crate) fn smoke(args: &Smoke, run: impl Fn(&crate::Scenario) -> bool) -> Result<bool, String> {
    let temporary;
    let folder = match &args.out {
        Some(out) => {
            fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
            out.as_path()
        }
        None => {
            temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
            temporary.path()
        }
    };
    let program = gateway(args)?;
    let mut gateway = Gateway::start(&program, folder)?;
    let mut all_good = true;
    for (name, line) in gateway.scenarios(folder) {
        eprintln!("\n== {name}");
        let args = Args::try_parse_from(line);
        let Parsed::Load(scenario) = args.map_err(|error| error.to_string())?.command else {
            unreachable!("all lines load");
        };
        if !run(&scenario) {
            eprintln!("== {name}: FAILED");
            all_good = false;
        }
    }
    gateway.stop()?;
    println!("\nsmoke: {}", if all_good { "everything is good" } else { "FAILED" });
    Ok(all_good)
}

/// The gateway's program. Under `cargo run` it is built like this one.
fn gateway(args: &Smoke) -> Result<PathBuf, String> {
    if let Some(given) = &args.gateway {
        return Ok(given.clone());
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.parent().unwrap_or_else(|| Path::new("."));
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--package", "ringpost", "--bin", "ringpost"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let built = build.status().map_err(|error| format!("cargo: {error}"))?;
        if !built.success() {
            return Err("the gateway does not build".to_owned());
        }
    }
    let program = folder.join("ringpost");
    if !program.is_file() {
        return Err(format!("{} is not there: build it, or use --gateway", program.display()));
    }
    Ok(program)
}

struct Gateway {
    process: Child,
    config: PathBuf,
    program: PathBuf,
    log: PathBuf,
    /// As [`LISTENERS`].
    ports: [u16; LISTENERS.len()],
}

impl Gateway {
    fn start(program: &Path, folder: &Path) -> Result<Self, String> {
        let told = |error: io::Error| format!("{}: {error}", program.display());
        let ports = free_ports().map_err(told)?;
        let config = folder.join("ringpost.toml");
        fs::write(&config, configuration(folder, &ports)).map_err(told)?;
        let log_path = folder.join("ringpost.log");
        let log = fs::File::create(&log_path).map_err(told)?;
        let mut serve = Command::new(program);
        serve.args(["serve", "--config"]).arg(&config).stdout(Stdio::null()).stderr(log);
        let process = serve.spawn().map_err(told)?;
        let program = program.to_owned();
        let mut gateway = Self { process, config, program, log: log_path, ports };
        gateway.await_ports()?;
        let last = GROUP_FIRST + GROUP_MEMBERS;
        let members: Vec<_> = (GROUP_FIRST..last).map(|user| user.to_string()).collect();
        for group in [1, MIXED_GROUP] {
            gateway.create_group(group, &members.join(","))?;
        }
        Ok(gateway)
    }

    fn await_ports(&mut self) -> Result<(), String> {
        let end = Instant::now() + START;
        for port in self.ports {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                if let Ok(Some(status)) = self.process.try_wait() {
                    let log = fs::read_to_string(&self.log).unwrap_or_default();
                    return Err(format!("the gateway ended with {status}; its log:\n{log}"));
                }
                if Instant::now() > end {
                    return Err(format!("the gateway does not listen after {START:?}"));
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    fn create_group(&self, group: u32, members: &str) -> Result<(), String> {
        let mut create = Command::new(&self.program);
        create.args(["group", "create", "--config"]).arg(&self.config);
        create.args(["--id", &group.to_string(), "--members", members]);
        let output = create.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("group create: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(())
    }

    /// The words that say where one of the listeners is.
    fn target(&self, index: usize) -> String {
        let (pid, port) = (self.process.id(), self.ports[index]);
        let (protocol, transport, path) = LISTENERS[index];
        format!(
            "--protocol {protocol} --url {transport}://127.0.0.1:{port}{path} --server-pid {pid}"
        )
    }

    /// Each scenario's name and the words of its command line. Users of different scenarios are
    /// different.
    fn scenarios(&self, folder: &Path) -> Vec<(&'static str, Vec<OsString>)> {
        let [ws, wss, tcp, simple_text, simple_im, im_demo] =
            std::array::from_fn(|index| self.target(index));
        let quick = "--warm-up 0.2 --duration 1.5";
        let few = |at: &str, first: u32| {
            format!("perf pairs {at} {quick} --pairs 50 --depth 4 --first-user {first}")
        };
        let mixed = folder.join("mixed.toml");
        // Written when it is needed; a scenario that cannot read it says so.
        let _ = fs::write(&mixed, MIXED);
        vec![
            ("pairs", format!("perf pairs {ws} {quick} --pairs 200 --depth 8")),
            (
                "pairs across shards",
                format!(
                    "perf pairs {ws} {quick} --pairs 100 --first-user 1001 --shards {SHARDS} \
                     --placement cross-shard --rings 2"
                ),
            ),
            ("pairs over wss", few(&wss, 3001)),
            ("pairs over tcp", few(&tcp, 3201)),
            ("pairs of simple-text", few(&simple_text, 3401)),
            ("pairs of simple-im", few(&simple_im, 3601)),
            ("pairs of im-demo", few(&im_demo, 3801)),
            (
                "pairs on a schedule",
                format!("perf pairs {ws} {quick} --pairs 100 --first-user 4001 --rate 3000"),
            ),
            (
                "fan-out",
                format!(
                    "perf fanout {ws} {quick} --group 1 --first-user {GROUP_FIRST} --members \
                     {GROUP_MEMBERS} --depth 2"
                ),
            ),
            (
                "store and forward",
                format!(
                    "perf offline {ws} --warm-up 0 --duration 1.5 --pairs 50 --depth 8 \
                     --first-user 6001"
                ),
            ),
            ("logins", format!("perf connect {ws} {quick} --first-user 10001")),
            (
                "idle",
                format!(
                    "perf idle {ws} --connections 2000 --base 500 --settle 0.3 --duration 1 \
                     --first-user 20001"
                ),
            ),
            (
                "storm",
                format!(
                    "perf storm {ws} --connections 1000 --settle 0.3 --duration 0.5 --first-user \
                     30001"
                ),
            ),
            ("mixed", format!("perf mixed {ws} --first-user {GROUP_FIRST}")),
        ]
        .into_iter()
        .map(|(name, line)| {
            let json = folder.join(format!("{}.json", name.replace(' ', "-")));
            let mut words: Vec<OsString> = line.split_ascii_whitespace().map(From::from).collect();
            words.extend(["--label".into(), "ringpost".into(), "--json".into(), json.into()]);
            // A path may have spaces.
            words.extend((name == "mixed").then(|| mixed.clone().into()));
            (name, words)
        })
        .collect()
    }

    /// # Errors
    /// If it does not drain and end well.
    fn stop(&mut self) -> Result<(), String> {
        let pid = self.process.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        if !asked.is_ok_and(|status| status.success()) {
            return Err("the gateway cannot be told to stop".to_owned());
        }
        match wait_for(&mut self.process, STOP).map_err(|error| error.to_string())? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the gateway ended with {status}")),
            None => Err(format!("the gateway has not ended within {STOP:?}")),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // It was not stopped in order, and must not stay behind.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn configuration(folder: &Path, ports: &[u16; LISTENERS.len()]) -> String {
    let data = folder.join("data");
    let mut text = format!("[node]\nshards = {SHARDS}\ndata_dir = \"{}\"\n", data.display());
    for ((protocol, transport, path), port) in LISTENERS.iter().zip(ports) {
        let _ = writeln!(
            text,
            "[[listener]]\nprotocol = \"{protocol}\"\ntransport = \"{transport}\"\nbind = \
             \"127.0.0.1:{port}\""
        );
        if !path.is_empty() {
            let _ = writeln!(text, "path = \"{path}\"");
        }
    }
    text + "[http]\nbind = \"\"\n[auth]\nmode = \"open\"\n"
}

/// Protocol, transport and path.
const LISTENERS: [(&str, &str, &str); 6] = [
    ("binary", "ws", "/ws"),
    ("binary", "wss", "/wss"),
    ("binary", "tcp", ""),
    ("simple-text", "tcp", ""),
    ("simple-im", "tcp", ""),
    ("im-demo", "tcp", ""),
];

const SHARDS: u16 = 2;
const GROUP_FIRST: u32 = 50_001;
const GROUP_MEMBERS: u32 = 50;
const MIXED_GROUP: u32 = 1_000_000;
/// How long the gateway may take to listen, and how often that is looked at.
const START: Duration = Duration::from_secs(20);
/// Longer than the gateway's drain may take.
const STOP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Everything at once, on a small scale.
const MIXED: &str = "users = 500
settle_s = 0.3
seconds = 3
rounds = 2
churn_per_s = 20

[direct]
rate_per_s = 1000
payload = 100

[[group]]
id = 1000000
first_user = 50001
members = 50
rate_per_s = 20
payload = 300
";
