//! Who is admitted, counted exactly.

mod occupancy;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use relay_contract::{
    AdmissionId, CloseReason, ConnectionId, Role, ShardId, Site, TargetId, WorkspaceId,
};

use crate::facts::{Expiry, Facts, KeyNumber, Life, Place, Prints};
use crate::settings::Caps;

pub(crate) use occupancy::{Changes, Occupancy, ScopePage};

/// Every admitted connection from `Admit` until `Released`. Because all admissions pass one ledger,
/// its caps are exact whatever the number of shards.
///
/// Memory: [`SEAT_BYTES`] per connection, beside what workspaces, scopes and addresses take once
/// each.
#[derive(Debug)]
pub(crate) struct Ledger {
    caps: Caps,
    /// By the lower half of an admission's number.
    seats: Vec<Option<Taken>>,
    /// Whose connection sits there, by the same; beyond its end the first data plane's. Where there
    /// is but one it costs nothing.
    planes: Vec<Plane>,
    /// Data planes that have, or had, a connection.
    seen_planes: BTreeSet<Plane>,
    /// Seats to take again, the last given back first.
    vacant: Vec<u32>,
    /// Daemons and clients; workers do not count here.
    peers: usize,
    sites: Tally<Site>,
    scopes: Tally<Scope>,
    /// Where each workspace with a connection lives, on each data plane that has one.
    homes: HashMap<(Plane, WorkspaceId), Home>,
    /// Admissions so far, of which some bits tell a seat's uses apart.
    last: u32,
    /// What changes, while somebody watches.
    changes: Option<Changes>,
}

/// A data plane, by its first shard.
pub(crate) type Plane = ShardId;

/// The one there is in one process.
const FIRST_PLANE: Plane = ShardId(0);

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
    /// What is remembered of its token.
    pub(crate) facts: Facts,
}

/// What the ledger knows of one admitted connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seated<'a> {
    pub(crate) admission: AdmissionId,
    pub(crate) role: Role,
    pub(crate) scope: &'a Scope,
    pub(crate) site: &'a Site,
    pub(crate) life: Life,
    pub(crate) facts: Facts,
}

/// What becomes of a connection that is told to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Dismissal {
    /// It is open: its shard is to be told.
    Tell(ConnectionId),
    /// It is not open yet, and will be told when it is.
    WhenOpen,
    /// It is gone, or was told before.
    Nothing,
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

/// A seat that is taken, by numbers of what it counts for.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// The upper half of its admission's number: later uses of the seat have another.
    number: u32,
    scope: u32,
    site: u32,
    /// With `generation` and `shard`: a [`Place`] without its gaps.
    slot: u32,
    generation: u32,
    expiry: Expiry,
    shard: u16,
    key: KeyNumber,
    prints: Prints,
    role: Role,
}

impl Taken {
    fn life(&self) -> Life {
        let Self { slot, generation, shard, .. } = *self;
        Place { slot, generation, shard }.life()
    }

    fn set_life(&mut self, life: Life) {
        let Place { slot, generation, shard } = Place::of(life);
        (self.slot, self.generation, self.shard) = (slot, generation, shard);
    }

    fn set_facts(&mut self, facts: Facts) {
        let Facts { key, prints, expiry } = facts;
        (self.key, self.prints, self.expiry) = (key, prints, expiry);
    }

    fn facts(&self) -> Facts {
        Facts { key: self.key, prints: self.prints, expiry: self.expiry }
    }
}

/// Memory of one admitted connection.
const SEAT_BYTES: usize = size_of::<Option<Taken>>();
const _: () = assert!(SEAT_BYTES <= 40, "half a million connections have a seat each");

/// Seats that there are from the start, touched or not. A table of this size is mapped for itself,
/// and grows without leaving smaller copies of itself behind in the heap.
const SEATS_MIN: usize = 1 << 12;

