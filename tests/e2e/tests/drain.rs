//! The end of a relay that has peers: evenly, in time, whatever they do.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use relay_e2e::{Platform, Relay, get};
use relay_platform::{JWKS_PATH, TokenClaims};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the end may take where nobody is waited for: far less than a minute.
const AT_ONCE: Duration = Duration::from_secs(20);

const WORKSPACES: usize = 50;
/// A daemon and its clients.
const PER_WORKSPACE: usize = 100;

/// A relay that lets a crowd from one address in, and checks its tokens by itself.
fn relay(platform: &Platform, drain_ms: &str) -> Result<Relay> {
    let url = platform.url();
    let keys = format!("{url}{JWKS_PATH}");
    Relay::serve(&[
        ("SERVER_URL", &url),
        ("RELAY_JWKS_URL", &keys),
        ("RELAY_ADMISSION", "jwks"),
        ("RELAY_DRAIN_MS", drain_ms),
        ("RELAY_SHARDS", "2"),
        ("RELAY_UPGRADE_RATE_PER_MINUTE", "1000000"),
        ("RELAY_MAX_TOTAL_CONNECTIONS", "1000000"),
        ("RELAY_MAX_CONNECTIONS_PER_IP", "1000000"),
        ("RELAY_MAX_CLIENTS_PER_WORKSPACE", "1000000"),
        ("RELAY_UNROUTED_FRAME_RATE_PER_MINUTE", "1000000"),
        ("RELAY_MAX_PENDING_BYTES", "67108864"),
        ("RELAY_ADMISSION_TIMEOUT_MS", "60000"),
        ("RELAY_PING_INTERVAL_MS", "600000"),
        ("RELAY_IDLE_TIMEOUT_MS", "1800000"),
    ])
}

/// Opens a WebSocket.
fn open(port: u16, role: &str, workspace: &str, token: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "GET /ws?role={role}&workspaceId={workspace}&runtimeTargetId=rt1 HTTP/1.1\r\n\
         Host: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte)? == 1, "closed: {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// A workspace's daemon and its clients.
fn workspace(platform: &Platform, port: u16, name: &str, peers: usize) -> Result<Vec<TcpStream>> {
    let daemon = platform.token(TokenClaims::daemon(name, "rt1"))?;
    let client = platform.token(TokenClaims::client(name, "rt1", "cl1"))?;
    let mut streams = vec![open(port, "workspace-daemon", name, daemon.expose())?];
    for _ in 1..peers {
        streams.push(open(port, "client", name, client.expose())?);
    }
    Ok(streams)
}

/// The close frame of the relay's end: 1001 and its reason.
fn farewell() -> Vec<u8> {
    let reason = b"relay shutting down";
    let mut frame = vec![0x88, 2 + reason.len() as u8];
    frame.extend_from_slice(&1001_u16.to_be_bytes());
    frame.extend_from_slice(reason);
    frame
}

/// Takes what is said to each, until all were told to go; each answers and leaves. When each was
/// told.
fn leave_when_told(mut streams: Vec<TcpStream>) -> Result<Vec<Instant>> {
    let farewell = farewell();
    let mut told = Vec::new();
    for stream in &streams {
        stream.set_nonblocking(true)?;
    }
    let mut heard = vec![Vec::new(); streams.len()];
    while !streams.is_empty() {
        let mut waits: Vec<_> =
            streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        ensure!(poll(&mut waits, Some(&patience))? > 0, "{} were not told", streams.len());
        let now = Instant::now();
        let ready: Vec<_> = waits.iter().map(|wait| !wait.revents().is_empty()).collect();
        for index in (0..ready.len()).rev().filter(|&index| ready[index]) {
            let mut bytes = [0; 256];
            match streams[index].read(&mut bytes) {
                Ok(len) => heard[index].extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => bail!("cut instead of told: {error}"),
            }
            if heard[index].len() >= farewell.len() {
                ensure!(heard[index] == farewell, "{:?}", String::from_utf8_lossy(&heard[index]));
                told.push(now);
                // A close frame of 1001, masked with zeros.
                streams[index].write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9])?;
                streams.swap_remove(index);
                heard.swap_remove(index);
            }
        }
    }
    Ok(told)
}

/// How many of the moments, in order, are in each eighth of the time from the first to the last.
fn eighths(moments: &[Instant]) -> Option<[usize; 8]> {
    let (first, last) = (*moments.first()?, *moments.last()?);
    let span = (last - first).as_secs_f64();
    let mut counts = [0; 8];
    for moment in moments {
        let part = (*moment - first).as_secs_f64() / span * 8.0;
        counts[(part as usize).min(7)] += 1;
    }
    Some(counts)
}

