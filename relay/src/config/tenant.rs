//! Workspaces with limits of their own, and targets that are at another relay.

use std::collections::BTreeMap;

use relay_contract::{Routes, TargetId, TenantLimits, WorkspaceId};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::file::{Page, Place, unknown};
use super::{Mode, Problem};

/// The tables of the configuration file that say what differs from workspace to workspace.
///
/// ```toml
/// [tenants."ws1"]
/// runtime_rate_per_minute = 600
///
/// [targets."ws1"]
/// "rt1" = "wss://relay-eu.corp/ws"
/// ```
#[derive(Clone, Debug, Default)]
pub(super) struct TenantTables {
    limits: BTreeMap<WorkspaceId, TenantLimits>,
    targets: Vec<Target>,
}

/// A target and where clients reach the relay that has its daemon.
#[derive(Clone, Debug)]
struct Target {
    workspace: WorkspaceId,
    target: TargetId,
    url: Url,
    text: Box<str>,
    place: Place,
}

/// Whom clients may be sent to.
pub(super) struct Redirects<'a> {
    /// Whether anywhere at all.
    pub(super) enabled: bool,
    pub(super) mode: Mode,
    /// Hosts; empty means any.
    pub(super) hosts: &'a [String],
}

impl TenantTables {
    /// What the tables are called.
    pub(super) const NAMES: [&str; 2] = ["tenants", "targets"];

    /// Takes in one of them.
    pub(super) fn take(
        &mut self,
        name: &str,
        page: &Page<'_>,
        table: &DeTable<'_>,
        problems: &mut Vec<Problem>,
    ) {
        for (workspace, value) in table {
            let id = workspace.get_ref().as_ref();
            let place = page.place(workspace.span(), format!("{name}.{id:?}"));
            let DeValue::Table(entries) = value.get_ref() else {
                let example = format!("[{name}.\"ws1\"]");
                let what = "expected a table for the workspace";
                problems.push(Problem::rule(CONFIG, what, &example).at(place));
                continue;
            };
            if !is_id(id) {
                problems.push(bad_id().at(place));
                continue;
            }
            match name {
                "targets" => self.take_targets(id, page, entries, problems),
                _ => self.take_limits(id, page, entries, problems),
            }
        }
    }

    fn take_limits(
        &mut self,
        workspace: &str,
        page: &Page<'_>,
        table: &DeTable<'_>,
        problems: &mut Vec<Problem>,
    ) {
        let mut limits = TenantLimits::default();
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            let place = page.place(name.span(), format!("tenants.{workspace:?}.{key}"));
            let number = match value.get_ref() {
                DeValue::Integer(number) => {
                    u64::from_str_radix(number.as_str(), number.radix()).ok()
                }
                _ => None,
            };
            let Some(set) = setter(key) else {
                let keys = LIMITS.iter().map(|(key, _)| *key);
                problems.push(unknown(key, keys, "tenants.\"…\"").at(place));
                continue;
            };
            match number.filter(|number| *number > 0) {
                Some(number) => set(&mut limits, number),
                None => {
                    let what = "expected a whole number above zero";
                    problems.push(Problem::rule(CONFIG, what, &format!("{key} = 600")).at(place));
                }
            }
        }
        self.limits.insert(workspace.into(), limits);
    }

    fn take_targets(
        &mut self,
        workspace: &str,
        page: &Page<'_>,
        table: &DeTable<'_>,
        problems: &mut Vec<Problem>,
    ) {
        for (target, value) in table {
            let id = target.get_ref().as_ref();
            let place = page.place(target.span(), format!("targets.{workspace:?}.{id:?}"));
            if !is_id(id) {
                problems.push(bad_id().at(place));
                continue;
            }
            match url_of(value) {
                Some((url, text)) => self.targets.push(Target {
                    workspace: workspace.into(),
                    target: id.into(),
                    url,
                    text,
                    place,
                }),
                None => {
                    let what = "expected the URL where clients reach the relay: ws:// or wss://, \
                                without user, query and fragment";
                    problems.push(Problem::rule(CONFIG, what, TARGET_EXAMPLE).at(place));
                }
            }
        }
    }

    /// The first version of the routes, and what is wrong with them or worth to know.
    ///
    /// Source: relay specification, section 10.
    pub(super) fn routes(
        &self,
        redirects: &Redirects<'_>,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<String>,
    ) -> Routes {
        let mut routes = Routes { version: 1, tenants: self.limits.clone(), ..Routes::default() };
        if !redirects.enabled && !self.targets.is_empty() {
            warnings.push(
                "[targets]: clients are sent nowhere while RELAY_CLIENT_REDIRECT_ENABLED is off"
                    .to_owned(),
            );
            return routes;
        }
        for target in &self.targets {
            if let Some(what) = redirects.refuse(&target.url) {
                let problem = Problem::rule(CONFIG, what, TARGET_EXAMPLE);
                problems.push(problem.at(target.place.clone()));
                continue;
            }
            let targets = routes.targets.entry(target.workspace.clone()).or_default();
            targets.insert(target.target.clone(), target.text.clone());
        }
        routes
    }
}

