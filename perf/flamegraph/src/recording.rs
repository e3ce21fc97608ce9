//! Running the load, and sampling the relay that it started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::inlined::Inlined;
use crate::scenario::Scenario;
use crate::stacks::Stacks;

/// What is run.
pub(crate) struct Programs {
    pub(crate) relay: PathBuf,
    pub(crate) load: PathBuf,
}

/// Says what to install where `perf` is missing.
pub(crate) fn ensure_perf() -> Result<()> {
    let found = Command::new("perf").arg("--version").stdout(Stdio::null()).status();
    ensure!(
        found.is_ok_and(|status| status.success()),
        "perf is missing or does not fit this kernel: apt-get install linux-perf (Debian), \
         linux-tools-generic (Ubuntu)"
    );
    Ok(())
}

/// Loads a relay and samples its stacks from its start to its end.
///
/// Stacks are unwound by call-frame information: that needs no special build and goes through the
/// assembly of libraries. The kernel's own are included.
pub(crate) fn record(programs: &Programs, scenario: &Scenario) -> Result<Stacks> {
    let folder = std::env::temp_dir().join(format!("relay-flamegraph-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let stacks = record_in(&folder, programs, scenario);
    fs::remove_dir_all(&folder)?;
    stacks
}

fn record_in(folder: &Path, programs: &Programs, scenario: &Scenario) -> Result<Stacks> {
    let data = folder.join("perf.data");
    let mut load = Command::new(&programs.load)
        .args(scenario.load)
        .arg("--relay")
        .arg(&programs.relay)
        .stdin(Stdio::null())
        .spawn()
        .context("relay-load does not start")?;
    let perf = child_named(&mut load, &programs.relay).and_then(|relay| {
        Command::new("perf")
            .args(["record", "--quiet", "--event", "cpu-clock", "--freq", FREQUENCY_HZ])
            .args(["--call-graph", STACKS, "--pid", &relay.to_string(), "--output"])
            .arg(&data)
            .spawn()
            .context("perf does not start")
    });
    let loaded = load.wait()?;
    let mut perf = perf?;
    // Ends by itself with the relay, which ends with the load; told anyway, lest it wait for ever.
    if perf.try_wait()?.is_none() {
        let process = i32::try_from(perf.id()).ok().and_then(Pid::from_raw);
        kill_process(process.context("perf's process id")?, Signal::INT).ok();
    }
    perf.wait()?;
    // It also fails when the relay refused somebody, which is a part of what is looked at.
    if !loaded.success() {
        println!("relay-load ended with {loaded}; its own words stand above");
    }
    let script = Command::new("perf")
        .args(["script", "--no-inline", "--fields", "comm,ip,sym,dso", "--input"])
        .arg(&data)
        .stderr(Stdio::null())
        .output()
        .context("perf script does not start")?;
    ensure!(script.status.success(), "perf script ended with {}", script.status);
    let stacks = Stacks::parse(
        &String::from_utf8_lossy(&script.stdout),
        &programs.relay.to_string_lossy(),
        &Inlined::load(&programs.relay)?,
    );
    ensure!(stacks.sample_count() > 0, "perf took no sample");
    Ok(stacks)
}

/// The process of that program that the parent has started, once its shards run: perf does not see
/// threads that begin while it looks for them.
fn child_named(parent: &mut Child, program: &Path) -> Result<u32> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = parent.try_wait()? {
            bail!("relay-load ended with {status} before there was a relay");
        }
        let children = format!("/proc/{0}/task/{0}/children", parent.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        let is_relay = |process: &&str| {
            fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|path| path == program)
                && has_shard(process)
        };
        if let Some(relay) = children.split_whitespace().find(is_relay) {
            return relay.parse().context("a process id");
        }
        std::thread::yield_now();
    }
    bail!("relay-load started no relay")
}

fn has_shard(process: &str) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let mut names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.any(|name| name.starts_with("shard-"))
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Samples a second of processor time. No round number: what happens every millisecond would be
/// seen always or never.
const FREQUENCY_HZ: &str = "997";

/// How stacks are unwound, and how many bytes of one are kept for that: three times the deepest of
/// the relay.
const STACKS: &str = "dwarf,16384";
