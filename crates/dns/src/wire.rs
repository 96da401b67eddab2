//! Requests as they come off the wire (RFC 1035 §4, RFC 6891). Reads without allocating and never past the end.

/// Record types this crate treats by name (IANA DNS parameters).
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const DNAME: u16 = 39;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const ANY: u16 = 255;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
}

/// Response codes (RFC 1035 §4.1.1, RFC 6891 §9).
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const BADVERS: u16 = 16;
}

pub(crate) const HEADER: usize = 12;
/// A name with its length octets and the root, at most (RFC 1035 §2.3.4).
pub(crate) const NAME_MAX: usize = 255;
pub(crate) const CLASS_IN: u16 = 1;
pub(crate) const CLASS_CH: u16 = 3;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16_at(bytes, at)?) << 16 | u32::from(u16_at(bytes, at + 2)?))
}

/// An uncompressed name in lower case, with the places of its labels.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Name {
    wire: [u8; NAME_MAX],
    len: u8,
    /// Where each label's length octet stands; a name has at most 127 labels.
    labels: [u8; 128],
    count: u8,
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&presentation(self.wire()))
    }
}

impl Name {
    /// Reads an uncompressed name at `at`; gives it and the offset behind it. A compression pointer is an error: in a
    /// question it could only point into the header or at itself.
    pub(crate) fn read(bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut name = Self { wire: [0; NAME_MAX], len: 0, labels: [0; 128], count: 0 };
        let mut pos = at;
        loop {
            let n = usize::from(*bytes.get(pos)?);
            if n > 63 {
                return None;
            }
            let from = usize::from(name.len);
            if from + n + 1 > NAME_MAX {
                return None;
            }
            let label = bytes.get(pos..pos + n + 1)?;
            name.wire[from..from + n + 1].copy_from_slice(label);
            // The length octet is below 64 and so no upper-case letter ('A' is 65).
            name.wire[from..from + n + 1].make_ascii_lowercase();
            name.len += n as u8 + 1;
            pos += n + 1;
            if n == 0 {
                return Some((name, pos));
            }
            name.labels[usize::from(name.count)] = from as u8;
            name.count += 1;
        }
    }

    pub(crate) const fn root() -> Self {
        Self { wire: [0; NAME_MAX], len: 1, labels: [0; 128], count: 0 }
    }

    /// From presentation form, without escapes; a final dot may be left out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(Self::read(&encode_name(text)?, 0)?.0)
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire[..usize::from(self.len)]
    }

    /// Labels, the root not counted.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Where the `i`th label from the left begins; `i == count()`: the root.
    pub(crate) fn offset(&self, i: usize) -> usize {
        if i >= self.count() { usize::from(self.len) - 1 } else { usize::from(self.labels[i]) }
    }

    /// The `i`th label from the left, without its length octet.
    pub(crate) fn label(&self, i: usize) -> &[u8] {
        let at = self.offset(i);
        &self.wire[at + 1..at + 1 + usize::from(self.wire[at])]
    }

    /// The name that begins at the `i`th label.
    pub(crate) fn suffix(&self, i: usize) -> &[u8] {
        &self.wire()[self.offset(i)..]
    }

    /// Labels `from..to` with their length octets.
    pub(crate) fn labels(&self, from: usize, to: usize) -> &[u8] {
        &self.wire[self.offset(from)..self.offset(to)]
    }

    /// How many labels stand before `zone` when this name is in it.
    pub(crate) fn below(&self, zone: &Name) -> Option<usize> {
        let labels = self.count().checked_sub(zone.count())?;
        (self.suffix(labels) == zone.wire()).then_some(labels)
    }
}

/// A name's wire form from its text, case kept, without escapes; a final dot may be left out. None: too long, or an
/// empty label.
pub(crate) fn encode_name(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.split('.').filter(|_| !text.is_empty()) {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= NAME_MAX).then_some(wire)
}

