//! House rules that the compiler cannot see. Each row of the table is a rule over every file of the
//! repository, and a counter-example that it must catch.

#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use source::{Source, ident};

macro_rules! rules {
    ($($rule:ident catches $text:expr, in $path:literal;)*) => {
        mod holds {
            $(#[test] fn $rule() {
                let findings = super::$rule(&super::REPOSITORY);
                assert!(findings.is_empty(), "\n  {}\n", findings.join("\n  "));
            })*
        }

        mod catches {
            $(#[test] fn $rule() {
                let planted = super::Source::new($path, &$text);
                let findings = super::$rule(&[planted]);
                assert!(findings.iter().any(|found| found.starts_with($path)), "{findings:?}");
            })*
        }
    };
}

rules! {
    lines_have_at_most_100_characters catches "x".repeat(101), in "src/a.rs";
    files_have_at_most_900_lines catches "\n".repeat(901), in "src/a.rs";
    functions_have_at_most_70_lines
        catches format!("fn f() {{{}}}", "\n".repeat(70)), in "src/a.rs";
    files_open_with_their_doc catches "use std::fmt;\n//! Late.", in "src/a.rs";
    files_belong_to_a_module catches "//! Nobody declares this.", in "shards/src/lost.rs";
    unsafe_stays_in_its_files catches "fn f() { unsafe { g() } }", in "shards/src/mesh.rs";
    safe_crates_forbid_unsafe catches "//! No attribute.", in "codec/src/lib.rs";
    code_follows_the_arrows catches "use shards::mesh::Mesh;", in "perf/src/main.rs";
    manifests_follow_the_arrows catches "[dev-dependencies]\nstorage = {}", in "codec/Cargo.toml";
    codec_does_no_io catches "use std::{fmt, net::{IpAddr}};", in "codec/src/ws.rs";
    unwrap_is_for_tests catches "fn f() { g().unwrap() }", in "src/a.rs";
    nothing_is_left_undone catches concat!("// FIX", "ME later"), in "src/a.rs";
    comments_hold_no_code catches "fn f() {\n    // let x = g(1);\n}", in "src/a.rs";
    no_test_is_switched_off catches "#[ignore]\nfn f() {}", in "tests/a.rs";
    tests_wait_for_conditions catches "fn f() { thread::sleep(d) }", in "tests/a.rs";
    protocols_are_named_only_in_codec catches "const A: &str = \"binary\";", in "shards/src/a.rs";
    numbered_rows_are_tests catches "#[test]\nfn trap_99_of_no_protocol() {}", in "tests/a.rs";
}

/// Our crates that a folder may import; the longest prefix counts.
const ARROWS: [(&str, &[&str]); 8] = [
    ("codec/", &["codec"]),
    ("storage/", &["storage", "codec"]),
    ("shards/", &["shards", "storage", "codec"]),
    ("perf/", &["perf", "codec", "shards::io", "shards::router"]),
    ("src/", &["ringpost", "codec", "storage", "shards"]),
    ("tests/", &["ringpost", "codec", "storage", "shards"]),
    ("examples/", &["codec", "shards"]),
    ("benches/", &["codec", "storage", "shards"]),
];
const CRATES: [&str; 5] = ["codec", "storage", "shards", "perf", "ringpost"];

/// The kernel's rings, its buffers, and bare system calls.
const UNSAFE_FILES: [&str; 4] = [
    "shards/src/io/uring.rs",
    "shards/src/io/bufs.rs",
    "shards/src/io/pages.rs",
    "shards/src/io/sys.rs",
];

/// Roots of the crates without any `unsafe`, where the compiler holds the rule too.
const SAFE_ROOTS: [&str; 4] =
    ["codec/src/lib.rs", "storage/src/lib.rs", "perf/src/main.rs", "src/main.rs"];

/// What a codec that never sees a socket, a clock or a thread has no use for.
const CODEC_STD_BANNED: [&str; 6] = ["net", "time", "io", "thread", "fs", "process"];

/// Configuration names of the protocols.
const PROTOCOLS: [&str; 6] =
    ["binary", "binary-publish", "simple-im", "slimchat", "simple-text", "im-demo"];

