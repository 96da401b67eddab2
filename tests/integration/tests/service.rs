//! One Service, end to end, on real packets: each pod hook, each network, both families.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::{Family, Lab, Network, Nic, Options, PodHook, PodSpec, Role};
use serde_json::json;

const MIB: u64 = 1 << 20;

/// A lab of three nodes with `web` (two versions, a pod a node) and a client pod on node-1.
struct Cluster {
    lab: Lab,
    /// Of `web`, port 80.
    vips: Vec<SocketAddr>,
}

fn cluster(name: &str, options: Options) -> Result<Cluster> {
    let lab = lab(name, options)?;
    pod(&lab, "web-1", "node-1", "web", "v1")?;
    pod(&lab, "web-2", "node-2", "web", "v1")?;
    pod(&lab, "web-3", "node-3", "web", "v2")?;
    pod(&lab, "client-pod", "node-1", "client", "v1")?;
    let policy = if lab.plan()?.families().len() == 2 { "PreferDualStack" } else { "SingleStack" };
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "ask", "port": 80, "targetPort": "udp", "protocol": "UDP"},
    ]);
    let web =
        service(&lab, "web", json!({"selector": {"app": "web"}, "ports": ports, "ipFamilyPolicy": policy}))?;
    let vips: Vec<_> = cluster_ips(&web).into_iter().map(|ip| SocketAddr::new(ip, 80)).collect();
    ensure!(vips.len() == lab.plan()?.families().len(), "one address of each family: {vips:?}");
    Ok(Cluster { lab, vips })
}

/// Every claim about a Service that holds whatever the hook, the network and the family.
fn behaves(c: &Cluster) -> Result<()> {
    for &vip in &c.vips {
        let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
        spreads_over_nodes_and_keeps_the_source(c, vip).context(family).context("TCP spread")?;
        udp_both_ways(c, vip).context(family).context("UDP")?;
        refuses_at_once(c, vip).context(family).context("refusal")?;
        hairpin(c, vip).context(family).context("hairpin")?;
        host_process(c, vip).context(family).context("host process")?;
        outside_client(c, vip).context(family).context("outside client")?;
        c.lab.within("client-pod", || bulk(vip, 48 * MIB, |_| ()))?.context(family).context("bulk")?;
    }
    one_source_port(c).context("one source port")?;
    names(c).context("names")
}

fn spreads_over_nodes_and_keeps_the_source(c: &Cluster, vip: SocketAddr) -> Result<()> {
    let client = c.lab.state()?.pods[&"client-pod".parse()?].clone();
    let answers = c.lab.within("client-pod", || (0..60).map(|_| get(vip)).collect::<Result<Vec<_>>>())??;
    let nodes: BTreeSet<_> = answers.iter().map(|a| a.node.as_str()).collect();
    ensure!(nodes == BTreeSet::from(["node-1", "node-2", "node-3"]), "reached {nodes:?}");
    for a in &answers {
        let remote: SocketAddr = a.remote.parse()?;
        ensure!(client.addresses.contains(&remote.ip()), "{} saw {remote}", a.pod);
        ensure!(a.local.ends_with(":8080"), "asked on {}", a.local);
    }
    Ok(())
}

fn udp_both_ways(c: &Cluster, vip: SocketAddr) -> Result<()> {
    let pods = c.lab.within("client-pod", || -> Result<BTreeSet<String>> {
        let mut pods = BTreeSet::new();
        for _ in 0..40 {
            pods.insert(ask_udp(vip)?.pod);
            pods.insert(ask_udp_unconnected(vip)?.pod);
        }
        Ok(pods)
    })??;
    ensure!(pods.len() == 3, "reached {pods:?}");
    Ok(())
}

