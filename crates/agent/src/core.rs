//! What the agent does about an event, synchronously and without IO of its own: state → compile → dataplane → names.
//!
//! Names are known before there is a dataplane, whose opening takes longer; what is held counts as applied with both.
//!
//! Nothing is programmed before the first full list (or a snapshot): half of the truth would take away what works. A
//! later list is programmed when it is whole, for the same reason. A change costs what it touches.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eastwest_client::Received;
use eastwest_client::sync::{Event, Position};
use eastwest_compile::{CompiledService, Context, Object, Peers, ServiceKey, State};
use eastwest_dataplane::{Connections, Dataplane, Error, Stats};
use eastwest_dns::{Index, Update};
use eastwest_model::{DnsRecord, Kind, Revision};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::health_check::Checks;
use crate::journal::{Entry, Journal};
use crate::metrics::SyncMetrics;
use crate::snapshot::Snapshot;

/// A Service that the kernel refuses so often no longer holds up the applied revision; it stays a problem.
const TRIES_THAT_HOLD: u32 = 10;

/// Entries that a journal may have whatever the snapshot's size.
const JOURNAL_MIN: usize = 1000;

/// How the core stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Everything up to here is in the kernel's maps and in the DNS index. `None`: nothing is known yet.
    pub applied: Option<Position>,
    /// From receiving the newest change to its last map write, microseconds.
    pub latency_us: u64,
    pub services: u64,
    pub backends: u64,
    pub problems: Vec<String>,
    /// Of the kernel programs, as of the last [`Core::tick`].
    pub counters: BTreeMap<String, u64>,
    /// When something was programmed last.
    pub last_applied: Option<Instant>,
    /// The dataplane is there, and holds what is known.
    pub open: bool,
}

/// The decisions of an agent.
pub struct Core<D> {
    context: Context,
    state: State,
    /// `None`: it is being opened.
    dataplane: Option<D>,
    /// See [`set_serves_names`](Self::set_serves_names).
    serves_names: bool,
    /// It came when half of a list was here: it is to be brought in line.
    behind: bool,
    index: Arc<Index>,
    metrics: Arc<SyncMetrics>,
    /// Everything up to here is in `state`.
    held: Option<Position>,
    /// And programmed.
    applied: Option<Position>,
    /// A full list is coming in.
    listing: bool,
    /// A list broke off and its beginning is in `state`: nothing is programmed before this revision.
    hold_until: Option<Revision>,
    /// A full list, or a snapshot, has been programmed.
    loaded: bool,
    /// Services to compile and program, each once, in the order in which they were touched.
    dirty: Vec<ServiceKey>,
    in_dirty: HashSet<ServiceKey>,
    names: Vec<NameChange>,
    all_names: bool,
    failing: HashMap<ServiceKey, (u32, String)>,
    reconcile_error: Option<String>,
    unreadable: BTreeMap<String, String>,
    refused_records: BTreeMap<String, String>,
    newest: Option<Instant>,
    latency: Duration,
    triggers: Vec<(ServiceKey, jiff::Timestamp)>,
    counters: BTreeMap<String, u64>,
    last_applied: Option<Instant>,
    checks: watch::Sender<Checks>,
    peers: watch::Sender<Peers>,
    /// Something changed since the last snapshot that the journal does not have.
    changed: bool,
    journal: Option<Box<dyn Journal>>,
    /// For the journal, before it is programmed.
    entries: Vec<Entry>,
    /// Objects in the last snapshot.
    snapshot_objects: usize,
    journal_entries: usize,
}

/// A change of what DNS answers besides Services.
enum NameChange {
    Namespace(Arc<str>, bool),
    Record(Arc<str>, Arc<str>, Option<Arc<DnsRecord>>),
    /// A pod's addresses; none when it is gone.
    Pod(Arc<str>, Arc<str>, Arc<[IpAddr]>),
}

