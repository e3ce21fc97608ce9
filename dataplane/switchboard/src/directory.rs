//! Scopes: who can be reached under a workspace and target.

use std::collections::BTreeSet;
use std::sync::Arc;

use relay_contract::{
    ConnectionId, Counter, Limits, ScopeTraffic, ShardReport, TargetId, Tick, WorkspaceId,
};
use serde::{Deserialize, Serialize};

use crate::empty_scopes::{EMPTY_SCOPE_BYTES, empty_scopes_max, generations_max};
use crate::household::{Generations, Remembered};
use crate::key::{Key, KeyMap, Keyer};
use crate::recency::Recency;
use crate::switchboard::Switchboard;
use crate::traffic::Traffic;

/// A workspace, or one target of it, and what its members have to do with each other.
///
/// ```text
///                    opened              daemon
///   (none), Evicted ───────▶ Empty ◀───────────────▶ Daemon only
///              ▲             │   ▲                     ▲
///              └─────────────┘   │ client              │ client
///              empty_scope_ttl   ▼       daemon        ▼
///                           Clients only ◀──────────▶ Both
/// ```
///
/// Away from `Empty` somebody joins, towards it the last of them leaves. A workspace is `Empty` too
/// when a client asked for it alone and its claims led to a target of it. `Evicted` is a scope that
/// is no more, but its daemon generation is remembered until [`generations_max`] later ones crowd
/// it out; without a generation nothing is. It is evicted before its time where more are empty
/// than [`empty_scopes_max`], or memory is short. A worker opens a scope too, and one that has a
/// worker is not evicted; nothing else depends on workers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Scope {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) target_id: Option<TargetId>,
    /// Workspace and target.
    key: Key,
    /// The workspace alone.
    pub(crate) workspace_key: Key,
    /// Order of creation.
    pub(crate) sequence: u64,
    pub(crate) daemon: Option<ConnectionId>,
    /// The highest issue generation of the daemons seen.
    pub(crate) generation: Option<u64>,
    pub(crate) client_count: u32,
    /// Members of any kind; without any the scope is forgotten after a while.
    member_count: u32,
    pub(crate) last_activity: Tick,
    /// Clients waiting for the answer to a key exchange, by request id.
    pub(crate) exchanges: Waiting,
    /// Clients waiting for the answer to a pairing frame, by request id.
    pub(crate) pairings: Waiting,
    /// Owners by session id.
    pub(crate) sessions: Recency<ConnectionId>,
    /// Subscribers by channel, in order of connection.
    pub(crate) subscriptions: BTreeSet<Subscription>,
    /// The machine id last seen, so that equal ones share their text.
    machine_id: Option<Arc<str>>,
    /// What goes through it.
    pub(crate) traffic: Traffic,
    /// Its workspace's own limits, if it has any. Not written down: routes are given anew.
    #[serde(skip)]
    pub(crate) limits: Option<Arc<Limits>>,
    /// What the directory was last told that its tables hold.
    #[serde(skip)]
    counted_bytes: usize,
}

/// A table of a scope that its members fill.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Table {
    /// Who waits for the answer to a key exchange.
    Exchanges,
    /// Who waits for the answer to a pairing frame.
    Pairings,
    /// Who owns a session.
    Sessions,
}

/// One client's subscription to one channel.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) channel: Key,
    pub(crate) sequence: u64,
    pub(crate) subscriber: ConnectionId,
}

impl Scope {
    /// A shared copy of a machine id.
    pub(crate) fn share_machine_id(&mut self, machine_id: &str) -> Arc<str> {
        match &self.machine_id {
            Some(known) if **known == *machine_id => known.clone(),
            _ => self.machine_id.insert(Arc::from(machine_id)).clone(),
        }
    }

    /// Who owns a session. Asking is using: it makes the ownership last.
    pub(crate) fn session_owner(
        &mut self,
        session: Key,
        now: Tick,
        limits: &Limits,
    ) -> Option<ConnectionId> {
        self.sessions.prune(now, limits.session_owner_ttl);
        self.sessions.touch(session, now).copied()
    }

    /// Makes a session's ownership last if `owner` has it.
    pub(crate) fn refresh_session(
        &mut self,
        session: Key,
        owner: ConnectionId,
        now: Tick,
        limits: &Limits,
    ) {
        self.sessions.prune(now, limits.session_owner_ttl);
        self.sessions.touch_if(session, &owner, now);
    }

