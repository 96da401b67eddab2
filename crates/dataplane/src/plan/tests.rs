use std::net::{Ipv4Addr, Ipv6Addr};

use eastwest_compile::{Backend as Target, DnsService, FrontendKey, FrontendKind};
use eastwest_model::Protocol;
use proptest::prelude::*;

use super::*;
use crate::MemoryTables;

const LIMITS: Limits =
    Limits { frontends: 1000, endpoints: 1000, backends: 1000, slots: 20_000, sources: 1000 };

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, last))
}

fn pod(last: u8) -> Target {
    Target {
        addr: IpAddr::V4(Ipv4Addr::new(10, 244, 0, last)),
        port: 8080,
        local: last.is_multiple_of(2),
        weight: 1,
    }
}

fn pod6(last: u8) -> Target {
    let addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from(last));
    Target { addr: IpAddr::V6(addr), port: 8080, local: false, weight: 1 }
}

fn frontend(addr: IpAddr, port: u16, backends: &[Target]) -> Frontend {
    Frontend::cluster_ip(FrontendKey { addr, port, protocol: Protocol::TCP }, port.to_string(), backends)
}

fn service(name: &str, frontends: Vec<Frontend>) -> CompiledService {
    CompiledService {
        key: key(name),
        frontends,
        dns: DnsService::ClusterIp { ips: vec![], ports: vec![], endpoints: vec![] },
    }
}

fn tcp(addr: IpAddr, port: u16) -> Tuple {
    Tuple { addr, port, protocol: 6 }
}

/// Tables that check at every write that whatever a program could read now is whole.
struct Checked {
    tables: MemoryTables,
    now: Duration,
    /// Slots that a frontend showed, and until when a program may still be reading them.
    seen: HashMap<u32, Duration>,
}

impl Checked {
    fn new() -> Self {
        Self { tables: MemoryTables::default(), now: Duration::ZERO, seen: HashMap::new() }
    }

    fn check(&self) {
        for tuple in self.tables.frontends.keys() {
            for read in [self.tables.backends_of(*tuple), self.tables.outside_backends_of(*tuple)] {
                if let Some(Err(broken)) = read {
                    panic!("{broken}");
                }
            }
        }
    }

    fn hide(&mut self, key: Tuple) {
        if let Some(old) = self.tables.frontends.get(&key) {
            for extent in Plan::extents_of(old) {
                for slot in extent.offset..extent.offset + extent.len {
                    self.seen.insert(slot, self.now + QUARANTINE);
                }
            }
        }
    }
}

impl Tables for Checked {
    fn write_backend(&mut self, id: u32, backend: &abi::Backend) {
        assert_ne!(id, 0);
        if let Some(old) = self.tables.backends.get(&id) {
            let reuse = (old.addr, old.port) != (backend.addr, backend.port);
            assert!(!reuse || old.generation != backend.generation, "reuse of {id} without a new generation");
            assert!(!reuse || old.flags == 0, "backend {id} replaced while live");
        }
        self.tables.write_backend(id, backend);
        self.check();
    }

    fn write_slot(&mut self, slot: u32, backend: u32) {
        assert!(self.seen.get(&slot).is_none_or(|until| *until <= self.now), "slot {slot} did not rest");
        for (key, value) in &self.tables.frontends {
            for extent in Plan::extents_of(value) {
                let slots = extent.offset..extent.offset + extent.len;
                assert!(!slots.contains(&slot), "{key} sees slot {slot} change");
            }
        }
        self.tables.write_slot(slot, backend);
    }

    fn put_frontend(&mut self, key: Tuple, value: &abi::Frontend) -> Result<(), Error> {
        self.hide(key);
        self.tables.put_frontend(key, value)?;
        self.check();
        if let Some(Ok(backends)) = self.tables.backends_of(key) {
            for (addr, port) in backends {
                assert!(self.tables.is_endpoint(Tuple { addr, port, protocol: key.protocol }));
            }
        }
        Ok(())
    }

