//! A flood of forged tokens costs the platform nothing, and whoever has a good one nothing either.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use relay_e2e::{Relay, connect_from};
use relay_platform::{Issuer, JWKS_PATH, SigningKey, TokenClaims};

/// Upgrades of one flood.
const FLOOD: usize = 4000;
/// Who make them at the same time.
const THREADS: usize = 8;

/// A platform that publishes its key, accepts every token it is asked about, and counts.
struct Platform {
    issuer: Issuer,
    url: String,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    validations: AtomicUsize,
    fetches: AtomicUsize,
}

impl Platform {
    fn start() -> Result<Self> {
        let issuer = Issuer::new(SigningKey::generate()?);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let counts = Arc::<Counts>::default();
        let (keys, counted) = (issuer.key_set().to_string(), Arc::clone(&counts));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (keys, counted) = (keys.clone(), Arc::clone(&counted));
                // A connection that fails is the relay's to open again.
                thread::spawn(move || drop(serve(&socket, &keys, &counted)));
            }
        });
        Ok(Self { issuer, url, counts })
    }

    fn token(&self, client: &str) -> Result<String> {
        let claims = TokenClaims::client("ws1", "rt1", client);
        let token = self.issuer.issue(claims, SystemTime::now(), Duration::from_secs(600))?;
        Ok(token.expose().to_owned())
    }

    fn relay(&self, more: &[(&str, &str)]) -> Result<Relay> {
        let key_set = format!("{}{JWKS_PATH}", self.url);
        let mut variables = vec![
            ("SERVER_URL", self.url.as_str()),
            ("RELAY_JWKS_URL", key_set.as_str()),
            ("RELAY_UPGRADE_RATE_PER_MINUTE", "1000000"),
        ];
        variables.extend_from_slice(more);
        Relay::serve(&variables)
    }

    fn validations(&self) -> usize {
        self.counts.validations.load(Ordering::Relaxed)
    }
}

fn serve(socket: &TcpStream, keys: &str, counts: &Counts) -> Result<()> {
    let mut reader = BufReader::new(socket);
    let mut writer = socket;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let asks_for_keys = line.contains(JWKS_PATH);
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        let counter = if asks_for_keys { &counts.fetches } else { &counts.validations };
        counter.fetch_add(1, Ordering::Relaxed);
        let accepted = r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#;
        let body = if asks_for_keys { keys } else { accepted };
        let length = body.len();
        write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")?;
    }
}

/// The status of one upgrade.
fn upgrade(port: u16, source: usize, token: &str) -> Result<u16> {
    let source = [127, 0, 1, u8::try_from(source)? + 1];
    let mut socket = connect_from(source.into(), port)?;
    write!(
        socket,
        "GET /ws?role=client&workspaceId=ws1&runtimeTargetId=rt1 HTTP/1.1\r\nHost: relay\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
    )?;
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line)?;
    line.get(9..12).context("a status line")?.parse().context("a status")
}

/// Upgrades with these tokens, each as often as it takes; how often each status came.
fn flood(port: u16, tokens: &[String]) -> Result<BTreeMap<u16, usize>> {
    let flooders = (0..THREADS).map(|thread| {
        let tokens = tokens.to_vec();
        thread::spawn(move || -> Result<BTreeMap<u16, usize>> {
            let mut statuses = BTreeMap::new();
            for number in 0..FLOOD / THREADS {
                let token = &tokens[number % tokens.len()];
                *statuses.entry(upgrade(port, thread, token)?).or_default() += 1;
            }
            Ok(statuses)
        })
    });
    let mut statuses = BTreeMap::new();
    for flooder in flooders.collect::<Vec<_>>() {
        let counted = flooder.join().map_err(|_| anyhow::anyhow!("a flooder panicked"))??;
        for (status, count) in counted {
            *statuses.entry(status).or_default() += count;
        }
    }
    Ok(statuses)
}

/// Waits until the relay has the keys: it admits by them then.
fn admitted(platform: &Platform, port: u16) -> Result<()> {
    ensure!(upgrade(port, THREADS, &platform.token("good")?)? == 101, "a good token is refused");
    Ok(())
}

#[test]
fn the_platform_sees_nothing_of_forged_signatures() -> Result<()> {
    let platform = Platform::start()?;
    let relay = platform.relay(&[])?;
    admitted(&platform, relay.port())?;
    let before = platform.validations();
    let forged = (0..16).map(|number| {
        let mut token = platform.token(&format!("forger-{number}"))?;
        token.replace_range(token.len() - 8.., "AAAAAAAA");
        Ok(token)
    });
    let statuses = flood(relay.port(), &forged.collect::<Result<Vec<_>>>()?)?;
    assert_eq!(statuses, BTreeMap::from([(401, FLOOD)]));
    assert_eq!(platform.validations(), before);
    assert_eq!(platform.counts.fetches.load(Ordering::Relaxed), 1);
    admitted(&platform, relay.port())
}

#[test]
fn the_platform_sees_nothing_of_invented_keys_where_the_sets_are_complete() -> Result<()> {
    let platform = Platform::start()?;
    for more in [("RELAY_ADMISSION", "jwks"), ("RELAY_JWKS_UNKNOWN_KEY", "refuse")] {
        let relay = platform.relay(&[more])?;
        admitted(&platform, relay.port())?;
        let before = platform.validations();
        let fetches = platform.counts.fetches.load(Ordering::Relaxed);
        let strangers = (0..64).map(|number| {
            let issuer = Issuer::new(SigningKey::generate()?);
            let claims = TokenClaims::client("ws1", "rt1", &format!("stranger-{number}"));
            let token = issuer.issue(claims, SystemTime::now(), Duration::from_secs(600))?;
            Ok(token.expose().to_owned())
        });
        let statuses = flood(relay.port(), &strangers.collect::<Result<Vec<_>>>()?)?;
        assert_eq!(statuses, BTreeMap::from([(401, FLOOD)]));
        assert_eq!(platform.validations(), before, "{more:?}");
        let later = platform.counts.fetches.load(Ordering::Relaxed) - fetches;
        assert!(later <= 2, "{later} fetches");
        admitted(&platform, relay.port())?;
    }
    Ok(())
}
