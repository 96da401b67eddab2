//! From the bytes of a request to a typed object, with errors that say where.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::Value;

use crate::{ApiError, FieldValidation};
use eastwest_model::Resource;

/// Largest body, bytes: that of etcd's and so of Kubernetes' API server (`MaxRequestBodyBytes`).
pub const BODY_MAX: usize = 3 << 20;

/// A body must be there after this long.
const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// Reads the body, at most [`BODY_MAX`] bytes.
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|n| n > BODY_MAX as u64) {
        return Err(ApiError::too_large(BODY_MAX));
    }
    let read = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY_MAX)).await;
    let read = read.map_err(|_| {
        let message = format!("the body did not arrive within {BODY_TIME:?}");
        ApiError::new(http::StatusCode::REQUEST_TIMEOUT, "Timeout", message)
    })?;
    read.map_err(|e| {
        let over = std::error::Error::source(&e).is_some_and(|s| s.is::<http_body_util::LengthLimitError>());
        if over {
            ApiError::too_large(BODY_MAX)
        } else {
            ApiError::bad_request(format!("the body could not be read: {e}"))
        }
    })
}

/// The media type without parameters, in lower case; empty when there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Parses JSON or YAML. Errors give line and column.
pub fn parse(media_type: &str, body: &[u8]) -> Result<Value, ApiError> {
    match media_type {
        "application/json" | "" => parse_json(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "application/apply-patch+yaml" => {
            parse_yaml(body)
        }
        other => Err(ApiError::unsupported_media_type(other, "application/json, application/yaml")),
    }
}

pub fn parse_json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(format!("the body is not valid JSON: {e}")))
}

pub fn parse_yaml(body: &[u8]) -> Result<Value, ApiError> {
    serde_yaml_ng::from_slice(body)
        .map_err(|e| ApiError::bad_request(format!("the body is not valid YAML: {e}")))
}

/// An object and what of its JSON the schema does not know.
#[derive(Debug)]
pub struct Decoded<T> {
    pub object: T,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// Decodes an object. `null` counts as absent, as in Kubernetes. Errors name the field's path.
pub fn decode<T: Resource>(mut value: Value, validation: FieldValidation) -> Result<Decoded<T>, ApiError> {
    check_kind::<T>(&value)?;
    strip_nulls(&mut value);
    if let Value::Object(map) = &mut value {
        map.insert("kind".into(), T::KIND.name().into());
        map.insert("apiVersion".into(), T::KIND.api_version().into());
    }
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let object: Result<T, _> = serde_ignored::deserialize(deserializer, |path| {
        if unknown.len() < 32 {
            unknown.push(format!("unknown field {:?}", field_path(&path)));
        }
    });
    let object = object.map_err(|e| {
        let field = track.path().to_string();
        let message = format!("{} in the body cannot be read: {field}: {e}", T::KIND.name());
        ApiError::bad_request(message).cause("FieldValueInvalid", &field, e.to_string())
    })?;
    match validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            let message = format!("strict decoding error: {}", unknown.join(", "));
            let mut error = ApiError::bad_request(message);
            for text in unknown {
                let field = text.trim_start_matches("unknown field ").trim_matches('"').to_owned();
                error = error.cause("FieldValueInvalid", &field, text);
            }
            Err(error)
        }
        FieldValidation::Ignore => Ok(Decoded { object, warnings: Vec::new() }),
        _ => Ok(Decoded { object, warnings: unknown }),
    }
}

fn check_kind<T: Resource>(value: &Value) -> Result<(), ApiError> {
    if !value.is_object() {
        return Err(ApiError::bad_request(format!("the body must be one {} object", T::KIND.name())));
    }
    for (field, expected) in [("kind", T::KIND.name()), ("apiVersion", T::KIND.api_version())] {
        match value.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(s)) if s.is_empty() || s == expected => {}
            Some(other) => {
                let shown: String = other.to_string().chars().take(80).collect();
                let message = format!("{field}: {shown} does not match this path, which is for {expected:?}");
                return Err(ApiError::bad_request(message));
            }
        }
    }
    Ok(())
}

/// Removes `null` members of objects. Depth is bounded by the parsers (128).
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// `spec.ports[0].prot`, as Kubernetes writes paths.
fn field_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    let joined = |parent: &Path<'_>, last: &str| {
        let parent = field_path(parent);
        if parent.is_empty() { last.to_owned() } else { format!("{parent}.{last}") }
    };
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field_path(parent)),
        Path::Map { parent, key } => joined(parent, key),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            field_path(parent)
        }
    }
}
