//! Session event channels: subscriptions and viewers.

use std::ops::Bound;

use relay_contract::{CloseReason, ConnectionId, Counter, Tick};
use relay_wire::envelope::cold::ColdFrame;
use relay_wire::envelope::emit;

use crate::Effects;
use crate::connection::{Channel, Part};
use crate::directory::Subscription;
use crate::input::Message;
use crate::key::Key;
use crate::limiter::RuntimeKeys;
use crate::switchboard::Switchboard;

impl Switchboard {
    /// A frame of a client whose claims name the channels it may use.
    pub(crate) fn on_events_frame(
        &mut self,
        now: Tick,
        from: ConnectionId,
        frame: ColdFrame,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        match frame {
            ColdFrame::Subscribe { channel, after_sequence } => {
                if !self.pay_unrouted(now, from, effects) {
                    return;
                }
                if !self.subscribe(from, &channel, true) {
                    return self.deny_subscription(now, from, &channel, effects);
                }
                self.counters.count(Counter::SessionEventSubscribed);
                let text = emit::subscribed(&channel, after_sequence);
                self.send(now, from, text.into(), effects);
            }
            ColdFrame::Unsubscribe { channel } => {
                if !self.pay_unrouted(now, from, effects) {
                    return;
                }
                if !self.subscribe(from, &channel, false) {
                    return self.deny_subscription(now, from, &channel, effects);
                }
                self.counters.count(Counter::SessionEventUnsubscribed);
                self.send(now, from, emit::unsubscribed(&channel).into(), effects);
            }
            ColdFrame::Presence { channel } => {
                self.on_presence(now, from, &channel, message, effects);
            }
            // Not frames of a client; the caller has sorted them out.
            ColdFrame::Worker(_) | ColdFrame::SessionEvent { .. } | ColdFrame::Renewal { .. } => {}
        }
    }

    /// Subscribes a client to a channel or ends that. `false` when its claims do not name the
    /// channel.
    fn subscribe(&mut self, from: ConnectionId, channel: &[u8], subscribed: bool) -> bool {
        let channel = self.core.keyer.text(channel);
        let Some(member) = self.core.connections.member_mut(from) else {
            return false;
        };
        let Part::Client(client) = &mut member.part else {
            return false;
        };
        let claims = client.channels.iter_mut().flatten();
        let mut named = false;
        for claim in claims.filter(|claim| claim.key == channel) {
            claim.subscribed = subscribed;
            named = true;
        }
        if named {
            let sequence = member.sequence;
            let subscription = Subscription { channel, sequence, subscriber: from };
            let subscriptions = &mut self.core.directory.scope_mut(member.scope).subscriptions;
            if subscribed {
                subscriptions.insert(subscription);
            } else {
                subscriptions.remove(&subscription);
            }
        }
        named
    }

    fn deny_subscription(
        &mut self,
        now: Tick,
        from: ConnectionId,
        channel: &[u8],
        effects: &mut Effects,
    ) {
        self.counters.count(Counter::SessionEventSubscribeRejected);
        let text = emit::subscribe_denied(channel, self.workspace_of(from));
        self.refuse(now, from, text, effects);
    }

    /// Tells the other viewers of a channel about one. The sender needs the claim, not a
    /// subscription.
    fn on_presence(
        &mut self,
        now: Tick,
        from: ConnectionId,
        channel: &[u8],
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        let key = self.core.keyer.text(channel);
        let Some((member, client)) = self.client(from) else {
            return;
        };
        let at = member.scope;
        let keys = RuntimeKeys {
            client: client.key,
            workspace: self.core.directory.scope(at).workspace_key,
        };
        let mut claims = client.channels.iter().flatten();
        let claimed = claims.any(|Channel { key: claimed, .. }| *claimed == key);
        if !claimed || message.bytes > PRESENCE_BYTES_MAX {
            self.counters.count(Counter::SessionViewerPresenceRejected);
            if !self.pay_unrouted(now, from, effects) {
                return;
            }
            let text = emit::presence_denied(channel, self.workspace_of(from));
            return self.refuse(now, from, text, effects);
        }
        let limits = self.core.directory.scope(at).limits(&self.limits);
        if !self.core.limiters.runtime(keys, now, limits) {
            self.counters.count(Counter::SessionViewerPresenceRateLimited);
            return self.close(now, from, CloseReason::PresenceRateLimited, effects);
        }
        let mut fanned = false;
        let mut last = None;
        while let Some(next) = self.next_subscription(at, key, last) {
            last = Some(next);
            if next.subscriber == from {
                continue;
            }
            // The message itself goes to one; the others get copies.
            if fanned {
                self.send(now, next.subscriber, (message.text)().into(), effects);
            } else {
                fanned = true;
                self.forward(now, next.subscriber, message.bytes, effects);
            }
        }
        self.counters.count(match fanned {
            true => Counter::SessionViewerPresenceFanned,
            false => Counter::SessionViewerPresenceNoPeers,
        });
    }

    /// The subscription that follows `last`, in order of connection. A scope may lose some in
    /// between.
    fn next_subscription(
        &self,
        scope: u32,
        channel: Key,
        last: Option<Subscription>,
    ) -> Option<Subscription> {
        let first = Subscription { channel, sequence: 0, subscriber: ConnectionId::default() };
        let from = last.map_or(Bound::Included(first), Bound::Excluded);
        let subscriptions = &self.core.directory.scope(scope).subscriptions;
        let next = subscriptions.range((from, Bound::Unbounded)).next();
        next.filter(|next| next.channel == channel).copied()
    }
}

/// Bytes of a viewer's presence, which the relay multiplies by the number of viewers. Protects the
/// shard and the viewers from amplification. Reached: answered as a channel outside the claims.
/// Source: ten times what the frame's own members can take.
const PRESENCE_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
