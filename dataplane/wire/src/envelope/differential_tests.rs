//! The scanner against serde_json, over generated and damaged objects.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn scan(text: &[u8]) -> Scanner {
    let mut scanner = Scanner::new();
    scanner.feed(text);
    scanner
}

fn is_object(text: &[u8]) -> bool {
    scan(text).finish() != Err(Invalid::Json)
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
            assert_eq!(scanner.number(member), object.get(name).and_then(Value::as_f64), "{name}");
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
            (proptest::collection::vec(inner.clone(), 0..4), "[ \n\t\r]{0,2}").prop_map(
                |(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},")))
            ),
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
