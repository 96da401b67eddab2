//! At a NIC.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::pod::GO_ON;

#[xdp]
pub fn nic_ingress_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[classifier]
pub fn nic_ingress_tc(_ctx: TcContext) -> i32 {
    GO_ON
}

#[classifier]
pub fn nic_egress_tc(_ctx: TcContext) -> i32 {
    GO_ON
}

#[classifier]
pub fn nic_handover_tc(_ctx: TcContext) -> i32 {
    GO_ON
}
