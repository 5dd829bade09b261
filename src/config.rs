//! The configuration: one TOML file, overridden by the environment, checked as a whole.
//!
//! Owns: [`Config`], the validated form that the rest of the program sees, and the rules between
//! keys. Never: names, defaults and ranges (those are rows of [`keys`]), or anything that opens a
//! socket or a store. All problems are reported at once, each with its place and what would be
//! right.

pub(crate) mod keys;
mod parse;
mod protocols;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use codec::ProtocolId;
use shards::config::AddressRange;

use keys::{
    Ack, AuthMode, GroupSource, ListenerAck, ListenerKeys, Raw, StoreBackend, Transport, Value,
};
use parse::{Parsed, Problem};

pub(crate) use keys::reference;

/// What the operator decided, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Every value as written; those below are the ones that had to be understood.
    pub(crate) keys: Raw,
    /// `node.tenant` first, then those that only listeners name. No two are equal.
    pub(crate) tenants: Vec<Tenant>,
    /// At least one, at most [`LISTENERS_MAX`].
    pub(crate) listeners: Vec<Listener>,
    /// The HTTP API.
    pub(crate) http: Option<SocketAddr>,
    /// Metrics and health; may be the same as [`Self::http`].
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) certificate: Certificate,
    pub(crate) protocols: codec::Settings,
    /// No two are equal.
    pub(crate) realms: Vec<Realm>,
    /// Every key but the listeners', dotted, to find out what a reload changes.
    values: BTreeMap<String, Value>,
}

/// What differs between two configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Dotted keys that SIGHUP applies.
    pub(crate) applied: Vec<String>,
    /// Dotted keys that need a restart.
    pub(crate) restart: Vec<String>,
}

/// A tenant by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tenant {
    pub(crate) org: String,
    pub(crate) appkey: String,
}

impl Tenant {
    /// Both parts are there, not too long, and tell each other apart when written as one.
    pub(crate) fn is_valid(&self) -> bool {
        [&self.org, &self.appkey]
            .iter()
            .all(|part| (1..=TENANT_PART_MAX).contains(&part.len()) && !part.contains('/'))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.appkey)
    }
}

/// How the logins of some listeners are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Realm {
    pub(crate) mode: AuthMode,
    /// A known name without a password passes.
    pub(crate) password_optional: bool,
    /// Tokens that were handed out over HTTP pass, too.
    pub(crate) tokens: bool,
}

/// A host and a port as clients are told them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Where a protocol is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) protocol: ProtocolId,
    pub(crate) transport: Transport,
    pub(crate) bind: SocketAddr,
    /// ws and wss: the paths that are accepted, the one to advertise first. Else empty.
    pub(crate) paths: Vec<String>,
    /// Index into [`Config::tenants`].
    pub(crate) tenant: usize,
    pub(crate) ack: Ack,
    /// Index into [`Config::realms`].
    pub(crate) realm: usize,
    /// Peers that may connect; empty: everyone.
    pub(crate) allow: Vec<AddressRange>,
}

impl Listener {
    /// What a client connects to.
    pub(crate) fn url(&self) -> String {
        let path = self.paths.first().map_or("", String::as_str);
        format!("{}://{}{path}", self.transport.name(), self.bind)
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls | Transport::Wss)
    }
}

