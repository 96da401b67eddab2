//! The table on a Kubernetes of `tests/k8s`, with whatever serves its Services there.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::probe::{Probe, Seen};
use crate::{Cluster, Family, Pod, Protocol, Table};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the pods run: its program `eastwest` serves.
const IMAGE: &str = "localhost/eastwest:test";

/// A Kubernetes with the nodes and pods of a table. It is taken down when dropped.
pub struct OnKubernetes {
    name: String,
    pods: BTreeMap<String, Pod>,
    nodes: Vec<String>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Of the pods' processes, as their node counts them.
    pids: BTreeMap<String, String>,
    probe: PathBuf,
    settled: Cell<u16>,
}

impl OnKubernetes {
    /// `name` is the cluster's, `options` go to `tests/k8s/cluster up`, `image` is what `scripts/image` makes, and `probe` the
    /// path of `eastwest-probe`.
    pub fn up(table: &Table, name: &str, options: &[&str], image: &str, probe: PathBuf) -> Result<Self> {
        let mut this = Self {
            name: name.to_owned(),
            pods: table.cluster.pods.clone(),
            nodes: table.cluster.nodes.keys().cloned().collect(),
            addresses: BTreeMap::new(),
            pids: BTreeMap::new(),
            probe,
            settled: Cell::new(0),
        };
        let count = this.nodes.len().to_string();
        this.run(&[&["up", "--nodes", &count], options, &["--image", image]].concat(), None)?;
        for (node, described) in &table.cluster.nodes {
            let zone = format!("topology.kubernetes.io/zone={}", described.zone);
            this.kubectl(&["label", "--overwrite", "node", &this.node(node)?, &zone], None)?;
        }
        for (name, pod) in &table.cluster.pods {
            this.kubectl(&["create", "-f", "-"], Some(&this.manifest(name, pod)?))?;
        }
        for (name, pod) in &table.cluster.pods {
            let found = this.until(&format!("pod {name} ready"), || {
                let found = this.get(&["pod", name])?;
                let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
                Ok(ready.then_some(found))
            })?;
            let ips = found["status"]["podIPs"].as_array().context("podIPs")?;
            let ips = ips.iter().filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect();
            this.addresses.insert(name.clone(), ips);
            let id =
                found["status"]["containerStatuses"][0]["containerID"].as_str().context("containerID")?;
            let id = id.trim_start_matches("containerd://");
            let tasks =
                this.run(&["exec", &this.node(&pod.node)?, "ctr", "-n", "k8s.io", "tasks", "ls"], None)?;
            let pid = tasks.lines().find_map(|line| line.strip_prefix(id)?.split_whitespace().next());
            this.pids
                .insert(name.clone(), pid.with_context(|| format!("no process of pod {name}"))?.to_owned());
        }
        Ok(this)
    }

