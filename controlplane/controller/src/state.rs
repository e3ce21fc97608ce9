//! The bodies of `/state`, `/node` and `/ready`.

use std::time::Duration;

use relay_contract::{ScopeReport, ShardReport};
use serde::Serialize;

use crate::date::Date;
use crate::settings::Settings;

/// `/health`; the order of members is part of it. Source: relay specification, section 2.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health<'a> {
    ok: bool,
    service: &'static str,
    uptime_ms: u128,
    #[serde(flatten)]
    facts: Option<HealthFacts<'a>>,
}

/// What everybody is told only when the operator wants it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthFacts<'a> {
    tls_enabled: bool,
    relay_mode: &'a str,
    relay_id: &'a str,
}

/// The body of `/health` at the operators' door; a shard writes the same at the relay's port.
pub(crate) fn health(settings: &Settings, uptime: Duration) -> String {
    json(&Health {
        ok: true,
        service: "relay",
        uptime_ms: uptime.as_millis(),
        facts: settings.health_verbose.then(|| HealthFacts {
            tls_enabled: settings.tls.enabled,
            relay_mode: settings.mode,
            relay_id: &settings.relay_id,
        }),
    })
}

/// `/state`; the order of members is part of it. Source: relay specification, section 2.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    ok: bool,
    service: &'static str,
    relay_mode: &'a str,
    #[serde(flatten)]
    addresses: Option<Addresses<'a>>,
    relay_id: &'a str,
    backplane_mode: &'a str,
    bus_enabled: bool,
    client_redirect_enabled: bool,
    workspaces: Vec<Workspace<'a>>,
}

/// Where things are; only for those who want to read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Addresses<'a> {
    server_url: &'a str,
    tls_enabled: bool,
    tls_host: &'a str,
    ws_base_url: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Workspace<'a> {
    workspace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_target_id: Option<&'a str>,
    daemon_connected: bool,
    client_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ids: Option<&'a [Box<str>]>,
    last_activity_at: Date,
}

/// The body of `/state`. `reports` are of all shards, in their order; `unix_ms` is now.
pub(crate) fn state(settings: &Settings, reports: &[ShardReport], unix_ms: i64) -> String {
    let workspaces = reports.iter().flat_map(|report| {
        let scopes = report.scopes.iter();
        scopes.map(move |scope| workspace(settings, report, scope, unix_ms))
    });
    json(&State {
        ok: true,
        service: "relay",
        relay_mode: settings.mode,
        addresses: settings.health_verbose.then(|| Addresses {
            server_url: &settings.server_url,
            tls_enabled: settings.tls.enabled,
            tls_host: &settings.tls.host,
            ws_base_url: &settings.public_ws_url,
        }),
        relay_id: &settings.relay_id,
        backplane_mode: settings.backplane.mode,
        bus_enabled: settings.backplane.bus_enabled,
        client_redirect_enabled: settings.backplane.client_redirect_enabled,
        workspaces: workspaces.collect(),
    })
}

fn workspace<'a>(
    settings: &Settings,
    report: &ShardReport,
    scope: &'a ScopeReport,
    unix_ms: i64,
) -> Workspace<'a> {
    let shows_ids = settings.state_includes_client_ids;
    let quiet_ms = report.now.since(scope.last_activity).as_millis();
    let quiet_ms = i64::try_from(quiet_ms).unwrap_or(i64::MAX);
    Workspace {
        workspace_id: scope.workspace_id.as_str(),
        // A target names somebody's machine: shown to those who see clients' names too.
        runtime_target_id: scope
            .target_id
            .as_ref()
            .filter(|_| shows_ids)
            .map(|target| target.as_str()),
        daemon_connected: scope.daemon_connected,
        client_count: scope.client_ids.len(),
        client_ids: shows_ids.then_some(&*scope.client_ids),
        last_activity_at: Date { unix_ms: unix_ms.saturating_sub(quiet_ms) },
    }
}

/// `/node`: our own facts, which the reference's paths do not show.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node<'a> {
    ok: bool,
    service: &'static str,
    version: &'a str,
    relay_id: &'a str,
    driver: &'a str,
    admission: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_count: Option<usize>,
    pending_admissions: usize,
    admitted_connections: usize,
    memory_budget_bytes: u64,
    /// Which version of the settings every shard has said to be in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings_version: Option<u64>,
    shards: Vec<Shard>,
    /// Present where it was asked for and somebody sends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hottest: Vec<HotScope<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HotScope<'a> {
    shard: u16,
    workspace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_target_id: Option<&'a str>,
    frames_per_second: f64,
    bytes_per_second: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shard {
    shard: u16,
    connections: u64,
    scopes: u64,
    memory_budget_bytes: u64,
    memory_used_bytes: u64,
}

/// What `/node` says beside settings and reports.
pub(crate) struct NodeFacts {
    /// Keys in force, where tokens are checked locally.
    pub(crate) key_count: Option<usize>,
    /// Upgrades that wait for their decision.
    pub(crate) pending_admissions: usize,
    /// Seats taken, workers included.
    pub(crate) admitted_connections: usize,
    /// The version of limits and routes that all shards have in force.
    pub(crate) settings_version: Option<u64>,
}

/// The body of `/node`.
pub(crate) fn node(settings: &Settings, reports: &[ShardReport], facts: &NodeFacts) -> String {
    let shards = reports.iter().map(|report| Shard {
        shard: report.shard.0,
        connections: report.connection_count,
        scopes: report.scope_count,
        memory_budget_bytes: report.memory_bytes_max,
        memory_used_bytes: report.memory_used_bytes,
    });
    json(&Node {
        ok: true,
        service: "relay",
        version: settings.version,
        relay_id: &settings.relay_id,
        driver: settings.driver,
        admission: settings.admission.name(),
        key_count: facts.key_count,
        pending_admissions: facts.pending_admissions,
        admitted_connections: facts.admitted_connections,
        memory_budget_bytes: settings.memory_budget_bytes,
        settings_version: facts.settings_version,
        shards: shards.collect(),
        hottest: hottest(settings, reports),
    })
}

/// The scopes with most frames, of all shards together.
fn hottest<'a>(settings: &Settings, reports: &'a [ShardReport]) -> Vec<HotScope<'a>> {
    let shows_ids = settings.state_includes_client_ids;
    let scopes = reports.iter().flat_map(|report| {
        report.hottest.iter().map(|scope| HotScope {
            shard: report.shard.0,
            workspace_id: scope.workspace_id.as_str(),
            runtime_target_id: scope.target_id.as_ref().filter(|_| shows_ids).map(|id| id.as_str()),
            frames_per_second: scope.frames_per_s,
            bytes_per_second: scope.bytes_per_s,
        })
    });
    let mut hottest: Vec<_> = scopes.collect();
    hottest.sort_by(|a, b| b.frames_per_second.total_cmp(&a.frames_per_second));
    hottest.truncate(ShardReport::HOTTEST_MAX);
    hottest
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text, numbers and flags are always JSON")
}
