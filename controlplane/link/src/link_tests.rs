//! Both ends of the link against each other, without a network.

use relay_contract::{
    AdmissionId, AdmissionRequest, Claims, Command, ConnectionId, Counter, Credential, Event,
    Grant, Level, LogEntry, Preflight, QueryId, Refusal, Renewal, RenewalRefusal, Role,
    ScopeReport, Secret, ShardId, ShardReport, Tick, UpgradeRequest, Versioned, WorkerRequest,
};
use relay_grpc::plane::v1::{self, from_control_plane as down, from_data_plane as up};

use crate::convert::Frame;
use crate::outbox::MESSAGES_MAX;
use crate::{Arrived, Berth, Cord, CordError, ExchangeError, Identity, Inventory, Versions};

const HERE: Frame = Frame { first: 0, count: 2, now: Tick(0), unix_ms: 0 };
const THERE: Frame = Frame { first: 6, ..HERE };
const LIFE: u64 = 77;

struct Pair {
    cord: Cord,
    berth: Berth,
}

fn cord(versions: Versions) -> Cord {
    Cord::new(Identity {
        instance_id: "a".to_owned(),
        shard_count: 2,
        memory_bytes_max: 1234,
        versions,
        driver: "test",
    })
}

/// Joined, with an empty inventory.
fn pair() -> Pair {
    let mut pair = Pair { cord: cord(Versions::CURRENT), berth: Berth::new() };
    pair.join(false);
    let arrived = pair.up();
    assert!(matches!(arrived[..], [Arrived::Inventory(_)]), "{arrived:?}");
    pair
}

impl Pair {
    fn join(&mut self, resumed: bool) {
        let hello = self.cord.connect();
        assert!(!resumed || self.berth.resume(hello.received));
        let welcome = self.berth.welcome(1, LIFE, resumed);
        self.cord.receive(&HERE, welcome).unwrap();
    }

    /// Takes everything the data plane has to say there.
    fn up(&mut self) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        while let Some(message) = self.cord.next_message(&HERE) {
            arrived.extend(self.berth.receive(&THERE, message).unwrap().map(Result::unwrap));
        }
        arrived
    }

    fn down(&mut self) {
        while let Some(message) = self.berth.next_message() {
            self.cord.receive(&HERE, message).unwrap();
        }
    }

    /// What it offers to a control plane that has forgotten everything.
    fn joined_anew(&mut self) -> Inventory {
        self.cord.disconnect();
        self.berth = Berth::new();
        self.join(false);
        match self.up().into_iter().next() {
            Some(Arrived::Inventory(inventory)) => inventory,
            other => panic!("no inventory: {other:?}"),
        }
    }

    fn commands(&mut self) -> Vec<(ShardId, Command)> {
        std::iter::from_fn(|| self.cord.next_command()).collect()
    }

    fn counted(&mut self, counter: Counter) -> u64 {
        let report = Box::new(ShardReport::default());
        self.cord.take(&HERE, Event::Reported { query: QueryId(1), report });
        let arrived = self.up();
        let report = arrived.iter().find_map(|arrived| match arrived {
            Arrived::Event(Event::Reported { report, .. }) => Some(report),
            _ => None,
        });
        report.expect("it is told").counters.of(counter)
    }
}

fn id(shard: u16, slot: u32) -> ConnectionId {
    ConnectionId { shard: ShardId(shard), slot, generation: 0 }
}

fn request() -> UpgradeRequest {
    UpgradeRequest { role: Role::Client, workspace_id: "ws1".into(), target_id: None }
}

fn asked(slot: u32) -> Event {
    let preflight = Preflight::Ask { request: request(), token: Secret::from("token-0123456789") };
    let request = AdmissionRequest { address: [192, 0, 2, 1].into(), preflight };
    Event::AdmissionAsked { connection: id(1, slot), request: Box::new(request) }
}

