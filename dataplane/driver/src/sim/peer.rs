//! The test's end of a simulated connection.

use super::world::World;

/// One simulated client or daemon socket.
#[derive(Debug)]
pub struct Peer {
    world: World,
    index: usize,
}

/// How a connection looks from the peer's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerState {
    /// Bytes may still come.
    Open,
    /// The relay finished its side and everything was read.
    Eof,
    /// It was cut.
    Reset,
}

impl Peer {
    pub(crate) fn new(world: World, index: usize) -> Self {
        Self { world, index }
    }

    /// Sends as many bytes as the socket takes; returns how many that were.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let mut net = self.world.net.borrow_mut();
        let net = &mut *net;
        let stream = &mut net.streams[self.index];
        if stream.reset || stream.shard_closed {
            return bytes.len();
        }
        let taken = bytes.len().min(stream.to_shard.room(&net.faults));
        stream.to_shard.put(&bytes[..taken], net.now, &mut net.seed, &net.faults);
        net.injected.delays += u64::from(taken > 0);
        taken
    }

    /// Reads what has arrived, at most `most` bytes.
    pub fn read(&self, most: usize) -> Vec<u8> {
        let mut net = self.world.net.borrow_mut();
        let now = net.now;
        let stream = &mut net.streams[self.index];
        if stream.reset {
            return Vec::new();
        }
        let mut bytes = vec![0; most];
        let taken = stream.to_peer.take(&mut bytes, now);
        bytes.truncate(taken);
        bytes
    }

    /// Finishes this side.
    pub fn shutdown(&self) {
        let mut net = self.world.net.borrow_mut();
        let net = &mut *net;
        net.streams[self.index].to_shard.finish(net.now, &mut net.seed, &net.faults);
    }

    /// Cuts the connection.
    pub fn reset(&self) {
        self.world.net.borrow_mut().streams[self.index].reset = true;
    }

    /// How it stands.
    pub fn state(&self) -> PeerState {
        let net = self.world.net.borrow();
        let stream = &net.streams[self.index];
        if stream.reset {
            PeerState::Reset
        } else if stream.to_peer.is_at_end(net.now) {
            PeerState::Eof
        } else {
            PeerState::Open
        }
    }
}
