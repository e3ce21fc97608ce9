//! Connections, listed and closed by calls of the control API.

use relay_contract::{AdmissionId, Role};
use relay_grpc::control::v1 as proto;
use tonic::Status;

use super::answers::Answer;
use super::scopes::page_size;
use crate::controller::Controller;
use crate::filter::{ConnectionFacts, ConnectionFilter};

impl Controller {
    pub(super) fn list_connections(
        &self,
        request: proto::ListConnectionsRequest,
    ) -> Answer<proto::ListConnectionsResponse> {
        let filter = filter(request.filter.unwrap_or_default())?;
        let size = page_size(request.page_size)?;
        let after = page_start(&request.page_token)?;
        // One more, to know whether there is another page.
        let mut found = self.connections(&filter, after, size + 1);
        let is_last = found.len() <= size;
        found.truncate(size);
        let next = found.last().filter(|_| !is_last).map(|last| last.admission.0.to_string());
        Ok(proto::ListConnectionsResponse {
            connections: found.into_iter().map(shown).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    pub(super) fn close_by_call(
        &mut self,
        request: proto::CloseConnectionsRequest,
    ) -> Answer<proto::CloseConnectionsResponse> {
        let filter = filter(request.filter.unwrap_or_default())?;
        match (filter.is_empty(), request.all) {
            (true, false) => {
                let text = "filter: nothing is given; set `all` to mean every connection";
                return Err(Status::invalid_argument(text));
            }
            (false, true) => {
                let text = "all: a filter is given too; which of the two is meant?";
                return Err(Status::invalid_argument(text));
            }
            (true, true) | (false, false) => {}
        }
        let connections = match request.dry_run {
            true => self.count_connections(&filter),
            false => self.close_connections(&filter),
        };
        let connections = u64::try_from(connections).unwrap_or(u64::MAX);
        Ok(proto::CloseConnectionsResponse { connections })
    }
}

fn filter(asked: proto::ConnectionFilter) -> Result<ConnectionFilter, Status> {
    let given = |text: String| (!text.is_empty()).then(|| text.into_boxed_str());
    let proto::ConnectionFilter {
        workspace_id,
        target_id,
        client_id,
        token_id,
        subject,
        key_id,
        address,
    } = asked;
    let address = given(address).map(|text| {
        text.parse().map_err(|_| {
            Status::invalid_argument("filter.address: expected an IP address, such as 192.0.2.7")
        })
    });
    Ok(ConnectionFilter {
        workspace_id: given(workspace_id).map(|id| (&*id).into()),
        target_id: given(target_id).map(|id| (&*id).into()),
        client_id: given(client_id),
        token_id: given(token_id),
        subject: given(subject),
        key_id: given(key_id),
        address: address.transpose()?,
    })
}

fn page_start(token: &str) -> Result<Option<AdmissionId>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let number = token.parse().map_err(|_| {
        Status::invalid_argument("page_token: not one of this relay's answers; start without one")
    })?;
    Ok(Some(AdmissionId(number)))
}

fn shown(facts: ConnectionFacts) -> proto::Connection {
    let role = match facts.role {
        Role::Daemon => proto::ConnectionRole::Daemon,
        Role::Client => proto::ConnectionRole::Client,
        Role::Worker => proto::ConnectionRole::Worker,
    };
    proto::Connection {
        admission_id: facts.admission.0,
        connection_id: facts.connection.map(|id| id.to_string()).unwrap_or_default(),
        role: role.into(),
        workspace_id: facts.workspace_id.into(),
        target_id: facts.target_id.map(Into::into),
        address: facts.site.to_string(),
        key_id: facts.key_id.map(Into::into).unwrap_or_default(),
        expires_at_unix_ms: facts.expires_at_secs.map(|secs| secs.saturating_mul(1000)),
        is_leaving: facts.is_leaving,
    }
}
