//! What a data plane remembers of its connections, so that it can offer an inventory without asking
//! its shards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use relay_contract::{
    AdmissionId, AdmissionRequest, ConnectionId, Credential, Grant, Renewal, Role, ShardId,
    TargetId, UpgradeRequest, WorkerResponse, WorkspaceId,
};

use crate::convert::Holding;

/// Admitted connections, and everybody who waits for an answer.
///
/// Memory: some 100 bytes and its names per admitted connection; of who waits, what was asked. The
/// shards' own bounds are those of all of it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    admitted: HashMap<AdmissionId, Admitted>,
    waiting: BTreeMap<ConnectionId, Box<AdmissionRequest>>,
    /// Plain requests that were passed on.
    asked: BTreeSet<ConnectionId>,
    /// Workers' calls, by worker.
    calls: BTreeMap<AdmissionId, Calls>,
    /// Open connections that wait for what their fresh token is worth.
    renewing: BTreeMap<ConnectionId, AdmissionId>,
    /// Calls that were answered because nobody is there, by whatever their worker was called, and
    /// that may be answered later all the same. As many as waited.
    late_calls: Vec<(Vec<ConnectionId>, String)>,
    /// The same of fresh tokens.
    late_renewals: BTreeSet<ConnectionId>,
}

#[derive(Debug)]
struct Admitted {
    role: Role,
    home: ShardId,
    address: IpAddr,
    workspace_id: WorkspaceId,
    target_id: Option<TargetId>,
    claimed_target: Option<TargetId>,
    connection: Option<ConnectionId>,
    credential: Option<Box<Credential>>,
    client_id: Option<Box<str>>,
}

#[derive(Debug)]
struct Calls {
    /// What the worker was called since the first of them, the newest last: an answer that was on
    /// its way while the worker moved has an earlier name.
    names: Vec<ConnectionId>,
    request_ids: Vec<String>,
}

impl Calls {
    /// Names kept. Protects memory from a workspace that moves all the time. Reached: the oldest is
    /// forgotten, and an answer that comes under it is none, so that the worker may hear of this
    /// call a second time when the control plane is lost.
    const NAMES_MAX: usize = 16;

    /// The worker is called that from now on.
    fn rename(&mut self, worker: ConnectionId) {
        if self.names.last() == Some(&worker) {
            return;
        }
        if self.names.len() == Self::NAMES_MAX {
            self.names.remove(0);
        }
        self.names.push(worker);
    }
}

impl Held {
    /// An upgrade waits.
    pub(crate) fn wait(&mut self, connection: ConnectionId, request: Box<AdmissionRequest>) {
        self.waiting.insert(connection, request);
    }

    /// It waits no more; whether it did.
    pub(crate) fn end_wait(&mut self, connection: ConnectionId) -> bool {
        self.waiting.remove(&connection).is_some()
    }

