//! The sync protocol: rows of what may come and what not, time, and a replica that must end like the store, however
//! often the connection breaks and the history is lost.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use eastwest_client::sync::{CONNECT, Event, Machine, Position, STALE, Step};
use eastwest_model::stream::Message;
use eastwest_model::{Kind, Revision};
use proptest::prelude::*;

fn hello(store: &str, revision: u64) -> Message {
    Message::Hello { store_id: store.into(), revision: Revision(revision) }
}

fn put(revision: u64, name: &str) -> Message {
    let json =
        format!(r#"{{"metadata":{{"namespace":"ns","name":"{name}","resourceVersion":"{revision}"}}}}"#);
    let object = serde_json::value::RawValue::from_string(json).unwrap();
    Message::Put { revision: Revision(revision), kind: Kind::Service, object }
}

fn delete(revision: u64, name: &str) -> Message {
    Message::Delete {
        revision: Revision(revision),
        kind: Kind::Service,
        namespace: "ns".into(),
        name: name.into(),
    }
}

fn synced(revision: u64) -> Message {
    Message::Synced { revision: Revision(revision) }
}

fn bookmark(revision: u64) -> Message {
    Message::Bookmark { revision: Revision(revision) }
}

fn held(store: &str, revision: u64) -> Option<Position> {
    Some(Position { store_id: store.into(), revision: Revision(revision) })
}

fn show(event: &Event) -> String {
    match event {
        Event::Hello { store_id, head } => format!("hello {store_id} {head}"),
        Event::Reset => "reset".into(),
        Event::Put { revision, .. } => format!("put {revision}"),
        Event::Delete { revision, name, .. } => format!("delete {name} {revision}"),
        Event::Synced { position, listed } => format!("synced {} {}", position.revision, listed.len()),
        Event::Bookmark { revision } => format!("bookmark {revision}"),
    }
}

#[test]
fn what_may_come_and_what_not() {
    type Row = (&'static str, Option<Position>, Vec<Message>, Vec<&'static str>, Option<Position>);
    let rows: Vec<Row> = vec![
        (
            "a first start",
            None,
            vec![
                hello("s", 9),
                Message::Reset,
                put(3, "a"),
                put(9, "b"),
                synced(9),
                put(10, "c"),
                bookmark(12),
            ],
            vec!["hello s 9", "reset", "put 3", "put 9", "synced 9 2", "put 10", "bookmark 12"],
            held("s", 12),
        ),
        (
            "resumed",
            held("s", 5),
            vec![hello("s", 9), put(6, "a"), delete(9, "a"), bookmark(9), bookmark(8)],
            vec!["hello s 9", "put 6", "delete a 9", "bookmark 9"],
            held("s", 9),
        ),
        (
            "history is gone: a full list after all",
            held("s", 5),
            vec![hello("s", 9), Message::Reset, synced(9)],
            vec!["hello s 9", "reset", "synced 9 0"],
            held("s", 9),
        ),
        (
            "another list in mid-stream",
            held("s", 5),
            vec![hello("s", 9), bookmark(9), Message::Reset, put(3, "a"), synced(20)],
            vec!["hello s 9", "bookmark 9", "reset", "put 3", "synced 20 1"],
            held("s", 20),
        ),
        (
            "a list that breaks off changes no position",
            held("s", 5),
            vec![hello("t", 9), Message::Reset, put(3, "a")],
            vec!["hello t 9", "reset", "put 3"],
            held("s", 5),
        ),
        (
            "nothing before the hello",
            None,
            vec![put(1, "a")],
            vec!["protocol error: a message before the hello"],
            None,
        ),
        (
            "another store's changes without a list",
            held("s", 5),
            vec![hello("t", 9), put(6, "a")],
            vec!["hello t 9", "protocol error: changes without a full list before them"],
            None,
        ),
        (
            "a store that lost what we hold",
            held("s", 50),
            vec![hello("s", 9), put(51, "a")],
            vec!["hello s 9", "protocol error: changes without a full list before them"],
            None,
        ),
        (
            "backwards",
            held("s", 5),
            vec![hello("s", 9), put(4, "a")],
            vec!["hello s 9", "protocol error: revision 4 after 5"],
            None,
        ),
        (
            "a second hello",
            held("s", 5),
            vec![hello("s", 9), hello("s", 9)],
            vec!["hello s 9", "protocol error: a second hello"],
            held("s", 5),
        ),
        (
            "a delete inside a list",
            None,
            vec![hello("s", 9), Message::Reset, delete(4, "a")],
            vec!["hello s 9", "reset", "protocol error: delete inside a full list"],
            None,
        ),
        (
            "synced outside a list",
            held("s", 5),
            vec![hello("s", 9), synced(9)],
            vec!["hello s 9", "protocol error: synced outside a full list"],
            held("s", 5),
        ),
    ];
    for (name, start, messages, wanted, position) in rows {
        let now = Instant::now();
        let mut machine = Machine::new(start.clone(), 1, now);
        assert_eq!(machine.step(now), Step::Connect(start), "{name}");
        machine.opened(now);
        let mut got = Vec::new();
        for message in messages {
            match machine.message(now, message) {
                Ok(event) => got.extend(event.as_ref().map(show)),
                Err(e) => {
                    got.push(e.to_string());
                    break;
                }
            }
        }
        assert_eq!(got, wanted, "{name}");
        assert_eq!(machine.position().cloned(), position, "{name}");
    }
}

#[test]
fn delays_grow_to_a_bound_and_start_again_after_a_good_connection() {
    let mut now = Instant::now();
    let mut machine = Machine::new(None, 7, now);
    let (mut delays, mut spoken) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        assert!(matches!(machine.step(now), Step::Connect(None)));
        spoken.push(machine.closed(now, "refused".into()).is_some());
        let Step::Wait(until) = machine.step(now) else { panic!() };
        delays.push(until - now);
        now = until;
    }
    assert!(delays[0] <= Duration::from_millis(100), "{:?}", delays[0]);
    assert!(delays.iter().all(|d| *d >= Duration::from_millis(50) && *d <= Duration::from_secs(3)));
    assert!(delays[20..].iter().all(|d| *d >= Duration::from_millis(1500)));
    assert!(delays[20..].iter().collect::<HashSet<_>>().len() > 100, "spread");
    // In about seven minutes: at once, after 1, 3 and 7.
    let count = spoken.iter().filter(|s| **s).count();
    assert!(spoken[0] && (3..=4).contains(&count), "{count}");

    assert!(matches!(machine.step(now), Step::Connect(None)));
    machine.opened(now);
    machine.message(now, hello("s", 1)).unwrap();
    assert!(machine.is_connected());
    now += Duration::from_secs(6);
    assert!(machine.closed(now, "closed".into()).is_some(), "a new outage is spoken of at once");
    let Step::Wait(until) = machine.step(now) else { panic!() };
    assert!(until - now <= Duration::from_millis(100));
}

