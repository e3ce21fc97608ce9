//! Events.

use std::time::Duration;

use relay_contract::{
    AdmissionId, AdmissionRequest, ConnectionId, ControlRequest, Event, Level, LogEntry,
    MoveFailure, QueryId, Secret, ShardId, Value, WorkerRequest,
};
use relay_grpc::plane::v1;

use super::names::kept;
use super::{BadMessage, Frame, InForce, address_in, address_out, report, upgrade};

fn failure_out(reason: MoveFailure) -> v1::MoveFailure {
    match reason {
        MoveFailure::NoSuchShard => v1::MoveFailure::NoSuchShard,
        MoveFailure::Driver => v1::MoveFailure::Driver,
        MoveFailure::TimedOut => v1::MoveFailure::TimedOut,
        MoveFailure::Stopping => v1::MoveFailure::Stopping,
        MoveFailure::NotHere => v1::MoveFailure::NotHere,
        MoveFailure::TooMany => v1::MoveFailure::TooMany,
        MoveFailure::NoRoom => v1::MoveFailure::NoRoom,
    }
}

fn failure_in(reason: i32) -> Result<MoveFailure, BadMessage> {
    match v1::MoveFailure::try_from(reason) {
        Ok(v1::MoveFailure::NoSuchShard) => Ok(MoveFailure::NoSuchShard),
        Ok(v1::MoveFailure::Driver) => Ok(MoveFailure::Driver),
        Ok(v1::MoveFailure::TimedOut) => Ok(MoveFailure::TimedOut),
        Ok(v1::MoveFailure::Stopping) => Ok(MoveFailure::Stopping),
        Ok(v1::MoveFailure::NotHere) => Ok(MoveFailure::NotHere),
        Ok(v1::MoveFailure::TooMany) => Ok(MoveFailure::TooMany),
        Ok(v1::MoveFailure::NoRoom) => Ok(MoveFailure::NoRoom),
        Ok(v1::MoveFailure::Unspecified) | Err(_) => Err(BadMessage::Unknown("reason")),
    }
}

impl Frame {
    /// An event of a shard of this frame, for the wire.
    pub fn event_out(&self, shard: ShardId, event: Event) -> v1::Event {
        use v1::event::Event as Wire;
        let wire = match event {
            Event::AdmissionAsked { connection, request } => {
                Wire::AdmissionAsked(self.asked_out(connection, *request))
            }
            Event::Released { admission } => {
                Wire::Released(v1::Released { admission: admission.0 })
            }
            Event::Abandoned { connection } => {
                Wire::Abandoned(v1::Abandoned { connection: self.connection_out(connection) })
            }
            Event::HttpAsked { connection, request } => {
                let ControlRequest { path, query, authorization, admin_token, accept, address } =
                    *request;
                let shown = |secret: Option<Secret>| secret.map(|text| text.expose().to_owned());
                Wire::HttpAsked(v1::HttpAsked {
                    connection: self.connection_out(connection),
                    path: path.into(),
                    query: query.map(Into::into),
                    authorization: shown(authorization),
                    admin_token: shown(admin_token),
                    accept: accept.map(Into::into),
                    address: address_out(address),
                })
            }
            Event::WorkerAsked { connection, admission, request } => {
                let WorkerRequest { request_id, method, path, headers, body } = *request;
                let header = |(name, value): (Box<str>, _)| v1::Header { name: name.into(), value };
                Wire::WorkerAsked(v1::WorkerAsked {
                    connection: self.connection_out(connection),
                    admission: admission.0,
                    request_id,
                    method: method.into(),
                    path,
                    headers: headers.into_iter().map(header).collect(),
                    body,
                })
            }
            Event::Logged { at, entry } => Wire::Logged(self.entry_out(self.date_of(at), *entry)),
            Event::Reported { query, report } => Wire::Reported(report::report_out(query, *report)),
            Event::Opened { admission, connection } => Wire::Opened(v1::Opened {
                admission: admission.0,
                connection: self.connection_out(connection),
            }),
            Event::RenewalAsked { connection, admission, claims_digest, token } => {
                Wire::RenewalAsked(v1::RenewalAsked {
                    connection: self.connection_out(connection),
                    admission: admission.0,
                    claims_digest,
                    token: token.expose().to_owned(),
                })
            }
            Event::InForce { shard, value, version } => {
                Wire::InForce(self.in_force_out(InForce { shard, value, version }))
            }
            Event::Moved { workspace_id, from, to, connections, paused } => {
                Wire::Moved(v1::Moved {
                    workspace_id: workspace_id.to_string(),
                    from: self.shard_out(from),
                    to: self.shard_out(to),
                    connections,
                    paused_ns: u64::try_from(paused.as_nanos()).unwrap_or(u64::MAX),
                })
            }
            Event::MoveFailed { workspace_id, from, reason } => Wire::MoveFailed(v1::MoveFailed {
                workspace_id: workspace_id.to_string(),
                from: self.shard_out(from),
                reason: failure_out(reason).into(),
            }),
            Event::Stopped { shard: _ } => Wire::Stopped(v1::Stopped {}),
        };
        v1::Event { shard: self.shard_out(shard), event: Some(wire) }
    }

