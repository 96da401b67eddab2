//! The sled store across restarts, crashes and damage.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eastwest_model::{Kind, Revision};
use eastwest_store::{Error, Key, Options, Sled, Store};

fn open(path: &Path) -> Result<Store, Error> {
    Store::open(Sled::open(path)?, Options::default())
}

fn json(name: &str, revision: Revision) -> Bytes {
    format!(
        r#"{{"metadata":{{"name":"{name}","labels":{{"app":"{name}"}},"resourceVersion":"{revision}"}}}}"#
    )
    .into()
}

async fn put(store: &Store, name: String) -> Revision {
    let labels = [("app".to_owned(), name.clone())].into();
    let key = Key::new(Kind::Workload, "default", &name);
    store.write(move |txn| Ok::<_, ()>(txn.put(key, labels, |r| json(&name, r)).0)).await.unwrap().unwrap()
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let id = store.id().to_owned();
    put(&store, "a".into()).await;
    let revision = put(&store, "b".into()).await;
    let key = Key::new(Kind::Workload, "default", "a");
    let deleted = key.clone();
    store
        .write(move |txn| Ok::<_, ()>(txn.delete(&deleted, |_| Bytes::new()).is_some()))
        .await
        .unwrap()
        .unwrap();
    store.close().await;

    let store = open(dir.path()).unwrap();
    assert_eq!((store.id(), store.revision()), (id.as_str(), Revision(3)));
    assert!(store.get(&key).is_none());
    let b = store.get(&Key::new(Kind::Workload, "default", "b")).unwrap();
    assert_eq!((b.revision, &b.json, &b.labels["app"]), (revision, &json("b", revision), &"b".to_owned()));
    assert!(store.watch(Revision(3)).is_ok(), "who was up to date stays so");
    assert!(store.watch(Revision(2)).is_err(), "the history begins anew");
    assert_eq!(put(&store, "c".into()).await, Revision(4));
}

#[tokio::test]
async fn a_second_process_is_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("open in another process"), "{error}");
}

