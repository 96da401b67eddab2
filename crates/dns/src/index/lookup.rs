//! From a name and a type to records (kubernetes/dns specification 1.1.0; where it is silent, CoreDNS' `kubernetes`
//! plugin). Differs from CoreDNS where RFC 8020 asks for it: a name that has names below it exists, and a name that
//! does not exist is NXDOMAIN for every type.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use eastwest_compile::DnsPort;

use super::entry::{dashed_to_ip, ip_to_dashed, protocol_label};
use super::{Entry, Index, Kind, PodMode, State};
use crate::wire::{NAME_MAX, Name, rcode, rtype};
use crate::writer::{Data, Owner, Section, Writer};

/// The schema that `dns-version.ZONE` names, and its TTL (specification §2.2).
const VERSION: &[u8] = b"\x051.1.0";
const VERSION_TTL: u32 = 28_800;
/// CNAMEs followed in one answer; CoreDNS follows as many.
const CHAIN_MAX: usize = 8;

/// How a look-up ended.
#[derive(Debug)]
pub(crate) enum Found {
    /// The response is complete with this code.
    Done(u16),
    /// The name is in none of our zones, nor an address of ours.
    Outside,
    /// CNAMEs are written and lead outside, to this name.
    Chase(Box<Name>),
}

/// What one name has for one type.
enum Match {
    /// Records were written.
    Records,
    /// The name exists without records of the type.
    NoData,
    /// The name does not exist.
    NoName,
    /// The name is an alias of this one.
    Alias(Box<Name>),
    Refused,
    Outside,
}

/// A name as runs of labels; the last one ends with the root.
struct Joined {
    wire: [u8; NAME_MAX],
    len: usize,
}

impl Joined {
    /// `None`: longer than a name may be.
    fn new(parts: &[&[u8]]) -> Option<Self> {
        let mut name = Self { wire: [0; NAME_MAX], len: 0 };
        for part in parts {
            name.wire.get_mut(name.len..name.len + part.len())?.copy_from_slice(part);
            name.len += part.len();
        }
        Some(name)
    }

    fn as_slice(&self) -> &[u8] {
        &self.wire[..self.len]
    }
}

impl Index {
    /// Answers `name` `qtype` from `state` into `w`, following CNAMEs within our zones.
    pub(crate) fn resolve(&self, state: &State, name: &Name, qtype: u16, w: &mut Writer<'_>) -> Found {
        let mut followed: Option<Box<Name>> = None;
        for _ in 0..CHAIN_MAX {
            let (here, owner) = match &followed {
                None => (name, Owner::Question),
                Some(n) => (&**n, Owner::Name(n.wire())),
            };
            let found = self.find(state, here, qtype, owner, w);
            // A name that may yet turn up is not denied.
            let missing = if state.synced { rcode::NXDOMAIN } else { rcode::SERVFAIL };
            let code = match found {
                Match::Alias(next) => {
                    w.authoritative();
                    if next.wire() == here.wire() {
                        return Found::Done(rcode::NOERROR);
                    }
                    followed = Some(next);
                    continue;
                }
                Match::Outside => {
                    return match followed {
                        None => Found::Outside,
                        Some(target) => Found::Chase(target),
                    };
                }
                Match::Refused => return Found::Done(rcode::REFUSED),
                Match::Records => rcode::NOERROR,
                Match::NoData => {
                    self.soa(state, here, Section::Authority, w);
                    rcode::NOERROR
                }
                Match::NoName => {
                    if state.synced {
                        self.soa(state, here, Section::Authority, w);
                    }
                    missing
                }
            };
            w.authoritative();
            return Found::Done(code);
        }
        // Too long a chain, or a loop: what was written stands, and the asker may judge.
        Found::Done(rcode::NOERROR)
    }

    fn zone_of(&self, name: &Name) -> Option<(&Name, usize)> {
        let zones = self.zones.names.iter().filter_map(|z| name.below(z).map(|k| (z, k)));
        zones.min_by_key(|(_, k)| *k)
    }

