//! Records in.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::alert::WARNING;
use super::{Alert, ContentType, HEADER_BYTES, RECORD_BYTES_MAX, RecordError, RecordKey, Version};

/// What one step found.
#[derive(Debug)]
pub struct Taken {
    /// Bytes at the front of the input that are done with.
    pub used: usize,
    /// What was in them.
    pub content: Content,
}

/// What a record was good for.
#[derive(Debug)]
pub enum Content {
    /// The input ends before its record does; what there is of it is kept.
    NeedMore,
    /// Application bytes: this part of the input.
    Here(Range<usize>),
    /// Application bytes of a record that came in pieces: this part of the block it was put
    /// together in.
    Apart(Vec<u8>, Range<usize>),
    /// Nothing for the application.
    Nothing,
    /// The peer will send no more; whatever follows is not looked at.
    CloseNotify,
}

/// Records in a row that bring the application nothing: empty ones, key updates, warnings. Protects
/// the shard's time from peers that send nothing else. Reached: alert unexpected_message. Source:
/// OpenSSL and rustls allow as many.
pub const FRUITLESS_RECORDS_MAX: u8 = 32;

/// The receiving direction.
pub(super) struct Inbound {
    key: RecordKey,
    /// The beginning of a record that is not whole yet; at most [`RECORD_BYTES_MAX`] bytes. Owns no
    /// memory while there is none.
    carry: Vec<u8>,
    watch: Watch,
}

/// What has to be remembered from record to record.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Watch {
    fruitless: u8,
    /// A KeyUpdate so far. Only messages of this length are ever waited for.
    message: [u8; KEY_UPDATE_BYTES],
    message_len: u8,
    /// Whether nothing that comes is looked at any more.
    pub(super) closed: bool,
    /// Whether the peer wants our keys changed too.
    pub(super) answer_owed: bool,
}

/// What a record means.
enum Meaning {
    Data,
    Nothing,
    CloseNotify,
}

/// Bytes of a KeyUpdate: type, length, kind.
pub(super) const KEY_UPDATE_BYTES: usize = 5;
pub(super) const KEY_UPDATE: u8 = 24;
const CLIENT_HELLO: u8 = 1;

impl Inbound {
    pub(super) fn new(key: RecordKey) -> Self {
        Self { key, carry: Vec::new(), watch: Watch::default() }
    }

    pub(super) fn restore(key: RecordKey, mut carry: Vec<u8>, watch: Watch) -> Self {
        carry.truncate(RECORD_BYTES_MAX);
        Self { key, carry, watch }
    }

    pub(super) fn key(&self) -> &RecordKey {
        &self.key
    }

    /// Memory of the carry.
    pub(super) fn held_bytes(&self) -> usize {
        self.carry.capacity()
    }

