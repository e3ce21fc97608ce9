//! What a data plane has of its own, whatever its control plane says, and what a reload changes of
//! it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use relay_controller::LogSettings;

use crate::config::Config;

/// Shared by whoever goes by it and whoever reads the configuration again.
#[derive(Clone)]
pub(crate) struct OwnSettings {
    drain_ms: Arc<AtomicU64>,
    log: Arc<Mutex<LogSettings>>,
}

impl OwnSettings {
    pub(crate) fn of(config: &Config) -> Self {
        let drain_ms = Arc::new(AtomicU64::new(config.engine.drain_ms));
        Self { drain_ms, log: Arc::new(Mutex::new(config.log)) }
    }

    /// Goes by this configuration from now on.
    pub(crate) fn replace(&self, config: &Config) {
        self.drain_ms.store(config.engine.drain_ms, Ordering::Relaxed);
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = config.log;
    }

    /// Time peers have to leave at the end, in milliseconds.
    pub(crate) fn drain_ms(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.drain_ms)
    }

    /// Level and form of its log.
    pub(crate) fn log(&self) -> LogSettings {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
