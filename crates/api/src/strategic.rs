//! Strategic merge patch: merge patch, but lists whose items have a key are merged item by item
//! (apimachinery `strategicpatch`; merge keys as in Kubernetes' `types.go`).

use serde_json::{Map, Value};

use crate::ApiError;

/// How lists at a path merge. Lists that are not named are replaced.
pub enum ListRule {
    /// Items with the same value of this field are the same item.
    Key(&'static str),
    /// Of plain values: the union.
    Set,
}

/// How the list at this path, from the object's root, is merged.
pub fn rule(path: &[&str]) -> Option<ListRule> {
    Some(match path {
        ["spec", "ports"] => ListRule::Key("port"),
        ["status", "conditions"] | ["status", "addresses"] => ListRule::Key("type"),
        ["metadata", "ownerReferences"] => ListRule::Key("uid"),
        ["metadata", "finalizers"] => ListRule::Set,
        _ => return None,
    })
}

/// Applies `patch`, an object, to `target`.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let mut path = Vec::new();
    match patch {
        Value::Object(patch) => merge_object(target, patch, &mut path),
        _ => Err(ApiError::bad_request("the patch must be an object")),
    }
}

fn bad(path: &[&str], why: &str) -> ApiError {
    ApiError::bad_request(format!("strategic merge patch: {}: {why}", path.join(".")))
}

fn merge_object<'p>(
    target: &mut Value,
    patch: &'p Map<String, Value>,
    path: &mut Vec<&'p str>,
) -> Result<(), ApiError> {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    match patch.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => *target = Value::Object(Map::new()),
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(_) => return Err(bad(path, "$patch must be merge, replace or delete")),
    }
    let Some(map) = target.as_object_mut() else { return Ok(()) };
    if let Some(keep) = patch.get("$retainKeys") {
        let keep: Vec<&str> = keep.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        map.retain(|k, _| keep.contains(&k.as_str()));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().ok_or_else(|| bad(path, "$deleteFromPrimitiveList needs a list"))?;
            if let Some(Value::Array(items)) = map.get_mut(list) {
                items.retain(|i| !gone.contains(i));
            }
            continue;
        }
        // The order of items has no meaning in any list here.
        if key.starts_with('$') {
            continue;
        }
        path.push(key);
        match value {
            Value::Null => {
                map.remove(key);
            }
            Value::Object(patch) => merge_object(map.entry(key).or_insert(Value::Null), patch, path)?,
            Value::Array(patch) => merge_list(map.entry(key).or_insert(Value::Null), patch, path)?,
            plain => {
                map.insert(key.clone(), plain.clone());
            }
        }
        path.pop();
    }
    Ok(())
}

fn merge_list<'p>(target: &mut Value, patch: &'p [Value], path: &mut Vec<&'p str>) -> Result<(), ApiError> {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Some(items) = target.as_array_mut() else { return Ok(()) };
    match rule(path) {
        None => *items = patch.to_vec(),
        Some(ListRule::Set) => {
            for value in patch {
                if !items.contains(value) {
                    items.push(value.clone());
                }
            }
        }
        Some(ListRule::Key(key)) => {
            let replace = patch.iter().any(|p| directive(p) == Some("replace"));
            if replace {
                items.clear();
            }
            for value in patch {
                let Value::Object(map) = value else { return Err(bad(path, "items must be objects")) };
                if replace && !map.contains_key(key) {
                    continue;
                }
                let id = map.get(key).ok_or_else(|| bad(path, &format!("each item must have {key:?}")))?;
                let same = |i: &Value| i.get(key) == Some(id) && same_protocol(i, map, key);
                match (directive(value), items.iter().position(same)) {
                    (Some("delete"), Some(at)) => {
                        items.remove(at);
                    }
                    (Some("delete"), None) => {}
                    (_, Some(at)) => merge_object(&mut items[at], map, path)?,
                    (_, None) => {
                        let mut item = Value::Null;
                        merge_object(&mut item, map, path)?;
                        items.push(item);
                    }
                }
            }
        }
    }
    Ok(())
}

fn directive(value: &Value) -> Option<&str> {
    value.get("$patch").and_then(Value::as_str)
}

/// Two ports may share a number with different protocols: `port` alone (Kubernetes' merge key) would mix them up.
/// A patch that names no protocol means the item with the number, whatever its protocol.
fn same_protocol(item: &Value, patch: &Map<String, Value>, key: &str) -> bool {
    if key != "port" {
        return true;
    }
    match patch.get("protocol") {
        None => true,
        Some(protocol) => item.get("protocol").and_then(Value::as_str).unwrap_or("TCP") == protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges() {
        let service = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x/a"]}, "spec": {
            "selector": {"app": "web"}, "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                {"name": "http", "port": 80}]}});
        for (name, patch, pointer, expected) in [
            (
                "value",
                json!({"metadata": {"labels": {"a": "9"}}}),
                "/metadata/labels",
                json!({"a": "9", "b": "2"}),
            ),
            ("null", json!({"metadata": {"labels": {"a": null}}}), "/metadata/labels", json!({"b": "2"})),
            (
                "set",
                json!({"metadata": {"finalizers": ["x/b", "x/a"]}}),
                "/metadata/finalizers",
                json!(["x/a", "x/b"]),
            ),
            (
                "out of a set",
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a"]}}),
                "/metadata/finalizers",
                json!([]),
            ),
            (
                "replace a map",
                json!({"spec": {"selector": {"$patch": "replace", "tier": "db"}}}),
                "/spec/selector",
                json!({"tier": "db"}),
            ),
            (
                "item by port and protocol",
                json!({"spec": {"ports": [{"port": 53, "protocol": "TCP", "targetPort": 5353}]}}),
                "/spec/ports/1",
                json!({"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 5353}),
            ),
            (
                "item by port",
                json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}),
                "/spec/ports/2",
                json!({"name": "http", "port": 80, "targetPort": 8080}),
            ),
            (
                "delete an item",
                json!({"spec": {"ports": [{"port": 80, "$patch": "delete"}]}}),
                "/spec/ports",
                json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]),
            ),
            (
                "replace the list",
                json!({"spec": {"ports": [{"$patch": "replace"}, {"port": 1}]}}),
                "/spec/ports",
                json!([{"port": 1}]),
            ),
            (
                "new item, order ignored",
                json!({"spec": {"$setElementOrder/ports": [{"port": 443}], "ports": [{"port": 443, "name": "s"}]}}),
                "/spec/ports/3",
                json!({"port": 443, "name": "s"}),
            ),
            (
                "retain",
                json!({"spec": {"$retainKeys": ["selector"]}}),
                "/spec",
                json!({"selector": {"app": "web"}}),
            ),
        ] {
            let mut value = service.clone();
            merge(&mut value, &patch).unwrap();
            assert_eq!(value.pointer(pointer), Some(&expected), "{name}");
        }
        for bad in [
            json!([]),
            json!({"spec": {"ports": [{"name": "no port"}]}}),
            json!({"spec": {"ports": [80]}}),
            json!({"spec": {"$patch": "burn"}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": 1}}),
        ] {
            assert_eq!(merge(&mut service.clone(), &bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
