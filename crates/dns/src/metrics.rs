//! CoreDNS' metrics under CoreDNS' names and labels. Each worker counts in atomics of its own; a scrape adds them up.
//! So no query takes a lock, and no two workers share a cache line for counting.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use crate::writer::Transport;

/// Types with a label of their own, as in CoreDNS; all others are `other`.
const TYPES: [(u16, &str); 19] = [
    (1, "A"),
    (28, "AAAA"),
    (5, "CNAME"),
    (48, "DNSKEY"),
    (43, "DS"),
    (15, "MX"),
    (50, "NSEC3"),
    (47, "NSEC"),
    (2, "NS"),
    (12, "PTR"),
    (46, "RRSIG"),
    (6, "SOA"),
    (33, "SRV"),
    (16, "TXT"),
    (65, "HTTPS"),
    (64, "SVCB"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
];
const OTHER: usize = TYPES.len();
/// Codes that occur: 0 to 11, and BADVERS.
const RCODES: usize = 17;

pub(crate) fn rcode_name(code: usize) -> String {
    const NAMES: [&str; RCODES] = [
        "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
        "NOTAUTH", "NOTZONE", "", "", "", "", "", "BADVERS",
    ];
    match NAMES.get(code) {
        Some(name) if !name.is_empty() => (*name).to_owned(),
        _ => format!("RCODE{code}"),
    }
}

/// Who made an answer; CoreDNS' plugin of that task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugin {
    /// Answered before any look-up: errors.
    None,
    Kubernetes,
    Cache,
    Forward,
    Acl,
    Any,
    Chaos,
    Hosts,
    Template,
    Whoami,
    Transfer,
}

const PLUGINS: [&str; 11] =
    ["", "kubernetes", "cache", "forward", "acl", "any", "chaos", "hosts", "template", "whoami", "transfer"];

impl Plugin {
    /// As the label `plugin` has it; for answers before any look-up, what they are.
    pub(crate) fn name(self) -> &'static str {
        match PLUGINS[self as usize] {
            "" => "the protocol's own rules",
            name => name,
        }
    }
}

/// Why a message got no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drop {
    /// Shorter than a header, or a response.
    NotAQuery,
    /// A connection over the limit.
    Connections,
    /// A connection that was silent, or took too long over one message or over reading its answers.
    Slow,
    /// More queries wait for upstreams than allowed.
    Pending,
    /// The answer could not be sent.
    Send,
    /// A client that is not served, more often than it is told so.
    Refused,
    /// By a rule of `acl`.
    Acl,
}

const DROPS: [&str; 7] = ["not_a_query", "connections", "slow", "pending", "send", "refused", "acl"];

#[derive(Debug)]
struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    /// What one of `bounds`' units is in the exported unit.
    scale: f64,
    counts: [AtomicU64; N],
    over: AtomicU64,
    sum: AtomicU64,
}

/// 0.25 ms doubled fifteen times, in ns (CoreDNS' `TimeBuckets`).
const TIMES: [u64; 16] = {
    let mut bounds = [250_000; 16];
    let mut i = 1;
    while i < 16 {
        bounds[i] = bounds[i - 1] * 2;
        i += 1;
    }
    bounds
};
const SIZES: [u64; 14] = [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [u64; N], scale: f64) -> Self {
        Self { bounds, scale, counts: std::array::from_fn(|_| 0.into()), over: 0.into(), sum: 0.into() }
    }

    fn observe(&self, value: u64) {
        match self.bounds.iter().position(|b| value <= *b) {
            Some(i) => self.counts[i].fetch_add(1, Relaxed),
            None => self.over.fetch_add(1, Relaxed),
        };
        self.sum.fetch_add(value, Relaxed);
    }

    fn add_to(&self, total: &mut HistogramTotal) {
        if total.buckets.is_empty() {
            total.buckets = self.bounds.iter().map(|b| (*b as f64 * self.scale, 0)).collect();
            total.buckets.push((f64::MAX, 0));
        }
        for (slot, count) in total.buckets.iter_mut().zip(self.counts.iter().chain([&self.over])) {
            slot.1 += count.load(Relaxed);
        }
        total.sum += self.sum.load(Relaxed) as f64 * self.scale;
    }
}

#[derive(Debug, Default)]
struct HistogramTotal {
    buckets: Vec<(f64, u64)>,
    sum: f64,
}

