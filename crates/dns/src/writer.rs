//! Builds a response straight into a reused buffer: header and question from the request, then records with name
//! compression, then OPT. What does not fit is left out and TC set (RFC 2181 §9).

use crate::wire::{self, Edns, HEADER, NAME_MAX, Query};

/// How a response travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// Sizes of UDP payloads, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest UDP answer sent, and what our OPT advertises.
    pub(crate) udp: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// Whose record it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    /// The question's name, spelled as it was asked.
    Question,
    /// An uncompressed name in lower case.
    Name(&'a [u8]),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    /// Octets as they are; names within stay uncompressed.
    Raw(&'a [u8]),
    /// CNAME, NS, PTR.
    Name(&'a [u8]),
    Srv {
        weight: u16,
        port: u16,
        target: &'a [u8],
    },
    Soa {
        mname: &'a [u8],
        rname: &'a [u8],
        /// Serial, refresh, retry, expire, minimum.
        numbers: [u32; 5],
    },
}

/// What a worker keeps from one response to the next, so that none allocates.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Names a pointer may lead to: hash of the suffix, offset.
    names: Vec<(u32, u16)>,
}

/// Suffixes remembered for compression; a larger answer goes on with those it has.
const NAMES: usize = 128;
/// OPT without options.
const OPT_LEN: usize = 11;

/// Room that the response to `query` needs for OPT.
pub(crate) fn opt_len(query: &Query) -> usize {
    query.edns.map_or(0, |e| OPT_LEN + e.reply.as_slice().len())
}

pub(crate) struct Writer<'b> {
    buf: &'b mut Vec<u8>,
    names: &'b mut Vec<(u32, u16)>,
    query: &'b Query,
    limit: usize,
    advertise: u16,
    counts: [u16; 3],
    truncated: bool,
    authoritative: bool,
}

