//! Records out.

use super::inbound::{KEY_UPDATE, KEY_UPDATE_BYTES};
use super::{Alert, ContentType, PLAIN_BYTES_MAX, RecordKey, Version};

/// The sending direction.
pub(super) struct Outbound {
    key: RecordKey,
    /// Records one key may seal.
    pub(super) records_max: u64,
    /// Whether the last record was sealed.
    pub(super) ended: bool,
    /// How often a key was changed because it had reached its bound.
    pub(super) spent_keys: u64,
}

/// Takes application bytes and makes records of them, each as full as it can be.
///
/// What was pushed is sealed at the latest when this is dropped: until then the end of `out` is
/// plain text.
pub struct RecordWriter<'a> {
    outbound: &'a mut Outbound,
    out: &'a mut Vec<u8>,
    /// Where the open record begins.
    start: Option<usize>,
}

impl Outbound {
    pub(super) fn new(key: RecordKey) -> Self {
        let records_max = key.direction().aead().records_max();
        Self { key, records_max, ended: false, spent_keys: 0 }
    }

    pub(super) fn key(&self) -> &RecordKey {
        &self.key
    }

    pub(super) fn writer<'a>(&'a mut self, out: &'a mut Vec<u8>) -> RecordWriter<'a> {
        RecordWriter { outbound: self, out, start: None }
    }

    /// Announces the next key and changes to it. The peer is not asked for its own: whoever reads
    /// too much under one key asks by itself.
    pub(super) fn update_key(&mut self, out: &mut Vec<u8>) {
        const NOT_REQUESTED: u8 = 0;
        let message: [u8; KEY_UPDATE_BYTES] = [KEY_UPDATE, 0, 0, 1, NOT_REQUESTED];
        self.key.seal_record(ContentType::HANDSHAKE, &message, out);
        self.key.update();
    }

    /// Seals the last record there is.
    pub(super) fn end(&mut self, alert: Alert, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.key.seal_record(ContentType::ALERT, &alert.message(), out);
        }
    }

    /// Whether its one key has few records left and can have no successor.
    pub(super) fn wears_out(&self) -> bool {
        let sealed = self.key.sequence().saturating_add(LAST_RECORDS);
        self.key.version() == Version::Tls12 && sealed >= self.records_max
    }

    /// Whether another record of content may be sealed, after a change of key where that helps. One
    /// record is always left for a KeyUpdate or a last alert.
    fn make_room(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.ended && self.key.sequence() + 1 >= self.records_max {
            match self.key.version() {
                Version::Tls13 => {
                    self.spent_keys += 1;
                    self.update_key(out);
                }
                Version::Tls12 => self.end(Alert::CLOSE_NOTIFY, out),
            }
        }
        !self.ended
    }
}

/// Records of a session under TLS 1.2 that are kept for its end: for what waits, and for a close
/// handshake.
const LAST_RECORDS: u64 = 1024;

/// Application bytes that surely find a record after [`super::Session::wears_out`]: half of what
/// they would carry if all of them were full.
pub const LAST_BYTES: usize = LAST_RECORDS as usize / 2 * PLAIN_BYTES_MAX;

impl RecordWriter<'_> {
    /// Adds application bytes. After the session's last record they are dropped.
    pub fn push(&mut self, mut plain: &[u8]) {
        while !plain.is_empty() {
            let start = match self.start {
                Some(start) => start,
                None if self.outbound.make_room(self.out) => self.outbound.key.begin(self.out),
                None => return,
            };
            self.start = Some(start);
            let room = PLAIN_BYTES_MAX - self.outbound.key.content_len(self.out, start);
            let (now, later) = plain.split_at(room.min(plain.len()));
            self.out.extend_from_slice(now);
            plain = later;
            if now.len() == room {
                self.seal();
            }
        }
    }

    fn seal(&mut self) {
        if let Some(start) = self.start.take() {
            self.outbound.key.seal(ContentType::APPLICATION_DATA, self.out, start);
        }
    }
}

impl Drop for RecordWriter<'_> {
    fn drop(&mut self) {
        self.seal();
    }
}
