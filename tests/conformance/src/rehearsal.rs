//! Scenarios against a stand-in for a relay: what the runner observes, without a relay.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::frame::{Frame, FrameDecoder, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT};
use crate::http_message::{Head, Response};
use crate::raw_socket::RawSocket;
use crate::scenario::Scenario;
use crate::suite::Setup;
use crate::transport::Transport;
use crate::trial;
use crate::watched::Deadline;
use crate::world::World;

fn setup() -> Setup {
    Setup {
        relay: PathBuf::from("/bin/cat"),
        env: vec![("EXTRA".to_owned(), "1".to_owned())],
        shape: crate::relay_process::Shape::One,
        certificates: Certificates::make().unwrap(),
        metrics: HashSet::from(["a_total".to_owned()]),
    }
}

fn scenario(platform: Value, steps: Value) -> Scenario {
    let relays = json!({"A": {"manual": true, "env": {"SERVER_URL": "{{platform}}"}}});
    let scenario = json!({
        "format": 1, "group": "g", "name": "n", "title": "t",
        "relays": relays, "platform": platform, "steps": steps,
    });
    Scenario::parse(&scenario.to_string()).unwrap()
}

/// Plays steps against a stand-in that listens on the port of relay A.
fn rehearse(platform: Value, steps: Value) {
    let (setup, scenario) = (setup(), scenario(platform, steps));
    let mut world = World::prepare(&setup, &scenario).unwrap();
    let platform = world.expand("{{platform.port}}").unwrap().parse().unwrap();
    stand_in(world.relays[0].port, platform);
    if let Err((step, reason)) = trial::run_in(&mut world, &scenario) {
        panic!("{step:?}: {reason}");
    }
}

/// Answers each connection by the path it asks for, until the test's process ends.
fn stand_in(port: u16, platform: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || play(socket.unwrap(), platform));
        }
    });
}

