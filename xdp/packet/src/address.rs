//! The two families. Everything that differs between them and is not a header layout.

use eastwest_abi::{
    Addr4, Addr6, Backend, Config, EndpointKey4, EndpointKey6, FrontendKey4, FrontendKey6, Range,
    config_flags,
};

use crate::checksum::Sum;
use crate::parse::Layout;

/// An address of one family.
///
/// Addresses and ports are words in network order, as they lie in the packet.
pub trait Address: Copy + Layout {
    /// Key of the frontend table.
    type FrontendKey;
    /// Key of the endpoint table.
    type EndpointKey;

    /// Equality without a call of `memcmp`, which the kernel side does not have.
    fn same(self, other: Self) -> bool;
    /// The zero address: none.
    fn is_none(self) -> bool;
    /// Adds the address's words.
    fn sum(self, sum: Sum) -> Sum;
    /// Key of the frontend with this address; port and protocol 0 for the address itself.
    fn frontend(self, port: u16, protocol: u8) -> Self::FrontendKey;
    /// Key of the endpoint with this address.
    fn endpoint(self, port: u16, protocol: u8) -> Self::EndpointKey;
    /// Address of a backend of this family.
    fn of_backend(backend: &Backend) -> Self;
    /// The node's address, or none.
    fn of_node(config: &Config) -> Self;
    /// The address that stands for a pod that calls itself, or none.
    fn of_hairpin(config: &Config) -> Self;
    /// Whether it lies in a range of virtual addresses.
    fn is_virtual(self, config: &Config) -> bool;
    /// Goes into a hash that is the same on every machine.
    fn hash(self, hash: u32) -> u32;
    /// Its words in one.
    fn folded(self) -> u32;
}

/// 1 for 0, else 0, without a branch: the verifier follows each.
#[inline(always)]
fn is_zero(word: u32) -> u64 {
    u64::from(word).wrapping_sub(1) >> 63
}

/// One step of a hash: MurmurHash3's mixture of a word, with a shift in place of its rotation.
#[inline(always)]
pub(crate) fn mix(hash: u32, word: u32) -> u32 {
    let mixed = (hash ^ u32::from_be(word)).wrapping_mul(0x9e37_79b1);
    mixed ^ (mixed >> 15)
}

impl Address for Addr4 {
    type FrontendKey = FrontendKey4;
    type EndpointKey = EndpointKey4;

    #[inline(always)]
    fn same(self, other: Self) -> bool {
        self.0 == other.0
    }

    #[inline(always)]
    fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn sum(self, sum: Sum) -> Sum {
        sum.add(self.0)
    }

    #[inline(always)]
    fn frontend(self, port: u16, protocol: u8) -> FrontendKey4 {
        FrontendKey4 { addr: self.0.to_ne_bytes(), port: port.to_ne_bytes(), protocol, pad: 0 }
    }

    #[inline(always)]
    fn endpoint(self, port: u16, protocol: u8) -> EndpointKey4 {
        EndpointKey4 { addr: self.0.to_ne_bytes(), port: port.to_ne_bytes(), protocol, pad: 0 }
    }

    #[inline(always)]
    fn of_backend(backend: &Backend) -> Self {
        let a = &backend.addr;
        Self(u32::from_ne_bytes([a[0], a[1], a[2], a[3]]))
    }

    #[inline(always)]
    fn of_node(config: &Config) -> Self {
        Self(u32::from_ne_bytes(config.node4))
    }

    #[inline(always)]
    fn of_hairpin(config: &Config) -> Self {
        Self(u32::from_ne_bytes(config.hairpin4))
    }

    #[inline(always)]
    fn is_virtual(self, config: &Config) -> bool {
        let mut found = 0;
        for Range { addr, mask } in &config.ranges4 {
            found += is_zero((self.0 ^ addr.0) & mask.0);
        }
        found != 0
    }

    #[inline(always)]
    fn hash(self, hash: u32) -> u32 {
        mix(hash, self.0)
    }

    #[inline(always)]
    fn folded(self) -> u32 {
        self.0
    }
}

impl Address for Addr6 {
    type FrontendKey = FrontendKey6;
    type EndpointKey = EndpointKey6;

    #[inline(always)]
    fn same(self, other: Self) -> bool {
        let (a, b) = (self.0, other.0);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }

    #[inline(always)]
    fn is_none(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    #[inline(always)]
    fn sum(self, sum: Sum) -> Sum {
        sum.add(self.0[0]).add(self.0[1]).add(self.0[2]).add(self.0[3])
    }

    #[inline(always)]
    fn frontend(self, port: u16, protocol: u8) -> FrontendKey6 {
        FrontendKey6 { addr: octets(self), port: port.to_ne_bytes(), protocol, pad: 0 }
    }

    #[inline(always)]
    fn endpoint(self, port: u16, protocol: u8) -> EndpointKey6 {
        EndpointKey6 { addr: octets(self), port: port.to_ne_bytes(), protocol, pad: 0 }
    }

    #[inline(always)]
    fn of_backend(backend: &Backend) -> Self {
        words(&backend.addr)
    }

    #[inline(always)]
    fn of_node(config: &Config) -> Self {
        words(&config.node6)
    }

    #[inline(always)]
    fn of_hairpin(config: &Config) -> Self {
        words(&config.hairpin6)
    }

    #[inline(always)]
    fn is_virtual(self, config: &Config) -> bool {
        let a = self.0;
        let mut found = 0;
        for Range { addr: Addr6(r), mask: Addr6(m) } in &config.ranges6 {
            let differ = ((a[0] ^ r[0]) & m[0])
                | ((a[1] ^ r[1]) & m[1])
                | ((a[2] ^ r[2]) & m[2])
                | ((a[3] ^ r[3]) & m[3]);
            found += is_zero(differ);
        }
        found != 0
    }

    #[inline(always)]
    fn hash(self, hash: u32) -> u32 {
        let [a, b, c, d] = self.0;
        mix(mix(mix(mix(hash, a), b), c), d)
    }

    #[inline(always)]
    fn folded(self) -> u32 {
        let [a, b, c, d] = self.0;
        a ^ b ^ c ^ d
    }
}

/// Whether the kernel's checksum helper wants to be told of IPv6.
#[inline(always)]
pub(crate) fn tells_ipv6(config: &Config) -> bool {
    config.flags & config_flags::CSUM_IPV6 != 0
}

#[inline(always)]
pub(crate) fn words(octets: &[u8; 16]) -> Addr6 {
    let o = octets;
    Addr6([
        u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
        u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
        u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
        u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
    ])
}

#[inline(always)]
pub(crate) fn octets(address: Addr6) -> [u8; 16] {
    let [a, b, c, d] = address.0.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}