#[tokio::test]
async fn damage_is_refused_with_what_to_do() {
    let foreign = tempfile::tempdir().unwrap();
    let db = ::sled::open(foreign.path()).unwrap();
    db.insert("someone", "else").unwrap();
    drop(db);
    let garbage = tempfile::tempdir().unwrap();
    std::fs::write(garbage.path().join("conf"), [0xff; 64]).unwrap();
    std::fs::write(garbage.path().join("db"), [0xff; 4096]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [foreign.path(), garbage.path(), file.path()] {
        let error = open(path).map(drop).unwrap_err().to_string();
        assert!(error.contains("backup") && error.contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn large_objects_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let large = |i: usize| {
        let pad = char::from(b'a' + i as u8).to_string().repeat(3_000_000 + i);
        Bytes::from(format!(r#"{{"metadata":{{}},"pad":"{pad}"}}"#))
    };
    for round in 0..2 {
        for i in 0..5 {
            let key = Key::new(Kind::Workload, "default", &format!("n{i}"));
            store
                .write(move |txn| Ok::<_, ()>(txn.put(key, Default::default(), |_| large(i + round)).0))
                .await
                .unwrap()
                .unwrap();
        }
    }
    store.close().await;
    let store = open(dir.path()).unwrap();
    for i in 0..5 {
        let object = store.get(&Key::new(Kind::Workload, "default", &format!("n{i}"))).unwrap();
        assert!(object.json == large(i + 1), "n{i}");
    }
}

type Damage = fn(&mut Vec<u8>);

#[tokio::test]
async fn lost_writes_are_noticed_and_what_is_left_can_be_saved() {
    let source = tempfile::tempdir().unwrap();
    let store = open(source.path()).unwrap();
    for i in 0..200 {
        put(&store, format!("n{i}")).await;
    }
    store.close().await;
    let log = std::fs::read(source.path().join("db")).unwrap();
    let damages: [(&str, Damage); 4] = [
        ("cut", |log| log.truncate(log.len() / 2)),
        ("empty", Vec::clear),
        ("a byte", |log| {
            let middle = log.len() / 2;
            log[middle] ^= 0x55;
        }),
        ("a sector", |log| {
            let at = log.len() / 3;
            log[at..at + 512].fill(0);
        }),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        std::fs::create_dir_all(path.join("blobs")).unwrap();
        for file in ["conf", "head"] {
            std::fs::copy(source.path().join(file), path.join(file)).unwrap();
        }
        let mut damaged = log.clone();
        damage(&mut damaged);
        std::fs::write(path.join("db"), damaged).unwrap();
        for _ in 0..2 {
            let error = open(&path).map(drop).unwrap_err().to_string();
            assert!(error.contains("lost acknowledged writes"), "{name}: {error}");
        }
        let (file, restored) = (dir.path().join("left.ndjson"), dir.path().join("restored"));
        let (revision, objects) = Sled::salvage_to(&path, &file).unwrap();
        assert!(objects < 200 && revision.0 == objects as u64, "{name}");
        assert_eq!(Sled::restore(&restored, &file).unwrap(), revision);
        assert_eq!(open(&restored).unwrap().revision(), revision);
    }
}

#[tokio::test]
async fn a_backup_makes_a_store_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backups, restored) =
        (dir.path().join("store"), dir.path().join("backup"), dir.path().join("new"));
    let store = open(&path).unwrap();
    for i in 0..5 {
        put(&store, format!("n{i}")).await;
        assert!(store.back_up(&backups, 3).unwrap().is_some());
    }
    assert_eq!(store.back_up(&backups, 3).unwrap(), None, "there is one of this revision");
    assert_eq!(std::fs::read_dir(&backups).unwrap().count(), 3);
    let newest = eastwest_store::newest_backup(&backups).unwrap();
    assert_eq!(Sled::restore(&restored, &newest).unwrap(), Revision(5));
    let new = open(&restored).unwrap();
    assert_ne!(new.id(), store.id(), "agents must know that it is another history");
    for i in 0..5 {
        let key = Key::new(Kind::Workload, "default", &format!("n{i}"));
        let (a, b) = (store.get(&key).unwrap(), new.get(&key).unwrap());
        assert_eq!((a.revision, &a.json, &a.labels), (b.revision, &b.json, &b.labels));
    }
    assert_eq!(put(&new, "next".into()).await, Revision(6));

    let text = std::fs::read_to_string(&newest).unwrap();
    let cut: String = text.lines().take(3).map(|l| format!("{l}\n")).collect();
    for (damage, words) in [
        (cut, "cut"),
        (text[..text.len() - 9].to_owned(), "line 6"),
        (String::new(), "first line"),
        (text.replace(r#""eastwestBackup":1"#, r#""eastwestBackup":9"#), "format 9"),
    ] {
        let file = dir.path().join("damaged.ndjson");
        std::fs::write(&file, damage).unwrap();
        let target = dir.path().join("never");
        let error = Sled::restore(&target, &file).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!target.exists());
    }
    assert!(Sled::restore(&path, &newest).unwrap_err().to_string().contains("not empty"));
}

/// Not a test of its own: what [`nothing_acknowledged_is_lost_by_kill`] runs and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_killed() {
    let Ok(dir) = std::env::var("EASTWEST_STORE_TEST_DIR") else { return };
    let store = open(Path::new(&dir)).unwrap();
    let round = store.revision().0;
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let name = format!("r{round}-w{w}-{}", i % 50);
                    let revision = put(&store, name.clone()).await;
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acked {name} {revision}").unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked: BTreeMap<String, u64> = BTreeMap::new();
    let mut newest = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
            .env("EASTWEST_STORE_TEST_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (start, mut count) = (Instant::now(), 0);
        let mut killed = false;
        // After the kill, the rest of the pipe holds what was acknowledged before it.
        for line in lines {
            let Ok(line) = line else { break };
            let Some(rest) = line.split_once("acked ").map(|(_, rest)| rest) else { continue };
            let Some((name, revision)) = rest.split_once(' ') else { continue };
            let Ok(revision) = revision.parse::<u64>() else { continue };
            let entry = acked.entry(name.to_owned()).or_default();
            *entry = revision.max(*entry);
            newest = newest.max(revision);
            count += 1;
            if !killed && count >= 200 && start.elapsed() > Duration::from_millis(100 + round * 70) {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");

        let store = open(dir.path()).unwrap();
        assert!(store.revision().0 >= newest, "round {round}: {} < {newest}", store.revision());
        for (name, revision) in &acked {
            let object = store.get(&Key::new(Kind::Workload, "default", name));
            let object = object.unwrap_or_else(|| panic!("round {round}: {name} is lost"));
            assert!(object.revision.0 >= *revision, "round {round}: {name} is of {}", object.revision);
            assert_eq!(object.json, json(name, object.revision), "whole");
        }
        store.close().await;
    }
    assert!(acked.len() > 300);
}
