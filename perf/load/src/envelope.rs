//! The messages of the load: encrypted envelopes of an exact size, and the key exchange before
//! them.

/// The first sequence number; with ten digits, it never changes its length.
pub(crate) const SEQ_FIRST: u64 = 1_000_000_000;
/// Digits of a sequence number.
pub(crate) const SEQ_DIGITS: usize = 10;

/// An encrypted envelope as text, and where its sequence number stands.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) text: String,
    /// Byte index of the first digit.
    pub(crate) seq_at: usize,
}

impl Envelope {
    /// An envelope of exactly `bytes` bytes for session `session`, or the least size when that is
    /// too few.
    ///
    /// The ciphertext is padded base64 that looks random and differs between sessions.
    pub(crate) fn new(session: &str, bytes: usize) -> Result<Self, usize> {
        let head = format!(
            "{{\"type\":\"e2ee\",\"version\":2,\"profile\":\"noise-ik\",\
             \"sessionId\":\"{session}\",\"epoch\":1,\"seq\":"
        );
        let seq_at = head.len();
        // The tag takes up to three characters more, so that the ciphertext is whole groups of
        // four.
        let after = |tag: &str| {
            format!("{SEQ_FIRST},\"iv\":\"AAECAwQFBgcICQoL\",\"tag\":\"{tag}\",\"ciphertext\":\"")
        };
        let tag = "EBESExQVFhcYGRobHB0eHw==";
        let frame_bytes = seq_at + after(tag).len() + "\"}".len();
        let Some(room @ 4..) = bytes.checked_sub(frame_bytes) else {
            return Err(frame_bytes + 4);
        };
        let tag = format!("{}{tag}", &"AAA"[..room % 4]);
        let ciphertext = ciphertext(session, room - room % 4);
        let text = format!("{head}{}{ciphertext}\"}}", after(&tag));
        Ok(Self { text, seq_at })
    }
}

/// What a client sends to begin a session.
pub(crate) fn key_exchange_init(request: &str) -> String {
    format!(
        "{{\"type\":\"relay_key_exchange_init\",\"version\":3,\"profile\":\"noise-ik\",\
         \"requestId\":\"{request}\",\"clientEphemeralPublicKey\":\"AAAA\",\
         \"encryptedClientStatic\":\"BBBB\"}}"
    )
}

/// What a daemon answers; from then on the asking client owns the session.
pub(crate) fn key_exchange_response(request: &str, session: &str) -> String {
    format!(
        "{{\"type\":\"relay_key_exchange_response\",\"version\":3,\"profile\":\"noise-ik\",\
         \"requestId\":\"{request}\",\"daemonPublicKey\":\"DDDD\",\
         \"daemonEphemeralPublicKey\":\"EEEE\",\"encryptedMetadata\":\"FFFF\",\
         \"sessionId\":\"{session}\",\"epoch\":1,\"proof\":\"GGGG\"}}"
    )
}

/// `len` characters of base64 with one character of padding; `len` is a multiple of four.
fn ciphertext(seed: &str, len: usize) -> String {
    let mut text = random_base64(seed, len - 1);
    text.push('=');
    text
}

/// `len` characters of base64 that look random and differ between seeds.
pub(crate) fn random_base64(seed: &str, len: usize) -> String {
    let mut state = seed.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut text = String::with_capacity(len);
    for _ in 0..len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push(char::from(BASE64[(state >> 32) as usize % 64]));
    }
    text
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_has_exactly_the_size_asked_for_and_is_json() {
        for bytes in [253, 254, 255, 256, 4096, 65536] {
            let envelope = Envelope::new("session-0001", bytes).expect("it fits");
            assert_eq!(envelope.text.len(), bytes);
            let json: serde_json::Value = serde_json::from_str(&envelope.text).expect("JSON");
            assert_eq!(json["seq"], SEQ_FIRST);
            assert_eq!(json["ciphertext"].as_str().map_or(1, str::len) % 4, 0);
            let digits = &envelope.text[envelope.seq_at..][..SEQ_DIGITS];
            assert_eq!(digits.parse(), Ok(SEQ_FIRST));
        }
    }

    #[test]
    fn too_small_an_envelope_is_refused_with_the_least_size() {
        let least = Envelope::new("session-0001", 10).expect_err("it does not fit");
        assert!(Envelope::new("session-0001", least).is_ok());
        assert!(Envelope::new("session-0001", least - 1).is_err());
    }
}