    /// An event from the wire.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn event_in(&self, event: v1::Event) -> Result<Event, BadMessage> {
        use v1::event::Event as Wire;
        let shard = self.shard_in(event.shard, "shard")?;
        Ok(match event.event.ok_or(BadMessage::Unknown("event"))? {
            Wire::AdmissionAsked(asked) => {
                let (connection, request) = self.asked_in(asked)?;
                Event::AdmissionAsked { connection, request }
            }
            Wire::Released(v1::Released { admission }) => {
                Event::Released { admission: AdmissionId(admission) }
            }
            Wire::Abandoned(v1::Abandoned { connection }) => {
                Event::Abandoned { connection: self.connection_in(connection)? }
            }
            Wire::HttpAsked(asked) => Event::HttpAsked {
                connection: self.connection_in(asked.connection)?,
                request: Box::new(ControlRequest {
                    path: asked.path.into(),
                    query: asked.query.map(Into::into),
                    authorization: asked.authorization.map(Secret::new),
                    admin_token: asked.admin_token.map(Secret::new),
                    accept: asked.accept.map(Into::into),
                    address: address_in(&asked.address)?,
                }),
            },
            Wire::WorkerAsked(asked) => {
                let header = |header: v1::Header| (header.name.into(), header.value);
                Event::WorkerAsked {
                    connection: self.connection_in(asked.connection)?,
                    admission: AdmissionId(asked.admission),
                    request: Box::new(WorkerRequest {
                        request_id: asked.request_id,
                        method: asked.method.into(),
                        path: asked.path,
                        headers: asked.headers.into_iter().map(header).collect(),
                        body: asked.body,
                    }),
                }
            }
            Wire::Logged(logged) => Event::Logged {
                at: self.tick_of(logged.unix_ms),
                entry: Box::new(self.entry_in(logged)?),
            },
            Wire::Reported(reported) => {
                let query = QueryId(reported.query);
                Event::Reported { query, report: Box::new(report::report_in(shard, reported)?) }
            }
            Wire::Opened(v1::Opened { admission, connection }) => Event::Opened {
                admission: AdmissionId(admission),
                connection: self.connection_in(connection)?,
            },
            Wire::RenewalAsked(asked) => Event::RenewalAsked {
                connection: self.connection_in(asked.connection)?,
                admission: AdmissionId(asked.admission),
                claims_digest: asked.claims_digest,
                token: Secret::new(asked.token),
            },
            Wire::InForce(in_force) => {
                let InForce { shard, value, version } = self.in_force_in(in_force)?;
                Event::InForce { shard, value, version }
            }
            Wire::Moved(moved) => Event::Moved {
                workspace_id: moved.workspace_id.as_str().into(),
                from: self.shard_in(moved.from, "from")?,
                to: self.shard_in(moved.to, "to")?,
                connections: moved.connections,
                paused: Duration::from_nanos(moved.paused_ns),
            },
            Wire::MoveFailed(failed) => Event::MoveFailed {
                workspace_id: failed.workspace_id.as_str().into(),
                from: self.shard_in(failed.from, "from")?,
                reason: failure_in(failed.reason)?,
            },
            Wire::Stopped(v1::Stopped {}) => Event::Stopped { shard },
        })
    }

    pub(crate) fn asked_out(
        &self,
        connection: ConnectionId,
        request: AdmissionRequest,
    ) -> v1::AdmissionAsked {
        v1::AdmissionAsked {
            connection: self.connection_out(connection),
            address: address_out(request.address),
            preflight: upgrade::preflight_out(request.preflight),
        }
    }

    pub(crate) fn asked_in(
        &self,
        asked: v1::AdmissionAsked,
    ) -> Result<(ConnectionId, Box<AdmissionRequest>), BadMessage> {
        let v1::AdmissionAsked { connection, address, preflight } = asked;
        Ok((self.connection_in(connection)?, upgrade::asked_in(&address, preflight)?))
    }

    fn entry_out(&self, unix_ms: i64, entry: LogEntry) -> v1::Logged {
        let LogEntry { level, event, connection, ours, details } = entry;
        let level = match level {
            Level::Debug => v1::Level::Debug,
            Level::Info => v1::Level::Info,
            Level::Warn => v1::Level::Warn,
            Level::Error => v1::Level::Error,
        };
        let detail = |(key, value): (&str, Value)| v1::Detail {
            key: key.to_owned(),
            value: Some(value_out(value)),
        };
        v1::Logged {
            unix_ms,
            level: level.into(),
            event: event.to_owned(),
            connection: connection.and_then(|connection| self.connection_out(connection)),
            ours,
            details: details.into_iter().map(detail).collect(),
        }
    }

    fn entry_in(&self, logged: v1::Logged) -> Result<LogEntry, BadMessage> {
        let level = match v1::Level::try_from(logged.level) {
            Ok(v1::Level::Debug) => Level::Debug,
            Ok(v1::Level::Info) => Level::Info,
            Ok(v1::Level::Warn) => Level::Warn,
            Ok(v1::Level::Error) => Level::Error,
            Ok(v1::Level::Unspecified) | Err(_) => return Err(BadMessage::Unknown("level")),
        };
        let mut entry = LogEntry::new(level, kept(&logged.event));
        if logged.connection.is_some() {
            entry = entry.about(self.connection_in(logged.connection)?);
        }
        if logged.ours {
            entry = entry.ours();
        }
        for v1::Detail { key, value } in logged.details {
            // A value of a kind that this side does not know yet is left out.
            if let Some(value) = value {
                entry = entry.with(kept(&key), value_in(value));
            }
        }
        Ok(entry)
    }
}

fn value_out(value: Value) -> v1::detail::Value {
    use v1::detail::Value as Wire;
    match value {
        Value::Text(text) => Wire::Text(text.into()),
        Value::Name(name) => Wire::Name(name.to_owned()),
        Value::Number(number) => Wire::Number(number),
        Value::Flag(flag) => Wire::Flag(flag),
        Value::Null => Wire::Null(v1::Unit {}),
        Value::Redacted => Wire::Redacted(v1::Unit {}),
    }
}

fn value_in(value: v1::detail::Value) -> Value {
    use v1::detail::Value as Wire;
    match value {
        // A name is shown as any text is.
        Wire::Text(text) | Wire::Name(text) => Value::Text(text.into()),
        Wire::Number(number) => Value::Number(number),
        Wire::Flag(flag) => Value::Flag(flag),
        Wire::Null(v1::Unit {}) => Value::Null,
        Wire::Redacted(v1::Unit {}) => Value::Redacted,
    }
}
