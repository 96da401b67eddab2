//! What the server decides about Services.

use serde_json::{Value, json};

use super::*;

fn ips(service: &Value) -> Vec<String> {
    service["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| v.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn families_and_addresses() {
    let api = Api::new().await;
    let ports = json!([{"port": 80}]);
    for (name, mut spec, families, policy) in [
        ("default", json!({}), json!(["IPv4"]), json!("SingleStack")),
        ("v6", json!({"ipFamilies": ["IPv6"]}), json!(["IPv6"]), json!("SingleStack")),
        (
            "prefer",
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            json!(["IPv4", "IPv6"]),
            json!("PreferDualStack"),
        ),
        (
            "require-v6-first",
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            json!(["IPv6", "IPv4"]),
            json!("RequireDualStack"),
        ),
        ("asked", json!({"clusterIP": "10.96.0.77"}), json!(["IPv4"]), json!("SingleStack")),
        (
            "asked-v6-first",
            json!({"clusterIPs": ["fd00:10:96::77", "10.96.0.78"], "ipFamilyPolicy": "PreferDualStack"}),
            json!(["IPv6", "IPv4"]),
            json!("PreferDualStack"),
        ),
        (
            "headless",
            json!({"clusterIP": "None", "selector": {"a": "b"}}),
            json!(["IPv4"]),
            json!("SingleStack"),
        ),
        ("headless-own", json!({"clusterIP": "None"}), json!(["IPv4", "IPv6"]), json!("RequireDualStack")),
    ] {
        spec["ports"] = ports.clone();
        let made = api.post(SERVICES, service(name, spec)).await.ok(201);
        assert_eq!(
            (&made["spec"]["ipFamilies"], &made["spec"]["ipFamilyPolicy"]),
            (&families, &policy),
            "{name}"
        );
        if name.starts_with("headless") {
            assert_eq!(ips(&made), ["None"]);
            continue;
        }
        assert_eq!(ips(&made).len(), families.as_array().unwrap().len(), "{name}");
        for (ip, family) in ips(&made).iter().zip(families.as_array().unwrap()) {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            assert_eq!(ip.is_ipv4(), family == "IPv4", "{name}");
        }
        assert_eq!(made["spec"]["clusterIP"], made["spec"]["clusterIPs"][0]);
    }
    let external = json!({"type": "ExternalName", "externalName": "db.example.com"});
    let made = api.post(SERVICES, service("external", external)).await.ok(201);
    assert!(made["spec"]["clusterIP"].is_null() && made["spec"]["ipFamilies"].is_null());
}

#[tokio::test]
async fn what_is_refused_and_where() {
    let api = Api::new().await;
    api.post(SERVICES, service("taken", json!({"clusterIP": "10.96.0.9", "ports": [{"port": 1}]})))
        .await
        .ok(201);
    let node_port = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]});
    api.post(SERVICES, service("np", node_port)).await.ok(201);
    for (name, mut spec, field) in [
        ("outside", json!({"clusterIP": "192.0.2.1"}), "spec.clusterIPs[0]"),
        ("network address", json!({"clusterIP": "10.96.0.0"}), "spec.clusterIPs[0]"),
        ("broadcast", json!({"clusterIP": "10.96.255.255"}), "spec.clusterIPs[0]"),
        ("taken", json!({"clusterIP": "10.96.0.9"}), "spec.clusterIPs[0]"),
        ("taken by DNS", json!({"clusterIP": "10.96.0.10"}), "spec.clusterIPs[0]"),
        (
            "second outside",
            json!({"clusterIPs": ["10.96.0.50", "fd01::1"], "ipFamilyPolicy": "PreferDualStack"}),
            "spec.clusterIPs[1]",
        ),
        ("not an address", json!({"clusterIP": "ten"}), "spec.clusterIPs[0]"),
        ("two without policy", json!({"ipFamilies": ["IPv4", "IPv6"]}), "spec.ipFamilyPolicy"),
        (
            "two single",
            json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"}),
            "spec.ipFamilyPolicy",
        ),
        (
            "family of another",
            json!({"clusterIP": "10.96.0.51", "ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]",
        ),
        (
            "node port of another type",
            json!({"ports": [{"port": 1, "nodePort": 30005}]}),
            "spec.ports[0].nodePort",
        ),
        (
            "node port outside",
            json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}),
            "spec.ports[0].nodePort",
        ),
        (
            "node port taken",
            json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]}),
            "spec.ports[0].nodePort",
        ),
        ("no ports", json!({"ports": []}), "spec.ports"),
        (
            "external with address",
            json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.52"}),
            "spec.clusterIP",
        ),
    ] {
        if spec["ports"].is_null() {
            spec["ports"] = json!([{"port": 80}]);
        }
        let fields = api.post(SERVICES, service("bad", spec)).await.failed(422, "Invalid");
        assert!(fields.iter().any(|f| f == field), "{name}: {fields:?}");
    }
    let answer =
        api.post(SERVICES, service("bad", json!({"clusterIP": "192.0.2.1", "ports": [{"port": 1}]}))).await;
    assert!(answer.body["message"].as_str().unwrap().contains("10.96.0.0/16"), "the range is named");
}

