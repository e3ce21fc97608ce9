//! Scopes, as the control API shows them.

use relay_contract::WorkspaceId;
use relay_grpc::control::v1 as proto;
use tonic::Status;

use super::answers::Answer;
use crate::controller::Controller;
use crate::ledger::Occupancy;

impl Controller {
    pub(super) fn list_scopes(
        &self,
        request: &proto::ListScopesRequest,
    ) -> Answer<proto::ListScopesResponse> {
        let size = page_size(request.page_size)?;
        let next = page_start(&request.page_token)?;
        let page = self.judge.scopes(next, size, workspace(&request.workspace_id).as_ref());
        Ok(proto::ListScopesResponse {
            scopes: page.scopes.iter().map(shown).collect(),
            next_page_token: page.next.map_or_else(String::new, |next| next.to_string()),
        })
    }
}

/// The workspace that is wanted, if not all are.
pub(super) fn workspace(id: &str) -> Option<WorkspaceId> {
    (!id.is_empty()).then(|| id.into())
}

/// How many are wanted.
pub(super) fn page_size(asked: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(PAGE_SIZE),
        1..=PAGE_SIZE_MAX => Ok(asked as usize),
        more => {
            let text = format!("page_size: {more} is more than {PAGE_SIZE_MAX}");
            Err(Status::invalid_argument(text))
        }
    }
}

/// Where a page begins.
pub(super) fn page_start(token: &str) -> Result<usize, Status> {
    if token.is_empty() {
        return Ok(0);
    }
    token.parse().map_err(|_| {
        Status::invalid_argument("page_token: not one of this relay's answers; start without one")
    })
}

pub(super) fn shown(occupancy: &Occupancy) -> proto::Scope {
    proto::Scope {
        workspace_id: occupancy.scope.workspace_id.to_string(),
        target_id: occupancy.scope.target_id.as_ref().map(ToString::to_string),
        shard_ids: occupancy.homes.iter().map(|shard| shard.0.into()).collect(),
        daemons: occupancy.daemons,
        clients: occupancy.clients,
        workers: occupancy.workers,
    }
}

/// Things of one answer, where no number is asked for.
const PAGE_SIZE: usize = 100;

/// Things of one answer. Protects the controller's time and the caller's memory.
const PAGE_SIZE_MAX: u32 = 1000;
