//! Services as `compile` would hand them.

use std::net::{IpAddr, SocketAddr};

use eastwest_compile::{Backend, CompiledService, DnsService, Frontend, FrontendKey, ServiceKey};
use eastwest_model::Protocol;

pub fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

/// One frontend; `backends` as `address:port`, all on this node.
pub fn frontend(vip: &str, protocol: Protocol, backends: &[&str]) -> Frontend {
    let vip: SocketAddr = vip.parse().expect("address:port");
    let mut backends: Vec<Backend> = backends
        .iter()
        .map(|text| text.parse::<SocketAddr>().expect("address:port"))
        .map(|backend| Backend { addr: backend.ip(), port: backend.port(), local: true, weight: 1 })
        .collect();
    backends.sort();
    let key = FrontendKey { addr: vip.ip(), port: vip.port(), protocol };
    Frontend::cluster_ip(key, format!("{}-{protocol:?}", vip.port()), backends)
}

pub fn service(name: &str, frontends: Vec<Frontend>) -> CompiledService {
    CompiledService {
        key: key(name),
        frontends,
        dns: DnsService::ClusterIp { ips: vec![], ports: vec![], endpoints: vec![] },
    }
}
