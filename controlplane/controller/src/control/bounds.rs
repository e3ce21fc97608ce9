//! Limits, read and changed by calls of the control API.

use std::time::Duration;

use relay_contract::{Heartbeat, Limits, Routes, TenantLimits, WorkspaceId};
use relay_grpc::control::v1 as proto;
use tonic::Status;

use super::answers::Answer;
use super::scopes::workspace;
use crate::controller::Controller;
use crate::live::LiveSettings;
use crate::settings::Caps;

impl Controller {
    pub(super) fn limits_by_call(
        &self,
        request: &proto::GetLimitsRequest,
    ) -> proto::GetLimitsResponse {
        let workspace_id = workspace(&request.workspace_id);
        let live = self.live();
        proto::GetLimitsResponse {
            version: live.limits.version,
            acknowledged_version: self.acknowledged.least(),
            limits: Some(in_force(&live, workspace_id.as_ref())),
            own_limits: workspace_id.map(|id| own(&tenant(&live.routes, &id))),
        }
    }

    pub(super) fn set_limits_by_call(
        &mut self,
        request: proto::SetLimitsRequest,
    ) -> Answer<proto::SetLimitsResponse> {
        let proto::SetLimitsRequest { workspace_id, limits, expected_version, reset } = request;
        let limits = limits.unwrap_or_default();
        let workspace_id = named(&workspace_id)?;
        let mut live = self.live();
        let version = live.limits.version;
        if expected_version != 0 && expected_version != version {
            let text = format!(
                "the limits are at version {version}, not {expected_version}: read them again"
            );
            return Err(Status::aborted(text));
        }
        let before = (live.caps, live.limits.clone(), live.routes.clone());
        match &workspace_id {
            None if reset => {
                let text = "reset: of a workspace alone; Reload brings the configuration's back";
                return Err(Status::invalid_argument(text));
            }
            None => change(&mut live.caps, &mut live.limits, &limits)?,
            Some(id) => change_tenant(&mut live.routes, id, &limits, reset)?,
        }
        let is_same = before == (live.caps, live.limits.clone(), live.routes.clone());
        let version = match is_same {
            true => version,
            false => self.apply(&live).map_err(|error| Status::unavailable(error.to_string()))?,
        };
        let limits = Some(in_force(&self.live(), workspace_id.as_ref()));
        Ok(proto::SetLimitsResponse { version, limits })
    }
}

/// The workspace that is to have limits of its own, if one is named. Others than workspaces can
/// have been named by their requests are refused: a data plane could not read them.
fn named(id: &str) -> Result<Option<WorkspaceId>, Status> {
    if id.encode_utf16().count() > ID_UNITS_MAX {
        let text = format!("workspace_id: longer than {ID_UNITS_MAX} characters");
        return Err(Status::invalid_argument(text));
    }
    Ok(workspace(id))
}

/// What holds for the relay, or for one workspace.
fn in_force(live: &LiveSettings, workspace_id: Option<&WorkspaceId>) -> proto::Limits {
    let Some(id) = workspace_id else {
        let Caps { upgrades_per_minute, pending_admissions_max, .. } = live.caps;
        let Heartbeat { ping_interval, pong_timeout, idle_timeout } = live.limits.heartbeat;
        return proto::Limits {
            connections_max: number(live.caps.connections_max),
            connections_per_address_max: number(live.caps.connections_per_address_max),
            clients_per_scope_max: number(live.caps.clients_per_scope_max),
            upgrades_per_minute: Some(upgrades_per_minute.into()),
            pending_admissions_max: number(pending_admissions_max),
            ping_interval_ms: ms(ping_interval),
            pong_timeout_ms: ms(pong_timeout),
            idle_timeout_ms: ms(idle_timeout),
            ..of_shards(&live.limits)
        };
    };
    of_shards(&tenant(&live.routes, id).over(&live.limits))
}

