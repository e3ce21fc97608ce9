//! What the variables are called in a configuration file.

use super::tenant::LIMITS as TENANT_LIMITS;
use super::variable::VARIABLES;
use super::{Kind, Variable};

/// The sections of the file, each with the first variable it holds; those behind it in the table
/// follow, up to the next section's first.
const SECTIONS: [(&str, &str); 11] = [
    ("listen", "HOST"),
    ("tls", "RELAY_TLS"),
    ("admin", "RELAY_ENABLE_ADMIN_HTTP"),
    ("log", "MAX_LOGS"),
    ("platform", "SERVER_URL"),
    ("admission", "RELAY_ADMISSION"),
    ("limits", "RELAY_MAX_TOTAL_CONNECTIONS"),
    ("proxies", "RELAY_TRUSTED_PROXIES"),
    ("timeouts", "RELAY_PING_INTERVAL_MS"),
    ("backplane", "RELAY_BACKPLANE_MODE"),
    ("engine", "RELAY_DRIVER"),
];

/// One field of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Field {
    /// Its table.
    pub section: &'static str,
    /// Its key there: the variable's name in lower case, without `RELAY_` and the section's name.
    pub key: String,
    /// The variable it stands for.
    pub variable: &'static str,
}

impl Field {
    /// Every field, in the table's order. What only makes sense outside the file is none of it.
    pub(crate) fn all() -> Vec<Self> {
        let mut section = None;
        let mut fields = Vec::with_capacity(VARIABLES.len());
        for variable in VARIABLES {
            let begins = SECTIONS.iter().find(|(_, first)| *first == variable.name);
            section = begins.map(|(name, _)| *name).or(section);
            fields.extend(section.map(|section| Self {
                section,
                key: key(section, variable.name),
                variable: variable.name,
            }));
        }
        fields
    }

    /// The field of a variable, if it has one.
    pub(crate) fn of(variable: &str) -> Option<Self> {
        Self::all().into_iter().find(|field| field.variable == variable)
    }

    /// `section.key`
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// A line that would be accepted.
    pub(crate) fn example(&self) -> String {
        let variable = Variable::named(self.variable);
        let value = match variable.kind {
            Kind::Count => variable.example.to_owned(),
            Kind::Flag => "true".to_owned(),
            Kind::List => {
                let entries = variable.example.split(',').map(|entry| format!("{entry:?}"));
                format!("[{}]", entries.collect::<Vec<_>>().join(", "))
            }
            // Nobody should copy a secret from an example.
            Kind::Secret => return format!("{}_file = \"/run/secrets/{}\"", self.key, self.key),
            Kind::Text | Kind::Path | Kind::Url(_) | Kind::Choice(_) | Kind::Size => {
                format!("{:?}", variable.example)
            }
        };
        format!("{} = {value}", self.key)
    }
}

/// A file with every field, each commented out, with its meaning and a value that is accepted.
pub(crate) fn template() -> String {
    let mut text = String::from(
        "# Configuration of a relay. Flags and environment win over it. Everything is optional.\n",
    );
    let mut section = "";
    for field in Field::all() {
        if field.section != section {
            section = field.section;
            text += &format!("\n[{section}]\n");
        }
        let Variable { default, meaning, .. } = Variable::named(field.variable);
        let meaning = meaning.replace('`', "");
        text += &format!("# {meaning} Default: {default}\n#{}\n", field.example());
    }
    text += "\n# Limits of single workspaces; what is absent is as in [limits]. Keys: ";
    let keys: Vec<_> = TENANT_LIMITS.iter().map(|(key, _)| *key).collect();
    text += &keys.join(", ");
    text += ".\n#[tenants.\"workspace-id\"]\n\n\
        # Targets at another relay, and where clients reach that.\n#[targets.\"workspace-id\"]\n";
    text
}

fn key(section: &str, variable: &str) -> String {
    let name = variable.strip_prefix("RELAY_").unwrap_or(variable).to_ascii_lowercase();
    let prefix = format!("{section}_");
    name.strip_prefix(&prefix).map(str::to_owned).unwrap_or(name)
}

/// The known name that a mistyped one was probably meant to be.
///
/// Cost: quadratic in the names' lengths; for messages alone.
pub(super) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let near = known.into_iter().map(|name| (distance(given, name), name));
    let (distance, name) = near.min_by_key(|(distance, _)| *distance)?;
    // Further away it is a guess that misleads.
    (distance <= given.len().max(name.len()).div_ceil(3)).then_some(name)
}

/// How many letters have to be typed, dropped or replaced to make one word of the other.
/// Source: Levenshtein, by rows.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (at, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_variable_has_one_field_but_the_file_s_own_name() {
        let fields = Field::all();
        let names: HashSet<_> = fields.iter().map(Field::name).collect();
        assert_eq!(names.len(), fields.len(), "no name stands twice");
        let missing: Vec<_> = VARIABLES
            .iter()
            .map(|variable| variable.name)
            .filter(|name| Field::of(name).is_none())
            .collect();
        assert_eq!(missing, ["RELAY_CONFIG"]);
        let begun = SECTIONS.iter().filter(|(_, first)| Variable::find(first).is_some()).count();
        assert_eq!(begun, SECTIONS.len(), "every section begins");
    }

    #[test]
    fn a_field_is_called_like_its_variable_without_what_its_section_says() {
        let name = |variable| Field::of(variable).map(|field| field.name()).unwrap_or_default();
        assert_eq!(name("HOST"), "listen.host");
        assert_eq!(name("RELAY_LISTEN_PORT"), "listen.port");
        assert_eq!(name("RELAY_TLS_CERT_PATH"), "tls.cert_path");
        assert_eq!(name("RELAY_TLS"), "tls.tls");
        assert_eq!(name("RELAY_LOG_LEVEL"), "log.level");
        assert_eq!(name("SERVER_URL"), "platform.server_url");
        assert_eq!(name("RELAY_MAX_FRAME_BYTES"), "limits.max_frame_bytes");
        assert_eq!(name("RELAY_DRAIN_MS"), "engine.drain_ms");
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let known = ["max_frame_bytes", "max_pending_bytes", "pairing_rate_per_minute"];
        assert_eq!(nearest("max_frames_bytes", known), Some("max_frame_bytes"));
        assert_eq!(nearest("max_pending_byte", known), Some("max_pending_bytes"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
