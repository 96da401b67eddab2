//! What is programmed, and the order of writes that changes it.
//!
//! A service port's backends are an extent of one flat array of slots, or two: for clients inside and outside. A change
//! writes new backends, then new extents, then switches the frontend to them in one write; only then do old frontends,
//! endpoints, extents and backend ids go. Source ranges are written before the frontend that is bound to them. So whatever a program reads at any moment belongs together.
//!
//! A backend id stands for (service port, address, port), not for (address, port) alone: a pod that leaves one Service
//! but stays in another must lose the UDP flows of the first.

mod adopt;
mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use eastwest_abi as abi;
use eastwest_compile::{CompiledService, DnsService, Frontend, ServiceKey};
use ipnet::IpNet;

use crate::extent::{Extent, Extents, QUARANTINE};
use crate::ids::Ids;
use crate::{Applied, Error, Level, Stats};

pub use adopt::Held;

/// An address, a port and an IP protocol number: key of frontends and of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    pub addr: IpAddr,
    pub port: u16,
    pub protocol: u8,
}

impl Tuple {
    /// The entry for an address itself.
    pub fn address(addr: IpAddr) -> Self {
        Self { addr, port: 0, protocol: 0 }
    }

    /// True when it is the entry for an address itself.
    pub fn is_address(self) -> bool {
        self.port == 0 && self.protocol == 0
    }

    fn of(frontend: &Frontend) -> Self {
        Self { addr: frontend.key.addr, port: frontend.key.port, protocol: frontend.key.protocol.number() }
    }
}

impl std::fmt::Display for Tuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => "?",
        };
        write!(f, "{}/{protocol}", std::net::SocketAddr::new(self.addr, self.port))
    }
}

/// Where writes go. Backends and slots are memory and cannot fail.
pub trait Tables {
    fn write_backend(&mut self, id: u32, backend: &abi::Backend);
    fn write_slot(&mut self, slot: u32, backend: u32);
    /// # Errors
    /// When the kernel refuses.
    fn put_frontend(&mut self, key: Tuple, value: &abi::Frontend) -> Result<(), Error>;
    /// Removing what is not there is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_frontend(&mut self, key: Tuple) -> Result<(), Error>;
    /// # Errors
    /// When the kernel refuses.
    fn put_endpoint(&mut self, key: Tuple, backend: u32) -> Result<(), Error>;
    /// As `remove_frontend`.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_endpoint(&mut self, key: Tuple) -> Result<(), Error>;
    /// Puts a range of clients on a list (`abi::Source::list`).
    ///
    /// # Errors
    /// When the kernel refuses.
    fn put_source(&mut self, list: u32, range: IpNet) -> Result<(), Error>;
    /// As `remove_frontend`.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove_source(&mut self, list: u32, range: IpNet) -> Result<(), Error>;
}

/// Sizes of the tables, as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of each family.
    pub frontends: u32,
    /// Of each family.
    pub endpoints: u32,
    /// Entries of the array; id 0 is never used.
    pub backends: u32,
    pub slots: u32,
    /// Of each family.
    pub sources: u32,
}

/// What holds for all Services.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Frontends at these addresses are not programmed.
    pub skip: HashSet<IpAddr>,
    /// Virtual addresses in these ranges get an entry of their own; empty: all do.
    pub ranges: Vec<IpNet>,
    /// Backends of virtual addresses see the node in place of every client.
    pub masquerade_all: bool,
}

/// The bookkeeping. See the module's words.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    rules: Rules,
    /// Frontends at `Rules::skip` that have backends are programmed all the same.
    stand_in: bool,
    services: HashMap<ServiceKey, Service>,
    /// What is in the frontend tables, address entries aside.
    frontends: HashMap<Tuple, Installed>,
    /// Who else wants a frontend, first come first.
    waiting: HashMap<Tuple, Vec<ServiceKey>>,
    /// Service port ids in use by `services`.
    port_ids: HashSet<u32>,
    next_port_id: u32,
    backend_ids: HashMap<BackendKey, u32>,
    /// By id.
    backends: Vec<Option<Backend>>,
    /// By offset.
    extents: HashMap<u32, Shared>,
    endpoints: HashMap<Tuple, Endpoint>,
    addresses: HashMap<IpAddr, Address>,
    /// What is in the tables, by list.
    sources: HashMap<u32, BTreeSet<IpNet>>,
    source_count: [u32; 2],
    /// Entries in the frontend tables, address entries included: IPv4, IPv6.
    frontend_count: [u32; 2],
    endpoint_count: [u32; 2],
    ids: Ids,
    slots: Extents,
    /// Services that could not be programmed, to be tried again when there is room.
    failed: BTreeMap<ServiceKey, (CompiledService, String)>,
    /// Services for whose Maglev tables there is no room: clients outside get their backends by chance. To be tried again
    /// when there is room.
    by_chance: BTreeMap<ServiceKey, CompiledService>,
    /// When something was last freed, until `retry` has made use of it.
    freed: Option<Duration>,
}

