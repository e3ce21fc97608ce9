//! New certificates for a running relay.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use relay_contract::{Counter, Level, LogEntry};
use relay_controller::Reporter;
use relay_mailbox::Sender;
use relay_shard::DoorNews;
use rustls::ServerConfig;
use tokio::time::{Interval, MissedTickBehavior};

use super::{Loaded, Loader};

/// Watches the files and gives every shard what they become. Connections keep the session they
/// have; a file that cannot be used changes nothing.
pub(crate) struct Renewal {
    loader: Arc<Loader>,
    stamp: Vec<Stamp>,
    shards: Vec<Shard>,
    reporter: Reporter,
    /// When the files are looked at, once somebody waits for it.
    looks: Option<Interval>,
}

/// A shard's lane, and what found it full.
struct Shard {
    lane: Sender<DoorNews>,
    waiting: Option<Arc<ServerConfig>>,
}

/// What changes when a file is written, replaced, or its symbolic link points elsewhere.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Stamp {
    target: Option<PathBuf>,
    device: u64,
    inode: u64,
    len: u64,
    changed_ns: i128,
}

/// How often the files are looked at: a few system calls.
const LOOK_EVERY: Duration = Duration::from_secs(3);

impl Renewal {
    /// Starts from what the files were before `loader` read them first.
    pub(crate) fn new(
        mut loader: Loader,
        lanes: Vec<Sender<DoorNews>>,
        reporter: Reporter,
    ) -> Self {
        let shards = lanes.into_iter().map(|lane| Shard { lane, waiting: None }).collect();
        let stamp = std::mem::take(&mut loader.born);
        Self { loader: Arc::new(loader), stamp, shards, reporter, looks: None }
    }

    /// Waits until it is time to [`Self::look`]. Dropping the future loses nothing.
    pub(crate) async fn rest(&mut self) {
        self.looks.get_or_insert_with(looks).tick().await;
    }

    /// Puts to use what has changed since the last look.
    pub(crate) async fn look(&mut self) {
        self.deliver();
        if self.has_changed() {
            self.renew().await;
        }
    }

    /// Reads the files and puts them to use, or says why not.
    pub(crate) async fn renew(&mut self) {
        let loader = Arc::clone(&self.loader);
        let loaded = tokio::task::spawn_blocking(move || loader.load()).await;
        self.take(loaded.context("reading was given up").and_then(|loaded| loaded));
    }

    /// What reads the files.
    pub(crate) fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Goes by other files from now on, and puts to use what was read of them.
    pub(crate) fn replace(&mut self, mut loader: Loader, loaded: Loaded) {
        self.stamp = std::mem::take(&mut loader.born);
        self.loader = Arc::new(loader);
        self.take(Ok(loaded));
    }

    /// Says that files could not be used.
    pub(crate) fn report_failure(&self, error: &anyhow::Error) {
        let entry = LogEntry::new(Level::Warn, "tls_certificate_reload_failed");
        let entry = entry.with("reason", format!("{error:#}"));
        self.reporter.report(Some(Counter::TlsReloadFailures), entry);
    }

    /// Whether a file is not the one it was at the last look.
    fn has_changed(&mut self) -> bool {
        let stamp = self.loader.stamp();
        std::mem::replace(&mut self.stamp, stamp) != self.stamp
    }

    /// Puts what was read to use, or says why not.
    fn take(&mut self, loaded: Result<Loaded>) {
        let Loaded { server, warnings } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return self.report_failure(&error),
        };
        for shard in &mut self.shards {
            shard.waiting = Some(Arc::clone(&server));
        }
        self.deliver();
        let entry = LogEntry::new(Level::Info, "tls_certificate_reloaded");
        self.reporter.report(Some(Counter::TlsReloads), entry);
        for warning in warnings {
            let entry = LogEntry::new(Level::Warn, "tls_certificate_questionable");
            self.reporter.report(None, entry.with("reason", warning));
        }
    }

    /// Gives shards what waits for them. A lane that is full is tried again at the next look.
    fn deliver(&mut self) {
        for shard in &mut self.shards {
            if let Some(server) = shard.waiting.take()
                && shard.lane.send(DoorNews::Tls(Arc::clone(&server))).is_err()
            {
                shard.waiting = Some(server);
            }
        }
    }
}

