//! The whole of what follows in each state of a scope from what its members do, and from time.

use std::fmt::Write;
use std::time::Duration;

use relay_contract::{AdmissionId, ConnectionId, Counter, Counters, Grant, Role, Scope, ShardId};

use super::{Directory, EMPTY_SCOPE_BYTES, Waiting};
use crate::Input;
use crate::board::{
    Board, assert_reviewed, board_with, frame, grant, init, key_update, offer, redeemed, response,
    subscribe,
};

/// What a scope can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    None,
    Empty,
    DaemonOnly,
    ClientsOnly,
    Both,
    WorkersOnly,
    Evicted,
}

/// Who comes while the generation seen last, if any, is [`GENERATION`].
#[derive(Clone, Copy, Debug)]
enum Newcomer {
    NewerDaemon,
    EqualDaemon,
    OlderDaemon,
    DaemonWithoutGeneration,
    RuntimeClient,
    PairingClient,
    EventsClient,
    Worker,
}

/// Who is in the scope, where its state has one.
#[derive(Clone, Copy, Debug)]
enum Resident {
    Daemon,
    RuntimeClient,
    PairingClient,
    Worker,
}

#[derive(Clone, Copy, Debug)]
enum Words {
    Encrypted,
    KeyExchangeInit,
    KeyExchangeResponse,
    KeyUpdate,
    PairingRequest,
    PairingResponse,
    Invalid,
}

#[derive(Clone, Copy, Debug)]
enum Lapse {
    Request,
    Emptiness,
    Session,
}

/// What happens to a scope.
#[derive(Clone, Copy, Debug)]
enum Event {
    Opens(Newcomer),
    Says(Resident, Words),
    Leaves(Resident),
    ClientsLeave,
    Elapses(Lapse),
}

impl Stage {
    const ALL: [Self; 7] = [
        Self::None,
        Self::Empty,
        Self::DaemonOnly,
        Self::ClientsOnly,
        Self::Both,
        Self::WorkersOnly,
        Self::Evicted,
    ];

    fn of(directory: &Directory, key: super::Key) -> Self {
        let Some(at) = directory.find(key) else {
            return directory.generation(key).map_or(Self::None, |_| Self::Evicted);
        };
        let scope = directory.scope(at);
        match (scope.daemon, scope.client_count, scope.member_count) {
            (None, 0, 0) => Self::Empty,
            (None, 0, 1..) => Self::WorkersOnly,
            (None, 1.., _) => Self::ClientsOnly,
            (Some(_), 0, _) => Self::DaemonOnly,
            (Some(_), 1.., _) => Self::Both,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "no scope",
            Self::Empty => "empty",
            Self::DaemonOnly => "daemon only",
            Self::ClientsOnly => "clients only",
            Self::Both => "both",
            Self::WorkersOnly => "workers only",
            Self::Evicted => "evicted",
        }
    }

    /// A board whose scope `ws1:rt1` is in that state. Each but the first has seen a daemon of
    /// [`GENERATION`]. The runtime client awaits the answer to `k1` and, beside a daemon, owns
    /// `s1`; the pairing client awaits the answer to `p1`.
    fn reach(self) -> Board {
        let mut board = board_with(|limits| {
            // No pings: time is to tell on the scope, not on its members.
            limits.heartbeat.ping_interval = A_DAY;
            limits.heartbeat.idle_timeout = A_DAY;
            limits.pending_request_ttl = REQUEST_TTL;
        });
        if self != Self::None {
            Resident::Daemon.open(&mut board);
        }
        match self {
            Self::None | Self::DaemonOnly => {}
            Self::Empty => drop(Resident::Daemon.close(&mut board)),
            Self::ClientsOnly => {
                Resident::Daemon.close(&mut board);
                Resident::RuntimeClient.open(&mut board);
                Resident::PairingClient.open(&mut board);
                Resident::RuntimeClient.say(&mut board, &init("k1"));
                Resident::PairingClient.say(&mut board, &offer("p1"));
            }
            Self::Both => {
                Resident::RuntimeClient.open(&mut board);
                Resident::PairingClient.open(&mut board);
                Resident::RuntimeClient.say(&mut board, &init("k0"));
                Resident::Daemon.say(&mut board, &response("k0", "s1"));
                Resident::RuntimeClient.say(&mut board, &init("k1"));
                Resident::PairingClient.say(&mut board, &offer("p1"));
            }
            Self::WorkersOnly => {
                Resident::Daemon.close(&mut board);
                Resident::Worker.open(&mut board);
            }
            Self::Evicted => {
                Resident::Daemon.close(&mut board);
                Lapse::Emptiness.pass(&mut board);
            }
        }
        assert!(facts(&mut board).starts_with(self.name()));
        board
    }
}