#[derive(Debug, Default)]
struct Service {
    /// Frontends it owns.
    frontends: HashSet<Tuple>,
    /// Frontends it would have, were they not another's.
    waiting: HashMap<Tuple, Frontend>,
    /// Ids of its ports.
    ports: HashMap<Port, u32>,
    /// Virtual addresses of it that another proxy serves.
    left_alone: HashSet<IpAddr>,
}

impl Service {
    fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.waiting.is_empty() && self.left_alone.is_empty()
    }
}

/// A Service port within its Service: protocol number and name.
pub type Port = (u8, Arc<str>);

#[derive(Debug)]
struct Installed {
    /// `None`: taken up from a pinned map, or given up by its owner, and not claimed yet.
    owner: Option<ServiceKey>,
    value: abi::Frontend,
    /// It counts in `Address::refs`.
    virtual_ip: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BackendKey {
    /// Service port id.
    service: u32,
    addr: IpAddr,
    port: u16,
}

#[derive(Clone, Copy, Debug)]
struct Backend {
    key: BackendKey,
    protocol: u8,
    flags: u32,
    generation: u32,
    /// Extents that hold it.
    refs: u32,
}

impl Backend {
    fn tuple(&self) -> Tuple {
        Tuple { addr: self.key.addr, port: self.key.port, protocol: self.protocol }
    }

    fn value(&self) -> abi::Backend {
        abi::Backend {
            addr: wide(self.key.addr),
            port: self.key.port.to_be_bytes(),
            protocol: self.protocol,
            pad: 0,
            flags: self.flags,
            generation: self.generation,
            pad2: 0,
        }
    }
}

/// An extent, its content, and how many frontends use it.
#[derive(Debug)]
struct Shared {
    service: u32,
    ids: Box<[u32]>,
    refs: u32,
}

#[derive(Debug, Default)]
struct Endpoint {
    /// Backends at this address and port, of whichever Service port.
    ids: Vec<u32>,
    /// The one in the table; 0: none yet.
    written: u32,
}

/// An entry for an address itself.
#[derive(Debug, Default)]
struct Address {
    /// Frontends for which this address is a Service's own.
    refs: u32,
    /// Who else has it: Services of another proxy, and the node itself.
    left_alone: u32,
    /// Flags of the entry in the tables; 0: there is none.
    written: u32,
}

impl Address {
    /// Flags of the entry that it needs; 0: none.
    fn wanted(&self) -> u32 {
        match (self.refs, self.left_alone) {
            (0, 0) => 0,
            (0, _) => abi::frontend_flags::NODE,
            _ => abi::frontend_flags::ADDRESS,
        }
    }
}

/// What a Service shall have.
struct Wanted<'a> {
    frontends: &'a [Frontend],
    /// Virtual addresses without frontends.
    left_alone: Vec<IpAddr>,
    /// Everything else it has goes.
    complete: bool,
}

impl<'a> Wanted<'a> {
    fn all(service: Option<&'a CompiledService>) -> Self {
        let frontends = service.map_or(&[][..], |service| &service.frontends);
        let mut left_alone = match service.map(|service| &service.dns) {
            Some(DnsService::ClusterIp { ips, .. }) => ips.clone(),
            _ => Vec::new(),
        };
        left_alone.retain(|ip| !frontends.iter().any(|frontend| frontend.key.addr == *ip));
        Self { frontends, left_alone, complete: true }
    }
}

/// An address as `abi::Backend` holds it.
pub(crate) fn wide(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&addr.octets());
            bytes
        }
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn extent(held: abi::Extent) -> Option<Extent> {
    (held.count > 0).then_some(Extent { offset: held.slots, len: held.count })
}

