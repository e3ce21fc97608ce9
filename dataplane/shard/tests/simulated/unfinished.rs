//! Messages whose end does not come.

use relay_contract::Limits;
use relay_driver::Config;
use relay_driver::sim::Faults;

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, CLOSE, Frame, TEXT};

const BUFFERS: u16 = 16;

fn bench() -> Bench {
    Bench::new(Setup {
        driver: Config { buffer_count: BUFFERS, ..Setup::default().driver },
        limits: Limits { egress_bytes_max: 32 << 10, ..Setup::default().limits },
        faults: Faults { socket_bytes: 8 << 10, ..Faults::none() },
        ..Setup::default()
    })
}

/// The first fragment of a text message.
fn fragment() -> Vec<u8> {
    frames::masked(TEXT, &[b' '; 1000])
}

/// Clients that each begin a message; nobody ends one.
fn begin_messages(bench: &mut Bench, count: u16, bytes: &[u8]) -> Vec<SocketId> {
    let clients: Vec<_> = (0..count).map(|_| bench.open("client", "begun")).collect();
    for &client in &clients {
        bench.socket(client).send(bytes);
        bench.steps(2);
        let pinned = bench.audit().pinned_leases;
        assert!(pinned <= usize::from(BUFFERS / 4), "{pinned} buffers are held");
    }
    assert!(bench.audit().pinned_leases > 0, "messages are begun");
    clients
}

fn assert_frames_flow(bench: &mut Bench) {
    let (daemon, client) = bench.pair("other");
    let payload = frames::envelope(1, 9000);
    bench.socket(client).send(&frames::text(&payload));
    bench.steps(30);
    assert_eq!(bench.socket(daemon).take_frames(), [Frame { opcode: TEXT, payload }]);
}

#[test]
fn unfinished_messages_hold_at_most_a_quarter_of_the_buffers() {
    let whole = frames::text(&[b' '; 2000]);
    for begun in [fragment(), whole[..1000].to_vec(), fragment()[..20].to_vec()] {
        let mut bench = bench();
        begin_messages(&mut bench, BUFFERS + 1, &begun);
        assert_eq!(bench.buffers_in_use(), bench.audit().pinned_leases, "nothing else is held");
        assert_frames_flow(&mut bench);
    }
}

#[test]
fn one_message_in_many_pieces_holds_at_most_a_quarter_of_the_buffers() {
    let mut bench = bench();
    let client = bench.open("client", "begun");
    bench.socket(client).send(&frames::masked(TEXT, b" "));
    for _ in 0..100 {
        bench.socket(client).send(&frames::masked(0, b" "));
        bench.step();
        assert!(bench.audit().pinned_leases <= usize::from(BUFFERS / 4));
    }
    assert_frames_flow(&mut bench);
}

fn no_buffer_is_held_after(what: &str, end: impl Fn(&mut Bench, SocketId)) {
    let mut bench = bench();
    let clients = begin_messages(&mut bench, BUFFERS / 2, &fragment());
    for &client in &clients {
        end(&mut bench, client);
    }
    bench.steps(20);
    assert_eq!(bench.audit().pinned_leases, 0, "{what}");
    assert_eq!(bench.buffers_in_use(), 0, "{what}");
    assert_frames_flow(&mut bench);
}

#[test]
fn a_cut_returns_the_buffers_of_an_unfinished_message() {
    no_buffer_is_held_after("a reset", |bench, client| bench.socket(client).reset());
    no_buffer_is_held_after("a FIN", |bench, client| bench.socket(client).shutdown());
}

#[test]
fn a_close_frame_returns_the_buffers_of_an_unfinished_message() {
    no_buffer_is_held_after("a close frame", |bench, client| {
        bench.socket(client).send(&frames::close(1000));
    });
}

#[test]
fn a_violation_returns_the_buffers_of_an_unfinished_message() {
    no_buffer_is_held_after("an unmasked frame", |bench, client| {
        bench.socket(client).send(&[0x80, 1, b' ']);
    });
    no_buffer_is_held_after("a new message inside", |bench, client| {
        bench.socket(client).send(&frames::text(b" "));
    });
}

#[test]
fn an_overflow_returns_the_buffers_of_an_unfinished_message() {
    let mut bench = bench();
    let (daemon, client) = bench.pair("t");
    bench.socket(daemon).reads = false;
    bench.socket(daemon).send(&fragment());
    bench.steps(5);
    assert_eq!(bench.audit().pinned_leases, 1);
    for seq in 0..40 {
        bench.socket(client).send(&frames::text(&frames::envelope(seq, 3000)));
    }
    bench.steps(100);
    assert_eq!(bench.audit().pinned_leases, 0);
    bench.socket(daemon).reads = true;
    // What the daemon goes on to say is not gathered any more.
    bench.socket(daemon).send(&frames::masked(0, &[b' '; 1000]));
    bench.steps(100);
    assert_eq!((bench.audit().pinned_leases, bench.buffers_in_use()), (0, 0));
    let frames = bench.socket(daemon).take_frames();
    assert_eq!(frames.last(), Some(&Frame::close(4008, "buffer overflow")));
    assert_eq!(frames.iter().filter(|frame| frame.opcode == CLOSE).count(), 1);
}

#[test]
fn the_end_of_a_copied_message_makes_it_whole() {
    let mut bench = bench();
    let daemon = bench.open("workspace-daemon", "begun");
    let payload = frames::envelope(1, 3000);
    let (head, tail) = payload.split_at(1500);
    let begun = frames::masked(TEXT, head);
    let clients = begin_messages(&mut bench, BUFFERS + 1, &begun);
    for client in clients {
        bench.socket(client).send(&frames::masked(0x80, tail));
        bench.step();
    }
    bench.steps(20);
    let frames = bench.socket(daemon).take_frames();
    assert_eq!(frames.len(), usize::from(BUFFERS + 1));
    assert!(frames.iter().all(|frame| frame.payload == payload));
    assert_eq!(bench.audit().pinned_leases, 0);
}
