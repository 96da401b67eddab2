//! The programs' answers against the worker's, byte for byte.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use eastwest_abi::names::{Answer, Question, word};
use eastwest_abi::{Addr4, Addr6};
use eastwest_compile::{CompiledService, DnsEndpoint, DnsService, ServiceKey};
use eastwest_model::{DnsRecord, DnsRecordType};
use eastwest_packet::Verdict as Packets;
use eastwest_packet::host::{Carries, Hook, HostMaps, HostPacket, Program, Spec, check, run};
use proptest::prelude::*;

use super::*;
use crate::engine::{Engine, Verdict, Worker};
use crate::{Corefile, ForwardOptions, Forwarder, IndexOptions, Metrics, Resolver, ServerOptions};

/// The table, as the kernel has it.
#[derive(Default)]
struct Table {
    answers: Mutex<HashMap<Question, Answer>>,
    serial: Mutex<u32>,
}

impl AnswerTable for Table {
    fn put(&self, name: &[u8], qtype: u16, answer: &Published) {
        let question = Question::new(name, qtype).unwrap();
        let Published { counts, data, serial_at, udp_payload } = answer;
        let answer = Answer::new(*counts, data, *serial_at, *udp_payload).unwrap();
        self.answers.lock().unwrap().insert(question, answer);
    }

    fn remove(&self, name: &[u8], qtype: u16) {
        let question = Question::new(name, qtype).unwrap();
        assert!(self.answers.lock().unwrap().remove(&question).is_some(), "removed once");
    }

    fn clear(&self) {
        self.answers.lock().unwrap().clear();
    }

    fn set_serial(&self, serial: u32) {
        *self.serial.lock().unwrap() = serial;
    }
}

struct World {
    resolver: Arc<Resolver>,
    table: Arc<Table>,
}

impl World {
    fn new() -> Self {
        let index = Index::new(IndexOptions::default()).unwrap();
        let metrics = Metrics::new();
        let forwarder = Forwarder::new(ForwardOptions::default(), metrics.clone());
        let resolver = Resolver::new(Arc::new(index), forwarder, metrics);
        let table = Arc::new(Table::default());
        resolver.publish(table.clone(), &ServerOptions::default());
        Self { resolver, table }
    }

    fn put(&self, name: &str, dns: Option<DnsService>) {
        let key = ServiceKey::new("default", name);
        let service = dns.map(|dns| CompiledService { key: key.clone(), frontends: Vec::new(), dns });
        self.resolver.index.apply(&key, service.as_ref());
    }

    fn worker(&self) -> Worker {
        let metrics = self.resolver.metrics.clone();
        let counters = metrics.worker("10.96.0.10:53".parse().unwrap(), Transport::Udp);
        let limits = Limits { udp: ServerOptions::default().udp_payload() };
        let engine = Engine { resolver: self.resolver.clone(), limits, idle: 100 };
        Worker::new(Arc::new(engine), Transport::Udp, counters)
    }

    fn maps(&self) -> HostMaps {
        let mut maps = HostMaps::default();
        maps.names.servers4[1] = Addr4(u32::from_ne_bytes([10, 96, 0, 10]));
        maps.names.servers6[0] = Addr6([0xfd00_0010_u32.to_be(), 0x0096_0000_u32.to_be(), 0, 10u32.to_be()]);
        maps.config.flags |= eastwest_abi::config_flags::NAMES;
        maps.answering = true;
        maps.answers = self.table.answers.lock().unwrap().clone();
        maps.words[word::BEAT as usize] = u64::from(maps.clock) << 24;
        maps.words[word::SERIAL as usize] = (*self.table.serial.lock().unwrap()).into();
        maps
    }

    /// What the table holds, in words.
    fn published(&self) -> Vec<String> {
        let answers = self.table.answers.lock().unwrap();
        let mut lines: Vec<_> = answers
            .iter()
            .map(|(q, a)| {
                let name: Vec<u8> = q.name.iter().flat_map(|w| w.to_ne_bytes()).collect();
                format!("{} {} {}", crate::wire::presentation(&name), q.qtype, a.answers)
            })
            .collect();
        lines.sort();
        lines
    }
}

