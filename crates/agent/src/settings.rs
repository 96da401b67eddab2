//! The agent's settings; what they mean together is worked out in `node` and `run`.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use eastwest_settings::{Setting, choice, settings};
use ipnet::IpNet;

use crate::logging::Format;

choice! {
    /// Where packets of pods are translated.
    pub enum PodHook {
        /// tc, ingress and egress of the host side of the pod's veth.
        Tc = "tc",
        /// Generic XDP on ingress, tc on egress.
        Xdp = "xdp",
    }
}

choice! {
    /// How packets that come in by the NIC are translated.
    pub enum Nic {
        /// Native XDP, else generic.
        Auto = "auto",
        XdpNative = "xdp-native",
        XdpGeneric = "xdp-generic",
        Tc = "tc",
    }
}

choice! {
    /// How the controller is found.
    pub enum Discovery {
        /// By the kubeconfig file.
        Kubeconfig = "kubeconfig",
        /// By asking the Kubernetes API server for the endpoints of its Service.
        Kubernetes = "kubernetes",
    }
}

/// Which addresses of the node serve NodePorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortAddress {
    /// Those by which other nodes reach it.
    Primary,
    /// All in a range.
    Range(IpNet),
}

impl Setting for NodePortAddress {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "primary" { Ok(Self::Primary) } else { IpNet::parse(text).map(Self::Range) }
    }

    fn show(&self) -> String {
        match self {
            Self::Primary => "primary".to_owned(),
            Self::Range(range) => range.show(),
        }
    }

    fn accepted() -> Cow<'static, str> {
        "primary or a range such as 10.0.0.0/8".into()
    }
}

/// Size of a kernel map: at least `LEAST` entries and at most 2^26; with `SIZED` 0 too, for a size by the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<const LEAST: u32, const SIZED: bool = false>(pub u32);

/// Of any map.
const MOST_ENTRIES: u32 = 1 << 26;

impl<const LEAST: u32, const SIZED: bool> Setting for Entries<LEAST, SIZED> {
    fn parse(text: &str) -> Result<Self, String> {
        let entries = u32::parse(text)?;
        let fits = (LEAST..=MOST_ENTRIES).contains(&entries) || SIZED && entries == 0;
        if fits { Ok(Self(entries)) } else { Err(String::new()) }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }

    fn accepted() -> Cow<'static, str> {
        let or_sized = if SIZED { ", or 0" } else { "" };
        format!("a number from {LEAST} to {MOST_ENTRIES}{or_sized}").into()
    }
}

fn any(port: u16) -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, port).into()
}

/// Ranges, as constants of the defaults.
fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|t| t.parse().ok()).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().filter_map(|t| t.parse().ok()).collect()
}

fn words(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}

