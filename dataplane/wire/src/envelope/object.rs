//! A JSON object whose whole text is at hand, member by member.

use std::borrow::Cow;

use super::number;
use super::string::{Read, StringReader, Target, content_end, unescaped};
use crate::websocket::mask::Marks;

/// The members of an object, names decoded, values as they stand.
///
/// Made from text that a scanner accepted; on other text it may end early, and never panics.
pub(super) struct Members<'t> {
    rest: &'t [u8],
}

impl<'t> Members<'t> {
    /// The members of the object that `text` is. `None` when it is no object.
    pub(super) fn of(text: &'t [u8]) -> Option<Self> {
        let rest = trim_json(text).strip_prefix(b"{")?.strip_suffix(b"}")?;
        Some(Self { rest })
    }
}

impl<'t> Iterator for Members<'t> {
    type Item = (Cow<'t, [u8]>, Value<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = trim_json(self.rest).strip_prefix(b"\"")?;
        let (name, text) = read_string(text, 0)?;
        let text = trim_json(text).strip_prefix(b":")?;
        let (value, rest) = text.split_at(value_len(text));
        self.rest = rest.strip_prefix(b",").unwrap_or_default();
        Some((name, Value::of(value)))
    }
}

/// The text of one value.
#[derive(Clone, Copy)]
pub(super) struct Value<'t>(&'t [u8]);

impl<'t> Value<'t> {
    /// The value that a text is.
    pub(super) fn of(text: &'t [u8]) -> Self {
        Self(trim_json(text))
    }

    /// The decoded string, if it is one. Nothing is copied of one without escapes.
    pub(super) fn string(self) -> Option<Cow<'t, [u8]>> {
        let text = self.0.strip_prefix(b"\"")?;
        read_string(text, text.len()).map(|(text, _)| text)
    }

    /// The number, if it is one.
    pub(super) fn number(self) -> Option<f64> {
        match self.0.first()? {
            b'-' | b'0'..=b'9' => number::value(self.0),
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub(super) fn members(self) -> Option<Members<'t>> {
        Members::of(self.0)
    }

    pub(super) fn is_null(self) -> bool {
        self.0 == b"null"
    }
}

/// Decodes a string after its opening quote; what follows the closing one comes back too. Nothing
/// is copied of a string without escapes; of another, `room` bytes are expected.
fn read_string(text: &[u8], room: usize) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut end = content_end(text, 0, Marks::NONE);
    if text.get(end) == Some(&b'"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut decoded = Vec::with_capacity(room);
    let mut at = 0;
    loop {
        decoded.extend_from_slice(&text[at..end]);
        match text.get(end)? {
            b'"' => return Some((Cow::Owned(decoded), &text[end + 1..])),
            b'\\' => {}
            _ => return None,
        }
        let Some(byte) = unescaped(*text.get(end + 1)?) else {
            break;
        };
        decoded.push(byte);
        at = end + 2;
        end = content_end(text, at, Marks::NONE);
    }
    // From here on units may have to pair.
    let mut reader = StringReader::new();
    reader.begin(Target::Text);
    match reader.read(text, end, Marks::NONE, &mut decoded) {
        Read::Ended(at) => Some((Cow::Owned(decoded), &text[at..])),
        Read::More | Read::Bad => None,
    }
}

/// Bytes up to the comma that ends a value, or to the end.
fn value_len(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at + 1),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Where the closing quote of the string is whose content begins at `at`, or the end.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = content_end(text, at, Marks::NONE);
    while text.get(at) == Some(&b'\\') {
        // Of an escape of six bytes the digits are content.
        at += 2;
        if text.get(at) != Some(&b'\\') {
            at = content_end(text, at, Marks::NONE);
        }
    }
    at.min(text.len())
}

/// Whether a byte is JSON's white space. Source: RFC 8259 §2.
#[inline]
pub(super) const fn is_space(byte: &u8) -> bool {
    matches!(*byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Removes JSON's white space at both ends.
fn trim_json(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_order_with_names_decoded() {
        let text = br#" { "a" : "x\n" , "\u0062":[1,{"c":"]"}],
            "d":{"e,":"\\\""}, "f":-1.5e1 ,"g":null,"h":"\\\"\\\\,\u002c\\","i":"\\" } "#;
        let members: Vec<_> = Members::of(text).unwrap().collect();
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(names, [b"a", b"b", b"d", b"f", b"g", b"h", b"i"]);
        assert_eq!(members[0].1.string().unwrap().as_ref(), b"x\n");
        assert_eq!(members[1].1.0, br#"[1,{"c":"]"}]"#);
        assert_eq!(members[2].1.members().unwrap().count(), 1);
        assert_eq!(members[3].1.number(), Some(-15.0));
        assert!(members[4].1.is_null());
        assert_eq!(members[5].1.string().unwrap().as_ref(), br#"\"\\,,\"#);
        assert_eq!(members[6].1.string().unwrap().as_ref(), br"\");
    }

    /// What strings are made of, and what breaks them.
    const PARTS: &[&[u8]] = &[
        b"a",
        b"eight bytes and more",
        "\u{e9}".as_bytes(),
        br"\n",
        br"\b\f\r\t",
        br#"\"\\\/"#,
        br"\u0041",
        br"\ud83d",
        br"\ude00",
        br"\u00",
        br"\x",
        br"\",
        b"\n",
        b"\"",
    ];

    #[test]
    fn an_empty_object_has_no_members() {
        assert_eq!(Members::of(b"{ }").unwrap().count(), 0);
        assert!(Members::of(b"[]").is_none());
    }

    proptest::proptest! {
        #[test]
        fn a_string_is_what_a_reader_makes_of_it(
            parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..12),
        ) {
            let text = parts.concat();
            let mut reader = StringReader::new();
            let mut decoded = Vec::new();
            reader.begin(Target::Text);
            let expected = match reader.read(&text, 0, Marks::NONE, &mut decoded) {
                Read::Ended(at) => Some((Cow::Owned(decoded), &text[at..])),
                Read::More | Read::Bad => None,
            };
            proptest::prop_assert_eq!(read_string(&text, 0), expected);
        }

        #[test]
        fn any_bytes_are_walked_without_a_panic(text: Vec<u8>) {
            let mut object = vec![b'{', b'"'];
            object.extend(text);
            object.push(b'}');
            if let Some(members) = Members::of(&object) {
                for (_, value) in members {
                    value.string();
                    value.number();
                    value.members();
                }
            }
        }
    }
}
