//! Keys and values of the BPF maps, shared by the kernel programs and by user space.
//!
//! Every type is `#[repr(C)]`, has explicit padding (always zero) and no enum, bool or Option: whatever bytes are in a
//! map, reading them is sound. A change of any layout here must raise [`VERSION`], which stands in the pin path, since
//! the kernel reuses a pinned map without any look at its layout.
//!
//! Addresses are in network order. Ports are `[u8; 2]` in network order. Everything else is in host order.

#![no_std]

/// Version of these layouts: pins live in `/sys/fs/bpf/eastwest/v<VERSION>`.
pub const VERSION: u32 = 2;

/// Names of the maps as they stand in the object file and in the pin folder.
pub mod maps {
    /// `Array<Config>`, one entry.
    pub const CONFIG: &str = "CONFIG";
    /// `HashMap<FrontendKey4, Frontend>`.
    pub const FRONTENDS4: &str = "FRONTENDS4";
    /// `HashMap<FrontendKey6, Frontend>`.
    pub const FRONTENDS6: &str = "FRONTENDS6";
    /// `Array<Backend>` by backend id, mmap-able. Id 0 is never used.
    pub const BACKENDS: &str = "BACKENDS";
    /// `Array<u32>` of backend ids, mmap-able; frontends own extents of it.
    pub const SLOTS: &str = "SLOTS";
    /// `HashMap<EndpointKey4, u32>`: which (address, port, protocol) is a backend, and its id.
    pub const ENDPOINTS4: &str = "ENDPOINTS4";
    /// `HashMap<EndpointKey6, u32>`.
    pub const ENDPOINTS6: &str = "ENDPOINTS6";
    /// LRU of `ConntrackKey4` to `Conntrack4`, written by the kernel side alone.
    pub const CONNTRACK4: &str = "CONNTRACK4";
    /// LRU of `ConntrackKey6` to `Conntrack6`, written by the kernel side alone.
    pub const CONNTRACK6: &str = "CONNTRACK6";
    /// LRU of `SocketKey` to `Socket` for host processes, written by the kernel side alone.
    pub const SOCKETS: &str = "SOCKETS";
    /// LRU of `AffinityKey4` to `Affinity`, written by the kernel side alone.
    pub const AFFINITY4: &str = "AFFINITY4";
    /// LRU of `AffinityKey6` to `Affinity`, written by the kernel side alone.
    pub const AFFINITY6: &str = "AFFINITY6";
    /// LPM trie of `Source4`: clients by their ranges. The value says nothing.
    pub const SOURCES4: &str = "SOURCES4";
    /// LPM trie of `Source6`.
    pub const SOURCES6: &str = "SOURCES6";
    /// LRU of `FragmentKey4` to `Fragment`, written by the kernel side alone.
    pub const FRAGMENTS4: &str = "FRAGMENTS4";
    /// LRU of `FragmentKey6` to `Fragment`, written by the kernel side alone.
    pub const FRAGMENTS6: &str = "FRAGMENTS6";
    /// `HashMap<u32, u32>` by device index: NICs that XDP may send out of although the packet came in by another. Not pinned: the
    /// programs that read it begin with an empty one.
    pub const NICS: &str = "NICS";
    /// `Array<u32>`, one entry: of so many connections and refusals one is told of; 0: none. Not pinned: at first it is 0.
    pub const SAMPLING: &str = "SAMPLING";
    /// Ring of `Event`. Not pinned.
    pub const EVENTS: &str = "EVENTS";
    /// `Array<u64>` by `Frontend::service`: connections opened. Not pinned: they count from the start of an agent.
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// `PerCpuArray<u64>` by `counter`.
    pub const COUNTERS: &str = "COUNTERS";
    /// `Array<u32>` by the number of a flow's key, and one more for all halves that were added: changes of the connection
    /// tables, counted by the kernel side alone. What a CPU has kept of a flow (`CACHE4`, `CACHE6`; not pinned) holds as long
    /// as its count does not change.
    pub const CHANGES: &str = "CHANGES";
}

