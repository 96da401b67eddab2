//! Answers that say no, made of the packet that asked: TCP RST, and ICMP or ICMPv6 errors.

use eastwest_abi::counter;

use crate::address::Address;
use crate::checksum::{self, Sum};
use crate::parse::{Flow, kind};
use crate::rewrite::turn_around;
use crate::traits::{Maps, Packet, Verdict};
use crate::wire::{
    DESTINATION, ETHERNET, ICMP, IPV4, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, SCTP,
    TCP, UDP, checksum_offset, icmp, tcp,
};

/// Time to live of what we send.
const TTL: u8 = 64;

/// Bytes of options or extension headers that are kept as padding in a RST, at most: as many as IPv4 can have.
const PADDING: usize = 40;
/// Bytes of an SCTP packet down to the tag of an INIT, by which its sender knows what the error is about
/// (`sctp_err_lookup` of net/sctp/input.c).
const SCTP_INIT: u32 = 20;
/// Bytes of the packet that an error quotes at most.
const QUOTED: usize = 128;

/// Turns the packet into its refusal, and counts it. A RST is not answered, nor is a fragment that does not tell how long
/// its segment is.
#[inline(never)]
pub fn refuse<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    flow: &Flow<A>,
    counter: u32,
) -> Verdict {
    maps.count(counter);
    if flow.kind == kind::LATER {
        return Verdict::Drop;
    }
    let written = if flow.key.protocol == PROTOCOL_TCP {
        if flow.tcp_flags & tcp::RST != 0 || flow.kind == kind::FIRST {
            return Verdict::Drop;
        }
        reset(packet, flow)
    } else {
        let message = if A::IPV6 { icmp::PORT6 } else { icmp::PORT4 };
        report(packet, flow, flow.key.daddr, message, 0)
    };
    if written.is_none() {
        maps.count(counter::WRITE_FAILED);
        return Verdict::Drop;
    }
    Verdict::Back
}

/// Turns a packet that the node itself cannot send on into an error from the node, and counts it. An error, and a later
/// fragment, is dropped: RFC 1122, 3.2.2. `rest` is the last word of the ICMP header, in host order.
#[inline(never)]
pub fn cannot_send<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    flow: &Flow<A>,
    message: [u8; 2],
    rest: u32,
) -> Verdict {
    maps.count(if rest == 0 { counter::EXPIRED } else { counter::TOO_BIG });
    if flow.kind == kind::ERROR || flow.kind == kind::LATER {
        return Verdict::Drop;
    }
    let node = maps.config().map(A::of_node);
    let Some(node) = node else { return Verdict::Drop };
    if report(packet, flow, node, message, rest).is_none() {
        maps.count(counter::WRITE_FAILED);
        return Verdict::Drop;
    }
    Verdict::Back
}

/// RFC 9293, 3.10.7.1: what a closed port answers. `None` when a write failed.
#[inline(always)]
fn reset<A: Address, P: Packet>(packet: &mut P, flow: &Flow<A>) -> Option<()> {
    let key = &flow.key;
    let old = packet.load::<u8, 18>(flow.l4 as usize)?;
    let sequence = u32::from_be_bytes([old[4], old[5], old[6], old[7]]);
    let payload = flow.l4_length.wrapping_sub(u32::from(old[12] >> 4) * 4);
    let syn = u32::from(flow.tcp_flags & tcp::SYN != 0);
    let fin = u32::from(flow.tcp_flags & tcp::FIN != 0);
    // Kept partial when it seems so, since the kernel keeps the mark on the packet, and might complete it.
    let ends = key.daddr.sum(key.saddr.sum(Sum::ZERO));
    let partial = ends.join(checksum::pseudo(PROTOCOL_TCP, flow.l4_length)).fold()
        == u16::from_ne_bytes([old[16], old[17]]);

    let mut new = [0u8; TCP];
    let (s, d) = (key.dport.to_ne_bytes(), key.sport.to_ne_bytes());
    [new[0], new[1], new[2], new[3]] = [s[0], s[1], d[0], d[1]];
    if flow.tcp_flags & tcp::ACK != 0 {
        [new[4], new[5], new[6], new[7]] = [old[8], old[9], old[10], old[11]];
        new[13] = tcp::RST;
    } else {
        let acknowledged = sequence.wrapping_add(payload).wrapping_add(syn).wrapping_add(fin);
        [new[8], new[9], new[10], new[11]] = acknowledged.to_be_bytes();
        new[13] = tcp::RST | tcp::ACK;
    }
    new[12] = (TCP as u8 / 4) << 4;
    let pseudo = ends.join(checksum::pseudo(PROTOCOL_TCP, TCP as u32));
    let sum = if partial { pseudo.fold() } else { !checksum::of(&new).join(pseudo).fold() };
    [new[16], new[17]] = sum.to_ne_bytes();

    done(packet.resize((flow.l4 as usize + TCP) as u32))?;
    done(turn_around(packet))?;
    // The TCP header stays where it is, as the kernel may complete the checksum there: what lies before it becomes padding.
    let start = ETHERNET + A::HEADER;
    let padding = (flow.l4 as usize).wrapping_sub(start);
    if padding > PADDING {
        return None;
    }
    let mut at = 0;
    for _ in 0..PADDING / 4 {
        if at >= padding {
            break;
        }
        done(packet.store(start + at, &[0u32]))?;
        at += 4;
    }
    let padding = P::forget(padding as u64) as usize;
    if A::IPV6 && padding != 0 {
        // Destination options with one of padding in it (RFC 8200, 4.2).
        done(packet.store(start, &[PROTOCOL_TCP, padding as u8 / 8 - 1, 1, padding as u8 - 4]))?;
    }
    let protocol = if A::IPV6 && padding != 0 { DESTINATION } else { PROTOCOL_TCP };
    network_header(packet, flow, flow.key.daddr, protocol, TCP as u16, padding as u16)?;
    done(packet.store(flow.l4 as usize, &new))
}

