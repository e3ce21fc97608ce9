//! What differs from workspace to workspace, and where targets are that are not here.

use std::collections::BTreeMap;

use crate::{Limits, TargetId, WorkspaceId};

/// The routing table that the control plane pushes to every shard. A value is immutable; a change
/// is a new version, whole: what the newer one does not name is no longer so.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Routes {
    /// Which of two values is newer. A shard refuses one that is not newer than its own.
    pub version: u64,
    /// Workspaces with limits of their own.
    pub tenants: BTreeMap<WorkspaceId, TenantLimits>,
    /// Targets whose daemon is at another relay, and the URL where clients reach that relay. Empty
    /// unless clients may be redirected.
    pub targets: BTreeMap<WorkspaceId, BTreeMap<TargetId, Box<str>>>,
}

impl Routes {
    /// The relay that has a target's daemon, when that is another.
    pub fn elsewhere(&self, workspace: &WorkspaceId, target: &TargetId) -> Option<&str> {
        self.targets.get(workspace)?.get(target).map(|url| &**url)
    }
}

/// A workspace's own limits; what is absent is as [`Limits`] say. Each has the meaning, unit and
/// outcome of the field there that has its name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[allow(missing_docs, reason = "each is explained where its default is")]
pub struct TenantLimits {
    /// Only ever less than the relay's: more is cut off before the workspace is known.
    pub frame_bytes_max: Option<usize>,
    pub egress_bytes_max: Option<usize>,
    pub key_exchange_per_minute: Option<u32>,
    pub runtime_per_minute: Option<u32>,
    pub runtime_per_minute_workspace: Option<u32>,
    pub daemon_per_minute: Option<u32>,
    pub pairing_per_minute: Option<u32>,
    pub unrouted_per_minute: Option<u32>,
    pub small_frames_per_minute: Option<u32>,
}

impl TenantLimits {
    /// The limits a workspace with these has, where all others have `relay`.
    pub fn over(&self, relay: &Limits) -> Limits {
        let rate = |own: Option<u32>, general: u32| own.unwrap_or(general);
        Limits {
            frame_bytes_max: self
                .frame_bytes_max
                .map_or(relay.frame_bytes_max, |own| own.min(relay.frame_bytes_max)),
            egress_bytes_max: self.egress_bytes_max.unwrap_or(relay.egress_bytes_max),
            key_exchange_per_minute: rate(
                self.key_exchange_per_minute,
                relay.key_exchange_per_minute,
            ),
            runtime_per_minute: rate(self.runtime_per_minute, relay.runtime_per_minute),
            runtime_per_minute_workspace: rate(
                self.runtime_per_minute_workspace,
                relay.runtime_per_minute_workspace,
            ),
            daemon_per_minute: rate(self.daemon_per_minute, relay.daemon_per_minute),
            pairing_per_minute: rate(self.pairing_per_minute, relay.pairing_per_minute),
            unrouted_per_minute: rate(self.unrouted_per_minute, relay.unrouted_per_minute),
            small_frames_per_minute: rate(
                self.small_frames_per_minute,
                relay.small_frames_per_minute,
            ),
            ..relay.clone()
        }
    }
}

/// A value of which every shard has a version in force.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Versioned {
    /// [`Limits`].
    Limits,
    /// [`Routes`].
    Routes,
    /// Whether everybody is told to go: [`crate::Command::Drain`], [`crate::Command::Resume`].
    Drain,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_s_limits_replace_the_relay_s_one_by_one() {
        let relay = Limits::default();
        let own = TenantLimits {
            daemon_per_minute: Some(7),
            egress_bytes_max: Some(1 << 16),
            ..TenantLimits::default()
        };
        let expected = Limits { daemon_per_minute: 7, egress_bytes_max: 1 << 16, ..relay.clone() };
        assert_eq!(own.over(&relay), expected);
        assert_eq!(TenantLimits::default().over(&relay), relay);
    }

    #[test]
    fn a_tenant_s_frames_are_never_larger_than_the_relay_s() {
        let relay = Limits::default();
        let own = |frame_bytes_max| {
            let own = TenantLimits { frame_bytes_max, ..TenantLimits::default() };
            own.over(&relay).frame_bytes_max
        };
        assert_eq!(own(Some(100)), 100);
        assert_eq!(own(Some(usize::MAX)), relay.frame_bytes_max);
        assert_eq!(own(None), relay.frame_bytes_max);
    }
}
