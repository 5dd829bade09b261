//! The command line: names, defaults and bounds of everything that can be chosen.
//!
//! Owns: parsing and refusing. Never: runs anything.

use crate::check::MIN_PAYLOAD;
use crate::client::Endpoint;
use crate::scenario::{Setup, idle, traffic};
use crate::show::Show;
use clap::{Parser, Subcommand, ValueEnum, value_parser};
use std::net::ToSocketAddrs;
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
    Load(Scenario),
    #[command(flatten)]
    Show(Show),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Pairs of users, one sending to the other.
    Pairs(Pairs),
    /// One sender and a group.
    Fanout(Fanout),
    /// Logged-in connections that are only held.
    Idle(Idle),
    /// Logins as fast as they go.
    Connect(Connect),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pairs {
    #[command(flatten)]
    load: LoadArgs,
    /// Pairs: user 1 sends to 2, 3 to 4, ...
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(1..=500_000))]
    pairs: u32,
    #[command(flatten)]
    messages: Messages,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    load: LoadArgs,
    /// Members, the sender (the first user) included; he gets no copy.
    #[arg(long, default_value_t = 1001, value_parser = value_parser!(u32).range(2..=1_000_000))]
    members: u32,
    /// The group's id; it must exist with the users 1 to --members in it.
    #[arg(long, default_value_t = 1)]
    group: u32,
    #[command(flatten)]
    messages: Messages,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Idle {
    #[command(flatten)]
    load: LoadArgs,
    #[arg(long, default_value_t = 15_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Where the memory slope begins; fewer than --connections.
    #[arg(long, default_value_t = 3_000)]
    base: u32,
    /// Seconds of rest before each reading of the server's memory.
    #[arg(long, default_value_t = 2.0)]
    settle: f64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    load: LoadArgs,
}

/// What the messages are like.
#[derive(Debug, clap::Args)]
struct Messages {
    /// Messages in flight per sender.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=4096))]
    depth: u16,
    /// Payload bytes.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u16).range(PAYLOAD))]
    payload: u16,
}

/// What every scenario takes.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Where the server is: ws://HOST:PORT/PATH or wss://... for binary, tcp:// or tls:// for mqtt.
    #[arg(long)]
    url: String,
    #[arg(long, value_enum, default_value_t = Protocol::Binary)]
    pub protocol: Protocol,
    /// MQTT's quality of service.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(0..=1))]
    qos: u8,
    /// The number of the first user; user n logs in as `u<n>`.
    #[arg(long, default_value_t = 1)]
    first_user: u32,
    /// Logins in progress at a time.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// Seconds of measuring (idle: of holding).
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Seconds of load before measuring.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// The server's process, for its CPU time and memory.
    #[arg(long)]
    pub server_pid: Option<u32>,
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
    /// The binary system over ws or wss.
    Binary,
    /// MQTT 3.1.1 over TCP or TLS.
    Mqtt,
}

impl Scenario {
    pub(crate) fn load_args(&self) -> &LoadArgs {
        match self {
            Self::Pairs(Pairs { load, .. })
            | Self::Fanout(Fanout { load, .. })
            | Self::Idle(Idle { load, .. })
            | Self::Connect(Connect { load }) => load,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Pairs(_) => "pairs",
            Self::Fanout(_) => "fanout",
            Self::Idle(_) => "idle",
            Self::Connect(_) => "connect",
        }
    }

    /// Names the scenario and everything that makes runs comparable.
    pub(crate) fn shape(&self) -> String {
        match self {
            Self::Pairs(Pairs { pairs, messages: Messages { depth, payload }, .. }) => {
                format!("pairs {pairs} x {depth} in flight, {payload} bytes")
            }
            Self::Fanout(Fanout { members, messages: Messages { depth, payload }, .. }) => {
                format!("fanout 1 -> {} x {depth} in flight, {payload} bytes", members - 1)
            }
            Self::Idle(Idle { connections, base, .. }) => {
                format!("idle {connections}, slope from {base}")
            }
            Self::Connect(Connect { load }) => format!("connect {} at a time", load.concurrency),
        }
    }
}

