//! The link layer.

use eastwest_packet::Packet;
use eastwest_packet::wire::ETHERNET;

/// The EtherType, or 0 for a packet without one.
#[inline(always)]
pub fn ethertype<P: Packet>(packet: &mut P) -> u16 {
    if !packet.ensure(ETHERNET as u32) {
        return 0;
    }
    packet.load::<u16, 1>(12).map_or(0, |[ethertype]| u16::from_be(ethertype))
}
