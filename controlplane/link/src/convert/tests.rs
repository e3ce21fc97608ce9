//! Everything that can be said arrives as it was said, and nothing that comes is a panic.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use relay_contract::*;

use super::*;

const FRAME: Frame =
    Frame { first: 8, count: 4, now: Tick(10_000_000_000), unix_ms: 1_700_000_000 };

fn text() -> impl Strategy<Value = String> {
    "[a-z\u{e9}\u{1f600}]{1,12}"
}

fn boxed() -> impl Strategy<Value = Box<str>> {
    text().prop_map(Into::into)
}

fn shard() -> impl Strategy<Value = ShardId> {
    (FRAME.first..FRAME.first + FRAME.count).prop_map(ShardId)
}

fn connection() -> impl Strategy<Value = ConnectionId> {
    (shard(), any::<u32>(), any::<u32>()).prop_map(|(shard, slot, generation)| ConnectionId {
        shard,
        slot,
        generation,
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Daemon), Just(Role::Client), Just(Role::Worker)]
}

fn upgrade() -> impl Strategy<Value = UpgradeRequest> {
    (role(), text(), option::of(text())).prop_map(|(role, workspace, target)| UpgradeRequest {
        role,
        workspace_id: workspace.into(),
        target_id: target.map(Into::into),
    })
}

fn preflight() -> impl Strategy<Value = Preflight> {
    prop_oneof![
        Just(Preflight::UnparsableUrl),
        Just(Preflight::OtherPath),
        option::of(boxed()).prop_map(|origin| Preflight::ForeignOrigin { origin }),
        Just(Preflight::InvalidQuery),
        Just(Preflight::MissingToken),
        (upgrade(), text())
            .prop_map(|(request, token)| Preflight::Ask { request, token: Secret::new(token) }),
    ]
}

fn claims() -> impl Strategy<Value = Claims> {
    let names = (
        option::of(boxed()),
        option::of(boxed()),
        option::of(boxed()),
        option::of(boxed()),
        option::of(boxed()),
        option::of(boxed()),
    );
    let scope = prop_oneof![
        Just(None),
        Just(Some(Scope::Runtime)),
        Just(Some(Scope::Pairing)),
        Just(Some(Scope::SessionEvents))
    ];
    let profile =
        prop_oneof![Just(None), Just(Some(Profile::NoiseIk)), Just(Some(Profile::NoiseIkpsk2))];
    let channels = option::of(vec(boxed(), 0..3));
    let numbers = (option::of(any::<u64>()), option::of(any::<i64>()));
    (names, scope, profile, channels, numbers).prop_map(
        |(names, scope, e2ee_profile, channels, numbers)| Claims {
            client_id: names.0,
            workspace_id: names.1,
            runtime_target_id: names.2,
            machine_id: names.3,
            managed_executor_id: names.4,
            token_id: names.5,
            scope,
            session_channels: channels.map(Into::into),
            e2ee_profile,
            daemon_issue_generation: numbers.0,
            expires_at_secs: numbers.1,
        },
    )
}

fn credential() -> impl Strategy<Value = Credential> {
    let names =
        (option::of(boxed()), option::of(boxed()), option::of(boxed()), option::of(boxed()));
    let numbers = (option::of(any::<i64>()), option::of(any::<[u8; 16]>()));
    (names, numbers).prop_map(|(names, (expires_at_secs, key_print))| Credential {
        issuer: names.0,
        key_id: names.1,
        token_id: names.2,
        subject: names.3,
        expires_at_secs,
        key_print,
    })
}

fn grant() -> impl Strategy<Value = Grant> {
    (any::<u64>(), upgrade(), claims(), any::<u64>(), credential(), address()).prop_map(
        |(admission, request, claims, claims_digest, credential, address)| Grant {
            admission: AdmissionId(admission),
            request,
            claims,
            claims_digest,
            credential,
            address,
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::Drop),
        Just(Refusal::BadRequest),
        Just(Refusal::Unauthorized),
        Just(Refusal::Forbidden),
        Just(Refusal::TooManyRequests),
        Just(Refusal::Full),
        any::<u16>().prop_map(|retry_after_secs| Refusal::Unavailable { retry_after_secs }),
    ]
}

