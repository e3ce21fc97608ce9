//! Fresh tokens for connections that are open.

use relay_contract::{CloseReason, ConnectionId, Counter, Renewal, RenewalRefusal, Tick};
use relay_wire::envelope::cold::{self, ColdFrame};
use relay_wire::envelope::{ColdKind, Envelope, emit};

use crate::input::Message;
use crate::switchboard::Switchboard;
use crate::{Effect, Effects, FreshToken};

impl Message<'_> {
    /// Whether it is for the relay itself: a fresh token, of whatever form.
    pub(crate) fn is_renewal(&self) -> bool {
        matches!(self.envelope, Ok(&Envelope::Cold { kind: ColdKind::Renewal, .. }))
    }
}

impl Switchboard {
    /// Takes a fresh token to the control plane. The frame goes to nobody else, and nothing of it
    /// is logged.
    ///
    /// Each costs as much as [`RENEWAL_PRICE`] frames that reach nobody, of the same bucket, since
    /// the platform may have to be asked. Who cannot pay is closed.
    pub(crate) fn on_renewal(
        &mut self,
        now: Tick,
        from: ConnectionId,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        let per_minute = (self.limits_of(from).unrouted_per_minute / RENEWAL_PRICE).max(1);
        let Some(member) = self.core.connections.member_mut(from) else {
            return;
        };
        if !member.unrouted.take(now, per_minute) {
            self.counters.count(Counter::RenewalsRateLimited);
            return self.close(now, from, CloseReason::UnroutedRateLimited, effects);
        }
        let (admission, claims_digest) = (member.admission, member.claims_digest);
        match cold::parse(ColdKind::Renewal, &(message.text)()) {
            Ok(ColdFrame::Renewal { token }) => {
                self.counters.count(Counter::RenewalsAsked);
                let fresh = FreshToken { from, admission, claims_digest, token };
                effects.push(Effect::AskRenewal(Box::new(fresh)));
            }
            Ok(_) | Err(_) => {
                let outcome = Renewal::Refused(RenewalRefusal::Malformed);
                self.on_renewed(now, from, outcome, effects);
            }
        }
    }

    /// Tells a peer what became of its fresh token. The connection itself stays as it is.
    pub(crate) fn on_renewed(
        &mut self,
        now: Tick,
        to: ConnectionId,
        outcome: Renewal,
        effects: &mut Effects,
    ) {
        if self.core.connections.member(to).is_none() {
            return;
        }
        self.counters.count(match outcome {
            Renewal::Renewed { .. } => Counter::RenewalsAccepted,
            Renewal::Refused(_) => Counter::RenewalsRefused,
        });
        self.send(now, to, emit::renewal(outcome).into(), effects);
    }
}

/// Frames that reach nobody which a fresh token costs as much as. Protects the platform: at the
/// default rate a connection may make it check thirty tokens a minute, where one in the lifetime of
/// a token is enough.
const RENEWAL_PRICE: u32 = 20;

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