/// Names of what is set in the object before it is loaded, and cannot change then.
pub mod globals {
    /// `u32`: 1 where the kernel has `bpf_set_retval` for cgroup programs (5.18), else 0. Without it a refused connection
    /// of a host's process fails with EPERM instead of ECONNREFUSED.
    pub const SET_RETVAL: &str = "SET_RETVAL";
    /// `u32`: the power of two of halves that are added to the connection tables while a CPU goes by what it has kept of a
    /// flow; a small part of the smaller table, so that a full one does not lose a flow which is seen that way alone.
    pub const TURN: &str = "TURN";
    /// `[u32; 11]`: headers of the packets that `programs::SEND_XDP` makes, UDP over IPv4 with source port 0.
    pub const SEND: &str = "SEND";
    /// `u32`: how many source ports these have.
    pub const SEND_FLOWS: &str = "SEND_FLOWS";
}

/// Names of the programs in the object file.
pub mod programs {
    /// XDP, ingress of the host side of a pod's veth (generic mode): forward.
    pub const POD_INGRESS_XDP: &str = "pod_ingress_xdp";
    /// tc, ingress of the host side of a pod's veth: forward.
    pub const POD_INGRESS_TC: &str = "pod_ingress_tc";
    /// tc, egress of the host side of a pod's veth: back.
    pub const POD_EGRESS_TC: &str = "pod_egress_tc";
    /// XDP, ingress of a NIC: forward, and back for remote backends.
    pub const NIC_INGRESS_XDP: &str = "nic_ingress_xdp";
    /// tc in its place where there is no XDP.
    pub const NIC_INGRESS_TC: &str = "nic_ingress_tc";
    /// tc, egress of a NIC: back for local backends.
    pub const NIC_EGRESS_TC: &str = "nic_egress_tc";
    /// tc, ingress of a pod's device whose forward hook is XDP: takes the few packets that XDP marked and left as they
    /// were since it could not finish them. Costs one comparison on all others.
    pub const POD_HANDOVER_TC: &str = "pod_handover_tc";
    /// tc, ingress of a NIC with an XDP hook: as above. It resolves neighbours, which XDP cannot.
    pub const NIC_HANDOVER_TC: &str = "nic_handover_tc";
    /// XDP that passes: what a measurement is compared with.
    pub const EMPTY_XDP: &str = "empty_xdp";
    /// tc that passes.
    pub const EMPTY_TC: &str = "empty_tc";
    /// XDP that makes packets, for measurements (`globals::SEND`).
    pub const SEND_XDP: &str = "send_xdp";
    /// XDP that drops all.
    pub const SINK_XDP: &str = "sink_xdp";
    /// Parts of the work on a packet of an established flow, for measurements: XDP that reads the headers.
    pub const FLOOR_PARSE_XDP: &str = "floor_parse_xdp";
    /// That looks for the flow as well.
    pub const FLOOR_LOOK_UP_XDP: &str = "floor_look_up_xdp";
    /// That translates as well.
    pub const FLOOR_TRANSLATE_XDP: &str = "floor_translate_xdp";
    /// tc that reads the headers.
    pub const FLOOR_PARSE_TC: &str = "floor_parse_tc";
    /// That looks for the flow as well.
    pub const FLOOR_LOOK_UP_TC: &str = "floor_look_up_tc";
    /// That translates as well.
    pub const FLOOR_TRANSLATE_TC: &str = "floor_translate_tc";
    /// cgroup/connect4 and its sisters, for processes on the host.
    pub const CONNECT4: &str = "connect4";
    /// cgroup/connect6.
    pub const CONNECT6: &str = "connect6";
    /// cgroup/sendmsg4.
    pub const SENDMSG4: &str = "sendmsg4";
    /// cgroup/sendmsg6.
    pub const SENDMSG6: &str = "sendmsg6";
    /// cgroup/recvmsg4.
    pub const RECVMSG4: &str = "recvmsg4";
    /// cgroup/recvmsg6.
    pub const RECVMSG6: &str = "recvmsg6";
    /// cgroup/getpeername4.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// cgroup/getpeername6.
    pub const GETPEERNAME6: &str = "getpeername6";
}

