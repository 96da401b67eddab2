//! What the index keeps of a Service: addresses as plain sorted arrays, everything that repeats held once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use eastwest_compile::{DnsEndpoint, DnsPort, DnsService};
use eastwest_model::Protocol;

use crate::wire::Name;

#[derive(Debug)]
pub(crate) struct Entry {
    /// Its key in the index.
    pub(crate) key: Arc<[u8]>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// `ips` in the Service's own order.
    ClusterIp {
        ips: Box<[IpAddr]>,
        ports: Box<[DnsPort]>,
        endpoints: Endpoints,
    },
    Headless(Endpoints),
    /// The target's wire form.
    External(Box<[u8]>),
    /// An ExternalName that is an address or no name at all: CoreDNS and kube-dns serve nothing for it.
    Nothing,
}

/// Endpoints, sorted by address. 12 bytes for one of IPv4.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    v4: Box<[Endpoint<Ipv4Addr>]>,
    v6: Box<[Endpoint<Ipv6Addr>]>,
    /// Sorted, lower case.
    hostnames: Box<[Arc<str>]>,
    ports: Box<[Arc<[DnsPort]>]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint<A> {
    addr: A,
    /// Place in `hostnames`; `NAMELESS`: the address with dashes.
    host: u32,
    ports: u32,
}

const NAMELESS: u32 = u32::MAX;

/// One endpoint as answers need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) addr: IpAddr,
    /// Lower case; `None`: the address with dashes.
    pub(crate) hostname: Option<&'a [u8]>,
    pub(crate) ports: &'a [DnsPort],
}

impl Entry {
    pub(crate) fn new(key: Arc<[u8]>, dns: &DnsService) -> Self {
        let kind = match dns {
            DnsService::ClusterIp { ips, ports, endpoints } => Kind::ClusterIp {
                ips: ips.as_slice().into(),
                ports: ports.as_slice().into(),
                endpoints: Endpoints::new(endpoints),
            },
            DnsService::Headless { endpoints } => Kind::Headless(Endpoints::new(endpoints)),
            DnsService::ExternalName { target } => {
                let address = target.parse::<IpAddr>().is_ok();
                match Name::parse(target).filter(|n| n.count() > 0 && !address) {
                    Some(name) => Kind::External(name.wire().into()),
                    None => Kind::Nothing,
                }
            }
        };
        Self { key, kind }
    }

    /// Every address that leads back to this Service, sorted, without duplicates.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let (ips, endpoints): (&[IpAddr], _) = match &self.kind {
            Kind::ClusterIp { ips, endpoints, .. } => (ips, endpoints),
            Kind::Headless(endpoints) => (&[], endpoints),
            Kind::External(_) | Kind::Nothing => return Vec::new(),
        };
        let mut all: Vec<IpAddr> = endpoints.targets().map(|t| t.addr).chain(ips.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What has names below the Service's.
    pub(crate) fn endpoints(&self) -> Option<&Endpoints> {
        match &self.kind {
            Kind::ClusterIp { endpoints, .. } | Kind::Headless(endpoints) => Some(endpoints),
            Kind::External(_) | Kind::Nothing => None,
        }
    }
}

