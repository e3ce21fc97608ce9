//! The steps, and which of them make up CI and the nightly run.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::step::Step;
use crate::workspace::{Workspace, cargo};
use crate::{autobahn, components, micro, suite, tidy};

/// A workspace of its own beside ours.
const RIVALS: &str = "perf/rivals/Cargo.toml";

/// Drivers that every whole-process check runs on.
pub(crate) const DRIVERS: [&str; 2] = ["uring", "epoll"];

/// The driver on which everything runs once more with data plane and control plane apart: what lies
/// between them is the same on every driver, and it takes as long again. So it is with attacks
/// behind TLS, which is above the driver, for a change; the nightly makes them on both.
const APART_DRIVER: &str = "uring";

/// Groups and single scenarios that demand a backplane, which the relay does not have: they are
/// run and listed, and do not fail the step. Every other scenario does.
const AHEAD: [&str; 7] = [
    "redis",
    "server",
    "robust/bus-frame-order",
    "robust/bus-roundtrip-redis",
    "robust/bus-roundtrip-server",
    "robust/presence-sync-keeps-target-redis",
    "robust/pull-cut-recovers",
];

/// Makes steps for one checkout.
pub(crate) struct Pipeline {
    target: PathBuf,
    root: PathBuf,
}

impl Pipeline {
    /// Asks Cargo where things are, and goes to the root.
    pub(crate) fn new() -> Result<Self> {
        let workspace = Workspace::load()?;
        // Steps name files from the root on, wherever they were called from.
        std::env::set_current_dir(&workspace.workspace_root)?;
        Ok(Self { target: workspace.target_directory, root: workspace.workspace_root })
    }

    /// Everything a change must pass. Cheap steps come first; two builds serve all the others.
    pub(crate) fn ci(&self) -> Result<Vec<Step>> {
        let mut steps = vec![
            Step::ours("components", "cargo xtask components", components::ensure_present)
                .advise("install what is named above, or run as root"),
            Self::format(),
            Self::format_fuzz(),
            Self::format_rivals(),
            tidy_step(),
        ];
        steps.extend(Self::deny());
        steps.push(Self::lint());
        steps.push(Self::doc());
        steps.push(
            Step::ours("tests", "cargo xtask test", suite::test)
                .advise("run the failing test alone: cargo test -p <crate> <name>"),
        );
        steps.push(self.fuzz_smoke()?);
        steps.extend(Self::micro(false));
        steps.push(Self::build());
        // The same seeds each time: a change is judged by what it changes. The nightly explores.
        steps.push(self.simulator(300, Some(1))?);
        steps.extend(self.conformance(None, &[])?);
        steps.extend(self.conformance(Some(APART_DRIVER), &["--shape", "two"])?);
        steps
            .push(Step::ours("end to end", "cargo xtask e2e", end_to_end).advise(
                "run one alone: RELAY_BIN=… RELAY_DRIVER=… cargo test -p relay-e2e <name>",
            ));
        steps.extend(self.chaos(&[APART_DRIVER], &[])?);
        Ok(steps)
    }

    /// What takes too long for every change.
    pub(crate) fn nightly(&self) -> Result<Vec<Step>> {
        let mut steps = vec![Self::build(), self.simulator(10_000, None)?];
        steps.extend(self.conformance(None, &["--env", "RELAY_SHARDS=4"])?);
        steps.extend(self.conformance(None, &["--shape", "two", "--env", "RELAY_SHARDS=4"])?);
        steps.push(Self::build_echo());
        steps.push(autobahn_step());
        steps.extend(self.chaos(&DRIVERS, &["--seconds", "2", "--rounds", "5"])?);
        steps.push(
            Step::program(
                "loom",
                &cargo(),
                &["test", "--release", "-p", "relay-mailbox", "--test", "doorbell"],
            )
            .with("RUSTFLAGS", "--cfg loom")
            .with("CARGO_TARGET_DIR", self.path(&self.target.join("loom"))?)
            .advise("the lanes lose a wake-up in the interleaving printed above"),
        );
        steps.push(
            Step::program("miri", "cargo", &["+nightly", "miri", "test", "-p", "relay-mailbox"])
                .with("CARGO_TARGET_DIR", self.path(&self.target.join("miri"))?)
                .advise("if miri is missing: rustup +nightly component add miri"),
        );
        steps.extend(self.fuzz(600)?);
        steps.extend(self.rivals()?);
        steps.push(
            Step::program("advisories", &cargo(), &["deny", "check"])
                .advise("if cargo-deny is missing: cargo install cargo-deny --locked"),
        );
        Ok(steps)
    }

