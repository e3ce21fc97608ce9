//! Commands.

use std::sync::Arc;

use relay_contract::{
    AdmissionId, CloseReason, Command, ConnectionId, Detail, QueryId, Renewal, RenewalRefusal,
    ShardId, WorkerResponse,
};
use relay_grpc::plane::v1;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error, StrDeserializer};

use super::names::kept;
use super::{BadMessage, Frame, limits, routes, status_in, upgrade};

impl Frame {
    /// A command to a shard of this frame, for the wire.
    pub fn command_out(&self, shard: ShardId, command: Command) -> v1::Command {
        use v1::command::Command as Wire;
        let wire = match command {
            Command::Admit { connection, grant, home } => Wire::Admit(v1::Admit {
                connection: self.connection_out(connection),
                home: self.shard_out(home),
                grant: Some(upgrade::grant_out(*grant)),
            }),
            Command::Refuse { connection, refusal } => Wire::Refuse(v1::Refuse {
                connection: self.connection_out(connection),
                refusal: upgrade::refusal_out(refusal),
            }),
            Command::Respond { connection, status, content_type, body } => {
                Wire::Respond(v1::Respond {
                    connection: self.connection_out(connection),
                    status: status.into(),
                    content_type: content_type.to_owned(),
                    body: body.into(),
                })
            }
            Command::WorkerReply { connection, response } => {
                let WorkerResponse { request_id, status, headers, body, forwarded } = *response;
                let header = |(name, value)| v1::Header { name, value };
                Wire::WorkerReply(v1::WorkerReply {
                    connection: self.connection_out(connection),
                    request_id,
                    status: status.into(),
                    headers: headers.into_iter().map(header).collect(),
                    body,
                    forwarded,
                })
            }
            Command::Close { connection, reason } => Wire::Close(v1::Close {
                connection: self.connection_out(connection),
                reason: format!("{reason:?}"),
            }),
            Command::Renewed { connection, outcome, credential } => Wire::Renewed(v1::Renewed {
                connection: self.connection_out(connection),
                outcome: Some(renewal_out(outcome)),
                credential: credential.map(|credential| upgrade::credential_out(*credential)),
            }),
            Command::SetLimits(limits) => Wire::SetLimits(limits::limits_out(&limits)),
            Command::SetRoutes(routes) => Wire::SetRoutes(routes::routes_out(&routes)),
            Command::Report { query, detail } => {
                let detail = match detail {
                    Detail::Counts => v1::ReportDetail::Counts,
                    Detail::Scopes => v1::ReportDetail::Scopes,
                    Detail::Hottest => v1::ReportDetail::Hottest,
                };
                Wire::Report(v1::Report { query: query.0, detail: detail.into() })
            }
            Command::Drain { version, window_ms, redirect } => {
                Wire::Drain(v1::Drain { window_ms, redirect: redirect.map(Into::into), version })
            }
            Command::Resume { version } => Wire::Resume(v1::Resume { version }),
            Command::Move { workspace_id, to } => Wire::Move(v1::Move {
                workspace_id: workspace_id.to_string(),
                to: self.shard_out(to),
            }),
            Command::Stop { deadline_ms } => Wire::Stop(v1::Stop { deadline_ms }),
        };
        v1::Command { shard: self.shard_out(shard), command: Some(wire) }
    }

    /// Which admission a command is about, if it admits somebody, and who waits for it, as far as
    /// that can be read.
    pub(crate) fn admission_of(
        &self,
        command: &v1::Command,
    ) -> Option<(AdmissionId, Option<ConnectionId>)> {
        let Some(v1::command::Command::Admit(admit)) = &command.command else { return None };
        let admission = AdmissionId(admit.grant.as_ref()?.admission);
        Some((admission, self.connection_in(admit.connection).ok()))
    }

