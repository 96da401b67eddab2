//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo requests to virtual addresses, and errors about packets of tracked flows.
//!
//! An error quotes the packet it is about. With the two ends of that exchanged it is a packet of the other half, so the
//! other half's entry says how addresses and ports are to be seen on the other side, outside and in the quote. The outer
//! source is translated only where it is the peer itself: a router on the way stays who it is.

use eastwest_abi::{ConntrackKey, conntrack_flags as flags, counter, direction};

use crate::address::Address;
use crate::checksum::{self, Sum};
use crate::parse::{Parsed, kind};
use crate::rewrite::{note_fragment, set_ttl, turn_around};
use crate::traits::{Maps, NotWritten, Packet, Verdict};
use crate::wire::{ETHERNET, ICMP, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, checksum_offset, icmp};
use crate::work::Work;

/// Time to live of an echo reply.
const TTL: u8 = 64;

/// Where the quoted packet of an error lies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quote<A> {
    /// Who sends the error.
    pub sender: A,
    /// Offset of the quoted network header.
    pub ip: u32,
    /// Offset of the quoted transport header.
    pub l4: u32,
    /// Where the message ends.
    pub end: u32,
}

/// Reads a message that is no later fragment. Of an error the flow's key becomes that of the packets which the quoted one
/// answers.
#[inline(never)]
pub fn read<A: Address, P: Packet>(packet: &mut P, work: &mut Work<A>) -> Parsed {
    let at = work.flow.l4 as usize;
    let end = work.flow.l4.wrapping_add(work.flow.l4_length);
    if work.flow.l4_length < ICMP as u32 || !packet.ensure((at + ICMP) as u32) {
        return Parsed::Malformed;
    }
    let Some([message]) = packet.load::<u8, 1>(at) else { return Parsed::Malformed };
    if message == if A::IPV6 { icmp::ECHO6 } else { icmp::ECHO4 } {
        return Parsed::Echo;
    }
    let error = if A::IPV6 { matches!(message, 1..=4) } else { matches!(message, 3 | 11 | 12) };
    if !error || work.flow.kind != kind::WHOLE {
        return Parsed::Other;
    }
    if !A::unwrap(packet, at + ICMP, &mut work.headers) {
        return Parsed::Other;
    }
    let (flow, headers) = (&mut work.flow, &work.headers);
    let l4 = headers.l4 as usize;
    let known = matches!(headers.protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP)
        && headers.kind != kind::LATER;
    // An error goes to who sent the packet. As much of it is quoted at least.
    if !known || !headers.saddr.same(flow.key.daddr) || headers.l4 + 8 > end || !packet.ensure(headers.l4 + 8)
    {
        return Parsed::Other;
    }
    let Some([sport, dport]) = packet.load::<u16, 2>(l4) else { return Parsed::Other };
    work.quote = Quote { sender: flow.key.saddr, ip: (at + ICMP) as u32, l4: headers.l4, end };
    flow.key = ConntrackKey {
        saddr: headers.daddr,
        daddr: headers.saddr,
        sport: dport,
        dport: sport,
        protocol: headers.protocol,
        direction: direction::FORWARD,
        pad: 0,
    };
    flow.kind = kind::ERROR;
    // For the quoted checksum, where it is quoted.
    let _ = packet.ensure(headers.l4 + 18);
    Parsed::Error
}

/// Finds the flow of an error at the device of the pod that sends it, as of a client, of a pod that calls itself, or of a
/// backend for whose client the node stands in.
#[inline(never)]
pub fn of_pod<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> bool {
    of_half(maps, work, direction::FORWARD, 0, 0)
        || of_half(maps, work, direction::REVERSE, flags::HAIRPIN, 0)
        || of_half(maps, work, direction::REVERSE, flags::MASQUERADE, 0)
}

/// Finds the flow of an error by one half of it, if it has all of `wanted` flags and none of `unwanted`.
#[inline(never)]
pub fn of_half<A: Address, M: Maps<A>>(
    maps: &mut M,
    work: &mut Work<A>,
    direction: u8,
    wanted: u16,
    unwanted: u16,
) -> bool {
    work.flow.key.direction = direction;
    let Some(value) = maps.track(&work.flow.key) else { return false };
    work.value = *value;
    if work.value.flags & (wanted | unwanted) != wanted {
        return false;
    }
    maps.count(counter::ICMP_ERROR);
    true
}

