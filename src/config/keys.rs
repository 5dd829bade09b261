//! The key table: every configuration key once, with its type, range, unit, default and meaning.
//!
//! Owns: names, bounds, defaults and the text of the reference file. Parsing, unknown-key errors,
//! `ringpost defaults`, the environment overrides and the typed [`Raw`] all come from these rows.
//! Never: rules between keys (those are in [`crate::config`]), files, the environment.
//!
//! A row reads: `name: type = default, Kind;` and ends in `, reload;` if SIGHUP applies it.

#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments of the rows are the text of the reference file, which is TOML"
)]

use std::fmt::Write as _;

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As TOML text.
    pub(crate) default: &'static str,
    /// Lines of the comment above the key in the reference file.
    pub(crate) doc: &'static [&'static str],
    /// SIGHUP applies a change; all others need a restart.
    pub(crate) reload: bool,
}

/// What a key may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Boolean,
    /// Smallest, largest, unit.
    Integer(u64, u64, &'static str),
    /// What the text is, for messages: "an address", "a path".
    Text(&'static str),
    Choice(&'static [&'static str]),
    /// An array of strings, and what each is.
    List(&'static str),
}

impl Kind {
    /// The right values, in words, for error messages and the reference file.
    pub(crate) fn expects(self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Integer(min, max, unit) => format!("{min} to {max} {unit}"),
            Self::Text(what) => what.to_owned(),
            Self::Choice(names) => {
                let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
                quoted.join(" | ")
            }
            Self::List(what) => format!("a list of strings, each {what}"),
        }
    }
}

/// A value that fits its key's [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Boolean(bool),
    Integer(u64),
    Text(String),
    List(Vec<String>),
}

/// A section of the file: its rows, and how to make the typed struct from their values.
pub(crate) trait Section: Sized {
    /// Dotted name, as in the file's header.
    const PATH: &'static str;
    const DOC: &'static [&'static str];
    const KEYS: &'static [Key];

    /// `value` is called once per key, by name, and gives a value that fits the key's kind.
    fn build(value: &mut dyn FnMut(&'static str) -> Value) -> Self;
}

/// A section as data.
#[derive(Debug)]
pub(crate) struct SectionRow {
    pub(crate) path: &'static str,
    pub(crate) doc: &'static [&'static str],
    pub(crate) keys: &'static [Key],
}

