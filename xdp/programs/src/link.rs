//! The link layer.

use eastwest_packet::wire::{
    ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PROVIDER, ETHERTYPE_VLAN, VLAN,
};
use eastwest_packet::{Packet, Verdict};

/// The EtherType, or 0 for a packet without one.
#[inline(always)]
pub fn ethertype<P: Packet>(packet: &mut P) -> u16 {
    if !packet.ensure(ETHERNET as u32) {
        return 0;
    }
    packet.load::<u16, 1>(12).map_or(0, |[ethertype]| u16::from_be(ethertype))
}

/// What becomes of a packet whose EtherType is none of IP's. One with a tag that says the priority alone is tc's, before which
/// the kernel takes the tag off; that of a VLAN is its device's.
#[inline(always)]
pub fn other<P: Packet>(packet: &mut P, ethertype: u16) -> Verdict {
    if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_PROVIDER {
        return Verdict::Pass;
    }
    if !packet.ensure(ETHERNET as u32 + 4) {
        return Verdict::Pass;
    }
    match packet.load::<u16, 2>(ETHERNET).map(|words| words.map(u16::from_be)) {
        Some([tag, ETHERTYPE_IPV4 | ETHERTYPE_IPV6]) if tag & VLAN == 0 => Verdict::Handover,
        _ => Verdict::Pass,
    }
}
