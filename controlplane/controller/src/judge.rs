//! Who is let in: the order of all checks of an upgrade, and what each outcome costs.

use std::collections::HashMap;
use std::net::IpAddr;

use relay_admission::Denial;
use relay_contract::{
    AdmissionId, AdmissionRequest, Claims, CloseReason, ConnectionId, Counter, Credential, Grant,
    Level, LogEntry, Preflight, Refusal, Role, Secret, ShardId, Tick, UpgradeRequest, WorkspaceId,
};
use relay_link::Block;
use relay_link::convert::Holding;

use crate::decide::SignedWith;
use crate::expiry::ExpirySweep;
use crate::facts::{Expiry, Facts, KeyNumber, Life};
use crate::homes::{HomeTable, HomeTableError, Homes};
use crate::jwks::unit_random;
use crate::ledger::{Cap, Changes, Dismissal, Ledger, Occupancy, Scope, ScopePage, Seat, Seated};
use crate::renewal::digest;
use crate::settings::Caps;
use crate::upgrade_window::UpgradeWindow;

/// Judges upgrades. Knows no platform, no clock and no socket: it is asked, says what to find out,
/// is told the answer, and rules.
///
/// ```text
///        refused (attempts, total, address, form, scope, too many waiting)
///   ask ─┤
///        └▶ pending ──answer──▶ admitted (total, address, scope once more) ──release──▶ gone
///               │ abandon              └▶ refused
///               └▶ gone
/// ```
#[derive(Debug)]
pub(crate) struct Judge {
    window: UpgradeWindow,
    ledger: Ledger,
    homes: Homes,
    pending: HashMap<ConnectionId, Pending>,
    pending_max: usize,
    /// Bytes of their tokens.
    pending_bytes: usize,
    pending_bytes_max: usize,
    /// How many workspaces may have been moved before those are forgotten that have nobody
    /// connected.
    moved_max: usize,
}

/// Workspaces that were moved and are remembered, beside those with somebody connected. Protects
/// memory from an orchestrator that moves for ever. Reached: who is gone lives where its hash says
/// when it comes back.
const MOVED_MAX: usize = 4096;

/// An upgrade whose token is being checked.
#[derive(Debug)]
struct Pending {
    request: UpgradeRequest,
    address: IpAddr,
    token_bytes: usize,
}

/// What an upgrade gets at once.
#[derive(Debug)]
pub(crate) enum Decision {
    /// No.
    Refuse(Refused),
    /// Find out what the token is worth, then [`Judge::answer`].
    Check {
        /// What is asked for.
        request: UpgradeRequest,
        /// The token shown.
        token: Secret,
    },
}

/// What a good token is good for.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// What its bearer may do.
    pub(crate) claims: Claims,
    /// What identifies it.
    pub(crate) credential: Credential,
    /// The key it was found to be signed with, where that was checked here.
    pub(crate) key: Option<SignedWith>,
}

/// What checking a token found.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It is good.
    Accepted(Box<Accepted>),
    /// It is not good, or finding out failed.
    Denied(Denial),
    /// The relay could not ask.
    Unavailable,
}

/// What a checked upgrade gets.
#[derive(Debug)]
pub(crate) enum Ruling {
    /// Yes, and where.
    Admit {
        /// The leave to open.
        grant: Box<Grant>,
        /// The workspace's home.
        home: ShardId,
    },
    /// No.
    Refuse(Refused),
}

/// A refusal with what it leaves behind.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What the peer is told.
    pub(crate) refusal: Refusal,
    /// What is counted.
    pub(crate) counter: Option<Counter>,
    /// What is logged.
    pub(crate) entry: Option<LogEntry>,
}

