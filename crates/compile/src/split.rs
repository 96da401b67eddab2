//! TrafficSplits: which group an endpoint belongs to, and what its part of the traffic is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::{Labels, SplitInput};

/// A pod, as far as the rules and DNS read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub addresses: Arc<[IpAddr]>,
    pub labels: Labels,
}

/// Pods by namespace and name.
pub(crate) type Pods = HashMap<(Arc<str>, Arc<str>), Pod>;

/// A Service's split and where the labels of its endpoints are found.
pub(crate) struct Split<'a> {
    pub input: &'a SplitInput,
    pub namespace: &'a Arc<str>,
    pub pods: &'a Pods,
}

/// Weights are made of whole numbers up to this when the exact ones would be larger.
const SCALE: u128 = 1 << 30;

impl Split<'_> {
    pub fn group(&self, target: &Arc<str>) -> Option<usize> {
        let pod = self.pods.get(&(self.namespace.clone(), target.clone()))?;
        self.input.group(&pod.labels)
    }

    /// The weight of each endpoint by its group: a group's weight is shared by its endpoints evenly, so that it does not
    /// depend on their number. Exact where whole numbers of 32 bits can be, else true to a billionth of the whole.
    pub fn weights(&self, groups: &[u16]) -> Vec<u32> {
        let weight = |group: u16| self.input.groups.get(usize::from(group)).map_or(0, |(_, w)| *w);
        let mut members: HashMap<u16, u64> = HashMap::new();
        groups.iter().filter(|g| weight(**g) > 0).for_each(|g| *members.entry(*g).or_default() += 1);
        let common = members.values().try_fold(1u64, |l, n| (l / gcd(l, *n)).checked_mul(*n));
        let exact = common.and_then(|common| {
            let each = |(g, n): (&u16, &u64)| Some((*g, u64::from(weight(*g)).checked_mul(common / n)?));
            let all: HashMap<u16, u64> = members.iter().map(each).collect::<Option<_>>()?;
            let divisor = all.values().fold(0, |d, w| gcd(d, *w)).max(1);
            all.into_iter().map(|(g, w)| Some((g, u32::try_from(w / divisor).ok()?))).collect::<Option<_>>()
        });
        let by_group: HashMap<u16, u32> = exact.unwrap_or_else(|| {
            let total: u128 = members.keys().map(|g| u128::from(weight(*g))).sum();
            let each = |(g, n): (&u16, &u64)| {
                let share = u128::from(weight(*g)) * SCALE / (total * u128::from(*n));
                (*g, u32::try_from(share.max(1)).unwrap_or(u32::MAX))
            };
            members.iter().map(each).collect()
        });
        groups.iter().map(|g| by_group.get(g).copied().unwrap_or(0)).collect()
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_its_part_whatever_its_size() {
        let pods = Pods::new();
        let namespace: Arc<str> = "ns".into();
        for (name, weights, groups, wanted) in [
            ("one each", vec![90, 10], vec![0, 1], vec![9, 1]),
            ("three and one", vec![90, 10], vec![0, 0, 0, 1], vec![3, 3, 3, 1]),
            ("one and three", vec![90, 10], vec![0, 1, 1, 1], vec![27, 1, 1, 1]),
            ("an empty group's part goes to the others", vec![90, 10], vec![1, 1], vec![1, 1]),
            ("a group of no weight", vec![1, 0], vec![0, 1], vec![1, 0]),
            ("of no group", vec![1], vec![0, u16::MAX], vec![1, 0]),
            ("only of no weight", vec![1, 0], vec![1], vec![0]),
            ("nothing", vec![1, 0], vec![], vec![]),
        ] {
            let groups_of = weights.iter().map(|w| (Labels::default(), *w)).collect();
            let input = SplitInput { service: "s".into(), groups: groups_of };
            let split = Split { input: &input, namespace: &namespace, pods: &pods };
            assert_eq!(split.weights(&groups), wanted, "{name}");
        }
        // Sizes that have no small common multiple.
        let sizes = [4999u16, 4993, 4987, 4973, 4969];
        let groups: Vec<u16> = (0u16..).zip(sizes).flat_map(|(g, n)| (0..n).map(move |_| g)).collect();
        let input = SplitInput { service: "s".into(), groups: vec![(Labels::default(), 1); 5] };
        let weights = Split { input: &input, namespace: &namespace, pods: &pods }.weights(&groups);
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        for group in 0..5 {
            let mine = groups.iter().zip(&weights).filter(|(g, _)| **g == group).map(|(_, w)| f64::from(*w));
            assert!((mine.sum::<f64>() / total - 0.2).abs() < 0.001);
        }
    }
}
