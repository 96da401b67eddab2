//! Writes a translation into a packet.

use eastwest_abi::Fragment;

use crate::address::{Address, tells_ipv6};
use crate::checksum::{self, Kind, Sum};
use crate::icmp;
use crate::parse::kind;
use crate::sctp;
use crate::traits::{ChecksumChange, Checksums, Maps, NotWritten, Packet};
use crate::wire::{ETHERNET, PROTOCOL_SCTP, PROTOCOL_UDP, checksum_offset};
use crate::work::Work;

/// Gives the packet the addresses and ports of `value`. On `Ambiguous` it is as it was. `leaves`: it is sent on from
/// here, where its checksum must be full: XDP takes from a packet the mark that a device is to complete it.
#[inline(always)]
pub fn rewrite<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
    leaves: bool,
) -> Result<(), NotWritten> {
    if work.flow.kind != kind::WHOLE {
        if work.flow.kind == kind::ERROR {
            return icmp::rewrite(packet, work);
        }
        if work.flow.key.protocol == PROTOCOL_SCTP && work.flow.kind != kind::LATER {
            return association(maps, packet, work, leaves);
        }
        return fragment(maps, packet, work);
    }
    let change = change(maps, work);
    // The ambiguous case must be met before anything is written.
    if packet.checksums() == Checksums::Look {
        let at = change.l4 + checksum_offset(change.protocol);
        let Some([field]) = packet.load::<u16, 1>(at) else { return Err(NotWritten::Failed) };
        if field == change.pseudo.fold() {
            look(maps, packet, work, leaves)?;
        } else {
            full(packet, &change, field)?;
        }
    }
    network(packet, work, &change)?;
    transport(packet, work, &change)
}

/// A fragment. Of a fragmented packet the checksum is always full, and in its first one.
#[inline(never)]
fn fragment<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Result<(), NotWritten> {
    let change = change(maps, work);
    if work.flow.kind != kind::FIRST {
        return network(packet, work, &change);
    }
    note_fragment(maps, work);
    if packet.checksums() == Checksums::Look {
        let at = change.l4 + checksum_offset(change.protocol);
        let Some([field]) = packet.load::<u16, 1>(at) else { return Err(NotWritten::Failed) };
        full(packet, &change, field)?;
    }
    network(packet, work, &change)?;
    transport(packet, work, &change)
}

/// A packet of SCTP, or the first fragment of one.
#[inline(never)]
fn association<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
    leaves: bool,
) -> Result<(), NotWritten> {
    if work.flow.kind == kind::FIRST {
        note_fragment(maps, work);
    }
    let change = change(maps, work);
    sctp::update(packet, work, leaves)?;
    network(packet, work, &change)?;
    let written = packet.store(change.l4, &[work.value.ports()]);
    if written { Ok(()) } else { Err(NotWritten::Failed) }
}

/// How the sums change.
#[inline(always)]
fn change<A: Address, M: Maps<A>>(maps: &M, work: &Work<A>) -> ChecksumChange {
    let (flow, value) = (&work.flow, &work.value);
    let key = &flow.key;
    let old = key.daddr.sum(key.saddr.sum(Sum::ZERO));
    let new = value.daddr.sum(value.saddr.sum(Sum::ZERO));
    ChecksumChange {
        l4: flow.l4 as usize,
        length: flow.l4_length,
        protocol: key.protocol,
        pseudo: old.join(checksum::pseudo(key.protocol, flow.l4_length)),
        addresses: new.minus(old),
        ports: Sum::ZERO.add(value.ports()).minus(Sum::ZERO.add(key.ports())),
        ipv6: A::IPV6,
        tell_ipv6: A::IPV6 && maps.config().is_some_and(tells_ipv6),
    }
}

