//! Every row of the key table, and every way to get a key wrong.

use super::*;
use crate::config::keys::reference;

fn read(text: &str) -> Result<Parsed, Vec<Problem>> {
    parse(text, [])
}

fn read_with(text: &str, name: &str, value: &str) -> Result<Parsed, Vec<Problem>> {
    parse(text, [(name.to_owned(), value.to_owned())])
}

/// The lines an operator would see.
fn lines(result: Result<Parsed, Vec<Problem>>) -> Vec<String> {
    let problems = result.expect_err("the text is wrong");
    problems.iter().map(|problem| problem.line("r.toml")).collect()
}

#[test]
fn every_default_fits_its_row_and_the_reference_says_the_same_as_no_file() {
    let empty = read("").expect("defaults are right");
    let full = read(&reference()).expect("the reference is right");
    assert_eq!(format!("{:?}", empty.raw), format!("{:?}", full.raw));
}

#[test]
fn every_key_is_in_the_reference_with_a_comment_and_its_default() {
    let text = reference();
    for section in SECTIONS {
        let start = text.find(&format!("\n[{}]\n", section.path)).expect("the section's header");
        let body = text[start + 1..].split("\n[").next().expect("split gives one");
        for key in section.keys {
            let line = format!("\n{} = {}\n", key.name, key.default);
            let at = body.find(&line).unwrap_or_else(|| panic!("{}.{}", section.path, key.name));
            let above = body[..at].lines().last().expect("a line above");
            assert!(above.starts_with("# "), "{}.{} has no comment", section.path, key.name);
        }
    }
    for key in LISTENER.keys {
        assert!(text.contains(&format!("\n# {} = {}\n", key.name, key.default)), "{}", key.name);
    }
}

#[test]
fn every_integer_row_takes_its_bounds_and_nothing_beyond() {
    for section in SECTIONS {
        for key in section.keys {
            let Kind::Integer(min, max, _) = key.kind else { continue };
            let line = |value: u64| format!("[{}]\n{} = {value}\n", section.path, key.name);
            assert!(read(&line(min)).is_ok(), "{}.{} {min}", section.path, key.name);
            assert!(read(&line(max)).is_ok(), "{}.{} {max}", section.path, key.name);
            assert!(read(&line(max + 1)).is_err(), "{}.{}", section.path, key.name);
            if let Some(less) = min.checked_sub(1) {
                assert!(read(&line(less)).is_err(), "{}.{}", section.path, key.name);
            }
        }
    }
}

#[test]
fn quick_tests_are_within_bounds() {
    let text = "[delivery]\nretry_interval_ms = 100\nretry_max = 0\npersist_after_ms = 0\n\
                [heartbeat]\ninterval_ms = 500\n";
    assert!(read(text).is_ok());
}

#[test]
fn every_key_has_a_variable_of_its_own_and_it_overrides_the_file() {
    let mut seen = std::collections::BTreeSet::new();
    for section in SECTIONS {
        for key in section.keys {
            let name = variable(section.path, key.name);
            assert!(seen.insert(name.clone()), "{name} stands for two keys");
            let written = key.default.trim_matches(['"', '[', ']']);
            let value = if matches!(key.kind, Kind::List(_)) { "" } else { written };
            assert!(read_with("", &name, value).is_ok(), "{name}={value}");
        }
    }
    let parsed = read_with("[delivery]\nretry_max = 1\n", "RINGPOST_DELIVERY_RETRY_MAX", "5");
    assert_eq!(parsed.expect("right").raw.delivery.retry_max, 5);
}

#[test]
fn variables_reach_listeners_and_lists() {
    let parsed = read_with("", "RINGPOST_LISTENER_1_BIND", "0.0.0.0:443").expect("right");
    assert_eq!(parsed.raw.listeners[1].bind, "0.0.0.0:443");
    let name = "RINGPOST_PROTOCOL_BINARY_PUBLISH_ALLOW";
    let parsed = read_with("", name, "10.0.0.0/8, ::1").expect("right");
    assert_eq!(parsed.raw.binary_publish.allow, ["10.0.0.0/8", "::1"]);
    assert_eq!(
        lines(read_with("", "RINGPOST_LISTENER_9_BIND", "0.0.0.0:443")),
        ["RINGPOST_LISTENER_9_BIND: listener[9].bind: there are 6 listeners, numbered from 0"]
    );
}

