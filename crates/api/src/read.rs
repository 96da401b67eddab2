//! Get and list.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use eastwest_model::{Kind, Revision};
use eastwest_store::{Key, Object, View};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::kinds::Served;
use crate::{ApiError, App, Query, Shape, table};

/// Objects that a page scans at most per returned object is not bounded: the whole of memory is scanned in
/// milliseconds. Chunks of an answer are about this large, bytes.
const CHUNK: usize = 64 << 10;

pub fn json_response(code: StatusCode, body: impl Into<Body>) -> Response {
    let json = HeaderValue::from_static("application/json");
    let no_cache = HeaderValue::from_static("no-cache, private");
    (code, [(header::CONTENT_TYPE, json), (header::CACHE_CONTROL, no_cache)], body.into()).into_response()
}

/// One object in the form asked for.
pub fn object_response<T: Served>(
    code: StatusCode,
    object: &Object,
    shape: Shape,
) -> Result<Response, ApiError> {
    let body: Bytes = match shape {
        Shape::Object => object.json.clone(),
        _ => render::<T>(object, shape, true)?,
    };
    Ok(json_response(code, body))
}

/// An object in another form than its own JSON: a table of one row, or its metadata.
pub fn render<T: Served>(object: &Object, shape: Shape, columns: bool) -> Result<Bytes, ApiError> {
    let decoded: T = serde_json::from_slice(&object.json).map_err(ApiError::internal)?;
    let value = match shape {
        Shape::Object => return Ok(object.json.clone()),
        Shape::Metadata => table::metadata_only(decoded.metadata()),
        Shape::Table => {
            table_of::<T>(&object.revision.to_string(), "", None, vec![table::row(&decoded)], columns)
        }
    };
    serde_json::to_vec(&value).map(Bytes::from).map_err(ApiError::internal)
}

fn table_of<T: Served>(
    revision: &str,
    continue_: &str,
    remaining: Option<usize>,
    rows: Vec<serde_json::Value>,
    columns: bool,
) -> serde_json::Value {
    let mut metadata = json!({"resourceVersion": revision});
    if !continue_.is_empty() {
        metadata["continue"] = continue_.into();
    }
    if let Some(n) = remaining {
        metadata["remainingItemCount"] = n.into();
    }
    let definitions = if columns { table::definitions::<T>() } else { json!([]) };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows})
}

pub async fn get<T: Served>(
    app: &App,
    namespace: &str,
    name: &str,
    shape: Shape,
) -> Result<Response, ApiError> {
    let key = Key::new(T::KIND, namespace, name);
    let object = app.realm(T::KIND).store.get(&key).ok_or_else(|| ApiError::not_found(T::KIND, name))?;
    object_response::<T>(StatusCode::OK, &object, shape)
}

/// Objects of a list with the revision they are true for.
#[derive(Debug)]
pub struct Listed {
    pub objects: Vec<Arc<Object>>,
    pub revision: Revision,
    pub continue_: String,
    pub remaining: Option<usize>,
}

/// Selects objects. A page that goes on is of the revision its first page was.
pub fn select<T: Served>(app: &App, namespace: Option<&str>, q: &Query) -> Result<Listed, ApiError> {
    q.field_selector.check(T::KIND)?;
    let store = &app.realm(T::KIND).store;
    let (at, after) = match &q.continue_ {
        Some(token) => {
            let (revision, key) = parse_continue(T::KIND, token).ok_or_else(|| {
                ApiError::bad_request("query parameter continue: not a token of this server")
            })?;
            (Some(revision), Some(key))
        }
        None => (q.resource_version.filter(|r| q.exact_match && r.0 > 0), None),
    };
    if let Some(asked) = at.or(q.resource_version)
        && asked > store.revision()
    {
        return Err(ApiError::too_large_revision(asked, store.revision()));
    }
    let look = |view: View<'_>| {
        let mut found = view
            .range(T::KIND, namespace, after.as_ref())
            .filter(|o| q.label_selector.matches(&o.labels) && q.field_selector.matches(o));
        let objects: Vec<_> = found.by_ref().take(q.limit.unwrap_or(usize::MAX)).cloned().collect();
        let more = found.count();
        let continue_ = match objects.last().filter(|_| more > 0) {
            Some(last) => format!("{}/{}/{}", view.revision(), last.key.namespace, last.key.name),
            None => String::new(),
        };
        let remaining = (more > 0).then_some(more);
        Listed { objects, revision: view.revision(), continue_, remaining }
    };
    match at {
        Some(revision) => store.read_at(revision, look).map_err(ApiError::expired),
        None => Ok(store.read(look)),
    }
}

