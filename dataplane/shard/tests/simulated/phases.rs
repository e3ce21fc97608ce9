//! A connection in every state a connection can be in.

use std::time::Duration;

use relay_contract::Limits;
use relay_driver::sim::Faults;

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames::{self, CLOSE, TEXT};

/// Where the connection is, as its peer brought it there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Connected and silent; under TLS, after the handshake.
    Fresh,
    /// Inside a request head.
    InHead,
    /// Between two requests.
    Served,
    /// A request waits for the control plane.
    Asked,
    /// An answer waits for the peer to read it.
    Unflushed,
    /// An upgrade waits for the control plane.
    Waiting,
    /// A WebSocket.
    Open,
    /// Inside a frame's header.
    InFrameHeader,
    /// Inside a frame's payload.
    InPayload,
    /// Between two fragments of a message.
    BetweenFragments,
    /// A WebSocket whose bytes the peer does not read.
    Stalled,
    /// The relay sent its close frame.
    CloseSent,
    /// The peer's close frame was answered; its FIN is awaited.
    Leaving,
}

pub(crate) const STAGES: [Stage; 13] = [
    Stage::Fresh,
    Stage::InHead,
    Stage::Served,
    Stage::Asked,
    Stage::Unflushed,
    Stage::Waiting,
    Stage::Open,
    Stage::InFrameHeader,
    Stage::InPayload,
    Stage::BetweenFragments,
    Stage::Stalled,
    Stage::CloseSent,
    Stage::Leaving,
];

/// A bench whose deadlines are short and whose control plane answers only on demand, with one
/// connection in that state. Nothing answers for the connection any more.
pub(crate) fn reach(stage: Stage, setup: Setup) -> (Bench, SocketId) {
    let limits = Limits {
        head_timeout: Duration::from_secs(3),
        tls_handshake_timeout: Duration::from_secs(3),
        keep_alive_timeout: Duration::from_secs(3),
        admission_timeout: Duration::from_secs(3),
        ..setup.limits
    };
    let faults = match stage {
        Stage::Unflushed | Stage::Stalled => Faults { socket_bytes: 128, ..Faults::none() },
        _ => Faults::none(),
    };
    let mut bench = Bench::new(Setup { limits, faults, ..setup });
    let id = match stage {
        Stage::Fresh => bench.connect(),
        Stage::Served => served(&mut bench),
        Stage::Asked | Stage::Waiting => asked(&mut bench, stage),
        Stage::Unflushed => unflushed(&mut bench),
        Stage::InHead => bench.request(&frames::upgrade("client", "t")[..60]),
        Stage::Open => bench.open("client", "t"),
        Stage::InFrameHeader => cut(&mut bench, &frames::text(&[b' '; 1000])[..3]),
        Stage::InPayload => cut(&mut bench, &frames::text(&[b' '; 1000])[..500]),
        Stage::BetweenFragments => cut(&mut bench, &frames::masked(TEXT, b"{")),
        Stage::Stalled => stalled(&mut bench),
        Stage::CloseSent => close_sent(&mut bench),
        Stage::Leaving => leaving(&mut bench),
    };
    bench.steps(20);
    bench.office = Office::Silent;
    (bench, id)
}

/// A WebSocket whose peer has sent so much and no more.
fn cut(bench: &mut Bench, bytes: &[u8]) -> SocketId {
    let id = bench.open("client", "t");
    bench.socket(id).send(bytes);
    id
}

fn served(bench: &mut Bench) -> SocketId {
    let id = bench.request(frames::get("/health"));
    assert_eq!(bench.answer(id).0, 200);
    id
}

fn asked(bench: &mut Bench, stage: Stage) -> SocketId {
    bench.office = Office::Silent;
    let upgrade = stage == Stage::Waiting;
    let id =
        bench.request(if upgrade { frames::upgrade("client", "t") } else { frames::get("/state") });
    bench.until("a question", |bench| {
        !bench.ledger.asked.is_empty() || !bench.ledger.http_asked.is_empty()
    });
    id
}

fn unflushed(bench: &mut Bench) -> SocketId {
    let id = served(bench);
    bench.socket(id).reads = false;
    bench.socket(id).send(frames::get("/health").repeat(3).as_bytes());
    id
}

fn stalled(bench: &mut Bench) -> SocketId {
    let (daemon, client) = bench.pair("t");
    bench.socket(daemon).reads = false;
    bench.socket(client).send(&frames::text(&frames::envelope(1, 500)).repeat(3));
    bench.steps(60);
    bench.socket(client).reset();
    daemon
}

fn close_sent(bench: &mut Bench) -> SocketId {
    let _daemon = bench.open("workspace-daemon", "t");
    let id = bench.open("workspace-daemon", "t");
    bench.until("a close frame", |bench| {
        bench.socket(id).take_frames().iter().any(|frame| frame.opcode == CLOSE)
    });
    id
}

fn leaving(bench: &mut Bench) -> SocketId {
    let id = bench.open("client", "t");
    bench.socket(id).send(&frames::close(1000));
    id
}