fn renewal() -> impl Strategy<Value = Renewal> {
    prop_oneof![
        option::of(any::<i64>()).prop_map(|expires_at_ms| Renewal::Renewed { expires_at_ms }),
        (0..RenewalRefusal::ALL.len()).prop_map(|n| Renewal::Refused(RenewalRefusal::ALL[n])),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (any::<u64>(), any::<u32>(), 0..1_000_000_usize, 0..1_000_000_u64).prop_map(
        |(version, rate, size, ms)| Limits {
            version,
            daemon_per_minute: rate,
            worker_calls_max: rate / 2,
            frame_bytes_max: size,
            turn_work_max: size / 3,
            head_timeout: Duration::from_millis(ms),
            heartbeat: Heartbeat {
                ping_interval: Duration::from_millis(ms / 2),
                ..Limits::default().heartbeat
            },
            ..Limits::default()
        },
    )
}

fn routes() -> impl Strategy<Value = Routes> {
    let tenant = (option::of(0..1_000_000_usize), option::of(any::<u32>()));
    let tenants = vec((text(), tenant), 0..3);
    let targets = vec((text(), text(), boxed()), 0..3);
    (any::<u64>(), tenants, targets).prop_map(|(version, tenants, targets)| {
        let mut routes = Routes { version, ..Routes::default() };
        for (workspace, (bytes, rate)) in tenants {
            let own = TenantLimits {
                frame_bytes_max: bytes,
                egress_bytes_max: bytes.map(|bytes| bytes / 2),
                runtime_per_minute: rate,
                small_frames_per_minute: rate.map(|rate| rate / 2),
                ..TenantLimits::default()
            };
            routes.tenants.insert(workspace.into(), own);
        }
        for (workspace, target, url) in targets {
            routes.targets.entry(workspace.into()).or_default().insert(target.into(), url);
        }
        routes
    })
}

fn response() -> impl Strategy<Value = WorkerResponse> {
    (text(), any::<u16>(), vec((text(), text()), 0..3), text(), any::<bool>()).prop_map(
        |(request_id, status, headers, body, forwarded)| WorkerResponse {
            request_id,
            status,
            headers,
            body,
            forwarded,
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let reasons = [CloseReason::TokenExpired, CloseReason::ClosedByOperator];
    prop_oneof![
        (connection(), grant(), shard()).prop_map(|(connection, grant, home)| Command::Admit {
            connection,
            grant: Box::new(grant),
            home
        }),
        (connection(), refusal())
            .prop_map(|(connection, refusal)| Command::Refuse { connection, refusal }),
        (connection(), any::<u16>(), vec(any::<u8>(), 0..20)).prop_map(
            |(connection, status, body)| Command::Respond {
                connection,
                status,
                content_type: "application/json",
                body: body.into(),
            }
        ),
        (connection(), response()).prop_map(|(connection, response)| Command::WorkerReply {
            connection,
            response: Box::new(response)
        }),
        (connection(), 0..2_usize)
            .prop_map(move |(connection, n)| Command::Close { connection, reason: reasons[n] }),
        (connection(), renewal(), option::of(credential())).prop_map(
            |(connection, outcome, credential)| Command::Renewed {
                connection,
                outcome,
                credential: credential.map(Box::new),
            }
        ),
        limits().prop_map(|limits| Command::SetLimits(Arc::new(limits))),
        routes().prop_map(|routes| Command::SetRoutes(Arc::new(routes))),
        (any::<u64>(), 0..3_usize).prop_map(|(query, n)| Command::Report {
            query: QueryId(query),
            detail: [Detail::Counts, Detail::Scopes, Detail::Hottest][n],
        }),
        (any::<u64>(), any::<u64>(), option::of(boxed())).prop_map(
            |(version, window_ms, redirect)| Command::Drain { version, window_ms, redirect }
        ),
        any::<u64>().prop_map(|version| Command::Resume { version }),
        (text(), shard()).prop_map(|(workspace, to)| Command::Move {
            workspace_id: workspace.as_str().into(),
            to
        }),
        any::<u64>().prop_map(|deadline_ms| Command::Stop { deadline_ms }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        boxed().prop_map(Value::Text),
        any::<i64>().prop_map(Value::Number),
        any::<bool>().prop_map(Value::Flag),
        Just(Value::Null),
        Just(Value::Redacted),
    ]
}

fn entry() -> impl Strategy<Value = LogEntry> {
    let level =
        prop_oneof![Just(Level::Debug), Just(Level::Info), Just(Level::Warn), Just(Level::Error)];
    (level, option::of(connection()), any::<bool>(), vec(value(), 0..4)).prop_map(
        |(level, connection, ours, values)| {
            let details = ["workspaceId", "ip", "port", "shards"].into_iter().zip(values);
            let (event, details) = ("client_connected", details.collect());
            LogEntry { level, event, connection, ours, details }
        },
    )
}

fn report() -> impl Strategy<Value = ShardReport> {
    let scope = (text(), option::of(text()), any::<bool>(), vec(boxed(), 0..3), any::<u64>());
    let scope = scope.prop_map(|(workspace, target, daemon_connected, client_ids, at)| {
        let (workspace_id, target_id) = (workspace.into(), target.map(Into::into));
        let last_activity = Tick(at);
        ScopeReport { workspace_id, target_id, daemon_connected, client_ids, last_activity }
    });
    let counts = (0..1_000_000_u64, 0..1_000_000_u64, any::<u64>());
    (shard(), counts, vec(scope, 0..3), vec(any::<u32>(), 0..5)).prop_map(
        |(shard, (count, other, load), scopes, values)| {
            let mut report = ShardReport { shard, scopes, ..ShardReport::default() };
            report.counters.add(Counter::WsConnectionsOpened, count);
            report.counters.add(Counter::ALL[Counter::ALL.len() - 1], other);
            (report.connection_count, report.scope_count) = (count, other);
            report.load.cpu = Duration::from_nanos(load);
            report.load.uptime = Duration::from_nanos(other);
            report.load.turn_cost.frames_cpu_ns = load;
            report.load.buffers_max = other;
            for value in values {
                report.histograms.record(Measure::Refused, value.into());
                report.histograms.record(Measure::EgressDepth, value.into());
            }
            report
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let admission = || any::<u64>().prop_map(AdmissionId);
    let http = (boxed(), option::of(boxed()), option::of(text()), option::of(text()), address());
    let worker = (text(), boxed(), text(), vec((boxed(), text()), 0..3), option::of(text()));
    prop_oneof![
        (connection(), address(), preflight()).prop_map(|(connection, address, preflight)| {
            let request = Box::new(AdmissionRequest { address, preflight });
            Event::AdmissionAsked { connection, request }
        }),
        (admission(), connection())
            .prop_map(|(admission, connection)| Event::Opened { admission, connection }),
        (connection(), admission(), any::<u64>(), text()).prop_map(
            |(connection, admission, claims_digest, token)| Event::RenewalAsked {
                connection,
                admission,
                claims_digest,
                token: Secret::new(token)
            }
        ),
        admission().prop_map(|admission| Event::Released { admission }),
        connection().prop_map(|connection| Event::Abandoned { connection }),
        (connection(), http).prop_map(
            |(connection, (path, query, authorization, token, address))| Event::HttpAsked {
                connection,
                request: Box::new(ControlRequest {
                    path,
                    accept: query.clone(),
                    query,
                    authorization: authorization.map(Secret::new),
                    admin_token: token.map(Secret::new),
                    address,
                })
            }
        ),
        (connection(), admission(), worker).prop_map(
            |(connection, admission, (request_id, method, path, headers, body))| {
                let request = WorkerRequest { request_id, method, path, headers, body };
                Event::WorkerAsked { connection, admission, request: Box::new(request) }
            }
        ),
        (0..9_000_u64, entry()).prop_map(|(ms, entry)| Event::Logged {
            at: Tick::from_millis(ms),
            entry: Box::new(entry)
        }),
        (any::<u64>(), report()).prop_map(|(query, report)| Event::Reported {
            query: QueryId(query),
            report: Box::new(report)
        }),
        (shard(), 0..3_usize, any::<u64>()).prop_map(|(shard, n, version)| {
            let value = [Versioned::Limits, Versioned::Routes, Versioned::Drain][n];
            Event::InForce { shard, value, version }
        }),
        shard().prop_map(|shard| Event::Stopped { shard }),
    ]
}

/// On the wire and back. Messages are compared as they are on the wire: some hold secrets, which
/// have no equality.
fn resaid(frame: &Frame, message: &v1::Event) -> v1::Event {
    let bytes = message.encode_to_vec();
    let event = frame.event_in(v1::Event::decode(&*bytes).unwrap()).unwrap();
    frame.event_out(ShardId(frame.first + u16::try_from(message.shard).unwrap()), event)
}

proptest! {
    #[test]
    fn every_event_arrives_as_it_was_told(shard in shard(), event in event()) {
        let shard = match &event {
            Event::Reported { report, .. } => report.shard,
            Event::Stopped { shard } | Event::InForce { shard, .. } => *shard,
            _ => shard,
        };
        let told = FRAME.event_out(shard, event);
        prop_assert_eq!(&resaid(&FRAME, &told), &told);
        // Elsewhere the shards have other numbers, and are the same on the wire.
        let elsewhere = Frame { first: 100, ..FRAME };
        prop_assert_eq!(&resaid(&elsewhere, &told), &told);
    }

    #[test]
    fn every_command_arrives_as_it_was_given(shard in shard(), command in command()) {
        let given = FRAME.command_out(shard, command);
        let bytes = given.encode_to_vec();
        let (to, arrived) = FRAME.command_in(v1::Command::decode(&*bytes).unwrap()).unwrap();
        prop_assert_eq!(to, shard);
        prop_assert_eq!(FRAME.command_out(to, arrived), given);
    }

    #[test]
    fn limits_arrive_but_for_the_machine_s_memory(limits in limits()) {
        let given = FRAME.command_out(ShardId(8), Command::SetLimits(Arc::new(limits.clone())));
        let (_, arrived) = FRAME.command_in(given).unwrap();
        let Command::SetLimits(arrived) = arrived else { panic!("not limits") };
        let memory_bytes_max = arrived.memory_bytes_max;
        prop_assert_eq!(&*arrived, &Limits { memory_bytes_max, ..limits });
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(event) = v1::Event::decode(&*bytes) {
            let _ = FRAME.event_in(event);
        }
        if let Ok(command) = v1::Command::decode(&*bytes) {
            let _ = FRAME.command_in(command);
        }
        if let Ok(holding) = v1::Holding::decode(&*bytes) {
            let _ = FRAME.holding_in(holding);
        }
    }
}

#[test]
fn what_lies_outside_is_named() {
    let event = |shard, event| v1::Event { shard, event };
    assert_eq!(FRAME.event_in(event(0, None)).unwrap_err(), BadMessage::Unknown("event"));
    let stopped = v1::event::Event::Stopped(v1::Stopped {});
    let error = FRAME.event_in(event(4, Some(stopped))).unwrap_err();
    assert_eq!(error, BadMessage::OutOfRange("shard"));
    let abandoned = v1::event::Event::Abandoned(v1::Abandoned { connection: None });
    let error = FRAME.event_in(event(0, Some(abandoned))).unwrap_err();
    assert_eq!(error, BadMessage::Missing("connection"));
    let count = v1::Count { name: Counter::AdmissionOk.name().to_owned(), value: u64::MAX };
    let reported = v1::Reported { counters: vec![count], ..v1::Reported::default() };
    let reported = v1::event::Event::Reported(reported);
    let error = FRAME.event_in(event(0, Some(reported))).unwrap_err();
    assert_eq!(error, BadMessage::OutOfRange("counter"));
}

#[test]
fn a_counter_and_a_field_that_nobody_knows_here_are_left_out() {
    let count = v1::Count { name: "relay_of_tomorrow_total".to_owned(), value: 7 };
    let reported = v1::Reported { query: 1, counters: vec![count], ..v1::Reported::default() };
    let event = v1::Event { shard: 0, event: Some(v1::event::Event::Reported(reported)) };
    let mut bytes = event.encode_to_vec();
    // Field 1000, a number: 1000 << 3.
    bytes.extend([0xc0, 0x3e, 0x05]);
    let event = FRAME.event_in(v1::Event::decode(&*bytes).unwrap()).unwrap();
    let Event::Reported { report, .. } = event else { panic!("not a report") };
    assert_eq!(report.counters, Counters::default());
}

#[test]
fn what_an_older_control_plane_says_nothing_of_is_as_it_is_by_default() {
    let older = v1::Limits { version: 3, daemon_per_minute: Some(7), ..v1::Limits::default() };
    let command = Some(v1::command::Command::SetLimits(older));
    let (_, arrived) = FRAME.command_in(v1::Command { shard: 0, command }).unwrap();
    let Command::SetLimits(arrived) = arrived else { panic!("not limits") };
    let expected = Limits { version: 3, daemon_per_minute: 7, ..Limits::default() };
    assert_eq!(*arrived, expected);
}

#[test]
fn a_reason_keeps_its_name_and_one_of_tomorrow_closes_too() {
    let closed = |name: &str| {
        let connection = FRAME.connection_out(ConnectionId { shard: ShardId(8), ..ID });
        let close = v1::Close { connection, reason: name.to_owned() };
        let command = Some(v1::command::Command::Close(close));
        match FRAME.command_in(v1::Command { shard: 0, command }).unwrap() {
            (_, Command::Close { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    // These go over the wire: another name would be another protocol.
    for (name, reason) in [
        ("TokenExpired", CloseReason::TokenExpired),
        ("TokenRevoked", CloseReason::TokenRevoked),
        ("KeyWithdrawn", CloseReason::KeyWithdrawn),
        ("ClosedByOperator", CloseReason::ClosedByOperator),
    ] {
        assert_eq!((closed(name), format!("{reason:?}").as_str()), (reason, name));
    }
    assert_eq!(closed("OfTomorrow"), CloseReason::ClosedByOperator);
}

const ID: ConnectionId = ConnectionId { shard: ShardId(0), slot: 1, generation: 2 };
