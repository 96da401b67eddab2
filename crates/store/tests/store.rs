//! The store as its users see it, over memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eastwest_model::{Kind, Map, Revision};
use eastwest_store::{Change, Disk, Error, Key, Loaded, Memory, Options, Store, Txn};

fn key(name: &str) -> Key {
    Key::new(Kind::Service, "default", name)
}

fn put(txn: &mut Txn<'_>, name: &str) -> Revision {
    txn.put(key(name), Map::new(), |r| Bytes::from(format!("{name}@{r}"))).0
}

fn open(window: usize) -> Store {
    Store::open(Memory, Options { window_events: window, ..Options::default() }).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    store.read(|v| v.range(Kind::Service, None, None).map(|o| o.key.name.to_string()).collect())
}

async fn write(store: &Store, name: &'static str) -> Revision {
    store.write(move |txn| Ok::<_, ()>(put(txn, name))).await.unwrap().unwrap()
}

#[tokio::test]
async fn each_write_has_its_own_revision_and_a_transaction_is_all_or_nothing() {
    let store = open(100);
    let revisions = store.write(|txn| Ok::<_, ()>([put(txn, "a"), put(txn, "b")])).await.unwrap().unwrap();
    assert_eq!(revisions, [Revision(1), Revision(2)]);
    let refused = store
        .write(|txn| {
            put(txn, "c");
            txn.delete(&key("a"), |_| Bytes::new());
            assert!(txn.view().get(&key("a")).is_none(), "a transaction sees its own writes");
            Err::<(), _>("no")
        })
        .await
        .unwrap();
    assert_eq!(refused, Err("no"));
    assert_eq!((names(&store), store.revision()), (vec!["a".into(), "b".into()], Revision(2)));
    assert_eq!(write(&store, "d").await, Revision(3), "a refused transaction uses no revision up");
}

#[tokio::test]
async fn a_panic_in_a_transaction_is_its_writer_s_alone() {
    let store = open(100);
    let outcome = store
        .write(|txn| -> Result<(), ()> {
            put(txn, "a");
            panic!("on purpose")
        })
        .await;
    assert!(matches!(outcome, Err(Error::Panicked(why)) if why == "on purpose"));
    assert_eq!(write(&store, "b").await, Revision(1));
    assert_eq!(names(&store), ["b"]);
}

#[tokio::test]
async fn watchers_get_every_event_once_and_in_order() {
    let store = open(10_000);
    let mut watcher = store.watch(Revision(0)).unwrap();
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..100 {
                    let name = format!("{w}-{i}");
                    store.write(move |txn| Ok::<_, ()>(put(txn, &name))).await.unwrap().unwrap();
                }
            })
        })
        .collect();
    let mut seen = 0;
    while seen < 800 {
        for event in watcher.next(7).await.unwrap() {
            seen += 1;
            assert_eq!(event.revision, Revision(seen));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), watcher.next(1)).await.is_err());
}

#[tokio::test]
async fn events_hold_what_was_before() {
    let store = open(100);
    let mut watcher = store.watch(Revision(0)).unwrap();
    write(&store, "a").await;
    write(&store, "a").await;
    let gone =
        store.write(|txn| Ok::<_, ()>(txn.delete(&key("a"), |r| Bytes::from(format!("last@{r}"))))).await;
    assert_eq!(&*gone.unwrap().unwrap().unwrap().json, b"last@3");
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(watcher.next(10).await.unwrap());
    }
    let text = |o: &Option<Arc<eastwest_store::Object>>| {
        o.as_ref().map(|o| String::from_utf8(o.json.to_vec()).unwrap())
    };
    let before: Vec<_> = events.iter().map(|e| text(&e.previous)).collect();
    assert_eq!(before, [None, Some("a@1".into()), Some("a@2".into())]);
    assert_eq!(events.iter().map(|e| e.deleted).collect::<Vec<_>>(), [false, false, true]);
}

#[tokio::test]
async fn the_history_has_an_end_and_says_so() {
    let store = open(3);
    for name in ["a", "b", "c", "d", "e"] {
        write(&store, name).await;
    }
    assert!(store.watch(Revision(2)).is_ok());
    let gone = store.watch(Revision(1)).unwrap_err();
    assert_eq!((gone.oldest, gone.head), (Revision(2), Revision(5)));
    assert!(store.watch(Revision(6)).is_err(), "the future is of another history");
    let mut slow = store.watch(Revision(5)).unwrap();
    for name in ["f", "g", "h", "i"] {
        write(&store, name).await;
    }
    assert!(slow.next(1).await.is_err());
}

