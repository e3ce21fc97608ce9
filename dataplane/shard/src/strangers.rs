//! Sockets that are not admitted yet: how many, and from where.

use std::collections::HashMap;
use std::net::IpAddr;

use relay_contract::Limits;

/// Counts guests and waiting upgrades. Protects slots and memory from peers that only connect.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    count: usize,
    by_address: HashMap<IpAddr, u32>,
}

impl Strangers {
    /// Counts a new one in, unless there are too many, of this address or in all. The cap per
    /// address does not hold for a trusted proxy, behind which many clients may be.
    pub(crate) fn admit(&mut self, address: IpAddr, is_proxy: bool, limits: &Limits) -> bool {
        if self.count >= limits.guests_max {
            return false;
        }
        let of_address = self.by_address.entry(address).or_default();
        if !is_proxy && *of_address >= limits.guests_per_address_max {
            return false;
        }
        *of_address += 1;
        self.count += 1;
        true
    }

    /// Counts one out: it was admitted, refused or has gone.
    pub(crate) fn remove(&mut self, address: IpAddr) {
        let Some(of_address) = self.by_address.get_mut(&address) else { return };
        *of_address -= 1;
        if *of_address == 0 {
            self.by_address.remove(&address);
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

    #[test]
    fn one_address_cannot_take_every_place() {
        let limits = Limits { guests_max: 3, guests_per_address_max: 2, ..Limits::default() };
        let (greedy, other) = (Ipv4Addr::new(127, 0, 0, 1).into(), Ipv4Addr::LOCALHOST.into());
        let other = if greedy == other { Ipv4Addr::new(127, 0, 0, 2).into() } else { other };
        let mut strangers = Strangers::default();
        assert!(strangers.admit(greedy, false, &limits));
        assert!(strangers.admit(greedy, false, &limits));
        assert!(!strangers.admit(greedy, false, &limits));
        assert!(strangers.admit(other, false, &limits));
        assert!(!strangers.admit(other, false, &limits), "all places are taken");
        strangers.remove(greedy);
        assert!(strangers.admit(other, false, &limits));
        assert_eq!(strangers.count(), 3);
    }

    #[test]
    fn a_trusted_proxy_stands_for_many() {
        let limits = Limits { guests_per_address_max: 1, ..Limits::default() };
        let proxy = Ipv4Addr::LOCALHOST.into();
        let mut strangers = Strangers::default();
        assert!(strangers.admit(proxy, true, &limits));
        assert!(strangers.admit(proxy, true, &limits));
    }
}
