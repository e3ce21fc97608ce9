//! A JSON object whose whole text is at hand, member by member.

use std::borrow::Cow;

use super::number;
use super::string::{Read, StringReader, Target, content_end};
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
        let (name, text) = read_string(text)?;
        let text = trim_json(text).strip_prefix(b":")?;
        let (value, rest) = text.split_at(value_len(text));
        self.rest = rest.strip_prefix(b",").unwrap_or_default();
        Some((name, Value(trim_json(value))))
    }
}

/// The text of one value.
#[derive(Clone, Copy)]
pub(super) struct Value<'t>(&'t [u8]);

impl<'t> Value<'t> {
    /// The decoded string, if it is one.
    pub(super) fn string(self) -> Option<Vec<u8>> {
        self.0.strip_prefix(b"\"").and_then(read_string).map(|(text, _)| text.into_owned())
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
/// is copied of a string without escapes.
fn read_string(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = content_end(text, 0, Marks::NONE);
    if text.get(end) == Some(&b'"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut reader = StringReader::new();
    let mut decoded = Vec::new();
    reader.begin(Target::Text);
    match reader.read(text, 0, Marks::NONE, &mut decoded) {
        Read::Ended(at) => Some((Cow::Owned(decoded), &text[at..])),
        Read::More | Read::Bad => None,
    }
}

/// Bytes up to the comma that ends a value, or to the end.
fn value_len(text: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (index, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => return index,
            _ => {}
        }
    }
    text.len()
}

/// Removes JSON's white space at both ends.
fn trim_json(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
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
            "d":{"e,":"\\\""}, "f":-1.5e1 ,"g":null } "#;
        let members: Vec<_> = Members::of(text).unwrap().collect();
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(names, [b"a", b"b", b"d", b"f", b"g"]);
        assert_eq!(members[0].1.string().unwrap(), b"x\n");
        assert_eq!(members[1].1.0, br#"[1,{"c":"]"}]"#);
        assert_eq!(members[2].1.members().unwrap().count(), 1);
        assert_eq!(members[3].1.number(), Some(-15.0));
        assert!(members[4].1.is_null());
    }

    #[test]
    fn an_empty_object_has_no_members() {
        assert_eq!(Members::of(b"{ }").unwrap().count(), 0);
        assert!(Members::of(b"[]").is_none());
    }

    proptest::proptest! {
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
