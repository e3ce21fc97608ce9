//! What waits for a client's user.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bell::Button;
use super::client::Received;
use crate::limits::Limits;

/// Bounded by leaving the socket alone: a user that does not read is, to the relay, a slow reader.
#[derive(Clone)]
pub(super) struct Inbox(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    button: Button,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Received>,
    bytes: usize,
    /// A session has been open.
    opened: bool,
    /// Nothing more will come.
    closed: bool,
}

impl Inbox {
    pub(super) fn new(limits: &Limits, button: Button) -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            button,
            messages_max: limits.inbox_messages_max.max(1),
            bytes_max: limits.inbox_bytes_max.max(1),
        }))
    }

    pub(super) fn put(&self, item: Received) {
        let mut waiting = self.lock();
        waiting.bytes += item.bytes();
        waiting.items.push_back(item);
        self.0.arrived.notify_one();
    }

    pub(super) fn open(&self) {
        self.lock().opened = true;
        self.0.arrived.notify_all();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.0.arrived.notify_all();
    }

    pub(super) fn has_room(&self) -> bool {
        self.0.has_room(&self.lock())
    }

    /// Reports come however full it is; a user who takes none is to send no more.
    pub(super) fn is_overrun(&self) -> bool {
        self.lock().items.len() >= 2 * self.0.messages_max
    }

    /// The next item; `None` when there is none in time; an error when there never will be.
    pub(super) fn take(&self, timeout: Duration) -> Result<Option<Received>, Closed> {
        let waiting = self.wait(timeout, |waiting| waiting.items.is_empty());
        let mut waiting = waiting;
        let had_room = self.0.has_room(&waiting);
        let Some(item) = waiting.items.pop_front() else {
            return if waiting.closed { Err(Closed) } else { Ok(None) };
        };
        waiting.bytes -= item.bytes();
        let has_room = self.0.has_room(&waiting);
        drop(waiting);
        if has_room && !had_room {
            self.0.button.press();
        }
        Ok(Some(item))
    }

    /// Whether a session was open in time.
    pub(super) fn wait_opened(&self, timeout: Duration) -> bool {
        self.wait(timeout, |waiting| !waiting.opened).opened
    }

    fn wait(&self, timeout: Duration, lacks: impl Fn(&Waiting) -> bool) -> MutexGuard<'_, Waiting> {
        // A timeout beyond what the clock can hold is as good as none.
        let deadline = Instant::now().checked_add(timeout);
        let mut waiting = self.lock();
        while lacks(&waiting) && !waiting.closed {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => timeout,
            };
            if left.is_zero() {
                break;
            }
            let woken = self.0.arrived.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can be half done: a panic elsewhere does not spoil it.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn has_room(&self, waiting: &Waiting) -> bool {
        waiting.items.len() < self.messages_max && waiting.bytes < self.bytes_max
    }
}

/// The link has ended and the inbox is empty.
#[derive(Debug)]
pub(super) struct Closed;
