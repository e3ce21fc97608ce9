//! What an operator reads.

use std::time::Duration;

use relay_contract::{
    ConnectionId, Counter, Counters, Event, Level, LogEntry, ScopeReport, ScopeTraffic,
    ShardReport, Tick,
};
use relay_controller::{AdminAccess, Settings};
use relay_link::COMMANDS_PER_SHARD;
use serde_json::Value;

use crate::relay::{ADMIN, Relay, Shard, settings};

const NOWHERE: &str = "http://127.0.0.1:9";

fn scope(workspace: &str, target: Option<&str>, clients: &[&str]) -> ScopeReport {
    ScopeReport {
        workspace_id: workspace.into(),
        target_id: target.map(Into::into),
        daemon_connected: true,
        client_ids: clients.iter().map(|id| (*id).into()).collect(),
        last_activity: Tick::from_millis(1000),
    }
}

fn report(scopes: Vec<ScopeReport>) -> ShardReport {
    ShardReport {
        scope_count: scopes.len() as u64,
        connection_count: 2,
        scopes,
        now: Tick::from_millis(3500),
        ..ShardReport::default()
    }
}

/// Answers the question both shards get, `b` first.
async fn answer(a: &mut Shard, b: &mut Shard, of_a: ShardReport, of_b: ShardReport) -> String {
    b.report(of_b).await;
    a.report(of_a).await;
    let (status, _, body) = a.response().await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn state_lists_the_scopes_of_all_shards_in_their_order() {
    let (_relay, [mut a, mut b]) = Relay::start(settings(NOWHERE));
    a.ask("/state");
    let of_a = report(vec![scope("ws1", Some("rt1"), &["cl1"])]);
    let of_b = report(vec![scope("ws2", None, &[])]);
    let body = answer(&mut a, &mut b, of_a, of_b).await;
    assert_eq!(
        body,
        concat!(
            r#"{"ok":true,"service":"relay","relayMode":"dev","serverUrl":"http://127.0.0.1:9","#,
            r#""tlsEnabled":false,"tlsHost":"relay.getviewport.com","#,
            r#""wsBaseUrl":"ws://127.0.0.1:7781/ws","relayId":"relay-a","#,
            r#""backplaneMode":"single","busEnabled":false,"clientRedirectEnabled":false,"#,
            r#""workspaces":[{"workspaceId":"ws1","runtimeTargetId":"rt1","daemonConnected":true,"#,
            r#""clientCount":1,"clientIds":["cl1"],"lastActivityAt":"2026-01-31T09:59:57.500Z"},"#,
            r#"{"workspaceId":"ws2","daemonConnected":true,"clientCount":0,"clientIds":[],"#,
            r#""lastActivityAt":"2026-01-31T09:59:57.500Z"}]}"#
        )
    );
}

#[tokio::test]
async fn a_quiet_state_shows_neither_addresses_nor_names() {
    let (_relay, mut shard) = Relay::one(Settings {
        health_verbose: false,
        state_includes_client_ids: false,
        ..settings(NOWHERE)
    });
    shard.ask("/state");
    shard.report(report(vec![scope("ws1", Some("rt1"), &["cl1"])])).await;
    let (_, _, body) = shard.response().await;
    assert_eq!(
        body,
        concat!(
            r#"{"ok":true,"service":"relay","relayMode":"dev","relayId":"relay-a","#,
            r#""backplaneMode":"single","busEnabled":false,"clientRedirectEnabled":false,"#,
            r#""workspaces":[{"workspaceId":"ws1","daemonConnected":true,"clientCount":1,"#,
            r#""lastActivityAt":"2026-01-31T09:59:57.500Z"}]}"#
        )
    );
}

#[tokio::test]
async fn metrics_add_up_the_shards_and_the_control_plane() {
    let (_relay, [mut a, mut b]) = Relay::start(settings(NOWHERE));
    a.ask_as("/metrics", Some("Bearer wrong"));
    let (status, content_type, body) = a.response().await;
    assert_eq!((status, content_type), (401, "application/json"));
    assert_eq!(body, r#"{"ok":false,"reason":"ADMIN_UNAUTHORIZED"}"#);

    let counted = |n| {
        let mut counters = Counters::default();
        counters.add(Counter::WsConnectionsOpened, n);
        ShardReport { counters, ..report(vec![]) }
    };
    a.ask("/metrics");
    let body = answer(&mut a, &mut b, counted(2), counted(3)).await;
    for line in [
        "relay_ws_connections_opened_total 5",
        "relay_admin_unauthorized_total 1",
        "relay_connections_total 4",
        "relay_admission_denied_total 0",
    ] {
        assert!(body.contains(&format!("\n{line}\n")), "{line}");
    }
    assert!(body.contains(r#"relay_info{version="0.1.0",driver="test",shards="2""#));
}

#[tokio::test]
async fn prometheus_is_given_protobuf_where_it_prefers_that() {
    let (_relay, mut shard) = Relay::one(settings(NOWHERE));
    let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                    encoding=delimited";
    let accept = format!("{protobuf};q=0.9,text/plain;q=0.5");
    let authorization = format!("Bearer {ADMIN}");
    shard.ask_accepting("/metrics", Some(&authorization), Some(&accept));
    shard.report(report(vec![])).await;
    let (status, content_type, body) = shard.response().await;
    assert_eq!((status, content_type), (200, protobuf));
    assert!(body.contains("relay_hop_latency_seconds") && !body.contains("# TYPE"));
}

#[tokio::test]
async fn answers_a_shard_does_not_take_are_counted() {
    // What its lane and the backlog behind it hold.
    const TAKEN: usize = COMMANDS_PER_SHARD + 4096;
    const LOST: usize = 10;
    let (_relay, mut shard) = Relay::one(settings(NOWHERE));
    for asked in 0..TAKEN + LOST {
        shard.ask_as("/nowhere", None);
        if asked % 64 == 0 {
            shard.heard().await;
        }
    }
    shard.heard().await;
    for _ in 0..TAKEN {
        assert_eq!(shard.response().await.0, 404);
    }
    shard.ask("/metrics");
    shard.report(report(vec![])).await;
    let (_, _, body) = shard.response().await;
    let line = format!("\nrelay_commands_undelivered_total {LOST}\n");
    assert!(body.contains(&line), "{body}");
}

#[tokio::test]
async fn questions_beyond_those_that_wait_are_answered_503_and_counted() {
    const WAITING: usize = 64;
    let (_relay, mut shard) = Relay::one(settings(NOWHERE));
    for _ in 0..WAITING + 1 {
        shard.ask("/node");
    }
    let mut asked = Vec::new();
    for _ in 0..WAITING {
        asked.push(shard.asked_for_report().await.0);
    }
    assert_eq!(shard.response().await.0, 503);
    for query in asked {
        let report = Box::new(ShardReport { shard: shard.id(), ..report(vec![]) });
        shard.tell(Event::Reported { query, report });
        assert_eq!(shard.response().await.0, 200);
    }
    shard.ask("/metrics");
    shard.report(report(vec![])).await;
    let (_, _, body) = shard.response().await;
    assert!(body.contains("\nrelay_admin_questions_refused_total 1\n"), "{body}");
}

#[tokio::test]
async fn histograms_are_a_log_that_hdr_tools_read() {
    let (_relay, [mut a, mut b]) = Relay::start(settings(NOWHERE));
    a.ask("/histograms");
    let body = answer(&mut a, &mut b, report(vec![]), report(vec![])).await;
    assert!(body.starts_with("#[Histogram log format version 1.3]\n"), "{body}");
    for tag in ["relay_hop_latency_seconds/shard=0", "relay_turn_completions/shard=1"] {
        assert!(body.contains(&format!("\nTag={tag},0.000,")), "{tag}");
    }
}

#[tokio::test]
async fn a_silent_shard_does_not_keep_the_operator_waiting() {
    let (relay, [mut a, mut b]) = Relay::start(settings(NOWHERE));
    a.ask("/metrics");
    a.report(report(vec![])).await;
    b.asked_for_report().await;
    relay.clock.advance(Duration::from_secs(2));
    let (status, _, body) = a.response().await;
    assert_eq!((status, &*body), (503, r#"{"ok":false,"reason":"UNAVAILABLE"}"#));
}

fn logs(body: &str) -> Vec<Value> {
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["ok"], true);
    body["logs"].as_array().unwrap().clone()
}

#[tokio::test]
async fn logs_show_what_shards_and_control_plane_said() {
    let (relay, mut shard) = Relay::one(settings(NOWHERE));
    relay.clock.advance(Duration::from_secs(10));
    let entry = LogEntry::new(Level::Info, "client_connected")
        .with("workspaceId", "ws1")
        .about(ConnectionId::default());
    shard.tell(Event::Logged { at: Tick::from_millis(9_500), entry: Box::new(entry) });
    shard.ask("/logs");
    let (status, content_type, body) = shard.response().await;
    assert_eq!((status, content_type), (200, "application/json"));
    let [started, connected] = &logs(&body)[..] else {
        panic!("{body}");
    };
    assert_eq!(started["event"], "relay_started");
    assert_eq!(started["details"]["maxFrameBytes"], "[redacted]");
    assert_eq!(started["details"]["tlsCertPath"], Value::Null);
    assert_eq!(started["details"].as_object().unwrap().len(), 21);
    assert_eq!(
        connected.to_string(),
        serde_json::json!({
            "ts": "2026-01-31T10:00:09.500Z", "level": "info", "event": "client_connected",
            "details": {"workspaceId": "ws1"},
        })
        .to_string()
    );

    shard.ask("/logs?all=1&summary=1");
    let (_, _, body) = shard.response().await;
    let events: Vec<_> = logs(&body)
        .iter()
        .map(|entry| {
            assert!(entry.get("details").is_none());
            entry["event"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(events, ["relay_started", "node_started", "client_connected"]);
}

#[tokio::test]
async fn a_quiet_relay_logs_no_details_to_readers() {
    let (_relay, mut shard) = Relay::one(Settings { health_verbose: false, ..settings(NOWHERE) });
    shard.ask("/logs");
    let (_, _, body) = shard.response().await;
    assert!(!body.contains("details"));
}

#[tokio::test]
async fn without_admin_its_paths_are_like_any_other() {
    let (_relay, mut shard) = Relay::one(Settings {
        admin: AdminAccess { enabled: false, ..settings(NOWHERE).admin },
        ..settings(NOWHERE)
    });
    for path in ["/state", "/logs", "/metrics", "/histograms", "/node"] {
        shard.ask(path);
        let (status, content_type, body) = shard.response().await;
        assert_eq!((status, content_type), (404, "application/json"), "{path}");
        assert_eq!(body, r#"{"ok":false,"reason":"NOT_FOUND"}"#);
    }
}

#[tokio::test]
async fn node_tells_our_own_facts() {
    let (_relay, mut shard) = Relay::one(settings(NOWHERE));
    shard.ask("/node");
    let memory = ShardReport { memory_bytes_max: 900, memory_used_bytes: 7, ..report(vec![]) };
    shard.report(memory).await;
    let (_, _, body) = shard.response().await;
    assert_eq!(
        body,
        concat!(
            r#"{"ok":true,"service":"relay","version":"0.1.0","relayId":"relay-a","#,
            r#""driver":"test","admission":"validate","pendingAdmissions":0,"#,
            r#""admittedConnections":0,"memoryBudgetBytes":1073741824,"#,
            r#""shards":[{"shard":0,"connections":2,"scopes":0,"#,
            r#""memoryBudgetBytes":900,"memoryUsedBytes":7}]}"#
        )
    );
}

#[tokio::test]
async fn the_hottest_scopes_of_all_shards_are_in_one_order() {
    let (_relay, [mut a, mut b]) = Relay::start(settings(NOWHERE));
    let hot = |workspace: &str, frames_per_s| ScopeTraffic {
        workspace_id: workspace.into(),
        target_id: Some("rt1".into()),
        frames_per_s,
        bytes_per_s: 10.0,
    };
    a.ask("/node?hot=1");
    let (one, two) = (vec![hot("ws1", 1.0)], vec![hot("ws2", 2.5), hot("ws3", 0.5)]);
    let with = |hottest| ShardReport { hottest, ..report(vec![]) };
    let body = answer(&mut a, &mut b, with(one), with(two)).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let names: Vec<_> = body["hottest"].as_array().unwrap().iter().collect();
    assert_eq!(
        names.iter().map(|scope| &scope["workspaceId"]).collect::<Vec<_>>(),
        ["ws2", "ws1", "ws3"]
    );
    assert_eq!(names[0]["framesPerSecond"], 2.5);
}

#[tokio::test]
async fn readiness_needs_no_token() {
    let (_relay, mut shard) = Relay::one(settings(NOWHERE));
    shard.ask_as("/ready", None);
    let (status, _, body) = shard.response().await;
    assert_eq!((status, &*body), (200, r#"{"ok":true}"#));
}
