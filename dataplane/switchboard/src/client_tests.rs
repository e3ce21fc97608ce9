//! What becomes of clients' messages.

use relay_contract::{Counter, Profile, Scope};

use crate::board::{
    Board, board, board_with, e2ee, frame, init, key_update, offer, response, subscribe,
};

const INVALID: &str = "{'type':'relay_status','code':'INVALID_FRAME',\
                 'message':'client frame must be a valid runtime or pairing control frame',\
                 'workspaceId':'ws1'}";

#[test]
fn frames_go_to_the_daemon_whatever_their_session() {
    let mut board = board();
    let daemon = board.daemon();
    let client = board.client();
    for text in [frame("never-seen"), init("r1")] {
        assert_eq!(board.say_logged(client, &text), [format!("forward {}", daemon.slot)]);
    }
    assert_eq!(board.count(Counter::FramesClientToDaemon), 2);
    let bytes = frame("never-seen").len() + init("r1").len();
    assert_eq!(board.count(Counter::BytesClientToDaemon), bytes as u64);
}

#[test]
fn without_a_daemon_the_client_is_told_and_the_loss_logged() {
    let mut board = board();
    let client = board.client();
    assert_eq!(
        board.say_logged(client, &frame("s")),
        [
            "log warn client_message_dropped workspaceId=ws1 clientId=cl1 runtimeTargetId=rt1 \
             machineId=m1 reason=daemon_unavailable",
            "send 0 {'type':'relay_status','code':'DAEMON_UNAVAILABLE',\
                 'message':'No machine runtime is connected for this runtime target',\
                 'workspaceId':'ws1','retryable':true,'runtimeTargetId':'rt1','machineId':'m1'}"
        ]
    );
    assert_eq!(board.count(Counter::ClientMessagesDropped), 1);
}

#[test]
fn a_client_is_not_told_when_the_daemon_goes_only_on_its_next_frame() {
    let mut board = board();
    let daemon = board.daemon();
    let client = board.client();
    let seen = board.close(daemon);
    assert!(seen.iter().all(|seen| !seen.starts_with("send")), "{seen:?}");
    assert!(board.say(client, &frame("s"))[0].contains("DAEMON_UNAVAILABLE"));
}

#[test]
fn workspaces_do_not_see_each_other() {
    let mut board = board();
    board.daemon_with(|grant| {
        grant.request.workspace_id = "ws2".into();
        grant.claims.workspace_id = Some("ws2".into());
    });
    let client = board.client();
    assert!(board.say(client, &frame("s"))[0].contains("DAEMON_UNAVAILABLE"));
}

#[test]
fn anything_but_a_client_s_frame_is_answered_and_the_connection_stays() {
    let mut board = board();
    board.daemon();
    let client = board.client();
    let texts = ["x", "[1]", "null", "{'type':'ping'}"];
    let foreign = [response("r", "s"), key_update("s")];
    for text in texts.into_iter().chain(foreign.iter().map(String::as_str)) {
        assert_eq!(board.say(client, text), [format!("send 1 {INVALID}")], "{text}");
    }
    assert_eq!(board.count(Counter::FramesClientRejected), 6);
    assert_eq!(board.say(client, &frame("s")), ["forward 0"]);
}

#[test]
fn twenty_invalid_frames_get_twenty_answers_and_a_flood_does_not() {
    let mut board = board();
    let client = board.client();
    let answered = (0..20).filter(|_| !board.say(client, "x").is_empty()).count();
    assert_eq!(answered, 20);
    let answered = (0..500).filter(|_| !board.say(client, "x").is_empty()).count();
    assert!(answered < 120, "{answered}");
    assert_eq!(board.count(Counter::FramesClientRejected), 520);
    board.see(crate::Input::Sent { to: client, bytes: usize::MAX });
    assert_eq!(board.say(client, "x").len(), 1);
}

