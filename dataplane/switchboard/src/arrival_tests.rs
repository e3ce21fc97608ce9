//! What becomes of opened connections.

use relay_contract::{Counter, Role, Scope};

use crate::Input;
use crate::board::{board, frame, grant};

const REJECTED: &str = "log warn connection_rejected workspaceId=ws1";

#[test]
fn an_accepted_connection_is_logged_with_its_address_and_counted() {
    let mut board = board();
    let (_, seen) = board.open(grant(Role::Daemon));
    assert_eq!(
        seen,
        ["log info daemon_connected workspaceId=ws1 runtimeTargetId=rt1 machineId=m1 ip=127.0.0.1"]
    );
    let (_, seen) = board.open(grant(Role::Client));
    assert_eq!(seen, ["log info client_connected workspaceId=ws1 clientId=cl1 ip=127.0.0.1"]);
    let (_, seen) = board.open(grant(Role::Worker));
    assert_eq!(
        seen,
        ["log info worker_connected workspaceId=ws1 managedExecutorId=ex1 ip=127.0.0.1"]
    );
    assert_eq!(board.count(Counter::WsConnectionsOpened), 3);
    assert_eq!(board.switchboard.report(false).connection_count, 2);
    assert_eq!(board.scopes(), ["ws1:rt1 daemon cl1", "ws1:- - "]);
}

#[test]
fn a_missing_or_blank_workspace_claim_is_turned_away() {
    for claim in [None, Some("  \u{feff}".into())] {
        let mut board = board();
        let mut grant = grant(Role::Client);
        grant.claims.workspace_id = claim;
        let (_, seen) = board.open(grant);
        assert_eq!(
            seen,
            [
                format!("{REJECTED} role=client ip=127.0.0.1 reason=missing_workspace_claim"),
                "close 0 4008 missing workspace claim".to_owned()
            ]
        );
        assert_eq!(board.count(Counter::WsConnectionsRejected), 1);
        assert_eq!(board.count(Counter::WsConnectionsOpened), 0);
    }
}

#[test]
fn the_workspace_claim_is_trimmed_and_must_match() {
    let mut board = board();
    let mut padded = grant(Role::Client);
    padded.claims.workspace_id = Some(" ws1 ".into());
    board.open(padded);
    assert_eq!(board.count(Counter::WsConnectionsOpened), 1);
    let mut other = grant(Role::Worker);
    other.claims.workspace_id = Some("ws2".into());
    let (_, seen) = board.open(other);
    assert_eq!(seen[1], "close 1 4008 workspace claim mismatch");
}

#[test]
fn a_requested_target_must_be_claimed() {
    for (claim, shown) in [(None, ""), (Some("rt2".into()), "rt2")] {
        let mut board = board();
        let mut grant = grant(Role::Client);
        grant.claims.runtime_target_id = claim;
        let (_, seen) = board.open(grant);
        assert_eq!(
            seen,
            [
                format!(
                    "{REJECTED} requestedRuntimeTargetId=rt1 claimedRuntimeTargetId={shown} \
                     role=client ip=127.0.0.1 reason=runtime_target_claim_mismatch"
                ),
                "close 0 4008 runtime target claim mismatch".to_owned()
            ]
        );
    }
}

#[test]
fn a_client_needs_a_scope_and_a_daemon_s_is_ignored() {
    let mut board = board();
    let mut client = grant(Role::Client);
    client.claims.scope = None;
    assert_eq!(board.open(client).1[1], "close 0 4008 invalid scope claim");
    let mut daemon = grant(Role::Daemon);
    daemon.claims.scope = Some(Scope::Pairing);
    board.open(daemon);
    assert_eq!(board.count(Counter::WsConnectionsOpened), 1);
}

#[test]
fn a_client_without_target_is_told_before_it_is_turned_away() {
    for scope in [Scope::Runtime, Scope::SessionEvents] {
        let mut board = board();
        let mut grant = grant(Role::Client);
        grant.request.target_id = None;
        grant.claims.runtime_target_id = None;
        grant.claims.scope = Some(scope);
        let (_, seen) = board.open(grant);
        assert_eq!(
            seen,
            [
                "log warn connection_rejected workspaceId=ws1 role=client ip=127.0.0.1 \
                 reason=missing_runtime_target_claim",
                "send 0 {'type':'relay_status','code':'RUNTIME_TARGET_REQUIRED',\
                 'message':'Runtime client must specify a runtime target','workspaceId':'ws1',\
                 'retryable':false}",
                "close 0 4008 missing runtime target claim"
            ]
        );
    }
}

#[test]
fn a_daemon_needs_a_target_and_a_pairing_client_or_worker_does_not() {
    let mut board = board();
    let mut without = grant(Role::Daemon);
    without.request.target_id = None;
    without.claims.runtime_target_id = None;
    assert_eq!(board.open(without.clone()).1[1], "close 0 4008 missing runtime target claim");
    without.request.role = Role::Client;
    without.claims.scope = Some(Scope::Pairing);
    board.open(without);
    board.worker();
    assert_eq!(board.count(Counter::WsConnectionsOpened), 2);
}

