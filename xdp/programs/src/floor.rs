//! What measurements need: programs that do nothing, or a part of what others do, and a source and a sink of packets. None
//! of them is attached but by a measurement.

use core::ptr::read_volatile;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use eastwest_abi::{Addr4, Addr6};
use eastwest_packet::checksum::{Sum, updated};
use eastwest_packet::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use eastwest_packet::{Packet, Verdict, floor};

use crate::kernel::{Kernel, Memory};
use crate::link::ethertype;
use crate::tc::TcPacket;
use crate::xdp::XdpPacket;

#[xdp]
pub fn empty_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    crate::tc::GO_ON
}

/// The headers that `send_xdp` writes: Ethernet, IPv4 and UDP, with source port 0 and two bytes of payload.
#[unsafe(no_mangle)]
static SEND: [u32; 11] = [0; 11];

/// How many source ports, from 1024 on, it takes in turn by chance.
#[unsafe(no_mangle)]
static SEND_FLOWS: u32 = 1;

/// Makes the packets of a live test-run (`BPF_F_TEST_XDP_LIVE_FRAMES`) and sends them out.
#[xdp]
pub fn send_xdp(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    // SAFETY: statics of our own; volatile, as they are set before the program is loaded.
    let (headers, flows) = unsafe { (read_volatile(&raw const SEND), read_volatile(&raw const SEND_FLOWS)) };
    // SAFETY: takes and touches nothing.
    let chance = unsafe { bpf_get_prandom_u32() };
    let nth = (u64::from(chance) * u64::from(flows)) >> 32;
    let port = (1024 + nth as u16).to_be();
    let [a, b, ..] = headers[10].to_ne_bytes();
    let sum = updated(u16::from_ne_bytes([a, b]), Sum::ZERO.add(port.into()));
    if packet.ensure(44) && packet.store(0, &headers) && packet.store(34, &[port]) && packet.store(40, &[sum])
    {
        return xdp_action::XDP_TX;
    }
    xdp_action::XDP_ABORTED
}

/// Drops all.
#[xdp]
pub fn sink_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// A part of both families.
macro_rules! part {
    ($xdp:ident, $tc:ident, |$packet:ident, $work:ident| $part:expr) => {
        #[xdp]
        pub fn $xdp(ctx: XdpContext) -> u32 {
            let $packet = &mut XdpPacket::new(&ctx);
            let verdict = part!(@ $packet, $work, $part);
            $packet.end(verdict)
        }

        #[classifier]
        pub fn $tc(ctx: TcContext) -> i32 {
            let $packet = &mut TcPacket::new(&ctx);
            let verdict = part!(@ $packet, $work, $part);
            $packet.end(verdict)
        }
    };
    (@ $packet:ident, $work:ident, $part:expr) => {
        match ethertype($packet) {
            ETHERTYPE_IPV4 => Addr4::work().map_or(Verdict::Pass, |$work| $part),
            ETHERTYPE_IPV6 => Addr6::work().map_or(Verdict::Pass, |$work| $part),
            _ => Verdict::Pass,
        }
    };
}

part!(floor_parse_xdp, floor_parse_tc, |packet, work| floor::parse(packet, work));
part!(floor_look_up_xdp, floor_look_up_tc, |packet, work| floor::look_up(&mut Kernel, packet, work));
part!(floor_translate_xdp, floor_translate_tc, |packet, work| floor::translate(&mut Kernel, packet, work));
