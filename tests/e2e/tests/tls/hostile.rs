//! Peers that abuse TLS, while others talk.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use relay_e2e::connect_from;
use rustix::net::sockopt::set_socket_linger;

use crate::stage::{Pair, Stage, Tls, assert_healthy};

/// The first bytes of a ClientHello of 512.
const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Whether the relay ends it within a while.
fn ends(socket: &mut TcpStream) -> Result<bool> {
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut answer = [0; 4096];
    loop {
        match socket.read(&mut answer) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) => return Ok(error.kind() == ErrorKind::ConnectionReset),
        }
    }
}

/// A session on which a request was answered.
fn established(stage: &Stage) -> Result<Tls> {
    let mut stream = stage.connect()?;
    assert_healthy(&mut stream)?;
    Ok(stream)
}

/// What one peer does before it is gone.
type Abuse = fn(&Stage) -> Result<()>;

const ABUSES: [Abuse; 6] = [
    |stage| {
        let mut peer = TcpStream::connect((Ipv4Addr::LOCALHOST, stage.relay.port()))?;
        peer.write_all(&[0xa5; 3000])?;
        ensure!(ends(&mut peer)?, "what is no TLS ends");
        Ok(())
    },
    |stage| {
        let mut peer = TcpStream::connect((Ipv4Addr::LOCALHOST, stage.relay.port()))?;
        peer.write_all(HELLO)?;
        set_socket_linger(&peer, Some(Duration::ZERO))?;
        Ok(())
    },
    |stage| {
        let mut stream = established(stage)?;
        // A head that does not end, in a record for each byte.
        for byte in b"GET /health HTTP/1.1\r\nX: ".iter().chain(&[b'x'; 5000]) {
            stream.write_all(&[*byte])?;
        }
        Ok(())
    },
    |stage| {
        let mut stream = established(stage)?;
        for _ in 0..100 {
            stream.conn.refresh_traffic_keys()?;
        }
        // The relay may have ended it by the time that all is written.
        let _ended = stream.flush();
        ensure!(ends(&mut stream.sock)?, "a stranger needs no new keys");
        Ok(())
    },
    |stage| {
        let mut stream = established(stage)?;
        stream.sock.write_all(b"\x17\x03\x03\x00\x20nothing that any key has sealed!")?;
        ensure!(ends(&mut stream.sock)?, "a record that nobody sealed ends the session");
        Ok(())
    },
    |stage| {
        let mut stream = established(stage)?;
        stream.sock.write_all(HELLO)?;
        set_socket_linger(&stream.sock, Some(Duration::ZERO))?;
        Ok(())
    },
];

#[test]
fn a_conversation_goes_on_beside_every_abuse_of_tls() -> Result<()> {
    let mut stage = Stage::set(&[])?;
    let mut pair = Pair::of(&stage)?;
    for (seq, abuse) in (1..=3 * ABUSES.len()).zip(ABUSES.iter().cycle()) {
        abuse(&stage)?;
        pair.exchange(seq)?;
    }
    for (event, why) in [
        ("tls_handshake_failed", "handshake failed"),
        ("tls_record_refused", "without content before the upgrade"),
    ] {
        let line = stage.relay.wait_for(event)?;
        assert!(line.contains(why), "{line}");
    }
    assert!(stage.counted("relay_tls_handshake_failures_total ")? >= 3, "no TLS");
    assert!(stage.counted("relay_tls_records_refused_total ")? >= 6, "new keys, no record");
    Ok(())
}

#[test]
fn one_address_that_says_nothing_leaves_handshakes_for_others() -> Result<()> {
    let stage = Stage::set(&[("RELAY_TLS_HANDSHAKES_MAX", "100"), ("RELAY_SHARDS", "1")])?;
    let (silent, port) = (Ipv4Addr::new(127, 0, 0, 3), stage.relay.port());
    let silent: Vec<_> = (0..200).map(|_| connect_from(silent, port)).collect::<Result<_>>()?;
    assert_healthy(&mut stage.connect()?)?;
    assert_eq!(stage.counted("relay_tls_handshakes_refused_total ")?, 125);
    drop(silent);
    Ok(())
}

#[test]
fn a_hello_that_drips_is_cut_at_its_deadline() -> Result<()> {
    let stage = Stage::set(&[("RELAY_TLS_HANDSHAKE_TIMEOUT_MS", "700")])?;
    let start = Instant::now();
    let mut peer = TcpStream::connect((Ipv4Addr::LOCALHOST, stage.relay.port()))?;
    peer.write_all(HELLO)?;
    // What comes back is waited for between two bytes: that is the pause.
    peer.set_read_timeout(Some(Duration::from_millis(20)))?;
    while peer.write_all(&[0x42]).is_ok() {
        match peer.read(&mut [0; 64]) {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => break,
        }
        // By default it would be ten.
        ensure!(start.elapsed() < Duration::from_secs(8), "it is not cut");
    }
    assert!(start.elapsed() >= Duration::from_millis(500), "cut after {:?}", start.elapsed());
    assert_eq!(stage.counted("relay_tls_handshake_timeouts_total ")?, 1);
    Ok(())
}
