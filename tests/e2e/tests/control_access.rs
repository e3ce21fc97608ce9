//! Who may come to the control API over TCP: by a certificate, by a token.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use anyhow::{Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use relay_e2e::{Platform, PythonClient, Relay, free_port, run};
use serde_json::Value;

/// Files of one test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn make() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn keep(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.path(name), text)?;
        // Some of them are secrets.
        Ok(std::fs::set_permissions(self.path(name), Permissions::from_mode(0o600))?)
    }

    /// An authority `NAME.pem` with certificates `LEAF.pem` and keys `LEAF.key` of these names.
    fn authority(&self, name: &str, leaves: &[&str]) -> Result<()> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Whose subject is that of its issuer has signed itself, thinks OpenSSL.
        authority.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        self.keep(&format!("{name}.pem"), &authority.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(authority, key);
        for leaf in leaves {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate()?;
            self.keep(&format!("{leaf}.pem"), &params.signed_by(&key, &issuer)?.pem())?;
            self.keep(&format!("{leaf}.key"), &key.serialize_pem())?;
        }
        Ok(())
    }
}

/// A relay whose control API is at a port.
struct Stage {
    _platform: Platform,
    relay: Relay,
    folder: Folder,
    port: u16,
}

impl Stage {
    /// With a certificate of the authority `ca`, and what these variables say.
    fn set(folder: Folder, variables: &[(&str, &str)]) -> Result<Self> {
        folder.authority("ca", &["relay", "operator"])?;
        folder.authority("other", &["stranger"])?;
        let port = free_port()?;
        let platform = Platform::start()?;
        let (url, listen) = (platform.url(), format!("127.0.0.1:{port}"));
        let [certificate, key, audit] =
            ["relay.pem", "relay.key", "audit.log"].map(|name| folder.path(name));
        let own = [
            ("SERVER_URL", url.as_str()),
            ("RELAY_SHARDS", "1"),
            ("RELAY_CONTROL_API_LISTEN", &listen),
            ("RELAY_CONTROL_API_TLS_CERT_PATH", &certificate),
            ("RELAY_CONTROL_API_TLS_KEY_PATH", &key),
            ("RELAY_AUDIT_LOG", &audit),
        ];
        let relay = Relay::serve(&[&own[..], variables].concat())?;
        Ok(Self { _platform: platform, relay, folder, port })
    }

    /// `relay ctl` with these arguments about who calls.
    fn ctl(&self, credentials: &[&str], call: &[&str]) -> Result<Output> {
        let (address, ca) =
            (format!("https://localhost:{}", self.port), self.folder.path("ca.pem"));
        let start = ["ctl", "--address", &address, "--ca", &ca];
        run(&[&start[..], credentials, call].concat(), &[])
    }

    /// A client in Python with these arguments about who calls.
    fn python(&self, credentials: &[&str]) -> Result<PythonClient> {
        let (address, ca) = (format!("localhost:{}", self.port), self.folder.path("ca.pem"));
        let start = ["--address", &address, "--ca", &ca];
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        PythonClient::install(target, &[&start[..], credentials].concat())
    }

