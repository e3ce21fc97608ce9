//! Texts that are hard on whoever reads them, through a whole shard.

use relay_contract::Counter;

use crate::bench::{Bench, Setup, SocketId};
use crate::frames::{self, CLOSE, Frame, TEXT};

/// A frame to forward, with `inside` at the front of its members.
fn envelope_with(inside: &[u8]) -> Vec<u8> {
    let frame = frames::envelope(1, 10);
    [b"{", inside, b",", &frame[1..]].concat()
}

/// One message in fragments of that size.
fn fragmented(payload: &[u8], bytes: usize) -> Vec<u8> {
    let mut message = Vec::new();
    let mut parts = payload.chunks(bytes).enumerate().peekable();
    while let Some((index, part)) = parts.next() {
        let opcode = if index == 0 { TEXT } else { 0 };
        let last = if parts.peek().is_none() { 0x80 } else { 0 };
        message.extend(frames::masked(last | opcode, part));
    }
    message
}

fn assert_forwarded(bench: &mut Bench, daemon: SocketId, payload: &[u8], what: &str) {
    let mut arrived = Vec::new();
    bench.until(what, |bench| {
        arrived.extend(bench.socket(daemon).take_frames());
        !arrived.is_empty()
    });
    assert_eq!(arrived.len(), 1, "{what}");
    assert!(arrived[0].opcode == TEXT && arrived[0].payload == payload, "{what}");
}

/// Sent whole and in fragments, the text reaches the daemon byte by byte.
fn is_forwarded(what: &str, payload: &[u8]) {
    let mut bench = Bench::new(Setup::default());
    let (daemon, client) = bench.pair("t");
    let fragment_bytes = (payload.len() / 40).max(1);
    for message in [frames::text(payload), fragmented(payload, fragment_bytes)] {
        bench.socket(client).send(&message);
        assert_forwarded(&mut bench, daemon, payload, what);
    }
}

/// Sent whole and in fragments, the text is answered as invalid and the connection stays.
fn is_no_frame(what: &str, payload: &[u8]) {
    let mut bench = Bench::new(Setup::default());
    let (daemon, client) = bench.pair("t");
    let fragment_bytes = (payload.len() / 40).max(1);
    for message in [frames::text(payload), fragmented(payload, fragment_bytes)] {
        bench.socket(client).send(&message);
        let mut told = Vec::new();
        bench.until(what, |bench| {
            told.extend(bench.socket(client).take_frames());
            !told.is_empty()
        });
        let text = String::from_utf8_lossy(&told[0].payload).into_owned();
        assert!(told[0].opcode == TEXT && text.contains("INVALID_FRAME"), "{what}: {text}");
    }
    let good = frames::envelope(1, 10);
    bench.socket(client).send(&frames::text(&good));
    assert_forwarded(&mut bench, daemon, &good, what);
}

#[test]
fn json_nested_half_a_million_deep_is_forwarded() {
    let nested = [b"\"x\":".to_vec(), b"[".repeat(500_000), b"]".repeat(500_000)].concat();
    is_forwarded("arrays", &envelope_with(&nested));
    let nested =
        [b"\"x\":".to_vec(), b"{\"\":".repeat(150_000), b"0".to_vec(), b"}".repeat(150_000)];
    is_forwarded("objects", &envelope_with(&nested.concat()));
}

#[test]
fn json_nested_a_million_deep_without_an_end_is_no_frame() {
    is_no_frame("arrays", &b"[".repeat(1_000_000));
    is_no_frame("objects", &b"{\"\":".repeat(250_000));
    is_no_frame("closing brackets", &b"]".repeat(1_000_000));
}

#[test]
fn a_megabyte_of_white_space_around_a_frame_is_forwarded() {
    let frame = frames::envelope(1, 10);
    let space = b" \t\r\n".repeat(250_000);
    is_forwarded("before", &[&space[..], &frame].concat());
    is_forwarded("behind", &[&frame[..], &space].concat());
    is_no_frame("nothing else", &space);
}

#[test]
fn giant_numbers_are_forwarded_as_they_stand() {
    let digits = "9".repeat(400_000);
    for number in [&digits[..], &format!("-{digits}.{digits}"), "1e400", "-1E-4000000000", "0.0e0"]
    {
        is_forwarded("a number", &envelope_with(format!("\"x\":{number}").as_bytes()));
    }
    for number in ["01", "+1", "1.", ".5", "1e", "0x10", "NaN", "Infinity", "1_000", "--1"] {
        is_no_frame(number, &envelope_with(format!("\"x\":{number}").as_bytes()));
    }
}

