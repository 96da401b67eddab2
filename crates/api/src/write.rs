//! Create, update and delete, as Kubernetes' generic registry does them. Each first decides everything that can fail,
//! then writes.

use std::sync::Arc;

use eastwest_model::{FieldError, Kind, LABEL_SOURCE, Namespace, ObjectMeta, Resource};
use eastwest_store::Object;

use crate::ApiError;
use crate::kinds::{NAMESPACED, Served, with_kind};
use crate::transaction::{Refused, Tx, born, encode};

/// Namespaces that always exist.
pub const SYSTEM_NAMESPACES: [&str; 2] = ["default", "kube-system"];

/// The result of a write: an object's JSON as it is now.
#[derive(Clone, Debug)]
pub struct Written {
    pub object: Arc<Object>,
    pub created: bool,
}

type Outcome = Result<Written, Refused<Written>>;

fn dry<T: Served>(object: &T, created: bool) -> Refused<Written> {
    let meta = object.metadata();
    let key = eastwest_store::Key::new(T::KIND, &meta.namespace, &meta.name);
    let object =
        Object { key, revision: Default::default(), json: encode(object), labels: meta.labels.clone() };
    Refused::DryRun(Written { object: Arc::new(object), created })
}

/// The object's namespace is the path's, and exists where it must.
fn check_namespace<T: Served>(tx: &Tx<'_, '_>, object: &T, creating: bool) -> Result<(), ApiError> {
    if !T::KIND.namespaced() || !creating {
        return Ok(());
    }
    let name = &object.metadata().namespace;
    let Some(namespace) = tx.get::<Namespace>("", name) else {
        return Err(ApiError::not_found(Kind::Namespace, name));
    };
    if namespace.metadata.deletion_timestamp.is_some() {
        let message = format!(
            "{} {:?} is forbidden: unable to create new content in namespace {name} because it is being terminated",
            T::KIND.plural(),
            object.metadata().name
        );
        return Err(ApiError::forbidden(message).cause(
            "NamespaceTerminating",
            "metadata.namespace",
            "is terminating",
        ));
    }
    Ok(())
}

/// What is mirrored from elsewhere is changed there and not here, and nothing of ours may look like it.
fn check_source(
    tx: &Tx<'_, '_>,
    new: &ObjectMeta,
    old: Option<&ObjectMeta>,
    kind: Kind,
) -> Result<(), ApiError> {
    if let Some(old) = old {
        not_mirrored(old, kind)?;
    } else if tx.config.read_only && kind != Kind::NodeState {
        let message = format!(
            "{} {:?} is forbidden: this controller takes its objects from Kubernetes; create it there",
            kind.plural(),
            new.name
        );
        return Err(ApiError::forbidden(message));
    }
    if new.is_mirrored() {
        let field = format!("metadata.labels[{LABEL_SOURCE}]");
        let error = FieldError::forbidden(&field, "is set by the controller, on objects that it mirrors");
        return Err(ApiError::invalid(kind, &new.name, &[error]));
    }
    Ok(())
}

/// Refuses to write to a mirrored object.
fn not_mirrored(old: &ObjectMeta, kind: Kind) -> Result<(), ApiError> {
    if old.is_mirrored() {
        let why = "the object is mirrored from Kubernetes and read-only here; write to it there";
        return Err(ApiError::conflict(kind, &old.name, why));
    }
    Ok(())
}

/// Makes the object's metadata fit the path it was sent to. `name` is the path's, if it has one.
pub fn fit_to_path<T: Resource>(object: &mut T, namespace: &str, name: Option<&str>) -> Result<(), ApiError> {
    let meta = object.metadata_mut();
    if T::KIND.namespaced() {
        if meta.namespace.is_empty() {
            meta.namespace = namespace.to_owned();
        } else if meta.namespace != namespace {
            let message = format!(
                "the namespace of the provided object does not match the namespace sent on the request: {:?} and {namespace:?}",
                meta.namespace
            );
            return Err(ApiError::bad_request(message).cause(
                "FieldValueInvalid",
                "metadata.namespace",
                "differs",
            ));
        }
    } else {
        // Kubernetes refuses it; an empty answer to a harmless mistake serves nobody.
        meta.namespace.clear();
    }
    match name {
        Some(name) if meta.name.is_empty() => meta.name = name.to_owned(),
        Some(name) if meta.name != name => {
            let message =
                format!("the name of the object ({}) does not match the name on the URL ({name})", meta.name);
            return Err(ApiError::bad_request(message).cause(
                "FieldValueInvalid",
                "metadata.name",
                "differs",
            ));
        }
        _ => {}
    }
    Ok(())
}