    fn audited(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.path("audit.log"))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(output: Output) -> Result<String> {
    ensure!(output.status.success(), "{}: {}", output.status, said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_certificate_of_the_authority_lets_in_and_nothing_else_does() -> Result<()> {
    let folder = Folder::make()?;
    let ca = folder.path("ca.pem");
    let stage = Stage::set(folder, &[("RELAY_CONTROL_API_TLS_CLIENT_CA_PATH", &ca)])?;
    let file = |name: &str| stage.folder.path(name);
    let [own, own_key, other, other_key] =
        ["operator.pem", "operator.key", "stranger.pem", "stranger.key"].map(file);
    let operator = ["--cert", own.as_str(), "--key", own_key.as_str()];
    let stranger = ["--cert", other.as_str(), "--key", other_key.as_str()];

    done(stage.ctl(&operator, &["info"])?)?;
    done(stage.ctl(&operator, &["log-level", "warn"])?)?;
    assert_eq!(stage.python(&operator)?.run(&["state"])?.len(), 1);
    assert_eq!(stage.python(&operator)?.run(&["resume"])?[0]["wasDraining"], false);

    for (who, credentials) in [("nobody", &[][..]), ("a stranger", &stranger[..])] {
        let refused = stage.ctl(credentials, &["log-level", "error"])?;
        assert_eq!(refused.status.code(), Some(3), "{who}: {}", said(&refused));
        assert!(said(&refused).contains("--cert"), "{who}: {}", said(&refused));
        let refused = stage.python(credentials)?.run(&["resume"]).map(|_| ()).unwrap_err();
        assert!(format!("{refused:#}").contains("UNAVAILABLE"), "{who}: {refused:#}");
    }

    let lines = stage.audited()?;
    let calls: Vec<_> = lines.iter().filter_map(|line| line["call"].as_str()).collect();
    assert_eq!(calls, ["SetLogLevel", "Resume"], "nobody else came as far as a call");
    for line in &lines {
        let shown = line["who"]["certificate"].as_str();
        assert!(shown.is_some_and(|text| text.starts_with("sha256:")), "{line}");
    }
    Ok(())
}

/// Has the configuration read again, by every process, and waits until each says that it was.
fn reload(relay: &mut Relay) -> Result<()> {
    relay.hang_up()?;
    (0..relay.process_count()).try_for_each(|_| relay.wait_for("\"config_reloaded").map(drop))
}

#[test]
fn a_token_is_rotated_at_noon_and_the_old_one_ends() -> Result<()> {
    let folder = Folder::make()?;
    for (file, token) in [("operator", "first"), ("before", "zeroth"), ("reader", "reads")] {
        folder.keep(file, token)?;
    }
    let [operator, before, reader] = ["operator", "before", "reader"].map(|name| folder.path(name));
    let mut stage = Stage::set(
        folder,
        &[
            ("RELAY_CONTROL_API_OPERATOR_TOKEN_FILE", &operator),
            ("RELAY_CONTROL_API_OPERATOR_TOKEN_PREVIOUS_FILE", &before),
            ("RELAY_CONTROL_API_READER_TOKEN_FILE", &reader),
        ],
    )?;
    let tokens = ["zeroth", "first", "second", "reads"];
    for token in tokens {
        stage.folder.keep(&format!("shown-{token}"), token)?;
    }
    let shown = |stage: &Stage, token: &str| stage.folder.path(&format!("shown-{token}"));
    // Which of them may operate, and which of them may read.
    let judged = |stage: &Stage| -> Result<Vec<(Option<i32>, Option<i32>)>> {
        let codes = tokens.iter().map(|token| {
            let file = shown(stage, token);
            let credentials = ["--token-file", file.as_str()];
            let change = stage.ctl(&credentials, &["log-level", "info"])?.status.code();
            Ok((change, stage.ctl(&credentials, &["ready"])?.status.code()))
        });
        codes.collect()
    };
    let (may, may_read, may_not) = ((Some(0), Some(0)), (Some(4), Some(0)), (Some(4), Some(4)));
    assert_eq!(judged(&stage)?, [may, may, may_not, may_read]);

    // Who watches with a token that ends is told so.
    let file = shown(&stage, "zeroth");
    let watching = stage.python(&["--token-file", &file])?.begin(&["watch"])?;

    stage.folder.keep("before", "first")?;
    stage.folder.keep("operator", "second")?;
    reload(&mut stage.relay)?;
    assert_eq!(judged(&stage)?, [may_not, may, may, may_read]);
    let ended = watching.wait_with_output()?;
    ensure!(said(&ended).contains("UNAUTHENTICATED"), "{ended:?}");

    // The API itself reads them too: by a call with the token that is to end.
    let file = shown(&stage, "first");
    stage.folder.keep("before", "zeroth")?;
    let reloaded = stage.ctl(&["--token-file", &file], &["reload"])?;
    let said = done(reloaded)?;
    ensure!(said.contains("RELAY_CONTROL_API_OPERATOR_TOKEN_PREVIOUS"), "{said}");
    assert_eq!(judged(&stage)?, [may, may_not, may, may_read]);
    Ok(())
}
