//! What the operator reads: the last entries in memory, all of them on stdout.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use relay_contract::{Level, LogEntry, Tick};

use crate::damper::{Damper, Suppressed};
use crate::date::Date;
use crate::record::{Record, Shown};
use crate::settings::{LogFormat, LogSettings};

/// Keeps and writes log entries. Never waits for whoever reads stdout: lines go to a thread of
/// their own through a bounded queue, and what finds it full is counted.
pub struct Journal {
    /// The reference's entries.
    theirs: Ring,
    /// Entries that are ours alone: they must not push the reference's out of `/logs`.
    ours: Ring,
    sequence: u64,
    settings: LogSettings,
    damper: Damper,
    /// Lines since the last [`Journal::flush`].
    batch: String,
    batches: SyncSender<String>,
    /// For the lines that are left at the end: room for one batch, whatever waits before it.
    last: SyncSender<String>,
    /// Bytes of lines that wait for stdout, those of the batch included.
    queued_bytes: Arc<AtomicUsize>,
    finished: Receiver<()>,
}

/// What became of an entry's line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// It will be written, or is below the level that is.
    AsAsked,
    /// There were too many of its kind just now.
    Suppressed,
    /// Whoever reads stdout is behind.
    Dropped,
}

/// Lines that were not given to their writer yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unflushed {
    /// None.
    Nothing,
    /// A few: they may wait for more.
    Some,
    /// So many that they should not.
    Due,
}

/// What a reader of `/logs` wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection {
    /// Ours too.
    pub(crate) all: bool,
    /// With details.
    pub(crate) details: bool,
}