    fn manifest(&self, name: &str, pod: &Pod) -> Result<Value> {
        let port = pod.port.to_string();
        let version = pod.labels.get("version").map_or("", String::as_str);
        let command = [
            "/usr/bin/eastwest",
            "lab-serve",
            "--pod",
            name,
            "--node",
            &pod.node,
            "--port",
            &port,
            "--version-label",
            version,
        ];
        Ok(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": pod.labels},
        "spec": {
            "nodeName": self.node(&pod.node)?, "hostNetwork": pod.host_network, "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "serve", "image": IMAGE, "imagePullPolicy": "Never",
                "command": command,
                "ports": [{"name": "http", "containerPort": pod.port},
                          {"name": "udp", "containerPort": pod.port, "protocol": "UDP"}],
            }],
        }}))
    }

    /// The cluster's nodes are n1, n2, … in the table's order.
    fn number(&self, node: &str) -> Result<u16> {
        let at = self.nodes.iter().position(|n| n == node);
        Ok(at.with_context(|| format!("no node {node}"))? as u16 + 1)
    }

    fn node(&self, node: &str) -> Result<String> {
        Ok(format!("n{}", self.number(node)?))
    }

    /// As tests/k8s/lib/network.sh gives them.
    fn nic(host: u16) -> Vec<IpAddr> {
        let v6 = format!("fd00:77::{host}").parse().unwrap_or(Ipv6Addr::UNSPECIFIED);
        vec![Ipv4Addr::new(10, 77, 0, host as u8).into(), v6.into()]
    }

    /// `tests/k8s/cluster`.
    fn run(&self, args: &[&str], input: Option<&Value>) -> Result<String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/cluster");
        let mut command = Command::new(script);
        command.args(args).env("K8S_NAME", &self.name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| script.to_owned())?;
        let mut stdin = child.stdin.take().context("stdin")?;
        if let Some(input) = input {
            stdin.write_all(input.to_string().as_bytes())?;
        }
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    fn kubectl(&self, args: &[&str], input: Option<&Value>) -> Result<String> {
        self.run(&[&["kubectl"], args].concat(), input)
    }

    fn get(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], args].concat(), None)?)?)
    }

    fn until<T>(&self, what: &str, mut done: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            match done() {
                Ok(Some(found)) => return Ok(found),
                Ok(None) if Instant::now() < end => {}
                Ok(None) => bail!("{what}: not within {} s", PATIENCE.as_secs()),
                Err(e) if Instant::now() < end => drop(e),
                Err(e) => return Err(e.context(what.to_owned())),
            }
            sleep(Duration::from_millis(200));
        }
    }

    /// Until the cluster's own controller has made the EndpointSlices of a selector.
    fn selected(&self, service: &Value) -> Result<()> {
        let Some(selector) = service["spec"]["selector"].as_object() else { return Ok(()) };
        let families = service["spec"]["ipFamilies"].as_array().cloned().unwrap_or_default();
        let chosen =
            |pod: &Pod| selector.iter().all(|(k, v)| pod.labels.get(k).map(String::as_str) == v.as_str());
        let mut wanted = BTreeSet::new();
        for (name, _) in self.pods.iter().filter(|(_, pod)| chosen(pod)) {
            let of_family = |a: &&IpAddr| families.iter().any(|f| *f == Family::of(**a).to_string());
            wanted.extend(self.addresses[name].iter().filter(of_family).map(ToString::to_string));
        }
        let name = service["metadata"]["name"].as_str().context("a name")?;
        let label = format!("kubernetes.io/service-name={name}");
        self.until(&format!("endpoints of {name}"), || {
            let slices = self.get(&["endpointslices", "-l", &label])?;
            let slices = slices["items"].as_array().cloned().unwrap_or_default();
            let endpoints = slices.iter().flat_map(|s| s["endpoints"].as_array().into_iter().flatten());
            let found: BTreeSet<String> = endpoints
                .flat_map(|e| e["addresses"].as_array().into_iter().flatten())
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect();
            Ok((found == wanted).then_some(()))
        })
    }

    /// Until every node has programmed what was written before: watches keep their order, so when a Service and an
    /// EndpointSlice that were written last are in force together, what came before them is too.
    fn settle(&self) -> Result<()> {
        let nth = self.settled.get() + 1;
        self.settled.set(nth);
        let (name, port) = (format!("settled-{nth}"), 20_000 + nth);
        let first = self.pods.iter().find(|(_, pod)| !pod.host_network).context("a pod")?;
        let backend = self.addresses[first.0].iter().find(|a| a.is_ipv4()).context("an IPv4 address")?;
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "settled", "namespace": "default"},
             "spec": {"ports": [{"name": name, "port": port}]}},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
             "metadata": {"name": "settled", "namespace": "default",
                          "labels": {"kubernetes.io/service-name": "settled"}},
             "ports": [{"name": name, "port": first.1.port}],
             "endpoints": [{"addresses": [backend]}]}]});
        self.kubectl(&["apply", "-f", "-"], Some(&objects))?;
        let service = self.get(&["service", "settled"])?;
        let ip: IpAddr = service["spec"]["clusterIP"].as_str().context("clusterIP")?.parse()?;
        let probe = Probe {
            to: SocketAddr::new(ip, port),
            protocol: Protocol::TCP,
            least: 1,
            pods: 0,
            most: 1,
            patience: 500,
        };
        for node in &self.nodes {
            self.until(&format!("{node} up to date"), || {
                let seen = self.probe(node, &probe)?;
                Ok(matches!(seen[..], [Seen::Answered { .. }]).then_some(()))
            })?;
        }
        Ok(())
    }
}

