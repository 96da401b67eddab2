//! A packet under a tc program.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT};
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head,
    bpf_skb_change_tail, bpf_skb_pull_data,
};
use aya_ebpf::programs::TcContext;
use eastwest_abi::Config;
use eastwest_packet::checksum::{Sum, updated, updated_partial};
use eastwest_packet::wire::{PROTOCOL_UDP, VLAN, checksum_offset};
use eastwest_packet::{ChecksumChange, Checksums, Hop, Packet, RouteQuery, Router, Unit, Verdict, Via};

use crate::access::{barrier, forget, near, read, write};
use crate::kernel::{Fib, FibAddress, HANDOVER_MARK, fib};

/// `TCX_NEXT`, which is `TC_ACT_UNSPEC`: as if we were not there.
pub const GO_ON: i32 = -1;

/// `BPF_F_IPV6` of `bpf_l4_csum_replace` (6.16): the network header has no checksum that makes up for the addresses.
const BPF_F_IPV6: u64 = 1 << 7;

/// The packet.
pub struct TcPacket {
    pub skb: *mut __sk_buff,
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

    /// Whether the packet is a VLAN's, whose own device may have hooks.
    #[inline(always)]
    pub fn is_of_vlan(&self) -> bool {
        // SAFETY: the program's context.
        unsafe { (*self.skb).vlan_present != 0 && (*self.skb).vlan_tci & u32::from(VLAN) != 0 }
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

    /// Updates a checksum that may be partial: the kernel knows.
    #[inline(always)]
    fn replace_checksum(&mut self, change: &ChecksumChange, before: u16) -> bool {
        let at = change.l4 + checksum_offset(change.protocol);
        let mut flags = 0;
        if change.protocol == PROTOCOL_UDP {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        let mut address_flags = flags | u64::from(BPF_F_PSEUDO_HDR);
        if change.tell_ipv6 {
            address_flags |= BPF_F_IPV6;
        }
        let addresses = change.addresses.fold();
        let ports = change.ports.fold();
        // SAFETY: the program's context.
        if unsafe { bpf_l4_csum_replace(self.skb, at as u32, 0, addresses.into(), address_flags) } != 0 {
            return false;
        }
        if addresses == 0 || addresses == 0xffff {
            // SAFETY: the program's context.
            return unsafe { bpf_l4_csum_replace(self.skb, at as u32, 0, ports.into(), flags) == 0 };
        }
        // The helper has added to a partial checksum and subtracted from a full one; only the latter covers the ports. A
        // second call would cost more than to look which.
        let Some([after]) = self.load::<u16, 1>(at) else { return false };
        if before == 0 && change.protocol == PROTOCOL_UDP
            || same(after, updated_partial(before, Sum::ZERO.add(addresses.into())))
        {
            return true;
        }
        let fresh = updated(after, Sum::ZERO.add(ports.into()));
        self.store(at, &[unless_zero(change.protocol, fresh)])
    }

    /// Ends the program.
    #[inline(always)]
    pub fn end(&self, verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass | Verdict::Names | Verdict::Handover => GO_ON,
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

/// Whether two ones' complement numbers are the same: 0 has two forms.
#[inline(always)]
fn same(a: u16, b: u16) -> bool {
    a == b || a.wrapping_add(b) == u16::MAX && (a == 0 || b == 0)
}

/// A checksum as it is written: in UDP a computed 0 in its other form, as 0 means none.
#[inline(always)]
fn unless_zero(protocol: u8, checksum: u16) -> u16 {
    if protocol == PROTOCOL_UDP && checksum == 0 { 0xffff } else { checksum }
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
        let at = change.l4 + checksum_offset(change.protocol);
        let Some([field]) = self.load::<u16, 1>(at) else { return false };
        // SAFETY: the program's context.
        if field == change.pseudo.fold() || unsafe { (*self.skb).gso_size } != 0 {
            return self.replace_checksum(change, field);
        }
        if change.protocol == PROTOCOL_UDP && field == 0 {
            // The sender computed none.
            return true;
        }
        if !change.ipv6 {
            // What a card has summed up, if it has. Over IPv6 the checksum makes up for all that changes; here the network
            // header's makes up for the addresses too.
            let less = !change.addresses.fold();
            // SAFETY: the program's context. It fails where there is no such sum.
            unsafe { bpf_csum_update(self.skb, less.into()) };
        }
        let fresh = updated(field, change.addresses.join(change.ports));
        self.store(at, &[unless_zero(change.protocol, fresh)])
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
