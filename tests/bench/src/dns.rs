//! DNS on a node beside CoreDNS of the same state, and beside unbound and knot, which serve the same names from a file:
//! queries a second by dnsperf, server and client on a core each, and what a query costs the server.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eastwest_client::{Client, WriteOptions};
use eastwest_integration::dns::{ask_all, query};
use eastwest_integration::peers::{Peer, coredns, debian, upstream};
use eastwest_lab::{Families, Lab, Options, Plan, Role};
use eastwest_model::{EndpointSlice, Service};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::report::{Report, median, number, percentile};

pub const NODE: &str = "node-1";
const SERVICES: usize = 1000;
/// Core of the server under test, and of dnsperf.
const CORES: (&str, &str) = ("0", "1");
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OURS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)), 53);

struct Server {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
    /// Those that forward are asked for names of the world as well.
    forwards: bool,
}

/// One run of dnsperf.
struct Run {
    queries_per_second: f64,
    /// Of the server, for one query.
    cpu_us: f64,
    /// Milliseconds as dnsperf sees it.
    average_ms: f64,
}

pub fn run(report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lab = Lab::up(Options { name: "benchdns".into(), nodes: 1, ..Options::default() })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(Client::from_path(Some(&lab.kubeconfig()), None))?;
    let addresses = runtime.block_on(services(&client))?;
    let _upstream = upstream(&lab, folder.path())?;

    let mut peers = Vec::new();
    let mut servers = vec![agent(&lab)?];
    for start in [start_coredns, start_unbound, start_knot] {
        let (server, peer) = start(&lab, folder.path(), &addresses)?;
        servers.push(server);
        peers.push(peer);
    }
    for server in &servers {
        wait(&lab, server.address)?;
        let pinned = Command::new("taskset").args(["-apc", CORES.0, &server.pid.to_string()]).output()?;
        ensure!(pinned.status.success(), "taskset: {}", String::from_utf8_lossy(&pinned.stderr));
    }

    let inside = folder.path().join("inside.queries");
    let names = |i: usize| format!("{}.default.svc.cluster.local A\n", name(i));
    std::fs::write(&inside, (0..SERVICES).map(names).collect::<String>())?;
    let outside = folder.path().join("outside.queries");
    std::fs::write(&outside, "www.example.test A\nfour.example.test A\nmail.example.test A\n")?;

    let rounds = if report.quick { 1 } else { 5 };
    let mut results = Vec::new();
    for (what, queries) in [("Service names", &inside), ("cached names of the world", &outside)] {
        let asked: Vec<&Server> =
            servers.iter().filter(|s| s.forwards || std::ptr::eq(queries, &raw const inside)).collect();
        let mut runs: Vec<Vec<Run>> = asked.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (server, runs) in asked.iter().zip(&mut runs) {
                runs.push(dnsperf(&lab, server, queries, if report.quick { 2 } else { 4 })?);
            }
        }
        let of = |runs: &[Run], f: fn(&Run) -> f64| median(&runs.iter().map(f).collect::<Vec<_>>());
        for (server, theirs) in asked.iter().zip(&runs).skip(1) {
            let ours = &runs[0];
            report.ratio(
                format!("DNS, {what}: queries a second, against {}", server.name),
                (of(ours, |r| r.queries_per_second), "/s"),
                (of(theirs, |r| r.queries_per_second), "/s"),
            );
            report.ratio(
                format!("DNS, {what}: server's CPU for a query, against {}", server.name),
                (of(ours, |r| r.cpu_us), "µs"),
                (of(theirs, |r| r.cpu_us), "µs"),
            );
        }
        for (server, runs) in asked.iter().zip(&runs) {
            let list = |f: fn(&Run) -> f64| runs.iter().map(f).collect::<Vec<_>>();
            results.push(json!({
                "what": what, "server": server.name, "queries_per_second": list(|r| r.queries_per_second),
                "cpu_us": list(|r| r.cpu_us), "average_ms": list(|r| r.average_ms),
            }));
        }
    }
    let samples = if report.quick { 20 } else { 300 };
    let answered = runtime.block_on(changes(&lab, &client, samples))?;
    report.plain(
        format!("change of a headless Service to its answer, p50 and p99, {SERVICES} Services"),
        format!("{} and {} ms", number(median(&answered)), number(percentile(&answered, 99.0))),
    );
    drop(peers);
    lab.down()?;
    report.save("dns", json!({"servers": results, "change_to_answer_ms": answered}))
}

fn name(i: usize) -> String {
    format!("svc-{i:05}")
}

