//! Who may be at the other end, and what both ends need of the world.

use std::fmt;
use std::sync::Arc;

use relay_contract::{Counter, LogEntry, Secret, Tick};
use subtle::ConstantTimeEq as _;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// How each side knows the other. Without either, whoever can connect is believed.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A secret that both know.
    pub token: Option<Secret>,
    /// Certificates, where the stream is encrypted.
    pub tls: Option<Tls>,
}

/// Certificates in PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Who vouches for the other side. A control plane without it lets data planes connect that
    /// have no certificate.
    pub authorities: Option<Vec<u8>>,
    /// What this side shows. A control plane needs it.
    pub identity: Option<TlsIdentity>,
}

/// A certificate chain and its key, in PEM. Its `Debug` shows neither.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The chain, its own first.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Secret,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(..)")
    }
}

impl TlsIdentity {
    fn tonic(&self) -> Identity {
        Identity::from_pem(&self.certificate, self.key.expose())
    }
}

impl Tls {
    pub(crate) fn server(&self) -> ServerTlsConfig {
        let mut config = ServerTlsConfig::new();
        if let Some(identity) = &self.identity {
            config = config.identity(identity.tonic());
        }
        if let Some(authorities) = &self.authorities {
            config = config.client_ca_root(Certificate::from_pem(authorities));
        }
        config
    }

    pub(crate) fn client(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if let Some(identity) = &self.identity {
            config = config.identity(identity.tonic());
        }
        if let Some(authorities) = &self.authorities {
            config = config.ca_certificate(Certificate::from_pem(authorities));
        }
        config
    }
}

impl Access {
    /// Whether a data plane shows what it has to.
    pub(crate) fn admits(&self, metadata: &MetadataMap) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = metadata.get("authorization").map(|value| value.as_bytes());
        let shown = shown.and_then(|value| value.strip_prefix(b"Bearer "));
        shown.is_some_and(|shown| bool::from(shown.ct_eq(token.expose().as_bytes())))
    }

    /// What a data plane shows.
    pub(crate) fn shown(&self) -> Option<MetadataValue<Ascii>> {
        let token = self.token.as_ref()?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose()).parse().ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The clock, and its date in milliseconds since 1970.
#[derive(Clone)]
pub struct Time(pub Arc<dyn Fn() -> (Tick, i64) + Send + Sync>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time(..)")
    }
}

/// What an end has to tell its operator, and what that counts as.
#[derive(Clone)]
pub struct Notes(pub Arc<dyn Fn(Option<Counter>, LogEntry) + Send + Sync>);

impl Notes {
    pub(crate) fn note(&self, counter: Option<Counter>, entry: LogEntry) {
        (self.0)(counter, entry);
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_is_admitted() {
        let access = Access { token: Some("right-token".into()), tls: None };
        let mut metadata = MetadataMap::new();
        assert!(!access.admits(&metadata));
        for (shown, admitted) in
            [("Bearer right-token", true), ("Bearer right-toke", false), ("right-token", false)]
        {
            metadata.insert("authorization", shown.parse().unwrap());
            assert_eq!(access.admits(&metadata), admitted, "{shown}");
        }
        assert!(Access::default().admits(&MetadataMap::new()));
        assert!(!format!("{:?}", access.shown()).contains("right-token"));
    }
}