pub fn create<T: Served>(tx: &mut Tx<'_, '_>, mut object: T, dry_run: bool) -> Outcome {
    let generated = object.metadata().name.is_empty() && !object.metadata().generate_name.is_empty();
    if generated {
        let meta = object.metadata();
        let name = tx.free_name(T::KIND, &meta.namespace, &meta.generate_name);
        object.metadata_mut().name = name;
    }
    if !object.metadata().resource_version.is_empty() {
        return Err(
            ApiError::bad_request("resourceVersion should not be set on objects to be created").into()
        );
    }
    check_source(tx, object.metadata(), None, T::KIND)?;
    check_namespace(tx, &object, true)?;
    if tx.get::<T>(&object.metadata().namespace, &object.metadata().name).is_some() {
        return Err(ApiError::already_exists(T::KIND, &object.metadata().name).into());
    }
    born(object.metadata_mut());
    if !T::STATUS_IN_MAIN {
        object.copy_status(&blank::<T>()?);
    }
    complete(tx, &mut object, None)?;
    if dry_run {
        return Err(dry(&object, true));
    }
    let stored = tx.put(&mut object);
    T::changed(tx, None, Some(&object));
    Ok(Written { object: stored, created: true })
}

/// An object of the kind with nothing in it.
fn blank<T: Resource>() -> Result<T, ApiError> {
    serde_json::from_str("{}").map_err(ApiError::internal)
}

/// Defaults, allocation and validation.
fn complete<T: Served>(tx: &Tx<'_, '_>, object: &mut T, old: Option<&T>) -> Result<(), ApiError> {
    object.default_fields();
    let name = object.metadata().name.clone();
    let refuse = |errors: &[FieldError]| ApiError::invalid(T::KIND, &name, errors);
    // What is wrong by itself is said first: the server's own choices would only add confusion.
    let errors = object.validate();
    if !errors.is_empty() && old.is_none() {
        return Err(refuse(&errors));
    }
    object.admit(old, tx.derived, tx.config).map_err(|e| refuse(&e))?;
    let mut errors = object.validate();
    if let Some(old) = old {
        errors.extend(object.validate_update(old));
    }
    if errors.is_empty() { Ok(()) } else { Err(refuse(&errors)) }
}

/// How an update is meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Update {
    /// Only `status` and metadata.
    pub status: bool,
    pub dry_run: bool,
    /// Create the object when it is not there.
    pub or_create: bool,
}

/// Replaces an object by what `change` makes of it (`None`: there is none yet, asked only with `or_create`).
pub fn update<T: Served>(
    tx: &mut Tx<'_, '_>,
    namespace: &str,
    name: &str,
    how: Update,
    change: impl FnOnce(Option<&T>) -> Result<T, ApiError>,
) -> Outcome {
    let Some(old) = tx.get::<T>(namespace, name) else {
        if !how.or_create {
            return Err(ApiError::not_found(T::KIND, name).into());
        }
        let mut object = change(None)?;
        fit_to_path(&mut object, namespace, Some(name))?;
        object.metadata_mut().resource_version.clear();
        return create(tx, object, how.dry_run);
    };
    let mut object = change(Some(&old))?;
    fit_to_path(&mut object, namespace, Some(name))?;
    check_source(tx, object.metadata(), Some(old.metadata()), T::KIND)?;
    let (meta, was) = (object.metadata_mut(), old.metadata());
    if !meta.resource_version.is_empty() && meta.resource_version != was.resource_version {
        return Err(ApiError::modified(T::KIND, name).into());
    }
    if !meta.uid.is_empty() && meta.uid != was.uid {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            meta.uid, was.uid
        );
        return Err(ApiError::conflict(T::KIND, name, &why).into());
    }
    meta.resource_version.clone_from(&was.resource_version);
    meta.uid.clone_from(&was.uid);
    meta.creation_timestamp.clone_from(&was.creation_timestamp);
    meta.deletion_timestamp.clone_from(&was.deletion_timestamp);
    meta.deletion_grace_period_seconds = was.deletion_grace_period_seconds;
    meta.generate_name.clone_from(&was.generate_name);
    meta.generation = was.generation;
    meta.self_link.clear();
    if meta.managed_fields.is_empty() {
        meta.managed_fields.clone_from(&was.managed_fields);
    }
    if how.status {
        object.copy_spec(&old);
    } else if !T::STATUS_IN_MAIN || object.status_is_default() {
        object.copy_status(&old);
    }
    complete(tx, &mut object, Some(&old))?;
    let unchanged = object == old;
    if !object.same_spec(&old) {
        object.metadata_mut().generation += 1;
    }
    let last_finalizer =
        object.metadata().deletion_timestamp.is_some() && object.metadata().finalizers.is_empty();
    if how.dry_run {
        return Err(dry(&object, false));
    }
    if last_finalizer {
        return Ok(Written { object: erase(tx, object)?, created: false });
    }
    if unchanged {
        let key = eastwest_store::Key::new(T::KIND, namespace, name);
        let object = tx.object(&key).ok_or_else(|| ApiError::not_found(T::KIND, name))?;
        return Ok(Written { object, created: false });
    }
    let stored = tx.put(&mut object);
    T::changed(tx, Some(&old), Some(&object));
    Ok(Written { object: stored, created: false })
}

