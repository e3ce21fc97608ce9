//! What the operating system tells the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP: read the files again. Watched from the moment this exists; without that it would end
/// the process.
#[derive(Debug)]
pub(crate) struct Hangups(Signal);

/// SIGTERM and SIGINT, watched from the moment this exists.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Watches. Needs a running tokio runtime with I/O.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next request to stop.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Hangups {
    /// Watches. Needs a running tokio runtime with I/O.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// The next request to read files again.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
