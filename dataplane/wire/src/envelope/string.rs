//! JSON strings, read in pieces and decoded to WTF-8.

use super::member::NAME_BYTES_MAX;
use super::text::Blankness;
use crate::websocket::mask::{CHUNK_BYTES, Marks};

/// Where a string's content goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// Nowhere: only the form matters.
    Skip,
    /// Into the name buffer.
    Name,
    /// Into the blankness test.
    Blankness,
    /// To the end of the scanner's text.
    Text,
}

/// What became of the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Read {
    /// It is used up; the string goes on.
    More,
    /// The closing quote lies before this position.
    Ended(usize),
    /// It cannot be a string.
    Bad,
}

/// How far into an escape the reader is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Escape {
    None,
    Begun,
    /// Hexadecimal digits still to come.
    Hex(u8),
}

/// The reader of one string at a time.
#[derive(Clone, Debug)]
pub(super) struct StringReader {
    target: Target,
    escape: Escape,
    /// The UTF-16 unit of a `\u` escape, as far as it is read.
    unit: u16,
    /// A high surrogate that may pair with the next escape.
    high: Option<u16>,
    blankness: Blankness,
    name: [u8; NAME_BYTES_MAX],
    /// More than the buffer holds when the name is longer than any we know.
    name_len: u8,
    /// Bytes of escapes that nobody has asked about.
    escaped_bytes: u32,
}

impl StringReader {
    pub(super) const fn new() -> Self {
        Self {
            target: Target::Skip,
            escape: Escape::None,
            unit: 0,
            high: None,
            blankness: Blankness::EMPTY,
            name: [0; NAME_BYTES_MAX],
            name_len: 0,
            escaped_bytes: 0,
        }
    }

    /// Starts a string after its opening quote.
    #[inline]
    pub(super) fn begin(&mut self, target: Target) {
        self.target = target;
        self.escape = Escape::None;
        self.high = None;
        match target {
            Target::Name => self.name_len = 0,
            Target::Blankness => self.blankness = Blankness::EMPTY,
            Target::Skip | Target::Text => {}
        }
    }

    /// Bytes of escapes that were read since this was asked last.
    pub(super) fn take_escaped_bytes(&mut self) -> u32 {
        std::mem::take(&mut self.escaped_bytes)
    }

