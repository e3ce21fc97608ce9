//! A connection of a trusted proxy, until the proxy has said who is behind it.

use relay_contract::Counter;
use relay_driver::{Driver, Key};
use relay_wire::http1::Peer;
use relay_wire::{ProxyHeader, parse_proxy_header};

use crate::complaint::Complaint;
use crate::connection::Phase;
use crate::guest::Guest;
use crate::shard::Shard;

/// A socket whose PROXY header has not come yet. Nothing else is read before it, TLS included.
pub(crate) struct Fronted {
    /// The proxy.
    pub(crate) peer: Peer,
    /// Bytes received. Bounded: one receive beyond the longest header.
    received: Vec<u8>,
}

impl Fronted {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, received: Vec::new() }
    }

    /// Memory of its own.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.received.capacity()
    }
}

impl<D: Driver> Shard<D> {
    /// Waits for the header; it has the time of a request head.
    pub(crate) fn await_proxy_header(&mut self, key: Key) {
        self.set_deadline(key, self.limits.head_timeout);
        self.arm(key);
    }

    /// Bytes of a proxy arrived.
    pub(crate) fn on_fronted_bytes(&mut self, key: Key, bytes: &[u8]) {
        let Some(Phase::Fronted(fronted)) = self.phase_mut(key) else {
            return;
        };
        fronted.received.extend_from_slice(bytes);
        match parse_proxy_header(&fronted.received) {
            Ok(None) => self.arm(key),
            Ok(Some(header)) => self.introduce(key, header),
            Err(error) => self.reject_fronted(key, &error.to_string()),
        }
        self.charge(key);
    }

    /// The proxy has said who is there: that is the connection's peer from now on.
    ///
    /// The deadline runs on until the guest's own begins.
    fn introduce(&mut self, key: Key, header: ProxyHeader) {
        let trusted_proxies = &self.config.trusted_proxies;
        let Some(connection) = self.table.get_mut(key) else {
            return;
        };
        let Phase::Fronted(fronted) = &mut connection.phase else {
            return;
        };
        let rest = fronted.received.split_off(header.len);
        let proxy = fronted.peer;
        let peer = header.source.map_or(proxy, |address| trusted_proxies.peer(address));
        let held_bytes = connection.charge.stranger_bytes();
        if !self.strangers.rename(proxy.address, peer, held_bytes, &self.limits) {
            self.counters.count(Counter::GuestsRefused);
            return self.close(key);
        }
        connection.phase = Phase::Guest(Box::new(Guest::new(peer)));
        self.greet(key, rest);
    }

    /// The proxy ended its side. Without a byte said it only looked whether somebody listens.
    pub(crate) fn on_fronted_ended(&mut self, key: Key) {
        match self.phase_mut(key) {
            Some(Phase::Fronted(fronted)) if fronted.received.is_empty() => self.close(key),
            _ => self.reject_fronted(key, "PROXY header cut off"),
        }
    }

    /// The header did not come in time.
    pub(crate) fn on_fronted_expired(&mut self, key: Key) {
        self.reject_fronted(key, "no PROXY header in time");
    }

    /// Closes without an answer: what the peer speaks is not known.
    fn reject_fronted(&mut self, key: Key, reason: &str) {
        self.complain(Some(key), Complaint::ProxyHeader, reason);
        self.close(key);
    }
}
