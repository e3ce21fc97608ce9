//! Fresh tokens for connections that are open.

use relay_contract::{
    AdmissionId, Claims, Command, ConnectionId, Renewal, RenewalRefusal, Secret, UpgradeRequest,
};
use sha2::{Digest, Sha256};

use crate::controller::Controller;
use crate::judge::{Accepted, Answer, effective_request};

/// A fresh token, and whose connection it is to keep.
pub(crate) struct Fresh {
    pub(crate) connection: ConnectionId,
    pub(crate) admission: AdmissionId,
    /// Of the token before it.
    pub(crate) claims_digest: u64,
    pub(crate) token: Secret,
}

/// A fresh token that is being checked.
pub(crate) struct Renewing {
    pub(crate) admission: AdmissionId,
    /// What the connection is open for.
    pub(crate) request: UpgradeRequest,
    /// Of the token before it.
    pub(crate) claims_digest: u64,
}

impl Controller {
    /// Judges a fresh token as that of an upgrade to what the connection is open for already.
    ///
    /// Cost: as an upgrade's token. At most as many at once as questions to the platform; one more
    /// is told to try again, and so is a second token of one connection before the first is judged.
    pub(crate) fn on_renewal_asked(&mut self, fresh: Fresh) {
        let Fresh { connection, admission, claims_digest, token } = fresh;
        // Gone: nobody waits for an answer.
        let Some(request) = self.judge.holder(admission) else { return };
        let is_full = self.renewing.len() >= self.settings.caps.asked_at_once.max(1);
        if self.stopping || is_full || self.renewing.contains_key(&connection) {
            let outcome = Renewal::Refused(RenewalRefusal::Unavailable);
            self.send(connection, Command::Renewed { connection, outcome, credential: None });
            return;
        }
        let renewing = Renewing { admission, request: request.clone(), claims_digest };
        self.renewing.insert(connection, renewing);
        self.take_in(connection, request, token);
    }
}

impl Renewing {
    /// What the peer is told when its token is worth this.
    pub(crate) fn outcome(&self, answer: &Answer) -> Renewal {
        let accepted = match answer {
            Answer::Accepted(accepted) => accepted,
            Answer::Denied(_) => return Renewal::Refused(RenewalRefusal::Denied),
            Answer::Unavailable => return Renewal::Refused(RenewalRefusal::Unavailable),
        };
        let Accepted { claims, credential, .. } = &**accepted;
        if digest(&effective_request(&self.request, claims), claims) != self.claims_digest {
            return Renewal::Refused(RenewalRefusal::ClaimsDiffer);
        }
        let expires_at_ms = credential.expires_at_secs.map(|secs| secs.saturating_mul(1000));
        Renewal::Renewed { expires_at_ms }
    }
}

/// Stands for all that decides what a connection may do: two tokens with the same digest may do the
/// same. What is new with every token is no part of it: its id, its expiry, a daemon's generation.
///
/// Shape: the first half of a SHA-256, the same in every release that knows these claims. Claims
/// are the issuer's words, so nobody can look for two with one digest.
pub(crate) fn digest(request: &UpgradeRequest, claims: &Claims) -> u64 {
    let mut sha = Sha256::new();
    let mut add = |text: Option<&str>| {
        // Where one ends and the next begins counts, and none is not the same as an empty one.
        sha.update(text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
        sha.update(text.unwrap_or_default());
    };
    add(Some(request.role.name()));
    add(Some(request.workspace_id.as_str()));
    add(request.target_id.as_ref().map(|target| target.as_str()));
    for claim in [
        &claims.client_id,
        &claims.workspace_id,
        &claims.runtime_target_id,
        &claims.machine_id,
        &claims.managed_executor_id,
    ] {
        add(claim.as_deref());
    }
    add(claims.scope.map(|scope| match scope {
        relay_contract::Scope::Runtime => "runtime",
        relay_contract::Scope::Pairing => "pairing",
        relay_contract::Scope::SessionEvents => "session-events",
    }));
    add(claims.e2ee_profile.map(|profile| profile.name()));
    for channel in claims.session_channels.iter().flatten() {
        add(Some(channel));
    }
    let hash: [u8; 32] = sha.finalize().into();
    let (half, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*half)
}

#[cfg(test)]
mod tests {
    use relay_contract::{Credential, Profile, Role, Scope};

    use super::*;

    fn request() -> UpgradeRequest {
        UpgradeRequest {
            role: Role::Client,
            workspace_id: "ws1".into(),
            target_id: Some("rt1".into()),
        }
    }

    fn claims() -> Claims {
        Claims {
            client_id: Some("cl1".into()),
            workspace_id: Some("ws1".into()),
            runtime_target_id: Some("rt1".into()),
            scope: Some(Scope::Runtime),
            token_id: Some("t1".into()),
            expires_at_secs: Some(1000),
            ..Claims::default()
        }
    }

    fn accepted(claims: Claims) -> Answer {
        let expires_at_secs = claims.expires_at_secs;
        let credential = Credential { expires_at_secs, ..Credential::default() };
        Answer::Accepted(Box::new(Accepted { claims, credential, key: None }))
    }

    fn outcome(answer: Answer) -> Renewal {
        let claims_digest = digest(&request(), &claims());
        let renewing = Renewing { admission: AdmissionId(1), request: request(), claims_digest };
        renewing.outcome(&answer)
    }

    #[test]
    fn a_newer_token_for_the_same_is_as_good() {
        let newer = Claims {
            token_id: Some("t2".into()),
            expires_at_secs: Some(2000),
            daemon_issue_generation: Some(8),
            ..claims()
        };
        let renewed = Renewal::Renewed { expires_at_ms: Some(2_000_000) };
        assert_eq!(outcome(accepted(newer)), renewed);
    }

    #[test]
    fn a_token_for_anything_else_is_not() {
        let changes: [fn(&mut Claims); 9] = [
            |claims| claims.client_id = Some("cl2".into()),
            |claims| claims.client_id = None,
            |claims| claims.workspace_id = Some("ws2".into()),
            |claims| claims.runtime_target_id = Some("rt2".into()),
            |claims| claims.machine_id = Some("m1".into()),
            |claims| claims.managed_executor_id = Some("ex1".into()),
            |claims| claims.scope = Some(Scope::Pairing),
            |claims| claims.session_channels = Some(["agent-session:a".into()].into()),
            |claims| claims.e2ee_profile = Some(Profile::NoiseIk),
        ];
        let differs = Renewal::Refused(RenewalRefusal::ClaimsDiffer);
        for (index, change) in changes.into_iter().enumerate() {
            let mut claims = claims();
            change(&mut claims);
            assert_eq!(outcome(accepted(claims)), differs, "change {index}");
        }
    }

    #[test]
    fn where_one_claim_ends_and_the_next_begins_counts() {
        let channels = |names: &[&str]| Claims {
            session_channels: Some(names.iter().map(|&name| name.into()).collect()),
            ..claims()
        };
        let digest = |claims| digest(&request(), &claims);
        assert_ne!(digest(channels(&["a", "b"])), digest(channels(&["ab"])));
        assert_ne!(digest(channels(&["a", "b"])), digest(channels(&["b", "a"])));
    }

    #[test]
    fn a_digest_is_the_same_in_every_release() {
        assert_eq!(digest(&request(), &claims()), DIGEST);
    }

    /// Shards show digests to control planes of other releases.
    const DIGEST: u64 = 8_434_308_784_661_948_141;
}
