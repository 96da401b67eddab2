//! `v1` Events: what agents report of single objects, where `kubectl describe` and `kubectl get events` look for it. They
//! are made from the nodes' states when somebody asks, and so are there exactly as long as what they tell of.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use eastwest_model::{Kind, LABEL_SERVICE_NAME, NodeState};
use eastwest_store::Key;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ApiError, App};

/// The name of the resource in paths and discovery.
pub const EVENTS: &str = "events";

/// Which events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// involvedObject.kind, .name, .namespace, .uid, metadata.namespace, reason, type: FIELD=VALUE or FIELD!=VALUE, joined by commas
    field_selector: Option<String>,
    watch: Option<String>,
}

/// What nodes report of objects, in all namespaces.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(EventQuery),
    responses((status = 200, description = "An EventList", content_type = "application/json"))
)]
pub async fn all(State(app): State<App>, query: Query<EventQuery>) -> Response {
    answer(app, query.0, None).await
}

/// What nodes report of objects, in one namespace.
#[utoipa::path(
    get,
    path = "/api/v1/namespaces/{namespace}/events",
    tag = "events",
    params(("namespace" = String, Path, description = "Name of a namespace"), EventQuery),
    responses((status = 200, description = "An EventList", content_type = "application/json"))
)]
pub async fn namespaced(
    State(app): State<App>,
    Path(namespace): Path<String>,
    query: Query<EventQuery>,
) -> Response {
    answer(app, query.0, Some(namespace)).await
}

