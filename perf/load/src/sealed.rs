//! One direction of a pair whose messages are truly encrypted.
//!
//! The two ends are those of `relay-endpoint`: a Noise handshake through the relay, then a message
//! at a time sealed, sent, opened and compared. It costs many times what a stamped frame does, so
//! it shows that the protocol holds under load, not how fast a relay is.

use std::io::IoSlice;
use std::ops::Range;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use relay_endpoint::frame::Frame;
use relay_endpoint::handshake::{Initiator, Responder};
use relay_endpoint::{ClientProfile, Established, KeyPair, Profile, Session, SessionId};
use rustix::io::Errno;

use crate::envelope::{SEQ_DIGITS, SEQ_FIRST, random_base64};
use crate::flow::client_frame;
use crate::upgrade::{receive_text, send_text};
use crate::wire::Wire;

/// What both ends know after a handshake.
pub(crate) struct Keys {
    client: Established,
    daemon: Established,
}

impl Keys {
    /// Lets the ends of a pair shake hands through the relay, with keys of their own.
    pub(crate) fn agree(daemon: &mut Wire, client: &mut Wire, request: &str) -> Result<Self> {
        let mut rng = rand::rng();
        let [daemon_statics, statics, ephemeral, daemon_ephemeral] =
            std::array::from_fn(|_| KeyPair::generate(&mut rng));
        let profile = ClientProfile::NoiseIk;
        let public = daemon_statics.public();
        let (initiator, init) =
            Initiator::start(&statics, ephemeral, public, profile, request, None);
        send_text(client, &Frame::KeyExchangeInit(init).to_text())?;
        let text = receive_text(daemon)?;
        let Frame::KeyExchangeInit(init) = Frame::parse(&text)? else {
            bail!("the daemon got something else than the key exchange: {text:?}");
        };
        let responder = Responder::read(&daemon_statics, Profile::NoiseIk, &init)?;
        let session = SessionId::random(&mut rng);
        let (of_daemon, response) = responder.respond(&daemon_ephemeral, None, session, 1)?;
        send_text(daemon, &Frame::KeyExchangeResponse(response).to_text())?;
        let text = receive_text(client)?;
        let Frame::KeyExchangeResponse(response) = Frame::parse(&text)? else {
            bail!("the client got something else than the answer: {text:?}");
        };
        let of_client = initiator.finish(&response)?;
        Ok(Self { client: of_client, daemon: of_daemon })
    }

    /// The direction from client to daemon.
    pub(crate) fn forward(&self, sizes: &[usize], pattern: &Rc<[u8]>) -> Result<SealedFlow> {
        SealedFlow::new(copy(&self.client), copy(&self.daemon), sizes, pattern)
    }

    /// The direction from daemon to client.
    pub(crate) fn back(&self, sizes: &[usize], pattern: &Rc<[u8]>) -> Result<SealedFlow> {
        SealedFlow::new(copy(&self.daemon), copy(&self.client), sizes, pattern)
    }
}

fn copy(established: &Established) -> Established {
    Established {
        session_id: established.session_id.clone(),
        epoch: established.epoch,
        profile: established.profile,
        key: established.key.clone(),
    }
}

/// Messages on their way from one end to the other.
pub(crate) struct SealedFlow {
    sender: Session,
    receiver: Session,
    texts: Box<[Text]>,
    pattern: Rc<[u8]>,
    released: u64,
    arrived: u64,
    /// Frames that the socket has not taken yet, and how much of them it has.
    outbox: Vec<u8>,
    written: usize,
    /// The beginning of a frame.
    inbox: Vec<u8>,
    sent_at: Box<[u64]>,
}

/// A message of one size, in which only the number changes.
struct Text(String);

impl SealedFlow {
    fn new(
        sender: Established,
        receiver: Established,
        sizes: &[usize],
        pattern: &Rc<[u8]>,
    ) -> Result<Self> {
        let texts = sizes.iter().map(|bytes| Text::new(*bytes)).collect::<Result<_>>()?;
        Ok(Self {
            sender: Session::new(sender),
            receiver: Session::new(receiver),
            texts,
            pattern: Rc::clone(pattern),
            released: 0,
            arrived: 0,
            outbox: Vec::new(),
            written: 0,
            inbox: Vec::new(),
            sent_at: vec![0; pattern.len()].into_boxed_slice(),
        })
    }

    /// Seals `count` more messages and lets them go at `now`.
    pub(crate) fn release(&mut self, count: u64, now: u64) -> Result<()> {
        let mut rng = rand::rng();
        for number in self.released..self.released + count {
            let slot = self.slot(number);
            self.sent_at[slot] = now;
            let text = self.texts[usize::from(self.pattern[slot])].numbered(number);
            let envelope = self.sender.seal(text, &mut rng)?;
            self.outbox.extend(client_frame(&Frame::Envelope(envelope).to_text()));
        }
        self.released += count;
        Ok(())
    }