    pub(super) fn carry(&self) -> &[u8] {
        &self.carry
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(super) fn watch_mut(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Takes the next record, opening it where it lies if all of it is there. Call again with the
    /// rest of the input until it is used up.
    ///
    /// Errors: the session is over. Cost: nothing is allocated or copied for a whole record; the
    /// beginning of one is copied.
    pub(super) fn next(&mut self, input: &mut [u8]) -> Result<Taken, RecordError> {
        if self.watch.closed {
            return Ok(Taken { used: input.len(), content: Content::NeedMore });
        }
        if !self.carry.is_empty() {
            return self.next_apart(input);
        }
        let whole = self.key.record_len(input)?.filter(|&len| len <= input.len());
        let Some(len) = whole else {
            self.carry.extend_from_slice(input);
            return Ok(Taken { used: input.len(), content: Content::NeedMore });
        };
        let opened = self.key.open(&mut input[..len])?;
        let plain = opened.plain;
        let content = match self.meaning(opened.kind, &input[plain.clone()])? {
            Meaning::Data => Content::Here(plain),
            Meaning::Nothing => Content::Nothing,
            Meaning::CloseNotify => Content::CloseNotify,
        };
        Ok(Taken { used: len, content })
    }

    /// Goes on with a record that came in pieces.
    fn next_apart(&mut self, input: &[u8]) -> Result<Taken, RecordError> {
        let mut used = 0;
        let mut take = |carry: &mut Vec<u8>, until: usize| {
            let count = until.saturating_sub(carry.len()).min(input.len() - used);
            carry.extend_from_slice(&input[used..used + count]);
            used += count;
        };
        take(&mut self.carry, HEADER_BYTES);
        if let Some(len) = self.key.record_len(&self.carry)? {
            take(&mut self.carry, len);
            if self.carry.len() >= len {
                return Ok(Taken { used, content: self.open_apart()? });
            }
        }
        Ok(Taken { used, content: Content::NeedMore })
    }

    fn open_apart(&mut self) -> Result<Content, RecordError> {
        let mut record = std::mem::take(&mut self.carry);
        let opened = self.key.open(&mut record)?;
        let plain = opened.plain;
        Ok(match self.meaning(opened.kind, &record[plain.clone()])? {
            Meaning::Data => Content::Apart(record, plain),
            Meaning::Nothing => Content::Nothing,
            Meaning::CloseNotify => Content::CloseNotify,
        })
    }

    fn meaning(&mut self, kind: ContentType, plain: &[u8]) -> Result<Meaning, RecordError> {
        if self.watch.message_len > 0 && kind != ContentType::HANDSHAKE {
            // Nothing may stand between the pieces of a handshake message.
            return Err(RecordError::UnexpectedType(kind.0));
        }
        let meaning = match kind {
            ContentType::APPLICATION_DATA if plain.is_empty() => Meaning::Nothing,
            ContentType::APPLICATION_DATA => Meaning::Data,
            ContentType::ALERT => self.on_alert(plain)?,
            ContentType::HANDSHAKE => self.on_handshake(plain)?,
            ContentType(other) => return Err(RecordError::UnexpectedType(other)),
        };
        self.watch.fruitless = match meaning {
            Meaning::Nothing => self.watch.fruitless.saturating_add(1),
            Meaning::Data | Meaning::CloseNotify => 0,
        };
        if self.watch.fruitless > FRUITLESS_RECORDS_MAX {
            return Err(RecordError::Fruitless);
        }
        Ok(meaning)
    }

    /// Alerts do not come in pieces. In TLS 1.3 the level says nothing. Source: RFC 8446 §6.
    fn on_alert(&mut self, plain: &[u8]) -> Result<Meaning, RecordError> {
        let &[level, description] = plain else { return Err(RecordError::Malformed) };
        match (Alert(description), self.key.version()) {
            (Alert::CLOSE_NOTIFY, _) => {
                self.watch.closed = true;
                Ok(Meaning::CloseNotify)
            }
            (Alert::USER_CANCELED, _) => Ok(Meaning::Nothing),
            (_, Version::Tls12) if level == WARNING => Ok(Meaning::Nothing),
            (_, Version::Tls12 | Version::Tls13) => Err(RecordError::PeerAlert(description)),
        }
    }

    /// After the handshake there is one message a server takes, and it ends its record, because the
    /// key changes behind it. Source: RFC 8446 §4.6.3 and §5.1.
    fn on_handshake(&mut self, plain: &[u8]) -> Result<Meaning, RecordError> {
        let watch = &mut self.watch;
        // TLS 1.3 forbids empty fragments of handshake messages.
        let mut rest = plain.iter();
        let first = if watch.message_len > 0 { Some(&KEY_UPDATE) } else { plain.first() };
        match (self.key.version(), first) {
            (_, None) => return Err(RecordError::Malformed),
            (Version::Tls12, Some(&CLIENT_HELLO)) => return Err(RecordError::Renegotiation),
            (Version::Tls13, Some(&KEY_UPDATE)) => {}
            (_, Some(&kind)) => return Err(RecordError::UnexpectedHandshake(kind)),
        }
        while let Some(place) = watch.message.get_mut(usize::from(watch.message_len)) {
            let Some(&byte) = rest.next() else { return Ok(Meaning::Nothing) };
            *place = byte;
            watch.message_len += 1;
        }
        watch.message_len = 0;
        let kind = match watch.message {
            [KEY_UPDATE, 0, 0, 1, kind] if rest.len() == 0 => kind,
            _ => return Err(RecordError::Malformed),
        };
        match kind {
            0 => {}
            1 => watch.answer_owed = true,
            other => return Err(RecordError::UnknownKeyUpdate(other)),
        }
        self.key.update();
        Ok(Meaning::Nothing)
    }
}
