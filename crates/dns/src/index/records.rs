//! DnsRecord objects as record sets in wire form.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use eastwest_model::{DnsRecord, DnsRecordType};

use super::Zones;
use crate::map::Map;
use crate::wire::{Name, encode_name, presentation, rtype};

/// A DnsRecord object that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("spec.name: {0:?} is not a DNS name")]
    Name(String),
    #[error("spec.name: {name} is in none of the zones served here ({zones}); put it in one of them")]
    OutsideZones { name: String, zones: String },
    #[error("spec.values: {value:?} is not the data of a {rtype:?} record")]
    Value { value: String, rtype: DnsRecordType },
}

/// Records of one type at one name, from one object.
#[derive(Clone, Debug)]
pub(crate) struct RecordSet {
    object: Arc<str>,
    pub(crate) rtype: u16,
    /// Seconds; `None`: the zone's.
    pub(crate) ttl: Option<u32>,
    pub(crate) data: Box<[Box<[u8]>]>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    /// By wire name.
    names: Map<Box<[u8]>, Arc<[RecordSet]>>,
    /// Names without records that have some below them, and how many.
    interior: Map<Box<[u8]>, u32>,
    /// Which name an object holds.
    objects: Map<Arc<str>, Box<[u8]>>,
}

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        self.names.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<[RecordSet]>> {
        self.names.get(name)
    }

    /// Each name, and what it has.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[RecordSet])> {
        self.names.iter().map(|(name, sets)| (&**name, &**sets))
    }

    pub(crate) fn is_interior(&self, name: &[u8]) -> bool {
        self.interior.contains(name)
    }

    /// The name that an object's records are at.
    pub(super) fn name_of(&self, object: &str) -> Option<&[u8]> {
        self.objects.get(object).map(|name| &**name)
    }

    pub(super) fn apply(
        &mut self,
        zones: &Zones,
        object: &str,
        record: Option<&DnsRecord>,
    ) -> Result<(), RecordError> {
        if let Some(old) = self.objects.remove(object) {
            let rest: Vec<RecordSet> = (self.names.get(&*old).into_iter().flat_map(|sets| sets.iter()))
                .filter(|s| &*s.object != object)
                .cloned()
                .collect();
            if rest.is_empty() {
                self.names.remove(&*old);
                self.count_interior(&old, |n| n - 1);
            } else {
                self.names.insert(old, rest.into());
            }
        }
        let Some(record) = record else { return Ok(()) };
        let spec = &record.spec;
        let name = Name::parse(&spec.name).ok_or_else(|| RecordError::Name(spec.name.clone()))?;
        let arpa = name.count() > 2 && matches!(name.suffix(name.count() - 2), V4_ARPA | V6_ARPA);
        if !arpa && !zones.names.iter().any(|z| name.below(z).is_some()) {
            let zones = format!("{zones}, in-addr.arpa., ip6.arpa.");
            return Err(RecordError::OutsideZones { name: presentation(name.wire()), zones });
        }
        let data = spec
            .values
            .iter()
            .map(|v| {
                encode(spec.type_, v)
                    .map(Vec::into_boxed_slice)
                    .ok_or_else(|| RecordError::Value { value: v.clone(), rtype: spec.type_ })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let object: Arc<str> = object.into();
        let set =
            RecordSet { object: object.clone(), rtype: number(spec.type_), ttl: spec.ttl, data: data.into() };
        let key: Box<[u8]> = name.wire().into();
        let mut sets: Vec<RecordSet> = self.names.get(&*key).map_or_else(Vec::new, |s| s.to_vec());
        sets.push(set);
        if self.names.insert(key.clone(), sets.into()).is_none() {
            self.count_interior(&key, |n| n + 1);
        }
        self.objects.insert(object, key);
        Ok(())
    }

    /// Every name above `name` counts it, the zones' apexes and the root included: they exist anyway.
    fn count_interior(&mut self, name: &[u8], change: impl Fn(u32) -> u32) {
        let mut rest = name;
        while let Some((&n, tail)) = rest.split_first().filter(|(n, _)| **n > 0) {
            rest = &tail[usize::from(n)..];
            let count = change(self.interior.get(rest).copied().unwrap_or(0));
            if count == 0 {
                self.interior.remove(rest);
            } else {
                self.interior.insert(rest.into(), count);
            }
        }
    }
}

const V4_ARPA: &[u8] = b"\x07in-addr\x04arpa\x00";
const V6_ARPA: &[u8] = b"\x03ip6\x04arpa\x00";

fn number(t: DnsRecordType) -> u16 {
    match t {
        DnsRecordType::A => rtype::A,
        DnsRecordType::AAAA => rtype::AAAA,
        DnsRecordType::CNAME => rtype::CNAME,
        DnsRecordType::TXT => rtype::TXT,
        DnsRecordType::SRV => rtype::SRV,
        DnsRecordType::MX => rtype::MX,
        DnsRecordType::PTR => rtype::PTR,
    }
}

/// Record data in wire form from its text.
fn encode(t: DnsRecordType, text: &str) -> Option<Vec<u8>> {
    match t {
        DnsRecordType::A => Some(text.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
        DnsRecordType::AAAA => Some(text.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
        DnsRecordType::CNAME | DnsRecordType::PTR => encode_name(text),
        DnsRecordType::MX => numbers_and_name(text, 1),
        DnsRecordType::SRV => numbers_and_name(text, 3),
        DnsRecordType::TXT => strings(text),
    }
}

fn numbers_and_name(text: &str, numbers: usize) -> Option<Vec<u8>> {
    let fields: Vec<_> = text.split_whitespace().collect();
    let (name, values) = fields.split_last()?;
    if values.len() != numbers {
        return None;
    }
    let mut data = Vec::new();
    for value in values {
        data.extend_from_slice(&value.parse::<u16>().ok()?.to_be_bytes());
    }
    data.extend_from_slice(&encode_name(name)?);
    Some(data)
}

/// Character strings: quoted ones with `\"`, `\\` and `\DDD` as in a zone file (RFC 1035 §5.1), else the text as it is,
/// cut into strings of 255 octets.
fn strings(text: &str) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let mut put = |s: &[u8]| {
        if s.is_empty() {
            data.push(0);
        }
        for chunk in s.chunks(255) {
            data.push(chunk.len() as u8);
            data.extend_from_slice(chunk);
        }
    };
    if !text.trim_start().starts_with('"') {
        put(text.as_bytes());
        return (data.len() <= usize::from(u16::MAX)).then_some(data);
    }
    let mut rest = text.trim().as_bytes();
    while let Some(tail) = rest.strip_prefix(b"\"") {
        let mut string = Vec::new();
        rest = tail;
        loop {
            let (&b, tail) = rest.split_first()?;
            rest = tail;
            match b {
                b'"' => break,
                b'\\' if rest.first()?.is_ascii_digit() => {
                    let digits = std::str::from_utf8(rest.get(..3)?).ok()?;
                    string.push(digits.parse::<u8>().ok()?);
                    rest = &rest[3..];
                }
                b'\\' => {
                    string.push(*rest.first()?);
                    rest = &rest[1..];
                }
                b => string.push(b),
            }
        }
        put(&string);
        rest = rest.trim_ascii_start();
    }
    (rest.is_empty() && data.len() <= usize::from(u16::MAX)).then_some(data)
}