impl Judge {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            window: UpgradeWindow::new(caps.upgrades_per_minute, caps.upgrade_addresses_max),
            ledger: Ledger::new(caps),
            homes: Homes::new(),
            pending: HashMap::new(),
            pending_max: caps.pending_admissions_max,
            pending_bytes: 0,
            pending_bytes_max: caps.pending_tokens_bytes_max,
            moved_max: MOVED_MAX,
        }
    }

    /// Puts a newer table of homes in force. Connections that are open stay where they are, and
    /// their workspace with them.
    pub(crate) fn set_homes(&mut self, table: HomeTable) -> Result<(), HomeTableError> {
        self.homes.replace(table)
    }

    /// Judges by other caps from now on. Whoever was admitted stays.
    pub(crate) fn set_caps(&mut self, caps: Caps) {
        self.window.set_bounds(caps.upgrades_per_minute, caps.upgrade_addresses_max);
        self.ledger.set_caps(caps);
        self.pending_max = caps.pending_admissions_max;
        self.pending_bytes_max = caps.pending_tokens_bytes_max;
    }

    /// Judges a new upgrade in the reference's order: attempts, total, address, form, scope.
    ///
    /// Source: relay specification, section 3.
    pub(crate) fn ask(
        &mut self,
        now: Tick,
        connection: ConnectionId,
        request: AdmissionRequest,
    ) -> Decision {
        let AdmissionRequest { address, preflight } = request;
        if !self.window.allow(now, address) {
            return Decision::Refuse(Refused::counted(
                Refusal::TooManyRequests,
                Counter::UpgradeRateLimited,
            ));
        }
        if let Err(cap) = self.ledger.check(address) {
            return Decision::Refuse(Refused::by(cap));
        }
        let (request, token) = match preflight {
            Preflight::Ask { request, token } => (request, token),
            Preflight::UnparsableUrl => return Decision::Refuse(Refused::unparsable()),
            Preflight::OtherPath => return Decision::Refuse(Refused::silent(Refusal::Drop)),
            Preflight::ForeignOrigin { origin } => {
                return Decision::Refuse(Refused::foreign(connection, origin));
            }
            Preflight::InvalidQuery => {
                return Decision::Refuse(Refused::counted(
                    Refusal::BadRequest,
                    Counter::UpgradeInvalidQuery,
                ));
            }
            Preflight::MissingToken => {
                return Decision::Refuse(Refused::counted(
                    Refusal::Unauthorized,
                    Counter::UpgradeMissingAuth,
                ));
            }
        };
        if request.role == Role::Client
            && let Err(cap) = self.ledger.check_scope(&requested_scope(&request))
        {
            return Decision::Refuse(Refused::by(cap));
        }
        let token_bytes = token.expose().len();
        let is_full = self.pending.len() >= self.pending_max
            || self.pending_bytes + token_bytes > self.pending_bytes_max;
        if is_full {
            return Decision::Refuse(Refused::unavailable(self.pending.len()));
        }
        self.pending_bytes += token_bytes;
        let pending = Pending { request: request.clone(), address, token_bytes };
        self.pending.insert(connection, pending);
        Decision::Check { request, token }
    }

    /// Rules on a checked upgrade. The caps are judged once more, because others were admitted
    /// meanwhile, and a client's scope by the target its claims name. `None` when the upgrade is
    /// gone. The ledger remembers `facts` of an admitted one.
    pub(crate) fn answer(
        &mut self,
        connection: ConnectionId,
        answer: Answer,
        facts: Facts,
    ) -> Option<Ruling> {
        let Pending { request, address, .. } = self.no_longer_pending(connection)?;
        let Accepted { claims, credential, .. } = match answer {
            Answer::Accepted(accepted) => *accepted,
            Answer::Denied(denial) => {
                let refused = Refused::denied(&request, address, denial);
                return Some(Ruling::Refuse(refused.about(connection)));
            }
            Answer::Unavailable => {
                return Some(Ruling::Refuse(Refused::unavailable(self.pending.len())));
            }
        };
        let plane = self.homes.plane_of(connection.shard)?;
        let scope = effective_scope(&request, &claims);
        let seat = Seat { role: request.role, scope, address, facts };
        let home = self.homes.home_of(&request.workspace_id, plane);
        Some(match self.ledger.reserve(seat, plane.first, home) {
            Ok((admission, home)) => {
                let claims_digest = digest(&effective_request(&request, &claims), &claims);
                let grant =
                    Grant { admission, request, claims, claims_digest, credential, address };
                Ruling::Admit { grant: Box::new(grant), home }
            }
            Err(cap) => Ruling::Refuse(Refused::by(cap)),
        })
    }

    /// A data plane came.
    pub(crate) fn attach(&mut self, block: Block) {
        self.homes.attach(block);
    }

    /// Counts a connection of a data plane that is open already, and remembers `facts` of it.
    pub(crate) fn adopt(&mut self, holding: &Holding, facts: Facts, plane: Block) -> AdmissionId {
        let claims = Claims {
            runtime_target_id: holding.claimed_target.as_ref().map(|id| id.as_str().into()),
            ..Claims::default()
        };
        let seat = Seat {
            role: holding.request.role,
            scope: effective_scope(&holding.request, &claims),
            address: holding.address,
            facts,
        };
        let (admission, _) = self.ledger.adopt(seat, plane.first, holding.home);
        if let Some(connection) = holding.connection {
            // Nobody has told it to go yet.
            let _nothing = self.ledger.open(admission, connection);
        }
        admission
    }

    /// A data plane is gone: gives back all seats of its connections, and says which, and who of
    /// it waits.
    pub(crate) fn detach(&mut self, block: Block) -> (Vec<AdmissionId>, Vec<ConnectionId>) {
        self.homes.detach(block);
        let waiting = self.pending.keys().copied().filter(|id| block.contains(id.shard));
        let waiting = waiting.collect();
        (self.ledger.release_all(block.first), waiting)
    }

    /// Forgets an upgrade that is gone before its answer.
    pub(crate) fn abandon(&mut self, connection: ConnectionId) {
        self.no_longer_pending(connection);
    }

    fn no_longer_pending(&mut self, connection: ConnectionId) -> Option<Pending> {
        let pending = self.pending.remove(&connection)?;
        self.pending_bytes -= pending.token_bytes;
        Some(pending)
    }

    /// Gives an ended connection's seat back.
    pub(crate) fn release(&mut self, admission: AdmissionId) {
        self.ledger.release(admission);
    }

    /// What an admitted connection is open for: a request for the same.
    pub(crate) fn holder(&self, admission: AdmissionId) -> Option<UpgradeRequest> {
        let Seated { role, scope, .. } = self.ledger.find(admission)?;
        let Scope { workspace_id, target_id } = scope.clone();
        Some(UpgradeRequest { role, workspace_id, target_id })
    }

    /// The data plane of a shard.
    pub(crate) fn plane_of(&self, shard: ShardId) -> Option<Block> {
        self.homes.plane_of(shard)
    }

    /// Where a workspace lives on a data plane, or would.
    pub(crate) fn home_of(&self, workspace_id: &WorkspaceId, plane: Block) -> ShardId {
        let home = self.ledger.home_of(workspace_id, plane.first);
        home.unwrap_or_else(|| self.homes.home_of(workspace_id, plane))
    }

    /// A workspace lives there from now on, and its next connections go there.
    pub(crate) fn relocate(&mut self, workspace_id: &WorkspaceId, to: ShardId) {
        if let Some(plane) = self.homes.plane_of(to) {
            if self.homes.moved_count() >= self.moved_max {
                let ledger = &self.ledger;
                self.homes.forget_moved(|workspace_id, plane| {
                    ledger.home_of(workspace_id, plane).is_some()
                });
                // A look at all of them is worth it once for as many new ones.
                self.moved_max = MOVED_MAX.max(2 * self.homes.moved_count());
            }
            self.ledger.relocate(workspace_id, plane.first, to);
            self.homes.relocate(workspace_id, plane, to);
        }
    }

    /// What an open connection is called.
    pub(crate) fn name_of(&self, admission: AdmissionId) -> Option<ConnectionId> {
        match self.ledger.find(admission)?.life {
            Life::Open(connection) | Life::Dismissed(connection, _) => Some(connection),
            Life::Admitted | Life::Doomed(_) => None,
        }
    }

    /// Why a connection was told to go, if it was.
    pub(crate) fn farewell_of(&self, admission: AdmissionId) -> Option<CloseReason> {
        match self.ledger.find(admission)?.life {
            Life::Doomed(reason) | Life::Dismissed(_, reason) => Some(reason),
            Life::Admitted | Life::Open(_) => None,
        }
    }

    /// An admitted connection lives there from now on. The reason to close it at once, if it was
    /// told to go before.
    pub(crate) fn open(
        &mut self,
        admission: AdmissionId,
        connection: ConnectionId,
    ) -> Option<CloseReason> {
        // A workspace that moved is at one place; what is heard of another is older.
        let workspace_id = &self.ledger.find(admission)?.scope.workspace_id;
        let plane = self.homes.plane_of(connection.shard)?;
        let moved_to = self.homes.exception_of(workspace_id, plane);
        if moved_to.is_some_and(|home| home != connection.shard)
            && self.ledger.home_of(workspace_id, plane.first) == moved_to
        {
            return None;
        }
        self.ledger.open(admission, connection)
    }

    /// A connection stands on another token from now on; whether it is there.
    pub(crate) fn renew(&mut self, admission: AdmissionId, facts: Facts) -> bool {
        self.ledger.renew(admission, facts)
    }

    /// Notes that a connection is told to go; what is to be done for that.
    pub(crate) fn dismiss(&mut self, admission: AdmissionId, reason: CloseReason) -> Dismissal {
        self.ledger.dismiss(admission, reason)
    }

    /// All admitted connections. Cost: looks at every seat.
    pub(crate) fn seated(&self) -> impl Iterator<Item = Seated<'_>> {
        self.ledger.seated_all()
    }

    /// No seat has this key any more.
    pub(crate) fn forget_key(&mut self, key: KeyNumber) {
        self.ledger.forget_key(key);
    }

    /// Connections whose token has expired, each with its end as `end_of` says.
    pub(crate) fn expired(
        &self,
        sweep: &mut ExpirySweep,
        now_secs: i64,
        end_of: impl Fn(Expiry) -> Option<Expiry>,
    ) -> Vec<AdmissionId> {
        let mut expired = sweep.expired(now_secs, &self.ledger, &end_of);
        // A fresh token may have come meanwhile.
        expired.retain(|admission| {
            let seated = self.ledger.find(*admission);
            let end = seated.and_then(|seated| end_of(seated.facts.expiry)?.secs());
            end.is_some_and(|end| end <= now_secs)
        });
        expired
    }

    /// Admitted connections, workers too.
    pub(crate) fn admitted_count(&self) -> usize {
        self.ledger.len()
    }

    /// Scopes with an admitted connection.
    pub(crate) fn scope_count(&self) -> usize {
        self.ledger.scope_count()
    }

    /// As [`Ledger::scopes_from`].
    pub(crate) fn scopes(
        &self,
        first: usize,
        count: usize,
        workspace_id: Option<&WorkspaceId>,
    ) -> ScopePage {
        self.ledger.scopes_from(first, count, workspace_id)
    }

    /// As [`Ledger::occupancy`].
    pub(crate) fn occupancy(&self, scope: &Scope) -> Occupancy {
        self.ledger.occupancy(scope)
    }

    /// As [`Ledger::note_changes`].
    pub(crate) fn note_changes(&mut self, wanted: bool) {
        self.ledger.note_changes(wanted);
    }

    /// As [`Ledger::take_changes`].
    pub(crate) fn take_changes(&mut self) -> Changes {
        self.ledger.take_changes()
    }

    /// Upgrades whose token is being checked.
    pub(crate) fn pending_count(&self) -> usize {
        self.pending.len()
    }
}