    /// rustfmt and clippy.
    pub(crate) fn style() -> Vec<Step> {
        vec![Self::format(), Self::format_fuzz(), Self::format_rivals(), Self::lint()]
    }

    /// The seeded simulator, from a given seed or from one the clock gives.
    pub(crate) fn simulator(&self, seeds: u32, from: Option<u64>) -> Result<Step> {
        let mut arguments = vec!["--seeds".to_owned(), seeds.to_string()];
        if let Some(from) = from {
            arguments.extend(["--from".to_owned(), from.to_string()]);
        }
        let program = self.release("relay-sim")?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let step = Step::program("simulator", &program, &arguments);
        Ok(step.advise("the seed printed above fails the same way every time: relay-sim --seed N"))
    }

    /// Records a relay under load, and draws where its time goes. Crates of that build stay apart,
    /// so that functions do: it has a place of its own, because the release has the same one.
    pub(crate) fn flamegraph(&self, extra: &[String]) -> Result<[Step; 2]> {
        let folder = self.target.join("recorded");
        let build = ["build", "--profile", "bench", "-p", "relay", "-p", "relay-load"];
        let build = [&build[..], &["--target-dir", self.path(&folder)?]].concat();
        let program = |name: &str| folder.join("release").join(name);
        let (relay, load) = (program("relay"), program("relay-load"));
        let (relay, load) = (self.path(&relay)?, self.path(&load)?);
        let mut arguments = vec!["run", "--quiet", "--package", "relay-flamegraph", "--"];
        arguments.extend(["--relay", relay, "--load", load]);
        arguments.extend(extra.iter().map(String::as_str));
        Ok([
            Step::program("build to record", &cargo(), &build),
            Step::program("flame graphs", &cargo(), &arguments),
        ])
    }

    /// The recorded scenarios, once per driver.
    pub(crate) fn conformance(&self, driver: Option<&str>, extra: &[&str]) -> Result<Vec<Step>> {
        let program = self.release("relay-conformance")?;
        let relay = self.release("relay")?;
        let drivers = DRIVERS.iter().filter(|name| driver.is_none_or(|only| only == **name));
        let steps = drivers.map(|driver| {
            let ahead = AHEAD.iter().flat_map(|name| ["--report-only", name]);
            let mut arguments = vec!["--relay", relay.as_str(), "--driver", driver];
            arguments.extend(ahead.chain(extra.iter().copied()));
            Step::program(&format!("conformance, {driver}"), &program, &arguments)
                .advise("run one alone: relay-conformance --driver … --scenario <group>/<name>")
        });
        Ok(steps.collect())
    }

    /// Every class of attack, once per driver and once more behind TLS on each of these.
    pub(crate) fn chaos(&self, behind_tls: &[&str], extra: &[&str]) -> Result<Vec<Step>> {
        let program = self.release("relay-chaos")?;
        let plain = DRIVERS.iter().map(|driver| (driver, "", None));
        let encrypted = behind_tls.iter().map(|driver| (driver, ", TLS", Some("--tls")));
        let steps = plain.chain(encrypted).map(|(driver, way, flag)| {
            let mut arguments = vec!["--driver", driver];
            arguments.extend(flag.into_iter().chain(extra.iter().copied()));
            Step::program(&format!("chaos, {driver}{way}"), &program, &arguments)
                .advise("run one class alone: relay-chaos --driver … [--tls] --only <class>")
        });
        Ok(steps.collect())
    }

