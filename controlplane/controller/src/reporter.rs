//! What the program itself has to tell the operator, beside what shards and controller do.

use relay_contract::{Counter, LogEntry};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it counts as, if anything.
    pub counter: Option<Counter>,
    /// What the log says.
    pub entry: LogEntry,
}

/// Takes reports to the controller. Never waits: reports that find it full are lost, because the
/// operator has enough of the same to read.
#[derive(Clone, Debug)]
pub struct Reporter(Sender<Report>);

/// Where the reports arrive.
#[derive(Debug)]
pub struct Reports(Receiver<Report>);

impl Reporter {
    /// A reporter and the other end of it.
    pub fn channel() -> (Self, Reports) {
        let (reporter, reports) = mpsc::channel(REPORTS_MAX);
        (Self(reporter), Reports(reports))
    }

    /// Something happened. The entry is marked as one of ours.
    pub fn report(&self, counter: Option<Counter>, entry: LogEntry) {
        // Full, or the controller is gone.
        let _ = self.0.try_send(Report { counter, entry: entry.ours() });
    }
}

impl Reports {
    /// The next one, if it is there.
    pub fn try_next(&mut self) -> Option<Report> {
        self.0.try_recv().ok()
    }

    /// Waits for the next one; `None` when nobody can report any more.
    pub async fn next(&mut self) -> Option<Report> {
        self.0.recv().await
    }
}

/// Reports that wait for the controller. Reached: more of the same is lost.
const REPORTS_MAX: usize = 64;
