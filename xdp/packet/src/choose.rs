//! A packet without a tracked flow: what it asks for, and which backend gets it.

use eastwest_abi::{
    Affinity, AffinityKey, Backend, CLUSTER_CLIENTS, Conntrack, ConntrackKey, Extent, backend_flags,
    config_flags, conntrack_flags as flags, counter, direction, frontend_flags,
};

use crate::address::{Address, mix};
use crate::track::{self, Opened};
use crate::traits::Maps;
use crate::wire::{PROTOCOL_UDP, tcp};
use crate::work::Work;

/// Attempts to find a free reverse key.
const ATTEMPTS: u32 = 8;
/// Attempts of these that keep the client's source port, with other backends.
const KEEPING_PORT: u32 = 2;
/// Attempts to find a port for a masqueraded flow that leave alone the tuples of connections that were closed a moment
/// ago. A client that uses its own port again knows what it does.
const PATIENT: u32 = 4;

/// What is to become of a packet without a flow. One word, as a function of the kernel's side returns one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Opening(u32);

impl Opening {
    /// It opened the flow with `Work::value`.
    pub const FLOW: Self = Self(0);
    /// It asks for no frontend.
    pub const NONE: Self = Self(1);
    const REFUSE: u32 = 1 << 16;
    const DROP: u32 = 1 << 17;

    const fn refuse(counter: u32) -> Self {
        Self(Self::REFUSE | counter)
    }

    const fn drop(counter: u32) -> Self {
        Self(Self::DROP | counter)
    }

    /// The counter under which it is to be refused.
    #[inline(always)]
    pub fn refused(self) -> Option<u32> {
        (self.0 & Self::REFUSE != 0).then_some(self.0 & 0xffff)
    }

    /// The counter under which it is to be dropped.
    #[inline(always)]
    pub fn dropped(self) -> Option<u32> {
        (self.0 & Self::DROP != 0).then_some(self.0 & 0xffff)
    }
}

/// Where the packet is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the device of the pod that sent it.
    Pod,
    /// At a NIC, from outside.
    Nic,
}

/// Opens a flow through the frontend that the packet is for. `again`: its forward key has an entry to be replaced.
#[inline(never)]
pub fn frontend<A: Address, M: Maps<A>>(
    maps: &mut M,
    work: &mut Work<A>,
    again: bool,
    place: Place,
) -> Opening {
    let midst = !again && is_in_the_midst(work);
    if midst && maps.config().is_some_and(|config| config.flags & config_flags::KUBE_PROXY != 0) {
        // It may be of a connection that kube-proxy has opened, which nf_conntrack translates on.
        return Opening::NONE;
    }
    let key = &work.flow.key;
    let Some(frontend) = maps.frontend(&key.daddr.frontend(key.dport, key.protocol)) else {
        return no_frontend(maps, key.daddr);
    };
    if frontend.flags & frontend_flags::SOURCES != 0 && !is_source(maps, work, frontend.service) {
        return Opening::drop(counter::SOURCE_RANGES);
    }
    let outside = place == Place::Nic
        && frontend.flags & frontend_flags::SPLIT != 0
        && !is_source(maps, work, CLUSTER_CLIENTS);
    let (extent, drop) = if outside {
        (frontend.outside, frontend_flags::DROP_OUTSIDE)
    } else {
        (frontend.inside, frontend_flags::DROP_INSIDE)
    };
    if frontend.flags & drop != 0 {
        return Opening::drop(counter::LOCAL_POLICY);
    }
    if extent.count == 0 {
        return Opening::refuse(counter::NO_ENDPOINTS);
    }
    // Fixed before the loop, through which the verifier follows every branch for each attempt.
    let mut fixed =
        if frontend.affinity == 0 { 0 } else { kept(maps, work, frontend.service, frontend.affinity) };
    if midst {
        fixed = lost(maps, work, extent);
    }
    if fixed == 0 && outside && frontend.flags & frontend_flags::MAGLEV != 0 {
        fixed = hashed(maps, work, extent);
    }
    let masquerade = frontend.flags & frontend_flags::MASQUERADE != 0;
    let mut found = false;
    for attempt in 0..ATTEMPTS {
        let Some((id, backend)) = pick(maps, extent, fixed) else { continue };
        found = true;
        let key = &work.flow.key;
        work.value = Conntrack {
            saddr: key.saddr,
            daddr: A::of_backend(&backend),
            sport: key.sport,
            dport: u16::from_ne_bytes(backend.port),
            service: frontend.service,
            backend: id,
            generation: backend.generation,
            seen: maps.now(),
            flags: 0,
            state: track::added_state(work.flow.tcp_flags, key.direction),
        };
        let possible = match place {
            Place::Pod => from_pod(maps, &mut work.value, masquerade, attempt),
            Place::Nic => {
                let local = backend.flags & backend_flags::LOCAL != 0;
                from_outside(maps, &mut work.value, local, masquerade, attempt)
            }
        };
        if !possible {
            continue;
        }
        work.patient = attempt < PATIENT && work.value.flags & flags::MASQUERADE != 0;
        match track::open(maps, work, again) {
            Opened::Yes => {
                count_new(maps, work);
                if frontend.affinity != 0 {
                    keep(maps, work);
                }
                return Opening::FLOW;
            }
            Opened::Taken => {}
            Opened::Full => return Opening::drop(counter::TABLE_FULL),
        }
    }
    if found { Opening::drop(counter::NO_TUPLE) } else { Opening::refuse(counter::NO_ENDPOINTS) }
}