fn refuses_at_once(c: &Cluster, vip: SocketAddr) -> Result<()> {
    let name = if vip.is_ipv4() { "empty4" } else { "empty6" };
    let family = if vip.is_ipv4() { "IPv4" } else { "IPv6" };
    let ports = json!([{"name": "t", "port": 80}, {"name": "u", "port": 80, "protocol": "UDP"}]);
    let empty = service(
        &c.lab,
        name,
        json!({"selector": {"app": "nobody"}, "ports": ports, "ipFamilies": [family]}),
    )?;
    let empty = SocketAddr::new(cluster_ips(&empty)[0], 80);
    let other_port = SocketAddr::new(vip.ip(), 81);
    for to in [empty, other_port] {
        let start = Instant::now();
        let kind = c.lab.within("client-pod", || refusal(to))??;
        ensure!(kind == ErrorKind::ConnectionRefused, "{to}: {kind}");
        ensure!(start.elapsed() < Duration::from_millis(900), "a retransmission was needed for {to}");
        let e = match c.lab.within("client-pod", || ask_udp(to))? {
            Ok(_) => anyhow::bail!("{to} answered over UDP"),
            Err(e) => e,
        };
        let kind = e.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        ensure!(kind == Some(ErrorKind::ConnectionRefused), "UDP to {to}: {e:#}");
        // From a process on the host, too.
        let code = c.lab.exec("node-2", &["curl", "-s", "-m", "3", &format!("http://{to}/")])?.status.code();
        ensure!(code == Some(7), "curl on the host: exit code {code:?}, 7 is a refused connection");
    }
    Ok(())
}

fn hairpin(c: &Cluster, vip: SocketAddr) -> Result<()> {
    // web-1 asks its own Service until it has met itself.
    let seen = c.lab.within("web-1", || -> Result<_> {
        for _ in 0..100 {
            let answer = get(vip)?;
            if answer.pod == "web-1" {
                return Ok((answer, ask_udp(vip)?));
            }
        }
        anyhow::bail!("never reached itself in 100 tries")
    })??;
    ensure!(!seen.0.remote.starts_with(&vip.ip().to_string()), "{:?}", seen.0);
    Ok(())
}

fn host_process(c: &Cluster, vip: SocketAddr) -> Result<()> {
    let url = format!("http://{vip}/");
    let mut nodes = BTreeSet::new();
    // By chance one is left out of 24 once in some thousand times.
    for _ in 0..100 {
        let text = run(&c.lab, "node-2", &["curl", "-sS", "-m", "3", &url])?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        nodes.insert(answer["node"].as_str().context("node")?.to_owned());
        if nodes.len() == 3 {
            break;
        }
    }
    ensure!(nodes.len() == 3, "reached {nodes:?}");
    Ok(())
}

fn outside_client(c: &Cluster, vip: SocketAddr) -> Result<()> {
    let answers = c.lab.within("client", || (0..40).map(|_| get(vip)).collect::<Result<Vec<_>>>())??;
    let nodes: BTreeSet<_> = answers.iter().map(|a| a.node.as_str()).collect();
    ensure!(nodes.len() == 3, "reached {nodes:?}");
    for _ in 0..10 {
        c.lab.within("client", || ask_udp(vip))??;
    }
    c.lab.within("client", || bulk(vip, 4 * MIB, |_| ()))?
}

