//! The control plane's end of the link to one data plane, without the network.

use std::collections::{BTreeMap, HashMap};

use relay_contract::{AdmissionId, AdmissionRequest, Command, ConnectionId, Event, ShardId};
use relay_grpc::plane::v1::{self, from_control_plane as down, from_data_plane as up};

use crate::convert::{BadMessage, DrainInForce, Frame, Holding, InForce};
use crate::exchange::{Exchange, ExchangeError, Heard};

/// What one data plane is to its control plane, for as long as both know each other.
///
/// Admissions have other numbers on the wire than in the ledger: a data plane may hold some of an
/// earlier control plane's. The numbers of one data plane grow for as long as it lives.
#[derive(Debug)]
pub struct Berth {
    exchange: Exchange<v1::FromControlPlane>,
    /// The inventory, until it is complete.
    taking: Option<Inventory>,
    /// Scopes of reports that come in parts, by shard and query.
    parts: BTreeMap<(u32, u64), Vec<v1::Scope>>,
    /// By the number on the wire.
    admissions: HashMap<u64, AdmissionId>,
    last_admission: u64,
    /// Connections, and upgrades that wait, of one inventory.
    inventory_max: usize,
}

/// What a data plane holds when it comes.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Admitted connections.
    pub holdings: Vec<Holding>,
    /// Upgrades that wait for their decision.
    pub waiting: Vec<(ConnectionId, Box<AdmissionRequest>)>,
    /// Which versions its shards keep to.
    pub in_force: Vec<InForce>,
    /// Whether its shards are drained; nothing where nobody ever ordered that.
    pub drain: Option<DrainInForce>,
}

/// What came of a message.
#[derive(Debug)]
pub enum Arrived {
    /// The inventory is complete. [`Berth::adopt`] is to follow.
    Inventory(Inventory),
    /// Something happened, or is asked.
    Event(Event),
    /// The data plane ends.
    Goodbye,
}

/// A data plane said what it may not say. Its stream is to be cut, and it is to come anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BerthError {
    /// Its numbers do not fit.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// It greets twice, or takes stock when nobody asked.
    #[error("it does not keep to the order of the protocol")]
    Disorder,
    /// Its inventory cannot be read, and without that nothing can be counted.
    #[error("its inventory: {0}")]
    Inventory(BadMessage),
    /// Its inventory is larger than any machine can hold.
    #[error("its inventory has more than {0} connections")]
    Inflated(usize),
}

impl Berth {
    /// For a data plane that comes anew: it offers its inventory next.
    pub fn new() -> Self {
        Self {
            exchange: Exchange::new(),
            taking: Some(Inventory::default()),
            parts: BTreeMap::new(),
            admissions: HashMap::new(),
            last_admission: 0,
            inventory_max: INVENTORY_MAX,
        }
    }

    /// The same data plane is there with a new stream, and has received so much. Whether both can
    /// go on where they were.
    pub fn resume(&mut self, received: u64) -> bool {
        self.exchange.resume(received).is_ok()
    }

    /// The answer to `Hello`.
    pub fn welcome(&self, version: u32, life: u64, resumed: bool) -> v1::FromControlPlane {
        let welcome = v1::Welcome { protocol_version: version, control_life: life, resumed };
        let message = Some(down::Message::Welcome(welcome));
        v1::FromControlPlane { message, number: 0, received: self.exchange.received() }
    }

    /// Something came. Nothing, when it means nothing more; a message that cannot be read is an
    /// `Err` inside: it is counted and passed over, so that one mistake does not end everything.
    ///
    /// # Errors
    /// [`BerthError`].
    pub fn receive(
        &mut self,
        frame: &Frame,
        message: v1::FromDataPlane,
    ) -> Result<Option<Result<Arrived, BadMessage>>, BerthError> {
        let v1::FromDataPlane { message, number, received } = message;
        if self.exchange.hear(number, received)? == Heard::Again {
            return Ok(None);
        }
        match message {
            Some(up::Message::Hello(_)) => Err(BerthError::Disorder),
            Some(up::Message::Inventory(part)) => {
                let complete = self.on_inventory(frame, part)?;
                Ok(complete.map(Arrived::Inventory).map(Ok))
            }
            Some(up::Message::Event(event)) => Ok(self.on_event(frame, event)),
            Some(up::Message::Goodbye(_)) => Ok(Some(Ok(Arrived::Goodbye))),
            // A beat, or what a newer data plane says.
            Some(up::Message::Beat(_)) | None => Ok(None),
        }
    }