settings! {
    /// Settings of `eastwest-agent`.
    pub struct Settings {
        /// Name of this node; empty: the host name.
        node_name: String = String::new(),
        /// Kubeconfig of the controller to follow.
        kubeconfig: PathBuf = PathBuf::from("/etc/eastwest/agent.kubeconfig"),
        /// How the controller is found: by that file, or by asking the Kubernetes API server.
        controller_discovery: Discovery = Discovery::Kubeconfig,
        /// Kubeconfig of the Kubernetes API server; empty: the pod's service account.
        kubernetes_kubeconfig: Option<PathBuf> = None,
        /// URL of the Kubernetes API server, https://HOST:PORT; empty: as the kubeconfig or the pod's environment says.
        kubernetes_api_server: String = String::new(),
        /// In Kubernetes: the token that is shown to the controller, of audience eastwest.
        controller_token: PathBuf = PathBuf::from("/var/run/secrets/eastwest/token"),
        /// Addresses by which other nodes reach this one; empty: those of the device with the default route.
        node_ip: Vec<IpAddr> = Vec::new(),
        /// Address ranges of this node's pods, told to the controller.
        pod_cidr: Vec<IpNet> = Vec::new(),
        /// Ranges of virtual addresses, as the controller has them; empty: as Kubernetes says.
        service_cidr: Vec<IpNet> = nets(&["10.96.0.0/16", "fd00:10:96::/112"]),
        /// Addresses of this node that serve NodePorts: primary for those by which other nodes reach it, and ranges for all
        /// others in them (127.0.0.0/8: for processes on the node).
        nodeport_addresses: Vec<NodePortAddress> = vec![NodePortAddress::Primary],
        /// Ranges of all nodes' pods, who are inside the cluster also where they come by a NIC.
        cluster_cidr: Vec<IpNet> = Vec::new(),
        /// Whoever asks a ClusterIP, backends see the node in its place; for networks that lead answers past it otherwise.
        masquerade_all: bool = false,
        /// Addresses of the cluster's DNS, answered on this node; empty: those of the Service kube-dns in Kubernetes.
        cluster_dns: Vec<IpAddr> = addresses(&["10.96.0.10", "fd00:10:96::a"]),
        /// Address of this node's DNS, the same on every node; empty: none.
        node_local_dns: Option<IpAddr> = Some(Ipv4Addr::new(169, 254, 20, 10).into()),
        /// Zone of cluster names.
        zone: String = "cluster.local".to_owned(),
        /// resolv.conf of the servers that answer all other names.
        upstream_resolv_conf: PathBuf = PathBuf::from("/etc/resolv.conf"),
        /// CoreDNS' configuration file to follow; empty: as kubeadm's.
        corefile: Option<PathBuf> = None,
        /// Address ranges served by DNS besides this node's pods and the node itself; 0.0.0.0/0 and ::/0 for anybody.
        dns_allow: Vec<IpNet> = Vec::new(),
        /// Walk the search list of a pod for it, by its own namespace: one round trip in place of several.
        dns_autopath: bool = true,
        /// Answer pods' commonest questions, those for addresses of Services, in the kernel.
        dns_in_kernel: bool = true,
        /// Port at this node's addresses where pods of other nodes are answered while their own agent is down; 0: none.
        dns_peer_port: u16 = 10_253,
        /// Bytes for the answers of upstreams that are kept.
        dns_cache_size: u64 = 32 << 20,
        /// Of the queries that the Corefile's `log` is for, each how-many-th is logged.
        dns_log_sample: u32 = 1,
        /// Certificate chain for DNS over TLS, on port 853; empty: none is served.
        dns_tls_cert: Option<PathBuf> = None,
        /// Its key.
        dns_tls_key: Option<PathBuf> = None,
        /// Folder for the snapshot of what is known.
        data_dir: PathBuf = PathBuf::from("/var/lib/eastwest"),
        /// Folder for pinned maps and links, on bpffs; v<ABI> is appended.
        pin_dir: PathBuf = PathBuf::from("/sys/fs/bpf/eastwest"),
        /// cgroup2 folder of the processes whose sockets are translated; empty: where cgroup2 is mounted.
        cgroup_root: Option<PathBuf> = None,
        /// Where packets of pods are translated.
        pod_hook: PodHook = PodHook::Tc,
        /// Names of pods' devices (host side), * for any characters.
        pod_devices: Vec<String> = words(&["veth*", "cali*", "lxc*", "eni*"]),
        /// How packets that come in by the NIC are translated; auto is native XDP, else generic.
        nic: Nic = Nic::Auto,
        /// Names of NICs, * for any characters; empty: devices with a default route or a node address.
        nic_devices: Vec<String> = Vec::new(),
        /// kube-proxy's health: /healthz, /livez.
        healthz_listen: SocketAddr = any(10256),
        /// Metrics of the node's Services.
        metrics_listen: SocketAddr = any(10249),
        /// Metrics of DNS, as CoreDNS has them.
        dns_metrics_listen: SocketAddr = any(9153),
        /// Whether DNS is ready, as CoreDNS tells it.
        dns_ready_listen: SocketAddr = any(8181),
        /// Whether DNS lives, as CoreDNS tells it.
        dns_health_listen: SocketAddr = any(8080),
        /// Of so many new connections and refusals one is told to the controller; 0: none, unless somebody asks there.
        flow_sampling: u32 = 0,
        /// Entries for frontends of each family.
        capacity_frontends: Entries<256> = Entries(131_072),
        /// Entries for backends.
        capacity_backends: Entries<256> = Entries(262_144),
        /// Entries for slots: backends summed over Service ports, with room for changes.
        capacity_slots: Entries<256> = Entries(1_048_576),
        /// Entries for IPv4 connections, two each; 0: by the machine's memory. A full table forgets who was silent longest.
        capacity_connections4: Entries<1024, true> = Entries(0),
        /// Answers to questions for names in the kernel.
        capacity_dns_answers: u32 = 65_536,
        /// Entries for IPv6 connections, two each; 0: by the machine's memory.
        capacity_connections6: Entries<1024, true> = Entries(0),
        /// Entries for sockets of processes on the node, two each.
        capacity_sockets: Entries<1024> = Entries(65_536),
        /// Entries for clients of Services with ClientIP affinity, of each family.
        capacity_affinities: Entries<1024> = Entries(65_536),
        /// Entries for packets that come in fragments, of each family.
        capacity_fragments: Entries<256> = Entries(8192),
        /// What to log: error, warn, info, debug, trace, or a filter such as eastwest_agent=debug.
        log_level: String = "info".to_owned(),
        /// How to log.
        log_format: Format = Format::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_maps_have_bounds() {
        assert_eq!(Entries::<1024>::parse("1024"), Ok(Entries(1024)));
        assert_eq!(Entries::<1024>::parse("67108864"), Ok(Entries(1 << 26)));
        assert_eq!(Entries::<1024, true>::parse("0"), Ok(Entries(0)));
        for wrong in ["0", "1023", "67108865", "-1", "many"] {
            assert!(Entries::<1024>::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Entries::<1024, true>::accepted(), "a number from 1024 to 67108864, or 0");
    }
}
