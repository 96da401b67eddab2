//! The manifests, as far as they can be judged without a cluster: settings that the programs know, and nothing that is
//! named but not there. `deploy/render --check` says whether they are the chart's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

fn documents() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kustomize/base/eastwest.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|d| Value::deserialize(d).unwrap())
        .filter(|d| !d.is_null())
        .collect()
}

fn binary(name: &str) -> std::path::PathBuf {
    let here = std::env::current_exe().unwrap();
    let beside = here.parent().and_then(Path::parent).unwrap().to_owned();
    let dir = std::env::var_os("EASTWEST_BIN_DIR").map_or(beside, Into::into);
    let path = std::path::absolute(dir).unwrap().join(name);
    assert!(path.exists(), "no {}: build it, or name its folder in EASTWEST_BIN_DIR", path.display());
    path
}

/// What a kubelet would put into the container's environment.
fn environment(container: &Value, all: &[Value]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for from in container["envFrom"].as_array().into_iter().flatten() {
        let name = &from["configMapRef"]["name"];
        let map = all.iter().find(|d| d["kind"] == "ConfigMap" && d["metadata"]["name"] == *name).unwrap();
        for (k, v) in map["data"].as_object().unwrap() {
            env.insert(k.clone(), v.as_str().unwrap().to_owned());
        }
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        let mut value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("spec.nodeName") => "node-1".to_owned(),
            Some("status.hostIPs" | "status.podIPs") => "192.0.2.1,2001:db8::1".to_owned(),
            Some(other) => panic!("what is {other}?"),
            None => variable["value"].as_str().unwrap().to_owned(),
        };
        for (k, v) in env.clone() {
            value = value.replace(&format!("$({k})"), &v);
        }
        assert!(!value.contains("$("), "{variable}");
        env.insert(variable["name"].as_str().unwrap().to_owned(), value);
    }
    env
}

#[test]
fn programs_know_their_settings() {
    let all = documents();
    let mut seen = 0;
    for workload in all.iter().filter(|d| d["spec"]["template"].is_object()) {
        let spec = &workload["spec"]["template"]["spec"];
        assert_eq!(spec["enableServiceLinks"], false, "variables of Services are no settings");
        for container in spec["containers"].as_array().unwrap() {
            let program = container["command"][0].as_str().unwrap().strip_prefix("/usr/bin/").unwrap();
            let env = environment(container, &all);
            let output =
                Command::new(binary(program)).env_clear().envs(&env).arg("--print-config").output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            // Each volume that is mounted is there, and the other way round.
            let names = |list: &Value| -> Vec<String> {
                let mut names: Vec<_> =
                    list.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_owned()).collect();
                names.sort();
                names
            };
            assert_eq!(names(&container["volumeMounts"]), names(&spec["volumes"]));
            let account = &spec["serviceAccountName"];
            assert!(all.iter().any(|d| d["kind"] == "ServiceAccount" && d["metadata"]["name"] == *account));
            assert_ne!(container["securityContext"]["privileged"], true);
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn roles_that_are_bound_are_there() {
    let all = documents();
    let named = |kind: &Value, name: &Value, namespace: &Value| {
        all.iter().any(|d| {
            d["kind"] == *kind && d["metadata"]["name"] == *name && d["metadata"]["namespace"] == *namespace
        })
    };
    let mut bound = 0;
    for binding in all.iter().filter(|d| d["kind"].as_str().is_some_and(|k| k.ends_with("RoleBinding"))) {
        let role = &binding["roleRef"];
        let namespace =
            if role["kind"] == "ClusterRole" { &Value::Null } else { &binding["metadata"]["namespace"] };
        assert!(named(&role["kind"], &role["name"], namespace), "{role}");
        bound += 1;
    }
    let roles = all.iter().filter(|d| d["kind"] == "Role" || d["kind"] == "ClusterRole");
    assert_eq!(bound, roles.clone().count());
    // Least: nobody may write what is mirrored, but for the one Service; the one Lease is the controllers' own.
    let lease = serde_json::json!(["leases"]);
    for rule in roles.flat_map(|r| r["rules"].as_array().unwrap()) {
        let verbs: Vec<_> = rule["verbs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        let own = rule["resources"] == lease && rule["resourceNames"].is_array();
        assert!(
            !verbs.contains(&"*") && !verbs.contains(&"delete") && (own || !verbs.contains(&"update")),
            "{rule}"
        );
    }
}
