//! From bytes to a flow. Never reads past the window; what it cannot read it names.

use eastwest_abi::{Addr4, Addr6, ConntrackKey, direction};

use crate::headers::Headers;
use crate::sctp;
use crate::traits::Packet;
use crate::wire::{
    ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, PROTOCOL_ICMP, PROTOCOL_SCTP, PROTOCOL_TCP,
    PROTOCOL_UDP, SCTP, TCP, UDP, is_extension,
};

/// A packet that can be translated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow<A> {
    /// Who sends to whom, as a forward key.
    pub key: ConntrackKey<A>,
    /// Offset of the TCP, UDP or SCTP header.
    pub l4: u32,
    /// Bytes of the segment or datagram, header included.
    pub l4_length: u32,
    /// Flags of TCP, or what SCTP's first chunk is in these terms; 0 for UDP.
    pub tcp_flags: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// One of `kind`.
    pub kind: u8,
}

/// `Flow::kind`.
pub mod kind {
    /// A whole TCP segment or UDP datagram.
    pub const WHOLE: u8 = 0;
    /// The first of several fragments.
    pub const FIRST: u8 = 1;
    /// Another fragment: its ports are the first one's, and it has no transport header.
    pub const LATER: u8 = 2;
    /// An ICMP error: the key is that of the packets that the quoted one answers.
    pub const ERROR: u8 = 3;
    /// A whole SCTP packet, whose checksum is another one.
    pub const SCTP: u8 = 4;
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// TCP, UDP or SCTP, whole enough to translate.
    Flow,
    /// Cut short or wrong. Only the addresses in the key are known.
    Malformed,
    /// Not for us: another protocol, or too short to say.
    Other,
    /// More than this reads: a fragment, an extension header, ICMP, SCTP. [`crate::hard`] says which of the others it is.
    Hard,
    /// An ICMP error, and the packet that it quotes is one that we may know.
    Error,
    /// An echo request.
    Echo,
    /// A fragment whose first one has not been seen.
    Lost,
}

/// The header layout of a family.
pub trait Layout: Sized + Copy {
    /// Length of the network header without options.
    const HEADER: usize;
    /// EtherType.
    const ETHERTYPE: u16;
    /// Whether this is IPv6.
    const IPV6: bool;

    /// Reads the headers of a packet whose EtherType is this family's into `flow`.
    fn parse<P: Packet>(packet: &mut P, flow: &mut Flow<Self>) -> Parsed;
    /// Reads the headers of the network packet at `at` down to its transport header. False when it is none, is cut short or
    /// has headers that we do not know.
    fn unwrap<P: Packet>(packet: &mut P, at: usize, headers: &mut Headers<Self>) -> bool;
    /// Source then destination, in the header at `at`.
    fn store_addresses<P: Packet>(packet: &mut P, at: usize, saddr: Self, daddr: Self) -> bool;
}

impl Layout for Addr4 {
    const HEADER: usize = IPV4;
    const ETHERTYPE: u16 = ETHERTYPE_IPV4;
    const IPV6: bool = false;

    #[inline(always)]
    fn parse<P: Packet>(packet: &mut P, flow: &mut Flow<Self>) -> Parsed {
        if !packet.ensure((ETHERNET + IPV4) as u32) {
            return Parsed::Other;
        }
        let Some([first, second]) = packet.load::<u32, 2>(ETHERNET) else { return Parsed::Other };
        let Some([ttl, protocol]) = packet.load::<u8, 2>(ETHERNET + 8) else { return Parsed::Other };
        let Some([saddr, daddr]) = packet.load::<u32, 2>(ETHERNET + 12) else { return Parsed::Other };
        let [version, _, total_high, total_low] = first.to_ne_bytes();
        if version >> 4 != 4 {
            return Parsed::Other;
        }
        flow.key.saddr = Addr4(saddr);
        flow.key.daddr = Addr4(daddr);
        flow.key.protocol = protocol;
        flow.ttl = ttl;
        let header = usize::from(version & 0xf) * 4;
        if header < IPV4 {
            return Parsed::Malformed;
        }
        // More fragments, or not the first one: ports of the others cannot be known.
        if second & 0x3fff_u32.to_be() != 0 || protocol == PROTOCOL_ICMP {
            return Parsed::Hard;
        }
        let total = u32::from(u16::from_be_bytes([total_high, total_low]));
        let Some(length) = payload(packet, total, header as u32, ETHERNET as u32) else {
            return Parsed::Malformed;
        };
        segment(packet, flow, ETHERNET + header, length)
    }

    #[inline(always)]
    fn unwrap<P: Packet>(packet: &mut P, at: usize, headers: &mut Headers<Self>) -> bool {
        crate::headers::unwrap4(packet, at, headers)
    }

    #[inline(always)]
    fn store_addresses<P: Packet>(packet: &mut P, at: usize, saddr: Self, daddr: Self) -> bool {
        packet.store(at + 12, &[saddr.0, daddr.0])
    }
}

