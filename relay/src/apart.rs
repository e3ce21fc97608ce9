//! The way of a data plane to a control plane that runs apart.

use std::future::Future;
use std::io::Write;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use relay_controller::{Clock, Journal, Reporter, Reports};
use relay_link::{Address, Dial, Dialled, Identity, Link, Time, Versions};

use crate::config::{Config, ControlUrl};
use crate::control_plane::notes;
use crate::link_credentials::LinkCredentials;
use crate::own_settings::OwnSettings;

/// Stands in the controller's place.
pub(crate) struct Apart {
    dial: Dial,
    link: Link,
    clock: Arc<dyn Clock>,
    /// What this process alone has to say. Everything else is in the control plane's.
    journal: Journal,
    own: OwnSettings,
    reporter: Reporter,
    reports: Reports,
}

impl Apart {
    /// Errors: files that cannot be read; an operating system without threads or randomness.
    pub(crate) fn new(
        config: &Config,
        link: Link,
        clock: Arc<dyn Clock>,
        driver: &'static str,
        (own, credentials): (&OwnSettings, &LinkCredentials),
        log: impl Write + Send + 'static,
    ) -> Result<Self> {
        let (reporter, reports) = Reporter::channel();
        let url = config.control.url.as_ref().context("RELAY_CONTROL_URL is required")?;
        let dial = Dial {
            address: match url {
                ControlUrl::Url(url) => Address::Url(url.to_string()),
                ControlUrl::Unix(path) => Address::Unix(path.display().to_string()),
            },
            credentials: credentials.shown(),
            identity: Identity {
                instance_id: instance_id(config)?,
                shard_count: config.engine.shard_count,
                memory_bytes_max: config.limits.memory_bytes_max,
                versions: Versions::CURRENT,
                driver,
            },
            time: time(Arc::clone(&clock)),
            notes: notes(reporter.clone()),
            drain_ms: own.drain_ms(),
            counters: Arc::default(),
        };
        let journal = Journal::new(config.log, log).context("the log cannot be started")?;
        Ok(Self { dial, link, clock, journal, own: own.clone(), reporter, reports })
    }

    /// Writes a line for people to the log.
    pub(crate) fn announce(&mut self, line: String) {
        // A reader that is behind misses it.
        let _written = self.journal.announce(line);
    }

    /// For what the program itself has to tell the operator.
    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Serves until `shutdown`, then lets the peers leave and stops the shards; whether all of them
    /// have stopped. `hurry` leaves the peers a moment.
    ///
    /// Errors: an address or certificates that cannot be used.
    pub(crate) async fn run(
        self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<bool> {
        let Self { dial, link, clock, mut journal, own, reporter: _reporter, mut reports } = self;
        let counters = Arc::clone(&dial.counters);
        let mut write = async || {
            while let Some(report) = reports.next().await {
                if let Some(counter) = report.counter {
                    counters.lock().unwrap_or_else(PoisonError::into_inner).count(counter);
                }
                let log = own.log();
                journal.set_style(log.level, log.format);
                let _written = journal.record(clock.now(), clock.unix_ms(), report.entry);
                journal.flush();
            }
        };
        let ended = tokio::select! {
            ended = dial.run(link, shutdown, hurry) => ended,
            () = write() => unreachable!("there is a reporter as long as this runs"),
        };
        let ended = ended.context("RELAY_CONTROL_URL cannot be used")?;
        while let Some(report) = reports.try_next() {
            let _written = journal.record(clock.now(), clock.unix_ms(), report.entry);
        }
        journal.finish(FLUSH_PATIENCE);
        Ok(ended == Dialled::Stopped)
    }
}

/// One life of this process. The relay's id says which one it is; the rest that it is another life.
fn instance_id(config: &Config) -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("the operating system gave no randomness")?;
    let id: String = config.relay_id.as_str().chars().take(RELAY_ID_CHARS).collect();
    Ok(format!("{id}/{:016x}", u64::from_le_bytes(bytes)))
}

/// The clock, as the link takes it.
pub(crate) fn time(clock: Arc<dyn Clock>) -> Time {
    Time(Arc::new(move || (clock.now(), clock.unix_ms())))
}

/// Characters of the relay's id in the instance's.
const RELAY_ID_CHARS: usize = 96;

/// What a reader of stdout may take for the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
