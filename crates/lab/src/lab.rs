use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use eastwest_client::{Client, WriteOptions};
use eastwest_model::{Kind, Workload};
use serde_json::json;

use crate::api;
use crate::error::Doing;
use crate::netns::Batch;
use crate::paths::Paths;
use crate::{
    Error, Nic, Options, Plan, Pod, PodName, PodSpec, Process, Role, State, Status, Target, control, down,
    fabric, pod, status,
};

/// A lab that is up. One made by [`Lab::up`] goes down when this is dropped, unless [`Lab::keep`] was called; one got by
/// [`Lab::open`] stays. Every call works from the state on disk, so that several programs may use one lab.
#[derive(Debug)]
pub struct Lab {
    paths: Paths,
    owned: bool,
}

/// Workloads are written so that the answer comes when every node has programmed them.
fn programmed() -> WriteOptions {
    WriteOptions { wait_programmed: Some(Duration::from_secs(10)), ..Default::default() }
}

impl Lab {
    /// Builds the namespaces and starts controller and agents; returns when all agents have reported. Leaves nothing
    /// behind when it fails.
    pub fn up(options: Options) -> Result<Lab, Error> {
        let paths = Paths::new(&options.name)?;
        let plan = Plan::new(&options)?;
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot(nix::unistd::geteuid().as_raw()));
        }
        let lock = paths.locked()?;
        if paths.is_up() {
            return Err(Error::Exists(options.name));
        }
        // What a crash in an earlier `up` may have left.
        down::clear(&paths)?;
        drop(lock);
        let lab = Lab { paths, owned: true };
        lab.build(&plan, options)?;
        Ok(lab)
    }

    fn build(&self, plan: &Plan, options: Options) -> Result<(), Error> {
        let paths = &self.paths;
        let lock = paths.locked()?;
        let logs = paths.dir().join("logs");
        fs::create_dir_all(&logs).doing(|| format!("make {}", logs.display()))?;
        let nameserver = Plan::fabric_ip(plan.families()[0]);
        let resolv = format!("nameserver {nameserver}\noptions timeout:1 attempts:1\n");
        fs::write(paths.resolv_conf(), resolv)
            .and_then(|()| fs::write(paths.nsswitch_conf(), nsswitch()))
            .doing(|| format!("write to {}", paths.dir().display()))?;
        fabric::build(paths, plan, matches!(options.nic, None | Some(Nic::XdpNative)))?;

        let bare = options.bare;
        let listener = if bare { None } else { Some(control::new_listener()?) };
        let port = match &listener {
            Some(l) => l.local_addr().doing(|| "read a socket's address".into())?.port(),
            None => 0,
        };
        let mut state = State {
            options,
            port,
            processes: BTreeMap::new(),
            pods: BTreeMap::new(),
            next_host: BTreeMap::new(),
            next_veth: 0,
        };
        paths.save(&state, &lock)?;
        if let Some(listener) = listener {
            let controller = control::start_controller(paths, plan, listener)?;
            state.processes.insert(Role::Controller, controller);
            paths.save(&state, &lock)?;
            control::await_controller(paths, controller, port)?;
            let since = jiff::Timestamp::now();
            for node in plan.node_names() {
                let agent = control::start(paths, plan, &state, &Role::Agent(node.clone()))?;
                state.processes.insert(Role::Agent(node), agent);
                paths.save(&state, &lock)?;
            }
            drop(lock);
            control::await_agents(paths, &agents(&state), since)?;
        }
        Ok(())
    }

    /// A lab that is up already.
    pub fn open(name: &str) -> Result<Lab, Error> {
        let paths = Paths::new(name)?;
        paths.load()?;
        Ok(Lab { paths, owned: false })
    }

    /// It stays up when this value goes.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    pub fn down(mut self) -> Result<(), Error> {
        self.owned = false;
        down::down(&self.paths.lab)?;
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.paths.lab
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.paths.kubeconfig()
    }

    pub fn logs(&self) -> PathBuf {
        self.paths.dir().join("logs")
    }

    pub fn state(&self) -> Result<State, Error> {
        self.paths.load()
    }

    pub fn plan(&self) -> Result<Plan, Error> {
        Plan::new(&self.state()?.options)
    }

    pub fn status(&self) -> Result<Status, Error> {
        let state = self.state()?;
        Ok(status::status(&self.paths, &Plan::new(&state.options)?, &state))
    }

    /// Starts a pod, and registers its Workload. Returns when it serves and every node has programmed it.
    pub fn run_pod(&self, spec: &PodSpec) -> Result<Pod, Error> {
        let paths = &self.paths;
        let plan = self.plan()?;
        let n =
            plan.node_number(&spec.node).ok_or_else(|| control::unknown_node(paths, &plan, &spec.node))?;
        // Building is outside the lock, so that pods can be started side by side; what they share is allotted inside.
        let mut pod = self.change(|state| {
            let pod = pod::allot(state, &plan, spec, n)?;
            state.pods.insert(spec.name.clone(), pod.clone());
            Ok(pod)
        })?;
        match self.bring_up(&plan, spec, &mut pod, n) {
            Ok(()) => Ok(pod),
            Err(e) => {
                let removed = self.remove_pod(&spec.name);
                if let Err(also) = removed {
                    tracing::warn!(pod = %spec.name, error = %also, "what was built of the pod stays");
                }
                Err(e)
            }
        }
    }

    fn bring_up(&self, plan: &Plan, spec: &PodSpec, pod: &mut Pod, n: u16) -> Result<(), Error> {
        let paths = &self.paths;
        pod::wire(paths, plan, &spec.name, pod, n)?;
        pod::write_files(paths, plan, &spec.name, pod)?;
        let process = pod::start(paths, spec, pod)?;
        pod.process = Some(process);
        let bare = self.change(|state| {
            state.pods.insert(spec.name.clone(), pod.clone());
            Ok(state.options.bare)
        })?;
        if !bare {
            let workload = spec.workload(pod);
            self.request(|c| async move { Ok(c.create(&workload, &programmed()).await?) })?;
        }
        Ok(())
    }

    /// Takes the Workload out of the API, waits until no node sends to it, then ends the pod.
    pub fn remove_pod(&self, name: &PodName) -> Result<(), Error> {
        let state = self.state()?;
        let pod = state.pods.get(name).ok_or_else(|| self.unknown_pod(&state, name))?;
        if !state.options.bare {
            let deleted = self.request(|c| async move {
                Ok(c.delete(Kind::Workload, &name.namespace, &name.name, &programmed()).await?)
            });
            match deleted {
                Err(Error::Api(e)) if e.is_not_found() => {}
                Err(e) => tracing::warn!(pod = %name, error = %e, "the pod goes, its Workload may stay"),
                Ok(_) => {}
            }
        }
        pod::unwire(&self.paths, name, pod)?;
        self.change(|state| {
            state.pods.remove(name);
            Ok(())
        })
    }

    /// Makes a pod ready or not, as a readiness probe would. Returns when every node has programmed it.
    pub fn set_ready(&self, name: &PodName, ready: bool) -> Result<(), Error> {
        let readiness = if ready { "Ready" } else { "NotReady" };
        let patch = json!({"spec": {"readiness": readiness}});
        self.request(|c| async move {
            c.merge_patch::<Workload>(&name.namespace, &name.name, &patch, &programmed()).await?;
            Ok(())
        })
    }

    fn unknown_pod(&self, state: &State, name: &PodName) -> Error {
        let known: Vec<_> = state.pods.keys().map(PodName::to_string).collect();
        Error::Unknown {
            lab: self.paths.lab.clone(),
            what: "pod",
            name: name.to_string(),
            known: if known.is_empty() { "none".into() } else { known.join(", ") },
        }
    }

    /// Where a name leads: `node-N`, `client`, `ctl`, `fabric`, or a pod.
    pub fn target(&self, name: &str) -> Result<Target, Error> {
        let state = self.state()?;
        Target::find(&self.paths, &Plan::new(&state.options)?, &state, name)
    }

    /// A command that will run in the place of that name, whether it is spawned or replaces this process.
    pub fn command(&self, target: &str, program: &str) -> Result<Command, Error> {
        self.target(target)?.command(&self.paths, &self.state()?, program)
    }

    /// Runs a command there, with no input, and collects what it says.
    pub fn exec(&self, target: &str, argv: &[&str]) -> Result<Output, Error> {
        let (program, args) = argv.split_first().unwrap_or((&"true", &[]));
        let mut command = self.command(target, program)?;
        command.args(args).stdin(Stdio::null());
        command.output().doing(|| format!("run {program} in {target}"))
    }

    /// Runs a closure in a thread inside the network namespace of that name; the cgroup stays the caller's.
    pub fn within<T: Send>(&self, target: &str, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let state = self.state()?;
        let netns = match self.target(target)? {
            Target::Pod(name) => match state.pods.get(&name) {
                Some(pod) if pod.host_network => self.paths.netns(&pod.node),
                _ => self.paths.pod_netns(&name),
            },
            Target::Node(node) => self.paths.netns(&node),
            Target::Client => self.paths.netns("client"),
            Target::Controller => self.paths.netns("ctl"),
            Target::Fabric => self.paths.netns("fabric"),
        };
        crate::netns::within(&netns, || Ok(f()))
    }

    /// Starts the controller or an agent that does not run. Returns when it serves; an agent without a controller
    /// returns at once.
    pub fn start(&self, role: &Role) -> Result<(), Error> {
        let plan = self.plan()?;
        let since = jiff::Timestamp::now();
        let process = self.change(|state| {
            if state.options.bare {
                return Err(Error::Bare(self.paths.lab.clone()));
            }
            if state.processes.get(role).is_some_and(Process::alive) {
                return Err(Error::Running(role.to_string()));
            }
            let process = control::start(&self.paths, &plan, state, role)?;
            state.processes.insert(role.clone(), process);
            Ok(process)
        })?;
        let state = self.state()?;
        match role {
            Role::Controller => control::await_controller(&self.paths, process, state.port),
            Role::Agent(_) if !state.processes.get(&Role::Controller).is_some_and(Process::alive) => Ok(()),
            Role::Agent(node) => control::await_agents(&self.paths, &[(node.clone(), process)], since),
        }
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&self, role: &Role) -> Result<(), Error> {
        self.process(role)?.map_or(Ok(()), |p| p.stop())
    }

    /// SIGKILL.
    pub fn kill(&self, role: &Role) -> Result<(), Error> {
        self.process(role)?.map_or(Ok(()), |p| p.kill())
    }

    fn process(&self, role: &Role) -> Result<Option<Process>, Error> {
        let state = self.state()?;
        let plan = Plan::new(&state.options)?;
        match role {
            Role::Agent(node) if plan.node_number(node).is_none() => {
                Err(control::unknown_node(&self.paths, &plan, node))
            }
            _ => Ok(state.processes.get(role).copied()),
        }
    }

    /// Cuts or mends the cable of a node's NIC.
    pub fn link(&self, node: &str, up: bool) -> Result<(), Error> {
        let plan = self.plan()?;
        if plan.node_number(node).is_none() && node != "client" {
            return Err(control::unknown_node(&self.paths, &plan, node));
        }
        let word = if up { "up" } else { "down" };
        Batch::default().add(format!("link set {node} {word}")).run(Some(&self.paths.netns("fabric")))
    }

    /// Requests to the lab's controller, run to completion; may be called from inside a runtime.
    pub fn request<T, F>(&self, f: impl FnOnce(Client) -> F + Send) -> Result<T, Error>
    where
        T: Send,
        F: Future<Output = Result<T, Error>>,
    {
        if self.state()?.options.bare {
            return Err(Error::Bare(self.paths.lab.clone()));
        }
        api::blocking(&self.kubeconfig(), f)
    }

    fn change<T>(&self, f: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let lock = self.paths.locked()?;
        let mut state = self.paths.load()?;
        let result = f(&mut state)?;
        self.paths.save(&state, &lock)?;
        Ok(result)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(e) = down::down(&self.paths.lab)
        {
            tracing::error!(lab = self.paths.lab, error = %e, "the lab did not go down");
        }
    }
}

fn agents(state: &State) -> Vec<(String, Process)> {
    let agents = state.processes.iter().filter_map(|(role, process)| match role {
        Role::Agent(node) => Some((node.clone(), *process)),
        Role::Controller => None,
    });
    agents.collect()
}

/// The machine's own, with names resolved by file and DNS alone: a resolver daemon of the machine would answer for
/// itself over its socket.
fn nsswitch() -> String {
    let own = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let rest = own.lines().filter(|l| !l.trim_start().starts_with("hosts:"));
    rest.chain(["hosts: files dns"]).map(|l| format!("{l}\n")).collect()
}
