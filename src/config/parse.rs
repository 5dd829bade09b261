//! From text and environment to [`Raw`]: every key found, checked against its row, and placed.
//!
//! Owns: where a value came from (line and column, variable, default), unknown keys and the nearest
//! known one, types and ranges. Never: rules between keys, files. All problems of a file are
//! reported, not only the first.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{
    DEFAULT_LISTENERS, Key, Kind, LISTENER, ListenerKeys, Raw, SECTIONS, Section as _, SectionRow,
    Value,
};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Line and column in the file, from 1.
    File(usize, usize),
    /// The environment variable.
    Variable(String),
    /// Nowhere: the key's default.
    Default,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    /// Dotted key or section; empty where the file is not TOML at all.
    pub(crate) key: String,
    /// What is wrong, and what would be right.
    pub(crate) text: String,
}

impl Problem {
    fn new(place: &Place, key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.clone(), key: key.into(), text: text.into() }
    }

    /// About the file as a whole.
    pub(super) fn unplaced(text: String) -> Self {
        Self { place: Place::File(1, 1), key: String::new(), text }
    }

    /// One line for people, `file:line:column: key: text`.
    pub(crate) fn line(&self, file: &str) -> String {
        let place = match &self.place {
            Place::File(line, column) => format!("{file}:{line}:{column}: "),
            Place::Variable(name) => format!("{name}: "),
            Place::Default => "default: ".to_owned(),
        };
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        format!("{place}{key}{}", self.text)
    }
}

/// The values as written, with the place of each.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) raw: Raw,
    /// Every key but the listeners', dotted.
    pub(crate) values: BTreeMap<String, Value>,
    places: BTreeMap<String, Place>,
}

impl Parsed {
    /// A problem of `key` (dotted; listeners as `listener[0].bind`), at its place.
    pub(crate) fn problem(&self, key: &str, text: impl Into<String>) -> Problem {
        Problem::new(self.places.get(key).unwrap_or(&Place::Default), key, text)
    }
}

/// Reads `text`, then lays the `RINGPOST_` variables of `environment` over it.
///
/// # Errors
/// Everything that is wrong, in the order of the file; never an empty list.
pub(crate) fn parse(
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Parsed, Vec<Problem>> {
    let mut reader = Reader { text, found: Found::default(), problems: Vec::new() };
    match DeTable::parse(text) {
        Ok(table) => reader.table("", table.get_ref()),
        Err(error) => {
            let place = reader.place(error.span().unwrap_or_default());
            reader.problems.push(Problem::new(&place, "", one_line(error.message())));
        }
    }
    let Reader { mut found, mut problems, .. } = reader;
    if found.listeners.is_empty() {
        found.listeners = default_listeners();
    }
    for (name, value) in environment {
        if let Err(problem) = found.set_variable(&name, &value) {
            problems.push(problem);
        }
    }
    match problems.is_empty() {
        true => Ok(found.build()),
        false => Err(problems),
    }
}

/// Where a listener's header stands, and its values by key.
type WrittenListener = (Place, BTreeMap<&'static str, (Value, Place)>);

/// Values by dotted key, and by key for each listener.
#[derive(Default)]
struct Found {
    values: BTreeMap<String, (Value, Place)>,
    listeners: Vec<WrittenListener>,
}

impl Found {
    fn build(self) -> Parsed {
        let mut places = BTreeMap::new();
        let mut listeners = Vec::with_capacity(self.listeners.len());
        for (index, (place, mut values)) in self.listeners.into_iter().enumerate() {
            places.insert(format!("listener[{index}]"), place);
            for (key, (_, place)) in &values {
                places.insert(format!("listener[{index}].{key}"), place.clone());
            }
            listeners.push(ListenerKeys::build(&mut |key| {
                values.remove(key).map_or_else(|| default_value(&LISTENER, key), |(value, _)| value)
            }));
        }
        let mut written = self.values;
        for (key, (_, place)) in &written {
            places.insert(key.clone(), place.clone());
        }
        let mut values = BTreeMap::new();
        let raw = Raw::build(listeners, &mut |section, key| {
            let dotted = format!("{section}.{key}");
            let value = written.remove(&dotted).map_or_else(
                || default_value(section_row(section).expect("sections build themselves"), key),
                |(value, _)| value,
            );
            values.insert(dotted, value.clone());
            value
        });
        Parsed { raw, values, places }
    }

    /// Applies one environment variable; those that are not ours are left alone.
    fn set_variable(&mut self, name: &str, text: &str) -> Result<(), Problem> {
        let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(()) };
        if FOREIGN_VARIABLES.iter().any(|foreign| rest.starts_with(foreign)) {
            return Ok(());
        }
        let place = Place::Variable(name.to_owned());
        if let Some((index, key)) = listener_variable(rest) {
            let dotted = format!("listener[{index}].{}", key.name);
            let count = self.listeners.len();
            let Some((_, values)) = self.listeners.get_mut(index) else {
                let text = format!("there are {count} listeners, numbered from 0");
                return Err(Problem::new(&place, dotted, text));
            };
            let value = from_text(key, text).map_err(|text| Problem::new(&place, dotted, text))?;
            values.insert(key.name, (value, place));
            return Ok(());
        }
        let known =
            SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)));
        for (section, key) in known {
            if variable(section.path, key.name) == name {
                let dotted = format!("{}.{}", section.path, key.name);
                let value =
                    from_text(key, text).map_err(|text| Problem::new(&place, &*dotted, text))?;
                self.values.insert(dotted, (value, place));
                return Ok(());
            }
        }
        let names: Vec<_> = SECTIONS
            .iter()
            .flat_map(|section| section.keys.iter().map(|key| variable(section.path, key.name)))
            .collect();
        let hint = nearest(name, names.iter().map(String::as_str));
        let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        Err(Problem::new(&place, "", format!("no key has this variable{hint}")))
    }
}