macro_rules! pod {
    ($($(#[$meta:meta])* pub struct $name:ident = $size:literal { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        // No implicit padding: the fields fill the struct.
        const _: () = assert!(0 $(+ core::mem::size_of::<$ty>())* == $size);
    )*};
}

pub mod names;

/// Ranges of virtual addresses that the programs know, of each family.
pub const RANGES: usize = 4;

pod! {
    /// Slots of `SLOTS`, each of which names a backend; a `count` of 0 refuses.
    pub struct Extent = 8 {
        /// The first.
        pub slots: u32,
        pub count: u32,
    }
}

/// A range of addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Range<A> {
    /// The lowest one.
    pub addr: A,
    /// Ones where `addr` counts.
    pub mask: A,
}

impl Range<Addr4> {
    /// None: the address that is nobody's alone.
    pub const NONE: Self = Self { addr: Addr4(0), mask: Addr4(u32::MAX) };
}

impl Range<Addr6> {
    /// As for IPv4.
    pub const NONE: Self = Self { addr: Addr6([0; 4]), mask: Addr6([u32::MAX; 4]) };
}

/// A range of `Config::ranges4`.
pub type Range4 = Range<Addr4>;
/// A range of `Config::ranges6`.
pub type Range6 = Range<Addr6>;

pod! {
    /// What the programs must know about the node. Rewritten at will: each field is read on its own.
    pub struct Config = 224 {
        /// The node's own address, source of masqueraded packets; zero: none of this family.
        pub node4: [u8; 4],
        /// Stands for a pod that is the backend of its own call.
        pub hairpin4: [u8; 4],
        /// As `node4`.
        pub node6: [u8; 16],
        /// As `hairpin4`.
        pub hairpin6: [u8; 16],
        /// First port for masqueraded packets, host order.
        pub masquerade_from: u16,
        /// Last port for masqueraded packets, host order.
        pub masquerade_to: u16,
        /// Bits of `config_flags`.
        pub flags: u32,
        /// Highest backend id in use, for bounds.
        pub backends: u32,
        /// Entries in `SLOTS`.
        pub slots: u32,
        /// `SO_NETNS_COOKIE` of the node's network namespace: sockets of others (pods) are left to their devices'
        /// hooks. 0: sockets of all namespaces are translated.
        pub netns_cookie: u64,
        /// The ranges that virtual addresses come from, or `Range::NONE`. In force with `SERVICE_RANGES`.
        pub ranges4: [Range4; RANGES],
        /// As `ranges4`.
        pub ranges6: [Range6; RANGES],
    }

    /// What a client asks for. Port 0 and protocol 0 stand for the address itself: it is a virtual IP, whatever else.
    pub struct FrontendKey4 = 8 {
        pub addr: [u8; 4],
        pub port: [u8; 2],
        pub protocol: u8,
        pub pad: u8,
    }

    /// As `FrontendKey4`.
    pub struct FrontendKey6 = 20 {
        pub addr: [u8; 16],
        pub port: [u8; 2],
        pub protocol: u8,
        pub pad: u8,
    }

    /// What to do about it.
    pub struct Frontend = 32 {
        /// Identity of the Service port, for affinity, source ranges and counters; never 0.
        pub service: u32,
        /// Bits of `frontend_flags`.
        pub flags: u32,
        /// Seconds that ClientIP affinity lasts; 0: none.
        pub affinity: u32,
        pub pad: u32,
        /// For clients inside the cluster.
        pub inside: Extent,
        /// For clients outside; the same as `inside` without `SPLIT`.
        pub outside: Extent,
    }

    /// Where packets go.
    pub struct Backend = 32 {
        /// IPv4 in the first 4 bytes.
        pub addr: [u8; 16],
        pub port: [u8; 2],
        pub protocol: u8,
        pub pad: u8,
        /// Bits of `backend_flags`; 0: the id is free.
        pub flags: u32,
        /// Counts the uses of this id: a connection remembers which one it was made for.
        pub generation: u32,
        pub pad2: u32,
    }

    /// A backend by what it is.
    pub struct EndpointKey4 = 8 {
        pub addr: [u8; 4],
        pub port: [u8; 2],
        pub protocol: u8,
        pub pad: u8,
    }

    /// As `EndpointKey4`.
    pub struct EndpointKey6 = 20 {
        pub addr: [u8; 16],
        pub port: [u8; 2],
        pub protocol: u8,
        pub pad: u8,
    }

    /// What a socket of a host process talks to: by the frontend, so that a UDP socket keeps its backend; by the backend,
    /// so that recvmsg and getpeername show the frontend.
    pub struct SocketKey = 32 {
        /// `bpf_get_socket_cookie`.
        pub cookie: u64,
        /// IPv4 in the first 4 bytes.
        pub addr: [u8; 16],
        pub port: [u8; 2],
        pub protocol: u8,
        /// One of `direction`: `FORWARD` finds by the frontend, `REVERSE` by the backend.
        pub direction: u8,
        pub pad: [u8; 4],
    }

    /// The other end of the translation: the backend's address by the frontend, the frontend's by the backend.
    pub struct Socket = 32 {
        /// IPv4 in the first 4 bytes.
        pub addr: [u8; 16],
        pub port: [u8; 2],
        pub pad: u16,
        pub service: u32,
        pub backend: u32,
        pub generation: u32,
    }
}

