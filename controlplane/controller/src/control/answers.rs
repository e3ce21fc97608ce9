//! What the controller does about the calls of its API.

use std::sync::Arc;

use relay_contract::{Level, ShardId, ShardReport};
use relay_grpc::control::v1 as proto;
use tokio::sync::oneshot;
use tonic::Status;

use super::histograms::Wanted;
use super::state;
use super::watchers::Messages;
use crate::controller::Controller;
use crate::queries::Inquiry;
use crate::reload::Reloads;
use crate::settings::Admission;

/// What a call gets.
pub(crate) type Answer<T> = Result<T, Status>;

/// Where it goes.
pub(crate) type Reply<T> = oneshot::Sender<Answer<T>>;

/// One call on its way to the controller, and where its answer goes.
#[derive(Debug)]
pub(crate) enum Asked {
    Info(Reply<proto::GetInfoResponse>),
    State(Reply<proto::GetStateResponse>),
    Watch(proto::WatchStateRequest, Reply<Messages>),
    Readiness(Reply<proto::GetReadinessResponse>),
    Scopes(proto::ListScopesRequest, Reply<proto::ListScopesResponse>),
    Connections(proto::ListConnectionsRequest, Reply<proto::ListConnectionsResponse>),
    Close(proto::CloseConnectionsRequest, Reply<proto::CloseConnectionsResponse>),
    Revoke(proto::RevokeRequest, Reply<proto::RevokeResponse>),
    Revocations(proto::ListRevocationsRequest, Reply<proto::ListRevocationsResponse>),
    KeySets(Reply<proto::ListKeySetsResponse>),
    Histograms(Wanted, Reply<Vec<proto::GetHistogramsResponse>>),
    Limits(proto::GetLimitsRequest, Reply<proto::GetLimitsResponse>),
    SetLimits(proto::SetLimitsRequest, Reply<proto::SetLimitsResponse>),
    /// By whom the configuration is read again.
    Reloads(Reply<Reloads>),
    Drain(proto::DrainRequest, Reply<proto::DrainResponse>),
    Resume(Reply<proto::ResumeResponse>),
    Move(proto::MoveWorkspaceRequest, Reply<proto::MoveWorkspaceResponse>),
    SetLogLevel(proto::SetLogLevelRequest, Reply<proto::SetLogLevelResponse>),
}

/// A call that only the shards together can answer.
#[derive(Debug)]
pub(crate) enum Reported {
    State(Reply<proto::GetStateResponse>),
    Histograms(Wanted, Reply<Vec<proto::GetHistogramsResponse>>),
    /// They were told to admit again, and are asked something afterwards.
    Resumed(Reply<proto::ResumeResponse>),
}

impl Asked {
    /// Whether nobody waits for the answer any more: the caller was told to ask again, and the
    /// audit log says that nothing came of it.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Info(reply) => reply.is_closed(),
            Self::State(reply) => reply.is_closed(),
            Self::Watch(_, reply) => reply.is_closed(),
            Self::Readiness(reply) => reply.is_closed(),
            Self::Scopes(_, reply) => reply.is_closed(),
            Self::Connections(_, reply) => reply.is_closed(),
            Self::Close(_, reply) => reply.is_closed(),
            Self::Revoke(_, reply) => reply.is_closed(),
            Self::Revocations(_, reply) => reply.is_closed(),
            Self::KeySets(reply) => reply.is_closed(),
            Self::Histograms(_, reply) => reply.is_closed(),
            Self::Limits(_, reply) => reply.is_closed(),
            Self::SetLimits(_, reply) => reply.is_closed(),
            Self::Reloads(reply) => reply.is_closed(),
            Self::Drain(_, reply) => reply.is_closed(),
            Self::Resume(reply) => reply.is_closed(),
            Self::Move(_, reply) => reply.is_closed(),
            Self::SetLogLevel(_, reply) => reply.is_closed(),
        }
    }
}