    /// Gives a session to a client. At most `session_owners_max` are remembered; the one used least
    /// recently goes, as in [`Waiting::track`].
    pub(crate) fn own_session(
        &mut self,
        session: Key,
        owner: ConnectionId,
        now: Tick,
        limits: &Limits,
    ) {
        self.sessions.prune(now, limits.session_owner_ttl);
        self.sessions.shrink(limits.session_owners_max.max(1) - 1);
        self.sessions.put(session, owner, now);
    }

    /// Memory of the tables that its members fill.
    fn held_bytes(&self) -> usize {
        let waiting = self.exchanges.0.held_bytes() + self.pairings.0.held_bytes();
        self.sessions.held_bytes() + waiting
    }

    fn table_mut(&mut self, table: Table) -> &mut Recency<ConnectionId> {
        match table {
            Table::Exchanges => &mut self.exchanges.0,
            Table::Pairings => &mut self.pairings.0,
            Table::Sessions => &mut self.sessions,
        }
    }

    pub(crate) fn member_count(&self) -> u32 {
        self.member_count
    }

    /// Nobody is a member any more.
    pub(crate) fn forget_members(&mut self) {
        self.member_count = 0;
        self.client_count = 0;
    }

    /// Workspace and target.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// The scope's name in logs.
    pub(crate) fn name(&self) -> String {
        match &self.target_id {
            Some(target) => format!("{}:{target}", self.workspace_id),
            None => self.workspace_id.to_string(),
        }
    }
}

/// Clients waiting for an answer, by request id. An answer is delivered once.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Waiting(Recency<ConnectionId>);

impl Waiting {
    /// Remembers who waits; a request of the same id is replaced. When full the oldest goes first,
    /// even where the id is known already. Source: relay specification, section 6.
    pub(crate) fn track(&mut self, request: Key, client: ConnectionId, now: Tick, limits: &Limits) {
        self.0.prune(now, limits.pending_request_ttl);
        self.0.shrink(limits.pending_requests_max.max(1) - 1);
        self.0.put(request, client, now);
    }

    /// Who waits, and does so no longer.
    pub(crate) fn take(
        &mut self,
        request: Key,
        now: Tick,
        limits: &Limits,
    ) -> Option<ConnectionId> {
        self.0.prune(now, limits.pending_request_ttl);
        self.0.remove(request)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Who waits, by request.
    pub(crate) fn table_mut(&mut self) -> &mut Recency<ConnectionId> {
        &mut self.0
    }
}

/// All scopes of a shard.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Directory {
    scopes: Vec<Option<Box<Scope>>>,
    free: Vec<u32>,
    #[serde(skip)]
    by_key: KeyMap<u32>,
    /// Scopes without members, by the moment of their last use.
    empty: Recency<u32>,
    /// Daemon generations of scopes that were forgotten: a stale daemon must not come back because
    /// its scope was empty for a while.
    generations: Generations,
    sequence: u64,
    /// Memory of the tables of all scopes.
    #[serde(skip)]
    tables_bytes: usize,
    /// Memory of the table of generations, which grows when one is added and at no other time.
    #[serde(skip)]
    generations_bytes: usize,
}

impl Directory {
    /// The key of a workspace and target. Workspace and target are told apart even where their ids
    /// contain the separator of their names.
    pub(crate) fn key(keyer: &Keyer, workspace: &WorkspaceId, target: Option<&TargetId>) -> Key {
        match target {
            Some(target) => {
                keyer.texts([workspace.as_str().as_bytes(), target.as_str().as_bytes()])
            }
            None => keyer.text(workspace.as_str().as_bytes()),
        }
    }

    pub(crate) fn find(&self, key: Key) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    /// The highest daemon generation seen under a key, whether the scope still exists or not.
    pub(crate) fn generation(&self, key: Key) -> Option<u64> {
        match self.find(key) {
            Some(scope) => self.scope(scope).generation,
            None => self.generations.get(key).map(|(remembered, _)| remembered.generation),
        }
    }

