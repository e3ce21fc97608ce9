//! What waits for room in other shards' lanes.

use std::collections::{BTreeMap, VecDeque};

use relay_contract::{Counter, Event, ShardId};
use relay_driver::Driver;
use relay_mailbox::Full;
use relay_wire::http1;

use crate::connection::Connection;
use crate::parcel::{Caravan, Content, Parcel, Upgrade};
use crate::shard::Shard;
use crate::upgrade::UNAVAILABLE;

/// Parcels by destination, each in order: a shard that takes nothing holds up what is for it alone.
pub(crate) struct Mail<S> {
    boxes: BTreeMap<ShardId, VecDeque<Parcel<S>>>,
    bytes: usize,
}

/// Parcels that may wait for one shard. Protects memory and descriptors from a shard that takes
/// nothing. Reached: upgrades are answered 503, orders are dropped, and both are counted; a
/// workspace, of which one moves at a time, still finds its place. Source: a shard that goes on
/// takes thousands in a second.
const WAITING_MAX: usize = 1024;

impl<S> Default for Mail<S> {
    fn default() -> Self {
        Self { boxes: BTreeMap::new(), bytes: 0 }
    }
}

impl<S> Mail<S> {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    /// Memory of what waits, as far as it belonged to connections of this shard.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing more may wait for that shard.
    fn is_full(&self, to: ShardId) -> bool {
        self.boxes.get(&to).is_some_and(|waiting| waiting.len() >= WAITING_MAX)
    }
}

impl<D: Driver> Shard<D> {
    /// Hands something to another shard, behind what waits for it already.
    ///
    /// # Errors
    /// Too much waits, there is no such shard, or it has ended: the parcel comes back.
    pub(crate) fn dispatch(
        &mut self,
        to: ShardId,
        parcel: Parcel<D::Socket>,
    ) -> Result<(), Full<Parcel<D::Socket>>> {
        let Some(lane) = self.ports.homes.get(usize::from(to.0)) else { return Err(Full(parcel)) };
        if !self.mail.boxes.contains_key(&to) {
            return lane.send(parcel);
        }
        if self.mail.is_full(to) {
            return Err(Full(parcel));
        }
        self.put_in_mail(to, parcel);
        Ok(())
    }

    /// Sends something on that was for this shard, or comes from it and cannot be refused.
    pub(crate) fn forward_parcel(&mut self, to: ShardId, parcel: Parcel<D::Socket>) {
        if let Err(Full(parcel)) = self.dispatch(to, parcel) {
            match parcel.0 {
                Content::Upgrade(upgrade) if self.mail.is_full(to) => self.refuse_upgrade(upgrade),
                Content::Order(_) if self.mail.is_full(to) => {
                    self.counters.count(Counter::CommandsUndelivered);
                }
                content => self.put_in_mail(to, Parcel(content)),
            }
        }
    }

    fn put_in_mail(&mut self, to: ShardId, parcel: Parcel<D::Socket>) {
        let bytes = parcel.held_bytes();
        self.budget.hold(bytes);
        self.mail.bytes += bytes;
        self.mail.boxes.entry(to).or_default().push_back(parcel);
    }

    /// Moves what waits into lanes that have room again. What is for a shard that has ended comes
    /// back.
    pub(crate) fn post_parcels(&mut self) {
        for to in self.mail.boxes.keys().copied().collect::<Vec<_>>() {
            let lane = self.ports.homes.get(usize::from(to.0));
            let Some(waiting) = self.mail.boxes.get_mut(&to) else { continue };
            let mut freed = 0;
            while let Some(lane) = lane.filter(|lane| lane.is_received())
                && let Some(parcel) = waiting.pop_front()
            {
                let bytes = parcel.held_bytes();
                if let Err(Full(parcel)) = lane.send(parcel) {
                    waiting.push_front(parcel);
                    break;
                }
                freed += bytes;
            }
            let is_over = waiting.is_empty();
            let has_ended = !lane.is_some_and(|lane| lane.is_received());
            self.mail.bytes -= freed;
            self.budget.release(freed);
            if is_over {
                self.mail.boxes.remove(&to);
            } else if has_ended {
                for Parcel(content) in self.take_mail(to) {
                    self.take_back(content);
                }
            }
        }
    }

    /// Takes all that waits for a shard.
    fn take_mail(&mut self, to: ShardId) -> VecDeque<Parcel<D::Socket>> {
        let waiting = self.mail.boxes.remove(&to).unwrap_or_default();
        let bytes = waiting.iter().map(Parcel::held_bytes).sum();
        self.mail.bytes -= bytes;
        self.budget.release(bytes);
        waiting
    }

    /// Something was for a shard that has ended.
    fn take_back(&mut self, content: Content<D::Socket>) {
        match content {
            Content::Upgrade(upgrade) => self.refuse_upgrade(upgrade),
            // It has never been there: it goes on here, under new names.
            Content::Workspace(caravan) => self.land(*caravan),
            Content::Order(_) => self.counters.count(Counter::CommandsUndelivered),
            Content::RoomAsked(_) | Content::RoomAnswered(_) => {}
        }
    }

    /// Answers an upgrade 503 for which its home has no room.
    fn refuse_upgrade(&mut self, upgrade: Upgrade<D::Socket>) {
        let Upgrade { socket, grant, tls, .. } = upgrade;
        if self.stop_deadline.is_some() {
            return self.emit(Event::Released { admission: grant.admission });
        }
        let key = self.table.insert(Connection::arriving(tls));
        self.driver.adopt(key, socket);
        self.counters.count(Counter::HandOversRefused);
        self.counters.count(Counter::AdmissionUnavailable);
        let refusal = http1::refusal_bytes(UNAVAILABLE).into_owned();
        self.turn_away(key, grant.admission, refusal);
    }

    /// Gives up what waits for other shards, because this one ends: every grant comes back.
    pub(crate) fn drop_parcels(&mut self) {
        for to in self.mail.boxes.keys().copied().collect::<Vec<_>>() {
            for Parcel(content) in self.take_mail(to) {
                self.give_up(content);
            }
        }
    }

    pub(crate) fn give_up(&mut self, content: Content<D::Socket>) {
        match content {
            Content::Upgrade(upgrade) => {
                self.emit(Event::Released { admission: upgrade.grant.admission });
            }
            Content::Workspace(caravan) => self.give_up_caravan(&caravan),
            Content::Order(_) | Content::RoomAsked(_) | Content::RoomAnswered(_) => {}
        }
    }

    fn give_up_caravan(&mut self, caravan: &Caravan<D::Socket>) {
        for (_, admission) in caravan.household.connections() {
            self.counters.count(Counter::WsConnectionsClosed);
            self.emit(Event::Released { admission });
        }
    }
}
