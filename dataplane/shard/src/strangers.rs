//! Sockets that are not admitted yet: how many, from where, and what those of one site have.

use std::collections::HashMap;
use std::net::IpAddr;

use relay_contract::{Limits, Site};
use relay_wire::http1::Peer;

use crate::budget::Charge;
use crate::connection::Connection;

/// Counts guests and waiting upgrades. Protects slots and memory from peers that only connect, and
/// each site's from all others: of what strangers may have in all, one site has [`TIMES_FREE`]
/// times what is left at most.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    count: usize,
    handshakes: usize,
    by_site: HashMap<Site, Presence>,
}

/// What the strangers of one site have.
#[derive(Debug, Default)]
struct Presence {
    sockets: u32,
    handshakes: usize,
    bytes: usize,
    /// A trusted proxy is among them, behind which many clients may be: no bound of a site holds.
    is_proxy: bool,
}

impl Strangers {
    /// Counts a new one in, unless there are too many, of this address or in all. The cap per
    /// address does not hold for a trusted proxy, behind which many clients may be.
    pub(crate) fn admit(&mut self, peer: Peer, limits: &Limits) -> bool {
        let free = limits.guests_max.saturating_sub(self.count);
        if free == 0 {
            return false;
        }
        let of_site = self.by_site.entry(peer.address.into()).or_default();
        let has_most = of_site.sockets >= limits.guests_per_address_max;
        if !peer.is_proxy && (has_most || has_share(of_site.sockets as usize, free)) {
            return false;
        }
        of_site.is_proxy |= peer.is_proxy;
        of_site.sockets += 1;
        self.count += 1;
        true
    }

    /// Counts one, and the bytes it holds, under another address: a proxy has said who is behind
    /// it. Whether that address has a place left; when not, nothing changes.
    pub(crate) fn rename(
        &mut self,
        from: IpAddr,
        to: Peer,
        held_bytes: usize,
        limits: &Limits,
    ) -> bool {
        if from == to.address {
            return true;
        }
        // It has a place among all already.
        self.count -= 1;
        let admitted = self.admit(to, limits);
        self.count += usize::from(!admitted);
        if admitted {
            self.hold(to.address, 0, held_bytes);
            self.leave(from, held_bytes);
        }
        admitted
    }

    /// Counts one out, with the bytes it held: it was admitted, refused or has gone.
    pub(crate) fn remove(&mut self, address: IpAddr, held_bytes: usize) {
        self.count -= 1;
        self.leave(address, held_bytes);
    }

    fn leave(&mut self, address: IpAddr, held_bytes: usize) {
        let site = address.into();
        let Some(of_site) = self.by_site.get_mut(&site) else { return };
        of_site.sockets -= 1;
        of_site.bytes -= held_bytes;
        if of_site.sockets == 0 {
            self.by_site.remove(&site);
        }
    }

    /// Counts one that begins a TLS handshake, unless too many do, of its site or in all.
    pub(crate) fn begin_handshake(&mut self, address: IpAddr, limits: &Limits) -> bool {
        let Some(of_site) = self.by_site.get_mut(&address.into()) else { return false };
        let free = limits.tls_handshakes_max.saturating_sub(self.handshakes);
        let is_greedy = !of_site.is_proxy && has_share(of_site.handshakes, free);
        if is_greedy || free == 0 {
            return false;
        }
        of_site.handshakes += 1;
        self.handshakes += 1;
        true
    }

    /// Counts one out whose handshake is done or given up.
    pub(crate) fn end_handshake(&mut self, address: IpAddr) {
        self.handshakes -= 1;
        if let Some(of_site) = self.by_site.get_mut(&address.into()) {
            of_site.handshakes -= 1;
        }
    }

    /// Brings the account of a stranger's site up to date: it will be charged for so much from now
    /// on.
    #[inline(never)]
    pub(crate) fn charge(&mut self, connection: &Connection, now: Charge) {
        if let Some(address) = connection.stranger() {
            let before = connection.charge.stranger_bytes();
            self.hold(address, before, now.stranger_bytes());
        }
    }

    /// One that held so many bytes holds so many now.
    fn hold(&mut self, address: IpAddr, before: usize, now: usize) {
        if let Some(of_site) = self.by_site.get_mut(&address.into()) {
            of_site.bytes = of_site.bytes - before + now;
        }
    }

