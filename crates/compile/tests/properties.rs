//! Over random clusters: changes in any order end where compiling from nothing does, the rules agree with a naive
//! reading of them, and an exported state is the same state.

use std::collections::BTreeMap;
use std::net::IpAddr;

use eastwest_compile::{
    Compiled, Context, DnsService, From, FrontendKey, FrontendKind, Object, Outcome, Reason, State, Verdict,
    compile_all,
};
use eastwest_model::{
    AddressType, Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, HintName, Kind,
    LoadBalancerIngress, Node, ObjectMeta, ObjectReference, Protocol, Service, ServicePort, SplitBackend,
    SplitSelector, TrafficPolicy, TrafficSplit, Workload,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// This node's addresses, of which the first is an external IP of Services too.
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn context() -> Context {
    Context {
        node: "n0".into(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_port_addresses: NODE.map(|a| a.parse().unwrap()).to_vec(),
        pod_names: false,
    }
}

#[derive(Clone, Debug)]
enum Change {
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    Node(Box<Node>),
    DeleteNode,
    Workload(Box<Workload>),
    DeleteWorkload(String),
    Split(Box<TrafficSplit>),
    DeleteSplit(String),
    DeleteService(String),
    DeleteSlice(String),
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP)]
}

fn port_name() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("a".to_owned()), Just("b".to_owned())]
}

fn service() -> impl Strategy<Value = Service> {
    let ports = vec((port_name(), protocol(), 1u16..4, option::of(3u16..5)), 0..4);
    let ips = prop_oneof![
        Just(vec!["None".to_owned()]),
        (1u8..4).prop_map(|n| vec![format!("10.96.0.{n}")]),
        (1u8..4).prop_map(|n| vec![format!("10.96.0.{n}"), format!("fd00:10:96::{n}")]),
    ];
    let external = (
        vec(prop_oneof![Just("192.0.2.1"), Just("198.51.100.1"), Just("2001:db8::9")], 0..3),
        option::of(Just("198.51.100.1")),
        any::<bool>(),
    );
    (0u8..4, ports, ips, any::<bool>(), any::<bool>(), external).prop_map(
        |(name, ports, ips, local, publish, external)| {
            let mut service = Service::default();
            service.metadata.name = format!("s{name}");
            service.metadata.namespace = "ns".into();
            service.spec.cluster_ips = ips;
            service.spec.internal_traffic_policy = local.then_some(TrafficPolicy::Local);
            service.spec.publish_not_ready_addresses = Some(publish);
            let ports = ports.into_iter().map(|(name, protocol, port, node_port)| ServicePort {
                name,
                protocol,
                port,
                node_port,
                ..Default::default()
            });
            service.spec.ports = ports.collect();
            let (ips, ingress, external_local) = external;
            service.spec.external_ips = ips.into_iter().map(str::to_owned).collect();
            service.spec.external_traffic_policy = external_local.then_some(TrafficPolicy::Local);
            let ingress = ingress.map(|ip| LoadBalancerIngress { ip: ip.to_owned(), ..Default::default() });
            service.status.load_balancer.ingress = ingress.into_iter().collect();
            service
        },
    )
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let conditions = (option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<bool>()))
        .prop_map(|(ready, serving, terminating)| EndpointConditions { ready, serving, terminating });
    let name = |n: u8| HintName { name: format!("n{n}") };
    let hints = (option::of(0u8..2), vec(0u8..2, 0..3)).prop_map(move |(node, zones)| EndpointHints {
        for_nodes: node.map(name).into_iter().collect(),
        for_zones: zones.into_iter().map(name).collect(),
    });
    let hints = prop_oneof![1 => Just(None), 6 => hints.prop_map(Some)];
    let endpoint = (0u8..6, conditions, option::of(0u8..2), option::of(Just("h".to_owned())), hints);
    let ports = vec((option::of(port_name()), option::of(0u16..4), protocol()), 0..3);
    (0u8..6, option::of(0u8..4), any::<bool>(), vec(endpoint, 0..6), ports).prop_map(
        |(name, service, v4, endpoints, ports)| EndpointSlice {
            metadata: ObjectMeta {
                name: format!("e{name}"),
                namespace: "ns".into(),
                labels: service
                    .map(|s| ("kubernetes.io/service-name".to_owned(), format!("s{s}")))
                    .into_iter()
                    .collect(),
                ..Default::default()
            },
            address_type: if v4 { AddressType::IPv4 } else { AddressType::IPv6 },
            endpoints: endpoints
                .into_iter()
                .map(|(n, conditions, node, hostname, hints)| Endpoint {
                    // 0 is loopback: left out.
                    addresses: vec![match (v4, n) {
                        (true, 0) => "127.0.0.1".into(),
                        (true, n) => format!("10.244.0.{n}"),
                        (false, 0) => "::1".into(),
                        (false, n) => format!("fd00:10:244::{n}"),
                    }],
                    conditions,
                    hostname,
                    hints,
                    target_ref: (n % 3 != 0).then(|| ObjectReference {
                        kind: "Workload".into(),
                        name: format!("w{n}"),
                        ..Default::default()
                    }),
                    node_name: node.map(|n| format!("n{n}")),
                    ..Default::default()
                })
                .collect(),
            ports: ports
                .into_iter()
                .map(|(name, port, protocol)| EndpointPort { name, port, protocol, app_protocol: None })
                .collect(),
            ..Default::default()
        },
    )
}

