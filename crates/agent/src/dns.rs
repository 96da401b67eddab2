//! Keeps DNS served on the node's addresses: what cannot be bound is tried again, the rest is served meanwhile.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use eastwest_dataplane::address;
use eastwest_dns::{BindError, Resolver, Server, ServerOptions};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::problems::Problems;

const RETRY: Duration = Duration::from_secs(5);

/// What is served, and where.
pub struct Dns {
    pub addresses: Vec<SocketAddr>,
    /// Where pods of other nodes are answered, whose own agent is down.
    pub for_others: Vec<SocketAddr>,
    /// Told when all `addresses` are served.
    pub serving: watch::Sender<bool>,
    pub resolver: Arc<Resolver>,
    /// DNS over TLS is served besides, with this.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub problems: Problems,
}

impl Dns {
    /// Serves until `stop`, then lets running queries end. An address that cannot be bound is tried again, and those
    /// that are served know nothing of it.
    pub async fn run(self, stop: CancellationToken) {
        let serving = TaskTracker::new();
        let mut missing = [&self.addresses[..], &self.for_others].concat();
        while !missing.is_empty() {
            let mut left_out = Vec::new();
            missing.retain(|addr| match self.bind(*addr) {
                Ok(server) => {
                    info!(address = %addr, "serving DNS");
                    serving.spawn(server.run(stop.clone()));
                    false
                }
                Err(e) => {
                    left_out.push(e.to_string());
                    true
                }
            });
            self.serving.send_replace(!self.addresses.iter().any(|addr| missing.contains(addr)));
            self.problems.set("dns", (!left_out.is_empty()).then(|| left_out.join("; ")));
            if missing.is_empty() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => break,
            }
        }
        serving.close();
        serving.wait().await;
    }

    fn bind(&self, addr: SocketAddr) -> Result<Server, BindError> {
        let options = ServerOptions {
            tls: self.tls.clone().filter(|_| self.addresses.contains(&addr)),
            ..ServerOptions::default()
        };
        Server::bind(&[addr], self.resolver.clone(), options)
    }
}

/// Makes the node's own device with the DNS addresses, and the blackhole routes of the service ranges; again, when
/// somebody has taken them away. Beside kube-proxy there are no such routes: its rules take every packet for a virtual
/// address, and those that a process of the node sends in its connections are routed before.
pub async fn keep_addresses(
    addresses: Vec<IpAddr>,
    ranges: Vec<IpNet>,
    mut beside: watch::Receiver<bool>,
    problems: Problems,
    stop: CancellationToken,
) {
    const PERIOD: Duration = Duration::from_secs(30);
    loop {
        let ranges = if *beside.borrow_and_update() { &[][..] } else { &ranges };
        let done = address::ensure(&addresses, ranges).await;
        let wait = if done.is_ok() { PERIOD } else { RETRY };
        problems.set("addresses", done.err().map(|e| e.to_string()));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(()) = beside.changed() => {}
            () = stop.cancelled() => return,
        }
    }
}
