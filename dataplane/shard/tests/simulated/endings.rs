//! Whatever the kernel reports in whatever state, everything comes back.

use std::time::Duration;

use crate::bench::{Bench, Setup, SocketId};
use crate::frames;
use crate::phases::{STAGES, Stage, reach};

/// What happens to the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Blow {
    /// FIN, behind close_notify under TLS.
    Eof,
    /// RST.
    Reset,
    /// More bytes, of no use.
    Data,
    /// A close frame and FIN together.
    Farewell,
    /// RST while something is being sent.
    FailedSend,
    /// Silence.
    Nothing,
    /// It reads no more.
    Deaf,
    /// FIN, and it reads no more.
    DeafEof,
}

const BLOWS: [Blow; 8] = [
    Blow::Eof,
    Blow::Reset,
    Blow::Data,
    Blow::Farewell,
    Blow::FailedSend,
    Blow::Nothing,
    Blow::Deaf,
    Blow::DeafEof,
];

fn strike(bench: &mut Bench, id: SocketId, blow: Blow) {
    match blow {
        Blow::Eof => {
            bench.socket(id).close_notify();
            bench.socket(id).pump();
            bench.socket(id).shutdown();
        }
        Blow::Reset => bench.socket(id).reset(),
        Blow::Data => bench.socket(id).send(&[b'x'; 500]),
        Blow::Farewell => {
            bench.socket(id).send(&frames::close(1000));
            bench.socket(id).pump();
            bench.socket(id).shutdown();
        }
        Blow::FailedSend => {
            answer(bench);
            bench.step();
            bench.socket(id).reset();
        }
        Blow::Nothing => {}
        Blow::Deaf => bench.socket(id).reads = false,
        Blow::DeafEof => {
            bench.socket(id).reads = false;
            bench.socket(id).shutdown();
        }
    }
}

/// The control plane answers everything it was asked.
fn answer(bench: &mut Bench) {
    for index in bench.ledger.granted.len()..bench.ledger.asked.len() {
        bench.admit(index);
    }
    if let Some(&connection) = bench.ledger.http_asked.last() {
        bench.respond(connection);
    }
}

/// When the control plane answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Never,
    /// In the turn in which the blow is seen.
    AtOnce,
    Later,
}

fn everything_comes_back(stage: Stage, encrypted: bool) {
    for blow in BLOWS {
        for when in [Answer::Never, Answer::AtOnce, Answer::Later] {
            let what = format!("{stage:?} {blow:?} {when:?} encrypted: {encrypted}");
            let (mut bench, id) = reach(stage, Setup { encrypted, ..Setup::default() });
            strike(&mut bench, id, blow);
            if when == Answer::AtOnce {
                answer(&mut bench);
            }
            bench.steps(5);
            if when == Answer::Later {
                answer(&mut bench);
            }
            bench.pass(Duration::from_secs(8));
            bench.reset_all();
            bench.pass(Duration::from_secs(4));
            bench.assert_nothing_is_left(&what);
        }
    }
}

#[test]
fn every_ending_in_every_state_returns_everything() {
    for stage in STAGES {
        everything_comes_back(stage, false);
    }
}

#[test]
fn every_ending_in_every_state_returns_everything_under_tls() {
    for stage in STAGES {
        everything_comes_back(stage, true);
    }
}

#[test]
fn a_slot_is_good_for_another_connection_after_every_ending() {
    for stage in STAGES {
        let (mut bench, id) = reach(stage, Setup::default());
        bench.socket(id).reset();
        answer(&mut bench);
        bench.reset_all();
        bench.pass(Duration::from_secs(4));
        bench.office = crate::bench::Office::Admits;
        let (daemon, client) = bench.pair("t");
        let payload = frames::envelope(1, 10);
        bench.socket(client).send(&frames::text(&payload));
        bench.steps(50);
        let arrived = bench.socket(daemon).take_frames();
        assert_eq!(arrived.len(), 1, "{stage:?}");
        assert_eq!(arrived[0].payload, payload, "{stage:?}");
    }
}