#[test]
fn silence_is_death() {
    let start = Instant::now();
    let mut machine = Machine::new(None, 7, start);
    assert!(matches!(machine.step(start), Step::Connect(None)));
    assert_eq!(machine.step(start), Step::Wait(start + CONNECT));
    assert!(matches!(machine.step(start + CONNECT), Step::Drop(_)));
    machine.opened(start);
    assert_eq!(machine.step(start), Step::Wait(start + CONNECT), "an open stream must greet");
    machine.message(start, hello("s", 1)).unwrap();
    machine.message(start, Message::Reset).unwrap();
    let later = start + Duration::from_secs(3);
    machine.message(later, synced(1)).unwrap();
    assert_eq!(machine.step(later), Step::Wait(later + STALE));
    assert!(matches!(machine.step(later + STALE), Step::Drop(reason) if reason.contains("15 s")));
}

/// A store and its history; a list is true for its newest revision.
#[derive(Default)]
struct Store {
    id: u64,
    revision: u64,
    objects: BTreeMap<String, u64>,
    log: Vec<Message>,
}

#[derive(Clone, Debug)]
enum Act {
    Put(u8),
    Delete(u8),
    /// So many of the messages that are due get through.
    Deliver(u8),
    Break,
    LoseHistory,
    Replace,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0u8..8).prop_map(Act::Put),
        3 => (0u8..8).prop_map(Act::Delete),
        6 => (1u8..12).prop_map(Act::Deliver),
        1 => Just(Act::Break),
        1 => Just(Act::LoseHistory),
        1 => Just(Act::Replace),
    ]
}

