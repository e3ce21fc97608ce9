//! A platform with a key of its own: real tokens, also for other processes, and forged ones. It
//! answers as [`crate::platform`] does, and counts what it was asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result};
use relay_platform::{Issuer, JWKS_PATH, SigningKey, TokenClaims};
use tempfile::TempDir;

use crate::platform::{self, LIFETIME};

/// Signs tokens that every relay admits which trusts its key, or asks it.
pub(crate) struct Authority {
    issuer: Issuer,
    /// Where its key set and its validate call are.
    pub(crate) address: SocketAddr,
    validations: Arc<AtomicU64>,
    dir: TempDir,
}

/// Signs tokens with a key from a file, in another process than the authority's.
pub(crate) struct Signer(Issuer);

impl Authority {
    /// Makes a key and serves until the process ends.
    pub(crate) fn start() -> Result<Self> {
        let issuer = Issuer::new(SigningKey::generate()?);
        let dir = tempfile::tempdir()?;
        let validations = Arc::new(AtomicU64::new(0));
        let keys = issuer.key_set().to_string();
        let address = platform::start_with(keys.into(), Arc::clone(&validations))?;
        let authority = Self { issuer, address, validations, dir };
        std::fs::write(authority.key_file(), authority.issuer.key().to_pem()?.expose())?;
        Ok(authority)
    }

    /// The key, for [`Signer::read`].
    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir.path().join("signing.pem")
    }

    /// Validate calls so far.
    pub(crate) fn validations(&self) -> u64 {
        self.validations.load(Ordering::Relaxed)
    }

    /// The URL of the key set.
    pub(crate) fn key_set_url(&self) -> String {
        format!("http://{}{JWKS_PATH}", self.address)
    }
}

impl Signer {
    /// The signer of an authority's key.
    pub(crate) fn read(key_file: &Path) -> Result<Self> {
        let pem = std::fs::read_to_string(key_file).context("the signing key")?;
        Ok(Self(Issuer::new(SigningKey::from_pem(&pem)?)))
    }

    /// A client's token, unlike every other: each has an id of its own.
    pub(crate) fn token(&self, workspace: &str, target: &str, client: &str) -> Result<String> {
        let mut claims = TokenClaims::client(workspace, target, client);
        claims.machine_id = Some("machine".to_owned());
        let token = self.0.issue(claims, SystemTime::now(), LIFETIME)?;
        Ok(token.expose().to_owned())
    }

    /// The same, signed by nobody: its signature has the right form and is wrong.
    pub(crate) fn forged(&self, workspace: &str, target: &str, client: &str) -> Result<String> {
        let mut token = self.token(workspace, target, client)?;
        token.replace_range(token.len() - BENT.len().., BENT);
        Ok(token)
    }
}

/// The end of a forged signature.
const BENT: &str = "AAAAAAAA";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_for_the_same_client_differ() {
        let authority = Authority::start().unwrap();
        let signer = Signer::read(&authority.key_file()).unwrap();
        assert_ne!(signer.token("w", "t", "c").unwrap(), signer.token("w", "t", "c").unwrap());
    }
}
