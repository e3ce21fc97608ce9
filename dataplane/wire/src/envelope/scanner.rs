//! The one pass over a frame's text.

use std::fmt;

use super::judge;
use super::member::{Kind, MEMBER_COUNT, Member, NUMBER_COUNT, TEXT_COUNT};
use super::nesting::Nesting;
use super::number::{Decimal, NumberState};
use super::object::is_space;
use super::opening::{Common, Opening};
use super::string::{Read, StringReader, Target, content_end};
use super::{Envelope, Invalid};
use crate::websocket::mask::{BLOCK_BYTES, Marks, mark_block};

/// Reads one frame at a time, in pieces of any size.
///
/// ```text
/// Start ─{─▶ FirstName ─name─▶ Colon ─:─▶ Value ─value─▶ AfterValue ─,─▶ Name or Value
///                │ }                        ▲ [ │ { : one level deeper      │ } ]
///                ▼                          │   ▼                           ▼
///        AfterValue, or Ended          FirstValue  FirstName     AfterValue, or Ended
/// ```
///
/// Shape: holds decoded copies of the few strings an envelope hands out, so the text itself need
/// not stay. Memory is bounded by the text fed: never more than its length for strings and numbers,
/// and an eighth of it for nesting; what an unusual frame took is given back at the next
/// [`reset`](Self::reset). Cost: one pass, no allocation once the working size is reached.
#[derive(Clone)]
pub struct Scanner {
    state: State,
    /// Whose value is read; [`Member::Other`] below the top level.
    member: Member,
    number: NumberState,
    /// Of the number that is read, where it matters; its digits lie at the end of `text`.
    decimal: Decimal,
    /// Numbers that matter and are long, as far as the findings refer to them.
    longer: [Longer; NUMBER_COUNT],
    /// Whether the text has any of them.
    has_longer: bool,
    string: StringReader,
    /// What is left of `true`, `false` or `null`.
    literal: &'static [u8],
    nesting: Nesting,
    found: Findings,
    text: Vec<u8>,
    /// Where in `text` the string or number being read starts.
    value_start: usize,
    /// Nothing was fed since the last reset.
    is_fresh: bool,
    /// How the text before began.
    opening: Opening,
    /// Bytes of the piece being read that are the same as in the text before.
    same: usize,
    /// See [`steps`](Self::steps).
    steps: u32,
    /// The beginning of a character whose rest may come with the next bytes.
    open: [u8; 3],
    open_len: u8,
}

/// What was found of the top-level members so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Findings {
    kinds: [Kind; MEMBER_COUNT],
    /// Where in the scanner's text each kept string lies.
    spans: [Span; TEXT_COUNT],
    /// [`LONGER`] for those whose value is found when somebody asks for it.
    numbers: [f64; NUMBER_COUNT],
}