    /// Everybody who waits, who then waits no more.
    pub(crate) fn take_waiting(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.waiting).into_keys().collect()
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.waiting.keys().copied()
    }

    pub(crate) fn request_of(&self, connection: ConnectionId) -> Option<&AdmissionRequest> {
        self.waiting.get(&connection).map(|request| &**request)
    }

    /// A connection is admitted.
    pub(crate) fn admit(&mut self, grant: &Grant, home: ShardId) {
        let UpgradeRequest { role, workspace_id, target_id } = grant.request.clone();
        let claimed = grant.claims.runtime_target_id.as_deref();
        // Most tokens name the target that is asked for: its name is kept once.
        let claimed_target = claimed.map(|claimed| match &target_id {
            Some(target) if target.as_str() == claimed => target.clone(),
            _ => TargetId::from(claimed),
        });
        let address = grant.address;
        let credential =
            (grant.credential != Credential::default()).then(|| Box::new(grant.credential.clone()));
        let admitted = Admitted {
            role,
            home,
            address,
            workspace_id,
            target_id,
            claimed_target,
            connection: None,
            credential,
            client_id: grant.claims.client_id.clone(),
        };
        self.admitted.insert(grant.admission, admitted);
    }

    /// It is open and lives there.
    pub(crate) fn open(&mut self, admission: AdmissionId, connection: ConnectionId) {
        if let Some(admitted) = self.admitted.get_mut(&admission) {
            admitted.connection = Some(connection);
            admitted.home = connection.shard;
        }
        if let Some(calls) = self.calls.get_mut(&admission) {
            calls.rename(connection);
        }
    }

    /// It is gone, and its calls with it.
    ///
    /// Cost: looks at those whose fresh token is being judged, of whom the control plane bounds the
    /// number.
    pub(crate) fn release(&mut self, admission: AdmissionId) {
        self.admitted.remove(&admission);
        self.calls.remove(&admission);
        // By who it is: it may have moved since it sent its token.
        self.renewing.retain(|_, renewing| *renewing != admission);
    }

    /// It has sent a fresh token.
    pub(crate) fn renew(&mut self, admission: AdmissionId, connection: ConnectionId) {
        self.renewing.insert(connection, admission);
    }

    /// What its fresh token is worth. A good one takes the place of the one before it; of an older
    /// control plane, which does not say what it is, the new end is kept beside the names before
    /// it, and the key is not known any more.
    pub(crate) fn renewed(
        &mut self,
        connection: ConnectionId,
        outcome: Renewal,
        credential: Option<Box<Credential>>,
    ) {
        let admitted = self.renewing.remove(&connection);
        let admitted = admitted.and_then(|admission| self.admitted.get_mut(&admission));
        let (Some(admitted), Renewal::Renewed { expires_at_ms }) = (admitted, outcome) else {
            return;
        };
        if credential.is_some() {
            admitted.credential = credential;
        } else {
            let before = admitted.credential.get_or_insert_default();
            before.expires_at_secs = expires_at_ms.map(|ms| ms.div_euclid(1000));
            before.key_print = None;
        }
    }

    /// In order, the last first.
    pub(crate) fn admissions(&self) -> Vec<AdmissionId> {
        let mut admissions: Vec<_> = self.admitted.keys().copied().collect();
        admissions.sort_unstable_by(|a, b| b.cmp(a));
        admissions
    }

    /// How many are admitted.
    pub(crate) fn len(&self) -> usize {
        self.admitted.len()
    }

    pub(crate) fn holding(&self, admission: AdmissionId) -> Option<Holding> {
        let held = self.admitted.get(&admission)?;
        Some(Holding {
            admission,
            home: held.home,
            request: UpgradeRequest {
                role: held.role,
                workspace_id: held.workspace_id.clone(),
                target_id: held.target_id.clone(),
            },
            claimed_target: held.claimed_target.clone(),
            address: held.address,
            connection: held.connection,
            credential: held.credential.as_deref().cloned().unwrap_or_default(),
            client_id: held.client_id.clone(),
        })
    }

    /// Everybody who waits for what a fresh token is worth, who then waits no more.
    pub(crate) fn take_renewing(&mut self) -> Vec<ConnectionId> {
        let renewing: Vec<_> = std::mem::take(&mut self.renewing).into_keys().collect();
        self.late_renewals.extend(&renewing);
        renewing
    }

    /// Whether this answers what was answered before; asked once.
    pub(crate) fn is_late(&mut self, connection: ConnectionId, call: Option<&str>) -> bool {
        let Some(call) = call else { return self.late_renewals.remove(&connection) };
        let mut late = self.late_calls.iter();
        let found = late.position(|(names, id)| id == call && names.contains(&connection));
        found.map(|at| self.late_calls.swap_remove(at)).is_some()
    }

    /// Nobody answers late any more.
    pub(crate) fn forget_late(&mut self) {
        self.late_calls.clear();
        self.late_renewals.clear();
    }

    /// A plain request was passed on.
    pub(crate) fn ask(&mut self, connection: ConnectionId) {
        self.asked.insert(connection);
    }

    /// It is answered; whether somebody waited for that.
    pub(crate) fn answer(&mut self, connection: ConnectionId) -> bool {
        self.asked.remove(&connection)
    }

    /// Everybody who asked and was not answered.
    pub(crate) fn take_asked(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.asked).into_iter().collect()
    }

    /// A worker called.
    pub(crate) fn call(&mut self, admission: AdmissionId, worker: ConnectionId, request_id: &str) {
        let calls = self.calls.entry(admission);
        let calls = calls.or_insert_with(|| Calls { names: Vec::new(), request_ids: Vec::new() });
        calls.rename(worker);
        calls.request_ids.push(request_id.to_owned());
    }

    /// Its call is answered.
    ///
    /// Cost: looks at the workers that have calls in flight, of which the control plane bounds the
    /// number.
    pub(crate) fn called(&mut self, worker: ConnectionId, request_id: &str) {
        let found = self.calls.iter_mut().find(|(_, calls)| calls.names.contains(&worker));
        let Some((&admission, calls)) = found else { return };
        if let Some(at) = calls.request_ids.iter().position(|id| id == request_id) {
            calls.request_ids.swap_remove(at);
        }
        if calls.request_ids.is_empty() {
            self.calls.remove(&admission);
        }
    }

    /// Answers for all calls that are not answered.
    pub(crate) fn take_calls(&mut self) -> Vec<(ConnectionId, Box<WorkerResponse>)> {
        let mut answers = Vec::new();
        for Calls { names, request_ids } in std::mem::take(&mut self.calls).into_values() {
            let Some(&worker) = names.last() else { continue };
            for id in request_ids {
                self.late_calls.push((names.clone(), id.clone()));
                answers.push((worker, call_failed(id)));
            }
        }
        answers
    }
}