fn cluster_ip(ips: &[&str]) -> DnsService {
    let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    DnsService::ClusterIp { ips, ports: Vec::new(), endpoints: Vec::new() }
}

fn headless(ips: &[&str]) -> DnsService {
    let endpoint =
        |ip: &&str| DnsEndpoint { addr: ip.parse().unwrap(), hostname: None, ports: Vec::new().into() };
    DnsService::Headless { endpoints: ips.iter().map(endpoint).collect() }
}

fn record(name: &str, type_: DnsRecordType, value: &str) -> DnsRecord {
    let mut record = DnsRecord::default();
    record.spec.name = name.into();
    record.spec.type_ = type_;
    record.spec.values = vec![value.to_owned()];
    record
}

fn sample() -> World {
    let world = World::new();
    world.put("web", Some(cluster_ip(&["10.96.0.1", "fd00:10:96::1"])));
    world.put("v4", Some(cluster_ip(&["10.96.0.2"])));
    world.put("one", Some(headless(&["10.244.1.2"])));
    world.put("many", Some(headless(&["10.244.1.2", "10.244.1.3"])));
    world.put("none", Some(headless(&[])));
    world.put("away", Some(DnsService::ExternalName { target: "v4.default.svc.cluster.local".into() }));
    world.put(&"l".repeat(63), Some(cluster_ip(&["10.96.0.3"])));
    let key = ServiceKey::new("n".repeat(63), "l".repeat(63));
    let dns = cluster_ip(&["10.96.0.4"]);
    let service = CompiledService { key: key.clone(), frontends: Vec::new(), dns };
    world.resolver.index.apply(&key, Some(&service));
    assert_eq!(world.published(), [""; 0], "nothing before everything is known");
    world.resolver.index.set_synced(true);
    world
}

#[test]
fn what_is_published() {
    let world = sample();
    let long = "l".repeat(63);
    let at =
        |name: &str, qtype: u16, answers: u8| format!("{name}.default.svc.cluster.local. {qtype} {answers}");
    let mut wanted = vec![
        at(&long, 1, 1),
        at(&long, 28, 0),
        at("many", 28, 0),
        at("one", 1, 1),
        at("one", 28, 0),
        at("v4", 1, 1),
        at("v4", 28, 0),
        at("web", 1, 1),
        at("web", 28, 1),
    ];
    assert_eq!(world.published(), wanted);

    // A second endpoint: the order of the two is drawn. A record at the name: it has a say.
    world.put("one", Some(headless(&["10.244.1.2", "10.244.1.4"])));
    let record = record("v4.default.svc.cluster.local", DnsRecordType::AAAA, "fd00::1");
    world.resolver.index.apply_record("default", "r", Some(&record)).unwrap();
    wanted.retain(|line| *line != at("one", 1, 1));
    *wanted.iter_mut().find(|line| **line == at("v4", 28, 0)).unwrap() = at("v4", 28, 1);
    assert_eq!(world.published(), wanted);
    world.resolver.index.apply_record("default", "r", None).unwrap();
    *wanted.iter_mut().find(|line| **line == at("v4", 28, 1)).unwrap() = at("v4", 28, 0);
    assert_eq!(world.published(), wanted);

    world.put("web", None);
    wanted.retain(|line| !line.starts_with("web."));
    assert_eq!(world.published(), wanted);
    world.resolver.index.set_synced(false);
    assert_eq!(world.published(), [""; 0]);
}

#[test]
fn a_plugin_that_has_a_say_keeps_its_names() {
    for (plugins, published) in [
        ("cache 30", true),
        ("bufsize 1000", true),
        ("loadbalance", true),
        ("log", false),
        ("acl {\n allow type A net 10.0.0.0/8\n}", false),
        ("rewrite name web.default.svc.cluster.local v4.default.svc.cluster.local", false),
        ("rewrite name www.example.test v4.default.svc.cluster.local", true),
        ("hosts {\n 192.0.2.1 web.default.svc.cluster.local\n fallthrough\n}", false),
        ("template IN A default.svc.cluster.local {\n rcode REFUSED\n}", false),
        ("header {\n response clear ra\n}", false),
        ("minimal", false),
    ] {
        let world = sample();
        let text = format!(".:53 {{\n kubernetes cluster.local\n {plugins}\n}}\n");
        let environment = crate::Environment::default();
        let corefile = Corefile::parse(&text, std::path::Path::new("/"), &environment)
            .unwrap_or_else(|e| panic!("{plugins}: {e}"));
        world.resolver.configure(Some(&corefile), crate::Access::open(), &environment).unwrap();
        let found = world.published().iter().any(|line| line == "web.default.svc.cluster.local. 1 1");
        assert_eq!(found, published, "{plugins}");
    }
}