impl<D: Dataplane> Core<D> {
    /// Knows nothing, and has no dataplane yet.
    pub fn new(context: Context, index: Arc<Index>, metrics: Arc<SyncMetrics>) -> Self {
        Self {
            context,
            state: State::new(),
            dataplane: None,
            serves_names: false,
            behind: false,
            index,
            metrics,
            held: None,
            applied: None,
            listing: false,
            hold_until: None,
            loaded: false,
            dirty: Vec::new(),
            in_dirty: HashSet::new(),
            names: Vec::new(),
            all_names: false,
            failing: HashMap::new(),
            reconcile_error: None,
            unreadable: BTreeMap::new(),
            refused_records: BTreeMap::new(),
            newest: None,
            latency: Duration::ZERO,
            triggers: Vec::new(),
            checks: watch::Sender::default(),
            peers: watch::Sender::default(),
            counters: BTreeMap::new(),
            last_applied: None,
            changed: false,
            journal: None,
            entries: Vec::new(),
            snapshot_objects: 0,
            journal_entries: 0,
        }
    }

    /// Programs what is known into `dataplane`, and every change from now on.
    pub fn set_dataplane(&mut self, mut dataplane: D) {
        dataplane.set_stand_in(!self.serves_names);
        self.dataplane = Some(dataplane);
        self.behind = self.loaded;
        self.flush();
    }

    /// Changes are left there before they are programmed. Without one, every change asks for a snapshot.
    pub fn set_journal(&mut self, journal: Box<dyn Journal>) {
        self.journal = Some(journal);
    }

    /// Takes up and programs what a snapshot holds.
    pub fn restore(&mut self, snapshot: Snapshot) {
        let Snapshot { mut position, objects, changes, journal: _ } = snapshot;
        (self.snapshot_objects, self.journal_entries) = (objects.len(), changes.len());
        let put = |state: &mut State, object| {
            state.put(eastwest_compile::Decoded { object: Some(object), problems: Vec::new() });
        };
        for object in objects {
            put(&mut self.state, object);
        }
        for change in changes {
            let revision = match change {
                Entry::Put { revision, object } => {
                    put(&mut self.state, object);
                    revision
                }
                Entry::Delete { revision, kind, namespace, name } => {
                    self.state.delete(kind, &namespace, &name);
                    revision
                }
            };
            position.revision = position.revision.max(revision);
        }
        self.held = Some(position);
        self.load();
        self.changed = false;
    }

    /// Takes events in, in their order, and programs what they touch.
    pub fn batch(&mut self, events: impl IntoIterator<Item = Received>) {
        for Received { at, event } in events {
            self.event(at, event);
        }
        self.journal();
        self.flush();
    }

    fn event(&mut self, at: Instant, event: Event) {
        match event {
            Event::Hello { head, .. } => {
                if self.listing {
                    self.hold_until = Some(head);
                    self.listing = false;
                }
            }
            Event::Reset => {
                self.journal();
                self.flush();
                self.hold_until = None;
                self.listing = true;
            }
            Event::Put { revision, kind, object } => {
                self.put(revision, kind, &object);
                self.advance(at, revision);
            }
            Event::Delete { revision, kind, namespace, name } => {
                self.unreadable.remove(&subject(kind, &namespace, &name));
                self.count(kind);
                self.record(|| Entry::Delete {
                    revision,
                    kind,
                    namespace: namespace.clone(),
                    name: name.clone(),
                });
                let touched = self.state.delete(kind, &namespace, &name);
                self.touch(touched);
                match kind {
                    Kind::Namespace => self.names.push(NameChange::Namespace(name.into(), false)),
                    Kind::DnsRecord => {
                        self.names.push(NameChange::Record(namespace.into(), name.into(), None));
                    }
                    Kind::Workload => {
                        self.names.push(NameChange::Pod(namespace.into(), name.into(), Arc::default()));
                    }
                    _ => {}
                }
                self.advance(at, revision);
            }
            Event::Bookmark { revision } => {
                if let Some(held) = &mut self.held {
                    held.revision = held.revision.max(revision);
                }
            }
            Event::Synced { position, listed } => {
                self.unreadable.retain(|subject, _| listed_subject(&listed, subject));
                let touched = self.state.prune(|kind, ns, name| listed.contains(kind, ns, name));
                self.touch(touched);
                self.listing = false;
                self.hold_until = None;
                self.all_names = true;
                self.newest = Some(at);
                info!(revision = position.revision.0, objects = listed.len(), "full list received");
                self.held = Some(position);
                self.changed = true;
                if !self.loaded {
                    self.load();
                }
            }
        }
    }

