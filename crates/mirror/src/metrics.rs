use eastwest_model::Kind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Failure {
    kind: &'static str,
    reason: &'static str,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    events: Family<OfKind, Counter>,
    failures: Family<Failure, Counter>,
    lists: Family<OfKind, Counter>,
    synced: Family<OfKind, Gauge>,
    objects: Family<OfKind, Gauge>,
    unreadable: Family<OfKind, Gauge>,
    conflicts: Family<OfKind, Gauge>,
    connected: Family<OfKind, Gauge>,
    turned_back: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let this = Self::default();
        let registry = registry.sub_registry_with_prefix("eastwest_mirror");
        registry.register("events", "Objects received from the Kubernetes API server", this.events.clone());
        registry.register("failures", "Failed lists and watches, by reason", this.failures.clone());
        registry.register("lists", "Full lists taken over", this.lists.clone());
        registry.register("synced", "1 once a full list has been taken over", this.synced.clone());
        registry.register("objects", "Objects mirrored, as of the last full list", this.objects.clone());
        let help = "Objects left as they were, as they cannot be read";
        registry.register("unreadable", help, this.unreadable.clone());
        let help = "Objects left out, as one of our own API has their name";
        registry.register("conflicts", help, this.conflicts.clone());
        registry.register("connected", "0 while lists or watches fail", this.connected.clone());
        let help = "Times the API server was found at an older state";
        registry.register("turned_back", help, this.turned_back.clone());
        this
    }

    pub(crate) fn event(&self, kind: Kind, n: u64) {
        self.events.get_or_create(&of(kind)).inc_by(n);
    }

    pub(crate) fn failed(&self, kind: Kind, reason: &'static str) {
        self.failures.get_or_create(&Failure { kind: of(kind).kind, reason }).inc();
        self.connected.get_or_create(&of(kind)).set(0);
    }

    /// One object that cannot be read; the others go on.
    pub(crate) fn failed_object(&self, kind: Kind) {
        self.failures.get_or_create(&Failure { kind: of(kind).kind, reason: "unreadable" }).inc();
    }

    /// The server no longer has what a watch would need; nothing is wrong with that.
    pub(crate) fn lost_history(&self, kind: Kind) {
        self.failures.get_or_create(&Failure { kind: of(kind).kind, reason: "gone" }).inc();
    }

    pub(crate) fn listed(&self, kind: Kind, objects: usize) {
        self.lists.get_or_create(&of(kind)).inc();
        self.synced.get_or_create(&of(kind)).set(1);
        self.objects.get_or_create(&of(kind)).set(objects as i64);
    }

    pub(crate) fn well(&self, kind: Kind) {
        self.connected.get_or_create(&of(kind)).set(1);
    }

    pub(crate) fn left_out(&self, kind: Kind, unreadable: usize, conflicts: usize) {
        self.unreadable.get_or_create(&of(kind)).set(unreadable as i64);
        self.conflicts.get_or_create(&of(kind)).set(conflicts as i64);
    }

    pub(crate) fn turned_back(&self) {
        self.turned_back.inc();
    }
}

/// Under the name that Kubernetes has for it.
fn of(kind: Kind) -> OfKind {
    OfKind { kind: if kind == Kind::Workload { "Pod" } else { kind.name() } }
}
