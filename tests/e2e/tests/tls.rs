//! The relay's own TLS, against rustls and OpenSSL as clients.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, Relay};
use relay_platform::TokenClaims;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A relay that speaks TLS, with the files it reads.
struct Stage {
    platform: Platform,
    relay: Relay,
    dir: TempDir,
}

impl Stage {
    fn set(more: &[(&str, &str)]) -> Result<Self> {
        let platform = Platform::start()?;
        let dir = tempfile::tempdir()?;
        write_pair(dir.path())?;
        let path = |name| dir.path().join(name).display().to_string();
        let (certificate, key, url) = (path("tls.crt"), path("tls.key"), platform.url());
        let mut variables = vec![
            ("SERVER_URL", url.as_str()),
            ("RELAY_TLS", "1"),
            ("RELAY_TLS_CERT_PATH", &certificate),
            ("RELAY_TLS_KEY_PATH", &key),
            ("RELAY_KEEP_ALIVE_TIMEOUT_MS", "60000"),
        ];
        variables.extend(more);
        let relay = Relay::serve(&variables)?;
        Ok(Self { platform, relay, dir })
    }

    /// A connection that trusts the certificate that lies in the directory now.
    fn connect(&self) -> Result<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.path().join("tls.crt"))?)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost")?;
        let session = ClientConnection::new(Arc::new(config), name)?;
        let socket = TcpStream::connect(("127.0.0.1", self.relay.port()))?;
        Ok(StreamOwned::new(session, socket))
    }

    fn open(&self, role: &str, claims: TokenClaims) -> Result<WebSocket<Tls>> {
        let query = format!("role={role}&workspaceId=ws1&runtimeTargetId=rt1");
        let mut request = format!("wss://localhost/ws?{query}").into_client_request()?;
        let token = self.platform.token(claims)?;
        let bearer = format!("Bearer {}", token.expose()).parse()?;
        request.headers_mut().insert("authorization", bearer);
        let opened = tungstenite::client(request, self.connect()?);
        Ok(opened.ok().context("the upgrade was refused")?.0)
    }

    fn hang_up(&self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.relay.id())?).context("it has an id")?;
        Ok(kill_process(pid, Signal::HUP)?)
    }

    /// The value of a counter.
    fn counted(&self, name: &str) -> Result<u64> {
        let mut connection = self.connect()?;
        let token = Relay::ADMIN_TOKEN;
        write!(
            connection,
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        )?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
    }

    /// OpenSSL's client, connected with these arguments.
    fn openssl(&self, arguments: &str) -> Result<Openssl> {
        let mut child = Command::new("openssl")
            .args(["s_client", "-servername", "localhost", "-verify_return_error", "-CAfile"])
            .arg(self.dir.path().join("tls.crt"))
            .args(["-connect", &format!("127.0.0.1:{}", self.relay.port())])
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("openssl is installed")?;
        let input = child.stdin.take().context("it is piped")?;
        let output = BufReader::new(child.stdout.take().context("it is piped")?);
        let remarks = BufReader::new(child.stderr.take().context("it is piped")?);
        Ok(Openssl { child, input: Some(input), output, remarks })
    }
}

/// A child that is driven by lines.
struct Openssl {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What it says of itself.
    remarks: BufReader<ChildStderr>,
}

impl Openssl {
    fn say(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().context("it is open")?;
        Ok(input.write_all(text.as_bytes())?)
    }

    /// Reads up to a line that contains the text; an error at the end of all lines.
    fn until(&mut self, text: &str) -> Result<()> {
        find(&mut self.output, text)
    }

    /// Gives a command of its own, and waits until it is being done.
    fn command(&mut self, letter: &str, remark: &str) -> Result<()> {
        self.say(&format!("{letter}\n"))?;
        find(&mut self.remarks, remark)
    }

