//! What follows from the stored objects and is needed to make writes cheap: who has which address and port, which
//! Service selects which label, and which slice holds which endpoint. It is rebuilt whenever it does not stand at the
//! revision that a transaction starts from (at start, after a failed write), so it can never drift.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use eastwest_model::{
    AddressType, EndpointPort, EndpointSlice, Kind, LABEL_MANAGED_BY, LABEL_SOURCE, MANAGED_BY, Map,
    Protocol, Revision, Service, TrafficSplit, selects,
};
use eastwest_store::{Object, View};

use crate::allocate::NodePorts;

/// Namespace and name.
pub type Name = (Arc<str>, Arc<str>);
/// Namespace, label key, label value.
type Label = (Arc<str>, String, String);

/// See the module.
#[derive(Debug, Default)]
pub struct Derived {
    /// The revision this is true for; `None` while it is being changed.
    pub revision: Option<Revision>,
    pub ips: HashMap<IpAddr, Name>,
    pub node_ports: NodePorts,
    /// The TrafficSplit of a Service.
    pub splits: HashMap<Name, Arc<str>>,
    services: HashMap<Name, ServiceState>,
    /// The one pair of a Service's selector that the Service is filed under.
    selectors: HashMap<Label, BTreeSet<Arc<str>>>,
    /// Workloads by each of their labels.
    labels: HashMap<Label, BTreeSet<Arc<str>>>,
}

/// A Service and where its endpoints are.
#[derive(Debug, Default)]
pub struct ServiceState {
    pub service: Option<Arc<Service>>,
    filed: Option<Label>,
    pub slices: BTreeMap<Arc<str>, SliceInfo>,
    /// Which slice holds a workload's endpoint.
    pub placed: BTreeMap<(Arc<str>, AddressTypeOrd), Arc<str>>,
}

/// An address type that can be a key.
pub type AddressTypeOrd = u8;

pub const fn ord(t: AddressType) -> AddressTypeOrd {
    match t {
        AddressType::IPv4 => 0,
        AddressType::IPv6 => 1,
        AddressType::FQDN => 2,
    }
}

/// What decides whether an endpoint fits into a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceInfo {
    pub family: AddressType,
    pub ports: Vec<EndpointPort>,
    pub len: usize,
}

impl Derived {
    /// Forgets all and reads `view`.
    pub fn rebuild(view: &View<'_>) -> Self {
        let mut this = Self::default();
        for object in view.range(Kind::Service, None, None) {
            match serde_json::from_slice::<Service>(&object.json) {
                Ok(service) => this.set_service(None, Some(&Arc::new(service))),
                Err(error) => tracing::error!(key = %object.key, %error, "stored object does not decode"),
            }
        }
        for object in view.range(Kind::EndpointSlice, None, None) {
            if object.labels.get(LABEL_MANAGED_BY).is_some_and(|m| m == MANAGED_BY)
                && let Ok(slice) = serde_json::from_slice::<EndpointSlice>(&object.json)
            {
                this.set_slice(None, Some(&slice));
            }
        }
        for object in view.range(Kind::TrafficSplit, None, None) {
            if let Ok(split) = serde_json::from_slice::<TrafficSplit>(&object.json) {
                this.set_split(None, Some(&split));
            }
        }
        let ours = |o: &&Arc<Object>| !o.labels.contains_key(LABEL_SOURCE);
        for object in view.range(Kind::Workload, None, None).filter(ours) {
            let name = (object.key.namespace.clone(), object.key.name.clone());
            this.set_workload_labels(&name, None, Some(&object.labels));
        }
        this.revision = Some(view.revision());
        this
    }

    /// Records that a Service is now `new` and no longer `old`.
    pub fn set_service(&mut self, old: Option<&Service>, new: Option<&Arc<Service>>) {
        if let Some(old) = old {
            let name = name_of(&old.metadata);
            for ip in old.cluster_ips() {
                if self.ips.get(&ip) == Some(&name) {
                    self.ips.remove(&ip);
                }
            }
            for port in node_ports(old) {
                if self.node_ports.get(&port) == Some(&name) {
                    self.node_ports.remove(&port);
                }
            }
            self.unfile(&name);
        }
        match new {
            Some(new) => {
                let name = name_of(&new.metadata);
                self.ips.extend(new.cluster_ips().map(|ip| (ip, name.clone())));
                self.node_ports.extend(node_ports(new).map(|port| (port, name.clone())));
                let filed = self.file(&name, &new.spec.selector);
                let state = self.services.entry(name).or_default();
                state.service = Some(new.clone());
                state.filed = filed;
            }
            None => {
                if let Some(old) = old {
                    let name = name_of(&old.metadata);
                    if let Some(state) = self.services.get_mut(&name) {
                        state.service = None;
                    }
                    // Its slices are still there until they have been removed in their turn.
                    self.drop_empty(&name);
                }
            }
        }
    }

    /// Records that a TrafficSplit is now `new` and no longer `old`.
    pub fn set_split(&mut self, old: Option<&TrafficSplit>, new: Option<&TrafficSplit>) {
        let service = |s: &TrafficSplit| -> Name {
            (s.metadata.namespace.as_str().into(), s.spec.service.as_str().into())
        };
        if let Some(old) = old
            && self.splits.get(&service(old)).is_some_and(|name| **name == *old.metadata.name)
        {
            self.splits.remove(&service(old));
        }
        if let Some(new) = new {
            self.splits.insert(service(new), new.metadata.name.as_str().into());
        }
    }