impl Redirects<'_> {
    fn refuse(&self, url: &Url) -> Option<&'static str> {
        let host = url.host_str().unwrap_or_default();
        let is_listed = self.hosts.is_empty() || self.hosts.iter().any(|listed| listed == host);
        match () {
            () if self.mode == Mode::Prod && url.scheme() != "wss" => {
                Some("RELAY_MODE=prod sends clients to wss:// alone")
            }
            () if !is_listed => Some("its host is not in RELAY_REDIRECT_ALLOWED_HOSTS"),
            () => None,
        }
    }
}

fn url_of(value: &Spanned<DeValue<'_>>) -> Option<(Url, Box<str>)> {
    let DeValue::String(text) = value.get_ref() else { return None };
    let url = Url::parse(text).ok()?;
    let is_usable = matches!(url.scheme(), "ws" | "wss")
        && url.has_host()
        && super::reader::is_bare(&url)
        && url.fragment().is_none();
    is_usable.then(|| (url, text.as_ref().into()))
}

/// Source: relay specification, section 3.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.encode_utf16().count())
}

fn bad_id() -> Problem {
    Problem::rule(CONFIG, "expected an id of 1 to 128 characters", "[tenants.\"ws1\"]")
}

type Setter = fn(&mut TenantLimits, u64);

fn setter(key: &str) -> Option<Setter> {
    LIMITS.iter().find(|(known, _)| *known == key).map(|(_, set)| *set)
}

/// What a workspace may have of its own, under the names of `[limits]`.
pub(crate) const LIMITS: [(&str, Setter); 9] = [
    ("max_frame_bytes", |limits, number| limits.frame_bytes_max = Some(bytes(number))),
    ("max_pending_bytes", |limits, number| limits.egress_bytes_max = Some(bytes(number))),
    ("kex_init_rate_per_minute", |limits, number| {
        limits.key_exchange_per_minute = Some(rate(number));
    }),
    ("runtime_rate_per_minute", |limits, number| limits.runtime_per_minute = Some(rate(number))),
    ("runtime_rate_per_minute_workspace", |limits, number| {
        limits.runtime_per_minute_workspace = Some(rate(number));
    }),
    ("daemon_runtime_rate_per_minute", |limits, number| {
        limits.daemon_per_minute = Some(rate(number));
    }),
    ("pairing_rate_per_minute", |limits, number| limits.pairing_per_minute = Some(rate(number))),
    ("unrouted_frame_rate_per_minute", |limits, number| {
        limits.unrouted_per_minute = Some(rate(number));
    }),
    ("small_frame_rate_per_minute", |limits, number| {
        limits.small_frames_per_minute = Some(rate(number));
    }),
];

fn rate(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn bytes(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

const CONFIG: &str = "RELAY_CONFIG";

const TARGET_EXAMPLE: &str = "\"rt1\" = \"wss://relay-eu.corp/ws\"";
