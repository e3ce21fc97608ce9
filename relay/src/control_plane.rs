//! A control plane by itself: it decides for data planes that connect to it.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context, Result};
use relay_controller::{Controller, Reporter, SystemClock};
use relay_link::{DoorSocket, DoorTls, Hub, HubSettings, Notes, Planes, Versions};

use crate::admin_socket;
use crate::apart::time;
use crate::config::{ControlListen, Parsed};
use crate::control_api;
use crate::door_certificates::DoorCertificates;
use crate::link_credentials::{LINK, LinkCredentials, listening_tls};
use crate::notify::Notifier;
use crate::orphans::Orphans;
use crate::reload::Reload;
use crate::settings::settings;
use crate::signals::{Hangups, Signals};
use crate::unix_socket::{self, SocketFile};

/// Decides until a signal ends it. Data planes go on without it, and come back to whoever listens
/// there next.
///
/// Errors: an address that cannot be bound, certificates that cannot be used.
pub(crate) fn run(parsed: &Parsed) -> Result<()> {
    let config = &parsed.config;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .context("cannot start the control plane's runtime")?;
    let _entered = runtime.enter();
    // Before anything is bound: whoever sees it may send a signal at once.
    let manager = Notifier::from_environment().context("NOTIFY_SOCKET")?;
    let mut signals = Signals::watch().context("cannot watch signals")?;
    let hangups = Hangups::watch(manager.clone()).context("cannot watch signals")?;
    let orphans = Orphans::watch().context("cannot watch signals")?;
    let listen = config.control.listen.as_ref().context("RELAY_CONTROL_LISTEN is required")?;
    let certificates = match (listen, listening_tls(&config.control)) {
        (ControlListen::Tcp(_), Some(files)) => {
            Some(Arc::new(DoorCertificates::load(files, &LINK)?))
        }
        _ => None,
    };
    let (socket, _file) = bind(listen, certificates.clone())?;
    let credentials = LinkCredentials::new(&config.control);
    let door = config.admin.listen.as_ref().map(admin_socket::bind).transpose()?;
    let clock = Arc::new(SystemClock);
    let (news, planes) = Planes::channel();
    let mut settings = settings(config, config.listen.port, "apart");
    // A later life of this control plane has newer values, whoever had some in force before.
    let unix_ms = u64::try_from(relay_controller::Clock::unix_ms(clock.as_ref())).unwrap_or(1);
    Arc::make_mut(&mut settings.limits).version = unix_ms;
    Arc::make_mut(&mut settings.routes).version = unix_ms;
    let link = relay_link::apart(planes);
    let mut controller = Controller::new(settings, link, clock.clone(), io::stdout())?;
    let mut _door_file = None;
    if let Some((socket, file)) = door {
        controller.listen_to_operators(socket);
        _door_file = file;
    }
    let mut _api_file = None;
    if let Some(api) = control_api::bind(&config.control_api)? {
        api.report_to(controller.reporter());
        let served = controller.serve_control(api.api);
        served.context("RELAY_AUDIT_LOG: cannot be opened")?;
        _api_file = api.file;
    }
    let (mut reload, reloads) =
        Reload::new(None, Vec::new(), Some(controller.applier()), controller.reporter());
    controller.reload_through(reloads);
    reload.go_by(parsed.clone());
    reload.rotate(credentials.clone());
    if let Some(certificates) = &certificates {
        certificates.report_to(controller.reporter());
    }
    let hub = HubSettings {
        life: life()?,
        tokens: credentials.asked(),
        versions: Versions::CURRENT,
        time: time(clock),
        notes: notes(controller.reporter()),
    };
    controller.announce(format!("[relay] deciding for data planes at {listen}"));
    let hub = Hub::new(hub, news).serve(socket);
    manager.ready();
    runtime.block_on(async {
        let serving = tokio::spawn(hub);
        let stop = async {
            signals.next().await;
            manager.stopping();
        };
        tokio::select! {
            _ended = controller.run(stop, std::future::pending()) => Ok(()),
            served = serving => served?.context("RELAY_CONTROL_LISTEN: data planes cannot connect"),
            () = reload.run(hangups) => Ok(()),
            () = orphans.bury() => Ok(()),
            () = manager.watch() => Ok(()),
        }
    })
}

/// What the link has to tell, for the controller's log and counters.
pub(crate) fn notes(reporter: Reporter) -> Notes {
    Notes(Arc::new(move |counter, entry| reporter.report(counter, entry)))
}

/// Not 0, and never twice.
fn life() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("the operating system gave no randomness")?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

fn bind(
    listen: &ControlListen,
    certificates: Option<Arc<DoorCertificates>>,
) -> Result<(DoorSocket, Option<SocketFile>)> {
    let named = || format!("RELAY_CONTROL_LISTEN: cannot listen on {listen}");
    match listen {
        ControlListen::Tcp(address) => {
            let listener = TcpListener::bind(address).with_context(named)?;
            let tls = certificates.map(|held| DoorTls::new(move || held.newest()));
            Ok((DoorSocket::Tcp { listener, tls }, None))
        }
        ControlListen::Unix(path) => {
            let (socket, file) = unix_socket::bind(path, MODE).with_context(named)?;
            Ok((DoorSocket::Unix(UnixListener::from(socket)), Some(file)))
        }
    }
}

/// Who may connect: the relay's user alone.
const MODE: u32 = 0o600;

/// Blocking calls at a time: name resolution and reading of certificates.
const BLOCKING_THREADS_MAX: usize = 4;
