//! Strings as JavaScript sees them, over WTF-8 bytes.

use std::borrow::Cow;

/// Removes what `String.prototype.trim` removes, at both ends.
///
/// That is U+0009 to U+000D, space, U+00A0, U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F,
/// U+205F, U+3000 and U+FEFF; not U+0085 and not U+180E. Source: ECMA-262, "WhiteSpace" and
/// "LineTerminator".
pub fn trim_js(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some(len) = leading_space(rest) {
        rest = &rest[len..];
    }
    while let Some(len) = trailing_space(rest) {
        rest = &rest[..rest.len() - len];
    }
    rest
}

/// Whether nothing is left after [`trim_js`].
pub fn is_blank(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(len) = leading_space(rest) {
        rest = &rest[len..];
    }
    rest.is_empty()
}

/// Length in UTF-16 units, which is what JavaScript calls a string's length.
pub fn utf16_len(text: &[u8]) -> usize {
    text.iter()
        .map(|&byte| match byte {
            0x80..=0xbf => 0,
            0xf0..=0xff => 2,
            _ => 1,
        })
        .sum()
}

/// WTF-8 as a string; lone surrogates become U+FFFD. It has no room to spare: whoever keeps it
/// counts its length.
pub fn lossy<'t>(text: impl Into<Cow<'t, [u8]>>) -> String {
    match text.into() {
        Cow::Owned(text) => {
            let text = String::from_utf8(text);
            exact(text.unwrap_or_else(|error| without_surrogates(error.as_bytes())))
        }
        Cow::Borrowed(text) => {
            str::from_utf8(text).map_or_else(|_| exact(without_surrogates(text)), str::to_owned)
        }
    }
}

fn exact(mut text: String) -> String {
    text.shrink_to_fit();
    text
}

fn without_surrogates(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        match surrogate(rest) {
            Some(_) => {
                out.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[3..];
            }
            None => {
                // Up to the next byte that may begin a surrogate.
                let len = rest.iter().skip(1).position(|&b| b == SURROGATE_LEAD);
                let (part, after) = rest.split_at(len.map_or(rest.len(), |len| len + 1));
                out.push_str(&String::from_utf8_lossy(part));
                rest = after;
            }
        }
    }
    out
}

/// The surrogate that `text` begins with, if it does.
pub(super) fn surrogate(text: &[u8]) -> Option<u16> {
    match *text {
        [SURROGATE_LEAD, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f))
        }
        _ => None,
    }
}

/// Bytes of the white space character that `text` begins with.
fn leading_space(text: &[u8]) -> Option<usize> {
    match *text {
        [0x09..=0x0d | b' ', ..] => Some(1),
        [0xc2, 0xa0, ..] => Some(2),
        [first, second, third, ..] if is_wide_space([first, second, third]) => Some(3),
        _ => None,
    }
}

fn trailing_space(text: &[u8]) -> Option<usize> {
    match *text {
        [.., 0x09..=0x0d | b' '] => Some(1),
        [.., 0xc2, 0xa0] => Some(2),
        [.., first, second, third] if is_wide_space([first, second, third]) => Some(3),
        _ => None,
    }
}

const fn is_wide_space(bytes: [u8; 3]) -> bool {
    matches!(
        bytes,
        [0xe1, 0x9a, 0x80]
            | [0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf]
            | [0xe2, 0x81, 0x9f]
            | [0xe3, 0x80, 0x80]
            | [0xef, 0xbb, 0xbf]
    )
}

/// A text of which it matters only whether it is blank, arriving in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blankness {
    blank: bool,
    /// The start of a character that may be white space.
    open: [u8; 2],
    open_len: u8,
}

impl Blankness {
    pub(super) const EMPTY: Self = Self { blank: true, open: [0; 2], open_len: 0 };

    /// Whether everything so far was white space.
    pub(super) const fn is_blank(self) -> bool {
        self.blank && self.open_len == 0
    }

    /// Takes the next bytes. Costs nothing once something else than white space was seen.
    #[inline]
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.blank {
            match bytes {
                // Nearly every text begins like this.
                [0x21..=0x7e, ..] => self.blank = false,
                _ => self.feed_blank(bytes),
            }
        }
    }

    fn feed_blank(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match (self.open_len, byte) {
                (0, 0x09..=0x0d | b' ') => {}
                (0, 0xc2 | 0xe1 | 0xe2 | 0xe3 | 0xef) => {
                    self.open[0] = byte;
                    self.open_len = 1;
                }
                (1, 0xa0) if self.open[0] == 0xc2 => self.open_len = 0,
                (1, _) if self.open[0] != 0xc2 => {
                    self.open[1] = byte;
                    self.open_len = 2;
                }
                (2, _) if is_wide_space([self.open[0], self.open[1], byte]) => self.open_len = 0,
                _ => {
                    self.blank = false;
                    return;
                }
            }
        }
    }
}

const SURROGATE_LEAD: u8 = 0xed;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every character `trim` removes.
    const SPACES: &str = "\t\n\u{b}\u{c}\r \u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\
        \u{2005}\u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\
        \u{205f}\u{3000}\u{feff}";

    #[test]
    fn trim_removes_exactly_what_javascript_removes() {
        for code in 0..=0x1_0000_u32 {
            let Some(character) = char::from_u32(code) else {
                continue;
            };
            let text = format!("{character}x{character}");
            let trimmed = trim_js(text.as_bytes()) == b"x";
            assert_eq!(trimmed, SPACES.contains(character), "U+{code:04X}");
            assert_eq!(is_blank(character.to_string().as_bytes()), trimmed, "U+{code:04X}");
        }
    }

    #[test]
    fn trim_keeps_white_space_inside() {
        assert_eq!(trim_js(" \u{feff}a b\u{a0}".as_bytes()), b"a b");
        assert_eq!(trim_js(b"  "), b"");
    }

    #[test]
    fn blankness_is_the_same_however_the_text_is_cut() {
        for text in [SPACES, "", " \u{85}", "\u{180e}", "\u{2000}x", "\u{c2}", "\u{e2}", "\u{200b}"]
        {
            let bytes = text.as_bytes();
            for cut in 0..=bytes.len() {
                let mut blankness = Blankness::EMPTY;
                blankness.feed(&bytes[..cut]);
                blankness.feed(&bytes[cut..]);
                assert_eq!(blankness.is_blank(), is_blank(bytes), "{text:?} {cut}");
            }
        }
    }

    #[test]
    fn length_counts_utf16_units() {
        assert_eq!(utf16_len("aé😀".as_bytes()), 4);
        assert_eq!(utf16_len(b"\xed\xa0\x80"), 1);
    }

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        assert_eq!(lossy(b"a\xed\xa0\x80b\xed\xbf\xbf"), "a\u{fffd}b\u{fffd}");
        assert_eq!(lossy(b"a\xed\xa0\x80b".to_vec()), "a\u{fffd}b");
        assert_eq!(lossy("\u{d7ff}é".as_bytes()), "\u{d7ff}é");
    }

    proptest! {
        #[test]
        fn lossy_never_panics_and_keeps_valid_text(text: String, junk: Vec<u8>) {
            prop_assert_eq!(lossy(text.as_bytes()), text);
            lossy(junk);
        }
    }
}
