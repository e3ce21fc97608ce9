//! `relay-load admissions`: how many upgrades a relay admits per second, and what each costs.
//!
//! Connections come with real tokens, each used once, are admitted, and are reset. The time they
//! take includes their end. What counts first is the processor time of the whole relay per
//! admission: the rate of one processor that does nothing else is its inverse.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::arguments::{Admissions, Through};
use crate::authority::{Authority, Signer};
use crate::crowd::{Crowd, Then, upgrade_request};
use crate::figures::{Spread, write_json};
use crate::guard::{self, Guard, Watched};
use crate::idle::{Holder, Manner, hold_so};
use crate::processor;
use crate::subject::Subject;
use crate::trial::Header;

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    through: Through,
    forged: bool,
    held: usize,
    at_once: usize,
    windows: Vec<Window>,
    cpu_us_per_admission: f64,
    per_s_per_processor: f64,
}

/// One measured window.
#[derive(Clone, Debug, Serialize)]
struct Window {
    admissions: usize,
    per_s: f64,
    cpu_us_per_admission: f64,
    /// Share of its processor that the relay used.
    cpu_share: f64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    watched: Watched,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Admissions) -> Result<()> {
    let authority = Authority::start()?;
    let signer = Signer::read(&authority.key_file())?;
    let trial = &arguments.trial;
    let subject = Subject::relay_set(
        &trial.relay()?,
        trial.driver.as_deref(),
        authority.address,
        trial.processors(),
        None,
        &settings(arguments.through, &authority, arguments.held + arguments.at_once),
    )?;
    let _held = hold_all(&subject, &authority, arguments.held)?;
    let mut crowd = Crowd::new(subject.address, sources(), None)?;
    let mut windows = Vec::with_capacity(arguments.rounds);
    for round in 0..=arguments.rounds {
        // Signed before the window: what it takes to make tokens is not what it takes to use them.
        let requests =
            (0..arguments.count).map(|index| request(&signer, arguments.forged, round, index));
        let requests = requests.collect::<Result<Vec<_>>>()?;
        crowd.recount()?;
        let validations = authority.validations();
        let window = measure(&mut crowd, &subject, requests, arguments)?;
        let asked = authority.validations() - validations;
        ensure!(!arguments.forged || asked == 0, "the platform was asked {asked} times");
        // The first round warms up.
        if round > 0 {
            window.print();
            windows.push(window);
        }
    }
    let cpu_us_per_admission =
        Spread::of(windows.iter().map(|window| window.cpu_us_per_admission)).median;
    let report = Report {
        header: trial.header()?,
        through: arguments.through,
        forged: arguments.forged,
        held: arguments.held,
        at_once: arguments.at_once,
        windows,
        cpu_us_per_admission,
        per_s_per_processor: 1e6 / cpu_us_per_admission,
    };
    println!(
        "through {:?}, {} held: {:.1} µs of processor time per {}, so {:.0} per second and \
         processor",
        report.through,
        report.held,
        report.cpu_us_per_admission,
        if report.forged { "refusal" } else { "admission" },
        report.per_s_per_processor
    );
    write_json(trial.json.as_deref(), &report)?;
    trial.judge(&guard::found(report.windows.iter().map(|window| &window.watched)))
}

/// Settings of a relay that admits through the authority, on as many shards as its connections
/// need.
pub(crate) fn settings(
    through: Through,
    authority: &Authority,
    connections: usize,
) -> Vec<(&'static str, String)> {
    let shards = connections.div_ceil(CONNECTIONS_PER_SHARD).max(1);
    let mut settings = vec![("RELAY_SHARDS", shards.to_string())];
    if let Some(admission) = through.key_admission() {
        settings.push(("RELAY_ADMISSION", admission.to_owned()));
        settings.push(("RELAY_JWKS_URL", authority.key_set_url()));
    }
    settings
}

/// Opens connections that stay, by children.
fn hold_all(subject: &Subject, authority: &Authority, count: usize) -> Result<Vec<Holder>> {
    let key = authority.key_file();
    let manner = Manner { signing_key: Some(&key), ..Manner::PLAIN };
    let shares = (0..count).step_by(PER_PROCESS).map(|begun| PER_PROCESS.min(count - begun));
    (1..).zip(shares).map(|(number, share)| hold_so(subject, manner, number, share)).collect()
}

fn request(signer: &Signer, forged: bool, round: usize, index: usize) -> Result<Vec<u8>> {
    let workspace = format!("admitted-{round}-{}", index / CLIENTS_PER_WORKSPACE);
    let client = format!("client-{index}");
    let token = match forged {
        true => signer.forged(&workspace, "target", &client)?,
        false => signer.token(&workspace, "target", &client)?,
    };
    Ok(upgrade_request(&workspace, "target", &token))
}

fn measure(
    crowd: &mut Crowd,
    subject: &Subject,
    requests: Vec<Vec<u8>>,
    arguments: &Admissions,
) -> Result<Window> {
    let count = requests.len();
    let guard = Guard::start(&[subject.process()], arguments.trial.processors())?;
    let used_before_ns = processor::used_ns(subject.process())?;
    let start = processor::now_ns();
    crowd.open(requests.into_iter(), arguments.at_once, Then::Leave)?;
    let elapsed_ns = (processor::now_ns() - start) as f64;
    let used_ns = (processor::used_ns(subject.process())? - used_before_ns) as f64;
    let watched = guard.finish()?;
    let outcome = &crowd.outcome;
    let expected = if arguments.forged { 0 } else { count };
    ensure!(
        outcome.opened == expected,
        "{} of {count} were admitted; the first refusal: {:?}",
        outcome.opened,
        outcome.first_refusal
    );
    // A full lane or a limit refuses too, at another price.
    let unexpected = outcome.refused - outcome.refused_with(UNAUTHORIZED);
    ensure!(
        !arguments.forged || unexpected == 0,
        "{unexpected} of {count} were refused with something else than 401: {:?}",
        outcome.first_refusal
    );
    let latency = match arguments.forged {
        true => &outcome.refusal_latency,
        false => &outcome.latency,
    };
    Ok(Window {
        admissions: count,
        per_s: count as f64 * 1e9 / elapsed_ns,
        cpu_us_per_admission: used_ns / count as f64 / 1e3,
        cpu_share: used_ns / elapsed_ns,
        latency_p50_us: latency.value_at_quantile(0.5) as f64 / 1e3,
        latency_p99_us: latency.value_at_quantile(0.99) as f64 / 1e3,
        watched,
    })
}

impl Window {
    fn print(&self) {
        println!(
            "{:>7.0} upgrades/s   {:>5.1} µs CPU each ({:>3.0} % of its processor)   \
             p50 {:.0} µs   p99 {:.0} µs",
            self.per_s,
            self.cpu_us_per_admission,
            self.cpu_share * 100.0,
            self.latency_p50_us,
            self.latency_p99_us
        );
    }
}

/// Addresses that connections come from.
pub(crate) fn sources() -> Vec<Ipv4Addr> {
    (1..=SOURCES).map(|last| Ipv4Addr::new(127, 2, 0, last)).collect()
}

/// What a forged token is answered with.
const UNAUTHORIZED: u16 = 401;
const SOURCES: u8 = 16;
const CLIENTS_PER_WORKSPACE: usize = 50;
/// Connections of one child, by its descriptors.
const PER_PROCESS: usize = 15_000;
/// Connections of one shard: below the descriptors of a process, by which the kernel bounds the
/// table of a ring, with room for shards that have more workspaces than others.
const CONNECTIONS_PER_SHARD: usize = 15_000;