    fn on_inventory(
        &mut self,
        frame: &Frame,
        part: v1::Inventory,
    ) -> Result<Option<Inventory>, BerthError> {
        let Some(taking) = &mut self.taking else { return Err(BerthError::Disorder) };
        let bad = BerthError::Inventory;
        let most = taking.holdings.len().saturating_add(part.holdings.len());
        let most = most.max(taking.waiting.len().saturating_add(part.waiting.len()));
        // Versions are a few for each shard, of which there are at most 65,535.
        if most.max(taking.in_force.len() + part.in_force.len()) > self.inventory_max {
            return Err(BerthError::Inflated(self.inventory_max));
        }
        for holding in part.holdings {
            let holding = frame.holding_in(holding).map_err(bad)?;
            if holding.admission.0 > ADMISSION_MAX {
                return Err(bad(BadMessage::OutOfRange("admission")));
            }
            self.last_admission = self.last_admission.max(holding.admission.0);
            taking.holdings.push(holding);
        }
        for asked in part.waiting {
            taking.waiting.push(frame.asked_in(asked).map_err(bad)?);
        }
        for in_force in part.in_force {
            taking.in_force.push(frame.in_force_in(in_force).map_err(bad)?);
        }
        if let Some(drain) = part.drain {
            taking.drain = Some(frame.drain_in(drain).map_err(bad)?);
        }
        Ok(if part.complete { self.taking.take() } else { None })
    }

    /// The event, with what came before of it; nothing, where more is to come.
    fn whole(&mut self, mut event: v1::Event) -> Option<v1::Event> {
        if let Some(v1::event::Event::Reported(reported)) = &mut event.event {
            let of = (event.shard, reported.query);
            if reported.more {
                self.parts.entry(of).or_default().append(&mut reported.scopes);
                if self.parts.len() > REPORTS_MAX {
                    // The one that was asked for longest ago: nobody waits for it any more.
                    let oldest = self.parts.keys().copied().min_by_key(|(_, query)| *query);
                    oldest.and_then(|oldest| self.parts.remove(&oldest));
                }
                return None;
            }
            if let Some(mut scopes) = self.parts.remove(&of) {
                scopes.append(&mut reported.scopes);
                reported.scopes = scopes;
            }
        }
        Some(event)
    }

    fn on_event(&mut self, frame: &Frame, event: v1::Event) -> Option<Result<Arrived, BadMessage>> {
        let event = self.whole(event)?;
        let mut event = match frame.event_in(event) {
            Ok(event) => event,
            Err(bad) => return Some(Err(bad)),
        };
        if let Some(taking) = &mut self.taking {
            // Ended while the inventory was on its way.
            match event {
                Event::Released { admission } => {
                    taking.holdings.retain(|holding| holding.admission != admission);
                }
                Event::Abandoned { connection } => {
                    taking.waiting.retain(|(waiting, _)| *waiting != connection);
                }
                Event::Opened { admission, connection } => {
                    let mut holdings = taking.holdings.iter_mut();
                    if let Some(held) = holdings.find(|held| held.admission == admission) {
                        held.connection = Some(connection);
                    }
                }
                // Nothing else is told before the inventory is complete.
                _ => {}
            }
            return None;
        }
        match &mut event {
            Event::Released { admission } => *admission = self.admissions.remove(&admission.0)?,
            Event::WorkerAsked { admission, .. }
            | Event::Opened { admission, .. }
            | Event::RenewalAsked { admission, .. } => {
                *admission = *self.admissions.get(&admission.0)?;
            }
            _ => {}
        }
        Some(Ok(Arrived::Event(event)))
    }

