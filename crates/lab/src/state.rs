use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::Doing;
use crate::paths::{Paths, RUN_DIR};
use crate::{Error, Options, Process};

/// What a lab remembers of itself, in `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub options: Options,
    /// Port of the controller on 127.0.0.1 of the machine; kept over restarts.
    pub port: u16,
    /// Running or not: what was started last.
    pub processes: BTreeMap<Role, Process>,
    pub pods: BTreeMap<PodName, Pod>,
    /// By node number: the host part that the next pod is tried with. Addresses go round, so that one just freed is
    /// not taken again at once.
    pub next_host: BTreeMap<u16, u16>,
    pub next_veth: u32,
}

/// A process of eastwest's own in a lab.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Role {
    Controller,
    /// Of the node of this name.
    Agent(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Controller => f.write_str("controller"),
            Role::Agent(node) => write!(f, "agent-{node}"),
        }
    }
}

impl From<Role> for String {
    fn from(role: Role) -> String {
        role.to_string()
    }
}

impl TryFrom<String> for Role {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        match s.strip_prefix("agent-") {
            Some(node) => Ok(Role::Agent(node.to_owned())),
            None if s == "controller" => Ok(Role::Controller),
            None => Err(format!("{s:?} is neither controller nor agent-NODE")),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    pub node: String,
    pub host_network: bool,
    /// One of each family of the lab.
    pub addresses: Vec<IpAddr>,
    /// The node's end of the pod's veth pair; none with `hostNetwork`.
    pub veth: Option<String>,
    pub port: u16,
    /// Empty: it serves.
    pub command: Vec<String>,
    pub process: Option<Process>,
}

impl Pod {
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv6)
    }
}

/// Namespace and name of a pod. Prints as `NAME` in namespace `default`, else as `NAMESPACE/NAME`, and reads both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PodName {
    pub namespace: String,
    pub name: String,
}

impl PodName {
    pub fn new(namespace: &str, name: &str) -> Result<Self, Error> {
        let reserved = matches!(name, "fabric" | "client" | "ctl")
            || name.strip_prefix("node-").is_some_and(|n| n.parse::<u16>().is_ok());
        if reserved && namespace == "default" {
            return Err(Error::ReservedName(name.to_owned()));
        }
        if [namespace, name].iter().all(|s| is_label(s)) {
            Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
        } else {
            Err(Error::PodName(format!("{namespace}/{name}")))
        }
    }
    /// Unique as a file's name: neither part holds a dot.
    pub(crate) fn joined(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }
}

fn is_label(s: &str) -> bool {
    (1..=63).contains(&s.len())
        && !s.starts_with('-')
        && !s.ends_with('-')
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == "default" {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl FromStr for PodName {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self, Error> {
        match s.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new("default", s),
        }
    }
}

impl From<PodName> for String {
    fn from(pod: PodName) -> String {
        pod.to_string()
    }
}

impl TryFrom<String> for PodName {
    type Error = Error;
    fn try_from(s: String) -> Result<Self, Error> {
        s.parse()
    }
}

/// Holds the lab's lock: one command at a time changes the state or the namespaces.
pub(crate) struct Locked {
    _lock: Flock<File>,
}

impl Paths {
    pub fn locked(&self) -> Result<Locked, Error> {
        fs::create_dir_all(RUN_DIR).doing(|| format!("make {RUN_DIR}"))?;
        let path = self.lock();
        loop {
            let file = File::create(&path).doing(|| format!("open {}", path.display()))?;
            let lock = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, e)| e)
                .doing(|| format!("lock {}", path.display()))?;
            // `lab down` removes the file while others wait for it.
            let held = lock.metadata().doing(|| format!("look at {}", path.display()))?.ino();
            if fs::metadata(&path).is_ok_and(|m| m.ino() == held) {
                return Ok(Locked { _lock: lock });
            }
        }
    }

    pub fn is_up(&self) -> bool {
        self.state().exists()
    }

    pub fn load(&self) -> Result<State, Error> {
        let path = self.state();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::NoLab(self.lab.clone())),
            Err(e) => return Err(e).doing(|| format!("read {}", path.display())),
        };
        serde_json::from_slice(&text).map_err(|e| Error::State {
            path: path.display().to_string(),
            lab: self.lab.clone(),
            reason: e.to_string(),
        })
    }

    /// Whole or not at all. The lock stands for the right to do it.
    pub fn save(&self, state: &State, _held: &Locked) -> Result<(), Error> {
        let path = self.state();
        let new = path.with_extension("new");
        let text = serde_json::to_vec_pretty(state).map_err(std::io::Error::from);
        text.and_then(|t| fs::write(&new, t))
            .and_then(|()| fs::rename(&new, &path))
            .doing(|| format!("write {}", path.display()))
    }
}

/// Names of the labs that are up, sorted.
pub fn list() -> Vec<String> {
    let mut labs: Vec<String> = fs::read_dir(RUN_DIR)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| Paths::new(name).is_ok_and(|p| p.is_up()))
        .collect();
    labs.sort();
    labs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_names() {
        for (text, want) in [
            ("web-1", Some("web-1")),
            ("default/web-1", Some("web-1")),
            ("shop/web", Some("shop/web")),
            ("shop/client", Some("shop/client")),
            ("client", None),
            ("node-1", None),
            ("node-x", Some("node-x")),
            ("", None),
            ("a.b", None),
            ("a/b/c", None),
            ("../x", None),
        ] {
            assert_eq!(text.parse::<PodName>().ok().map(|p| p.to_string()).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn roles_read_what_they_print() {
        for role in [Role::Controller, Role::Agent("node-1".into())] {
            assert_eq!(Role::try_from(role.to_string()), Ok(role));
        }
    }
}
