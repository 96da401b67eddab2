//! The OpenAPI document: our own paths by `#[utoipa::path]`, the resources' paths from the kinds. `api-spec/openapi.json`
//! is this document; `/openapi/v3` and `/openapi/v2` give it in the forms that Kubernetes clients expect.

use std::sync::OnceLock;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use eastwest_model::{
    DnsRecord, EndpointSlice, Kind, ListMeta, Namespace, Node, NodeState, Service, TrafficSplit, Workload,
};
use http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathItemBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder,
    Schema,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{Problem, Status};
use crate::kinds::Served;
use crate::read::json_response;
use crate::resource::base;
use crate::{ApiError, App, events, flows, stream, topology, trace};

/// Our own paths, with their part of the document.
pub fn own() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(stream::agent_stream))
        .routes(routes!(topology::topology))
        .routes(routes!(trace::trace))
        .routes(routes!(flows::list, flows::sample))
        .routes(routes!(flows::report))
        .routes(routes!(events::all))
        .routes(routes!(events::namespaced))
}

/// The whole document.
pub fn document() -> OpenApi {
    let (_, mut api) = own().split_for_parts();
    api.info = InfoBuilder::new()
        .title("eastwest")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Services, endpoints and DNS. Resource paths, objects and verbs are those of the Kubernetes API, so that \
             its clients work; errors there are its `Status`. Our own paths are under `/v1/`; errors there are RFC 9457.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let mut schemas = Vec::new();
    for schemas_of in [Status::schemas, Problem::schemas, ListMeta::schemas] {
        schemas_of(&mut schemas);
    }
    schemas.push((Status::name().into_owned(), <Status as utoipa::PartialSchema>::schema()));
    schemas.push((Problem::name().into_owned(), <Problem as utoipa::PartialSchema>::schema()));
    schemas.push((ListMeta::name().into_owned(), <ListMeta as utoipa::PartialSchema>::schema()));
    let mut paths = Vec::new();
    kind::<Namespace>(&mut paths, &mut schemas);
    kind::<Node>(&mut paths, &mut schemas);
    kind::<Service>(&mut paths, &mut schemas);
    kind::<EndpointSlice>(&mut paths, &mut schemas);
    kind::<Workload>(&mut paths, &mut schemas);
    kind::<DnsRecord>(&mut paths, &mut schemas);
    kind::<TrafficSplit>(&mut paths, &mut schemas);
    kind::<NodeState>(&mut paths, &mut schemas);
    for (path, summary) in [
        ("/livez", "The process runs"),
        ("/readyz", "Requests are served"),
        ("/version", "The version, in Kubernetes' form"),
    ] {
        let text = ResponseBuilder::new().description(summary).build();
        let operation = OperationBuilder::new()
            .tag("health")
            .operation_id(Some(path.trim_start_matches('/')))
            .summary(Some(summary))
            .securities(Some([SecurityRequirement::default()]))
            .response("200", text);
        paths.push((path.to_owned(), PathItem::new(HttpMethod::Get, operation)));
    }
    for (path, item) in paths {
        api.paths.paths.insert(path, item);
    }
    let components = api.components.get_or_insert_default();
    components.schemas.extend(schemas);
    let bearer =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A token of a kubeconfig file"));
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    api.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
    api
}

type Paths = Vec<(String, PathItem)>;
type Schemas = Vec<(String, RefOr<Schema>)>;

