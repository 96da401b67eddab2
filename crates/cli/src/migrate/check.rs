//! What a cluster must know before eastwest takes over: a function of what was found in it.

use std::collections::BTreeMap;
use std::path::Path;

use eastwest_dns::{Corefile, Environment};
use serde_json::Value;

use super::snapshot::Snapshot;
use crate::output::Table;

/// The oldest Kubernetes and the oldest kernel.
const KUBERNETES: (u32, u32) = (1, 31);
const KERNEL: (u32, u32) = (5, 15);
/// NodeLocal DNSCache's usual address, which is eastwest's too.
const NODE_LOCAL: &str = "169.254.20.10";
/// The agent's own Corefile would be as this one, so nothing is to be set for it.
const USUAL: [&str; 11] = [
    "errors",
    "health",
    "ready",
    "kubernetes",
    "prometheus",
    "forward",
    "cache",
    "loop",
    "reload",
    "loadbalance",
    "log",
];

/// What is to be done about something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It must be solved before.
    Stop,
    /// A value of the chart should be given.
    Set,
    /// It will be another way.
    Change,
    Ok,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub subject: String,
    pub text: String,
}

/// As people read it.
pub fn table(found: &[Finding]) -> String {
    let mut table = Table::new(&["WHAT", "OF", ""]);
    for f in found {
        let level = match f.level {
            Level::Stop => "STOP",
            Level::Set => "set",
            Level::Change => "change",
            Level::Ok => "ok",
        };
        table.rows.push(vec![level.to_owned(), f.subject.clone(), f.text.clone()]);
    }
    table.to_string()
}

/// All that is to be said, the most pressing first.
pub fn findings(cluster: &Snapshot) -> Vec<Finding> {
    let mut found = Found(Vec::new());
    kubernetes(cluster, &mut found);
    kube_proxy(cluster, &mut found);
    dns(cluster, &mut found);
    others(cluster, &mut found);
    services(cluster, &mut found);
    found.0.sort_by_key(|f| f.level);
    found.0
}

struct Found(Vec<Finding>);

impl Found {
    fn add(&mut self, level: Level, subject: &str, text: impl Into<String>) {
        self.0.push(Finding { level, subject: subject.to_owned(), text: text.into() });
    }
}

fn kubernetes(cluster: &Snapshot, found: &mut Found) {
    let (major, minor) = cluster.version;
    let level = if cluster.version < KUBERNETES { Level::Stop } else { Level::Ok };
    let least = format!("{}.{}", KUBERNETES.0, KUBERNETES.1);
    found.add(level, "Kubernetes", format!("{major}.{minor}; {least} or later is needed"));
    let mut old = Vec::new();
    let mut windows = 0;
    for node in &cluster.nodes {
        let Some(info) = node.status.as_ref().and_then(|s| s.node_info.as_ref()) else { continue };
        if info.operating_system == "windows" {
            windows += 1;
        } else if kernel(&info.kernel_version).is_some_and(|k| k < KERNEL) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            old.push(format!("{name} ({})", info.kernel_version));
        }
    }
    if old.is_empty() {
        found.add(Level::Ok, "nodes", format!("{}, kernels are new enough", cluster.nodes.len() - windows));
    } else {
        let text = format!("Linux {}.{} or later is needed: {}", KERNEL.0, KERNEL.1, old.join(", "));
        found.add(Level::Stop, "nodes", text);
    }
    if windows > 0 {
        found.add(Level::Change, "nodes", format!("{windows} with Windows: keep kube-proxy there"));
    }
}

fn kernel(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// kubeadm's key, and others'.
fn file<'a>(map: &'a BTreeMap<String, String>, names: [&str; 2]) -> Option<&'a String> {
    names.iter().find_map(|n| map.get(*n))
}

