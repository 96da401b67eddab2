//! At the sockets of processes on the host: the destination is translated once, where the process names it, and no
//! packet after that. What the process sees of its peer is translated back.
//!
//! Sockets of other network namespaces (pods) are left alone: their packets meet the hooks of their devices, so that
//! each packet is translated in one place.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, bpf_sock_addr};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_coarse_ns, bpf_set_retval,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use eastwest_abi::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, Frontend, FrontendKey4, FrontendKey6, Socket, SocketKey,
    backend_flags, config_flags, counter, direction, frontend_flags,
};
use eastwest_packet::{Address, Owner, holds};

use crate::events::tell_socket;
use crate::kernel::source;
use crate::maps::{
    AFFINITY4, AFFINITY6, BACKENDS, CONFIG, COUNTERS, FRONTENDS4, FRONTENDS6, SLOTS, SOCKETS, SOURCES4,
    SOURCES6,
};

/// `eastwest_abi::globals::SET_RETVAL`: at 0 the verifier takes out the call of a helper that older kernels do not know.
#[unsafe(no_mangle)]
static SET_RETVAL: Global<u32> = Global::new(1);

/// Go on with the system call.
const ALLOW: i32 = 1;
/// End it, with EPERM unless another error was set.
const REJECT: i32 = 0;

const TCP: u32 = 6;
const UDP: u32 = 17;

const ECONNREFUSED: i32 = 111;
/// Third word of an IPv4 address in IPv6 clothes, `::ffff:a.b.c.d` (RFC 4291 2.5.5.2).
const MAPPED: u32 = 0xffff_u32.to_be();

/// `TCP_ESTABLISHED`, which is also a connected UDP socket's state.
const ESTABLISHED: u32 = 1;

/// How often another backend is drawn.
const DRAWS: u32 = 8;

/// An address and port in network order. IPv4 in the first word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Peer {
    addr: [u32; 4],
    port: u16,
    v4: bool,
}

/// What becomes of a destination.
enum Verdict {
    Keep,
    To(Peer),
    Reject,
}

/// What the process gave or will see. For AF_INET6 sockets also IPv4 ones, mapped.
///
/// The verifier wants each field of the context read and written in its own width, at its own offset.
#[inline(always)]
fn peer4(ctx: *mut bpf_sock_addr) -> Peer {
    // SAFETY: the kernel hands a valid context; these fields may be read by every program type here.
    let (addr, port) = unsafe {
        ((&raw const (*ctx).user_ip4).read_volatile(), (&raw const (*ctx).user_port).read_volatile())
    };
    Peer { addr: [addr, 0, 0, 0], port: port as u16, v4: true }
}

#[inline(always)]
fn peer6(ctx: *mut bpf_sock_addr) -> Peer {
    // SAFETY: as in `peer4`.
    let (addr, port) = unsafe {
        (
            [
                (&raw const (*ctx).user_ip6[0]).read_volatile(),
                (&raw const (*ctx).user_ip6[1]).read_volatile(),
                (&raw const (*ctx).user_ip6[2]).read_volatile(),
                (&raw const (*ctx).user_ip6[3]).read_volatile(),
            ],
            (&raw const (*ctx).user_port).read_volatile(),
        )
    };
    if addr[0] == 0 && addr[1] == 0 && addr[2] == MAPPED {
        Peer { addr: [addr[3], 0, 0, 0], port: port as u16, v4: true }
    } else {
        Peer { addr, port: port as u16, v4: false }
    }
}

#[inline(always)]
fn write4(ctx: *mut bpf_sock_addr, peer: Peer) {
    // SAFETY: the kernel hands a valid context; these fields may be written by every program type here.
    unsafe {
        (&raw mut (*ctx).user_ip4).write_volatile(peer.addr[0]);
        (&raw mut (*ctx).user_port).write_volatile(u32::from(peer.port));
    }
}

#[inline(always)]
fn write6(ctx: *mut bpf_sock_addr, peer: Peer) {
    let words = if peer.v4 { [0, 0, MAPPED, peer.addr[0]] } else { peer.addr };
    // SAFETY: as in `write4`.
    unsafe {
        (&raw mut (*ctx).user_ip6[0]).write_volatile(words[0]);
        (&raw mut (*ctx).user_ip6[1]).write_volatile(words[1]);
        (&raw mut (*ctx).user_ip6[2]).write_volatile(words[2]);
        (&raw mut (*ctx).user_ip6[3]).write_volatile(words[3]);
        (&raw mut (*ctx).user_port).write_volatile(u32::from(peer.port));
    }
}

