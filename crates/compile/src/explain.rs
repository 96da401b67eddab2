//! Why a packet gets what it gets: the same decision as [`State::compile`], with its reasons.

use std::net::IpAddr;

use crate::choose::{Candidate, NO_GROUP, Policy, Verdict, candidates};
use crate::{Backend, Context, Frontend, FrontendKey, FrontendKind, ServiceKey, State, Targets};

/// Who sends the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A pod or a process of this node, or a pod of another by the NIC.
    Inside,
    /// Anyone else who comes by the NIC.
    Outside,
}

/// What becomes of a packet to a frontend, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    pub frontend: Frontend,
    pub policy: Policy,
    /// All endpoints of the Service port in the frontend's family.
    pub considered: Vec<Considered>,
    pub outcome: Outcome,
}

/// An endpoint, and whether it may be chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Considered {
    pub backend: Backend,
    pub reason: Reason,
    /// Its part of new connections, 0 to 1.
    pub share: f64,
}

/// Why an endpoint may be chosen, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    By(Verdict),
    /// No group of the TrafficSplit takes it in.
    NoGroup,
    /// Its group of the TrafficSplit has weight 0.
    NoWeight,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to one of the backends with a share.
    Translated,
    /// No endpoint anywhere, or none with a weight: refused at once.
    Refused,
    /// `Local`, and endpoints on other nodes only.
    DroppedNoLocal,
    /// The client's address is in none of `loadBalancerSourceRanges`.
    DroppedSource,
}

impl State {
    /// What becomes of a new connection from a client at `source` to a frontend of a Service, on this node. `None`: the
    /// Service has no such frontend here.
    pub fn explain(
        &self,
        context: &Context,
        key: &ServiceKey,
        to: &FrontendKey,
        from: From,
        source: Option<IpAddr>,
    ) -> Option<Explained> {
        let compiled = self.compile(context, key)?;
        let frontend = compiled.frontends.into_iter().find(|f| f.key == *to)?;
        let (service, slices) = self.inputs(key)?;
        let split = self.split(key);
        let port =
            service.ports.iter().find(|p| p.protocol == to.protocol && p.name == frontend.port_name)?;
        let zone = self.this_node(context).zone;
        let found = candidates(port, to.addr.is_ipv4(), &slices, zone, split.as_ref());
        let local = match (frontend.kind, from) {
            (FrontendKind::ClusterIp, _) => service.internal_local,
            (_, From::Inside) => false,
            (_, From::Outside) => service.external.as_ref().is_some_and(|e| e.local),
        };
        let policy = if local { Policy::Local } else { Policy::Cluster };
        let targets = match from {
            From::Inside => &frontend.inside,
            From::Outside => &frontend.outside,
        };
        let barred = source.is_some_and(|ip| {
            !frontend.source_ranges.is_empty() && !frontend.source_ranges.iter().any(|r| r.contains(&ip))
        });
        let total: f64 = targets.backends.iter().map(|b| f64::from(b.weight)).sum();
        let outcome = if barred {
            Outcome::DroppedSource
        } else if targets.drop {
            Outcome::DroppedNoLocal
        } else if total == 0.0 {
            Outcome::Refused
        } else {
            Outcome::Translated
        };
        let judge = policy.judge(&found);
        let considered = found.iter().map(|c| considered(c, judge(c), targets, total, outcome)).collect();
        Some(Explained { policy, considered, outcome, frontend: frontend.clone() })
    }
}

fn considered(
    c: &Candidate,
    verdict: Verdict,
    targets: &Targets,
    total: f64,
    outcome: Outcome,
) -> Considered {
    let at = targets.backends.binary_search_by_key(&(c.backend.addr, c.backend.port), |b| (b.addr, b.port));
    let backend = at.map_or(c.backend, |at| targets.backends[at]);
    let weight = if at.is_ok() { backend.weight } else { 0 };
    let reason = match verdict {
        Verdict::Chosen if weight == 0 && c.group == NO_GROUP => Reason::NoGroup,
        Verdict::Chosen if weight == 0 => Reason::NoWeight,
        verdict => Reason::By(verdict),
    };
    let share = if outcome == Outcome::Translated { f64::from(weight) / total } else { 0.0 };
    Considered { backend, reason, share }
}
