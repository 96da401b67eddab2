//! Packets in memory, as they lie under each kind of program.

use eastwest_abi::{Config, config_flags};

use crate::address::Address;
use crate::checksum;
use crate::traits::{ChecksumChange, Checksums, Hop, Packet, RouteQuery, Router, Unit, Via};
use crate::wire::{PROTOCOL_UDP, checksum_offset};

/// Under which kind of program a packet lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Nothing says what kind of checksum it has.
    Xdp,
    /// The kernel knows whether its checksum is partial.
    Tc { partial: bool },
}

/// A packet.
#[derive(Clone, Debug)]
pub struct HostPacket {
    bytes: Vec<u8>,
    hook: Hook,
    /// What the routing table says of every packet.
    pub route: (Via, Hop),
}

impl HostPacket {
    /// A packet from its Ethernet header on.
    pub fn new(bytes: &[u8], hook: Hook) -> Self {
        Self { bytes: bytes.to_vec(), hook, route: (Via::Stack, Hop::default()) }
    }

    /// What it is now.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn range(&self, at: usize, length: usize) -> Option<std::ops::Range<usize>> {
        let end = at.checked_add(length)?;
        (end <= self.bytes.len()).then_some(at..end)
    }
}

impl Packet for HostPacket {
    fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn ensure(&mut self, length: u32) -> bool {
        length <= self.len()
    }

    fn load<U: Unit, const N: usize>(&self, at: usize) -> Option<[U; N]> {
        let bytes = &self.bytes[self.range(at, N * size_of::<U>())?];
        Some(std::array::from_fn(|i| U::read(&bytes[i * size_of::<U>()..])))
    }

    fn store<U: Unit, const N: usize>(&mut self, at: usize, units: &[U; N]) -> bool {
        let Some(range) = self.range(at, N * size_of::<U>()) else { return false };
        let bytes = &mut self.bytes[range];
        for (i, unit) in units.iter().enumerate() {
            unit.write(&mut bytes[i * size_of::<U>()..]);
        }
        true
    }

    fn checksums(&self) -> Checksums {
        match self.hook {
            Hook::Xdp => Checksums::Look,
            Hook::Tc { .. } => Checksums::Kernel,
        }
    }

    /// As `inet_proto_csum_replace_by_diff` in net/core/utils.c.
    fn update_checksum(&mut self, change: &ChecksumChange) -> bool {
        let at = change.l4 + checksum_offset(change.protocol);
        let Some([mut field]) = self.load::<u16, 1>(at) else { return false };
        let udp = change.protocol == PROTOCOL_UDP;
        if udp && field == 0 {
            return true;
        }
        if self.hook == (Hook::Tc { partial: true }) {
            field = checksum::updated_partial(field, change.addresses);
        } else {
            field = checksum::updated(field, change.addresses);
            if udp && field == 0 {
                field = 0xffff;
            }
            field = checksum::updated(field, change.ports);
        }
        if udp && field == 0 {
            field = 0xffff;
        }
        self.store(at, &[field])
    }

    fn resize(&mut self, length: u32) -> bool {
        self.bytes.resize(length as usize, 0);
        true
    }

    fn prepend(&mut self, length: u32) -> bool {
        self.bytes.splice(..0, std::iter::repeat_n(0, length as usize));
        true
    }
}

impl<A: Address> Router<A> for HostPacket {
    fn route(&mut self, _query: &RouteQuery<A>, hop: &mut Hop) -> Via {
        *hop = self.route.1;
        self.route.0
    }

    fn may_send(&self, config: &Config) -> bool {
        self.hook != Hook::Xdp || config.flags & config_flags::NIC_REDIRECT != 0
    }
}
