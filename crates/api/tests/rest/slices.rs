//! EndpointSlices of selectors.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn revisions(slices: &[Value]) -> BTreeMap<String, String> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    slices.iter().map(|s| (text(&s["metadata"]["name"]), text(&s["metadata"]["resourceVersion"]))).collect()
}

#[tokio::test]
async fn endpoints_follow_workloads() {
    let api = Api::new().await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 90}]);
    let mut web = service(
        "web",
        json!({"selector": {"app": "web"}, "ports": ports, "ipFamilyPolicy": "PreferDualStack"}),
    );
    web["metadata"]["labels"] = json!({"team": "a"});
    let web = api.post(SERVICES, web).await.ok(201);
    assert!(api.items(SLICES).await.is_empty());

    let mut w = workload("w", "web", "10.1.0.1");
    w["spec"]["addresses"] = json!(["10.1.0.1", "fd00::1"]);
    w["spec"]["hostname"] = "w-0".into();
    w["spec"]["subdomain"] = "web".into();
    let w = api.post(WORKLOADS, w).await.ok(201);
    let slices = api.items(SLICES).await;
    assert_eq!(slices.len(), 2, "one of each family");
    let v4 = slices.iter().find(|s| s["addressType"] == "IPv4").unwrap();
    assert_eq!(
        v4["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.eastwest.dev"})
    );
    assert_eq!(v4["metadata"]["ownerReferences"][0]["uid"], web["metadata"]["uid"]);
    assert_eq!(
        v4["endpoints"],
        json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "hostname": "w-0", "nodeName": "node-1", "targetRef": {"kind": "Workload", "namespace": "default",
            "name": "w", "uid": w["metadata"]["uid"]}}])
    );
    assert_eq!(
        v4["ports"],
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "raw", "port": 90, "protocol": "TCP"}])
    );

    // Not ready any more: the endpoint stays, without traffic.
    let merge = "application/merge-patch+json";
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    api.patch(&format!("{WORKLOADS}/w/status"), merge, not_ready).await.ok(200);
    let ready = |slices: &[Value]| -> Vec<Value> {
        slices.iter().map(|s| s["endpoints"][0]["conditions"]["ready"].clone()).collect()
    };
    assert_eq!(ready(&api.items(SLICES).await), [false, false]);
    api.patch(&format!("{SERVICES}/web"), merge, json!({"spec": {"publishNotReadyAddresses": true}}))
        .await
        .ok(200);
    assert_eq!(ready(&api.items(SLICES).await), [true, true]);

    // Another label: no longer selected.
    api.patch(&format!("{WORKLOADS}/w"), merge, json!({"metadata": {"labels": {"app": "db"}}})).await.ok(200);
    assert!(api.items(SLICES).await.is_empty());
    api.patch(&format!("{SERVICES}/web"), merge, json!({"spec": {"selector": {"app": "db"}}})).await.ok(200);
    assert_eq!(api.items(SLICES).await.len(), 2);
    api.delete(&format!("{WORKLOADS}/w")).await.ok(200);
    assert!(api.items(SLICES).await.is_empty());
}

