//! The reference relay's defects, one by one: each test is named after what must happen instead,
//! and numbered as in the relay specification, section 14.

use std::time::{Duration, Instant};

use anyhow::Result;
use relay_chaos::{Answer, End, Goodbye, Mood, Pass, TARGET, frame, message};
use relay_platform::TokenClaims;

use crate::room::{Room, heard};
use crate::stage::{Stage, survives};

#[test]
fn item_1_an_unparsable_target_or_host_is_refused_and_ends_nobody() -> Result<()> {
    survives(&["unparsable-target", "unparsable-host", "unparsable-upgrade"])
}

#[test]
fn item_2_a_reset_while_validation_is_pending_ends_nobody() -> Result<()> {
    survives(&["reset-while-pending"])
}

#[test]
fn item_3_a_worker_that_breaks_the_protocol_is_closed_as_everybody_is() -> Result<()> {
    survives(&["violations", "violations-pending", "oversize-messages"])
}

#[test]
fn item_4_a_rejected_peer_that_breaks_the_protocol_is_cut_and_ends_nobody() -> Result<()> {
    survives(&["violations-rejected"])
}

#[test]
fn item_5_an_oversize_validate_answer_costs_its_upgrade_and_nothing_else() -> Result<()> {
    survives(&["platform-oversize"])
}

#[test]
fn item_7_a_relay_that_is_told_to_end_takes_nobody_in_and_waits_for_nobody() -> Result<()> {
    let stage = Stage::set(&[("RELAY_DRAIN_MS", "1500"), ("RELAY_CLOSE_TIMEOUT_MS", "60000")])?;
    let scene = stage.scene();
    // Neither of them answers its close frame.
    let _daemon = scene.open(&stage.mint.daemon("w")?)?;
    let _client = scene.open(&stage.mint.client("w", "c")?)?;
    let mut kept = scene.say(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")?;
    assert_eq!(kept.answer(), Answer::Status(200));
    let told = Instant::now();
    stage.terminate()?;
    let pass = stage.mint.client("w", "c")?;
    // With so few peers the listener and those who are not admitted go at once.
    kept.send(pass.upgrade().as_bytes());
    let over_the_old = kept.answer();
    assert!(matches!(over_the_old, Answer::Status(503) | Answer::End(_)), "{over_the_old:?}");
    if let Ok((_, answer)) = stage.ask(&pass, "") {
        assert!(matches!(answer, Answer::Status(503) | Answer::End(_)), "{answer:?}");
    }
    let status = stage.ended()?;
    let took = told.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(20), "ended after {took:?}");
    Ok(())
}

#[test]
fn item_8_no_spelling_of_a_path_leaves_the_executors_subtree() -> Result<()> {
    survives(&["worker-traversal"])
}

#[test]
fn item_9_a_generation_outlives_the_scope_it_was_seen_in() -> Result<()> {
    let stage =
        Stage::set(&[("RELAY_EMPTY_WORKSPACE_TTL_MS", "50"), ("RELAY_CLEANUP_INTERVAL_MS", "50")])?;
    let of_generation = |generation| {
        let claims = TokenClaims {
            daemon_issue_generation: Some(generation),
            ..TokenClaims::daemon("w", TARGET)
        };
        stage.mint.pass("w", claims)
    };
    drop(stage.scene().open(&of_generation(5)?)?);
    let deadline = Instant::now() + Duration::from_secs(60);
    while stage.counted("relay_workspace_evictions_total")? == 0 {
        assert!(Instant::now() < deadline, "the scope is not forgotten");
    }
    let mut stale = stage.scene().open(&of_generation(4)?)?;
    assert_eq!(stale.goodbye(), Goodbye::Close(4008, "stale daemon generation".to_owned()));
    stage.scene().open(&of_generation(5)?)?;
    Ok(())
}

#[test]
fn item_10_a_pong_timeout_of_more_than_an_interval_is_kept_to() -> Result<()> {
    let stage = Stage::set(&[("RELAY_PING_INTERVAL_MS", "200"), ("RELAY_PONG_TIMEOUT_MS", "700")])?;
    let start = Instant::now();
    let mut peer = stage.scene().open(&stage.mint.client("w", "c")?)?;
    // It reads the pings and answers none.
    assert_ne!(peer.end(), End::Silence);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700), "cut after {took:?}");
    assert_eq!(stage.counted("relay_ws_stale_terminated_total")?, 1);
    Ok(())
}