#[test]
fn a_wrong_variable_is_named_with_what_would_be_right() {
    assert_eq!(
        lines(read_with("", "RINGPOST_DELIVERY_RETRY_MX", "5")),
        ["RINGPOST_DELIVERY_RETRY_MX: no key has this variable; did you mean \
          RINGPOST_DELIVERY_RETRY_MAX?"]
    );
    assert_eq!(
        lines(read_with("", "RINGPOST_DELIVERY_RETRY_MAX", "many")),
        ["RINGPOST_DELIVERY_RETRY_MAX: delivery.retry_max: many is out of range; use 0 to 100 \
          times"]
    );
    assert_eq!(
        lines(read_with("", "RINGPOST_PROTOCOL_BINARY_OPEN_GROUPS", "yes")),
        ["RINGPOST_PROTOCOL_BINARY_OPEN_GROUPS: protocol.binary.open_groups: \"yes\" is not \
          right; use true or false"]
    );
}

#[test]
fn variables_that_a_container_platform_makes_are_left_alone() {
    for name in ["RINGPOST_SERVICE_HOST", "RINGPOST_PORT_9095_TCP", "PATH"] {
        assert!(read_with("", name, "tcp://10.0.0.1:9095").is_ok(), "{name}");
    }
}

#[test]
fn problems_name_line_column_key_and_what_would_be_right() {
    let cases = [
        ("[node]\nshards = \n", "r.toml:2:10: "),
        (
            "[delivery]\n\nretry_mx = 5\n",
            "r.toml:3:1: delivery.retry_mx: unknown key; did you mean delivery.retry_max?",
        ),
        ("[delivry]\n", "r.toml:1:2: delivry: unknown section; did you mean delivery?"),
        ("[mqtt]\n", "r.toml:1:2: mqtt: unknown section; there are node, http, "),
        (
            "[node]\nretry_max = 1",
            "r.toml:2:1: node.retry_max: unknown key; did you mean delivery.retry_max?",
        ),
        ("[heartbeat]\nzzzzzz = 1", "r.toml:2:1: heartbeat.zzzzzz: unknown key; [heartbeat] has "),
        (
            "[delivery]\n  retry_max = 101",
            "r.toml:2:15: delivery.retry_max: 101 is out of range; use 0 to 100 times",
        ),
        (
            "[delivery]\nretry_max = -1",
            "r.toml:2:13: delivery.retry_max: -1 is out of range; use 0 to 100 times",
        ),
        (
            "[delivery]\nretry_max = \"3\"",
            "r.toml:2:13: delivery.retry_max: this is a string, not an integer; use 0 to 100 times",
        ),
        (
            "[auth]\nmode = \"ldap\"",
            "r.toml:2:8: auth.mode: \"ldap\" is not known; use \"local\" | \"http\" | \"open\"",
        ),
        (
            "[protocol.binary]\nvhosts = [\"a\", 1]",
            "r.toml:2:10: protocol.binary.vhosts: this is an integer, not an array; use a list",
        ),
        (
            "[[listener]]\n[[listener]]\nbnd = \"x\"",
            "r.toml:3:1: listener[1].bnd: unknown key; did you mean listener.bind?",
        ),
        ("[listener]\n", "r.toml:1:1: listener: write [[listener]], once per listener"),
        ("node = 3", "r.toml:1:1: node: this is a section; write [node] and"),
    ];
    for (text, expected) in cases {
        let lines = lines(read(text));
        assert!(lines[0].starts_with(expected), "{text:?} gave {lines:?}");
    }
}

#[test]
fn all_problems_of_a_file_are_reported_in_its_order() {
    let lines = lines(read("[tls]\nkey = 1\n[node]\nshards = 5000\nfoo = 1\n"));
    let places: Vec<_> = lines.iter().map(|line| &line[..10]).collect();
    assert_eq!(places, ["r.toml:2:7", "r.toml:4:1", "r.toml:5:1"], "{lines:?}");
}

#[test]
fn columns_count_characters_and_lines_survive_other_scripts() {
    let lines = lines(read("# 群組\n[node]\n\"群\" = 1\n"));
    assert!(lines[0].starts_with("r.toml:3:1: node.群: unknown key"), "{lines:?}");
}

#[test]
fn numbers_may_be_written_with_underscores_and_in_hex() {
    let parsed = read("[auth]\ncache_max = 1_000_000\nhttp_timeout_ms = 0x3e8\n").expect("right");
    assert_eq!(parsed.raw.auth.cache_max, 1_000_000);
    assert_eq!(parsed.raw.auth.http_timeout_ms, 1_000);
}

#[test]
fn dotted_keys_are_sections_too() {
    let parsed = read("node.shards = 3\nprotocol.binary.max_invalid = 9\n").expect("right");
    assert_eq!(parsed.raw.node.shards, 3);
    assert_eq!(parsed.raw.binary.max_invalid, 9);
}
