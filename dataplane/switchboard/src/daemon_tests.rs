//! What becomes of daemons' messages.

use relay_contract::{Counter, Profile};

use crate::board::{
    Board, board, board_with, e2ee, frame, init, key_update, offer, redeemed, response,
};

/// A daemon in slot 0 and a client in slot 1 that has a session.
fn with_session(session: &str) -> Board {
    let mut board = board();
    let daemon = board.daemon();
    let client = board.client();
    board.say(client, &init("req-1"));
    assert_eq!(board.say(daemon, &response("req-1", session)), ["forward 1"]);
    board
}

fn id(slot: u32) -> relay_contract::ConnectionId {
    relay_contract::ConnectionId { slot, ..Default::default() }
}

#[test]
fn a_session_s_frames_go_to_its_owner_alone() {
    let mut board = with_session("s1");
    let other = board.client_with(|claims| claims.client_id = Some("cl2".into()));
    board.say(other, &init("req-2"));
    assert_eq!(board.say(id(0), &response("req-2", "s2")), ["forward 2"]);
    assert_eq!(board.say_logged(id(0), &frame("s2")), ["forward 2"]);
    assert_eq!(board.say(id(0), &frame("s1")), ["forward 1"]);
    assert_eq!(board.say(id(0), &key_update("s1")), ["forward 1"]);
    assert_eq!(board.count(Counter::SessionFrameRoutedLocal), 3);
    assert_eq!(board.count(Counter::KeyExchangeResponseRoutedLocal), 2);
}

#[test]
fn frames_of_an_unknown_session_are_dropped_and_counted() {
    let mut board = with_session("s1");
    assert_eq!(board.say_logged(id(0), &frame("s2")), [""; 0]);
    assert_eq!(board.say_logged(id(0), &key_update("")), [""; 0]);
    assert_eq!(board.count(Counter::SessionFrameDropped), 2);
    assert_eq!(board.count(Counter::FramesDaemonToClients), 3);
}

#[test]
fn a_session_ends_with_its_owner() {
    let mut board = with_session("s1");
    board.close(id(1));
    assert_eq!(board.say(id(0), &frame("s1")), [""; 0]);
    assert_eq!(board.count(Counter::SessionFrameDropped), 1);
}

#[test]
fn a_session_ends_with_its_daemon() {
    let mut board = with_session("s1");
    board.close(id(0));
    let daemon = board.daemon();
    assert_eq!(board.say(daemon, &frame("s1")), [""; 0]);
}

#[test]
fn a_session_id_is_trimmed_when_recorded_and_not_when_looked_up() {
    let mut board = with_session(" s1 ");
    assert_eq!(board.say(id(0), &frame("s1")), ["forward 1"]);
    assert_eq!(board.say(id(0), &frame(" s1 ")), [""; 0]);
}

#[test]
fn a_session_lasts_as_long_as_it_is_used() {
    let mut board = patient(|_| {});
    let (daemon, client) = (board.daemon(), board.client());
    board.say(client, &init("r"));
    board.say(daemon, &response("r", "s1"));
    for _ in 0..3 {
        board.pass(29 * 60_000);
        assert_eq!(board.say(client, &frame("s1")), ["forward 0"]);
        board.pass(29 * 60_000);
        assert_eq!(board.say(daemon, &frame("s1")), ["forward 1"]);
    }
    board.pass(31 * 60_000);
    assert_eq!(board.say(daemon, &frame("s1")), [""; 0]);
}

#[test]
fn frames_of_others_do_not_keep_a_session() {
    let mut board = patient(|_| {});
    let (daemon, client, other) = (board.daemon(), board.client(), board.client());
    board.say(client, &init("r"));
    board.say(daemon, &response("r", "s1"));
    board.pass(20 * 60_000);
    board.say(other, &frame("s1"));
    board.pass(20 * 60_000);
    assert_eq!(board.say(daemon, &frame("s1")), [""; 0]);
}

/// A board whose connections survive silence.
fn patient(change: impl FnOnce(&mut relay_contract::Limits)) -> Board {
    board_with(|limits| {
        let day = std::time::Duration::from_secs(86_400);
        limits.heartbeat.ping_interval = day;
        limits.heartbeat.idle_timeout = day;
        change(limits);
    })
}

