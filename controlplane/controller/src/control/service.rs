//! Takes calls to the controller. It decides who may make them, sees to it that changes are written
//! down, and nothing else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Name;
use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::control_server::Control;
use relay_link::Caller;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use super::Tallies;
use super::access::{Access, Role, Who};
use super::answers::{Answer, Asked};
use super::audit::{Audit, AuditError, Entry, Outcome};
use super::histograms::Wanted;
use super::permitted::WhilePermitted;
use crate::notices::Notices;
use crate::reload::{ReloadRefused, Reloaded};

/// One for all connections.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) access: Arc<Access>,
    pub(super) questions: mpsc::Sender<Asked>,
    pub(super) tallies: Arc<Tallies>,
    pub(super) audit: Arc<Audit>,
    pub(super) notices: Notices,
}

/// Messages, one after the other.
type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

impl Service {
    fn who<T>(&self, request: &Request<T>) -> Result<Who, Status> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::internal("the connection has no caller"))?;
        Ok(self.access.identify(caller, request.metadata()))
    }

    fn permit(&self, who: &Who, role: Role) -> Result<(), Status> {
        who.permits(role).inspect_err(|_| {
            self.tallies.unauthorized.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Lets a call in that changes nothing.
    fn read<T>(&self, request: Request<T>) -> Result<T, Status> {
        let who = self.who(&request)?;
        self.permit(&who, Role::Reader)?;
        Ok(request.into_inner())
    }

    /// Makes a call that changes something. It is written down before the caller hears of it, also
    /// when they are refused or leave meanwhile; what cannot be written down is not done.
    async fn operate<Q, A, F>(
        &self,
        call: &'static str,
        request: Request<Q>,
        make: impl FnOnce(Self, Q) -> F + Send + 'static,
    ) -> Result<Response<A>, Status>
    where
        Q: Name + Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let who = self.who(&request)?;
        let permitted = self.permit(&who, Role::Operator);
        let message = request.into_inner();
        let arguments = relay_grpc::json(&message);
        let line = Line { call, who, arguments };
        if let Err(refused) = permitted {
            self.write_refusal(&line, &refused).await;
            return Err(refused);
        }
        let service = self.clone();
        let made = tokio::spawn(async move {
            service.audit.reserve().await.map_err(|error| service.unaudited(&error))?;
            let result = make(service.clone(), message).await;
            service.write(&line, result.as_ref().err()).await;
            result
        });
        let made = made.await.unwrap_or_else(|_| Err(ending()));
        made.map(Response::new)
    }

    fn unaudited(&self, error: &AuditError) -> Status {
        self.tallies.unaudited.fetch_add(1, Ordering::Relaxed);
        self.notices.warn("audit_failed", error.to_string());
        Status::unavailable(format!(
            "the audit log cannot be written ({error}), so nothing was changed"
        ))
    }

    async fn write(&self, line: &Line, failed: Option<&Status>) {
        let (outcome, code, message) = match failed {
            None => (Outcome::Done, Code::Ok, ""),
            Some(status) => (Outcome::Failed, status.code(), status.message()),
        };
        let entry = line.entry(outcome, code, message);
        if let Err(error) = self.audit.write(&entry).await {
            self.tallies.audit_lines_lost.fetch_add(1, Ordering::Relaxed);
            self.notices.warn("audit_failed", error.to_string());
        }
    }

    async fn write_refusal(&self, line: &Line, refused: &Status) {
        let entry = line.entry(Outcome::Refused, refused.code(), refused.message());
        if !self.audit.write_refusal(&entry).await.unwrap_or(false) {
            self.tallies.audit_lines_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks the controller, and waits for what it answers.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when too much is on its way already, UNAVAILABLE when it does not answer,
    /// and what it says itself.
    pub(super) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Answer<T>>) -> Asked,
    ) -> Result<T, Status> {
        let (reply, answered) = oneshot::channel();
        match self.questions.try_send(question(reply)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.tallies.overloaded.fetch_add(1, Ordering::Relaxed);
                let text = "too many calls are on their way; ask again in a second";
                return Err(Status::resource_exhausted(text));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ending()),
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ending()),
            Err(_) => Err(Status::unavailable("the relay did not answer in time; ask again")),
        }
    }

    /// Whether the relay is ready; for whoever probes it.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn is_ready(&self) -> Result<bool, Status> {
        let answer = self.ask(Asked::Readiness).await?;
        Ok(answer.readiness.is_some_and(|readiness| readiness.ready))
    }
}

/// A line of the audit log, before its outcome is known.
struct Line {
    call: &'static str,
    who: Who,
    arguments: serde_json::Value,
}

