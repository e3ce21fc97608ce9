//! Instructions per operation, held against a baseline that is committed.
//!
//! `relay-micro` runs under callgrind once per case. Callgrind counts the instructions inside one
//! function, so the same build gives the same count on every machine whose libraries choose the
//! same code; time is left to `relay-load`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::components::is_in_path;
use crate::workspace::Workspace;

/// The counts that were kept, and of what.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
struct Baseline {
    made_with: MadeWith,
    /// Instructions of one run, by case.
    instructions: BTreeMap<String, u64>,
}

/// What counts depend on beside the code.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
struct MadeWith {
    rustc: String,
    /// The settings of the build.
    profile: String,
    libc: String,
    /// Extensions that valgrind's processor offers, by which libraries choose their code.
    processor: String,
}

/// What comparing two sets of counts came to.
#[derive(Debug, Default, Eq, PartialEq)]
struct Comparison {
    /// A line per case.
    table: String,
    /// Cases that take more than [`TOLERANCE_PERCENT`] more, or that cannot be compared.
    worse: Vec<String>,
    better: Vec<String>,
}

/// Counts, and fails on a case that got worse.
pub(crate) fn check() -> Result<()> {
    let bench = Bench::new()?;
    let kept = std::fs::read_to_string(bench.baseline()).context(BASELINE)?;
    let kept: Baseline = toml::from_str(&kept).context(BASELINE)?;
    let now = bench.count()?;
    if let Some(difference) = kept.made_with.build_differs(&now.made_with) {
        print!("{}", compare(&kept.instructions, &now.instructions, 0).table);
        bail!("not compared: {difference}. {AGAIN}");
    }
    let tolerance = kept.made_with.tolerance_percent(&now.made_with);
    let comparison = compare(&kept.instructions, &now.instructions, tolerance.unwrap_or(0));
    print!("{}", comparison.table);
    if let Some(difference) = kept.made_with.machine_differs(&now.made_with) {
        println!("{difference}");
    }
    let Some(tolerance) = tolerance else {
        println!("NOT JUDGED: the counts above are of other code than the baseline's");
        return Ok(());
    };
    for line in &comparison.better {
        println!("better: {line}. {AGAIN}");
    }
    if comparison.worse.is_empty() {
        println!("{} counts are within {tolerance} %", now.instructions.len());
        return Ok(());
    }
    bail!("{}\n{AGAIN}", comparison.worse.join("\n"));
}

/// Counts, and keeps the result as the baseline.
pub(crate) fn keep() -> Result<()> {
    let bench = Bench::new()?;
    let kept = std::fs::read_to_string(bench.baseline()).unwrap_or_default();
    let kept: Baseline = toml::from_str(&kept).unwrap_or_default();
    let now = bench.count()?;
    print!("{}", compare(&kept.instructions, &now.instructions, TOLERANCE_PERCENT).table);
    std::fs::write(bench.baseline(), now.write()).context(BASELINE)?;
    println!("{BASELINE} is written; say in the commit why it changed");
    Ok(())
}

/// Where the program is, and where callgrind writes.
struct Bench {
    root: PathBuf,
    program: PathBuf,
    profiles: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        ensure!(is_in_path("valgrind"), "valgrind is missing: cargo xtask components");
        let workspace = Workspace::load()?;
        let program = workspace.target_directory.join("release/relay-micro");
        ensure!(program.is_file(), "relay-micro is missing: {}", crate::pipeline::MICRO_BUILD);
        let profiles = workspace.target_directory.join("micro");
        std::fs::create_dir_all(&profiles)?;
        Ok(Self { root: workspace.workspace_root, program, profiles })
    }

    fn baseline(&self) -> PathBuf {
        self.root.join(BASELINE)
    }

    /// Runs every case, as many at a time as there are processors.
    fn count(&self) -> Result<Baseline> {
        let list = output(Command::new(&self.program).arg("--list"))?;
        let cases: Vec<(&str, u64)> = list.lines().map(parse_case).collect::<Result<_>>()?;
        let waiting = Mutex::new(cases.into_iter());
        let next = || waiting.lock().ok()?.next();
        let work = || {
            let counts = std::iter::from_fn(next);
            counts.map(|(name, runs)| Ok((name.to_owned(), self.run(name)? / runs))).collect()
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let counts: Vec<Result<Vec<(String, u64)>>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("it does not panic")).collect()
        });
        let counts: Vec<Vec<(String, u64)>> = counts.into_iter().collect::<Result<_>>()?;
        let instructions = counts.into_iter().flatten().collect();
        Ok(Baseline { made_with: self.made_with()?, instructions })
    }

    /// Instructions of all counted runs of a case.
    fn run(&self, case: &str) -> Result<u64> {
        let profile = self.profiles.join(format!("{}.out", case.replace('/', "-")));
        output(
            self.valgrind()
                .args(["--tool=callgrind", "--collect-atstart=no"])
                .arg("--toggle-collect=*relay_micro::measured*")
                .arg(format!("--callgrind-out-file={}", profile.display()))
                .arg(&self.program)
                .arg(case),
        )?;
        let profile = std::fs::read_to_string(&profile).context("callgrind wrote nothing")?;
        parse_total(&profile).with_context(|| format!("callgrind counted nothing in {case}"))
    }

    /// The environment lies on the stack, whose place the choice of copying code depends on.
    fn valgrind(&self) -> Command {
        let mut command = Command::new("valgrind");
        command
            .arg("--quiet")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    fn made_with(&self) -> Result<MadeWith> {
        let manifest = std::fs::read_to_string(self.root.join("Cargo.toml"))?;
        let none = ["--tool=none"];
        let processor = output(self.valgrind().args(none).arg(&self.program).arg("--processor"))?;
        let libc = output(Command::new("getconf").arg("GNU_LIBC_VERSION"));
        Ok(MadeWith {
            rustc: output(Command::new("rustc").arg("--version"))?.trim().to_owned(),
            profile: parse_profile(&manifest)?,
            libc: libc.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            processor: processor.trim().to_owned(),
        })
    }
}