/// RFC 792 and RFC 4443: an error from `from`, with the header that asked and the 8 bytes behind it, or TCP's or SCTP's header. `None`
/// when a write failed.
#[inline(never)]
fn report<A: Address, P: Packet>(
    packet: &mut P,
    flow: &Flow<A>,
    from: A,
    message: [u8; 2],
    rest: u32,
) -> Option<()> {
    let tcp = flow.key.protocol == PROTOCOL_TCP;
    // The kernel does not cut off a checksum field that it is to complete.
    let sctp = flow.key.protocol == PROTOCOL_SCTP;
    let header = if tcp {
        TCP
    } else if sctp && flow.l4_length >= SCTP_INIT {
        SCTP_INIT as usize
    } else if sctp {
        SCTP
    } else {
        UDP
    };
    let before = (flow.l4 as usize).wrapping_sub(ETHERNET);
    let quoted = before.wrapping_add(header);
    if quoted > QUOTED {
        return None;
    }
    // Cut first: while the packet's own checksum may be partial, the kernel keeps its field in the packet.
    done(packet.resize((ETHERNET + quoted) as u32))?;
    done(packet.prepend((A::HEADER + ICMP) as u32))?;
    let l = packet.load::<u8, 14>(A::HEADER + ICMP)?;
    let link = [l[6], l[7], l[8], l[9], l[10], l[11], l[0], l[1], l[2], l[3], l[4], l[5], l[12], l[13]];
    done(packet.store(0, &link))?;

    let at_icmp = ETHERNET + A::HEADER;
    let length = (ICMP + quoted) as u32;
    let protocol = if A::IPV6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
    network_header(packet, flow, from, protocol, length as u16, 0)?;
    let rest = rest.to_be();
    let mut sum = Sum::ZERO.add(u16::from_ne_bytes(message).into()).add(rest);
    if A::IPV6 {
        let ends = from.sum(flow.key.saddr.sum(sum));
        sum = ends.join(checksum::pseudo(PROTOCOL_ICMPV6, length));
    }
    let mut at = 0;
    for _ in 0..QUOTED / 4 {
        if at >= quoted {
            break;
        }
        sum = sum.add(packet.load::<u32, 1>(at_icmp + ICMP + at)?[0]);
        at += 4;
    }
    sum = checksum::forget::<P>(sum);
    // A partial checksum will be completed in the quote, where it is said to lie, when the packet leaves by a wire.
    let l4 = (at_icmp + ICMP).wrapping_add(before);
    let [field] = packet.load::<u16, 1>(l4.wrapping_add(checksum_offset(flow.key.protocol)))?;
    let ends = flow.key.daddr.sum(flow.key.saddr.sum(Sum::ZERO));
    if !sctp && field == ends.join(checksum::pseudo(flow.key.protocol, flow.l4_length)).fold() {
        let mut region = Sum::ZERO;
        for word in packet.load::<u32, 2>(l4)? {
            region = region.add(word);
        }
        if tcp {
            for word in packet.load::<u32, 3>(l4.wrapping_add(8))? {
                region = region.add(word);
            }
        }
        sum = sum.add(u32::from(!region.fold())).add(u32::from(!field));
    }
    done(packet.store(at_icmp, &[u16::from_ne_bytes(message), !sum.fold()]))?;
    done(packet.store(at_icmp + 4, &[rest]))
}

/// A fresh network header to the sender. `options`: bytes of options or extension headers that follow it.
#[inline(always)]
pub(crate) fn network_header<A: Address, P: Packet>(
    packet: &mut P,
    flow: &Flow<A>,
    from: A,
    protocol: u8,
    payload: u16,
    options: u16,
) -> Option<()> {
    if A::IPV6 {
        let length = (payload + options).to_be_bytes();
        done(packet.store(ETHERNET, &[0x60, 0, 0, 0, length[0], length[1], protocol, TTL]))?;
        return done(A::store_addresses(packet, ETHERNET, from, flow.key.saddr));
    }
    let words = (IPV4 as u16 + options) / 4;
    let length = (IPV4 as u16 + options + payload).to_be_bytes();
    // Do not fragment, so it needs no identification (RFC 6864).
    let mut header = [0x40 | words as u8, 0, length[0], length[1], 0, 0, 0x40, 0, TTL, protocol, 0, 0];
    let sum = from.sum(flow.key.saddr.sum(checksum::of(&header)));
    [header[10], header[11]] = (!sum.fold()).to_ne_bytes();
    done(packet.store(ETHERNET, &header))?;
    done(A::store_addresses(packet, ETHERNET, from, flow.key.saddr))
}

#[inline(always)]
fn done(written: bool) -> Option<()> {
    written.then_some(())
}