impl Journal {
    /// A journal that writes to `sink`.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn new(settings: LogSettings, mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (batches, queue) = mpsc::sync_channel(BATCHES_MAX);
        let (last, last_batch) = mpsc::sync_channel(1);
        let (done, finished) = mpsc::channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&queued_bytes);
        thread::Builder::new().name("relay-log".to_owned()).spawn(move || {
            write_lines(&queue, &written, &mut sink);
            write_lines(&last_batch, &written, &mut sink);
            // Nobody waits for the end any more: then nobody needs to know.
            let _ = done.send(());
        })?;
        Ok(Self {
            theirs: Ring::new(settings.entries_max),
            ours: Ring::new(settings.entries_max),
            sequence: 0,
            settings,
            damper: Damper::default(),
            batch: String::new(),
            batches,
            last,
            queued_bytes,
            finished,
        })
    }

    /// Writes other levels, or in another form, from now on.
    pub fn set_style(&mut self, level: Level, format: LogFormat) {
        self.settings = LogSettings { level, format, ..self.settings };
    }

    /// Whether entries of this level are written.
    pub(crate) fn wants(&self, level: Level) -> bool {
        level >= self.settings.level
    }

    /// The least level that is written.
    pub(crate) fn level(&self) -> Level {
        self.settings.level
    }

    /// From now on this is the least that is written.
    pub(crate) fn set_level(&mut self, level: Level) {
        self.settings.level = level;
    }

    /// Writes a line for people, whatever the level, and at once.
    pub fn announce(&mut self, mut line: String) -> Written {
        line.push('\n');
        let written = self.queue(&line);
        self.flush();
        written
    }

    /// Records an entry of that date; `now` is the moment, by which floods are known. Readers of
    /// `/logs` see it whatever the level, and however many there are; only what is for debugging
    /// they see as little as stdout does.
    pub fn record(&mut self, now: Tick, unix_ms: i64, entry: LogEntry) -> Written {
        if entry.level == Level::Debug && !self.wants(Level::Debug) {
            return Written::AsAsked;
        }
        let (level, event) = (entry.level, entry.event);
        let record = Record { sequence: self.sequence, date: Date { unix_ms }, entry };
        self.sequence += 1;
        let written = if !self.wants(level) {
            Written::AsAsked
        } else if self.damper.passes(now, level, event) {
            self.queue(&record.line(self.settings.format))
        } else {
            Written::Suppressed
        };
        let ring = match record.entry.ours {
            true => &mut self.ours,
            false => &mut self.theirs,
        };
        ring.push(record);
        written
    }

    /// Tells what was kept back in windows that are over; in all of them, if `now` is none.
    pub(crate) fn tell_suppressed(&mut self, now: Option<Tick>, unix_ms: i64) {
        while let Some(Suppressed { event, count }) = self.damper.close(now) {
            let entry = LogEntry::new(Level::Warn, "log_suppressed")
                .with("of", event)
                .with("count", i64::from(count))
                .ours();
            let record = Record { sequence: self.sequence, date: Date { unix_ms }, entry };
            self.sequence += 1;
            // Dropped: the reader misses this line like others, and the counters have the sum.
            let _ = self.queue(&record.line(self.settings.format));
            self.ours.push(record);
        }
    }

    /// Whether something was kept back that was not told yet.
    pub(crate) fn has_suppressed(&self) -> bool {
        self.damper.has_suppressed()
    }

    fn queue(&mut self, line: &str) -> Written {
        // Nobody else adds, so what is read here can only have shrunk since.
        if self.queued_bytes.load(Ordering::Relaxed) + line.len() > QUEUED_BYTES_MAX {
            return Written::Dropped;
        }
        self.queued_bytes.fetch_add(line.len(), Ordering::Relaxed);
        self.batch.push_str(line);
        Written::AsAsked
    }

    /// Whether lines wait for [`Journal::flush`], and whether they are so many that it is due.
    pub(crate) fn unflushed(&self) -> Unflushed {
        match self.batch.len() {
            0 => Unflushed::Nothing,
            BATCH_BYTES.. => Unflushed::Due,
            _ => Unflushed::Some,
        }
    }

    /// Gives the lines so far to whoever writes them. Waking another thread costs more than a line,
    /// so this is for when there is nothing else to do. While that thread is far behind the lines
    /// stay, within the bound of all that wait.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.batches.try_send(std::mem::take(&mut self.batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(batch)) => self.batch = batch,
            Err(TrySendError::Disconnected(batch)) => {
                self.queued_bytes.fetch_sub(batch.len(), Ordering::Relaxed);
            }
        }
    }

    /// The body of `/logs`: the entries kept, oldest first.
    pub(crate) fn body(&self, selection: Selection) -> String {
        let mut records: Vec<&Record> = self.theirs.records.iter().collect();
        if selection.all {
            records.extend(&self.ours.records);
            records.sort_unstable_by_key(|record| record.sequence);
        }
        let details = selection.details;
        let logs: Vec<_> = records.into_iter().map(|record| Shown { record, details }).collect();
        let mut body = String::from(r#"{"ok":true,"logs":"#);
        body.push_str(&serde_json::to_string(&logs).expect("text and numbers are always JSON"));
        body.push('}');
        body
    }

    /// Writes what is queued and ends the thread, but waits no longer than `patience`.
    pub fn finish(self, patience: Duration) {
        // A reader of stdout that hangs must not keep the process alive.
        let _ = self.end().recv_timeout(patience);
    }

    /// Hands over what is left. Returns who tells that all of it is written.
    fn end(self) -> Receiver<()> {
        // There is room: nothing was ever sent there.
        let _ = self.last.try_send(self.batch);
        self.finished
    }
}

struct Ring {
    records: VecDeque<Record>,
    len_max: usize,
}

impl Ring {
    fn new(len_max: usize) -> Self {
        Self { records: VecDeque::new(), len_max }
    }

    fn push(&mut self, record: Record) {
        while self.records.len() >= self.len_max.max(1) {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }
}

/// Writes lines until nobody sends any more, several at a time when they come fast.
fn write_lines(queue: &Receiver<String>, queued_bytes: &AtomicUsize, sink: &mut impl Write) {
    while let Ok(mut batch) = queue.recv() {
        while batch.len() < BATCH_BYTES
            && let Ok(line) = queue.try_recv()
        {
            batch.push_str(&line);
        }
        // A closed stdout is not our failure, and there is nowhere left to say so.
        let _ = sink.write_all(batch.as_bytes()).and_then(|()| sink.flush());
        queued_bytes.fetch_sub(batch.len(), Ordering::Relaxed);
    }
}

/// Batches of lines that wait for stdout. Reached: lines stay in the next batch, within the bound
/// below.
const BATCHES_MAX: usize = 64;

/// Bytes of lines that wait for stdout. Protects memory from a reader that hangs. Reached: the line
/// is dropped and `relay_log_entries_dropped_total` counts it.
const QUEUED_BYTES_MAX: usize = 4 << 20;

/// Bytes after which a batch of lines is written.
const BATCH_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use relay_contract::{ConnectionId, ShardId};

