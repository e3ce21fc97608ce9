use super::*;

fn worker_of(members: &str) -> Option<WorkerRequest> {
    let text = format!(r#"{{"type":"viewport.worker_transport.request/v1"{members}}}"#);
    match parse(ColdKind::Worker, text.as_bytes()) {
        Ok(ColdFrame::Worker(request)) => Some(request),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

const CALL: &str = r#","requestId":"w","method":"POST","path":"/api/runtime/workspaces/x?a=1""#;

#[test]
fn a_worker_call_is_read_whole() {
    let request = worker_of(&format!(
        r#"{CALL},"headers":{{"X-Viewport-Run-Lease":"a\n",
            "cookie":"c","Accept":5,"accept":"1","ACCEPT":"2"}},"body":"b\ud800""#
    ))
    .unwrap();
    assert_eq!(request.request_id, "w");
    assert_eq!(&*request.method, "POST");
    assert_eq!(request.path, "/api/runtime/workspaces/x?a=1");
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| (&**name, value.as_str())).collect();
    assert_eq!(headers, [("x-viewport-run-lease", "a\n"), ("accept", "2")]);
    assert_eq!(request.body.as_deref(), Some("b\u{fffd}"));
}

/// Whoever holds calls counts their bytes.
#[test]
fn no_text_of_a_call_has_room_to_spare() {
    let escaped = r"\u0041\n".repeat(1000);
    let request = worker_of(&format!(
        r#","requestId":"{escaped}\ud800","method":"POST","headers":{{"accept":"{escaped}"}},
            "path":"/api/runtime/workspaces/{escaped}","body":"{escaped}""#
    ))
    .unwrap();
    let WorkerRequest { request_id, path, headers, body, .. } = request;
    for text in [request_id, path, headers.into_iter().next().unwrap().1, body.unwrap()] {
        assert!(text.len() >= 2000);
        assert_eq!(text.capacity(), text.len());
    }
}

