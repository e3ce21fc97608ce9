//! The standard health service, for probes.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;

use super::SERVICE_NAME;
use super::service::Service;

/// Answers from the controller: what it says is of this moment. Needs no token, and tells nothing
/// but yes and no.
#[derive(Debug)]
pub(super) struct Health {
    service: Service,
}

/// What a probe may ask about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Matter {
    /// Whether the controller answers: the empty name, or that of the control service.
    Alive,
    /// Whether the relay takes new connections.
    Ready,
}

/// The name of this service itself.
pub(super) const SERVICE: &str = health_server::SERVICE_NAME;

impl Health {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    pub(super) fn into_server(self) -> health_server::HealthServer<Self> {
        health_server::HealthServer::new(self)
    }
}

impl Matter {
    fn named(name: &str) -> Option<Self> {
        match name {
            "" | SERVICE_NAME => Some(Self::Alive),
            "ready" => Some(Self::Ready),
            _ => None,
        }
    }

    async fn status(self, service: &Service) -> ServingStatus {
        match (self, service.is_ready().await) {
            (Self::Alive, Ok(_)) | (Self::Ready, Ok(true)) => ServingStatus::Serving,
            (Self::Ready, Ok(false)) | (_, Err(_)) => ServingStatus::NotServing,
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let matter = Matter::named(&name).ok_or_else(|| {
            let text = format!("no such name; there are \"\", {SERVICE_NAME:?} and \"ready\"");
            Status::not_found(text)
        })?;
        let status = matter.status(&self.service).await;
        Ok(Response::new(pb::HealthCheckResponse { status: status.into() }))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<pb::HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let matter = Matter::named(&request.into_inner().service);
        let service = self.service.clone();
        let (changes, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut told = None;
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    _ = looks.tick() => {}
                    () = changes.closed() => return,
                }
                let status = match matter {
                    // The protocol wants that for names it does not know.
                    None => ServingStatus::ServiceUnknown,
                    Some(matter) => matter.status(&service).await,
                };
                if told.replace(status) != Some(status) {
                    let change = pb::HealthCheckResponse { status: status.into() };
                    if changes.send(Ok(change)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// How late a change may be told.
const LOOK_EVERY: Duration = Duration::from_millis(250);
