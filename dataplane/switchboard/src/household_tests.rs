use std::sync::Arc;

use relay_contract::{CloseReason, Counter, Limits, Role, ShardId};

use super::*;
use crate::board::{Board, board, board_with, frame, grant, init, response, say, subscribe};
use crate::{Effect, Effects, Input};

/// A switchboard of the other shard, with the limits and the hash key of the first.
fn other(board: &Board) -> Switchboard {
    let _ = board;
    Switchboard::new(ShardId(1), [7; 16], Arc::new(Limits::default()))
}

/// What somebody who was here is called there.
fn there(id: ConnectionId) -> ConnectionId {
    ConnectionId { shard: ShardId(1), slot: id.slot + 10, generation: 3 }
}

fn move_out(board: &mut Board, workspace: &str, to: &mut Switchboard) {
    let household = board.switchboard.take_out(&workspace.into());
    let names = household.connections().map(|(id, _)| (id, there(id))).collect();
    to.take_in(board.now, household, &names);
}

/// What follows there, log entries left out.
fn said(to: &mut Switchboard, now: Tick, from: ConnectionId, text: &str) -> Vec<String> {
    let effects = say(to, now, there(from), text);
    let seen = effects.iter().map(crate::board::seen);
    seen.filter(|seen| !seen.starts_with("log")).collect()
}

fn handle(to: &mut Switchboard, now: Tick, input: Input<'_>) -> Vec<String> {
    let mut effects = Effects::new();
    to.handle(now, input, &mut effects);
    effects.iter().map(crate::board::seen).collect()
}

#[test]
fn empty_scopes_beyond_their_part_become_fewer_with_each_that_is_left() {
    let mut board = board();
    for target in 0..60 {
        board.visit(grant(Role::Daemon), &format!("rt{target}"));
    }
    let limits = Limits { memory_bytes_max: 1 << 20, ..Limits::default() };
    let most = limits.memory_bytes_max / 16;
    let mut to = Switchboard::new(ShardId(1), [7; 16], Arc::new(limits));
    move_out(&mut board, "ws1", &mut to);
    assert!(to.empty_scopes_bytes() > most, "they came along");
    for slot in 0..30 {
        let connection = ConnectionId { shard: ShardId(1), slot, generation: 0 };
        let mut grant = grant(Role::Daemon);
        grant.request.target_id = Some(format!("new{slot}").into());
        grant.claims.runtime_target_id = Some(format!("new{slot}").into());
        handle(&mut to, board.now, Input::Opened { connection, grant: Box::new(grant) });
        handle(&mut to, board.now, Input::Closed { connection });
    }
    assert!(to.empty_scopes_bytes() <= most, "{} bytes", to.empty_scopes_bytes());
}

#[test]
fn owners_requests_and_subscriptions_come_along() {
    let mut board = board();
    let [daemon, client] = [board.daemon(), board.client()];
    let viewer = board.viewer("v");
    board.say(client, &init("r1"));
    board.say(daemon, &response("r1", "s1"));
    board.say(client, &init("r2"));
    board.say(viewer, &subscribe("agent-session:s1"));
    let mut to = other(&board);
    move_out(&mut board, "ws1", &mut to);
    let now = board.now;
    assert_eq!(said(&mut to, now, client, &frame("s1")), ["forward 10"]);
    assert_eq!(said(&mut to, now, daemon, &frame("s1")), ["forward 11"], "the session's owner");
    assert_eq!(said(&mut to, now, daemon, &response("r2", "s2")), ["forward 11"], "who waits");
    let event = "{'type':'viewport.session_event/v1','channel':'agent-session:s1'}";
    let before = board.say(daemon, event);
    assert!(before.is_empty(), "nobody is here any more");
    assert_eq!(to.report(true).scopes.len(), 1);
    assert_eq!(to.report(false).connection_count, 3);
    assert_eq!(board.switchboard.report(true).scopes.len(), 0);
    assert_eq!(board.switchboard.report(false).connection_count, 0);
    // Leaving takes the subscription away, so its order is the new one.
    assert!(handle(&mut to, now, Input::Closed { connection: there(viewer) }).len() == 2);
    let daemon_left = handle(&mut to, now, Input::Closed { connection: there(daemon) });
    assert!(daemon_left[0].starts_with("log info daemon_disconnected"), "{daemon_left:?}");
    assert_eq!(daemon_left[1], "release 0");
}