    /// Writes what was released. True when all of it went.
    pub(crate) fn write(&mut self, wire: &mut Wire) -> Result<bool> {
        while self.written < self.outbox.len() {
            match wire.write_some(&[IoSlice::new(&self.outbox[self.written..])]) {
                Ok(written) => self.written += written,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.clear();
        self.written = 0;
        wire.flush_some()
    }

    /// Opens what arrived and compares it with what was sealed. Returns the numbers of the messages
    /// it completed.
    pub(crate) fn arrive(&mut self, bytes: &[u8]) -> Result<Range<u64>> {
        let before = self.arrived;
        self.inbox.extend(bytes);
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut at = 0;
        while let Some((text, behind)) = whole_text(&inbox[at..])? {
            self.open(text).with_context(|| format!("message {}", self.arrived))?;
            at += behind;
        }
        inbox.drain(..at);
        self.inbox = inbox;
        Ok(before..self.arrived)
    }

    fn open(&mut self, text: &str) -> Result<()> {
        let Frame::Envelope(envelope) = Frame::parse(text)? else {
            bail!("something else than an envelope arrived: {text:?}");
        };
        ensure!(envelope.seq == self.arrived + 1, "number {} is out of order", envelope.seq);
        let opened = self.receiver.open(&envelope)?;
        let slot = self.slot(self.arrived);
        let expected = self.texts[usize::from(self.pattern[slot])].numbered(self.arrived);
        ensure!(opened == expected, "it is not what was sealed");
        self.arrived += 1;
        Ok(())
    }

    /// When a message in flight was released.
    pub(crate) fn sent_at(&self, number: u64) -> u64 {
        self.sent_at[self.slot(number)]
    }

    /// Messages sent and not arrived.
    pub(crate) fn in_flight(&self) -> u64 {
        self.released - self.arrived
    }

    /// Messages released so far.
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// Messages that may be in flight.
    pub(crate) fn slots(&self) -> u64 {
        self.pattern.len() as u64
    }

    fn slot(&self, number: u64) -> usize {
        (number % self.pattern.len() as u64) as usize
    }
}

impl Text {
    fn new(bytes: usize) -> Result<Self> {
        let frame_bytes = TEXT_HEAD.len() + SEQ_DIGITS + TEXT_MIDDLE.len() + TEXT_END.len();
        ensure!(bytes >= frame_bytes, "an encrypted message has at least {frame_bytes} bytes");
        let filling = random_base64("message", bytes - frame_bytes);
        Ok(Self(format!("{TEXT_HEAD}{SEQ_FIRST}{TEXT_MIDDLE}{filling}{TEXT_END}")))
    }

    fn numbered(&mut self, number: u64) -> &str {
        let digits = (SEQ_FIRST + number).to_string();
        self.0.replace_range(TEXT_HEAD.len()..TEXT_HEAD.len() + SEQ_DIGITS, &digits);
        &self.0
    }
}

/// The first text message in some bytes, and how many bytes its frame has. Source: RFC 6455 §5.2.
fn whole_text(bytes: &[u8]) -> Result<Option<(&str, usize)>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    ensure!(*first == 0x81, "not a whole text message: {first:02x}");
    let (len, head_bytes) = match (second, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (127, rest) if rest.len() >= 8 => {
            let len = rest[..8].try_into().map(u64::from_be_bytes)?;
            (usize::try_from(len)?, 10)
        }
        (126 | 127, _) => return Ok(None),
        (len, _) => (usize::from(*len), 2),
    };
    match bytes.get(head_bytes..head_bytes + len) {
        Some(text) => Ok(Some((std::str::from_utf8(text)?, head_bytes + len))),
        None => Ok(None),
    }
}

const TEXT_HEAD: &str = "{\"n\":";
const TEXT_MIDDLE: &str = ",\"text\":\"";
const TEXT_END: &str = "\"}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::text_frame;

    #[test]
    fn a_message_has_exactly_the_size_asked_for_and_its_number() {
        for bytes in [64, 100, 4096] {
            let mut text = Text::new(bytes).expect("it fits");
            assert_eq!(text.numbered(7).len(), bytes);
            let json: serde_json::Value = serde_json::from_str(&text.0).expect("JSON");
            assert_eq!(json["n"], SEQ_FIRST + 7);
        }
        assert!(Text::new(20).is_err());
    }

    #[test]
    fn frames_are_found_once_they_are_whole() {
        for len in [1, 125, 126, 70_000] {
            let frame = text_frame("x".repeat(len).as_bytes(), None);
            let cut = whole_text(&frame[..frame.len() - 1]).expect("so far");
            assert!(cut.is_none());
            let (text, behind) = whole_text(&frame).expect("a text").expect("it is whole");
            assert_eq!((text.len(), behind), (len, frame.len()));
        }
        assert!(whole_text(&[0x88, 2, 0, 0]).is_err());
    }
}
