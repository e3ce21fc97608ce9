//! The data planes of a control plane that runs apart from them.

use relay_contract::{AdmissionId, Command, Event, ShardId};
use tokio::sync::{mpsc, oneshot};

use crate::berth::Inventory;

/// The shards of one data plane, as this side numbers them: `first` and those that follow. It names
/// the data plane.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Block {
    /// The first.
    pub first: ShardId,
    /// How many.
    pub count: u16,
}

impl Block {
    /// Every shard of it.
    pub fn shards(self) -> impl Iterator<Item = ShardId> + use<> {
        (self.first.0..self.first.0.saturating_add(self.count)).map(ShardId)
    }

    /// Whether it is one of them.
    pub fn contains(self, shard: ShardId) -> bool {
        shard.0 >= self.first.0 && shard.0 - self.first.0 < self.count
    }
}

/// A data plane that came.
#[derive(Debug)]
pub struct Attached {
    /// Its shards.
    pub block: Block,
    /// One life of its process, for the log.
    pub instance_id: String,
    /// What moves its bytes.
    pub driver: &'static str,
    /// What it holds.
    pub inventory: Inventory,
    /// Where orders for it go. [`crate::Shards::attach`]
    pub orders: Orders,
    /// Takes which numbers its connections have here; what it tells next waits for that.
    pub adopted: oneshot::Sender<Vec<(AdmissionId, AdmissionId)>>,
}

/// The way to one data plane.
#[derive(Clone, Debug)]
pub struct Orders(pub(crate) mpsc::Sender<(ShardId, Command)>);

impl Orders {
    /// A way that takes so many orders, and where they arrive.
    pub fn channel(orders_max: usize) -> (Self, mpsc::Receiver<(ShardId, Command)>) {
        let (sender, receiver) = mpsc::channel(orders_max);
        (Self(sender), receiver)
    }
}

/// What the data planes tell.
#[derive(Debug)]
pub enum News {
    /// One came.
    Attached(Box<Attached>),
    /// Something happened on a shard of one that is there.
    Event(Event),
    /// One is gone. Its connections are, or it will offer them anew.
    Detached(Detached),
}

/// A data plane that is gone.
#[derive(Debug)]
pub struct Detached {
    /// Its shards.
    pub block: Block,
    /// One life of its process.
    pub instance_id: String,
    /// Whether it said that it would go.
    pub said: bool,
    /// Its connections: the number each has for the data plane, and the one in the ledger. If it
    /// comes back, it offers them by the first.
    pub numbers: Vec<(AdmissionId, AdmissionId)>,
}

/// Receives what the data planes tell, of each in order.
#[derive(Debug)]
pub struct Planes(mpsc::Receiver<News>);

impl Planes {
    /// For those that bring news, and where they arrive.
    pub fn channel() -> (mpsc::Sender<News>, Self) {
        let (sender, receiver) = mpsc::channel(NEWS_MAX);
        (sender, Self(receiver))
    }

    /// Where nobody ever tells anything.
    pub(crate) fn none() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// The next, if it is there.
    pub fn try_next(&mut self) -> Option<News> {
        self.0.try_recv().ok()
    }

    /// Waits for the next; `None` when nobody can tell anything any more.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<News> {
        self.0.recv().await
    }
}

/// News of all data planes that wait. Protects memory from a control plane that is behind.
/// Reached: the data planes wait, in the order in which they came; behind their own bounds they
/// answer newcomers 503.
const NEWS_MAX: usize = 4096;
