//! Worker calls.

use std::time::Duration;

use relay_contract::{AdmissionId, Command, Event, ShardReport, WorkerRequest, WorkerResponse};
use relay_controller::{Caps, Settings};

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, settings};

const JOBS: &str = "/api/runtime/workspaces/ws1/managed-executors/ex1/jobs";
const FAILED: &str = r#"{"ok":false,"reason":"WORKER_TRANSPORT_FORWARD_FAILED"}"#;

fn get() -> WorkerRequest {
    WorkerRequest {
        request_id: "w-1".into(),
        method: "GET".into(),
        path: JOBS.into(),
        headers: Vec::new(),
        body: None,
    }
}

/// A relay with these bounds, and its shard.
fn capped(platform: &Platform, caps: Caps) -> (Relay, Shard) {
    Relay::one(Settings { caps, ..settings(&platform.url()) })
}

pub(crate) async fn call(shard: &mut Shard, request: WorkerRequest) -> WorkerResponse {
    ask(shard, request);
    reply(shard).await
}

fn ask(shard: &mut Shard, request: WorkerRequest) {
    ask_as(shard, AdmissionId(1), request);
}

fn ask_as(shard: &mut Shard, admission: AdmissionId, request: WorkerRequest) {
    let connection = shard.connection();
    shard.tell(Event::WorkerAsked { connection, admission, request: Box::new(request) });
}

/// How many calls were refused because of those in flight.
async fn limited(shard: &mut Shard) -> u64 {
    shard.ask("/metrics");
    shard.report(ShardReport::default()).await;
    let (_, _, body) = shard.response().await;
    let line = body.lines().find_map(|line| line.strip_prefix("relay_worker_calls_limited_total "));
    line.and_then(|count| count.parse().ok()).expect("it is counted")
}

async fn reply(shard: &mut Shard) -> WorkerResponse {
    match shard.command().await {
        Command::WorkerReply { response, .. } => *response,
        other => panic!("no reply: {other:?}"),
    }
}

#[tokio::test]
async fn a_call_arrives_as_it_was_and_its_answer_comes_back() {
    let platform = Platform::start(None).await;
    let answer = concat!(
        "HTTP/1.1 201 Created\r\nx-custom: v\r\nset-cookie: a=b\r\n",
        "connection: keep-alive\r\ncontent-length: 2\r\n\r\nok"
    );
    platform.on(JOBS, Behaviour::Raw(answer.into()));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let request = WorkerRequest {
        method: "POST".into(),
        path: format!("{JOBS}?a=1&b=%20"),
        headers: vec![("x-viewport-run-lease".into(), "lease".into())],
        body: Some("{}".into()),
        ..get()
    };
    let response = call(&mut shard, request).await;
    assert_eq!((response.status, response.forwarded), (201, true));
    assert_eq!((&*response.request_id, &*response.body), ("w-1", "ok"));
    let names: Vec<_> = response.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["connection", "content-length", "x-custom"]);
    let asked = &platform.requests()[0];
    assert_eq!(asked.path(), format!("{JOBS}?a=1&b=%20"));
    assert_eq!(asked.header("x-viewport-run-lease"), Some("lease"));
    assert_eq!(asked.header("x-relay-internal-key"), None);
    assert_eq!(asked.body, "{}");
}

#[tokio::test]
async fn a_get_has_no_body() {
    let platform = Platform::start(None).await;
    platform.on(JOBS, Behaviour::Answer(200, "[]".into()));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let request = WorkerRequest { body: Some("zzz".into()), ..get() };
    call(&mut shard, request).await;
    assert_eq!(platform.requests()[0].body, "");
}

#[tokio::test]
async fn an_empty_body_is_announced() {
    let platform = Platform::start(None).await;
    platform.on(JOBS, Behaviour::Answer(200, "[]".into()));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let request = WorkerRequest { method: "POST".into(), body: Some(String::new()), ..get() };
    call(&mut shard, request).await;
    call(&mut shard, get()).await;
    let lengths: Vec<_> = platform
        .requests()
        .iter()
        .map(|request| request.header("content-length").map(str::to_owned))
        .collect();
    assert_eq!(lengths, [Some("0".to_owned()), None]);
}

