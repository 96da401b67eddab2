//! Answers that are more than one look-up, put together of hickory's records: search lists walked for the client,
//! rewritten questions, templates, hosts files, DNS64.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV};
use hickory_proto::rr::{Name as HickoryName, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};

use super::fit;
use crate::cache::{ForwardError, Question};
use crate::hosts::Hosts;
use crate::index::{State, arpa_to_ip};
use crate::metrics::Plugin;
use crate::plan::{Autopath, Block, Dns64};
use crate::template::Values;
use crate::wire::{HEADER, Name, Query, presentation, rcode, rtype};
use crate::writer::{Limits, Transport};
use crate::{Next, Resolver, rewrite};

/// TTL of records of our own making, seconds.
const TTL: u32 = 30;
/// A search list of ndots:5 is applied to names of up to so many labels.
const NDOTS_LABELS: usize = 5;

/// An answer in the making.
#[derive(Debug, Default)]
pub(super) struct Got {
    rcode: u16,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additional: Vec<Record>,
    error: Option<ForwardError>,
    /// Names of a search list that were looked up on the way, with what came of each.
    pub(super) walked: Vec<(Name, u16)>,
}

impl Got {
    fn failed(error: ForwardError) -> Self {
        Self { rcode: rcode::SERVFAIL, error: Some(error), ..Self::default() }
    }

    fn records(answers: Vec<Record>) -> Self {
        Self { authoritative: true, answers, ..Self::default() }
    }
}

/// The part of `query`'s name before the first name of the client's search list, when that list is ours to walk.
pub(super) fn walks(block: &Block, state: &State, query: &Query, client: IpAddr) -> Option<usize> {
    let autopath = block.autopath.as_ref()?;
    if !matches!(query.qtype, rtype::A | rtype::AAAA) {
        return None;
    }
    let name = &query.name;
    let base = if autopath.pods {
        let namespace = state.pod_namespace(client)?;
        let zone = state.zones.names.first()?;
        // BASE.NAMESPACE.svc.ZONE.
        let base = name.below(zone)?.checked_sub(2)?;
        (name.label(base + 1) == b"svc" && name.labels(base, base + 1) == namespace).then_some(base)?
    } else {
        name.below(autopath.search.first()?)?
    };
    // A name of one label leads nowhere but to the cluster: the client may walk by itself, and nothing is asked of
    // the world in the name of a Service that is gone.
    let likely = !autopath.careful || (2..=NDOTS_LABELS).contains(&base);
    (base > 0 && likely).then_some(base)
}

/// Who made the answer to `query`, and what it is.
pub(super) async fn answer(
    resolver: &Arc<Resolver>,
    block: &Arc<Block>,
    query: &Query,
    client: SocketAddr,
) -> (Plugin, Got) {
    let ask = Ask { resolver, query, client };
    let rewritten = rewrite::apply(&block.rewrite, query.name.wire(), query.qtype);
    let Some(new) = rewritten else { return ask.with_dns64(block, &query.name, query.qtype).await };
    let Some((name, _)) = Name::read(&new.name, 0) else {
        return (Plugin::None, Got { rcode: rcode::FORMERR, ..Got::default() });
    };
    // Another name may be treated by another block, but is not rewritten again.
    let plan = resolver.plan.load_full();
    let other = plan.block(&name).unwrap_or(block);
    let (plugin, mut got) = ask.with_dns64(other, &name, new.qtype).await;
    let asked = hickory(&query.name);
    let became = hickory(&name);
    let sections = [&mut got.answers, &mut got.authority, &mut got.additional];
    for record in sections.into_iter().flatten() {
        let owner = record.name.to_ascii().to_ascii_lowercase();
        if record.name == became {
            record.name = asked.clone();
        } else if let Some(other) = rewrite::answer_name(&block.rewrite, &new.answers, &owner)
            && let Ok(other) = HickoryName::from_ascii(other)
        {
            record.name = other;
        }
        if let Some((from, to)) = new.ttl {
            record.ttl = record.ttl.clamp(from, to);
        }
    }
    (plugin, got)
}

fn hickory(name: &Name) -> HickoryName {
    // What was read off the wire as a name is one.
    HickoryName::from_bytes(name.wire()).unwrap_or_else(|_| HickoryName::root())
}

#[derive(Clone, Copy)]
struct Ask<'a> {
    resolver: &'a Arc<Resolver>,
    query: &'a Query,
    client: SocketAddr,
}

