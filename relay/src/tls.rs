//! TLS of the listening port: files become a configuration, at start and whenever they change.

pub(crate) mod clients;
mod identity;
mod renewal;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::config::{self, ClientAuth};
use clients::Strangers;
use identity::Identity;

pub(crate) use identity::{certificates, private_key};
pub(crate) use renewal::{Renewal, Stamp};

/// Reads the files of one configuration, as often as they change.
#[derive(Debug)]
pub(crate) struct Loader {
    files: config::Tls,
    /// Outlives every certificate, so that peers may resume what began under the one before.
    tickets: Arc<dyn ProducesTickets>,
    /// What the files were before they were read first.
    born: Vec<Stamp>,
}

/// What the files are good for.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What accepted connections speak from now on.
    pub(crate) server: Arc<ServerConfig>,
    /// What an operator should know although it works.
    pub(crate) warnings: Vec<String>,
}

impl Loader {
    /// Errors: the operating system gives no randomness.
    pub(crate) fn new(files: &config::Tls) -> Result<Self> {
        let tickets = aws_lc_rs::Ticketer::new().context("cannot make keys for TLS tickets")?;
        let mut loader = Self { files: files.clone(), tickets, born: Vec::new() };
        loader.born = loader.stamp();
        Ok(loader)
    }

    /// Another, of other files; peers may resume what began under this one.
    pub(crate) fn of_files(&self, files: &config::Tls) -> Self {
        let tickets = Arc::clone(&self.tickets);
        let mut loader = Self { files: files.clone(), tickets, born: Vec::new() };
        loader.born = loader.stamp();
        loader
    }

    /// Every file that is read.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let files = &self.files;
        let authorities = files.client_authorities.as_deref();
        [files.certificate.as_path(), files.key.as_path()].into_iter().chain(authorities)
    }

    /// What the files are now.
    fn stamp(&self) -> Vec<Stamp> {
        self.paths().map(Stamp::of).collect()
    }

    /// Reads the files.
    ///
    /// Errors: a file that cannot be read, or whose content is not what its variable says; the
    /// message names both and never shows the content.
    pub(crate) fn load(&self) -> Result<Loaded> {
        let provider = Arc::new(provider());
        let identity = Identity::read(&self.files.certificate, &self.files.key, &provider)?;
        let warnings = identity.warnings(now());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match self.client_roots()? {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let strangers = match self.files.client_auth {
                    ClientAuth::Optional => Strangers::Admitted,
                    ClientAuth::None | ClientAuth::Required => Strangers::Refused,
                };
                builder.with_client_cert_verifier(clients::verifier(roots, strangers, provider)?)
            }
        };
        let mut server = builder.with_cert_resolver(Arc::new(Always(identity.certified)));
        // Clients name the longest key first, whatever it costs whom.
        server.ignore_client_order = true;
        // Upgrades to WebSocket exist in HTTP/1.1 alone.
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = match self.files.client_auth {
            ClientAuth::None => Arc::clone(&self.tickets),
            // A ticket carries the identity that was checked against the authorities of its time.
            ClientAuth::Optional | ClientAuth::Required => aws_lc_rs::Ticketer::new()?,
        };
        Ok(Loaded { server: Arc::new(server), warnings })
    }

    fn client_roots(&self) -> Result<Option<RootCertStore>> {
        let wanted = self.files.client_auth != ClientAuth::None;
        let Some(path) = self.files.client_authorities.as_ref().filter(|_| wanted) else {
            return Ok(None);
        };
        let read = || -> Result<RootCertStore> {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).context("a certificate that can be no authority")?;
            }
            Ok(roots)
        };
        let roots =
            read().with_context(|| format!("RELAY_TLS_CLIENT_CA_PATH={}", path.display()))?;
        Ok(Some(roots))
    }
}

/// One certificate for everybody, whatever name they ask for.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// What rustls offers, AES-128-GCM first: processors compute its SHA-256 by themselves and the
/// SHA-384 of its longer sister not, which is a tenth of a handshake.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let is_longer = |suite: &SupportedCipherSuite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    provider.cipher_suites.sort_by_key(is_longer);
    provider
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
