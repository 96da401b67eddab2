//! What this machine says about itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::Context as _;
use eastwest_model::{Node, NodeAddress};
use ipnet::IpNet;

use crate::settings::NodePortAddress;

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
}

impl Identity {
    /// From the settings, and from the machine what they leave open.
    pub fn find(name: &str, addresses: &[IpAddr], pod_cidrs: &[IpNet]) -> anyhow::Result<Self> {
        let name = if name.is_empty() {
            let host = nix::unistd::gethostname().context("host name")?;
            host.to_string_lossy().to_lowercase()
        } else {
            name.to_owned()
        };
        let mut wrong = Vec::new();
        eastwest_model::validate::dns_subdomain(&mut wrong, "nodeName", &name);
        if let Some(e) = wrong.first() {
            anyhow::bail!("{e}; set it with --node-name");
        }
        let addresses = if addresses.is_empty() { default_addresses() } else { addresses.to_vec() };
        Ok(Self { name, addresses, pod_cidrs: pod_cidrs.to_vec() })
    }

    /// `node` with what we know of ourselves; what others wrote stays.
    pub fn update(&self, node: Node) -> Node {
        let mut node = node;
        node.api_version = "v1".into();
        node.kind = "Node".into();
        node.metadata.name.clone_from(&self.name);
        node.spec.pod_cidrs.clone_from(&self.pod_cidrs);
        node.spec.pod_cidr = self.pod_cidrs.first().map(ToString::to_string).unwrap_or_default();
        let ours = |a: &NodeAddress| a.type_ == "InternalIP" || a.type_ == "Hostname";
        node.status.addresses.retain(|a| !ours(a));
        let internal = self.addresses.iter().map(|ip| ("InternalIP", ip.to_string()));
        let all = internal.chain([("Hostname", self.name.clone())]);
        node.status
            .addresses
            .splice(0..0, all.map(|(type_, address)| NodeAddress { type_: type_.to_owned(), address }));
        node
    }
}

/// The first address of each family on devices with a default route; on any device, if none has one.
fn default_addresses() -> Vec<IpAddr> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let devices = default_devices(&read("/proc/net/route"), &read("/proc/net/ipv6_route"));
    let all: Vec<(String, IpAddr)> = nix::ifaddrs::getifaddrs()
        .map(|all| all.filter_map(|a| Some((a.interface_name, address(a.address?)?))).collect())
        .unwrap_or_default();
    choose(&all, &devices)
}

/// Addresses that serve NodePorts, of all that this machine has.
pub fn node_port_addresses(wanted: &[NodePortAddress], primary: &[IpAddr], all: &[IpAddr]) -> Vec<IpAddr> {
    let serves = |ip: &IpAddr| {
        // A link-local address is not one without its device.
        let whole = !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        whole && wanted.iter().any(|one| matches!(one, NodePortAddress::Range(range) if range.contains(ip)))
    };
    let primary = primary.iter().filter(|_| wanted.contains(&NodePortAddress::Primary));
    let found: BTreeSet<IpAddr> = primary.chain(all.iter().filter(|ip| serves(ip))).copied().collect();
    found.into_iter().collect()
}

/// Every address of this machine.
pub fn all_addresses() -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs();
    all.map(|all| all.filter_map(|a| address(a.address?)).collect()).unwrap_or_default()
}

fn address(storage: nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

fn choose(all: &[(String, IpAddr)], devices: &BTreeSet<String>) -> Vec<IpAddr> {
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && *ip != Ipv6Addr::UNSPECIFIED,
    };
    let on = |device: &String| devices.is_empty() || devices.contains(device);
    let found: Vec<IpAddr> =
        all.iter().filter(|(device, ip)| on(device) && usable(ip)).map(|(_, ip)| *ip).collect();
    let first = |v4: bool| found.iter().find(|ip| ip.is_ipv4() == v4).copied();
    first(true).into_iter().chain(first(false)).collect()
}

/// Devices with a default route, of `/proc/net/route` and `/proc/net/ipv6_route`.
fn default_devices(v4: &str, v6: &str) -> BTreeSet<String> {
    let mut devices = BTreeSet::new();
    for line in v4.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Iface Destination Gateway Flags RefCnt Use Metric Mask …
        if let [device, "00000000", _, _, _, _, _, "00000000", ..] = fields[..] {
            devices.insert(device.to_owned());
        }
    }
    for line in v6.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Destination, its prefix length, source, its prefix length, next hop, metric, reference count, use, flags, device.
        if let [destination, "00", _, _, _, _, _, _, flags, device] = fields[..] {
            let rejects = u32::from_str_radix(flags, 16).is_ok_and(|f| f & 0x0200 != 0);
            if destination.bytes().all(|b| b == b'0') && !rejects && device != "lo" {
                devices.insert(device.to_owned());
            }
        }
    }
    devices
}

