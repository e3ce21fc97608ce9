//! The life of one session at a daemon, as far as its replacement goes.

use relay_contract::Tick;

use crate::ids::SessionId;
use crate::keys::PublicKey;

/// ```text
/// Fresh ──threshold, client's notice──▶ Pending ──new session──▶ Replaced ──used, late──▶ gone
/// ```
///
/// A replaced session sends no more but still receives: what the client had sent under the old key
/// before it heard of the new one is not lost. It goes once the client has shown that it has the
/// new key and stragglers had their time. Until then a client that missed the answer may ask again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Rotation {
    Fresh,
    Pending,
    Replaced {
        by: SessionId,
        /// The client's key of the exchange that made the new session: the same one again is a
        /// replay.
        ephemeral: Box<PublicKey>,
        /// Set when the client has used the new session.
        gone_at: Option<Tick>,
    },
}

impl Rotation {
    /// Whether the notice is due now that `sent` messages went out; true at most once.
    pub(crate) fn falls_due(&mut self, sent: u64, rotate_after: u64) -> bool {
        let due = *self == Self::Fresh && sent >= rotate_after;
        if due {
            *self = Self::Pending;
        }
        due
    }

    /// The client's notice. False when it does not fit; nothing changes then.
    pub(crate) fn ask(&mut self, epoch: u64, next_epoch: u64) -> bool {
        if epoch.checked_add(1) != Some(next_epoch) {
            return false;
        }
        match self {
            Self::Fresh => {
                *self = Self::Pending;
                true
            }
            Self::Pending => true,
            Self::Replaced { gone_at, .. } => gone_at.is_none(),
        }
    }

    /// Whether an exchange may replace the session.
    pub(crate) fn admits(&self, with: &PublicKey) -> bool {
        match self {
            Self::Fresh => false,
            Self::Pending => true,
            Self::Replaced { ephemeral, gone_at, .. } => gone_at.is_none() && **ephemeral != *with,
        }
    }

    /// Whether the session is over at `now`.
    pub(crate) fn is_gone(&self, now: Tick) -> bool {
        matches!(self, Self::Replaced { gone_at: Some(at), .. } if *at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyPair;

    fn key(scalar: u8) -> PublicKey {
        *KeyPair::from_private_bytes(&[scalar]).unwrap().public()
    }

    fn replaced(gone_at: Option<Tick>) -> Rotation {
        Rotation::Replaced { by: "rs_new".into(), ephemeral: Box::new(key(1)), gone_at }
    }

    #[test]
    fn the_notice_falls_due_once() {
        let mut rotation = Rotation::Fresh;
        assert!(!rotation.falls_due(249, 250));
        assert!(rotation.falls_due(250, 250));
        assert!(!rotation.falls_due(251, 250));
    }

    #[test]
    fn a_notice_with_another_epoch_changes_nothing() {
        let mut rotation = Rotation::Fresh;
        assert!(!rotation.ask(1, 1));
        assert!(!rotation.ask(1, 3));
        assert!(!rotation.ask(u64::MAX, 0));
        assert_eq!(rotation, Rotation::Fresh);
        assert!(rotation.ask(1, 2));
        assert_eq!(rotation, Rotation::Pending);
    }

    #[test]
    fn every_state_admits_what_the_table_says() {
        let late = Some(Tick::from_millis(5));
        for (rotation, first_time, same_again) in [
            (Rotation::Fresh, false, false),
            (Rotation::Pending, true, true),
            (replaced(None), true, false),
            (replaced(late), false, false),
        ] {
            assert_eq!(rotation.admits(&key(2)), first_time, "{rotation:?}");
            assert_eq!(rotation.admits(&key(1)), same_again, "{rotation:?}");
        }
        assert!(!replaced(late).is_gone(Tick::from_millis(4)));
        assert!(replaced(late).is_gone(Tick::from_millis(5)));
        assert!(!replaced(None).is_gone(Tick::from_millis(5)));
    }
}
