//! What waits for a connection: messages go in by their bytes, and who lets too many wait goes.

use relay_contract::{CloseReason, ConnectionId, Counter, Tick};

use crate::switchboard::Switchboard;
use crate::{Effect, Effects};

impl Switchboard {
    /// Sends a text of the relay's own.
    pub(crate) fn send(
        &mut self,
        now: Tick,
        to: ConnectionId,
        text: Box<[u8]>,
        effects: &mut Effects,
    ) {
        if self.enqueue(now, to, text.len(), effects) {
            effects.push(Effect::Send { to, text });
        }
    }

    /// Sends the message being judged.
    pub(crate) fn forward(
        &mut self,
        now: Tick,
        to: ConnectionId,
        bytes: usize,
        effects: &mut Effects,
    ) {
        if self.enqueue(now, to, bytes, effects) {
            effects.push(Effect::Forward { to });
        }
    }

    /// Counts a message into a connection's queue. One whose queue is above its bound already reads
    /// too slowly and is closed instead.
    fn enqueue(
        &mut self,
        now: Tick,
        to: ConnectionId,
        bytes: usize,
        effects: &mut Effects,
    ) -> bool {
        let Self { core, limits, tenants, .. } = self;
        let Some(member) = core.connections.member_mut(to) else {
            return false;
        };
        if tenants.is_backed_up(member, &core.directory, limits) {
            self.counters.count(Counter::WsSlowClientTerminated);
            self.close(now, to, CloseReason::BufferOverflow, effects);
            return false;
        }
        let bytes = u32::try_from(framed_bytes(bytes)).unwrap_or(u32::MAX);
        member.queued_bytes = member.queued_bytes.saturating_add(bytes);
        true
    }

    pub(crate) fn on_sent(&mut self, to: ConnectionId, bytes: usize) {
        if let Some(member) = self.core.connections.member_mut(to) {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            member.queued_bytes = member.queued_bytes.saturating_sub(bytes);
        }
    }

    /// Bytes that wait for a connection, by which its next message is judged.
    pub fn queued_bytes(&self, connection: ConnectionId) -> usize {
        self.core.connections.member(connection).map_or(0, |member| member.queued_bytes as usize)
    }

    /// Whether so much waits for a connection that another message for it would close it. Cost: one
    /// comparison, and a look at its scope for those above what the least of them may have.
    pub fn is_backed_up(&self, connection: ConnectionId) -> bool {
        let Self { core, limits, tenants, .. } = self;
        let member = core.connections.member(connection);
        member.is_some_and(|member| tenants.is_backed_up(member, &core.directory, limits))
    }
}

/// Bytes a message takes in a queue: its payload and the header of an unmasked frame.
/// Source: RFC 6455 §5.2.
pub fn framed_bytes(payload_bytes: usize) -> usize {
    let header_bytes = match payload_bytes {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    payload_bytes + header_bytes
}
