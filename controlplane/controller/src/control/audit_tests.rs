use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicI64, Ordering};

use relay_contract::Tick;

use relay_link::Caller;

use super::super::access::{Role, Who};
use super::*;

#[derive(Default)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Tick {
        Tick(0)
    }

    fn unix_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

const WHO: Who =
    Who { caller: Caller::Local { uid: 7, pid: None }, role: Some(Role::Operator), token: None };

fn entry(who: &Who) -> Entry<'_> {
    Entry {
        call: "SetLogLevel",
        who,
        arguments: json!({ "logLevel": "LOG_LEVEL_DEBUG" }),
        outcome: Outcome::Done,
        code: "Ok".to_owned(),
        message: "",
    }
}

fn file(dir: &tempfile::TempDir, bytes_max: u64, files_kept: u32) -> AuditFile {
    AuditFile { path: dir.path().join("audit.log"), bytes_max, files_kept }
}

fn opened(file: AuditFile) -> (Audit, Arc<Hand>) {
    let hand = Arc::<Hand>::default();
    let clock: Arc<dyn Clock> = Arc::clone(&hand) as _;
    (Audit::open(AuditSink::File(file), clock).unwrap(), hand)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_call_is_one_line_in_a_file_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, 1 << 20, 2);
    let (audit, _) = opened(file.clone());
    audit.reserve().await.unwrap();
    audit.write(&entry(&WHO)).await.unwrap();
    let [line] = &lines(&file.path)[..] else { panic!("one line") };
    assert_eq!(
        *line,
        json!({
            "ts": "1970-01-01T00:00:00.000Z", "event": "audit", "call": "SetLogLevel",
            "outcome": "done", "code": "Ok",
            "who": {"role": "operator", "via": "unix", "uid": 7},
            "arguments": {"logLevel": "LOG_LEVEL_DEBUG"},
        })
    );
    let mode = fs::metadata(&file.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_full_file_is_kept_beside_the_next_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    // Room for one line beside what is reserved for another.
    let file = file(&dir, LINE_BYTES_MAX + 100, 2);
    let (audit, _) = opened(file.clone());
    for number in 0..4 {
        let mut entry = entry(&WHO);
        entry.arguments = json!({ "number": number });
        audit.reserve().await.unwrap();
        audit.write(&entry).await.unwrap();
    }
    let numbers = |path: &Path| {
        let lines = lines(path);
        lines.iter().map(|line| line["arguments"]["number"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&file.path), [3]);
    assert_eq!(numbers(&numbered(&file.path, 1)), [2]);
    assert_eq!(numbers(&numbered(&file.path, 2)), [1]);
    assert!(!numbered(&file.path, 3).exists());
    let full = fs::metadata(numbered(&file.path, 1)).unwrap();
    assert!(full.blocks() * 512 <= 4096, "what was reserved is given back");
}

#[tokio::test]
async fn a_file_that_somebody_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, 1 << 20, 2);
    let (audit, _) = opened(file.clone());
    audit.reserve().await.unwrap();
    audit.write(&entry(&WHO)).await.unwrap();
    let moved = dir.path().join("moved");
    fs::rename(&file.path, &moved).unwrap();
    audit.reserve().await.unwrap();
    audit.write(&entry(&WHO)).await.unwrap();
    assert_eq!((lines(&moved).len(), lines(&file.path).len()), (1, 1));
}

#[tokio::test]
async fn without_room_nothing_is_promised() {
    // No room is ever to be had there.
    let full = AuditFile { path: "/dev/full".into(), bytes_max: 1 << 20, files_kept: 1 };
    let (audit, _) = opened(full);
    assert!(matches!(audit.reserve().await, Err(AuditError::Io(_))));
}

#[tokio::test]
async fn strangers_cannot_fill_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, 1 << 20, 2);
    let (audit, hand) = opened(file.clone());
    let mut refused = entry(&WHO);
    (refused.outcome, refused.message) = (Outcome::Refused, "no");
    for _ in 0..REFUSALS_PER_MINUTE + 5 {
        audit.write_refusal(&refused).await.unwrap();
    }
    assert_eq!(lines(&file.path).len(), REFUSALS_PER_MINUTE);
    hand.0.fetch_add(MINUTE_MS, Ordering::Relaxed);
    assert!(audit.write_refusal(&refused).await.unwrap());
    assert_eq!(lines(&file.path).last().unwrap()["refusalsLeftOut"], 5);
}

#[tokio::test]
async fn long_arguments_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, 1 << 20, 2);
    let (audit, _) = opened(file.clone());
    let mut long = entry(&WHO);
    long.arguments = json!({ "workspaceId": "x".repeat(ARGUMENTS_BYTES_MAX) });
    audit.reserve().await.unwrap();
    audit.write(&long).await.unwrap();
    let line = fs::read_to_string(&file.path).unwrap();
    assert!(line.contains("leftOutBytes") && line.len() < 400, "{line}");
}

#[tokio::test]
async fn switched_off_nothing_is_written_and_everything_is_permitted() {
    let clock: Arc<dyn Clock> = Arc::<Hand>::default();
    let audit = Audit::open(AuditSink::Off, clock).unwrap();
    audit.reserve().await.unwrap();
    audit.write(&entry(&WHO)).await.unwrap();
}