impl Findings {
    pub(super) const NONE: Self = Self {
        kinds: [Kind::Absent; MEMBER_COUNT],
        spans: [Span { start: 0, end: 0 }; TEXT_COUNT],
        numbers: [0.0; NUMBER_COUNT],
    };
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

/// A number whose value takes long to find: the last of several equal names alone is worth it.
#[derive(Clone, Copy, Debug, Default)]
struct Longer {
    decimal: Decimal,
    /// Where in the scanner's text its digits lie.
    digits: Span,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Start,
    FirstName,
    Name,
    Colon,
    Value,
    FirstValue,
    AfterValue,
    InName,
    InString,
    InNumber,
    InLiteral,
    Ended,
    Failed,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Scanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Scanner {
    /// A scanner ready for a frame.
    pub fn new() -> Self {
        Self {
            state: State::Start,
            member: Member::Other,
            number: NumberState::Zero,
            decimal: Decimal::default(),
            longer: [Longer::default(); NUMBER_COUNT],
            has_longer: false,
            string: StringReader::new(),
            literal: &[],
            nesting: Nesting::default(),
            found: Findings::NONE,
            text: Vec::new(),
            value_start: 0,
            is_fresh: true,
            opening: Opening::new(),
            same: 0,
            steps: 0,
            open: [0; 3],
            open_len: 0,
        }
    }

    /// Makes ready for another frame. The decoder does this at a message's first byte.
    pub fn reset(&mut self) {
        self.state = State::Start;
        self.is_fresh = true;
        self.has_longer = false;
        self.steps = 0;
        self.open_len = 0;
        self.found.kinds = [Kind::Absent; MEMBER_COUNT];
        self.nesting.clear();
        self.text.clear();
        if self.text.capacity() > RETAINED_BYTES_MAX {
            self.text.shrink_to(RETAINED_BYTES_MAX);
        }
    }

    /// Memory that what was fed so far may have made it take: twice what it keeps, as vectors grow.
    /// The same for the same bytes, whatever was read before.
    pub fn held_bytes(&self) -> usize {
        2 * self.text.len() + self.nesting.held_bytes()
    }

    /// How much of this text it has had to read bit by bit: a step for each name, value, bracket
    /// and byte of an escape, and for 32 digits of a long number or bytes of white space; 1,000 for
    /// a number whose value takes long to find. Of what lies plainly in a string 4 KiB are a step,
    /// so a frame takes a few dozen; a text of brackets takes one for each byte. The same for the
    /// same pieces, whatever was read before. Unit: 10 to 20 ns.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Takes the next bytes of the text. A text may be cut anywhere.
    pub fn feed(&mut self, text: &[u8]) {
        for block in text.chunks(BLOCK_BYTES) {
            self.feed_marked(block, mark_block(block));
        }
    }

    /// Takes the next bytes of what is to be read as decoding with replacement reads it: each
    /// longest part that could begin a character, and each byte that could not, is U+FFFD. Source:
    /// Unicode, section 3.9, as `String::from_utf8_lossy`. Cost: a pass more, and a copy where it
    /// is not UTF-8.
    pub fn feed_lossily(&mut self, bytes: &[u8]) {
        let open_len = usize::from(std::mem::take(&mut self.open_len));
        if open_len == 0 && std::str::from_utf8(bytes).is_ok() {
            return self.feed(bytes);
        }
        let bytes = [&self.open[..open_len], bytes].concat();
        let mut text = Vec::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.extend_from_slice(chunk.valid().as_bytes());
            let invalid = chunk.invalid();
            let may_go_on = chunks.peek().is_none();
            match std::str::from_utf8(invalid) {
                Ok(_) => {}
                Err(error) if may_go_on && error.error_len().is_none() => {
                    self.open[..invalid.len()].copy_from_slice(invalid);
                    self.open_len = invalid.len() as u8;
                }
                Err(_) => text.extend_from_slice("\u{fffd}".as_bytes()),
            }
        }
        self.feed(&text);
    }

    /// The frame, if the text fed since the last reset is one. Can be asked again.
    pub fn finish(&self) -> Result<Envelope<'_>, Invalid> {
        // No text ends inside a character.
        if self.state != State::Ended || self.open_len > 0 {
            return Err(Invalid::Json);
        }
        judge::judge(self)
    }

    /// Takes one block whose plain chunks are known.
    pub(crate) fn feed_marked(&mut self, bytes: &[u8], marks: Marks) {
        if std::mem::take(&mut self.is_fresh) {
            let at = self.begin(bytes);
            self.read(bytes, at, marks);
            self.same = 0;
        } else {
            self.read(bytes, 0, marks);
        }
    }

    /// The first piece of a text. Says where the part begins whose meaning is not known.
    fn begin(&mut self, bytes: &[u8]) -> usize {
        let Common { known, same } = self.opening.compare(bytes);
        self.same = same;
        if known > 0 {
            let (found, steps) = self.opening.recall(&mut self.text);
            self.found = *found;
            self.steps = steps;
            self.open(true);
            self.state = State::Name;
        }
        known
    }

    fn read(&mut self, bytes: &[u8], at: usize, marks: Marks) {
        let mut at = at;
        while at < bytes.len() {
            self.steps = self.steps.wrapping_add(1);
            at = match self.state {
                State::InName => self.in_name(bytes, at, marks),
                State::InString => self.in_string(bytes, at, marks),
                State::InNumber => self.in_number(bytes, at),
                State::InLiteral => self.in_literal(bytes, at),
                State::Failed => return,
                State::Start
                | State::FirstName
                | State::Name
                | State::Colon
                | State::Value
                | State::FirstValue
                | State::AfterValue
                | State::Ended => self.between(bytes, at, marks),
            };
        }
    }