fn play(mut socket: TcpStream, platform: u16) {
    let mut received = Vec::new();
    let (head, head_bytes) = loop {
        if let Some(parsed) = Head::parse(&received) {
            break parsed;
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk) {
            Ok(length) if length > 0 => received.extend_from_slice(&chunk[..length]),
            _ => return,
        }
    };
    match head.first_line.split(' ').nth(1).unwrap() {
        "/ws" => converse(&mut socket, &head, &received[head_bytes..]),
        "/refused" => socket.write_all(b"HTTP/1.1 401 Unauthorized\r\n\r\n").unwrap(),
        "/validate" => {
            let token = head.header("authorization").unwrap().trim_start_matches("Bearer ");
            let answer = ask(platform, &json!({"relayToken": token}).to_string());
            answer_json(&mut socket, &answer);
        }
        "/metrics" => answer_json(&mut socket, "# TYPE a_total counter\na_total 2\nb_total 1\n"),
        "/logs" => {
            let started = r#"{"ts":"x","level":"info","event":"relay_started","details":{}}"#;
            let other = r#"{"level":"warn","event":"e","details":{"error":"words","x":1}}"#;
            answer_json(&mut socket, &format!(r#"{{"ok":true,"logs":[{started},{other}]}}"#));
        }
        _ => {}
    }
    let _ = socket.shutdown(Shutdown::Both);
}

/// Accepts, greets, pings, echoes text, and answers a ping and a close.
fn converse(socket: &mut TcpStream, head: &Head, rest: &[u8]) {
    let protocol = head.header("sec-websocket-protocol").map(|offered| {
        format!("Sec-WebSocket-Protocol: {}\r\n", offered.split(", ").next().unwrap())
    });
    let mut greeting = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{}\r\n",
        protocol.unwrap_or_default()
    )
    .into_bytes();
    greeting.extend(unmasked(OPCODE_TEXT, b"hello").encode());
    greeting.extend(unmasked(OPCODE_PING, b"").encode());
    socket.write_all(&greeting).unwrap();
    let mut decoder = FrameDecoder::default();
    decoder.push(rest);
    loop {
        while let Some(frame) = decoder.next() {
            assert!(frame.masked);
            let answer = match frame.opcode {
                OPCODE_PING => unmasked(OPCODE_PONG, &frame.payload),
                OPCODE_PONG => unmasked(OPCODE_TEXT, b"ponged"),
                opcode => unmasked(opcode, &frame.payload),
            };
            socket.write_all(&answer.encode()).unwrap();
            if frame.opcode == OPCODE_CLOSE {
                return;
            }
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk) {
            Ok(length) if length > 0 => decoder.push(&chunk[..length]),
            _ => return,
        }
    }
}

fn unmasked(opcode: u8, payload: &[u8]) -> Frame {
    Frame { fin: true, rsv: 0, opcode, masked: false, payload: payload.into() }
}

fn answer_json(socket: &mut TcpStream, body: &str) {
    let head = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Type: application/json\r\n";
    write!(socket, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
}

/// Asks the platform to validate, and gives back the body of its answer.
fn ask(platform: u16, body: &str) -> String {
    let socket = RawSocket::connect(platform, None).unwrap();
    validate(&socket, body)
}

fn validate(socket: &RawSocket, body: &str) -> String {
    let head = "POST /api/runtime/internal/relay/validate HTTP/1.1\r\nX-Relay-Internal-Key: k\r\n\
        Content-Type: application/json\r\nConnection: close\r\n";
    socket.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let answer = socket.received().wait(Deadline::after_ms(10_000), |received| {
        received.ended.then(|| Response::parse_all(&received.bytes, true))
    });
    let answer = answer.expect("the platform ends the connection");
    answer
        .first()
        .map(|response| String::from_utf8(response.body.bytes.clone()).unwrap())
        .unwrap_or_default()
}

#[test]
fn an_accepted_connection_carries_messages_pings_and_a_close() {
    let accepted = json!({
        "status": 101, "accept": true, "upgrade": "websocket", "connection": "upgrade",
        "protocol": "auth.{{token:t}}", "extensions": null,
    });
    let steps = json!([
        {"do": "ws.open", "conn": "c", "target": "/ws", "token": "t", "auth": "protocol",
         "early": ["early"], "expect": accepted},
        {"do": "ws.recv", "conn": "c", "count": 3, "expect": {"messages": [
            {"text": "hello"}, {"text": "early"}, {"text": "ponged"}]}},
        {"do": "ws.send", "conn": "c", "text": "{{port:A}} {{token:t}}", "times": 2},
        {"do": "ws.recv", "conn": "c", "count": 2, "expect": {"messages": [
            {"text": "{{port:A}} {{token:t}}"}, {"text": "{{port:A}} {{token:t}}"}]}},
        {"do": "ws.ping", "conn": "c", "payload": "p", "expect": {"pong": "p"}},
        {"do": "ws.pings", "conn": "c", "min": 1, "expect": {"atLeast": true}},
        {"do": "ws.quiet", "conns": ["c"], "ms": 1,
         "expect": {"c": {"messages": [], "open": true}}},
        {"do": "ws.close", "conn": "c", "code": 4000, "reason": "why",
         "expect": {"close": {"code": 4000, "reason": "why"}, "eof": true}},
        {"do": "ws.recv", "conn": "c", "count": 1,
         "expect": {"messages": [], "missing": 1, "closed": {"code": 4000, "reason": "why"}}},
    ]);
    rehearse(json!({"tokens": {"t": {"claims": {}}}}), steps);
}

#[test]
fn refusals_and_silence_are_observed_to_the_end() {
    let raw = "HTTP/1.1 401 Unauthorized\r\n\r\n";
    let silence = json!({"status": null, "raw": "", "eof": true});
    let steps = json!([
        {"do": "ws.open", "conn": "r", "target": "/refused",
         "expect": {"status": 401, "raw": raw, "eof": true}},
        {"do": "ws.open", "conn": "s", "target": "/silent", "nowait": true},
        {"do": "ws.opened", "conn": "s", "expect": silence},
        {"do": "tcp.open", "conn": "t"},
        {"do": "tcp.send", "conn": "t", "text": "GET /refused HTTP/1.1\r\n\r\n"},
        {"do": "tcp.recv", "conn": "t", "until": "close", "expect": {"bytes": raw, "eof": true}},
        {"do": "tcp.recv", "conn": "t", "ms": 0, "observe": "status",
         "expect": {"statuses": [401], "eof": true}},
    ]);
    rehearse(json!({}), steps);
}

#[test]
fn aborted_and_ended_connections_are_told_apart_from_open_ones() {
    let steps = json!([
        {"do": "ws.open", "conn": "c", "target": "/ws"},
        {"do": "ws.pause", "conn": "c"},
        {"do": "ws.resume", "conn": "c", "discard": true},
        {"do": "ws.send", "conn": "c", "hex": "8882000000000fa0"},
        {"do": "ws.closed", "conn": "c", "discard": true,
         "expect": {"close": {"code": 4000, "reason": ""}, "eof": true}},
        {"do": "ws.open", "conn": "a", "target": "/ws"},
        {"do": "ws.abort", "conn": "a", "how": "rst"},
        {"do": "ws.open", "conn": "b", "target": "/ws"},
        {"do": "ws.abort", "conn": "b", "how": "fin"},
    ]);
    rehearse(json!({}), steps);
}

#[test]
fn the_platform_logs_answers_and_obeys_its_rules() {
    let path = "/api/runtime/internal/relay/validate";
    let request = |token: &str| {
        json!({"requests": [{
            "method": "POST", "path": path, "body": format!("{{\"relayToken\":\"{token}\"}}"),
            "headers": {"content-type": "application/json", "x-relay-internal-key": "k"},
        }]})
    };
    let rule = json!({"path": path, "token": "odd", "response": {"text": "{{token:t}}"}});
    let get = |token: &str, body: Value| {
        json!({"do": "http", "target": "/validate", "expect": {"status": 200, "body": body,
            "headers": {"content-type": "application/json"}},
            "headers": {"authorization": format!("Bearer {token}")}})
    };
    let steps = json!([
        get("{{token:t}}", json!("{\"claims\":{\"role\":\"client\"},\"ok\":true}")),
        {"do": "platform.requests", "path": path, "count": 1, "expect": request("{{token:t}}")},
        get("{{token:odd}}", json!("{{token:t}}")),
        {"do": "platform.set", "responses": []},
        get("{{token:odd}}", json!("{\"ok\":false,\"reason\":\"INVALID_RELAY_TOKEN\"}")),
        {"do": "platform.requests", "path": path, "count": 1, "expect": request("{{token:odd}}")},
        {"do": "platform.bodyContains", "path": path, "index": -1, "text": "{{token:odd}}",
         "expect": {"contains": true}},
        {"do": "platform.requests", "path": path, "count": 0, "ms": 0, "headers": [],
         "expect": {"requests": [{"method": "POST", "path": path, "headers": {},
            "body": "{\"relayToken\":\"{{token:odd}}\"}"}]}},
    ]);
    let tokens = json!({"t": {"claims": {"role": "client"}}, "odd": {"literal": "literally"}});
    rehearse(json!({"tokens": tokens, "internalKey": "k", "responses": [rule]}), steps);
}

#[test]
fn answers_that_never_come_whole_end_as_their_rules_say() {
    let path = "/api/runtime/internal/relay/validate";
    let ask_with = |response: Value| {
        let platform = json!({"responses": [{"path": path, "response": response}]});
        let (setup, scenario) = (setup(), scenario(platform, json!([])));
        let world = World::prepare(&setup, &scenario).unwrap();
        ask(world.expand("{{platform.port}}").unwrap().parse().unwrap(), "{}")
    };
    assert_eq!(ask_with(json!({"cutBody": true})), "{\"ok\":true");
    assert_eq!(ask_with(json!({"drop": true})), "");
    assert_eq!(ask_with(json!({"dripMs": 1, "text": "drip"})), "drip");
    assert_eq!(ask_with(json!({"delayMs": 1, "status": 500, "text": "late"})), "late");
}

#[test]
fn metrics_and_logs_are_read_in_their_forms() {
    let logs = json!([
        {"keys": ["ts", "level", "event", "details"], "level": "info", "event": "relay_started"},
        {"keys": ["level", "event", "details"], "level": "warn", "event": "e",
         "details": {"error": "{{text}}", "x": 1}},
    ]);
    let steps = json!([
        {"do": "metrics", "expect": {"a_total": 2}},
        {"do": "http", "target": "/logs", "parse": "logs", "expect": {"status": 200,
         "headers": {"content-type": "application/json"}, "logs": logs}},
        {"do": "http", "target": "/logs", "contains": "relay_started",
         "expect": {"status": 200, "contains": true}},
        {"do": "http", "target": "/silent", "expect": {"error": "ECONNRESET"}},
    ]);
    rehearse(json!({}), steps);
}

#[test]
fn a_platform_with_tls_tells_whether_a_client_certificate_came() {
    let (setup, scenario) = (setup(), scenario(json!({"tls": "server"}), json!([])));
    let world = World::prepare(&setup, &scenario).unwrap();
    let port = world.expand("{{platform.port}}").unwrap().parse().unwrap();
    let config = setup.certificates.client_config().unwrap();
    let socket = RawSocket::connect(port, Some(config)).unwrap();
    let refused = json!({"ok": false, "reason": "INVALID_RELAY_TOKEN"}).to_string();
    assert_eq!(validate(&socket, "{}"), refused);
    let path = "/api/runtime/internal/relay/validate";
    let requests = world.platform.take_requests(path, 1, Deadline::after_ms(10_000));
    assert_eq!(requests[0].head.header("client-certificate"), Some("none"));
}

#[test]
fn a_platform_that_demands_a_certificate_serves_nobody_without_one() {
    let (setup, scenario) = (setup(), scenario(json!({"tls": "client-certificate"}), json!([])));
    let world = World::prepare(&setup, &scenario).unwrap();
    let port = world.expand("{{platform.port}}").unwrap().parse().unwrap();
    let config = setup.certificates.client_config().unwrap();
    let socket = RawSocket::connect(port, Some(config)).unwrap();
    assert_eq!(validate(&socket, "{}"), "");
    let requests = world.platform.take_all_requests("/api/runtime/internal/relay/validate");
    assert!(requests.is_empty());
}

#[test]
fn a_port_nobody_listens_on_refuses() {
    let port = crate::port::free().unwrap();
    let error = Transport::connect(port, None).err().unwrap();
    assert_eq!(crate::transport::error_name(&error), "ECONNREFUSED");
}

#[test]
fn a_program_that_ends_is_reported_with_its_code_and_words() {
    // The stand-in program is `cat`, for which `serve` is a file that is not there.
    let steps = json!([
        {"do": "relay.run", "contains": ["serve", "no such words"],
         "expect": {"exit": 1, "contains": {"serve": true, "no such words": false}}},
        {"do": "relay.exited", "expect": {"exit": 1}},
        {"do": "relay.alive", "ms": 0, "expect": {"alive": false}},
    ]);
    let (setup, scenario) = (setup(), scenario(json!({}), steps));
    let mut world = World::prepare(&setup, &scenario).unwrap();
    assert_eq!(trial::run_in(&mut world, &scenario), Ok(()));
    assert_eq!(world.relays[0].variable("EXTRA"), Some("1"));
    let path = world.relays[0].variable("SERVER_URL").unwrap().to_owned();
    assert_eq!(world.expand("{{platform}}").unwrap(), path);
}
