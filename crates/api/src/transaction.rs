//! One write with its whole effect.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use eastwest_model::{EndpointSlice, Kind, ObjectMeta, Resource, Revision};
use eastwest_store::{Key, Object, Store, Txn};
use rand::Rng;

use crate::derived::Derived;
use crate::{ApiError, Config, slices};

/// Kubernetes' alphabet of generated names: no vowels, and nothing easily confused.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A store and what is derived from it.
#[derive(Clone, Debug)]
pub struct Realm {
    pub store: Store,
    derived: Arc<Mutex<Derived>>,
    config: Arc<Config>,
}

/// How a transaction that keeps nothing ends.
pub enum Refused<T> {
    Error(ApiError),
    /// The result that `dryRun` wanted to know.
    DryRun(T),
}

impl<T> From<ApiError> for Refused<T> {
    fn from(e: ApiError) -> Self {
        Self::Error(e)
    }
}

impl Realm {
    pub fn new(store: Store, config: Arc<Config>) -> Self {
        Self { store, derived: Arc::default(), config }
    }

    /// Runs `work`; gives its result and the revision of its last write.
    pub async fn write<T, F>(&self, work: F) -> Result<(T, Revision), ApiError>
    where
        F: FnOnce(&mut Tx<'_, '_>) -> Result<T, Refused<T>> + Send + 'static,
        T: Send + 'static,
    {
        let (derived, config) = (self.derived.clone(), self.config.clone());
        let outcome = self
            .store
            .write(move |txn| {
                // `revision` is None while `derived` is being changed, so that a panic leaves nothing half-done behind.
                let mut derived = derived.lock().unwrap_or_else(PoisonError::into_inner);
                if derived.revision != Some(txn.base_revision()) {
                    *derived = Derived::rebuild(&txn.view());
                }
                let mut tx = Tx { txn, derived: &mut derived, config: &config };
                let result = work(&mut tx)?;
                let revision = tx.txn.revision();
                derived.revision = Some(revision);
                Ok::<_, Refused<T>>((result, revision))
            })
            .await?;
        match outcome {
            Ok(done) => Ok(done),
            Err(Refused::DryRun(result)) => Ok((result, self.store.revision())),
            Err(Refused::Error(e)) => Err(e),
        }
    }
}

/// A transaction over typed objects.
pub struct Tx<'a, 'b> {
    txn: &'a mut Txn<'b>,
    pub derived: &'a mut Derived,
    pub config: &'a Config,
}

impl Tx<'_, '_> {
    pub fn object(&self, key: &Key) -> Option<Arc<Object>> {
        self.txn.view().get(key).cloned()
    }

    pub fn get<T: Resource>(&self, namespace: &str, name: &str) -> Option<T> {
        let object = self.object(&Key::new(T::KIND, namespace, name))?;
        serde_json::from_slice(&object.json)
            .inspect_err(|error| tracing::error!(key = %object.key, %error, "stored object does not decode"))
            .ok()
    }

    pub fn keys(&self, kind: Kind, namespace: Option<&str>) -> Vec<Key> {
        self.txn.view().range(kind, namespace, None).map(|o| o.key.clone()).collect()
    }

    /// Objects of a kind that have a label.
    pub fn labelled(&self, kind: Kind, label: &str) -> Vec<Key> {
        let all = self.txn.view().range(kind, None, None);
        all.filter(|o| o.labels.contains_key(label)).map(|o| o.key.clone()).collect()
    }

    pub fn any(&self, kind: Kind, namespace: &str) -> bool {
        self.txn.view().range(kind, Some(namespace), None).next().is_some()
    }

    /// `prefix` and five characters, which no object has as its name.
    pub fn free_name(&self, kind: Kind, namespace: &str, prefix: &str) -> String {
        let mut rng = rand::rng();
        loop {
            let name = generate_name(prefix, &mut rng);
            if self.object(&Key::new(kind, namespace, &name)).is_none() {
                return name;
            }
        }
    }

    /// Stores the object, with its new `resourceVersion` set.
    pub fn put<T: Resource>(&mut self, object: &mut T) -> Arc<Object> {
        self.derived.revision = None;
        let meta = object.metadata();
        let key = Key::new(T::KIND, &meta.namespace, &meta.name);
        let labels = meta.labels.clone();
        let (_, stored) = self.txn.put(key, labels, |revision| {
            object.metadata_mut().resource_version = revision.to_string();
            encode(object)
        });
        stored
    }

    /// Deletes the object.
    pub fn delete<T: Resource>(&mut self, object: &mut T) -> Option<Arc<Object>> {
        self.derived.revision = None;
        let key = Key::new(T::KIND, &object.metadata().namespace, &object.metadata().name);
        self.txn.delete(&key, |revision| {
            object.metadata_mut().resource_version = revision.to_string();
            encode(object)
        })
    }

    /// Stores a slice that we make ourselves.
    pub fn put_plain(&mut self, old: Option<&EndpointSlice>, mut slice: EndpointSlice) {
        match old {
            None => born(&mut slice.metadata),
            Some(old) if !slice.same_spec(old) => slice.metadata.generation += 1,
            Some(_) => {}
        }
        self.put(&mut slice);
        self.derived.set_slice(old, Some(&slice));
    }

    /// Deletes a slice that we made ourselves.
    pub fn remove_plain(&mut self, slice: &EndpointSlice) {
        debug_assert!(self.object(&slices::key(slice)).is_some());
        self.delete(&mut slice.clone());
        self.derived.set_slice(Some(slice), None);
    }
}

/// What every new object gets.
pub fn born(meta: &mut ObjectMeta) {
    meta.uid = uuid::Uuid::new_v4().to_string();
    meta.creation_timestamp = Some(now());
    meta.generation = 1;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link.clear();
}

/// RFC 3339, UTC, whole seconds.
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

pub fn generate_name(prefix: &str, rng: &mut impl Rng) -> String {
    // As Kubernetes: the prefix gives way, so that the name stays a label.
    let mut end = prefix.len().min(58);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    for _ in 0..5 {
        name.push(char::from(NAME_ALPHABET[rng.random_range(0..NAME_ALPHABET.len())]));
    }
    name
}

/// The object's JSON. The model's types hold only what JSON can: strings as keys, finite numbers.
pub fn encode<T: serde::Serialize>(object: &T) -> Bytes {
    match serde_json::to_vec(object) {
        Ok(json) => json.into(),
        Err(error) => {
            // Caught by the store, which keeps nothing of the transaction.
            std::panic::panic_any(format!("an object does not encode: {error}"))
        }
    }
}
