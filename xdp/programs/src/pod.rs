//! At the host side of a pod's veth.

use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use eastwest_abi::{Addr4, Addr6};
use eastwest_packet::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use eastwest_packet::{Address, Maps, Named, Packet, Router, Verdict, pod_egress, pod_ingress};

use crate::kernel::{Kernel, Memory};
use crate::link::{ethertype, other};
use crate::names::{Caller, names};
use crate::tc::{GO_ON, TcPacket};
use crate::xdp::XdpPacket;

#[inline(always)]
fn ingress<P: Caller + Router<Addr4> + Router<Addr6>>(packet: &mut P) -> Verdict {
    match ethertype(packet) {
        ETHERTYPE_IPV4 => ingress_of::<Addr4, P>(packet),
        ETHERTYPE_IPV6 => ingress_of::<Addr6, P>(packet),
        ethertype => other(packet, ethertype),
    }
}

#[inline(always)]
fn ingress_of<A: Memory + Named, P: Caller + Router<A>>(packet: &mut P) -> Verdict
where
    Kernel: Maps<A>,
{
    let Some(work) = A::work() else { return Verdict::Pass };
    match pod_ingress(&mut Kernel, packet, work) {
        Verdict::Names => names::<A, P>(packet),
        verdict => verdict,
    }
}

#[inline(always)]
fn egress_of<A: Memory + Address, P: Packet>(packet: &mut P) -> Verdict
where
    Kernel: Maps<A>,
{
    let Some(work) = A::work() else { return Verdict::Pass };
    pod_egress(&mut Kernel, packet, work)
}

#[xdp]
#[inline(always)]
pub fn pod_ingress_xdp(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    let verdict = ingress(&mut packet);
    packet.end(verdict)
}

#[classifier]
#[inline(always)]
pub fn pod_ingress_tc(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::new(&ctx);
    let verdict = ingress(&mut packet);
    packet.end(verdict)
}

#[classifier]
#[inline(always)]
pub fn pod_egress_tc(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::new(&ctx);
    let verdict = match ethertype(&mut packet) {
        ETHERTYPE_IPV4 => egress_of::<Addr4, _>(&mut packet),
        ETHERTYPE_IPV6 => egress_of::<Addr6, _>(&mut packet),
        _ => Verdict::Pass,
    };
    packet.end(verdict)
}

#[classifier]
#[inline(always)]
pub fn pod_handover_tc(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::new(&ctx);
    if !packet.is_handed_over() {
        return GO_ON;
    }
    let verdict = ingress(&mut packet);
    packet.end(verdict)
}
