//! Puts the planes together: listener, shards, controller, signals.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use relay_contract::ShardId;
use relay_controller::{Applier, Clock, Controller, Ended, Reloads, Reporter, SystemClock};
use relay_shard::{HealthFacts, ShardConfig, VerboseHealth};
use relay_wire::http1::UpgradeRules;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::activation;
use crate::admin_socket;
use crate::apart::Apart;
use crate::config::{self, Config, Mode, Parsed, Role};
use crate::control_api;
use crate::control_plane;
use crate::core_dumps;
use crate::cores;
use crate::link_credentials::LinkCredentials;
use crate::listener::{Listener, Listeners, Place};
use crate::notify::Notifier;
use crate::orphans::Orphans;
use crate::own_settings::OwnSettings;
use crate::reload::Reload;
use crate::screen;
use crate::settings::settings;
use crate::shards::Shards;
use crate::signals::{Hangups, Signals};
use crate::tls::{Loader, Renewal};
use crate::unix_socket::SocketFile;
use crate::vanished;

/// Blocking calls at a time: name resolution and reading of certificates.
const BLOCKING_THREADS_MAX: usize = 4;

/// `relay serve`: runs until a signal ends it.
pub(crate) fn run(parsed: &Parsed) -> Result<()> {
    for warning in &parsed.warnings {
        screen::say(io::stderr(), format_args!("relay: warning: {warning}\n"));
    }
    match parsed.config.engine.core_dumps {
        true => core_dumps::allow().context("cannot allow core dumps")?,
        false => core_dumps::forbid_for_good().context("cannot forbid core dumps")?,
    }
    if parsed.config.control.role == Role::ControlPlane {
        return control_plane::run(parsed);
    }
    let handed = activation::take_sockets()?;
    let bound: Vec<_> = handed.iter().filter_map(|listener| listener.place.address()).collect();
    if let Some(warning) = config::of_handed(&parsed.config, &bound)? {
        screen::say(io::stderr(), format_args!("relay: warning: {warning}\n"));
    }
    let mut relay = Relay::start(&parsed.config, handed, io::stdout())?;
    relay.reload.go_by(parsed.clone());
    if let Some(reason) = relay.fallback() {
        let text = format_args!("relay: warning: io_uring is not used: {reason}\n");
        screen::say(io::stderr(), text);
    }
    let greeting = greeting(&parsed.config, &relay.places);
    // It costs memory alone if it fails.
    let _kept = relay_driver::unmap_code();
    // Through the log's queue: whoever reads stdout may be in no hurry, or gone.
    relay.mind.announce(greeting);
    relay.run()
}

/// The line for people, once everything is bound.
fn greeting(config: &Config, places: &[Place]) -> String {
    let scheme = if config.listen.tls.enabled { "https" } else { "http" };
    let shown = places.iter().map(|place| match place {
        Place::Internet(address) => format!("{scheme}://{address}"),
        Place::Unix(_) => place.to_string(),
    });
    format!(
        "[relay] listening on {} (ws={}, server={})",
        shown.collect::<Vec<_>>().join(" and "),
        config.listen.public_ws_url,
        config.platform.server_url
    )
}

/// Who decides for the shards.
enum Mind {
    /// This process.
    Own(Box<Controller>),
    /// Another one.
    Apart(Box<Apart>),
}

impl Mind {
    fn announce(&mut self, line: String) {
        match self {
            Self::Own(controller) => controller.announce(line),
            Self::Apart(apart) => apart.announce(line),
        }
    }

    fn reporter(&self) -> Reporter {
        match self {
            Self::Own(controller) => controller.reporter(),
            Self::Apart(apart) => apart.reporter(),
        }
    }

    /// Where settings go that are read again; another process reads its own.
    fn applier(&mut self) -> Option<Applier> {
        match self {
            Self::Own(controller) => Some(controller.applier()),
            Self::Apart(_) => None,
        }
    }

    fn reload_through(&mut self, reloads: Reloads) {
        match self {
            Self::Own(controller) => controller.reload_through(reloads),
            // Its operators are asked about it elsewhere.
            Self::Apart(_) => drop(reloads),
        }
    }

