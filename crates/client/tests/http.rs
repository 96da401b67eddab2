//! Client and follower against a small HTTP server on loopback.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use eastwest_client::sync::{Event, Machine};
use eastwest_client::{
    Client, Error, Follow, Following, ListOptions, Outcome, WatchEventType, WriteOptions, follow,
};
use eastwest_model::Service;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

async fn serve(app: Router) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    client(port).await
}

async fn client(port: u16) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
         clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
         users: [{{name: u, user: {{token: secret}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u, namespace: team}}}}]\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, text).unwrap();
    Client::from_path(Some(&file), None).await.unwrap()
}

#[derive(Clone, Default)]
struct Fake {
    queries: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    object: Arc<Mutex<Option<Value>>>,
}

fn lines(parts: Vec<&'static str>, hang: bool) -> Body {
    let parts = futures::stream::iter(parts.into_iter().map(|p| Ok::<_, Infallible>(p.to_owned())));
    if hang { Body::from_stream(parts.chain(futures::stream::pending())) } else { Body::from_stream(parts) }
}

#[tokio::test]
async fn the_follower_comes_back_with_what_it_holds() {
    async fn stream(
        State(fake): State<Fake>,
        RawQuery(query): RawQuery,
        headers: HeaderMap,
    ) -> impl IntoResponse {
        assert_eq!(headers["authorization"], "Bearer secret");
        fake.queries.lock().unwrap().push(query.unwrap_or_default());
        match fake.connections.fetch_add(1, Ordering::SeqCst) {
            0 => (StatusCode::SERVICE_UNAVAILABLE, lines(vec!["{\"title\":\"not yet\"}"], false)),
            1 => {
                let parts = vec![
                    "{\"hello\":{\"storeId\":\"s\",\"revision\":7}}\n\"reset\"\n{\"put\":{\"revision\":3,\"kind\":\"Service\",",
                    "\"object\":{\"metadata\":{\"namespace\":\"n\",\"name\":\"a\"}}}}\n{\"synced\":{\"revision\":7}}\n",
                    "{\"bookmark\":{\"revi",
                ];
                (StatusCode::OK, lines(parts, false))
            }
            _ => {
                let parts =
                    vec!["{\"hello\":{\"storeId\":\"s\",\"revision\":8}}\n{\"bookmark\":{\"revision\":8}}\n"];
                (StatusCode::OK, lines(parts, true))
            }
        }
    }
    let fake = Fake::default();
    let client = serve(Router::new().route("/v1/agent/stream", get(stream)).with_state(fake.clone())).await;
    let (events, mut received) = mpsc::channel(1);
    let (status, mut standing) = watch::channel(Following::default());
    let machine = Machine::new(None, 5, Instant::now());
    let task = tokio::spawn(follow(Follow { client, node: "node 1".into(), machine, events, status }));
    let mut got = Vec::new();
    while got.len() < 6 {
        let event =
            tokio::time::timeout(Duration::from_secs(5), received.recv()).await.unwrap().unwrap().event;
        got.push(match event {
            Event::Hello { head, .. } => format!("hello {head}"),
            Event::Reset => "reset".into(),
            Event::Put { kind, .. } => format!("put {kind:?}"),
            Event::Synced { listed, .. } => format!("synced {}", listed.len()),
            Event::Bookmark { revision } => format!("bookmark {revision}"),
            Event::Delete { .. } => "delete".into(),
        });
    }
    assert_eq!(got, ["hello 7", "reset", "put Service", "synced 1", "hello 8", "bookmark 8"]);
    let queries = fake.queries.lock().unwrap().clone();
    assert_eq!(queries, ["node=node+1", "node=node+1", "node=node+1&storeId=s&revision=7"]);
    let now = standing.borrow_and_update().clone();
    assert_eq!((now.connected, now.connections, now.failures, now.head.0), (true, 2, 2, 8));
    drop(received);
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("ends with its receiver").unwrap();
}

#[tokio::test]
async fn apply_creates_then_patches_and_errors_are_readable() {
    async fn one(State(fake): State<Fake>) -> impl IntoResponse {
        match fake.object.lock().unwrap().clone() {
            Some(object) => (StatusCode::OK, object.to_string()),
            None => {
                let status = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "services \"web\" not found"});
                (StatusCode::NOT_FOUND, status.to_string())
            }
        }
    }
    async fn create(State(fake): State<Fake>, RawQuery(query): RawQuery, body: String) -> impl IntoResponse {
        assert_eq!(query.unwrap(), "wait=programmed&timeout=5000ms");
        let mut object: Value = serde_json::from_str(&body).unwrap();
        object["metadata"]["resourceVersion"] = "1".into();
        *fake.object.lock().unwrap() = Some(object.clone());
        (StatusCode::CREATED, object.to_string())
    }
    async fn patch(State(fake): State<Fake>, headers: HeaderMap, body: String) -> impl IntoResponse {
        assert_eq!(headers["content-type"], "application/merge-patch+json");
        let patch: Value = serde_json::from_str(&body).unwrap();
        let object = fake.object.lock().unwrap().clone().unwrap();
        if patch["spec"]["selector"] == object["spec"]["selector"] {
            return object.to_string();
        }
        assert_eq!(patch["spec"]["selector"], json!({"app": null, "name": "b"}));
        let mut object = object;
        object["metadata"]["resourceVersion"] = "2".into();
        object.to_string()
    }
    let fake = Fake::default();
    let one = get(one).patch(patch);
    let app = Router::new()
        .route("/api/v1/namespaces/team/services", axum::routing::post(create))
        .route("/api/v1/namespaces/team/services/web", one)
        .with_state(fake);
    let client = serve(app).await;
    let error = client.get::<Service>("team", "web").await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "services \"web\" not found");
    let wait = WriteOptions { wait_programmed: Some(Duration::from_secs(5)), ..Default::default() };
    let manifest = |label: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {label: "b"}}});
    let done = client.apply(&manifest("app"), None, &wait).await.unwrap();
    assert_eq!((done.outcome, &done.object["metadata"]["namespace"]), (Outcome::Created, &json!("team")));
    let none = WriteOptions::default();
    assert_eq!(client.apply(&manifest("app"), None, &none).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(client.apply(&manifest("name"), None, &none).await.unwrap().outcome, Outcome::Configured);
    let error = client.apply(&json!({"apiVersion": "v1", "kind": "Pod"}), None, &none).await.unwrap_err();
    assert!(
        error.to_string().contains("no kind \"Pod\"") && error.to_string().contains("v1 Service"),
        "{error}"
    );
}

#[tokio::test]
async fn a_watch_gives_events_and_ends_with_its_error() {
    async fn watch() -> impl IntoResponse {
        lines(
            vec![
                "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\n{\"type\":\"BOOKM",
                "ARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"5\"}}}\n",
                "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\",\"message\":\"too old\"}}\n",
                "{\"type\":\"ADDED\",\"object\":{}}\n",
            ],
            true,
        )
    }
    let client = serve(Router::new().route("/api/v1/services", get(watch))).await;
    let events = client.watch::<Service>(None, &ListOptions::default()).await.unwrap();
    let events: Vec<_> = events.collect().await;
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].as_ref().unwrap().object.metadata.name, "a");
    assert_eq!(events[1].as_ref().unwrap().type_, WatchEventType::Bookmark);
    assert_eq!(events[2].as_ref().unwrap_err().code(), Some(410));
}

#[tokio::test]
async fn nobody_there_and_no_kubeconfig() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = client(port).await.get::<Service>("a", "b").await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    let error = Client::from_path(Some("/nonexistent/kubeconfig".as_ref()), None).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
}
