//! Certificates in files: can they be read, do they fit, how long are they good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::finding::{Finding, Verdict};
use super::signature::signature;
use crate::config::{ClientAuth, ClientCertificate, Tls};
use crate::tls;

/// What the relay shows its own clients, and who vouches for theirs. Nothing to say while TLS is
/// off.
pub(crate) fn own(tls: &Tls, now: Duration) -> Vec<Finding> {
    const CHECK: &str = "certificate";
    if !tls.enabled {
        return Vec::new();
    }
    let mut findings = Vec::from_iter(authorities_of_clients(tls, now));
    let chain = match chain(&tls.certificate) {
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
    findings.push(dates(CHECK, &chain, now, Verdict::Fail));
    findings.push(name(&chain, &tls.host));
    findings.push(completeness(&chain, now));
    match key(&chain, &tls.key) {
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
    match chain(&certificate.certificate) {
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
    authorities("authorities", "RELAY_SERVER_CA_CERT_PATH", path, now)
}

/// Those who vouch for the relay's clients, where somebody is asked for.
fn authorities_of_clients(tls: &Tls, now: Duration) -> Option<Finding> {
    let path = tls.client_authorities.as_deref().filter(|_| tls.client_auth != ClientAuth::None)?;
    Some(authorities("authorities of clients", "RELAY_TLS_CLIENT_CA_PATH", path, now))
}

/// Certificates of authorities, in the file that a variable names. One that has expired is no
/// hindrance here, where its name and its key are all that counts (RFC 5280 §6.1.1); other programs
/// may see it otherwise.
fn authorities(check: &'static str, variable: &str, path: &Path, now: Duration) -> Finding {
    match chain(path) {
        Ok(chain) => dates(check, &chain, now, Verdict::Warn),
        Err(error) => Finding::fail(
            check,
            format!("{variable}={}: {error}", path.display()),
            "a PEM file with the authority's certificate that this user can read",
        ),
    }
}

/// Every certificate of a file. Errors: in words, without content of the file.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
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

/// Whether each certificate is followed by its issuer's, up to an authority this machine knows.
fn completeness(chain: &[CertificateDer<'_>], now: Duration) -> Finding {
    const CHECK: &str = "certificate chain";
    let parsed: Vec<_> =
        chain.iter().filter_map(|der| X509Certificate::from_der(der).ok()).collect();
    let disorder = parsed.windows(2).any(|pair| pair[0].1.issuer() != pair[1].1.subject());
    if disorder {
        return Finding::fail(
            CHECK,
            "the certificates are out of order: one is not followed by its issuer's",
            "the server's certificate first, then each one's issuer",
        );
    }
    if is_vouched_for(chain, now) {
        let found = format!("{} in order, up to an authority this machine knows", chain.len());
        return Finding::ok(CHECK, found);
    }
    let is_own = parsed.first().is_some_and(|(_, leaf)| leaf.issuer() == leaf.subject());
    let is_whole = parsed.last().is_some_and(|(_, last)| last.issuer() == last.subject());
    match (is_own, is_whole) {
        (true, _) => Finding::warn(
            CHECK,
            "self-signed: clients refuse it unless they are told to trust it",
            "a certificate of an authority, or give this one to the clients",
        ),
        (false, true) => Finding::warn(
            CHECK,
            "ends at an authority this machine does not know",
            "nothing, if clients know your authority; it need not be in the file",
        ),
        (false, false) => Finding::warn(
            CHECK,
            "leads to no authority this machine knows: intermediates are missing, or the \
             authority is private",
            "append the intermediate certificates (the file often called fullchain.pem)",
        ),
    }
}

fn is_vouched_for(chain: &[CertificateDer<'_>], now: Duration) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let Ok(leaf) = ParsedCertificate::try_from(&chain[0]) else {
        return false;
    };
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(now);
    let rest = &chain[1..];
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, rest, now, algorithms).is_ok()
}

/// The key, if it is the certificate's.
fn key(
    chain: &[CertificateDer<'static>],
    path: &Path,
) -> Result<Arc<dyn SigningKey>, Box<Finding>> {
    let fail = |what: &str, remedy: &str| {
        let found = format!("RELAY_TLS_KEY_PATH={}: {what}", path.display());
        Box::new(Finding::fail(KEY_CHECK, found, remedy))
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
