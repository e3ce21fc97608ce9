//! The platform: is it there, does it judge tokens, does it know our key, is its clock ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_admission::{KeySet, judge_answer};
use relay_contract::Secret;
use relay_controller::{Probe, ProbeAnswer, ProbeError};
use tokio::time::Instant;
use url::Url;

use super::finding::Finding;
use super::names;
use crate::config::{AdmissionMode, Config};
use crate::settings;

/// Everything about the platform and the key sets. Takes as long as the platform may, or all key
/// servers one after the other.
pub(crate) async fn check(config: &Config) -> Vec<Finding> {
    let probe = match Probe::new(&settings::platform_tls(config), &config.platform.server) {
        Ok(probe) => probe,
        Err(error) => {
            let what = format!("TLS towards the platform: {error}");
            let remedy = "mend the file that is named; a key under a passphrase needs \
                          RELAY_SERVER_CLIENT_KEY_PASSPHRASE";
            return vec![Finding::fail("platform", what, remedy)];
        }
    };
    let asks_platform = config.admission.mode != AdmissionMode::Jwks;
    let judged = async {
        match asks_platform {
            true => validation(config, &probe).await,
            false => Vec::new(),
        }
    };
    let published = async {
        let mut findings = Vec::new();
        for url in config.admission.key_urls() {
            findings.extend(key_set(config, &probe, url).await);
        }
        findings
    };
    let (mut findings, keys) = tokio::join!(judged, published);
    findings.extend(keys);
    findings
}

/// The validate call with a token nobody issued: refused is right.
async fn validation(config: &Config, probe: &Probe) -> Vec<Finding> {
    const CHECK: &str = "platform";
    let platform = &config.platform;
    let url = &platform.validate;
    let timeout = platform.admission_timeout;
    if let Err(finding) = names::reach(CHECK, "RELAY_VALIDATE_URL", url, timeout).await {
        return vec![finding];
    }
    let began = Instant::now();
    let answer = match probe.validate(url, platform.key.as_ref(), timeout).await {
        Ok(answer) => answer,
        Err(error) => return vec![unanswered(CHECK, url, &error, Server::Platform)],
    };
    let took = began.elapsed();
    let mut findings = vec![judge_status(config, &answer, took)];
    findings.extend(known(config, probe, &answer).await);
    findings.push(clock(config, "the platform's", &answer, SystemTime::now()));
    findings
}

/// What the status of the answer to a bad token means.
fn judge_status(config: &Config, answer: &ProbeAnswer, took: Duration) -> Finding {
    const CHECK: &str = "platform";
    let url = shown(&config.platform.validate);
    let status = answer.status;
    let fail = |what: &str, remedy: &str| {
        Finding::fail(CHECK, format!("{url} answers {status}: {what}"), remedy)
    };
    match (status, judge_answer(status, &answer.body)) {
        (_, Ok(_)) => fail(
            "it admits a token that nobody issued, so everybody",
            "mend the platform: a token must be verified",
        ),
        (200..300 | 400 | 401 | 403 | 422, Err(_)) => {
            let timeout = config.platform.admission_timeout;
            let millis = took.as_millis();
            if took > timeout / 2 {
                return Finding::warn(
                    CHECK,
                    format!(
                        "{url} answers after {millis} ms of {} ms allowed",
                        timeout.as_millis()
                    ),
                    "a platform nearby, or a larger RELAY_ADMISSION_TIMEOUT_MS",
                );
            }
            Finding::ok(CHECK, format!("{url} refuses a bad token ({status}) in {millis} ms"))
        }
        (300..400, Err(_)) => fail(
            "it redirects, which the relay does not follow",
            "RELAY_VALIDATE_URL as the final address",
        ),
        (404, Err(_)) => fail(
            "there is nothing at this path",
            "RELAY_VALIDATE_URL with the path of the validate endpoint, for example \
             https://api.corp/api/runtime/internal/relay/validate",
        ),
        (405, Err(_)) => fail(
            "it takes no POST",
            "RELAY_VALIDATE_URL with the path of the validate endpoint, and every proxy on the \
             way letting POST pass",
        ),
        (429, Err(_)) => Finding::warn(
            CHECK,
            format!("{url} answers 429: it limits how often this relay may ask"),
            "lift the platform's limit for this relay: each upgrade asks once",
        ),
        (502..=504, Err(_)) => fail(
            "a gateway in front of the platform does not reach it",
            "start the platform, or mend the gateway",
        ),
        (500.., Err(_)) => fail("the platform fails", "see the platform's log"),
        (_, Err(_)) => Finding::warn(
            CHECK,
            format!("{url} answers {status} to a bad token, where 401 is usual"),
            "see that RELAY_VALIDATE_URL is the validate endpoint",
        ),
    }
}

