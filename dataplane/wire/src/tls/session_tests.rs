use proptest::prelude::*;

use super::*;

pub(super) const AEADS: [Aead; 3] = [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::Chacha20Poly1305];

/// The direction that `name` sends in.
pub(super) fn direction(version: Version, aead: Aead, name: u8) -> Direction {
    let direction = match version {
        Version::Tls13 => Direction::tls13(aead, &[name; 48][..aead.secret_len()], 0),
        Version::Tls12 => Direction::tls12(aead, &[name; 32][..aead.key_len()], &[name; 12], 1),
    };
    direction.expect("the lengths fit")
}

/// A server's session and its client's.
fn pair(version: Version, aead: Aead) -> (Session, Session) {
    let session = |receives, sends| {
        Session::new(direction(version, aead, receives), direction(version, aead, sends))
    };
    (session(b'c', b's'), session(b's', b'c'))
}

fn send(session: &mut Session, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    session.writer(&mut out).push(plain);
    session.end_records(&mut out);
    out
}

/// All application bytes in the records, and whether the peer said that no more will come.
fn receive(session: &mut Session, records: &[u8]) -> Result<(Vec<u8>, bool), RecordError> {
    let mut plain = Vec::new();
    let closed = receive_into(&mut plain, session, records)?;
    Ok((plain, closed))
}

fn receive_into(
    plain: &mut Vec<u8>,
    session: &mut Session,
    records: &[u8],
) -> Result<bool, RecordError> {
    let mut input = records.to_vec();
    let (mut at, mut closed) = (0, false);
    while at < input.len() {
        let taken = session.next(&mut input[at..])?;
        match taken.content {
            Content::Here(range) => plain.extend_from_slice(&input[at..][range]),
            Content::Apart(block, range) => plain.extend_from_slice(&block[range]),
            Content::CloseNotify => closed = true,
            Content::NeedMore | Content::Nothing => {}
        }
        at += taken.used;
    }
    Ok(closed)
}

fn all() -> impl Iterator<Item = (Version, Aead)> {
    [Version::Tls12, Version::Tls13].into_iter().flat_map(|v| AEADS.map(|aead| (v, aead)))
}

#[test]
fn what_one_end_sends_the_other_receives() {
    for (version, aead) in all() {
        let (mut server, mut client) = pair(version, aead);
        for plain in [&b"hello"[..], &[7; 100_000], b"again"] {
            let records = send(&mut client, plain);
            assert_eq!(receive(&mut server, &records), Ok((plain.to_vec(), false)));
            let records = send(&mut server, plain);
            assert_eq!(receive(&mut client, &records), Ok((plain.to_vec(), false)));
        }
    }
}

#[test]
fn pieces_of_a_message_share_records() {
    let (mut server, mut client) = pair(Version::Tls13, Aead::Aes128Gcm);
    let mut out = Vec::new();
    let mut writer = server.writer(&mut out);
    for _ in 0..100 {
        writer.push(b"0123456789");
    }
    drop(writer);
    assert_eq!(out.len(), HEADER_BYTES + 1000 + 17);
    assert_eq!(receive(&mut client, &out).map(|(plain, _)| plain.len()), Ok(1000));
}

#[test]
fn close_notify_is_the_last_record() {
    for (version, aead) in all() {
        let (mut server, mut client) = pair(version, aead);
        server.close_notify();
        assert!(server.owes_output());
        let records = send(&mut server, b"bye");
        assert_eq!(receive(&mut client, &records), Ok((b"bye".to_vec(), true)));
        assert!(send(&mut server, b"more").is_empty());
        assert!(!server.owes_output());
        // The client may go on: only one direction has ended.
        let records = send(&mut client, b"late");
        assert_eq!(receive(&mut server, &records), Ok((b"late".to_vec(), false)));
    }
}

#[test]
fn nothing_after_close_notify_is_looked_at() {
    let (mut server, mut client) = pair(Version::Tls13, Aead::Aes128Gcm);
    client.close_notify();
    let mut records = send(&mut client, b"bye");
    records.extend_from_slice(b"not even a record");
    assert_eq!(receive(&mut server, &records), Ok((b"bye".to_vec(), true)));
    assert_eq!(server.kept_bytes(), 0);
}

#[test]
fn a_spoilt_record_ends_the_session_with_an_alert() {
    for (version, aead) in all() {
        let (mut server, mut client) = pair(version, aead);
        let mut records = send(&mut client, b"hello");
        *records.last_mut().expect("it has bytes") ^= 1;
        assert_eq!(receive(&mut server, &records), Err(RecordError::NotAuthentic));
        assert!(server.owes_output());
        // What waits for the peer is not for whoever broke in.
        let alert = send(&mut server, b"secret");
        let told = receive(&mut client, &alert);
        assert_eq!(told, Err(RecordError::PeerAlert(Alert::BAD_RECORD_MAC.0)));
        assert!(!client.owes_output(), "an alert is not answered");
    }
}

