//! The Internet checksum (RFC 1071), its incremental update (RFC 1624), and telling a partial one from a full one.
//!
//! Sums are over words as they lie in memory. The ones' complement sum does not care about byte order as long as all
//! words are read alike, so nothing is swapped.

use crate::traits::{ChecksumChange, Packet};

/// A ones' complement sum, not yet folded. 2^32 words fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Nothing summed yet.
    pub const ZERO: Self = Self(0);

    /// Adds a word of 32 bits: 2^16 is 1 here, so the halves need not be added one by one.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds another sum.
    #[inline(always)]
    #[must_use]
    pub const fn join(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes another sum away, of at most 65,535 words. A multiple of 0xffff, which is 0 here, keeps it positive: cheaper
    /// than to add the complement of the other, which would have to be folded.
    #[inline(always)]
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 + (0xffff << 32) - other.0)
    }

    /// Down to 16 bits. 0 only when all that was added is 0.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
    }
}

/// A full checksum after `change` was added to what it covers: RFC 1624, equation 3.
#[inline(always)]
pub const fn updated(checksum: u16, change: Sum) -> u16 {
    !change.add(!checksum as u32).fold()
}

/// A partial checksum after `change` was added to the pseudo header: it is the sum itself, so the sign is opposite.
#[inline(always)]
pub const fn updated_partial(checksum: u16, change: Sum) -> u16 {
    change.add(checksum as u32).fold()
}

/// Protocol and length of a pseudo header, as words in network order.
#[inline(always)]
pub const fn pseudo(protocol: u8, length: u32) -> Sum {
    Sum::ZERO.add((protocol as u16).to_be() as u32).add(length.to_be())
}

/// What is in a checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The checksum of the whole segment, as on a wire.
    Full,
    /// The sum of the pseudo header: the device adds the rest.
    Partial,
    /// The field fits both, once in 65,536 segments.
    Either,
}

/// The longest segment that is summed to tell a full checksum from a partial one. More than a jumbo frame holds has
/// been put together by the kernel, which works on partial checksums only.
pub const LONGEST_FRAME: u32 = 9216;

/// Tells what is in the checksum field, where nothing but the packet says so.
///
/// `None` when the segment is not all there.
#[inline(always)]
pub fn inspect<P: Packet>(packet: &P, change: &ChecksumChange, field: u16) -> Option<Kind> {
    if field != change.pseudo.fold() {
        return Some(Kind::Full);
    }
    if change.length > LONGEST_FRAME {
        return Some(Kind::Partial);
    }
    let sum = segment(packet, change.l4, change.length)?.join(change.pseudo);
    Some(if sum.fold() == 0xffff { Kind::Either } else { Kind::Partial })
}

/// The sum of `length` bytes from `at`, at most [`LONGEST_FRAME`]. `None` when they are not all there.
#[inline(always)]
pub fn segment<P: Packet>(packet: &P, at: usize, length: u32) -> Option<Sum> {
    let mut sum = Sum::ZERO;
    let mut at = at;
    let mut left = length;
    // Bounds on the turns are for the verifier.
    for _ in 0..LONGEST_FRAME / 64 {
        if left < 64 {
            break;
        }
        for word in packet.load::<u32, 16>(at)? {
            sum = sum.add(word);
        }
        at += 64;
        left -= 64;
    }
    sum = forget::<P>(sum);
    at = P::forget(at as u64) as usize;
    left = P::forget(left.into()) as u32 & 63;
    for _ in 0..16 {
        if left < 4 {
            break;
        }
        sum = sum.add(packet.load::<u32, 1>(at)?[0]);
        at += 4;
        left -= 4;
    }
    sum = forget::<P>(sum);
    at = P::forget(at as u64) as usize;
    left = P::forget(left.into()) as u32 & 3;
    if left >= 2 {
        sum = sum.add(packet.load::<u16, 1>(at)?[0].into());
        at += 2;
        left -= 2;
    }
    if left == 1 {
        // Padded with a zero byte behind. Read with the byte before it, as the verifier learns nothing of a packet's
        // end from a comparison for one byte.
        let last = packet.load::<u16, 1>(at.wrapping_sub(1))?[0].to_ne_bytes()[1];
        sum = sum.add(u16::from_ne_bytes([last, 0]).into());
    }
    Some(forget::<P>(sum))
}

/// [`Packet::forget`] of a sum.
#[inline(always)]
pub(crate) fn forget<P: Packet>(sum: Sum) -> Sum {
    Sum(P::forget(sum.0))
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The sum of bytes in memory whose number is a multiple of 4.
#[inline(always)]
pub fn of<const N: usize>(bytes: &[u8; N]) -> Sum {
    let mut sum = Sum::ZERO;
    let mut i = 0;
    while i + 4 <= N {
        sum = sum.add(word(bytes, i));
        i += 4;
    }
    sum
}