/// What must hold for a deletion, from `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What a deletion came to.
#[derive(Clone, Debug)]
pub struct Deleted {
    pub object: Arc<Object>,
    pub uid: String,
    /// Finalizers hold it: it is marked, and goes when the last of them is taken away.
    pub marked: bool,
}

pub fn delete<T: Served>(
    tx: &mut Tx<'_, '_>,
    namespace: &str,
    name: &str,
    preconditions: &Preconditions,
    dry_run: bool,
) -> Result<Deleted, Refused<Deleted>> {
    let object = tx.get::<T>(namespace, name).ok_or_else(|| ApiError::not_found(T::KIND, name))?;
    let meta = object.metadata();
    not_mirrored(meta, T::KIND)?;
    for (what, asked, actual) in [
        ("UID", &preconditions.uid, &meta.uid),
        ("ResourceVersion", &preconditions.resource_version, &meta.resource_version),
    ] {
        if asked.as_ref().is_some_and(|a| a != actual) {
            let asked = asked.clone().unwrap_or_default();
            let why = format!(
                "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {actual}"
            );
            return Err(ApiError::conflict(T::KIND, name, &why).into());
        }
    }
    if T::KIND == Kind::Namespace && SYSTEM_NAMESPACES.contains(&name) {
        let message = format!("namespaces {name:?} is forbidden: this namespace may not be deleted");
        return Err(ApiError::forbidden(message).into());
    }
    let uid = meta.uid.clone();
    if dry_run {
        let object = tx
            .object(&eastwest_store::Key::new(T::KIND, namespace, name))
            .ok_or_else(|| ApiError::not_found(T::KIND, name))?;
        return Err(Refused::DryRun(Deleted { object, uid, marked: false }));
    }
    if T::KIND == Kind::Namespace {
        empty(tx, name);
        if NAMESPACED.iter().any(|k| tx.any(*k, name)) {
            return Ok(Deleted { object: terminate(tx, object), uid, marked: true });
        }
    }
    if !meta.finalizers.is_empty() {
        return Ok(Deleted { object: mark(tx, object), uid, marked: true });
    }
    Ok(Deleted { object: erase(tx, object)?, uid, marked: false })
}

/// Sets the time of deletion, once.
fn mark<T: Served>(tx: &mut Tx<'_, '_>, old: T) -> Arc<Object> {
    let mut object = old.clone();
    let meta = object.metadata_mut();
    meta.deletion_timestamp.get_or_insert_with(crate::transaction::now);
    meta.deletion_grace_period_seconds = Some(0);
    let stored = tx.put(&mut object);
    T::changed(tx, Some(&old), Some(&object));
    stored
}

/// A namespace whose content is held by finalizers.
fn terminate<T: Served>(tx: &mut Tx<'_, '_>, old: T) -> Arc<Object> {
    let stored = mark(tx, old);
    let Some(mut namespace) = tx.get::<Namespace>("", &stored.key.name) else { return stored };
    namespace.status.phase = "Terminating".into();
    tx.put(&mut namespace)
}

fn erase<T: Served>(tx: &mut Tx<'_, '_>, object: T) -> Result<Arc<Object>, ApiError> {
    let mut last = object.clone();
    let name = object.metadata().name.clone();
    let stored = tx.delete(&mut last).ok_or_else(|| ApiError::not_found(T::KIND, &name))?;
    T::changed(tx, Some(&object), None);
    let namespace = &object.metadata().namespace;
    if !namespace.is_empty()
        && let Some(mut ns) = tx.get::<Namespace>("", namespace)
        && ns.metadata.deletion_timestamp.is_some()
        && ns.metadata.finalizers.is_empty()
        && !NAMESPACED.iter().any(|k| tx.any(*k, namespace))
    {
        tx.delete(&mut ns);
    }
    Ok(stored)
}

/// Deletes what is in a namespace, save what is mirrored; what finalizers hold is marked.
pub fn empty(tx: &mut Tx<'_, '_>, namespace: &str) {
    for kind in NAMESPACED {
        for key in tx.keys(kind, Some(namespace)) {
            with_kind!(kind, T => {
                // It may have gone with another, as slices go with their Service.
                let Some(object) = tx.get::<T>(namespace, &key.name) else { continue };
                if object.metadata().is_mirrored() {
                    continue;
                }
                if object.metadata().finalizers.is_empty() {
                    let mut last = object.clone();
                    tx.delete(&mut last);
                    T::changed(tx, Some(&object), None);
                } else {
                    mark(tx, object);
                }
            });
        }
    }
}
