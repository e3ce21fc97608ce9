//! The processes of a load, as seen by their parent: started, held until all are ready, let go
//! together, and listened to.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::job::{Job, Line};
use crate::outcome::Outcome;
use crate::platform::KEY_FILE_VARIABLE;
use crate::span::{Sample, Span};

/// Running processes of a load. They end with this value.
pub(crate) struct Crew {
    members: Vec<Member>,
    lines: Receiver<(usize, Option<Line>)>,
}

struct Member {
    child: Child,
    stdin: ChildStdin,
    opened: usize,
    is_ready: bool,
}

/// What a process told.
pub(crate) struct Told {
    pub(crate) samples: Vec<Sample>,
    pub(crate) outcome: Outcome,
}

impl Crew {
    /// Starts a process per job; each begins to open its connections.
    pub(crate) fn start(jobs: &[Job], key_file: &Path) -> Result<Self> {
        let (sender, lines) = mpsc::channel();
        let mut members = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            let mut child = Command::new(std::env::current_exe()?)
                .arg("worker")
                .env(KEY_FILE_VARIABLE, key_file)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("starting a process of the load")?;
            let mut stdin = child.stdin.take().context("its input is piped")?;
            let stdout = child.stdout.take().context("its output is piped")?;
            // From here on the process ends with the crew, whatever fails.
            let mut job = serde_json::to_string(job)?;
            job.push('\n');
            let is_told = stdin.write_all(job.as_bytes());
            members.push(Member { child, stdin, opened: 0, is_ready: false });
            is_told.context("telling a process its job")?;
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let line = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                    if sender.send((index, line)).is_err() {
                        return;
                    }
                }
                drop(sender.send((index, None)));
            });
        }
        Ok(Self { members, lines })
    }

    /// Waits until all connections are open; `progress` hears how many are, now and then.
    pub(crate) fn wait_ready(&mut self, mut progress: impl FnMut(usize)) -> Result<()> {
        let mut last_word = Instant::now();
        while self.members.iter().any(|member| !member.is_ready) {
            match self.lines.recv_timeout(TICK) {
                Ok((index, Some(Line::Opened(count)))) => self.members[index].opened = count,
                Ok((index, Some(Line::Ready))) => self.members[index].is_ready = true,
                Ok((index, Some(line))) => bail!("process {index} said {line:?} too early"),
                Ok((_, None)) => bail!(ENDED),
                Err(RecvTimeoutError::Timeout) => {
                    ensure!(last_word.elapsed() < SILENCE, "nobody opens connections any more");
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => bail!(ENDED),
            }
            last_word = Instant::now();
            progress(self.members.iter().map(|member| member.opened).sum());
        }
        Ok(())
    }

    /// Lets all begin and listens until all are done; `progress` hears how many frames have arrived
    /// so far, now and then.
    pub(crate) fn run(&mut self, span: &Span, mut progress: impl FnMut(u64)) -> Result<Vec<Told>> {
        let mut go = serde_json::to_string(span)?;
        go.push('\n');
        for member in &mut self.members {
            member.stdin.write_all(go.as_bytes()).context("letting a process begin")?;
        }
        let mut samples = vec![Vec::new(); self.members.len()];
        let mut outcomes = vec![None; self.members.len()];
        let mut latest = vec![0; self.members.len()];
        let patience = Duration::from_nanos(span.end_ns.saturating_sub(span.start_ns)) + SILENCE;
        let deadline = Instant::now() + patience;
        while outcomes.iter().any(Option::is_none) {
            ensure!(Instant::now() < deadline, "a process of the load never finished");
            match self.lines.recv_timeout(TICK) {
                Ok((index, Some(Line::Sample(sample)))) => {
                    latest[index] = sample.frames;
                    samples[index].push(sample);
                }
                Ok((index, Some(Line::Done(outcome)))) => outcomes[index] = Some(*outcome),
                Ok((index, Some(line))) => bail!("process {index} said {line:?} too late"),
                Ok((index, None)) => ensure!(outcomes[index].is_some(), ENDED),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!(ENDED),
            }
            progress(latest.iter().sum());
        }
        let told = samples.into_iter().zip(outcomes.into_iter().flatten());
        Ok(told.map(|(samples, outcome)| Told { samples, outcome }).collect())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.members {
            // It may have ended by itself; then there is nothing to end.
            drop(member.child.kill());
            drop(member.child.wait());
        }
    }
}

const ENDED: &str = "a process of the load ended early; its own words stand above";
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long nothing may be heard.
const SILENCE: Duration = Duration::from_secs(60);
