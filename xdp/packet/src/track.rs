//! Tracked flows. A flow is two halves that find each other: with its two ends exchanged, what a half makes of a packet
//! is the other half's key. Forward keys are as the client sends, reverse keys as the backend answers.
//!
//! A reverse key stands for one flow only. Whoever opens a flow takes the reverse key first; if it is taken, the flow
//! gets another one, by another backend or another source port.

use eastwest_abi::{
    Conntrack, ConntrackKey, backend_flags, conntrack_flags as flags, conntrack_state as state, direction,
};

use crate::address::Address;
use crate::cache;
use crate::traits::{Insert, Maps};
use crate::wire::{PROTOCOL_UDP, tcp};
use crate::work::Work;

/// Units of `seen` after which a silent UDP flow may lose its tuple to another: about three minutes, the time Linux
/// keeps a UDP stream.
const UDP_IDLE: u32 = 170;

/// Units of `seen` for which the end that closed a TCP connection first remembers it (TIME_WAIT, 60 s with Linux): it may
/// take a SYN with the same tuple for a late one and not open a connection for it (RFC 9293, 3.6.1).
const TCP_REST: u32 = 60;

/// The other half's key.
#[inline(always)]
pub fn other_key<A: Address>(key: &ConntrackKey<A>, value: &Conntrack<A>) -> ConntrackKey<A> {
    ConntrackKey {
        saddr: value.daddr,
        daddr: value.saddr,
        sport: value.dport,
        dport: value.sport,
        protocol: key.protocol,
        direction: key.direction ^ 1,
        pad: 0,
    }
}

/// The other half's value.
#[inline(always)]
pub fn other_value<A: Address>(key: &ConntrackKey<A>, value: &Conntrack<A>) -> Conntrack<A> {
    Conntrack { saddr: key.daddr, daddr: key.saddr, sport: key.dport, dport: key.sport, ..*value }
}

/// Whether two values make the same of a packet.
#[inline(always)]
fn same_rewrite<A: Address>(a: &Conntrack<A>, b: &Conntrack<A>) -> bool {
    a.sport == b.sport && a.dport == b.dport && a.saddr.same(b.saddr) && a.daddr.same(b.daddr)
}

/// Whether a connection of TCP or SCTP is over.
#[inline(always)]
pub fn closed(state: u16) -> bool {
    const BOTH: u16 = state::FIN_FORWARD | state::FIN_REVERSE;
    state & state::RESET != 0 || state & BOTH == BOTH
}

/// Whether a connection of TCP or SCTP is coming to its end: a SYN on it opens a new one.
#[inline(always)]
pub fn closing(state: u16) -> bool {
    state != 0
}

/// State that a packet's TCP flags add.
#[inline(always)]
pub fn added_state(tcp_flags: u8, direction: u8) -> u16 {
    let mut added = 0;
    if tcp_flags & tcp::RST != 0 {
        added |= state::RESET;
    }
    if tcp_flags & tcp::FIN != 0 {
        added |= if direction == direction::FORWARD { state::FIN_FORWARD } else { state::FIN_REVERSE };
    }
    added
}

/// Whether the backend of this flow is still the one it was made for, and takes packets.
#[inline(always)]
pub fn backend_holds<A: Address, M: Maps<A>>(maps: &M, value: &Conntrack<A>, wanted: u32) -> bool {
    match maps.backend(value.backend) {
        Some(backend) => backend.generation == value.generation && backend.flags & wanted == wanted,
        None => false,
    }
}

/// Notes a packet of the half `flow.key` that was found with `value`. Writes at most once in a unit of time, and when
/// TCP's state changes. False when the other half turns out to be another flow's.
#[inline(always)]
pub fn note<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> bool {
    let tick = maps.tick();
    if work.tick != tick {
        work.tick = tick;
        work.now = maps.now();
    }
    let state = work.value.state | added_state(work.flow.tcp_flags, work.flow.key.direction);
    if work.value.seen == work.now && work.value.state == state {
        return true;
    }
    work.value.seen = work.now;
    work.changed = work.value.state != state;
    work.value.state = state;
    refresh(maps, work)
}

/// Adds a half, or with `only_new` false replaces it.
#[inline(always)]
fn insert<A: Address, M: Maps<A>>(
    maps: &mut M,
    key: &ConntrackKey<A>,
    value: &Conntrack<A>,
    only_new: bool,
) -> Insert {
    let result = maps.track_insert(key, value, only_new);
    if result == Insert::Done {
        cache::added(maps, key);
    }
    result
}