impl SectionRow {
    const fn of<S: Section>() -> Self {
        Self { path: S::PATH, doc: S::DOC, keys: S::KEYS }
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// Turns a checked value into a field.
trait FromValue {
    fn from_value(value: Value) -> Self;
}

const FITS: &str = "the value was checked against its row, and rows fit their fields";

macro_rules! integers {
    ($($ty:ty),+) => {$(
        impl FromValue for $ty {
            fn from_value(value: Value) -> Self {
                match value {
                    Value::Integer(number) => Self::try_from(number).expect(FITS),
                    other => unreachable!("{FITS}: {other:?}"),
                }
            }
        }
    )+};
}

integers!(u8, u16, u32, u64);

macro_rules! plain_values {
    ($($variant:ident($ty:ty)),+) => {$(
        impl FromValue for $ty {
            fn from_value(value: Value) -> Self {
                match value {
                    Value::$variant(inner) => inner,
                    other => unreachable!("{FITS}: {other:?}"),
                }
            }
        }
    )+};
}

plain_values!(Boolean(bool), Text(String), List(Vec<String>));

macro_rules! choices {
    ($($(#[$doc:meta])+ $name:ident { $($variant:ident = $text:literal),+ })+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($variant),+ }

        impl $name {
            pub(crate) const NAMES: &'static [&'static str] = &[$($text),+];
        }

        impl FromValue for $name {
            fn from_value(value: Value) -> Self {
                match value {
                    $(Value::Text(text) if text == $text => Self::$variant,)+
                    other => unreachable!("{FITS}: {other:?}"),
                }
            }
        }
    )+};
}

choices! {
    /// `node.log_level`.
    LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
    /// `node.io`.
    EngineKey { Auto = "auto", Uring = "uring", Epoll = "epoll" }
    /// `listener.transport`.
    Transport { Tcp = "tcp", Tls = "tls", Ws = "ws", Wss = "wss" }
    /// `delivery.ack`.
    Ack { Safe = "safe", Received = "received" }
    /// `listener.ack`.
    ListenerAck { Inherit = "", Safe = "safe", Received = "received" }
    /// `auth.mode`.
    AuthMode { Local = "local", Http = "http", Open = "open" }
    /// `protocol.*.auth`.
    ProtocolAuth { Inherit = "", Local = "local", Http = "http", Open = "open" }
    /// `protocol.simple-text.password`.
    PasswordRule { Required = "required", Optional = "optional", Loopback = "loopback" }
    /// `protocol.simple-text.dialect`.
    TextDialect { Auto = "auto", Source = "source", Doc = "doc" }
    /// `auth.http_forward_role`.
    ForwardRole { WhenPresent = "when_present", Never = "never", Always = "always" }
    /// `store.backend`.
    StoreBackend { Embedded = "embedded", Memory = "memory", External = "external" }
    /// `store.redis_durability`.
    RedisDurability { Checked = "checked", Accepted = "accepted" }
    /// `groups.source`.
    GroupSource { Store = "store", Redis = "redis" }
    /// `protocol.binary.connect_layout`.
    ConnectLayout { Auto = "auto", Doc = "doc", Vhost = "vhost" }
    /// `protocol.binary.group_push`.
    GroupPush { Auto = "auto", Publish = "publish", GroupPublish = "group_publish" }
    /// `protocol.binary.dup_policy`.
    DupPolicy { KickOld = "kick_old", RejectNew = "reject_new" }
    /// `protocol.simple-im.http_brackets`.
    Brackets { Auto = "auto", Single = "single", Double = "double" }
    /// `protocol.simple-im.registration`.
    Registration { Never = "never", Loopback = "loopback", Always = "always" }
    /// `protocol.binary.payload_len`.
    PayloadLen { Auto = "auto", Strict = "strict" }
}

impl Transport {
    /// As written in the file; also the scheme of the listener's URL.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        [$path:literal] $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $ty:ty = $default:tt, $kind:expr $(, $reload:ident)?;
            )+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name { $($(#[doc = $doc])+ pub(crate) $key: $ty),+ }

        impl Section for $name {
            const PATH: &'static str = $path;
            const DOC: &'static [&'static str] = &[$($section_doc),+];
            const KEYS: &'static [Key] = &[$(Key {
                name: stringify!($key),
                kind: $kind,
                default: stringify!($default),
                doc: &[$($doc),+],
                reload: section!(@reload $($reload)?),
            }),+];

            fn build(value: &mut dyn FnMut(&'static str) -> Value) -> Self {
                Self { $($key: FromValue::from_value(value(stringify!($key)))),+ }
            }
        }
    };
    (@reload reload) => { true };
    (@reload) => { false };
}

macro_rules! table {
    ($($field:ident: $section:ident),+ $(,)?) => {
        /// The file as written, defaults and overrides filled in. Rules between keys not checked.
        #[derive(Clone, Debug)]
        pub(crate) struct Raw {
            $(pub(crate) $field: $section,)+
            pub(crate) listeners: Vec<ListenerKeys>,
        }

        /// Every section but the listeners, in the order of the reference file.
        pub(crate) const SECTIONS: &[SectionRow] = &[$(SectionRow::of::<$section>()),+];

        impl Raw {
            /// `value` gives a checked value for (section, key).
            pub(crate) fn build(
                listeners: Vec<ListenerKeys>,
                value: &mut dyn FnMut(&'static str, &'static str) -> Value,
            ) -> Self {
                Self {
                    $($field: $section::build(&mut |key| value($section::PATH, key)),)+
                    listeners,
                }
            }
        }
    };
}

