//! At size, on a real Kubernetes: thousands of Services in a real API server, followed by eastwest on one node and by
//! kube-proxy (nftables) and CoreDNS on the other. How long after the last write each node has it, how long one change
//! takes among a hundred changes a second, and what the programs cost meanwhile.
//!
//! The cluster is `tests/k8s/cluster`'s. Probes run in the nodes' own network: a process of the node connects to a virtual
//! IP, or asks for a name, over and over, and notes when the answer becomes another one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use eastwest_client::{Client, WriteOptions};
use eastwest_model::{EndpointSlice, Kind, Service};
use serde_json::{Value, json};

use crate::apply;
use crate::report::{Report, median, number, percentile};

const CLUSTER: &str = "size";
/// Where the probes' connections end: two addresses of the machine `client` on the cluster's network.
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 100), Ipv4Addr::new(10, 77, 0, 101)];
const PORT: u16 = 7001;
const PROBE: &str = "probe";
const PROBE_NAME: &str = "probe-name";
/// Changes a second to Services other than the probes'.
const RATE: u32 = 100;
/// Between two changes of the probes' endpoints.
const TURN: Duration = Duration::from_millis(1500);

/// A node with the programs on it that are weighed.
const EASTWEST: (&str, &[&str]) = ("n1", &["eastwest-agent", "eastwest-controller"]);
const PEERS: (&str, &[&str]) = ("n2", &["kube-proxy", "coredns"]);

pub fn run(report: &mut Report, image: &Path) -> Result<()> {
    let cluster = Cluster::up(image)?;
    let sizes: &[usize] = if report.quick { &[100, 1_000] } else { &[10_000, 44_000] };
    let turns = if report.quick { 10 } else { 40 };
    let listener = cluster.inside("client", &["size-serve"])?;
    let (mut have, mut all) = (0, Vec::new());
    for &size in sizes {
        let result = cluster.measure(have, size, turns)?;
        for (figure, ours, theirs, unit) in result.figures(size) {
            report.ratio(figure, (ours, unit), (theirs, unit));
        }
        all.push(result.raw);
        have = size;
    }
    drop(listener);
    report.save("size", Value::Array(all))
}

/// The cluster; it goes down when dropped.
struct Cluster {
    script: PathBuf,
    kubeconfig: PathBuf,
}

/// What one size gave: the nodes' values in the order eastwest, peers.
struct Measured {
    raw: Value,
    programmed_s: [f64; 2],
    service_ms: [Vec<f64>; 2],
    name_ms: [Vec<f64>; 2],
    cpu_s: [f64; 2],
    rss_mb: [f64; 2],
}

impl Measured {
    fn figures(&self, size: usize) -> Vec<(String, f64, f64, &'static str)> {
        let pair = |f: &dyn Fn(usize) -> f64| (f(0), f(1));
        let mut rows = Vec::new();
        let mut row = |what: &str, (ours, theirs): (f64, f64), unit| {
            rows.push((format!("{what}, {size} Services"), ours, theirs, unit))
        };
        row("last of all writes → node has it", pair(&|i| self.programmed_s[i]), "s");
        row("endpoint changed → connections follow, p50", pair(&|i| median(&self.service_ms[i])), "ms");
        row("the same, p99", pair(&|i| percentile(&self.service_ms[i], 99.0)), "ms");
        row("endpoint changed → name follows, p50", pair(&|i| median(&self.name_ms[i])), "ms");
        row("CPU of both programs while changing", pair(&|i| self.cpu_s[i]), "s");
        row("RSS of both programs", pair(&|i| self.rss_mb[i]), "MB");
        rows
    }
}

