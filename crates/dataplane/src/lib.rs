//! The kernel side of a node, as the agent drives it: loads and pins the programs of `xdp/programs`, writes their maps,
//! hooks devices as they come, and owns the node's own addresses.
//!
//! It knows what is programmed and how to change it without a packet seeing half of a change. It does not know why:
//! the decision is made in `eastwest-compile`, whose [`CompiledService`](eastwest_compile::CompiledService) comes in
//! here. The bookkeeping (`plan`) is pure and runs over any `Tables`: the kernel's maps, or memory in tests.

pub mod address;
pub mod beside;
pub mod clsact;
pub mod devices;
mod ebpf;
mod error;
pub mod events;
pub mod extent;
pub mod ids;
pub mod kube_proxy;
mod memory;
mod netlink;
pub mod object;
mod options;
pub mod pins;
pub mod plan;
mod sys;

use std::collections::BTreeMap;

use eastwest_compile::{CompiledService, ServiceKey};

pub use ebpf::retire::{forget_ended_flows, forget_kube_proxys_flows, retire};
pub use ebpf::{Beside, EbpfDataplane, NameCount, NodeNames, Programs};
pub use error::Error;
pub use memory::{MemoryTables, Recording};
pub use options::{Capacities, Options};

/// Programs Services into something that forwards packets.
pub trait Dataplane: Send {
    /// Programs `new` in place of what `key` has now; `None`: it shall have nothing.
    ///
    /// Each frontend switches at once from its old backends to its new ones. Cost: O(size of this service).
    ///
    /// # Errors
    /// [`Error::Full`] leaves the service as it was; [`retry`](Self::retry) takes it up again when room has come free. Any other error may
    /// leave some of its frontends on the old state; the next `apply` of it carries on from there.
    fn apply(&mut self, key: &ServiceKey, new: Option<&CompiledService>) -> Result<Applied, Error>;

    /// Makes the maps hold exactly `desired`, writing only what differs. A service that cannot be programmed is named
    /// in [`Applied::failed`] and does not hinder the others.
    ///
    /// # Errors
    /// When the maps cannot be read or cleaned up.
    fn reconcile(&mut self, desired: &mut dyn Iterator<Item = &CompiledService>) -> Result<Applied, Error>;

    /// Tries Services again that found no room. Call it now and then, such as with each report; it costs nothing when
    /// there is nothing to do.
    fn retry(&mut self) -> Applied;

    /// Whether frontends at [`Options::skip_addresses`] are programmed all the same, where they have backends: what this node
    /// serves itself at these addresses is not there. Counts from the next [`apply`](Self::apply) of each Service on.
    fn set_stand_in(&mut self, on: bool);

    /// Counters of the kernel programs by [`eastwest_abi::counter::NAMES`].
    ///
    /// # Errors
    /// When the map cannot be read.
    fn counters(&self) -> Result<BTreeMap<String, u64>, Error>;

    /// Connections opened through each Service port since the programs were loaded, with the port's protocol number and
    /// name; those without any are left out.
    fn connections(&self) -> Vec<Connections> {
        Vec::new()
    }

    /// How full the tables are.
    fn stats(&self) -> Stats;

    /// What is not programmed as asked, and why: frontends claimed by two Services, Services that found no room or too
    /// little, maps that keep another size.
    fn problems(&self) -> Vec<String>;
}

/// Connections of a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    pub service: ServiceKey,
    pub protocol: u8,
    /// Name of the port; may be empty.
    pub port: std::sync::Arc<str>,
    pub opened: u64,
}

/// What a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Writes to maps, slots and backends included. 0: everything was as wanted.
    pub writes: u64,
    /// Frontends that were added, switched or removed.
    pub frontends: u64,
    /// What could not be done as asked in this call although nothing failed, such as a frontend that another Service
    /// has.
    pub problems: Vec<String>,
    /// Services that stay as they were, and why.
    pub failed: Vec<(ServiceKey, String)>,
    /// A Service has no Maglev table, for which there was no room: clients outside get its backends by chance.
    pub by_chance: bool,
}

impl Applied {
    fn merge(&mut self, other: Applied) {
        self.writes += other.writes;
        self.frontends += other.frontends;
        self.problems.extend(other.problems);
        self.failed.extend(other.failed);
        self.by_chance |= other.by_chance;
    }
}

/// Takes everything of ours off this thread's network namespace and out of `pin_dir`: hooks, maps, addresses, routes.
/// Connections through virtual IPs end. Idempotent. Must be called within a tokio runtime.
///
/// # Errors
/// The first that occurred; the rest is done all the same.
pub async fn cleanup(pin_dir: &std::path::Path) -> Result<(), Error> {
    // The routes first: where kube-proxy serves again, a process of the node must not be stopped by them.
    let addresses = address::remove().await;
    let pins = pins::remove_all(pin_dir);
    let filters = devices::remove_filters();
    pins.and(filters).and(addresses)
}

/// Fill levels. A frontend's own address entry counts as a frontend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Services with at least one frontend.
    pub services: u64,
    pub frontends4: Level,
    pub frontends6: Level,
    /// Backends: one for each (Service port, address, port).
    pub backends: Level,
    pub endpoints4: Level,
    pub endpoints6: Level,
    pub slots: Level,
}

/// Entries in use and entries there can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub used: u32,
    pub capacity: u32,
}
