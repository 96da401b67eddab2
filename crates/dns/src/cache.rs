//! What upstreams said, kept in wire form for as long as its TTLs allow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use moka::notification::RemovalCause;

use crate::metrics::Metrics;
use crate::wire::{
    HEADER, NAME_MAX, Query, Record, has_sound_names, rcode, rtype, skip_name, u16_at, u32_at,
};

/// A question as the cache knows it: name in lower case, type, and the bits that change the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) name: Box<[u8]>,
    pub(crate) qtype: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

impl Question {
    pub(crate) fn of(query: &Query) -> Self {
        Self::new(query.name.wire(), query.qtype, query)
    }

    /// `name` in place of the one that `query` asks.
    pub(crate) fn new(name: &[u8], qtype: u16, query: &Query) -> Self {
        Self {
            name: name.into(),
            qtype,
            dnssec_ok: query.edns.is_some_and(|e| e.dnssec_ok),
            checking_disabled: query.checking_disabled,
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(&self.name, self.qtype, self.dnssec_ok, self.checking_disabled)
    }
}

/// A [`Question`] as bytes on the stack: a look-up allocates nothing.
pub(crate) struct Key {
    bytes: [u8; NAME_MAX + 3],
    len: usize,
}

impl Key {
    fn new(name: &[u8], qtype: u16, dnssec_ok: bool, checking_disabled: bool) -> Self {
        let mut key = Self { bytes: [0; NAME_MAX + 3], len: 3 + name.len().min(NAME_MAX) };
        key.bytes[..2].copy_from_slice(&qtype.to_be_bytes());
        key.bytes[2] = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
        key.bytes[3..key.len].copy_from_slice(&name[..key.len - 3]);
        key
    }

    pub(crate) fn of(query: &Query) -> Self {
        let dnssec_ok = query.edns.is_some_and(|e| e.dnssec_ok);
        Self::new(query.name.wire(), query.qtype, dnssec_ok, query.checking_disabled)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Why no upstream's answer can be had; the text goes to the asker (RFC 8914).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    #[error("no upstream resolver is configured")]
    NoUpstreams,
    #[error("no upstream resolver answered")]
    NoAnswer,
    #[error("too many queries wait for upstream resolvers")]
    Busy,
}

impl ForwardError {
    /// Extended DNS error code.
    pub(crate) fn info_code(self) -> u16 {
        match self {
            Self::NoUpstreams => 0,
            Self::NoAnswer => 22,
            Self::Busy => 14,
        }
    }
}

/// A validated response of an upstream, without OPT.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Box<[u8]>,
    /// Where the question ends.
    pub(crate) question_end: usize,
    pub(crate) rcode: u16,
    pub(crate) truncated: bool,
    ttls: Box<[u32]>,
    /// Where the addresses stand that the question is for, when there are several.
    addresses: Box<[u16]>,
    /// How long it may be kept.
    pub(crate) lifetime: Duration,
    limits: CacheLimits,
    stored: Instant,
    /// How often it was given out of the cache.
    hits: AtomicU32,
    refreshing: AtomicBool,
    /// Milliseconds after `stored` before which no further attempt to renew it is waited for.
    patience: AtomicU64,
}

/// Bounds on lifetimes, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of keys and messages, all told.
    pub capacity: u64,
    /// Longest life of an answer, and the largest TTL passed on (kubeadm's Corefile: `cache 30`). 0: none is kept, and
    /// TTLs pass as they are.
    pub positive: u32,
    /// Shortest life of an answer that may be kept at all.
    pub positive_min: u32,
    /// The same for NXDOMAIN and NODATA.
    pub negative: u32,
    pub negative_min: u32,
    /// How long a failure is remembered (RFC 9520 §3.2: at least 1 s).
    pub failure: u32,
    /// TTLs are passed on as they came, not counted down.
    pub keep_ttl: bool,
    pub prefetch: Option<Prefetch>,
    pub stale: Option<Stale>,
}

