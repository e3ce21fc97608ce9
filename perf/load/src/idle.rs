//! `relay-load idle`: what an authenticated connection costs while it does nothing.
//!
//! Children open the connections, each from its own loopback address, so that neither the
//! descriptors of one process nor the ports of one address run out.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::arguments::{Idle, IdleChild};
use crate::authority::Signer;
use crate::crowd::{Crowd, Then, upgrade_request};
use crate::figures::write_json;
use crate::guard::{self, Guard, Watched};
use crate::platform;
use crate::processor::{self, Resident};
use crate::secured::{Certificate, Trust};
use crate::subject::{PENDING_BYTES_MAX, Subject};
use crate::trial::Header;
use crate::watch::{Bottleneck, Who};

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    header: Header,
    connections: usize,
    clients_per_workspace: usize,
    shards: usize,
    tls: bool,
    /// Of a relay without connections.
    base: Resident,
    before: Resident,
    after: Resident,
    total_bytes_per_connection: f64,
    anonymous_bytes_per_connection: f64,
    shared_bytes_per_connection: f64,
    heartbeat: Option<Heartbeat>,
}

/// What keeping connections alive costs.
#[derive(Debug, Serialize)]
struct Heartbeat {
    seconds: u64,
    /// What the children answered, from the first connection on.
    held: Held,
    relay: Pulse,
    raw: Option<Pulse>,
    cpu_ratio: Option<f64>,
}

/// One interval.
#[derive(Clone, Debug, Serialize)]
struct Pulse {
    cpu_share: f64,
    /// Pings that arrived and were answered, and how many were due.
    pings: u64,
    pings_due: f64,
    cpu_ns_per_ping: f64,
    watched: Watched,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Idle) -> Result<()> {
    let platform = platform::start()?;
    let certificate = arguments.tls.then(Certificate::new).transpose()?;
    let chain = certificate.as_ref().map(Certificate::chain);
    let trial = &arguments.trial;
    let subject = Subject::relay_set(
        &trial.relay()?,
        trial.driver.as_deref(),
        platform,
        trial.processors(),
        certificate.as_ref(),
        &settings(arguments),
    )?;
    let manner = Manner {
        clients_per_workspace: arguments.clients_per_workspace,
        certificate: chain.as_deref(),
        signing_key: None,
    };
    let base = settled(subject.process())?;
    // The first connections make the relay touch what it touches once: buffers, pages of code, the
    // log that it keeps for operators.
    let first = hold_so(&subject, manner, 0, WARM_UP)?;
    let before = processor::resident(subject.process())?;
    let mut children = vec![first];
    for (number, count) in (1..).zip(arguments.shares()) {
        children.push(hold_so(&subject, manner, number, count)?);
        println!("process {number}: {count} connections");
    }
    let after = processor::resident(subject.process())?;
    let per_connection = |bytes: fn(&Resident) -> u64| {
        bytes(&after).saturating_sub(bytes(&before)) as f64 / arguments.connections as f64
    };
    let mut report = Report {
        header: trial.header()?,
        connections: arguments.connections,
        clients_per_workspace: arguments.clients_per_workspace,
        shards: arguments.shards,
        tls: arguments.tls,
        base,
        before,
        after,
        total_bytes_per_connection: per_connection(|resident| resident.total_bytes),
        anonymous_bytes_per_connection: per_connection(|resident| resident.anonymous_bytes),
        shared_bytes_per_connection: per_connection(|resident| resident.shared_bytes),
        heartbeat: None,
    };
    report.print();
    if arguments.heartbeat_secs > 0 {
        report.heartbeat = Some(heartbeat(arguments, subject, children)?);
    }
    write_json(trial.json.as_deref(), &report)?;
    let pulses = report.heartbeat.iter().flat_map(|it| std::iter::once(&it.relay).chain(&it.raw));
    trial.judge(&guard::found(pulses.map(|pulse| &pulse.watched)))
}

