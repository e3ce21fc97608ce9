//! The Autobahn test suite against our codec.
//!
//! The suite is a Python 2 program. It is installed at pinned versions into a virtual environment
//! below the target directory, drives the echo server of `tests/autobahn`, and leaves its verdict
//! as JSON.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::workspace::Workspace;

/// Installs the suite where it is missing, runs it and judges the outcome.
///
/// Errors: no Python 2.7, or a verdict other than `OK` and `INFORMATIONAL`.
pub(crate) fn run() -> Result<()> {
    judge().map(|_| ())
}

/// As [`run`], and keeps the outcome as `docs/autobahn.md`.
pub(crate) fn run_and_keep() -> Result<()> {
    let verdicts = judge()?;
    let report = report(&verdicts, &line_of("date", &["-u", "+%F"])?, &commit()?);
    fs::write(REPORT, report).context(REPORT)?;
    println!("written: {REPORT}");
    Ok(())
}

/// Each way of receiving with the suite's verdict on every case.
type Verdicts = BTreeMap<String, BTreeMap<String, Verdict>>;

/// What the suite says about one case.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    /// The answers.
    behavior: String,
    /// The end of the connection.
    behavior_close: String,
}

impl Verdict {
    fn is_good(&self) -> bool {
        [&self.behavior, &self.behavior_close].iter().all(|word| GOOD.contains(&word.as_str()))
    }
}

fn judge() -> Result<Verdicts> {
    let target = Workspace::load()?.target_directory;
    let suite = install(&target.join("autobahn"))?;
    let mut server = Server::start(&target.join("release/relay-autobahn"))?;
    let outcome = drive(&suite, &server.addresses);
    server.stop();
    let verdicts = outcome?;
    let cases = verdicts.values().flatten();
    let bad: Vec<&str> =
        cases.filter(|(_, verdict)| !verdict.is_good()).map(|(case, _)| case.as_str()).collect();
    for (agent, cases) in &verdicts {
        println!("{agent}: {}", counts(cases.values()));
    }
    ensure!(bad.is_empty(), "cases not passed: {}", bad.join(", "));
    Ok(verdicts)
}

/// Where the suite lives.
struct Installed {
    folder: PathBuf,
    wstest: PathBuf,
}

/// Makes the virtual environment, unless it is there and made of the same requirements.
fn install(folder: &Path) -> Result<Installed> {
    let environment = folder.join("venv");
    let stamp = environment.join("requirements.txt");
    let wanted = fs::read_to_string(REQUIREMENTS).context(REQUIREMENTS)?;
    let wstest = environment.join("bin/wstest");
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == wanted) {
        return Ok(Installed { folder: folder.to_owned(), wstest });
    }
    let python = python()?;
    let tools = folder.join("virtualenv");
    // The last release that makes environments of Python 2.
    pip(Command::new(&python).args(["-m", "pip"]), &["virtualenv==20.15.1", "--target"], &tools)?;
    let made = Command::new(&python)
        .env("PYTHONPATH", &tools)
        .args(["-m", "virtualenv", "--quiet", "--clear"])
        .arg(&environment)
        .status()?;
    ensure!(made.success(), "virtualenv ended with {made}");
    // Pinned to the last, so nothing is left to resolve.
    let flags = ["--no-deps", "--requirement"];
    pip(&mut Command::new(environment.join("bin/pip")), &flags, Path::new(REQUIREMENTS))?;
    fs::write(stamp, wanted)?;
    Ok(Installed { folder: folder.to_owned(), wstest })
}

fn pip(pip: &mut Command, flags: &[&str], last: &Path) -> Result<()> {
    let quiet = ["install", "--quiet", "--disable-pip-version-check"];
    let installed = pip.args(quiet).args(flags).arg(last).status().context("pip")?;
    ensure!(installed.success(), "pip ended with {installed}");
    Ok(())
}