/// One worker's counts.
#[derive(Debug)]
pub(crate) struct Counters {
    /// `dns://ADDRESS:PORT`.
    server: String,
    proto: &'static str,
    /// `1` IPv4, `2` IPv6.
    family: &'static str,
    requests: [AtomicU64; OTHER + 1],
    responses: [[AtomicU64; RCODES]; PLUGINS.len()],
    dnssec_ok: AtomicU64,
    duration: Histogram<16>,
    request_size: Histogram<14>,
    response_size: Histogram<14>,
    cache_requests: AtomicU64,
    cache_hits: [AtomicU64; 2],
    drops: [AtomicU64; DROPS.len()],
}

impl Counters {
    fn new(addr: SocketAddr, transport: Transport) -> Self {
        Self {
            server: format!("{}://{addr}", if transport == Transport::Tls { "tls" } else { "dns" }),
            proto: match transport {
                Transport::Udp => "udp",
                Transport::Tcp | Transport::Tls => "tcp",
            },
            family: if addr.is_ipv4() { "1" } else { "2" },
            requests: std::array::from_fn(|_| 0.into()),
            responses: std::array::from_fn(|_| std::array::from_fn(|_| 0.into())),
            dnssec_ok: 0.into(),
            duration: Histogram::new(&TIMES, 1e-9),
            request_size: Histogram::new(&SIZES, 1.0),
            response_size: Histogram::new(&SIZES, 1.0),
            cache_requests: 0.into(),
            cache_hits: std::array::from_fn(|_| 0.into()),
            drops: std::array::from_fn(|_| 0.into()),
        }
    }

    pub(crate) fn request(&self, qtype: u16, size: usize, dnssec_ok: bool) {
        let slot = TYPES.iter().position(|(t, _)| *t == qtype).unwrap_or(OTHER);
        self.requests[slot].fetch_add(1, Relaxed);
        self.request_size.observe(size as u64);
        if dnssec_ok {
            self.dnssec_ok.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn response(&self, plugin: Plugin, code: u16, size: usize, took: Duration) {
        self.responses[plugin as usize][usize::from(code).min(RCODES - 1)].fetch_add(1, Relaxed);
        self.response_size.observe(size as u64);
        self.duration.observe(took.as_nanos() as u64);
    }

    /// A question went to the cache; `hit`: whether with success a denial (`true`) or records were found.
    pub(crate) fn cache(&self, hit: Option<bool>) {
        self.cache_requests.fetch_add(1, Relaxed);
        if let Some(denial) = hit {
            self.cache_hits[usize::from(denial)].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn dropped(&self, why: Drop) {
        self.drops[why as usize].fetch_add(1, Relaxed);
    }
}

/// What an upstream was asked and what it said; counted once a forwarded query, which waits for the network anyway.
#[derive(Debug, Default)]
struct Upstream {
    requests: u64,
    responses: BTreeMap<String, u64>,
    durations: BTreeMap<String, HistogramTotal>,
    mismatches: u64,
    probes_failed: u64,
}

/// Questions that the kernel has answered, or sent to another node, at one address of the node.
#[derive(Clone, Copy, Debug)]
pub struct KernelCount {
    pub server: SocketAddr,
    /// Questions for A and for AAAA.
    pub types: [u64; 2],
    pub dnssec_ok: u64,
    /// Octets of all questions, of all answers.
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Questions of more than 100 octets; none has more than 200.
    pub request_100: u64,
    /// Answers of more than 100 octets, of more than 200; none has more than 300.
    pub response_100: u64,
    pub response_200: u64,
    /// Packets sent to another node as the agent did not answer.
    pub elsewhere: u64,
}

impl KernelCount {
    /// As a worker would have counted it. Nobody has measured the times; all are below the first bound.
    fn counters(&self) -> Counters {
        let counters = Counters::new(self.server, Transport::Udp);
        let all = self.types[0] + self.types[1];
        for (slot, n) in self.types.iter().enumerate() {
            counters.requests[slot].store(*n, Relaxed);
        }
        counters.responses[Plugin::Kubernetes as usize][0].store(all, Relaxed);
        counters.dnssec_ok.store(self.dnssec_ok, Relaxed);
        counters.duration.counts[0].store(all, Relaxed);
        counters.request_size.counts[1].store(all.saturating_sub(self.request_100), Relaxed);
        counters.request_size.counts[2].store(self.request_100, Relaxed);
        counters.request_size.sum.store(self.request_bytes, Relaxed);
        counters.response_size.counts[1].store(all.saturating_sub(self.response_100), Relaxed);
        let between = self.response_100.saturating_sub(self.response_200);
        counters.response_size.counts[2].store(between, Relaxed);
        counters.response_size.counts[3].store(self.response_200, Relaxed);
        counters.response_size.sum.store(self.response_bytes, Relaxed);
        counters
    }
}

/// Reads the kernel's counts.
struct Kernel(Box<dyn Fn() -> Vec<KernelCount> + Send + Sync>);

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kernel")
    }
}

/// All DNS metrics of a process. Give it to each [`crate::Server`] and [`crate::Forwarder`], and register it once.
#[derive(Debug, Default)]
pub struct Metrics {
    workers: Mutex<Vec<Arc<Counters>>>,
    upstreams: Mutex<BTreeMap<SocketAddr, Upstream>>,
    kernel: OnceLock<Kernel>,
    pub(crate) rejected: AtomicU64,
    /// Answers given past their end.
    pub(crate) cache_stale: AtomicU64,
    /// Entries by `success` and `denial`.
    pub(crate) cache_entries: [AtomicU64; 2],
    pub(crate) cache_evictions: [AtomicU64; 2],
}

impl Metrics {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds the metrics to `registry`, which must have no prefix: their names are CoreDNS' own.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(DnsCollector(self.clone())));
    }

    pub(crate) fn worker(&self, addr: SocketAddr, transport: Transport) -> Arc<Counters> {
        let counters = Arc::new(Counters::new(addr, transport));
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(counters.clone());
        counters
    }

    /// Adds what the kernel answers, as `read` tells it, from now on. Only the first is taken.
    pub fn count_kernel(&self, read: impl Fn() -> Vec<KernelCount> + Send + Sync + 'static) {
        let _ = self.kernel.set(Kernel(Box::new(read)));
    }

    fn upstream(&self, to: SocketAddr, change: impl FnOnce(&mut Upstream)) {
        change(self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).entry(to).or_default());
    }

