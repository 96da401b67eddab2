use std::process::Command;

use crate::enter::Enter;
use crate::paths::Paths;
use crate::{Error, Plan, PodName, State, cgroup, pod};

/// Where a command can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// In the node's network namespace and cgroup, as a process of the host.
    Node(String),
    /// Outside the cluster, on the fabric.
    Client,
    /// The controller's namespace.
    Controller,
    /// The bridge that the nodes' NICs are on.
    Fabric,
    Pod(PodName),
}

impl Target {
    pub(crate) fn find(paths: &Paths, plan: &Plan, state: &State, name: &str) -> Result<Self, Error> {
        let target = match name {
            "client" => Target::Client,
            "ctl" => Target::Controller,
            "fabric" => Target::Fabric,
            _ if plan.node_number(name).is_some() => Target::Node(name.to_owned()),
            _ => match name.parse::<PodName>() {
                Ok(pod) if state.pods.contains_key(&pod) => Target::Pod(pod),
                _ => {
                    let pods = state.pods.keys().map(PodName::to_string);
                    let parts = ["client", "ctl", "fabric"].map(str::to_owned);
                    let known: Vec<_> = plan.node_names().into_iter().chain(parts).chain(pods).collect();
                    return Err(Error::Unknown {
                        lab: paths.lab.clone(),
                        what: "node or pod",
                        name: name.to_owned(),
                        known: known.join(", "),
                    });
                }
            },
        };
        Ok(target)
    }

    fn enter(&self, paths: &Paths, state: &State) -> Result<Enter, Error> {
        let (part, node) = match self {
            Target::Pod(name) => {
                return match state.pods.get(name) {
                    Some(p) => pod::enter(paths, name, p),
                    None => Err(Error::NoLab(paths.lab.clone())),
                };
            }
            Target::Node(node) => (node.as_str(), Some(node)),
            Target::Client => ("client", None),
            Target::Controller => ("ctl", None),
            Target::Fabric => ("fabric", None),
        };
        let mut enter = Enter::netns(&paths.netns(part))?.hostname(part);
        if let Some(node) = node {
            enter = enter.cgroup(&cgroup::of_node(paths, node)?)?;
        }
        enter.resolver(&paths.resolv_conf(), &paths.nsswitch_conf())
    }

    /// A command that will run there, to be spawned, or executed in place of this process.
    pub(crate) fn command(&self, paths: &Paths, state: &State, program: &str) -> Result<Command, Error> {
        let mut command = Command::new(program);
        self.enter(paths, state)?.apply(&mut command);
        Ok(command)
    }
}