#[test]
fn only_a_get_has_no_body() {
    assert_eq!(worker_of(CALL).unwrap().body.as_deref(), Some(""));
    let get = format!(r#"{},"body":"zzz""#, CALL.replace("POST", "GET"));
    assert_eq!(worker_of(&get).unwrap().body, None);
    let bad = format!(r#"{},"body":5"#, CALL.replace("POST", "GET"));
    assert!(worker_of(&bad).is_none());
}

#[test]
fn malformed_worker_calls_are_refused() {
    for change in [
        r#","requestId":" ""#,
        r#","requestId":5"#,
        r#","method":"get""#,
        r#","method":"PUT""#,
        r#","path":"/api/runtime/""#,
        r#","path":"x/api/runtime/workspaces/""#,
        r#","path":null"#,
        r#","headers":[]"#,
        r#","headers":null"#,
        r#","headers":"x""#,
        r#","body":null"#,
    ] {
        assert!(worker_of(&format!("{CALL}{change}")).is_none(), "{change}");
    }
    assert!(worker_of("").is_none());
    assert!(worker_of(&format!(r#"{CALL},"path":5,"path":"/api/runtime/workspaces/""#)).is_some());
}

fn valid(kind: ColdKind, text: &str) -> bool {
    parse(kind, text.as_bytes()).is_ok()
}

#[test]
fn a_subscription_tells_channel_and_sequence() {
    for (members, expected) in [
        ("", Some(0.0)),
        (r#","afterSequence":7"#, Some(7.0)),
        (r#","afterSequence":1e3"#, Some(1000.0)),
        (r#","afterSequence":-0"#, Some(0.0)),
        (r#","afterSequence":-1"#, None),
        (r#","afterSequence":1.5"#, None),
        (r#","afterSequence":"1""#, None),
        (r#","afterSequence":null"#, None),
        (r#","afterSequence":1e400"#, None),
    ] {
        let text = format!("{{\"channel\":\"agent-session:s1 \u{feff}\"{members}}}");
        match (parse(ColdKind::Subscribe, text.as_bytes()), expected) {
            (Ok(ColdFrame::Subscribe { channel, after_sequence }), Some(expected)) => {
                assert_eq!(&*channel, b"agent-session:s1");
                assert_eq!(after_sequence, expected, "{members}");
            }
            (Err(Invalid::Member), None) => {}
            (other, _) => panic!("{members}: {other:?}"),
        }
    }
}

#[test]
fn a_channel_starts_with_its_prefix_before_it_is_trimmed() {
    for (channel, fits) in [
        (r#""agent-session:a""#, true),
        (r#""agent-session:""#, true),
        (r#""agent\u002dsession:a""#, true),
        (r#"" agent-session:a""#, false),
        (r#""session:a""#, false),
        ("5", false),
        ("null", false),
    ] {
        for kind in [ColdKind::Subscribe, ColdKind::Unsubscribe, ColdKind::SessionEvent] {
            let text = format!(r#"{{"channel":{channel},"event":null}}"#);
            assert_eq!(valid(kind, &text), fits, "{kind:?} {channel}");
        }
    }
    assert!(!valid(ColdKind::Unsubscribe, "{}"));
}

#[test]
fn presence_names_action_and_viewer_within_limits() {
    let long = "u".repeat(129);
    let faces = "😀".repeat(65);
    let name = "d".repeat(256);
    for (members, fits) in [
        (r#""action":"joined","userId":"u1""#.to_owned(), true),
        (r#""action":"left","userId":"u1","displayName":"A","sentAt":"now""#.to_owned(), true),
        (r#""action":"heartbeat","userId":"u1""#.to_owned(), true),
        (format!(r#""action":"joined","userId":"{}""#, &long[1..]), true),
        (format!(r#""action":"joined","userId":"u","displayName":"{}""#, &name[1..]), true),
        (r#""action":"away","userId":"u1""#.to_owned(), false),
        (r#""action":"joined","userId":"""#.to_owned(), false),
        (r#""action":"joined""#.to_owned(), false),
        (r#""userId":"u1""#.to_owned(), false),
        (format!(r#""action":"joined","userId":"{long}""#), false),
        (format!(r#""action":"joined","userId":"{faces}""#), false),
        (format!(r#""action":"joined","userId":"u","displayName":"{name}""#), false),
        (r#""action":"joined","userId":"u","displayName":null"#.to_owned(), false),
        (r#""action":"joined","userId":"u","sentAt":5"#.to_owned(), false),
    ] {
        let text = format!(r#"{{"channel":"agent-session:s",{members}}}"#);
        assert_eq!(valid(ColdKind::Presence, &text), fits, "{members}");
    }
}

#[test]
fn an_event_is_an_object_or_null() {
    for (event, fits) in [
        (r#"{"id":1}"#, true),
        ("{}", true),
        ("null", true),
        ("[]", false),
        ("5", false),
        (r#""x""#, false),
        ("true", false),
    ] {
        let text = format!(r#"{{"channel":"agent-session:s","event":{event}}}"#);
        assert_eq!(valid(ColdKind::SessionEvent, &text), fits, "{event}");
    }
    assert!(!valid(ColdKind::SessionEvent, r#"{"channel":"agent-session:s"}"#));
}

#[test]
fn a_channel_may_hold_a_lone_surrogate() {
    let frame = parse(ColdKind::Unsubscribe, br#"{"channel":"agent-session:\ud800"}"#).unwrap();
    let ColdFrame::Unsubscribe { channel } = frame else { panic!("{frame:?}") };
    assert_eq!(&*channel, b"agent-session:\xed\xa0\x80");
}

#[test]
fn a_renewal_shows_a_token_as_an_upgrade_does() {
    let shown = |text: &str| match parse(ColdKind::Renewal, text.as_bytes()) {
        Ok(ColdFrame::Renewal { token }) => Some(token.expose().to_owned()),
        other => {
            assert!(other.is_err(), "{other:?}");
            None
        }
    };
    let frame = |token: &str| format!(r#"{{"type":"relay.renew_token/v1","token":"{token}"}}"#);
    assert_eq!(shown(&frame("0123456789")).as_deref(), Some("0123456789"));
    assert_eq!(shown(&frame(r"01234\u0035678\u0039")).as_deref(), Some("0123456789"), "escapes");
    let longest = "x".repeat(4096);
    assert_eq!(shown(&frame(&longest)), Some(longest.clone()));
    assert_eq!(shown(&frame("012345678")), None, "too short");
    assert_eq!(shown(&frame(&(longest + "x"))), None, "too long");
    assert_eq!(shown(r#"{"type":"relay.renew_token/v1"}"#), None);
    assert_eq!(shown(r#"{"token":7}"#), None);
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text: Vec<u8>) {
        for kind in [
            ColdKind::Worker, ColdKind::Subscribe, ColdKind::Unsubscribe, ColdKind::Presence,
            ColdKind::SessionEvent, ColdKind::Renewal,
        ] {
            let _ = parse(kind, &text);
        }
    }
}
