//! EndpointSlices from selectors: what Kubernetes' endpointslice controller does (KEP-752), in the transaction of the
//! write that causes it. A change of one workload touches only the slices that hold, or will hold, its endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use eastwest_model::{
    AddressType, Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, HintName,
    IpFamily, Kind, LABEL_MANAGED_BY, LABEL_SERVICE_NAME, LABEL_ZONE, MANAGED_BY, Map, ObjectMeta,
    ObjectReference, OwnerReference, Service, ServiceType, TargetPort, Workload, selects,
};
use eastwest_store::Key;

use crate::derived::{AddressTypeOrd, Name, SliceInfo, ord};
use crate::transaction::Tx;

/// Most endpoints in a slice (kube-controller-manager `--max-endpoints-per-slice`).
pub const SLICE_MAX: usize = 100;

/// Marks slices of headless Services, as Kubernetes does.
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";

/// Brings the slices of the Services that select `labels` (before or after a change) up to date for one workload.
pub fn workload_changed(tx: &mut Tx<'_, '_>, name: &Name, labels: [Option<&Map>; 2], now: Option<&Workload>) {
    let mut touched = BTreeSet::new();
    for labels in labels.into_iter().flatten() {
        touched.extend(tx.derived.selecting(&name.0, labels));
    }
    for service in touched {
        let Some(mut editor) = Editor::open(tx, &(name.0.clone(), service)) else { continue };
        editor.place(tx, &name.1, now);
        editor.finish(tx);
    }
}

/// Writes a Node's new zone into the endpoints of its workloads. It looks at all workloads: a Node changes its zone about
/// never.
pub fn zone_changed(tx: &mut Tx<'_, '_>, node: &str) {
    for key in tx.keys(Kind::Workload, None) {
        let Some(workload) = tx.get::<Workload>(&key.namespace, &key.name) else { continue };
        if workload.spec.node == node {
            let name = (key.namespace.clone(), key.name.clone());
            workload_changed(tx, &name, [Some(&workload.metadata.labels), None], Some(&workload));
        }
    }
}

/// Brings all slices of a Service up to date; after its deletion, removes them.
pub fn service_changed(tx: &mut Tx<'_, '_>, name: &Name) {
    let Some(mut editor) = Editor::open(tx, name) else { return };
    let placed = tx.derived.service(name).into_iter().flat_map(|s| s.placed.keys());
    let mut workloads: BTreeSet<Arc<str>> = placed.map(|(w, _)| w.clone()).collect();
    if let Some(service) = &editor.service {
        workloads.extend(tx.derived.candidates(&name.0, &service.spec.selector));
    }
    // Slices of another version of the Service, or edited by somebody, are looked at as a whole.
    editor.load_all(tx);
    editor.drop_strangers(tx, &workloads);
    for workload in workloads {
        let now = tx.get::<Workload>(&name.0, &workload);
        editor.place(tx, &workload, now.as_ref());
    }
    editor.finish(tx);
}

/// Whether two versions of a Service may have different slices.
pub fn differs(old: &Service, new: &Service) -> bool {
    let (a, b) = (&old.spec, &new.spec);
    a.selector != b.selector
        || a.ports != b.ports
        || a.ip_families != b.ip_families
        || a.publish_not_ready_addresses != b.publish_not_ready_addresses
        || a.traffic_distribution != b.traffic_distribution
        || old.service_type() != new.service_type()
        || old.is_headless() != new.is_headless()
        || old.metadata.labels != new.metadata.labels
        || old.metadata.uid != new.metadata.uid
}

/// The slices of one Service while they are changed. Holds only what it touches: the rest is looked up in [`Derived`],
/// so that a change in a Service of ten thousand endpoints costs no more than in a small one.
///
/// [`Derived`]: crate::derived::Derived
struct Editor {
    name: Name,
    /// `None`: all its slices must go.
    service: Option<Arc<Service>>,
    /// The labels its slices must have.
    labels: Map,
    /// Of slices in `open`.
    infos: BTreeMap<Arc<str>, SliceInfo>,
    /// Placements that differ from the recorded ones; `None`: nowhere.
    moved: BTreeMap<(Arc<str>, AddressTypeOrd), Option<Arc<str>>>,
    /// Slices looked at: as stored (`None`: new) and as they will be.
    open: BTreeMap<Arc<str>, (Option<EndpointSlice>, EndpointSlice)>,
}