/// Where the certificate of tls and wss comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
    /// Made on first start in this folder.
    SelfSigned {
        folder: PathBuf,
    },
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub(crate) struct ConfigErrors {
    file: String,
    problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&problem.line(&self.file))?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads `file` (`None`: all defaults) and the environment of the process.
    ///
    /// # Errors
    /// All that is wrong, one line each.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, ConfigErrors> {
        let name = file.map_or_else(|| "defaults".to_owned(), |file| file.display().to_string());
        let text = match file.map_or(Ok(String::new()), std::fs::read_to_string) {
            Ok(text) => text,
            Err(error) => {
                let problems = vec![Problem::unplaced(format!("cannot be read: {error}"))];
                return Err(ConfigErrors { file: name, problems });
            }
        };
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self::from_text(&text, environment)
            .map_err(|problems| ConfigErrors { file: name, problems })
    }

    /// The whole way without files.
    fn from_text(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        let parsed = parse::parse(text, environment)?;
        let mut checker = Checker { parsed: &parsed, problems: Vec::new() };
        let config = checker.config();
        match checker.problems {
            problems if problems.is_empty() => Ok(config),
            problems => Err(problems),
        }
    }

    /// Shard threads, at least one.
    pub(crate) fn shards(&self) -> u16 {
        match self.keys.node.shards {
            0 => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                u16::try_from(cores).unwrap_or(SHARDS_MAX).min(SHARDS_MAX)
            }
            shards => shards,
        }
    }

    /// Where the clients of the protocol with an HTTP login are sent; `None`: it is not spoken.
    pub(crate) fn advertised(&self) -> Option<Address> {
        protocols::advertised(&self.keys, &self.listeners)
    }

    /// How the passwords of the HTTP login are judged: as those of the clients sent there.
    pub(crate) fn login_realm(&self) -> Option<Realm> {
        let listener = protocols::with_http_login(&self.listeners)?;
        self.realms.get(listener.realm).copied()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        Path::new(&self.keys.node.data_dir)
    }

    /// What `newer` changes, and what of it a running process can apply.
    pub(crate) fn changes(&self, newer: &Self) -> Changes {
        let mut changes = Changes::default();
        for (dotted, value) in &newer.values {
            if self.values.get(dotted) != Some(value) {
                match keys::is_reloadable(dotted) {
                    true => changes.applied.push(dotted.clone()),
                    false => changes.restart.push(dotted.clone()),
                }
            }
        }
        if self.keys.listeners != newer.keys.listeners {
            changes.restart.push(keys::LISTENER.path.to_owned());
        }
        changes
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.keys.node.drain_ms)
    }
}

