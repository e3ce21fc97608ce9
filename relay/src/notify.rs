//! What a service manager is told: systemd's notification protocol.
//!
//! Source: sd_notify(3), systemd.service(5) `Type=notify-reload`. The manager names a datagram
//! socket in `NOTIFY_SOCKET`, by path or, with `@` before it, by abstract name. Nothing is ever
//! waited for: a manager that does not listen is none of a relay's business.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::getpid;
use rustix::time::{ClockId, clock_gettime};

/// Tells the service manager how the relay is, where there is one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notifier(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How often it wants to hear that the relay is alive.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The manager that the environment names; nobody when it names none.
    ///
    /// # Errors
    /// When the named socket has no address, or none can be made to send from.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let read = |name| std::env::var(name).ok();
        let watchdog = watchdog(read("WATCHDOG_USEC"), read("WATCHDOG_PID"), own_pid());
        Self::to(&name, watchdog)
    }

    fn to(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some(Arc::new(Manager { socket, address, watchdog }))))
    }

    /// Everything is bound and served.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=Serving.");
    }

    /// Files are read again; [`Self::ready`] follows.
    pub(crate) fn reloading(&self) {
        // The manager tells this reload from others by the time.
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
    }

    /// Peers are told to go, and the process ends soon.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Letting peers go.");
    }

    /// Says that the relay is alive, twice as often as the manager wants to hear it. It is the
    /// control plane's thread that says so: one that is stuck says nothing. Never ends.
    pub(crate) async fn watch(&self) {
        let Some(watchdog) = self.0.as_ref().and_then(|manager| manager.watchdog) else {
            return std::future::pending().await;
        };
        let mut alive = tokio::time::interval(watchdog / 2);
        alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            alive.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, state: &str) {
        if let Some(manager) = &self.0 {
            // A manager that is gone or behind is not waited for.
            let _unheard = manager.socket.send_to_addr(state.as_bytes(), &manager.address);
        }
    }
}

/// How often the process of that number has to say that it is alive.
fn watchdog(usec: Option<String>, pid: Option<String>, own: String) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid == own);
    let usec = usec?.parse().ok().filter(|&usec| is_ours && usec > 0)?;
    Some(Duration::from_micros(usec))
}

fn own_pid() -> String {
    getpid().as_raw_nonzero().to_string()
}

fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The clock counts from boot.
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that listens there, and what it heard.
    fn heard(listener: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let len = listener.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    fn tells(name: &OsStr, listener: &UnixDatagram) {
        let notifier = Notifier::to(name, None).unwrap();
        notifier.ready();
        assert_eq!(heard(listener), "READY=1\nSTATUS=Serving.");
        let before = monotonic_us();
        notifier.reloading();
        let said = heard(listener);
        let at: u64 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=monotonic_us()).contains(&at), "{said}");
        notifier.stopping();
        assert!(heard(listener).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_manager_at_a_path_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        tells(path.as_os_str(), &listener);
    }

    #[test]
    fn a_manager_with_an_abstract_name_is_told() {
        let name = format!("relay-notify-{}", own_pid());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        tells(OsStr::new(&format!("@{name}")), &listener);
    }

    #[test]
    fn a_manager_that_is_gone_or_absent_keeps_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        Notifier::to(gone.as_os_str(), None).unwrap().ready();
        Notifier::default().stopping();
    }

    #[test]
    fn only_a_watchdog_for_this_process_is_served() {
        let own = || "7".to_owned();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(watchdog(None, None, own()), None);
        assert_eq!(watchdog(text("2000000"), None, own()), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(text("5"), text("7"), own()), Some(Duration::from_micros(5)));
        assert_eq!(watchdog(text("5"), text("8"), own()), None);
        assert_eq!(watchdog(text("0"), None, own()), None);
        assert_eq!(watchdog(text("soon"), None, own()), None);
    }

    #[tokio::test]
    async fn the_watchdog_hears_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str(), Some(Duration::from_millis(4))).unwrap();
        let hears = tokio::task::spawn_blocking(move || [heard(&listener), heard(&listener)]);
        tokio::select! {
            () = notifier.watch() => unreachable!("it never ends"),
            said = hears => assert_eq!(said.unwrap(), ["WATCHDOG=1", "WATCHDOG=1"]),
        }
    }
}