/// The first Python 2.7 that runs: one that is named, in the path, or of pyenv.
fn python() -> Result<PathBuf> {
    let named = std::env::var_os("PYTHON2").map(PathBuf::from);
    let versions = std::env::home_dir().unwrap_or_default().join(".pyenv/versions");
    let of_pyenv = fs::read_dir(versions).into_iter().flatten().flatten().filter_map(|version| {
        let is_2_7 = version.file_name().to_string_lossy().starts_with("2.7");
        is_2_7.then(|| version.path().join("bin/python2.7"))
    });
    let mut candidates = named.into_iter().chain(["python2.7".into()]).chain(of_pyenv);
    let runs = |python: &PathBuf| {
        let output = Command::new(python).args(["-m", "pip", "--version"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    candidates.find(runs).context(
        "no Python 2.7 with pip, which the suite needs: pyenv install 2.7.18, or name one in \
         PYTHON2",
    )
}

/// The running echo server.
struct Server {
    child: Child,
    /// A name for each way of receiving, and where it is served.
    addresses: Vec<(String, String)>,
}

impl Server {
    fn start(program: &Path) -> Result<Self> {
        let flags = RECEIVE_BYTES.iter().flat_map(|bytes| ["--receive-bytes", bytes]);
        let mut child = Command::new(program)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let stdout = child.stdout.take().context("the echo server has no output")?;
        let lines = BufReader::new(stdout).lines().take(RECEIVE_BYTES.len());
        let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
        let names = RECEIVE_BYTES.iter().map(|bytes| format!("receives of {bytes} bytes"));
        let mut server = Self { child, addresses: names.zip(lines).collect() };
        if server.addresses.len() < RECEIVE_BYTES.len() {
            server.stop();
            bail!("the echo server does not listen");
        }
        Ok(server)
    }

    fn stop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Runs every case but those of compression, which the relay declines.
fn drive(suite: &Installed, addresses: &[(String, String)]) -> Result<Verdicts> {
    let outcome = suite.folder.join("reports");
    if outcome.exists() {
        fs::remove_dir_all(&outcome)?;
    }
    let servers: Vec<_> = addresses
        .iter()
        .map(|(agent, address)| json!({ "agent": agent, "url": format!("ws://{address}") }))
        .collect();
    let plan = json!({
        "outdir": outcome,
        "servers": servers,
        "cases": ["*"],
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    let plan_path = suite.folder.join("plan.json");
    fs::write(&plan_path, plan.to_string())?;
    let log_path = suite.folder.join("wstest.log");
    let log = File::create(&log_path)?;
    let ended = Command::new(&suite.wstest)
        .args(["--mode", "fuzzingclient", "--spec"])
        .arg(&plan_path)
        .current_dir(&suite.folder)
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("wstest does not start")?;
    ensure!(ended.success(), "wstest ended with {ended}; see {}", log_path.display());
    let index = outcome.join("index.json");
    let text = fs::read_to_string(&index).with_context(|| index.display().to_string())?;
    let verdicts: Verdicts = serde_json::from_str(&text).context("index.json")?;
    let is_whole = is_whole(&verdicts, addresses.len());
    ensure!(is_whole, "not every case ran; see {}", log_path.display());
    Ok(verdicts)
}

/// Whether every case ran against each of so many servers.
fn is_whole(verdicts: &Verdicts, servers: usize) -> bool {
    verdicts.len() == servers && verdicts.values().all(|cases| cases.len() == CASE_COUNT)
}

/// How many cases got which verdict, and which were not simply `OK`.
fn counts<'v>(verdicts: impl Iterator<Item = &'v Verdict>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for verdict in verdicts {
        let word = match verdict.is_good() {
            false if verdict.behavior == "OK" => verdict.behavior_close.as_str(),
            _ => verdict.behavior.as_str(),
        };
        *counts.entry(word).or_default() += 1;
    }
    let words = counts.iter().map(|(word, count)| format!("{count} {word}"));
    words.collect::<Vec<_>>().join(", ")
}

/// The outcome in a page.
fn report(verdicts: &Verdicts, date: &str, commit: &str) -> String {
    let suite = pinned_suite();
    let mut page = format!(
        "# The Autobahn test suite\n\n\
         What [Autobahn|Testsuite](https://github.com/crossbario/autobahn-testsuite) says about \
         our WebSocket codec.\nWritten by `cargo xtask autobahn --keep`; [checks.md](checks.md) \
         says how it runs.\n\n\
         * Date: {date}. Commit of the codec: {commit}.\n\
         * {suite}, every case but 12 and 13: compression, which the relay declines.\n\
         * The echo server of `tests/autobahn` runs the decoder of the shards twice: on receives \
         as\n  large as a shard's buffers, and on small ones, which cut frames everywhere.\n\n"
    );
    let agents: Vec<&String> = verdicts.keys().collect();
    page.push_str("| cases |");
    agents.iter().for_each(|agent| page.push_str(&format!(" {agent} |")));
    page.push_str("\n|---|");
    agents.iter().for_each(|_| page.push_str("---|"));
    for (number, title) in CHAPTERS {
        page.push_str(&format!("\n| {number} {title} |"));
        for cases in verdicts.values() {
            let chapter = cases.iter().filter(|(case, _)| case.split('.').next() == Some(number));
            page.push_str(&format!(" {} |", counts(chapter.map(|(_, verdict)| verdict))));
        }
    }
    page.push_str("\n| all |");
    for cases in verdicts.values() {
        page.push_str(&format!(" {} |", counts(cases.values())));
    }
    page.push_str(
        "\n\n`INFORMATIONAL` are cases in which the suite only notes what the server chose to \
         do.\n",
    );
    page
}

fn pinned_suite() -> String {
    let requirements = include_str!("../../tests/autobahn/requirements.txt");
    let suite = requirements.lines().find(|line| line.starts_with("autobahntestsuite=="));
    suite.unwrap_or_default().replace("==", " ")
}

/// The commit that last changed what is tested.
fn commit() -> Result<String> {
    let log = ["log", "-1", "--abbrev=12", "--format=%h", "--"];
    line_of("git", &[&log[..], &["dataplane/wire", "tests/autobahn"]].concat())
}

/// The one line a program prints.
fn line_of(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

const REPORT: &str = "docs/autobahn.md";
const REQUIREMENTS: &str = "tests/autobahn/requirements.txt";

/// As much as a shard's receive buffer holds, and a prime that falls into headers and characters.
const RECEIVE_BYTES: [&str; 2] = ["32768", "53"];

const GOOD: [&str; 2] = ["OK", "INFORMATIONAL"];

/// The cases without compression of the version that [`REQUIREMENTS`] pins: fewer ran only when it
/// gave up.
const CASE_COUNT: usize = 301;

/// The suite's chapters. It has no eighth.
const CHAPTERS: [(&str, &str); 9] = [
    ("1", "framing"),
    ("2", "pings and pongs"),
    ("3", "reserved bits"),
    ("4", "opcodes"),
    ("5", "fragmentation"),
    ("6", "UTF-8"),
    ("7", "closing"),
    ("9", "limits"),
    ("10", "miscellaneous"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(text: &str) -> Verdicts {
        serde_json::from_str(text).expect("an index")
    }

    const INDEX: &str = r#"{"whole": {
        "1.1.1": {"behavior": "OK", "behaviorClose": "OK", "duration": 1},
        "1.1.2": {"behavior": "OK", "behaviorClose": "FAILED"},
        "7.1.6": {"behavior": "INFORMATIONAL", "behaviorClose": "INFORMATIONAL"},
        "3.2": {"behavior": "NON-STRICT", "behaviorClose": "OK"}}}"#;

    #[test]
    fn a_bad_end_is_as_bad_as_a_bad_answer() {
        let verdicts = verdicts(INDEX);
        let good = |case: &str| verdicts["whole"][case].is_good();
        assert!(good("1.1.1") && good("7.1.6"));
        assert!(!good("1.1.2") && !good("3.2"));
    }

    #[test]
    fn a_suite_that_gave_up_before_its_last_case_is_not_whole() {
        let of = |count: usize| {
            let case = |index| format!(r#""9.{index}": {{"behavior":"OK","behaviorClose":"OK"}}"#);
            let cases: Vec<_> = (0..count).map(case).collect();
            verdicts(&format!(r#"{{"whole": {{{}}}}}"#, cases.join(",")))
        };
        assert!(is_whole(&of(CASE_COUNT), 1));
        assert!(!is_whole(&of(CASE_COUNT - 1), 1));
        assert!(!is_whole(&of(CASE_COUNT), 2), "a server nobody asked");
    }

    #[test]
    fn the_page_counts_verdicts_by_chapter() {
        let page = report(&verdicts(INDEX), "2001-02-03", "0123456789ab");
        assert!(page.contains("| 1 framing | 1 FAILED, 1 OK |"), "{page}");
        assert!(page.contains("| all | 1 FAILED, 1 INFORMATIONAL, 1 NON-STRICT, 1 OK |"), "{page}");
        assert!(page.contains("autobahntestsuite 0."), "{page}");
    }
}
