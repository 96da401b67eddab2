//! The verbs on resources, at Kubernetes' paths.

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use eastwest_model::{Kind, Resource};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kinds::Served;
use crate::read::{self, Listed, json_response, object_response};
use crate::transaction::Refused;
use crate::write::{self, Deleted, Preconditions, Update, Written};
use crate::{ApiError, App, Query, Shape, body, patch, wait, watch};

/// The path of a kind's group and version.
pub fn base(kind: Kind) -> String {
    if kind.group().is_empty() { "/api/v1".into() } else { format!("/apis/{}", kind.api_version()) }
}

/// All paths of a kind.
pub fn routes<T: Served>() -> Router<App> {
    let (base, plural) = (base(T::KIND), T::KIND.plural());
    let router = Router::new().route(&format!("{base}/{plural}"), any(collection::<T>));
    let scope = if T::KIND.namespaced() {
        format!("{base}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}/{plural}")
    };
    let router = if T::KIND.namespaced() { router.route(&scope, any(collection::<T>)) } else { router };
    let router = router.route(&format!("{scope}/{{name}}"), any(item::<T>));
    if T::HAS_STATUS { router.route(&format!("{scope}/{{name}}/status"), any(status::<T>)) } else { router }
}

/// A request to a resource.
struct Call {
    namespace: Option<String>,
    name: Option<String>,
    query: Query,
    shape: Shape,
    method: Method,
    headers: HeaderMap,
    body: Body,
}

impl Call {
    fn new(params: &RawPathParams, request: Request) -> Result<Self, ApiError> {
        let get = |name: &str| params.iter().find(|(k, _)| *k == name).map(|(_, v)| v.to_owned());
        let (parts, body) = request.into_parts();
        Ok(Self {
            namespace: get("namespace"),
            name: get("name"),
            query: Query::parse(parts.uri.query())?,
            shape: Shape::negotiate(&parts.headers)?,
            method: parts.method,
            headers: parts.headers,
            body,
        })
    }

    fn scope(&self) -> (String, String) {
        (self.namespace.clone().unwrap_or_default(), self.name.clone().unwrap_or_default())
    }

    async fn value(&mut self) -> Result<(String, bytes::Bytes), ApiError> {
        let media_type = body::media_type(&self.headers);
        let body = body::read(&self.headers, std::mem::take(&mut self.body)).await?;
        Ok((media_type, body))
    }
}

async fn collection<T: Served>(State(app): State<App>, params: RawPathParams, request: Request) -> Response {
    let run = async {
        let call = Call::new(&params, request)?;
        let one_scope = !T::KIND.namespaced() || call.namespace.is_some();
        match call.method {
            Method::GET | Method::HEAD if call.query.watch => {
                watch::watch::<T>(&app, call.namespace.as_deref(), call.query, call.shape).await
            }
            Method::GET | Method::HEAD => {
                read::list::<T>(&app, call.namespace.as_deref(), &call.query, call.shape).await
            }
            Method::POST if one_scope => create::<T>(&app, call).await,
            Method::DELETE if one_scope => delete_collection::<T>(&app, call).await,
            _ => Err(ApiError::method_not_allowed(if one_scope { "GET, POST, DELETE" } else { "GET" })),
        }
    };
    respond(run.await)
}

async fn item<T: Served>(State(app): State<App>, params: RawPathParams, request: Request) -> Response {
    let run = async {
        let call = Call::new(&params, request)?;
        let (namespace, name) = call.scope();
        match call.method {
            Method::GET | Method::HEAD => read::get::<T>(&app, &namespace, &name, call.shape).await,
            Method::PUT => replace::<T>(&app, call, false).await,
            Method::PATCH => patch_::<T>(&app, call, false).await,
            Method::DELETE => delete::<T>(&app, call).await,
            _ => Err(ApiError::method_not_allowed("GET, PUT, PATCH, DELETE")),
        }
    };
    respond(run.await)
}

async fn status<T: Served>(State(app): State<App>, params: RawPathParams, request: Request) -> Response {
    let run = async {
        let call = Call::new(&params, request)?;
        let (namespace, name) = call.scope();
        match call.method {
            Method::GET | Method::HEAD => read::get::<T>(&app, &namespace, &name, call.shape).await,
            Method::PUT => replace::<T>(&app, call, true).await,
            Method::PATCH => patch_::<T>(&app, call, true).await,
            _ => Err(ApiError::method_not_allowed("GET, PUT, PATCH")),
        }
    };
    respond(run.await)
}