/// A wire-form name as text, with a final dot and `\DDD` for what is not printable (RFC 1035 §5.1).
pub(crate) fn presentation(wire: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = wire;
    while let Some((&n, tail)) = rest.split_first() {
        let n = usize::from(n).min(tail.len());
        if n == 0 {
            break;
        }
        for &b in &tail[..n] {
            match b {
                b'.' | b'\\' => text.extend(['\\', char::from(b)]),
                b'!'..=b'~' => text.push(char::from(b)),
                _ => text.push_str(&format!("\\{b:03}")),
            }
        }
        text.push('.');
        rest = &tail[n..];
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

/// What an OPT record asks for (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    /// The asker's largest UDP answer, bytes; never below 512.
    pub(crate) payload: u16,
    pub(crate) version: u8,
    /// DNSSEC OK (RFC 3225).
    pub(crate) dnssec_ok: bool,
    pub(crate) cookie: Cookie,
    /// The server's name is asked for (RFC 5001).
    pub(crate) nsid: bool,
    /// The time a connection may be idle is asked for (RFC 7828).
    pub(crate) keepalive: bool,
    /// The answer is to be padded when it travels encrypted (RFC 7830).
    pub(crate) padding: bool,
    /// How the answer came about is asked for.
    pub(crate) explain: bool,
    /// The options of our own OPT.
    pub(crate) reply: Options,
}

/// A query's COOKIE option (RFC 7873 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cookie {
    None,
    /// Of a length that no cookie has.
    Malformed,
    Client([u8; 8]),
    /// The client's and a server's of 16 octets.
    Both([u8; 8], [u8; 16]),
}

impl Cookie {
    fn read(data: &[u8]) -> Self {
        let client = data.first_chunk::<8>();
        match (client, data.len()) {
            (Some(c), 8) => Self::Client(*c),
            (Some(c), 24) => data.last_chunk::<16>().map_or(Self::Malformed, |s| Self::Both(*c, *s)),
            // Another server's idea of a cookie.
            (Some(c), 16..=40) => Self::Client(*c),
            _ => Self::Malformed,
        }
    }
}

/// EDNS options in wire form; few, so that no allocation is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Options {
    const MAX: usize = 120;
    pub(crate) const NONE: Self = Self { bytes: [0; Self::MAX], len: 0 };

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Adds an option; one that does not fit is left out.
    pub(crate) fn push(&mut self, code: u16, data: &[&[u8]]) {
        let length: usize = data.iter().map(|d| d.len()).sum();
        let start = usize::from(self.len);
        if start + 4 + length > Self::MAX {
            return;
        }
        let header = [code.to_be_bytes(), (length as u16).to_be_bytes()];
        let mut at = start;
        for part in header.iter().map(|h| &h[..]).chain(data.iter().copied()) {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.len = at as u8;
    }
}

/// EDNS option codes (IANA).
pub(crate) mod option {
    pub(crate) const NSID: u16 = 3;
    pub(crate) const COOKIE: u16 = 10;
    pub(crate) const KEEPALIVE: u16 = 11;
    pub(crate) const PADDING: u16 = 12;
    pub(crate) const EXPLAIN: u16 = eastwest_model::DNS_EXPLAIN;
}

impl Edns {
    /// Options that are not known are passed over (RFC 6891 §6.1.2). `None`: they run past their end.
    fn read(record: &Record, mut data: &[u8]) -> Option<Self> {
        let mut edns = Self {
            payload: record.class.max(512),
            version: (record.ttl >> 16) as u8,
            dnssec_ok: record.ttl & 0x8000 != 0,
            cookie: Cookie::None,
            nsid: false,
            keepalive: false,
            padding: false,
            explain: false,
            reply: Options::NONE,
        };
        while !data.is_empty() {
            let (code, length) = (u16_at(data, 0)?, usize::from(u16_at(data, 2)?));
            let value = data.get(4..4 + length)?;
            match code {
                option::NSID => edns.nsid = true,
                // Only the first counts (RFC 7873 §5.2).
                option::COOKIE if edns.cookie == Cookie::None => edns.cookie = Cookie::read(value),
                option::KEEPALIVE => edns.keepalive = true,
                option::PADDING => edns.padding = true,
                option::EXPLAIN => edns.explain = true,
                _ => {}
            }
            data = &data[4 + length..];
        }
        Some(edns)
    }
}

