//! Reads variables one by one and remembers what was read, from where, and what was wrong.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use relay_contract::{Routes, Secret};
use url::Url;

use super::file::{ConfigFile, Given};
use super::memory::Size;
use super::number::whole_above_zero;
use super::tenant::Redirects;
use super::variable::FLAG_WORDS;
use super::{Field, FlagValue, Kind, Place, Problem, Source, Surroundings, Variable};

/// One line of `relay config check`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Effective {
    /// The variable.
    pub name: &'static str,
    /// The value that holds; a secret shows as `[set]`.
    pub shown: String,
    /// Where it comes from.
    pub source: Source,
    /// Tells the value from others, secrets too, within one process.
    pub digest: u64,
}

/// Reads each variable at most once. A value that cannot be used is noted and reads as unset.
pub(super) struct Reader<'a> {
    flags: &'a [FlagValue],
    world: &'a dyn Surroundings,
    file: ConfigFile,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) effective: Vec<Effective>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(flags: &'a [FlagValue], world: &'a dyn Surroundings) -> Self {
        let mut reader = Self {
            flags,
            world,
            file: ConfigFile::default(),
            problems: Vec::new(),
            warnings: Vec::new(),
            effective: Vec::new(),
        };
        reader.refuse_unknown_flags();
        if let Some(path) = reader.path("RELAY_CONFIG") {
            reader.file = ConfigFile::read(&path.to_string_lossy(), world);
            reader.problems.append(&mut reader.file.problems);
            reader.warnings.append(&mut reader.file.warnings);
        }
        reader
    }

    /// What the file says of single workspaces.
    pub(super) fn routes(&mut self, redirects: &Redirects<'_>) -> Routes {
        let Self { file, problems, warnings, .. } = self;
        file.tenants.routes(redirects, problems, warnings)
    }

    /// Problems of values that stand in the file, with their places.
    pub(super) fn located(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let located =
            problems.into_iter().map(|problem| match self.given_in_file(problem.variable) {
                Some(given) if problem.place.is_none() => problem.at(given.place.clone()),
                _ => problem,
            });
        located.collect()
    }

    /// What the file says of a variable, unless flags or environment say something else.
    fn given_in_file(&self, name: &str) -> Option<&Given> {
        let alias = Variable::find(name)?.alias;
        let names = [Some(name), alias].into_iter().flatten();
        let is_overridden = names.into_iter().any(|name| {
            let file_name = format!("{name}_FILE");
            self.flags.iter().any(|given| given.name == name)
                || self.world.variable(name).is_some()
                || self.world.variable(&file_name).is_some()
        });
        let given = self.file.value(name).or_else(|| self.file.secret_file(name));
        given.filter(|_| !is_overridden)
    }

    fn refuse_unknown_flags(&mut self) {
        for given in self.flags {
            if Variable::find(&given.name).is_none() {
                self.problems.push(Problem::rule(
                    "--set",
                    format!("{:?} is not a variable of this program", given.name),
                    "--set RELAY_LISTEN_PORT=7781 (docs/config.md lists all names)",
                ));
            }
        }
    }

    /// Text without surrounding blanks; blank is unset.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let (text, source) = self.find(name)?;
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        self.note(name, text.to_owned(), source);
        Some(text.to_owned())
    }

    /// Whether the variable is given under either of its names. Reads nothing.
    pub(super) fn is_set(&self, name: &'static str) -> bool {
        let alias = Variable::named(name).alias;
        let names = [Some(name), alias].into_iter().flatten();
        names.into_iter().any(|name| {
            let by_flag = self.flags.iter().any(|given| given.name == name);
            let in_file = self.file.value(name).is_some_and(|given| !given.text.trim().is_empty());
            let is_set = |text: String| !text.trim().is_empty();
            by_flag || in_file || self.world.variable(name).is_some_and(is_set)
        })
    }

    /// A path, taken as it stands.
    pub(super) fn path(&mut self, name: &'static str) -> Option<std::path::PathBuf> {
        let (text, source) = self.find(name).filter(|(text, _)| !text.is_empty())?;
        self.note(name, text.clone(), source);
        Some(text.into())
    }

    /// Comma-separated texts, blanks trimmed, empty ones skipped.
    pub(super) fn list(&mut self, name: &'static str) -> Vec<String> {
        let entries = self.text(name).unwrap_or_default();
        entries
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// A number above zero; the table's default when there is none or it cannot be used.
    pub(super) fn count(&mut self, name: &'static str) -> u64 {
        let default = Variable::named(name).default;
        self.count_or(name, default.parse().expect("a fixed default is a whole number"))
    }

    /// A number of milliseconds above zero.
    pub(super) fn millis(&mut self, name: &'static str) -> Duration {
        Duration::from_millis(self.count(name))
    }

    /// A number above zero, or else this one.
    pub(super) fn count_or(&mut self, name: &'static str, default: u64) -> u64 {
        let Some((text, source)) = self.find(name) else {
            self.note(name, default.to_string(), Source::Default);
            return default;
        };
        if let Some(value) = whole_above_zero(&text) {
            self.note(name, value.to_string(), source);
            return value;
        }
        self.warnings.push(format!(
            "{name}: {text:?} is not a whole number above zero; the default {default} holds"
        ));
        self.note(name, default.to_string(), Source::Default);
        default
    }

    /// A number of bytes or a percentage, if one is given.
    pub(super) fn size(&mut self, name: &'static str) -> Option<Size> {
        let (text, source) = self.find(name)?;
        let size = Size::parse(&text);
        match size {
            Some(_) => self.note(name, text.trim().to_owned(), source),
            None => self.refuse(name, format!("{text:?} is no number of bytes and no percentage")),
        }
        size
    }

    /// A flag, if one is given.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let (text, source) = self.find(name)?;
        if let Some((_, value)) = FLAG_WORDS.iter().find(|(word, _)| *word == text) {
            self.note(name, u8::from(*value).to_string(), source);
            return Some(*value);
        }
        let words = FLAG_WORDS.map(|(word, _)| word).join(" ");
        self.refuse(name, format!("{text:?} is not one of {words}"));
        None
    }

    /// One of the variable's words, if one is given.
    pub(super) fn choice(&mut self, name: &'static str) -> Option<&'static str> {
        let (text, source) = self.find(name)?;
        self.choose(name, &text, source)
    }

    /// Like [`Self::choice`], in any case.
    pub(super) fn choice_any_case(&mut self, name: &'static str) -> Option<&'static str> {
        let (text, source) = self.find(name)?;
        self.choose(name, &text.to_lowercase(), source)
    }

    fn choose(&mut self, name: &'static str, text: &str, source: Source) -> Option<&'static str> {
        let Kind::Choice(words) = Variable::named(name).kind else {
            unreachable!("{name} is a choice in the table");
        };
        if let Some(word) = words.iter().find(|word| **word == text) {
            self.note(name, (*word).to_owned(), source);
            return Some(word);
        }
        self.refuse(name, format!("{text:?} is not one of {}", words.join(" ")));
        None
    }

    /// An absolute URL and the text it was given as.
    ///
    /// A URL may carry a password, so neither errors nor the listing show its user part.
    pub(super) fn url(&mut self, name: &'static str) -> Option<(Url, String)> {
        let (text, source) = self.find(name)?;
        let text = text.trim().to_owned();
        if text.is_empty() {
            return None;
        }
        let Kind::Url(schemes) = Variable::named(name).kind else {
            unreachable!("{name} is a URL in the table");
        };
        match Url::parse(&text) {
            Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => {
                self.note_hidden(name, &text, shown_url(&url, &text), source);
                Some((url, text))
            }
            _ => {
                let schemes = schemes.join("://, ");
                self.refuse(name, format!("not an absolute URL ({schemes}://)"));
                None
            }
        }
    }

    /// A secret, from the variable or from the file that `<NAME>_FILE` names; blank is unset. On
    /// the command line the variable wins, as over the rest of the environment.
    pub(super) fn secret(&mut self, name: &'static str) -> Option<Secret> {
        let file_name = format!("{name}_FILE");
        let found = self.find(name);
        let is_flag = matches!(found, Some((_, Source::Flag(_))));
        let file = self.world.variable(&file_name).filter(|p| !p.is_empty() && !is_flag);
        // A file of the environment wins over what the configuration file says.
        let found = found
            .filter(|(_, source)| file.is_none() || !matches!(source, Source::Settings { .. }));
        let configured = self.file.secret_file(name).map(|given| given.text.to_string());
        let file = file.or_else(|| configured.filter(|_| found.is_none()));
        let (text, source) = match (found, file) {
            (Some((text, source)), None) => (Secret::new(text), source),
            (None, Some(path)) => (self.secret_file(name, &file_name, &path)?, Source::File(path)),
            (Some(_), Some(_)) => {
                self.refuse(name, format!("both {name} and {file_name} are set"));
                return None;
            }
            (None, None) => return None,
        };
        let text = text.expose().trim();
        if text.is_empty() {
            return None;
        }
        if let Source::Flag(flag) = &source
            && flag.starts_with("--")
        {
            self.warnings.push(format!(
                "{name}: every user of this machine can read a command line; \
                 {file_name}=/path/of/a/file keeps the secret"
            ));
        }
        self.note_hidden(name, text, "[set]".to_owned(), source);
        Some(Secret::from(text))
    }

    /// What stands in a secret's file. An empty one is a mistake: somebody meant to have a secret.
    fn secret_file(&mut self, name: &'static str, file_name: &str, path: &str) -> Option<Secret> {
        let text = match self.world.read(path.as_ref()) {
            Ok(text) => Secret::new(text),
            Err(error) => {
                self.refuse(name, format!("{file_name}: cannot read {path}: {error}"));
                return None;
            }
        };
        if text.expose().trim().is_empty() {
            self.refuse(name, format!("{file_name}: {path} is empty"));
            return None;
        }
        if self.world.is_open_to_all(path.as_ref()) {
            self.warnings.push(format!(
                "{file_name}: every user of this machine can read {path}; chmod 600 {path}"
            ));
        }
        Some(text)
    }

    /// Records a value that was concluded or is the default; a value already noted stays.
    pub(super) fn conclude(&mut self, name: &'static str, shown: &str, source: Source) {
        if !self.effective.iter().any(|known| known.name == name) {
            self.note(name, shown.to_owned(), source);
        }
    }

    pub(super) fn refuse(&mut self, name: &'static str, what: String) {
        let problem = match self.given_in_file(name) {
            Some(given) => {
                let example = Field::of(name).map(|field| field.example()).unwrap_or_default();
                Problem::rule(name, what, &example).at(given.place.clone())
            }
            None => Problem::new(Variable::named(name), what),
        };
        self.problems.push(problem);
    }

    fn note(&mut self, name: &'static str, shown: String, source: Source) {
        let digest = digest(&shown);
        self.effective.push(Effective { name, shown, source, digest });
    }

    /// The same of a value that is not shown.
    fn note_hidden(&mut self, name: &'static str, text: &str, shown: String, source: Source) {
        self.effective.push(Effective { name, shown, source, digest: digest(text) });
    }

    /// The text of a variable in the highest layer that has it, under either of its names. A blank
    /// under one of two names says nothing.
    fn find(&mut self, name: &'static str) -> Option<(String, Source)> {
        let alias = Variable::named(name).alias;
        // The last flag wins, as on every command line.
        let flag = self
            .flags
            .iter()
            .rev()
            .find(|given| given.name == name || Some(given.name.as_str()) == alias);
        if let Some(given) = flag {
            return Some((given.value.clone(), Source::Flag(given.flag.clone())));
        }
        let by_name = self.world.variable(name);
        let by_alias = alias.and_then(|alias| Some((alias, self.world.variable(alias)?)));
        let is_blank = |text: &str| text.trim().is_empty();
        match (by_name, by_alias) {
            (Some(text), Some((alias, other))) if is_blank(&text) && !is_blank(&other) => {
                Some((other, Source::Environment(alias.to_owned())))
            }
            (Some(text), Some((_, other))) if is_blank(&other) => {
                Some((text, Source::Environment(name.to_owned())))
            }
            (Some(text), Some((alias, other))) if text.trim() != other.trim() => {
                let shown = match Variable::named(name).kind {
                    Kind::Secret | Kind::Url(_) => "different values".to_owned(),
                    _ => format!("{text:?} and {other:?}"),
                };
                self.refuse(
                    name,
                    format!("{name} and {alias} mean the same and are set to {shown}"),
                );
                None
            }
            (Some(text), _) => Some((text, Source::Environment(name.to_owned()))),
            (None, Some((alias, text))) => Some((text, Source::Environment(alias.to_owned()))),
            (None, None) => {
                let given = self.file.value(name)?;
                let Place { path, line, .. } = given.place.clone();
                Some((given.text.to_string(), Source::Settings { path, line }))
            }
        }
    }
}

/// Tells a value from others in this process. Nobody can guess a value by it: the key is random.
pub(super) fn digest(text: &str) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(text)
}

/// The text of a URL, or `[set]` when it carries a user, a password or a query.
fn shown_url(url: &Url, text: &str) -> String {
    if is_bare(url) { text.to_owned() } else { "[set]".to_owned() }
}

/// Whether a URL has no part that may be a secret.
pub(super) fn is_bare(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none() && url.query().is_none()
}
