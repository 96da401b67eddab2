//! Offsets and numbers of the wire formats.

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Length of an IPv6 header.
pub const IPV6: usize = 40;
/// Length of a TCP header without options.
pub const TCP: usize = 20;
/// Length of a UDP header.
pub const UDP: usize = 8;
/// Length of an SCTP header.
pub const SCTP: usize = 12;
/// Length of an ICMP or ICMPv6 header of an error.
pub const ICMP: usize = 8;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// EtherType of a tag of IEEE 802.1Q.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a service provider's tag, IEEE 802.1ad.
pub const ETHERTYPE_PROVIDER: u16 = 0x88a8;
/// The bits of a tag that name a VLAN; 0 is none: the tag says the priority alone.
pub const VLAN: u16 = 0x0fff;

/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// Protocol number of SCTP.
pub const PROTOCOL_SCTP: u8 = 132;

/// Next header of IPv6 hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header of an IPv6 routing header.
pub const ROUTING: u8 = 43;
/// Next header of an IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// Next header of IPv6 destination options.
pub const DESTINATION: u8 = 60;

/// Whether a next header needs more than the parser for TCP and UDP.
#[inline(always)]
pub const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION | PROTOCOL_ICMPV6)
}

/// Types and codes of ICMP (RFC 792) and ICMPv6 (RFC 4443), as the first two bytes of a message.
pub mod icmp {
    /// The port takes nothing.
    pub const PORT4: [u8; 2] = [3, 3];
    /// As `PORT4`.
    pub const PORT6: [u8; 2] = [1, 4];
    /// Too long for the next link, and not to be fragmented; the MTU is in the last two bytes of the header.
    pub const TOO_BIG4: [u8; 2] = [3, 4];
    /// The same; the MTU is in the last four.
    pub const TOO_BIG6: [u8; 2] = [2, 0];
    /// Too many hops.
    pub const EXPIRED4: [u8; 2] = [11, 0];
    /// As `EXPIRED4`.
    pub const EXPIRED6: [u8; 2] = [3, 0];
    /// Type of an echo request; of the reply it is 0.
    pub const ECHO4: u8 = 8;
    /// Type of an echo request; of the reply it is one more.
    pub const ECHO6: u8 = 128;
}

/// Flags of the TCP header.
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// Offset of the checksum in a TCP or UDP header.
#[inline(always)]
pub const fn checksum_offset(protocol: u8) -> usize {
    if protocol == PROTOCOL_TCP { 16 } else { 6 }
}
