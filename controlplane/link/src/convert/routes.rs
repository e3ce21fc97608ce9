//! Routing tables.

use std::collections::BTreeMap;

use relay_contract::{Routes, TargetId, TenantLimits, WorkspaceId};
use relay_grpc::plane::v1;

use super::upgrade::id_in;
use super::{BadMessage, size_in, size_out};

pub(super) fn routes_out(routes: &Routes) -> v1::Routes {
    let tenants = routes.tenants.iter();
    let targets = routes.targets.iter().flat_map(|(workspace, targets)| {
        targets.iter().map(|(target, url)| v1::Elsewhere {
            workspace_id: workspace.as_str().to_owned(),
            target_id: target.as_str().to_owned(),
            url: String::from(url.clone()),
        })
    });
    v1::Routes {
        version: routes.version,
        tenants: tenants.map(|(workspace, limits)| tenant_out(workspace, limits)).collect(),
        targets: targets.collect(),
    }
}

pub(super) fn routes_in(routes: v1::Routes) -> Result<Routes, BadMessage> {
    let mut targets: BTreeMap<WorkspaceId, BTreeMap<TargetId, Box<str>>> = BTreeMap::new();
    for v1::Elsewhere { workspace_id, target_id, url } in routes.targets {
        let workspace = id_in(workspace_id, "workspace")?.into();
        let target = id_in(target_id, "target")?.into();
        targets.entry(workspace).or_default().insert(target, url.into());
    }
    let tenants = routes.tenants.into_iter().map(tenant_in);
    Ok(Routes { version: routes.version, tenants: tenants.collect::<Result<_, _>>()?, targets })
}

fn tenant_out(workspace: &WorkspaceId, limits: &TenantLimits) -> v1::Tenant {
    v1::Tenant {
        workspace_id: workspace.as_str().to_owned(),
        frame_bytes_max: limits.frame_bytes_max.map(size_out),
        egress_bytes_max: limits.egress_bytes_max.map(size_out),
        key_exchange_per_minute: limits.key_exchange_per_minute,
        runtime_per_minute: limits.runtime_per_minute,
        runtime_per_minute_workspace: limits.runtime_per_minute_workspace,
        daemon_per_minute: limits.daemon_per_minute,
        pairing_per_minute: limits.pairing_per_minute,
        unrouted_per_minute: limits.unrouted_per_minute,
        small_frames_per_minute: limits.small_frames_per_minute,
    }
}

fn tenant_in(tenant: v1::Tenant) -> Result<(WorkspaceId, TenantLimits), BadMessage> {
    let size = |size: Option<u64>| size.map(|size| size_in(size, "limit")).transpose();
    let limits = TenantLimits {
        frame_bytes_max: size(tenant.frame_bytes_max)?,
        egress_bytes_max: size(tenant.egress_bytes_max)?,
        key_exchange_per_minute: tenant.key_exchange_per_minute,
        runtime_per_minute: tenant.runtime_per_minute,
        runtime_per_minute_workspace: tenant.runtime_per_minute_workspace,
        daemon_per_minute: tenant.daemon_per_minute,
        pairing_per_minute: tenant.pairing_per_minute,
        unrouted_per_minute: tenant.unrouted_per_minute,
        small_frames_per_minute: tenant.small_frames_per_minute,
    };
    Ok((id_in(tenant.workspace_id, "workspace")?.into(), limits))
}
