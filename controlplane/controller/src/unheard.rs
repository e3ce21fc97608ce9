//! Connections that were told to go while the link to their data plane may have been cut.
//!
//! An order that waits for a data plane which is given up is gone with its berth. The data plane
//! may come back and offer the connection as if nothing had been said; then it is told again.

use std::collections::HashMap;
use std::time::Duration;

use relay_contract::{AdmissionId, CloseReason, Tick};

/// Them, by data plane and by the number that the data plane knows.
#[derive(Debug, Default)]
pub(crate) struct Unheard {
    planes: HashMap<String, Told>,
    count: usize,
}

#[derive(Debug)]
struct Told {
    since: Tick,
    reasons: HashMap<AdmissionId, CloseReason>,
}

impl Unheard {
    /// A data plane is gone without a word, and with it what these may not have heard. How many of
    /// them are not remembered, because there are too many.
    pub(crate) fn keep(
        &mut self,
        now: Tick,
        instance_id: &str,
        told: impl Iterator<Item = (AdmissionId, CloseReason)>,
    ) -> usize {
        let is_old = |told: &Told| now.since(told.since) > KEPT_FOR;
        self.planes.retain(|_, told| !is_old(told));
        self.count = self.planes.values().map(|told| told.reasons.len()).sum();
        let mut reasons = HashMap::new();
        let mut missed = 0;
        for (admission, reason) in told {
            if self.count + reasons.len() < CONNECTIONS_MAX {
                reasons.insert(admission, reason);
            } else {
                missed += 1;
            }
        }
        self.count += reasons.len();
        if !reasons.is_empty() {
            self.planes.insert(instance_id.to_owned(), Told { since: now, reasons });
        }
        missed
    }

    /// It is back: who was told to go, and why.
    pub(crate) fn take(&mut self, instance_id: &str) -> HashMap<AdmissionId, CloseReason> {
        let told = self.planes.remove(instance_id).map(|told| told.reasons).unwrap_or_default();
        self.count -= told.len();
        told
    }
}

/// How long a data plane may be away: far longer than a restart or a repair of a network takes.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Connections remembered, of all data planes together: some 10 MB. Reached: the others stay when
/// their data plane comes back, with a count.
const CONNECTIONS_MAX: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(count: usize) -> impl Iterator<Item = (AdmissionId, CloseReason)> {
        (0..count as u64).map(|n| (AdmissionId(n), CloseReason::TokenRevoked))
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_time() {
        let mut unheard = Unheard::default();
        let now = Tick::from_millis(1);
        assert_eq!(unheard.keep(now, "a", told(CONNECTIONS_MAX - 1)), 0);
        assert_eq!(unheard.keep(now, "b", told(3)), 2);
        assert_eq!(unheard.take("b").len(), 1);
        assert_eq!(unheard.take("b").len(), 0, "they are told once");
        let later = now.after(KEPT_FOR + Duration::from_secs(1));
        assert_eq!(unheard.keep(later, "c", told(CONNECTIONS_MAX)), 0);
        assert_eq!(unheard.take("a").len(), 0, "it stayed away for too long");
        assert_eq!(unheard.take("c").len(), CONNECTIONS_MAX);
    }
}