/// Paths and schemas of a kind.
fn kind<T: Served>(paths: &mut Paths, schemas: &mut Schemas) {
    let name = T::KIND.name();
    T::schemas(schemas);
    schemas.push((T::name().into_owned(), <T as utoipa::PartialSchema>::schema()));
    let list = ObjectBuilder::new()
        .description(Some(format!("A list of {name} objects.")))
        .property("kind", Object::with_type(SchemaType::new(Type::String)))
        .property("apiVersion", Object::with_type(SchemaType::new(Type::String)))
        .property("metadata", Ref::from_schema_name(ListMeta::name()))
        .property("items", ArrayBuilder::new().items(Ref::from_schema_name(T::name())))
        .required("kind")
        .required("apiVersion")
        .required("metadata")
        .required("items");
    schemas.push((format!("{name}List"), RefOr::T(list.build().into())));

    let (base, plural) = (base(T::KIND), T::KIND.plural());
    let scope = if T::KIND.namespaced() {
        let all = format!("{base}/{plural}");
        let list = operation::<T>("list", "ForAllNamespaces").parameters(Some(list_parameters()));
        paths
            .push((all, item(false, false, [(HttpMethod::Get, answers(list, [("200", list_name::<T>())]))])));
        format!("{base}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}/{plural}")
    };
    let namespaced = T::KIND.namespaced();
    let write = |o: OperationBuilder, codes: &[&'static str]| {
        let o = o.parameters(Some(write_parameters()));
        answers(o, codes.iter().map(|c| (*c, name.to_owned())))
    };
    let list = operation::<T>("list", "").parameters(Some(list_parameters()));
    let create = operation::<T>("create", "").request_body(Some(body::<T>(&BODY)));
    let delete_all = operation::<T>("deletecollection", "")
        .parameters(Some(list_parameters()))
        .parameters(Some(write_parameters()));
    let collection = [
        (HttpMethod::Get, answers(list, [("200", list_name::<T>())])),
        (HttpMethod::Post, write(create, &["201"])),
        (HttpMethod::Delete, answers(delete_all, [("200", list_name::<T>())])),
    ];
    paths.push((scope.clone(), item(namespaced, false, collection)));

    let get_one = |sub| answers(operation::<T>("get", sub), [("200", name.to_owned())]);
    let codes: &[&str] = if T::PUT_CREATES { &["200", "201"] } else { &["200"] };
    let update = |sub| write(operation::<T>("update", sub).request_body(Some(body::<T>(&BODY))), codes);
    let patch = |sub| write(operation::<T>("patch", sub).request_body(Some(body::<T>(&PATCHES))), &["200"]);
    let delete = operation::<T>("delete", "").parameters(Some(write_parameters()));
    let one = [
        (HttpMethod::Get, get_one("")),
        (HttpMethod::Put, update("")),
        (HttpMethod::Patch, patch("")),
        (HttpMethod::Delete, answers(delete, [("200", Status::name().into_owned())])),
    ];
    let path = format!("{scope}/{{name}}");
    paths.push((path.clone(), item(namespaced, true, one)));
    if T::HAS_STATUS {
        let status = [
            (HttpMethod::Get, get_one("Status")),
            (HttpMethod::Put, update("Status")),
            (HttpMethod::Patch, patch("Status")),
        ];
        paths.push((format!("{path}/status"), item(namespaced, true, status)));
    }
}

const BODY: [&str; 2] = ["application/json", "application/yaml"];
const PATCHES: [&str; 4] = crate::patch::MEDIA_TYPES;

fn list_name<T: Served>() -> String {
    format!("{}List", T::KIND.name())
}

fn item<const N: usize>(
    namespaced: bool,
    named: bool,
    operations: [(HttpMethod, OperationBuilder); N],
) -> PathItem {
    let mut parameters = Vec::new();
    if namespaced {
        parameters.push(path_parameter("namespace", "Namespace of the object"));
    }
    if named {
        parameters.push(path_parameter("name", "Name of the object"));
    }
    let mut item = PathItemBuilder::new();
    for (method, operation) in operations {
        item = item.operation(method, operation);
    }
    let mut item = item.build();
    if !parameters.is_empty() {
        item.parameters = Some(parameters.into_iter().map(|p| RefOr::T(p.build())).collect());
    }
    item
}

fn path_parameter(name: &str, description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(Object::with_type(SchemaType::new(Type::String))))
}