impl Ledger {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            caps,
            seats: Vec::with_capacity(SEATS_MIN),
            planes: Vec::new(),
            seen_planes: BTreeSet::new(),
            vacant: Vec::new(),
            peers: 0,
            sites: Tally::new(),
            scopes: Tally::new(),
            homes: HashMap::new(),
            last: 0,
            changes: None,
        }
    }

    pub(crate) fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
    }

    /// Whether one more connection of this address fits.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), Cap> {
        if self.peers >= self.caps.connections_max {
            return Err(Cap::Total);
        }
        let connections = self.sites.find(&address.into()).map_or(0, |site| site.seats);
        if connections as usize >= self.caps.connections_per_address_max {
            return Err(Cap::Address);
        }
        Ok(())
    }

    /// Whether one more client of this scope fits.
    pub(crate) fn check_scope(&self, scope: &Scope) -> Result<(), Cap> {
        let clients = self.scopes.find(scope).map_or(0, |scope| scope.clients);
        if clients as usize >= self.caps.clients_per_scope_max {
            return Err(Cap::Scope);
        }
        Ok(())
    }

    /// Checks all caps once more and takes the seat, in one step.
    ///
    /// The home is where the workspace's other connections are on that data plane; `home` when it
    /// has none there.
    pub(crate) fn reserve(
        &mut self,
        seat: Seat,
        plane: Plane,
        home: ShardId,
    ) -> Result<(AdmissionId, ShardId), Cap> {
        self.check(seat.address)?;
        if seat.role == Role::Client {
            self.check_scope(&seat.scope)?;
        }
        Ok(self.adopt(seat, plane, home))
    }

    /// Takes a seat for a connection that is open already, whatever the caps: it was admitted when
    /// somebody else counted. As long as there are more than may be, nobody new is admitted.
    pub(crate) fn adopt(
        &mut self,
        seat: Seat,
        plane: Plane,
        home: ShardId,
    ) -> (AdmissionId, ShardId) {
        let is_client = seat.role == Role::Client;
        self.peers += usize::from(counts_as_peer(seat.role));
        let shard = {
            let fresh = Home { shard: home, connections: 0 };
            let home = self.homes.entry((plane, seat.scope.workspace_id.clone())).or_insert(fresh);
            home.connections += 1;
            home.shard
        };
        let site = self.sites.count_up(seat.address.into(), is_client);
        let scope = self.scopes.count_up(seat.scope, is_client);
        self.note_entry(scope, seat.role);
        self.last = self.last.wrapping_add(1);
        let mut taken = Taken {
            number: self.last,
            scope,
            site,
            slot: 0,
            generation: 0,
            expiry: seat.facts.expiry,
            shard: 0,
            key: seat.facts.key,
            prints: seat.facts.prints,
            role: seat.role,
        };
        taken.set_life(Life::Admitted);
        let at = match self.vacant.pop() {
            Some(at) => {
                self.seats[at as usize] = Some(taken);
                at
            }
            None => {
                self.seats.push(Some(taken));
                u32::try_from(self.seats.len() - 1).expect("connections are numbered by u32")
            }
        };
        self.set_plane(at as usize, plane);
        (admission(taken.number, at), shard)
    }

    fn set_plane(&mut self, at: usize, plane: Plane) {
        self.seen_planes.insert(plane);
        if at >= self.planes.len() && plane != FIRST_PLANE {
            self.planes.resize(at + 1, FIRST_PLANE);
        }
        if let Some(place) = self.planes.get_mut(at) {
            *place = plane;
        }
    }

    fn plane_at(&self, at: usize) -> Plane {
        self.planes.get(at).copied().unwrap_or(FIRST_PLANE)
    }

    /// Gives all seats of a data plane back, and says which.
    ///
    /// Cost: a look at every seat there is.
    pub(crate) fn release_all(&mut self, plane: Plane) -> Vec<AdmissionId> {
        let seats = self.seats.iter().zip(0_u32..);
        let taken = seats.filter_map(|(seat, at)| seat.as_ref().map(|seat| (seat, at)));
        let own = taken.filter(|(_, at)| self.plane_at(*at as usize) == plane);
        let own: Vec<_> = own.map(|(seat, at)| admission(seat.number, at)).collect();
        own.iter().for_each(|&admission| self.release(admission));
        self.seen_planes.remove(&plane);
        own
    }

    /// Gives a seat back. A seat that was given back before is ignored.
    pub(crate) fn release(&mut self, admission: AdmissionId) {
        let (number, at) = halves(admission);
        let seat = self.seats.get_mut(at as usize);
        let Some(seat) = seat.and_then(|seat| seat.take_if(|seat| seat.number == number)) else {
            return;
        };
        self.vacant.push(at);
        self.peers -= usize::from(counts_as_peer(seat.role));
        let is_client = seat.role == Role::Client;
        self.sites.count_down(seat.site, is_client);
        self.note_exit(seat.scope, seat.role);
        let workspace_id = self.scopes.name(seat.scope).map(|scope| scope.workspace_id.clone());
        self.scopes.count_down(seat.scope, is_client);
        if let Some(workspace_id) = workspace_id {
            let key = (self.plane_at(at as usize), workspace_id);
            if let Some(home) = self.homes.get_mut(&key) {
                home.connections -= 1;
                if home.connections == 0 {
                    self.homes.remove(&key);
                }
            }
        }
    }

    /// An admitted connection lives under this id from now on. The reason to close it at once, if
    /// it was told to go before.
    pub(crate) fn open(
        &mut self,
        admission: AdmissionId,
        connection: ConnectionId,
    ) -> Option<CloseReason> {
        let seat = self.seat_mut(admission)?;
        match seat.life() {
            Life::Admitted | Life::Open(_) => {
                seat.set_life(Life::Open(connection));
                None
            }
            Life::Doomed(reason) => {
                seat.set_life(Life::Dismissed(connection, reason));
                Some(reason)
            }
            // It moved while its farewell was on the way: its new shard may not know of that.
            Life::Dismissed(_, reason) => {
                seat.set_life(Life::Dismissed(connection, reason));
                Some(reason)
            }
        }
    }

    /// Where a workspace with connections on that data plane lives.
    pub(crate) fn home_of(&self, workspace_id: &WorkspaceId, plane: Plane) -> Option<ShardId> {
        self.homes.get(&(plane, workspace_id.clone())).map(|home| home.shard)
    }

    /// A workspace with connections on that data plane lives there from now on.
    pub(crate) fn relocate(&mut self, workspace_id: &WorkspaceId, plane: Plane, to: ShardId) {
        if let Some(home) = self.homes.get_mut(&(plane, workspace_id.clone())) {
            home.shard = to;
            self.note_move(workspace_id);
        }
    }

    /// A connection stands on another token from now on; whether it is there.
    pub(crate) fn renew(&mut self, admission: AdmissionId, facts: Facts) -> bool {
        let seat = self.seat_mut(admission);
        seat.map(|seat| seat.set_facts(facts)).is_some()
    }

    /// Notes that a connection is told to go; what is to be done for that.
    pub(crate) fn dismiss(&mut self, admission: AdmissionId, reason: CloseReason) -> Dismissal {
        let Some(seat) = self.seat_mut(admission) else {
            return Dismissal::Nothing;
        };
        match seat.life() {
            Life::Admitted => {
                seat.set_life(Life::Doomed(reason));
                Dismissal::WhenOpen
            }
            Life::Open(connection) => {
                seat.set_life(Life::Dismissed(connection, reason));
                Dismissal::Tell(connection)
            }
            Life::Doomed(_) | Life::Dismissed(..) => Dismissal::Nothing,
        }
    }

    /// What is known of one admitted connection.
    pub(crate) fn find(&self, admission: AdmissionId) -> Option<Seated<'_>> {
        let (number, at) = halves(admission);
        let seat = self.seats.get(at as usize)?.as_ref().filter(|seat| seat.number == number)?;
        self.seated(at, seat)
    }

    /// All admitted connections. Cost: looks at every seat.
    pub(crate) fn seated_all(&self) -> impl Iterator<Item = Seated<'_>> {
        let seats = (0..).zip(&self.seats);
        seats.filter_map(|(at, seat)| self.seated(at, seat.as_ref()?))
    }

    /// No seat has this key any more. Cost: looks at every seat.
    pub(crate) fn forget_key(&mut self, key: KeyNumber) {
        for seat in self.seats.iter_mut().flatten().filter(|seat| seat.key == key) {
            seat.key = KeyNumber::NONE;
        }
    }

    /// Seats, taken or not.
    pub(crate) fn seat_count(&self) -> usize {
        self.seats.len()
    }

    /// Who has this seat, and when its token expires.
    pub(crate) fn expiry_at(&self, at: usize) -> Option<(AdmissionId, Expiry)> {
        let seat = self.seats.get(at)?.as_ref()?;
        Some((admission(seat.number, u32::try_from(at).ok()?), seat.expiry))
    }

    /// Admitted connections of every kind.
    pub(crate) fn len(&self) -> usize {
        self.seats.len() - self.vacant.len()
    }

    fn seat_mut(&mut self, admission: AdmissionId) -> Option<&mut Taken> {
        let (number, at) = halves(admission);
        self.seats.get_mut(at as usize)?.as_mut().filter(|seat| seat.number == number)
    }

    fn seated(&self, at: u32, seat: &Taken) -> Option<Seated<'_>> {
        Some(Seated {
            admission: admission(seat.number, at),
            role: seat.role,
            scope: self.scopes.name(seat.scope)?,
            site: self.sites.name(seat.site)?,
            life: seat.life(),
            facts: seat.facts(),
        })
    }
}