#[test]
fn item_11_a_validate_answer_that_drips_or_is_cut_is_a_401_in_time() -> Result<()> {
    let stage = Stage::set(&[("RELAY_ADMISSION_TIMEOUT_MS", "500")])?;
    for mood in [Mood::Dripping, Mood::Cut, Mood::Slow] {
        stage.platform.set(mood);
        let start = Instant::now();
        let (_, answer) = stage.ask(&stage.mint.client("w", "c")?, "")?;
        assert_eq!(answer, Answer::Status(401), "{mood:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{mood:?}: {:?}", start.elapsed());
    }
    stage.platform.set(Mood::Honest);
    let (_, answer) = stage.ask(&stage.mint.client("w", "c")?, "")?;
    assert_eq!(answer, Answer::Status(101));
    Ok(())
}

#[test]
fn item_11_upgrades_that_wait_for_validation_are_bounded_and_the_rest_told_to_retry() -> Result<()>
{
    let pending_max = PENDING_MAX.to_string();
    let stage = Stage::set(&[
        ("RELAY_ADMISSION_TIMEOUT_MS", "240000"),
        ("RELAY_ADMISSION_WAIT_MS", "240000"),
        ("RELAY_PENDING_UPGRADES_MAX", &pending_max),
    ])?;
    let scene = stage.scene();
    stage.platform.set(Mood::Slow);
    let mut waiting = Vec::new();
    for _ in 0..PENDING_MAX + 40 {
        let pass = stage.mint.client(&scene.workspace(), "c")?;
        waiting.push(scene.say(pass.upgrade().as_bytes())?);
    }
    let mut refused = 0;
    let deadline = Instant::now() + Duration::from_secs(120);
    while refused < 40 && Instant::now() < deadline {
        waiting.retain_mut(|peer| {
            let _patience = peer.set_patience(Duration::from_millis(1));
            let is_refused = peer.answer() == Answer::Status(503);
            refused += usize::from(is_refused);
            !is_refused
        });
    }
    assert_eq!((refused, waiting.len()), (40, PENDING_MAX));
    assert_eq!(stage.counted("relay_admission_unavailable_total")?, 40);
    stage.platform.set(Mood::Honest);
    for peer in &mut waiting {
        peer.set_patience(Duration::from_secs(60))?;
        assert_eq!(peer.answer(), Answer::Status(101));
    }
    Ok(())
}

#[test]
fn item_12_a_burst_never_exceeds_a_limit() -> Result<()> {
    survives(&["upgrade-burst", "upgrade-crowd"])
}

#[test]
fn item_12_a_rejected_socket_holds_its_place_in_the_limits() -> Result<()> {
    let stage = Stage::set(&[("RELAY_MAX_CONNECTIONS_PER_IP", "2")])?;
    let stranger = Pass { workspace: "other".into(), ..stage.mint.client("w", "c")? };
    let mut held = Vec::new();
    for _ in 0..2 {
        let (mut peer, answer) = stage.ask(&stranger, "")?;
        assert_eq!(answer, Answer::Status(101));
        assert!(matches!(peer.goodbye(), Goodbye::Close(4008, _)));
        held.push(peer);
    }
    let (_, answer) = stage.ask(&stage.mint.client("w", "c")?, "")?;
    assert_eq!(answer, Answer::Status(429), "two closes are not answered yet");
    assert_eq!(stage.counted("relay_upgrade_rejected_ip_connections_total")?, 1);
    Ok(())
}

#[test]
fn item_13_a_scope_s_limit_is_not_evaded_by_leaving_the_target_out() -> Result<()> {
    let stage = Stage::set(&[("RELAY_MAX_CLIENTS_PER_WORKSPACE", "2")])?;
    let pass = stage.mint.client("w", "c")?;
    let (_one, first) = stage.ask(&pass, "")?;
    let (_two, second) = stage.ask(&pass, "")?;
    assert_eq!([first, second], [Answer::Status(101), Answer::Status(101)]);
    let (_, third) = stage.ask(&Pass { target: None, ..pass }, "")?;
    assert_eq!(third, Answer::Status(429));
    assert_eq!(stage.counted("relay_upgrade_rejected_workspace_clients_total")?, 1);
    Ok(())
}

#[test]
fn item_13_strangers_make_no_scopes() -> Result<()> {
    survives(&["random-scopes"])
}

/// The least of some samples: other work of the machine makes processor time more, never less.
fn least(mut sample: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    (0..SAMPLES).try_fold(Duration::MAX, |least, _| Ok(least.min(sample()?)))
}

