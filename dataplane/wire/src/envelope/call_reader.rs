//! A worker's call, read piece by piece.

use std::mem;

use relay_contract::WorkerRequest;

use super::Invalid;
use super::call::{Call, Text};
use super::object::{Value, is_space};
use super::string::{Read, StringReader, Target};
use super::text::lossy;
use crate::websocket::mask::{BLOCK_BYTES, mark_block};

/// Reads a worker's call from the pieces it came in, so that nobody has to wait until a megabyte is
/// read.
///
/// What it makes of a text is what [`cold::parse`](super::cold::parse) makes of it; both are for
/// texts that a scanner accepted, and of others make something or refuse them. Memory: decoded
/// strings of the members that are meant, together no longer than the text, the headers as they
/// stand, in a vector that doubles, and a block of 4 KiB.
/// Cost: one pass and a copy of what is meant; in the end one pass more over the headers.
pub struct CallReader {
    state: State,
    string: StringReader,
    /// Whose value is read.
    member: Option<Wanted>,
    /// Brackets around what is read of a value.
    depth: usize,
    request_id: Captured,
    method: Captured,
    path: Captured,
    body: Captured,
    /// The value of `headers` as it stands, from its first byte on.
    headers: Option<Vec<u8>>,
    /// Decoded, but not yet where it belongs: less than a character is left between pieces.
    decoded: Vec<u8>,
    /// Bytes of the whole text from the block on that is read.
    ahead: usize,
    /// See [`take_steps`](Self::take_steps).
    steps: usize,
}

/// ```text
/// Start ─{─▶ Name ─"─▶ InName ─"─▶ Colon ─:─▶ Value ─"─▶ InText ─"─┐
///             ▲ ▲                               └─else─▶ Raw ◀──▶ InRawString
///             │ └──────────────── , ──────────────────────┘        │
///             └──────────────────────── , ─────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Start,
    Name,
    InName,
    Colon,
    Value,
    InText,
    Raw,
    InRawString,
}

/// Members that a call is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wanted {
    RequestId,
    Method,
    Path,
    Headers,
    Body,
}

/// What was found of a member that has to be a string.
#[derive(Debug, Default)]
enum Captured {
    #[default]
    Absent,
    /// It is something else.
    Other,
    Text(String),
}

impl CallReader {
    /// A reader of a text of so many bytes.
    pub fn new(len: usize) -> Self {
        Self {
            state: State::Start,
            string: StringReader::new(),
            member: None,
            depth: 0,
            request_id: Captured::Absent,
            method: Captured::Absent,
            path: Captured::Absent,
            body: Captured::Absent,
            headers: None,
            decoded: Vec::new(),
            ahead: len,
            steps: 0,
        }
    }

    /// Memory of its own, bytes.
    pub fn held_bytes(&self) -> usize {
        let texts = [&self.request_id, &self.method, &self.path, &self.body];
        size_of::<Self>()
            + self.decoded.capacity()
            + self.headers.as_ref().map_or(0, Vec::capacity)
            + texts.iter().map(|text| text.held_bytes()).sum::<usize>()
    }

    /// What took longer than its bytes since this was asked last: one for a string, one for each
    /// eight bytes of escapes.
    pub fn take_steps(&mut self) -> usize {
        mem::take(&mut self.steps) + self.string.take_escaped_bytes() as usize / 8
    }

    /// Bytes that [`finish`](Self::finish), or whoever judges the call then, looks through once
    /// more: all but the body.
    pub fn bytes_to_judge(&self) -> usize {
        let texts = [&self.request_id, &self.method, &self.path];
        let headers = self.headers.as_ref().map_or(0, Vec::len);
        headers + texts.iter().map(|text| text.len()).sum::<usize>()
    }

    /// Reads the next piece of the text.
    pub fn feed(&mut self, piece: &[u8]) {
        for block in piece.chunks(BLOCK_BYTES) {
            self.feed_block(block);
            self.ahead = self.ahead.saturating_sub(block.len());
        }
    }

