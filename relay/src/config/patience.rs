//! How long TCP itself waits for a peer that has vanished without a word.

use std::time::Duration;

use super::Reader;

/// Kept by the kernel for every accepted connection, whatever it is used for. WebSocket pings find
/// an open connection's peer gone as well; these also end heads, answers and farewells whose peer
/// is no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TcpPatience {
    /// Silence after which the kernel asks whether the peer is still there.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged, or a peer's window closed, before the
    /// connection is cut.
    pub unacknowledged: Duration,
}

impl TcpPatience {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            keepalive: Duration::from_secs(reader.count("RELAY_TCP_KEEPALIVE_SECS")),
            unacknowledged: reader.millis("RELAY_TCP_USER_TIMEOUT_MS"),
        }
    }
}
