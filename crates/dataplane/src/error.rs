use std::io;
use std::path::PathBuf;

use eastwest_abi as abi;

/// What can go wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table has no room for a Service. The Service stays as it was; others go on.
    #[error("map {map} is full ({capacity} entries): raise the setting {setting}")]
    Full { map: &'static str, capacity: u32, setting: &'static str },
    /// The kernel refused a write or a read.
    #[error("map {map}: {action}: {source}")]
    Map {
        map: &'static str,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// A pinned map has another layout than this version's.
    #[error("pinned map {path}: {what}; remove it (`eastwest-agent cleanup`) or use another pin folder")]
    Layout { path: PathBuf, what: String },
    /// The pin folder cannot be used.
    #[error("pin folder {path}: {what}: {source}")]
    Pin {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// The kernel did not take the object. The verifier's words are in the source.
    #[error("loading the kernel programs: {0}")]
    Load(#[from] Box<aya::EbpfError>),
    /// The kernel did not take one program.
    #[error("loading program {program}: {source}")]
    Program {
        program: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object does not hold what this version expects.
    #[error("the kernel object has no {0}: build it with `cargo xtask bpf` from the same sources")]
    Missing(&'static str),
    /// A program could not be attached.
    #[error("attaching {program} to {target}: {source}")]
    Attach {
        program: &'static str,
        target: String,
        #[source]
        source: io::Error,
    },
    /// No cgroup2 hierarchy to attach to.
    #[error("cgroup {path}: {source}; name the cgroup2 mount with the setting cgroupRoot")]
    Cgroup {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Netlink said no.
    #[error("{action}: {source}")]
    Netlink {
        action: String,
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// An operating system call failed.
    #[error("{action}: {source}")]
    System {
        action: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn system(action: impl Into<String>, source: io::Error) -> Self {
        Self::System { action: action.into(), source }
    }

    pub(crate) fn netlink(action: impl Into<String>, source: rtnetlink::Error) -> Self {
        Self::Netlink { action: action.into(), source: Box::new(source) }
    }

    /// Full error for one of our maps, with the setting that makes it larger.
    pub(crate) fn full(map: &'static str, capacity: u32) -> Self {
        let setting = match map {
            abi::maps::FRONTENDS4 | abi::maps::FRONTENDS6 | abi::maps::SOURCES4 | abi::maps::SOURCES6 => {
                "capacityFrontends"
            }
            abi::maps::BACKENDS | abi::maps::ENDPOINTS4 | abi::maps::ENDPOINTS6 => "capacityBackends",
            _ => "capacitySlots",
        };
        Self::Full { map, capacity, setting }
    }
}