    /// The fuzz targets' bodies over their corpus and seeded mutations, without a fuzzer.
    pub(crate) fn fuzz_smoke(&self) -> Result<Step> {
        let manifest = self.root.join("fuzz/Cargo.toml");
        let target = self.target.join("fuzz");
        let arguments = [
            &["test", "--release", "--lib", "--tests"],
            ["--manifest-path", self.path(&manifest)?].as_slice(),
            &["--target-dir", self.path(&target)?],
        ]
        .concat();
        let step = Step::program("fuzz smoke", &cargo(), &arguments);
        Ok(step.advise("add the input printed above as a vector, then fix the parser"))
    }

    /// Every fuzz target under libFuzzer for `secs` seconds.
    pub(crate) fn fuzz(&self, secs: u32) -> Result<Vec<Step>> {
        let path = self.root.join("fuzz/Cargo.toml");
        let text = std::fs::read_to_string(&path).context("fuzz/Cargo.toml")?;
        let manifest: toml::Table = text.parse().context("fuzz/Cargo.toml")?;
        let bins = manifest.get("bin").and_then(toml::Value::as_array);
        let names = bins.into_iter().flatten().filter_map(|bin| bin.get("name")?.as_str());
        let limit = format!("-max_total_time={secs}");
        let target = self.target.join("fuzz");
        let unpack = [
            &["run", "--release", "--example", "corpus"],
            ["--manifest-path", self.path(&path)?].as_slice(),
            &["--target-dir", self.path(&target)?, "--", "unpack"],
        ]
        .concat();
        let steps = names.map(|name| {
            // libFuzzer's instrumentation is unstable; the pinned compiler has it behind this
            // variable.
            Step::program(
                &format!("fuzz {name}"),
                "cargo",
                &["fuzz", "run", "--features", "libfuzzer", name, "--", &limit],
            )
            .with("RUSTC_BOOTSTRAP", "1")
            .advise("minimise the input (cargo fuzz tmin), add it as a vector, fix the parser")
        });
        let unpack = Step::program("fuzz, kept inputs", &cargo(), &unpack);
        Ok(std::iter::once(unpack).chain(steps).collect())
    }

    /// The rivals, a workspace of their own: what clippy says, and whether they do the job.
    pub(crate) fn rivals(&self) -> Result<Vec<Step>> {
        let target = self.path(&self.target)?;
        let place = ["--manifest-path", RIVALS, "--target-dir", target];
        let lint = [&["clippy", "--all-targets"], &place[..], &["--", "-D", "warnings"]].concat();
        let test = [&["test"], &place[..]].concat();
        Ok(vec![
            Step::program("clippy, rivals", &cargo(), &lint),
            Step::program("rivals", &cargo(), &test)
                .advise("a rival that does not do the job proves nothing: mend it"),
        ])
    }

    /// The programs, as they ship. One build for simulator, conformance and end-to-end tests.
    pub(crate) fn build() -> Step {
        let mut arguments = vec!["build", "--release", "--workspace", "--bins"];
        // Programs that are not run by those who run these: linking each takes a minute.
        arguments.extend(
            ["xtask", "relay-micro", "relay-flamegraph", "relay-autobahn"]
                .iter()
                .flat_map(|name| ["--exclude", name]),
        );
        Step::program("release build", &cargo(), &arguments)
    }

    /// Counts instructions, and compares or keeps them.
    pub(crate) fn micro(keep: bool) -> [Step; 2] {
        let arguments: Vec<&str> = MICRO_BUILD.split(' ').skip(1).collect();
        let build = Step::program("micro build", &cargo(), &arguments);
        let count = match keep {
            false => Step::ours("micro", "cargo xtask micro", micro::check).advise(
                "callgrind_annotate target/micro/<case>.out says where; if it is worth it, keep it",
            ),
            true => Step::ours("micro", "cargo xtask micro --keep", micro::keep),
        };
        [build, count]
    }

    /// The two programs that a measurement needs.
    pub(crate) fn build_bench() -> Step {
        let arguments = ["build", "--release", "-p", "relay", "-p", "relay-load"];
        Step::program("release build", &cargo(), &arguments)
    }

    /// Every scenario of the load, one after the other.
    pub(crate) fn bench(&self, extra: &[&str]) -> Result<Step> {
        let program = self.release("relay-load")?;
        let arguments = [&["run", "--all"], extra].concat();
        let step = Step::program("scenarios", &program, &arguments);
        Ok(step.advise(
            "one alone: target/release/relay-load run perf/scenarios/NAME.toml; where \
                        the machine was busy, wait or add -- --allow-bottleneck",
        ))
    }

