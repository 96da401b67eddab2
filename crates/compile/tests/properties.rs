//! Over random clusters: changes in any order end where compiling from nothing does, the rules agree with a naive
//! reading of them, diffs apply, and an exported state is the same state.

use std::collections::BTreeMap;
use std::net::IpAddr;

use eastwest_compile::{Compiled, Context, DnsService, State, apply, compile_all, diff};
use eastwest_model::{
    AddressType, Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Kind, ObjectMeta, Protocol,
    Service, ServicePort, ServiceSpec, TrafficPolicy,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn context() -> Context {
    Context { node: "n0".into(), service_cidrs: vec!["10.96.0.0/16".parse().unwrap()], pod_names: false }
}

#[derive(Clone, Debug)]
enum Change {
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
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
    let ports = vec((port_name(), protocol(), 1u16..4), 0..4);
    let ips = prop_oneof![
        Just(vec!["None".to_owned()]),
        (1u8..4).prop_map(|n| vec![format!("10.96.0.{n}")]),
        (1u8..4).prop_map(|n| vec![format!("10.96.0.{n}"), format!("fd00:10:96::{n}")]),
    ];
    (0u8..4, ports, ips, any::<bool>(), any::<bool>()).prop_map(|(name, ports, ips, local, publish)| {
        let mut service = Service::default();
        service.metadata.name = format!("s{name}");
        service.metadata.namespace = "ns".into();
        service.spec.cluster_ips = ips;
        service.spec.internal_traffic_policy = local.then_some(TrafficPolicy::Local);
        service.spec.publish_not_ready_addresses = Some(publish);
        let ports = ports.into_iter().map(|(name, protocol, port)| ServicePort {
            name,
            protocol,
            port,
            ..Default::default()
        });
        service.spec.ports = ports.collect();
        service
    })
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let conditions = (option::of(any::<bool>()), option::of(any::<bool>()), option::of(any::<bool>()))
        .prop_map(|(ready, serving, terminating)| EndpointConditions { ready, serving, terminating });
    let endpoint = (0u8..6, conditions, option::of(0u8..2), option::of(Just("h".to_owned())));
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
                .map(|(n, conditions, node, hostname)| Endpoint {
                    // 0 is loopback: left out.
                    addresses: vec![match (v4, n) {
                        (true, 0) => "127.0.0.1".into(),
                        (true, n) => format!("10.244.0.{n}"),
                        (false, 0) => "::1".into(),
                        (false, n) => format!("fd00:10:244::{n}"),
                    }],
                    conditions,
                    hostname,
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

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
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
}

impl Objects {
    fn take(&mut self, change: &Change) {
        match change.clone() {
            Change::Service(s) => drop(self.services.insert(s.metadata.name.clone(), *s)),
            Change::Slice(s) => drop(self.slices.insert(s.metadata.name.clone(), *s)),
            Change::DeleteService(n) => drop(self.services.remove(&n)),
            Change::DeleteSlice(n) => drop(self.slices.remove(&n)),
        }
    }

    fn compiled(&self) -> Compiled {
        compile_all(&context(), self.services.values(), self.slices.values())
    }
}

/// kube-proxy's rules once more, written for clearness from the objects as they are.
fn naive_backends(
    service: &Service,
    port: &ServicePort,
    v4: bool,
    slices: &[&EndpointSlice],
) -> Vec<(IpAddr, u16)> {
    let mut ready = Vec::new();
    let mut draining = Vec::new();
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
                // An endpoint is on this node if any of its appearances says so.
                let here =
                    slices.iter().filter(|s| s.service_name() == Some(&*service.metadata.name)).any(|s| {
                        s.ports.iter().any(|q| {
                            q.name.clone().unwrap_or_default() == port.name
                                && q.protocol == port.protocol
                                && q.port == Some(number)
                        }) && s
                            .endpoints
                            .iter()
                            .any(|o| o.addresses == e.addresses && o.node_name.as_deref() == Some("n0"))
                    });
                if service.spec.internal_traffic_policy == Some(TrafficPolicy::Local) && !here {
                    continue;
                }
                if e.conditions.is_ready() {
                    ready.push((addr, number));
                }
                if e.conditions.is_serving() && e.conditions.is_terminating() {
                    draining.push((addr, number));
                }
            }
        }
    }
    let mut chosen = if ready.is_empty() { draining } else { ready };
    chosen.sort();
    chosen.dedup();
    chosen
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
                Change::DeleteService(n) => state.delete(Kind::Service, "ns", n),
                Change::DeleteSlice(n) => state.delete(Kind::EndpointSlice, "ns", n),
            };
            prop_assert!(touched.len() <= 2);
            for key in touched {
                match state.compile(&key) {
                    Some(service) => drop(kept.insert(key, service)),
                    None => drop(kept.remove(&key)),
                }
            }
            // One change compiles what it touches and nothing else.
            prop_assert!(state.compilations() - before <= 2);
            prop_assert_eq!(&kept, &objects.compiled());
        }
        let mut again = State::new();
        for object in state.export() {
            let object = serde_json::from_str(&serde_json::to_string(&object).unwrap()).unwrap();
            again.put(eastwest_compile::Decoded { object: Some(object), problems: vec![] });
        }
        let all: Compiled = again.services().map(|k| (k.clone(), again.compile(k).unwrap())).collect();
        prop_assert_eq!(&all, &kept);
        again.prune(|kind, _, name| kind == Kind::Service && name == "s1");
        prop_assert!(again.services().all(|k| &*k.name == "s1"));
        prop_assert!(again.export().len() <= 1);
    }

    #[test]
    fn the_rules_as_a_naive_reader_has_them(service in service(), slices in vec(slice(), 0..8)) {
        // One object a name.
        let slices: BTreeMap<_, _> = slices.into_iter().map(|s| (s.metadata.name.clone(), s)).collect();
        let compiled = compile_all(&context(), [&service], slices.values());
        let compiled = compiled.values().next().unwrap();
        let slices: Vec<_> = slices.values().collect();
        let mut keys: Vec<_> = compiled.frontends.iter().map(|f| f.key).collect();
        keys.dedup();
        prop_assert_eq!(keys.len(), compiled.frontends.len());
        for frontend in &compiled.frontends {
            let port = service.spec.ports.iter().find(|p| p.port == frontend.key.port && p.protocol == frontend.key.protocol).unwrap();
            let wanted = naive_backends(&service, port, frontend.key.addr.is_ipv4(), &slices);
            let got: Vec<_> = frontend.inside.backends.iter().map(|b| (b.addr, b.port)).collect();
            let anywhere = Service { spec: ServiceSpec { internal_traffic_policy: None, ..service.spec.clone() }, ..service.clone() };
            let anywhere = naive_backends(&anywhere, port, frontend.key.addr.is_ipv4(), &slices);
            prop_assert_eq!(frontend.inside.drop, wanted.is_empty() && !anywhere.is_empty());
            prop_assert_eq!(got, wanted);
        }
        if let DnsService::Headless { endpoints } = &compiled.dns {
            prop_assert!(service.is_headless() && compiled.frontends.is_empty());
            for pair in endpoints.windows(2) {
                prop_assert!((pair[0].addr, &pair[0].hostname) < (pair[1].addr, &pair[1].hostname));
            }
        }
    }

    #[test]
    fn a_diff_leads_from_one_to_the_other(a in vec(change(), 0..30), b in vec(change(), 0..30)) {
        let mut objects = Objects::default();
        a.iter().for_each(|c| objects.take(c));
        let old = objects.compiled();
        b.iter().for_each(|c| objects.take(c));
        let new = objects.compiled();
        let d = diff(&old, &new);
        prop_assert_eq!(d.is_empty(), old == new);
        prop_assert_eq!(apply(&d, old), new);
    }
}
