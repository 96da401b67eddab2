//! What Services may ask for beyond reaching an endpoint, on real packets: each pod hook, both families.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options, PodHook};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

/// Longer than a refusal takes, and than the first retransmission of a SYN.
const SILENCE: Duration = Duration::from_millis(1500);

/// Pods of `web` on node-2 and node-3, and a client pod on node-1 and node-2.
fn cluster(name: &str, hook: PodHook) -> Result<Lab> {
    let lab = lab(name, Options { pod_hook: hook, ..Options::default() })?;
    for (pod_name, node, app) in [
        ("web-2", "node-2", "web"),
        ("web-3", "node-3", "web"),
        ("client-1", "node-1", "client"),
        ("client-2", "node-2", "client"),
    ] {
        pod(&lab, pod_name, node, app, "v1")?;
    }
    Ok(lab)
}

/// Creates a dual-stack Service with port 80 on TCP and UDP; returns its virtual addresses.
fn vips(lab: &Lab, name: &str, mut spec: Value) -> Result<Vec<SocketAddr>> {
    spec["ipFamilyPolicy"] = json!("PreferDualStack");
    spec["ports"] = json!([
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "ask", "port": 80, "targetPort": "udp", "protocol": "UDP"},
    ]);
    let vips: Vec<_> =
        cluster_ips(&service(lab, name, spec)?).into_iter().map(|ip| SocketAddr::new(ip, 80)).collect();
    ensure!(vips.len() == 2, "one address of each family: {vips:?}");
    Ok(vips)
}

/// Fails unless nothing at all comes back.
fn silent(to: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    match socket.connect_timeout(&to.into(), SILENCE) {
        Ok(()) => bail!("{to} took the connection"),
        Err(e) => ensure!(e.kind() == ErrorKind::TimedOut, "{to}: {e}"),
    }
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    socket.connect(to)?;
    socket.send(b"?")?;
    match socket.recv(&mut [0; 64]) {
        Ok(_) => bail!("{to} answered over UDP"),
        // What a receive that waits for its time ends with.
        Err(e) => ensure!(e.kind() == ErrorKind::WouldBlock, "UDP to {to}: {e}"),
    }
    Ok(())
}

/// `internalTrafficPolicy: Local`: this node's endpoints alone; where there are none, silence; refused only where no node
/// has any.
fn internal_local(lab: &Lab) -> Result<()> {
    let local = |app: &str| json!({"selector": {"app": app}, "internalTrafficPolicy": "Local"});
    let empty = vips(lab, "local-empty", local("nobody"))?;
    for (vip, empty) in vips(lab, "local", local("web"))?.into_iter().zip(empty) {
        let pods = lab.within("client-2", || -> Result<BTreeSet<String>> {
            let mut pods = BTreeSet::new();
            for _ in 0..12 {
                pods.insert(get(vip)?.pod);
                pods.insert(ask_udp(vip)?.pod);
            }
            Ok(pods)
        })??;
        ensure!(pods == BTreeSet::from(["web-2".to_owned()]), "reached {pods:?} by {vip}");
        lab.within("client-1", || silent(vip))??;
        let kind = lab.within("client-1", || refusal(empty))??;
        ensure!(kind == ErrorKind::ConnectionRefused, "{empty}: {kind}");
        // A process on the host has its call ended.
        let url = format!("http://{vip}/");
        ensure!(
            run(lab, "node-2", &["curl", "-sS", "-m", "3", &url])?.contains("web-2"),
            "{vip} from node-2"
        );
        let code = lab.exec("node-1", &["curl", "-s", "-m", "2", &url])?.status.code();
        ensure!(matches!(code, Some(7 | 28)), "curl on node-1 to {vip}: exit code {code:?}");
    }
    Ok(())
}

