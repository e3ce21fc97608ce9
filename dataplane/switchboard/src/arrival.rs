//! Connections that were just opened: their claims against what they asked for.

use relay_contract::{
    Claims, CloseReason, ConnectionId, Counter, Grant, Level, LogEntry, Role, Scope, Site,
    TargetId, Tick,
};
use relay_wire::envelope::{emit, trim_js};

use crate::bucket::Bucket;
use crate::connection::{Channel, Client, Member, Part, State, Worker};
use crate::deadline::Timer;
use crate::directory::Directory;
use crate::key::Keyer;
use crate::liveness::Liveness;
use crate::switchboard::{Switchboard, with_some};
use crate::wheel::TimerId;
use crate::{Effect, Effects};

/// Why an opened connection may not stay.
#[derive(Debug)]
struct Rejection {
    reason: CloseReason,
    entry: LogEntry,
}

impl Switchboard {
    /// Registers a connection or turns it away. Source: relay specification, section 5.
    pub(crate) fn on_opened(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        grant: Grant,
        effects: &mut Effects,
    ) {
        if let Some(seated) = self.core.connections.id_at(connection.slot) {
            // A slot is used again only after its socket is gone.
            self.on_closed(now, seated, effects);
        }
        if self.core.stopping {
            let reason = CloseReason::ShuttingDown;
            return self.turn_away(now, connection, grant.admission, reason, effects);
        }
        match judge(&grant).and_then(|target| self.judge_daemon(&grant, target)) {
            Ok(target) => self.register(now, connection, grant, target, effects),
            Err(rejection) => self.reject(now, connection, &grant, *rejection, effects),
        }
    }

    /// A scope has one daemon, and never an older one than it had. The claims have been judged.
    fn judge_daemon(
        &self,
        grant: &Grant,
        target: Option<TargetId>,
    ) -> Result<Option<TargetId>, Box<Rejection>> {
        if grant.request.role != Role::Daemon {
            return Ok(target);
        }
        let directory = &self.core.directory;
        let key = Directory::key(&self.core.keyer, &grant.request.workspace_id, target.as_ref());
        let stale = match (grant.claims.daemon_issue_generation, directory.generation(key)) {
            (Some(claimed), Some(seen)) => claimed < seen,
            _ => false,
        };
        let occupied = directory.find(key).is_some_and(|at| directory.scope(at).daemon.is_some());
        let (reason, name) = match (stale, occupied) {
            (true, _) => (CloseReason::StaleDaemonGeneration, "stale_daemon_generation"),
            (false, true) => (CloseReason::DaemonAlreadyConnected, "daemon_already_connected"),
            (false, false) => return Ok(target),
        };
        let entry = LogEntry::new(Level::Warn, "daemon_connection_rejected")
            .with("workspaceId", grant.request.workspace_id.to_string());
        let entry = with_some(entry, "runtimeTargetId", target.map(String::from));
        Err(Box::new(Rejection { reason, entry: entry.with("reason", name) }))
    }

    fn reject(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        grant: &Grant,
        rejection: Rejection,
        effects: &mut Effects,
    ) {
        self.counters.count(Counter::WsConnectionsRejected);
        effects.push(Effect::Log(Box::new(rejection.entry.about(connection))));
        let is_client = grant.request.role == Role::Client;
        if is_client && rejection.reason == CloseReason::MissingTargetClaim {
            let text = emit::runtime_target_required(grant.request.workspace_id.as_str());
            effects.push(Effect::Send { to: connection, text: text.into() });
        }
        self.turn_away(now, connection, grant.admission, rejection.reason, effects);
    }

    fn register(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        grant: Grant,
        target: Option<TargetId>,
        effects: &mut Effects,
    ) {
        self.counters.count(Counter::WsConnectionsOpened);
        effects
            .push(Effect::Log(Box::new(arrival_entry(&grant, target.as_ref()).about(connection))));
        let workspace = &grant.request.workspace_id;
        let requested = grant.request.target_id.as_ref();
        let is_client = grant.request.role == Role::Client;
        let is_aimed = is_client && requested.is_some();
        if is_client {
            // The scope that was asked for comes to exist even where the claims lead to another.
            self.open_scope(workspace, requested, now);
        }
        let at = self.open_scope(workspace, target.as_ref(), now);
        self.core.directory.join(at);
        self.settle_empty_scopes(now, effects);
        let core = &mut self.core;
        let scope = core.directory.scope_mut(at);
        let machine = grant.claims.machine_id.as_deref();
        let machine_id = machine.map(|machine| scope.share_machine_id(machine));
        let part = match grant.request.role {
            Role::Daemon => {
                scope.daemon = Some(connection);
                scope.generation = scope.generation.max(grant.claims.daemon_issue_generation);
                scope.exchanges.clear();
                scope.sessions.clear();
                core.directory.count_tables(at);
                core.peer_count += 1;
                Part::Daemon { machine_id, profile: grant.claims.e2ee_profile }
            }
            Role::Client => {
                scope.client_count += 1;
                core.peer_count += 1;
                Part::Client(Client { machine_id, ..client(&core.keyer, &grant) })
            }
            Role::Worker => Part::Worker(Worker {
                executor_id: grant.claims.managed_executor_id,
                call_count: 0,
            }),
        };
        let sequence = core.sequence;
        core.sequence += 1;
        let liveness = Liveness::new(now, &self.limits.heartbeat);
        let mut member = Member {
            admission: grant.admission,
            claims_digest: grant.claims_digest,
            sequence,
            scope: at,
            queued_bytes: 0,
            liveness,
            timer: TimerId::default(),
            unrouted: Bucket::default(),
            small_frames: Bucket::default(),
            frame_logs: Bucket::default(),
            part,
        };
        let deadline = liveness.deadline(&self.limits.heartbeat);
        member.timer = self.arm(now, deadline, Timer::connection(connection.slot));
        self.core.connections.seat(connection, State::Open(member));
        if is_aimed {
            self.redirect_newcomer(now, connection, at, effects);
        }
    }