impl Ask<'_> {
    async fn with_dns64(self, block: &Arc<Block>, name: &Name, qtype: u16) -> (Plugin, Got) {
        let (plugin, got) = self.with_autopath(block, name, qtype).await;
        let Some(dns64) = &block.dns64 else { return (plugin, got) };
        let wanted = qtype == rtype::AAAA && (dns64.allow_ipv4 || self.client.is_ipv6());
        let has = got.answers.iter().any(|r| r.record_type() == RecordType::AAAA);
        if !wanted || got.rcode == rcode::NXDOMAIN || (has && !dns64.translate_all) {
            return (plugin, got);
        }
        let (by, v4) = self.with_autopath(block, name, rtype::A).await;
        if v4.rcode != rcode::NOERROR || !v4.answers.iter().any(|r| r.record_type() == RecordType::A) {
            return (plugin, got);
        }
        (by, synthesised(dns64, v4, &got))
    }

    async fn with_autopath(self, block: &Arc<Block>, name: &Name, qtype: u16) -> (Plugin, Got) {
        let first = self.chain(block, name, qtype).await;
        let Some(autopath) = &block.autopath else { return first };
        if first.1.rcode != rcode::NXDOMAIN || name != &self.query.name {
            return first;
        }
        let candidates = {
            let state = self.resolver.index.state();
            match walks(block, &state, self.query, self.client.ip()) {
                Some(base) => candidates(autopath, &state, name, base),
                None => return first,
            }
        };
        let plan = self.resolver.plan.load_full();
        let mut walked = vec![(name.clone(), first.1.rcode)];
        for candidate in candidates {
            let block = plan.block(&candidate).unwrap_or(block);
            let (plugin, mut got) = self.chain(block, &candidate, qtype).await;
            walked.push((candidate.clone(), got.rcode));
            if got.rcode != rcode::NOERROR {
                // What fails here fails for the client's own next step as well.
                continue;
            }
            let alias = Record::from_rdata(hickory(name), TTL, RData::CNAME(CNAME(hickory(&candidate))));
            got.answers.insert(0, alias);
            got.walked = walked;
            return (plugin, got);
        }
        let (plugin, mut got) = first;
        got.walked = walked;
        (plugin, got)
    }

    /// One name, asked of one after the other as CoreDNS' plugins stand.
    async fn chain(self, block: &Arc<Block>, name: &Name, qtype: u16) -> (Plugin, Got) {
        if block.local
            && let Some(got) = local(name, qtype)
        {
            return (Plugin::None, got);
        }
        if let Some(got) = self.template(block, name, qtype) {
            return (Plugin::Template, got);
        }
        for hosts in &block.hosts {
            if let Some(got) = from_hosts(hosts, name, qtype) {
                return (Plugin::Hosts, got);
            }
        }
        if block.kubernetes {
            let found = self.resolver.index.lookup_name(hickory(name), RecordType::from(qtype));
            let Some(found) = found else {
                return (Plugin::Kubernetes, Got { rcode: rcode::FORMERR, ..Got::default() });
            };
            let mut got = Got {
                rcode: u16::from(found.rcode),
                authoritative: true,
                answers: found.answers,
                authority: found.authority,
                additional: found.additional,
                error: None,
                ..Got::default()
            };
            match found.next {
                Next::Complete => return (Plugin::Kubernetes, got),
                Next::Forward => {}
                Next::Chase(target) => {
                    let wire = target.to_bytes().unwrap_or_default();
                    let Some((target, _)) = Name::read(&wire, 0) else {
                        return (Plugin::Kubernetes, got);
                    };
                    let plan = self.resolver.plan.load_full();
                    let block = plan.block(&target).unwrap_or(block);
                    let theirs = self.forward(block, &target, qtype).await;
                    if theirs.rcode == rcode::SERVFAIL {
                        return (Plugin::Forward, theirs);
                    }
                    got.rcode = theirs.rcode;
                    got.answers.extend(theirs.answers);
                    got.authority = theirs.authority;
                    return (Plugin::Forward, got);
                }
            }
        }
        if block.whoami && block.groups.is_empty() {
            return (Plugin::Whoami, self.whoami(name));
        }
        (Plugin::Forward, self.forward(block, name, qtype).await)
    }

    async fn forward(self, block: &Arc<Block>, name: &Name, qtype: u16) -> Got {
        let Some(group) = block.group(name) else { return Got::failed(ForwardError::NoUpstreams) };
        let question = Question::new(name.wire(), qtype, self.query);
        let reply = match self.resolver.forwarder.resolve(question, group).await {
            Ok(reply) => reply,
            Err(error) => return Got::failed(error),
        };
        let mut bytes = Vec::new();
        reply.write(&mut bytes, std::time::Instant::now());
        if block.loadbalance {
            reply.rotate(&mut bytes);
        }
        let Ok(message) = Message::from_vec(&bytes) else { return Got::failed(ForwardError::NoAnswer) };
        Got {
            rcode: reply.rcode,
            authoritative: false,
            answers: message.answers,
            authority: message.authorities,
            additional: message.additionals,
            error: None,
            ..Got::default()
        }
    }

    fn template(self, block: &Block, name: &Name, qtype: u16) -> Option<Got> {
        let text = presentation(name.wire());
        let kind = RecordType::from(qtype).to_string();
        let remote = self.client.ip().to_string();
        for t in &block.templates {
            let Some(zone) = t.zones.iter().find(|z| name.below(z).is_some()) else { continue };
            if t.qtype.is_some_and(|q| q != qtype) {
                continue;
            }
            let zone = presentation(zone.wire());
            let captures = t.matches.iter().find_map(|m| m.captures(&text));
            if captures.is_none() && !t.matches.is_empty() {
                if t.fallthrough.iter().any(|z| name.below(z).is_some()) {
                    continue;
                }
                // As CoreDNS: the template has the say in its zone, and says nothing.
                return Some(Got { rcode: rcode::NXDOMAIN, authoritative: true, ..Got::default() });
            }
            let values = Values {
                name: &text,
                zone: &zone,
                qtype: &kind,
                remote: &remote,
                captures: captures.as_ref(),
            };
            let all = |texts: &[crate::template::Text]| {
                texts.iter().map(|t| t.records(&values)).collect::<Option<Vec<_>>>().map(|v| v.concat())
            };
            let sections = (all(&t.answer), all(&t.authority), all(&t.additional));
            let (Some(answers), Some(authority), Some(additional)) = sections else {
                tracing::debug!(name = text, "a template gives no record");
                return Some(Got::failed(ForwardError::NoAnswer));
            };
            let rcode = u16::from(t.rcode);
            return Some(Got {
                rcode,
                authoritative: true,
                answers,
                authority,
                additional,
                ..Got::default()
            });
        }
        None
    }

    /// The client's own address and port, as CoreDNS' `whoami` tells them.
    fn whoami(self, name: &Name) -> Got {
        let owner = hickory(name);
        let address = match self.client.ip() {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        let service = HickoryName::from_ascii("_udp").ok().and_then(|p| p.append_domain(&owner).ok());
        let srv = RData::SRV(SRV::new(0, 0, self.client.port(), HickoryName::root()));
        let srv = service.map(|s| Record::from_rdata(s, 0, srv));
        let additional = std::iter::once(Record::from_rdata(owner, 0, address)).chain(srv).collect();
        Got { authoritative: true, additional, ..Got::default() }
    }
}

