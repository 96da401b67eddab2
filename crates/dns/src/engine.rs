//! One request in, one response out; the same for every transport. What needs no upstream is answered on the spot.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};

use crate::access::{Action, Refusals, decide};
use crate::cache::{ForwardError, Key, Outcome, Question, Reply};
use crate::forward::Group;
use crate::index::Found;
use crate::metrics::{Counters, Drop, Plugin};
use crate::plan::{Block, Log, Plan};
use crate::wire::{
    CLASS_CH, CLASS_IN, Cookie, Edns, HEADER, Name, Query, Record, Request, option, rcode, rtype, u16_at,
};
use crate::writer::{
    Data, Limits, Owner, Scratch, Section, Transport, Writer, add_option, error_reply, header_only, opt,
    opt_len, udp_limit,
};
use crate::{Index, Resolver};

mod slow;
mod transfer;

pub(crate) use transfer::{Grant, is_asked};

/// What all workers of a server share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) limits: Limits,
    /// How long a connection may be idle, in 100 ms (RFC 7828).
    pub(crate) idle: u16,
}

/// What becomes of a request.
pub(crate) enum Verdict {
    /// The response is in the buffer.
    Reply,
    /// No response.
    Silence,
    /// [`Pending::finish`] makes the response.
    Pending(Box<Pending>),
}

/// A request that is answered later than it came.
struct Asked {
    request: Box<[u8]>,
    query: Query,
    client: SocketAddr,
    transport: Transport,
    limits: Limits,
    begun: Instant,
    block: Arc<Block>,
    counters: Arc<Counters>,
}

impl Asked {
    /// Counts its response, of which `out` is the last message, and logs it where that is wanted.
    fn end(&self, plugin: Plugin, code: u16, bytes: usize, out: &[u8]) {
        let Self { request, query, client, transport, begun, block, counters, .. } = self;
        counters.response(plugin, code, bytes, begun.elapsed());
        if let Some(log) = block.log {
            write_log(log, query, *client, *transport, request.len(), out, code, *begun);
        }
    }
}

/// A request that waits for upstreams.
pub(crate) struct Pending {
    asked: Asked,
    wait: Wait,
    engine: Arc<Engine>,
}

/// For what it waits.
enum Wait {
    /// An upstream's answer.
    Forward(Arc<Group>),
    /// CNAMEs of ours as a whole response, and who knows where they lead.
    Chain(Vec<u8>, Box<Name>, Option<Arc<Group>>),
    /// Several questions, and their answers put together.
    Slow,
}

/// One task's view of the engine, with all it reuses.
pub(crate) struct Worker {
    engine: Arc<Engine>,
    scratch: Scratch,
    transport: Transport,
    refusals: Refusals,
    pub(crate) counters: Arc<Counters>,
}

impl Worker {
    pub(crate) fn new(engine: Arc<Engine>, transport: Transport, counters: Arc<Counters>) -> Self {
        let refusals = Refusals::new(Instant::now());
        Self { engine, scratch: Scratch::default(), transport, refusals, counters }
    }

