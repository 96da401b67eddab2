use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use eastwest_model::{Kind, ObjectMeta, Protocol, Workload, WorkloadPort, WorkloadSpec, WorkloadStatus};

use crate::enter::Enter;
use crate::error::Doing;
use crate::fabric::{nodad, prepare};
use crate::netns::Batch;
use crate::paths::Paths;
use crate::process::{Spawn, binary};
use crate::{Error, Network, Plan, Pod, PodName, State, cgroup};

/// A pod to be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub name: PodName,
    /// `node-N`.
    pub node: String,
    pub labels: BTreeMap<String, String>,
    /// Where it serves; named `http` (TCP) and `udp` in its Workload.
    pub port: u16,
    /// Lives in the node's own namespaces.
    pub host_network: bool,
    /// Name of the headless Service that gives it a name of its own.
    pub subdomain: Option<String>,
    /// Empty: it serves, see [`serve`](crate::serve).
    pub command: Vec<String>,
}

impl PodSpec {
    /// A serving pod in namespace `default`, port 8080.
    pub fn new(name: &str, node: &str) -> Result<Self, Error> {
        Ok(Self {
            name: name.parse()?,
            node: node.to_owned(),
            labels: BTreeMap::new(),
            port: 8080,
            host_network: false,
            subdomain: None,
            command: Vec::new(),
        })
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The object that stands for it in the API.
    pub(crate) fn workload(&self, pod: &Pod) -> Workload {
        let port = |name: &str, protocol| WorkloadPort { name: name.into(), port: self.port, protocol };
        Workload {
            api_version: Kind::Workload.api_version().into(),
            kind: Kind::Workload.name().into(),
            metadata: ObjectMeta {
                name: self.name.name.clone(),
                namespace: self.name.namespace.clone(),
                labels: self.labels.clone(),
                ..Default::default()
            },
            spec: WorkloadSpec {
                addresses: pod.addresses.iter().map(IpAddr::to_string).collect(),
                node: self.node.clone(),
                hostname: self.name.name.clone(),
                subdomain: self.subdomain.clone().unwrap_or_default(),
                ports: vec![port("http", Protocol::TCP), port("udp", Protocol::UDP)],
                readiness: None,
            },
            status: WorkloadStatus::default(),
        }
    }
}

/// A free host number of the node's range, trying those after the last one given first.
fn free_host(state: &State, n: u16) -> Option<u16> {
    let used: Vec<IpAddr> = state.pods.values().flat_map(|p| p.addresses.iter().copied()).collect();
    let (first, last) = (*Plan::POD_HOSTS.start(), *Plan::POD_HOSTS.end());
    let next = state.next_host.get(&n).copied().unwrap_or(first).clamp(first, last);
    (next..=last).chain(first..next).find(|&host| {
        [crate::Families::V4, crate::Families::V6].iter().all(|&f| !used.contains(&Plan::pod_ip(n, host, f)))
    })
}

/// Takes addresses and names for the pod; nothing is built yet.
pub(crate) fn allot(state: &mut State, plan: &Plan, spec: &PodSpec, n: u16) -> Result<Pod, Error> {
    if state.pods.contains_key(&spec.name) {
        return Err(Error::PodExists(spec.name.to_string()));
    }
    let (addresses, veth) = if spec.host_network {
        (plan.families().iter().map(|&f| Plan::node_ip(n, f)).collect(), None)
    } else {
        let host = free_host(state, n).ok_or_else(|| Error::AddressesExhausted(spec.node.clone()))?;
        state.next_host.insert(n, host + 1);
        state.next_veth += 1;
        let addresses = plan.families().iter().map(|&f| Plan::pod_ip(n, host, f)).collect();
        (addresses, Some(format!("veth{}", state.next_veth)))
    };
    Ok(Pod {
        node: spec.node.clone(),
        host_network: spec.host_network,
        addresses,
        veth,
        port: spec.port,
        command: spec.command.clone(),
        process: None,
    })
}

/// Makes the pod's network namespace and wires it to its node.
pub(crate) fn wire(paths: &Paths, plan: &Plan, name: &PodName, pod: &Pod, n: u16) -> Result<(), Error> {
    let Some(veth) = &pod.veth else { return Ok(()) };
    let netns = paths.pod_netns(name);
    Batch::default().add(format!("netns add {netns}")).run(None)?;
    prepare(&netns, false)?;

    let mut outside = Batch::default();
    let mut inside = Batch::default();
    let mtu = plan.pod_mtu();
    outside.add(format!("link add {veth} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {netns}"));
    inside.add("link set lo up");
    let ptp = plan.network == Network::Ptp;
    for &ip in &pod.addresses {
        let family = crate::Families::of(ip);
        let prefix = match (ptp, ip) {
            (true, IpAddr::V4(_)) => 32,
            (true, IpAddr::V6(_)) => 128,
            (false, _) => Plan::pod_prefix(family),
        };
        inside.add(format!("addr add {ip}/{prefix} dev eth0 {}", nodad(ip)));
    }
    inside.add("link set eth0 up");
    for &ip in &pod.addresses {
        let family = crate::Families::of(ip);
        if ptp {
            let gateway = Plan::PTP_GATEWAY[usize::from(ip.is_ipv6())];
            inside.add(format!("route add default via {gateway} dev eth0 onlink"));
            let bits = if ip.is_ipv4() { "32 scope link" } else { "64 nodad" };
            outside.add(format!("addr add {gateway}/{bits} dev {veth}"));
        } else {
            inside.add(format!("route add default via {}", Plan::pod_ip(n, 1, family)));
        }
    }
    if ptp {
        outside.add(format!("link set {veth} up"));
        for &ip in &pod.addresses {
            let source = Plan::node_ip(n, crate::Families::of(ip));
            outside.add(format!("route replace {ip} dev {veth} src {source}"));
        }
    } else {
        outside.add(format!("link set {veth} master cni0 up"));
    }
    outside.run(Some(&paths.netns(&pod.node)))?;
    inside.run(Some(&netns))
}

/// Takes the pod's process, namespace and files away; what is not there is no error.
pub(crate) fn unwire(paths: &Paths, name: &PodName, pod: &Pod) -> Result<(), Error> {
    if let Some(process) = pod.process {
        process.kill()?;
    }
    if pod.veth.is_some() {
        let netns = paths.pod_netns(name);
        if crate::netns::path(&netns).exists() {
            let inodes = crate::netns::inodes(std::slice::from_ref(&netns));
            for process in crate::process::inside(&inodes) {
                process.kill()?;
            }
            Batch::default().add(format!("netns delete {netns}")).run(None)?;
        }
    }
    match fs::remove_dir_all(paths.pod_dir(name)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).doing(|| format!("remove files of pod {name}"))
        }
        _ => Ok(()),
    }
}

