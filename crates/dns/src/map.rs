//! A hash map whose clone is one reference count and whose change costs O(change), whatever its size.
//!
//! Readers take a snapshot of the whole index (one [`arc_swap::ArcSwap`] load, no lock) and so never see half an
//! update; the writer clones the snapshot and changes what differs. Two fixed levels of 64 and small leaves: a change
//! copies 64 + 64 pointers and one leaf (27 entries at 110,000 names), and a batch copies each touched part once.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const FAN: usize = 64;
/// By how many entries a leaf grows.
const ROOM: usize = 4;

#[derive(Clone, Debug)]
struct Leaf<K, V> {
    /// High half of each entry's hash: a miss is told without touching a key.
    tags: Vec<u32>,
    entries: Vec<(K, V)>,
}

type Level<K, V> = [Arc<Leaf<K, V>>; FAN];

/// A persistent hash map. Keyed by a random SipHash: who chooses names cannot choose the leaf they fall in.
#[derive(Clone, Debug)]
pub(crate) struct Map<K, V> {
    root: Arc<[Arc<Level<K, V>>; FAN]>,
    hasher: RandomState,
    len: usize,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        let leaf = Arc::new(Leaf { tags: Vec::new(), entries: Vec::new() });
        let level: Arc<Level<K, V>> = Arc::new(std::array::from_fn(|_| leaf.clone()));
        Self { root: Arc::new(std::array::from_fn(|_| level.clone())), hasher: RandomState::new(), len: 0 }
    }
}

fn split(hash: u64) -> (usize, usize, u32) {
    ((hash & 63) as usize, (hash >> 6 & 63) as usize, (hash >> 32) as u32)
}

impl<K: Clone + Eq + Hash, V: Clone> Map<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (i, j, tag) = split(self.hasher.hash_one(key));
        let leaf = &self.root[i][j];
        leaf.tags
            .iter()
            .zip(&leaf.entries)
            .find(|(t, (k, _))| **t == tag && k.borrow() == key)
            .map(|(_, (_, v))| v)
    }

    pub(crate) fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.root
            .iter()
            .flat_map(|level| level.iter())
            .flat_map(|leaf| leaf.entries.iter())
            .map(|(k, v)| (k, v))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (i, j, tag) = split(self.hasher.hash_one(&key));
        let leaf = Arc::make_mut(&mut Arc::make_mut(&mut Arc::make_mut(&mut self.root)[i])[j]);
        let at = leaf.tags.iter().zip(&leaf.entries).position(|(t, (k, _))| *t == tag && *k == key);
        if let Some(at) = at {
            return Some(std::mem::replace(&mut leaf.entries[at].1, value));
        }
        // A leaf that has been copied is exactly full, and a vector would double.
        if leaf.entries.len() == leaf.entries.capacity() {
            leaf.tags.reserve_exact(ROOM);
            leaf.entries.reserve_exact(ROOM);
        }
        leaf.tags.push(tag);
        leaf.entries.push((key, value));
        self.len += 1;
        None
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (i, j, tag) = split(self.hasher.hash_one(key));
        let found = |leaf: &Leaf<K, V>| {
            leaf.tags.iter().zip(&leaf.entries).position(|(t, (k, _))| *t == tag && k.borrow() == key)
        };
        let at = found(&self.root[i][j])?;
        let leaf = Arc::make_mut(&mut Arc::make_mut(&mut Arc::make_mut(&mut self.root)[i])[j]);
        leaf.tags.swap_remove(at);
        self.len -= 1;
        Some(leaf.entries.swap_remove(at).1)
    }
}

/// A map whose keys are addresses: those of IPv4 take the room of IPv4.
#[derive(Clone, Debug)]
pub(crate) struct ByAddress<V> {
    v4: Map<Ipv4Addr, V>,
    v6: Map<Ipv6Addr, V>,
}

impl<V> Default for ByAddress<V> {
    fn default() -> Self {
        Self { v4: Map::default(), v6: Map::default() }
    }
}

impl<V: Clone> ByAddress<V> {
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub(crate) fn get(&self, ip: &IpAddr) -> Option<&V> {
        match ip {
            IpAddr::V4(ip) => self.v4.get(ip),
            IpAddr::V6(ip) => self.v6.get(ip),
        }
    }

    pub(crate) fn insert(&mut self, ip: IpAddr, value: V) -> Option<V> {
        match ip {
            IpAddr::V4(ip) => self.v4.insert(ip, value),
            IpAddr::V6(ip) => self.v6.insert(ip, value),
        }
    }

    pub(crate) fn remove(&mut self, ip: &IpAddr) -> Option<V> {
        match ip {
            IpAddr::V4(ip) => self.v4.remove(ip),
            IpAddr::V6(ip) => self.v6.remove(ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_hash_map(steps in proptest::collection::vec((any::<bool>(), 0u16..300, any::<u8>()), 0..2000)) {
            let mut map = Map::default();
            let mut model = HashMap::new();
            for (insert, key, value) in steps {
                let before = map.clone();
                let old = model.get(&key).copied();
                if insert {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                // A snapshot taken before does not change.
                prop_assert_eq!(before.get(&key).copied(), old);
                prop_assert_eq!(map.len(), model.len());
            }
            for (k, v) in map.iter() {
                prop_assert_eq!(model.get(k), Some(v));
            }
            for (k, v) in &model {
                prop_assert_eq!(map.get(k), Some(v));
            }
        }
    }
}