/// The names that a client would try after the first one.
fn candidates(autopath: &Autopath, state: &State, name: &Name, base: usize) -> Vec<Name> {
    let stem = &name.wire()[..name.offset(base)];
    let of = |suffix: &[u8]| Name::read(&[stem, suffix].concat(), 0).map(|(name, _)| name);
    let mut all = Vec::new();
    if autopath.pods
        && let Some(zone) = state.zones.names.first()
    {
        all.extend(of(&[b"\x03svc", zone.wire()].concat()));
        all.extend(of(zone.wire()));
    }
    let skip = usize::from(!autopath.pods);
    all.extend(autopath.search.iter().skip(skip).filter_map(|s| of(s.wire())));
    all.extend(of(&[0]));
    all
}

/// `v4` with its addresses in the prefix (RFC 6147 §5.1.7).
fn synthesised(dns64: &Dns64, v4: Got, v6: &Got) -> Got {
    let minimum = v6.authority.iter().filter(|r| r.record_type() == RecordType::SOA).map(|r| r.ttl).min();
    let upper = u128::from(dns64.prefix) >> 32 << 32;
    let answers = v4.answers.into_iter().map(|mut r| {
        if let RData::A(A(ip)) = r.data {
            r.data = RData::AAAA(AAAA(Ipv6Addr::from(upper | u128::from(u32::from(ip)))));
            // Not longer than the denial it stands for; 600 s when that tells nothing.
            r.ttl = r.ttl.min(minimum.unwrap_or(600));
        }
        r
    });
    Got { answers: answers.collect(), additional: Vec::new(), authority: Vec::new(), ..v4 }
}

