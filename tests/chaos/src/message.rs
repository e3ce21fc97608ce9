//! Messages of the protocol, as text. Source: relay specification, section 6.

use serde_json::{Value, json};

/// An encrypted message of a session.
pub fn encrypted(session: &str, seq: u64, ciphertext: &str) -> String {
    json!({
        "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": session, "epoch": 1,
        "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": ciphertext,
    })
    .to_string()
}

/// A client's request for a session.
pub fn key_exchange(request: &str) -> String {
    json!({
        "type": "relay_key_exchange_init", "version": 3, "profile": "noise-ik",
        "requestId": request, "clientEphemeralPublicKey": "AAAA", "encryptedClientStatic": "BBBB",
    })
    .to_string()
}

/// The daemon's answer; from then on the client that asked owns the session.
pub fn key_exchanged(request: &str, session: &str) -> String {
    json!({
        "type": "relay_key_exchange_response", "version": 3, "profile": "noise-ik",
        "requestId": request, "daemonPublicKey": "DDDD", "daemonEphemeralPublicKey": "EEEE",
        "encryptedMetadata": "FFFF", "sessionId": session, "epoch": 1, "proof": "GGGG",
    })
    .to_string()
}

/// A viewer's wish to hear of a channel.
pub fn subscribe(channel: &str) -> String {
    json!({ "type": "viewport.session_events.subscribe/v1", "channel": channel }).to_string()
}

/// The end of that wish.
pub fn unsubscribe(channel: &str) -> String {
    json!({ "type": "viewport.session_events.unsubscribe/v1", "channel": channel }).to_string()
}

/// A worker's call.
pub fn call(request: &str, path: &str) -> String {
    call_by("GET", request, path).to_string()
}

/// A worker's call that brings something.
pub fn post(request: &str, path: &str, body: &str) -> String {
    let mut call = call_by("POST", request, path);
    call["body"] = body.into();
    call.to_string()
}

fn call_by(method: &str, request: &str, path: &str) -> Value {
    json!({
        "type": "viewport.worker_transport.request/v1", "requestId": request, "method": method,
        "path": path, "headers": {},
    })
}
