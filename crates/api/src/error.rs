use axum::Json;
use axum::response::{IntoResponse, Response};
use eastwest_model::{FieldError, Kind, Revision};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Kubernetes' `metav1.Status`: how an error looks to its clients.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub kind: String,
    pub api_version: String,
    /// Always empty.
    pub metadata: eastwest_model::Map,
    /// `Success` or `Failure`.
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// One word for programs: `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The HTTP status code.
    #[serde(default)]
    pub code: u16,
}

/// What the error is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One thing wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    /// Path as in the manifest: `spec.ports[0].port`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// RFC 9457 `application/problem+json`: how an error looks under `/v1/`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    pub type_: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Cause>,
}

/// An answer other than the one asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: StatusCode,
    pub reason: &'static str,
    pub message: String,
    pub details: Box<Details>,
}

impl ApiError {
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Box::default() }
    }

    fn about(mut self, kind: Kind, name: &str) -> Self {
        self.details.name = name.into();
        self.details.group = kind.group().into();
        self.details.kind = kind.plural().into();
        self
    }

    pub fn cause(mut self, reason: &str, field: &str, message: impl Into<String>) -> Self {
        self.details.causes.push(Cause {
            reason: reason.into(),
            message: message.into(),
            field: field.into(),
        });
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.retry_after_seconds = Some(seconds);
        self
    }

    pub fn not_found(kind: Kind, name: &str) -> Self {
        let what = qualified(kind);
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{what} {name:?} not found")).about(kind, name)
    }

    pub fn no_such_path(path: &str) -> Self {
        let message = format!("the server could not find the requested resource: {path}");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub fn already_exists(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(kind));
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(kind, name)
    }

    pub fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(kind));
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    pub fn modified(kind: Kind, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    pub fn invalid(kind: Kind, name: &str, errors: &[FieldError]) -> Self {
        let mut text: Vec<_> = errors.iter().take(20).map(ToString::to_string).collect();
        if errors.len() > 20 {
            text.push(format!("and {} more", errors.len() - 20));
        }
        let text = match text.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let group = if kind.group().is_empty() { String::new() } else { format!(".{}", kind.group()) };
        let message = format!("{}{group} {name:?} is invalid: {text}", kind.name());
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(kind, name);
        error.details.kind = kind.name().into();
        for e in errors.iter().take(100) {
            error = error.cause(&format!("{:?}", e.reason), &e.field, e.message.clone());
        }
        error
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        let message = "Unauthorized: send 'Authorization: Bearer TOKEN' with a token of this controller, as in its \
                       kubeconfig files";
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(got: &str, accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format {got:?}: accepted: {accepted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are served: {accepted}");
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub fn method_not_allowed(allowed: &str) -> Self {
        let message =
            format!("the server does not allow this method on the requested resource: allowed: {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// The revision is too old: list again.
    pub fn expired(gone: eastwest_store::Gone) -> Self {
        let message = format!("too old resource version: {} ({})", gone.asked, gone.oldest);
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// The revision is of another history, or of the future (apimachinery `NewTooLargeResourceVersionError`).
    pub fn too_large_revision(asked: Revision, head: Revision) -> Self {
        let message = format!("Too large resource version: {asked}, current: {head}");
        Self::timeout(message)
            .cause("ResourceVersionTooLarge", "", "Too large resource version")
            .retry_after(1)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub fn too_many_requests() -> Self {
        let message = "the server has received too many requests and has asked us to try again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).retry_after(1)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message).retry_after(1)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        tracing::error!(%message, "internal error");
        let message = format!("Internal error occurred: {message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    pub fn status(&self) -> Status {
        let details = (*self.details != Details::default()).then(|| (*self.details).clone());
        Status {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: Default::default(),
            status: "Failure".into(),
            message: self.message.clone(),
            reason: self.reason.into(),
            details,
            code: self.code.as_u16(),
        }
    }

    /// The same error as RFC 9457 wants it, for paths under `/v1/`.
    pub fn into_problem(self) -> Response {
        let problem = Problem {
            type_: "about:blank".into(),
            title: self.code.canonical_reason().unwrap_or(self.reason).into(),
            status: self.code.as_u16(),
            detail: self.message,
            errors: self.details.causes,
        };
        let mut response = (self.code, Json(problem)).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        headers(response, self.code, self.details.retry_after_seconds)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let response = (self.code, Json(self.status())).into_response();
        headers(response, self.code, self.details.retry_after_seconds)
    }
}

fn headers(mut response: Response, code: StatusCode, retry_after: Option<u32>) -> Response {
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if code == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"eastwest\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

impl From<eastwest_store::Error> for ApiError {
    fn from(e: eastwest_store::Error) -> Self {
        match e {
            eastwest_store::Error::Closed => Self::unavailable("the server is shutting down"),
            other => Self::internal(other),
        }
    }
}

/// `services` or `endpointslices.discovery.k8s.io`.
pub fn qualified(kind: Kind) -> String {
    match kind.group() {
        "" => kind.plural().into(),
        group => format!("{}.{group}", kind.plural()),
    }
}
