//! What of a cluster is looked at before anything is changed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use kube::api::ListParams;
use kube::{Api, Client};

/// See the module.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Major and minor version of the API server.
    pub version: (u32, u32),
    pub nodes: Vec<Node>,
    pub services: Vec<Service>,
    /// Names of the DaemonSets of kube-system.
    pub daemon_sets: Vec<String>,
    /// Name of kube-proxy's DaemonSet.
    pub kube_proxy: String,
    /// Data of the ConfigMaps of kube-system that say how things are set up.
    pub config: BTreeMap<String, BTreeMap<String, String>>,
}

pub async fn take(client: &Client, kube_proxy: &str) -> Result<Snapshot> {
    let version = client.apiserver_version().await.context("the API server's version")?;
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse();
    let all = ListParams::default();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let mut config = BTreeMap::new();
    for name in ["kube-proxy", "coredns", "cilium-config"] {
        if let Some(map) = maps.get_opt(name).await.with_context(|| format!("ConfigMap {name}"))? {
            config.insert(name.to_owned(), map.data.unwrap_or_default());
        }
    }
    let sets = Api::<DaemonSet>::namespaced(client.clone(), "kube-system").list(&all).await?;
    Ok(Snapshot {
        version: (number(&version.major)?, number(&version.minor)?),
        nodes: Api::all(client.clone()).list(&all).await.context("Nodes")?.items,
        services: Api::all(client.clone()).list(&all).await.context("Services")?.items,
        daemon_sets: sets.items.into_iter().filter_map(|s| s.metadata.name).collect(),
        kube_proxy: kube_proxy.to_owned(),
        config,
    })
}