/// Where the gateway may name a protocol outside `codec`, beside `<protocol>.rs` (or the folder of
/// that name) in `src/http/` and in a storage backend: the configuration keys, and the terminal
/// client that speaks one.
const PROTOCOL_NAMES_ALLOWED: [&str; 3] = ["src/config", "src/chat.rs", "src/chat/"];

/// The rows that a protocol's specification numbers: tests are named `<prefix>ambiguity_07_...` and
/// `<prefix>trap_07_...`.
const NUMBERED_ROWS: [NumberedRows; 4] = [
    NumberedRows { protocol: "binary", prefix: "", ambiguities: 20, traps: 12 },
    NumberedRows { protocol: "simple-text", prefix: "simple_text_", ambiguities: 14, traps: 10 },
    NumberedRows { protocol: "simple-im", prefix: "simple_im_", ambiguities: 0, traps: 17 },
    NumberedRows { protocol: "im-demo", prefix: "im_demo_", ambiguities: 10, traps: 12 },
];

struct NumberedRows {
    protocol: &'static str,
    prefix: &'static str,
    ambiguities: u32,
    traps: u32,
}

static REPOSITORY: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(root, root, &mut sources);
    assert!(sources.len() > 20, "the repository is not where it was built");
    sources
});

/// Every Rust file and every manifest, except what builds and fuzzers leave behind.
fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !matches!(name, "target" | "corpus" | "artifacts") {
                collect(root, &path, sources);
            }
        } else if name.ends_with(".rs") || name == MANIFEST {
            let text = fs::read_to_string(&path).expect("a text file");
            let relative = path.strip_prefix(root).expect("a path below the root");
            sources.push(Source::new(&relative.to_string_lossy(), &text));
        }
    }
}

fn rust(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| source.path.ends_with(".rs"))
}

fn lines_have_at_most_100_characters(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in rust(sources) {
        for (line, number) in source.text.lines().zip(1..) {
            let length = line.chars().count();
            if length > 100 {
                findings.push(format!("{}:{number}: {length} characters", source.path));
            }
        }
    }
    findings
}

fn files_have_at_most_900_lines(sources: &[Source]) -> Vec<String> {
    let long = rust(sources).filter(|source| source.text.lines().count() > 900);
    long.map(|source| source.finding(source.text.len(), "too long: split it")).collect()
}

fn functions_have_at_most_70_lines(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in rust(sources) {
        for function in source.functions() {
            let lines = source.code[function.span.clone()].lines().count();
            if lines > 70 {
                let what = format!("fn {} has {lines} lines", function.name);
                findings.push(source.finding(function.span.start, &what));
            }
        }
    }
    findings
}

fn files_open_with_their_doc(sources: &[Source]) -> Vec<String> {
    let bare = rust(sources).filter(|source| !source.text.starts_with("//!"));
    bare.map(|source| source.finding(0, "say here what the file owns and never does")).collect()
}

/// The parent of `a/b.rs` is `a.rs` or `a/mod.rs`, that of `src/a.rs` the root of the crate.
fn files_belong_to_a_module(sources: &[Source]) -> Vec<String> {
    let declares = |parent: &str, module: &str| {
        let parent = sources.iter().find(|source| source.path == parent);
        parent.is_some_and(|parent| {
            let mut modules = parent.words("mod").map(|at| parent.code[at + 3..].trim_start());
            modules.any(|rest| {
                ident(rest) == module && rest[module.len()..].trim_start().starts_with(';')
            })
        })
    };
    let orphan = |source: &&Source| {
        let Some((folder, file)) = source.path.rsplit_once('/') else { return false };
        let is_root = matches!(file, "lib.rs" | "main.rs") || folder.ends_with("src/bin");
        if is_root || !format!("/{folder}/").contains("/src/") {
            return false;
        }
        let module = file.trim_end_matches(".rs");
        let parents = match folder.ends_with("src") {
            true => [format!("{folder}/lib.rs"), format!("{folder}/main.rs")],
            false => [format!("{folder}.rs"), format!("{folder}/mod.rs")],
        };
        !parents.iter().any(|parent| declares(parent, module))
    };
    rust(sources).filter(orphan).map(|source| source.finding(0, "no `mod` declares it")).collect()
}

