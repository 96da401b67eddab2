//! Answers to the commonest questions, made ahead for a place that gives them before any socket is woken: the kernel.
//!
//! What is published is what a worker would answer, taken from a message that it makes of a question: the addresses of a
//! Service, or that it has none of a family. Left out is whatever depends on more than the question: answers of which the order
//! is drawn, names that a plugin has a say in, blocks that log or ask who the client is. A change is published before
//! [`Index::update`](crate::Index::update) returns.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::index::{Found, Index, Kind, State};
use crate::plan::{Block, Plan};
use crate::wire::{HEADER, Name, Record, Request, rcode, rtype, u16_at};
use crate::writer::{Limits, Scratch, Transport, Writer};

/// Octets of a name that is published, its length octets and the root included.
pub const PUBLISHED_NAME_MAX: usize = 128;
/// Octets that follow the question in a published answer, OPT not counted.
pub const PUBLISHED_ANSWER_MAX: usize = 64;

/// The types that are published.
const TYPES: [u16; 2] = [rtype::A, rtype::AAAA];

/// Where answers are published. Called in the order of the changes; a call has taken effect when it returns.
pub trait AnswerTable: Send + Sync {
    /// Answers this name and type so from now on. When there is no room for it, the question must be left to the worker.
    fn put(&self, name: &[u8], qtype: u16, answer: &Published);
    /// No longer answers this name and type.
    fn remove(&self, name: &[u8], qtype: u16);
    /// No longer answers anything.
    fn clear(&self);
    /// The serial number of all SOA records from now on.
    fn set_serial(&self, serial: u32);
}

/// What follows the question in an answer, before OPT. Its names point to the question, 12 octets into the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Records of the answer section, of the authority section.
    pub counts: [u8; 2],
    /// At most [`PUBLISHED_ANSWER_MAX`] octets; the serial number is zero.
    pub data: Vec<u8>,
    /// Where the serial number stands in `data`.
    pub serial_at: Option<u8>,
    /// The size of UDP payloads that OPT offers.
    pub udp_payload: u16,
}

/// Keeps a table on what the index says.
pub(crate) struct Publisher {
    table: Arc<dyn AnswerTable>,
    plan: ArcSwap<Plan>,
    limits: Limits,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Publisher")
    }
}

impl Publisher {
    pub(crate) fn new(table: Arc<dyn AnswerTable>, plan: Arc<Plan>, limits: Limits) -> Self {
        Self { table, plan: ArcSwap::new(plan), limits }
    }

    /// Goes by another plan from the next call on.
    pub(crate) fn set_plan(&self, plan: Arc<Plan>) {
        self.plan.store(plan);
    }

    /// Publishes everything anew.
    pub(crate) fn all(&self, state: &State) {
        self.table.set_serial(state.serial);
        self.table.clear();
        for (id, _) in state.services.iter() {
            self.service(None, state, id);
        }
    }

    /// Publishes what has changed of these Services (`SERVICE.NAMESPACE` in wire form).
    pub(crate) fn services<'a>(
        &self,
        old: &State,
        new: &State,
        ids: impl IntoIterator<Item = &'a Arc<[u8]>>,
    ) {
        self.table.set_serial(new.serial);
        for id in ids {
            self.service(Some(old), new, id);
        }
    }

    fn service(&self, old: Option<&State>, new: &State, id: &[u8]) {
        let plan = self.plan.load();
        for zone in &new.zones.names {
            let wire = [id, b"\x03svc", zone.wire()].concat();
            let Some((name, _)) = Name::read(&wire, 0) else { continue };
            for qtype in TYPES {
                let before = old.and_then(|old| published(old, &plan, self.limits, id, &name, qtype));
                let after = published(new, &plan, self.limits, id, &name, qtype);
                match after {
                    Some(after) if before.as_ref() != Some(&after) => self.table.put(&wire, qtype, &after),
                    Some(_) => {}
                    None if before.is_some() => self.table.remove(&wire, qtype),
                    None => {}
                }
            }
        }
    }
}

/// What is to be published for a Service's own name.
fn published(
    state: &State,
    plan: &Plan,
    mut limits: Limits,
    id: &[u8],
    name: &Name,
    qtype: u16,
) -> Option<Published> {
    let entry = state.services.get(id)?;
    let addresses = matches!(entry.kind, Kind::ClusterIp { .. } | Kind::Headless(_));
    let block = plan.block(name)?;
    if !state.synced || !addresses || name.wire().len() > PUBLISHED_NAME_MAX || !alike(block, name, qtype) {
        return None;
    }
    if let Some(size) = block.bufsize {
        limits.udp = limits.udp.min(size);
    }
    let mut request = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    request.extend_from_slice(name.wire());
    request.extend_from_slice(&qtype.to_be_bytes());
    request.extend_from_slice(&crate::wire::CLASS_IN.to_be_bytes());
    let Request::Query(query) = Request::parse(&request) else { return None };
    let (mut out, mut scratch) = (Vec::new(), Scratch::default());
    let mut writer = Writer::new(&mut out, &mut scratch, &request, &query, Transport::Udp, limits);
    match Index::resolve(state, name, qtype, &mut writer) {
        Found::Done(rcode::NOERROR) => writer.finish(rcode::NOERROR, None),
        _ => return None,
    }
    // A response, authoritative, recursion desired and available: what is made of every plain question.
    let counts = [6, 8, 10].map(|at| u16_at(&out, at).unwrap_or(u16::MAX));
    let mut data = out.split_off(query.question_end);
    if out[2..4] != [0x85, 0x80] || data.len() > PUBLISHED_ANSWER_MAX {
        return None;
    }
    let (counts, serial_at) = match counts {
        [1, 0, 0] => ([1, 0], None),
        [0, 1, 0] => {
            // The SOA record ends with five numbers, of which the serial is the first.
            let message = [&out[..], &data[..]].concat();
            let soa = Record::read(&message, query.question_end)?;
            let at = data.len().checked_sub(20).filter(|_| soa.rtype == rtype::SOA)?;
            data[at..at + 4].fill(0);
            ([0, 1], Some(at as u8))
        }
        _ => return None,
    };
    debug_assert_eq!(out.len(), HEADER + name.wire().len() + 4);
    Some(Published { counts, data, serial_at, udp_payload: limits.udp })
}

/// Whether the block gives everybody the index's own answer to this question, and leaves no trace of it.
fn alike(block: &Block, name: &Name, qtype: u16) -> bool {
    let hosts = block.hosts.iter().any(|h| h.zones.iter().any(|z| name.below(z).is_some()));
    block.kubernetes && block.acl.is_empty() && block.log.is_none() && !hosts && block.is_plain(name, qtype)
}

#[cfg(test)]
mod tests;