/// Whether the platform knows our key: its answer with the key differs from the one without.
async fn known(config: &Config, probe: &Probe, with_key: &ProbeAnswer) -> Option<Finding> {
    const CHECK: &str = "internal key known";
    let platform = &config.platform;
    let with_key = words(with_key);
    let Some(_key) = &platform.key else {
        return is_about_key(&with_key).then(|| {
            Finding::fail(
                CHECK,
                "the platform asks for an internal key",
                "RELAY_INTERNAL_KEY with the secret the platform has",
            )
        });
    };
    let refused = is_about_key(&with_key);
    if refused && is_known(platform.previous_key.as_ref(), config, probe, &with_key).await {
        return Some(Finding::warn(
            CHECK,
            "the platform knows RELAY_INTERNAL_KEY_PREVIOUS alone, not yet RELAY_INTERNAL_KEY",
            "give the platform the new key to finish the rotation",
        ));
    }
    if refused {
        return Some(Finding::fail(
            CHECK,
            format!("the platform refuses RELAY_INTERNAL_KEY ({})", with_key.1),
            "RELAY_INTERNAL_KEY with the secret the platform has",
        ));
    }
    let url = &platform.validate;
    let without = probe.validate(url, None, platform.admission_timeout).await;
    Some(match without.map(|answer| words(&answer)) {
        Ok(without) if without != with_key => Finding::ok(CHECK, "the platform takes it"),
        Ok(_) => Finding::warn(
            CHECK,
            format!("cannot be told: the platform answers {} with and without the key", with_key.0),
            "see that the platform asks for it: without, anybody may have tokens judged",
        ),
        Err(error) => Finding::warn(
            CHECK,
            format!("cannot be told: without it there is no answer ({error})"),
            "run this again",
        ),
    })
}

async fn is_known(
    key: Option<&Secret>,
    config: &Config,
    probe: &Probe,
    refusal: &(u16, String),
) -> bool {
    let Some(key) = key else {
        return false;
    };
    let platform = &config.platform;
    let answer = probe.validate(&platform.validate, Some(key), platform.admission_timeout).await;
    answer.is_ok_and(|answer| words(&answer) != *refusal)
}

/// Status and reason of a refusal.
fn words(answer: &ProbeAnswer) -> (u16, String) {
    let refusal = judge_answer(answer.status, &answer.body).err();
    (answer.status, refusal.map(|denial| denial.reason).unwrap_or_default())
}

/// Whether a refusal is about the relay's key, not about the token.
fn is_about_key((status, reason): &(u16, String)) -> bool {
    let reason = reason.to_ascii_lowercase();
    matches!(status, 401 | 403) && reason.contains("internal") && !reason.contains("server")
}

/// Whether this machine's clock is that of whoever answered: tokens carry the times of those who
/// issue them.
fn clock(config: &Config, whose: &str, answer: &ProbeAnswer, now: SystemTime) -> Finding {
    const CHECK: &str = "clock";
    let date = answer.date.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
    let Some(date) = date else {
        return Finding::ok(
            CHECK,
            format!("not compared with {whose}: no date came with an answer"),
        );
    };
    let secs = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    // A cache keeps the date of what it keeps, and says for how long it has had it.
    let theirs_secs = secs(date).saturating_add(answer.age_secs.unwrap_or(0));
    let skew_secs = secs(now).abs_diff(theirs_secs);
    let leeway_secs = config.admission.leeway_secs;
    let remedy =
        "set the clock: systemctl enable --now systemd-timesyncd or chrony, here and there";
    match skew_secs {
        // The header has whole seconds, and took a moment to arrive.
        0..=2 => Finding::ok(CHECK, format!("agrees with {whose}")),
        skew if skew <= leeway_secs => Finding::warn(
            CHECK,
            format!("{skew} s from {whose}; RELAY_JWT_LEEWAY_SECS={leeway_secs}"),
            remedy,
        ),
        skew => Finding::fail(
            CHECK,
            format!(
                "{skew} s from {whose}, beyond RELAY_JWT_LEEWAY_SECS={leeway_secs}: good tokens \
                 are refused, or expired ones taken"
            ),
            remedy,
        ),
    }
}

