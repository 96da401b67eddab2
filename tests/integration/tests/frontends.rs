//! Everything but a ClusterIP that a Service is reached by, on real packets and in both families: node ports, external
//! addresses, load balancers' addresses; for clients outside, pods and processes on nodes; who is refused and who dropped.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::serve::Answer;
use eastwest_lab::{Lab, Network, Nic, Options, PodHook};
use http::Method;
use serde_json::{Value, json};

/// What the outside client routes to node-3, where no pod of `web` is.
const EXTERNAL: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
const BALANCER: [&str; 2] = ["203.0.113.20", "2001:db8:113::20"];
const CLOSED: [&str; 2] = ["203.0.113.30", "2001:db8:113::30"];

/// Three nodes, `web` on node-1 and node-2, a pod that asks on node-3.
struct Cluster {
    lab: Lab,
    /// Of nodes 1 to 3, by family.
    nodes: [Vec<IpAddr>; 3],
    client: Vec<IpAddr>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn spec(ports: Value, more: Value) -> Value {
    let mut spec = json!({"selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack", "ports": ports});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

/// The same number on TCP and UDP.
fn ports(node_port: u16) -> Value {
    json!([
        {"name": "http", "port": 80, "targetPort": 8080, "nodePort": node_port},
        {"name": "ask", "port": 80, "targetPort": 8080, "protocol": "UDP", "nodePort": node_port},
    ])
}

fn cluster(name: &str, options: Options) -> Result<Cluster> {
    let lab = lab(name, options)?;
    pod(&lab, "web-1", "node-1", "web", "v1")?;
    pod(&lab, "web-2", "node-2", "web", "v1")?;
    pod(&lab, "asks", "node-3", "asks", "v1")?;
    service(&lab, "cluster", spec(ports(30080), json!({"type": "NodePort"})))?;
    let local = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
    service(&lab, "local", spec(ports(30081), local.clone()))?;
    let mut nobody = spec(ports(30082), local);
    nobody["selector"] = json!({"app": "nobody"});
    service(&lab, "nobody", nobody)?;
    let http = json!([{"port": 80, "targetPort": 8080}]);
    service(&lab, "external", spec(http.clone(), json!({"externalIPs": EXTERNAL})))?;
    for (name, addresses, ranges) in [
        // The outside client, and node-3's pods.
        (
            "balancer",
            BALANCER,
            json!(["172.31.0.250/32", "fd00:172:31::250/128", "10.244.3.0/24", "fd00:10:244:3::/64"]),
        ),
        ("closed", CLOSED, json!(["192.0.2.0/24", "2001:db8::/64"])),
    ] {
        let more = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges});
        service(&lab, name, spec(http.clone(), more))?;
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let mut balanced = request(&lab, Method::GET, &format!("{SERVICES}/{name}"), &[], None)?;
        balanced["status"] = json!({"loadBalancer": {"ingress": ingress}});
        let query = [("wait", "programmed"), ("timeout", "10s")];
        let path = format!("{SERVICES}/{name}/status");
        request(&lab, Method::PUT, &path, &query, Some(&balanced)).with_context(|| path)?;
    }
    run(&lab, "client", &["ip", "route", "add", "203.0.113.0/24", "via", "172.31.0.3"])?;
    run(&lab, "client", &["ip", "route", "add", "2001:db8:113::/64", "via", "fd00:172:31::3"])?;
    let node = |n: u8| vec![ip(&format!("172.31.0.{n}")), ip(&format!("fd00:172:31::{n}"))];
    let client = vec![ip("172.31.0.250"), ip("fd00:172:31::250")];
    Ok(Cluster { lab, nodes: [node(1), node(2), node(3)], client })
}

