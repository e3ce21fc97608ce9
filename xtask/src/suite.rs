//! The test programs of the workspace: built once, run in two portions.
//!
//! `cargo test -p x` resolves features for `x` alone and so builds its dependencies again. Here
//! Cargo builds the tests of the whole workspace, and their programs are run from here.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::workspace::cargo;

/// Every test program.
pub(crate) struct Suite {
    programs: Vec<Program>,
}

/// One test program.
#[derive(Debug, Eq, PartialEq)]
struct Program {
    executable: PathBuf,
    /// The package's folder: where tests are run, as Cargo does.
    folder: PathBuf,
}

/// What a portion of the suite came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Suite {
    /// Builds the tests of the workspace.
    pub(crate) fn build() -> Result<Self> {
        let mut child = Command::new(cargo())
            .args(["test", "--workspace", "--no-run"])
            .arg("--message-format=json-render-diagnostics")
            .stdout(Stdio::piped())
            .spawn()
            .context("cargo does not start")?;
        let stdout = child.stdout.take().context("cargo has no output")?;
        let lines: Vec<String> = BufReader::new(stdout).lines().collect::<Result<_, _>>()?;
        ensure!(child.wait()?.success(), "the tests do not build");
        let programs = lines.iter().filter_map(|line| parse_artifact(line)).collect();
        Ok(Self { programs })
    }

    /// Runs unit, property and integration tests of every package but the end-to-end tests, then
    /// the examples in the documentation.
    pub(crate) fn run_tests(&self) -> Result<()> {
        let mut tally = Tally::default();
        for program in self.programs.iter().filter(|program| !program.is_end_to_end()) {
            tally.add(program.run(&[])?);
        }
        println!("documentation examples:");
        let mut doctests = Command::new(cargo());
        doctests.args(["test", "--workspace", "--doc", "--quiet"]);
        tally.add(run_counting(&mut doctests)?);
        tally.close("tests")
    }

    /// Runs the end-to-end tests against a relay with the given variables.
    pub(crate) fn run_end_to_end(&self, variables: &[(&str, &str)]) -> Result<()> {
        let mut tally = Tally::default();
        for program in self.programs.iter().filter(|program| program.is_end_to_end()) {
            tally.add(program.run(variables)?);
        }
        ensure!(tally.passed + tally.failed > 0, "there are no end-to-end tests");
        tally.close("end-to-end tests")
    }
}

impl Program {
    fn is_end_to_end(&self) -> bool {
        ["tests/e2e", "tests/chaos"].iter().any(|folder| self.folder.ends_with(folder))
    }

    fn run(&self, variables: &[(&str, &str)]) -> Result<Tally> {
        println!("{}:", name(&self.executable));
        let mut command = Command::new(&self.executable);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .envs(variables.iter().copied());
        run_counting(&mut command)
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    fn close(self, what: &str) -> Result<()> {
        let Self { passed, failed, ignored } = self;
        println!("{what}: {passed} passed, {failed} failed, {ignored} ignored");
        ensure!(failed == 0, "{failed} {what} failed");
        Ok(())
    }
}

/// The program's name without the hash that Cargo appends.
fn name(executable: &Path) -> String {
    let file = executable.file_name().unwrap_or_default().to_string_lossy();
    file.rsplit_once('-').map_or(file.to_string(), |(name, _)| name.to_owned())
}

/// Runs a test program, shows what it prints, and counts. A program that dies counts as one
/// failure.
fn run_counting(command: &mut Command) -> Result<Tally> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("a test does not start")?;
    let stdout = child.stdout.take().context("a test has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if is_worth_showing(&line) {
            println!("  {line}");
        }
        tally.add(parse_result(&line).unwrap_or_default());
    }
    if !child.wait()?.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// Passing tests are counted, not listed.
fn is_worth_showing(line: &str) -> bool {
    let is_pass = line.starts_with("test ") && line.ends_with("... ok");
    let is_frame = line.trim().is_empty() || line.starts_with("running ");
    !is_pass && !is_frame
}

/// The counts in `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
fn parse_result(line: &str) -> Option<Tally> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split("; ") {
        let (number, what) = count.split_once(' ')?;
        match what {
            "passed" => tally.passed = number.parse().ok()?,
            "failed" => tally.failed = number.parse().ok()?,
            "ignored" => tally.ignored = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

/// The test program that a line of Cargo's JSON announces.
fn parse_artifact(line: &str) -> Option<Program> {
    #[derive(Deserialize)]
    struct Artifact {
        manifest_path: PathBuf,
        executable: Option<PathBuf>,
        profile: Profile,
    }
    #[derive(Deserialize)]
    struct Profile {
        test: bool,
    }
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    if !artifact.profile.test {
        return None;
    }
    Some(Program {
        executable: artifact.executable?,
        folder: artifact.manifest_path.parent()?.to_owned(),
    })
}

/// Runs the unit tests and documentation examples.
pub(crate) fn test() -> Result<()> {
    Suite::build()?.run_tests()
}

/// Runs the end-to-end tests against the release build, once per driver, and on one of them with
/// every relay as two processes.
pub(crate) fn end_to_end(relay: &Path, drivers: &[&str], apart: &str) -> Result<()> {
    let Some(relay) = relay.to_str().filter(|_| relay.is_file()) else {
        bail!("{} is missing: cargo build --release --bins", relay.display());
    };
    let suite = Suite::build()?;
    for driver in drivers {
        println!("driver {driver}:");
        suite.run_end_to_end(&[("RELAY_BIN", relay), ("RELAY_DRIVER", driver)])?;
    }
    println!("driver {apart}, data plane and control plane apart:");
    let variables = [("RELAY_BIN", relay), ("RELAY_DRIVER", apart), ("RELAY_SHAPE", "two")];
    suite.run_end_to_end(&variables)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let line = "test result: FAILED. 11 passed; 2 failed; 1 ignored; 0 measured; \
                    3 filtered out; finished in 0.01s";
        let tally = Tally { passed: 11, failed: 2, ignored: 1 };
        assert_eq!(parse_result(line), Some(tally));
        assert_eq!(parse_result("test result of mine"), None);
    }

    #[test]
    fn only_test_programs_are_taken_from_cargo() {
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/r/a/Cargo.toml",
                "profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let program =
            Program { executable: "/r/target/debug/deps/a-0f".into(), folder: "/r/a".into() };
        let executable = "\"/r/target/debug/deps/a-0f\"";
        assert_eq!(parse_artifact(&line(true, executable)), Some(program));
        assert_eq!(parse_artifact(&line(false, executable)), None);
        assert_eq!(parse_artifact(&line(true, "null")), None);
        assert_eq!(parse_artifact("{\"reason\":\"build-finished\",\"success\":true}"), None);
    }

    #[test]
    fn a_program_that_dies_counts_as_a_failure() {
        let tally = run_counting(&mut Command::new("false")).expect("it starts");
        assert_eq!(tally.failed, 1);
    }
}
