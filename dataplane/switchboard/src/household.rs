//! A workspace taken out of one switchboard and into another of the same process.

use std::collections::{BTreeSet, HashMap};

use relay_contract::{AdmissionId, ConnectionId, Tick, WorkspaceId};

use crate::connection::{Client, Member, Part, State};
use crate::deadline::Timer;
use crate::directory::{Scope, Subscription, Waiting};
use crate::key::Key;
use crate::limiter::Quotas;
use crate::recency::Recency;
use crate::switchboard::Switchboard;

/// All that a switchboard knows of one workspace: its scopes with owners, waiting requests and
/// subscriptions, its open connections with their clocks, the generations of its daemons, and what
/// is left of its rates.
///
/// Shape: plain values that may go to another thread; connections are named as they were. What
/// stays behind are rates of clients that are not connected, of which nothing says whose they are;
/// they last two minutes at most.
#[derive(Debug)]
pub struct Household {
    workspace: Key,
    #[allow(clippy::vec_box, reason = "the boxes go into the directory as they are")]
    scopes: Vec<Box<Scope>>,
    /// In order of connection; scopes are indices into the list above.
    members: Vec<(ConnectionId, Member)>,
    /// Of scopes that were forgotten.
    generations: Vec<(Key, u64, Tick)>,
    quotas: Quotas,
}

impl Household {
    /// The open connections, by the names they had, with their admissions.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, AdmissionId)> + '_ {
        self.members.iter().map(|(id, member)| (*id, member.admission))
    }
}

impl Switchboard {
    /// The open connections of a workspace. Cost: linear in connections.
    pub fn members_of(&self, workspace: &WorkspaceId) -> Vec<ConnectionId> {
        let core = &self.core;
        let is_its = |scope: u32| core.directory.scope(scope).workspace_id == *workspace;
        let members = core.connections.iter().filter_map(|(id, connection)| {
            matches!(&connection.state, State::Open(member) if is_its(member.scope)).then_some(id)
        });
        members.collect()
    }

    /// Whether a connection is open, and was not told to go.
    pub fn is_open(&self, connection: ConnectionId) -> bool {
        self.core.connections.member(connection).is_some()
    }

    /// Memory that a workspace brings along beside what its connections hold: its tables, and
    /// scopes that nobody is in, without generations of daemons. Cost: linear in scopes.
    pub fn household_bytes(&self, workspace: &WorkspaceId) -> usize {
        self.core.directory.bytes_of(workspace)
    }

    /// Takes a workspace out, as if it had never been here. Nobody is told anything. Connections
    /// that were told to go are not of it any more and stay. Cost: linear in connections, scopes
    /// and remembered generations.
    pub fn take_out(&mut self, workspace: &WorkspaceId) -> Household {
        let key = self.core.keyer.text(workspace.as_str().as_bytes());
        let mut members = Vec::new();
        for id in self.members_of(workspace) {
            let connection = self.core.connections.remove(id);
            if let Some(State::Open(member)) = connection.map(|connection| connection.state) {
                self.wheel.cancel(member.timer);
                self.core.peer_count -= u64::from(!matches!(member.part, Part::Worker(_)));
                members.push((id, member));
            }
        }
        members.sort_unstable_by_key(|(_, member)| member.sequence);
        let (places, scopes): (Vec<_>, Vec<_>) =
            self.core.directory.take_out(workspace).into_iter().unzip();
        let index: HashMap<u32, u32> = places.into_iter().zip(0..).collect();
        for (_, member) in &mut members {
            member.scope =
                *index.get(&member.scope).expect("a member's scope is one of its workspace");
        }
        let keys = members.iter().filter_map(|(_, member)| match &member.part {
            Part::Client(Client { key, origin, .. }) => Some((*key, *origin)),
            Part::Daemon { .. } | Part::Worker(_) => None,
        });
        let quotas = self.core.limiters.take_out(key, keys);
        let generations = self.core.directory.take_generations(key);
        Household { workspace: key, scopes, members, generations, quotas }
    }

    /// Takes a workspace in. `names` says what each of its connections is called here; one that it
    /// does not know is dropped, as if its socket had gone on the way. Nobody is told anything.
    ///
    /// Cost: linear in the workspace.
    pub fn take_in(
        &mut self,
        now: Tick,
        household: Household,
        names: &HashMap<ConnectionId, ConnectionId>,
    ) {
        let Household { workspace, scopes, mut members, generations, quotas } = household;
        // In order of connection here too, behind everybody who is there already.
        let mut renamed = HashMap::new();
        members.retain_mut(|(id, member)| {
            let Some(&name) = names.get(id) else { return false };
            member.sequence = self.core.sequence;
            self.core.sequence += 1;
            renamed.insert(*id, (name, member.sequence));
            *id = name;
            true
        });
        let places: Vec<_> = scopes
            .into_iter()
            .map(|mut scope| {
                scope.rename(&renamed);
                scope.limits = self.tenants.limits_of(&scope.workspace_id);
                self.core.directory.take_in(scope, now)
            })
            .collect();
        for (id, mut member) in members {
            member.scope = places[member.scope as usize];
            self.core.directory.join(member.scope);
            let is_client = matches!(member.part, Part::Client(_));
            self.core.directory.scope_mut(member.scope).client_count += u32::from(is_client);
            self.core.peer_count += u64::from(!matches!(member.part, Part::Worker(_)));
            let due = member.liveness.deadline(&self.limits.heartbeat);
            member.timer = self.arm(now, due, Timer::connection(id.slot));
            self.core.connections.seat(id, State::Open(member));
        }
        self.core.limiters.take_in(quotas, now);
        self.core.directory.add_generations(workspace, generations, &self.limits);
        self.arm_cleanup(now);
    }
}

/// What connections are called from now on, and their places in the order.
type Renamed = HashMap<ConnectionId, (ConnectionId, u64)>;

impl Scope {
    /// Calls its members by other names. Nobody is counted any more: who comes along joins anew.
    fn rename(&mut self, names: &Renamed) {
        let name = |id: &mut ConnectionId| {
            if let Some((name, _)) = names.get(id) {
                *id = *name;
            }
        };
        self.forget_members();
        self.daemon = self.daemon.and_then(|id| Some(names.get(&id)?.0));
        self.sessions.for_each_value(name);
        self.exchanges.for_each_value(name);
        self.pairings.for_each_value(name);
        let subscriptions = std::mem::take(&mut self.subscriptions);
        self.subscriptions = subscriptions
            .into_iter()
            .filter_map(|Subscription { channel, subscriber, .. }| {
                let &(subscriber, sequence) = names.get(&subscriber)?;
                Some(Subscription { channel, sequence, subscriber })
            })
            .collect::<BTreeSet<_>>();
    }
}

impl Waiting {
    fn for_each_value(&mut self, change: impl FnMut(&mut ConnectionId)) {
        self.table_mut().for_each_value(change);
    }
}

/// The table of generations: each with its workspace, so that they go where it goes.
pub(crate) type Generations = Recency<Remembered>;

/// A daemon generation of a scope that was forgotten.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Remembered {
    pub(crate) generation: u64,
    pub(crate) workspace: Key,
}

#[cfg(test)]
#[path = "household_tests.rs"]
mod tests;
