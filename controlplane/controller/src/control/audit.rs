//! The audit log: who asked for which change, and what became of it.
//!
//! A thread of its own writes it, so that a disk that hangs holds up nothing but changing calls.
//! Before such a call is made, room for its line is reserved; without room the call is refused. So
//! no change happens that could not be written down.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::access::Who;
use crate::clock::Clock;
use crate::date::Date;

/// Where the audit log goes.
pub enum AuditSink {
    /// Nowhere.
    Off,
    /// Among other lines, such as those of the log on stdout.
    Stream(Box<dyn Write + Send>),
    /// A file of its own.
    File(AuditFile),
}

/// A file that is replaced when it is full.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditFile {
    /// Its path. Those before it have `.1`, `.2` and so on behind it. `RELAY_AUDIT_LOG`
    pub path: PathBuf,
    /// Bytes of a file before the next is begun. `RELAY_AUDIT_LOG_MAX_BYTES`
    pub bytes_max: u64,
    /// Full files that are kept. `RELAY_AUDIT_LOG_FILES`
    pub files_kept: u32,
}

/// Why no line can be written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum AuditError {
    /// Too many lines wait, or the disk hangs.
    #[error("it does not get on")]
    Stuck,
    /// What the operating system says.
    #[error("{0}")]
    Io(String),
}

/// Takes lines to the thread that writes them.
pub(super) struct Audit {
    jobs: Option<SyncSender<Job>>,
    clock: Arc<dyn Clock>,
    /// Moments of the last refusals that were written, oldest first, and how many were not.
    refusals: Mutex<(VecDeque<i64>, u64)>,
}

/// What became of a call.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) call: &'static str,
    pub(super) who: &'a Who,
    pub(super) arguments: Value,
    pub(super) outcome: Outcome,
    /// The status code's name.
    pub(super) code: String,
    /// What the caller was told; empty for a call that was made.
    pub(super) message: &'a str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// It was made.
    Done,
    /// It was permitted, and did not work.
    Failed,
    /// It was not permitted.
    Refused,
}

enum Job {
    Reserve(oneshot::Sender<Result<(), AuditError>>),
    Write { line: String, is_reserved: bool, written: oneshot::Sender<Result<(), AuditError>> },
}

impl Audit {
    /// Opens the file, if it is one, and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread.
    pub(super) fn open(sink: AuditSink, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let refusals = Mutex::default();
        let mut pages: Box<dyn Pages> = match sink {
            AuditSink::Off => return Ok(Self { jobs: None, clock, refusals }),
            AuditSink::Stream(stream) => Box::new(Among(stream)),
            AuditSink::File(file) => Box::new(Book::open(file)?),
        };
        let (jobs, queue) = mpsc::sync_channel(JOBS_MAX);
        thread::Builder::new()
            .name("relay-audit".to_owned())
            .spawn(move || write_lines(&queue, &mut *pages))?;
        Ok(Self { jobs: Some(jobs), clock, refusals })
    }

    /// Makes sure that a line will find room.
    ///
    /// # Errors
    /// [`AuditError`]: nothing is to happen that the line would have been about.
    pub(super) async fn reserve(&self) -> Result<(), AuditError> {
        self.submit(Job::Reserve).await
    }

    /// Writes the line for which room was reserved.
    ///
    /// # Errors
    /// [`AuditError`]: what it is about has happened already.
    pub(super) async fn write(&self, entry: &Entry<'_>) -> Result<(), AuditError> {
        let line = self.line(entry, 0);
        self.submit(|written| Job::Write { line, is_reserved: true, written }).await
    }

