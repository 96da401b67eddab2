//! The agent's core over a recording dataplane, fed by the protocol's state machine as by a real stream.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use eastwest_agent::core::Core;
use eastwest_agent::metrics::SyncMetrics;
use eastwest_agent::snapshot::Snapshots;
use eastwest_client::Received;
use eastwest_client::sync::{Machine, Position};
use eastwest_compile::{CompiledService, Context, ServiceKey};
use eastwest_dataplane::plan::Tuple;
use eastwest_dataplane::{Applied, Capacities, Dataplane, Error, Recording, Stats};
use eastwest_dns::{Index, IndexOptions};
use eastwest_model::stream::Message;
use eastwest_model::{Kind, Revision};
use proptest::prelude::*;
use serde_json::{Value, json};

fn context() -> Context {
    Context {
        node: "node-1".into(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        node_port_addresses: Vec::new(),
        pod_names: false,
    }
}

fn service(n: u32, selector: &str) -> Value {
    let ip = format!("10.96.{}.{}", n / 200, n % 200 + 1);
    json!({
        "metadata": {"namespace": "ns", "name": format!("s{n}"), "annotations": {"v": selector}},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]},
    })
}

fn slice(n: u32, endpoints: &[u8]) -> Value {
    let endpoints: Vec<Value> =
        endpoints.iter().map(|e| json!({"addresses": [format!("10.244.{}.{e}", n % 250)]})).collect();
    json!({
        "metadata": {"namespace": "ns", "name": format!("s{n}-x"), "labels": {"kubernetes.io/service-name": format!("s{n}")}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
    })
}

fn put(revision: u64, kind: Kind, object: &Value) -> Message {
    let object = serde_json::value::to_raw_value(object).unwrap();
    Message::Put { revision: Revision(revision), kind, object }
}

fn delete(revision: u64, kind: Kind, name: &str) -> Message {
    let namespace = if kind.namespaced() { "ns" } else { "" };
    Message::Delete { revision: Revision(revision), kind, namespace: namespace.into(), name: name.into() }
}

fn hello(revision: u64) -> Message {
    Message::Hello { store_id: "s".into(), revision: Revision(revision) }
}

fn synced(revision: u64) -> Message {
    Message::Synced { revision: Revision(revision) }
}

fn bookmark(revision: u64) -> Message {
    Message::Bookmark { revision: Revision(revision) }
}

/// A core and the connection that feeds it.
struct Bench<D: Dataplane> {
    core: Core<D>,
    machine: Machine,
    index: Arc<Index>,
}

impl<D: Dataplane> Bench<D> {
    fn new(dataplane: D) -> Self {
        let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
        let mut core = Core::new(context(), index.clone(), Arc::new(SyncMetrics::default()));
        core.set_dataplane(dataplane);
        Self::with(core, index)
    }

    fn with(core: Core<D>, index: Arc<Index>) -> Self {
        let mut bench = Self { core, machine: Machine::new(None, 1, Instant::now()), index };
        bench.connect();
        bench
    }

    fn connect(&mut self) {
        self.machine.step(Instant::now());
        self.machine.opened(Instant::now());
    }

    fn reconnect(&mut self) {
        self.machine.closed(Instant::now(), "test".into());
        self.connect();
    }

    /// All in one batch.
    fn send(&mut self, messages: Vec<Message>) {
        let at = Instant::now();
        let mut events = Vec::new();
        for message in messages {
            events.extend(self.machine.message(at, message).unwrap().map(|event| Received { at, event }));
        }
        self.core.batch(events);
    }

    fn dataplane(&self) -> &D {
        self.core.dataplane().unwrap()
    }

    fn applied(&self) -> u64 {
        self.core.status().applied.map_or(0, |p| p.revision.0)
    }
}

fn backends(recording: &Recording, n: u32) -> Option<Vec<String>> {
    let addr: IpAddr = format!("10.96.{}.{}", n / 200, n % 200 + 1).parse().unwrap();
    let found = recording.tables.backends_of(Tuple { addr, port: 80, protocol: 6 })?.unwrap();
    let mut found: Vec<String> = found.iter().map(|(addr, port)| format!("{addr}:{port}")).collect();
    found.sort();
    Some(found)
}

/// Two Services, synced at revision 9.
fn list() -> Vec<Message> {
    vec![
        hello(9),
        Message::Reset,
        put(1, Kind::Namespace, &json!({"metadata": {"name": "ns"}})),
        put(2, Kind::Service, &service(1, "")),
        put(3, Kind::Service, &service(2, "")),
        put(8, Kind::EndpointSlice, &slice(1, &[5])),
        put(9, Kind::EndpointSlice, &slice(2, &[6])),
        synced(9),
    ]
}

#[test]
fn names_do_not_wait_for_the_dataplane() {
    let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
    let core = Core::new(context(), index.clone(), Arc::new(SyncMetrics::default()));
    let mut b: Bench<Recording> = Bench::with(core, index);
    b.send(list());
    assert!(b.index.synced());
    assert_eq!((b.applied(), b.core.status().open), (0, false));
    // What changes meanwhile is in names at once, and in the dataplane when it comes.
    b.send(vec![put(10, Kind::EndpointSlice, &slice(1, &[9])), put(11, Kind::Service, &service(3, ""))]);
    b.core.tick();
    assert_eq!((b.applied(), b.core.take_snapshot().map(|s| s.position.revision.0)), (0, Some(11)));
    b.core.set_dataplane(Recording::default());
    assert_eq!((b.applied(), b.core.status().open), (11, true));
    assert_eq!((b.dataplane().reconciles, b.dataplane().applied.len()), (1, 0));
    assert_eq!(backends(b.dataplane(), 1), Some(vec!["10.244.1.9:8080".into()]));
    assert_eq!(backends(b.dataplane(), 3), Some(vec![]));
}

#[test]
fn a_dataplane_that_comes_within_a_list_waits_for_its_end() {
    let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
    let core = Core::new(context(), index.clone(), Arc::new(SyncMetrics::default()));
    let mut b: Bench<Recording> = Bench::with(core, index);
    b.send(list());
    b.reconnect();
    b.send(vec![hello(12), Message::Reset, put(2, Kind::Service, &service(1, ""))]);
    b.core.set_dataplane(Recording::default());
    b.core.tick();
    assert_eq!((b.dataplane().reconciles, b.core.status().open), (0, false));
    b.send(vec![put(12, Kind::EndpointSlice, &slice(1, &[7])), synced(12)]);
    assert_eq!((b.dataplane().reconciles, b.applied(), b.core.status().open), (1, 12, true));
    assert_eq!(backends(b.dataplane(), 1), Some(vec!["10.244.1.7:8080".into()]));
    assert_eq!(backends(b.dataplane(), 2), None);
}

#[test]
fn nothing_is_programmed_before_the_first_whole_list() {
    let mut b = Bench::new(Recording::default());
    let mut messages = list();
    let synced = messages.pop().unwrap();
    b.send(messages);
    assert_eq!((b.dataplane().reconciles, b.dataplane().applied.len()), (0, 0));
    assert!(!b.index.synced() && b.core.status().applied.is_none() && b.core.take_snapshot().is_none());
    b.send(vec![synced]);
    assert_eq!((b.dataplane().reconciles, b.dataplane().applied.len()), (1, 0));
    assert_eq!(backends(b.dataplane(), 1), Some(vec!["10.244.1.5:8080".into()]));
    assert!(b.index.synced());
    assert_eq!(b.index.stats().services, 2);
    assert_eq!((b.applied(), b.core.status().services), (9, 2));
}

#[test]
fn a_change_costs_what_it_touches_and_a_bookmark_counts_as_applied() {
    let mut b = Bench::new(Recording::default());
    let mut messages = vec![hello(2000), Message::Reset];
    messages.extend((0..2000).map(|n| put(u64::from(n) + 1, Kind::Service, &service(n, ""))));
    messages.push(synced(2000));
    b.send(messages);
    let before = b.core.state().compilations();
    b.send(vec![put(2001, Kind::EndpointSlice, &slice(7, &[1, 2]))]);
    assert_eq!(b.core.state().compilations() - before, 1);
    assert_eq!(b.dataplane().applied, [ServiceKey::new("ns", "s7")]);
    // Several changes of one Service in a batch: once. A change of what nobody reads: not at all.
    b.send(vec![
        put(2002, Kind::EndpointSlice, &slice(7, &[1])),
        put(2003, Kind::EndpointSlice, &slice(7, &[1, 3])),
        put(2004, Kind::Service, &service(9, "an annotation")),
        put(2005, Kind::Node, &json!({"metadata": {"name": "node-2"}})),
        put(2006, Kind::Workload, &json!({"metadata": {"namespace": "ns", "name": "w"}})),
    ]);
    assert_eq!(b.core.state().compilations() - before, 2);
    assert_eq!(backends(b.dataplane(), 7), Some(vec!["10.244.7.1:8080".into(), "10.244.7.3:8080".into()]));
    assert_eq!(b.applied(), 2006);
    b.send(vec![bookmark(2100)]);
    assert_eq!((b.applied(), b.core.state().compilations() - before), (2100, 2));
}

#[test]
fn a_later_list_takes_effect_when_it_is_whole() {
    let mut b = Bench::new(Recording::default());
    b.send(list());
    // The history is gone: s1 has other endpoints now, s2 does not exist any more, s3 is new.
    b.reconnect();
    b.send(vec![
        hello(50),
        Message::Reset,
        put(30, Kind::Service, &service(1, "")),
        put(31, Kind::Service, &service(3, "")),
        put(40, Kind::EndpointSlice, &slice(1, &[7])),
    ]);
    assert_eq!(backends(b.dataplane(), 1), Some(vec!["10.244.1.5:8080".into()]));
    assert_eq!(backends(b.dataplane(), 2), Some(vec!["10.244.2.6:8080".into()]));
    assert_eq!(b.applied(), 9);
    b.send(vec![put(41, Kind::EndpointSlice, &slice(3, &[8])), synced(50)]);
    assert_eq!(b.dataplane().reconciles, 1, "only what differs is written");
    assert_eq!(backends(b.dataplane(), 1), Some(vec!["10.244.1.7:8080".into()]));
    assert_eq!(backends(b.dataplane(), 2), None);
    assert_eq!(backends(b.dataplane(), 3), Some(vec!["10.244.3.8:8080".into()]));
    assert_eq!((b.applied(), b.index.stats().services), (50, 2));
}

#[test]
fn a_list_that_breaks_off_changes_nothing_until_the_stream_has_caught_up() {
    let mut b = Bench::new(Recording::default());
    b.send(list());
    b.reconnect();
    b.send(vec![hello(50), Message::Reset, put(40, Kind::EndpointSlice, &slice(1, &[]))]);
    b.reconnect();
    // This time the history is there: the endpoint came back.
    b.send(vec![hello(50), put(40, Kind::EndpointSlice, &slice(1, &[]))]);
    assert_eq!(backends(b.dataplane(), 1), Some(vec!["10.244.1.5:8080".into()]));
    assert!(b.core.take_snapshot().is_none(), "half of the truth is not for the disk");
    b.send(vec![put(41, Kind::EndpointSlice, &slice(1, &[9])), bookmark(50)]);
    assert_eq!(backends(b.dataplane(), 1), Some(vec!["10.244.1.9:8080".into()]));
    assert_eq!(b.applied(), 50);
    assert!(b.core.take_snapshot().is_some());
    assert!(b.core.take_snapshot().is_none(), "nothing new");
}

#[test]
fn a_snapshot_serves_before_any_controller() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::new(dir.path(), context());
    assert_eq!(snapshots.read().unwrap(), None);
    let mut b = Bench::new(Recording::default());
    b.send(list());
    snapshots.write(&b.core.take_snapshot().unwrap()).unwrap();
    let snapshot = snapshots.read().unwrap().unwrap();
    assert_eq!(snapshot.position, Position { store_id: "s".into(), revision: Revision(9) });

    let mut b = Bench::new(Recording::default());
    b.core.restore(snapshot.clone());
    assert_eq!(backends(b.dataplane(), 2), Some(vec!["10.244.2.6:8080".into()]));
    assert!(b.index.synced());
    assert_eq!((b.applied(), b.dataplane().reconciles), (9, 1));
    assert!(b.core.take_snapshot().is_none(), "it is on disk already");
    // And the stream goes on from there.
    b.machine = Machine::new(b.core.held().cloned(), 1, Instant::now());
    b.connect();
    b.send(vec![hello(10), delete(10, Kind::Service, "s1")]);
    assert_eq!((backends(b.dataplane(), 1), b.applied()), (None, 10));

    // Damaged in every possible place: never taken for good, always set aside.
    let good = std::fs::read(snapshots.path()).unwrap();
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x01;
        std::fs::write(snapshots.path(), &bad).unwrap();
        let error = snapshots.read().expect_err(&format!("byte {position} flipped"));
        assert!(error.set_aside.exists() && !snapshots.path().exists());
    }
    for length in (0..good.len()).step_by(7) {
        std::fs::write(snapshots.path(), &good[..length]).unwrap();
        snapshots.read().expect_err(&format!("cut at {length}"));
    }
    std::fs::write(snapshots.path(), &good).unwrap();
    let other = Context { node: "node-2".into(), ..context() };
    let error = Snapshots::new(dir.path(), other).read().unwrap_err();
    assert!(error.to_string().contains("node-1") && error.to_string().contains("node-2"), "{error}");
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_leaves_the_old_one() {
    let mut b = Bench::new(Recording::default());
    b.send(list());
    let bad = json!({"metadata": {"namespace": "ns", "name": "s1"}, "spec": {"ports": [{"port": "eighty"}]}});
    b.send(vec![put(10, Kind::Service, &bad), put(11, Kind::EndpointSlice, &slice(2, &[9]))]);
    let problems = b.core.status().problems;
    assert!(problems.len() == 1 && problems[0].starts_with("Service ns/s1: "), "{problems:?}");
    assert_eq!(backends(b.dataplane(), 1), Some(vec!["10.244.1.5:8080".into()]));
    assert_eq!((backends(b.dataplane(), 2), b.applied()), (Some(vec!["10.244.2.9:8080".into()]), 11));
    b.send(vec![put(12, Kind::Service, &service(1, ""))]);
    assert!(b.core.status().problems.is_empty());
    // Endpoints that nothing can be sent to, and records outside the zone, are problems of their objects.
    let mut loopback = slice(1, &[5]);
    loopback["endpoints"][0]["addresses"][0] = "127.0.0.1".into();
    let record = json!({"metadata": {"namespace": "ns", "name": "r"}, "spec": {"name": "a.example.org", "type": "A", "values": ["192.0.2.1"]}});
    b.send(vec![put(13, Kind::EndpointSlice, &loopback), put(14, Kind::DnsRecord, &record)]);
    let problems = b.core.status().problems.join("\n");
    assert!(
        problems.contains("EndpointSlice ns/s1-x: endpoints[0]") && problems.contains("DnsRecord ns/r"),
        "{problems}"
    );
    b.send(vec![delete(15, Kind::DnsRecord, "r"), delete(16, Kind::EndpointSlice, "s1-x")]);
    assert!(b.core.status().problems.is_empty(), "{:?}", b.core.status().problems);
    assert_eq!(backends(b.dataplane(), 1), Some(vec![]));
}

