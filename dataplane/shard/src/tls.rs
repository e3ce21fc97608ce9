//! TLS for one connection: rustls shakes hands, then our record layer carries the bytes.

use relay_driver::Batch;
use relay_wire::tls::{Content, RecordError, Session, Taken, WrittenSession};
use rustls::ServerConfig;

use crate::blocks::Blocks;
use crate::egress::Egress;
use crate::handshake::Handshake;

/// One server-side TLS session. Once it is established it is plain data and may move to another
/// shard.
pub(crate) struct TlsSession {
    state: State,
    /// Records of the handshake that wait to be sent. Owns no memory while there are none.
    made: Vec<u8>,
    /// Records without content that came before the peer was admitted.
    fruitless: u8,
}

/// Records without content (new keys, empty data) from a peer that is not admitted. Protects the
/// time of all others: a new key costs 2 µs, and a receive holds a thousand. Reached: the session
/// ends, and is counted as refused. Ours: clients send none before their request.
const FRUITLESS_MAX: u8 = 16;

/// ```text
/// Handshaking ──Finished──▶ Established
///      └──failed, given up──▶ Over
/// ```
#[expect(clippy::large_enum_variant, reason = "nearly all are established, behind a box already")]
enum State {
    /// Boxed, so that what it takes is given back.
    Handshaking(Box<Handshake>),
    Established(Session),
    /// There is no session; what is left to say is made.
    Over,
}

