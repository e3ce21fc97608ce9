use std::collections::BTreeMap;

use relay_contract::{Role, TenantLimits};

use super::*;
use crate::Input;
use crate::board::{Board, board, board_with, frame, grant};

/// Routes in which `ws1` has these limits.
fn own(version: u64, own: TenantLimits) -> Routes {
    let tenants = BTreeMap::from([("ws1".into(), own)]);
    Routes { version, tenants, ..Routes::default() }
}

/// Routes in which the daemon of `rt1` is elsewhere.
fn away(version: u64) -> Routes {
    let targets = BTreeMap::from([("rt1".into(), Box::from("wss://z.example.net/ws"))]);
    let targets = BTreeMap::from([("ws1".into(), targets)]);
    Routes { version, targets, ..Routes::default() }
}

impl Board {
    fn route(&mut self, routes: Routes) {
        assert!(self.see(Input::SetRoutes(Arc::new(routes))).is_empty());
    }

    /// A client of another workspace.
    fn stranger(&mut self) -> ConnectionId {
        let mut grant = grant(Role::Client);
        grant.request.workspace_id = "ws2".into();
        grant.claims.workspace_id = Some("ws2".into());
        self.open(grant).0
    }

    /// How many encrypted frames a client gets through before it is closed.
    fn frames_until_closed(&mut self, client: ConnectionId) -> usize {
        let closed = |seen: &[String]| seen[0].starts_with("close");
        (0..).find(|_| closed(&self.say(client, &frame("s")))).expect("it is unbounded")
    }
}

fn runtime(per_minute: u32) -> TenantLimits {
    TenantLimits { runtime_per_minute: Some(per_minute), ..TenantLimits::default() }
}

#[test]
fn a_tenant_s_rate_holds_for_its_workspace_alone() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 9);
    board.route(own(1, runtime(3)));
    let (client, stranger) = (board.client(), board.stranger());
    assert_eq!(board.frames_until_closed(client), 3);
    assert_eq!(board.frames_until_closed(stranger), 9);
}

#[test]
fn every_rate_of_a_tenant_holds() {
    let few = Some(2);
    let limits = TenantLimits {
        key_exchange_per_minute: few,
        runtime_per_minute_workspace: few,
        daemon_per_minute: few,
        pairing_per_minute: few,
        unrouted_per_minute: few,
        small_frames_per_minute: few,
        ..TenantLimits::default()
    };
    let mut board = board();
    board.route(own(1, limits));
    let (daemon, worker) = (board.daemon(), board.worker());
    // Daemon and worker share the workspace's bucket.
    board.say(daemon, "x");
    board.say(daemon, "x");
    for (peer, reason) in [(daemon, "daemon"), (worker, "worker")] {
        let expected = format!("close {} 4008 {reason} rate limit exceeded", peer.slot);
        assert_eq!(board.say(peer, "x"), [expected]);
    }
    let said = [
        (frame("s"), "runtime", false),
        (crate::board::init("r"), "key exchange", false),
        (crate::board::offer("r"), "pairing", true),
        ("x".to_owned(), "unrouted frame", false),
    ];
    for (text, reason, pairing) in said {
        let client = if pairing { board.pairing() } else { board.client() };
        for _ in 0..2 {
            assert!(!board.say(client, &text)[0].starts_with("close"), "{reason}");
        }
        let expected = format!("close {} 4008 {reason} rate limit exceeded", client.slot);
        assert_eq!(board.say(client, &text), [expected]);
    }
    let client = board.client();
    for _ in 0..2 {
        assert!(board.see(Input::SmallFrame { from: client }).is_empty());
    }
    let seen = board.see(Input::SmallFrame { from: client });
    assert!(seen[0].ends_with("small frame rate limit exceeded"), "{seen:?}");
}

#[test]
fn an_override_that_the_next_version_lacks_is_gone() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 9);
    board.route(own(1, runtime(3)));
    let client = board.client();
    board.route(Routes { version: 2, ..Routes::default() });
    assert_eq!(board.frames_until_closed(client), 9);
}

#[test]
fn a_stale_version_is_refused_and_nothing_of_it_is_taken() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 9);
    board.route(own(5, runtime(3)));
    for version in [4, 5] {
        let stale = Routes { tenants: own(version, runtime(7)).tenants, ..away(version) };
        board.route(stale);
    }
    assert_eq!(board.switchboard.routes().version, 5);
    assert_eq!(board.count(Counter::StaleVersionsRefused), 2);
    let (client, seen) = board.open(grant(Role::Client));
    assert_eq!(seen.len(), 1, "nobody is redirected: {seen:?}");
    assert_eq!(board.frames_until_closed(client), 3);
}

#[test]
fn a_rate_changes_for_open_connections_in_the_middle_of_a_minute() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 60);
    let (client, other) = (board.client(), board.stranger());
    board.say(client, &frame("s"));
    board.say(other, &frame("s"));
    board.pass(20_000);
    board.route(own(1, runtime(6)));
    assert_eq!(board.frames_until_closed(client), 6, "the new rate, at once");
    assert_eq!(board.frames_until_closed(other), 60);
    // Up again: a bucket fills as fast as it says from now on.
    board.route(own(2, runtime(120)));
    let client = board.client();
    assert_eq!(board.frames_until_closed(client), 0, "it was used up by this client");
    board.pass(1_000);
    let client = board.client();
    assert_eq!(board.frames_until_closed(client), 2);
}