fn admit(slot: u32, admission: u64) -> Command {
    Command::Admit {
        connection: id(7, slot),
        home: ShardId(6),
        grant: Box::new(Grant {
            admission: AdmissionId(admission),
            request: request(),
            claims: Claims::default(),
            claims_digest: 1,
            credential: Credential::default(),
            address: [192, 0, 2, 1].into(),
        }),
    }
}

#[test]
fn ids_are_those_of_whoever_reads_them() {
    let mut pair = pair();
    pair.cord.take(&HERE, asked(3));
    let arrived = pair.up();
    let [Arrived::Event(Event::AdmissionAsked { connection, .. })] = arrived[..] else {
        panic!("{arrived:?}");
    };
    assert_eq!(connection, id(7, 3));
    pair.berth.order(&THERE, ShardId(7), admit(3, 500));
    pair.down();
    let commands = pair.commands();
    let [(ShardId(1), Command::Admit { connection, home, ref grant })] = commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!((connection, home), (id(1, 3), ShardId(0)));
    let admission = grant.admission;
    pair.cord.take(&HERE, Event::Released { admission });
    let arrived = pair.up();
    let [Arrived::Event(Event::Released { admission })] = arrived[..] else {
        panic!("{arrived:?}");
    };
    assert_eq!(admission, AdmissionId(500), "the ledger's own number");
}

#[test]
fn after_a_cut_both_go_on_where_they_were() {
    let mut pair = pair();
    pair.cord.take(&HERE, asked(1));
    pair.cord.take(&HERE, asked(2));
    // One of two arrives; of the answer nothing does.
    let message = pair.cord.next_message(&HERE).unwrap();
    pair.berth.receive(&THERE, message).unwrap();
    pair.cord.next_message(&HERE).unwrap();
    pair.berth.order(&THERE, ShardId(7), admit(1, 500));
    pair.berth.next_message().unwrap();
    pair.cord.disconnect();
    pair.cord.take(&HERE, Event::Abandoned { connection: id(1, 2) });
    pair.join(true);
    let arrived = pair.up();
    assert!(
        matches!(
            arrived[..],
            [Arrived::Event(Event::AdmissionAsked { .. }), Arrived::Event(Event::Abandoned { .. })]
        ),
        "{arrived:?}"
    );
    pair.down();
    assert_eq!(pair.commands().len(), 1, "the answer comes, and once");
    assert_eq!(pair.counted(Counter::ControlPlaneResumed), 1);
    assert_eq!(pair.counted(Counter::ControlPlaneLost), 1);
}

#[test]
fn whoever_comes_while_there_is_nobody_is_refused_at_once() {
    let mut pair = pair();
    pair.cord.disconnect();
    pair.cord.take(&HERE, asked(1));
    let commands = pair.commands();
    let [(ShardId(1), Command::Refuse { refusal, .. })] = commands[..] else {
        panic!("{commands:?}");
    };
    assert!(matches!(refusal, Refusal::Unavailable { .. }));
}

#[test]
fn whoever_waits_is_refused_after_a_while_and_a_late_admission_comes_back() {
    let mut pair = pair();
    pair.cord.take(&HERE, asked(1));
    pair.up();
    pair.cord.disconnect();
    for _ in 0..8 {
        pair.cord.beat(&HERE);
    }
    assert!(pair.commands().is_empty());
    pair.cord.beat(&HERE);
    assert!(matches!(pair.commands()[..], [(_, Command::Refuse { .. })]));
    // It was admitted meanwhile.
    pair.berth.order(&THERE, ShardId(7), admit(1, 500));
    pair.join(true);
    pair.down();
    assert!(pair.commands().is_empty(), "its shard hears nothing of it");
    let arrived = pair.up();
    let released = arrived.iter().any(|arrived| {
        matches!(arrived, Arrived::Event(Event::Released { admission: AdmissionId(500) }))
    });
    assert!(released, "{arrived:?}");
}

