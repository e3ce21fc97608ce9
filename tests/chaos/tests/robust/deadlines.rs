//! Peers that take their time are cut when it is over, and counted.

use std::time::{Duration, Instant};

use anyhow::Result;
use relay_chaos::{End, Goodbye, Pass};

use crate::stage::Stage;

/// Says something and then drips a byte at a time until the relay ends it. Returns how, and how
/// long it took from before it connected.
fn drip(stage: &Stage, first: &[u8]) -> Result<(End, Duration)> {
    let start = Instant::now();
    let mut peer = stage.scene().say(first)?;
    peer.set_patience(Duration::from_millis(20))?;
    // The deadlines of these tests are far below it, those that hold by default above.
    while start.elapsed() < Duration::from_secs(8) {
        peer.send(b"x");
        // What comes back is waited for between two bytes: that is the pause.
        let end = peer.end();
        if end != End::Silence {
            return Ok((end, start.elapsed()));
        }
    }
    Ok((End::Silence, start.elapsed()))
}

#[test]
fn a_head_that_drips_is_cut_at_its_deadline() -> Result<()> {
    let stage = Stage::set(&[("RELAY_HEAD_TIMEOUT_MS", "700")])?;
    let (end, took) = drip(&stage, b"GET /health HTTP/1.1\r\nHost: a\r\nX: ")?;
    assert_ne!(end, End::Silence);
    assert!(took >= Duration::from_millis(500), "cut after {took:?}");
    assert_eq!(stage.counted("relay_head_timeouts_total")?, 1);
    Ok(())
}

#[test]
fn a_body_that_drips_is_cut_at_its_deadline() -> Result<()> {
    let stage = Stage::set(&[("RELAY_HEAD_TIMEOUT_MS", "700")])?;
    for framing in ["Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffff\r\n"]
    {
        let request = format!("POST /health HTTP/1.1\r\nHost: a\r\n{framing}");
        let (end, took) = drip(&stage, request.as_bytes())?;
        assert_ne!(end, End::Silence, "{framing}");
        assert!(took >= Duration::from_millis(500), "{framing} cut after {took:?}");
    }
    assert_eq!(stage.counted("relay_head_timeouts_total")?, 2);
    Ok(())
}

#[test]
fn a_close_that_nobody_answers_is_cut_at_its_deadline() -> Result<()> {
    let stage = Stage::set(&[("RELAY_CLOSE_TIMEOUT_MS", "500")])?;
    let stranger = Pass { workspace: "other".into(), ..stage.mint.client("w", "c")? };
    let mut peer = stage.scene().open(&stranger)?;
    assert!(matches!(peer.goodbye(), Goodbye::Close(4008, _)));
    // By default it would be half a minute.
    peer.set_patience(Duration::from_secs(20))?;
    assert_ne!(peer.end(), End::Silence);
    Ok(())
}
