//! The JSON inside a message: what clients of the binary protocol put there by convention.
//!
//! Owns: our own form, and showing anybody's safely. Never: the packet around it. A payload is the
//! sender's word: the name in it can be forged.

use serde_json::{Value, json};

/// A text message as other clients understand it. `from` as a number where it is known.
pub(crate) fn text(from: Option<u32>, name: &str, to: u32, text: &str) -> Vec<u8> {
    let from = from.map_or_else(|| json!(name), |id| json!(id));
    json!({ "from": from, "to": to, "name": name, "type": "text", "content": text })
        .to_string()
        .into_bytes()
}

/// A payload made presentable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The sender's number, if the payload names one.
    pub(crate) from: Option<u32>,
    /// The name the sender gives himself.
    pub(crate) name: Option<String>,
    pub(crate) text: String,
}

/// Reads any payload: the JSON convention, other JSON, text, or bytes. Nothing in the result can
/// steer a terminal.
pub(crate) fn show(payload: &[u8]) -> Shown {
    let unsigned = |text: String| Shown { from: None, name: None, text: harmless(&text) };
    let Ok(text) = std::str::from_utf8(payload) else {
        return unsigned(bytes_of(payload));
    };
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
        return unsigned(text.to_owned());
    };
    let sender = ["from", "sender"].iter().find_map(|key| fields.get(*key));
    let content = fields.get("content").map(|content| content_of(content, 0));
    Shown {
        from: sender.and_then(number),
        name: fields.get("name").or(sender).and_then(Value::as_str).map(harmless),
        text: harmless(&content.unwrap_or_else(|| text.to_owned())),
    }
}

/// Some clients put a JSON object, or one written as a string, where others put the text.
fn content_of(content: &Value, depth: u8) -> String {
    let inner = |fields: &serde_json::Map<String, Value>| {
        let inner = ["content", "text"].iter().find_map(|key| fields.get(*key))?;
        (depth < CONTENT_DEPTH).then(|| content_of(inner, depth + 1))
    };
    match content {
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => inner(&fields).unwrap_or_else(|| text.clone()),
            _ => text.clone(),
        },
        Value::Object(fields) => inner(fields).unwrap_or_else(|| content.to_string()),
        other => other.to_string(),
    }
}

/// Numbers come as numbers or as strings.
fn number(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn bytes_of(payload: &[u8]) -> String {
    let head = &payload[..payload.len().min(BYTES_SHOWN)];
    let hex: Vec<_> = head.iter().map(|byte| format!("{byte:02x}")).collect();
    let more = if head.len() < payload.len() { " ..." } else { "" };
    format!("({} bytes) {}{more}", payload.len(), hex.join(" "))
}

/// Control characters and those that reorder text become escapes.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// Content inside content inside content is as far as real clients go.
const CONTENT_DEPTH: u8 = 2;
const BYTES_SHOWN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(from: Option<u32>, name: Option<&str>, text: &str) -> Shown {
        Shown { from, name: name.map(str::to_owned), text: text.to_owned() }
    }

    #[test]
    fn our_own_form_comes_back_as_it_was_said() {
        let said = "tab\\ \"quotes\" \u{4f60}\u{597d}";
        let payload = text(Some(1001), "alice", 1002, said);
        assert_eq!(show(&payload), shown(Some(1001), Some("alice"), said));
        let payload = text(None, "dora", 1002, "hi");
        assert_eq!(show(&payload), shown(None, Some("dora"), "hi"));
    }

    #[test]
    fn other_clients_forms_are_understood() {
        let browser = br#"{"content_type":"text","content":"hi","from":1001,"to":1002}"#;
        assert_eq!(show(browser), shown(Some(1001), None, "hi"));
        let app =
            br#"{"from":"1001","to":"1002","content":"{\"type\":\"text\",\"content\":\"hi\"}"}"#;
        assert_eq!(show(app), shown(Some(1001), Some("1001"), "hi"));
        let old = br#"{"sender":"7","receiver":"8","content":"hi","msgType":2}"#;
        assert_eq!(show(old), shown(Some(7), Some("7"), "hi"));
    }

    #[test]
    fn anything_else_is_shown_as_text_or_bytes() {
        assert_eq!(show(b"plain"), shown(None, None, "plain"));
        assert_eq!(show(b"[1,2]"), shown(None, None, "[1,2]"));
        assert_eq!(show(b"{\"a\":1}"), shown(None, None, "{\"a\":1}"));
        assert_eq!(show(b"\xff\x00"), shown(None, None, "(2 bytes) ff 00"));
        assert!(show(&[0xff; 100]).text.ends_with(" ff ..."));
        assert_eq!(show(b""), shown(None, None, ""));
    }

    #[test]
    fn nothing_in_a_payload_can_steer_the_terminal() {
        let evil = b"\x1b[2J\x07\r\n\xe2\x80\xae\xc2\x9b";
        let safe = show(evil).text;
        assert_eq!(safe, "\\u{1b}[2J\\u{7}\\r\\n\\u{202e}\\u{9b}");
        let evil = br#"{"from":1,"name":"\u001b]0;x\u0007","content":"\u001b[31m"}"#;
        let shown = show(evil);
        let all = format!("{}{}", shown.name.expect("a name"), shown.text);
        assert!(!all.chars().any(char::is_control), "{all:?}");
    }

    #[test]
    fn deeply_nested_content_ends() {
        let mut nested = json!("bottom");
        for _ in 0..50 {
            nested = json!({ "content": nested });
        }
        assert!(show(nested.to_string().as_bytes()).text.contains("content"));
    }
}
