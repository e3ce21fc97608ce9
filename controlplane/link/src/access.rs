//! Who may be at the other end, and what both ends need of the world.

use std::fmt;
use std::sync::Arc;

use relay_contract::{Counter, LogEntry, Secret, Tick};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// What a data plane shows its control plane, and whom it believes.
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
    /// Who vouches for the control plane.
    pub authorities: Option<Vec<u8>>,
    /// What this side shows.
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
    /// What a data plane shows.
    pub(crate) fn shown(&self) -> Option<MetadataValue<Ascii>> {
        let token = self.token.as_ref()?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose()).parse().ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// What a data plane shows, asked at each attempt to connect: files are replaced while it runs. The
/// text says why there is nothing to show.
#[derive(Clone)]
pub struct Credentials(pub Arc<dyn Fn() -> Result<Access, String> + Send + Sync>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// The secrets of which a data plane has to show one, asked at each attempt: the one both know, and
/// the one before it while it is rotated. Without any, whoever can connect is believed.
#[derive(Clone)]
pub struct Tokens(pub Arc<dyn Fn() -> Vec<Secret> + Send + Sync>);

impl Tokens {
    /// Whether a data plane shows what it has to.
    pub(crate) fn admit(&self, metadata: &MetadataMap) -> bool {
        let tokens = (self.0)();
        let shown = metadata.get("authorization").map(|value| value.as_bytes());
        let shown = shown.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        // Digests have one length, so the comparison tells nothing about the token's; it takes as
        // long whichever of them it is.
        let shown = Sha256::digest(shown);
        let known = tokens.iter().map(|token| Sha256::digest(token.expose().as_bytes()));
        let is_one = known.fold(Choice::from(0), |found, token| found | shown.ct_eq(&token));
        tokens.is_empty() || bool::from(is_one)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
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
        let tokens = |known: &'static [&'static str]| {
            Tokens(Arc::new(move || known.iter().map(|&token| token.into()).collect()))
        };
        let both = tokens(&["right-token", "old-token"]);
        let mut metadata = MetadataMap::new();
        assert!(!both.admit(&metadata) && tokens(&[]).admit(&metadata));
        for (shown, admitted) in [
            ("Bearer right-token", true),
            ("Bearer old-token", true),
            ("Bearer right-toke", false),
            ("Bearer right-tokem", false),
            ("Bearer right-token-", false),
            ("right-token", false),
            ("Bearer ", false),
        ] {
            metadata.insert("authorization", shown.parse().unwrap());
            assert_eq!(both.admit(&metadata), admitted, "{shown}");
        }
        let access = Access { token: Some("right-token".into()), tls: None };
        assert!(!format!("{:?}", access.shown()).contains("right-token"));
    }
}