    /// The connections of the inventory have these numbers in the ledger, in its order.
    pub fn adopt(&mut self, numbers: impl IntoIterator<Item = (AdmissionId, AdmissionId)>) {
        self.admissions.extend(numbers.into_iter().map(|(wire, ledger)| (wire.0, ledger)));
    }

    /// The connections it knows: each with its number on the wire, and that in the ledger.
    pub fn numbers(&self) -> Vec<(AdmissionId, AdmissionId)> {
        let numbers = self.admissions.iter();
        numbers.map(|(&wire, &ledger)| (AdmissionId(wire), ledger)).collect()
    }

    /// Orders something.
    pub fn order(&mut self, frame: &Frame, shard: ShardId, mut command: Command) {
        if let Command::Admit { grant, .. } = &mut command {
            self.last_admission += 1;
            self.admissions.insert(self.last_admission, grant.admission);
            grant.admission = AdmissionId(self.last_admission);
        }
        let message = Some(down::Message::Command(frame.command_out(shard, command)));
        self.exchange.push(v1::FromControlPlane { message, number: 0, received: 0 });
    }

    /// Whether it can be given orders; else they wait.
    pub fn takes_orders(&self) -> bool {
        self.taking.is_none() && !self.exchange.outbox().is_full()
    }

    /// Whether there is something to send.
    pub fn has_message(&self) -> bool {
        self.exchange.has_message()
    }

    /// The next message to send.
    pub fn next_message(&mut self) -> Option<v1::FromControlPlane> {
        self.exchange.next_message()
    }

    /// Time has passed; to be called every [`crate::BEAT`].
    pub fn beat(&mut self) {
        self.exchange.beat();
    }

    /// Whether it was silent for so many beats that it is gone. After that it cannot go on where it
    /// was.
    pub fn is_gone(&self) -> bool {
        self.exchange.is_silent()
    }
}

impl Default for Berth {
    fn default() -> Self {
        Self::new()
    }
}

/// Reports that come in parts at a time. Protects memory. Reached: the oldest is forgotten; whoever
/// asked for it is told that a shard is silent.
const REPORTS_MAX: usize = 256;

/// Connections of one data plane, and upgrades that wait there. Protects memory. Reached: its
/// stream is cut, with a count, and it offers another. Source: four times what any machine was seen
/// to hold.
const INVENTORY_MAX: usize = 4 << 20;

/// Numbers of admissions stay far from the end of numbers.
const ADMISSION_MAX: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use relay_contract::Tick;

    use super::*;

    const FRAME: Frame = Frame { first: 0, count: 1, now: Tick(0), unix_ms: 0 };

    fn holding(admission: u64) -> v1::Holding {
        let request = relay_contract::UpgradeRequest {
            role: relay_contract::Role::Client,
            workspace_id: "ws1".into(),
            target_id: None,
        };
        FRAME.holding_out(Holding {
            admission: AdmissionId(admission),
            home: ShardId(0),
            request,
            claimed_target: None,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            connection: None,
            credential: relay_contract::Credential::default(),
            client_id: None,
        })
    }

    fn part(number: u64, admissions: std::ops::Range<u64>) -> v1::FromDataPlane {
        let holdings = admissions.map(holding).collect();
        let part = v1::Inventory { holdings, ..v1::Inventory::default() };
        v1::FromDataPlane { message: Some(up::Message::Inventory(part)), number, received: 0 }
    }

    #[test]
    fn an_inventory_of_many_parts_is_bounded_as_a_whole() {
        let mut berth = Berth { inventory_max: 5, ..Berth::new() };
        assert!(berth.receive(&FRAME, part(1, 1..4)).unwrap().is_none());
        assert!(berth.receive(&FRAME, part(2, 4..6)).unwrap().is_none());
        let error = berth.receive(&FRAME, part(3, 6..7)).unwrap_err();
        assert_eq!(error, BerthError::Inflated(5));
    }

    #[test]
    fn an_admission_number_near_the_end_of_numbers_is_refused() {
        let mut berth = Berth::new();
        let first = ADMISSION_MAX + 1;
        let error = berth.receive(&FRAME, part(1, first..first + 1)).unwrap_err();
        assert!(matches!(error, BerthError::Inventory(_)), "{error:?}");
    }
}