/// Makes the Services; gives their addresses.
async fn services(client: &Client) -> Result<Vec<String>> {
    let options = &WriteOptions::default();
    let made: Vec<Service> = stream::iter(0..SERVICES)
        .map(|i| async move {
            let service: Service = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name(i), "namespace": "default"},
                "spec": {"ports": [{"name": "http", "port": 80}], "ipFamilies": ["IPv4"]},
            }))?;
            anyhow::Ok(client.create(&service, options).await?)
        })
        .buffered(32)
        .try_collect()
        .await?;
    Ok(made.iter().map(|s| s.spec.cluster_ip.to_string()).collect())
}

/// Milliseconds from a write of an endpoint to its address in an answer.
pub async fn changes(lab: &Lab, client: &Client, samples: usize) -> Result<Vec<f64>> {
    let service: Service = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "moving", "namespace": "default"},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
    }))?;
    client.create(&service, &WriteOptions::default()).await?;
    let slice = |turn: usize| -> Result<EndpointSlice> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "moving-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "moving"}},
            "endpoints": [{"addresses": [format!("10.250.{}.{}", turn / 200, 1 + turn % 200)], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        }))?)
    };
    client.create(&slice(0)?, &WriteOptions::default()).await?;
    let socket = asker(lab)?;
    let request = query("moving.default.svc.cluster.local.", 1);
    let mut millis = Vec::new();
    for turn in 1..=samples {
        let slice = slice(turn)?;
        let wanted = [10, 250, (turn / 200) as u8, (1 + turn % 200) as u8];
        let start = Instant::now();
        client.replace(&slice, &WriteOptions::default()).await?;
        let mut buffer = [0; 512];
        loop {
            socket.send(&request)?;
            let n = socket.recv(&mut buffer)?;
            if buffer[..n].ends_with(&wanted) {
                break;
            }
            ensure!(start.elapsed() < Duration::from_secs(10), "change {turn} is never answered");
        }
        millis.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(millis)
}

/// A socket of the node's for questions to its agent.
pub fn asker(lab: &Lab) -> Result<UdpSocket> {
    Ok(lab.within(NODE, || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(OURS)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    })??)
}

fn agent(lab: &Lab) -> Result<Server> {
    let state = lab.state()?;
    let pid = state.processes.get(&Role::Agent(NODE.into())).context("the agent")?.pid;
    Ok(Server { name: "eastwest", address: OURS, pid: u32::try_from(pid)?, forwards: true })
}