/// A well-formed query.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) recursion_desired: bool,
    pub(crate) checking_disabled: bool,
    pub(crate) name: Name,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
    /// Where the question ends in the request.
    pub(crate) question_end: usize,
    pub(crate) edns: Option<Edns>,
}

/// What a datagram is.
// Boxed, each query would cost an allocation.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum Request {
    Query(Query),
    /// Answer with this code and the header alone.
    Error(u16),
    /// No question, but a cookie: one is asked for (RFC 7873 §5.4).
    Probe(Edns),
    /// Too short for a header, or itself a response: anything sent back could start a loop.
    Silence,
}

impl Request {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
            return Self::Silence;
        }
        if bytes[2] >> 3 & 15 != 0 {
            return Self::Error(rcode::NOTIMP);
        }
        if let Some(edns) = Self::probe(bytes) {
            return Self::Probe(edns);
        }
        match Self::query(bytes) {
            Some(query) => Self::Query(query),
            None => Self::Error(rcode::FORMERR),
        }
    }

    fn probe(bytes: &[u8]) -> Option<Edns> {
        if bytes[4..10] != [0; 6] || u16_at(bytes, 10)? != 1 {
            return None;
        }
        let record = Record::read(bytes, HEADER)?;
        let opt = record.rtype == rtype::OPT && bytes[record.start] == 0;
        let edns = Edns::read(&record, bytes.get(record.data..record.end)?)?;
        (opt && !matches!(edns.cookie, Cookie::None | Cookie::Malformed)).then_some(edns)
    }

    fn query(bytes: &[u8]) -> Option<Query> {
        if u16_at(bytes, 4)? != 1 {
            return None;
        }
        let (name, at) = Name::read(bytes, HEADER)?;
        let mut query = Query {
            recursion_desired: bytes[2] & 1 != 0,
            checking_disabled: bytes[3] & 0x10 != 0,
            name,
            qtype: u16_at(bytes, at)?,
            qclass: u16_at(bytes, at + 2)?,
            question_end: at + 4,
            edns: None,
        };
        let other = usize::from(u16_at(bytes, 6)?) + usize::from(u16_at(bytes, 8)?);
        let additional = usize::from(u16_at(bytes, 10)?);
        let mut pos = query.question_end;
        for i in 0..other + additional {
            let record = Record::read(bytes, pos)?;
            pos = record.end;
            if record.rtype == rtype::OPT && i >= other {
                // One OPT, and at the root (RFC 6891 §6.1.1).
                if query.edns.is_some() || bytes[record.start] != 0 {
                    return None;
                }
                query.edns = Some(Edns::read(&record, bytes.get(record.data..record.end)?)?);
            }
        }
        Some(query)
    }
}

/// A record's fixed parts and places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) start: usize,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    /// Where the TTL field stands.
    pub(crate) ttl_at: usize,
    pub(crate) data: usize,
    pub(crate) end: usize,
}

impl Record {
    pub(crate) fn read(bytes: &[u8], start: usize) -> Option<Self> {
        let at = skip_name(bytes, start)?;
        let data = at + 10;
        let end = data + usize::from(u16_at(bytes, at + 8)?);
        (end <= bytes.len()).then_some(())?;
        Some(Self {
            start,
            rtype: u16_at(bytes, at)?,
            class: u16_at(bytes, at + 2)?,
            ttl: u32_at(bytes, at + 4)?,
            ttl_at: at + 4,
            data,
            end,
        })
    }
}

/// Pointers of one name at most: more than it has labels lead nowhere that is meant well.
const POINTERS_MAX: usize = 127;

/// The offset behind the name at `at`, which is followed to its end. A pointer must point backwards (RFC 1035 §4.1.4), so
/// no loop is possible, neither here nor with those that the message is handed on to.
pub(crate) fn skip_name(bytes: &[u8], at: usize) -> Option<usize> {
    let mut pos = at;
    let mut start = at;
    let mut end = None;
    let mut length = 1;
    let mut pointers = 0;
    loop {
        let n = usize::from(*bytes.get(pos)?);
        match n {
            0 => return Some(end.unwrap_or(pos + 1)),
            1..=63 => {
                pos += n + 1;
                length += n + 1;
            }
            0xc0.. => {
                let target = usize::from(u16_at(bytes, pos)? & 0x3fff);
                (HEADER..start).contains(&target).then_some(())?;
                end = end.or(Some(pos + 2));
                (pos, start) = (target, target);
                pointers += 1;
            }
            _ => return None,
        }
        if length > NAME_MAX || pointers > POINTERS_MAX {
            return None;
        }
    }
}

