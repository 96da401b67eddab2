//! TYPE and NAME on the command line, in the ways kubectl takes them.

use anyhow::{Result, anyhow, bail};
use eastwest_model::Kind;
use serde_json::Value;

/// `svc`, `service`, `services`, `Service`, `services.v1`, `endpointslices.discovery.k8s.io`.
pub fn kind(text: &str) -> Result<Kind> {
    let (name, group) = text.split_once('.').unwrap_or((text, ""));
    let name = name.to_ascii_lowercase();
    let found = Kind::ALL.into_iter().find(|k| {
        let named = k.plural() == name || k.singular() == name || k.short_names().contains(&name.as_str());
        named && (group.is_empty() || group == k.group() || group == k.api_version())
    });
    found.ok_or_else(|| {
        let known: Vec<_> = Kind::ALL
            .iter()
            .map(|k| match k.short_names() {
                [] => k.plural().to_owned(),
                short => format!("{} ({})", k.plural(), short.join(", ")),
            })
            .collect();
        anyhow!("no type {text:?}; there are: {}", known.join(", "))
    })
}

/// An object, whose namespace is said elsewhere.
pub type Named = (Kind, String);

/// `TYPE`, `TYPE NAME…`, `TYPE/NAME…`: the objects, and the type when it was said once for all of them.
pub fn objects(arguments: &[String]) -> Result<(Vec<Named>, Option<Kind>)> {
    let Some((first, rest)) = arguments.split_first() else { return Ok((Vec::new(), None)) };
    if first.contains('/') {
        let pair = |a: &String| match a.split_once('/') {
            Some((k, name)) if !name.is_empty() => Ok((kind(k)?, name.to_owned())),
            _ => bail!("{a:?}: after TYPE/NAME every argument must be TYPE/NAME"),
        };
        return Ok((arguments.iter().map(pair).collect::<Result<_>>()?, None));
    }
    let kind = kind(first)?;
    if let Some(wrong) = rest.iter().find(|r| r.contains('/')) {
        bail!("{wrong:?}: after a TYPE come names");
    }
    Ok((rest.iter().map(|name| (kind, name.clone())).collect(), Some(kind)))
}

/// `service/web`, as kubectl prints it; kinds outside the core group with their group.
pub fn display(kind: Kind, name: &str) -> String {
    match kind.group() {
        "" => format!("{}/{name}", kind.singular()),
        group => format!("{}.{group}/{name}", kind.singular()),
    }
}

pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn namespace_of(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str().filter(|n| !n.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn types() {
        for (text, want) in [
            ("svc", Some(Kind::Service)),
            ("Services", Some(Kind::Service)),
            ("services.v1", Some(Kind::Service)),
            ("endpointslices.discovery.k8s.io", Some(Kind::EndpointSlice)),
            ("wl", Some(Kind::Workload)),
            ("deployments", None),
            ("services.apps", None),
            ("", None),
        ] {
            assert_eq!(kind(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn types_and_names() {
        let web = (Kind::Service, "web".to_owned());
        let node = (Kind::Node, "node-1".to_owned());
        for (text, want) in [
            ("svc", Some((vec![], Some(Kind::Service)))),
            ("svc web", Some((vec![web.clone()], Some(Kind::Service)))),
            ("svc/web no/node-1", Some((vec![web.clone(), node], None))),
            ("svc/web web", None),
            ("svc web/x", None),
            ("svc/", None),
        ] {
            assert_eq!(objects(&words(text)).ok(), want, "{text:?}");
        }
    }
}