fn from_hosts(hosts: &Hosts, name: &Name, qtype: u16) -> Option<Got> {
    hosts.zones.iter().find(|z| name.below(z).is_some())?;
    let table = hosts.table.load();
    let owner = hickory(name);
    if qtype == rtype::PTR {
        let ip = arpa_to_ip(name);
        let names = ip.filter(|_| hosts.reverse).map_or(&[][..], |ip| table.names(ip));
        let record = |wire: &[u8]| {
            let target = HickoryName::from_ascii(presentation(wire)).ok()?;
            Some(Record::from_rdata(owner.clone(), hosts.ttl, RData::PTR(PTR(target))))
        };
        let records: Vec<_> = names.iter().filter_map(|n| record(n)).collect();
        if !records.is_empty() {
            return Some(Got::records(records));
        }
    } else if let Some(ips) = table.addresses(name.wire()) {
        let data = |ip: &IpAddr| match (ip, qtype) {
            (IpAddr::V4(ip), rtype::A) => Some(RData::A(A(*ip))),
            (IpAddr::V6(ip), rtype::AAAA) => Some(RData::AAAA(AAAA(*ip))),
            _ => None,
        };
        let records = ips.iter().filter_map(data).map(|d| Record::from_rdata(owner.clone(), hosts.ttl, d));
        return Some(Got::records(records.collect()));
    }
    if hosts.fallthrough.iter().any(|z| name.below(z).is_some()) {
        return None;
    }
    // Without a SOA it cannot be denied: CoreDNS says the same.
    Some(Got { rcode: rcode::SERVFAIL, ..Got::default() })
}

/// `localhost` and the loopback's reverse names (RFC 6303; CoreDNS' `local`).
fn local(name: &Name, qtype: u16) -> Option<Got> {
    let last = name.count().checked_sub(1)?;
    let owner = hickory(name);
    let record = |data| Some(Got::records(vec![Record::from_rdata(owner.clone(), 604_800, data)]));
    if name.label(last) == b"localhost" {
        return match qtype {
            rtype::A => record(RData::A(A(Ipv4Addr::LOCALHOST))),
            rtype::AAAA => record(RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))),
            _ => Some(Got::records(Vec::new())),
        };
    }
    match arpa_to_ip(name) {
        Some(ip) if ip.is_loopback() && qtype == rtype::PTR => {
            record(RData::PTR(PTR(HickoryName::from_ascii("localhost.").ok()?)))
        }
        Some(ip) if ip.is_loopback() => Some(Got::records(Vec::new())),
        _ => None,
    }
}

/// Writes the response; gives its code.
pub(super) fn write(
    got: Got,
    block: &Block,
    request: &[u8],
    query: &Query,
    transport: Transport,
    limits: Limits,
    out: &mut Vec<u8>,
) -> u16 {
    let mut scratch = crate::writer::Scratch::default();
    if let Some(error) = got.error {
        super::fail(out, &mut scratch, request, query, limits, error);
        return rcode::SERVFAIL;
    }
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = query.recursion_desired;
    message.metadata.checking_disabled = query.checking_disabled;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = got.authoritative;
    message.metadata.response_code = ResponseCode::from((got.rcode >> 4) as u8, got.rcode as u8 & 15);
    message.add_query(hickory_proto::op::Query::query(hickory(&query.name), RecordType::from(query.qtype)));
    let lean = block.minimal && got.rcode == rcode::NOERROR && !got.answers.is_empty();
    message.answers = got.answers;
    if !lean {
        message.authorities = got.authority;
        message.additionals = got.additional;
    }
    let bytes = message.to_vec().ok().filter(|b| b.len() >= query.question_end);
    let Some(bytes) = bytes else {
        super::fail(out, &mut scratch, request, query, limits, ForwardError::NoAnswer);
        return rcode::SERVFAIL;
    };
    *out = bytes;
    out[..2].copy_from_slice(&request[..2]);
    out[HEADER..query.question_end].copy_from_slice(&request[HEADER..query.question_end]);
    for rule in &block.header {
        if rule.set {
            out[rule.byte] |= rule.bit;
        } else {
            out[rule.byte] &= !rule.bit;
        }
    }
    fit(out, query, transport, limits, got.rcode, query.question_end);
    got.rcode
}
