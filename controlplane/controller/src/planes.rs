//! Data planes that run apart: they come, tell what they hold, and go.

use std::collections::HashSet;
use std::sync::Arc;

use relay_admission::KeyPrint;
use relay_contract::{
    AdmissionId, Claims, CloseReason, Counter, Credential, Level, LogEntry, Versioned,
};
use relay_link::convert::{Holding, InForce};
use relay_link::{Attached, Block, Detached, News};

use crate::controller::{Controller, EVENTS_IN_A_ROW_MAX, EVENTS_PER_TURN};
use crate::decide::SignedWith;
use crate::judge::Accepted;
use crate::settings::Settings;

/// A data plane that runs apart and is there.
#[derive(Debug)]
pub(crate) struct AttachedPlane {
    pub(crate) block: Block,
    /// What it calls itself.
    pub(crate) instance_id: String,
    /// What moves its bytes.
    pub(crate) driver: &'static str,
}

impl Controller {
    /// Takes in what data planes tell, and more of what is there, but not for ever: jobs and
    /// shutdown have their turn too.
    pub(crate) async fn on_news(&mut self, news: News) {
        self.take_news(news);
        for _ in 1..EVENTS_PER_TURN {
            let Some(news) = self.link.planes.try_next() else { break };
            self.take_news(news);
        }
        if self.events_in_a_row >= EVENTS_IN_A_ROW_MAX {
            self.look_at_tokens();
            // Events alone never let this task rest: sockets and timers need that.
            tokio::task::yield_now().await;
        }
    }

    fn take_news(&mut self, news: News) {
        self.events_in_a_row += 1;
        match news {
            News::Event(event) => self.on_event(event),
            News::Attached(attached) => self.on_attached(*attached),
            News::Detached(detached) => self.on_detached(detached),
        }
    }

    /// Counts what the data plane holds and tells it what is in force here.
    pub(crate) fn on_attached(&mut self, attached: Attached) {
        let Attached { block, instance_id, driver, mut inventory, orders, adopted } = attached;
        self.show_driver(driver);
        self.link.shards.attach(block, &orders);
        let plane = AttachedPlane { block, instance_id: instance_id.clone(), driver };
        self.attached.insert(block.first, plane);
        self.last_reports.attach(block, &instance_id);
        self.running.extend(block.shards());
        self.judge.attach(block);
        let unheard = self.unheard.take(&instance_id);
        let holdings = std::mem::take(&mut inventory.holdings).into_iter();
        let adopt = |held: Holding| {
            let number = held.admission;
            let admission = self.adopt(held, block);
            if let Some(&reason) = unheard.get(&number) {
                self.dismiss_all(&[admission], reason);
            }
            (number, admission)
        };
        let numbers: Vec<_> = holdings.map(adopt).collect();
        let connections = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
        // A berth that is gone says so next.
        let _gone = adopted.send(numbers);
        let in_force =
            |shard, value, version| inventory.in_force.contains(&InForce { shard, value, version });
        for held in inventory.in_force.iter().filter(|held| block.contains(held.shard)) {
            self.acknowledged.note(held.shard, held.value, held.version);
        }
        self.outdo(&inventory.in_force, block);
        for shard in block.shards() {
            // Who comes back after a cut has them already.
            if !in_force(shard, Versioned::Limits, self.settings.limits.version)
                || !in_force(shard, Versioned::Routes, self.settings.routes.version)
            {
                self.tell_versions(shard);
            }
        }
        self.settle_drain(block, inventory.drain.take());
        let entry = LogEntry::new(Level::Info, "data_plane_attached")
            .with("instance", instance_id)
            .with("firstShard", i64::from(block.first.0))
            .with("shards", i64::from(block.count))
            .with("connections", connections);
        self.log(entry.ours());
    }

