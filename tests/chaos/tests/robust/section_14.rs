//! The reference relay's defects, one by one: each test is named after what must happen instead,
//! and numbered as in the relay specification, section 14.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use relay_chaos::{
    Answer, Campaign, End, Goodbye, Mint, Mood, Pass, Plan, Platform, Subject, attacks, frame,
    message,
};
use relay_platform::SigningKey;

use crate::stage::{Stage, program};

/// Wages these classes while a control pair talks, and accepts no fault.
fn survives(classes: &[&str]) -> Result<()> {
    let mint = Mint::new(SigningKey::generate()?);
    let platform = Platform::start(&mint)?;
    let budget = [("RELAY_MEMORY_BUDGET", "128MiB"), ("RELAY_SHARDS", "1")];
    let subject = Subject::start(&program()?, &platform, &budget)?;
    let plan = Plan {
        stretch: Duration::from_millis(300),
        rounds: 1,
        rate: 100,
        memory_kib_max: 128 << 10,
    };
    let mut campaign = Campaign::begin(plan, subject, Some(&mint), Some(&platform))?;
    for name in classes {
        let attack = attacks::all().into_iter().find(|attack| attack.name == *name);
        let finding = campaign.wage(attack.context("no such class")?)?;
        let finding = finding.context("everything it needs is there")?;
        ensure!(finding.faults.is_empty(), "{finding}");
    }
    Ok(())
}

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
fn item_8_no_spelling_of_a_path_leaves_the_executors_subtree() -> Result<()> {
    survives(&["worker-traversal"])
}

#[test]
fn item_10_a_pong_timeout_of_more_than_an_interval_is_kept_to() -> Result<()> {
    let stage = Stage::set(&[("RELAY_PING_INTERVAL_MS", "200"), ("RELAY_PONG_TIMEOUT_MS", "700")])?;
    let mut peer = stage.scene().open(&stage.mint.client("w", "c")?)?;
    peer.set_patience(Duration::from_secs(10))?;
    let start = Instant::now();
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
        assert!(start.elapsed() < Duration::from_secs(3), "{mood:?}: {:?}", start.elapsed());
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
        ("RELAY_ADMISSION_TIMEOUT_MS", "20000"),
        ("RELAY_ADMISSION_WAIT_MS", "20000"),
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
    let deadline = Instant::now() + Duration::from_secs(15);
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
        peer.set_patience(Duration::from_secs(10))?;
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

/// Upgrades that may wait for their validation.
const PENDING_MAX: usize = 1024;