fn operation<T: Served>(verb: &str, what: &str) -> OperationBuilder {
    let kind = T::KIND;
    let gvk = json!({"group": kind.group(), "version": "v1", "kind": kind.name()});
    let (action, summary) = match verb {
        "create" => ("post", format!("Create a {}", kind.name())),
        "update" => ("put", format!("Replace a {}", kind.name())),
        "list" => ("list", format!("List {}, or watch them with watch=true", kind.plural())),
        "deletecollection" => ("deletecollection", format!("Delete all {} that are selected", kind.plural())),
        "patch" => ("patch", format!("Change a {} in part", kind.name())),
        "delete" => ("delete", format!("Delete a {}", kind.name())),
        other => (other, format!("Get a {}", kind.name())),
    };
    let mut extensions = Extensions::default();
    extensions.insert("x-kubernetes-action".into(), action.into());
    extensions.insert("x-kubernetes-group-version-kind".into(), gvk);
    OperationBuilder::new()
        .tag(kind.plural())
        .operation_id(Some(format!("{verb}{}{what}", kind.name())))
        .summary(Some(summary))
        .description(Some(T::SUMMARY))
        .extensions(Some(extensions))
}

fn answers(
    operation: OperationBuilder,
    good: impl IntoIterator<Item = (&'static str, String)>,
) -> OperationBuilder {
    let json = |name: &str| ContentBuilder::new().schema(Some(Ref::from_schema_name(name))).build();
    let mut operation = operation;
    for (code, schema) in good {
        let response = ResponseBuilder::new().description("Done").content("application/json", json(&schema));
        operation = operation.response(code, response.build());
    }
    let error =
        ResponseBuilder::new().description("Not done, and why").content("application/json", json("Status"));
    operation.response("default", error.build())
}

fn body<T: Served>(media_types: &[&str]) -> utoipa::openapi::request_body::RequestBody {
    let mut body = RequestBodyBuilder::new().required(Some(Required::True));
    for media_type in media_types {
        let content = if *media_type == "application/json-patch+json" {
            let operation = ObjectBuilder::new().description(Some("An operation of RFC 6902"));
            ContentBuilder::new().schema(Some(ArrayBuilder::new().items(operation)))
        } else {
            ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name())))
        };
        body = body.content(*media_type, content.build());
    }
    body.build()
}

fn query(name: &str, type_: Type, description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .description(Some(description))
        .schema(Some(Object::with_type(SchemaType::new(type_))))
}

fn list_parameters() -> Vec<ParameterBuilder> {
    vec![
        query("labelSelector", Type::String, "Only objects with these labels: a=b,c!=d,e in (x,y),!f"),
        query(
            "fieldSelector",
            Type::String,
            "metadata.name, metadata.namespace, spec.type or spec.clusterIP",
        ),
        query("limit", Type::Integer, "Most objects in the answer; its metadata.continue leads to the rest"),
        query("continue", Type::String, "metadata.continue of the page before"),
        query("resourceVersion", Type::String, "With watch: events after this revision"),
        query("resourceVersionMatch", Type::String, "Exact: the list as it was at resourceVersion"),
        query("watch", Type::Boolean, "Events as they happen, one JSON object a line"),
        query("allowWatchBookmarks", Type::Boolean, "Also BOOKMARK events"),
        query("sendInitialEvents", Type::Boolean, "Begin a watch with what there is"),
        query("timeoutSeconds", Type::Integer, "End of a watch"),
    ]
}

fn write_parameters() -> Vec<ParameterBuilder> {
    vec![
        query("dryRun", Type::String, "All: do everything but keep nothing"),
        query(
            "fieldValidation",
            Type::String,
            "Unknown fields: Strict refuses, Warn (the default) warns, Ignore",
        ),
        query("fieldManager", Type::String, "Who writes, for server-side apply"),
        query("force", Type::Boolean, "Server-side apply: take fields from other managers"),
        query("wait", Type::String, "programmed: answer when every node has programmed the write; else 504"),
        query("timeout", Type::String, "How long to wait: 500ms, 5s (the default), 1m"),
    ]
}

/// The document as `api-spec/openapi.json` holds it.
pub fn openapi_json() -> String {
    serde_json::to_string_pretty(&sorted(value())).unwrap_or_default() + "\n"
}

/// The document as JSON, with what the derive macros cannot know put right.
fn value() -> Value {
    let document = serde_json::to_string(&document()).unwrap_or_default();
    // The model's alias for maps of strings.
    let document = document
        .replace("\"BTreeMap\"", "\"StringMap\"")
        .replace("schemas/BTreeMap\"", "schemas/StringMap\"");
    let mut value = serde_json::from_str(&document).unwrap_or_default();
    without_empty_defaults(&mut value);
    value
}

