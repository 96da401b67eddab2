use std::collections::BTreeMap;
use std::time::Instant;

use eastwest_model::Kind;

/// How the mirror stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub kinds: BTreeMap<Kind, KindStatus>,
}

/// How the mirroring of one kind stands.
#[derive(Clone, Debug, Default)]
pub struct KindStatus {
    /// A full list has been taken over, at some time.
    pub synced: bool,
    /// Why it is not being followed now, and since when.
    pub problem: Option<(String, Instant)>,
    /// Objects that are left as they were, as they cannot be read: `namespace/name`, and why.
    pub unreadable: BTreeMap<String, String>,
    /// Objects left out, as one of our own API has their name.
    pub conflicts: Vec<String>,
}

impl Status {
    /// Whether each kind has been listed once.
    pub fn complete(&self) -> bool {
        crate::KINDS.iter().all(|k| self.kinds.get(k).is_some_and(|s| s.synced))
    }
}