fn unsafe_stays_in_its_files(sources: &[Source]) -> Vec<String> {
    let others = rust(sources).filter(|source| !UNSAFE_FILES.contains(&source.path.as_str()));
    let uses = others.flat_map(|source| source.words("unsafe").map(move |at| (source, at)));
    uses.map(|(source, at)| source.finding(at, "unsafe outside of UNSAFE_FILES")).collect()
}

fn safe_crates_forbid_unsafe(sources: &[Source]) -> Vec<String> {
    let roots = rust(sources).filter(|source| SAFE_ROOTS.contains(&source.path.as_str()));
    let open = roots.filter(|source| !source.code.contains("#![forbid(unsafe_code)]"));
    open.map(|source| source.finding(0, "add #![forbid(unsafe_code)]")).collect()
}

fn code_follows_the_arrows(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in rust(sources) {
        let allowed = arrows(&source.path);
        for name in CRATES {
            for at in source.words(name) {
                let path = &source.code[at..];
                let is_root = path[name.len()..].starts_with("::")
                    && !source.code[..at].ends_with("::")
                    && !source.code[..at].ends_with('.');
                let goes = |allowed: &&str| {
                    path.strip_prefix(*allowed).is_some_and(|rest| rest.starts_with("::"))
                };
                if is_root && !allowed.iter().any(goes) {
                    let what = format!("may not import {name}, only {allowed:?}");
                    findings.push(source.finding(at, &what));
                }
            }
        }
    }
    findings
}

fn manifests_follow_the_arrows(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(MANIFEST)) {
        let allowed = match source.path.as_str() {
            MANIFEST => arrows("src/"),
            path => arrows(path),
        };
        let mut section = "";
        for (line, number) in source.text.lines().zip(1..) {
            if line.starts_with('[') {
                section = line;
            }
            let key = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let is_dependency =
                section.ends_with("dependencies]") && !section.starts_with("[workspace");
            let is_ours = is_dependency && CRATES.contains(&key);
            if is_ours && !allowed.iter().any(|allowed| allowed.split("::").next() == Some(key)) {
                findings.push(format!("{}:{number}: may not depend on {key}", source.path));
            }
        }
    }
    findings
}

fn arrows(path: &str) -> &'static [&'static str] {
    ARROWS.iter().find(|(folder, _)| path.starts_with(folder)).map_or(&[], |(_, allowed)| allowed)
}

fn codec_does_no_io(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in rust(sources).filter(|source| source.path.starts_with("codec/src/")) {
        for at in source.words("std::").chain(source.words("core::")) {
            let rest = &source.code[at..];
            let rest = &rest[rest.find("::").expect("it was found") + 2..];
            let banned = imported(rest).into_iter().find(|name| CODEC_STD_BANNED.contains(name));
            if let Some(name) = banned {
                findings.push(source.finding(at, &format!("codec has no use for std::{name}")));
            }
        }
    }
    findings
}

/// The first names of a path or of a `{group}` of paths.
fn imported(path: &str) -> Vec<&str> {
    let Some(group) = path.strip_prefix('{') else { return vec![ident(path)] };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b',' | b'}' if depth == 0 => {
                names.push(ident(group[start..at].trim_start()));
                start = at + 1;
                if byte == b'}' {
                    break;
                }
            }
            b'}' => depth -= 1,
            _ => {}
        }
    }
    names
}

fn unwrap_is_for_tests(sources: &[Source]) -> Vec<String> {
    code_without(sources, ".unwrap()", false, "expect(\"why it cannot fail\"), or an error")
}

fn nothing_is_left_undone(sources: &[Source]) -> Vec<String> {
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut findings = Vec::new();
    for source in rust(sources) {
        let noted = notes.iter().flat_map(|note| source.text.match_indices(note));
        let stubs = ["dbg!", "todo!", "unimplemented!"];
        let coded = stubs.iter().flat_map(|stub| source.code.match_indices(stub));
        findings.extend(noted.chain(coded).map(|(at, what)| source.finding(at, what)));
    }
    findings
}