#[test]
fn item_14_a_message_costs_the_same_however_much_is_remembered() -> Result<()> {
    let mut room = Room::unlimited()?;
    room.exchange("standing", "standing")?;
    let before = least(|| room.processor_time_of_messages("standing"))?;
    for number in 0..4000 {
        room.exchange(&format!("r{number}"), &format!("s{number}"))?;
    }
    for number in 0..2000 {
        room.client.send(&frame::text(&message::key_exchange(&format!("pending{number}"))));
        heard(&mut room.daemon)?;
    }
    // The owner of that session is not forgotten for those who came after.
    room.exchange("standing", "standing")?;
    let after = least(|| room.processor_time_of_messages("standing"))?;
    // Looking through thousands of entries takes many times as long as a message does.
    assert!(after < before * 3, "{before:?} became {after:?}");
    Ok(())
}

#[test]
fn item_14_an_upgrade_costs_the_same_however_many_scopes_there_are() -> Result<()> {
    let stage = Stage::set(&[])?;
    let upgrades = |count: u32| -> Result<Duration> {
        let before = stage.processor_time()?;
        for _ in 0..count {
            drop(stage.scene().client()?);
        }
        Ok((stage.processor_time()? - before) / count)
    };
    upgrades(200)?;
    let before = least(|| upgrades(200))?;
    upgrades(4000)?;
    assert!(stage.counted("relay_workspaces_total")? >= 4000, "scopes stay a while");
    let after = least(|| upgrades(200))?;
    // The reference copied all scopes for each; a tenth of a microsecond for one is this much.
    assert!(after < before * 2, "{before:?} became {after:?}");
    Ok(())
}