/// The resident memory of a process once it has stopped to grow by itself.
///
/// A relay unmaps what only starting needed and then maps again what it goes on with: right after
/// it says that it listens it looks smaller than it is.
fn settled(process: u32) -> Result<Resident> {
    let mut last = processor::resident(process)?;
    for _ in 0..SETTLED_AFTER_MAX {
        processor::rest(SETTLED_AFTER);
        let now = processor::resident(process)?;
        if now.total_bytes <= last.total_bytes {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// Settings that make the relay do what is measured.
fn settings(arguments: &Idle) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("RELAY_MAX_PENDING_BYTES", PENDING_BYTES_MAX.to_string()),
        ("RELAY_SHARDS", arguments.shards.to_string()),
    ];
    if arguments.heartbeat_secs > 0 {
        let interval_ms = (arguments.heartbeat_secs * 1000).to_string();
        settings.push(("RELAY_PING_INTERVAL_MS", interval_ms));
        settings.push(("RELAY_PONG_TIMEOUT_MS", "10000".to_owned()));
    }
    settings
}

/// Measures one interval of the relay's, and one of a program that does nothing else.
fn heartbeat(arguments: &Idle, subject: Subject, mut children: Vec<Holder>) -> Result<Heartbeat> {
    let seconds = arguments.heartbeat_secs;
    let held_count = arguments.connections + WARM_UP;
    let relay = pulse(&[subject.process()], &mut children, held_count, arguments)?;
    relay.print("the relay");
    let mut held = Held::default();
    for child in children {
        let one = child.end()?;
        held.pings += one.pings;
        held.lost += one.lost;
    }
    println!("{} pings answered, {} connections lost", held.pings, held.lost);
    ensure!(held.lost == 0, "the relay ended connections that answered its pings");
    drop(subject);
    let raw = arguments.raw.then(|| raw(arguments)).transpose()?;
    // Both for each ping: the relay holds a few connections more.
    let cpu_ratio = raw.as_ref().map(|raw| relay.cpu_ns_per_ping / raw.cpu_ns_per_ping);
    if let (Some(raw), Some(ratio)) = (&raw, cpu_ratio) {
        raw.print("raw ping/pong");
        println!("ratio of processor time: {ratio:.2}");
    }
    Ok(Heartbeat { seconds, held, relay, raw, cpu_ratio })
}

/// As many sockets without a relay: one process for each child, because of descriptors.
fn raw(arguments: &Idle) -> Result<Pulse> {
    let mut subjects = Vec::new();
    let mut children = Vec::new();
    for (number, count) in arguments.shares().enumerate() {
        let interval_ms = arguments.heartbeat_secs * 1000;
        let subject = Subject::raw_pings(count, interval_ms, arguments.trial.processors())?;
        children.push(hold_so(&subject, Manner::PLAIN, number, count)?);
        subjects.push(subject);
    }
    let processes: Vec<_> = subjects.iter().map(Subject::process).collect();
    let pulse = pulse(&processes, &mut children, arguments.connections, arguments);
    // Before their peers, whose end they would complain about.
    drop(subjects);
    pulse
}

/// Processor time of one interval, or of a few where none of its pings came.
///
/// Errors: no ping came.
fn pulse(
    processes: &[u32],
    children: &mut [Holder],
    connections: usize,
    arguments: &Idle,
) -> Result<Pulse> {
    let used_ns =
        || processes.iter().map(|&process| processor::used_ns(process)).sum::<Result<u64>>();
    let guard = Guard::start(processes, arguments.trial.processors())?;
    let pings_before = pings(children)?;
    let before = used_ns()?;
    let start = processor::now_ns();
    let (mut elapsed_ns, mut used, mut answered) = (0.0, 0.0, 0);
    // Pings come in bursts: on a busy machine one may come before a window and the next behind it.
    for _ in 0..INTERVALS_MAX {
        processor::rest(Duration::from_secs(arguments.heartbeat_secs));
        elapsed_ns = (processor::now_ns() - start) as f64;
        used = used_ns()?.saturating_sub(before) as f64;
        answered = pings(children)? - pings_before;
        if answered > 0 {
            break;
        }
    }
    let pings = answered;
    let mut watched = guard.finish()?;
    let interval_ns = arguments.heartbeat_secs as f64 * 1e9;
    let pings_due = connections as f64 * elapsed_ns / interval_ns;
    ensure!(pings > 0, "no ping came, of {pings_due:.0} that were due");
    watched.bottlenecks.extend(unpinged(pings, pings_due));
    Ok(Pulse {
        cpu_share: used / elapsed_ns,
        pings,
        pings_due,
        cpu_ns_per_ping: used / pings as f64,
        watched,
    })
}

/// Who does not ping is the cheapest: a window without its pings says nothing.
fn unpinged(pings: u64, due: f64) -> Option<Bottleneck> {
    let why = format!("{pings} pings came, of {due:.0} that were due");
    let share = pings as f64 / due.max(1.0);
    (share < PINGS_SHARE_MIN).then_some(Bottleneck { who: Who::Machine, why })
}

/// Pings that all children have answered so far.
fn pings(children: &mut [Holder]) -> Result<u64> {
    children.iter_mut().map(Holder::pings).sum()
}

impl Pulse {
    fn print(&self, whose: &str) {
        println!(
            "{whose}: {:.1} % of a processor, {:.2} µs per ping and pong",
            self.cpu_share * 100.0,
            self.cpu_ns_per_ping / 1e3
        );
    }
}

impl Report {
    fn print(&self) {
        println!(
            "{} idle connections: {:.0} bytes of resident memory each, of it anonymous {:.0}, \
             shared {:.0}; the relay began with {} KiB and went from {} to {} KiB (the kernel's \
             memory for sockets is not in it)",
            self.connections,
            self.total_bytes_per_connection,
            self.anonymous_bytes_per_connection,
            self.shared_bytes_per_connection,
            self.base.total_bytes / 1024,
            self.before.total_bytes / 1024,
            self.after.total_bytes / 1024
        );
    }
}

/// A child with its connections. It holds them until its input ends, which it does with this value.
pub(crate) struct Holder {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// What a child did with its connections.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Held {
    pings: u64,
    lost: usize,
}

impl Holder {
    /// Asks how many pings it has answered so far.
    fn pings(&mut self) -> Result<u64> {
        let stdin = self.child.stdin.as_mut().context("its input is piped")?;
        stdin.write_all(b"\n")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().context("a child ended too early")
    }

    /// Ends it and asks what it did.
    fn end(mut self) -> Result<Held> {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let (pings, lost) = line.trim().split_once(' ').context("a child ended too early")?;
        Ok(Held { pings: pings.parse()?, lost: lost.parse()? })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What children open connections with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner<'a> {
    pub(crate) clients_per_workspace: usize,
    /// The relay's certificate, where TLS ends there.
    pub(crate) certificate: Option<&'a Path>,
    /// The key that signs tokens; without one they are of the least platform.
    pub(crate) signing_key: Option<&'a Path>,
}

impl Manner<'_> {
    /// Plain connections, fifty of a workspace.
    pub(crate) const PLAIN: Self =
        Self { clients_per_workspace: CLIENTS_PER_WORKSPACE, certificate: None, signing_key: None };
}

/// Opens connections that do nothing, by a child, and waits until it has them.
pub(crate) fn hold(subject: &Subject, number: usize, count: usize) -> Result<Holder> {
    hold_so(subject, Manner::PLAIN, number, count)
}

/// The same in another manner.
pub(crate) fn hold_so(
    subject: &Subject,
    manner: Manner<'_>,
    number: usize,
    count: usize,
) -> Result<Holder> {
    let mut holder = start_child(subject, manner, number, count)?;
    wait_ready(&mut holder)?;
    Ok(holder)
}

fn start_child(
    subject: &Subject,
    manner: Manner<'_>,
    number: usize,
    count: usize,
) -> Result<Holder> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("idle-child");
    if let Some(certificate) = manner.certificate {
        command.arg("--certificate").arg(certificate);
    }
    if let Some(key) = manner.signing_key {
        command.arg("--signing-key").arg(key);
    }
    let mut child = command
        .args(["--relay-address", &subject.address.to_string()])
        .args(["--number", &number.to_string()])
        .args(["--connections", &count.to_string()])
        .args(["--clients-per-workspace", &manner.clients_per_workspace.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a child")?;
    let output = BufReader::new(child.stdout.take().context("its output is piped")?);
    Ok(Holder { child, output })
}

/// Waits for the line with which a child says that it holds its connections.
fn wait_ready(holder: &mut Holder) -> Result<()> {
    let mut line = String::new();
    holder.output.read_line(&mut line)?;
    ensure!(line.trim() == READY, "a child failed; its own words stand above");
    Ok(())
}

/// The child: opens its connections, says so, and holds them until its input ends.
pub(crate) fn run_child(arguments: &IdleChild) -> Result<()> {
    let trust = arguments.certificate.as_deref().map(Trust::of).transpose()?;
    let signer = arguments.signing_key.as_deref().map(Signer::read).transpose()?;
    let number = arguments.number;
    let tls = trust.as_ref().map(Trust::config);
    let mut crowd = Crowd::new(arguments.relay_address, sources(number)?, tls)?;
    let requests = (0..arguments.connections).map(|index| {
        let workspace = format!("idle-{number}-{}", index / arguments.clients_per_workspace);
        let client = format!("client-{index}");
        let token = match &signer {
            Some(signer) => signer.token(&workspace, "target", &client)?,
            None => platform::token("client", &workspace, "target", &client),
        };
        Ok(upgrade_request(&workspace, "target", &token))
    });
    let requests = requests.map_while(Result::<_>::ok);
    crowd.open(requests, AT_ONCE, Then::Stay)?;
    let outcome = &crowd.outcome;
    ensure!(
        outcome.opened == arguments.connections,
        "{} of {} connections are open; the first refusal: {:?}",
        outcome.opened,
        arguments.connections,
        outcome.first_refusal
    );
    println!("{READY}");
    std::io::stdout().flush()?;
    let mut question = [0];
    crowd.serve_until(std::io::stdin(), |outcome| {
        if rustix::io::read(std::io::stdin(), &mut question)? == 0 {
            return Ok(false);
        }
        println!("{}", outcome.pings);
        std::io::stdout().flush()?;
        Ok(true)
    })?;
    println!("{} {}", crowd.outcome.pings, crowd.outcome.lost);
    Ok(())
}

/// The addresses that a child's connections come from.
fn sources(number: usize) -> Result<Vec<Ipv4Addr>> {
    let third = u8::try_from(number + 1).context("too many children")?;
    Ok((1..=SOURCES).map(|fourth| Ipv4Addr::new(127, 1, third, fourth)).collect())
}

/// Memory that has not grown for so long has settled: timers of the control plane come every
/// quarter of a second.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Looks at memory that keeps growing, after which it is taken as it is.
const SETTLED_AFTER_MAX: usize = 10;

/// Addresses of each child.
const SOURCES: u8 = 4;
/// Upgrades of a child in flight.
const AT_ONCE: usize = 64;
/// Connections that share a workspace where nobody says how many.
const CLIENTS_PER_WORKSPACE: usize = 50;
/// Connections made before the first reading.
const WARM_UP: usize = 2000;
/// Intervals that pings are waited for.
const INTERVALS_MAX: usize = 10;
/// Pings that have to come, of those that are due: a window may end within a burst of them.
const PINGS_SHARE_MIN: f64 = 0.95;
/// What a child prints when it holds its connections.
const READY: &str = "ready";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_without_its_pings_tells_nothing_of_the_relay() {
        assert_eq!(unpinged(1000, 1000.0), None);
        assert_eq!(unpinged(960, 1000.0), None);
        assert_eq!(unpinged(900, 1000.0).map(|found| found.who), Some(Who::Machine));
    }
}