/// Those that a workspace can have of its own.
fn of_shards(limits: &Limits) -> proto::Limits {
    proto::Limits {
        frame_bytes_max: number(limits.frame_bytes_max),
        egress_bytes_max: number(limits.egress_bytes_max),
        key_exchange_per_minute: Some(limits.key_exchange_per_minute.into()),
        runtime_per_minute: Some(limits.runtime_per_minute.into()),
        runtime_per_minute_workspace: Some(limits.runtime_per_minute_workspace.into()),
        daemon_per_minute: Some(limits.daemon_per_minute.into()),
        pairing_per_minute: Some(limits.pairing_per_minute.into()),
        unrouted_per_minute: Some(limits.unrouted_per_minute.into()),
        small_frames_per_minute: Some(limits.small_frames_per_minute.into()),
        ..proto::Limits::default()
    }
}

/// What a workspace has of its own.
fn own(own: &TenantLimits) -> proto::Limits {
    proto::Limits {
        frame_bytes_max: own.frame_bytes_max.and_then(number),
        egress_bytes_max: own.egress_bytes_max.and_then(number),
        key_exchange_per_minute: own.key_exchange_per_minute.map(Into::into),
        runtime_per_minute: own.runtime_per_minute.map(Into::into),
        runtime_per_minute_workspace: own.runtime_per_minute_workspace.map(Into::into),
        daemon_per_minute: own.daemon_per_minute.map(Into::into),
        pairing_per_minute: own.pairing_per_minute.map(Into::into),
        unrouted_per_minute: own.unrouted_per_minute.map(Into::into),
        small_frames_per_minute: own.small_frames_per_minute.map(Into::into),
        ..proto::Limits::default()
    }
}

fn tenant(routes: &Routes, workspace_id: &WorkspaceId) -> TenantLimits {
    routes.tenants.get(workspace_id).copied().unwrap_or_default()
}

fn change(caps: &mut Caps, limits: &mut Limits, asked: &proto::Limits) -> Result<(), Status> {
    put("connections_max", asked.connections_max, &mut caps.connections_max)?;
    let per_address = asked.connections_per_address_max;
    put("connections_per_address_max", per_address, &mut caps.connections_per_address_max)?;
    put("clients_per_scope_max", asked.clients_per_scope_max, &mut caps.clients_per_scope_max)?;
    put("upgrades_per_minute", asked.upgrades_per_minute, &mut caps.upgrades_per_minute)?;
    let pending = asked.pending_admissions_max;
    put("pending_admissions_max", pending, &mut caps.pending_admissions_max)?;
    put("frame_bytes_max", asked.frame_bytes_max, &mut limits.frame_bytes_max)?;
    put("egress_bytes_max", asked.egress_bytes_max, &mut limits.egress_bytes_max)?;
    let key_exchange = asked.key_exchange_per_minute;
    put("key_exchange_per_minute", key_exchange, &mut limits.key_exchange_per_minute)?;
    put("runtime_per_minute", asked.runtime_per_minute, &mut limits.runtime_per_minute)?;
    let of_workspace = &mut limits.runtime_per_minute_workspace;
    put("runtime_per_minute_workspace", asked.runtime_per_minute_workspace, of_workspace)?;
    put("daemon_per_minute", asked.daemon_per_minute, &mut limits.daemon_per_minute)?;
    put("pairing_per_minute", asked.pairing_per_minute, &mut limits.pairing_per_minute)?;
    put("unrouted_per_minute", asked.unrouted_per_minute, &mut limits.unrouted_per_minute)?;
    let small = asked.small_frames_per_minute;
    put("small_frames_per_minute", small, &mut limits.small_frames_per_minute)?;
    let heartbeat = &mut limits.heartbeat;
    put_ms("ping_interval_ms", asked.ping_interval_ms, &mut heartbeat.ping_interval)?;
    put_ms("pong_timeout_ms", asked.pong_timeout_ms, &mut heartbeat.pong_timeout)?;
    put_ms("idle_timeout_ms", asked.idle_timeout_ms, &mut heartbeat.idle_timeout)
}

