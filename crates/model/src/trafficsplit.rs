use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Condition, FieldError, Map, ObjectMeta, selects, validate};

/// How a Service's new connections are divided among groups of its endpoints, whatever the number in each group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficSplit {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: TrafficSplitSpec,
    pub status: TrafficSplitStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficSplitSpec {
    /// Name of the Service, in the same namespace. A Service has one TrafficSplit at most.
    pub service: String,
    /// Groups of endpoints; one that fits several belongs to the first, one that fits none gets nothing.
    pub backends: Vec<SplitBackend>,
}

/// A group of endpoints and its part of the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SplitBackend {
    pub selector: SplitSelector,
    /// Part of new connections, relative to the other groups': 0 to 1,000,000; 0 gets none. The part of a group without
    /// usable endpoints goes to the others.
    pub weight: u32,
}

/// Which pods or workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SplitSelector {
    /// All of these labels; none means all that no group before has.
    pub match_labels: Map,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficSplitStatus {
    /// `Accepted`: whether it takes effect, and why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Most groups of a split.
const BACKENDS_MAX: usize = 64;
const WEIGHT_MAX: u32 = 1_000_000;

impl SplitSelector {
    pub fn matches(&self, labels: &Map) -> bool {
        self.match_labels.is_empty() || selects(&self.match_labels, labels)
    }
}

impl TrafficSplit {
    /// Whether some group gets traffic; without, the split has no effect.
    pub fn has_weight(&self) -> bool {
        self.spec.backends.iter().any(|b| b.weight > 0)
    }

    pub(crate) fn default_fields(&mut self) {}

    pub(crate) fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate::dns_subdomain(&mut errors, "metadata.name", &self.metadata.name);
        validate::metadata(&mut errors, &self.metadata);
        validate::dns_label(&mut errors, "spec.service", &self.spec.service);
        let backends = &self.spec.backends;
        if backends.is_empty() {
            errors.push(FieldError::required("spec.backends", "1 to 64 groups"));
        }
        if backends.len() > BACKENDS_MAX {
            errors.push(FieldError::too_many("spec.backends", backends.len(), BACKENDS_MAX));
        }
        for (i, b) in backends.iter().enumerate() {
            for (key, value) in &b.selector.match_labels {
                let field = format!("spec.backends[{i}].selector.matchLabels");
                validate::label(&mut errors, &field, key, value);
            }
            if b.weight > WEIGHT_MAX {
                let field = format!("spec.backends[{i}].weight");
                errors.push(FieldError::invalid(&field, b.weight, "0 to 1000000"));
            }
        }
        errors
    }

    pub(crate) fn validate_update(&self, _old: &Self) -> Vec<FieldError> {
        Vec::new()
    }
}
