//! Settings that change while the relay runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{Command, Counter, Limits, Routes, Secret, ShardId, Versioned};
use tokio::sync::{mpsc, oneshot};

use crate::admin::Gate;
use crate::control::ControlAccess;
use crate::controller::{Controller, StartError};
use crate::decide::Decider;
use crate::platform_http::CallLimits;
use crate::settings::{AdminAccess, Admission, Caps, Ending, JwksSettings, LogSettings, Settings};
use crate::validate::ValidatorError;

/// What can change without a restart. Taken whole or not at all.
///
/// The versions in `limits` and `routes` do not count: the controller numbers what it applies.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    /// Bounds of every shard. What memory each has stays as it was.
    pub limits: Limits,
    /// Workspaces with limits of their own, and targets at other relays.
    pub routes: Routes,
    /// Caps judged at every upgrade. Connections beyond a lower one stay; nobody joins them.
    pub caps: Caps,
    /// Level and format of the log. How many entries `/logs` remembers stays as it was.
    pub log: LogSettings,
    /// The tokens of the operators' endpoints. Whether and where these are stays as it was.
    pub admin: AdminAccess,
    /// The tokens of the control API. Without any word about it they stay as they are, and whether
    /// and where it is served in any case.
    pub control: Option<ControlAccess>,
    /// Whether `/state` shows identifiers of clients and targets.
    pub state_includes_client_ids: bool,
    /// The shared secret of relay and platform.
    pub internal_key: Option<Secret>,
    /// The one before it.
    pub internal_key_previous: Option<Secret>,
    /// Who decides about a token.
    pub admission: Admission,
    /// What tokens are checked against locally. The keys of an issuer that is none any more count
    /// as withdrawn.
    pub jwks: Option<JwksSettings>,
    /// What becomes of connections whose token expires. Those whose token has expired already are
    /// found within half a minute.
    pub expiry: Ending,
    /// How long an acceptance of the platform is used again, if at all.
    pub decision_cache: Option<Duration>,
    /// The whole of a validate call.
    pub admission_timeout: Duration,
    /// Bytes of a validate answer.
    pub admission_response_bytes_max: usize,
    /// The whole of any other internal call.
    pub internal_timeout: Duration,
    /// Bytes of the answer to any other internal call.
    pub internal_response_bytes_max: usize,
    /// Time peers have to leave at shutdown.
    pub drain: Duration,
}

impl LiveSettings {
    /// What of these settings can change.
    pub fn of(settings: &Settings) -> Self {
        Self {
            limits: Limits::clone(&settings.limits),
            routes: Routes::clone(&settings.routes),
            caps: settings.caps,
            log: settings.log,
            admin: settings.admin.clone(),
            state_includes_client_ids: settings.state_includes_client_ids,
            internal_key: settings.internal_key.clone(),
            internal_key_previous: settings.internal_key_previous.clone(),
            control: None,
            admission: settings.admission,
            jwks: settings.jwks.clone(),
            expiry: settings.expiry,
            decision_cache: settings.decision_cache,
            admission_timeout: settings.admission_timeout,
            admission_response_bytes_max: settings.admission_response_bytes_max,
            internal_timeout: settings.internal_timeout,
            internal_response_bytes_max: settings.internal_response_bytes_max,
            drain: settings.drain,
        }
    }

    /// What a validate call may cost.
    fn validate_limits(&self) -> CallLimits {
        CallLimits {
            timeout: self.admission_timeout,
            response_bytes_max: self.admission_response_bytes_max,
        }
    }
}