impl MadeWith {
    /// A difference that a commit makes: compiler or settings.
    fn build_differs(&self, now: &Self) -> Option<String> {
        differs([("rustc", &self.rustc, &now.rustc), ("profile", &self.profile, &now.profile)])
    }

    /// What a case may take more. With another C library its copies are other code, a few
    /// instructions each: what is wrong by much is seen all the same. With another processor
    /// everything may be, and there is nothing to judge.
    fn tolerance_percent(&self, now: &Self) -> Option<u64> {
        let is_same = self.libc == now.libc;
        let tolerance = if is_same { TOLERANCE_PERCENT } else { FOREIGN_TOLERANCE_PERCENT };
        (self.processor == now.processor).then_some(tolerance)
    }

    /// A difference that a machine makes.
    fn machine_differs(&self, now: &Self) -> Option<String> {
        let processor = ("processor", &self.processor, &now.processor);
        differs([("libc", &self.libc, &now.libc), processor])
    }
}

fn differs(pairs: [(&str, &String, &String); 2]) -> Option<String> {
    let different = pairs.iter().filter(|(_, kept, now)| kept != now);
    let told: Vec<String> = different
        .map(|(what, kept, now)| format!("the baseline was made with {what} {kept}, this is {now}"))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

impl Baseline {
    /// The file's text.
    fn write(&self) -> String {
        let MadeWith { rustc, profile, libc, processor } = &self.made_with;
        let mut text = format!(
            "# Instructions of one run of each case, counted by callgrind.\n\
             # `cargo xtask micro --keep` writes this file; see docs/checks.md.\n\n\
             [made_with]\nrustc = {rustc:?}\nprofile = {profile:?}\nlibc = {libc:?}\n\
             processor = {processor:?}\n\n[instructions]\n"
        );
        for (name, count) in &self.instructions {
            writeln!(text, "{name:?} = {count}").expect("strings grow");
        }
        text
    }
}

fn compare(
    kept: &BTreeMap<String, u64>,
    now: &BTreeMap<String, u64>,
    tolerance_percent: u64,
) -> Comparison {
    let mut comparison = Comparison::default();
    let mut tell = |name: &str, before: &str, after: &str, change: &str| {
        writeln!(comparison.table, "{name:<28} {before:>10} {after:>10} {change:>9}")
            .expect("strings grow");
    };
    tell("instructions", "baseline", "now", "change");
    for (name, &after) in now {
        let Some(&before) = kept.get(name) else {
            tell(name, "-", &after.to_string(), "new");
            comparison.worse.push(format!("{name} is not in {BASELINE}"));
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let percent = (after as f64 / before as f64 - 1.0) * 100.0;
        let change = format!("{percent:+.2} %");
        tell(name, &before.to_string(), &after.to_string(), &change);
        let line = format!("{name}: {before} before, {after} now, {change}");
        if after * 100 > before * (100 + tolerance_percent) {
            comparison.worse.push(line);
        } else if after * 100 < before * (100 - tolerance_percent) {
            comparison.better.push(line);
        }
    }
    for name in kept.keys().filter(|name| !now.contains_key(*name)) {
        comparison.worse.push(format!("{name} is in {BASELINE}, and no case"));
    }
    comparison
}

/// A line of `relay-micro --list`: the name, and how often it is run.
fn parse_case(line: &str) -> Result<(&str, u64)> {
    let (name, runs) = line.split_once(' ').context("relay-micro lists names with counts")?;
    Ok((name, runs.parse().context("relay-micro lists names with counts")?))
}

/// What callgrind's file says at its end. Source: valgrind's manual, "Callgrind format".
fn parse_total(profile: &str) -> Option<u64> {
    let line = profile.lines().rev().find_map(|line| line.strip_prefix("totals: "))?;
    line.split_whitespace().next()?.parse().ok().filter(|&total| total > 0)
}

/// The settings of the profile `bench`, which stands on `release`.
fn parse_profile(manifest: &str) -> Result<String> {
    let manifest: toml::Table = manifest.parse().context("the root manifest")?;
    let profiles = manifest.get("profile").and_then(toml::Value::as_table);
    let settings = |name| profiles?.get(name)?.as_table();
    let mut all = BTreeMap::new();
    for profile in ["release", "bench"].into_iter().filter_map(settings) {
        all.extend(profile.iter().map(|(name, value)| (name.as_str(), setting(value))));
    }
    let all: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(all.join(" "))
}

fn setting(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        other => format!("{other:?}"),
    }
}

/// What a program prints, if it succeeds.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let program = Path::new(&program).file_name().unwrap_or_default().display();
    let output = command.output().with_context(|| format!("{program} does not start"))?;
    ensure!(
        output.status.success(),
        "{program} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How much more a case may take. Source: a change of one instruction in fifty is seen, and what
/// the compiler decides differently elsewhere is mostly less.
const TOLERANCE_PERCENT: u64 = 2;
/// The same with another C library than the baseline's.
const FOREIGN_TOLERANCE_PERCENT: u64 = 25;
const BASELINE: &str = "perf/micro/baseline.toml";
const AGAIN: &str = "`cargo xtask micro --keep` makes this the baseline";

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
    }

    #[test]
    fn a_case_that_takes_more_is_named_with_both_counts_and_the_change() {
        let kept = counts(&[("scan/4KiB", 1000), ("turn/4KiB", 1000), ("unmask/4KiB", 1000)]);
        let now = counts(&[("scan/4KiB", 1021), ("turn/4KiB", 1020), ("unmask/4KiB", 979)]);
        let comparison = compare(&kept, &now, TOLERANCE_PERCENT);
        assert_eq!(comparison.worse, ["scan/4KiB: 1000 before, 1021 now, +2.10 %"]);
        assert_eq!(comparison.better, ["unmask/4KiB: 1000 before, 979 now, -2.10 %"]);
        assert_eq!(comparison.table.lines().count(), 4);
    }

    #[test]
    fn cases_and_baseline_name_each_other() {
        let comparison = compare(&counts(&[("old", 1)]), &counts(&[("new", 1)]), TOLERANCE_PERCENT);
        let [new, old] = &*comparison.worse else { panic!("{comparison:?}") };
        assert!(new.starts_with("new is not in") && old.starts_with("old is in"), "{new} {old}");
    }

    #[test]
    fn another_compiler_is_told_and_another_machine_too() {
        let kept = MadeWith { rustc: "1.95".into(), libc: "2.36".into(), ..MadeWith::default() };
        let mut now = kept.clone();
        assert_eq!((kept.build_differs(&now), kept.machine_differs(&now)), (None, None));
        now.rustc = "1.96".into();
        now.libc = "2.41".into();
        let build = kept.build_differs(&now).expect("it differs");
        assert_eq!(build, "the baseline was made with rustc 1.95, this is 1.96");
        let machine = kept.machine_differs(&now).expect("it differs");
        assert_eq!(machine, "the baseline was made with libc 2.36, this is 2.41");
    }

    #[test]
    fn a_gross_regression_fails_with_another_c_library_too() {
        let kept = MadeWith { libc: "2.36".into(), ..MadeWith::default() };
        let elsewhere = MadeWith { libc: "2.41".into(), ..MadeWith::default() };
        let tolerance = kept.tolerance_percent(&elsewhere).expect("it is judged");
        let worse = |now: u64| {
            let comparison =
                compare(&counts(&[("scan", 1000)]), &counts(&[("scan", now)]), tolerance);
            comparison.worse.len()
        };
        assert_eq!((worse(1500), worse(1030)), (1, 0));
        assert_eq!(kept.tolerance_percent(&kept.clone()), Some(TOLERANCE_PERCENT));
        let other = MadeWith { processor: "none".into(), ..kept.clone() };
        assert_eq!(kept.tolerance_percent(&other), None);
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let made_with = MadeWith { rustc: "rustc 1.95 (\"x\")".into(), ..MadeWith::default() };
        let kept = Baseline { made_with, instructions: counts(&[("scan/4KiB", 12)]) };
        assert_eq!(toml::from_str::<Baseline>(&kept.write()).expect("it is TOML"), kept);
    }

    #[test]
    fn totals_are_those_of_the_whole_run_and_never_nothing() {
        assert_eq!(parse_total("events: Ir\nfn=(1)\n1 5\n\ntotals: 4711\n"), Some(4711));
        assert_eq!(parse_total("events: Ir\ntotals: 0\n"), None);
        assert_eq!(parse_total("events: Ir\n"), None);
    }

    #[test]
    fn the_profile_is_the_release_with_its_own_settings_over_it() {
        let manifest = "[profile.release]\nlto = \"fat\"\npanic = \"abort\"\n\
                        [profile.bench]\nlto = \"off\"\n";
        assert_eq!(parse_profile(manifest).expect("it is TOML"), "lto=off panic=abort");
    }
}