#[test]
fn another_control_plane_is_told_what_there_is() {
    let mut pair = pair();
    pair.cord.take(&HERE, asked(1));
    pair.cord.take(&HERE, asked(2));
    pair.up();
    pair.berth.order(&THERE, ShardId(7), admit(1, 500));
    pair.down();
    pair.cord.disconnect();
    pair.berth = Berth::new();
    pair.join(false);
    let arrived = pair.up();
    let [Arrived::Inventory(ref inventory)] = arrived[..] else {
        panic!("{arrived:?}");
    };
    assert_eq!(inventory.holdings.len(), 1);
    assert_eq!(inventory.holdings[0].home, ShardId(6));
    let waiting: Vec<_> = inventory.waiting.iter().map(|(connection, _)| *connection).collect();
    assert_eq!(waiting, [id(7, 2)]);
    assert_eq!(pair.counted(Counter::InventoriesOffered), 2);
}

#[test]
fn more_than_may_wait_is_replaced_by_an_inventory() {
    let mut pair = pair();
    pair.cord.disconnect();
    for slot in 0..=MESSAGES_MAX {
        let slot = u32::try_from(slot).unwrap();
        pair.cord.take(&HERE, Event::Abandoned { connection: id(0, slot) });
    }
    let hello = pair.cord.connect();
    let Some(up::Message::Hello(hello)) = hello.message else { panic!("no greeting") };
    assert_eq!(hello.control_life, 0, "it cannot go on with anybody");
    pair.berth = Berth::new();
    pair.join(false);
    pair.up();
    assert_eq!(pair.counted(Counter::PlaneResendExceeded), 1);
}

#[test]
fn entries_wait_for_the_next_control_plane_the_last_of_them() {
    let mut pair = Pair { cord: cord(Versions::CURRENT), berth: Berth::new() };
    for _ in 0..1030 {
        let entry = Box::new(LogEntry::new(Level::Info, "x"));
        pair.cord.take(&HERE, Event::Logged { at: Tick(0), entry });
    }
    pair.join(false);
    assert_eq!(pair.up().len(), 1 + 1024);
    assert_eq!(pair.counted(Counter::LogEntriesDropped), 6);
}

#[test]
fn a_program_of_one_version_before_is_understood_and_an_older_one_is_told() {
    let welcome = |version| {
        let welcome = v1::Welcome { protocol_version: version, control_life: LIFE, resumed: false };
        let message = Some(down::Message::Welcome(welcome));
        v1::FromControlPlane { message, number: 0, received: 0 }
    };
    let mut newer = cord(Versions::of(3));
    newer.connect();
    newer.receive(&HERE, welcome(2)).unwrap();
    assert!(newer.is_joined());
    let mut newer = cord(Versions::of(3));
    newer.connect();
    let error = newer.receive(&HERE, welcome(1)).unwrap_err();
    assert!(matches!(error, CordError::Apart(_)));
    let text = error.to_string();
    assert!(text.contains("version 1") && text.contains("3 and 2"), "{text}");
}

#[test]
fn what_a_newer_control_plane_says_beyond_is_passed_over_and_counted() {
    let mut pair = pair();
    let message = |number, message| v1::FromControlPlane { message, number, received: 0 };
    pair.cord.receive(&HERE, message(1, None)).unwrap();
    let command = v1::Command { shard: 0, command: None };
    let command = Some(down::Message::Command(command));
    pair.cord.receive(&HERE, message(2, command)).unwrap();
    assert!(pair.commands().is_empty());
    let report = Box::new(ShardReport::default());
    pair.cord.take(&HERE, Event::Reported { query: QueryId(1), report });
    let mut next = || {
        let said = pair.cord.next_message(&HERE).unwrap();
        let Some(up::Message::Event(event)) = said.message else { panic!("no event") };
        THERE.event_in(event).unwrap()
    };
    let Event::Logged { entry, .. } = next() else { panic!("nothing is said of it") };
    assert_eq!(entry.event, "plane_order_rejected");
    let Event::Reported { report, .. } = next() else { panic!("no report") };
    assert_eq!(report.counters.of(Counter::PlaneMessagesRejected), 1);
    let error = pair.cord.receive(&HERE, message(4, None)).unwrap_err();
    assert_eq!(error, CordError::Exchange(ExchangeError::Gap(4)));
}