#[test]
fn of_equal_names_the_last_counts() {
    is_forwarded("a type that is replaced", &envelope_with(br#""type":"nothing""#));
    let many = [br#""type":[{}],"#.repeat(40_000), br#""type":0"#.to_vec()].concat();
    is_forwarded("many types", &envelope_with(&many));
    let frame = frames::envelope(1, 10);
    let last = [&frame[..frame.len() - 1], br#","type":"nothing"}"#].concat();
    is_no_frame("a type that replaces", &last);
}

#[test]
fn names_count_as_they_read_and_not_as_they_are_spelled() {
    let text = String::from_utf8(frames::envelope(1, 10)).expect("it is text");
    let spelled = text.replace("\"type\"", r#""\u0074\u0079\u0070\u0065""#);
    is_forwarded("an escaped name", spelled.as_bytes());
    let spelled = text.replace("\"e2ee\"", r#""\u0065\u0032\u0065\u0065""#);
    is_forwarded("an escaped value", spelled.as_bytes());
    let behind = text.replacen('}', r#","\u0074ype":"nothing"}"#, 1);
    is_no_frame("an escaped name that replaces", behind.as_bytes());
}

#[test]
fn lone_surrogates_escaped_zeros_and_strange_characters_are_forwarded() {
    for value in
        [r"\ud800", r"\udfff\ud800", r"\u0000", "\u{feff}\u{202e}\u{10ffff}", r"\ud83d\ude00"]
    {
        is_forwarded(value, &envelope_with(format!("\"x\":\"{value}\"").as_bytes()));
    }
}

#[test]
fn raw_zeros_control_characters_and_byte_order_marks_are_no_frames() {
    for value in [&b"\"x\":\"\0\""[..], b"\"x\":\"\n\"", b"\0\"x\":1", b"\"x\":\x0b1", b"'x':1"] {
        is_no_frame("a control character", &envelope_with(value));
    }
    let frame = frames::envelope(1, 10);
    is_no_frame("a byte order mark", &[b"\xef\xbb\xbf", &frame[..]].concat());
    is_no_frame("a zero behind", &[&frame[..], b"\0"].concat());
    is_no_frame("two frames in one", &frame.repeat(2));
}

/// Byte sequences that no UTF-8 text holds. Source: RFC 3629.
const NOT_UTF8: [&[u8]; 8] = [
    b"\xff",
    b"\x80",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xed\xa0\x80",
    b"\xf0\x80\x80\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
];

/// Sends the parts, each in a receive of its own, and returns how the relay closed.
fn closed_by(parts: &[&[u8]]) -> Option<Frame> {
    let mut bench = Bench::new(Setup::default());
    let (daemon, client) = bench.pair("t");
    for part in parts {
        bench.socket(client).send(part);
        bench.steps(2);
    }
    bench.steps(5);
    assert_eq!(bench.socket(daemon).take_frames(), [], "nothing of it is forwarded");
    bench.socket(client).take_frames().into_iter().find(|frame| frame.opcode == CLOSE)
}

fn close_1007() -> Option<Frame> {
    Some(Frame { opcode: CLOSE, payload: 1007_u16.to_be_bytes().to_vec() })
}

/// Where a text is cut around the place that is no UTF-8.
fn cuts(at: usize, len: usize) -> std::ops::RangeInclusive<usize> {
    at - 1..=at + len + 1
}

#[test]
fn invalid_utf8_is_closed_with_1007_wherever_the_stream_is_cut() {
    for bad in NOT_UTF8 {
        let payload = envelope_with(&[b"\"x\":\"", bad, b"\""].concat());
        let frame = frames::text(&payload);
        let header_len = frame.len() - payload.len();
        for cut in cuts(header_len + 6, bad.len()) {
            let (head, tail) = frame.split_at(cut);
            assert_eq!(closed_by(&[head, tail]), close_1007(), "{bad:?} at {cut}");
        }
    }
}

#[test]
fn invalid_utf8_is_closed_with_1007_wherever_the_message_is_cut() {
    for bad in NOT_UTF8 {
        let payload = envelope_with(&[b"\"x\":\"", bad, b"\""].concat());
        for cut in cuts(6, bad.len()) {
            let (head, tail) = payload.split_at(cut);
            let fragments = [frames::masked(TEXT, head), frames::masked(0x80, tail)];
            let together = fragments.concat();
            assert_eq!(closed_by(&[&together]), close_1007(), "{bad:?} at {cut}");
            let apart: [&[u8]; 3] = [&fragments[0], &frames::ping(b""), &fragments[1]];
            assert_eq!(closed_by(&apart), close_1007(), "{bad:?} at {cut}");
        }
    }
}

#[test]
fn invalid_utf8_is_closed_with_1007_in_names_between_members_and_at_the_end() {
    for bad in NOT_UTF8 {
        let in_name = envelope_with(&[b"\"", bad, b"\":1"].concat());
        let between = envelope_with(&[b"\"x\":1", bad].concat());
        let at_end = [&frames::envelope(1, 10)[..], bad].concat();
        for payload in [in_name, between, at_end] {
            assert_eq!(closed_by(&[&frames::text(&payload)]), close_1007(), "{bad:?}");
        }
    }
}

#[test]
fn invalid_utf8_in_a_close_reason_is_closed_with_1007() {
    for bad in NOT_UTF8 {
        let reason = [&1000_u16.to_be_bytes()[..], b"bye", bad].concat();
        let frame = frames::masked(0x80 | CLOSE, &reason);
        for cut in 1..frame.len() {
            let (head, tail) = frame.split_at(cut);
            assert_eq!(closed_by(&[head, tail]), close_1007(), "{bad:?} at {cut}");
        }
    }
}

#[test]
fn a_character_cut_anywhere_is_still_one() {
    let payload = envelope_with("\"x\":\"€😀é\"".as_bytes());
    for cut in 5..18 {
        let (head, tail) = payload.split_at(cut);
        let mut bench = Bench::new(Setup::default());
        let (daemon, client) = bench.pair("t");
        bench.socket(client).send(&frames::masked(TEXT, head));
        bench.steps(2);
        bench.socket(client).send(&frames::masked(0x80, tail));
        assert_forwarded(&mut bench, daemon, &payload, "a text cut in two");
    }
}

#[test]
fn a_binary_message_that_is_no_utf8_reaches_the_daemon_as_text() {
    let payload = envelope_with(b"\"x\":\"\xff\xe2\x82\"");
    let mut bench = Bench::new(Setup::default());
    let (daemon, client) = bench.pair("t");
    bench.socket(client).send(&frames::masked(0x82, &payload));
    let decoded = String::from_utf8_lossy(&payload).into_owned();
    assert_forwarded(&mut bench, daemon, decoded.as_bytes(), "replaced characters");
    assert_eq!(bench.counted(Counter::FramesClientToDaemon), 1);
}
