//! Server-side apply (`application/apply-patch+yaml`, KEP-555). A manager sends what it wants to be so; the server
//! remembers in `metadata.managedFields` which fields that was, takes away what the manager no longer sends, and refuses
//! to change what another manager has applied, unless forced.
//!
//! Only applying managers are remembered: a field written by PUT, POST or another PATCH belongs to nobody.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::strategic::{ListRule, merge, rule};
use crate::{ApiError, transaction};

/// Maps that are one value (`structType=atomic` in Kubernetes' types).
const ATOMIC: [&[&str]; 1] = [&["spec", "selector"]];
/// What a manager cannot own: who the object is, and what the server writes.
const UNOWNED: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "generateName"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
    &["metadata", "generation"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "managedFields"],
    &["metadata", "selfLink"],
];

/// One step of a path, as `fieldsV1` writes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// `f:`: a member of an object.
    Field(String),
    /// `k:`: the item of a list with these members, JSON with sorted names.
    Key(String),
    /// `v:`: the item of a list that equals this JSON.
    Item(String),
}

type Path = Vec<Step>;
/// Leaves, and items of lists by themselves.
type Fields = BTreeSet<Path>;

/// The object that applying `config` gives, with its `managedFields`. `live` is the object as it is, if it is.
pub fn apply(live: Option<Value>, config: &Value, manager: &str, force: bool) -> Result<Value, ApiError> {
    if !config.is_object() {
        return Err(ApiError::bad_request("the applied configuration must be an object"));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null() && *m != json!([])) {
        return Err(ApiError::bad_request(
            "metadata.managedFields must not be set in an applied configuration",
        ));
    }
    let mut wanted = Fields::new();
    collect(config, &mut Vec::new(), &mut Vec::new(), &mut wanted);
    let Some(live) = live else {
        let mut object = config.clone();
        let api_version = config["apiVersion"].clone();
        set_managers(&mut object, vec![entry(manager, &api_version, &wanted, None)]);
        return Ok(object);
    };
    let entries =
        live.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    let (mine, mut others): (Vec<Value>, Vec<Value>) =
        entries.into_iter().partition(|e| e["manager"] == manager && e["operation"] == "Apply");
    settle(&live, config, &wanted, &mut others, force)?;
    let owned_by_others: Fields = others.iter().flat_map(fields_of).collect();

    let mut object = live.clone();
    for path in ATOMIC {
        let pointer = format!("/{}", path.join("/"));
        if config.pointer(&pointer).is_some()
            && let Some(value) = object.pointer_mut(&pointer)
        {
            *value = Value::Null;
        }
    }
    merge(&mut object, config)?;
    let before: Fields = mine.iter().flat_map(fields_of).collect();
    // In order, an item of a list comes before its members and goes with all of them: they are what it is found by.
    for path in before.difference(&wanted) {
        let kept = owned_by_others.iter().chain(&wanted).any(|o| o.starts_with(path));
        if !kept {
            remove(&mut object, path);
        }
    }
    let api_version = object["apiVersion"].clone();
    others.push(entry(manager, &api_version, &wanted, mine.first()));
    set_managers(&mut object, others);
    Ok(object)
}

/// Finds the fields that others have applied with another value; with `force`, takes them away from the others.
fn settle(
    live: &Value,
    config: &Value,
    wanted: &Fields,
    others: &mut Vec<Value>,
    force: bool,
) -> Result<(), ApiError> {
    let mut conflicts = Vec::new();
    for other in others.iter_mut() {
        let fields = fields_of(other);
        let contested: Fields = fields
            .intersection(wanted)
            .filter(|p| matches!(p.last(), Some(Step::Field(_))) && resolve(live, p) != resolve(config, p))
            .cloned()
            .collect();
        if contested.is_empty() {
            continue;
        }
        let name = other["manager"].as_str().unwrap_or_default().to_owned();
        conflicts.extend(contested.iter().map(|p| (name.clone(), show(p))));
        other["fieldsV1"] = to_v1(&fields.difference(&contested).cloned().collect());
    }
    others.retain(|o| o["fieldsV1"] != json!({}));
    if force || conflicts.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = conflicts.iter().map(|(m, p)| format!("{p} (of {m:?})")).collect();
    let message = format!("Apply failed with {} conflict(s): {}", conflicts.len(), list.join(", "));
    let mut error = ApiError::new(http::StatusCode::CONFLICT, "Conflict", message);
    for (manager, path) in conflicts {
        error = error.cause("FieldManagerConflict", &path, format!("conflict with {manager:?}"));
    }
    Err(error)
}