/// The number of an admission: which use of which seat.
fn admission(number: u32, at: u32) -> AdmissionId {
    AdmissionId(u64::from(number) << 32 | u64::from(at))
}

fn halves(admission: AdmissionId) -> (u32, u32) {
    ((admission.0 >> 32) as u32, admission.0 as u32)
}

/// Names, each kept once, and how many seats count for them. Seats hold a number instead of a name.
#[derive(Debug)]
struct Tally<K> {
    numbers: HashMap<K, u32>,
    lines: Vec<Line<K>>,
    vacant: Vec<u32>,
}

#[derive(Debug)]
struct Line<K> {
    /// Nothing while the line is not in use.
    name: Option<K>,
    seats: u32,
    clients: u32,
    /// Of scopes alone.
    daemons: u32,
}

impl<K: Clone + Eq + Hash> Tally<K> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), lines: Vec::new(), vacant: Vec::new() }
    }

    fn find(&self, name: &K) -> Option<&Line<K>> {
        self.numbers.get(name).map(|&number| &self.lines[number as usize])
    }

    fn name(&self, number: u32) -> Option<&K> {
        self.lines[number as usize].name.as_ref()
    }

    /// Counts one more for a name, which is kept from its first seat on.
    fn count_up(&mut self, name: K, is_client: bool) -> u32 {
        let number = self.numbers.get(&name).copied().unwrap_or_else(|| self.begin(name));
        let line = &mut self.lines[number as usize];
        line.seats += 1;
        line.clients += u32::from(is_client);
        number
    }

    fn begin(&mut self, name: K) -> u32 {
        let line = Line { name: Some(name.clone()), seats: 0, clients: 0, daemons: 0 };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.lines[number as usize] = line;
                number
            }
            None => {
                self.lines.push(line);
                u32::try_from(self.lines.len() - 1).expect("there are no more names than seats")
            }
        };
        self.numbers.insert(name, number);
        number
    }

    /// Counts one less; with its last seat a name is forgotten.
    fn count_down(&mut self, number: u32, is_client: bool) {
        let line = &mut self.lines[number as usize];
        line.seats -= 1;
        line.clients -= u32::from(is_client);
        if line.seats == 0
            && let Some(name) = line.name.take()
        {
            self.numbers.remove(&name);
            self.vacant.push(number);
        }
    }
}

