//! SCTP (RFC 9260): what a packet says of its association, and its checksum after a change of ports.
//!
//! The checksum is CRC-32C of the packet from its SCTP header on. It covers no addresses, and it is linear: what a change of
//! the ports, which come first, does to it depends on the length of the rest alone. With the change as a polynomial over
//! GF(2) it is that polynomial times x^(8 × length), modulo the CRC's own. So the packet need not be read.

use crate::address::Address;
use crate::parse::kind;
use crate::traits::{Checksums, NotWritten, Packet};
use crate::wire::{SCTP, tcp};
use crate::work::Work;

/// Offset of the checksum.
const CHECKSUM: usize = 8;

/// Chunk types of RFC 9260, 3.2, that open or end an association.
mod chunk {
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// What opens or ends an association fits the smallest path (`SCTP_DEFAULT_MINSEGMENT` of include/net/sctp/constants.h). In a
/// super-packet of the kernel's, which is longer, each chunk must stay in its own buffer: with a byte of one pulled to the
/// header, Linux 6.1 ends in `BUG()` (`sctp_inq_pop`).
const SMALL: u32 = 512;

/// What the first chunk says, in TCP's flags: SYN opens, RST ends at once, FIN of both sides ends.
#[inline(always)]
pub fn flags<P: Packet>(packet: &mut P, l4: usize, length: u32) -> u8 {
    if length <= SCTP as u32 || length > SMALL || !packet.ensure((l4 + SCTP + 1) as u32) {
        return tcp::ACK;
    }
    match packet.load::<u8, 1>(l4 + SCTP) {
        Some([chunk::INIT]) => tcp::SYN,
        Some([chunk::INIT_ACK]) => tcp::SYN | tcp::ACK,
        Some([chunk::ABORT]) => tcp::RST,
        Some([chunk::SHUTDOWN_ACK | chunk::SHUTDOWN_COMPLETE]) => tcp::FIN | tcp::ACK,
        _ => tcp::ACK,
    }
}

/// Makes the checksum right for the ports of `value`, before they are written. One of 0 is for a device to complete: the
/// kernel's own packets have it until they leave by a wire. Of a first fragment the sum covers what is not here.
#[inline(never)]
pub fn update<A: Address, P: Packet>(packet: &mut P, work: &Work<A>, leaves: bool) -> Result<(), NotWritten> {
    let (flow, value) = (&work.flow, &work.value);
    let at = flow.l4 as usize + CHECKSUM;
    let Some([field]) = packet.load::<u32, 1>(at) else { return Err(NotWritten::Failed) };
    if field == 0 {
        let lost = leaves && packet.checksums() == Checksums::Look;
        return if lost { Err(NotWritten::Ambiguous) } else { Ok(()) };
    }
    let change = ports(flow.key.sport, flow.key.dport) ^ ports(value.sport, value.dport);
    if change == 0 {
        return Ok(());
    }
    if flow.kind == kind::FIRST {
        return Err(NotWritten::Failed);
    }
    let fresh = u32::from_le(field) ^ advanced::<P>(change, flow.l4_length);
    if packet.store(at, &[fresh.to_le()]) { Ok(()) } else { Err(NotWritten::Failed) }
}

/// The first four bytes of the packet, as its CRC takes them.
#[inline(always)]
fn ports(sport: u16, dport: u16) -> u32 {
    u32::from(u16::from_le(sport)) | u32::from(u16::from_le(dport)) << 16
}

/// CRC-32C's polynomial, the lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^(8 × 2^i), for lengths of up to 2^16 bytes.
const POWERS: [u32; 17] = {
    let mut powers = [1 << 23; 17];
    let mut i = 1;
    while i < 17 {
        powers[i] = square(powers[i - 1]);
        i += 1;
    }
    powers
};

const fn square(a: u32) -> u32 {
    let (mut left, mut right, mut product) = (a, a, 0);
    while left != 0 {
        if left >> 31 != 0 {
            product ^= right;
        }
        left <<= 1;
        right = (right >> 1) ^ if right & 1 != 0 { POLYNOMIAL } else { 0 };
    }
    product
}

/// `change` times x^(8 × length).
#[inline(always)]
fn advanced<P: Packet>(change: u32, length: u32) -> u32 {
    let mut crc = change;
    let mut left = length;
    // Written out, as the powers are constants.
    macro_rules! steps {
        ($($i:literal)*) => {$(
            if left & 1 != 0 {
                crc = multiply::<P>(crc, const { POWERS[$i] });
            }
            crc = P::forget(crc.into()) as u32;
            left = P::forget((left >> 1).into()) as u32;
        )*};
    }
    steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    crc
}

/// The product of two polynomials, modulo the CRC's. Without branches, each of which a verifier would follow.
#[inline(never)]
fn multiply<P: Packet>(a: u32, b: u32) -> u32 {
    let (mut left, mut right, mut product) = (a, b, 0);
    for _ in 0..32 {
        let lowest = P::forget(u64::from(left >> 31)) as u32;
        product ^= right & lowest.wrapping_neg();
        left <<= 1;
        let highest = P::forget(u64::from(right & 1)) as u32;
        right = (right >> 1) ^ (POLYNOMIAL & highest.wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostPacket;
    use proptest::prelude::*;

    /// RFC 9260, appendix A, bit by bit.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 })
        })
    }

    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_change_of_the_first_bytes_is_what_the_whole_sum_says(
            mut bytes in prop::collection::vec(any::<u8>(), 4..3000),
            ends in any::<[u8; 4]>(),
        ) {
            let before = crc32c(&bytes);
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let change = word(&bytes) ^ word(&ends);
            bytes[..4].copy_from_slice(&ends);
            prop_assert_eq!(before ^ advanced::<HostPacket>(change, bytes.len() as u32), crc32c(&bytes));
        }
    }
}
