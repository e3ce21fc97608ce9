//! Certificates in files: can they be read, do they fit, how long are they good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::chain;
use super::finding::{Finding, Verdict};
use super::signature::signature;
use crate::config::{AdminListen, ClientAuth, ClientCertificate, ControlApi, ControlTls, Tls};
use crate::control_api::API;
use crate::door_certificates::{DoorCertificates, Names};
use crate::tls;

/// What the relay shows its own clients, and who vouches for theirs. Nothing to say while TLS is
/// off.
pub(crate) fn own(tls: &Tls, now: Duration) -> Vec<Finding> {
    const CHECK: &str = "certificate";
    if !tls.enabled {
        return Vec::new();
    }
    let mut findings = Vec::from_iter(authorities_of_clients(tls, now));
    let chain = match certificates(&tls.certificate) {
        Ok(chain) => chain,
        Err(error) => {
            let path = tls.certificate.display();
            findings.push(Finding::fail(
                CHECK,
                format!("RELAY_TLS_CERT_PATH={path}: {error}"),
                "a file that this user can read: the certificate, then its intermediates",
            ));
            return findings;
        }
    };
    let dates = dates(CHECK, &chain, now, Verdict::Fail);
    // Nobody vouches for a certificate out of its time, however complete its chain is.
    let is_in_time = dates.verdict != Verdict::Fail;
    findings.push(dates);
    findings.push(name(&chain, &tls.host));
    findings.extend(is_in_time.then(|| chain::completeness(&chain, now, &chain::known())));
    match key(KEY_CHECK, "RELAY_TLS_KEY_PATH", &chain, &tls.key) {
        Ok(key) => {
            findings.push(permissions(KEY_CHECK, &tls.key));
            findings.extend(signature(&chain[0], key.as_ref()));
        }
        Err(finding) => findings.push(*finding),
    }
    findings
}

/// What the relay shows the platform. A key under a passphrase is tried by the platform's check.
pub(crate) fn client(certificate: &ClientCertificate, now: Duration) -> Vec<Finding> {
    const CHECK: &str = "client certificate";
    match certificates(&certificate.certificate) {
        Ok(chain) => {
            let dates = dates(CHECK, &chain, now, Verdict::Fail);
            vec![dates, permissions(CHECK, &certificate.key)]
        }
        Err(error) => vec![Finding::fail(
            CHECK,
            format!("RELAY_SERVER_CLIENT_CERT_PATH={}: {error}", certificate.certificate.display()),
            "a PEM file that this user can read",
        )],
    }
}

/// Authorities that the relay trusts with the platform in place of the system's.
pub(crate) fn platform_authorities(path: &Path, now: Duration) -> Finding {
    trusted("authorities", "RELAY_SERVER_CA_CERT_PATH", path, now)
}

/// Those who vouch for the relay's clients, where somebody is asked for.
fn authorities_of_clients(tls: &Tls, now: Duration) -> Option<Finding> {
    let path = tls.client_authorities.as_deref().filter(|_| tls.client_auth != ClientAuth::None)?;
    Some(trusted("authorities of clients", "RELAY_TLS_CLIENT_CA_PATH", path, now))
}

/// What the control API shows its callers, where it speaks TLS. Whoever else the relay serves is
/// served without them.
pub(crate) fn control_api(api: &ControlApi, now: Duration) -> Vec<Finding> {
    match (&api.listen, &api.tls) {
        (Some(AdminListen::Tcp(_)), Some(files)) => {
            door("control API certificate", files, &API, now, Verdict::Warn)
        }
        _ => Vec::new(),
    }
}

/// What a port for gRPC shows and whom it asks for, read as the relay reads it. `outside` is how
/// bad a certificate is that is not good now.
pub(crate) fn door(
    check: &'static str,
    files: &ControlTls,
    names: &'static Names,
    now: Duration,
    outside: Verdict,
) -> Vec<Finding> {
    if let Err(error) = DoorCertificates::load(files.clone(), names) {
        return vec![Finding::fail(
            check,
            format!("{error:#}"),
            "PEM files that this user can read: a certificate, its own unencrypted key, and the \
             authorities of those who may come",
        )];
    }
    // It has just been read.
    let chain = certificates(&files.certificate).unwrap_or_default();
    let mut findings = vec![dates(check, &chain, now, outside), permissions(check, &files.key)];
    let authorities = files.client_authorities.as_deref();
    findings.extend(authorities.map(|path| trusted(check, names.authorities, path, now)));
    findings
}

/// What a process shows somebody it calls: a certificate and its key, in the files that variables
/// name.
pub(crate) fn caller(
    check: &'static str,
    names: &Names,
    certificate: &Path,
    key_path: &Path,
    now: Duration,
) -> Vec<Finding> {
    let chain = match certificates(certificate) {
        Ok(chain) => chain,
        Err(error) => {
            let found = format!("{}={}: {error}", names.certificate, certificate.display());
            return vec![Finding::fail(check, found, "a PEM file that this user can read")];
        }
    };
    let key = match key(check, names.key, &chain, key_path) {
        Ok(_key) => permissions(check, key_path),
        Err(finding) => *finding,
    };
    vec![dates(check, &chain, now, Verdict::Fail), key]
}

