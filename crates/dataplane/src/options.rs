use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;

/// Sizes of the maps, in entries. A pinned map keeps the size it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Frontends of each family, with one more entry for each virtual address. As many source ranges too.
    pub frontends: u32,
    /// Backends; also endpoints of each family.
    pub backends: u32,
    /// Slots: the sum over Service ports of their backends, with room for changes.
    pub slots: u32,
    /// Tracked connections, two entries each, IPv4.
    pub connections4: u32,
    /// As `connections4`, IPv6.
    pub connections6: u32,
    /// Sockets of host processes.
    pub sockets: u32,
    /// Clients of Service ports with ClientIP affinity, of each family: who was longest away is forgotten first.
    pub affinities: u32,
    /// Answers to questions for names, 256 bytes each as they are used.
    pub answers: u32,
    /// Packets in fragments whose first one was seen, of each family.
    pub fragments: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            frontends: 131_072,
            backends: 262_144,
            slots: 1_048_576,
            connections4: 262_144,
            connections6: 131_072,
            sockets: 65_536,
            affinities: 65_536,
            answers: 65_536,
            fragments: 8192,
        }
    }
}

impl Capacities {
    /// The defaults, with the connection tables fit to the machine: at most 1/64 of its memory for each, and at least
    /// 16,384 entries.
    pub fn for_memory(bytes: u64) -> Self {
        /// Key, value and the LRU's own fields, rounded up.
        const ENTRY: u64 = 160;
        let fit = |most: u32| u32::try_from(bytes / 64 / ENTRY).unwrap_or(u32::MAX).clamp(16_384, most);
        let all = Self::default();
        Self { connections4: fit(all.connections4), connections6: fit(all.connections6), ..all }
    }
}

/// How to open the dataplane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where pins live; `v<ABI>` is appended. On bpffs, or a place where one may be mounted.
    pub pin_dir: PathBuf,
    /// Mount a bpffs at `pin_dir` when it is not on one.
    pub mount_bpffs: bool,
    /// cgroup2 folder whose processes get their sockets translated; `None`: no socket hooks.
    pub cgroup_root: Option<PathBuf>,
    pub capacities: Capacities,
    /// Addresses of this node, source of masqueraded packets; the first of each family counts.
    pub node_addresses: Vec<IpAddr>,
    /// Stands for a pod that is the backend of its own call.
    pub hairpin4: Ipv4Addr,
    /// As `hairpin4`. Not link-local: a pod answers it by its default route.
    pub hairpin6: Ipv6Addr,
    /// Source ports of masqueraded packets: below the ephemeral range and the NodePorts.
    pub masquerade_ports: (u16, u16),
    /// Backends of virtual addresses see the node in place of every client.
    pub masquerade_all: bool,
    /// Addresses that get no frontends, as the node answers them itself (DNS).
    pub skip_addresses: Vec<IpAddr>,
    /// Ranges of virtual addresses: ports there that no Service has are refused, and addresses that none has are
    /// dropped. Of each family the first [`RANGES`](eastwest_abi::RANGES) count. Empty: every virtual address refuses.
    pub address_ranges: Vec<IpNet>,
    /// Clients inside the cluster although they come by a NIC: pods of other nodes.
    pub cluster_ranges: Vec<IpNet>,
    /// Forward at the NIC by XDP redirect instead of passing to the stack.
    pub nic_redirect: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pin_dir: PathBuf::from("/sys/fs/bpf/eastwest"),
            mount_bpffs: true,
            cgroup_root: None,
            capacities: Capacities::default(),
            node_addresses: Vec::new(),
            hairpin4: Ipv4Addr::new(169, 254, 20, 11),
            hairpin6: Ipv6Addr::new(0xfd00, 0xea57, 0xe57, 0, 0, 0, 0, 1),
            masquerade_ports: (20_000, 29_999),
            masquerade_all: false,
            skip_addresses: Vec::new(),
            address_ranges: Vec::new(),
            cluster_ranges: Vec::new(),
            nic_redirect: true,
        }
    }
}