    /// After a change: the held revision moves on, except within a list, which counts as a whole.
    fn advance(&mut self, at: Instant, revision: Revision) {
        self.newest = Some(at);
        self.changed |= self.journal.is_none();
        if !self.listing
            && let Some(held) = &mut self.held
        {
            held.revision = held.revision.max(revision);
        }
    }

    /// For the journal: a change on top of a whole state. A list is kept by the snapshot after it.
    fn record(&mut self, entry: impl FnOnce() -> Entry) {
        if self.journal.is_some() && self.loaded && !self.listing && self.hold_until.is_none() {
            self.entries.push(entry());
        }
    }

    /// Leaves what is about to be programmed in the journal.
    fn journal(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        if let Some(journal) = self.journal.as_mut().filter(|_| !entries.is_empty()) {
            self.journal_entries += entries.len();
            if let Err(e) = journal.append(&entries) {
                warn!(error = %e, "the journal cannot be written: a snapshot takes its place");
                self.changed = true;
            }
        }
    }

    fn put(&mut self, revision: Revision, kind: Kind, object: &RawValue) {
        self.count(kind);
        let decoded = match self.context.decode(kind, object.get()) {
            Ok(decoded) => decoded,
            Err(e) => {
                // What was known of it stays: the next version may be readable again.
                warn!(error = %e, "an object is left as it was");
                self.unreadable.insert(identity(kind, object), e.to_string());
                return;
            }
        };
        let mut trigger = None;
        match &decoded.object {
            Some(Object::Namespace { name }) => self.names.push(NameChange::Namespace(name.clone(), true)),
            Some(Object::Record { namespace, name, record }) => {
                let (namespace, name) = (namespace.clone(), name.clone());
                self.names.push(NameChange::Record(namespace, name, Some(record.clone())));
            }
            Some(Object::Pod { namespace, name, addresses, .. }) => {
                self.names.push(NameChange::Pod(namespace.clone(), name.clone(), addresses.clone()));
            }
            Some(Object::Slice { .. }) if self.loaded && !self.listing => {
                trigger = trigger_time(object.get());
            }
            _ => {}
        }
        if let Some(object) = &decoded.object {
            let (kind, namespace, name) = object.id();
            self.unreadable.remove(&subject(kind, namespace, name));
            self.record(|| Entry::Put { revision, object: object.clone() });
        }
        let touched = self.state.put(decoded);
        self.triggers.extend(trigger.and_then(|at| Some((touched.first()?.clone(), at))));
        self.touch(touched);
    }

    fn count(&self, kind: Kind) {
        match kind {
            Kind::Service => drop(self.metrics.service_changes.inc()),
            Kind::EndpointSlice => drop(self.metrics.endpoint_changes.inc()),
            _ => {}
        }
    }

    fn touch(&mut self, keys: Vec<ServiceKey>) {
        for key in keys {
            if self.in_dirty.insert(key.clone()) {
                self.dirty.push(key);
            }
        }
    }

    /// Programs everything at once: at the first list, and at a snapshot.
    fn load(&mut self) {
        let start = Instant::now();
        self.dirty.clear();
        self.in_dirty.clear();
        self.names.clear();
        self.failing.clear();
        let all = self.compile_all();
        self.reconcile(&all);
        let state = &self.state;
        let checks = all.iter().filter_map(|s| Some((s.key.clone(), state.health_check(&s.key)?)));
        self.checks.send_replace(checks.collect());
        let Self { index, state, .. } = self;
        self.refused_records = index
            .update(|u| {
                for service in &all {
                    u.apply(&service.key, Some(service));
                }
                u.set_namespaces(state.namespaces());
                let refused = u.set_records(state.records().map(|r| &**r));
                set_pods(u, state);
                u.set_synced(true);
                refused
            })
            .into_iter()
            .map(|(name, e)| (name, e.to_string()))
            .collect();
        self.all_names = false;
        self.loaded = true;
        self.programmed(start);
    }

