//! Signing keys in files, and tokens for development.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use relay_contract::{Role, Scope, Secret};
use relay_platform::{Issuer, SigningKey, TokenClaims};

use crate::cli::{RoleArgument, TokenArguments};

/// Signs one token.
pub(crate) fn sign(arguments: &TokenArguments) -> Result<Secret> {
    let issuer = Issuer::new(load_or_create(&arguments.key)?);
    let lifetime = Duration::from_secs(u64::from(arguments.hours) * 3600);
    let token = issuer.issue(claims(arguments), SystemTime::now(), lifetime);
    token.context("cannot sign the token")
}

fn claims(arguments: &TokenArguments) -> TokenClaims {
    let mut claims = TokenClaims {
        workspace_id: Some(arguments.workspace.clone()),
        runtime_target_id: arguments.target.clone(),
        client_id: arguments.client_id.clone(),
        managed_executor_id: arguments.executor.clone(),
        ..TokenClaims::default()
    };
    claims.role = Some(match arguments.role {
        RoleArgument::Daemon => Role::Daemon,
        RoleArgument::Client => Role::Client,
        RoleArgument::Worker => Role::Worker,
    });
    if arguments.role == RoleArgument::Client {
        claims.scope = Some(Scope::Runtime);
        claims.client_id.get_or_insert_with(|| "dev-client".to_owned());
    }
    claims
}

/// Reads the key, or makes one that only the owner can read.
pub(crate) fn load_or_create(path: &Path) -> Result<SigningKey> {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(pem) => {
            let pem = Secret::new(pem);
            SigningKey::from_pem(pem.expose()).with_context(|| format!("key file {shown}"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => create(path),
        Err(error) => Err(error).with_context(|| format!("cannot read key file {shown}")),
    }
}

fn create(path: &Path) -> Result<SigningKey> {
    let key = SigningKey::generate()?;
    let pem = key.to_pem()?;
    // `create_new` refuses to follow a link that somebody put there in the meantime.
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(pem.expose().as_bytes()))
        .with_context(|| format!("cannot write key file {}", path.display()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn arguments(key: &Path, role: RoleArgument) -> TokenArguments {
        TokenArguments {
            key: key.to_owned(),
            role,
            workspace: "ws1".to_owned(),
            target: Some("rt1".to_owned()),
            client_id: None,
            executor: None,
            hours: 1,
        }
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key.pem");
        let first = load_or_create(&path).expect("made");
        let second = load_or_create(&path).expect("read");
        assert_eq!(first.key_id(), second.key_id());
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_token_is_accepted_by_a_platform_with_the_same_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key.pem");
        let token = sign(&arguments(&path, RoleArgument::Client)).expect("signed");
        let issuer = Issuer::new(load_or_create(&path).expect("read"));
        let claims = issuer.judge(token.expose()).expect("ours");
        assert_eq!(claims.client_id.as_deref(), Some("dev-client"));
        assert_eq!(claims.scope, Some(Scope::Runtime));
    }

    #[test]
    fn a_file_that_is_no_key_is_named_and_not_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key.pem");
        fs::write(&path, "hunter2").expect("written");
        let error = format!("{:#}", load_or_create(&path).err().expect("no key"));
        assert!(error.contains("key.pem") && !error.contains("hunter2"), "{error}");
    }
}