/// Writes the network header.
#[inline(always)]
fn network<A: Address, P: Packet>(
    packet: &mut P,
    work: &Work<A>,
    change: &ChecksumChange,
) -> Result<(), NotWritten> {
    if !A::IPV6 {
        let Some([field]) = packet.load::<u16, 1>(ETHERNET + 10) else { return Err(NotWritten::Failed) };
        if !packet.store(ETHERNET + 10, &[checksum::updated(field, change.addresses)]) {
            return Err(NotWritten::Failed);
        }
    }
    let written = A::store_addresses(packet, ETHERNET, work.value.saddr, work.value.daddr);
    if written { Ok(()) } else { Err(NotWritten::Failed) }
}

/// Writes the transport header, all but a checksum that was written by now.
#[inline(always)]
fn transport<A: Address, P: Packet>(
    packet: &mut P,
    work: &Work<A>,
    change: &ChecksumChange,
) -> Result<(), NotWritten> {
    let written = packet.store(change.l4, &[work.value.ports()])
        && (packet.checksums() == Checksums::Look || packet.update_checksum(change));
    if written { Ok(()) } else { Err(NotWritten::Failed) }
}

/// Updates a full checksum.
#[inline(always)]
fn full<P: Packet>(packet: &mut P, change: &ChecksumChange, field: u16) -> Result<(), NotWritten> {
    if change.protocol == PROTOCOL_UDP && field == 0 {
        // The sender computed none.
        return Ok(());
    }
    let fresh = checksum::updated(field, change.addresses.join(change.ports));
    // In UDP a computed 0 is written as its other form, as 0 means none.
    let fresh = if change.protocol == PROTOCOL_UDP && fresh == 0 { 0xffff } else { fresh };
    let at = change.l4 + checksum_offset(change.protocol);
    if packet.store(at, &[fresh]) { Ok(()) } else { Err(NotWritten::Failed) }
}

/// Updates a checksum that may be partial, of which only the packet itself says what it is.
#[inline(never)]
fn look<A: Address, M: Maps<A>, P: Packet>(
    maps: &M,
    packet: &mut P,
    work: &Work<A>,
    leaves: bool,
) -> Result<(), NotWritten> {
    let change = change(maps, work);
    let at = change.l4 + checksum_offset(change.protocol);
    let Some([field]) = packet.load::<u16, 1>(at) else { return Err(NotWritten::Failed) };
    if change.protocol == PROTOCOL_UDP && field == 0 {
        return Ok(());
    }
    if leaves {
        return Err(NotWritten::Ambiguous);
    }
    match checksum::inspect(packet, &change, field) {
        None => Err(NotWritten::Failed),
        Some(Kind::Either) => Err(NotWritten::Ambiguous),
        Some(Kind::Full) => full(packet, &change, field),
        Some(Kind::Partial) => {
            let fresh = checksum::updated_partial(field, change.addresses);
            if packet.store(at, &[fresh]) { Ok(()) } else { Err(NotWritten::Failed) }
        }
    }
}

/// Exchanges the link addresses.
#[inline(always)]
#[must_use]
pub fn turn_around<P: Packet>(packet: &mut P) -> bool {
    let Some([d0, d1, d2, s0, s1, s2]) = packet.load::<u16, 6>(0) else { return false };
    packet.store(0, &[s0, s1, s2, d0, d1, d2])
}

/// Lets the packet's later fragments find its ports.
#[inline(never)]
pub fn note_fragment<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) {
    let key = &work.flow.key;
    work.ports = Fragment { sport: key.sport, dport: key.dport, protocol: key.protocol, pad: [0; 3] };
    maps.fragment_insert(&work.fragment, &work.ports);
}

/// Sets the time to live or the hop limit.
#[inline(always)]
#[must_use]
pub fn set_ttl<A: Address, P: Packet>(packet: &mut P, ttl: u8) -> bool {
    if A::IPV6 {
        return packet.store(ETHERNET + 7, &[ttl]);
    }
    let Some([before, field]) = packet.load::<u16, 2>(ETHERNET + 8) else { return false };
    let after = u16::from_ne_bytes([ttl, before.to_ne_bytes()[1]]);
    let change = Sum::ZERO.add(after.into()).add(u32::from(!before));
    packet.store(ETHERNET + 8, &[after, checksum::updated(field, change)])
}
