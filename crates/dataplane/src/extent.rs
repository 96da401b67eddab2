//! Extents of a flat array: allocation, return, coalescing, and a quarantine for what was in use.
//!
//! A program that read `(offset, count)` of a frontend just before it was switched may still read those slots. So an
//! extent that was visible to programs is not handed out again before [`QUARANTINE`] has passed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long a freed extent or backend id rests. A program runs for microseconds; this is generous on purpose.
pub const QUARANTINE: Duration = Duration::from_secs(1);

/// A run of slots. `len` is never 0 for an allocated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    pub offset: u32,
    pub len: u32,
}

impl Extent {
    fn end(self) -> u32 {
        self.offset + self.len
    }
}

/// Allocator over `0..capacity`: best fit, O(log n) in the number of free runs.
#[derive(Debug)]
pub struct Extents {
    capacity: u32,
    by_offset: BTreeMap<u32, u32>,
    by_size: BTreeSet<(u32, u32)>,
    resting: VecDeque<(Duration, Extent)>,
    resting_slots: u32,
    used: u32,
}

impl Extents {
    pub fn new(capacity: u32) -> Self {
        let mut extents = Self {
            capacity,
            by_offset: BTreeMap::new(),
            by_size: BTreeSet::new(),
            resting: VecDeque::new(),
            resting_slots: 0,
            used: 0,
        };
        if capacity > 0 {
            extents.insert_free(Extent { offset: 0, len: capacity });
        }
        extents
    }

    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Slots handed out.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Slots that rest before they can be handed out again.
    pub fn resting(&self) -> u32 {
        self.resting_slots
    }

    /// A run of `len` slots, `len` > 0, or `None` when no free run is long enough now.
    pub fn allocate(&mut self, len: u32, now: Duration) -> Option<Extent> {
        self.wake(now);
        let &(size, offset) = self.by_size.range((len, 0)..).next()?;
        self.remove_free(Extent { offset, len: size });
        if size > len {
            self.insert_free(Extent { offset: offset + len, len: size - len });
        }
        self.used += len;
        Some(Extent { offset, len })
    }

    /// Takes exactly this extent, as adopted maps hold it. False when any slot of it is outside or taken.
    pub fn reserve(&mut self, extent: Extent) -> bool {
        let Some(end) = extent.offset.checked_add(extent.len) else { return false };
        let Some((&offset, &len)) = self.by_offset.range(..=extent.offset).next_back() else { return false };
        let free = Extent { offset, len };
        if extent.len == 0 || end > free.end() {
            return false;
        }
        self.remove_free(free);
        if offset < extent.offset {
            self.insert_free(Extent { offset, len: extent.offset - offset });
        }
        if end < free.end() {
            self.insert_free(Extent { offset: end, len: free.end() - end });
        }
        self.used += extent.len;
        true
    }

    /// Gives back an extent that programs may still be reading.
    pub fn release(&mut self, extent: Extent, now: Duration) {
        self.used -= extent.len;
        self.resting_slots += extent.len;
        self.resting.push_back((now + QUARANTINE, extent));
    }

    /// Gives back an extent that no program has ever seen.
    pub fn give_back(&mut self, extent: Extent) {
        self.used -= extent.len;
        self.insert_free(extent);
    }

    fn wake(&mut self, now: Duration) {
        while let Some(&(at, extent)) = self.resting.front() {
            if at > now {
                break;
            }
            self.resting.pop_front();
            self.resting_slots -= extent.len;
            self.insert_free(extent);
        }
    }

    fn insert_free(&mut self, mut extent: Extent) {
        if let Some((&offset, &len)) = self.by_offset.range(..extent.offset).next_back()
            && offset + len == extent.offset
        {
            self.remove_free(Extent { offset, len });
            extent = Extent { offset, len: len + extent.len };
        }
        if let Some(&len) = self.by_offset.get(&extent.end()) {
            self.remove_free(Extent { offset: extent.end(), len });
            extent.len += len;
        }
        self.by_offset.insert(extent.offset, extent.len);
        self.by_size.insert((extent.len, extent.offset));
    }

    fn remove_free(&mut self, extent: Extent) {
        self.by_offset.remove(&extent.offset);
        self.by_size.remove(&(extent.len, extent.offset));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Allocate(u32),
        Release(usize),
        GiveBack(usize),
        Reserve(u32, u32),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u32..20).prop_map(Step::Allocate),
            any::<usize>().prop_map(Step::Release),
            any::<usize>().prop_map(Step::GiveBack),
            (0u32..130, 0u32..20).prop_map(|(offset, len)| Step::Reserve(offset, len)),
            (0u64..1500).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// No two live extents overlap, a resting one is not handed out, and nothing is lost.
        #[test]
        fn never_overlaps_never_leaks(steps in prop::collection::vec(step(), 1..200)) {
            const CAPACITY: u32 = 128;
            let mut extents = Extents::new(CAPACITY);
            let mut now = Duration::ZERO;
            let mut live: Vec<Extent> = Vec::new();
            let mut resting: Vec<(Duration, Extent)> = Vec::new();
            let overlaps = |a: Extent, b: Extent| a.offset < b.end() && b.offset < a.end();
            for step in steps {
                match step {
                    Step::Allocate(len) => if let Some(got) = extents.allocate(len, now) {
                        prop_assert_eq!(got.len, len);
                        prop_assert!(got.end() <= CAPACITY);
                        prop_assert!(!live.iter().any(|&other| overlaps(other, got)));
                        prop_assert!(!resting.iter().any(|&(at, other)| at > now && overlaps(other, got)));
                        live.push(got);
                    },
                    Step::Release(at) if !live.is_empty() => {
                        let extent = live.swap_remove(at % live.len());
                        extents.release(extent, now);
                        resting.push((now + QUARANTINE, extent));
                    }
                    Step::GiveBack(at) if !live.is_empty() => {
                        let extent = live.swap_remove(at % live.len());
                        extents.give_back(extent);
                    }
                    Step::Reserve(offset, len) => {
                        let wanted = Extent { offset, len };
                        if extents.reserve(wanted) {
                            prop_assert!(len > 0 && wanted.end() <= CAPACITY);
                            prop_assert!(!live.iter().any(|&other| overlaps(other, wanted)));
                            live.push(wanted);
                        }
                    }
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    _ => {}
                }
                prop_assert_eq!(extents.used(), live.iter().map(|extent| extent.len).sum::<u32>());
            }
            for extent in live.drain(..) {
                extents.release(extent, now);
            }
            // All returned and rested: one run of everything again.
            let all = extents.allocate(CAPACITY, now + QUARANTINE);
            prop_assert_eq!(all, Some(Extent { offset: 0, len: CAPACITY }));
        }
    }

    #[test]
    fn a_freed_extent_rests() {
        let mut extents = Extents::new(4);
        let extent = extents.allocate(4, Duration::ZERO).expect("all free");
        extents.release(extent, Duration::ZERO);
        assert_eq!(extents.allocate(1, QUARANTINE - Duration::from_millis(1)), None);
        assert!(extents.allocate(4, QUARANTINE).is_some());
    }
}
