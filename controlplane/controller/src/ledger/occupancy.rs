//! Who is in which scope, for those who watch.

use std::collections::HashSet;

use relay_contract::{Role, ShardId, WorkspaceId};

use super::{Ledger, Scope};

/// One scope and how many are in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Occupancy {
    pub(crate) scope: Scope,
    /// Where its workspace lives, if anybody is there.
    pub(crate) homes: Vec<ShardId>,
    pub(crate) daemons: u32,
    pub(crate) clients: u32,
    pub(crate) workers: u32,
}

/// A few scopes, and where to go on.
#[derive(Debug, Default)]
pub(crate) struct ScopePage {
    pub(crate) scopes: Vec<Occupancy>,
    /// The line after the last that was looked at; none at the end.
    pub(crate) next: Option<usize>,
}

/// Scopes whose occupancy changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) scopes: HashSet<Scope>,
    /// More changed than is remembered.
    pub(crate) are_incomplete: bool,
}

impl Ledger {
    /// Scopes with a connection.
    pub(crate) fn scope_count(&self) -> usize {
        self.scopes.numbers.len()
    }

    /// The scopes from a line on, of one workspace or of all. Cost: looks at `count` scopes, and at
    /// most at [`LOOKS_MAX`] lines.
    pub(crate) fn scopes_from(
        &self,
        first: usize,
        count: usize,
        workspace_id: Option<&WorkspaceId>,
    ) -> ScopePage {
        let mut page = ScopePage::default();
        let end = first.saturating_add(LOOKS_MAX).min(self.scopes.lines.len());
        for at in first..end {
            if page.scopes.len() == count {
                page.next = Some(at);
                return page;
            }
            let Some(scope) = &self.scopes.lines[at].name else {
                continue;
            };
            if workspace_id.is_none_or(|wanted| *wanted == scope.workspace_id) {
                page.scopes.push(self.occupancy(scope));
            }
        }
        page.next = (end < self.scopes.lines.len()).then_some(end);
        page
    }

    /// How many are in a scope.
    pub(crate) fn occupancy(&self, scope: &Scope) -> Occupancy {
        let line = self.scopes.find(scope);
        let (seats, clients, daemons) =
            line.map_or((0, 0, 0), |line| (line.seats, line.clients, line.daemons));
        Occupancy {
            scope: scope.clone(),
            homes: line.map_or_else(Vec::new, |_| self.homes_of(&scope.workspace_id)),
            daemons,
            clients,
            workers: seats - clients - daemons,
        }
    }

    fn homes_of(&self, workspace_id: &WorkspaceId) -> Vec<ShardId> {
        let planes = self.seen_planes.iter();
        let homes = planes.filter_map(|&plane| self.homes.get(&(plane, workspace_id.clone())));
        homes.map(|home| home.shard).collect()
    }

    /// Remembers changes from now on, or no longer.
    pub(crate) fn note_changes(&mut self, wanted: bool) {
        match wanted {
            true => {
                self.changes.get_or_insert_default();
            }
            false => self.changes = None,
        }
    }

    /// What changed since this was asked last.
    pub(crate) fn take_changes(&mut self) -> Changes {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Somebody takes a seat; the scope's line counts them already.
    pub(super) fn note_entry(&mut self, scope: u32, role: Role) {
        self.scopes.lines[scope as usize].daemons += u32::from(role == Role::Daemon);
        self.note_change(scope);
    }

    /// Somebody gives a seat back; the scope's line still counts them.
    pub(super) fn note_exit(&mut self, scope: u32, role: Role) {
        self.scopes.lines[scope as usize].daemons -= u32::from(role == Role::Daemon);
        self.note_change(scope);
    }

    /// A workspace lives elsewhere. Cost: looks at every scope, while somebody watches.
    pub(super) fn note_move(&mut self, workspace_id: &WorkspaceId) {
        if self.changes.is_none() {
            return;
        }
        for number in 0..self.scopes.lines.len() {
            let scope = self.scopes.lines[number].name.as_ref();
            if scope.is_some_and(|scope| scope.workspace_id == *workspace_id) {
                self.note_change(u32::try_from(number).expect("lines are numbered by u32"));
            }
        }
    }

    fn note_change(&mut self, scope: u32) {
        let (Some(changes), Some(scope)) = (&mut self.changes, self.scopes.name(scope)) else {
            return;
        };
        if changes.scopes.len() < CHANGES_MAX {
            changes.scopes.insert(scope.clone());
        } else if !changes.scopes.contains(scope) {
            changes.are_incomplete = true;
        }
    }
}

/// Lines that one page looks at. Protects the controller's time where few of many are wanted.
const LOOKS_MAX: usize = 16 << 10;

/// Scopes remembered as changed between two looks. Protects memory. Reached: watchers are told
/// everything anew.
const CHANGES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Seat;
    use super::*;
    use crate::settings::Caps;

