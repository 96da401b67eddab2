//! What a CPU keeps of the flows that it has just seen, before the connection table: a look-up there is what a packet of an
//! established flow costs most of. Memory has a place for each number that a key may have; a flow takes it from another.
//!
//! A CPU never goes by what another has changed: each change of the table counts on at the key's number, and what was kept
//! under an earlier count is not used. The count is read before the table is, and counted on after the table is written. What
//! is kept is used for [`PERIOD`] ticks of the clock at most, and not while more than a small part of the table is added, so
//! that the table sees of each flow that it is alive: when it is full, it loses what was not looked at. Packets
//! that begin or end a connection go by the table alone, and of a connection that comes to its end nothing is kept: whoever
//! removes closed or silent flows from the table need not count.

use eastwest_abi::cache::{ADDED, COUNTS, PLACES};
use eastwest_abi::{Conntrack, ConntrackKey};

use crate::address::Address;
use crate::parse::kind;
use crate::track::closing;
use crate::traits::Maps;
use crate::wire::tcp;
use crate::work::Work;

/// Ticks (of 1 to 10 ms) that share one look at the table, as a power of two.
const PERIOD: u32 = 4;

/// TCP flags of packets that the cache is not for.
const EVENTS: u8 = tcp::SYN | tcp::FIN | tcp::RST;

/// A half of a flow, as it was in the table.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept<A> {
    key: ConntrackKey<A>,
    value: Conntrack<A>,
    /// The count at the key's number before the table was looked at.
    count: u32,
    /// When that was, in periods.
    period: u32,
}

/// The number of a key, below `COUNTS`. The counts of more numbers than there are places cost little, and spare one flow
/// the changes of others.
#[inline(always)]
pub fn number<A: Address>(key: &ConntrackKey<A>) -> u32 {
    // Multiplications by numbers without a pattern, of which the upper bits depend on all bits below.
    let ends = u64::from(key.saddr.folded()) | u64::from(key.daddr.folded()) << 32;
    let rest = u64::from(key.ports()) | u64::from(key.tag()) << 32;
    let hash =
        ends.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(rest.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
    (hash >> (64 - COUNTS.ilog2())) as u32
}

/// Takes into `Work::value` what this CPU has kept of the packet's half of a flow.
#[inline(always)]
pub fn find<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> bool {
    if !is_for(work) {
        return false;
    }
    let number = number(&work.flow.key);
    let count = maps.count_of(number);
    let period = period(maps);
    work.number = number;
    work.count = count;
    let Some(kept) = maps.kept(number / (COUNTS / PLACES)) else { return false };
    if (kept.count ^ count) | (kept.period ^ period) != 0 || !same(&kept.key, &work.flow.key) {
        return false;
    }
    work.value = kept.value;
    true
}

/// Keeps `Work::value`, which the table has just given for a packet that was not found here.
#[inline(always)]
pub fn keep<A: Address, M: Maps<A>>(maps: &mut M, work: &Work<A>) {
    if !is_for(work) || closing(work.value.state) {
        return;
    }
    let period = period(maps);
    let Some(kept) = maps.kept(work.number / (COUNTS / PLACES)) else { return };
    kept.key = work.flow.key;
    kept.value = work.value;
    kept.count = work.count;
    kept.period = period;
}

/// Counts a half that was added, after it was.
#[inline(always)]
pub fn added<A: Address, M: Maps<A>>(maps: &mut M, key: &ConntrackKey<A>) {
    forget(maps, key);
    maps.count_on(ADDED);
}

/// Has all CPUs look at the table for this key again. To be called after it was written.
#[inline(always)]
pub fn forget<A: Address, M: Maps<A>>(maps: &mut M, key: &ConntrackKey<A>) {
    maps.count_on(number(key));
}

#[inline(always)]
fn is_for<A>(work: &Work<A>) -> bool {
    work.flow.kind == kind::WHOLE && work.flow.tcp_flags & EVENTS == 0
}

#[inline(always)]
fn period<A: Address, M: Maps<A>>(maps: &M) -> u32 {
    // Neither goes back, so the sum is the same only while both are.
    ((maps.tick() >> PERIOD) as u32).wrapping_add(maps.turns())
}

#[inline(always)]
fn same<A: Address>(a: &ConntrackKey<A>, b: &ConntrackKey<A>) -> bool {
    a.saddr.same(b.saddr) && a.daddr.same(b.daddr) && (a.ports() ^ b.ports()) | (a.tag() ^ b.tag()) == 0
}
