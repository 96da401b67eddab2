//! The controller and the agents of a lab.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use eastwest_client::{Client, ListOptions};
use eastwest_model::{NodeState, NodeStateStatus};
use http::{HeaderMap, Method};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::api;
use crate::enter::Enter;
use crate::error::Doing;
use crate::paths::{BPF_FS, Paths};
use crate::process::{Spawn, binary, tail};
use crate::{Error, Plan, Process, Role, State, cgroup, state};

/// How long a controller or an agent may take to start, in seconds: 60, or what `EASTWEST_LAB_START_SECONDS` says. In an
/// emulated machine the kernel's verifier alone takes that long.
fn start_seconds() -> u64 {
    let given = std::env::var("EASTWEST_LAB_START_SECONDS").ok().and_then(|value| value.parse().ok());
    given.unwrap_or(60)
}

/// Where a port for the controller is chosen: below the ephemeral range, from which a client that calls a stopped
/// controller may be given that very port, and keep it from coming back.
const PORTS: std::ops::RangeInclusive<u16> = 24_000..=29_999;

/// A port of the machine's loopback for a new lab's controller. Another lab's controller may be stopped for a moment, so
/// its port is left alone too. It is asked for after the port is bound: a lab writes its port down before its controller
/// can be stopped, so whoever finds the port free finds the note as well.
pub(crate) fn new_listener() -> Result<TcpListener, Error> {
    let count = PORTS.end() - PORTS.start() + 1;
    // Labs that come up at once begin at different places.
    let first = (std::process::id() % u32::from(count)) as u16;
    let port_of = |i: u16| PORTS.start() + (first + i) % count;
    let found = (0..count).map(port_of).find_map(|port| {
        let bound = listener(port).ok()?;
        let taken = state::list()
            .iter()
            .any(|lab| Paths::new(lab).and_then(|paths| paths.load()).is_ok_and(|state| state.port == port));
        (!taken).then_some(bound)
    });
    found.map_or_else(|| listener(*PORTS.start()), Ok)
}

/// The port that is written down as this lab's own. Whoever still has it is a process that is ending.
fn own_listener(port: u16) -> Result<TcpListener, Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.doing(|| format!("listen on 127.0.0.1:{port}")),
        }
    }
}

fn listener(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).doing(|| format!("listen on 127.0.0.1:{port}"))
}

pub(crate) fn start(paths: &Paths, plan: &Plan, state: &State, role: &Role) -> Result<Process, Error> {
    match role {
        Role::Controller => start_controller(paths, plan, own_listener(state.port)?),
        Role::Agent(node) => start_agent(paths, plan, state, node),
    }
}

/// Runs in its own namespace, and answers on the machine's loopback by a socket it is handed as systemd hands sockets.
pub(crate) fn start_controller(paths: &Paths, plan: &Plan, listener: TcpListener) -> Result<Process, Error> {
    let family = plan.families()[0];
    let ip = Plan::controller_ip(family);
    let host = if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") };
    // LISTEN_PID must be the process's own id, which is known only once it runs: a shell says it and steps aside. The
    // socket comes as its standard input and goes on as descriptor 3.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 0</dev/null"]);
    command.arg(binary("eastwest-controller")?);
    command.arg("--data-dir").arg(paths.controller_data());
    command.args(["--advertise-url", &format!("https://{host}:7443")]);
    for &f in plan.families() {
        command.args(["--san", &Plan::controller_ip(f).to_string()]);
    }
    command.args(["--san", "127.0.0.1", "--san", "localhost"]);
    command.args(["--service-cidr", &plan.each(Plan::service_cidr)]);
    command.args(["--dns-service-ip", &plan.each(Plan::dns_ip)]);
    without_settings(&mut command).env("LISTEN_FDS", "1");
    Spawn {
        command,
        enter: Enter::netns(&paths.netns("ctl"))?,
        log: &paths.log("controller"),
        stdin: Some(OwnedFd::from(listener)),
    }
    .run()
}

fn start_agent(paths: &Paths, plan: &Plan, state: &State, node: &str) -> Result<Process, Error> {
    let n = plan.node_number(node).ok_or_else(|| unknown_node(paths, plan, node))?;
    mount_bpf()?;
    let pins = paths.pins().join(node);
    fs::create_dir_all(&pins).doing(|| format!("make {}", pins.display()))?;
    let cgroup = cgroup::of_node(paths, node)?;
    let options = &state.options;
    let mut command = Command::new(binary("eastwest-agent")?);
    command.args(["--node-name", node]);
    command.arg("--kubeconfig").arg(paths.controller_data().join("agent.kubeconfig"));
    command.args(["--node-ip", &plan.each(|f| Plan::node_ip(n, f))]);
    command.args(["--pod-cidr", &plan.each(|f| Plan::pod_cidr(n, f))]);
    command.args(["--service-cidr", &plan.each(Plan::service_cidr)]);
    command.args(["--cluster-cidr", &plan.each(Plan::pods_cidr)]);
    command.args(["--cluster-dns", &plan.each(Plan::dns_ip)]);
    command.arg("--data-dir").arg(paths.node_data(node));
    command.arg("--pin-dir").arg(pins);
    command.arg("--cgroup-root").arg(&cgroup);
    command.args(["--pod-hook", options.pod_hook.word()]);
    if let Some(nic) = options.nic {
        command.args(["--nic", nic.word()]);
    }
    command.args(&options.agent_args);
    command.arg("--upstream-resolv-conf").arg(paths.resolv_conf());
    without_settings(&mut command);
    Spawn {
        command,
        enter: Enter::netns(&paths.netns(node))?.cgroup(&cgroup)?,
        log: &paths.log(&Role::Agent(node.to_owned()).to_string()),
        stdin: None,
    }
    .run()
}