/// Removes a half, if it is there.
#[inline(always)]
fn remove<A: Address, M: Maps<A>>(maps: &mut M, key: &ConntrackKey<A>) {
    maps.track_remove(key);
    cache::forget(maps, key);
}

/// Writes time and state of `value` to both halves, and brings back the other if the table has lost it.
#[inline(never)]
fn refresh<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> bool {
    if let Some(half) = maps.track(&work.flow.key) {
        half.seen = work.value.seen;
        half.state |= work.value.state;
    }
    if work.changed {
        cache::forget(maps, &work.flow.key);
    }
    work.other = other_key(&work.flow.key, &work.value);
    work.back = other_value(&work.flow.key, &work.value);
    match maps.track(&work.other) {
        Some(half) => {
            let ours = same_rewrite(half, &work.back);
            if ours {
                half.seen = work.value.seen;
                half.state |= work.value.state;
                if work.changed {
                    cache::forget(maps, &work.other);
                }
            }
            ours
        }
        None => insert(maps, &work.other, &work.back, true) != Insert::Exists,
    }
}

/// What became of an attempt to open a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The flow is there, with `Work::value`.
    Yes,
    /// Another flow has the reverse key.
    Taken,
    /// The table took no entry.
    Full,
}

/// Opens the flow `flow.key` → `value`. `again`: the forward key has an entry that is to be replaced.
#[inline(never)]
pub fn open<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>, again: bool) -> Opened {
    work.other = other_key(&work.flow.key, &work.value);
    work.back = other_value(&work.flow.key, &work.value);
    match insert(maps, &work.other, &work.back, true) {
        Insert::Done => {}
        Insert::Full => return Opened::Full,
        Insert::Exists => match take_over(maps, work) {
            Insert::Done => {}
            Insert::Exists => return Opened::Taken,
            Insert::Full => return Opened::Full,
        },
    }
    match insert(maps, &work.flow.key, &work.value, !again) {
        Insert::Done => Opened::Yes,
        Insert::Full => {
            remove(maps, &work.other);
            Opened::Full
        }
        Insert::Exists => {
            // Another CPU opened the same flow just now: follow it.
            let Some(theirs) = maps.track(&work.flow.key) else {
                remove(maps, &work.other);
                return Opened::Taken;
            };
            work.holder = *theirs;
            if !same_rewrite(&work.holder, &work.value) {
                remove(maps, &work.other);
            }
            work.value = work.holder;
            Opened::Yes
        }
    }
}

/// Takes a reverse key that is there already, if it may. Inlined: each frame has 32 bytes at least, and all calls together
/// have 512.
#[inline(always)]
fn take_over<A: Address, M: Maps<A>>(maps: &mut M, work: &mut Work<A>) -> Insert {
    let Some(holder) = maps.track(&work.other) else {
        // Evicted in between.
        return insert(maps, &work.other, &work.back, true);
    };
    work.holder = *holder;
    if same_rewrite(&work.holder, &work.back) {
        // Ours: what is left of a flow whose other half is gone, or the flow that is opened again.
        return insert(maps, &work.other, &work.back, false);
    }
    if !over(maps, work.other.protocol, &work.holder, work.value.seen, work.patient) {
        return Insert::Exists;
    }
    // Its forward half must go too, or its late packets would draw answers to us.
    work.holder_key = other_key(&work.other, &work.holder);
    work.theirs = other_value(&work.other, &work.holder);
    if maps.track(&work.holder_key).is_some_and(|half| same_rewrite(half, &work.theirs)) {
        remove(maps, &work.holder_key);
    }
    remove(maps, &work.other);
    insert(maps, &work.other, &work.back, true)
}

/// Whether the flow that holds a reverse key is over. `patient`: and its ends have forgotten it.
#[inline(always)]
fn over<A: Address, M: Maps<A>>(
    maps: &M,
    protocol: u8,
    holder: &Conntrack<A>,
    now: u32,
    patient: bool,
) -> bool {
    if protocol != PROTOCOL_UDP {
        let rests = patient && holder.state & state::RESET == 0 && now.wrapping_sub(holder.seen) <= TCP_REST;
        return closed(holder.state) && !rests;
    }
    now.wrapping_sub(holder.seen) > UDP_IDLE
        || holder.flags & flags::DIRECT == 0 && !backend_holds(maps, holder, backend_flags::LIVE)
}
