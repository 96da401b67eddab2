use std::sync::Arc;

use bytes::Bytes;
use eastwest_model::{Kind, Map, Revision};

/// Names one object. Ordered by kind, then namespace, then name: the order of lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    /// Empty for kinds without namespaces.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() {
            write!(f, "{}/{name}", kind.plural())
        } else {
            write!(f, "{}/{namespace}/{name}", kind.plural())
        }
    }
}

/// A stored object. The JSON already holds its own `resourceVersion`, so that reads, watches and agents get these bytes
/// as they are.
#[derive(Clone, Debug)]
pub struct Object {
    pub key: Key,
    pub revision: Revision,
    pub json: Bytes,
    /// `metadata.labels`, parsed once for selectors.
    pub labels: Map,
}

/// What of an object's JSON the store reads itself.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct HeadMeta {
    labels: Map,
}

/// The labels in an object's JSON; none when it has none.
pub(crate) fn labels_of(json: &[u8]) -> Result<Map, serde_json::Error> {
    serde_json::from_slice::<Head>(json).map(|h| h.metadata.labels)
}