#[test]
fn memory_is_the_machine_s_whatever_the_limits_say() {
    let mut pair = pair();
    let limits = std::sync::Arc::new(relay_contract::Limits::default());
    pair.berth.order(&THERE, ShardId(6), Command::SetLimits(limits));
    pair.down();
    let commands = pair.commands();
    let [(ShardId(0), Command::SetLimits(ref limits))] = commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(limits.memory_bytes_max, 1234);
}

#[test]
fn silence_is_counted_in_beats() {
    let mut pair = pair();
    for _ in 0..5 {
        pair.cord.beat(&HERE);
        pair.berth.beat();
    }
    assert!(!pair.cord.is_silent() && !pair.berth.is_gone());
    pair.cord.beat(&HERE);
    pair.berth.beat();
    assert!(pair.cord.is_silent() && pair.berth.is_gone());
}

#[test]
fn another_control_plane_is_told_whether_the_shards_are_drained_and_which_know_it() {
    let mut pair = pair();
    let redirect = Some("wss://b.example.net/ws".into());
    let order = Command::Drain { version: 9, window_ms: 50, redirect };
    pair.berth.order(&THERE, ShardId(6), order);
    pair.down();
    let in_force = Event::InForce { shard: ShardId(0), value: Versioned::Drain, version: 9 };
    pair.cord.take(&HERE, in_force);
    let drain = pair.joined_anew().drain.expect("it is drained");
    let drained = drain.drained.expect("and not taken back");
    assert_eq!((drain.version, drained.window_ms, &*drain.shards), (9, 50, &[ShardId(6)][..]));
    assert_eq!(drained.redirect.as_deref(), Some("wss://b.example.net/ws"));

    pair.berth.order(&THERE, ShardId(6), Command::Resume { version: 10 });
    pair.down();
    let drain = pair.joined_anew().drain.expect("that it was taken back is known too");
    assert_eq!((drain.version, drain.drained, &*drain.shards), (10, None, &[][..]));
}

#[test]
fn who_is_about_to_end_is_neither_drained_nor_kept_by_anybody_else() {
    let mut pair = pair();
    pair.cord.prepare_to_leave();
    pair.berth.order(&THERE, ShardId(6), Command::Resume { version: 3 });
    let order = Command::Drain { version: 4, window_ms: 50, redirect: None };
    pair.berth.order(&THERE, ShardId(6), order);
    pair.down();
    let commands = pair.commands();
    assert!(commands.is_empty(), "{commands:?}");
}

#[test]
fn an_order_that_cannot_be_read_is_told_and_its_admission_comes_back() {
    let mut pair = pair();
    pair.cord.take(&HERE, asked(1));
    pair.up();
    pair.berth.order(&THERE, ShardId(7), admit(1, 500));
    let mut message = pair.berth.next_message().unwrap();
    let Some(down::Message::Command(v1::Command {
        command: Some(v1::command::Command::Admit(admit)),
        ..
    })) = &mut message.message
    else {
        panic!("no admission");
    };
    admit.grant.as_mut().unwrap().request = None;
    pair.cord.receive(&HERE, message).unwrap();
    let commands = pair.commands();
    assert!(matches!(commands[..], [(ShardId(1), Command::Refuse { .. })]), "{commands:?}");
    let arrived = pair.up();
    let [
        Arrived::Event(Event::Logged { entry, .. }),
        Arrived::Event(Event::Released { admission }),
    ] = &arrived[..]
    else {
        panic!("{arrived:?}");
    };
    assert_eq!((entry.event, *admission), ("plane_order_rejected", AdmissionId(500)));
    assert_eq!(pair.counted(Counter::PlaneMessagesRejected), 1);
}