impl Controller {
    pub(crate) fn on_control_asked(&mut self, asked: Asked) {
        if asked.is_given_up() {
            return;
        }
        match asked {
            Asked::Info(reply) => tell(reply, Ok(self.info())),
            Asked::State(reply) => self.question(Inquiry::Control(Reported::State(reply))),
            Asked::Watch(request, reply) => self.watch(request, reply),
            Asked::Readiness(reply) => {
                let readiness = Some(self.readiness());
                tell(reply, Ok(proto::GetReadinessResponse { readiness }));
            }
            Asked::Scopes(request, reply) => tell(reply, self.list_scopes(&request)),
            Asked::Connections(request, reply) => tell(reply, self.list_connections(request)),
            Asked::Close(request, reply) => tell(reply, self.close_by_call(request)),
            Asked::Revoke(request, reply) => self.revoke_by_call(request, reply),
            Asked::Revocations(request, reply) => tell(reply, self.list_revocations(&request)),
            Asked::KeySets(reply) => tell(reply, Ok(self.list_key_sets())),
            Asked::Histograms(wanted, reply) => {
                self.question(Inquiry::Control(Reported::Histograms(wanted, reply)));
            }
            Asked::Limits(request, reply) => tell(reply, Ok(self.limits_by_call(&request))),
            Asked::SetLimits(request, reply) => tell(reply, self.set_limits_by_call(request)),
            Asked::Reloads(reply) => {
                let reloads = self.reloads.clone();
                let nobody = || Status::failed_precondition("this relay reads nothing again");
                tell(reply, reloads.ok_or_else(nobody));
            }
            Asked::Drain(request, reply) => tell(reply, self.drain_by_call(&request)),
            Asked::Resume(reply) => self.resume_by_call(reply),
            Asked::Move(request, reply) => tell(reply, self.move_by_call(&request)),
            Asked::SetLogLevel(request, reply) => tell(reply, self.set_log_level(request)),
        }
    }

    /// Answers a call that waited for the shards; `None` when one of them was silent.
    pub(crate) fn on_control_reported(
        &mut self,
        waiting: Reported,
        reports: Option<&[ShardReport]>,
    ) {
        match waiting {
            Reported::State(reply) => {
                let answer = reports.ok_or_else(silent).map(|reports| proto::GetStateResponse {
                    state: Some(self.state()),
                    shards: reports.iter().map(state::shard).collect(),
                });
                tell(reply, answer);
            }
            Reported::Histograms(wanted, reply) => {
                let of = |reports| wanted.of(reports, self.clock.unix_ms());
                tell(reply, reports.ok_or_else(silent).map(of));
            }
            Reported::Resumed(reply) => {
                let resumed = proto::ResumeResponse { was_draining: true };
                tell(reply, reports.map(|_| resumed).ok_or_else(unheard));
            }
        }
    }

    fn set_log_level(
        &mut self,
        request: proto::SetLogLevelRequest,
    ) -> Answer<proto::SetLogLevelResponse> {
        let level = match request.log_level() {
            proto::LogLevel::Debug => Level::Debug,
            proto::LogLevel::Info => Level::Info,
            proto::LogLevel::Warn => Level::Warn,
            proto::LogLevel::Error => Level::Error,
            proto::LogLevel::Unspecified => {
                let text = "log_level: expected LOG_LEVEL_DEBUG, _INFO, _WARN or _ERROR";
                return Err(Status::invalid_argument(text));
            }
        };
        let previous = log_level(self.journal.level());
        self.journal.set_level(level);
        // Whoever changes something else next finds this one in force.
        Arc::make_mut(&mut self.settings).log.level = level;
        Ok(proto::SetLogLevelResponse { previous_log_level: previous.into() })
    }

