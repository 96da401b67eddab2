//! `eastwest lab …`

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::interrupt::TakesDown;
use crate::output::{put, say};
use anyhow::{Context, Result, anyhow, bail};
use clap::{ArgGroup, Subcommand, ValueEnum};
use eastwest_lab::{Families, Family, Lab, Nic, Options, PodName, PodSpec, Role, Status, ask, serve};

#[derive(clap::Args, Debug)]
pub struct LabCommand {
    /// Name of the lab: a-z, 0-9 and '_' [default: the only one that is up, else "lab"]
    #[arg(long, global = true)]
    name: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Build a cluster of network namespaces and start controller and agents in it
    Up(UpArgs),
    /// Take a lab down, also what a crash has left of one
    Down {
        /// Every lab on this machine
        #[arg(long)]
        all: bool,
    },
    /// Start a pod and register its Workload; without a command it serves HTTP, TCP echo and UDP
    Run(RunArgs),
    /// Run a command in a node, a pod, `client` (outside the cluster), `ctl` or `fabric`
    Exec {
        /// node-N, client, ctl, fabric, or [NAMESPACE/]POD
        #[arg(value_name = "WHERE")]
        target: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Remove pods
    Rm {
        #[arg(required = true, value_name = "POD")]
        pods: Vec<String>,
    },
    /// Make pods ready, as a readiness probe would
    Ready {
        #[arg(required = true, value_name = "POD")]
        pods: Vec<String>,
    },
    /// Make pods not ready, as a readiness probe would
    Unready {
        #[arg(required = true, value_name = "POD")]
        pods: Vec<String>,
    },
    /// Stop the controller or agents with SIGTERM
    Stop(Which),
    /// Start the controller or agents
    Start(Which),
    /// Stop, then start
    Restart(Which),
    /// Kill the controller or agents with SIGKILL
    Kill(Which),
    /// Cut a node's cable, or mend it
    Link { state: UpDown, node: String },
    /// Show nodes, pods and processes
    Status {
        #[arg(short, long, value_enum)]
        output: Option<Format>,
    },
    /// Print the path of the lab's kubeconfig
    Kubeconfig,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UpDown {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
}

#[derive(clap::Args, Debug)]
struct UpArgs {
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// ptp: a veth and a route a pod; bridge: pods on a bridge; vxlan: bridge, and VXLAN between nodes
    #[arg(long, default_value = "ptp", value_name = "ptp|bridge|vxlan")]
    network: eastwest_lab::Network,
    #[arg(long, default_value = "dual", value_name = "dual|ipv4|ipv6")]
    family: eastwest_lab::Family,
    /// Where agents hook pods' devices
    #[arg(long, default_value = "tc", value_name = "tc|xdp")]
    pod_hook: eastwest_lab::PodHook,
    /// How agents hook the nodes' NICs [default: the agent's choice]
    #[arg(long, value_name = "xdp-native|xdp-generic|tc")]
    nic: Option<Nic>,
    /// CoreDNS' configuration file for the agents to follow; without it they do as kubeadm's.
    #[arg(long, value_name = "FILE")]
    corefile: Option<std::path::PathBuf>,
    /// Namespaces and pods alone, without controller and agents
    #[arg(long)]
    bare: bool,
}

#[derive(clap::Args, Debug)]
struct RunArgs {
    /// [NAMESPACE/]NAME
    pod: String,
    #[arg(long, default_value = "node-1")]
    node: String,
    /// k=v,…
    #[arg(short, long, value_delimiter = ',', value_name = "K=V")]
    labels: Vec<String>,
    #[arg(short, long)]
    namespace: Option<String>,
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Live in the node's own network namespace
    #[arg(long)]
    host_network: bool,
    /// Headless Service under which the pod gets a name of its own
    #[arg(long, value_name = "SERVICE")]
    subdomain: Option<String>,
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(clap::Args, Debug)]
#[command(group(ArgGroup::new("which")))]
struct Which {
    role: RoleName,
    /// Of the agent; all nodes when left out
    node: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    Controller,
    Agent,
}

#[derive(clap::Args, Debug)]
pub struct ServeArgs {
    #[arg(long)]
    pod: String,
    #[arg(long)]
    node: String,
    #[arg(long)]
    port: u16,
    #[arg(long, default_value = "")]
    version_label: String,
}

/// What a pod without a command runs.
pub fn serve(args: ServeArgs) -> Result<ExitCode> {
    let identity = serve::Identity { pod: args.pod, node: args.node, version: args.version_label };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(serve::run(identity, args.port))
        .with_context(|| format!("serve on port {}", args.port))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(clap::Args, Debug)]
pub struct AskArgs {
    #[arg(long)]
    host: String,
    #[arg(long)]
    port: u16,
    #[arg(long, value_name = "ipv4|ipv6")]
    family: Option<Family>,
    /// Without it: until standard input ends
    #[arg(long, default_value_t = 0)]
    count: u64,
    #[arg(long, default_value = "0ms", value_parser = crate::args::duration)]
    pause: std::time::Duration,
    #[arg(long)]
    hold: bool,
}

/// A client inside the lab; prints what it saw as JSON.
pub fn ask(args: AskArgs) -> Result<ExitCode> {
    let family = match args.family {
        None | Some(Family::Dual) => None,
        Some(Family::Ipv4) => Some(Families::V4),
        Some(Family::Ipv6) => Some(Families::V6),
    };
    let ask = ask::Ask {
        host: args.host,
        port: args.port,
        family,
        count: args.count,
        pause: args.pause,
        hold: args.hold,
    };
    static STOP: AtomicBool = AtomicBool::new(false);
    if args.count == 0 {
        std::thread::spawn(|| {
            // An error ends it as the end of the input does.
            let _end = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            STOP.store(true, Ordering::Relaxed);
        });
    }
    let report = ask::run(&ask, &STOP).with_context(|| format!("ask {}:{}", ask.host, ask.port))?;
    say!("{}", serde_json::to_string(&report)?);
    Ok(ExitCode::SUCCESS)
}

/// The lab meant when none is named.
pub fn the_one() -> Option<String> {
    let mut labs = eastwest_lab::list();
    if labs.len() == 1 { labs.pop() } else { None }
}

pub fn run(command: LabCommand) -> Result<ExitCode> {
    let given = command.name;
    let name = || given.clone().or_else(the_one).unwrap_or_else(|| "lab".into());
    let open = || Lab::open(&name());
    match command.action {
        Action::Up(up) => return self::up(given.unwrap_or_else(|| "lab".into()), up),
        Action::Down { all: true } => {
            for lab in eastwest_lab::down_all()? {
                say!("lab {lab} is down");
            }
        }
        Action::Down { all: false } => {
            let name = name();
            let word = if eastwest_lab::down(&name)? { "is down" } else { "was not up" };
            say!("lab {name} {word}");
        }
        Action::Run(run) => self::run_pod(&open()?, run)?,
        Action::Exec { target, command } => {
            let (program, args) = command.split_first().ok_or_else(|| anyhow!("no command"))?;
            let error = open()?.command(&target, program)?.args(args).exec();
            // As a shell has it: 127 there is no such command, 126 it cannot be run.
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            eprintln!("error: run {program} in {target}: {error}");
            return Ok(ExitCode::from(code));
        }
        Action::Rm { pods } => {
            let lab = open()?;
            for pod in pods {
                lab.remove_pod(&pod.parse()?)?;
                say!("pod {pod} removed");
            }
        }
        Action::Ready { pods } => set_ready(&open()?, &pods, true)?,
        Action::Unready { pods } => set_ready(&open()?, &pods, false)?,
        Action::Stop(which) => each(&open()?, which, "stopped", Lab::stop)?,
        Action::Start(which) => each(&open()?, which, "started", Lab::start)?,
        Action::Kill(which) => each(&open()?, which, "killed", Lab::kill)?,
        Action::Restart(which) => {
            each(&open()?, which, "restarted", |lab, role| lab.stop(role).and_then(|()| lab.start(role)))?;
        }
        Action::Link { state, node } => {
            let up = matches!(state, UpDown::Up);
            open()?.link(&node, up)?;
            say!("link of {node} {}", if up { "up" } else { "down" });
        }
        Action::Status { output } => {
            let status = open()?.status()?;
            match output {
                Some(Format::Json) => say!("{}", serde_json::to_string_pretty(&status)?),
                None => put(&describe(&status)),
            }
        }
        Action::Kubeconfig => say!("{}", open()?.kubeconfig().display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The agents' words for a Corefile; they are started elsewhere, so its path is whole.
fn follow(corefile: &std::path::Path) -> Result<Vec<String>> {
    Ok(vec!["--corefile".into(), std::path::absolute(corefile)?.display().to_string()])
}

fn up(name: String, args: UpArgs) -> Result<ExitCode> {
    let started = std::time::Instant::now();
    let options = Options {
        name,
        nodes: args.nodes,
        network: args.network,
        family: args.family,
        pod_hook: args.pod_hook,
        nic: args.nic,
        agent_args: args.corefile.as_deref().map_or(Ok(Vec::new()), follow)?,
        bare: args.bare,
    };
    let interrupt = TakesDown::lab(&options.name)?;
    let mut lab = Lab::up(options)?;
    lab.keep();
    drop(interrupt);
    let o = lab.state()?.options;
    say!(
        "lab {} is up in {:.1} s: {} nodes, network {}, {}",
        lab.name(),
        started.elapsed().as_secs_f64(),
        o.nodes,
        o.network,
        o.family
    );
    if !o.bare {
        say!("kubeconfig {}", lab.kubeconfig().display());
    }
    say!("logs       {}", lab.logs().display());
    Ok(ExitCode::SUCCESS)
}

fn run_pod(lab: &Lab, args: RunArgs) -> Result<()> {
    let name: PodName = match args.namespace {
        Some(namespace) if args.pod.contains('/') => {
            bail!("{} names its namespace already: leave out -n {namespace}", args.pod)
        }
        Some(namespace) => PodName::new(&namespace, &args.pod)?,
        None => args.pod.parse()?,
    };
    let mut labels = BTreeMap::new();
    for label in &args.labels {
        let (key, value) = label.split_once('=').ok_or_else(|| anyhow!("label {label:?}: not KEY=VALUE"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let spec = PodSpec {
        name,
        node: args.node,
        labels,
        port: args.port,
        host_network: args.host_network,
        subdomain: args.subdomain,
        command: args.command,
    };
    let pod = lab.run_pod(&spec)?;
    let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
    say!("pod {} on {}: {}", spec.name, spec.node, addresses.join(" "));
    Ok(())
}

fn set_ready(lab: &Lab, pods: &[String], ready: bool) -> Result<()> {
    for pod in pods {
        lab.set_ready(&pod.parse()?, ready)?;
        say!("pod {pod} {}", if ready { "ready" } else { "not ready" });
    }
    Ok(())
}

fn each(
    lab: &Lab,
    which: Which,
    done: &str,
    f: impl Fn(&Lab, &Role) -> Result<(), eastwest_lab::Error>,
) -> Result<()> {
    let roles = match (which.role, which.node) {
        (RoleName::Controller, None) => vec![Role::Controller],
        (RoleName::Controller, Some(node)) => bail!("the controller is not a node's: leave out {node}"),
        (RoleName::Agent, Some(node)) => vec![Role::Agent(node)],
        (RoleName::Agent, None) => lab.plan()?.node_names().into_iter().map(Role::Agent).collect(),
    };
    for role in roles {
        f(lab, &role)?;
        say!("{role} {done}");
    }
    Ok(())
}

fn describe(status: &Status) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let o = &status.options;
    let process = |p: &Option<eastwest_lab::ProcessStatus>| match p {
        Some(p) if p.running => format!("running, pid {}", p.pid),
        Some(p) => format!("ended (was pid {})", p.pid),
        None => "never started".into(),
    };
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "lab {}: network {}, {}, pod hook {}, NIC {}",
        o.name,
        o.network,
        o.family,
        o.pod_hook,
        o.nic.map_or("auto", Nic::word)
    );
    if !o.bare {
        let _ = writeln!(out, "controller  {}", process(&status.controller));
        if let Some(e) = &status.error {
            let _ = writeln!(out, "            {e}");
        }
        let _ = writeln!(out, "kubeconfig  {}", status.kubeconfig.display());
    }
    let _ = writeln!(out, "logs        {}", status.logs.display());
    for node in &status.nodes {
        let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
        let _ = write!(out, "{:<11} {}", node.name, addresses.join(" "));
        if !o.bare {
            let _ = write!(out, "  agent {}", process(&node.agent));
            if let Some(state) = &node.state {
                let s = &state.status;
                let link = if s.connected { "connected" } else { "not connected" };
                let _ = write!(out, ", {link}, applied {}", s.applied_revision);
                for problem in &s.problems {
                    let _ = write!(out, "\n            problem: {problem}");
                }
            }
        }
        out.push('\n');
    }
    for pod in &status.pods {
        let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
        let net = if pod.host_network { " (host network)" } else { "" };
        let _ = writeln!(
            out,
            "pod {} on {}{net}: {} port {}, {}",
            pod.name,
            pod.node,
            addresses.join(" "),
            pod.port,
            process(&pod.process)
        );
    }
    out
}