fn kube_proxy(cluster: &Snapshot, found: &mut Found) {
    const OF: &str = "kube-proxy";
    if !cluster.daemon_sets.contains(&cluster.kube_proxy) {
        let text = format!(
            "no DaemonSet kube-system/{}: `eastwest migrate over` cannot take it off nodes; switch it off where it is started",
            cluster.kube_proxy
        );
        found.add(Level::Change, OF, text);
    }
    let Some(map) = cluster.config.get(OF) else {
        found.add(
            Level::Change,
            OF,
            "no ConfigMap kube-system/kube-proxy: compare its flags with docs/kube-proxy.md",
        );
        return;
    };
    if let Some(kubeconfig) = file(map, ["kubeconfig.conf", "kubeconfig"]) {
        let server = kubeconfig.lines().find_map(|l| l.trim().strip_prefix("server:")).map(str::trim);
        if let Some(server) = server.filter(|s| !s.is_empty()) {
            let by_itself = map.contains_key("kubeconfig.conf");
            let how = if by_itself {
                "found without k8sServiceHost"
            } else {
                "give it as k8sServiceHost and k8sServicePort"
            };
            let level = if by_itself { Level::Ok } else { Level::Set };
            found.add(level, OF, format!("its API server is {server}: {how}"));
        }
    }
    let config = file(map, ["config.conf", "config.yaml"]);
    let config: Value = match config.map(|c| serde_yaml_ng::from_str(c)) {
        Some(Ok(config)) => config,
        Some(Err(e)) => {
            found.add(Level::Change, OF, format!("its configuration does not read: {e}"));
            return;
        }
        None => Value::Null,
    };
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).filter(|s| !s.is_empty());
    let yes = |pointer: &str| config.pointer(pointer) == Some(&Value::Bool(true));
    if let Some(ranges) = text("/clusterCIDR") {
        let value = format!(
            "clusterCIDR: give agent.clusterCIDRs={{{ranges}}}, so that pods of other nodes count as inside"
        );
        found.add(Level::Set, OF, value);
    }
    if let Some(Value::Array(ranges)) = config.pointer("/nodePortAddresses")
        && !ranges.is_empty()
    {
        let ranges: Vec<&str> = ranges.iter().filter_map(Value::as_str).collect();
        found.add(
            Level::Set,
            OF,
            format!("nodePortAddresses: give agent.env.EASTWEST_NODEPORT_ADDRESSES={}", ranges.join(",")),
        );
    } else if text("/mode") != Some("nftables") {
        let what = "node ports: on the addresses by which other nodes reach a node, not on all; agent.env.EASTWEST_NODEPORT_ADDRESSES adds some";
        found.add(Level::Change, OF, what);
    }
    match text("/mode") {
        Some("ipvs") => {
            let scheduler = text("/ipvs/scheduler").unwrap_or("rr");
            let what = format!(
                "ipvs, {scheduler}: endpoints are picked by chance; kube-ipvs0 goes when its rules are removed, which `over` does"
            );
            found.add(Level::Change, OF, what);
        }
        mode => found.add(Level::Ok, OF, format!("mode {}", mode.unwrap_or("iptables"))),
    }
    if ["/iptables/masqueradeAll", "/nftables/masqueradeAll", "/ipvs/masqueradeAll"].iter().any(|p| yes(p)) {
        found.add(
            Level::Set,
            OF,
            "masqueradeAll: give agent.env.EASTWEST_MASQUERADE_ALL=true, unless backends may see who asks",
        );
    }
    if let Some(port) =
        text("/healthzBindAddress").and_then(|a| a.rsplit(':').next()).filter(|p| *p != "10256")
    {
        found.add(Level::Set, OF, format!("healthzBindAddress: give agent.ports.healthz={port}"));
    }
    if let Some(port) =
        text("/metricsBindAddress").and_then(|a| a.rsplit(':').next()).filter(|p| *p != "10249")
    {
        found.add(Level::Set, OF, format!("metricsBindAddress: give agent.ports.metrics={port}"));
    }
    if let Some(Value::Object(gates)) = config.get("featureGates")
        && !gates.is_empty()
    {
        let names: Vec<&str> = gates.keys().map(String::as_str).collect();
        found.add(Level::Change, OF, format!("feature gates are not looked at: {}", names.join(", ")));
    }
}

