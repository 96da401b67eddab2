use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eastwest_model::{DnsRecord, Kind};

use crate::rules::{self, Inputs, ThisNode};
use crate::split::{Pod, Pods, Split};
use crate::{
    CompiledService, Context, Decoded, HealthCheck, Labels, Object, ServiceInput, ServiceKey, ServiceMode,
    SliceInput, SplitInput,
};

/// Other nodes, and the addresses by which they are reached.
pub type Peers = Vec<(Arc<str>, Arc<[IpAddr]>)>;

/// What a node serves.
pub type Compiled = BTreeMap<ServiceKey, CompiledService>;

/// All objects that the rules read, by Service. A change costs what it touches, whatever the cluster's size.
#[derive(Debug, Default)]
pub struct State {
    services: HashMap<ServiceKey, Entry>,
    /// Which Service a slice belongs to, by namespace and name: a slice may change its Service, and a delete names only
    /// the slice.
    owners: HashMap<(Arc<str>, Arc<str>), Arc<str>>,
    namespaces: BTreeSet<Arc<str>>,
    records: BTreeMap<(Arc<str>, Arc<str>), Arc<DnsRecord>>,
    pods: Pods,
    /// TrafficSplits by their Service, sorted by name; the first takes effect.
    splits: HashMap<ServiceKey, Splits>,
    split_owners: HashMap<Id, Arc<str>>,
    /// Once it is known.
    node: Option<OwnNode>,
    /// The others.
    peers: BTreeMap<Arc<str>, Arc<[IpAddr]>>,
    peers_changed: bool,
    problems: HashMap<(Kind, Arc<str>, Arc<str>), Vec<String>>,
    /// One allocation for each name that many objects repeat.
    names: HashSet<Arc<str>>,
    labels: HashSet<Labels>,
    compilations: AtomicU64,
}

/// What is read of this node's own Node.
#[derive(Debug)]
struct OwnNode {
    name: Arc<str>,
    zone: Option<Arc<str>>,
    leaving: bool,
}

/// Those of one Service, by name.
type Splits = Vec<(Arc<str>, Arc<SplitInput>)>;
/// Namespace and name.
type Id = (Arc<str>, Arc<str>);

/// A Service, its slices, or both: they may come in any order.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Arc<ServiceInput>>,
    /// Sorted by name.
    slices: Vec<(Arc<str>, Arc<SliceInput>)>,
}

