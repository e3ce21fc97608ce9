//! A running relay.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::watched::{Deadline, Watched, pause_ms};

/// Whether a relay is one process, or data plane and control plane apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Shape {
    /// One process.
    #[default]
    One,
    /// Two: signals go to the data plane, whose end is the relay's; the log is the control plane's.
    Two,
}

/// A relay process and what it has printed. Dropping it kills the process.
pub(crate) struct RelayProcess {
    /// Who decides for it, where that is another process, and where the two meet.
    control: Option<(Box<RelayProcess>, TempDir)>,
    pid: Pid,
    exit: Arc<Watched<Option<ExitStatus>>>,
    stdout: Arc<Watched<Output>>,
    stderr: Arc<Watched<Output>>,
}

/// Lines of one stream.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) lines: Vec<String>,
    ended: bool,
}

impl RelayProcess {
    /// Starts `program serve` with exactly the variables of `env`, in that shape.
    pub(crate) fn spawn(
        program: &Path,
        env: &[(String, String)],
        shape: Shape,
    ) -> anyhow::Result<Self> {
        if shape == Shape::One {
            return Self::spawn_one(program, env);
        }
        let folder = tempfile::tempdir()?;
        let place = format!("unix:{}/control.sock", folder.path().display());
        let with = |role: &str, where_: &str| {
            let own = [("RELAY_ROLE", role), (where_, &place)];
            let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
            [env, &own].concat()
        };
        let control = Self::spawn_one(program, &with("controlplane", "RELAY_CONTROL_LISTEN"))?;
        let mut relay = Self::spawn_one(program, &with("dataplane", "RELAY_CONTROL_URL"))?;
        relay.control = Some((Box::new(control), folder));
        Ok(relay)
    }

    fn spawn_one(program: &Path, env: &[(String, String)]) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .arg("serve")
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let pid = Pid::from_child(&child);
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let exit = reap(child);
        Ok(Self { control: None, pid, exit, stdout, stderr })
    }

    /// Waits until `port` takes connections. Errors: the process ends, or takes too long.
    pub(crate) fn wait_listening(&self, port: u16) -> anyhow::Result<()> {
        let deadline = Deadline::after_ms(START_MS);
        while !deadline.passed() {
            if let Some(exit) = self.exit.with(|exit| *exit) {
                bail!("the relay ended with {exit} instead of listening");
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return self.wait_attached(deadline);
            }
            pause_ms(START_POLL_MS);
        }
        bail!("the relay took no connections within {START_MS} ms");
    }

    /// Waits until the control plane, if that is another process, decides for it.
    fn wait_attached(&self, deadline: Deadline) -> anyhow::Result<()> {
        let Some((control, _)) = &self.control else { return Ok(()) };
        let attached = control.stdout.wait(deadline, |output| {
            output.lines.iter().any(|line| line.contains("data_plane_attached")).then_some(())
        });
        attached.with_context(|| format!("no control plane within {START_MS} ms"))
    }

    /// The exit code, the name of the signal that killed it, or `"still running"`.
    pub(crate) fn wait_exit(&self, deadline: Deadline) -> Value {
        match self.ended(deadline) {
            None => json!("still running"),
            Some(exit) => match (exit.code(), exit.signal()) {
                (Some(code), _) => json!(code),
                (None, signal) => json!(signal.map(signal_name)),
            },
        }
    }

    /// How it ended. A control plane that ends by itself has refused its configuration, and so has
    /// the relay.
    fn ended(&self, deadline: Deadline) -> Option<ExitStatus> {
        let Some((control, _)) = &self.control else {
            return self.exit.wait(deadline, |exit| *exit);
        };
        loop {
            let either = [&self.exit, &control.exit].map(|exit| exit.with(|exit| *exit));
            let ended = either.into_iter().flatten().next();
            if ended.is_some() || deadline.passed() {
                return ended;
            }
            pause_ms(START_POLL_MS);
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.exit.with(|exit| exit.is_none())
    }

    /// Sends a signal by its name. Errors: not a name of [`SIGNALS`], or the process is gone.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let signal = SIGNALS.iter().find(|(known, _)| *known == name);
        let (_, signal) = signal.with_context(|| format!("unknown signal {name}"))?;
        // Under the lock: while no exit is recorded, the process number is still this process's.
        self.exit.with(|exit| match exit {
            None => kill_process(self.pid, *signal).context("signalling the relay"),
            Some(exit) => bail!("the relay ended with {exit} before it could be signalled"),
        })
    }

    /// Where the log is.
    pub(crate) fn stdout(&self) -> &Watched<Output> {
        self.control.as_ref().map_or(&self.stdout, |(control, _)| &control.stdout)
    }

    /// Everything printed on both streams; complete once the process has ended.
    pub(crate) fn output(&self) -> String {
        let streams = [&self.stdout, &self.stderr];
        let texts = streams.map(|stream| {
            if !self.is_alive() {
                stream.wait(Deadline::after_ms(OUTPUT_END_MS), |output| output.ended.then_some(()));
            }
            stream.with(|output| output.lines.join("\n"))
        });
        let own = texts.join("\n");
        match &self.control {
            None => own,
            Some((control, _)) => format!("{own}\n{}", control.output()),
        }
    }

    /// The last lines of both streams, for a report.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        let mut streams = vec![("stdout", &self.stdout), ("stderr", &self.stderr)];
        if let Some((control, _)) = &self.control {
            streams.extend([("control", &control.stdout), ("control stderr", &control.stderr)]);
        }
        let lines = streams.into_iter().map(|(name, stream)| {
            stream.with(|output| {
                let skipped = output.lines.len().saturating_sub(count);
                let lines = output.lines.iter().skip(skipped);
                lines.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
            })
        });
        lines.collect::<Vec<_>>().concat()
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _ = self.signal("SIGKILL");
        self.exit.wait(Deadline::after_ms(KILL_MS), |exit| *exit);
    }
}

/// Waits for the process on a thread of its own, so that its number is never reused unnoticed.
fn reap(mut child: Child) -> Arc<Watched<Option<ExitStatus>>> {
    let exit = Arc::new(Watched::new(None));
    let reaped = Arc::clone(&exit);
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            reaped.update(|exit| *exit = Some(status));
        }
    });
    exit
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Arc<Watched<Output>> {
    let output = Arc::new(Watched::new(Output::default()));
    let collected = Arc::clone(&output);
    thread::spawn(move || {
        if let Some(stream) = stream {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                collected.update(|output| output.lines.push(text));
                line.clear();
            }
        }
        collected.update(|output| output.ended = true);
    });
    output
}

fn signal_name(number: i32) -> String {
    let known = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
    known.map_or_else(|| format!("signal {number}"), |(name, _)| (*name).to_owned())
}

const SIGNALS: [(&str, Signal); 12] = [
    ("SIGTERM", Signal::TERM),
    ("SIGINT", Signal::INT),
    ("SIGKILL", Signal::KILL),
    ("SIGHUP", Signal::HUP),
    ("SIGQUIT", Signal::QUIT),
    ("SIGUSR1", Signal::USR1),
    ("SIGUSR2", Signal::USR2),
    ("SIGSTOP", Signal::STOP),
    ("SIGCONT", Signal::CONT),
    ("SIGABRT", Signal::ABORT),
    ("SIGSEGV", Signal::SEGV),
    ("SIGPIPE", Signal::PIPE),
];

const START_MS: u64 = 10_000;
const START_POLL_MS: u64 = 5;
const KILL_MS: u64 = 5_000;

/// A child of the relay might hold the stream open.
const OUTPUT_END_MS: u64 = 10_000;