impl Refused {
    fn silent(refusal: Refusal) -> Self {
        Self { refusal, counter: None, entry: None }
    }

    fn counted(refusal: Refusal, counter: Counter) -> Self {
        Self { counter: Some(counter), ..Self::silent(refusal) }
    }

    /// The relay could not ask; the one refusal a peer should retry soon. The more wait already,
    /// the longer the time over which those who are refused are spread.
    pub(crate) fn unavailable(waiting: usize) -> Self {
        let spread = (waiting / RETRIES_PER_SEC).min(usize::from(RETRY_AFTER_SECS_MAX));
        let spread = f64::from(u16::try_from(spread).unwrap_or(RETRY_AFTER_SECS_MAX));
        let retry_after_secs = RETRY_AFTER_SECS_MIN + (unit_random() * (spread + 2.0)) as u16;
        let refusal = Refusal::Unavailable { retry_after_secs };
        Self::counted(refusal, Counter::AdmissionUnavailable)
    }

    fn unparsable() -> Self {
        let entry = LogEntry::new(Level::Error, "upgrade_error").with("error", "Invalid URL");
        Self { entry: Some(entry), ..Self::counted(Refusal::Drop, Counter::UpgradeErrors) }
    }

    /// The origin is normalised and of bounded length, so it may be logged.
    fn foreign(connection: ConnectionId, origin: Option<Box<str>>) -> Self {
        let entry = LogEntry::new(Level::Warn, "origin_rejected")
            .about(connection)
            .ours()
            .with("origin", origin.map(String::from));
        let counted = Self::counted(Refusal::Forbidden, Counter::UpgradeForbiddenOrigin);
        Self { entry: Some(entry), ..counted }
    }

