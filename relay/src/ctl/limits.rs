//! Limits, for people.

use anyhow::{Result, bail};
use relay_grpc::control::v1 as proto;

use super::arguments::SetLimitsArguments;
use super::table::facts;

/// Every limit by its name in the schema, and where it stands in a message.
type Member = (&'static str, fn(&mut proto::Limits) -> &mut Option<u64>);

const MEMBERS: [Member; 17] = [
    ("connections_max", |limits| &mut limits.connections_max),
    ("connections_per_address_max", |limits| &mut limits.connections_per_address_max),
    ("clients_per_scope_max", |limits| &mut limits.clients_per_scope_max),
    ("upgrades_per_minute", |limits| &mut limits.upgrades_per_minute),
    ("pending_admissions_max", |limits| &mut limits.pending_admissions_max),
    ("frame_bytes_max", |limits| &mut limits.frame_bytes_max),
    ("egress_bytes_max", |limits| &mut limits.egress_bytes_max),
    ("key_exchange_per_minute", |limits| &mut limits.key_exchange_per_minute),
    ("runtime_per_minute", |limits| &mut limits.runtime_per_minute),
    ("runtime_per_minute_workspace", |limits| &mut limits.runtime_per_minute_workspace),
    ("daemon_per_minute", |limits| &mut limits.daemon_per_minute),
    ("pairing_per_minute", |limits| &mut limits.pairing_per_minute),
    ("unrouted_per_minute", |limits| &mut limits.unrouted_per_minute),
    ("small_frames_per_minute", |limits| &mut limits.small_frames_per_minute),
    ("ping_interval_ms", |limits| &mut limits.ping_interval_ms),
    ("pong_timeout_ms", |limits| &mut limits.pong_timeout_ms),
    ("idle_timeout_ms", |limits| &mut limits.idle_timeout_ms),
];

/// The change that the arguments mean.
///
/// Errors: a limit that there is not.
pub(super) fn request(arguments: &SetLimitsArguments) -> Result<proto::SetLimitsRequest> {
    let mut limits = proto::Limits::default();
    for (name, value) in &arguments.limits {
        let Some((_, member)) = MEMBERS.iter().find(|(known, _)| known == name) else {
            let known: Vec<_> = MEMBERS.iter().map(|(known, _)| *known).collect();
            bail!("{name:?} is no limit; there are {}", known.join(", "));
        };
        *member(&mut limits) = Some(*value);
    }
    Ok(proto::SetLimitsRequest {
        workspace_id: arguments.workspace.clone().unwrap_or_default(),
        limits: Some(limits),
        expected_version: arguments.expected_version,
        reset: arguments.reset,
    })
}

pub(super) fn in_force(answer: &proto::GetLimitsResponse) -> String {
    let acknowledged = match answer.acknowledged_version {
        Some(version) if version >= answer.version => "on every shard".to_owned(),
        Some(version) => format!("some shards are at {version} yet"),
        None => "since start".to_owned(),
    };
    let mut lines = vec![("version", format!("{}, {acknowledged}", answer.version))];
    let mut limits = answer.limits.unwrap_or_default();
    let mut own = answer.own_limits.unwrap_or_default();
    for (name, member) in MEMBERS {
        if let Some(value) = *member(&mut limits) {
            let mark = if member(&mut own).is_some() { "  its own" } else { "" };
            lines.push((name, format!("{value}{mark}")));
        }
    }
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_the_schema_has_its_name() {
        let json = relay_grpc::json(&proto::GetLimitsResponse {
            limits: Some({
                let mut all = proto::Limits::default();
                for (number, (_, member)) in (1..).zip(MEMBERS) {
                    *member(&mut all) = Some(number);
                }
                all
            }),
            ..Default::default()
        });
        let members = json["limits"].as_object().expect("limits");
        assert_eq!(members.len(), MEMBERS.len());
        for (number, (name, _)) in (1_u64..).zip(MEMBERS) {
            let mut words = name.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            let camel = words.fold(first, |camel, word| {
                let (start, rest) = word.split_at(1);
                camel + &start.to_uppercase() + rest
            });
            assert_eq!(members[&camel], number, "{name}");
        }
    }

    #[test]
    fn a_limit_that_there_is_not_is_named_with_those_there_are() {
        let arguments = SetLimitsArguments {
            limits: vec![("frames".to_owned(), 1)],
            workspace: None,
            expected_version: 0,
            reset: false,
        };
        let error = request(&arguments).expect_err("there is none").to_string();
        assert!(error.contains("frame_bytes_max"), "{error}");
    }
}
