//! The key exchange, version 3: Noise IK and IKpsk2 over P-256 with this wire's differences.
//!
//! Two messages: [`Initiator::start`] makes the first, [`Responder::read`] takes it and
//! [`Responder::respond`] makes the second, [`Initiator::finish`] takes that one. All of it is
//! pure: keys and names are arguments. Why this is not the `snow` crate:
//! `docs/adr/0003-noise-and-snow.md`.

mod initiator;
mod responder;
mod symmetric;

pub use initiator::{ClientProfile, Initiator};
pub use responder::Responder;

use relay_contract::Profile;

use crate::Fault;
use crate::aead;
use crate::ids::SessionId;
use crate::keys::{KeyError, PublicKey};
use crate::session::{Established, SessionKey};
use symmetric::Symmetric;

/// The state both sides start from.
fn begin(profile: Profile, daemon: &PublicKey) -> Symmetric {
    let mut state = Symmetric::new(match profile {
        Profile::NoiseIk => "Noise_IK_P256_AESGCM_SHA256",
        Profile::NoiseIkpsk2 => "Noise_IKpsk2_P256_AESGCM_SHA256",
    });
    state.mix_hash(PROLOGUE);
    state.mix_hash(daemon.as_bytes());
    state
}

/// The session both sides end with.
fn establish(
    state: &Symmetric,
    profile: Profile,
    session_id: SessionId,
    epoch: u64,
) -> Established {
    let info = format!("{SESSION_LABEL}|{}|{session_id}|{epoch}", profile.name());
    let key = aead::derive(state.hash(), state.split().as_ref(), info.as_bytes());
    Established { session_id, epoch, profile, key: SessionKey::new(key) }
}

/// A binary member of the handshake's frames.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[allow(missing_docs, reason = "each variant is the member of that name")]
pub enum Member {
    ClientEphemeralPublicKey,
    EncryptedClientStatic,
    DaemonEphemeralPublicKey,
    EncryptedMetadata,
    Proof,
}

impl Member {
    /// The member's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientEphemeralPublicKey => "clientEphemeralPublicKey",
            Self::EncryptedClientStatic => "encryptedClientStatic",
            Self::DaemonEphemeralPublicKey => "daemonEphemeralPublicKey",
            Self::EncryptedMetadata => "encryptedMetadata",
            Self::Proof => "proof",
        }
    }
}

/// Which check a handshake failed. Never which byte.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// Not the version we speak.
    #[error("key exchange has another version")]
    Version,
    /// Not the request we made.
    #[error("answer is for another request")]
    RequestId,
    /// Not the profile asked for, or weaker than the daemon's policy.
    #[error("profile is not the one required")]
    Profile,
    /// The answer names another daemon than the one asked for. The handshake itself would fail as
    /// well, were it one.
    #[error("answer names another daemon")]
    DaemonKey,
    /// A member is not base64url.
    #[error("{} is not base64url", .0.name())]
    Encoding(Member),
    /// A member is not a public key.
    #[error("{} is not a public key", .0.name())]
    Key(Member),
    /// A member does not decrypt.
    #[error("{} does not decrypt", .0.name())]
    NotAuthentic(Member),
    /// The encrypted metadata differ from the frame's members.
    #[error("metadata do not match the frame")]
    Metadata,
    /// Epochs start at 1.
    #[error("epoch is not positive")]
    Epoch,
    /// The other side heard something else than was said.
    #[error("proof does not match")]
    Proof,
    /// `noise-ikpsk2` without a peer id, or with one nobody paired under.
    #[error("no pairing secret for the peer")]
    PairingUnknown,
    /// The session to be replaced is not here, is of another profile, or nobody asked to replace
    /// it.
    #[error("no rotation is pending for that session")]
    NoRotation,
    /// No valid answer came in time.
    #[error("no answer before the deadline")]
    Deadline,
}

impl HandshakeError {
    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::Deadline => Fault::Upstream,
            _ => Fault::Peer,
        }
    }

    /// Whether the same attempt, made again, may succeed: not against a fixed policy or secret.
    pub fn is_retryable(self) -> bool {
        !matches!(self, Self::Profile | Self::Version | Self::PairingUnknown)
    }
}

/// Reads a public key out of a frame's member.
fn public_key(text: &str, member: Member) -> Result<PublicKey, HandshakeError> {
    PublicKey::from_text(text).map_err(|error| match error {
        KeyError::Encoding => HandshakeError::Encoding(member),
        _ => HandshakeError::Key(member),
    })
}

const PROLOGUE: &[u8] = b"viewport-relay-noise-v3";
const SESSION_LABEL: &str = "viewport-relay-session-v3";
