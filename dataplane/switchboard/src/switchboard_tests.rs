//! Ends, deadlines, queues and reports.

use std::time::Duration;

use relay_contract::{Counter, Heartbeat, Role, ShardReport, Tick};

use crate::Input;
use crate::board::{Board, board, board_with, frame, grant, init, response};
use crate::deadline::EXPIRED_MAX;

fn beating(ping_ms: u64, pong_ms: u64, idle_ms: u64) -> Board {
    board_with(|limits| {
        limits.heartbeat = Heartbeat {
            ping_interval: Duration::from_millis(ping_ms),
            pong_timeout: Duration::from_millis(pong_ms),
            idle_timeout: Duration::from_millis(idle_ms),
        };
    })
}

#[test]
fn pings_are_counted_from_each_connection_s_own_start() {
    let mut board = beating(300, 60_000, 60_000);
    board.client();
    board.pass(100);
    board.daemon();
    assert_eq!(board.pass(600), ["1300 ping 0", "1400 ping 1", "1600 ping 0", "1700 ping 1"]);
    assert_eq!(board.count(Counter::PingsSent), 4);
}

#[test]
fn an_unanswered_ping_ends_the_connection_without_a_close_frame() {
    let mut board = beating(300, 100, 60_000);
    let client = board.client();
    assert_eq!(
        board.pass(1000),
        [
            "1300 ping 0",
            "1400 log warn ws_terminated reason=heartbeat timeout",
            "1400 terminate 0",
            "1400 log info client_disconnected workspaceId=ws1 clientId=cl1"
        ]
    );
    assert_eq!(board.count(Counter::WsStaleTerminated), 1);
    assert_eq!(board.close(client), ["release 0"]);
    assert_eq!(board.count(Counter::WsConnectionsClosed), 1);
}

#[test]
fn a_pong_timeout_longer_than_the_interval_works_too() {
    let mut board = beating(100, 250, 60_000);
    board.client();
    let seen = board.pass(1000);
    assert_eq!(seen[..3], ["1100 ping 0", "1200 ping 0", "1300 ping 0"]);
    assert_eq!(seen[4], "1350 terminate 0");
}

#[test]
fn messages_do_not_stand_in_for_the_pong() {
    let mut board = beating(300, 100, 60_000);
    let client = board.client();
    board.pass(350);
    board.say(client, "x");
    assert_eq!(board.pass(50)[1], "1400 terminate 0");
}

#[test]
fn a_flood_of_pings_pongs_and_small_fragments_ends_its_connection() {
    let mut board = board_with(|limits| limits.small_frames_per_minute = 10);
    for from in [board.daemon(), board.client(), board.worker()] {
        for _ in 0..5 {
            assert_eq!(board.see(Input::SmallFrame { from }), [""; 0]);
            assert_eq!(board.see(Input::Pong { from }), [""; 0]);
        }
        let closed = format!("close {} 4008 small frame rate limit exceeded", from.slot);
        assert_eq!(board.see(Input::Pong { from })[0], closed);
        assert_eq!(board.see(Input::SmallFrame { from }), [""; 0], "it is not heard any more");
    }
    assert_eq!(board.count(Counter::SmallFramesRateLimited), 3);
}

#[test]
fn a_hundred_pings_a_second_trouble_nobody() {
    let mut board = board();
    let client = board.client();
    for _ in 0..6000 {
        board.pass(10);
        assert_eq!(board.see(Input::SmallFrame { from: client }), [""; 0]);
        assert_eq!(board.see(Input::Pong { from: client }), [""; 0]);
    }
}

/// Time passes and nobody looks at it, as when the process or its machine is stopped.
fn stop_for(board: &mut Board, ms: u64) -> Vec<String> {
    board.now = Tick(board.now.0 + Tick::from_millis(ms).0);
    board.see(Input::Elapsed)
}

