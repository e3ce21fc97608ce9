use relay_contract::{Claims, Role};

use super::*;
use crate::Input;
use crate::board::{Board, board, grant};

/// Opens a connection of that role under a target.
fn open(board: &mut Board, role: Role, target: &str) -> u32 {
    let mut grant = grant(role);
    grant.request.target_id = Some(target.into());
    grant.claims = Claims { runtime_target_id: Some(target.into()), ..grant.claims };
    board.open(grant).0.slot
}

fn order(board: &Board) -> Vec<u32> {
    board.switchboard.leaving_order().into_iter().map(|id| id.slot).collect()
}

#[test]
fn a_scope_leaves_together_and_its_daemon_first() {
    let mut board = board();
    let targets: Vec<_> = (0..8).map(|n| format!("rt{n}")).collect();
    // Interleaved: all first clients, all daemons, all second clients.
    for role in [Role::Client, Role::Daemon, Role::Client] {
        for target in &targets {
            open(&mut board, role, target);
        }
    }
    let order = order(&board);
    assert_eq!(order.len(), 24);
    let mut scopes = Vec::new();
    for scope in order.chunks(3) {
        let [daemon, first, second] = scope else { panic!("three each: {scope:?}") };
        let target = daemon - 8;
        assert_eq!((*first, *second), (target, target + 16), "daemon, then clients in order");
        scopes.push(target);
    }
    assert!(!scopes.is_sorted(), "scopes do not follow each other by slot: {scopes:?}");
}

#[test]
fn who_is_closing_already_is_not_told_again() {
    let mut board = board();
    let daemon = board.daemon();
    let client = board.client();
    board.see(Input::Closing { connection: daemon });
    assert_eq!(order(&board), [client.slot]);
    assert!(board.see(Input::Drained { connection: daemon, redirect: None }).is_empty());
    assert_eq!(board.count(Counter::DrainTold), 0);
}

#[test]
fn a_client_hears_where_to_go_before_it_is_closed() {
    let mut board = board();
    let [daemon, client, worker] = [board.daemon(), board.client(), board.worker()];
    let url = "wss://other.example.net/ws";
    let told = |board: &mut Board, connection| {
        let told = board.see(Input::Drained { connection, redirect: Some(url) });
        told.into_iter().filter(|seen| !seen.starts_with("log")).collect::<Vec<_>>()
    };
    let [redirect, close] = &told(&mut board, client)[..] else { panic!("two effects") };
    assert!(redirect.contains("'code':'RELAY_REDIRECT'") && redirect.contains(url), "{redirect}");
    assert_eq!(close, "close 1 1001 relay shutting down");
    assert_eq!(told(&mut board, daemon), ["close 0 1001 relay shutting down"]);
    assert_eq!(told(&mut board, worker), ["close 2 1001 relay shutting down"]);
    assert_eq!(board.count(Counter::DrainTold), 3);
    assert_eq!(board.count(Counter::ClientRedirect), 1);
}
