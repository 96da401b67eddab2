//! What a request asks for: its path, its query and the form its answer should have.

use std::time::Duration;

use eastwest_model::{Kind, LabelSelector, Revision};
use http::{HeaderMap, header};

use crate::ApiError;

/// A Kubernetes path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePath<'a> {
    pub kind: Kind,
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    pub subresource: Option<&'a str>,
}

impl<'a> ResourcePath<'a> {
    /// `None` for a path that is not a resource's.
    pub fn parse(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/').peekable();
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        if parts.next()? != "v1" {
            return None;
        }
        let rest: Vec<&str> = parts.collect();
        let kind_of =
            |plural: &str| Kind::ALL.into_iter().find(|k| k.group() == group && k.plural() == plural);
        let (kind, namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, plural, rest @ ..] if kind_of(plural).is_some_and(Kind::namespaced) => {
                (kind_of(plural)?, Some(*namespace), rest)
            }
            [plural, rest @ ..] => (kind_of(plural)?, None, rest),
            [] => return None,
        };
        match rest {
            [] => Some(Self { kind, namespace, name: None, subresource: None }),
            [name] => Some(Self { kind, namespace, name: Some(name), subresource: None }),
            [name, sub] => Some(Self { kind, namespace, name: Some(name), subresource: Some(sub) }),
            _ => None,
        }
    }
}

/// What to do about fields the schema does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    /// Say so in a `Warning` header.
    #[default]
    Warn,
    Strict,
}

/// The query parameters of resource paths. Unknown ones are ignored, as Kubernetes does.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub label_selector: LabelSelector,
    pub field_selector: FieldSelector,
    pub limit: Option<usize>,
    pub continue_: Option<String>,
    /// `None` when absent or empty.
    pub resource_version: Option<Revision>,
    pub exact_match: bool,
    pub watch: bool,
    pub bookmarks: bool,
    pub send_initial_events: bool,
    pub timeout: Option<Duration>,
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    pub field_manager: Option<String>,
    pub force: bool,
    /// `?wait=programmed`: how long the answer may take.
    pub wait: Option<Duration>,
}

impl Query {
    pub fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut q = Self::default();
        let (mut wait, mut wait_timeout) = (false, Duration::from_secs(5));
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let bad = |why: &str| {
                let shown: String = value.chars().take(128).collect();
                ApiError::bad_request(format!("query parameter {name}={shown:?}: {why}"))
            };
            let flag = || match &*value {
                "" | "true" | "1" | "True" => Ok(true),
                "false" | "0" | "False" => Ok(false),
                _ => Err(bad("expected true or false")),
            };
            match &*name {
                "labelSelector" => q.label_selector = LabelSelector::parse(&value).map_err(|e| bad(&e))?,
                "fieldSelector" => q.field_selector = FieldSelector::parse(&value).map_err(|e| bad(&e))?,
                "limit" if !value.is_empty() => {
                    let n: u32 = value.parse().map_err(|_| bad("expected a number of objects"))?;
                    q.limit = (n > 0).then_some(n as usize);
                }
                "continue" if !value.is_empty() => q.continue_ = Some(value.into_owned()),
                "resourceVersion" if !value.is_empty() => {
                    q.resource_version = Some(value.parse().map_err(|_| bad("expected a revision number"))?);
                }
                "resourceVersionMatch" => match &*value {
                    "Exact" => q.exact_match = true,
                    "" | "NotOlderThan" => {}
                    _ => return Err(bad("expected Exact or NotOlderThan")),
                },
                "watch" => q.watch = flag()?,
                "allowWatchBookmarks" => q.bookmarks = flag()?,
                "sendInitialEvents" => q.send_initial_events = flag()?,
                "timeoutSeconds" if !value.is_empty() => {
                    let seconds: u32 = value.parse().map_err(|_| bad("expected a number of seconds"))?;
                    q.timeout = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                }
                "dryRun" => match &*value {
                    "" => {}
                    "All" => q.dry_run = true,
                    _ => return Err(bad("expected All")),
                },
                "fieldValidation" => {
                    q.field_validation = match &*value {
                        "" | "Warn" => FieldValidation::Warn,
                        "Ignore" => FieldValidation::Ignore,
                        "Strict" => FieldValidation::Strict,
                        _ => return Err(bad("expected Ignore, Warn or Strict")),
                    };
                }
                "fieldManager" if !value.is_empty() => {
                    if value.chars().count() > 128 {
                        return Err(bad("expected at most 128 characters"));
                    }
                    q.field_manager = Some(value.into_owned());
                }
                "force" => q.force = flag()?,
                "wait" => match &*value {
                    "programmed" => wait = true,
                    "" => {}
                    _ => return Err(bad("expected programmed")),
                },
                "timeout" if !value.is_empty() => {
                    wait_timeout = parse_duration(&value)
                        .ok_or_else(|| bad("expected a duration such as 500ms, 5s or 1m, at most 10m"))?;
                }
                _ => {}
            }
        }
        q.wait = wait.then_some(wait_timeout);
        Ok(q)
    }
}