    /// The name read last, if it fits the buffer.
    #[inline]
    pub(super) fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.name_len)).unwrap_or_default()
    }

    /// Whether the string read last into [`Target::Blankness`] is blank.
    pub(super) const fn is_blank(&self) -> bool {
        self.blankness.is_blank()
    }

    /// Judges a string that is there whole and has no escapes.
    #[inline]
    pub(super) fn judge_blankness(&mut self, content: &[u8]) {
        self.blankness = Blankness::EMPTY;
        self.blankness.feed(content);
    }

    /// Reads on from `bytes[at]`. Cost: marked chunks are stepped over, of other bytes eight are
    /// looked at together.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        at: usize,
        marks: Marks,
        text: &mut Vec<u8>,
    ) -> Read {
        let mut at = at;
        loop {
            if self.escape == Escape::None {
                let end = content_end(bytes, at, marks);
                if end > at {
                    self.content(&bytes[at..end], text);
                }
                match bytes.get(end) {
                    None => return Read::More,
                    Some(b'"') => {
                        self.flush_high(text);
                        return Read::Ended(end + 1);
                    }
                    Some(b'\\') => self.escape = Escape::Begun,
                    Some(_) => return Read::Bad,
                }
                at = end + 1;
            }
            let Some(&byte) = bytes.get(at) else {
                return Read::More;
            };
            if !self.escaped(byte, text) {
                return Read::Bad;
            }
            at += 1;
        }
    }

    /// One byte of an escape.
    fn escaped(&mut self, byte: u8, text: &mut Vec<u8>) -> bool {
        self.escaped_bytes = self.escaped_bytes.wrapping_add(1);
        let Escape::Hex(left) = self.escape else {
            if byte == b'u' {
                self.unit = 0;
                self.escape = Escape::Hex(4);
                return true;
            }
            let Some(unit) = unescaped(byte) else {
                return false;
            };
            self.escape = Escape::None;
            self.unit(u16::from(unit), text);
            return true;
        };
        let Some(digit) = char::from(byte).to_digit(16) else {
            return false;
        };
        self.unit = self.unit << 4 | digit as u16;
        if left > 1 {
            self.escape = Escape::Hex(left - 1);
        } else {
            self.escape = Escape::None;
            self.unit(self.unit, text);
        }
        true
    }

    /// One escaped UTF-16 unit. Two surrogates that pair become one character.
    fn unit(&mut self, unit: u16, text: &mut Vec<u8>) {
        if self.target == Target::Skip {
            return;
        }
        if let (Some(high), 0xdc00..=0xdfff) = (self.high, unit) {
            self.high = None;
            let code = 0x1_0000 + (u32::from(high & 0x3ff) << 10 | u32::from(unit & 0x3ff));
            let bytes = [
                0xf0 | (code >> 18) as u8,
                0x80 | (code >> 12 & 0x3f) as u8,
                0x80 | (code >> 6 & 0x3f) as u8,
                0x80 | (code & 0x3f) as u8,
            ];
            return self.sink(&bytes, text);
        }
        self.flush_high(text);
        match unit {
            0xd800..=0xdbff => self.high = Some(unit),
            _ => self.sink_unit(unit, text),
        }
    }

    /// Bytes that stand for themselves.
    #[inline]
    fn content(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        if self.target != Target::Skip {
            self.flush_high(text);
            self.sink(bytes, text);
        }
    }

    /// A high surrogate that found no partner stands alone.
    #[inline]
    fn flush_high(&mut self, text: &mut Vec<u8>) {
        if let Some(high) = self.high.take() {
            self.sink_unit(high, text);
        }
    }

    /// A unit of the basic plane, in up to three bytes.
    fn sink_unit(&mut self, unit: u16, text: &mut Vec<u8>) {
        let low = 0x80 | (unit & 0x3f) as u8;
        match unit {
            0..=0x7f => self.sink(&[unit as u8], text),
            0x80..=0x7ff => self.sink(&[0xc0 | (unit >> 6) as u8, low], text),
            _ => {
                let middle = 0x80 | (unit >> 6 & 0x3f) as u8;
                self.sink(&[0xe0 | (unit >> 12) as u8, middle, low], text);
            }
        }
    }

    #[inline]
    fn sink(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        match self.target {
            Target::Skip => {}
            Target::Text => text.extend_from_slice(bytes),
            Target::Blankness => self.blankness.feed(bytes),
            Target::Name => {
                let start = usize::from(self.name_len);
                let end = start.saturating_add(bytes.len());
                match self.name.get_mut(start..end) {
                    Some(place) => {
                        place.copy_from_slice(bytes);
                        self.name_len = end as u8;
                    }
                    None => self.name_len = NAME_TOO_LONG,
                }
            }
        }
    }
}

/// What a backslash and this byte stand for, where it is a character of its own. Source: RFC 8259
/// §7.
#[inline]
pub(super) fn unescaped(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// The first position from `at` on that ends a run of plain content: a quote, a backslash, a
/// control character, or the end of the input.
#[inline]
pub(super) fn content_end(bytes: &[u8], at: usize, marks: Marks) -> usize {
    // Names and ids end within a few words; only what is longer is worth a look at the marks.
    let mut at = at;
    let near = at + CHUNK_BYTES;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let special = specials(u64::from_le_bytes(*word));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
        if at >= near {
            return content_end_far(bytes, at, marks);
        }
    }
    content_end_bytewise(bytes, at, bytes.len())
}