    /// Answers `request` of `client` into `out`.
    pub(crate) fn handle(&mut self, request: &[u8], client: SocketAddr, out: &mut Vec<u8>) -> Verdict {
        let begun = Instant::now();
        let parsed = Request::parse(request);
        let plan = self.engine.resolver.plan.load();
        if !self.engine.resolver.allows(&plan, client.ip()) {
            if matches!(parsed, Request::Silence) || !self.refusals.take(begun) {
                self.counters.dropped(Drop::Refused);
                return Verdict::Silence;
            }
            header_only(out, request, rcode::REFUSED);
            self.counters.response(Plugin::Acl, rcode::REFUSED, out.len(), begun.elapsed());
            return Verdict::Reply;
        }
        let mut query = match parsed {
            Request::Silence => {
                self.counters.dropped(Drop::NotAQuery);
                return Verdict::Silence;
            }
            Request::Error(code) => {
                header_only(out, request, code);
                self.counters.request(0, request.len(), false);
                self.counters.response(Plugin::None, code, out.len(), begun.elapsed());
                return Verdict::Reply;
            }
            Request::Probe(mut edns) => {
                self.options(&mut edns, client, None);
                header_only(out, request, rcode::NOERROR);
                opt(out, Some(edns), rcode::NOERROR, self.engine.limits.udp, None);
                self.counters.request(0, request.len(), false);
                self.counters.response(Plugin::None, rcode::NOERROR, out.len(), begun.elapsed());
                return Verdict::Reply;
            }
            Request::Query(query) => query,
        };
        let dnssec_ok = query.edns.is_some_and(|e| e.dnssec_ok);
        self.counters.request(query.qtype, request.len(), dnssec_ok);
        let block = plan.block(&query.name);
        if let Some(edns) = &mut query.edns {
            self.options(edns, client, block.and_then(|b| b.nsid.as_deref()));
        }
        let mut limits = self.engine.limits;
        if let Some(size) = block.and_then(|b| b.bufsize) {
            limits.udp = limits.udp.min(size);
        }
        let (plugin, code) = match self.answer(request, &query, client, &plan, block, limits, begun, out) {
            Answered::Done(plugin, code) => (plugin, code),
            Answered::Nothing => {
                self.counters.dropped(Drop::Acl);
                return Verdict::Silence;
            }
            Answered::Wait(wait, block) => {
                let asked = self.asked(request, query, client, limits, begun, block);
                return Verdict::Pending(Box::new(Pending { asked, wait, engine: self.engine.clone() }));
            }
        };
        if self.transport != Transport::Udp && query.edns.is_some_and(|e| e.explain) {
            explain(&self.engine.resolver, plugin, client, block, &query.name, &[], out);
        }
        self.counters.response(plugin, code, out.len(), begun.elapsed());
        if let Some(log) = block.and_then(|b| b.log) {
            write_log(log, &query, client, self.transport, request.len(), out, code, begun);
        }
        Verdict::Reply
    }

    fn asked(
        &self,
        request: &[u8],
        query: Query,
        client: SocketAddr,
        limits: Limits,
        begun: Instant,
        block: Arc<Block>,
    ) -> Asked {
        let (transport, counters) = (self.transport, self.counters.clone());
        Asked { request: request.into(), query, client, transport, limits, begun, block, counters }
    }