/// Where a container finds the hierarchy of its node: what is mounted elsewhere is its own.
const HOST: &str = "/host/";

/// Where the cgroup2 hierarchy is mounted.
pub fn cgroup2_mount() -> Option<PathBuf> {
    find_cgroup2(&std::fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn find_cgroup2(mounts: &str) -> Option<PathBuf> {
    let found = mounts.lines().filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, path, "cgroup2", ..] => Some(PathBuf::from(path.replace("\\040", " "))),
        _ => None,
    });
    found.min_by_key(|path| !path.starts_with(HOST))
}

/// The machine's memory, bytes; 0 when it cannot be read.
pub fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib: u64 = total.and_then(|t| t.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    kib * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_the_default_route_gives_the_addresses() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let zeros = "0".repeat(32);
        let line = |flags: &str, device: &str| {
            format!("{zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 {flags} {device}\n")
        };
        let v6 = line("00000003", "eth2") + &line("00200200", "lo") + &line("00200200", "eth3");
        let devices = default_devices(v4, &v6);
        assert_eq!(devices.iter().collect::<Vec<_>>(), ["eth0", "eth2"]);
        let all = [
            ("lo", "127.0.0.1"),
            ("eth1", "10.1.0.1"),
            ("eth0", "169.254.3.4"),
            ("eth0", "10.0.0.1"),
            ("eth0", "10.0.0.2"),
            ("eth2", "fe80::1"),
            ("eth2", "2001:db8::1"),
        ];
        let all: Vec<_> = all.iter().map(|(d, ip)| ((*d).to_owned(), ip.parse().unwrap())).collect();
        let ips: Vec<String> = choose(&all, &devices).iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.0.0.1", "2001:db8::1"]);
        assert_eq!(choose(&all, &BTreeSet::new())[0].to_string(), "10.1.0.1");
    }

    #[test]
    fn which_addresses_serve_node_ports() {
        let ips = |text: &str| text.split_whitespace().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let all = ips("127.0.0.1 10.0.0.1 192.0.2.1 ::1 fe80::1 2001:db8::1");
        let primary = ips("10.0.0.1 2001:db8::1");
        for (setting, served) in [
            ("primary", "10.0.0.1 2001:db8::1"),
            ("192.0.2.0/24", "192.0.2.1"),
            ("primary,127.0.0.0/8", "10.0.0.1 127.0.0.1 2001:db8::1"),
            ("0.0.0.0/0", "10.0.0.1 127.0.0.1 192.0.2.1"),
            ("::/0", "::1 2001:db8::1"),
            ("", ""),
        ] {
            let wanted: Vec<NodePortAddress> = eastwest_settings::Setting::parse(setting).unwrap();
            let mut served = ips(served);
            served.sort();
            assert_eq!(node_port_addresses(&wanted, &primary, &all), served, "{setting}");
        }
    }

    #[test]
    fn cgroup2_wherever_it_is_mounted() {
        let mounts =
            "cgroup /sys/fs/cgroup/memory cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_cgroup2(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_cgroup2("proc /proc proc rw 0 0\n"), None);
        // In a container, whose own is but a part.
        let mounts = "cgroup /sys/fs/cgroup cgroup2 rw 0 0\ncgroup2 /host/cgroup cgroup2 rw 0 0\n";
        assert_eq!(find_cgroup2(mounts), Some("/host/cgroup".into()));
    }

    #[test]
    fn a_node_keeps_what_others_wrote() {
        let identity = Identity {
            name: "n1".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        };
        let mut node = Node::default();
        node.metadata.labels.insert("a".into(), "b".into());
        let address = |t: &str, a: &str| NodeAddress { type_: t.into(), address: a.into() };
        node.status.addresses = vec![address("InternalIP", "10.0.0.9"), address("ExternalIP", "192.0.2.1")];
        let node = identity.update(node);
        assert_eq!(node, identity.update(node.clone()), "idempotent");
        assert_eq!(node.metadata.labels.len(), 1);
        assert_eq!(node.internal_ips().map(|ip| ip.to_string()).collect::<Vec<_>>(), ["10.0.0.1"]);
        assert!(node.status.addresses.contains(&address("ExternalIP", "192.0.2.1")));
        assert_eq!(node.spec.pod_cidr, "10.244.1.0/24");
    }
}