    /// What the top-level member's value is.
    pub(super) const fn kind(&self, member: Member) -> Kind {
        self.found.kinds[member as usize]
    }

    /// The text of a member whose text is kept, when it is a string.
    pub(super) fn text(&self, member: Member) -> Option<&[u8]> {
        let span = self.found.spans[member.text_slot()?];
        match self.kind(member) {
            Kind::Text => self.text.get(span.start..span.end),
            _ => None,
        }
    }

    /// The value of a member whose number is kept, when it is a number.
    pub(super) fn number(&self, member: Member) -> Option<f64> {
        let slot = member.number_slot()?;
        let number = self.found.numbers[slot];
        match self.kind(member) {
            Kind::Number if number.is_nan() => self.longer_number(slot),
            Kind::Number => Some(number),
            _ => None,
        }
    }

    #[cold]
    fn longer_number(&self, slot: usize) -> Option<f64> {
        let Longer { decimal, digits } = &self.longer[slot];
        Some(decimal.value(self.text.get(digits.start..digits.end)?))
    }

    /// One byte between names and values.
    #[inline]
    fn between(&mut self, bytes: &[u8], at: usize, marks: Marks) -> usize {
        let byte = bytes[at];
        let next = at + 1;
        match (self.state, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => {
                let end = after_spaces(bytes, next);
                self.steps = self.steps.wrapping_add((end - at) as u32 / RUN_BYTES_PER_STEP);
                return end;
            }
            (State::FirstName | State::Name, b'"') => return self.begin_name(bytes, next, marks),
            (State::Colon, b':') => self.state = State::Value,
            (State::FirstValue | State::AfterValue, b']') => self.close(false),
            (State::FirstName | State::AfterValue, b'}') => self.close(true),
            (State::Value | State::FirstValue, _) => return self.begin_value(bytes, at, marks),
            (State::AfterValue, b',') => self.next_entry(next),
            (State::Start, b'{') => self.open(true),
            _ => self.state = State::Failed,
        }
        next
    }

    fn open(&mut self, is_object: bool) {
        self.nesting.push(is_object);
        self.state = if is_object { State::FirstName } else { State::FirstValue };
    }

    fn close(&mut self, is_object: bool) {
        self.state = match self.nesting.pop(is_object) {
            false => State::Failed,
            true if self.nesting.depth() == 0 => State::Ended,
            true => State::AfterValue,
        };
    }

    /// The first byte of a value.
    #[inline]
    fn begin_value(&mut self, bytes: &[u8], at: usize, marks: Marks) -> usize {
        if self.nesting.depth() > 1 {
            self.member = Member::Other;
        }
        match bytes[at] {
            b'"' => return self.begin_string(bytes, at + 1, marks),
            b'-' | b'0'..=b'9' => return self.begin_number(bytes, at),
            b'{' => self.begin_container(true),
            b'[' => self.begin_container(false),
            b't' => self.begin_literal(Kind::True, b"rue"),
            b'f' => self.begin_literal(Kind::False, b"alse"),
            b'n' => self.begin_literal(Kind::Null, b"ull"),
            _ => self.state = State::Failed,
        }
        at + 1
    }

    const fn string_target(&self) -> Target {
        if self.member.text_slot().is_some() {
            Target::Text
        } else if self.member.must_not_be_blank() {
            Target::Blankness
        } else {
            Target::Skip
        }
    }

    fn begin_container(&mut self, is_object: bool) {
        self.note(Kind::Container);
        self.open(is_object);
    }

    fn begin_literal(&mut self, kind: Kind, rest: &'static [u8]) {
        self.note(kind);
        self.literal = rest;
        self.state = State::InLiteral;
    }

    /// Records what a top-level value is; the last of several equal names counts.
    #[inline]
    fn note(&mut self, kind: Kind) {
        if let Some(place) = self.found.kinds.get_mut(self.member as usize) {
            *place = kind;
        }
    }

