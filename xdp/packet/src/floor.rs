//! Parts of what the programs do to a packet of an established flow, for measurements: what no arrangement of the rest
//! can save. Nothing else uses these.

use crate::address::Address;
use crate::rewrite::rewrite;
use crate::traits::{Maps, Packet, Verdict};
use crate::work::Work;

/// Reads the headers.
#[inline(always)]
pub fn parse<A: Address, P: Packet>(packet: &mut P, work: &mut Work<A>) -> Verdict {
    A::parse(packet, &mut work.flow);
    Verdict::Pass
}

/// Reads the headers and looks for the flow.
#[inline(always)]
pub fn look_up<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    A::parse(packet, &mut work.flow);
    if let Some(value) = maps.track(&work.flow.key) {
        work.value = *value;
    }
    Verdict::Pass
}

/// Reads the headers, looks for the flow and translates, whatever is known of the flow and its backend.
#[inline(always)]
pub fn translate<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    work: &mut Work<A>,
) -> Verdict {
    A::parse(packet, &mut work.flow);
    if let Some(value) = maps.track(&work.flow.key) {
        work.value = *value;
        let _ = rewrite(maps, packet, work, false);
    }
    Verdict::Pass
}