table! {
    node: NodeKeys,
    http: HttpKeys,
    admin: AdminKeys,
    tls: TlsKeys,
    auth: AuthKeys,
    store: StoreKeys,
    groups: GroupKeys,
    delivery: DeliveryKeys,
    heartbeat: HeartbeatKeys,
    limits: LimitKeys,
    binary: BinaryKeys,
    binary_publish: BinaryPublishKeys,
    simple_im: SimpleImKeys,
    simple_text: SimpleTextKeys,
    im_demo: ImDemoKeys,
}

/// The rows of one `[[listener]]`.
pub(crate) const LISTENER: SectionRow = SectionRow::of::<ListenerKeys>();

/// The listeners of a configuration that names none, as TOML.
pub(crate) const DEFAULT_LISTENERS: &str = r#"[[listener]]
protocol = "binary"
transport = "ws"
bind = "127.0.0.1:9095"
path = "/ws"
path_aliases = ["/", "/wss"]

[[listener]]
protocol = "binary"
transport = "wss"
bind = "127.0.0.1:8443"
path = "/wss"
path_aliases = ["/", "/ws"]

[[listener]]
protocol = "binary-publish"
transport = "tcp"
bind = "127.0.0.1:19095"

[[listener]]
protocol = "simple-im"
transport = "tcp"
bind = "127.0.0.1:1987"

[[listener]]
protocol = "simple-text"
transport = "tcp"
bind = "127.0.0.1:5000"

[[listener]]
protocol = "im-demo"
transport = "tcp"
bind = "127.0.0.1:9876"
"#;

section! {
    /// The process.
    ["node"] NodeKeys {
        /// Shard threads, each with its own ring and connections. 0 = one per available core.
        shards: u16 = 0, Kind::Integer(0, 256, "threads");
        /// How the kernel is asked for input and output. uring: io_uring. epoll: plain descriptors,
        /// so that all shards together hold at most as many connections as the process may open
        /// files. auto: io_uring, or epoll with a warning where io_uring is refused, and before
        /// Linux 6.7 where a listener's protocol has receivers that cannot acknowledge
        /// (simple-text, im-demo): a ring cannot see there what has reached them, and they would
        /// get stored messages again at every login.
        io: EngineKey = "auto", Kind::Choice(EngineKey::NAMES);
        /// The embedded store and the self-signed certificate live here.
        data_dir: String = "data", Kind::Text("a folder");
        /// "org/appkey": where listeners without a tenant of their own live.
        tenant: String = "default/default", Kind::Text("org/appkey");
        /// Longest drain at SIGTERM: clients are told, stores flushed; then the process exits.
        drain_ms: u64 = 5000, Kind::Integer(0, 600_000, "ms");
        /// What is logged, to stderr. Peers' bad input is counted in /metrics, not logged.
        log_level: LogLevel = "info", Kind::Choice(LogLevel::NAMES), reload;
    }
}

section! {
    /// Where a protocol is spoken. One [[listener]] each; the first one written replaces all of
    /// these.
    ["listener"] ListenerKeys {
        /// The protocol. "binary-publish" is the back end's door: it has no login, so it needs a
        /// loopback address or protocol.binary-publish.allow.
        protocol: String = "binary", Kind::Text("a protocol");
        /// tls and wss use the certificate of [tls].
        transport: Transport = "ws", Kind::Choice(Transport::NAMES);
        /// Address and port.
        bind: String = "127.0.0.1:9095", Kind::Text("address:port");
        /// ws and wss only: the path of the upgrade request. "" = "/ws" (wss: "/wss").
        path: String = "", Kind::Text("a path that starts with /");
        /// ws and wss only: more paths that are accepted.
        path_aliases: Vec<String> = [], Kind::List("a path that starts with /");
        /// "org/appkey" of everyone who comes in here. "" = node.tenant.
        tenant: String = "", Kind::Text("org/appkey");
        /// As delivery.ack, for publishers that come in here. "" = delivery.ack.
        ack: ListenerAck = "", Kind::Choice(ListenerAck::NAMES);
    }
}

section! {
    /// The HTTP side of the protocols that have one.
    ["http"] HttpKeys {
        /// Address and port. "" = none.
        bind: String = "127.0.0.1:8080", Kind::Text("address:port");
    }
}

