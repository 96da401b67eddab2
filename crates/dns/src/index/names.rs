//! Names in pieces: made of a Service's parts, and taken apart into ports and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use eastwest_compile::DnsPort;

use super::Entry;
use super::entry::{Target, ip_to_dashed, protocol_label};
use crate::wire::{NAME_MAX, Name};

/// A name as runs of labels; the last one ends with the root.
pub(super) struct Joined {
    wire: [u8; NAME_MAX],
    len: usize,
}

impl Joined {
    /// `None`: longer than a name may be.
    pub(super) fn new(parts: &[&[u8]]) -> Option<Self> {
        let mut name = Self { wire: [0; NAME_MAX], len: 0 };
        for part in parts {
            name.wire.get_mut(name.len..name.len + part.len())?.copy_from_slice(part);
            name.len += part.len();
        }
        Some(name)
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.wire[..self.len]
    }
}

/// `_port._protocol`; the underscores may be missing, and a lone one stands for any, as CoreDNS reads them.
pub(super) struct PortFilter<'a> {
    name: &'a [u8],
    protocol: &'a [u8],
}

impl<'a> PortFilter<'a> {
    pub(super) const ANY: PortFilter<'static> = PortFilter { name: b"", protocol: b"" };

    pub(super) fn new(name: &'a [u8], protocol: &'a [u8]) -> Self {
        Self {
            name: name.strip_prefix(b"_").unwrap_or(name),
            protocol: protocol.strip_prefix(b"_").unwrap_or(protocol),
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.name.is_empty() && self.protocol.is_empty()
    }

    pub(super) fn matches(&self, port: &DnsPort) -> bool {
        (self.name.is_empty() || port.name.as_bytes().eq_ignore_ascii_case(self.name))
            && (self.protocol.is_empty() || protocol_label(port.protocol) == self.protocol)
    }
}

/// Whether `label` is the `_protocol` above a named port: such a name exists (RFC 8020).
pub(super) fn below_ports(label: &[u8], ports: &[DnsPort]) -> bool {
    let Some(protocol) = label.strip_prefix(b"_") else { return false };
    ports.iter().any(|p| !p.name.is_empty() && protocol_label(p.protocol) == protocol)
}

/// CoreDNS' weight: a hundred shared evenly, at least 1.
pub(super) fn weight(records: usize) -> u16 {
    (100 / records.max(1)).max(1) as u16
}

pub(super) fn endpoint_name(entry: &Entry, zone: &Name, target: &Target<'_>) -> Option<Joined> {
    let mut dashed = [0; 64];
    let label = match target.hostname {
        Some(hostname) => hostname,
        None => {
            let len = ip_to_dashed(target.addr, &mut dashed);
            &dashed[..len]
        }
    };
    Joined::new(&[&[label.len() as u8], label, &entry.key, b"\x03svc", zone.wire()])
}

/// `0..n` from a random start, so that each client begins elsewhere.
pub(super) fn rotated(n: usize) -> impl Iterator<Item = usize> {
    let from = if n > 1 { fastrand::usize(..n) } else { 0 };
    (from..n).chain(0..from)
}

/// The address of `d.c.b.a.in-addr.arpa` or of 32 nibbles under `ip6.arpa`.
pub(crate) fn arpa_to_ip(name: &Name) -> Option<IpAddr> {
    const V4: &[u8] = b"\x07in-addr\x04arpa\x00";
    const V6: &[u8] = b"\x03ip6\x04arpa\x00";
    if name.count() == 6 && name.suffix(4) == V4 {
        let mut octets = [0u8; 4];
        for (i, octet) in octets.iter_mut().enumerate() {
            let text = name.label(3 - i);
            let plain = text.len() == 1 || text.first() != Some(&b'0');
            *octet = std::str::from_utf8(text).ok().filter(|t| plain && !t.starts_with('+'))?.parse().ok()?;
        }
        return Some(Ipv4Addr::from(octets).into());
    }
    if name.count() == 34 && name.suffix(32) == V6 {
        let mut bits = 0u128;
        for i in (0..32).rev() {
            let [digit] = name.label(i) else { return None };
            bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
        }
        return Some(Ipv6Addr::from(bits).into());
    }
    None
}