/// Answers to so many requests that both pods are among them, if both may be. On a node a process asks.
fn answers(c: &Cluster, from: &str, to: SocketAddr) -> Result<Vec<Answer>> {
    if from.starts_with("node") {
        let url = format!("http://{to}/");
        let mut argv = vec!["curl", "-sS", "-m", "3", "-H", "Connection: close"];
        argv.resize(argv.len() + 24, &url);
        let text = run(&c.lab, from, &argv)?;
        return Ok(serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>()?);
    }
    c.lab.within(from, || -> Result<Vec<Answer>> {
        let mut all = Vec::new();
        for _ in 0..24 {
            all.push(get(to)?);
        }
        Ok(all)
    })?
}

fn pods(answers: &[Answer]) -> BTreeSet<&str> {
    answers.iter().map(|answer| answer.pod.as_str()).collect()
}

fn seen(answer: &Answer) -> Result<IpAddr> {
    Ok(answer.remote.parse::<SocketAddr>().with_context(|| answer.remote.clone())?.ip())
}

/// That nothing comes back, not even a refusal.
fn dropped(c: &Cluster, from: &str, to: SocketAddr) -> Result<()> {
    let ended = c.lab.within(from, || {
        std::net::TcpStream::connect_timeout(&to, Duration::from_millis(1500)).map(drop).map_err(|e| e.kind())
    })?;
    ensure!(ended == Err(ErrorKind::TimedOut), "{from} to {to}: {ended:?}");
    Ok(())
}

/// That a process on a node hears of it from its call.
fn forbidden(c: &Cluster, node: &str, to: SocketAddr) -> Result<()> {
    let script = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
    let output = c.lab.exec(node, &["bash", "-c", &script])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(text.contains("Operation not permitted"), "{node} to {to}: {} {text}", output.status);
    Ok(())
}

fn refused(c: &Cluster, from: &str, to: SocketAddr) -> Result<()> {
    let kind = c.lab.within(from, || refusal(to))??;
    ensure!(kind == ErrorKind::ConnectionRefused, "{from} to {to}: {kind:?}");
    Ok(())
}

/// Every node serves, whoever asks; a pod of the node that was asked sees the client.
fn node_ports(c: &Cluster, family: usize) -> Result<()> {
    let both = BTreeSet::from(["web-1", "web-2"]);
    for (i, node) in c.nodes.iter().enumerate() {
        let to = SocketAddr::new(node[family], 30080);
        let all = answers(c, "client", to).with_context(|| format!("the client asks {to}"))?;
        ensure!(pods(&all) == both, "{to} gives {:?}", pods(&all));
        for answer in &all {
            let here = answer.node == format!("node-{}", i + 1);
            let wanted = if here { c.client[family] } else { node[family] };
            ensure!(seen(answer)? == wanted, "asked at {to}, {} sees {}", answer.pod, answer.remote);
        }
        let udp = c.lab.within("client", || ask_udp_unconnected(to))??;
        ensure!(both.contains(udp.pod.as_str()), "UDP at {to} gives {}", udp.pod);
    }
    let own = SocketAddr::new(c.nodes[2][family], 30080);
    for from in ["asks", "node-3"] {
        let all = answers(c, from, own).with_context(|| format!("{from} asks {own}"))?;
        ensure!(pods(&all) == both, "{from} at {own} gets {:?}", pods(&all));
    }
    // Other ports are the node's own.
    refused(c, "client", SocketAddr::new(c.nodes[0][family], 30099))
}