/// Why settings were not applied. Nothing of them is in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Validate calls could not be made with them.
    #[error(transparent)]
    Validator(#[from] ValidatorError),
    /// Key sets could not be fetched with them.
    #[error(transparent)]
    Keys(#[from] StartError),
    /// There is no controller any more.
    #[error("the relay is stopping")]
    Stopping,
}

/// An order to apply settings, and where the version goes that they got.
pub(crate) struct Order {
    live: Arc<LiveSettings>,
    reply: oneshot::Sender<Result<u64, ApplyError>>,
}

/// Takes settings to a running controller.
#[derive(Clone, Debug)]
pub struct Applier(mpsc::Sender<Order>);

impl Applier {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Order>) {
        // Orders wait for each other anyway.
        let (sender, orders) = mpsc::channel(1);
        (Self(sender), orders)
    }

    /// Puts settings in force; the version they got.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing has changed then.
    pub async fn apply(&self, live: Arc<LiveSettings>) -> Result<u64, ApplyError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send(Order { live, reply }).await;
        sent.map_err(|_| ApplyError::Stopping)?;
        answer.await.map_err(|_| ApplyError::Stopping)?
    }
}

/// Which versions the shards have said to be in force, and which of them have to be told again.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    versions: BTreeMap<(ShardId, Versioned), u64>,
    /// Shards whose lane took no command when there was a new version.
    owed: BTreeSet<ShardId>,
    /// Shards whose lane did not take the order to drain, or to admit again.
    owed_drain: BTreeSet<ShardId>,
}

impl Acknowledged {
    pub(crate) fn note(&mut self, shard: ShardId, value: Versioned, version: u64) {
        self.versions.insert((shard, value), version);
    }

    /// Shards that are gone have nothing in force.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(ShardId) -> bool) {
        self.versions.retain(|(shard, _), _| !is_gone(*shard));
        self.owed.retain(|shard| !is_gone(*shard));
        self.owed_drain.retain(|shard| !is_gone(*shard));
    }

    /// Whether a shard has said that it keeps to this version, or to a newer one.
    pub(crate) fn keeps(&self, shard: ShardId, value: Versioned, version: u64) -> bool {
        version == 0 || self.versions.get(&(shard, value)).is_some_and(|&held| held >= version)
    }

    /// A shard has to be told whether it is drained.
    pub(crate) fn owe_drain(&mut self, shard: ShardId) {
        self.owed_drain.insert(shard);
    }

    /// Whether a shard still has to be told.
    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty() || !self.owed_drain.is_empty()
    }

    /// The version of the settings that every shard which ever answered has in force at least.
    pub(crate) fn least(&self) -> Option<u64> {
        let settings = self.versions.iter().filter(|((_, value), _)| match value {
            Versioned::Limits | Versioned::Routes => true,
            Versioned::Drain => false,
        });
        settings.map(|(_, &version)| version).min()
    }
}

impl Controller {
    /// What is in force of the settings that can change.
    pub fn live(&self) -> LiveSettings {
        LiveSettings::of(&self.settings)
    }

    /// For whoever reads the configuration again.
    pub fn applier(&mut self) -> Applier {
        let (applier, orders) = Applier::channel();
        self.orders = orders;
        applier
    }