/// Walks the file.
struct Reader<'a> {
    text: &'a str,
    found: Found,
    problems: Vec<Problem>,
}

type Entry<'a, 'i> = (&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>);

impl Reader<'_> {
    /// The table at `path`: a section, or the way to some.
    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        let section = section_row(path);
        let mut entries: Vec<Entry<'_, '_>> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (name, value) in entries {
            let dotted = match path {
                "" => name.get_ref().to_string(),
                path => format!("{path}.{}", name.get_ref()),
            };
            let place = self.place(name.span());
            if let Some(key) = section.and_then(|section| section.key(name.get_ref())) {
                match from_toml(key, value.get_ref()) {
                    Ok(checked) => {
                        self.found.values.insert(dotted, (checked, place));
                    }
                    Err(text) => self.wrong(value, &dotted, text),
                }
            } else if dotted == LISTENER.path {
                self.listeners(value);
            } else if let (DeValue::Table(inner), true) = (value.get_ref(), leads_on(&dotted)) {
                self.table(&dotted, inner);
            } else if leads_on(&dotted) {
                let text = format!("this is a section; write [{dotted}] and its keys below");
                self.problems.push(Problem::new(&place, &*dotted, text));
            } else {
                self.problems.push(Problem::new(&place, &*dotted, unknown(section, &dotted)));
            }
        }
    }

    fn listeners(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Array(entries) = value.get_ref() else {
            self.wrong(value, LISTENER.path, "write [[listener]], once per listener".to_owned());
            return;
        };
        for (index, entry) in entries.iter().enumerate() {
            let place = self.place(entry.span());
            let mut values = BTreeMap::new();
            let DeValue::Table(table) = entry.get_ref() else {
                let text = "write [[listener]], once per listener".to_owned();
                self.wrong(entry, LISTENER.path, text);
                continue;
            };
            for (name, value) in table {
                let dotted = format!("listener[{index}].{}", name.get_ref());
                let place = self.place(name.span());
                let Some(key) = LISTENER.key(name.get_ref()) else {
                    let text = unknown(Some(&LISTENER), &format!("listener.{}", name.get_ref()));
                    self.problems.push(Problem::new(&place, dotted, text));
                    continue;
                };
                match from_toml(key, value.get_ref()) {
                    Ok(checked) => {
                        values.insert(key.name, (checked, place));
                    }
                    Err(text) => self.wrong(value, &dotted, text),
                }
            }
            self.found.listeners.push((place, values));
        }
    }

    fn wrong(&mut self, value: &Spanned<DeValue<'_>>, key: &str, text: String) {
        let place = self.place(value.span());
        self.problems.push(Problem::new(&place, key, text));
    }

    /// Columns count characters.
    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File(line, before[start..].chars().count() + 1)
    }
}

fn section_row(path: &str) -> Option<&'static SectionRow> {
    SECTIONS.iter().find(|section| section.path == path)
}