#[test]
fn a_control_plane_that_hangs_keeps_nobody_waiting_however_often_it_is_dialled() {
    let mut pair = pair();
    pair.cord.take(&HERE, asked(1));
    pair.up();
    // It takes connections and says nothing.
    let mut beats = 0;
    while pair.commands().is_empty() {
        pair.cord.beat(&HERE);
        beats += 1;
        if pair.cord.is_silent() {
            pair.cord.disconnect();
            pair.cord.connect();
        }
        assert!(beats < 10, "two seconds are over");
    }
}

#[test]
fn who_renews_or_calls_while_there_is_nobody_is_answered_after_a_while_and_once() {
    let mut pair = pair();
    pair.cord.take(&HERE, asked(1));
    pair.up();
    pair.berth.order(&THERE, ShardId(7), admit(1, 500));
    pair.down();
    let Some((_, Command::Admit { grant, .. })) = pair.commands().pop() else { panic!("refused") };
    let (admission, connection) = (grant.admission, id(0, 9));
    pair.cord.take(&HERE, Event::Opened { admission, connection });
    let token = Secret::from("token-0123456789");
    let renewal = Event::RenewalAsked { connection, admission, claims_digest: 1, token };
    pair.cord.take(&HERE, renewal);
    let request = WorkerRequest {
        request_id: "w-1".to_owned(),
        method: "GET".into(),
        path: "/x".into(),
        headers: Vec::new(),
        body: None,
    };
    let call = Event::WorkerAsked { connection, admission, request: Box::new(request) };
    pair.cord.take(&HERE, call);
    pair.up();
    pair.cord.disconnect();
    for _ in 0..8 {
        pair.cord.beat(&HERE);
    }
    assert!(pair.commands().is_empty());
    pair.cord.beat(&HERE);
    let commands = pair.commands();
    let [(_, Command::Renewed { outcome, .. }), (_, Command::WorkerReply { response, .. })] =
        &commands[..]
    else {
        panic!("{commands:?}");
    };
    assert_eq!(*outcome, Renewal::Refused(RenewalRefusal::Unavailable));
    assert_eq!((&*response.request_id, response.status), ("w-1", 502));
    // It had answered both in time, and is back with it.
    let connection = id(6, 9);
    let outcome = Renewal::Renewed { expires_at_ms: None };
    let late = Command::Renewed { connection, outcome, credential: None };
    pair.berth.order(&THERE, ShardId(6), late);
    let response = crate::held::call_failed("w-1".to_owned());
    pair.berth.order(&THERE, ShardId(6), Command::WorkerReply { connection, response });
    pair.join(true);
    pair.down();
    let commands = pair.commands();
    assert!(commands.is_empty(), "they have had an answer: {commands:?}");
}

#[test]
fn a_report_too_long_for_a_message_comes_in_parts_and_is_whole() {
    let mut pair = pair();
    let name = "w".repeat(128);
    let scope = |n: usize| ScopeReport {
        workspace_id: format!("{name}{n}").into(),
        target_id: None,
        daemon_connected: true,
        client_ids: vec![name.as_str().into()],
        last_activity: Tick(n as u64),
    };
    let scopes: Vec<_> = (0..40_000).map(scope).collect();
    let report = ShardReport { scopes, connection_count: 7, ..ShardReport::default() };
    let reported = Event::Reported { query: QueryId(3), report: Box::new(report.clone()) };
    pair.cord.take(&HERE, reported);
    let mut messages = 0;
    let mut arrived = Vec::new();
    while let Some(message) = pair.cord.next_message(&HERE) {
        assert!(prost::Message::encoded_len(&message) < 5 << 20);
        messages += 1;
        arrived.extend(pair.berth.receive(&THERE, message).unwrap().map(Result::unwrap));
    }
    assert!(messages >= 3, "{messages}");
    let [Arrived::Event(Event::Reported { report: whole, .. })] = &arrived[..] else {
        panic!("{} reports", arrived.len());
    };
    assert_eq!((whole.connection_count, whole.scopes.len()), (7, 40_000));
    let names = |report: &ShardReport| {
        let names = report.scopes.iter().map(|scope| scope.workspace_id.clone());
        names.collect::<Vec<_>>()
    };
    assert!(names(whole) == names(&report), "in their order");
}