fn respond(result: Result<Response, ApiError>) -> Response {
    match result {
        Ok(response) => response,
        Err(e) => {
            let allow = (e.code == StatusCode::METHOD_NOT_ALLOWED)
                .then(|| e.message.rsplit(": ").next().and_then(|a| HeaderValue::from_str(a).ok()))
                .flatten();
            let mut response = e.into_response();
            if let Some(allow) = allow {
                response.headers_mut().insert(header::ALLOW, allow);
            }
            response
        }
    }
}

/// Answers a write: waits for the nodes when asked to.
async fn written<T: Served>(
    app: &App,
    query: &Query,
    shape: Shape,
    written: Written,
    revision: eastwest_model::Revision,
    warnings: Vec<String>,
) -> Result<Response, ApiError> {
    await_nodes::<T>(app, query, revision).await?;
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(warn(object_response::<T>(code, &written.object, shape)?, &warnings))
}

async fn await_nodes<T: Resource>(
    app: &App,
    query: &Query,
    revision: eastwest_model::Revision,
) -> Result<(), ApiError> {
    match query.wait {
        Some(timeout) if !query.dry_run && T::KIND != Kind::NodeState => {
            wait::programmed(app, revision, timeout).await
        }
        _ => Ok(()),
    }
}

/// RFC 7234 `Warning: 299`, as kubectl prints them.
fn warn(mut response: Response, warnings: &[String]) -> Response {
    for text in warnings {
        let text: String = text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(256).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

async fn create<T: Served>(app: &App, mut call: Call) -> Result<Response, ApiError> {
    let (media_type, bytes) = call.value().await?;
    let value = body::parse(&media_type, &bytes)?;
    let decoded = body::decode::<T>(value, call.query.field_validation)?;
    let mut object = decoded.object;
    write::fit_to_path(&mut object, call.namespace.as_deref().unwrap_or_default(), None)?;
    let dry_run = call.query.dry_run;
    let server = app.clone();
    let (result, revision) = app
        .realm(T::KIND)
        .write(move |tx| {
            prepare(&server, &mut object);
            write::create(tx, object, dry_run)
        })
        .await?;
    written::<T>(app, &call.query, call.shape, result, revision, decoded.warnings).await
}

/// What the server knows better than the writer, of objects that are the server's in part. Within the transaction, so
/// that the last word is true.
fn prepare<T: Served>(app: &App, object: &mut T) {
    let any: &mut dyn std::any::Any = object;
    if let Some(state) = any.downcast_mut::<eastwest_model::NodeState>() {
        state.status.connected = app.is_connected(&state.metadata.name);
    }
}

async fn replace<T: Served>(app: &App, mut call: Call, status: bool) -> Result<Response, ApiError> {
    let (namespace, name) = call.scope();
    let (media_type, bytes) = call.value().await?;
    let value = body::parse(&media_type, &bytes)?;
    let decoded = body::decode::<T>(value, call.query.field_validation)?;
    let mut object = decoded.object;
    write::fit_to_path(&mut object, &namespace, Some(&name))?;
    if T::PUT_CREATES {
        // A report replaces the one before, whoever wrote that.
        object.metadata_mut().resource_version.clear();
        object.metadata_mut().uid.clear();
    }
    let server = app.clone();
    let how = Update { status, dry_run: call.query.dry_run, or_create: T::PUT_CREATES && !status };
    let (result, revision) = app
        .realm(T::KIND)
        .write(move |tx| {
            prepare(&server, &mut object);
            write::update::<T>(tx, &namespace, &name, how, |_| Ok(object))
        })
        .await?;
    written::<T>(app, &call.query, call.shape, result, revision, decoded.warnings).await
}

async fn patch_<T: Served>(app: &App, mut call: Call, status: bool) -> Result<Response, ApiError> {
    let (namespace, name) = call.scope();
    let (media_type, bytes) = call.value().await?;
    let patch = patch::Patch::parse(&media_type, &bytes, &call.query)?;
    let (dry_run, validation) = (call.query.dry_run, call.query.field_validation);
    let how = Update { status, dry_run, or_create: patch.creates() && !status };
    let (sender, warnings) = std::sync::mpsc::channel();
    let (result, revision) = app
        .realm(T::KIND)
        .write(move |tx| {
            write::update::<T>(tx, &namespace, &name, how, |old| {
                let decoded = patch.apply::<T>(old, validation)?;
                let _ = sender.send(decoded.warnings);
                Ok(decoded.object)
            })
        })
        .await?;
    let warnings = warnings.try_recv().unwrap_or_default();
    written::<T>(app, &call.query, call.shape, result, revision, warnings).await
}

/// What of `metav1.DeleteOptions` counts here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeleteOptions {
    preconditions: Option<DeletePreconditions>,
    dry_run: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeletePreconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    async fn read(call: &mut Call) -> Result<Self, ApiError> {
        let (media_type, bytes) = call.value().await?;
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let value = body::parse(&media_type, &bytes)?;
        serde_json::from_value(value)
            .map_err(|e| ApiError::bad_request(format!("DeleteOptions in the body cannot be read: {e}")))
    }

    fn preconditions(&self) -> Preconditions {
        let p = self.preconditions.as_ref();
        Preconditions {
            uid: p.and_then(|p| p.uid.clone()),
            resource_version: p.and_then(|p| p.resource_version.clone()),
        }
    }

    fn dry_run(&self) -> bool {
        self.dry_run.as_ref().is_some_and(|d| d.iter().any(|d| d == "All"))
    }
}

async fn delete<T: Served>(app: &App, mut call: Call) -> Result<Response, ApiError> {
    let (namespace, name) = call.scope();
    let options = DeleteOptions::read(&mut call).await?;
    let (preconditions, dry_run) = (options.preconditions(), options.dry_run() || call.query.dry_run);
    call.query.dry_run = dry_run;
    let of = name.clone();
    let (deleted, revision) = app
        .realm(T::KIND)
        .write(move |tx| write::delete::<T>(tx, &namespace, &name, &preconditions, dry_run))
        .await?;
    await_nodes::<T>(app, &call.query, revision).await?;
    if deleted.marked {
        return object_response::<T>(StatusCode::OK, &deleted.object, call.shape);
    }
    Ok(json_response(StatusCode::OK, success::<T>(&of, &deleted).to_string()))
}

fn success<T: Resource>(name: &str, deleted: &Deleted) -> Value {
    let mut details = json!({"name": name, "kind": T::KIND.plural(), "uid": deleted.uid});
    if !T::KIND.group().is_empty() {
        details["group"] = T::KIND.group().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details, "code": 200})
}

