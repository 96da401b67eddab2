//! The namespaces of a lab and what connects them; everything but pods.

use std::net::IpAddr;

use crate::netns::{self, Batch};
use crate::paths::Paths;
use crate::{Error, Families, Network, Plan, cgroup, control, wire};

/// Set before a device exists, so that `default` covers it. Without duplicate address detection an IPv6 address is of use
/// at once.
const SYSCTLS: [(&str, &str); 7] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];

/// Of what routes: the fabric and the nodes. A node sends what it has from one client back out of the same device, and
/// would otherwise tell the client of a shorter way.
const ROUTER_SYSCTLS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
];

pub(crate) fn prepare(netns: &str, router: bool) -> Result<(), Error> {
    netns::within(netns, || {
        netns::sysctls(&SYSCTLS)?;
        if router { netns::sysctls(&ROUTER_SYSCTLS) } else { Ok(()) }
    })
}

pub(crate) fn nodad(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "" } else { "nodad" }
}

/// `native`: the nodes' NICs will have XDP programs of the native mode.
pub(crate) fn build(paths: &Paths, plan: &Plan, native: bool) -> Result<(), Error> {
    let nodes = plan.node_names();
    let members: Vec<&str> = nodes.iter().map(String::as_str).chain(["client", "ctl"]).collect();
    let mut all = Batch::default();
    for part in members.iter().copied().chain(["fabric"]) {
        all.add(format!("netns add {}", paths.netns(part)));
    }
    all.run(None)?;
    for part in members.iter().copied().chain(["fabric"]) {
        prepare(&paths.netns(part), part == "fabric" || part.starts_with("node-"))?;
    }

    let fabric = paths.netns("fabric");
    let mut batch = Batch::default();
    batch.add("link set lo up").add("link add br0 type bridge forward_delay 0 mcast_snooping 0");
    for &family in plan.families() {
        let ip = Plan::fabric_ip(family);
        batch.add(format!("addr add {ip}/{} dev br0 {}", Plan::underlay_prefix(family), nodad(ip)));
    }
    batch.add("link set br0 up");
    for part in &members {
        batch.add(format!("link add {part} type veth peer name eth0 netns {}", paths.netns(part)));
        batch.add(format!("link set {part} master br0 up"));
    }
    batch.run(Some(&fabric))?;
    netns::within(&fabric, || members.iter().try_for_each(|part| wire::gro_on(part)))?;
    if native {
        control::mount_bpf()?;
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        wire::attach_pass(&fabric, &nodes, &paths.pins())?;
        for part in &members {
            netns::within(&paths.netns(part), || wire::checksums_by_stack("eth0"))?;
        }
        // Here too: what GRO has joined on its way in is parted again on its way out, and its checksums are due again.
        netns::within(&fabric, || members.iter().try_for_each(|part| wire::checksums_by_stack(part)))?;
    }

    for n in plan.node_numbers() {
        node(paths, plan, n)?;
        cgroup::create(&cgroup::of_node(paths, &Plan::node_name(n))?)?;
    }
    let mut client = member(plan, Plan::client_ip);
    let mut ctl = member(plan, Plan::controller_ip);
    for &family in plan.families() {
        for n in plan.node_numbers() {
            let (range, via) = (Plan::pod_cidr(n, family), Plan::node_ip(n, family));
            let route = format!("route add {range} via {via}");
            client.add(&route);
            ctl.add(&route);
        }
        let first = Plan::node_ip(1, family);
        client.add(format!("route add {} via {first}", Plan::service_cidr(family)));
    }
    client.run(Some(&paths.netns("client")))?;
    ctl.run(Some(&paths.netns("ctl")))
}

/// A namespace with a NIC on the fabric.
fn member(plan: &Plan, ip: impl Fn(Families) -> IpAddr) -> Batch {
    let mut batch = Batch::default();
    batch.add("link set lo up");
    for &family in plan.families() {
        let ip = ip(family);
        batch.add(format!("addr add {ip}/{} dev eth0 {}", Plan::underlay_prefix(family), nodad(ip)));
    }
    batch.add("link set eth0 up");
    for &family in plan.families() {
        batch.add(format!("route add default via {}", Plan::fabric_ip(family)));
    }
    batch
}

fn node(paths: &Paths, plan: &Plan, n: u16) -> Result<(), Error> {
    let netns = paths.netns(&Plan::node_name(n));
    let mut batch = member(plan, |family| Plan::node_ip(n, family));
    if plan.network != Network::Ptp {
        let mac = Plan::bridge_mac(n);
        let mtu = plan.pod_mtu();
        batch.add(format!(
            "link add cni0 address {mac} mtu {mtu} type bridge forward_delay 0 mcast_snooping 0"
        ));
        for &family in plan.families() {
            let ip = Plan::pod_ip(n, 1, family);
            batch.add(format!("addr add {ip}/{} dev cni0 {}", Plan::pod_prefix(family), nodad(ip)));
        }
        batch.add("link set cni0 up");
    }
    let others = || plan.node_numbers().filter(move |&m| m != n);
    if plan.network != Network::Vxlan {
        for (&family, m) in plan.families().iter().flat_map(|f| others().map(move |m| (f, m))) {
            let via = Plan::node_ip(m, family);
            batch.add(format!("route add {} via {via}", Plan::pod_cidr(m, family)));
        }
        return batch.run(Some(&netns));
    }

    // As flannel wires it: the other nodes' ranges behind their VXLAN devices, whose addresses everyone knows.
    let dev = Plan::VXLAN;
    let outer = plan.families()[0];
    let mut fdb = Batch::default();
    batch.add(format!(
        "link add {dev} address {} mtu {} type vxlan id 1 dev eth0 local {} dstport 8472 nolearning",
        Plan::vxlan_mac(n),
        plan.pod_mtu(),
        Plan::node_ip(n, outer)
    ));
    for &family in plan.families() {
        let ip = Plan::pod_network(n, family);
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        batch.add(format!("addr add {ip}/{bits} dev {dev} {}", nodad(ip)));
    }
    batch.add(format!("link set {dev} up"));
    for m in others() {
        let mac = Plan::vxlan_mac(m);
        fdb.add(format!("fdb append {mac} dev {dev} dst {}", Plan::node_ip(m, outer)));
        for &family in plan.families() {
            let via = Plan::pod_network(m, family);
            batch.add(format!("neigh replace {via} lladdr {mac} dev {dev} nud permanent"));
            let range = Plan::pod_cidr(m, family);
            batch.add(format!("route add {range} via {via} dev {dev} onlink"));
        }
    }
    batch.run(Some(&netns))?;
    fdb.run_bridge(&netns)
}
