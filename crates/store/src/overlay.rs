use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use eastwest_model::{Kind, Revision};

use crate::{Key, Object};

pub(crate) type Objects = BTreeMap<Key, Arc<Object>>;
/// Differences from an [`Objects`]; `None`: not there.
pub(crate) type Overlay = BTreeMap<Key, Option<Arc<Object>>>;

/// All objects at one revision.
pub struct View<'a> {
    base: &'a Objects,
    overlay: &'a Overlay,
    revision: Revision,
}

impl<'a> View<'a> {
    pub(crate) fn new(base: &'a Objects, overlay: &'a Overlay, revision: Revision) -> Self {
        Self { base, overlay, revision }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &Key) -> Option<&'a Arc<Object>> {
        match self.overlay.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.base.get(key),
        }
    }

    /// Objects of a kind in key order: of one namespace or (`None`) of all, after `after` when given.
    pub fn range(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let first = Key::new(kind, namespace.unwrap_or_default(), "");
        let start = match after {
            Some(after) if *after >= first => Bound::Excluded(after.clone()),
            _ => Bound::Included(first),
        };
        let bounds = (start, Bound::Unbounded);
        let namespace: Option<Arc<str>> = namespace.map(Arc::from);
        let within = move |k: &Key| k.kind == kind && namespace.as_ref().is_none_or(|ns| *ns == k.namespace);
        Merge {
            base: self.base.range(bounds.clone()).peekable(),
            overlay: self.overlay.range(bounds).peekable(),
        }
        .take_while(move |(k, _)| within(k))
        .filter_map(|(_, o)| o)
    }
}

/// Both maps in key order; where both have a key, the overlay's word counts.
struct Merge<B: Iterator, O: Iterator> {
    base: std::iter::Peekable<B>,
    overlay: std::iter::Peekable<O>,
}

impl<'a, B, O> Iterator for Merge<B, O>
where
    B: Iterator<Item = (&'a Key, &'a Arc<Object>)>,
    O: Iterator<Item = (&'a Key, &'a Option<Arc<Object>>)>,
{
    type Item = (&'a Key, Option<&'a Arc<Object>>);

    fn next(&mut self) -> Option<Self::Item> {
        let overlay_first = match (self.base.peek(), self.overlay.peek()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some((b, _)), Some((o, _))) => {
                if b == o {
                    self.base.next();
                    true
                } else {
                    o < b
                }
            }
        };
        if overlay_first {
            self.overlay.next().map(|(k, o)| (k, o.as_ref()))
        } else {
            self.base.next().map(|(k, o)| (k, Some(o)))
        }
    }
}
