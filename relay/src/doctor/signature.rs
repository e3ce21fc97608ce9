//! What a new TLS session costs a shard: the signature with the certificate's key.
//!
//! A shard serves nobody else meanwhile. It answers one hello a turn while quiet connections talk,
//! so this is how long a message of theirs may have to wait for a stranger's handshake.

use std::time::{Duration, Instant};

use rustls::sign::SigningKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::finding::Finding;

/// Signs a few times and says how long that takes. Nothing to say of a key that cannot sign: that
/// it does not fit is another check's.
pub(super) fn signature(certificate: &CertificateDer<'_>, key: &dyn SigningKey) -> Option<Finding> {
    const CHECK: &str = "certificate signature";
    let took_us = shortest(key)?.as_micros();
    if key.algorithm() != SignatureAlgorithm::RSA {
        return Some(Finding::ok(CHECK, format!("{took_us} µs of a shard per handshake")));
    }
    let bits = rsa_bits(certificate)?;
    let found = format!("RSA of {bits} bits: {took_us} µs of a shard per handshake");
    Some(match bits {
        ..=RSA_BITS_MAX => Finding::ok(CHECK, found),
        _ => Finding::warn(
            CHECK,
            format!("{found}, in which it serves nobody else"),
            "an ECDSA key (P-256), by which a signature takes some 10 µs; or RSA of 2048 bits",
        ),
    })
}

/// How long a signature takes at best: whatever else the machine does makes it longer.
fn shortest(key: &dyn SigningKey) -> Option<Duration> {
    let signer = key.choose_scheme(&SCHEMES)?;
    let sign = |_| {
        let began = Instant::now();
        signer.sign(b"a handshake's transcript").ok()?;
        Some(began.elapsed())
    };
    (0..SIGNATURES).map(sign).collect::<Option<Vec<_>>>()?.into_iter().min()
}

fn rsa_bits(der: &CertificateDer<'_>) -> Option<usize> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    match certificate.public_key().parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()),
        _ => None,
    }
}

/// What clients offer, and servers sign by.
const SCHEMES: [SignatureScheme; 5] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

const SIGNATURES: usize = 10;

/// The largest RSA key that is nothing to look at. Source: BENCHMARKS.md, "What does a handshake's
/// signature take?"
const RSA_BITS_MAX: usize = 2048;