impl Editor {
    /// `None` when there is nothing to do: no such Service, or its endpoints are the user's own and none are ours.
    fn open(tx: &Tx<'_, '_>, name: &Name) -> Option<Self> {
        let state = tx.derived.service(name)?;
        let service = state
            .service
            .clone()
            .filter(|s| !s.spec.selector.is_empty() && s.service_type() != ServiceType::ExternalName)
            .filter(|s| !s.metadata.is_mirrored());
        if service.is_none() && state.slices.is_empty() {
            return None;
        }
        Some(Self {
            name: name.clone(),
            labels: service.as_deref().map(slice_labels).unwrap_or_default(),
            service,
            infos: BTreeMap::new(),
            moved: BTreeMap::new(),
            open: BTreeMap::new(),
        })
    }

    /// The slices as recorded when the transaction's effects began.
    fn recorded<'t>(
        &self,
        tx: &'t Tx<'_, '_>,
    ) -> impl Iterator<Item = (&'t Arc<str>, &'t SliceInfo)> + use<'t> {
        tx.derived.service(&self.name).into_iter().flat_map(|s| &s.slices)
    }

    fn at(&self, tx: &Tx<'_, '_>, workload: &Arc<str>, family: AddressTypeOrd) -> Option<Arc<str>> {
        let key = (workload.clone(), family);
        match self.moved.get(&key) {
            Some(moved) => moved.clone(),
            None => tx.derived.service(&self.name)?.placed.get(&key).cloned(),
        }
    }

    /// Removes or adds or changes the endpoints of one workload.
    fn place(&mut self, tx: &Tx<'_, '_>, workload: &Arc<str>, now: Option<&Workload>) {
        let mut wanted = match (&self.service, now) {
            (Some(service), Some(w)) if selects(&service.spec.selector, &w.metadata.labels) => {
                let node = tx.object(&Key::new(Kind::Node, "", &w.spec.node));
                let zone = node.as_ref().and_then(|n| n.labels.get(LABEL_ZONE)).filter(|z| !z.is_empty());
                endpoints(service, w, zone)
            }
            _ => Vec::new(),
        };
        for family in [AddressType::IPv4, AddressType::IPv6] {
            let want = wanted.iter().position(|(f, ..)| *f == family).map(|i| wanted.swap_remove(i));
            if let Some(at) = self.at(tx, workload, ord(family)) {
                let Some(slice) = self.slice(tx, &at) else { continue };
                let fits = want
                    .as_ref()
                    .is_some_and(|(_, ports, _)| slice.address_type == family && slice.ports == *ports);
                let index = slice
                    .endpoints
                    .iter()
                    .position(|e| e.target_ref.as_ref().is_some_and(|t| *t.name == **workload));
                match (index, want) {
                    (Some(i), Some((.., endpoint))) if fits => slice.endpoints[i] = endpoint,
                    (index, want) => {
                        if let Some(i) = index {
                            slice.endpoints.remove(i);
                        }
                        self.moved.insert((workload.clone(), ord(family)), None);
                        self.recount(&at);
                        if let Some((family, ports, endpoint)) = want {
                            self.add(tx, workload, family, ports, endpoint);
                        }
                    }
                }
            } else if let Some((family, ports, endpoint)) = want {
                self.add(tx, workload, family, ports, endpoint);
            }
        }
    }

    /// Into the fullest slice that has room, or a new one.
    fn add(
        &mut self,
        tx: &Tx<'_, '_>,
        workload: &Arc<str>,
        family: AddressType,
        ports: Vec<EndpointPort>,
        endpoint: Endpoint,
    ) {
        let room = self
            .recorded(tx)
            .filter(|(name, _)| !self.infos.contains_key(*name))
            .chain(&self.infos)
            .filter(|(_, i)| i.len < SLICE_MAX && i.family == family && i.ports == ports)
            .max_by_key(|(_, i)| i.len)
            .map(|(name, _)| name.clone());
        let name = match room {
            Some(name) => name,
            None => self.create(tx, family, ports),
        };
        let Some(slice) = self.slice(tx, &name) else { return };
        slice.endpoints.push(endpoint);
        self.recount(&name);
        self.moved.insert((workload.clone(), ord(family)), Some(name));
    }

    fn create(&mut self, tx: &Tx<'_, '_>, family: AddressType, ports: Vec<EndpointPort>) -> Arc<str> {
        let name: Arc<str> =
            tx.free_name(Kind::EndpointSlice, &self.name.0, &format!("{}-", self.name.1)).into();
        let slice = EndpointSlice {
            api_version: Kind::EndpointSlice.api_version().into(),
            kind: Kind::EndpointSlice.name().into(),
            metadata: ObjectMeta {
                name: name.to_string(),
                namespace: self.name.0.to_string(),
                generate_name: format!("{}-", self.name.1),
                owner_references: self.service.as_deref().map(owner).into_iter().collect(),
                labels: self.labels.clone(),
                ..ObjectMeta::default()
            },
            address_type: family,
            endpoints: Vec::new(),
            ports: ports.clone(),
        };
        self.infos.insert(name.clone(), SliceInfo { family, ports, len: 0 });
        self.open.insert(name.clone(), (None, slice));
        name
    }

    fn recount(&mut self, name: &Arc<str>) {
        if let (Some(info), Some((_, slice))) = (self.infos.get_mut(name), self.open.get(name)) {
            info.len = slice.endpoints.len();
        }
    }

    fn slice(&mut self, tx: &Tx<'_, '_>, name: &Arc<str>) -> Option<&mut EndpointSlice> {
        if !self.open.contains_key(name) {
            let stored: EndpointSlice = tx.get(&self.name.0, name)?;
            let info = SliceInfo {
                family: stored.address_type,
                ports: stored.ports.clone(),
                len: stored.endpoints.len(),
            };
            self.infos.insert(name.clone(), info);
            self.open.insert(name.clone(), (Some(stored.clone()), stored));
        }
        self.open.get_mut(name).map(|(_, slice)| slice)
    }

    fn load_all(&mut self, tx: &Tx<'_, '_>) {
        let names: Vec<_> = self.recorded(tx).map(|(name, _)| name.clone()).collect();
        for name in names {
            let labels = self.labels.clone();
            let owners: Vec<_> = self.service.as_deref().map(owner).into_iter().collect();
            if let Some(slice) = self.slice(tx, &name) {
                slice.metadata.labels = labels;
                slice.metadata.owner_references = owners;
            }
        }
    }

    /// Drops endpoints that are not of `workloads`, or twice there.
    fn drop_strangers(&mut self, tx: &Tx<'_, '_>, workloads: &BTreeSet<Arc<str>>) {
        let mut open = std::mem::take(&mut self.open);
        for (name, (_, slice)) in &mut open {
            let family = ord(slice.address_type);
            let mut seen = BTreeSet::new();
            slice.endpoints.retain(|e| {
                let workload = e.target_ref.as_ref().and_then(|t| workloads.get(&*t.name));
                workload
                    .is_some_and(|w| self.at(tx, w, family).as_ref() == Some(name) && seen.insert(w.clone()))
            });
        }
        self.open = open;
        let names: Vec<_> = self.open.keys().cloned().collect();
        names.iter().for_each(|n| self.recount(n));
    }

    /// Writes the slices that differ, and deletes those left empty. Whoever reads one after the other never misses an
    /// endpoint that stays: a slice that is new takes the place of one that would go, as Kubernetes' own controller does it
    /// (endpointslice/reconciler.go), slices that lose endpoints come after those that gain them, and deletions last.
    fn finish(self, tx: &mut Tx<'_, '_>) {
        let mut emptied = Vec::new();
        let mut made = Vec::new();
        let mut changed = Vec::new();
        for (stored, slice) in self.open.into_values() {
            match stored {
                Some(stored) if slice.endpoints.is_empty() => emptied.push(stored),
                Some(stored) if stored == slice => {}
                Some(stored) => changed.push((stored, slice)),
                None if !slice.endpoints.is_empty() => made.push(slice),
                None => {}
            }
        }
        for mut slice in made {
            match emptied.iter().position(|old| old.address_type == slice.address_type) {
                Some(i) => {
                    let old = emptied.swap_remove(i);
                    let labels = std::mem::take(&mut slice.metadata.labels);
                    let owner_references = std::mem::take(&mut slice.metadata.owner_references);
                    slice.metadata = ObjectMeta { labels, owner_references, ..old.metadata.clone() };
                    tx.put_plain(Some(&old), slice);
                }
                None => tx.put_plain(None, slice),
            }
        }
        let loses = |(old, new): &(EndpointSlice, EndpointSlice)| {
            old.endpoints.iter().any(|e| new.endpoints.iter().all(|kept| kept.addresses != e.addresses))
        };
        changed.sort_by_key(loses);
        for (old, slice) in changed {
            tx.put_plain(Some(&old), slice);
        }
        for old in emptied {
            tx.remove_plain(&old);
        }
    }
}