    fn find(&self, state: &State, name: &Name, qtype: u16, owner: Owner<'_>, w: &mut Writer<'_>) -> Match {
        let Some((zone, k)) = self.zone_of(name) else {
            return self.reverse(state, name, qtype, owner, w);
        };
        if matches!(qtype, rtype::AXFR | rtype::IXFR) {
            return Match::Refused;
        }
        let found = self.in_zone(state, name, zone, k, qtype, owner, w);
        if state.records.is_empty() {
            return found;
        }
        // Names of the cluster come before those its users add.
        match found {
            Match::NoData => self.recorded(state, name, None, qtype, owner, w).unwrap_or(Match::NoData),
            Match::NoName => self.recorded(state, name, Some(k), qtype, owner, w).unwrap_or(Match::NoName),
            found => found,
        }
    }

    /// DnsRecord objects; `depth`: labels before the zone, given when wildcards count (RFC 4592).
    fn recorded(
        &self,
        state: &State,
        name: &Name,
        depth: Option<usize>,
        qtype: u16,
        owner: Owner<'_>,
        w: &mut Writer<'_>,
    ) -> Option<Match> {
        let mut sets = state.records.get(name.wire());
        if sets.is_none() {
            if state.records.is_interior(name.wire()) {
                return Some(Match::NoData);
            }
            for i in 1..=depth? {
                let encloser = name.suffix(i);
                let wildcard = Joined::new(&[b"\x01*", encloser])?;
                sets = state.records.get(wildcard.as_slice());
                let exists = state.records.get(encloser).is_some()
                    || state.records.is_interior(encloser)
                    || state.services.contains(name.labels(i, (i + 2).min(name.count())));
                if sets.is_some() || exists {
                    break;
                }
            }
        }
        let sets = sets?;
        let mut wrote = false;
        for set in sets.iter().filter(|s| s.rtype == qtype) {
            for data in rotated(set.data.len()).filter_map(|i| set.data.get(i)) {
                wrote = true;
                if !w.record(
                    Section::Answer,
                    owner,
                    qtype,
                    set.ttl.unwrap_or(self.zones.ttl),
                    Data::Raw(data),
                ) {
                    break;
                }
            }
        }
        if wrote {
            return Some(Match::Records);
        }
        let alias = sets.iter().find(|s| s.rtype == rtype::CNAME);
        if let Some((set, data)) = alias.and_then(|s| s.data.first().map(|d| (s, d))) {
            let ttl = set.ttl.unwrap_or(self.zones.ttl);
            w.record(Section::Answer, owner, rtype::CNAME, ttl, Data::Raw(data));
            return Name::read(data, 0).map(|(target, _)| Match::Alias(Box::new(target)));
        }
        Some(Match::NoData)
    }

    #[allow(clippy::too_many_arguments)]
    fn in_zone(
        &self,
        state: &State,
        name: &Name,
        zone: &Name,
        k: usize,
        qtype: u16,
        owner: Owner<'_>,
        w: &mut Writer<'_>,
    ) -> Match {
        if k == 0 {
            return self.apex(state, name, zone, qtype, owner, w);
        }
        let exists = |yes: bool| if yes { Match::NoData } else { Match::NoName };
        match name.label(k - 1) {
            b"svc" => match k {
                1 => Match::NoData,
                2 => exists(self.namespace_exists(state, name.labels(0, 1))),
                3..=5 => match state.services.get(name.labels(k - 3, k - 1)) {
                    Some(entry) => self.service(entry, name, zone, k - 3, qtype, owner, w),
                    None => Match::NoName,
                },
                _ => Match::NoName,
            },
            b"pod" => match k {
                1 => Match::NoData,
                _ if self.zones.pods == PodMode::Disabled => Match::NoName,
                2 => exists(self.namespace_exists(state, name.labels(0, 1))),
                3 if self.namespace_exists(state, name.labels(1, 2)) => match dashed_to_ip(name.label(0)) {
                    Some(ip) => self.addresses(&[ip], qtype, owner, w),
                    None => Match::NoName,
                },
                _ => Match::NoName,
            },
            b"dns" if k == 1 => Match::NoData,
            b"dns" if k == 2 && name.label(0) == b"ns" => {
                self.addresses(&self.zones.ns_addresses, qtype, owner, w)
            }
            b"dns-version" if k == 1 => {
                if qtype != rtype::TXT {
                    return Match::NoData;
                }
                w.record(Section::Answer, owner, qtype, VERSION_TTL, Data::Raw(VERSION));
                Match::Records
            }
            _ => Match::NoName,
        }
    }

    fn namespace_exists(&self, state: &State, label: &[u8]) -> bool {
        state.namespaces.contains(label)
    }

