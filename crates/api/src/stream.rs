//! `GET /v1/agent/stream`: what agents pull. The protocol stands in `eastwest_model::stream`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use eastwest_model::Revision;
use eastwest_model::stream::{BOOKMARK_SECONDS, KINDS, Message};
use eastwest_store::{Event, Object, Store, Watcher};
use http::{HeaderValue, header};
use serde::Deserialize;
use tokio::time::Interval;

use crate::app::Connected;
use crate::{ApiError, App};

const BATCH: usize = 512;
const CHUNK: usize = 64 << 10;

/// What the agent has.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Name of the agent's node.
    node: String,
    /// The store whose changes it has applied; absent on a first start.
    store_id: Option<String>,
    /// The last revision it has applied; absent on a first start.
    revision: Option<u64>,
}

/// All that agents program, ordered by revision: a full list or what is missing, then changes as they happen.
#[utoipa::path(
    get,
    path = "/v1/agent/stream",
    tag = "eastwest",
    params(StreamQuery),
    responses(
        (status = 200, description = "One message a line: `hello`, then `reset`, `put` and `synced` for a full list, \
            `put` and `delete` for changes, `bookmark` every 5 s", content_type = "application/x-ndjson"),
        (status = "4XX", description = "The request cannot be served", body = crate::error::Problem,
            content_type = "application/problem+json"),
    )
)]
pub async fn agent_stream(
    State(app): State<App>,
    query: Result<Query<StreamQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(q) = match query {
        Ok(q) => q,
        Err(e) => return ApiError::bad_request(e.body_text()).into_problem(),
    };
    let mut errors = Vec::new();
    eastwest_model::validate::dns_subdomain(&mut errors, "node", &q.node);
    if let Some(e) = errors.first() {
        return ApiError::bad_request(format!("query parameter {e}")).into_problem();
    }
    if app.incomplete() {
        return ApiError::unavailable(crate::app::INCOMPLETE.to_owned()).into_problem();
    }
    let store = app.store().clone();
    let known = match (&q.store_id, q.revision) {
        (Some(id), Some(revision)) if id == store.id() => Some(Revision(revision)),
        _ => None,
    };
    let mut out = BytesMut::new();
    message(&mut out, &Message::Hello { store_id: store.id().to_owned(), revision: store.revision() });
    let (watcher, list) = match known.and_then(|r| store.watch(r).ok()) {
        Some(watcher) => (watcher, None),
        None => match full_list(&store) {
            Ok((watcher, objects)) => (watcher, Some(objects)),
            Err(e) => return e.into_problem(),
        },
    };
    let mut bookmarks = tokio::time::interval(Duration::from_secs(BOOKMARK_SECONDS));
    bookmarks.reset();
    let state = Streaming {
        list,
        watcher,
        store,
        bookmarks,
        first: true,
        closing: app.0.closing.clone(),
        _connected: app.connect(&q.node),
        out,
    };
    let stream = futures::stream::unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), state))
    });
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    let no_cache = HeaderValue::from_static("no-cache, private");
    let headers = [(header::CONTENT_TYPE, ndjson), (header::CACHE_CONTROL, no_cache)];
    (headers, Body::from_stream(stream)).into_response()
}

/// All objects that agents read, in the order of kinds, and a watcher from there on.
fn full_list(store: &Store) -> Result<(Watcher, VecDeque<Arc<Object>>), ApiError> {
    let (revision, objects) = store.read(|view| {
        let objects = KINDS.iter().flat_map(|kind| view.range(*kind, None, None)).cloned().collect();
        (view.revision(), objects)
    });
    // Only a store that turns its whole history over in between could refuse this.
    let watcher = store.watch(revision).map_err(|gone| ApiError::unavailable(gone.to_string()))?;
    Ok((watcher, objects))
}

struct Streaming {
    /// What is left to send of a full list.
    list: Option<VecDeque<Arc<Object>>>,
    /// Whether the list's `reset` is still to be sent.
    first: bool,
    watcher: Watcher,
    store: Store,
    bookmarks: Interval,
    closing: tokio_util::sync::CancellationToken,
    _connected: Connected,
    out: BytesMut,
}

impl Streaming {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(list) = &mut self.list {
            if std::mem::take(&mut self.first) {
                message(&mut self.out, &Message::Reset);
            }
            while self.out.len() < CHUNK {
                let Some(object) = list.pop_front() else {
                    message(&mut self.out, &Message::Synced { revision: self.watcher.position() });
                    self.list = None;
                    break;
                };
                put(&mut self.out, &object);
            }
            return Some(self.out.split().freeze());
        }
        // The first answer goes out at once: an agent that is up to date must know it.
        if std::mem::take(&mut self.first) {
            message(&mut self.out, &Message::Bookmark { revision: self.watcher.position() });
        }
        while self.out.is_empty() {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                events = self.watcher.next(BATCH) => match events {
                    Ok(events) => self.events(&events),
                    Err(gone) => {
                        tracing::info!(%gone, "an agent is too far behind and gets a full list");
                        let (watcher, objects) = full_list(&self.store).ok()?;
                        self.watcher = watcher;
                        self.list = Some(objects);
                        message(&mut self.out, &Message::Reset);
                    }
                },
                _ = self.bookmarks.tick() => {
                    message(&mut self.out, &Message::Bookmark { revision: self.watcher.position() });
                }
            }
        }
        Some(self.out.split().freeze())
    }

    fn events(&mut self, events: &[Arc<Event>]) {
        let mut last_sent = false;
        for event in events {
            last_sent = KINDS.contains(&event.key.kind);
            match (last_sent, event.deleted) {
                (false, _) => {}
                (true, false) => put(&mut self.out, &event.object),
                (true, true) => message(
                    &mut self.out,
                    &Message::Delete {
                        revision: event.revision,
                        kind: event.key.kind,
                        namespace: event.key.namespace.to_string(),
                        name: event.key.name.to_string(),
                    },
                ),
            }
        }
        // A writer may wait for a revision that agents have nothing to do for.
        if !last_sent {
            message(&mut self.out, &Message::Bookmark { revision: self.watcher.position() });
        }
    }
}

/// [`Message::Put`] around JSON that is there already.
fn put(out: &mut BytesMut, object: &Object) {
    let head = format!(
        "{{\"put\":{{\"revision\":{},\"kind\":\"{}\",\"object\":",
        object.revision,
        object.key.kind.name()
    );
    out.reserve(head.len() + object.json.len() + 3);
    out.put_slice(head.as_bytes());
    out.put_slice(&object.json);
    out.put_slice(b"}}\n");
}

fn message(out: &mut BytesMut, message: &Message) {
    match serde_json::to_vec(message) {
        Ok(json) => {
            out.put_slice(&json);
            out.put_u8(b'\n');
        }
        Err(error) => tracing::error!(%error, "a message does not encode"),
    }
}
