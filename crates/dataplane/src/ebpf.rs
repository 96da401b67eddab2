//! The dataplane that is a kernel's: programs, pinned maps, and the plan over them.

mod names;
pub(crate) mod retire;
mod socket;
mod stale;
mod tables;
mod upgrade;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use eastwest_abi as abi;
use eastwest_compile::{CompiledService, ServiceKey};
use ipnet::IpNet;

use crate::events::Events;
use crate::extent::QUARANTINE;
use crate::plan::{Held, Plan, Rules};
use crate::{Applied, Connections, Dataplane, Error, Options, Stats, beside, pins, sys};
pub use names::{NameCount, NodeNames};
use stale::Gone;
pub(crate) use tables::failed;
use tables::{KernelTables, Mapped, Wire};
use upgrade::Upgrade;

/// All maps, with sizes of key and value for a look at pinned ones.
const MAPS: [(&str, usize, usize); 18] = [
    (abi::maps::CONFIG, 4, size_of::<abi::Config>()),
    (abi::maps::FRONTENDS4, size_of::<abi::FrontendKey4>(), size_of::<abi::Frontend>()),
    (abi::maps::FRONTENDS6, size_of::<abi::FrontendKey6>(), size_of::<abi::Frontend>()),
    (abi::maps::BACKENDS, 4, size_of::<abi::Backend>()),
    (abi::maps::SLOTS, 4, 4),
    (abi::maps::ENDPOINTS4, size_of::<abi::EndpointKey4>(), 4),
    (abi::maps::ENDPOINTS6, size_of::<abi::EndpointKey6>(), 4),
    (abi::maps::CONNTRACK4, size_of::<abi::ConntrackKey4>(), size_of::<abi::Conntrack4>()),
    (abi::maps::CONNTRACK6, size_of::<abi::ConntrackKey6>(), size_of::<abi::Conntrack6>()),
    (abi::maps::SOCKETS, size_of::<abi::SocketKey>(), size_of::<abi::Socket>()),
    (abi::maps::AFFINITY4, size_of::<abi::AffinityKey4>(), size_of::<abi::Affinity>()),
    (abi::maps::AFFINITY6, size_of::<abi::AffinityKey6>(), size_of::<abi::Affinity>()),
    // A key of a trie begins with the length of its prefix.
    (abi::maps::SOURCES4, 4 + size_of::<abi::Source4>(), 4),
    (abi::maps::SOURCES6, 4 + size_of::<abi::Source6>(), 4),
    (abi::maps::FRAGMENTS4, size_of::<abi::FragmentKey4>(), size_of::<abi::Fragment>()),
    (abi::maps::FRAGMENTS6, size_of::<abi::FragmentKey6>(), size_of::<abi::Fragment>()),
    (abi::maps::COUNTERS, 4, 8),
    // Pinned, as old and new programs share the connection tables while one takes over from the other.
    (abi::maps::CHANGES, 4, 4),
];

/// The programs, loaded as they are needed. Clones share them.
#[derive(Clone)]
pub struct Programs {
    ebpf: Arc<Mutex<Ebpf>>,
}

impl Programs {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads those of these programs that are not loaded yet. The verifier takes most of a start's time, so only what is to be
    /// attached is loaded, and several at once.
    pub(crate) fn load(&self, names: &[&'static str]) -> Result<(), Error> {
        load_programs(&mut self.lock(), names)
    }

    /// A file descriptor of a loaded program.
    pub(crate) fn fd(&self, name: &'static str) -> Result<OwnedFd, Error> {
        let ebpf = self.lock();
        let program = ebpf.program(name).ok_or(Error::Missing(name))?;
        let fd = program.fd().map_err(|error| Error::Program { program: name, source: Box::new(error) })?;
        fd.as_fd().try_clone_to_owned().map_err(|source| Error::system("dup", source))
    }
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Programs")
    }
}

/// Services in the kernel's maps. What it pins outlives it: packets go on without it, and the next one takes over.
pub struct EbpfDataplane {
    plan: Plan,
    tables: KernelTables,
    counters: PerCpuArray<MapData, u64>,
    config: Config,
    programs: Programs,
    names: NodeNames,
    /// Where the socket programs are still to be attached.
    sockets: Option<Sockets>,
    /// Connections by Service port.
    connections: Mapped,
    events: Option<(RingBuf<MapData>, Array<MapData, u32>)>,
    /// Closes sockets whose backend is gone.
    stale: Sender<Vec<Gone>>,
    /// Maps that have another size than asked for.
    kept: Vec<String>,
    started: Instant,
}