    fn apex(
        &self,
        state: &State,
        name: &Name,
        zone: &Name,
        qtype: u16,
        owner: Owner<'_>,
        w: &mut Writer<'_>,
    ) -> Match {
        match qtype {
            rtype::SOA => {
                self.soa(state, name, Section::Answer, w);
                Match::Records
            }
            rtype::NS => {
                let Some(ns) = Joined::new(&[b"\x02ns\x03dns", zone.wire()]) else { return Match::NoData };
                w.record(Section::Answer, owner, qtype, self.zones.ttl, Data::Name(ns.as_slice()));
                for ip in &self.zones.ns_addresses {
                    self.address(Section::Additional, Owner::Name(ns.as_slice()), *ip, w);
                }
                Match::Records
            }
            _ => Match::NoData,
        }
    }

    /// The `labels` before `SERVICE.NAMESPACE.svc` decide: none, the Service itself; one, an endpoint; two, a port.
    #[allow(clippy::too_many_arguments)]
    fn service(
        &self,
        entry: &Entry,
        name: &Name,
        zone: &Name,
        labels: usize,
        qtype: u16,
        owner: Owner<'_>,
        w: &mut Writer<'_>,
    ) -> Match {
        let port = (labels == 2).then(|| PortFilter::new(name.label(0), name.label(1)));
        match &entry.kind {
            Kind::External(target) if labels == 0 => {
                w.record(Section::Answer, owner, rtype::CNAME, self.zones.ttl, Data::Name(target));
                match Name::read(target, 0) {
                    Some((target, _)) if qtype != rtype::CNAME => Match::Alias(Box::new(target)),
                    _ => Match::Records,
                }
            }
            Kind::External(_) | Kind::Nothing => Match::NoName,
            Kind::ClusterIp { ips, ports } => match labels {
                0 => self.cluster_ip(entry, zone, ips, ports, &PortFilter::ANY, qtype, owner, w),
                1 if below_ports(name.label(0), ports) => Match::NoData,
                1 => Match::NoName,
                _ => self.cluster_ip(
                    entry,
                    zone,
                    ips,
                    ports,
                    &port.unwrap_or(PortFilter::ANY),
                    qtype,
                    owner,
                    w,
                ),
            },
            Kind::Headless(h) if h.is_empty() => Match::NoName,
            Kind::Headless(h) => match labels {
                0 if matches!(qtype, rtype::A | rtype::AAAA) => {
                    let (v4, v6) = h.families();
                    let (from, n) = if qtype == rtype::A { (0, v4) } else { (v4, v6) };
                    for i in rotated(n) {
                        let Some(target) = h.get(from + i) else { break };
                        // Slices may list an address twice; equal ones stand side by side, and the first is taken.
                        let before = i.checked_sub(1).and_then(|i| h.get(from + i));
                        if before.is_none_or(|b| b.addr != target.addr)
                            && !self.address(Section::Answer, owner, target.addr, w)
                        {
                            break;
                        }
                    }
                    if n == 0 { Match::NoData } else { Match::Records }
                }
                0 => {
                    let all: Vec<_> = if qtype == rtype::SRV { h.targets().collect() } else { Vec::new() };
                    self.endpoints(entry, zone, &all, &PortFilter::ANY, qtype, owner, w)
                }
                1 => {
                    let targets = h.named(name.label(0));
                    if targets.is_empty() {
                        let below = h.targets().any(|t| below_ports(name.label(0), t.ports));
                        return if below { Match::NoData } else { Match::NoName };
                    }
                    self.endpoints(entry, zone, &targets, &PortFilter::ANY, qtype, owner, w)
                }
                _ => {
                    let filter = port.unwrap_or(PortFilter::ANY);
                    let targets: Vec<_> =
                        h.targets().filter(|t| t.ports.iter().any(|p| filter.matches(p))).collect();
                    if targets.is_empty() {
                        return Match::NoName;
                    }
                    self.endpoints(entry, zone, &targets, &filter, qtype, owner, w)
                }
            },
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn cluster_ip(
        &self,
        entry: &Entry,
        zone: &Name,
        ips: &[IpAddr],
        ports: &[DnsPort],
        filter: &PortFilter<'_>,
        qtype: u16,
        owner: Owner<'_>,
        w: &mut Writer<'_>,
    ) -> Match {
        let matching = ports.iter().filter(|p| filter.matches(p));
        let n = matching.clone().count();
        if n == 0 && !filter.is_any() {
            return Match::NoName;
        }
        if qtype != rtype::SRV {
            return self.addresses(ips, qtype, owner, w);
        }
        let Some(target) = Joined::new(&[&entry.key, b"\x03svc", zone.wire()]) else { return Match::NoData };
        for port in matching {
            let data =
                Data::Srv { weight: weight(n * ips.len()), port: port.port, target: target.as_slice() };
            w.record(Section::Answer, owner, qtype, self.zones.ttl, data);
        }
        if n == 0 {
            return Match::NoData;
        }
        for ip in ips {
            self.address(Section::Additional, Owner::Name(target.as_slice()), *ip, w);
        }
        Match::Records
    }

    /// A/AAAA of `targets`, or SRV of their ports that match, with the addresses of the names they point to.
    #[allow(clippy::too_many_arguments)]
    fn endpoints(
        &self,
        entry: &Entry,
        zone: &Name,
        targets: &[super::entry::Target<'_>],
        filter: &PortFilter<'_>,
        qtype: u16,
        owner: Owner<'_>,
        w: &mut Writer<'_>,
    ) -> Match {
        if qtype != rtype::SRV {
            let mut ips: Vec<IpAddr> = targets.iter().map(|t| t.addr).collect();
            ips.dedup();
            return self.addresses(&ips, qtype, owner, w);
        }
        let matching = |t: &super::entry::Target<'_>| t.ports.iter().filter(|p| filter.matches(p)).count();
        let weight = weight(targets.iter().map(matching).sum());
        let order: Vec<_> = rotated(targets.len()).filter_map(|i| targets.get(i)).collect();
        let mut seen = std::collections::HashSet::new();
        let mut any = false;
        let mut full = false;
        for t in &order {
            let Some(target) = endpoint_name(entry, zone, t) else { continue };
            for port in t.ports.iter().filter(|p| filter.matches(p)) {
                any = true;
                // Endpoints that share a name share the record.
                let nameless = t.hostname.is_none().then_some(t.addr);
                if full || !seen.insert((t.hostname, nameless, port.port)) {
                    continue;
                }
                let data = Data::Srv { weight, port: port.port, target: target.as_slice() };
                full = !w.record(Section::Answer, owner, qtype, self.zones.ttl, data);
            }
        }
        if !any {
            return Match::NoData;
        }
        let mut told = std::collections::HashSet::new();
        for t in order.iter().filter(|_| !full) {
            let Some(target) = endpoint_name(entry, zone, t) else { continue };
            if told.insert((t.hostname, t.addr))
                && !self.address(Section::Additional, Owner::Name(target.as_slice()), t.addr, w)
            {
                break;
            }
        }
        Match::Records
    }

    fn addresses(&self, ips: &[IpAddr], qtype: u16, owner: Owner<'_>, w: &mut Writer<'_>) -> Match {
        let wanted = |ip: &&IpAddr| match qtype {
            rtype::A => ip.is_ipv4(),
            rtype::AAAA => ip.is_ipv6(),
            _ => false,
        };
        let n = ips.iter().filter(wanted).count();
        let from = if n > 1 { fastrand::usize(..n) } else { 0 };
        for ip in ips.iter().filter(wanted).cycle().skip(from).take(n) {
            if !self.address(Section::Answer, owner, *ip, w) {
                break;
            }
        }
        if n == 0 { Match::NoData } else { Match::Records }
    }

    fn address(&self, section: Section, owner: Owner<'_>, ip: IpAddr, w: &mut Writer<'_>) -> bool {
        let ttl = self.zones.ttl;
        match ip {
            IpAddr::V4(ip) => w.record(section, owner, rtype::A, ttl, Data::Raw(&ip.octets())),
            IpAddr::V6(ip) => w.record(section, owner, rtype::AAAA, ttl, Data::Raw(&ip.octets())),
        }
    }

    /// PTR of an address that a Service or an endpoint of a headless one has. Others are for the upstreams to know,
    /// as with kubeadm's `fallthrough in-addr.arpa ip6.arpa`.
    fn reverse(&self, state: &State, name: &Name, qtype: u16, owner: Owner<'_>, w: &mut Writer<'_>) -> Match {
        let Some(ip) = arpa_to_ip(name) else { return Match::Outside };
        let Some(owners) = state.reverse.get(&ip) else {
            return self.recorded(state, name, None, qtype, owner, w).unwrap_or(Match::Outside);
        };
        if qtype != rtype::PTR {
            return Match::NoData;
        }
        let entries = || owners.as_slice().iter().filter_map(|key| state.services.get(key));
        let zone = &self.zones.names[0];
        let ttl = self.zones.ttl;
        if let Some(entry) = entries().find(|e| matches!(e.kind, Kind::ClusterIp { .. })) {
            if let Some(target) = Joined::new(&[&entry.key, b"\x03svc", zone.wire()]) {
                w.record(Section::Answer, owner, rtype::PTR, ttl, Data::Name(target.as_slice()));
            }
            return Match::Records;
        }
        let mut found = Match::NoData;
        for entry in entries() {
            let Kind::Headless(h) = &entry.kind else { continue };
            let mut last = None;
            for t in h.at(ip) {
                let Some(target) = endpoint_name(entry, zone, &t) else { continue };
                if last.replace(t.hostname) != Some(t.hostname) {
                    w.record(Section::Answer, owner, rtype::PTR, ttl, Data::Name(target.as_slice()));
                    found = Match::Records;
                }
            }
        }
        found
    }

    /// The SOA of the zone that `name` is in, as CoreDNS makes it.
    fn soa(&self, state: &State, name: &Name, section: Section, w: &mut Writer<'_>) {
        let zone = match self.zone_of(name) {
            Some((zone, _)) => zone.wire(),
            None if name.count() > 2 => name.suffix(name.count() - 2),
            None => return,
        };
        let (Some(mname), Some(rname)) = (
            Joined::new(&[
                b"\x02ns\x03dns",
                self.zone_of(name).map_or(self.zones.names[0].wire(), |z| z.0.wire()),
            ]),
            Joined::new(&[b"\x0ahostmaster", zone]),
        ) else {
            return;
        };
        let ttl = self.zones.ttl;
        let numbers = [state.serial, 7200, 1800, 86_400, ttl];
        let data = Data::Soa { mname: mname.as_slice(), rname: rname.as_slice(), numbers };
        w.record(section, Owner::Name(zone), rtype::SOA, ttl.min(300), data);
    }
}

/// `_port._protocol`; the underscores may be missing, and a lone one stands for any, as CoreDNS reads them.
struct PortFilter<'a> {
    name: &'a [u8],
    protocol: &'a [u8],
}

impl<'a> PortFilter<'a> {
    const ANY: PortFilter<'static> = PortFilter { name: b"", protocol: b"" };

    fn new(name: &'a [u8], protocol: &'a [u8]) -> Self {
        Self {
            name: name.strip_prefix(b"_").unwrap_or(name),
            protocol: protocol.strip_prefix(b"_").unwrap_or(protocol),
        }
    }

    fn is_any(&self) -> bool {
        self.name.is_empty() && self.protocol.is_empty()
    }

    fn matches(&self, port: &DnsPort) -> bool {
        (self.name.is_empty() || port.name.as_bytes().eq_ignore_ascii_case(self.name))
            && (self.protocol.is_empty() || protocol_label(port.protocol) == self.protocol)
    }
}

/// Whether `label` is the `_protocol` above a named port: such a name exists (RFC 8020).
fn below_ports(label: &[u8], ports: &[DnsPort]) -> bool {
    let Some(protocol) = label.strip_prefix(b"_") else { return false };
    ports.iter().any(|p| !p.name.is_empty() && protocol_label(p.protocol) == protocol)
}

/// CoreDNS' weight: a hundred shared evenly, at least 1.
fn weight(records: usize) -> u16 {
    (100 / records.max(1)).max(1) as u16
}

fn endpoint_name(entry: &Entry, zone: &Name, target: &super::entry::Target<'_>) -> Option<Joined> {
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
fn rotated(n: usize) -> impl Iterator<Item = usize> {
    let from = if n > 1 { fastrand::usize(..n) } else { 0 };
    (from..n).chain(0..from)
}

/// The address of `d.c.b.a.in-addr.arpa` or of 32 nibbles under `ip6.arpa`.
fn arpa_to_ip(name: &Name) -> Option<IpAddr> {
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
