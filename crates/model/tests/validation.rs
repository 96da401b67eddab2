//! Which manifests are taken, and which field an error names when not.

use eastwest_model::*;

fn service(yaml_json: serde_json::Value) -> Service {
    let mut service: Service = serde_json::from_value(yaml_json).expect("a Service");
    Resource::default_fields(&mut service);
    service
}

fn fields(errors: &[FieldError]) -> Vec<&str> {
    errors.iter().map(|e| e.field.as_str()).collect()
}

#[test]
fn services() {
    use serde_json::json;
    let port = json!([{"port": 80}]);
    let cases = [
        ("plain", json!({"ports": port}), vec![]),
        ("headless without ports", json!({"clusterIP": "None"}), vec![]),
        ("no ports", json!({}), vec!["spec.ports"]),
        ("port 0", json!({"ports": [{"port": 0, "targetPort": 1}]}), vec!["spec.ports[0].port"]),
        (
            "two ports, one unnamed",
            json!({"ports": [{"name": "a", "port": 80}, {"port": 81}]}),
            vec!["spec.ports[1].name"],
        ),
        (
            "same name twice",
            json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
            vec!["spec.ports[1].name"],
        ),
        (
            "same number on TCP and UDP",
            json!({"ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]}),
            vec![],
        ),
        (
            "same number and protocol",
            json!({"ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53}]}),
            vec!["spec.ports[1]"],
        ),
        ("bad address", json!({"ports": port, "clusterIP": "10.0.0"}), vec!["spec.clusterIPs[0]"]),
        (
            "two of one family",
            json!({"ports": port, "clusterIPs": ["10.96.0.1", "10.96.0.2"]}),
            vec!["spec.clusterIPs"],
        ),
        (
            "family and address differ",
            json!({"ports": port, "clusterIP": "10.96.0.1", "ipFamilies": ["IPv6"]}),
            vec!["spec.clusterIPs[0]"],
        ),
        ("external name", json!({"type": "ExternalName", "externalName": "example.test"}), vec![]),
        ("external name missing", json!({"type": "ExternalName"}), vec!["spec.externalName"]),
        (
            "affinity too long",
            json!({"ports": port, "sessionAffinity": "ClientIP",
                   "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
            vec!["spec.sessionAffinityConfig.clientIP.timeoutSeconds"],
        ),
        (
            "unknown distribution",
            json!({"ports": port, "trafficDistribution": "Near"}),
            vec!["spec.trafficDistribution"],
        ),
        ("bad selector", json!({"ports": port, "selector": {"a b": "c"}}), vec!["spec.selector"]),
        (
            "targetPort name too long",
            json!({"ports": [{"port": 80, "targetPort": "a-name-that-is-too-long"}]}),
            vec!["spec.ports[0].targetPort"],
        ),
    ];
    for (name, spec, expected) in cases {
        let service = service(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}));
        assert_eq!(fields(&Resource::validate(&service)), expected, "{name}");
    }
}

#[test]
fn a_name_is_needed_and_the_first_address_stays() {
    use serde_json::json;
    let nameless = service(json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(fields(&Resource::validate(&nameless)), ["metadata.name"]);

    let old = service(
        json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}}),
    );
    let moved = service(
        json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 80}]}}),
    );
    assert_eq!(fields(&moved.validate_update(&old)), ["spec.clusterIPs[0]"]);
    let second = service(json!({"metadata": {"name": "a"},
        "spec": {"clusterIPs": ["10.96.0.7", "fd00::7"], "ports": [{"port": 80}]}}));
    assert!(second.validate_update(&old).is_empty());
}

#[test]
fn defaults_are_those_of_kubernetes() {
    let s = service(serde_json::json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}));
    assert_eq!(s.spec.type_, Some(ServiceType::ClusterIP));
    assert_eq!(s.spec.session_affinity, Some(SessionAffinity::None));
    assert_eq!(s.spec.internal_traffic_policy, Some(TrafficPolicy::Cluster));
    assert_eq!(s.spec.ports[0].target_port, Some(TargetPort::Number(80)));
    assert_eq!(s.spec.ports[0].protocol, Protocol::TCP);
}

#[test]
fn slices() {
    use serde_json::json;
    let cases = [
        ("good", json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}), vec![]),
        ("no address", json!({"endpoints": [{"addresses": []}]}), vec!["endpoints[0].addresses"]),
        ("loopback", json!({"endpoints": [{"addresses": ["127.0.0.1"]}]}), vec!["endpoints[0].addresses[0]"]),
        (
            "other family",
            json!({"endpoints": [{"addresses": ["fd00::1"]}]}),
            vec!["endpoints[0].addresses[0]"],
        ),
        (
            "mapped",
            json!({"addressType": "IPv6", "endpoints": [{"addresses": ["::ffff:1.2.3.4"]}]}),
            vec!["endpoints[0].addresses[0]"],
        ),
        ("port 0", json!({"ports": [{"port": 0}]}), vec!["ports[0].port"]),
    ];
    for (name, mut object, expected) in cases {
        object["metadata"] = json!({"name": "web-1"});
        let slice: EndpointSlice = serde_json::from_value(object).expect("a slice");
        assert_eq!(fields(&Resource::validate(&slice)), expected, "{name}");
    }
    let many = EndpointSlice {
        metadata: ObjectMeta { name: "a".into(), ..Default::default() },
        endpoints: vec![Endpoint { addresses: vec!["10.0.0.1".into()], ..Default::default() }; 1001],
        ..Default::default()
    };
    assert_eq!(fields(&Resource::validate(&many)), ["endpoints"]);
}

#[test]
fn readiness_of_a_workload() {
    use serde_json::json;
    for (name, object, ready) in [
        ("nothing said", json!({}), true),
        ("writer says no", json!({"spec": {"readiness": "NotReady"}}), false),
        (
            "status goes first",
            json!({"spec": {"readiness": "NotReady"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            true,
        ),
        (
            "status unknown",
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            false,
        ),
    ] {
        let workload: Workload = serde_json::from_value(object).expect("a Workload");
        assert_eq!(workload.ready(), ready, "{name}");
    }
}

#[test]
fn records() {
    use serde_json::json;
    for (name, spec, expected) in [
        ("a", json!({"name": "db.example.test", "type": "A", "values": ["192.0.2.1"]}), vec![]),
        ("not IPv4", json!({"name": "db", "type": "A", "values": ["fd00::1"]}), vec!["spec.values[0]"]),
        ("srv", json!({"name": "_a._tcp.b", "type": "SRV", "values": ["0 5 80 x.test."]}), vec![]),
        (
            "srv short",
            json!({"name": "_a._tcp.b", "type": "SRV", "values": ["5 80 x."]}),
            vec!["spec.values[0]"],
        ),
        ("two cnames", json!({"name": "a", "type": "CNAME", "values": ["b", "c"]}), vec!["spec.values"]),
        ("empty", json!({"name": "", "values": []}), vec!["spec.name", "spec.values"]),
    ] {
        let record: DnsRecord =
            serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": spec})).expect("a DnsRecord");
        assert_eq!(fields(&Resource::validate(&record)), expected, "{name}");
    }
}
