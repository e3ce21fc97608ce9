//! Signing keys rotate while everybody connects, and the key server fails meanwhile: nobody who has
//! a good token is refused, and the platform is not asked.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use relay_e2e::{KeyServer, Relay, upgrade_from};
use relay_platform::{Issuer, SigningKey, TokenClaims};
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Peer = WebSocket<MaybeTlsStream<TcpStream>>;

/// Who connect at the same time beside the test itself, each from an address of its own.
const CALLERS: u8 = 4;
/// Upgrades under each key, at least.
const UPGRADES: usize = 200;
/// How long that and a few fetches may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The issuer whose turn it is, and everybody who connects with its tokens.
struct Load {
    issuer: RwLock<Arc<Issuer>>,
    admitted: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn token(&self, client: &str) -> Result<String> {
        let issuer = Arc::clone(&self.issuer.read().expect("nobody panics with it"));
        let claims = TokenClaims::client("ws1", "rt1", client);
        let token = issuer.issue(claims, SystemTime::now(), Duration::from_secs(600))?;
        Ok(token.expose().to_owned())
    }

    /// Connects with fresh tokens until the load is over.
    fn call(&self, number: u8, port: u16) -> Result<()> {
        while !self.is_over.load(Ordering::Relaxed) {
            self.call_once(number, port)?;
        }
        Ok(())
    }

    fn call_once(&self, number: u8, port: u16) -> Result<()> {
        let token = self.token(&format!("caller-{number}"))?;
        let status = upgrade_from([127, 0, 2, number + 1].into(), port, &token)?;
        ensure!(status == 101, "caller {number} is answered {status}");
        self.admitted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Connects too, until as many as it takes were admitted from now on, and the relay has looked
    /// for keys so often.
    fn go_on(&self, port: u16, server: &KeyServer, fetches: usize) -> Result<()> {
        let began = Instant::now();
        let admitted = self.admitted.load(Ordering::Relaxed) + UPGRADES;
        let fetches = server.fetches() + fetches;
        while self.admitted.load(Ordering::Relaxed) < admitted || server.fetches() < fetches {
            ensure!(began.elapsed() < PATIENCE, "too few are admitted, or keys are not fetched");
            self.call_once(CALLERS, port)?;
        }
        Ok(())
    }
}

#[test]
fn keys_rotate_under_load_and_nobody_is_refused() -> Result<()> {
    let issuers = (0..3).map(|_| Ok(Arc::new(Issuer::new(SigningKey::generate()?))));
    let issuers = issuers.collect::<Result<Vec<_>>>()?;
    let server = KeyServer::start(&[&issuers[0]])?;
    let relay = serve(&server)?;
    let load = Arc::new(Load {
        issuer: RwLock::new(Arc::clone(&issuers[0])),
        admitted: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    });
    let port = relay.port();
    let callers = (0..CALLERS).map(|number| {
        let load = Arc::clone(&load);
        thread::spawn(move || load.call(number, port))
    });
    let callers: Vec<_> = callers.collect();
    let mut held = vec![hold(&relay, &load, 0)?];
    load.go_on(port, &server, 0)?;
    for (number, pair) in issuers.windows(2).enumerate() {
        let [before, now] = pair else { bail!("a window of two") };
        server.publish(&[before, now]);
        // The second fetch from now on began when the new key was there.
        load.go_on(port, &server, 2)?;
        *load.issuer.write().expect("nobody panics with it") = Arc::clone(now);
        held.push(hold(&relay, &load, number + 1)?);
        load.go_on(port, &server, 0)?;
        server.fail();
        load.go_on(port, &server, 1)?;
    }
    load.is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().ok().context("a caller panicked")??;
    }
    // Keys of the last rotation and the one before are published; those before them are not.
    for (number, peer) in held.iter_mut().enumerate() {
        let is_withdrawn = number + 2 < issuers.len();
        ensure!(stays(peer)? != is_withdrawn, "the connection under key {number}");
    }
    println!("{} admitted, {} fetches", load.admitted.load(Ordering::Relaxed), server.fetches());
    assert_eq!(server.validations(), 0);
    Ok(())
}

fn serve(server: &KeyServer) -> Result<Relay> {
    Relay::serve(&[
        ("SERVER_URL", server.url()),
        ("RELAY_ADMISSION", "jwks"),
        ("RELAY_JWKS_URL", &server.key_set_url()),
        ("RELAY_JWKS_REFRESH_SECS", "1"),
        ("RELAY_JWKS_REFRESH_MIN_SECS", "1"),
        ("RELAY_JWKS_WITHDRAWN", "close"),
        ("RELAY_UPGRADE_RATE_PER_MINUTE", "1000000"),
    ])
}

/// A connection that stays open.
fn hold(relay: &Relay, load: &Load, number: usize) -> Result<Peer> {
    let query = "role=client&workspaceId=ws1&runtimeTargetId=rt1";
    let mut request = format!("{}?{query}", relay.url()).into_client_request()?;
    let bearer = format!("Bearer {}", load.token(&format!("held-{number}"))?).parse()?;
    request.headers_mut().insert("authorization", bearer);
    Ok(connect(request)?.0)
}

/// Whether the connection is still served; one that is not was told why.
fn stays(peer: &mut Peer) -> Result<bool> {
    // Whoever was told to go may find that its ping has nowhere to go.
    let _sent = peer.send(Message::Ping(Vec::new().into()));
    loop {
        match peer.read()? {
            Message::Pong(_) => return Ok(true),
            Message::Close(Some(frame)) => {
                let told = (u16::from(frame.code), frame.reason.as_str());
                ensure!(told == (4008, "signing key withdrawn"), "{told:?}");
                return Ok(false);
            }
            Message::Ping(_) | Message::Text(_) => {}
            other => bail!("received {other:?}"),
        }
    }
}
