//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Attacks a relay in every known way while a control pair keeps talking through it.
///
/// Without --target it starts the relay itself, with a platform that misbehaves on command, once
/// per driver. The exit code is 0 when the relay survived: the same process, memory within the
/// budget, no message of the control pair lost, every refusal the right one.
#[derive(Debug, Parser)]
#[command(name = "relay-chaos")]
pub(crate) struct Arguments {
    /// The relay program to start [default: $RELAY_BIN, else the release build]
    #[arg(long)]
    pub(crate) relay: Option<PathBuf>,
    /// Only this driver; both when left out
    #[arg(long, value_parser = ["uring", "epoll"], conflicts_with = "target")]
    pub(crate) driver: Option<String>,
    /// Over TLS, with a certificate made for the run; without it plain HTTP
    #[arg(long, conflicts_with = "target", overrides_with = "tls")]
    pub(crate) tls: bool,
    /// A variable of the relay that is started, NAME=VALUE; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", conflicts_with = "target")]
    pub(crate) variables: Vec<String>,
    /// A relay that runs already, on loopback
    #[arg(long)]
    pub(crate) target: Option<SocketAddr>,
    /// Certificates (PEM) that vouch for its certificate, where it speaks TLS
    #[arg(long, requires = "target")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// The name in its certificate
    #[arg(long, requires = "tls_ca", default_value = "localhost")]
    pub(crate) tls_name: String,
    /// Its process, to watch its memory
    #[arg(long, requires = "target")]
    pub(crate) pid: Option<i32>,
    /// Signing key of its platform (PEM), as `relay dev --key` has it; without it only strangers
    /// attack, and nobody keeps talking
    #[arg(long, requires = "target")]
    pub(crate) signing_key: Option<PathBuf>,
    /// File with its admin token, to read its counters
    #[arg(long, requires = "target")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Only this class; may be repeated
    #[arg(long)]
    pub(crate) only: Vec<String>,
    /// Seconds of one stretch, without attack and then with
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Pairs of stretches per class; the median counts
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: u32,
    /// Messages per second of the control pair [default: 500, with --target 3]
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// Memory the relay may take, MiB; one that is started here is told so [default: 160, with TLS
    /// 208]
    #[arg(long)]
    memory_mib: Option<u64>,
    /// Fail too when the control pair's p99 is more than --ratio times its quiet self
    #[arg(long)]
    pub(crate) strict: bool,
    /// What --strict allows
    #[arg(long, default_value_t = 1.1)]
    pub(crate) ratio: f64,
    /// Says what each class does and what the reference relay did, and attacks nobody
    #[arg(long)]
    pub(crate) list: bool,
}

impl Arguments {
    /// Memory the relay may take, MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        let is_behind_tls = self.tls || self.tls_ca.is_some();
        self.memory_mib.unwrap_or(if is_behind_tls { TLS_MEMORY_MIB } else { MEMORY_MIB })
    }
}

/// Little enough to be reached by an attack.
const MEMORY_MIB: u64 = 160;

/// The same, with room for 1,024 handshakes of one address at once. Source: `docs/budgets.md`.
const TLS_MEMORY_MIB: u64 = 208;
