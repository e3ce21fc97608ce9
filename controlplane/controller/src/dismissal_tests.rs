//! What is revoked ends, and stays out.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use relay_contract::{
    AdmissionId, AdmissionRequest, Claims, CloseReason, Command, ConnectionId, Counter, Credential,
    Level, Preflight, Role, Secret, ShardId, Tick, UpgradeRequest,
};
use relay_link::{ShardSide, local};
use relay_mailbox::{Bell, Ring};
use tokio::sync::oneshot;
use url::Url;

use crate::clock::Clock;
use crate::controller::{Controller, StartError};
use crate::facts::Facts;
use crate::filter::ConnectionFilter;
use crate::judge::{Accepted, Answer, Decision, Ruling};
use crate::revocations::{Revocation, Revoked};
use crate::settings::{
    AdminAccess, Admission, BackplaneFacts, Caps, Ending, LogFormat, LogSettings, PlatformTls,
    Settings, TlsFacts,
};

#[derive(Default)]
pub(crate) struct StandingClock(pub(crate) AtomicI64);

impl Clock for StandingClock {
    fn now(&self) -> Tick {
        Tick::from_millis(self.unix_ms().unsigned_abs())
    }
    fn unix_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Silent;

impl Ring for Silent {
    fn ring(&self) {}
}

pub(crate) struct Bench {
    pub(crate) controller: Controller,
    shard: ShardSide,
    clock: Arc<StandingClock>,
    slots: u32,
}

pub(crate) fn bench() -> Bench {
    bench_of(settings())
}

fn bench_of(settings: Settings) -> Bench {
    let (link, mut sides) = local(vec![Bell::new(Silent)]);
    let clock = Arc::new(StandingClock::default());
    let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let controller = Controller::new(settings, link, shared, std::io::sink()).unwrap();
    Bench { controller, shard: sides.remove(0), clock, slots: 0 }
}

/// One life of a relay that keeps its revocations in this file.
fn life(file: &Path) -> Bench {
    bench_of(Settings { revocations_file: Some(file.to_owned()), ..settings() })
}

pub(crate) fn settings() -> Settings {
    let nowhere = Url::parse("http://127.0.0.1:9/").unwrap();
    Settings {
        version: "0.1.0",
        relay_id: "relay-a".into(),
        mode: "dev",
        host: "127.0.0.1".into(),
        port: 7781,
        server_url: nowhere.to_string(),
        platform: nowhere.clone(),
        validate_url: nowhere,
        public_ws_url: String::new(),
        internal_key: None,
        internal_key_previous: None,
        admission: Admission::Validate,
        jwks: None,
        expiry: Ending::Ignore,
        decision_cache: None,
        revocations_file: None,
        admission_timeout: Duration::from_secs(1),
        admission_response_bytes_max: 4096,
        internal_timeout: Duration::from_secs(1),
        internal_response_bytes_max: 4096,
        platform_tls: PlatformTls::default(),
        admin: AdminAccess::default(),
        health_verbose: false,
        state_includes_client_ids: false,
        log: LogSettings { level: Level::Error, format: LogFormat::Json, entries_max: 1 },
        tls: TlsFacts::default(),
        backplane: BackplaneFacts {
            mode: "single",
            bus_enabled: false,
            client_redirect_enabled: false,
            bus_poll_interval_ms: 250,
            bus_pull_limit: 200,
            bus_pull_wait_ms: 1000,
        },
        caps: Caps {
            connections_max: usize::MAX,
            connections_per_address_max: usize::MAX,
            clients_per_scope_max: usize::MAX,
            upgrades_per_minute: u32::MAX,
            ..Caps::default()
        },
        limits: Arc::default(),
        routes: Arc::default(),
        memory_budget_bytes: 1 << 30,
        driver: "test",
        drain: Duration::from_secs(1),
    }
}

pub(crate) fn credential(token: &str, subject: &str, key: &str) -> Credential {
    Credential {
        token_id: Some(token.into()),
        subject: Some(subject.into()),
        key_id: Some(key.into()),
        ..Credential::default()
    }
}

impl Bench {
    pub(crate) fn admit(&mut self, workspace: &str, credential: &Credential) -> AdmissionId {
        let credential = credential.clone();
        let accepted = Accepted { claims: Claims::default(), credential, key: None };
        let facts: Facts = self.controller.facts(&accepted);
        let request =
            UpgradeRequest { role: Role::Client, workspace_id: workspace.into(), target_id: None };
        let preflight = Preflight::Ask { request, token: Secret::from("token-0123456789") };
        let asked = AdmissionRequest { address: Ipv4Addr::LOCALHOST.into(), preflight };
        let connection = ConnectionId::default();
        let judge = &mut self.controller.judge;
        assert!(matches!(judge.ask(Tick(0), connection, asked), Decision::Check { .. }));
        match judge.answer(connection, Answer::Accepted(Box::new(accepted)), facts) {
            Some(Ruling::Admit { grant, .. }) => grant.admission,
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, admission: AdmissionId) -> ConnectionId {
        self.slots += 1;
        let connection = ConnectionId { shard: ShardId(0), slot: self.slots, generation: 0 };
        self.controller.on_opened(admission, connection);
        connection
    }

    fn revoke(&mut self, revoked: Revoked) -> usize {
        let revocation = Revocation { revoked, until_secs: 1000 };
        let outcome = self.controller.revoke(revocation);
        assert!(outcome.remembered);
        outcome.closed
    }

    /// Whether what is revoked now is kept, once that is known.
    async fn is_kept(&mut self) -> bool {
        let (told, mut kept) = oneshot::channel();
        self.controller.when_kept(move |is_kept| told.send(is_kept).unwrap());
        loop {
            if let Ok(is_kept) = kept.try_recv() {
                return is_kept;
            }
            let done = self.controller.jobs.join_next().await.expect("a write goes on");
            self.controller.on_done(done.unwrap());
        }
    }

    /// Who was told to go, in order.
    fn closed(&mut self) -> Vec<(ConnectionId, CloseReason)> {
        let commands = std::iter::from_fn(|| self.shard.commands.receive());
        let closed = commands.map(|command| match command {
            Command::Close { connection, reason } => (connection, reason),
            other => panic!("{other:?}"),
        });
        closed.collect()
    }
}

#[tokio::test]
async fn each_kind_of_revocation_ends_whom_it_names_and_nobody_else() {
    for (revoked, expected) in [
        (Revoked::TokenId("t1".into()), vec![0]),
        (Revoked::Subject("s1".into()), vec![0, 1]),
        (Revoked::KeyId("k1".into()), vec![0, 2]),
        (Revoked::Workspace("ws2".into()), vec![3]),
        (Revoked::TokenId("nobody".into()), vec![]),
    ] {
        let mut bench = bench();
        let credentials = [
            ("ws1", credential("t1", "s1", "k1")),
            ("ws1", credential("t2", "s1", "k2")),
            ("ws1", credential("t3", "s2", "k1")),
            ("ws2", credential("t4", "s3", "k3")),
        ];
        let opened: Vec<_> = credentials
            .iter()
            .map(|(workspace, credential)| {
                let admission = bench.admit(workspace, credential);
                bench.open(admission)
            })
            .collect();
        assert_eq!(bench.revoke(revoked.clone()), expected.len());
        let expected: Vec<_> =
            expected.into_iter().map(|at| (opened[at], CloseReason::TokenRevoked)).collect();
        assert_eq!(bench.closed(), expected, "{revoked:?}");
        assert_eq!(bench.revoke(revoked), 0, "they know already");
    }
}

#[tokio::test]
async fn who_is_revoked_between_admission_and_opening_is_closed_when_it_opens() {
    let mut bench = bench();
    let admission = bench.admit("ws1", &credential("t1", "s1", "k1"));
    assert_eq!(bench.revoke(Revoked::TokenId("t1".into())), 1);
    assert_eq!(bench.closed(), []);
    let connection = bench.open(admission);
    assert_eq!(bench.closed(), [(connection, CloseReason::TokenRevoked)]);
}

#[tokio::test]
async fn a_hundred_thousand_connections_are_looked_through_in_no_time() {
    let mut bench = bench();
    let mut last = None;
    for n in 0..100_000 {
        let admission = bench.admit("ws1", &credential(&format!("t{n}"), "s1", "k1"));
        last = Some(admission);
    }
    let last = bench.open(last.unwrap());
    let began = Instant::now();
    let closed = bench.revoke(Revoked::TokenId("t99999".into()));
    let took = began.elapsed();
    assert!(closed >= 1, "at most another by accident");
    assert_eq!(bench.closed(), [(last, CloseReason::TokenRevoked)]);
    // Milliseconds, but for a machine that has other work and code that is not optimised.
    assert!(took.as_secs() < 10, "{took:?}");
}

#[tokio::test]
async fn an_operator_finds_and_closes_connections_by_what_they_stand_on() {
    let mut bench = bench();
    let admissions = ["a", "b", "c"].map(|name| {
        let admission = bench.admit(name, &credential(name, "s1", "k1"));
        bench.open(admission);
        admission
    });
    let all = ConnectionFilter::default();
    assert!(all.is_empty());
    let page = |after, count_max| {
        let page = bench.controller.connections(&all, after, count_max);
        page.into_iter().map(|facts| facts.admission).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), admissions[..2]);
    assert_eq!(page(Some(admissions[1]), 2), admissions[2..]);
    let by_token = ConnectionFilter { token_id: Some("b".into()), ..all.clone() };
    let found = bench.controller.connections(&by_token, None, 10);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key_id.as_deref(), Some("k1"));
    assert!(!found[0].is_leaving);
    let both = ConnectionFilter { workspace_id: Some("a".into()), ..by_token.clone() };
    assert_eq!(bench.controller.count_connections(&both), 0, "all that is given must fit");
    assert_eq!(bench.controller.close_connections(&by_token), 1);
    assert_eq!(bench.closed().len(), 1);
    assert!(bench.controller.connections(&by_token, None, 10)[0].is_leaving);
    let by_address = ConnectionFilter { address: Some([192, 0, 2, 1].into()), ..all };
    assert_eq!(bench.controller.count_connections(&by_address), 0);
}