impl State {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an object in, as it now is. Returns the Services whose [`compile`](Self::compile) may differ now: at most
    /// two (a slice that moved), none when nothing that the rules read has changed; all with zone hints when this node
    /// has come into another zone.
    pub fn put(&mut self, decoded: Decoded) -> Vec<ServiceKey> {
        let Decoded { object, problems } = decoded;
        let Some(object) = object else { return Vec::new() };
        let (kind, namespace, name) = object.id();
        let id = (kind, self.intern(namespace), self.intern(name));
        if problems.is_empty() {
            self.problems.remove(&id);
        } else {
            self.problems.insert(id.clone(), problems);
        }
        let (_, namespace, name) = id;
        match object {
            Object::Service { input, .. } => {
                let key = ServiceKey { namespace, name };
                let entry = self.services.entry(key.clone()).or_default();
                if entry.service.as_ref() == Some(&input) {
                    return Vec::new();
                }
                entry.service = Some(input);
                vec![key]
            }
            Object::Slice { input, .. } if input.service.is_empty() => {
                self.delete(Kind::EndpointSlice, &namespace, &name)
            }
            Object::Slice { mut input, .. } => {
                let service = self.intern(&input.service);
                if let Some(input) = Arc::get_mut(&mut input) {
                    input.service = service.clone();
                    for e in &mut input.endpoints {
                        for name in [&mut e.target, &mut e.hostname].into_iter().flatten() {
                            *name = self.intern(name);
                        }
                    }
                }
                let mut touched = Vec::new();
                let owner = self.owners.insert((namespace.clone(), name.clone()), service.clone());
                if let Some(old) = owner.filter(|old| *old != service) {
                    touched.extend(self.remove_slice(&namespace, &name, old));
                }
                let key = ServiceKey { namespace, name: service };
                let entry = self.services.entry(key.clone()).or_default();
                match entry.slices.binary_search_by(|(n, _)| n.cmp(&name)) {
                    Ok(at) if entry.slices[at].1 == input => return touched,
                    Ok(at) => entry.slices[at].1 = input,
                    Err(at) => entry.slices.insert(at, (name, input)),
                }
                touched.push(key);
                touched
            }
            Object::Namespace { .. } => {
                self.namespaces.insert(name);
                Vec::new()
            }
            Object::Record { record, .. } => {
                self.records.insert((namespace, name), record);
                Vec::new()
            }
            Object::Pod { addresses, labels, .. } => {
                let labels = self.intern_labels(labels);
                let pod = Pod { addresses, labels: labels.clone() };
                let old = self.pods.insert((namespace.clone(), name), pod);
                self.relabelled(&namespace, old.as_ref().map(|p| &*p.labels), Some(&labels))
            }
            Object::Split { input, .. } => {
                let mut touched = self.remove_split(&namespace, &name);
                if !input.service.is_empty() {
                    self.split_owners.insert((namespace.clone(), name.clone()), input.service.clone());
                    let key = ServiceKey { namespace, name: input.service.clone() };
                    let splits = self.splits.entry(key.clone()).or_default();
                    splits.push((name, input));
                    splits.sort_by(|a, b| a.0.cmp(&b.0));
                    touched.retain(|k| *k != key);
                    touched.push(key);
                }
                touched
            }
            Object::Node { zone, leaving, .. } => self.set_node(Some(OwnNode { name, zone, leaving })),
            Object::Peer { addresses, .. } => {
                let old = self.peers.insert(name, addresses.clone());
                self.peers_changed |= old.as_ref() != Some(&addresses);
                Vec::new()
            }
        }
    }

    fn remove_split(&mut self, namespace: &Arc<str>, name: &Arc<str>) -> Vec<ServiceKey> {
        let Some(service) = self.split_owners.remove(&(namespace.clone(), name.clone())) else {
            return Vec::new();
        };
        let key = ServiceKey { namespace: namespace.clone(), name: service };
        if let Some(splits) = self.splits.get_mut(&key) {
            splits.retain(|(n, _)| n != name);
            if splits.is_empty() {
                self.splits.remove(&key);
            }
        }
        vec![key]
    }

    /// Services whose split puts a pod of the namespace into another group now. Costs O(splits); there are few.
    fn relabelled(
        &self,
        namespace: &Arc<str>,
        old: Option<&[(Arc<str>, Arc<str>)]>,
        new: Option<&[(Arc<str>, Arc<str>)]>,
    ) -> Vec<ServiceKey> {
        let here = self.splits.iter().filter(|(key, _)| key.namespace == *namespace);
        let moves = |splits: &Splits| {
            splits.first().is_some_and(|(_, s)| old.and_then(|l| s.group(l)) != new.and_then(|l| s.group(l)))
        };
        here.filter(|(_, splits)| moves(splits)).map(|(key, _)| key.clone()).collect()
    }

    /// The other nodes that are ready and their addresses, if they are others since the last call.
    pub fn take_peers(&mut self) -> Option<Peers> {
        let changed = std::mem::take(&mut self.peers_changed);
        let ready = self.peers.iter().filter(|(_, addresses)| !addresses.is_empty());
        changed.then(|| ready.map(|(name, addresses)| (name.clone(), addresses.clone())).collect())
    }

    fn set_node(&mut self, node: Option<OwnNode>) -> Vec<ServiceKey> {
        let zone = |node: &Option<OwnNode>| node.as_ref().and_then(|node| node.zone.clone());
        let moved = zone(&self.node) != zone(&node);
        self.node = node;
        if !moved {
            return Vec::new();
        }
        let hinted = |e: &Entry| e.slices.iter().any(|(_, s)| !s.zone_hints.is_empty());
        self.services.iter().filter(|(_, e)| hinted(e)).map(|(key, _)| key.clone()).collect()
    }