async fn delete_collection<T: Served>(app: &App, mut call: Call) -> Result<Response, ApiError> {
    let options = DeleteOptions::read(&mut call).await?;
    call.query.dry_run |= options.dry_run();
    let query = call.query.clone();
    query.field_selector.check(T::KIND)?;
    let listed = read::select::<T>(
        app,
        call.namespace.as_deref(),
        &Query { resource_version: None, ..query.clone() },
    )?;
    let keys: Vec<_> = listed
        .objects
        .iter()
        .map(|o| o.key.clone())
        .filter(|k| k.kind != Kind::Namespace || !write::SYSTEM_NAMESPACES.contains(&&*k.name))
        .collect();
    if query.dry_run {
        return Ok(read::plain_list::<T>(listed));
    }
    let (objects, revision) = app
        .realm(T::KIND)
        .write(move |tx| {
            let mut objects = Vec::new();
            for key in keys {
                match write::delete::<T>(tx, &key.namespace, &key.name, &Preconditions::default(), false) {
                    Ok(deleted) => objects.push(deleted.object),
                    // It went between the list and now, or with another.
                    Err(Refused::Error(e)) if e.code == StatusCode::NOT_FOUND => {}
                    Err(Refused::Error(e)) => return Err(Refused::Error(e)),
                    Err(Refused::DryRun(_)) => {}
                }
            }
            Ok(objects)
        })
        .await?;
    await_nodes::<T>(app, &query, revision).await?;
    Ok(read::plain_list::<T>(Listed { objects, revision, continue_: String::new(), remaining: None }))
}
