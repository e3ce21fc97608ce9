//! Connections whose credential is good no more: how they end.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use relay_contract::{
    AdmissionId, CloseReason, Command, ConnectionId, Counter, Level, LogEntry, Tick,
};
use relay_link::LinkError;

use crate::controller::Controller;
use crate::facts::{Expiry, KeyNumber, NameKind};
use crate::jwks::{KeyRing, KeySetStatus};
use crate::ledger::{Dismissal, Seated};
use crate::revocations::{Revocation, RevocationOutcome, Revoked};
use crate::settings::Ending;

impl Controller {
    /// Ends every connection that stands on what is revoked, and refuses admissions that would,
    /// until the revocation's own end. Cached decisions are forgotten.
    ///
    /// Cost: looks at every admitted connection.
    pub fn revoke(&mut self, revocation: Revocation) -> RevocationOutcome {
        self.decisions.flush();
        let concerned = self.concerned_by(&revocation.revoked);
        let kind = revocation.revoked.kind();
        let remembered = self.revocations.insert(self.now_secs(), revocation);
        match remembered {
            true => self.revocations_changed(),
            false => self.counters.count(Counter::RevocationsUnremembered),
        }
        let closed = self.dismiss_all(&concerned, CloseReason::TokenRevoked);
        self.counters.add(Counter::RevokedClosed, closed as u64);
        let entry = LogEntry::new(Level::Info, "revoked")
            .with("kind", kind)
            .with("connections", i64::try_from(closed).unwrap_or(i64::MAX));
        self.log(entry.ours());
        RevocationOutcome { closed, remembered }
    }