    fn compile_all(&self) -> Vec<CompiledService> {
        self.state.services().filter_map(|key| self.state.compile(&self.context, key)).collect()
    }

    /// Brings the dataplane in line, if there is one.
    fn reconcile(&mut self, all: &[CompiledService]) {
        let start = Instant::now();
        let Some(dataplane) = &mut self.dataplane else { return };
        self.behind = false;
        match dataplane.reconcile(&mut all.iter()) {
            Ok(applied) => {
                self.reconcile_error = None;
                self.note_failed(&applied.failed);
                info!(services = all.len(), writes = applied.writes, took = ?start.elapsed(), "programmed everything");
            }
            Err(e) => {
                warn!(error = %e, "programming everything");
                self.reconcile_error = Some(e.to_string());
            }
        }
    }

    fn note_failed(&mut self, failed: &[(ServiceKey, String)]) {
        for (key, error) in failed {
            // What found no room is among the dataplane's own problems, and waits there for room.
            debug!(service = %key, error, "not programmed");
        }
    }

    /// Programs what is touched.
    fn flush(&mut self) {
        if !self.loaded || self.listing {
            return;
        }
        if let Some(until) = self.hold_until {
            if self.held.as_ref().is_none_or(|held| held.revision < until) {
                return;
            }
            self.hold_until = None;
        }
        let start = Instant::now();
        if self.behind {
            let all = self.compile_all();
            self.reconcile(&all);
        }
        let keys = std::mem::take(&mut self.dirty);
        self.in_dirty.clear();
        let mut compiled = Vec::with_capacity(keys.len());
        for key in keys {
            let service = self.state.compile(&self.context, &key);
            match self.dataplane.as_mut().map(|dataplane| dataplane.apply(&key, service.as_ref())) {
                None => {}
                Some(Ok(applied)) => {
                    self.failing.remove(&key);
                    self.note_failed(&applied.failed);
                }
                Some(Err(Error::Full { .. })) => drop(self.failing.remove(&key)),
                Some(Err(e)) => {
                    let entry = self.failing.entry(key.clone()).or_default();
                    entry.0 += 1;
                    entry.1 = e.to_string();
                    if entry.0 == 1 {
                        warn!(service = %key, error = %e, "not programmed; trying again");
                    }
                }
            }
            compiled.push((key, service));
        }
        self.update_checks(compiled.iter().map(|(key, _)| key));
        let names = std::mem::take(&mut self.names);
        let all_names = std::mem::take(&mut self.all_names);
        if !compiled.is_empty() || !names.is_empty() || all_names {
            self.update_names(&compiled, &names, all_names);
        }
        if !compiled.is_empty() {
            self.metrics.rules_duration.observe(start.elapsed().as_secs_f64());
        }
        self.programmed(start);
    }

