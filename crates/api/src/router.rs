//! All paths together, and what every request passes.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use eastwest_model::{DnsRecord, EndpointSlice, Namespace, Node, NodeState, Service, TrafficSplit, Workload};
use http::{HeaderMap, Method};

use crate::app::Observation;
use crate::auth::public;
use crate::request::ResourcePath;
use crate::{ApiError, App, discovery, openapi, resource};

/// How long a short request may wait for its turn.
const TURN: Duration = Duration::from_secs(2);

/// The whole API. `extra` serves what is no API path (the dashboard); it is open to everybody.
pub fn router(app: App, extra: Option<Router>) -> Router {
    let resources = Router::new()
        .merge(resource::routes::<Namespace>())
        .merge(resource::routes::<Node>())
        .merge(resource::routes::<Service>())
        .merge(resource::routes::<EndpointSlice>())
        .merge(resource::routes::<Workload>())
        .merge(resource::routes::<DnsRecord>())
        .merge(resource::routes::<TrafficSplit>())
        .merge(resource::routes::<NodeState>());
    let (own, _) = openapi::own().split_for_parts();
    let router = Router::new()
        .merge(resources)
        .merge(discovery::routes())
        .merge(openapi::routes())
        .merge(own)
        .with_state(app.clone());
    let router = match extra {
        Some(extra) => router.fallback_service(extra),
        None => router.fallback(|request: Request| async move { no_such_path(request.uri().path()) }),
    };
    router
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(app, front))
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    ApiError::internal(text).into_response()
}

/// An error in the form that the path's clients expect.
fn answer(path: &str, error: ApiError) -> Response {
    if path.starts_with("/v1/") { error.into_problem() } else { error.into_response() }
}

fn no_such_path(path: &str) -> Response {
    let shown: String = path.chars().take(256).collect();
    answer(path, ApiError::no_such_path(&shown))
}

/// Authentication, the limit of requests at work, and the observer.
async fn front(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let resource = ResourcePath::parse(&path);
    let watches = request.uri().query().is_some_and(|q| {
        form_urlencoded::parse(q.as_bytes())
            .any(|(k, v)| k == "watch" && !matches!(&*v, "false" | "0" | "False"))
    });
    let verb = match method {
        Method::GET | Method::HEAD if watches => "WATCH",
        Method::GET | Method::HEAD if resource.as_ref().is_some_and(|r| r.name.is_none()) => "LIST",
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    };
    let plural = resource.as_ref().map_or("", |r| r.kind.plural());
    let response = match admit(&app, &method, &path, request.headers()).await {
        Err(e) => answer(&path, e),
        Ok(())
            if verb == "WATCH" || matches!(&*path, "/v1/agent/stream" | "/v1/agent/flows" | "/v1/flows") =>
        {
            next.run(request).await
        }
        Ok(()) => match tokio::time::timeout(TURN, app.0.requests.acquire()).await {
            Ok(Ok(_turn)) => next.run(request).await,
            _ => answer(&path, ApiError::too_many_requests()),
        },
    };
    if let Some(observer) = &app.0.observer {
        let code = response.status().as_u16();
        observer(Observation { verb, resource: plural, code, took: start.elapsed() });
    }
    response
}

async fn admit(app: &App, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
    if public(path) {
        return Ok(());
    }
    let role = app.0.auth.role(headers).await.ok_or_else(ApiError::unauthorized)?;
    if role.allows(method, path) {
        return Ok(());
    }
    let message = format!("role {:?} may not {} {path}", role.name(), method);
    Err(ApiError::forbidden(message))
}
