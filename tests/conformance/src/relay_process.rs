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

use crate::watched::{Deadline, Watched, pause_ms};

/// A relay process and what it has printed. Dropping it kills the process.
pub(crate) struct RelayProcess {
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
    /// Starts `program serve` with exactly the variables of `env`.
    pub(crate) fn spawn(program: &Path, env: &[(String, String)]) -> anyhow::Result<Self> {
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
        Ok(Self { pid, exit, stdout, stderr })
    }

    /// Waits until `port` takes connections. Errors: the process ends, or takes too long.
    pub(crate) fn wait_listening(&self, port: u16) -> anyhow::Result<()> {
        let deadline = Deadline::after_ms(START_MS);
        while !deadline.passed() {
            if let Some(exit) = self.exit.with(|exit| *exit) {
                bail!("the relay ended with {exit} instead of listening");
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(());
            }
            pause_ms(START_POLL_MS);
        }
        bail!("the relay took no connections within {START_MS} ms");
    }

    /// The exit code, the name of the signal that killed it, or `"still running"`.
    pub(crate) fn wait_exit(&self, deadline: Deadline) -> Value {
        match self.exit.wait(deadline, |exit| *exit) {
            None => json!("still running"),
            Some(exit) => match (exit.code(), exit.signal()) {
                (Some(code), _) => json!(code),
                (None, signal) => json!(signal.map(signal_name)),
            },
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

    pub(crate) fn stdout(&self) -> &Watched<Output> {
        &self.stdout
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
        texts.join("\n")
    }

    /// The last lines of both streams, for a report.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        let streams = [("stdout", &self.stdout), ("stderr", &self.stderr)];
        let lines = streams.map(|(name, stream)| {
            stream.with(|output| {
                let skipped = output.lines.len().saturating_sub(count);
                let lines = output.lines.iter().skip(skipped);
                lines.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
            })
        });
        lines.concat()
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
const OUTPUT_END_MS: u64 = 1_000;
