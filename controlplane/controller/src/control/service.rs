//! Takes calls to the controller. It decides who may make them, and nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::control_server::Control;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Request, Response, Status};

use super::Tallies;
use super::access::{Access, Caller, Role};
use super::answers::{Answer, Asked};

/// One for all connections.
#[derive(Clone, Debug)]
pub(super) struct Service {
    access: Arc<Access>,
    questions: mpsc::Sender<Asked>,
    tallies: Arc<Tallies>,
}

impl Service {
    pub(super) fn new(
        access: Access,
        questions: mpsc::Sender<Asked>,
        tallies: Arc<Tallies>,
    ) -> Self {
        Self { access: Arc::new(access), questions, tallies }
    }

    /// Lets a call in that changes nothing.
    fn admit_reader<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::internal("the connection has no caller"))?;
        match self.access.role_of(caller, request.metadata()) {
            Ok(Role::Reader | Role::Operator) => Ok(()),
            Err(refused) => {
                self.tallies.unauthorized.fetch_add(1, Ordering::Relaxed);
                Err(refused)
            }
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

#[tonic::async_trait]
impl Control for Service {
    async fn get_info(
        &self,
        request: Request<proto::GetInfoRequest>,
    ) -> Result<Response<proto::GetInfoResponse>, Status> {
        self.admit_reader(&request)?;
        self.ask(Asked::Info).await.map(Response::new)
    }

    async fn get_state(
        &self,
        request: Request<proto::GetStateRequest>,
    ) -> Result<Response<proto::GetStateResponse>, Status> {
        self.admit_reader(&request)?;
        self.ask(Asked::State).await.map(Response::new)
    }

    async fn get_readiness(
        &self,
        request: Request<proto::GetReadinessRequest>,
    ) -> Result<Response<proto::GetReadinessResponse>, Status> {
        self.admit_reader(&request)?;
        self.ask(Asked::Readiness).await.map(Response::new)
    }
}

fn ending() -> Status {
    Status::new(Code::Unavailable, "the relay is about to end")
}

/// What the controller may take; above its own patience with shards. Reached: UNAVAILABLE.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