/// The peer's bytes are not TLS as we accept it. What it should be told is owed as output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFailure {
    /// rustls ended the handshake.
    #[error("handshake failed: {0}")]
    Handshake(#[from] rustls::Error),
    /// The handshake takes more bytes than handshakes may.
    #[error("handshake is too long")]
    TooLong,
    /// The peers agreed on a suite our record layer does not know: a defect of ours.
    #[error("the agreed suite is unknown")]
    UnknownSuite,
    /// A peer that is not admitted sends records that carry nothing.
    #[error("too many records without content before the upgrade")]
    Fruitless,
    /// A record of the established session was refused.
    #[error("record refused: {0}")]
    Record(#[from] RecordError),
}

/// What one send carries.
pub(crate) struct Sealed {
    /// Records, in order.
    pub(crate) records: Vec<u8>,
    /// Whether a key has sealed all it may.
    pub(crate) key_spent: bool,
    /// Whether the key, which has no successor, has little left for more than a farewell.
    pub(crate) wears_out: bool,
}

impl TlsSession {
    /// A session that waits for its ClientHello.
    pub(crate) fn new(config: &ServerConfig) -> Result<Self, TlsFailure> {
        let handshake = Box::new(Handshake::new(config)?);
        Ok(Self { state: State::Handshaking(handshake), made: Vec::new(), fruitless: 0 })
    }

    /// Counts a record without content of a peer that is not admitted.
    ///
    /// Errors: there were too many of them; the session is over, and the peer is not told why.
    pub(crate) fn note_fruitless(&mut self) -> Result<(), TlsFailure> {
        self.fruitless += 1;
        if self.fruitless <= FRUITLESS_MAX {
            return Ok(());
        }
        self.state = State::Over;
        Err(TlsFailure::Fruitless)
    }

    /// Whether the handshake is still going on.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking(_))
    }

    /// Memory of its own: a handshake by what rustls takes for one, a session by its size.
    pub(crate) fn held_bytes(&self) -> usize {
        let state = match &self.state {
            State::Handshaking(handshake) => handshake.held_bytes(),
            State::Established(session) => session.held_bytes(),
            State::Over => 0,
        };
        size_of::<Self>() + self.made.capacity() + state
    }

    /// Takes the next record of the input, where it lies if it is whole. Call again with the rest
    /// until the input is used up.
    ///
    /// Errors: the session is over. Cost: once established, nothing is allocated for a whole
    /// record.
    pub(crate) fn next(&mut self, input: &mut [u8]) -> Result<Taken, TlsFailure> {
        match &mut self.state {
            State::Established(session) => Ok(session.next(input)?),
            State::Over => Ok(Taken { used: input.len(), content: Content::NeedMore }),
            State::Handshaking(handshake) => {
                let used = handshake.take(input).inspect_err(|_| self.give_up())?;
                self.go_on()?;
                Ok(Taken { used, content: Content::Nothing })
            }
        }
    }

    /// Makes what the handshake has to say ready, and a session of it when it is done.
    fn go_on(&mut self) -> Result<(), TlsFailure> {
        let State::Handshaking(handshake) = &mut self.state else { return Ok(()) };
        handshake.take_output(&mut self.made);
        if !handshake.is_done() {
            return Ok(());
        }
        if let State::Handshaking(done) = std::mem::replace(&mut self.state, State::Over) {
            self.state = State::Established(done.establish()?);
        }
        Ok(())
    }

    /// Ends a handshake that is not done.
    fn give_up(&mut self) {
        if let State::Handshaking(handshake) = &mut self.state {
            handshake.last_words(&mut self.made);
            self.state = State::Over;
        }
    }

    /// Whether there is something to send that is not in the connection's queue.
    pub(crate) fn owes_output(&self) -> bool {
        let owes = match &self.state {
            State::Established(session) => session.owes_output(),
            State::Handshaking(_) | State::Over => false,
        };
        owes || !self.made.is_empty()
    }

    /// Records that were made and not sent whole, because sending was ended or found no memory:
    /// their rest is sent before anything else.
    pub(crate) fn owe(&mut self, batch: &Batch, sent: usize) {
        let mut skipped = sent;
        let mut rest = Vec::with_capacity(batch.len() - sent);
        for chunk in batch.chunks() {
            let bytes = chunk.as_bytes();
            let passed = skipped.min(bytes.len());
            skipped -= passed;
            rest.extend_from_slice(&bytes[passed..]);
        }
        rest.append(&mut self.made);
        self.made = rest;
    }

    /// Announces that nothing more will be sent. Returns whether there is something to send now.
    pub(crate) fn close_notify(&mut self) -> bool {
        match &mut self.state {
            State::Established(session) => session.close_notify(),
            State::Handshaking(_) | State::Over => self.give_up(),
        }
        self.owes_output()
    }

    /// Makes records of what may be sent now, behind what is owed, in the memory of `spare`. Only
    /// when nothing is in flight.
    pub(crate) fn seal(
        &mut self,
        egress: &mut Egress,
        bytes_max: usize,
        spare: Vec<u8>,
        blocks: &mut Blocks,
    ) -> Sealed {
        let mut records = if self.made.is_empty() { spare } else { std::mem::take(&mut self.made) };
        let (mut key_spent, mut wears_out) = (false, false);
        match &mut self.state {
            State::Established(session) => {
                let before = session.spent_keys();
                let mut writer = session.writer(&mut records);
                egress.seal(bytes_max, blocks, |plain| writer.push(plain));
                drop(writer);
                session.end_records(&mut records);
                key_spent = session.spent_keys() > before;
                wears_out = session.wears_out();
            }
            // Nothing can be queued before the handshake is done, and nothing is sent after it
            // failed.
            State::Handshaking(_) | State::Over => egress.seal(bytes_max, blocks, |_| {}),
        }
        Sealed { records, key_spent, wears_out }
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn is_ended(&self) -> bool {
        match &self.state {
            State::Established(session) => session.is_ended(),
            State::Handshaking(_) => false,
            State::Over => true,
        }
    }

    /// Lowers the number of records one key may seal, for tests.
    pub(crate) fn limit_records(&mut self, records_max: u64) {
        if let State::Established(session) = &mut self.state {
            session.limit_records(records_max);
        }
    }

    /// Writes the established session down and restores it.
    pub(crate) fn rewrite(&mut self) -> Result<(), postcard::Error> {
        if let State::Established(session) = &mut self.state {
            let written = zeroize::Zeroizing::new(postcard::to_allocvec(&session.write_down())?);
            *session = postcard::from_bytes::<WrittenSession>(&written)?.into();
        }
        Ok(())
    }
}