impl Line {
    fn entry<'a>(&'a self, outcome: Outcome, code: Code, message: &'a str) -> Entry<'a> {
        let Self { call, who, arguments } = self;
        let (arguments, code) = (arguments.clone(), format!("{code:?}"));
        Entry { call, who, arguments, outcome, code, message }
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn get_info(
        &self,
        request: Request<proto::GetInfoRequest>,
    ) -> Result<Response<proto::GetInfoResponse>, Status> {
        self.read(request)?;
        self.ask(Asked::Info).await.map(Response::new)
    }

    async fn get_state(
        &self,
        request: Request<proto::GetStateRequest>,
    ) -> Result<Response<proto::GetStateResponse>, Status> {
        self.read(request)?;
        self.ask(Asked::State).await.map(Response::new)
    }

    type WatchStateStream = Messages<proto::WatchStateResponse>;

    async fn watch_state(
        &self,
        request: Request<proto::WatchStateRequest>,
    ) -> Result<Response<Self::WatchStateStream>, Status> {
        let who = self.who(&request)?;
        let request = self.read(request)?;
        let messages = self.ask(|reply| Asked::Watch(request, reply)).await?;
        let access = Arc::clone(&self.access);
        let ended = async move { access.withdrawn(&who, Role::Reader).await };
        Ok(Response::new(Box::pin(WhilePermitted::new(messages, ended))))
    }

    async fn get_readiness(
        &self,
        request: Request<proto::GetReadinessRequest>,
    ) -> Result<Response<proto::GetReadinessResponse>, Status> {
        self.read(request)?;
        self.ask(Asked::Readiness).await.map(Response::new)
    }

    async fn list_scopes(
        &self,
        request: Request<proto::ListScopesRequest>,
    ) -> Result<Response<proto::ListScopesResponse>, Status> {
        let request = self.read(request)?;
        self.ask(|reply| Asked::Scopes(request, reply)).await.map(Response::new)
    }

    async fn list_connections(
        &self,
        request: Request<proto::ListConnectionsRequest>,
    ) -> Result<Response<proto::ListConnectionsResponse>, Status> {
        let request = self.read(request)?;
        self.ask(|reply| Asked::Connections(request, reply)).await.map(Response::new)
    }

    async fn close_connections(
        &self,
        request: Request<proto::CloseConnectionsRequest>,
    ) -> Result<Response<proto::CloseConnectionsResponse>, Status> {
        self.operate("CloseConnections", request, |service, request| async move {
            service.ask(|reply| Asked::Close(request, reply)).await
        })
        .await
    }

    async fn revoke(
        &self,
        request: Request<proto::RevokeRequest>,
    ) -> Result<Response<proto::RevokeResponse>, Status> {
        self.operate("Revoke", request, |service, request| async move {
            service.ask(|reply| Asked::Revoke(request, reply)).await
        })
        .await
    }

    async fn list_revocations(
        &self,
        request: Request<proto::ListRevocationsRequest>,
    ) -> Result<Response<proto::ListRevocationsResponse>, Status> {
        let request = self.read(request)?;
        self.ask(|reply| Asked::Revocations(request, reply)).await.map(Response::new)
    }

    async fn list_key_sets(
        &self,
        request: Request<proto::ListKeySetsRequest>,
    ) -> Result<Response<proto::ListKeySetsResponse>, Status> {
        self.read(request)?;
        self.ask(Asked::KeySets).await.map(Response::new)
    }

    type GetHistogramsStream = Messages<proto::GetHistogramsResponse>;

    async fn get_histograms(
        &self,
        request: Request<proto::GetHistogramsRequest>,
    ) -> Result<Response<Self::GetHistogramsStream>, Status> {
        let wanted = Wanted::new(self.read(request)?)?;
        let messages = self.ask(|reply| Asked::Histograms(wanted, reply)).await?;
        Ok(Response::new(Box::pin(tokio_stream::iter(messages.into_iter().map(Ok)))))
    }

    async fn get_limits(
        &self,
        request: Request<proto::GetLimitsRequest>,
    ) -> Result<Response<proto::GetLimitsResponse>, Status> {
        let request = self.read(request)?;
        self.ask(|reply| Asked::Limits(request, reply)).await.map(Response::new)
    }

    async fn set_limits(
        &self,
        request: Request<proto::SetLimitsRequest>,
    ) -> Result<Response<proto::SetLimitsResponse>, Status> {
        self.operate("SetLimits", request, |service, request| async move {
            service.ask(|reply| Asked::SetLimits(request, reply)).await
        })
        .await
    }

    async fn reload(
        &self,
        request: Request<proto::ReloadRequest>,
    ) -> Result<Response<proto::ReloadResponse>, Status> {
        self.operate("Reload", request, |service, _| async move {
            let reloads = service.ask(Asked::Reloads).await?;
            let refused = |error: ReloadRefused| Status::failed_precondition(error.to_string());
            let Reloaded { version, changed } = reloads.reload().await.map_err(refused)?;
            Ok(proto::ReloadResponse { version, changed })
        })
        .await
    }

    async fn drain(
        &self,
        request: Request<proto::DrainRequest>,
    ) -> Result<Response<proto::DrainResponse>, Status> {
        self.operate("Drain", request, |service, request| async move {
            service.ask(|reply| Asked::Drain(request, reply)).await
        })
        .await
    }

    async fn resume(
        &self,
        request: Request<proto::ResumeRequest>,
    ) -> Result<Response<proto::ResumeResponse>, Status> {
        self.operate(
            "Resume",
            request,
            |service, _| async move { service.ask(Asked::Resume).await },
        )
        .await
    }

    async fn move_workspace(
        &self,
        request: Request<proto::MoveWorkspaceRequest>,
    ) -> Result<Response<proto::MoveWorkspaceResponse>, Status> {
        self.operate("MoveWorkspace", request, |service, request| async move {
            service.ask(|reply| Asked::Move(request, reply)).await
        })
        .await
    }

    async fn set_log_level(
        &self,
        request: Request<proto::SetLogLevelRequest>,
    ) -> Result<Response<proto::SetLogLevelResponse>, Status> {
        self.operate("SetLogLevel", request, |service, request| async move {
            service.ask(|reply| Asked::SetLogLevel(request, reply)).await
        })
        .await
    }
}

fn ending() -> Status {
    Status::unavailable("the relay is about to end")
}

/// What the controller may take; above its own patience with shards. Reached: UNAVAILABLE.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
