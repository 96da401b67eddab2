//! A zone as a sequence of records: what a transfer holds (RFC 5936). The selection is that of CoreDNS' `kubernetes` —
//! Services, endpoints of headless ones, named ports — and with it what users add; each record as a look-up gives it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use eastwest_compile::DnsPort;

use super::entry::{Target, protocol_label};
use super::lookup::{VERSION, VERSION_TTL};
use super::names::{Joined, PortFilter, endpoint_name, weight};
use super::{Entry, Kind, State, Zones};
use crate::wire::{Name, rtype};
use crate::writer::{Data, Owner};

/// One record of a zone.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    owner: Box<[u8]>,
    pub(crate) rtype: u16,
    pub(crate) ttl: u32,
    data: Stored,
}

#[derive(Clone, Debug)]
enum Stored {
    Raw(Box<[u8]>),
    Name(Box<[u8]>),
    Srv { weight: u16, port: u16, target: Box<[u8]> },
    Soa { mname: Box<[u8]>, rname: Box<[u8]>, numbers: [u32; 5] },
}

impl Item {
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner::Name(&self.owner)
    }

    pub(crate) fn data(&self) -> Data<'_> {
        match &self.data {
            Stored::Raw(bytes) => Data::Raw(bytes),
            Stored::Name(name) => Data::Name(name),
            Stored::Srv { weight, port, target } => Data::Srv { weight: *weight, port: *port, target },
            Stored::Soa { mname, rname, numbers } => Data::Soa { mname, rname, numbers: *numbers },
        }
    }
}

/// A moment of a zone of ours.
#[derive(Debug)]
pub(crate) struct Zone {
    state: Arc<State>,
    name: Name,
}

impl Zone {
    /// The zone of that very name.
    pub(crate) fn new(state: Arc<State>, name: &Name) -> Option<Self> {
        let name = state.zones.names.iter().find(|z| *z == name)?.clone();
        Some(Self { state, name })
    }

    pub(crate) fn serial(&self) -> u32 {
        self.state.serial
    }

    pub(crate) fn synced(&self) -> bool {
        self.state.synced
    }

    /// What stands at both ends of a transfer.
    pub(crate) fn soa(&self) -> Item {
        let zone = self.name.wire();
        let ttl = self.state.zones.ttl;
        Item {
            owner: zone.into(),
            rtype: rtype::SOA,
            ttl: ttl.min(300),
            data: Stored::Soa {
                mname: [b"\x02ns\x03dns", zone].concat().into(),
                rname: [b"\x0ahostmaster", zone].concat().into(),
                numbers: [self.state.serial, 7200, 1800, 86_400, ttl],
            },
        }
    }

    /// Everything between; made Service by Service as it is asked for.
    pub(crate) fn items(self) -> impl Iterator<Item = Item> + Send {
        let Self { state, name } = self;
        let mut services: Vec<Arc<Entry>> = state.services.iter().map(|(_, e)| e.clone()).collect();
        services.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let records = recorded(&state, &name);
        let zones = state.zones.clone();
        let apex = apex(&zones, &name);
        let of_service = move |entry: Arc<Entry>| of_service(&zones, &name, &entry);
        apex.into_iter().chain(services.into_iter().flat_map(of_service)).chain(records)
    }
}

fn apex(zones: &Zones, zone: &Name) -> Vec<Item> {
    let mut items = Vec::new();
    let owner: Box<[u8]> = [b"\x02ns\x03dns", zone.wire()].concat().into();
    let data = Stored::Name(owner.clone());
    items.push(Item { owner: zone.wire().into(), rtype: rtype::NS, ttl: zones.ttl, data });
    items.extend(zones.ns_addresses.iter().map(|ip| address(&owner, zones.ttl, *ip)));
    items.push(Item {
        owner: [b"\x0bdns-version", zone.wire()].concat().into(),
        rtype: rtype::TXT,
        ttl: VERSION_TTL,
        data: Stored::Raw(VERSION.into()),
    });
    items
}

