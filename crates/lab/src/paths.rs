use std::path::PathBuf;

use crate::{Error, PodName};

/// Where labs keep what they must find again.
pub(crate) const RUN_DIR: &str = "/run/eastwest/lab";
pub(crate) const NETNS_DIR: &str = "/run/netns";
pub(crate) const BPF_FS: &str = "/sys/fs/bpf";

/// Names and places of one lab. A name has no '-', so that the names of two labs are never prefixes of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    pub lab: String,
}

impl Paths {
    pub fn new(lab: &str) -> Result<Self, Error> {
        let good = (1..=12).contains(&lab.len())
            && lab.starts_with(|c: char| c.is_ascii_lowercase())
            && lab.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if good { Ok(Self { lab: lab.to_owned() }) } else { Err(Error::LabName(lab.to_owned())) }
    }
    pub fn dir(&self) -> PathBuf {
        PathBuf::from(RUN_DIR).join(&self.lab)
    }
    /// Outside the folder of the lab, so that it outlives it: a lock on a deleted file guards nothing.
    pub fn lock(&self) -> PathBuf {
        PathBuf::from(RUN_DIR).join(format!("{}.lock", self.lab))
    }
    pub fn state(&self) -> PathBuf {
        self.dir().join("state.json")
    }
    pub fn log(&self, what: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{what}.log"))
    }
    /// For the machine: the controller by its address on 127.0.0.1.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }
    pub fn controller_data(&self) -> PathBuf {
        self.dir().join("controller")
    }
    pub fn node_data(&self, node: &str) -> PathBuf {
        self.dir().join(node)
    }
    pub fn pod_dir(&self, pod: &PodName) -> PathBuf {
        self.dir().join("pods").join(pod.joined())
    }
    /// What nodes, `client` and `ctl` have as /etc/resolv.conf; the agents' upstream.
    pub fn resolv_conf(&self) -> PathBuf {
        self.dir().join("resolv.conf")
    }
    pub fn nsswitch_conf(&self) -> PathBuf {
        self.dir().join("nsswitch.conf")
    }
    /// The namespace of a part of the lab: `fabric`, `ctl`, `client`, `node-N`.
    pub fn netns(&self, part: &str) -> String {
        format!("ew-{}-{part}", self.lab)
    }
    pub fn pod_netns(&self, pod: &PodName) -> String {
        self.netns(&format!("pod-{}", pod.joined()))
    }
    pub fn cgroup_prefix(&self) -> String {
        format!("eastwest-{}-", self.lab)
    }
    pub fn pins(&self) -> PathBuf {
        PathBuf::from(BPF_FS).join("eastwest-lab").join(&self.lab)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lab_names() {
        for (name, good) in [
            ("lab", true),
            ("a", true),
            ("t_xdp_bridge", true),
            ("", false),
            ("my-lab", false),
            ("Lab", false),
            ("1lab", false),
            ("../etc", false),
            ("abcdefghijklm", false),
        ] {
            assert_eq!(Paths::new(name).is_ok(), good, "{name:?}");
        }
    }
}