    pub(crate) fn asked(&self, to: SocketAddr) {
        self.upstream(to, |u| u.requests += 1);
    }

    pub(crate) fn replied(&self, to: SocketAddr, code: u16, took: Duration) {
        let code = rcode_name(usize::from(code));
        self.upstream(to, |u| {
            let histogram = Histogram::new(&TIMES, 1e-9);
            histogram.observe(took.as_nanos() as u64);
            histogram.add_to(u.durations.entry(code.clone()).or_default());
            *u.responses.entry(code).or_default() += 1;
        });
    }

    /// A probe of an upstream that had failed.
    pub(crate) fn probed(&self, to: SocketAddr, healthy: bool) {
        self.upstream(to, |u| u.probes_failed += u64::from(!healthy));
    }

    /// A datagram from an upstream that answers something else than was asked.
    pub(crate) fn mismatch(&self, to: SocketAddr) {
        self.upstream(to, |u| u.mismatches += 1);
    }
}

type Labels = Vec<(&'static str, String)>;

/// Sums by label set, in a fixed order.
#[derive(Default)]
struct Sums(BTreeMap<Labels, u64>);

impl Sums {
    fn add(&mut self, labels: Labels, n: u64) {
        if n > 0 {
            *self.0.entry(labels).or_default() += n;
        }
    }

    fn encode(
        self,
        e: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        kind: MetricType,
    ) -> Result<(), Error> {
        let mut metric = e.encode_descriptor(name, help, None, kind)?;
        for (labels, n) in &self.0 {
            let mut family = metric.encode_family(labels)?;
            match kind {
                MetricType::Gauge => family.encode_gauge(n)?,
                _ => family.encode_counter::<NoLabelSet, _, u64>(n, None::<&Exemplar<NoLabelSet, u64>>)?,
            }
        }
        Ok(())
    }
}

fn encode_histograms(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    totals: &BTreeMap<Labels, HistogramTotal>,
) -> Result<(), Error> {
    let mut metric = e.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, total) in totals {
        let count = total.buckets.iter().map(|b| b.1).sum();
        let mut family = metric.encode_family(labels)?;
        family.encode_histogram::<NoLabelSet>(total.sum, count, &total.buckets, None)?;
    }
    Ok(())
}

#[derive(Debug)]
struct DnsCollector(Arc<Metrics>);

