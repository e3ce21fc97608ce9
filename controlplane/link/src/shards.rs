//! Commands to the shards.

use std::collections::{BTreeMap, VecDeque};

use relay_contract::{Command, ShardId};
use relay_mailbox::{Full, Sender};

use crate::planes::{Block, Orders};

/// Sends commands to shards, in order per shard, without ever waiting.
///
/// A command that finds its lane full joins that shard's backlog; [`Shards::drain`] moves backlogs
/// on and is to be called once per turn of whoever owns this.
#[derive(Debug)]
pub struct Shards {
    lanes: BTreeMap<ShardId, Lane>,
    /// Whether they belong to data planes that come and go.
    apart: bool,
}

/// Why a command did not leave. The command is gone; its effect has to be made up for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// No such shard: our own mistake, or its data plane is gone.
    #[error("shard {0:?} does not exist")]
    NoSuchShard(ShardId),
    /// Lane and backlog are full: the shard hangs or has ended. Worth retrying only for a command
    /// that is still true later.
    #[error("shard {0:?} does not take commands")]
    Overloaded(ShardId),
}

impl Shards {
    pub(crate) fn new(senders: Vec<Sender<Command>>) -> Self {
        let lanes = senders.into_iter().map(|sender| Lane::new(Way::Lane(sender)));
        Self { lanes: (0..).map(ShardId).zip(lanes).collect(), apart: false }
    }

    /// None yet: they come with their data planes.
    pub(crate) fn apart() -> Self {
        Self { lanes: BTreeMap::new(), apart: true }
    }

    /// Whether they belong to data planes that come and go, and go on without this side.
    pub fn are_apart(&self) -> bool {
        self.apart
    }

    /// The shards of a data plane that came.
    pub fn attach(&mut self, block: Block, orders: &Orders) {
        let lane = |shard| (shard, Lane::new(Way::Plane(shard, orders.clone())));
        self.lanes.extend(block.shards().map(lane));
    }

    /// They are gone.
    pub fn detach(&mut self, block: Block) {
        self.lanes.retain(|&shard, _| !block.contains(shard));
    }

    /// How many shards there are. In one process their ids count from zero.
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Every shard's id, in order.
    pub fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.lanes.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// Sends one command, after everything sent to that shard before.
    ///
    /// # Errors
    /// [`LinkError`]; nothing is left behind.
    pub fn send(&mut self, shard: ShardId, command: Command) -> Result<(), LinkError> {
        self.lane(shard)?.send(command).map_err(|_full| LinkError::Overloaded(shard))
    }

    /// Sends a command to every shard, and returns those it did not reach.
    pub fn broadcast(&mut self, mut command: impl FnMut() -> Command) -> Vec<ShardId> {
        self.ids().filter(|&shard| self.send(shard, command()).is_err()).collect()
    }

    /// Sends a shard its last command. Whatever its backlog holds is dropped: nothing that waited
    /// there matters to a shard that ends.
    ///
    /// # Errors
    /// [`LinkError::NoSuchShard`].
    pub fn send_last(&mut self, shard: ShardId, command: Command) -> Result<(), LinkError> {
        let lane = self.lane(shard)?;
        lane.backlog.clear();
        lane.send(command).map_err(|_full| LinkError::Overloaded(shard))
    }

    /// Moves backlogs into lanes that have room again; whether a backlog is left.
    pub fn drain(&mut self) -> bool {
        let mut left = false;
        for lane in self.lanes.values_mut() {
            lane.drain();
            left |= !lane.backlog.is_empty();
        }
        left
    }

    fn lane(&mut self, shard: ShardId) -> Result<&mut Lane, LinkError> {
        self.lanes.get_mut(&shard).ok_or(LinkError::NoSuchShard(shard))
    }
}

#[derive(Debug)]
struct Lane {
    way: Way,
    /// What found the lane full, oldest first.
    backlog: VecDeque<Command>,
}