#[test]
fn records_out_of_order_are_not_authentic() {
    for (version, aead) in all() {
        let (mut server, mut client) = pair(version, aead);
        let first = send(&mut client, b"one");
        let second = send(&mut client, b"two");
        assert_eq!(receive(&mut server, &second), Err(RecordError::NotAuthentic));
        let (mut server, _) = pair(version, aead);
        assert!(receive(&mut server, &first).is_ok());
        assert_eq!(receive(&mut server, &first), Err(RecordError::NotAuthentic), "a replay");
    }
}

#[test]
fn a_key_that_sealed_enough_is_changed_in_tls_1_3() {
    let (mut server, mut client) = pair(Version::Tls13, Aead::Aes128Gcm);
    server.limit_records(4);
    for round in 0..20 {
        let records = send(&mut server, &[round; 10]);
        assert_eq!(receive(&mut client, &records), Ok((vec![round; 10], false)));
    }
    assert_eq!(server.spent_keys(), 6);
    assert!(!client.owes_output(), "it was not asked to change its own");
}

#[test]
fn a_key_that_sealed_enough_ends_the_session_in_tls_1_2() {
    let (mut server, mut client) = pair(Version::Tls12, Aead::Aes128Gcm);
    server.limit_records(4);
    let records: Vec<u8> = (0..10).flat_map(|round| send(&mut server, &[round])).collect();
    assert_eq!(receive(&mut client, &records), Ok((vec![0, 1], true)));
    assert!(server.is_ended());
    assert_eq!(server.spent_keys(), 0, "it was not changed");
}

#[test]
fn a_session_goes_on_from_what_was_written_down() {
    for (version, aead) in all() {
        let (mut server, mut client) = pair(version, aead);
        let before = send(&mut client, b"before");
        assert!(receive(&mut server, &before).is_ok());
        let records = send(&mut client, b"across");
        let (left, right) = records.split_at(10);
        assert_eq!(receive(&mut server, left), Ok((Vec::new(), false)));
        let written = postcard::to_allocvec(&server.write_down()).expect("plain data");
        let written: WrittenSession = postcard::from_bytes(&written).expect("as written");
        let mut server = Session::from(written);
        assert_eq!(receive(&mut server, right), Ok((b"across".to_vec(), false)));
        let records = send(&mut server, b"after");
        assert_eq!(receive(&mut client, &records), Ok((b"after".to_vec(), false)));
    }
}

#[test]
fn records_are_those_of_rfc_8448() {
    // RFC 8448 §3: the client's application data, 50 bytes from 0 on.
    let secret = bytes("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
    let record = bytes(
        "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a\
         20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4",
    );
    let plain: Vec<u8> = (0..50).collect();
    let direction = || Direction::tls13(Aead::Aes128Gcm, &secret, 0).expect("it fits");
    let mut out = Vec::new();
    RecordKey::from(direction()).seal_record(ContentType::APPLICATION_DATA, &plain, &mut out);
    assert_eq!(out, record);
    let mut session = Session::new(direction(), direction());
    assert_eq!(receive(&mut session, &record), Ok((plain, false)));
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<_> = hexadecimal.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// What a stream of records means, cut at the given places.
fn meaning(session: &mut Session, records: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Alert>) {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (records.len() + 1)).collect();
    cuts.push(records.len());
    cuts.sort_unstable();
    let (mut at, mut plain) = (0, Vec::new());
    for cut in cuts {
        if let Err(error) = receive_into(&mut plain, session, &records[at..cut]) {
            return (plain, error.alert());
        }
        at = cut;
    }
    (plain, None)
}

proptest! {
    #[test]
    fn every_split_gives_the_same_answer(
        messages in proptest::collection::vec((18..26u8, 0..300usize), 1..20),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        spoilt in proptest::option::of((any::<usize>(), 1..=255u8)),
        tls12: bool,
        aead in 0..3usize,
    ) {
        let version = if tls12 { Version::Tls12 } else { Version::Tls13 };
        let mut key = RecordKey::from(direction(version, AEADS[aead], b'c'));
        let mut records = Vec::new();
        for (kind, len) in messages {
            // Most are application data, so that streams are long.
            let kind = if (20..23).contains(&kind) { ContentType(kind) }
                else { ContentType::APPLICATION_DATA };
            key.seal_record(kind, &vec![1; len], &mut records);
        }
        if let Some((at, mask)) = spoilt {
            let at = at % records.len();
            records[at] ^= mask;
        }
        let whole = meaning(&mut pair(version, AEADS[aead]).0, &records, &[]);
        let split = meaning(&mut pair(version, AEADS[aead]).0, &records, &cuts);
        let bytes: Vec<usize> = (0..records.len()).collect();
        let dripped = meaning(&mut pair(version, AEADS[aead]).0, &records, &bytes);
        prop_assert_eq!(&split, &whole);
        prop_assert_eq!(&dripped, &whole);
    }
}
