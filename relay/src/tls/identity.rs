//! The relay's certificate chain and private key, in whatever encoding people keep them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Who the relay is.
pub(super) struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
}

/// How long before its end a certificate is warned about: automatic renewal, where there is one,
/// has failed by then.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Bytes a file with certificates or a key may have. Protects memory from a wrong path.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Identity {
    /// Reads both files, which may be the same one.
    ///
    /// Errors: as [`super::Loader::load`].
    pub(super) fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self> {
        let of_certificate = || format!("RELAY_TLS_CERT_PATH={}", certificate.display());
        let of_key = || format!("RELAY_TLS_KEY_PATH={}", key.display());
        let chain = certificates(certificate).with_context(of_certificate)?;
        let private = private_key(key).with_context(of_key)?;
        let private = provider.key_provider.load_private_key(private);
        let private = private.map_err(|_| NoKey).with_context(of_key)?;
        let certified = CertifiedKey::new(chain, private);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => bail!(
                "the key of {} is not that of the first certificate of {}",
                of_key(),
                of_certificate()
            ),
            Err(_) => bail!("{}: its first certificate cannot be read", of_certificate()),
        }
        Ok(Self { certified: Arc::new(certified) })
    }

    /// Whether the chain is out of date, or soon will be, at a moment since 1970.
    pub(super) fn warnings(&self, now: Duration) -> Vec<String> {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let (now, soon) = (seconds(now), seconds(now + WARN_BEFORE));
        let warning = |der: &CertificateDer<'_>| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            let (subject, validity) = (certificate.subject(), certificate.validity());
            let what = match (validity.not_before.timestamp(), validity.not_after.timestamp()) {
                (_, end) if end <= now => format!("expired on {}", validity.not_after),
                (start, _) if start > now => format!("is not valid before {}", validity.not_before),
                (_, end) if end <= soon => format!("expires on {}", validity.not_after),
                _ => return None,
            };
            Some(format!("RELAY_TLS_CERT_PATH: the certificate of \"{subject}\" {what}"))
        };
        self.certified.cert.iter().filter_map(warning).collect()
    }
}

/// The certificates of a file, in their order: any number in PEM, or one in DER.
///
/// Errors: the file cannot be read, or there is none in it.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let content = read(path)?;
    if is_der(&content) {
        return Ok(vec![CertificateDer::from(content)]);
    }
    let certificates = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.context("no readable certificate in the file")?;
    ensure!(!certificates.is_empty(), "no certificate in the file");
    Ok(certificates)
}

/// The first private key of a file: PKCS #8, PKCS #1 or SEC 1, in PEM or DER.
///
/// Errors: the file cannot be read, there is none in it, or it is encrypted.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let content = zeroize::Zeroizing::new(read(path)?);
    if is_der(&content) {
        let key = PrivateKeyDer::try_from(content.as_slice()).map_err(|_| NoKey)?;
        return Ok(key.clone_key());
    }
    let key = PrivateKeyDer::from_pem_slice(&content);
    if key.is_err() || is_legacy_encrypted(&content) {
        ensure!(
            !contains(&content, b"ENCRYPTED"),
            "the key is encrypted; take the passphrase off: openssl pkey -in {0} -out {0}.plain",
            path.display()
        );
    }
    Ok(key.map_err(|_| NoKey)?)
}

/// The content is none of the encodings we know. What is in it is not shown.
#[derive(Debug, thiserror::Error)]
#[error("no private key that can be used in the file (PKCS #8, PKCS #1 or SEC 1; PEM or DER)")]
struct NoKey;

fn read(path: &Path) -> Result<Vec<u8>> {
    let len = fs::metadata(path)?.len();
    ensure!(len <= FILE_BYTES_MAX, "{len} bytes are too many for this file");
    Ok(fs::read(path)?)
}

/// DER begins with a sequence, PEM with text.
fn is_der(content: &[u8]) -> bool {
    content.first() == Some(&0x30)
}

/// OpenSSL's old form keeps the label of a plain key. Source: RFC 1421 §4.6.1.1.
fn is_legacy_encrypted(content: &[u8]) -> bool {
    contains(content, b"Proc-Type: 4,ENCRYPTED")
}

fn contains(content: &[u8], text: &[u8]) -> bool {
    content.windows(text.len()).any(|window| window == text)
}
