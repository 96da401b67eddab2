//! Network headers at their full length: IPv4 options, IPv6 extension headers, fragments. At any offset, as an ICMP error
//! quotes a packet. The fast path reads its own in `parse`.

use eastwest_abi::{Addr4, Addr6};

use crate::parse::kind;
use crate::traits::Packet;
use crate::wire::{DESTINATION, FRAGMENT, HOP_BY_HOP, IPV4, IPV6, ROUTING};

/// IPv6 extension headers that are read at most. RFC 8200, 4.1 knows seven in a packet, of which two are encryption's.
const EXTENSIONS: u32 = 6;

/// What is before the transport header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<A> {
    /// From the header.
    pub saddr: A,
    /// From the header.
    pub daddr: A,
    /// Offset of what follows.
    pub l4: u32,
    /// Bytes of it, by the header's word; of a quoted packet they need not all be there.
    pub length: u32,
    /// Identification of a fragment.
    pub id: u32,
    /// What follows.
    pub protocol: u8,
    /// `kind::WHOLE`, `FIRST` or `LATER`.
    pub kind: u8,
    /// What fragments of one packet have in common: IPv4's protocol, or IPv6's fragment header.
    pub carrier: u8,
}

/// IPv4 (RFC 791).
#[inline(never)]
pub fn unwrap4<P: Packet>(packet: &mut P, at: usize, headers: &mut Headers<Addr4>) -> bool {
    if !packet.ensure((at + IPV4) as u32) {
        return false;
    }
    let Some([first, second, third, saddr, daddr]) = packet.load::<u32, 5>(at) else { return false };
    let [version, _, total_high, total_low] = first.to_ne_bytes();
    let header = u32::from(version & 0xf) * 4;
    let Some(length) = u32::from(u16::from_be_bytes([total_high, total_low])).checked_sub(header) else {
        return false;
    };
    let [id_high, id_low, fragment_high, fragment_low] = second.to_ne_bytes();
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    headers.saddr = Addr4(saddr);
    headers.daddr = Addr4(daddr);
    headers.l4 = at as u32 + header;
    headers.length = length;
    headers.id = u16::from_be_bytes([id_high, id_low]).into();
    headers.protocol = third.to_ne_bytes()[1];
    headers.carrier = headers.protocol;
    headers.kind = kind_of(fragment & 0x1fff, fragment & 0x2000 != 0);
    version >> 4 == 4 && header >= IPV4 as u32
}

/// IPv6 and its extension headers (RFC 8200, 4). A routing header that is not at its end has another destination than the
/// network header's: not known.
#[inline(never)]
pub fn unwrap6<P: Packet>(packet: &mut P, at: usize, headers: &mut Headers<Addr6>) -> bool {
    if !packet.ensure((at + IPV6) as u32) {
        return false;
    }
    let Some([first, second, s0, s1, s2, s3, d0, d1, d2, d3]) = packet.load::<u32, 10>(at) else {
        return false;
    };
    if first.to_ne_bytes()[0] >> 4 != 6 {
        return false;
    }
    let [length_high, length_low, mut next, _] = second.to_ne_bytes();
    headers.saddr = Addr6([s0, s1, s2, s3]);
    headers.daddr = Addr6([d0, d1, d2, d3]);
    headers.kind = kind::WHOLE;
    headers.id = 0;
    headers.carrier = FRAGMENT;
    let length = u32::from(u16::from_be_bytes([length_high, length_low]));
    let start = (at + IPV6) as u32;
    // A super-packet of the kernel says 0.
    let end = if length == 0 { packet.len() } else { start + length };
    let mut l4 = start;
    for _ in 0..EXTENSIONS {
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) || headers.kind == kind::LATER {
            break;
        }
        if !packet.ensure(l4 + 8) {
            return false;
        }
        let Some([this, that]) = packet.load::<u32, 2>(l4 as usize) else { return false };
        let [following, words, third, fourth] = this.to_ne_bytes();
        if next == FRAGMENT {
            let fragment = u16::from_be_bytes([third, fourth]);
            headers.id = that;
            headers.kind = kind_of(fragment >> 3, fragment & 1 != 0);
            l4 += 8;
        } else {
            if next == ROUTING && fourth != 0 {
                return false;
            }
            l4 += u32::from(words) * 8 + 8;
        }
        next = following;
        l4 = P::forget(l4.into()) as u32;
    }
    headers.l4 = l4;
    headers.protocol = next;
    headers.length = end.saturating_sub(l4);
    l4 <= end
}

#[inline(always)]
fn kind_of(offset: u16, more: bool) -> u8 {
    if offset != 0 {
        kind::LATER
    } else if more {
        kind::FIRST
    } else {
        kind::WHOLE
    }
}

/// Whether the packet holds all that its network header, at `at`, says.
#[inline(always)]
pub fn whole<A, P: Packet>(packet: &P, headers: &Headers<A>) -> bool {
    headers.l4.saturating_add(headers.length) <= packet.len()
}
