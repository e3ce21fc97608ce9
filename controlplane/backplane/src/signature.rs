//! Who signed a frame between relays, and when.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use relay_contract::Secret;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// The keys relays share: the first signs, all verify. During a rotation there are two.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: Secret,
    previous: Option<Secret>,
}

/// The parts of a frame that its signature covers. Absent ones count as empty. Payloads are
/// ciphertext, and ids are nobody's business, so there is no `Debug`.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// The workspace.
    pub workspace_id: &'a str,
    /// The target, if the frame names one.
    pub target_id: Option<&'a str>,
    /// The machine, if the frame names one.
    pub machine_id: Option<&'a str>,
    /// The relay that sends.
    pub source_relay_id: &'a str,
    /// The relay it is for, if for one.
    pub target_relay_id: Option<&'a str>,
    /// Which way it goes, as in the frame.
    pub direction: &'a str,
    /// When it was signed, in milliseconds since 1970.
    pub issued_at_ms: i64,
    /// The frame of the peer.
    pub payload: &'a str,
}

/// Why a frame cannot be signed. Ours: the relay made its parts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignError {
    /// A newline would make one frame's base another's.
    #[error("a part before the payload contains a newline")]
    Newline,
}

impl KeyRing {
    /// A ring of the key in force and the one before it.
    pub fn new(current: Secret, previous: Option<Secret>) -> Self {
        Self { current, previous }
    }

    /// Signs with the key in force.
    ///
    /// Shape: HMAC-SHA256 over the eight parts joined by newlines, payload last; base64url without
    /// padding. Cost: copies the payload once into the hash.
    ///
    /// # Errors
    /// [`SignError`].
    ///
    /// Source: relay specification, section 10; RFC 2104; RFC 4648 §5.
    pub fn sign(&self, parts: &Signed<'_>) -> Result<String, SignError> {
        if parts.is_ambiguous() {
            return Err(SignError::Newline);
        }
        Ok(URL_SAFE_NO_PAD.encode(digest(&self.current, parts)))
    }

    /// Whether one of the keys signed these parts. Takes as long whichever it was, and however much
    /// of a forged signature is right. A text that is no signature, or is one in another spelling,
    /// is none.
    pub fn verify(&self, parts: &Signed<'_>, signature: &str) -> bool {
        let Ok(shown) = URL_SAFE_NO_PAD.decode(signature) else {
            return false;
        };
        if parts.is_ambiguous() {
            return false;
        }
        let keys = [Some(&self.current), self.previous.as_ref()];
        let known = keys.into_iter().flatten().map(|key| digest(key, parts));
        known.fold(Choice::from(0), |found, digest| found | digest.ct_eq(&shown)).into()
    }
}

impl Signed<'_> {
    /// The parts before the payload, in their order.
    fn head(&self) -> [&str; 6] {
        [
            self.workspace_id,
            self.target_id.unwrap_or_default(),
            self.machine_id.unwrap_or_default(),
            self.source_relay_id,
            self.target_relay_id.unwrap_or_default(),
            self.direction,
        ]
    }

    /// Whether a part could be taken for two: then another frame has the same signature.
    fn is_ambiguous(&self) -> bool {
        self.head().iter().any(|part| part.contains('\n'))
    }
}

/// Whether a frame of this date is neither too old nor too far ahead, by clocks that may disagree.
/// Both are dates in milliseconds since 1970.
pub fn is_fresh(issued_at_ms: i64, now_ms: i64, skew_max: Duration) -> bool {
    u128::from(issued_at_ms.abs_diff(now_ms)) <= skew_max.as_millis()
}

