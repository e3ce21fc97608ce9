//! Data plane and control plane apart: what happens when one of them is killed.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use relay_e2e::{ControlPlane, Platform, Relay, free_port, get, run};
use relay_platform::{JWKS_PATH, TokenClaims};
use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Error, Message, WebSocket, connect};

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

/// How soon things have to be well again, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

struct Stage {
    platform: Platform,
    control: ControlPlane,
}

impl Stage {
    fn set(variables: &[(&str, &str)]) -> Result<Self> {
        let platform = Platform::start()?;
        let control = ControlPlane::start(&with_platform(&platform.url(), variables))?;
        Ok(Self { platform, control })
    }

    /// One more data plane, once the control plane knows it.
    fn data_plane(&mut self, variables: &[(&str, &str)]) -> Result<Relay> {
        let url = self.platform.url();
        let relay = Relay::serve_apart(&self.control, &with_platform(&url, variables))?;
        self.control.wait_for("data_plane_attached")?;
        Ok(relay)
    }

    fn open(&self, relay: &Relay, role: &str, claims: TokenClaims) -> Result<Socket, Error> {
        let query = format!("role={role}&workspaceId={}&runtimeTargetId=rt1", WORKSPACE);
        self.open_at(&format!("{}?{query}", relay.url()), claims)
    }

    fn open_at(&self, url: &str, claims: TokenClaims) -> Result<Socket, Error> {
        let mut request = url.into_client_request()?;
        let token = self.platform.token(claims).expect("it signs");
        let bearer = format!("Bearer {}", token.expose()).parse().expect("a header");
        request.headers_mut().insert("authorization", bearer);
        Ok(connect(request)?.0)
    }

    fn daemon(&self, relay: &Relay) -> Result<Socket> {
        let claims = TokenClaims::daemon(WORKSPACE, "rt1");
        Ok(self.open(relay, "workspace-daemon", claims)?)
    }

    fn client(&self, relay: &Relay, id: &str) -> Result<Socket, Error> {
        self.open(relay, "client", TokenClaims::client(WORKSPACE, "rt1", id))
    }
}

const WORKSPACE: &str = "ws1";

fn with_platform<'v>(url: &'v str, variables: &[(&'v str, &'v str)]) -> Vec<(&'v str, &'v str)> {
    let own = [("SERVER_URL", url), ("RELAY_SHARDS", "2")];
    own.into_iter().chain(variables.iter().copied()).collect()
}

fn asked(relay: &Relay, path: &str) -> Result<Value> {
    let answer = get(relay.port(), path, Some(Relay::ADMIN_TOKEN))?;
    ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.body);
    Ok(serde_json::from_str(&answer.body)?)
}

fn admitted(relay: &Relay) -> Result<u64> {
    asked(relay, "/node")?["admittedConnections"].as_u64().context("/node counts")
}

/// A sum over all data planes.
fn counted(relay: &Relay, name: &str) -> Result<u64> {
    let answer = get(relay.port(), "/metrics", Some(Relay::ADMIN_TOKEN))?;
    ensure!(answer.status == 200, "/metrics: {}", answer.status);
    let value = answer.body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("{name} in {}", answer.body))
}

fn frame(seq: u32) -> String {
    let frame = serde_json::json!({
        "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": "s", "epoch": 1,
        "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": "AAAA",
    });
    frame.to_string()
}

/// The daemon's next frame of a client is this one.
fn take(daemon: &mut Socket, seq: u32) -> Result<()> {
    loop {
        let message = daemon.read()?;
        if !message.is_text() {
            continue;
        }
        let frame: Value = serde_json::from_str(message.to_text()?)?;
        if frame["type"] == "e2ee" {
            ensure!(frame["seq"] == seq, "{} instead of {seq}", frame["seq"]);
            return Ok(());
        }
    }
}

/// The client's next frames reach the daemon, each once and in order.
fn talk(client: &mut Socket, daemon: &mut Socket, numbers: std::ops::Range<u32>) -> Result<()> {
    for seq in numbers {
        client.send(Message::text(frame(seq)))?;
        take(daemon, seq)?;
    }
    Ok(())
}