/// The same, a chunk at a time.
fn content_end_far(bytes: &[u8], at: usize, marks: Marks) -> usize {
    let mut at = at;
    while at < bytes.len() {
        at += marks.plain_bytes(at);
        let stop = bytes.len().min((at / CHUNK_BYTES + 1) * CHUNK_BYTES);
        let (words, _) = bytes.get(at..stop).unwrap_or_default().as_chunks();
        for word in words {
            let special = specials(u64::from_le_bytes(*word));
            if special != 0 {
                return at + special.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
        at = content_end_bytewise(bytes, at, stop);
        if at < stop {
            return at;
        }
    }
    at
}

fn content_end_bytewise(bytes: &[u8], at: usize, stop: usize) -> usize {
    let rest = bytes.get(at..stop).unwrap_or_default();
    let found = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    found.map_or(stop, |found| at + found)
}

/// The high bit of every byte that is a quote, a backslash or a control character. Bits above the
/// lowest set one may be wrong, which the caller does not look at.
#[inline]
const fn specials(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let is_control = word.wrapping_sub(ONES * 0x20) & !word;
    (is_quote | is_backslash | is_control) & HIGHS
}

/// The length of a name that is longer than the buffer.
const NAME_TOO_LONG: u8 = NAME_BYTES_MAX as u8 + 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(source: &[u8], cut: usize) -> Option<Vec<u8>> {
        let mut reader = StringReader::new();
        let mut text = Vec::new();
        reader.begin(Target::Text);
        let (left, right) = source.split_at(cut.min(source.len()));
        match reader.read(left, 0, Marks::NONE, &mut text) {
            Read::Ended(_) => return Some(text),
            Read::Bad => return None,
            Read::More => {}
        }
        match reader.read(right, 0, Marks::NONE, &mut text) {
            Read::Ended(_) => Some(text),
            Read::Bad | Read::More => None,
        }
    }

    #[test]
    fn escapes_decode_to_wtf8_wherever_the_input_is_cut() {
        for (source, expected) in [
            (r#"plain""#, &b"plain"[..]),
            (r#"\"\\\/\b\f\n\r\t""#, b"\"\\/\x08\x0c\n\r\t"),
            (r#"\u0041\u00e9\u20AC""#, "Aé€".as_bytes()),
            (r#"\ud83d\ude00""#, "😀".as_bytes()),
            (r#"\ud800""#, b"\xed\xa0\x80"),
            (r#"\ud800x""#, b"\xed\xa0\x80x"),
            (r#"\ud800\ud83d\ude00""#, b"\xed\xa0\x80\xf0\x9f\x98\x80"),
            (r#"\ude00\ud83d""#, b"\xed\xb8\x80\xed\xa0\xbd"),
            (r#"\ud83d\n""#, b"\xed\xa0\xbd\n"),
        ] {
            for cut in 0..source.len() {
                let decoded = decode(source.as_bytes(), cut);
                assert_eq!(decoded.as_deref(), Some(expected), "{source} cut at {cut}");
            }
        }
    }

    #[test]
    fn bad_strings_are_refused_wherever_the_input_is_cut() {
        for source in ["\\x\"", "\\u12g4\"", "a\nb\"", "\x00\"", "\\u\"", "\\'\"", "\x1f\""] {
            for cut in 0..source.len() {
                assert_eq!(decode(source.as_bytes(), cut), None, "{source:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_name_longer_than_any_known_reads_as_empty() {
        let mut reader = StringReader::new();
        reader.begin(Target::Name);
        let long = [b'n'; 300];
        assert_eq!(reader.read(&long, 0, Marks::NONE, &mut Vec::new()), Read::More);
        assert_eq!(reader.read(b"x\"", 0, Marks::NONE, &mut Vec::new()), Read::Ended(2));
        assert_eq!(reader.name(), b"");
    }

    proptest! {
        #[test]
        fn the_end_of_content_is_the_first_special_byte(
            bytes in proptest::collection::vec(
                prop_oneof![30 => 0x20_u8..=0xff, 1 => any::<u8>()], 0..300),
            at in 0_usize..300,
        ) {
            let at = at.min(bytes.len());
            let expected = bytes[at..]
                .iter()
                .position(|&b| b < 0x20 || b == b'"' || b == b'\\')
                .map_or(bytes.len(), |found| at + found);
            prop_assert_eq!(content_end(&bytes, at, Marks::NONE), expected);
        }
    }
}
