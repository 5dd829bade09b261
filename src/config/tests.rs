//! The rules between keys, each broken once, and what the whole configuration says.

use super::*;

fn check(text: &str) -> Result<Config, Vec<String>> {
    Config::from_text(text, [])
        .map_err(|problems| problems.iter().map(|problem| problem.line("r.toml")).collect())
}

/// The one problem of `text`.
fn problem(text: &str) -> String {
    let problems = check(text).expect_err("the text breaks a rule");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().expect("there is one")
}

fn listener(rest: &str) -> String {
    format!("[[listener]]\n{rest}\n")
}

#[test]
fn the_defaults_are_the_loopback_demo() {
    let config = check("").expect("defaults are right");
    let urls: Vec<_> = config.listeners.iter().map(Listener::url).collect();
    let expected = [
        "ws://127.0.0.1:9095/ws",
        "wss://127.0.0.1:8443/wss",
        "tcp://127.0.0.1:19095",
        "tcp://127.0.0.1:1987",
        "tcp://127.0.0.1:5000",
        "tcp://127.0.0.1:9876",
    ];
    assert_eq!(urls, expected);
    assert_eq!(config.listeners[0].paths, ["/ws", "/", "/wss"]);
    assert_eq!(config.http, config.admin);
    assert_eq!(config.tenants, [Tenant { org: "default".into(), appkey: "default".into() }]);
    assert_eq!(config.certificate, Certificate::SelfSigned { folder: "data".into() });
    assert!(config.shards() >= 1);
}

#[test]
fn the_publish_door_refuses_a_public_address_without_an_allow_list() {
    let door = listener("protocol = \"binary-publish\"\ntransport = \"tcp\"\nbind = \"0.0.0.0:1\"");
    let text = problem(&door);
    assert!(text.starts_with("r.toml:4:1: listener[0].bind: 0.0.0.0:1 is not loopback"), "{text}");
    assert!(text.contains("protocol.binary-publish.allow"), "{text}");
    let allowed = format!("{door}[protocol.binary-publish]\nallow = [\"10.0.0.0/8\"]\n");
    let config = check(&allowed).expect("an allow-list is given");
    let ten = AddressRange { address: [10, 0, 0, 0].into(), bits: 8 };
    assert_eq!(config.listeners[0].allow, [ten]);
}

#[test]
fn open_login_refuses_a_public_address_unless_told_so() {
    let open = "[auth]\nmode = \"open\"\n";
    assert!(check(open).is_ok(), "loopback");
    let public = format!("{open}{}", listener("bind = \"[::]:9095\""));
    let text = problem(&public);
    assert!(text.starts_with("r.toml:4:1: listener[0].bind: [::]:9095 is not loopback"), "{text}");
    let told = public.replace("[auth]", "[auth]\nallow_public_open = true");
    assert!(check(&told).is_ok());
}

#[test]
fn paths_belong_to_web_sockets_and_are_paths() {
    let tcp = listener("transport = \"tcp\"\npath = \"/ws\"");
    let text = problem(&tcp);
    assert!(text.starts_with("r.toml:3:1: listener[0].path: means nothing on \"tcp\""), "{text}");
    for path in ["ws", "/a b", "/a?b", "/\u{e9}", &format!("/{}", "x".repeat(300))] {
        let text = problem(&listener(&format!("path = {path:?}")));
        assert!(text.contains("is not a path; use /"), "{text}");
    }
    let many: Vec<_> = (0..20).map(|n| format!("\"/{n}\"")).collect();
    let text = problem(&listener(&format!("path_aliases = [{}]", many.join(", "))));
    assert!(text.contains("at most 16"), "{text}");
}

#[test]
fn addresses_are_addresses_and_used_once() {
    for bind in ["localhost:9095", "127.0.0.1", "127.0.0.1:0", ":9095", ""] {
        let text = problem(&listener(&format!("bind = {bind:?}")));
        assert!(text.contains("is not an address and port; use"), "{text}");
    }
    let twice = listener("bind = \"127.0.0.1:7\"") + &listener("bind = \"0.0.0.0:7\"");
    let text = problem(&twice);
    let expected = "r.toml:4:1: listener[1].bind: 0.0.0.0:7 is taken by listener[0].bind";
    assert!(text.starts_with(expected), "{text}");
    let text = problem("[http]\nbind = \"127.0.0.1:9095\"");
    assert!(text.starts_with("r.toml:2:1: http.bind: 127.0.0.1:9095 is taken by listener[0]"));
}

#[test]
fn admin_is_on_the_http_address_only_if_that_is_loopback() {
    let config = check("[http]\nbind = \"0.0.0.0:8080\"").expect("right");
    assert_eq!(config.admin, None);
    let config = check("[http]\nbind = \"\"\n[admin]\nbind = \"127.0.0.1:0\"").expect("right");
    assert_eq!((config.http, config.admin), (None, Some(([127, 0, 0, 1], 0).into())));
}

