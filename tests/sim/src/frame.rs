//! The frames peers send. What arrives is compared with what the same call makes again.

/// An encrypted frame as the relay sees it. Some have as much again in short values, which take
/// long to read.
pub(crate) fn e2ee(session_id: &str, ciphertext: &str) -> String {
    let count = match ciphertext.len() % 4 {
        0 => ciphertext.len() / 2,
        _ => 0,
    };
    format!(
        concat!(
            r#"{{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"{}","epoch":1,"#,
            r#""seq":1,"x":[{}0],"iv":"aXY","tag":"dGFn","ciphertext":"{}"}}"#
        ),
        session_id,
        "0,".repeat(count),
        ciphertext
    )
}

/// A client's first frame; the key says which connection of which client it is.
pub(crate) fn key_exchange_init(request_id: &str, life: u64) -> String {
    format!(
        concat!(
            r#"{{"type":"relay_key_exchange_init","version":3,"profile":"noise-ik","#,
            r#""requestId":"{}","clientEphemeralPublicKey":"{}","encryptedClientStatic":"s"}}"#
        ),
        request_id, life
    )
}

/// The daemon's answer to it.
pub(crate) fn key_exchange_response(request_id: &str, session_id: &str) -> String {
    format!(
        concat!(
            r#"{{"type":"relay_key_exchange_response","version":3,"profile":"noise-ik","#,
            r#""requestId":"{}","daemonPublicKey":"k","daemonEphemeralPublicKey":"e","#,
            r#""encryptedMetadata":"m","sessionId":"{}","epoch":1,"proof":"p"}}"#
        ),
        request_id, session_id
    )
}

/// A pairing client's request for an offer.
pub(crate) fn offer_request(request_id: &str, message: &str) -> String {
    format!(
        concat!(
            r#"{{"type":"relay_pairing_offer_request","requestId":"{}","#,
            r#""clientChannelPublicKey":"{}","ttlSeconds":60,"profile":"noise-ik"}}"#
        ),
        request_id, message
    )
}

/// The daemon's offer.
pub(crate) fn offer_response(request_id: &str, message: &str) -> String {
    format!(
        concat!(
            r#"{{"type":"relay_pairing_offer_response","requestId":"{}","ok":true,"#,
            r#""daemonChannelPublicKey":"D","encIv":"i","encTag":"t","encCiphertext":"{}","#,
            r#""profile":"noise-ik"}}"#
        ),
        request_id, message
    )
}

/// A worker's call to the platform.
pub(crate) fn worker_call(request_id: &str, path: &str, body: &str) -> String {
    format!(
        concat!(
            r#"{{"type":"viewport.worker_transport.request/v1","requestId":"{}","#,
            r#""method":"POST","path":"{}","body":"{}"}}"#
        ),
        request_id, path, body
    )
}