impl Store {
    /// What the controller sends on a new connection; all later changes follow from the log.
    fn greet(&self, held: Option<Position>) -> Vec<Message> {
        let id = format!("s{}", self.id);
        let mut out = vec![hello(&id, self.revision)];
        let first = self.revision - self.log.len() as u64;
        match held.filter(|p| p.store_id == id && p.revision.0 >= first && p.revision.0 <= self.revision) {
            Some(p) => out.extend(self.log[(p.revision.0 - first) as usize..].iter().cloned()),
            None => {
                out.push(Message::Reset);
                out.extend(self.objects.iter().map(|(name, revision)| put(*revision, name)));
                out.push(synced(self.revision));
            }
        }
        out
    }

    fn change(&mut self, message: impl Fn(u64) -> Message) -> Message {
        self.revision += 1;
        self.log.push(message(self.revision));
        message(self.revision)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_ends_like_the_store(acts in prop::collection::vec(act(), 0..80)) {
        let mut now = Instant::now();
        let mut store = Store::default();
        let mut machine = Machine::new(None, 3, now);
        let mut due: Vec<Message> = Vec::new();
        let mut replica: BTreeMap<String, u64> = BTreeMap::new();
        let mut synced_once = false;
        let acts = acts.into_iter().chain([Act::Deliver(0)]);
        for act in acts {
            match act {
                Act::Put(n) => {
                    let name = format!("o{n}");
                    let message = store.change(|r| put(r, &name));
                    store.objects.insert(name, store.revision);
                    if machine.is_connected() || !due.is_empty() { due.push(message); }
                }
                Act::Delete(n) => {
                    let name = format!("o{n}");
                    if store.objects.remove(&name).is_some() {
                        let message = store.change(|r| delete(r, &name));
                        if machine.is_connected() || !due.is_empty() { due.push(message); }
                    }
                }
                Act::LoseHistory => store.log.clear(),
                Act::Break | Act::Replace => {
                    if matches!(act, Act::Replace) {
                        let objects = std::mem::take(&mut store.objects).into_keys().skip(2);
                        store = Store { id: store.id + 1, revision: 5, ..Store::default() };
                        store.objects = objects.map(|name| (name, 4)).collect();
                    }
                    due.clear();
                    machine.closed(now, "test".into());
                }
                Act::Deliver(count) => {
                    if due.is_empty() && !machine.is_connected() {
                        now += Duration::from_secs(4);
                        if let Step::Connect(held) = machine.step(now) {
                            machine.opened(now);
                            due = store.greet(held);
                        }
                    }
                    let count = if count == 0 { due.len() } else { (count as usize).min(due.len()) };
                    for message in due.drain(..count) {
                        match machine.message(now, message).unwrap() {
                            Some(Event::Put { object, .. }) => {
                                let object: serde_json::Value = serde_json::from_str(object.get()).unwrap();
                                let meta = &object["metadata"];
                                let version = meta["resourceVersion"].as_str().unwrap().parse().unwrap();
                                replica.insert(meta["name"].as_str().unwrap().into(), version);
                            }
                            Some(Event::Delete { name, .. }) => {
                                prop_assert!(synced_once);
                                replica.remove(&name);
                            }
                            Some(Event::Synced { listed, .. }) => {
                                synced_once = true;
                                replica.retain(|name, _| listed.contains(Kind::Service, "ns", name));
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        // The last act has delivered everything that was due, on a connection or a new one.
        prop_assert!(due.is_empty());
        prop_assert_eq!(replica, store.objects);
    }
}