/// Gives an error the addresses and ports of `value`, outside and in its quote.
#[inline(never)]
pub fn rewrite<A: Address, P: Packet>(packet: &mut P, work: &Work<A>) -> Result<(), NotWritten> {
    write(packet, work).ok_or(NotWritten::Failed)
}

#[inline(always)]
fn write<A: Address, P: Packet>(packet: &mut P, work: &Work<A>) -> Option<()> {
    let (key, value, quote) = (&work.flow.key, &work.value, &work.quote);
    let source = if quote.sender.same(key.saddr) { value.saddr } else { quote.sender };
    let outer = change(key.daddr.sum(quote.sender.sum(Sum::ZERO)), value.daddr.sum(source.sum(Sum::ZERO)));
    let inner = change(key.daddr.sum(key.saddr.sum(Sum::ZERO)), value.daddr.sum(value.saddr.sum(Sum::ZERO)));
    let ports = change(
        Sum::ZERO.add(key.sport.into()).add(key.dport.into()),
        Sum::ZERO.add(value.sport.into()).add(value.dport.into()),
    );
    // What changes in the message and, with IPv6, in its pseudo header.
    let mut message = ports;
    if A::IPV6 {
        message = message.join(outer).join(inner);
    } else {
        // The quoted header's own checksum makes up for the addresses.
        update(packet, ETHERNET + 10, outer)?;
        update(packet, quote.ip as usize + 10, inner)?;
    }
    done(A::store_addresses(packet, ETHERNET, source, value.daddr))?;
    done(A::store_addresses(packet, quote.ip as usize, value.daddr, value.saddr))?;
    done(packet.store(quote.l4 as usize, &[value.dport, value.sport]))?;

    let at = quote.l4 as usize + checksum_offset(key.protocol);
    // SCTP's covers the whole packet, of which a part is quoted.
    if key.protocol != PROTOCOL_SCTP
        && at + 2 <= quote.end as usize
        && let Some([field]) = packet.load::<u16, 1>(at)
        && (field != 0 || key.protocol != PROTOCOL_UDP)
    {
        let mut fresh = checksum::updated(field, inner.join(ports));
        if fresh == 0 && key.protocol == PROTOCOL_UDP {
            fresh = 0xffff;
        }
        message = message.add(fresh.into()).add(u32::from(!field));
        done(packet.store(at, &[fresh]))?;
    }
    update(packet, work.flow.l4 as usize + 2, message)
}

/// The change from one sum to another.
#[inline(always)]
fn change(old: Sum, new: Sum) -> Sum {
    new.add(u32::from(!old.fold()))
}

#[inline(always)]
fn update<P: Packet>(packet: &mut P, at: usize, change: Sum) -> Option<()> {
    let [field] = packet.load::<u16, 1>(at)?;
    done(packet.store(at, &[checksum::updated(field, change)]))
}

/// Turns an echo request for a virtual address into its reply. All fragments of one go the same way.
#[inline(always)]
pub fn reply<A: Address, M: Maps<A>, P: Packet>(maps: &mut M, packet: &mut P, work: &mut Work<A>) -> Verdict {
    if work.flow.kind == kind::FIRST {
        note_fragment(maps, work);
    }
    if write_reply(packet, work).is_none() {
        maps.count(counter::WRITE_FAILED);
        return Verdict::Drop;
    }
    maps.count(counter::ECHO);
    Verdict::Back
}

#[inline(always)]
fn write_reply<A: Address, P: Packet>(packet: &mut P, work: &Work<A>) -> Option<()> {
    let flow = &work.flow;
    if flow.kind != kind::LATER {
        let at = flow.l4 as usize;
        let [before, field] = packet.load::<u16, 2>(at)?;
        let [message, code] = before.to_ne_bytes();
        let message = if A::IPV6 { message.wrapping_add(1) } else { 0 };
        let after = u16::from_ne_bytes([message, code]);
        let change = Sum::ZERO.add(after.into()).add(u32::from(!before));
        done(packet.store(at, &[after, checksum::updated(field, change)]))?;
    }
    done(A::store_addresses(packet, ETHERNET, flow.key.daddr, flow.key.saddr))?;
    done(set_ttl::<A, P>(packet, TTL))?;
    done(turn_around(packet))
}

#[inline(always)]
fn done(written: bool) -> Option<()> {
    written.then_some(())
}