#[test]
fn a_flood_of_frames_that_reach_nobody_ends_its_connection() {
    let mut board = board_with(|limits| limits.unrouted_per_minute = 30);
    let client = board.client();
    for _ in 0..30 {
        assert!(board.say(client, "x")[0].starts_with("send 0"));
    }
    let closed = ["close 0 4008 unrouted frame rate limit exceeded"];
    assert_eq!(board.say(client, "x"), closed);
    assert_eq!(board.count(Counter::FramesClientUnroutedRateLimited), 1);
    assert_eq!(board.say(client, "x"), [""; 0], "it is not heard any more");
}

#[test]
fn frames_that_reach_nobody_may_go_on_for_ever_at_a_tenth_of_a_second() {
    let mut board = board();
    let client = board.client();
    for _ in 0..3000 {
        board.pass(100);
        board.see(crate::Input::Pong { from: client });
        board.see(crate::Input::Sent { to: client, bytes: usize::MAX });
        assert!(board.say(client, "x")[0].starts_with("send 0"));
    }
}

#[test]
fn frames_that_are_routed_do_not_pay_for_those_that_are_not() {
    let mut board = board_with(|limits| limits.unrouted_per_minute = 1);
    board.daemon();
    let client = board.client();
    for _ in 0..100 {
        assert_eq!(board.say(client, &frame("s")), ["forward 0"]);
    }
    board.say(client, "x");
    assert_eq!(board.say(client, &frame("s")), ["forward 0"]);
}

#[test]
fn a_viewer_s_frames_outside_its_scope_pay_too() {
    let mut board = board_with(|limits| limits.unrouted_per_minute = 2);
    let viewer = board.viewer("a");
    let seen: Vec<_> = (0..3).flat_map(|_| board.say(viewer, &frame("s"))).collect();
    assert_eq!(seen[2], "close 0 4008 unrouted frame rate limit exceeded");
}

#[test]
fn the_log_shows_a_minute_s_worth_of_one_connection_s_frames() {
    let mut board = board_with(|limits| limits.frame_logs_per_minute = 3);
    let clients = [board.client(), board.client()];
    let logged = |board: &mut Board, client, text: &str| {
        let seen = board.say_logged(client, text);
        seen.iter().filter(|seen| seen.starts_with("log warn client_")).count()
    };
    for client in clients {
        let shown: usize = (0..20).map(|_| logged(&mut board, client, "x")).sum();
        assert_eq!(shown, 3, "each connection has its own share");
    }
    assert_eq!(board.count(Counter::FrameLogsSuppressed), 34);
    assert_eq!(logged(&mut board, clients[0], &frame("s")), 0, "all kinds share it");
    board.pass(20_000);
    assert_eq!(logged(&mut board, clients[0], &frame("s")), 1);
}

#[test]
fn a_close_is_logged_whatever_was_logged_before() {
    let mut board = board_with(|limits| limits.frame_logs_per_minute = 1);
    let client = board.pairing();
    board.say(client, "x");
    let seen = board.say_logged(client, &frame("s"));
    assert!(seen[0].starts_with("log warn client_frame_rejected"), "{seen:?}");
}

#[test]
fn a_message_above_the_limit_is_closed_with_1009() {
    let mut board = board_with(|limits| limits.frame_bytes_max = 100);
    let client = board.client();
    assert_eq!(board.say(client, &"x".repeat(101)), ["close 0 1009 frame too large"]);
    assert_eq!(board.count(Counter::WsFrameTooLarge), 1);
}

#[test]
fn frames_of_another_scope_close_the_connection() {
    let cases = [
        (Scope::Pairing, frame("s"), "pairing scope only"),
        (Scope::Pairing, init("r"), "pairing scope only"),
        (Scope::Runtime, offer("p"), "runtime scope only"),
        (Scope::Runtime, subscribe("agent-session:s1"), "session-events scope required"),
        (Scope::Pairing, subscribe("agent-session:s1"), "session-events scope required"),
    ];
    for (scope, text, reason) in cases {
        let mut board = board();
        let client = board.client_with(|claims| claims.scope = Some(scope));
        assert_eq!(board.say(client, &text), [format!("close 0 4008 {reason}")]);
        assert_eq!(board.count(Counter::FramesClientRejectedScope), 1);
        assert_eq!(board.say(client, &text), [""; 0]);
    }
}