/// Refuses Services by name.
struct Refusing {
    inner: Recording,
    refused: &'static str,
    reconcile: bool,
}

fn kernel_says_no() -> Error {
    Error::Map { map: "FRONTENDS4", action: "update", source: std::io::Error::from_raw_os_error(12) }
}

impl Dataplane for Refusing {
    fn apply(&mut self, key: &ServiceKey, new: Option<&CompiledService>) -> Result<Applied, Error> {
        if *key.name == *self.refused { Err(kernel_says_no()) } else { self.inner.apply(key, new) }
    }
    fn reconcile(&mut self, desired: &mut dyn Iterator<Item = &CompiledService>) -> Result<Applied, Error> {
        if self.reconcile { Err(kernel_says_no()) } else { self.inner.reconcile(desired) }
    }
    fn retry(&mut self) -> Applied {
        self.inner.retry()
    }
    fn set_stand_in(&mut self, on: bool) {
        self.inner.set_stand_in(on);
    }
    fn counters(&self) -> Result<BTreeMap<String, u64>, Error> {
        self.inner.counters()
    }
    fn stats(&self) -> Stats {
        self.inner.stats()
    }
    fn problems(&self) -> Vec<String> {
        self.inner.problems()
    }
}

#[test]
fn what_the_kernel_refuses_is_not_applied_but_does_not_hold_up_for_ever() {
    let mut b = Bench::new(Refusing { inner: Recording::default(), refused: "s1", reconcile: false });
    b.send(list());
    b.send(vec![
        put(10, Kind::EndpointSlice, &slice(1, &[7])),
        put(11, Kind::EndpointSlice, &slice(2, &[8])),
    ]);
    assert_eq!(b.applied(), 9);
    assert_eq!(backends(&b.dataplane().inner, 2), Some(vec!["10.244.2.8:8080".into()]));
    b.core.dataplane_mut().unwrap().refused = "";
    b.core.tick();
    assert_eq!((b.applied(), backends(&b.dataplane().inner, 1)), (11, Some(vec!["10.244.1.7:8080".into()])));

    b.core.dataplane_mut().unwrap().refused = "s1";
    b.send(vec![put(12, Kind::EndpointSlice, &slice(1, &[9]))]);
    for _ in 0..8 {
        b.core.tick();
    }
    assert_eq!(b.applied(), 11);
    b.core.tick();
    assert_eq!(b.applied(), 12);
    let problems = b.core.status().problems;
    assert!(problems.len() == 1 && problems[0].contains("Service ns/s1: map FRONTENDS4"), "{problems:?}");
}

