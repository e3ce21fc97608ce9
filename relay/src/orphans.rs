//! The first process of a container inherits every orphan in it, and has to bury them.

use std::io;

use rustix::process::{WaitOptions, getpid, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Children that ended, watched where this process is the first of its namespace: a probe or a
/// shell that an operator runs in the container leaves its own children to it. Anywhere else a
/// relay has no children.
#[derive(Debug)]
pub(crate) struct Orphans(Option<Signal>);

impl Orphans {
    /// Watches. Needs a running tokio runtime with I/O.
    pub(crate) fn watch() -> io::Result<Self> {
        let is_first = getpid().as_raw_nonzero().get() == 1;
        let signal = is_first.then(|| signal(SignalKind::child())).transpose()?;
        Ok(Self(signal))
    }

    /// Takes note of each end, so that nothing is left of it. Never ends.
    pub(crate) async fn bury(mut self) {
        loop {
            match &mut self.0 {
                // One signal may stand for several ends.
                Some(ended) => {
                    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
                    ended.recv().await;
                }
                None => std::future::pending().await,
            }
        }
    }
}
