use relay_contract::{CloseReason, Role};

use super::*;
use crate::Input;
use crate::board::{board, board_with, grant};

fn renew(token: &str) -> String {
    format!("{{'type':'relay.renew_token/v1','token':'{token}'}}")
}

#[test]
fn a_fresh_token_of_any_role_goes_to_the_control_plane_alone() {
    for role in [Role::Daemon, Role::Client, Role::Worker] {
        let mut board = board();
        // Somebody to forward to, if anything were forwarded.
        match role {
            Role::Client => board.daemon(),
            Role::Daemon | Role::Worker => board.client(),
        };
        let (peer, _) = board.open(grant(role));
        let seen = board.say_logged(peer, &renew("0123456789"));
        assert_eq!(seen, ["ask renewal 1 admission 1 digest 7 0123456789"], "{role:?}");
        assert_eq!(board.count(Counter::RenewalsAsked), 1);
        assert_eq!(board.count(Counter::FramesClientRejected), 0);
        assert_eq!(board.count(Counter::FramesDaemonRejected), 0);
    }
}

#[test]
fn clients_of_every_scope_may_renew() {
    let mut board = board();
    for client in [board.client(), board.pairing(), board.viewer("v")] {
        let seen = board.say(client, &renew("0123456789"));
        assert!(seen[0].starts_with("ask renewal"), "{seen:?}");
    }
}

#[test]
fn the_answer_goes_to_the_peer_and_nothing_else_changes() {
    let mut board = board();
    let (daemon, client) = (board.daemon(), board.client());
    let tell = |board: &mut crate::board::Board, outcome| {
        board.see(Input::Renewed { to: client, outcome })
    };
    let renewed = Renewal::Renewed { expires_at_ms: Some(5000) };
    assert_eq!(
        tell(&mut board, renewed),
        ["send 1 {'type':'relay.token_renewed/v1','expiresAtMs':5000}"]
    );
    let refused = Renewal::Refused(RenewalRefusal::ClaimsDiffer);
    assert_eq!(
        tell(&mut board, refused),
        ["send 1 {'type':'relay.token_refused/v1','reason':'claims differ'}"]
    );
    assert_eq!(board.count(Counter::RenewalsAccepted), 1);
    assert_eq!(board.count(Counter::RenewalsRefused), 1);
    assert_eq!(board.say(client, &crate::board::frame("s")), ["forward 0"]);
    board.close(client);
    assert!(board.see(Input::Renewed { to: client, outcome: renewed }).is_empty(), "it is gone");
    assert_eq!(board.say(daemon, &renew("0123456789")).len(), 1);
}

#[test]
fn a_frame_without_a_token_is_answered_and_asked_of_nobody() {
    let mut board = board();
    let client = board.client();
    let malformed = "send 0 {'type':'relay.token_refused/v1','reason':'malformed token'}";
    for text in [renew("short"), "{'type':'relay.renew_token/v1','token':7}".to_owned()] {
        assert_eq!(board.say_logged(client, &text), [malformed], "{text}");
    }
    assert_eq!(board.count(Counter::RenewalsAsked), 0);
    assert_eq!(board.count(Counter::RenewalsRefused), 2);
}

#[test]
fn too_many_fresh_tokens_end_the_connection() {
    let mut board = board_with(|limits| limits.unrouted_per_minute = 5 * RENEWAL_PRICE);
    for role in [Role::Daemon, Role::Client, Role::Worker] {
        let (peer, _) = board.open(grant(role));
        for _ in 0..5 {
            assert!(board.say(peer, &renew("0123456789"))[0].starts_with("ask renewal"));
        }
        let slot = peer.slot;
        assert_eq!(
            board.say(peer, &renew("0123456789")),
            [format!("close {slot} 4008 unrouted frame rate limit exceeded")]
        );
    }
    assert_eq!(board.count(Counter::RenewalsRateLimited), 3);
    assert_eq!(board.count(Counter::RenewalsAsked), 15);
}

#[test]
fn the_control_plane_may_end_an_open_connection() {
    let mut board = board();
    let client = board.client();
    for reason in [
        CloseReason::TokenExpired,
        CloseReason::TokenRevoked,
        CloseReason::KeyWithdrawn,
        CloseReason::ClosedByOperator,
    ] {
        let client = board.client_with(|_| {});
        let seen = board.see(Input::Dismissed { connection: client, reason });
        assert_eq!(seen[0], format!("close {} 4008 {}", client.slot, reason.text()));
        let again = board.see(Input::Dismissed { connection: client, reason });
        assert!(again.is_empty(), "it is closing already");
    }
    assert_eq!(board.count(Counter::ConnectionsDismissed), 4);
    assert_eq!(board.say(client, "x").len(), 1, "the others stay");
}
