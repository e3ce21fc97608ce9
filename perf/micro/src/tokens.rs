//! Checking a token against a key set.

use anyhow::{Context, Result, ensure};
use relay_admission::{Checker, KeySet, Verdict};
use relay_contract::Role;
use serde::Deserialize;

use crate::cases::Operation;

/// Checks the same token over and over, and maps its claims.
pub(crate) struct Checking {
    checker: Checker,
    keys: KeySet,
    token: String,
    admitted: u64,
}

/// Public keys and tokens they have signed. The private keys exist no more.
#[derive(Deserialize)]
struct Signed {
    tokens: std::collections::BTreeMap<String, String>,
}

impl Checking {
    pub(crate) fn start(algorithm: &str) -> Result<Self> {
        let Signed { mut tokens } = serde_json::from_str(SIGNED)?;
        let checker = Checker {
            issuer: Some("viewport-server".into()),
            audience: Some("viewport-relay".into()),
            leeway_secs: 5,
        };
        let token = tokens.remove(algorithm).context("there is no such token")?;
        Ok(Self { checker, keys: KeySet::parse(SIGNED.as_bytes())?.0, token, admitted: 0 })
    }
}

impl Operation for Checking {
    fn run(&mut self) {
        if let Verdict::Verified(token) = self.checker.check(&self.token, &self.keys, NOW_SECS) {
            self.admitted += u64::from(token.claims_for(Role::Client).is_ok());
        }
    }

    fn judge(&self, runs: u64) -> Result<()> {
        ensure!(self.admitted == runs, "{} of {runs} tokens were admitted", self.admitted);
        Ok(())
    }
}

/// Inside the tokens' time, which lasts until 2100.
const NOW_SECS: i64 = 1_800_000_000;

/// Some signatures are drawn at random, so they were made once.
const SIGNED: &str = include_str!("../tokens.json");
