//! The tables of `eastwest_packet` over the BPF maps, and what XDP and tc programs share.

use aya_ebpf::Global;
use aya_ebpf::bindings::{
    BPF_ANY, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, BPF_NOEXIST,
    bpf_fib_lookup as FibLookup, bpf_fib_lookup__bindgen_ty_1, bpf_fib_lookup__bindgen_ty_2,
    bpf_fib_lookup__bindgen_ty_3, bpf_fib_lookup__bindgen_ty_4, bpf_fib_lookup__bindgen_ty_5,
};
use core::arch::asm;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_coarse_ns};
use eastwest_abi::{
    Addr4, Addr6, Affinity, AffinityKey, Backend, Config, Conntrack, ConntrackKey, EndpointKey4,
    EndpointKey6, Fragment, FragmentKey, Frontend, FrontendKey4, FrontendKey6, Source, cache,
};
use eastwest_packet::{Address, Hop, Insert, Kept, Maps, RouteQuery, Work};

use crate::events;
use crate::maps::{
    AFFINITY4, AFFINITY6, BACKENDS, CACHE4, CACHE6, CHANGES, CONFIG, CONNTRACK4, CONNTRACK6, COUNTERS,
    ENDPOINTS4, ENDPOINTS6, FRAGMENTS4, FRAGMENTS6, FRONTENDS4, FRONTENDS6, SLOTS, SOURCES4, SOURCES6, WORK4,
    WORK6,
};

/// XDP puts this before a packet that the tc program behind it shall finish.
pub const HANDOVER_MARK: u32 = 0x6577_6831;

const EEXIST: i32 = -17;

/// All maps.
pub struct Kernel;

/// This CPU's memory for the flow that is being opened.
pub trait Memory: Sized + 'static {
    /// `None` cannot be, but the verifier wants it looked at.
    fn work() -> Option<&'static mut Work<Self>>;
    /// The same, to be looked at only.
    fn look() -> Option<*const Work<Self>>;
}

impl Memory for Addr4 {
    #[inline(always)]
    fn work() -> Option<&'static mut Work<Self>> {
        // SAFETY: this CPU's own element; a program runs to its end before another starts, and takes it once.
        WORK4.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }

    #[inline(always)]
    fn look() -> Option<*const Work<Self>> {
        WORK4.get_ptr(0)
    }
}

impl Memory for Addr6 {
    #[inline(always)]
    fn work() -> Option<&'static mut Work<Self>> {
        // SAFETY: as above.
        WORK6.get_ptr_mut(0).map(|work| unsafe { &mut *work })
    }

    #[inline(always)]
    fn look() -> Option<*const Work<Self>> {
        WORK6.get_ptr(0)
    }
}

/// What a client is looked up by.
#[inline(always)]
pub fn source<A>(list: u32, addr: A) -> Key<Source<A>> {
    Key::new(size_of::<Source<A>>() as u32 * 8, Source { list, addr })
}

/// `eastwest_abi::globals::TURN`.
#[unsafe(no_mangle)]
static TURN: Global<u32> = Global::new(13);