    /// The call, after the last piece. Errors: it is none.
    pub fn finish(self) -> Result<WorkerRequest, Invalid> {
        if matches!(self.body, Captured::Other) {
            return Err(Invalid::Member);
        }
        let call = Call {
            request_id: self.request_id.text(),
            method: self.method.text(),
            path: self.path.text(),
            headers: self.headers.as_deref().map(Value::of),
            body: self.body.text(),
        };
        call.into_request().ok_or(Invalid::Member)
    }

    fn feed_block(&mut self, block: &[u8]) {
        let marks = mark_block(block);
        let mut at = 0;
        while let Some(&byte) = block.get(at) {
            match self.state {
                State::InName | State::InRawString | State::InText => {
                    let read = self.string.read(block, at, marks, &mut self.decoded);
                    let end = match read {
                        Read::More | Read::Bad => block.len(),
                        Read::Ended(end) => end,
                    };
                    self.on_string(&block[at..end], read);
                    at = end;
                    continue;
                }
                State::Raw => self.on_raw(byte),
                State::Start if byte == b'{' => self.state = State::Name,
                State::Name if byte == b'"' => {
                    self.string.begin(Target::Name);
                    self.state = State::InName;
                }
                State::Colon if byte == b':' => self.state = State::Value,
                State::Value if !is_space(&byte) => self.begin_value(byte),
                State::Start | State::Name | State::Colon | State::Value => {}
            }
            at += 1;
        }
    }

    /// Part of a string was read.
    fn on_string(&mut self, part: &[u8], read: Read) {
        let has_ended = matches!(read, Read::Ended(_));
        self.steps += usize::from(has_ended);
        match self.state {
            State::InName => {
                if has_ended {
                    self.member = Wanted::of(self.string.name());
                    self.state = State::Colon;
                }
            }
            State::InRawString => {
                self.keep_raw(part);
                if has_ended {
                    self.state = State::Raw;
                }
            }
            State::InText => {
                self.settle_text(has_ended);
                if has_ended {
                    // What is left of the member is white space and a comma.
                    (self.member, self.state) = (None, State::Raw);
                }
            }
            State::Start | State::Name | State::Colon | State::Value | State::Raw => {}
        }
    }

    /// The first byte of a value.
    fn begin_value(&mut self, byte: u8) {
        self.depth = 0;
        let is_string = byte == b'"';
        let Some(member) = self.member else {
            return self.on_raw(byte);
        };
        if let Some(place) = self.place_of(member) {
            if is_string {
                *place = Captured::Text(String::new());
                self.string.begin(Target::Text);
                self.state = State::InText;
                return;
            }
            *place = Captured::Other;
            self.member = None;
        } else {
            self.headers = Some(Vec::new());
        }
        self.on_raw(byte);
    }

    /// A byte of a value outside of strings, or of what follows it.
    fn on_raw(&mut self, byte: u8) {
        self.state = State::Raw;
        match byte {
            b',' if self.depth == 0 => {
                (self.member, self.state) = (None, State::Name);
                return;
            }
            b'"' => {
                self.string.begin(Target::Skip);
                self.state = State::InRawString;
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                // The last of them is the object's own.
                let Some(depth) = self.depth.checked_sub(1) else { return };
                self.depth = depth;
            }
            _ => {}
        }
        self.keep_raw(&[byte]);
    }

    fn keep_raw(&mut self, part: &[u8]) {
        if self.member == Some(Wanted::Headers)
            && let Some(headers) = &mut self.headers
        {
            headers.extend_from_slice(part);
        }
    }

