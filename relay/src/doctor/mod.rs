//! `relay doctor`: will a relay with this configuration work on this machine, and if not, what is
//! to be changed.
//!
//! Every check returns [`Finding`]s and changes nothing. It looks at what the relay itself would
//! use: the same parser of the configuration, the same TLS towards the platform, the same driver.
//! Each has a bound in time; those that wait for others run side by side. `docs/doctor.md` lists
//! them.

mod certificate;
mod control_group;
mod finding;
mod kernel;
mod kernel_files;
mod limits;
mod names;
mod platform;
mod port;
mod redis_server;
mod report;
mod secrets;
mod signature;
mod sockets;

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::cli::DoctorArguments;
use crate::config::{Config, FlagValue, Machine, Parsed};
use crate::screen;
use finding::Finding;
use kernel_files::KernelFiles;

/// Examines everything and says so on stdout.
///
/// Errors: a check failed.
pub(crate) fn run(arguments: &DoctorArguments) -> Result<()> {
    let findings = examine(&arguments.settings.values())?;
    let text = match arguments.json {
        true => report::json(&findings),
        false => report::text(&findings),
    };
    screen::say(io::stdout(), format_args!("{text}"));
    let failed = report::failed(&findings);
    ensure!(failed == 0, "checks failed: {failed}");
    Ok(())
}

/// Every check, in the order of `docs/doctor.md`. Where the configuration has no meaning, the
/// machine alone is examined.
fn examine(flags: &[FlagValue]) -> Result<Vec<Finding>> {
    let files = KernelFiles::of_this_machine();
    let mut findings = Vec::new();
    match Config::parse(flags, &Machine) {
        Ok(parsed) => {
            findings.extend(configuration(&parsed));
            findings.extend(machine(&parsed.config, &files));
            findings.extend(surroundings(&parsed.config)?);
        }
        Err(refused) => {
            findings.extend(refused.0.into_iter().map(|problem| {
                let found = format!("{}: {}", problem.variable, problem.what);
                Finding::fail("configuration", found, format!("for example {}", problem.example))
            }));
            findings.extend([kernel::version(&files), sockets::backlog(&files)]);
        }
    }
    Ok(findings)
}

/// What the parser thinks of it.
fn configuration(parsed: &Parsed) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    // The backlog has a check of its own.
    let warnings = parsed.warnings.iter().filter(|warning| !warning.starts_with("net.core."));
    let mut findings: Vec<_> = warnings
        .map(|warning| {
            let remedy = "the variable named, unless it is meant so (relay config check shows all)";
            Finding::warn(CHECK, warning, remedy)
        })
        .collect();
    if findings.is_empty() {
        let mode = parsed.config.listen.mode.name();
        findings.push(Finding::ok(CHECK, format!("usable, RELAY_MODE={mode}")));
    }
    findings
}

/// What waits for nobody.
fn machine(config: &Config, files: &KernelFiles) -> Vec<Finding> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut findings = vec![
        kernel::version(files),
        kernel::ring(&config.engine, files),
        limits::descriptors(config),
        limits::locked_memory(),
        limits::core_dumps(config.engine.core_dumps),
        control_group::memory(config, files),
        control_group::cpu(config, files),
        sockets::backlog(files),
        sockets::local_ports(files),
        sockets::congestion_control(files),
    ];
    findings.extend(port::check(&config.listen, config.admin.listen.as_ref()));
    findings.extend(secrets::check(config));
    findings.extend(certificate::own(&config.listen.tls, now));
    let platform = &config.platform;
    findings.extend(
        platform.client_certificate.iter().flat_map(|client| certificate::client(client, now)),
    );
    let authorities = platform.authorities.iter();
    findings.extend(authorities.map(|path| certificate::platform_authorities(path, now)));
    findings
}

/// What is asked of others, side by side.
fn surroundings(config: &Config) -> Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let (mut findings, redis) = runtime
        .block_on(async { tokio::join!(platform::check(config), redis_server::check(config)) });
    findings.extend(redis);
    // A look-up that hangs must not keep the process.
    runtime.shutdown_background();
    Ok(findings)
}
