//! Tables in memory.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use eastwest_abi::names::{Answer, NameCounts, Names, Question, SERVERS, word};
use eastwest_abi::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, Config, Conntrack, ConntrackKey, EndpointKey4,
    EndpointKey6, Extent, Fragment, FragmentKey, Frontend, FrontendKey4, FrontendKey6, RANGES, Range, Range4,
    Range6, backend_flags, cache, config_flags, counter, frontend_flags,
};

use crate::address::{octets, words};
use crate::cache::Kept;
use crate::traits::{Insert, Maps};

/// As `globals::TURN`.
const TURN: u32 = 6;

/// All tables. Without limits unless [`capacity`](Self::capacity) sets one.
#[derive(Clone, Debug)]
pub struct HostMaps {
    pub config: Config,
    pub frontends4: HashMap<FrontendKey4, Frontend>,
    pub frontends6: HashMap<FrontendKey6, Frontend>,
    /// By id; 0 is never used.
    pub backends: Vec<Backend>,
    pub slots: Vec<u32>,
    pub endpoints4: HashSet<EndpointKey4>,
    pub endpoints6: HashSet<EndpointKey6>,
    /// Lists (`Source::list`), each with a range and how many bits of it count.
    pub sources: Vec<(u32, IpAddr, u32)>,
    pub conntrack4: HashMap<ConntrackKey<Addr4>, Conntrack<Addr4>>,
    pub conntrack6: HashMap<ConntrackKey<Addr6>, Conntrack<Addr6>>,
    /// Whether CPUs keep anything.
    pub keeps: bool,
    /// What each CPU keeps, by its number and the place.
    pub kept4: HashMap<(usize, u32), Kept<Addr4>>,
    pub kept6: HashMap<(usize, u32), Kept<Addr6>>,
    /// Changes of the connection tables.
    pub changes: HashMap<u32, u32>,
    /// The CPU that runs.
    pub cpu: usize,
    pub affinity4: HashMap<AffinityKey<Addr4>, Affinity>,
    pub affinity6: HashMap<AffinityKey<Addr6>, Affinity>,
    pub fragments4: HashMap<FragmentKey<Addr4>, Fragment>,
    pub fragments6: HashMap<FragmentKey<Addr6>, Fragment>,
    /// The time, in units of `Conntrack::seen`.
    pub now: u32,
    /// The time, in units of `Affinity::seen`.
    pub clock: u32,
    /// Entries that each connection table takes.
    pub capacity: usize,
    /// By `eastwest_abi::counter`.
    pub counters: [u64; counter::COUNT as usize],
    /// DNS of the node.
    pub names: Names,
    /// By `eastwest_abi::names::word`.
    pub words: [u64; word::COUNT as usize],
    /// The agent's process is there.
    pub answering: bool,
    pub answers: HashMap<Question, Answer>,
    pub name_counts: [NameCounts; 2 * SERVERS],
    /// State of the random numbers; any but 0.
    pub random: u64,
}