    /// Moves what was decoded to where it belongs, but for the beginning of a character whose rest
    /// may come.
    fn settle_text(&mut self, has_ended: bool) {
        let Some(member) = self.member else { return };
        let mut decoded = mem::take(&mut self.decoded);
        let ahead = self.ahead;
        let whole = if has_ended { decoded.len() } else { whole_characters(&decoded) };
        if let Some(Captured::Text(text)) = self.place_of(member) {
            if text.capacity() < text.len() + whole {
                // Little is copied when it grows, and the rest is room for all that may follow.
                let more = if text.len() < LONG_BYTES { 3 * text.len() } else { ahead };
                let more = if has_ended { 0 } else { more.min(ahead) };
                // A character that was begun in the block before is not in what is ahead.
                text.reserve_exact(whole.max(more + CHARACTER_BYTES_MAX));
            }
            match simdutf8::basic::from_utf8(&decoded[..whole]) {
                Ok(part) => text.push_str(part),
                Err(_) => text.push_str(&lossy(&decoded[..whole])),
            }
            if has_ended {
                text.shrink_to_fit();
            }
        }
        decoded.drain(..whole);
        self.decoded = decoded;
    }

    fn place_of(&mut self, member: Wanted) -> Option<&mut Captured> {
        match member {
            Wanted::RequestId => Some(&mut self.request_id),
            Wanted::Method => Some(&mut self.method),
            Wanted::Path => Some(&mut self.path),
            Wanted::Body => Some(&mut self.body),
            Wanted::Headers => None,
        }
    }
}

impl Wanted {
    fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"requestId" => Some(Self::RequestId),
            b"method" => Some(Self::Method),
            b"path" => Some(Self::Path),
            b"headers" => Some(Self::Headers),
            b"body" => Some(Self::Body),
            _ => None,
        }
    }
}

impl Captured {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Absent | Self::Other => 0,
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            Self::Absent | Self::Other => 0,
        }
    }

    fn text(self) -> Option<Text<'static>> {
        match self {
            Self::Text(text) => Some(Text::Utf8(text)),
            Self::Absent | Self::Other => None,
        }
    }
}

/// A string of more takes room for the rest of the text: moving it when it grows would take longer
/// than reading it.
const LONG_BYTES: usize = 16 << 10;

/// UTF-8 has no longer ones.
const CHARACTER_BYTES_MAX: usize = 4;

