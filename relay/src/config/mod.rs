//! The whole configuration, parsed before any port opens.
//!
//! [`Config::parse`] reads flags and environment into one typed value or refuses with every
//! mistake it found. Start with [`VARIABLES`], the table of all names.

mod admin;
mod admission;
mod backplane;
mod capacity;
mod control;
mod field;
mod file;
mod listen;
mod memory;
mod number;
mod patience;
mod planes;
mod platform;
mod problem;
mod reader;
mod rules;
mod source;
mod tenant;
mod variable;

#[cfg(test)]
mod deployment_tests;
#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod tests;

pub(crate) use admin::{Admin, AdminListen};
pub(crate) use admission::{Admission, AdmissionMode};
pub(crate) use backplane::{Backplane, BackplaneMode};
pub(crate) use capacity::Capacity;
pub(crate) use control::{
    AUTHORITIES as CONTROL_AUTHORITIES, AuditLog, CERTIFICATE as CONTROL_CERTIFICATE, ControlApi,
    ControlTls, KEY as CONTROL_KEY,
};
pub(crate) use field::{Field, template as file_template};
pub(crate) use file::Place;
#[cfg(test)]
pub(crate) use listen::UnixSocket;
pub(crate) use listen::{ClientAuth, Listen, Mode, Tls};
pub(crate) use memory::Memory;
pub(crate) use patience::TcpPatience;
pub(crate) use planes::{Control, ControlListen, ControlUrl, Role};
pub(crate) use platform::{ClientCertificate, Platform, ServerAuth, TlsVerify};
pub(crate) use problem::{Problem, Refused};
pub(crate) use reader::Effective;
pub(crate) use rules::{is_strong, of_handed};
pub(crate) use source::{FlagValue, Machine, Source, Surroundings};
pub(crate) use variable::{Change, Kind, VARIABLES, Variable, table_of_variables};

use reader::Reader;
use relay_contract::{Level, Limits, RelayId, Routes};
use relay_controller::{LogFormat, LogSettings};
use relay_driver::Choice;
use std::time::Duration;
use tenant::Redirects;

/// What the relay is to do. A value that exists is consistent.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Address, port, mode, TLS.
    pub listen: Listen,
    /// Names this relay among its siblings.
    pub relay_id: RelayId,
    /// Operators' endpoints.
    pub admin: Admin,
    /// Operators' and orchestrators' calls.
    pub control_api: ControlApi,
    /// What is written to stdout and kept for `/logs`.
    pub log: LogSettings,
    /// The platform and how it is called.
    pub platform: Platform,
    /// Who judges tokens.
    pub admission: Admission,
    /// How relays reach each other.
    pub backplane: Backplane,
    /// Bounds of the whole relay.
    pub capacity: Capacity,
    /// Bounds of every shard.
    pub limits: Limits,
    /// What differs from workspace to workspace.
    pub routes: Routes,
    /// How long TCP waits for peers that have vanished.
    pub tcp: TcpPatience,
    /// Threads and their kernel interface.
    pub engine: Engine,
    /// Who gets which part of the memory.
    pub memory: Memory,
    /// One process, or the planes apart.
    pub control: Control,
}

/// Threads and their kernel interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Engine {
    /// Which kernel interface.
    pub driver: Choice,
    /// Data-plane threads.
    pub shard_count: u16,
    /// How long each of them looks out for frames before it sleeps, in microseconds.
    pub busy_poll_us: u64,
    /// How long a stopping relay waits for its peers, in milliseconds.
    pub drain_ms: u64,
    /// Whether a crash may leave the process's memory in a file.
    pub core_dumps: bool,
}

/// A configuration with its history, as `relay config check` prints it.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    /// The configuration.
    pub config: Config,
    /// Every variable in the table's order with its value and origin.
    pub effective: Vec<Effective>,
    /// What an operator should know although it is no mistake.
    pub warnings: Vec<String>,
    /// The flags it was read with, to read it again.
    pub flags: Vec<FlagValue>,
}