    /// Puts settings in force: caps, log, tokens and keys here and now, limits and routes on every
    /// shard as soon as it is told. The version they got.
    ///
    /// Open connections stay. Upgrades being decided may still be judged by what was before.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing has changed then.
    pub fn apply(&mut self, live: &LiveSettings) -> Result<u64, ApplyError> {
        let keys = [&live.internal_key, &live.internal_key_previous].into_iter().flatten();
        let validator = self.decider.validator.with(keys, live.validate_limits())?;
        let mut settings = Settings::clone(&self.settings);
        settings.admission = live.admission;
        settings.jwks = live.jwks.clone();
        settings.internal_timeout = live.internal_timeout;
        settings.internal_response_bytes_max = live.internal_response_bytes_max;
        let ring = self.ring_for(&settings)?;
        self.version += 1;
        let admin = AdminAccess {
            token: live.admin.token.clone(),
            previous_token: live.admin.previous_token.clone(),
            ..settings.admin
        };
        self.gate = Gate::new(&admin);
        self.judge.set_caps(live.caps);
        self.journal.set_style(live.log.level, live.log.format);
        settings.admin = admin;
        settings.caps = live.caps;
        settings.log = LogSettings { entries_max: settings.log.entries_max, ..live.log };
        settings.state_includes_client_ids = live.state_includes_client_ids;
        settings.internal_key = live.internal_key.clone();
        settings.internal_key_previous = live.internal_key_previous.clone();
        settings.drain = live.drain;
        settings.admission_timeout = live.admission_timeout;
        settings.admission_response_bytes_max = live.admission_response_bytes_max;
        settings.expiry = live.expiry;
        settings.decision_cache = live.decision_cache;
        let judges_otherwise = settings.admission != self.settings.admission
            || settings.jwks != self.settings.jwks
            || settings.decision_cache != self.settings.decision_cache;
        if judges_otherwise {
            self.decisions.set_lifetime(live.decision_cache);
        }
        self.doubts.set_rates(live.caps.undecided_per_second, live.caps.asked_at_once);
        if let Some(tokens) = &live.control {
            self.desk.replace_tokens(tokens);
        }
        let version = self.version;
        // The memory was divided when the shards were made.
        let memory_bytes_max = settings.limits.memory_bytes_max;
        let limits = Limits { version, memory_bytes_max, ..live.limits.clone() };
        let routes = Routes { version, ..live.routes.clone() };
        settings.limits = Arc::new(limits);
        settings.routes = Arc::new(routes);
        self.settings = Arc::new(settings);
        self.decider = Arc::new(Decider {
            admission: live.admission,
            ring: ring.clone(),
            unknown_keys: live.jwks.as_ref().map(|jwks| jwks.unknown_keys).unwrap_or_default(),
            validator: Arc::new(validator),
            ..Decider::clone(&self.decider)
        });
        self.put_keys_in_force(ring);
        for shard in self.link.shards.ids() {
            self.tell_versions(shard);
        }
        Ok(version)
    }

    pub(crate) fn on_order(&mut self, order: Order) {
        let Order { live, reply } = order;
        // Whoever asked may be gone.
        let _ = reply.send(self.apply(&live));
    }

    /// Gives a shard the limits and routes in force. One that takes no command now is told later.
    pub(crate) fn tell_versions(&mut self, shard: ShardId) {
        let limits = Command::SetLimits(Arc::clone(&self.settings.limits));
        let routes = Command::SetRoutes(Arc::clone(&self.settings.routes));
        let told = self.link.shards.send(shard, limits).is_ok()
            && self.link.shards.send(shard, routes).is_ok();
        if !told {
            self.counters.count(Counter::CommandsUndelivered);
            self.acknowledged.owed.insert(shard);
        }
    }

    /// Gives every shard its first routes; limits it was born with.
    pub(crate) fn tell_routes(&mut self) {
        for shard in self.link.shards.ids() {
            let routes = Command::SetRoutes(Arc::clone(&self.settings.routes));
            if self.link.shards.send(shard, routes).is_err() {
                self.counters.count(Counter::CommandsUndelivered);
                self.acknowledged.owed.insert(shard);
            }
        }
    }

    /// Tells those again who could not be told.
    pub(crate) fn tell_owed(&mut self) {
        for shard in std::mem::take(&mut self.acknowledged.owed) {
            // A shard that has ended owes nothing any more.
            if self.running.contains(&shard) {
                self.tell_versions(shard);
            }
        }
        for shard in std::mem::take(&mut self.acknowledged.owed_drain) {
            if self.running.contains(&shard) {
                self.tell_of_drain(shard);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_everywhere_is_the_least_of_those_who_are_there() {
        let mut acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.least(), None);
        for (shard, version) in [(0, 4), (1, 2)] {
            for value in [Versioned::Limits, Versioned::Routes] {
                acknowledged.note(ShardId(shard), value, version);
            }
        }
        acknowledged.note(ShardId(1), Versioned::Limits, 3);
        acknowledged.note(ShardId(1), Versioned::Drain, 1);
        assert_eq!(acknowledged.least(), Some(2), "its routes are behind");
        acknowledged.owed.insert(ShardId(1));
        acknowledged.forget(|shard| shard == ShardId(1));
        assert_eq!(acknowledged.least(), Some(4));
        assert!(!acknowledged.owes());
    }
}