/// Whether a section is at `path` or below it.
fn leads_on(path: &str) -> bool {
    SECTIONS.iter().any(|section| {
        section.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// What to say about a name nobody knows: the nearest key of its section, the same key of another
/// section, or all there are.
fn unknown(section: Option<&SectionRow>, dotted: &str) -> String {
    let Some(section) = section else {
        let paths = || SECTIONS.iter().map(|section| section.path).chain([LISTENER.path]);
        return match nearest(dotted, paths()) {
            Some(near) => format!("unknown section; did you mean {near}?"),
            None => {
                format!("unknown section; there are {}", paths().collect::<Vec<_>>().join(", "))
            }
        };
    };
    let name = dotted.rsplit('.').next().unwrap_or(dotted);
    let names = || section.keys.iter().map(|key| key.name);
    if let Some(near) = nearest(name, names()) {
        return format!("unknown key; did you mean {}.{near}?", section.path);
    }
    match SECTIONS.iter().find(|other| other.key(name).is_some()) {
        Some(other) => format!("unknown key; did you mean {}.{name}?", other.path),
        None => {
            let names = names().collect::<Vec<_>>().join(", ");
            format!("unknown key; [{}] has {names}", section.path)
        }
    }
}

/// The candidate within a few typing errors of `name`.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let best = candidates.map(|known| (distance(name, known), known)).min()?;
    (best.0 <= NEAR.min(name.len().div_ceil(3))).then_some(best.1)
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A TOML value as the key's kind wants it; else what would be right.
fn from_toml(key: &Key, value: &DeValue<'_>) -> Result<Value, String> {
    match (key.kind, value) {
        (Kind::Boolean, DeValue::Boolean(value)) => Ok(Value::Boolean(*value)),
        (Kind::Integer(..), DeValue::Integer(number)) => {
            let digits = number.as_str().replace('_', "");
            integer(
                key.kind,
                &number.to_string(),
                u64::from_str_radix(&digits, number.radix()).ok(),
            )
        }
        (Kind::Text(_) | Kind::Choice(_), DeValue::String(text)) => text_value(key.kind, text),
        (Kind::List(_), DeValue::Array(array)) => {
            let texts = array.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                other => Err(wrong_type(key.kind, other)),
            });
            texts.collect::<Result<_, _>>().map(Value::List)
        }
        (kind, other) => Err(wrong_type(kind, other)),
    }
}

/// A variable's text as the key's kind wants it; else what would be right.
fn from_text(key: &Key, text: &str) -> Result<Value, String> {
    match key.kind {
        Kind::Boolean => match text {
            "true" => Ok(Value::Boolean(true)),
            "false" => Ok(Value::Boolean(false)),
            other => Err(format!("{other:?} is not right; use true or false")),
        },
        Kind::Integer(..) => integer(key.kind, text, text.parse().ok()),
        Kind::Text(_) | Kind::Choice(_) => text_value(key.kind, text),
        Kind::List(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::List(items.map(str::to_owned).collect()))
        }
    }
}

fn integer(kind: Kind, written: &str, number: Option<u64>) -> Result<Value, String> {
    match (kind, number) {
        (Kind::Integer(min, max, _), Some(number)) if (min..=max).contains(&number) => {
            Ok(Value::Integer(number))
        }
        _ => Err(format!("{written} is out of range; use {}", kind.expects())),
    }
}

fn text_value(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Choice(names) if !names.contains(&text) => {
            Err(format!("{text:?} is not known; use {}", kind.expects()))
        }
        _ => Ok(Value::Text(text.to_owned())),
    }
}

fn wrong_type(kind: Kind, value: &DeValue<'_>) -> String {
    let wanted = match kind {
        Kind::Boolean => "a boolean",
        Kind::Integer(..) => "an integer",
        Kind::Text(_) | Kind::Choice(_) => "a string",
        Kind::List(_) => "an array",
    };
    format!("this is {}, not {wanted}; use {}", article(value.type_str()), kind.expects())
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The default of a row, through the same door as every other value.
fn default_value(section: &SectionRow, name: &str) -> Value {
    let key = section.key(name).expect("sections ask for their own keys");
    let value = DeValue::parse(key.default).expect("defaults are TOML; a test reads them all");
    from_toml(key, value.get_ref()).expect("defaults are in range; a test reads them all")
}

fn default_listeners() -> Vec<WrittenListener> {
    let table = DeTable::parse(DEFAULT_LISTENERS).expect("a constant that a test reads");
    let mut reader =
        Reader { text: DEFAULT_LISTENERS, found: Found::default(), problems: Vec::new() };
    reader.table("", table.get_ref());
    assert!(reader.problems.is_empty(), "a constant that a test reads");
    for (place, values) in &mut reader.found.listeners {
        *place = Place::Default;
        values.values_mut().for_each(|(_, place)| *place = Place::Default);
    }
    reader.found.listeners
}

/// The variable that overrides a key.
pub(crate) fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{section}_{key}").to_uppercase().replace(['.', '-'], "_")
}

/// `LISTENER_<n>_<KEY>`.
fn listener_variable(rest: &str) -> Option<(usize, &'static Key)> {
    let (index, name) = rest.strip_prefix("LISTENER_")?.split_once('_')?;
    Some((index.parse().ok()?, LISTENER.key(&name.to_lowercase())?))
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

const PREFIX: &str = "RINGPOST_";

/// Kubernetes sets these in every pod beside a service called "ringpost"; they are no keys.
const FOREIGN_VARIABLES: [&str; 2] = ["SERVICE_", "PORT"];

/// Typing errors a suggestion forgives.
const NEAR: usize = 4;

#[cfg(test)]
mod tests;
