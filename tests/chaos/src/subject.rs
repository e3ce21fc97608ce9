//! The relay under attack.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use relay_e2e::{Relay, write_certificate};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit, test_kill_process};
use tempfile::TempDir;

use crate::door::Door;
use crate::exposition::Exposition;
use crate::platform::Platform;

/// A relay, started here or somebody else's.
pub struct Subject {
    door: Door,
    process: Option<Pid>,
    admin_token: Option<String>,
    /// Several threads look at the subject; the child itself is one thread's business.
    relay: Option<Mutex<Relay>>,
    uptime_ms: u64,
    /// Its certificate, which it would read again.
    _certificate: Option<TempDir>,
}

impl Subject {
    /// Starts the program with this platform behind it, limits that let the control pair talk, and
    /// whatever `variables` say besides.
    pub fn start(program: &Path, platform: &Platform, variables: &[(&str, &str)]) -> Result<Self> {
        let relay = serve(program, platform, variables)?;
        let door = Door::plain((Ipv4Addr::LOCALHOST, relay.port()).into());
        Self::own(relay, door, None)
    }

    /// The same behind TLS, with a certificate of its own.
    pub fn start_with_tls(
        program: &Path,
        platform: &Platform,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        write_certificate(dir.path())?;
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
        let [certificate_text, key_text] =
            [&certificate, &key].map(|path| path.display().to_string());
        let mut all = vec![
            ("RELAY_TLS", "1"),
            ("RELAY_TLS_CERT_PATH", certificate_text.as_str()),
            ("RELAY_TLS_KEY_PATH", key_text.as_str()),
        ];
        all.extend(variables);
        let relay = serve(program, platform, &all)?;
        let address = (Ipv4Addr::LOCALHOST, relay.port()).into();
        Self::own(relay, Door::tls(address, &certificate, "localhost")?, Some(dir))
    }

    fn own(relay: Relay, door: Door, certificate: Option<TempDir>) -> Result<Self> {
        Ok(Self {
            door,
            process: Pid::from_raw(i32::try_from(relay.id())?),
            admin_token: Some(Relay::ADMIN_TOKEN.to_owned()),
            relay: Some(Mutex::new(relay)),
            uptime_ms: 0,
            _certificate: certificate,
        })
    }

    /// A relay that runs already. Without its process id nobody can say how much memory it takes,
    /// without its admin token not what it counted.
    ///
    /// Errors: the address is not on loopback; this program attacks nothing else.
    pub fn running(door: Door, process: Option<i32>, admin_token: Option<String>) -> Result<Self> {
        let address = door.address();
        ensure!(
            address.ip().to_canonical().is_loopback(),
            "{address} is not on loopback; attacks go nowhere else (use 127.0.0.1:7781)"
        );
        let process = process.map(|id| Pid::from_raw(id).context("no process has the id 0"));
        let process = process.transpose()?;
        let (relay, _certificate) = (None, None);
        Ok(Self { door, process, admin_token, relay, uptime_ms: 0, _certificate })
    }

    /// The way in.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Whether it was started here.
    pub fn is_own(&self) -> bool {
        self.relay.is_some()
    }

    /// Fails when it has ended, or has been started anew since the last time.
    pub fn ensure_alive(&mut self) -> Result<()> {
        if let Some(relay) = &mut self.relay
            && let Ok(relay) = relay.get_mut()
            && let Some(status) = relay.exit_status()?
        {
            bail!("the relay ended: {status}");
        }
        if let Some(process) = self.process {
            test_kill_process(process).context("the relay's process is gone")?;
        }
        let health: serde_json::Value = serde_json::from_str(&self.door.get("/health", None)?)?;
        let uptime_ms = health["uptimeMs"].as_u64().context("/health has no uptimeMs")?;
        ensure!(uptime_ms >= self.uptime_ms, "the relay was started anew");
        self.uptime_ms = uptime_ms;
        Ok(())
    }

