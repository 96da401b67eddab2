use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The whole file; `services.yaml` explains each field.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Further words of the agents' command lines.
    #[serde(default)]
    pub agents: Vec<String>,
    pub cluster: Topology,
    pub scenarios: Vec<Scenario>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    pub nodes: BTreeMap<String, Node>,
    pub pods: BTreeMap<String, Pod>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub zone: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Pod {
    pub node: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub host_network: bool,
    #[serde(default = "Pod::usual_port")]
    pub port: u16,
}

impl Pod {
    fn usual_port() -> u16 {
        8080
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    #[serde(default)]
    pub services: Vec<Service>,
    #[serde(default)]
    pub slices: Vec<Slice>,
    #[serde(default)]
    pub objects: Vec<Value>,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub spec: Value,
    pub status: Option<Value>,
}

/// EndpointSlices, one of each family.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// Of the scenario's Services; the first when absent.
    pub service: Option<String>,
    /// By name; the targets of the Service's ports when absent.
    pub ports: Option<BTreeMap<String, Value>>,
    /// By pod.
    pub endpoints: BTreeMap<String, Endpoint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Endpoint {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
    pub zone: Option<String>,
    pub for_zones: Option<Vec<String>>,
    pub for_nodes: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    pub from: String,
    pub to: String,
    pub via: Option<String>,
    pub families: Option<Vec<Family>>,
    pub protocols: Option<Vec<Protocol>>,
    #[serde(flatten)]
    pub expected: Expected,
    pub kube_proxy: Option<KubeProxy>,
}

/// What a client sees.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Expected {
    #[serde(default)]
    pub verdict: Verdict,
    #[serde(default)]
    pub endpoints: Vec<String>,
    #[serde(default)]
    pub sticky: bool,
    pub shares: Option<BTreeMap<String, f64>>,
    pub source: Option<Source>,
}

/// Where kube-proxy differs, and why that is no fault of ours.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeProxy {
    pub verdict: Option<Verdict>,
    pub endpoints: Option<Vec<String>>,
    pub source: Option<Source>,
    pub because: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    #[default]
    Answered,
    /// At once: RST, or ICMP port unreachable.
    Refused,
    /// Nothing comes back.
    Dropped,
    /// Refused or dropped.
    Unanswered,
}

/// Whom a pod sees as its client: `client`, a node, or `other`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Source {
    Any(String),
    ByPod(BTreeMap<String, String>),
}

impl Source {
    /// For one pod.
    pub fn of(&self, pod: &str) -> &str {
        match self {
            Self::Any(source) => source,
            Self::ByPod(pods) => pods.get(pod).map_or("client", String::as_str),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    IPv4,
    IPv6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::IPv4, Self::IPv6];

    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::IPv4 } else { Self::IPv6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    TCP,
    UDP,
}

impl Table {
    /// The table of this project.
    pub fn services() -> Result<Self> {
        Self::parse(include_str!("../services.yaml"))
    }

    /// That of agents that masquerade all that goes to a ClusterIP.
    pub fn masquerade_all() -> Result<Self> {
        Self::parse(include_str!("../masquerade-all.yaml"))
    }

    pub fn parse(text: &str) -> Result<Self> {
        let table: Self = serde_yaml_ng::from_str(text).context("the table of scenarios")?;
        for scenario in &table.scenarios {
            for case in &scenario.cases {
                table.check(scenario, case).with_context(|| {
                    format!("scenario {:?}, from {} to {}", scenario.name, case.from, case.to)
                })?;
            }
        }
        Ok(table)
    }

    fn check(&self, scenario: &Scenario, case: &Case) -> Result<()> {
        use anyhow::ensure;
        let Topology { nodes, pods } = &self.cluster;
        let from = &case.from;
        ensure!(
            from == "client" || nodes.contains_key(from) || pods.contains_key(from),
            "{from} is no node, no pod and not `client`"
        );
        let expected = &case.expected;
        ensure!(
            expected.endpoints.is_empty() != (expected.verdict == Verdict::Answered),
            "`endpoints` are for a case that is answered, and only for one"
        );
        for pod in &expected.endpoints {
            ensure!(pods.contains_key(pod), "endpoint {pod} is no pod");
        }
        if let Some(via) = &case.via {
            ensure!(nodes.contains_key(via) && from == "client", "`via` names a node, for `client` alone");
        }
        let (service, _) = case.address();
        if let Some(service) = service {
            ensure!(scenario.services.iter().any(|s| s.name == service), "no Service {service} here");
        }
        Ok(())
    }
}

impl Case {
    /// The Service that `to` names, if it does, and the rest.
    pub fn address(&self) -> (Option<&str>, &str) {
        match self.to.split_once('/') {
            Some((service, address)) => (Some(service), address),
            None => (None, &self.to),
        }
    }

    /// What is expected of a proxy.
    pub fn expected_of(&self, proxy: crate::Proxy) -> Expected {
        let mut expected = self.expected.clone();
        if let (crate::Proxy::KubeProxy, Some(other)) = (proxy, &self.kube_proxy) {
            if let Some(verdict) = other.verdict {
                expected.verdict = verdict;
            }
            if let Some(endpoints) = &other.endpoints {
                expected.endpoints.clone_from(endpoints);
            }
            if let Some(source) = &other.source {
                expected.source = Some(source.clone());
            }
        }
        // It refuses by ICMP, of which the kernel sends a client about one a second (net.ipv4.icmp_ratelimit): whoever asks again
        // at once sees nothing. eastwest answers each time.
        if proxy == crate::Proxy::KubeProxy && expected.verdict == Verdict::Refused {
            expected.verdict = Verdict::Unanswered;
        }
        expected
    }
}