    /// A name after its opening quote. Most are there whole and mean what they say.
    #[inline]
    fn begin_name(&mut self, bytes: &[u8], at: usize, marks: Marks) -> usize {
        let end = content_end(bytes, at, marks);
        let at = if bytes.get(end) == Some(&b'"') {
            if self.nesting.depth() == 1 {
                self.member = Member::of(&bytes[at..end]);
            }
            self.after_name(bytes, end + 1)
        } else {
            self.string.begin(Target::Name);
            self.in_name(bytes, at, marks)
        };
        match bytes.get(at) {
            None | Some(b' ' | b'\t' | b'\n' | b'\r') => at,
            Some(_) if self.state == State::Value => self.begin_value(bytes, at, marks),
            Some(_) => at,
        }
    }

    fn in_name(&mut self, bytes: &[u8], at: usize, marks: Marks) -> usize {
        match self.read_string(bytes, at, marks) {
            Read::More => {
                self.state = State::InName;
                bytes.len()
            }
            Read::Bad => self.fail(bytes),
            Read::Ended(at) => {
                if self.nesting.depth() == 1 {
                    self.member = Member::of(self.string.name());
                }
                self.after_name(bytes, at)
            }
        }
    }

    /// After a name. Takes the colon along when it is there.
    #[inline]
    fn after_name(&mut self, bytes: &[u8], at: usize) -> usize {
        if bytes.get(at) == Some(&b':') {
            self.state = State::Value;
            return at + 1;
        }
        self.state = State::Colon;
        at
    }

    /// A string value after its opening quote. Most are there whole and mean what they say.
    #[inline]
    fn begin_string(&mut self, bytes: &[u8], at: usize, marks: Marks) -> usize {
        let target = self.string_target();
        let end = content_end(bytes, at, marks);
        self.value_start = self.text.len();
        if bytes.get(end) != Some(&b'"') {
            self.string.begin(target);
            return self.in_string(bytes, at, marks);
        }
        match target {
            Target::Text => self.text.extend_from_slice(&bytes[at..end]),
            Target::Blankness => self.string.judge_blankness(&bytes[at..end]),
            Target::Skip | Target::Name => {}
        }
        self.end_string();
        self.after_value(bytes, end + 1)
    }

    fn in_string(&mut self, bytes: &[u8], at: usize, marks: Marks) -> usize {
        match self.read_string(bytes, at, marks) {
            Read::More => {
                self.state = State::InString;
                bytes.len()
            }
            Read::Bad => self.fail(bytes),
            Read::Ended(at) => {
                self.end_string();
                self.after_value(bytes, at)
            }
        }
    }

    /// Reads on in a string that is not there whole, or has escapes.
    fn read_string(&mut self, bytes: &[u8], at: usize, marks: Marks) -> Read {
        let read = self.string.read(bytes, at, marks, &mut self.text);
        self.steps = self.steps.wrapping_add(self.string.take_escaped_bytes());
        read
    }

    fn end_string(&mut self) {
        if let Some(slot) = self.member.text_slot() {
            self.found.spans[slot] = Span { start: self.value_start, end: self.text.len() };
        }
        let blank = self.member.must_not_be_blank() && self.string.is_blank();
        self.note(if blank { Kind::Blank } else { Kind::Text });
    }

    /// After a value that is no container. Takes a comma along when it is there.
    #[inline]
    fn after_value(&mut self, bytes: &[u8], at: usize) -> usize {
        if bytes.get(at) == Some(&b',') {
            self.next_entry(at + 1);
            return at + 1;
        }
        self.state = State::AfterValue;
        at
    }

    /// After a comma, which ends before `at`.
    #[inline]
    fn next_entry(&mut self, at: usize) {
        let in_object = self.nesting.in_object();
        self.state = if in_object { State::Name } else { State::Value };
        let is_shared = at <= self.same && !self.has_longer;
        if is_shared && in_object && self.nesting.depth() == 1 {
            self.opening.keep(at, &self.found, &self.text, self.steps());
        }
    }

