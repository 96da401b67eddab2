//! The decision itself: one Service and its slices → what this node serves.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::choose::{Candidate, Policy, candidates};
use crate::split::Split;
use crate::{
    CompiledService, DnsEndpoint, DnsService, EndpointInput, ExternalInput, Frontend, FrontendKey,
    FrontendKind, HealthCheck, ServiceInput, ServiceKey, ServiceMode, SliceInput, Targets,
};

/// What the rules know of the node they decide for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThisNode<'a> {
    pub zone: Option<&'a str>,
    pub node_port_addresses: &'a [IpAddr],
}

/// What the rules read for one Service.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub service: &'a ServiceInput,
    pub slices: &'a [&'a SliceInput],
    pub split: Option<&'a Split<'a>>,
}

/// Cost: ports × endpoints of this Service.
pub(crate) fn compile(key: &ServiceKey, inputs: Inputs<'_>, node: ThisNode<'_>) -> CompiledService {
    let Inputs { service, slices, .. } = inputs;
    let dns = match &service.mode {
        ServiceMode::ClusterIp(ips) => {
            let endpoints = published(service, slices);
            DnsService::ClusterIp { ips: ips.clone(), ports: service.ports.clone(), endpoints }
        }
        ServiceMode::Headless => DnsService::Headless { endpoints: published(service, slices) },
        ServiceMode::ExternalName(target) => DnsService::ExternalName { target: target.clone() },
    };
    let frontends = match &service.mode {
        ServiceMode::ClusterIp(ips) if !service.names_only => frontends(inputs, ips, node),
        _ => Vec::new(),
    };
    CompiledService { key: key.clone(), frontends, dns }
}

fn frontends(inputs: Inputs<'_>, ips: &[IpAddr], node: ThisNode<'_>) -> Vec<Frontend> {
    let Inputs { service, slices, split } = inputs;
    let external = service.external.as_deref();
    let mut out = Vec::with_capacity(ips.len() * service.ports.len());
    for v4 in [true, false] {
        // A family in which the Service has no virtual address has no other one either: kube-proxy leaves it out.
        if !ips.iter().any(|ip| ip.is_ipv4() == v4) {
            continue;
        }
        let source_ranges: Arc<[IpNet]> = external
            .into_iter()
            .flat_map(|e| &e.source_ranges)
            .filter(|r| r.addr().is_ipv4() == v4)
            .copied()
            .collect();
        for (i, port) in service.ports.iter().enumerate() {
            let found = candidates(port, v4, slices, node.zone, split);
            let made = Made::new(&found, service, external, split);
            let mut add = |kind: FrontendKind, addr: IpAddr, number: u16| {
                let (inside, outside) = match kind {
                    FrontendKind::ClusterIp => (&made.internal, &made.internal),
                    _ => (&made.cluster, &made.external),
                };
                let ranged = kind == FrontendKind::LoadBalancer;
                out.push(Frontend {
                    key: FrontendKey { addr, port: number, protocol: port.protocol },
                    port_name: port.name.clone(),
                    kind,
                    inside: inside.clone(),
                    outside: outside.clone(),
                    affinity_seconds: service.affinity_seconds,
                    source_ranges: if ranged { source_ranges.clone() } else { Arc::default() },
                });
            };
            let of_family = |ips: &[IpAddr]| -> Vec<IpAddr> {
                ips.iter().filter(|ip| ip.is_ipv4() == v4).copied().collect()
            };
            for ip in of_family(ips) {
                add(FrontendKind::ClusterIp, ip, port.port);
            }
            let Some(external) = external else { continue };
            // In this order: an address that stands in several places is what it is in the first, and where a load
            // balancer's is an external IP too, its source ranges hold.
            for ip in of_family(&external.load_balancer_ips) {
                add(FrontendKind::LoadBalancer, ip, port.port);
            }
            for ip in of_family(&external.external_ips) {
                add(FrontendKind::ExternalIp, ip, port.port);
            }
            let node_port = external.node_ports.get(i).copied().unwrap_or(0);
            for ip in of_family(node.node_port_addresses).into_iter().filter(|_| node_port != 0) {
                add(FrontendKind::NodePort, ip, node_port);
            }
        }
    }
    // A stable sort: what comes first above stays, and of two ports with the same number the first in the object.
    out.sort_by_key(|f| f.key);
    out.dedup_by_key(|f| f.key);
    out
}

/// The sets of one Service port in one family; equal ones are shared.
struct Made {
    /// Behind the virtual addresses, by `internalTrafficPolicy`.
    internal: Targets,
    /// Behind all others for clients of the cluster: the whole cluster's, whatever the policy (the short cut that stands
    /// for going out to the load balancer and coming back in).
    cluster: Targets,
    /// Behind all others for clients outside, by `externalTrafficPolicy`.
    external: Targets,
}

impl Made {
    fn new(
        found: &[Candidate],
        service: &ServiceInput,
        external: Option<&ExternalInput>,
        split: Option<&Split<'_>>,
    ) -> Self {
        let of = |policy: Policy| policy.targets(found, split);
        let external_local = external.is_some_and(|e| e.local);
        let local = (service.internal_local || external_local).then(|| of(Policy::Local));
        let cluster = (!service.internal_local || external.is_some()).then(|| of(Policy::Cluster));
        let pick = |wants_local: bool| {
            let (first, second) = if wants_local { (&local, &cluster) } else { (&cluster, &local) };
            first.clone().or_else(|| second.clone()).unwrap_or_default()
        };
        Self { internal: pick(service.internal_local), cluster: pick(false), external: pick(external_local) }
    }
}

/// What `healthCheckNodePort` serves; `None` for a Service without.
pub(crate) fn health_check(service: &ServiceInput, slices: &[&SliceInput]) -> Option<HealthCheck> {
    let port = service.external.as_deref()?.health_check_port;
    if port == 0 || service.names_only || !matches!(&service.mode, ServiceMode::ClusterIp(_)) {
        return None;
    }
    let wanted = EndpointInput::READY | EndpointInput::LOCAL;
    let here = slices.iter().filter(|s| !s.names_only && !s.ports.is_empty()).flat_map(|s| &s.endpoints);
    let mut addresses: Vec<IpAddr> = here.filter(|e| e.flags & wanted == wanted).map(|e| e.addr).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let local4 = addresses.iter().filter(|a| a.is_ipv4()).count();
    Some(HealthCheck { port, local4, local6: addresses.len() - local4 })
}

/// Endpoints that have a name.
fn published(service: &ServiceInput, slices: &[&SliceInput]) -> Vec<DnsEndpoint> {
    let mut out: Vec<DnsEndpoint> = Vec::new();
    for slice in slices {
        let visible =
            slice.endpoints.iter().filter(|e| service.publish_not_ready || e.is(EndpointInput::READY));
        out.extend(visible.map(|e| DnsEndpoint {
            addr: e.addr,
            hostname: e.hostname.clone(),
            ports: slice.ports.clone(),
        }));
    }
    out.sort_by(|a, b| (a.addr, &a.hostname, &a.ports).cmp(&(b.addr, &b.hostname, &b.ports)));
    // Over several slices an endpoint has the ports of all of them.
    out.dedup_by(|next, kept| {
        let same = next.addr == kept.addr && next.hostname == kept.hostname;
        if same && next.ports != kept.ports {
            let mut ports: Vec<_> = kept.ports.iter().chain(next.ports.iter()).cloned().collect();
            ports.sort_unstable();
            ports.dedup();
            kept.ports = ports.into();
        }
        same
    });
    out
}
