//! What is reached from outside the cluster, one row a rule: NodePorts, external IPs, load balancers' addresses, and the
//! hints that keep traffic close.

use eastwest_compile::{Context, Frontend, HealthCheck, ServiceKey, State, Targets};
use eastwest_model::Kind;
use serde_json::{Value, json};

fn context() -> Context {
    Context {
        node: "node-1".into(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_port_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        pod_names: false,
    }
}

fn web() -> ServiceKey {
    ServiceKey::new("default", "web")
}

fn service(spec: &Value, ingress: &Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": spec, "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn slice(family: &str, endpoints: &Value) -> Value {
    json!({
        "metadata": {"name": family.to_lowercase(), "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family, "ports": [{"port": 8080}], "endpoints": endpoints,
    })
}

fn state(objects: &[(Kind, Value)]) -> State {
    let mut state = State::new();
    for (kind, object) in objects {
        state.put(context().decode(*kind, &object.to_string()).unwrap());
    }
    state
}

fn targets(t: &Targets) -> String {
    match (&t.backends[..], t.drop) {
        ([], true) => "drop".into(),
        ([], false) => "refuse".into(),
        (backends, false) => {
            let last = |b: &eastwest_compile::Backend| {
                let text = b.addr.to_string();
                text.rsplit(['.', ':']).next().unwrap_or_default().to_owned()
            };
            backends.iter().map(last).collect::<Vec<_>>().join(",")
        }
        (_, true) => panic!("drops beside backends"),
    }
}

/// `Kind address:port inside | outside [ranges]`, the targets by the last part of their addresses.
fn shown(f: &Frontend) -> String {
    let mut text = format!(
        "{:?} {} {} {} | {}",
        f.kind,
        f.key.addr,
        f.key.port,
        targets(&f.inside),
        targets(&f.outside)
    );
    for range in f.source_ranges.iter() {
        text += &format!(" {range}");
    }
    text
}

fn on(last: u8, node: &str) -> Value {
    json!({"addresses": [format!("10.244.0.{last}")], "nodeName": node})
}

fn draining(last: u8, node: &str) -> Value {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    json!({"addresses": [format!("10.244.0.{last}")], "nodeName": node, "conditions": conditions})
}

/// Name, spec, ingress, endpoints, what is served.
type Case<'a> = (&'a str, Value, Value, Vec<Value>, Vec<&'a str>);

#[test]
fn frontends() {
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    let node_port = |more: Value| {
        let mut spec = json!({"type": "NodePort", "clusterIP": "10.96.0.5", "ports": ports.clone()});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let local = || node_port(json!({"externalTrafficPolicy": "Local"}));
    let none = || json!([]);
    let cases: Vec<Case> = vec![
        (
            "a NodePort stands at the node's addresses of the Service's families",
            node_port(json!({})),
            none(),
            vec![on(1, "node-1"), on(2, "node-2")],
            vec!["ClusterIp 10.96.0.5 80 1,2 | 1,2", "NodePort 192.0.2.1 30080 1,2 | 1,2"],
        ),
        (
            "Local: clients outside get this node's, clients inside the cluster's",
            local(),
            none(),
            vec![on(1, "node-1"), on(2, "node-2")],
            vec!["ClusterIp 10.96.0.5 80 1,2 | 1,2", "NodePort 192.0.2.1 30080 1,2 | 1"],
        ),
        (
            "Local, none here: dropped outside, served inside",
            local(),
            none(),
            vec![on(2, "node-2")],
            vec!["ClusterIp 10.96.0.5 80 2 | 2", "NodePort 192.0.2.1 30080 2 | drop"],
        ),
        (
            "Local, none anywhere: refused",
            local(),
            none(),
            vec![],
            vec!["ClusterIp 10.96.0.5 80 refuse | refuse", "NodePort 192.0.2.1 30080 refuse | refuse"],
        ),
        (
            "Local, draining here and ready elsewhere: judged apart",
            local(),
            none(),
            vec![draining(1, "node-1"), on(2, "node-2")],
            vec!["ClusterIp 10.96.0.5 80 2 | 2", "NodePort 192.0.2.1 30080 2 | 1"],
        ),
        (
            "internal Local alone: NodePorts have the cluster's",
            node_port(json!({"internalTrafficPolicy": "Local"})),
            none(),
            vec![on(2, "node-2")],
            vec!["ClusterIp 10.96.0.5 80 drop | drop", "NodePort 192.0.2.1 30080 2 | 2"],
        ),
        (
            "both Local",
            node_port(json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"})),
            none(),
            vec![on(1, "node-1"), on(2, "node-2")],
            vec!["ClusterIp 10.96.0.5 80 1 | 1", "NodePort 192.0.2.1 30080 1,2 | 1"],
        ),
        (
            "external IPs; those of a family without a virtual address are left out",
            json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}], "externalIPs": ["198.51.100.1", "2001:db8::9"]}),
            none(),
            vec![on(2, "node-2")],
            vec!["ClusterIp 10.96.0.5 80 2 | 2", "ExternalIp 198.51.100.1 80 2 | 2"],
        ),
        (
            "a load balancer's VIPs, not its proxies; ranges by family, at its addresses only",
            node_port(
                json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [" 203.0.113.7/24", "2001:db8::/32"]}),
            ),
            json!([{"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "VIP"}, {"ip": "198.51.100.3", "ipMode": "Proxy"}, {"hostname": "lb.example.com"}]),
            vec![on(2, "node-2")],
            vec![
                "ClusterIp 10.96.0.5 80 2 | 2",
                "NodePort 192.0.2.1 30080 2 | 2",
                "LoadBalancer 198.51.100.1 80 2 | 2 203.0.113.0/24",
                "LoadBalancer 198.51.100.2 80 2 | 2 203.0.113.0/24",
            ],
        ),
        (
            "a range of everything restricts nothing",
            node_port(
                json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24", "0.0.0.0/0"]}),
            ),
            json!([{"ip": "198.51.100.1"}]),
            vec![],
            vec![
                "ClusterIp 10.96.0.5 80 refuse | refuse",
                "NodePort 192.0.2.1 30080 refuse | refuse",
                "LoadBalancer 198.51.100.1 80 refuse | refuse",
            ],
        ),
        (
            "one address in several places",
            node_port(json!({
                "externalIPs": ["198.51.100.1", "192.0.2.1", "10.96.0.5"],
                "loadBalancerSourceRanges": ["203.0.113.0/24"],
                "ports": [{"name": "a", "port": 30080, "nodePort": 30081}, {"name": "b", "port": 81, "nodePort": 30080}],
            })),
            json!([{"ip": "198.51.100.1"}]),
            vec![],
            vec![
                "ClusterIp 10.96.0.5 81 refuse | refuse",
                "ClusterIp 10.96.0.5 30080 refuse | refuse",
                "ExternalIp 192.0.2.1 81 refuse | refuse",
                "ExternalIp 192.0.2.1 30080 refuse | refuse",
                "NodePort 192.0.2.1 30081 refuse | refuse",
                "LoadBalancer 198.51.100.1 81 refuse | refuse 203.0.113.0/24",
                "LoadBalancer 198.51.100.1 30080 refuse | refuse 203.0.113.0/24",
            ],
        ),
        (
            "headless: nothing, whatever else it has",
            json!({"clusterIP": "None", "ports": [{"port": 80}], "externalIPs": ["198.51.100.1"]}),
            none(),
            vec![on(2, "node-2")],
            vec![],
        ),
    ];
    for (name, spec, ingress, endpoints, wanted) in cases {
        let state = state(&[
            (Kind::Service, service(&spec, &ingress)),
            (Kind::EndpointSlice, slice("IPv4", &endpoints.into())),
        ]);
        let out = state.compile(&context(), &web()).unwrap();
        assert_eq!(out.frontends.iter().map(shown).collect::<Vec<_>>(), wanted, "{name}");
        assert!(state.problems().is_empty(), "{name}: {:?}", state.problems());
    }
}

#[test]
fn both_families() {
    let spec = json!({
        "type": "NodePort", "clusterIPs": ["10.96.0.5", "fd00:10:96::5"],
        "ports": [{"name": "t", "port": 53, "nodePort": 30053}, {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}],
    });
    let state = state(&[(Kind::Service, service(&spec, &json!([])))]);
    let out = state.compile(&context(), &web()).unwrap();
    let keys: Vec<String> = out
        .frontends
        .iter()
        .map(|f| format!("{} {} {:?} {}", f.key.addr, f.key.port, f.key.protocol, f.port_name))
        .collect();
    let wanted = [
        "10.96.0.5 53 TCP t",
        "10.96.0.5 53 UDP u",
        "192.0.2.1 30053 TCP t",
        "192.0.2.1 30053 UDP u",
        "2001:db8::1 30053 TCP t",
        "2001:db8::1 30053 UDP u",
        "fd00:10:96::5 53 TCP t",
        "fd00:10:96::5 53 UDP u",
    ];
    assert_eq!(keys, wanted);
    assert_eq!(state.with_node_ports(), [web()]);
}

#[test]
fn addresses_that_cannot_be_served_are_named() {
    let spec = json!({
        "clusterIP": "10.96.0.5", "ports": [{"port": 80}],
        "externalIPs": ["127.0.0.1", "::ffff:198.51.100.1", "0.0.0.0", "x", "198.51.100.1"],
    });
    let state = state(&[(Kind::Service, service(&spec, &json!([])))]);
    assert_eq!(state.compile(&context(), &web()).unwrap().frontends.len(), 2);
    let problems = state.problems().join("\n");
    for part in ["\"127.0.0.1\" is a loopback", "IPv4-mapped", "unspecified", "\"x\" is not an IP"] {
        assert!(problems.contains(part), "{part} is not in {problems}");
    }
}

/// Each endpoint by last part, node hints, zone hints, ready.
type Hinted<'a> = (u8, &'a [&'a str], &'a [&'a str], bool);

#[test]
fn hints_keep_traffic_close() {
    let names = |names: &[&str]| -> Value { names.iter().map(|n| json!({"name": n})).collect() };
    let cases: &[(&str, Option<&str>, &[Hinted], &str)] = &[
        ("the zone's", Some("a"), &[(1, &[], &["a"], true), (2, &[], &["b"], true)], "1"),
        ("several zones", Some("b"), &[(1, &[], &["a", "b"], true), (2, &[], &["b"], true)], "1,2"),
        ("one without a hint", Some("a"), &[(1, &[], &["a"], true), (2, &[], &[], true)], "1,2"),
        (
            "one without a hint that is not ready",
            Some("a"),
            &[(1, &[], &["a"], true), (2, &[], &["b"], true), (3, &[], &[], false)],
            "1",
        ),
        ("none for this zone", Some("c"), &[(1, &[], &["a"], true), (2, &[], &["b"], true)], "1,2"),
        ("this node has no zone", None, &[(1, &[], &["a"], true), (2, &[], &["b"], true)], "1,2"),
        (
            "the node's go before the zone's",
            Some("a"),
            &[(1, &["node-1"], &["a"], true), (2, &["node-2"], &["a"], true)],
            "1",
        ),
        (
            "none for this node: the zone's",
            Some("a"),
            &[(1, &["node-3"], &["a"], true), (2, &["node-2"], &["b"], true)],
            "1",
        ),
        (
            "the only close one is not ready",
            Some("a"),
            &[(1, &[], &["a"], false), (2, &[], &["b"], true)],
            "2",
        ),
    ];
    for (name, zone, endpoints, wanted) in cases {
        let mut labels = json!({});
        if let Some(zone) = zone {
            labels["topology.kubernetes.io/zone"] = json!(zone);
        }
        let endpoints: Value = endpoints
            .iter()
            .map(|(last, nodes, zones, ready)| {
                json!({"addresses": [format!("10.244.0.{last}")], "conditions": {"ready": ready},
                    "hints": {"forNodes": names(nodes), "forZones": names(zones)}})
            })
            .collect();
        let spec = json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]});
        let mut objects = vec![
            (Kind::Service, service(&spec, &json!([]))),
            (Kind::EndpointSlice, slice("IPv4", &endpoints)),
            (Kind::Node, json!({"metadata": {"name": "node-1", "labels": labels}})),
            (
                Kind::Node,
                json!({"metadata": {"name": "node-2", "labels": {"topology.kubernetes.io/zone": "x"}}}),
            ),
        ];
        for _ in 0..2 {
            let out = state(&objects).compile(&context(), &web()).unwrap();
            assert_eq!(targets(&out.frontends[0].inside), *wanted, "{name}");
            objects.reverse();
        }
    }
}

#[test]
fn a_node_that_comes_into_another_zone_touches_what_has_hints() {
    let hinted = json!([{"addresses": ["10.244.0.1"], "hints": {"forZones": [{"name": "a"}]}}]);
    let spec = json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]});
    let mut state = state(&[
        (Kind::Service, service(&spec, &json!([]))),
        (Kind::EndpointSlice, slice("IPv4", &hinted)),
        (Kind::Service, json!({"metadata": {"name": "other", "namespace": "default"}, "spec": spec})),
    ]);
    let node = |zone: &str| {
        let object = json!({"metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": zone}}});
        context().decode(Kind::Node, &object.to_string()).unwrap()
    };
    assert_eq!(state.put(node("a")), [web()]);
    assert_eq!(state.put(node("a")), []);
    assert_eq!(state.put(node("b")), [web()]);
    assert_eq!(state.delete(Kind::Node, "", "node-2"), []);
    assert_eq!(state.delete(Kind::Node, "", "node-1"), [web()]);
}

