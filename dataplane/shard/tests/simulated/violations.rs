//! Peers that break the protocol: whoever they are and however far they came, they go alone.

use std::time::Duration;

use relay_contract::Limits;
use relay_driver::sim::PeerState;

use crate::bench::{Bench, Office, Setup, SocketId};
use crate::frames::{self, CLOSE, Frame, PING, TEXT};

const ROLES: [&str; 3] = ["workspace-daemon", "client", "worker"];
const FRAME_BYTES_MAX: usize = 4000;

/// How far a connection came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// It got its 101 and its claims fit.
    Admitted,
    /// The control plane has not answered; what it sends follows the request head at once.
    Pending,
    /// It was closed with 4008 and has not answered that.
    Rejected,
}

const STANDINGS: [Standing; 3] = [Standing::Admitted, Standing::Pending, Standing::Rejected];

/// What breaks the protocol, with the code it is closed with. Source: RFC 6455 §5 and §7.4.
fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    let huge = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let announced = [&[0x81, 0xfe][..], &0xffff_u16.to_be_bytes(), &[0; 4]].concat();
    let grown = [frames::masked(TEXT, &[b' '; 3000]), frames::masked(0x80, &[b' '; 3000])];
    vec![
        ("an unmasked frame", vec![0x81, 1, b'x'], 1002),
        ("a reserved bit", frames::masked(0xc1, b"x"), 1002),
        ("an unknown opcode", frames::masked(0x83, b"x"), 1002),
        ("an unknown control opcode", frames::masked(0x8f, b"x"), 1002),
        ("a continuation of nothing", frames::masked(0x80, b"x"), 1002),
        ("a message inside a message", frames::masked(TEXT, b"x").repeat(2), 1002),
        ("a fragmented ping", frames::masked(PING, b"x"), 1002),
        ("a long ping", frames::masked(0x80 | PING, &[b'x'; 126]), 1002),
        ("half a close code", frames::masked(0x80 | CLOSE, b"x"), 1002),
        ("a close code of nobody", frames::close(1006), 1002),
        ("no UTF-8", frames::text(b"\xff"), 1007),
        ("no UTF-8 in a close reason", frames::masked(0x80 | CLOSE, b"\x03\xe8\xff"), 1007),
        ("an oversize message", frames::text(&[b' '; FRAME_BYTES_MAX + 1]), 1009),
        ("an oversize announcement", announced, 1009),
        ("an announcement of all there is", huge, 1009),
        ("a message that grows too large", grown.concat(), 1009),
    ]
}

fn bench(encrypted: bool) -> Bench {
    let limits = Limits { frame_bytes_max: FRAME_BYTES_MAX, ..Setup::default().limits };
    Bench::new(Setup { limits, encrypted, ..Setup::default() })
}

/// Brings a connection of that role there and lets it send the bytes.
fn violate(bench: &mut Bench, role: &str, standing: Standing, bytes: &[u8]) -> SocketId {
    match standing {
        Standing::Admitted => {
            let id = bench.open(role, "violated");
            bench.socket(id).send(bytes);
            id
        }
        Standing::Pending => {
            bench.office = Office::Silent;
            let asked = bench.ledger.asked.len();
            let id = bench.request(frames::upgrade(role, "violated"));
            bench.until("a question", |bench| bench.ledger.asked.len() > asked);
            bench.socket(id).send(bytes);
            bench.steps(3);
            bench.office = Office::Admits;
            bench.admit(asked);
            assert_eq!(bench.answer(id).0, 101);
            id
        }
        Standing::Rejected => {
            bench.claims_fit = false;
            let id = bench.open(role, "violated");
            bench.claims_fit = true;
            bench.until("a close frame", |bench| {
                let told = bench.socket(id).take_frames();
                told.contains(&Frame::close(4008, "workspace claim mismatch"))
            });
            bench.socket(id).send(bytes);
            id
        }
    }
}

fn it_goes_alone(encrypted: bool) {
    for role in ROLES {
        for standing in STANDINGS {
            for (what, bytes, code) in violations() {
                let what = format!("{what} by a {standing:?} {role}, encrypted: {encrypted}");
                let mut bench = bench(encrypted);
                let (daemon, client) = bench.pair("t");
                let id = violate(&mut bench, role, standing, &bytes);
                bench.steps(20);
                let told = bench.socket(id).take_frames();
                if standing == Standing::Rejected {
                    assert_eq!(told, [], "{what}: it was told already");
                } else {
                    let close = Frame { opcode: CLOSE, payload: code.to_be_bytes().to_vec() };
                    assert_eq!(told, [close], "{what}");
                }
                let payload = frames::envelope(1, 100);
                bench.socket(client).send(&frames::text(&payload));
                bench.steps(5);
                let arrived = bench.socket(daemon).take_frames();
                assert_eq!(arrived, [Frame { opcode: TEXT, payload }], "{what}");
                bench.socket(id).shutdown();
                bench.pass(Duration::from_secs(3));
                assert_ne!(bench.socket(id).state(), PeerState::Open, "{what}");
                assert_eq!(bench.ledger.released, bench.ledger.granted[2..], "{what}");
            }
        }
    }
}

#[test]
fn a_violation_by_any_role_admitted_pending_or_rejected_ends_that_connection_alone() {
    it_goes_alone(false);
}

#[test]
fn a_violation_by_any_role_admitted_pending_or_rejected_ends_that_connection_alone_under_tls() {
    it_goes_alone(true);
}

#[test]
fn a_violator_that_never_reads_nor_ends_is_cut() {
    for role in ROLES {
        for standing in STANDINGS {
            let mut bench = bench(false);
            let id = violate(&mut bench, role, standing, &[0x81, 1, b'x']);
            bench.socket(id).reads = false;
            bench.pass(Duration::from_secs(4));
            bench.assert_nothing_is_left(&format!("a {standing:?} {role}"));
        }
    }
}

#[test]
fn a_rejected_connection_may_flood_and_is_cut_all_the_same() {
    for role in ROLES {
        let mut bench = bench(false);
        let id = violate(&mut bench, role, Standing::Rejected, b"");
        for _ in 0..400 {
            bench.socket(id).send(&frames::ping(b"x").repeat(20));
            bench.socket(id).send(&frames::text(&frames::envelope(1, 100)));
            bench.step_by(Duration::from_millis(10));
        }
        assert_eq!(bench.socket(id).take_frames(), [], "nothing is answered");
        bench.assert_nothing_is_left(role);
    }
}
