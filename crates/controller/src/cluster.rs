//! A controller within a Kubernetes cluster: what it shares with the other controllers there, and what it makes sure of.
//!
//! All controllers have one CA, whose key is in a Secret and whose certificate in a ConfigMap; whoever starts first makes
//! them. So agents trust each controller by one small object that everybody may read, without anything in front of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use eastwest_api::App;
use eastwest_mirror::Mirror;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::announce::Announcer;
use crate::lease::Elector;
use crate::peers::Peers;
use crate::review::TokenReviewer;
use crate::{Settings, pki};

/// Name of the Secret and of the ConfigMap.
const CA: &str = "eastwest-ca";
const RETRY: Duration = Duration::from_secs(3);
/// How often it is looked whether the DNS Service is there.
const DNS_PERIOD: Duration = Duration::from_secs(60);
/// A cluster's DNS has the tenth address of its service range, by kubeadm's convention, which kubelets are set up with.
/// The API server's own Service has the first.
const DNS_AFTER_KUBERNETES: u32 = 9;

/// The cluster that this controller is in.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    agents: String,
}

impl Cluster {
    /// Nothing is asked yet: an API server that is away is waited for later.
    pub async fn new(settings: &Settings) -> Result<Self> {
        let server = &settings.kubernetes_api_server;
        let config =
            eastwest_client::kubernetes_config(settings.kubernetes_kubeconfig.as_deref(), server).await?;
        let namespace = config.default_namespace.clone();
        let agents = match settings.agent_service_account.split_once(':') {
            Some(_) => settings.agent_service_account.clone(),
            None => format!("{namespace}:{}", settings.agent_service_account),
        };
        info!(server = %config.cluster_url, namespace, "mirroring Kubernetes");
        Ok(Self { client: eastwest_mirror::client(config)?, namespace, agents })
    }

    pub fn reviewer(&self) -> Arc<TokenReviewer> {
        Arc::new(TokenReviewer::new(self.client.clone(), &self.agents))
    }

    pub fn mirror(&self, app: App, registry: &mut Registry) -> Mirror {
        Mirror::new(self.client.clone(), app, eastwest_mirror::Options::default(), registry)
    }

    /// What asks the other controllers about their nodes.
    pub fn peers(&self, ca: &(String, String)) -> Peers {
        Peers::new(&self.namespace, ca)
    }