    use super::*;
    use crate::settings::LogFormat;

    fn settings(entries_max: usize) -> LogSettings {
        LogSettings { level: Level::Info, format: LogFormat::Json, entries_max }
    }

    fn journal(entries_max: usize) -> Journal {
        Journal::new(settings(entries_max), io::sink()).unwrap()
    }

    fn record(journal: &mut Journal, unix_ms: i64, entry: LogEntry) -> Written {
        journal.record(Tick(0), unix_ms, entry)
    }

    /// What was written, readable from outside.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn info(event: &'static str) -> LogEntry {
        LogEntry::new(Level::Info, event)
    }

    const PLAIN: Selection = Selection { all: false, details: true };

    fn finish(journal: Journal) {
        journal.finish(Duration::from_secs(10));
    }

    #[test]
    fn a_line_names_the_connection_and_logs_do_not() {
        let page = Page::default();
        let mut journal = Journal::new(settings(10), page.clone()).unwrap();
        let connection = ConnectionId { shard: ShardId(1), slot: 2, generation: 3 };
        let entry = LogEntry::new(Level::Warn, "x")
            .with("b", 1)
            .with("a", None::<String>)
            .about(connection);
        record(&mut journal, 0, entry);
        assert_eq!(
            journal.body(PLAIN),
            concat!(
                r#"{"ok":true,"logs":[{"ts":"1970-01-01T00:00:00.000Z","level":"warn","#,
                r#""event":"x","details":{"b":1,"a":null}}]}"#
            )
        );
        finish(journal);
        assert_eq!(
            page.text(),
            concat!(
                r#"{"ts":"1970-01-01T00:00:00.000Z","level":"warn","event":"x","#,
                r#""details":{"b":1,"a":null},"connection":"1-2-3"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn the_oldest_entry_goes_first_and_ours_push_out_none_of_theirs() {
        let mut journal = journal(2);
        record(&mut journal, 0, info("first"));
        record(&mut journal, 1, info("second"));
        record(&mut journal, 2, info("third"));
        for _ in 0..5 {
            record(&mut journal, 3, info("mine").ours());
        }
        let body = journal.body(PLAIN);
        assert!(!body.contains("first") && !body.contains("mine"));
        assert!(body.contains("second") && body.contains("third"));
        let all = journal.body(Selection { all: true, ..PLAIN });
        assert!(all.find("third") < all.find("mine"));
        finish(journal);
    }

    #[test]
    fn a_summary_has_no_details() {
        let mut journal = journal(2);
        record(&mut journal, 0, info("x").with("workspaceId", "ws1"));
        let body = journal.body(Selection { all: false, details: false });
        assert!(!body.contains("details") && !body.contains("ws1"));
        finish(journal);
    }

    #[test]
    fn what_was_redacted_says_so() {
        let mut journal = journal(2);
        record(&mut journal, 0, info("x").with("maxFrameBytes", 1));
        assert!(journal.body(PLAIN).contains(r#""maxFrameBytes":"[redacted]""#));
        finish(journal);
    }

    /// A stdout nobody reads.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stuck(entries_max: usize) -> (Journal, mpsc::Sender<()>) {
        let (unstick, stuck) = mpsc::channel();
        (Journal::new(settings(entries_max), Stuck(stuck)).unwrap(), unstick)
    }

    #[test]
    fn a_stuck_reader_costs_bounded_memory_and_no_waiting() {
        let (mut journal, unstick) = stuck(1);
        let line = record_line("x");
        let fitting = QUEUED_BYTES_MAX / line.len();
        let written = (0..fitting * 2)
            .filter(|&second| {
                let now = Tick::from_millis(1000 * second as u64);
                let written = journal.record(now, 0, info("x")) == Written::AsAsked;
                journal.flush();
                written
            })
            .count();
        assert!((fitting..fitting * 2).contains(&written), "{written} of {fitting}");
        drop(unstick);
        finish(journal);
    }

    /// A stdout that stops at each line until the test lets go, and tells that it stopped.
    struct Gate {
        reached: mpsc::Sender<()>,
        opened: Receiver<()>,
        page: Page,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.reached.send(());
            let _ = self.opened.recv();
            self.page.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_last_lines_are_written_however_many_batches_wait() {
        let ((reached, is_reached), (open, opened)) = (mpsc::channel(), mpsc::channel());
        let page = Page::default();
        let gate = Gate { reached, opened, page: page.clone() };
        let mut journal = Journal::new(settings(1), gate).unwrap();
        assert_eq!(journal.announce("first".to_owned()), Written::AsAsked);
        is_reached.recv().unwrap();
        let mut lines = 1;
        while journal.unflushed() == Unflushed::Nothing {
            assert_eq!(journal.announce("more".to_owned()), Written::AsAsked);
            lines += 1;
        }
        let finished = journal.end();
        drop(open);
        finished.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(page.text().lines().count(), lines);
    }

    fn record_line(event: &'static str) -> String {
        let record = Record { sequence: 0, date: Date { unix_ms: 0 }, entry: info(event) };
        record.line(LogFormat::Json)
    }

    #[test]
    fn lines_wait_for_each_other_until_they_are_given_on() {
        let page = Page::default();
        let mut journal = Journal::new(settings(10), page.clone()).unwrap();
        record(&mut journal, 0, info("one"));
        record(&mut journal, 0, info("two"));
        assert_eq!(journal.unflushed(), Unflushed::Some);
        assert_eq!(page.text(), "");
        journal.flush();
        assert_eq!(journal.unflushed(), Unflushed::Nothing);
        finish(journal);
        assert_eq!(page.text().lines().count(), 2);
    }

    #[test]
    fn many_lines_are_due() {
        let mut journal = journal(1);
        while journal.unflushed() != Unflushed::Due {
            assert_eq!(record(&mut journal, 0, info("x")), Written::AsAsked);
            journal.damper = Damper::default();
        }
        finish(journal);
    }

    #[test]
    fn long_lines_nobody_reads_are_bounded_in_bytes() {
        let (mut journal, unstick) = stuck(1);
        let long = "x".repeat(QUEUED_BYTES_MAX / 4);
        let written: Vec<_> = (0..5).map(|_| journal.announce(long.clone())).collect();
        assert_eq!(written[..3], [Written::AsAsked; 3]);
        assert_eq!(written[3..], [Written::Dropped; 2]);
        drop(unstick);
        finish(journal);
    }

    #[test]
    fn a_flood_is_cut_on_stdout_and_whole_in_logs() {
        let page = Page::default();
        let mut journal = Journal::new(settings(5000), page.clone()).unwrap();
        let warn = || LogEntry::new(Level::Warn, "client_frame_rejected");
        let flood = (0..4000).map(|_| record(&mut journal, 0, warn()));
        let suppressed = flood.filter(|written| *written == Written::Suppressed).count();
        journal.tell_suppressed(Some(Tick(0)), 0);
        assert!(journal.has_suppressed(), "the window is not over");
        journal.tell_suppressed(Some(Tick::from_millis(1000)), 1000);
        assert!(!journal.has_suppressed());
        assert_eq!(journal.body(PLAIN).matches("client_frame_rejected").count(), 4000);
        finish(journal);
        let text = page.text();
        assert_eq!(text.lines().count(), 4000 - suppressed + 1);
        let told = format!(r#""details":{{"of":"client_frame_rejected","count":{suppressed}}}"#);
        assert!(text.lines().last().is_some_and(|line| line.contains(&told)), "{suppressed}");
    }

    #[test]
    fn what_is_below_the_level_is_in_logs_alone() {
        let page = Page::default();
        let quiet = LogSettings { level: Level::Error, ..settings(10) };
        let mut journal = Journal::new(quiet, page.clone()).unwrap();
        record(&mut journal, 0, info("usual"));
        record(&mut journal, 0, LogEntry::new(Level::Error, "bad"));
        record(&mut journal, 0, LogEntry::new(Level::Debug, "fine_print").ours());
        let body = journal.body(Selection { all: true, ..PLAIN });
        assert!(body.contains("usual") && body.contains("bad") && !body.contains("fine_print"));
        finish(journal);
        assert_eq!(page.text().lines().count(), 1);
    }

    #[test]
    fn debugging_shows_in_all_logs_once_it_is_asked_for() {
        let mut journal =
            Journal::new(LogSettings { level: Level::Debug, ..settings(10) }, io::sink()).unwrap();
        record(&mut journal, 0, LogEntry::new(Level::Debug, "fine_print").ours());
        assert!(!journal.body(PLAIN).contains("fine_print"));
        assert!(journal.body(Selection { all: true, ..PLAIN }).contains("fine_print"));
        finish(journal);
    }
}