/// Renewing what is asked often before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// So often it must have been asked for.
    pub hits: u32,
    /// In the last so many percent of its life, 1 to 100.
    pub percent: u32,
}

/// Answers past their end, while upstreams are silent (RFC 8767).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// For so long past their end, seconds.
    pub longest: u32,
    /// Upstreams are asked first; else the old answer is given at once and renewed behind.
    pub verify: bool,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            capacity: 32 << 20,
            positive: 30,
            positive_min: 0,
            negative: 30,
            negative_min: 0,
            failure: 1,
            keep_ttl: false,
            prefetch: None,
            stale: Some(Stale { longest: 3600, verify: true }),
        }
    }
}

/// TTL of an answer past its end, seconds (RFC 8767 §4).
const STALE_TTL: u32 = 30;
/// After a failed renewal, an old answer is given at once for so long (RFC 8767 §5: failure recheck timer).
const RECHECK: Duration = Duration::from_secs(30);

/// What to do with a cached answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Fresh,
    /// It may be given; one asker renews it besides.
    Renew,
    /// It may be given only when no upstream answers.
    Stale,
}

impl Reply {
    /// Reads a response to `question` with id `id`. `None`: it is none, or it is malformed.
    pub(crate) fn parse(
        mut bytes: Vec<u8>,
        id: u16,
        question: &Question,
        limits: CacheLimits,
    ) -> Option<Self> {
        if bytes.len() < HEADER
            || u16_at(&bytes, 0)? != id
            || bytes[2] & 0xf8 != 0x80
            || u16_at(&bytes, 4)? != 1
        {
            return None;
        }
        let end = HEADER + question.name.len();
        if !bytes.get(HEADER..end)?.eq_ignore_ascii_case(&question.name)
            || u16_at(&bytes, end)? != question.qtype
            || u16_at(&bytes, end + 2)? != crate::wire::CLASS_IN
        {
            return None;
        }
        let question_end = end + 4;
        let counts = [u16_at(&bytes, 6)?, u16_at(&bytes, 8)?, u16_at(&bytes, 10)?];
        let mut code = u16::from(bytes[3] & 15);
        let mut ttls = Vec::new();
        let mut shortest = u32::MAX;
        let mut denial = None;
        let mut additional = 0u16;
        let mut addresses = Vec::new();
        let address_len = match question.qtype {
            rtype::A => 4,
            rtype::AAAA => 16,
            _ => 0,
        };
        let mut pos = question_end;
        'message: for (section, count) in counts.iter().enumerate() {
            for _ in 0..*count {
                let record = Record::read(&bytes, pos).filter(|r| has_sound_names(&bytes, r))?;
                if record.rtype == rtype::OPT {
                    if section != 2 {
                        return None;
                    }
                    code |= (record.ttl >> 24 << 4) as u16;
                    // OPT is between us and the upstream only. What follows it would have to move, and pointers with it.
                    break 'message;
                }
                pos = record.end;
                ttls.push(record.ttl_at as u32);
                match section {
                    0 => {
                        shortest = shortest.min(ttl(record.ttl));
                        if record.rtype == question.qtype && record.end - record.data == address_len {
                            addresses.push(record.data as u16);
                        }
                    }
                    1 if record.rtype == rtype::SOA => {
                        let minimum = soa_minimum(&bytes, &record)?;
                        denial = Some(ttl(record.ttl).min(minimum));
                    }
                    2 => additional += 1,
                    _ => {}
                }
            }
        }
        bytes.truncate(pos);
        // As it is known here, whatever case it was asked in.
        bytes[HEADER..end].copy_from_slice(&question.name);
        bytes[10..12].copy_from_slice(&additional.to_be_bytes());
        let truncated = bytes[2] & 2 != 0;
        let lifetime = match (code, counts[0]) {
            _ if truncated => 0,
            (rcode::NOERROR, 1..) if shortest != u32::MAX => {
                // A chain of CNAMEs that ends in a denial lives no longer than the denial.
                let natural = shortest.min(denial.unwrap_or(u32::MAX));
                natural.max(limits.positive_min).min(limits.positive)
            }
            (rcode::NOERROR | rcode::NXDOMAIN, _) => {
                denial.map_or(0, |d| d.min(shortest).max(limits.negative_min)).min(limits.negative)
            }
            _ => limits.failure,
        };
        let cap = if code == rcode::NOERROR && counts[0] > 0 { limits.positive } else { limits.negative };
        // What is not kept at all passes as it came.
        let cap = if cap == 0 { u32::MAX } else { cap };
        for at in &ttls {
            let at = *at as usize;
            let capped = ttl(u32_at(&bytes, at)?).min(cap);
            bytes[at..at + 4].copy_from_slice(&capped.to_be_bytes());
        }
        Some(Self {
            bytes: bytes.into(),
            question_end,
            rcode: code,
            truncated,
            ttls: ttls.into(),
            addresses: if addresses.len() > 1 { addresses.into() } else { Box::default() },
            lifetime: Duration::from_secs(lifetime.into()),
            limits,
            stored: Instant::now(),
            hits: 0.into(),
            refreshing: false.into(),
            patience: 0.into(),
        })
    }

    /// Whether it tells of a failure, which another may not have.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(self.rcode, rcode::NOERROR | rcode::NXDOMAIN)
    }

    /// How long past its end it may be given.
    fn stale_for(&self) -> Duration {
        let longest = self.limits.stale.filter(|_| !self.is_failure() && !self.truncated);
        Duration::from_secs(longest.map_or(0, |s| s.longest).into())
    }

    /// Judges a cached answer that is asked for; says [`Age::Renew`] to one asker at a time.
    pub(crate) fn age(&self, now: Instant) -> Age {
        let age = now.saturating_duration_since(self.stored);
        if age < self.lifetime {
            let hits = self.hits.fetch_add(1, Relaxed) + 1;
            let due = self.limits.prefetch.is_some_and(|p| {
                hits >= p.hits && (self.lifetime - age) * 100 <= self.lifetime * p.percent.min(100)
            });
            return if due && !self.refreshing.swap(true, Relaxed) { Age::Renew } else { Age::Fresh };
        }
        if (age.as_millis() as u64) < self.patience.load(Relaxed) {
            return Age::Fresh;
        }
        match self.limits.stale {
            Some(Stale { verify: false, .. }) if !self.refreshing.swap(true, Relaxed) => Age::Renew,
            Some(Stale { verify: false, .. }) => Age::Fresh,
            _ => Age::Stale,
        }
    }

    /// Renewing it has failed at `now`.
    pub(crate) fn not_renewed(&self, now: Instant) {
        self.refreshing.store(false, Relaxed);
        let until = now.saturating_duration_since(self.stored) + RECHECK;
        self.patience.store(until.as_millis() as u64, Relaxed);
    }

    /// Puts the addresses of `out`, which [`Reply::write`] has written, in another order.
    pub(crate) fn rotate(&self, out: &mut [u8]) {
        let n = self.addresses.len();
        if n < 2 {
            return;
        }
        let from = fastrand::usize(..n);
        for (i, at) in self.addresses.iter().enumerate() {
            let (to, from) = (usize::from(*at), usize::from(self.addresses[(i + from) % n]));
            let length = usize::from(u16_at(&self.bytes, to - 2).unwrap_or(0));
            if let (Some(slot), Some(data)) =
                (out.get_mut(to..to + length), self.bytes.get(from..from + length))
            {
                slot.copy_from_slice(data);
            }
        }
    }

    /// NXDOMAIN or NODATA.
    pub(crate) fn is_denial(&self) -> bool {
        self.rcode != rcode::NOERROR || self.bytes[6..8] == [0, 0]
    }

    /// Writes the message into `out` with TTLs counted down to `now`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, now: Instant) {
        out.clear();
        out.extend_from_slice(&self.bytes);
        let age = now.saturating_duration_since(self.stored);
        let stale = !self.lifetime.is_zero() && age >= self.lifetime;
        let seconds = age.as_secs() as u32;
        if (seconds == 0 || self.limits.keep_ttl) && !stale {
            return;
        }
        for at in &self.ttls {
            let at = *at as usize;
            if let (Some(ttl), Some(slot)) = (u32_at(&self.bytes, at), out.get_mut(at..at + 4)) {
                let left = if stale { STALE_TTL } else { ttl.saturating_sub(seconds) };
                slot.copy_from_slice(&left.to_be_bytes());
            }
        }
    }
}