    /// Decides until `shutdown`, then lets the peers leave and stops the shards; whether all of
    /// them have stopped. `hurry` leaves the peers a moment.
    async fn run(
        self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<bool> {
        match self {
            Self::Own(controller) => Ok(controller.run(shutdown, hurry).await == Ended::Stopped),
            Self::Apart(apart) => apart.run(shutdown, hurry).await,
        }
    }
}

/// A relay that listens. Nothing is admitted before [`Relay::run`].
pub(crate) struct Relay {
    runtime: Runtime,
    signals: Signals,
    hangups: Hangups,
    /// Whoever started the program and wants to know how it is.
    manager: Notifier,
    orphans: Orphans,
    reload: Reload,
    mind: Mind,
    shards: Shards,
    address: Option<SocketAddr>,
    places: Vec<Place>,
    /// Removed at the end, when nobody accepts any more.
    files: Vec<SocketFile>,
    stop: UnboundedSender<()>,
    stops: UnboundedReceiver<()>,
}

impl Relay {
    /// Binds what is configured, beside the sockets that were handed over, and starts the shards.
    /// The journal goes to `log`, one JSON line per entry.
    ///
    /// Signals are watched from here on, so that one that comes early is not lost.
    ///
    /// Errors: a certificate that cannot be used, a port that cannot be bound, a driver that the
    /// machine does not have. Nothing is left running.
    pub(crate) fn start(
        config: &Config,
        handed: Vec<Listener>,
        log: impl Write + Send + 'static,
    ) -> Result<Self> {
        cores::raise_descriptor_limit();
        let loader = config.listen.tls.enabled.then(|| Loader::new(&config.listen.tls));
        let loader = loader.transpose()?;
        let tls = loader.as_ref().map(usable).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()
            .context("cannot start the control plane's runtime")?;
        // Before the port is bound: whoever sees it may send a signal at once.
        let manager = Notifier::from_environment().context("NOTIFY_SOCKET")?;
        let (signals, hangups, orphans) = {
            let _entered = runtime.enter();
            let hangups = || Hangups::watch(manager.clone());
            let watch = || io::Result::Ok((Signals::watch()?, hangups()?, Orphans::watch()?));
            watch().context("cannot watch signals")?
        };
        let listeners = Listeners::bind(&config.listen, handed)?;
        for listener in listeners.iter() {
            vanished::look_out(&listener.socket, &config.tcp)
                .context("cannot set TCP keepalive")?;
        }
        let address = listeners.address();
        let places = listeners.iter().map(|listener| listener.place.clone()).collect();
        let decides_here = config.control.role == Role::All;
        let own_door = config.admin.listen.as_ref().filter(|_| decides_here);
        let door = own_door.map(admin_socket::bind).transpose()?;
        let control = match decides_here {
            true => control_api::bind(&config.control_api)?,
            false => None,
        };
        let clock = Arc::new(SystemClock);
        let first = shard_config(config, tls, clock.as_ref())?;
        let configs = (0..config.engine.shard_count)
            .map(|shard| ShardConfig { shard: ShardId(shard), ..first.clone() })
            .collect();
        let (stop, stops) = unbounded_channel();
        let (mut shards, link) = Shards::start(configs, &config.engine, &listeners, &stop)?;
        let port = address.map_or(config.listen.port, |address| address.port());
        let mut files = listeners.into_files();
        let mut of_its_own = None;
        let mut mind = if decides_here {
            let settings = settings(config, port, shards.driver);
            let mut controller = Controller::new(settings, link, clock, log)?;
            if let Some((socket, file)) = door {
                controller.listen_to_operators(socket);
                files.extend(file);
            }
            if let Some(control) = control {
                control.report_to(controller.reporter());
                let served = controller.serve_control(control.api);
                served.context("RELAY_AUDIT_LOG: cannot be opened")?;
                files.extend(control.file);
            }
            Mind::Own(Box::new(controller))
        } else {
            let own = (OwnSettings::of(config), LinkCredentials::new(&config.control));
            let apart = Apart::new(config, link, clock, shards.driver, (&own.0, &own.1), log)?;
            of_its_own = Some(own);
            Mind::Apart(Box::new(apart))
        };
        let doors = std::mem::take(&mut shards.doors);
        let reporter = mind.reporter();
        let renewal = loader.map(|loader| Renewal::new(loader, doors.clone(), reporter.clone()));
        let (mut reload, reloads) = Reload::new(renewal, doors, mind.applier(), reporter);
        if let Some((own, credentials)) = of_its_own {
            reload.keep_own(own);
            reload.rotate(credentials);
        }
        mind.reload_through(reloads);
        Ok(Self {
            runtime,
            signals,
            hangups,
            manager,
            orphans,
            reload,
            mind,
            shards,
            address,
            places,
            files,
            stop,
            stops,
        })
    }

