//! Asking the program to read its configuration again.

use tokio::sync::{mpsc, oneshot};

/// What a reload changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reloaded {
    /// The version that is in force now.
    pub version: u64,
    /// What has another value than before, by the variables' names, sorted; `tenants` and
    /// `targets` for the tables that only the file has. Certificates are read again in any case.
    pub changed: Vec<String>,
}

/// Why a reload changed nothing: every reason, each naming what it is about. No secret is in them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("nothing was changed: {}", .0.join("; "))]
pub struct ReloadRefused(pub Vec<String>);

/// A wish to have the configuration read again, and where the outcome goes.
#[derive(Debug)]
pub struct ReloadAsked(oneshot::Sender<Result<Reloaded, ReloadRefused>>);

impl ReloadAsked {
    /// Says what came of it.
    pub fn answer(self, outcome: Result<Reloaded, ReloadRefused>) {
        // Whoever asked may be gone.
        let _ = self.0.send(outcome);
    }
}

/// Asks for reloads, from any task.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<ReloadAsked>);

impl Reloads {
    /// The asking end and the program's.
    pub fn channel() -> (Self, mpsc::Receiver<ReloadAsked>) {
        let (sender, asked) = mpsc::channel(RELOADS_MAX);
        (Self(sender), asked)
    }

    /// Has the configuration read again, whole or not at all.
    ///
    /// # Errors
    /// [`ReloadRefused`]; nothing has changed then.
    pub async fn reload(&self) -> Result<Reloaded, ReloadRefused> {
        let (reply, outcome) = oneshot::channel();
        if self.0.try_send(ReloadAsked(reply)).is_err() {
            return Err(ReloadRefused(vec!["too many reloads at once, try again".to_owned()]));
        }
        let stopping = || ReloadRefused(vec!["the relay is stopping".to_owned()]);
        outcome.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// Reloads that may wait for each other. Reached: the next one is refused.
const RELOADS_MAX: usize = 8;
