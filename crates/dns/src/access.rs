//! Who is served. A DNS server that answers anybody is a tool of those who flood others with its answers.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::wire::Name;

/// Refusals a second of one worker; what comes above is dropped: a forged source gets no flood of them.
const REFUSALS: u32 = 200;

/// The clients that are served. Pods that the index knows, and the loopback, always are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `None`: everybody.
    allowed: Option<Vec<IpNet>>,
}

impl Access {
    /// Serves everybody who can send a packet here.
    pub const fn open() -> Self {
        Self { allowed: None }
    }

    /// Serves `ranges` only: of pods, of this node, and those configured.
    pub fn only(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        Self { allowed: Some(ranges.into_iter().map(|r| r.trunc()).collect()) }
    }

    pub(crate) fn allows(&self, client: IpAddr, is_pod: impl Fn(IpAddr) -> bool) -> bool {
        let Some(ranges) = &self.allowed else { return true };
        client.is_loopback() || ranges.iter().any(|r| r.contains(&client)) || is_pod(client)
    }
}

/// A worker's bound on refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    left: u32,
    since: Instant,
}

impl Refusals {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: REFUSALS, since: now }
    }

    /// Whether this one may be said aloud.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

/// What an `acl` rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    /// REFUSED.
    Block,
    /// No records.
    Filter,
    /// No answer.
    Drop,
}

/// A line of CoreDNS' `acl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) zones: Vec<Name>,
    pub(crate) action: Action,
    /// Empty: all.
    pub(crate) types: Vec<u16>,
    /// Empty: all.
    pub(crate) sources: Vec<IpNet>,
}

/// The first rule that fits decides; without one, the query is allowed.
pub(crate) fn decide(rules: &[Rule], client: IpAddr, name: &Name, qtype: u16) -> Action {
    let fits = |r: &&Rule| {
        r.zones.iter().any(|z| name.below(z).is_some())
            && (r.types.is_empty() || r.types.contains(&qtype))
            && (r.sources.is_empty() || r.sources.iter().any(|s| s.contains(&client)))
    };
    rules.iter().find(fits).map_or(Action::Allow, |r| r.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_pods_and_the_loopback() {
        let access = Access::only(["10.244.1.7/24".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        let pod: IpAddr = "172.16.0.9".parse().unwrap();
        for (client, served) in [
            ("10.244.1.200", true),
            ("10.244.2.1", false),
            ("fd00::5", true),
            ("fd01::5", false),
            ("127.0.0.1", true),
            ("::1", true),
            ("172.16.0.9", true),
            ("8.8.8.8", false),
        ] {
            assert_eq!(access.allows(client.parse().unwrap(), |ip| ip == pod), served, "{client}");
        }
        assert!(Access::open().allows("8.8.8.8".parse().unwrap(), |_| false));
    }

    #[test]
    fn refusals_are_bounded() {
        let now = Instant::now();
        let mut refusals = Refusals::new(now);
        assert_eq!((0..1000).filter(|_| refusals.take(now)).count(), REFUSALS as usize);
        assert!(refusals.take(now + Duration::from_secs(1)));
    }

    #[test]
    fn the_first_rule_that_fits() {
        let rule = |zone: &str, action, types: &[u16], net: &str| Rule {
            zones: vec![Name::parse(zone).unwrap()],
            action,
            types: types.to_vec(),
            sources: vec![net.parse().unwrap()],
        };
        let rules = [
            rule("a.test", Action::Block, &[1], "10.0.0.0/8"),
            rule("test", Action::Filter, &[], "10.1.0.0/16"),
            rule(".", Action::Drop, &[], "192.0.2.0/24"),
        ];
        for (client, name, qtype, action) in [
            ("10.1.0.1", "x.a.test", 1, Action::Block),
            ("10.1.0.1", "x.a.test", 28, Action::Filter),
            ("10.2.0.1", "x.a.test", 28, Action::Allow),
            ("192.0.2.1", "example.com", 1, Action::Drop),
        ] {
            let decided = decide(&rules, client.parse().unwrap(), &Name::parse(name).unwrap(), qtype);
            assert_eq!(decided, action, "{client} {name}");
        }
    }
}