/// The map with what the programs know of the node. Whoever changes a part of it holds the lock.
type Config = Arc<Mutex<Array<MapData, Wire<abi::Config>>>>;

/// Sets or clears flags.
fn set_flags(config: &Config, flags: u32, on: bool) -> Result<(), Error> {
    let error = |action| move |error| failed(abi::maps::CONFIG, action, error);
    let mut map = config.lock().unwrap_or_else(PoisonError::into_inner);
    let Wire(mut config) = map.get(&0, 0).map_err(error("read"))?;
    let new = if on { config.flags | flags } else { config.flags & !flags };
    if new == config.flags {
        return Ok(());
    }
    config.flags = new;
    map.set(0, Wire(config), 0).map_err(error("update"))
}

/// Tells the programs whether kube-proxy is here too.
pub struct Beside {
    config: Config,
}

impl Beside {
    /// Looks for kube-proxy's rules, and has the programs leave its connections to it while there are some.
    ///
    /// # Errors
    /// When netfilter does not answer, or the map cannot be written.
    pub fn look(&self) -> Result<bool, Error> {
        let found = look_for_kube_proxy()?;
        set_flags(&self.config, abi::config_flags::KUBE_PROXY, found)?;
        Ok(found)
    }
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Beside")
    }
}

fn look_for_kube_proxy() -> Result<bool, Error> {
    beside::has_rules().map_err(|source| Error::system("look for kube-proxy's rules", source))
}

struct Sockets {
    pin_dir: PathBuf,
    cgroup: Option<PathBuf>,
}

fn attach_sockets(programs: &Programs, sockets: &mut Option<Sockets>) -> Result<(), Error> {
    if let Some(Sockets { pin_dir, cgroup }) = &sockets {
        socket::attach(programs, pin_dir, cgroup.as_deref())?;
    }
    *sockets = None;
    Ok(())
}

