//! What happens to a packet: parse, look up, choose, track, rewrite, refuse.
//!
//! One source for the kernel and the host. The decisions are generic over three things: the address family
//! ([`Address`]), the tables ([`Maps`]) and the packet ([`Packet`]). In the kernel these are BPF maps and the packet
//! under an XDP or tc program (`xdp/programs`); on the host they are hash tables and a `Vec<u8>` (feature `host`),
//! which tests and traces use. This crate knows no map, no helper, no clock.
//!
//! Entry points: [`pod_ingress`] and [`pod_egress`] at the device of a pod, [`nic_ingress`] and [`nic_egress`] at a NIC.

#![cfg_attr(not(any(test, feature = "host")), no_std)]

mod address;
mod cache;
pub mod checksum;
mod choose;
pub mod floor;
mod hard;
mod headers;
#[cfg(any(test, feature = "host"))]
pub mod host;
mod icmp;
mod names;
mod nic;
mod parse;
mod pod;
mod refuse;
mod rewrite;
mod sctp;
mod track;
mod traits;
#[cfg(any(test, feature = "vectors"))]
pub mod vectors;
pub mod wire;
mod work;

pub use address::Address;
pub use cache::{Kept, number};
pub use choose::{Owner, holds};
pub use names::{Asked, Bulk, NameMaps, Named, Told, answer, asks, elsewhere, lives, lower};
pub use nic::{nic_egress, nic_ingress};
pub use parse::{Flow, Parsed};
pub use pod::{pod_egress, pod_ingress};
pub use traits::{
    ChecksumChange, Checksums, Hop, Insert, Maps, NotWritten, Packet, RouteQuery, Router, Unit, Verdict, Via,
};
pub use work::Work;