fn change_tenant(
    routes: &mut Routes,
    workspace_id: &WorkspaceId,
    asked: &proto::Limits,
    reset: bool,
) -> Result<(), Status> {
    let of_the_relay = [
        ("connections_max", asked.connections_max),
        ("connections_per_address_max", asked.connections_per_address_max),
        ("clients_per_scope_max", asked.clients_per_scope_max),
        ("upgrades_per_minute", asked.upgrades_per_minute),
        ("pending_admissions_max", asked.pending_admissions_max),
        ("ping_interval_ms", asked.ping_interval_ms),
        ("pong_timeout_ms", asked.pong_timeout_ms),
        ("idle_timeout_ms", asked.idle_timeout_ms),
    ];
    if let Some((name, _)) = of_the_relay.iter().find(|(_, value)| value.is_some()) {
        let text = format!("limits.{name}: a workspace has none of its own");
        return Err(Status::invalid_argument(text));
    }
    let mut own = match reset {
        true => TenantLimits::default(),
        false => tenant(routes, workspace_id),
    };
    put_own("frame_bytes_max", asked.frame_bytes_max, &mut own.frame_bytes_max)?;
    put_own("egress_bytes_max", asked.egress_bytes_max, &mut own.egress_bytes_max)?;
    let key_exchange = asked.key_exchange_per_minute;
    put_own("key_exchange_per_minute", key_exchange, &mut own.key_exchange_per_minute)?;
    put_own("runtime_per_minute", asked.runtime_per_minute, &mut own.runtime_per_minute)?;
    let of_workspace = &mut own.runtime_per_minute_workspace;
    put_own("runtime_per_minute_workspace", asked.runtime_per_minute_workspace, of_workspace)?;
    put_own("daemon_per_minute", asked.daemon_per_minute, &mut own.daemon_per_minute)?;
    put_own("pairing_per_minute", asked.pairing_per_minute, &mut own.pairing_per_minute)?;
    put_own("unrouted_per_minute", asked.unrouted_per_minute, &mut own.unrouted_per_minute)?;
    let small = asked.small_frames_per_minute;
    put_own("small_frames_per_minute", small, &mut own.small_frames_per_minute)?;
    if own == TenantLimits::default() {
        routes.tenants.remove(workspace_id);
        return Ok(());
    }
    if !routes.tenants.contains_key(workspace_id) && routes.tenants.len() >= TENANTS_MAX {
        let text = format!("{TENANTS_MAX} workspaces have limits of their own already");
        return Err(Status::resource_exhausted(text));
    }
    routes.tenants.insert(workspace_id.clone(), own);
    Ok(())
}

/// Takes what is given.
fn put<T: TryFrom<u64>>(
    name: &'static str,
    given: Option<u64>,
    into: &mut T,
) -> Result<(), Status> {
    let Some(value) = given else {
        return Ok(());
    };
    let taken = T::try_from(value).ok().filter(|_| value > 0);
    *into = taken.ok_or_else(|| {
        Status::invalid_argument(format!("limits.{name}: {value} is zero or too large"))
    })?;
    Ok(())
}

fn put_own<T: TryFrom<u64> + Default>(
    name: &'static str,
    given: Option<u64>,
    into: &mut Option<T>,
) -> Result<(), Status> {
    if given.is_some() {
        put(name, given, into.get_or_insert_default())?;
    }
    Ok(())
}

fn put_ms(name: &'static str, given: Option<u64>, into: &mut Duration) -> Result<(), Status> {
    let mut ms = u32::try_from(into.as_millis()).unwrap_or(u32::MAX);
    put(name, given, &mut ms)?;
    if given.is_some() {
        *into = Duration::from_millis(ms.into());
    }
    Ok(())
}

fn number(value: usize) -> Option<u64> {
    u64::try_from(value).ok()
}

fn ms(time: Duration) -> Option<u64> {
    u64::try_from(time.as_millis()).ok()
}

/// Characters of an id, as UTF-16 counts them. Source: relay specification, section 2, as for the
/// configuration's.
const ID_UNITS_MAX: usize = 128;

/// Workspaces with limits of their own by calls. Protects the memory of every shard. Reached:
/// RESOURCE_EXHAUSTED; the configuration may name more.
const TENANTS_MAX: usize = 10_000;
