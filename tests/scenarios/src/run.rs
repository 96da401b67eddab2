use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::objects::{self, address};
use crate::probe::{Probe, Seen};
use crate::table::Expected;
use crate::{Case, Family, Protocol, Scenario, Table, Verdict};

/// Where the table is played. Nodes, pods and `client` are those of the table, by name.
pub trait Cluster {
    /// Creates an object; returns it as it is stored, once every node has programmed it.
    fn create(&self, object: &Value) -> Result<Value>;
    /// Sets an object's status, likewise.
    fn set_status(&self, object: &Value, status: &Value) -> Result<Value>;
    /// Deletes an object that `create` returned.
    fn delete(&self, object: &Value) -> Result<()>;
    /// Of a node's NIC, a pod or `client`.
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>>;
    /// Every address that a node may use as a source.
    fn node_addresses(&self, node: &str) -> Result<Vec<IpAddr>>;
    /// As the cluster calls the node that a pod is on.
    fn node_of(&self, pod: &str) -> Result<String>;
    /// Asks from there.
    fn probe(&self, from: &str, probe: &Probe) -> Result<Vec<Seen>>;
    /// Has `client` send what is for `to` to a node.
    fn route(&self, to: IpAddr, via: &str) -> Result<()>;
}

/// Whose behaviour is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    Eastwest,
    KubeProxy,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Questions of the table: a case in one family over one protocol.
    pub asked: u32,
    /// What differs, readable.
    pub differences: Vec<String>,
}

/// Plays the scenarios whose name contains `only` (empty: all).
pub fn play(cluster: &dyn Cluster, table: &Table, proxy: Proxy, only: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for scenario in table.scenarios.iter().filter(|s| s.name.contains(only)) {
        let mut made = Vec::new();
        if let Err(e) = play_one(cluster, scenario, proxy, &mut made, &mut outcome) {
            outcome.differences.push(format!("{}: {e:#}", scenario.name));
        }
        for object in made.iter().rev() {
            if let Err(e) = cluster.delete(object) {
                outcome.differences.push(format!("{}: clearing away: {e:#}", scenario.name));
            }
        }
    }
    outcome
}

/// Plays the table, or the scenarios whose name contains what the environment's `SCENARIO` says.
///
/// # Panics
/// When anything differs, with all of it, or when there is no such scenario.
pub fn check(cluster: &dyn Cluster, table: &Table, proxy: Proxy) {
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let Outcome { asked, differences } = play(cluster, table, proxy, &only);
    assert!(asked > 0, "no scenario's name contains {only:?}");
    println!("{proxy:?}: {asked} questions, {} differences", differences.len());
    assert!(differences.is_empty(), "{} of {asked}:\n{}", differences.len(), differences.join("\n"));
}

