//! Moves single nodes. Which of the two serves a node is said by labels of the node: the agents' DaemonSet may select one,
//! and kube-proxy's keeps off nodes with the other.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::output::say;

/// A node with this label, of value `true`, is the agents' where their DaemonSet selects by it.
const AGENT: &str = "eastwest.dev/agent";
/// A node with this label, of value `off`, has no kube-proxy.
const KUBE_PROXY: &str = "eastwest.dev/kube-proxy";
const PERIOD: Duration = Duration::from_millis(500);

/// See the module.
pub struct Mover {
    client: Client,
    namespace: String,
    /// Name of kube-proxy's DaemonSet; of it and of the agents' what was found.
    name: String,
    kube_proxy: DaemonSet,
    agents: DaemonSet,
    drain: Duration,
    timeout: Duration,
}

impl Mover {
    pub async fn new(
        client: Client,
        namespace: String,
        name: String,
        drain: Duration,
        timeout: Duration,
    ) -> Result<Self> {
        let sets = |namespace: &str| Api::<DaemonSet>::namespaced(client.clone(), namespace);
        let agents = sets(&namespace).get("eastwest-agent").await;
        let agents = agents
            .with_context(|| format!("DaemonSet {namespace}/eastwest-agent: install eastwest first"))?;
        let kube_proxy = sets("kube-system").get(&name).await;
        let kube_proxy = kube_proxy.with_context(|| format!("DaemonSet kube-system/{name}"))?;
        Ok(Self { client, namespace, name, kube_proxy, agents, drain, timeout })
    }

    /// Those that are meant, each known to exist.
    pub async fn nodes(&self, names: Vec<String>, all: bool) -> Result<Vec<String>> {
        let nodes = Api::<Node>::all(self.client.clone());
        if all {
            let linux = ListParams::default().labels("kubernetes.io/os=linux");
            return Ok(nodes.list(&linux).await?.items.into_iter().filter_map(|n| n.metadata.name).collect());
        }
        for name in &names {
            nodes.get(name).await.with_context(|| format!("node {name}"))?;
        }
        Ok(names)
    }

    /// kube-proxy goes only when the node's agent is ready: at each moment one of the two serves. Its rules stay while
    /// connections are open that the kernel translates by them.
    pub async fn over(&self, node: &str) -> Result<()> {
        self.keep_off().await?;
        if !self.selects_some() {
            say!("{node}: the agents are on all nodes");
        }
        self.label(node, AGENT, Some("true")).await?;
        self.until(node, "the agent ready", async || self.agent_ready(node).await).await?;
        self.label(node, KUBE_PROXY, Some("off")).await?;
        self.until(node, "kube-proxy gone", async || self.kube_proxy_gone(node).await).await?;
        tokio::time::sleep(self.drain).await;
        self.run(node, "kube-proxy's rules removed", self.kube_proxy_cleanup(node)?).await
    }

    /// The agent goes only when kube-proxy is there again; what is programmed stays until open connections have ended.
    pub async fn back(&self, node: &str) -> Result<()> {
        self.let_back(node).await?;
        self.label(node, KUBE_PROXY, None).await?;
        self.until(node, "kube-proxy ready", async || self.kube_proxy_ready(node).await).await?;
        if !self.selects_some() {
            say!(
                "{node}: the agents are on all nodes: uninstall eastwest, then run `eastwest-agent cleanup` on each"
            );
            return Ok(());
        }
        self.label(node, AGENT, None).await?;
        self.until(node, "the agent gone", async || self.agent_gone(node).await).await?;
        self.run(node, "eastwest's programs removed", self.agent_cleanup(node)?).await
    }

    /// Whether agents are where the label is only.
    fn selects_some(&self) -> bool {
        let template = self.agents.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        template.and_then(|t| t.node_selector.as_ref()).is_some_and(|s| s.contains_key(AGENT))
    }

    /// Lets kube-proxy's DaemonSet heed the label. It is to be restarted nowhere for that, so its pods are replaced by hand
    /// as long as the label is in use.
    async fn keep_off(&self) -> Result<()> {
        let mut affinity = self.affinity().await?;
        if !add_rule(&mut affinity) {
            return Ok(());
        }
        self.patch_kube_proxy(affinity, "OnDelete").await?;
        say!("DaemonSet kube-system/{}: keeps off nodes with {KUBE_PROXY}=off", self.name);
        Ok(())
    }

    /// When a node is the last that kube-proxy keeps off, its DaemonSet is made what it was.
    async fn let_back(&self, node: &str) -> Result<()> {
        let off = ListParams::default().labels(&format!("{KUBE_PROXY}=off"));
        let others = Api::<Node>::all(self.client.clone()).list(&off).await?.items;
        let mut affinity = self.affinity().await?;
        if others.iter().any(|n| n.metadata.name.as_deref() != Some(node)) || !remove_rule(&mut affinity) {
            return Ok(());
        }
        self.patch_kube_proxy(affinity, "RollingUpdate").await?;
        say!("DaemonSet kube-system/{}: as it was", self.name);
        Ok(())
    }