#[inline(always)]
fn count(index: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the slot is this CPU's.
        unsafe { *value = (*value).wrapping_add(1) };
    }
}

#[inline(always)]
fn bytes(addr: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = addr;
    let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

#[inline(always)]
fn words(addr: &[u8; 16]) -> [u32; 4] {
    let word = |at: usize| u32::from_ne_bytes([addr[at], addr[at + 1], addr[at + 2], addr[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

#[inline(always)]
fn frontend(peer: Peer, port: u16, protocol: u8) -> Option<&'static Frontend> {
    let port = port.to_ne_bytes();
    // SAFETY: user space replaces values as a whole; a reader sees the old or the new one.
    unsafe {
        if peer.v4 {
            FRONTENDS4.get(FrontendKey4 { addr: peer.addr[0].to_ne_bytes(), port, protocol, pad: 0 })
        } else {
            FRONTENDS6.get(FrontendKey6 { addr: bytes(peer.addr), port, protocol, pad: 0 })
        }
    }
}

#[inline(always)]
fn key(cookie: u64, peer: Peer, protocol: u8, direction: u8) -> SocketKey {
    SocketKey {
        cookie,
        addr: bytes(peer.addr),
        port: peer.port.to_ne_bytes(),
        protocol,
        direction,
        pad: [0; 4],
    }
}

#[inline(always)]
fn find(key: &SocketKey) -> Option<&'static Socket> {
    // SAFETY: entries are of one socket, whose calls the kernel serialises; a stale read costs at most another draw.
    unsafe { SOCKETS.get(key) }
}

#[inline(always)]
fn backend(id: u32, wanted: u32) -> Option<&'static Backend> {
    let backend = BACKENDS.get(id)?;
    (backend.flags & wanted == wanted).then_some(backend)
}

#[inline(always)]
fn peer_of(backend: &Backend, v4: bool) -> Peer {
    Peer { addr: words(&backend.addr), port: u16::from_ne_bytes(backend.port), v4 }
}

#[inline(always)]
fn same(socket: &Socket, peer: Peer) -> bool {
    words(&socket.addr) == peer.addr && u16::from_ne_bytes(socket.port) == peer.port
}

/// True for sockets of the node's own network namespace.
#[inline(always)]
fn ours(ctx: &SockAddrContext) -> bool {
    let Some(config) = CONFIG.get(0) else { return false };
    let wanted = config.netns_cookie;
    // SAFETY: a helper on the context that the kernel handed.
    wanted == 0 || unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } == wanted
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: a helper on the context that the kernel handed.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as in `peer4`.
    unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() }
}

