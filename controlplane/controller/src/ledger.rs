//! Who is admitted, counted exactly.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

use relay_contract::{AdmissionId, Role, ShardId, Site, TargetId, WorkspaceId};

use crate::settings::Caps;

/// Every admitted connection from `Admit` until `Released`. Because all admissions pass one ledger,
/// its caps are exact whatever the number of shards.
#[derive(Debug)]
pub(crate) struct Ledger {
    caps: Caps,
    seats: HashMap<AdmissionId, Seat>,
    /// Daemons and clients; workers do not count here.
    peers: usize,
    by_site: HashMap<Site, usize>,
    clients: HashMap<Scope, usize>,
    /// Where each workspace with a connection lives.
    homes: HashMap<WorkspaceId, Home>,
    last: u64,
}

/// A workspace, or one target of it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Scope {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) target_id: Option<TargetId>,
}

/// One admitted connection.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) role: Role,
    pub(crate) scope: Scope,
    pub(crate) address: IpAddr,
}

/// A cap that is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cap {
    /// Daemons and clients in total.
    Total,
    /// Connections of one address, or of one IPv6 network.
    Address,
    /// Clients of one scope.
    Scope,
}

#[derive(Debug)]
struct Home {
    shard: ShardId,
    connections: usize,
}

impl Ledger {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            caps,
            seats: HashMap::new(),
            peers: 0,
            by_site: HashMap::new(),
            clients: HashMap::new(),
            homes: HashMap::new(),
            last: 0,
        }
    }

    /// Whether one more connection of this address fits.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), Cap> {
        if self.peers >= self.caps.connections_max {
            return Err(Cap::Total);
        }
        let connections = self.by_site.get(&address.into()).copied().unwrap_or(0);
        if connections >= self.caps.connections_per_address_max {
            return Err(Cap::Address);
        }
        Ok(())
    }

    /// Whether one more client of this scope fits.
    pub(crate) fn check_scope(&self, scope: &Scope) -> Result<(), Cap> {
        let clients = self.clients.get(scope).copied().unwrap_or(0);
        if clients >= self.caps.clients_per_scope_max {
            return Err(Cap::Scope);
        }
        Ok(())
    }

    /// Checks all caps once more and takes the seat, in one step.
    ///
    /// The home is where the workspace's other connections are; `home` when it has none.
    pub(crate) fn reserve(
        &mut self,
        seat: Seat,
        home: ShardId,
    ) -> Result<(AdmissionId, ShardId), Cap> {
        self.check(seat.address)?;
        if seat.role == Role::Client {
            self.check_scope(&seat.scope)?;
            *self.clients.entry(seat.scope.clone()).or_insert(0) += 1;
        }
        self.peers += usize::from(counts_as_peer(seat.role));
        *self.by_site.entry(seat.address.into()).or_insert(0) += 1;
        let home = self
            .homes
            .entry(seat.scope.workspace_id.clone())
            .or_insert(Home { shard: home, connections: 0 });
        home.connections += 1;
        let shard = home.shard;
        self.last += 1;
        let admission = AdmissionId(self.last);
        self.seats.insert(admission, seat);
        Ok((admission, shard))
    }

    /// Gives a seat back. A seat that was given back before is ignored.
    pub(crate) fn release(&mut self, admission: AdmissionId) {
        let Some(seat) = self.seats.remove(&admission) else {
            return;
        };
        self.peers -= usize::from(counts_as_peer(seat.role));
        count_down(&mut self.by_site, seat.address.into());
        let workspace_id = seat.scope.workspace_id.clone();
        if seat.role == Role::Client {
            count_down(&mut self.clients, seat.scope);
        }
        if let Entry::Occupied(mut home) = self.homes.entry(workspace_id) {
            home.get_mut().connections -= 1;
            if home.get().connections == 0 {
                home.remove();
            }
        }
    }

    /// Admitted connections of every kind.
    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }
}

fn counts_as_peer(role: Role) -> bool {
    role != Role::Worker
}

fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HOME: ShardId = ShardId(0);

    fn ledger(caps: Caps) -> Ledger {
        Ledger::new(caps)
    }

    fn seat(role: Role, workspace: &str, target: Option<&str>, address: u8) -> Seat {
        Seat {
            role,
            scope: Scope { workspace_id: workspace.into(), target_id: target.map(Into::into) },
            address: Ipv4Addr::new(192, 0, 2, address).into(),
        }
    }

    #[test]
    fn a_released_seat_can_be_taken_again() {
        let mut ledger = ledger(Caps { connections_per_address_max: 1, ..Caps::default() });
        let client = seat(Role::Client, "ws1", None, 1);
        let (admission, _) = ledger.reserve(client.clone(), HOME).unwrap();
        assert_eq!(ledger.reserve(client.clone(), HOME), Err(Cap::Address));
        ledger.release(admission);
        ledger.release(admission);
        assert!(ledger.reserve(client, HOME).is_ok());
    }

    #[test]
    fn hosts_of_one_ipv6_network_share_a_cap() {
        let mut ledger = ledger(Caps { connections_per_address_max: 1, ..Caps::default() });
        let at_host = |host: u16| [0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into();
        let first = Seat { address: at_host(1), ..seat(Role::Client, "ws1", None, 1) };
        ledger.reserve(first, HOME).unwrap();
        assert_eq!(ledger.check(at_host(2)), Err(Cap::Address));
        assert_eq!(ledger.check([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1].into()), Ok(()));
    }

    #[test]
    fn workers_take_no_peer_seat_but_count_for_their_address() {
        let mut ledger =
            ledger(Caps { connections_max: 1, connections_per_address_max: 2, ..Caps::default() });
        ledger.reserve(seat(Role::Worker, "ws1", None, 1), HOME).unwrap();
        ledger.reserve(seat(Role::Daemon, "ws1", None, 1), HOME).unwrap();
        assert_eq!(ledger.check(Ipv4Addr::new(192, 0, 2, 9).into()), Err(Cap::Total));
    }

    #[test]
    fn total_is_judged_before_address() {
        let mut ledger =
            ledger(Caps { connections_max: 1, connections_per_address_max: 1, ..Caps::default() });
        ledger.reserve(seat(Role::Daemon, "ws1", None, 1), HOME).unwrap();
        assert_eq!(ledger.check(Ipv4Addr::new(192, 0, 2, 1).into()), Err(Cap::Total));
    }

    #[test]
    fn scopes_that_only_look_alike_do_not_share_a_cap() {
        let mut ledger = ledger(Caps { clients_per_scope_max: 1, ..Caps::default() });
        ledger.reserve(seat(Role::Client, "a:b", None, 1), HOME).unwrap();
        assert!(ledger.reserve(seat(Role::Client, "a", Some("b"), 1), HOME).is_ok());
        assert_eq!(ledger.reserve(seat(Role::Client, "a", Some("b"), 2), HOME), Err(Cap::Scope));
    }

    #[test]
    fn a_workspace_stays_where_its_connections_are() {
        let mut ledger = ledger(Caps::default());
        let one = seat(Role::Client, "ws1", None, 1);
        let (first, home) = ledger.reserve(one.clone(), ShardId(2)).unwrap();
        assert_eq!(home, ShardId(2));
        let (second, home) = ledger.reserve(one.clone(), ShardId(5)).unwrap();
        assert_eq!(home, ShardId(2));
        ledger.release(first);
        ledger.release(second);
        assert_eq!(ledger.reserve(one, ShardId(5)).unwrap().1, ShardId(5));
    }

    #[test]
    fn an_empty_ledger_remembers_nothing() {
        let mut ledger = ledger(Caps::default());
        let admissions: Vec<_> = (0..50)
            .map(|n| seat(Role::Client, &format!("ws{n}"), Some("rt"), n))
            .map(|seat| ledger.reserve(seat, HOME).unwrap().0)
            .collect();
        for admission in admissions {
            ledger.release(admission);
        }
        assert_eq!(ledger.len(), 0);
        assert_eq!(ledger.peers, 0);
        assert!(ledger.by_site.is_empty() && ledger.clients.is_empty());
        assert!(ledger.homes.is_empty());
    }
}