    fn health(&mut self) -> Result<()> {
        self.say("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")?;
        self.until("HTTP/1.1 200 OK")
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        drop(self.input.take());
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Reads up to a line that contains the text.
fn find(lines: &mut impl BufRead, text: &str) -> Result<()> {
    loop {
        let mut line = String::new();
        ensure!(lines.read_line(&mut line)? > 0, "no line with {text:?}");
        if line.contains(text) {
            return Ok(());
        }
    }
}

/// Replaces certificate and key, each as a whole.
fn write_pair(dir: &Path) -> Result<()> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let pem = [("tls.key", pair.signing_key.serialize_pem()), ("tls.crt", pair.cert.pem())];
    for (name, content) in pem {
        fs::write(dir.join("new"), content)?;
        fs::rename(dir.join("new"), dir.join(name))?;
    }
    Ok(())
}

fn assert_healthy(connection: &mut Tls) -> Result<()> {
    write!(connection, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = [0; 2048];
    let len = connection.read(&mut answer)?;
    ensure!(answer[..len].starts_with(b"HTTP/1.1 200 OK"), "it answers");
    Ok(())
}

#[test]
fn a_frame_arrives_over_wss() -> Result<()> {
    let stage = Stage::set(&[])?;
    let mut daemon = stage.open("workspace-daemon", TokenClaims::daemon("ws1", "rt1"))?;
    let mut client = stage.open("client", TokenClaims::client("ws1", "rt1", "cl1"))?;
    for seq in 1..=50 {
        let frame = serde_json::json!({
            "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": "s", "epoch": 1,
            "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": "x".repeat(seq * 1111),
        });
        client.send(Message::text(frame.to_string()))?;
        assert_eq!(daemon.read()?, Message::text(frame.to_string()));
    }
    Ok(())
}

#[test]
fn a_new_certificate_is_used_without_touching_connections() -> Result<()> {
    let mut stage = Stage::set(&[])?;
    let mut before = stage.connect()?;
    assert_healthy(&mut before)?;
    write_pair(stage.dir.path())?;
    stage.hang_up()?;
    stage.relay.wait_for("tls_certificate_reloaded")?;
    assert_healthy(&mut stage.connect()?)?;
    assert_healthy(&mut before)?;
    Ok(())
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() -> Result<()> {
    let mut stage = Stage::set(&[])?;
    write_pair(stage.dir.path())?;
    stage.relay.wait_for("tls_certificate_reloaded")?;
    assert_healthy(&mut stage.connect()?)?;
    assert!(stage.counted("relay_tls_reloads_total ")? >= 1);
    Ok(())
}

#[test]
fn a_broken_certificate_keeps_the_old_one() -> Result<()> {
    let mut stage = Stage::set(&[])?;
    fs::write(stage.dir.path().join("tls.key"), "hunter2")?;
    let line = stage.relay.wait_for("tls_certificate_reload_failed")?;
    assert!(line.contains("RELAY_TLS_KEY_PATH") && !line.contains("hunter2"), "{line}");
    assert_healthy(&mut stage.connect()?)?;
    assert_eq!(stage.counted("relay_tls_reload_failures_total ")?, 1);
    Ok(())
}

#[test]
fn openssl_speaks_every_version_and_suite() -> Result<()> {
    let stage = Stage::set(&[])?;
    for choice in [
        "-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256",
        "-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384",
        "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384",
        "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
        "-tls1_3 -groups P-384",
        "-alpn h2,http/1.1",
    ] {
        let mut client = stage.openssl(choice)?;
        client.health().context(choice)?;
        client.health().context(choice)?;
    }
    Ok(())
}

#[test]
fn what_is_old_or_not_spoken_here_fails() -> Result<()> {
    let stage = Stage::set(&[])?;
    for choice in [
        "-tls1_1 -cipher DEFAULT@SECLEVEL=0",
        "-tls1 -cipher DEFAULT@SECLEVEL=0",
        "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA",
        "-tls1_2 -cipher AES128-GCM-SHA256",
        "-alpn h2",
    ] {
        let mut client = stage.openssl(choice)?;
        assert!(client.health().is_err(), "{choice}");
    }
    Ok(())
}

#[test]
fn a_key_update_of_openssl_is_followed_and_answered() -> Result<()> {
    let stage = Stage::set(&[])?;
    let mut client = stage.openssl("-tls1_3")?;
    client.health()?;
    // `k` changes the client's keys, `K` asks for ours too.
    for letter in ["k", "K", "K"] {
        client.command(letter, "KEYUPDATE")?;
        client.health()?;
    }
    Ok(())
}

#[test]
fn a_renegotiation_of_openssl_is_refused() -> Result<()> {
    let stage = Stage::set(&[])?;
    let mut client = stage.openssl("-tls1_2")?;
    client.health()?;
    client.command("R", "RENEGOTIATING")?;
    assert!(client.health().is_err(), "the connection ended");
    assert_eq!(stage.counted("relay_tls_records_refused_total ")?, 1);
    Ok(())
}

#[test]
fn a_session_of_openssl_is_resumed() -> Result<()> {
    let stage = Stage::set(&[])?;
    let session = stage.dir.path().join("session");
    let session = session.display();
    let mut first = stage.openssl(&format!("-tls1_2 -sess_out {session}"))?;
    first.health()?;
    first.say("Q\n")?;
    assert!(first.until("never printed").is_err());
    let mut second = stage.openssl(&format!("-tls1_2 -sess_in {session}"))?;
    second.until("Reused, TLSv1.2")?;
    second.health()
}

#[test]
fn a_client_certificate_is_demanded_where_authorities_are_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    write_pair(dir.path())?;
    let path = |name| dir.path().join(name).display().to_string();
    let (certificate, key) = (path("tls.crt"), path("tls.key"));
    let shown = format!("-tls1_3 -cert {certificate} -key {key}");
    let stage = Stage::set(&[("RELAY_TLS_CLIENT_CA_PATH", &certificate)])?;
    stage.openssl(&shown)?.health()?;
    assert!(stage.openssl("-tls1_3")?.health().is_err(), "it has none");
    let more =
        [("RELAY_TLS_CLIENT_CA_PATH", certificate.as_str()), ("RELAY_TLS_CLIENT_AUTH", "optional")];
    let stage = Stage::set(&more)?;
    stage.openssl(&shown)?.health()?;
    stage.openssl("-tls1_3")?.health()
}
