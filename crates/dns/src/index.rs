//! Every name of the cluster, kept as compact data per Service; answers are made when asked.
//!
//! One writer, any number of readers without locks: the whole index is an immutable snapshot behind an
//! [`ArcSwap`], made of [persistent maps](crate::map), so an update costs O(what changes), and a query sees either
//! all of it or nothing — a name and its reverse never disagree.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, Guard};
use eastwest_compile::{CompiledService, ServiceKey};
use eastwest_model::DnsRecord;

use crate::map::{ByAddress, Map};
use crate::plan::Plan;
use crate::published::Publisher;
use crate::wire::{Name, encode_name, presentation};

mod entry;
mod lookup;
mod names;
mod records;
mod transfer;

pub(crate) use entry::{Entry, Kind};
pub(crate) use lookup::Found;
pub(crate) use names::arpa_to_ip;
pub use records::RecordError;
use records::Records;
pub(crate) use transfer::{Item, Zone};

/// What the index answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexOptions {
    /// Zones of cluster names, `cluster.local`; PTR targets are in the first.
    pub zones: Vec<String>,
    /// Zones under in-addr.arpa and ip6.arpa whose addresses are ours to name.
    pub reverse: Vec<String>,
    /// Zones in which a name that is not ours is for the upstreams to say (CoreDNS' `fallthrough`; kubeadm:
    /// `in-addr.arpa ip6.arpa`). `.` stands for all.
    pub fallthrough: Vec<String>,
    /// Addresses of `ns.dns.ZONE`: where the cluster's DNS is reached.
    pub ns_addresses: Vec<IpAddr>,
    /// TTL of every answer and of NXDOMAIN and NODATA, seconds (CoreDNS: 5).
    pub ttl: u32,
    /// Names made of addresses, `10-0-0-1.NS.pod.ZONE`.
    pub pods: PodMode,
    /// The only namespaces with names; empty: all.
    pub namespaces: Vec<String>,
    /// A ClusterIP Service without ready endpoints does not exist (CoreDNS' `ignore empty_service`).
    pub ignore_empty: bool,
    /// Endpoints have no names, and so headless Services none either (CoreDNS' `noendpoints`).
    pub no_endpoints: bool,
}

impl Default for IndexOptions {
    fn default() -> Self {
        let arpa = || vec!["in-addr.arpa".to_owned(), "ip6.arpa".to_owned()];
        Self {
            zones: vec![eastwest_model::DEFAULT_ZONE.to_owned()],
            reverse: arpa(),
            fallthrough: arpa(),
            ns_addresses: Vec::new(),
            ttl: 5,
            pods: PodMode::Insecure,
            namespaces: Vec::new(),
            ignore_empty: false,
            no_endpoints: false,
        }
    }
}

/// How `A-B-C-D.NS.pod.ZONE` is answered (CoreDNS' `pods` option).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodMode {
    /// NXDOMAIN.
    Disabled,
    /// The address in the name, whether or not a pod has it, when the namespace exists. What kubeadm sets up.
    #[default]
    Insecure,
    /// The address in the name when a pod of that namespace has it.
    Verified,
}

/// An index cannot be made of these options.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IndexError {
    #[error("no zone is given; the usual one is cluster.local")]
    NoZone,
    #[error("zone {0:?} is not a DNS name of at most 255 octets")]
    Zone(String),
}

/// The names of the cluster.
#[derive(Debug)]
pub struct Index {
    state: ArcSwap<State>,
    /// Writers take turns; readers never wait.
    writer: Mutex<()>,
    publisher: OnceLock<Publisher>,
}

/// [`IndexOptions`] as look-ups need them.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    pub(crate) names: Vec<Name>,
    reverse: Vec<Name>,
    fallthrough: Vec<Name>,
    pub(crate) ttl: u32,
    pods: PodMode,
    ns_addresses: Vec<IpAddr>,
    /// Labels in wire form; empty: all namespaces.
    namespaces: BTreeSet<Box<[u8]>>,
    ignore_empty: bool,
    no_endpoints: bool,
}

