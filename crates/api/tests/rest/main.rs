//! The API as clients see it, over a store in memory.

mod errors;
mod events;
mod fuzz;
mod namespaces;
mod nodes;
mod objects;
mod services;
mod slices;
mod splits;
mod traces;
mod watches;

use std::sync::OnceLock;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use eastwest_api::{App, Auth, Config, Role, router};
use eastwest_store::{Memory, Options, Store};
use futures::StreamExt;
use http::{HeaderMap, Method, Request, header};
use serde_json::{Value, json};
use tower::ServiceExt;

pub const SERVICES: &str = "/api/v1/namespaces/default/services";
pub const WORKLOADS: &str = "/apis/eastwest.dev/v1/namespaces/default/workloads";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
pub const NODES: &str = "/api/v1/nodes";
pub const STATES: &str = "/apis/eastwest.dev/v1/nodestates";

/// A whole API.
pub struct Api {
    pub app: App,
    router: Router,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn ok(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{:#}", self.body);
        self.body
    }

    /// The `Status` of an error: its reason, and the fields of its causes.
    #[track_caller]
    pub fn failed(&self, code: u16, reason: &str) -> Vec<String> {
        assert_eq!((self.code, self.body["reason"].as_str()), (code, Some(reason)), "{:#}", self.body);
        assert_eq!(self.body["kind"], "Status");
        let causes = self.body["details"]["causes"].as_array().cloned().unwrap_or_default();
        causes.iter().map(|c| c["field"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Api {
    pub async fn new() -> Self {
        Self::with(Config::default(), Options::default()).await
    }

    pub async fn with(config: Config, options: Options) -> Self {
        let store = Store::open(Memory, options).unwrap();
        let auth = Auth::new(Role::ALL.map(|r| (r.name().to_owned(), r)));
        let app = App::new(store, config, auth, None).unwrap();
        app.bootstrap().await.unwrap();
        Self { router: router(app.clone(), None), app }
    }

    pub async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn call_as(
        &self,
        role: &str,
        method: Method,
        path: &str,
        type_: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {role}"))
            .header(header::CONTENT_TYPE, type_)
            .body(body.into())
            .unwrap();
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        self.call_as("admin", method, path, "application/json", body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call_as("admin", Method::GET, path, "application/json", "").await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call_as("admin", Method::DELETE, path, "application/json", "").await
    }

    pub async fn patch(&self, path: &str, type_: &str, body: Value) -> Answer {
        self.call_as("admin", Method::PATCH, path, type_, body.to_string()).await
    }

    pub async fn items(&self, path: &str) -> Vec<Value> {
        self.get(path).await.ok(200)["items"].as_array().unwrap().clone()
    }

    pub async fn stream(&self, path: &str) -> Lines {
        let request = Request::builder()
            .uri(path)
            .header(header::AUTHORIZATION, "Bearer admin")
            .body(Body::empty())
            .unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), 200);
        Lines { body: response.into_body().into_data_stream(), buffer: Vec::new() }
    }
}

/// A stream of JSON lines.
pub struct Lines {
    body: axum::body::BodyDataStream,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line; `None` at the end, or when none comes for a while.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(Duration::from_millis(500), self.body.next()).await.ok()??;
            self.buffer.extend_from_slice(&chunk.unwrap());
        }
    }

    pub async fn take(&mut self, n: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        while lines.len() < n {
            lines.push(self.next().await.unwrap_or_else(|| panic!("ended after {lines:#?}")));
        }
        lines
    }
}

pub fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

pub fn web(name: &str) -> Value {
    service(name, json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}))
}

pub fn workload(name: &str, app: &str, address: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": app}},
        "spec": {"addresses": [address], "node": "node-1", "ports": [{"name": "http", "port": 8080}]}})
}

/// A config with one small IPv4 range.
pub fn small() -> Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let config = CONFIG.get_or_init(|| Config {
        service_ranges: vec!["10.0.0.0/29".parse().unwrap()],
        dns_service_ips: Vec::new(),
        ..Config::default()
    });
    config.clone()
}
