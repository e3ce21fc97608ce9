//! Keys and revocations, for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relay_grpc::control::v1 as proto;

use super::arguments::RevokeArguments;
use super::report::{ahead, lasted};
use super::table::{Table, facts};

/// The order that the arguments mean.
pub(super) fn request(arguments: &RevokeArguments) -> proto::RevokeRequest {
    use proto::revoke_request::Revoked;
    let what = &arguments.what;
    let named = [
        what.token_id.clone().map(Revoked::TokenId),
        what.subject.clone().map(Revoked::Subject),
        what.workspace.clone().map(Revoked::WorkspaceId),
        what.key_id.clone().map(Revoked::KeyId),
    ];
    let until = now() + Duration::from_secs(arguments.seconds);
    proto::RevokeRequest {
        revoked: named.into_iter().flatten().next(),
        until_unix_ms: i64::try_from(until.as_millis()).unwrap_or(i64::MAX),
    }
}

pub(super) fn revoked(answer: &proto::RevokeResponse) -> String {
    let closed = answer.closed_connections;
    let note = match (answer.is_remembered, answer.is_kept) {
        (true, true) => "",
        (true, false) => {
            "; not written down: it holds until the relay starts anew (RELAY_REVOCATIONS_FILE)"
        }
        (false, _) => "; too many are in force: later tokens are NOT refused",
    };
    format!("done; {closed} connections end{note}\n")
}

pub(super) fn revocations(revocations: &[proto::Revocation]) -> String {
    use proto::revocation::Revoked;
    let mut table = Table::new(&["kind", "name", "still for"]);
    for revocation in revocations {
        let (kind, name) = match &revocation.revoked {
            Some(Revoked::TokenId(name)) => ("token", name.as_str()),
            Some(Revoked::Subject(name)) => ("subject", name.as_str()),
            Some(Revoked::WorkspaceId(name)) => ("workspace", name.as_str()),
            Some(Revoked::KeyId(name)) => ("key", name.as_str()),
            None => ("?", ""),
        };
        table.row(&[kind, name, &ahead(revocation.until_unix_ms, now())]);
    }
    table.text()
}

pub(super) fn key_sets(answer: &proto::ListKeySetsResponse) -> String {
    if answer.key_sets.is_empty() {
        return "no key sets: the platform alone judges tokens\n".to_owned();
    }
    let mut text = String::new();
    for set in &answer.key_sets {
        let issuer = if set.issuer.is_empty() { "everybody's" } else { &set.issuer };
        let age = match set.age_ms {
            None => "never fetched".to_owned(),
            Some(age) if set.is_expired => format!("{}: too old", of_ms(age)),
            Some(age) => of_ms(age),
        };
        let error = if set.last_error.is_empty() { "none" } else { &set.last_error };
        text.push_str(&facts(&[
            ("issuer", issuer.to_owned()),
            ("url", set.url.clone()),
            ("age", age),
            ("next fetch in", of_ms(set.next_fetch_in_ms)),
            ("fetches", format!("{}, {} failed", set.fetches, set.failed_fetches)),
            ("last error", error.to_owned()),
        ]));
        let mut table = Table::new(&["key", "algorithm"]);
        for key in &set.keys {
            table.row(&[if key.key_id.is_empty() { "-" } else { &key.key_id }, &key.algorithm]);
        }
        for key in &set.skipped_keys {
            table.row(&[&format!("#{}", key.index), &format!("not used: {}", key.reason)]);
        }
        text.push_str(&table.text());
        text.push('\n');
    }
    text
}

fn of_ms(ms: u64) -> String {
    lasted(Duration::from_millis(ms))
}

/// Since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