#[test]
fn after_a_stop_longer_than_the_pong_timeout_everybody_is_asked_and_nobody_cut() {
    let mut board = beating(300, 500, 10_000);
    let peers = [board.daemon(), board.client(), board.client()];
    board.pass(310);
    let seen = stop_for(&mut board, 60_000);
    assert_eq!(seen, ["log warn shard_stalled lateMs=59710", "ping 0", "ping 1", "ping 2"]);
    assert_eq!(board.count(Counter::ShardStalls), 1);
    board.see(Input::Pong { from: peers[0] });
    board.see(Input::Pong { from: peers[1] });
    let ends = board.pass(600).into_iter().filter(|seen| seen.contains(" terminate "));
    assert_eq!(ends.collect::<Vec<_>>(), ["61810 terminate 2"], "who does not answer goes");
    assert_eq!(board.count(Counter::ShardStalls), 1);
}

#[test]
fn after_a_stop_longer_than_the_idle_timeout_everybody_is_asked_and_nobody_cut() {
    let mut board = beating(60_000, 500, 5000);
    let client = board.client();
    assert_eq!(stop_for(&mut board, 20_000)[1..], ["ping 0"]);
    board.see(Input::Pong { from: client });
    assert_eq!(board.pass(4000), [""; 0]);
    assert_eq!(board.count(Counter::WsIdleTerminated), 0);
}

#[test]
fn pings_of_a_crowd_that_are_due_at_one_moment_go_out_a_few_at_a_time() {
    let crowd = 3 * EXPIRED_MAX + 1;
    let mut board = beating(300, 500, 10_000);
    for _ in 0..crowd {
        board.client();
    }
    // They waited for their turn: that is no stop, however late the last of them is.
    board.now = Tick(board.now.0 + Tick::from_millis(300).0);
    for at_once in [EXPIRED_MAX, EXPIRED_MAX, EXPIRED_MAX, 1, 0] {
        let seen = board.see(Input::Elapsed);
        assert_eq!(seen.len(), at_once, "{seen:?}");
        assert!(seen.iter().all(|seen| seen.starts_with("ping ")), "{seen:?}");
        board.now = Tick(board.now.0 + Tick::from_millis(1).0);
    }
    assert_eq!(board.count(Counter::ShardStalls), 0);
}

#[test]
fn after_a_stop_a_crowd_is_asked_a_few_at_a_time_and_the_stop_is_noted_once() {
    let mut board = beating(300, 500, 10_000);
    for _ in 0..2 * EXPIRED_MAX {
        board.client();
    }
    let mut seen = stop_for(&mut board, 60_000);
    seen.extend(board.see(Input::Elapsed));
    let pings = seen.iter().filter(|seen| seen.starts_with("ping ")).count();
    assert_eq!((pings, seen.len()), (2 * EXPIRED_MAX, 2 * EXPIRED_MAX + 1), "{seen:?}");
    assert_eq!(board.count(Counter::ShardStalls), 1);
}

#[test]
fn a_turn_that_is_a_little_late_is_no_stop() {
    let mut board = beating(300, 500, 10_000);
    board.client();
    assert_eq!(stop_for(&mut board, 700), ["ping 0"]);
    assert_eq!(board.count(Counter::ShardStalls), 0);
}

#[test]
fn a_terminated_daemon_leaves_its_scope_at_once() {
    let mut board = beating(400, 100, 60_000);
    board.daemon();
    board.pass(200);
    let client = board.client();
    board.pass(300);
    assert!(board.say(client, &frame("s"))[0].contains("DAEMON_UNAVAILABLE"));
    board.daemon();
    assert_eq!(board.count(Counter::WsConnectionsRejected), 0);
}

#[test]
fn silence_ends_a_connection() {
    let mut board = beating(60_000, 100, 500);
    let client = board.client();
    board.pass(400);
    board.say(client, "x");
    assert_eq!(
        board.pass(1000)[..2],
        ["1900 log warn ws_terminated reason=idle timeout", "1900 terminate 0"]
    );
    assert_eq!(board.count(Counter::WsIdleTerminated), 1);
}

#[test]
fn empty_scopes_are_forgotten_and_the_log_says_which() {
    let mut board = board_with(|limits| {
        limits.empty_scope_ttl = Duration::from_millis(100);
        limits.cleanup_interval = Duration::from_millis(100);
    });
    let client = board.client();
    board.close(client);
    assert_eq!(board.pass(300), ["1100 log info workspace_evicted workspaceId=ws1:rt1"]);
    assert_eq!(board.count(Counter::WorkspaceEvictions), 1);
    assert_eq!(board.scopes(), [""; 0]);
}

