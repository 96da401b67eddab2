//! PATCH: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch and server-side apply.

use eastwest_model::Resource;
use serde_json::Value;

use crate::body::{self, BODY_MAX, Decoded};
use crate::{ApiError, FieldValidation, Query, apply, strategic};

/// Most operations of a JSON patch (apiserver `maxJSONPatchOperations`).
const OPERATIONS_MAX: usize = 10_000;

/// What PATCH accepts.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A patch that has been read but not applied.
#[derive(Debug)]
pub enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    Apply { config: Value, manager: String, force: bool },
}

impl Patch {
    pub fn parse(media_type: &str, body: &[u8], query: &Query) -> Result<Self, ApiError> {
        match media_type {
            "application/json-patch+json" => {
                let value = body::parse_json(body)?;
                let patch: json_patch::Patch = serde_json::from_value(value).map_err(|e| {
                    ApiError::bad_request(format!("the body is not a JSON patch (RFC 6902): {e}"))
                })?;
                if patch.0.len() > OPERATIONS_MAX {
                    let message =
                        format!("the JSON patch has {} operations, at most {OPERATIONS_MAX}", patch.0.len());
                    return Err(ApiError::new(
                        http::StatusCode::PAYLOAD_TOO_LARGE,
                        "RequestEntityTooLarge",
                        message,
                    ));
                }
                Ok(Self::Json(patch))
            }
            "application/merge-patch+json" => Ok(Self::Merge(object(body::parse_json(body)?)?)),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(object(body::parse_json(body)?)?)),
            "application/apply-patch+yaml" => {
                let Some(manager) = query.field_manager.clone() else {
                    return Err(ApiError::bad_request("query parameter fieldManager: is required for apply"));
                };
                let mut config = object(body::parse_yaml(body)?)?;
                body::strip_nulls(&mut config);
                Ok(Self::Apply { config, manager, force: query.force })
            }
            other => Err(ApiError::unsupported_media_type(other, &MEDIA_TYPES.join(", "))),
        }
    }

    /// Whether it makes an object where there is none.
    pub fn creates(&self) -> bool {
        matches!(self, Self::Apply { .. })
    }

    /// The object as it will be.
    pub fn apply<T: Resource>(
        &self,
        old: Option<&T>,
        validation: FieldValidation,
    ) -> Result<Decoded<T>, ApiError> {
        let mut value = serde_json::to_value(old).map_err(ApiError::internal)?;
        match self {
            Self::Json(patch) => json(&mut value, patch)?,
            Self::Merge(patch) => json_patch::merge(&mut value, patch),
            Self::Strategic(patch) => strategic::merge(&mut value, patch)?,
            Self::Apply { config, manager, force } => {
                let live = old.is_some().then_some(value);
                value = apply::apply(live, config, manager, *force)?;
            }
        }
        body::decode(value, validation)
    }
}

fn object(value: Value) -> Result<Value, ApiError> {
    if value.is_object() { Ok(value) } else { Err(ApiError::bad_request("the patch must be an object")) }
}

/// Applies the operations; what `copy` may add up to is bounded.
fn json(value: &mut Value, patch: &json_patch::Patch) -> Result<(), ApiError> {
    let mut copied = 0usize;
    for (i, operation) in patch.0.iter().enumerate() {
        if let json_patch::PatchOperation::Copy(copy) = operation
            && let Ok(from) = copy.from.resolve(value)
        {
            copied = copied.saturating_add(from.to_string().len());
            if copied > BODY_MAX {
                return Err(ApiError::too_large(BODY_MAX));
            }
        }
        json_patch::patch(value, std::slice::from_ref(operation)).map_err(|e| {
            let message = format!("the JSON patch does not apply: operation {i}: {e}");
            ApiError::new(http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).cause(
                "FieldValueInvalid",
                &format!("[{i}]"),
                e.to_string(),
            )
        })?;
    }
    Ok(())
}