#[test]
fn the_oldest_session_is_forgotten_when_there_are_too_many() {
    let mut board = board_with(|limits| limits.session_owners_max = 2);
    let (daemon, client) = (board.daemon(), board.client());
    for session in ["s1", "s2", "s3"] {
        board.say(client, &init("r"));
        board.say(daemon, &response("r", session));
    }
    assert_eq!(board.say(daemon, &frame("s1")), [""; 0]);
    assert_eq!(board.say(daemon, &frame("s2")), ["forward 1"]);
    assert_eq!(board.say(daemon, &frame("s3")), ["forward 1"]);
}

#[test]
fn a_response_that_reuses_a_session_moves_it() {
    let mut board = with_session("s1");
    let other = board.client();
    board.say(other, &init("req-2"));
    board.say(id(0), &response("req-2", "s1"));
    assert_eq!(board.say(id(0), &frame("s1")), ["forward 2"]);
}

#[test]
fn a_key_exchange_is_answered_once() {
    let mut board = with_session("s1");
    assert_eq!(
        board.say_logged(id(0), &response("req-1", "s2")),
        ["log warn key_exchange_response_owner_missing workspaceId=ws1 requestId=req-1"]
    );
    assert_eq!(board.count(Counter::KeyExchangeResponseDropped), 1);
}

#[test]
fn request_ids_are_trimmed_on_both_sides() {
    let mut board = board();
    let (daemon, client, pairing) = (board.daemon(), board.client(), board.pairing());
    board.say(client, &init(" r9 "));
    assert_eq!(board.say(daemon, &response("r9\u{feff}", "s")), ["forward 1"]);
    board.say(pairing, &offer(" p "));
    assert_eq!(board.say(daemon, &redeemed("p")), ["forward 2"]);
}

#[test]
fn a_response_without_session_leaves_the_request_open() {
    let mut board = board();
    let (daemon, client) = (board.daemon(), board.client());
    board.say(client, &init("r"));
    assert_eq!(board.say(daemon, &response("r", " ")), [""; 0]);
    assert_eq!(board.say(daemon, &response("r", "s")), ["forward 1"]);
    assert_eq!(board.count(Counter::KeyExchangeResponseDropped), 1);
}

#[test]
fn who_left_before_the_answer_does_not_get_it() {
    let mut board = board();
    let (daemon, client) = (board.daemon(), board.client());
    board.say(client, &init("r"));
    board.close(client);
    assert_eq!(board.say(daemon, &response("r", "s")), [""; 0]);
    assert_eq!(board.count(Counter::KeyExchangeResponseDropped), 1);
}

#[test]
fn a_request_of_the_same_id_replaces_the_first() {
    let mut board = board();
    let (daemon, client, other) = (board.daemon(), board.client(), board.client());
    board.say(client, &init("r"));
    board.say(other, &init("r"));
    assert_eq!(board.say(daemon, &response("r", "s")), ["forward 2"]);
}

#[test]
fn a_full_table_forgets_the_oldest_request_even_for_a_known_one() {
    let mut board = board_with(|limits| limits.pending_requests_max = 2);
    let (daemon, client) = (board.daemon(), board.client());
    for request in ["a", "b", "b"] {
        board.say(client, &init(request));
    }
    assert_eq!(board.say(daemon, &response("a", "s")), [""; 0]);
    assert_eq!(board.say(daemon, &response("b", "s")), ["forward 1"]);
}

#[test]
fn requests_expire() {
    let mut board = patient(|_| {});
    let (daemon, client, pairing) = (board.daemon(), board.client(), board.pairing());
    board.say(client, &init("r"));
    board.say(pairing, &offer("p"));
    board.pass(120_001);
    assert_eq!(board.say(daemon, &response("r", "s")), [""; 0]);
    assert_eq!(board.say(daemon, &redeemed("p")), [""; 0]);
}

#[test]
fn a_new_daemon_clears_key_exchanges_and_a_leaving_one_pairings_too() {
    let mut board = board();
    let pairing = board.pairing();
    board.say(pairing, &offer("p"));
    let daemon = board.daemon();
    assert_eq!(board.say(daemon, &redeemed("p")), ["forward 0"]);
    board.say(pairing, &offer("q"));
    board.close(daemon);
    let daemon = board.daemon();
    assert_eq!(board.say(daemon, &redeemed("q")), [""; 0]);
}

#[test]
fn a_pairing_answer_goes_to_the_asking_client_once() {
    let mut board = board();
    let (daemon, first, second) = (board.daemon(), board.pairing(), board.pairing());
    board.say(first, &offer("a"));
    board.say(second, &offer("b"));
    assert_eq!(board.say(daemon, &redeemed("b")), ["forward 2"]);
    assert_eq!(
        board.say_logged(daemon, &redeemed("b")),
        ["log warn pairing_response_owner_missing workspaceId=ws1 requestId=b"]
    );
    assert_eq!(board.count(Counter::PairingResponseRoutedLocal), 1);
    assert_eq!(board.count(Counter::PairingResponseDropped), 1);
}

