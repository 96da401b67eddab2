//! ClusterIPs and NodePorts: which are taken, and choosing a free one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use eastwest_model::{IpFamily, Protocol};
use ipnet::IpNet;
use rand::Rng;

use crate::derived::Name;

/// NodePorts are of this range (kube-apiserver `--service-node-port-range`).
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Random picks before a search from end to end.
const TRIES: usize = 64;

/// One range that ClusterIPs come from.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub net: IpNet,
}

impl Range {
    pub fn family(&self) -> IpFamily {
        IpFamily::of(self.net.addr())
    }

    /// Usable offsets from the network address are 1 to this; the last address of an IPv4 range is its broadcast
    /// address. Larger IPv6 ranges than /80 are used up to 2^48.
    fn last(&self) -> u64 {
        let bits = (self.net.max_prefix_len() - self.net.prefix_len()).min(48);
        let size = 1u64 << bits;
        size.saturating_sub(if self.net.addr().is_ipv4() { 2 } else { 1 })
    }

    fn at(&self, offset: u64) -> IpAddr {
        match self.net.network() {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add(offset as u32)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add(offset.into())).into(),
        }
    }

    /// Offsets below this are left to Services that ask for an address (KEP-3070): `min(max(16, size/16), 256)`.
    fn static_band(&self) -> u64 {
        let size = self.last() + 1;
        if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
    }

    /// Whether a Service may have this address.
    pub fn usable(&self, ip: IpAddr) -> bool {
        self.net.contains(&ip) && ip != self.net.network() && (ip.is_ipv6() || ip != self.net.broadcast())
    }

    /// A free address: by chance from the upper band, from the lower one when that is full; `None` when all are taken.
    pub fn pick(&self, taken: &HashMap<IpAddr, Name>, rng: &mut impl Rng) -> Option<IpAddr> {
        let (band, last) = (self.static_band().max(1), self.last());
        let free = |offset: &u64| !taken.contains_key(&self.at(*offset));
        for (low, high) in [(band, last), (1, band.saturating_sub(1))] {
            if low > high {
                continue;
            }
            let chance = (0..TRIES).map(|_| rng.random_range(low..=high)).find(|o| free(o));
            // There are never more than `taken.len()` taken in a row.
            let start = rng.random_range(low..=high);
            let found =
                chance.or_else(|| (start..=high).chain(low..start).take(taken.len() + 1).find(|o| free(o)));
            if let Some(offset) = found {
                return Some(self.at(offset));
            }
        }
        None
    }
}

/// Ports taken on every node: (port, protocol) → Service.
pub type NodePorts = HashMap<(u16, Protocol), Name>;

/// A free NodePort: by chance above the static band (KEP-3668: 86 ports of the default range), then below it.
pub fn pick_node_port(
    taken: &NodePorts,
    protocol: Protocol,
    also: &[u16],
    rng: &mut impl Rng,
) -> Option<u16> {
    let (first, last) = (*NODE_PORTS.start(), *NODE_PORTS.end());
    let size = last - first + 1;
    let band = first + (size / 32).clamp(16, 128);
    let free = |p: &u16| !also.contains(p) && !taken.contains_key(&(*p, protocol));
    for (low, high) in [(band, last), (first, band - 1)] {
        let chance = (0..TRIES).map(|_| rng.random_range(low..=high)).find(|p| free(p));
        let found = chance.or_else(|| (low..=high).find(|p| free(p)));
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Name {
        ("ns".into(), "svc".into())
    }

    #[test]
    fn a_small_range_is_used_up_and_no_further() {
        for (net, usable) in
            [("10.0.0.0/30", 2), ("10.0.0.0/28", 14), ("fd00::/124", 15), ("10.0.0.0/24", 254)]
        {
            let range = Range { net: net.parse().unwrap() };
            let mut taken = HashMap::new();
            let mut rng = rand::rng();
            while let Some(ip) = range.pick(&taken, &mut rng) {
                assert!(range.usable(ip), "{ip} of {net}");
                assert!(taken.insert(ip, owner()).is_none());
            }
            assert_eq!(taken.len(), usable, "{net}");
        }
    }

    #[test]
    fn the_static_band_is_left_alone_while_there_is_room() {
        let range = Range { net: "10.96.0.0/16".parse().unwrap() };
        let (taken, mut rng) = (HashMap::new(), rand::rng());
        for _ in 0..1000 {
            let IpAddr::V4(ip) = range.pick(&taken, &mut rng).unwrap() else { panic!("family") };
            assert!(ip >= Ipv4Addr::new(10, 96, 1, 0), "{ip}");
        }
    }

    #[test]
    fn wide_ipv6_ranges_work() {
        for net in ["fd00::/8", "fd00::/64", "::/0", "fd00::1/128"] {
            let range = Range { net: net.parse().unwrap() };
            let ip = range.pick(&HashMap::new(), &mut rand::rng());
            assert_eq!(ip.is_some(), !net.ends_with("128"), "{net}");
        }
        let range = Range { net: "10.0.0.1/32".parse().unwrap() };
        assert_eq!(range.pick(&HashMap::new(), &mut rand::rng()), None);
    }

    #[test]
    fn node_ports_run_out_cleanly() {
        let (mut taken, mut rng) = (NodePorts::new(), rand::rng());
        while let Some(port) = pick_node_port(&taken, Protocol::TCP, &[], &mut rng) {
            assert!(NODE_PORTS.contains(&port));
            assert!(taken.insert((port, Protocol::TCP), owner()).is_none());
        }
        assert_eq!(taken.len(), 2768);
        assert!(pick_node_port(&taken, Protocol::UDP, &[], &mut rng).is_some());
    }
}