impl Collector for DnsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut workers = self.0.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kernel = self.0.kernel.get().map_or_else(Vec::new, |kernel| kernel.0());
        workers.extend(kernel.iter().map(|count| Arc::new(count.counters())));
        in_kernel(&kernel, &mut encoder)?;
        requests(&workers, &mut encoder)?;
        sizes_and_times(&workers, &mut encoder)?;
        self.cache(&workers, &mut encoder)?;
        self.forward(&mut encoder)
    }
}

/// One server block as kubeadm's Corefile has: the root zone, no view.
fn of_server(server: &str, more: &[(&'static str, &str)]) -> Labels {
    let mut labels = vec![("server", server.to_owned()), ("zone", ".".to_owned()), ("view", String::new())];
    labels.extend(more.iter().map(|(k, v)| (*k, (*v).to_owned())));
    labels
}

fn requests(workers: &[Arc<Counters>], e: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let (mut asked, mut answered, mut dnssec, mut dropped) =
        (Sums::default(), Sums::default(), Sums::default(), Sums::default());
    for w in workers {
        for (i, n) in w.requests.iter().enumerate() {
            let qtype = TYPES.get(i).map_or("other", |t| t.1);
            let labels = of_server(&w.server, &[("proto", w.proto), ("family", w.family), ("type", qtype)]);
            asked.add(labels, n.load(Relaxed));
        }
        for (plugin, codes) in PLUGINS.iter().zip(&w.responses) {
            for (code, n) in codes.iter().enumerate() {
                let labels = of_server(&w.server, &[("rcode", &rcode_name(code)), ("plugin", plugin)]);
                answered.add(labels, n.load(Relaxed));
            }
        }
        dnssec.add(of_server(&w.server, &[]), w.dnssec_ok.load(Relaxed));
        for (why, n) in DROPS.iter().zip(&w.drops) {
            let labels = vec![
                ("server", w.server.clone()),
                ("proto", w.proto.to_owned()),
                ("reason", (*why).to_owned()),
            ];
            dropped.add(labels, n.load(Relaxed));
        }
    }
    let counter = MetricType::Counter;
    asked.encode(
        e,
        "coredns_dns_requests",
        "Counter of DNS requests made per zone, protocol and family.",
        counter,
    )?;
    answered.encode(e, "coredns_dns_responses", "Counter of response status codes.", counter)?;
    dnssec.encode(
        e,
        "coredns_dns_do_requests",
        "Counter of DNS requests with DO bit set per zone.",
        counter,
    )?;
    dropped.encode(
        e,
        "eastwest_dns_dropped",
        "Messages and connections that got no answer, by reason.",
        counter,
    )
}

/// What of the questions no agent has seen: they are among CoreDNS' own metrics too.
fn in_kernel(kernel: &[KernelCount], e: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let (mut answers, mut elsewhere) = (Sums::default(), Sums::default());
    for count in kernel {
        let labels = || vec![("server", format!("dns://{}", count.server))];
        answers.add(labels(), count.types[0] + count.types[1]);
        elsewhere.add(labels(), count.elsewhere);
    }
    let counter = MetricType::Counter;
    answers.encode(
        e,
        "eastwest_dns_kernel_answers",
        "Questions of pods that the kernel has answered.",
        counter,
    )?;
    elsewhere.encode(
        e,
        "eastwest_dns_elsewhere",
        "Packets of pods sent to another node's DNS as this node's did not answer.",
        counter,
    )
}

fn sizes_and_times(workers: &[Arc<Counters>], e: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let mut durations = BTreeMap::<Labels, HistogramTotal>::new();
    let mut asked = BTreeMap::<Labels, HistogramTotal>::new();
    let mut answered = BTreeMap::<Labels, HistogramTotal>::new();
    for w in workers {
        w.duration.add_to(durations.entry(of_server(&w.server, &[])).or_default());
        let labels = of_server(&w.server, &[("proto", w.proto)]);
        w.request_size.add_to(asked.entry(labels.clone()).or_default());
        w.response_size.add_to(answered.entry(labels).or_default());
    }
    encode_histograms(
        e,
        "coredns_dns_request_duration_seconds",
        "Histogram of the time (in seconds) each request took per zone.",
        &durations,
    )?;
    encode_histograms(
        e,
        "coredns_dns_request_size_bytes",
        "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
        &asked,
    )?;
    encode_histograms(
        e,
        "coredns_dns_response_size_bytes",
        "Size of the returned response in bytes.",
        &answered,
    )
}

const CACHE_TYPES: [&str; 2] = ["success", "denial"];

impl DnsCollector {
    fn cache(&self, workers: &[Arc<Counters>], e: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let labels = |server: &str, more: Option<&str>| {
            let mut labels: Labels = vec![("server", server.to_owned())];
            labels.extend(more.map(|t| ("type", t.to_owned())));
            labels.extend([("zones", ".".to_owned()), ("view", String::new())]);
            labels
        };
        let (mut asked, mut hits, mut misses) = (Sums::default(), Sums::default(), Sums::default());
        for w in workers {
            let n = w.cache_requests.load(Relaxed);
            asked.add(labels(&w.server, None), n);
            let mut found = 0;
            for (t, hit) in CACHE_TYPES.iter().zip(&w.cache_hits) {
                let hit = hit.load(Relaxed);
                found += hit;
                hits.add(labels(&w.server, Some(t)), hit);
            }
            misses.add(labels(&w.server, None), n.saturating_sub(found));
        }
        // All listeners share one cache; it is counted under the first.
        let first = workers.first().map_or("", |w| w.server.as_str());
        let (mut entries, mut evictions) = (Sums::default(), Sums::default());
        for (i, t) in CACHE_TYPES.iter().enumerate() {
            entries.add(labels(first, Some(t)), self.0.cache_entries[i].load(Relaxed));
            evictions.add(labels(first, Some(t)), self.0.cache_evictions[i].load(Relaxed));
        }
        let counter = MetricType::Counter;
        entries.encode(
            e,
            "coredns_cache_entries",
            "The number of elements in the cache.",
            MetricType::Gauge,
        )?;
        asked.encode(e, "coredns_cache_requests", "The count of cache requests.", counter)?;
        hits.encode(e, "coredns_cache_hits", "The count of cache hits.", counter)?;
        misses.encode(e, "coredns_cache_misses", "The count of cache misses.", counter)?;
        let mut stale = Sums::default();
        stale.add(labels(first, None), self.0.cache_stale.load(Relaxed));
        stale.encode(
            e,
            "coredns_cache_served_stale",
            "The number of requests served from stale cache entries.",
            counter,
        )?;
        evictions.encode(e, "coredns_cache_evictions", "The count of cache evictions.", counter)
    }

    fn forward(&self, e: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let (mut asked, mut answered, mut mismatches) = (Sums::default(), Sums::default(), Sums::default());
        let mut unhealthy = Sums::default();
        let mut durations = BTreeMap::<Labels, HistogramTotal>::new();
        for (to, u) in &*self.0.upstreams.lock().unwrap_or_else(PoisonError::into_inner) {
            let to = to.to_string();
            asked.add(vec![("to", to.clone())], u.requests);
            mismatches.add(vec![("to", to.clone())], u.mismatches);
            unhealthy.add(vec![("proxy_name", "forward".to_owned()), ("to", to.clone())], u.probes_failed);
            for (code, n) in &u.responses {
                answered.add(vec![("to", to.clone()), ("rcode", code.clone())], *n);
            }
            for (code, total) in &u.durations {
                let labels =
                    vec![("proxy_name", "forward".to_owned()), ("to", to.clone()), ("rcode", code.clone())];
                let copy = HistogramTotal { buckets: total.buckets.clone(), sum: total.sum };
                durations.insert(labels, copy);
            }
        }
        let counter = MetricType::Counter;
        asked.encode(e, "coredns_forward_requests", "Counter of requests made per upstream.", counter)?;
        answered.encode(
            e,
            "coredns_forward_responses",
            "Counter of responses received per upstream.",
            counter,
        )?;
        encode_histograms(
            e,
            "coredns_proxy_request_duration_seconds",
            "Histogram of the time each request took.",
            &durations,
        )?;
        unhealthy.encode(
            e,
            "coredns_proxy_healthcheck_failures",
            "Counter of the number of failed healthchecks.",
            counter,
        )?;
        let mut rejected = Sums::default();
        rejected.add(Labels::new(), self.0.rejected.load(Relaxed));
        rejected.encode(
            e,
            "coredns_forward_max_concurrent_rejects",
            "Counter of the number of queries rejected because the concurrent queries were at maximum.",
            counter,
        )?;
        mismatches.encode(
            e,
            "eastwest_dns_upstream_mismatches",
            "Datagrams from an upstream that answer something else than was asked.",
            counter,
        )
    }
}
