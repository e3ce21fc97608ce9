//! What background work tells the operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_contract::{Level, LogEntry};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Takes entries of background work to the journal. Never waits: entries that find it full are
/// lost, because the operator has enough of the same to read, and counted.
#[derive(Clone, Debug)]
pub(crate) struct Notices {
    way: Sender<LogEntry>,
    lost: Arc<AtomicU64>,
}

impl Notices {
    /// Where they are written, and where the controller reads them.
    pub(crate) fn channel() -> (Self, Receiver<LogEntry>) {
        let (notices, read) = mpsc::channel(NOTICES_MAX);
        (Self { way: notices, lost: Arc::default() }, read)
    }

    /// Something happened.
    pub(crate) fn info(&self, event: &'static str) {
        self.send(LogEntry::new(Level::Info, event));
    }

    /// Something went wrong, for this reason.
    pub(crate) fn warn(&self, event: &'static str, reason: String) {
        self.send(LogEntry::new(Level::Warn, event).with("reason", reason));
    }

    /// Something to be read as it is.
    pub(crate) fn send(&self, entry: LogEntry) {
        // Full, or the controller is gone.
        if self.way.try_send(entry.ours()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Entries that wait to be logged. Reached: more of the same is lost, counted among
/// `relay_log_entries_dropped_total`.
const NOTICES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let (notices, mut read) = Notices::channel();
        (0..NOTICES_MAX + 2).for_each(|_| notices.info("x"));
        assert_eq!(notices.lost(), 2);
        assert!(read.try_recv().is_ok());
        notices.warn("y", "room again".to_owned());
        assert_eq!(notices.lost(), 2);
    }
}