    /// The echo server of the Autobahn suite alone.
    pub(crate) fn build_echo() -> Step {
        Step::program("echo server", &cargo(), &["build", "--release", "-p", "relay-autobahn"])
    }

    /// Documentation, where a broken link is an error.
    pub(crate) fn doc() -> Step {
        Step::program("documentation", &cargo(), &["doc", "--workspace", "--no-deps"])
            .with("RUSTDOCFLAGS", "-D warnings")
            .advise("mostly links: name items by their path, private ones in plain backticks")
    }

    /// The fuzz targets are a workspace of their own.
    fn format_fuzz() -> Step {
        let arguments = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
        Step::program("format, fuzz", &cargo(), &arguments)
            .advise("cargo fmt --manifest-path fuzz/Cargo.toml")
    }

    fn format_rivals() -> Step {
        let arguments = ["fmt", "--manifest-path", RIVALS, "--check"];
        Step::program("format, rivals", &cargo(), &arguments)
            .advise("cargo fmt --manifest-path perf/rivals/Cargo.toml")
    }

    fn format() -> Step {
        Step::program("format", &cargo(), &["fmt", "--all", "--check"]).advise("cargo fmt --all")
    }

    fn lint() -> Step {
        let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        Step::program("clippy", &cargo(), &arguments)
            .advise("fix it, or #[expect(lint, reason = \"…\")] where the lint is wrong")
    }

    /// cargo-deny where it is installed; tidy has checked all of it but the advisories.
    fn deny() -> Option<Step> {
        components::is_in_path("cargo-deny").then(|| {
            Step::program("cargo deny", &cargo(), &["deny", "check"])
                .advise("raise the dependency, or write the exception with its reason in deny.toml")
        })
    }

    fn release(&self, program: &str) -> Result<String> {
        Ok(self.path(&self.target.join("release").join(program))?.to_owned())
    }

    fn path<'a>(&self, path: &'a std::path::Path) -> Result<&'a str> {
        path.to_str().context("the checkout's path is not UTF-8")
    }
}

/// Builds the program whose instructions are counted: not the release build, whose one unit of code
/// takes minutes. It shares with that what C compilers make.
pub(crate) const MICRO_BUILD: &str = "cargo build --profile bench -p relay-micro";

fn tidy_step() -> Step {
    Step::ours("tidy", "cargo xtask tidy", tidy::run)
        .advise("each finding above names its rule; docs/checks.md says what the rules are for")
}

/// The Autobahn suite against an echo server that is built already.
pub(crate) fn autobahn_step() -> Step {
    Step::ours("autobahn", "cargo xtask autobahn", autobahn::run)
        .advise("target/autobahn/reports has a page for each case: what was sent and answered")
}

/// The end-to-end tests on both drivers.
pub(crate) fn end_to_end() -> Result<()> {
    let relay = Workspace::load()?.target_directory.join("release/relay");
    suite::end_to_end(&relay, &DRIVERS, APART_DRIVER)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn conformance_runs_on_every_driver_and_excuses_what_is_ahead() {
        let pipeline = Pipeline { target: "/t".into(), root: "/r".into() };
        let steps = pipeline.conformance(None, &["--jobs", "1"]).expect("the paths are UTF-8");
        assert_eq!(steps.len(), DRIVERS.len());
        for (step, driver) in steps.iter().zip(DRIVERS) {
            let line = step.command_line();
            assert!(line.contains(&format!("--driver {driver} ")), "{line}");
            assert!(line.ends_with(" --jobs 1"), "{line}");
            for name in AHEAD {
                assert!(line.contains(&format!("--report-only {name} ")), "{line}");
            }
        }
    }

    #[test]
    fn what_is_ahead_exists() {
        let scenarios =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/scenarios");
        for name in AHEAD {
            let path = scenarios.join(name);
            assert!(path.is_dir() || path.with_extension("json").is_file(), "{name}");
        }
    }
}