#[tokio::test]
async fn addresses_are_given_back_and_run_out() {
    let api = Api::with(small(), Options::default()).await;
    for round in 0..3 {
        for i in 0..6 {
            let made = api.post(SERVICES, web(&format!("s{i}"))).await.ok(201);
            assert!(ips(&made)[0].starts_with("10.0.0."), "round {round}");
        }
        let fields = api.post(SERVICES, web("s6")).await.failed(422, "Invalid");
        assert_eq!(fields, ["spec.clusterIPs[0]"]);
        let dual = json!({"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 1}]});
        assert_eq!(
            api.post(SERVICES, service("dual", dual)).await.failed(422, "Invalid"),
            ["spec.ipFamilyPolicy"]
        );
        // An ExternalName gives its address back.
        let external = json!({"spec": {"type": "ExternalName", "externalName": "a.b", "ports": null}});
        let merge = "application/merge-patch+json";
        let made = api.patch(&format!("{SERVICES}/s0"), merge, external).await.ok(200);
        assert!(made["spec"]["clusterIP"].is_null());
        api.post(SERVICES, web("s6")).await.ok(201);
        api.delete(SERVICES).await.ok(200);
    }
}

#[tokio::test]
async fn updates_keep_what_was_chosen() {
    let api = Api::new().await;
    let spec = json!({"type": "NodePort", "ipFamilyPolicy": "PreferDualStack",
        "ports": [{"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "protocol": "TCP", "name": "t"}]});
    let made = api.post(SERVICES, service("dns", spec.clone())).await.ok(201);
    let port = |s: &Value, i: usize| s["spec"]["ports"][i]["nodePort"].as_u64();
    assert_eq!(port(&made, 0), port(&made, 1), "one number for both protocols");
    assert!((30_000..=32_767).contains(&port(&made, 0).unwrap()));
    // The manifest again, as kubectl replace would send it.
    let again = api.put(&format!("{SERVICES}/dns"), service("dns", spec)).await.ok(200);
    assert_eq!(again, made);
    let path = format!("{SERVICES}/dns");
    let merge = "application/merge-patch+json";
    let moved = api
        .patch(&path, merge, json!({"spec": {"clusterIP": "10.96.0.200", "clusterIPs": ["10.96.0.200"]}}))
        .await;
    assert!(moved.failed(422, "Invalid").contains(&"spec.clusterIPs[0]".to_owned()));
    let single = api.patch(&path, merge, json!({"spec": {"ipFamilyPolicy": "SingleStack"}})).await.ok(200);
    assert_eq!((ips(&single).len(), ips(&single)[0].clone()), (1, ips(&made)[0].clone()));
    let dual = api.patch(&path, merge, json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}})).await.ok(200);
    assert_eq!(ips(&dual).len(), 2);
    let plain = api.patch(&path, merge, json!({"spec": {"type": "ClusterIP"}})).await.ok(200);
    assert_eq!(port(&plain, 0), None, "a ClusterIP Service has no node ports");
    let taken = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port(&made, 0)}]});
    api.post(SERVICES, service("other", taken)).await.ok(201);
}

#[tokio::test]
async fn load_balancers() {
    let api = Api::new().await;
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let made = api.post(SERVICES, service("lb", spec)).await.ok(201);
    assert!(made["spec"]["healthCheckNodePort"].as_u64().unwrap() >= 30_000);
    assert!(made["spec"]["ports"][0]["nodePort"].is_u64());
    let without =
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]});
    let made = api.post(SERVICES, service("lb2", without)).await.ok(201);
    assert!(made["spec"]["ports"][0]["nodePort"].is_null());
}

#[tokio::test]
async fn the_dns_service_is_there() {
    let api = Api::new().await;
    let dns = api.get("/api/v1/namespaces/kube-system/services/kube-dns").await.ok(200);
    assert_eq!(ips(&dns), ["10.96.0.10", "fd00:10:96::a"]);
    assert_eq!(dns["spec"]["ports"][0]["protocol"], "UDP");
    api.app.bootstrap().await.unwrap();
}

#[tokio::test]
async fn many_writers_never_get_the_same_address() {
    let api = std::sync::Arc::new(Api::new().await);
    let tasks: Vec<_> = (0..16)
        .map(|t| {
            let api = api.clone();
            tokio::spawn(async move {
                let mut got = Vec::new();
                for i in 0..25 {
                    got.extend(ips(&api.post(SERVICES, web(&format!("t{t}-{i}"))).await.ok(201)));
                }
                got
            })
        })
        .collect();
    let mut all = std::collections::BTreeSet::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert_eq!(all.len(), 400);
}