#[test]
fn a_window_judges_by_the_rate_in_force() {
    let kex = |per_minute| TenantLimits {
        key_exchange_per_minute: Some(per_minute),
        ..TenantLimits::default()
    };
    let mut board = board();
    board.route(own(1, kex(1)));
    let client = board.client();
    assert!(board.say(client, &crate::board::init("a"))[0].starts_with("send"));
    board.route(own(2, kex(3)));
    assert!(board.say(client, &crate::board::init("b"))[0].starts_with("send"));
    assert!(board.say(client, &crate::board::init("c"))[0].starts_with("send"));
    assert!(board.say(client, &crate::board::init("d"))[0].starts_with("close"));
}

#[test]
fn new_limits_of_the_relay_keep_what_is_a_tenant_s_own() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 9);
    board.route(own(1, TenantLimits { daemon_per_minute: Some(2), ..runtime(3) }));
    let (client, stranger) = (board.client(), board.stranger());
    board.relimit(|limits| {
        limits.version = 2;
        limits.runtime_per_minute = 5;
    });
    assert_eq!(board.frames_until_closed(client), 3);
    assert_eq!(board.frames_until_closed(stranger), 5);
}

#[test]
fn a_tenant_s_messages_and_queues_have_their_own_bounds() {
    let limits = TenantLimits {
        frame_bytes_max: Some(300),
        egress_bytes_max: Some(400),
        ..TenantLimits::default()
    };
    let mut board = board();
    board.route(own(1, limits));
    let (daemon, client) = (board.daemon(), board.client());
    let stranger = board.stranger();
    let long = "x".repeat(301);
    assert_eq!(board.say(stranger, &long).len(), 1, "the other workspace may");
    let closed = board.say(client, &long);
    assert_eq!(closed, [format!("close {} 1009 frame too large", client.slot)]);
    let client = board.client();
    // Three fill the queue beyond its bound, the fourth finds it so.
    for _ in 0..3 {
        assert_eq!(board.say(client, &frame("s")), [format!("forward {}", daemon.slot)]);
    }
    let seen = board.say(client, &frame("s"));
    assert_eq!(seen, [format!("close {} 4008 buffer overflow", daemon.slot)]);
}

#[test]
fn a_tenant_may_have_a_longer_queue_than_others() {
    let limits = TenantLimits { egress_bytes_max: Some(4000), ..TenantLimits::default() };
    let mut board = board_with(|limits| limits.egress_bytes_max = 100);
    board.route(own(1, limits));
    let (daemon, client) = (board.daemon(), board.client());
    for _ in 0..8 {
        assert_eq!(board.say(client, &frame("s")), [format!("forward {}", daemon.slot)]);
    }
}

const ON_CONNECT: &str = "send 0 {'type':'relay_status','code':'RELAY_REDIRECT',\
    'message':'Workspace is assigned to a different relay instance','workspaceId':'ws1',\
    'relayWsBaseUrl':'wss://z.example.net/ws'}";

const ON_SEND: &str = "send 0 {'type':'relay_status','code':'RELAY_REDIRECT',\
    'message':'Workspace is assigned to a different relay instance','workspaceId':'ws1',\
    'runtimeTargetId':'rt1','relayWsBaseUrl':'wss://z.example.net/ws'}";

#[test]
fn a_client_whose_daemon_is_elsewhere_is_told_on_connect_and_on_send() {
    let mut board = board();
    board.route(away(1));
    let (client, seen) = board.open(grant(Role::Client));
    assert_eq!(seen[1], ON_CONNECT);
    assert_eq!(board.say(client, &frame("s")), [ON_SEND]);
    assert_eq!(board.count(Counter::ClientRedirect), 2);
    assert_eq!(board.count(Counter::ClientMessagesDropped), 1);
    board.route(Routes { version: 2, ..Routes::default() });
    assert!(board.say(client, &frame("s"))[0].contains("DAEMON_UNAVAILABLE"));
}

#[test]
fn who_asked_for_no_target_is_told_on_send_alone() {
    let mut board = board();
    board.route(away(1));
    let mut untargeted = grant(Role::Client);
    untargeted.request.target_id = None;
    let (client, seen) = board.open(untargeted);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(board.say(client, &frame("s")), [ON_SEND]);
}

#[test]
fn a_daemon_that_is_here_is_not_elsewhere() {
    let mut board = board();
    board.route(away(1));
    let (daemon, seen) = board.open(grant(Role::Daemon));
    assert_eq!(seen.len(), 1, "a daemon is not redirected: {seen:?}");
    let (client, seen) = board.open(grant(Role::Client));
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(board.say(client, &frame("s")), [format!("forward {}", daemon.slot)]);
}

#[test]
fn routes_and_own_limits_outlive_what_is_written_down() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 9);
    board.route(Routes { tenants: own(1, runtime(3)).tenants, ..away(1) });
    let client = board.client();
    let (written, old) = (board.switchboard.write_down(), &board.switchboard);
    let (limits, routes) = (Arc::clone(&old.limits), Arc::clone(old.routes()));
    board.switchboard = Switchboard::restore(&written, limits, routes).unwrap();
    assert_eq!(board.switchboard.routes().version, 1);
    assert_eq!(board.say(client, &frame("s")), [ON_SEND]);
    assert_eq!(board.frames_until_closed(client), 2);
}
