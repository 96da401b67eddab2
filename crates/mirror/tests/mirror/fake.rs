//! A small API server over real HTTP: lists in pages, watches with bookmarks and initial events, a history that can be
//! compacted, and all the ways in which it can be unwell.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

pub const SERVICES: &str = "/api/v1/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub const PODS: &str = "/api/v1/pods";
pub const NODES: &str = "/api/v1/nodes";
pub const NAMESPACES: &str = "/api/v1/namespaces";
pub const SPLITS: &str = "/apis/eastwest.dev/v1/trafficsplits";
const PATHS: [&str; 6] = [SERVICES, SLICES, PODS, NODES, NAMESPACES, SPLITS];

type Objects = BTreeMap<(&'static str, String, String), Value>;

/// The server and what it is told to do.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<Inner>>,
    /// Changes wake the watches; the value counts up when they have to end.
    wake: watch::Sender<u64>,
    pub address: SocketAddr,
}

struct Change {
    revision: u64,
    path: &'static str,
    type_: &'static str,
    object: Value,
}

pub struct Inner {
    pub revision: u64,
    objects: Objects,
    history: Vec<Change>,
    /// Lists that are being read page by page.
    pages: BTreeMap<(&'static str, u64), Vec<Value>>,
    /// Watches from before are told that they are too old.
    oldest: u64,
    /// Knows TrafficSplits; nobody has defined DnsRecords.
    pub splits: bool,
    /// Knows `sendInitialEvents`.
    pub streaming: bool,
    /// Each watch ends after this many events or at once.
    pub watch_events: Option<usize>,
    /// Answers everything with this, and `Retry-After`.
    pub refuse: Option<(StatusCode, Option<u32>)>,
    /// As `refuse`, for so many requests.
    pub refuse_next: usize,
    /// What was asked: `list PATH`, `watch PATH`.
    pub asked: Vec<String>,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = Inner {
            revision: 100,
            objects: Objects::new(),
            history: Vec::new(),
            pages: BTreeMap::new(),
            oldest: 100,
            splits: false,
            streaming: true,
            watch_events: None,
            refuse: None,
            refuse_next: 0,
            asked: Vec::new(),
        };
        let this = Self {
            state: Arc::new(Mutex::new(inner)),
            wake: watch::Sender::new(0),
            address: listener.local_addr().unwrap(),
        };
        let router = axum::Router::new().fallback(answer).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        this
    }

    pub fn config(&self) -> kube::Config {
        kube::Config::new(format!("http://{}", self.address).parse().unwrap())
    }

    /// Changes how the server behaves.
    pub fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    fn record(&self, path: &'static str, mut object: Value, type_: &'static str) {
        self.with(|s| {
            s.revision += 1;
            object["metadata"]["resourceVersion"] = s.revision.to_string().into();
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let key = (path, text("namespace"), text("name"));
            if type_ == "DELETED" {
                s.objects.remove(&key);
            } else {
                s.objects.insert(key, object.clone());
            }
            s.history.push(Change { revision: s.revision, path, type_, object });
        });
        self.wake.send_modify(|_| {});
    }

    pub fn put(&self, path: &'static str, object: Value) {
        self.record(path, object, "MODIFIED");
    }

    pub fn delete(&self, path: &'static str, namespace: &str, name: &str) {
        let key = (path, namespace.to_owned(), name.to_owned());
        let object = self.with(|s| s.objects.get(&key).cloned()).unwrap();
        self.record(path, object, "DELETED");
    }

    /// Sends a bookmark to all watches.
    pub fn bookmark(&self) {
        for path in PATHS {
            self.with(|s| {
                let object = json!({"kind": "X", "apiVersion": "v1", "metadata": {"resourceVersion": s.revision.to_string()}});
                s.history.push(Change { revision: s.revision, path, type_: "BOOKMARK", object });
            });
        }
        self.wake.send_modify(|_| {});
    }

    /// Forgets all history.
    pub fn compact(&self) {
        self.with(|s| {
            s.history.clear();
            s.pages.clear();
            s.oldest = s.revision;
        });
    }

    /// Forgets what was before the newest revision.
    pub fn compact_before_newest(&self) {
        self.with(|s| {
            let newest = s.revision;
            s.history.retain(|c| c.revision >= newest);
            s.oldest = newest - 1;
        });
    }

    /// Ends all watches.
    pub fn hang_up(&self) {
        self.wake.send_modify(|n| *n += 1);
    }

    /// A backup, to be restored.
    pub fn back_up(&self) -> (u64, Objects) {
        self.with(|s| (s.revision, s.objects.clone()))
    }

    /// The server comes back as it was then, with other history from there on.
    pub fn restore(&self, (revision, objects): (u64, Objects)) {
        self.with(|s| {
            s.revision = revision;
            s.objects = objects;
            s.history.clear();
            s.pages.clear();
            s.oldest = revision;
        });
        self.hang_up();
    }

    /// Names of what there is.
    pub fn names(&self, path: &str) -> Vec<String> {
        self.with(|s| s.objects.keys().filter(|k| k.0 == path).map(|k| format!("{}/{}", k.1, k.2)).collect())
    }

