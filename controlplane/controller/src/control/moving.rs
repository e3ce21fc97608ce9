//! Workspaces moved by calls of the control API.

use relay_contract::ShardId;
use relay_grpc::control::v1 as proto;
use tonic::Status;

use super::answers::Answer;
use super::scopes::workspace;
use crate::controller::Controller;
use crate::moves::MoveError;

impl Controller {
    pub(super) fn move_by_call(
        &mut self,
        request: &proto::MoveWorkspaceRequest,
    ) -> Answer<proto::MoveWorkspaceResponse> {
        let id = workspace(&request.workspace_id)
            .ok_or_else(|| Status::invalid_argument("workspace_id: which workspace?"))?;
        let to = u16::try_from(request.shard_id).map(ShardId);
        let to = to.map_err(|_| Status::not_found("shard_id: there is no such shard"))?;
        match self.move_workspace(id, to) {
            Ok(from) => {
                let from_shard_id = from.0.into();
                Ok(proto::MoveWorkspaceResponse { from_shard_id, is_moving: true })
            }
            // It is as it was to become.
            Err(MoveError::AlreadyThere(shard)) => {
                let from_shard_id = shard.0.into();
                Ok(proto::MoveWorkspaceResponse { from_shard_id, is_moving: false })
            }
            Err(error) => Err(refused(error)),
        }
    }
}

fn refused(error: MoveError) -> Status {
    let text = error.to_string();
    match error {
        MoveError::NoSuchShard(_) => Status::not_found(text),
        MoveError::Undelivered(_) => Status::unavailable(text),
        MoveError::Underway | MoveError::Leaving | MoveError::AlreadyThere(_) => {
            Status::failed_precondition(text)
        }
    }
}