    /// The scope of a workspace and target, made if there is none.
    pub(crate) fn open(
        &mut self,
        keyer: &Keyer,
        workspace: &WorkspaceId,
        target: Option<&TargetId>,
        now: Tick,
    ) -> u32 {
        let key = Self::key(keyer, workspace, target);
        let at = self.find(key).unwrap_or_else(|| {
            let workspace_key = keyer.text(workspace.as_str().as_bytes());
            let remembered = self.generations.remove(key);
            let sequence = self.sequence;
            self.sequence += 1;
            let scope = Scope {
                workspace_id: workspace.clone(),
                target_id: target.cloned(),
                key,
                workspace_key,
                sequence,
                daemon: None,
                generation: remembered.map(|remembered| remembered.generation),
                client_count: 0,
                member_count: 0,
                last_activity: now,
                exchanges: Waiting::default(),
                pairings: Waiting::default(),
                sessions: Recency::default(),
                subscriptions: BTreeSet::new(),
                machine_id: None,
                traffic: Traffic::default(),
                limits: None,
                counted_bytes: 0,
            };
            self.place(scope)
        });
        self.scope_mut(at).last_activity = now;
        if self.scope(at).member_count == 0 {
            self.empty.put(key, at, now);
        }
        at
    }

    /// Remembers who waits for an answer, or owns a session. Returns whether an earlier entry of
    /// the same table had to go although the scope may have more: there is no memory for it.
    pub(crate) fn remember(
        &mut self,
        at: u32,
        table: Table,
        (key, client): (Key, ConnectionId),
        now: Tick,
        relay: &Limits,
    ) -> bool {
        let is_full = self.tables_bytes >= relay.memory_bytes_max / TABLES_PART;
        let scope = self.scope_mut(at);
        let entries = scope.table_mut(table);
        let before = entries.len();
        if is_full {
            // The place of the oldest is used again, so that nothing grows.
            entries.shrink(before.saturating_sub(1));
        }
        let has_crowded_out = entries.len() < before;
        match table {
            Table::Exchanges => scope.exchanges.track(key, client, now, relay),
            Table::Pairings => scope.pairings.track(key, client, now, relay),
            Table::Sessions => scope.own_session(key, client, now, relay),
        }
        self.count_tables(at);
        has_crowded_out
    }

    /// Counts what the tables of a scope hold now; empty ones give their memory back.
    pub(crate) fn count_tables(&mut self, at: u32) {
        let scope = self.scope_mut(at);
        for table in [Table::Exchanges, Table::Pairings, Table::Sessions] {
            let entries = scope.table_mut(table);
            if entries.is_empty() {
                entries.clear();
            }
        }
        let bytes = scope.held_bytes();
        let before = std::mem::replace(&mut scope.counted_bytes, bytes);
        self.tables_bytes += bytes;
        self.tables_bytes -= before;
    }

    /// Memory of the tables that members of all scopes fill, and of what is known of forgotten
    /// scopes.
    pub(crate) fn tables_bytes(&self) -> usize {
        self.tables_bytes + self.generations_bytes
    }

    /// Memory of scopes that nobody is in, without their tables.
    pub(crate) fn empty_scopes_bytes(&self) -> usize {
        self.empty.len() * EMPTY_SCOPE_BYTES
    }

    /// Memory of one workspace's scopes that no member is charged for.
    pub(crate) fn bytes_of(&self, workspace: &WorkspaceId) -> usize {
        let scopes = self.scopes.iter().flatten();
        let its = scopes.filter(|scope| scope.workspace_id == *workspace);
        its.map(|scope| {
            scope.counted_bytes + if scope.member_count == 0 { EMPTY_SCOPE_BYTES } else { 0 }
        })
        .sum()
    }

    /// A member joins a scope.
    pub(crate) fn join(&mut self, at: u32) {
        let scope = self.scope_mut(at);
        scope.member_count += 1;
        let key = scope.key;
        self.empty.remove(key);
    }

    /// A member leaves its scope.
    pub(crate) fn part(&mut self, at: u32, now: Tick) {
        let scope = self.scope_mut(at);
        scope.last_activity = now;
        scope.member_count -= 1;
        let (key, is_empty) = (scope.key, scope.member_count == 0);
        if is_empty {
            // A set that has become empty keeps memory.
            (scope.machine_id, scope.subscriptions) = (None, BTreeSet::new());
        }
        self.count_tables(at);
        if is_empty {
            self.empty.put(key, at, now);
        }
    }

