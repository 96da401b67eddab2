//! Verbs, patches, lists, forms of answers.

use http::Method;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn an_object_lives_and_ends() {
    let api = Api::new().await;
    let created = api.post(SERVICES, web("web")).await.ok(201);
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(created["metadata"][field].is_string(), "{field}");
    }
    assert_eq!(created["metadata"]["generation"], 1);
    api.post(SERVICES, web("web")).await.failed(409, "AlreadyExists");
    let path = format!("{SERVICES}/web");
    assert_eq!(api.get(&path).await.ok(200), created);

    let mut changed = created.clone();
    changed["spec"]["ports"][0]["port"] = 81.into();
    let changed = api.put(&path, changed).await.ok(200);
    assert_eq!(changed["metadata"]["generation"], 2);
    api.put(&path, created.clone()).await.failed(409, "Conflict");
    // Without a resourceVersion an update is unconditional; one that changes nothing is no write.
    let same = api.put(&path, service("web", changed["spec"].clone())).await.ok(200);
    assert_eq!(same, changed);
    let mut other = changed.clone();
    other["metadata"]["uid"] = "another".into();
    api.put(&path, other).await.failed(409, "Conflict");

    let wrong = json!({"preconditions": {"uid": "another"}});
    api.call(Method::DELETE, &path, wrong).await.failed(409, "Conflict");
    let deleted = api.delete(&path).await.ok(200);
    assert_eq!((&deleted["status"], &deleted["details"]["name"]), (&json!("Success"), &json!("web")));
    api.get(&path).await.failed(404, "NotFound");
    api.delete(&path).await.failed(404, "NotFound");
    api.put(&path, web("web")).await.failed(404, "NotFound");
}

#[tokio::test]
async fn patches() {
    let api = Api::new().await;
    api.post(SERVICES, web("web")).await.ok(201);
    let path = format!("{SERVICES}/web");
    for (name, type_, patch, pointer, expected) in [
        (
            "merge",
            "application/merge-patch+json",
            json!({"metadata": {"labels": {"a": "1"}}}),
            "/metadata/labels/a",
            json!("1"),
        ),
        (
            "merge null",
            "application/merge-patch+json",
            json!({"metadata": {"labels": null}}),
            "/metadata/labels",
            Value::Null,
        ),
        (
            "json",
            "application/json-patch+json",
            json!([{"op": "test", "path": "/spec/ports/0/port", "value": 80},
                {"op": "add", "path": "/spec/ports/0/name", "value": "http"}]),
            "/spec/ports/0/name",
            json!("http"),
        ),
        (
            "strategic",
            "application/strategic-merge-patch+json",
            json!({"spec": {"ports": [{"port": 443, "name": "https"}]}}),
            "/spec/ports/1/targetPort",
            json!(443),
        ),
        (
            "strategic delete",
            "application/strategic-merge-patch+json",
            json!({"spec": {"ports": [{"port": 80, "$patch": "delete"}]}}),
            "/spec/ports/0/port",
            json!(443),
        ),
        (
            "the server's fields stay",
            "application/merge-patch+json",
            json!({"metadata": {"uid": null, "creationTimestamp": null}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
            "/status/loadBalancer/ingress",
            Value::Null,
        ),
    ] {
        let answer = api.patch(&path, type_, patch).await.ok(200);
        assert_eq!(answer.pointer(pointer).unwrap_or(&Value::Null), &expected, "{name}: {answer:#}");
    }
    for (name, type_, patch, code, reason) in [
        (
            "stale",
            "application/merge-patch+json",
            json!({"metadata": {"resourceVersion": "1"}}),
            409,
            "Conflict",
        ),
        (
            "json test",
            "application/json-patch+json",
            json!([{"op": "test", "path": "/spec/type", "value": "x"}]),
            422,
            "Invalid",
        ),
        ("not a patch", "application/json-patch+json", json!({"op": "add"}), 400, "BadRequest"),
        ("not an object", "application/merge-patch+json", json!([1]), 400, "BadRequest"),
        (
            "renamed",
            "application/merge-patch+json",
            json!({"metadata": {"name": "other"}}),
            400,
            "BadRequest",
        ),
        ("invalid", "application/merge-patch+json", json!({"spec": {"ports": []}}), 422, "Invalid"),
        ("media type", "application/json", json!({}), 415, "UnsupportedMediaType"),
        ("no manager", "application/apply-patch+yaml", json!({}), 400, "BadRequest"),
    ] {
        let answer = api.patch(&path, type_, patch).await;
        assert_eq!(
            (answer.code, answer.body["reason"].as_str()),
            (code, Some(reason)),
            "{name}: {:#}",
            answer.body
        );
    }
    // A patch that doubles the object again and again ends before memory does.
    let double = |i| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/x{i}")});
    let bomb: Vec<Value> = (0..64).map(double).collect();
    api.patch(&path, "application/json-patch+json", bomb.into()).await.failed(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn server_side_apply_creates_changes_and_takes_back() {
    let api = Api::new().await;
    let path = format!("{SERVICES}/web?fieldManager=me");
    let type_ = "application/apply-patch+yaml";
    let created = api.patch(&path, type_, web("web")).await.ok(201);
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "me");
    let same = api.patch(&path, type_, web("web")).await.ok(200);
    assert_eq!(
        same["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"],
        "nothing changed"
    );
    let mut next = web("web");
    next["metadata"]["labels"] = json!({"a": "1"});
    next["spec"]["ports"] = json!([{"port": 8000}]);
    let changed = api.patch(&path, type_, next).await.ok(200);
    assert_eq!(changed["spec"]["ports"].as_array().unwrap().len(), 1);
    assert_eq!(changed["spec"]["clusterIP"], created["spec"]["clusterIP"]);
    let theirs =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"a": "2"}}});
    let other = format!("{SERVICES}/web?fieldManager=them");
    assert_eq!(
        api.patch(&other, type_, theirs.clone()).await.failed(409, "Conflict"),
        [".metadata.labels.a"]
    );
    api.patch(&format!("{other}&force=true"), type_, theirs).await.ok(200);
}

