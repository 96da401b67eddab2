//! The other controllers of the cluster: each is asked about the agents that follow it, so that all nodes are seen at each. They
//! are found as agents find them, by the endpoints of their Service, and show each other a token that follows from the CA's
//! key, which they alone have.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use eastwest_api::App;
use eastwest_client::{Client, ListOptions};
use eastwest_model::{EndpointSlice, Kind, LABEL_SERVICE_NAME, Node, NodeState, Revision};
use k8s_openapi::ByteString;
use ring::hmac;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Name of the controllers' Service.
const SERVICE: &str = "eastwest-controller";
const PERIOD: Duration = Duration::from_secs(5);
/// Failures in a row after which a controller's agents count as not connected.
const GONE: u32 = 3;

/// See the module.
pub struct Peers {
    namespace: String,
    /// PEM.
    ca: String,
    token: String,
    /// Failures in a row, by address.
    known: BTreeMap<SocketAddr, u32>,
}

impl Peers {
    /// `ca` is the certificate and the key that all controllers share, PEM.
    pub fn new(namespace: &str, (cert, key): &(String, String)) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), b"eastwest controllers");
        let token = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { namespace: namespace.to_owned(), ca: cert.clone(), token, known: BTreeMap::new() }
    }

    /// What controllers show each other. It lets them read.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Until `stop`.
    pub async fn run(mut self, app: App, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = self.ask_all(&app) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn ask_all(&mut self, app: &App) {
        let now = self.addresses(app);
        self.known.retain(|address, failures| now.contains(address) || *failures < GONE);
        for address in now {
            self.known.entry(address).or_default();
        }
        let addresses: Vec<SocketAddr> = self.known.keys().copied().collect();
        for address in addresses {
            let asked = tokio::time::timeout(PERIOD, self.ask(address)).await;
            let asked =
                asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PERIOD.as_secs())));
            let failures = self.known.entry(address).or_default();
            let (newest, states) = match asked {
                Ok(answer) => {
                    *failures = 0;
                    answer
                }
                Err(error) => {
                    debug!(controller = %address, error = format!("{error:#}"), "a controller does not answer");
                    *failures = failures.saturating_add(1);
                    if *failures != GONE {
                        continue;
                    }
                    (Revision(0), Vec::new())
                }
            };
            if let Err(error) = app.take_states(address.ip().to_string(), newest, states).await {
                debug!(%error, "states of nodes");
            }
        }
    }

    /// Of all controllers that are ready, this one too: it has nothing new to say.
    fn addresses(&self, app: &App) -> Vec<SocketAddr> {
        app.store().read(|view| {
            let slices = view.range(Kind::EndpointSlice, Some(&self.namespace), None);
            let ours = slices.filter(|s| s.labels.get(LABEL_SERVICE_NAME).is_some_and(|n| &**n == SERVICE));
            ours.filter_map(|s| serde_json::from_slice::<EndpointSlice>(&s.json).ok())
                .flat_map(endpoints)
                .collect()
        })
    }

    async fn ask(&self, address: SocketAddr) -> Result<(Revision, Vec<NodeState>)> {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "peer",
            "clusters": [{"name": "peer", "cluster": {"server": format!("https://{address}"),
                "certificate-authority-data": ByteString(self.ca.clone().into_bytes())}}],
            "users": [{"name": "controller", "user": {"token": self.token}}],
            "contexts": [{"name": "peer", "context": {"cluster": "peer", "user": "controller"}}],
        });
        let client = Client::from_kubeconfig(serde_json::from_value(config)?, None).await?;
        let nodes = client.list::<Node>(None, &ListOptions::default()).await.context("Nodes")?;
        let newest = Revision(nodes.metadata.resource_version.parse().unwrap_or(0));
        let states = client.list::<NodeState>(None, &ListOptions::default()).await.context("NodeStates")?;
        Ok((newest, states.items))
    }
}

fn endpoints(slice: EndpointSlice) -> Vec<SocketAddr> {
    let Some(port) = slice.ports.iter().find_map(|p| p.port) else { return Vec::new() };
    let ready = slice.endpoints.iter().filter(|e| e.conditions.ready != Some(false));
    let addresses = ready.filter_map(|e| e.addresses.first()?.parse::<IpAddr>().ok());
    addresses.map(|ip| SocketAddr::new(ip, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_follows_from_the_key() {
        let token = |key: &str| Peers::new("x", &("cert".to_owned(), key.to_owned())).token().to_owned();
        assert_eq!(token("a"), token("a"));
        assert_ne!(token("a"), token("b"));
        assert_eq!(token("a").len(), 64);
    }
}
