//! Clusters of network namespaces on one machine, with the real controller and agents in them.
//!
//! A lab is a fabric (a bridge), nodes with a NIC on it and pods behind them, a namespace for the controller and an
//! `client` outside the cluster. Every one is a named network namespace, `ew-LAB-…`, that `ip netns` sees. Nothing
//! outside them is touched: no interface, route, firewall rule or sysctl of the machine. Processes are detached, so a
//! lab outlives the program that made it; what is needed to find it again, and to take it down after a crash, is in
//! `/run/eastwest/lab/LAB` and in the names themselves.
//!
//! Called by the command line (`eastwest lab …`, the demo), by the integration tests and by the benches. It knows the
//! binaries by name and the API by its paths, nothing of how they work inside.

mod api;
pub mod ask;
mod cgroup;
mod command;
mod control;
mod down;
mod enter;
mod error;
mod fabric;
mod lab;
mod netns;
mod options;
mod paths;
mod plan;
mod pod;
mod process;
pub mod serve;
mod state;
mod status;
mod wire;

pub use command::Target;
pub use down::{down, down_all};
pub use error::Error;
pub use lab::Lab;
pub use options::{Family, Network, Nic, Options, PodHook};
pub use plan::{Families, Plan};
pub use pod::PodSpec;
pub use process::Process;
pub use state::{Pod, PodName, Role, State, list};
pub use status::{AgentStatus, PodStatus, ProcessStatus, Status};
