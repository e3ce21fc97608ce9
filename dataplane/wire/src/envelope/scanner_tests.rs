use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::envelope::{ColdKind, ProfileMember};
use relay_contract::Profile;

fn scan(text: &[u8]) -> Scanner {
    let mut scanner = Scanner::new();
    scanner.feed(text);
    scanner
}

/// Whether a text is a JSON object, which is all a frame of unknown type has to be.
fn is_object(text: &[u8]) -> bool {
    scan(text).finish() != Err(Invalid::Json)
}

fn invalid(text: &str) -> Option<Invalid> {
    scan(text.as_bytes()).finish().err()
}

/// A frame with one member replaced (or, with an empty value, removed).
fn with(frame: &str, name: &str, value: &str) -> String {
    let mut object: serde_json::Map<String, Value> = serde_json::from_str(frame).unwrap();
    object.remove(name);
    let text = serde_json::to_string(&object).unwrap();
    if value.is_empty() {
        return text;
    }
    format!("{},\"{name}\":{value}}}", text.strip_suffix('}').unwrap())
}

const E2EE: &str = include_str!("../../vectors/e2ee.json");
const INIT3: &str = include_str!("../../vectors/key_exchange_init_v3.json");
const INIT2: &str = include_str!("../../vectors/key_exchange_init_v2.json");
const RESPONSE3: &str = include_str!("../../vectors/key_exchange_response_v3.json");
const RESPONSE2: &str = include_str!("../../vectors/key_exchange_response_v2.json");
const UPDATE: &str = include_str!("../../vectors/key_update.json");
const OFFER: &str = include_str!("../../vectors/pairing_offer_request.json");
const REDEEM: &str = include_str!("../../vectors/pairing_redeem_request.json");
const OFFERED: &str = include_str!("../../vectors/pairing_offer_response.json");
const REDEEMED: &str = include_str!("../../vectors/pairing_redeem_response.json");

#[test]
fn each_type_of_frame_gives_its_envelope() {
    let (ik, absent) = (Profile::NoiseIk, ProfileMember::Absent);
    let peerless = None;
    for (text, expected) in [
        (E2EE, Envelope::E2ee { profile: ik, session_id: b" s1 ", epoch: 3.0, seq: 7.0 }),
        (
            INIT3,
            Envelope::KeyExchangeInit { profile: ik, request_id: b"r", pairing_peer_id: peerless },
        ),
        (
            INIT2,
            Envelope::KeyExchangeInit { profile: ik, request_id: b"r", pairing_peer_id: peerless },
        ),
        (
            RESPONSE3,
            Envelope::KeyExchangeResponse { profile: ik, request_id: b"r", session_id: b"s" },
        ),
        (
            RESPONSE2,
            Envelope::KeyExchangeResponse { profile: ik, request_id: b"r", session_id: b"" },
        ),
        (UPDATE, Envelope::KeyUpdate { profile: absent, session_id: b"" }),
        (OFFER, Envelope::PairingOfferRequest { profile: absent, request_id: b"p" }),
        (REDEEM, Envelope::PairingRedeemRequest { profile: absent, request_id: b"p" }),
        (OFFERED, Envelope::PairingOfferResponse { profile: absent, request_id: b"p" }),
        (REDEEMED, Envelope::PairingRedeemResponse { profile: absent, request_id: b"p" }),
    ] {
        assert_eq!(scan(text.as_bytes()).finish(), Ok(expected), "{text}");
    }
}

#[test]
fn every_member_a_frame_needs_is_needed() {
    for frame in [E2EE, INIT3, INIT2, RESPONSE3, RESPONSE2, UPDATE, REDEEM, OFFERED, REDEEMED] {
        let object: serde_json::Map<String, Value> = serde_json::from_str(frame).unwrap();
        for name in object.keys() {
            let expected = if name == "type" { Invalid::Type } else { Invalid::Member };
            assert_eq!(invalid(&with(frame, name, "")), Some(expected), "{name} {frame}");
            let expected = if name == "type" { Invalid::Type } else { Invalid::Member };
            assert_eq!(invalid(&with(frame, name, "[]")), Some(expected), "{name} {frame}");
        }
    }
}

