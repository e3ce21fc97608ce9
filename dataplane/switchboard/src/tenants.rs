//! Workspaces with limits of their own.

use std::collections::HashMap;
use std::sync::Arc;

use relay_contract::{ConnectionId, Counter, Limits, Routes, TargetId, Tick, WorkspaceId};

use crate::connection::Member;
use crate::directory::{Directory, Scope};
use crate::switchboard::Switchboard;

/// The routes in force, and the limits of tenants that follow from them.
#[derive(Debug)]
pub(crate) struct Tenants {
    pub(crate) routes: Arc<Routes>,
    /// Whole limits of those that have some of their own; what is not theirs is the relay's.
    limits: HashMap<WorkspaceId, Arc<Limits>>,
    /// The shortest queue anybody may have, so that one comparison is enough for those below.
    egress_bytes_min: usize,
}

impl Tenants {
    pub(crate) fn new(routes: Arc<Routes>, relay: &Limits) -> Self {
        let limits: HashMap<_, _> = routes
            .tenants
            .iter()
            .map(|(workspace, own)| (workspace.clone(), Arc::new(own.over(relay))))
            .collect();
        let egress_bytes_min = limits
            .values()
            .map(|limits| limits.egress_bytes_max)
            .fold(relay.egress_bytes_max, usize::min);
        Self { egress_bytes_min, limits, routes }
    }

    /// A workspace's own limits, if it has any.
    pub(crate) fn limits_of(&self, workspace: &WorkspaceId) -> Option<Arc<Limits>> {
        self.limits.get(workspace).cloned()
    }

    /// Whether more waits for a member than may. Cost: one comparison, and a look at its scope for
    /// those above what the least of all may have.
    #[inline]
    pub(crate) fn is_backed_up(
        &self,
        member: &Member,
        directory: &Directory,
        relay: &Limits,
    ) -> bool {
        let queued_bytes = member.queued_bytes as usize;
        queued_bytes > self.egress_bytes_min
            && queued_bytes > directory.scope(member.scope).limits(relay).egress_bytes_max
    }
}

impl Scope {
    /// The limits of its members.
    #[inline]
    pub(crate) fn limits<'a>(&'a self, relay: &'a Limits) -> &'a Limits {
        self.limits.as_deref().unwrap_or(relay)
    }
}

impl Switchboard {
    pub(crate) fn on_limits(&mut self, limits: Arc<Limits>) {
        if limits.version <= self.limits.version {
            return self.counters.count(Counter::StaleVersionsRefused);
        }
        self.limits = limits;
        self.settle_tenants(Arc::clone(&self.tenants.routes));
    }

    pub(crate) fn on_routes(&mut self, routes: Arc<Routes>) {
        if routes.version <= self.tenants.routes.version {
            return self.counters.count(Counter::StaleVersionsRefused);
        }
        self.settle_tenants(routes);
    }

    /// Gives every scope the limits that its workspace has from now on. Cost: linear in scopes and
    /// tenants.
    pub(crate) fn settle_tenants(&mut self, routes: Arc<Routes>) {
        self.tenants = Tenants::new(routes, &self.limits);
        for scope in self.core.directory.iter_mut() {
            scope.limits = self.tenants.limits_of(&scope.workspace_id);
        }
    }

    /// The routes in force.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.tenants.routes
    }

    /// The scope of a workspace and target, made if there is none.
    pub(crate) fn open_scope(
        &mut self,
        workspace: &WorkspaceId,
        target: Option<&TargetId>,
        now: Tick,
    ) -> u32 {
        let core = &mut self.core;
        let at = core.directory.open(&core.keyer, workspace, target, now);
        core.directory.scope_mut(at).limits = self.tenants.limits_of(workspace);
        at
    }

    /// The limits of an open connection, where they may not be the relay's.
    pub(crate) fn limits_of(&self, connection: ConnectionId) -> &Limits {
        let member = self.core.connections.member(connection);
        member.map_or(&self.limits, |member| {
            self.core.directory.scope(member.scope).limits(&self.limits)
        })
    }

    /// Where clients of a scope reach its daemon, when that is at another relay.
    pub(crate) fn elsewhere(&self, scope: u32) -> Option<&str> {
        let scope = self.core.directory.scope(scope);
        let target = scope.target_id.as_ref().filter(|_| scope.daemon.is_none())?;
        self.tenants.routes.elsewhere(&scope.workspace_id, target)
    }
}

#[cfg(test)]
#[path = "tenants_tests.rs"]
mod tests;
