//! TLS between load and relay: a certificate for the relay, and sessions that trust it alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;

/// A self-signed certificate in files, which go with this value.
pub(crate) struct Certificate {
    dir: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Result<Self> {
        let certificate = Self { dir: tempfile::tempdir()? };
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        fs::write(certificate.chain(), made.cert.pem())?;
        let mut key = fs::OpenOptions::new();
        let mut key = key.write(true).create_new(true).mode(0o600).open(certificate.key())?;
        key.write_all(made.signing_key.serialize_pem().as_bytes())?;
        Ok(certificate)
    }

    /// The certificate's file.
    pub(crate) fn chain(&self) -> PathBuf {
        self.dir.path().join("tls.crt")
    }

    /// The key's file.
    pub(crate) fn key(&self) -> PathBuf {
        self.dir.path().join("tls.key")
    }
}

/// Trusts one certificate and no other.
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    pub(crate) fn of(certificate: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate)?)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// A session that has not begun.
    pub(crate) fn connection(&self) -> Result<ClientConnection> {
        Ok(ClientConnection::new(self.config(), ServerName::try_from(NAME)?)?)
    }

    /// What sessions are made of.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

const NAME: &str = "localhost";
