//! The configuration file: TOML, below flags and environment.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::field::{Field, nearest};
use super::tenant::TenantTables;
use super::{Kind, Problem, Surroundings, Variable};

/// Where in the file something stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// The file.
    pub path: String,
    /// Its line, from 1.
    pub line: usize,
    /// The field, as `section.key`; empty where the text is no TOML.
    pub field: String,
}

/// A configuration file, taken apart. Values are the texts their variables would have.
#[derive(Default)]
pub(super) struct ConfigFile {
    values: HashMap<&'static str, Given>,
    /// Paths of files that hold secrets.
    secret_files: HashMap<&'static str, Given>,
    /// Workspaces with limits of their own, and targets at other relays.
    pub(super) tenants: TenantTables,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

/// A value and where it stands. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) text: Zeroizing<String>,
    pub(super) place: Place,
}

impl ConfigFile {
    /// Reads the file whole. What is wrong with it is in `problems`; the rest is usable all the
    /// same, so that every mistake is found at once.
    pub(super) fn read(path: &str, world: &dyn Surroundings) -> Self {
        let mut file = Self::default();
        let text = match world.read_long(Path::new(path)) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => {
                let variable = Variable::named("RELAY_CONFIG");
                file.problems.push(Problem::new(variable, format!("cannot read {path}: {error}")));
                return file;
            }
        };
        let page = Page { path, text: &text };
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let what = format!("not TOML: {}", error.message());
            let place = page.place(error.span().unwrap_or_default(), String::new());
            let problem =
                Problem::rule("RELAY_CONFIG", what, "[limits]\nmax_frame_bytes = 1048576");
            file.problems.push(problem.at(place));
        }
        file.problems.sort_by_key(|problem| problem.place.as_ref().map(|place| place.line));
        // A text that cannot be read to its end says nothing for certain.
        if file.problems.is_empty() {
            file.take(&page, table.get_ref());
            file.warn_of_secrets(path, world);
        }
        file
    }

    pub(super) fn value(&self, variable: &str) -> Option<&Given> {
        self.values.get(variable)
    }

    pub(super) fn secret_file(&self, variable: &str) -> Option<&Given> {
        self.secret_files.get(variable)
    }

    fn take(&mut self, page: &Page<'_>, table: &DeTable<'_>) {
        let fields = Field::all();
        for (name, value) in table {
            let section = name.get_ref().as_ref();
            let place = page.place(name.span(), section.to_owned());
            let is_known = fields.iter().any(|field| field.section == section);
            let is_tenants = TenantTables::NAMES.contains(&section);
            match value.get_ref() {
                DeValue::Table(table) if is_tenants => {
                    self.tenants.take(section, page, table, &mut self.problems);
                }
                DeValue::Table(table) if is_known => {
                    let fields: Vec<_> =
                        fields.iter().filter(|field| field.section == section).collect();
                    self.take_section(page, &fields, table);
                }
                _ if is_known || is_tenants => {
                    let what = format!("{section} is a table, [{section}]");
                    let problem = Problem::rule("RELAY_CONFIG", what, &format!("[{section}]"));
                    self.problems.push(problem.at(place));
                }
                _ => {
                    let sections = fields.iter().map(|field| field.section);
                    let known = sections.chain(TenantTables::NAMES);
                    self.problems.push(unknown(section, known, "").at(place));
                }
            }
        }
    }

    fn take_section(&mut self, page: &Page<'_>, fields: &[&Field], table: &DeTable<'_>) {
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            let field = fields.iter().find(|field| field.key == key);
            if let Some(field) = field {
                let place = page.place(name.span(), field.name());
                self.take_value(field, value, place);
                continue;
            }
            let is_secret = |field: &&&Field| Variable::named(field.variable).kind == Kind::Secret;
            let names_file = |field: &&&Field| key.strip_suffix("_file") == Some(&field.key);
            if let Some(field) = fields.iter().filter(is_secret).find(names_file) {
                let place = page.place(name.span(), format!("{}_file", field.name()));
                self.take_secret_file(field, value, place);
                continue;
            }
            let section = fields.first().map_or("", |field| field.section);
            let place = page.place(name.span(), format!("{section}.{key}"));
            let keys: Vec<_> = fields.iter().map(|field| field.key.as_str()).collect();
            self.problems.push(misplaced(key, section, &keys).at(place));
        }
        for field in fields {
            if let Some(given) = self.secret_files.get(field.variable)
                && self.values.contains_key(field.variable)
            {
                let key = &field.key;
                let what = format!("both {key} and {key}_file are set");
                let problem = Problem::rule(field.variable, what, &field.example());
                self.problems.push(problem.at(given.place.clone()));
            }
        }
    }

    fn take_value(&mut self, field: &Field, value: &Spanned<DeValue<'_>>, place: Place) {
        let variable = Variable::named(field.variable);
        match text_of(variable.kind, value.get_ref()) {
            Ok(text) => {
                let given = Given { text: Zeroizing::new(text), place };
                self.values.insert(field.variable, given);
            }
            Err(expected) => {
                let what = format!("expected {expected}");
                let problem = Problem::rule(field.variable, what, &field.example());
                self.problems.push(problem.at(place));
            }
        }
    }

    fn take_secret_file(&mut self, field: &Field, value: &Spanned<DeValue<'_>>, place: Place) {
        match value.get_ref() {
            DeValue::String(path) if !path.trim().is_empty() => {
                let given = Given { text: Zeroizing::new(path.to_string()), place };
                self.secret_files.insert(field.variable, given);
            }
            _ => {
                let what = "expected the path of a file";
                let problem = Problem::rule(field.variable, what, &field.example());
                self.problems.push(problem.at(place));
            }
        }
    }

    fn warn_of_secrets(&mut self, path: &str, world: &dyn Surroundings) {
        let is_secret = |name: &&str| Variable::named(name).kind == Kind::Secret;
        let secret = self.values.keys().copied().filter(|name| is_secret(name)).min();
        if let Some(field) = secret.and_then(Field::of)
            && world.is_open_to_all(Path::new(path))
        {
            self.warnings.push(format!(
                "{path}: every user of this machine can read it, {} included; chmod 600 {path}, \
                 or {}",
                field.name(),
                field.example()
            ));
        }
    }
}