section! {
    /// Metrics (/metrics), health (/healthz) and readiness (/readyz).
    ["admin"] AdminKeys {
        /// Address and port. "" = on http.bind if that is loopback, else nowhere.
        bind: String = "", Kind::Text("address:port");
    }
}

section! {
    /// Certificate of the tls and wss listeners, served with and without SNI.
    ["tls"] TlsKeys {
        /// PEM file with the certificate chain. "" = self-signed, made in node.data_dir.
        cert: String = "", Kind::Text("a file"), reload;
        /// PEM file with the private key.
        key: String = "", Kind::Text("a file"), reload;
        /// Handshake steps one turn of a shard may spend time on; more wait for the next turn.
        handshakes_per_turn: u32 = 16, Kind::Integer(1, 1024, "steps");
    }
}

section! {
    /// Who may log in.
    ["auth"] AuthKeys {
        /// local: users made with `ringpost user add`. http: the user centre at http_url.
        /// open: any password; an unknown user is made on the fly.
        mode: AuthMode = "local", Kind::Choice(AuthMode::NAMES);
        /// mode = "http": gets POST username, password; answers {"result":"pass","uid":N}.
        http_url: String = "", Kind::Text("an http:// or https:// URL");
        /// Longest wait for its answer. Later the login gets no verdict and the client retries.
        http_timeout_ms: u64 = 5000, Kind::Integer(100, 60_000, "ms");
        /// Whether the role of the login goes with the request.
        http_forward_role: ForwardRole = "when_present", Kind::Choice(ForwardRole::NAMES);
        /// Logins verified at once.
        threads: u16 = 2, Kind::Integer(1, 256, "threads");
        /// Logins of all shards that may wait for one of them; more are told to try again.
        queue: u32 = 1024, Kind::Integer(1, 1_048_576, "logins");
        /// A verified login is remembered this long. A changed password counts after it.
        /// 0 = every login is verified.
        cache_ms: u64 = 600000, Kind::Integer(0, 86_400_000, "ms");
        /// Remembered logins, over all shards; as many passwords of the HTTP login.
        cache_max: u32 = 100000, Kind::Integer(0, 10_000_000, "logins");
        /// mode = "open" refuses listeners that are not on loopback unless this is true.
        allow_public_open: bool = false, Kind::Boolean;
    }
}

section! {
    /// Users, groups and messages for those who are offline.
    ["store"] StoreKeys {
        /// embedded: SQLite in node.data_dir. memory: nothing survives a restart (tests).
        /// external: users, groups and contacts in PostgreSQL, messages and tokens in Redis.
        backend: StoreBackend = "embedded", Kind::Choice(StoreBackend::NAMES);
        /// backend = "external": PostgreSQL connection URL.
        postgres: String = "", Kind::Text("a postgres:// URL");
        /// backend = "external": Redis connection URL.
        redis: String = "", Kind::Text("a redis:// URL");
        /// backend = "external": longest wait for an answer of either server.
        timeout_ms: u64 = 1000, Kind::Integer(50, 60_000, "ms");
        /// backend = "external": checked: only servers that write to disk before they answer are
        /// used (Redis: appendfsync always). accepted: others, too; a crash of theirs loses
        /// acknowledged messages.
        redis_durability: RedisDurability = "checked", Kind::Choice(RedisDurability::NAMES);
        /// backend = "external": a right password whose hash is of the original system's form gets
        /// a better one beside it.
        upgrade_hashes: bool = false, Kind::Boolean;
        /// Messages kept for one user. At the cap new ones are refused, never acknowledged.
        user_max_messages: u64 = 10000, Kind::Integer(1, 10_000_000, "messages");
        /// Body bytes kept for one user, likewise.
        user_max_bytes: u64 = 67108864, Kind::Integer(1024, 1_099_511_627_776, "bytes");
        /// Messages kept for all users together.
        max_messages: u64 = 100000000, Kind::Integer(1, 100_000_000_000, "messages");
        /// Body bytes kept for all users together.
        max_bytes: u64 = 17179869184, Kind::Integer(1024, 1_125_899_906_842_624, "bytes");
        /// Requests of all shards that may wait; over half of it publishers are no longer read.
        queue: u32 = 8192, Kind::Integer(16, 1_048_576, "requests");
    }
}