impl Newcomer {
    const ALL: [Self; 8] = [
        Self::NewerDaemon,
        Self::EqualDaemon,
        Self::OlderDaemon,
        Self::DaemonWithoutGeneration,
        Self::RuntimeClient,
        Self::PairingClient,
        Self::EventsClient,
        Self::Worker,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::NewerDaemon => "daemon of generation 6",
            Self::EqualDaemon => "daemon of generation 5",
            Self::OlderDaemon => "daemon of generation 4",
            Self::DaemonWithoutGeneration => "daemon without generation",
            Self::RuntimeClient => "runtime client",
            Self::PairingClient => "pairing client",
            Self::EventsClient => "session-events client",
            Self::Worker => "worker",
        }
    }

    fn grant(self) -> Grant {
        let daemon = |generation| {
            let mut daemon = grant(Role::Daemon);
            daemon.claims.daemon_issue_generation = generation;
            daemon
        };
        let client = |scope| {
            let mut client = grant(Role::Client);
            client.claims.scope = Some(scope);
            client
        };
        match self {
            Self::NewerDaemon => daemon(Some(GENERATION + 1)),
            Self::EqualDaemon => daemon(Some(GENERATION)),
            Self::OlderDaemon => daemon(Some(GENERATION - 1)),
            Self::DaemonWithoutGeneration => daemon(None),
            Self::RuntimeClient => client(Scope::Runtime),
            Self::PairingClient => client(Scope::Pairing),
            Self::EventsClient => client(Scope::SessionEvents),
            Self::Worker => {
                let mut worker = grant(Role::Worker);
                worker.claims.runtime_target_id = Some("rt1".into());
                worker
            }
        }
    }

    fn open_in(self, slot: u32, board: &mut Board) -> Vec<String> {
        let grant = Grant { admission: AdmissionId(slot.into()), ..self.grant() };
        board.see(Input::Opened { connection: in_slot(slot), grant: Box::new(grant) })
    }
}

impl Resident {
    const ALL: [Self; 4] = [Self::Daemon, Self::RuntimeClient, Self::PairingClient, Self::Worker];

    fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::RuntimeClient => "runtime client",
            Self::PairingClient => "pairing client",
            Self::Worker => "worker",
        }
    }

    fn slot(self) -> u32 {
        match self {
            Self::Daemon => 0,
            Self::RuntimeClient => 1,
            Self::PairingClient => 2,
            Self::Worker => 3,
        }
    }

    fn open(self, board: &mut Board) {
        let newcomer = match self {
            Self::Daemon => Newcomer::EqualDaemon,
            Self::RuntimeClient => Newcomer::RuntimeClient,
            Self::PairingClient => Newcomer::PairingClient,
            Self::Worker => Newcomer::Worker,
        };
        newcomer.open_in(self.slot(), board);
    }

    fn say(self, board: &mut Board, text: &str) -> Vec<String> {
        board.say_logged(in_slot(self.slot()), text)
    }

    fn close(self, board: &mut Board) -> Vec<String> {
        board.close(in_slot(self.slot()))
    }
}

impl Words {
    const ALL: [Self; 7] = [
        Self::Encrypted,
        Self::KeyExchangeInit,
        Self::KeyExchangeResponse,
        Self::KeyUpdate,
        Self::PairingRequest,
        Self::PairingResponse,
        Self::Invalid,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Encrypted => "encrypted frame of s1",
            Self::KeyExchangeInit => "key exchange init k2",
            Self::KeyExchangeResponse => "key exchange response k1 for s2",
            Self::KeyUpdate => "key update of s1",
            Self::PairingRequest => "pairing request p2",
            Self::PairingResponse => "pairing response p1",
            Self::Invalid => "invalid",
        }
    }

    fn text(self) -> String {
        match self {
            Self::Encrypted => frame("s1"),
            Self::KeyExchangeInit => init("k2"),
            Self::KeyExchangeResponse => response("k1", "s2"),
            Self::KeyUpdate => key_update("s1"),
            Self::PairingRequest => offer("p2"),
            Self::PairingResponse => redeemed("p1"),
            Self::Invalid => "x".to_owned(),
        }
    }
}