#[test]
fn a_viewer_s_other_frames_are_answered_and_it_stays() {
    let mut board = board();
    board.daemon();
    let viewer = board.viewer("ev1");
    assert!(board.say(viewer, &frame("s"))[0].contains("SESSION_EVENTS_SCOPE_ONLY"));
    assert_eq!(board.count(Counter::FramesClientRejectedScope), 1);
    assert!(board.say(viewer, &subscribe("agent-session:s1"))[0].contains("subscribed"));
}

#[test]
fn a_client_s_profile_must_equal_its_claim() {
    for (claimed, used) in
        [(Profile::NoiseIkpsk2, Profile::NoiseIk), (Profile::NoiseIk, Profile::NoiseIkpsk2)]
    {
        let mut board = board();
        board.daemon();
        let client = board.client_with(|claims| claims.e2ee_profile = Some(claimed));
        assert_eq!(board.say(client, &e2ee("s", claimed)), ["forward 0"]);
        let seen = board.say(client, &e2ee("s", used));
        assert_eq!(seen, ["close 1 4008 client frame profile mismatch"]);
        assert_eq!(board.count(Counter::FramesClientRejectedProfileMismatch), 1);
    }
}

#[test]
fn the_profile_of_any_frame_counts_and_one_we_do_not_know_fits_no_claim() {
    for profile in ["noise-ikpsk2", "noise-xx"] {
        let mut board = board();
        board.daemon();
        let client = board.client_with(|claims| {
            claims.scope = Some(Scope::Pairing);
            claims.e2ee_profile = Some(Profile::NoiseIk);
        });
        let text = offer("p").replace('}', &format!(",'profile':'{profile}'}}"));
        let seen = board.say(client, &text);
        assert_eq!(seen, ["close 1 4008 client frame profile mismatch"]);
    }
}

#[test]
fn encrypted_frames_are_limited_per_client_of_a_workspace() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 3);
    board.daemon();
    let client = board.client();
    let other = board.client_with(|claims| claims.client_id = Some("cl2".into()));
    for _ in 0..3 {
        assert_eq!(board.say_logged(client, &frame("s")), ["forward 0"]);
    }
    let seen = board.say(client, &frame("s"));
    assert_eq!(seen, ["close 1 4008 runtime rate limit exceeded"]);
    assert_eq!(board.count(Counter::FramesClientRuntimeRateLimited), 1);
    assert_eq!(board.say(other, &frame("s")), ["forward 0"]);
}

#[test]
fn the_same_client_of_another_workspace_has_its_own_bucket() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 1);
    let client = board.client();
    let mut elsewhere = crate::board::grant(relay_contract::Role::Client);
    elsewhere.request.workspace_id = "ws2".into();
    elsewhere.claims.workspace_id = Some("ws2".into());
    let (elsewhere, _) = board.open(elsewhere);
    assert_eq!(board.say(client, &frame("s")).len(), 1);
    assert!(board.say(elsewhere, &frame("s"))[0].contains("DAEMON_UNAVAILABLE"));
}

#[test]
fn the_clients_of_a_workspace_share_a_bucket_too() {
    let mut board = board_with(|limits| limits.runtime_per_minute_workspace = 2);
    board.daemon();
    for (name, seen) in
        [("a", "forward 0"), ("b", "forward 0"), ("c", "close 3 4008 runtime rate limit exceeded")]
    {
        let client = board.client_with(|claims| claims.client_id = Some(name.into()));
        assert_eq!(board.say(client, &frame("s")), [seen]);
    }
}

#[test]
fn tokens_come_back_over_time() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 60);
    board.daemon();
    let client = board.client();
    for _ in 0..60 {
        board.say(client, &frame("s"));
    }
    board.pass(1000);
    assert_eq!(board.say(client, &frame("s")), ["forward 0"]);
    assert_eq!(board.say(client, &frame("s")), ["close 1 4008 runtime rate limit exceeded"]);
}

