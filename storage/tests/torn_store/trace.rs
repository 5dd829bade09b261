//! The system calls of the writer, as `strace -f -y -xx` wrote them down.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// What the writer did to one file of its directory, named without the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Create(String),
    Write {
        name: String,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        name: String,
        len: u64,
    },
    /// `kept`: the call succeeded.
    Sync {
        name: String,
        kept: bool,
    },
    SyncDirectory,
    Unlink(String),
    /// Text that the writer added to its account of what was acknowledged.
    Mark(String),
}

/// Runs the test `name` of this binary in `dir` under strace; `inject`: calls that shall fail.
/// `None`: this machine does not let us trace.
pub(crate) fn record(dir: &Path, name: &str, inject: &[&str]) -> Option<Vec<Event>> {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return None;
    }
    let log = dir.with_extension("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-xx", "-s", "1000000", "-e", CALLS, "-o"]).arg(&log);
    for rule in inject {
        strace.args(["-e", &format!("inject={rule}")]);
    }
    strace.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--test-threads=1"]);
    let output = strace.env(super::workload::DIR_VARIABLE, dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    Some(parse(&text, dir.to_str().unwrap()))
}

/// Events on files of `dir`, in order. Panics at a call on one of them that it does not model.
fn parse(text: &str, dir: &str) -> Vec<Event> {
    let mut unfinished: HashMap<&str, &str> = HashMap::new();
    let mut events = Vec::new();
    for line in text.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, start);
        } else if let Some(resumed) = call.strip_prefix("<... ") {
            let (_, end) = resumed.split_once(" resumed>").unwrap();
            let start = unfinished.remove(thread).unwrap();
            events.extend(parse_call(&format!("{start}{end}"), dir));
        } else if !call.starts_with("+++") && !call.starts_with("---") {
            events.extend(parse_call(call, dir));
        }
    }
    events
}

fn parse_call(call: &str, dir: &str) -> Option<Event> {
    let (call_name, rest) = call.split_once('(').unwrap();
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(" = ")).unwrap();
    let arguments: Vec<&str> = arguments.trim_end_matches(')').split(", ").collect();
    let path = match call_name {
        "openat" => decode(arguments[1]),
        "unlink" => decode(arguments[0]),
        _ => decode(arguments[0].split_once('<').map_or(arguments[0], |(_, path)| path)),
    };
    let path = String::from_utf8_lossy(&path).into_owned();
    let failed = result.starts_with("-1");
    let name = path.strip_prefix(dir)?.trim_start_matches('/').to_owned();
    // SQLite rebuilds its shared memory; a crash leaves nothing of it.
    if name.ends_with("-shm") {
        return None;
    }
    let number = |index: usize| arguments[index].parse::<u64>().unwrap();
    match call_name {
        "openat" if failed || !arguments[2].contains("O_CREAT") => None,
        "openat" => Some(Event::Create(name)),
        "fsync" | "fdatasync" if name.is_empty() => (!failed).then_some(Event::SyncDirectory),
        "fsync" | "fdatasync" => Some(Event::Sync { name, kept: !failed }),
        _ if failed => None,
        "write" if name == super::workload::MARKS => {
            Some(Event::Mark(String::from_utf8(decode(arguments[1])).unwrap()))
        }
        "pwrite64" => {
            let mut bytes = decode(arguments[1]);
            bytes.truncate(result.trim().parse().unwrap());
            Some(Event::Write { name, at: number(3), bytes })
        }
        "ftruncate" => Some(Event::Truncate { name, len: number(1) }),
        "unlink" => Some(Event::Unlink(name)),
        other => panic!("{other} on {name:?} is not modelled"),
    }
}

/// A quoted or bare argument in strace's hexadecimal form.
fn decode(text: &str) -> Vec<u8> {
    let text = text.trim_matches(['"', '>']);
    if !text.contains("\\x") {
        return text.as_bytes().to_vec();
    }
    let pairs = text.split("\\x").skip(1);
    pairs.map(|pair| u8::from_str_radix(&pair[..2], 16).unwrap()).collect()
}

const CALLS: &str = "trace=openat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,ftruncate,\
                     fallocate,copy_file_range,sync_file_range,unlink,rename,renameat2,link";