impl Lapse {
    const ALL: [Self; 3] = [Self::Request, Self::Emptiness, Self::Session];

    fn name(self) -> &'static str {
        match self {
            Self::Request => "pending request ttl",
            Self::Emptiness => "empty scope ttl",
            Self::Session => "session owner ttl",
        }
    }

    /// Passes the time and one millisecond more.
    fn pass(self, board: &mut Board) -> Vec<String> {
        let limits = &board.switchboard.limits;
        let ttl = match self {
            Self::Request => limits.pending_request_ttl,
            Self::Emptiness => limits.empty_scope_ttl,
            Self::Session => limits.session_owner_ttl,
        };
        let ms: u64 = ttl.as_millis().try_into().expect("a ttl is hours at most");
        board.pass(ms + 1)
    }
}

impl Event {
    fn all() -> Vec<Self> {
        let opens = Newcomer::ALL.map(Self::Opens);
        let speakers = [Resident::RuntimeClient, Resident::PairingClient, Resident::Daemon];
        let says = speakers.map(|speaker| Words::ALL.map(|words| Self::Says(speaker, words)));
        let leaves = Resident::ALL.map(Self::Leaves);
        let elapses = Lapse::ALL.map(Self::Elapses);
        let says = says.as_flattened();
        [opens.as_slice(), says, &leaves, &[Self::ClientsLeave], &elapses].concat()
    }

    fn name(self) -> String {
        match self {
            Self::Opens(newcomer) => format!("{} opens", newcomer.name()),
            Self::Says(speaker, words) => format!("{}: {}", speaker.name(), words.name()),
            Self::Leaves(resident) => format!("{} leaves", resident.name()),
            Self::ClientsLeave => "both clients leave".to_owned(),
            Self::Elapses(lapse) => format!("{} elapses", lapse.name()),
        }
    }

    fn happen(self, board: &mut Board) -> Vec<String> {
        match self {
            Self::Opens(newcomer) => newcomer.open_in(NEWCOMER_SLOT, board),
            Self::Says(speaker, words) => speaker.say(board, &words.text()),
            Self::Leaves(resident) => resident.close(board),
            Self::ClientsLeave => {
                let clients = [Resident::RuntimeClient, Resident::PairingClient];
                clients.into_iter().flat_map(|client| client.close(board)).collect()
            }
            Self::Elapses(lapse) => lapse.pass(board),
        }
    }
}

fn in_slot(slot: u32) -> ConnectionId {
    ConnectionId { shard: ShardId(0), slot, generation: 0 }
}

/// The state of the scope `ws1:rt1` and what it holds, as far as it has not lapsed.
fn facts(board: &mut Board) -> String {
    let (now, limits) = (board.now, board.switchboard.limits.clone());
    let core = &mut board.switchboard.core;
    let key = Directory::key(&core.keyer, &"ws1".into(), Some(&"rt1".into()));
    let mut facts = Stage::of(&core.directory, key).name().to_owned();
    let mut add = |what: &str, count: u64| {
        if count > 0 {
            write!(facts, ", {what} {count}").expect("strings grow");
        }
    };
    add("generation", core.directory.generation(key).unwrap_or(0));
    if let Some(at) = core.directory.find(key) {
        let scope = core.directory.scope_mut(at);
        scope.exchanges.0.prune(now, limits.pending_request_ttl);
        scope.pairings.0.prune(now, limits.pending_request_ttl);
        scope.sessions.prune(now, limits.session_owner_ttl);
        let daemon_count = u32::from(scope.daemon.is_some());
        add("clients", scope.client_count.into());
        add("workers", (scope.member_count - scope.client_count - daemon_count).into());
        add("key exchanges", scope.exchanges.0.len() as u64);
        add("pairings", scope.pairings.0.len() as u64);
        add("sessions", scope.sessions.len() as u64);
    }
    facts
}

