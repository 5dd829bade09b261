//! The command line: names, defaults and bounds of everything that can be chosen.
//!
//! Owns: parsing and refusing. Never: runs anything.

use crate::check::MIN_PAYLOAD;
use crate::client::Endpoint;
use crate::scenario::traffic::{Placement, Profile};
use crate::scenario::{Setup, traffic};
use crate::show::Show;
use clap::{Parser, Subcommand, ValueEnum, value_parser};
use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Honest load for the gateway and its rivals: every message is checked.
#[derive(Debug, Parser)]
#[command(name = "ringpost-perf", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Load(Box<Scenario>),
    #[command(flatten)]
    Show(Show),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Pairs of users, one sending to the other.
    Pairs(Pairs),
    /// Groups with one sender each.
    Fanout(Fanout),
    /// Store and forward: messages to users who are away, who then come and fetch them.
    Offline(Offline),
    /// Logged-in connections that are only held.
    Idle(Idle),
    /// Logins as fast as they go.
    Connect(Connect),
    /// Everybody is thrown out at once, and wants back.
    Storm(Storm),
    /// A blend from a TOML file, see perf/scenarios.
    Mixed(Mixed),
    /// Half a minute of everything against a gateway of its own: does all of it work?
    Smoke(Smoke),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pairs {
    #[command(flatten)]
    pub load: LoadArgs,
    /// Pairs: user 1 sends to 2, 3 to 4, ...
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub pairs: u32,
    /// Where the users of a pair live; needs --shards.
    #[arg(long, value_enum, default_value_t = Placement::Mixed)]
    pub placement: Placement,
    /// The gateway's number of shards, for --placement.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=1024))]
    pub shards: u16,
    #[command(flatten)]
    pub messages: Messages,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub load: LoadArgs,
    /// Members of a group, the sender (its first user) included; he gets no copy.
    #[arg(long, default_value_t = 1001, value_parser = value_parser!(u32).range(2..=1_000_000))]
    pub members: u32,
    /// Groups, each with members of its own.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    pub groups: u32,
    /// The first group's id. The groups must exist: the first with the users 1 to --members, the
    /// next with the users after them, and so on.
    #[arg(long, default_value_t = 1)]
    pub group: u32,
    #[command(flatten)]
    pub messages: Messages,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Offline {
    #[command(flatten)]
    pub load: LoadArgs,
    /// Pairs: user 1 sends to 2, who is not there, 3 to 4, ...
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub pairs: u32,
    #[command(flatten)]
    pub messages: Messages,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub crowd: CrowdArgs,
    /// Where the memory slope begins; fewer than --connections.
    #[arg(long, default_value_t = 3_000)]
    pub base: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub crowd: CrowdArgs,
    /// Restarts the server (run by sh); without it the clients hang up by themselves.
    #[arg(long)]
    pub command: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CrowdArgs {
    #[arg(long, default_value_t = 15_000, value_parser = value_parser!(u32).range(1..=2_000_000))]
    pub connections: u32,
    /// Seconds of rest before each reading of the server's memory.
    #[arg(long, default_value_t = 2.0)]
    settle: f64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Mixed {
    #[command(flatten)]
    pub load: LoadArgs,
    /// The scenario file.
    pub file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Smoke {
    /// The gateway's program; next to this one if not given.
    #[arg(long)]
    pub gateway: Option<PathBuf>,
    /// Where reports stay; a temporary folder if not given.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// What the messages are like, and when they are sent.
#[derive(Debug, clap::Args)]
pub(crate) struct Messages {
    /// Messages in flight per sender; in an open loop the bound of it.
    #[arg(long, value_parser = value_parser!(u16).range(1..=4096))]
    depth: Option<u16>,
    /// Payload bytes on the wire; where that carries only text, three quarters of them are payload.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u16).range(PAYLOAD))]
    payload: u16,
    /// Open loop: messages per second of all senders together, on a schedule.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Open loop in steps: SECONDSxRATE, one after the other, as in 10x5000,10x80000,10x5000.
    #[arg(long, conflicts_with = "rate", value_delimiter = ',', value_parser = step)]
    steps: Vec<(Duration, f64)>,
    /// Open loop: scheduled messages that wait longer than these milliseconds for a free place in
    /// flight are given up, and counted.
    #[arg(long, default_value_t = 60_000)]
    late_ms: u64,
}

/// What every scenario takes.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Where the server is: tcp://HOST:PORT or tls://...; for binary ws://HOST:PORT/PATH and
    /// wss://..., too.
    #[arg(long)]
    url: String,
    #[arg(long, value_enum, default_value_t = Protocol::Binary)]
    pub protocol: Protocol,
    /// MQTT's quality of service. With binary 0 means receivers that acknowledge nothing, for a
    /// gateway with `protocol.binary.require_push_ack = false`.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(0..=1))]
    qos: u8,
    /// The number of the first user; user n logs in as `u<n>`.
    #[arg(long, default_value_t = 1)]
    first_user: u32,
    /// Logins in progress at a time.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// Logins begun per second, of all workers together; as fast as they go if not given.
    #[arg(long, value_parser = rate)]
    ramp_rate: Option<f64>,
    /// Threads, each with a ring of its own; as few as the limit of open files allows if not given.
    #[arg(long, value_parser = value_parser!(u16).range(1..=256))]
    rings: Option<u16>,
    /// Addresses of this machine to connect from, in turn; 127.0.0.2 to 127.0.0.250 towards a
    /// loopback server if not given.
    #[arg(long, value_delimiter = ',')]
    bind_addrs: Vec<IpAddr>,
    /// Seconds without any progress after which the server counts as stuck.
    #[arg(long, default_value_t = 10.0)]
    patience: f64,
    /// Seconds of measuring (idle: of holding).
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Seconds of load before measuring.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// The server's process, for its CPU time and memory.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// What the server says of its own version, for the report: it is not asked.
    #[arg(long, value_name = "TEXT")]
    pub server_version: Option<String>,
    /// The server has no messages of an earlier run: one that arrives nevertheless is a fault.
    #[arg(long)]
    pub fresh: bool,
    /// What to call the server in tables; the protocol if not given.
    #[arg(long)]
    label: Option<String>,
    /// Writes the report to this file, too.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Draws the report as one HTML file, too.
    #[arg(long)]
    pub html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// The binary system.
    Binary,
    /// JSON lines. Nothing is acknowledged: a message is done when it has arrived.
    SimpleText,
    /// The TOML packets of simple_im, in the document's dialect.
    SimpleIm,
    /// Protobuf Commands with the extension, in the tenant default/default.
    ImDemo,
    /// MQTT 3.1.1.
    Mqtt,
    /// The bare relays of `benches/runtimes`, without TLS; only `pairs`, `idle` and `connect`, with
    /// whole pairs: the first user is odd, and their number even.
    Relay,
}

impl Scenario {
    /// What is common to all; [`Smoke`] makes its own.
    pub(crate) fn load_args(&self) -> Option<&LoadArgs> {
        match self {
            Self::Pairs(Pairs { load, .. })
            | Self::Fanout(Fanout { load, .. })
            | Self::Offline(Offline { load, .. })
            | Self::Idle(Idle { load, .. })
            | Self::Connect(Connect { load })
            | Self::Storm(Storm { load, .. })
            | Self::Mixed(Mixed { load, .. }) => Some(load),
            Self::Smoke(_) => None,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Pairs(_) => "pairs",
            Self::Fanout(_) => "fanout",
            Self::Offline(_) => "offline",
            Self::Idle(_) => "idle",
            Self::Connect(_) => "connect",
            Self::Storm(_) => "storm",
            Self::Mixed(_) => "mixed",
            Self::Smoke(_) => "smoke",
        }
    }

    /// Names the scenario and everything that makes runs comparable.
    pub(crate) fn shape(&self) -> String {
        match self {
            Self::Pairs(Pairs { pairs, placement, messages, .. }) => {
                let placed = match placement {
                    Placement::Mixed => "",
                    Placement::SameShard => " on the same shard",
                    Placement::CrossShard => " across shards",
                };
                format!("pairs {pairs}{placed} x {messages}")
            }
            Self::Fanout(Fanout { members, groups: 1, messages, .. }) => {
                format!("fanout 1 -> {} x {messages}", members - 1)
            }
            Self::Fanout(Fanout { members, groups, messages, .. }) => {
                format!("fanout {groups} x 1 -> {} x {messages}", members - 1)
            }
            Self::Offline(Offline { pairs, messages, .. }) => {
                format!("offline {pairs} x {messages}")
            }
            Self::Idle(Idle { crowd, base, .. }) => {
                format!("idle {}, slope from {base}", crowd.connections)
            }
            Self::Connect(Connect { load }) => format!("connect {} at a time", load.concurrency),
            Self::Storm(Storm { crowd, command, .. }) => {
                let cause = if command.is_some() { "a restart" } else { "hanging up" };
                format!("storm {} after {cause}", crowd.connections)
            }
            Self::Mixed(Mixed { file, .. }) => format!("mixed {}", file.display()),
            Self::Smoke(_) => "smoke".to_owned(),
        }
    }
}

impl Idle {
    /// The base as a share of all.
    pub(crate) fn base_share(&self) -> Result<f64, String> {
        if self.base >= self.crowd.connections {
            return Err("--base must be fewer than --connections".to_owned());
        }
        Ok(f64::from(self.base) / f64::from(self.crowd.connections))
    }
}

impl CrowdArgs {
    pub(crate) fn settle(&self) -> Duration {
        seconds(self.settle)
    }
}

impl Messages {
    pub(crate) fn profile(&self, load: &LoadArgs) -> Profile {
        match (self.rate, &self.steps[..]) {
            (None, []) => Profile::Closed,
            (Some(rate), _) => Profile::Open(vec![(seconds(load.duration), rate)]),
            (None, steps) => Profile::Open(steps.to_vec()),
        }
    }

    pub(crate) fn is_open_loop(&self) -> bool {
        self.rate.is_some() || !self.steps.is_empty()
    }

    /// # Errors
    /// If the payload is too short for this protocol.
    pub(crate) fn shape(
        &self,
        setup: &Setup,
        receivers: usize,
        await_arrival: bool,
    ) -> Result<traffic::Shape, String> {
        Ok(traffic::Shape {
            receivers,
            depth: self.depth.unwrap_or_else(|| if self.is_open_loop() { OPEN_DEPTH } else { 1 }),
            payload: setup.payload(usize::from(self.payload))?,
            await_arrival,
            late_max_ns: self.late_ms.saturating_mul(1_000_000),
        })
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rate, &self.steps[..]) {
            (None, []) => write!(f, "{} in flight", self.depth.unwrap_or(1))?,
            (Some(rate), _) => write!(f, "open loop at {rate}/s")?,
            (None, steps) => {
                write!(f, "open loop at ")?;
                for (index, (time, rate)) in steps.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{rate}/s for {} s", time.as_secs_f64())?;
                }
            }
        }
        write!(f, ", {} bytes", self.payload)
    }
}

impl LoadArgs {
    pub(crate) fn label(&self) -> String {
        self.label.clone().unwrap_or_else(|| self.protocol.name())
    }

    pub(crate) fn setup(&self) -> Setup {
        // Only has to differ from one run to the next.
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u32);
        Setup {
            run,
            first_user: self.first_user,
            qos: self.qos,
            acked: self.protocol.acknowledges(self.qos),
            stores: self.protocol.stores(),
            text: self.protocol.is_text(),
            login_concurrency: usize::from(self.concurrency),
            ramp_per_s: self.ramp_rate,
            warm_up: seconds(self.warm_up),
            duration: seconds(self.duration),
            patience: seconds(self.patience),
            server_pid: self.server_pid,
            rings: self.rings.map(usize::from),
        }
    }

    pub(crate) fn bind_addrs(&self) -> &[IpAddr] {
        &self.bind_addrs
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint, String> {
        let schemes: &[&str] = match self.protocol {
            Protocol::Binary => &["ws://", "wss://", "tcp://", "tls://"],
            Protocol::Relay => &["tcp://"],
            _ => &["tcp://", "tls://"],
        };
        let found = schemes.iter().find_map(|s| Some((self.url.strip_prefix(s)?, *s)));
        let Some((rest, scheme)) = found else {
            return Err(format!("--url {}: expected {}", self.url, schemes.join(" or ")));
        };
        let (tls, ws) = (matches!(scheme, "wss://" | "tls://"), scheme.starts_with("ws"));
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let mut addresses =
            host.to_socket_addrs().map_err(|error| format!("--url {}: {error}", self.url))?;
        let address = addresses.next().ok_or_else(|| format!("{host} has no address"))?;
        Ok(Endpoint { address, host: host.to_owned(), path: path.to_owned(), tls, ws })
    }
}

impl Protocol {
    /// As on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The server tells senders that it has their messages.
    fn acknowledges(self, qos: u8) -> bool {
        match self {
            Self::Mqtt => qos > 0,
            Self::SimpleText => false,
            Self::Binary | Self::SimpleIm | Self::ImDemo | Self::Relay => true,
        }
    }

    /// The server keeps messages to absent users.
    fn stores(self) -> bool {
        !matches!(self, Self::Mqtt | Self::Relay)
    }

    /// The wire carries only text.
    fn is_text(self) -> bool {
        matches!(self, Self::SimpleText | Self::SimpleIm | Self::ImDemo)
    }
}

/// Negative and absurd times become none at all, or a day.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, 86_400.0) } else { 0.0 })
}

/// `SECONDSxRATE`.
fn step(text: &str) -> Result<(Duration, f64), String> {
    let (time, per_s) = text.split_once('x').ok_or("expected SECONDSxRATE, as in 10x5000")?;
    let time: f64 = time.parse().map_err(|_| format!("{time} is no number of seconds"))?;
    if !(0.1..=86_400.0).contains(&time) {
        return Err("a step lasts from 0.1 to 86400 seconds".to_owned());
    }
    Ok((seconds(time), rate(per_s)?))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if (0.01..=1e7).contains(&rate) { Ok(rate) } else { Err("from 0.01 to 1e7 per second".into()) }
}

/// Messages in flight per sender in an open loop: far more than a server that keeps up needs.
const OPEN_DEPTH: u16 = 1024;
/// Below, no stamp fits; above, the binary system's Java clients could not read it.
const PAYLOAD: std::ops::RangeInclusive<i64> = MIN_PAYLOAD as i64..=32_767;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn load(line: &str) -> Result<LoadArgs, clap::Error> {
        let Command::Load(scenario) = Args::try_parse_from(line.split(' '))?.command else {
            panic!("{line} is no scenario");
        };
        let Scenario::Connect(Connect { load }) = *scenario else {
            panic!("{line} is another scenario");
        };
        Ok(load)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_url_of_another_protocol_is_refused_with_what_would_be_right() {
        let args = load("perf connect --protocol mqtt --url tcp://127.0.0.1:1883").expect("args");
        assert_eq!(args.endpoint().expect("an endpoint").address.port(), 1883);
        let args = load("perf connect --protocol mqtt --url ws://127.0.0.1:1/").expect("args");
        assert!(args.endpoint().expect_err("ws").contains("tcp://"));
        let args = load("perf connect --protocol im-demo --url tls://127.0.0.1:1").expect("args");
        let endpoint = args.endpoint().expect("an endpoint");
        assert_eq!((endpoint.tls, endpoint.ws, args.label().as_str()), (true, false, "im-demo"));
        let args = load("perf connect --url wss://127.0.0.1:8443/wss").expect("args");
        let endpoint = args.endpoint().expect("an endpoint");
        assert_eq!((endpoint.tls, endpoint.ws, endpoint.path.as_str()), (true, true, "/wss"));
        let args = load("perf connect --protocol mqtt --url tcp://nothing").expect("args");
        assert!(args.endpoint().is_err());
    }

    #[test]
    fn a_payload_too_short_to_be_checked_is_refused() {
        let line = "perf pairs --url ws://127.0.0.1:1/ws --payload 43";
        assert!(Args::try_parse_from(line.split(' ')).is_err());
        let setup = |line| load(line).expect("args").setup();
        let binary = setup("perf connect --url tcp://127.0.0.1:1");
        assert_eq!((binary.payload(44), binary.payload(100)), (Ok(44), Ok(100)));
        let text = setup("perf connect --protocol simple-text --url tcp://127.0.0.1:1");
        assert_eq!((text.payload(59), text.payload(100)), (Ok(44), Ok(75)));
        assert!(text.payload(58).is_err());
    }
}
