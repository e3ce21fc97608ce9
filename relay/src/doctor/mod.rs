//! `relay doctor`: will a relay with this configuration work on this machine, and if not, what is
//! to be changed.
//!
//! Every check returns [`Finding`]s and changes nothing. It looks at what the relay itself would
//! use: the same parser of the configuration, the same TLS towards the platform, the same driver.
//! Each has a bound in time; those that wait for others run side by side. `docs/doctor.md` lists
//! them.

mod certificate;
mod chain;
mod control_group;
mod finding;
mod folder;
mod kernel;
mod kernel_files;
mod limits;
mod names;
mod neighbour;
mod planes;
mod platform;
mod port;
mod records;
mod redis_server;
mod report;
mod secrets;
mod signature;
mod sockets;

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::cli::DoctorArguments;
use crate::config::{Config, FlagValue, Machine, Parsed, Role};
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

/// Every check, in the order of `docs/doctor.md`. Where the configuration has no meaning, that of
/// the machine is examined which needs none.
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
            findings.push(kernel::version(&files));
            findings.extend(network(Role::All, &files));
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

/// What waits for nobody. Each role is asked for what it uses: who moves no frames has no shards,
/// and who decides nothing never sees the platform.
fn machine(config: &Config, files: &KernelFiles) -> Vec<Finding> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let role = config.control.role;
    let mut findings = vec![kernel::version(files)];
    if role.moves_frames() {
        findings.extend([
            kernel::ring(&config.engine, files),
            limits::descriptors(config),
            limits::locked_memory(&config.engine, files),
        ]);
    }
    findings.push(limits::core_dumps(config.engine.core_dumps));
    if role.moves_frames() {
        findings.extend([control_group::memory(config, files), control_group::cpu(config, files)]);
    }
    findings.extend(network(role, files));
    findings.extend(port::check(config));
    if role.decides() {
        findings.extend(records::check(config));
        findings.extend(secrets::check(config));
    }
    if role.moves_frames() {
        findings.extend(certificate::own(&config.listen.tls, now));
    }
    findings.extend(planes::certificates(&config.control, now));
    if role.decides() {
        findings.extend(certificate::control_api(&config.control_api, now));
        let platform = &config.platform;
        let shown = platform.client_certificate.iter();
        findings.extend(shown.flat_map(|client| certificate::client(client, now)));
        let authorities = platform.authorities.iter();
        findings.extend(authorities.map(|path| certificate::platform_authorities(path, now)));
    }
    findings
}

/// What the kernel allows sockets.
fn network(role: Role, files: &KernelFiles) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(role.moves_frames().then(|| sockets::backlog(files)));
    findings.extend(role.decides().then(|| sockets::local_ports(files)));
    findings.extend(role.moves_frames().then(|| sockets::congestion_control(files)));
    findings
}

/// What is asked of others, side by side.
fn surroundings(config: &Config) -> Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let findings = runtime.block_on(async {
        if !config.control.role.decides() {
            return Vec::from_iter(planes::check(&config.control).await);
        }
        let (mut findings, redis) =
            tokio::join!(platform::check(config), redis_server::check(config));
        findings.extend(redis);
        findings
    });
    // A look-up that hangs must not keep the process.
    runtime.shutdown_background();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(settings: &[(&str, &str)]) -> Vec<&'static str> {
        let given = settings.iter().map(|(name, value)| FlagValue::set(name, value));
        let place = [("HOST", "127.0.0.1"), ("RELAY_LISTEN_PORT", "0")];
        let place = place.map(|(name, value)| FlagValue::set(name, value));
        let given: Vec<_> = given.chain(place).collect();
        let findings = examine(&given).expect("a runtime");
        findings.into_iter().map(|finding| finding.check).collect()
    }

    #[test]
    fn each_role_is_asked_for_what_it_uses() {
        // No name server knows it: nothing is asked of anybody.
        let common = [
            ("RELAY_VALIDATE_URL", "http://platform.invalid/validate"),
            ("RELAY_INTERNAL_KEY", "0f9e8d7c6b5a49382716051423324150"),
            ("RELAY_CONTROL_API_LISTEN", "127.0.0.1:47781"),
            ("RELAY_CONTROL_API_TLS_CERT_PATH", "/nonexistent/api.crt"),
            ("RELAY_CONTROL_API_TLS_KEY_PATH", "/nonexistent/api.key"),
            ("RELAY_AUDIT_LOG", "/nonexistent/audit.log"),
            ("RELAY_REVOCATIONS_FILE", "/nonexistent/revocations"),
        ];
        let with = |role: &[(&'static str, &'static str)]| checks(&[&common, role].concat());
        let of_peers = ["io_uring", "descriptors", "locked memory", "memory", "cpu", "port"];
        let of_deciders = [
            "local ports",
            "control API port",
            "control API certificate",
            "audit log",
            "revocations",
            "internal key",
            "platform",
        ];
        let place = "unix:/nonexistent/planes.sock";
        let all = with(&[]);
        let moving = with(&[("RELAY_ROLE", "dataplane"), ("RELAY_CONTROL_URL", place)]);
        let deciding = with(&[("RELAY_ROLE", "controlplane"), ("RELAY_CONTROL_LISTEN", place)]);
        for check in of_peers {
            let seen = [&all, &moving, &deciding].map(|checks| checks.contains(&check));
            assert_eq!(seen, [true, true, false], "{check}");
        }
        for check in of_deciders {
            let seen = [&all, &moving, &deciding].map(|checks| checks.contains(&check));
            assert_eq!(seen, [true, false, true], "{check}");
        }
        assert!(moving.contains(&"control plane") && deciding.contains(&"control socket"));
    }

    #[test]
    fn without_a_configuration_the_machine_is_examined_all_the_same() {
        let checks = checks(&[("RELAY_ROLE", "both")]);
        let expected = ["configuration", "kernel", "backlog", "local ports", "congestion control"];
        assert_eq!(checks, expected);
    }
}
