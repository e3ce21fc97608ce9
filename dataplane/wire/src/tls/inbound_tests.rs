use super::session_tests::direction;
use super::*;

const AEAD: Aead = Aead::Aes128Gcm;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// A server's session, and a peer that seals whatever it is told to.
struct Bench {
    session: Session,
    peer: RecordKey,
    version: Version,
}

impl Bench {
    fn new(version: Version) -> Self {
        let receives = direction(version, AEAD, b'c');
        let session = Session::new(receives.clone(), direction(version, AEAD, b's'));
        Self { session, peer: receives.into(), version }
    }

    /// What one record of the peer means to the server.
    fn take(&mut self, kind: ContentType, plain: &[u8]) -> Result<Content, RecordError> {
        let mut record = Vec::new();
        self.peer.seal_record(kind, plain, &mut record);
        self.session.next(&mut record).map(|taken| taken.content)
    }

    fn handshake(&mut self, plain: &[u8]) -> Result<Content, RecordError> {
        self.take(ContentType::HANDSHAKE, plain)
    }

    /// The peer has changed its key too.
    fn update_peer(&mut self) {
        self.peer.update();
    }

    /// What the server sends, opened by its peer: the content of single records.
    fn answer(&mut self) -> Vec<(ContentType, Vec<u8>)> {
        let mut out = Vec::new();
        drop(self.session.writer(&mut out));
        self.session.end_records(&mut out);
        let mut key = RecordKey::from(direction(self.version, AEAD, b's'));
        let (mut at, mut records) = (0, Vec::new());
        while let Ok(Some(len)) = key.record_len(&out[at..]) {
            let record = &mut out[at..at + len];
            let opened = key.open(record).expect("the server seals");
            records.push((opened.kind, record[opened.plain].to_vec()));
            at += len;
        }
        records
    }
}

#[test]
fn a_key_update_changes_the_key_of_the_peer_alone() {
    let mut bench = Bench::new(Version::Tls13);
    assert!(matches!(bench.handshake(&KEY_UPDATE), Ok(Content::Nothing)));
    bench.update_peer();
    let taken = bench.take(ContentType::APPLICATION_DATA, b"under the new key");
    assert!(matches!(taken, Ok(Content::Here(_))));
    assert!(!bench.session.owes_output());
}

#[test]
fn a_key_update_that_asks_for_one_is_answered_once() {
    let mut bench = Bench::new(Version::Tls13);
    for _ in 0..3 {
        assert!(bench.handshake(&KEY_UPDATE_REQUESTED).is_ok());
        bench.update_peer();
    }
    assert!(bench.session.owes_output());
    assert_eq!(bench.answer(), [(ContentType::HANDSHAKE, KEY_UPDATE.to_vec())]);
    assert!(!bench.session.owes_output());
}

#[test]
fn a_key_update_in_pieces_is_put_together() {
    let mut bench = Bench::new(Version::Tls13);
    for byte in KEY_UPDATE {
        assert!(matches!(bench.handshake(&[byte]), Ok(Content::Nothing)));
    }
    bench.update_peer();
    assert!(bench.take(ContentType::APPLICATION_DATA, b"x").is_ok());
}

#[test]
fn a_key_update_that_is_none_is_refused() {
    let malformed: [&[u8]; 5] = [
        &[24, 0, 0, 2, 0, 0],
        &[24, 0, 0, 0, 0],
        &[24, 255, 255, 255, 0],
        &[24, 0, 0, 1, 0, 24],
        b"",
    ];
    for message in malformed {
        let refused = Bench::new(Version::Tls13).handshake(message).err();
        assert_eq!(refused, Some(RecordError::Malformed), "{message:?}");
    }
    let refused = Bench::new(Version::Tls13).handshake(&[24, 0, 0, 1, 2]).err();
    assert_eq!(refused, Some(RecordError::UnknownKeyUpdate(2)));
}

#[test]
fn nothing_may_stand_inside_a_key_update() {
    let mut bench = Bench::new(Version::Tls13);
    assert!(bench.handshake(&KEY_UPDATE[..2]).is_ok());
    let refused = bench.take(ContentType::APPLICATION_DATA, b"x").err();
    assert_eq!(refused, Some(RecordError::UnexpectedType(23)));
}

#[test]
fn a_second_handshake_is_refused() {
    let client_hello = [1, 0, 0, 40];
    let mut bench = Bench::new(Version::Tls12);
    assert_eq!(bench.handshake(&client_hello).err(), Some(RecordError::Renegotiation));
    assert_eq!(bench.answer(), [(ContentType::ALERT, vec![1, 100])]);
    let mut bench = Bench::new(Version::Tls13);
    let refused = bench.handshake(&client_hello).err();
    assert_eq!(refused, Some(RecordError::UnexpectedHandshake(1)));
    assert_eq!(bench.answer(), [(ContentType::ALERT, vec![2, 10])]);
}

#[test]
fn other_messages_after_the_handshake_are_refused() {
    for version in [Version::Tls12, Version::Tls13] {
        // HelloRequest, NewSessionTicket, Certificate, CertificateRequest, Finished.
        for kind in [0, 4, 11, 13, 20] {
            let refused = Bench::new(version).handshake(&[kind, 0, 0, 0]).err();
            assert_eq!(refused, Some(RecordError::UnexpectedHandshake(kind)));
        }
    }
    let refused = Bench::new(Version::Tls12).handshake(&KEY_UPDATE).err();
    assert_eq!(refused, Some(RecordError::UnexpectedHandshake(24)), "TLS 1.2 has none");
}

