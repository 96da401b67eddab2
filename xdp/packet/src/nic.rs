//! At a NIC: clients outside that send to a virtual address routed to this node.
//!
//! A local backend gets the packet through the stack and sees the client; what it answers is translated back on the
//! NIC's egress. For a remote backend the node stands in for the client, so that the answer comes back here, and both
//! ways are sent on at once. The stack would not forward the way there: the source is its own address.

use eastwest_abi::{conntrack_flags as flags, counter, direction};

use crate::address::Address;
use crate::choose::{self, Opening, Place};
use crate::hard;
use crate::icmp;
use crate::parse::{Flow, Parsed};
use crate::pod::{Known, answered, back, known, not_opened, not_written};
use crate::refuse::cannot_send;
use crate::rewrite::{rewrite, set_ttl};
use crate::traits::{Maps, NotWritten, Packet, RouteQuery, Router, Verdict, Via};
use crate::wire::{ETHERNET, PROTOCOL_SCTP, PROTOCOL_TCP, SCTP, UDP, icmp as message_of};
use crate::work::Work;

/// What every link of IPv6 takes: RFC 8200, 5.
const LEAST_MTU6: u32 = 1280;

/// A packet that comes in by a NIC.
#[inline(always)]
pub fn nic_ingress<A: Address, M: Maps<A>, P: Packet + Router<A>>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    let parsed = hard::parse(maps, packet, work);
    if parsed == Parsed::Error {
        if !of_error(maps, work) {
            return Verdict::Pass;
        }
        return translate(maps, packet, work);
    }
    if parsed != Parsed::Flow {
        return hard::no_flow(maps, packet, work, parsed);
    }
    match standing(maps, &work.flow) {
        Standing::Own => return Verdict::Pass,
        Standing::Answer => {
            if !answer(maps, work) {
                return Verdict::Pass;
            }
        }
        Standing::Client => {
            let known = known(maps, work);
            if known != Known::Yes {
                let opening = choose::frontend(maps, work, known == Known::Again, Place::Nic);
                if opening != Opening::FLOW {
                    return not_opened(maps, packet, work, opening);
                }
            }
        }
    }
    // A flow of a pod that is a client here never comes in by a NIC.
    if work.value.flags & flags::OUTSIDE == 0 {
        return Verdict::Pass;
    }
    translate(maps, packet, work)
}

/// A packet that goes out by a NIC.
#[inline(always)]
pub fn nic_egress<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    back(maps, packet, work, flags::OUTSIDE, flags::MASQUERADE)
}

/// Who a packet is from and to.
enum Standing {
    /// To the node, at a port of those that stand in for clients.
    Answer,
    /// From the node itself.
    Own,
    /// From anyone else.
    Client,
}

#[inline(always)]
fn standing<A: Address, M: Maps<A>>(maps: &M, flow: &Flow<A>) -> Standing {
    let Some(config) = maps.config() else { return Standing::Client };
    let node = A::of_node(config);
    if node.is_none() {
        return Standing::Client;
    }
    if node.same(flow.key.saddr) {
        return Standing::Own;
    }
    if is_answer(maps, flow) { Standing::Answer } else { Standing::Client }
}

/// Whether a packet is for a port of the node where it may stand in for a client.
#[inline(always)]
pub(crate) fn is_answer<A: Address, M: Maps<A>>(maps: &M, flow: &Flow<A>) -> bool {
    let Some(config) = maps.config() else { return false };
    let port = u16::from_be(flow.key.dport);
    A::of_node(config).same(flow.key.daddr) && config.masquerade_from <= port && port <= config.masquerade_to
}

/// Whether the packet is a backend's answer in a masqueraded flow we know.
#[inline(always)]
pub(crate) fn answer<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> bool {
    work.flow.key.set_tag(work.flow.key.protocol, direction::REVERSE);
    answered(maps, work, flags::MASQUERADE, 0)
}

/// Finds the flow of an ICMP error that comes in: of a backend elsewhere or the way to it, or of a client outside.
#[inline(always)]
fn of_error<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> bool {
    match standing(maps, &work.flow) {
        Standing::Own => false,
        Standing::Answer => icmp::of_half(maps, work, direction::REVERSE, flags::MASQUERADE, 0),
        Standing::Client => icmp::of_half(maps, work, direction::FORWARD, flags::OUTSIDE, 0),
    }
}

/// Translates a packet. One for a local backend goes on to the stack; the others, there and back, are sent on to
/// where their new destination is.
#[inline(always)]
pub(crate) fn translate<A: Address, M: Maps<A>, P: Packet + Router<A>>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    work.via = Via::Stack;
    if work.value.flags & flags::MASQUERADE != 0 {
        if work.flow.ttl <= 1 {
            // The stack has no route to what is its own or nobody's.
            let message = if A::IPV6 { message_of::EXPIRED6 } else { message_of::EXPIRED4 };
            return cannot_send(maps, packet, &work.flow, message, 0);
        }
        if !maps.config().is_some_and(|config| packet.may_send(config)) {
            return Verdict::Handover;
        }
        // Asked before anything is written: whoever takes over must find the packet as it came.
        work.via = ask(packet, work);
        if work.via == Via::Handover {
            maps.count(counter::NO_NEIGHBOUR);
            return Verdict::Handover;
        }
        if work.via == Via::TooBig {
            let (message, mtu) = if A::IPV6 {
                (message_of::TOO_BIG6, work.hop.mtu.max(LEAST_MTU6))
            } else {
                (message_of::TOO_BIG4, work.hop.mtu & 0xffff)
            };
            return cannot_send(maps, packet, &work.flow, message, mtu);
        }
    }
    if let Err(error) = rewrite(maps, packet, work, work.via != Via::Stack) {
        return not_written(maps, error);
    }
    let back = work.flow.key.direction == direction::REVERSE;
    maps.count(if back { counter::REVERSE } else { counter::FORWARD });
    if work.via == Via::Stack {
        return Verdict::Pass;
    }
    maps.count(counter::REDIRECT);
    if !set_ttl::<A, P>(packet, work.flow.ttl.wrapping_sub(1)) {
        return not_written(maps, NotWritten::Failed);
    }
    if work.via == Via::Neighbour {
        return Verdict::Neighbour(work.hop.device);
    }
    if packet.store(0, &work.hop.link) {
        Verdict::Transmit(work.hop.device)
    } else {
        not_written(maps, NotWritten::Failed)
    }
}

/// Asks the routing table about a packet as it will be.
#[inline(never)]
fn ask<A: Address, P: Packet + Router<A>>(packet: &mut P, work: &mut Work<A>) -> Via {
    let Some([first_word]) = packet.load::<u32, 1>(ETHERNET) else { return Via::Stack };
    let length = packet.len().saturating_sub(ETHERNET as u32).min(0xffff) as u16;
    let mut headers = (work.flow.l4 as usize).wrapping_sub(ETHERNET) as u16;
    headers = headers.wrapping_add(if work.flow.key.protocol == PROTOCOL_TCP {
        packet.load::<u8, 1>(work.flow.l4 as usize + 12).map_or(0, |[offset]| u16::from(offset >> 4) * 4)
    } else if work.flow.key.protocol == PROTOCOL_SCTP {
        SCTP as u16
    } else {
        UDP as u16
    });
    let query = RouteQuery {
        headers,
        saddr: work.value.saddr,
        daddr: work.value.daddr,
        sport: work.value.sport,
        dport: work.value.dport,
        protocol: work.flow.key.protocol,
        length,
        first_word,
    };
    packet.route(&query, &mut work.hop)
}
