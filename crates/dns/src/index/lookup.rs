//! From a name and a type to records (kubernetes/dns specification 1.1.0; where it is silent, CoreDNS' `kubernetes`
//! plugin). Differs from CoreDNS where RFC 8020 asks for it: a name that has names below it exists, and a name that
//! does not exist is NXDOMAIN for every type.

use std::net::IpAddr;

use eastwest_compile::DnsPort;

use super::entry::{Endpoints, Target, dashed_to_ip};
use super::names::{Joined, PortFilter, arpa_to_ip, below_ports, endpoint_name, rotated, weight};
use super::{Entry, Index, Kind, PodMode, State, Zones};
use crate::wire::{Name, Request, rcode, rtype};
use crate::writer::{Data, Limits, Owner, Scratch, Section, Transport, Writer};

/// The schema that `dns-version.ZONE` names, and its TTL (specification §2.2).
pub(super) const VERSION: &[u8] = b"\x051.1.0";
pub(super) const VERSION_TTL: u32 = 28_800;
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

/// One name asked of one moment of the index.
#[derive(Clone, Copy)]
struct Ask<'a> {
    state: &'a State,
    name: &'a Name,
    /// The zone it is in; for an address, the one its names are in.
    zone: &'a Name,
    qtype: u16,
    owner: Owner<'a>,
}

impl Index {
    /// Answers `name` `qtype` from `state` into `w`, following CNAMEs within our zones.
    pub(crate) fn resolve(state: &State, name: &Name, qtype: u16, w: &mut Writer<'_>) -> Found {
        state.zones.resolve(state, name, qtype, w)
    }
}