#[inline(always)]
fn count_new<A: Address, M: Maps<A>>(maps: &mut M, work: &Work<A>) {
    maps.count(counter::NEW);
    if work.value.flags & flags::HAIRPIN != 0 {
        maps.count(counter::HAIRPIN);
    }
    if work.value.flags & flags::MASQUERADE == 0 && work.value.sport != work.flow.key.sport {
        maps.count(counter::PORT_CHANGED);
    }
}

/// Whether the packet is of a connection that is open already, if it is of any.
#[inline(always)]
fn is_in_the_midst<A>(work: &Work<A>) -> bool {
    work.flow.key.protocol != PROTOCOL_UDP && work.flow.tcp_flags & (tcp::SYN | tcp::ACK) != tcp::SYN
}

/// Slots that are searched at most.
const SEARCHED: u32 = 32;

/// Id of the backend that a connection has of which a full table has lost the forward half alone; 0 when there is none. The
/// other half tells, if the connection has kept its port and its backend is among the first.
#[inline(never)]
fn lost<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>, extent: Extent) -> u32 {
    let mut found = 0;
    for nth in 0..SEARCHED {
        if nth >= extent.count || found != 0 {
            break;
        }
        let Some(id) = maps.slot(extent.slots.wrapping_add(nth)) else { break };
        let Some(backend) = maps.backend(id) else { break };
        let key = &work.flow.key;
        work.other = ConntrackKey {
            saddr: A::of_backend(&backend),
            daddr: key.saddr,
            sport: u16::from_ne_bytes(backend.port),
            dport: key.sport,
            protocol: key.protocol,
            direction: direction::REVERSE,
            pad: 0,
        };
        let Some(half) = maps.track(&work.other) else { continue };
        let ours = half.saddr.same(key.daddr) && half.sport == key.dport && half.dport == key.sport;
        if ours && half.daddr.same(key.saddr) {
            found = id;
        }
    }
    found
}

/// What becomes of a packet to an address and port that no Service has.
#[inline(always)]
fn no_frontend<A: Address, M: Maps<A>>(maps: &M, addr: A) -> Opening {
    match owner(maps, addr) {
        Owner::Other => Opening::NONE,
        Owner::Service => Opening::refuse(counter::NO_PORT),
        Owner::Nobody => Opening::drop(counter::UNALLOCATED),
    }
}

/// Whose an address is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Nothing of ours.
    Other,
    /// It is a virtual one of a Service.
    Service,
    /// It is in a range of virtual ones, and no Service has it.
    Nobody,
}

