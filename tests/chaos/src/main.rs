//! `relay-chaos`: attacks a relay and says what came of it.
#![forbid(unsafe_code)]

mod arguments;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use relay_chaos::{
    Attack, Campaign, Door, Mint, Plan, Platform, Processors, Report, Subject, attacks,
};
use relay_platform::SigningKey;

use arguments::Arguments;

/// Memory that threads take and give back without locks, but for rare cases. The C library's arenas
/// are shared: the control pair would wait for any of the platform's hundreds of threads, which go
/// last, that was interrupted while it held one.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        list();
        return Ok(());
    }
    let classes = chosen(&arguments.only)?;
    let default_rate = if arguments.target.is_some() { 3 } else { 500 };
    let plan = Plan {
        stretch: Duration::from_secs_f64(arguments.seconds),
        rounds: arguments.rounds.max(1),
        rate: arguments.rate.unwrap_or(default_rate).max(1),
        memory_kib_max: arguments.memory_mib() * 1024,
    };
    let mut failed = Vec::new();
    if arguments.target.is_some() {
        failed.extend(against_target(arguments, plan, &classes)?);
    } else {
        let processors = Processors::divide()?;
        for driver in ["uring", "epoll"] {
            if arguments.driver.as_deref().is_none_or(|only| only == driver) {
                println!("driver {driver}{}:", if arguments.tls { ", TLS" } else { "" });
                failed.extend(against_own(arguments, plan, &classes, &processors, driver)?);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

fn list() {
    for attack in attacks::all() {
        println!("{}\n    {}\n    The reference: {}", attack.name, attack.what, attack.reference);
    }
}

fn chosen(only: &[String]) -> Result<Vec<&'static Attack>> {
    let all = attacks::all();
    if let Some(name) = only.iter().find(|name| all.iter().all(|attack| attack.name != **name)) {
        bail!("there is no class {name}; --list names them");
    }
    let is_chosen = |attack: &&Attack| only.is_empty() || only.iter().any(|n| n == attack.name);
    Ok(all.into_iter().filter(is_chosen).collect())
}

/// Starts a relay on this driver and attacks it. Returns what failed.
fn against_own(
    arguments: &Arguments,
    plan: Plan,
    classes: &[&Attack],
    processors: &Processors,
    driver: &str,
) -> Result<Vec<String>> {
    let program = program(arguments.relay.as_deref())?;
    let mint = Mint::new(SigningKey::generate()?);
    let budget = format!("{}MiB", arguments.memory_mib());
    let mut variables = vec![("RELAY_DRIVER", driver), ("RELAY_MEMORY_BUDGET", budget.as_str())];
    if arguments.tls {
        // Whose handshakes and memory the budget is made for, however many processors there are.
        variables.push(("RELAY_SHARDS", "1"));
    }
    for variable in &arguments.variables {
        variables.push(variable.split_once('=').context("--env wants NAME=VALUE")?);
    }
    // In service the platform is another machine's work, and not the relay's processors'.
    processors.apart(|| Ok(()))?;
    let platform = Platform::start(&mint)?;
    let start = if arguments.tls { Subject::start_with_tls } else { Subject::start };
    let subject = processors.apart(|| start(&program, &platform, &variables))?;
    let campaign = Campaign::begin(plan, subject, Some(&mint), Some(&platform))?;
    wage(campaign, classes, arguments)
}

fn against_target(arguments: &Arguments, plan: Plan, classes: &[&Attack]) -> Result<Vec<String>> {
    let address = arguments.target.context("--target names an address")?;
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
    };
    let token = arguments.admin_token_file.as_ref().map(read).transpose()?;
    let token = token.map(|token| token.trim().to_owned());
    let door = match &arguments.tls_ca {
        None => Door::plain(address),
        Some(authorities) => Door::tls(address, authorities, &arguments.tls_name)?,
    };
    let subject = Subject::running(door, arguments.pid, token)?;
    let key = arguments.signing_key.as_ref().map(read).transpose()?;
    let mint = key.map(|pem| SigningKey::from_pem(&pem)).transpose()?.map(Mint::new);
    let campaign = Campaign::begin(plan, subject, mint.as_ref(), None)?;
    wage(campaign, classes, arguments)
}

/// Wages every attack, prints each finding as it comes, and sums up.
fn wage(
    mut campaign: Campaign<'_>,
    classes: &[&Attack],
    arguments: &Arguments,
) -> Result<Vec<String>> {
    let mut report = Report::default();
    if let Some(nothing) = campaign.wage(&attacks::NOBODY)? {
        print!("{nothing}");
    }
    for attack in classes {
        match campaign.wage(attack)? {
            None => report.skipped.push(attack.name),
            Some(finding) => {
                print!("{finding}");
                let is_fatal = finding.is_fatal;
                report.findings.push(finding);
                if is_fatal {
                    break;
                }
            }
        }
    }
    if !report.skipped.is_empty() {
        println!("skipped, for want of what they need: {}", report.skipped.join(", "));
        ensure!(arguments.only.is_empty(), "{WANTS}");
    }
    let faulty = report.findings.iter().filter(|finding| !finding.faults.is_empty());
    let mut failed: Vec<String> = faulty.map(|finding| finding.name.to_owned()).collect();
    let slowed = report.slowed(arguments.ratio);
    println!(
        "{} classes survived, {} failed; p99 of the control pair beyond ×{} in {} of them",
        report.findings.len() - failed.len(),
        failed.len(),
        arguments.ratio,
        slowed.len(),
    );
    if arguments.strict {
        failed.extend(slowed.iter().map(|name| format!("{name} slows others")));
    }
    Ok(failed)
}

/// What a class may lack.
const WANTS: &str = "a class that was asked for has not what it needs: TLS (--tls, --tls-ca), \
     tokens (--signing-key), or a relay and a platform that are started here";

/// The program to start: named, or in the environment, or built beside this one.
fn program(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os("RELAY_BIN") {
        return Ok(path.into());
    }
    let beside = std::env::current_exe()?.with_file_name("relay");
    ensure!(beside.is_file(), "there is no relay to attack: name it with --relay");
    Ok(beside)
}
