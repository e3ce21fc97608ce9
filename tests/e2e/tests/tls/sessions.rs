//! Sessions of rustls and OpenSSL as clients.

use anyhow::{Context, Result};
use relay_e2e::{replace_file, write_certificate};
use rustix::process::Signal;

use crate::stage::{Pair, Stage, assert_healthy};

#[test]
fn a_frame_arrives_over_wss() -> Result<()> {
    let stage = Stage::set(&[])?;
    let mut pair = Pair::of(&stage)?;
    for seq in 1..=50 {
        pair.exchange(seq)?;
    }
    Ok(())
}

#[test]
fn a_new_certificate_is_used_without_touching_connections() -> Result<()> {
    let mut stage = Stage::set(&[])?;
    let mut before = stage.connect()?;
    assert_healthy(&mut before)?;
    write_certificate(stage.dir.path())?;
    stage.relay.signal(Signal::HUP)?;
    stage.relay.wait_for("tls_certificate_reloaded")?;
    assert_healthy(&mut stage.connect()?)?;
    assert_healthy(&mut before)?;
    Ok(())
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() -> Result<()> {
    let mut stage = Stage::set(&[])?;
    write_certificate(stage.dir.path())?;
    stage.relay.wait_for("tls_certificate_reloaded")?;
    assert_healthy(&mut stage.connect()?)?;
    assert!(stage.counted("relay_tls_reloads_total ")? >= 1);
    Ok(())
}

#[test]
fn a_broken_certificate_keeps_the_old_one() -> Result<()> {
    let mut stage = Stage::set(&[])?;
    replace_file(stage.dir.path(), "tls.key", "hunter2")?;
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
    let session = stage.saved_session("-tls1_2")?;
    let mut second = stage.openssl(&format!("-tls1_2 -sess_in {session}"))?;
    second.until("Reused, TLSv1.2")?;
    second.health()
}
