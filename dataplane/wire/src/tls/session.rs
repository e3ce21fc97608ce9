//! Both directions of an established session.

use serde::{Deserialize, Serialize};

use super::inbound::{Inbound, Watch};
use super::outbound::Outbound;
use super::{Alert, Direction, RecordError, RecordWriter, Taken};

/// An established TLS session.
///
/// ```text
/// open ──close_notify, bad record──▶ last words owed ──end_records──▶ ended
/// ```
/// The receiving direction ends by itself with the peer's close_notify. Cost while idle: this
/// value and two keys of about 600 bytes.
pub struct Session {
    inbound: Inbound,
    outbound: Outbound,
    /// What the peer has to be told before the end.
    last_words: Option<Alert>,
}

/// A session as plain data. Its secrets are wiped when dropped; where its serialised form goes, the
/// traffic can be read.
#[derive(Clone, Serialize, Deserialize)]
pub struct WrittenSession {
    inbound: Direction,
    outbound: Direction,
    carry: Vec<u8>,
    watch: Watch,
    last_words: Option<Alert>,
    ended: bool,
}

impl Session {
    /// A session from where the handshake ended.
    pub fn new(inbound: Direction, outbound: Direction) -> Self {
        Self {
            inbound: Inbound::new(inbound.into()),
            outbound: Outbound::new(outbound.into()),
            last_words: None,
        }
    }

    /// Lowers the number of records one key may seal, for tests.
    pub fn limit_records(&mut self, records_max: u64) {
        self.outbound.records_max = records_max.max(2);
    }

    /// Takes the next record of the input; see [`super::Content`] for what may be in it. Call again
    /// with the rest of the input until it is used up.
    ///
    /// Errors: the session is over; what the peer has to be told is owed as output. Cost: a whole
    /// record is opened where it lies and nothing is allocated; the beginning of one is copied.
    pub fn next(&mut self, input: &mut [u8]) -> Result<Taken, RecordError> {
        let taken = self.inbound.next(input);
        if let Err(error) = taken {
            self.inbound.watch_mut().closed = true;
            match error.alert() {
                Some(alert) => self.last_words = Some(alert),
                None => self.outbound.ended = true,
            }
        }
        taken
    }

    /// Whether there is something to send that is not the application's.
    pub fn owes_output(&self) -> bool {
        !self.outbound.ended && (self.last_words.is_some() || self.inbound.watch().answer_owed)
    }

    /// Memory of its own beside its size: two keys, and the beginning of a record that is not
    /// whole.
    pub fn held_bytes(&self) -> usize {
        2 * KEY_BYTES + self.inbound.held_bytes()
    }

    /// Takes application bytes to be sealed at the end of `out`, behind an answer to the peer's
    /// change of keys if one is owed. When the peer has broken the protocol they are dropped.
    pub fn writer<'a>(&'a mut self, out: &'a mut Vec<u8>) -> RecordWriter<'a> {
        if !self.outbound.ended && std::mem::take(&mut self.inbound.watch_mut().answer_owed) {
            self.outbound.update_key(out);
        }
        if let Some(alert) = self.last_words.take_if(|alert| *alert != Alert::CLOSE_NOTIFY) {
            self.outbound.end(alert, out);
        }
        self.outbound.writer(out)
    }

    /// Announces that nothing more will be sent: the next [`Self::end_records`] says so.
    pub fn close_notify(&mut self) {
        self.last_words.get_or_insert(Alert::CLOSE_NOTIFY);
    }

    /// Adds the last words to `out`, if any are owed. To be called behind [`Self::writer`].
    pub fn end_records(&mut self, out: &mut Vec<u8>) {
        if let Some(alert) = self.last_words.take() {
            self.outbound.end(alert, out);
        }
    }

    /// Whether nothing can be sent any more.
    pub fn is_ended(&self) -> bool {
        self.outbound.ended
    }

    /// Whether the session should be ended in good order: TLS 1.2 has no other key when this one
    /// has sealed all it may, and what is left is for [`super::LAST_BYTES`] and a farewell.
    pub fn wears_out(&self) -> bool {
        self.outbound.wears_out()
    }

    /// How often a key was changed because it had sealed all it may.
    pub fn spent_keys(&self) -> u64 {
        self.outbound.spent_keys
    }

    /// Bytes kept of a record that is not whole yet.
    pub fn kept_bytes(&self) -> usize {
        self.inbound.carry().len()
    }

    /// Everything there is to know about the session.
    pub fn write_down(&self) -> WrittenSession {
        WrittenSession {
            inbound: self.inbound.key().direction().clone(),
            outbound: self.outbound.key().direction().clone(),
            carry: self.inbound.carry().to_vec(),
            watch: *self.inbound.watch(),
            last_words: self.last_words,
            ended: self.outbound.ended,
        }
    }
}

impl From<WrittenSession> for Session {
    fn from(written: WrittenSession) -> Self {
        let WrittenSession { inbound, outbound, carry, watch, last_words, ended } = written;
        let mut outbound = Outbound::new(outbound.into());
        outbound.ended = ended;
        Self { inbound: Inbound::restore(inbound.into(), carry, watch), outbound, last_words }
    }
}

/// Memory of an expanded key, rounded up: the figure of [`Session`].
const KEY_BYTES: usize = 640;