/// Checks the rules between keys, collecting what is wrong.
struct Checker<'a> {
    parsed: &'a Parsed,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn config(&mut self) -> Config {
        let raw = &self.parsed.raw;
        let mut tenants = vec![self.tenant("node.tenant", &raw.node.tenant)];
        let mut realms = Vec::new();
        let listeners = self.listeners(&mut tenants, &mut realms);
        let http = self.address("http.bind", &raw.http.bind, true);
        let admin = match raw.admin.bind.as_str() {
            "" => http.filter(|address| address.ip().is_loopback()),
            bind => self.address("admin.bind", bind, true),
        };
        self.distinct_addresses(&listeners, http, admin);
        if raw.node.data_dir.is_empty() {
            self.wrong("node.data_dir", "is empty; name a folder");
        }
        self.auth(&realms);
        self.store();
        self.advertised();
        self.groups();
        Config {
            tenants,
            listeners,
            http,
            admin,
            certificate: self.certificate(),
            protocols: protocols::settings(raw),
            realms,
            keys: raw.clone(),
            values: self.parsed.values.clone(),
        }
    }

    fn wrong(&mut self, key: &str, text: impl Into<String>) {
        self.problems.push(self.parsed.problem(key, text));
    }

    fn tenant(&mut self, key: &str, text: &str) -> Tenant {
        let (org, appkey) = text.split_once('/').unwrap_or_default();
        let tenant = Tenant { org: org.to_owned(), appkey: appkey.to_owned() };
        if !tenant.is_valid() {
            self.wrong(key, format!("{text:?} is not a tenant; use \"org/appkey\""));
        }
        tenant
    }

    fn listeners(&mut self, tenants: &mut Vec<Tenant>, realms: &mut Vec<Realm>) -> Vec<Listener> {
        let rows = &self.parsed.raw.listeners;
        if rows.len() > LISTENERS_MAX {
            let text = format!("there are {}; at most {LISTENERS_MAX} are served", rows.len());
            self.wrong(&format!("listener[{LISTENERS_MAX}]"), text);
        }
        let rows = rows.iter().enumerate();
        rows.filter_map(|(index, row)| {
            self.listener(&format!("listener[{index}]"), row, tenants, realms)
        })
        .collect()
    }

    fn listener(
        &mut self,
        name: &str,
        row: &ListenerKeys,
        tenants: &mut Vec<Tenant>,
        realms: &mut Vec<Realm>,
    ) -> Option<Listener> {
        let bind = self.address(&format!("{name}.bind"), &row.bind, false);
        let paths = self.paths(name, row);
        let tenant = match row.tenant.as_str() {
            "" => 0,
            text => {
                let tenant = self.tenant(&format!("{name}.tenant"), text);
                tenants.iter().position(|known| *known == tenant).unwrap_or_else(|| {
                    tenants.push(tenant);
                    tenants.len() - 1
                })
            }
        };
        let Some(protocol) = ProtocolId::from_name(&row.protocol) else {
            let names = keys::protocol_names().join(", ");
            let text =
                format!("{:?} is no protocol of this version; use one of {names}", row.protocol);
            self.wrong(&format!("{name}.protocol"), text);
            return None;
        };
        let allow = if protocol.is_door() { self.allow_list() } else { Vec::new() };
        let bind = bind?;
        let realm = protocols::realm(&self.parsed.raw, protocol, bind.ip().is_loopback());
        if tenant != 0 && realm.tokens && realm.mode != AuthMode::Open {
            let text = format!(
                "{0} logs in with tokens of its HTTP side, which are of node.tenant; remove this, \
                 or give the tenant a node of its own",
                protocol.name()
            );
            self.wrong(&format!("{name}.tenant"), text);
        }
        self.exposure(name, protocol, bind, realm, &allow);
        let ack = match row.ack {
            ListenerAck::Inherit => self.parsed.raw.delivery.ack,
            ListenerAck::Safe => Ack::Safe,
            ListenerAck::Received => Ack::Received,
        };
        let realm = realms.iter().position(|known| *known == realm).unwrap_or_else(|| {
            realms.push(realm);
            realms.len() - 1
        });
        let transport = row.transport;
        Some(Listener { protocol, transport, bind, paths, tenant, ack, realm, allow })
    }

    /// What lets people in without asking stays on loopback, unless told so explicitly.
    fn exposure(
        &mut self,
        name: &str,
        protocol: ProtocolId,
        bind: SocketAddr,
        realm: Realm,
        allow: &[AddressRange],
    ) {
        if bind.ip().is_loopback() {
            return;
        }
        let auth = &self.parsed.raw.auth;
        let text = match protocol.is_door() {
            true if allow.is_empty() => format!(
                "{bind} is not loopback and {0} has no login; bind to 127.0.0.1 or list who may \
                 connect in protocol.{0}.allow",
                protocol.name()
            ),
            false if realm.mode == AuthMode::Open && !auth.allow_public_open => format!(
                "{bind} is not loopback and auth.mode = \"open\" lets everyone in; bind to \
                 127.0.0.1 or set auth.allow_public_open = true"
            ),
            false if realm.password_optional && !auth.allow_public_open => format!(
                "{bind} is not loopback and lets known names in without a password; bind to \
                 127.0.0.1, set protocol.{}.password = \"loopback\" or auth.allow_public_open = \
                 true",
                protocol.name()
            ),
            _ => return,
        };
        self.wrong(&format!("{name}.bind"), text);
    }

    fn paths(&mut self, name: &str, row: &ListenerKeys) -> Vec<String> {
        let default = match row.transport {
            Transport::Ws => "/ws",
            Transport::Wss => "/wss",
            Transport::Tcp | Transport::Tls => {
                let written =
                    [("path", row.path.is_empty()), ("path_aliases", row.path_aliases.is_empty())];
                for (key, _) in written.into_iter().filter(|(_, empty)| !empty) {
                    let transport = row.transport.name();
                    let text =
                        format!("means nothing on {transport:?}; remove it, or use ws or wss");
                    self.wrong(&format!("{name}.{key}"), text);
                }
                return Vec::new();
            }
        };
        let path = if row.path.is_empty() { default } else { row.path.as_str() };
        let mut paths = vec![path.to_owned()];
        self.path(&format!("{name}.path"), path);
        for alias in &row.path_aliases {
            self.path(&format!("{name}.path_aliases"), alias);
            if !paths.contains(alias) {
                paths.push(alias.clone());
            }
        }
        if paths.len() > PATHS_MAX {
            let text = format!("{} paths; at most {PATHS_MAX} are served", paths.len());
            self.wrong(&format!("{name}.path_aliases"), text);
        }
        paths
    }

    fn path(&mut self, key: &str, path: &str) {
        let visible = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if !path.starts_with('/') || !visible || path.len() > PATH_MAX {
            let text = format!(
                "{path:?} is not a path; use / and up to {PATH_MAX} visible ASCII characters, \
                 without ? and #"
            );
            self.wrong(key, text);
        }
    }

    fn allow_list(&mut self) -> Vec<AddressRange> {
        const KEY: &str = "protocol.binary-publish.allow";
        let mut prefixes = Vec::new();
        for text in &self.parsed.raw.binary_publish.allow {
            match address_prefix(text) {
                Some(prefix) if !prefixes.contains(&prefix) => prefixes.push(prefix),
                Some(_) => {}
                None => {
                    let text = format!(
                        "{text:?} is no address; use \"192.0.2.7\", \"10.0.0.0/8\" or \"fd00::/8\""
                    );
                    self.wrong(KEY, text);
                }
            }
        }
        if prefixes.len() > ALLOW_MAX {
            self.wrong(KEY, format!("{} entries; at most {ALLOW_MAX}", prefixes.len()));
        }
        prefixes
    }

    /// `None` if empty or wrong. Port 0 lets the kernel choose, where one socket is bound.
    fn address(&mut self, key: &str, text: &str, may_be_off: bool) -> Option<SocketAddr> {
        if text.is_empty() && may_be_off {
            return None;
        }
        let address = text.parse::<SocketAddr>().ok();
        let address = address.filter(|address| address.port() != 0 || may_be_off);
        if address.is_none() {
            let text = format!(
                "{text:?} is not an address and port; use \"127.0.0.1:9095\", \"0.0.0.0:9095\" or \
                 \"[::]:9095\""
            );
            self.wrong(key, text);
        }
        address
    }

    fn distinct_addresses(
        &mut self,
        listeners: &[Listener],
        http: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    ) {
        let listeners = listeners.iter().enumerate();
        let mut named: Vec<_> =
            listeners.map(|(index, l)| (format!("listener[{index}].bind"), l.bind)).collect();
        named.extend(http.map(|address| ("http.bind".to_owned(), address)));
        let separate = admin.filter(|address| Some(*address) != http);
        named.extend(separate.map(|address| ("admin.bind".to_owned(), address)));
        for (index, (key, address)) in named.iter().enumerate() {
            if let Some((other, _)) = named[..index].iter().find(|(_, a)| overlap(*a, *address)) {
                self.wrong(key, format!("{address} is taken by {other}; use another port"));
            }
        }
    }

    fn certificate(&mut self) -> Certificate {
        let tls = &self.parsed.raw.tls;
        match (tls.cert.as_str(), tls.key.as_str()) {
            ("", "") => {
                Certificate::SelfSigned { folder: PathBuf::from(&self.parsed.raw.node.data_dir) }
            }
            (cert, key) => {
                if key.is_empty() {
                    self.wrong("tls.cert", "has no tls.key; name both files, or neither");
                }
                if cert.is_empty() {
                    self.wrong("tls.key", "has no tls.cert; name both files, or neither");
                }
                Certificate::Files { cert: PathBuf::from(cert), key: PathBuf::from(key) }
            }
        }
    }

    fn auth(&mut self, realms: &[Realm]) {
        let auth = &self.parsed.raw.auth;
        let url = auth.http_url.as_str();
        let asked =
            auth.mode == AuthMode::Http || realms.iter().any(|realm| realm.mode == AuthMode::Http);
        if asked && url.is_empty() {
            self.wrong("auth.mode", "\"http\" needs auth.http_url, the user centre's address");
        } else if !url.is_empty() && !has_scheme(url, &["http://", "https://"]) {
            self.wrong("auth.http_url", "is no URL; use http://host/path or https://host/path");
        }
    }

    fn advertised(&mut self) {
        let text = &self.parsed.raw.simple_im.advertise;
        let is_pair = text.rsplit_once(':').is_some_and(|(host, port)| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
            !host.is_empty() && host.bytes().all(plain) && port.parse::<u16>().is_ok()
        });
        if !text.is_empty() && !is_pair {
            let text = format!("{text:?} is no address and port; use \"chat.example.com:1987\"");
            self.wrong("protocol.simple-im.advertise", text);
        }
    }

    fn store(&mut self) {
        let store = &self.parsed.raw.store;
        let external = store.backend == StoreBackend::External;
        if external && !has_scheme(&store.postgres, &["postgres://", "postgresql://"]) {
            self.wrong("store.postgres", "is no URL; use postgres://user:password@host/database");
        }
        if external && !has_scheme(&store.redis, &REDIS_SCHEMES) {
            self.wrong("store.redis", "is no URL; use redis://host:6379/0 (0 is the database)");
        }
        if store.user_max_messages > store.max_messages {
            self.wrong("store.user_max_messages", "is more than store.max_messages");
        }
        if store.user_max_bytes > store.max_bytes {
            self.wrong("store.user_max_bytes", "is more than store.max_bytes");
        }
    }

    fn groups(&mut self) {
        let groups = &self.parsed.raw.groups;
        if groups.source == GroupSource::Redis && !has_scheme(&groups.redis, &REDIS_SCHEMES) {
            self.wrong("groups.redis", "is no URL; use redis://host:6379/1 (1 is the database)");
        }
        if groups.pool_max < groups.pool_size {
            let text = format!("is less than groups.pool_size; use {} or more", groups.pool_size);
            self.wrong("groups.pool_max", text);
        }
    }
}

/// The address itself, or with `/bits`; bits beyond the prefix must be zero.
fn address_prefix(text: &str) -> Option<AddressRange> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (value, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let bits = bits.unwrap_or(width);
    let rest = value.checked_shl(u32::from(bits)).unwrap_or(0);
    (bits <= width && rest == 0).then_some(AddressRange { address, bits })
}

/// Whether both cannot be bound at once.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip()
        || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() == b.port() && a.port() != 0 && same_ip
}

fn has_scheme(url: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

const REDIS_SCHEMES: [&str; 3] = ["redis://", "unix://", "redis+unix://"];
/// Each has a socket per shard, and an index of one byte.
pub(crate) const LISTENERS_MAX: usize = 64;
/// Each upgrade compares its path with all of them.
const PATHS_MAX: usize = 16;
const PATH_MAX: usize = 256;
/// Each accept compares its peer with all of them.
const ALLOW_MAX: usize = 256;
/// Bytes of an org or an appkey.
const TENANT_PART_MAX: usize = 64;
/// Shards are paired by rings: more cost memory, not time.
const SHARDS_MAX: u16 = shards::mesh::SHARDS_MAX as u16;

#[cfg(test)]
mod tests;
