//! One request in, one response out; the same for every transport. What needs no upstream is answered on the spot.

use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};

use crate::cache::{ForwardError, Key, Outcome, Question, Reply};
use crate::index::Found;
use crate::metrics::{Counters, Drop, Plugin};
use crate::wire::{CLASS_IN, HEADER, Name, Query, Request, rcode, rtype};
use crate::writer::{Limits, Scratch, Transport, Writer, error_reply, header_only, opt, udp_limit};
use crate::{Forwarder, Index};

/// What all workers of a server share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) index: Arc<Index>,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) limits: Limits,
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

/// A request that waits for upstreams.
pub(crate) struct Pending {
    request: Box<[u8]>,
    query: Query,
    transport: Transport,
    begun: Instant,
    /// CNAMEs of ours as a whole response, and where they lead.
    chain: Option<(Vec<u8>, Box<Name>)>,
    engine: Arc<Engine>,
    counters: Arc<Counters>,
}

/// One task's view of the engine, with all it reuses.
pub(crate) struct Worker {
    engine: Arc<Engine>,
    scratch: Scratch,
    transport: Transport,
    pub(crate) counters: Arc<Counters>,
}

impl Worker {
    pub(crate) fn new(engine: Arc<Engine>, transport: Transport, counters: Arc<Counters>) -> Self {
        Self { engine, scratch: Scratch::default(), transport, counters }
    }

    /// Answers `request` into `out`.
    pub(crate) fn handle(&mut self, request: &[u8], out: &mut Vec<u8>) -> Verdict {
        let begun = Instant::now();
        let query = match Request::parse(request) {
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
            Request::Query(query) => query,
        };
        let dnssec_ok = query.edns.is_some_and(|e| e.dnssec_ok);
        self.counters.request(query.qtype, request.len(), dnssec_ok);
        let (plugin, code) = match self.answer(request, &query, begun, out) {
            Answered::Done(plugin, code) => (plugin, code),
            Answered::Forward(chain) => {
                return Verdict::Pending(Box::new(Pending {
                    request: request.into(),
                    query,
                    transport: self.transport,
                    begun,
                    chain,
                    engine: self.engine.clone(),
                    counters: self.counters.clone(),
                }));
            }
        };
        self.counters.response(plugin, code, out.len(), begun.elapsed());
        Verdict::Reply
    }

    fn answer(&mut self, request: &[u8], query: &Query, now: Instant, out: &mut Vec<u8>) -> Answered {
        let limits = self.engine.limits;
        let refused = query.qclass != CLASS_IN || matches!(query.qtype, rtype::AXFR | rtype::IXFR);
        let error = match query.edns {
            Some(edns) if edns.version > 0 => Some(rcode::BADVERS),
            _ => refused.then_some(rcode::REFUSED),
        };
        if let Some(code) = error {
            error_reply(out, &mut self.scratch, request, query, limits, code, None);
            return Answered::Done(Plugin::None, code);
        }
        let mut writer = Writer::new(out, &mut self.scratch, request, query, self.transport, limits);
        let state = self.engine.index.state();
        match self.engine.index.resolve(&state, &query.name, query.qtype, &mut writer) {
            Found::Done(code) => {
                writer.finish(code, None);
                return Answered::Done(Plugin::Kubernetes, code);
            }
            Found::Chase(target) => {
                writer.finish(rcode::NOERROR, None);
                return Answered::Forward(Some((out.clone(), target)));
            }
            Found::Outside => {}
        }
        let cached = self.engine.forwarder.cached(&Key::of(query));
        self.counters.cache(cached.as_ref().map(|o| o.as_ref().map_or(true, |r| r.is_denial())));
        match cached {
            Some(outcome) => {
                let code = write_outcome(
                    &outcome,
                    request,
                    query,
                    self.transport,
                    limits,
                    &mut self.scratch,
                    now,
                    out,
                );
                Answered::Done(Plugin::Cache, code)
            }
            None => Answered::Forward(None),
        }
    }
}

enum Answered {
    Done(Plugin, u16),
    Forward(Option<(Vec<u8>, Box<Name>)>),
}

impl Pending {
    /// The response when there is no room to wait.
    pub(crate) fn refuse(self) -> Vec<u8> {
        let mut out = Vec::new();
        let limits = self.engine.limits;
        fail(&mut out, &mut Scratch::default(), &self.request, &self.query, limits, ForwardError::Busy);
        self.counters.dropped(Drop::Pending);
        self.counters.response(Plugin::Forward, rcode::SERVFAIL, out.len(), self.begun.elapsed());
        out
    }

    /// Asks the upstreams; gives the response.
    pub(crate) async fn finish(self) -> Vec<u8> {
        let Self { request, query, transport, begun, chain, engine, counters } = self;
        let mut out = Vec::new();
        let mut scratch = Scratch::default();
        let limits = engine.limits;
        let code = match chain {
            None => {
                let outcome = engine.forwarder.resolve(Question::of(&query)).await;
                let now = Instant::now();
                write_outcome(&outcome, &request, &query, transport, limits, &mut scratch, now, &mut out)
            }
            Some((ours, target)) => {
                let question = Question::new(target.wire(), query.qtype, &query);
                let joined = match engine.forwarder.resolve(question).await {
                    Ok(reply) => join(ours, &reply),
                    Err(error) => Err(error),
                };
                match joined {
                    Ok((bytes, code)) => {
                        out = bytes;
                        fit(&mut out, &query, transport, limits, code, query.question_end);
                        code
                    }
                    Err(error) => {
                        fail(&mut out, &mut scratch, &request, &query, limits, error);
                        rcode::SERVFAIL
                    }
                }
            }
        };
        counters.response(Plugin::Forward, code, out.len(), begun.elapsed());
        out
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

/// An upstream's answer as the response to `query`; gives its code.
#[allow(clippy::too_many_arguments)]
fn write_outcome(
    outcome: &Outcome,
    request: &[u8],
    query: &Query,
    transport: Transport,
    limits: Limits,
    scratch: &mut Scratch,
    now: Instant,
    out: &mut Vec<u8>,
) -> u16 {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(error) => {
            fail(out, scratch, request, query, limits, *error);
            return rcode::SERVFAIL;
        }
    };
    reply.write(out, now);
    // The question is the same but for the letters' case, which is the asker's; names point at it.
    out[HEADER..reply.question_end].copy_from_slice(&request[HEADER..query.question_end]);
    out[..2].copy_from_slice(&request[..2]);
    out[2] = 0x80 | u8::from(query.recursion_desired);
    out[3] = 0x80 | out[3] & 0x2f | if query.checking_disabled { 0x10 } else { 0 };
    fit(out, query, transport, limits, reply.rcode, reply.question_end);
    reply.rcode
}

/// Cuts a response that is too long for its way, and adds OPT.
fn fit(
    out: &mut Vec<u8>,
    query: &Query,
    transport: Transport,
    limits: Limits,
    code: u16,
    question_end: usize,
) {
    let reserve = if query.edns.is_some() { 11 } else { 0 };
    if out.len() + reserve > udp_limit(query, transport, limits) {
        out.truncate(question_end);
        out[2] |= 2;
        out[6..12].fill(0);
    }
    opt(out, query, code, limits.udp, None);
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

#[cfg(test)]
mod tests;
