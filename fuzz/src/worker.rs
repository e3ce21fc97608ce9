//! What an admitted worker can ask the relay to do at the platform.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use relay_contract::{
    Claims, ConnectionId, Credential, Grant, Limits, Role, ShardId, Tick, UpgradeRequest,
    WorkerRequest, WorkspaceId,
};
use relay_switchboard::{Effect, Effects, Input, Message, Switchboard};
use relay_wire::envelope::cold::{self, ColdFrame};
use relay_wire::envelope::{CallReader, ColdKind, Envelope, Scanner};
use serde_json::json;
use url::Url;

/// A worker's message: whatever is called lies inside the worker's own paths, for whoever reads
/// the path on the way, and carries no header that is not on the list. A call is the same, read
/// whole or in pieces.
///
/// The input is taken twice: as the message itself, and as the path and a header value, divided by
/// the first line feed, of a message that is otherwise good.
pub fn worker(data: &[u8]) {
    let mut board = Switchboard::new(ShardId(0), [7; 16], Arc::new(Limits::default()));
    let mut effects = Effects::new();
    let grant = Box::new(grant());
    board.handle(Tick(0), Input::Opened { connection: WORKER, grant }, &mut effects);
    say(&mut board, data, &mut effects);
    let text = String::from_utf8_lossy(data);
    let (path, header) = text.split_once('\n').unwrap_or((&text, ""));
    let message = json!({
        "type": "viewport.worker_transport.request/v1",
        "requestId": "r",
        "method": "POST",
        "path": format!("{ROOT}{path}"),
        "headers": { "Accept": header, header: "x", "cookie": "x", "host": "x" },
        "body": text,
    });
    say(&mut board, message.to_string().as_bytes(), &mut effects);
    for effect in effects.iter() {
        if let Effect::CallPlatform { request, .. } = effect {
            judge(request);
        }
    }
}

fn say(board: &mut Switchboard, text: &[u8], effects: &mut Effects) {
    let mut scanner = Scanner::new();
    scanner.feed(text);
    let envelope = scanner.finish();
    if let Ok(Envelope::Cold { kind: ColdKind::Worker, .. }) = envelope {
        assert_same_in_pieces(text);
    }
    let message = Message {
        bytes: text.len(),
        envelope: envelope.as_ref().map_err(|invalid| *invalid),
        text: &|| Cow::Borrowed(text),
        call: None,
    };
    board.handle(Tick(1), Input::Message { from: WORKER, message }, effects);
}

fn assert_same_in_pieces(text: &[u8]) {
    let whole = match cold::parse(ColdKind::Worker, text) {
        Ok(ColdFrame::Worker(request)) => Some(members(request)),
        _ => None,
    };
    for piece_bytes in [1, 7, 64, 4097] {
        let mut reader = CallReader::new(text.len());
        text.chunks(piece_bytes).for_each(|piece| reader.feed(piece));
        assert!(reader.finish().ok().map(members) == whole, "in pieces of {piece_bytes}");
    }
}

/// What a call says.
type Members = (String, Box<str>, String, Vec<(Box<str>, String)>, Option<String>);

fn members(request: WorkerRequest) -> Members {
    let WorkerRequest { request_id, method, path, headers, body } = request;
    (request_id, method, path, headers, body)
}

fn judge(request: &WorkerRequest) {
    let path = &request.path;
    let url = Url::parse(&format!("{ORIGIN}{path}")).expect("a path behind an origin");
    assert_eq!(url.origin().ascii_serialization(), ORIGIN);
    assert_eq!(url.fragment(), None);
    assert!(is_inside(url.path()), "{path:?} is {url}");
    // A server that decodes before it resolves, and takes a backslash for a slash.
    let decoded = url.path().replace("%2e", ".").replace("%2E", ".");
    let decoded = decoded.replace("%2f", "/").replace("%2F", "/").replace("%5c", "\\");
    let decoded = decoded.replace("%5C", "\\");
    let url = Url::parse(&format!("{ORIGIN}{decoded}")).expect("a path behind an origin");
    assert!(is_inside(url.path()), "{path:?} is {url} once decoded");
    assert!(!path.bytes().any(|byte| byte < b' ' || byte == 0x7f), "{path:?}");
    for (name, _) in &request.headers {
        let listed = matches!(&**name, "authorization" | "accept" | "content-type");
        assert!(listed || name.starts_with("x-viewport-"), "{name}");
    }
    assert!(matches!(&*request.method, "GET" | "POST" | "PATCH"));
    assert!(request.method.as_ref() != "GET" || request.body.is_none());
}

fn is_inside(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

fn grant() -> Grant {
    Grant {
        admission: Default::default(),
        request: UpgradeRequest {
            role: Role::Worker,
            workspace_id: WorkspaceId::from("ws1".to_owned()),
            target_id: None,
        },
        claims: Claims {
            workspace_id: Some("ws1".into()),
            managed_executor_id: Some("ex1".into()),
            ..Claims::default()
        },
        claims_digest: 0,
        credential: Credential::default(),
        address: IpAddr::from([127, 0, 0, 1]),
    }
}

const WORKER: ConnectionId = ConnectionId { shard: ShardId(0), slot: 0, generation: 0 };

const ORIGIN: &str = "https://api.corp";

const ROOT: &str = "/api/runtime/workspaces/ws1/managed-executors/ex1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_call_reaches_the_judge() {
        let mut board = Switchboard::new(ShardId(0), [7; 16], Arc::new(Limits::default()));
        let mut effects = Effects::new();
        let grant = Box::new(grant());
        board.handle(Tick(0), Input::Opened { connection: WORKER, grant }, &mut effects);
        let text = &crate::seeds::worker()[0];
        say(&mut board, text, &mut effects);
        let calls = effects.iter().filter(|effect| matches!(effect, Effect::CallPlatform { .. }));
        assert_eq!(calls.count(), 1);
    }

    #[test]
    #[should_panic(expected = "once decoded")]
    fn a_path_that_climbs_out_is_noticed() {
        judge(&WorkerRequest {
            request_id: "r".to_owned(),
            method: "GET".into(),
            path: format!("{ROOT}/..%2f..%2fex2"),
            headers: Vec::new(),
            body: None,
        });
    }
}