macro_rules! family {
    ($address:ty, $frontend_key:ty, $endpoint_key:ty, $frontends:ident, $endpoints:ident, $conntrack:ident, $cache:ident, $affinity:ident, $fragments:ident, $sources:ident) => {
        impl Maps<$address> for Kernel {
            #[inline(always)]
            fn config(&self) -> Option<&Config> {
                CONFIG.get(0)
            }

            #[inline(always)]
            fn frontend(&self, key: &$frontend_key) -> Option<Frontend> {
                // SAFETY: user space replaces elements whole and the kernel frees them after this program.
                unsafe { $frontends.get(key).copied() }
            }

            #[inline(always)]
            fn is_endpoint(&self, key: &$endpoint_key) -> bool {
                $endpoints.get_ptr(key).is_some()
            }

            #[inline(always)]
            fn slot(&self, index: u32) -> Option<u32> {
                SLOTS.get(index).copied()
            }

            #[inline(always)]
            fn backend(&self, id: u32) -> Option<Backend> {
                BACKENDS.get(id).copied()
            }

            #[inline(always)]
            fn is_source(&self, list: u32, addr: $address) -> bool {
                $sources.get(&source(list, addr)).is_some()
            }

            #[inline(always)]
            fn track(&mut self, key: &ConntrackKey<$address>) -> Option<&mut Conntrack<$address>> {
                // SAFETY: the memory stays mapped while the program runs. Another CPU may write the same words; each is
                // used as it is read, whatever it holds.
                $conntrack.get_ptr_mut(key).map(|value| unsafe { &mut *value })
            }

            #[inline(always)]
            fn track_insert(
                &mut self,
                key: &ConntrackKey<$address>,
                value: &Conntrack<$address>,
                only_new: bool,
            ) -> Insert {
                let flags = if only_new { BPF_NOEXIST } else { BPF_ANY };
                match $conntrack.insert(key, value, flags.into()) {
                    Ok(()) => Insert::Done,
                    Err(EEXIST) => Insert::Exists,
                    Err(_) => Insert::Full,
                }
            }

            #[inline(always)]
            fn track_remove(&mut self, key: &ConntrackKey<$address>) {
                let _ = $conntrack.remove(key);
            }

            #[inline(always)]
            fn kept(&mut self, place: u32) -> Option<&mut Kept<$address>> {
                // SAFETY: this CPU's own element; a program runs to its end before another starts, and takes it for a moment.
                $cache.get_ptr_mut(place).map(|kept| unsafe { &mut *kept })
            }

            #[inline(always)]
            fn count_of(&self, number: u32) -> u32 {
                CHANGES.get(number).copied().unwrap_or(0)
            }

            #[inline(always)]
            fn turns(&self) -> u32 {
                <Self as Maps<$address>>::count_of(self, cache::ADDED) >> (TURN.load() & 31)
            }

            #[inline(always)]
            fn count_on(&mut self, number: u32) {
                if let Some(count) = CHANGES.get_ptr_mut(number) {
                    // SAFETY: adds in one step to an aligned element that stays mapped while the program runs. The target has no
                    // atomics in `core`.
                    unsafe { asm!("lock *(u32 *)({count} + 0) += {one}", count = in(reg) count, one = in(reg) 1u64) };
                }
            }

            #[inline(always)]
            fn affinity(&self, key: &AffinityKey<$address>) -> Option<Affinity> {
                // SAFETY: another CPU may write a new value there: a mixture names a backend with another's generation,
                // which nobody uses.
                unsafe { $affinity.get(key).copied() }
            }

            #[inline(always)]
            fn affinity_insert(&mut self, key: &AffinityKey<$address>, value: &Affinity) {
                // A table that takes no entry costs the client its affinity, not its connection.
                let _ = $affinity.insert(key, value, BPF_ANY.into());
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey<$address>) -> Option<Fragment> {
                // SAFETY: a value is written once, and whole where it is seen by a later packet.
                unsafe { $fragments.get(key).copied() }
            }

            #[inline(always)]
            fn fragment_insert(&mut self, key: &FragmentKey<$address>, value: &Fragment) {
                // A table that takes no entry costs the later fragments.
                let _ = $fragments.insert(key, value, BPF_ANY.into());
            }

            #[inline(always)]
            fn random(&mut self) -> u32 {
                // SAFETY: takes and touches nothing.
                unsafe { bpf_get_prandom_u32() }
            }

            #[inline(always)]
            fn now(&self) -> u32 {
                // SAFETY: takes and touches nothing.
                unsafe { (bpf_ktime_get_coarse_ns() >> 30) as u32 }
            }

            #[inline(always)]
            fn tick(&self) -> u64 {
                // The coarse clock moves with it, and the verifier makes one load of it where the clock is three calls.
                // SAFETY: takes and touches nothing.
                unsafe { bpf_jiffies64() }
            }

            #[inline(always)]
            fn clock(&self) -> u32 {
                // SAFETY: takes and touches nothing.
                unsafe { (bpf_ktime_get_coarse_ns() >> 24) as u32 }
            }

            #[inline(always)]
            fn count(&mut self, counter: u32) {
                if let Some(value) = COUNTERS.get_ptr_mut(counter) {
                    // SAFETY: this CPU's own element.
                    unsafe { *value += 1 };
                }
                if events::tells(counter) {
                    events::tell::<$address>(counter);
                }
            }
        }
    };
}

