//! Frames the relay itself writes, byte for byte as `JSON.stringify` of the reference writes them.
//!
//! Strings may be WTF-8 (an echoed channel or request id); lone surrogates are escaped, as
//! `JSON.stringify` does. Cost: one allocation or a few; none of these is on the frame path.

use relay_contract::{Renewal, WorkerResponse};

use super::number;
use super::text::surrogate;

/// `DAEMON_UNAVAILABLE`: nobody serves the target right now. Target and machine are the client's
/// claims.
pub fn daemon_unavailable(
    workspace_id: &str,
    target_id: Option<&str>,
    machine_id: Option<&str>,
) -> Vec<u8> {
    let message = "No machine runtime is connected for this runtime target";
    let mut object =
        status("DAEMON_UNAVAILABLE", message, workspace_id).literal("retryable", "true");
    if let Some(target_id) = target_id {
        object = object.text("runtimeTargetId", target_id.as_bytes());
    }
    if let Some(machine_id) = machine_id {
        object = object.text("machineId", machine_id.as_bytes());
    }
    object.end()
}

/// `RUNTIME_TARGET_REQUIRED`: sent before the close of a client that names no target.
pub fn runtime_target_required(workspace_id: &str) -> Vec<u8> {
    let message = "Runtime client must specify a runtime target";
    status("RUNTIME_TARGET_REQUIRED", message, workspace_id).literal("retryable", "false").end()
}

/// `RELAY_REDIRECT`: another relay holds the daemon. Names the target on a send, not on a connect.
pub fn relay_redirect(
    workspace_id: &str,
    target_id: Option<&str>,
    relay_ws_base_url: &str,
) -> Vec<u8> {
    let message = "Workspace is assigned to a different relay instance";
    let mut object = status("RELAY_REDIRECT", message, workspace_id);
    if let Some(target_id) = target_id {
        object = object.text("runtimeTargetId", target_id.as_bytes());
    }
    object.text("relayWsBaseUrl", relay_ws_base_url.as_bytes()).end()
}

/// `INVALID_FRAME`: a client's message was none of its frames.
pub fn invalid_frame(workspace_id: &str) -> Vec<u8> {
    let message = "client frame must be a valid runtime or pairing control frame";
    status("INVALID_FRAME", message, workspace_id).end()
}

/// `SESSION_EVENTS_SCOPE_ONLY`: a session-events client sent a frame of another scope.
pub fn session_events_scope_only(workspace_id: &str) -> Vec<u8> {
    let message = "session-events scope may only send session event frames";
    status("SESSION_EVENTS_SCOPE_ONLY", message, workspace_id).end()
}

/// Acknowledges a subscription.
pub fn subscribed(channel: &[u8], after_sequence: f64) -> Vec<u8> {
    let mut sequence = Vec::new();
    number::write_js(after_sequence, &mut sequence);
    Object::new("viewport.session_events.subscribed/v1")
        .text("channel", channel)
        .raw("afterSequence", &sequence)
        .text("authoritativeSource", b"session_events")
        .literal("websocketRequiredForBackfill", "false")
        .end()
}

/// Acknowledges the end of a subscription, whether there was one or not.
pub fn unsubscribed(channel: &[u8]) -> Vec<u8> {
    Object::new("viewport.session_events.unsubscribed/v1").text("channel", channel).end()
}

/// Refuses a subscription, or the end of one, to a channel the claims do not name.
pub fn subscribe_denied(channel: &[u8], workspace_id: &str) -> Vec<u8> {
    denied("viewport.session_events.subscribe_denied/v1", channel, workspace_id)
}

/// Refuses viewer presence on a channel the claims do not name.
pub fn presence_denied(channel: &[u8], workspace_id: &str) -> Vec<u8> {
    denied("viewport.session_viewer_presence_denied/v1", channel, workspace_id)
}