fn family(addr: IpAddr) -> usize {
    usize::from(addr.is_ipv6())
}

pub(crate) const FRONTENDS: [&str; 2] = [abi::maps::FRONTENDS4, abi::maps::FRONTENDS6];
pub(crate) const ENDPOINTS: [&str; 2] = [abi::maps::ENDPOINTS4, abi::maps::ENDPOINTS6];
pub(crate) const SOURCES: [&str; 2] = [abi::maps::SOURCES4, abi::maps::SOURCES6];

impl Plan {
    /// Nothing programmed yet.
    pub fn new(limits: Limits, rules: Rules) -> Self {
        Self {
            limits,
            rules,
            stand_in: false,
            services: HashMap::new(),
            frontends: HashMap::new(),
            waiting: HashMap::new(),
            port_ids: HashSet::new(),
            next_port_id: 1,
            backend_ids: HashMap::new(),
            backends: Vec::new(),
            extents: HashMap::new(),
            endpoints: HashMap::new(),
            addresses: HashMap::new(),
            sources: HashMap::new(),
            source_count: [0; 2],
            frontend_count: [0; 2],
            endpoint_count: [0; 2],
            ids: Ids::new(limits.backends),
            slots: Extents::new(limits.slots),
            failed: BTreeMap::new(),
            by_chance: BTreeMap::new(),
            freed: None,
        }
    }

    /// Programs `new` for `key`. `now`: a monotonic clock of any origin.
    ///
    /// # Errors
    /// As [`Dataplane::apply`](crate::Dataplane::apply).
    pub fn apply<T: Tables>(
        &mut self,
        tables: &mut T,
        now: Duration,
        key: &ServiceKey,
        new: Option<&CompiledService>,
    ) -> Result<Applied, Error> {
        self.failed.remove(key);
        self.by_chance.remove(key);
        let result = self.program(tables, now, key, &Wanted::all(new));
        if let Some(service) = new {
            match &result {
                Err(error) => {
                    self.failed.insert(key.clone(), (service.clone(), error.to_string()));
                }
                Ok(applied) if applied.by_chance => {
                    self.by_chance.insert(key.clone(), service.clone());
                }
                Ok(_) => {}
            }
        }
        result
    }

    /// Makes the tables hold exactly `desired`.
    ///
    /// # Errors
    /// When what is not wanted cannot be removed.
    pub fn reconcile<T: Tables>(
        &mut self,
        tables: &mut T,
        now: Duration,
        desired: &mut dyn Iterator<Item = &CompiledService>,
    ) -> Result<Applied, Error> {
        let mut applied = Applied::default();
        let mut seen = HashSet::new();
        for service in desired {
            seen.insert(service.key.clone());
            match self.apply(tables, now, &service.key, Some(service)) {
                Ok(one) => applied.merge(one),
                Err(error) => applied.failed.push((service.key.clone(), error.to_string())),
            }
        }
        let gone: Vec<ServiceKey> = self
            .services
            .keys()
            .chain(self.failed.keys())
            .filter(|key| !seen.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            applied.merge(self.apply(tables, now, &key, None)?);
        }
        let orphans: Vec<Tuple> = self
            .frontends
            .iter()
            .filter(|(_, installed)| installed.owner.is_none())
            .map(|(tuple, _)| *tuple)
            .collect();
        let mut dead = Vec::new();
        for tuple in orphans {
            self.remove_frontend(tables, tuple, &mut dead, &mut applied)?;
        }
        self.release(tables, now, dead, &mut applied)?;
        let unsettled: Vec<IpAddr> = self
            .addresses
            .iter()
            .filter(|(_, address)| address.written != 0 && address.wanted() == 0)
            .map(|(addr, _)| *addr)
            .collect();
        for addr in unsettled {
            self.settle_address(tables, addr, &mut applied)?;
        }
        let lists: Vec<u32> = self.sources.keys().copied().collect();
        for list in lists {
            if list != abi::CLUSTER_CLIENTS && !self.port_ids.contains(&list) {
                self.keep_sources(tables, list, &BTreeSet::new(), &mut applied)?;
            }
        }
        Ok(applied)
    }