/// A comment line that ends like a statement or a block.
fn comments_hold_no_code(sources: &[Source]) -> Vec<String> {
    let is_code = |line: &str| {
        let comment = line.trim().strip_prefix("// ").unwrap_or_default();
        comment.ends_with([';', '{']) && comment.contains(['(', '=', ':'])
    };
    let mut findings = Vec::new();
    for source in rust(sources) {
        let lines = source.text.lines().zip(1..).filter(|(line, _)| is_code(line));
        findings.extend(lines.map(|(line, at)| format!("{}:{at}: {}", source.path, line.trim())));
    }
    findings
}

fn no_test_is_switched_off(sources: &[Source]) -> Vec<String> {
    let mut findings = code_without(sources, "#[ignore", true, "a test runs or is not there");
    findings.extend(code_without(sources, "#[should_panic", true, "check the result instead"));
    findings
}

fn tests_wait_for_conditions(sources: &[Source]) -> Vec<String> {
    code_without(sources, "thread::sleep", true, "wait for what the test needs")
}

/// Every place where `text` stands in code of tests (or of everything else).
fn code_without(sources: &[Source], text: &str, in_tests: bool, what: &str) -> Vec<String> {
    let places = rust(sources)
        .flat_map(|source| source.code.match_indices(text).map(move |(at, _)| (source, at)));
    places
        .filter(|(source, at)| source.is_test(*at) == in_tests)
        .map(|(source, at)| source.finding(at, &format!("`{text}`: {what}")))
        .collect()
}

/// As a string, as a module of `codec`, or as a row of its table.
fn protocols_are_named_only_in_codec(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in rust(sources).filter(|source| !may_name_protocols(&source.path)) {
        let strings = source.strings.iter().filter(|(_, text)| PROTOCOLS.contains(&&**text));
        let mut places: Vec<usize> = strings.map(|(at, _)| *at).collect();
        for name in PROTOCOLS {
            let module = format!("codec::{}", name.replace('-', "_"));
            let row = format!("ProtocolId::{}", camel(name));
            places.extend(source.words(&module).chain(source.words(&row)));
        }
        let places = places.into_iter().filter(|at| !source.is_test(*at));
        findings.extend(places.map(|at| source.finding(at, "names a protocol")));
    }
    findings
}

fn may_name_protocols(path: &str) -> bool {
    let in_gateway = ["shards/src/", "storage/src/", "src/"].iter().any(|at| path.starts_with(at));
    let mut parts = path.trim_end_matches(".rs").split('/');
    let is_face = ["src/http/", "storage/src/"].iter().any(|at| path.starts_with(at))
        && parts.any(|part| PROTOCOLS.contains(&&*part.replace('_', "-")));
    !in_gateway || is_face || PROTOCOL_NAMES_ALLOWED.iter().any(|at| path.starts_with(at))
}

fn camel(kebab: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    kebab.split('-').map(capital).collect()
}

/// A row without a test, and a test whose row the specification does not have.
fn numbered_rows_are_tests(sources: &[Source]) -> Vec<String> {
    let mut known = Vec::new();
    for rows in NUMBERED_ROWS {
        for (kind, count) in [("ambiguity", rows.ambiguities), ("trap", rows.traps)] {
            known.extend((1..=count).map(|number| {
                (rows.protocol, format!("{}{kind}_{number:02}_", rows.prefix), false)
            }));
        }
    }
    let mut findings = Vec::new();
    for source in rust(sources) {
        let is_row = |name: &str| name.contains("ambiguity_") || name.contains("trap_");
        for test in source.functions().into_iter().filter(|function| is_row(function.name)) {
            let at = test.span.start;
            let row = known.iter_mut().find(|(_, prefix, _)| test.name.starts_with(&**prefix));
            match row {
                None => findings.push(source.finding(at, "the specification has no such row")),
                Some(_) if !source.attributes(at).any(|line| line == "#[test]") => {
                    findings.push(source.finding(at, "named like a row, but not a test"));
                }
                Some((_, _, covered)) => *covered = true,
            }
        }
    }
    let open = known.into_iter().filter(|(_, _, covered)| !covered);
    findings.extend(open.map(|(of, prefix, _)| format!("{of}: no test is named {prefix}...")));
    findings
}

const MANIFEST: &str = "Cargo.toml";
