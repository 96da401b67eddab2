//! `?watch=true`: events as they happen, one JSON object a line.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use eastwest_model::Revision;
use eastwest_store::{Event, Gone, Object, Watcher};
use http::StatusCode;
use rand::Rng;
use serde_json::json;
use tokio::time::{Instant, Interval};

use crate::kinds::Served;
use crate::read::{json_response, render, select};
use crate::{ApiError, App, Query, Shape};

/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_secs(30);
/// A watch without `timeoutSeconds` lasts this long, and up to twice as long, so that clients do not all come back at
/// once (kube-apiserver `--min-request-timeout`).
const DURATION_MIN: Duration = Duration::from_secs(1800);
/// Events taken from the store at a time.
const BATCH: usize = 256;
const CHUNK: usize = 64 << 10;

/// Tells that the initial events are complete (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub async fn watch<T: Served>(
    app: &App,
    namespace: Option<&str>,
    q: Query,
    shape: Shape,
) -> Result<Response, ApiError> {
    q.field_selector.check(T::KIND)?;
    let store = &app.realm(T::KIND).store;
    let from = q.resource_version.filter(|r| r.0 > 0);
    let listing =
        Query { limit: None, continue_: None, exact_match: false, resource_version: None, ..q.clone() };
    let (initial, start) = match from {
        Some(from) if !q.send_initial_events => (Vec::new(), from),
        _ => {
            let listed = select::<T>(app, namespace, &listing)?;
            (listed.objects, listed.revision)
        }
    };
    let watcher = match store.watch(start) {
        Ok(watcher) => watcher,
        Err(gone) => {
            // Within the stream, where every client looks for it.
            let line = error_line(gone);
            return Ok(json_response(StatusCode::OK, line));
        }
    };
    let lasts = q.timeout.unwrap_or_else(|| DURATION_MIN.mul_f64(rand::rng().random_range(1.0..2.0)));
    let mut bookmarks = tokio::time::interval(BOOKMARK);
    bookmarks.reset();
    let state = Watching::<T> {
        initial: initial.into(),
        end_of_initial: q.send_initial_events && q.bookmarks,
        watcher,
        namespace: namespace.map(Arc::from),
        bookmarks,
        deadline: Instant::now() + lasts,
        closing: app.0.closing.clone(),
        shape,
        columns: true,
        q,
        ended: false,
        kind: PhantomData,
    };
    let stream = futures::stream::unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), state))
    });
    Ok(json_response(StatusCode::OK, Body::from_stream(stream)))
}

struct Watching<T> {
    initial: VecDeque<Arc<Object>>,
    end_of_initial: bool,
    watcher: Watcher,
    namespace: Option<Arc<str>>,
    q: Query,
    bookmarks: Interval,
    deadline: Instant,
    closing: tokio_util::sync::CancellationToken,
    shape: Shape,
    /// A table's first event carries the columns.
    columns: bool,
    ended: bool,
    kind: PhantomData<fn() -> T>,
}

impl<T: Served> Watching<T> {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::new();
        while let Some(object) = self.initial.pop_front() {
            self.line(&mut out, "ADDED", &object);
            if out.len() >= CHUNK {
                return Some(out.freeze());
            }
        }
        if std::mem::take(&mut self.end_of_initial) {
            self.bookmark(&mut out, true);
        }
        while out.is_empty() {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                () = tokio::time::sleep_until(self.deadline) => return None,
                events = self.watcher.next(BATCH) => match events {
                    Ok(events) => events.iter().for_each(|e| self.event(&mut out, e)),
                    Err(gone) => {
                        self.ended = true;
                        out.put_slice(error_line(gone).as_bytes());
                    }
                },
                _ = self.bookmarks.tick(), if self.q.bookmarks => self.bookmark(&mut out, false),
            }
        }
        Some(out.freeze())
    }

    fn selects(&self, object: &Object) -> bool {
        self.q.label_selector.matches(&object.labels) && self.q.field_selector.matches(object)
    }

    /// An object that comes to match is added, one that no longer matches deleted, for this watcher.
    fn event(&mut self, out: &mut BytesMut, event: &Event) {
        let key = &event.key;
        if key.kind != T::KIND || self.namespace.as_ref().is_some_and(|ns| *ns != key.namespace) {
            return;
        }
        let before = event.previous.as_ref().is_some_and(|p| self.selects(p));
        let now = !event.deleted && self.selects(&event.object);
        let type_ = match (before, now) {
            (false, false) => return,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        self.line(out, type_, &event.object);
    }

    fn line(&mut self, out: &mut BytesMut, type_: &str, object: &Object) {
        let json = match self.shape {
            Shape::Object => object.json.clone(),
            shape => match render::<T>(object, shape, std::mem::take(&mut self.columns)) {
                Ok(json) => json,
                Err(error) => {
                    tracing::error!(key = %object.key, %error, "a stored object does not decode");
                    return;
                }
            },
        };
        out.put_slice(b"{\"type\":\"");
        out.put_slice(type_.as_bytes());
        out.put_slice(b"\",\"object\":");
        out.put_slice(&json);
        out.put_slice(b"}\n");
    }

    fn bookmark(&mut self, out: &mut BytesMut, end_of_initial: bool) {
        let revision = self.watcher.position();
        out.put_slice(bookmark_line::<T>(revision, self.shape, end_of_initial).as_bytes());
    }
}

fn bookmark_line<T: Served>(revision: Revision, shape: Shape, end_of_initial: bool) -> String {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if end_of_initial {
        metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
    }
    let object = match shape {
        Shape::Object => {
            json!({"kind": T::KIND.name(), "apiVersion": T::KIND.api_version(), "metadata": metadata})
        }
        Shape::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        }
        Shape::Table => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
            "columnDefinitions": [], "rows": [{"cells": [], "object":
                {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}}]}),
    };
    json!({"type": "BOOKMARK", "object": object}).to_string() + "\n"
}

fn error_line(gone: Gone) -> String {
    json!({"type": "ERROR", "object": ApiError::expired(gone).status()}).to_string() + "\n"
}