#[test]
fn other_workspaces_stay() {
    let mut board = board();
    let mine = board.client();
    let mut grant = grant(Role::Client);
    grant.request.workspace_id = "ws2".into();
    grant.claims.workspace_id = Some("ws2".into());
    let (stays, _) = board.open(grant);
    let mut to = other(&board);
    move_out(&mut board, "ws1", &mut to);
    assert_eq!(board.switchboard.members_of(&"ws2".into()), [stays]);
    assert_eq!(to.members_of(&"ws1".into()), [there(mine)]);
    assert_eq!(board.scopes(), ["ws2:rt1 - cl1"]);
}

#[test]
fn rates_go_on_where_they_were() {
    let mut board = board_with(|limits| limits.key_exchange_per_minute = 2);
    let _daemon = board.daemon();
    let client = board.client();
    for request in ["a", "b"] {
        assert_eq!(board.say(client, &init(request)).len(), 1);
    }
    let limits = Limits { key_exchange_per_minute: 2, ..Limits::default() };
    let mut to = Switchboard::new(ShardId(1), [7; 16], Arc::new(limits));
    move_out(&mut board, "ws1", &mut to);
    let seen = said(&mut to, board.now, client, &init("c"));
    assert_eq!(seen, ["close 11 4008 key exchange rate limit exceeded"]);
}

#[test]
fn a_stale_daemon_is_stale_at_the_new_home_too() {
    let mut board = board_with(|limits| limits.empty_scope_ttl = std::time::Duration::ZERO);
    let daemon = board.daemon_with(|grant| grant.claims.daemon_issue_generation = Some(5));
    board.close(daemon);
    board.pass(200_000);
    assert!(board.scopes().is_empty(), "its scope is forgotten, its generation is not");
    let mut to = other(&board);
    move_out(&mut board, "ws1", &mut to);
    let mut stale = grant(Role::Daemon);
    stale.claims.daemon_issue_generation = Some(4);
    let connection = ConnectionId { shard: ShardId(1), slot: 0, generation: 0 };
    let seen = handle(&mut to, board.now, Input::Opened { connection, grant: Box::new(stale) });
    assert!(seen.iter().any(|seen| seen.contains("stale daemon generation")), "{seen:?}");
}

#[test]
fn clocks_go_on() {
    let mut board = board();
    let client = board.client();
    board.pass(20_000);
    let mut to = other(&board);
    move_out(&mut board, "ws1", &mut to);
    assert!(board.pass(60_000).is_empty(), "nobody is pinged from here");
    let due = to.next_deadline().expect("the client has its ping");
    assert!(due <= Tick::from_millis(31_100), "thirty seconds after it came: {due:?}");
    let mut effects = Effects::new();
    to.handle(Tick::from_millis(31_100), Input::Elapsed, &mut effects);
    let pings = effects.iter().filter(|e| matches!(e, Effect::Ping { to } if *to == there(client)));
    assert_eq!(pings.count(), 1);
}

#[test]
fn who_was_told_to_go_stays_behind() {
    let mut board = board();
    let client = board.client();
    let _daemon = board.daemon();
    board.see(Input::Dismissed { connection: client, reason: CloseReason::TokenExpired });
    let mut to = other(&board);
    move_out(&mut board, "ws1", &mut to);
    assert_eq!(to.report(false).connection_count, 1);
    assert_eq!(board.close(client), ["release 0"]);
    assert_eq!(board.count(Counter::WsConnectionsClosed), 1);
}

#[test]
fn a_socket_lost_on_the_way_leaves_nothing() {
    let mut board = board();
    let [daemon, client] = [board.daemon(), board.client()];
    let mut to = other(&board);
    let household = board.switchboard.take_out(&"ws1".into());
    to.take_in(board.now, household, &HashMap::from([(client, there(client))]));
    let _ = daemon;
    let report = to.report(true);
    assert_eq!((report.connection_count, report.scopes[0].daemon_connected), (1, false));
    let written = to.write_down();
    assert!(
        Switchboard::restore(&written, Arc::new(Limits::default()), Arc::default()).is_ok(),
        "it agrees"
    );
}

#[test]
fn there_and_back_is_as_if_nothing_had_happened() {
    let mut board = board();
    let [daemon, client] = [board.daemon(), board.client()];
    board.say(client, &init("r1"));
    board.say(daemon, &response("r1", "s1"));
    let mut to = other(&board);
    move_out(&mut board, "ws1", &mut to);
    let household = to.take_out(&"ws1".into());
    let names = [daemon, client].map(|id| (there(id), id)).into();
    board.switchboard.take_in(board.now, household, &names);
    assert_eq!(board.say(daemon, &frame("s1")), ["forward 1"]);
    assert_eq!(board.scopes(), ["ws1:rt1 daemon cl1"]);
    let written = board.switchboard.write_down();
    assert!(
        Switchboard::restore(&written, Arc::new(Limits::default()), Arc::default()).is_ok(),
        "it agrees"
    );
}
