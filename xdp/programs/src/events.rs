//! What the programs tell of connections and of packets that get none: a count for each Service port, and of every so many
//! a line in a ring. Nothing is told of packets of connections that are open; what is told costs one look at a map while
//! nobody listens.

use core::arch::asm;

use aya_ebpf::helpers::bpf_get_prandom_u32;
use eastwest_abi::{Event, Socket, SocketKey, counter, event_flags};
use eastwest_packet::Address;

use crate::kernel::{FibAddress, Memory};
use crate::maps::{CONNECTIONS, EVENTS, SAMPLING};

/// Whether a counter is about a connection's beginning, or about a packet that is let through nowhere.
#[inline(always)]
pub const fn tells(what: u32) -> bool {
    matches!(
        what,
        counter::NEW
            | counter::SOCKET
            | counter::NO_ENDPOINTS
            | counter::NO_PORT
            | counter::LOCAL_POLICY
            | counter::NO_TUPLE
            | counter::TABLE_FULL
            | counter::MALFORMED
            | counter::SOURCE_RANGES
            | counter::UNALLOCATED
            | counter::FRAGMENT
    )
}

/// Whether this one is among those that are told.
#[inline(always)]
fn drawn() -> bool {
    let Some(&rate) = SAMPLING.get(0) else { return false };
    // SAFETY: a helper without arguments.
    rate != 0 && (rate == 1 || unsafe { bpf_get_prandom_u32() } % rate == 0)
}

#[inline(always)]
fn count(service: u32) {
    if let Some(count) = CONNECTIONS.get_ptr_mut(service) {
        // SAFETY: adds in one step to an aligned element that stays mapped while the program runs. The target has no atomics
        // in `core`.
        unsafe { asm!("lock *(u64 *)({count} + 0) += {one}", count = in(reg) count, one = in(reg) 1u64) };
    }
}

/// Tells of the packet that this CPU works on.
#[inline(never)]
pub fn tell<A: Memory + Address + FibAddress>(what: u32) -> u32 {
    let Some(work) = A::look() else { return 0 };
    // SAFETY: this CPU's own element. Whoever works on it waits for this call, and nothing of it is written here.
    let (key, value) = unsafe { ((&raw const (*work).flow.key).read(), &raw const (*work).value) };
    let opened = what == counter::NEW;
    if opened {
        // SAFETY: as above.
        count(unsafe { (&raw const (*value).service).read() });
    }
    if !drawn() {
        return 0;
    }
    let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else { return 0 };
    let event: *mut Event = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as an event, and each of its fields is written; the values as above.
    unsafe {
        (&raw mut (*event).client).write(key.saddr.words());
        (&raw mut (*event).asked).write(key.daddr.words());
        (&raw mut (*event).client_port).write(key.sport.to_ne_bytes());
        (&raw mut (*event).asked_port).write(key.dport.to_ne_bytes());
        (&raw mut (*event).protocol).write(key.protocol);
        (&raw mut (*event).what).write(what as u8);
        (&raw mut (*event).pad).write([0; 3]);
        let mut flags = if A::IPV6 { event_flags::IPV6 } else { 0 };
        if opened {
            if (&raw const (*value).flags).read() & eastwest_abi::conntrack_flags::OUTSIDE != 0 {
                flags |= event_flags::OUTSIDE;
            }
            (&raw mut (*event).backend).write((&raw const (*value).daddr).read().words());
            (&raw mut (*event).backend_port).write((&raw const (*value).dport).read().to_ne_bytes());
            (&raw mut (*event).service).write((&raw const (*value).service).read());
        } else {
            (&raw mut (*event).backend).write([0; 4]);
            (&raw mut (*event).backend_port).write([0; 2]);
            (&raw mut (*event).service).write(0);
        }
        (&raw mut (*event).flags).write(flags);
    }
    entry.submit(0);
    0
}

/// Tells of a socket of the node that asked for `asked`, and what it was given. Both are the caller's own, as its stack has no
/// room for more.
#[inline(never)]
pub fn tell_socket(asked: &SocketKey, given: &Socket, v4: u32) -> u32 {
    count(given.service);
    if !drawn() {
        return 0;
    }
    let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else { return 0 };
    let event: *mut Event = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as an event, and each of its fields is written; addresses are words of 4 bytes
    // in both, aligned to 4.
    unsafe {
        (&raw mut (*event).client).write([0; 4]);
        (&raw mut (*event).client_port).write([0; 2]);
        (&raw mut (*event).asked).write((&raw const asked.addr).cast::<[u32; 4]>().read());
        (&raw mut (*event).asked_port).write(asked.port);
        (&raw mut (*event).backend).write((&raw const given.addr).cast::<[u32; 4]>().read());
        (&raw mut (*event).backend_port).write(given.port);
        (&raw mut (*event).protocol).write(asked.protocol);
        (&raw mut (*event).what).write(counter::SOCKET as u8);
        (&raw mut (*event).pad).write([0; 3]);
        (&raw mut (*event).service).write(given.service);
        let family = if v4 != 0 { 0 } else { event_flags::IPV6 };
        (&raw mut (*event).flags).write(family | event_flags::SOCKET);
    }
    entry.submit(0);
    0
}
