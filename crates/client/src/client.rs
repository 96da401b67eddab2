use std::path::{Path, PathBuf};
use std::time::Duration;

use eastwest_model::{Kind, List, Resource, Revision};
use futures::Stream;
use kube::client::ConfigExt;
use kube::config::Kubeconfig;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kubeconfig::{chain, config, load};
use crate::lines::{Lines, MAX_LINE};
use crate::{Error, Status};

/// Time for one request and its answer, unless it waits for something on purpose.
const REQUEST: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(3);

/// A client of one controller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// For streams: a connection each, so that a dead one is not used again.
    streams: reqwest::Client,
    base: Url,
    auth: Auth,
    default_namespace: String,
}

#[derive(Clone)]
enum Auth {
    None,
    Token(HeaderValue),
    /// Read at every request: whoever writes it may replace it.
    File(PathBuf),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Auth::None => "None",
            Auth::Token(_) => "Token(…)",
            Auth::File(_) => "File(…)",
        })
    }
}

/// What to list or watch.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// As `kubectl -l`.
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// For a watch: events after this one.
    pub resource_version: Option<String>,
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Answer only when every node has programmed it, or fail after this time.
    pub wait_programmed: Option<Duration>,
    /// Do everything but the write.
    pub dry_run: bool,
    /// `Strict`, `Warn` or `Ignore`.
    pub field_validation: Option<String>,
}

/// One event of a watch.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchEvent<T> {
    #[serde(rename = "type")]
    pub type_: WatchEventType,
    pub object: T,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchEventType {
    Added,
    Modified,
    Deleted,
    /// Only `metadata.resourceVersion` of the object means anything.
    Bookmark,
    /// The object is a [`Status`]; the watch has ended. Typed watches give it as an error.
    Error,
}

/// The path of a kind, or of one object. Without a namespace: over all of them.
pub fn path(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = match kind.group() {
        "" => format!("/api/{}", kind.api_version()),
        _ => format!("/apis/{}", kind.api_version()),
    };
    if let Some(namespace) = namespace.filter(|n| kind.namespaced() && !n.is_empty()) {
        path.push_str(&format!("/namespaces/{namespace}"));
    }
    path.push_str(&format!("/{}", kind.plural()));
    if let Some(name) = name {
        path.push_str(&format!("/{name}"));
    }
    path
}

impl Client {
    /// From a kubeconfig file; see [`load_kubeconfig`](crate::load_kubeconfig) for which.
    pub async fn from_path(file: Option<&Path>, context: Option<&str>) -> Result<Self, Error> {
        Self::from_kubeconfig(load(file)?, context).await
    }