impl Zones {
    fn new(options: &IndexOptions) -> Result<Self, IndexError> {
        let parse = |names: &[String], root: bool| {
            let one = |z: &String| {
                let name = Name::parse(z).filter(|n| root || n.count() > 0);
                name.ok_or_else(|| IndexError::Zone(z.clone()))
            };
            names.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let names = parse(&options.zones, false)?;
        if names.is_empty() {
            return Err(IndexError::NoZone);
        }
        Ok(Self {
            names,
            reverse: parse(&options.reverse, true)?,
            fallthrough: parse(&options.fallthrough, true)?,
            ttl: options.ttl,
            pods: options.pods,
            ns_addresses: options.ns_addresses.clone(),
            namespaces: options.namespaces.iter().filter_map(|n| label(n)).collect(),
            ignore_empty: options.ignore_empty,
            no_endpoints: options.no_endpoints,
        })
    }
}

/// One moment of the index.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// By `SERVICE.NAMESPACE` in wire form without the root: a slice of the question is the key.
    pub(crate) services: Map<Arc<[u8]>, Arc<Entry>>,
    /// Which Services an address belongs to.
    reverse: ByAddress<Owners>,
    /// By label in wire form.
    namespaces: Map<Box<[u8]>, Namespace>,
    /// Which pod has an address.
    pods: ByAddress<Arc<Pod>>,
    pod_addresses: Map<Arc<Pod>, Arc<[IpAddr]>>,
    pub(crate) zones: Arc<Zones>,
    pub(crate) records: Records,
    /// Unix seconds of the last change, as CoreDNS' SOA has it.
    pub(crate) serial: u32,
    pub(crate) synced: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Namespace {
    declared: bool,
    services: u32,
}

/// A pod's namespace and name as labels in wire form.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Pod {
    namespace: Box<[u8]>,
    name: Box<str>,
}

impl State {
    /// The namespace, as a label in wire form, of the pod with address `ip`.
    pub(crate) fn pod_namespace(&self, ip: IpAddr) -> Option<&[u8]> {
        self.pods.get(&ip).map(|p| &*p.namespace)
    }

    /// `NAMESPACE/NAME` of the pod with address `ip`.
    pub(crate) fn pod_text(&self, ip: IpAddr) -> Option<String> {
        let pod = self.pods.get(&ip)?;
        let namespace = String::from_utf8_lossy(pod.namespace.get(1..)?);
        Some(format!("{namespace}/{}", pod.name))
    }
}

/// Keys in [`State::services`]; nearly always one, which the addresses of a Service share. As thin as can be: there is one
/// for each address.
type Owners = Arc<Box<[Arc<[u8]>]>>;

/// How much an index holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    pub services: usize,
    /// Addresses that have a PTR.
    pub addresses: usize,
    /// Names of DnsRecord objects.
    pub record_names: usize,
}

impl Index {
    /// An empty index that is not yet synced.
    ///
    /// # Errors
    /// A zone that is no DNS name, or none at all.
    pub fn new(options: IndexOptions) -> Result<Self, IndexError> {
        let zones = Arc::new(Zones::new(&options)?);
        Ok(Self {
            state: ArcSwap::from_pointee(State { serial: now(), zones, ..State::default() }),
            writer: Mutex::new(()),
            publisher: OnceLock::new(),
        })
    }

    /// Answers by other options from now on; what is known stays. DnsRecords are judged by the zones of the moment they
    /// come in.
    ///
    /// # Errors
    /// As [`Index::new`]; nothing has changed then.
    pub fn configure(&self, options: &IndexOptions) -> Result<(), IndexError> {
        let zones = Arc::new(Zones::new(options)?);
        self.update(|u| (u.state.zones, u.all) = (zones, true));
        Ok(())
    }

    /// Puts `service` in place of what `key` had; `None` removes it. Costs O(the Service's own size).
    pub fn apply(&self, key: &ServiceKey, service: Option<&CompiledService>) {
        self.update(|u| u.apply(key, service));
    }

    /// Several changes that readers see as one.
    pub fn update<R>(&self, change: impl FnOnce(&mut Update) -> R) -> R {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.state.load_full();
        let mut update = Update { state: State::clone(&old), touched: BTreeSet::new(), all: false };
        let result = change(&mut update);
        let Update { mut state, touched, all } = update;
        state.serial = now().max(state.serial);
        let state = Arc::new(state);
        self.state.store(state.clone());
        match self.publisher.get() {
            Some(publisher) if all => publisher.all(&state),
            Some(publisher) => publisher.services(&old, &state, &touched),
            None => {}
        }
        result
    }

    /// Keeps `publisher`'s table on what is known, from now on. Once only: others are refused.
    pub(crate) fn publish(&self, publisher: impl FnOnce() -> Publisher) {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.publisher.set(publisher()).is_ok() {
            self.publish_all();
        }
    }

    /// Publishes by another plan.
    pub(crate) fn publish_by(&self, plan: Arc<Plan>) {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(publisher) = self.publisher.get() {
            publisher.set_plan(plan);
            self.publish_all();
        }
    }

    fn publish_all(&self) {
        if let Some(publisher) = self.publisher.get() {
            publisher.all(&self.state.load());
        }
    }