#[test]
fn a_rejected_connection_leaves_no_scope() {
    let mut board = board();
    let mut grant = grant(Role::Client);
    grant.claims.runtime_target_id = None;
    board.open(grant);
    assert_eq!(board.switchboard.report(false).scope_count, 0);
}

#[test]
fn a_rejected_connection_is_not_heard_and_ends_in_time() {
    let mut board = board();
    let mut grant = grant(Role::Client);
    grant.claims.workspace_id = None;
    let (client, _) = board.open(grant);
    assert_eq!(board.say(client, "x"), [""; 0]);
    assert_eq!(board.pass(60_000), ["31000 terminate 0"]);
    assert_eq!(board.close(client), ["release 0"]);
    assert_eq!(board.count(Counter::WsConnectionsClosed), 0);
}

#[test]
fn the_target_comes_from_the_claim_when_none_was_requested() {
    let mut board = board();
    let daemon = board.daemon();
    let mut grant = grant(Role::Client);
    grant.request.target_id = None;
    let (client, _) = board.open(grant);
    assert_eq!(board.say(client, &frame("s")), [format!("forward {}", daemon.slot)]);
    assert_eq!(board.scopes(), ["ws1:rt1 daemon cl1", "ws1:- - "]);
}

#[test]
fn a_second_daemon_is_turned_away_whatever_its_generation() {
    let mut board = board();
    for (generation, reason) in
        [(5, None), (6, Some("daemon already connected")), (4, Some("stale daemon generation"))]
    {
        let mut grant = grant(Role::Daemon);
        grant.claims.daemon_issue_generation = Some(generation);
        let (_, seen) = board.open(grant);
        let closed = seen.iter().find(|seen| seen.starts_with("close"));
        assert_eq!(closed.map(|seen| seen.splitn(4, ' ').nth(3).unwrap()), reason);
    }
    assert_eq!(board.count(Counter::WsConnectionsRejected), 2);
}

#[test]
fn a_rejected_daemon_is_logged_with_the_reason() {
    let mut board = board();
    board.daemon();
    let (_, seen) = board.open(grant(Role::Daemon));
    assert_eq!(
        seen[0],
        "log warn daemon_connection_rejected workspaceId=ws1 runtimeTargetId=rt1 \
         reason=daemon_already_connected"
    );
}

#[test]
fn a_daemon_comes_back_with_the_same_generation_or_none() {
    let mut board = board();
    for generation in [Some(5), Some(5), None, Some(5)] {
        let daemon = board.daemon_with(|grant| grant.claims.daemon_issue_generation = generation);
        board.close(daemon);
    }
    assert_eq!(board.count(Counter::WsConnectionsOpened), 4);
}

#[test]
fn a_stale_daemon_stays_out_after_its_scope_was_forgotten() {
    let mut board = board();
    let daemon = board.daemon_with(|grant| grant.claims.daemon_issue_generation = Some(5));
    board.close(daemon);
    board.pass(600_000);
    assert_eq!(board.switchboard.report(false).scope_count, 0);
    let mut stale = grant(Role::Daemon);
    stale.claims.daemon_issue_generation = Some(4);
    assert_eq!(board.open(stale).1[1], "close 1 4008 stale daemon generation");
}

#[test]
fn daemons_of_two_targets_coexist() {
    let mut board = board();
    board.daemon();
    board.daemon_with(|grant| {
        grant.request.target_id = Some("rt2".into());
        grant.claims.runtime_target_id = Some("rt2".into());
    });
    assert_eq!(board.scopes(), ["ws1:rt1 daemon ", "ws1:rt2 daemon "]);
}

#[test]
fn ids_that_contain_the_separator_do_not_meet() {
    let mut board = board();
    let colliding = |grant: &mut relay_contract::Grant, workspace: &str, target: &str| {
        grant.request.workspace_id = workspace.into();
        grant.claims.workspace_id = Some(workspace.into());
        grant.request.target_id = Some(target.into());
        grant.claims.runtime_target_id = Some(target.into());
    };
    board.daemon_with(|grant| colliding(grant, "a:b", "c"));
    board.daemon_with(|grant| colliding(grant, "a", "b:c"));
    assert_eq!(board.count(Counter::WsConnectionsOpened), 2);
}

#[test]
fn after_stop_newcomers_are_sent_away() {
    let mut board = board();
    board.see(Input::Stop);
    let (_, seen) = board.open(grant(Role::Client));
    assert_eq!(seen, ["close 0 1001 relay shutting down"]);
}

#[test]
fn a_slot_used_again_ends_who_sat_there() {
    let mut board = board();
    let client = board.client();
    let again = relay_contract::ConnectionId { generation: 1, ..client };
    let seen = board.see(Input::Opened { connection: again, grant: grant(Role::Client).into() });
    assert_eq!(
        seen[..2],
        ["log info client_disconnected workspaceId=ws1 clientId=cl1", "release 0"]
    );
    assert_eq!(board.see(Input::Closed { connection: client }), [""; 0]);
    assert_eq!(board.scopes(), ["ws1:rt1 - cl1"]);
}