/// Answers a fresh token; ours.
pub fn renewal(outcome: Renewal) -> Vec<u8> {
    match outcome {
        Renewal::Renewed { expires_at_ms } => {
            let expires = expires_at_ms.map_or_else(|| "null".to_owned(), |ms| ms.to_string());
            Object::new("relay.token_renewed/v1").raw("expiresAtMs", expires.as_bytes()).end()
        }
        Renewal::Refused(refusal) => {
            Object::new("relay.token_refused/v1").text("reason", refusal.text().as_bytes()).end()
        }
    }
}

/// The platform's answer to a worker's call.
pub fn worker_response(response: &WorkerResponse) -> Vec<u8> {
    let headers = response
        .headers
        .iter()
        .fold(Object::bare(), |object, (name, value)| object.text(name, value.as_bytes()))
        .end();
    worker(&response.request_id, response.status, &headers, response.body.as_bytes())
}

/// Refuses a worker's call outside its executor's subtree: 403.
pub fn worker_path_denied(request_id: &str) -> Vec<u8> {
    worker_refusal(request_id, 403, "WORKER_TRANSPORT_PATH_DENIED")
}

/// Reports a worker's call that failed: 502.
pub fn worker_forward_failed(request_id: &str) -> Vec<u8> {
    worker_refusal(request_id, 502, "WORKER_TRANSPORT_FORWARD_FAILED")
}

/// Refuses a worker's call while too many are in flight: 503.
pub fn worker_busy(request_id: &str) -> Vec<u8> {
    worker_refusal(request_id, 503, "WORKER_TRANSPORT_BUSY")
}

/// Writes a WTF-8 string as `JSON.stringify` does, quotes included.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(&byte) = rest.first() {
        let plain = rest.iter().take_while(|&&b| !needs_escape(b)).count();
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        if plain > 0 {
            continue;
        }
        rest = &rest[write_escape(byte, rest, out)..];
    }
    out.push(b'"');
}

/// Whether a byte is, or may begin, something that is escaped.
const fn needs_escape(byte: u8) -> bool {
    matches!(byte, 0x00..=0x1f | b'"' | b'\\' | SURROGATE_LEAD)
}

/// Writes what `rest` begins with, and says how many bytes that was.
fn write_escape(byte: u8, rest: &[u8], out: &mut Vec<u8>) -> usize {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        SURROGATE_LEAD => {
            let Some(unit) = surrogate(rest) else {
                out.push(byte);
                return 1;
            };
            write_unit(unit, out);
            return 3;
        }
        _ => {
            write_unit(u16::from(byte), out);
            return 1;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
    1
}

fn write_unit(unit: u16, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(DIGITS[usize::from(unit >> shift & 0xf)]);
    }
}

fn status(code: &str, message: &str, workspace_id: &str) -> Object {
    Object::new("relay_status")
        .text("code", code.as_bytes())
        .text("message", message.as_bytes())
        .text("workspaceId", workspace_id.as_bytes())
}

fn denied(kind: &str, channel: &[u8], workspace_id: &str) -> Vec<u8> {
    Object::new(kind)
        .text("channel", channel)
        .text("reason", b"CHANNEL_NOT_AUTHORIZED")
        .text("workspaceId", workspace_id.as_bytes())
        .end()
}

fn worker_refusal(request_id: &str, status: u16, reason: &str) -> Vec<u8> {
    let headers = Object::bare().text("content-type", b"application/json").end();
    let body = Object::bare().literal("ok", "false").text("reason", reason.as_bytes()).end();
    worker(request_id, status, &headers, &body)
}

fn worker(request_id: &str, status: u16, headers: &[u8], body: &[u8]) -> Vec<u8> {
    Object::new("viewport.worker_transport.response/v1")
        .text("requestId", request_id.as_bytes())
        .raw("status", status.to_string().as_bytes())
        .raw("headers", headers)
        .text("body", body)
        .end()
}

/// A JSON object being written.
struct Object(Vec<u8>);

impl Object {
    /// An object whose first member is its type.
    fn new(kind: &str) -> Self {
        Self::bare().text("type", kind.as_bytes())
    }

    fn bare() -> Self {
        Self(vec![b'{'])
    }

    fn text(mut self, name: &str, text: &[u8]) -> Self {
        self.name(name);
        write_string(text, &mut self.0);
        self
    }