#[test]
fn a_first_load_that_fails_is_tried_again() {
    let mut b = Bench::new(Refusing { inner: Recording::default(), refused: "", reconcile: true });
    b.send(list());
    assert_eq!(b.applied(), 0);
    assert!(b.core.status().problems[0].starts_with("programming everything"));
    assert!(b.index.synced(), "names need no kernel");
    b.core.dataplane_mut().unwrap().reconcile = false;
    b.core.tick();
    assert_eq!((b.applied(), b.core.status().problems.len()), (9, 0));
}

#[test]
fn a_full_table_is_a_problem_of_one_service() {
    let capacities = Capacities { slots: 4, ..Capacities::default() };
    let mut b = Bench::new(Recording::new(capacities));
    b.send(list());
    b.send(vec![
        put(10, Kind::EndpointSlice, &slice(1, &[1, 2, 3, 4, 5, 6, 7])),
        put(11, Kind::Service, &service(3, "")),
    ]);
    assert_eq!(b.applied(), 11);
    let problems = b.core.status().problems.join("\n");
    assert!(problems.contains("SLOTS"), "{problems}");
    assert_eq!(backends(b.dataplane(), 3), Some(vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes in whatever batches, with lists in between: the maps end as compiling from nothing has it.
    #[test]
    fn the_maps_end_as_the_objects_say(
        changes in prop::collection::vec((0u32..6, 0u8..4, prop::collection::vec(1u8..9, 0..4), any::<bool>(), 0u8..12), 0..60)
    ) {
        let mut b = Bench::new(Recording::default());
        b.send(list());
        let mut services: BTreeMap<u32, Value> = [(1, service(1, "")), (2, service(2, ""))].into();
        let mut slices: BTreeMap<u32, Value> = [(1, slice(1, &[5])), (2, slice(2, &[6]))].into();
        let mut revision = 9;
        let mut batch = Vec::new();
        for (n, what, endpoints, send, list) in changes {
            revision += 1;
            batch.push(match what {
                0 => {
                    services.insert(n, service(n, ""));
                    put(revision, Kind::Service, &service(n, ""))
                }
                1 => {
                    services.remove(&n);
                    delete(revision, Kind::Service, &format!("s{n}"))
                }
                2 => {
                    slices.remove(&n);
                    delete(revision, Kind::EndpointSlice, &format!("s{n}-x"))
                }
                _ => {
                    slices.insert(n, slice(n, &endpoints));
                    put(revision, Kind::EndpointSlice, &slice(n, &endpoints))
                }
            });
            if list == 0 {
                // The connection breaks; what was not sent is in the next list.
                batch.clear();
                b.reconnect();
                batch.extend([hello(revision), Message::Reset]);
                batch.extend(services.values().map(|s| put(1, Kind::Service, s)));
                batch.extend(slices.values().map(|s| put(1, Kind::EndpointSlice, s)));
                batch.push(synced(revision));
            }
            if send {
                b.send(std::mem::take(&mut batch));
            }
        }
        b.send(batch);
        prop_assert_eq!(b.applied(), revision);
        for n in 0..6 {
            let wanted = services.get(&n).map(|_| {
                let endpoints = slices.get(&n).map(|s| s["endpoints"].as_array().unwrap().clone()).unwrap_or_default();
                let mut all: Vec<_> = endpoints.iter().map(|e| format!("{}:8080", e["addresses"][0].as_str().unwrap())).collect();
                all.sort();
                all.dedup();
                all
            });
            prop_assert_eq!(backends(b.dataplane(), n), wanted);
        }
        prop_assert_eq!(b.index.stats().services, services.len());
    }
}