fn parse_continue(kind: Kind, token: &str) -> Option<(Revision, Key)> {
    let mut parts = token.splitn(3, '/');
    let revision = parts.next()?.parse().ok()?;
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some((revision, Key::new(kind, namespace, name)))
}

pub async fn list<T: Served>(
    app: &App,
    namespace: Option<&str>,
    q: &Query,
    shape: Shape,
) -> Result<Response, ApiError> {
    let listed = select::<T>(app, namespace, q)?;
    match shape {
        Shape::Object => Ok(plain_list::<T>(listed)),
        Shape::Metadata | Shape::Table => {
            // Decoding many objects is not for the threads that serve the others.
            let render = move || -> Result<Vec<u8>, serde_json::Error> {
                let mut rows = Vec::with_capacity(listed.objects.len());
                for object in &listed.objects {
                    let decoded: T = serde_json::from_slice(&object.json)?;
                    rows.push(match shape {
                        Shape::Table => table::row(&decoded),
                        _ => table::metadata_only(decoded.metadata()),
                    });
                }
                let revision = listed.revision.to_string();
                let value = if shape == Shape::Table {
                    table_of::<T>(&revision, &listed.continue_, listed.remaining, rows, true)
                } else {
                    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                        "metadata": {"resourceVersion": revision, "continue": listed.continue_}, "items": rows})
                };
                serde_json::to_vec(&value)
            };
            let body = tokio::task::spawn_blocking(render).await.map_err(ApiError::internal)?;
            Ok(json_response(StatusCode::OK, body.map_err(ApiError::internal)?))
        }
    }
}

/// A list of the objects' own JSON, sent in chunks: nothing is decoded or copied as a whole.
pub fn plain_list<T: Served>(listed: Listed) -> Response {
    let metadata = eastwest_model::ListMeta {
        resource_version: listed.revision.to_string(),
        continue_: listed.continue_,
        remaining_item_count: listed.remaining.map(|n| n as i64),
    };
    let head = json!({"kind": format!("{}List", T::KIND.name()), "apiVersion": T::KIND.api_version(),
        "metadata": metadata});
    let mut head = head.to_string();
    head.pop();
    head.push_str(",\"items\":[");
    let mut objects = listed.objects.into_iter().enumerate();
    let mut next = BytesMut::from(head.as_bytes());
    let mut done = false;
    let chunks = std::iter::from_fn(move || {
        if done {
            return None;
        }
        while next.len() < CHUNK {
            let Some((i, object)) = objects.next() else {
                next.put_slice(b"]}\n");
                done = true;
                break;
            };
            if i > 0 {
                next.put_u8(b',');
            }
            next.put_slice(&object.json);
        }
        Some(next.split().freeze())
    });
    let mut chunks = chunks.peekable();
    // A short list goes out whole, with its length.
    let first = chunks.next().unwrap_or_default();
    if chunks.peek().is_none() {
        return json_response(StatusCode::OK, first);
    }
    let stream =
        futures::stream::iter(std::iter::once(first).chain(chunks).map(Ok::<_, std::convert::Infallible>));
    json_response(StatusCode::OK, Body::from_stream(stream))
}
