//! What background work tells the operator.

use relay_contract::{Level, LogEntry};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Takes entries of background work to the journal. Never waits: entries that find it full are
/// lost, because the operator has enough of the same to read.
#[derive(Clone, Debug)]
pub(crate) struct Notices(Sender<LogEntry>);

impl Notices {
    /// Where they are written, and where the controller reads them.
    pub(crate) fn channel() -> (Self, Receiver<LogEntry>) {
        let (notices, read) = mpsc::channel(NOTICES_MAX);
        (Self(notices), read)
    }

    /// Something happened.
    pub(crate) fn info(&self, event: &'static str) {
        self.send(LogEntry::new(Level::Info, event));
    }

    /// Something went wrong, for this reason.
    pub(crate) fn warn(&self, event: &'static str, reason: String) {
        self.send(LogEntry::new(Level::Warn, event).with("reason", reason));
    }

    fn send(&self, entry: LogEntry) {
        // Full, or the controller is gone.
        let _ = self.0.try_send(entry.ours());
    }
}

/// Entries that wait to be logged. Reached: more of the same is lost.
const NOTICES_MAX: usize = 64;