/// Certificates of authorities, in the file that a variable names. One that has expired is no
/// hindrance here, where its name and its key are all that counts (RFC 5280 §6.1.1); other programs
/// may see it otherwise.
pub(crate) fn trusted(check: &'static str, variable: &str, path: &Path, now: Duration) -> Finding {
    match certificates(path) {
        Ok(chain) => dates(check, &chain, now, Verdict::Warn),
        Err(error) => Finding::fail(
            check,
            format!("{variable}={}: {error}", path.display()),
            "a PEM file with the authority's certificate that this user can read",
        ),
    }
}

/// Every certificate of a file. Errors: in words, without content of the file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    tls::certificates(path).map_err(|error| format!("{error:#}"))
}

/// When the first of the certificates stops being good; `outside` is how bad it is when one is not
/// good now.
fn dates(
    check: &'static str,
    chain: &[CertificateDer<'_>],
    now: Duration,
    outside: Verdict,
) -> Finding {
    let not_now = |found: String, remedy: &str| Finding {
        verdict: outside,
        ..Finding::fail(check, found, remedy)
    };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut ends = i64::MAX;
    for der in chain {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Finding::fail(check, "holds what is no X.509 certificate", "export it anew");
        };
        let validity = certificate.validity();
        let subject = certificate.subject().to_string();
        if validity.not_before.timestamp() > now {
            return not_now(
                format!("{subject}: not valid before {}", validity.not_before),
                "wait, take the certificate before it, or set this machine's clock",
            );
        }
        if validity.not_after.timestamp() <= now {
            return not_now(
                format!("{subject}: expired on {}", validity.not_after),
                "renew it; see when it is renewed by itself",
            );
        }
        ends = ends.min(validity.not_after.timestamp());
    }
    let days = (ends - now) / SECS_PER_DAY;
    match days {
        ..EXPIRY_DAYS_MIN => Finding::warn(
            check,
            format!("expires in {days} days"),
            "renew it; if it is renewed by itself, see why it was not",
        ),
        _ => Finding::ok(check, format!("good for {days} days")),
    }
}

/// Whether clients that ask for the configured name accept the certificate.
fn name(chain: &[CertificateDer<'_>], host: &str) -> Finding {
    const CHECK: &str = "certificate name";
    let parsed = ParsedCertificate::try_from(&chain[0]);
    let wanted = ServerName::try_from(host);
    let fits = match (&parsed, &wanted) {
        (Ok(parsed), Ok(wanted)) => verify_server_name(parsed, wanted).is_ok(),
        _ => false,
    };
    match fits {
        true => Finding::ok(CHECK, format!("is for RELAY_TLS_HOST={host}")),
        false => Finding::warn(
            CHECK,
            format!("is not for RELAY_TLS_HOST={host}, but for {}", names(&chain[0])),
            "RELAY_TLS_HOST as clients call this relay, and a certificate with that name",
        ),
    }
}

/// The names in a certificate.
fn names(der: &CertificateDer<'_>) -> String {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return "nobody".to_owned();
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter().map(ToString::to_string));
    let names: Vec<_> = names.into_iter().flatten().take(NAMES_SHOWN_MAX).collect();
    match names.is_empty() {
        true => "nobody".to_owned(),
        false => names.join(", "),
    }
}

/// The key in the file that a variable names, if it is the certificate's.
fn key(
    check: &'static str,
    variable: &str,
    chain: &[CertificateDer<'static>],
    path: &Path,
) -> Result<Arc<dyn SigningKey>, Box<Finding>> {
    let fail = |what: &str, remedy: &str| {
        let found = format!("{variable}={}: {what}", path.display());
        Box::new(Finding::fail(check, found, remedy))
    };
    let key = tls::private_key(path).map_err(|error| {
        let remedy = "a file with an unencrypted private key that this user can read";
        fail(&format!("{error:#}"), remedy)
    })?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|_| {
        let remedy = "an RSA, P-256, P-384 or Ed25519 key";
        fail("a kind of key that TLS does not take", remedy)
    })?;
    match CertifiedKey::new(chain.to_vec(), Arc::clone(&key)).keys_match() {
        Ok(()) => Ok(key),
        Err(_) => {
            Err(fail("is not the key of the certificate", "certificate and key of one issuance"))
        }
    }
}

/// Who may read a key.
fn permissions(check: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(facts) if facts.permissions().mode() & OTHERS == 0 => {
            Finding::ok(check, format!("{shown}: there, and not everybody's"))
        }
        Ok(_) => Finding::warn(
            check,
            format!("{shown}: every user of this machine can use it"),
            format!("chmod o= {shown}"),
        ),
        Err(error) => Finding::fail(check, format!("{shown}: {error}"), "the right path"),
    }
}

const KEY_CHECK: &str = "certificate key";

/// What everybody else may do.
const OTHERS: u32 = 0o007;

const SECS_PER_DAY: i64 = 86_400;

/// Services that renew by themselves do it thirty days before the end.
const EXPIRY_DAYS_MIN: i64 = 14;

const NAMES_SHOWN_MAX: usize = 4;

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