#[test]
fn a_flood_of_records_without_content_ends_the_session() {
    let (data, alert, hello) =
        (ContentType::APPLICATION_DATA, ContentType::ALERT, ContentType::HANDSHAKE);
    let floods: [(Version, ContentType, &[u8]); 4] = [
        (Version::Tls12, data, b""),
        (Version::Tls13, data, b""),
        (Version::Tls12, alert, &[1, 90]),
        (Version::Tls13, hello, &KEY_UPDATE),
    ];
    for (version, kind, plain) in floods {
        let mut bench = Bench::new(version);
        let mut answers = (0..=FRUITLESS_RECORDS_MAX).map(|_| {
            let answer = bench.take(kind, plain);
            if kind == hello {
                bench.update_peer();
            }
            answer.err()
        });
        let allowed = usize::from(FRUITLESS_RECORDS_MAX);
        assert!(answers.by_ref().take(allowed).all(|refused| refused.is_none()));
        assert_eq!(answers.next(), Some(Some(RecordError::Fruitless)));
    }
}

#[test]
fn content_between_empty_records_forgives_them() {
    let mut bench = Bench::new(Version::Tls13);
    for _ in 0..100 {
        assert!(bench.take(ContentType::APPLICATION_DATA, b"").is_ok());
        assert!(bench.take(ContentType::APPLICATION_DATA, b"x").is_ok());
    }
}

#[test]
fn a_header_is_judged_before_its_record_is_there() {
    let cases: [(Version, [u8; 5], RecordError); 8] = [
        (Version::Tls13, *b"GET /", RecordError::UnexpectedType(b'G')),
        (Version::Tls12, *b"GET /", RecordError::UnexpectedType(b'G')),
        (Version::Tls13, [21, 3, 3, 0, 32], RecordError::UnexpectedType(21)),
        (Version::Tls13, [20, 3, 3, 0, 1], RecordError::UnexpectedType(20)),
        (Version::Tls12, [24, 3, 3, 1, 0], RecordError::UnexpectedType(24)),
        (Version::Tls13, [23, 3, 1, 0, 32], RecordError::Version(0x0301)),
        (Version::Tls13, [23, 3, 3, 0x41, 0x01], RecordError::TooLong),
        (Version::Tls13, [23, 3, 3, 0, 16], RecordError::TooShort),
    ];
    for (version, header, error) in cases {
        let mut bench = Bench::new(version);
        assert_eq!(bench.session.next(&mut header.to_vec()).err(), Some(error), "{header:?}");
        assert_eq!(bench.session.kept_bytes(), 0, "nothing is kept of it");
    }
}

#[test]
fn a_record_never_takes_more_memory_than_a_record() {
    let mut bench = Bench::new(Version::Tls12);
    let mut record = vec![23, 3, 3, 0x48, 0];
    record.resize(RECORD_BYTES_MAX, 0);
    for byte in record {
        let _ended = bench.session.next(&mut [byte]);
        assert!(bench.session.kept_bytes() < RECORD_BYTES_MAX);
    }
}

#[test]
fn content_beyond_the_bound_of_a_record_is_refused() {
    for version in [Version::Tls12, Version::Tls13] {
        for (len, refused) in [(PLAIN_BYTES_MAX, false), (PLAIN_BYTES_MAX + 1, true)] {
            let mut bench = Bench::new(version);
            let mut record = Vec::new();
            let start = bench.peer.begin(&mut record);
            record.resize(record.len() + len, 1);
            bench.peer.seal(ContentType::APPLICATION_DATA, &mut record, start);
            let taken = bench.session.next(&mut record).err();
            assert_eq!(taken, refused.then_some(RecordError::TooLong));
        }
    }
}

#[test]
fn padding_is_no_content_and_padding_alone_is_no_record() {
    let mut bench = Bench::new(Version::Tls13);
    // The type inside goes behind the padding as far as sealing is concerned.
    let mut record = Vec::new();
    bench.peer.seal_record(ContentType(0), b"hello\x17\0\0\0", &mut record);
    let taken = bench.session.next(&mut record).expect("padded records are fine");
    assert!(matches!(taken.content, Content::Here(range) if record[range.clone()] == *b"hello"));
    let refused = bench.take(ContentType(0), &[0; 64]).err();
    assert_eq!(refused, Some(RecordError::UnexpectedType(0)));
}

#[test]
fn alerts_of_the_peer_end_the_session_in_silence() {
    for version in [Version::Tls12, Version::Tls13] {
        let mut bench = Bench::new(version);
        let refused = bench.take(ContentType::ALERT, &[2, 40]).err();
        assert_eq!(refused, Some(RecordError::PeerAlert(40)));
        assert_eq!(bench.answer(), []);
        let malformed = Bench::new(version).take(ContentType::ALERT, &[1]).err();
        assert_eq!(malformed, Some(RecordError::Malformed));
    }
    // In TLS 1.3 a level cannot make an error harmless.
    let refused = Bench::new(Version::Tls13).take(ContentType::ALERT, &[1, 40]).err();
    assert_eq!(refused, Some(RecordError::PeerAlert(40)));
}