fn digest(key: &Secret, parts: &Signed<'_>) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    for part in parts.head() {
        mac.update(part.as_bytes());
        mac.update(b"\n");
    }
    mac.update(parts.issued_at_ms.to_string().as_bytes());
    mac.update(b"\n");
    mac.update(parts.payload.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Signed<'static> = Signed {
        workspace_id: "ws1",
        target_id: Some("rt1"),
        machine_id: Some("machine-1"),
        source_relay_id: "relay-a",
        target_relay_id: Some("relay-b"),
        direction: "client_to_daemon",
        issued_at_ms: 1_769_853_600_000,
        payload: "{\"type\":\"x\",\n\"é\":1}",
    };

    /// `printf 'ws1\nrt1\nmachine-1\nrelay-a\nrelay-b\nclient_to_daemon\n1769853600000\n…' |
    /// openssl dgst -sha256 -hmac bus-key -binary | basenc --base64url`
    const SIGNATURE: &str = "eho4Xoyhyy8Q2i6aiaimYdGk4mPxXPmnUGCEGWCvp4U";
    /// The same without target, machine and target relay.
    const SIGNATURE_WITHOUT: &str = "dcP3VGQSyWXv-opTkAmotB8ZGtWwePUpo98pL4t2M_A";

    fn ring(current: &str, previous: Option<&str>) -> KeyRing {
        KeyRing::new(Secret::from(current), previous.map(Secret::from))
    }

    fn sparse() -> Signed<'static> {
        Signed { target_id: None, machine_id: None, target_relay_id: None, ..PARTS }
    }

    #[test]
    fn a_signature_is_what_other_programs_make() {
        let ring = ring("bus-key", None);
        assert_eq!(ring.sign(&PARTS).as_deref(), Ok(SIGNATURE));
        assert_eq!(ring.sign(&sparse()).as_deref(), Ok(SIGNATURE_WITHOUT));
        assert!(ring.verify(&PARTS, SIGNATURE) && ring.verify(&sparse(), SIGNATURE_WITHOUT));
    }

    #[test]
    fn every_part_is_covered() {
        let ring = ring("bus-key", None);
        for forged in [
            Signed { workspace_id: "ws2", ..PARTS },
            Signed { target_id: None, ..PARTS },
            Signed { machine_id: Some("machine-2"), ..PARTS },
            Signed { source_relay_id: "relay-c", ..PARTS },
            Signed { target_relay_id: Some("relay-c"), ..PARTS },
            Signed { direction: "daemon_to_client", ..PARTS },
            Signed { issued_at_ms: PARTS.issued_at_ms + 1, ..PARTS },
            Signed { payload: "{}", ..PARTS },
        ] {
            assert!(!ring.verify(&forged, SIGNATURE));
        }
    }

    #[test]
    fn the_first_key_signs_and_both_verify() {
        let (old, both, new) = (ring("old", None), ring("new", Some("old")), ring("new", None));
        let signed_with_old = old.sign(&PARTS).unwrap_or_default();
        let signed_with_both = both.sign(&PARTS).unwrap_or_default();
        assert!(both.verify(&PARTS, &signed_with_old));
        assert!(both.verify(&PARTS, &signed_with_both));
        assert!(new.verify(&PARTS, &signed_with_both));
        assert!(!new.verify(&PARTS, &signed_with_old));
        assert!(!old.verify(&PARTS, &signed_with_both));
    }

    #[test]
    fn what_is_no_signature_is_none() {
        let ring = ring("bus-key", None);
        let padded = format!("{SIGNATURE}=");
        let standard = SIGNATURE.replacen('e', "+", 1);
        for text in ["", "=", "é", &SIGNATURE[1..], &padded, &standard] {
            assert!(!ring.verify(&PARTS, text), "{text}");
        }
    }

    #[test]
    fn another_spelling_of_a_signature_is_none() {
        // The last character carries four bits; the two that are left over must be zero.
        let last = SIGNATURE.chars().last().unwrap_or_default();
        let other = char::from(u8::try_from(last).unwrap_or_default() + 1);
        let respelled = format!("{}{other}", &SIGNATURE[..SIGNATURE.len() - 1]);
        assert!(!ring("bus-key", None).verify(&PARTS, &respelled));
    }

    #[test]
    fn a_newline_cannot_move_one_part_into_the_next() {
        let ring = ring("bus-key", None);
        let moved = Signed { workspace_id: "ws1\nrt1", target_id: None, ..PARTS };
        assert_eq!(ring.sign(&moved), Err(SignError::Newline));
        assert!(!ring.verify(&moved, SIGNATURE));
    }

    #[test]
    fn a_clock_that_jumps_makes_frames_stale_both_ways_and_trips_nothing() {
        let skew = Duration::from_secs(15);
        let now = PARTS.issued_at_ms;
        for (issued, fresh) in [
            (now, true),
            (now - 15_000, true),
            (now + 15_000, true),
            (now - 15_001, false),
            (now + 15_001, false),
            (0, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            assert_eq!(is_fresh(issued, now, skew), fresh, "{issued}");
        }
        assert!(is_fresh(i64::MIN, i64::MIN, Duration::ZERO));
    }

    #[test]
    fn debug_of_a_ring_shows_no_key() {
        let shown = format!("{:?}", ring("hush", Some("hush")));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
