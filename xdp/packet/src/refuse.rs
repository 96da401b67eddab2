//! Answers that say no, made of the packet that asked: TCP RST, and ICMP or ICMPv6 port unreachable.

use eastwest_abi::counter;

use crate::address::Address;
use crate::checksum::{self, Sum};
use crate::parse::Flow;
use crate::rewrite::turn_around;
use crate::traits::{Maps, Packet, Verdict};
use crate::wire::{ETHERNET, ICMP, IPV4, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, TCP, UDP, tcp};

/// Time to live of what we send.
const TTL: u8 = 64;

/// Turns the packet into its refusal, and counts it. A RST is not answered.
#[inline(never)]
pub fn refuse<A: Address, M: Maps<A>, P: Packet>(
    maps: &mut M,
    packet: &mut P,
    flow: &Flow<A>,
    counter: u32,
) -> Verdict {
    maps.count(counter);
    let written = if flow.key.protocol == PROTOCOL_TCP {
        if flow.tcp_flags & tcp::RST != 0 {
            return Verdict::Drop;
        }
        reset(packet, flow)
    } else {
        unreachable(packet, flow)
    };
    if written.is_none() {
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
    if A::IPV6 {
        network_header(packet, flow, PROTOCOL_TCP, TCP as u16, 0)?;
    } else {
        // The TCP header stays where it is, as the kernel may complete the checksum there: options become padding.
        let options = (flow.l4 as usize).wrapping_sub(ETHERNET + IPV4);
        let mut at = 0;
        for _ in 0..10 {
            if at >= options {
                break;
            }
            done(packet.store(ETHERNET + IPV4 + at, &[0u32]))?;
            at += 4;
        }
        network_header(packet, flow, PROTOCOL_TCP, TCP as u16, options as u16)?;
    }
    done(packet.store(flow.l4 as usize, &new))
}

/// RFC 792 and RFC 4443: port unreachable, with the header that asked and 8 bytes more. `None` when a write failed.
#[inline(always)]
fn unreachable<A: Address, P: Packet>(packet: &mut P, flow: &Flow<A>) -> Option<()> {
    let quoted = flow.l4 as usize - ETHERNET + UDP;
    // Cut first: while the datagram's own checksum may be partial, the kernel keeps its field in the packet.
    done(packet.resize((ETHERNET + quoted) as u32))?;
    done(packet.prepend((A::HEADER + ICMP) as u32))?;
    let l = packet.load::<u8, 14>(A::HEADER + ICMP)?;
    let link = [l[6], l[7], l[8], l[9], l[10], l[11], l[0], l[1], l[2], l[3], l[4], l[5], l[12], l[13]];
    done(packet.store(0, &link))?;

    let icmp = ETHERNET + A::HEADER;
    let length = (ICMP + quoted) as u32;
    let (protocol, kind, code) = if A::IPV6 { (PROTOCOL_ICMPV6, 1, 4) } else { (PROTOCOL_ICMP, 3, 3) };
    network_header(packet, flow, protocol, length as u16, 0)?;
    let mut sum = Sum::ZERO.add(u16::from_ne_bytes([kind, code]).into());
    if A::IPV6 {
        let ends = flow.key.daddr.sum(flow.key.saddr.sum(sum));
        sum = ends.join(checksum::pseudo(PROTOCOL_ICMPV6, length));
    }
    // At most the longest IPv4 header, and 8 bytes.
    let mut at = 0;
    for _ in 0..17 {
        if at >= quoted {
            break;
        }
        sum = sum.add(packet.load::<u32, 1>(icmp + ICMP + at)?[0]);
        at += 4;
    }
    let sum = (!sum.fold()).to_ne_bytes();
    done(packet.store(icmp, &[kind, code, sum[0], sum[1], 0, 0, 0, 0]))
}

/// A fresh network header in the other direction. `options`: bytes of zeros that follow it (IPv4).
#[inline(always)]
fn network_header<A: Address, P: Packet>(
    packet: &mut P,
    flow: &Flow<A>,
    protocol: u8,
    payload: u16,
    options: u16,
) -> Option<()> {
    if A::IPV6 {
        let length = payload.to_be_bytes();
        done(packet.store(ETHERNET, &[0x60, 0, 0, 0, length[0], length[1], protocol, TTL]))?;
        return done(A::store_addresses(packet, flow.key.daddr, flow.key.saddr));
    }
    let words = (IPV4 as u16 + options) / 4;
    let length = (IPV4 as u16 + options + payload).to_be_bytes();
    // Do not fragment, so it needs no identification (RFC 6864).
    let mut header = [0x40 | words as u8, 0, length[0], length[1], 0, 0, 0x40, 0, TTL, protocol, 0, 0];
    let sum = flow.key.daddr.sum(flow.key.saddr.sum(checksum::of(&header)));
    [header[10], header[11]] = (!sum.fold()).to_ne_bytes();
    done(packet.store(ETHERNET, &header))?;
    done(A::store_addresses(packet, flow.key.daddr, flow.key.saddr))
}

#[inline(always)]
fn done(written: bool) -> Option<()> {
    written.then_some(())
}