#[inline(always)]
fn refuse(reason: u32) -> Verdict {
    count(reason);
    if SET_RETVAL.load() != 0 {
        // SAFETY: a helper without pointers.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    Verdict::Reject
}

/// True for a send to where the socket is connected. The kernel shows it to us when an IPv6 socket is connected to an
/// IPv4 address (`udpv6_sendmsg` hands it to `udp_sendmsg` as if the process had named the address).
#[inline(always)]
fn is_connected_to(ctx: &SockAddrContext, peer: Peer) -> bool {
    if !peer.v4 {
        return false;
    }
    // SAFETY: the kernel hands a valid context, and in it the socket of the call.
    unsafe {
        let sock = (&raw const (*ctx.sock_addr).__bindgen_anon_1.sk).read_volatile();
        !sock.is_null()
            && (&raw const (*sock).state).read_volatile() == ESTABLISHED
            && (&raw const (*sock).dst_ip4).read_volatile() == peer.addr[0]
            && (&raw const (*sock).dst_port).read_volatile() == peer.port
    }
}

/// Where a socket that asks for `vip` shall go.
#[inline(always)]
fn forward(ctx: &SockAddrContext, vip: Peer) -> Verdict {
    let protocol = protocol(ctx);
    if protocol != TCP && protocol != UDP || !ours(ctx) {
        return Verdict::Keep;
    }
    let udp = protocol == UDP;
    let protocol = protocol as u8;
    let Some(frontend) = frontend(vip, vip.port, protocol) else {
        match owner(vip) {
            Owner::Service => return refuse(counter::NO_PORT),
            Owner::Nobody => {
                count(counter::UNALLOCATED);
                return Verdict::Reject;
            }
            Owner::Other => {}
        }
        if udp && !is_connected_to(ctx, vip) {
            // It talks to a backend directly from now on: answers show that address.
            let direct = key(cookie(ctx), vip, protocol, direction::REVERSE);
            if find(&direct).is_some() {
                let _ = SOCKETS.remove(direct);
            }
        }
        return Verdict::Keep;
    };
    let (count_of_slots, slots) = (frontend.inside.count, frontend.inside.slots);
    let (service, affinity, flags) = (frontend.service, frontend.affinity, frontend.flags);
    if flags & frontend_flags::SOURCES != 0 && !node_is_source(vip.v4, service) {
        count(counter::SOURCE_RANGES);
        return Verdict::Reject;
    }
    if count_of_slots == 0 {
        if flags & frontend_flags::DROP_INSIDE != 0 {
            count(counter::LOCAL_POLICY);
            return Verdict::Reject;
        }
        return refuse(counter::NO_ENDPOINTS);
    }
    let cookie = cookie(ctx);
    let forward = key(cookie, vip, protocol, direction::FORWARD);
    if udp && let Some(socket) = find(&forward) {
        let usable = backend_flags::LIVE | backend_flags::USABLE;
        if socket.service == service
            && let Some(backend) = backend(socket.backend, usable)
            && backend.generation == socket.generation
        {
            let peer = peer_of(backend, vip.v4);
            remember(cookie, peer, vip, protocol, socket.service, socket.backend, socket.generation);
            return Verdict::To(peer);
        }
    }
    let kept = if affinity == 0 { 0 } else { kept(vip.v4, service, affinity) };
    let mut last = None;
    for _ in 0..DRAWS {
        // SAFETY: a helper without arguments.
        let draw = unsafe { bpf_get_prandom_u32() } % count_of_slots;
        let Some(&drawn) = SLOTS.get(slots.wrapping_add(draw)) else { continue };
        let id = if kept == 0 { drawn } else { kept };
        let Some(backend) = backend(id, backend_flags::LIVE) else { continue };
        let peer = peer_of(backend, vip.v4);
        let generation = backend.generation;
        last = Some((id, generation, peer));
        // One socket that asks for two virtual IPs: another backend, if there is one, keeps their answers apart.
        match find(&key(cookie, peer, protocol, direction::REVERSE)) {
            Some(other) if !same(other, vip) => {}
            _ => break,
        }
    }
    let Some((id, generation, peer)) = last else { return refuse(counter::NO_ENDPOINTS) };
    if affinity != 0 {
        keep(vip.v4, service, id, generation);
    }
    remember(cookie, peer, vip, protocol, service, id, generation);
    let socket = Socket {
        addr: bytes(peer.addr),
        port: peer.port.to_ne_bytes(),
        pad: 0,
        service,
        backend: id,
        generation,
    };
    if udp {
        let _ = SOCKETS.insert(forward, socket, BPF_ANY.into());
    }
    count(counter::SOCKET);
    tell_socket(&forward, &socket, u32::from(vip.v4));
    Verdict::To(peer)
}

/// Whose an address is that no Service has with this port. As in `eastwest_packet`.
#[inline(always)]
fn owner(vip: Peer) -> Owner {
    let Some(config) = CONFIG.get(0) else { return Owner::Other };
    let known = config.flags & config_flags::SERVICE_RANGES != 0;
    let may = if vip.v4 { Addr4(vip.addr[0]).is_virtual(config) } else { Addr6(vip.addr).is_virtual(config) };
    if known && !may {
        return Owner::Other;
    }
    match frontend(vip, 0, 0) {
        Some(entry) if entry.flags & frontend_flags::ADDRESS != 0 => Owner::Service,
        None if known => Owner::Nobody,
        _ => Owner::Other,
    }
}

/// Whether the node is a client that may ask.
#[inline(never)]
fn node_is_source(v4: bool, list: u32) -> bool {
    let Some(config) = CONFIG.get(0) else { return false };
    if v4 {
        return SOURCES4.get(&source(list, Addr4(u32::from_ne_bytes(config.node4)))).is_some();
    }
    SOURCES6.get(&source(list, Addr6(words(&config.node6)))).is_some()
}

/// The node's processes are one client, by the node's address.
#[inline(always)]
fn client4(service: u32) -> AffinityKey<Addr4> {
    let node = CONFIG.get(0).map_or([0; 4], |config| config.node4);
    AffinityKey { client: Addr4(u32::from_ne_bytes(node)), service }
}

#[inline(always)]
fn client6(service: u32) -> AffinityKey<Addr6> {
    let node = CONFIG.get(0).map_or([0; 4], |config| words(&config.node6));
    AffinityKey { client: Addr6(node), service }
}

/// Id of the backend that the node's processes were given last, if it still may be; else 0.
#[inline(never)]
fn kept(v4: bool, service: u32, seconds: u32) -> u32 {
    // SAFETY: a mixture of two values names a backend with another's generation, which nobody uses.
    let found = unsafe { if v4 { AFFINITY4.get(client4(service)) } else { AFFINITY6.get(client6(service)) } };
    let Some(&Affinity { backend: id, generation, seen }) = found else { return 0 };
    let Some(backend) = backend(id, backend_flags::LIVE | backend_flags::USABLE) else { return 0 };
    // SAFETY: a helper without arguments.
    let now = unsafe { (bpf_ktime_get_coarse_ns() >> 24) as u32 };
    let holds = holds(&Affinity { backend: id, generation, seen }, now, seconds);
    if holds && backend.generation == generation { id } else { 0 }
}

/// Notes what the node's processes have been given; a full table costs the affinity alone.
#[inline(never)]
fn keep(v4: bool, service: u32, backend: u32, generation: u32) {
    // SAFETY: a helper without arguments.
    let affinity =
        Affinity { backend, generation, seen: unsafe { (bpf_ktime_get_coarse_ns() >> 24) as u32 } };
    let _ = if v4 {
        AFFINITY4.insert(client4(service), affinity, BPF_ANY.into())
    } else {
        AFFINITY6.insert(client6(service), affinity, BPF_ANY.into())
    };
}

/// Lets recvmsg and getpeername find `vip` by `peer`. Without it (a full table) they show the backend.
#[inline(always)]
fn remember(cookie: u64, peer: Peer, vip: Peer, protocol: u8, service: u32, backend: u32, generation: u32) {
    let reverse = key(cookie, peer, protocol, direction::REVERSE);
    if find(&reverse).is_some_and(|known| same(known, vip)) {
        return;
    }
    let socket =
        Socket { addr: bytes(vip.addr), port: vip.port.to_ne_bytes(), pad: 0, service, backend, generation };
    let _ = SOCKETS.insert(reverse, socket, BPF_ANY.into());
}

/// The virtual IP that the process asked for when it got to `peer`.
#[inline(always)]
fn back(ctx: &SockAddrContext, peer: Peer) -> Option<Peer> {
    let socket = find(&key(cookie(ctx), peer, protocol(ctx) as u8, direction::REVERSE))?;
    Some(Peer { addr: words(&socket.addr), port: u16::from_ne_bytes(socket.port), v4: peer.v4 })
}

#[inline(always)]
fn forward4(ctx: &SockAddrContext) -> i32 {
    match forward(ctx, peer4(ctx.sock_addr)) {
        Verdict::Keep => ALLOW,
        Verdict::Reject => REJECT,
        Verdict::To(peer) => {
            write4(ctx.sock_addr, peer);
            ALLOW
        }
    }
}

#[inline(always)]
fn forward6(ctx: &SockAddrContext) -> i32 {
    match forward(ctx, peer6(ctx.sock_addr)) {
        Verdict::Keep => ALLOW,
        Verdict::Reject => REJECT,
        Verdict::To(peer) => {
            write6(ctx.sock_addr, peer);
            ALLOW
        }
    }
}

#[inline(always)]
fn back4(ctx: &SockAddrContext) -> i32 {
    if let Some(vip) = back(ctx, peer4(ctx.sock_addr)) {
        write4(ctx.sock_addr, vip);
    }
    ALLOW
}

#[inline(always)]
fn back6(ctx: &SockAddrContext) -> i32 {
    if let Some(vip) = back(ctx, peer6(ctx.sock_addr)) {
        write6(ctx.sock_addr, vip);
    }
    ALLOW
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    forward4(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    forward6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    forward4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    forward6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    back4(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    back6(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    back4(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    back6(&ctx)
}