    /// Fills in what our OPT says.
    fn options(&self, edns: &mut Edns, client: SocketAddr, nsid: Option<&[u8]>) {
        let (cookie, server) = match edns.cookie {
            Cookie::Client(cookie) => (cookie, None),
            Cookie::Both(cookie, server) => (cookie, Some(server)),
            Cookie::None | Cookie::Malformed => ([0; 8], None),
        };
        if !matches!(edns.cookie, Cookie::None | Cookie::Malformed) {
            let server = self.engine.resolver.renewed(client, cookie, server);
            edns.reply.push(option::COOKIE, &[&cookie, &server]);
        }
        if let Some(nsid) = nsid.filter(|_| edns.nsid) {
            edns.reply.push(option::NSID, &[nsid]);
        }
        if edns.keepalive && self.transport != Transport::Udp {
            edns.reply.push(option::KEEPALIVE, &[&self.engine.idle.to_be_bytes()]);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn answer(
        &mut self,
        request: &[u8],
        query: &Query,
        client: SocketAddr,
        plan: &Plan,
        block: Option<&Arc<Block>>,
        limits: Limits,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Answered {
        let mut error = |code, plugin, out: &mut Vec<u8>| {
            error_reply(out, &mut self.scratch, request, query, limits, code, None);
            Answered::Done(plugin, code)
        };
        match query.edns {
            Some(edns) if edns.version > 0 => return error(rcode::BADVERS, Plugin::None, out),
            Some(edns) if edns.cookie == Cookie::Malformed => {
                return error(rcode::FORMERR, Plugin::None, out);
            }
            _ => {}
        }
        if query.qclass == CLASS_CH {
            return self.chaos(request, query, plan, block, limits, out);
        }
        if query.qclass != CLASS_IN || matches!(query.qtype, rtype::AXFR | rtype::IXFR) {
            return error(rcode::REFUSED, Plugin::None, out);
        }
        let Some(block) = block else { return error(rcode::REFUSED, Plugin::None, out) };
        match decide(&block.acl, client.ip(), &query.name, query.qtype) {
            Action::Allow => {}
            Action::Block => return error(rcode::REFUSED, Plugin::Acl, out),
            Action::Filter => return error(rcode::NOERROR, Plugin::Acl, out),
            Action::Drop => return Answered::Nothing,
        }
        let mut writer = Writer::new(out, &mut self.scratch, request, query, self.transport, limits);
        if block.any && query.qtype == rtype::ANY {
            const HINFO: &[u8] = b"\x0dANY obsoleted\x0cSee RFC 8482";
            writer.record(Section::Answer, Owner::Question, rtype::HINFO, 8482, Data::Raw(HINFO));
            writer.finish(rcode::NOERROR, None);
            return Answered::Done(Plugin::Any, rcode::NOERROR);
        }
        if !block.is_plain(&query.name, query.qtype) {
            return Answered::Wait(Wait::Slow, block.clone());
        }
        let resolver = &self.engine.resolver;
        if block.kubernetes {
            let state = resolver.index.state();
            match Index::resolve(&state, &query.name, query.qtype, &mut writer) {
                Found::Done(rcode::NXDOMAIN) if slow::walks(block, &state, query, client.ip()).is_some() => {
                    return Answered::Wait(Wait::Slow, block.clone());
                }
                Found::Done(code) => {
                    writer.finish(code, None);
                    return Answered::Done(Plugin::Kubernetes, code);
                }
                Found::Chase(target) => {
                    writer.finish(rcode::NOERROR, None);
                    let group = plan.block(&target).and_then(|b| b.group(&target)).cloned();
                    return Answered::Wait(Wait::Chain(out.clone(), target, group), block.clone());
                }
                Found::Outside => {}
            }
        }
        let Some(group) = block.group(&query.name) else {
            // As CoreDNS without a further plugin.
            fail(out, &mut self.scratch, request, query, limits, ForwardError::NoUpstreams);
            return Answered::Done(Plugin::None, rcode::SERVFAIL);
        };
        let cached = resolver.forwarder.cached(&Key::of(query), group, query);
        self.counters.cache(cached.as_ref().map(|o| o.as_ref().map_or(true, |r| r.is_denial())));
        match cached {
            Some(outcome) => {
                let how = How { transport: self.transport, limits, rotate: block.loadbalance, now };
                let code = write_outcome(&outcome, request, query, how, &mut self.scratch, out);
                Answered::Done(Plugin::Cache, code)
            }
            None => Answered::Wait(Wait::Forward(group.clone()), block.clone()),
        }
    }

    /// Class CH: who we are (RFC 4892).
    fn chaos(
        &mut self,
        request: &[u8],
        query: &Query,
        plan: &Plan,
        block: Option<&Arc<Block>>,
        limits: Limits,
        out: &mut Vec<u8>,
    ) -> Answered {
        let configured = block.and_then(|b| b.chaos.as_ref());
        let version = std::slice::from_ref(configured.map_or(&plan.version, |c| &c.0));
        let node = std::slice::from_ref(&plan.node);
        let texts: &[String] = match query.name.wire() {
            b"\x07version\x04bind\x00" | b"\x07version\x06server\x00" => version,
            b"\x08hostname\x04bind\x00" | b"\x02id\x06server\x00" if !plan.node.is_empty() => node,
            b"\x07authors\x04bind\x00" => configured.map_or(&[][..], |c| &c.1),
            _ => &[],
        };
        if texts.is_empty() || !matches!(query.qtype, rtype::TXT | rtype::ANY) {
            error_reply(out, &mut self.scratch, request, query, limits, rcode::REFUSED, None);
            return Answered::Done(Plugin::None, rcode::REFUSED);
        }
        let mut writer = Writer::new(out, &mut self.scratch, request, query, self.transport, limits);
        for text in texts {
            let text = &text.as_bytes()[..text.len().min(255)];
            let data = [&[text.len() as u8], text].concat();
            writer.chaos(&data);
        }
        writer.finish(rcode::NOERROR, None);
        Answered::Done(Plugin::Chaos, rcode::NOERROR)
    }
}

enum Answered {
    Done(Plugin, u16),
    Wait(Wait, Arc<Block>),
    /// No answer at all.
    Nothing,
}

impl Pending {
    /// The response when there is no room to wait.
    pub(crate) fn refuse(self) -> Vec<u8> {
        let Asked { request, query, limits, begun, counters, .. } = self.asked;
        let mut out = Vec::new();
        fail(&mut out, &mut Scratch::default(), &request, &query, limits, ForwardError::Busy);
        counters.dropped(Drop::Pending);
        counters.response(Plugin::Forward, rcode::SERVFAIL, out.len(), begun.elapsed());
        out
    }

    /// Asks the upstreams; gives the response.
    pub(crate) async fn finish(self) -> Vec<u8> {
        let Self { asked, wait, engine } = self;
        let Asked { request, query, client, block, .. } = &asked;
        let (client, transport, limits) = (*client, asked.transport, asked.limits);
        let forwarder = &engine.resolver.forwarder;
        let mut out = Vec::new();
        let mut scratch = Scratch::default();
        let mut walked = Vec::new();
        let (plugin, code) = match wait {
            Wait::Slow => {
                let (plugin, mut got) = slow::answer(&engine.resolver, block, query, client).await;
                walked = std::mem::take(&mut got.walked);
                (plugin, slow::write(got, block, request, query, transport, limits, &mut out))
            }
            Wait::Forward(group) => {
                let outcome = forwarder.resolve(Question::of(query), &group).await;
                let how = How { transport, limits, rotate: block.loadbalance, now: Instant::now() };
                (Plugin::Forward, write_outcome(&outcome, request, query, how, &mut scratch, &mut out))
            }
            Wait::Chain(ours, target, group) => {
                let question = Question::new(target.wire(), query.qtype, query);
                let outcome = match group {
                    Some(group) => forwarder.resolve(question, &group).await,
                    None => Err(ForwardError::NoUpstreams),
                };
                match outcome.and_then(|reply| join(ours, &reply)) {
                    Ok((bytes, code)) => {
                        out = bytes;
                        fit(&mut out, query, transport, limits, code, query.question_end);
                        (Plugin::Forward, code)
                    }
                    Err(error) => {
                        fail(&mut out, &mut scratch, request, query, limits, error);
                        (Plugin::Forward, rcode::SERVFAIL)
                    }
                }
            }
        };
        if transport != Transport::Udp && query.edns.is_some_and(|e| e.explain) {
            explain(&engine.resolver, plugin, client, Some(block), &query.name, &walked, &mut out);
        }
        asked.end(plugin, code, out.len(), &out);
        out
    }
}

/// Adds to a response how it came about, for [`eastwest_model::DNS_EXPLAIN`].
fn explain(
    resolver: &Resolver,
    plugin: Plugin,
    client: SocketAddr,
    block: Option<&Arc<Block>>,
    name: &Name,
    walked: &[(Name, u16)],
    out: &mut Vec<u8>,
) {
    use std::fmt::Write;
    let state = resolver.index.state();
    let text = |name: &Name| crate::wire::presentation(name.wire());
    let mut told = format!("node: {}\n", resolver.plan.load().node);
    // A string takes all that is written to it.
    let _ = match state.pod_text(client.ip()) {
        Some(pod) => writeln!(told, "asked by: pod {pod}"),
        None => writeln!(told, "asked by: {}, no pod that is known", client.ip()),
    };
    let zones = block.map_or_else(Vec::new, |b| b.zones.iter().map(text).collect());
    let _ = writeln!(told, "server block: {}", zones.join(" "));
    let _ = writeln!(told, "answered by: {}", plugin.name());
    if matches!(plugin, Plugin::Forward | Plugin::Cache)
        && let Some(group) = block.and_then(|b| b.group(name))
    {
        let upstreams: Vec<_> = group.addresses().iter().map(SocketAddr::to_string).collect();
        let _ = writeln!(told, "upstreams: {}", upstreams.join(" "));
    }
    if !state.synced {
        told.push_str("not all of the cluster's names are known yet\n");
    }
    for (name, code) in walked {
        let _ = writeln!(told, "tried: {} {}", text(name), crate::metrics::rcode_name(usize::from(*code)));
    }
    add_option(out, option::EXPLAIN, told.as_bytes());
}

/// A line for each answer, as CoreDNS' `log` writes it.
#[allow(clippy::too_many_arguments)]
fn write_log(
    log: Log,
    query: &Query,
    client: SocketAddr,
    transport: Transport,
    size: usize,
    out: &[u8],
    code: u16,
    begun: Instant,
) {
    let empty = out.get(6..8) == Some(&[0, 0]);
    let wanted = match code {
        rcode::NOERROR if !empty => log.success,
        rcode::NOERROR | rcode::NXDOMAIN => log.denial,
        _ => log.error,
    };
    if wanted && (log.sample < 2 || fastrand::u32(..log.sample) == 0) {
        tracing::info!(
            target: "eastwest_dns::log",
            %client,
            name = %crate::wire::presentation(query.name.wire()),
            qtype = query.qtype,
            proto = if transport == Transport::Udp { "udp" } else { "tcp" },
            size,
            dnssec_ok = query.edns.is_some_and(|e| e.dnssec_ok),
            rcode = crate::metrics::rcode_name(usize::from(code)),
            answer = out.len(),
            seconds = begun.elapsed().as_secs_f64(),
            "query"
        );
    }
}

fn fail(
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    request: &[u8],
    query: &Query,
    limits: Limits,
    error: ForwardError,
) {
    let text = error.to_string();
    let error = Some((error.info_code(), text.as_str()));
    error_reply(out, scratch, request, query, limits, rcode::SERVFAIL, error);
}

/// How an upstream's answer is written.
struct How {
    transport: Transport,
    limits: Limits,
    rotate: bool,
    now: Instant,
}

/// An upstream's answer as the response to `query`; gives its code.
fn write_outcome(
    outcome: &Outcome,
    request: &[u8],
    query: &Query,
    how: How,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> u16 {
    let How { transport, limits, rotate, now } = how;
    let reply = match outcome {
        Ok(reply) => reply,
        Err(error) => {
            fail(out, scratch, request, query, limits, *error);
            return rcode::SERVFAIL;
        }
    };
    reply.write(out, now);
    if rotate {
        reply.rotate(out);
    }
    // The question is the same but for the letters' case, which is the asker's; names point at it.
    out[HEADER..reply.question_end].copy_from_slice(&request[HEADER..query.question_end]);
    out[..2].copy_from_slice(&request[..2]);
    out[2] = 0x80 | u8::from(query.recursion_desired);
    out[3] = 0x80 | out[3] & 0x2f | if query.checking_disabled { 0x10 } else { 0 };
    fit(out, query, transport, limits, reply.rcode, reply.question_end);
    reply.rcode
}

/// Cuts a response that is too long for its way, and adds OPT. What fits stays: a client that cannot ask again by TCP
/// has that much (musl before 1.2.4).
fn fit(
    out: &mut Vec<u8>,
    query: &Query,
    transport: Transport,
    limits: Limits,
    code: u16,
    question_end: usize,
) {
    let limit = udp_limit(query, transport, limits) - opt_len(query);
    if out.len() > limit {
        cut(out, question_end, limit);
    }
    opt(out, query.edns, code, limits.udp, None);
}

/// Leaves the records that are whole within `limit`. Additional ones that do not fit are no truncation (RFC 2181 §9).
fn cut(out: &mut Vec<u8>, question_end: usize, limit: usize) {
    let mut end = question_end;
    let mut truncated = false;
    'sections: for section in 0..3 {
        let at = 6 + 2 * section;
        let count = u16_at(out, at).unwrap_or(0);
        for n in 0..count {
            match Record::read(out, end) {
                Some(record) if record.end <= limit => end = record.end,
                _ => {
                    truncated = section < 2;
                    out[at..at + 2].copy_from_slice(&n.to_be_bytes());
                    out[at + 2..12].fill(0);
                    break 'sections;
                }
            }
        }
    }
    out.truncate(end);
    out[2] |= if truncated { 2 } else { 0 };
}

/// Our CNAMEs followed by what the upstream has for their end, with its code (RFC 6604), without OPT.
fn join(ours: Vec<u8>, reply: &Reply) -> Result<(Vec<u8>, u16), ForwardError> {
    let mut theirs = Vec::new();
    reply.write(&mut theirs, Instant::now());
    let (Ok(mut message), Ok(theirs)) = (Message::from_vec(&ours), Message::from_vec(&theirs)) else {
        return Err(ForwardError::NoAnswer);
    };
    if !matches!(reply.rcode, rcode::NOERROR | rcode::NXDOMAIN) {
        return Err(ForwardError::NoAnswer);
    }
    message.edns = None;
    message.metadata.authoritative = true;
    message.metadata.response_code =
        if reply.rcode == rcode::NXDOMAIN { ResponseCode::NXDomain } else { ResponseCode::NoError };
    message.answers.extend(theirs.answers);
    message.authorities = theirs.authorities;
    let bytes = message.to_vec().map_err(|_| ForwardError::NoAnswer)?;
    Ok((bytes, reply.rcode))
}

/// [`join`] as a chain of ours meets it, for fuzz targets.
#[cfg(feature = "fuzz")]
pub(crate) fn joined(asked: &[u8], query: &Query, reply: &Reply) {
    let mut ours = Vec::new();
    let mut scratch = Scratch::default();
    let limits = Limits { udp: 1232 };
    let writer = Writer::new(&mut ours, &mut scratch, asked, query, Transport::Udp, limits);
    writer.finish(rcode::NOERROR, None);
    if let Ok((mut out, code)) = join(ours, reply) {
        fit(&mut out, query, Transport::Udp, limits, code, query.question_end);
        assert!(out.len() <= 512);
    }
}

#[cfg(test)]
mod tests;