pub(crate) fn unknown_node(paths: &Paths, plan: &Plan, node: &str) -> Error {
    Error::Unknown {
        lab: paths.lab.clone(),
        what: "node",
        name: node.to_owned(),
        known: plan.node_names().join(", "),
    }
}

/// The caller's own EASTWEST_… settings are not the lab's.
fn without_settings(command: &mut Command) -> &mut Command {
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("EASTWEST_") {
            command.env_remove(key);
        }
    }
    command
}

/// Pins need a BPF file system; most machines have it mounted already.
pub(crate) fn mount_bpf() -> Result<(), Error> {
    let there = statfs(BPF_FS).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC);
    if there {
        return Ok(());
    }
    mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .doing(|| format!("mount a BPF file system at {BPF_FS}"))
}

/// Waits until the controller answers, and writes the kubeconfig by which the machine reaches it.
pub(crate) fn await_controller(paths: &Paths, process: Process, port: u16) -> Result<(), Error> {
    let seconds = start_seconds();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let log = paths.log("controller");
    loop {
        let seen = match local_kubeconfig(paths, port).and_then(|()| ready(paths)) {
            Ok(()) => return Ok(()),
            Err(e) => e.to_string(),
        };
        check("controller", process, &log)?;
        if Instant::now() > deadline {
            let what = "the controller was not ready".into();
            return Err(Error::Timeout { what, seconds, seen });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn check(what: &str, process: Process, log: &Path) -> Result<(), Error> {
    if process.alive() {
        return Ok(());
    }
    let (how, log_name) = (format!("process {}", process.pid), log.display().to_string());
    Err(Error::Died { what: what.to_owned(), how, log: log_name, tail: tail(log) })
}

/// The administrator's kubeconfig with the address that the machine has for the controller.
fn local_kubeconfig(paths: &Paths, port: u16) -> Result<(), Error> {
    let from = paths.controller_data().join("admin.kubeconfig");
    let text = fs::read_to_string(&from).doing(|| format!("read {}", from.display()))?;
    let text = with_server(&text, &format!("https://127.0.0.1:{port}"))
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
        .doing(|| format!("read {}", from.display()))?;
    let to: PathBuf = paths.kubeconfig();
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&to)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .doing(|| format!("write {}", to.display()))
}

fn with_server(kubeconfig: &str, server: &str) -> Result<String, String> {
    use serde_yaml_ng::Value;
    let mut value: Value = serde_yaml_ng::from_str(kubeconfig).map_err(|e| e.to_string())?;
    let clusters = value.get_mut("clusters").and_then(Value::as_sequence_mut).ok_or("it has no clusters")?;
    for cluster in clusters {
        let cluster = cluster.get_mut("cluster").and_then(Value::as_mapping_mut);
        cluster.ok_or("a cluster is empty")?.insert("server".into(), server.into());
    }
    serde_yaml_ng::to_string(&value).map_err(|e| e.to_string())
}

fn ready(paths: &Paths) -> Result<(), Error> {
    api::blocking(&paths.kubeconfig(), |client| async move {
        client.raw(Method::GET, "/readyz", &[], HeaderMap::new(), None).await?;
        Ok(())
    })
}

/// Waits until every one of these nodes' agents follows the controller and has programmed what it holds; one that has reported
/// before `since` is another.
pub(crate) fn await_agents(
    paths: &Paths,
    agents: &[(String, Process)],
    since: jiff::Timestamp,
) -> Result<(), Error> {
    api::blocking(&paths.kubeconfig(), |client| async move {
        let seconds = start_seconds();
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let missing = unreported(&client, agents, since).await?;
            if missing.is_empty() {
                return Ok(());
            }
            for (node, process) in agents {
                let role = Role::Agent(node.clone()).to_string();
                check(&role, *process, &paths.log(&role))?;
            }
            if Instant::now() > deadline {
                let what = format!("the agents of {} did not report", missing.join(", "));
                let seen = format!("see {}", paths.dir().join("logs").display());
                return Err(Error::Timeout { what, seconds, seen });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

async fn unreported(
    client: &Client,
    agents: &[(String, Process)],
    since: jiff::Timestamp,
) -> Result<Vec<String>, Error> {
    let states = client.list::<NodeState>(None, &ListOptions::default()).await?.items;
    let reported = |node: &str| {
        let mut of_node = states.iter().filter(|s| s.metadata.name == node);
        let started = |at: &str| at.parse().is_ok_and(|at: jiff::Timestamp| at >= since);
        of_node.any(|s| {
            let NodeStateStatus { connected, applied_revision, started_at, .. } = &s.status;
            *connected && applied_revision.0 > 0 && started(started_at)
        })
    };
    Ok(agents.iter().map(|(node, _)| node).filter(|node| !reported(node)).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubeconfig_for_the_machine_differs_in_the_server_alone() {
        let text = "apiVersion: v1\nclusters:\n- name: eastwest\n  cluster:\n    server: https://172.31.0.251:7443\n    certificate-authority-data: QQ==\n";
        let changed = with_server(text, "https://127.0.0.1:4711").unwrap();
        assert_eq!(
            serde_yaml_ng::from_str::<serde_yaml_ng::Value>(&changed).unwrap(),
            serde_yaml_ng::from_str::<serde_yaml_ng::Value>(
                &text.replace("172.31.0.251:7443", "127.0.0.1:4711")
            )
            .unwrap()
        );
        assert!(with_server("clusters: 3", "x").is_err());
    }
}
