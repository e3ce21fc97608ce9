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

const E2EE: &str = r#"{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":" s1 ","epoch":3,"seq":7,"iv":"aXY","tag":"dGFn","ciphertext":"Y2lwaGVy"}"#;
const INIT3: &str = r#"{"type":"relay_key_exchange_init","version":3,"profile":"noise-ik","requestId":"r","clientEphemeralPublicKey":"","encryptedClientStatic":""}"#;
const INIT2: &str = r#"{"type":"relay_key_exchange_init","version":2,"profile":"noise-ik","requestId":"r","clientPublicKey":"","clientNonce":"","clientProof":""}"#;
const RESPONSE3: &str = r#"{"type":"relay_key_exchange_response","version":3,"profile":"noise-ik","requestId":"r","daemonPublicKey":"D","daemonEphemeralPublicKey":"E","encryptedMetadata":"F","sessionId":"s","epoch":1,"proof":"G"}"#;
const RESPONSE2: &str = r#"{"type":"relay_key_exchange_response","version":2,"profile":"noise-ik","requestId":"r","daemonNonce":"D","sessionId":"","epoch":-0.5,"proof":"G"}"#;
const UPDATE: &str = r#"{"type":"relay_key_update_required","sessionId":"","nextEpoch":-1.5}"#;
const OFFER: &str = r#"{"type":"relay_pairing_offer_request","requestId":"p","clientChannelPublicKey":"PK","ttlSeconds":30}"#;
const REDEEM: &str = r#"{"type":"relay_pairing_redeem_request","requestId":"p","offerId":"o","encIv":"i","encTag":"t","encCiphertext":"c"}"#;
const OFFERED: &str = r#"{"type":"relay_pairing_offer_response","requestId":"p","ok":true,"daemonChannelPublicKey":"D","encIv":"i","encTag":"t","encCiphertext":"c"}"#;
const REDEEMED: &str = r#"{"type":"relay_pairing_redeem_response","requestId":"p","ok":true}"#;

#[test]
fn each_type_of_frame_gives_its_envelope() {
    let (ik, absent) = (Profile::NoiseIk, ProfileMember::Absent);
    let peerless = None;
    for (text, expected) in [
        (
            E2EE,
            Envelope::E2ee {
                profile: ik,
                session_id: b" s1 ",
                epoch: 3.0,
                seq: 7.0,
            },
        ),
        (
            INIT3,
            Envelope::KeyExchangeInit {
                profile: ik,
                request_id: b"r",
                pairing_peer_id: peerless,
            },
        ),
        (
            INIT2,
            Envelope::KeyExchangeInit {
                profile: ik,
                request_id: b"r",
                pairing_peer_id: peerless,
            },
        ),
        (
            RESPONSE3,
            Envelope::KeyExchangeResponse {
                profile: ik,
                request_id: b"r",
                session_id: b"s",
            },
        ),
        (
            RESPONSE2,
            Envelope::KeyExchangeResponse {
                profile: ik,
                request_id: b"r",
                session_id: b"",
            },
        ),
        (
            UPDATE,
            Envelope::KeyUpdate {
                profile: absent,
                session_id: b"",
            },
        ),
        (
            OFFER,
            Envelope::PairingOfferRequest {
                profile: absent,
                request_id: b"p",
            },
        ),
        (
            REDEEM,
            Envelope::PairingRedeemRequest {
                profile: absent,
                request_id: b"p",
            },
        ),
        (
            OFFERED,
            Envelope::PairingOfferResponse {
                profile: absent,
                request_id: b"p",
            },
        ),
        (
            REDEEMED,
            Envelope::PairingRedeemResponse {
                profile: absent,
                request_id: b"p",
            },
        ),
    ] {
        assert_eq!(scan(text.as_bytes()).finish(), Ok(expected), "{text}");
    }
}

