//! Zones handed over whole (AXFR, RFC 5936; IXFR, RFC 1995, always with everything): CoreDNS' `transfer`.

use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Asked, Worker};
use crate::access::{Action, decide};
use crate::index::{Item, Zone};
use crate::metrics::Plugin;
use crate::wire::{CLASS_IN, Cookie, Name, Query, Record, Request, rcode, rtype, skip_name, u16_at, u32_at};
use crate::writer::{Scratch, Section, Writer, error_reply};

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
    asked: Asked,
    zone: Zone,
    /// The client has this moment of the zone already.
    current: bool,
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
        let asked = self.asked(request, query, client, self.engine.limits, begun, block.clone());
        Some(Ok(Transfer { asked, zone, current }))
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
        let Asked { request, query, limits, begun, counters, .. } = self.asked;
        error_reply(&mut out, &mut scratch, &request, &query, limits, rcode::SERVFAIL, None);
        counters.response(Plugin::Transfer, rcode::SERVFAIL, out.len(), begun.elapsed());
        out
    }

    /// The messages of the response, each made when it is asked for.
    pub(crate) fn parts(self) -> Parts {
        let Self { asked, zone, current } = self;
        let (soa, serial) = (zone.soa(), zone.serial());
        let items: Box<dyn Iterator<Item = Item> + Send> = match current {
            true => Box::new(std::iter::once(soa)),
            false => Box::new(std::iter::once(soa.clone()).chain(zone.items()).chain(std::iter::once(soa))),
        };
        Parts { asked, items: items.peekable(), serial, records: 0, bytes: 0 }
    }
}

/// The messages of a transfer.
pub(crate) struct Parts {
    asked: Asked,
    items: Peekable<Box<dyn Iterator<Item = Item> + Send>>,
    serial: u32,
    /// Sent so far.
    records: usize,
    bytes: usize,
}

impl Iterator for Parts {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.items.peek()?;
        let (mut out, mut scratch) = (Vec::with_capacity(PART), Scratch::default());
        let Self { asked, items, serial, records, bytes } = self;
        let Asked { request, query, transport, limits, .. } = &*asked;
        let mut writer = Writer::new(&mut out, &mut scratch, request, query, *transport, *limits);
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
            *records += usize::from(fits);
            items.next();
        }
        writer.finish_part();
        *bytes += out.len();
        if items.peek().is_none() {
            let zone = crate::wire::presentation(query.name.wire());
            tracing::info!(client = %asked.client, zone, records, bytes, serial, "zone transferred");
            asked.end(Plugin::Transfer, rcode::NOERROR, *bytes, &out);
        }
        Some(out)
    }
}