/// `externalTrafficPolicy: Local`: clients outside get the node's own pods, which see them; inside the whole cluster's.
fn local_policy(c: &Cluster, family: usize) -> Result<()> {
    for (node, pod) in [(0, "web-1"), (1, "web-2")] {
        let to = SocketAddr::new(c.nodes[node][family], 30081);
        let all = answers(c, "client", to)?;
        ensure!(pods(&all) == BTreeSet::from([pod]), "{to} gives {:?}", pods(&all));
        for answer in &all {
            ensure!(seen(answer)? == c.client[family], "{pod} sees {}", answer.remote);
        }
    }
    let to = SocketAddr::new(c.nodes[2][family], 30081);
    dropped(c, "client", to)?;
    for from in ["asks", "node-3"] {
        let all = answers(c, from, to).with_context(|| format!("{from} asks {to}"))?;
        ensure!(pods(&all).len() == 2, "{from} at {to} gets {:?}", pods(&all));
    }
    // A pod of another node that comes by the NIC is inside too.
    let to = SocketAddr::new(c.nodes[0][family], 30081);
    let all = answers(c, "asks", to).context("a pod asks another node")?;
    ensure!(pods(&all).len() == 2, "asks at {to} gets {:?}", pods(&all));
    // Where no node has one, it is no question of policy.
    refused(c, "client", SocketAddr::new(c.nodes[0][family], 30082))
}

/// Addresses that no machine has: served by whichever node they are routed to, and at once for clients inside.
fn other_addresses(c: &Cluster, family: usize) -> Result<()> {
    for address in [EXTERNAL[family], BALANCER[family]] {
        let to = SocketAddr::new(ip(address), 80);
        for from in ["client", "asks"] {
            let all = answers(c, from, to).with_context(|| format!("{from} asks {to}"))?;
            ensure!(pods(&all).len() == 2, "{from} at {to} gets {:?}", pods(&all));
        }
    }
    let to = SocketAddr::new(ip(EXTERNAL[family]), 80);
    let all = answers(c, "node-1", to).with_context(|| format!("node-1 asks {to}"))?;
    ensure!(pods(&all).len() == 2, "node-1 at {to} gets {:?}", pods(&all));
    // loadBalancerSourceRanges: not another node, and nobody at all.
    forbidden(c, "node-1", SocketAddr::new(ip(BALANCER[family]), 80))?;
    let to = SocketAddr::new(ip(CLOSED[family]), 80);
    dropped(c, "client", to)?;
    dropped(c, "asks", to)?;
    forbidden(c, "node-3", to)
}

/// Nobody's address of the service range, and its counter.
fn unallocated(c: &Cluster, family: usize) -> Result<()> {
    let to = SocketAddr::new(ip(["10.96.200.200", "fd00:10:96::dead"][family]), 80);
    dropped(c, "asks", to)?;
    forbidden(c, "node-3", to)
}

fn counted(c: &Cluster) -> Result<()> {
    eventually(|| {
        let state = request(&c.lab, Method::GET, "/apis/eastwest.dev/v1/nodestates/node-3", &[], None)?;
        let text = state.to_string();
        for counter in ["dropped_local_policy", "dropped_source_ranges", "dropped_unallocated"] {
            let count = find(&state, counter).and_then(Value::as_u64);
            ensure!(count.is_some_and(|count| count > 0), "{counter} is {count:?} in {text}");
        }
        Ok(())
    })
}

/// The value of a key, wherever it is.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

fn check(name: &str, options: Options) {
    let result = cluster(name, options).and_then(|c| {
        for (family, name) in ["IPv4", "IPv6"].into_iter().enumerate() {
            node_ports(&c, family).context(name).context("node ports")?;
            local_policy(&c, family).context(name).context("externalTrafficPolicy Local")?;
            other_addresses(&c, family).context(name).context("addresses of no node")?;
            unallocated(&c, family).context(name).context("an unallocated address")?;
        }
        counted(&c).context("counters")
    });
    if let Err(error) = result {
        panic!("{error:?}");
    }
}

#[test]
fn by_tc_and_native_xdp() {
    check("fronttc", Options::default());
}

#[test]
fn by_generic_xdp_and_tc_at_the_nic() {
    check("frontxdp", Options { pod_hook: PodHook::Xdp, nic: Some(Nic::Tc), ..Options::default() });
}

/// Pods of other nodes are behind a tunnel, into which the stack packs what is for them.
#[test]
fn over_a_tunnel() {
    check("frontvxlan", Options { network: Network::Vxlan, ..Options::default() });
}
