//! `relay doctor`, as an operator meets it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, Relay, run, write_certificate};
use serde_json::Value;

const SECRET: &str = "0f9e8d7c6b5a49382716051423324150";

/// What a check says in `--json`.
fn finding<'a>(report: &'a Value, check: &str) -> Result<&'a Value> {
    let findings = report["findings"].as_array().context("a list")?;
    let mut found = findings.iter().filter(|finding| finding["check"] == check);
    found.next().with_context(|| format!("{check} is not in {report}"))
}

#[test]
fn a_relay_that_serves_well_is_found_well_and_undisturbed() -> Result<()> {
    let platform = Platform::start()?;
    let validate = format!("{}/api/runtime/internal/relay/validate", platform.url());
    let jwks = format!("{}/.well-known/jwks.json", platform.url());
    // A busy machine makes the platform slow, which the doctor would say.
    let variables = [
        ("RELAY_VALIDATE_URL", validate.as_str()),
        ("RELAY_JWKS_URL", &jwks),
        ("RELAY_ADMISSION_TIMEOUT_MS", "60000"),
        ("RELAY_INTERNAL_API_TIMEOUT_MS", "60000"),
    ];
    let relay = Relay::serve(&variables)?;
    let port = relay.port().to_string();
    let variables = [&variables[..], &[("HOST", "127.0.0.1"), ("PORT", &port)]].concat();
    let output = run(&["doctor"], &variables)?;
    let text = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{text}");
    for (check, words) in [("port", "held by a relay"), ("platform", "refuses a bad token")] {
        let line = text.lines().find(|line| line[6..].starts_with(check)).context("a line")?;
        assert!(line.starts_with("ok ") && line.contains(words), "{text}");
    }
    let line = text.lines().find(|line| line.contains("key set")).context("a line")?;
    assert!(line.starts_with("ok ") && line.ends_with("1 can be used"), "{line}");
    assert!(relay.stop()?.success());
    Ok(())
}

#[test]
fn what_fails_is_told_to_programs_too_and_no_secret_with_it() -> Result<()> {
    let gone = Platform::start()?.url();
    let variables = [
        ("HOST", "127.0.0.1"),
        ("RELAY_VALIDATE_URL", gone.as_str()),
        ("RELAY_INTERNAL_KEY", SECRET),
        ("RELAY_ADMIN_TOKEN", "hush"),
        ("RELAY_ENABLE_ADMIN_HTTP", "1"),
    ];
    let output = run(&["doctor", "--json", "--set", "RELAY_LISTEN_PORT=7793"], &variables)?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout)?;
    assert!(!text.contains(SECRET) && !text.contains("hush"), "{text}");
    let report: Value = serde_json::from_str(&text)?;
    assert_eq!(report["ok"], false);
    let platform = finding(&report, "platform")?;
    assert_eq!(platform["verdict"], "fail", "{platform}");
    assert!(platform["change"].as_str().is_some_and(|text| text.contains("RELAY_VALIDATE_URL")));
    assert_eq!(finding(&report, "admin token")?["verdict"], "warn");
    assert_eq!(finding(&report, "internal key")?["verdict"], "ok");
    Ok(())
}

#[test]
fn every_mistake_in_the_configuration_is_a_line_of_its_own() -> Result<()> {
    let variables = [("RELAY_MODE", "prod"), ("HOST", "0.0.0.0"), ("RELAY_TLS", "0")];
    let output = run(&["doctor"], &variables)?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout)?;
    let mistakes = text.lines().filter(|line| line.starts_with("fail  configuration  "));
    assert!(mistakes.count() >= 3, "{text}");
    assert!(text.contains("kernel"), "the machine is examined all the same: {text}");
    Ok(())
}

/// A real Redis that speaks TLS alone, with the certificate in this folder. Killed when dropped.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start(folder: &Path) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = free.local_addr()?.port();
        drop(free);
        let child = Command::new("redis-server")
            .args(["--port", "0", "--bind", "127.0.0.1", "--save", ""])
            .args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"])
            .args(["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key"])
            .args(["--tls-ca-cert-file", "tls.crt", "--requirepass", SECRET])
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server is not there: cargo xtask components")?;
        let mut redis = Self { child, port };
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            ensure!(redis.child.try_wait()?.is_none(), "redis-server ended");
            std::thread::yield_now();
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_redis_behind_tls_is_trusted_by_the_systems_authorities_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_certificate(folder.path())?;
    let redis = Redis::start(folder.path())?;
    let platform = Platform::start()?.url();
    let url = format!("rediss://:{SECRET}@localhost:{}", redis.port);
    let authorities = folder.path().join("tls.crt");
    let stranger = tempfile::tempdir()?;
    write_certificate(stranger.path())?;
    let strangers = stranger.path().join("tls.crt");
    let variables = [
        ("HOST", "127.0.0.1"),
        ("SERVER_URL", platform.as_str()),
        ("RELAY_INTERNAL_KEY", SECRET),
        ("RELAY_BUS_HMAC_KEY", SECRET),
        ("RELAY_BACKPLANE_URL", &url),
    ];
    for (trusted, verdict, words) in
        [(&strangers, "warn", "invalid peer certificate"), (&authorities, "ok", "lets us in")]
    {
        let variables = [&variables[..], &[("SSL_CERT_FILE", path(trusted)?)]].concat();
        let text = String::from_utf8(run(&["doctor", "--json"], &variables)?.stdout)?;
        assert!(!text.contains(SECRET), "{text}");
        let report: Value = serde_json::from_str(&text)?;
        let redis = finding(&report, "redis")?;
        assert_eq!(redis["verdict"], verdict, "{redis}");
        assert!(redis["found"].as_str().is_some_and(|found| found.contains(words)), "{redis}");
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}