    /// Files a Service under the pair of its selector that the fewest others are filed under, so that one pair that all
    /// share costs nothing.
    fn file(&mut self, (namespace, name): &Name, selector: &Map) -> Option<Label> {
        let label = selector
            .iter()
            .map(|(k, v)| (namespace.clone(), k.clone(), v.clone()))
            .min_by_key(|l| self.selectors.get(l).map_or(0, BTreeSet::len))?;
        self.selectors.entry(label.clone()).or_default().insert(name.clone());
        Some(label)
    }

    fn unfile(&mut self, name: &Name) {
        if let Some(label) = self.services.get_mut(name).and_then(|s| s.filed.take()) {
            remove_from(&mut self.selectors, &label, &name.1);
        }
    }

    /// Records that a workload has other labels.
    pub fn set_workload_labels(&mut self, name: &Name, old: Option<&Map>, new: Option<&Map>) {
        let (namespace, name) = name;
        if old == new {
            return;
        }
        for (k, v) in old.into_iter().flatten() {
            remove_from(&mut self.labels, &(namespace.clone(), k.clone(), v.clone()), name);
        }
        for (k, v) in new.into_iter().flatten() {
            let label = (namespace.clone(), k.clone(), v.clone());
            self.labels.entry(label).or_default().insert(name.clone());
        }
    }

    /// Names of the workloads that may match a selector: those with its rarest pair.
    pub fn candidates(&self, namespace: &Arc<str>, selector: &Map) -> Vec<Arc<str>> {
        let mut rarest: Option<&BTreeSet<Arc<str>>> = None;
        for (k, v) in selector {
            match self.labels.get(&(namespace.clone(), k.clone(), v.clone())) {
                None => return Vec::new(),
                Some(set) if rarest.is_none_or(|r| set.len() < r.len()) => rarest = Some(set),
                Some(_) => {}
            }
        }
        rarest.map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    /// Services of a namespace whose selector picks these labels.
    pub fn selecting(&self, namespace: &Arc<str>, labels: &Map) -> BTreeSet<Arc<str>> {
        let mut found = BTreeSet::new();
        for (k, v) in labels {
            let filed = self.selectors.get(&(namespace.clone(), k.clone(), v.clone()));
            for name in filed.into_iter().flatten() {
                let state = self.services.get(&(namespace.clone(), name.clone()));
                if state.and_then(|s| s.service.as_ref()).is_some_and(|s| selects(&s.spec.selector, labels)) {
                    found.insert(name.clone());
                }
            }
        }
        found
    }

    pub fn service(&self, name: &Name) -> Option<&ServiceState> {
        self.services.get(name)
    }

    /// Records that one of our slices is now `new` and no longer `old`.
    pub fn set_slice(&mut self, old: Option<&EndpointSlice>, new: Option<&EndpointSlice>) {
        let (old, new) = (old.filter(|s| is_ours(s)), new.filter(|s| is_ours(s)));
        if let Some((name, slice)) = old.and_then(|s| Some((service_of(s)?, s)))
            && let Some(state) = self.services.get_mut(&name)
        {
            let slice_name = &*slice.metadata.name;
            state.slices.remove(slice_name);
            for (workload, family) in members(slice) {
                if state.placed.get(&(workload.clone(), family)).is_some_and(|s| **s == *slice_name) {
                    state.placed.remove(&(workload, family));
                }
            }
            self.drop_empty(&name);
        }
        if let Some((name, slice)) = new.and_then(|s| Some((service_of(s)?, s))) {
            let state = self.services.entry(name).or_default();
            let slice_name: Arc<str> = slice.metadata.name.as_str().into();
            let info = SliceInfo {
                family: slice.address_type,
                ports: slice.ports.clone(),
                len: slice.endpoints.len(),
            };
            state.slices.insert(slice_name.clone(), info);
            state.placed.extend(members(slice).map(|m| (m, slice_name.clone())));
        }
    }

    fn drop_empty(&mut self, name: &Name) {
        if self.services.get(name).is_some_and(|s| s.service.is_none() && s.slices.is_empty()) {
            self.services.remove(name);
        }
    }
}

fn remove_from(map: &mut HashMap<Label, BTreeSet<Arc<str>>>, label: &Label, name: &Arc<str>) {
    if let Some(set) = map.get_mut(label) {
        set.remove(name);
        if set.is_empty() {
            map.remove(label);
        }
    }
}

pub fn name_of(meta: &eastwest_model::ObjectMeta) -> Name {
    (meta.namespace.as_str().into(), meta.name.as_str().into())
}

/// Whether the slice is made by us, from a selector.
pub fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.get(LABEL_MANAGED_BY).is_some_and(|m| m == MANAGED_BY)
}

/// The Service a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<Name> {
    Some((slice.metadata.namespace.as_str().into(), slice.service_name()?.into()))
}

fn members(slice: &EndpointSlice) -> impl Iterator<Item = (Arc<str>, AddressTypeOrd)> + '_ {
    let family = ord(slice.address_type);
    slice.endpoints.iter().filter_map(move |e| Some((e.target_ref.as_ref()?.name.as_str().into(), family)))
}

fn node_ports(service: &Service) -> impl Iterator<Item = (u16, Protocol)> + '_ {
    let health = service.spec.health_check_node_port.and_then(|p| u16::try_from(p).ok());
    let ports = service.spec.ports.iter().filter_map(|p| Some((p.node_port?, p.protocol)));
    ports.filter(|(p, _)| *p != 0).chain(health.filter(|p| *p != 0).map(|p| (p, Protocol::TCP)))
}
