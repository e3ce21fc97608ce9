//! The process under test: a relay, a rival, or a pass-through that marks the limit.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::flow::Between;
use crate::processor;
use crate::secured::Certificate;

/// A running process, on a processor of its own. It ends with this value.
pub(crate) struct Subject {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What becomes of frames in it.
    pub(crate) between: Between,
    /// What lives as long as this one, when it is a proxy: whom it passes everything on to, and its
    /// configuration.
    _kept: Option<(Box<Subject>, TempDir)>,
}

/// Where the process runs and where the load does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors {
    pub(crate) subject: usize,
    pub(crate) load: usize,
}

impl Subject {
    /// Starts a relay whose limits do not get in the way.
    pub(crate) fn relay(
        program: &Path,
        driver: Option<&str>,
        platform: SocketAddr,
        processors: Processors,
        pending_bytes_max: usize,
    ) -> Result<Self> {
        Self::relay_with(program, driver, platform, processors, pending_bytes_max, None)
    }

    /// The same, with TLS where there is a certificate.
    pub(crate) fn relay_with(
        program: &Path,
        driver: Option<&str>,
        platform: SocketAddr,
        processors: Processors,
        pending_bytes_max: usize,
        certificate: Option<&Certificate>,
    ) -> Result<Self> {
        let pending = ("RELAY_MAX_PENDING_BYTES", pending_bytes_max.to_string());
        Self::relay_set(program, driver, platform, processors, certificate, &[pending])
    }

    /// The same, with settings of the caller's own before all others.
    pub(crate) fn relay_set(
        program: &Path,
        driver: Option<&str>,
        platform: SocketAddr,
        processors: Processors,
        certificate: Option<&Certificate>,
        settings: &[(&str, String)],
    ) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(program);
        command.arg("serve");
        set_environment(&mut command, address, platform);
        if let Some(driver) = driver {
            command.env("RELAY_DRIVER", driver);
        }
        if let Some(certificate) = certificate {
            command
                .env("RELAY_TLS", "1")
                .env("RELAY_TLS_CERT_PATH", certificate.chain())
                .env("RELAY_TLS_KEY_PATH", certificate.key());
        }
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        Self::start(command, address, Between::Relay, processors)
    }

    /// Starts sockets that are pinged, and nothing else.
    pub(crate) fn raw_pings(
        connections: usize,
        interval_ms: u64,
        processors: Processors,
    ) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["raw-pings", "--listen", &address.to_string()])
            .args(["--connections", &connections.to_string()])
            .args(["--interval-ms", &interval_ms.to_string()]);
        Self::start(command, address, Between::Passthrough, processors)
    }

    /// Starts a rival: a program that takes the relay's environment and says when it listens.
    pub(crate) fn rival(
        mut command: Command,
        platform: SocketAddr,
        between: Between,
        processors: Processors,
    ) -> Result<Self> {
        let address = free_address()?;
        set_environment(&mut command, address, platform);
        command.env("RELAY_MAX_PENDING_BYTES", PENDING_BYTES_MAX.to_string());
        Self::start(command, address, between, processors)
    }

    /// Starts a proxy in front of a relay; it says `sign` when it listens. Without one it inherits
    /// a socket in which connections wait for it.
    pub(crate) fn proxy(
        command: Command,
        address: SocketAddr,
        processors: Processors,
        sign: Option<&str>,
        relay: Subject,
        files: TempDir,
    ) -> Result<Self> {
        let mut proxy = Self::start_until(command, address, Between::Relay, processors, sign)?;
        proxy._kept = Some((Box::new(relay), files));
        Ok(proxy)
    }

    /// Starts a pass-through for a number of pairs.
    pub(crate) fn passthrough(pair_count: usize, processors: Processors) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["passthrough", "--listen", &address.to_string()])
            .args(["--pairs", &pair_count.to_string()]);
        Self::start(command, address, Between::Passthrough, processors)
    }

    /// Starts the command on its processor and waits for the line that says it listens.
    fn start(
        command: Command,
        address: SocketAddr,
        between: Between,
        processors: Processors,
    ) -> Result<Self> {
        Self::start_until(command, address, between, processors, Some("listening on"))
    }

    /// Starts the command on its processor and waits for a line with `sign` in it, if it has one.
    fn start_until(
        mut command: Command,
        address: SocketAddr,
        between: Between,
        processors: Processors,
        sign: Option<&str>,
    ) -> Result<Self> {
        // A child inherits where its parent may run.
        processor::pin_to(processors.subject)?;
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        processor::pin_to(processors.load)?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = spawned.with_context(|| format!("{program} does not start"))?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let subject = Self { child, address, between, _kept: None };
        let mut lines = BufReader::new(stdout).lines();
        if let Some(sign) = sign {
            let is_up = lines.by_ref().map_while(Result::ok).any(|line| line.contains(sign));
            ensure!(is_up, "{program} ended before it listened; its own words stand above");
        }
        // Nobody may stop reading: a full pipe would stop the process under test.
        thread::spawn(move || for _ in lines {});
        Ok(subject)
    }

    /// Its process id.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What every program that does the relay's job is told. It sees nothing else of our environment.
fn set_environment(command: &mut Command, address: SocketAddr, platform: SocketAddr) {
    command
        .env_clear()
        .env("PATH", "")
        .env("HOST", "127.0.0.1")
        .env("PORT", address.port().to_string())
        .env("SERVER_URL", format!("http://{platform}"))
        .env("RELAY_PUBLIC_WS_BASE_URL", format!("ws://{address}/ws"))
        .envs(ENVIRONMENT.iter().copied());
}

/// An address nobody listens on at the moment.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(free_listener()?.local_addr()?)
}

/// A listener on an address nobody else listens on.
pub(crate) fn free_listener() -> Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
}

/// Bytes that may wait for one connection where nobody reads slowly on purpose: more than any load.
pub(crate) const PENDING_BYTES_MAX: usize = 64 << 20;

/// Opens the metrics of a relay under test.
pub(crate) const ADMIN_TOKEN: &str = "operator-of-the-load";

/// One shard, one mode, and no limit that the load could reach.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("RELAY_SHARDS", "1"),
    ("RELAY_MODE", "dev"),
    ("RELAY_ENABLE_ADMIN_HTTP", "1"),
    ("RELAY_ADMIN_TOKEN", ADMIN_TOKEN),
    ("RELAY_TLS", "0"),
    ("RELAY_BACKPLANE_MODE", "single"),
    ("RELAY_MAX_TOTAL_CONNECTIONS", "10000000"),
    ("RELAY_MAX_CONNECTIONS_PER_IP", "10000000"),
    ("RELAY_MAX_CLIENTS_PER_WORKSPACE", "10000000"),
    ("RELAY_UPGRADE_RATE_PER_MINUTE", "1000000000"),
    ("RELAY_KEX_INIT_RATE_PER_MINUTE", "1000000000"),
    ("RELAY_RUNTIME_RATE_PER_MINUTE", "1000000000"),
    ("RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE", "1000000000"),
    ("RELAY_DAEMON_RUNTIME_RATE_PER_MINUTE", "1000000000"),
    ("RELAY_MAX_FRAME_BYTES", "16777216"),
    ("RELAY_PING_INTERVAL_MS", "86400000"),
    ("RELAY_PONG_TIMEOUT_MS", "86400000"),
    ("RELAY_IDLE_TIMEOUT_MS", "86400000"),
];
