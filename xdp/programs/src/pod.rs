//! At the host side of a pod's veth.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// `TCX_NEXT`, which is `TC_ACT_UNSPEC`: as if we were not there.
pub const GO_ON: i32 = -1;

#[xdp]
pub fn pod_ingress_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[classifier]
pub fn pod_ingress_tc(_ctx: TcContext) -> i32 {
    GO_ON
}

#[classifier]
pub fn pod_egress_tc(_ctx: TcContext) -> i32 {
    GO_ON
}

#[classifier]
pub fn pod_handover_tc(_ctx: TcContext) -> i32 {
    GO_ON
}