fn entry(manager: &str, api_version: &Value, fields: &Fields, before: Option<&Value>) -> Value {
    let fields = to_v1(fields);
    // The time of the last change, so that applying the same again changes nothing.
    let time = before.filter(|b| b["fieldsV1"] == fields).map(|b| b["time"].clone());
    json!({"manager": manager, "operation": "Apply", "apiVersion": api_version,
        "time": time.unwrap_or_else(|| transaction::now().into()), "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn set_managers(object: &mut Value, entries: Vec<Value>) {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["managedFields"] = entries.into();
}

fn fields_of(entry: &Value) -> Fields {
    let mut fields = Fields::new();
    from_v1(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
    fields
}

fn collect<'v>(value: &'v Value, names: &mut Vec<&'v str>, path: &mut Path, out: &mut Fields) {
    if UNOWNED.contains(&names.as_slice()) {
        return;
    }
    match value {
        Value::Object(map) if !map.is_empty() && !ATOMIC.contains(&names.as_slice()) => {
            for (name, value) in map {
                names.push(name);
                path.push(Step::Field(name.clone()));
                collect(value, names, path, out);
                path.pop();
                names.pop();
            }
        }
        Value::Array(items) if rule(names).is_some() => {
            for item in items {
                let Some(step) = step(names, item) else { continue };
                path.push(step);
                out.insert(path.clone());
                if let Value::Object(map) = item {
                    for (name, value) in map {
                        path.push(Step::Field(name.clone()));
                        // Nothing within an item has rules of its own.
                        let mut names = vec!["[]", name.as_str()];
                        collect(value, &mut names, path, out);
                        path.pop();
                    }
                }
                path.pop();
            }
        }
        Value::Null => {}
        // The object itself, when it is empty, is nobody's.
        _ if path.is_empty() => {}
        _ => {
            out.insert(path.clone());
        }
    }
}

/// How an item of the list at `names` is known.
fn step(names: &[&str], item: &Value) -> Option<Step> {
    match rule(names)? {
        ListRule::Set => Some(Step::Item(item.to_string())),
        ListRule::Key(key) => {
            let mut id = Map::new();
            id.insert(key.into(), item.get(key)?.clone());
            if key == "port" {
                id.insert("protocol".into(), item.get("protocol").cloned().unwrap_or_else(|| "TCP".into()));
            }
            Some(Step::Key(Value::Object(id).to_string()))
        }
    }
}

/// Whether an item is the one that a `k:` step names.
fn is_item(item: &Value, key: &str) -> bool {
    let Ok(Value::Object(id)) = serde_json::from_str(key) else { return false };
    id.iter().all(|(name, value)| match item.get(name) {
        Some(v) => v == value,
        None => name == "protocol" && value == "TCP",
    })
}

/// Whether an item is the one that a `v:` step names.
fn equals(item: &Value, json: &str) -> bool {
    serde_json::from_str::<Value>(json).is_ok_and(|v| v == *item)
}

fn resolve<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Key(key) => value.as_array()?.iter().find(|i| is_item(i, key)),
        Step::Item(item) => value.as_array()?.iter().find(|i| equals(i, item)),
    })
}

fn remove(value: &mut Value, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(value, |value, step| match step {
        Step::Field(name) => value.get_mut(name),
        Step::Key(key) => value.as_array_mut()?.iter_mut().find(|i| is_item(i, key)),
        Step::Item(_) => None,
    });
    match (last, parent) {
        (Step::Field(name), Some(Value::Object(map))) => {
            map.remove(name);
        }
        (Step::Key(key), Some(Value::Array(items))) => items.retain(|i| !is_item(i, key)),
        (Step::Item(item), Some(Value::Array(items))) => items.retain(|i| !equals(i, item)),
        _ => {}
    }
}

/// `fieldsV1`: nested objects, a leaf is `{}`, and `.` stands for an inner node by itself.
fn to_v1(fields: &Fields) -> Value {
    let mut root = json!({});
    for path in fields {
        let mut node = &mut root;
        for step in path {
            let name = match step {
                Step::Field(f) => format!("f:{f}"),
                Step::Key(k) => format!("k:{k}"),
                Step::Item(v) => format!("v:{v}"),
            };
            node = &mut node[name];
            if node.is_null() {
                *node = json!({});
            }
        }
        if matches!(path.last(), Some(Step::Key(_))) {
            node["."] = json!({});
        }
    }
    root
}

