//! TrafficSplits.

use serde_json::{Value, json};

use super::*;

const SPLITS: &str = "/apis/eastwest.dev/v1/namespaces/default/trafficsplits";

fn split(name: &str, service: &str, weights: &[u32]) -> Value {
    let group = |(i, w): (usize, &u32)| json!({"selector": {"matchLabels": {"version": format!("v{i}")}}, "weight": w});
    let backends: Vec<Value> = weights.iter().enumerate().map(group).collect();
    json!({"apiVersion": "eastwest.dev/v1", "kind": "TrafficSplit", "metadata": {"name": name},
        "spec": {"service": service, "backends": backends}})
}

fn accepted(split: &Value) -> (&str, &str) {
    let condition = &split["status"]["conditions"][0];
    assert_eq!(condition["type"], "Accepted");
    (condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
}

#[tokio::test]
async fn a_split_says_whether_it_takes_effect() {
    let api = Api::new().await;
    let made = api.post(SPLITS, split("a", "web", &[90, 10])).await.ok(201);
    assert_eq!(accepted(&made), ("True", "Accepted"));
    let path = format!("{SPLITS}/a");
    let none = api.put(&path, split("a", "web", &[0, 0])).await.ok(200);
    assert_eq!(accepted(&none), ("False", "NoWeight"));
    let again = api.put(&path, split("a", "web", &[0, 0])).await.ok(200);
    assert_eq!(again, none, "nothing is written");
    let back = api.put(&path, split("a", "web", &[1])).await.ok(200);
    assert_eq!((accepted(&back), back["metadata"]["generation"].as_i64()), (("True", "Accepted"), Some(3)));
}

#[tokio::test]
async fn a_service_has_one() {
    let api = Api::new().await;
    api.post(SPLITS, split("a", "web", &[1])).await.ok(201);
    let second = api.post(SPLITS, split("b", "web", &[1])).await;
    assert_eq!(second.failed(422, "Invalid"), ["spec.service"]);
    assert!(second.body["message"].as_str().unwrap().contains("TrafficSplit a"));
    api.post(SPLITS, split("b", "db", &[1])).await.ok(201);
    // The first moves to another Service: its place is free.
    api.put(&format!("{SPLITS}/a"), split("a", "other", &[1])).await.ok(200);
    api.put(&format!("{SPLITS}/b"), split("b", "web", &[1])).await.ok(200);
    api.delete(&format!("{SPLITS}/b")).await.ok(200);
    api.post(SPLITS, split("c", "web", &[1])).await.ok(201);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let api = Api::new().await;
    let mut bad = split("a", "web", &[1_000_001]);
    bad["spec"]["backends"][0]["selector"]["matchLabels"] = json!({"a b": "c"});
    let fields = api.post(SPLITS, bad).await.failed(422, "Invalid");
    assert_eq!(fields, ["spec.backends[0].selector.matchLabels", "spec.backends[0].weight"]);
    let empty = api.post(SPLITS, json!({"metadata": {"name": "a"}})).await.failed(422, "Invalid");
    assert_eq!(empty, ["spec.service", "spec.backends"]);
    let list = api.get("/apis/eastwest.dev/v1/trafficsplits").await.ok(200);
    assert_eq!(list["kind"], "TrafficSplitList");
}
