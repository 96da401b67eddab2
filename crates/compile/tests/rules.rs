//! One row a rule: a Service and its slices, and what this node serves for them.

use eastwest_compile::{CompiledService, Context, DnsService, ServiceKey, State};
use eastwest_model::Kind;
use serde_json::{Value, json};

fn context() -> Context {
    Context {
        node: "node-1".into(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_port_addresses: Vec::new(),
        pod_names: false,
    }
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn slice(name: &str, family: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}

fn put(state: &mut State, kind: Kind, object: &Value) -> Vec<ServiceKey> {
    state.put(context().decode(kind, &object.to_string()).unwrap())
}

fn compiled(service: &Value, slices: &[Value]) -> (CompiledService, Vec<String>) {
    let mut state = State::new();
    put(&mut state, Kind::Service, service);
    for slice in slices {
        put(&mut state, Kind::EndpointSlice, slice);
    }
    let out = state.compile(&context(), &ServiceKey::new("default", "web")).unwrap();
    // The other way from the same objects.
    let slices = slices.iter().map(|s| (Kind::EndpointSlice, s));
    let objects = [(Kind::Service, service)].into_iter().chain(slices);
    let decoded = objects.map(|(kind, o)| context().decode(kind, &o.to_string()).unwrap().object.unwrap());
    let all = eastwest_compile::compile_all(&context(), decoded);
    assert_eq!(all.get(&out.key), Some(&out));
    (out, state.problems())
}

/// `address:port/protocol -> backend[*],…`, a line a frontend; `*` marks what is on this node, `drop` that none is by policy.
fn shown(c: &CompiledService) -> Vec<String> {
    let backends = |f: &eastwest_compile::Frontend| {
        let b = f
            .inside
            .backends
            .iter()
            .map(|b| format!("{}:{}{}", b.addr, b.port, if b.local { "*" } else { "" }));
        b.collect::<Vec<_>>().join(",")
    };
    c.frontends
        .iter()
        .map(|f| {
            let backends = if f.inside.drop { "drop".to_owned() } else { backends(f) };
            format!("{} {} {:?} -> {}", f.key.addr, f.key.port, f.key.protocol, backends)
                .trim_end()
                .to_owned()
        })
        .collect()
}

#[test]
fn frontends_and_backends() {
    let http = json!([{"port": 8080, "protocol": "TCP"}]);
    let plain = json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80, "protocol": "TCP"}]});
    let ep = |addr: &str, conditions: Value| json!({"addresses": [addr], "conditions": conditions});
    let on = |addr: &str, node: &str, conditions: Value| json!({"addresses": [addr], "nodeName": node, "conditions": conditions});
    let local = json!({"clusterIP": "10.96.0.5", "internalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let draining = json!({"ready": false, "serving": true, "terminating": true});
    let v4 = |endpoints: Value| vec![slice("a", "IPv4", http.clone(), endpoints)];
    let cases: Vec<(&str, Value, Vec<Value>, Vec<&str>)> = vec![
        ("no endpoints", plain.clone(), vec![], vec!["10.96.0.5 80 TCP ->"]),
        (
            "absent conditions mean ready; sorted",
            plain.clone(),
            v4(json!([ep("10.244.1.9", json!({})), ep("10.244.1.3", json!({}))])),
            vec!["10.96.0.5 80 TCP -> 10.244.1.3:8080,10.244.1.9:8080"],
        ),
        (
            "not ready is left out",
            plain.clone(),
            v4(json!([ep("10.244.1.9", json!({"ready": false})), ep("10.244.1.3", json!({"ready": true}))])),
            vec!["10.96.0.5 80 TCP -> 10.244.1.3:8080"],
        ),
        (
            "ready goes before serving and terminating",
            plain.clone(),
            v4(json!([ep("10.244.1.9", draining.clone()), ep("10.244.1.3", json!({"ready": true}))])),
            vec!["10.96.0.5 80 TCP -> 10.244.1.3:8080"],
        ),
        (
            "nothing ready: serving and terminating",
            plain.clone(),
            v4(json!([ep("10.244.1.9", draining.clone()), ep("10.244.1.3", json!({"ready": false}))])),
            vec!["10.96.0.5 80 TCP -> 10.244.1.9:8080"],
        ),
        (
            "an absent serving is true",
            plain.clone(),
            v4(json!([ep("10.244.1.9", json!({"ready": false, "terminating": true}))])),
            vec!["10.96.0.5 80 TCP -> 10.244.1.9:8080"],
        ),
        (
            "not ready, serving, not terminating: no",
            plain.clone(),
            v4(json!([ep("10.244.1.9", json!({"ready": false, "serving": true}))])),
            vec!["10.96.0.5 80 TCP ->"],
        ),
        (
            "only this node's under Local",
            local.clone(),
            v4(json!([on("10.244.1.9", "node-1", json!({})), on("10.244.2.3", "node-2", json!({}))])),
            vec!["10.96.0.5 80 TCP -> 10.244.1.9:8080*"],
        ),
        (
            "under Local, draining here goes before ready elsewhere",
            local.clone(),
            v4(json!([on("10.244.1.9", "node-1", draining.clone()), on("10.244.2.3", "node-2", json!({}))])),
            vec!["10.96.0.5 80 TCP -> 10.244.1.9:8080*"],
        ),
        (
            "under Local, endpoints elsewhere alone are dropped, not refused",
            local.clone(),
            v4(json!([
                on("10.244.1.9", "node-1", json!({"ready": false})),
                on("10.244.2.3", "node-2", json!({}))
            ])),
            vec!["10.96.0.5 80 TCP -> drop"],
        ),
        (
            "under Local, draining elsewhere alone is dropped too",
            local.clone(),
            v4(json!([on("10.244.2.3", "node-2", draining.clone())])),
            vec!["10.96.0.5 80 TCP -> drop"],
        ),
        (
            "under Local, nothing anywhere is refused",
            local.clone(),
            v4(json!([on("10.244.2.3", "node-2", json!({"ready": false}))])),
            vec!["10.96.0.5 80 TCP ->"],
        ),
        (
            "the same endpoint in two slices, ready in one",
            plain.clone(),
            vec![
                slice("a", "IPv4", http.clone(), json!([ep("10.244.1.3", json!({"ready": false}))])),
                slice("b", "IPv4", http.clone(), json!([on("10.244.1.3", "node-1", json!({"ready": true}))])),
            ],
            vec!["10.96.0.5 80 TCP -> 10.244.1.3:8080*"],
        ),
        (
            "ports by name and protocol",
            json!({"clusterIPs": ["10.96.0.5"], "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}, {"name": "none", "port": 9}]}),
            vec![
                slice(
                    "a",
                    "IPv4",
                    json!([{"name": "dns", "port": 1053, "protocol": "UDP"}, {"name": "dns-tcp", "port": 2053}, {"name": "none", "port": 9, "protocol": "UDP"}]),
                    json!([ep("10.244.1.3", json!({}))]),
                ),
                slice(
                    "b",
                    "IPv4",
                    json!([{"name": "dns", "port": 3053, "protocol": "UDP"}, {"name": "dns-tcp"}]),
                    json!([ep("10.244.1.3", json!({}))]),
                ),
            ],
            vec![
                "10.96.0.5 9 TCP ->",
                "10.96.0.5 53 TCP -> 10.244.1.3:2053",
                "10.96.0.5 53 UDP -> 10.244.1.3:1053,10.244.1.3:3053",
            ],
        ),
        (
            "each family has its own",
            json!({"clusterIPs": ["10.96.0.5", "fd00:10:96::5"], "ports": [{"port": 80}]}),
            vec![
                slice("a", "IPv4", http.clone(), json!([ep("10.244.1.3", json!({}))])),
                slice("b", "IPv6", http.clone(), json!([ep("fd00:10:244::3", json!({}))])),
            ],
            vec!["10.96.0.5 80 TCP -> 10.244.1.3:8080", "fd00:10:96::5 80 TCP -> fd00:10:244::3:8080"],
        ),
        (
            "FQDN slices are not programmed",
            plain.clone(),
            vec![slice("a", "FQDN", http.clone(), json!([ep("example.com", json!({}))]))],
            vec!["10.96.0.5 80 TCP ->"],
        ),
        (
            "headless",
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            v4(json!([ep("10.244.1.3", json!({}))])),
            vec![],
        ),
        ("ExternalName", json!({"type": "ExternalName", "externalName": "example.com."}), vec![], vec![]),
        ("no address yet", json!({"ports": [{"port": 80}]}), vec![], vec![]),
        (
            "the same port twice: the first stays",
            json!({"clusterIP": "10.96.0.5", "ports": [{"name": "x", "port": 80}, {"name": "", "port": 80}]}),
            v4(json!([ep("10.244.1.3", json!({}))])),
            vec!["10.96.0.5 80 TCP ->"],
        ),
    ];
    for (name, spec, slices, wanted) in cases {
        let (out, problems) = compiled(&service(spec), &slices);
        assert_eq!(shown(&out), wanted, "{name}");
        assert!(problems.is_empty(), "{name}: {problems:?}");
    }
}

#[test]
fn affinity() {
    for (spec, wanted) in [
        (json!({"sessionAffinity": "None"}), 0),
        (json!({"sessionAffinity": "ClientIP"}), 10_800),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}}),
            7,
        ),
    ] {
        let mut spec = spec;
        spec["clusterIP"] = json!("10.96.0.5");
        spec["ports"] = json!([{"port": 80}]);
        let (out, _) = compiled(&service(spec.clone()), &[]);
        assert_eq!(out.frontends[0].affinity_seconds, wanted, "{spec}");
    }
}

