use eastwest_model::Kind;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::client::path;
use crate::{Client, Error, WriteOptions};

/// Where the manifest of the last apply is kept, as kubectl's client-side apply does.
const LAST_APPLIED: &str = "eastwest.dev/last-applied-configuration";

/// What an apply did, in kubectl's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        })
    }
}

/// The result of [`Client::apply`].
#[derive(Clone, Debug)]
pub struct Applied {
    pub kind: Kind,
    pub outcome: Outcome,
    /// The object as the server has it now.
    pub object: Value,
}

impl Client {
    /// Makes the server's object what the manifest says, creating it if there is none: fields of an earlier apply that
    /// the manifest no longer has are removed, fields written by others stay. `namespace` is for manifests without one.
    pub async fn apply(
        &self,
        manifest: &Value,
        namespace: Option<&str>,
        options: &WriteOptions,
    ) -> Result<Applied, Error> {
        let text = |key: &str| manifest[key].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let kind = Kind::of(version, kind).ok_or_else(|| {
            let known: Vec<_> =
                Kind::ALL.iter().map(|k| format!("{} {}", k.api_version(), k.name())).collect();
            Error::Manifest(format!(
                "no kind {kind:?} in apiVersion {version:?}; there are: {}",
                known.join(", ")
            ))
        })?;
        let mut manifest = manifest.clone();
        if !manifest["metadata"].is_object() {
            return Err(Error::Manifest(format!("{}: metadata.name is required", kind.name())));
        }
        if kind.namespaced() && manifest["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
            manifest["metadata"]["namespace"] = namespace.unwrap_or(self.default_namespace()).into();
        }
        let last = manifest.to_string();
        match manifest["metadata"].get_mut("annotations") {
            Some(Value::Object(annotations)) => drop(annotations.insert(LAST_APPLIED.into(), last.into())),
            _ => manifest["metadata"]["annotations"] = json!({ LAST_APPLIED: last }),
        }
        let namespace = manifest["metadata"]["namespace"].as_str().map(str::to_owned);
        let namespace = namespace.as_deref();
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let create = async || {
            let object = self
                .write(Method::POST, &path(kind, namespace, None), options, &manifest, "application/json")
                .await?;
            Ok(Applied { kind, outcome: Outcome::Created, object })
        };
        if name.is_empty() {
            // `generateName`, or an error that the server words better.
            return create().await;
        }
        let one = path(kind, namespace, Some(&name));
        let mut attempts = 0;
        loop {
            attempts += 1;
            let old: Value = match self.json(Method::GET, &one, &[], None).await {
                Ok(old) => old,
                Err(e) if e.is_not_found() => match create().await {
                    Err(e) if e.is_conflict() && attempts < 3 => continue,
                    done => return done,
                },
                Err(e) => return Err(e),
            };
            let last = old["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
            let last = serde_json::from_str(last).unwrap_or(Value::Null);
            let patch = three_way(&last, &manifest);
            let content = "application/merge-patch+json";
            let object: Value = self.write(Method::PATCH, &one, options, &patch, content).await?;
            let version = |v: &Value| v["metadata"]["resourceVersion"].clone();
            let outcome =
                if version(&old) == version(&object) { Outcome::Unchanged } else { Outcome::Configured };
            return Ok(Applied { kind, outcome, object });
        }
    }
}

/// The merge patch (RFC 7396) that makes an object what `new` says: `new` itself, with `null` for what `last` had and
/// `new` has not. Lists are replaced as a whole.
pub fn three_way(last: &Value, new: &Value) -> Value {
    let (Value::Object(last), Value::Object(new)) = (last, new) else { return new.clone() };
    let mut patch = Map::new();
    for key in last.keys().filter(|k| !new.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let before = last.get(key).unwrap_or(&Value::Null);
        patch.insert(key.clone(), three_way(before, value));
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_manifest_leaves_the_object() {
        let cases = [
            (json!(null), json!({"a": 1}), json!({"a": 1})),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), json!({"a": 1, "b": null})),
            (
                json!({"s": {"x": "1", "y": "2"}, "l": [1]}),
                json!({"s": {"y": "3"}, "l": [2]}),
                json!({"s": {"x": null, "y": "3"}, "l": [2]}),
            ),
            (json!({"s": "text"}), json!({"s": {"y": 3}}), json!({"s": {"y": 3}})),
        ];
        for (last, new, wanted) in cases {
            assert_eq!(three_way(&last, &new), wanted, "{last} {new}");
        }
    }
}