fn counts_as_peer(role: Role) -> bool {
    role != Role::Worker
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
            facts: Facts::default(),
        }
    }

    #[test]
    fn a_released_seat_can_be_taken_again() {
        let mut ledger = ledger(Caps { connections_per_address_max: 1, ..Caps::default() });
        let client = seat(Role::Client, "ws1", None, 1);
        let (admission, _) = ledger.reserve(client.clone(), HOME, HOME).unwrap();
        assert_eq!(ledger.reserve(client.clone(), HOME, HOME), Err(Cap::Address));
        ledger.release(admission);
        ledger.release(admission);
        assert!(ledger.reserve(client, HOME, HOME).is_ok());
    }

    #[test]
    fn hosts_of_one_ipv6_network_share_a_cap() {
        let mut ledger = ledger(Caps { connections_per_address_max: 1, ..Caps::default() });
        let at_host = |host: u16| [0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into();
        let first = Seat { address: at_host(1), ..seat(Role::Client, "ws1", None, 1) };
        ledger.reserve(first, HOME, HOME).unwrap();
        assert_eq!(ledger.check(at_host(2)), Err(Cap::Address));
        assert_eq!(ledger.check([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1].into()), Ok(()));
    }

    #[test]
    fn workers_take_no_peer_seat_but_count_for_their_address() {
        let mut ledger =
            ledger(Caps { connections_max: 1, connections_per_address_max: 2, ..Caps::default() });
        ledger.reserve(seat(Role::Worker, "ws1", None, 1), HOME, HOME).unwrap();
        ledger.reserve(seat(Role::Daemon, "ws1", None, 1), HOME, HOME).unwrap();
        assert_eq!(ledger.check(Ipv4Addr::new(192, 0, 2, 9).into()), Err(Cap::Total));
    }

    #[test]
    fn total_is_judged_before_address() {
        let mut ledger =
            ledger(Caps { connections_max: 1, connections_per_address_max: 1, ..Caps::default() });
        ledger.reserve(seat(Role::Daemon, "ws1", None, 1), HOME, HOME).unwrap();
        assert_eq!(ledger.check(Ipv4Addr::new(192, 0, 2, 1).into()), Err(Cap::Total));
    }

    #[test]
    fn scopes_that_only_look_alike_do_not_share_a_cap() {
        let mut ledger = ledger(Caps { clients_per_scope_max: 1, ..Caps::default() });
        ledger.reserve(seat(Role::Client, "a:b", None, 1), HOME, HOME).unwrap();
        assert!(ledger.reserve(seat(Role::Client, "a", Some("b"), 1), HOME, HOME).is_ok());
        assert_eq!(
            ledger.reserve(seat(Role::Client, "a", Some("b"), 2), HOME, HOME),
            Err(Cap::Scope)
        );
    }

    #[test]
    fn a_workspace_stays_where_its_connections_are() {
        let mut ledger = ledger(Caps::default());
        let one = seat(Role::Client, "ws1", None, 1);
        let (first, home) = ledger.reserve(one.clone(), HOME, ShardId(2)).unwrap();
        assert_eq!(home, ShardId(2));
        let (second, home) = ledger.reserve(one.clone(), HOME, ShardId(5)).unwrap();
        assert_eq!(home, ShardId(2));
        ledger.release(first);
        ledger.release(second);
        assert_eq!(ledger.reserve(one, HOME, ShardId(5)).unwrap().1, ShardId(5));
    }

    #[test]
    fn an_empty_ledger_remembers_nothing() {
        let mut ledger = ledger(Caps::default());
        let admissions: Vec<_> = (0..50)
            .map(|n| seat(Role::Client, &format!("ws{n}"), Some("rt"), n))
            .map(|seat| ledger.reserve(seat, HOME, HOME).unwrap().0)
            .collect();
        for admission in admissions {
            ledger.release(admission);
        }
        assert_eq!(ledger.len(), 0);
        assert_eq!(ledger.peers, 0);
        assert!(ledger.sites.numbers.is_empty() && ledger.scopes.numbers.is_empty());
        assert!(ledger.homes.is_empty());
    }

    #[test]
    fn a_seat_that_is_taken_again_is_another() {
        let mut ledger = ledger(Caps::default());
        let client = seat(Role::Client, "ws1", None, 1);
        let (first, _) = ledger.reserve(client.clone(), HOME, HOME).unwrap();
        ledger.release(first);
        let (second, _) = ledger.reserve(client, HOME, HOME).unwrap();
        assert_ne!(first, second);
        ledger.release(first);
        assert_eq!(ledger.len(), 1, "it was given back before");
        assert_eq!(ledger.seats.len(), 1, "the place is the same");
    }

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId { shard: ShardId(1), slot, generation: 3 }
    }

    #[test]
    fn who_is_told_to_go_before_it_is_open_is_told_when_it_is() {
        let mut ledger = ledger(Caps::default());
        let (admission, _) =
            ledger.reserve(seat(Role::Client, "ws1", None, 1), HOME, HOME).unwrap();
        let revoked = CloseReason::TokenRevoked;
        assert_eq!(ledger.dismiss(admission, revoked), Dismissal::WhenOpen);
        assert_eq!(ledger.dismiss(admission, revoked), Dismissal::Nothing);
        assert_eq!(ledger.open(admission, connection(7)), Some(revoked));
    }

    #[test]
    fn who_is_open_is_told_once() {
        let mut ledger = ledger(Caps::default());
        let (admission, _) =
            ledger.reserve(seat(Role::Client, "ws1", None, 1), HOME, HOME).unwrap();
        assert_eq!(ledger.open(admission, connection(7)), None);
        assert_eq!(ledger.open(admission, connection(8)), None, "it moved");
        let expired = CloseReason::TokenExpired;
        assert_eq!(ledger.dismiss(admission, expired), Dismissal::Tell(connection(8)));
        assert_eq!(ledger.dismiss(admission, expired), Dismissal::Nothing);
        assert_eq!(ledger.open(admission, connection(6)), Some(expired), "it moved meanwhile");
        ledger.release(admission);
        assert_eq!(ledger.dismiss(admission, expired), Dismissal::Nothing);
        assert_eq!(ledger.open(admission, connection(9)), None);
    }

    #[test]
    fn a_seat_remembers_its_token_until_it_has_another() {
        let mut ledger = ledger(Caps::default());
        let facts = |key, secs| Facts {
            key: KeyNumber(key),
            expiry: Expiry::at(Some(secs)),
            ..Facts::default()
        };
        let first = Seat { facts: facts(1, 100), ..seat(Role::Client, "ws1", None, 1) };
        let (admission, _) = ledger.reserve(first, HOME, HOME).unwrap();
        assert!(ledger.renew(admission, facts(2, 200)));
        let seated = ledger.find(admission).unwrap();
        assert_eq!((seated.facts.key, seated.facts.expiry.secs()), (KeyNumber(2), Some(200)));
        assert_eq!(ledger.expiry_at(0), Some((admission, Expiry::at(Some(200)))));
        ledger.forget_key(KeyNumber(2));
        assert_eq!(ledger.find(admission).unwrap().facts.key, KeyNumber::NONE);
        ledger.release(admission);
        assert!(!ledger.renew(admission, facts(3, 300)));
        assert!(ledger.find(admission).is_none() && ledger.seated_all().next().is_none());
    }

    #[test]
    fn a_data_plane_that_is_gone_leaves_its_seats_and_no_others() {
        let mut ledger = ledger(Caps { connections_max: 2, ..Caps::default() });
        let (one, other) = (ShardId(0), ShardId(4));
        let client = seat(Role::Client, "ws1", Some("rt1"), 1);
        let (first, home) = ledger.reserve(client.clone(), one, ShardId(1)).unwrap();
        assert_eq!(home, ShardId(1));
        let (second, home) = ledger.reserve(client.clone(), other, ShardId(5)).unwrap();
        assert_eq!(home, ShardId(5), "a workspace has a home on each data plane");
        assert_eq!(ledger.reserve(client.clone(), one, one), Err(Cap::Total));
        assert_eq!(ledger.release_all(other), [second]);
        assert_eq!(ledger.len(), 1);
        ledger.reserve(client, other, ShardId(6)).unwrap();
        ledger.release(first);
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn what_is_open_already_is_counted_beyond_the_caps() {
        let mut ledger = ledger(Caps { connections_max: 1, ..Caps::default() });
        let client = seat(Role::Client, "ws1", None, 1);
        let (first, _) = ledger.adopt(client.clone(), HOME, HOME);
        let (second, _) = ledger.adopt(client.clone(), HOME, HOME);
        assert_eq!(ledger.reserve(client.clone(), HOME, HOME), Err(Cap::Total));
        ledger.release(first);
        assert_eq!(ledger.reserve(client.clone(), HOME, HOME), Err(Cap::Total));
        ledger.release(second);
        ledger.reserve(client, HOME, HOME).unwrap();
    }
}