#[test]
fn every_member_a_frame_needs_is_needed() {
    for frame in [
        E2EE, INIT3, INIT2, RESPONSE3, RESPONSE2, UPDATE, REDEEM, OFFERED, REDEEMED,
    ] {
        let object: serde_json::Map<String, Value> = serde_json::from_str(frame).unwrap();
        for name in object.keys() {
            let expected = if name == "type" {
                Invalid::Type
            } else {
                Invalid::Member
            };
            assert_eq!(
                invalid(&with(frame, name, "")),
                Some(expected),
                "{name} {frame}"
            );
            let expected = if name == "type" {
                Invalid::Type
            } else {
                Invalid::Member
            };
            assert_eq!(
                invalid(&with(frame, name, "[]")),
                Some(expected),
                "{name} {frame}"
            );
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
        (
            r#""noise-ik\u0070sk2""#,
            ProfileMember::Known(Profile::NoiseIkpsk2),
        ),
        ("\"other\"", ProfileMember::Unknown),
        ("5", ProfileMember::Unknown),
        ("null", ProfileMember::Absent),
        ("", ProfileMember::Absent),
    ] {
        let text = with(REDEEMED, "profile", value);
        assert_eq!(
            scan(text.as_bytes()).finish().unwrap().profile(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn rare_frames_are_told_apart_and_not_judged() {
    for (text, expected) in [
        (
            r#"{"type":"viewport.worker_transport.request/v1"}"#,
            ColdKind::Worker,
        ),
        (
            r#"{"type":"viewport.session_events.subscribe/v1"}"#,
            ColdKind::Subscribe,
        ),
        (
            r#"{"type":"viewport.session_events.unsubscribe/v1"}"#,
            ColdKind::Unsubscribe,
        ),
        (
            r#"{"type":"viewport.session_viewer_presence/v1"}"#,
            ColdKind::Presence,
        ),
        (
            r#"{"schema":"viewport.session_event_relay_frame/v1"}"#,
            ColdKind::SessionEvent,
        ),
    ] {
        let frame = Envelope::Cold {
            kind: expected,
            profile: ProfileMember::Absent,
        };
        assert_eq!(scan(text.as_bytes()).finish(), Ok(frame), "{text}");
    }
    assert_eq!(invalid(r#"{"schema":"x"}"#), Some(Invalid::Type));
    assert_eq!(invalid(r#"{"type":"E2EE"}"#), Some(Invalid::Type));
}

#[test]
fn the_last_of_equal_names_counts() {
    let text = r#"{"type":"x","type":"relay_key_update_required","sessionId":"a","nextEpoch":1,"sessionId":"b"}"#;
    let expected = Envelope::KeyUpdate {
        profile: ProfileMember::Absent,
        session_id: b"b",
    };
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
    let text = r#"{"x":{"type":"e2ee"},"y":[{"type":"e2ee"}],"type":"relay_key_update_required","sessionId":"s","nextEpoch":1,"z":{"sessionId":5,"nextEpoch":null}}"#;
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
    let Ok(Envelope::E2ee { session_id, .. }) = scanner.finish() else {
        panic!("valid")
    };
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
    assert_eq!(
        format!("{:?}", scan(E2EE.as_bytes())),
        "Scanner { state: Ended, .. }"
    );
}

/// Members to compare with what serde_json sees.
const MEMBERS: [(&str, Member); 8] = [
    ("type", Member::Type),
    ("sessionId", Member::SessionId),
    ("requestId", Member::RequestId),
    ("profile", Member::Profile),
    ("version", Member::Version),
    ("epoch", Member::Epoch),
    ("ok", Member::Ok),
    ("iv", Member::Iv),
];

fn assert_sees_what_serde_sees(scanner: &Scanner, object: &serde_json::Map<String, Value>) {
    for (name, member) in MEMBERS {
        let kind = match object.get(name) {
            None => Kind::Absent,
            Some(Value::Null) => Kind::Null,
            Some(Value::Bool(true)) => Kind::True,
            Some(Value::Bool(false)) => Kind::False,
            Some(Value::Number(_)) => Kind::Number,
            Some(Value::String(text))
                if member == Member::Iv && crate::envelope::is_blank(text.as_bytes()) =>
            {
                Kind::Blank
            }
            Some(Value::String(_)) => Kind::Text,
            Some(Value::Array(_) | Value::Object(_)) => Kind::Container,
        };
        assert_eq!(scanner.kind(member), kind, "{name}");
        if member.text_slot().is_some() {
            let text = object.get(name).and_then(Value::as_str).map(str::as_bytes);
            assert_eq!(scanner.text(member), text, "{name}");
        }
        if member.number_slot().is_some() {
            assert_eq!(
                scanner.number(member),
                object.get(name).and_then(Value::as_f64),
                "{name}"
            );
        }
    }
}

/// JSON strings with escapes, long plain runs and characters of every width; no lone surrogates.
fn any_string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[A-Za-z0-9+/=]{0,12}",
        1 => "[A-Za-z0-9+/=]{60,200}",
        2 => prop_oneof![
            Just(r"\n"), Just(r#"\""#), Just(r"\\"), Just(r"\/"), Just(r"\u0041"), Just(r"\u00e9"),
            Just(r"\uD83D\uDE00"), Just(r"\u2028"), Just(r"\b\f\r\t"),
        ].prop_map(str::to_owned),
        2 => prop_oneof![
            Just(" "), Just("é"), Just("\u{a0}"), Just("\u{feff}"), Just("😀"), Just("\u{2003}"),
            Just("!"), Just("\u{7f}"),
        ].prop_map(str::to_owned),
    ];
    proptest::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn any_name() -> impl Strategy<Value = String> {
    let known = MEMBERS.map(|(name, _)| format!("\"{name}\""));
    prop_oneof![
        6 => proptest::sample::select(known.to_vec()),
        1 => Just(r#""\u0074ype""#.to_owned()),
        1 => Just(r#""sessionId ""#.to_owned()),
        2 => any_string(),
    ]
}

fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        "[0-9]{1,16}".prop_map(|digits| digits.trim_start_matches('0').to_owned() + "7"),
        any_string(),
        Just("\"e2ee\"".to_owned()),
        Just("\"noise-ik\"".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (
                proptest::collection::vec(inner.clone(), 0..4),
                "[ \n\t\r]{0,2}"
            )
                .prop_map(|(items, space)| format!(
                    "[{space}{}{space}]",
                    items.join(&format!("{space},"))
                )),
            any_object(inner),
        ]
    })
}

fn any_object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (any_name(), value, "[ \n\t\r]{0,2}", "[ ]{0,1}").prop_map(
        |(name, value, before, after)| format!("{before}{name}{after}:{before}{value}{after}"),
    );
    (proptest::collection::vec(member, 0..8), "[ \n]{0,1}")
        .prop_map(|(members, space)| format!("{space}{{{}{space}}}{space}", members.join(",")))
}

proptest! {
    #[test]
    fn members_are_what_serde_json_sees(text in any_object(any_value())) {
        let object: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        let scanner = scan(text.as_bytes());
        prop_assert_ne!(scanner.finish(), Err(Invalid::Json));
        assert_sees_what_serde_sees(&scanner, &object);
    }

    #[test]
    fn a_damaged_text_is_json_exactly_when_serde_json_says_so(
        text in any_object(any_value()),
        at: usize,
        junk in prop_oneof![
            proptest::sample::select(b"{}[]\",:\\ 0-9.eEtfnu\x00\x1f\x7f".to_vec()), any::<u8>(),
        ],
        insert: bool,
    ) {
        let mut bytes = text.into_bytes();
        let at = at % bytes.len();
        if insert {
            bytes.insert(at, junk);
        } else {
            bytes[at] = junk;
        }
        let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
        // Ignoring a value checks its grammar without depth limit, surrogates or number range.
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let expected = is_json && text.trim_ascii_start().starts_with('{');
        prop_assert_eq!(is_object(&bytes), expected, "{}", text);
    }

    #[test]
    fn any_bytes_are_scanned_without_a_panic(text: Vec<u8>) {
        is_object(&text);
    }

    #[test]
    fn any_cuts_give_the_same_answer(
        text in any_object(any_value()),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
        damage in proptest::option::of((any::<usize>(), any::<u8>())),
    ) {
        let mut bytes = text.into_bytes();
        if let Some((at, junk)) = damage {
            let at = at % bytes.len();
            bytes[at] = junk;
        }
        let whole = scan(&bytes);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut scanner = Scanner::new();
        let mut from = 0;
        for cut in cuts {
            scanner.feed(&bytes[from..cut]);
            from = cut;
        }
        scanner.feed(&bytes[from..]);
        prop_assert_eq!(scanner.finish(), whole.finish());
        if whole.finish() != Err(Invalid::Json) {
            for (name, member) in MEMBERS {
                prop_assert_eq!(scanner.kind(member), whole.kind(member), "{}", name);
            }
        }
    }
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
        frame
            .as_bytes()
            .chunks(1)
            .for_each(|byte| bytewise.feed(byte));
        assert_eq!(bytewise.finish(), whole.finish(), "{frame}");
    }
}
