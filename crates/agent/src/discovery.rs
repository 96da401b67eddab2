//! Where the controller is, and what the agent must know of the cluster before it can begin.
//!
//! By a kubeconfig file, whose settings say the rest; or, in Kubernetes, by asking the API server at its real address:
//! the controllers are the endpoints of a Service, the CA that all of them share is in a ConfigMap, and the agent shows
//! the token that the kubelet gives it. No virtual address and no name is needed for any of that. What was found is
//! kept in a file, so that a node starts without the API server too.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use eastwest_client::{Client, Following};
use ipnet::IpNet;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Api;
use kube::api::ListParams;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::problems::Problems;
use crate::settings::{Discovery as By, Settings};

/// Name of the controllers' Service, and of the ConfigMap with their CA.
const SERVICE: &str = "eastwest-controller";
const CA: &str = "eastwest-ca";
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait between attempts to reach a controller.
const LONGEST: Duration = Duration::from_secs(30);
/// How often it is looked whether the cluster's ranges are still the same.
const PERIOD: Duration = Duration::from_secs(300);
/// Time for an answer of the API server.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked of Kubernetes, and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Known {
    network: Option<Network>,
    controllers: Vec<SocketAddr>,
    /// PEM.
    ca: String,
}

/// Addresses that all nodes agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Network {
    service_cidrs: Vec<IpNet>,
    dns: Vec<IpAddr>,
}

/// See the module.
pub enum Discovery {
    File(PathBuf),
    Kubernetes(Box<Cluster>),
}

/// A Kubernetes cluster, seen from one of its nodes.
pub struct Cluster {
    client: kube::Client,
    namespace: String,
    token: PathBuf,
    file: PathBuf,
    known: Known,
    /// Which of the controllers is next.
    turn: usize,
    /// Attempts since a controller was reached.
    attempts: u32,
}

impl Discovery {
    /// Opens what `settings` say. In Kubernetes ranges and DNS addresses that they leave empty are filled in; on a node's
    /// first start that waits for the API server.
    ///
    /// # Errors
    /// When the credentials for the API server cannot be read.
    pub async fn open(settings: &mut Settings, problems: &Problems) -> anyhow::Result<Self> {
        if settings.controller_discovery == By::Kubeconfig {
            return Ok(Self::File(settings.kubeconfig.clone()));
        }
        let mut cluster = Cluster::new(settings).await?;
        if settings.service_cidr.is_empty() || settings.cluster_dns.is_empty() {
            let network = cluster.network(problems).await;
            if settings.service_cidr.is_empty() {
                settings.service_cidr.clone_from(&network.service_cidrs);
            }
            if settings.cluster_dns.is_empty() {
                settings.cluster_dns.clone_from(&network.dns);
            }
            info!(ranges = ?settings.service_cidr, dns = ?settings.cluster_dns, "the cluster's");
        }
        Ok(Self::Kubernetes(Box::new(cluster)))
    }

    /// A connection to the controller to try next.
    pub async fn next(&mut self) -> Result<Client, String> {
        match self {
            Self::File(path) => Client::from_path(Some(path), None).await.map_err(|e| e.to_string()),
            Self::Kubernetes(cluster) => cluster.next().await,
        }
    }

    /// The time to wait after [`next`](Self::next) has failed.
    pub fn pause(&mut self) -> Duration {
        match self {
            Self::File(_) => RETRY,
            Self::Kubernetes(cluster) => cluster.pause(),
        }
    }

    /// Waits until another controller, or other credentials, should be tried than those of the last
    /// [`next`](Self::next).
    pub async fn changed(&mut self, following: watch::Receiver<Following>) {
        match self {
            Self::File(path) => another_file(path).await,
            Self::Kubernetes(cluster) => cluster.lost(following).await,
        }
    }

    /// Waits until the cluster's ranges are others than at the start; for ever where they come from the settings.
    pub async fn other_network(watcher: Option<NetworkWatcher>) {
        match watcher {
            Some(watcher) => watcher.changed().await,
            None => std::future::pending().await,
        }
    }

    /// For [`other_network`](Self::other_network).
    pub fn network_watcher(&self) -> Option<NetworkWatcher> {
        let Self::Kubernetes(cluster) = self else { return None };
        let begun = cluster.known.network.clone()?;
        Some(NetworkWatcher { client: cluster.client.clone(), file: cluster.file.clone(), begun })
    }
}