    /// The revocations in force, in no particular order.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.revocations.in_force(self.now_secs()).collect()
    }

    /// The key sets, in the order of the configuration; none where tokens are not checked here.
    pub fn key_sets(&self) -> Vec<KeySetStatus> {
        self.keys.as_ref().map_or_else(Vec::new, |ring| ring.status())
    }

    /// Tells these connections to go; how many of them had not been told before.
    pub(crate) fn dismiss_all(&mut self, admissions: &[AdmissionId], reason: CloseReason) -> usize {
        admissions.iter().filter(|admission| self.dismiss(**admission, reason)).count()
    }

    /// An admitted connection is open, or lives elsewhere from now on.
    pub(crate) fn on_opened(&mut self, admission: AdmissionId, connection: ConnectionId) {
        if let Some(reason) = self.judge.open(admission, connection) {
            self.tell_to_go(connection, reason);
        }
    }

    /// Whether [`Self::on_beat`] may have something to do.
    pub(crate) fn needs_beat(&self) -> bool {
        let expires = self.settings.expiry != Ending::Ignore && self.judge.admitted_count() > 0;
        expires
            || self.inquiries.has_arrivals()
            || !self.withdrawals.is_empty()
            || self.keeping.is_behind()
    }

    /// What time brings about: upgrades that waited too long, tokens that expire, keys whose grace
    /// runs out, revocations that could not be written down.
    pub(crate) fn on_beat(&mut self) {
        self.expire_waiting();
        self.end_expired();
        self.end_withdrawn();
        self.keep_revocations();
    }

    /// From now on an admission ends when this date passes, if that is wanted at all.
    pub(crate) fn watch_expiry(&mut self, admission: AdmissionId, expiry: Expiry) {
        if let Some(expiry) = self.end_of(expiry) {
            self.sweep.watch(self.now_secs(), admission, expiry);
        }
    }

    /// The date, in seconds since 1970.
    pub(crate) fn now_secs(&self) -> i64 {
        self.clock.unix_ms().div_euclid(1000)
    }

    /// Notes which keys were withdrawn, and ends their connections where that is to be at once.
    pub(crate) fn see_to_withdrawn_keys(&mut self, ring: &KeyRing) {
        let now = self.clock.now();
        let mut withdrawn = Vec::new();
        for (issuer, keys) in ring.sets() {
            withdrawn.extend(self.book.compare(now, issuer, &keys));
        }
        self.withdraw(withdrawn);
    }

    /// Ends the connections under these keys, or begins their grace.
    pub(crate) fn withdraw(&mut self, withdrawn: Vec<KeyNumber>) {
        if self.keys_withdrawn() == Ending::Ignore {
            return;
        }
        for number in withdrawn {
            let of_key = |seated: &Seated<'_>| seated.facts.key == number;
            let connections = self.judge.seated().filter(of_key).count();
            let id = self.book.id_of(number).unwrap_or_default();
            let id: String = id.chars().take(128).collect();
            let entry = LogEntry::new(Level::Warn, "jwks_key_withdrawn")
                .with("keyId", id)
                .with("connections", i64::try_from(connections).unwrap_or(i64::MAX));
            self.log(entry.ours());
            self.withdrawals.push(number);
        }
        self.withdrawals_seen_at = None;
        self.end_withdrawn();
    }

    /// What becomes of connections whose key was withdrawn.
    pub(crate) fn keys_withdrawn(&self) -> Ending {
        self.settings.jwks.as_ref().map_or(Ending::Ignore, |jwks| jwks.withdrawn)
    }

    /// When a connection whose token expires then is to end.
    fn end_of(&self, expiry: Expiry) -> Option<Expiry> {
        let grace = match self.settings.expiry {
            Ending::Ignore => return None,
            Ending::Close => Duration::ZERO,
            Ending::Grace(grace) => grace,
        };
        // As far as clocks may disagree a token is admitted too.
        let leeway = self.keys.as_ref().map_or(0, |ring| i64::from(ring.leeway_secs()));
        let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let secs = expiry.secs()?.saturating_add(leeway).saturating_add(grace);
        Some(Expiry::at(Some(secs)))
    }

    fn end_expired(&mut self) {
        if self.settings.expiry == Ending::Ignore {
            return;
        }
        let now_secs = self.now_secs();
        let mut sweep = std::mem::take(&mut self.sweep);
        let end_of = |expiry| self.end_of(expiry);
        let expired = self.judge.expired(&mut sweep, now_secs, end_of);
        self.sweep = sweep;
        let closed = self.dismiss_all(&expired, CloseReason::TokenExpired);
        self.counters.add(Counter::TokenExpiredClosed, closed as u64);
    }

    /// Ends connections under withdrawn keys: all at once, or in the second half of their grace one
    /// after the other, so that not all of them come back in one moment.
    fn end_withdrawn(&mut self) {
        let now = self.clock.now();
        let is_early = |seen: Tick| now.since(seen) < Duration::from_secs(1);
        if self.withdrawals.is_empty() || self.withdrawals_seen_at.is_some_and(is_early) {
            return;
        }
        self.withdrawals_seen_at = Some(now);
        let mut going = Vec::new();
        let mut still = Vec::new();
        for number in std::mem::take(&mut self.withdrawals) {
            // Published again meanwhile: its connections stay.
            let Some(since) = self.book.withdrawn_since(number) else {
                continue;
            };
            let share = share_to_end(self.keys_withdrawn(), now.since(since));
            if share < 1.0 {
                still.push(number);
            }
            going.push((number, share));
        }
        self.withdrawals = still;
        let is_over = |seated: &Seated<'_>| {
            let mut going = going.iter();
            let key = going.find(|(number, _)| *number == seated.facts.key);
            key.is_some_and(|(_, share)| place_in_line(seated.admission) < *share)
        };
        let ending = self.judge.seated().filter(is_over).map(|seated| seated.admission);
        let ending: Vec<_> = ending.collect();
        let closed = self.dismiss_all(&ending, CloseReason::KeyWithdrawn);
        self.counters.add(Counter::KeyWithdrawnClosed, closed as u64);
    }

    fn concerned_by(&self, revoked: &Revoked) -> Vec<AdmissionId> {
        let print = |kind, name: &str| (kind, self.names.print(kind, name));
        let name = match revoked {
            Revoked::TokenId(id) => Some(print(NameKind::TokenId, id)),
            Revoked::Subject(subject) => Some(print(NameKind::Subject, subject)),
            Revoked::Workspace(_) | Revoked::KeyId(_) => None,
        };
        let keys: Vec<KeyNumber> = match revoked {
            Revoked::KeyId(id) => self.book.named(id),
            _ => Vec::new(),
        };
        let is_concerned = |seated: &Seated<'_>| match revoked {
            Revoked::Workspace(id) => seated.scope.workspace_id == *id,
            Revoked::KeyId(_) => keys.contains(&seated.facts.key),
            Revoked::TokenId(_) | Revoked::Subject(_) => {
                name.is_some_and(|(kind, print)| seated.facts.prints.has(kind, print))
            }
        };
        self.judge.seated().filter(is_concerned).map(|seated| seated.admission).collect()
    }

    fn dismiss(&mut self, admission: AdmissionId, reason: CloseReason) -> bool {
        match self.judge.dismiss(admission, reason) {
            Dismissal::Tell(connection) => {
                self.tell_to_go(connection, reason);
                true
            }
            Dismissal::WhenOpen => true,
            Dismissal::Nothing => false,
        }
    }

    /// Tells a shard to close a connection; as soon as it takes orders again, if not now.
    fn tell_to_go(&mut self, connection: ConnectionId, reason: CloseReason) {
        let close = Command::Close { connection, reason };
        match self.link.shards.send(connection.shard, close) {
            Ok(()) => {}
            Err(LinkError::Overloaded(_)) if !self.stopping => {
                self.note_undelivered(1);
                self.undelivered.push(connection, reason);
            }
            Err(LinkError::Overloaded(_) | LinkError::NoSuchShard(_)) => self.note_undelivered(1),
        }
    }

    /// Tells those who could not be told, as far as there is room again.
    pub(crate) fn tell_undelivered(&mut self) {
        self.undelivered.tell(&mut self.link.shards);
    }
}