    fn update_checks<'a>(&self, keys: impl Iterator<Item = &'a ServiceKey>) {
        self.checks.send_if_modified(|checks| {
            keys.fold(false, |changed, key| {
                let old = match self.state.health_check(key) {
                    Some(check) => checks.insert(key.clone(), check),
                    None => checks.remove(key),
                };
                changed | (old != checks.get(key).copied())
            })
        });
    }

    /// What `healthCheckNodePort`s tell, as it changes.
    pub fn health_checks(&self) -> watch::Receiver<Checks> {
        self.checks.subscribe()
    }

    /// The other nodes that are ready, as they change.
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.peers.subscribe()
    }

    /// This node is being deleted or scaled away.
    pub fn leaving(&self) -> bool {
        self.state.leaving()
    }

    fn update_names(
        &mut self,
        services: &[(ServiceKey, Option<CompiledService>)],
        names: &[NameChange],
        all: bool,
    ) {
        let Self { index, state, refused_records, .. } = self;
        index.update(|u| {
            for (key, service) in services {
                u.apply(key, service.as_ref());
            }
            if all {
                u.set_namespaces(state.namespaces());
                let refused = u.set_records(state.records().map(|r| &**r));
                *refused_records = refused.into_iter().map(|(name, e)| (name, e.to_string())).collect();
                set_pods(u, state);
                return;
            }
            for change in names {
                match change {
                    NameChange::Namespace(name, exists) => u.apply_namespace(name, *exists),
                    NameChange::Record(namespace, name, record) => {
                        let id = format!("{namespace}/{name}");
                        match u.apply_record(namespace, name, record.as_deref()) {
                            Ok(()) => drop(refused_records.remove(&id)),
                            Err(e) => drop(refused_records.insert(id, e.to_string())),
                        }
                    }
                    NameChange::Pod(namespace, name, addresses) => u.apply_pod(namespace, name, addresses),
                }
            }
        });
    }

    /// What is held is programmed now, unless something failed that may yet succeed.
    fn programmed(&mut self, start: Instant) {
        if let Some(peers) = self.state.take_peers() {
            self.peers.send_replace(peers);
        }
        if !self.open() {
            return;
        }
        let done = Instant::now();
        if let Some(newest) = self.newest.take() {
            self.latency = done.saturating_duration_since(newest);
            self.last_applied = Some(done);
            self.metrics.applied(done.saturating_duration_since(start));
        }
        let now = jiff::Timestamp::now();
        for (service, trigger) in self.triggers.drain(..) {
            let seconds = now.duration_since(trigger).as_secs_f64().max(0.0);
            self.metrics.programming_duration.observe(seconds);
            if self.index.is_headless(&service) {
                self.metrics.dns_programming_duration.observe(seconds);
            }
        }
        let holds = self.failing.values().any(|(tries, _)| *tries < TRIES_THAT_HOLD);
        if !holds && self.reconcile_error.is_none() && self.held != self.applied {
            self.applied.clone_from(&self.held);
        }
    }

    /// Serves NodePorts at these addresses of the node from now on.
    pub fn set_node_port_addresses(&mut self, addresses: Vec<IpAddr>) {
        if self.context.node_port_addresses == addresses {
            return;
        }
        info!(?addresses, "other addresses serve NodePorts");
        self.context.node_port_addresses = addresses;
        let touched = self.state.with_node_ports();
        self.touch(touched);
        self.flush();
    }

    /// Whether this agent answers names at these addresses from now on. While it does not, those answer that the Service of
    /// the address has, if it has any: CoreDNS, where it is still there.
    pub fn set_serves_names(&mut self, addresses: &[IpAddr], serves: bool) {
        self.serves_names = serves;
        if let Some(dataplane) = &mut self.dataplane {
            dataplane.set_stand_in(!serves);
        }
        let touched = self.state.with_addresses(addresses);
        self.touch(touched);
        if self.loaded && !self.listing {
            self.flush();
        }
    }

    /// Call about once a second: tries again what failed, and reads the counters.
    pub fn tick(&mut self) {
        if self.reconcile_error.is_some() && self.loaded && !self.listing {
            self.load();
        }
        let again: Vec<ServiceKey> = self.failing.keys().cloned().collect();
        if !again.is_empty() {
            self.touch(again);
            self.flush();
        }
        let Some(dataplane) = &mut self.dataplane else { return };
        let (retried, counters) = (dataplane.retry(), dataplane.counters());
        self.note_failed(&retried.failed);
        match counters {
            Ok(counters) => self.counters = counters,
            Err(e) => debug!(error = %e, "counters"),
        }
    }

    pub fn status(&self) -> Status {
        let stats = self.stats();
        Status {
            applied: self.applied.clone(),
            latency_us: u64::try_from(self.latency.as_micros()).unwrap_or(u64::MAX),
            services: stats.services,
            backends: stats.backends.used.into(),
            problems: self.problems(),
            counters: self.counters.clone(),
            last_applied: self.last_applied,
            open: self.open(),
        }
    }

    fn open(&self) -> bool {
        self.dataplane.is_some() && !self.behind
    }

    /// Connections opened, by Service port.
    pub fn connections(&self) -> Vec<Connections> {
        self.dataplane.as_ref().map(D::connections).unwrap_or_default()
    }

    /// How full the kernel's tables are.
    pub fn stats(&self) -> Stats {
        self.dataplane.as_ref().map(D::stats).unwrap_or_default()
    }

    fn problems(&self) -> Vec<String> {
        let mut out = self.dataplane.as_ref().map(D::problems).unwrap_or_default();
        out.extend(self.reconcile_error.iter().map(|e| format!("programming everything: {e}")));
        let mut failing: Vec<_> =
            self.failing.iter().map(|(key, (_, e))| format!("Service {key}: {e}")).collect();
        failing.sort_unstable();
        out.extend(failing);
        out.extend(self.unreadable.iter().map(|(subject, e)| format!("{subject}: {e}")));
        out.extend(self.refused_records.iter().map(|(name, e)| format!("DnsRecord {name}: {e}")));
        out.extend(self.state.problems());
        out
    }

    /// What to write to disk: `None` while what is held is not whole, and while the journal has what changed since and
    /// is not longer than the snapshot would be, so that both together cost O(change).
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        let long = self.journal_entries > self.snapshot_objects.max(JOURNAL_MIN);
        if !(self.changed || long) || !self.loaded || self.listing || self.hold_until.is_some() {
            return None;
        }
        let position = self.held.clone()?;
        let journal = match self.journal.as_mut().map(|j| j.rotate()).transpose() {
            Ok(number) => number.unwrap_or(0),
            Err(e) => {
                warn!(error = %e, "no new journal");
                return None;
            }
        };
        let objects = self.state.export();
        (self.changed, self.journal_entries, self.snapshot_objects) = (false, 0, objects.len());
        Some(Snapshot { position, objects, journal, changes: Vec::new() })
    }

    /// The last snapshot did not reach the disk: another is due.
    pub fn snapshot_failed(&mut self) {
        self.changed = true;
    }

    /// What is held: where the stream goes on.
    pub fn held(&self) -> Option<&Position> {
        self.held.as_ref()
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn dataplane(&self) -> Option<&D> {
        self.dataplane.as_ref()
    }

    pub fn dataplane_mut(&mut self) -> Option<&mut D> {
        self.dataplane.as_mut()
    }
}

