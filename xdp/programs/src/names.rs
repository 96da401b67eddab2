//! Questions to the node's DNS: programs of their own, called by those at pods' devices.

use core::arch::asm;

use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_ktime_get_coarse_ns, bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_xdp_load_bytes,
    bpf_xdp_store_bytes,
};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use eastwest_abi::names::{Answer, NAME_MAX, Names, Question, SERVERS};
use eastwest_abi::{Addr4, Addr6};
use eastwest_packet::checksum::Sum;
use eastwest_packet::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use eastwest_packet::{Asked, Bulk, Maps, NameMaps, Named, Told, Verdict, answer, asks, elsewhere, lives};

use crate::kernel::{Kernel, Memory};
use crate::link::ethertype;
use crate::maps::{ANSWER_TC, ANSWER_XDP, ANSWERS, ASKED, NAMES, NAMES_COUNTS, NAMES_WORDS};
use crate::tc::TcPacket;
use crate::xdp::XdpPacket;

impl NameMaps for Kernel {
    #[inline(always)]
    fn names(&self) -> Option<&Names> {
        NAMES.get(0)
    }

    #[inline(always)]
    fn word(&self, index: u32) -> u64 {
        NAMES_WORDS.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: takes and touches nothing.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn answer(&self, question: &Question) -> Option<&Answer> {
        // SAFETY: user space replaces elements whole and the kernel frees them after this program.
        unsafe { ANSWERS.get(question) }
    }

    #[inline(always)]
    fn count_answer(&mut self, server: u32, told: &Told) {
        if let Some(counts) = NAMES_COUNTS.get_ptr_mut(server % (2 * SERVERS as u32)) {
            // SAFETY: this CPU's own element.
            told.count(unsafe { &mut *counts });
        }
    }

    #[inline(always)]
    fn count_elsewhere(&mut self, server: u32) {
        if let Some(counts) = NAMES_COUNTS.get_ptr_mut(server % (2 * SERVERS as u32)) {
            // SAFETY: this CPU's own element.
            unsafe { (*counts).elsewhere += 1 };
        }
    }
}

/// `value & MASK`, with its bounds in the very register that is used.
#[inline(always)]
fn bits<const MASK: i32>(value: u64) -> u64 {
    let mut bits = value;
    // SAFETY: changes one register, and no more bits are left in it.
    unsafe {
        asm!("{0} &= {1}", inout(reg) bits, const MASK, options(pure, nomem, nostack, preserves_flags));
        core::hint::assert_unchecked(bits <= MASK as u64);
    }
    bits
}

/// The length, which must be 1 to `MOST` (a power of 2), or `None`. With both bounds in the very register that is used: Linux
/// 6.1 knows no more of a value that lies on the stack than when it was put there, and lets no helper read 0 bytes.
#[inline(always)]
fn bounded<const MOST: i32>(length: u32) -> Option<u32> {
    const { assert!(MOST.count_ones() == 1) };
    if length == 0 || length > MOST as u32 {
        return None;
    }
    let mut bounded = u64::from(length);
    // SAFETY: changes one register, to what it is already.
    unsafe {
        asm!(
            "{0} += -1",
            "{0} &= {1}",
            "{0} += 1",
            inout(reg) bounded,
            const MOST - 1,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    Some(bounded as u32)
}

#[inline(always)]
fn sum<const N: usize>(bytes: &[u8; N], length: u32) -> Sum {
    const { assert!(N >= 256) };
    let rounded = bits::<252>(u64::from(length) + 3);
    let start = bytes.as_ptr().cast_mut().cast();
    // SAFETY: so many bytes are there.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, start, rounded as u32, 0) };
    Sum::ZERO.add(sum as u32)
}

macro_rules! bulk {
    ($packet:ty, $load:expr, $store:expr) => {
        impl Bulk for $packet {
            #[inline(always)]
            fn copy_out<const N: usize>(&self, at: u32, to: &mut [u8; N], length: u32) -> bool {
                const { assert!(N >= 256) };
                bounded::<256>(length)
                    .is_some_and(|length| $load(self, at, to.as_mut_ptr().cast(), length) == 0)
            }

            #[inline(always)]
            fn copy_name(&self, at: u32, to: &mut [u64; NAME_MAX / 8], length: u32) -> bool {
                bounded::<{ NAME_MAX as i32 }>(length)
                    .is_some_and(|length| $load(self, at, to.as_mut_ptr().cast(), length) == 0)
            }

            #[inline(always)]
            fn copy_in<const N: usize>(&mut self, at: u32, from: &[u8; N], length: u32) -> bool {
                const { assert!(N >= 256) };
                let start = from.as_ptr().cast_mut().cast();
                bounded::<256>(length).is_some_and(|length| $store(self, at, start, length) == 0)
            }

            #[inline(always)]
            fn place(at: usize) -> usize {
                bits::<255>(at as u64) as usize
            }

            #[inline(always)]
            fn sum<const N: usize>(bytes: &[u8; N], length: u32) -> Sum {
                sum(bytes, length)
            }
        }
    };
}

bulk!(
    TcPacket,
    // SAFETY: the program's context, and so many bytes are there.
    |packet: &TcPacket, at, to, length| unsafe { bpf_skb_load_bytes(packet.skb.cast(), at, to, length) },
    // SAFETY: as above.
    |packet: &TcPacket, at, from, length| unsafe { bpf_skb_store_bytes(packet.skb, at, from, length, 0) }
);
bulk!(
    XdpPacket,
    // SAFETY: the program's context, and so many bytes are there.
    |packet: &XdpPacket, at, to, length| unsafe { bpf_xdp_load_bytes(packet.ctx, at, to, length) },
    // SAFETY: as above.
    |packet: &XdpPacket, at, from, length| unsafe { bpf_xdp_store_bytes(packet.ctx, at, from, length) }
);

/// A packet that may be a question for the node's DNS.
#[inline(always)]
pub fn names<A: Named + Memory, P: Caller>(packet: &mut P) -> Verdict
where
    Kernel: Maps<A>,
{
    let Some(work) = A::work() else { return Verdict::Pass };
    if !asks(&Kernel, work) {
        return Verdict::Pass;
    }
    if lives(&Kernel) {
        packet.call_answer();
        // Only an array that the agent's end has emptied lets us go on.
    }
    elsewhere(&mut Kernel, packet, work)
}

/// A packet under a program that can call that which answers.
pub trait Caller: Bulk {
    /// Ends this program by the other, if it is there.
    fn call_answer(&self);
}

impl Caller for TcPacket {
    #[inline(always)]
    fn call_answer(&self) {
        // SAFETY: nothing here is to be dropped.
        unsafe { ANSWER_TC.tail_call(&TcContext::new(self.skb), 0) };
    }
}

impl Caller for XdpPacket {
    #[inline(always)]
    fn call_answer(&self) {
        // SAFETY: nothing here is to be dropped.
        unsafe { ANSWER_XDP.tail_call(&XdpContext::new(self.ctx), 0) };
    }
}

#[inline(always)]
fn answer_of<A: Named + Memory, P: Bulk>(packet: &mut P) -> Verdict
where
    Kernel: Maps<A>,
{
    // This CPU's own, as the caller left it: nothing else has run in between.
    let (Some(work), Some(asked)) = (A::work(), ASKED.get_ptr_mut(0)) else { return Verdict::Pass };
    // SAFETY: this CPU's own element, taken once.
    let asked: &mut Asked = unsafe { &mut *asked };
    answer(&mut Kernel, packet, work, asked)
}

#[inline(always)]
fn answer_any<P: Bulk>(packet: &mut P) -> Verdict {
    match ethertype(packet) {
        ETHERTYPE_IPV4 => answer_of::<Addr4, P>(packet),
        ETHERTYPE_IPV6 => answer_of::<Addr6, P>(packet),
        _ => Verdict::Pass,
    }
}

#[classifier]
#[inline(always)]
pub fn answer_tc(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::new(&ctx);
    let verdict = answer_any(&mut packet);
    packet.end(verdict)
}

#[xdp]
#[inline(always)]
pub fn answer_xdp(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    let verdict = answer_any(&mut packet);
    packet.end(verdict)
}