impl Cluster {
    fn up(image: &Path) -> Result<Self> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../k8s/cluster");
        let state = PathBuf::from("/var/tmp/eastwest-k8s").join(CLUSTER);
        let cluster = Self { script, kubeconfig: state.join("admin.conf") };
        let image = image.to_str().context("the image's path is not text")?;
        cluster.call(&["up", "--nodes", "2", "--proxy", "none", "--dns", "none", "--image", image], None)?;
        let folder = cluster.script.parent().context("tests/k8s")?.join("manifests");
        let on = |node: &str| {
            format!(
                r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"kubernetes.io/hostname":"{node}"}}}}}}}}}}"#
            )
        };
        let read =
            |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| format!("read {name}"));
        cluster.kubectl(&["apply", "-k", folder.join("eastwest").to_str().context("path")?], None)?;
        cluster
            .kubectl(&["apply", "-f", "-"], Some(&read("kube-proxy.yaml")?.replace("@MODE@", "nftables")))?;
        // Its memory limit is for small clusters.
        let coredns = read("coredns.yaml")?
            .replace(", limits: { memory: 170Mi }", "")
            .replace("replicas: 2", "replicas: 1");
        cluster.kubectl(&["apply", "-f", "-"], Some(&coredns))?;
        for (node, kind, name) in [
            (EASTWEST.0, "daemonset", "eastwest-agent"),
            (EASTWEST.0, "deployment", "eastwest-controller"),
            (PEERS.0, "daemonset", "kube-proxy"),
            (PEERS.0, "deployment", "coredns"),
        ] {
            cluster.kubectl(&["-n", "kube-system", "patch", kind, name, "-p", &on(node)], None)?;
        }
        cluster.kubectl(
            &["-n", "kube-system", "scale", "deployment/eastwest-controller", "--replicas=1"],
            None,
        )?;
        for part in [
            "daemonset/eastwest-agent",
            "deployment/eastwest-controller",
            "daemonset/kube-proxy",
            "deployment/coredns",
        ] {
            cluster.kubectl(&["-n", "kube-system", "rollout", "status", part, "--timeout=180s"], None)?;
        }
        cluster.call(
            &["exec", "client", "ip", "addr", "add", &format!("{}/24", ENDS[1]), "dev", "eth0"],
            None,
        )?;
        Ok(cluster)
    }

    /// Runs the script; what it prints.
    fn call(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut child = Command::new(&self.script)
            .args(arguments)
            .env("K8S_NAME", CLUSTER)
            .stdin(Stdio::piped())
            .stdout(if arguments[0] == "up" { Stdio::null() } else { Stdio::piped() })
            .spawn()
            .with_context(|| format!("run {}", self.script.display()))?;
        if let Some(input) = input {
            child.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "tests/k8s/cluster {} failed", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        self.call(&[&["kubectl"], arguments].concat(), input)
    }

    /// This program with other arguments inside a node, or in the network of `cp` or `client`; its output is read line by line.
    fn inside(&self, place: &str, arguments: &[&str]) -> Result<Inside> {
        let me = std::env::current_exe()?;
        let mut child = Command::new(&self.script)
            .args(["exec", place])
            .arg(me)
            .args(arguments)
            .env("K8S_NAME", CLUSTER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("standard output")?);
        Ok(Inside { child, lines })
    }

    fn measure(&self, have: usize, size: usize, turns: usize) -> Result<Measured> {
        let kubeconfig = self.kubeconfig.to_str().context("path")?;
        let say = |what: &str| eprintln!("size {size}: {what}");
        // What is written last of all is the probe's Service: a node that has it has all.
        say("writing");
        let mut writer =
            self.inside("cp", &["size-write", kubeconfig, &have.to_string(), &size.to_string()])?;
        let written: f64 = writer.line()?.parse()?;
        writer.end()?;
        let address =
            |name: &str| self.kubectl(&["get", "service", name, "-o", "jsonpath={.spec.clusterIP}"], None);
        let virtual_ip = address(PROBE)?;
        let coredns = self.kubectl(
            &[
                "-n",
                "kube-system",
                "get",
                "pods",
                "-l",
                "k8s-app=kube-dns",
                "-o",
                "jsonpath={.items[0].status.podIP}",
            ],
            None,
        )?;
        let mut programmed_s = [0.0; 2];
        let mut services = Vec::new();
        let mut names = Vec::new();
        for (i, (node, resolver)) in
            [(EASTWEST.0, "169.254.20.10"), (PEERS.0, coredns.as_str())].into_iter().enumerate()
        {
            let mut service = self.inside(node, &["size-probe", &format!("{virtual_ip}:{PORT}")])?;
            programmed_s[i] = service.event()?.0 - written;
            services.push(service);
            names.push(self.inside(node, &["size-probe", "--name", &format!("{resolver}:53")])?);
        }
        say(&format!(
            "the nodes had it {} s and {} s after the last write",
            number(programmed_s[0]),
            number(programmed_s[1])
        ));

        let before = [self.weigh(EASTWEST)?, self.weigh(PEERS)?];
        say(&format!("{RATE} changes a second"));
        let mut writer =
            self.inside("cp", &["size-change", kubeconfig, &size.to_string(), &turns.to_string()])?;
        let mut changes: Vec<(f64, usize)> = Vec::new();
        for _ in 0..turns {
            changes.push(event(&writer.line()?)?);
        }
        let rate: f64 = writer.line()?.parse()?;
        writer.end()?;
        let after = [self.weigh(EASTWEST)?, self.weigh(PEERS)?];
        let mut seen = Vec::new();
        for probes in [&mut services, &mut names] {
            for probe in probes.iter_mut() {
                seen.push(probe.stop()?);
            }
        }
        let delays: Vec<Vec<f64>> =
            seen.iter().map(|events| delays(&changes, events)).collect::<Result<_>>()?;
        let [service_a, service_b, name_a, name_b]: [Vec<f64>; 4] =
            delays.try_into().ok().context("four probes")?;
        let cpu_s = [after[0].0 - before[0].0, after[1].0 - before[1].0];
        let rss_mb = [after[0].1, after[1].1];
        let raw = json!({"services": size, "endpoints": size * apply::ENDPOINTS, "changes_per_second": rate,
            "eastwest": {"programmed_s": programmed_s[0], "service_ms": service_a, "name_ms": name_a, "cpu_s": cpu_s[0], "rss_mb": rss_mb[0]},
            "kube-proxy and CoreDNS": {"programmed_s": programmed_s[1], "service_ms": service_b, "name_ms": name_b, "cpu_s": cpu_s[1], "rss_mb": rss_mb[1]}});
        Ok(Measured {
            raw,
            programmed_s,
            service_ms: [service_a, service_b],
            name_ms: [name_a, name_b],
            cpu_s,
            rss_mb,
        })
    }

    /// Seconds of CPU and megabytes of the node's programs so far.
    fn weigh(&self, (node, programs): (&str, &[&str])) -> Result<(f64, f64)> {
        let (mut cpu, mut rss) = (0.0, 0.0);
        for program in programs {
            // As of a kernel that counts a hundred ticks a second, as all do for /proc (proc(5)).
            let script = format!(
                "for p in $(pgrep -f '/{program} |/{program}$'); do cat /proc/$p/stat; grep VmRSS /proc/$p/status; done"
            );
            let text = self.call(&["exec", node, "sh", "-c", &script], None)?;
            let mut found = false;
            for line in text.lines() {
                if let Some(kilobytes) = line.strip_prefix("VmRSS:") {
                    rss += kilobytes.trim().trim_end_matches(" kB").parse::<f64>()? / 1000.0;
                } else if let Some((name, rest)) = line.rsplit_once(')')
                    && program.starts_with(name.split_once('(').map_or("", |x| x.1))
                {
                    let fields: Vec<&str> = rest.split_whitespace().collect();
                    // User and system time, fields 14 and 15; the state is field 3 and the first here.
                    cpu += (fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0;
                    found = true;
                }
            }
            ensure!(found, "no {program} on {node}");
        }
        Ok((cpu, rss))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.call(&["down"], None) {
            eprintln!("{error:#}");
        }
    }
}

/// A child whose output is events; its end of standard input ends it.
struct Inside {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Inside {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.lines.read_line(&mut line)? > 0, "a process inside the cluster ended early");
        Ok(line.trim().to_owned())
    }

    fn event(&mut self) -> Result<(f64, usize)> {
        event(&self.line()?)
    }

    /// Closes its input and takes the events that are left.
    fn stop(&mut self) -> Result<Vec<(f64, usize)>> {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest)?;
        self.child.wait()?;
        rest.lines().map(event).collect()
    }

    fn end(&mut self) -> Result<()> {
        ensure!(self.child.wait()?.success(), "a process inside the cluster failed");
        Ok(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

/// `SECONDS END`: when, and which of the two ends from then on.
fn event(line: &str) -> Result<(f64, usize)> {
    let (time, end) = line.split_once(' ').with_context(|| format!("not an event: {line:?}"))?;
    Ok((time.parse()?, end.parse()?))
}

/// Milliseconds from each change to the first moment at which the probe saw it. A change that was not seen before the next
/// one counts with all the time until then.
fn delays(changes: &[(f64, usize)], seen: &[(f64, usize)]) -> Result<Vec<f64>> {
    ensure!(!changes.is_empty(), "no changes");
    let end = changes.iter().map(|c| c.0).fold(0.0, f64::max) + TURN.as_secs_f64();
    let next = changes.iter().skip(1).map(|c| c.0).chain([end]);
    let delay = |(&(at, to), until): (&(f64, usize), f64)| {
        let first = seen.iter().find(|(t, e)| *e == to && *t >= at && *t < until);
        (first.map_or(until, |x| x.0) - at) * 1000.0
    };
    Ok(changes.iter().zip(next).map(delay).collect())
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// True once standard input has been closed: whoever started this wants it to end.
fn watch_input() -> std::sync::Arc<std::sync::atomic::AtomicBool> {
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = ended.clone();
    std::thread::spawn(move || {
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    ended
}

/// On `client`: tells every connection at which of the ends it arrived.
pub fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let ended = watch_input();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let end = stream.local_addr().ok().and_then(|a| ENDS.iter().position(|e| a.ip() == *e));
            stream.write_all(&[end.unwrap_or(9) as u8]).ok();
        }
    });
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// On a node: prints when the end that is reached (or named) becomes another one.
pub fn probe(to: SocketAddr, name: bool) -> Result<()> {
    let ended = watch_input();
    let mut last = None;
    let mut turn = 0u16;
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        turn = turn.wrapping_add(1);
        let end = if name { resolve(to, turn) } else { connect(to) };
        if let Ok(end) = end
            && last != Some(end)
        {
            println!("{:.6} {end}", now());
            last = Some(end);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn connect(to: SocketAddr) -> Result<usize> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(200))?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut end = [0];
    stream.read_exact(&mut end)?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    ensure!(end[0] < 2, "not one of the ends");
    Ok(usize::from(end[0]))
}

fn resolve(server: SocketAddr, id: u16) -> Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.connect(server)?;
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [PROBE_NAME, "default", "svc", "cluster", "local", ""] {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 1, 0, 1]);
    socket.send(&query)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let answer = &answer[..length];
    ensure!(answer.get(..2) == Some(&id.to_be_bytes()), "another question's answer");
    // One address record is what the name has: its data is four bytes of the answer.
    let position =
        ENDS.iter().position(|e| answer.windows(6).any(|w| w == [&[0, 4], &e.octets()[..]].concat()));
    position.context("no address")
}