    /// A command from the wire, and whom it is for.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn command_in(&self, command: v1::Command) -> Result<(ShardId, Command), BadMessage> {
        use v1::command::Command as Wire;
        let shard = self.shard_in(command.shard, "shard")?;
        let command = match command.command.ok_or(BadMessage::Unknown("command"))? {
            Wire::Admit(v1::Admit { connection, home, grant }) => Command::Admit {
                connection: self.connection_in(connection)?,
                grant: upgrade::grant_in(grant)?,
                home: self.shard_in(home, "home")?,
            },
            Wire::Refuse(v1::Refuse { connection, refusal }) => Command::Refuse {
                connection: self.connection_in(connection)?,
                refusal: upgrade::refusal_in(refusal)?,
            },
            Wire::Respond(v1::Respond { connection, status, content_type, body }) => {
                Command::Respond {
                    connection: self.connection_in(connection)?,
                    status: status_in(status)?,
                    content_type: kept(&content_type),
                    body: body.into(),
                }
            }
            Wire::WorkerReply(reply) => {
                let header = |header: v1::Header| (header.name, header.value);
                Command::WorkerReply {
                    connection: self.connection_in(reply.connection)?,
                    response: Box::new(WorkerResponse {
                        request_id: reply.request_id,
                        status: status_in(reply.status)?,
                        headers: reply.headers.into_iter().map(header).collect(),
                        body: reply.body,
                        forwarded: reply.forwarded,
                    }),
                }
            }
            Wire::Close(v1::Close { connection, reason }) => Command::Close {
                connection: self.connection_in(connection)?,
                reason: reason_in(&reason),
            },
            Wire::Renewed(v1::Renewed { connection, outcome, credential }) => Command::Renewed {
                connection: self.connection_in(connection)?,
                outcome: renewal_in(outcome)?,
                credential: credential.map(|said| Box::new(upgrade::credential_in(Some(said)))),
            },
            Wire::SetRoutes(routes) => Command::SetRoutes(Arc::new(routes::routes_in(routes)?)),
            Wire::SetLimits(limits) => Command::SetLimits(Arc::new(limits::limits_in(&limits)?)),
            Wire::Report(v1::Report { query, detail }) => Command::Report {
                query: QueryId(query),
                detail: match v1::ReportDetail::try_from(detail) {
                    Ok(v1::ReportDetail::Counts) => Detail::Counts,
                    Ok(v1::ReportDetail::Scopes) => Detail::Scopes,
                    Ok(v1::ReportDetail::Hottest) => Detail::Hottest,
                    Err(_) => return Err(BadMessage::Unknown("detail")),
                },
            },
            Wire::Drain(v1::Drain { window_ms, redirect, version }) => {
                Command::Drain { version, window_ms, redirect: redirect.map(Into::into) }
            }
            Wire::Resume(v1::Resume { version }) => Command::Resume { version },
            Wire::Move(v1::Move { workspace_id, to }) => Command::Move {
                workspace_id: workspace_id.as_str().into(),
                to: self.shard_in(to, "to")?,
            },
            Wire::Stop(v1::Stop { deadline_ms }) => Command::Stop { deadline_ms },
        };
        Ok((shard, command))
    }
}

/// The reason that has this name. One of a newer control plane is a general one: the connection is
/// to end, whatever for.
fn reason_in(name: &str) -> CloseReason {
    let name: StrDeserializer<'_, Error> = name.into_deserializer();
    CloseReason::deserialize(name).unwrap_or(CloseReason::ClosedByOperator)
}

fn renewal_out(outcome: Renewal) -> v1::renewed::Outcome {
    use v1::renewed::Outcome as Wire;
    match outcome {
        Renewal::Renewed { expires_at_ms } => Wire::Renewed(v1::Expiry { expires_at_ms }),
        Renewal::Refused(refusal) => {
            let refusal = match refusal {
                RenewalRefusal::Malformed => v1::RenewalRefusal::Malformed,
                RenewalRefusal::Denied => v1::RenewalRefusal::Denied,
                RenewalRefusal::ClaimsDiffer => v1::RenewalRefusal::ClaimsDiffer,
                RenewalRefusal::Unavailable => v1::RenewalRefusal::Unavailable,
            };
            Wire::Refused(refusal.into())
        }
    }
}

fn renewal_in(outcome: Option<v1::renewed::Outcome>) -> Result<Renewal, BadMessage> {
    use v1::renewed::Outcome as Wire;
    Ok(match outcome.ok_or(BadMessage::Missing("outcome"))? {
        Wire::Renewed(v1::Expiry { expires_at_ms }) => Renewal::Renewed { expires_at_ms },
        Wire::Refused(refusal) => Renewal::Refused(match v1::RenewalRefusal::try_from(refusal) {
            Ok(v1::RenewalRefusal::Malformed) => RenewalRefusal::Malformed,
            Ok(v1::RenewalRefusal::Denied) => RenewalRefusal::Denied,
            Ok(v1::RenewalRefusal::ClaimsDiffer) => RenewalRefusal::ClaimsDiffer,
            Ok(v1::RenewalRefusal::Unavailable) => RenewalRefusal::Unavailable,
            Ok(v1::RenewalRefusal::Unspecified) | Err(_) => {
                return Err(BadMessage::Unknown("refusal"));
            }
        }),
    })
}