    pub fn asked(&self, what: &str, path: &str) -> usize {
        let line = format!("{what} {path}");
        self.with(|s| s.asked.iter().filter(|a| **a == line).count())
    }
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": message});
    (code, Json(body)).into_response()
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let uri = request.uri().clone();
    let Some(path) =
        PATHS.into_iter().find(|p| *p == uri.path() && (*p != SPLITS || fake.with(|s| s.splits)))
    else {
        return failure(StatusCode::NOT_FOUND, "NotFound", "no such path");
    };
    let query = uri.query().unwrap_or_default();
    let get = |name: &str| {
        let pairs = query.split('&').filter_map(|p| p.split_once('='));
        pairs.filter(|(k, _)| *k == name).map(|(_, v)| v.to_owned()).next()
    };
    let watch = get("watch").as_deref() == Some("true");
    let probe = get("limit").as_deref() == Some("1");
    let refused = fake.with(|s| {
        if !probe {
            s.asked.push(format!("{} {path}", if watch { "watch" } else { "list" }));
        }
        let refusal = s.refuse?;
        if s.refuse_next > 0 {
            s.refuse_next -= 1;
            if s.refuse_next == 0 {
                s.refuse = None;
            }
        }
        Some(refusal)
    });
    if let Some((code, retry_after)) = refused {
        let mut response = failure(code, "Refused", "not now");
        if let Some(seconds) = retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        return response;
    }
    if !watch {
        let limit: usize = get("limit").and_then(|c| c.parse().ok()).unwrap_or(usize::MAX);
        let (at, first) = match get("continue").as_deref().and_then(|c| c.split_once('.')) {
            Some((at, first)) => (at.parse().unwrap(), first.parse().unwrap()),
            None => (fake.with(|s| s.revision), 0_usize),
        };
        return fake.with(|s| {
            // All pages are of one moment.
            let all: Vec<Value> = match s.pages.get(&(path, at)) {
                Some(all) if first > 0 => all.clone(),
                None if first > 0 => return failure(StatusCode::GONE, "Expired", "the list is too old"),
                _ => s.objects.iter().filter(|(k, _)| k.0 == path).map(|(_, o)| o.clone()).collect(),
            };
            let page: Vec<_> = all.iter().skip(first).take(limit).cloned().collect();
            let mut meta = json!({"resourceVersion": at.to_string()});
            if first + page.len() < all.len() {
                meta["continue"] = format!("{at}.{}", first + page.len()).into();
                s.pages.insert((path, at), all);
            }
            Json(json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": page})).into_response()
        });
    }
    let initial = get("sendInitialEvents").as_deref() == Some("true");
    if initial && !fake.with(|s| s.streaming) {
        return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "sendInitialEvents is forbidden");
    }
    let from: u64 = get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
    let (lines, position) = fake.with(|s| {
        if !initial {
            return (Vec::new(), from);
        }
        let mut lines: Vec<_> =
            s.objects.iter().filter(|(k, _)| k.0 == path).map(|(_, o)| line("ADDED", o)).collect();
        let end = json!({"kind": "X", "apiVersion": "v1", "metadata": {"resourceVersion": s.revision.to_string(),
            "annotations": {"k8s.io/initial-events-end": "true"}}});
        lines.push(line("BOOKMARK", &end));
        (lines, s.revision)
    });
    if position < fake.with(|s| s.oldest) {
        return failure(StatusCode::GONE, "Expired", "too old resource version");
    }
    let mut wake = fake.wake.subscribe();
    let ends = *wake.borrow_and_update();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(64);
    tokio::spawn(async move {
        for line in lines {
            let _ = sender.send(Ok(line)).await;
        }
        let (mut position, mut sent) = (position, 0);
        let most = fake.with(|s| s.watch_events).unwrap_or(usize::MAX);
        loop {
            if position < fake.with(|s| s.oldest) {
                let object = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "code": 410, "reason": "Expired", "message": "too old resource version"});
                let _ = sender.send(Ok(line("ERROR", &object))).await;
                return;
            }
            let news: Vec<(u64, Bytes)> = fake.with(|s| {
                let after = s.history.iter().filter(|c| c.path == path);
                // A bookmark does not make a revision of its own.
                let after = after
                    .filter(|c| c.revision > position || (c.type_ == "BOOKMARK" && c.revision == position));
                after.map(|c| (c.revision, line(c.type_, &c.object))).collect()
            });
            for (revision, line) in news {
                if sent >= most {
                    return;
                }
                position = revision + u64::from(line.starts_with(b"{\"type\":\"BOOKMARK\""));
                sent += 1;
                if sender.send(Ok(line)).await.is_err() {
                    return;
                }
            }
            if sent >= most && most == 0 {
                return;
            }
            tokio::select! {
                _ = wake.changed() => if *wake.borrow_and_update() != ends { return },
                () = sender.closed() => return,
                () = tokio::time::sleep(Duration::from_millis(20)), if most < usize::MAX => return,
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
}

fn line(type_: &str, object: &Value) -> Bytes {
    // The type in front, as a Go server writes it.
    Bytes::from(format!("{{\"type\":\"{type_}\",\"object\":{object}}}\n"))
}