/// Whether signing keys can be fetched, and how many of them can be used. Where they alone decide,
/// also whether this machine's clock is that of whoever publishes them.
async fn key_set(config: &Config, probe: &Probe, url: &Url) -> Vec<Finding> {
    const CHECK: &str = "key set";
    let timeout = config.platform.api_timeout;
    if let Err(finding) = names::reach(CHECK, KEY_URLS, url, timeout).await {
        return vec![finding];
    }
    let server = match url.origin() == config.platform.server.origin() {
        true => Server::Platform,
        false => Server::Other,
    };
    let answer = match probe.fetch(url, timeout).await {
        Ok(answer) => answer,
        Err(error) => return vec![unanswered(CHECK, url, &error, server)],
    };
    let mut findings = vec![judge_keys(url, &answer)];
    if config.admission.mode == AdmissionMode::Jwks {
        let whose = format!("that of {}", url.origin().ascii_serialization());
        findings.push(clock(config, &whose, &answer, SystemTime::now()));
    }
    findings
}

fn judge_keys(url: &Url, answer: &ProbeAnswer) -> Finding {
    const CHECK: &str = "key set";
    let shown = shown(url);
    if answer.status != 200 {
        return Finding::fail(
            CHECK,
            format!("{shown} answers {}", answer.status),
            format!("{KEY_URLS} with the address of the published keys, often {WELL_KNOWN}"),
        );
    }
    match KeySet::parse(&answer.body) {
        Ok((keys, skipped)) if skipped.is_empty() => {
            Finding::ok(CHECK, format!("{shown}: {} can be used", keys.len()))
        }
        Ok((keys, skipped)) => Finding::warn(
            CHECK,
            format!(
                "{shown}: {} can be used, {} not: {}",
                keys.len(),
                skipped.len(),
                skipped[0].reason
            ),
            "nothing, if no token is signed with the others; publish RSA, P-256 or Ed25519 keys",
        ),
        Err(error) => Finding::fail(
            CHECK,
            format!("{shown}: {error}"),
            "publish RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA) public keys",
        ),
    }
}

/// Whose answer did not come: the platform's settings hold for the platform alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Server {
    Platform,
    Other,
}

/// What a call without an answer means. The name was resolved and the port took a connection.
fn unanswered(check: &'static str, url: &Url, error: &ProbeError, server: Server) -> Finding {
    let shown = shown(url);
    let text = error.to_string();
    let has = |part: &str| text.contains(part);
    let remedy = match error {
        ProbeError::InternalKey => "RELAY_INTERNAL_KEY in printable ASCII",
        ProbeError::Url => "an http or https URL with a host",
        ProbeError::Failed(_) if has("UnknownIssuer") && server == Server::Other => {
            "the authority of that certificate in RELAY_SERVER_CA_CERT_PATH or among the system's \
             (package ca-certificates); RELAY_SERVER_TLS_VERIFY holds for the platform alone"
        }
        ProbeError::Failed(_) if has("UnknownIssuer") => {
            "RELAY_SERVER_CA_CERT_PATH with the authority of the platform's certificate; the \
             system's authorities come with the package ca-certificates"
        }
        ProbeError::Failed(_) if has("NotValidForName") || has("not valid for name") => {
            "the host name as the certificate there has it"
        }
        ProbeError::Failed(_) if has("certificate") && (has("Expired") || has("expired")) => {
            "renew the certificate there, or set this machine's clock"
        }
        ProbeError::Failed(_)
            if (has("CertificateRequired") || has("HandshakeFailure"))
                && server == Server::Other =>
        {
            "a server of keys that asks for no certificate: the relay shows its own to the \
             platform alone"
        }
        ProbeError::Failed(_) if has("CertificateRequired") || has("HandshakeFailure") => {
            "the client certificate the platform asks for: RELAY_SERVER_CLIENT_CERT_PATH and \
             RELAY_SERVER_CLIENT_KEY_PATH"
        }
        ProbeError::Failed(_) if has("InvalidContentType") || has("corrupt message") => {
            "http:// instead of https://: what answers there speaks no TLS"
        }
        ProbeError::Failed(_) if has("no whole answer") => {
            "a server that answers in time, or a larger RELAY_ADMISSION_TIMEOUT_MS and \
             RELAY_INTERNAL_API_TIMEOUT_MS"
        }
        ProbeError::Failed(_) => "see that HTTP is served there, and what is in between",
    };
    Finding::fail(check, format!("{shown}: {text}"), remedy)
}

/// A URL without user, password and query: these may be secrets.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// What names the address of a key set.
const KEY_URLS: &str = "RELAY_JWKS_URL or RELAY_JWT_ISSUERS";

/// Where it often is.
const WELL_KNOWN: &str = "/.well-known/jwks.json";

#[cfg(test)]
#[path = "platform_tests.rs"]
mod tests;