impl<'b> Writer<'b> {
    /// Starts the response to `query`, which was parsed from `request`.
    pub(crate) fn new(
        buf: &'b mut Vec<u8>,
        scratch: &'b mut Scratch,
        request: &[u8],
        query: &'b Query,
        transport: Transport,
        limits: Limits,
    ) -> Self {
        buf.clear();
        buf.extend_from_slice(&request[..HEADER]);
        buf[2] = 0x80 | u8::from(query.recursion_desired);
        // Recursion is what the forwarder gives.
        buf[3] = 0x80 | if query.checking_disabled { 0x10 } else { 0 };
        buf[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        buf.extend_from_slice(&request[HEADER..query.question_end]);
        scratch.names.clear();
        let limit = udp_limit(query, transport, limits);
        let reserve = opt_len(query);
        Self {
            buf,
            names: &mut scratch.names,
            query,
            limit: limit - reserve,
            advertise: limits.udp,
            counts: [0; 3],
            truncated: false,
            authoritative: false,
        }
    }

    pub(crate) fn authoritative(&mut self) {
        self.authoritative = true;
    }

    /// Adds a record; `false`: it does not fit, and no further one of its section will be tried.
    pub(crate) fn record(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        rtype: u16,
        ttl: u32,
        data: Data<'_>,
    ) -> bool {
        let start = self.buf.len();
        let known = self.names.len();
        match owner {
            Owner::Question => self.buf.extend_from_slice(&[0xc0, HEADER as u8]),
            Owner::Name(name) => self.name(name),
        }
        self.buf.extend_from_slice(&rtype.to_be_bytes());
        self.buf.extend_from_slice(&wire::CLASS_IN.to_be_bytes());
        self.buf.extend_from_slice(&ttl.to_be_bytes());
        let length_at = self.buf.len();
        self.buf.extend_from_slice(&[0, 0]);
        match data {
            Data::Raw(bytes) => self.buf.extend_from_slice(bytes),
            Data::Name(name) => self.name(name),
            Data::Srv { weight, port, target } => {
                self.buf.extend_from_slice(&[0, 0]);
                self.buf.extend_from_slice(&weight.to_be_bytes());
                self.buf.extend_from_slice(&port.to_be_bytes());
                // RFC 2782 forbids compression of the target; every implementation since RFC 3597 reads and most
                // write it so, but an old client need not. The address records' owners may still point here.
                let known = self.find(target);
                let here = self.buf.len();
                self.buf.extend_from_slice(target);
                self.remember(target, here, known.map_or(usize::MAX, |(i, ..)| i));
            }
            Data::Soa { mname, rname, numbers } => {
                self.name(mname);
                self.name(rname);
                numbers.iter().for_each(|n| self.buf.extend_from_slice(&n.to_be_bytes()));
            }
        }
        let length = (self.buf.len() - length_at - 2) as u16;
        self.buf[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        if self.buf.len() > self.limit {
            self.buf.truncate(start);
            self.names.truncate(known);
            // Additional records are a courtesy; their absence is no truncation.
            self.truncated |= section != Section::Additional;
            return false;
        }
        self.counts[section as usize] += 1;
        true
    }

    /// Makes the response one of several, of at most `limit` bytes: what does not fit goes into the next.
    pub(crate) fn part(&mut self, limit: usize) {
        self.limit = limit.min(usize::from(u16::MAX)) - opt_len(self.query);
    }

    /// Ends one of several responses.
    pub(crate) fn finish_part(mut self) {
        self.truncated = false;
        self.finish(wire::rcode::NOERROR, None);
    }

    /// Adds a TXT record of class CH at the question's name.
    pub(crate) fn chaos(&mut self, strings: &[u8]) {
        let start = self.buf.len();
        self.record(Section::Answer, Owner::Question, wire::rtype::TXT, 0, Data::Raw(strings));
        if let Some(class) = self.buf.get_mut(start + 4..start + 6) {
            class.copy_from_slice(&wire::CLASS_CH.to_be_bytes());
        }
    }

    /// Writes an uncompressed lower-case name, compressed.
    fn name(&mut self, name: &[u8]) {
        let here = self.buf.len();
        match self.find(name) {
            Some((i, end, at)) => {
                self.buf.extend_from_slice(&name[..end]);
                self.buf.extend_from_slice(&(0xc000 | at).to_be_bytes());
                self.remember(name, here, i);
            }
            None => {
                self.buf.extend_from_slice(name);
                self.remember(name, here, usize::MAX);
            }
        }
    }

    /// The longest suffix of `name` that stands in the message: how many labels come before it, how many octets, and
    /// where it is.
    fn find(&mut self, name: &[u8]) -> Option<(usize, usize, u16)> {
        if self.names.is_empty() {
            let query = self.query;
            self.remember(query.name.wire(), HEADER, usize::MAX);
        }
        let mut starts = [0u8; 128];
        let mut hashes = [0u32; 128];
        let count = suffixes(name, &mut starts, &mut hashes);
        (0..count).find_map(|i| {
            let end = usize::from(starts[i]);
            let hit = self
                .names
                .iter()
                .find(|(h, at)| *h == hashes[i] && self.same(usize::from(*at), &name[end..]));
            hit.map(|(_, at)| (i, end, *at))
        })
    }

    /// Notes the first `count` suffixes of `name`, written at `at`.
    fn remember(&mut self, name: &[u8], at: usize, count: usize) {
        let mut starts = [0u8; 128];
        let mut hashes = [0u32; 128];
        let n = suffixes(name, &mut starts, &mut hashes).min(count);
        for i in 0..n {
            let place = at + usize::from(starts[i]);
            if self.names.len() == NAMES || place >= 0x4000 {
                return;
            }
            self.names.push((hashes[i], place as u16));
        }
    }

    /// Whether the name written at `at` is `name`, letters' case aside.
    fn same(&self, mut at: usize, mut name: &[u8]) -> bool {
        loop {
            let n = usize::from(self.buf[at]);
            if n >= 0xc0 {
                at = (n & 0x3f) << 8 | usize::from(self.buf[at + 1]);
                continue;
            }
            if !self.buf[at..at + n + 1].eq_ignore_ascii_case(&name[..(n + 1).min(name.len())]) {
                return false;
            }
            if n == 0 {
                return true;
            }
            at += n + 1;
            name = &name[n + 1..];
        }
    }

    /// Ends the response; `code` may be an extended one when the query had EDNS. `error`: an extended DNS error
    /// (RFC 8914), told to those who speak EDNS.
    pub(crate) fn finish(self, code: u16, error: Option<(u16, &str)>) {
        let Self { buf, query, counts, advertise, truncated, authoritative, .. } = self;
        if truncated {
            buf[2] |= 0x02;
        }
        if authoritative {
            buf[2] |= 0x04;
        }
        buf[3] |= (code & 15) as u8;
        for (i, n) in counts.iter().enumerate() {
            buf[6 + 2 * i..8 + 2 * i].copy_from_slice(&n.to_be_bytes());
        }
        opt(buf, query.edns, code, advertise, error);
    }
}

/// The largest response to `query`, bytes.
pub(crate) fn udp_limit(query: &Query, transport: Transport, limits: Limits) -> usize {
    match transport {
        Transport::Tcp | Transport::Tls => usize::from(u16::MAX),
        Transport::Udp => usize::from(query.edns.map_or(512, |e| e.payload.min(limits.udp).max(512))),
    }
}

/// Appends OPT when the query had one, and counts it.
pub(crate) fn opt(
    buf: &mut Vec<u8>,
    edns: Option<Edns>,
    code: u16,
    advertise: u16,
    error: Option<(u16, &str)>,
) {
    let Some(edns) = edns else { return };
    let additional = wire::u16_at(buf, 10).unwrap_or(0) + 1;
    buf[10..12].copy_from_slice(&additional.to_be_bytes());
    buf.extend_from_slice(&[0, 0, wire::rtype::OPT as u8]);
    buf.extend_from_slice(&advertise.to_be_bytes());
    buf.extend_from_slice(&[(code >> 4) as u8, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
    let options = edns.reply.as_slice();
    // An error has no records, so its option always fits.
    let text = error.map(|(info, text)| (info, &text.as_bytes()[..text.len().min(200)]));
    let length = options.len() + text.map_or(0, |(_, t)| t.len() + 6);
    buf.extend_from_slice(&(length as u16).to_be_bytes());
    buf.extend_from_slice(options);
    if let Some((info, text)) = text {
        buf.extend_from_slice(&[0, 15]);
        buf.extend_from_slice(&(text.len() as u16 + 2).to_be_bytes());
        buf.extend_from_slice(&info.to_be_bytes());
        buf.extend_from_slice(text);
    }
}

/// Fills up a response whose last record is our OPT to a multiple of `block` (RFC 7830, RFC 8467).
pub(crate) fn pad(buf: &mut Vec<u8>, block: usize) {
    let padding = (buf.len() + OPTION).next_multiple_of(block) - buf.len() - OPTION;
    add_option(buf, wire::option::PADDING, &vec![0; padding]);
}

/// Head of an EDNS option, bytes.
const OPTION: usize = 4;

/// Adds an option to a response whose last record is our OPT; nothing when it has none, or no room.
pub(crate) fn add_option(buf: &mut Vec<u8>, code: u16, data: &[u8]) {
    let Some(length_at) = opt_length(buf) else { return };
    let length = buf.len() - length_at - 2 + OPTION + data.len();
    if buf.len() + OPTION + data.len() > usize::from(u16::MAX) {
        return;
    }
    buf[length_at..length_at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    buf.extend_from_slice(&code.to_be_bytes());
    buf.extend_from_slice(&(data.len() as u16).to_be_bytes());
    buf.extend_from_slice(data);
}

/// Where the length of the OPT record stands that ends the message.
fn opt_length(buf: &[u8]) -> Option<usize> {
    let (_, mut pos) = wire::Name::read(buf, HEADER)?;
    pos += 4;
    let records: usize = [6, 8, 10].iter().filter_map(|at| wire::u16_at(buf, *at)).map(usize::from).sum();
    let mut last = None;
    for _ in 0..records {
        let record = wire::Record::read(buf, pos)?;
        pos = record.end;
        last = Some(record);
    }
    let last = last.filter(|r| r.rtype == wire::rtype::OPT && r.end == buf.len())?;
    Some(last.data - 2)
}

/// A header alone, for requests whose question cannot be read or is not ours to look at.
pub(crate) fn header_only(buf: &mut Vec<u8>, request: &[u8], code: u16) {
    buf.clear();
    buf.extend_from_slice(&request[..HEADER]);
    buf[2] = 0x80 | buf[2] & 0x79;
    buf[3] = code as u8 & 15;
    buf[4..12].fill(0);
}

/// Fills `starts` and `hashes` for each suffix of an uncompressed name but the root; gives their number.
fn suffixes(name: &[u8], starts: &mut [u8; 128], hashes: &mut [u32; 128]) -> usize {
    let mut count = 0;
    let mut at = 0;
    while at < name.len().min(NAME_MAX) && name[at] != 0 && count < 127 {
        starts[count] = at as u8;
        count += 1;
        at += usize::from(name[at]) + 1;
    }
    let mut hash = 0x811c_9dc5u32;
    for i in (0..count).rev() {
        let from = usize::from(starts[i]);
        for &b in &name[from..=from + usize::from(name[from])] {
            hash = (hash ^ u32::from(b)).wrapping_mul(0x0100_0193);
        }
        hashes[i] = hash;
    }
    count
}

/// Writes the whole response to a query that gets no records.
pub(crate) fn error_reply(
    buf: &mut Vec<u8>,
    scratch: &mut Scratch,
    request: &[u8],
    query: &Query,
    limits: Limits,
    code: u16,
    error: Option<(u16, &str)>,
) {
    Writer::new(buf, scratch, request, query, Transport::Tcp, limits).finish(code, error);
}
