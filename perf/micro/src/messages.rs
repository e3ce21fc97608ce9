//! The texts that clients and daemons send each other.

/// Bytes an envelope has beside its ciphertext: what an encrypted message cannot be shorter than.
const ENVELOPE_BYTES: usize = encrypted_head().len() + ENCRYPTED_TAIL.len();

const fn encrypted_head() -> &'static str {
    concat!(
        r#"{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"se_01J9ZK3V6W","epoch":1,"#,
        r#""seq":1000000000,"iv":"AAECAwQFBgcICQoL","tag":"EBESExQVFhcYGRobHB0eHw==","#,
        r#""ciphertext":""#
    )
}

const ENCRYPTED_TAIL: &str = r#""}"#;

/// An encrypted message of exactly `bytes` bytes, which hold an envelope at least. The ciphertext
/// is base64 that looks random and is always the same.
pub(crate) fn encrypted(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes);
    text.extend_from_slice(encrypted_head().as_bytes());
    let mut state = 0x9e37_79b9_u32;
    text.extend((ENVELOPE_BYTES..bytes).map(|_| {
        // Numerical Recipes' linear congruential generator; its upper bits are good enough here.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ALPHABET[(state >> 26) as usize]
    }));
    text.extend_from_slice(ENCRYPTED_TAIL.as_bytes());
    text
}

/// Source: RFC 4648 §4.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A worker's call with a body, which is written as in a JSON string.
pub(crate) fn worker_call(body: &str) -> String {
    let head = concat!(
        r#"{"type":"viewport.worker_transport.request/v1","requestId":"rq_01J9ZK3V6W","#,
        r#""method":"POST","path":"/api/runtime/workspaces/ws/managed-executors/ex/jobs","#,
        r#""headers":{"content-type":"application/json"},"body":""#
    );
    format!(r#"{head}{body}"}}"#)
}

/// What a client begins a session with.
pub(crate) const KEY_EXCHANGE_INIT: &str = concat!(
    r#"{"type":"relay_key_exchange_init","version":3,"profile":"noise-ik","#,
    r#""requestId":"rq_01J9ZK3V6W","clientEphemeralPublicKey":"#,
    r#""MCowBQYDK2VuAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=","#,
    r#""encryptedClientStatic":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v"}"#
);

/// What the daemon answers.
pub(crate) const KEY_EXCHANGE_RESPONSE: &str = concat!(
    r#"{"type":"relay_key_exchange_response","version":3,"profile":"noise-ik","#,
    r#""requestId":"rq_01J9ZK3V6W","daemonPublicKey":"DDDD","daemonEphemeralPublicKey":"#,
    r#""MCowBQYDK2VuAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=","#,
    r#""encryptedMetadata":"FFFF","sessionId":"se_01J9ZK3V6W","epoch":1,"proof":"GGGG"}"#
);

/// What a viewer asks for.
pub(crate) const SUBSCRIBE: &str =
    r#"{"type":"viewport.session_events.subscribe/v1","channel":"agent-session:s1"}"#;

/// What a viewer tells all others of its channel.
pub(crate) const PRESENCE: &str = concat!(
    r#"{"type":"viewport.session_viewer_presence/v1","channel":"agent-session:s1","#,
    r#""action":"joined","userId":"user_01J9ZK3V6W","displayName":"A. Viewer"}"#
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_message_has_the_size_that_was_asked_for() {
        for bytes in [256, 4096, 65_536] {
            assert_eq!(encrypted(bytes).len(), bytes);
        }
    }
}