pod! {
    /// The backend that a client was given.
    pub struct Affinity = 12 {
        pub backend: u32,
        /// `Backend::generation` when it was given.
        pub generation: u32,
        /// When it was last given, in units of 2^24 ns (16.8 ms) of the coarse monotonic clock. Key and value together are 32
        /// bytes: what a function called at a socket has of the stack.
        pub seen: u32,
    }
}

pod! {
    /// What became of a connection or of a packet that got none. Addresses in network order, IPv4 in the first word.
    pub struct Event = 64 {
        /// Zero for a process of the node.
        pub client: [u32; 4],
        pub asked: [u32; 4],
        /// Zero without one.
        pub backend: [u32; 4],
        /// Network order, as the other two.
        pub client_port: [u8; 2],
        pub asked_port: [u8; 2],
        pub backend_port: [u8; 2],
        pub protocol: u8,
        /// One of `counter`: `NEW`, `SOCKET`, or the reason why not.
        pub what: u8,
        /// Bits of `event_flags`.
        pub flags: u8,
        pub pad: [u8; 3],
        /// `Frontend::service`; 0 where it is not known.
        pub service: u32,
    }
}

/// A client of a Service port, at whichever of its addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityKey<A> {
    /// The client's address; the node's own for its processes.
    pub client: A,
    /// `Frontend::service`.
    pub service: u32,
}

/// Key of `AFFINITY4`.
pub type AffinityKey4 = AffinityKey<Addr4>;
/// Key of `AFFINITY6`.
pub type AffinityKey6 = AffinityKey<Addr6>;

const _: () = assert!(core::mem::size_of::<AffinityKey4>() == 8);
const _: () = assert!(core::mem::size_of::<AffinityKey6>() == 20);

/// A client on a list. In the trie the prefix length comes before it and counts from `list` on: 32 more than the range's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source<A> {
    /// `Frontend::service`: who may ask it; or `CLUSTER_CLIENTS`.
    pub list: u32,
    pub addr: A,
}

/// Key of `SOURCES4`.
pub type Source4 = Source<Addr4>;
/// Key of `SOURCES6`.
pub type Source6 = Source<Addr6>;

/// `Source::list` of clients that are inside the cluster although they come by a NIC.
pub const CLUSTER_CLIENTS: u32 = 0;

const _: () = assert!(core::mem::size_of::<Source4>() == 8);
const _: () = assert!(core::mem::size_of::<Source6>() == 20);

/// The fragments of one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    pub saddr: A,
    pub daddr: A,
    /// Identification, as it lies in the packet; of IPv4 the two bytes as a number.
    pub id: u32,
    /// IPv4's protocol, or 44 for IPv6's fragment header.
    pub carrier: u8,
    pub pad: [u8; 3],
}

pod! {
    /// What the first fragment of a packet says.
    pub struct Fragment = 8 {
        /// Network order.
        pub sport: u16,
        /// Network order.
        pub dport: u16,
        pub protocol: u8,
        pub pad: [u8; 3],
    }
}