    /// What writes Events to the cluster, and what finds out whether it is this controller that does.
    pub fn announcer(&self, app: App, mirror: &Mirror, registry: &mut Registry) -> (Elector, Announcer) {
        let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok()).unwrap_or_default();
        // A pod on the host's network has the node's name; another one may be on its way out there.
        let me = format!("{host}_{:08x}", rand::random::<u32>());
        let (elector, held) = Elector::new(self.client.clone(), &self.namespace, me.clone());
        let client = self.client.clone();
        let announcer = Announcer::new(client, &me, &self.namespace, app, mirror.status(), held, registry);
        (elector, announcer)
    }

    /// The CA of all controllers: certificate and key, PEM. Waits for the API server.
    pub async fn shared_ca(&self) -> (String, String) {
        loop {
            match self.ca().await {
                Ok(ca) => return ca,
                Err(error) => {
                    warn!(error = format!("{error:#}"), "waiting for the CA that all controllers share")
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn ca(&self) -> Result<(String, String)> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = match secrets.get_opt(CA).await.with_context(|| format!("Secret {CA}"))? {
            Some(secret) => secret,
            None => {
                let (cert, key) = pki::new_ca()?;
                let data = [("ca.crt", cert), ("ca.key", key)];
                let new = Secret {
                    metadata: self.meta(CA),
                    data: Some(data.map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).into()),
                    ..Secret::default()
                };
                match secrets.create(&PostParams::default(), &new).await {
                    Ok(made) => made,
                    // Another controller was faster: its CA counts.
                    Err(kube::Error::Api(e)) if e.code == 409 => secrets.get(CA).await?,
                    Err(e) => return Err(e).with_context(|| format!("Secret {CA}")),
                }
            }
        };
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| {
            let bytes = data.get(key).with_context(|| format!("Secret {CA} has no {key}"))?;
            String::from_utf8(bytes.0.clone()).with_context(|| format!("{key} of Secret {CA} is not PEM"))
        };
        let (cert, key) = (text("ca.crt")?, text("ca.key")?);
        self.publish(&cert).await.with_context(|| format!("ConfigMap {CA}"))?;
        Ok((cert, key))
    }

    /// Writes the certificate where agents read it.
    async fn publish(&self, cert: &str) -> Result<(), kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let data = BTreeMap::from([("ca.crt".to_owned(), cert.to_owned())]);
        match maps.get_opt(CA).await? {
            Some(map) if map.data.as_ref() == Some(&data) => Ok(()),
            Some(_) => {
                let patch = Patch::Merge(serde_json::json!({"data": data}));
                maps.patch(CA, &PatchParams::default(), &patch).await.map(drop)
            }
            None => {
                let new = ConfigMap { metadata: self.meta(CA), data: Some(data), ..ConfigMap::default() };
                match maps.create(&PostParams::default(), &new).await {
                    Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
                    other => other.map(drop),
                }
            }
        }
    }

    fn meta(&self, name: &str) -> ObjectMeta {
        let labels = [("app.kubernetes.io/name", "eastwest"), ("app.kubernetes.io/managed-by", "eastwest")];
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..ObjectMeta::default()
        }
    }

    /// Sees to it that the cluster's DNS has a Service, until `stop`. One that is there is left as it is, with its
    /// address: agents answer at that by themselves.
    pub async fn keep_dns_service(self, stop: CancellationToken) {
        loop {
            let wait = match self.dns_service().await {
                Ok(()) => DNS_PERIOD,
                Err(error) => {
                    warn!(error = format!("{error:#}"), "no Service kube-system/kube-dns yet");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn dns_service(&self) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), "kube-system");
        if services.get_opt("kube-dns").await?.is_some() {
            return Ok(());
        }
        let default: Api<Service> = Api::namespaced(self.client.clone(), "default");
        let kubernetes = default.get("kubernetes").await.context("Service default/kubernetes")?;
        let ip = kubernetes.spec.and_then(|s| s.cluster_ip).unwrap_or_default();
        let ip = dns_address(&ip).with_context(|| format!("no address for DNS follows from {ip:?}"))?;
        match services.create(&PostParams::default(), &dns_service(ip)).await {
            Ok(_) => {
                info!(address = %ip, "Service kube-system/kube-dns made");
                Ok(())
            }
            Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// The address of DNS in the range whose first one is `kubernetes`.
fn dns_address(kubernetes: &str) -> Option<IpAddr> {
    match kubernetes.parse().ok()? {
        IpAddr::V4(ip) => u32::from(ip).checked_add(DNS_AFTER_KUBERNETES).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => {
            u128::from(ip).checked_add(DNS_AFTER_KUBERNETES.into()).map(|n| IpAddr::V6(n.into()))
        }
    }
}

/// With the labels by which others know it, and without a selector: each node answers for itself.
fn dns_service(ip: IpAddr) -> Service {
    let port = |name: &str, protocol: &str, port| ServicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port,
        ..ServicePort::default()
    };
    let labels = [
        ("k8s-app", "kube-dns"),
        ("kubernetes.io/cluster-service", "true"),
        ("kubernetes.io/name", "CoreDNS"),
    ];
    Service {
        metadata: ObjectMeta {
            name: Some("kube-dns".to_owned()),
            namespace: Some("kube-system".to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some(ip.to_string()),
            ports: Some(vec![port("dns", "UDP", 53), port("dns-tcp", "TCP", 53)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_is_the_tenth() {
        for (kubernetes, dns) in [
            ("10.96.0.1", Some("10.96.0.10")),
            ("172.20.0.1", Some("172.20.0.10")),
            ("fd00:10:96::1", Some("fd00:10:96::a")),
            ("255.255.255.255", None),
            ("None", None),
        ] {
            assert_eq!(dns_address(kubernetes).map(|ip| ip.to_string()).as_deref(), dns, "{kubernetes}");
        }
    }
}