impl Zones {
    fn resolve(&self, state: &State, name: &Name, qtype: u16, w: &mut Writer<'_>) -> Found {
        let Some(first) = self.names.first() else { return Found::Outside };
        let mut followed: Option<Box<Name>> = None;
        for _ in 0..CHAIN_MAX {
            let (here, owner) = match &followed {
                None => (name, Owner::Question),
                Some(n) => (&**n, Owner::Name(n.wire())),
            };
            let zone = self.zone_of(here);
            let ask = Ask { state, name: here, zone: zone.map_or(first, |z| z.0), qtype, owner };
            let found = match zone {
                Some((_, labels)) => self.find(ask, labels, w),
                None => self.reverse(ask, w),
            };
            let found = match found {
                Match::NoName if state.synced && self.falls_through(here) => Match::Outside,
                found => found,
            };
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
                    self.soa(ask, Section::Authority, w);
                    rcode::NOERROR
                }
                Match::NoName => {
                    if state.synced {
                        self.soa(ask, Section::Authority, w);
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

    fn falls_through(&self, name: &Name) -> bool {
        self.fallthrough.iter().any(|z| name.below(z).is_some())
    }

    /// Whether the namespace exists as far as names go.
    fn has_namespace(&self, state: &State, label: &[u8]) -> bool {
        self.exposes(label) && state.namespaces.contains(label)
    }

    /// Whether a Service with these endpoints and addresses of its own does not exist. What is not looked at is none.
    pub(super) fn denies(&self, endpoints: &Endpoints) -> bool {
        self.ignore_empty && (endpoints.is_empty() || self.no_endpoints)
    }

    pub(super) fn exposes(&self, label: &[u8]) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(label)
    }

    pub(super) fn zone_of(&self, name: &Name) -> Option<(&Name, usize)> {
        let zones = self.names.iter().filter_map(|z| name.below(z).map(|k| (z, k)));
        zones.min_by_key(|(_, k)| *k)
    }

    /// A name in a zone of ours, `k` labels below its apex.
    fn find(&self, ask: Ask<'_>, k: usize, w: &mut Writer<'_>) -> Match {
        if matches!(ask.qtype, rtype::AXFR | rtype::IXFR) {
            return Match::Refused;
        }
        let found = self.in_zone(ask, k, w);
        if ask.state.records.is_empty() {
            return found;
        }
        // Names of the cluster come before those its users add.
        match found {
            Match::NoData => self.recorded(ask, None, w).unwrap_or(Match::NoData),
            Match::NoName => self.recorded(ask, Some(k), w).unwrap_or(Match::NoName),
            found => found,
        }
    }

    /// DnsRecord objects; `depth`: labels before the zone, given when wildcards count (RFC 4592).
    fn recorded(&self, ask: Ask<'_>, depth: Option<usize>, w: &mut Writer<'_>) -> Option<Match> {
        let Ask { state, name, qtype, owner, .. } = ask;
        let mut sets = state.records.get(name.wire());
        if sets.is_none() {
            if state.records.is_interior(name.wire()) {
                return Some(Match::NoData);
            }
            let depth = depth?;
            for i in 1..=depth {
                let encloser = name.suffix(i);
                let wildcard = Joined::new(&[b"\x01*", encloser])?;
                sets = state.records.get(wildcard.as_slice());
                let exists = state.records.get(encloser).is_some()
                    || state.records.is_interior(encloser)
                    || (i + 3 == depth
                        && name.label(i + 2) == b"svc"
                        && state.services.contains(name.labels(i, i + 2)));
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
                if !w.record(Section::Answer, owner, qtype, set.ttl.unwrap_or(self.ttl), Data::Raw(data)) {
                    break;
                }
            }
        }
        if wrote {
            return Some(Match::Records);
        }
        let alias = sets.iter().find(|s| s.rtype == rtype::CNAME);
        if let Some((set, data)) = alias.and_then(|s| s.data.first().map(|d| (s, d))) {
            let ttl = set.ttl.unwrap_or(self.ttl);
            w.record(Section::Answer, owner, rtype::CNAME, ttl, Data::Raw(data));
            return Name::read(data, 0).map(|(target, _)| Match::Alias(Box::new(target)));
        }
        Some(Match::NoData)
    }

    /// Whether the cluster itself, records of users aside, has records of that type or an alias for a name `k` labels
    /// below its zone.
    pub(super) fn has(&self, state: &State, name: &Name, k: usize, qtype: u16) -> bool {
        let request =
            [&[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], name.wire(), &qtype.to_be_bytes(), &[0, 1]].concat();
        let Request::Query(query) = Request::parse(&request) else { return false };
        let (mut out, mut scratch) = (Vec::new(), Scratch::default());
        let limits = Limits { udp: 512 };
        let mut w = Writer::new(&mut out, &mut scratch, &request, &query, Transport::Tcp, limits);
        let Some((zone, _)) = self.zone_of(name) else { return false };
        let ask = Ask { state, name, zone, qtype, owner: Owner::Question };
        matches!(self.in_zone(ask, k, &mut w), Match::Records | Match::Alias(_))
    }

    fn in_zone(&self, ask: Ask<'_>, k: usize, w: &mut Writer<'_>) -> Match {
        let Ask { state, name, qtype, owner, .. } = ask;
        if k == 0 {
            return self.apex(ask, w);
        }
        let exists = |yes: bool| if yes { Match::NoData } else { Match::NoName };
        match name.label(k - 1) {
            b"svc" => match k {
                1 => Match::NoData,
                2 => exists(self.has_namespace(state, name.labels(0, 1))),
                3..=5 => match state.services.get(name.labels(k - 3, k - 1)) {
                    Some(entry) if self.exposes(name.labels(k - 2, k - 1)) => {
                        self.service(entry, ask, k - 3, w)
                    }
                    _ => Match::NoName,
                },
                _ => Match::NoName,
            },
            b"pod" => match k {
                1 => Match::NoData,
                _ if self.pods == PodMode::Disabled => Match::NoName,
                2 => exists(self.has_namespace(state, name.labels(0, 1))),
                3 => match dashed_to_ip(name.label(0)) {
                    Some(ip) if self.has_pod(state, ip, name.labels(1, 2)) => self.addresses(&[ip], ask, w),
                    _ => Match::NoName,
                },
                _ => Match::NoName,
            },
            b"dns" if k == 1 => Match::NoData,
            b"dns" if k == 2 && name.label(0) == b"ns" => self.addresses(&self.ns_addresses, ask, w),
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

    fn has_pod(&self, state: &State, ip: IpAddr, namespace: &[u8]) -> bool {
        match self.pods {
            PodMode::Disabled => false,
            PodMode::Insecure => self.has_namespace(state, namespace),
            PodMode::Verified => self.exposes(namespace) && state.pod_namespace(ip) == Some(namespace),
        }
    }

    fn apex(&self, ask: Ask<'_>, w: &mut Writer<'_>) -> Match {
        let Ask { zone, qtype, owner, .. } = ask;
        match qtype {
            rtype::SOA => {
                self.soa(ask, Section::Answer, w);
                Match::Records
            }
            rtype::NS => {
                let Some(ns) = Joined::new(&[b"\x02ns\x03dns", zone.wire()]) else { return Match::NoData };
                w.record(Section::Answer, owner, qtype, self.ttl, Data::Name(ns.as_slice()));
                for ip in &self.ns_addresses {
                    self.address(Section::Additional, Owner::Name(ns.as_slice()), *ip, w);
                }
                Match::Records
            }
            _ => Match::NoData,
        }
    }

    /// The `labels` before `SERVICE.NAMESPACE.svc` decide: none, the Service itself; one, an endpoint; two, a port.
    fn service(&self, entry: &Entry, ask: Ask<'_>, labels: usize, w: &mut Writer<'_>) -> Match {
        let Ask { name, qtype, owner, .. } = ask;
        let filter = match labels {
            2 => PortFilter::new(name.label(0), name.label(1)),
            _ => PortFilter::ANY,
        };
        match &entry.kind {
            Kind::External(target) if labels == 0 => {
                w.record(Section::Answer, owner, rtype::CNAME, self.ttl, Data::Name(target));
                match Name::read(target, 0) {
                    Some((target, _)) if qtype != rtype::CNAME => Match::Alias(Box::new(target)),
                    _ => Match::Records,
                }
            }
            Kind::External(_) | Kind::Nothing => Match::NoName,
            Kind::ClusterIp { endpoints, .. } if self.denies(endpoints) => Match::NoName,
            Kind::ClusterIp { ips, ports, endpoints } => match labels {
                1 if below_ports(name.label(0), ports) => Match::NoData,
                1 if self.no_endpoints => Match::NoName,
                1 => match endpoints.named(name.label(0)) {
                    targets if targets.is_empty() => Match::NoName,
                    targets => self.endpoints(entry, ask, &targets, &filter, w),
                },
                _ => self.cluster_ip(entry, ask, ips, ports, &filter, w),
            },
            Kind::Headless(h) if h.is_empty() || self.no_endpoints => Match::NoName,
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
                    self.endpoints(entry, ask, &all, &filter, w)
                }
                1 => {
                    let targets = h.named(name.label(0));
                    if targets.is_empty() {
                        let below = h.targets().any(|t| below_ports(name.label(0), t.ports));
                        return if below { Match::NoData } else { Match::NoName };
                    }
                    self.endpoints(entry, ask, &targets, &filter, w)
                }
                _ => {
                    let targets: Vec<_> =
                        h.targets().filter(|t| t.ports.iter().any(|p| filter.matches(p))).collect();
                    if targets.is_empty() {
                        return Match::NoName;
                    }
                    self.endpoints(entry, ask, &targets, &filter, w)
                }
            },
        }
    }

    fn cluster_ip(
        &self,
        entry: &Entry,
        ask: Ask<'_>,
        ips: &[IpAddr],
        ports: &[DnsPort],
        filter: &PortFilter<'_>,
        w: &mut Writer<'_>,
    ) -> Match {
        let Ask { zone, qtype, owner, .. } = ask;
        let matching = ports.iter().filter(|p| filter.matches(p));
        let n = matching.clone().count();
        if n == 0 && !filter.is_any() {
            return Match::NoName;
        }
        if qtype != rtype::SRV {
            return self.addresses(ips, ask, w);
        }
        let Some(target) = Joined::new(&[&entry.key, b"\x03svc", zone.wire()]) else { return Match::NoData };
        for port in matching {
            let data =
                Data::Srv { weight: weight(n * ips.len()), port: port.port, target: target.as_slice() };
            w.record(Section::Answer, owner, qtype, self.ttl, data);
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
    fn endpoints(
        &self,
        entry: &Entry,
        ask: Ask<'_>,
        targets: &[Target<'_>],
        filter: &PortFilter<'_>,
        w: &mut Writer<'_>,
    ) -> Match {
        let Ask { zone, qtype, owner, .. } = ask;
        if qtype != rtype::SRV {
            let mut ips: Vec<IpAddr> = targets.iter().map(|t| t.addr).collect();
            ips.dedup();
            return self.addresses(&ips, ask, w);
        }
        let matching = |t: &Target<'_>| t.ports.iter().filter(|p| filter.matches(p)).count();
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
                full = !w.record(Section::Answer, owner, qtype, self.ttl, data);
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

    fn addresses(&self, ips: &[IpAddr], ask: Ask<'_>, w: &mut Writer<'_>) -> Match {
        let wanted = |ip: &&IpAddr| match ask.qtype {
            rtype::A => ip.is_ipv4(),
            rtype::AAAA => ip.is_ipv6(),
            _ => false,
        };
        let n = ips.iter().filter(wanted).count();
        let from = if n > 1 { fastrand::usize(..n) } else { 0 };
        for ip in ips.iter().filter(wanted).cycle().skip(from).take(n) {
            if !self.address(Section::Answer, ask.owner, *ip, w) {
                break;
            }
        }
        if n == 0 { Match::NoData } else { Match::Records }
    }

    fn address(&self, section: Section, owner: Owner<'_>, ip: IpAddr, w: &mut Writer<'_>) -> bool {
        let ttl = self.ttl;
        match ip {
            IpAddr::V4(ip) => w.record(section, owner, rtype::A, ttl, Data::Raw(&ip.octets())),
            IpAddr::V6(ip) => w.record(section, owner, rtype::AAAA, ttl, Data::Raw(&ip.octets())),
        }
    }

    /// PTR of an address that a Service or an endpoint has. With kubeadm's `fallthrough in-addr.arpa ip6.arpa` others
    /// are for the upstreams to know.
    fn reverse(&self, ask: Ask<'_>, w: &mut Writer<'_>) -> Match {
        let Ask { state, name, zone, qtype, owner } = ask;
        let ours = self.reverse.iter().any(|z| name.below(z).is_some());
        let missing = if ours && !self.falls_through(name) { Match::NoName } else { Match::Outside };
        let Some(ip) = arpa_to_ip(name).filter(|_| ours) else {
            let recorded = self.recorded(ask, None, w);
            return recorded.filter(|m| matches!(m, Match::Records)).unwrap_or(missing);
        };
        let owners = state.reverse.get(&ip).map_or(&[][..], |o| o);
        let exposed = |e: &&std::sync::Arc<Entry>| {
            self.exposes(e.key.get(usize::from(e.key[0]) + 1..).unwrap_or_default())
        };
        let entries = || owners.iter().filter_map(|key| state.services.get(key)).filter(exposed);
        if entries().next().is_none() {
            return self.recorded(ask, None, w).unwrap_or(missing);
        }
        let ttl = self.ttl;
        let is_service = |e: &&std::sync::Arc<Entry>| match &e.kind {
            Kind::ClusterIp { ips, .. } => ips.contains(&ip),
            _ => false,
        };
        let service = entries().find(is_service);
        if service.is_none() && self.no_endpoints {
            return self.recorded(ask, None, w).unwrap_or(missing);
        }
        if qtype != rtype::PTR {
            return Match::NoData;
        }
        if let Some(entry) = service {
            if let Some(target) = Joined::new(&[&entry.key, b"\x03svc", zone.wire()]) {
                w.record(Section::Answer, owner, rtype::PTR, ttl, Data::Name(target.as_slice()));
            }
            return Match::Records;
        }
        let mut found = Match::NoData;
        for entry in entries() {
            let Some(endpoints) = entry.endpoints() else { continue };
            let mut last = None;
            for t in endpoints.at(ip) {
                let Some(target) = endpoint_name(entry, zone, &t) else { continue };
                if last.replace(t.hostname) != Some(t.hostname) {
                    w.record(Section::Answer, owner, rtype::PTR, ttl, Data::Name(target.as_slice()));
                    found = Match::Records;
                }
            }
        }
        found
    }

    /// The SOA of the zone that the name is in, as CoreDNS makes it.
    fn soa(&self, ask: Ask<'_>, section: Section, w: &mut Writer<'_>) {
        let name = ask.name;
        let zone = match name.below(ask.zone) {
            Some(_) => ask.zone.wire(),
            // in-addr.arpa or ip6.arpa.
            None if name.count() > 2 => name.suffix(name.count() - 2),
            None => return,
        };
        let (Some(mname), Some(rname)) =
            (Joined::new(&[b"\x02ns\x03dns", zone]), Joined::new(&[b"\x0ahostmaster", zone]))
        else {
            return;
        };
        let ttl = self.ttl;
        let numbers = [ask.state.serial, 7200, 1800, 86_400, ttl];
        let data = Data::Soa { mname: mname.as_slice(), rname: rname.as_slice(), numbers };
        w.record(section, Owner::Name(zone), rtype::SOA, ttl.min(300), data);
    }
}