/// `500ms`, `5s`, `1m`, or a number of seconds; at most ten minutes.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let n: u64 = text[..digits].parse().ok()?;
    let duration = match &text[digits..] {
        "ms" => Duration::from_millis(n),
        "s" | "" => Duration::from_secs(n),
        "m" => Duration::from_secs(n.checked_mul(60)?),
        _ => return None,
    };
    (duration <= Duration::from_secs(600)).then_some(duration)
}

/// Field selectors: `metadata.name`, `metadata.namespace` and, of Services, `spec.type` and `spec.clusterIP`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    SpecType,
    SpecClusterIp,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct SpecHead {
    spec: SpecFields,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct SpecFields {
    #[serde(rename = "type")]
    type_: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|t| !t.trim().is_empty()) {
            let (field, value, equal) = if let Some((f, v)) = term.split_once("!=") {
                (f, v, false)
            } else if let Some((f, v)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (f, v, true)
            } else {
                return Err("expected FIELD=VALUE or FIELD!=VALUE".into());
            };
            let field = match field.trim() {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                "spec.type" => Field::SpecType,
                "spec.clusterIP" => Field::SpecClusterIp,
                _ => {
                    return Err("field label not supported; supported: metadata.name, metadata.namespace, \
                                spec.type, spec.clusterIP"
                        .into());
                }
            };
            terms.push(Term { field, value: value.trim().into(), equal });
        }
        Ok(Self(terms))
    }

    /// `spec.*` exist on Services only.
    pub fn check(&self, kind: Kind) -> Result<(), ApiError> {
        let of_service = |t: &Term| matches!(t.field, Field::SpecType | Field::SpecClusterIp);
        if kind != Kind::Service && self.0.iter().any(of_service) {
            let message =
                format!("fieldSelector: spec.type and spec.clusterIP are not fields of {}", kind.name());
            return Err(ApiError::bad_request(message));
        }
        Ok(())
    }

    pub fn matches(&self, object: &eastwest_store::Object) -> bool {
        let needs_spec = self.0.iter().any(|t| matches!(t.field, Field::SpecType | Field::SpecClusterIp));
        let head: SpecHead = if needs_spec {
            serde_json::from_slice(&object.json).unwrap_or_default()
        } else {
            SpecHead::default()
        };
        self.0.iter().all(|t| {
            let actual = match t.field {
                Field::Name => &*object.key.name,
                Field::Namespace => &*object.key.namespace,
                Field::SpecType => &head.spec.type_,
                Field::SpecClusterIp => &head.spec.cluster_ip,
            };
            (actual == t.value) == t.equal
        })
    }
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    /// `meta.k8s.io/v1` Table, for printing.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
}