/// The counters that moved.
fn counted<'c>(before: &'c Counters, after: &'c Counters) -> impl Iterator<Item = &'static str> {
    let moved = |counter: &&Counter| before.of(**counter) != after.of(**counter);
    Counter::ALL.iter().filter(moved).map(|counter| counter.name())
}

#[test]
fn each_event_in_each_state_of_a_scope_does_what_was_reviewed() {
    let mut table = String::from(LEGEND);
    for stage in Stage::ALL {
        writeln!(table, "\n{}", facts(&mut stage.reach())).expect("strings grow");
        for event in Event::all() {
            let mut board = stage.reach();
            let before = (facts(&mut board), board.switchboard.counters().clone());
            let effects = event.happen(&mut board);
            let after = facts(&mut board);
            let after = if after == before.0 { "unchanged" } else { &after };
            writeln!(table, "  {} -> {after}", event.name()).expect("strings grow");
            for effect in effects {
                writeln!(table, "      {effect}").expect("strings grow");
            }
            for counter in counted(&before.1, board.switchboard.counters()) {
                writeln!(table, "      count {counter}").expect("strings grow");
            }
        }
    }
    assert_reviewed("scopes.txt", &table);
}

const LEGEND: &str = "\
Slots: 0 the daemon, 1 the runtime client, 2 the pairing client, 3 the worker, 4 who comes.
Who is not there is not heard: 0 to 3 have left, or were never there.
What elapses is told in ms since the clock's origin; the others begin at 1000.
";

/// Of the daemon that each scope has seen.
const GENERATION: u64 = 5;

const NEWCOMER_SLOT: u32 = 4;

const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Shorter than a scope stays empty, so that one can be told from the other.
const REQUEST_TTL: Duration = Duration::from_secs(60);

/// A daemon and a client of each of some workspaces, who open sessions together.
fn conspire(board: &mut Board, workspaces: usize, sessions: usize) {
    for workspace in 0..workspaces {
        let name = format!("ws{workspace}");
        let [daemon, client] = [Role::Daemon, Role::Client].map(|role| {
            let mut grant = grant(role);
            grant.request.workspace_id = name.as_str().into();
            grant.claims.workspace_id = Some(name.as_str().into());
            board.open(grant).0
        });
        for session in 0..sessions {
            let (request, session) = (format!("r{session}"), format!("s{session}"));
            board.say(client, &init(&request));
            let answer = board.say(daemon, &response(&request, &session));
            assert!(answer[0].starts_with(&format!("forward {}", client.slot)), "{answer:?}");
            // One more waits for ever.
            board.say(client, &init(&session));
        }
    }
}

#[test]
fn what_scopes_remember_has_a_share_of_memory_and_no_more() {
    const MEMORY: usize = 1 << 20;
    let mut board = board_with(|limits| {
        limits.memory_bytes_max = MEMORY;
        limits.key_exchange_per_minute = u32::MAX;
    });
    conspire(&mut board, 20, 200);
    let most = board.switchboard.tables_bytes();
    assert!((MEMORY / 8..MEMORY / 4).contains(&most), "{most} bytes");
    assert!(board.count(Counter::ScopeEntriesCrowdedOut) > 1000);
    let summed: usize = board
        .switchboard
        .core
        .directory
        .iter()
        .map(|(_, scope)| {
            let Waiting(exchanges) = &scope.exchanges;
            let Waiting(pairings) = &scope.pairings;
            scope.sessions.held_bytes() + exchanges.held_bytes() + pairings.held_bytes()
        })
        .sum();
    assert_eq!(most, summed, "the account is exact");
    for slot in 0..40 {
        board.close(ConnectionId { shard: ShardId(0), slot, generation: 0 });
    }
    assert_eq!(board.switchboard.tables_bytes(), 0, "all of it comes back");
}

#[test]
fn generations_of_forgotten_scopes_have_a_share_of_memory_and_no_more() {
    const MEMORY: usize = 1 << 20;
    let mut board = board_with(|limits| {
        limits.memory_bytes_max = MEMORY;
        limits.empty_scope_ttl = Duration::from_millis(100);
        limits.cleanup_interval = Duration::from_millis(100);
    });
    for number in 0..3000 {
        let mut grant = grant(Role::Daemon);
        grant.claims.daemon_issue_generation = Some(5);
        board.visit(grant, &format!("rt{number}"));
    }
    board.pass(1000);
    assert_eq!(board.scopes(), [""; 0]);
    let held = board.switchboard.tables_bytes();
    assert!((MEMORY / 40..=MEMORY / 16).contains(&held), "{held} bytes");
}

