//! `relay-load storm`: everybody is cut off at once, and everybody comes back at once.
//!
//! The connections are reset, as by a network that fails, and all connect again in the same moment,
//! from many addresses. The time counts from the first reset to the last 101.

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::admissions::{settings, sources};
use crate::arguments::Storm;
use crate::authority::{Authority, Signer};
use crate::crowd::{Crowd, Then, upgrade_request};
use crate::figures::{Spread, write_json};
use crate::guard::{self, Guard, Watched};
use crate::processor;
use crate::secured::{Certificate, Trust};
use crate::subject::{Processors, Subject};
use crate::trial::Header;

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    through: crate::arguments::Through,
    tls: bool,
    fresh_tokens: bool,
    decision_cache_ms: Option<u64>,
    connections: usize,
    rounds: Vec<Round>,
    seconds: f64,
}

/// One storm.
#[derive(Clone, Debug, Serialize)]
struct Round {
    seconds: f64,
    back: usize,
    refused: usize,
    first_refusal: Option<String>,
    /// Processor time of the relay, seconds.
    cpu_seconds: f64,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
    watched: Watched,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Storm) -> Result<()> {
    let authority = Authority::start()?;
    let signer = Signer::read(&authority.key_file())?;
    let certificate = arguments.tls.then(Certificate::new).transpose()?;
    let trial = &arguments.trial;
    let mut settings = settings(arguments.through, &authority, arguments.connections);
    settings[0].1 = "1".to_owned();
    // As an operator sets it who expects that many at once.
    let handshakes_max = arguments.connections + arguments.connections / 3;
    settings.push(("RELAY_TLS_HANDSHAKES_MAX", handshakes_max.to_string()));
    if let Some(millis) = arguments.decision_cache_ms {
        settings.push(("RELAY_DECISION_CACHE_MS", millis.to_string()));
    }
    let subject = Subject::relay_set(
        &trial.relay()?,
        trial.driver.as_deref(),
        authority.address,
        trial.processors(),
        certificate.as_ref(),
        &settings,
    )?;
    let trust = certificate.as_ref().map(|made| Trust::of(&made.chain())).transpose()?;
    let tls = trust.as_ref().map(Trust::config);
    let mut crowd = Crowd::new(subject.address, sources(), tls)?;
    let mut requests = sign(&signer, arguments.connections)?;
    crowd.open(requests.iter().cloned(), FIRST_AT_ONCE, Then::Stay)?;
    ensure!(
        crowd.outcome.opened == arguments.connections,
        "not everybody was let in before the storm: {:?}",
        crowd.outcome.first_refusal
    );
    let mut rounds = Vec::with_capacity(arguments.rounds);
    for _ in 0..arguments.rounds {
        if arguments.fresh_tokens {
            requests = sign(&signer, arguments.connections)?;
        }
        let round = storm(&mut crowd, &subject, &requests, trial.processors())?;
        round.print(arguments.connections);
        rounds.push(round);
    }
    let report = Report {
        header: trial.header()?,
        through: arguments.through,
        tls: arguments.tls,
        fresh_tokens: arguments.fresh_tokens,
        decision_cache_ms: arguments.decision_cache_ms,
        connections: arguments.connections,
        seconds: Spread::of(rounds.iter().map(|round| round.seconds)).median,
        rounds,
    };
    println!("{} connections back in {:.2} s (median)", report.connections, report.seconds);
    write_json(trial.json.as_deref(), &report)?;
    let refused: usize = report.rounds.iter().map(|round| round.refused).sum();
    ensure!(
        refused == 0 || arguments.allow_refusals,
        "{refused} connections were refused and had to come again (--allow-refusals takes that)"
    );
    trial.judge(&guard::found(report.rounds.iter().map(|round| &round.watched)))
}

/// Resets everybody and waits until everybody is back. Who is refused comes again at once.
fn storm(
    crowd: &mut Crowd,
    subject: &Subject,
    requests: &[Vec<u8>],
    processors: Processors,
) -> Result<Round> {
    crowd.recount()?;
    let guard = Guard::start(&[subject.process()], processors)?;
    let used_before_ns = processor::used_ns(subject.process())?;
    let start = processor::now_ns();
    crowd.reset();
    let mut missing = requests.len();
    while missing > 0 {
        // Which of them were refused does not matter: all tokens are good more than once.
        crowd.open(requests[..missing].iter().cloned(), usize::MAX, Then::Stay)?;
        missing = requests.len() - crowd.outcome.opened;
        ensure!(processor::now_ns() - start < GIVE_UP_NS, "{missing} never came back");
    }
    let elapsed_ns = processor::now_ns() - start;
    let used_ns = processor::used_ns(subject.process())? - used_before_ns;
    let watched = guard.finish()?;
    let outcome = &crowd.outcome;
    ensure!(outcome.lost == 0, "{} were let in and ended", outcome.lost);
    Ok(Round {
        seconds: elapsed_ns as f64 / 1e9,
        back: outcome.opened,
        refused: outcome.refused,
        first_refusal: outcome.first_refusal.clone(),
        cpu_seconds: used_ns as f64 / 1e9,
        latency_p50_ms: outcome.latency.value_at_quantile(0.5) as f64 / 1e6,
        latency_p99_ms: outcome.latency.value_at_quantile(0.99) as f64 / 1e6,
        watched,
    })
}

impl Round {
    fn print(&self, connections: usize) {
        println!(
            "{connections} connections back in {:.2} s, {} refused first ({}); relay {:.2} s of \
             processor time; p50 {:.0} ms, p99 {:.0} ms",
            self.seconds,
            self.refused,
            self.first_refusal.as_deref().unwrap_or("none"),
            self.cpu_seconds,
            self.latency_p50_ms,
            self.latency_p99_ms
        );
    }
}

/// A request for each connection, with a token of its own.
fn sign(signer: &Signer, connections: usize) -> Result<Vec<Vec<u8>>> {
    (0..connections).map(|index| request(signer, index)).collect()
}

fn request(signer: &Signer, index: usize) -> Result<Vec<u8>> {
    let workspace = format!("storm-{}", index / CLIENTS_PER_WORKSPACE);
    let token = signer.token(&workspace, "target", &format!("client-{index}"))?;
    Ok(upgrade_request(&workspace, "target", &token))
}

const CLIENTS_PER_WORKSPACE: usize = 50;
/// Upgrades in flight before the first storm.
const FIRST_AT_ONCE: usize = 64;
/// When a storm is given up.
const GIVE_UP_NS: u64 = 60_000_000_000;