impl Revoked {
    fn kind(&self) -> &'static str {
        match self {
            Self::TokenId(_) => "tokenId",
            Self::Subject(_) => "subject",
            Self::Workspace(_) => "workspace",
            Self::KeyId(_) => "keyId",
        }
    }
}

/// Of the connections under a key withdrawn so long ago, the share that is to end by now.
fn share_to_end(ending: Ending, elapsed: Duration) -> f64 {
    match ending {
        Ending::Ignore => 0.0,
        Ending::Close => 1.0,
        Ending::Grace(grace) if elapsed >= grace => 1.0,
        Ending::Grace(grace) => {
            (2.0 * elapsed.as_secs_f64() / grace.as_secs_f64() - 1.0).clamp(0.0, 1.0)
        }
    }
}

/// A number in `0.0..1.0` that is the same for one admission every time.
fn place_in_line(admission: AdmissionId) -> f64 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(admission.0) as u32;
    f64::from(hash) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_grace_nobody_ends_in_its_first_half_and_everybody_by_its_end() {
        let grace = Ending::Grace(Duration::from_secs(100));
        for (secs, share) in [(0, 0.0), (50, 0.0), (75, 0.5), (100, 1.0), (1000, 1.0)] {
            let found = share_to_end(grace, Duration::from_secs(secs));
            assert!((found - share).abs() < 1e-9, "{secs}: {found}");
        }
        assert!(share_to_end(Ending::Close, Duration::ZERO) >= 1.0);
        assert!(share_to_end(Ending::Ignore, Duration::from_secs(1)) <= 0.0);
    }

    #[test]
    fn connections_end_evenly() {
        let mut quarters = [0; 4];
        for n in 0..4000_u64 {
            let place = place_in_line(AdmissionId(n << 32 | n));
            quarters[(place * 4.0) as usize] += 1;
        }
        assert!(quarters.iter().all(|count| (850..1150).contains(count)), "{quarters:?}");
    }
}
