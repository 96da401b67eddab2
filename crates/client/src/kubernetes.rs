use std::path::Path;

use crate::Error;
use crate::kubeconfig::{chain, config, load};

/// What kubeadm knows of the API server's address, where its ConfigMaps are mounted: a file, and the key of the line.
const KUBEADM: [(&str, &str); 2] = [
    ("/etc/eastwest/kubeadm/ClusterConfiguration", "controlPlaneEndpoint:"),
    ("/etc/eastwest/kube-proxy/kubeconfig.conf", "server:"),
];

/// How to reach a Kubernetes API server: by a kubeconfig file or, without one, as the service account of the pod that
/// this runs in, whose token and CA are read again as they rotate. `server` is the API server's URL; empty: what the
/// kubeconfig says; in a pod, what kubeadm has noted, else the pod's environment, where it is a virtual address that
/// somebody must translate.
///
/// # Errors
/// When a file is missing or cannot be read, or `server` is no URL.
pub async fn kubernetes_config(kubeconfig: Option<&Path>, server: &str) -> Result<kube::Config, Error> {
    let wrong = |e: &dyn std::error::Error| Error::Kubeconfig(format!("service account: {}", chain(e)));
    let server = match kubeconfig {
        None if server.is_empty() => kubeadm_server(),
        _ => server.to_owned(),
    };
    let mut found = match kubeconfig {
        Some(path) => config(load(Some(path))?, None).await?,
        None if server.is_empty() => kube::Config::incluster().map_err(|e| wrong(&e))?,
        // The same but for the address, which is replaced.
        None => kube::Config::incluster_dns().map_err(|e| wrong(&e))?,
    };
    if !server.is_empty() {
        found.cluster_url = server.parse().map_err(|e| {
            Error::Kubeconfig(format!("API server {server:?}: {e}; expected https://HOST:PORT"))
        })?;
    }
    Ok(found)
}

/// Empty when kubeadm has not made this cluster, or has not been told.
fn kubeadm_server() -> String {
    let read = |(file, key): &(&str, &str)| server_in(&std::fs::read_to_string(file).ok()?, key);
    KUBEADM.iter().find_map(read).unwrap_or_default()
}

fn server_in(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
    let value = value.trim().trim_matches(['"', '\'']);
    match value {
        "" => None,
        url if url.contains("://") => Some(url.to_owned()),
        // An endpoint may come without its port.
        host if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            Some(format!("https://{host}"))
        }
        host => Some(format!("https://{host}:6443")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_as_kubeadm_has_it() {
        let config =
            |endpoint: &str| format!("apiServer: {{}}\ncontrolPlaneEndpoint: {endpoint}\ndns: {{}}\n");
        for (text, server) in [
            (config("kind-control-plane:6443"), Some("https://kind-control-plane:6443")),
            (config("api.example.com"), Some("https://api.example.com:6443")),
            (config("\"\""), None),
            ("apiServer: {}\n".to_owned(), None),
        ] {
            assert_eq!(server_in(&text, "controlPlaneEndpoint:").as_deref(), server, "{text}");
        }
        let kubeconfig = "clusters:\n- cluster:\n    server: https://192.0.2.1:6443\n  name: default\n";
        assert_eq!(server_in(kubeconfig, "server:").as_deref(), Some("https://192.0.2.1:6443"));
    }
}