    fn literal(self, name: &str, literal: &str) -> Self {
        self.raw(name, literal.as_bytes())
    }

    /// A member whose value is JSON already.
    fn raw(mut self, name: &str, value: &[u8]) -> Self {
        self.name(name);
        self.0.extend_from_slice(value);
        self
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        write_string(name.as_bytes(), &mut self.0);
        self.0.push(b':');
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

const SURROGATE_LEAD: u8 = 0xed;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use relay_contract::RenewalRefusal;

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    /// The text of that name; one per line, after a tab.
    fn recorded(name: &str) -> &'static str {
        include_str!("../../vectors/emitted.txt")
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .find_map(|(known, text)| (known == name).then_some(text))
            .unwrap()
    }

    #[test]
    fn statuses_have_the_recorded_texts() {
        assert_eq!(
            text(daemon_unavailable("ws1", Some("rt1"), Some("m1"))),
            recorded("daemon unavailable")
        );
        assert_eq!(text(runtime_target_required("ws1")), recorded("target required"));
        assert_eq!(
            text(relay_redirect("ws1", None, "wss://z.example.net/ws")),
            recorded("redirect on connect")
        );
        assert_eq!(
            text(relay_redirect("ws1", Some("rt1"), "wss://z.example.net/ws")),
            recorded("redirect on send")
        );
        assert_eq!(text(invalid_frame("ws1")), recorded("invalid frame"));
    }

    #[test]
    fn event_channel_answers_have_the_recorded_texts() {
        assert_eq!(text(subscribed(b"agent-session:s1", 7.0)), recorded("subscribed"));
        assert_eq!(text(unsubscribed(b"agent-session:s1")), recorded("unsubscribed"));
        assert_eq!(
            text(subscribe_denied(b"agent-session:other", "ws1")),
            recorded("subscribe denied")
        );
        assert_eq!(text(presence_denied(b"agent-session:zz", "ws1")), recorded("presence denied"));
    }

    #[test]
    fn worker_answers_have_the_recorded_texts() {
        assert_eq!(text(worker_path_denied("w-1")), recorded("worker path denied"));
        assert!(text(worker_forward_failed("w")).contains(r#""status":502,"#));
        assert!(text(worker_busy("w")).contains(r#""status":503,"#));
        let response = WorkerResponse {
            request_id: "a\"b".to_owned(),
            status: 200,
            headers: vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())],
            body: "é\n".to_owned(),
            forwarded: true,
        };
        assert_eq!(text(worker_response(&response)), recorded("worker response"));
    }

    #[test]
    fn answers_to_a_fresh_token_say_until_when_or_why_not() {
        let renewed = |expires_at_ms| text(renewal(Renewal::Renewed { expires_at_ms }));
        assert_eq!(renewed(None), r#"{"type":"relay.token_renewed/v1","expiresAtMs":null}"#);
        assert_eq!(
            renewed(Some(1_764_000_000_000)),
            r#"{"type":"relay.token_renewed/v1","expiresAtMs":1764000000000}"#
        );
        for refusal in RenewalRefusal::ALL {
            let reason = refusal.text();
            assert_eq!(
                text(renewal(Renewal::Refused(refusal))),
                format!(r#"{{"type":"relay.token_refused/v1","reason":"{reason}"}}"#)
            );
        }
    }

    #[test]
    fn strings_are_escaped_as_json_stringify_does() {
        let mut out = Vec::new();
        write_string(
            b"\x00\x08\x09\x0a\x0c\x0d\x1f\"\\/\x7f\xe2\x80\xa8\xed\xa0\x80\xed\x9f\xbf",
            &mut out,
        );
        assert_eq!(
            text(out),
            "\"\\u0000\\b\\t\\n\\f\\r\\u001f\\\"\\\\/\u{7f}\u{2028}\\ud800\u{d7ff}\""
        );
    }

    proptest! {
        #[test]
        fn any_string_reads_back_as_it_was(source: String) {
            let mut out = Vec::new();
            write_string(source.as_bytes(), &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), source);
        }
    }
}
