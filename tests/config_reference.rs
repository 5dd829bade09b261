//! The reference file in the repository is what the program prints, and the program takes it.

use std::path::Path;
use std::process::{Command, Output};

fn ringpost(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the program writes text")
}

#[test]
fn the_reference_file_is_exactly_what_the_program_prints() {
    let printed = ringpost(&["defaults"]);
    assert!(printed.status.success());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ringpost.toml");
    let kept = std::fs::read_to_string(file).expect("config/ringpost.toml");
    assert_eq!(
        text(&printed.stdout),
        kept,
        "config/ringpost.toml is old: cargo run -- defaults > config/ringpost.toml"
    );
}

#[test]
fn every_configuration_in_the_repository_is_right() {
    for file in ["config/ringpost.toml", "config/dev.toml"] {
        let checked = ringpost(&["check", "--config", file]);
        assert!(checked.status.success(), "{file}: {}", text(&checked.stderr));
    }
}

#[test]
fn the_reference_explains_every_key() {
    let printed = ringpost(&["defaults"]);
    let lines: Vec<&str> = text(&printed.stdout).lines().collect();
    let mut keys = 0;
    let is_key = |line: &str| line.contains(" = ") && !line.starts_with('#');
    let body = lines.iter().position(|line| line.starts_with("[http]")).expect("a section");
    for pair in lines[body..].windows(2).filter(|pair| is_key(pair[1])) {
        assert!(pair[0].starts_with("# "), "no comment above {:?}", pair[1]);
        keys += 1;
    }
    assert!(keys >= 40, "only {keys} keys were looked at");
}

#[test]
fn the_service_unit_gives_the_drain_more_time_than_it_takes() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ringpost.service");
    let unit = std::fs::read_to_string(unit).expect("config/ringpost.service");
    let seconds = |name: &str| -> u64 {
        let line = unit.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim_start_matches('=').parse().expect("seconds")
    };
    let printed = ringpost(&["defaults"]);
    let drain = text(&printed.stdout).lines().find_map(|line| line.strip_prefix("drain_ms = "));
    let drain: u64 = drain.expect("drain_ms").parse().expect("a number");
    assert!(seconds("TimeoutStopSec") * 1000 > 2 * drain);
    assert!(seconds("WatchdogSec") >= 10, "shorter than a slow disk's worst commit");
    assert!(unit.contains("io_uring_setup io_uring_enter io_uring_register"));
}