    fn by(cap: Cap) -> Self {
        match cap {
            Cap::Total => Self::counted(Refusal::Full, Counter::UpgradeRejectedTotalConnections),
            Cap::Address => {
                Self::counted(Refusal::TooManyRequests, Counter::UpgradeRejectedIpConnections)
            }
            Cap::Scope => {
                Self::counted(Refusal::TooManyRequests, Counter::UpgradeRejectedWorkspaceClients)
            }
        }
    }

    fn denied(request: &UpgradeRequest, address: IpAddr, denial: Denial) -> Self {
        let entry = LogEntry::new(Level::Warn, "admission_denied")
            .with("role", request.role.name())
            .with("workspaceId", request.workspace_id.as_str().to_owned())
            .with("reason", denial.reason)
            .with("status", i64::from(denial.status))
            .with("ip", address.to_string());
        Self {
            entry: Some(entry),
            ..Self::counted(Refusal::Unauthorized, Counter::AdmissionDenied)
        }
    }

    fn about(mut self, connection: ConnectionId) -> Self {
        self.entry = self.entry.map(|entry| entry.about(connection));
        self
    }
}

fn requested_scope(request: &UpgradeRequest) -> Scope {
    Scope { workspace_id: request.workspace_id.clone(), target_id: request.target_id.clone() }
}