/// What a kubelet writes for a pod with `dnsPolicy: ClusterFirst` (`ClusterFirstWithHostNet` on the host's network).
pub(crate) fn write_files(paths: &Paths, plan: &Plan, name: &PodName, pod: &Pod) -> Result<(), Error> {
    let dir = paths.pod_dir(name);
    let zone = Plan::ZONE;
    let resolv = format!(
        "search {}.svc.{zone} svc.{zone} {zone}\nnameserver {}\noptions ndots:5\n",
        name.namespace,
        Plan::dns_ip(plan.families()[0])
    );
    let mut hosts = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-mcastprefix\n",
    );
    for ip in &pod.addresses {
        hosts.push_str(&format!("{ip}\t{}\n", name.name));
    }
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(dir.join("resolv.conf"), resolv))
        .and_then(|()| fs::write(dir.join("hosts"), hosts))
        .doing(|| format!("write files of pod {name}"))
}

/// Into the pod: its namespaces and files, and with the host's network the node's cgroup.
pub(crate) fn enter(paths: &Paths, name: &PodName, pod: &Pod) -> Result<Enter, Error> {
    let dir = paths.pod_dir(name);
    let enter = if pod.host_network {
        Enter::netns(&paths.netns(&pod.node))?
            .cgroup(&cgroup::of_node(paths, &pod.node)?)?
            .hostname(&pod.node)
    } else {
        Enter::netns(&paths.pod_netns(name))?.hostname(&name.name)
    };
    enter.resolver(&dir.join("resolv.conf"), &paths.nsswitch_conf())?.bind(&dir.join("hosts"), "/etc/hosts")
}

