//! Sockets that are not admitted yet: how many, and from where.

use std::collections::HashMap;
use std::net::IpAddr;

use relay_contract::{Limits, Site};
use relay_wire::http1::Peer;

/// Counts guests and waiting upgrades. Protects slots and memory from peers that only connect.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    count: usize,
    by_site: HashMap<Site, u32>,
}

impl Strangers {
    /// Counts a new one in, unless there are too many, of this address or in all. The cap per
    /// address does not hold for a trusted proxy, behind which many clients may be.
    pub(crate) fn admit(&mut self, peer: Peer, limits: &Limits) -> bool {
        if self.count >= limits.guests_max {
            return false;
        }
        let of_site = self.by_site.entry(peer.address.into()).or_default();
        if !peer.is_proxy && *of_site >= limits.guests_per_address_max {
            return false;
        }
        *of_site += 1;
        self.count += 1;
        true
    }

    /// Counts one under another address: a proxy has said who is behind it. Whether that address
    /// has a place left; when not, nothing changes.
    pub(crate) fn rename(&mut self, from: IpAddr, to: Peer, limits: &Limits) -> bool {
        if from == to.address {
            return true;
        }
        self.remove(from);
        let admitted = self.admit(to, limits);
        if !admitted {
            *self.by_site.entry(from.into()).or_default() += 1;
            self.count += 1;
        }
        admitted
    }

    /// Counts one out: it was admitted, refused or has gone.
    pub(crate) fn remove(&mut self, address: IpAddr) {
        let site = address.into();
        let Some(of_site) = self.by_site.get_mut(&site) else { return };
        *of_site -= 1;
        if *of_site == 0 {
            self.by_site.remove(&site);
        }
        self.count -= 1;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn stranger(address: [u8; 4]) -> Peer {
        Peer { address: Ipv4Addr::from(address).into(), is_proxy: false }
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let limits = Limits { guests_max: 3, guests_per_address_max: 2, ..Limits::default() };
        let (greedy, other) = (stranger([127, 0, 0, 1]), stranger([127, 0, 0, 2]));
        let mut strangers = Strangers::default();
        assert!(strangers.admit(greedy, &limits));
        assert!(strangers.admit(greedy, &limits));
        assert!(!strangers.admit(greedy, &limits));
        assert!(strangers.admit(other, &limits));
        assert!(!strangers.admit(other, &limits), "all places are taken");
        strangers.remove(greedy.address);
        assert!(strangers.admit(other, &limits));
        assert_eq!(strangers.count(), 3);
    }

    #[test]
    fn a_trusted_proxy_stands_for_many() {
        let limits = Limits { guests_per_address_max: 1, ..Limits::default() };
        let mut strangers = Strangers::default();
        assert!(strangers.admit(Peer::LOCAL, &limits));
        assert!(strangers.admit(Peer::LOCAL, &limits));
    }
}