impl EbpfDataplane {
    /// Loads the programs against the pinned maps (made where there are none), takes up what they hold, and attaches
    /// the socket programs. Pins of another ABI are carried over or replaced without a gap. Devices are [`devices`](crate::devices)' business.
    ///
    /// # Errors
    /// When the pin folder cannot be used, the kernel does not take a program, or a pinned map has another layout.
    pub fn open(options: &Options) -> Result<Self, Error> {
        pins::prepare(&options.pin_dir, options.mount_bpffs)?;
        let upgrade = Upgrade::find(&options.pin_dir)?;
        let maps_dir = pins::maps_dir(&options.pin_dir);
        let kept = check_pins(&maps_dir, options)?;
        let mut ebpf = load(&maps_dir, options)?;
        let names = NodeNames::take(&mut ebpf)?;
        // Descriptors of our own: programs name the object's by number, and are loaded later.
        let mut take = |name: &'static str| {
            let map = MapData::from_pin(maps_dir.join(name)).and_then(Map::from_map_data);
            map.map_err(|error| failed(name, "open", error))
        };
        let mut config: Array<_, Wire<abi::Config>> = Array::try_from(take(abi::maps::CONFIG)?)
            .map_err(|error| failed(abi::maps::CONFIG, "open", error))?;
        let counters = PerCpuArray::try_from(take(abi::maps::COUNTERS)?)
            .map_err(|error| failed(abi::maps::COUNTERS, "open", error))?;
        // Not pinned: by another descriptor, as one by a number would need CAP_SYS_ADMIN.
        let own = |name: &'static str| -> Result<Map, Error> {
            let Some(Map::Array(map) | Map::RingBuf(map)) = ebpf.map(name) else {
                return Err(Error::Missing(name));
            };
            let fd = map.fd().as_fd().try_clone_to_owned().map_err(|source| Error::system("dup", source))?;
            MapData::from_fd(fd).and_then(Map::from_map_data).map_err(|error| failed(name, "open", error))
        };
        let Map::Array(connections) = own(abi::maps::CONNECTIONS)? else {
            return Err(Error::Missing(abi::maps::CONNECTIONS));
        };
        let connections = Mapped::new(abi::maps::CONNECTIONS, &connections, size_of::<u64>())?;
        let ring = RingBuf::try_from(own(abi::maps::EVENTS)?)
            .map_err(|error| failed(abi::maps::EVENTS, "open", error))?;
        let sampling = Array::try_from(own(abi::maps::SAMPLING)?)
            .map_err(|error| failed(abi::maps::SAMPLING, "open", error))?;
        let events = Some((ring, sampling));
        let stale = stale::start(take(abi::maps::SOCKETS)?)?;
        let mut tables = KernelTables::new(&mut take)?;
        write_config(&mut config, &tables, options)?;

        let rules = Rules {
            skip: options.skip_addresses.iter().copied().collect(),
            ranges: options.address_ranges.clone(),
            masquerade_all: options.masquerade_all,
        };
        upgrade.convert(&mut tables)?;
        let held = tables.held()?;
        tracing::info!(
            frontends = held.frontends.len(),
            endpoints = held.endpoints.len(),
            "kernel maps open"
        );
        let limits = tables.limits();
        let mut plan = Plan::adopt(&mut tables, limits, rules, held)?;
        plan.set_cluster_clients(&mut tables, &options.cluster_ranges)?;
        let programs = Programs { ebpf: Arc::new(Mutex::new(ebpf)) };
        upgrade.finish(&programs)?;
        let sockets = Sockets { pin_dir: options.pin_dir.clone(), cgroup: options.cgroup_root.clone() };
        let mut sockets = Some(sockets);
        // Programs that are to be replaced know more than empty maps.
        if !upgrade.is_unknown() {
            attach_sockets(&programs, &mut sockets)?;
        }
        let started = Instant::now();
        let config = Arc::new(Mutex::new(config));
        Ok(Self {
            plan,
            tables,
            counters,
            config,
            programs,
            names,
            sockets,
            connections,
            events,
            stale,
            kept,
            started,
        })
    }

    /// What must know whether kube-proxy is here too, as it comes and goes.
    pub fn beside(&self) -> Beside {
        Beside { config: self.config.clone() }
    }

    /// The programs that devices are hooked with.
    pub fn programs(&self) -> Programs {
        self.programs.clone()
    }

    /// The node's DNS, as far as the programs know it.
    pub fn names(&self) -> NodeNames {
        self.names.clone()
    }

    /// The ring of events; `None` the second time. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn take_events(&mut self) -> Result<Option<Events>, Error> {
        self.events.take().map(|(ring, sampling)| Events::new(ring, sampling)).transpose()
    }

    /// What the maps hold, read anew.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn held(&self) -> Result<Held, Error> {
        self.tables.held()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Has sockets closed that are connected to backends which take no more flows.
    fn close_stale(&mut self) {
        let gone = self.tables.take_gone();
        if !gone.is_empty() && self.stale.send(gone).is_err() {
            tracing::error!("the thread that closes sockets has ended");
        }
    }

    /// From the first full list on, an address of the ranges that has no entry is nobody's.
    fn keep_to_ranges(&mut self) -> Result<(), Error> {
        let Wire(config) = {
            let map = self.config.lock().unwrap_or_else(PoisonError::into_inner);
            map.get(&0, 0).map_err(|error| failed(abi::maps::CONFIG, "read", error))?
        };
        let none = ([abi::Range4::NONE; abi::RANGES], [abi::Range6::NONE; abi::RANGES]);
        if (config.ranges4, config.ranges6) == none {
            return Ok(());
        }
        set_flags(&self.config, abi::config_flags::SERVICE_RANGES, true)
    }
}

impl Dataplane for EbpfDataplane {
    fn apply(&mut self, key: &ServiceKey, new: Option<&CompiledService>) -> Result<Applied, Error> {
        let rested = self.now() + QUARANTINE;
        loop {
            let now = self.now();
            let result = self.plan.apply(&mut self.tables, now, key, new);
            // Freed slots and ids rest for a second: a burst of changes waits for them rather than failing.
            if !matches!(result, Err(Error::Full { .. })) || !self.plan.resting() || now >= rested {
                self.close_stale();
                return result;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn reconcile(&mut self, desired: &mut dyn Iterator<Item = &CompiledService>) -> Result<Applied, Error> {
        let now = self.now();
        let applied = self.plan.reconcile(&mut self.tables, now, desired)?;
        self.close_stale();
        self.keep_to_ranges()?;
        attach_sockets(&self.programs, &mut self.sockets)?;
        Ok(applied)
    }

    fn retry(&mut self) -> Applied {
        let now = self.now();
        let applied = self.plan.retry(&mut self.tables, now);
        self.close_stale();
        applied
    }

    fn set_stand_in(&mut self, on: bool) {
        self.plan.set_stand_in(on);
    }

    fn counters(&self) -> Result<BTreeMap<String, u64>, Error> {
        (0..)
            .zip(abi::counter::NAMES)
            .map(|(index, name)| {
                let values = self
                    .counters
                    .get(&index, 0)
                    .map_err(|error| failed(abi::maps::COUNTERS, "read", error))?;
                Ok(((*name).to_owned(), values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value))))
            })
            .collect()
    }

    fn connections(&self) -> Vec<Connections> {
        let ports = self.plan.ports().filter_map(|(service, (protocol, port), id)| {
            let opened = self.connections.load_u64(id).filter(|opened| *opened > 0)?;
            Some(Connections { service: service.clone(), protocol: *protocol, port: port.clone(), opened })
        });
        ports.collect()
    }

    fn stats(&self) -> Stats {
        self.plan.stats()
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.plan.problems();
        problems.extend_from_slice(&self.kept);
        problems
    }
}

impl std::fmt::Debug for EbpfDataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EbpfDataplane").field("stats", &self.plan.stats()).finish_non_exhaustive()
    }
}