/// Removes `default` where it is what an absent field means anyway: generators take it for "always there".
fn without_empty_defaults(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("default").is_some_and(|v| !v.is_string() || v == "") {
                map.remove("default");
            }
            map.values_mut().for_each(without_empty_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty_defaults),
        _ => {}
    }
}

/// Members in the order of their names, whatever order they were made in.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

pub fn routes() -> Router<App> {
    Router::new()
        .route("/openapi/v2", get(v2))
        .route("/openapi/v3", get(v3_index))
        .route("/openapi/v3/api/v1", get(|| v3_group(String::new())))
        .route("/openapi/v3/apis/{group}/v1", get(|Path(group): Path<String>| v3_group(group)))
}

/// The whole document in OpenAPI 3.0, which is what Kubernetes' clients read.
fn kubernetes() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let mut value = value();
        to_3_0(&mut value);
        value["openapi"] = "3.0.0".into();
        if let Some(info) = value.pointer_mut("/info/license").and_then(Value::as_object_mut) {
            info.remove("identifier");
        }
        for kind in Kind::ALL {
            let gvk = json!([{"group": kind.group(), "version": "v1", "kind": kind.name()}]);
            if let Some(schema) = value.pointer_mut(&format!("/components/schemas/{}", kind.name())) {
                schema["x-kubernetes-group-version-kind"] = gvk;
            }
        }
        value
    })
}

/// OpenAPI 3.1 allows lists of types with "null" in them; 3.0 says `nullable`.
fn to_3_0(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get("type") {
                let nullable = types.iter().any(|t| t == "null");
                let one = types.iter().find(|t| *t != "null").cloned();
                map.remove("type");
                if let Some(one) = one {
                    map.insert("type".into(), one);
                }
                if nullable {
                    map.insert("nullable".into(), true.into());
                }
            }
            if let Some(Value::Array(options)) = map.get_mut("oneOf") {
                let before = options.len();
                options.retain(|o| o.get("type").is_none_or(|t| t != "null"));
                if options.len() == 1
                    && before == 2
                    && let Some(one) = map.remove("oneOf")
                {
                    map.insert("allOf".into(), one);
                    map.insert("nullable".into(), true.into());
                }
            }
            map.remove("propertyNames");
            map.values_mut().for_each(to_3_0);
        }
        Value::Array(items) => items.iter_mut().for_each(to_3_0),
        _ => {}
    }
}

/// A hash for `?hash=`, by which clients know what they have cached.
fn hash(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016X}", hasher.finish())
}

async fn v3_index() -> Response {
    static INDEX: OnceLock<Bytes> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let hash = hash(&kubernetes().to_string());
        let mut paths = Map::new();
        for path in ["api/v1", "apis/discovery.k8s.io/v1", "apis/eastwest.dev/v1"] {
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path.into(), json!({"serverRelativeURL": url}));
        }
        json!({"paths": paths}).to_string().into()
    });
    json_response(StatusCode::OK, index.clone())
}

async fn v3_group(group: String) -> Response {
    let prefix = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    let document = kubernetes();
    let paths: Map<String, Value> = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(path, _)| path.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('/')))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if paths.is_empty() {
        return ApiError::no_such_path(&format!("/openapi/v3{prefix}")).into_response();
    }
    let mut one = document.clone();
    one["paths"] = paths.into();
    json_response(StatusCode::OK, one.to_string())
}

/// Swagger 2.0, the schemas only: what clients that know no v3 need to explain and check manifests.
async fn v2() -> Response {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| {
        let text = kubernetes()["components"]["schemas"].to_string();
        let text = text.replace("#/components/schemas/", "#/definitions/").replace("\"nullable\":", "\"x-nullable\":");
        let definitions: Value = serde_json::from_str(&text).unwrap_or_default();
        json!({"swagger": "2.0", "info": {"title": "eastwest", "version": env!("CARGO_PKG_VERSION")}, "paths": {},
            "definitions": definitions})
        .to_string()
        .into()
    });
    json_response(StatusCode::OK, document.clone())
}