section! {
    /// Who is in a group.
    ["groups"] GroupKeys {
        /// store: groups made with `ringpost group create`. redis: the sets im_group:<id>.
        source: GroupSource = "store", Kind::Choice(GroupSource::NAMES);
        /// source = "redis": connection URL with the database number.
        redis: String = "redis://127.0.0.1:6379/1", Kind::Text("a redis:// URL");
        /// Connections kept open.
        pool_size: u16 = 10, Kind::Integer(1, 1024, "connections");
        /// Most connections under load.
        pool_max: u16 = 20, Kind::Integer(1, 1024, "connections");
        /// A group's members are trusted this long before they are read again.
        cache_ms: u64 = 2000, Kind::Integer(0, 5_000, "ms");
    }
}

section! {
    /// When a message counts as delivered.
    ["delivery"] DeliveryKeys {
        /// safe: the sender hears "accepted" once every recipient has acknowledged the message or
        /// it is committed in the store. received: as soon as it is in memory; a crash loses it.
        ack: Ack = "safe", Kind::Choice(Ack::NAMES);
        /// A recipient who is silent for so long after the send gets the message stored.
        persist_after_ms: u64 = 200, Kind::Integer(0, 60_000, "ms");
        /// A push without acknowledgement is sent again after this time. This and the next key are
        /// for binary; other protocols have rules of their own.
        retry_interval_ms: u32 = 2000, Kind::Integer(100, 600_000, "ms");
        /// So many times; then the connection is closed and the message waits for the next login.
        retry_max: u8 = 3, Kind::Integer(0, 100, "times");
    }
}

section! {
    /// The gateway's pings. Any packet counts as a sign of life.
    ["heartbeat"] HeartbeatKeys {
        /// Silence after which a client is asked. Clients of im-demo's extension are told to say
        /// something that often.
        interval_ms: u64 = 30000, Kind::Integer(500, 3_600_000, "ms");
        /// Questions without an answer before the connection is closed, an interval after the last.
        /// For im-demo: intervals of silence.
        max_missed: u8 = 3, Kind::Integer(1, 100, "pings");
    }
}

section! {
    /// Bounds that depend on the machine. All others are fixed in the program.
    ["limits"] LimitKeys {
        /// Connections of one shard. 0 = as many as the open-file limit allows.
        connections_per_shard: u32 = 0, Kind::Integer(0, 262_144, "connections");
        /// Receive buffers of one shard, 4 KiB each, lent to connections only while they have
        /// bytes to read. Rounded up to a power of two. 0 = 2048, or 64 with more than 16 shards.
        buffers_per_shard: u16 = 0, Kind::Integer(0, 32_768, "buffers");
        /// From the connection to the complete login.
        login_deadline_ms: u64 = 10000, Kind::Integer(100, 600_000, "ms");
        /// Logins of one shard that may wait for a verdict; more are told to try again.
        logins_pending_max: u32 = 4096, Kind::Integer(1, 1_048_576, "logins");
        /// New logins of one shard per second; more wait in their sockets. 0 = no bound.
        logins_per_second: u32 = 0, Kind::Integer(0, 1_000_000, "logins per second");
    }
}