#[test]
fn a_crowd_of_empty_scopes_is_forgotten_in_portions() {
    let mut board = board_with(|limits| {
        limits.empty_scope_ttl = Duration::from_millis(100);
        limits.cleanup_interval = Duration::from_millis(100);
    });
    const SCOPES: u64 = 1000;
    for number in 0..SCOPES {
        board.visit(grant(Role::Client), &format!("rt{number}"));
    }
    // One look at the time after all of them are due.
    board.now = board.now.after(Duration::from_millis(300));
    let told = board.see(Input::Elapsed).len();
    assert!((1..100).contains(&told), "{told} scopes at once");
    board.pass(200);
    assert_eq!(board.count(Counter::WorkspaceEvictions), SCOPES);
}

#[test]
fn a_scope_someone_came_back_to_stays() {
    let mut board = board();
    let client = board.client();
    board.close(client);
    board.pass(119_000);
    let worker = board.worker();
    let client = board.client();
    for _ in 0..120 {
        board.pass(5000);
        board.see(Input::Pong { from: client });
        board.see(Input::Pong { from: worker });
    }
    assert_eq!(board.scopes(), ["ws1:rt1 - cl1", "ws1:- - "]);
}

#[test]
fn with_nothing_to_do_no_deadline_is_pending() {
    let mut board = board();
    let client = board.client();
    board.say(client, &frame("s"));
    board.close(client);
    board.pass(3_600_000);
    assert_eq!(board.switchboard.next_deadline(), None);
}

#[test]
fn a_slow_reader_is_closed_not_buffered() {
    let mut board = board_with(|limits| limits.egress_bytes_max = 400);
    let (daemon, client) = (board.daemon(), board.client());
    for _ in 0..3 {
        assert_eq!(board.say(client, &frame("s")), ["forward 0"]);
    }
    assert_eq!(
        board.say_logged(client, &frame("s")),
        [
            "close 0 4008 buffer overflow",
            "log info daemon_disconnected workspaceId=ws1 runtimeTargetId=rt1 machineId=m1"
        ]
    );
    assert_eq!(board.count(Counter::WsSlowClientTerminated), 1);
    assert_eq!(board.count(Counter::FramesClientToDaemon), 4);
    assert!(board.say(client, &frame("s"))[0].contains("DAEMON_UNAVAILABLE"));
    assert_eq!(board.close(daemon), ["release 0"]);
}

#[test]
fn what_left_makes_room() {
    let mut board = board_with(|limits| limits.egress_bytes_max = 400);
    let (daemon, client) = (board.daemon(), board.client());
    for _ in 0..50 {
        assert_eq!(board.say(client, &frame("s")), ["forward 0"]);
        let bytes = crate::framed_bytes(frame("s").len());
        board.see(Input::Sent { to: daemon, bytes });
    }
}

#[test]
fn a_message_larger_than_the_budget_passes_when_nothing_waits() {
    let mut board = board_with(|limits| limits.egress_bytes_max = 1);
    board.daemon();
    let client = board.client();
    assert_eq!(board.say(client, &frame("s")), ["forward 0"]);
    assert_eq!(board.say(client, &frame("s")), ["close 0 4008 buffer overflow"]);
}

#[test]
fn frames_take_their_header_s_bytes_too() {
    assert_eq!([125, 126, 65_535, 65_536].map(crate::framed_bytes), [127, 130, 65_539, 65_546]);
}

#[test]
fn a_fault_of_the_protocol_is_logged_and_nothing_is_routed_any_more() {
    for (large, reason) in [(true, "frame_too_large"), (false, "protocol_error")] {
        let mut board = board();
        let (daemon, client) = (board.daemon(), board.client());
        let fault = |from| match large {
            true => Input::TooLarge { from },
            false => Input::ProtocolError { from },
        };
        assert_eq!(
            board.see(fault(client))[0],
            format!("log warn client_ws_error workspaceId=ws1 clientId=cl1 reason={reason}")
        );
        assert_eq!(board.say(client, &frame("s")), [""; 0]);
        assert_eq!(
            board.see(fault(daemon))[0],
            format!("log warn daemon_ws_error workspaceId=ws1 reason={reason}")
        );
        assert_eq!(board.count(Counter::WsFrameTooLarge), 0);
        assert_eq!(board.see(fault(client)), [""; 0]);
    }
}

