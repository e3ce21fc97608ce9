//! What was revoked, until it would have expired by itself.

use std::collections::HashMap;

use relay_contract::{Credential, WorkspaceId};

/// What is no longer good.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Revoked {
    /// The token with this id (`jti`).
    TokenId(Box<str>),
    /// Every token about this subject (`sub`).
    Subject(Box<str>),
    /// Every token for this workspace.
    Workspace(WorkspaceId),
    /// Every token signed with a key of this name (`kid`), whoever the issuer.
    KeyId(Box<str>),
}

/// An order to revoke.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revocation {
    /// What.
    pub revoked: Revoked,
    /// Until when admissions are refused for it, seconds since 1970: when the last token it is
    /// about has expired.
    pub until_secs: i64,
}

/// What became of a revocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RevocationOutcome {
    /// Connections that end.
    pub closed: usize,
    /// Whether later admissions are refused: not when too many revocations are in force already.
    pub remembered: bool,
}

/// The revocations in force, in memory; [`crate::keeping`] keeps them beyond that.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    until: HashMap<Revoked, i64>,
}

impl Revocations {
    /// Revocations in force. Protects memory. Reached: connections are closed all the same, but
    /// the revocation is not remembered, and whoever ordered it is told.
    pub(crate) const IN_FORCE_MAX: usize = 64 << 10;

    /// Bytes of a revoked name: those of the longest claim, four for each of its UTF-16 units.
    pub(crate) const NAME_BYTES_MAX: usize = 1024;

    /// Remembers a revocation; whether there was room. One that was there already lasts as long as
    /// the longer of the two.
    pub(crate) fn insert(&mut self, now_secs: i64, revocation: Revocation) -> bool {
        let Revocation { revoked, until_secs } = revocation;
        if until_secs <= now_secs {
            return true;
        }
        if revoked.name().len() > Self::NAME_BYTES_MAX {
            // No token has such a name, so there is nothing to remember.
            return true;
        }
        if let Some(until) = self.until.get_mut(&revoked) {
            *until = until_secs.max(*until);
            return true;
        }
        if self.until.len() >= Self::IN_FORCE_MAX {
            self.forget_old(now_secs);
        }
        let has_room = self.until.len() < Self::IN_FORCE_MAX;
        if has_room {
            self.until.insert(revoked, until_secs);
        }
        has_room
    }

    /// Whether something this admission rests on was revoked.
    pub(crate) fn covers(
        &self,
        now_secs: i64,
        workspace_id: &WorkspaceId,
        credential: &Credential,
    ) -> bool {
        if self.until.is_empty() {
            return false;
        }
        let Credential { key_id, token_id, subject, .. } = credential;
        let named = [
            token_id.clone().map(Revoked::TokenId),
            subject.clone().map(Revoked::Subject),
            key_id.clone().map(Revoked::KeyId),
            Some(Revoked::Workspace(workspace_id.clone())),
        ];
        let is_in_force = |revoked| self.until.get(&revoked).is_some_and(|until| now_secs < *until);
        named.into_iter().flatten().any(is_in_force)
    }

    /// Those in force, with their ends, in no particular order.
    pub(crate) fn in_force(&self, now_secs: i64) -> impl Iterator<Item = Revocation> + '_ {
        let in_force = self.until.iter().filter(move |(_, until)| now_secs < **until);
        in_force.map(|(revoked, &until_secs)| Revocation { revoked: revoked.clone(), until_secs })
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }

    /// Forgets those whose time is over. Cost: looks at each.
    pub(crate) fn forget_old(&mut self, now_secs: i64) {
        self.until.retain(|_, until| now_secs < *until);
    }
}

impl Revoked {
    fn name(&self) -> &str {
        match self {
            Self::TokenId(name) | Self::Subject(name) | Self::KeyId(name) => name,
            Self::Workspace(id) => id.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(revoked: Revoked, until_secs: i64) -> Revocation {
        Revocation { revoked, until_secs }
    }

    fn credential() -> Credential {
        Credential {
            key_id: Some("k1".into()),
            token_id: Some("t1".into()),
            subject: Some("s1".into()),
            ..Credential::default()
        }
    }

    #[test]
    fn each_kind_covers_what_it_names_until_its_end() {
        for (revoked, other) in [
            (Revoked::TokenId("t1".into()), Revoked::TokenId("s1".into())),
            (Revoked::Subject("s1".into()), Revoked::Subject("t1".into())),
            (Revoked::KeyId("k1".into()), Revoked::KeyId("k2".into())),
            (Revoked::Workspace("ws1".into()), Revoked::Workspace("ws2".into())),
        ] {
            let covers = |revoked, now_secs| {
                let mut revocations = Revocations::default();
                assert!(revocations.insert(0, revocation(revoked, 100)));
                revocations.covers(now_secs, &"ws1".into(), &credential())
            };
            assert!(covers(revoked.clone(), 99), "{revoked:?}");
            assert!(!covers(revoked, 100));
            assert!(!covers(other.clone(), 0), "{other:?}");
        }
    }

    #[test]
    fn what_is_not_known_of_a_token_is_not_revoked() {
        let mut revocations = Revocations::default();
        revocations.insert(0, revocation(Revoked::TokenId("".into()), 100));
        assert!(!revocations.covers(0, &"ws1".into(), &Credential::default()));
    }

    #[test]
    fn a_full_table_takes_no_more_until_old_ones_go() {
        let mut revocations = Revocations::default();
        for n in 0..Revocations::IN_FORCE_MAX {
            assert!(revocations.insert(0, revocation(Revoked::TokenId(n.to_string().into()), 10)));
        }
        let another = || revocation(Revoked::TokenId("another".into()), 100);
        assert!(!revocations.insert(0, another()));
        let known = revocation(Revoked::TokenId("0".into()), 50);
        assert!(revocations.insert(0, known), "it is there already");
        assert!(revocations.insert(10, another()));
        assert_eq!(revocations.len(), 2);
        assert_eq!(revocations.in_force(60).count(), 1);
    }

    #[test]
    fn a_revocation_that_is_over_or_names_nothing_takes_no_room() {
        let mut revocations = Revocations::default();
        assert!(revocations.insert(100, revocation(Revoked::KeyId("k".into()), 100)));
        let long: Box<str> = "x".repeat(Revocations::NAME_BYTES_MAX + 1).into();
        assert!(revocations.insert(0, revocation(Revoked::Subject(long), 100)));
        assert_eq!(revocations.len(), 0);
    }
}