/// In the control plane's network: writes Services `from..to`, then the probes', and prints when the last was acknowledged.
pub async fn write(kubeconfig: &Path, from: usize, to: usize) -> Result<()> {
    let client = Client::from_path(Some(kubeconfig), None).await?;
    apply::fill(&client, from, to).await?;
    let options = WriteOptions::default();
    for name in [PROBE, PROBE_NAME] {
        // A second size finds the first one's probes: they are written anew, so that the last write is again theirs.
        client.delete(Kind::EndpointSlice, "default", &format!("{name}-1"), &options).await.ok();
        client.delete(Kind::Service, "default", name, &options).await.ok();
    }
    for name in [PROBE_NAME, PROBE] {
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": PORT, "targetPort": PORT}]}});
        if name == PROBE_NAME {
            service["spec"]["clusterIP"] = "None".into();
        }
        client.create::<Service>(&serde_json::from_value(service)?, &options).await?;
        client.create(&probe_slice(name, 0)?, &options).await?;
    }
    println!("{:.6}", now());
    Ok(())
}

fn probe_slice(name: &str, end: usize) -> Result<EndpointSlice> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": [{"addresses": [ENDS[end]], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
    }))?)
}

/// In the control plane's network: `RATE` changes a second to slices of the `size` Services, and each `TURN` the other end for
/// the probes: `turns` times. Prints an event for each turn, at the moment before its writes, and at last the rate it held.
pub async fn change(kubeconfig: &Path, size: usize, turns: usize) -> Result<()> {
    let client = Client::from_path(Some(kubeconfig), None).await?;
    let background = client.clone();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = count.clone();
    let load = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(32));
        let mut i = 0usize;
        loop {
            tick.tick().await;
            // A server that cannot keep up gets fewer: the rate that was held is part of the result.
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let (client, counter) = (background.clone(), counter.clone());
            let which = i * 7919 % size;
            let turn = i / size + 1 + i % 2;
            i += 1;
            tokio::spawn(async move {
                let _permit = permit;
                let Ok(slice) = apply::slice(which, turn) else { return };
                if client.replace(&slice, &WriteOptions::default()).await.is_ok() {
                    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    let start = std::time::Instant::now();
    for turn in 1..=turns {
        tokio::time::sleep(TURN).await;
        let end = turn % 2;
        let time = now();
        for name in [PROBE, PROBE_NAME] {
            client.replace(&probe_slice(name, end)?, &WriteOptions::default()).await?;
        }
        println!("{time:.6} {end}");
    }
    tokio::time::sleep(TURN).await;
    load.abort();
    let made = count.load(std::sync::atomic::Ordering::Relaxed);
    if made == 0 {
        bail!("no change was accepted");
    }
    println!("{:.1}", made as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
