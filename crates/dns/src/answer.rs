//! Answers as values, for those who ask without a socket: the API, the CLI, tests.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::binary::BinDecodable;

use crate::Index;
use crate::index::Found;
use crate::wire::{Request, rcode};
use crate::writer::{Limits, Scratch, Transport, Writer};

/// What the index knows about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub rcode: ResponseCode,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
    /// The rest is for the upstreams to say.
    pub next: Next,
}

/// Whether an [`Answer`] is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is.
    Complete,
    /// The name is in none of our zones: upstreams are asked.
    Forward,
    /// The records lead outside, to this name; upstreams are asked for it.
    Chase(Name),
}

/// A text that is no DNS name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a DNS name: labels of 1 to 63 octets joined by dots, 255 in all")]
pub struct NameError(pub String);

impl Index {
    /// Answers `name` `rtype` as the servers do, without size limits; asks nobody else. Several addresses come in
    /// an order that changes from call to call.
    ///
    /// # Errors
    /// `name` is no DNS name.
    pub fn lookup(&self, name: &str, rtype: RecordType) -> Result<Answer, NameError> {
        let wrong = || NameError(name.to_owned());
        let mut owner = Name::from_ascii(name).map_err(|_| wrong())?;
        owner.set_fqdn(true);
        self.lookup_name(owner, rtype).ok_or_else(wrong)
    }

    /// As [`Index::lookup`]; `None`: the name cannot be asked for.
    pub(crate) fn lookup_name(&self, owner: Name, rtype: RecordType) -> Option<Answer> {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(owner, rtype));
        let request = message.to_vec().ok()?;
        let Request::Query(query) = Request::parse(&request) else { return None };
        let mut out = Vec::new();
        let mut scratch = Scratch::default();
        let limits = Limits { udp: 4096 };
        let mut writer = Writer::new(&mut out, &mut scratch, &request, &query, Transport::Tcp, limits);
        let (code, next) = match Index::resolve(&self.state(), &query.name, query.qtype, &mut writer) {
            Found::Done(code) => (code, Next::Complete),
            Found::Outside => (rcode::NOERROR, Next::Forward),
            Found::Chase(target) => {
                let target = Name::from_bytes(target.wire()).ok()?;
                (rcode::NOERROR, Next::Chase(target))
            }
        };
        writer.finish(code, None);
        let message = Message::from_vec(&out).ok()?;
        Some(Answer {
            rcode: message.metadata.response_code,
            answers: message.answers,
            authority: message.authorities,
            additional: message.additionals,
            next,
        })
    }
}
