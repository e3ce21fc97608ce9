//! `relay-load run`: the loads of scenario files, one after the other, each written down.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::arguments::Run;
use crate::crew::Crew;
use crate::flow::Between;
use crate::job::{Job, PairsWork, RoomsWork, SlowWork, Work};
use crate::platform::{self, KeyFile};
use crate::processor;
use crate::progress::Progress;
use crate::readings::Reader;
use crate::report::{CaseReport, Report};
use crate::scenario::{Case, CaseLoad, Scenario, SubjectKind, WindowSection};
use crate::secured::Certificate;
use crate::span::Span;
use crate::subject::{PENDING_BYTES_MAX, Processors, Subject};
use crate::trial::{Header, find_relay};
use crate::watch::Watch;

/// Runs the scenarios and says what set their figures.
///
/// Errors: a load failed or its figures are not those of the process under test. All scenarios run
/// before that is said.
pub(crate) fn run(arguments: &Run) -> Result<()> {
    let files = arguments.files()?;
    let mut failed = Vec::new();
    for file in &files {
        if let Err(error) = run_file(arguments, file) {
            eprintln!("{}: {error:#}", file.display());
            failed.push(file.display().to_string());
        }
    }
    ensure!(failed.is_empty(), "{} of {}: {}", failed.len(), files.len(), failed.join(", "));
    Ok(())
}

fn run_file(arguments: &Run, file: &Path) -> Result<()> {
    let scenario = Scenario::read(file)?;
    let name = file.file_stem().and_then(|name| name.to_str()).context("a file's name")?;
    println!("{name}: {}", scenario.question);
    if let Some(command) = &scenario.command {
        return run_command(arguments, name, &command.arguments);
    }
    let mut report = Report {
        name: name.to_owned(),
        header: Header::of(arguments.relay.as_ref())?,
        cases: Vec::new(),
        scenario,
    };
    let stage = Stage::new(&report.scenario, arguments)?;
    for case in report.scenario.cases()? {
        report.cases.push(stage.play(case)?);
    }
    let page = report.write(&arguments.results, !arguments.no_slices)?;
    println!("  {}", page.display());
    let found: Vec<String> = report
        .bottlenecks()
        .map(|(case, found)| format!("{case}: {:?}: {}", found.who, found.why))
        .collect();
    for line in &found {
        println!("  not only the process under test set this: {line}");
    }
    ensure!(
        found.is_empty() || arguments.allow_bottleneck,
        "{} times the load or the machine set the figures (--allow-bottleneck takes them)",
        found.len()
    );
    Ok(())
}

/// Hands a scenario to another command of this program.
///
/// Errors: the command failed, or was asked for what it cannot do.
fn run_command(arguments: &Run, name: &str, words: &[String]) -> Result<()> {
    let result = arguments.results.join(format!("{name}.json"));
    std::fs::create_dir_all(&arguments.results).context("the folder of results")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words).args(passed_on(arguments, words)?);
    command.arg("--relay").arg(find_relay(arguments.relay.as_ref())?).arg("--json").arg(&result);
    let status = command.status().context("this program again")?;
    ensure!(status.success(), "relay-load {} failed", words.join(" "));
    let page = result.with_extension("html");
    let text = std::fs::read_to_string(&result).with_context(|| result.display().to_string())?;
    std::fs::write(&page, crate::report::page_of_command(name, &text)?)
        .with_context(|| page.display().to_string())?;
    println!("  {}", page.display());
    Ok(())
}

/// The options that any command takes, and those of its own.
///
/// Errors: a window's length was given, which commands have none of, or several.
fn passed_on(arguments: &Run, words: &[String]) -> Result<Vec<String>> {
    ensure!(arguments.seconds.is_none(), "--seconds is for scenarios that describe a load");
    let mut options = Vec::new();
    if let Some(driver) = &arguments.driver {
        options.extend(["--driver".to_owned(), driver.clone()]);
    }
    if arguments.allow_bottleneck {
        options.push("--allow-bottleneck".to_owned());
    }
    if arguments.allow_refusals && words.first().is_some_and(|command| command == "storm") {
        options.push("--allow-refusals".to_owned());
    }
    Ok(options)
}

/// What all loads of a scenario share.
struct Stage<'a> {
    scenario: &'a Scenario,
    arguments: &'a Run,
    platform: std::net::SocketAddr,
    key_file: KeyFile,
    certificate: Option<Certificate>,
}

impl<'a> Stage<'a> {
    fn new(scenario: &'a Scenario, arguments: &'a Run) -> Result<Self> {
        let certificate = scenario.relay.tls.then(Certificate::new).transpose()?;
        let platform = platform::start()?;
        Ok(Self { scenario, arguments, platform, key_file: KeyFile::write()?, certificate })
    }

    /// Runs one load.
    fn play(&self, case: Case) -> Result<CaseReport> {
        let window = &self.scenario.window;
        let subject = self.start_subject(&case)?;
        let jobs = self.jobs(&case, &subject)?;
        let to_open = connections(&jobs);
        let mut progress = Progress::new(&format!("  {}", case.name));
        let mut crew = Crew::start(&jobs, &self.key_file.path())?;
        crew.wait_ready(|opened| {
            progress.show(opened as f64 / to_open as f64, &format!("{opened} of {to_open} opened"));
        })?;
        let span = self.span(window);
        let mut used = window.load_cpus.clone();
        used.push(window.subject_cpu);
        let watch = Watch::start(span, &window.load_cpus, &used)?;
        // Where TLS ends in the relay, nobody else speaks to it.
        let is_open = subject.between == Between::Relay && self.certificate.is_none();
        let reader = is_open.then(|| Reader::start(subject.address, span));
        let told = crew.run(&span, |frames| {
            let now = processor::now_ns().saturating_sub(span.start_ns) as f64;
            progress.show(now / (span.end_ns - span.start_ns) as f64, &format!("{frames} frames"));
        });
        let seen = watch.finish(told.is_err())?;
        let told = told?;
        let resident = processor::resident(subject.process())?;
        let mut report = CaseReport::new(case, &span, &window.load_cpus, &told, seen, resident)?;
        report.metrics = reader.map(Reader::finish).transpose()?;
        progress.finish(&report.line());
        Ok(report)
    }

