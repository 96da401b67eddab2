//! Agents: their stream, their reports, and writers that wait for them.

use eastwest_model::stream::Message;
use serde_json::{Value, json};

use super::*;

fn messages(lines: Vec<Value>) -> Vec<Message> {
    lines.into_iter().map(|l| serde_json::from_str(&l.to_string()).unwrap()).collect()
}

async fn next(stream: &mut Lines) -> Message {
    messages(stream.take(1).await).remove(0)
}

#[tokio::test]
async fn a_new_agent_gets_all_and_one_that_comes_back_what_it_missed() {
    let api = Api::new().await;
    api.post(SERVICES, web("web")).await.ok(201);
    api.post(WORKLOADS, workload("w", "web", "10.1.0.1")).await.ok(201);
    let mut stream = api.stream("/v1/agent/stream?node=node-1").await;
    let Message::Hello { store_id, revision } = next(&mut stream).await else { panic!("hello") };
    assert_eq!(revision, api.app.revision());
    assert!(matches!(next(&mut stream).await, Message::Reset));
    let mut kinds = Vec::new();
    loop {
        match next(&mut stream).await {
            Message::Put { kind, object, revision } => {
                let object: Value = serde_json::from_str(object.get()).unwrap();
                assert_eq!(object["metadata"]["resourceVersion"], revision.to_string());
                kinds.push(kind.name());
            }
            Message::Synced { revision: synced } => {
                assert_eq!(synced, revision);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kinds, ["Namespace", "Namespace", "Service", "Service", "EndpointSlice", "Workload"]);

    api.delete(&format!("{WORKLOADS}/w")).await.ok(200);
    let seen = messages(stream.take(2).await);
    let gone = |m: &Message| match m {
        Message::Delete { kind, namespace, name, .. } => (kind.name(), namespace.clone(), name.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(gone(&seen[0]), ("Workload", "default".into(), "w".into()));
    assert_eq!(gone(&seen[1]).0, "EndpointSlice");

    let path = format!("/v1/agent/stream?node=node-1&storeId={store_id}&revision={revision}");
    let mut back = api.stream(&path).await;
    assert!(matches!(next(&mut back).await, Message::Hello { .. }));
    let head = api.app.revision();
    assert!(matches!(next(&mut back).await, Message::Bookmark { revision: r } if r == revision));
    assert_eq!(
        messages(back.take(2).await).iter().map(gone).map(|g| g.0).collect::<Vec<_>>(),
        ["Workload", "EndpointSlice"]
    );
    let mut current =
        api.stream(&format!("/v1/agent/stream?node=node-1&storeId={store_id}&revision={head}")).await;
    assert!(matches!(next(&mut current).await, Message::Hello { .. }));
    assert!(matches!(next(&mut current).await, Message::Bookmark { revision: r } if r == head));

    for other in [
        "storeId=another&revision=3".to_owned(),
        format!("storeId={store_id}&revision=999"),
        "revision=2".into(),
    ] {
        let mut fresh = api.stream(&format!("/v1/agent/stream?node=node-1&{other}")).await;
        assert!(matches!(next(&mut fresh).await, Message::Hello { .. }));
        assert!(matches!(next(&mut fresh).await, Message::Reset), "{other}");
    }
    for bad in ["", "?node=", "?node=a/b", "?node=n&revision=x"] {
        let answer = api.get(&format!("/v1/agent/stream{bad}")).await;
        assert_eq!((answer.code, &answer.body["status"]), (400, &json!(400)), "{bad}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
}

#[tokio::test]
async fn an_agent_that_is_too_slow_starts_over() {
    let api = Api::with(Config::default(), Options { window_events: 4, ..Options::default() }).await;
    let mut stream = api.stream("/v1/agent/stream?node=node-1").await;
    stream.take(6).await;
    for i in 0..10 {
        api.post(SERVICES, web(&format!("s{i}"))).await.ok(201);
    }
    assert!(matches!(next(&mut stream).await, Message::Reset));
    let mut puts = 0;
    while matches!(next(&mut stream).await, Message::Put { .. }) {
        puts += 1;
    }
    assert_eq!(puts, 13);
}

async fn report(api: &Api, node: &str, revision: u64, store_id: &str) -> Value {
    let body =
        json!({"metadata": {"name": node}, "status": {"storeId": store_id, "appliedRevision": revision}});
    let answer = api
        .call_as(
            "agent",
            http::Method::PUT,
            &format!("{STATES}/{node}"),
            "application/json",
            body.to_string(),
        )
        .await;
    assert!(matches!(answer.code, 200 | 201), "{:#}", answer.body);
    answer.body
}

#[tokio::test]
async fn reports_are_kept_apart_from_the_store() {
    let api = Api::new().await;
    let head = api.app.revision();
    let mut watch = api.stream(&format!("{STATES}?watch=true")).await;
    report(&api, "node-1", 5, "x").await;
    let second = report(&api, "node-1", 6, "x").await;
    assert_eq!(second["status"]["appliedRevision"], 6);
    assert_eq!(api.app.revision(), head, "a report is no write to the store");
    let types: Vec<_> = watch.take(2).await.iter().map(|e| e["type"].clone()).collect();
    assert_eq!(types, ["ADDED", "MODIFIED"]);

    let stream = api.stream("/v1/agent/stream?node=node-1").await;
    assert_eq!(watch.next().await.unwrap()["object"]["status"]["connected"], true);
    assert_eq!(report(&api, "node-1", 7, "x").await["status"]["connected"], true, "the server knows better");
    watch.next().await.unwrap();
    drop(stream);
    assert_eq!(watch.next().await.unwrap()["object"]["status"]["connected"], false);
}

#[tokio::test]
async fn a_writer_waits_for_every_node() {
    let api = std::sync::Arc::new(Api::new().await);
    let waiting = "wait=programmed&timeout=300ms";
    api.post(&format!("{SERVICES}?{waiting}"), web("alone")).await.ok(201);
    for node in ["node-1", "node-2"] {
        let body = json!({"metadata": {"name": node}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
        api.call_as("agent", http::Method::POST, NODES, "application/json", body.to_string()).await.ok(201);
    }
    let id = api.app.store().id().to_owned();
    report(&api, "node-1", 1000, &id).await;
    report(&api, "node-2", 2, &id).await;
    let answer = api.post(&format!("{SERVICES}?{waiting}"), web("late")).await;
    assert_eq!(answer.failed(504, "Timeout"), ["node-2"]);
    let message = answer.body["message"].as_str().unwrap();
    let revision = api.app.revision();
    assert!(
        message.contains(&format!("revision {revision}")) && message.contains("node-2 has revision 2"),
        "{message}"
    );
    api.get(&format!("{SERVICES}/late")).await.ok(200);

    report(&api, "node-2", 1000, "another store").await;
    let answer = api.delete(&format!("{SERVICES}/late?{waiting}")).await;
    assert!(answer.body["message"].as_str().unwrap().contains("reported nothing"), "{:#}", answer.body);

    let (writer, start) = (api.clone(), std::time::Instant::now());
    let write = tokio::spawn(async move {
        writer.post(&format!("{SERVICES}?wait=programmed&timeout=5s"), web("soon")).await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!write.is_finished());
    report(&api, "node-2", api.app.revision().0, &id).await;
    write.await.unwrap().ok(201);
    assert!(start.elapsed() < Duration::from_secs(1), "at once, not at the next look");

    // A node that is deleted is waited for no longer.
    report(&api, "node-2", 1, &id).await;
    let writer = api.clone();
    let write =
        tokio::spawn(async move { writer.post(&format!("{SERVICES}?wait=programmed"), web("gone")).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    api.delete(&format!("{NODES}/node-2")).await.ok(200);
    write.await.unwrap().ok(201);
}

#[tokio::test]
async fn the_topology_sums_up() {
    let api = Api::new().await;
    api.post(NODES, json!({"metadata": {"name": "node-1"}, "spec": {"podCIDRs": ["10.1.0.0/24"]}}))
        .await
        .ok(201);
    let dual =
        json!({"selector": {"app": "web"}, "ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack"});
    api.post(SERVICES, service("web", dual)).await.ok(201);
    let mut w = workload("w1", "web", "10.1.0.1");
    w["spec"]["addresses"] = json!(["10.1.0.1", "fd00::1"]);
    api.post(WORKLOADS, w).await.ok(201);
    let mut w = workload("w2", "web", "10.1.0.2");
    w["spec"]["readiness"] = "NotReady".into();
    api.post(WORKLOADS, w).await.ok(201);
    let head = api.app.revision().0;
    report(&api, "node-1", head - 1, api.app.store().id()).await;
    let topology = api.get("/v1/topology").await.ok(200);
    assert_eq!(topology["revision"], head);
    let node = &topology["nodes"][0];
    assert_eq!(
        (&node["appliedRevision"], &node["behind"], &node["connected"]),
        (&json!(head - 1), &json!(1), &json!(false))
    );
    let web = &topology["services"][0];
    assert_eq!((&web["name"], &web["ready"], &web["endpoints"]), (&json!("web"), &json!(1), &json!(2)));
}
