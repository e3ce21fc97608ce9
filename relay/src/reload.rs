//! The configuration read again while the relay runs: whole or not at all.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use relay_contract::{Counter, Level, LogEntry};
use relay_controller::{Applier, ReloadAsked, ReloadRefused, Reloaded, Reloads, Reporter};
use relay_mailbox::Sender;
use relay_shard::{DoorNews, DoorRules};
use tokio::sync::mpsc::Receiver;

use crate::config::{Change, Config, Effective, Machine, Parsed, Source, Variable};
use crate::link_credentials::LinkCredentials;
use crate::own_settings::OwnSettings;
use crate::settings::live;
use crate::signals::Hangups;
use crate::tls::{Loaded, Loader, Renewal};

/// Reads the configuration again when it is told to, and the certificates when they change.
pub(crate) struct Reload {
    /// What is in force, where it may be read again.
    parsed: Option<Parsed>,
    /// Where TLS ends here.
    renewal: Option<Renewal>,
    doors: Doors,
    /// Where it is put in force: not in a process that decides nothing.
    applier: Option<Applier>,
    /// What the planes know each other by, where they are apart.
    link: Option<LinkCredentials>,
    /// What a data plane has of its own.
    own: Option<OwnSettings>,
    asked: Receiver<ReloadAsked>,
    reporter: Reporter,
}

impl Reload {
    /// One that reads certificates alone, and who asks it.
    pub(crate) fn new(
        renewal: Option<Renewal>,
        doors: Vec<Sender<DoorNews>>,
        applier: Option<Applier>,
        reporter: Reporter,
    ) -> (Self, Reloads) {
        let (reloads, asked) = Reloads::channel();
        (
            Self {
                parsed: None,
                renewal,
                doors: Doors::new(doors),
                applier,
                link: None,
                own: None,
                asked,
                reporter,
            },
            reloads,
        )
    }

    /// Reads the whole configuration from now on; this one is in force.
    pub(crate) fn go_by(&mut self, parsed: Parsed) {
        self.parsed = Some(parsed);
    }

    /// Gives a data plane what it has of its own of each configuration that is read.
    pub(crate) fn keep_own(&mut self, own: OwnSettings) {
        self.own = Some(own);
    }

    /// Gives the link the tokens of each configuration that is read.
    pub(crate) fn rotate(&mut self, link: LinkCredentials) {
        self.link = Some(link);
    }

    /// Reloads until it is dropped: whenever `hangups` or an operator says so, and certificates
    /// also when a file changes.
    pub(crate) async fn run(mut self, mut hangups: Hangups) {
        loop {
            tokio::select! {
                () = hangups.next() => drop(self.reload().await),
                Some(asked) = self.asked.recv() => {
                    let outcome = self.reload().await;
                    asked.answer(outcome);
                }
                () = self.doors.rest() => self.doors.deliver(),
                () = rest(&mut self.renewal) => {
                    if let Some(renewal) = &mut self.renewal {
                        renewal.look().await;
                    }
                }
            }
        }
    }

