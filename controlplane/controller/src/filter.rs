//! Admitted connections, chosen by what the ledger knows of them.

use std::net::IpAddr;

use relay_contract::{AdmissionId, CloseReason, ConnectionId, Role, Site, TargetId, WorkspaceId};

use crate::controller::Controller;
use crate::facts::{KeyNumber, Life, NameKind};
use crate::ledger::Seated;

/// Which connections are meant: those that have all of what is given.
///
/// Names are compared by digests of 29 bits and more: of two thousand million other connections
/// four are taken for one that is meant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConnectionFilter {
    /// The workspace.
    pub workspace_id: Option<WorkspaceId>,
    /// The target of their scope.
    pub target_id: Option<TargetId>,
    /// The client id of their grant.
    pub client_id: Option<Box<str>>,
    /// The id of their token (`jti`).
    pub token_id: Option<Box<str>>,
    /// Whom their token is about (`sub`).
    pub subject: Option<Box<str>>,
    /// What their token calls its key (`kid`).
    pub key_id: Option<Box<str>>,
    /// Their address; an IPv6 address stands for its whole network.
    pub address: Option<IpAddr>,
}

/// What is known of one admitted connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectionFacts {
    /// Its number in the ledger.
    pub admission: AdmissionId,
    /// Where it lives, once it is open.
    pub connection: Option<ConnectionId>,
    /// What it is.
    pub role: Role,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its target, if it has one.
    pub target_id: Option<TargetId>,
    /// Its address, or its IPv6 network.
    pub site: Site,
    /// What its token calls its key.
    pub key_id: Option<Box<str>>,
    /// When its token expires, seconds since 1970.
    pub expires_at_secs: Option<i64>,
    /// Whether it was told to go.
    pub is_leaving: bool,
}

/// A filter whose names were made into what seats are compared with.
struct Prepared<'a> {
    filter: &'a ConnectionFilter,
    prints: Vec<(NameKind, u32)>,
    keys: Option<Vec<KeyNumber>>,
    site: Option<Site>,
}

impl ConnectionFilter {
    /// Whether it means every connection.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Controller {
    /// Connections that are meant, in the order of their seats, at most so many, of those behind
    /// the seat of `after`.
    ///
    /// Cost: looks at every admitted connection.
    pub fn connections(
        &self,
        filter: &ConnectionFilter,
        after: Option<AdmissionId>,
        count_max: usize,
    ) -> Vec<ConnectionFacts> {
        let is_behind =
            |admission: AdmissionId| after.is_none_or(|after| seat_of(after) < seat_of(admission));
        let prepared = self.prepare(filter);
        let meant = self.judge.seated().filter(|seated| is_behind(seated.admission));
        let meant = meant.filter(|seated| prepared.means(seated)).take(count_max);
        meant.map(|seated| self.show(&seated)).collect()
    }

    /// How many connections are meant.
    pub fn count_connections(&self, filter: &ConnectionFilter) -> usize {
        let prepared = self.prepare(filter);
        self.judge.seated().filter(|seated| prepared.means(seated)).count()
    }

    /// Ends every connection that is meant; how many had not been told to go before.
    pub fn close_connections(&mut self, filter: &ConnectionFilter) -> usize {
        let prepared = self.prepare(filter);
        let meant = self.judge.seated().filter(|seated| prepared.means(seated));
        let meant: Vec<_> = meant.map(|seated| seated.admission).collect();
        self.dismiss_all(&meant, CloseReason::ClosedByOperator)
    }

    fn prepare<'a>(&self, filter: &'a ConnectionFilter) -> Prepared<'a> {
        let ConnectionFilter { client_id, token_id, subject, key_id, address, .. } = filter;
        let names = [
            (NameKind::Client, client_id),
            (NameKind::TokenId, token_id),
            (NameKind::Subject, subject),
        ];
        let print = |(kind, name): (NameKind, &Option<Box<str>>)| {
            name.as_deref().map(|name| (kind, self.names.print(kind, name)))
        };
        Prepared {
            filter,
            prints: names.into_iter().filter_map(print).collect(),
            keys: key_id.as_deref().map(|id| self.book.named(id)),
            site: address.map(Site::from),
        }
    }

    fn show(&self, seated: &Seated<'_>) -> ConnectionFacts {
        let (connection, is_leaving) = match seated.life {
            Life::Admitted => (None, false),
            Life::Doomed(_) => (None, true),
            Life::Open(connection) => (Some(connection), false),
            Life::Dismissed(connection, _) => (Some(connection), true),
        };
        ConnectionFacts {
            admission: seated.admission,
            connection,
            role: seated.role,
            workspace_id: seated.scope.workspace_id.clone(),
            target_id: seated.scope.target_id.clone(),
            site: *seated.site,
            key_id: self.book.id_of(seated.facts.key).map(Into::into),
            expires_at_secs: seated.facts.expiry.secs(),
            is_leaving,
        }
    }
}

impl Prepared<'_> {
    fn means(&self, seated: &Seated<'_>) -> bool {
        let ConnectionFilter { workspace_id, target_id, .. } = self.filter;
        let Seated { scope, site, facts, .. } = seated;
        workspace_id.as_ref().is_none_or(|id| scope.workspace_id == *id)
            && target_id.as_ref().is_none_or(|id| scope.target_id.as_ref() == Some(id))
            && self.site.is_none_or(|wanted| wanted == **site)
            && self.keys.as_ref().is_none_or(|keys| keys.contains(&facts.key))
            && self.prints.iter().all(|(kind, print)| facts.prints.has(*kind, *print))
    }
}

/// The seat of an admission.
fn seat_of(admission: AdmissionId) -> u32 {
    admission.0 as u32
}
