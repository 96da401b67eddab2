//! What the decisions stand on: tables, a packet, a routing table. And what comes out of them.

use eastwest_abi::{
    Affinity, AffinityKey, Backend, Config, Conntrack, ConntrackKey, Fragment, FragmentKey, Frontend,
};

use crate::address::Address;
use crate::cache::Kept;
use crate::checksum::Sum;

/// What is to be done with the packet now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the stack, translated or untouched.
    Pass,
    /// Away with it; a counter says why.
    Drop,
    /// Out of the device it came from; the link addresses are exchanged already.
    Back,
    /// Out of this device; the link addresses are written already.
    Transmit(u32),
    /// Out of this device; the stack finds the neighbour.
    Neighbour(u32),
    /// Untouched to the tc program behind this XDP program, which can do what XDP cannot.
    Handover,
    /// It may be a question for the node's DNS, which is then dealt with by the functions of `names`; else as `Pass`.
    Names,
}

/// The tables of one family, and the surroundings.
pub trait Maps<A: Address> {
    /// The node's settings.
    fn config(&self) -> Option<&Config>;
    /// A frontend.
    fn frontend(&self, key: &A::FrontendKey) -> Option<Frontend>;
    /// Whether this is a backend's address and port.
    fn is_endpoint(&self, key: &A::EndpointKey) -> bool;
    /// The backend id in a slot.
    fn slot(&self, index: u32) -> Option<u32>;
    /// A backend.
    fn backend(&self, id: u32) -> Option<Backend>;
    /// Whether a client is on a list (`Source::list`).
    fn is_source(&self, list: u32, addr: A) -> bool;
    /// A half of a tracked flow.
    fn track(&mut self, key: &ConntrackKey<A>) -> Option<&mut Conntrack<A>>;
    /// Adds a half, or with `only_new` false replaces it.
    fn track_insert(&mut self, key: &ConntrackKey<A>, value: &Conntrack<A>, only_new: bool) -> Insert;
    /// Removes a half, if it is there.
    fn track_remove(&mut self, key: &ConntrackKey<A>);
    /// A place of this CPU's for a half of a flow, below `cache::PLACES`.
    fn kept(&mut self, place: u32) -> Option<&mut Kept<A>>;
    /// Changes of the table at a key's number, below `cache::COUNTS`.
    fn count_of(&self, number: u32) -> u32;
    /// Counts a change of the table, on all CPUs.
    fn count_on(&mut self, number: u32);
    /// How often a part of the table was added; see `globals::TURN`.
    fn turns(&self) -> u32;
    /// The backend that a client was given.
    fn affinity(&self, key: &AffinityKey<A>) -> Option<Affinity>;
    /// Notes the backend that a client is given.
    fn affinity_insert(&mut self, key: &AffinityKey<A>, value: &Affinity);
    /// Ports of the first fragment.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment>;
    /// Notes the ports of a first fragment.
    fn fragment_insert(&mut self, key: &FragmentKey<A>, value: &Fragment);
    /// Any number.
    fn random(&mut self) -> u32;
    /// The time in units of `Conntrack::seen`.
    fn now(&self) -> u32;
    /// Changes whenever [`now`](Self::now) may, and costs less.
    fn tick(&self) -> u64;
    /// The time in units of `Affinity::seen`.
    fn clock(&self) -> u32;
    /// Counts one of `eastwest_abi::counter`.
    fn count(&mut self, counter: u32);
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It is there now.
    Done,
    /// The key was there; nothing changed.
    Exists,
    /// The table could not take it.
    Full,
}

/// A packet from its Ethernet header on, and nothing beyond its end.
pub trait Packet {
    /// Bytes in the packet.
    fn len(&self) -> u32;
    /// Whether the packet has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Makes the first `length` bytes available to [`load`](Self::load) and [`store`](Self::store), where they are not
    /// already. False when there are not so many.
    fn ensure(&mut self, length: u32) -> bool;
    /// The `N` units at `at`.
    fn load<U: Unit, const N: usize>(&self, at: usize) -> Option<[U; N]>;
    /// Writes the units at `at`; false when they do not lie in the packet.
    #[must_use]
    fn store<U: Unit, const N: usize>(&mut self, at: usize, units: &[U; N]) -> bool;
    /// Who knows whether a checksum is partial.
    fn checksums(&self) -> Checksums;
    /// Updates the checksum of TCP or UDP; for `Checksums::Kernel` only.
    #[must_use]
    fn update_checksum(&mut self, change: &ChecksumChange) -> bool;
    /// Makes the packet this long, at its end.
    #[must_use]
    fn resize(&mut self, length: u32) -> bool;
    /// Puts `N` bytes before the packet; they are zero or anything.
    #[must_use]
    fn prepend(&mut self, length: u32) -> bool;
    /// The value as it is. Where a verifier follows the program, it must forget what it knows of the value: then what comes
    /// behind a loop is looked at once, not once more for each number of turns.
    #[inline(always)]
    fn forget(value: u64) -> u64 {
        value
    }
}