/// One pod, one source port: connections to two virtual IPs that lead to one pod, and to that pod directly, at once,
/// opened in every order.
fn one_source_port(c: &Cluster) -> Result<()> {
    let target = pod(&c.lab, "single", "node-2", "single", "v1")?;
    let policy = if c.vips.len() == 2 { "PreferDualStack" } else { "SingleStack" };
    let spec = json!({"selector": {"app": "single"}, "ports": [{"port": 80, "targetPort": 8080}],
                      "ipFamilyPolicy": policy});
    let (one, two) = (service(&c.lab, "single-1", spec.clone())?, service(&c.lab, "single-2", spec)?);
    let mut port = 41_000;
    for (i, direct) in target.addresses.iter().enumerate() {
        let same = |ips: Vec<std::net::IpAddr>| {
            ips.into_iter().find(|ip| ip.is_ipv4() == direct.is_ipv4()).context("a VIP of the family")
        };
        let ways = [
            ("first VIP", SocketAddr::new(same(cluster_ips(&one))?, 80)),
            ("second VIP", SocketAddr::new(same(cluster_ips(&two))?, 80)),
            ("the pod", SocketAddr::new(*direct, 8080)),
        ];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            port += 1;
            c.lab
                .within("client-pod", || -> Result<()> {
                    let mut open = Vec::new();
                    for k in order {
                        let (name, to) = ways[k];
                        open.push((name, connect(to, port).with_context(|| format!("{name} from {port}"))?));
                    }
                    for round in 0..3 {
                        for (name, stream) in &mut open {
                            echo_line(stream, &format!("round {round} of {name}, port {port}\n"))?;
                        }
                    }
                    Ok(())
                })?
                .with_context(|| format!("order {order:?}, address {i}"))?;
        }
    }
    Ok(())
}

fn names(c: &Cluster) -> Result<()> {
    let spec = PodSpec::new("db-1", "node-3")?.label("app", "db");
    c.lab.run_pod(&PodSpec { subdomain: Some("db".into()), ..spec })?;
    let dual = if c.vips.len() == 2 { "PreferDualStack" } else { "SingleStack" };
    let db = json!({"selector": {"app": "db"}, "clusterIP": "None", "ports": [{"name": "sql", "port": 8080}],
                    "ipFamilyPolicy": dual});
    service(&c.lab, "db", db)?;
    let db_addresses = &c.lab.state()?.pods[&"db-1".parse()?].addresses;
    let dig = |args: &[&str]| -> Result<String> {
        run(&c.lab, "client-pod", &[&["dig", "+tries=1", "+time=2"], args].concat())
    };
    for vip in &c.vips {
        let kind = if vip.is_ipv4() { "A" } else { "AAAA" };
        let text = dig(&["+short", "+search", "web", kind])?;
        ensure!(text.trim() == vip.ip().to_string(), "{kind} of web: {text}");
        let text = dig(&["+short", "+tcp", "web.default.svc.cluster.local", kind])?;
        ensure!(text.trim() == vip.ip().to_string(), "{kind} of web over TCP: {text}");
        let text = dig(&["+short", "-x", &vip.ip().to_string()])?;
        ensure!(text.trim() == "web.default.svc.cluster.local.", "PTR: {text}");
    }
    for address in db_addresses {
        let kind = if address.is_ipv4() { "A" } else { "AAAA" };
        for name in ["db.default.svc.cluster.local", "db-1.db.default.svc.cluster.local"] {
            let text = dig(&["+short", name, kind])?;
            ensure!(text.trim() == address.to_string(), "{kind} of {name}: {text}");
        }
    }
    let text = dig(&["+short", "_http._tcp.web.default.svc.cluster.local", "SRV"])?;
    ensure!(text.trim().ends_with("80 web.default.svc.cluster.local."), "SRV: {text}");
    let text = dig(&["+short", "_sql._tcp.db.default.svc.cluster.local", "SRV"])?;
    ensure!(
        text.trim().ends_with("8080 db-1.db.default.svc.cluster.local."),
        "SRV of a headless Service: {text}"
    );
    for (name, kind, expected) in [
        ("nothing.default.svc.cluster.local", "A", "NXDOMAIN"),
        ("web.default.svc.cluster.local", "TXT", "NOERROR"),
        ("default.svc.cluster.local", "A", "NOERROR"),
    ] {
        let text = dig(&[name, kind])?;
        ensure!(
            text.contains(&format!("status: {expected}")) && text.contains("SOA"),
            "{kind} of {name}: {text}"
        );
    }
    // As programs in a pod see it: search domains, both families.
    let text = run(&c.lab, "client-pod", &["getent", "ahosts", "web"])?;
    for vip in &c.vips {
        ensure!(text.contains(&vip.ip().to_string()), "getent ahosts web: {text}");
    }
    let text = run(&c.lab, "client-pod", &["curl", "-sS", "-m", "3", "http://web/"])?;
    ensure!(text.contains("\"pod\""), "curl http://web: {text}");
    let text = run(&c.lab, "node-1", &["dig", "+short", "@169.254.20.10", "web.default.svc.cluster.local"]);
    if c.vips[0].is_ipv4() {
        ensure!(text?.trim() == c.vips[0].ip().to_string(), "the node-local address answers");
    }
    Ok(())
}

