//! At the host side of a pod's device: forward on ingress, back on egress.

use eastwest_abi::{backend_flags, conntrack_flags as flags, counter, direction};

use crate::address::Address;
use crate::cache;
use crate::choose::{self, Opening, Place};
use crate::hard;
use crate::icmp;
use crate::names;
use crate::nic;
use crate::parse::Parsed;
use crate::refuse::refuse;
use crate::rewrite::{rewrite, turn_around};
use crate::track;
use crate::traits::{Checksums, Maps, NotWritten, Packet, Router, Verdict};
use crate::wire::{PROTOCOL_UDP, tcp};
use crate::work::Work;

/// A packet that a pod sends.
#[inline(always)]
pub fn pod_ingress<A: Address, M: Maps<A>, P: Packet + Router<A>>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    match hard::parse(maps, packet, work) {
        Parsed::Flow => {
            let known = known(maps, work);
            if known != Known::Yes {
                let opening = asked(maps, work, known == Known::Again);
                if opening != Opening::FLOW {
                    if opening == Opening::NONE && work.flow.key.dport == names::PORT {
                        return Verdict::Names;
                    }
                    return not_opened(maps, packet, work, opening);
                }
            }
        }
        Parsed::Error => {
            if !icmp::of_pod(maps, work) {
                return Verdict::Pass;
            }
        }
        parsed => return hard::no_flow(maps, packet, work, parsed),
    }
    if work.value.flags & (flags::UNCHANGED | flags::MASQUERADE) != 0 {
        if work.value.flags & flags::UNCHANGED != 0 {
            return Verdict::Pass;
        }
        return masqueraded(maps, packet, work);
    }
    if let Err(error) = rewrite(maps, packet, work, false) {
        return not_written(maps, error);
    }
    if work.value.flags & flags::HAIRPIN == 0 {
        maps.count(counter::FORWARD);
        return Verdict::Pass;
    }
    // A pod to itself, there or back: both are sent into the device they came from.
    let back = work.flow.key.direction == direction::REVERSE;
    maps.count(if back { counter::REVERSE } else { counter::FORWARD });
    if turn_around(packet) { Verdict::Back } else { not_written(maps, NotWritten::Failed) }
}

/// A packet of a masqueraded flow, which the stack would not take: there its source is the node's own address, and back
/// its destination.
#[inline(always)]
fn masqueraded<A: Address, M: Maps<A>, P: Packet + Router<A>>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    // XDP at a pod's device meets super-packets, and loses what they are to become where it sends them on.
    if packet.checksums() == Checksums::Look {
        return Verdict::Handover;
    }
    nic::translate(maps, packet, work)
}

/// A packet that a pod gets.
#[inline(always)]
pub fn pod_egress<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    const ELSEWHERE: u16 = flags::HAIRPIN | flags::MASQUERADE | flags::OUTSIDE;
    back(maps, packet, work, 0, ELSEWHERE)
}

/// What the table knows of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It goes on as `Work::value` says.
    Yes,
    /// There is an entry, but the packet needs a new one.
    Again,
    /// Nothing.
    No,
}

/// Looks for a flow in forward direction.
///
/// TCP and SCTP stay with their backend until they end. UDP has no end: it leaves a backend that is gone or not to be used.
#[inline(always)]
pub(crate) fn known<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> Known {
    const WANTED: u32 = backend_flags::LIVE | backend_flags::USABLE;
    if cache::find(maps, work)
        && (work.flow.key.protocol != PROTOCOL_UDP
            || work.value.flags & flags::DIRECT != 0
            || track::backend_holds(maps, &work.value, WANTED))
    {
        return Known::Yes;
    }
    let Some(value) = maps.track(&work.flow.key) else { return Known::No };
    work.value = *value;
    let opens = work.flow.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    if work.flow.key.protocol == PROTOCOL_UDP || opens {
        let ends = opens && track::closing(work.value.state);
        let direct = work.value.flags & flags::DIRECT != 0;
        if ends || !direct && !track::backend_holds(maps, &work.value, WANTED) {
            return Known::Again;
        }
    }
    // Evicted from the table, the other half has become another flow's: answers would go there.
    if !track::note(maps, work) {
        return Known::Again;
    }
    cache::keep(maps, work);
    Known::Yes
}