/// Key of `FRAGMENTS4`.
pub type FragmentKey4 = FragmentKey<Addr4>;
/// Key of `FRAGMENTS6`.
pub type FragmentKey6 = FragmentKey<Addr6>;

const _: () = assert!(core::mem::size_of::<FragmentKey4>() == 16);
const _: () = assert!(core::mem::size_of::<FragmentKey6>() == 40);

/// An IPv4 address in network order, as it lies in a packet: `u32::from_ne_bytes(octets)`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addr4(pub u32);

/// An IPv6 address in network order, as it lies in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addr6(pub [u32; 4]);

/// A packet as it arrives: from whom, to whom, and on which side of a translation it is seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConntrackKey<A> {
    pub saddr: A,
    pub daddr: A,
    /// Network order.
    pub sport: u16,
    /// Network order.
    pub dport: u16,
    pub protocol: u8,
    /// One of `direction`.
    pub direction: u8,
    pub pad: u16,
}

/// How the packet leaves. With the two ends exchanged this is the other half's key: a pair finds each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conntrack<A> {
    pub saddr: A,
    pub daddr: A,
    /// Network order.
    pub sport: u16,
    /// Network order.
    pub dport: u16,
    /// `Frontend::service`; 0 on a direct flow.
    pub service: u32,
    /// Id of the backend; 0 on a direct flow.
    pub backend: u32,
    /// `Backend::generation` when the flow was made.
    pub generation: u32,
    /// Last packet of either half, in units of 2^30 ns (1.07 s) of the coarse monotonic clock.
    pub seen: u32,
    /// Bits of `conntrack_flags`.
    pub flags: u16,
    /// Bits of `conntrack_state`, the same in both halves.
    pub state: u16,
}

/// Key of `CONNTRACK4`.
pub type ConntrackKey4 = ConntrackKey<Addr4>;
/// Key of `CONNTRACK6`.
pub type ConntrackKey6 = ConntrackKey<Addr6>;
/// Value of `CONNTRACK4`.
pub type Conntrack4 = Conntrack<Addr4>;
/// Value of `CONNTRACK6`.
pub type Conntrack6 = Conntrack<Addr6>;

impl<A> ConntrackKey<A> {
    /// Both ports in one word, as they lie in a packet.
    #[inline(always)]
    pub fn ports(&self) -> u32 {
        // SAFETY: of two fields of 16 bits that lie side by side, the first at a multiple of 4 (asserted below).
        unsafe { (&raw const self.sport).cast::<u32>().read() }
    }

    /// Sets the ports, and in one word each what is behind the addresses. Whoever hashes the key reads words, and one that
    /// several stores have made is slow to read.
    #[inline(always)]
    pub fn set_rest(&mut self, ports: u32, protocol: u8, direction: u8) {
        // SAFETY: as above, and the last 4 bytes are fields without invalid values.
        unsafe { (&raw mut self.sport).cast::<u32>().write(ports) };
        self.set_tag(protocol, direction);
    }

    /// Protocol and direction in one word.
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        // SAFETY: the last 4 bytes, at a multiple of 4.
        unsafe { (&raw const self.protocol).cast::<u32>().read() }
    }

    /// Sets protocol and direction, in one word.
    #[inline(always)]
    pub fn set_tag(&mut self, protocol: u8, direction: u8) {
        let tag = u32::from_ne_bytes([protocol, direction, 0, 0]);
        // SAFETY: the last 4 bytes, at a multiple of 4, are fields without invalid values.
        unsafe { (&raw mut self.protocol).cast::<u32>().write(tag) };
    }
}

impl<A> Conntrack<A> {
    /// Both ports in one word, as they lie in a packet.
    #[inline(always)]
    pub fn ports(&self) -> u32 {
        // SAFETY: of two fields of 16 bits that lie side by side, the first at a multiple of 4 (asserted below).
        unsafe { (&raw const self.sport).cast::<u32>().read() }
    }
}