fn check(name: &str, options: Options) {
    let result = cluster(name, options).and_then(|c| behaves(&c));
    if let Err(e) = result {
        panic!("{e:?}");
    }
}

#[test]
fn tc_on_point_to_point_pods() {
    check("tctp", Options::default());
}

#[test]
fn tc_on_bridged_pods() {
    check("tcbr", Options { network: Network::Bridge, nic: Some(Nic::XdpGeneric), ..Options::default() });
}

#[test]
fn xdp_on_point_to_point_pods() {
    check("xdptp", Options { pod_hook: PodHook::Xdp, nic: Some(Nic::Tc), ..Options::default() });
}

#[test]
fn xdp_on_bridged_pods() {
    check("xdpbr", Options { pod_hook: PodHook::Xdp, network: Network::Bridge, ..Options::default() });
}

#[test]
fn ipv6_alone() {
    check("sixonly", Options { family: Family::Ipv6, ..Options::default() });
}

#[test]
fn ipv4_alone() {
    check("fouronly", Options { family: Family::Ipv4, ..Options::default() });
}

/// Connections and names go on while the agent of the client's node is restarted and killed in mid-transfer.
#[test]
fn an_agent_restart_harms_nothing() {
    let result = (|| -> Result<()> {
        let c = cluster("restart", Options::default())?;
        let agent = Role::Agent("node-1".into());
        for &vip in &c.vips {
            let read = AtomicU64::new(0);
            std::thread::scope(|scope| -> Result<()> {
                let transfer = scope.spawn(|| {
                    let transfer = || bulk(vip, 512 * MIB, |n| read.store(n, Ordering::Relaxed));
                    c.lab.within("client-pod", transfer)?
                });
                eventually(|| {
                    ensure!(read.load(Ordering::Relaxed) > MIB, "the transfer has not begun");
                    Ok(())
                })?;
                c.lab.stop(&agent)?;
                c.lab.within("client-pod", || get(vip))?.context("a new connection without an agent")?;
                c.lab.start(&agent)?;
                c.lab.kill(&agent)?;
                c.lab.within("client-pod", || get(vip))?.context("a new connection after kill -9")?;
                c.lab.start(&agent)?;
                ensure!(
                    !transfer.is_finished(),
                    "the restarts came after the transfer's end: make it longer"
                );
                transfer.join().map_err(|_| anyhow::anyhow!("the transfer panicked"))?.context("the transfer")
            })?;
        }
        // It still follows: a change after the restarts arrives.
        let later = service(
            &c.lab,
            "later",
            json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}),
        )?;
        let later = SocketAddr::new(cluster_ips(&later)[0], 80);
        c.lab.within("client-pod", || get(later))??;
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}

/// Without a controller agents go on with what they know, also after a restart of their own.
#[test]
fn agents_outlive_the_controller() {
    let result = (|| -> Result<()> {
        let c = cluster("orphans", Options { nodes: 3, ..Options::default() })?;
        c.lab.kill(&Role::Controller)?;
        let agent = Role::Agent("node-1".into());
        c.lab.kill(&agent)?;
        c.lab.start(&agent)?;
        eventually(|| run(&c.lab, "client-pod", &["curl", "-sS", "-m", "2", "http://web/"]))?;
        // A pod that appears now is hooked all the same.
        c.lab.start(&Role::Controller)?;
        pod(&c.lab, "late", "node-1", "late", "v1")?;
        c.lab.within("late", || get(c.vips[0]))??;
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}
