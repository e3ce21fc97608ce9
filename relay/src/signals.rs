//! What the operating system tells the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::notify::Notifier;

/// SIGHUP: read the files again. Watched from the moment this exists; without that it would end
/// the process.
#[derive(Debug)]
pub(crate) struct Hangups {
    signal: Signal,
    /// Whom a reload is announced to, and its end.
    manager: Notifier,
    reloading: bool,
}

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
    pub(crate) fn watch(manager: Notifier) -> io::Result<Self> {
        Ok(Self { signal: signal(SignalKind::hangup())?, manager, reloading: false })
    }

    /// The next request to read files again. Asking for it says that the last is dealt with.
    pub(crate) async fn next(&mut self) {
        if std::mem::take(&mut self.reloading) {
            self.manager.ready();
        }
        self.signal.recv().await;
        self.reloading = true;
        self.manager.reloading();
    }
}
