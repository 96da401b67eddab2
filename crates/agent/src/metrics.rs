//! Metrics under kube-proxy's names where it has them, and ours.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eastwest_client::Following;
use eastwest_dataplane::{Connections, Level};
use eastwest_model::DeviceState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::core::Status;

/// What the core counts.
#[derive(Debug)]
pub struct SyncMetrics {
    /// Seconds to program the changes of a batch.
    pub rules_duration: Histogram,
    /// Seconds from the change of an endpoint to its programming.
    pub programming_duration: Histogram,
    /// The same for headless Services, whose endpoints are names.
    pub dns_programming_duration: Histogram,
    pub service_changes: Counter,
    pub endpoint_changes: Counter,
    /// Milliseconds since 1970.
    last_applied: AtomicU64,
    last_received: AtomicU64,
}

impl Default for SyncMetrics {
    fn default() -> Self {
        // kube-proxy's buckets of both begin at 1 ms and 250 ms; ours begin lower, as we do.
        let fine = || exponential_buckets(0.000_125, 2.0, 20);
        Self {
            rules_duration: Histogram::new(fine()),
            programming_duration: Histogram::new(fine()),
            dns_programming_duration: Histogram::new(fine()),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            last_applied: AtomicU64::new(0),
            last_received: AtomicU64::new(0),
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl SyncMetrics {
    /// Changes have been programmed, in this time.
    pub fn applied(&self, _took: Duration) {
        self.last_applied.store(unix_ms(), Ordering::Relaxed);
    }

    /// Changes have come in.
    pub fn received(&self) {
        self.last_received.store(unix_ms(), Ordering::Relaxed);
    }

    /// When something was programmed last; `None`: never.
    pub fn last_applied(&self) -> Option<SystemTime> {
        let ms = self.last_applied.load(Ordering::Relaxed);
        (ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(ms))
    }

    /// CoreDNS' own measure, which it takes for headless Services with a selector alone.
    pub fn register_dns(&self, registry: &mut Registry) {
        let kind = ("service_kind".into(), "headless_with_selector".into());
        registry.sub_registry_with_label(kind).register(
            "coredns_kubernetes_dns_programming_duration_seconds",
            "Time from the change of an endpoint of a headless Service to its names on this node",
            self.dns_programming_duration.clone(),
        );
    }

    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Time to program the changes of a batch",
            self.rules_duration.clone(),
        );
        registry.register(
            "kubeproxy_network_programming_duration_seconds",
            "Time from the change of an endpoint to its programming on this node",
            self.programming_duration.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_service_changes",
            "Changes of Services received",
            self.service_changes.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_endpoint_changes",
            "Changes of EndpointSlices received",
            self.endpoint_changes.clone(),
        );
        registry.register_collector(Box::new(Timestamps(self.clone())));
    }
}

#[derive(Debug)]
struct Timestamps(Arc<SyncMetrics>);

impl Collector for Timestamps {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let seconds = |ms: &AtomicU64| ms.load(Ordering::Relaxed) as f64 / 1000.0;
        let mut all = Values(&mut encoder);
        all.gauge(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When changes were programmed last",
            seconds(&self.0.last_applied),
        )?;
        all.gauge(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "When changes were received last",
            seconds(&self.0.last_received),
        )
    }
}