    /// What it has counted, where it may be asked.
    pub fn exposition(&self) -> Result<Option<Exposition>> {
        let token = self.admin_token.as_deref();
        token.map(|token| Exposition::scrape(&self.door, token)).transpose()
    }

    /// Has its resident memory at its highest counted anew from here on, where that is allowed.
    /// Source: proc(5), `/proc/PID/clear_refs`.
    pub fn forget_peak(&self) {
        if let Some(process) = self.process {
            // Else the peak is that of its whole life, which is no less.
            drop(fs::write(format!("/proc/{}/clear_refs", process.as_raw_nonzero()), "5"));
        }
    }

    /// Its resident memory at its highest, in KiB, where its process is known. Source: proc(5),
    /// `VmHWM`.
    pub fn peak_kib(&self) -> Result<Option<u64>> {
        let Some(process) = self.process else {
            return Ok(None);
        };
        let path = format!("/proc/{}/status", process.as_raw_nonzero());
        let status = fs::read_to_string(path).context("the relay's process is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(Some(number.context("no VmHWM")?.parse()?))
    }

    /// Processor time its process has taken. Source: proc(5), `/proc/PID/task/TID/schedstat`.
    ///
    /// Errors: its process is not known, or the kernel does not count.
    pub fn processor_time(&self) -> Result<Duration> {
        let process = self.process.context("its process is not known")?;
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()))? {
            // A thread may end meanwhile, and takes no more time then.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let first = text.split_whitespace().next().context("schedstat is empty")?;
            nanoseconds += first.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Asks it to end, and waits until it says that it does.
    ///
    /// Errors: it was not started here, or says nothing.
    pub fn terminate(&self) -> Result<()> {
        let relay = self.relay.as_ref().context("it was not started here")?;
        // A poisoned lock holds a child all the same.
        let mut relay = relay.lock().unwrap_or_else(PoisonError::into_inner);
        relay.signal(Signal::TERM)?;
        relay.wait_for("relay_draining").map(drop)
    }

    /// Waits for its end. Errors: it was not started here.
    pub fn ended(self) -> Result<ExitStatus> {
        let relay = self.relay.context("it was not started here")?;
        relay.into_inner().unwrap_or_else(PoisonError::into_inner).ended()
    }

    /// Leaves it so many descriptors beyond those it has open, or gives back what it had.
    pub fn limit_descriptors(&self, spare: Option<u64>) -> Result<()> {
        let process = self.process.context("its process is not known")?;
        let open = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero()))?.count();
        let own = getrlimit(Resource::Nofile);
        let current = spare.map_or(own.current, |spare| Some(open as u64 + spare));
        let limit = Rlimit { current, maximum: own.maximum };
        prlimit(Some(process), Resource::Nofile, limit).context("changing its limits")?;
        Ok(())
    }
}

fn serve(program: &Path, platform: &Platform, variables: &[(&str, &str)]) -> Result<Relay> {
    let url = platform.url();
    let mut all = vec![("SERVER_URL", url.as_str())];
    all.extend(ENVIRONMENT);
    all.extend(variables);
    Relay::serve_program(program, &all)
}

/// Limits that would end the control pair or hide an attack's effect behind another limit. Those
/// that attacks run into keep their defaults.
const ENVIRONMENT: [(&str, &str); 8] = [
    // A busy machine makes the platform, which goes last there, slow. Some attacks wait for the
    // first of them.
    ("RELAY_ADMISSION_TIMEOUT_MS", "5000"),
    ("RELAY_ADMISSION_WAIT_MS", "60000"),
    ("RELAY_KEX_INIT_RATE_PER_MINUTE", "600"),
    ("RELAY_RUNTIME_RATE_PER_MINUTE", "36000"),
    ("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", "36000"),
    ("RELAY_DAEMON_RUNTIME_RATE_PER_MINUTE", "36000"),
    ("RELAY_PRESENCE_SYNC_ENABLED", "0"),
    // Else nobody but root may look at its descriptors, or change how many it may have.
    ("RELAY_CORE_DUMPS", "1"),
];
