//! Certificates that an authority signed: the relay's own chain, and those that clients show.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use relay_e2e::{replace_file, write_certificate};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::stage::Stage;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Both versions of the protocol.
const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

fn named(name: &str, is_authority: bool) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    Ok(params)
}

fn root(name: &str) -> Result<Authority> {
    Ok(Authority::self_signed(named(name, true)?, KeyPair::generate()?)?)
}

/// A certificate and its key, as PEM.
fn signed_by(authority: &Authority, name: &str) -> Result<[String; 2]> {
    let key = KeyPair::generate()?;
    let certificate = named(name, false)?.signed_by(&key, authority)?;
    Ok([certificate.pem(), key.serialize_pem()])
}

/// Somebody's certificate in this directory, and the arguments with which OpenSSL shows it.
fn shown(dir: &Path, authority: &Authority, name: &str) -> Result<String> {
    let [certificate, key] = signed_by(authority, name)?;
    replace_file(dir, &format!("{name}.crt"), &certificate)?;
    replace_file(dir, &format!("{name}.key"), &key)?;
    let path = dir.join(name).display().to_string();
    Ok(format!("-cert {path}.crt -key {path}.key"))
}

/// A relay whose clients are to show certificates of this authority.
fn guarded(authority: &Authority, policy: &str) -> Result<Stage> {
    let dir = tempfile::tempdir()?;
    write_certificate(dir.path())?;
    replace_file(dir.path(), "clients.crt", &authority.pem())?;
    let path = dir.path().join("clients.crt").display().to_string();
    let more = [("RELAY_TLS_CLIENT_CA_PATH", path.as_str()), ("RELAY_TLS_CLIENT_AUTH", policy)];
    Stage::set_in(dir, &more)
}

fn with_chain(chain: &[&str], key: &str, root: &Authority) -> Result<(TempDir, String)> {
    let dir = tempfile::tempdir()?;
    replace_file(dir.path(), "tls.crt", &chain.concat())?;
    replace_file(dir.path(), "tls.key", key)?;
    replace_file(dir.path(), "root.crt", &root.pem())?;
    let path = dir.path().join("root.crt").display().to_string();
    Ok((dir, path))
}

#[test]
fn a_client_that_knows_the_root_alone_is_served() -> Result<()> {
    let root = root("root")?;
    let between = Authority::signed_by(named("between", true)?, KeyPair::generate()?, &root)?;
    let [leaf, key] = signed_by(&between, "localhost")?;
    for (chain, is_whole) in [(vec![leaf.as_str(), &between.pem()], true), (vec![&leaf], false)] {
        let (dir, trusted) = with_chain(&chain, &key, &root)?;
        let stage = Stage::set_in(dir, &[])?;
        for version in VERSIONS {
            let health = stage.openssl(&format!("{version} -CAfile {trusted}"))?.health();
            assert_eq!(health.is_ok(), is_whole, "{version}: {health:?}");
        }
    }
    Ok(())
}

#[test]
fn a_client_certificate_is_demanded_where_authorities_are_named() -> Result<()> {
    let ours = root("ours")?;
    for (policy, without) in [("required", false), ("optional", true)] {
        let stage = guarded(&ours, policy)?;
        let shown = shown(stage.dir.path(), &ours, "client")?;
        for version in VERSIONS {
            stage.openssl(&format!("{version} {shown}"))?.health()?;
            let health = stage.openssl(version)?.health();
            assert_eq!(health.is_ok(), without, "{policy} {version}, without: {health:?}");
        }
    }
    Ok(())
}

#[test]
fn a_certificate_of_another_authority_opens_nothing() -> Result<()> {
    let (ours, theirs) = (root("ours")?, root("theirs")?);
    for policy in ["required", "optional"] {
        let stage = guarded(&ours, policy)?;
        let shown = shown(stage.dir.path(), &theirs, "stranger")?;
        for version in VERSIONS {
            let health = stage.openssl(&format!("{version} {shown}"))?.health();
            assert!(health.is_err(), "{policy} {version}");
        }
    }
    Ok(())
}

#[test]
fn a_ticket_does_not_outlive_its_authority() -> Result<()> {
    let (ours, theirs) = (root("ours")?, root("theirs")?);
    let mut stage = guarded(&ours, "required")?;
    let shown = shown(stage.dir.path(), &ours, "client")?;
    let session = stage.saved_session(&format!("-tls1_2 {shown}"))?;
    // The ticket says who it is.
    stage.openssl(&format!("-tls1_2 -sess_in {session}"))?.health()?;
    replace_file(stage.dir.path(), "clients.crt", &theirs.pem())?;
    stage.relay.signal(Signal::HUP)?;
    stage.relay.wait_for("tls_certificate_reloaded")?;
    let health = stage.openssl(&format!("-tls1_2 -sess_in {session}"))?.health();
    assert!(health.is_err(), "whoever signed it counts for nothing now");
    Ok(())
}
