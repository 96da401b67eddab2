//! What the fast path leaves: fragments, IPv6 extension headers, ICMP. Out of its way, as one packet in thousands is such.

use eastwest_abi::{FragmentKey, counter, direction};

use crate::address::Address;
use crate::choose::{Owner, owner};
use crate::headers::whole;
use crate::icmp;
use crate::parse::{Parsed, kind, transport};
use crate::traits::{Maps, Packet, Verdict};
use crate::wire::{ETHERNET, PROTOCOL_ICMP, PROTOCOL_ICMPV6};
use crate::work::Work;

/// Reads a packet; what needs more than the fast path too.
#[inline(always)]
pub fn parse<A: Address, M: Maps<A>, P: Packet>(maps: &mut M, packet: &mut P, work: &mut Work<A>) -> Parsed {
    match A::parse(packet, &mut work.flow) {
        Parsed::Hard => read(maps, packet, work),
        parsed => parsed,
    }
}

/// Reads a packet of which the fast path knows addresses and time to live.
#[inline(never)]
fn read<A: Address, M: Maps<A>, P: Packet>(maps: &mut M, packet: &mut P, work: &mut Work<A>) -> Parsed {
    if !A::unwrap(packet, ETHERNET, &mut work.headers) || !whole(packet, &work.headers) {
        return Parsed::Malformed;
    }
    let (flow, headers) = (&mut work.flow, &work.headers);
    flow.kind = headers.kind;
    flow.l4 = headers.l4;
    flow.l4_length = headers.length;
    flow.tcp_flags = 0;
    flow.key.protocol = headers.protocol;
    flow.key.direction = direction::FORWARD;
    flow.key.pad = 0;
    if headers.kind != kind::WHOLE {
        work.fragment = FragmentKey {
            saddr: headers.saddr,
            daddr: headers.daddr,
            id: headers.id,
            carrier: headers.carrier,
            pad: [0; 3],
        };
    }
    if headers.kind == kind::LATER {
        let Some(first) = maps.fragment(&work.fragment) else { return Parsed::Lost };
        flow.key.protocol = first.protocol;
        flow.key.sport = first.sport;
        flow.key.dport = first.dport;
        return if first.protocol == protocol::<A>() { Parsed::Echo } else { Parsed::Flow };
    }
    if headers.protocol == protocol::<A>() {
        return icmp::read(packet, work);
    }
    let (l4, length) = (flow.l4 as usize, flow.l4_length);
    transport(packet, flow, l4, length)
}

/// ICMP's protocol number in a family.
#[inline(always)]
fn protocol<A: Address>() -> u8 {
    if A::IPV6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP }
}

/// A packet that comes in and belongs to no flow by what it is: answered if it is a ping to a virtual address, dropped if
/// it is for one and nothing behind us could handle it.
#[inline(never)]
pub fn no_flow<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
    parsed: Parsed,
) -> Verdict {
    let dropped = match parsed {
        Parsed::Malformed => counter::MALFORMED,
        Parsed::Lost => counter::FRAGMENT,
        Parsed::Echo => 0,
        _ => return Verdict::Pass,
    };
    match owner(maps, work.flow.key.daddr) {
        Owner::Other => return Verdict::Pass,
        Owner::Service if parsed == Parsed::Echo => return icmp::reply(maps, packet, work),
        Owner::Service => maps.count(dropped),
        Owner::Nobody => maps.count(counter::UNALLOCATED),
    }
    Verdict::Drop
}