    /// Scopes without members beyond those there is room for.
    pub(crate) fn empty_excess(&self, limits: &Limits) -> usize {
        self.empty.len().saturating_sub(empty_scopes_max(limits))
    }

    /// Whether a scope has been empty long enough to be forgotten.
    pub(crate) fn has_due_empty(&self, now: Tick, limits: &Limits) -> bool {
        let oldest = self.empty.oldest();
        oldest.is_some_and(|(_, _, since)| now.since(since) >= limits.empty_scope_ttl)
    }

    /// Forgets the scope that has been empty longest.
    pub(crate) fn evict(&mut self, now: Tick, limits: &Limits) -> Option<Box<Scope>> {
        let (key, at, _) = self.empty.oldest()?;
        self.empty.remove(key);
        self.by_key.remove(&key);
        self.free.push(at);
        let scope = self.scopes.get_mut(at as usize)?.take()?;
        self.tables_bytes -= scope.counted_bytes;
        if let Some(generation) = scope.generation {
            let workspace = scope.workspace_key;
            self.generations.put(key, Remembered { generation, workspace }, now);
            self.settle_generations(limits);
        }
        Some(scope)
    }

    /// Takes all scopes of a workspace out, each with its index.
    pub(crate) fn take_out(&mut self, workspace: &WorkspaceId) -> Vec<(u32, Box<Scope>)> {
        let places = (0..).zip(&self.scopes).filter_map(|(at, scope)| {
            scope.as_deref().is_some_and(|scope| scope.workspace_id == *workspace).then_some(at)
        });
        let places: Vec<u32> = places.collect();
        let mut out = Vec::with_capacity(places.len());
        for at in places {
            if let Some(mut scope) = self.scopes[at as usize].take() {
                self.tables_bytes -= std::mem::take(&mut scope.counted_bytes);
                self.empty.remove(scope.key);
                self.by_key.remove(&scope.key);
                self.free.push(at);
                out.push((at, scope));
            }
        }
        out.sort_unstable_by_key(|(_, scope)| scope.sequence);
        out
    }

    /// Takes a scope in, without members. One that is here already under its name keeps its members
    /// and has the newcomer's daemon if it has none; what is known of sessions is the newcomer's.
    pub(crate) fn take_in(&mut self, mut scope: Box<Scope>, now: Tick) -> u32 {
        let key = scope.key;
        if let Some(at) = self.find(key) {
            let mine = self.scope_mut(at);
            mine.daemon = mine.daemon.or(scope.daemon);
            mine.generation = mine.generation.max(scope.generation);
            mine.exchanges = scope.exchanges;
            mine.pairings = scope.pairings;
            mine.sessions = scope.sessions;
            mine.subscriptions.append(&mut scope.subscriptions);
            mine.traffic = scope.traffic;
            self.count_tables(at);
            return at;
        }
        scope.sequence = self.sequence;
        self.sequence += 1;
        // Whoever comes with it brings the text along.
        scope.machine_id = None;
        let at = self.place(*scope);
        self.count_tables(at);
        self.empty.put(key, at, now);
        at
    }

    /// Takes the remembered generations of a workspace out.
    pub(crate) fn take_generations(&mut self, workspace: Key) -> Vec<(Key, u64, Tick)> {
        let its = self.generations.iter().filter(|(_, found, _)| found.workspace == workspace);
        let its: Vec<_> = its.map(|(key, found, used)| (key, found.generation, used)).collect();
        for (key, _, _) in &its {
            self.generations.remove(*key);
        }
        its
    }

    /// Remembers generations of a workspace.
    pub(crate) fn add_generations(
        &mut self,
        workspace: Key,
        its: Vec<(Key, u64, Tick)>,
        limits: &Limits,
    ) {
        for (key, generation, used) in its {
            self.generations.put(key, Remembered { generation, workspace }, used);
        }
        self.settle_generations(limits);
    }

    /// Keeps the table of generations within its bound, and counts its memory.
    fn settle_generations(&mut self, limits: &Limits) {
        self.generations.shrink(generations_max(limits));
        self.generations_bytes = self.generations.held_bytes();
    }