impl Shape {
    /// The first form in `Accept` that can be served.
    pub fn negotiate(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut any = false;
        for accept in headers.get_all(header::ACCEPT) {
            let Ok(accept) = accept.to_str() else { continue };
            for range in accept.split(',') {
                any = true;
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next().unwrap_or_default();
                if !matches!(media, "application/json" | "application/*" | "*/*" | "") {
                    continue;
                }
                let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
                let get = |name: &str| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
                let meta = get("g").is_none_or(|g| g == "meta.k8s.io") && get("v").is_none_or(|v| v == "v1");
                match get("as") {
                    None => return Ok(Self::Object),
                    Some("Table") if meta => return Ok(Self::Table),
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => {
                        return Ok(Self::Metadata);
                    }
                    Some(_) => {}
                }
            }
        }
        if any { Err(ApiError::not_acceptable("application/json")) } else { Ok(Self::Object) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let p =
            |kind, namespace, name, subresource| Some(ResourcePath { kind, namespace, name, subresource });
        for (path, expected) in [
            ("/api/v1/services", p(Kind::Service, None, None, None)),
            ("/api/v1/namespaces", p(Kind::Namespace, None, None, None)),
            ("/api/v1/namespaces/a", p(Kind::Namespace, None, Some("a"), None)),
            ("/api/v1/namespaces/a/status", p(Kind::Namespace, None, Some("a"), Some("status"))),
            ("/api/v1/namespaces/a/services", p(Kind::Service, Some("a"), None, None)),
            ("/api/v1/namespaces/a/services/b", p(Kind::Service, Some("a"), Some("b"), None)),
            (
                "/api/v1/namespaces/a/services/b/status",
                p(Kind::Service, Some("a"), Some("b"), Some("status")),
            ),
            ("/apis/eastwest.dev/v1/nodestates/n", p(Kind::NodeState, None, Some("n"), None)),
            (
                "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices",
                p(Kind::EndpointSlice, Some("a"), None, None),
            ),
            ("/apis/eastwest.dev/v1/namespaces/a", None),
            ("/api/v1/namespaces/a/nodes/b", None),
            ("/api/v2/services", None),
            ("/api", None),
            ("/v1/topology", None),
            ("/api/v1/services/a/b/c/d", None),
        ] {
            assert_eq!(ResourcePath::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn queries() {
        let q = Query::parse(Some(
            "labelSelector=app%3Dweb&limit=5&watch=1&resourceVersion=7&wait=programmed&timeout=250ms&other=x",
        ))
        .unwrap();
        assert_eq!(
            (q.limit, q.watch, q.resource_version, q.wait),
            (Some(5), true, Some(Revision(7)), Some(Duration::from_millis(250)))
        );
        for bad in [
            "limit=x",
            "limit=-1",
            "watch=maybe",
            "resourceVersion=abc",
            "labelSelector=%29",
            "fieldSelector=status.phase%3Da",
            "dryRun=Some",
            "timeout=1h",
            "timeout=11m",
            "wait=soon",
            "fieldValidation=Hard",
        ] {
            let e = Query::parse(Some(bad)).unwrap_err();
            assert_eq!(e.code, 400, "{bad}");
            assert!(e.message.contains(bad.split('=').next().unwrap()), "{}", e.message);
        }
    }

    #[test]
    fn accepted_forms() {
        for (accept, expected) in [
            (None, Some(Shape::Object)),
            (Some("*/*"), Some(Shape::Object)),
            (Some("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Some(Shape::Table)),
            (
                Some("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json"),
                Some(Shape::Object),
            ),
            (Some("application/vnd.kubernetes.protobuf, application/json"), Some(Shape::Object)),
            (Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), Some(Shape::Metadata)),
            (Some("application/vnd.kubernetes.protobuf"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(Shape::negotiate(&headers).ok(), expected, "{accept:?}");
        }
    }
}