    fn start_subject(&self, case: &Case) -> Result<Subject> {
        let window = &self.scenario.window;
        let processors = Processors { subject: window.subject_cpu, load: window.load_cpus[0] };
        if case.subject == SubjectKind::Passthrough {
            let CaseLoad::Pairs { count, .. } = case.load else {
                bail!("a pass-through has pairs only");
            };
            ensure!(self.certificate.is_none(), "a pass-through speaks no TLS");
            return Subject::passthrough(count, processors);
        }
        let relay = &self.scenario.relay;
        let mut settings: Vec<(&str, String)> =
            relay.env.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        if relay.jwks {
            settings.push(("RELAY_JWKS_URL", platform::key_set_url(self.platform)));
            settings.push(("RELAY_ADMISSION", "jwks".to_owned()));
        }
        let pending_bytes_max = if self.scenario.slow_readers.is_some() {
            SLOW_READER_BYTES
        } else {
            PENDING_BYTES_MAX
        };
        settings.push(("RELAY_MAX_PENDING_BYTES", pending_bytes_max.to_string()));
        Subject::relay_set(
            &find_relay(self.arguments.relay.as_ref())?,
            self.arguments.driver.as_deref().or(relay.driver.as_deref()),
            self.platform,
            processors,
            self.certificate.as_ref(),
            &settings,
        )
    }

    /// Divides a load among processes.
    fn jobs(&self, case: &Case, subject: &Subject) -> Result<Vec<Job>> {
        let window = &self.scenario.window;
        let (count, sockets_each) = match case.load {
            CaseLoad::Pairs { count, .. } => (count, 2),
            CaseLoad::Rooms { count, listeners, .. } => (count, listeners + 1),
        };
        ensure!(sockets_each <= SOCKETS_MAX, "a room has at most {SOCKETS_MAX} connections");
        let at_once = match case.subject {
            SubjectKind::Relay => SOCKETS_MAX / sockets_each,
            // It pairs connections in the order in which they come: from one process.
            SubjectKind::Passthrough => usize::MAX,
        };
        let processes = count.div_ceil(at_once).max(window.processes.min(count)).max(1);
        let processes = if case.subject == SubjectKind::Relay { processes } else { 1 };
        let bounds: Vec<usize> = (0..=processes).map(|part| part * count / processes).collect();
        let mut works: Vec<Work> =
            bounds.windows(2).map(|bounds| work(&case.load, bounds[0]..bounds[1], count)).collect();
        if let Some(slow) = &self.scenario.slow_readers
            && case.subject == SubjectKind::Relay
        {
            let numbers = count..count + slow.count;
            works.push(Work::SlowReaders(SlowWork { numbers, bytes: slow.payload }));
        }
        let jobs = works.into_iter().enumerate().map(|(index, work)| Job {
            address: subject.address,
            is_relay: subject.between == Between::Relay,
            certificate: self.certificate.as_ref().map(Certificate::chain),
            sources: window.sources,
            subject: subject.process(),
            processor: window.load_cpus[index % window.load_cpus.len()],
            work,
        });
        Ok(jobs.collect())
    }

    fn span(&self, window: &WindowSection) -> Span {
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        let seconds = self.arguments.seconds.unwrap_or(window.seconds);
        let start_ns = processor::now_ns() + START_NS;
        let measure_ns = start_ns + ns(window.warm_up);
        Span { start_ns, measure_ns, end_ns: measure_ns + ns(seconds) }
    }
}

/// One process's part of a load.
fn work(load: &CaseLoad, numbers: std::ops::Range<usize>, count: usize) -> Work {
    match load {
        CaseLoad::Pairs { portions, depth, rate, echo, e2ee, .. } => Work::Pairs(PairsWork {
            portions: portions.clone(),
            depth: *depth,
            echo: *echo,
            e2ee: *e2ee,
            rate: rate.map(|rate| rate * numbers.len() as f64 / count as f64),
            numbers,
        }),
        CaseLoad::Rooms { listeners, bytes, depth, .. } => {
            Work::Rooms(RoomsWork { numbers, listeners: *listeners, bytes: *bytes, depth: *depth })
        }
    }
}

/// What the processes will count as opened: pairs, or connections of rooms.
fn connections(jobs: &[Job]) -> usize {
    let of = |job: &Job| match &job.work {
        Work::Pairs(work) => work.numbers.len(),
        Work::Rooms(work) => work.numbers.len() * (work.listeners + 1),
        Work::SlowReaders(work) => work.numbers.len(),
    };
    jobs.iter().map(of).sum()
}

/// Connections of one process of the load, which has descriptors for little more.
const SOCKETS_MAX: usize = 19_000;
/// Bytes that may wait for a slow reader: the relay's own default.
const SLOW_READER_BYTES: usize = 4 << 20;
/// From saying when to begin until then.
const START_NS: u64 = 100_000_000;

/// Where results go when nobody says.
pub(crate) fn default_results() -> PathBuf {
    PathBuf::from("perf/results")
}