fn address(owner: &[u8], ttl: u32, ip: IpAddr) -> Item {
    let (rtype, data) = match ip {
        IpAddr::V4(ip) => (rtype::A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (rtype::AAAA, ip.octets().to_vec()),
    };
    Item { owner: owner.into(), rtype, ttl, data: Stored::Raw(data.into()) }
}

fn of_service(zones: &Zones, zone: &Name, entry: &Entry) -> Vec<Item> {
    let mut items = Vec::new();
    let namespace = entry.key.get(usize::from(entry.key[0]) + 1..).unwrap_or_default();
    let Some(base) = Joined::new(&[&entry.key, b"\x03svc", zone.wire()]) else { return items };
    let (base, ttl) = (base.as_slice(), zones.ttl);
    if !zones.exposes(namespace) {
        return items;
    }
    let srv = |owner: &[u8], weight, port, target: &[u8]| Item {
        owner: owner.into(),
        rtype: rtype::SRV,
        ttl,
        data: Stored::Srv { weight, port, target: target.into() },
    };
    match &entry.kind {
        Kind::Nothing => {}
        Kind::External(target) => items.push(Item {
            owner: base.into(),
            rtype: rtype::CNAME,
            ttl,
            data: Stored::Name(target.clone()),
        }),
        Kind::ClusterIp { endpoints, .. } if zones.denies(endpoints) => {}
        Kind::Headless(_) if zones.no_endpoints => {}
        Kind::ClusterIp { ips, ports, .. } => {
            items.extend(ips.iter().map(|ip| address(base, ttl, *ip)));
            let all = weight(ports.len() * ips.len());
            items.extend(ports.iter().map(|p| srv(base, all, p.port, base)));
            for p in ports.iter() {
                let Some(owner) = port_name(p, base) else { continue };
                items.push(srv(&owner, weight(ips.len()), p.port, base));
            }
        }
        Kind::Headless(endpoints) => {
            let mut seen = HashSet::new();
            // An address may stand in several slices, and several endpoints may share a name.
            items.extend(
                endpoints.targets().filter(|t| seen.insert(t.addr)).map(|t| address(base, ttl, t.addr)),
            );
            let mut ports: Vec<(Box<[u8]>, u16)> = Vec::new();
            for p in endpoints.targets().flat_map(|t| t.ports) {
                let Some(owner) = port_name(p, base).filter(|o| ports.iter().all(|(known, _)| known != o))
                else {
                    continue;
                };
                let filter = PortFilter::new(p.name.as_bytes(), protocol_label(p.protocol));
                let matching = |t: Target<'_>| t.ports.iter().filter(|p| filter.matches(p)).count();
                ports.push((owner, weight(endpoints.targets().map(matching).sum())));
            }
            let mut named = HashSet::new();
            let mut served = HashSet::new();
            for t in endpoints.targets() {
                let Some(name) = endpoint_name(entry, zone, &t) else { continue };
                if named.insert((t.hostname, t.addr)) {
                    items.push(address(name.as_slice(), ttl, t.addr));
                }
                for p in t.ports {
                    let owner = port_name(p, base);
                    let at = owner.and_then(|o| ports.iter().position(|(known, _)| *known == o));
                    let Some(at) = at else { continue };
                    let nameless = t.hostname.is_none().then_some(t.addr);
                    if served.insert((at, t.hostname, nameless, p.port)) {
                        let (owner, weight) = &ports[at];
                        items.push(srv(owner, *weight, p.port, name.as_slice()));
                    }
                }
            }
        }
    }
    items
}

/// `_port._protocol` before `base`; none for a port without a name.
fn port_name(port: &DnsPort, base: &[u8]) -> Option<Box<[u8]>> {
    if port.name.is_empty() || port.name.len() > 62 {
        return None;
    }
    let name = port.name.to_ascii_lowercase();
    let protocol = protocol_label(port.protocol);
    let head = |label: &[u8]| [label.len() as u8 + 1, b'_'];
    let parts = [&head(name.as_bytes())[..], name.as_bytes(), &head(protocol), protocol, base];
    Some(Joined::new(&parts)?.as_slice().into())
}

/// Records of users, but for those that a name of the cluster stands before.
fn recorded(state: &State, zone: &Name) -> Vec<Item> {
    let mut items = Vec::new();
    for (wire, sets) in state.records.iter() {
        let Some((name, _)) = Name::read(wire, 0) else { continue };
        // The longest zone has the name.
        let Some((_, depth)) = state.zones.zone_of(&name).filter(|(z, _)| *z == zone) else { continue };
        for set in sets.iter() {
            if state.zones.has(state, &name, depth, set.rtype) {
                continue;
            }
            items.extend(set.data.iter().map(|data| Item {
                owner: wire.into(),
                rtype: set.rtype,
                ttl: set.ttl.unwrap_or(state.zones.ttl),
                data: Stored::Raw(data.clone()),
            }));
        }
    }
    items.sort_by(|a, b| a.owner.cmp(&b.owner));
    items
}