#[tokio::test]
async fn by_default_an_expired_token_changes_nothing() {
    let mut bench = bench();
    let expires = Credential { expires_at_secs: Some(10), ..Credential::default() };
    let admission = bench.admit("ws1", &expires);
    bench.open(admission);
    for secs in 0..100 {
        bench.clock.0.store(secs * 1000, Ordering::Relaxed);
        bench.controller.on_beat();
    }
    assert_eq!(bench.closed(), []);
    assert!(!bench.controller.needs_beat(), "and nothing wakes for it");
}

#[tokio::test]
async fn a_revocation_ends_when_it_says() {
    let mut bench = bench();
    bench.revoke(Revoked::KeyId("k1".into()));
    assert_eq!(bench.controller.revocations().len(), 1);
    bench.clock.0.store(1_000_000, Ordering::Relaxed);
    assert_eq!(bench.controller.revocations().len(), 0);
}

#[tokio::test]
async fn what_was_revoked_stays_so_in_the_next_life_until_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revocations");
    let mut first = life(&file);
    first.revoke(Revoked::TokenId("t1".into()));
    // While that is written two more come: they go with the next write.
    first.revoke(Revoked::Subject("s2".into()));
    first.revoke(Revoked::KeyId("k3".into()));
    assert!(first.is_kept().await);
    drop(first);
    let second = life(&file);
    assert_eq!(second.controller.revocations().len(), 3);
    let covers = |credential: &Credential| {
        second.controller.revocations.covers(999, &"ws1".into(), credential)
    };
    assert!(covers(&credential("t1", "s1", "k1")) && covers(&credential("t9", "s9", "k3")));
    assert!(!covers(&credential("t9", "s9", "k9")));
    second.clock.0.store(1_000_000, Ordering::Relaxed);
    assert_eq!(second.controller.revocations().len(), 0);
}

