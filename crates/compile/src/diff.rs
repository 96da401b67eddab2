use std::collections::BTreeMap;

use crate::{CompiledService, DnsService, Frontend, FrontendKey, ServiceKey};

/// What a node serves.
pub type Compiled = BTreeMap<ServiceKey, CompiledService>;

/// What leads from one [`Compiled`] to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Services that are new or differ.
    pub changed: Vec<ServiceChange>,
    pub removed: Vec<ServiceKey>,
}

/// What differs of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceChange {
    pub key: ServiceKey,
    /// New frontends, and those with other backends or affinity.
    pub put: Vec<Frontend>,
    pub removed: Vec<FrontendKey>,
    /// Absent: as before. Present for every new Service.
    pub dns: Option<DnsService>,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// `apply(diff(a, b), a) == b`; and the diff of equals is empty.
pub fn diff(old: &Compiled, new: &Compiled) -> Diff {
    let removed = old.keys().filter(|k| !new.contains_key(*k)).cloned().collect();
    let changed = new.values().filter_map(|n| service(old.get(&n.key), n)).collect();
    Diff { changed, removed }
}

fn service(old: Option<&CompiledService>, new: &CompiledService) -> Option<ServiceChange> {
    let Some(old) = old else {
        let dns = Some(new.dns.clone());
        let (key, put) = (new.key.clone(), new.frontends.clone());
        return Some(ServiceChange { key, put, removed: Vec::new(), dns });
    };
    // Both are sorted by key.
    let find =
        |frontends: &[Frontend], key: &FrontendKey| frontends.binary_search_by(|f| f.key.cmp(key)).ok();
    let put: Vec<_> = new
        .frontends
        .iter()
        .filter(|f| find(&old.frontends, &f.key).is_none_or(|at| old.frontends[at] != **f))
        .cloned()
        .collect();
    let removed: Vec<_> =
        old.frontends.iter().map(|f| f.key).filter(|k| find(&new.frontends, k).is_none()).collect();
    let dns = (old.dns != new.dns).then(|| new.dns.clone());
    let differs = !put.is_empty() || !removed.is_empty() || dns.is_some();
    differs.then(|| ServiceChange { key: new.key.clone(), put, removed, dns })
}

/// Makes the second argument of [`diff`] of its first.
pub fn apply(diff: &Diff, mut to: Compiled) -> Compiled {
    for key in &diff.removed {
        to.remove(key);
    }
    for change in &diff.changed {
        let mut service = match (to.remove(&change.key), &change.dns) {
            (Some(service), None) => service,
            (Some(service), Some(dns)) => CompiledService { dns: dns.clone(), ..service },
            (None, Some(dns)) => {
                CompiledService { key: change.key.clone(), frontends: Vec::new(), dns: dns.clone() }
            }
            // Not a diff of `to`: there is nothing this could change.
            (None, None) => continue,
        };
        service.frontends.retain(|f| !change.removed.contains(&f.key));
        for frontend in &change.put {
            match service.frontends.binary_search_by(|f| f.key.cmp(&frontend.key)) {
                Ok(at) => service.frontends[at] = frontend.clone(),
                Err(at) => service.frontends.insert(at, frontend.clone()),
            }
        }
        to.insert(change.key.clone(), service);
    }
    to
}