impl Endpoints {
    fn new(endpoints: &[DnsEndpoint]) -> Self {
        // Shared with whoever gave it, as it nearly always is in lower case.
        let lower = |h: &Arc<str>| match h.bytes().any(|b| b.is_ascii_uppercase()) {
            true => h.to_ascii_lowercase().into(),
            false => h.clone(),
        };
        let mut hostnames: Vec<Arc<str>> =
            endpoints.iter().filter_map(|e| e.hostname.as_ref()).map(lower).collect();
        hostnames.retain(|h| (1..=63).contains(&h.len()));
        hostnames.sort_unstable();
        hostnames.dedup();
        let mut ports: Vec<Arc<[DnsPort]>> = Vec::new();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for e in endpoints {
            let host = e.hostname.as_ref().and_then(|h| hostnames.binary_search(&lower(h)).ok());
            let host = host.map_or(NAMELESS, |i| i as u32);
            // Endpoints of one slice share the allocation, and the last slice is the likely one.
            let group = ports.iter().rposition(|p| Arc::ptr_eq(p, &e.ports) || **p == *e.ports);
            let group = group.unwrap_or_else(|| {
                ports.push(e.ports.clone());
                ports.len() - 1
            }) as u32;
            match e.addr {
                IpAddr::V4(addr) => v4.push(Endpoint { addr, host, ports: group }),
                IpAddr::V6(addr) => v6.push(Endpoint { addr, host, ports: group }),
            }
        }
        v4.sort_unstable();
        v4.dedup();
        v6.sort_unstable();
        v6.dedup();
        Self { v4: v4.into(), v6: v6.into(), hostnames: hostnames.into(), ports: ports.into() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn target<A: Into<IpAddr> + Copy>(&self, e: &Endpoint<A>) -> Target<'_> {
        Target {
            addr: e.addr.into(),
            hostname: self.hostnames.get(e.host as usize).map(|h| h.as_bytes()),
            ports: self.ports.get(e.ports as usize).map_or(&[], |p| p),
        }
    }

    /// Number of IPv4 and of IPv6 endpoints.
    pub(crate) fn families(&self) -> (usize, usize) {
        (self.v4.len(), self.v6.len())
    }

    /// The `i`th endpoint: first IPv4, then IPv6, each by address.
    pub(crate) fn get(&self, i: usize) -> Option<Target<'_>> {
        match self.v4.get(i) {
            Some(e) => Some(self.target(e)),
            None => self.v6.get(i.checked_sub(self.v4.len())?).map(|e| self.target(e)),
        }
    }

    pub(crate) fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        self.v4.iter().map(|e| self.target(e)).chain(self.v6.iter().map(|e| self.target(e)))
    }

    /// Endpoints at `ip`; several when slices list it with other ports.
    pub(crate) fn at(&self, ip: IpAddr) -> impl Iterator<Item = Target<'_>> {
        let range = match ip {
            IpAddr::V4(ip) => range(&self.v4, ip),
            IpAddr::V6(ip) => {
                let r = range(&self.v6, ip);
                r.start + self.v4.len()..r.end + self.v4.len()
            }
        };
        range.filter_map(|i| self.get(i))
    }

    /// Endpoints whose name is `label`: their hostname, else their address with dashes.
    pub(crate) fn named(&self, label: &[u8]) -> Vec<Target<'_>> {
        if let Ok(host) = self.hostnames.binary_search_by(|h| h.as_bytes().cmp(label)) {
            let host = host as u32;
            let v4 = self.v4.iter().filter(|e| e.host == host).map(|e| self.target(e));
            return v4.chain(self.v6.iter().filter(|e| e.host == host).map(|e| self.target(e))).collect();
        }
        match dashed_to_ip(label) {
            Some(ip) => self.at(ip).filter(|t| t.hostname.is_none()).collect(),
            None => Vec::new(),
        }
    }
}

fn range<A: Ord>(endpoints: &[Endpoint<A>], addr: A) -> std::ops::Range<usize> {
    let from = endpoints.partition_point(|e| e.addr < addr);
    let to = from + endpoints[from..].partition_point(|e| e.addr <= addr);
    from..to
}

/// An address as a label: dots and colons become dashes, as CoreDNS does it. Gives its length.
pub(crate) fn ip_to_dashed(ip: IpAddr, label: &mut [u8; 64]) -> usize {
    use std::io::Write;
    let mut rest = &mut label[..];
    // 39 characters at most.
    let _ = write!(rest, "{ip}");
    let len = 64 - rest.len();
    label[..len].iter_mut().filter(|b| matches!(b, b'.' | b':')).for_each(|b| *b = b'-');
    len
}

/// The address that [`ip_to_dashed`] makes `label` of; other spellings of it are no name.
pub(crate) fn dashed_to_ip(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let dashes = text.bytes().filter(|b| *b == b'-').count();
    let ip: IpAddr = if dashes == 3 && !text.contains("--") {
        text.replace('-', ".").parse::<Ipv4Addr>().ok()?.into()
    } else {
        text.replace('-', ":").parse::<Ipv6Addr>().ok()?.into()
    };
    let mut canonical = [0; 64];
    let len = ip_to_dashed(ip, &mut canonical);
    (&canonical[..len] == label).then_some(ip)
}

/// A protocol's label without its underscore.
pub(crate) fn protocol_label(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::TCP => b"tcp",
        Protocol::UDP => b"udp",
        Protocol::SCTP => b"sctp",
    }
}