    /// Tells a client at once that its daemon is at another relay. It may stay all the same.
    fn redirect_newcomer(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        at: u32,
        effects: &mut Effects,
    ) {
        let Some(url) = self.elsewhere(at) else { return };
        let workspace = self.core.directory.scope(at).workspace_id.as_str();
        let text = emit::relay_redirect(workspace, None, url);
        self.counters.count(Counter::ClientRedirect);
        self.send(now, connection, text.into(), effects);
    }
}

/// Compares claims and request. `Ok` is the target the connection is for.
fn judge(grant: &Grant) -> Result<Option<TargetId>, Box<Rejection>> {
    let (request, claims) = (&grant.request, &grant.claims);
    let workspace = request.workspace_id.as_str();
    let reject = |reason, name, entry: LogEntry| {
        let entry = entry
            .with("role", request.role.name())
            .with("ip", grant.address.to_string())
            .with("reason", name);
        Err(Box::new(Rejection { reason, entry }))
    };
    let entry =
        LogEntry::new(Level::Warn, "connection_rejected").with("workspaceId", workspace.to_owned());
    let claimed = trimmed(claims.workspace_id.as_deref());
    if claimed.is_empty() {
        return reject(CloseReason::MissingWorkspaceClaim, "missing_workspace_claim", entry);
    }
    if claimed != workspace {
        let entry = entry.with("claimedWorkspaceId", claimed.to_owned());
        return reject(CloseReason::WorkspaceClaimMismatch, "workspace_claim_mismatch", entry);
    }
    let target = trimmed(claims.runtime_target_id.as_deref());
    if let Some(requested) = request.target_id.as_ref().filter(|asked| asked.as_str() != target) {
        let entry = entry
            .with("requestedRuntimeTargetId", requested.to_string())
            .with("claimedRuntimeTargetId", target.to_owned());
        return reject(CloseReason::TargetClaimMismatch, "runtime_target_claim_mismatch", entry);
    }
    if request.role == Role::Client && claims.scope.is_none() {
        let entry = LogEntry::new(Level::Warn, "client_connection_rejected")
            .with("workspaceId", workspace.to_owned())
            .with("clientId", client_name(claims).to_owned())
            .with("reason", "invalid_scope_claim");
        return Err(Box::new(Rejection { reason: CloseReason::InvalidScopeClaim, entry }));
    }
    let needs_target = match request.role {
        Role::Daemon => true,
        Role::Client => claims.scope != Some(Scope::Pairing),
        Role::Worker => false,
    };
    if target.is_empty() && needs_target {
        return reject(CloseReason::MissingTargetClaim, "missing_runtime_target_claim", entry);
    }
    Ok((!target.is_empty()).then(|| TargetId::from(target)))
}

/// A client's claims; the machine id is left out.
fn client(keyer: &Keyer, grant: &Grant) -> Client {
    let claims = &grant.claims;
    let workspace = grant.request.workspace_id.as_str().as_bytes();
    let id = client_name(claims).as_bytes();
    let site = Site::from(grant.address).to_string();
    let scope = claims.scope.unwrap_or(Scope::Pairing);
    let channels = (scope == Scope::SessionEvents).then(|| {
        let channels = claims.session_channels.iter().flatten();
        channels
            .map(|name| Channel { key: keyer.text(name.as_bytes()), subscribed: false })
            .collect()
    });
    Client {
        id: claims.client_id.clone(),
        machine_id: None,
        scope,
        profile: claims.e2ee_profile,
        key: keyer.texts([workspace, id]),
        origin: keyer.texts([workspace, id, site.as_bytes()]),
        channels,
    }
}

fn client_name(claims: &Claims) -> &str {
    claims.client_id.as_deref().unwrap_or(crate::connection::CLIENT_UNKNOWN)
}

fn arrival_entry(grant: &Grant, target: Option<&TargetId>) -> LogEntry {
    let claims = &grant.claims;
    let entry = |event| {
        LogEntry::new(Level::Info, event)
            .with("workspaceId", grant.request.workspace_id.to_string())
    };
    let entry = match grant.request.role {
        Role::Daemon => {
            let target = target.map(ToString::to_string);
            let entry = with_some(entry("daemon_connected"), "runtimeTargetId", target);
            with_some(entry, "machineId", claims.machine_id.as_deref().map(str::to_owned))
        }
        Role::Client => entry("client_connected").with("clientId", client_name(claims).to_owned()),
        Role::Worker => {
            let executor = claims.managed_executor_id.as_deref().map(str::to_owned);
            with_some(entry("worker_connected"), "managedExecutorId", executor)
        }
    };
    entry.with("ip", grant.address.to_string())
}

/// A claim as it counts: absent and blank are the same.
fn trimmed(claim: Option<&str>) -> &str {
    let trimmed = trim_js(claim.unwrap_or_default().as_bytes());
    std::str::from_utf8(trimmed).expect("trimming removes whole characters")
}

#[cfg(test)]
#[path = "arrival_tests.rs"]
mod tests;
