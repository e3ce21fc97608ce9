//! What the operator reads: the last entries in memory, all of them on stdout.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use relay_contract::{LogEntry, Value};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;

use crate::date::Date;

/// Keeps and writes log entries. Never waits for whoever reads stdout: lines go to a thread of
/// their own through a bounded queue, and what finds it full is counted.
pub(crate) struct Journal {
    /// The reference's entries.
    theirs: Ring,
    /// Entries that are ours alone: they must not push the reference's out of `/logs`.
    ours: Ring,
    sequence: u64,
    lines: SyncSender<String>,
    finished: Receiver<()>,
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
    /// A journal of the last `entries_max` entries, writing to `sink`.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn new(entries_max: usize, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queue) = mpsc::sync_channel(LINES_MAX);
        let (done, finished) = mpsc::channel();
        thread::Builder::new().name("relay-log".to_owned()).spawn(move || {
            write_lines(&queue, sink);
            // Nobody waits for the end any more: then nobody needs to know.
            let _ = done.send(());
        })?;
        Ok(Self {
            theirs: Ring::new(entries_max),
            ours: Ring::new(entries_max),
            sequence: 0,
            lines,
            finished,
        })
    }

    /// Records an entry of that time; whether its line will be written.
    pub(crate) fn record(&mut self, unix_ms: i64, entry: LogEntry) -> bool {
        let record = Record { sequence: self.sequence, date: Date { unix_ms }, entry };
        self.sequence += 1;
        let taken = match self.lines.try_send(record.line()) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        };
        let ring = match record.entry.ours {
            true => &mut self.ours,
            false => &mut self.theirs,
        };
        ring.push(record);
        taken
    }

    /// The body of `/logs`: the entries kept, oldest first.
    pub(crate) fn body(&self, selection: Selection) -> String {
        let mut records: Vec<&Record> = self.theirs.records.iter().collect();
        if selection.all {
            records.extend(&self.ours.records);
            records.sort_unstable_by_key(|record| record.sequence);
        }
        let logs: Vec<_> = records.into_iter().map(|record| Shown { record, selection }).collect();
        let mut body = String::from(r#"{"ok":true,"logs":"#);
        body.push_str(&serde_json::to_string(&logs).expect("text and numbers are always JSON"));
        body.push('}');
        body
    }

    /// Writes what is queued and ends the thread, but waits no longer than `patience`.
    pub(crate) fn finish(self, patience: Duration) {
        drop(self.lines);
        // A reader of stdout that hangs must not keep the process alive.
        let _ = self.finished.recv_timeout(patience);
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

struct Record {
    sequence: u64,
    date: Date,
    entry: LogEntry,
}

impl Record {
    /// One line of stdout. The connection stands beside the details: the reference has none.
    fn line(&self) -> String {
        let shown = Line(self);
        let mut line = serde_json::to_string(&shown).expect("text and numbers are always JSON");
        line.push('\n');
        line
    }

    fn members<M: SerializeMap>(&self, map: &mut M, details: bool) -> Result<(), M::Error> {
        map.serialize_entry("ts", &self.date)?;
        map.serialize_entry("level", self.entry.level.name())?;
        map.serialize_entry("event", self.entry.event)?;
        if details {
            map.serialize_entry("details", &Details(&self.entry.details))?;
        }
        Ok(())
    }
}

struct Line<'a>(&'a Record);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0.members(&mut map, true)?;
        if let Some(connection) = self.0.entry.connection {
            map.serialize_entry("connection", &connection.to_string())?;
        }
        map.end()
    }
}

struct Shown<'a> {
    record: &'a Record,
    selection: Selection,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.record.members(&mut map, self.selection.details)?;
        map.end()
    }
}

struct Details<'a>(&'a [(&'static str, Value)]);

impl Serialize for Details<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| {
            let value = match value {
                Value::Text(text) => json!(text),
                Value::Name(name) => json!(name),
                Value::Number(number) => json!(number),
                Value::Flag(flag) => json!(flag),
                Value::Null => json!(null),
                Value::Redacted => json!("[redacted]"),
            };
            (key, value)
        }))
    }
}

/// Writes lines until nobody sends any more, several at a time when they come fast.
fn write_lines(queue: &Receiver<String>, mut sink: impl Write) {
    while let Ok(mut batch) = queue.recv() {
        while batch.len() < BATCH_BYTES
            && let Ok(line) = queue.try_recv()
        {
            batch.push_str(&line);
        }
        // A closed stdout is not our failure, and there is nowhere left to say so.
        let _ = sink.write_all(batch.as_bytes()).and_then(|()| sink.flush());
    }
}

/// Lines that wait for stdout. Protects memory from a reader that hangs. Reached: the line is
/// dropped and `relay_log_entries_dropped_total` counts it.
const LINES_MAX: usize = 4096;

/// Bytes after which a batch of lines is written.
const BATCH_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use relay_contract::{ConnectionId, Level, ShardId};

    use super::*;

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
        let mut journal = Journal::new(10, page.clone()).unwrap();
        let connection = ConnectionId { shard: ShardId(1), slot: 2, generation: 3 };
        let entry = LogEntry::new(Level::Warn, "x")
            .with("b", 1)
            .with("a", None::<String>)
            .about(connection);
        journal.record(0, entry);
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
        let mut journal = Journal::new(2, io::sink()).unwrap();
        journal.record(0, info("first"));
        journal.record(1, info("second"));
        journal.record(2, info("third"));
        for _ in 0..5 {
            journal.record(3, info("mine").ours());
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
        let mut journal = Journal::new(2, io::sink()).unwrap();
        journal.record(0, info("x").with("workspaceId", "ws1"));
        let body = journal.body(Selection { all: false, details: false });
        assert!(!body.contains("details") && !body.contains("ws1"));
        finish(journal);
    }

    #[test]
    fn what_was_redacted_says_so() {
        let mut journal = Journal::new(2, io::sink()).unwrap();
        journal.record(0, info("x").with("maxFrameBytes", 1));
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

    #[test]
    fn a_stuck_reader_costs_bounded_memory_and_no_waiting() {
        let (unstick, stuck) = mpsc::channel();
        let mut journal = Journal::new(1, Stuck(stuck)).unwrap();
        let written = (0..LINES_MAX * 3).filter(|_| journal.record(0, info("x"))).count();
        assert!((LINES_MAX..LINES_MAX * 3).contains(&written), "{written}");
        drop(unstick);
        finish(journal);
    }
}