/// Waits until the file has another content; one that is gone for a moment is not another.
async fn another_file(path: &Path) {
    let content = tokio::fs::read(path).await.ok();
    loop {
        tokio::time::sleep(RETRY).await;
        let now = tokio::fs::read(path).await.ok();
        if now.is_some() && now != content {
            info!("another kubeconfig: connecting with it");
            return;
        }
    }
}

impl Cluster {
    async fn new(settings: &Settings) -> anyhow::Result<Self> {
        let server = &settings.kubernetes_api_server;
        let mut config =
            eastwest_client::kubernetes_config(settings.kubernetes_kubeconfig.as_deref(), server).await?;
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        let file = settings.data_dir.join("kubernetes.json");
        let known = match std::fs::read(&file) {
            Ok(json) => serde_json::from_slice(&json).unwrap_or_else(|error| {
                warn!(%error, path = %file.display(), "not readable: asking anew");
                Known::default()
            }),
            Err(_) => Known::default(),
        };
        let namespace = config.default_namespace.clone();
        info!(server = %config.cluster_url, namespace, "finding controllers by Kubernetes");
        Ok(Self {
            client: kube::Client::try_from(config).context("API server")?,
            namespace,
            token: settings.controller_token.clone(),
            file,
            known,
            turn: fastrand::usize(..1 << 16),
            attempts: 0,
        })
    }

    /// What is kept, else what the API server says.
    async fn network(&mut self, problems: &Problems) -> Network {
        loop {
            if let Some(network) = &self.known.network {
                problems.set("kubernetes", None);
                return network.clone();
            }
            match ask_network(&self.client).await {
                Ok(network) => {
                    self.known.network = Some(network);
                    self.save();
                }
                Err(e) => {
                    problems.set("kubernetes", Some(format!("{e:#}")));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn save(&self) {
        if let Err(error) = save(&self.file, &self.known) {
            warn!(%error, path = %self.file.display(), "not written: the next start needs the API server");
        }
    }

    async fn next(&mut self) -> Result<Client, String> {
        let asked = self.ask().await;
        if let Ok(known) = &asked
            && self.known != *known
        {
            self.known.clone_from(known);
            self.save();
        }
        let Some(address) = pick(&self.known.controllers, self.turn) else {
            return Err(match asked {
                Err(e) => format!("{e:#}"),
                Ok(_) => format!("Service {}/{SERVICE} has no endpoints yet", self.namespace),
            });
        };
        self.turn = self.turn.wrapping_add(1);
        info!(controller = %address, "connecting");
        self.connect(address).await
    }

    async fn connect(&self, address: SocketAddr) -> Result<Client, String> {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "controller",
            "clusters": [{"name": "controller", "cluster": {"server": format!("https://{address}"),
                "certificate-authority-data": ByteString(self.known.ca.clone().into_bytes())}}],
            "users": [{"name": "agent", "user": {"tokenFile": self.token}}],
            "contexts": [{"name": "controller", "context": {"cluster": "controller", "user": "agent"}}],
        });
        let config = serde_json::from_value(config).map_err(|e| e.to_string())?;
        Client::from_kubeconfig(config, None).await.map_err(|e| e.to_string())
    }

    /// The controllers and their CA, as they are now.
    async fn ask(&self) -> anyhow::Result<Known> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={SERVICE}"));
        let slices = slices.list(&params).await.with_context(|| format!("endpoints of {SERVICE}"))?;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = maps.get(CA).await.with_context(|| format!("ConfigMap {CA}"))?;
        let ca = map.data.unwrap_or_default().remove("ca.crt").unwrap_or_default();
        anyhow::ensure!(!ca.is_empty(), "ConfigMap {CA} has no ca.crt");
        Ok(Known { network: self.known.network.clone(), controllers: controllers(&slices.items), ca })
    }

    async fn lost(&mut self, mut following: watch::Receiver<Following>) {
        let failures = following.borrow().failures;
        loop {
            let now = following.borrow_and_update().clone();
            if now.connected {
                self.attempts = 0;
            }
            if now.failures > failures {
                break;
            }
            if following.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        let pause = self.pause();
        tokio::time::sleep(pause).await;
    }

    /// Doubles, cut by up to half at random: agents that lost the same controller do not come back together.
    fn pause(&mut self) -> Duration {
        let longest = Duration::from_millis(500).saturating_mul(1 << self.attempts.min(6)).min(LONGEST);
        self.attempts += 1;
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// Sees the cluster's ranges change.
pub struct NetworkWatcher {
    client: kube::Client,
    file: PathBuf,
    begun: Network,
}

impl NetworkWatcher {
    async fn changed(self) {
        loop {
            tokio::time::sleep(PERIOD.mul_f64(0.5 + fastrand::f64())).await;
            let Ok(now) = ask_network(&self.client).await else { continue };
            if now != self.begun {
                let known = std::fs::read(&self.file).ok();
                let known = known.and_then(|k| serde_json::from_slice::<Known>(&k).ok()).unwrap_or_default();
                if save(&self.file, &Known { network: Some(now.clone()), ..known }).is_ok() {
                    info!(was = ?self.begun, now = ?now, "the cluster has other addresses");
                    return;
                }
            }
        }
    }
}

fn save(path: &Path, known: &Known) -> std::io::Result<()> {
    let tmp = path.with_extension("json.tmp");
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&tmp, serde_json::to_vec(known)?)?;
    std::fs::rename(tmp, path)
}

async fn ask_network(client: &kube::Client) -> anyhow::Result<Network> {
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    let dns = services.get("kube-dns").await.context("Service kube-system/kube-dns")?;
    let dns = dns.spec.and_then(|s| s.cluster_ips).unwrap_or_default();
    let dns: Vec<IpAddr> = dns.iter().filter_map(|ip| ip.parse().ok()).collect();
    anyhow::ensure!(!dns.is_empty(), "Service kube-system/kube-dns has no address");
    let ranges: Api<ServiceCIDR> = Api::all(client.clone());
    let service_cidrs = match ranges.list(&ListParams::default()).await {
        Ok(list) => {
            let cidrs = list.items.into_iter().filter_map(|c| c.spec?.cidrs).flatten();
            let mut cidrs: Vec<IpNet> = cidrs.filter_map(|c| c.parse().ok()).collect();
            cidrs.sort();
            cidrs
        }
        // Before Kubernetes 1.33. Services work without; only packets to an address of none are not caught here.
        Err(kube::Error::Api(e)) if e.code == 404 => Vec::new(),
        Err(e) => return Err(e).context("ServiceCIDRs"),
    };
    Ok(Network { service_cidrs, dns })
}

/// Addresses of controllers, those first that are ready.
fn controllers(slices: &[EndpointSlice]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let Some(port) = ports.filter_map(|p| u16::try_from(p.port?).ok()).next() else { continue };
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false);
            let address = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
            found.extend(address.map(|ip| (!ready, SocketAddr::new(ip, port))));
        }
    }
    found.sort();
    let some_ready = found.first().is_some_and(|(unready, _)| !unready);
    found.into_iter().filter(|(unready, _)| !(some_ready && *unready)).map(|(_, a)| a).collect()
}