const _: () = assert!(core::mem::offset_of!(ConntrackKey4, sport) == 8);
const _: () = assert!(core::mem::offset_of!(ConntrackKey6, sport) == 32);
const _: () = assert!(core::mem::offset_of!(ConntrackKey4, protocol) == 12);
const _: () = assert!(core::mem::offset_of!(ConntrackKey6, protocol) == 36);
const _: () = assert!(core::mem::offset_of!(Conntrack4, sport) == 8);
const _: () = assert!(core::mem::offset_of!(Conntrack6, sport) == 32);
const _: () =
    assert!(core::mem::align_of::<ConntrackKey4>() == 4 && core::mem::align_of::<ConntrackKey6>() == 4);

// The sums of the fields' sizes: no implicit padding.
const _: () = assert!(core::mem::size_of::<ConntrackKey4>() == 16);
const _: () = assert!(core::mem::size_of::<ConntrackKey6>() == 40);
const _: () = assert!(core::mem::size_of::<Conntrack4>() == 32);
const _: () = assert!(core::mem::size_of::<Conntrack6>() == 56);

/// Sizes of what a CPU keeps of flows before the connection tables. Powers of two.
pub mod cache {
    /// Flows of a family that a CPU keeps.
    pub const PLACES: u32 = 4096;
    /// Numbers that a key may have.
    pub const COUNTS: u32 = 16384;
    /// Where the halves that were added are counted, after the numbers.
    pub const ADDED: u32 = COUNTS;
    const _: () = assert!(PLACES.is_power_of_two() && COUNTS.is_power_of_two() && PLACES <= COUNTS);
}

/// `ConntrackKey::direction`.
pub mod direction {
    /// As the client sends.
    pub const FORWARD: u8 = 0;
    /// As the backend answers.
    pub const REVERSE: u8 = 1;
}

/// `Conntrack::flags`.
pub mod conntrack_flags {
    /// Straight to an endpoint, without a frontend; kept so that no translated flow takes its tuple.
    pub const DIRECT: u16 = 1 << 0;
    /// The client is its own backend: the packet goes back into the device it came from.
    pub const HAIRPIN: u16 = 1 << 1;
    /// The source is the node: the backend is on another one and its reply comes back by the NIC, or the frontend wants it
    /// (`frontend_flags::MASQUERADE`). Both ways are sent on at once.
    pub const MASQUERADE: u16 = 1 << 2;
    /// The packet leaves as it came.
    pub const UNCHANGED: u16 = 1 << 3;
    /// Opened at a NIC by a client outside, or masqueraded as if it were.
    pub const OUTSIDE: u16 = 1 << 4;
}

/// `Conntrack::state`, TCP only.
pub mod conntrack_state {
    /// The client has sent FIN.
    pub const FIN_FORWARD: u16 = 1 << 0;
    /// The backend has sent FIN.
    pub const FIN_REVERSE: u16 = 1 << 1;
    /// Either has sent RST.
    pub const RESET: u16 = 1 << 2;
}

/// `Event::flags`.
pub mod event_flags {
    /// The addresses are IPv6.
    pub const IPV6: u8 = 1 << 0;
    /// The client is outside, and came by a NIC.
    pub const OUTSIDE: u8 = 1 << 1;
    /// A process of the node asked by its socket.
    pub const SOCKET: u8 = 1 << 2;
}

/// `Config::flags`.
pub mod config_flags {
    /// Redirect at the NIC by `bpf_fib_lookup` instead of passing to the stack.
    pub const NIC_REDIRECT: u32 = 1 << 0;
    /// `bpf_l4_csum_replace` knows `BPF_F_IPV6` (6.16).
    pub const CSUM_IPV6: u32 = 1 << 1;
    /// All Services are programmed: of the addresses in `Config::ranges4` and `ranges6` those that have no entry are
    /// nobody's, and no other address is looked for.
    pub const SERVICE_RANGES: u32 = 1 << 2;
    /// kube-proxy's rules are in the node too: a TCP segment that opens nothing and has no flow may be of a connection that it
    /// translates, so the stack gets it as it is.
    pub const KUBE_PROXY: u32 = 1 << 3;
    /// Questions of pods to the node's DNS are looked at (`names`). Off when the node is given back.
    pub const NAMES: u32 = 1 << 8;
}

