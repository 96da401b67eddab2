//! The table on a Kubernetes of `tests/k8s`, with whatever serves its Services there.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::k8s::{Kubernetes, serving};
use crate::probe::{Probe, Seen};
use crate::{Cluster, Family, Pod, Protocol, Table};

/// A Kubernetes with the nodes and pods of a table.
pub struct OnKubernetes {
    k8s: Kubernetes,
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
        let nodes: Vec<String> = table.cluster.nodes.keys().cloned().collect();
        let mut this = Self {
            k8s: Kubernetes::up(name, nodes.len(), options, image)?,
            pods: table.cluster.pods.clone(),
            nodes,
            addresses: BTreeMap::new(),
            pids: BTreeMap::new(),
            probe,
            settled: Cell::new(0),
        };
        for (node, described) in &table.cluster.nodes {
            let zone = format!("topology.kubernetes.io/zone={}", described.zone);
            this.k8s.kubectl(&["label", "--overwrite", "node", &this.node(node)?, &zone], None)?;
        }
        for (name, pod) in &table.cluster.pods {
            let version = pod.labels.get("version").map_or("", String::as_str);
            let (node, labels) = (this.node(&pod.node)?, json!(pod.labels));
            let mut manifest = serving(name, &pod.node, &labels, pod.port, version, pod.host_network);
            manifest["spec"]["nodeName"] = node.into();
            this.k8s.kubectl(&["create", "-f", "-"], Some(&manifest))?;
        }
        for name in table.cluster.pods.keys() {
            let found = this.k8s.ready(name)?;
            let ips = found["status"]["podIPs"].as_array().context("podIPs")?;
            let ips = ips.iter().filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect();
            this.addresses.insert(name.clone(), ips);
            this.pids.insert(name.clone(), this.k8s.pid(&found)?);
        }
        Ok(this)
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
        self.k8s.until(&format!("endpoints of {name}"), || {
            let slices = self.k8s.get(&["endpointslices", "-l", &label])?;
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
        self.k8s.kubectl(&["apply", "-f", "-"], Some(&objects))?;
        let service = self.k8s.get(&["service", "settled"])?;
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
            self.k8s.until(&format!("{node} up to date"), || {
                let seen = self.probe(node, &probe)?;
                Ok(matches!(seen[..], [Seen::Answered { .. }]).then_some(()))
            })?;
        }
        Ok(())
    }
}

fn kind_and_name(object: &Value) -> Result<(String, &str)> {
    let kind = object["kind"].as_str().context("kind")?.to_lowercase();
    Ok((kind, object["metadata"]["name"].as_str().context("metadata.name")?))
}

impl Cluster for OnKubernetes {
    fn create(&self, object: &Value) -> Result<Value> {
        let stored =
            serde_json::from_str(&self.k8s.kubectl(&["create", "-o", "json", "-f", "-"], Some(object))?)?;
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
        let stored = serde_json::from_str(&self.k8s.kubectl(&args, None)?)?;
        self.settle()?;
        Ok(stored)
    }

    fn delete(&self, object: &Value) -> Result<()> {
        let (kind, name) = kind_and_name(object)?;
        self.k8s.kubectl(&["delete", &kind, name, "--ignore-not-found"], None).map(drop)
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
            _ if from == "client" => self.k8s.run(&["exec", "client", program, &probe], None)?,
            None => self.k8s.run(&["exec", &self.node(from)?, program, &probe], None)?,
            Some(pod) if pod.host_network => {
                self.k8s.run(&["exec", &self.node(&pod.node)?, program, &probe], None)?
            }
            Some(pod) => {
                let (node, pid) = (self.node(&pod.node)?, &self.pids[from]);
                self.k8s.run(&["exec", &node, "nsenter", "-t", pid, "--net", "--", program, &probe], None)?
            }
        };
        Ok(serde_json::from_str(&output)?)
    }

    fn route(&self, to: IpAddr, via: &str) -> Result<()> {
        let via = Self::nic(10 + self.number(via)?).into_iter().find(|v| v.is_ipv4() == to.is_ipv4());
        let (to, via) = (to.to_string(), via.context("an address")?.to_string());
        self.k8s.run(&["exec", "client", "ip", "route", "replace", &to, "via", &via], None).map(drop)
    }
}