fn pick(addresses: &[SocketAddr], turn: usize) -> Option<SocketAddr> {
    addresses.get(turn.checked_rem(addresses.len())?).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_controllers_else_any() {
        let slice = |endpoints: serde_json::Value| -> EndpointSlice {
            serde_json::from_value(json!({"addressType": "IPv4", "metadata": {}, "endpoints": endpoints,
                "ports": [{"name": "https", "port": 7443, "protocol": "TCP"}]}))
            .unwrap()
        };
        let one = |ip: &str, ready: Option<bool>| json!({"addresses": [ip], "conditions": {"ready": ready}});
        for (endpoints, expected) in [
            (json!([]), vec![]),
            (json!([one("192.0.2.2", Some(true)), one("192.0.2.1", None)]), vec!["192.0.2.1", "192.0.2.2"]),
            (json!([one("192.0.2.2", Some(true)), one("192.0.2.1", Some(false))]), vec!["192.0.2.2"]),
            (json!([one("192.0.2.2", Some(false)), one("x", Some(true))]), vec!["192.0.2.2"]),
        ] {
            let found: Vec<_> = controllers(&[slice(endpoints)]).iter().map(|a| a.ip().to_string()).collect();
            assert_eq!(found, expected);
        }
        let ipv6: SocketAddr = "[2001:db8::1]:7443".parse().unwrap();
        assert_eq!(pick(&[ipv6], 7), Some(ipv6));
        assert_eq!(format!("https://{ipv6}"), "https://[2001:db8::1]:7443");
        assert_eq!(pick(&[], 7), None);
    }
}