    /// See [`Dataplane::set_stand_in`](crate::Dataplane::set_stand_in).
    pub fn set_stand_in(&mut self, on: bool) {
        self.stand_in = on;
    }

    /// Says which clients are inside the cluster although they come by a NIC.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn set_cluster_clients<T: Tables>(&mut self, tables: &mut T, ranges: &[IpNet]) -> Result<(), Error> {
        let ranges = ranges.iter().map(IpNet::trunc).collect();
        let mut applied = Applied::default();
        self.add_sources(tables, abi::CLUSTER_CLIENTS, &ranges, &mut applied)?;
        self.keep_sources(tables, abi::CLUSTER_CLIENTS, &ranges, &mut applied)
    }

    /// Service ports with their ids.
    pub fn ports(&self) -> impl Iterator<Item = (&ServiceKey, &Port, u32)> {
        let all = self.services.iter();
        all.flat_map(|(key, service)| service.ports.iter().map(move |(port, id)| (key, port, *id)))
    }

    /// Tries services again that found no room or too little, if some has come free since and has rested. Costs nothing
    /// otherwise.
    pub fn retry<T: Tables>(&mut self, tables: &mut T, now: Duration) -> Applied {
        let mut applied = Applied::default();
        let none = self.failed.is_empty() && self.by_chance.is_empty();
        if none || self.freed.is_none_or(|at| now < at + QUARANTINE) {
            return applied;
        }
        self.freed = None;
        let failed = std::mem::take(&mut self.failed).into_iter().map(|(key, (service, _))| (key, service));
        for (key, service) in failed.chain(std::mem::take(&mut self.by_chance)) {
            // Named in `failed` if need be.
            if let Ok(one) = self.apply(tables, now, &key, Some(&service)) {
                applied.merge(one);
            }
        }
        applied
    }

    /// True when resting slots or ids may turn a `Full` into success a little later.
    pub fn resting(&self) -> bool {
        self.slots.resting() > 0 || self.ids.resting() > 0
    }

    /// Fill levels.
    pub fn stats(&self) -> Stats {
        let level = |used, capacity| Level { used, capacity };
        Stats {
            services: self.services.values().filter(|service| !service.frontends.is_empty()).count() as u64,
            frontends4: level(self.frontend_count[0], self.limits.frontends),
            frontends6: level(self.frontend_count[1], self.limits.frontends),
            backends: level(self.ids.used(), self.ids.capacity()),
            endpoints4: level(self.endpoint_count[0], self.limits.endpoints),
            endpoints6: level(self.endpoint_count[1], self.limits.endpoints),
            slots: level(self.slots.used(), self.slots.capacity()),
        }
    }

    /// Conflicts and failures that stand now.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self
            .waiting
            .iter()
            .flat_map(|(tuple, waiters)| waiters.iter().map(move |waiter| self.conflict(*tuple, waiter)))
            .collect();
        problems.sort();
        problems.extend(self.failed.iter().map(|(key, (_, why))| format!("Service {key}: {why}")));
        let full = Error::full(abi::maps::SLOTS, self.limits.slots);
        problems.extend(self.by_chance.keys().map(|key| {
            format!(
                "Service {key}: clients outside get backends by chance, each node its own choice, as {full}"
            )
        }));
        problems
    }

    fn conflict(&self, tuple: Tuple, waiter: &ServiceKey) -> String {
        match self.frontends.get(&tuple).and_then(|installed| installed.owner.as_ref()) {
            Some(owner) => format!("Service {waiter}: {tuple} belongs to Service {owner} already"),
            None => format!("Service {waiter}: {tuple} is not programmed"),
        }
    }

    fn in_ranges(&self, addr: IpAddr) -> bool {
        self.rules.ranges.is_empty() || self.rules.ranges.iter().any(|range| range.contains(&addr))
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize).and_then(Option::as_ref)
    }

    fn set_backend(&mut self, id: u32, backend: Option<Backend>) {
        let index = id as usize;
        if self.backends.len() <= index {
            self.backends.resize(index + 1, None);
        }
        self.backends[index] = backend;
    }

    /// The extents that a frontend uses, each once.
    fn extents_of(value: &abi::Frontend) -> impl Iterator<Item = Extent> + use<> {
        let inside = extent(value.inside);
        let outside = extent(value.outside).filter(|outside| inside != Some(*outside));
        inside.into_iter().chain(outside)
    }
}