/// Size asked for, by map; `None` where the object fixes it.
fn wanted_entries(name: &str, options: &Options) -> Option<u32> {
    let capacities = &options.capacities;
    Some(match name {
        abi::maps::FRONTENDS4 | abi::maps::FRONTENDS6 | abi::maps::SOURCES4 | abi::maps::SOURCES6 => {
            capacities.frontends
        }
        abi::maps::BACKENDS => capacities.backends.saturating_add(1),
        abi::maps::ENDPOINTS4 | abi::maps::ENDPOINTS6 => capacities.backends,
        abi::maps::SLOTS => capacities.slots,
        abi::maps::CONNTRACK4 => capacities.connections4,
        abi::maps::CONNTRACK6 => capacities.connections6,
        abi::maps::SOCKETS => capacities.sockets,
        abi::maps::AFFINITY4 | abi::maps::AFFINITY6 => capacities.affinities,
        abi::maps::FRAGMENTS4 | abi::maps::FRAGMENTS6 => capacities.fragments,
        _ => return None,
    })
}

/// Size of a map: as it is pinned, or as it will be.
fn entries(dir: &Path, name: &str, options: &Options) -> Option<u32> {
    let pinned = MapInfo::from_pin(dir.join(name)).ok().map(|info| info.max_entries());
    pinned.or_else(|| wanted_entries(name, options))
}

/// The kernel reuses a pinned map whatever its layout: look before the programs do. Says which maps keep another size than
/// asked for.
fn check_pins(dir: &Path, options: &Options) -> Result<Vec<String>, Error> {
    let mut kept = Vec::new();
    for (name, key, value) in MAPS {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let layout = |what: String| Error::Layout { path: path.clone(), what };
        let info = MapInfo::from_pin(&path).map_err(|error| layout(error.to_string()))?;
        let found = (info.key_size() as usize, info.value_size() as usize);
        if found != (key, value) {
            return Err(layout(format!("key and value have {found:?} bytes, not {:?}", (key, value))));
        }
        if let Some(wanted) = wanted_entries(name, options)
            && info.max_entries() != wanted
        {
            let text = format!(
                "map {name} has {} entries, not {wanted}: it keeps its size, and what is in it, until `eastwest-agent cleanup`",
                info.max_entries()
            );
            tracing::warn!("{text}");
            kept.push(text);
        }
    }
    Ok(kept)
}

/// Whether this is Linux `major.minor` or later.
fn at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, 0))
}

/// CPUs look at a connection table again when one of so many parts of it was added.
const KEPT_PARTS: u32 = 16;

fn load(dir: &Path, options: &Options) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    for (name, ..) in MAPS {
        loader.map_pin_path(name, dir.join(name));
        if let Some(entries) = wanted_entries(name, options) {
            loader.map_max_entries(name, entries);
        }
    }
    loader.map_max_entries(abi::names::maps::ANSWERS, options.capacities.answers);
    loader.map_max_entries(abi::maps::CONNECTIONS, options.capacities.frontends.max(1));
    let set_retval = u32::from(at_least(5, 18));
    if set_retval == 0 {
        tracing::warn!("before Linux 5.18 a refused connection of a host's process fails with EPERM");
    }
    loader.override_global(abi::globals::SET_RETVAL, &set_retval, true);
    let smaller = [abi::maps::CONNTRACK4, abi::maps::CONNTRACK6]
        .iter()
        .filter_map(|name| entries(dir, name, options))
        .min();
    let turn = (smaller.unwrap_or(0) / KEPT_PARTS).max(1).ilog2();
    loader.override_global(abi::globals::TURN, &turn, true);
    loader.load(crate::object::OBJECT).map_err(|error| Error::Load(Box::new(error)))
}

/// The verifier gives up when a signal comes (`signal_pending` in kernel/bpf/verifier.c): as often it is asked again.
const INTERRUPTED: usize = 10;