#[test]
fn addresses_that_nothing_can_be_sent_to_are_left_out_and_reported() {
    let spec = json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]});
    let bad = ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "10.96.0.7", "fd00::1", "x"];
    let mut endpoints: Vec<Value> = vec![json!({"addresses": ["10.244.1.3"]}), json!({"addresses": []})];
    endpoints.extend(bad.iter().map(|a| json!({"addresses": [a]})));
    let slice = slice("a", "IPv4", json!([{"port": 8080}]), endpoints.into());
    let (out, problems) = compiled(&service(spec), &[slice]);
    assert_eq!(shown(&out), ["10.96.0.5 80 TCP -> 10.244.1.3:8080"]);
    assert_eq!(problems.len(), 5, "{problems:#?}");
    let all = problems.join("\n");
    for part in ["EndpointSlice default/a: endpoints[1]: no address", "\"127.0.0.1\"", "and 4 more"] {
        assert!(all.contains(part), "{part} is not in {all}");
    }
}

#[test]
fn other_proxies_services_keep_their_names_only() {
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let mut object = service(json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
        object["metadata"]["labels"] = json!({label: "other"});
        let (out, _) = compiled(&object, &[]);
        assert!(out.frontends.is_empty(), "{label}");
        assert!(matches!(out.dns, DnsService::ClusterIp { ref ips, .. } if ips.len() == 1), "{label}");
    }
}

