//! A certificate authority, one certificate issued by it, and the TLS settings that use them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// The files of `{{tls.ca}}`, `{{tls.cert}}` and `{{tls.key}}`. They go with the value.
pub(crate) struct Certificates {
    dir: TempDir,
    ca: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Certificates {
    /// Makes new keys and writes the files.
    pub(crate) fn make() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("relay-certificates-").tempdir()?;
        let ca_key = KeyPair::generate()?;
        let ca_params = authority_params()?;
        let ca = ca_params.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca_params, ca_key);
        let key = KeyPair::generate()?;
        let certificate = leaf_params()?.signed_by(&key, &issuer)?;
        fs::write(dir.path().join(CA_FILE), ca.pem())?;
        fs::write(dir.path().join(CERTIFICATE_FILE), certificate.pem())?;
        fs::write(dir.path().join(KEY_FILE), key.serialize_pem())?;
        Ok(Self {
            dir,
            ca: ca.der().clone(),
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join(CA_FILE)
    }

    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.dir.path().join(CERTIFICATE_FILE)
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir.path().join(KEY_FILE)
    }

    /// A client that trusts the authority.
    pub(crate) fn client_config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    /// A server with the certificate; `client_certificate`: it demands one of the authority too.
    pub(crate) fn server_config(
        &self,
        client_certificate: bool,
    ) -> anyhow::Result<Arc<ServerConfig>> {
        let provider = Arc::clone(&self.provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if client_certificate {
            let roots = Arc::new(self.roots()?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let config = builder
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .context("using the certificate just made")?;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone())?;
        Ok(roots)
    }
}

fn authority_params() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Relay conformance authority");
    Ok(params)
}

fn leaf_params() -> anyhow::Result<CertificateParams> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(DnType::CommonName, "localhost");
    Ok(params)
}

const CA_FILE: &str = "ca.pem";
const CERTIFICATE_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";
