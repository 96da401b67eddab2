//! Ids of backends: 1 ≤ id < capacity, reused only after a rest, with a generation that counts an id's uses.

use std::collections::VecDeque;
use std::time::Duration;

use crate::extent::QUARANTINE;

/// Allocator of backend ids. Id 0 is never used.
#[derive(Debug)]
pub struct Ids {
    capacity: u32,
    /// First id that has never been used.
    fresh: u32,
    free: Vec<u32>,
    resting: VecDeque<(Duration, u32)>,
    /// By id: how many uses it has had. Kept over restarts by the map itself.
    generations: Vec<u32>,
    used: u32,
}

impl Ids {
    pub fn new(capacity: u32) -> Self {
        Self { capacity, fresh: 1, free: Vec::new(), resting: VecDeque::new(), generations: vec![0], used: 0 }
    }

    /// Takes up what a map held: for ids 1.., the generation and whether the id is in use.
    pub fn adopt(capacity: u32, held: impl Iterator<Item = (u32, bool)>) -> Self {
        let mut ids = Self::new(capacity);
        for (generation, in_use) in held.take(capacity.saturating_sub(1) as usize) {
            let id = ids.fresh;
            ids.fresh += 1;
            ids.generations.push(generation);
            if in_use {
                ids.used += 1;
            } else {
                ids.free.push(id);
            }
        }
        ids
    }

    /// Ids there can be.
    pub fn capacity(&self) -> u32 {
        self.capacity.saturating_sub(1)
    }

    pub fn used(&self) -> u32 {
        self.used
    }

    /// Freed ids that rest.
    pub fn resting(&self) -> u32 {
        self.resting.len() as u32
    }

    /// A free id and the generation of its new use.
    pub fn allocate(&mut self, now: Duration) -> Option<(u32, u32)> {
        while let Some(&(at, id)) = self.resting.front()
            && at <= now
        {
            self.resting.pop_front();
            self.free.push(id);
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.fresh < self.capacity => {
                self.fresh += 1;
                self.generations.push(0);
                self.fresh - 1
            }
            None => return None,
        };
        self.used += 1;
        let generation = &mut self.generations[id as usize];
        *generation = generation.wrapping_add(1);
        Some((id, *generation))
    }

    /// Gives back an id that programs may have seen.
    pub fn release(&mut self, id: u32, now: Duration) {
        self.used -= 1;
        self.resting.push_back((now + QUARANTINE, id));
    }

    /// Gives back an id that no program has seen.
    pub fn give_back(&mut self, id: u32) {
        self.used -= 1;
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rest_and_count_their_uses() {
        let mut ids = Ids::new(3);
        assert_eq!(ids.allocate(Duration::ZERO), Some((1, 1)));
        assert_eq!(ids.allocate(Duration::ZERO), Some((2, 1)));
        assert_eq!(ids.allocate(Duration::ZERO), None);
        ids.release(1, Duration::ZERO);
        assert_eq!(ids.allocate(Duration::ZERO), None);
        assert_eq!(ids.allocate(QUARANTINE), Some((1, 2)));
    }

    #[test]
    fn adopted_ids_keep_their_generation() {
        let mut ids = Ids::adopt(8, [(4, true), (7, false), (1, true)].into_iter());
        assert_eq!(ids.used(), 2);
        assert_eq!(ids.allocate(Duration::ZERO), Some((2, 8)));
        assert_eq!(ids.allocate(Duration::ZERO), Some((4, 1)));
    }
}