    const HOME: ShardId = ShardId(3);

    fn ledger() -> Ledger {
        let caps = Caps { connections_per_address_max: usize::MAX, ..Caps::default() };
        Ledger::new(Caps { connections_max: usize::MAX, ..caps })
    }

    fn scope(workspace: &str) -> Scope {
        Scope { workspace_id: workspace.into(), target_id: None }
    }

    fn seat(role: Role, workspace: &str) -> Seat {
        let facts = crate::facts::Facts::default();
        Seat { role, scope: scope(workspace), address: Ipv4Addr::LOCALHOST.into(), facts }
    }

    #[test]
    fn a_scope_counts_each_role_and_is_gone_with_its_last_connection() {
        let mut ledger = ledger();
        let mut taken = Vec::new();
        for role in [Role::Daemon, Role::Client, Role::Client, Role::Worker] {
            taken.push(ledger.reserve(seat(role, "ws"), HOME, HOME).unwrap().0);
        }
        let full =
            Occupancy { scope: scope("ws"), homes: vec![HOME], daemons: 1, clients: 2, workers: 1 };
        assert_eq!(ledger.occupancy(&scope("ws")), full);
        taken.into_iter().for_each(|admission| ledger.release(admission));
        let none = ledger.occupancy(&scope("ws"));
        assert_eq!((none.homes.len(), none.daemons, none.clients, none.workers), (0, 0, 0, 0));
    }

    #[test]
    fn pages_show_every_scope_once() {
        let mut ledger = ledger();
        let first = ledger.reserve(seat(Role::Client, "gone"), HOME, HOME).unwrap().0;
        for n in 0..10 {
            ledger.reserve(seat(Role::Client, &format!("ws{n}")), HOME, HOME).unwrap();
        }
        ledger.release(first);
        let mut names = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let page = ledger.scopes_from(from, 3, None);
            assert!(page.scopes.len() <= 3);
            names.extend(page.scopes.iter().map(|one| one.scope.workspace_id.to_string()));
            next = page.next;
        }
        assert_eq!(names, (0..10).map(|n| format!("ws{n}")).collect::<Vec<_>>());
        let one = ledger.scopes_from(0, 3, Some(&"ws7".into()));
        assert_eq!((one.scopes.len(), one.next), (1, None));
        assert!(ledger.scopes_from(1000, 3, None).scopes.is_empty());
    }

    #[test]
    fn changes_are_remembered_once_each_and_only_while_wanted() {
        let mut ledger = ledger();
        ledger.reserve(seat(Role::Client, "before"), HOME, HOME).unwrap();
        ledger.note_changes(true);
        let one = ledger.reserve(seat(Role::Client, "ws"), HOME, HOME).unwrap().0;
        ledger.release(one);
        let changes = ledger.take_changes();
        assert_eq!(changes.scopes, [scope("ws")].into());
        assert!(ledger.take_changes().scopes.is_empty());
    }

    #[test]
    fn too_many_changes_are_known_to_be_incomplete() {
        let mut ledger = ledger();
        ledger.note_changes(true);
        for n in 0..=CHANGES_MAX {
            ledger.reserve(seat(Role::Client, &format!("ws{n}")), HOME, HOME).unwrap();
        }
        let changes = ledger.take_changes();
        assert!(changes.are_incomplete && changes.scopes.len() == CHANGES_MAX);
    }
}