    /// Writes that somebody was refused; whether it was written. Strangers can cause such lines,
    /// and must not push others out of the files: beyond a number per minute they are counted.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(super) async fn write_refusal(&self, entry: &Entry<'_>) -> Result<bool, AuditError> {
        let Some(left_out) = self.may_tell_refusal() else {
            return Ok(false);
        };
        let line = self.line(entry, left_out);
        self.submit(|written| Job::Write { line, is_reserved: false, written }).await?;
        Ok(true)
    }

    /// How many were left out before this one, if it is to be written.
    fn may_tell_refusal(&self) -> Option<u64> {
        let now_ms = self.clock.unix_ms();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, left_out) = &mut *refusals;
        while told.front().is_some_and(|moment| now_ms.saturating_sub(*moment) >= MINUTE_MS) {
            told.pop_front();
        }
        if told.len() >= REFUSALS_PER_MINUTE {
            *left_out += 1;
            return None;
        }
        told.push_back(now_ms);
        Some(std::mem::take(left_out))
    }

    fn line(&self, entry: &Entry<'_>, left_out: u64) -> String {
        let Entry { call, who, arguments, outcome, code, message } = entry;
        let arguments_bytes = arguments.to_string().len();
        let arguments = match arguments_bytes <= ARGUMENTS_BYTES_MAX {
            true => arguments.clone(),
            false => json!({ "leftOutBytes": arguments_bytes }),
        };
        let mut line = json!({
            "ts": Date { unix_ms: self.clock.unix_ms() },
            "event": "audit",
            "call": call,
            "outcome": outcome.name(),
            "code": code,
            "who": who.shown(),
            "arguments": arguments,
        });
        if !message.is_empty() {
            let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
            line["message"] = message.into();
        }
        if left_out > 0 {
            line["refusalsLeftOut"] = left_out.into();
        }
        format!("{line}\n")
    }

    async fn submit(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<(), AuditError>>) -> Job,
    ) -> Result<(), AuditError> {
        let Some(jobs) = &self.jobs else {
            return Ok(());
        };
        let (done, ended) = oneshot::channel();
        jobs.try_send(job(done)).map_err(|_| AuditError::Stuck)?;
        match tokio::time::timeout(PATIENCE, ended).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(AuditError::Stuck),
        }
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("is_on", &self.jobs.is_some()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AuditSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("Off"),
            Self::Stream(_) => f.write_str("Stream"),
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
        }
    }
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Somewhere to write lines.
trait Pages: Send {
    /// Makes sure that one more line will find room.
    fn reserve(&mut self) -> io::Result<()>;
    fn write(&mut self, line: &str, is_reserved: bool) -> io::Result<()>;
}

fn write_lines(queue: &Receiver<Job>, pages: &mut dyn Pages) {
    let told = |error: io::Error| AuditError::Io(error.to_string());
    for job in queue {
        // Whoever asked may have given up waiting.
        let _ = match job {
            Job::Reserve(reserved) => reserved.send(pages.reserve().map_err(told)),
            Job::Write { line, is_reserved, written } => {
                written.send(pages.write(&line, is_reserved).map_err(told))
            }
        };
    }
}

/// Among other lines.
struct Among(Box<dyn Write + Send>);

impl Pages for Among {
    fn reserve(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, line: &str, _is_reserved: bool) -> io::Result<()> {
        self.0.write_all(line.as_bytes())?;
        self.0.flush()
    }
}

/// A file, and those before it.
struct Book {
    settings: AuditFile,
    file: File,
    /// Device and inode of the file.
    identity: (u64, u64),
    len: u64,
    /// Lines that were promised room and are not written yet.
    promised: u64,
}

impl Book {
    fn open(settings: AuditFile) -> io::Result<Self> {
        let file = open(&settings.path)?;
        let found = file.metadata()?;
        let identity = (found.dev(), found.ino());
        Ok(Self { settings, file, identity, len: found.len(), promised: 0 })
    }

    /// Somebody may have moved the file away: then a new one is begun.
    fn follow(&mut self) -> io::Result<()> {
        let is_there = fs::metadata(&self.settings.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        match is_there {
            true => Ok(()),
            false => self.begin(),
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let promised = self.promised;
        *self = Self::open(self.settings.clone())?;
        self.promised = promised;
        Ok(())
    }

    /// Begins a new file when this one is full.
    fn turn(&mut self) -> io::Result<()> {
        if self.len == 0 || self.len + LINE_BYTES_MAX <= self.settings.bytes_max {
            return Ok(());
        }
        // What was reserved beyond the end and not used.
        self.file.set_len(self.len)?;
        let path = &self.settings.path;
        for number in (1..self.settings.files_kept).rev() {
            match fs::rename(numbered(path, number), numbered(path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(path, numbered(path, 1))?;
        self.begin()
    }
}

impl Pages for Book {
    fn reserve(&mut self) -> io::Result<()> {
        self.follow()?;
        self.turn()?;
        let bytes = (self.promised + 1) * LINE_BYTES_MAX;
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.len, bytes) {
            // Some file systems cannot: a disk that fills up just then is found too late there.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        self.promised += 1;
        Ok(())
    }

    fn write(&mut self, line: &str, is_reserved: bool) -> io::Result<()> {
        if is_reserved {
            self.promised = self.promised.saturating_sub(1);
        } else {
            self.follow()?;
            self.turn()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.len += line.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Lines and reservations that wait for the disk. Reached: the call is refused.
const JOBS_MAX: usize = 64;

/// What the disk may take. Reached: the call is refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of one line: more is reserved than any takes.
const LINE_BYTES_MAX: u64 = 8 << 10;

/// Bytes of a call's arguments in its line. Reached: their number is written instead.
const ARGUMENTS_BYTES_MAX: usize = 4 << 10;

/// Characters of what a caller was told, in its line.
const MESSAGE_CHARS_MAX: usize = 256;

/// Refused calls that are written, per minute. Reached: counted, and told by the next that is.
const REFUSALS_PER_MINUTE: usize = 60;

const MINUTE_MS: i64 = 60_000;

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