/// Looks for the reverse half of a flow with all of `wanted` flags and none of `unwanted`. Its forward half may have gone on
/// to another backend; a late answer is still one.
#[inline(always)]
pub(crate) fn answered<A: Address, M: Maps<A>>(
    maps: &mut M,
    work: &mut Work<A>,
    wanted: u16,
    unwanted: u16,
) -> bool {
    if cache::find(maps, work) {
        return work.value.flags & (wanted | unwanted) == wanted;
    }
    let Some(value) = maps.track(&work.flow.key) else { return false };
    work.value = *value;
    if work.value.flags & (wanted | unwanted) != wanted {
        return false;
    }
    let _ = track::note(maps, work);
    cache::keep(maps, work);
    true
}

/// Translates a packet back, if it has a flow with all of `wanted` flags and none of `unwanted`.
#[inline(always)]
pub(crate) fn back<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
    wanted: u16,
    unwanted: u16,
) -> Verdict {
    match hard::parse(maps, packet, work) {
        Parsed::Flow => {
            work.flow.key.set_tag(work.flow.key.protocol, direction::REVERSE);
            if !answered(maps, work, wanted, unwanted) {
                return Verdict::Pass;
            }
        }
        Parsed::Error => {
            if !icmp::of_half(maps, work, direction::REVERSE, wanted, unwanted) {
                return Verdict::Pass;
            }
        }
        _ => return Verdict::Pass,
    }
    if work.value.flags & flags::UNCHANGED != 0 {
        return Verdict::Pass;
    }
    if let Err(error) = rewrite(maps, packet, work, false) {
        return not_written(maps, error);
    }
    maps.count(counter::REVERSE);
    Verdict::Pass
}

/// What a packet without a flow asks for: a frontend, its own pod's answer or a masqueraded client's, an endpoint, or nothing
/// of ours.
#[inline(always)]
fn asked<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>, again: bool) -> Opening {
    let opening = choose::frontend(maps, work, again, Place::Pod);
    if opening != Opening::NONE {
        return opening;
    }
    let hairpin = maps.config().map(A::of_hairpin);
    if hairpin.is_some_and(|hairpin| !hairpin.is_none() && hairpin.same(work.flow.key.daddr)) {
        return answer_to_itself(maps, work);
    }
    if nic::is_answer(maps, &work.flow) {
        if nic::answer(maps, work) {
            return Opening::FLOW;
        }
        // The node's own port.
        work.flow.key.set_tag(work.flow.key.protocol, direction::FORWARD);
    }
    choose::direct(maps, work, again)
}

/// The answer of a pod to itself, which comes by the way it sends.
#[inline(always)]
fn answer_to_itself<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> Opening {
    work.flow.key.set_tag(work.flow.key.protocol, direction::REVERSE);
    let Some(value) = maps.track(&work.flow.key) else { return Opening::NONE };
    work.value = *value;
    if work.value.flags & flags::HAIRPIN == 0 {
        return Opening::NONE;
    }
    let _ = track::note(maps, work);
    Opening::FLOW
}

/// Does what was found for a packet that opened no flow.
#[inline(always)]
pub(crate) fn not_opened<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
    opening: Opening,
) -> Verdict {
    if let Some(counter) = opening.refused() {
        return refuse(maps, packet, &work.flow, counter);
    }
    if let Some(counter) = opening.dropped() {
        maps.count(counter);
        return Verdict::Drop;
    }
    Verdict::Pass
}

#[inline(always)]
pub(crate) fn not_written<A: Address, M: Maps<A>>(maps: &mut M, error: NotWritten) -> Verdict {
    match error {
        NotWritten::Ambiguous => Verdict::Handover,
        NotWritten::Failed => {
            maps.count(counter::WRITE_FAILED);
            Verdict::Drop
        }
    }
}