    /// Replaces the set of namespaces that exist.
    pub fn set_namespaces<I: IntoIterator<Item = S>, S: AsRef<str>>(&self, names: I) {
        self.update(|u| u.set_namespaces(names));
    }

    /// Replaces all DnsRecord objects; gives those that cannot be served and why.
    pub fn set_records<'a>(
        &self,
        records: impl IntoIterator<Item = &'a DnsRecord>,
    ) -> Vec<(String, RecordError)> {
        self.update(|u| u.set_records(records))
    }

    /// Puts the DnsRecord `namespace/name` in place; `None` removes it. Costs O(the object's size).
    ///
    /// # Errors
    /// A name outside the zones, or data that is not of the type; the object's former records are then gone.
    pub fn apply_record(
        &self,
        namespace: &str,
        name: &str,
        record: Option<&DnsRecord>,
    ) -> Result<(), RecordError> {
        self.update(|u| u.apply_record(namespace, name, record))
    }

    /// Says whether everything has been loaded once. Until then a missing name is answered SERVFAIL, not NXDOMAIN:
    /// a client then asks again in place of believing that the name does not exist.
    pub fn set_synced(&self, synced: bool) {
        self.update(|u| u.set_synced(synced));
    }

    pub fn synced(&self) -> bool {
        self.state.load().synced
    }

    /// Whether that Service is known, and has names for its endpoints alone.
    pub fn is_headless(&self, key: &ServiceKey) -> bool {
        let state = self.state.load();
        let entry = service_id(key).and_then(|id| state.services.get(&*id).cloned());
        entry.is_some_and(|e| matches!(e.kind, Kind::Headless(_)))
    }

    pub fn stats(&self) -> IndexStats {
        let state = self.state.load();
        IndexStats {
            services: state.services.len(),
            addresses: state.reverse.len(),
            record_names: state.records.len(),
        }
    }

    /// The zone of that very name, as it is now.
    pub(crate) fn zone(&self, name: &Name) -> Option<Zone> {
        Zone::new(self.state.load_full(), name)
    }

    /// The index as it is now; takes no lock. Not to be kept: a kept one holds on to what has changed since.
    pub(crate) fn state(&self) -> Guard<Arc<State>> {
        self.state.load()
    }
}

/// A change in the making; nobody sees it before [`Index::update`] returns.
#[derive(Debug)]
pub struct Update {
    state: State,
    /// Services whose answers may have changed.
    touched: BTreeSet<Arc<[u8]>>,
    /// All answers may have.
    all: bool,
}

impl Update {
    /// As [`Index::apply`].
    pub fn apply(&mut self, key: &ServiceKey, service: Option<&CompiledService>) {
        let Some(id) = service_id(key) else {
            tracing::warn!(service = %key, "not a DNS name: the Service gets no records");
            return;
        };
        let namespace: Box<[u8]> = id[usize::from(id[0]) + 1..].into();
        self.touched.insert(id.clone());
        match service {
            Some(service) => {
                let id = self.state.services.get(&*id).map_or(id, |old| old.key.clone());
                let entry = Arc::new(Entry::new(id.clone(), &service.dns));
                let old = self.state.services.insert(id.clone(), entry.clone());
                self.reindex(&id, old.as_deref(), Some(&entry));
                if old.is_none() {
                    self.namespace(namespace, |n| n.services += 1);
                }
            }
            None => {
                if let Some(old) = self.state.services.remove(&*id) {
                    self.reindex(&id, Some(&old), None);
                    self.namespace(namespace, |n| n.services -= 1);
                }
            }
        }
    }

    /// As [`Index::set_namespaces`].
    pub fn set_namespaces<I: IntoIterator<Item = S>, S: AsRef<str>>(&mut self, names: I) {
        let new: BTreeSet<Box<[u8]>> = names.into_iter().filter_map(|n| label(n.as_ref())).collect();
        let gone: Vec<_> = (self.state.namespaces.iter())
            .filter(|(k, n)| n.declared && !new.contains(*k))
            .map(|(k, _)| k.clone())
            .collect();
        for key in gone {
            self.namespace(key, |n| n.declared = false);
        }
        for key in new {
            self.namespace(key, |n| n.declared = true);
        }
    }

    /// Says that one namespace exists, or no longer does.
    pub fn apply_namespace(&mut self, name: &str, exists: bool) {
        if let Some(key) = label(name) {
            self.namespace(key, |n| n.declared = exists);
        }
    }