/// Whose an address is. Costs a look-up only where it may be virtual.
#[inline(always)]
pub fn owner<A: Address, M: Maps<A>>(maps: &M, addr: A) -> Owner {
    let ranges = maps.config().filter(|config| config.flags & config_flags::SERVICE_RANGES != 0);
    if ranges.is_some_and(|config| !addr.is_virtual(config)) {
        return Owner::Other;
    }
    match maps.frontend(&addr.frontend(0, 0)) {
        Some(entry) if entry.flags & frontend_flags::ADDRESS != 0 => Owner::Service,
        Some(_) => Owner::Other,
        None if ranges.is_some() => Owner::Nobody,
        None => Owner::Other,
    }
}

/// Whether the client is on a list.
#[inline(never)]
fn is_source<A: Address, M: Maps<A>>(maps: &M, work: &Work<A>, list: u32) -> bool {
    maps.is_source(list, work.flow.key.saddr)
}

/// Id of the backend that the client and what it asks for hash to, the same on all nodes; 0 when it takes no new flows.
#[inline(never)]
fn hashed<A: Address, M: Maps<A>>(maps: &M, work: &Work<A>, extent: Extent) -> u32 {
    let key = &work.flow.key;
    let ports = (u32::from(u16::from_be(key.sport)) << 16 | u32::from(u16::from_be(key.dport))).to_be();
    let hash = mix(mix(key.daddr.hash(key.saddr.hash(u32::from(key.protocol))), ports), 0);
    let Some(id) = slot(maps, extent, hash) else { return 0 };
    let usable = maps.backend(id).is_some_and(|backend| backend.flags & WANTED == WANTED);
    if usable { id } else { 0 }
}

/// The id in the slot that a number falls on.
#[inline(always)]
fn slot<A: Address, M: Maps<A>>(maps: &M, extent: Extent, by: u32) -> Option<u32> {
    let nth = (u64::from(by) * u64::from(extent.count)) >> 32;
    maps.slot(extent.slots.wrapping_add(nth as u32))
}

/// Follows a packet straight to an endpoint, so that no translated flow takes its tuple. When one has it already, the
/// packet gets another source port.
#[inline(never)]
pub fn direct<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>, again: bool) -> Opening {
    let key = &work.flow.key;
    if !maps.is_endpoint(&key.daddr.endpoint(key.dport, key.protocol)) {
        return Opening::NONE;
    }
    for attempt in 0..ATTEMPTS {
        let key = &work.flow.key;
        work.value = Conntrack {
            saddr: key.saddr,
            daddr: key.daddr,
            sport: key.sport,
            dport: key.dport,
            service: 0,
            backend: 0,
            generation: 0,
            seen: maps.now(),
            flags: flags::DIRECT | flags::UNCHANGED,
            state: track::added_state(work.flow.tcp_flags, key.direction),
        };
        if attempt > 0 {
            work.value.sport = any_port(maps);
            work.value.flags = flags::DIRECT;
        }
        work.patient = false;
        match track::open(maps, work, again) {
            Opened::Yes => {
                if work.value.sport != work.flow.key.sport {
                    maps.count(counter::PORT_CHANGED);
                }
                return Opening::FLOW;
            }
            Opened::Taken => {}
            // It needs no translation: it goes on untracked.
            Opened::Full => return Opening::NONE,
        }
    }
    Opening::drop(counter::NO_TUPLE)
}

/// The client's own address, unless it is the backend itself, which must not see its own address as the source, or the
/// frontend wants the node's.
#[inline(always)]
fn from_pod<A: Address, M: Maps<A>>(
    maps: &mut M,
    value: &mut Conntrack<A>,
    masquerade: bool,
    attempt: u32,
) -> bool {
    if masquerade && !value.daddr.same(value.saddr) && !is_node(maps, value.daddr) {
        return stand_in(maps, value);
    }
    if attempt >= KEEPING_PORT {
        value.sport = any_port(maps);
    }
    if !value.daddr.same(value.saddr) {
        return true;
    }
    value.flags = flags::HAIRPIN;
    match maps.config() {
        Some(config) => {
            value.saddr = A::of_hairpin(config);
            !value.saddr.is_none()
        }
        None => false,
    }
}