fn load_programs(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), Error> {
    let found: Vec<(&'static str, &mut Program)> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| Some((*names.iter().find(|wanted| **wanted == name)?, program)))
        .collect();
    if let Some(missing) = names.iter().find(|wanted| !found.iter().any(|(name, _)| name == *wanted)) {
        return Err(Error::Missing(missing));
    }
    let found: Vec<_> = found.into_iter().filter(|(_, program)| program.fd().is_err()).collect();
    let most = found.len().max(1);
    let left = Mutex::new(found.into_iter());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(most);
    let work = || -> Result<(), Error> {
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((name, program)) = next else { return Ok(()) };
            load_program(program)
                .map_err(|source| Error::Program { program: name, source: Box::new(source) })?;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().fold(work(), |result, worker| {
            let other = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.and(other)
        })
    })
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    let mut load = || match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    let mut loaded = load();
    for _ in 0..INTERRUPTED {
        match &loaded {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) =>
            {
                loaded = load();
            }
            _ => break,
        }
    }
    loaded
}

fn write_config(
    map: &mut Array<MapData, Wire<abi::Config>>,
    tables: &KernelTables,
    options: &Options,
) -> Result<(), Error> {
    let error = |action| move |error| failed(abi::maps::CONFIG, action, error);
    let limits = tables.limits();
    let Wire(before) = map.get(&0, 0).map_err(error("read"))?;
    let mut config = abi::Config {
        hairpin4: options.hairpin4.octets(),
        hairpin6: options.hairpin6.octets(),
        masquerade_from: options.masquerade_ports.0,
        masquerade_to: options.masquerade_ports.1,
        backends: limits.backends,
        slots: limits.slots,
        netns_cookie: sys::netns_cookie().map_err(|source| Error::system("SO_NETNS_COOKIE", source))?,
        ranges4: [abi::Range4::NONE; abi::RANGES],
        ranges6: [abi::Range6::NONE; abi::RANGES],
        ..abi::Config::default()
    };
    for addr in options.node_addresses.iter().rev() {
        match addr {
            IpAddr::V4(addr) => config.node4 = addr.octets(),
            IpAddr::V6(addr) => config.node6 = addr.octets(),
        }
    }
    let left_out = write_ranges(&mut config, &options.address_ranges);
    if !left_out.is_empty() {
        tracing::warn!(ranges = ?left_out, "too many ranges of virtual addresses: nothing is refused or dropped in these");
    }
    config.flags |= abi::config_flags::NAMES;
    if options.nic_redirect {
        config.flags |= abi::config_flags::NIC_REDIRECT;
    }
    if at_least(6, 16) {
        config.flags |= abi::config_flags::CSUM_IPV6;
    }
    match look_for_kube_proxy() {
        Ok(true) => {
            tracing::info!("kube-proxy's rules are in the node: connections that it has opened stay with it");
            config.flags |= abi::config_flags::KUBE_PROXY;
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "taken for not there"),
    }
    // What an earlier run programmed still stands; with other ranges it waits for the first full list.
    if (config.ranges4, config.ranges6) == (before.ranges4, before.ranges6) {
        config.flags |= before.flags & abi::config_flags::SERVICE_RANGES;
    }
    map.set(0, Wire(config), 0).map_err(error("update"))
}

/// Puts the ranges that there is room for into the configuration; the others come back.
fn write_ranges(config: &mut abi::Config, ranges: &[IpNet]) -> Vec<IpNet> {
    let word = |octets: &[u8]| u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]);
    let words = |octets: [u8; 16]| {
        let mut parts = octets.chunks_exact(4).map(word);
        abi::Addr6(std::array::from_fn(|_| parts.next().unwrap_or_default()))
    };
    let mut used = [0; 2];
    let mut left_out = Vec::new();
    for range in ranges {
        let index = &mut used[usize::from(matches!(range, IpNet::V6(_)))];
        match range {
            _ if *index == abi::RANGES => {
                left_out.push(*range);
                continue;
            }
            IpNet::V4(range) => {
                let (addr, mask) = (range.network().octets(), range.netmask().octets());
                config.ranges4[*index] =
                    abi::Range { addr: abi::Addr4(word(&addr)), mask: abi::Addr4(word(&mask)) };
            }
            IpNet::V6(range) => {
                config.ranges6[*index] = abi::Range {
                    addr: words(range.network().octets()),
                    mask: words(range.netmask().octets()),
                };
            }
        }
        *index += 1;
    }
    left_out
}
