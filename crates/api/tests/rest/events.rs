//! Events, made of what nodes report.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn what_nodes_report_of_an_object_is_its_event() {
    let api = Api::new().await;
    let web = api.post(SERVICES, web("web")).await.ok(201);
    api.post(WORKLOADS, workload("w", "web", "10.1.0.1")).await.ok(201);
    let slice = api.items(SLICES).await[0]["metadata"]["name"].as_str().unwrap().to_owned();
    for (node, more) in [("node-1", true), ("node-2", false)] {
        let mut problems = vec![format!("EndpointSlice default/{slice}: endpoints[0]: bad address")];
        if more {
            problems.extend(["Service default/web: no room".to_owned(), "snapshot: disk full".to_owned()]);
        }
        let state = json!({"metadata": {"name": node}, "status": {"problems": problems}});
        api.put(&format!("{STATES}/{node}"), state).await.ok(201);
    }
    let list = api.get("/api/v1/events").await.ok(200);
    assert_eq!(list["kind"], "EventList");
    assert_eq!(list["items"].as_array().unwrap().len(), 3, "of the Service two, of its slice one: {list:#}");

    // As kubectl describe asks.
    let uid = web["metadata"]["uid"].as_str().unwrap();
    let of = format!(
        "involvedObject.name=web,involvedObject.namespace=default,involvedObject.kind=Service,involvedObject.uid={uid}"
    );
    let items = api.items(&format!("/api/v1/namespaces/default/events?fieldSelector={of}")).await;
    let mut messages: Vec<&str> = items.iter().map(|e| e["message"].as_str().unwrap()).collect();
    messages.sort_unstable();
    let of_slice = format!("EndpointSlice {slice}: endpoints[0]: bad address (on node-1, node-2)");
    assert_eq!(messages, [of_slice.as_str(), "no room (on node-1)"]);

    let none: Vec<Value> = api.items("/api/v1/namespaces/other/events").await;
    assert!(none.is_empty());
    api.get("/api/v1/events?fieldSelector=spec.x=1").await.failed(400, "BadRequest");
    api.get("/api/v1/events?watch=true").await.failed(405, "MethodNotAllowed");
    let known = api.get("/api/v1").await.ok(200);
    assert!(known["resources"].as_array().unwrap().iter().any(|r| r["name"] == "events"));

    // What is put right is no event any more.
    let state = json!({"metadata": {"name": "node-1"}, "status": {"services": 1, "problems": []}});
    api.put(&format!("{STATES}/node-1"), state).await.ok(200);
    assert_eq!(api.items("/api/v1/events").await.len(), 2);
}
