use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use eastwest_model::Revision;
use tokio::sync::watch;

use crate::overlay::Overlay;
use crate::store::Shared;
use crate::{Key, Object};

/// Most events kept for watchers that come back.
pub const WINDOW_EVENTS: usize = 65_536;
/// Most JSON kept for the same purpose, bytes; the last event is kept whatever its size.
pub const WINDOW_BYTES: usize = 128 << 20;

/// One write. There is exactly one for each revision.
#[derive(Debug)]
pub struct Event {
    pub revision: Revision,
    pub key: Key,
    /// As it was before; `None` when the object was created by this write.
    pub previous: Option<Arc<Object>>,
    /// As it is now; for a deletion, as it last was, with the deletion's `resourceVersion`.
    pub object: Arc<Object>,
    pub deleted: bool,
}

impl Event {
    fn size(&self) -> usize {
        self.object.json.len() + self.previous.as_ref().map_or(0, |p| p.json.len()) + 256
    }
}

/// The revision asked for is no longer (or not yet) in the history: list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is not in the history, which reaches from {oldest} to {head}")]
pub struct Gone {
    pub asked: Revision,
    /// The oldest revision that can still be followed.
    pub oldest: Revision,
    pub head: Revision,
}

/// The newest events, one for each revision without a gap.
#[derive(Debug, Default)]
pub(crate) struct Window {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
    head: Revision,
}

impl Window {
    pub(crate) fn new(head: Revision, max_events: usize, max_bytes: usize) -> Self {
        Self { head, max_events: max_events.max(1), max_bytes, ..Self::default() }
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.head = event.revision;
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > self.max_events || (self.bytes > self.max_bytes && self.events.len() > 1) {
            let Some(old) = self.events.pop_front() else { break };
            self.bytes -= old.size();
        }
    }

    /// The state at the oldest revision can be followed from there on.
    pub(crate) fn oldest(&self) -> Revision {
        self.events.front().map_or(self.head, |e| Revision(e.revision.0 - 1))
    }

    fn check(&self, asked: Revision) -> Result<(), Gone> {
        let oldest = self.oldest();
        if asked < oldest || asked > self.head {
            return Err(Gone { asked, oldest, head: self.head });
        }
        Ok(())
    }

    /// At most `max` events after `revision`.
    fn after(&self, revision: Revision, max: usize) -> Result<Vec<Arc<Event>>, Gone> {
        self.check(revision)?;
        let skip = (revision.0 - self.oldest().0) as usize;
        Ok(self.events.iter().skip(skip).take(max).cloned().collect())
    }

    /// What to lay over the newest state to get the state at `revision`.
    pub(crate) fn undo(&self, revision: Revision) -> Result<Overlay, Gone> {
        self.check(revision)?;
        let mut overlay: Overlay = BTreeMap::new();
        for event in self.events.iter().rev().take_while(|e| e.revision > revision) {
            overlay.insert(event.key.clone(), event.previous.clone());
        }
        Ok(overlay)
    }
}

/// Follows the events after a revision. It holds no events itself: one that is slow costs nothing but is told
/// [`Gone`] when the window has passed it.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    position: Revision,
    head: watch::Receiver<Revision>,
}

impl Watcher {
    pub(crate) fn new(shared: Arc<Shared>, after: Revision) -> Result<Self, Gone> {
        shared.read().window.check(after)?;
        let head = shared.head.subscribe();
        shared.watchers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Self { shared, position: after, head })
    }

    /// The revision up to which this watcher has been given events.
    pub fn position(&self) -> Revision {
        self.position
    }

    /// The next events, 1 to `max`, as soon as there is one. Waits for ever on a store that is not written to; safe to
    /// drop while it waits.
    pub async fn next(&mut self, max: usize) -> Result<Vec<Arc<Event>>, Gone> {
        loop {
            self.head.borrow_and_update();
            let events = self.shared.read().window.after(self.position, max.max(1))?;
            if let Some(last) = events.last() {
                self.position = last.revision;
                return Ok(events);
            }
            if self.head.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.watchers.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
