//! Keeps DNS served on the node's addresses: what cannot be bound is tried again, the rest is served meanwhile.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use eastwest_dataplane::address;
use eastwest_dns::{Forwarder, Index, Metrics, Server, ServerOptions};
use ipnet::IpNet;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::problems::Problems;

const RETRY: Duration = Duration::from_secs(5);

/// What is served, and where.
pub struct Dns {
    pub addresses: Vec<SocketAddr>,
    pub index: Arc<Index>,
    pub forwarder: Arc<Forwarder>,
    pub metrics: Arc<Metrics>,
    pub problems: Problems,
}

impl Dns {
    /// Serves until `stop`, then lets running queries end.
    pub async fn run(self, stop: CancellationToken) {
        if self.addresses.is_empty() {
            return;
        }
        let mut serving: Option<(CancellationToken, JoinHandle<()>)> = None;
        loop {
            let (server, left_out) = self.bind();
            let whole = left_out.is_empty();
            self.problems.set("dns", (!whole).then(|| left_out.join("; ")));
            // The first server stays while nothing is gained; two on one address share its queries for a moment.
            if let Some(server) = server.filter(|_| whole || serving.is_none()) {
                info!(addresses = ?server.addresses(), "serving DNS");
                let token = stop.child_token();
                let next = (token.clone(), tokio::spawn(server.run(token)));
                if let Some((token, task)) = serving.replace(next) {
                    token.cancel();
                    let _ = task.await;
                }
            }
            if whole {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => break,
            }
        }
        if let Some((_, task)) = serving {
            let _ = task.await;
        }
    }

    /// Binds what can be bound; the rest with its reason.
    fn bind(&self) -> (Option<Server>, Vec<String>) {
        let mut addresses = self.addresses.clone();
        let mut left_out = Vec::new();
        while !addresses.is_empty() {
            let (index, forwarder) = (self.index.clone(), self.forwarder.clone());
            match Server::bind(&addresses, index, forwarder, self.metrics.clone(), ServerOptions::default()) {
                Ok(server) => return (Some(server), left_out),
                Err(e) => {
                    addresses.retain(|a| *a != e.addr);
                    left_out.push(e.to_string());
                }
            }
        }
        (None, left_out)
    }
}

/// Makes the node's own device with the DNS addresses, and the blackhole routes of the service ranges; again, when
/// somebody has taken them away.
pub async fn keep_addresses(
    addresses: Vec<IpAddr>,
    ranges: Vec<IpNet>,
    problems: Problems,
    stop: CancellationToken,
) {
    const PERIOD: Duration = Duration::from_secs(30);
    loop {
        let done = address::ensure(&addresses, &ranges).await;
        let wait = if done.is_ok() { PERIOD } else { RETRY };
        problems.set("addresses", done.err().map(|e| e.to_string()));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}