#[tokio::test]
async fn a_write_that_fails_is_told_counted_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut bench = life(&inner.join("revocations"));
    std::fs::remove_dir(&inner).unwrap();
    bench.revoke(Revoked::TokenId("t1".into()));
    assert!(!bench.is_kept().await);
    assert_eq!(bench.controller.counters.of(Counter::RevocationsUnsaved), 1);
    assert!(bench.controller.needs_beat(), "it is not given up");
    bench.controller.on_beat();
    assert!(bench.controller.jobs.is_empty(), "it is early for another attempt");
    std::fs::create_dir(&inner).unwrap();
    bench.clock.0.store(1000, Ordering::Relaxed);
    bench.controller.on_beat();
    assert!(bench.is_kept().await);
    assert!(!bench.controller.needs_beat());
    assert_eq!(life(&inner.join("revocations")).controller.revocations().len(), 1);
}

#[tokio::test]
async fn without_a_file_nothing_is_kept_and_whoever_asks_is_told() {
    let mut bench = bench();
    bench.revoke(Revoked::TokenId("t1".into()));
    assert!(!bench.is_kept().await);
    assert!(!bench.controller.needs_beat());
}

#[tokio::test]
async fn a_damaged_file_lets_nothing_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revocations");
    std::fs::write(&file, "{}").unwrap();
    let (link, _sides) = local(vec![Bell::new(Silent)]);
    let settings = Settings { revocations_file: Some(file), ..settings() };
    let clock = Arc::new(StandingClock::default());
    let started = Controller::new(settings, link, clock, std::io::sink());
    assert!(matches!(started.err(), Some(StartError::Revocations(_))));
}
