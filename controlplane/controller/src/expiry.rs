//! Which connections stand on a token that expires in this second.

use std::collections::BTreeMap;

use relay_contract::AdmissionId;

use crate::facts::Expiry;
use crate::ledger::Ledger;

/// Finds expired tokens without a timer per connection: in each second it looks at a part of the
/// ledger, so that every seat is seen before its token expires, and puts those due soon into a
/// bucket of their second.
///
/// Cost: a thirty-second part of the seats per second, and one bucket entry per connection in its
/// last minute. Memory: those entries.
#[derive(Debug, Default)]
pub(crate) struct ExpirySweep {
    /// By the second in which they are due.
    due: BTreeMap<i64, Vec<AdmissionId>>,
    /// The seat to look at next.
    cursor: usize,
    /// The second that was swept last.
    swept_secs: i64,
}

impl ExpirySweep {
    /// A seat is to end then, from now on.
    pub(crate) fn watch(&mut self, now_secs: i64, admission: AdmissionId, expiry: Expiry) {
        if let Some(secs) = expiry.secs()
            && secs <= now_secs.saturating_add(HORIZON_SECS)
        {
            self.due.entry(secs).or_default().push(admission);
        }
    }

    /// Everything that is to end by now, where `end_of` says when the connection of a token that
    /// expires then is. A seat may be named twice, or be given back already, or have a fresh token:
    /// whoever ends connections looks once more.
    pub(crate) fn expired(
        &mut self,
        now_secs: i64,
        ledger: &Ledger,
        end_of: impl Fn(Expiry) -> Option<Expiry>,
    ) -> Vec<AdmissionId> {
        if now_secs != self.swept_secs {
            self.swept_secs = now_secs;
            self.sweep(now_secs, ledger, end_of);
        }
        let later = self.due.split_off(&now_secs.saturating_add(1));
        let expired = std::mem::replace(&mut self.due, later);
        expired.into_values().flatten().collect()
    }

    fn sweep(&mut self, now_secs: i64, ledger: &Ledger, end_of: impl Fn(Expiry) -> Option<Expiry>) {
        let seats = ledger.seat_count();
        let part = seats.div_ceil(PARTS).max(1);
        if self.cursor >= seats {
            self.cursor = 0;
        }
        let end = (self.cursor + part).min(seats);
        for at in self.cursor..end {
            if let Some((admission, expiry)) = ledger.expiry_at(at)
                && let Some(end) = end_of(expiry)
            {
                self.watch(now_secs, admission, end);
            }
        }
        self.cursor = end;
    }
}

/// Seconds in which every seat is looked at once.
const PARTS: usize = 32;

/// How far ahead a seat is put into a bucket: twice as far as it takes to see all of them.
const HORIZON_SECS: i64 = 64;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use relay_contract::{Role, ShardId};

    use super::*;
    use crate::facts::Facts;
    use crate::ledger::{Scope, Seat};
    use crate::settings::Caps;

    fn ledger(expiries: impl IntoIterator<Item = i64>) -> (Ledger, Vec<AdmissionId>) {
        let caps = Caps { connections_per_address_max: usize::MAX, ..Caps::default() };
        let mut ledger = Ledger::new(caps);
        let admissions = expiries.into_iter().map(|secs| {
            let facts = Facts { expiry: Expiry::at(Some(secs)), ..Facts::default() };
            let seat = Seat {
                role: Role::Daemon,
                scope: Scope { workspace_id: "ws1".into(), target_id: None },
                address: Ipv4Addr::LOCALHOST.into(),
                facts,
            };
            ledger.reserve(seat, ShardId(0), ShardId(0)).unwrap().0
        });
        let admissions = admissions.collect();
        (ledger, admissions)
    }

    #[test]
    fn every_token_is_found_in_its_second() {
        let (mut ledger, admissions) = ledger((0..1000).map(|n| 40 + n));
        let mut sweep = ExpirySweep::default();
        for now_secs in 1..1100 {
            let mut expired = sweep.expired(now_secs, &ledger, Some);
            expired.dedup();
            let at = usize::try_from(now_secs - 40).ok();
            let expected = at.and_then(|at| admissions.get(at)).copied();
            assert!(expired.iter().all(|found| Some(*found) == expected), "{now_secs}");
            assert_eq!(expired.first().copied(), expected, "{now_secs}");
            expired.into_iter().for_each(|admission| ledger.release(admission));
        }
        assert!(sweep.due.is_empty());
    }

    #[test]
    fn a_token_that_expires_soon_is_watched_at_once() {
        let (ledger, admissions) = ledger([]);
        assert!(admissions.is_empty());
        let mut sweep = ExpirySweep::default();
        let admission = AdmissionId(7);
        sweep.watch(100, admission, Expiry::at(Some(101)));
        sweep.watch(100, AdmissionId(8), Expiry::NEVER);
        sweep.watch(100, AdmissionId(9), Expiry::at(Some(100 + HORIZON_SECS + 1)));
        assert_eq!(sweep.expired(100, &ledger, Some), []);
        assert_eq!(sweep.expired(101, &ledger, Some), [admission]);
        assert!(sweep.due.is_empty(), "what is far away takes no memory");
    }

    #[test]
    fn a_date_that_jumps_ahead_expires_what_it_passes() {
        let (ledger, admissions) = ledger([50_000; 320]);
        let mut sweep = ExpirySweep::default();
        assert_eq!(sweep.expired(1, &ledger, Some), []);
        let mut found = Vec::new();
        for now_secs in 60_000..60_033 {
            found.extend(sweep.expired(now_secs, &ledger, Some));
        }
        assert!(admissions.iter().all(|admission| found.contains(admission)));
    }
}