    /// Whether those of this site hold as many bytes as they may while so many are left.
    pub(crate) fn is_greedy(&self, address: IpAddr, free_bytes: usize) -> bool {
        let of_site = self.by_site.get(&address.into());
        of_site.is_some_and(|of_site| {
            let is_bounded = !of_site.is_proxy && of_site.bytes >= SITE_BYTES_MIN;
            is_bounded && has_share(of_site.bytes, free_bytes)
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many of them are shaking hands.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes
    }
}

/// How many times as much as is left one site may have of what strangers may have in all. One that
/// takes all it can has three quarters, the next three quarters of the rest: six of them have all
/// of 2,048 handshakes, where two would with three quarters of the whole for each. A burst of 1,024
/// connections from one address finds its places by default.
///
/// Source: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
/// switches", IEEE/ACM Transactions on Networking 6 (1998).
const TIMES_FREE: usize = 3;
/// Bytes that a site may hold whatever is left. Protects who has begun from those who come after.
/// Source: what one stranger holds at most, 64 KiB of a handshake and one receive.
const SITE_BYTES_MIN: usize = 96 << 10;

/// Whether a site that has so much has its share while so much is left.
const fn has_share(of_site: usize, free: usize) -> bool {
    of_site >= TIMES_FREE * free
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
        strangers.remove(greedy.address, 0);
        assert!(strangers.admit(other, &limits));
        assert_eq!(strangers.count(), 3);
    }

    #[test]
    fn one_site_has_three_quarters_of_handshakes_and_memory() {
        let limits = Limits { tls_handshakes_max: 4, ..Limits::default() };
        let (greedy, other) = (stranger([127, 0, 0, 1]), stranger([127, 0, 0, 2]));
        let mut strangers = Strangers::default();
        assert!((0..4).all(|_| strangers.admit(greedy, &limits)));
        assert!(strangers.admit(other, &limits));
        let begun = (0..4).filter(|_| strangers.begin_handshake(greedy.address, &limits)).count();
        assert_eq!(begun, 3);
        assert!(strangers.begin_handshake(other.address, &limits));
        assert!(!strangers.begin_handshake(other.address, &limits), "all places are taken");
        strangers.end_handshake(greedy.address);
        assert!(strangers.begin_handshake(greedy.address, &limits));
        strangers.hold(greedy.address, 0, 299 << 10);
        assert!(!strangers.is_greedy(greedy.address, 101 << 10));
        strangers.hold(greedy.address, 299 << 10, 300 << 10);
        assert!(strangers.is_greedy(greedy.address, 100 << 10));
        assert!(!strangers.is_greedy(other.address, 100 << 10));
        strangers.hold(other.address, 0, SITE_BYTES_MIN - 1);
        assert!(!strangers.is_greedy(other.address, 0), "one may end what it has begun");
        strangers.remove(greedy.address, 300 << 10);
        assert!(!strangers.is_greedy(greedy.address, 0));
    }

    #[test]
    fn each_site_takes_three_quarters_of_what_is_left() {
        let limits = Limits { guests_max: 4096, tls_handshakes_max: 2048, ..Limits::default() };
        let mut strangers = Strangers::default();
        for site in 1..=4 {
            let greedy = stranger([127, 0, 0, site]);
            while strangers.admit(greedy, &limits) {}
            while strangers.begin_handshake(greedy.address, &limits) {}
        }
        assert_eq!(4096 - strangers.count(), 32, "2048 of one at most, then a quarter of the rest");
        assert_eq!(2048 - strangers.handshakes(), 8, "a quarter of a quarter, and so on");
        let other = stranger([127, 0, 0, 9]);
        assert!(strangers.admit(other, &limits));
        assert!(strangers.begin_handshake(other.address, &limits));
    }

    #[test]
    fn who_is_renamed_takes_along_what_it_holds() {
        let limits = Limits::default();
        let held_bytes = 300 << 10;
        let [proxy, behind] = [stranger([10, 0, 0, 1]), stranger([127, 0, 0, 2])];
        let mut strangers = Strangers::default();
        assert!(strangers.admit(Peer { is_proxy: true, ..proxy }, &limits));
        strangers.hold(proxy.address, 0, held_bytes);
        assert!(!strangers.is_greedy(proxy.address, 0), "a proxy stands for many");
        assert!(strangers.rename(proxy.address, behind, held_bytes, &limits));
        assert!(strangers.is_greedy(behind.address, 0));
        assert_eq!(strangers.count(), 1);
        strangers.remove(behind.address, held_bytes);
        assert!(strangers.by_site.is_empty());
    }

    #[test]
    fn a_trusted_proxy_stands_for_many() {
        let limits = Limits { guests_per_address_max: 1, ..Limits::default() };
        let mut strangers = Strangers::default();
        assert!(strangers.admit(Peer::LOCAL, &limits));
        assert!(strangers.admit(Peer::LOCAL, &limits));
    }
}