    /// Takes an object out. Returns the Services touched; `namespace` is empty for kinds without.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> Vec<ServiceKey> {
        let (namespace, name): (Arc<str>, Arc<str>) = (namespace.into(), name.into());
        self.problems.remove(&(kind, namespace.clone(), name.clone()));
        match kind {
            Kind::Service => {
                let key = ServiceKey { namespace, name };
                let Some(entry) = self.services.get_mut(&key) else { return Vec::new() };
                if entry.service.take().is_none() {
                    return Vec::new();
                }
                if entry.slices.is_empty() {
                    self.services.remove(&key);
                }
                vec![key]
            }
            Kind::EndpointSlice => match self.owners.remove(&(namespace.clone(), name.clone())) {
                Some(service) => self.remove_slice(&namespace, &name, service).into_iter().collect(),
                None => Vec::new(),
            },
            Kind::Namespace => {
                self.namespaces.remove(&name);
                Vec::new()
            }
            Kind::DnsRecord => {
                self.records.remove(&(namespace, name));
                Vec::new()
            }
            Kind::Workload => {
                let old = self.pods.remove(&(namespace.clone(), name));
                self.relabelled(&namespace, old.as_ref().map(|p| &*p.labels), None)
            }
            Kind::TrafficSplit => self.remove_split(&namespace, &name),
            Kind::Node if self.node.as_ref().is_some_and(|own| own.name == name) => self.set_node(None),
            Kind::Node => {
                self.peers_changed |= self.peers.remove(&name).is_some();
                Vec::new()
            }
            Kind::NodeState => Vec::new(),
        }
    }

    fn remove_slice(&mut self, namespace: &Arc<str>, name: &str, service: Arc<str>) -> Option<ServiceKey> {
        let key = ServiceKey { namespace: namespace.clone(), name: service };
        let entry = self.services.get_mut(&key)?;
        let at = entry.slices.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        entry.slices.remove(at);
        if entry.slices.is_empty() && entry.service.is_none() {
            self.services.remove(&key);
        }
        Some(key)
    }

    /// Deletes every object that `keep` does not want: the end of a full list.
    pub fn prune(&mut self, keep: impl Fn(Kind, &str, &str) -> bool) -> Vec<ServiceKey> {
        let gone: Vec<(Kind, Arc<str>, Arc<str>)> =
            self.ids().filter(|(kind, namespace, name)| !keep(*kind, namespace, name)).collect();
        gone.iter().flat_map(|(kind, namespace, name)| self.delete(*kind, namespace, name)).collect()
    }

    fn ids(&self) -> impl Iterator<Item = (Kind, Arc<str>, Arc<str>)> + '_ {
        let services = self.services.iter().filter(|(_, e)| e.service.is_some());
        let services = services.map(|(k, _)| (Kind::Service, k.namespace.clone(), k.name.clone()));
        let slices = self.owners.keys().map(|(ns, n)| (Kind::EndpointSlice, ns.clone(), n.clone()));
        let namespaces = self.namespaces.iter().map(|n| (Kind::Namespace, "".into(), n.clone()));
        let records = self.records.keys().map(|(ns, n)| (Kind::DnsRecord, ns.clone(), n.clone()));
        let pods = self.pods.keys().map(|(ns, n)| (Kind::Workload, ns.clone(), n.clone()));
        let node = self.node.iter().map(|node| (Kind::Node, "".into(), node.name.clone()));
        let peers = self.peers.keys().map(|name| (Kind::Node, "".into(), name.clone()));
        let splits = self.split_owners.keys().map(|(ns, n)| (Kind::TrafficSplit, ns.clone(), n.clone()));
        services
            .chain(slices)
            .chain(namespaces)
            .chain(records)
            .chain(pods)
            .chain(splits)
            .chain(node)
            .chain(peers)
    }

    /// What this node serves for a Service; `None` when there is none. Pure in what was put and in the context's
    /// addresses; costs O(this Service).
    pub fn compile(&self, context: &Context, key: &ServiceKey) -> Option<CompiledService> {
        let (service, slices) = self.inputs(key)?;
        self.compilations.fetch_add(1, Ordering::Relaxed);
        let split = self.split(key);
        let inputs = Inputs { service, slices: &slices, split: split.as_ref() };
        Some(rules::compile(key, inputs, self.this_node(context)))
    }

    /// What a Service's `healthCheckNodePort` tells; `None` when it has none.
    pub fn health_check(&self, key: &ServiceKey) -> Option<HealthCheck> {
        let (service, slices) = self.inputs(key)?;
        rules::health_check(service, &slices)
    }

    pub(crate) fn inputs(&self, key: &ServiceKey) -> Option<(&ServiceInput, Vec<&SliceInput>)> {
        let entry = self.services.get(key)?;
        let service = entry.service.as_deref()?;
        Some((service, entry.slices.iter().map(|(_, s)| &**s).collect()))
    }

    pub(crate) fn split<'a>(&'a self, key: &'a ServiceKey) -> Option<Split<'a>> {
        let (_, input) = self.splits.get(key)?.first()?;
        Some(Split { input, namespace: &key.namespace, pods: &self.pods })
    }

    pub(crate) fn this_node<'a>(&'a self, context: &'a Context) -> ThisNode<'a> {
        let zone = self.node.as_ref().and_then(|node| node.zone.as_deref());
        ThisNode { zone, node_port_addresses: &context.node_port_addresses }
    }

    /// Services that have a NodePort: what a change of [`Context::node_port_addresses`] touches.
    pub fn with_node_ports(&self) -> Vec<ServiceKey> {
        let has =
            |s: &ServiceInput| s.external.as_ref().is_some_and(|e| e.node_ports.iter().any(|p| *p != 0));
        let found = self.services.iter().filter(|(_, e)| e.service.as_deref().is_some_and(has));
        found.map(|(key, _)| key.clone()).collect()
    }

    /// Services that have one of these virtual addresses. Costs O(Services).
    pub fn with_addresses(&self, addresses: &[IpAddr]) -> Vec<ServiceKey> {
        let has = |s: &ServiceInput| match &s.mode {
            ServiceMode::ClusterIp(ips) => ips.iter().any(|ip| addresses.contains(ip)),
            _ => false,
        };
        let found = self.services.iter().filter(|(_, e)| e.service.as_deref().is_some_and(has));
        found.map(|(key, _)| key.clone()).collect()
    }

    /// This node is being deleted, or about to be by the cluster autoscaler.
    pub fn leaving(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.leaving)
    }

    /// All Services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> + '_ {
        self.services.iter().filter(|(_, e)| e.service.is_some()).map(|(k, _)| k)
    }

    pub fn namespaces(&self) -> &BTreeSet<Arc<str>> {
        &self.namespaces
    }

    pub fn records(&self) -> impl Iterator<Item = &Arc<DnsRecord>> + '_ {
        self.records.values()
    }

    /// Namespace, name and addresses of each pod, in no order.
    pub fn pods(&self) -> impl Iterator<Item = (&str, &str, &[IpAddr])> + '_ {
        self.pods.iter().map(|((namespace, name), pod)| (&**namespace, &**name, &*pod.addresses))
    }

    /// What is left out of objects, and why; sorted.
    pub fn problems(&self) -> Vec<String> {
        let mut all: Vec<String> = self.problems.values().flatten().cloned().collect();
        for (key, splits) in self.splits.iter().filter(|(_, splits)| splits.len() > 1) {
            let ineffective = splits[1..].iter().map(|(name, _)| {
                let namespace = &key.namespace;
                let first = &splits[0].0;
                format!("TrafficSplit {namespace}/{name}: {first} divides Service {key} already")
            });
            all.extend(ineffective);
        }
        all.sort_unstable();
        all
    }

    /// How often [`compile`](Self::compile) has run: guards that a change costs what it touches.
    pub fn compilations(&self) -> u64 {
        self.compilations.load(Ordering::Relaxed)
    }

    /// Everything, as cheap clones of what is kept: for a snapshot to be written by another thread. Putting all of it
    /// into a new state, in any order, gives an equal one (without the problems).
    pub fn export(&self) -> Vec<Object> {
        let mut out = Vec::with_capacity(self.services.len() + self.owners.len() + self.namespaces.len());
        out.extend(self.namespaces.iter().map(|name| Object::Namespace { name: name.clone() }));
        for (key, entry) in &self.services {
            if let Some(input) = &entry.service {
                out.push(Object::Service { key: key.clone(), input: input.clone() });
            }
            out.extend(entry.slices.iter().map(|(name, input)| Object::Slice {
                namespace: key.namespace.clone(),
                name: name.clone(),
                input: input.clone(),
            }));
        }
        out.extend(self.records.iter().map(|((namespace, name), record)| Object::Record {
            namespace: namespace.clone(),
            name: name.clone(),
            record: record.clone(),
        }));
        out.extend(self.pods.iter().map(|((namespace, name), pod)| Object::Pod {
            namespace: namespace.clone(),
            name: name.clone(),
            addresses: pod.addresses.clone(),
            labels: pod.labels.clone(),
        }));
        for (key, splits) in &self.splits {
            out.extend(splits.iter().map(|(name, input)| Object::Split {
                namespace: key.namespace.clone(),
                name: name.clone(),
                input: input.clone(),
            }));
        }
        out.extend(self.node.iter().map(|node| Object::Node {
            name: node.name.clone(),
            zone: node.zone.clone(),
            leaving: node.leaving,
        }));
        let peer = |(name, addresses): (&Arc<str>, &Arc<[IpAddr]>)| Object::Peer {
            name: name.clone(),
            addresses: addresses.clone(),
        };
        out.extend(self.peers.iter().map(peer));
        out
    }

    /// Names are kept once; those of deleted objects go when the set has doubled.
    fn intern(&mut self, name: &str) -> Arc<str> {
        intern(&mut self.names, name)
    }

    /// As [`intern`](Self::intern), for whole sets of labels and what is in them.
    fn intern_labels(&mut self, labels: Labels) -> Labels {
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        let labels: Labels = labels.iter().map(|(k, v)| (self.intern(k), self.intern(v))).collect();
        intern(&mut self.labels, &*labels)
    }
}

