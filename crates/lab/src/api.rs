//! Requests to a controller, by a kubeconfig. The typed client of `kube` knows kinds; labs and the command line send
//! manifests as they are, with parameters of our own (`wait=programmed`), and show the whole of what is refused.

use std::fmt;
use std::path::Path;

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use serde_json::Value;

/// Why a request did not do what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("kubeconfig {path}: {reason}")]
    Kubeconfig { path: String, reason: String },
    #[error("{0}")]
    Refused(Refusal),
    #[error("no answer from {server}: {reason}")]
    Unreachable { server: String, reason: String },
    #[error("the answer from {server} does not read: {reason}")]
    Garbled { server: String, reason: String },
}

impl ApiError {
    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            ApiError::Refused(r) => Some(r.code),
            _ => None,
        }
    }
}

/// A Kubernetes `Status` of a failure.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Refusal {
    pub code: u16,
    pub reason: String,
    pub message: String,
    pub details: Details,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Details {
    pub causes: Vec<Cause>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cause {
    pub reason: String,
    pub field: String,
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.details.causes.is_empty() {
            return f.write_str(&self.message);
        }
        // The message of such a Status repeats the causes, without a line for each.
        for (i, cause) in self.details.causes.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            if cause.field.is_empty() {
                write!(f, "{separator}{}", cause.message)?;
            } else {
                write!(f, "{separator}{}: {}", cause.field, cause.message)?;
            }
        }
        Ok(())
    }
}

/// The media types of patches.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const JSON: &str = "application/json";

/// A controller's API.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    server: String,
    /// The kubeconfig's own, for commands that name none.
    pub namespace: String,
}

impl Api {
    pub async fn from_file(path: &Path) -> Result<Self, ApiError> {
        let wrong = |e: &dyn fmt::Display| ApiError::Kubeconfig {
            path: path.display().to_string(),
            reason: e.to_string(),
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(|e| wrong(&e))?;
        Self::new(kubeconfig).await.map_err(|e| wrong(&e))
    }

    /// As kubectl finds it: `KUBECONFIG`, `~/.kube/config`, or inside a pod.
    pub async fn inferred() -> Result<Self, ApiError> {
        let wrong = |e: &dyn fmt::Display| ApiError::Kubeconfig {
            path: "of the environment".into(),
            reason: e.to_string(),
        };
        provider();
        let config = kube::Config::infer().await.map_err(|e| wrong(&e))?;
        Self::with(config).map_err(|e| wrong(&e))
    }

    async fn new(kubeconfig: Kubeconfig) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        provider();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Self::with(config)?)
    }

    fn with(config: kube::Config) -> Result<Self, kube::Error> {
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        Ok(Self { client: kube::Client::try_from(config)?, server, namespace })
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    /// The answer's JSON. `path` carries the query; `body` is sent as `content_type`.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let accept = JSON;
        let (status, bytes) = self.send(method, path, content_type, accept, body).await?;
        let parsed = serde_json::from_slice::<Value>(&bytes);
        if (200..300).contains(&status) {
            return parsed
                .map_err(|e| ApiError::Garbled { server: self.server.clone(), reason: e.to_string() });
        }
        Err(ApiError::Refused(refusal(status, parsed.ok(), &bytes)))
    }

    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.request(Method::GET, path, JSON, None).await
    }

    /// The answer as it came; refusals are answers here.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Vec<u8>), ApiError> {
        let response = self.open(method, path, content_type, accept, body).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|e| self.unreachable(&e))?;
        Ok((status, body.to_bytes().to_vec()))
    }

    /// The answer with its body still to come: a watch.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<http::Response<Body>, ApiError> {
        let mut request = Request::builder().method(method).uri(path).header("accept", accept);
        if body.is_some() {
            request = request.header("content-type", content_type);
        }
        let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(Body::from(body)).map_err(|e| self.unreachable(&e))?;
        self.client.send(request).await.map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, e: &dyn std::error::Error) -> ApiError {
        // The innermost cause is what the reader can act on: "connection refused", "certificate has expired".
        let mut innermost = e;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        ApiError::Unreachable { server: self.server.clone(), reason: innermost.to_string() }
    }
}

/// The `Status` in a body; for a body that holds none, one that quotes it.
pub fn refusal(status: u16, parsed: Option<Value>, bytes: &[u8]) -> Refusal {
    let from_status = parsed.and_then(|v| serde_json::from_value::<Refusal>(v).ok());
    match from_status {
        Some(r) if !r.message.is_empty() => Refusal { code: status, ..r },
        _ => Refusal {
            code: status,
            message: format!("HTTP {status}: {}", String::from_utf8_lossy(bytes).trim()),
            ..Refusal::default()
        },
    }
}

/// kube takes the process's TLS provider; setting it a second time is no error to act on.
fn provider() {
    let _already_set = rustls::crypto::ring::default_provider().install_default();
}

/// Runs requests from where there is no runtime, or where there is one that must not be entered again.
pub(crate) fn blocking<T, F>(kubeconfig: &Path, f: impl FnOnce(Api) -> F + Send) -> Result<T, crate::Error>
where
    T: Send,
    F: Future<Output = Result<T, crate::Error>>,
{
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = crate::error::Doing::doing(runtime, || "start a runtime".into())?;
        runtime.block_on(async { f(Api::from_file(kubeconfig).await?).await })
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refusals_name_the_fields() {
        let status = json!({
            "kind": "Status", "code": 422, "message": "Service \"web\" is invalid: …",
            "details": {"causes": [{"field": "spec.ports[0].port", "message": "Invalid value"}]},
        });
        for (body, want) in [
            (status.to_string(), "spec.ports[0].port: Invalid value"),
            (json!({"kind": "Status", "message": "services \"x\" not found"}).to_string(), "services \"x\" not found"),
            ("<html>bad gateway</html>".into(), "HTTP 502: <html>bad gateway</html>"),
        ] {
            let parsed = serde_json::from_str(&body).ok();
            assert_eq!(refusal(502, parsed, body.as_bytes()).to_string(), want);
        }
    }
}
