//! kube-proxy's own faces: `healthCheckNodePort`, and a node that is about to go.

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options};
use http::Method;
use serde_json::{Value, json};

/// Code, endpoint weight and body of an answer, asked by `client` for a port of a node.
fn answer(lab: &Lab, node: &str, port: u64, path: &str) -> Result<(u16, String, Value)> {
    let n = lab.plan()?.node_number(node).context("a node")?;
    let mut asked = Vec::new();
    for family in lab.plan()?.families() {
        let ip = eastwest_lab::Plan::node_ip(n, *family);
        let url = format!("http://{}{path}", std::net::SocketAddr::new(ip, port as u16));
        let format = "\n%{http_code} %header{x-load-balancing-endpoint-weight}";
        let text = run(lab, "client", &["curl", "-sS", "-m", "5", "-w", format, &url])?;
        let (body, last) = text.rsplit_once('\n').context("the code")?;
        let (code, weight) = last.split_once(' ').context("the weight")?;
        let body = serde_json::from_str(body).with_context(|| format!("{body:?}"))?;
        asked.push((code.parse()?, weight.to_owned(), body));
    }
    let first = asked.swap_remove(0);
    for other in asked {
        ensure!(first.0 == other.0 && first.1 == other.1, "{first:?} and, of the other family, {other:?}");
    }
    Ok(first)
}

fn health_check_node_port(lab: &Lab) -> Result<()> {
    pod(lab, "web-2", "node-2", "web", "v1")?;
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "web"},
                      "ports": [{"port": 80, "targetPort": 8080}]});
    let service = service(lab, "web", spec)?;
    let port = service["spec"]["healthCheckNodePort"].as_u64().context("a healthCheckNodePort")?;
    let has = |node: &str, code: u16, local: u64| -> Result<()> {
        let wanted = json!({"service": {"namespace": "default", "name": "web"},
                            "localEndpoints": local, "serviceProxyHealthy": true});
        eventually(|| {
            let got = answer(lab, node, port, "/any")?;
            ensure!(got == (code, local.to_string(), wanted.clone()), "{node}: {got:?}");
            Ok(())
        })
    };
    has("node-1", 503, 0)?;
    has("node-2", 200, 1)?;
    lab.set_ready(&"web-2".parse()?, false)?;
    has("node-2", 503, 0)?;
    pod(lab, "web-1", "node-1", "web", "v1")?;
    has("node-1", 200, 1)?;
    request(lab, Method::DELETE, &format!("{SERVICES}/web"), &[("wait", "programmed")], None)?;
    eventually(|| {
        ensure!(answer(lab, "node-1", port, "/").is_err(), "the port is still served");
        Ok(())
    })
}

fn node_that_leaves(lab: &Lab) -> Result<()> {
    let path = "/api/v1/nodes/node-1";
    let set = |taints: Value| -> Result<()> {
        let mut node = request(lab, Method::GET, path, &[], None)?;
        node["spec"]["taints"] = taints;
        request(lab, Method::PUT, path, &[], Some(&node))?;
        Ok(())
    };
    let is = |codes: [u16; 2], eligible: bool| {
        eventually(|| {
            for (path, code) in ["/healthz", "/livez"].into_iter().zip(codes) {
                let (got, _, body) = answer(lab, "node-1", 10256, path)?;
                ensure!(got == code, "{path}: {got} {body}");
                ensure!(path == "/livez" || body["nodeEligible"] == eligible, "{path}: {body}");
            }
            Ok(())
        })
    };
    is([200, 200], true)?;
    set(json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]))?;
    is([503, 200], false)?;
    set(json!([]))?;
    is([200, 200], true)
}

#[test]
fn load_balancers_are_told_where_endpoints_are() {
    let result = (|| {
        let lab = lab("hcnp", Options { nodes: 2, ..Options::default() })?;
        health_check_node_port(&lab)?;
        node_that_leaves(&lab)
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}