#[test]
fn health_check_ports() {
    let spec = |type_: &str, policy: &str| {
        json!({"type": type_, "clusterIP": "10.96.0.5", "externalTrafficPolicy": policy, "healthCheckNodePort": 30999,
            "ports": [{"port": 80, "nodePort": 30080}]})
    };
    let endpoints =
        json!([on(1, "node-1"), on(1, "node-1"), on(2, "node-1"), draining(3, "node-1"), on(4, "node-2")]);
    let six = json!([{"addresses": ["fd00:10:244::1"], "nodeName": "node-1"}]);
    for (type_, policy, wanted) in [
        ("LoadBalancer", "Local", Some(HealthCheck { port: 30_999, local4: 2, local6: 1 })),
        ("LoadBalancer", "Cluster", None),
        ("NodePort", "Local", None),
    ] {
        let state = state(&[
            (Kind::Service, service(&spec(type_, policy), &json!([]))),
            (Kind::EndpointSlice, slice("IPv4", &endpoints)),
            (Kind::EndpointSlice, slice("IPv6", &six)),
        ]);
        assert_eq!(state.health_check(&web()), wanted, "{type_} {policy}");
    }
}

#[test]
fn a_traffic_split() {
    let endpoint = |last: u8| json!({"addresses": [format!("10.244.0.{last}")], "targetRef": {"kind": "Pod", "name": format!("p{last}")}});
    let endpoints: Value = (1..=4).map(endpoint).collect();
    let pod = |last: u8, version: &str| {
        let labels = json!({"app": "web", "version": version});
        (
            Kind::Workload,
            json!({"metadata": {"name": format!("p{last}"), "namespace": "default", "labels": labels}}),
        )
    };
    let group = |version: &str, weight: u32| json!({"selector": {"matchLabels": {"version": version}}, "weight": weight});
    let split = |name: &str, backends: Value| {
        let spec = json!({"service": "web", "backends": backends});
        (Kind::TrafficSplit, json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
    };
    let spec = json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]});
    let base = || {
        vec![
            (Kind::Service, service(&spec, &json!([]))),
            (Kind::EndpointSlice, slice("IPv4", &endpoints)),
            pod(1, "v1"),
            pod(2, "v1"),
            pod(3, "v2"),
        ]
    };
    for (name, more, wanted, problem) in [
        ("none", vec![], vec![1, 1, 1, 1], ""),
        ("ninety to ten", vec![split("a", json!([group("v1", 90), group("v2", 10)]))], vec![9, 9, 2, 0], ""),
        ("the rest", vec![split("a", json!([group("v1", 2), {"weight": 1}]))], vec![1, 1, 1, 0], ""),
        ("nothing for one", vec![split("a", json!([group("v1", 0), group("v2", 10)]))], vec![0, 0, 1, 0], ""),
        (
            "no pod of a group",
            vec![split("a", json!([group("v1", 1), group("v3", 10)]))],
            vec![1, 1, 0, 0],
            "",
        ),
        (
            "all 0",
            vec![split("a", json!([group("v1", 0)]))],
            vec![1, 1, 1, 1],
            "TrafficSplit default/a: all weights are 0",
        ),
        (
            "two",
            vec![split("b", json!([group("v2", 1)])), split("a", json!([group("v1", 1)]))],
            vec![1, 1, 0, 0],
            "TrafficSplit default/b: a divides Service default/web already",
        ),
    ] {
        let mut objects = base();
        objects.extend(more);
        for _ in 0..2 {
            let state = state(&objects);
            let out = state.compile(&context(), &web()).unwrap();
            let weights: Vec<u32> = out.frontends[0].inside.backends.iter().map(|b| b.weight).collect();
            assert_eq!(weights, wanted, "{name}");
            assert!(state.problems().join("\n").contains(problem), "{name}: {:?}", state.problems());
            objects.reverse();
        }
    }
    // A pod's new label, and a change of weights, touch the Service; a label that no group asks for does not.
    let mut state = state(&base());
    let put = |state: &mut State, (kind, object): (Kind, Value)| {
        state.put(context().decode(kind, &object.to_string()).unwrap())
    };
    assert_eq!(put(&mut state, split("a", json!([group("v1", 90), group("v2", 10)]))), [web()]);
    assert_eq!(put(&mut state, pod(4, "v2")), [web()]);
    assert_eq!(put(&mut state, pod(4, "v2")), []);
    let (kind, mut same) = pod(4, "v2");
    same["metadata"]["labels"]["other"] = json!("x");
    assert_eq!(put(&mut state, (kind, same)), []);
    assert_eq!(state.delete(Kind::Workload, "default", "p4"), [web()]);
    assert_eq!(state.delete(Kind::TrafficSplit, "default", "a"), [web()]);
}