section! {
    /// The binary protocol.
    ["protocol.binary"] BinaryKeys {
        /// Form of the first packet. auto tells all forms apart by their lengths.
        connect_layout: ConnectLayout = "auto", Kind::Choice(ConnectLayout::NAMES);
        /// Form of a pushed group message. auto: group_publish for clients that know it.
        group_push: GroupPush = "auto", Kind::Choice(GroupPush::NAMES);
        /// The same terminal logs in again: who stays.
        dup_policy: DupPolicy = "kick_old", Kind::Choice(DupPolicy::NAMES);
        /// Virtual hosts that may be named in the first packet. [] = any.
        vhosts: Vec<String> = [], Kind::List("a virtual host");
        /// Longest payload. Java clients read the length as a signed 16-bit number.
        max_payload: u32 = 32767, Kind::Integer(1, 65_535, "bytes");
        /// auto: a length counted in UTF-16 units is understood. strict: bytes only.
        payload_len: PayloadLen = "auto", Kind::Choice(PayloadLen::NAMES);
        /// Everybody may publish to every group; else only members.
        open_groups: bool = false, Kind::Boolean;
        /// A group message also goes to its sender.
        echo_to_sender: bool = false, Kind::Boolean;
        /// Malformed packets after the login that one connection is forgiven.
        max_invalid: u8 = 3, Kind::Integer(0, 255, "packets");
        /// false: a push counts as delivered once it has left, for clients that never acknowledge.
        require_push_ack: bool = true, Kind::Boolean;
        /// As auth.mode, for this protocol. "" = auth.mode.
        auth: ProtocolAuth = "", Kind::Choice(ProtocolAuth::NAMES);
    }
}

section! {
    /// The publish door.
    ["protocol.binary-publish"] BinaryPublishKeys {
        /// Who may connect, as addresses or prefixes ("10.0.0.0/8"). [] = everyone who can reach
        /// it; then it must be bound to loopback.
        allow: Vec<String> = [], Kind::List("an address or prefix");
        /// Longest payload.
        max_payload: u32 = 32767, Kind::Integer(1, 65_535, "bytes");
    }
}

section! {
    /// The TOML protocol and its HTTP side.
    ["protocol.simple-im"] SimpleImKeys {
        /// As auth.mode, for passwords of this protocol. "" = auth.mode.
        auth: ProtocolAuth = "", Kind::Choice(ProtocolAuth::NAMES);
        /// "address:port" of this protocol's listener, as /server/login tells it to clients.
        /// "" = that of its first listener.
        advertise: String = "", Kind::Text("address:port");
        /// A token of /server/login is good for so long, and for ever once a client has used it.
        token_ttl_ms: u64 = 100000, Kind::Integer(1000, 86_400_000, "ms");
        /// POST /user makes a user for whoever asks. loopback: where http.bind is loopback.
        registration: Registration = "loopback", Kind::Choice(Registration::NAMES);
        /// Brackets of what /server/ answers. auto: [response] to logins without a device and
        /// tokens in the body, as the first clients read it, else [[response]]. double: clients
        /// of October and November 2015 read [[response]], but ask as the first ones do.
        http_brackets: Brackets = "auto", Kind::Choice(Brackets::NAMES);
        /// GET /offline is compressed. false: for clients from before November 16, 2015.
        offline_deflate: bool = true, Kind::Boolean;
        /// Pause between two packets to one client that acknowledges neither: the original clients
        /// take what one receive gives them for exactly one packet. 0 = none.
        gap_ms: u16 = 5, Kind::Integer(0, 1000, "ms");
        /// Devices that may log in. [] = any.
        devices: Vec<String> = [], Kind::List("a device");
        /// Group messages reach clients that do not know them as messages of their sender.
        group_as_message: bool = true, Kind::Boolean;
        /// The oldest clients' login with phone number and password is taken.
        phone_login: bool = true, Kind::Boolean;
    }
}

section! {
    /// The JSON protocol.
    ["protocol.simple-text"] SimpleTextKeys {
        /// As auth.mode, for this protocol. "" = auth.mode.
        auth: ProtocolAuth = "", Kind::Choice(ProtocolAuth::NAMES);
        /// The original client sends no password. optional: the name of a local user is enough.
        /// loopback: on listeners that are bound to loopback. A password that is sent must always
        /// be right.
        password: PasswordRule = "loopback", Kind::Choice(PasswordRule::NAMES);
        /// Form of the login. auto tells both forms apart.
        dialect: TextDialect = "auto", Kind::Choice(TextDialect::NAMES);
        /// Longest text, in Unicode scalar values. 0 = only the packet's own bound.
        max_chars: u32 = 140, Kind::Integer(0, 65_536, "characters");
        /// Private messages wait for users who are away; else they are refused.
        offline: bool = true, Kind::Boolean;
    }
}

