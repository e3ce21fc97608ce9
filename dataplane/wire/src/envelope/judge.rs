//! Which members make a frame of each type. Source: relay specification, section 6.

use relay_contract::Profile;

use super::member::{FrameType, Kind, Member, SESSION_EVENT_SCHEMA};
use super::number::is_integer;
use super::scanner::Scanner;
use super::text::is_blank;
use super::{ColdKind, Envelope, Invalid, ProfileMember};

/// The frame whose members the scanner holds.
pub(super) fn judge(frame: &Scanner) -> Result<Envelope<'_>, Invalid> {
    let Some(kind) = frame.text(Member::Type).and_then(FrameType::of) else {
        return session_event(frame);
    };
    let envelope = match kind {
        FrameType::E2ee => e2ee(frame),
        FrameType::KeyExchangeInit => key_exchange_init(frame),
        FrameType::KeyExchangeResponse => key_exchange_response(frame),
        FrameType::KeyUpdate => key_update(frame),
        FrameType::PairingOfferRequest => pairing_offer_request(frame),
        FrameType::PairingRedeemRequest => pairing_redeem_request(frame),
        FrameType::PairingOfferResponse => pairing_offer_response(frame),
        FrameType::PairingRedeemResponse => pairing_redeem_response(frame),
        FrameType::Cold(kind) => Some(Envelope::Cold { kind, profile: profile_member(frame) }),
    };
    envelope.ok_or(Invalid::Member)
}

/// Named by its schema; a type that is none of ours does not matter then.
fn session_event(frame: &Scanner) -> Result<Envelope<'_>, Invalid> {
    if frame.text(Member::Schema) != Some(SESSION_EVENT_SCHEMA) {
        return Err(Invalid::Type);
    }
    Ok(Envelope::Cold { kind: ColdKind::SessionEvent, profile: profile_member(frame) })
}

fn e2ee(frame: &Scanner) -> Option<Envelope<'_>> {
    let ours = frame.number(Member::Version) == Some(2.0)
        && strings(frame, &[Member::Iv, Member::Tag, Member::Ciphertext]);
    let session_id = frame.text(Member::SessionId)?;
    if !ours || is_blank(session_id) {
        return None;
    }
    Some(Envelope::E2ee {
        profile: profile(frame)?,
        session_id,
        epoch: counting_number(frame, Member::Epoch)?,
        seq: counting_number(frame, Member::Seq)?,
    })
}

fn key_exchange_init(frame: &Scanner) -> Option<Envelope<'_>> {
    let members: &[Member] = match version(frame)? {
        Version::Two => &[Member::ClientPublicKey, Member::ClientNonce, Member::ClientProof],
        Version::Three => &[Member::ClientEphemeralPublicKey, Member::EncryptedClientStatic],
    };
    let profile = profile(frame)?;
    let pairing_peer_id = frame.text(Member::PairingPeerId);
    let peer_named = pairing_peer_id.is_some_and(|id| !is_blank(id));
    if !strings(frame, members) || profile == Profile::NoiseIkpsk2 && !peer_named {
        return None;
    }
    let request_id = frame.text(Member::RequestId)?;
    Some(Envelope::KeyExchangeInit { profile, request_id, pairing_peer_id })
}

fn key_exchange_response(frame: &Scanner) -> Option<Envelope<'_>> {
    let complete = match version(frame)? {
        Version::Two => {
            frame.kind(Member::Epoch) == Kind::Number
                && strings(frame, &[Member::DaemonNonce, Member::Proof])
        }
        Version::Three => {
            counting_number(frame, Member::Epoch).is_some()
                && strings(
                    frame,
                    &[
                        Member::DaemonPublicKey,
                        Member::DaemonEphemeralPublicKey,
                        Member::EncryptedMetadata,
                        Member::Proof,
                    ],
                )
        }
    };
    if !complete {
        return None;
    }
    Some(Envelope::KeyExchangeResponse {
        profile: profile(frame)?,
        request_id: frame.text(Member::RequestId)?,
        session_id: frame.text(Member::SessionId)?,
    })
}

fn key_update(frame: &Scanner) -> Option<Envelope<'_>> {
    if frame.kind(Member::NextEpoch) != Kind::Number {
        return None;
    }
    Some(Envelope::KeyUpdate {
        profile: profile_member(frame),
        session_id: frame.text(Member::SessionId)?,
    })
}

fn pairing_offer_request(frame: &Scanner) -> Option<Envelope<'_>> {
    let ttl_fits = match frame.kind(Member::TtlSeconds) {
        Kind::Absent => true,
        _ => frame
            .number(Member::TtlSeconds)
            .is_some_and(|ttl| is_integer(ttl) && (30.0..=3600.0).contains(&ttl)),
    };
    if !ttl_fits || !strings(frame, &[Member::ClientChannelPublicKey]) {
        return None;
    }
    Some(Envelope::PairingOfferRequest {
        profile: profile_member(frame),
        request_id: frame.text(Member::RequestId)?,
    })
}

fn pairing_redeem_request(frame: &Scanner) -> Option<Envelope<'_>> {
    let members = [Member::OfferId, Member::EncIv, Member::EncTag, Member::EncCiphertext];
    if !strings(frame, &members) {
        return None;
    }
    Some(Envelope::PairingRedeemRequest {
        profile: profile_member(frame),
        request_id: frame.text(Member::RequestId)?,
    })
}

fn pairing_offer_response(frame: &Scanner) -> Option<Envelope<'_>> {
    let members: &[Member] = match frame.kind(Member::Ok) {
        Kind::True => {
            &[Member::DaemonChannelPublicKey, Member::EncIv, Member::EncTag, Member::EncCiphertext]
        }
        Kind::False => &[Member::ErrorCode],
        _ => return None,
    };
    if !strings(frame, members) {
        return None;
    }
    Some(Envelope::PairingOfferResponse {
        profile: profile_member(frame),
        request_id: frame.text(Member::RequestId)?,
    })
}

fn pairing_redeem_response(frame: &Scanner) -> Option<Envelope<'_>> {
    let members: &[Member] = match frame.kind(Member::Ok) {
        Kind::True => &[],
        Kind::False => &[Member::ErrorCode],
        _ => return None,
    };
    if !strings(frame, members) {
        return None;
    }
    Some(Envelope::PairingRedeemResponse {
        profile: profile_member(frame),
        request_id: frame.text(Member::RequestId)?,
    })
}

/// Versions of the key exchange.
enum Version {
    Two,
    Three,
}

fn version(frame: &Scanner) -> Option<Version> {
    match frame.number(Member::Version)? {
        2.0 => Some(Version::Two),
        3.0 => Some(Version::Three),
        _ => None,
    }
}

/// Whether all of these are strings, and those that must not be blank are not.
fn strings(frame: &Scanner, members: &[Member]) -> bool {
    members.iter().all(|&member| frame.kind(member) == Kind::Text)
}

/// An integer of at least one.
fn counting_number(frame: &Scanner, member: Member) -> Option<f64> {
    frame.number(member).filter(|&number| is_integer(number) && number >= 1.0)
}

/// The profile of a frame that must have one.
fn profile(frame: &Scanner) -> Option<Profile> {
    frame.text(Member::Profile).and_then(Profile::parse)
}

/// The profile of a frame that need not have one.
fn profile_member(frame: &Scanner) -> ProfileMember {
    match frame.kind(Member::Profile) {
        Kind::Absent | Kind::Null => ProfileMember::Absent,
        _ => profile(frame).map_or(ProfileMember::Unknown, ProfileMember::Known),
    }
}