#[test]
fn scopes_that_nobody_is_in_have_a_share_of_memory_and_no_more() {
    const MEMORY: usize = 1 << 20;
    const TARGETS: u64 = 3000;
    let mut board = board_with(|limits| limits.memory_bytes_max = MEMORY);
    let mut before = 0;
    for number in 0..TARGETS {
        let mut grant = grant(Role::Daemon);
        grant.claims.daemon_issue_generation = (number == TARGETS - 100).then_some(5);
        board.visit(grant, &format!("rt{number}"));
        let held = board.switchboard.empty_scopes_bytes();
        assert!(held <= MEMORY / 16, "{held} bytes");
        let now = board.count(Counter::ScopesCrowdedOut);
        assert!(now <= before + 1, "one is left, {} go", now - before);
        before = now;
    }
    let left = board.scopes();
    let kept = MEMORY / 16 / EMPTY_SCOPE_BYTES;
    let is_kept = |number| left.iter().any(|line| line.contains(&format!(":rt{number} ")));
    assert_eq!((left.len(), before), (kept, TARGETS - kept as u64));
    assert!(is_kept(TARGETS - 1) && !is_kept(TARGETS - 100), "who was left first goes first");
    // What has to be known of it is.
    let mut stale = grant(Role::Daemon);
    stale.claims.daemon_issue_generation = Some(4);
    stale.request.target_id = Some("rt2900".into());
    stale.claims.runtime_target_id = Some("rt2900".into());
    let (_, seen) = board.open(stale);
    assert!(seen.iter().any(|line| line.contains("stale daemon generation")), "{seen:?}");
}

#[test]
fn where_memory_is_short_as_many_empty_scopes_go_as_are_in_the_way() {
    let mut board = board_with(|_| {});
    for number in 0..40 {
        board.visit(grant(Role::Daemon), &format!("left{number}"));
    }
    let here = board.daemon();
    for (bytes, left) in [(1, 40), (3 * EMPTY_SCOPE_BYTES, 37), (usize::MAX, 1), (1, 1)] {
        board.see(Input::MemoryShort { bytes });
        assert_eq!(board.scopes().len(), left);
    }
    assert_eq!(board.switchboard.empty_scopes_bytes(), 0);
    assert_eq!(board.count(Counter::ScopesCrowdedOut), 40);
    assert!(board.switchboard.seat(here).is_some(), "whoever is here stays");
}

#[test]
fn an_empty_scope_holds_no_more_than_it_is_counted_for() {
    // Tables have just doubled.
    const TARGETS: usize = 513;
    let mut board = board_with(|_| {});
    let longest = |number: usize| format!("{number:03}{}", "\u{ffff}".repeat(125));
    let cost = allocation_counter::measure(|| {
        for number in 0..TARGETS {
            let mut grant = grant(Role::Client);
            grant.claims.scope = Some(Scope::SessionEvents);
            grant.request.workspace_id = longest(number).as_str().into();
            grant.claims.workspace_id = Some(longest(number).into());
            grant.claims.machine_id = Some("m".repeat(255).into());
            grant.request.target_id = Some(longest(number).into());
            grant.claims.runtime_target_id = Some(longest(number).into());
            let (viewer, _) = board.open(grant);
            let seen = board.say(viewer, &subscribe("agent-session:s1"));
            assert_eq!(seen.len(), 1, "{seen:?}");
            board.close(viewer);
        }
    });
    let counted = board.switchboard.empty_scopes_bytes();
    assert_eq!(counted, TARGETS * EMPTY_SCOPE_BYTES);
    let held = usize::try_from(cost.bytes_current).expect("scopes take memory");
    assert!(held <= counted, "{held} bytes held where {counted} are counted");
    assert!(held >= counted / 2, "{held} bytes held where {counted} are counted");
}

#[test]
fn what_scopes_remember_is_not_cut_while_there_is_memory() {
    let mut board = board_with(|limits| limits.key_exchange_per_minute = u32::MAX);
    conspire(&mut board, 4, 200);
    assert_eq!(board.count(Counter::ScopeEntriesCrowdedOut), 0);
}