section! {
    /// The protobuf protocol.
    ["protocol.im-demo"] ImDemoKeys {
        /// As auth.mode, for this protocol. "" = auth.mode.
        auth: ProtocolAuth = "", Kind::Choice(ProtocolAuth::NAMES);
        /// Longest command.
        max_frame: u32 = 1048576, Kind::Integer(4096, 1_048_576, "bytes");
        /// A message without options waits for users who are away.
        offline_default: bool = false, Kind::Boolean;
        /// The group that gets messages of clients that cannot name a recipient. "" = none: they
        /// are refused.
        default_to: String = "", Kind::Text("a group");
        /// Clients of the original form get lists as text in the reason of the response.
        list_in_reason: bool = false, Kind::Boolean;
        /// Clients that name neither org nor appkey belong to the tenant of the listener.
        default_tenant: bool = true, Kind::Boolean;
        /// A push that a client of the extension does not acknowledge is sent again after this
        /// time, three times; then it waits for the next login.
        retry_interval_ms: u32 = 10000, Kind::Integer(100, 600_000, "ms");
    }
}

/// The complete reference file: every key, its comment, its default.
pub(crate) fn reference() -> String {
    let mut out = String::from(PREAMBLE);
    for (index, section) in SECTIONS.iter().enumerate() {
        let _ = writeln!(out);
        comment(&mut out, section.doc);
        let _ = writeln!(out, "[{}]", section.path);
        for key in section.keys {
            key_comment(&mut out, key);
            let _ = writeln!(out, "{} = {}", key.name, key.default);
        }
        if index == 0 {
            listeners(&mut out);
        }
    }
    out
}

/// The default listeners, with the meaning of the keys above the first.
fn listeners(out: &mut String) {
    let _ = writeln!(out);
    comment(out, LISTENER.doc);
    for key in LISTENER.keys {
        let _ = writeln!(out, "#");
        let _ = writeln!(out, "# {} = {}", key.name, key.default);
        for line in key.doc {
            let _ = writeln!(out, "#   {}", line.trim());
        }
        if !matches!(key.kind, Kind::Text(_)) {
            let _ = writeln!(out, "#   Allowed: {}.", key.kind.expects());
        }
    }
    let _ = writeln!(out, "#");
    let _ = writeln!(out, "# Protocols: {}.", protocol_names().join(", "));
    let _ = writeln!(out);
    out.push_str(DEFAULT_LISTENERS);
}

fn key_comment(out: &mut String, key: &Key) {
    comment(out, key.doc);
    if matches!(key.kind, Kind::Integer(..) | Kind::Choice(_)) {
        let _ = writeln!(out, "# Allowed: {}.", key.kind.expects());
    }
    if key.reload {
        let _ = writeln!(out, "# SIGHUP applies a change.");
    }
}

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "# {}", line.trim());
    }
}

/// Whether SIGHUP applies a change of this key.
pub(crate) fn is_reloadable(dotted: &str) -> bool {
    let Some((path, name)) = dotted.rsplit_once('.') else { return false };
    let section = SECTIONS.iter().find(|section| section.path == path);
    section.and_then(|section| section.key(name)).is_some_and(|key| key.reload)
}

/// The names `listener.protocol` may have.
pub(crate) fn protocol_names() -> Vec<&'static str> {
    codec::ProtocolId::ALL.iter().map(|id| id.name()).collect()
}

const PREAMBLE: &str = "\
# Ringpost: every key with its default. A key that is left out has the value shown here.
#
# An environment variable overrides the file: RINGPOST_ and the key in upper case, with _ for
# . and -, as in RINGPOST_DELIVERY_RETRY_MAX=5. The n-th listener's keys (from 0) are
# RINGPOST_LISTENER_0_BIND and so on. Lists are separated by commas.
";
