//! Who watches the state, and what each of them is told.

use std::collections::HashSet;
use std::time::Duration;

use relay_contract::{Tick, WorkspaceId};
use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::watch_state_response::Event;
use tokio::sync::mpsc;
use tonic::Status;

use super::answers::Reply;
use super::scopes;
use crate::controller::Controller;
use crate::judge::Judge;
use crate::ledger::{Changes, Scope};

/// What one watcher gets.
pub(crate) type Messages = mpsc::Receiver<Result<proto::WatchStateResponse, Status>>;

/// Everybody who watches.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    all: Vec<Watcher>,
    /// Snapshots begun anew because a watcher was behind.
    restarts: u64,
}

/// One who watches.
///
/// ```text
/// Snapshot ──last part──▶ Following
///    ▲                        │ more changed than is remembered
///    └────────────────────────┘
/// ```
#[derive(Debug)]
struct Watcher {
    workspace_id: Option<WorkspaceId>,
    interval: Duration,
    /// When it is told next.
    due: Tick,
    messages: mpsc::Sender<Result<proto::WatchStateResponse, Status>>,
    progress: Progress,
    /// Scopes that changed since it was told of them. It reads slowly: they are more.
    changed: HashSet<Scope>,
    told: proto::State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    /// It is told everything, from this line of the ledger on.
    Snapshot { next: usize },
    /// It is told what changes.
    Following,
}

impl Watchers {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }
}

impl Controller {
    pub(super) fn watch(&mut self, request: proto::WatchStateRequest, reply: Reply<Messages>) {
        // Who left is no watcher any more.
        self.watchers.all.retain(|watcher| !watcher.messages.is_closed());
        if self.watchers.all.len() >= WATCHERS_MAX {
            let text = format!("{WATCHERS_MAX} watch already; ask again later");
            super::answers::tell(reply, Err(Status::resource_exhausted(text)));
            return;
        }
        let interval = match request.interval_ms {
            0 => INTERVAL,
            100..=60_000 => Duration::from_millis(request.interval_ms.into()),
            other => {
                let text = format!("interval_ms: {other} is not between 100 and 60000");
                super::answers::tell(reply, Err(Status::invalid_argument(text)));
                return;
            }
        };
        let (messages, stream) = mpsc::channel(MESSAGES_MAX);
        let watcher = Watcher {
            workspace_id: scopes::workspace(&request.workspace_id),
            interval,
            due: self.clock.now(),
            messages,
            progress: Progress::Snapshot { next: 0 },
            changed: HashSet::new(),
            told: proto::State::default(),
        };
        self.judge.note_changes(true);
        self.watchers.all.push(watcher);
        super::answers::tell(reply, Ok(stream));
        self.tell_watchers();
    }

    /// Tells everybody who is due what is new. Cost: bounded by their number and by what one
    /// message holds; nothing while nobody watches.
    pub(crate) fn tell_watchers(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let (now, state) = (self.clock.now(), self.state());
        let changes = self.judge.take_changes();
        let Watchers { all, restarts } = &mut self.watchers;
        all.retain(|watcher| !watcher.messages.is_closed());
        for watcher in all.iter_mut() {
            *restarts += u64::from(watcher.note(&changes));
            if watcher.due <= now {
                watcher.tell(now, &state, &self.judge);
            }
        }
        if all.is_empty() {
            self.judge.note_changes(false);
        }
    }
}

impl Watcher {
    /// Remembers what changed; whether that is too much, so that it is told everything anew.
    fn note(&mut self, changes: &Changes) -> bool {
        let wanted = self.workspace_id.as_ref();
        let is_wanted = |scope: &&Scope| wanted.is_none_or(|wanted| *wanted == scope.workspace_id);
        self.changed.extend(changes.scopes.iter().filter(is_wanted).cloned());
        let is_too_much = changes.are_incomplete || self.changed.len() > CHANGED_MAX;
        if is_too_much {
            self.changed = HashSet::new();
            self.progress = Progress::Snapshot { next: 0 };
        }
        is_too_much
    }

    /// Tells as much as it takes at this moment.
    fn tell(&mut self, now: Tick, state: &proto::State, judge: &Judge) {
        loop {
            let Ok(place) = self.messages.try_reserve() else {
                // It reads slowly, or is gone: what changes meanwhile is told as one.
                return;
            };
            let (event, is_all) = match self.progress {
                Progress::Snapshot { next } => {
                    let page = judge.scopes(next, PAGE_MAX, self.workspace_id.as_ref());
                    self.progress = match page.next {
                        Some(next) => Progress::Snapshot { next },
                        None => Progress::Following,
                    };
                    if next == 0 {
                        self.told = state.clone();
                    }
                    let part = proto::Snapshot {
                        is_first: next == 0,
                        is_last: page.next.is_none(),
                        state: (next == 0).then(|| state.clone()),
                        scopes: page.scopes.iter().map(scopes::shown).collect(),
                    };
                    (Event::Snapshot(part), page.next.is_none())
                }
                Progress::Following => {
                    let taken: Vec<Scope> = self.changed.iter().take(PAGE_MAX).cloned().collect();
                    let is_new = self.told != *state;
                    if taken.is_empty() && !is_new {
                        self.due = now.after(self.interval);
                        return;
                    }
                    let scopes = taken.iter().map(|scope| {
                        self.changed.remove(scope);
                        scopes::shown(&judge.occupancy(scope))
                    });
                    let scopes = scopes.collect();
                    self.told = state.clone();
                    let changes = proto::Changes { state: is_new.then(|| state.clone()), scopes };
                    (Event::Changes(changes), self.changed.is_empty())
                }
            };
            place.send(Ok(proto::WatchStateResponse { event: Some(event) }));
            if is_all {
                self.due = now.after(self.interval);
                return;
            }
        }
    }
}

/// Watchers at a time. Protects the controller's time. Reached: RESOURCE_EXHAUSTED.
const WATCHERS_MAX: usize = 16;

/// Messages that wait for one watcher. Reached: what changes meanwhile is told as one.
const MESSAGES_MAX: usize = 2;

/// Scopes of one message.
const PAGE_MAX: usize = 500;

/// Scopes remembered as changed for one watcher. Protects memory from one that does not read.
/// Reached: a new snapshot, counted by `relay_control_watch_restarts_total`.
const CHANGED_MAX: usize = 16 << 10;

/// The time between two messages of changes, where none is asked for.
const INTERVAL: Duration = Duration::from_millis(500);