/// Whether the names in a record's data can be read, and end within it. Types whose names may be compressed are known
/// (RFC 3597 §4).
pub(crate) fn has_sound_names(bytes: &[u8], record: &Record) -> bool {
    let (before, names, after) = match record.rtype {
        rtype::NS | rtype::CNAME | rtype::PTR | rtype::DNAME => (0, 1, 0),
        rtype::MX => (2, 1, 0),
        rtype::SRV => (6, 1, 0),
        rtype::SOA => (0, 2, 20),
        _ => return true,
    };
    let end = (0..names).try_fold(record.data + before, |at, _| skip_name(bytes, at));
    end.is_some_and(|end| end + after == record.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_followed_to_their_end() {
        let message = |bytes: &[u8]| [&[0; HEADER], bytes].concat();
        for (bytes, at, end) in [
            (&b"\x01a\x00"[..], 0, Some(3)),
            (b"\x01a\x00\x01b\xc0\x0c", 3, Some(7)),
            (b"\x01a\x00\xc0\x0c\xc0\x0f", 5, Some(7)),
            // At itself, ahead, into the header, round by another.
            (b"\xc0\x0c", 0, None),
            (b"\xc0\x0e\x00", 0, None),
            (b"\xc0\x00", 0, None),
            (b"\x01a\xc0\x0c", 0, None),
            (b"\xc0\x0c\xc0\x0c", 2, None),
            (b"\x40", 0, None),
            (b"\x05ab", 0, None),
        ] {
            assert_eq!(skip_name(&message(bytes), HEADER + at), end.map(|e| HEADER + e), "{bytes:?}");
        }
        // 254 octets of labels by pointers.
        let long = [&b"\x3f"[..], &[b'a'; 63]].concat();
        let three = [&long[..], &long, &long, b"\x00"].concat();
        let name = message(&[&three[..], b"\x3d", &[b'b'; 61], b"\xc0\x0c"].concat());
        assert_eq!(skip_name(&name, HEADER + 193), Some(name.len()), "255 octets");
        let name = message(&[&three[..], b"\x3e", &[b'b'; 62], b"\xc0\x0c"].concat());
        assert_eq!(skip_name(&name, HEADER + 193), None, "256 octets");
        // A chain of pointers, each good by itself.
        let mut chain = message(b"\x00");
        for i in 0..200u16 {
            let to = if i == 0 { HEADER } else { chain.len() - 2 };
            chain.extend((0xc000 | to as u16).to_be_bytes());
        }
        assert_eq!(skip_name(&chain, HEADER + 1 + 2 * 100), Some(HEADER + 3 + 2 * 100));
        assert_eq!(skip_name(&chain, chain.len() - 2), None);
    }

    #[test]
    fn names() {
        let name = Name::parse("Web.Default.svc.cluster.local").unwrap();
        assert_eq!(name.count(), 5);
        assert_eq!(name.label(0), b"web");
        assert_eq!(name.labels(0, 2), b"\x03web\x07default");
        assert_eq!(name.below(&Name::parse("cluster.local.").unwrap()), Some(3));
        assert_eq!(name.below(&Name::parse("luster.local.").unwrap()), None);
        assert_eq!(name.below(&Name::parse(".").unwrap()), Some(5));
        assert_eq!(presentation(name.wire()), "web.default.svc.cluster.local.");
        assert_eq!(presentation(b"\x03a.b\x01\x00\x00"), "a\\.b.\\000.");
        assert!(Name::parse("a..b").is_none());
        assert!(Name::parse(&format!("{}.b", "a".repeat(64))).is_none());
        let long = vec!["a".repeat(63); 4].join(".");
        assert!(Name::parse(&long).is_none(), "257 octets");
    }
}