    /// Reads the configuration and puts it in force, or says why not.
    async fn reload(&mut self) -> Result<Reloaded, ReloadRefused> {
        let outcome = self.try_reload().await;
        match &outcome {
            Ok(Reloaded { version, changed }) => {
                let entry = LogEntry::new(Level::Info, "config_reloaded")
                    .with("version", i64::try_from(*version).unwrap_or(i64::MAX))
                    .with("changed", changed.join(", "));
                self.reporter.report(Some(Counter::ConfigReloads), entry);
            }
            Err(ReloadRefused(reasons)) => {
                let entry = LogEntry::new(Level::Warn, "config_refused");
                let entry = entry.with("reason", reasons.join("; "));
                self.reporter.report(Some(Counter::ConfigReloadsRefused), entry);
            }
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<Reloaded, ReloadRefused> {
        let Some(current) = &self.parsed else {
            return self.reload_certificates().await;
        };
        let flags = current.flags.clone();
        let read = move || Config::parse(&flags, &Machine);
        let parsed = blocking(read).await?.map_err(|refused| {
            ReloadRefused(refused.0.iter().map(ToString::to_string).collect())
        })?;
        let mut changed = changed(current, &parsed);
        let refusals = refusals(&changed);
        if !refusals.is_empty() {
            return Err(ReloadRefused(refusals));
        }
        let certificates = self.load_certificates(&parsed.config).await?;
        let version = match &self.applier {
            Some(applier) => {
                let applied = applier.apply(Arc::new(live(&parsed.config))).await;
                applied.map_err(|error| ReloadRefused(vec![error.to_string()]))?
            }
            None => {
                // The rest is the control plane's, in another process.
                changed.retain(|name| AT_THE_DOOR.contains(name));
                0
            }
        };
        if let (Some(renewal), Some((loader, loaded))) = (&mut self.renewal, certificates) {
            renewal.replace(loader, loaded);
        }
        self.doors.offer(&parsed.config);
        if let Some(own) = &self.own {
            own.replace(&parsed.config);
        }
        if let Some(link) = &self.link {
            link.replace_tokens(&parsed.config.control);
        }
        for warning in &parsed.warnings {
            let entry = LogEntry::new(Level::Warn, "config_questionable");
            self.reporter.report(None, entry.with("reason", warning.clone()));
        }
        self.parsed = Some(parsed);
        Ok(Reloaded { version, changed: changed.into_iter().map(str::to_owned).collect() })
    }

    /// What the certificates' files are now, under the names they have now.
    async fn load_certificates(
        &mut self,
        config: &Config,
    ) -> Result<Option<(Loader, Loaded)>, ReloadRefused> {
        let Some(renewal) = &mut self.renewal else { return Ok(None) };
        let loader = renewal.loader().of_files(&config.listen.tls);
        let read = move || loader.load().map(|loaded| (loader, loaded));
        match blocking(read).await? {
            Ok(read) => Ok(Some(read)),
            Err(error) => {
                let reason = format!("{error:#}");
                renewal.report_failure(&error);
                Err(ReloadRefused(vec![reason]))
            }
        }
    }

    /// Nothing but certificates can be read again.
    async fn reload_certificates(&mut self) -> Result<Reloaded, ReloadRefused> {
        if let Some(renewal) = &mut self.renewal {
            renewal.renew().await;
        }
        Ok(Reloaded { version: 0, changed: Vec::new() })
    }
}

/// The shards' lanes for rules about those who are not admitted yet, and what found them full.
struct Doors {
    lanes: Vec<(Sender<DoorNews>, Option<Arc<DoorRules>>)>,
}

/// How soon a lane that was full is tried again.
const RETRY: Duration = Duration::from_millis(50);

impl Doors {
    fn new(lanes: Vec<Sender<DoorNews>>) -> Self {
        Self { lanes: lanes.into_iter().map(|lane| (lane, None)).collect() }
    }

    /// Gives every shard the rules of this configuration.
    fn offer(&mut self, config: &Config) {
        let rules = Arc::new(DoorRules {
            trusted_proxies: config.capacity.trusted_proxies.clone(),
            allowed_origins: config.capacity.allowed_origins.clone(),
        });
        for (_, waiting) in &mut self.lanes {
            *waiting = Some(Arc::clone(&rules));
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        for (lane, waiting) in &mut self.lanes {
            if let Some(rules) = waiting.take()
                && lane.send(DoorNews::Rules(Arc::clone(&rules))).is_err()
            {
                *waiting = Some(rules);
            }
        }
    }

    /// Until what waits is to be tried again; for ever when nothing does.
    async fn rest(&self) {
        match self.lanes.iter().any(|(_, waiting)| waiting.is_some()) {
            true => tokio::time::sleep(RETRY).await,
            false => future::pending().await,
        }
    }
}

/// Until the certificates' files are looked at again; for ever without any.
async fn rest(renewal: &mut Option<Renewal>) {
    match renewal {
        Some(renewal) => renewal.rest().await,
        None => future::pending().await,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReloadRefused> {
    let done = tokio::task::spawn_blocking(work).await.context("reading was given up");
    done.map_err(|error| ReloadRefused(vec![format!("{error:#}")]))
}

fn is_live(name: &str) -> bool {
    TABLES.contains(&name) || Variable::named(name).change == Change::AtOnce
}

/// Why these changes cannot be made, of those that cannot.
fn refusals(changed: &[&'static str]) -> Vec<String> {
    let fixed = changed.iter().filter(|name| !is_live(name));
    fixed.map(|name| format!("{name} takes effect after a restart only")).collect()
}

/// What has another value than before: variables in the table's order, then the file's tables.
fn changed(before: &Parsed, after: &Parsed) -> Vec<&'static str> {
    let pairs = before.effective.iter().zip(&after.effective);
    let mut changed: Vec<_> =
        pairs.filter(|(old, new)| differs(old, new)).map(|(old, _)| old.name).collect();
    let (old, new) = (&before.config.routes, &after.config.routes);
    let tables = [(old.tenants != new.tenants), (old.targets != new.targets)];
    changed.extend(TABLES.into_iter().zip(tables).filter(|(_, differs)| *differs).map(|(n, _)| n));
    changed
}

fn differs(old: &Effective, new: &Effective) -> bool {
    // What the relay chose by itself it goes on with: a random name, half of the memory there is.
    let is_own = |source: &Source| matches!(source, Source::Default);
    let both_own = is_own(&old.source) && is_own(&new.source);
    let both_inferred = [old, new].iter().all(|one| matches!(one.source, Source::Inferred(_)));
    let is_measured = old.name == "RELAY_MEMORY_BUDGET" && both_inferred;
    !both_own && !is_measured && old.digest != new.digest
}

/// What a process acts on that decides nothing.
const AT_THE_DOOR: [&str; 12] = [
    "RELAY_TLS_CERT_DIR",
    "RELAY_TLS_CERT_PATH",
    "RELAY_TLS_KEY_PATH",
    "RELAY_TLS_CLIENT_CA_PATH",
    "RELAY_TLS_CLIENT_AUTH",
    "RELAY_TRUSTED_PROXIES",
    "RELAY_ALLOWED_ORIGINS",
    "RELAY_CONTROL_TOKEN",
    "RELAY_CONTROL_TOKEN_PREVIOUS",
    "RELAY_DRAIN_MS",
    "RELAY_LOG_LEVEL",
    "RELAY_LOG_FORMAT",
];

/// What only the file has.
const TABLES: [&str; 2] = ["tenants", "targets"];

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