#[test]
fn key_exchanges_are_limited_before_routing_and_over_reconnects() {
    let mut board = board_with(|limits| limits.key_exchange_per_minute = 1);
    let client = board.client();
    assert!(board.say(client, &init("r"))[0].contains("DAEMON_UNAVAILABLE"));
    board.close(client);
    let again = board.client();
    assert_eq!(
        board.say_logged(again, &init("r"))[..2],
        [
            "log warn client_frame_rate_limited workspaceId=ws1 clientId=cl1 \
             reason=key_exchange_rate_limited",
            "close 1 4008 key exchange rate limit exceeded"
        ]
    );
    assert_eq!(board.count(Counter::FramesClientKexRateLimited), 1);
}

#[test]
fn another_address_has_its_own_window() {
    let mut board = board_with(|limits| limits.key_exchange_per_minute = 1);
    board.daemon();
    let client = board.client();
    board.say(client, &init("r"));
    let mut elsewhere = crate::board::grant(relay_contract::Role::Client);
    elsewhere.address = [10, 0, 0, 1].into();
    let (elsewhere, _) = board.open(elsewhere);
    assert_eq!(board.say(elsewhere, &init("r")), ["forward 0"]);
}

#[test]
fn pairing_frames_are_limited_without_a_log_entry() {
    let mut board = board_with(|limits| limits.pairing_per_minute = 2);
    board.daemon();
    let client = board.pairing();
    assert_eq!(board.say(client, &offer("a")), ["forward 0"]);
    assert_eq!(board.say(client, &offer("b")), ["forward 0"]);
    let seen = board.say_logged(client, &offer("c"));
    assert_eq!(seen[0], "close 1 4008 pairing rate limit exceeded");
    assert!(seen[1].starts_with("log info client_disconnected"));
    assert_eq!(board.count(Counter::FramesClientPairingRateLimited), 1);
}

/// The fastest of several rounds of messages from one client.
fn round_time(board: &mut Board, client: relay_contract::ConnectionId) -> std::time::Duration {
    let text = frame("s").replace('\'', "\"");
    let rounds = (0..20).map(|_| {
        let start = std::time::Instant::now();
        for _ in 0..200 {
            board.now = board.now.after(std::time::Duration::from_millis(1));
            crate::board::say(&mut board.switchboard, board.now, client, &text);
            board.see(crate::Input::Sent { to: client, bytes: usize::MAX });
        }
        start.elapsed()
    });
    rounds.min().expect("there are rounds")
}

#[test]
fn the_cost_of_a_message_does_not_grow_with_what_is_remembered() {
    let unlimited = |limits: &mut relay_contract::Limits| {
        limits.runtime_per_minute = u32::MAX;
        limits.runtime_per_minute_workspace = u32::MAX;
        limits.daemon_per_minute = u32::MAX;
        limits.key_exchange_per_minute = u32::MAX;
        limits.pairing_per_minute = u32::MAX;
        limits.egress_bytes_max = usize::MAX;
    };
    let mut small = board_with(unlimited);
    small.daemon();
    let client = small.client();
    let before = round_time(&mut small, client);

    let mut full = board_with(unlimited);
    let daemon = full.daemon();
    let clients = [full.client(), full.pairing()];
    for number in 0..5000 {
        full.say(clients[0], &init(&format!("k{number}")));
        full.say(daemon, &response(&format!("k{number}"), &format!("s{number}")));
    }
    for number in 0..2100 {
        full.say(clients[0], &init(&format!("w{number}")));
        full.say(clients[1], &offer(&format!("p{number}")));
    }
    for number in 0..2000 {
        full.client_with(|claims| {
            claims.runtime_target_id = Some(format!("other{number}").into());
            claims.client_id = Some(format!("client{number}").into());
        });
    }
    let after = round_time(&mut full, clients[0]);
    // Looking at each of thousands of entries would take a hundred times as long.
    assert!(after < before * 6, "{before:?} became {after:?}");
}
