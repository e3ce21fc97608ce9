//! One session: a key, an epoch, and the numbers of both directions.

use std::borrow::Cow;

use rand::CryptoRng;
use relay_contract::Profile;
use zeroize::Zeroizing;

use crate::Fault;
use crate::aead::{Cipher, KEY_BYTES, NONCE_BYTES};
use crate::base64url;
use crate::frame::{ENVELOPE_VERSION, Envelope};
use crate::ids::SessionId;
use crate::window::{OutOfWindow, Window};

/// Messages one end may seal under one key.
///
/// Both ends draw 96-bit nonces for one key, so the chance of a collision is about `n² / 2^97`; at
/// twice this number it is 2^-47. Rotation comes long before. Reached: [`SealError::KeyWornOut`].
pub const MESSAGES_PER_KEY_MAX: u64 = 1 << 24;

/// The key of one session. Wiped when dropped; no `Debug`.
#[derive(Clone)]
pub struct SessionKey(Zeroizing<[u8; KEY_BYTES]>);

impl SessionKey {
    pub(crate) fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    /// The bytes, for test vectors.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// What a finished handshake gives.
pub struct Established {
    /// Chosen by the daemon.
    pub session_id: SessionId,
    /// From 1; one more per rotation.
    pub epoch: u64,
    /// Which handshake it was.
    pub profile: Profile,
    /// One key for both directions.
    pub key: SessionKey,
}

/// A live session of one end.
pub struct Session {
    id: SessionId,
    epoch: u64,
    profile: Profile,
    cipher: Cipher,
    sent: u64,
    window: Window,
}

impl Session {
    /// Starts with nothing sent and nothing seen.
    pub fn new(established: Established) -> Self {
        Self {
            id: established.session_id,
            epoch: established.epoch,
            profile: established.profile,
            cipher: Cipher::new(established.key.expose()),
            sent: 0,
            window: Window::new(),
        }
    }

    /// Its name.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Its epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its handshake.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Messages sealed so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Encrypts a text as the next message. Cost: one copy of the text and its base64.
    ///
    /// Errors: the key has carried [`MESSAGES_PER_KEY_MAX`]; nothing was used up.
    pub fn seal(
        &mut self,
        text: &str,
        rng: &mut impl CryptoRng,
    ) -> Result<Envelope<'static>, SealError> {
        if self.sent >= MESSAGES_PER_KEY_MAX {
            return Err(SealError::KeyWornOut);
        }
        self.sent += 1;
        let mut iv = [0; NONCE_BYTES];
        rng.fill_bytes(&mut iv);
        let mut bytes = text.as_bytes().to_vec();
        let associated = self.associated_data(self.sent);
        let tag = self.cipher.seal(&iv, associated.as_bytes(), &mut bytes);
        Ok(Envelope {
            version: ENVELOPE_VERSION,
            profile: self.profile,
            session_id: self.id.clone(),
            epoch: self.epoch,
            seq: self.sent,
            iv: Cow::Owned(base64url::encode(&iv)),
            tag: Cow::Owned(base64url::encode(&tag)),
            ciphertext: Cow::Owned(base64url::encode(&bytes)),
        })
    }

    /// Decrypts a message of the other end and marks its number as seen.
    ///
    /// Errors: any; the session is as before, and the number is not used up.
    pub fn open(&mut self, envelope: &Envelope<'_>) -> Result<String, OpenError> {
        if envelope.version != ENVELOPE_VERSION {
            return Err(OpenError::Version);
        }
        if envelope.profile != self.profile {
            return Err(OpenError::Profile);
        }
        if envelope.session_id != self.id {
            return Err(OpenError::Session);
        }
        if envelope.epoch != self.epoch {
            return Err(OpenError::Epoch);
        }
        self.window.check(envelope.seq)?;
        let iv = base64url::decode_array(&envelope.iv).map_err(|_| OpenError::Encoding)?;
        let tag = base64url::decode_array(&envelope.tag).map_err(|_| OpenError::Encoding)?;
        let mut bytes = base64url::decode(&envelope.ciphertext).map_err(|_| OpenError::Encoding)?;
        let associated = self.associated_data(envelope.seq);
        self.cipher
            .open(&iv, associated.as_bytes(), &mut bytes, &tag)
            .map_err(|_| OpenError::NotAuthentic)?;
        self.window.mark(envelope.seq);
        String::from_utf8(bytes).map_err(|_| OpenError::NotText)
    }

    fn associated_data(&self, seq: u64) -> String {
        let (profile, id, epoch) = (self.profile.name(), &self.id, self.epoch);
        format!("{ENVELOPE_LABEL}|{profile}|{id}|{epoch}|{seq}")
    }
}