fn dns(cluster: &Snapshot, found: &mut Found) {
    let of = |name: &str| {
        let mut services = cluster.services.iter();
        services.find(|s| {
            s.metadata.name.as_deref() == Some(name) && s.metadata.namespace.as_deref() == Some("kube-system")
        })
    };
    let addresses = of("kube-dns").and_then(|s| s.spec.as_ref()?.cluster_ips.clone()).unwrap_or_default();
    if addresses.is_empty() {
        let text = "no Service kube-system/kube-dns: one is made at the tenth address of the service range";
        found.add(Level::Change, "DNS", text);
    } else {
        found.add(Level::Ok, "DNS", format!("answers at {}, as before", addresses.join(" and ")));
    }
    let Some(corefile) = cluster.config.get("coredns").and_then(|m| m.get("Corefile")) else { return };
    let environment = Environment { health: 8080, ready: 8181, metrics: 9153, ..Environment::default() };
    let read = Corefile::parse(corefile, Path::new("/etc/coredns"), &environment);
    match read.and_then(|c| c.check(&environment)) {
        Err(e) => {
            let text = format!("CoreDNS' Corefile cannot be followed: {e}. Change it, or give dns.corefile");
            found.add(Level::Stop, "DNS", text);
        }
        Ok(()) if only_usual(corefile) => found.add(Level::Ok, "DNS", "CoreDNS' Corefile is the usual one"),
        Ok(()) => {
            let text = "CoreDNS' Corefile has more than the usual: give dns.configMap=coredns, so that agents follow it";
            found.add(Level::Set, "DNS", text);
        }
    }
}

/// One block for all names, with nothing but what kubeadm writes.
fn only_usual(corefile: &str) -> bool {
    let mut depth = 0_usize;
    let mut blocks = 0;
    for line in corefile.lines().map(|l| l.split('#').next().unwrap_or_default().trim()) {
        let first = line.split_whitespace().next().unwrap_or_default();
        match depth {
            0 if !line.is_empty() => {
                blocks += 1;
                if !first.starts_with(".:53") {
                    return false;
                }
            }
            1 if !line.is_empty() && line != "}" && !USUAL.contains(&first) => return false,
            1 if first == "forward" && !line.starts_with("forward . /etc/resolv.conf") => return false,
            _ => {}
        }
        depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
    }
    blocks == 1
}

fn others(cluster: &Snapshot, found: &mut Found) {
    let cilium = cluster.config.get("cilium-config").and_then(|m| m.get("kube-proxy-replacement"));
    if cilium.is_some_and(|v| v == "true" || v == "strict") {
        let text =
            "kube-proxy-replacement is on: two programs would translate the same packets. Switch one off";
        found.add(Level::Stop, "Cilium", text);
    }
    if cluster.daemon_sets.iter().any(|d| d == "node-local-dns") {
        let text = format!(
            "it has {NODE_LOCAL} on each node: remove it after eastwest has taken over, or give agent.env.EASTWEST_NODE_LOCAL_DNS=\"\""
        );
        found.add(Level::Set, "NodeLocal DNSCache", text);
    }
}

