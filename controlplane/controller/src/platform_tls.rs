//! TLS towards the platform: whom we believe, and what we show.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use pkcs8::der::SecretDocument;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use zeroize::Zeroizing;

use crate::settings::{ClientCertificate, PlatformTls, Verify};

/// Why TLS towards the platform cannot be set up. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum PlatformTlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file holds no certificate.
    #[error("{}: no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// A file holds no private key we can read.
    #[error("{}: no private key in PEM form", .0.display())]
    NoKey(PathBuf),
    /// The key is encrypted, and the passphrase is missing or wrong, or the encryption unknown.
    #[error("{}: the private key cannot be decrypted", .0.display())]
    Locked(PathBuf),
    /// Certificate and key do not fit, or the roots cannot be used.
    #[error("TLS towards the platform: {0}")]
    Unusable(#[from] rustls::Error),
}

/// When the files of a client certificate changed last. Another stamp means: read them again.
pub(crate) type Stamp = [Option<SystemTime>; 2];

/// The stamp of what is on disk now. Cost: two system calls, none without a client certificate.
pub(crate) fn stamp(tls: &PlatformTls) -> Stamp {
    let changed = |path: &Path| fs::metadata(path).and_then(|facts| facts.modified()).ok();
    match &tls.client {
        Some(client) => [changed(&client.cert_path), changed(&client.key_path)],
        None => [None, None],
    }
}

/// Who vouches for the other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Roots {
    /// The authorities that are named; the system's, if none are.
    NamedOrSystem,
    /// The system's, and those that are named.
    NamedAndSystem,
}

/// Reads every file and builds the configuration.
///
/// # Errors
/// [`PlatformTlsError`]; nothing is kept.
pub(crate) fn config(tls: &PlatformTls, roots: Roots) -> Result<ClientConfig, PlatformTlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = HostAware {
        verify: tls.verify,
        inner: chain_verifier(tls, roots, Arc::clone(&provider))?,
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match &tls.client {
        Some(client) => {
            let chain = certificates(&client.cert_path)?;
            Ok(builder.with_client_auth_cert(chain, private_key(client)?)?)
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The verifier for hosts whose certificate counts; none when nobody vouches for anybody, as in a
/// container without root certificates. Such a relay starts, and trusts no platform.
fn chain_verifier(
    tls: &PlatformTls,
    wanted: Roots,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>, PlatformTlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &tls.ca_path {
        for certificate in certificates(path)? {
            roots.add(certificate)?;
        }
    }
    if roots.is_empty() || wanted == Roots::NamedAndSystem {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Some(verifier))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PlatformTlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(PlatformTlsError::NoCertificate(path.to_owned())),
    }
}

fn private_key(client: &ClientCertificate) -> Result<PrivateKeyDer<'static>, PlatformTlsError> {
    let path = &client.key_path;
    let pem = read(path)?;
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) {
        return Ok(key);
    }
    let locked = || PlatformTlsError::Locked(path.clone());
    let text = std::str::from_utf8(&pem).unwrap_or_default();
    let (label, document) =
        SecretDocument::from_pem(text.trim()).map_err(|_| PlatformTlsError::NoKey(path.clone()))?;
    if label != "ENCRYPTED PRIVATE KEY" {
        return Err(PlatformTlsError::NoKey(path.clone()));
    }
    let passphrase = client.passphrase.as_ref().ok_or_else(locked)?;
    let opened = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
        .and_then(|key| key.decrypt(passphrase.expose()))
        .map_err(|_| locked())?;
    PrivateKeyInfoRef::try_from(opened.as_bytes()).map_err(|_| locked())?;
    Ok(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into())
}

/// A file's bytes, wiped when they have been parsed: they may be a private key.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PlatformTlsError> {
    let bytes = fs::read(path);
    bytes
        .map(Zeroizing::new)
        .map_err(|error| PlatformTlsError::Unreadable { path: path.to_owned(), error })
}

/// Checks certificates where they count for this host, and always that the platform has the key of
/// the certificate it shows.
#[derive(Debug)]
struct HostAware {
    verify: Verify,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl HostAware {
    fn counts_for(&self, host: &ServerName<'_>) -> bool {
        match self.verify {
            Verify::Always => true,
            Verify::Never => false,
            Verify::Auto => match host {
                ServerName::DnsName(name) => {
                    let name = name.as_ref().to_ascii_lowercase();
                    !(name == "localhost" || name.ends_with(".test"))
                }
                _ => true,
            },
        }
    }
}

impl ServerCertVerifier for HostAware {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.counts_for(server_name) {
            return Ok(ServerCertVerified::assertion());
        }
        let inner = self.inner.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(verify: Verify, host: &str) -> bool {
        let verifier =
            HostAware { verify, inner: None, provider: Arc::new(aws_lc_rs::default_provider()) };
        verifier.counts_for(&ServerName::try_from(host).unwrap())
    }

    #[test]
    fn auto_trusts_local_names_and_no_addresses() {
        for host in ["localhost", "api.test", "API.TEST"] {
            assert!(!counts(Verify::Auto, host), "{host}");
            assert!(counts(Verify::Always, host), "{host}");
        }
        for host in ["127.0.0.1", "::1", "example.org", "localhost.example.org", "test"] {
            assert!(counts(Verify::Auto, host), "{host}");
            assert!(!counts(Verify::Never, host), "{host}");
        }
    }

    fn client(dir: &Path, key_pem: &str, passphrase: Option<&str>) -> ClientCertificate {
        let key_path = dir.join("key.pem");
        fs::write(&key_path, key_pem).unwrap();
        ClientCertificate {
            cert_path: dir.join("cert.pem"),
            key_path,
            passphrase: passphrase.map(Into::into),
        }
    }

    /// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, then
    /// `openssl pkcs8 -topk8 -v2 aes-256-cbc -passout 'pass:open sesame'`. Used nowhere else.
    const ENCRYPTED_KEY: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAh+UBf56+DMsgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEENkMk8go97NBgpDzvte9xaEEgZBV
QxIFyhV9RoiyzSbuuRSH5Fek7IoHtOdfmRM9LVmh5EF+LMMBNeEmheFb221sTPB+
bSwDd+fdAhqKN7Z3bzZf0A64wcWlMBEdMJfsbxNVd+k0cnzrpgBCRQk6MUyrU8qB
sDqitmqoFNuL9Gs09zAyOnEtgDAgedxlpzAnOAWddmr++hijtLDJ9Iepz/2Dvfo=
-----END ENCRYPTED PRIVATE KEY-----
";

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_only() {
        let dir = tempfile::tempdir().unwrap();
        let opened = client(dir.path(), ENCRYPTED_KEY, Some("open sesame"));
        let key = private_key(&opened).unwrap();
        assert!(aws_lc_rs::sign::any_supported_type(&key).is_ok());
        for passphrase in [None, Some("wrong")] {
            let error = private_key(&client(dir.path(), ENCRYPTED_KEY, passphrase)).unwrap_err();
            assert!(matches!(error, PlatformTlsError::Locked(_)));
            assert!(!error.to_string().contains("wrong"));
        }
    }

    #[test]
    fn a_file_without_key_or_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let client = client(dir.path(), "nonsense", None);
        let error = private_key(&client).unwrap_err();
        assert!(error.to_string().contains("key.pem"), "{error}");
        let missing = certificates(&client.cert_path).unwrap_err();
        assert!(matches!(missing, PlatformTlsError::Unreadable { .. }));
        let empty = certificates(&client.key_path).unwrap_err();
        assert!(matches!(empty, PlatformTlsError::NoCertificate(_)));
    }
}