    /// From a kubeconfig's context, or its current one.
    pub async fn from_kubeconfig(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<Self, Error> {
        let config = config(kubeconfig, context).await?;
        let base: Url = config.cluster_url.to_string().parse().map_err(|e| {
            Error::Kubeconfig(format!("kubeconfig: server {:?}: {e}", config.cluster_url.to_string()))
        })?;
        let wrong = |e: &dyn std::error::Error| Error::Kubeconfig(format!("kubeconfig: {}", chain(e)));
        let tls = |alpn: &[&str]| {
            let mut tls = config.rustls_client_config().map_err(|e| wrong(&e))?;
            tls.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
            Ok::<_, Error>(tls)
        };
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("eastwest/", env!("CARGO_PKG_VERSION")))
                .no_proxy()
                .connect_timeout(CONNECT)
                .tcp_nodelay(true)
                .tcp_keepalive(Duration::from_secs(5))
                // Unacknowledged bytes for so long: the connection is dead, whatever TCP still hopes.
                .tcp_user_timeout(Duration::from_secs(10))
        };
        let http = builder()
            .tls_backend_preconfigured(tls(&["h2", "http/1.1"])?)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .http2_keep_alive_while_idle(true)
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(|e| wrong(&e))?;
        let streams = builder()
            .tls_backend_preconfigured(tls(&["http/1.1"])?)
            .http1_only()
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|e| wrong(&e))?;
        let user = &config.auth_info;
        let auth = if let Some(token) = &user.token {
            Auth::Token(bearer(token.expose_secret())?)
        } else if let Some(file) = &user.token_file {
            Auth::File(file.into())
        } else {
            Auth::None
        };
        Ok(Self { http, streams, base, auth, default_namespace: config.default_namespace })
    }

    /// The namespace of the kubeconfig's context; `default` when it names none.
    pub fn default_namespace(&self) -> &str {
        &self.default_namespace
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        self.base.as_str()
    }

    pub async fn get<T: Resource>(&self, namespace: &str, name: &str) -> Result<T, Error> {
        self.json(Method::GET, &path(T::KIND, Some(namespace), Some(name)), &[], None).await
    }

    /// `namespace` `None`: all.
    pub async fn list<T: Resource>(
        &self,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List<T>, Error> {
        self.json(Method::GET, &path(T::KIND, namespace, None), &options.query(), None).await
    }

    pub async fn create<T: Resource>(&self, object: &T, options: &WriteOptions) -> Result<T, Error> {
        let path = path(T::KIND, Some(&object.metadata().namespace), None);
        self.write(Method::POST, &path, options, &as_value(object)?, "application/json").await
    }

    /// Replaces an object. With `metadata.resourceVersion` set it fails if somebody else was faster.
    pub async fn replace<T: Resource>(&self, object: &T, options: &WriteOptions) -> Result<T, Error> {
        let meta = object.metadata();
        let path = path(T::KIND, Some(&meta.namespace), Some(&meta.name));
        self.write(Method::PUT, &path, options, &as_value(object)?, "application/json").await
    }

    /// RFC 7396 merge patch.
    pub async fn merge_patch<T: Resource>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<T, Error> {
        let path = path(T::KIND, Some(namespace), Some(name));
        self.write(Method::PATCH, &path, options, patch, "application/merge-patch+json").await
    }

    /// Deletes an object. Returns what the server says: the object, or a status.
    pub async fn delete(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        options: &WriteOptions,
    ) -> Result<Value, Error> {
        let path = path(kind, Some(namespace), Some(name));
        self.write(Method::DELETE, &path, options, &Value::Null, "application/json").await
    }

    /// Events after `options.resource_version` (absent: all objects first). Ends when the server ends it; an `ERROR`
    /// event comes as [`Error::Status`], 410 of which means: list again.
    pub async fn watch<T: Resource>(
        &self,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, Error>> + Send + use<T>, Error> {
        let mut query = options.query();
        query.push(("watch", "true".into()));
        query.push(("allowWatchBookmarks", "true".into()));
        let request = self.request(&self.streams, Method::GET, &path(T::KIND, namespace, None), &query)?;
        let server = self.base.to_string();
        let response = self.answer(request).await?;
        let start = (response, Lines::new(MAX_LINE), server, false);
        Ok(futures::stream::unfold(start, |(mut response, mut lines, server, over)| async move {
            if over {
                return None;
            }
            let event = next_event::<T>(&mut response, &mut lines, &server).await?;
            let over = event.is_err();
            Some((event, (response, lines, server, over)))
        }))
    }

    /// Opens the agents' stream.
    pub(crate) async fn agent_stream(
        &self,
        node: &str,
        held: Option<(&str, Revision)>,
    ) -> Result<Response, Error> {
        let mut query = vec![("node", node.to_owned())];
        if let Some((store_id, revision)) = held {
            query.push(("storeId", store_id.to_owned()));
            query.push(("revision", revision.to_string()));
        }
        let request = self.request(&self.streams, Method::GET, "/v1/agent/stream", &query)?;
        self.answer(request.header(ACCEPT, "application/x-ndjson")).await
    }

    /// Any request: for what has no method of its own. The answer is JSON; an error of the server is [`Error::Status`].
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let mut request = self.request(&self.http, method, path, query)?.timeout(REQUEST);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.read(request).await
    }

    /// As [`json`](Self::json), with headers (as `Accept` for tables) and the answer as it came.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Response, Error> {
        let mut request = self.request(&self.http, method, path, query)?.headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        self.answer(request).await
    }

    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        options: &WriteOptions,
        body: &Value,
        content_type: &str,
    ) -> Result<T, Error> {
        let mut query: Vec<(&str, String)> = Vec::new();
        let mut timeout = REQUEST;
        if let Some(wait) = options.wait_programmed {
            query.push(("wait", "programmed".into()));
            query.push(("timeout", format!("{}ms", wait.as_millis())));
            timeout += wait;
        }
        if options.dry_run {
            query.push(("dryRun", "All".into()));
        }
        if let Some(validation) = &options.field_validation {
            query.push(("fieldValidation", validation.clone()));
        }
        let mut request = self.request(&self.http, method, path, &query)?.timeout(timeout);
        if !body.is_null() {
            request = request.header(CONTENT_TYPE, content_type).body(body.to_string());
        }
        self.read(request).await
    }

    fn request(
        &self,
        http: &reqwest::Client,
        method: Method,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<RequestBuilder, Error> {
        let mut url = self.base.clone();
        // A server URL may have a path of its own in front.
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = http.request(method, url);
        Ok(match &self.auth {
            Auth::None => request,
            Auth::Token(value) => request.header(AUTHORIZATION, value.clone()),
            Auth::File(file) => {
                let token = std::fs::read_to_string(file)
                    .map_err(|e| Error::Kubeconfig(format!("token file {}: {e}", file.display())))?;
                request.header(AUTHORIZATION, bearer(token.trim())?)
            }
        })
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response, Error> {
        let transport = |e: reqwest::Error| Error::Transport {
            server: self.base.to_string(),
            reason: chain(&e.without_url()),
        };
        let response = request.send().await.map_err(transport)?;
        let code = response.status();
        if code.is_client_error() || code.is_server_error() {
            let body = response.bytes().await.map_err(transport)?;
            return Err(Error::Status(Box::new(Status::read(code.as_u16(), &body))));
        }
        Ok(response)
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.answer(request).await?;
        let server = || self.base.to_string();
        let body = response
            .bytes()
            .await
            .map_err(|e| Error::Transport { server: server(), reason: chain(&e.without_url()) })?;
        serde_json::from_slice(&body).map_err(|e| Error::Protocol { server: server(), reason: e.to_string() })
    }
}

impl ListOptions {
    fn query(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("labelSelector", &self.label_selector),
            ("fieldSelector", &self.field_selector),
            ("resourceVersion", &self.resource_version),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::Kubeconfig("kubeconfig: the token holds characters no token has".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn as_value<T: Resource>(object: &T) -> Result<Value, Error> {
    let mut value = serde_json::to_value(object).map_err(|e| Error::Manifest(e.to_string()))?;
    value["apiVersion"] = T::KIND.api_version().into();
    value["kind"] = T::KIND.name().into();
    Ok(value)
}

async fn next_event<T: Resource>(
    response: &mut Response,
    lines: &mut Lines,
    server: &str,
) -> Option<Result<WatchEvent<T>, Error>> {
    let protocol = |reason: String| Error::Protocol { server: server.to_owned(), reason };
    loop {
        match lines.next_line() {
            Ok(Some(line)) => {
                let event: WatchEvent<Value> = match serde_json::from_slice(&line) {
                    Ok(event) => event,
                    Err(e) => return Some(Err(protocol(e.to_string()))),
                };
                if event.type_ == WatchEventType::Error {
                    let code =
                        event.object["code"].as_u64().and_then(|c| u16::try_from(c).ok()).unwrap_or(500);
                    let status = Status::read(code, event.object.to_string().as_bytes());
                    return Some(Err(Error::Status(Box::new(status))));
                }
                let object = serde_json::from_value(event.object);
                return Some(
                    object
                        .map(|object| WatchEvent { type_: event.type_, object })
                        .map_err(|e| protocol(e.to_string())),
                );
            }
            Ok(None) => {}
            Err(e) => return Some(Err(protocol(e.to_string()))),
        }
        match response.chunk().await {
            Ok(Some(bytes)) => lines.push(&bytes),
            Ok(None) => return None,
            Err(e) => {
                let reason = chain(&e.without_url());
                return Some(Err(Error::Transport { server: server.to_owned(), reason }));
            }
        }
    }
}