/// `sessionAffinity: ClientIP`: one pod for all connections and datagrams of a client to a port; another once it is gone, or
/// once the client has been away long enough.
fn client_ip_affinity(lab: &Lab) -> Result<()> {
    let spec = |seconds: u32| {
        json!({"selector": {"app": "sticky"}, "sessionAffinity": "ClientIP",
               "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}})
    };
    for (name, node) in [("sticky-1", "node-1"), ("sticky-2", "node-2"), ("sticky-3", "node-3")] {
        pod(lab, name, node, "sticky", "v1")?;
    }
    let short = vips(lab, "short", spec(1))?;
    let long = vips(lab, "long", spec(10_800))?;
    for (vip, short) in long.into_iter().zip(short) {
        let tcp = lab.within("client-1", || -> Result<Vec<String>> {
            (0..30).map(|_| Ok(get(vip)?.pod)).collect()
        })??;
        let pods: BTreeSet<_> = tcp.iter().cloned().collect();
        ensure!(pods.len() == 1, "TCP to {vip} reached {pods:?}");
        let udp = lab.within("client-1", || -> Result<BTreeSet<String>> {
            (0..30).map(|_| Ok(ask_udp(vip)?.pod)).collect()
        })??;
        ensure!(udp.len() == 1, "UDP to {vip} reached {udp:?}");
        let url = format!("http://{vip}/");
        let mut host = BTreeSet::new();
        for _ in 0..20 {
            let answer: Value =
                serde_json::from_str(&run(lab, "node-2", &["curl", "-sS", "-m", "3", &url])?)?;
            host.insert(answer["pod"].as_str().context("pod")?.to_owned());
        }
        ensure!(host.len() == 1, "processes of node-2 reached {host:?} by {vip}");
        let outside = lab.within("client", || -> Result<BTreeSet<String>> {
            (0..20).map(|_| Ok(get(vip)?.pod)).collect()
        })??;
        ensure!(outside.len() == 1, "a client outside reached {outside:?} by {vip}");
        // Away for longer than the Service keeps clients: by chance again, 12 times.
        let pods = lab.within("client-1", || -> Result<BTreeSet<String>> {
            (0..12)
                .map(|_| {
                    std::thread::sleep(Duration::from_millis(1100));
                    Ok(get(short)?.pod)
                })
                .collect()
        })??;
        ensure!(pods.len() > 1, "{short} keeps a client beyond its time: {pods:?}");
    }
    Ok(())
}

/// The pod that keeps a client goes: the client gets another, and is kept by that one.
fn affinity_ends_with_its_pod(lab: &Lab) -> Result<()> {
    let spec = json!({"selector": {"app": "leaving"}, "sessionAffinity": "ClientIP"});
    for (name, node) in [("leaving-1", "node-1"), ("leaving-2", "node-2"), ("leaving-3", "node-3")] {
        pod(lab, name, node, "leaving", "v1")?;
    }
    let vips = vips(lab, "leaving", spec)?;
    let kept = lab.within("client-1", || get(vips[0]))??.pod;
    lab.remove_pod(&kept.parse()?)?;
    for vip in vips {
        let pods = eventually(|| {
            let pods = lab.within("client-1", || -> Result<BTreeSet<String>> {
                (0..20).map(|_| Ok(get(vip)?.pod)).collect()
            })??;
            ensure!(!pods.contains(&kept), "{vip} still leads to {kept}");
            Ok(pods)
        })?;
        ensure!(pods.len() == 1, "{vip} reached {pods:?}");
    }
    Ok(())
}

fn behaves(name: &str, hook: PodHook) {
    let result = cluster(name, hook).and_then(|lab| {
        internal_local(&lab).context("internalTrafficPolicy: Local")?;
        client_ip_affinity(&lab).context("sessionAffinity: ClientIP")?;
        affinity_ends_with_its_pod(&lab).context("affinity to a pod that goes")
    });
    if let Err(e) = result {
        panic!("{e:?}");
    }
}

#[test]
fn pods_hooked_by_tc() {
    behaves("behavetc", PodHook::Tc);
}

#[test]
fn pods_hooked_by_xdp() {
    behaves("behavexdp", PodHook::Xdp);
}