fn owner(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: Kind::Service.api_version().into(),
        kind: Kind::Service.name().into(),
        name: service.metadata.name.clone(),
        uid: service.metadata.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The Service's own labels, and those that tie and mark the slice.
fn slice_labels(service: &Service) -> Map {
    let mut labels = service.metadata.labels.clone();
    labels.remove(LABEL_HEADLESS);
    labels.insert(LABEL_SERVICE_NAME.into(), service.metadata.name.clone());
    labels.insert(LABEL_MANAGED_BY.into(), MANAGED_BY.into());
    if service.is_headless() {
        labels.insert(LABEL_HEADLESS.into(), String::new());
    }
    labels
}

/// A workload's endpoints for a Service: at most one of each family.
fn endpoints(
    service: &Service,
    workload: &Workload,
    zone: Option<&String>,
) -> Vec<(AddressType, Vec<EndpointPort>, Endpoint)> {
    let ports = ports(service, workload);
    let ready = workload.ready();
    let terminating = workload.metadata.deletion_timestamp.is_some();
    let publish = service.spec.publish_not_ready_addresses == Some(true);
    let counts = publish || (ready && !terminating);
    let hints = hints(service, workload, zone).filter(|_| counts);
    let spec = &workload.spec;
    let hostname =
        (!spec.hostname.is_empty() && spec.subdomain == service.metadata.name).then(|| spec.hostname.clone());
    let mut endpoints = Vec::new();
    for family in &service.spec.ip_families {
        let address = spec.addresses.iter().find_map(|a| {
            let ip: IpAddr = a.parse().ok()?;
            (IpFamily::of(ip) == *family).then_some(ip)
        });
        let Some(address) = address else { continue };
        let endpoint = Endpoint {
            addresses: vec![address.to_string()],
            conditions: EndpointConditions {
                ready: Some(counts),
                serving: Some(ready),
                terminating: Some(terminating),
            },
            hostname: hostname.clone(),
            node_name: (!spec.node.is_empty()).then(|| spec.node.clone()),
            zone: zone.cloned(),
            hints: hints.clone(),
            target_ref: Some(ObjectReference {
                kind: Kind::Workload.name().into(),
                namespace: workload.metadata.namespace.clone(),
                name: workload.metadata.name.clone(),
                uid: workload.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        };
        let family = match family {
            IpFamily::IPv4 => AddressType::IPv4,
            IpFamily::IPv6 => AddressType::IPv6,
        };
        endpoints.push((family, ports.clone(), endpoint));
    }
    endpoints
}

/// What keeps a client's traffic close, by `trafficDistribution`: each endpoint is meant for its own zone, and with
/// `PreferSameNode` for its own node (Kubernetes' `endpointslice/trafficdist`).
fn hints(service: &Service, workload: &Workload, zone: Option<&String>) -> Option<EndpointHints> {
    let distribution = service.spec.traffic_distribution.as_deref()?;
    let same_node = distribution == "PreferSameNode" && !workload.spec.node.is_empty();
    let name = |name: &String| HintName { name: name.clone() };
    let hints = EndpointHints {
        for_zones: zone.map(name).into_iter().collect(),
        for_nodes: same_node.then(|| name(&workload.spec.node)).into_iter().collect(),
    };
    (hints != EndpointHints::default()).then_some(hints)
}

/// The Service's ports on this workload. A named target that the workload does not have is left out.
fn ports(service: &Service, workload: &Workload) -> Vec<EndpointPort> {
    let mut ports = Vec::new();
    for p in &service.spec.ports {
        let number = match &p.target_port {
            None => Some(p.port),
            Some(TargetPort::Number(n)) => Some(*n),
            Some(TargetPort::Name(name)) => {
                let named = |w: &&eastwest_model::WorkloadPort| w.name == *name && w.protocol == p.protocol;
                workload.spec.ports.iter().find(named).map(|w| w.port)
            }
        };
        if let Some(number) = number {
            ports.push(EndpointPort {
                name: Some(p.name.clone()),
                port: Some(number),
                protocol: p.protocol,
                app_protocol: p.app_protocol.clone(),
            });
        }
    }
    ports
}

/// The store's key of a slice.
pub fn key(slice: &EndpointSlice) -> Key {
    Key::new(Kind::EndpointSlice, &slice.metadata.namespace, &slice.metadata.name)
}