fn intern<T: ?Sized + Eq + Hash>(set: &mut HashSet<Arc<T>>, value: &T) -> Arc<T>
where
    Arc<T>: for<'a> From<&'a T>,
{
    if let Some(known) = set.get(value) {
        return known.clone();
    }
    if set.len() >= 1024 && set.len() == set.capacity() {
        set.retain(|n| Arc::strong_count(n) > 1);
    }
    let value: Arc<T> = value.into();
    set.insert(value.clone());
    value
}

/// The same from nothing, by one pass over all objects: what the incremental way must agree with. Each object once.
pub fn compile_all(context: &Context, objects: impl IntoIterator<Item = Object>) -> Compiled {
    let mut zone = None;
    let mut pods = Pods::new();
    let mut services = Vec::new();
    let mut slices: HashMap<ServiceKey, Vec<Arc<SliceInput>>> = HashMap::new();
    let mut splits: BTreeMap<Id, Arc<SplitInput>> = BTreeMap::new();
    for object in objects {
        match object {
            Object::Service { key, input } => services.push((key, input)),
            Object::Slice { namespace, input, .. } => {
                slices.entry(ServiceKey { namespace, name: input.service.clone() }).or_default().push(input);
            }
            Object::Pod { namespace, name, addresses, labels } => {
                pods.insert((namespace, name), Pod { addresses, labels });
            }
            Object::Split { namespace, name, input } => drop(splits.insert((namespace, name), input)),
            Object::Node { zone: own, .. } => zone = own,
            Object::Peer { .. } => {}
            Object::Namespace { .. } | Object::Record { .. } => {}
        }
    }
    let node = ThisNode { zone: zone.as_deref(), node_port_addresses: &context.node_port_addresses };
    let mut out = Compiled::new();
    for (key, service) in services {
        let slices: Vec<&SliceInput> = slices.get(&key).into_iter().flatten().map(|s| &**s).collect();
        let first = splits.iter().find(|((ns, _), s)| *ns == key.namespace && s.service == key.name);
        let split = first.map(|(_, input)| Split { input, namespace: &key.namespace, pods: &pods });
        let inputs = Inputs { service: &service, slices: &slices, split: split.as_ref() };
        out.insert(key.clone(), rules::compile(&key, inputs, node));
    }
    out
}