impl Default for HostMaps {
    fn default() -> Self {
        Self {
            config: Config::default(),
            frontends4: HashMap::new(),
            frontends6: HashMap::new(),
            backends: vec![Backend::default()],
            slots: Vec::new(),
            endpoints4: HashSet::new(),
            endpoints6: HashSet::new(),
            sources: Vec::new(),
            conntrack4: HashMap::new(),
            conntrack6: HashMap::new(),
            keeps: true,
            kept4: HashMap::new(),
            kept6: HashMap::new(),
            changes: HashMap::new(),
            cpu: 0,
            affinity4: HashMap::new(),
            affinity6: HashMap::new(),
            fragments4: HashMap::new(),
            fragments6: HashMap::new(),
            now: 1000,
            clock: 64_000,
            capacity: usize::MAX,
            counters: [0; counter::COUNT as usize],
            names: Names::default(),
            words: [0; word::COUNT as usize],
            answering: false,
            answers: HashMap::new(),
            name_counts: [NameCounts::default(); 2 * SERVERS],
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl HostMaps {
    /// Adds a backend and makes it an endpoint; its id.
    pub fn add_backend(&mut self, at: SocketAddr, protocol: u8, flags: u32) -> u32 {
        let mut addr = [0; 16];
        let port = at.port().to_be_bytes();
        match at.ip() {
            IpAddr::V4(ip) => {
                addr[..4].copy_from_slice(&ip.octets());
                self.endpoints4.insert(EndpointKey4 { addr: ip.octets(), port, protocol, pad: 0 });
            }
            IpAddr::V6(ip) => {
                addr = ip.octets();
                self.endpoints6.insert(EndpointKey6 { addr, port, protocol, pad: 0 });
            }
        }
        let id = self.backends.len() as u32;
        let flags = flags | backend_flags::LIVE | backend_flags::USABLE;
        self.backends.push(Backend { addr, port, protocol, pad: 0, flags, generation: 1, pad2: 0 });
        id
    }

    /// Adds a frontend with these backends, and the entry for its address.
    pub fn add_frontend(&mut self, at: SocketAddr, protocol: u8, flags: u32, backends: &[u32]) {
        let inside = self.add_slots(backends);
        let service = self.next_service();
        self.put(at, protocol, Frontend { service, flags, inside, outside: inside, ..Frontend::default() });
        self.put(
            SocketAddr::new(at.ip(), 0),
            0,
            Frontend { flags: frontend_flags::ADDRESS, ..Frontend::default() },
        );
    }

    /// Adds a frontend with backends for clients inside and outside; its service. Its address may be the node's own.
    pub fn add_split(
        &mut self,
        at: SocketAddr,
        protocol: u8,
        flags: u32,
        inside: &[u32],
        outside: &[u32],
    ) -> u32 {
        let (inside, outside) = (self.add_slots(inside), self.add_slots(outside));
        let (service, flags) = (self.next_service(), flags | frontend_flags::SPLIT);
        self.put(at, protocol, Frontend { service, flags, affinity: 0, pad: 0, inside, outside });
        service
    }

    /// Adds a range of virtual addresses, and has them kept to; false when there is no room.
    pub fn add_service_range(&mut self, range: IpAddr, bits: u32) -> bool {
        if self.config.flags & config_flags::SERVICE_RANGES == 0 {
            self.config.flags |= config_flags::SERVICE_RANGES;
            self.config.ranges4 = [Range4::NONE; RANGES];
            self.config.ranges6 = [Range6::NONE; RANGES];
        }
        match range {
            IpAddr::V4(addr) => {
                let free = self.config.ranges4.iter_mut().find(|range| **range == Range4::NONE);
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be();
                free.map(|free| *free = Range { addr: Addr4(u32::from(addr).to_be()), mask: Addr4(mask) })
            }
            IpAddr::V6(addr) => {
                let free = self.config.ranges6.iter_mut().find(|range| **range == Range6::NONE);
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0).to_be_bytes();
                free.map(|free| *free = Range { addr: words(&addr.octets()), mask: words(&mask) })
            }
        }
        .is_some()
    }

    /// Says of an address in those ranges that the node answers it.
    pub fn add_node_address(&mut self, addr: IpAddr) {
        let entry = Frontend { flags: frontend_flags::NODE, ..Frontend::default() };
        self.put(SocketAddr::new(addr, 0), 0, entry);
    }

    fn add_slots(&mut self, backends: &[u32]) -> Extent {
        let slots = self.slots.len() as u32;
        self.slots.extend_from_slice(backends);
        Extent { slots, count: backends.len() as u32 }
    }

    fn next_service(&self) -> u32 {
        (self.frontends4.len() + self.frontends6.len()) as u32 + 1
    }

    fn put(&mut self, at: SocketAddr, protocol: u8, frontend: Frontend) {
        let port = at.port().to_be_bytes();
        match at.ip() {
            IpAddr::V4(ip) => {
                self.frontends4.insert(FrontendKey4 { addr: ip.octets(), port, protocol, pad: 0 }, frontend);
            }
            IpAddr::V6(ip) => {
                self.frontends6.insert(FrontendKey6 { addr: ip.octets(), port, protocol, pad: 0 }, frontend);
            }
        }
    }

    fn lists(&self, list: u32, client: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
            IpAddr::V6(ip) => u128::from(ip),
        };
        self.sources.iter().any(|(other, range, length)| {
            let differ = bits(*range) ^ bits(client);
            *other == list && range.is_ipv4() == client.is_ipv4() && differ.leading_zeros() >= *length
        })
    }

    /// Makes frontends of one protocol the same Service port's, which keeps its clients for so many seconds.
    pub fn keep_clients(&mut self, frontends: &[SocketAddr], protocol: u8, seconds: u32) {
        let mut service = None;
        for at in frontends {
            let port = at.port().to_be_bytes();
            let frontend = match at.ip() {
                IpAddr::V4(ip) => {
                    self.frontends4.get_mut(&FrontendKey4 { addr: ip.octets(), port, protocol, pad: 0 })
                }
                IpAddr::V6(ip) => {
                    self.frontends6.get_mut(&FrontendKey6 { addr: ip.octets(), port, protocol, pad: 0 })
                }
            };
            if let Some(frontend) = frontend {
                frontend.service = *service.get_or_insert(frontend.service);
                frontend.affinity = seconds;
            }
        }
    }

    /// A counter of `eastwest_abi::counter`.
    pub fn counter(&self, index: u32) -> u64 {
        self.counters[index as usize]
    }
}

fn ip4(addr: Addr4) -> IpAddr {
    addr.0.to_ne_bytes().into()
}

fn ip6(addr: Addr6) -> IpAddr {
    octets(addr).into()
}

macro_rules! family {
    ($address:ty, $frontend_key:ty, $endpoint_key:ty, $frontends:ident, $endpoints:ident, $conntrack:ident, $kept:ident, $affinity:ident, $fragments:ident, $ip:ident) => {
        impl Maps<$address> for HostMaps {
            fn config(&self) -> Option<&Config> {
                Some(&self.config)
            }

            fn frontend(&self, key: &$frontend_key) -> Option<Frontend> {
                self.$frontends.get(key).copied()
            }

            fn is_endpoint(&self, key: &$endpoint_key) -> bool {
                self.$endpoints.contains(key)
            }

            fn slot(&self, index: u32) -> Option<u32> {
                self.slots.get(index as usize).copied()
            }

            fn backend(&self, id: u32) -> Option<Backend> {
                self.backends.get(id as usize).copied()
            }

            fn is_source(&self, list: u32, addr: $address) -> bool {
                self.lists(list, $ip(addr))
            }

            fn track(&mut self, key: &ConntrackKey<$address>) -> Option<&mut Conntrack<$address>> {
                self.$conntrack.get_mut(key)
            }

            fn track_insert(
                &mut self,
                key: &ConntrackKey<$address>,
                value: &Conntrack<$address>,
                only_new: bool,
            ) -> Insert {
                let exists = self.$conntrack.contains_key(key);
                if exists && only_new {
                    return Insert::Exists;
                }
                if !exists && self.$conntrack.len() >= self.capacity {
                    return Insert::Full;
                }
                self.$conntrack.insert(*key, *value);
                Insert::Done
            }

            fn track_remove(&mut self, key: &ConntrackKey<$address>) {
                self.$conntrack.remove(key);
            }

            fn kept(&mut self, place: u32) -> Option<&mut Kept<$address>> {
                self.keeps.then(|| self.$kept.entry((self.cpu, place)).or_default())
            }

            fn count_of(&self, number: u32) -> u32 {
                self.changes.get(&number).copied().unwrap_or(0)
            }

            fn count_on(&mut self, number: u32) {
                *self.changes.entry(number).or_default() += 1;
            }

            fn turns(&self) -> u32 {
                <Self as Maps<$address>>::count_of(self, cache::ADDED) >> TURN
            }

            fn affinity(&self, key: &AffinityKey<$address>) -> Option<Affinity> {
                self.$affinity.get(key).copied()
            }

            fn affinity_insert(&mut self, key: &AffinityKey<$address>, value: &Affinity) {
                self.$affinity.insert(*key, *value);
            }

            fn fragment(&self, key: &FragmentKey<$address>) -> Option<Fragment> {
                self.$fragments.get(key).copied()
            }

            fn fragment_insert(&mut self, key: &FragmentKey<$address>, value: &Fragment) {
                self.$fragments.insert(*key, *value);
            }

            fn random(&mut self) -> u32 {
                // xorshift64*
                self.random ^= self.random >> 12;
                self.random ^= self.random << 25;
                self.random ^= self.random >> 27;
                (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
            }

            fn now(&self) -> u32 {
                self.now
            }

            fn tick(&self) -> u64 {
                u64::from(self.now) << 16
            }

            fn clock(&self) -> u32 {
                self.clock
            }

            fn count(&mut self, counter: u32) {
                self.counters[counter as usize] += 1;
            }
        }
    };
}

family!(
    Addr4,
    FrontendKey4,
    EndpointKey4,
    frontends4,
    endpoints4,
    conntrack4,
    kept4,
    affinity4,
    fragments4,
    ip4
);
family!(
    Addr6,
    FrontendKey6,
    EndpointKey6,
    frontends6,
    endpoints6,
    conntrack6,
    kept6,
    affinity6,
    fragments6,
    ip6
);