/// A question as it may come, and whether it is one of the plainest.
#[derive(Clone, Debug)]
struct Asking {
    message: Vec<u8>,
    plain: bool,
}

fn any_asking() -> impl Strategy<Value = Asking> {
    const NAMES: [&str; 12] = [
        "web.default.svc.cluster.local",
        "v4.default.svc.cluster.local",
        "one.default.svc.cluster.local",
        "many.default.svc.cluster.local",
        "none.default.svc.cluster.local",
        "away.default.svc.cluster.local",
        "LONG.default.svc.cluster.local",
        "LONG.NAMESPACE.svc.cluster.local",
        "wep.default.svc.cluster.local",
        "default.svc.cluster.local",
        "a.web.default.svc.cluster.local",
        "",
    ];
    let name = proptest::sample::select(&NAMES[..])
        .prop_map(|name| name.replace("LONG", &"l".repeat(63)).replace("NAMESPACE", &"n".repeat(63)));
    let qtype = prop_oneof![4 => Just(1u16), 4 => Just(28u16), 1 => any::<u16>()];
    let qclass = prop_oneof![9 => Just(1u16), 1 => any::<u16>()];
    let flags =
        prop_oneof![4 => Just([1u8, 0]), 2 => Just([1, 0x20]), 1 => Just([0, 0x10]), 1 => any::<[u8; 2]>()];
    let edns = prop_oneof![
        3 => Just(None),
        3 => (512u16.., any::<bool>()).prop_map(|(size, d)| Some((size, [0, 0, u8::from(d) << 7, 0], Vec::new()))),
        1 => (any::<u16>(), any::<[u8; 4]>()).prop_map(|(size, ttl)| Some((size, ttl, Vec::new()))),
        1 => (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(size, data)| {
            let option = [&[0, 12, 0, data.len() as u8][..], &data].concat();
            Some((size, [0; 4], option))
        }),
    ];
    let tail = prop_oneof![9 => Just(Vec::new()), 1 => proptest::collection::vec(any::<u8>(), 0..9)];
    let odd = proptest::option::weighted(0.1, (0usize..200, any::<u8>()));
    (any::<[u8; 2]>(), flags, name, any::<u64>(), qtype, qclass, edns, tail, odd).prop_map(
        |(id, flags, name, case, qtype, qclass, edns, tail, odd)| {
            let mut message = [&id[..], &flags, &[0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]].concat();
            let mut wire = crate::wire::encode_name(&name).unwrap();
            for (i, byte) in wire.iter_mut().enumerate() {
                if case >> (i % 64) & 1 == 1 {
                    byte.make_ascii_uppercase();
                }
            }
            message.extend(wire);
            message.extend([qtype.to_be_bytes(), qclass.to_be_bytes()].concat());
            let mut plain =
                matches!(flags, [1, 0 | 0x20] | [0, 0x10]) && matches!(qtype, 1 | 28) && qclass == 1;
            if let Some((size, ttl, data)) = edns {
                message.extend([0, 0, 41]);
                message.extend(size.to_be_bytes());
                message.extend(ttl);
                message.extend((data.len() as u16).to_be_bytes());
                plain &= matches!(ttl, [0, 0, 0 | 0x80, 0]) && data.is_empty();
                message.extend(data);
            }
            plain &= tail.is_empty() && odd.is_none();
            message.extend(tail);
            if let Some((at, byte)) = odd {
                let at = at % message.len();
                message[at] = byte;
            }
            Asking { message, plain }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Every answer that the programs give is the worker's to the byte, on a packet that is right, whatever kind of checksum
    /// the question had; and the plainest questions for what is published are answered by them.
    #[test]
    fn the_same_bytes(
        asking in any_asking(),
        ipv6 in any::<bool>(),
        checksum in 0u8..3,
        hook in prop_oneof![Just(Hook::Xdp), Just(Hook::Tc { partial: true }), Just(Hook::Tc { partial: false })],
        port in 1024u16..,
    ) {
        thread_local!(static WORLD: World = sample());
        WORLD.with(|world| {
            let (server, client): (IpAddr, IpAddr) = if ipv6 {
                ("fd00:10:96::a".parse().unwrap(), "fd00:10:244::9".parse().unwrap())
            } else {
                ([10, 96, 0, 10].into(), [10, 244, 1, 9].into())
            };
            let (from, to) = (SocketAddr::new(client, port), SocketAddr::new(server, 53));
            let partial = checksum == 1;
            let nosum = checksum == 2 && !ipv6;
            let mut spec: Spec = format!("udp {from} > {to}").parse().unwrap();
            (spec.payload, spec.partial, spec.nosum) = (asking.message.clone(), partial, nosum);
            assert_eq!(spec.carries, Carries::Udp);
            let question = spec.bytes();
            let mut packet = HostPacket::new(&question, hook);
            let mut maps = world.maps();
            let verdict = run(Program::PodIngress, &mut maps, &mut packet);

            let mut slow = Vec::new();
            let replied = matches!(world.worker().handle(&asking.message, from, &mut slow), Verdict::Reply);
            let name = &asking.message[12..];
            let known = Request::parse(&asking.message);
            let in_table = match &known {
                Request::Query(q) => Question::new(q.name.wire(), q.qtype).is_some_and(|q| maps.answers.contains_key(&q)),
                _ => false,
            };
            match verdict {
                Packets::Back => {
                    prop_assert!(replied);
                    let wanted = Spec { from: to, to: from, payload: slow.clone(), partial, nosum: false, ..spec };
                    let mut seen = packet.bytes().to_vec();
                    if !ipv6 {
                        // No identification, as the packet is not to be fragmented.
                        let words = seen[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
                        let sum: u32 = words.sum();
                        prop_assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
                        for range in [18..20, 24..26] {
                            seen[range.clone()].copy_from_slice(&wanted.bytes()[range]);
                        }
                    }
                    prop_assert_eq!(check(&seen, &wanted), Ok(()));
                    prop_assert_eq!(&packet.bytes()[packet.bytes().len() - slow.len()..], &slow[..]);
                    prop_assert_eq!(&packet.bytes()[..6], &question[6..12]);
                    let counted: u64 = maps.name_counts.iter().map(|c| c.a + c.aaaa).sum();
                    prop_assert_eq!(counted, 1);
                }
                Packets::Pass => {
                    prop_assert_eq!(packet.bytes(), &question[..], "untouched");
                    prop_assert!(!(asking.plain && in_table), "{:?} is answered", name);
                }
                other => prop_assert!(false, "{:?}", other),
            }
            Ok(())
        })?;
    }

    /// After any changes the table holds what that of the end state alone would.
    #[test]
    fn changes_leave_no_trace(
        steps in proptest::collection::vec((0usize..4, 0u8..7), 0..30),
    ) {
        let (world, fresh) = (World::new(), World::new());
        world.resolver.index.set_synced(true);
        let mut last = HashMap::new();
        for (name, kind) in steps {
            let dns = match kind {
                0 => None,
                1 => Some(cluster_ip(&["10.96.0.1"])),
                2 => Some(cluster_ip(&["fd00:10:96::1", "10.96.0.9"])),
                3 => Some(headless(&[])),
                4 => Some(headless(&["10.244.0.1"])),
                5 => Some(headless(&["10.244.0.1", "10.244.0.2", "fd00::7"])),
                _ => Some(DnsService::ExternalName { target: "s0.default.svc.cluster.local".into() }),
            };
            world.put(&format!("s{name}"), dns.clone());
            last.insert(name, dns);
        }
        for (name, dns) in last {
            fresh.put(&format!("s{name}"), dns);
        }
        fresh.resolver.index.set_synced(true);
        prop_assert_eq!(&*world.table.answers.lock().unwrap(), &*fresh.table.answers.lock().unwrap());
    }
}