#[test]
fn a_long_request_id_is_cut_in_the_log() {
    let mut board = board();
    let daemon = board.daemon();
    let seen = board.say_logged(daemon, &redeemed(&"x".repeat(10_000)));
    assert!(seen[0].len() < 300);
}

#[test]
fn frames_of_no_valid_form_and_of_clients_are_dropped() {
    let mut board = board();
    let daemon = board.daemon();
    board.client();
    for text in ["x".to_owned(), init("r"), offer("p")] {
        assert_eq!(
            board.say_logged(daemon, &text),
            ["log warn daemon_frame_rejected workspaceId=ws1 reason=invalid_daemon_frame"]
        );
    }
    assert_eq!(board.count(Counter::FramesDaemonRejected), 3);
    assert_eq!(board.count(Counter::FramesDaemonToClients), 0);
}

#[test]
fn a_flood_of_useless_daemon_frames_is_counted_and_logged_a_little() {
    let mut board = board_with(|limits| limits.frame_logs_per_minute = 5);
    let daemon = board.daemon();
    let event = "{'schema':'viewport.session_event_relay_frame/v1','channel':'agent-session:s1',\
                 'event':null}";
    let texts = ["x".to_owned(), event.to_owned(), response("r", "s"), redeemed("r")];
    let logged = (0..400).map(|n| board.say_logged(daemon, &texts[n % 4]).len());
    assert_eq!(logged.sum::<usize>(), 5);
    assert_eq!(board.count(Counter::FrameLogsSuppressed), 395);
    assert_eq!(board.count(Counter::FramesDaemonRejected), 100);
}

#[test]
fn session_events_on_a_socket_are_counted_and_not_delivered() {
    let mut board = board();
    let (daemon, viewer) = (board.daemon(), board.viewer("ev1"));
    board.say(viewer, &crate::board::subscribe("agent-session:s1"));
    let event = "{'schema':'viewport.session_event_relay_frame/v1','channel':'agent-session:s1',\
                 'event':{'id':1}}";
    assert_eq!(
        board.say_logged(daemon, event),
        ["log warn daemon_frame_rejected workspaceId=ws1 reason=unroutable_daemon_frame"]
    );
    assert_eq!(board.count(Counter::FramesDaemonToClients), 1);
    assert_eq!(board.count(Counter::BytesDaemonToClients), event.len() as u64);
}

#[test]
fn a_daemon_s_profile_must_be_as_strong_as_its_claim() {
    let mut board = board();
    let daemon = board.daemon_with(|grant| {
        grant.claims.e2ee_profile = Some(Profile::NoiseIk);
    });
    assert_eq!(board.say(daemon, &e2ee("s", Profile::NoiseIkpsk2)), [""; 0]);
    board.close(daemon);
    let strict = |grant: &mut relay_contract::Grant| {
        grant.claims.e2ee_profile = Some(Profile::NoiseIkpsk2);
    };
    let profiled = "{'type':'relay_pairing_redeem_response','requestId':'p-1','ok':true,\
                 'profile':'noise-ik'}";
    for (slot, text) in [(1, e2ee("s", Profile::NoiseIk)), (2, profiled.to_owned())] {
        let daemon = board.daemon_with(strict);
        let seen = board.say(daemon, &text);
        assert_eq!(seen, [format!("close {slot} 4008 daemon frame profile mismatch")]);
        board.close(daemon);
    }
    assert_eq!(board.count(Counter::FramesDaemonRejectedProfileMismatch), 2);
    assert_eq!(board.count(Counter::FramesDaemonToClients), 1);
}

#[test]
fn invalid_frames_count_against_the_daemon_limit() {
    let mut board = board_with(|limits| limits.daemon_per_minute = 2);
    let daemon = board.daemon();
    board.say(daemon, "x");
    board.say(daemon, &frame("s"));
    assert_eq!(
        board.say_logged(daemon, "x")[..2],
        [
            "log warn daemon_frame_rate_limited workspaceId=ws1",
            "close 0 4008 daemon rate limit exceeded"
        ]
    );
    assert_eq!(board.count(Counter::FramesDaemonRateLimited), 1);
    assert_eq!(board.count(Counter::FramesDaemonRejected), 1);
}
