//! Nodes that start again: one of them, as after a crash or a reboot, and all at once with etcd and the API server, while the
//! controller comes last. Each time Services and names answer again by themselves. `K8S_IMAGE` is the archive that
//! `scripts/image` made.

use anyhow::{Context, Result, ensure};
use eastwest_scenarios::k8s::{Kubernetes, serving};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["n1", "n2"];
const NAME: &str = "web.default.svc.cluster.local";

/// A Service whose pod is on `node`.
fn service(cluster: &Kubernetes, name: &str, node: &str) -> Result<String> {
    let labels = json!({"app": name});
    cluster.kubectl(&["create", "-f", "-"], Some(&serving(name, node, &labels, 8080, "", false)))?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "http"}]}});
    cluster.kubectl(&["create", "-f", "-"], Some(&service))?;
    cluster.ready(name)?;
    let stored = cluster.get(&["service", name])?;
    Ok(stored["spec"]["clusterIP"].as_str().context("clusterIP")?.to_owned())
}

/// Runs in the network of a pod, whichever process it has now.
fn within(cluster: &Kubernetes, pod: &str, command: &[&str]) -> Result<String> {
    let found = cluster.ready(pod)?;
    let node = found["spec"]["nodeName"].as_str().context("nodeName")?;
    let pid = cluster.pid(&found)?;
    cluster.run(&[&["exec", node, "nsenter", "-t", &pid, "--net", "--"], command].concat(), None)
}

/// From a pod of each node and from the nodes themselves: the Service answers, and its name is told.
fn serves(cluster: &Kubernetes, ip: &str) -> Result<()> {
    let url = format!("http://{ip}/");
    for node in NODES {
        let client = format!("client-{node}");
        cluster.until(&format!("the Service from {client}"), || {
            within(cluster, &client, &["curl", "-fsm", "3", &url]).map(Some)
        })?;
        cluster.until(&format!("the name from {client}"), || {
            let said =
                within(cluster, &client, &["dig", "+short", "+tries=1", "+time=3", "@10.96.0.10", NAME])?;
            Ok((said.trim() == ip).then_some(()))
        })?;
        cluster.until(&format!("the Service from {node}"), || {
            cluster.run(&["exec", node, "curl", "-fsm", "3", &url], None).map(Some)
        })?;
    }
    Ok(())
}

/// How often the containers of a pod have been started anew.
fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

fn scale(cluster: &Kubernetes, replicas: &str) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    cluster
        .kubectl(&["-n", "kube-system", "scale", "deployment/eastwest-controller", &replicas], None)
        .map(drop)
}

fn controllers(cluster: &Kubernetes) -> Result<usize> {
    let pods = ["-n", "kube-system", "pods", "-l", "app.kubernetes.io/component=controller"];
    Ok(cluster.get(&pods)?["items"].as_array().map_or(0, Vec::len))
}

#[test]
fn comes_up_by_itself() -> Result<()> {
    let image = std::env::var("K8S_IMAGE").context("K8S_IMAGE: the archive of eastwest's image")?;
    let cluster = Kubernetes::up("restart", NODES.len(), &["--proxy", "eastwest"], &image)?;
    for node in NODES {
        let client = format!("client-{node}");
        let pod = serving(&client, node, &json!({"app": "client"}), 8080, "", false);
        cluster.kubectl(&["create", "-f", "-"], Some(&pod))?;
    }
    let ip = service(&cluster, "web", "n2")?;
    serves(&cluster, &ip)?;

    println!("n2 is started again");
    let before = restarts(&cluster.get(&["pod", "web"])?);
    cluster.run(&["crash", "n2"], None)?;
    cluster.run(&["start", "n2"], None)?;
    cluster.until("the pod of the Service again", || {
        Ok((restarts(&cluster.get(&["pod", "web"])?) > before).then_some(()))
    })?;
    serves(&cluster, &ip)?;

    println!("everything is started again, without a controller at first");
    scale(&cluster, "0")?;
    cluster.until("no controller", || Ok((controllers(&cluster)? == 0).then_some(())))?;
    let before = restarts(&cluster.get(&["pod", "web"])?);
    for node in NODES {
        cluster.run(&["crash", node], None)?;
    }
    cluster.run(&["reset-api"], None)?;
    for node in NODES {
        cluster.run(&["start", node], None)?;
    }
    cluster.run(&["start-api"], None)?;
    cluster.until("the pod of the Service again", || {
        Ok((restarts(&cluster.get(&["pod", "web"])?) > before).then_some(()))
    })?;
    ensure!(controllers(&cluster)? == 0, "the controller is not the last");
    scale(&cluster, "2")?;
    serves(&cluster, &ip)?;

    let ip = service(&cluster, "late", "n1")?;
    let url = format!("http://{ip}/");
    cluster.until("a Service that was made after that", || {
        within(&cluster, "client-n2", &["curl", "-fsm", "3", &url]).map(Some)
    })?;
    Ok(())
}
