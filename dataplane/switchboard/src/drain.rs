//! A drain: who goes when, and what they are told.

use relay_contract::{CloseReason, ConnectionId, Counter, Tick};
use relay_wire::envelope::emit;

use crate::Effects;
use crate::connection::{Part, State};
use crate::switchboard::Switchboard;

impl Switchboard {
    /// Everybody who is open, in the order in which a drain tells them to go.
    ///
    /// Scopes follow each other by their keyed hash, so that no workspace is always first and
    /// nobody can choose a place; the order of slots is that of arrival and would be neither. The
    /// members of a scope go one after the other, because a scope that is split over two relays is
    /// of no use: its daemon first, so that it is there when its clients come, then clients in
    /// order of connection, workers last. Cost: linear in connections, and sorting them.
    pub fn leaving_order(&self) -> Vec<ConnectionId> {
        let mut ranked = Vec::new();
        for (id, connection) in self.core.connections.iter() {
            if let State::Open(member) = &connection.state {
                let scope = self.core.directory.scope(member.scope).key();
                let rank = match member.part {
                    Part::Daemon { .. } => 0_u8,
                    Part::Client(_) => 1,
                    Part::Worker(_) => 2,
                };
                ranked.push((scope, rank, member.sequence, id));
            }
        }
        ranked.sort_unstable_by_key(|&(scope, rank, sequence, _)| (scope, rank, sequence));
        ranked.into_iter().map(|(_, _, _, id)| id).collect()
    }

    /// Tells one connection to go; a client hears first where to, if that is known.
    pub(crate) fn on_drained(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        redirect: Option<&str>,
        effects: &mut Effects,
    ) {
        let Some(member) = self.core.connections.member(connection) else { return };
        if let (Some(url), Part::Client(_)) = (redirect, &member.part) {
            let scope = self.core.directory.scope(member.scope);
            let workspace = scope.workspace_id.as_str();
            let text = emit::relay_redirect(workspace, None, url).into_boxed_slice();
            self.counters.count(Counter::ClientRedirect);
            self.send(now, connection, text, effects);
        }
        self.counters.count(Counter::DrainTold);
        self.close(now, connection, CloseReason::ShuttingDown, effects);
    }
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