    fn info(&self) -> proto::GetInfoResponse {
        let settings = &self.settings;
        let uptime_ms = self.clock.now().since(self.started).as_millis();
        let uptime_ms = u64::try_from(uptime_ms).unwrap_or(u64::MAX);
        let ids = |shards: &mut dyn Iterator<Item = ShardId>| -> Vec<u32> {
            shards.map(|shard| u32::from(shard.0)).collect()
        };
        let (role, data_planes) = match self.link.shards.are_apart() {
            false => {
                let local = proto::DataPlane {
                    data_plane_id: "local".to_owned(),
                    shard_ids: ids(&mut self.link.shards.ids()),
                    driver: settings.driver.to_owned(),
                };
                (proto::ProcessRole::All, vec![local])
            }
            true => {
                let attached = self.attached.values().map(|plane| proto::DataPlane {
                    data_plane_id: plane.instance_id.clone(),
                    shard_ids: ids(&mut plane.block.shards()),
                    driver: plane.driver.to_owned(),
                });
                (proto::ProcessRole::ControlPlane, attached.collect())
            }
        };
        proto::GetInfoResponse {
            relay_id: settings.relay_id.clone(),
            version: settings.version.to_owned(),
            commit: self.desk.commit.to_owned(),
            role: role.into(),
            started_at_unix_ms: self.clock.unix_ms().saturating_sub_unsigned(uptime_ms),
            uptime_ms,
            mode: settings.mode.to_owned(),
            admission: settings.admission.name().to_owned(),
            data_planes,
        }
    }

    /// What `/ready` says.
    pub(crate) fn readiness(&self) -> proto::Readiness {
        use proto::UnreadyReason;
        let has_no_keys = self.settings.admission == Admission::Jwks && self.key_count().is_none();
        let reasons = [
            (self.leaving || self.stopping, UnreadyReason::Stopping),
            (self.draining().is_some(), UnreadyReason::Draining),
            (has_no_keys, UnreadyReason::NoKeys),
        ];
        let reasons = reasons.into_iter().filter(|(holds, _)| *holds);
        let reasons: Vec<i32> = reasons.map(|(_, reason)| reason.into()).collect();
        proto::Readiness { ready: reasons.is_empty(), reasons }
    }

    pub(super) fn state(&self) -> proto::State {
        proto::State {
            readiness: Some(self.readiness()),
            admitted_connections: count(self.judge.admitted_count()),
            pending_admissions: count(self.judge.pending_count()),
            worker_calls: count(self.calling.len()),
            scopes: count(self.judge.scope_count()),
            limits_version: self.settings.limits.version,
            log_level: log_level(self.journal.level()).into(),
            drain: self.drain_state(),
        }
    }
}

/// Who left does not read.
pub(super) fn tell<T>(reply: Reply<T>, answer: Answer<T>) {
    let _ = reply.send(answer);
}

fn silent() -> Status {
    Status::unavailable("a shard did not answer in time, or too much is asked at once; ask again")
}

fn unheard() -> Status {
    Status::deadline_exceeded(
        "the drain is taken back, but a shard has not said in time that it has heard of it",
    )
}

fn log_level(level: Level) -> proto::LogLevel {
    match level {
        Level::Debug => proto::LogLevel::Debug,
        Level::Info => proto::LogLevel::Info,
        Level::Warn => proto::LogLevel::Warn,
        Level::Error => proto::LogLevel::Error,
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dismissal_tests::bench;

    #[tokio::test]
    async fn a_call_that_was_given_up_changes_nothing() {
        let mut bench = bench();
        let (reply, answer) = oneshot::channel();
        drop(answer);
        bench.controller.on_control_asked(Asked::Drain(proto::DrainRequest::default(), reply));
        assert!(bench.controller.draining().is_none());
        let (reply, answer) = oneshot::channel();
        bench.controller.on_control_asked(Asked::Drain(proto::DrainRequest::default(), reply));
        assert!(answer.await.unwrap().is_ok() && bench.controller.draining().is_some());
    }
}
