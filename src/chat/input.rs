//! What a typed line means.
//!
//! Owns: the syntax of the chat prompt. Never: who exists (names are looked up by the caller).

/// A line, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Empty,
    Quit,
    Help,
    /// To a user by name or number.
    User(&'a str, &'a str),
    /// To a group by name or number.
    Group(&'a str, &'a str),
    /// What is wrong with it.
    Wrong(&'static str),
}

/// `name text`, `/to name text`, `@group text`, `#number text`, `/help`, `/quit`.
pub(crate) fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    let (word, rest) = split(line);
    match word {
        "" => Line::Empty,
        "/quit" | "/exit" => Line::Quit,
        "/help" => Line::Help,
        "/to" => {
            let (name, text) = split(rest);
            said(Line::User(name, text))
        }
        _ if word.starts_with('/') => Line::Wrong("no such command; /help lists them"),
        _ => match word.strip_prefix(['@', '#']) {
            Some(group) => said(Line::Group(group, rest)),
            None => said(Line::User(word, rest)),
        },
    }
}

/// A recipient and a text must both be there.
fn said(line: Line<'_>) -> Line<'_> {
    match line {
        Line::User("", _) | Line::Group("", _) => Line::Wrong("to whom? /help shows how"),
        Line::User(_, "") | Line::Group(_, "") => Line::Wrong("say what? /help shows how"),
        said => said,
    }
}

fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// The answer to `/help`.
pub(crate) const HELP: &str = "\
  bob hello        to a user, by name or number (also /to bob hello)
  @demo hello      to a group, by name or number (also #1 hello)
  /quit            leave (also end of input)
A tick (\u{2713}) means that the gateway has the message safe: acknowledged or stored.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_a_recipient_and_a_text() {
        assert_eq!(parse("bob hello  there "), Line::User("bob", "hello  there"));
        assert_eq!(parse("  1002   hi"), Line::User("1002", "hi"));
        assert_eq!(parse("/to bob hi"), Line::User("bob", "hi"));
        assert_eq!(parse("@demo hi all"), Line::Group("demo", "hi all"));
        assert_eq!(parse("#1 hi"), Line::Group("1", "hi"));
        assert_eq!(parse("bob @demo"), Line::User("bob", "@demo"));
    }

    #[test]
    fn commands_and_mistakes_are_told_apart() {
        assert_eq!(parse(""), Line::Empty);
        assert_eq!(parse(" \t"), Line::Empty);
        assert_eq!(parse("/quit"), Line::Quit);
        assert_eq!(parse("/help me"), Line::Help);
        for wrong in ["bob", "/to", "/to bob", "@", "@ hi", "#1", "/frobnicate"] {
            assert!(matches!(parse(wrong), Line::Wrong(_)), "{wrong}");
        }
    }
}
