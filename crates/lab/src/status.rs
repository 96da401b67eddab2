use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use eastwest_client::ListOptions;
use eastwest_model::NodeState;
use serde::Serialize;

use crate::paths::Paths;
use crate::{Error, Options, Plan, PodName, Process, Role, State, api};

/// What a lab is and how it is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub options: Options,
    pub kubeconfig: PathBuf,
    pub logs: PathBuf,
    /// None in a lab without controller and agents.
    pub controller: Option<ProcessStatus>,
    /// Why the controller does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub nodes: Vec<AgentStatus>,
    pub pods: Vec<PodStatus>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessStatus {
    pub pid: i32,
    pub running: bool,
}

/// A node, and what its agent last reported.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub agent: Option<ProcessStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    pub name: PodName,
    pub node: String,
    pub host_network: bool,
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    pub process: Option<ProcessStatus>,
}

impl From<&Process> for ProcessStatus {
    fn from(p: &Process) -> Self {
        Self { pid: p.pid, running: p.alive() }
    }
}

pub(crate) fn status(paths: &Paths, plan: &Plan, state: &State) -> Status {
    let mut states = BTreeMap::new();
    let mut error = None;
    if !state.options.bare {
        match node_states(paths) {
            Ok(list) => states = list,
            Err(e) => error = Some(e.to_string()),
        }
    }
    let process = |role: &Role| state.processes.get(role).map(ProcessStatus::from);
    Status {
        options: state.options.clone(),
        kubeconfig: paths.kubeconfig(),
        logs: paths.dir().join("logs"),
        controller: process(&Role::Controller),
        error,
        nodes: plan
            .node_numbers()
            .map(|n| {
                let name = Plan::node_name(n);
                AgentStatus {
                    addresses: plan.families().iter().map(|&f| Plan::node_ip(n, f)).collect(),
                    agent: process(&Role::Agent(name.clone())),
                    state: states.remove(&name),
                    name,
                }
            })
            .collect(),
        pods: state
            .pods
            .iter()
            .map(|(name, p)| PodStatus {
                name: name.clone(),
                node: p.node.clone(),
                host_network: p.host_network,
                addresses: p.addresses.clone(),
                port: p.port,
                process: p.process.as_ref().map(ProcessStatus::from),
            })
            .collect(),
    }
}

fn node_states(paths: &Paths) -> Result<BTreeMap<String, NodeState>, Error> {
    let list = api::blocking(&paths.kubeconfig(), |client| async move {
        Ok(client.list::<NodeState>(None, &ListOptions::default()).await?)
    })?;
    Ok(list.items.into_iter().map(|s| (s.metadata.name.clone(), s)).collect())
}