#[test]
fn encrypted_frames_need_version_two_counters_and_content() {
    for (name, value, fits) in [
        ("version", "2e0", true),
        ("version", "3", false),
        ("version", "\"2\"", false),
        ("profile", "\"noise-ikpsk2\"", true),
        ("profile", "\"noise-xx\"", false),
        ("epoch", "0", false),
        ("epoch", "1e0", true),
        ("epoch", "1.5", false),
        ("epoch", "1e308", true),
        ("epoch", "1e400", false),
        ("epoch", "-1", false),
        ("seq", "10E-1", true),
        ("seq", "123456789012345678901234567890", true),
        ("iv", r#"" \t\n""#, false),
        ("tag", "\"\u{feff}\"", false),
        ("tag", "\"\u{a0}\u{a0}\"", false),
        ("tag", "\"\u{85}\"", true),
        ("tag", r#""\u2028\u00a0""#, false),
        ("tag", r#""\ud800""#, true),
        ("ciphertext", "\"\"", false),
        ("sessionId", "\"\u{3000}\"", false),
        ("sessionId", "null", false),
    ] {
        let text = with(E2EE, name, value);
        assert_eq!(invalid(&text).is_none(), fits, "{text}");
    }
}

#[test]
fn a_pairing_peer_is_needed_only_where_the_profile_asks_for_it() {
    let strong = with(INIT3, "profile", "\"noise-ikpsk2\"");
    assert_eq!(invalid(&strong), Some(Invalid::Member));
    for (value, fits) in [("\" \"", false), ("5", false), ("\"pp\"", true)] {
        let text = with(&strong, "pairingPeerId", value);
        assert_eq!(invalid(&text).is_none(), fits, "{text}");
    }
    assert_eq!(invalid(&with(INIT3, "pairingPeerId", "5")), None);
    assert_eq!(invalid(&with(INIT3, "version", "1")), Some(Invalid::Member));
}

#[test]
fn offers_last_thirty_seconds_to_an_hour() {
    for (ttl, fits) in [
        ("29", false),
        ("30", true),
        ("3600", true),
        ("3601", false),
        ("60.5", false),
        ("6e1", true),
        ("null", false),
        ("\"60\"", false),
        ("", true),
    ] {
        let text = with(OFFER, "ttlSeconds", ttl);
        assert_eq!(invalid(&text).is_none(), fits, "{text}");
    }
}

#[test]
fn a_failed_pairing_names_its_error_and_nothing_else() {
    for frame in [OFFERED, REDEEMED] {
        let failed = with(frame, "ok", "false");
        assert_eq!(invalid(&failed), Some(Invalid::Member));
        assert_eq!(invalid(&with(&failed, "errorCode", "\"\"")), None);
    }
    let bare =
        r#"{"type":"relay_pairing_offer_response","requestId":"p","ok":false,"errorCode":"X"}"#;
    assert_eq!(invalid(bare), None);
}

#[test]
fn the_profile_of_any_frame_is_seen() {
    for (value, expected) in [
        ("\"noise-ik\"", ProfileMember::Known(Profile::NoiseIk)),
        (r#""noise-ik\u0070sk2""#, ProfileMember::Known(Profile::NoiseIkpsk2)),
        ("\"other\"", ProfileMember::Unknown),
        ("5", ProfileMember::Unknown),
        ("null", ProfileMember::Absent),
        ("", ProfileMember::Absent),
    ] {
        let text = with(REDEEMED, "profile", value);
        assert_eq!(scan(text.as_bytes()).finish().unwrap().profile(), expected, "{text}");
    }
}

#[test]
fn rare_frames_are_told_apart_and_not_judged() {
    for (text, expected) in [
        (r#"{"type":"viewport.worker_transport.request/v1"}"#, ColdKind::Worker),
        (r#"{"type":"viewport.session_events.subscribe/v1"}"#, ColdKind::Subscribe),
        (r#"{"type":"viewport.session_events.unsubscribe/v1"}"#, ColdKind::Unsubscribe),
        (r#"{"type":"viewport.session_viewer_presence/v1"}"#, ColdKind::Presence),
        (r#"{"schema":"viewport.session_event_relay_frame/v1"}"#, ColdKind::SessionEvent),
        (r#"{"type":"relay.renew_token/v1"}"#, ColdKind::Renewal),
    ] {
        let frame = Envelope::Cold { kind: expected, profile: ProfileMember::Absent };
        assert_eq!(scan(text.as_bytes()).finish(), Ok(frame), "{text}");
    }
    assert_eq!(invalid(r#"{"schema":"x"}"#), Some(Invalid::Type));
    assert_eq!(invalid(r#"{"type":"E2EE"}"#), Some(Invalid::Type));
}

#[test]
fn the_last_of_equal_names_counts() {
    let text = r#"{"type":"x","type":"relay_key_update_required",
        "sessionId":"a","nextEpoch":1,"sessionId":"b"}"#;
    let expected = Envelope::KeyUpdate { profile: ProfileMember::Absent, session_id: b"b" };
    assert_eq!(scan(text.as_bytes()).finish(), Ok(expected));
    let text = with(E2EE, "x", r#"1,"type":"x""#);
    assert_eq!(invalid(&text), Some(Invalid::Type));
    let text = with(E2EE, "x", r#"1,"iv":5"#);
    assert_eq!(invalid(&text), Some(Invalid::Member));
}

#[test]
fn names_and_values_are_compared_decoded() {
    let text = E2EE.replace("\"type\":\"e2ee\"", r#""\u0074ype":"e2e\u0065""#);
    assert_eq!(invalid(&text), None);
}

#[test]
fn members_of_nested_objects_do_not_count() {
    let text = r#"{"x":{"type":"e2ee"},"y":[{"type":"e2ee"}],"nextEpoch":1,
        "type":"relay_key_update_required","sessionId":"s","z":{"sessionId":5,"nextEpoch":null}}"#;
    assert_eq!(invalid(text), None);
}

/// Where `JSON.parse` and serde_json part, each with what we do: as `JSON.parse`.
#[test]
fn the_written_list_of_differences_from_serde_json() {
    let differences: [(&str, bool); 8] = [
        (r#"{"a":"\ud800"}"#, true),
        (r#"{"a":"\udc00\ud800"}"#, true),
        (r#"{"\ud800":1}"#, true),
        (r#"{"a":1e400}"#, true),
        (r#"{"a":-1e400}"#, true),
        (r#"{"a":[1E+99999]}"#, true),
        (r#"{"a":"\ud800\ud83d"}"#, true),
        (r#"{"a":"\ud83d\u0041"}"#, true),
    ];
    for (text, ours) in differences {
        assert_ne!(serde_json::from_str::<Value>(text).is_ok(), ours, "{text}");
        assert_eq!(is_object(text.as_bytes()), ours, "{text}");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    assert!(serde_json::from_str::<Value>(&deep).is_err());
    assert!(is_object(deep.as_bytes()));
}

#[test]
fn texts_that_are_no_json_are_refused() {
    for text in [
        "",
        " ",
        "null",
        "[1]",
        "\"x\"",
        "1",
        "{",
        "}",
        "{}{}",
        "{},",
        "{}x",
        "\u{feff}{}",
        "{a:1}",
        "{'a':1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":nul}",
        "{\"a\":nulll}",
        "{\"a\":True}",
        "{\"a\":\"\u{1}\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1}",
        "{\"a\":{]}",
        "{\"a\":[}]",
        "{\"a\":\"x}",
        "{\u{a0}}",
        "{\"a\":1}\u{0}",
        "{\"a\":0x1}",
        "{\"a\":1_0}",
        "/**/{}",
        "{\"a\":\"\u{b}\"}",
        "{1:2}",
    ] {
        assert!(!is_object(text.as_bytes()), "{text:?}");
    }
}

#[test]
fn unusual_but_valid_json_is_accepted() {
    for text in [
        "{}",
        " \t\r\n{ \"a\" : [ ] , \"b\" : { } } \n",
        r#"{"":""}"#,
        r#"{"a":-0.0e-0}"#,
        r#"{"a":[[],{},[{}]],"a":null}"#,
        "{\"a\":\"\u{7f}\u{2028}\"}",
        r#"{"a":"\/"}"#,
        r#"{"a":true,"b":false,"c":null}"#,
        r#"{"a":[true,false,null,0,-1,"x"]}"#,
    ] {
        assert!(is_object(text.as_bytes()), "{text:?}");
    }
}

#[test]
fn a_million_levels_cost_no_stack_and_little_memory() {
    let levels = 1_000_000;
    let text = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let mut scanner = scan(text.as_bytes());
    assert_eq!(scanner.finish(), Err(Invalid::Type));
    scanner.reset();
    scanner.feed(E2EE.as_bytes());
    assert!(scanner.finish().is_ok());
    assert!(!is_object(&text.as_bytes()[..text.len() - 2]));
}

#[test]
fn long_members_are_given_back_after_the_frame() {
    let long = "s".repeat(1 << 20);
    let text = with(E2EE, "sessionId", &format!("\"{long}\""));
    let mut scanner = scan(text.as_bytes());
    let Ok(Envelope::E2ee { session_id, .. }) = scanner.finish() else { panic!("valid") };
    assert_eq!(session_id, long.as_bytes());
    scanner.reset();
    assert!(scanner.text.capacity() <= RETAINED_BYTES_MAX);
}

#[test]
fn a_scanner_forgets_the_frame_before() {
    let mut scanner = scan(E2EE.as_bytes());
    for text in ["{}", "{\"type\":\"e2ee\"}", "", "[", "{\"a\":\"\\ud8"] {
        scanner.reset();
        scanner.feed(text.as_bytes());
        assert!(scanner.finish().is_err(), "{text}");
    }
    scanner.reset();
    scanner.feed(E2EE.as_bytes());
    assert!(scanner.finish().is_ok());
}

#[test]
fn debug_output_shows_no_text() {
    assert_eq!(format!("{:?}", scan(E2EE.as_bytes())), "Scanner { state: Ended, .. }");
}

#[test]
fn every_single_cut_of_every_frame_gives_the_same_answer() {
    let escaped = E2EE.replace(
        "\"type\":\"e2ee\"",
        r#""\u0074ype":"e2e\u0065","x":"\ud83d\ude00","y":[{"z":null}]"#,
    );
    for frame in [E2EE, INIT3, RESPONSE2, UPDATE, OFFER, OFFERED, &escaped] {
        let whole = scan(frame.as_bytes());
        for cut in 0..=frame.len() {
            let mut scanner = scan(&frame.as_bytes()[..cut]);
            scanner.feed(&frame.as_bytes()[cut..]);
            assert_eq!(scanner.finish(), whole.finish(), "{frame} cut at {cut}");
        }
        let mut bytewise = Scanner::new();
        frame.as_bytes().chunks(1).for_each(|byte| bytewise.feed(byte));
        assert_eq!(bytewise.finish(), whole.finish(), "{frame}");
    }
}

/// Texts that begin alike up to a session, or a sequence number, or not quite.
fn one_of_many() -> impl Strategy<Value = Vec<u8>> {
    let opening = prop_oneof![
        3 => Just(r#""type":"e2ee","version":2,"profile":"noise-ik""#),
        1 => Just(r#""nested":{"type":[1,{"a":","}]},"type":"a","type":"e2ee","version":2"#),
        1 => Just(r#""type" : "e2ee" , "version":2e0,"profile":"noise-\u0069k""#),
    ];
    let seq = prop_oneof![
        4 => (0..2_000_u32).prop_map(|seq| seq.to_string()),
        1 => "[1-3]\\.[0-9]{18,30}",
        1 => Just("3,\"seq\":2.00000000000000000000000,\"seq\":4".to_owned()),
    ];
    let rest = (opening, "[ab]{1,40}", 0..4_u32, seq, "[x,\\\\ ]{0,60}");
    let damage = proptest::option::weighted(0.3, (0..200_usize, any::<u8>()));
    (rest, damage).prop_map(|((opening, session, epoch, seq, tag), damage)| {
        let mut text = format!(
            r#"{{{opening},"sessionId":"{session}","epoch":{epoch},"seq":{seq},"tag":"{tag}","#
        );
        text.push_str(r#""iv":"aXY","profile":"noise-ik","ciphertext":"Q2lwaGVy"}"#);
        let mut text = text.into_bytes();
        if let Some((at, byte)) = damage {
            let at = at % text.len();
            text[at] = byte;
        }
        text
    })
}

proptest! {
    #[test]
    fn what_was_read_before_changes_nothing(
        texts in proptest::collection::vec((one_of_many(), 0..400_usize), 1..12),
    ) {
        let mut used = Scanner::new();
        for (text, cut) in texts {
            // Most texts come in one piece.
            let (first, rest) = text.split_at(cut.min(text.len()));
            let mut fresh = Scanner::new();
            used.reset();
            for scanner in [&mut used, &mut fresh] {
                scanner.feed(first);
                scanner.feed(rest);
            }
            prop_assert_eq!(used.steps(), fresh.steps());
            let fresh = scan(&text);
            prop_assert_eq!(format!("{:?}", used.finish()), format!("{:?}", fresh.finish()));
            prop_assert_eq!(used.held_bytes(), fresh.held_bytes());
        }
    }
}

proptest! {
    #[test]
    fn bytes_are_read_as_decoding_with_replacement_reads_them(
        session in proptest::collection::vec(
            prop_oneof![
                3 => Just(b"a".to_vec()),
                2 => Just("\u{3000}".as_bytes().to_vec()),
                1 => Just(b"\\u3000".to_vec()),
                1 => Just(b"\\ud800".to_vec()),
                1 => Just("\u{1f600}".as_bytes().to_vec()),
                4 => proptest::sample::select(b"\x80\xbf\xc2\xe3\xed\xa0\xf0\xff".to_vec())
                    .prop_map(|byte| vec![byte]),
            ],
            0..12,
        ),
        cuts in proptest::collection::vec(0..400_usize, 0..6),
        end in proptest::sample::select(vec![vec![], vec![0xe3], vec![0xff], b" ".to_vec()]),
    ) {
        let (head, tail) = E2EE.split_once(" s1 ").expect("its session");
        let bytes = [head.as_bytes(), &session.concat(), tail.trim_end().as_bytes(), &end].concat();
        let text = String::from_utf8_lossy(&bytes);
        let mut scanner = Scanner::new();
        let mut cuts = cuts;
        cuts.sort_unstable();
        let mut from = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let to = cut.clamp(from, bytes.len());
            scanner.feed_lossily(&bytes[from..to]);
            from = to;
        }
        let expected = scan(text.as_bytes());
        prop_assert_eq!(format!("{:?}", scanner.finish()), format!("{:?}", expected.finish()));
    }
}

#[test]
fn a_number_that_takes_long_is_counted_and_only_the_last_of_its_name_is_found() {
    let numbers = r#""seq":2.4703282292062327208e-324,"#.repeat(100);
    let text = E2EE.replacen('{', &format!("{{{numbers}"), 1);
    let open = text.trim_end().strip_suffix('}').expect("an object");
    let last = format!("{open},\"seq\":9007199254740993.0000000000000000001}}");
    for (text, expected) in [(&text, 7.0), (&last, 9_007_199_254_740_994.0)] {
        let scanner = scan(text.as_bytes());
        let Ok(Envelope::E2ee { seq, .. }) = scanner.finish() else { panic!("a frame") };
        assert_eq!(seq, expected);
        assert!(scanner.steps() > 100 * LONG_NUMBER_STEPS, "{} steps", scanner.steps());
    }
    assert!(scan(E2EE.as_bytes()).steps() < 64);
}

#[test]
fn what_texts_share_is_read_once_and_no_more_than_that() {
    let text = |session: &str, seq: u32| {
        let rest = r#""iv":"aXY","tag":"dGFn","ciphertext":"Q2lwaGVyQ2lwaGVyQ2lwaGVy"}"#;
        format!(
            r#"{{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"{session}","epoch":1,"#
        ) + &format!(r#""seq":{seq},{rest}"#)
    };
    let mut scanner = Scanner::new();
    let mut read = |session, seq| {
        scanner.reset();
        let text = text(session, seq);
        let known = scanner.clone().begin(text.as_bytes());
        scanner.feed(text.as_bytes());
        let Ok(Envelope::E2ee { session_id, seq: found, .. }) = scanner.finish() else {
            panic!("it is a frame");
        };
        assert_eq!((session_id, found), (session.as_bytes(), f64::from(seq)));
        text[..known].to_owned()
    };
    assert_eq!(read("aaaa", 1000), "");
    read("bbbb", 1001);
    let shared = r#"{"type":"e2ee","version":2,"profile":"noise-ik","#;
    assert_eq!(read("cccc", 1002), shared);
    read("cccc", 1003);
    let of_the_session = format!(r#"{shared}"sessionId":"cccc","epoch":1,"#);
    assert_eq!(read("cccc", 1004), of_the_session);
    assert_eq!(read("dddd", 1004), "");
}