fn play_one(
    cluster: &dyn Cluster,
    scenario: &Scenario,
    proxy: Proxy,
    made: &mut Vec<Value>,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut services = Vec::new();
    for service in &scenario.services {
        let manifest = objects::service(cluster, service)?;
        let mut stored = cluster.create(&manifest).with_context(|| format!("Service {}", service.name))?;
        made.push(stored.clone());
        if let Some(status) = &service.status {
            stored =
                cluster.set_status(&stored, status).with_context(|| format!("status of {}", service.name))?;
        }
        services.push(stored);
    }
    for (nth, slice) in scenario.slices.iter().enumerate() {
        let service = match &slice.service {
            Some(name) => services.iter().find(|s| s["metadata"]["name"] == **name),
            None => services.first(),
        };
        let service = service.context("a slice of no Service here")?;
        for family in Family::BOTH {
            let manifest = objects::slice(cluster, scenario, service, slice, nth, family)?;
            made.push(cluster.create(&manifest).context("an EndpointSlice")?);
        }
    }
    for object in &scenario.objects {
        let mut manifest = object.clone();
        objects::fill(cluster, &mut manifest, None)?;
        made.push(cluster.create(&manifest).context("an object")?);
    }
    for case in &scenario.cases {
        for family in case.families.as_deref().unwrap_or(&Family::BOTH) {
            for (protocol, to) in targets(cluster, &services, case, *family)? {
                outcome.asked += 1;
                if let Err(e) = one(cluster, case, proxy, protocol, to) {
                    outcome.differences.push(format!(
                        "{}: {} to {}{} ({to} {protocol:?}): {e:#}",
                        scenario.name,
                        case.from,
                        case.to,
                        case.via.as_ref().map(|v| format!(" via {v}")).unwrap_or_default(),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// What `to` stands for in one family.
fn targets(
    cluster: &dyn Cluster,
    services: &[Value],
    case: &Case,
    family: Family,
) -> Result<Vec<(Protocol, SocketAddr)>> {
    let given = case.protocols.as_deref();
    let (name, to) = case.address();
    if let Ok(to) = to.parse::<SocketAddr>() {
        return Ok(given.unwrap_or(&[Protocol::TCP]).iter().map(|p| (*p, to)).collect());
    }
    let service = match name {
        Some(name) => services.iter().find(|s| s["metadata"]["name"] == *name),
        None => services.first(),
    };
    let service = service.context("no Service in this scenario")?;
    let (kind, port) = to.split_once(':').with_context(|| format!("{to:?} is no address"))?;
    let (port, node) = match port.split_once('@') {
        Some((port, node)) => (port, Some(node)),
        None => (port, None),
    };
    let port: u16 = port.parse().with_context(|| format!("port of {to:?}"))?;
    let ports = objects::ports(service, port);
    let texts = |at: &[&Value]| -> Vec<IpAddr> {
        at.iter().filter_map(|v| v.as_str()?.parse().ok()).filter(|a| Family::of(*a) == family).collect()
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let addresses = match kind {
        "clusterIP" => texts(&list(&service["spec"]["clusterIPs"]).iter().collect::<Vec<_>>()),
        "externalIP" => texts(&list(&service["spec"]["externalIPs"]).iter().collect::<Vec<_>>()),
        "loadBalancer" => {
            let ingress = list(&service["status"]["loadBalancer"]["ingress"]);
            texts(&ingress.iter().map(|i| &i["ip"]).collect::<Vec<_>>())
        }
        "nodePort" => vec![address(cluster, node.context("nodePort:PORT@NODE")?, family)?],
        _ => bail!("{kind:?} is none of clusterIP, externalIP, loadBalancer, nodePort"),
    };
    let address =
        *addresses.first().with_context(|| format!("the Service has no {kind} of {family}: {service}"))?;
    let known = |p: Protocol| ports.get(if p == Protocol::TCP { "TCP" } else { "UDP" });
    let all = [Protocol::TCP, Protocol::UDP];
    let asked = match given {
        Some(given) => given.to_vec(),
        None => all.into_iter().filter(|p| known(*p).is_some()).collect(),
    };
    ensure!(!asked.is_empty(), "the Service has no port {port}");
    let number = |p: Protocol| if kind == "nodePort" { known(p).copied().unwrap_or(0) } else { port };
    Ok(asked.into_iter().map(|p| (p, SocketAddr::new(address, number(p)))).collect())
}

/// Enough that a pod of two is missed once in 2^40, and that a share is seen to 6 points.
const MOST: u32 = 40;
const FOR_SHARES: u32 = 600;

fn one(cluster: &dyn Cluster, case: &Case, proxy: Proxy, protocol: Protocol, to: SocketAddr) -> Result<()> {
    if let Some(via) = &case.via {
        cluster.route(to.ip(), via)?;
    }
    let expected = case.expected_of(proxy);
    let answered = expected.verdict == Verdict::Answered;
    let least = match (&expected.shares, expected.verdict) {
        (Some(_), _) => FOR_SHARES,
        (None, Verdict::Answered) => 10,
        (None, Verdict::Refused) => 3,
        (None, Verdict::Dropped | Verdict::Unanswered) => 1,
    };
    let probe = Probe {
        to,
        protocol,
        least,
        pods: match (answered, expected.sticky) {
            (true, false) => expected.endpoints.len(),
            (true, true) => 1,
            (false, _) => 0,
        },
        most: least.max(if answered { MOST } else { 0 }),
        // Silence takes all of it. Longer than one retransmission of a SYN (1 s) where there is to be none.
        patience: if answered || expected.verdict == Verdict::Refused { 5_000 } else { 1_200 },
    };
    let seen = cluster.probe(&case.from, &probe)?;
    compare(cluster, case, &expected, &seen)
}

fn compare(cluster: &dyn Cluster, case: &Case, expected: &Expected, seen: &[Seen]) -> Result<()> {
    ensure!(!seen.is_empty(), "nothing was asked");
    let mut pods: BTreeMap<&str, u32> = BTreeMap::new();
    for one in seen {
        let fits = match expected.verdict {
            Verdict::Answered => matches!(one, Seen::Answered { .. }),
            Verdict::Refused => *one == Seen::Refused,
            Verdict::Dropped => *one == Seen::Silent,
            Verdict::Unanswered => !matches!(one, Seen::Answered { .. }),
        };
        ensure!(fits, "expected {:?}, saw {one:?} among {} questions", expected.verdict, seen.len());
        if let Seen::Answered { pod, remote } = one {
            *pods.entry(pod).or_default() += 1;
            check_source(cluster, case, expected, pod, *remote)?;
        }
    }
    if expected.verdict != Verdict::Answered {
        return Ok(());
    }
    let reached: BTreeSet<&str> = pods.keys().copied().collect();
    let wanted: BTreeSet<&str> = expected.endpoints.iter().map(String::as_str).collect();
    if expected.sticky {
        ensure!(
            reached.len() == 1 && reached.is_subset(&wanted),
            "expected one of {wanted:?}, reached {pods:?}"
        );
    } else {
        ensure!(reached == wanted, "expected {wanted:?}, reached {pods:?}");
    }
    for (pod, share) in expected.shares.iter().flatten() {
        let count = pods.get(pod.as_str()).copied().unwrap_or(0);
        let got = f64::from(count) * 100.0 / seen.len() as f64;
        ensure!((got - share).abs() <= 6.0, "expected {share} % at {pod}, saw {got:.1} %: {pods:?}");
    }
    Ok(())
}

fn check_source(
    cluster: &dyn Cluster,
    case: &Case,
    expected: &Expected,
    pod: &str,
    remote: IpAddr,
) -> Result<()> {
    let own = |name: &str| -> Result<Vec<IpAddr>> {
        let node = cluster.node_addresses(name);
        node.or_else(|_| cluster.addresses(name))
    };
    let source = expected.source.as_ref().map_or("client", |s| s.of(pod));
    let (fits, meant) = match source {
        "client" => {
            let addresses = own(&case.from)?;
            (addresses.contains(&remote), format!("{} {addresses:?}", case.from))
        }
        "other" => {
            let addresses = cluster.addresses(pod)?;
            (!addresses.contains(&remote), format!("anyone but {pod}"))
        }
        node => {
            let addresses = cluster.node_addresses(node)?;
            (addresses.contains(&remote), format!("{node} {addresses:?}"))
        }
    };
    ensure!(fits, "{pod} saw {remote}, expected {meant}");
    Ok(())
}
