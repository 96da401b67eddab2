use std::io;

/// What went wrong with a lab. Every message says what was being done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not a lab's name: 1 to 12 of a-z, 0-9 and '_', beginning with a letter")]
    LabName(String),
    #[error("{0:?} is not a pod's name: NAME or NAMESPACE/NAME, each at most 63 of a-z, 0-9 and '-'")]
    PodName(String),
    #[error("{0:?} means a part of the lab itself: choose another name for the pod")]
    ReservedName(String),
    #[error("{nodes} nodes: a lab has 1 to {max}")]
    Nodes { nodes: u16, max: u16 },
    #[error("a lab needs root: it makes network namespaces (this process has uid {0})")]
    NotRoot(u32),
    #[error("lab {0} is up already: take it down first with `eastwest lab down --name {0}`")]
    Exists(String),
    #[error("there is no lab {0}: `eastwest lab up --name {0}` makes one")]
    NoLab(String),
    #[error("lab {lab} has no {what} {name}; there is {known}")]
    Unknown { lab: String, what: &'static str, name: String, known: String },
    #[error("pod {0} exists already: `eastwest lab rm {0}` removes it")]
    PodExists(String),
    #[error("node {0} has no free pod address left")]
    AddressesExhausted(String),
    #[error("{0} is running already")]
    Running(String),
    #[error("no binary {name} in {dirs}: build it (`make build`), or name its folder in EASTWEST_BIN_DIR")]
    NoBinary { name: &'static str, dirs: String },
    #[error("{doing}: {error}")]
    Io { doing: String, error: io::Error },
    #[error("`{command}` failed: {stderr}")]
    Command { command: String, stderr: String },
    #[error("{what} ended at its start ({how}); {log} says:\n{tail}")]
    Died { what: String, how: String, log: String, tail: String },
    #[error("{what} within {seconds} s: {seen}")]
    Timeout { what: String, seconds: u64, seen: String },
    #[error("no cgroup2 mount on this machine: the agents need one for processes of the host")]
    NoCgroup2,
    #[error("lab {0} runs without controller and agents")]
    Bare(String),
    #[error("{0}")]
    Api(#[from] eastwest_client::Error),
    #[error(
        "state of the lab in {path} does not read ({reason}): `eastwest lab down --name {lab}` clears it away"
    )]
    State { path: String, lab: String, reason: String },
}

/// Names what was being done when an I/O error came.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error::Io { doing: what(), error: e.into() })
    }
}