/// A TTL with the high bit set counts as 0 (RFC 2181 §8).
fn ttl(raw: u32) -> u32 {
    if raw > i32::MAX as u32 { 0 } else { raw }
}

fn soa_minimum(bytes: &[u8], record: &Record) -> Option<u32> {
    let at = skip_name(bytes, skip_name(bytes, record.data)?)?;
    (at + 20 == record.end).then_some(())?;
    u32_at(bytes, at + 16).map(ttl)
}

pub(crate) type Outcome = Result<Arc<Reply>, ForwardError>;

/// Bounded by bytes; TinyLFU admission keeps a flood of names asked once from washing out the ones asked often.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: moka::sync::Cache<Box<[u8]>, Outcome>,
    metrics: Arc<Metrics>,
}

struct ByLifetime {
    failure: Duration,
}

impl moka::Expiry<Box<[u8]>, Outcome> for ByLifetime {
    fn expire_after_create(&self, _: &Box<[u8]>, value: &Outcome, _: Instant) -> Option<Duration> {
        Some(value.as_ref().map_or(self.failure, |r| r.lifetime + r.stale_for()))
    }

    fn expire_after_update(
        &self,
        k: &Box<[u8]>,
        value: &Outcome,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(k, value, now)
    }
}

/// An entry costs its message, its key, and about 200 bytes of bookkeeping.
#[allow(clippy::borrowed_box)]
fn weight(key: &Box<[u8]>, value: &Outcome) -> u32 {
    (200 + key.len() + value.as_ref().map_or(0, |r| r.bytes.len() + 4 * r.ttls.len())) as u32
}