/// Replaces what DNS knows of pods.
fn set_pods(update: &mut Update, state: &State) {
    update.clear_pods();
    for (namespace, name, addresses) in state.pods() {
        update.apply_pod(namespace, name, addresses);
    }
}

fn subject(kind: Kind, namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        format!("{} {name}", kind.name())
    } else {
        format!("{} {namespace}/{name}", kind.name())
    }
}

fn listed_subject(listed: &eastwest_client::sync::Listed, subject: &str) -> bool {
    let Some((kind, rest)) = subject.split_once(' ') else { return false };
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    Kind::ALL.iter().any(|k| k.name() == kind && listed.contains(*k, namespace, name))
}

/// What an object that cannot be read calls itself.
fn identity(kind: Kind, object: &RawValue) -> String {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Named {
        metadata: Metadata,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Metadata {
        namespace: String,
        name: String,
    }
    let named: Named = serde_json::from_str(object.get()).unwrap_or_default();
    subject(kind, &named.metadata.namespace, &named.metadata.name)
}

/// When the change that made this slice happened (`endpoints.kubernetes.io/last-change-trigger-time`), which
/// kube-proxy's `network_programming_duration` is measured from.
fn trigger_time(json: &str) -> Option<jiff::Timestamp> {
    const KEY: &str = "\"endpoints.kubernetes.io/last-change-trigger-time\"";
    let rest = &json[json.find(KEY)? + KEY.len()..];
    let value = rest.split('"').nth(1)?;
    value.parse().ok()
}
