//! `/v1/trace`.

use serde_json::{Value, json};

use super::*;

async fn cluster() -> Api {
    let api = Api::new().await;
    for n in 1..3 {
        let node = json!({"metadata": {"name": format!("node-{n}")}, "spec": {"podCIDRs": [format!("10.1.{n}.0/24")]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{n}")}]}});
        api.post(NODES, node).await.ok(201);
    }
    for (name, node, version) in [("a", 1, "v1"), ("b", 2, "v2"), ("client", 1, "none")] {
        let last = name.as_bytes()[0];
        let app = if name == "client" { "client" } else { "web" };
        let mut w = workload(name, app, &format!("10.1.{node}.{last}"));
        w["spec"]["node"] = json!(format!("node-{node}"));
        w["metadata"]["labels"]["version"] = json!(version);
        api.post(WORKLOADS, w).await.ok(201);
    }
    let spec = json!({"selector": {"app": "web"}, "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}]});
    let web = api.post(SERVICES, service("web", spec)).await.ok(201);
    let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    api.patch(&format!("{SERVICES}/web/status"), "application/merge-patch+json", ingress).await.ok(200);
    assert!(web["spec"]["clusterIP"].is_string());
    api.post(SERVICES, service("empty", json!({"ports": [{"port": 80}]}))).await.ok(201);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    api.patch(&format!("{WORKLOADS}/a/status"), "application/merge-patch+json", ready).await.ok(200);
    api
}

async fn trace(api: &Api, from: &str, to: &str, more: &str) -> Value {
    api.get(&format!("/v1/trace?from={from}&to={to}{more}")).await.ok(200)
}

/// The verdict, and the endpoints by name with their shares and what they see.
fn shown(trace: &Value) -> String {
    let path = &trace["paths"][0];
    let mut text = path["verdict"].as_str().unwrap_or("nowhere").to_owned();
    for b in path["backends"].as_array().into_iter().flatten() {
        let (target, share) = (b["target"].as_str().unwrap(), b["share"].as_f64().unwrap());
        let name = target.trim_start_matches("Workload ");
        text += &format!(" {name}={:.0}%", share * 100.0);
        if let Some(sees) = b["sees"].as_str() {
            text += &format!("<{sees}>");
        }
    }
    text
}

#[tokio::test]
async fn what_a_connection_gets() {
    let api = cluster().await;
    for (from, to, more, wanted) in [
        ("pod/default/client", "tcp://web.default:80", "", "translated a=50%<10.1.1.99> b=50%<10.1.1.99>"),
        ("pod/client", "web:80", "", "translated a=50%<10.1.1.99> b=50%<10.1.1.99>"),
        (
            "pod/a",
            "web:80",
            "",
            "translated a=50%<an address of its node, as it would be its own> b=50%<10.1.1.97>",
        ),
        (
            "node/node-2",
            "web.default.svc.cluster.local:80",
            "",
            "translated a=50%<192.0.2.2> b=50%<192.0.2.2>",
        ),
        ("pod/client", "udp://web:80", "", "refused"),
        ("pod/client", "web:81", "", "refused"),
        ("pod/client", "empty:80", "", "refused"),
        ("pod/client", "10.96.255.1:80", "", "dropped"),
        ("pod/client", "10.1.2.98:8080", "", "direct"),
        ("pod/client", "nothing:80", "", "nowhere"),
        ("pod/client", "node-1:30080", "", "translated a=50%<10.1.1.99> b=50%<10.1.1.99>"),
        ("client/198.51.100.7", "node-1:30080", "", "translated a=100%<198.51.100.7> b=0%"),
        ("198.51.100.7", "203.0.113.1:80", "&node=node-2", "translated a=0% b=100%<198.51.100.7>"),
        ("198.51.101.7", "203.0.113.1:80", "", "dropped a=0% b=0%"),
        ("client/10.1.2.98", "192.0.2.1:30080", "", "translated a=50%<10.1.2.98> b=50%<10.1.2.98>"),
    ] {
        assert_eq!(shown(&trace(&api, from, to, more).await), wanted, "{from} to {to} {more}");
    }
    let one = trace(&api, "client/198.51.100.7", "192.0.2.1:30080", "").await;
    assert_eq!(one["paths"][0]["backends"][1]["reason"], "on another node, and the policy is Local");
    assert_eq!(one["paths"][0]["frontend"]["kind"], "NodePort");
    assert_eq!(one["paths"][0]["service"], "default/web");
    assert_eq!(one["paths"][0]["hooks"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_split_and_readiness_show() {
    let api = cluster().await;
    let group = |v: &str, w: u32| json!({"selector": {"matchLabels": {"version": v}}, "weight": w});
    let split = json!({"metadata": {"name": "web"}, "spec": {"service": "web", "backends": [group("v1", 90), group("v2", 10)]}});
    api.post("/apis/eastwest.dev/v1/namespaces/default/trafficsplits", split).await.ok(201);
    let seen = trace(&api, "node/node-1", "web:80", "").await;
    assert_eq!(shown(&seen), "translated a=90%<192.0.2.1> b=10%<192.0.2.1>");
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    api.patch(&format!("{WORKLOADS}/a/status"), "application/merge-patch+json", not_ready).await.ok(200);
    let seen = trace(&api, "node/node-1", "web:80", "").await;
    assert_eq!(shown(&seen), "translated a=0% b=100%<192.0.2.1>");
    assert_eq!(seen["paths"][0]["backends"][0]["reason"], "not ready");
}

#[tokio::test]
async fn what_cannot_be_asked_is_said() {
    let api = cluster().await;
    for (from, to, part) in [
        ("pod/nobody", "web:80", "there is no pod default/nobody"),
        ("node/n9", "web:80", "there is no node \"n9\""),
        ("x", "web:80", "query parameter from"),
        ("pod/client", "web", "query parameter to"),
    ] {
        let answer = api.get(&format!("/v1/trace?from={from}&to={to}")).await;
        assert_eq!(answer.code, 400);
        assert!(answer.body["detail"].as_str().unwrap().contains(part), "{:#}", answer.body);
    }
}