/// How much sooner than its turn a peer may be told: turns are drawn by lot.
const EARLY_MAX: Duration = Duration::from_millis(600);

#[test]
fn five_thousand_peers_are_told_evenly_and_the_relay_ends_in_time() -> Result<()> {
    let platform = Platform::start()?;
    let mut relay = relay(&platform, "10000")?;
    let port = relay.port();
    let names: Vec<_> = (0..WORKSPACES).map(|number| format!("ws{number}")).collect();
    let open_all = |names: &[String]| -> Result<Vec<_>> {
        let opened = names.iter().map(|name| workspace(&platform, port, name, PER_WORKSPACE));
        Ok(opened.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    let crowd: Result<Vec<Vec<_>>> = std::thread::scope(|scope| {
        let parts: Vec<_> = names.chunks(WORKSPACES / 5).collect();
        let threads: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(|| open_all(part))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no test panics here")).collect()
    });
    let mut crowd: Vec<_> = crowd?.into_iter().flatten().collect();
    assert_eq!(crowd.len(), WORKSPACES * PER_WORKSPACE);
    // One of a hundred neither reads nor answers.
    let mut silent = Vec::new();
    for index in (0..crowd.len()).rev().step_by(100) {
        silent.push(crowd.swap_remove(index));
    }
    let began = Instant::now();
    relay.signal(Signal::TERM)?;
    let (told, probes) = std::thread::scope(|scope| {
        let told = scope.spawn(|| leave_when_told(crowd));
        // Before that the signal may not have been seen.
        relay.wait_for("relay_draining").expect("it says so");
        let probes = [get(port, "/ready", None), get(port, "/health", None)];
        (told.join().expect("no test panics here"), probes)
    });
    let [ready, health] = probes;
    assert_eq!((ready?.status, health?.status), (503, 200));
    let mut told = told?;
    let status = relay.ended()?;
    let took = began.elapsed();
    assert!(status.success());
    told.sort_unstable();
    let eighths = eighths(&told).context("some")?;
    println!("told, an eighth of the time each: {eighths:?}; ended after {took:?}");
    // A machine that stands still makes everybody late and nobody early. How evenly turns are drawn
    // is shown where time is simulated.
    for (turn, moment) in (0..).zip(&told) {
        let after = *moment - began;
        let due = Duration::from_millis(turn);
        assert!(after + EARLY_MAX > due, "{turn} were told within {after:?}");
    }
    assert!(eighths.iter().all(|&count| count < told.len() * 3 / 4), "{eighths:?}");
    assert!(took < PATIENCE, "in time: {took:?}");
    Ok(())
}

#[test]
fn three_peers_that_answer_end_it_at_once() -> Result<()> {
    let platform = Platform::start()?;
    let relay = relay(&platform, "60000")?;
    let peers = workspace(&platform, relay.port(), "ws1", 3)?;
    let began = Instant::now();
    relay.signal(Signal::TERM)?;
    assert_eq!(leave_when_told(peers)?.len(), 3);
    assert!(relay.ended()?.success());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn peers_whose_queues_are_full_do_not_keep_it() -> Result<()> {
    let platform = Platform::start()?;
    let relay = relay(&platform, "1500")?;
    let mut peers = workspace(&platform, relay.port(), "ws1", 3)?;
    // Each frame is answered with a longer one, and nobody reads these: more than sockets hold.
    let frames = [0x81, 0x82, 0, 0, 0, 0, b'{', b'}'].repeat(100_000);
    for peer in &mut peers[1..] {
        peer.set_write_timeout(Some(PATIENCE))?;
        peer.write_all(&frames)?;
    }
    let began = Instant::now();
    assert!(relay.stop()?.success());
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1400), "their queues were not full: {took:?}");
    assert!(took < AT_ONCE, "{took:?}");
    Ok(())
}

#[test]
fn a_second_signal_hurries() -> Result<()> {
    let platform = Platform::start()?;
    let mut relay = relay(&platform, "60000")?;
    let _silent = workspace(&platform, relay.port(), "ws1", 20)?;
    relay.signal(Signal::TERM)?;
    relay.wait_for("relay_draining")?;
    let began = Instant::now();
    relay.signal(Signal::TERM)?;
    assert!(relay.ended()?.success());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    Ok(())
}
