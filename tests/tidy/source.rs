//! A source file as the rules see it: its text, its code without comments and strings, and which
//! of its lines are tests. Just enough of Rust's grammar for that; no file system.

use std::ops::Range;

/// A file of the repository.
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` with comments and the insides of literals blanked out, byte for byte, so that
    /// offsets and lines stay true.
    pub(crate) code: String,
    /// String literals: offset and content as written.
    pub(crate) strings: Vec<(usize, String)>,
    /// Byte ranges under `#[cfg(test)]`.
    tests: Vec<Range<usize>>,
}

/// A function with a body.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// From the word `fn` to the closing brace.
    pub(crate) span: Range<usize>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, strings) = blank(text);
        let tests = test_items(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, strings, tests }
    }

    /// The 1-based line of a byte offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// Whether the code at this offset is only built for tests, benches and fuzzing.
    pub(crate) fn is_test(&self, offset: usize) -> bool {
        let mut parts = self.path.split('/');
        parts.any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "fuzz"))
            || self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Offsets in the code where `word` stands, not as a part of a longer identifier.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.code.as_bytes();
        let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
        let joined = |inside: u8, neighbour: Option<&u8>| {
            is_ident(inside) && neighbour.is_some_and(|byte| is_ident(*byte))
        };
        self.code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            !joined(first, before) && !joined(last, bytes.get(at + word.len()))
        })
    }

    pub(crate) fn functions(&self) -> Vec<Function<'_>> {
        let mut functions = Vec::new();
        for start in self.words("fn") {
            let name = ident(self.code[start + 2..].trim_start());
            if name.is_empty() {
                continue;
            }
            if let Some(end) = item_end(&self.code, start)
                && self.code.as_bytes()[end - 1] == b'}'
            {
                functions.push(Function { name, span: start..end });
            }
        }
        functions
    }

    /// The lines of attributes directly above the line of `offset`.
    pub(crate) fn attributes(&self, offset: usize) -> impl Iterator<Item = &str> {
        let line_start = self.code[..offset].rfind('\n').unwrap_or(0);
        let above = self.code[..line_start].lines().rev().map(str::trim);
        above.take_while(|line| line.is_empty() || line.starts_with('#'))
    }

    /// A finding of a rule, to click on.
    pub(crate) fn finding(&self, offset: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, self.line(offset))
    }
}

/// The identifier at the start of `text`; empty if there is none.
pub(crate) fn ident(text: &str) -> &str {
    let end = text.bytes().position(|byte| !is_ident(byte)).unwrap_or(text.len());
    &text[..end]
}

fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Blanks comments and literals; gives the string literals too.
fn blank(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (end, inside) = match literal(text, at) {
            None => {
                at += 1;
                continue;
            }
            Some(Literal::Comment(end)) => (end, at..end),
            Some(Literal::Char(end)) => (end, at + 1..end - 1),
            Some(Literal::String { inside, end }) => {
                strings.push((inside.start, text[inside.clone()].to_owned()));
                (end, inside)
            }
        };
        code[inside].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    (String::from_utf8(code).expect("whole characters are blanked"), strings)
}

/// What starts at an offset and is not code; `end` is behind it.
enum Literal {
    Comment(usize),
    Char(usize),
    String { inside: Range<usize>, end: usize },
}

fn literal(text: &str, at: usize) -> Option<Literal> {
    let rest = &text.as_bytes()[at..];
    let starts_word = at == 0 || !is_ident(text.as_bytes()[at - 1]);
    match rest {
        [b'/', b'/', ..] => {
            let len = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            Some(Literal::Comment(at + len))
        }
        [b'/', b'*', ..] => Some(Literal::Comment(at + block_comment(rest))),
        [b'"', ..] => {
            let len = 1 + quoted(&rest[1..], b'"');
            Some(Literal::String { inside: at + 1..at + len - 1, end: at + len })
        }
        [b'r', b'#' | b'"', ..] if starts_word => raw_string(text, at),
        [b'b' | b'c', b'r', b'#' | b'"', ..] if starts_word => raw_string(text, at + 1),
        [b'\'', b'\\', ..] => Some(Literal::Char(at + 1 + quoted(&rest[1..], b'\''))),
        [b'\'', ..] => {
            let character = text[at + 1..].chars().next()?;
            let close = at + 1 + character.len_utf8();
            (text.as_bytes().get(close) == Some(&b'\'')).then_some(Literal::Char(close + 1))
        }
        _ => None,
    }
}

/// Bytes up to and with the closing quote.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// A raw string whose `r` stands at `at`; `None` for a raw identifier.
fn raw_string(text: &str, at: usize) -> Option<Literal> {
    let hashes = text[at + 1..].bytes().take_while(|byte| *byte == b'#').count();
    let start = at + 1 + hashes + 1;
    if text.as_bytes().get(start - 1) != Some(&b'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let len = text[start..].find(&close).unwrap_or(text.len() - start);
    let end = (start + len + close.len()).min(text.len());
    Some(Literal::String { inside: start..start + len, end })
}

/// The items behind `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let items = code.match_indices("#[cfg(test)]");
    items.map(|(at, attribute)| at..item_end(code, at + attribute.len()).unwrap_or(at)).collect()
}

/// The end of the item at `start`: behind its `;` or its closing brace.
fn item_end(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut braces = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && depth == 0 {
                    return Some(at + 1);
                }
            }
            b';' if depth == 0 && braces == 0 => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let text = concat!(
            "let a = \"x // \\\" y\"; // unsafe\n",
            "let b = r#\"un\"safe\"#; /* a /* b */ c */ 'x'; '\\'' 'é'\n",
            "fn f<'a>(x: &'a str) -> &'static str { b\"z\"; br\"q\" }\n",
        );
        let source = Source::new("a.rs", text);
        let expected = concat!(
            "let a = \"         \";          \n",
            "let b = r#\"       \"#;                   ' '; '  ' '  '\n",
            "fn f<'a>(x: &'a str) -> &'static str { b\" \"; br\" \" }\n",
        );
        assert_eq!(source.code, expected);
        let strings: Vec<_> = source.strings.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(strings, ["x // \\\" y", "un\"safe", "z", "q"]);
    }

    #[test]
    fn functions_span_signature_and_body() {
        let text = "trait T {\n  fn a(x: [u8; 2]);\n  fn b() -> u8\n  where\n  {\n    1\n  }\n}\n\
                    type F = fn(u8);";
        let source = Source::new("a.rs", text);
        let functions = source.functions();
        let spans: Vec<_> = functions
            .iter()
            .map(|f| (f.name, source.line(f.span.start), source.line(f.span.end - 1)))
            .collect();
        assert_eq!(spans, [("b", 3, 7)]);
    }

    #[test]
    fn test_modules_and_test_folders_are_tests() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}";
        let source = Source::new("src/a.rs", text);
        let is_test: Vec<_> = ["fn a", "fn b", "fn c"]
            .map(|text| source.is_test(source.code.find(text).unwrap()))
            .into();
        assert_eq!(is_test, [false, true, false]);
        assert!(Source::new("codec/tests/a.rs", "fn a() {}").is_test(0));
        assert!(Source::new("src/a/tests.rs", "fn a() {}").is_test(0));
    }
}
