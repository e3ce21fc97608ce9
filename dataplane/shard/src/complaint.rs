//! Why strangers were refused, for the log. All of them are counted; of each kind one a minute is
//! told about, because whoever wants to fill a log would be refused on purpose.

use std::time::Duration;

use relay_contract::{Counter, Event, Level, LogEntry, Tick};
use relay_driver::{Driver, Key};

use crate::shard::Shard;

/// What was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Complaint {
    /// What a trusted proxy said in front of a connection.
    ProxyHeader,
    /// The kernel gave no socket.
    Accept,
    /// A TLS handshake.
    TlsHandshake,
    /// A record of an established TLS session.
    TlsRecord,
}

/// When each kind was last told about.
pub(crate) type Complaints = [Option<Tick>; 4];

/// Between two complaints of one kind. Protects the log.
const COMPLAINTS_APART: Duration = Duration::from_secs(60);

impl Complaint {
    const fn counter(self) -> Counter {
        match self {
            Self::ProxyHeader => Counter::ProxyProtocolRejected,
            Self::Accept => Counter::AcceptsFailed,
            Self::TlsHandshake => Counter::TlsHandshakeFailures,
            Self::TlsRecord => Counter::TlsRecordsRefused,
        }
    }

    const fn event(self) -> &'static str {
        match self {
            Self::ProxyHeader => "proxy_header_rejected",
            Self::Accept => "accept_failed",
            Self::TlsHandshake => "tls_handshake_failed",
            Self::TlsRecord => "tls_record_refused",
        }
    }
}

impl<D: Driver> Shard<D> {
    /// Counts a refusal, and says why unless one of its kind was told about within a minute. The
    /// reason is ours or a library's, and nothing of the peer's bytes.
    pub(crate) fn complain(&mut self, about: Option<Key>, complaint: Complaint, reason: &str) {
        let counter = complaint.counter();
        self.counters.count(counter);
        let last = &mut self.complaints[complaint as usize];
        if last.is_some_and(|last| self.now.since(last) < COMPLAINTS_APART) {
            return;
        }
        *last = Some(self.now);
        let so_far = i64::try_from(self.counters.of(counter)).unwrap_or(i64::MAX);
        let mut entry = LogEntry::new(Level::Warn, complaint.event()).ours();
        if let Some(key) = about {
            entry = entry.about(self.table.id(key));
        }
        let entry = entry.with("reason", reason.to_owned()).with("soFar", so_far);
        self.emit(Event::Logged { at: self.now, entry: Box::new(entry) });
    }
}
