//! The table on a lab.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use eastwest_lab::{Families, Lab, Options, Plan, PodSpec};
use serde_json::Value;

use crate::probe::{Probe, Seen};
use crate::{Cluster, Table};

/// A lab with the nodes and pods of a table.
pub struct OnLab {
    lab: Lab,
    plan: Plan,
    pods: std::collections::BTreeMap<String, crate::Pod>,
    probe: PathBuf,
}

impl OnLab {
    /// `probe` is the path of `eastwest-probe`.
    pub fn up(table: &Table, options: Options, probe: PathBuf) -> Result<Self> {
        let lab = Lab::up(options).context("lab up")?;
        let plan = lab.plan()?;
        let this = Self { lab, plan, pods: table.cluster.pods.clone(), probe };
        for (name, node) in &table.cluster.nodes {
            ensure!(this.plan.node_number(name).is_some(), "the lab has no {name}");
            let path = format!("/api/v1/nodes/{name}");
            let mut object = this.send("GET", &path, None)?;
            object["metadata"]["labels"]["topology.kubernetes.io/zone"] = node.zone.as_str().into();
            this.send("PUT", &path, Some(&object)).with_context(|| format!("zone of {name}"))?;
        }
        for (name, pod) in &table.cluster.pods {
            let mut spec = PodSpec::new(name, &pod.node)?;
            spec.host_network = pod.host_network;
            spec.port = pod.port;
            spec.labels.clone_from(&pod.labels);
            this.lab.run_pod(&spec).with_context(|| format!("pod {name}"))?;
        }
        Ok(this)
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let method: http::Method = method.parse()?;
        let query = if method == http::Method::GET { vec![] } else { wait() };
        let sent =
            self.lab.request(|client| async move { Ok(client.json(method, path, &query, body).await?) });
        Ok(sent?)
    }
}

fn wait() -> Vec<(&'static str, String)> {
    vec![("wait", "programmed".to_owned()), ("timeout", "20s".to_owned())]
}

/// Path of the collection an object is in.
fn collection(object: &Value) -> Result<String> {
    let api = object["apiVersion"].as_str().context("apiVersion")?;
    let kind = object["kind"].as_str().context("kind")?;
    let root = if api.contains('/') { "/apis" } else { "/api" };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    Ok(format!("{root}/{api}/namespaces/{namespace}/{}s", kind.to_lowercase()))
}

fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("metadata.name")
}

impl Cluster for OnLab {
    fn create(&self, object: &Value) -> Result<Value> {
        self.send("POST", &collection(object)?, Some(object))
    }

    fn set_status(&self, object: &Value, status: &Value) -> Result<Value> {
        let path = format!("{}/{}/status", collection(object)?, name(object)?);
        let mut object = object.clone();
        object["status"].clone_from(status);
        self.send("PUT", &path, Some(&object))
    }

    fn delete(&self, object: &Value) -> Result<()> {
        self.send("DELETE", &format!("{}/{}", collection(object)?, name(object)?), None).map(drop)
    }

    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        if name == "client" {
            return Ok(self.plan.families().iter().map(|f| Plan::client_ip(*f)).collect());
        }
        if let Some(n) = self.plan.node_number(name) {
            return Ok(self.plan.families().iter().map(|f| Plan::node_ip(n, *f)).collect());
        }
        let state = self.lab.state()?;
        let pod = state.pods.get(&name.parse()?).with_context(|| format!("no pod {name}"))?;
        Ok(pod.addresses.clone())
    }

    fn node_addresses(&self, node: &str) -> Result<Vec<IpAddr>> {
        let node = match self.pods.get(node) {
            Some(pod) if pod.host_network => &pod.node,
            _ => node,
        };
        let n = self.plan.node_number(node).with_context(|| format!("no node {node}"))?;
        let of = |f: &Families| [Plan::node_ip(n, *f), Plan::pod_ip(n, 1, *f)];
        Ok(self.plan.families().iter().flat_map(of).collect())
    }

    fn node_of(&self, pod: &str) -> Result<String> {
        Ok(self.pods.get(pod).with_context(|| format!("no pod {pod}"))?.node.clone())
    }

    fn probe(&self, from: &str, probe: &Probe) -> Result<Vec<Seen>> {
        let program = self.probe.to_str().context("a path in UTF-8")?;
        let output = self.lab.exec(from, &[program, &serde_json::to_string(probe)?])?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn route(&self, to: IpAddr, via: &str) -> Result<()> {
        let family = if to.is_ipv4() { Families::V4 } else { Families::V6 };
        let n = self.plan.node_number(via).with_context(|| format!("no node {via}"))?;
        let (to, via) = (to.to_string(), Plan::node_ip(n, family).to_string());
        let output = self.lab.exec("client", &["ip", "route", "replace", &to, "via", &via])?;
        ensure!(output.status.success(), "ip route: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