impl Config {
    /// Reads flags over environment over the file that RELAY_CONFIG names over defaults.
    ///
    /// Errors: [`Refused`] with every value that has no meaning or, when all have one, with every
    /// rule they break together, in the reference relay's order. Reads no more of the world than
    /// `world` offers. Source: relay specification, sections 0, 0b and 1.
    pub(crate) fn parse(flags: &[FlagValue], world: &dyn Surroundings) -> Result<Parsed, Refused> {
        let mut reader = Reader::new(flags, world);
        let named = platform::Named::read(&mut reader);
        let listen = Listen::read(&mut reader, &named, world);
        let relay_id = relay_id(&mut reader, &listen, world);
        let admin = Admin::read(&mut reader, listen.mode);
        let control_api = ControlApi::read(&mut reader);
        let log = log_settings(&mut reader);
        let platform = Platform::read(&mut reader, &named);
        let admission = Admission::read(&mut reader);
        let backplane = Backplane::read(&mut reader, &named, &listen, platform.key.is_some());
        let capacity = Capacity::read(&mut reader);
        // A look for new keys may come before the validation.
        let patience = platform.admission_timeout.saturating_add(platform.api_timeout);
        let mut limits = capacity::limits(&mut reader, patience);
        let tcp = TcpPatience::read(&mut reader);
        let engine = Engine::read(&mut reader, world);
        let memory = Memory::read(&mut reader, &engine, &limits, world);
        limits.memory_bytes_max = as_size(memory.shard_bytes);
        let redirects = Redirects {
            enabled: backplane.redirect,
            mode: listen.mode,
            hosts: &backplane.redirect_hosts,
        };
        let routes = reader.routes(&redirects);
        let control = Control::read(&mut reader);
        if !reader.problems.is_empty() {
            return Err(Refused(reader.problems));
        }
        let config = Self {
            listen,
            relay_id,
            admin,
            control_api,
            log,
            platform,
            admission,
            backplane,
            capacity,
            limits,
            routes,
            tcp,
            engine,
            memory,
            control,
        };
        let broken = reader.located(rules::broken(&config, world));
        if !broken.is_empty() {
            return Err(Refused(broken));
        }
        let mut warnings = reader.warnings;
        warnings.extend(rules::warnings(&config));
        warnings.extend(rules::backlog(world));
        warnings.extend(rules::open_keys(&config, world));
        let effective = in_table_order(reader.effective);
        Ok(Parsed { config, effective, warnings, flags: flags.to_vec() })
    }
}

impl Engine {
    /// The sizes of each shard's driver.
    pub(crate) fn driver_config(&self) -> relay_driver::Config {
        relay_driver::Config {
            busy_poll: Duration::from_micros(self.busy_poll_us),
            ..relay_driver::Config::default()
        }
    }

    fn read(reader: &mut Reader<'_>, world: &dyn Surroundings) -> Self {
        let driver = match reader.choice("RELAY_DRIVER") {
            Some("uring") => Choice::Uring,
            Some("epoll" | "monoio") => Choice::Epoll,
            _ => Choice::Auto,
        };
        let cores = world.core_count().clamp(1, usize::from(SHARD_COUNT_MAX));
        let shard_count = reader.count_or("RELAY_SHARDS", cores as u64);
        if shard_count > u64::from(SHARD_COUNT_MAX) {
            reader.refuse("RELAY_SHARDS", format!("{shard_count} is more than {SHARD_COUNT_MAX}"));
        }
        let busy_poll_us = reader.count_or("RELAY_BUSY_POLL_US", 0);
        if busy_poll_us > BUSY_POLL_US_MAX {
            let problem = format!("{busy_poll_us} is more than {BUSY_POLL_US_MAX}");
            reader.refuse("RELAY_BUSY_POLL_US", problem);
        }
        Self {
            driver,
            busy_poll_us: busy_poll_us.min(BUSY_POLL_US_MAX),
            shard_count: u16::try_from(shard_count).unwrap_or(SHARD_COUNT_MAX),
            drain_ms: reader.count("RELAY_DRAIN_MS"),
            core_dumps: reader.flag("RELAY_CORE_DUMPS").unwrap_or(false),
        }
    }
}

/// Threads one process may run. Protects the control plane's tables, which hold lanes per shard.
const SHARD_COUNT_MAX: u16 = 1024;

/// The longest look-out before a shard sleeps. Protects the operator from a unit mistaken for
/// another: a second awake keeps every shard's core busy for good.
const BUSY_POLL_US_MAX: u64 = 1_000_000;

fn relay_id(reader: &mut Reader<'_>, listen: &Listen, world: &dyn Surroundings) -> RelayId {
    let id = reader
        .text("RELAY_ID")
        .unwrap_or_else(|| format!("{}:{}:{}", listen.host, listen.port, world.nonce()));
    reader.conclude("RELAY_ID", &id, Source::Default);
    RelayId::from(id)
}

fn log_settings(reader: &mut Reader<'_>) -> LogSettings {
    LogSettings {
        level: match reader.choice("RELAY_LOG_LEVEL") {
            Some("debug") => Level::Debug,
            Some("warn") => Level::Warn,
            Some("error") => Level::Error,
            _ => Level::Info,
        },
        format: match reader.choice("RELAY_LOG_FORMAT") {
            Some("text") => LogFormat::Text,
            _ => LogFormat::Json,
        },
        entries_max: as_size(reader.count("MAX_LOGS")),
    }
}

fn as_size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Every variable once, in the table's order; what nobody read or set shows its default.
fn in_table_order(read: Vec<Effective>) -> Vec<Effective> {
    VARIABLES
        .iter()
        .map(|variable| {
            let found = read.iter().find(|known| known.name == variable.name);
            found.cloned().unwrap_or_else(|| Effective {
                name: variable.name,
                shown: variable.default.to_owned(),
                source: Source::Default,
                digest: reader::digest(variable.default),
            })
        })
        .collect()
}