    pub(crate) fn has_empty(&self) -> bool {
        !self.empty.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Scope)> + '_ {
        (0..).zip(&self.scopes).filter_map(|(at, scope)| Some((at, scope.as_deref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Scope> + '_ {
        self.scopes.iter_mut().flatten().map(|scope| &mut **scope)
    }

    /// The scopes with most frames lately, most first.
    pub(crate) fn hottest(&self, now: Tick) -> Vec<ScopeTraffic> {
        let mut hottest: Vec<(f64, f64, &Scope)> = Vec::new();
        for (_, scope) in self.iter() {
            let (frames, bytes) = scope.traffic.per_second(now);
            let at = hottest.partition_point(|other| other.0 >= frames);
            if frames > 0.0 && at < ShardReport::HOTTEST_MAX {
                hottest.truncate(ShardReport::HOTTEST_MAX - 1);
                hottest.insert(at, (frames, bytes, scope));
            }
        }
        let named = |(frames_per_s, bytes_per_s, scope): (f64, f64, &Scope)| ScopeTraffic {
            workspace_id: scope.workspace_id.clone(),
            target_id: scope.target_id.clone(),
            frames_per_s,
            bytes_per_s,
        };
        hottest.into_iter().map(named).collect()
    }

    /// How many scopes there ever were at once.
    pub(crate) fn slot_count(&self) -> usize {
        self.scopes.len()
    }

    pub(crate) fn contains(&self, at: u32) -> bool {
        self.scopes.get(at as usize).is_some_and(Option::is_some)
    }

    pub(crate) fn scope(&self, at: u32) -> &Scope {
        self.scopes[at as usize].as_deref().expect("members keep their scope alive")
    }

    pub(crate) fn scope_mut(&mut self, at: u32) -> &mut Scope {
        self.scopes[at as usize].as_deref_mut().expect("members keep their scope alive")
    }

    /// Builds the index anew, which is not written down. `false` when the parts contradict each
    /// other.
    pub(crate) fn reindex(&mut self) -> bool {
        let by_key = self.iter().map(|(at, scope)| (scope.key, at)).collect();
        self.by_key = by_key;
        self.generations_bytes = self.generations.held_bytes();
        self.tables_bytes = 0;
        for scope in self.scopes.iter_mut().flatten() {
            scope.counted_bytes = scope.held_bytes();
            self.tables_bytes += scope.counted_bytes;
        }
        let scopes = self.scopes.iter().flatten().count();
        let empty = self.empty.iter().all(|(key, at, _)| {
            let scope = self.scopes.get(at as usize).and_then(Option::as_deref);
            scope.is_some_and(|scope| scope.key == key && scope.member_count == 0)
        });
        empty
            && scopes == self.by_key.len()
            && scopes + self.free.len() == self.scopes.len()
            && self.free.iter().all(|&at| (at as usize) < self.scopes.len() && !self.contains(at))
    }

    fn place(&mut self, scope: Scope) -> u32 {
        let key = scope.key;
        let scope = Some(Box::new(scope));
        let at = match self.free.pop() {
            Some(at) => {
                self.scopes[at as usize] = scope;
                at
            }
            None => {
                self.scopes.push(scope);
                u32::try_from(self.scopes.len() - 1).expect("scopes are fewer than connections")
            }
        };
        self.by_key.insert(key, at);
        at
    }
}

impl Switchboard {
    /// Remembers who waits for an answer, or owns a session.
    pub(crate) fn remember(
        &mut self,
        now: Tick,
        at: u32,
        table: Table,
        entry: (Key, ConnectionId),
    ) {
        if self.core.directory.remember(at, table, entry, now, &self.limits) {
            self.counters.count(Counter::ScopeEntriesCrowdedOut);
        }
    }

    /// Memory of what scopes remember of sessions and of requests that wait, and of the generations
    /// of scopes that were forgotten.
    pub fn tables_bytes(&self) -> usize {
        self.core.directory.tables_bytes()
    }
}

/// The part of a shard's memory that the tables of its scopes may hold. Protects the memory of
/// connections from members who work together. Reached: a scope forgets its oldest entry for each
/// new one, and that is counted. Source: a quarter of what strangers and the last connections in
/// are kept for; 4,096 sessions take half a MiB.
const TABLES_PART: usize = 8;

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