/// What a packet is read and written by, in the memory's byte order: 1, 2 or 4 bytes at once. The kernel's side makes
/// one instruction of each, where a byte array would be put together byte by byte.
pub trait Unit: Copy + Default {
    /// Reads from the first bytes, which are enough.
    fn read(bytes: &[u8]) -> Self;
    /// Writes to the first bytes, which are enough.
    fn write(self, bytes: &mut [u8]);
}

macro_rules! unit {
    ($($ty:ty)*) => {$(
        impl Unit for $ty {
            #[inline(always)]
            fn read(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$ty>()];
                own.copy_from_slice(&bytes[..size_of::<$ty>()]);
                <$ty>::from_ne_bytes(own)
            }

            #[inline(always)]
            fn write(self, bytes: &mut [u8]) {
                bytes[..size_of::<$ty>()].copy_from_slice(&self.to_ne_bytes());
            }
        }
    )*};
}

unit!(u8 u16 u32);

/// Who knows whether a checksum is partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Nobody: look at the packet (XDP).
    Look,
    /// The kernel does, and updates it (tc).
    Kernel,
}

/// A change of what a TCP or UDP checksum covers.
#[derive(Clone, Copy, Debug)]
pub struct ChecksumChange {
    /// Offset of the TCP or UDP header.
    pub l4: usize,
    /// Bytes from there that the checksum covers.
    pub length: u32,
    pub protocol: u8,
    /// Sum of the old pseudo header.
    pub pseudo: Sum,
    /// Change of the addresses, which are in the pseudo header.
    pub addresses: Sum,
    /// Change of the ports, which are in the segment.
    pub ports: Sum,
    pub ipv6: bool,
    /// The kernel must be told that it is IPv6.
    pub tell_ipv6: bool,
}

/// Why a packet was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWritten {
    /// Its checksum may be partial or full, or is partial where it must not be. Nothing was written.
    Ambiguous,
    /// A write was refused; the packet is spoilt.
    Failed,
}

/// The routing table, for packets that a NIC sends on.
pub trait Router<A: Address> {
    /// How to send a packet with these addresses, and where to.
    fn route(&mut self, query: &RouteQuery<A>, hop: &mut Hop) -> Via;
    /// Whether this program may send packets on by itself (`config_flags::NIC_REDIRECT`), or leaves that to tc.
    fn may_send(&self, config: &Config) -> bool;
}

/// What a route is asked for.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<A> {
    pub saddr: A,
    pub daddr: A,
    /// Network order.
    pub sport: u16,
    /// Network order.
    pub dport: u16,
    pub protocol: u8,
    /// Length of the packet from its network header on. A super-packet of the kernel may be longer than the route takes:
    /// XDP hands it over then, and tc asks for a segment of it.
    pub length: u16,
    /// Bytes of this before the payload of TCP or UDP.
    pub headers: u16,
    /// The first 4 bytes of the network header: traffic class, flow label.
    pub first_word: u32,
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hop {
    /// Index of the device it leaves by.
    pub device: u32,
    /// Link addresses: the destination's, then the source's.
    pub link: [u16; 6],
    /// With `Via::TooBig` how long it may be, in bytes from the network header on.
    pub mtu: u32,
}

/// How to send a packet on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// Out of the hop's device, with its link addresses.
    Link,
    /// Out of the hop's device, where the stack finds the neighbour.
    Neighbour,
    /// tc must do it: the neighbour is not known.
    Handover,
    /// Not at all: it is longer than the route takes.
    TooBig,
    /// The stack shall see what to do.
    #[default]
    Stack,
}