/// Bytes of a text up to a character at its end that is not whole.
fn whole_characters(text: &[u8]) -> usize {
    let lead = text.iter().rev().take(3).position(|&byte| byte & 0xc0 != 0x80);
    let Some(behind) = lead else { return text.len() };
    let at = text.len() - 1 - behind;
    let character_bytes = match text[at] {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    };
    if text.len() - at < character_bytes { at } else { text.len() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::cold::{self, ColdFrame};
    use crate::envelope::{ColdKind, Scanner};

    type Members = (String, Box<str>, String, Vec<(Box<str>, String)>, Option<String>);

    fn members(request: WorkerRequest) -> Members {
        let WorkerRequest { request_id, method, path, headers, body } = request;
        (request_id, method, path, headers, body)
    }

    /// What both readers make of a text, cut into pieces of that length.
    fn both(text: &[u8], piece_bytes: usize) -> [Option<Members>; 2] {
        let mut reader = CallReader::new(text.len());
        for piece in text.chunks(piece_bytes) {
            reader.feed(piece);
        }
        let whole = match cold::parse(ColdKind::Worker, text) {
            Ok(ColdFrame::Worker(request)) => Some(request),
            _ => None,
        };
        [reader.finish().ok(), whole].map(|request| request.map(members))
    }

    fn assert_same(text: &str) {
        for piece_bytes in [1, 2, 3, 5, 7, 64, 4096, text.len().max(1)] {
            let [pieces, whole] = both(text.as_bytes(), piece_bytes);
            assert_eq!(pieces, whole, "{text} in pieces of {piece_bytes}");
        }
    }

    const CALL: &str = r#""requestId":"w","method":"POST","path":"/api/runtime/workspaces/x?a=1""#;

    #[test]
    fn a_call_is_the_same_however_it_is_cut() {
        for members in [
            r#""headers":{"Accept":"a,}","x-viewport-run-lease":"\u00e9"},"body":"b\ud83d\ude00é""#,
            r#""body":"lone \ud83d and \ude00 alone""#,
            r#""body":"one","body":"two""#,
            r#""body":5,"body":"two""#,
            r#""body":"one","body":[{"body":"}"},"]"]"#,
            r#""b\u006fdy" : "named with an escape" "#,
            r#""other":{"body":"not this"},"more":["}",{"a":[1,2,{}]}],"body":"this""#,
            r#""headers":"{}""#,
            r#""headers":null"#,
            r#""headers":{},"headers": { "accept" : "1" } "#,
            r#""requestId":"again","path":"/api/runtime/workspaces/\ud800""#,
            r#""method":"GET","body":"unasked for""#,
            r#""path":5"#,
            r#""requestId":" \t""#,
        ] {
            assert_same(&format!("{{{CALL},{members}}}"));
            assert_same(&format!(" {{ {members} , {CALL} }} "));
        }
        let [pieces, _] = both(format!("{{{CALL},\"body\":\"é\"}}").as_bytes(), 1);
        assert_eq!(pieces.unwrap().4.as_deref(), Some("é"));
    }

    #[test]
    fn a_long_body_is_read_without_room_to_spare() {
        let body = "é and what follows\\n".repeat(60_000);
        let text = format!("{{\"body\":\"{body}\",{CALL}}}");
        let mut reader = CallReader::new(text.len());
        for piece in text.as_bytes().chunks(32 << 10) {
            reader.feed(piece);
            assert!(reader.held_bytes() < text.len() + (16 << 10), "{}", reader.held_bytes());
        }
        let request = reader.finish().unwrap();
        let read = request.body.unwrap();
        assert_eq!(read, body.replace("\\n", "\n"));
        assert_eq!(read.len(), read.capacity());
    }

    const NAMES: &[&str] =
        &["requestId", "method", "path", "headers", "body", "bo\\u0064y", "x", "\\u0000"];
    /// What strings are made of.
    const PARTS: &[&str] = &[
        "/api/runtime/workspaces/",
        "POST",
        "a",
        " ",
        ",",
        "}",
        "\\u00e9",
        "\\ud83d",
        "\\ude00",
        "\\n",
        "\\\"",
        "\\\\",
        "é",
        "😀",
        "eight bytes and more",
    ];
    const OTHERS: &[&str] =
        &["null", "-1.5e3 ", "[]", "[1,{\"body\":\"]\"}]", "{}", " {\"accept\":\"a}\", \"x\":2}"];

    /// A member: its name, and a string or something else as its value.
    fn member() -> impl Strategy<Value = String> {
        let string = proptest::collection::vec(proptest::sample::select(PARTS), 0..8);
        let string = string.prop_map(|parts| format!("\"{}\"", parts.concat()));
        let other = proptest::sample::select(OTHERS).prop_map(str::to_owned);
        let value = prop_oneof![3 => string, 1 => other];
        (proptest::sample::select(NAMES), value)
            .prop_map(|(name, value)| format!("\"{name}\":{value}"))
    }

    proptest! {
        #[test]
        fn whatever_a_scanner_takes_for_a_call_is_the_same_in_pieces(
            members in proptest::collection::vec(member(), 0..8),
            piece_bytes in 1_usize..40,
        ) {
            let members = members.join(",");
            for call in [format!("{CALL},"), String::new()] {
                let kind = r#""type":"viewport.worker_transport.request/v1""#;
                let comma = if members.is_empty() { "" } else { "," };
                let text = format!("{{{members}{comma}{call}{kind}}}");
                let mut scanner = Scanner::new();
                scanner.feed(text.as_bytes());
                prop_assert!(scanner.finish().is_ok(), "{text}");
                let [pieces, whole] = both(text.as_bytes(), piece_bytes);
                prop_assert_eq!(pieces, whole);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, piece_bytes in 1_usize..40) {
            both(&bytes, piece_bytes);
        }
    }
}