#[tokio::test]
async fn lists_are_selected_paged_and_consistent() {
    let api = Api::new().await;
    for i in 0..7 {
        let mut s = web(&format!("s{i}"));
        s["metadata"]["labels"] = json!({"parity": if i % 2 == 0 { "even" } else { "odd" }});
        if i == 6 {
            s["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
        }
        api.post(SERVICES, s).await.ok(201);
    }
    let names = |items: Vec<Value>| -> Vec<String> {
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("labelSelector=parity%3Dodd", vec!["s1", "s3", "s5"]),
        ("labelSelector=parity%20in%20(even),!x&fieldSelector=spec.type%3DExternalName", vec!["s6"]),
        ("fieldSelector=metadata.name%3Ds2", vec!["s2"]),
        ("fieldSelector=metadata.name!%3Ds2,spec.type%3DClusterIP&limit=2", vec!["s0", "s1"]),
    ] {
        assert_eq!(names(api.items(&format!("{SERVICES}?{query}")).await), expected, "{query}");
    }
    assert_eq!(api.items("/api/v1/services").await.len(), 8, "with kube-dns");

    let first = api.get(&format!("{SERVICES}?limit=3")).await.ok(200);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    // What happens between two pages is not part of the list.
    api.delete(&format!("{SERVICES}/s4")).await.ok(200);
    api.post(SERVICES, web("s9")).await.ok(201);
    let second = api.get(&format!("{SERVICES}?limit=9&continue={token}")).await.ok(200);
    assert_eq!(names(second["items"].as_array().unwrap().clone()), ["s3", "s4", "s5", "s6"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let exact = first["metadata"]["resourceVersion"].as_str().unwrap();
    let query = format!("{SERVICES}?resourceVersion={exact}&resourceVersionMatch=Exact");
    assert_eq!(api.items(&query).await.len(), 7);
    api.get(&format!("{SERVICES}?continue=junk")).await.failed(400, "BadRequest");
    let answer = api.get(&format!("{SERVICES}?resourceVersion=999999")).await;
    answer.failed(504, "Timeout");
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_page_of_a_forgotten_revision_is_gone() {
    let options = Options { window_events: 2, ..Options::default() };
    let api = Api::with(Config::default(), options).await;
    for i in 0..3 {
        api.post(SERVICES, web(&format!("s{i}"))).await.ok(201);
    }
    let first = api.get(&format!("{SERVICES}?limit=1")).await.ok(200);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    for i in 3..6 {
        api.post(SERVICES, web(&format!("s{i}"))).await.ok(201);
    }
    api.get(&format!("{SERVICES}?limit=1&continue={token}")).await.failed(410, "Expired");
}

#[tokio::test]
async fn large_lists_arrive_whole() {
    let api = Api::new().await;
    for i in 0..60 {
        let mut s = web(&format!("s{i:02}"));
        s["metadata"]["annotations"] = json!({"pad": "x".repeat(5000)});
        api.post(SERVICES, s).await.ok(201);
    }
    assert_eq!(api.items(SERVICES).await.len(), 60);
}

#[tokio::test]
async fn names_are_generated() {
    let api = Api::new().await;
    let body = json!({"metadata": {"generateName": "web-"}, "spec": {"ports": [{"port": 80}]}});
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let made = api.post(SERVICES, body.clone()).await.ok(201);
        let name = made["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        names.insert(name);
    }
    assert_eq!(names.len(), 20);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_keeps_nothing() {
    let api = Api::new().await;
    let before = api.app.revision();
    let made = api.post(&format!("{SERVICES}?dryRun=All"), web("web")).await.ok(201);
    assert!(made["spec"]["clusterIP"].is_string());
    api.get(&format!("{SERVICES}/web")).await.failed(404, "NotFound");
    assert_eq!(api.app.revision(), before);
    api.post(SERVICES, web("web")).await.ok(201);
    let path = format!("{SERVICES}/web?dryRun=All");
    let patched =
        api.patch(&path, "application/merge-patch+json", json!({"metadata": {"labels": {"a": "1"}}})).await;
    assert_eq!(patched.ok(200)["metadata"]["labels"]["a"], "1");
    api.delete(&path).await.ok(200);
    api.call(Method::DELETE, &format!("{SERVICES}/web"), json!({"dryRun": ["All"]})).await.ok(200);
    api.delete(&format!("{SERVICES}?dryRun=All")).await.ok(200);
    assert!(api.get(&format!("{SERVICES}/web")).await.ok(200)["metadata"]["labels"].is_null());
}

#[tokio::test]
async fn status_is_apart_from_spec() {
    let api = Api::new().await;
    api.post(SERVICES, web("web")).await.ok(201);
    let path = format!("{SERVICES}/web/status");
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}, "spec": {"selector": {"x": "y"}}});
    let patched = api.patch(&path, "application/merge-patch+json", patch).await.ok(200);
    assert_eq!(patched["status"]["loadBalancer"]["ingress"][0]["ip"], "192.0.2.1");
    assert_eq!(patched["spec"]["selector"], json!({"app": "web"}));
    assert_eq!(patched["metadata"]["generation"], 1);
    let put = api.put(&format!("{SERVICES}/web"), web("web")).await.ok(200);
    assert_eq!(put["status"], patched["status"], "the object's own path leaves status alone");
    assert_eq!(api.get(&path).await.ok(200), put);
}

#[tokio::test]
async fn yaml_is_taken_and_unknown_fields_are_told() {
    let api = Api::new().await;
    let yaml = "metadata: {name: web}\nspec:\n  colour: blue\n  ports:\n  - {port: 80, prot: TCP}\n";
    for (validation, code) in [("", 201), ("?fieldValidation=Ignore", 201), ("?fieldValidation=Strict", 400)]
    {
        let path = format!("{SERVICES}{validation}");
        let answer = api.call_as("admin", Method::POST, &path, "application/yaml", yaml).await;
        let warnings: Vec<_> =
            answer.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        match validation {
            "" => assert_eq!(
                warnings,
                [
                    r#"299 - "unknown field \"spec.colour\"""#,
                    r#"299 - "unknown field \"spec.ports[0].prot\"""#
                ]
            ),
            _ => assert!(warnings.is_empty()),
        }
        assert_eq!(answer.code, code, "{:#}", answer.body);
        if code == 400 {
            assert_eq!(answer.failed(400, "BadRequest"), ["spec.colour", "spec.ports[0].prot"]);
        }
        api.delete(&format!("{SERVICES}/web")).await;
    }
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let api = Api::new().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        api.post(WORKLOADS, workload(name, app, "10.1.0.1")).await.ok(201);
    }
    let gone = api.delete(&format!("{WORKLOADS}?labelSelector=app%3Dx")).await.ok(200);
    assert_eq!(gone["items"].as_array().unwrap().len(), 2);
    assert_eq!(api.items(WORKLOADS).await.len(), 1);
    api.delete("/apis/eastwest.dev/v1/workloads").await.failed(405, "MethodNotAllowed");
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let api = Api::new().await;
    let mut w = workload("w", "web", "10.1.0.1");
    w["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.post(SERVICES, web("web")).await.ok(201);
    api.post(WORKLOADS, w).await.ok(201);
    let path = format!("{WORKLOADS}/w");
    let marked = api.delete(&path).await.ok(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let slice = &api.items(SLICES).await[0];
    assert_eq!(
        slice["endpoints"][0]["conditions"],
        json!({"ready": false, "serving": true, "terminating": true}),
        "it drains"
    );
    api.patch(&path, "application/merge-patch+json", json!({"metadata": {"finalizers": null}})).await.ok(200);
    api.get(&path).await.failed(404, "NotFound");
    assert!(api.items(SLICES).await.is_empty());
}

#[tokio::test]
async fn tables_and_metadata_alone() {
    let api = Api::new().await;
    api.post(SERVICES, web("web")).await.ok(201);
    let get = async |path: &str, accept: &str| {
        let request = Request::builder()
            .uri(path)
            .header(header::AUTHORIZATION, "Bearer viewer")
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .unwrap();
        let response = api.send(request).await;
        let code = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (code, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for path in [SERVICES.to_owned(), format!("{SERVICES}/web")] {
        let (_, t) = get(&path, table).await;
        assert_eq!(t["kind"], "Table");
        let columns: Vec<_> = t["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(columns, ["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector"]);
        let cells = &t["rows"][0]["cells"];
        assert_eq!((&cells[0], &cells[1], &cells[4]), (&json!("web"), &json!("ClusterIP"), &json!("80/TCP")));
        assert_eq!(t["rows"][0]["object"]["metadata"]["name"], "web");
    }
    let (_, partial) =
        get(SERVICES, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").await;
    assert_eq!(partial["items"][0]["kind"], "PartialObjectMetadata");
    assert!(partial["items"][0]["spec"].is_null());
    let (code, _) = get(SERVICES, "application/vnd.kubernetes.protobuf").await;
    assert_eq!(code, 406);
}

#[tokio::test]
async fn clients_find_their_way() {
    let api = Api::new().await;
    let list = api.get("/api/v1").await.ok(200);
    let names: Vec<_> =
        list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["namespaces", "namespaces/status", "nodes", "nodes/status", "services", "services/status", "events"]
    );
    assert_eq!(api.get("/apis").await.ok(200)["groups"].as_array().unwrap().len(), 2);
    for path in [
        "/api",
        "/apis/eastwest.dev",
        "/apis/eastwest.dev/v1",
        "/apis/discovery.k8s.io/v1",
        "/version",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/api/v1",
        "/openapi/v3/apis/eastwest.dev/v1",
        "/livez",
        "/readyz",
        "/v1/topology",
    ] {
        api.get(path).await.ok(200);
    }
    for path in ["/apis/apps/v1", "/openapi/v3/apis/apps/v1", "/api/v1/pods", "/nothing"] {
        api.get(path).await.failed(404, "NotFound");
    }
    let v3 = api.get("/openapi/v3/api/v1").await.ok(200);
    assert!(v3["paths"].as_object().unwrap().keys().all(|p| p.starts_with("/api/v1/")));
    let patch = &v3["paths"]["/api/v1/namespaces/{namespace}/services/{name}"]["patch"];
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Service");
}