/// How commands reach a shard.
#[derive(Debug)]
enum Way {
    /// A lane of its own in this process.
    Lane(Sender<Command>),
    /// Through its data plane's stream.
    Plane(ShardId, Orders),
}

impl Way {
    fn send(&self, command: Command) -> Result<(), Full<Command>> {
        match self {
            Self::Lane(sender) => sender.send(command),
            Self::Plane(shard, orders) => {
                let sent = orders.0.try_send((*shard, command));
                sent.map_err(|error| Full(error.into_inner().1))
            }
        }
    }
}

impl Lane {
    fn new(way: Way) -> Self {
        Self { way, backlog: VecDeque::new() }
    }

    fn send(&mut self, command: Command) -> Result<(), Full<Command>> {
        self.drain();
        let command = if self.backlog.is_empty() {
            match self.way.send(command) {
                Ok(()) => return Ok(()),
                Err(Full(command)) => command,
            }
        } else {
            command
        };
        if self.backlog.len() >= BACKLOG_MAX {
            return Err(Full(command));
        }
        self.backlog.push_back(command);
        Ok(())
    }

    fn drain(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            if let Err(Full(command)) = self.way.send(command) {
                self.backlog.push_front(command);
                return;
            }
        }
    }
}

/// Commands that may wait for one shard beyond its lane. Protects memory from a shard that hangs.
/// Reached: [`LinkError::Overloaded`].
const BACKLOG_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relay_mailbox::{Bell, Receiver, Ring, lane};

    use super::*;

    struct Silent;

    impl Ring for Silent {
        fn ring(&self) {}
    }

    fn shards(capacity: usize) -> (Shards, Receiver<Command>) {
        let bell: Arc<Bell> = Bell::new(Silent);
        let (sender, receiver) = lane(capacity, bell);
        (Shards::new(vec![sender]), receiver)
    }

    fn stop(deadline_ms: u64) -> Command {
        Command::Stop { deadline_ms }
    }

    fn received(receiver: &Receiver<Command>) -> Vec<u64> {
        std::iter::from_fn(|| receiver.receive())
            .map(|command| match command {
                Command::Stop { deadline_ms } => deadline_ms,
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_full_lane_keeps_the_order_of_commands() {
        let (mut shards, receiver) = shards(2);
        for n in 0..5 {
            shards.send(ShardId(0), stop(n)).unwrap();
        }
        let mut order = received(&receiver);
        assert!(shards.drain(), "one command is still in the backlog");
        order.extend(received(&receiver));
        assert!(!shards.drain());
        order.extend(received(&receiver));
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_hanging_shard_costs_bounded_memory() {
        let (mut shards, _receiver) = shards(1);
        let taken = (0..).take_while(|&n| shards.send(ShardId(0), stop(n)).is_ok()).count();
        assert_eq!(taken, 1 + BACKLOG_MAX);
    }

    #[test]
    fn the_last_command_overtakes_the_backlog() {
        let (mut shards, receiver) = shards(1);
        for n in 0..10 {
            shards.send(ShardId(0), stop(n)).unwrap();
        }
        shards.send_last(ShardId(0), stop(99)).unwrap();
        assert_eq!(received(&receiver), [0]);
        shards.drain();
        assert_eq!(received(&receiver), [99]);
    }

    #[test]
    fn a_command_for_a_shard_that_does_not_exist_is_an_error() {
        let (mut shards, _receiver) = shards(1);
        assert_eq!(shards.send(ShardId(7), stop(0)), Err(LinkError::NoSuchShard(ShardId(7))));
    }

    #[test]
    fn a_broadcast_names_the_shards_it_missed() {
        let (mut shards, _receiver) = shards(1);
        assert_eq!(shards.broadcast(|| stop(1)), []);
        while shards.send(ShardId(0), stop(2)).is_ok() {}
        assert_eq!(shards.broadcast(|| stop(3)), [ShardId(0)]);
    }
}
