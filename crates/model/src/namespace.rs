use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{FieldError, ObjectMeta, validate};

/// A scope for names. Deleting it deletes what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: NamespaceSpec,
    pub status: NamespaceStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceStatus {
    /// `Active` or `Terminating`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
}

impl Namespace {
    pub(crate) fn default_fields(&mut self) {
        if self.status.phase.is_empty() {
            self.status.phase = "Active".into();
        }
        self.metadata.labels.insert("kubernetes.io/metadata.name".into(), self.metadata.name.clone());
    }

    pub(crate) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::dns_label(&mut errors, "metadata.name", &self.metadata.name);
        validate::metadata(&mut errors, &self.metadata);
        errors
    }

    pub(crate) fn validate_update(&self, _old: &Self) -> Vec<FieldError> {
        Vec::new()
    }
}
