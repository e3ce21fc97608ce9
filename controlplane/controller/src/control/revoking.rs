//! Revocations and key sets, by calls of the control API.

use std::time::Duration;

use relay_grpc::control::v1 as proto;
use tonic::Status;

use super::answers::{Answer, Reply, tell};
use super::scopes::page_size;
use crate::controller::Controller;
use crate::jwks::{KeySetStatus, KeyStatus};
use crate::revocations::{Revocation, Revoked};

impl Controller {
    /// Revokes at once, and answers when that is written down where it is kept.
    pub(super) fn revoke_by_call(
        &mut self,
        request: proto::RevokeRequest,
        reply: Reply<proto::RevokeResponse>,
    ) {
        let revocation = match self.revocation_of(request) {
            Ok(revocation) => revocation,
            Err(status) => return tell(reply, Err(status)),
        };
        let outcome = self.revoke(revocation);
        let mut response = proto::RevokeResponse {
            closed_connections: u64::try_from(outcome.closed).unwrap_or(u64::MAX),
            is_remembered: outcome.remembered,
            is_kept: false,
        };
        if !outcome.remembered {
            return tell(reply, Ok(response));
        }
        self.when_kept(move |is_kept| {
            response.is_kept = is_kept;
            tell(reply, Ok(response));
        });
    }

    fn revocation_of(&self, request: proto::RevokeRequest) -> Answer<Revocation> {
        use proto::revoke_request::Revoked as Asked;
        let (name, revoked): (_, fn(String) -> Revoked) = match request.revoked {
            Some(Asked::TokenId(id)) => (id, |id| Revoked::TokenId(id.into())),
            Some(Asked::Subject(subject)) => (subject, |id| Revoked::Subject(id.into())),
            Some(Asked::WorkspaceId(id)) => (id, |id| Revoked::Workspace(id.into())),
            Some(Asked::KeyId(id)) => (id, |id| Revoked::KeyId(id.into())),
            None => (String::new(), |id| Revoked::TokenId(id.into())),
        };
        if name.is_empty() {
            let text = "revoked: expected one of token_id, subject, workspace_id and key_id";
            return Err(Status::invalid_argument(text));
        }
        let now_ms = self.clock.unix_ms();
        let until_ms = match request.until_unix_ms {
            0 => now_ms.saturating_add(DAY_MS),
            until if (1..=YEAR_MS).contains(&until.saturating_sub(now_ms)) => until,
            _ => {
                let text = "until_unix_ms: expected a date in the future, at most a year ahead";
                return Err(Status::invalid_argument(text));
            }
        };
        // The second that has begun counts.
        let until_secs = until_ms.saturating_add(999).div_euclid(1000);
        Ok(Revocation { revoked: revoked(name), until_secs })
    }

    pub(super) fn list_revocations(
        &self,
        request: &proto::ListRevocationsRequest,
    ) -> Answer<proto::ListRevocationsResponse> {
        let size = page_size(request.page_size)?;
        let mut all: Vec<_> = self.revocations().into_iter().map(|one| (key(&one), one)).collect();
        all.retain(|(key, _)| *key > request.page_token);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        let is_last = all.len() <= size;
        all.truncate(size);
        let next = all.last().filter(|_| !is_last).map(|(key, _)| key.clone());
        Ok(proto::ListRevocationsResponse {
            revocations: all.into_iter().map(|(_, one)| shown(one)).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    pub(super) fn list_key_sets(&self) -> proto::ListKeySetsResponse {
        let key_sets = self.key_sets().into_iter().map(shown_set).collect();
        proto::ListKeySetsResponse { key_sets }
    }
}

/// What revocations are in order of.
fn key(revocation: &Revocation) -> String {
    match &revocation.revoked {
        Revoked::KeyId(name) => format!("key:{name}"),
        Revoked::Subject(name) => format!("subject:{name}"),
        Revoked::TokenId(name) => format!("token:{name}"),
        Revoked::Workspace(id) => format!("workspace:{id}"),
    }
}

fn shown(revocation: Revocation) -> proto::Revocation {
    use proto::revocation::Revoked as Shown;
    let revoked = match revocation.revoked {
        Revoked::TokenId(id) => Shown::TokenId(id.into()),
        Revoked::Subject(subject) => Shown::Subject(subject.into()),
        Revoked::Workspace(id) => Shown::WorkspaceId(id.into()),
        Revoked::KeyId(id) => Shown::KeyId(id.into()),
    };
    let until_unix_ms = revocation.until_secs.saturating_mul(1000);
    proto::Revocation { revoked: Some(revoked), until_unix_ms }
}

fn shown_set(set: KeySetStatus) -> proto::KeySet {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let key = |key: KeyStatus| proto::Key {
        key_id: key.id.unwrap_or_default(),
        algorithm: key.algorithm.to_owned(),
    };
    let skipped = set.skipped.into_iter().map(|key| proto::SkippedKey {
        index: u32::try_from(key.index).unwrap_or(u32::MAX),
        reason: key.reason.to_owned(),
    });
    proto::KeySet {
        issuer: set.issuer.unwrap_or_default(),
        url: set.url,
        keys: set.keys.into_iter().map(key).collect(),
        skipped_keys: skipped.collect(),
        age_ms: set.age.map(ms),
        is_expired: set.is_expired,
        next_fetch_in_ms: ms(set.next_fetch_in),
        is_fetching: set.is_fetching,
        fetches: set.fetches,
        failed_fetches: set.failures,
        last_error: set.last_error.unwrap_or_default(),
        unknown_key_ids: u64::try_from(set.unknown_keys).unwrap_or(u64::MAX),
    }
}

/// For how long a revocation is remembered, where nothing else is said.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The longest. Protects the operator from a unit mistaken for another.
const YEAR_MS: i64 = 366 * DAY_MS;