#[test]
fn item_15_the_limit_counts_the_hop_that_a_proxy_saw_and_not_what_a_client_wrote() -> Result<()> {
    let stage = Stage::set(&[
        ("RELAY_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("RELAY_UPGRADE_RATE_PER_MINUTE", "5"),
    ])?;
    let pass = stage.mint.client("w", "c")?;
    for attempt in 0..7 {
        let forged = format!("X-Forwarded-For: 192.0.2.{attempt}, 198.51.100.7\r\n");
        let (_, answer) = stage.ask(&pass, &forged)?;
        let expected = if attempt < 5 { 101 } else { 429 };
        assert_eq!(answer, Answer::Status(expected), "attempt {attempt}");
    }
    Ok(())
}

#[test]
fn item_15_nobody_escapes_a_limit_by_forging_a_header() -> Result<()> {
    survives(&["forged-forwarded", "forged-proxy-header"])
}

#[test]
fn item_16_one_tenant_does_not_empty_the_bucket_of_another() -> Result<()> {
    let stage = Stage::set(&[("RELAY_RUNTIME_RATE_PER_MINUTE", "5")])?;
    let scene = stage.scene();
    let hello = frame::text(&message::encrypted("s", 1, "AAAA"));
    let mut noisy = scene.open(&stage.mint.client("one", "same-id")?)?;
    noisy.send(&hello.repeat(20));
    let reason = "runtime rate limit exceeded".to_owned();
    assert_eq!(noisy.goodbye(), Goodbye::Close(4008, reason));
    let mut quiet = scene.open(&stage.mint.client("two", "same-id")?)?;
    for _ in 0..5 {
        quiet.send(&hello);
        assert!(quiet.text().is_ok_and(|text| text.contains("DAEMON_UNAVAILABLE")));
    }
    Ok(())
}

#[test]
fn item_17_invalid_frames_and_subscriptions_have_a_limit() -> Result<()> {
    let stage = Stage::set(&[("RELAY_UNROUTED_FRAME_RATE_PER_MINUTE", "20")])?;
    let viewer = stage.mint.viewer("w", &["agent-session:a"])?;
    for (pass, text) in [
        (stage.mint.client("w", "c")?, "{}".to_owned()),
        (viewer, message::subscribe("agent-session:a")),
    ] {
        let mut peer = stage.scene().open(&pass)?;
        peer.send(&frame::text(&text).repeat(30));
        let answers = (0..20).filter(|_| peer.text().is_ok()).count();
        assert_eq!(answers, 20);
        let reason = "unrouted frame rate limit exceeded".to_owned();
        assert_eq!(peer.goodbye(), Goodbye::Close(4008, reason));
    }
    assert_eq!(stage.counted("relay_frames_client_unrouted_rate_limited_total")?, 2);
    Ok(())
}

#[test]
fn item_17_useless_frames_are_survived_and_do_not_slow_others_to_a_stop() -> Result<()> {
    survives(&["invalid-message-flood", "subscribe-flood", "unread-flood"])
}

#[test]
fn item_18_the_memory_of_all_is_bounded_and_the_largest_hoarders_go() -> Result<()> {
    survives(&["hoard-unfinished"])
}

#[test]
fn item_18_a_slow_reader_hears_why_it_is_closed_and_holds_nobody_up() -> Result<()> {
    survives(&["never-read"])
}

#[test]
fn item_20_a_token_in_a_query_opens_nothing_outside_dev() -> Result<()> {
    for (mode, expected) in [("dev", 101), ("staging", 401)] {
        let stage = Stage::set(&[("RELAY_MODE", mode)])?;
        let pass = stage.mint.client("w", "c")?;
        let header = format!("Authorization: Bearer {}\r\n", pass.token.expose());
        let query = format!("GET /ws?token={}&", pass.token.expose());
        let request = pass.upgrade().replace(&header, "").replace("GET /ws?", &query);
        let mut peer = stage.scene().say(request.as_bytes())?;
        assert_eq!(peer.answer(), Answer::Status(expected), "RELAY_MODE={mode}");
    }
    Ok(())
}

#[test]
fn item_20_a_relay_that_ends_is_well_and_not_ready() -> Result<()> {
    let stage =
        Stage::set(&[("RELAY_DRAIN_MS", "60000"), ("RELAY_MAX_TOTAL_CONNECTIONS", "5000")])?;
    let scene = stage.scene();
    // They are told over a millisecond each: time to ask it how it is.
    let crowd: Result<Vec<_>> = (0..3000).map(|_| scene.client()).collect();
    let _crowd = crowd?;
    let status = |path: &str| {
        let mut peer = scene.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
        anyhow::Ok(peer.answer())
    };
    assert_eq!(status("/ready")?, Answer::Status(200));
    stage.terminate()?;
    assert_eq!(status("/ready")?, Answer::Status(503));
    assert_eq!(status("/health")?, Answer::Status(200));
    Ok(())
}

#[test]
fn item_21_a_session_that_stands_is_taken_over_by_nobody() -> Result<()> {
    let mut room = Room::unlimited()?;
    room.exchange("r1", "s1")?;
    let scene = room.stage.scene();
    let mut rival = scene.open(&room.stage.mint.client("w", "rival")?)?;
    // It may write into the session, whose key it has not, and into the request for the next one.
    for text in [message::encrypted("s1", 1, "rival"), message::key_exchange("r2")] {
        room.client.send(&frame::text(&message::key_exchange("r2")));
        heard(&mut room.daemon)?;
        rival.send(&frame::text(&text));
        assert_eq!(heard(&mut room.daemon)?, text);
    }
    room.daemon.send(&frame::text(&message::encrypted("s1", 2, "answer")));
    assert_eq!(heard(&mut room.client)?, message::encrypted("s1", 2, "answer"));
    // A handshake is what it can cost the other: it is answered to whoever asked last.
    for text in [message::key_exchanged("r2", "s2"), message::encrypted("s2", 1, "rival's")] {
        room.daemon.send(&frame::text(&text));
        assert_eq!(heard(&mut rival)?, text);
    }
    room.daemon.send(&frame::text(&message::encrypted("s1", 3, "more")));
    assert_eq!(heard(&mut room.client)?, message::encrypted("s1", 3, "more"));
    Ok(())
}

#[test]
fn item_21_ids_of_another_workspace_meet_nobody_here() -> Result<()> {
    let mut room = Room::unlimited()?;
    let scene = room.stage.scene();
    let mut their_daemon = scene.open(&room.stage.mint.daemon("theirs")?)?;
    let mut their_client = scene.open(&room.stage.mint.client("theirs", "c")?)?;
    room.client.send(&frame::text(&message::key_exchange("r")));
    assert_eq!(heard(&mut room.daemon)?, message::key_exchange("r"));
    their_client.send(&frame::text(&message::key_exchange("r")));
    assert_eq!(heard(&mut their_daemon)?, message::key_exchange("r"));
    their_daemon.send(&frame::text(&message::key_exchanged("r", "theirs")));
    assert_eq!(heard(&mut their_client)?, message::key_exchanged("r", "theirs"));
    room.daemon.send(&frame::text(&message::key_exchanged("r", "s")));
    assert_eq!(heard(&mut room.client)?, message::key_exchanged("r", "s"));
    their_daemon.send(&frame::text(&message::encrypted("s", 1, "not for you")));
    room.daemon.send(&frame::text(&message::encrypted("s", 1, "for you")));
    assert_eq!(heard(&mut room.client)?, message::encrypted("s", 1, "for you"));
    Ok(())
}

/// Samples of processor time.
const SAMPLES: usize = 4;

/// Upgrades that may wait for their validation.
const PENDING_MAX: usize = 1024;