async fn answer(app: App, query: EventQuery, namespace: Option<String>) -> Response {
    if query.watch.is_some_and(|w| !matches!(&*w, "false" | "0" | "False")) {
        return ApiError::method_not_allowed("GET, without watch").into_response();
    }
    let selector = match Selector::parse(query.field_selector.as_deref().unwrap_or_default()) {
        Ok(selector) => selector,
        Err(e) => {
            return ApiError::bad_request(format!("query parameter fieldSelector: {e}")).into_response();
        }
    };
    let mut events = events(&app);
    events.retain(|e| {
        let here = namespace.as_deref().is_none_or(|ns| e["metadata"]["namespace"] == *ns);
        here && selector.matches(e)
    });
    let revision = app.revision().to_string();
    let list = json!({"kind": "EventList", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": events});
    Json(list).into_response()
}

/// An object and what is wrong with it.
type Problem = ((Kind, String, String), String);

/// `Service default/web: no room` and its like; `None` for what is about no single object.
fn parse(problem: &str) -> Option<Problem> {
    let (kind, rest) = problem.split_once(' ')?;
    let kind = Kind::ALL.into_iter().find(|k| k.name() == kind && k.namespaced())?;
    let (object, message) = rest.split_once(": ")?;
    let (namespace, name) = object.split_once('/')?;
    Some(((kind, namespace.to_owned(), name.to_owned()), message.to_owned()))
}

/// Something that is wrong with an object, as nodes report it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectProblem {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    /// Empty when the object is gone.
    pub uid: String,
    /// With the nodes that report it, a few of them by name.
    pub text: String,
}

impl App {
    /// What nodes report of single objects now.
    pub fn problems(&self) -> Vec<ObjectProblem> {
        let states: Vec<NodeState> = self.realm(Kind::NodeState).store.read(|view| {
            let all = view.range(Kind::NodeState, None, None);
            all.filter_map(|o| serde_json::from_slice(&o.json).ok()).collect()
        });
        let mut nodes: BTreeMap<Problem, Vec<&str>> = BTreeMap::new();
        for state in &states {
            for (object, message) in state.status.problems.iter().filter_map(|p| parse(p)) {
                // Who looks at a Service shall see what is wrong with its endpoints.
                if let Some(service) = service_of(self, &object) {
                    let message = format!("EndpointSlice {}: {message}", object.2);
                    nodes.entry((service, message)).or_default().push(&state.metadata.name);
                }
                nodes.entry((object, message)).or_default().push(&state.metadata.name);
            }
        }
        nodes.into_iter().map(|(problem, nodes)| described(self, problem, &nodes)).collect()
    }
}

fn described(app: &App, ((kind, namespace, name), message): Problem, nodes: &[&str]) -> ObjectProblem {
    const SHOWN: usize = 3;
    let stored = app.store().get(&Key::new(kind, &namespace, &name));
    let object: Value = stored.and_then(|o| serde_json::from_slice(&o.json).ok()).unwrap_or_default();
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let mut who = nodes.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if nodes.len() > SHOWN {
        who += &format!(" and {} more", nodes.len() - SHOWN);
    }
    ObjectProblem { kind, namespace, name, uid, text: format!("{message} (on {who})") }
}

fn events(app: &App) -> Vec<Value> {
    let now = crate::transaction::now();
    app.problems().iter().enumerate().map(|(i, problem)| event(i, problem, &now)).collect()
}

fn service_of(app: &App, (kind, namespace, name): &(Kind, String, String)) -> Option<(Kind, String, String)> {
    let slice =
        app.store().get(&Key::new(*kind, namespace, name)).filter(|_| *kind == Kind::EndpointSlice)?;
    let service = slice.labels.get(LABEL_SERVICE_NAME)?;
    Some((Kind::Service, namespace.clone(), service.clone()))
}

fn event(number: usize, problem: &ObjectProblem, now: &str) -> Value {
    let ObjectProblem { kind, namespace, name, uid, text } = problem;
    json!({
        "kind": "Event", "apiVersion": "v1",
        "metadata": {"name": format!("{name}.{number}"), "namespace": namespace, "creationTimestamp": now},
        "involvedObject": {"kind": kind.name(), "apiVersion": kind.api_version(), "namespace": namespace,
            "name": name, "uid": uid},
        "type": "Warning", "reason": "NotFullyProgrammed",
        "message": text,
        "source": {"component": "eastwest-agent"}, "reportingComponent": "eastwest-agent", "reportingInstance": "",
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    })
}

/// Fields with the values they must, or must not, have.
struct Selector(Vec<(String, String, bool)>);

impl Selector {
    fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|t| !t.is_empty()) {
            let (pair, wanted) = match term.split_once("!=") {
                Some(pair) => (Some(pair), false),
                None => (term.split_once("==").or_else(|| term.split_once('=')), true),
            };
            let (field, value) = pair.ok_or_else(|| format!("{term:?} is not FIELD=VALUE"))?;
            let pointer = match field {
                "involvedObject.kind"
                | "involvedObject.name"
                | "involvedObject.namespace"
                | "involvedObject.uid"
                | "involvedObject.apiVersion"
                | "metadata.name"
                | "metadata.namespace"
                | "reason"
                | "type" => format!("/{}", field.replace('.', "/")),
                _ => return Err(format!("{field:?} is no field of events that can be selected by")),
            };
            terms.push((pointer, value.to_owned(), wanted));
        }
        Ok(Self(terms))
    }

    fn matches(&self, event: &Value) -> bool {
        let is = |pointer: &str, value: &str| event.pointer(pointer).is_some_and(|v| v == value);
        self.0.iter().all(|(pointer, value, wanted)| is(pointer, value) == *wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_objects() {
        let of = |kind, ns: &str, name: &str, message: &str| {
            Some(((kind, ns.to_owned(), name.to_owned()), message.to_owned()))
        };
        for (text, wanted) in [
            ("Service a/b: no room: 3", of(Kind::Service, "a", "b", "no room: 3")),
            (
                "EndpointSlice a/b-1: endpoints[0]: no address",
                of(Kind::EndpointSlice, "a", "b-1", "endpoints[0]: no address"),
            ),
            ("TrafficSplit a/b: x", of(Kind::TrafficSplit, "a", "b", "x")),
            ("Node n: x", None),
            ("snapshot: x", None),
            ("Service: x", None),
            ("", None),
        ] {
            assert_eq!(parse(text), wanted, "{text:?}");
        }
    }
}