    /// Says which addresses a pod has; none when it is gone.
    pub fn apply_pod(&mut self, namespace: &str, name: &str, addresses: &[IpAddr]) {
        let Some(namespace) = label(namespace) else { return };
        let pod = Arc::new(Pod { namespace, name: name.into() });
        if let Some(old) = self.state.pod_addresses.remove(&*pod) {
            for ip in old.iter() {
                // An address may have gone to another pod in between.
                if self.state.pods.get(ip).is_some_and(|p| **p == *pod) {
                    self.state.pods.remove(ip);
                }
            }
        }
        if addresses.is_empty() {
            return;
        }
        for ip in addresses {
            self.state.pods.insert(*ip, pod.clone());
        }
        self.state.pod_addresses.insert(pod, addresses.into());
    }

    /// Forgets all pods.
    pub fn clear_pods(&mut self) {
        self.state.pods = ByAddress::default();
        self.state.pod_addresses = Map::default();
    }

    /// As [`Index::set_records`].
    pub fn set_records<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a DnsRecord>,
    ) -> Vec<(String, RecordError)> {
        self.state.records = Records::default();
        self.all = true;
        let mut refused = Vec::new();
        for record in records {
            let meta = &record.metadata;
            if let Err(e) = self.apply_record(&meta.namespace, &meta.name, Some(record)) {
                refused.push((format!("{}/{}", meta.namespace, meta.name), e));
            }
        }
        refused
    }

    /// As [`Index::apply_record`].
    ///
    /// # Errors
    /// A name outside the zones, or data that is not of the type.
    pub fn apply_record(
        &mut self,
        namespace: &str,
        name: &str,
        record: Option<&DnsRecord>,
    ) -> Result<(), RecordError> {
        let zones = self.state.zones.clone();
        let object = format!("{namespace}/{name}");
        self.touch_record(&object);
        let applied = self.state.records.apply(&zones, &object, record);
        self.touch_record(&object);
        applied
    }

    /// As [`Index::set_synced`].
    pub fn set_synced(&mut self, synced: bool) {
        self.all |= self.state.synced != synced;
        self.state.synced = synced;
    }

    /// A record at a Service's own name has a say in its answers.
    fn touch_record(&mut self, object: &str) {
        let Some((name, _)) = self.state.records.name_of(object).and_then(|wire| Name::read(wire, 0)) else {
            return;
        };
        if name.count() > 3 && name.label(2) == b"svc" {
            self.touched.insert(name.labels(0, 2).into());
        }
    }

    fn namespace(&mut self, key: Box<[u8]>, change: impl FnOnce(&mut Namespace)) {
        let old = self.state.namespaces.get(&*key).copied().unwrap_or_default();
        let mut new = old;
        change(&mut new);
        if new == Namespace::default() {
            self.state.namespaces.remove(&*key);
        } else if new != old {
            self.state.namespaces.insert(key, new);
        }
    }

    /// Brings the reverse map in line; touches only addresses that one of the two does not have.
    fn reindex(&mut self, id: &Arc<[u8]>, old: Option<&Entry>, new: Option<&Entry>) {
        let old = old.map_or_else(Vec::new, Entry::addresses);
        let new = new.map_or_else(Vec::new, Entry::addresses);
        for ip in old.iter().filter(|ip| new.binary_search(ip).is_err()) {
            let owners = self.state.reverse.get(ip).map_or(&[][..], |o| o);
            let rest: Box<[_]> = owners.iter().filter(|o| *o != id).cloned().collect();
            if rest.is_empty() {
                self.state.reverse.remove(ip);
            } else {
                self.state.reverse.insert(*ip, Arc::new(rest));
            }
        }
        let alone: Owners = Arc::new([id.clone()].into());
        for ip in new.iter().filter(|ip| old.binary_search(ip).is_err()) {
            let owners = match self.state.reverse.get(ip) {
                None => alone.clone(),
                Some(others) => {
                    let mut owners = others.to_vec();
                    if let Err(at) = owners.binary_search(id) {
                        owners.insert(at, id.clone());
                    }
                    Arc::new(owners.into())
                }
            };
            self.state.reverse.insert(*ip, owners);
        }
    }
}

/// A Service's `NAME.NAMESPACE` labels in wire form.
fn service_id(key: &ServiceKey) -> Option<Arc<[u8]>> {
    Some([label(&key.name)?, label(&key.namespace)?].concat().into())
}

/// One label in wire form, lower case.
fn label(text: &str) -> Option<Box<[u8]>> {
    if text.contains('.') {
        return None;
    }
    let mut wire = encode_name(text).filter(|w| w.len() > 1)?;
    wire.pop();
    wire.make_ascii_lowercase();
    Some(wire.into())
}

fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as u32)
}

impl std::fmt::Display for Zones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, name) in self.names.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, presentation(name.wire()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
