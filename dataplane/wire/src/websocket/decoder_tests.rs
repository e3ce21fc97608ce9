use proptest::prelude::*;

use super::super::message::{FINAL, FRAGMENT_COUNT_MAX, MASKED};
use super::*;
use crate::envelope::Envelope;

const LIMIT: usize = 1 << 20;

/// A frame as a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, [0x37, 0xfa, 0x21, 0x3d], payload)
}

fn masked(first: u8, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(MASKED | len as u8),
        len @ 126..=0xffff => {
            bytes.push(MASKED | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(MASKED | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// What a stream means, however it was cut.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Meaning {
    Message { opcode: DataOpcode, utf8: bool, payload: Vec<u8>, envelope: String },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
    Error(FrameError),
}

/// A connection's receiving side that writes its decoder down between any two buffers.
struct Receiver {
    /// Whether frames are to lie close together.
    close: bool,
    decoder: Decoder,
    scanner: Scanner,
    payload: Vec<u8>,
    meanings: Vec<Meaning>,
    /// Of the piece that took the most.
    steps_max: u32,
}

impl Receiver {
    fn new(close: bool) -> Self {
        Self {
            close,
            decoder: Decoder::new(),
            scanner: Scanner::new(),
            payload: Vec::new(),
            meanings: Vec::new(),
            steps_max: 0,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut input = bytes.to_vec();
        let mut at = 0;
        // What was handed out ends here.
        let mut free = 0;
        loop {
            let before = input[..free].to_vec();
            let scanner = &mut self.scanner;
            let step = match self.close {
                true => self.decoder.next_close(&mut input, free, at, LIMIT, scanner),
                false => self.decoder.next(&mut input, at, LIMIT, scanner),
            };
            assert_eq!(input[..free], before, "what was handed out stays");
            if let Ok(Step::Piece(piece)) = &step {
                self.check_place(piece, free);
                free = if self.close { piece.payload.end } else { piece.at };
            }
            at = match step {
                Err(error) => {
                    self.meanings.push(Meaning::Error(error));
                    break;
                }
                Ok(Step::NeedMore) => break,
                Ok(Step::Piece(piece)) => self.piece(&piece, &input),
                Ok(Step::Ping { payload, at }) => {
                    self.meanings.push(Meaning::Ping(payload.bytes(&input).to_vec()));
                    at
                }
                Ok(Step::Pong { payload, at }) => {
                    self.meanings.push(Meaning::Pong(payload.bytes(&input).to_vec()));
                    at
                }
                Ok(Step::Close { code, payload, at }) => {
                    let payload = payload.bytes(&input).to_vec();
                    self.meanings.push(Meaning::Close(code.map(|code| code.0), payload));
                    at
                }
            };
        }
        let written = postcard::to_allocvec(&self.decoder).unwrap();
        self.decoder = postcard::from_bytes(&written).unwrap();
    }

    fn check_place(&self, piece: &Piece, free: usize) {
        assert!(piece.payload.end <= piece.at);
        assert!(piece.header_room == 0 || free <= piece.payload.start - piece.header_room);
        let is_whole_frame = piece.first && piece.last && piece.header_room > 0;
        if self.close && is_whole_frame {
            let (_, header_len) = header(Opcode::Text, piece.payload.len());
            assert_eq!(free + header_len, piece.payload.start, "the header fits exactly");
        }
    }

    fn piece(&mut self, piece: &Piece, input: &[u8]) -> usize {
        assert_eq!(piece.first, self.payload.is_empty() && !self.begun(), "{piece:?}");
        assert!(piece.header_room <= piece.payload.start);
        self.steps_max = self.steps_max.max(piece.steps);
        self.payload.push(1);
        self.payload.extend_from_slice(&input[piece.payload.clone()]);
        if piece.last {
            self.meanings.push(Meaning::Message {
                opcode: piece.opcode,
                utf8: piece.utf8,
                payload: self.content(),
                envelope: format!("{:?}", self.scanner.finish()),
            });
            self.payload.clear();
        }
        piece.at
    }

    fn begun(&self) -> bool {
        !self.payload.is_empty()
    }

    /// The payload gathered so far; tests send no byte 1, which marks the start of a piece.
    fn content(&self) -> Vec<u8> {
        self.payload.iter().copied().filter(|&byte| byte != 1).collect()
    }
}

/// The same whether frames stay where they lie or are moved together.
fn meanings(pieces: &[&[u8]]) -> Vec<Meaning> {
    let [stayed, moved] = [false, true].map(|close| {
        let mut receiver = Receiver::new(close);
        for piece in pieces {
            receiver.receive(piece);
        }
        receiver.meanings
    });
    assert_eq!(stayed, moved);
    stayed
}

/// The error a stream ends in, whatever its cut.
fn error(stream: &[u8]) -> FrameError {
    let whole = meanings(&[stream]);
    for cut in 0..=stream.len() {
        assert_eq!(meanings(&[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
    }
    match whole.last() {
        Some(Meaning::Error(error)) => *error,
        other => panic!("no error but {other:?}"),
    }
}

const E2EE: &str = include_str!("../../vectors/e2ee_wide.json");

#[test]
fn a_whole_text_is_one_piece_with_room_for_its_new_header() {
    for len in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = vec![b'a'; len];
        let mut input = b"before".to_vec();
        input.extend(frame(0x81, &payload));
        let header_len = input.len() - 6 - len;
        let mut decoder = Decoder::new();
        let step = decoder.next(&mut input, 6, LIMIT, &mut Scanner::new()).unwrap();
        let Step::Piece(piece) = step else { panic!("{step:?}") };
        assert_eq!(&input[piece.payload.clone()], payload);
        assert_eq!(piece.header_room, header_len);
        assert!(piece.first && piece.last && piece.utf8);
        assert_eq!(piece.at, input.len());
        let start = super::super::place_header(
            &mut input,
            piece.payload.start,
            piece.header_room,
            super::super::Opcode::Text,
            len,
        );
        assert!(start.is_some_and(|start| start >= 6), "{len}");
        assert_eq!(&input[..6], b"before");
    }
}

#[test]
fn frames_that_are_moved_together_are_one_run_of_frames() {
    let payloads = [&b""[..], b"a", &[b'b'; 125], &[b'c'; 126], &[b'd'; 70_000], &[b'e'; 5000]];
    let mut input: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x81, payload)).collect();
    let mut decoder = Decoder::new();
    let mut scanner = Scanner::new();
    let (mut free, mut at) = (0, 0);
    let mut expected = Vec::new();
    for payload in payloads {
        let step = decoder.next_close(&mut input, free, at, LIMIT, &mut scanner).unwrap();
        let Step::Piece(piece) = step else { panic!("{step:?}") };
        let (start, room) = (piece.payload.start, piece.header_room);
        let placed =
            super::super::place_header(&mut input, start, room, Opcode::Text, payload.len());
        assert_eq!(placed, Some(free), "{}", payload.len());
        let (bytes, len) = header(Opcode::Text, payload.len());
        expected.extend_from_slice(&bytes[..len]);
        expected.extend_from_slice(payload);
        (free, at) = (piece.payload.end, piece.at);
    }
    assert_eq!(at, input.len());
    assert_eq!(input[..free], expected);
}

#[test]
fn a_text_that_takes_long_to_read_comes_in_bounded_pieces() {
    let depth = 20_000;
    for dense in [
        ["[".repeat(depth), "]".repeat(depth)].concat(),
        format!("[{}0]", "0,".repeat(depth)),
        format!("\"{}\"", "\\n".repeat(depth)),
        "9".repeat(16 * depth),
        " ".repeat(16 * depth) + "0",
    ] {
        let text = E2EE.replacen('{', &format!("{{\"x\":{dense},"), 1);
        let stream = [frame(0x81, E2EE.as_bytes()), frame(0x81, text.as_bytes())].concat();
        let mut receiver = Receiver::new(true);
        receiver.receive(&stream);
        let [_, Meaning::Message { payload, envelope, .. }] = &receiver.meanings[..] else {
            panic!("two messages");
        };
        assert_eq!(payload, text.as_bytes());
        assert!(envelope.starts_with("Ok(E2ee"), "{envelope}");
        assert!(receiver.steps_max > PIECE_STEPS_MAX, "it is dense: {}", receiver.steps_max);
        assert!(receiver.steps_max < PIECE_STEPS_MAX + BLOCK_BYTES as u32);
    }
}

#[test]
fn messages_that_take_long_to_read_mean_the_same_wherever_they_are_cut() {
    let inside = ["[\"é\",".repeat(2500), "0".to_owned(), "]".repeat(2500)].concat();
    let text = E2EE.replacen('{', &format!("{{\"x\":{inside},"), 1).into_bytes();
    let binary = [&text[..2], b"\":0,\"\xff", &text[2..]].concat();
    let stream = [
        frame(0x81, E2EE.as_bytes()),
        frame(0x81, &text),
        frame(0x01, &text[..9001]),
        frame(0x89, b"are you there"),
        frame(0x80, &text[9001..]),
        frame(0x82, &binary),
    ]
    .concat();
    let whole = meanings(&[&stream]);
    assert_eq!(whole.len(), 5);
    for meaning in &whole {
        if let Meaning::Message { envelope, .. } = meaning {
            assert!(envelope.starts_with("Ok(E2ee"), "{envelope}");
        }
    }
    for cut in (0..stream.len()).step_by(1021) {
        assert_eq!(meanings(&[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
    }
}

#[test]
fn ciphertext_of_any_length_is_one_piece() {
    let name = "\"ciphertext\":\"";
    let text = E2EE.replacen(name, &[name, &*"A".repeat(900_000)].concat(), 1);
    let mut input = frame(0x81, text.as_bytes());
    let step = Decoder::new().next(&mut input, 0, LIMIT, &mut Scanner::new()).unwrap();
    let Step::Piece(piece) = step else { panic!("{step:?}") };
    let blocks = (text.len() / BLOCK_BYTES) as u32;
    assert!(piece.first && piece.last && piece.steps < blocks + 32, "{} steps", piece.steps);
}

#[test]
fn every_cut_of_a_stream_means_the_same() {
    let text = E2EE.as_bytes();
    let mut stream = frame(0x81, text);
    stream.extend(frame(0x01, &text[..60]));
    stream.extend(frame(0x89, b"are you there"));
    stream.extend(frame(0x00, b""));
    stream.extend(frame(0x80, &text[60..]));
    stream.extend(frame(0x8a, b""));
    stream.extend(frame(0x82, b"\xff\xfe"));
    stream.extend(frame(0x88, b"\x03\xe8bye"));
    let whole = meanings(&[&stream]);
    assert_eq!(whole.len(), 6);
    let Meaning::Message { envelope, payload, .. } = &whole[2] else { panic!("{whole:?}") };
    assert!(envelope.starts_with("Ok(E2ee"), "{envelope}");
    assert_eq!(payload, text);
    assert_eq!(whole[5], Meaning::Close(Some(1000), b"\x03\xe8bye".to_vec()));
    for cut in 0..=stream.len() {
        assert_eq!(meanings(&[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(meanings(&bytes), whole);
}

#[test]
fn an_envelope_comes_out_of_a_masked_text() {
    let mut input = frame(0x81, E2EE.as_bytes());
    let mut scanner = Scanner::new();
    Decoder::new().next(&mut input, 0, LIMIT, &mut scanner).unwrap();
    let envelope = scanner.finish().unwrap();
    assert!(matches!(envelope, Envelope::E2ee { seq: 1.0, .. }), "{envelope:?}");
}

#[test]
fn broken_frames_earn_the_close_code_of_the_reference() {
    use FrameError as E;
    let long = [b'p'; 126];
    for (stream, expected, code) in [
        (vec![0x81, 0x01, b'x'], E::Unmasked, 1002),
        (frame(0xc1, b"x"), E::ReservedBit, 1002),
        (frame(0xa1, b"x"), E::ReservedBit, 1002),
        (frame(0x91, b"x"), E::ReservedBit, 1002),
        (frame(0x83, b"x"), E::UnknownOpcode(3), 1002),
        (frame(0x8b, b"x"), E::UnknownOpcode(11), 1002),
        (frame(0x80, b"x"), E::UnexpectedContinuation, 1002),
        ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), E::UnfinishedMessage, 1002),
        (frame(0x09, b"x"), E::FragmentedControl, 1002),
        (frame(0x89, &long), E::ControlTooLong, 1002),
        (frame(0x88, b"\x03"), E::CloseTooShort, 1002),
        (frame(0x88, b"\x03\xed"), E::CloseCode(1005), 1002),
        (frame(0x88, b"\x03\xe7"), E::CloseCode(999), 1002),
        (frame(0x88, b"\x03\xec"), E::CloseCode(1004), 1002),
        (frame(0x88, b"\x03\xf7"), E::CloseCode(1015), 1002),
        (frame(0x88, b"\x0b\xb7"), E::CloseCode(2999), 1002),
        (frame(0x88, b"\x13\x88"), E::CloseCode(5000), 1002),
        (frame(0x88, b"\x03\xe8\xff"), E::CloseReason, 1007),
        (frame(0x81, b"a\xffb"), E::Utf8, 1007),
        (frame(0x81, b"a\xe2\x82"), E::Utf8, 1007),
    ] {
        assert_eq!(error(&stream), expected);
        assert_eq!(expected.close_code().0, code, "{expected:?}");
    }
}

#[test]
fn allowed_close_codes_pass() {
    for code in [1000_u16, 1003, 1007, 1014, 3000, 4999] {
        let payload = code.to_be_bytes();
        let expected = [Meaning::Close(Some(code), payload.to_vec())];
        assert_eq!(meanings(&[&frame(0x88, &payload)]), expected);
    }
    assert_eq!(meanings(&[&frame(0x88, b"")]), [Meaning::Close(None, Vec::new())]);
}

#[test]
fn bad_utf8_is_reported_before_the_message_ends() {
    let mut input = frame(0x01, b"a\xff");
    let result = Decoder::new().next(&mut input, 0, LIMIT, &mut Scanner::new());
    assert_eq!(result, Err(FrameError::Utf8));
}

#[test]
fn a_message_is_refused_by_its_announced_length() {
    let mut input = vec![0x81, 0xfe, 0x03, 0xe9];
    let result = Decoder::new().next(&mut input, 0, 1000, &mut Scanner::new());
    assert_eq!(result, Err(FrameError::TooLong { len: 1001, limit: 1000 }));
    let mut input = vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1];
    let error = Decoder::new().next(&mut input, 0, usize::MAX, &mut Scanner::new()).unwrap_err();
    assert_eq!(error.close_code(), CloseCode::TOO_BIG);
}

#[test]
fn fragments_are_refused_when_they_add_up_above_the_limit() {
    let mut input = [frame(0x01, &[b'a'; 600]), frame(0x80, &[b'a'; 401])].concat();
    let mut decoder = Decoder::new();
    let mut scanner = Scanner::new();
    let Ok(Step::Piece(piece)) = decoder.next(&mut input, 0, 1000, &mut scanner) else {
        panic!("the first fragment fits");
    };
    let result = decoder.next(&mut input, piece.at, 1000, &mut scanner);
    assert_eq!(result, Err(FrameError::TooLong { len: 1001, limit: 1000 }));
}

#[test]
fn a_message_of_exactly_the_limit_passes() {
    let mut input = frame(0x81, &[b'a'; 1000]);
    let step = Decoder::new().next(&mut input, 0, 1000, &mut Scanner::new());
    assert!(matches!(step, Ok(Step::Piece(_))), "{step:?}");
}

#[test]
fn a_control_frame_between_fragments_does_not_count_as_one_of_them() {
    let stream = [frame(0x01, b"a"), frame(0x8a, b"p"), frame(0x80, b"b")].concat();
    let meanings = meanings(&[&stream]);
    assert!(matches!(&meanings[1], Meaning::Message { payload, .. } if payload == b"ab"));
}

#[test]
fn endless_empty_fragments_are_refused() {
    let mut stream = frame(0x01, b"");
    stream.extend(frame(0x00, b"").repeat(FRAGMENT_COUNT_MAX as usize));
    let meanings = meanings(&[&stream]);
    assert_eq!(meanings, [Meaning::Error(FrameError::TooManyFragments)]);
    assert_eq!(FrameError::TooManyFragments.close_code().0, 1008);
}

#[test]
fn a_length_in_a_longer_form_than_needed_is_accepted() {
    let stream = [0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'x'];
    let meanings = meanings(&[&stream]);
    assert!(matches!(&meanings[0], Meaning::Message { payload, .. } if payload == b"x"));
}

#[test]
fn nothing_is_read_after_a_close_frame_or_an_error() {
    let close = [frame(0x88, b""), frame(0x81, b"late"), vec![0xff; 40]].concat();
    assert_eq!(meanings(&[&close, &close]).len(), 1);
    let broken = [frame(0x80, b""), frame(0x81, b"late")].concat();
    assert_eq!(meanings(&[&broken, &broken]).len(), 1);
}

#[test]
fn a_continuing_piece_has_no_header_room() {
    let stream = frame(0x81, b"abcdef");
    let mut decoder = Decoder::new();
    let mut scanner = Scanner::new();
    let mut first = stream[..8].to_vec();
    let Ok(Step::Piece(piece)) = decoder.next(&mut first, 0, LIMIT, &mut scanner) else {
        panic!("two bytes of payload are there");
    };
    assert_eq!((piece.header_room, piece.first, piece.last), (6, true, false));
    let mut second = stream[8..].to_vec();
    let Ok(Step::Piece(piece)) = decoder.next(&mut second, 0, LIMIT, &mut scanner) else {
        panic!("the rest is there");
    };
    assert_eq!((piece.header_room, piece.first, piece.last), (0, false, true));
}

#[test]
fn until_its_first_piece_a_message_leaves_the_scanner_to_others() {
    let stream = frame(0x81, E2EE.as_bytes());
    let mut scanner = Scanner::new();
    let mut decoder = Decoder::new();
    let mut header = stream[..8].to_vec();
    let step = decoder.next(&mut header, 0, LIMIT, &mut scanner);
    assert_eq!(step, Ok(Step::NeedMore));
    Decoder::new().next(&mut frame(0x81, b"[other]"), 0, LIMIT, &mut scanner).unwrap();
    let mut payload = stream[8..].to_vec();
    decoder.next(&mut payload, 0, LIMIT, &mut scanner).unwrap();
    assert!(scanner.finish().is_ok());
}

#[test]
fn debug_output_shows_no_payload() {
    let mut input = frame(0x89, b"secret");
    input.truncate(10);
    let mut decoder = Decoder::new();
    decoder.next(&mut input, 0, LIMIT, &mut Scanner::new()).unwrap();
    assert_eq!(format!("{decoder:?}"), "Decoder { .. }");
    assert_eq!(format!("{:?}", ControlPayload::Gathered((*b"ab").into())), "Gathered(2 bytes)");
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => proptest::collection::vec(2_u8..0x80, 0..40),
        2 => proptest::collection::vec(2_u8..=0xff, 0..12),
        1 => proptest::collection::vec(0x30_u8..0x40, 120..5000),
        2 => Just(E2EE.as_bytes().to_vec()),
        1 => Just(b"\x03\xe8\xc3\xa9".to_vec()),
        1 => Just("é€😀".as_bytes().to_vec()),
    ];
    let first = prop_oneof![
        8 => prop_oneof![Just(0x81_u8), Just(0x82), Just(0x01), Just(0x00), Just(0x80)],
        3 => prop_oneof![Just(0x89_u8), Just(0x8a)],
        1 => any::<u8>(),
    ];
    (first, any::<[u8; 4]>(), payload)
        .prop_map(|(first, key, payload)| masked(first, key, &payload))
}

proptest! {
    #[test]
    fn any_stream_in_any_buffers_means_the_same(
        frames in proptest::collection::vec(any_frame(), 1..8),
        cuts in proptest::collection::vec(0_usize..20_000, 0..12),
    ) {
        let stream = frames.concat();
        let whole = meanings(&[&stream]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        pieces.push(&stream[from..]);
        prop_assert_eq!(meanings(&pieces), whole);
    }

    #[test]
    fn any_bytes_are_walked_without_a_panic(stream: Vec<u8>, cut: usize) {
        let cut = cut % (stream.len() + 1);
        meanings(&[&stream[..cut], &stream[cut..]]);
    }
}

/// How many small fragments are told of when the stream comes in two parts.
fn small_fragments(stream: &[u8], cut: usize) -> usize {
    let mut decoder = Decoder::new();
    let mut scanner = Scanner::new();
    let mut count = 0;
    let (head, tail) = stream.split_at(cut);
    for part in [head, tail] {
        let mut input = part.to_vec();
        let mut at = 0;
        loop {
            at = match decoder.next(&mut input, at, LIMIT, &mut scanner).unwrap() {
                Step::NeedMore => break,
                Step::Piece(piece) => {
                    count += usize::from(piece.small_fragment);
                    piece.at
                }
                Step::Ping { at, .. } | Step::Pong { at, .. } | Step::Close { at, .. } => at,
            };
        }
    }
    count
}

#[test]
fn each_small_fragment_is_told_of_once_wherever_the_stream_is_cut() {
    let small = [b' '; SMALL_FRAGMENT_BYTES as usize - 1];
    let large = [b' '; SMALL_FRAGMENT_BYTES as usize];
    let whole = frame(0x81, b"{}");
    let fragmented = |payloads: &[&[u8]]| {
        let last = payloads.len() - 1;
        let frames = payloads.iter().enumerate().map(|(index, payload)| {
            let opcode = u8::from(index == 0);
            frame(if index == last { FINAL | opcode } else { opcode }, payload)
        });
        frames.collect::<Vec<_>>().concat()
    };
    for (stream, expected) in [
        (whole.repeat(3), 0),
        (frame(0x81, b""), 0),
        (fragmented(&[&large, &large]), 0),
        (fragmented(&[&large, &small]), 1),
        (fragmented(&[&small, &large]), 1),
        (fragmented(&[b"", b"", b""]), 3),
        ([fragmented(&[&small, &small]), whole, fragmented(&[b"x", b""])].concat(), 4),
    ] {
        for cut in 0..=stream.len() {
            assert_eq!(small_fragments(&stream, cut), expected, "cut at {cut}");
        }
    }
}