fn is_denial(outcome: &Outcome) -> bool {
    outcome.as_ref().map_or(true, |r| r.is_denial())
}

impl Cache {
    pub(crate) fn new(limits: CacheLimits, metrics: Arc<Metrics>) -> Self {
        let counted = metrics.clone();
        let entries = moka::sync::Cache::builder()
            .max_capacity(limits.capacity)
            .weigher(weight)
            .expire_after(ByLifetime { failure: Duration::from_secs(limits.failure.into()) })
            .eviction_listener(move |_, value: Outcome, cause| {
                let kind = usize::from(is_denial(&value));
                counted.cache_entries[kind].fetch_sub(1, Relaxed);
                if cause == RemovalCause::Size {
                    counted.cache_evictions[kind].fetch_add(1, Relaxed);
                }
            })
            .build();
        Self { entries, metrics }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Outcome> {
        self.entries.get(key.as_slice())
    }

    pub(crate) fn put(&self, key: &Key, outcome: Outcome) {
        if outcome.as_ref().is_ok_and(|r| r.lifetime.is_zero()) {
            return;
        }
        self.metrics.cache_entries[usize::from(is_denial(&outcome))].fetch_add(1, Relaxed);
        self.entries.insert(key.as_slice().into(), outcome);
    }

    pub(crate) fn clear(&self) {
        self.entries.invalidate_all();
    }

    #[cfg(test)]
    pub(crate) fn settle(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}

#[cfg(test)]
mod tests;