    async fn affinity(&self) -> Result<Value> {
        let set = Api::<DaemonSet>::namespaced(self.client.clone(), "kube-system").get(&self.name).await?;
        let template = set.spec.and_then(|s| s.template.spec).context("a DaemonSet without pods")?;
        Ok(template.affinity.map(serde_json::to_value).transpose()?.unwrap_or(Value::Null))
    }

    async fn patch_kube_proxy(&self, affinity: Value, strategy: &str) -> Result<()> {
        let rolling = if strategy == "OnDelete" { Value::Null } else { json!({}) };
        let patch = json!({"spec": {"template": {"spec": {"affinity": affinity}},
            "updateStrategy": {"type": strategy, "rollingUpdate": rolling}}});
        // A JSON merge leaves what is not named: the affinity is to be replaced.
        let clear = json!({"spec": {"template": {"spec": {"affinity": null}},
            "updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}});
        let sets = Api::<DaemonSet>::namespaced(self.client.clone(), "kube-system");
        for patch in [clear, patch] {
            let patched = sets.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.context("kube-proxy's DaemonSet")?;
        }
        Ok(())
    }

    async fn label(&self, node: &str, label: &str, value: Option<&str>) -> Result<()> {
        let patch = json!({"metadata": {"labels": {label: value}}});
        let nodes = Api::<Node>::all(self.client.clone());
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.context("its labels")?;
        Ok(())
    }

    async fn pods(&self, set: &DaemonSet, namespace: &str, node: &str) -> Result<Vec<Pod>> {
        let labels = set.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let params = ListParams::default().labels(&labels.join(",")).fields(&format!("spec.nodeName={node}"));
        Ok(Api::<Pod>::namespaced(self.client.clone(), namespace).list(&params).await?.items)
    }

    async fn agent_ready(&self, node: &str) -> Result<bool> {
        Ok(self.pods(&self.agents, &self.namespace, node).await?.iter().any(ready))
    }

    async fn agent_gone(&self, node: &str) -> Result<bool> {
        Ok(self.pods(&self.agents, &self.namespace, node).await?.is_empty())
    }

    async fn kube_proxy_ready(&self, node: &str) -> Result<bool> {
        Ok(self.pods(&self.kube_proxy, "kube-system", node).await?.iter().any(ready))
    }

    async fn kube_proxy_gone(&self, node: &str) -> Result<bool> {
        Ok(self.pods(&self.kube_proxy, "kube-system", node).await?.is_empty())
    }

    /// Asks again and again. A question that fails is asked again too: an API server may be busy.
    async fn until(&self, node: &str, what: &str, mut met: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let end = tokio::time::Instant::now() + self.timeout;
        loop {
            let answer = met().await;
            match answer {
                Ok(true) => break,
                Ok(false) if tokio::time::Instant::now() >= end => bail!("not {what} in time"),
                Err(e) if tokio::time::Instant::now() >= end => {
                    return Err(e.context(format!("not {what} in time")));
                }
                _ => tokio::time::sleep(PERIOD).await,
            }
        }
        say!("{node}: {what}");
        Ok(())
    }

    /// kube-proxy's own program removes what kube-proxy has made; its image is on the node already.
    fn kube_proxy_cleanup(&self, node: &str) -> Result<Pod> {
        let spec = self.kube_proxy.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        let container = spec.and_then(|s| s.containers.first()).context("a DaemonSet without containers")?;
        // The program alone: its configuration says what to make, not what to remove.
        let command = container.command.as_ref().and_then(|c| c.first()).map(|c| vec![c.clone()]);
        let container = json!({"name": "cleanup", "image": container.image, "imagePullPolicy": container.image_pull_policy,
            "command": command, "args": ["--cleanup"], "securityContext": {"privileged": true}});
        Ok(serde_json::from_value(pod(node, "kube-system", &container, &json!([]), None))?)
    }

    fn agent_cleanup(&self, node: &str) -> Result<Pod> {
        let spec = self
            .agents
            .spec
            .as_ref()
            .and_then(|s| s.template.spec.as_ref())
            .context("a DaemonSet without pods")?;
        let container = spec.containers.first().context("a DaemonSet without containers")?;
        let program = container.command.as_ref().and_then(|c| c.first()).context("the agent's command")?;
        let wanted = ["bpf", "cgroup"];
        let volumes =
            spec.volumes.iter().flatten().filter(|v| wanted.contains(&v.name.as_str())).collect::<Vec<_>>();
        let mounts = container.volume_mounts.iter().flatten().filter(|m| wanted.contains(&m.name.as_str()));
        let container = json!({"name": "cleanup", "image": container.image, "imagePullPolicy": container.image_pull_policy,
            "command": [program, "cleanup", format!("--drain={}", self.drain.as_secs())], "securityContext": container.security_context,
            "volumeMounts": mounts.collect::<Vec<_>>()});
        let secrets = spec.image_pull_secrets.as_ref().map(|s| json!(s));
        Ok(serde_json::from_value(pod(node, &self.namespace, &container, &json!(volumes), secrets))?)
    }

    /// Runs a pod to its end.
    async fn run(&self, node: &str, what: &str, pod: Pod) -> Result<()> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let pods = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let made = pods.create(&PostParams::default(), &pod).await.context("a pod that cleans up")?;
        let name = made.metadata.name.unwrap_or_default();
        let ended = async {
            loop {
                let phase = pods.get(&name).await?.status.and_then(|s| s.phase);
                match phase.as_deref() {
                    Some("Succeeded") => return Ok(()),
                    Some("Failed") => {
                        let log = pods.logs(&name, &LogParams::default()).await.unwrap_or_default();
                        bail!("not {what}: {}", log.trim());
                    }
                    _ => tokio::time::sleep(PERIOD).await,
                }
            }
        };
        let result = tokio::time::timeout(self.timeout + self.drain, ended)
            .await
            .unwrap_or_else(|_| bail!("not {what} in time"));
        pods.delete(&name, &DeleteParams::default()).await?;
        result?;
        say!("{node}: {what}");
        Ok(())
    }
}

/// On the node's network, wherever it may run.
fn pod(node: &str, namespace: &str, container: &Value, volumes: &Value, secrets: Option<Value>) -> Value {
    json!({"metadata": {"generateName": "eastwest-migrate-", "namespace": namespace},
        "spec": {"nodeName": node, "hostNetwork": true, "restartPolicy": "Never", "automountServiceAccountToken": false,
            "enableServiceLinks": false, "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}], "imagePullSecrets": secrets,
            "containers": [container], "volumes": volumes}})
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Adds to each term of what a node must be that the label is not `off`. Whether anything was added.
fn add_rule(affinity: &mut Value) -> bool {
    let rule = json!({"key": KUBE_PROXY, "operator": "NotIn", "values": ["off"]});
    let terms =
        &mut affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    if terms.as_array().is_none_or(Vec::is_empty) {
        *terms = json!([{}]);
    }
    let mut added = false;
    for term in terms.as_array_mut().into_iter().flatten() {
        if term["matchExpressions"].is_null() {
            term["matchExpressions"] = json!([]);
        }
        if let Some(rules) = term["matchExpressions"].as_array_mut()
            && !rules.contains(&rule)
        {
            rules.push(rule.clone());
            added = true;
        }
    }
    added
}

/// Takes away what [`add_rule`] has added; what it made for that goes too. Whether anything was taken away.
fn remove_rule(affinity: &mut Value) -> bool {
    let rule = json!({"key": KUBE_PROXY, "operator": "NotIn", "values": ["off"]});
    let before = affinity.clone();
    let pointer = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let Some(terms) =
        affinity.pointer_mut(&format!("{pointer}/nodeSelectorTerms")).and_then(Value::as_array_mut)
    else {
        return false;
    };
    for term in terms.iter_mut() {
        let rules = term.get_mut("matchExpressions").and_then(Value::as_array_mut);
        let empty = rules.is_some_and(|rules| {
            rules.retain(|r| *r != rule);
            rules.is_empty()
        });
        if empty && let Some(fields) = term.as_object_mut() {
            fields.remove("matchExpressions");
        }
    }
    terms.retain(|t| t.as_object().is_some_and(|fields| !fields.is_empty()));
    if terms.is_empty()
        && let Some(node) = affinity["nodeAffinity"].as_object_mut()
    {
        node.remove("requiredDuringSchedulingIgnoredDuringExecution");
        if node.is_empty()
            && let Some(fields) = affinity.as_object_mut()
        {
            fields.remove("nodeAffinity");
        }
    }
    if affinity.as_object().is_some_and(serde_json::Map::is_empty) {
        *affinity = Value::Null;
    }
    *affinity != before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_proxy_keeps_off() {
        let rule = json!({"key": KUBE_PROXY, "operator": "NotIn", "values": ["off"]});
        let arch = json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]});
        let of = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        for (before, after) in [
            (Value::Null, of(json!([{"matchExpressions": [rule]}]))),
            (of(json!([{"matchExpressions": [arch]}])), of(json!([{"matchExpressions": [arch, rule]}]))),
            (
                of(json!([{"matchFields": [1]}, {"matchExpressions": [arch]}])),
                of(
                    json!([{"matchFields": [1], "matchExpressions": [rule]}, {"matchExpressions": [arch, rule]}]),
                ),
            ),
        ] {
            let mut now = before.clone();
            assert!(add_rule(&mut now), "{before}");
            assert_eq!(now, after);
            assert!(!add_rule(&mut now), "twice: {now}");
            assert!(remove_rule(&mut now), "{now}");
            assert_eq!(now, before);
            assert!(!remove_rule(&mut now), "twice: {now}");
        }
    }
}
