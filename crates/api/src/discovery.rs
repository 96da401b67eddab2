//! What clients ask first: which groups, versions and resources there are.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use eastwest_model::Kind;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::events::EVENTS;
use crate::kinds::{Served, with_kind};
use crate::{ApiError, App};

/// Groups other than the core group.
const GROUPS: [&str; 2] = ["discovery.k8s.io", "eastwest.dev"];

/// The Kubernetes whose API this is, as far as it goes.
const KUBERNETES: (&str, &str) = ("1", "34");

pub fn routes() -> Router<App> {
    Router::new()
        .route("/api", get(core_versions))
        .route("/apis", get(groups))
        .route("/api/v1", get(|| async { Json(resources("")) }))
        .route("/apis/{group}", get(group))
        .route("/apis/{group}/v1", get(group_version))
        .route("/version", get(version))
        .route("/livez", get(|| async { "ok" }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
}

async fn ready(State(app): State<App>) -> Response {
    match app.unready() {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
        None => "ok".into_response(),
    }
}

async fn version() -> Json<Value> {
    let (major, minor) = KUBERNETES;
    let version = env!("CARGO_PKG_VERSION");
    Json(
        json!({"major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0+eastwest.{version}"),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)}),
    )
}

/// Clients that know aggregated discovery say so in `Accept` and get all of it at once (KEP-3352).
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    let wants = |v: &str| {
        accept.split(',').any(|r| {
            let r: String = r.chars().filter(|c| !c.is_whitespace()).collect();
            r.starts_with("application/json;")
                && r.contains("as=APIGroupDiscoveryList")
                && r.contains(&format!("v={v}"))
                && (r.ends_with(v) || r.contains(&format!("v={v};")))
        })
    };
    ["v2", "v2beta1"].into_iter().find(|v| wants(v))
}

fn aggregated_response(version: &str, groups: &[&str]) -> Response {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let mut resources: Vec<Value> = kinds(group).map(aggregated_resource).collect();
            if group.is_empty() {
                resources.push(
                    json!({"resource": EVENTS, "scope": "Namespaced", "singularResource": "event",
                    "responseKind": {"group": "", "version": "v1", "kind": "Event"}, "shortNames": ["ev"],
                    "verbs": ["list"]}),
                );
            }
            json!({"metadata": {"name": group},
                "versions": [{"version": "v1", "resources": resources, "freshness": "Current"}]})
        })
        .collect();
    let body = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items});
    let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let mut response = Json(body).into_response();
    if let Ok(media) = HeaderValue::from_str(&media) {
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    response
}

fn aggregated_resource(kind: Kind) -> Value {
    let response_kind = json!({"group": kind.group(), "version": "v1", "kind": kind.name()});
    let mut resource = json!({"resource": kind.plural(), "responseKind": response_kind,
        "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular(), "shortNames": kind.short_names(), "verbs": VERBS});
    if has_status(kind) {
        resource["subresources"] =
            json!([{"subresource": "status", "responseKind": response_kind, "verbs": STATUS_VERBS}]);
    }
    resource
}

async fn core_versions(headers: HeaderMap) -> Response {
    if let Some(version) = aggregated(&headers) {
        return aggregated_response(version, &[""]);
    }
    Json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})).into_response()
}

async fn groups(headers: HeaderMap) -> Response {
    if let Some(version) = aggregated(&headers) {
        return aggregated_response(version, &GROUPS);
    }
    let groups: Vec<Value> = GROUPS.iter().map(|g| group_value(g)).collect();
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})).into_response()
}

fn group_value(group: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

async fn group(Path(group): Path<String>) -> Response {
    if !GROUPS.contains(&group.as_str()) {
        return ApiError::no_such_path(&format!("/apis/{group}")).into_response();
    }
    let mut value = group_value(&group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Json(value).into_response()
}

async fn group_version(Path(group): Path<String>) -> Response {
    if !GROUPS.contains(&group.as_str()) {
        return ApiError::no_such_path(&format!("/apis/{group}/v1")).into_response();
    }
    Json(resources(&group)).into_response()
}

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

fn kinds(group: &str) -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(move |k| k.group() == group)
}

fn has_status(kind: Kind) -> bool {
    with_kind!(kind, T => T::HAS_STATUS)
}

/// `APIResourceList` of a group.
fn resources(group: &str) -> Value {
    let mut resources = Vec::new();
    for kind in kinds(group) {
        resources.push(
            json!({"name": kind.plural(), "singularName": kind.singular(), "namespaced": kind.namespaced(),
            "kind": kind.name(), "verbs": VERBS, "shortNames": kind.short_names()}),
        );
        if has_status(kind) {
            resources.push(json!({"name": format!("{}/status", kind.plural()), "singularName": "",
                "namespaced": kind.namespaced(), "kind": kind.name(), "verbs": STATUS_VERBS}));
        }
    }
    if group.is_empty() {
        resources.push(json!({"name": EVENTS, "singularName": "event", "namespaced": true, "kind": "Event",
            "verbs": ["list"], "shortNames": ["ev"]}));
    }
    let version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
}
