//! A packet under an XDP program.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use eastwest_abi::{Config, config_flags};
use eastwest_packet::{ChecksumChange, Checksums, Hop, Packet, RouteQuery, Router, Unit, Verdict, Via};

use crate::access::{barrier, distance, forget, near, read, write};
use crate::kernel::{Fib, FibAddress, HANDOVER_MARK, fib};
use crate::maps::NICS;

/// The packet.
pub struct XdpPacket {
    pub ctx: *mut xdp_md,
}

impl XdpPacket {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx }
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the program's context.
        unsafe { (*self.ctx).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: the program's context.
        unsafe { (*self.ctx).data_end as usize }
    }

    /// Ends the program.
    #[inline(always)]
    pub fn end(&self, verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Pass | Verdict::Names | Verdict::Neighbour(_) => xdp_action::XDP_PASS,
            Verdict::Drop => xdp_action::XDP_DROP,
            Verdict::Back => xdp_action::XDP_TX,
            Verdict::Transmit(device) => {
                // SAFETY: the program's context.
                if device == unsafe { (*self.ctx).ingress_ifindex } {
                    return xdp_action::XDP_TX;
                }
                // SAFETY: takes no memory.
                unsafe { bpf_redirect(device, 0) as u32 }
            }
            Verdict::Handover => {
                self.mark();
                xdp_action::XDP_PASS
            }
        }
    }

    /// Marks the packet for the tc program. A driver without metadata leaves it unmarked: the stack has it then.
    #[inline(always)]
    fn mark(&self) {
        // SAFETY: the program's context.
        if unsafe { bpf_xdp_adjust_meta(self.ctx, -(size_of::<u32>() as i32)) } != 0 {
            return;
        }
        // SAFETY: the program's context.
        let meta = unsafe { (*self.ctx).data_meta as usize };
        if meta + size_of::<u32>() <= self.data() {
            // SAFETY: just compared with the end of the metadata, which the kernel aligns to 4 bytes.
            unsafe { *(meta as *mut u32) = HANDOVER_MARK };
        }
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn len(&self) -> u32 {
        distance(self.data(), self.data_end()) as u32
    }

    #[inline(always)]
    fn ensure(&mut self, length: u32) -> bool {
        barrier();
        length <= self.len()
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
        // SAFETY: just compared with the end.
        unsafe { write(start, units) };
        true
    }

    #[inline(always)]
    fn checksums(&self) -> Checksums {
        Checksums::Look
    }

    #[inline(always)]
    fn update_checksum(&mut self, _change: &ChecksumChange) -> bool {
        false
    }

    #[inline(always)]
    fn resize(&mut self, length: u32) -> bool {
        let delta = length.wrapping_sub(self.len()) as i32;
        // SAFETY: the program's context.
        unsafe { bpf_xdp_adjust_tail(self.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn prepend(&mut self, length: u32) -> bool {
        // SAFETY: the program's context.
        unsafe { bpf_xdp_adjust_head(self.ctx, -(length as i32)) == 0 }
    }

    #[inline(always)]
    fn forget(value: u64) -> u64 {
        forget(value)
    }
}

impl<A: FibAddress> Router<A> for XdpPacket {
    #[inline(always)]
    fn route(&mut self, query: &RouteQuery<A>, hop: &mut Hop) -> Via {
        // SAFETY: the program's context.
        let device = unsafe { (*self.ctx).ingress_ifindex };
        // SAFETY: the program's context.
        let found = unsafe { fib(self.ctx.cast(), device, query.length, query, hop) };
        match found {
            // A tunnel, a bridge, a VLAN, a bond, and most drivers without a program of their own drop what XDP sends them.
            Fib::Known if hop.device != device && NICS.get_ptr(&hop.device).is_none() => Via::Handover,
            Fib::Known => Via::Link,
            // Whatever else there is to do, the stack does it, and only tc can make it.
            Fib::NoNeighbour | Fib::TooBig | Fib::Other => Via::Handover,
        }
    }

    #[inline(always)]
    fn may_send(&self, config: &Config) -> bool {
        config.flags & config_flags::NIC_REDIRECT != 0
    }
}