#[test]
fn headless_names() {
    let ports = json!([{"name": "http", "port": 8080}]);
    let more = json!([{"name": "metrics", "port": 9090}]);
    let endpoints = json!([
        {"addresses": ["10.244.1.3"], "hostname": "web-0"},
        {"addresses": ["10.244.1.4"], "conditions": {"ready": false}},
    ]);
    let slices = [
        slice("a", "IPv4", ports.clone(), endpoints),
        slice("b", "IPv4", more, json!([{"addresses": ["10.244.1.3"], "hostname": "web-0"}])),
        slice("c", "IPv4", ports, json!([{"addresses": ["10.244.1.3"], "hostname": "web-0"}])),
    ];
    for (publish, wanted) in [
        (false, vec!["10.244.1.3 web-0 http:8080 metrics:9090"]),
        (true, vec!["10.244.1.3 web-0 http:8080 metrics:9090", "10.244.1.4 - http:8080"]),
    ] {
        let spec = json!({"clusterIP": "None", "publishNotReadyAddresses": publish, "ports": [{"name": "http", "port": 80}]});
        let (out, _) = compiled(&service(spec), &slices);
        let DnsService::Headless { endpoints } = out.dns else { panic!("{:?}", out.dns) };
        let shown: Vec<String> = endpoints
            .iter()
            .map(|e| {
                let ports: Vec<_> = e.ports.iter().map(|p| format!("{}:{}", p.name, p.port)).collect();
                format!("{} {} {}", e.addr, e.hostname.as_deref().unwrap_or("-"), ports.join(" "))
            })
            .collect();
        assert_eq!(shown, wanted);
    }
}

#[test]
fn a_change_touches_what_it_must() {
    let mut state = State::new();
    let web = || ServiceKey::new("default", "web");
    let object = service(json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
    let a = slice("a", "IPv4", json!([{"port": 1}]), json!([{"addresses": ["10.244.1.3"]}]));
    // Slices may come first.
    assert_eq!(put(&mut state, Kind::EndpointSlice, &a), [web()]);
    assert_eq!(state.compile(&context(), &web()), None);
    assert_eq!(put(&mut state, Kind::Service, &object), [web()]);
    assert_eq!(put(&mut state, Kind::Service, &object), [], "nothing that is read has changed");
    assert_eq!(put(&mut state, Kind::EndpointSlice, &a), []);
    let mut moved = a.clone();
    moved["metadata"]["labels"]["kubernetes.io/service-name"] = json!("other");
    assert_eq!(put(&mut state, Kind::EndpointSlice, &moved), [web(), ServiceKey::new("default", "other")]);
    assert!(state.compile(&context(), &web()).unwrap().frontends[0].inside.backends.is_empty());
    assert_eq!(put(&mut state, Kind::EndpointSlice, &a).len(), 2);
    let mut orphan = a.clone();
    orphan["metadata"]["labels"] = json!({});
    assert_eq!(put(&mut state, Kind::EndpointSlice, &orphan), [web()]);
    assert!(state.compile(&context(), &web()).unwrap().frontends[0].inside.backends.is_empty());
    put(&mut state, Kind::EndpointSlice, &a);
    assert_eq!(state.delete(Kind::Service, "default", "web"), [web()]);
    assert_eq!(state.delete(Kind::Service, "default", "web"), []);
    assert_eq!(state.delete(Kind::EndpointSlice, "default", "a"), [web()]);
    assert_eq!(state.export(), []);
}

#[test]
fn an_object_that_is_not_one_is_an_error() {
    let error = context().decode(Kind::Service, r#"{"spec": {"ports": "many"}}"#).unwrap_err();
    assert!(error.to_string().contains("Service"), "{error}");
}
