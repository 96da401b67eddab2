//! The decision itself: one Service and its slices → what this node serves.

use std::net::IpAddr;
use std::sync::Arc;

use crate::input::same_port;
use crate::{
    Backend, CompiledService, DnsEndpoint, DnsPort, DnsService, EndpointInput, Frontend, FrontendKey,
    FrontendKind, ServiceInput, ServiceKey, ServiceMode, SliceInput, Targets,
};

/// Cost: ports × endpoints of this Service.
pub(crate) fn compile(key: &ServiceKey, service: &ServiceInput, slices: &[&SliceInput]) -> CompiledService {
    let dns = match &service.mode {
        ServiceMode::ClusterIp(ips) => {
            let endpoints = published(service, slices);
            DnsService::ClusterIp { ips: ips.clone(), ports: service.ports.clone(), endpoints }
        }
        ServiceMode::Headless => DnsService::Headless { endpoints: published(service, slices) },
        ServiceMode::ExternalName(target) => DnsService::ExternalName { target: target.clone() },
    };
    let frontends = match &service.mode {
        ServiceMode::ClusterIp(ips) if !service.names_only => frontends(service, ips, slices),
        _ => Vec::new(),
    };
    CompiledService { key: key.clone(), frontends, dns }
}

fn frontends(service: &ServiceInput, ips: &[IpAddr], slices: &[&SliceInput]) -> Vec<Frontend> {
    let mut out = Vec::with_capacity(ips.len() * service.ports.len());
    for port in &service.ports {
        let mut made: Vec<(bool, Targets)> = Vec::with_capacity(2);
        for ip in ips {
            let v4 = ip.is_ipv4();
            let targets = match made.iter().find(|(family, _)| *family == v4) {
                Some((_, targets)) => targets.clone(),
                None => {
                    let targets = targets(service, port, v4, slices);
                    made.push((v4, targets.clone()));
                    targets
                }
            };
            out.push(Frontend {
                key: FrontendKey { addr: *ip, port: port.port, protocol: port.protocol },
                port_name: port.name.clone(),
                kind: FrontendKind::ClusterIp,
                inside: targets.clone(),
                outside: targets,
                affinity_seconds: service.affinity_seconds,
                source_ranges: Arc::default(),
            });
        }
    }
    // A stable sort: of two ports with the same number the first stays, as it stands first in the object.
    out.sort_by_key(|f| f.key);
    out.dedup_by_key(|f| f.key);
    out
}

/// Ready endpoints; where there are none, those that still serve while they terminate (KEP-1669). Under `Local` both are
/// asked of this node's alone.
fn targets(service: &ServiceInput, port: &DnsPort, v4: bool, slices: &[&SliceInput]) -> Targets {
    let mut found: Vec<(Backend, u8)> = Vec::new();
    for slice in slices.iter().filter(|s| !s.names_only) {
        for slice_port in slice.ports.iter().filter(|p| same_port(p, &port.name, port.protocol)) {
            found.extend(slice.endpoints.iter().filter(|e| e.addr.is_ipv4() == v4).map(|e| {
                (Backend { addr: e.addr, port: slice_port.port, local: false, weight: 1 }, e.flags)
            }));
        }
    }
    // The same endpoint may stand in two slices for a while (KEP-752): its conditions add up, so that a move between
    // slices never takes it out.
    found.sort_unstable();
    found.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 |= next.1;
        }
        same
    });
    for (backend, flags) in &mut found {
        backend.local = *flags & EndpointInput::LOCAL != 0;
    }
    let of = |wanted: u8| -> Vec<Backend> {
        found
            .iter()
            .filter(|(backend, flags)| flags & wanted != 0 && (backend.local || !service.internal_local))
            .map(|(backend, _)| *backend)
            .collect()
    };
    let ready = of(EndpointInput::READY);
    let backends = if ready.is_empty() { of(EndpointInput::DRAINING) } else { ready };
    let usable = EndpointInput::READY | EndpointInput::DRAINING;
    let drop = backends.is_empty() && found.iter().any(|(_, flags)| flags & usable != 0);
    Targets { backends: backends.into(), drop }
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