/// A file's text, for places in it.
pub(super) struct Page<'t> {
    path: &'t str,
    text: &'t str,
}

impl Page<'_> {
    pub(super) fn place(&self, span: Range<usize>, field: String) -> Place {
        let before = self.text.as_bytes().iter().take(span.start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Place { path: self.path.to_owned(), line, field }
    }
}

/// The text that a variable of this kind would have. `Err` is what was expected; it shows nothing
/// of the value.
fn text_of(kind: Kind, value: &DeValue<'_>) -> Result<String, String> {
    let expected = match (kind, value) {
        (Kind::Flag, DeValue::Boolean(flag)) => return Ok(u8::from(*flag).to_string()),
        (Kind::Count | Kind::Size, DeValue::Integer(number)) => {
            let number = u64::from_str_radix(number.as_str(), number.radix());
            match number {
                Ok(number) if number > 0 => return Ok(number.to_string()),
                _ => "a whole number above zero".to_owned(),
            }
        }
        (Kind::Choice(words), DeValue::String(word)) if words.contains(&&**word) => {
            return Ok(word.to_string());
        }
        (Kind::Choice(words), DeValue::Boolean(flag)) if words.contains(&"1") => {
            return Ok(u8::from(*flag).to_string());
        }
        (Kind::Choice(words), _) => format!("one of {}", words.join(", ")),
        (Kind::List, DeValue::Array(entries)) => {
            let texts = entries.iter().map(|entry| match entry.get_ref() {
                DeValue::String(text) if !text.contains(',') => Some(text.as_ref()),
                _ => None,
            });
            match texts.collect::<Option<Vec<_>>>() {
                Some(texts) => return Ok(texts.join(",")),
                None => "texts without commas in brackets".to_owned(),
            }
        }
        (
            Kind::Text | Kind::Secret | Kind::Path | Kind::Url(_) | Kind::List | Kind::Size,
            DeValue::String(text),
        ) => return Ok(text.to_string()),
        (Kind::Flag, _) => "true or false".to_owned(),
        (Kind::Count, _) => "a whole number above zero".to_owned(),
        (Kind::Size, _) => "bytes as a number, or a text like \"512MiB\"".to_owned(),
        (Kind::List, _) => "texts in brackets".to_owned(),
        (Kind::Text | Kind::Secret | Kind::Path, _) => "a text in quotes".to_owned(),
        (Kind::Url(_), _) => "a URL in quotes".to_owned(),
    };
    Err(expected)
}

/// A name that is none, with the one it was probably meant to be.
pub(super) fn unknown<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
    section: &str,
) -> Problem {
    let shown = |name: &str| match section {
        "" => format!("[{name}]"),
        _ => format!("{section}.{name}"),
    };
    match nearest(given, known) {
        Some(name) => Problem::rule(
            "RELAY_CONFIG",
            format!("no such field; did you mean {}?", shown(name)),
            &shown(name),
        ),
        None => {
            Problem::rule("RELAY_CONFIG", "no such field; docs/config.md lists them", "[limits]")
        }
    }
}

/// The same for a key, which may stand in the wrong section or be a variable's name.
fn misplaced(key: &str, section: &str, keys: &[&str]) -> Problem {
    let all = Field::all();
    let upper = key.to_ascii_uppercase();
    let meant = all.iter().find(|field| field.key == key || field.variable == upper);
    match meant {
        Some(field) => Problem::rule(
            "RELAY_CONFIG",
            format!("no such field; did you mean {}?", field.name()),
            &format!("[{}] {}", field.section, field.example()),
        ),
        None => {
            let problem = unknown(key, keys.iter().copied(), section);
            let near = nearest(key, keys.iter().copied());
            let field = all.iter().find(|field| Some(field.key.as_str()) == near);
            match field {
                Some(field) => Problem { example: field.example(), ..problem },
                None => problem,
            }
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
