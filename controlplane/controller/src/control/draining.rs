//! Letting everybody go, and taking that back, by calls of the control API.

use std::time::Duration;

use relay_grpc::control::v1 as proto;
use tonic::Status;

use super::answers::{Answer, Reply, Reported, tell};
use crate::controller::Controller;
use crate::drain::{DrainError, DrainOrder, Draining, RedirectUrl};
use crate::queries::Inquiry;

impl Controller {
    pub(super) fn drain_by_call(
        &mut self,
        request: &proto::DrainRequest,
    ) -> Answer<proto::DrainResponse> {
        let redirect = match &*request.redirect_url {
            "" => None,
            text => Some(
                RedirectUrl::parse(text)
                    .map_err(|error| Status::invalid_argument(format!("redirect_url: {error}")))?,
            ),
        };
        if request.window_ms > WINDOW_MS_MAX {
            let text = format!("window_ms: more than {WINDOW_MS_MAX} is more than a day");
            return Err(Status::invalid_argument(text));
        }
        let window = (request.window_ms > 0).then(|| Duration::from_millis(request.window_ms));
        self.drain(DrainOrder { window, redirect }).map_err(refused)?;
        Ok(proto::DrainResponse { drain: self.drain_state() })
    }

    /// Takes a drain back, and answers when every shard has heard of it: whoever calls next finds
    /// them open. Shards do what they are told in order, so they are asked something afterwards.
    pub(super) fn resume_by_call(&mut self, reply: Reply<proto::ResumeResponse>) {
        match self.resume() {
            Ok(()) => self.question(Inquiry::Control(Reported::Resumed(reply))),
            // It is as it was to become.
            Err(DrainError::NotDraining) => {
                tell(reply, Ok(proto::ResumeResponse { was_draining: false }));
            }
            Err(error @ DrainError::Stopping) => tell(reply, Err(refused(error))),
        }
    }

    /// The drain that goes on, as it is shown.
    pub(super) fn drain_state(&self) -> Option<proto::DrainState> {
        let Draining { since, window, connections, redirect, .. } = self.draining()?;
        let ago = i64::try_from(self.clock.now().since(*since).as_millis()).unwrap_or(i64::MAX);
        Some(proto::DrainState {
            since_unix_ms: self.clock.unix_ms().saturating_sub(ago),
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            connections: u64::try_from(*connections).unwrap_or(u64::MAX),
            redirect_url: redirect.as_deref().unwrap_or_default().to_owned(),
        })
    }
}

fn refused(error: DrainError) -> Status {
    Status::failed_precondition(error.to_string())
}

/// The longest window. Protects the operator from a unit mistaken for another.
const WINDOW_MS_MAX: u64 = 24 * 60 * 60 * 1000;