#[test]
fn a_closing_connection_gets_nothing_and_ends_in_time() {
    let mut board = board();
    let (daemon, client) = (board.daemon(), board.client());
    board.say(client, &init("r"));
    board.say(daemon, &response("r", "s"));
    assert_eq!(
        board.see(Input::Closing { connection: client }),
        ["log info client_disconnected workspaceId=ws1 clientId=cl1"]
    );
    assert_eq!(board.say(daemon, &frame("s")), [""; 0]);
    assert_eq!(board.see(Input::Closing { connection: client }), [""; 0]);
    assert!(board.pass(30_000).contains(&"31000 terminate 1".to_owned()));
    assert_eq!(board.close(client), ["release 1"]);
    assert_eq!(board.close(client), [""; 0]);
    assert_eq!(board.count(Counter::WsConnectionsClosed), 1);
}

#[test]
fn stop_sends_everybody_away() {
    let mut board = board();
    board.daemon();
    board.client();
    board.worker();
    let seen = board.see(Input::Stop);
    let closes: Vec<_> = seen.iter().filter(|seen| seen.starts_with("close")).collect();
    assert_eq!(
        closes,
        ["close 0", "close 1", "close 2"]
            .map(|close| format!("{close} 1001 relay shutting down"))
            .iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn newer_limits_replace_older_ones_and_stale_ones_are_ignored() {
    let mut board = board();
    board.relimit(|limits| {
        limits.version = 3;
        limits.frame_bytes_max = 10;
    });
    board.relimit(|limits| {
        limits.version = 2;
        limits.frame_bytes_max = 1000;
    });
    let client = board.client();
    assert_eq!(board.say(client, &frame("s")), ["close 0 1009 frame too large"]);
}

#[test]
fn a_report_lists_scopes_by_creation_and_clients_by_connection() {
    let mut board = board();
    for name in ["b", "c", "a"] {
        board.client_with(|claims| claims.client_id = Some(name.into()));
    }
    board.worker();
    board.pass(5);
    board.daemon();
    assert_eq!(board.scopes(), ["ws1:rt1 daemon b,c,a", "ws1:- - "]);
    let report = board.switchboard.report(true);
    assert_eq!((report.connection_count, report.scope_count), (4, 2));
    assert_eq!(report.scopes[0].last_activity, Tick::from_millis(1005));
    assert!(board.switchboard.report(false).scopes.is_empty());
}

#[test]
fn the_hottest_scopes_are_those_with_most_frames_both_ways() {
    let mut board = board();
    for number in 0..ShardReport::HOTTEST_MAX + 4 {
        let workspace = format!("w{number:02}");
        let daemon = board.daemon_with(|grant| {
            grant.request.workspace_id = workspace.as_str().into();
            grant.claims.workspace_id = Some(workspace.as_str().into());
        });
        for _ in 0..=number {
            board.say(daemon, &frame("s"));
        }
    }
    assert_eq!(board.switchboard.hottest(Tick::from_millis(1000)).len(), 0, "not over yet");
    let hottest = board.switchboard.hottest(Tick(1 << 32));
    assert_eq!(hottest.len(), ShardReport::HOTTEST_MAX);
    assert_eq!(hottest[0].workspace_id.as_str(), "w19");
    assert!(hottest.is_sorted_by(|a, b| a.frames_per_s > b.frames_per_s));
    assert!(hottest.iter().all(|scope| scope.bytes_per_s > scope.frames_per_s));
}

#[test]
fn an_input_about_nobody_changes_nothing() {
    let mut board = board();
    let nobody = relay_contract::ConnectionId { slot: 9, ..Default::default() };
    for input in [
        Input::TooLarge { from: nobody },
        Input::ProtocolError { from: nobody },
        Input::Pong { from: nobody },
        Input::Progress { from: nobody },
        Input::Sent { to: nobody, bytes: 1 },
        Input::Closing { connection: nobody },
        Input::Closed { connection: nobody },
        Input::Elapsed,
    ] {
        assert_eq!(board.see(input), [""; 0]);
    }
    assert_eq!(board.say_logged(nobody, "x"), [""; 0]);
}