fn services(cluster: &Snapshot, found: &mut Found) {
    let count = |wanted: &dyn Fn(&k8s_openapi::api::core::v1::ServiceSpec) -> bool| {
        cluster.services.iter().filter_map(|s| s.spec.as_ref()).filter(|s| wanted(s)).count()
    };
    let outside = |s: &k8s_openapi::api::core::v1::ServiceSpec| {
        matches!(s.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
            || s.external_ips.as_ref().is_some_and(|e| !e.is_empty())
    };
    let local = count(&|s| outside(s) && s.external_traffic_policy.as_deref() == Some("Local"));
    let cluster_wide = count(&|s| outside(s) && s.external_traffic_policy.as_deref() != Some("Local"));
    found.add(Level::Ok, "Services", format!("{}", cluster.services.len()));
    if cluster_wide > 0 {
        let text = format!(
            "{cluster_wide} for clients outside: one whose endpoint is on the node that was asked shows the client's own address"
        );
        found.add(Level::Change, "Services", text);
    }
    let ranges_known = cluster.config.contains_key("kube-proxy");
    if local > 0 && !ranges_known {
        let text = format!(
            "{local} with externalTrafficPolicy: Local: give agent.clusterCIDRs, the ranges of all pods"
        );
        found.add(Level::Set, "Services", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COREFILE: &str = ".:53 {\n    errors\n    health {\n       lameduck 5s\n    }\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n       pods insecure\n       ttl 30\n    }\n    prometheus :9153\n    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n    cache 30\n    loop\n    reload\n    loadbalance\n}\n";

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn cluster() -> Snapshot {
        let node = json!({"metadata": {"name": "n1"}, "status": {"nodeInfo": {"operatingSystem": "linux", "kernelVersion": "6.1.0-28-amd64",
            "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "",
            "osImage": "", "systemUUID": ""}}});
        let dns = json!({"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": {"clusterIPs": ["10.96.0.10"]}});
        let proxy = map(&[
            ("config.conf", "mode: nftables\n"),
            ("kubeconfig.conf", "  server: https://192.0.2.1:6443\n"),
        ]);
        Snapshot {
            version: (1, 37),
            nodes: vec![serde_json::from_value(node).unwrap()],
            services: vec![serde_json::from_value(dns).unwrap()],
            daemon_sets: vec!["kube-proxy".into()],
            kube_proxy: "kube-proxy".into(),
            config: [
                ("kube-proxy".to_owned(), proxy),
                ("coredns".to_owned(), map(&[("Corefile", COREFILE)])),
            ]
            .into(),
        }
    }

    fn proxy(config: &str) -> Snapshot {
        let mut cluster = cluster();
        cluster.config.get_mut("kube-proxy").unwrap().insert("config.conf".into(), config.into());
        cluster
    }

    #[test]
    fn of_an_ordinary_cluster_all_is_well() {
        let found = findings(&cluster());
        assert!(found.iter().all(|f| f.level == Level::Ok), "{}", table(&found));
    }

    #[test]
    fn what_is_named() {
        let corefile = |text: &str| {
            let mut cluster = cluster();
            cluster.config.insert("coredns".into(), map(&[("Corefile", text)]));
            cluster
        };
        let with = |change: &dyn Fn(&mut Snapshot)| {
            let mut cluster = cluster();
            change(&mut cluster);
            cluster
        };
        let service = |spec: Value| {
            with(&|c| {
                c.services
                    .push(serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap())
            })
        };
        for (name, cluster, level, wanted) in [
            ("an old Kubernetes", with(&|c| c.version = (1, 30)), Level::Stop, "1.30; 1.31 or later"),
            (
                "an old kernel",
                with(&|c| {
                    let info = c.nodes[0].status.as_mut().unwrap().node_info.as_mut().unwrap();
                    info.kernel_version = "5.10.0".into();
                }),
                Level::Stop,
                "n1 (5.10.0)",
            ),
            (
                "the pods' ranges",
                proxy("{mode: nftables, clusterCIDR: \"10.0.0.0/8,fd00::/8\"}"),
                Level::Set,
                "{10.0.0.0/8,fd00::/8}",
            ),
            ("IPVS", proxy("{mode: ipvs, ipvs: {scheduler: lc}}"), Level::Change, "ipvs, lc"),
            ("iptables", proxy("{}"), Level::Change, "node ports"),
            ("ranges of node ports", proxy("{nodePortAddresses: [10.0.0.0/8]}"), Level::Set, "=10.0.0.0/8"),
            (
                "masquerading all",
                proxy("{iptables: {masqueradeAll: true}}"),
                Level::Set,
                "EASTWEST_MASQUERADE_ALL",
            ),
            ("another port", proxy("healthzBindAddress: \"0.0.0.0:1\""), Level::Set, "healthz=1"),
            ("gates", proxy("featureGates: {X: true}"), Level::Change, "X"),
            ("nonsense", proxy("\"a"), Level::Change, "does not read"),
            ("no kube-proxy", with(&|c| c.daemon_sets.clear()), Level::Change, "no DaemonSet"),
            ("no DNS", with(&|c| c.services.clear()), Level::Change, "no Service kube-system/kube-dns"),
            (
                "a stub domain",
                corefile(&format!("{COREFILE}example.com:53 {{\n forward . 192.0.2.1\n}}\n")),
                Level::Set,
                "dns.configMap",
            ),
            (
                "another upstream",
                corefile(&COREFILE.replace("/etc/resolv.conf", "192.0.2.1")),
                Level::Set,
                "dns.configMap",
            ),
            ("a plugin that is not followed", corefile(".:53 {\n etcd\n}\n"), Level::Stop, "etcd"),
            (
                "NodeLocal DNSCache",
                with(&|c| c.daemon_sets.push("node-local-dns".into())),
                Level::Set,
                "EASTWEST_NODE_LOCAL_DNS",
            ),
            (
                "Cilium in place of kube-proxy",
                with(&|c| {
                    drop(c.config.insert("cilium-config".into(), map(&[("kube-proxy-replacement", "true")])))
                }),
                Level::Stop,
                "kube-proxy-replacement",
            ),
            ("clients outside", service(json!({"type": "NodePort"})), Level::Change, "1 for clients outside"),
        ] {
            let found = findings(&cluster);
            let fits = |f: &&Finding| f.level == level && f.text.contains(wanted);
            assert!(found.iter().any(|f| fits(&f)), "{name}:\n{}", table(&found));
        }
    }
}