fn looks() -> Interval {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

impl Stamp {
    /// Of a file that is not there, nothing is known.
    pub(crate) fn of(path: &Path) -> Self {
        let Ok(facts) = fs::metadata(path) else { return Self::default() };
        Self {
            target: fs::canonicalize(path).ok(),
            device: facts.dev(),
            inode: facts.ino(),
            len: facts.len(),
            changed_ns: i128::from(facts.mtime()) * 1_000_000_000 + i128::from(facts.mtime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_mailbox::{Bell, Receiver, Ring, lane};
    use tempfile::TempDir;

    use super::super::tests::{files, write_pair};
    use super::*;

    struct Silent;

    impl Ring for Silent {
        fn ring(&self) {}
    }

    struct Bench {
        dir: TempDir,
        renewal: Renewal,
        arriving: Receiver<DoorNews>,
        reports: relay_controller::Reports,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            write_pair(dir.path());
            let loader = Loader::new(&files(dir.path())).expect("randomness");
            let (certificates, arriving) = lane(1, Bell::new(Silent));
            let (reporter, reports) = Reporter::channel();
            let renewal = Renewal::new(loader, vec![certificates], reporter);
            Self { dir, renewal, arriving, reports }
        }

        /// The certificate that reached the shard.
        fn arrived(&self) -> Option<Arc<ServerConfig>> {
            match self.arriving.receive()? {
                DoorNews::Tls(server) => Some(server),
                DoorNews::Rules(_) => panic!("only certificates are renewed"),
            }
        }

        /// One look at the files; the event it led to.
        fn look(&mut self) -> Option<&'static str> {
            self.renewal.deliver();
            if !self.renewal.has_changed() {
                return None;
            }
            let loaded = self.renewal.loader.load();
            self.renewal.take(loaded);
            self.reports.try_next().map(|report| report.entry.event)
        }
    }

    #[test]
    fn files_that_did_not_change_are_left_alone() {
        let mut bench = Bench::new();
        assert_eq!(bench.look(), None);
        assert!(bench.arriving.receive().is_none());
    }

    #[test]
    fn a_new_certificate_reaches_every_shard() {
        let mut bench = Bench::new();
        write_pair(bench.dir.path());
        assert_eq!(bench.look(), Some("tls_certificate_reloaded"));
        assert!(bench.arriving.receive().is_some());
        assert_eq!(bench.look(), None, "once is enough");
    }

    #[test]
    fn a_broken_certificate_keeps_the_old_one() {
        let mut bench = Bench::new();
        let key = bench.dir.path().join("tls.key");
        for broken in ["", "hunter2", "-----BEGIN PRIVATE KEY-----\nhunter2\n"] {
            fs::write(&key, broken).expect("written");
            assert_eq!(bench.look(), Some("tls_certificate_reload_failed"), "{broken:?}");
            assert!(bench.arriving.receive().is_none());
        }
        fs::remove_file(&key).expect("removed");
        assert_eq!(bench.look(), Some("tls_certificate_reload_failed"));
        write_pair(bench.dir.path());
        assert_eq!(bench.look(), Some("tls_certificate_reloaded"), "a good one is taken again");
    }

    #[test]
    fn a_link_that_points_elsewhere_is_a_change() {
        let mut bench = Bench::new();
        let path = bench.dir.path().to_owned();
        // As a mounted secret is replaced: all files at once, by one link.
        for (round, version) in ["one", "two"].into_iter().enumerate() {
            let target = path.join(version);
            fs::create_dir(&target).expect("made");
            write_pair(&target);
            for name in ["tls.crt", "tls.key"] {
                let link = path.join(name);
                fs::remove_file(&link).expect("removed");
                std::os::unix::fs::symlink(target.join(name), &link).expect("linked");
            }
            assert_eq!(bench.look(), Some("tls_certificate_reloaded"), "round {round}");
            assert!(bench.arriving.receive().is_some());
        }
    }

    #[test]
    fn a_shard_that_is_behind_gets_the_newest_later() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            write_pair(bench.dir.path());
            assert_eq!(bench.look(), Some("tls_certificate_reloaded"));
        }
        let first = bench.arrived().expect("the lane holds one");
        assert_eq!(bench.look(), None);
        let newest = bench.arrived().expect("it was offered again");
        assert!(!Arc::ptr_eq(&first, &newest));
        assert_eq!(bench.look(), None);
        assert!(bench.arriving.receive().is_none(), "the one between is of no use");
    }
}