#[tokio::test]
async fn only_slices_that_differ_are_written() {
    let api = Api::new().await;
    api.post(SERVICES, web("web")).await.ok(201);
    for i in 0..250 {
        api.post(WORKLOADS, workload(&format!("w{i}"), "web", &format!("10.1.{}.{}", i / 200, i % 200 + 1)))
            .await
            .ok(201);
    }
    let slices = api.items(SLICES).await;
    let sizes: Vec<usize> = slices.iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>(), *sizes.iter().max().unwrap()), (3, 250, 100));

    let before = revisions(&slices);
    let head = api.app.revision();
    let mut changed = workload("w7", "web", "10.1.0.8");
    changed["spec"]["readiness"] = "NotReady".into();
    api.put(&format!("{WORKLOADS}/w7"), changed).await.ok(200);
    let after = revisions(&api.items(SLICES).await);
    let differ = after.iter().filter(|(name, r)| before.get(*name) != Some(r)).count();
    assert_eq!((differ, api.app.revision().0 - head.0), (1, 2), "the workload and one slice");

    // Labels of the Service that slices copy: all of them; an annotation: none.
    let merge = "application/merge-patch+json";
    let path = format!("{SERVICES}/web");
    let head = api.app.revision();
    api.patch(&path, merge, json!({"metadata": {"annotations": {"a": "b"}}})).await.ok(200);
    assert_eq!(api.app.revision().0 - head.0, 1);
    api.patch(&path, merge, json!({"metadata": {"labels": {"a": "b"}}})).await.ok(200);
    assert_eq!(api.app.revision().0 - head.0, 5);

    // Other ports: the same slices. Whoever follows them must not see the Service without endpoints meanwhile.
    let before: BTreeSet<_> = revisions(&api.items(SLICES).await).into_keys().collect();
    let head = api.app.revision();
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}, {"name": "more", "port": 81}]);
    api.patch(&path, merge, json!({"spec": {"ports": ports}})).await.ok(200);
    let slices = api.items(SLICES).await;
    assert_eq!(revisions(&slices).into_keys().collect::<BTreeSet<_>>(), before);
    assert!(slices.iter().all(|s| s["ports"][1]["port"] == 81), "{:?}", slices[0]["ports"]);
    assert_eq!(api.app.revision().0 - head.0, 4);

    api.delete(&path).await.ok(200);
    assert!(api.items(SLICES).await.is_empty());
}

