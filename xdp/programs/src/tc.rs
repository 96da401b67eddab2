//! A packet under a tc program.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT};
use aya_ebpf::helpers::{
    bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head, bpf_skb_change_tail,
    bpf_skb_pull_data,
};
use aya_ebpf::programs::TcContext;
use eastwest_abi::Config;
use eastwest_packet::wire::{PROTOCOL_UDP, checksum_offset};
use eastwest_packet::{ChecksumChange, Checksums, Hop, Packet, RouteQuery, Router, Unit, Verdict, Via};

use crate::access::{barrier, forget, near, read, write};
use crate::kernel::{Fib, FibAddress, HANDOVER_MARK, fib};

/// `TCX_NEXT`, which is `TC_ACT_UNSPEC`: as if we were not there.
pub const GO_ON: i32 = -1;

/// `BPF_F_IPV6` of `bpf_l4_csum_replace` (6.16): the network header has no checksum that makes up for the addresses.
const BPF_F_IPV6: u64 = 1 << 7;

/// The packet.
pub struct TcPacket {
    skb: *mut __sk_buff,
}

impl TcPacket {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the program's context.
        unsafe { (*self.skb).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: the program's context.
        unsafe { (*self.skb).data_end as usize }
    }

    #[inline(always)]
    fn device(&self) -> u32 {
        // SAFETY: the program's context.
        unsafe { (*self.skb).ifindex }
    }

    /// Whether XDP left the packet for us.
    #[inline(always)]
    pub fn is_handed_over(&self) -> bool {
        // SAFETY: the program's context.
        let meta = unsafe { (*self.skb).data_meta as usize };
        if meta + size_of::<u32>() > self.data() {
            return false;
        }
        // SAFETY: just compared with the end of the metadata, which the kernel aligns to 4 bytes.
        unsafe { *(meta as *const u32) == HANDOVER_MARK }
    }

    /// Ends the program.
    #[inline(always)]
    pub fn end(&self, verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass | Verdict::Handover => GO_ON,
            Verdict::Drop => TC_ACT_SHOT as i32,
            // SAFETY: takes no memory.
            Verdict::Back => unsafe { bpf_redirect(self.device(), 0) as i32 },
            // SAFETY: takes no memory.
            Verdict::Transmit(device) => unsafe { bpf_redirect(device, 0) as i32 },
            // SAFETY: no parameters: the helper asks the routing table itself.
            Verdict::Neighbour(device) => unsafe {
                bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0) as i32
            },
        }
    }
}

impl Packet for TcPacket {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the program's context.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn ensure(&mut self, length: u32) -> bool {
        barrier();
        if self.data() + length as usize <= self.data_end() {
            return true;
        }
        // SAFETY: the program's context.
        length <= self.len() && unsafe { bpf_skb_pull_data(self.skb, length) == 0 }
    }

    #[inline(always)]
    fn load<U: Unit, const N: usize>(&self, at: usize) -> Option<[U; N]> {
        let start = self.data() + near(at)?;
        if start + N * size_of::<U>() > self.data_end() {
            return None;
        }
        // SAFETY: just compared with the end.
        Some(unsafe { read(start) })
    }

    #[inline(always)]
    fn store<U: Unit, const N: usize>(&mut self, at: usize, units: &[U; N]) -> bool {
        let Some(at) = near(at) else { return false };
        let start = self.data() + at;
        if start + N * size_of::<U>() > self.data_end() {
            return false;
        }
        // SAFETY: just compared with the end; the kernel has made the header writable.
        unsafe { write(start, units) };
        true
    }

    #[inline(always)]
    fn checksums(&self) -> Checksums {
        Checksums::Kernel
    }

    #[inline(always)]
    fn update_checksum(&mut self, change: &ChecksumChange) -> bool {
        let at = (change.l4 + checksum_offset(change.protocol)) as u32;
        let mut flags = 0;
        if change.protocol == PROTOCOL_UDP {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        let mut address_flags = flags | u64::from(BPF_F_PSEUDO_HDR);
        if change.tell_ipv6 {
            address_flags |= BPF_F_IPV6;
        }
        let addresses = u64::from(change.addresses.fold());
        let ports = u64::from(change.ports.fold());
        // SAFETY: the program's context.
        unsafe {
            bpf_l4_csum_replace(self.skb, at, 0, addresses, address_flags) == 0
                && bpf_l4_csum_replace(self.skb, at, 0, ports, flags) == 0
        }
    }

    #[inline(always)]
    fn resize(&mut self, length: u32) -> bool {
        // SAFETY: the program's context.
        unsafe { bpf_skb_change_tail(self.skb, length, 0) == 0 }
    }

    #[inline(always)]
    fn prepend(&mut self, length: u32) -> bool {
        // SAFETY: the program's context.
        unsafe { bpf_skb_change_head(self.skb, length, 0) == 0 }
    }

    #[inline(always)]
    fn forget(value: u64) -> u64 {
        forget(value)
    }
}

impl<A: FibAddress> Router<A> for TcPacket {
    #[inline(always)]
    fn route(&mut self, query: &RouteQuery<A>, hop: &mut Hop) -> Via {
        // Of a super-packet each segment has the headers.
        // SAFETY: the program's context.
        let segment = unsafe { (*self.skb).gso_size } as u16;
        let length = if segment == 0 { query.length } else { query.headers.saturating_add(segment) };
        // SAFETY: the program's context.
        match unsafe { fib(self.skb.cast(), self.device(), length, query, hop) } {
            Fib::Known => Via::Link,
            Fib::NoNeighbour => Via::Neighbour,
            Fib::TooBig => Via::TooBig,
            Fib::Other => Via::Stack,
        }
    }

    #[inline(always)]
    fn may_send(&self, _config: &Config) -> bool {
        true
    }
}