    /// Where it listens over TCP, if it does.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What moves its bytes.
    pub(crate) fn driver(&self) -> &'static str {
        self.shards.driver
    }

    /// Why io_uring is not used although it was preferred.
    pub(crate) fn fallback(&self) -> Option<&str> {
        self.shards.fallback.as_deref()
    }

    /// Ends [`Relay::run`] as a signal would, from any thread.
    pub(crate) fn stopper(&self) -> UnboundedSender<()> {
        self.stop.clone()
    }

    /// Serves until told to stop, then lets the peers leave. A second signal leaves them a moment,
    /// a third ends the process.
    ///
    /// Errors: a shard failed.
    pub(crate) fn run(self) -> Result<()> {
        let Self { runtime, mut signals, mind, shards, mut stops, manager, .. } = self;
        let (_stop, _files) = (self.stop, self.files);
        let reload = self.reload.run(self.hangups);
        let orphans = self.orphans.bury();
        cores::step_back();
        manager.ready();
        let ended = runtime.block_on(async {
            let (told, wait) = tokio::sync::oneshot::channel::<()>();
            let (hurried, hurry) = tokio::sync::oneshot::channel::<()>();
            // A sender that is gone means the same.
            let mind = mind.run(async { drop(wait.await) }, async {
                drop(hurry.await);
            });
            let requests = async {
                requested(&mut signals, &mut stops).await;
                manager.stopping();
                let _ended = told.send(());
                signals.next().await;
                let _ended = hurried.send(());
                signals.next().await;
            };
            tokio::select! {
                ended = mind => Some(ended),
                () = requests => None,
                () = reload => None,
                () = orphans => None,
                () = manager.watch() => None,
            }
        });
        // A look-up that hangs must not keep the process.
        runtime.shutdown_background();
        match ended.transpose()? {
            Some(true) => shards.join(),
            // What still runs ends with the process.
            Some(false) | None => shards.join_ended(),
        }
    }
}

/// What the files are, with what there is to say about them.
fn usable(loader: &Loader) -> Result<Arc<rustls::ServerConfig>> {
    let loaded = loader.load()?;
    for warning in loaded.warnings {
        screen::say(io::stderr(), format_args!("relay: warning: {warning}\n"));
    }
    Ok(loaded.server)
}

async fn requested(signals: &mut Signals, stops: &mut UnboundedReceiver<()>) {
    tokio::select! {
        () = signals.next() => {}
        _ = stops.recv() => {}
    }
}

fn shard_config(
    config: &Config,
    tls: Option<Arc<rustls::ServerConfig>>,
    clock: &dyn Clock,
) -> Result<ShardConfig> {
    let mut hash_key = [0; 16];
    getrandom::fill(&mut hash_key).context("the operating system gave no randomness")?;
    let started = clock.now();
    let unix_ms = u64::try_from(clock.unix_ms()).unwrap_or(0);
    let verbose = config.admin.verbose.then(|| VerboseHealth {
        tls_enabled: config.listen.tls.enabled,
        relay_mode: config.listen.mode.name(),
        relay_id_json: json_content(config.relay_id.as_str()),
    });
    Ok(ShardConfig {
        shard: ShardId(0),
        limits: Arc::new(config.limits.clone()),
        hash_key,
        upgrade_rules: UpgradeRules {
            query_token_allowed: config.listen.mode == Mode::Dev,
            allowed_origins: config.capacity.allowed_origins.clone(),
        },
        trusted_proxies: config.capacity.trusted_proxies.clone(),
        proxy_protocol: config.capacity.proxy_protocol,
        health: HealthFacts { started, verbose },
        unix_ms_at_origin: unix_ms.saturating_sub(started.as_millis()),
        receive_buffers: usize::from(config.engine.driver_config().buffer_count),
        tls,
    })
}

/// Text as the content of a JSON string, without the quotes.
fn json_content(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
