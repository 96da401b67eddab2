//! Namespaces and what is in them.

use serde_json::json;

use super::*;

const NAMESPACES: &str = "/api/v1/namespaces";

#[tokio::test]
async fn nothing_lives_outside_a_namespace() {
    let api = Api::new().await;
    let path = "/api/v1/namespaces/shop/services";
    api.post(path, web("web")).await.failed(404, "NotFound");
    let made = api.post(NAMESPACES, json!({"metadata": {"name": "shop"}})).await.ok(201);
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "shop");
    api.post(path, web("web")).await.ok(201);
    let mut elsewhere = web("other");
    elsewhere["metadata"]["namespace"] = "default".into();
    assert_eq!(api.post(path, elsewhere).await.failed(400, "BadRequest"), ["metadata.namespace"]);
}

#[tokio::test]
async fn deleting_a_namespace_deletes_what_is_in_it() {
    let api = Api::new().await;
    api.post(NAMESPACES, json!({"metadata": {"name": "shop"}})).await.ok(201);
    api.post("/api/v1/namespaces/shop/services", web("web")).await.ok(201);
    let workloads = "/apis/eastwest.dev/v1/namespaces/shop/workloads";
    for i in 1..4 {
        api.post(workloads, workload(&format!("w{i}"), "web", &format!("10.1.0.{i}"))).await.ok(201);
    }
    let record = json!({"metadata": {"name": "r"}, "spec": {"name": "a.example", "type": "A", "values": ["192.0.2.1"]}});
    api.post("/apis/eastwest.dev/v1/namespaces/shop/dnsrecords", record).await.ok(201);
    let head = api.app.revision();
    api.delete(&format!("{NAMESPACES}/shop")).await.ok(200);
    assert_eq!(
        api.app.revision().0 - head.0,
        7,
        "service, slice, three workloads, record, namespace: each once"
    );
    for path in
        ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/apis/eastwest.dev/v1/workloads"]
    {
        assert!(api.items(path).await.iter().all(|i| i["metadata"]["namespace"] != "shop"), "{path}");
    }
    // Made anew, it is empty, and its workloads are selected as before.
    api.post(NAMESPACES, json!({"metadata": {"name": "shop"}})).await.ok(201);
    api.post(workloads, workload("w1", "web", "10.1.0.1")).await.ok(201);
    api.post("/api/v1/namespaces/shop/services", web("web")).await.ok(201);
    assert_eq!(api.items("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices").await.len(), 1);
}

#[tokio::test]
async fn system_namespaces_stay() {
    let api = Api::new().await;
    for name in ["default", "kube-system"] {
        api.delete(&format!("{NAMESPACES}/{name}")).await.failed(403, "Forbidden");
    }
    api.delete(NAMESPACES).await.ok(200);
    assert_eq!(api.items(NAMESPACES).await.len(), 2);
}

#[tokio::test]
async fn a_namespace_waits_for_finalizers() {
    let api = Api::new().await;
    api.post(NAMESPACES, json!({"metadata": {"name": "shop"}})).await.ok(201);
    let path = "/apis/eastwest.dev/v1/namespaces/shop/workloads";
    let mut held = workload("held", "web", "10.1.0.1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.post(path, held).await.ok(201);
    api.post(path, workload("free", "web", "10.1.0.2")).await.ok(201);
    let marked = api.delete(&format!("{NAMESPACES}/shop")).await.ok(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert_eq!(api.items(path).await.len(), 1);
    api.post(path, workload("late", "web", "10.1.0.3")).await.failed(403, "Forbidden");
    let release = json!({"metadata": {"finalizers": []}});
    api.patch(&format!("{path}/held"), "application/merge-patch+json", release).await.ok(200);
    api.get(&format!("{NAMESPACES}/shop")).await.failed(404, "NotFound");
}
