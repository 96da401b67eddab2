//! Objects that come from a Kubernetes API server: put beside the ones written through this API, which they never
//! overwrite. They are taken as they are, since the API server has validated them, and carry [`LABEL_SOURCE`].

use std::collections::HashSet;

use eastwest_model::{Kind, LABEL_SOURCE, Revision, SOURCE_KUBERNETES};
use eastwest_store::Key;

use crate::kinds::Served;
use crate::transaction::{Refused, Tx};
use crate::{ApiError, App, write};

/// What was seen of objects of one kind.
#[derive(Clone, Debug)]
pub enum Mirrored<T> {
    /// The object as it is now.
    Put(T),
    Delete {
        namespace: String,
        name: String,
    },
    /// A full list has ended: of the mirrored objects of this kind just these are left, by namespace and name.
    Keep(HashSet<(String, String)>),
}

/// What came of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reflected {
    pub written: usize,
    pub deleted: usize,
    /// Objects left out, as one of this API has their name.
    pub conflicts: Vec<String>,
}

impl App {
    /// Applies a batch in one transaction. What is the same as before makes no revision. Gives what came of it, and
    /// the revision that has all of it.
    ///
    /// # Errors
    /// When the store cannot write; nothing of the batch is kept then.
    pub async fn mirror<T: Served>(
        &self,
        batch: Vec<Mirrored<T>>,
    ) -> Result<(Reflected, Revision), ApiError> {
        self.realm(T::KIND)
            .write(move |tx| {
                let mut done = Reflected::default();
                for change in batch {
                    match change {
                        Mirrored::Put(object) => put(tx, object, &mut done),
                        Mirrored::Delete { namespace, name } => {
                            delete::<T>(tx, &namespace, &name, &mut done);
                        }
                        Mirrored::Keep(keep) => {
                            for key in strangers(tx, T::KIND, &keep) {
                                delete::<T>(tx, &key.namespace, &key.name, &mut done);
                            }
                        }
                    }
                }
                Ok::<_, Refused<Reflected>>(done)
            })
            .await
    }

    /// How many objects of a kind are mirrored.
    pub fn mirrored(&self, kind: Kind) -> usize {
        self.store()
            .read(|view| view.range(kind, None, None).filter(|o| o.labels.contains_key(LABEL_SOURCE)).count())
    }
}

fn put<T: Served>(tx: &mut Tx<'_, '_>, mut object: T, done: &mut Reflected) {
    let meta = object.metadata_mut();
    meta.resource_version.clear();
    meta.labels.insert(LABEL_SOURCE.into(), SOURCE_KUBERNETES.into());
    let old = tx.get::<T>(&object.metadata().namespace, &object.metadata().name);
    if let Some(old) = &old {
        // A Namespace is but a name: Kubernetes' takes the place of ours.
        if !old.metadata().is_mirrored() && T::KIND != Kind::Namespace {
            let meta = object.metadata();
            done.conflicts.push(Key::new(T::KIND, &meta.namespace, &meta.name).to_string());
            return;
        }
        object.metadata_mut().resource_version.clone_from(&old.metadata().resource_version);
        if *old == object {
            return;
        }
    }
    tx.put(&mut object);
    T::changed(tx, old.as_ref(), Some(&object));
    done.written += 1;
}

fn delete<T: Served>(tx: &mut Tx<'_, '_>, namespace: &str, name: &str, done: &mut Reflected) {
    let Some(old) = tx.get::<T>(namespace, name).filter(|o| o.metadata().is_mirrored()) else { return };
    if T::KIND == Kind::Namespace {
        // What Kubernetes had in it goes by itself; what was written here went with it in Kubernetes too.
        write::empty(tx, name);
    }
    tx.delete(&mut old.clone());
    T::changed(tx, Some(&old), None);
    done.deleted += 1;
}

/// Mirrored objects that are not in `keep`.
fn strangers(tx: &Tx<'_, '_>, kind: Kind, keep: &HashSet<(String, String)>) -> Vec<Key> {
    let unknown = |k: &Key| !keep.contains(&(k.namespace.to_string(), k.name.to_string()));
    tx.labelled(kind, LABEL_SOURCE).into_iter().filter(unknown).collect()
}