#[test]
fn each_rule_between_keys_names_its_key_and_what_would_be_right() {
    let cases = [
        ("[auth]\nmode = \"http\"", "r.toml:2:1: auth.mode: \"http\" needs auth.http_url"),
        ("[auth]\nhttp_url = \"auth.example\"", "r.toml:2:1: auth.http_url: is no URL; use http"),
        (
            "[store]\nbackend = \"external\"\nredis = \"redis://a\"",
            "default: store.postgres: is no URL; use postgres://",
        ),
        (
            "[store]\nbackend = \"external\"\npostgres = \"postgres://a\"\nredis = \"a\"",
            "r.toml:4:1: store.redis: is no URL; use redis://host:6379/0",
        ),
        (
            "[protocol.simple-im]\nadvertise = \"here\"",
            "r.toml:2:1: protocol.simple-im.advertise: \"here\" is no address and port",
        ),
        (
            "[[listener]]\nprotocol = \"simple-im\"\ntransport = \"tcp\"\ntenant = \"a/b\"",
            "r.toml:4:1: listener[0].tenant: simple-im logs in with tokens of its HTTP side",
        ),
        ("[tls]\ncert = \"a.pem\"", "r.toml:2:1: tls.cert: has no tls.key"),
        ("[tls]\nkey = \"a.pem\"", "r.toml:2:1: tls.key: has no tls.cert"),
        ("[groups]\npool_max = 3", "r.toml:2:1: groups.pool_max: is less than groups.pool_size"),
        (
            "[groups]\nsource = \"redis\"\nredis = \"localhost\"",
            "r.toml:3:1: groups.redis: is no URL; use redis://host:6379/1",
        ),
        ("[node]\ntenant = \"acme\"", "r.toml:2:1: node.tenant: \"acme\" is not a tenant; use"),
        ("[node]\ndata_dir = \"\"", "r.toml:2:1: node.data_dir: is empty"),
        ("[store]\nmax_messages = 1", "default: store.user_max_messages: is more than"),
        ("[store]\nmax_bytes = 1024", "default: store.user_max_bytes: is more than"),
        ("[protocol.binary-publish]\nallow = [\"10.0.0.1/8\"]", "r.toml:2:1: protocol.binary-pub"),
        ("[[listener]]\nprotocol = \"irc\"", "r.toml:2:1: listener[0].protocol: \"irc\" is no pro"),
        ("[[listener]]\ntenant = \"a/b/c\"", "r.toml:2:1: listener[0].tenant: \"a/b/c\" is not a"),
    ];
    for (text, expected) in cases {
        let line = problem(text);
        assert!(line.starts_with(expected), "{text:?} gave {line:?}");
    }
}

#[test]
fn listeners_share_tenants_by_name() {
    let text = listener("bind = \"127.0.0.1:1\"\ntenant = \"acme/chat\"\nack = \"received\"")
        + &listener("bind = \"127.0.0.1:2\"\ntenant = \"acme/chat\"")
        + &listener("bind = \"127.0.0.1:3\"\ntenant = \"default/default\"");
    let config = check(&text).expect("right");
    let tenants: Vec<_> = config.listeners.iter().map(|listener| listener.tenant).collect();
    assert_eq!(tenants, [1, 1, 0]);
    assert_eq!(config.tenants.len(), 2);
    assert_eq!(config.listeners[0].ack, Ack::Received);
    assert_eq!(config.listeners[1].ack, Ack::Safe);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some(Path::new("/nonexistent/r.toml"))).expect_err("no such file");
    let text = error.to_string();
    assert!(text.starts_with("/nonexistent/r.toml:1:1: cannot be read: No such file"), "{text}");
}

#[test]
fn too_many_listeners_are_refused() {
    let text: String =
        (0..65).map(|n| listener(&format!("bind = \"127.0.0.1:{}\"", 2000 + n))).collect();
    assert!(problem(&text).contains("listener[64]: there are 65; at most 64 are served"));
}

#[test]
fn prefixes_are_whole_addresses_or_networks() {
    let prefix = |text| address_prefix(text).map(|p| (p.address.to_string(), p.bits));
    assert_eq!(prefix("192.0.2.7"), Some(("192.0.2.7".into(), 32)));
    assert_eq!(prefix("0.0.0.0/0"), Some(("0.0.0.0".into(), 0)));
    assert_eq!(prefix("fd00::/8"), Some(("fd00::".into(), 8)));
    assert_eq!(prefix("::1"), Some(("::1".into(), 128)));
    for wrong in ["", "10.0.0.0/33", "10.1.0.0/8", "host", "10.0.0.0/", "fd00::1/8", "::/129"] {
        assert_eq!(prefix(wrong), None, "{wrong}");
    }
}

#[test]
fn protocol_settings_carry_every_value() {
    let text = "[protocol.binary]\nconnect_layout = \"vhost\"\npayload_len = \"strict\"\n\
                max_payload = 9\ngroup_push = \"publish\"\nvhosts = [\"a\"]\n\
                [protocol.binary-publish]\nmax_payload = 8\n";
    let settings = check(text).expect("right").protocols;
    assert_eq!(settings.binary.connect_layout, codec::binary::ConnectLayout::Vhost);
    assert_eq!(settings.binary.payload_len, codec::binary::PayloadLen::Strict);
    assert_eq!(settings.binary.group_push, codec::binary::GroupPush::Publish);
    assert_eq!((settings.binary.max_payload, settings.binary_publish.max_payload), (9, 8));
    assert!(settings.binary.vhost_known(b"a") && !settings.binary.vhost_known(b"b"));
    let defaults = check("").expect("right").protocols;
    assert_eq!(defaults.binary, codec::binary::Settings::default());
    assert_eq!(defaults.binary_publish, codec::binary::door::Settings::default());
}

#[test]
fn a_reload_knows_what_it_can_apply_and_what_it_cannot() {
    let old = check("").expect("right");
    assert_eq!(old.changes(&check("").expect("right")), Changes::default());
    let text = "[node]\nlog_level = \"debug\"\nshards = 2\n".to_owned()
        + &listener("bind = \"127.0.0.1:1\"");
    let changes = old.changes(&check(&text).expect("right"));
    assert_eq!(changes.applied, ["node.log_level"]);
    assert_eq!(changes.restart, ["node.shards", "listener"]);
}