/// A refused upgrade's status and when to come back.
fn refusal(opened: Result<Socket, Error>) -> Result<(u16, Option<String>)> {
    match opened {
        Err(Error::Http(response)) => {
            let after = response.headers().get("retry-after");
            let after = after.map(|value| value.to_str().map(str::to_owned)).transpose()?;
            Ok((response.status().as_u16(), after))
        }
        Err(error) => Err(error.into()),
        Ok(_) => bail!("it was admitted"),
    }
}

#[test]
fn a_killed_control_plane_costs_open_connections_nothing() -> Result<()> {
    // A time-out that nobody takes for an answer at once.
    let patient = [("RELAY_ADMISSION_TIMEOUT_MS", "60000"), ("RELAY_ADMISSION_WAIT_MS", "60000")];
    let mut stage = Stage::set(&patient)?;
    let mut relay = stage.data_plane(&patient)?;
    let mut daemon = stage.daemon(&relay)?;
    let mut client = stage.client(&relay, "cl1")?;
    talk(&mut client, &mut daemon, 1..20)?;

    stage.control.kill()?;
    relay.wait_for("control_plane_lost")?;
    talk(&mut client, &mut daemon, 20..120)?;
    ensure!(get(relay.port(), "/health", None)?.status == 200, "the shard answers itself");
    ensure!(get(relay.port(), "/ready", None)?.status == 503, "nobody new is admitted");
    let began = Instant::now();
    let (status, retry_after) = refusal(stage.client(&relay, "cl2"))?;
    ensure!((status, retry_after.is_some()) == (503, true), "{status} {retry_after:?}");
    ensure!(began.elapsed() < SOON, "refused at once, not after a time-out");

    let url = stage.platform.url();
    stage.control.start_again(&with_platform(&url, &patient))?;
    let back = Instant::now();
    let attached = stage.control.wait_for("data_plane_attached")?;
    ensure!(attached.contains(r#""connections":2"#), "{attached}");
    let newcomer = stage.client(&relay, "cl3")?;
    ensure!(back.elapsed() < SOON, "admitted {:?} after the return", back.elapsed());
    talk(&mut client, &mut daemon, 120..200)?;
    ensure!(admitted(&relay)? == 3, "the old connections and the new one are counted");
    ensure!(get(relay.port(), "/ready", None)?.status == 200, "ready again");
    drop(newcomer);
    Ok(())
}

/// Sends these frames without waiting for any, then takes them: each once and in order.
fn burst(client: &mut Socket, daemon: &mut Socket, numbers: std::ops::Range<u32>) -> Result<()> {
    for seq in numbers.clone() {
        client.send(Message::text(frame(seq)))?;
    }
    numbers.into_iter().try_for_each(|seq| take(daemon, seq))
}

#[test]
fn frames_on_their_way_when_the_control_plane_is_killed_and_when_it_returns_arrive() -> Result<()> {
    let rates = [
        ("RELAY_RUNTIME_RATE_PER_MINUTE", "1000000"),
        ("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", "1000000"),
    ];
    let mut stage = Stage::set(&rates)?;
    let mut relay = stage.data_plane(&rates)?;
    let mut daemon = stage.daemon(&relay)?;
    let mut client = stage.client(&relay, "cl1")?;
    let is_over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_over);
    let talking = std::thread::spawn(move || -> Result<u32> {
        let mut next = 1;
        while !seen.load(Ordering::Relaxed) {
            burst(&mut client, &mut daemon, next..next + 20)?;
            next += 20;
        }
        Ok(next - 1)
    });
    stage.control.kill()?;
    relay.wait_for("control_plane_lost")?;
    let url = stage.platform.url();
    stage.control.start_again(&with_platform(&url, &rates))?;
    let attached = stage.control.wait_for("data_plane_attached")?;
    ensure!(attached.contains(r#""connections":2"#), "{attached}");
    is_over.store(true, Ordering::Relaxed);
    let frames = talking.join().expect("it does not panic")?;
    ensure!(frames > 100, "it was talked all the time: {frames}");
    Ok(())
}

#[test]
fn seats_of_an_earlier_control_plane_are_given_back_to_the_next() -> Result<()> {
    let cap = [("RELAY_MAX_TOTAL_CONNECTIONS", "2")];
    let mut stage = Stage::set(&cap)?;
    let relay = stage.data_plane(&cap)?;
    let daemon = stage.daemon(&relay)?;
    let mut client = stage.client(&relay, "cl1")?;
    stage.control.kill()?;
    let url = stage.platform.url();
    stage.control.start_again(&with_platform(&url, &cap))?;
    stage.control.wait_for("data_plane_attached")?;
    let (status, _) = refusal(stage.client(&relay, "cl2"))?;
    ensure!(status == 503, "the relay is full: {status}");
    client.close(None)?;
    while client.read().is_ok() {}
    stage.control.wait_for("client_disconnected")?;
    stage.client(&relay, "cl2").context("there is a seat again")?;
    drop(daemon);
    Ok(())
}

/// The close frame that ends the connection.
fn ended(socket: &mut Socket) -> Result<(u16, String)> {
    loop {
        if let Message::Close(Some(frame)) = socket.read()? {
            return Ok((frame.code.into(), frame.reason.to_string()));
        }
    }
}

#[test]
fn a_key_withdrawn_while_there_is_no_control_plane_ends_its_connections_when_one_is_back()
-> Result<()> {
    let platform = Platform::start()?;
    let successor = Platform::start()?;
    let keys_of = |platform: &Platform| format!("{}{JWKS_PATH}", platform.url());
    let (before, after) = (keys_of(&platform), keys_of(&successor));
    let checked = [("RELAY_ADMISSION", "jwks"), ("RELAY_JWKS_WITHDRAWN", "close")];
    let with_keys = |url| [&checked[..], &[("RELAY_JWKS_URL", url)]].concat();
    let url = platform.url();
    let control = ControlPlane::start(&with_platform(&url, &with_keys(before.as_str())))?;
    let mut stage = Stage { platform, control };
    let relay = stage.data_plane(&[])?;
    let mut client = stage.client(&relay, "cl1")?;

    stage.control.kill()?;
    stage.control.start_again(&with_platform(&url, &with_keys(before.as_str())))?;
    stage.control.wait_for("data_plane_attached")?;
    // Nothing has changed: it is served, and what follows is not the restart's doing.
    client.send(Message::Ping(Vec::new().into()))?;
    while !matches!(client.read()?, Message::Pong(_)) {}

    stage.control.kill()?;
    stage.control.start_again(&with_platform(&url, &with_keys(after.as_str())))?;
    let back = Instant::now();
    let ended = ended(&mut client)?;
    ensure!(ended == (4008, "signing key withdrawn".to_owned()), "{ended:?}");
    ensure!(back.elapsed() < SOON, "ended {:?} after the return", back.elapsed());
    let (status, _) = refusal(stage.client(&relay, "cl1"))?;
    ensure!(status == 401, "{status}");
    Ok(())
}

#[test]
fn a_revoked_token_stays_out_of_the_next_control_plane() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("revocations").display().to_string();
    let api = format!("unix:{}", folder.path().join("api.sock").display());
    let variables = [("RELAY_REVOCATIONS_FILE", &*file), ("RELAY_CONTROL_API_LISTEN", &*api)];
    let mut stage = Stage::set(&variables)?;
    let relay = stage.data_plane(&[])?;
    let client = stage.client(&relay, "cl1")?;
    let revoke = ["ctl", "--address", &api, "revoke", "--workspace", WORKSPACE];
    let output = run(&revoke, &[])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stage.control.kill()?;
    drop(client);
    let url = stage.platform.url();
    stage.control.start_again(&with_platform(&url, &variables))?;
    stage.control.wait_for("data_plane_attached")?;
    let (status, _) = refusal(stage.client(&relay, "cl1"))?;
    ensure!(status == 401, "{status}");
    Ok(())
}

#[test]
fn a_killed_data_plane_is_gone_from_state_and_leaves_its_seats() -> Result<()> {
    let cap = [("RELAY_MAX_TOTAL_CONNECTIONS", "3")];
    let mut stage = Stage::set(&cap)?;
    let mut first = stage.data_plane(&cap)?;
    let second = stage.data_plane(&cap)?;
    let on_first = (stage.daemon(&first)?, stage.client(&first, "cl1")?);
    let _on_second = stage.daemon(&second)?;
    let workspaces = |relay| -> Result<usize> {
        Ok(asked(relay, "/state")?["workspaces"].as_array().map_or(0, Vec::len))
    };
    ensure!(workspaces(&second)? == 2, "one scope on each data plane");
    let (status, _) = refusal(stage.client(&second, "cl2"))?;
    ensure!(status == 503, "caps count over all data planes: {status}");

    let opened = counted(&second, "relay_ws_connections_opened_total")?;
    first.kill()?;
    let killed = Instant::now();
    ensure!(workspaces(&second)? == 1, "what is known is told while it is not clear what happened");
    let detached = stage.control.wait_for("data_plane_detached")?;
    ensure!(workspaces(&second)? == 1, "its scopes are gone");
    ensure!(killed.elapsed() < SOON, "gone after {:?}", killed.elapsed());
    ensure!(detached.contains(r#""connections":2"#), "{detached}");
    ensure!(admitted(&second)? == 1, "its seats are free");
    let since = counted(&second, "relay_ws_connections_opened_total")?;
    ensure!(opened == 3 && since >= opened, "a counter fell from {opened} to {since}");
    stage.client(&second, "cl2").context("there is a seat again")?;
    drop(on_first);
    Ok(())
}

#[test]
fn a_data_plane_that_is_told_to_end_says_goodbye() -> Result<()> {
    let mut stage = Stage::set(&[])?;
    let relay = stage.data_plane(&[("RELAY_DRAIN_MS", "500")])?;
    let mut daemon = stage.daemon(&relay)?;
    let status = relay.stop()?;
    ensure!(status.success(), "{status}");
    let detached = stage.control.wait_for("data_plane_detached")?;
    ensure!(detached.contains(r#""said":true"#), "{detached}");
    while daemon.read().is_ok() {}
    Ok(())
}

#[test]
fn a_data_plane_without_the_token_is_turned_away_and_both_logs_say_so() -> Result<()> {
    let mut stage = Stage::set(&[("RELAY_CONTROL_TOKEN", "the-token-of-both-planes")])?;
    let url = stage.platform.url();
    let wrong = [("RELAY_CONTROL_TOKEN", "another-token-altogether")];
    let mut relay = Relay::serve_apart(&stage.control, &with_platform(&url, &wrong))?;
    let line = relay.wait_for("control_plane_unreachable")?;
    ensure!(line.contains("RELAY_CONTROL_TOKEN") && !line.contains("another-token"), "{line}");
    stage.control.wait_for("data_plane_refused")?;
    let (status, _) = refusal(stage.client(&relay, "cl1"))?;
    ensure!(status == 503, "{status}");
    stage.data_plane(&[("RELAY_CONTROL_TOKEN", "the-token-of-both-planes")])?;
    Ok(())
}

#[test]
fn the_control_plane_s_socket_is_its_user_s_alone() -> Result<()> {
    let stage = Stage::set(&[])?;
    let url = stage.control.url();
    let path = url.strip_prefix("unix:").context("it is a file")?;
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    Ok(())
}

/// Certificates of one authority, for both planes.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Result<Self> {
        let made = Self { folder: tempfile::tempdir()? };
        made.replace()?;
        Ok(made)
    }

    /// Others, of another authority, in the same files.
    fn replace(&self) -> Result<()> {
        let keep = |name: &str, text: String| std::fs::write(self.folder.path().join(name), text);
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        keep("ca.pem", authority.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(authority, key);
        for name in ["control", "data"] {
            let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
            leaf.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate()?;
            keep(&format!("{name}.pem"), leaf.signed_by(&key, &issuer)?.pem())?;
            keep(&format!("{name}.key"), key.serialize_pem())?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[test]
fn over_tcp_each_plane_shows_the_other_its_certificate() -> Result<()> {
    let certificates = Certificates::make()?;
    let port = free_port()?;
    let listen = format!("127.0.0.1:{port}");
    let [ca, certificate, key] =
        ["ca.pem", "control.pem", "control.key"].map(|n| certificates.path(n));
    let mut stage = Stage::set(&[
        ("RELAY_CONTROL_LISTEN", &listen),
        ("RELAY_CONTROL_CA_PATH", &ca),
        ("RELAY_CONTROL_CERT_PATH", &certificate),
        ("RELAY_CONTROL_KEY_PATH", &key),
    ])?;
    let url = format!("https://localhost:{port}");
    let there = [("RELAY_CONTROL_URL", url.as_str()), ("RELAY_CONTROL_CA_PATH", ca.as_str())];
    // Without a certificate of its own nobody is heard.
    let platform = stage.platform.url();
    let mut stranger = Relay::serve_apart(&stage.control, &with_platform(&platform, &there))?;
    stranger.wait_for("control_plane_unreachable")?;

    let [certificate, key] = ["data.pem", "data.key"].map(|name| certificates.path(name));
    let own = [("RELAY_CONTROL_CERT_PATH", &*certificate), ("RELAY_CONTROL_KEY_PATH", &*key)];
    let relay = stage.data_plane(&[&there[..], &own[..]].concat())?;
    let mut daemon = stage.daemon(&relay)?;
    let mut client = stage.client(&relay, "cl1")?;
    talk(&mut client, &mut daemon, 1..20)?;
    let (status, _) = refusal(stage.client(&stranger, "cl2"))?;
    ensure!(status == 503, "{status}");
    Ok(())
}

#[test]
fn certificates_are_replaced_while_the_data_plane_runs() -> Result<()> {
    let certificates = Certificates::make()?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let url = format!("https://localhost:{}", listen.rsplit(':').next().context("a port")?);
    let [ca, control, control_key, data, data_key] =
        ["ca.pem", "control.pem", "control.key", "data.pem", "data.key"]
            .map(|name| certificates.path(name));
    let here = [
        ("RELAY_CONTROL_LISTEN", &*listen),
        ("RELAY_CONTROL_CA_PATH", &*ca),
        ("RELAY_CONTROL_CERT_PATH", &*control),
        ("RELAY_CONTROL_KEY_PATH", &*control_key),
    ];
    let mut stage = Stage::set(&here)?;
    let mut relay = stage.data_plane(&[
        ("RELAY_CONTROL_URL", &url),
        ("RELAY_CONTROL_CA_PATH", &ca),
        ("RELAY_CONTROL_CERT_PATH", &data),
        ("RELAY_CONTROL_KEY_PATH", &data_key),
    ])?;
    let mut daemon = stage.daemon(&relay)?;
    let mut client = stage.client(&relay, "cl1")?;
    talk(&mut client, &mut daemon, 1..20)?;
    certificates.replace()?;
    // Nobody of the old authority is believed any more, by either side.
    stage.control.kill()?;
    relay.wait_for("control_plane_lost")?;
    let platform = stage.platform.url();
    stage.control.start_again(&with_platform(&platform, &here))?;
    let attached = stage.control.wait_for("data_plane_attached")?;
    ensure!(attached.contains(r#""connections":2"#), "{attached}");
    talk(&mut client, &mut daemon, 20..40)?;
    Ok(())
}

#[test]
fn the_token_before_is_good_while_it_is_rotated() -> Result<()> {
    let (old, new) = ("the-token-of-both-planes-so-far", "the-token-of-both-planes-from-now-on");
    let both = [("RELAY_CONTROL_TOKEN", new), ("RELAY_CONTROL_TOKEN_PREVIOUS", old)];
    let mut stage = Stage::set(&both)?;
    for token in [old, new] {
        stage.data_plane(&[("RELAY_CONTROL_TOKEN", token)])?;
    }
    Ok(())
}

#[test]
fn a_drain_outlives_the_control_plane_that_ordered_it_and_the_next_takes_it_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let address = format!("unix:{}", folder.path().join("control.sock").display());
    let api = [("RELAY_CONTROL_API_LISTEN", &*address)];
    let ctl = |call: &str| -> Result<()> {
        let output = run(&["ctl", "--address", &address, call], &[])?;
        ensure!(output.status.success(), "{call}: {output:?}");
        Ok(())
    };
    let mut stage = Stage::set(&api)?;
    let mut relay = stage.data_plane(&[])?;
    ctl("drain")?;
    stage.control.wait_for("relay_draining")?;
    // Whoever is refused is refused behind the order, on one link: by then the data plane has it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while stage.client(&relay, "cl0").is_ok() {
        ensure!(Instant::now() < deadline, "the order never comes");
    }
    stage.control.kill()?;
    relay.wait_for("control_plane_lost")?;
    let platform = stage.platform.url();
    stage.control.start_again(&with_platform(&platform, &api))?;
    stage.control.wait_for("data_plane_attached")?;
    ensure!(get(relay.port(), "/ready", None)?.status == 503, "it is drained as it was");
    let (status, _) = refusal(stage.client(&relay, "cl1"))?;
    ensure!(status == 503, "{status}");
    ctl("resume")?;
    ensure!(get(relay.port(), "/ready", None)?.status == 200, "and not any more");
    stage.client(&relay, "cl1").context("it admits again")?;
    Ok(())
}