/// The answer to a call that nobody can make, or whose answer is lost. Source: relay specification,
/// section 13.
pub(crate) fn call_failed(request_id: String) -> Box<WorkerResponse> {
    Box::new(WorkerResponse {
        request_id,
        status: 502,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: r#"{"ok":false,"reason":"WORKER_TRANSPORT_FORWARD_FAILED"}"#.to_owned(),
        forwarded: false,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use relay_contract::{Claims, RenewalRefusal};

    use super::*;

    const ADMISSION: AdmissionId = AdmissionId(7);

    fn held(expires_at_secs: i64) -> (Held, ConnectionId) {
        let mut held = Held::default();
        let request =
            UpgradeRequest { role: Role::Client, workspace_id: "ws1".into(), target_id: None };
        let credential = Credential {
            expires_at_secs: Some(expires_at_secs),
            key_print: Some([1; 16]),
            ..Credential::default()
        };
        let grant = Grant {
            admission: ADMISSION,
            request,
            claims: Claims::default(),
            claims_digest: 0,
            credential,
            address: Ipv4Addr::LOCALHOST.into(),
        };
        held.admit(&grant, ShardId(0));
        let connection = ConnectionId { slot: 3, ..ConnectionId::default() };
        held.open(ADMISSION, connection);
        (held, connection)
    }

    fn expiry(held: &Held) -> Option<i64> {
        held.holding(ADMISSION).unwrap().credential.expires_at_secs
    }

    #[test]
    fn a_good_fresh_token_moves_the_end_that_is_offered_and_a_refused_one_does_not() {
        let (mut held, connection) = held(100);
        held.renew(ADMISSION, connection);
        held.renewed(connection, Renewal::Refused(RenewalRefusal::Denied), None);
        assert_eq!(expiry(&held), Some(100));
        let renewed = Renewal::Renewed { expires_at_ms: Some(200_000) };
        held.renewed(connection, renewed, None);
        assert_eq!(expiry(&held), Some(100), "nobody asked");
        held.renew(ADMISSION, connection);
        held.renewed(connection, renewed, None);
        assert_eq!(expiry(&held), Some(200));
        let credential = held.holding(ADMISSION).unwrap().credential;
        assert_eq!(credential.key_print, None, "it may be another key's");
    }

    #[test]
    fn a_connection_is_offered_with_the_token_it_stands_on_now() {
        let (mut held, connection) = held(100);
        held.renew(ADMISSION, connection);
        let fresh = Credential {
            token_id: Some("t2".into()),
            expires_at_secs: Some(200),
            key_print: Some([2; 16]),
            ..Credential::default()
        };
        let renewed = Renewal::Renewed { expires_at_ms: Some(200_000) };
        held.renewed(connection, renewed, Some(Box::new(fresh.clone())));
        assert_eq!(held.holding(ADMISSION).unwrap().credential, fresh);
    }

    #[test]
    fn a_call_is_answered_once_whatever_its_worker_was_called_meanwhile() {
        let (mut held, first) = held(100);
        let second = ConnectionId { slot: 4, ..ConnectionId::default() };
        for id in ["under-the-earlier-name", "under-the-new-one", "never"] {
            held.call(ADMISSION, first, id);
        }
        held.open(ADMISSION, second);
        held.called(first, "under-the-earlier-name");
        held.called(second, "under-the-new-one");
        let left = held.take_calls();
        let left: Vec<_> = left.iter().map(|(to, answer)| (*to, &*answer.request_id)).collect();
        assert_eq!(left, [(second, "never")]);
    }

    #[test]
    fn the_names_of_a_worker_that_moves_all_the_time_are_bounded() {
        let (mut held, first) = held(100);
        held.call(ADMISSION, first, "id");
        let name = |slot| ConnectionId { slot, ..ConnectionId::default() };
        for slot in 100..200 {
            held.open(ADMISSION, name(slot));
        }
        assert_eq!(held.calls[&ADMISSION].names.len(), Calls::NAMES_MAX);
        held.called(name(198), "id");
        assert!(held.take_calls().is_empty());
    }

    #[test]
    fn who_leaves_waits_for_no_answer_and_who_waits_is_named_once() {
        let (mut held, connection) = held(100);
        held.renew(ADMISSION, connection);
        assert_eq!(held.take_renewing(), [connection]);
        assert_eq!(held.take_renewing(), []);
        held.renew(ADMISSION, connection);
        held.open(ADMISSION, ConnectionId { slot: 9, ..connection });
        held.release(ADMISSION);
        assert_eq!(held.take_renewing(), [], "although it moved meanwhile");
    }
}
