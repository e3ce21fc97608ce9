//! Keeping revocations beyond the life of the process.

use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Counter, Level, LogEntry, Tick};

use crate::controller::{Controller, Done};
use crate::revocation_file::{RevocationFile, RevocationFileError};
use crate::revocations::Revocations;

/// What is kept of the revocations in force, and who waits for that.
///
/// One write at a time; what changes meanwhile goes with the next one, so a thousand orders in a
/// moment are a few writes.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Where, if anywhere.
    file: Option<Arc<RevocationFile>>,
    /// Changes so far.
    changed: u64,
    /// Changes that are in the file.
    saved: u64,
    /// Changes that will be when the write that goes on is over.
    writing: Option<u64>,
    /// When a write is tried again after one that failed.
    retry_at: Option<Tick>,
    /// Who is told whether a change is kept: at most the calls of the control API that go on.
    waiting: Vec<(u64, Saved)>,
}

/// Hears once whether what it waits for is kept.
pub(crate) struct Saved(Box<dyn FnOnce(bool) + Send>);

impl Keeping {
    /// Keeps them nowhere, or in this file, from which those still in force come back.
    ///
    /// # Errors
    /// [`RevocationFileError`].
    pub(crate) fn open(
        file: Option<RevocationFile>,
        now_secs: i64,
        revocations: &mut Revocations,
    ) -> Result<Self, RevocationFileError> {
        for revocation in file.as_ref().map_or(Ok(Vec::new()), RevocationFile::load)? {
            // The file holds no more than were in force at a time.
            let _remembered = revocations.insert(now_secs, revocation);
        }
        Ok(Self { file: file.map(Arc::new), ..Self::default() })
    }

    /// Whether a write has to be begun when its time has come.
    pub(crate) fn is_behind(&self) -> bool {
        self.file.is_some() && self.saved < self.changed && self.writing.is_none()
    }

    fn settle(&mut self, changes: u64, kept: bool) {
        for (_, saved) in self.waiting.extract_if(.., |(change, _)| *change <= changes) {
            (saved.0)(kept);
        }
    }
}

impl Controller {
    /// What is revoked has changed: it is to be kept.
    pub(crate) fn revocations_changed(&mut self) {
        self.keeping.changed += 1;
        self.keep_revocations();
    }

    /// Tells whether what is revoked now is kept, once that is known: not without a file, and not
    /// when it cannot be written.
    pub(crate) fn when_kept(&mut self, saved: impl FnOnce(bool) + Send + 'static) {
        let keeping = &mut self.keeping;
        match &keeping.file {
            None => saved(false),
            Some(_) if keeping.saved >= keeping.changed => saved(true),
            // The next attempt may be a second away.
            Some(_) if keeping.writing.is_none() => saved(false),
            Some(_) => keeping.waiting.push((keeping.changed, Saved(Box::new(saved)))),
        }
    }

    /// Begins to write, if there is something new and no write goes on.
    pub(crate) fn keep_revocations(&mut self) {
        let now = self.clock.now();
        let keeping = &mut self.keeping;
        let is_early = keeping.retry_at.is_some_and(|at| now < at);
        let (false, true, Some(file)) = (is_early, keeping.is_behind(), &keeping.file) else {
            return;
        };
        let file = Arc::clone(file);
        let changes = keeping.changed;
        keeping.writing = Some(changes);
        keeping.retry_at = None;
        let revocations: Vec<_> = self.revocations.in_force(self.now_secs()).collect();
        self.jobs.spawn_blocking(move || {
            let outcome = file.save(revocations);
            Done::Kept { changes, outcome }
        });
    }

    /// A write is over.
    pub(crate) fn on_kept(&mut self, changes: u64, outcome: std::io::Result<()>) {
        self.keeping.writing = None;
        match outcome {
            Ok(()) => {
                self.keeping.saved = changes;
                self.keeping.settle(changes, true);
            }
            Err(error) => {
                self.counters.count(Counter::RevocationsUnsaved);
                self.keeping.retry_at = Some(self.clock.now().after(RETRY));
                let entry = LogEntry::new(Level::Error, "revocations_unsaved");
                self.log(entry.with("error", error.to_string()).ours());
                self.keeping.settle(u64::MAX, false);
            }
        }
        self.keep_revocations();
    }
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saved").finish_non_exhaustive()
    }
}

/// Until a write is tried again after one that failed.
const RETRY: Duration = Duration::from_secs(1);