#[tokio::test]
async fn the_user_s_own_slices_are_left_alone_and_ours_are_put_right() {
    let api = Api::new().await;
    let own = json!({"metadata": {"name": "db-1", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.5"]}], "ports": [{"port": 5432}]});
    api.post(SLICES, own).await.ok(201);
    api.post(SERVICES, service("db", json!({"ports": [{"port": 5432}]}))).await.ok(201);
    api.post(SERVICES, web("web")).await.ok(201);
    api.post(WORKLOADS, workload("w", "web", "10.1.0.1")).await.ok(201);
    let slices = api.items(SLICES).await;
    assert_eq!(slices.len(), 2);
    let ours = slices.iter().find(|s| s["metadata"]["name"] != "db-1").unwrap();
    let path = format!("{SLICES}/{}", ours["metadata"]["name"].as_str().unwrap());

    let mut edited = ours.clone();
    edited["endpoints"][0]["addresses"] = json!(["10.9.9.9"]);
    api.put(&path, edited).await.ok(200);
    assert_eq!(api.get(&path).await.ok(200)["endpoints"], ours["endpoints"]);
    api.delete(&path).await.ok(200);
    let again = api.items(&format!("{SLICES}?labelSelector=kubernetes.io/service-name%3Dweb")).await;
    assert_eq!(again[0]["endpoints"], ours["endpoints"]);
    api.delete(&format!("{SERVICES}/db")).await.ok(200);
    api.get(&format!("{SLICES}/db-1")).await.ok(200);
}

#[derive(Clone, Debug)]
enum Op {
    PutService { name: u8, app: u8, tier: Option<u8>, named: bool, dual: bool, publish: bool },
    DeleteService(u8),
    PutWorkload { name: u8, app: u8, tier: u8, v6: bool, port: u16, ready: bool },
    DeleteWorkload(u8),
    Vandalise(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let (small, flag) = (0u8..3, any::<bool>());
    prop_oneof![
        2 => (small.clone(), small.clone(), proptest::option::of(0u8..2), flag, flag, flag).prop_map(
            |(name, app, tier, named, dual, publish)| Op::PutService { name, app, tier, named, dual, publish }
        ),
        1 => small.clone().prop_map(Op::DeleteService),
        5 => (0u8..8, small, 0u8..2, flag, 8080u16..8082, flag).prop_map(
            |(name, app, tier, v6, port, ready)| Op::PutWorkload { name, app, tier, v6, port, ready }
        ),
        2 => (0u8..8).prop_map(Op::DeleteWorkload),
        1 => (0u8..8).prop_map(Op::Vandalise),
    ]
}

async fn run(api: &Api, op: Op) {
    let put = async |collection: &str, name: &str, body: Value| {
        let path = format!("{collection}/{name}");
        match api.get(&path).await.code {
            200 => api.put(&path, body).await.ok(200),
            _ => api.post(collection, body).await.ok(201),
        };
    };
    match op {
        Op::PutService { name, app, tier, named, dual, publish } => {
            let mut selector = json!({"app": format!("a{app}")});
            if let Some(tier) = tier {
                selector["tier"] = format!("t{tier}").into();
            }
            let target = if named { json!("http") } else { json!(8080) };
            let policy = if dual { "PreferDualStack" } else { "SingleStack" };
            let body = service(
                &format!("s{name}"),
                json!({"selector": selector, "ports": [{"port": 80, "targetPort": target}],
                    "ipFamilyPolicy": policy, "publishNotReadyAddresses": publish}),
            );
            put(SERVICES, &format!("s{name}"), body).await;
        }
        Op::DeleteService(name) => drop(api.delete(&format!("{SERVICES}/s{name}")).await),
        Op::PutWorkload { name, app, tier, v6, port, ready } => {
            let mut addresses = vec![format!("10.1.0.{}", name + 1)];
            if v6 {
                addresses.push(format!("fd00::{}", name + 1));
            }
            let body = json!({"metadata": {"name": format!("w{name}"),
                    "labels": {"app": format!("a{app}"), "tier": format!("t{tier}")}},
                "spec": {"addresses": addresses, "node": "n", "ports": [{"name": "http", "port": port}],
                    "readiness": if ready { "Ready" } else { "NotReady" }}});
            put(WORKLOADS, &format!("w{name}"), body).await;
        }
        Op::DeleteWorkload(name) => drop(api.delete(&format!("{WORKLOADS}/w{name}")).await),
        Op::Vandalise(n) => {
            let slices = api.items(SLICES).await;
            let Some(slice) = slices.get(usize::from(n) % slices.len().max(1)) else { return };
            let path = format!("{SLICES}/{}", slice["metadata"]["name"].as_str().unwrap());
            match n % 3 {
                0 => drop(api.delete(&path).await),
                1 => drop(api.patch(&path, "application/merge-patch+json", json!({"endpoints": []})).await),
                _ => {
                    let labels = json!({"metadata": {"labels": {"kubernetes.io/service-name": "s1"}}});
                    drop(api.patch(&path, "application/merge-patch+json", labels).await);
                }
            }
        }
    }
}

/// What the slices must say, computed from scratch: (service, family, address, ports, ready).
async fn expected(api: &Api) -> BTreeSet<(String, String, String, String, bool)> {
    let (services, workloads) = (api.items(SERVICES).await, api.items(WORKLOADS).await);
    let mut out = BTreeSet::new();
    for s in &services {
        for w in &workloads {
            let selector = s["spec"]["selector"].as_object().unwrap();
            if !selector.iter().all(|(k, v)| w["metadata"]["labels"].get(k) == Some(v)) {
                continue;
            }
            let target = &s["spec"]["ports"][0]["targetPort"];
            let port = if target == "http" { &w["spec"]["ports"][0]["port"] } else { target };
            let ready = s["spec"]["publishNotReadyAddresses"] == true || w["spec"]["readiness"] == "Ready";
            for address in w["spec"]["addresses"].as_array().unwrap() {
                let address = address.as_str().unwrap();
                let family = if address.contains(':') { "IPv6" } else { "IPv4" };
                if s["spec"]["ipFamilies"].as_array().unwrap().contains(&json!(family)) {
                    let name = s["metadata"]["name"].as_str().unwrap();
                    out.insert((name.into(), family.into(), address.into(), port.to_string(), ready));
                }
            }
        }
    }
    out
}

async fn actual(api: &Api) -> BTreeSet<(String, String, String, String, bool)> {
    let mut out = BTreeSet::new();
    for slice in api.items(SLICES).await {
        let endpoints = slice["endpoints"].as_array().unwrap();
        assert!(!endpoints.is_empty(), "no empty slices");
        for e in endpoints {
            let row = (
                slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap().to_owned(),
                slice["addressType"].as_str().unwrap().to_owned(),
                e["addresses"][0].as_str().unwrap().to_owned(),
                slice["ports"][0]["port"].to_string(),
                e["conditions"]["ready"] == true,
            );
            assert!(out.insert(row.clone()), "twice: {row:?}");
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However objects come, change, go and are tampered with, the slices say what a computation from scratch says.
    #[test]
    fn slices_are_those_of_a_full_computation(ops in proptest::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = Api::new().await;
            for op in ops {
                let shown = format!("{op:?}");
                run(&api, op).await;
                assert_eq!(actual(&api).await, expected(&api).await, "after {shown}");
            }
        });
    }
}

#[tokio::test]
async fn a_dry_run_and_a_refusal_leave_the_index_as_it_was() {
    let api = Api::new().await;
    api.post(SERVICES, web("web")).await.ok(201);
    for _ in 0..3 {
        api.post(&format!("{WORKLOADS}?dryRun=All"), workload("w", "web", "10.1.0.1")).await.ok(201);
        api.post(WORKLOADS, workload("w", "web", "not an address")).await.failed(422, "Invalid");
        api.call(Method::DELETE, &format!("{SERVICES}/web?dryRun=All"), json!({})).await.ok(200);
    }
    assert!(api.items(SLICES).await.is_empty());
    api.post(WORKLOADS, workload("w", "web", "10.1.0.1")).await.ok(201);
    assert_eq!(api.items(SLICES).await.len(), 1);
}

#[tokio::test]
async fn hints_follow_traffic_distribution_and_zones() {
    let api = Api::new().await;
    let zone =
        |z: &str| json!({"metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": z}}});
    api.post(NODES, zone("a")).await.ok(201);
    api.post(SERVICES, web("web")).await.ok(201);
    api.post(WORKLOADS, workload("w", "web", "10.1.0.1")).await.ok(201);
    let merge = "application/merge-patch+json";
    let endpoint = async || api.items(SLICES).await[0]["endpoints"][0].clone();
    assert_eq!(endpoint().await["zone"], "a");
    let (in_a, on_node) = (json!([{"name": "a"}]), json!([{"name": "node-1"}]));
    for (distribution, wanted) in [
        (json!("PreferSameZone"), json!({"forZones": in_a})),
        (json!("PreferClose"), json!({"forZones": in_a})),
        (json!("PreferSameNode"), json!({"forZones": in_a, "forNodes": on_node})),
        (Value::Null, Value::Null),
    ] {
        let spec = json!({"spec": {"trafficDistribution": distribution}});
        api.patch(&format!("{SERVICES}/web"), merge, spec).await.ok(200);
        assert_eq!(endpoint().await["hints"], wanted, "{distribution}");
    }
    let spec = json!({"spec": {"trafficDistribution": "PreferSameZone"}});
    api.patch(&format!("{SERVICES}/web"), merge, spec).await.ok(200);
    // The node comes into another zone, and leaves it.
    api.patch(&format!("{NODES}/node-1"), merge, zone("b")).await.ok(200);
    assert_eq!(endpoint().await["hints"], json!({"forZones": [{"name": "b"}]}));
    api.delete(&format!("{NODES}/node-1")).await.ok(200);
    assert_eq!(
        (endpoint().await["zone"].clone(), endpoint().await["hints"].clone()),
        (Value::Null, Value::Null)
    );
    // One that is not ready has no hint: hints are of no use to it, and needed of all that are ready.
    api.post(NODES, zone("a")).await.ok(201);
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    api.patch(&format!("{WORKLOADS}/w/status"), merge, not_ready).await.ok(200);
    assert_eq!(
        (endpoint().await["zone"].clone(), endpoint().await["hints"].clone()),
        (json!("a"), Value::Null)
    );
}
