//! Bodies of plain requests: where they end. Their content is thrown away.

use super::head::HeadError;

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks that say their length.
    Chunked,
}

impl Body {
    /// The delimiting the headers announce; `None` when they leave room for two readings.
    pub(super) fn of(headers: &[(&str, &[u8])], minor: u8) -> Option<Self> {
        let all = |name: &'static str| {
            headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|h| h.1)
        };
        let mut lengths = all("content-length");
        let mut encodings = all("transfer-encoding");
        match (lengths.next(), lengths.next(), encodings.next(), encodings.next()) {
            (None, None, None, None) => Some(Self::None),
            (Some(length), None, None, None) => content_length(length).map(Self::Length),
            (None, None, Some(encoding), None) if minor == 1 => {
                encoding.eq_ignore_ascii_case(b"chunked").then_some(Self::Chunked)
            }
            _ => None,
        }
    }
}

fn content_length(value: &[u8]) -> Option<u64> {
    // The standard parser would take a sign.
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// What a [`BodySkipper`] made of some bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Skipped {
    /// Bytes that belong to the body, at the start of what was given.
    pub used: usize,
    /// Whether the body ends there.
    pub done: bool,
}

/// Throws away one request's body, however it is cut, so that the next request can be found.
///
/// Shape: a few bytes; nothing of the body is kept. What is not content (chunk sizes, extensions,
/// trailers) is bounded in total, so that a body cannot be all framing.
#[derive(Clone, Debug)]
pub struct BodySkipper {
    state: State,
    /// Framing bytes still allowed.
    framing_left: u32,
}

/// ```text
/// Size ─;─▶ Extension ─\r─▶ SizeEnd ─\n─▶ Content ─0 left─▶ ContentCr ─\r─▶ ContentLf ─\n─▶ Size
///                                   └last chunk─▶ TrailerStart ─\r─▶ TrailersEnd ─\n─▶ Done
///                                                   │ ▲ \n
///                                                   ▼ │
///                                             Trailer ─\r─▶ TrailerLf
/// ```
#[derive(Clone, Copy, Debug)]
enum State {
    /// A body of known length.
    Length(u64),
    /// Inside a chunk's size; `digits` were read.
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeEnd {
        size: u64,
    },
    Content {
        left: u64,
    },
    ContentCr,
    ContentLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    TrailersEnd,
    Done,
}

impl BodySkipper {
    /// A skipper for a body delimited like this.
    pub const fn new(body: Body) -> Self {
        let state = match body {
            Body::None => State::Done,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Size { size: 0, digits: 0 },
        };
        Self { state, framing_left: FRAMING_BYTES_MAX }
    }

    /// Takes the next bytes. Errors: chunks are malformed, or framing exceeds its bound; the
    /// connection cannot go on. Cost: content is stepped over, framing is read byte by byte.
    pub fn skip(&mut self, bytes: &[u8]) -> Result<Skipped, HeadError> {
        let mut used = 0;
        loop {
            match &mut self.state {
                State::Done | State::Length(0) => return Ok(Skipped { used, done: true }),
                State::Content { left: 0 } => self.state = State::ContentCr,
                State::Length(left) | State::Content { left } => {
                    let here = bytes.len() - used;
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(here);
                    *left -= step as u64;
                    used += step;
                    if here == step && *left > 0 {
                        return Ok(Skipped { used, done: false });
                    }
                }
                state => {
                    let Some(&byte) = bytes.get(used) else {
                        return Ok(Skipped { used, done: false });
                    };
                    *state = framing(*state, byte).ok_or(HeadError::BadRequest)?;
                    self.framing_left =
                        self.framing_left.checked_sub(1).ok_or(HeadError::TooLarge)?;
                    used += 1;
                }
            }
        }
    }
}

/// The state after one framing byte; `None` when it has no place there.
fn framing(state: State, byte: u8) -> Option<State> {
    Some(match (state, byte) {
        (State::Size { digits: 1.., size }, b'\r') => State::SizeEnd { size },
        (State::Size { digits: 1.., size }, b';') => State::Extension { size },
        (State::Size { size, digits }, _) if digits < 16 => {
            let digit = char::from(byte).to_digit(16)?;
            State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
        }
        (State::Extension { size }, b'\r') => State::SizeEnd { size },
        (State::Extension { .. }, b'\t' | b' '..=b'~') => state,
        (State::SizeEnd { size: 0 }, b'\n') => State::TrailerStart,
        (State::SizeEnd { size }, b'\n') => State::Content { left: size },
        (State::ContentCr, b'\r') => State::ContentLf,
        (State::ContentLf, b'\n') => State::Size { size: 0, digits: 0 },
        (State::TrailerStart, b'\r') => State::TrailersEnd,
        (State::TrailersEnd, b'\n') => State::Done,
        (State::Trailer, b'\r') => State::TrailerLf,
        (State::TrailerLf, b'\n') => State::TrailerStart,
        (State::TrailerStart | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => State::Trailer,
        _ => return None,
    })
}

/// Bytes of chunk sizes, extensions and trailers one body may have. Protects the time spent on a
/// body that is nothing else. Reached: 431. Content of normal chunk sizes needs a thousandth of its
/// length.
const FRAMING_BYTES_MAX: u32 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn skip_all(body: Body, bytes: &[u8], cut: usize) -> Result<(usize, bool), HeadError> {
        let mut skipper = BodySkipper::new(body);
        let (left, right) = bytes.split_at(cut);
        let first = skipper.skip(left)?;
        if first.done {
            return Ok((first.used, true));
        }
        assert_eq!(first.used, left.len());
        let second = skipper.skip(right)?;
        Ok((first.used + second.used, second.done))
    }

    #[test]
    fn a_body_ends_at_the_same_byte_wherever_it_is_cut() {
        for (body, bytes, len) in [
            (Body::None, &b"NEXT"[..], 0),
            (Body::Length(0), b"NEXT", 0),
            (Body::Length(3), b"abcNEXT", 3),
            (Body::Chunked, b"0\r\n\r\nNEXT", 5),
            (Body::Chunked, b"3\r\nabc\r\n0\r\n\r\nNEXT", 13),
            (Body::Chunked, b"A;x=y\r\n0123456789\r\n00\r\nT: v\r\nU:\r\n\r\nNEXT", 35),
        ] {
            for cut in 0..=bytes.len() {
                assert_eq!(skip_all(body, bytes, cut), Ok((len, true)), "{body:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn malformed_chunks_are_refused_wherever_they_are_cut() {
        for bytes in [
            &b"\r\n"[..],
            b"g\r\n",
            b"3\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n",
            b"-1\r\n",
            b" 3\r\n",
            b"11111111111111111\r\n",
            b"0\r\nT: v\n",
            b"0x3\r\n",
            b"3;\x00\r\n",
            b"3 \r\n",
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(
                    skip_all(Body::Chunked, bytes, cut),
                    Err(HeadError::BadRequest),
                    "{bytes:?}"
                );
            }
        }
    }

    #[test]
    fn endless_framing_is_refused() {
        let mut skipper = BodySkipper::new(Body::Chunked);
        let tiny = b"1\r\nx\r\n".repeat(1 << 14);
        assert_eq!(skipper.skip(&tiny), Err(HeadError::TooLarge));
    }

    #[test]
    fn a_huge_length_is_not_a_huge_step() {
        let mut skipper = BodySkipper::new(Body::Length(u64::MAX));
        assert_eq!(skipper.skip(b"abc"), Ok(Skipped { used: 3, done: false }));
    }
}
