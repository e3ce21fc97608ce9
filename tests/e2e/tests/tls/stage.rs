//! A relay that speaks TLS, and clients of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, Relay, get_over, write_certificate};
use relay_platform::TokenClaims;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A relay that speaks TLS, with the files it reads.
pub(crate) struct Stage {
    platform: Platform,
    pub(crate) relay: Relay,
    pub(crate) dir: TempDir,
}

impl Stage {
    /// With a certificate that signed itself.
    pub(crate) fn set(more: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        write_certificate(dir.path())?;
        Self::set_in(dir, more)
    }

    /// With `tls.crt` and `tls.key` of this directory.
    pub(crate) fn set_in(dir: TempDir, more: &[(&str, &str)]) -> Result<Self> {
        let platform = Platform::start()?;
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
    pub(crate) fn connect(&self) -> Result<Tls> {
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

    /// The value of a counter.
    pub(crate) fn counted(&self, name: &str) -> Result<u64> {
        let answer = get_over(self.connect()?, "/metrics", Some(Relay::ADMIN_TOKEN))?.body;
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
    }

    /// The file that OpenSSL's client, with these arguments, kept of a session that is over.
    pub(crate) fn saved_session(&self, arguments: &str) -> Result<String> {
        let session = self.dir.path().join("session").display().to_string();
        let mut client = self.openssl(&format!("{arguments} -sess_out {session}"))?;
        client.health()?;
        client.say("Q\n")?;
        ensure!(client.until("never printed").is_err(), "it ends");
        Ok(session)
    }

    /// OpenSSL's client, connected with these arguments.
    pub(crate) fn openssl(&self, arguments: &str) -> Result<Openssl> {
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

/// A daemon and a client of one workspace.
pub(crate) struct Pair {
    daemon: WebSocket<Tls>,
    client: WebSocket<Tls>,
}

impl Pair {
    pub(crate) fn of(stage: &Stage) -> Result<Self> {
        Ok(Self {
            daemon: stage.open("workspace-daemon", TokenClaims::daemon("ws1", "rt1"))?,
            client: stage.open("client", TokenClaims::client("ws1", "rt1", "cl1"))?,
        })
    }

    /// Lets a message pass, the longer the later it comes, and compares what arrives.
    pub(crate) fn exchange(&mut self, seq: usize) -> Result<()> {
        let frame = serde_json::json!({
            "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": "s", "epoch": 1,
            "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": "x".repeat(seq * 1111),
        });
        let message = Message::text(frame.to_string());
        self.client.send(message.clone())?;
        assert_eq!(self.daemon.read()?, message);
        Ok(())
    }
}

/// A child that is driven by lines.
pub(crate) struct Openssl {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What it says of itself.
    remarks: BufReader<ChildStderr>,
}

impl Openssl {
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().context("it is open")?;
        Ok(input.write_all(text.as_bytes())?)
    }

    /// Reads up to a line that contains the text; an error at the end of all lines.
    pub(crate) fn until(&mut self, text: &str) -> Result<()> {
        find(&mut self.output, text)
    }

    /// Gives a command of its own, and waits until it is being done.
    pub(crate) fn command(&mut self, letter: &str, remark: &str) -> Result<()> {
        self.say(&format!("{letter}\n"))?;
        find(&mut self.remarks, remark)
    }

    pub(crate) fn health(&mut self) -> Result<()> {
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

/// Asks for `/health`, and finds it well.
pub(crate) fn assert_healthy(connection: &mut Tls) -> Result<()> {
    write!(connection, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = [0; 2048];
    let len = connection.read(&mut answer)?;
    ensure!(answer[..len].starts_with(b"HTTP/1.1 200 OK"), "it answers");
    Ok(())
}
