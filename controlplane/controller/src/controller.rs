//! The actor that owns every decision of the control plane.

use std::collections::HashSet;
use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Command, Event, ShardId};
use relay_link::Link;

use crate::clock::Clock;
use crate::settings::Settings;

/// The control plane of one relay. One task runs it; nothing else writes its state.
pub struct Controller {
    settings: Arc<Settings>,
    link: Link,
    clock: Arc<dyn Clock>,
}

/// Why a controller cannot start. The operator's to mend; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Key checks were asked for without saying where the keys are.
    #[error("RELAY_ADMISSION={0} needs RELAY_JWKS_URL")]
    NoKeySet(&'static str),
}

/// How a controller ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Every shard has stopped.
    Stopped,
    /// The deadline passed with shards still running.
    DeadlinePassed,
}

impl Controller {
    /// A controller that has not started yet. `log` receives one JSON line per event, on a thread of its
    /// own; the program passes stdout.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(
        settings: Settings,
        link: Link,
        clock: Arc<dyn Clock>,
        _log: impl Write + Send + 'static,
    ) -> Result<Self, StartError> {
        if settings.jwks.is_none() && settings.admission != crate::Admission::Validate {
            return Err(StartError::NoKeySet(settings.admission.name()));
        }
        Ok(Self {
            settings: Arc::new(settings),
            link,
            clock,
        })
    }

    /// Decides until `shutdown` completes, then stops the shards and waits for them, at most the drain
    /// time and a second.
    ///
    /// Needs a tokio runtime with time and I/O enabled.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Ended {
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                event = self.link.events.next() => if event.is_none() { break },
            }
        }
        self.stop().await
    }

    async fn stop(&mut self) -> Ended {
        let _started = self.clock.now();
        let deadline_ms = u64::try_from(self.settings.drain.as_millis()).unwrap_or(u64::MAX);
        let mut running: HashSet<ShardId> = self.link.shards.ids().collect();
        for shard in self.link.shards.ids() {
            let sent = self
                .link
                .shards
                .send_last(shard, Command::Stop { deadline_ms });
            if sent.is_err() {
                running.remove(&shard);
            }
        }
        let wait = async {
            while !running.is_empty() {
                match self.link.events.next().await {
                    Some(Event::Stopped { shard }) => drop(running.remove(&shard)),
                    Some(_) => {}
                    None => return,
                }
            }
        };
        match tokio::time::timeout(self.settings.drain + STOP_GRACE, wait).await {
            Ok(()) => Ended::Stopped,
            Err(_) => Ended::DeadlinePassed,
        }
    }
}

/// What a shard may take beyond its deadline to end its thread.
const STOP_GRACE: Duration = Duration::from_secs(1);
