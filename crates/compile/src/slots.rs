//! Slot tables: how often, and where, each backend stands in the array that the kernel picks from.
//!
//! The kernel knows no weights. It takes a slot by chance ([`weighted`]), or by a hash of the flow ([`maglev`]), which
//! gives the same backend on every node that has the same backends.

use std::net::IpAddr;

use crate::Backend;

/// Most slots of a table for each backend, and of a small table; bounds what unequal weights cost.
const SLOTS_EACH: usize = 8;
const SLOTS_MIN: usize = 2048;

/// Sizes of Maglev tables: primes, each about twice the one before.
const PRIMES: [usize; 10] = [127, 251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];
/// Slots for each backend that keep shares within about 1 % of each other (Maglev paper, §5.3).
const MAGLEV_EACH: usize = 100;

/// Slots for a pick by chance: indices into `backends`, each as often as its weight wants. Equal weights take one slot
/// each. Weights of 0 take none; the table is empty when no backend takes any.
///
/// A backend's part of the table is within 1 % of its part of the weights (relative to the latter where the table may be
/// large enough, else to the whole), and never 0. A pick by chance has no memory, so it does not matter where in the
/// table a backend stands.
pub fn weighted(backends: &[Backend]) -> Vec<u32> {
    let weights: Vec<u64> = backends.iter().map(|b| u64::from(b.weight)).collect();
    let counts = counts(&weights, SLOTS_MIN.max(backends.len() * SLOTS_EACH));
    let mut table = Vec::with_capacity(counts.iter().sum());
    for (index, count) in (0u32..).zip(counts) {
        table.extend(std::iter::repeat_n(index, count));
    }
    table
}

/// How often each weight stands in the smallest table that is true to within 1 %, or in one of about `most` slots.
fn counts(weights: &[u64], most: usize) -> Vec<usize> {
    let total: u64 = weights.iter().sum();
    let Some(smallest) = weights.iter().copied().filter(|w| *w > 0).min() else {
        return vec![0; weights.len()];
    };
    // With the smallest weight at `n` slots the others have `w * n / smallest`, rounded.
    let at = |n: u64| -> Vec<usize> {
        let count = |w: &u64| ((w * n * 2 + smallest) / (smallest * 2)) as usize;
        weights.iter().map(count).collect()
    };
    let close = |counts: &[usize]| {
        let sum: usize = counts.iter().sum();
        weights.iter().zip(counts).all(|(w, c)| {
            // |c / sum - w / total| <= w / total / 100
            let (c, w) = (*c as i128 * i128::from(total), i128::from(*w) * sum as i128);
            (c - w).abs() * 100 <= w
        })
    };
    let mut n = 1;
    while total.div_ceil(smallest).saturating_mul(n) <= most as u64 {
        let counts = at(n);
        if close(&counts) {
            return counts;
        }
        n += 1;
    }
    // The weights are too far apart, or too many: each has what it can have of `most`, and at least one.
    let scaled = |w: &u64| match *w {
        0 => 0,
        w => ((u128::from(w) * most as u128 + u128::from(total) / 2) / u128::from(total)).max(1) as usize,
    };
    weights.iter().map(scaled).collect()
}

/// Slots for a pick by hash (Maglev, NSDI 2016, §3.4, with weights): indices into `backends`. It depends on their
/// addresses, ports and weights alone, not on their order, and a backend that comes or goes moves few slots of others.
/// One backend takes one slot; weights of 0 take none.
pub fn maglev(backends: &[Backend]) -> Vec<u32> {
    let mut order: Vec<u32> = (0u32..).zip(backends).filter(|(_, b)| b.weight > 0).map(|(i, _)| i).collect();
    let backend = |i: u32| &backends[i as usize];
    order.sort_unstable_by_key(|i| (backend(*i).addr, backend(*i).port));
    if order.len() < 2 {
        return order;
    }
    let size = PRIMES.into_iter().find(|p| *p >= order.len() * MAGLEV_EACH).unwrap_or(PRIMES[9]);
    let size = size as u64;
    let heaviest = order.iter().map(|i| u64::from(backend(*i).weight)).max().unwrap_or(1);
    struct Turn {
        index: u32,
        next: u64,
        skip: u64,
        weight: u64,
        /// Grows by the weight each round; a slot is taken whenever it reaches the heaviest weight.
        credit: u64,
    }
    let mut turns: Vec<Turn> = order
        .iter()
        .map(|i| {
            let b = backend(*i);
            let next = hash(b, 0x9e37_79b9_7f4a_7c15) % size;
            let skip = hash(b, 0xc2b2_ae3d_27d4_eb4f) % (size - 1) + 1;
            let weight = b.weight.into();
            // All take one in the first round: a small weight is not none.
            Turn { index: *i, next, skip, weight, credit: heaviest - weight }
        })
        .collect();
    let mut table = vec![u32::MAX; size as usize];
    let mut left = size;
    'full: loop {
        for turn in &mut turns {
            turn.credit += turn.weight;
            if turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            while table[turn.next as usize] != u32::MAX {
                turn.next = (turn.next + turn.skip) % size;
            }
            table[turn.next as usize] = turn.index;
            left -= 1;
            if left == 0 {
                break 'full;
            }
        }
    }
    table
}

/// The same on every node and in every version: FNV-1a over address and port, mixed (`splitmix64`'s finisher).
fn hash(backend: &Backend, seed: u64) -> u64 {
    let mut h = seed ^ 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            h = (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    match backend.addr {
        IpAddr::V4(ip) => add(&ip.octets()),
        IpAddr::V6(ip) => add(&ip.octets()),
    }
    add(&backend.port.to_be_bytes());
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}