/// Metrics that are read from elsewhere at each scrape.
#[derive(Debug)]
pub struct Node {
    pub status: watch::Receiver<Status>,
    pub following: watch::Receiver<Following>,
    pub devices: watch::Receiver<Vec<DeviceState>>,
    pub levels: watch::Receiver<Vec<(&'static str, Level)>>,
    pub connections: watch::Receiver<Vec<Connections>>,
    pub problems: crate::problems::Problems,
}

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut all = Values(&mut encoder);
        let status = self.status.borrow().clone();
        let following = self.following.borrow().clone();
        let applied = status.applied.as_ref().map_or(0, |p| p.revision.0);
        all.gauge(
            "eastwest_applied_revision",
            "Everything up to this revision is programmed",
            applied as f64,
        )?;
        all.gauge(
            "eastwest_head_revision",
            "Newest revision of the store, as far as known",
            following.head.0.max(applied) as f64,
        )?;
        all.gauge(
            "eastwest_controller_connected",
            "1: the controller's stream is open",
            u8::from(following.connected).into(),
        )?;
        all.counter("eastwest_controller_connections", "Streams opened", following.connections)?;
        all.counter("eastwest_controller_failures", "Attempts failed and streams lost", following.failures)?;
        all.gauge("eastwest_services", "Services programmed", status.services as f64)?;
        all.gauge("eastwest_backends", "Backends programmed", status.backends as f64)?;
        let problems = status.problems.len() + self.problems.list().len();
        all.gauge(
            "eastwest_problems",
            "Things that do not work, as the node's state names them",
            problems as f64,
        )?;
        all.gauge(
            "eastwest_programming_latency_seconds",
            "From receiving the newest change to its last map write",
            status.latency_us as f64 / 1e6,
        )?;
        all.gauge("process_resident_memory_bytes", "Resident memory", resident() as f64)?;
        let build = [("version", env!("CARGO_PKG_VERSION"))];
        let encoder = all.0.encode_descriptor(
            "eastwest_build",
            "This build",
            None,
            prometheus_client::metrics::MetricType::Info,
        )?;
        prometheus_client::metrics::info::Info::new(build).encode(encoder)?;
        let counters: Vec<_> = status.counters.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        all.counters("eastwest_packets", "Decisions of the kernel programs, by kind", "reason", &counters)?;
        let kind = ConstCounter::new(0u64).metric_type();
        let help = "Connections opened through a Service port on this node, since its agent started";
        let mut services = all.0.encode_descriptor("eastwest_service_connections", help, None, kind)?;
        for one in self.connections.borrow().iter() {
            let labels = [
                ("namespace", &*one.service.namespace),
                ("service", &*one.service.name),
                ("port", &*one.port),
                ("protocol", protocol(one.protocol)),
            ];
            ConstCounter::new(one.opened).encode(services.encode_family(&labels)?)?;
        }
        let levels = self.levels.borrow().clone();
        let used: Vec<_> = levels.iter().map(|(name, level)| (*name, f64::from(level.used))).collect();
        all.gauges("eastwest_table_entries", "Entries in use of the kernel's tables", "table", &used)?;
        let capacity: Vec<_> =
            levels.iter().map(|(name, level)| (*name, f64::from(level.capacity))).collect();
        all.gauges("eastwest_table_capacity", "Entries that the kernel's tables have", "table", &capacity)?;
        let devices = self.devices.borrow().clone();
        let modes: Vec<_> = ["tc", "clsact", "xdp-generic", "xdp-native"]
            .map(|mode| (mode, devices.iter().filter(|d| d.mode == mode && d.error.is_none()).count() as f64))
            .into();
        all.gauges("eastwest_devices", "Devices hooked, by mode", "mode", &modes)?;
        let failed = devices.iter().filter(|d| d.error.is_some()).count();
        all.gauge("eastwest_devices_failed", "Devices that could not be hooked", failed as f64)
    }
}

fn protocol(number: u8) -> &'static str {
    match number {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => "other",
    }
}

/// Resident memory of this process, bytes.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * u64::try_from(page).unwrap_or(4096)
}

struct Values<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Values<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(encoder)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let kind = ConstCounter::new(0u64).metric_type();
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (key, value) in values {
            let labels = [(label, *key)];
            let encoder = encoder.encode_family(&labels)?;
            ConstCounter::new(*value).encode(encoder)?;
        }
        Ok(())
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, f64)]) -> fmt::Result {
        let kind = ConstGauge::new(0.0).metric_type();
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (key, value) in values {
            let labels = [(label, *key)];
            let encoder = encoder.encode_family(&labels)?;
            ConstGauge::new(*value).encode(encoder)?;
        }
        Ok(())
    }
}
