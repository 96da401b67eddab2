//! Tables in memory, and a [`Dataplane`] over them, for tests of this crate and of others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use eastwest_abi as abi;
use eastwest_compile::{CompiledService, ServiceKey};
use ipnet::IpNet;

use crate::plan::{Held, Limits, Plan, Rules, Tables, Tuple, wide};
use crate::{Applied, Capacities, Dataplane, Error, Stats};

/// What the kernel's maps would hold.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    pub frontends: HashMap<Tuple, abi::Frontend>,
    pub endpoints: HashMap<Tuple, u32>,
    pub backends: HashMap<u32, abi::Backend>,
    pub slots: HashMap<u32, u32>,
    pub sources: HashSet<(u32, IpNet)>,
    /// Writes of frontends to refuse, for tests of failures.
    pub refuse: Option<Tuple>,
}

impl MemoryTables {
    /// Where a packet to `key` may go that comes from inside, as the kernel programs read it: `None` when there is no such
    /// frontend.
    ///
    /// # Errors
    /// A slot or backend that does not belong together, in words.
    pub fn backends_of(&self, key: Tuple) -> Option<Result<Vec<(IpAddr, u16)>, String>> {
        self.frontends.get(&key).map(|frontend| self.backends_in(key, frontend.inside))
    }

    /// As [`backends_of`](Self::backends_of), for a packet from outside.
    ///
    /// # Errors
    /// As there.
    pub fn outside_backends_of(&self, key: Tuple) -> Option<Result<Vec<(IpAddr, u16)>, String>> {
        self.frontends.get(&key).map(|frontend| self.backends_in(key, frontend.outside))
    }

    fn backends_in(&self, key: Tuple, extent: abi::Extent) -> Result<Vec<(IpAddr, u16)>, String> {
        (extent.slots..extent.slots + extent.count)
            .map(|slot| {
                let id = self.slots.get(&slot).ok_or(format!("{key}: slot {slot} never written"))?;
                let backend = self.backends.get(id).ok_or(format!("{key}: backend {id} never written"))?;
                let usable = abi::backend_flags::LIVE | abi::backend_flags::USABLE;
                if backend.flags & usable != usable || backend.protocol != key.protocol {
                    return Err(format!("{key}: backend {id} is {backend:?}"));
                }
                let addr = match key.addr {
                    IpAddr::V4(_) => {
                        let [a, b, c, d, ..] = backend.addr;
                        IpAddr::from([a, b, c, d])
                    }
                    IpAddr::V6(_) => IpAddr::from(backend.addr),
                };
                Ok((addr, u16::from_be_bytes(backend.port)))
            })
            .collect()
    }

    /// Everything held, as a restart would read it.
    pub fn held(&self) -> Held {
        let dense = |highest: Option<&u32>| highest.map_or(0, |highest| *highest + 1);
        Held {
            frontends: self.frontends.iter().map(|(key, value)| (*key, *value)).collect(),
            endpoints: self.endpoints.iter().map(|(key, value)| (*key, *value)).collect(),
            backends: (0..dense(self.backends.keys().max()))
                .map(|id| self.backends.get(&id).copied().unwrap_or_default())
                .collect(),
            slots: (0..dense(self.slots.keys().max()))
                .map(|slot| self.slots.get(&slot).copied().unwrap_or_default())
                .collect(),
            sources: self.sources.iter().copied().collect(),
        }
    }

    /// Whether (address, port, protocol) is known as an endpoint and its backend is that very endpoint.
    pub fn is_endpoint(&self, key: Tuple) -> bool {
        self.endpoints.get(&key).and_then(|id| self.backends.get(id)).is_some_and(|backend| {
            backend.flags != 0
                && backend.addr == wide(key.addr)
                && backend.port == key.port.to_be_bytes()
                && backend.protocol == key.protocol
        })
    }
}

impl Tables for MemoryTables {
    fn write_backend(&mut self, id: u32, backend: &abi::Backend) {
        self.backends.insert(id, *backend);
    }

    fn write_slot(&mut self, slot: u32, backend: u32) {
        self.slots.insert(slot, backend);
    }

    fn put_frontend(&mut self, key: Tuple, value: &abi::Frontend) -> Result<(), Error> {
        if self.refuse == Some(key) {
            let source = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
            return Err(Error::Map { map: abi::maps::FRONTENDS4, action: "update", source });
        }
        self.frontends.insert(key, *value);
        Ok(())
    }

    fn remove_frontend(&mut self, key: Tuple) -> Result<(), Error> {
        self.frontends.remove(&key);
        Ok(())
    }

    fn put_endpoint(&mut self, key: Tuple, backend: u32) -> Result<(), Error> {
        self.endpoints.insert(key, backend);
        Ok(())
    }

    fn remove_endpoint(&mut self, key: Tuple) -> Result<(), Error> {
        self.endpoints.remove(&key);
        Ok(())
    }

    fn put_source(&mut self, list: u32, range: IpNet) -> Result<(), Error> {
        self.sources.insert((list, range));
        Ok(())
    }

    fn remove_source(&mut self, list: u32, range: IpNet) -> Result<(), Error> {
        self.sources.remove(&(list, range));
        Ok(())
    }
}

/// A [`Dataplane`] without a kernel: the same bookkeeping over tables in memory, and a list of the calls made.
#[derive(Debug)]
pub struct Recording {
    plan: Plan,
    pub tables: MemoryTables,
    /// Keys of `apply`, in order.
    pub applied: Vec<ServiceKey>,
    /// Number of `reconcile` calls.
    pub reconciles: usize,
    started: Instant,
}

impl Default for Recording {
    fn default() -> Self {
        Self::new(Capacities::default())
    }
}

impl Recording {
    /// Empty tables of these sizes.
    pub fn new(capacities: Capacities) -> Self {
        let limits = Limits {
            frontends: capacities.frontends,
            endpoints: capacities.backends,
            backends: capacities.backends,
            slots: capacities.slots,
            sources: capacities.frontends,
        };
        Self {
            plan: Plan::new(limits, Rules::default()),
            tables: MemoryTables::default(),
            applied: Vec::new(),
            reconciles: 0,
            started: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Dataplane for Recording {
    fn apply(&mut self, key: &ServiceKey, new: Option<&CompiledService>) -> Result<Applied, Error> {
        self.applied.push(key.clone());
        let now = self.now();
        self.plan.apply(&mut self.tables, now, key, new)
    }

    fn reconcile(&mut self, desired: &mut dyn Iterator<Item = &CompiledService>) -> Result<Applied, Error> {
        self.reconciles += 1;
        let now = self.now();
        self.plan.reconcile(&mut self.tables, now, desired)
    }

    fn retry(&mut self) -> Applied {
        let now = self.now();
        self.plan.retry(&mut self.tables, now)
    }

    fn set_stand_in(&mut self, on: bool) {
        self.plan.set_stand_in(on);
    }

    fn counters(&self) -> Result<BTreeMap<String, u64>, Error> {
        Ok(abi::counter::NAMES.iter().map(|name| ((*name).to_owned(), 0)).collect())
    }

    fn stats(&self) -> Stats {
        self.plan.stats()
    }

    fn problems(&self) -> Vec<String> {
        self.plan.problems()
    }
}