/// Waits until the last Service has an answer.
fn wait(lab: &Lab, server: SocketAddr) -> Result<()> {
    let request = query(&format!("{}.default.svc.cluster.local.", name(SERVICES - 1)), 1);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = lab.within(NODE, || ask_all(server, std::slice::from_ref(&request)))??.remove(0);
        if answer.get(7).is_some_and(|n| *n > 0) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{server} does not answer: {answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start_coredns(lab: &Lab, folder: &Path, _: &[String]) -> Result<(Server, Peer)> {
    let kubeconfig = folder.join("kubeconfig");
    let text = std::fs::read_to_string(lab.kubeconfig())?;
    let server = text.lines().find_map(|l| l.trim().strip_prefix("server: ")).context("a server")?;
    let controller = format!("https://{}:7443", Plan::controller_ip(Families::V4));
    std::fs::write(&kubeconfig, text.replace(server, &controller))?;
    // As kubeadm's, but for where the API is.
    let corefile = format!(
        ". {{\n errors\n kubernetes cluster.local in-addr.arpa ip6.arpa {{\n  kubeconfig {}\n  pods insecure\n  \
         fallthrough in-addr.arpa ip6.arpa\n  ttl 30\n }}\n forward . {} {{\n  max_concurrent 1000\n }}\n cache 30\n \
         loadbalance\n}}\n",
        kubeconfig.display(),
        Plan::fabric_ip(Families::V4)
    );
    let path = folder.join("Corefile");
    std::fs::write(&path, corefile)?;
    let path = path.display().to_string();
    let args = ["-c", CORES.0, &coredns()?.display().to_string(), "-conf", &path, "-dns.port", "5300"];
    let peer = Peer::start(lab, NODE, Path::new("taskset"), &args, folder.join("coredns.log"))?;
    let address = SocketAddr::new(LOCAL, 5300);
    Ok((Server { name: "CoreDNS", address, pid: peer.pid(), forwards: true }, peer))
}

fn start_unbound(lab: &Lab, folder: &Path, addresses: &[String]) -> Result<(Server, Peer)> {
    let root = debian(&["unbound"])?;
    let mut text = format!(
        "server:\n interface: 127.0.0.1@5301\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n directory: \"{0}\"\n \
         pidfile: \"\"\n use-syslog: no\n verbosity: 0\n local-zone: \"cluster.local.\" static\n",
        folder.display()
    );
    for (i, ip) in addresses.iter().enumerate() {
        writeln!(text, " local-data: \"{}.default.svc.cluster.local. 5 IN A {ip}\"", name(i))?;
    }
    text.push_str("remote-control:\n control-enable: no\n");
    let path = folder.join("unbound.conf");
    std::fs::write(&path, text)?;
    let (program, path) = (root.join("usr/sbin/unbound").display().to_string(), path.display().to_string());
    let args = ["-c", CORES.0, &program, "-d", "-c", &path];
    let peer = Peer::start(lab, NODE, Path::new("taskset"), &args, folder.join("unbound.log"))?;
    let address = SocketAddr::new(LOCAL, 5301);
    Ok((Server { name: "unbound", address, pid: peer.pid(), forwards: false }, peer))
}

fn start_knot(lab: &Lab, folder: &Path, addresses: &[String]) -> Result<(Server, Peer)> {
    let root =
        debian(&["knot", "libknot13", "libdnssec9", "libzscanner4", "liburcu8", "liblmdb0", "libfstrm0"])?;
    let folder = folder.join("knot");
    std::fs::create_dir_all(&folder)?;
    let mut zone = String::from(
        "$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n",
    );
    for (i, ip) in addresses.iter().enumerate() {
        writeln!(zone, "{}.default.svc A {ip}", name(i))?;
    }
    std::fs::write(folder.join("cluster.local.zone"), zone)?;
    let at = folder.display();
    let text = format!(
        "server:\n  rundir: \"{at}\"\n  listen: 127.0.0.1@5302\n  udp-workers: 1\n  tcp-workers: 1\ndatabase:\n  storage: \
         \"{at}\"\ntemplate:\n  - id: default\n    storage: \"{at}\"\n    file: \"%s.zone\"\nzone:\n  - domain: cluster.local\n"
    );
    let path = folder.join("knot.conf");
    std::fs::write(&path, text)?;
    let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let (program, path) = (root.join("usr/sbin/knotd").display().to_string(), path.display().to_string());
    let libraries = format!("LD_LIBRARY_PATH={}", libraries.display());
    let args = [&libraries, "taskset", "-c", CORES.0, &program, "-c", &path];
    let peer = Peer::start(lab, NODE, Path::new("env"), &args, folder.join("knot.log"))?;
    let address = SocketAddr::new(LOCAL, 5302);
    Ok((Server { name: "knot", address, pid: peer.pid(), forwards: false }, peer))
}

/// Seconds of CPU that the process has used.
fn cpu(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    // Fields 14 and 15, utime and stime (proc_pid_stat(5)); `rest` begins with field 3.
    let ticks: Vec<f64> = rest.split(' ').skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
    // USER_HZ is 100 on every Linux that we run on.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn dnsperf(lab: &Lab, server: &Server, queries: &Path, seconds: u32) -> Result<Run> {
    let (address, port) = (server.address.ip().to_string(), server.address.port().to_string());
    let (queries, seconds) = (queries.display().to_string(), seconds.to_string());
    let argv =
        ["taskset", "-c", CORES.1, "dnsperf", "-s", &address, "-p", &port, "-d", &queries, "-l", &seconds];
    let argv = [&argv[..], &["-c", "8", "-q", "200", "-t", "2"]].concat();
    let before = cpu(server.pid)?;
    let output = lab.exec(NODE, &argv)?;
    let used = cpu(server.pid)? - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |label: &str| -> Result<f64> {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(label));
        let word =
            line.and_then(|l| l.split_whitespace().next()).with_context(|| format!("{label} in {text}"))?;
        Ok(word.parse()?)
    };
    let completed = value("Queries completed:")?;
    let lost = value("Queries lost:")?;
    ensure!(lost <= completed / 1000.0, "{}: {lost} queries lost of {completed}", server.name);
    let run = Run {
        queries_per_second: value("Queries per second:")?,
        cpu_us: used * 1e6 / completed,
        average_ms: value("Average Latency (s):")? * 1e3,
    };
    eprintln!(
        "{}: {} queries/s, {} µs of CPU each",
        server.name,
        number(run.queries_per_second),
        number(run.cpu_us)
    );
    Ok(run)
}