    /// Shards refuse what is not newer than what they have. Where that is from a control plane
    /// whose clock was ahead, what is in force here gets a version beyond it.
    fn outdo(&mut self, in_force: &[InForce], block: Block) {
        let of_settings = in_force
            .iter()
            .filter(|held| block.contains(held.shard) && held.value != Versioned::Drain);
        let held = of_settings.map(|held| held.version).max().unwrap_or(0);
        // Beyond that is no date, and no room.
        if held <= self.version || held > VERSION_MAX {
            return;
        }
        let before = std::mem::replace(&mut self.version, held);
        let applied = self.apply(&self.live());
        let entry = LogEntry::new(Level::Warn, "settings_version_raised")
            .with("from", i64::try_from(before).unwrap_or(i64::MAX))
            .with("to", i64::try_from(self.version).unwrap_or(i64::MAX))
            .with("applied", applied.is_ok());
        self.log(entry.ours());
    }

    /// Shows what moves bytes: that of the data plane that came last.
    fn show_driver(&mut self, driver: &'static str) {
        if self.settings.driver != driver {
            self.settings = Arc::new(Settings { driver, ..Settings::clone(&self.settings) });
        }
    }

    /// Counts a connection that is open already, with what is known of its token.
    fn adopt(&mut self, holding: Holding, block: Block) -> AdmissionId {
        let accepted = Accepted {
            claims: Claims { client_id: holding.client_id.clone(), ..Claims::default() },
            credential: holding.credential.clone(),
            key: self.key_behind(&holding.credential),
        };
        let facts = self.facts(&accepted);
        let admission = self.judge.adopt(&holding, facts, block);
        self.watch_expiry(admission, facts.expiry);
        let workspace_id = &holding.request.workspace_id;
        if self.revocations.covers(self.now_secs(), workspace_id, &holding.credential) {
            // It was revoked while its data plane was away.
            let closed = self.dismiss_all(&[admission], CloseReason::TokenRevoked);
            self.counters.add(Counter::RevokedClosed, closed as u64);
        }
        admission
    }

    /// What its connections were told may be lost with the link.
    fn remember_unheard(&mut self, instance_id: &str, numbers: Vec<(AdmissionId, AdmissionId)>) {
        let told = |(number, admission)| Some((number, self.judge.farewell_of(admission)?));
        let told = numbers.into_iter().filter_map(told);
        let missed = self.unheard.keep(self.clock.now(), instance_id, told);
        self.counters.add(Counter::FarewellsForgotten, missed as u64);
    }

    /// The key by which another control plane checked a token's signature, where keys are known
    /// here.
    fn key_behind(&self, credential: &Credential) -> Option<SignedWith> {
        let print = KeyPrint::from_bytes(credential.key_print?);
        let issuer = self.keys.as_ref()?.issuer_named(credential.issuer.as_deref());
        Some(SignedWith { issuer, print })
    }

    /// Its connections are gone, or will be offered anew by whoever still holds them.
    pub(crate) fn on_detached(&mut self, detached: Detached) {
        let Detached { block, instance_id, said, numbers } = detached;
        self.link.shards.detach(block);
        self.undelivered.detach(block);
        // Of its moves nobody says any more how they ended.
        self.moving.retain(|(first, _)| *first != block.first);
        if !said {
            self.remember_unheard(&instance_id, numbers);
        }
        self.attached.remove(&block.first);
        let (admissions, waiting) = self.judge.detach(block);
        for connection in waiting {
            self.on_abandoned(connection);
        }
        let admissions: HashSet<_> = admissions.into_iter().collect();
        self.end_calls(|owner| admissions.contains(&owner));
        self.running.retain(|&shard| !block.contains(shard));
        self.acknowledged.forget(|shard| block.contains(shard));
        self.queries.detach(|shard| block.contains(shard));
        self.last_reports.detach(block, instance_id.clone());
        self.settle_queries();
        let level = if said { Level::Info } else { Level::Warn };
        if !said {
            self.counters.count(Counter::PlanesGone);
        }
        let connections = i64::try_from(admissions.len()).unwrap_or(i64::MAX);
        let entry = LogEntry::new(level, "data_plane_detached")
            .with("instance", instance_id)
            .with("firstShard", i64::from(block.first.0))
            .with("connections", connections)
            .with("said", said);
        self.log(entry.ours());
    }
}

/// Versions that a data plane may hold: far beyond every date in milliseconds.
const VERSION_MAX: u64 = 1 << 60;
