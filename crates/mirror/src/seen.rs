//! An object as `kube` hands it on: its identity, and what became of the rest. Decoding it never fails, so that one
//! object which is not one of its kind takes no list or watch down with it.

use std::borrow::Cow;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::convert::FromKubernetes;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T> {
    meta: ObjectMeta,
    /// `None`: nothing is mirrored of it.
    pub(crate) object: Result<Option<T>, String>,
}

impl<T> Seen<T> {
    /// Namespace (empty for kinds without) and name.
    pub(crate) fn id(&self) -> (String, String) {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        (text(&self.meta.namespace), text(&self.meta.name))
    }

    /// As a number, which it is in every API server (KEP-5504 makes it a promise).
    pub(crate) fn revision(&self) -> Option<u64> {
        self.meta.resource_version.as_deref()?.parse().ok()
    }
}

impl<'de, T: FromKubernetes> Deserialize<'de> for Seen<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut json = Value::deserialize(deserializer)?;
        let text = |json: &Value, field: &str| json["metadata"][field].as_str().map(str::to_owned);
        let meta = ObjectMeta {
            name: text(&json, "name"),
            namespace: text(&json, "namespace"),
            resource_version: text(&json, "resourceVersion"),
            uid: text(&json, "uid"),
            ..ObjectMeta::default()
        };
        if let Some(fields) = json.as_object_mut() {
            // Items of a list come without.
            let version = match T::GROUP {
                "" => T::VERSION.to_owned(),
                group => format!("{group}/{}", T::VERSION),
            };
            fields.insert("apiVersion".into(), version.into());
            fields.insert("kind".into(), T::KUBERNETES_KIND.into());
        }
        let object = match &meta.name {
            Some(name) if !name.is_empty() => T::convert(json),
            _ => Err("it has no name".to_owned()),
        };
        Ok(Self { meta, object })
    }
}

/// So that `kube` finds the path; `T` itself is of our own model.
impl<T: FromKubernetes> Resource for Seen<T> {
    type DynamicType = PhantomData<T>;
    type Scope = DynamicResourceScope;

    fn kind(_: &PhantomData<T>) -> Cow<'_, str> {
        T::KUBERNETES_KIND.into()
    }
    fn group(_: &PhantomData<T>) -> Cow<'_, str> {
        T::GROUP.into()
    }
    fn version(_: &PhantomData<T>) -> Cow<'_, str> {
        T::VERSION.into()
    }
    fn plural(_: &PhantomData<T>) -> Cow<'_, str> {
        T::PLURAL.into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