family!(
    Addr4,
    FrontendKey4,
    EndpointKey4,
    FRONTENDS4,
    ENDPOINTS4,
    CONNTRACK4,
    CACHE4,
    AFFINITY4,
    FRAGMENTS4,
    SOURCES4
);
family!(
    Addr6,
    FrontendKey6,
    EndpointKey6,
    FRONTENDS6,
    ENDPOINTS6,
    CONNTRACK6,
    CACHE6,
    AFFINITY6,
    FRAGMENTS6,
    SOURCES6
);

/// Addresses as `bpf_fib_lookup` wants them.
pub trait FibAddress: Address {
    /// `AF_INET` or `AF_INET6`.
    const FAMILY: u8;
    /// The address's words; IPv4 in the first.
    fn words(self) -> [u32; 4];
    /// Traffic class, and flow label with IPv6.
    fn class(first_word: u32) -> u32;
}

impl FibAddress for Addr4 {
    const FAMILY: u8 = 2;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }

    #[inline(always)]
    fn class(first_word: u32) -> u32 {
        u32::from_ne_bytes([first_word.to_ne_bytes()[1], 0, 0, 0])
    }
}

impl FibAddress for Addr6 {
    const FAMILY: u8 = 10;

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn class(first_word: u32) -> u32 {
        first_word & 0x0fff_ffff_u32.to_be()
    }
}

/// What the routing table says of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fib {
    /// The hop is all there.
    Known,
    /// The hop's neighbour is not known yet.
    NoNeighbour,
    /// Longer than the route takes, which the hop says.
    TooBig,
    /// Not to be sent on by us.
    Other,
}

/// Asks the routing table, as for a packet of `length` bytes that came in by `device`.
///
/// # Safety
/// `ctx` must be the program's own context.
#[inline(always)]
pub unsafe fn fib<A: FibAddress>(
    ctx: *mut core::ffi::c_void,
    device: u32,
    length: u16,
    query: &RouteQuery<A>,
    hop: &mut Hop,
) -> Fib {
    let mut params = FibLookup {
        family: A::FAMILY,
        l4_protocol: query.protocol,
        sport: query.sport,
        dport: query.dport,
        __bindgen_anon_1: bpf_fib_lookup__bindgen_ty_1 { tot_len: length },
        ifindex: device,
        __bindgen_anon_2: bpf_fib_lookup__bindgen_ty_2 { flowinfo: A::class(query.first_word) },
        __bindgen_anon_3: bpf_fib_lookup__bindgen_ty_3 { ipv6_src: query.saddr.words() },
        __bindgen_anon_4: bpf_fib_lookup__bindgen_ty_4 { ipv6_dst: query.daddr.words() },
        __bindgen_anon_5: bpf_fib_lookup__bindgen_ty_5 { tbid: 0 },
        smac: [0; 6],
        dmac: [0; 6],
    };
    let length = size_of::<FibLookup>() as i32;
    // SAFETY: the caller's context; the structure is all written and has the length given.
    let code = unsafe { bpf_fib_lookup(ctx, &raw mut params, length, 0) } as u32;
    hop.device = params.ifindex;
    if code == BPF_FIB_LKUP_RET_SUCCESS {
        hop.link = [
            half(params.dmac, 0),
            half(params.dmac, 2),
            half(params.dmac, 4),
            half(params.smac, 0),
            half(params.smac, 2),
            half(params.smac, 4),
        ];
        return Fib::Known;
    }
    if code == BPF_FIB_LKUP_RET_FRAG_NEEDED {
        // SAFETY: a plain number; the kernel has put the MTU where the length was.
        hop.mtu = unsafe { params.__bindgen_anon_1.mtu_result }.into();
        return Fib::TooBig;
    }
    if code == BPF_FIB_LKUP_RET_NO_NEIGH { Fib::NoNeighbour } else { Fib::Other }
}

#[inline(always)]
fn half(address: [u8; 6], at: usize) -> u16 {
    u16::from_ne_bytes([address[at], address[at + 1]])
}