/// Why a text was not encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// The key has carried all it may; a new handshake is due.
    #[error("the session's key has carried all the messages it may")]
    KeyWornOut,
}

impl SealError {
    /// Rotation should have come long before.
    pub fn fault(self) -> Fault {
        Fault::Us
    }
}

/// Why a message was not decrypted. The sender is told nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// Not the version we speak.
    #[error("envelope has another version")]
    Version,
    /// Not the session's profile.
    #[error("envelope has another profile")]
    Profile,
    /// No such session here.
    #[error("no such session")]
    Session,
    /// Not the session's epoch.
    #[error("envelope has another epoch")]
    Epoch,
    /// The number was seen: a replay.
    #[error("message number was seen before")]
    Replayed,
    /// The number is older than the window.
    #[error("message number is older than the window")]
    TooOld,
    /// The number jumps over the window.
    #[error("message number is too far ahead")]
    TooFarAhead,
    /// A binary member is not base64url of the right length.
    #[error("a binary member is malformed")]
    Encoding,
    /// The tag does not fit.
    #[error("message is not authentic")]
    NotAuthentic,
    /// Authentic, but not UTF-8. Its number is used up.
    #[error("message is not text")]
    NotText,
}

impl OpenError {
    /// The other end's, or whoever altered or repeated the frame.
    pub fn fault(self) -> Fault {
        Fault::Peer
    }
}

impl From<OutOfWindow> for OpenError {
    fn from(out: OutOfWindow) -> Self {
        match out {
            OutOfWindow::Seen => Self::Replayed,
            OutOfWindow::TooOld => Self::TooOld,
            OutOfWindow::TooFarAhead => Self::TooFarAhead,
        }
    }
}

const ENVELOPE_LABEL: &str = "viewport-relay-envelope-v2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn pair(profile: Profile) -> (Session, Session) {
        let established = || Established {
            session_id: "rs_test".into(),
            epoch: 3,
            profile,
            key: SessionKey::new(Zeroizing::new([7; KEY_BYTES])),
        };
        (Session::new(established()), Session::new(established()))
    }

    fn alter(text: &str, at: usize) -> Cow<'static, str> {
        let mut bytes = base64url::decode(text).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 0x40;
        Cow::Owned(base64url::encode(&bytes))
    }

    #[test]
    fn a_message_that_does_not_decrypt_burns_no_number() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut a, mut b) = pair(Profile::NoiseIk);
        let good = a.seal("hello", &mut rng).unwrap();
        let mut bad = good.clone();
        bad.tag = alter(&bad.tag, 0);
        assert_eq!(b.open(&bad), Err(OpenError::NotAuthentic));
        assert_eq!(b.open(&good).as_deref(), Ok("hello"));
        assert_eq!(b.open(&good), Err(OpenError::Replayed));
    }

    #[test]
    fn a_worn_out_key_seals_nothing() {
        let (mut a, _) = pair(Profile::NoiseIk);
        a.sent = MESSAGES_PER_KEY_MAX;
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(a.seal("x", &mut rng).err(), Some(SealError::KeyWornOut));
        assert_eq!(a.sent(), MESSAGES_PER_KEY_MAX);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_through_the_wire(
            texts in prop::collection::vec(".{0,200}", 1..20),
            seed: u64,
            paired: bool,
        ) {
            let profile = if paired { Profile::NoiseIkpsk2 } else { Profile::NoiseIk };
            let (mut a, mut b) = pair(profile);
            let mut rng = StdRng::seed_from_u64(seed);
            for text in texts {
                let frame = Frame::Envelope(a.seal(&text, &mut rng).unwrap()).to_text();
                let Ok(Frame::Envelope(envelope)) = Frame::parse(&frame) else {
                    panic!("not an envelope: {frame}");
                };
                prop_assert_eq!(b.open(&envelope), Ok(text));
            }
        }

        #[test]
        fn no_altered_member_passes(member in 0_usize..8, at: usize, text in ".{1,40}") {
            let mut rng = StdRng::seed_from_u64(5);
            let (mut a, mut b) = pair(Profile::NoiseIk);
            let good = a.seal(&text, &mut rng).unwrap();
            let mut bad = good.clone();
            match member {
                0 => bad.version = 3,
                1 => bad.profile = Profile::NoiseIkpsk2,
                2 => bad.session_id = "rs_other".into(),
                3 => bad.epoch += 1,
                4 => bad.seq += 1 + at as u64 % 9,
                5 => bad.iv = alter(&bad.iv, at),
                6 => bad.tag = alter(&bad.tag, at),
                _ => bad.ciphertext = alter(&bad.ciphertext, at),
            }
            prop_assert!(b.open(&bad).is_err());
            prop_assert_eq!(b.open(&good), Ok(text));
        }
    }
}
