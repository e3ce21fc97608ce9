//! What the control API shows of scopes and measures, and to those who watch.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_contract::{
    AdmissionId, Event as ShardEvent, Histograms, Measure, Role, ShardId, ShardReport,
    UpgradeRequest,
};
use relay_controller::{Caps, Settings};
use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::watch_state_response::Event;
use tonic::{Code, Streaming};

use crate::api::Place;
use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, Shard, TOKEN, VALIDATE, settings};

const NOWHERE: &str = "http://127.0.0.1:9";

/// Room for everybody from one address.
fn roomy(base: &str) -> Settings {
    let caps = Caps {
        connections_per_address_max: usize::MAX,
        connections_max: usize::MAX,
        upgrades_per_minute: u32::MAX,
        ..Caps::default()
    };
    Settings { caps, ..settings(base) }
}

async fn platform() -> Platform {
    let platform = Platform::start(None).await;
    platform.on(VALIDATE, Behaviour::Answer(200, r#"{"ok":true,"claims":{}}"#.into()));
    platform
}

async fn admitted(shard: &mut Shard, workspace: &str, role: Role) -> AdmissionId {
    let request = UpgradeRequest { role, workspace_id: workspace.into(), target_id: None };
    shard.upgrade(request, TOKEN);
    shard.admitted().await.admission
}

/// What a watcher knows: clients and daemons by workspace.
#[derive(Debug, Default)]
struct Known {
    scopes: BTreeMap<String, (u32, u32)>,
    snapshots: usize,
    admitted: u64,
}

impl Known {
    fn learn(&mut self, message: proto::WatchStateResponse) -> bool {
        let (state, scopes, is_whole) = match message.event.unwrap() {
            Event::Snapshot(part) => {
                if part.is_first {
                    self.scopes.clear();
                    self.snapshots += 1;
                }
                (part.state, part.scopes, part.is_last)
            }
            Event::Changes(changes) => (changes.state, changes.scopes, true),
        };
        if let Some(state) = state {
            self.admitted = state.admitted_connections;
        }
        for scope in scopes {
            match scope.shard_ids.is_empty() {
                true => self.scopes.remove(&scope.workspace_id),
                false => self.scopes.insert(scope.workspace_id, (scope.clients, scope.daemons)),
            };
        }
        is_whole
    }

    async fn learn_next(&mut self, messages: &mut Streaming<proto::WatchStateResponse>) {
        while !self.learn(messages.message().await.unwrap().unwrap()) {}
    }
}

#[tokio::test]
async fn a_watcher_is_told_everything_once_and_then_what_changes() {
    let platform = platform().await;
    let place = Place::new();
    let (relay, [mut shard]) = Relay::with_api(roomy(&platform.url()), place.api());
    admitted(&mut shard, "before", Role::Daemon).await;
    let mut client = place.client().await;
    let request = proto::WatchStateRequest { interval_ms: 100, ..Default::default() };
    let mut messages = client.watch_state(request).await.unwrap().into_inner();
    let mut known = Known::default();
    known.learn_next(&mut messages).await;
    assert_eq!(known.scopes, [("before".to_owned(), (0, 1))].into());

    let gone = admitted(&mut shard, "gone", Role::Client).await;
    admitted(&mut shard, "there", Role::Client).await;
    admitted(&mut shard, "there", Role::Client).await;
    shard.tell(ShardEvent::Released { admission: gone });
    shard.heard().await;
    relay.clock.advance(Duration::from_millis(100));
    known.learn_next(&mut messages).await;
    let expected = [("before".to_owned(), (0, 1)), ("there".to_owned(), (2, 0))].into();
    assert_eq!((known.scopes, known.admitted, known.snapshots), (expected, 3, 1));
}

#[tokio::test]
async fn a_watcher_that_reads_slowly_ends_up_knowing_the_truth() {
    const SCOPES: usize = 2_000;
    let platform = platform().await;
    let place = Place::new();
    let (relay, [mut shard]) = Relay::with_api(roomy(&platform.url()), place.api());
    let mut client = place.client().await;
    let request = proto::WatchStateRequest { interval_ms: 100, ..Default::default() };
    let mut messages = client.watch_state(request).await.unwrap().into_inner();
    let mut known = Known::default();
    // Nothing is read while scopes come and half of them go.
    let mut admissions = Vec::new();
    for n in 0..SCOPES {
        let workspace_id = format!("ws{n}").into();
        let request = UpgradeRequest { role: Role::Client, workspace_id, target_id: None };
        shard.upgrade(request, TOKEN);
    }
    for n in 0..SCOPES {
        admissions.push(shard.admitted().await);
        if n % 100 == 0 {
            relay.clock.advance(Duration::from_millis(100));
        }
    }
    // Who came first need not be admitted first.
    admissions.sort_by_key(|grant| number(grant.request.workspace_id.as_str()));
    for grant in admissions.iter().step_by(2) {
        shard.tell(ShardEvent::Released { admission: grant.admission });
    }
    shard.heard().await;
    while known.scopes.len() != SCOPES / 2 || known.admitted != SCOPES as u64 / 2 {
        relay.clock.advance(Duration::from_millis(100));
        known.learn_next(&mut messages).await;
    }
    assert!(known.scopes.keys().all(|name| number(name) % 2 == 1));
}

/// The number in a workspace's name.
fn number(name: &str) -> usize {
    name[2..].parse().unwrap()
}

#[tokio::test]
async fn watchers_are_bounded_and_make_room_when_they_leave() {
    let place = Place::new();
    let (_relay, [shard]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    let request = proto::WatchStateRequest::default();
    let mut watching = Vec::new();
    for _ in 0..16 {
        let mut messages = client.watch_state(request.clone()).await.unwrap().into_inner();
        messages.message().await.unwrap();
        watching.push(messages);
    }
    let refused = client.watch_state(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(watching);
    // The server hears of their leave by and by.
    loop {
        match client.watch_state(request.clone()).await {
            Ok(_) => break,
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted),
        }
        shard.heard().await;
    }
    let wrong = proto::WatchStateRequest { interval_ms: 5, ..Default::default() };
    let refused = client.watch_state(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn scopes_come_in_pages() {
    let platform = platform().await;
    let place = Place::new();
    let (_relay, [mut shard]) = Relay::with_api(roomy(&platform.url()), place.api());
    for n in 0..25 {
        admitted(&mut shard, &format!("ws{n}"), Role::Client).await;
    }
    let mut client = place.client().await;
    let mut request = proto::ListScopesRequest { page_size: 10, ..Default::default() };
    let mut names = Vec::new();
    let mut pages = 0;
    loop {
        let page = client.list_scopes(request.clone()).await.unwrap().into_inner();
        assert!(page.scopes.len() <= 10);
        names.extend(page.scopes.into_iter().map(|scope| scope.workspace_id));
        pages += 1;
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    names.sort();
    names.dedup();
    assert_eq!((names.len(), pages), (25, 3));
    let one = proto::ListScopesRequest { workspace_id: "ws3".to_owned(), ..Default::default() };
    let one = client.list_scopes(one).await.unwrap().into_inner();
    assert_eq!((one.scopes.len(), one.scopes[0].clients), (1, 1));
    for wrong in [
        proto::ListScopesRequest { page_token: "x".to_owned(), ..Default::default() },
        proto::ListScopesRequest { page_size: 1001, ..Default::default() },
    ] {
        assert_eq!(client.list_scopes(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn histograms_come_shard_by_shard_and_by_name() {
    let place = Place::new();
    let (_relay, [mut a, mut b]) = Relay::with_api(settings(NOWHERE), place.api());
    let mut client = place.client().await;
    let asking = tokio::spawn(async move {
        let names = vec!["relay_hop_latency_seconds".to_owned()];
        let request = proto::GetHistogramsRequest { names, shard_ids: vec![1], with_hdr_log: true };
        let mut messages = client.get_histograms(request).await.unwrap().into_inner();
        let first = messages.message().await.unwrap().unwrap();
        assert_eq!(messages.message().await.unwrap(), None);
        let names = vec!["x".to_owned()];
        let unknown = proto::GetHistogramsRequest { names, ..Default::default() };
        (first, client.get_histograms(unknown).await.unwrap_err())
    });
    let mut histograms = Histograms::default();
    histograms.record(Measure::HopLatency, 20);
    histograms.record(Measure::HopLatency, 20);
    histograms.record(Measure::Turn, 5);
    a.report(ShardReport { histograms: histograms.clone(), ..ShardReport::default() }).await;
    b.report(ShardReport { histograms, ..ShardReport::default() }).await;
    let (first, refused) = asking.await.unwrap();
    assert_eq!(first.shard_id, u32::from(ShardId(1).0));
    let tagged = first.hdr_log.lines().filter(|line| line.starts_with("Tag="));
    let tags: Vec<_> = tagged.filter_map(|line| line.split(',').next()).collect();
    assert_eq!(tags, ["Tag=relay_hop_latency_seconds/shard=1"]);
    let [one] = &first.histograms[..] else { panic!("{first:?}") };
    assert_eq!((one.count, one.sum), (2, 40));
    assert_eq!(one.buckets, [proto::Bucket { low: 20, high: 20, count: 2 }]);
    assert!(refused.message().contains("relay_turn_duration_seconds"), "{refused}");
}