    /// Most numbers are short, whole and all there; the others go through the grammar.
    #[inline]
    fn begin_number(&mut self, bytes: &[u8], at: usize) -> usize {
        let rest = &bytes[at..];
        let (mut value, mut len) = (0_u64, 0);
        while let Some(&byte @ b'0'..=b'9') = rest.get(len)
            && len <= SHORT_DIGITS_MAX
        {
            value = value * 10 + u64::from(byte - b'0');
            len += 1;
        }
        let plain = (1..=SHORT_DIGITS_MAX).contains(&len) && (rest[0] != b'0' || len == 1);
        if plain && matches!(rest.get(len), Some(b',' | b'}' | b']' | b' ')) {
            if let Some(slot) = self.member.number_slot() {
                // Fifteen digits are exact in a double.
                self.found.numbers[slot] = value as f64;
            }
            self.note(Kind::Number);
            return self.after_value(bytes, at + len);
        }
        self.begin_longer_number(bytes, at)
    }

    #[inline(never)]
    fn begin_longer_number(&mut self, bytes: &[u8], at: usize) -> usize {
        let Some(state) = NumberState::start(bytes[at]) else {
            return self.fail(bytes);
        };
        self.value_start = self.text.len();
        self.decimal = Decimal::default();
        self.state = State::InNumber;
        self.take_of_number(state, &bytes[at..=at]);
        at + 1
    }

    fn in_number(&mut self, bytes: &[u8], at: usize) -> usize {
        let mut at = at;
        while let Some(&byte) = bytes.get(at) {
            let Some(state) = self.number.step(byte) else {
                if !self.number.is_complete() {
                    return self.fail(bytes);
                }
                self.end_number();
                return self.after_value(bytes, at);
            };
            let end = match state.takes_digits() {
                true => after_digits(bytes, at + 1),
                false => at + 1,
            };
            self.take_of_number(state, &bytes[at..end]);
            self.steps = self.steps.wrapping_add((end - at) as u32 / RUN_BYTES_PER_STEP);
            at = end;
        }
        at
    }

    /// Bytes of a number that led to this state.
    fn take_of_number(&mut self, state: NumberState, bytes: &[u8]) {
        self.number = state;
        if self.member.number_slot().is_some() {
            self.decimal.take(state, bytes, &mut self.text);
        }
    }

    fn end_number(&mut self) {
        if let Some(slot) = self.member.number_slot() {
            self.found.numbers[slot] = if self.decimal.is_long() {
                let digits = Span { start: self.value_start, end: self.text.len() };
                self.longer[slot] = Longer { decimal: self.decimal, digits };
                self.has_longer = true;
                self.steps = self.steps.wrapping_add(LONG_NUMBER_STEPS);
                LONGER
            } else {
                let value = self.decimal.value(&self.text[self.value_start..]);
                self.text.truncate(self.value_start);
                value
            };
        }
        self.note(Kind::Number);
    }

    fn in_literal(&mut self, bytes: &[u8], at: usize) -> usize {
        let Some((&expected, rest)) = self.literal.split_first() else {
            return self.fail(bytes);
        };
        if bytes[at] != expected {
            return self.fail(bytes);
        }
        self.literal = rest;
        if rest.is_empty() {
            self.state = State::AfterValue;
        }
        at + 1
    }

    /// No text that starts like this is a frame.
    #[cold]
    fn fail(&mut self, bytes: &[u8]) -> usize {
        self.state = State::Failed;
        bytes.len()
    }
}

/// Where white space ends that goes on at `at`.
#[inline]
fn after_spaces(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    rest.iter().position(|byte| !is_space(byte)).map_or(bytes.len(), |run| at + run)
}

/// Where digits end that go on at `at`.
#[inline]
fn after_digits(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    rest.iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |run| at + run)
}

/// Bytes of string storage kept from frame to frame; ordinary frames need less than 1 KiB.
const RETAINED_BYTES_MAX: usize = 16 << 10;

/// Digits of a number whose value is summed up in place.
const SHORT_DIGITS_MAX: usize = 15;

/// Digits of a long number, or white space, that take as long as a step.
const RUN_BYTES_PER_STEP: u32 = 32;

/// Steps that it takes to find the value of a number that 19 digits do not decide.
const LONG_NUMBER_STEPS: u32 = 1000;

/// Stands for a number that lies among the longer ones.
const LONGER: f64 = f64::NAN;

#[cfg(test)]
#[path = "scanner_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "differential_tests.rs"]
mod differential_tests;