impl Drop for OnKubernetes {
    fn drop(&mut self) {
        if let Err(e) = self.run(&["down"], None) {
            eprintln!("{e:#}");
        }
    }
}

fn kind_and_name(object: &Value) -> Result<(String, &str)> {
    let kind = object["kind"].as_str().context("kind")?.to_lowercase();
    Ok((kind, object["metadata"]["name"].as_str().context("metadata.name")?))
}

impl Cluster for OnKubernetes {
    fn create(&self, object: &Value) -> Result<Value> {
        let stored =
            serde_json::from_str(&self.kubectl(&["create", "-o", "json", "-f", "-"], Some(object))?)?;
        if object["kind"] == "Service" {
            self.selected(&stored)?;
        }
        self.settle()?;
        Ok(stored)
    }

    fn set_status(&self, object: &Value, status: &Value) -> Result<Value> {
        let (kind, name) = kind_and_name(object)?;
        let patch = json!({"status": status}).to_string();
        let args = ["patch", &kind, name, "--subresource=status", "--type=merge", "-o", "json", "-p", &patch];
        let stored = serde_json::from_str(&self.kubectl(&args, None)?)?;
        self.settle()?;
        Ok(stored)
    }

    fn delete(&self, object: &Value) -> Result<()> {
        let (kind, name) = kind_and_name(object)?;
        self.kubectl(&["delete", &kind, name, "--ignore-not-found"], None).map(drop)
    }

    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        if name == "client" {
            return Ok(Self::nic(100));
        }
        match self.addresses.get(name) {
            Some(addresses) => Ok(addresses.clone()),
            None => Ok(Self::nic(10 + self.number(name)?)),
        }
    }

    fn node_addresses(&self, node: &str) -> Result<Vec<IpAddr>> {
        let node = match self.pods.get(node) {
            Some(pod) if pod.host_network => &pod.node,
            _ => node,
        };
        let n = self.number(node)?;
        let mut addresses = Self::nic(10 + n);
        // The pods' router is the node.
        addresses.push(Ipv4Addr::new(10, 244, n as u8, 1).into());
        addresses.push(Ipv6Addr::new(0xfd00, 0x244, 0, n, 0, 0, 0, 1).into());
        Ok(addresses)
    }

    fn node_of(&self, pod: &str) -> Result<String> {
        self.node(&self.pods.get(pod).with_context(|| format!("no pod {pod}"))?.node)
    }

    fn probe(&self, from: &str, probe: &Probe) -> Result<Vec<Seen>> {
        let program = self.probe.to_str().context("a path in UTF-8")?;
        let probe = serde_json::to_string(probe)?;
        let output = match self.pods.get(from) {
            _ if from == "client" => self.run(&["exec", "client", program, &probe], None)?,
            None => self.run(&["exec", &self.node(from)?, program, &probe], None)?,
            Some(pod) if pod.host_network => {
                self.run(&["exec", &self.node(&pod.node)?, program, &probe], None)?
            }
            Some(pod) => {
                let (node, pid) = (self.node(&pod.node)?, &self.pids[from]);
                self.run(&["exec", &node, "nsenter", "-t", pid, "--net", "--", program, &probe], None)?
            }
        };
        Ok(serde_json::from_str(&output)?)
    }

    fn route(&self, to: IpAddr, via: &str) -> Result<()> {
        let via = Self::nic(10 + self.number(via)?).into_iter().find(|v| v.is_ipv4() == to.is_ipv4());
        let (to, via) = (to.to_string(), via.context("an address")?.to_string());
        self.run(&["exec", "client", "ip", "route", "replace", &to, "via", &via], None).map(drop)
    }
}