    fn remove_frontend(&mut self, key: Tuple) -> Result<(), Error> {
        self.hide(key);
        self.tables.remove_frontend(key)
    }

    fn put_endpoint(&mut self, key: Tuple, backend: u32) -> Result<(), Error> {
        self.tables.put_endpoint(key, backend)?;
        assert!(self.tables.is_endpoint(key), "{key} points at another backend");
        Ok(())
    }

    fn remove_endpoint(&mut self, key: Tuple) -> Result<(), Error> {
        self.tables.remove_endpoint(key)
    }

    fn put_source(&mut self, list: u32, range: IpNet) -> Result<(), Error> {
        assert!(!self.tables.sources.contains(&(list, range)), "{range} written twice");
        self.tables.put_source(list, range)
    }

    fn remove_source(&mut self, list: u32, range: IpNet) -> Result<(), Error> {
        self.tables.remove_source(list, range)
    }
}

fn each_once(backends: &[(IpAddr, u16)]) -> Vec<(IpAddr, u16)> {
    backends.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The oracle: tables say what the desired services say, and nothing else.
fn assert_holds(tables: &MemoryTables, desired: &BTreeMap<String, CompiledService>, plan: &Plan) {
    let mut virtual_ips = HashSet::new();
    let mut ports = HashSet::new();
    let mut endpoints = HashSet::new();
    for service in desired.values() {
        for frontend in &service.frontends {
            let tuple = Tuple::of(frontend);
            ports.insert(tuple);
            // Two services may claim one frontend; then either may have it.
            let claims: Vec<&Frontend> = desired
                .values()
                .flat_map(|service| &service.frontends)
                .filter(|other| Tuple::of(other) == tuple)
                .collect();
            let of = |targets: &eastwest_compile::Targets| {
                targets.backends.iter().map(|backend| (backend.addr, backend.port)).collect::<Vec<_>>()
            };
            let got = tables.backends_of(tuple).expect("frontend there").expect("whole");
            let outside = tables.outside_backends_of(tuple).expect("frontend there").expect("whole");
            let value = tables.frontends[&tuple];
            let ranges: BTreeSet<IpNet> = tables
                .sources
                .iter()
                .filter(|(list, _)| *list == value.service && value.flags & abi::frontend_flags::SOURCES != 0)
                .map(|(_, range)| *range)
                .collect();
            assert!(
                claims.iter().any(|claim| of(&claim.inside) == got
                    && of(&claim.outside) == each_once(&outside)
                    && claim.source_ranges.iter().copied().collect::<BTreeSet<_>>() == ranges),
                "{tuple} has {got:?} inside, {outside:?} outside, for {ranges:?}"
            );
            let maglev = value.flags & abi::frontend_flags::MAGLEV != 0;
            assert_eq!(maglev, outside.len() > each_once(&outside).len());
            assert_eq!(got != outside, value.flags & abi::frontend_flags::SPLIT != 0);
            match frontend.kind {
                FrontendKind::ClusterIp => virtual_ips.insert(tuple.addr),
                _ => true,
            };
            let got = got.into_iter().chain(outside);
            endpoints.extend(got.map(|(addr, port)| Tuple { addr, port, protocol: tuple.protocol }));
        }
    }
    let services: HashSet<u32> = ports.iter().map(|port| tables.frontends[port].service).collect();
    assert!(tables.sources.iter().all(|(list, _)| services.contains(list)), "source ranges leak");
    let expected: HashSet<Tuple> =
        ports.into_iter().chain(virtual_ips.into_iter().map(Tuple::address)).collect();
    assert_eq!(tables.frontends.keys().copied().collect::<HashSet<_>>(), expected);
    assert_eq!(tables.endpoints.keys().copied().collect::<HashSet<_>>(), endpoints);
    assert!(endpoints.iter().all(|endpoint| tables.is_endpoint(*endpoint)));
    let live = tables.backends.values().filter(|backend| backend.flags != 0).count();
    let stats = plan.stats();
    assert_eq!(stats.backends.used as usize, live, "backends leak");
    let extents: HashMap<u32, u32> = tables
        .frontends
        .values()
        .flat_map(Plan::extents_of)
        .map(|extent| (extent.offset, extent.len))
        .collect();
    assert_eq!(stats.slots.used, extents.values().sum::<u32>(), "slots leak");
    assert_eq!(
        (stats.frontends4.used + stats.frontends6.used) as usize,
        tables.frontends.len(),
        "frontends miscounted"
    );
    assert_eq!((stats.endpoints4.used + stats.endpoints6.used) as usize, tables.endpoints.len());
}

fn any_service(name: &'static str) -> impl Strategy<Value = CompiledService> {
    let backends = || prop::collection::btree_set(0u8..8, 0..4);
    let one = (0u8..4, 80u16..83, backends(), prop::option::of(backends()), any::<bool>());
    prop::collection::vec(one, 0..4).prop_map(move |list| {
        let mut seen = HashSet::new();
        let frontends = list
            .into_iter()
            .filter(|(addr, port, ..)| seen.insert((*addr, *port)))
            .map(|(addr, port, inside, outside, ranges)| {
                let pods = |list: BTreeSet<u8>| list.into_iter().map(pod).collect::<Vec<_>>();
                let mut made = frontend(v4(addr), port, &pods(inside));
                // Addresses 2 and 3 are load balancers'. The same port of a Service has the same ranges.
                if addr >= 2 {
                    made.kind = FrontendKind::LoadBalancer;
                    if let Some(outside) = outside {
                        made.outside.backends = pods(outside).into();
                    }
                }
                if ranges && addr == 3 {
                    let range = format!("192.0.{port}.0/24").parse().expect("a range");
                    made.source_ranges = [range].into();
                }
                made
            })
            .collect();
        service(name, frontends)
    })
}

#[derive(Clone, Debug)]
enum Step {
    Apply(CompiledService),
    Remove(&'static str),
    Restart,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    prop_oneof![
        6 => prop_oneof![any_service("a"), any_service("b"), any_service("c")].prop_map(Step::Apply),
        2 => prop::sample::select(&NAMES[..]).prop_map(Step::Remove),
        1 => Just(Step::Restart),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any history leaves exactly what is desired, and no read on the way is broken.
    #[test]
    fn any_history_ends_as_desired(steps in prop::collection::vec(step(), 1..25)) {
        let mut checked = Checked::new();
        let mut plan = Plan::new(LIMITS, Rules::default());
        let mut desired: BTreeMap<String, CompiledService> = BTreeMap::new();
        for step in steps {
            let now = checked.now;
            match step {
                Step::Apply(service) => {
                    plan.apply(&mut checked, now, &service.key, Some(&service)).expect("room");
                    desired.insert(service.key.name.to_string(), service);
                }
                Step::Remove(name) => {
                    plan.apply(&mut checked, now, &key(name), None).expect("room");
                    desired.remove(name);
                }
                Step::Restart => {
                    let held = checked.tables.held();
                    plan = Plan::adopt(&mut checked, LIMITS, Rules::default(), held).expect("adopts");
                    checked.seen.clear();
                    plan.reconcile(&mut checked, now, &mut desired.values()).expect("reconciles");
                }
                Step::Wait => checked.now += QUARANTINE,
            }
            assert_holds(&checked.tables, &desired, &plan);
            // Said again, nothing is written.
            for service in desired.values() {
                let again = plan.apply(&mut checked, now, &service.key, Some(service)).expect("room");
                prop_assert_eq!(again.writes, 0);
            }
        }
    }

    /// Whatever bytes are in the maps, adopting them and reconciling ends as desired.
    #[test]
    fn adopts_rubbish(
        frontends in prop::collection::vec((0u8..3, 80u16..82, 0u32..4, 0u32..12, 0u32..4), 0..6),
        backends in prop::collection::vec((0u8..8, 0u32..8, 0u32..3), 0..8),
        slots in prop::collection::vec(0u32..10, 0..12),
        endpoints in prop::collection::vec((0u8..8, 0u32..9), 0..4),
        wanted in any_service("a"),
    ) {
        let mut tables = MemoryTables::default();
        for (addr, port, service, slots, count) in frontends {
            let inside = abi::Extent { slots, count };
            // Two extents, sometimes.
            let outside = if service == 2 { abi::Extent { slots: slots + 1, count } } else { inside };
            let value = abi::Frontend { service, inside, outside, ..abi::Frontend::default() };
            tables.frontends.insert(tcp(v4(addr), port), value);
        }
        for (id, (addr, flags, generation)) in (1..).zip(backends) {
            let value = abi::Backend {
                addr: wide(pod(addr).addr), port: 8080u16.to_be_bytes(), protocol: 6, flags, generation,
                ..abi::Backend::default()
            };
            tables.backends.insert(id, value);
        }
        tables.slots.extend((0..).zip(slots));
        for (addr, id) in endpoints {
            tables.endpoints.insert(tcp(pod(addr).addr, 8080), id);
        }
        let held = tables.held();
        let mut plan = Plan::adopt(&mut tables, LIMITS, Rules::default(), held).expect("adopts");
        plan.reconcile(&mut tables, Duration::ZERO, &mut std::iter::once(&wanted)).expect("reconciles");
        assert_holds(&tables, &BTreeMap::from([("a".to_owned(), wanted)]), &plan);
    }
}

#[test]
fn restart_writes_nothing_when_nothing_changed() {
    let services = [
        service("a", vec![frontend(v4(1), 80, &[pod(1), pod(2)]), frontend(v4(1), 443, &[])]),
        service("b", vec![frontend(v4(2), 80, &[pod(1), pod(3)])]),
    ];
    let mut tables = MemoryTables::default();
    let mut plan = Plan::new(LIMITS, Rules::default());
    plan.reconcile(&mut tables, Duration::ZERO, &mut services.iter()).expect("reconciles");
    let before = tables.clone();
    let held = tables.held();
    let mut plan = Plan::adopt(&mut tables, LIMITS, Rules::default(), held).expect("adopts");
    let applied = plan.reconcile(&mut tables, Duration::ZERO, &mut services.iter()).expect("reconciles");
    assert_eq!(applied.writes, 0);
    assert_eq!(before.backends, tables.backends);
}

#[test]
fn restart_keeps_ids_of_what_stays() {
    let mut tables = MemoryTables::default();
    let mut plan = Plan::new(LIMITS, Rules::default());
    let old = service("a", vec![frontend(v4(1), 80, &[pod(1), pod(2)])]);
    plan.apply(&mut tables, Duration::ZERO, &old.key, Some(&old)).expect("room");
    let service_id = tables.frontends[&tcp(v4(1), 80)].service;
    let id = tables.endpoints[&tcp(pod(2).addr, 8080)];
    let held = tables.held();
    let mut plan = Plan::adopt(&mut tables, LIMITS, Rules::default(), held).expect("adopts");
    let new = service("a", vec![frontend(v4(1), 80, &[pod(2), pod(3)])]);
    plan.reconcile(&mut tables, Duration::ZERO, &mut std::iter::once(&new)).expect("reconciles");
    assert_eq!(tables.endpoints[&tcp(pod(2).addr, 8080)], id);
    assert_eq!(tables.backends[&id].generation, 1);
    assert_eq!(tables.frontends[&tcp(v4(1), 80)].service, service_id);
}

#[test]
fn a_backend_of_two_services_is_two_backends_and_one_endpoint() {
    let mut tables = MemoryTables::default();
    let mut plan = Plan::new(LIMITS, Rules::default());
    for (name, addr) in [("a", 1), ("b", 2)] {
        let service = service(name, vec![frontend(v4(addr), 80, &[pod(1)])]);
        plan.apply(&mut tables, Duration::ZERO, &service.key, Some(&service)).expect("room");
    }
    assert_eq!((plan.stats().backends.used, tables.endpoints.len()), (2, 1));
    plan.apply(&mut tables, Duration::ZERO, &key("a"), None).expect("room");
    assert_eq!(tables.backends.values().filter(|backend| backend.flags != 0).count(), 1);
    assert!(tables.is_endpoint(tcp(pod(1).addr, 8080)));
}

#[test]
fn frontends_of_one_port_share_their_slots() {
    let mut tables = MemoryTables::default();
    let mut plan = Plan::new(LIMITS, Rules::default());
    let mut frontends = vec![frontend(v4(1), 80, &[pod(1), pod(2)]), frontend(v4(2), 80, &[pod(1), pod(2)])];
    let both = service("a", frontends.clone());
    plan.apply(&mut tables, Duration::ZERO, &both.key, Some(&both)).expect("room");
    assert_eq!(plan.stats().slots.used, 2);
    frontends.pop();
    let one = service("a", frontends);
    plan.apply(&mut tables, Duration::ZERO, &one.key, Some(&one)).expect("room");
    assert_eq!((plan.stats().slots.used, plan.stats().backends.used), (2, 2));
}

#[test]
fn without_backends_refused_or_dropped_as_wanted() {
    let (mut tables, mut plan) = (MemoryTables::default(), Plan::new(LIMITS, Rules::default()));
    const BOTH: u32 = abi::frontend_flags::DROP_INSIDE | abi::frontend_flags::DROP_OUTSIDE;
    let flags = |tables: &MemoryTables| tables.frontends[&tcp(v4(1), 80)].flags;
    for (backends, drop, wanted) in [
        (vec![], false, 0),
        (vec![], true, BOTH),
        (vec![pod(1)], false, 0),
        // The programs look at the flag first.
        (vec![pod(1)], true, 0),
        (vec![], true, BOTH),
        (vec![], false, 0),
    ] {
        let mut dropping = frontend(v4(1), 80, &backends);
        dropping.inside.drop = drop;
        dropping.outside.drop = drop;
        let web = service("web", vec![dropping]);
        plan.apply(&mut tables, Duration::ZERO, &web.key, Some(&web)).unwrap();
        assert_eq!(flags(&tables), wanted, "{} backends, drop {drop}", backends.len());
    }
}

#[test]
fn first_claim_stays_and_the_next_takes_over() {
    let mut tables = MemoryTables::default();
    let mut plan = Plan::new(LIMITS, Rules::default());
    let a = service("a", vec![frontend(v4(1), 80, &[pod(1)])]);
    let b = service("b", vec![frontend(v4(1), 80, &[pod(2)]), frontend(v4(1), 81, &[pod(2)])]);
    plan.apply(&mut tables, Duration::ZERO, &a.key, Some(&a)).expect("room");
    let applied = plan.apply(&mut tables, Duration::ZERO, &b.key, Some(&b)).expect("room");
    let conflict = "Service default/b: 10.96.0.1:80/TCP belongs to Service default/a already";
    assert_eq!(applied.problems, [conflict]);
    assert_eq!(plan.problems(), [conflict]);
    let backends = |tables: &MemoryTables| tables.backends_of(tcp(v4(1), 80)).expect("there").expect("whole");
    assert_eq!(backends(&tables), [(pod(1).addr, 8080)]);
    plan.apply(&mut tables, Duration::ZERO, &a.key, None).expect("room");
    assert_eq!(backends(&tables), [(pod(2).addr, 8080)]);
    assert!(plan.problems().is_empty());
    plan.apply(&mut tables, Duration::ZERO, &b.key, None).expect("room");
    assert!(tables.frontends.is_empty() && tables.endpoints.is_empty());
}

#[test]
fn full_tables_leave_the_service_as_it_was() {
    let small =
        |frontends, endpoints, backends, slots| Limits { frontends, endpoints, backends, slots, sources: 9 };
    let cases = [
        ("frontends", small(2, 9, 9, 9), abi::maps::FRONTENDS4, "capacityFrontends"),
        ("endpoints", small(9, 2, 9, 9), abi::maps::ENDPOINTS4, "capacityBackends"),
        ("backends", small(9, 9, 3, 9), abi::maps::BACKENDS, "capacityBackends"),
        ("slots", small(9, 9, 9, 3), abi::maps::SLOTS, "capacitySlots"),
    ];
    for (name, limits, full, setting_name) in cases {
        let mut tables = MemoryTables::default();
        let mut plan = Plan::new(limits, Rules::default());
        let first = service("a", vec![frontend(v4(1), 80, &[pod(1), pod(2)])]);
        plan.apply(&mut tables, Duration::ZERO, &first.key, Some(&first)).expect("room");
        let (before, stats) = (tables.clone(), plan.stats());
        let second = service("b", vec![frontend(v4(2), 80, &[pod(3), pod(4)])]);
        match plan.apply(&mut tables, Duration::ZERO, &second.key, Some(&second)) {
            Err(Error::Full { map, setting, .. }) => {
                assert_eq!((map, setting), (full, setting_name), "{name}")
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(before.frontends, tables.frontends, "{name}");
        assert_eq!(before.backends, tables.backends, "{name}");
        assert_eq!(stats, plan.stats(), "{name}");
        assert_eq!(plan.problems().len(), 1, "{name}");
        // Room comes free: the other is programmed by itself, once the freed has rested.
        plan.apply(&mut tables, Duration::ZERO, &first.key, None).expect("room");
        assert_eq!(plan.retry(&mut tables, Duration::from_millis(1)), Applied::default(), "{name}");
        assert!(plan.retry(&mut tables, QUARANTINE).failed.is_empty(), "{name}");
        assert!(tables.backends_of(tcp(v4(2), 80)).is_some(), "{name}");
        assert!(plan.problems().is_empty(), "{name}");
    }
}

/// A Maglev table takes hundreds of slots. Without room for it the Service is served all the same, and gets it later.
#[test]
fn no_room_for_a_maglev_table_is_no_failure() {
    let limits = Limits { frontends: 99, endpoints: 99, backends: 99, slots: 1200, sources: 9 };
    let mut tables = MemoryTables::default();
    let mut plan = Plan::new(limits, Rules::default());
    let balanced = |name: &str, host: u8| {
        let mut frontend = frontend(v4(host), 80, &[pod(1), pod(2)]);
        frontend.kind = FrontendKind::LoadBalancer;
        service(name, vec![frontend])
    };
    let is_maglev = |tables: &MemoryTables, host: u8| {
        tables.frontends[&tcp(v4(host), 80)].flags & abi::frontend_flags::MAGLEV != 0
    };
    let mut fit = Vec::new();
    while !plan.problems().iter().any(|problem| problem.contains("by chance")) {
        let host = fit.len() as u8 + 1;
        assert!(host < 50, "the table is never full");
        fit.push(balanced(&format!("s{host}"), host));
        let applied =
            plan.apply(&mut tables, Duration::ZERO, &fit[fit.len() - 1].key, fit.last()).expect("room");
        assert_eq!(applied.by_chance, !is_maglev(&tables, host));
    }
    let last = fit.len() as u8;
    assert!(last > 1 && is_maglev(&tables, 1));
    assert_eq!(tables.outside_backends_of(tcp(v4(last), 80)).expect("programmed").expect("whole").len(), 2);
    // It is programmed as wanted when room has come free, and by itself.
    plan.apply(&mut tables, Duration::ZERO, &fit[0].key, None).expect("room");
    plan.retry(&mut tables, QUARANTINE);
    assert!(is_maglev(&tables, last) && plan.problems().is_empty(), "{:?}", plan.problems());
    plan.apply(&mut tables, QUARANTINE, &fit[usize::from(last) - 1].key, None).expect("room");
    assert!(plan.problems().is_empty());
}

#[test]
fn a_refused_write_is_made_good_by_the_next() {
    let mut tables = MemoryTables::default();
    let mut plan = Plan::new(LIMITS, Rules::default());
    let old = service("a", vec![frontend(v4(1), 80, &[pod(1)]), frontend(v4(1), 81, &[pod(1)])]);
    plan.apply(&mut tables, Duration::ZERO, &old.key, Some(&old)).expect("room");
    let new = service("a", vec![frontend(v4(1), 80, &[pod(2)]), frontend(v4(2), 80, &[pod(2)])]);
    tables.refuse = Some(tcp(v4(2), 80));
    assert!(plan.apply(&mut tables, Duration::ZERO, &new.key, Some(&new)).is_err());
    assert!(matches!(tables.backends_of(tcp(v4(1), 81)), Some(Ok(_))));
    tables.refuse = None;
    plan.apply(&mut tables, Duration::ZERO, &new.key, Some(&new)).expect("room");
    assert_holds(&tables, &BTreeMap::from([("a".to_owned(), new)]), &plan);
}

#[test]
fn addresses_of_the_node_and_outside_the_ranges() {
    let mut tables = MemoryTables::default();
    let rules = Rules {
        skip: HashSet::from([v4(10)]),
        ranges: vec!["10.96.0.0/16".parse().expect("a range"), "fd00::/16".parse().expect("a range")],
        ..Rules::default()
    };
    let mut plan = Plan::new(LIMITS, rules);
    let outside: IpAddr = "192.0.2.1".parse().expect("an address");
    let six: IpAddr = "fd00::1".parse().expect("an address");
    let frontends = vec![
        frontend(v4(10), 53, &[pod(1)]),
        frontend(v4(1), 80, &[pod(1), pod6(9)]),
        frontend(outside, 80, &[pod(1)]),
        frontend(six, 80, &[pod6(1)]),
    ];
    let service = service("a", frontends);
    let applied = plan.apply(&mut tables, Duration::ZERO, &service.key, Some(&service)).expect("room");
    assert_eq!(applied.problems.len(), 1, "a backend of the other family is named: {:?}", applied.problems);
    let keys: HashSet<Tuple> = tables.frontends.keys().copied().collect();
    let expected =
        [tcp(v4(1), 80), Tuple::address(v4(1)), tcp(outside, 80), tcp(six, 80), Tuple::address(six)];
    assert_eq!(keys, HashSet::from(expected));
    assert_eq!(tables.frontends[&Tuple::address(six)].flags, abi::frontend_flags::ADDRESS);
}

#[test]
fn masquerading_all_is_of_virtual_addresses_and_can_be_switched() {
    let mut tables = MemoryTables::default();
    let mut external = frontend(v4(2), 80, &[pod(1)]);
    external.kind = FrontendKind::ExternalIp;
    let service = service("a", vec![frontend(v4(1), 80, &[pod(1)]), external]);
    for masquerade_all in [true, false] {
        let held = tables.held();
        let rules = Rules { masquerade_all, ..Rules::default() };
        let mut plan = Plan::adopt(&mut tables, LIMITS, rules, held).expect("adopts");
        plan.reconcile(&mut tables, Duration::ZERO, &mut [&service].into_iter()).expect("room");
        let marked = |last| tables.frontends[&tcp(v4(last), 80)].flags & abi::frontend_flags::MASQUERADE != 0;
        assert_eq!((marked(1), marked(2)), (masquerade_all, false));
    }
}

#[test]
fn others_stand_in_at_an_address_of_the_node() {
    let mut tables = MemoryTables::default();
    let rules = Rules {
        skip: HashSet::from([v4(10)]),
        ranges: vec!["10.96.0.0/16".parse().expect("a range")],
        ..Rules::default()
    };
    let mut plan = Plan::adopt(&mut tables, LIMITS, rules.clone(), Held::default()).expect("adopts");
    let address = |tables: &MemoryTables| tables.frontends.get(&Tuple::address(v4(10))).map(|f| f.flags);
    let dns = service("dns", vec![frontend(v4(10), 53, &[pod(1)]), frontend(v4(10), 9153, &[])]);
    plan.set_stand_in(true);
    plan.apply(&mut tables, Duration::ZERO, &dns.key, Some(&dns)).expect("room");
    let keys: HashSet<Tuple> = tables.frontends.keys().copied().collect();
    assert_eq!(keys, HashSet::from([tcp(v4(10), 53), Tuple::address(v4(10))]), "who has nobody is not asked");
    assert_eq!(
        address(&tables),
        Some(abi::frontend_flags::NODE),
        "no port is refused, as others come and go"
    );

    // An agent that begins finds it so, and it stays until the agent serves.
    let held = tables.held();
    let mut plan = Plan::adopt(&mut tables, LIMITS, rules, held).expect("adopts");
    plan.set_stand_in(true);
    let applied = plan.reconcile(&mut tables, Duration::ZERO, &mut [&dns].into_iter()).expect("reconciles");
    assert_eq!(applied.writes, 0);
    plan.set_stand_in(false);
    plan.apply(&mut tables, Duration::ZERO, &dns.key, Some(&dns)).expect("room");
    assert_eq!(tables.frontends.len(), 1);
    assert_eq!(address(&tables), Some(abi::frontend_flags::NODE));
}

#[test]
fn addresses_that_others_serve_are_left_alone() {
    let mut tables = MemoryTables::default();
    let rules = Rules {
        skip: HashSet::from([v4(10)]),
        ranges: vec!["10.96.0.0/16".parse().expect("a range")],
        ..Rules::default()
    };
    let flags =
        |tables: &MemoryTables, last| tables.frontends.get(&Tuple::address(v4(last))).map(|f| f.flags);
    let adopt = |tables: &mut MemoryTables| {
        let held = tables.held();
        Plan::adopt(tables, LIMITS, rules.clone(), held).expect("adopts")
    };
    // The node's own.
    let mut plan = adopt(&mut tables);
    assert_eq!(flags(&tables, 10), Some(abi::frontend_flags::NODE));
    // A Service of another proxy, and one of ours at the same address: ours counts.
    let mut others = service("others", vec![]);
    others.dns = DnsService::ClusterIp { ips: vec![v4(1), v4(2)], ports: vec![], endpoints: vec![] };
    let ours = service("ours", vec![frontend(v4(2), 80, &[pod(1)])]);
    for service in [&others, &ours] {
        plan.apply(&mut tables, Duration::ZERO, &service.key, Some(service)).expect("room");
    }
    assert_eq!(flags(&tables, 1), Some(abi::frontend_flags::NODE));
    assert_eq!(flags(&tables, 2), Some(abi::frontend_flags::ADDRESS));
    let mut plan = adopt(&mut tables);
    let applied =
        plan.reconcile(&mut tables, Duration::ZERO, &mut [&others, &ours].into_iter()).expect("reconciles");
    assert_eq!(applied.writes, 0);
    plan.apply(&mut tables, Duration::ZERO, &ours.key, None).expect("room");
    assert_eq!(flags(&tables, 2), Some(abi::frontend_flags::NODE));
    plan.apply(&mut tables, Duration::ZERO, &others.key, None).expect("room");
    assert_eq!((flags(&tables, 1), flags(&tables, 2)), (None, None));
    assert_eq!((plan.stats().frontends4.used, tables.frontends.len()), (1, 1));
}

#[test]
fn other_ports_of_a_node_or_load_balancer_are_not_ours() {
    for (kind, wanted) in [
        (FrontendKind::ClusterIp, 2),
        (FrontendKind::NodePort, 1),
        (FrontendKind::ExternalIp, 1),
        (FrontendKind::LoadBalancer, 1),
    ] {
        let mut tables = MemoryTables::default();
        let mut plan = Plan::new(LIMITS, Rules::default());
        let mut one = frontend(v4(1), 80, &[pod(1)]);
        one.kind = kind;
        let service = service("a", vec![one]);
        plan.apply(&mut tables, Duration::ZERO, &service.key, Some(&service)).expect("room");
        assert_eq!(tables.frontends.len(), wanted, "{kind:?}");
        plan.apply(&mut tables, Duration::ZERO, &service.key, None).expect("room");
        assert!(tables.frontends.is_empty(), "{kind:?}");
    }
}
