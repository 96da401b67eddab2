//! Slot tables over random backends: shares are true to the weights, and Maglev's are the same everywhere and steady.

use eastwest_compile::{Backend, slots};
use proptest::collection::{hash_set, vec};
use proptest::prelude::*;

fn backend(n: u16, weight: u32) -> Backend {
    let [a, b] = n.to_be_bytes();
    Backend { addr: std::net::Ipv4Addr::new(10, 244, a, b).into(), port: 8080, local: false, weight }
}

fn counts(table: &[u32], backends: usize) -> Vec<usize> {
    let mut counts = vec![0; backends];
    table.iter().for_each(|i| counts[*i as usize] += 1);
    counts
}

#[test]
fn a_table_by_weights() {
    for (name, weights, wanted) in [
        ("none", vec![], vec![]),
        ("equal", vec![1, 1, 1], vec![1, 1, 1]),
        ("equal, large", vec![1 << 30, 1 << 30], vec![1, 1]),
        ("ninety to ten", vec![90, 10], vec![9, 1]),
        ("ninety to ten over three and one", vec![30, 30, 30, 10], vec![3, 3, 3, 1]),
        ("none for one", vec![0, 5], vec![0, 1]),
        ("none for all", vec![0, 0], vec![0, 0]),
        ("a thousandth", vec![999, 1], vec![999, 1]),
        ("a billionth has one of the most there are", vec![1_000_000_000, 1], vec![2048, 1]),
    ] {
        let backends: Vec<_> = weights.iter().zip(1..).map(|(w, n)| backend(n, *w)).collect();
        assert_eq!(counts(&slots::weighted(&backends), backends.len()), wanted, "{name}");
    }
}

#[test]
fn maglev_shares_are_near() {
    for n in [2u16, 3, 10, 100, 500] {
        let backends: Vec<_> = (0..n).map(|i| backend(i, 1)).collect();
        let table = slots::maglev(&backends);
        let fair = table.len() as f64 / f64::from(n);
        for count in counts(&table, backends.len()) {
            assert!((count as f64 - fair).abs() <= (fair * 0.01).max(1.0), "{count} of {fair} with {n}");
        }
    }
    assert_eq!(slots::maglev(&[backend(1, 0)]), [0; 0]);
    assert_eq!(slots::maglev(&[backend(1, 0), backend(2, 7)]), [1]);
    let parts = counts(&slots::maglev(&[backend(1, 90), backend(2, 10)]), 2);
    assert!((20..=35).contains(&parts[1]), "{parts:?} of 251");
    // Many, and more slots than the largest table has for each.
    let many: Vec<_> = (0..5000).map(|i| backend(i, 1)).collect();
    assert!(counts(&slots::maglev(&many), 5000).iter().all(|c| (13..=14).contains(c)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn weights_are_kept_to_within_a_hundredth(weights in vec(0u32..100_000, 1..60)) {
        let backends: Vec<_> = weights.iter().zip(0..).map(|(w, n)| backend(n, *w)).collect();
        let table = slots::weighted(&backends);
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        prop_assert!(table.len() <= 2048 + weights.len());
        prop_assert_eq!(table.is_empty(), total == 0.0);
        for (weight, count) in weights.iter().zip(counts(&table, weights.len())) {
            prop_assert_eq!(*weight == 0, count == 0);
            if *weight > 0 {
                let (got, wanted) = (count as f64 / table.len() as f64, f64::from(*weight) / total);
                prop_assert!((got - wanted).abs() <= 0.01, "{} instead of {}", got, wanted);
            }
        }
    }

    #[test]
    fn maglev_does_not_depend_on_order(ids in hash_set(0u16..1000, 1..40), seed in any::<u64>()) {
        let backends: Vec<_> = ids.iter().map(|n| backend(*n, 1 + u32::from(*n % 3))).collect();
        let mut shuffled = backends.clone();
        shuffled.sort_by_key(|b| {
            let mut h = std::hash::DefaultHasher::new();
            std::hash::Hash::hash(&(b.addr, seed), &mut h);
            std::hash::Hasher::finish(&h)
        });
        let named = |list: &[Backend]| -> Vec<_> { slots::maglev(list).iter().map(|i| list[*i as usize].addr).collect() };
        prop_assert_eq!(named(&backends), named(&shuffled));
    }

    /// Beside the slots of the backend that goes, few change hands (the paper's figure 9: about a hundredth here; the
    /// bound is what no table of these sizes has been seen to reach).
    #[test]
    fn maglev_moves_little(ids in hash_set(0u16..1000, 3..40), gone in any::<prop::sample::Index>()) {
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        let backends: Vec<_> = ids.iter().map(|n| backend(*n, 1)).collect();
        let before = slots::maglev(&backends);
        let gone = gone.index(backends.len());
        let rest: Vec<_> = backends.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, b)| *b).collect();
        let after = slots::maglev(&rest);
        // Another size is another table: there the flows of all may move, so sizes are far apart.
        prop_assume!(before.len() == after.len());
        let moved = before.iter().zip(&after).filter(|(old, new)| {
            **old as usize != gone && backends[**old as usize].addr != rest[**new as usize].addr
        }).count();
        prop_assert!(moved * 5 <= before.len(), "{} of {} moved", moved, before.len());
    }
}