/// `Frontend::flags`.
pub mod frontend_flags {
    /// The entry for the address itself: refuse ports that no Service has.
    pub const ADDRESS: u32 = 1 << 0;
    /// No endpoints here by policy (`Local` without a local one) for clients inside: drop instead of refusing.
    pub const DROP_INSIDE: u32 = 1 << 1;
    /// As `DROP_INSIDE`, for clients outside.
    pub const DROP_OUTSIDE: u32 = 1 << 2;
    /// Clients outside get something else than clients inside.
    pub const SPLIT: u32 = 1 << 3;
    /// Clients outside take the slot that their address, port and destination hash to, the same on every node.
    pub const MAGLEV: u32 = 1 << 4;
    /// Only clients in `SOURCES4` or `SOURCES6` are let in.
    pub const SOURCES: u32 = 1 << 5;
    /// The entry for an address that the node answers itself, in the ranges of virtual ones: leave it alone.
    pub const NODE: u32 = 1 << 6;
    /// Backends see the node in place of the client, wherever both are.
    pub const MASQUERADE: u32 = 1 << 7;
}

/// `Backend::flags`.
pub mod backend_flags {
    /// The id is in use.
    pub const LIVE: u32 = 1 << 0;
    /// New flows may go to it; without it, old UDP flows choose anew and TCP lives on.
    pub const USABLE: u32 = 1 << 1;
    /// On this node.
    pub const LOCAL: u32 = 1 << 2;
}

/// Indices of `COUNTERS`.
pub mod counter {
    macro_rules! counters {
        ($($(#[$meta:meta])* $name:ident = $index:literal, $label:literal;)*) => {
            $($(#[$meta])* pub const $name: u32 = $index;)*
            /// Names by index, as metrics and `NodeState` show them.
            pub const NAMES: &[&str] = &[$($label),*];
        };
    }
    counters! {
        /// Packets translated towards a backend.
        FORWARD = 0, "forward";
        /// Packets translated back.
        REVERSE = 1, "reverse";
        /// Connections opened through a frontend.
        NEW = 2, "new_connections";
        /// Refused: a Service port without endpoints.
        NO_ENDPOINTS = 3, "refused_no_endpoints";
        /// Refused: a port that the virtual IP does not have.
        NO_PORT = 4, "refused_no_port";
        /// Dropped by `Local` traffic policy.
        LOCAL_POLICY = 5, "dropped_local_policy";
        /// Dropped: no free translated tuple.
        NO_TUPLE = 6, "dropped_no_tuple";
        /// Dropped: the connection table could not take the entry.
        TABLE_FULL = 7, "dropped_table_full";
        /// Dropped: headers cut short or wrong on a packet for a virtual IP.
        MALFORMED = 8, "dropped_malformed";
        /// Sockets of host processes translated.
        SOCKET = 9, "sockets";
        /// Pods that reached themselves through a Service.
        HAIRPIN = 10, "hairpin";
        /// Packets sent on by XDP without the stack.
        REDIRECT = 11, "redirect";
        /// Packets passed to the stack as the neighbour was not known yet.
        NO_NEIGHBOUR = 12, "no_neighbour";
        /// Connections given another source port, as theirs was in use towards the backend.
        PORT_CHANGED = 13, "port_changed";
        /// Dropped: no way to write the packet (a helper failed).
        WRITE_FAILED = 14, "dropped_write_failed";
        /// Dropped: a client that `loadBalancerSourceRanges` does not let in.
        SOURCE_RANGES = 15, "dropped_source_ranges";
        /// Dropped: a virtual address that no Service has.
        UNALLOCATED = 16, "dropped_unallocated";
        /// Pings to virtual addresses answered.
        ECHO = 17, "echo_replies";
        /// ICMP errors of translated connections translated.
        ICMP_ERROR = 18, "icmp_errors";
        /// Dropped: fragments for a virtual address whose first one was not seen.
        FRAGMENT = 19, "dropped_fragment";
        /// Not sent on to another node: too many hops; the sender is told.
        EXPIRED = 20, "hops_exceeded";
        /// Not sent on to another node: too long for the route; the sender is told.
        TOO_BIG = 21, "too_big";
    }
    /// Number of counters.
    pub const COUNT: u32 = 22;
    const _: () = assert!(NAMES.len() == COUNT as usize);
}