impl Layout for Addr6 {
    const HEADER: usize = IPV6;
    const ETHERTYPE: u16 = ETHERTYPE_IPV6;
    const IPV6: bool = true;

    #[inline(always)]
    fn parse<P: Packet>(packet: &mut P, flow: &mut Flow<Self>) -> Parsed {
        if !packet.ensure((ETHERNET + IPV6) as u32) {
            return Parsed::Other;
        }
        let Some([first, second, s0, s1, s2, s3, d0, d1, d2, d3]) = packet.load::<u32, 10>(ETHERNET) else {
            return Parsed::Other;
        };
        if first.to_ne_bytes()[0] >> 4 != 6 {
            return Parsed::Other;
        }
        let [length_high, length_low, protocol, ttl] = second.to_ne_bytes();
        flow.key.saddr = Addr6([s0, s1, s2, s3]);
        flow.key.daddr = Addr6([d0, d1, d2, d3]);
        flow.key.protocol = protocol;
        flow.ttl = ttl;
        if is_extension(protocol) {
            return Parsed::Hard;
        }
        let total = u32::from(u16::from_be_bytes([length_high, length_low]));
        let Some(length) = payload(packet, total, 0, (ETHERNET + IPV6) as u32) else {
            return Parsed::Malformed;
        };
        segment(packet, flow, ETHERNET + IPV6, length)
    }

    #[inline(always)]
    fn unwrap<P: Packet>(packet: &mut P, at: usize, headers: &mut Headers<Self>) -> bool {
        crate::headers::unwrap6(packet, at, headers)
    }

    #[inline(always)]
    fn store_addresses<P: Packet>(packet: &mut P, at: usize, saddr: Self, daddr: Self) -> bool {
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (saddr.0, daddr.0);
        packet.store(at + 8, &[s0, s1, s2, s3, d0, d1, d2, d3])
    }
}

/// Bytes behind the network header, from a length field that counts `header` of it and starts at `start`. `None` when
/// the packet is shorter than it says. A field of 0 on more than 65,535 bytes is a super-packet of the kernel.
#[inline(always)]
fn payload<P: Packet>(packet: &P, field: u32, header: u32, start: u32) -> Option<u32> {
    let length = packet.len();
    if field == 0 && length > 0xffff {
        return length.checked_sub(start + header);
    }
    if start + field > length { None } else { field.checked_sub(header) }
}

/// Reads the transport header of a whole packet, behind `l4` bytes.
#[inline(always)]
fn segment<A: Copy, P: Packet>(packet: &mut P, flow: &mut Flow<A>, l4: usize, length: u32) -> Parsed {
    if flow.key.protocol == PROTOCOL_SCTP {
        return Parsed::Hard;
    }
    flow.kind = kind::WHOLE;
    transport(packet, flow, l4, length)
}

/// Reads the transport header, behind `l4` bytes, of a packet of the flow's kind: of a first fragment the length is not all.
#[inline(always)]
pub(crate) fn transport<A: Copy, P: Packet>(
    packet: &mut P,
    flow: &mut Flow<A>,
    l4: usize,
    length: u32,
) -> Parsed {
    let least = match flow.key.protocol {
        PROTOCOL_TCP => TCP,
        PROTOCOL_UDP => UDP,
        PROTOCOL_SCTP => SCTP,
        _ => return Parsed::Other,
    };
    if length < least as u32 || !packet.ensure((l4 + least) as u32) {
        return Parsed::Malformed;
    }
    let Some([ports]) = packet.load::<u32, 1>(l4) else { return Parsed::Malformed };
    flow.tcp_flags = 0;
    flow.l4_length = length;
    if flow.key.protocol == PROTOCOL_TCP {
        let Some([offset, flags]) = packet.load::<u8, 2>(l4 + 12) else { return Parsed::Malformed };
        let header = u32::from(offset >> 4) * 4;
        if header < TCP as u32 || header > length {
            return Parsed::Malformed;
        }
        flow.tcp_flags = flags;
    } else if flow.key.protocol == PROTOCOL_SCTP {
        flow.tcp_flags = sctp::flags(packet, l4, length);
        if flow.kind == kind::WHOLE {
            flow.kind = kind::SCTP;
        }
    } else {
        let Some([length_field]) = packet.load::<u16, 1>(l4 + 4) else { return Parsed::Malformed };
        // The pseudo header counts what UDP says, not what IP says. A super-packet says 0.
        let field = u32::from(u16::from_be(length_field));
        if field != 0 || length <= 0xffff {
            if field < UDP as u32 || field > length && flow.kind == kind::WHOLE {
                return Parsed::Malformed;
            }
            flow.l4_length = field;
        }
    }
    flow.key.set_rest(ports, flow.key.protocol, direction::FORWARD);
    flow.l4 = l4 as u32;
    Parsed::Flow
}
