use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Error, Family, Network, Options};

/// The two address families, in the order in which a dual-stack cluster lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Families {
    V4,
    V6,
}

impl Families {
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Addresses and ranges of a lab: a pure function of its options. Every lab has the same, each in namespaces of its own.
///
/// The last part of an address is written with the same digits in both families: pod 17 of node 2 is 10.244.2.17 and
/// fd00:10:244:2::17.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: u16,
    pub network: Network,
    family: Family,
}

impl Plan {
    /// With two decimal digits, node 99 is still inside fd00:10:244::/56.
    pub const MAX_NODES: u16 = 99;
    /// Of pod addresses of a node: .1 is the gateway.
    pub const POD_HOSTS: std::ops::RangeInclusive<u16> = 2..=254;
    pub const ZONE: &str = "cluster.local";
    /// Where the pods' default route leads on a point-to-point network.
    pub const PTP_GATEWAY: [&str; 2] = ["169.254.1.1", "fe80::1"];
    pub const VXLAN: &str = "vxlan1";

    pub fn new(options: &Options) -> Result<Self, Error> {
        if !(1..=Self::MAX_NODES).contains(&options.nodes) {
            return Err(Error::Nodes { nodes: options.nodes, max: Self::MAX_NODES });
        }
        Ok(Self { nodes: options.nodes, network: options.network, family: options.family })
    }

    pub fn families(&self) -> &'static [Families] {
        match self.family {
            Family::Dual => &[Families::V4, Families::V6],
            Family::Ipv4 => &[Families::V4],
            Family::Ipv6 => &[Families::V6],
        }
    }

    /// The numbers of the nodes, from 1.
    pub fn node_numbers(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.nodes
    }

    pub fn node_name(n: u16) -> String {
        format!("node-{n}")
    }

    pub fn node_names(&self) -> Vec<String> {
        self.node_numbers().map(Self::node_name).collect()
    }

    /// The number in `node-N`, if the lab has that node.
    pub fn node_number(&self, name: &str) -> Option<u16> {
        self.node_numbers().find(|&n| Self::node_name(n) == name)
    }

    fn underlay(host: u16, family: Families) -> IpAddr {
        match family {
            Families::V4 => IpAddr::V4(Ipv4Addr::new(172, 31, 0, host as u8)),
            Families::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, same_digits(host))),
        }
    }

    /// Of the node's NIC.
    pub fn node_ip(n: u16, family: Families) -> IpAddr {
        Self::underlay(n, family)
    }
    pub fn client_ip(family: Families) -> IpAddr {
        Self::underlay(250, family)
    }
    pub fn controller_ip(family: Families) -> IpAddr {
        Self::underlay(251, family)
    }
    /// Gateway and upstream resolver of the nodes: nothing listens there until someone starts it.
    pub fn fabric_ip(family: Families) -> IpAddr {
        Self::underlay(254, family)
    }
    pub fn underlay_prefix(family: Families) -> u8 {
        match family {
            Families::V4 => 24,
            Families::V6 => 64,
        }
    }

    pub fn pod_cidr(n: u16, family: Families) -> String {
        match family {
            Families::V4 => format!("10.244.{n}.0/24"),
            Families::V6 => format!("fd00:10:244:{n}::/64"),
        }
    }
    /// Of all nodes' pods.
    pub fn pods_cidr(family: Families) -> &'static str {
        match family {
            Families::V4 => "10.244.0.0/16",
            Families::V6 => "fd00:10:244::/56",
        }
    }
    /// The address of the range itself; VXLAN's next hop, as flannel has it.
    pub fn pod_network(n: u16, family: Families) -> IpAddr {
        Self::pod_ip(n, 0, family)
    }
    pub fn pod_prefix(family: Families) -> u8 {
        match family {
            Families::V4 => 24,
            Families::V6 => 64,
        }
    }
    /// Pod `host` of node `n`; host 1 is the bridge itself.
    pub fn pod_ip(n: u16, host: u16, family: Families) -> IpAddr {
        match family {
            Families::V4 => IpAddr::V4(Ipv4Addr::new(10, 244, n as u8, host as u8)),
            Families::V6 => {
                IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, same_digits(n), 0, 0, 0, same_digits(host)))
            }
        }
    }
    pub fn service_cidr(family: Families) -> &'static str {
        match family {
            Families::V4 => "10.96.0.0/16",
            Families::V6 => "fd00:10:96::/112",
        }
    }
    pub fn dns_ip(family: Families) -> &'static str {
        match family {
            Families::V4 => "10.96.0.10",
            Families::V6 => "fd00:10:96::a",
        }
    }

    /// Of the pods' interfaces, bytes: VXLAN takes its headers from the 1500 of the NIC.
    pub fn pod_mtu(&self) -> u16 {
        match self.network {
            Network::Ptp | Network::Bridge => 1500,
            Network::Vxlan if self.families() == [Families::V6] => 1430,
            Network::Vxlan => 1450,
        }
    }

    /// What to say for one of each family, joined for a flag.
    pub fn each<T: std::fmt::Display>(&self, of: impl Fn(Families) -> T) -> String {
        self.families().iter().map(|&f| of(f).to_string()).collect::<Vec<_>>().join(",")
    }

    /// MAC address of the VXLAN device of a node, which the others must know.
    pub fn vxlan_mac(n: u16) -> String {
        format!("02:e0:00:00:00:{n:02x}")
    }
    /// A bridge without an address of its own takes its lowest port's, and changes it when pods come and go.
    pub fn bridge_mac(n: u16) -> String {
        format!("02:e0:00:00:01:{n:02x}")
    }
}

/// The number whose hexadecimal digits are the decimal digits of `n`: 17 → 0x17.
fn same_digits(n: u16) -> u16 {
    (n / 1000 % 10) << 12 | (n / 100 % 10) << 8 | (n / 10 % 10) << 4 | (n % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (ip, text) in [
            (Plan::node_ip(1, Families::V4), "172.31.0.1"),
            (Plan::node_ip(12, Families::V6), "fd00:172:31::12"),
            (Plan::client_ip(Families::V6), "fd00:172:31::250"),
            (Plan::pod_ip(2, 17, Families::V4), "10.244.2.17"),
            (Plan::pod_ip(99, 254, Families::V6), "fd00:10:244:99::254"),
            (Plan::pod_network(3, Families::V6), "fd00:10:244:3::"),
        ] {
            assert_eq!(ip.to_string(), text);
        }
    }

    #[test]
    fn node_numbers_are_bounded() {
        for (nodes, good) in [(0, false), (1, true), (99, true), (100, false)] {
            assert_eq!(Plan::new(&Options { nodes, ..Options::default() }).is_ok(), good, "{nodes}");
        }
    }

    #[test]
    fn flags_list_each_family_once() {
        let plan = |family| Plan::new(&Options { family, ..Options::default() }).unwrap();
        assert_eq!(plan(Family::Dual).each(Plan::dns_ip), "10.96.0.10,fd00:10:96::a");
        assert_eq!(plan(Family::Ipv6).each(Plan::service_cidr), "fd00:10:96::/112");
    }
}
