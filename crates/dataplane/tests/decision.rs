//! The decision is taken twice: by `compile`, in words, and by the programs, over the tables that the plan makes of
//! `compile`'s result. Random clusters and packets go both ways, and both must come to the same: the same endpoints, in
//! the same parts, and the same drops and refusals by the same counters.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use eastwest_abi::{
    CLUSTER_CLIENTS, EndpointKey4, EndpointKey6, Extent, FrontendKey4, FrontendKey6, counter, frontend_flags,
};
use eastwest_compile::{Context, From, FrontendKey, FrontendKind, Outcome, ServiceKey, State};
use eastwest_dataplane::plan::Tuple;
use eastwest_dataplane::{Dataplane, MemoryTables, Recording};
use eastwest_model::{Kind, Protocol};
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, Spec, run};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

const NODE: &str = "192.0.2.1";
const RANGE: &str = "10.96.0.0";

fn context() -> Context {
    Context {
        node: "n0".into(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_port_addresses: vec![NODE.parse().unwrap()],
        pod_names: false,
    }
}

/// A Service by number, of one or two ports, with all that decides.
fn service(n: usize) -> impl Strategy<Value = Value> {
    let policy = || prop_oneof![Just("Cluster"), Just("Local")];
    (policy(), policy(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        move |(internal, external, balanced, ranged, second)| {
            let mut ports = vec![json!({"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30080 + n})];
            if second {
                ports.push(json!({"name": "b", "port": 53, "protocol": "UDP", "nodePort": 30053 + n * 100}));
            }
            let ranges = if ranged { vec!["203.0.113.0/24", "10.244.0.0/24"] } else { vec![] };
            let ingress =
                if balanced { vec![json!({"ip": format!("198.51.100.{}", n + 1)})] } else { vec![] };
            json!({
                "metadata": {"name": format!("s{n}"), "namespace": "ns"},
                "spec": {"type": "LoadBalancer", "clusterIP": format!("10.96.0.{}", n + 1), "ports": ports,
                    "externalIPs": [format!("198.51.100.{}", n + 101)],
                    "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
                    "loadBalancerSourceRanges": ranges},
                "status": {"loadBalancer": {"ingress": ingress}},
            })
        },
    )
}

/// The endpoints of a Service, of ports `a` and `b` alike.
fn slice(n: usize) -> impl Strategy<Value = Value> {
    let endpoint = (0u8..8, 0u8..4, option::of(0u8..2), option::of(0u8..2));
    vec(endpoint, 0..5).prop_map(move |endpoints| {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(last, state, node, zone)| {
                let conditions = match state {
                    0 => json!({"ready": false}),
                    1 => json!({"ready": false, "serving": true, "terminating": true}),
                    _ => json!({"ready": true}),
                };
                let hints = zone.map(|z| json!({"forZones": [{"name": format!("z{z}")}]}));
                json!({"addresses": [format!("10.244.{n}.{}", last + 1)], "conditions": conditions, "hints": hints,
                    "nodeName": node.map(|node| format!("n{node}")),
                    "targetRef": {"kind": "Pod", "name": format!("p{last}")}})
            })
            .collect();
        json!({
            "metadata": {"name": format!("e{n}"), "namespace": "ns", "labels": {"kubernetes.io/service-name": format!("s{n}")}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "a", "port": 8080, "protocol": "TCP"}, {"name": "b", "port": 5353, "protocol": "UDP"}],
        })
    })
}

/// Groups by the parity of the pods' numbers.
fn split(n: usize) -> impl Strategy<Value = Option<Value>> {
    option::of((0u32..5, 0u32..5)).prop_map(move |weights| {
        let (even, odd) = weights?;
        let group = |v: &str, w: u32| json!({"selector": {"matchLabels": {"v": v}}, "weight": w});
        Some(json!({"metadata": {"name": format!("t{n}"), "namespace": "ns"},
            "spec": {"service": format!("s{n}"), "backends": [group("0", even), group("1", odd)]}}))
    })
}

fn cluster() -> impl Strategy<Value = Vec<(Kind, Value)>> {
    let each = |n: usize| (service(n), slice(n), split(n));
    ((each(0), each(1), each(2)), option::of(0u8..2)).prop_map(|((a, b, c), zone)| {
        let mut labels = json!({});
        if let Some(zone) = zone {
            labels["topology.kubernetes.io/zone"] = json!(format!("z{zone}"));
        }
        let mut objects = vec![(Kind::Node, json!({"metadata": {"name": "n0", "labels": labels}}))];
        for p in 0..8 {
            let labels = json!({"v": (p % 2).to_string()});
            let pod = json!({"metadata": {"name": format!("p{p}"), "namespace": "ns", "labels": labels}});
            objects.push((Kind::Workload, pod));
        }
        for (service, slice, split) in [a, b, c] {
            objects.push((Kind::Service, service));
            objects.push((Kind::EndpointSlice, slice));
            objects.extend(split.map(|s| (Kind::TrafficSplit, s)));
        }
        objects
    })
}

/// The plan's tables as the programs have them.
fn maps(tables: &MemoryTables) -> HostMaps {
    let mut maps = HostMaps::default();
    let dense = |highest: Option<u32>| highest.map_or(0, |highest| highest as usize + 1);
    maps.backends = vec![Default::default(); dense(tables.backends.keys().max().copied()).max(1)];
    tables.backends.iter().for_each(|(id, backend)| maps.backends[*id as usize] = *backend);
    maps.slots = vec![0; dense(tables.slots.keys().max().copied())];
    tables.slots.iter().for_each(|(slot, id)| maps.slots[*slot as usize] = *id);
    for (&Tuple { addr, port, protocol }, frontend) in &tables.frontends {
        let port = port.to_be_bytes();
        match addr {
            IpAddr::V4(ip) => {
                let key = FrontendKey4 { addr: ip.octets(), port, protocol, pad: 0 };
                maps.frontends4.insert(key, *frontend);
            }
            IpAddr::V6(ip) => {
                let key = FrontendKey6 { addr: ip.octets(), port, protocol, pad: 0 };
                maps.frontends6.insert(key, *frontend);
            }
        }
    }
    for &Tuple { addr, port, protocol } in tables.endpoints.keys() {
        let port = port.to_be_bytes();
        match addr {
            IpAddr::V4(ip) => {
                maps.endpoints4.insert(EndpointKey4 { addr: ip.octets(), port, protocol, pad: 0 });
            }
            IpAddr::V6(ip) => {
                maps.endpoints6.insert(EndpointKey6 { addr: ip.octets(), port, protocol, pad: 0 });
            }
        }
    }
    let sources = tables.sources.iter().map(|(list, range)| (*list, range.addr(), range.prefix_len().into()));
    maps.sources = sources.chain([(CLUSTER_CLIENTS, "10.244.0.0".parse().unwrap(), 16)]).collect();
    assert!(maps.add_service_range(RANGE.parse().unwrap(), 16));
    maps.config.node4 = [192, 0, 2, 1];
    maps.config.hairpin4 = [169, 254, 20, 11];
    (maps.config.masquerade_from, maps.config.masquerade_to) = (20000, 20999);
    maps
}

/// A client, and the program that sees its packets first.
const CLIENTS: [(&str, Program, From); 5] = [
    ("10.244.0.250", Program::PodIngress, From::Inside),
    ("10.244.7.250", Program::PodIngress, From::Inside),
    ("10.244.7.250", Program::NicIngress, From::Inside),
    ("203.0.113.9", Program::NicIngress, From::Outside),
    ("203.0.114.9", Program::NicIngress, From::Outside),
];

/// What the programs did with a packet.
#[derive(Debug, PartialEq)]
enum Got {
    To(SocketAddr),
    Refused,
    DroppedNoLocal,
    DroppedSource,
    DroppedUnallocated,
    RefusedPort,
    Untouched,
}

fn send(maps: &mut HostMaps, program: Program, from: SocketAddr, to: SocketAddr, tcp: bool) -> Got {
    let (protocol, flags) = if tcp { ("tcp", " S") } else { ("udp", "") };
    let spec = Spec::from_str(&format!("{protocol} {from} > {to}{flags}")).unwrap();
    let before = maps.counters;
    let mut packet = HostPacket::new(&spec.bytes(), Hook::Tc { partial: false });
    let sent = packet.bytes().to_vec();
    run(program, maps, &mut packet);
    let counted: Vec<u32> = (0..counter::COUNT).filter(|c| maps.counter(*c) != before[*c as usize]).collect();
    for (index, got) in [
        (counter::NO_ENDPOINTS, Got::Refused),
        (counter::LOCAL_POLICY, Got::DroppedNoLocal),
        (counter::SOURCE_RANGES, Got::DroppedSource),
        (counter::UNALLOCATED, Got::DroppedUnallocated),
        (counter::NO_PORT, Got::RefusedPort),
    ] {
        if counted.contains(&index) {
            return got;
        }
    }
    if packet.bytes() == sent {
        return Got::Untouched;
    }
    let bytes = packet.bytes();
    let ip: [u8; 4] = bytes[30..34].try_into().unwrap();
    Got::To(SocketAddr::new(ip.into(), u16::from_be_bytes([bytes[36], bytes[37]])))
}

/// How often each backend stands in an extent.
fn parts(tables: &MemoryTables, extent: Extent) -> HashMap<SocketAddr, f64> {
    let mut parts = HashMap::new();
    for slot in extent.slots..extent.slots + extent.count {
        let backend = tables.backends[&tables.slots[&slot]];
        let ip: [u8; 4] = backend.addr[..4].try_into().unwrap();
        let at = SocketAddr::new(ip.into(), u16::from_be_bytes(backend.port));
        *parts.entry(at).or_default() += 1.0 / f64::from(extent.count);
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn compile_and_the_programs_agree(objects in cluster()) {
        let mut state = State::new();
        for (kind, object) in &objects {
            state.put(context().decode(*kind, &object.to_string()).unwrap());
        }
        let keys: Vec<ServiceKey> = (0..3).map(|n| ServiceKey::new("ns", format!("s{n}"))).collect();
        let all: Vec<_> = keys.iter().map(|key| state.compile(&context(), key).unwrap()).collect();
        let mut plane = Recording::default();
        let applied = plane.reconcile(&mut all.iter()).unwrap();
        prop_assert!(applied.failed.is_empty() && applied.problems.is_empty(), "{:?}", applied);
        let mut owner: HashMap<FrontendKey, &ServiceKey> = HashMap::new();
        for service in &all {
            for frontend in &service.frontends {
                owner.insert(frontend.key, &service.key);
            }
        }

        // The parts that the slots give are those of the weights.
        for service in &all {
            for frontend in &service.frontends {
                let tuple = Tuple { addr: frontend.key.addr, port: frontend.key.port, protocol: frontend.key.protocol.number() };
                let value = plane.tables.frontends[&tuple];
                let outside = if value.flags & frontend_flags::SPLIT == 0 { value.inside } else { value.outside };
                for (from, extent) in [(From::Inside, value.inside), (From::Outside, outside)] {
                    let why = state.explain(&context(), &service.key, &frontend.key, from, None).unwrap();
                    let got = parts(&plane.tables, extent);
                    prop_assert_eq!(got.len(), why.considered.iter().filter(|c| c.share > 0.0).count());
                    for c in why.considered.iter().filter(|c| c.share > 0.0) {
                        let part = got.get(&SocketAddr::new(c.backend.addr, c.backend.port)).copied().unwrap_or(0.0);
                        // A table for picks by hash gives each its first slot before weights count.
                        prop_assert!((part - c.share).abs() <= 0.02, "{} instead of {}", part, c.share);
                    }
                }
            }
        }

        let mut targets: Vec<(IpAddr, u16, Protocol)> = owner.keys().map(|k| (k.addr, k.port, k.protocol)).collect();
        for (addr, port) in [("10.96.0.1", 81), ("10.96.9.9", 80), (NODE, 31000), ("198.51.100.1", 81), ("192.0.2.77", 80)] {
            targets.extend([Protocol::TCP, Protocol::UDP].map(|p| (addr.parse().unwrap(), port, p)));
        }
        for (client, program, from) in CLIENTS {
            let source: IpAddr = client.parse().unwrap();
            for (addr, port, protocol) in &targets {
                let key = FrontendKey { addr: *addr, port: *port, protocol: *protocol };
                let why = owner.get(&key).map(|s| state.explain(&context(), s, &key, from, Some(source)).unwrap());
                let mut maps = maps(&plane.tables);
                for number in 40000..40008 {
                    let to = SocketAddr::new(*addr, *port);
                    let got = send(&mut maps, program, SocketAddr::new(source, number), to, *protocol == Protocol::TCP);
                    let agrees = match (&why, &got) {
                        (Some(why), Got::To(backend)) => {
                            why.outcome == Outcome::Translated
                                && why.considered.iter().any(|c| {
                                    c.share > 0.0 && SocketAddr::new(c.backend.addr, c.backend.port) == *backend
                                })
                        }
                        (Some(why), Got::Refused) => why.outcome == Outcome::Refused,
                        (Some(why), Got::DroppedNoLocal) => why.outcome == Outcome::DroppedNoLocal,
                        (Some(why), Got::DroppedSource) => why.outcome == Outcome::DroppedSource,
                        (None, Got::RefusedPort) => owner.keys().any(|k| k.addr == *addr) && addr.to_string().starts_with("10.96."),
                        (None, Got::DroppedUnallocated) => {
                            addr.to_string().starts_with("10.96.") && !owner.keys().any(|k| k.addr == *addr)
                        }
                        (None, Got::Untouched) => !addr.to_string().starts_with("10.96."),
                        _ => false,
                    };
                    prop_assert!(agrees, "{} at {:?} to {} {:?}: {:?}, and compile says {:#?}", client, program, to, protocol, got, why);
                }
            }
        }
        // All kinds took part.
        let kinds = all.iter().flat_map(|s| &s.frontends).filter(|f| f.kind == FrontendKind::NodePort).count();
        prop_assert!(kinds >= 3);
    }
}