/// The scope a client will be in: its claim's target, else the one requested.
fn effective_scope(request: &UpgradeRequest, claims: &Claims) -> Scope {
    let claimed = claims.runtime_target_id.as_deref().map(trim_js);
    let claimed = claimed.filter(|target| !target.is_empty());
    Scope {
        workspace_id: request.workspace_id.clone(),
        target_id: claimed.map(Into::into).or_else(|| request.target_id.clone()),
    }
}

/// The same request, for the target that its claims name.
pub(crate) fn effective_request(request: &UpgradeRequest, claims: &Claims) -> UpgradeRequest {
    let Scope { workspace_id, target_id } = effective_scope(request, claims);
    UpgradeRequest { role: request.role, workspace_id, target_id }
}

/// `String.prototype.trim`, as the switchboard trims the same claim.
fn trim_js(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}'))
}

/// When a peer that found no room may come back, at the earliest: validations take milliseconds, so
/// a queue that was full is not full for long.
const RETRY_AFTER_SECS_MIN: u16 = 1;

/// How much later the last of them comes back, at most.
const RETRY_AFTER_SECS_MAX: u16 = 30;

/// Peers that may come back per second. Source: a tenth of what the key set admits.
const RETRIES_PER_SEC: usize = 1000;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn judge(caps: Caps) -> Judge {
        let mut judge = Judge::new(caps);
        judge.attach(Block { first: ShardId(0), count: 2 });
        judge
    }

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId { slot, ..ConnectionId::default() }
    }

    fn upgrade(role: Role, target: Option<&str>) -> AdmissionRequest {
        let request =
            UpgradeRequest { role, workspace_id: "ws1".into(), target_id: target.map(Into::into) };
        with(Preflight::Ask { request, token: Secret::from("token-0123456789") })
    }

    fn with(preflight: Preflight) -> AdmissionRequest {
        AdmissionRequest { address: ADDRESS, preflight }
    }

    fn client() -> AdmissionRequest {
        upgrade(Role::Client, Some("rt1"))
    }

    fn claims(target: Option<&str>) -> Answer {
        let claims = Claims {
            workspace_id: Some("ws1".into()),
            runtime_target_id: target.map(Into::into),
            ..Claims::default()
        };
        let credential = Credential::default();
        Answer::Accepted(Box::new(Accepted { claims, credential, key: None }))
    }

    #[track_caller]
    fn asked(judge: &mut Judge, slot: u32, request: AdmissionRequest) {
        let decision = judge.ask(Tick(0), connection(slot), request);
        assert!(matches!(decision, Decision::Check { .. }), "{decision:?}");
    }

    #[track_caller]
    fn refused(judge: &mut Judge, request: AdmissionRequest) -> (Refusal, Option<Counter>) {
        match judge.ask(Tick(0), connection(99), request) {
            Decision::Refuse(refused) => (refused.refusal, refused.counter),
            Decision::Check { .. } => panic!("not refused"),
        }
    }

    #[track_caller]
    fn admitted(judge: &mut Judge, slot: u32, answer: Answer) -> AdmissionId {
        match judge.answer(connection(slot), answer, Facts::default()) {
            Some(Ruling::Admit { grant, .. }) => grant.admission,
            other => panic!("not admitted: {other:?}"),
        }
    }

    #[test]
    fn form_is_judged_after_attempts_and_caps() {
        let mut judge =
            judge(Caps { connections_max: 1, upgrades_per_minute: 3, ..Caps::default() });
        assert_eq!(refused(&mut judge, with(Preflight::OtherPath)), (Refusal::Drop, None));
        asked(&mut judge, 1, upgrade(Role::Daemon, Some("rt1")));
        admitted(&mut judge, 1, claims(Some("rt1")));
        assert_eq!(
            refused(&mut judge, with(Preflight::OtherPath)),
            (Refusal::Full, Some(Counter::UpgradeRejectedTotalConnections))
        );
        assert_eq!(
            refused(&mut judge, with(Preflight::OtherPath)),
            (Refusal::TooManyRequests, Some(Counter::UpgradeRateLimited))
        );
    }

    #[test]
    fn each_malformed_upgrade_has_its_refusal() {
        let mut judge = judge(Caps::default());
        for (preflight, refusal, counter) in [
            (Preflight::UnparsableUrl, Refusal::Drop, Some(Counter::UpgradeErrors)),
            (
                Preflight::ForeignOrigin { origin: None },
                Refusal::Forbidden,
                Some(Counter::UpgradeForbiddenOrigin),
            ),
            (Preflight::InvalidQuery, Refusal::BadRequest, Some(Counter::UpgradeInvalidQuery)),
            (Preflight::MissingToken, Refusal::Unauthorized, Some(Counter::UpgradeMissingAuth)),
        ] {
            assert_eq!(refused(&mut judge, with(preflight)), (refusal, counter));
        }
        assert_eq!(judge.pending_count(), 0);
    }

    #[test]
    fn concurrent_upgrades_cannot_exceed_a_cap() {
        let mut judge = judge(Caps { connections_per_address_max: 1, ..Caps::default() });
        asked(&mut judge, 1, client());
        asked(&mut judge, 2, client());
        admitted(&mut judge, 1, claims(Some("rt1")));
        let ruling = judge.answer(connection(2), claims(Some("rt1")), Facts::default());
        let Some(Ruling::Refuse(refused)) = ruling else {
            panic!("{ruling:?}");
        };
        assert_eq!(refused.refusal, Refusal::TooManyRequests);
        assert_eq!(refused.counter, Some(Counter::UpgradeRejectedIpConnections));
    }

    #[test]
    fn leaving_the_target_out_does_not_evade_the_scope_cap() {
        let mut judge = judge(Caps { clients_per_scope_max: 1, ..Caps::default() });
        asked(&mut judge, 1, client());
        admitted(&mut judge, 1, claims(Some("rt1")));
        asked(&mut judge, 2, upgrade(Role::Client, None));
        let ruling = judge.answer(connection(2), claims(Some(" rt1\u{feff}")), Facts::default());
        let Some(Ruling::Refuse(refused)) = ruling else {
            panic!("{ruling:?}");
        };
        assert_eq!(refused.counter, Some(Counter::UpgradeRejectedWorkspaceClients));
    }

    #[test]
    fn a_full_scope_refuses_before_the_platform_is_asked() {
        let mut judge = judge(Caps { clients_per_scope_max: 1, ..Caps::default() });
        asked(&mut judge, 1, client());
        admitted(&mut judge, 1, claims(Some("rt1")));
        assert_eq!(
            refused(&mut judge, client()),
            (Refusal::TooManyRequests, Some(Counter::UpgradeRejectedWorkspaceClients))
        );
        asked(&mut judge, 3, upgrade(Role::Daemon, Some("rt1")));
    }

    #[test]
    fn waiting_upgrades_are_bounded() {
        let mut judge = judge(Caps { pending_admissions_max: 1, ..Caps::default() });
        asked(&mut judge, 1, client());
        let (refusal, counter) = refused(&mut judge, client());
        assert!(matches!(refusal, Refusal::Unavailable { .. }));
        assert_eq!(counter, Some(Counter::AdmissionUnavailable));
        judge.abandon(connection(1));
        asked(&mut judge, 2, client());
    }

    #[test]
    fn tokens_of_waiting_upgrades_are_bounded_in_bytes() {
        // Each token of these tests has sixteen bytes.
        let mut judge = judge(Caps { pending_tokens_bytes_max: 40, ..Caps::default() });
        asked(&mut judge, 1, client());
        asked(&mut judge, 2, client());
        let (refusal, counter) = refused(&mut judge, client());
        assert!(matches!(refusal, Refusal::Unavailable { .. }));
        assert_eq!(counter, Some(Counter::AdmissionUnavailable));
        admitted(&mut judge, 1, claims(Some("rt1")));
        asked(&mut judge, 3, client());
    }

    #[test]
    fn an_answer_for_an_abandoned_upgrade_changes_nothing() {
        let mut judge = judge(Caps::default());
        asked(&mut judge, 1, client());
        judge.abandon(connection(1));
        assert!(judge.answer(connection(1), claims(None), Facts::default()).is_none());
        assert_eq!(judge.admitted_count(), 0);
    }

    #[test]
    fn a_denial_is_logged_without_the_token() {
        let mut judge = judge(Caps::default());
        asked(&mut judge, 1, client());
        let answer = Answer::Denied(Denial::new("TOKEN_REVOKED", 403));
        let Some(Ruling::Refuse(refused)) = judge.answer(connection(1), answer, Facts::default())
        else {
            panic!("admitted");
        };
        let entry = refused.entry.unwrap();
        let keys: Vec<_> = entry.details.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["role", "workspaceId", "reason", "status", "ip"]);
        assert!(!format!("{entry:?}").contains("token-0123456789"));
        assert_eq!(refused.refusal, Refusal::Unauthorized);
    }

    #[test]
    fn a_released_connection_frees_its_seat() {
        let mut judge = judge(Caps { connections_per_address_max: 1, ..Caps::default() });
        asked(&mut judge, 1, client());
        let admission = admitted(&mut judge, 1, claims(Some("rt1")));
        judge.release(admission);
        asked(&mut judge, 2, client());
    }

    #[test]
    fn one_workspace_has_one_home_whatever_its_table_says_later() {
        let mut judge = judge(Caps::default());
        asked(&mut judge, 1, client());
        let Some(Ruling::Admit { home, .. }) =
            judge.answer(connection(1), claims(None), Facts::default())
        else {
            panic!("refused");
        };
        let elsewhere = ShardId(1 - home.0);
        let table = HomeTable { version: 1, overrides: [("ws1".into(), elsewhere)].into() };
        judge.set_homes(table).unwrap();
        asked(&mut judge, 2, client());
        let ruling = judge.answer(connection(2), claims(None), Facts::default());
        assert!(matches!(ruling, Some(Ruling::Admit { home: at, .. }) if at == home));
    }

    #[test]
    fn where_workspaces_were_moved_is_forgotten_once_nobody_of_them_is_there() {
        let mut judge = judge(Caps::default());
        judge.ask(Tick(0), connection(1), client());
        let Some(Ruling::Admit { home, .. }) =
            judge.answer(connection(1), claims(Some("rt1")), Facts::default())
        else {
            panic!("refused");
        };
        let elsewhere = ShardId(1 - home.0);
        judge.relocate(&"ws1".into(), elsewhere);
        for n in 0..2 * MOVED_MAX {
            judge.relocate(&format!("moved {n}").into(), elsewhere);
        }
        assert!(judge.homes.moved_count() <= MOVED_MAX, "{}", judge.homes.moved_count());
        let plane = judge.plane_of(home).unwrap();
        assert_eq!(judge.homes.exception_of(&"ws1".into(), plane), Some(elsewhere));
    }
}