/// Nodes and zones have the same names here: `n0`, where this is compiled, and `n1`.
fn node() -> impl Strategy<Value = Node> {
    (0u8..2, option::of(0u8..2)).prop_map(|(name, zone)| {
        let mut node = Node::default();
        node.metadata.name = format!("n{name}");
        node.metadata
            .labels
            .extend(zone.map(|z| ("topology.kubernetes.io/zone".to_owned(), format!("n{z}"))));
        node
    })
}

/// Endpoints are of workloads by these names.
fn workload() -> impl Strategy<Value = Workload> {
    (0u8..6, option::of(0u8..2)).prop_map(|(name, version)| {
        let mut workload = Workload::default();
        workload.metadata.name = format!("w{name}");
        workload.metadata.namespace = "ns".into();
        workload.metadata.labels.extend(version.map(|v| ("v".to_owned(), v.to_string())));
        workload
    })
}

fn split() -> impl Strategy<Value = TrafficSplit> {
    (0u8..3, 0u8..4, vec((option::of(0u8..2), 0u32..4), 1..3)).prop_map(|(name, service, groups)| {
        let mut split = TrafficSplit::default();
        split.metadata.name = format!("t{name}");
        split.metadata.namespace = "ns".into();
        split.spec.service = format!("s{service}");
        let group = |(version, weight): (Option<u8>, u32)| SplitBackend {
            selector: SplitSelector {
                match_labels: version.map(|v| ("v".to_owned(), v.to_string())).into_iter().collect(),
            },
            weight,
        };
        split.spec.backends = groups.into_iter().map(group).collect();
        split
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => node().prop_map(|n| Change::Node(Box::new(n))),
        1 => Just(Change::DeleteNode),
        3 => workload().prop_map(|w| Change::Workload(Box::new(w))),
        1 => (0u8..6).prop_map(|n| Change::DeleteWorkload(format!("w{n}"))),
        2 => split().prop_map(|s| Change::Split(Box::new(s))),
        1 => (0u8..3).prop_map(|n| Change::DeleteSplit(format!("t{n}"))),
        4 => service().prop_map(|s| Change::Service(Box::new(s))),
        6 => slice().prop_map(|s| Change::Slice(Box::new(s))),
        1 => (0u8..4).prop_map(|n| Change::DeleteService(format!("s{n}"))),
        1 => (0u8..6).prop_map(|n| Change::DeleteSlice(format!("e{n}"))),
    ]
}

#[derive(Default)]
struct Objects {
    services: BTreeMap<String, Service>,
    slices: BTreeMap<String, EndpointSlice>,
    nodes: BTreeMap<String, Node>,
    workloads: BTreeMap<String, Workload>,
    splits: BTreeMap<String, TrafficSplit>,
}

impl Objects {
    fn take(&mut self, change: &Change) {
        match change.clone() {
            Change::Service(s) => drop(self.services.insert(s.metadata.name.clone(), *s)),
            Change::Slice(s) => drop(self.slices.insert(s.metadata.name.clone(), *s)),
            Change::Node(n) => drop(self.nodes.insert(n.metadata.name.clone(), *n)),
            Change::DeleteNode => drop(self.nodes.remove("n0")),
            Change::Workload(w) => drop(self.workloads.insert(w.metadata.name.clone(), *w)),
            Change::DeleteWorkload(n) => drop(self.workloads.remove(&n)),
            Change::Split(s) => drop(self.splits.insert(s.metadata.name.clone(), *s)),
            Change::DeleteSplit(n) => drop(self.splits.remove(&n)),
            Change::DeleteService(n) => drop(self.services.remove(&n)),
            Change::DeleteSlice(n) => drop(self.slices.remove(&n)),
        }
    }

    fn decoded(&self) -> Vec<Object> {
        let c = context();
        let services = self.services.values().map(|s| c.service(s));
        let slices = self.slices.values().map(|s| c.slice(s));
        let nodes = self.nodes.values().map(|n| c.node(n));
        let json = |kind: Kind, text: Result<String, _>| c.decode(kind, &text.unwrap()).unwrap();
        let workloads = self.workloads.values().map(|w| json(Kind::Workload, serde_json::to_string(w)));
        let splits = self.splits.values().map(|s| json(Kind::TrafficSplit, serde_json::to_string(s)));
        let all = services.chain(slices).chain(nodes).chain(workloads).chain(splits);
        all.filter_map(|d| d.object).collect()
    }

    fn compiled(&self) -> Compiled {
        compile_all(&context(), self.decoded())
    }
}

/// An endpoint as a reader of the objects has it.
#[derive(Clone, Copy, Default)]
struct Seen {
    ready: bool,
    draining: bool,
    here: bool,
    node_hints: bool,
    for_node: bool,
    zone_hints: bool,
    for_zone: bool,
}

/// kube-proxy's rules once more, written for clearness from the objects as they are: all endpoints of a Service port.
fn naive_endpoints(
    service: &Service,
    port: &ServicePort,
    v4: bool,
    slices: &[&EndpointSlice],
    zone: Option<&str>,
) -> BTreeMap<(IpAddr, u16), Seen> {
    let mut found: BTreeMap<(IpAddr, u16), Seen> = BTreeMap::new();
    for slice in slices.iter().filter(|s| s.service_name() == Some(&*service.metadata.name)) {
        for p in &slice.ports {
            let number = p.port.unwrap_or(0);
            if p.name.clone().unwrap_or_default() != port.name || p.protocol != port.protocol || number == 0 {
                continue;
            }
            for e in &slice.endpoints {
                let addr: IpAddr = e.addresses[0].parse().unwrap();
                if addr.is_loopback() || addr.is_ipv4() != v4 {
                    continue;
                }
                // What several appearances of an endpoint say adds up.
                let seen = found.entry((addr, number)).or_default();
                seen.ready |= e.conditions.is_ready();
                seen.draining |= e.conditions.is_serving() && e.conditions.is_terminating();
                seen.here |= e.node_name.as_deref() == Some("n0");
                let hints = e.hints.clone().unwrap_or_default();
                seen.node_hints |= !hints.for_nodes.is_empty();
                seen.for_node |= hints.for_nodes.iter().any(|n| n.name == "n0");
                seen.zone_hints |= !hints.for_zones.is_empty();
                seen.for_zone |= hints.for_zones.iter().any(|z| Some(&*z.name) == zone);
            }
        }
    }
    found
}

/// What gets traffic of these, and whether it is dropped where nothing does.
fn naive_targets(found: &BTreeMap<(IpAddr, u16), Seen>, local: bool) -> (Vec<(IpAddr, u16)>, bool) {
    let pick = |wanted: &dyn Fn(&Seen) -> bool| -> Vec<(IpAddr, u16)> {
        found.iter().filter(|(_, s)| wanted(s)).map(|(key, _)| *key).collect()
    };
    let ready: Vec<&Seen> = found.values().filter(|s| s.ready).collect();
    if local {
        let mut chosen = pick(&|s| s.here && s.ready);
        if chosen.is_empty() {
            chosen = pick(&|s| s.here && s.draining);
        }
        let drop = chosen.is_empty() && found.values().any(|s| s.ready || s.draining);
        return (chosen, drop);
    }
    if ready.is_empty() {
        return (pick(&|s| s.draining), false);
    }
    if ready.iter().all(|s| s.node_hints) && ready.iter().any(|s| s.for_node) {
        return (pick(&|s| s.ready && s.for_node), false);
    }
    if ready.iter().all(|s| s.zone_hints) && ready.iter().any(|s| s.for_zone) {
        return (pick(&|s| s.ready && s.for_zone), false);
    }
    (pick(&|s| s.ready), false)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn incremental_is_as_from_nothing(changes in vec(change(), 0..60)) {
        let (mut state, mut objects, mut kept) = (State::new(), Objects::default(), Compiled::new());
        for change in &changes {
            objects.take(change);
            let before = state.compilations();
            let touched = match change {
                Change::Service(s) => state.put(context().decode(Kind::Service, &serde_json::to_string(s).unwrap()).unwrap()),
                Change::Slice(s) => state.put(context().slice(s)),
                Change::Node(n) => state.put(context().node(n)),
                Change::DeleteNode => state.delete(Kind::Node, "", "n0"),
                Change::Workload(w) => state.put(context().decode(Kind::Workload, &serde_json::to_string(w).unwrap()).unwrap()),
                Change::DeleteWorkload(n) => state.delete(Kind::Workload, "ns", n),
                Change::Split(s) => state.put(context().decode(Kind::TrafficSplit, &serde_json::to_string(s).unwrap()).unwrap()),
                Change::DeleteSplit(n) => state.delete(Kind::TrafficSplit, "ns", n),
                Change::DeleteService(n) => state.delete(Kind::Service, "ns", n),
                Change::DeleteSlice(n) => state.delete(Kind::EndpointSlice, "ns", n),
            };
            // A Node's zone and a workload's labels may concern all four Services here.
            let wide = matches!(change, Change::Node(_) | Change::DeleteNode | Change::Workload(_) | Change::DeleteWorkload(_));
            let most = if wide { 4 } else { 2 };
            prop_assert!(touched.len() <= most);
            for key in touched {
                match state.compile(&context(), &key) {
                    Some(service) => drop(kept.insert(key, service)),
                    None => drop(kept.remove(&key)),
                }
            }
            // One change compiles what it touches and nothing else.
            prop_assert!(state.compilations() - before <= most as u64);
            prop_assert_eq!(&kept, &objects.compiled());
        }
        let mut again = State::new();
        for object in state.export() {
            let object = serde_json::from_str(&serde_json::to_string(&object).unwrap()).unwrap();
            again.put(eastwest_compile::Decoded { object: Some(object), problems: vec![] });
        }
        let all: Compiled = again.services().map(|k| (k.clone(), again.compile(&context(), k).unwrap())).collect();
        prop_assert_eq!(&all, &kept);
        again.prune(|kind, _, name| kind == Kind::Service && name == "s1");
        prop_assert!(again.services().all(|k| &*k.name == "s1"));
        prop_assert!(again.export().len() <= 1);
    }

    #[test]
    fn the_rules_as_a_naive_reader_has_them(service in service(), slices in vec(slice(), 0..8), zone in option::of(0u8..2)) {
        // One object a name.
        let slices: BTreeMap<_, _> = slices.into_iter().map(|s| (s.metadata.name.clone(), s)).collect();
        let zone = zone.map(|z| format!("n{z}"));
        let mut node = Node::default();
        node.metadata.name = "n0".into();
        node.metadata.labels.extend(zone.clone().map(|z| ("topology.kubernetes.io/zone".to_owned(), z)));
        let objects = Objects {
            services: [(service.metadata.name.clone(), service.clone())].into(),
            nodes: [("n0".to_owned(), node)].into(),
            slices: slices.clone(),
            ..Default::default()
        };
        let compiled = objects.compiled();
        let compiled = compiled.values().next().unwrap();
        let slices: Vec<_> = slices.values().collect();
        let mut keys: Vec<_> = compiled.frontends.iter().map(|f| f.key).collect();
        keys.dedup();
        prop_assert_eq!(keys.len(), compiled.frontends.len());
        for frontend in &compiled.frontends {
            let (v4, key) = (frontend.key.addr.is_ipv4(), frontend.key);
            prop_assert!(service.cluster_ips().any(|ip| ip.is_ipv4() == v4));
            let stands = |text: &String| text.parse() == Ok(key.addr);
            let node_port = frontend.kind == FrontendKind::NodePort;
            let port = service.spec.ports.iter().find(|p| {
                p.protocol == key.protocol && if node_port { p.node_port == Some(key.port) } else { p.port == key.port }
            }).unwrap();
            let local = |policy: Option<TrafficPolicy>| policy == Some(TrafficPolicy::Local);
            let outside_local = match frontend.kind {
                FrontendKind::ClusterIp => {
                    prop_assert!(service.spec.cluster_ips.iter().any(stands));
                    local(service.spec.internal_traffic_policy)
                }
                FrontendKind::NodePort => {
                    prop_assert!(context().node_port_addresses.contains(&key.addr));
                    local(service.spec.external_traffic_policy)
                }
                FrontendKind::ExternalIp => {
                    prop_assert!(service.spec.external_ips.iter().any(stands));
                    local(service.spec.external_traffic_policy)
                }
                FrontendKind::LoadBalancer => {
                    prop_assert!(service.status.load_balancer.ingress.iter().any(|i| stands(&i.ip)));
                    local(service.spec.external_traffic_policy)
                }
            };
            let inside_local = outside_local && frontend.kind == FrontendKind::ClusterIp;
            let found = naive_endpoints(&service, port, v4, &slices, zone.as_deref());
            for (targets, local) in [(&frontend.inside, inside_local), (&frontend.outside, outside_local)] {
                let (wanted, drop) = naive_targets(&found, local);
                let got: Vec<_> = targets.backends.iter().map(|b| (b.addr, b.port)).collect();
                prop_assert_eq!(got, wanted);
                prop_assert_eq!(targets.drop, drop);
                prop_assert!(targets.backends.iter().all(|b| b.local == found[&(b.addr, b.port)].here));
            }
        }
        // What explains a decision comes to the same.
        let mut state = State::new();
        for object in objects.decoded() {
            state.put(eastwest_compile::Decoded { object: Some(object), problems: vec![] });
        }
        for frontend in &compiled.frontends {
            for (from, targets) in [(From::Inside, &frontend.inside), (From::Outside, &frontend.outside)] {
                let why = state.explain(&context(), &compiled.key, &frontend.key, from, None).unwrap();
                let chosen: Vec<_> = why.considered.iter().filter(|c| c.share > 0.0).map(|c| c.backend).collect();
                prop_assert_eq!(&chosen[..], &targets.backends[..]);
                let by_rules = why.considered.iter().filter(|c| c.reason == Reason::By(Verdict::Chosen)).count();
                prop_assert_eq!(by_rules, chosen.len());
                let outcome = match (chosen.is_empty(), targets.drop) {
                    (false, _) => Outcome::Translated,
                    (true, true) => Outcome::DroppedNoLocal,
                    (true, false) => Outcome::Refused,
                };
                prop_assert_eq!(why.outcome, outcome);
            }
        }
        // Nothing that should stand there is missing.
        if !service.is_headless() {
            let families: Vec<bool> = service.cluster_ips().map(|ip| ip.is_ipv4()).collect();
            for port in &service.spec.ports {
                for addr in service.cluster_ips() {
                    let key = FrontendKey { addr, port: port.port, protocol: port.protocol };
                    prop_assert!(keys.contains(&key));
                }
                for addr in context().node_port_addresses.into_iter().filter(|a| families.contains(&a.is_ipv4())) {
                    let key = port.node_port.map(|n| FrontendKey { addr, port: n, protocol: port.protocol });
                    prop_assert!(key.is_none_or(|key| keys.contains(&key)));
                }
            }
        }
        if let DnsService::Headless { endpoints } = &compiled.dns {
            prop_assert!(service.is_headless() && compiled.frontends.is_empty());
            for pair in endpoints.windows(2) {
                prop_assert!((pair[0].addr, &pair[0].hostname) < (pair[1].addr, &pair[1].hostname));
            }
        }
    }
}