impl Pairs {
    pub(crate) fn traffic(&self) -> traffic::Shape {
        self.messages.shape(&self.load, self.pairs as usize, 1, None)
    }
}

impl Fanout {
    pub(crate) fn traffic(&self) -> traffic::Shape {
        self.messages.shape(&self.load, 1, self.members as usize - 1, Some(self.group))
    }
}

impl Idle {
    pub(crate) fn idle(&self) -> Result<idle::Shape, String> {
        if self.base >= self.connections {
            return Err("--base must be fewer than --connections".to_owned());
        }
        Ok(idle::Shape {
            base: self.base as usize,
            connections: self.connections as usize,
            settle: seconds(self.settle),
        })
    }
}

impl Messages {
    fn shape(
        &self,
        load: &LoadArgs,
        senders: usize,
        receivers: usize,
        group: Option<u32>,
    ) -> traffic::Shape {
        traffic::Shape {
            senders,
            receivers,
            group,
            depth: self.depth,
            payload: usize::from(self.payload),
            acked: load.protocol != Protocol::Mqtt || load.qos > 0,
        }
    }
}

impl LoadArgs {
    pub(crate) fn label(&self) -> String {
        self.label.clone().unwrap_or_else(|| format!("{:?}", self.protocol).to_lowercase())
    }

    pub(crate) fn setup(&self) -> Setup {
        // Only has to differ from one run to the next.
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u32);
        Setup {
            run,
            first_user: self.first_user,
            qos: self.qos,
            login_concurrency: usize::from(self.concurrency),
            warm_up: seconds(self.warm_up),
            duration: seconds(self.duration),
            patience: PATIENCE,
            server_pid: self.server_pid.map(|pid| pid.to_string()),
        }
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint, String> {
        let schemes: &[(&str, bool)] = match self.protocol {
            Protocol::Binary => &[("ws://", false), ("wss://", true)],
            Protocol::Mqtt => &[("tcp://", false), ("tls://", true)],
        };
        let found = schemes.iter().find_map(|(s, tls)| Some((self.url.strip_prefix(s)?, *tls)));
        let Some((rest, tls)) = found else {
            let names: Vec<_> = schemes.iter().map(|(scheme, _)| *scheme).collect();
            return Err(format!("--url {}: expected {}", self.url, names.join(" or ")));
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let mut addresses =
            host.to_socket_addrs().map_err(|error| format!("--url {}: {error}", self.url))?;
        let address = addresses.next().ok_or_else(|| format!("{host} has no address"))?;
        Ok(Endpoint { address, host: host.to_owned(), path: path.to_owned(), tls })
    }
}

/// Negative and absurd times become none at all, or a day.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, 86_400.0) } else { 0.0 })
}

/// Longer than a server's first retries.
const PATIENCE: Duration = Duration::from_secs(10);
/// Below, no stamp fits; above, the binary system's Java clients could not read it.
const PAYLOAD: std::ops::RangeInclusive<i64> = MIN_PAYLOAD as i64..=32_767;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn load(line: &str) -> Result<LoadArgs, clap::Error> {
        let Command::Load(Scenario::Connect(Connect { load })) =
            Args::try_parse_from(line.split(' '))?.command
        else {
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
        let args = load("perf connect --url wss://127.0.0.1:8443/wss").expect("args");
        let endpoint = args.endpoint().expect("an endpoint");
        assert_eq!((endpoint.tls, endpoint.path.as_str()), (true, "/wss"));
        let args = load("perf connect --protocol mqtt --url tcp://nothing").expect("args");
        assert!(args.endpoint().is_err());
    }

    #[test]
    fn a_payload_too_short_to_be_checked_is_refused() {
        let line = "perf pairs --url ws://127.0.0.1:1/ws --payload 43";
        assert!(Args::try_parse_from(line.split(' ')).is_err());
    }
}