/// A local backend sees the client, unless the frontend wants the node's address. A remote one must answer through here: it
/// sees the node.
#[inline(always)]
fn from_outside<A: Address, M: Maps<A>>(
    maps: &mut M,
    value: &mut Conntrack<A>,
    local: bool,
    masquerade: bool,
    attempt: u32,
) -> bool {
    if local && (!masquerade || is_node(maps, value.daddr)) {
        value.flags = flags::OUTSIDE;
        if attempt >= KEEPING_PORT {
            value.sport = any_port(maps);
        }
        return true;
    }
    stand_in(maps, value)
}

/// Whether the node itself is the backend, which the stack gives only what comes from others.
#[inline(always)]
fn is_node<A: Address, M: Maps<A>>(maps: &M, addr: A) -> bool {
    maps.config().is_some_and(|config| addr.same(A::of_node(config)))
}

/// Has the node stand in for the client.
#[inline(always)]
fn stand_in<A: Address, M: Maps<A>>(maps: &mut M, value: &mut Conntrack<A>) -> bool {
    let Some(config) = maps.config() else { return false };
    let (from, to) = (config.masquerade_from, config.masquerade_to);
    value.flags = flags::OUTSIDE | flags::MASQUERADE;
    value.saddr = A::of_node(config);
    if value.saddr.is_none() || from == 0 || to < from {
        return false;
    }
    value.sport = port_between(maps, from, to);
    true
}

/// What a backend must be to get a new flow.
const WANTED: u32 = backend_flags::LIVE | backend_flags::USABLE;

/// The backend `fixed`, or with 0 one by chance; unless it is not to be used any more.
#[inline(always)]
fn pick<A: Address, M: Maps<A>>(maps: &mut M, extent: Extent, fixed: u32) -> Option<(u32, Backend)> {
    let id = if fixed != 0 {
        fixed
    } else {
        let by = maps.random();
        slot(maps, extent, by)?
    };
    let backend = maps.backend(id)?;
    (backend.flags & WANTED == WANTED).then_some((id, backend))
}

/// Whether `affinity` still holds at the time `now`, for a Service port that keeps its clients for so many seconds.
#[inline(always)]
pub fn holds(affinity: &Affinity, now: u32, seconds: u32) -> bool {
    u64::from(now.wrapping_sub(affinity.seen)) << 24 < u64::from(seconds) * 1_000_000_000
}

/// Id of the backend that the client was given last, if that is not too long ago and it takes new flows; else 0. A backend
/// belongs to one Service port: what has left the port is not live.
#[inline(never)]
fn kept<A: Address, M: Maps<A>>(maps: &M, work: &mut Work<A>, service: u32, seconds: u32) -> u32 {
    work.client = AffinityKey { client: work.flow.key.saddr, service };
    let Some(affinity) = maps.affinity(&work.client) else { return 0 };
    let Some(backend) = maps.backend(affinity.backend) else { return 0 };
    let usable = backend.flags & WANTED == WANTED && backend.generation == affinity.generation;
    if usable && holds(&affinity, maps.clock(), seconds) { affinity.backend } else { 0 }
}

/// Notes what the client has been given; its time begins anew.
#[inline(never)]
fn keep<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) {
    work.given =
        Affinity { backend: work.value.backend, generation: work.value.generation, seen: maps.clock() };
    maps.affinity_insert(&work.client, &work.given);
}

/// Any unprivileged port, in network order.
#[inline(always)]
fn any_port<A: Address, M: Maps<A>>(maps: &mut M) -> u16 {
    port_between(maps, 1024, u16::MAX)
}

/// A port of `from ..= to`, in network order.
#[inline(always)]
fn port_between<A: Address, M: Maps<A>>(maps: &mut M, from: u16, to: u16) -> u16 {
    let span = u64::from(to) - u64::from(from) + 1;
    let nth = (u64::from(maps.random()) * span) >> 32;
    from.wrapping_add(nth as u16).to_be()
}
