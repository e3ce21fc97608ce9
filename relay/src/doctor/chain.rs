//! Whether a certificate leads to an authority that its readers know.

use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::finding::Finding;

/// The authorities that this machine knows.
pub(super) fn known() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Whether each certificate is followed by its issuer's, up to one of the authorities. None of it
/// keeps the relay from starting.
pub(super) fn completeness(
    chain: &[CertificateDer<'_>],
    now: Duration,
    roots: &RootCertStore,
) -> Finding {
    const CHECK: &str = "certificate chain";
    let parsed: Vec<_> =
        chain.iter().filter_map(|der| X509Certificate::from_der(der).ok()).collect();
    let disorder = parsed.windows(2).any(|pair| pair[0].1.issuer() != pair[1].1.subject());
    if disorder {
        return Finding::warn(
            CHECK,
            "the certificates are out of order: one is not followed by its issuer's, which some \
             clients refuse",
            "the server's certificate first, then each one's issuer",
        );
    }
    if is_vouched_for(chain, now, roots) {
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
        (false, _) if roots.is_empty() => Finding::warn(
            CHECK,
            "this machine knows no authorities: the chain cannot be judged",
            "the package ca-certificates, or SSL_CERT_FILE with the authorities",
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

fn is_vouched_for(chain: &[CertificateDer<'_>], now: Duration, roots: &RootCertStore) -> bool {
    let Ok(leaf) = ParsedCertificate::try_from(&chain[0]) else {
        return false;
    };
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(now);
    let rest = &chain[1..];
    verify_server_cert_signed_by_trust_anchor(&leaf, roots, rest, now, algorithms).is_ok()
}