pub(crate) fn start(paths: &Paths, spec: &PodSpec, pod: &Pod) -> Result<crate::Process, Error> {
    let mut command = match spec.command.split_first() {
        Some((program, args)) => {
            let mut command = Command::new(program);
            command.args(args);
            command
        }
        None => {
            let mut command = Command::new(binary("eastwest")?);
            command.args(["lab-serve", "--pod", &spec.name.name, "--node", &spec.node]);
            command.args(["--port", &spec.port.to_string()]);
            if let Some(version) = spec.labels.get("version") {
                command.args(["--version-label", version]);
            }
            command
        }
    };
    command.env("POD_NAME", &spec.name.name).env("POD_NAMESPACE", &spec.name.namespace);
    command.env("NODE_NAME", &spec.node);
    let log = paths.log(&format!("pod-{}", spec.name.joined()));
    let process = Spawn { command, enter: enter(paths, &spec.name, pod)?, log: &log, stdin: None }.run()?;
    if spec.command.is_empty() {
        wait_serving(&spec.name, pod, process, &log, paths)?;
    }
    Ok(process)
}

/// A serving pod is there when it accepts connections; it is asked by its own address, from inside.
fn wait_serving(
    name: &PodName,
    pod: &Pod,
    process: crate::Process,
    log: &Path,
    paths: &Paths,
) -> Result<(), Error> {
    let netns = if pod.host_network { paths.netns(&pod.node) } else { paths.pod_netns(name) };
    let seconds = 5;
    crate::netns::within(&netns, || {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        loop {
            let refused = pod.addresses.iter().find_map(|&ip| {
                std::net::TcpStream::connect((ip, pod.port)).err().map(|e| format!("{ip}: {e}"))
            });
            let Some(seen) = refused else { return Ok(()) };
            if !process.alive() {
                return Err(Error::Died {
                    what: format!("pod {name}"),
                    how: "see its log".into(),
                    log: log.display().to_string(),
                    tail: crate::process::tail(log),
                });
            }
            if std::time::Instant::now() > deadline {
                return Err(Error::Timeout { what: format!("pod {name} does not serve"), seconds, seen });
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn state() -> State {
        State {
            options: Options::default(),
            port: 0,
            processes: BTreeMap::new(),
            pods: BTreeMap::new(),
            next_host: BTreeMap::new(),
            next_veth: 0,
        }
    }

    #[test]
    fn addresses_go_round_and_are_never_shared() {
        let mut state = state();
        let plan = Plan::new(&state.options).unwrap();
        let mut first = None;
        for i in 0..253 {
            let spec = PodSpec::new(&format!("p-{i}"), "node-1").unwrap();
            let pod = allot(&mut state, &plan, &spec, 1).unwrap();
            assert!(state.pods.values().all(|p| p.addresses != pod.addresses && p.veth != pod.veth));
            first.get_or_insert_with(|| spec.name.clone());
            state.pods.insert(spec.name, pod);
        }
        let spec = PodSpec::new("late", "node-1").unwrap();
        assert!(matches!(allot(&mut state, &plan, &spec, 1), Err(Error::AddressesExhausted(_))));
        let freed = state.pods.remove(&first.unwrap()).unwrap();
        assert_eq!(allot(&mut state, &plan, &spec, 1).unwrap().addresses, freed.addresses);
    }

    #[test]
    fn a_freed_address_is_not_taken_at_once() {
        let mut state = state();
        let plan = Plan::new(&state.options).unwrap();
        let spec = PodSpec::new("p", "node-2").unwrap();
        let one = allot(&mut state, &plan, &spec, 2).unwrap();
        let two = allot(&mut state, &plan, &spec, 2).unwrap();
        assert_eq!(one.ipv4().unwrap().to_string(), "10.244.2.2");
        assert_eq!(two.ipv4().unwrap().to_string(), "10.244.2.3");
    }
}
