//! Who judges tokens, with which keys, and what becomes of connections whose token is good no more.

use std::path::PathBuf;
use std::time::Duration;

use relay_controller::{Ending, IssuerSettings, KeySchedule, UnknownKeys};
use url::Url;

use super::{Reader, Source};

/// Who judges tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AdmissionMode {
    /// The platform.
    Validate,
    /// Local keys alone.
    Jwks,
    /// Local keys refuse what is proven bad; the platform judges the rest.
    Both,
}

impl AdmissionMode {
    /// The word in configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Jwks => "jwks",
            Self::Both => "both",
        }
    }
}

/// How tokens are judged.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// Who judges.
    pub mode: AdmissionMode,
    /// Whose tokens are checked here, and where their keys are; the one of `RELAY_JWKS_URL` first.
    pub issuers: Vec<IssuerSettings>,
    /// Audience a token must have; unchecked when absent.
    pub audience: Option<String>,
    /// Clock difference tolerated, in seconds.
    pub leeway_secs: u64,
    /// When key sets are fetched.
    pub schedule: KeySchedule,
    /// What becomes of tokens whose key no set has.
    pub unknown_keys: UnknownKeys,
    /// What becomes of connections whose key was withdrawn.
    pub withdrawn: Ending,
    /// What becomes of connections whose token expires.
    pub expiry: Ending,
    /// How long an acceptance of the platform is used again, if at all.
    pub decision_cache: Option<Duration>,
    /// Where revocations are kept, if anywhere.
    pub revocations_file: Option<PathBuf>,
    /// Questions to the platform at a time.
    pub validate_concurrency: u64,
    /// How long an upgrade waits for its question to be asked.
    pub wait: Duration,
    /// Undecided tokens per second that the platform is asked about in vain.
    pub undecided_per_second: u64,
}

impl Admission {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let jwks = reader.url("RELAY_JWKS_URL").map(|(url, _)| url);
        let others = read_issuers(reader);
        let has_keys = jwks.is_some() || !others.is_empty();
        let mode = match reader.choice("RELAY_ADMISSION") {
            Some("validate") => AdmissionMode::Validate,
            Some("jwks") => AdmissionMode::Jwks,
            Some(_) => AdmissionMode::Both,
            None if has_keys => AdmissionMode::Both,
            None => AdmissionMode::Validate,
        };
        let inferred = if jwks.is_some() { "RELAY_JWKS_URL" } else { "RELAY_JWT_ISSUERS" };
        reader.conclude("RELAY_ADMISSION", mode.name(), Source::Inferred(inferred));
        // Where nobody else judges a token, one made for another service must not pass.
        let strict = mode == AdmissionMode::Jwks;
        let default = (strict && jwks.is_some()).then_some("viewport-server");
        let issuer = required(reader, "RELAY_JWT_ISSUER", default);
        let first = jwks.map(|url| IssuerSettings { issuer, url });
        Self {
            mode,
            issuers: distinct(reader, first.into_iter().chain(others)),
            audience: required(reader, "RELAY_JWT_AUDIENCE", strict.then_some("viewport-relay")),
            leeway_secs: reader.count("RELAY_JWT_LEEWAY_SECS"),
            schedule: read_schedule(reader),
            unknown_keys: match reader.choice("RELAY_JWKS_UNKNOWN_KEY") {
                Some("refuse") => UnknownKeys::Refuse,
                _ => UnknownKeys::Ask,
            },
            withdrawn: ending(
                reader,
                "RELAY_JWKS_WITHDRAWN",
                "RELAY_JWKS_WITHDRAWN_GRACE_SECS",
                "grace",
            ),
            expiry: ending(reader, "RELAY_TOKEN_EXPIRY", "RELAY_TOKEN_EXPIRY_GRACE_SECS", "ignore"),
            decision_cache: reader
                .is_set("RELAY_DECISION_CACHE_MS")
                .then(|| reader.count_or("RELAY_DECISION_CACHE_MS", 0))
                .filter(|&millis| millis > 0)
                .map(Duration::from_millis),
            revocations_file: read_revocations_file(reader),
            validate_concurrency: reader.count("RELAY_VALIDATE_CONCURRENCY"),
            wait: reader.millis("RELAY_ADMISSION_WAIT_MS"),
            undecided_per_second: reader.count("RELAY_UNDECIDED_PER_SECOND"),
        }
    }

    /// Where signing keys are fetched first.
    pub(crate) fn key_urls(&self) -> impl Iterator<Item = &Url> {
        self.issuers.iter().map(|issuer| &issuer.url)
    }
}