#[tokio::test]
async fn earlier_states_can_be_read_while_the_history_lasts() {
    let store = open(100);
    let at = |r: u64| {
        store.read_at(Revision(r), |v| {
            v.range(Kind::Service, None, None)
                .map(|o| String::from_utf8(o.json.to_vec()).unwrap())
                .collect::<Vec<_>>()
        })
    };
    write(&store, "b").await;
    write(&store, "a").await;
    write(&store, "b").await;
    store.write(|txn| Ok::<_, ()>(txn.delete(&key("a"), |_| Bytes::new()).is_some())).await.unwrap().unwrap();
    assert_eq!(at(0).unwrap(), [""; 0]);
    assert_eq!(at(1).unwrap(), ["b@1"]);
    assert_eq!(at(2).unwrap(), ["a@2", "b@1"]);
    assert_eq!(at(3).unwrap(), ["a@2", "b@3"]);
    assert_eq!(at(4).unwrap(), ["b@3"]);
    assert!(at(5).is_err());
}

/// Fails when told to.
struct Faulty(Arc<std::sync::atomic::AtomicBool>);

impl Disk for Faulty {
    fn load(&mut self) -> Result<Loaded, Error> {
        Memory.load()
    }
    fn write(&mut self, _: &[Change], _: Revision) -> Result<(), Error> {
        if self.0.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::Write("full".into()));
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_the_disk_refuses_nobody_sees() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let store = Store::open(Faulty(broken.clone()), Options::default()).unwrap();
    write(&store, "a").await;
    broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let outcome = store.write(|txn| Ok::<_, ()>(put(txn, "b"))).await;
    assert!(matches!(outcome, Err(Error::Write(_))));
    assert_eq!((names(&store), store.revision()), (vec!["a".to_owned()], Revision(1)));
    assert!(
        store.write(|_| Ok::<_, ()>(())).await.is_ok(),
        "a transaction that writes nothing needs no disk"
    );
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(write(&store, "c").await, Revision(2));
    assert!(store.healthy());
}

#[tokio::test]
async fn closing_waits_for_what_was_queued() {
    let flushed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = flushed.clone();
    let on_flush = move |f: eastwest_store::Flush| {
        counter.fetch_add(f.writes, std::sync::atomic::Ordering::SeqCst);
    };
    let options = Options { on_flush: Some(Arc::new(on_flush)), ..Options::default() };
    let store = Store::open(Memory, options).unwrap();
    for i in 0..50 {
        let (store, name) = (store.clone(), format!("n{i}"));
        let queued = tokio::spawn(async move { store.write(move |txn| Ok::<_, ()>(put(txn, &name))).await });
        if i % 2 == 0 {
            queued.await.unwrap().unwrap().unwrap();
        } else {
            tokio::task::yield_now().await;
            queued.await.unwrap().unwrap().unwrap();
        }
    }
    store.close().await;
    assert_eq!(flushed.load(std::sync::atomic::Ordering::SeqCst), 50);
}

mod views {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Ranges over uncommitted changes, and over earlier states, are those of a plain map.
        #[test]
        fn ranges_agree_with_a_plain_map(
            batches in proptest::collection::vec(proptest::collection::vec((0u8..3, 0u8..6, any::<bool>()), 1..8), 1..8),
            after in (0u8..3, 0u8..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let store = open(1000);
                let mut model: BTreeMap<(String, String), u64> = BTreeMap::new();
                let mut states = vec![model.clone()];
                for batch in batches {
                    let key = |ns: u8, n: u8| Key::new(Kind::Service, &format!("ns{ns}"), &format!("n{n}"));
                    let mut expected = model.clone();
                    let mut revision = states.len() as u64 - 1;
                    for (ns, n, delete) in &batch {
                        let id = (format!("ns{ns}"), format!("n{n}"));
                        if *delete {
                            if expected.remove(&id).is_none() { continue; }
                            revision += 1;
                        } else {
                            revision += 1;
                            expected.insert(id, revision);
                        }
                        states.push(expected.clone());
                    }
                    let (ns, name) = (format!("ns{}", after.0), format!("n{}", after.1));
                    let want: Vec<_> = expected.keys().filter(|k| k.0 == ns && k.1 > name).cloned().collect();
                    let want_all: Vec<_> = expected.keys().filter(|k| **k > (ns.clone(), name.clone())).cloned().collect();
                    let got = store.write(move |txn| {
                        for (ns, n, delete) in batch {
                            if delete {
                                txn.delete(&key(ns, n), |_| Bytes::new());
                            } else {
                                txn.put(key(ns, n), Map::new(), |_| Bytes::new());
                            }
                        }
                        let after = Key::new(Kind::Service, &ns, &name);
                        let ids = |namespace: Option<&str>| -> Vec<(String, String)> {
                            txn.view().range(Kind::Service, namespace, Some(&after))
                                .map(|o| (o.key.namespace.to_string(), o.key.name.to_string())).collect()
                        };
                        Ok::<_, ()>((ids(Some(&ns)), ids(None)))
                    }).await.unwrap().unwrap();
                    assert_eq!(got, (want, want_all));
                    model = expected;
                }
                for (r, state) in states.iter().enumerate() {
                    let got: BTreeMap<_, _> = store.read_at(Revision(r as u64), |v| {
                        v.range(Kind::Service, None, None)
                            .map(|o| ((o.key.namespace.to_string(), o.key.name.to_string()), o.revision.0)).collect()
                    }).unwrap();
                    assert_eq!(&got, state);
                }
            });
        }
    }
}
