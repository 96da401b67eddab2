//! The BPF entry points. Thin: what happens to a packet is decided in `eastwest_packet`, which also runs on the host.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "llvm.is.constant has no other name")]

mod access;
mod events;
mod floor;
mod kernel;
mod link;
mod maps;
mod names;
mod nic;
mod pod;
mod socket;
mod tc;
mod xdp;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
