//! Tells the program which revision of the tree it was built from.
//!
//! Owns: `PERF_REVISION`, empty where there is no git or no repository. Never: fails a build.

use std::process::Command;

fn main() {
    // What a change of makes the answer old: the commit, and the sources the program is made of.
    // A path that is missing would run this every time.
    let watched = ["src", "Cargo.toml", "../Cargo.lock", "../codec/src", "../shards/src"];
    for path in watched.into_iter().filter(|path| std::path::Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    let revision = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    println!("cargo::rustc-env=PERF_REVISION={}", revision.unwrap_or_default());
}

/// What git says in one line, if it is there and says something.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