fn from_v1(node: &Value, path: &mut Path, out: &mut Fields) {
    let Value::Object(map) = node else { return };
    if map.is_empty() && !path.is_empty() {
        out.insert(path.clone());
    }
    for (name, value) in map {
        let step = match name.split_at_checked(2) {
            _ if name == "." => {
                out.insert(path.clone());
                continue;
            }
            Some(("f:", rest)) => Step::Field(rest.into()),
            Some(("k:", rest)) => Step::Key(rest.into()),
            Some(("v:", rest)) => Step::Item(rest.into()),
            _ => continue,
        };
        path.push(step);
        from_v1(value, path, out);
        path.pop();
    }
}

fn show(path: &Path) -> String {
    path.iter()
        .map(|s| match s {
            Step::Field(f) => format!(".{f}"),
            Step::Key(k) => format!("[{k}]"),
            Step::Item(v) => format!("[={v}]"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(labels: Value, ports: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": labels},
            "spec": {"selector": {"app": "web"}, "ports": ports}})
    }

    #[test]
    fn a_manager_takes_back_what_it_no_longer_sends() {
        let first = config(json!({"a": "1", "b": "2"}), json!([{"port": 80}, {"port": 443, "name": "s"}]));
        let mut live = apply(None, &first, "me", false).unwrap();
        // The server and another writer add what nobody manages.
        live["spec"]["clusterIP"] = "10.0.0.1".into();
        live["metadata"]["labels"]["other"] = "x".into();
        let second = config(json!({"a": "1"}), json!([{"port": 80, "targetPort": 8080}]));
        let live = apply(Some(live), &second, "me", false).unwrap();
        assert_eq!(live["metadata"]["labels"], json!({"a": "1", "other": "x"}));
        assert_eq!(live["spec"]["ports"], json!([{"port": 80, "targetPort": 8080}]));
        assert_eq!(live["spec"]["clusterIP"], "10.0.0.1");
        assert_eq!(
            apply(Some(live.clone()), &second, "me", false).unwrap(),
            live,
            "the same again changes nothing"
        );
    }

    #[test]
    fn managers_do_not_overwrite_each_other() {
        let live = apply(None, &config(json!({"a": "1"}), json!([{"port": 80}])), "one", false).unwrap();
        let other = config(json!({"a": "2"}), json!([{"port": 80}]));
        let error = apply(Some(live.clone()), &other, "two", false).unwrap_err();
        assert_eq!((error.code.as_u16(), error.details.causes.len()), (409, 1));
        assert_eq!(error.details.causes[0].field, ".metadata.labels.a");
        let live = apply(Some(live), &other, "two", true).unwrap();
        assert_eq!(live["metadata"]["labels"]["a"], "2");
        // What both want stays until both have let it go.
        let less = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
        let live = apply(Some(live), &less, "two", false).unwrap();
        assert_eq!(live["spec"]["ports"], json!([{"port": 80}]));
        assert_eq!(live["metadata"]["labels"], json!({}));
        let live = apply(Some(live), &less, "one", false).unwrap();
        assert_eq!(live["spec"]["ports"], json!([]));
    }

    #[test]
    fn a_selector_is_replaced_as_a_whole() {
        let live = apply(None, &config(json!({}), json!([{"port": 80}])), "me", false).unwrap();
        let mut next = config(json!({}), json!([{"port": 80}]));
        next["spec"]["selector"] = json!({"tier": "front"});
        let live = apply(Some(live), &next, "me", false).unwrap();
        assert_eq!(live["spec"]["selector"], json!({"tier": "front"}));
    }

    #[test]
    fn fields_come_back_from_their_json() {
        let mut fields = Fields::new();
        let value = config(json!({"a": "1"}), json!([{"port": 53, "protocol": "UDP"}, {"port": 53}]));
        collect(&value, &mut Vec::new(), &mut Vec::new(), &mut fields);
        let mut back = Fields::new();
        from_v1(&to_v1(&fields), &mut Vec::new(), &mut back);
        assert_eq!(back, fields);
        assert!(fields.len() >= 7);
    }
}