#[tokio::test]
async fn a_call_that_fails_is_answered_502() {
    let platform = Platform::start(None).await;
    let long = "x".repeat(200);
    for behaviour in
        [Behaviour::Drop, Behaviour::Cut, Behaviour::Stall, Behaviour::Answer(200, long)]
    {
        platform.on(JOBS, behaviour.clone());
        let (_relay, mut shard) = capped(
            &platform,
            Caps {
                worker_timeout: Duration::from_millis(300),
                worker_response_bytes_max: 150,
                ..Caps::default()
            },
        );
        let response = call(&mut shard, get()).await;
        assert_eq!((response.status, response.forwarded), (502, false), "{behaviour:?}");
        assert_eq!(response.body, FAILED);
        let headers: Vec<_> = response.headers.into_iter().collect();
        assert_eq!(headers, [("content-type".into(), "application/json".into())]);
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let platform = Platform::start(None).await;
    let answer = "HTTP/1.1 302 Found\r\nlocation: /secret\r\ncontent-length: 0\r\n\r\n";
    platform.on(JOBS, Behaviour::Raw(answer.into()));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    assert_eq!(call(&mut shard, get()).await.status, 302);
    assert_eq!(platform.requests().len(), 1);
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_fails_the_call_alone() {
    let platform = Platform::start(None).await;
    platform.on(JOBS, Behaviour::Answer(200, "[]".into()));
    let (_relay, mut shard) = Relay::one(settings(&platform.url()));
    let bad = WorkerRequest { headers: vec![("accept".into(), "a\nb".into())], ..get() };
    assert_eq!(call(&mut shard, bad).await.body, FAILED);
    assert_eq!(call(&mut shard, get()).await.status, 200);
    assert_eq!(platform.requests().len(), 1);
}

#[tokio::test]
async fn calls_beyond_those_in_flight_are_answered_503() {
    let platform = Platform::start(None).await;
    platform.on(JOBS, Behaviour::Hang);
    let (_relay, mut shard) = capped(&platform, Caps { worker_calls_max: 1, ..Caps::default() });
    ask(&mut shard, get());
    let response = call(&mut shard, get()).await;
    assert_eq!((response.status, response.forwarded), (503, false));
}

#[tokio::test]
async fn calls_beyond_the_bytes_in_flight_are_answered_503() {
    let platform = Platform::start(None).await;
    platform.on(JOBS, Behaviour::Hang);
    let (_relay, mut shard) =
        capped(&platform, Caps { worker_calls_bytes_max: 2000, ..Caps::default() });
    let post =
        |bytes| WorkerRequest { method: "POST".into(), body: Some("x".repeat(bytes)), ..get() };
    ask(&mut shard, post(1500));
    let response = call(&mut shard, post(500)).await;
    assert_eq!((response.status, response.forwarded), (503, false));
    assert_eq!(limited(&mut shard).await, 1);
    platform.on(JOBS, Behaviour::Answer(200, "[]".into()));
    assert_eq!(call(&mut shard, post(10)).await.status, 200, "there is room for a small one");
}

#[tokio::test]
async fn an_answer_beyond_the_bytes_in_flight_is_answered_502() {
    let platform = Platform::start(None).await;
    platform.on(JOBS, Behaviour::Hang);
    let long = format!("{JOBS}/long");
    platform.on(&long, Behaviour::Answer(200, "x".repeat(1000)));
    let (_relay, mut shard) =
        capped(&platform, Caps { worker_calls_bytes_max: 2000, ..Caps::default() });
    let hanging = WorkerRequest { method: "POST".into(), body: Some("x".repeat(1000)), ..get() };
    ask_as(&mut shard, AdmissionId(2), hanging);
    let ours = WorkerRequest { path: long, ..get() };
    let response = call(&mut shard, ours.clone()).await;
    assert_eq!((response.status, &*response.body), (502, FAILED));
    assert_eq!(limited(&mut shard).await, 1);
    shard.tell(Event::Released { admission: AdmissionId(2) });
    assert_eq!(call(&mut shard, ours).await.status, 200, "it has room alone");
}

#[tokio::test]
async fn the_calls_of_a_worker_that_left_make_room_at_once_and_are_not_answered() {
    let platform = Platform::start(None).await;
    platform.on(JOBS, Behaviour::Hang);
    let answered = format!("{JOBS}/answered");
    platform.on(&answered, Behaviour::Answer(200, "[]".into()));
    let (_relay, mut shard) = capped(&platform, Caps { worker_calls_max: 2, ..Caps::default() });
    ask_as(&mut shard, AdmissionId(1), get());
    ask_as(&mut shard, AdmissionId(2), get());
    assert_eq!(call(&mut shard, get()).await.status, 503, "full");
    shard.tell(Event::Released { admission: AdmissionId(1) });
    let ours = WorkerRequest { request_id: "w-2".into(), path: answered, ..get() };
    ask_as(&mut shard, AdmissionId(2), ours);
    let response = reply(&mut shard).await;
    assert_eq!((&*response.request_id, response.status), ("w-2", 200));
}
