//! Upgrades by the thousand at one moment: none is lost, no limit is passed, nobody without a token
//! leaves a trace.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use relay_e2e::{Platform, Relay, get};
use relay_platform::TokenClaims;
use rustix::process::Signal;

/// Connections of one thread; they connect, and ask, all at once.
const PER_THREAD: usize = 64;

/// A SYN that was dropped is sent again after a second. Source: RFC 6298 §2.
const SYN_RETRIED: Duration = Duration::from_millis(900);

/// How long an answer may take: a thousand validations on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay whose limits let a burst of one address through, but for those that a test sets.
fn relay(platform: &Platform, shards: &str, limits: &[(&str, &str)]) -> Result<Relay> {
    let url = platform.url();
    let mut variables = vec![
        ("SERVER_URL", url.as_str()),
        ("RELAY_SHARDS", shards),
        ("RELAY_UPGRADE_RATE_PER_MINUTE", "1000000"),
        ("RELAY_MAX_CONNECTIONS_PER_IP", "1000000"),
        ("RELAY_MAX_CLIENTS_PER_WORKSPACE", "1000000"),
        ("RELAY_ADMISSION_TIMEOUT_MS", "60000"),
    ];
    variables.extend_from_slice(limits);
    Relay::serve(&variables)
}

fn upgrade(workspace: &str, token: &str) -> String {
    format!(
        "GET /ws?role=client&workspaceId={workspace}&runtimeTargetId=rt1 HTTP/1.1\r\n\
         Host: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// The status that answers an upgrade.
fn status(stream: &mut TcpStream) -> Result<u16> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte)? == 1, "closed after {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head)?;
    Ok(head.get(9..12).context("a status line")?.parse()?)
}

/// Sends all requests at once over as many connections; how often each status came. All
/// connections stay open until the last answer is there.
fn burst(port: u16, requests: &[String]) -> Result<BTreeMap<u16, usize>> {
    let threads = requests.chunks(PER_THREAD);
    let barrier = Barrier::new(threads.len());
    let ask = |requests: &[String]| -> Result<Vec<(TcpStream, u16)>> {
        barrier.wait();
        let connected: Result<Vec<_>, _> =
            requests.iter().map(|_| TcpStream::connect(("127.0.0.1", port))).collect();
        barrier.wait();
        let mut streams = connected?;
        for (stream, request) in streams.iter_mut().zip(requests) {
            stream.write_all(request.as_bytes())?;
        }
        streams
            .into_iter()
            .map(|mut stream| {
                let status = status(&mut stream)?;
                Ok((stream, status))
            })
            .collect()
    };
    let answers: Result<Vec<_>> = std::thread::scope(|scope| {
        let threads: Vec<_> = threads.map(|chunk| scope.spawn(|| ask(chunk))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("no test panics here"));
        joined.collect()
    });
    let mut counts = BTreeMap::new();
    for (_stream, status) in answers?.iter().flatten() {
        *counts.entry(*status).or_default() += 1;
    }
    Ok(counts)
}

/// Upgrades of that many clients, each in a workspace of its own where `apart`.
fn upgrades(platform: &Platform, count: usize, apart: bool) -> Result<Vec<String>> {
    (0..count)
        .map(|index| {
            let workspace = if apart { format!("ws{index}") } else { "ws1".to_owned() };
            let claims = TokenClaims::client(&workspace, "rt1", &format!("cl{index}"));
            Ok(upgrade(&workspace, platform.token(claims)?.expose()))
        })
        .collect()
}

fn none_is_lost(shards: &str) -> Result<()> {
    let platform = Platform::start()?;
    let relay = relay(&platform, shards, &[])?;
    let answers = burst(relay.port(), &upgrades(&platform, 1024, true)?)?;
    assert_eq!(answers, BTreeMap::from([(101, 1024)]));
    Ok(())
}

#[test]
fn a_burst_of_1024_upgrades_loses_none_on_one_shard() -> Result<()> {
    none_is_lost("1")
}

#[test]
fn a_burst_of_1024_upgrades_loses_none_on_two_shards() -> Result<()> {
    none_is_lost("2")
}

/// All of them connect while nobody accepts: the kernel keeps them, and no SYN is dropped.
#[test]
fn a_burst_while_the_relay_stands_still_waits_in_the_backlog() -> Result<()> {
    let platform = Platform::start()?;
    let relay = relay(&platform, "1", &[])?;
    let requests = upgrades(&platform, 1024, true)?;
    let address = SocketAddr::from(([127, 0, 0, 1], relay.port()));
    relay.signal(Signal::STOP)?;
    let connected: Result<Vec<_>, _> =
        requests.iter().map(|_| TcpStream::connect_timeout(&address, SYN_RETRIED)).collect();
    relay.signal(Signal::CONT)?;
    let mut streams = connected.context("a SYN was dropped")?;
    for (stream, request) in streams.iter_mut().zip(&requests) {
        stream.write_all(request.as_bytes())?;
    }
    for stream in &mut streams {
        assert_eq!(status(stream)?, 101);
    }
    Ok(())
}

#[test]
fn limits_raced_by_bursts_hold_exactly() -> Result<()> {
    let platform = Platform::start()?;
    for (limit, refusal) in [
        ("RELAY_MAX_TOTAL_CONNECTIONS", 503),
        ("RELAY_MAX_CONNECTIONS_PER_IP", 429),
        ("RELAY_MAX_CLIENTS_PER_WORKSPACE", 429),
        ("RELAY_UPGRADE_RATE_PER_MINUTE", 429),
    ] {
        let relay = relay(&platform, "2", &[(limit, "40")])?;
        let answers = burst(relay.port(), &upgrades(&platform, 256, false)?)?;
        assert_eq!(answers, BTreeMap::from([(101, 40), (refusal, 216)]), "{limit}");
    }
    Ok(())
}

#[test]
fn unauthenticated_scope_creation_is_impossible() -> Result<()> {
    let platform = Platform::start()?;
    let relay = relay(&platform, "2", &[])?;
    let guesses: Vec<_> =
        (0..256).map(|index| upgrade(&format!("ws{index}"), "a-token-nobody-signed")).collect();
    assert_eq!(burst(relay.port(), &guesses)?, BTreeMap::from([(401, 256)]));
    let bearer = Some(Relay::ADMIN_TOKEN);
    let state = get(relay.port(), "/state", bearer)?.body;
    assert!(state.contains(r#""workspaces":[]"#), "{state}");
    let metrics = get(relay.port(), "/metrics", bearer)?.body;
    assert!(metrics.contains("\nrelay_workspaces_total 0\n"), "{metrics}");
    Ok(())
}
