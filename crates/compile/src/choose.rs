//! Which endpoints of a Service port get its traffic on this node, and why the others do not (kube-proxy's
//! `pkg/proxy/topology.go`).

use std::sync::Arc;

use crate::input::same_port;
use crate::split::Split;
use crate::{Backend, DnsPort, EndpointInput, SliceInput, Targets};

/// An endpoint of one Service port in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub backend: Backend,
    /// As of [`EndpointInput`].
    pub flags: u8,
    /// Hinted for this node's zone.
    pub for_zone: bool,
    /// Index of its group in the Service's TrafficSplit; [`NO_GROUP`] without one.
    pub group: u16,
}

/// An endpoint that no group of a TrafficSplit takes in.
pub const NO_GROUP: u16 = u16::MAX;

/// From where endpoints are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The whole cluster, as far as hints do not keep traffic closer.
    Cluster,
    /// This node.
    Local,
}

/// Why an endpoint gets traffic, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Chosen,
    /// Neither ready nor serving while it terminates.
    NotReady,
    /// It serves while it terminates, but others are ready.
    Terminating,
    /// The policy is `Local`.
    OtherNode,
    /// All have hints, and others are hinted for this node.
    HintedForOtherNodes,
    /// All have hints, and others are hinted for this zone.
    HintedForOtherZones,
}

/// How hints narrow the cluster's endpoints down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hints {
    Ignored,
    Node,
    Zone,
}

/// The endpoints of a Service port in one family, sorted by (address, port), each once.
pub(crate) fn candidates(
    port: &DnsPort,
    v4: bool,
    slices: &[&SliceInput],
    zone: Option<&str>,
    split: Option<&Split<'_>>,
) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let group = |target: Option<&Arc<str>>| {
        let group = split.zip(target).and_then(|(split, target)| split.group(target));
        group.and_then(|g| u16::try_from(g).ok()).unwrap_or(NO_GROUP)
    };
    for slice in slices.iter().filter(|s| !s.names_only) {
        let hinted: Vec<bool> = slice
            .zone_hints
            .iter()
            .map(|zones| zone.is_some_and(|zone| zones.iter().any(|z| **z == *zone)))
            .collect();
        for slice_port in slice.ports.iter().filter(|p| same_port(p, &port.name, port.protocol)) {
            let of_family = slice.endpoints.iter().filter(|e| e.addr.is_ipv4() == v4);
            found.extend(of_family.map(|e| Candidate {
                backend: Backend { addr: e.addr, port: slice_port.port, local: false, weight: 1 },
                flags: e.flags,
                for_zone: e.is(EndpointInput::ZONE_HINTS)
                    && hinted.get(usize::from(e.zones)).copied().unwrap_or(false),
                group: group(e.target.as_ref()),
            }));
        }
    }
    // The same endpoint may stand in two slices for a while (KEP-752): what they say adds up, so that a move between
    // slices never takes it out.
    found.sort_unstable();
    found.dedup_by(|next, kept| {
        let same = next.backend == kept.backend;
        if same {
            kept.flags |= next.flags;
            kept.for_zone |= next.for_zone;
            kept.group = kept.group.min(next.group);
        }
        same
    });
    for candidate in &mut found {
        candidate.backend.local = candidate.flags & EndpointInput::LOCAL != 0;
    }
    found
}

impl Candidate {
    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn allowed(&self, policy: Policy) -> bool {
        policy == Policy::Cluster || self.backend.local
    }
}

impl Policy {
    /// The endpoints that get traffic.
    pub(crate) fn targets(self, found: &[Candidate], split: Option<&Split<'_>>) -> Targets {
        let judge = self.judge(found);
        let chosen: Vec<&Candidate> = found.iter().filter(|c| judge(c) == Verdict::Chosen).collect();
        let mut backends: Vec<Backend> = chosen.iter().map(|c| c.backend).collect();
        if let Some(split) = split {
            let groups: Vec<u16> = chosen.iter().map(|c| c.group).collect();
            for (backend, weight) in backends.iter_mut().zip(split.weights(&groups)) {
                backend.weight = weight;
            }
        }
        let usable = EndpointInput::READY | EndpointInput::DRAINING;
        let drop = backends.is_empty() && found.iter().any(|c| c.is(usable));
        Targets { backends: backends.into(), drop }
    }

    /// What becomes of each of `found`. Ready ones go first; where there are none, those that still serve while they
    /// terminate (KEP-1669). Under `Local` both are asked of this node's alone.
    pub fn judge(self, found: &[Candidate]) -> impl Fn(&Candidate) -> Verdict + use<> {
        let hints = if self == Policy::Cluster { Hints::of(found) } else { Hints::Ignored };
        let any_ready = found.iter().any(|c| c.allowed(self) && c.is(EndpointInput::READY));
        move |c: &Candidate| match (c.is(EndpointInput::READY), c.is(EndpointInput::DRAINING)) {
            (false, false) => Verdict::NotReady,
            _ if !c.allowed(self) => Verdict::OtherNode,
            (false, true) if any_ready => Verdict::Terminating,
            (false, true) => Verdict::Chosen,
            (true, _) => match hints {
                Hints::Node if !c.is(EndpointInput::FOR_THIS_NODE) => Verdict::HintedForOtherNodes,
                Hints::Zone if !c.for_zone => Verdict::HintedForOtherZones,
                _ => Verdict::Chosen,
            },
        }
    }
}

impl Hints {
    /// Hints count when all ready endpoints have them and one is hinted for here, so that a client is never left without
    /// an endpoint while the hints are being written.
    fn of(found: &[Candidate]) -> Self {
        let ready = || found.iter().filter(|c| c.is(EndpointInput::READY));
        let count =
            |has: u8, here: &dyn Fn(&Candidate) -> bool| ready().all(|c| c.is(has)) && ready().any(here);
        if count(EndpointInput::NODE_HINTS, &|c| c.is(EndpointInput::FOR_THIS_NODE)) {
            Self::Node
        } else if count(EndpointInput::ZONE_HINTS, &|c| c.for_zone) {
            Self::Zone
        } else {
            Self::Ignored
        }
    }
}