/// A path that means the same file wherever the next life is started.
fn read_revocations_file(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let path = reader.path(REVOCATIONS)?;
    if !path.is_absolute() {
        reader.refuse(REVOCATIONS, format!("{} is not an absolute path", path.display()));
        return None;
    }
    Some(path)
}

fn read_schedule(reader: &mut Reader<'_>) -> KeySchedule {
    let mut secs = |name| Duration::from_secs(reader.count(name));
    KeySchedule {
        interval: secs("RELAY_JWKS_REFRESH_SECS"),
        interval_min: secs("RELAY_JWKS_REFRESH_MIN_SECS"),
        interval_max: secs("RELAY_JWKS_REFRESH_MAX_SECS"),
        cooldown: secs("RELAY_JWKS_COOLDOWN_SECS"),
        age_max: secs("RELAY_JWKS_MAX_AGE_SECS"),
    }
}

fn ending(
    reader: &mut Reader<'_>,
    name: &'static str,
    grace_name: &'static str,
    default: &'static str,
) -> Ending {
    let word = reader.choice(name).unwrap_or(default);
    let grace = Duration::from_secs(reader.count(grace_name));
    match word {
        "close" => Ending::Close,
        "grace" => Ending::Grace(grace),
        _ => Ending::Ignore,
    }
}

/// `issuer=URL` for each. An issuer is often a URL itself, so the first `=http` divides the two.
fn read_issuers(reader: &mut Reader<'_>) -> Vec<IssuerSettings> {
    let mut issuers = Vec::new();
    for entry in reader.list(ISSUERS) {
        let parsed = divided(&entry).and_then(|(issuer, url)| {
            let url = Url::parse(url).ok().filter(Url::has_host)?;
            Some(IssuerSettings { issuer: Some(issuer.to_owned()), url })
        });
        match parsed {
            Some(issuer) => issuers.push(issuer),
            None => reader.refuse(ISSUERS, "an entry is not ISSUER=URL of its keys".to_owned()),
        }
    }
    if issuers.len() > ISSUERS_MAX {
        reader.refuse(ISSUERS, format!("more than {ISSUERS_MAX} issuers"));
        issuers.truncate(ISSUERS_MAX);
    }
    issuers
}

fn divided(entry: &str) -> Option<(&str, &str)> {
    let at = ["=http://", "=https://"].iter().filter_map(|mark| entry.find(mark)).min()?;
    let issuer = entry[..at].trim();
    (!issuer.is_empty()).then_some((issuer, &entry[at + 1..]))
}

/// Two key sets for one issuer: which of them would check its tokens?
fn distinct(
    reader: &mut Reader<'_>,
    issuers: impl Iterator<Item = IssuerSettings>,
) -> Vec<IssuerSettings> {
    let mut distinct: Vec<IssuerSettings> = Vec::new();
    for issuer in issuers {
        if distinct.iter().any(|known| known.issuer == issuer.issuer) {
            let name = issuer.issuer.as_deref().unwrap_or_default();
            reader.refuse(ISSUERS, format!("issuer {name:?} has two key sets"));
        }
        distinct.push(issuer);
    }
    distinct
}

fn required(reader: &mut Reader<'_>, name: &'static str, default: Option<&str>) -> Option<String> {
    let given = reader.text(name);
    if let (None, Some(default)) = (&given, default) {
        reader.conclude(name, default, Source::Inferred("RELAY_ADMISSION"));
    }
    given.or_else(|| default.map(str::to_owned))
}

const ISSUERS: &str = "RELAY_JWT_ISSUERS";
const REVOCATIONS: &str = "RELAY_REVOCATIONS_FILE";

/// Issuers beside the first. Each costs a key set and a task that fetches it.
const ISSUERS_MAX: usize = 15;

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
