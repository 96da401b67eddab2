//! Zones handed over whole (AXFR, RFC 5936; IXFR, RFC 1995, always with everything): CoreDNS' `transfer`.

use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::{Worker, write_log};
use crate::access::{Action, decide};
use crate::index::{Item, Zone};
use crate::metrics::{Counters, Plugin};
use crate::plan::Block;
use crate::wire::{CLASS_IN, Cookie, Name, Query, Record, Request, rcode, rtype, skip_name, u16_at, u32_at};
use crate::writer::{Limits, Scratch, Section, Transport, Writer, error_reply};

/// Length of one message, bytes: as far as compression can point.
const PART: usize = 0x4000;

/// Who may have zones: a `transfer` of a Corefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) zones: Vec<Name>,
    /// `None`: anyone who is served at all.
    pub(crate) to: Option<Vec<IpAddr>>,
}

/// A zone on its way to a client.
pub(crate) struct Transfer {
    request: Box<[u8]>,
    query: Query,
    client: SocketAddr,
    transport: Transport,
    limits: Limits,
    begun: Instant,
    zone: Zone,
    /// The client has this moment of the zone already.
    current: bool,
    block: Arc<Block>,
    counters: Arc<Counters>,
}

/// Whether a message asks for a whole zone.
pub(crate) fn is_asked(request: &[u8]) -> bool {
    let qtype = skip_name(request, crate::wire::HEADER).and_then(|at| u16_at(request, at));
    matches!(qtype, Some(rtype::AXFR | rtype::IXFR))
}

impl Worker {
    /// What a request for a whole zone gets on a connection: the zone, or an error. `None`: it is for
    /// [`Worker::handle`] to say that it gets nothing.
    pub(crate) fn transfer(
        &mut self,
        request: &[u8],
        client: SocketAddr,
    ) -> Option<Result<Transfer, Vec<u8>>> {
        let begun = Instant::now();
        let plan = self.engine.resolver.plan.load();
        let Request::Query(mut query) = Request::parse(request) else { return None };
        let sound = query.edns.is_none_or(|e| e.version == 0 && e.cookie != Cookie::Malformed);
        let block = plan.block(&query.name)?;
        let grant = block.transfer.iter().filter_map(|g| {
            Some((g.zones.iter().filter(|z| query.name.below(z).is_some()).map(Name::count).max()?, g))
        });
        let (_, grant) = grant.max_by_key(|(depth, _)| *depth)?;
        let welcome = grant.to.as_ref().is_none_or(|to| to.contains(&client.ip()))
            && self.engine.resolver.allows(&plan, client.ip())
            && decide(&block.acl, client.ip(), &query.name, query.qtype) == Action::Allow;
        if query.qclass != CLASS_IN || !sound || !welcome || !block.kubernetes {
            return None;
        }
        let zone = self.engine.resolver.index.zone(&query.name)?;
        self.counters.request(query.qtype, request.len(), query.edns.is_some_and(|e| e.dnssec_ok));
        if let Some(edns) = &mut query.edns {
            self.options(edns, client, block.nsid.as_deref());
        }
        let has = if query.qtype == rtype::IXFR { serial(request, &query) } else { Some(0) };
        let Some(has) = has.filter(|_| zone.synced()) else {
            return Some(Err(self.failed(request, &query, begun)));
        };
        let current = query.qtype == rtype::IXFR && !is_older(has, zone.serial());
        Some(Ok(Transfer {
            request: request.into(),
            query,
            client,
            transport: self.transport,
            limits: self.engine.limits,
            begun,
            zone,
            current,
            block: block.clone(),
            counters: self.counters.clone(),
        }))
    }

    fn failed(&mut self, request: &[u8], query: &Query, begun: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        error_reply(&mut out, &mut self.scratch, request, query, self.engine.limits, rcode::SERVFAIL, None);
        self.counters.response(Plugin::Transfer, rcode::SERVFAIL, out.len(), begun.elapsed());
        out
    }
}

/// The serial that a client says to have (RFC 1995 §3): that of the one SOA of the authority section.
fn serial(request: &[u8], query: &Query) -> Option<u32> {
    if request.get(6..10)? != [0, 0, 0, 1] {
        return None;
    }
    let record = Record::read(request, query.question_end).filter(|r| r.rtype == rtype::SOA)?;
    let numbers = skip_name(request, skip_name(request, record.data)?)?;
    (numbers + 20 == record.end).then(|| u32_at(request, numbers)).flatten()
}

/// In serial number arithmetic (RFC 1982).
fn is_older(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) as i32 > 0
}

impl Transfer {
    /// The response when there are too many of them.
    pub(crate) fn refuse(self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut scratch = Scratch::default();
        error_reply(&mut out, &mut scratch, &self.request, &self.query, self.limits, rcode::SERVFAIL, None);
        self.counters.response(Plugin::Transfer, rcode::SERVFAIL, out.len(), self.begun.elapsed());
        out
    }

    /// The messages of the response, each made when it is asked for.
    pub(crate) fn parts(self) -> Parts {
        let Self { request, query, client, transport, limits, begun, zone, current, block, counters } = self;
        let (soa, serial) = (zone.soa(), zone.serial());
        let items: Box<dyn Iterator<Item = Item> + Send> = match current {
            true => Box::new(std::iter::once(soa)),
            false => Box::new(std::iter::once(soa.clone()).chain(zone.items()).chain(std::iter::once(soa))),
        };
        let items = items.peekable();
        let told = Told { client, transport, begun, serial, records: 0, bytes: 0, block, counters };
        Parts { request, query, limits, items, told }
    }
}

/// The messages of a transfer.
pub(crate) struct Parts {
    request: Box<[u8]>,
    query: Query,
    limits: Limits,
    items: Peekable<Box<dyn Iterator<Item = Item> + Send>>,
    told: Told,
}

/// What is said of a transfer when it is over.
struct Told {
    client: SocketAddr,
    transport: Transport,
    begun: Instant,
    serial: u32,
    records: usize,
    bytes: usize,
    block: Arc<Block>,
    counters: Arc<Counters>,
}

impl Iterator for Parts {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.items.peek()?;
        let (mut out, mut scratch) = (Vec::with_capacity(PART), Scratch::default());
        let Self { request, query, limits, items, told } = self;
        let mut writer = Writer::new(&mut out, &mut scratch, request, query, told.transport, *limits);
        writer.authoritative();
        writer.part(PART);
        let mut some = false;
        while let Some(item) = items.peek() {
            let put = |w: &mut Writer<'_>| {
                w.record(Section::Answer, item.owner(), item.rtype, item.ttl, item.data())
            };
            let mut fits = put(&mut writer);
            if !fits && !some {
                // Longer than others alone.
                writer.part(usize::MAX);
                fits = put(&mut writer);
            } else if !fits {
                break;
            }
            some |= fits;
            told.records += usize::from(fits);
            items.next();
        }
        writer.finish_part();
        told.bytes += out.len();
        if items.peek().is_none() {
            told.end(query, request.len(), &out);
        }
        Some(out)
    }
}

impl Told {
    fn end(&self, query: &Query, size: usize, last: &[u8]) {
        let Self { client, transport, begun, serial, records, bytes, block, counters } = self;
        counters.response(Plugin::Transfer, rcode::NOERROR, *bytes, begun.elapsed());
        let zone = crate::wire::presentation(query.name.wire());
        tracing::info!(%client, zone, records, bytes, serial, "zone transferred");
        if let Some(log) = block.log {
            write_log(log, query, *client, *transport, size, last, rcode::NOERROR, *begun);
        }
    }
}
