//! What the control plane orders of connections that are open, and what they ask of it.

use std::sync::Arc;

use relay_contract::{
    CloseReason, Command, ConnectionId, Counter, Limits, Refusal, Renewal, RenewalRefusal, Routes,
    ShardId, Versioned,
};

use crate::bench::{Bench, Office, Setup};
use crate::frames::{self, Frame, TEXT};

const SHARD: ShardId = ShardId(0);

#[test]
fn an_admitted_connection_says_where_it_lives() {
    let mut bench = Bench::new(Setup { shard_count: 2, ..Setup::default() });
    bench.home = ShardId(1);
    bench.open("client", "t");
    bench.steps(3);
    let [(admission, connection)] = bench.ledger.opened[..] else { panic!("one was opened") };
    assert_eq!([admission], bench.ledger.granted[..]);
    assert_eq!(connection.shard, ShardId(1), "on its home, not where it was accepted");
    assert_eq!(bench.ledger.asked[0].connection.shard, SHARD);
}

#[test]
fn an_admission_that_comes_to_nothing_is_released_and_never_opened() {
    let mut bench = Bench::new(Setup::default());
    bench.home = ShardId(9);
    let client = bench.request(frames::upgrade("client", "t"));
    assert_eq!(bench.answer(client).0, 503);
    bench.steps(3);
    assert!(bench.ledger.opened.is_empty());
    assert_eq!(bench.ledger.released, bench.ledger.granted);
}

#[test]
fn a_dismissed_connection_is_told_why_and_released() {
    for encrypted in [false, true] {
        let mut bench = Bench::new(Setup { encrypted, ..Setup::default() });
        let (daemon, client) = bench.pair("t");
        bench.steps(3);
        let (_, connection) = bench.ledger.opened[1];
        let reason = CloseReason::TokenRevoked;
        bench.command(SHARD, Command::Close { connection, reason });
        // Twice, as when two rules end it at once.
        bench.command(SHARD, Command::Close { connection, reason });
        bench.steps(5);
        let told = bench.socket(client).take_frames();
        assert_eq!(told, [Frame::close(4008, "token revoked")]);
        assert_eq!(bench.counted(Counter::ConnectionsDismissed), 1);
        bench.socket(client).send(&frames::close(4008));
        bench.socket(client).shutdown();
        bench.until("the release", |bench| bench.ledger.released.len() == 1);
        assert_eq!(bench.ledger.released, [bench.ledger.granted[1]]);
        assert!(bench.socket(daemon).take_frames().is_empty(), "the daemon stays");
    }
}

/// A revocation acts within a second, however much else was ordered and whoever is talking.
#[test]
fn who_is_to_go_is_told_before_other_orders() {
    let limits = Limits { guests_per_address_max: 1000, ..Setup::default().limits };
    let mut bench = Bench::new(Setup { limits, ..Setup::default() });
    let (_, quiet) = bench.pair("quiet");
    let crowd: Vec<_> = (0..200).map(|_| bench.open("client", "t")).collect();
    bench.steps(3);
    let revoked: Vec<_> = bench.ledger.opened[2..].iter().map(|opened| opened.1).collect();
    let mut seq = 0;
    let mut step = |bench: &mut Bench| {
        bench.socket(quiet).send(&frames::text(&frames::envelope(seq, 10)));
        seq += 1;
        bench.step();
    };
    let nobody = ConnectionId { shard: SHARD, slot: 1 << 20, generation: 0 };
    for _ in 0..40 {
        for _ in 0..60 {
            let refusal = Refusal::Forbidden;
            bench.command(SHARD, Command::Refuse { connection: nobody, refusal });
        }
        step(&mut bench);
    }
    for part in revoked.chunks(50) {
        for &connection in part {
            let reason = CloseReason::TokenRevoked;
            bench.command(SHARD, Command::Close { connection, reason });
        }
        step(&mut bench);
    }
    for _ in 0..10 {
        step(&mut bench);
    }
    for id in crowd {
        let told = bench.socket(id).take_frames();
        assert_eq!(told, [Frame::close(4008, "token revoked")]);
    }
}

#[test]
fn an_upgrade_that_waits_cannot_be_dismissed() {
    let mut bench = Bench::new(Setup::default());
    bench.office = Office::Silent;
    let client = bench.request(frames::upgrade("client", "t"));
    bench.until("a question", |bench| bench.ledger.asked.len() == 1);
    let connection = bench.ledger.asked[0].connection;
    bench.command(SHARD, Command::Close { connection, reason: CloseReason::ClosedByOperator });
    bench.steps(3);
    bench.admit(0);
    assert_eq!(bench.answer(client).0, 101);
}

#[test]
fn a_fresh_token_is_asked_about_and_answered_and_forwarded_to_nobody() {
    let mut bench = Bench::new(Setup::default());
    let (daemon, client) = bench.pair("t");
    let token = "a-fresh-token";
    let frame = format!(r#"{{"type":"relay.renew_token/v1","token":"{token}"}}"#);
    for (index, peer) in [daemon, client].into_iter().enumerate() {
        bench.socket(peer).send(&frames::text(frame.as_bytes()));
        bench.until("a question", |bench| bench.ledger.renewals.len() == index + 1);
        let (connection, admission, shown) = bench.ledger.renewals[index].clone();
        assert_eq!((admission, connection), bench.ledger.opened[index]);
        assert_eq!(shown, token);
        let outcome = match index {
            0 => Renewal::Renewed { expires_at_ms: None },
            _ => Renewal::Refused(RenewalRefusal::Denied),
        };
        bench.command(SHARD, Command::Renewed { connection, outcome, credential: None });
        bench.steps(3);
    }
    let renewed = r#"{"type":"relay.token_renewed/v1","expiresAtMs":null}"#;
    assert_eq!(bench.socket(daemon).take_frames(), [text(renewed)]);
    let refused = r#"{"type":"relay.token_refused/v1","reason":"token denied"}"#;
    assert_eq!(bench.socket(client).take_frames(), [text(refused)]);
    assert!(!bench.ledger.logged.iter().any(|event| event.contains("rejected")));
}

#[test]
fn versions_are_acknowledged_and_stale_ones_refused() {
    let mut bench = Bench::new(Setup::default());
    let limits =
        |version| Command::SetLimits(Arc::new(Limits { version, ..Setup::default().limits }));
    let routes = |version| Command::SetRoutes(Arc::new(Routes { version, ..Routes::default() }));
    for order in [limits(7), limits(5), routes(3), routes(3), routes(4)] {
        bench.command(SHARD, order);
    }
    bench.steps(3);
    let (of_limits, of_routes) = (Versioned::Limits, Versioned::Routes);
    assert_eq!(
        bench.ledger.in_force,
        [
            (SHARD, of_limits, 7),
            (SHARD, of_limits, 7),
            (SHARD, of_routes, 3),
            (SHARD, of_routes, 3),
            (SHARD, of_routes, 4),
        ]
    );
    assert_eq!(bench.counted(Counter::StaleVersionsRefused), 2);
}

fn text(text: &str) -> Frame {
    Frame { opcode: TEXT, payload: text.into() }
}
