//! Watches.

use serde_json::{Value, json};

use super::*;

fn brief(event: &Value) -> (String, String) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
}

fn pairs(events: &[Value]) -> Vec<(String, String)> {
    events.iter().map(brief).collect()
}

fn expect(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn events_after_a_revision() {
    let api = Api::new().await;
    let list = api.get(SERVICES).await.ok(200);
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = api.stream(&format!("{SERVICES}?watch=true&resourceVersion={from}")).await;
    let made = api.post(SERVICES, web("web")).await.ok(201);
    let merge = "application/merge-patch+json";
    api.patch(&format!("{SERVICES}/web"), merge, json!({"metadata": {"labels": {"a": "1"}}})).await.ok(200);
    // Of another namespace and another kind: not for this watch.
    api.post(WORKLOADS, workload("w", "x", "10.1.0.1")).await.ok(201);
    api.delete(&format!("{SERVICES}/web")).await.ok(200);
    let events = watch.take(3).await;
    assert_eq!(pairs(&events), expect(&[("ADDED", "web"), ("MODIFIED", "web"), ("DELETED", "web")]));
    assert_eq!(events[0]["object"], made);
    let revision =
        |e: &Value| e["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(events.windows(2).all(|w| revision(&w[0]) < revision(&w[1])), "a deletion has its own revision");

    // The same again, from where the first ended.
    let mut again = api.stream(&format!("{SERVICES}?watch=1&resourceVersion={}", revision(&events[0]))).await;
    assert_eq!(again.take(2).await, events[1..]);
    assert_eq!(again.next().await, None);
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_what_there_is() {
    let api = Api::new().await;
    api.post(SERVICES, web("a")).await.ok(201);
    api.post(SERVICES, web("b")).await.ok(201);
    for query in ["", "&resourceVersion=0"] {
        let mut watch = api.stream(&format!("{SERVICES}?watch=true{query}")).await;
        assert_eq!(pairs(&watch.take(2).await), expect(&[("ADDED", "a"), ("ADDED", "b")]));
    }
    let query =
        "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = api.stream(&format!("{SERVICES}?{query}")).await;
    let events = watch.take(3).await;
    assert_eq!(pairs(&events), expect(&[("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")]));
    assert_eq!(events[2]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    api.post(SERVICES, web("c")).await.ok(201);
    assert_eq!(pairs(&watch.take(1).await), expect(&[("ADDED", "c")]));
}

#[tokio::test]
async fn objects_come_into_and_leave_a_selection() {
    let api = Api::new().await;
    let mut watch = api.stream(&format!("{SERVICES}?watch=true&labelSelector=on")).await;
    let merge = "application/merge-patch+json";
    api.post(SERVICES, web("web")).await.ok(201);
    for labels in [json!({"on": "1"}), json!({"on": "2"}), json!({"on": null})] {
        api.patch(&format!("{SERVICES}/web"), merge, json!({"metadata": {"labels": labels}})).await.ok(200);
    }
    api.delete(&format!("{SERVICES}/web")).await.ok(200);
    assert_eq!(
        pairs(&watch.take(3).await),
        expect(&[("ADDED", "web"), ("MODIFIED", "web"), ("DELETED", "web")])
    );
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_forgotten_revision_is_gone() {
    let api = Api::with(Config::default(), Options { window_events: 3, ..Options::default() }).await;
    for i in 0..6 {
        api.post(SERVICES, web(&format!("s{i}"))).await.ok(201);
    }
    for revision in ["1", "99999"] {
        let mut watch = api.stream(&format!("{SERVICES}?watch=true&resourceVersion={revision}")).await;
        let event = watch.next().await.unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["code"], &event["object"]["reason"]),
            (&json!("ERROR"), &json!(410), &json!("Expired"))
        );
        assert_eq!(watch.next().await, None);
    }
}

#[tokio::test]
async fn a_watch_ends_when_asked_to() {
    let api = Api::new().await;
    let start = std::time::Instant::now();
    let mut watch = api.stream(&format!("{SERVICES}?watch=true&timeoutSeconds=1")).await;
    while start.elapsed().as_millis() < 900 {
        assert_eq!(watch.next().await, None);
    }
    let mut other = api.stream(&format!("{SERVICES}?watch=true")).await;
    api.app.close();
    let ended = tokio::time::timeout(Duration::from_millis(200), other.body.next()).await;
    assert!(matches!(ended, Ok(None)), "shutting down ends watches");
    assert_eq!(api.get("/readyz").await.code, 503);
    assert_eq!(api.get("/livez").await.code, 200);
}

#[tokio::test]
async fn tables_are_watched_too() {
    let api = Api::new().await;
    api.post(SERVICES, web("web")).await.ok(201);
    let request = Request::builder()
        .uri(format!("{SERVICES}?watch=true"))
        .header(header::AUTHORIZATION, "Bearer admin")
        .header(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Body::empty())
        .unwrap();
    let mut lines =
        Lines { body: api.send(request).await.into_body().into_data_stream(), buffer: Vec::new() };
    let event = lines.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "web");
}
