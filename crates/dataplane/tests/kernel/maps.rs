use std::time::{Duration, Instant};

use eastwest_dataplane::plan::Tuple;
use eastwest_dataplane::{Dataplane, EbpfDataplane, Error, pins};
use eastwest_model::Protocol;

use crate::services::{addr, frontend, key, service};
use crate::world::{self, node};

fn web() -> Vec<eastwest_compile::CompiledService> {
    vec![
        service(
            "web",
            vec![
                frontend("10.96.0.1:80", Protocol::TCP, &["10.244.0.1:8080", "10.244.0.2:8080"]),
                frontend("[fd00:10:96::1]:80", Protocol::TCP, &["[fd00:10:244::1]:8080"]),
            ],
        ),
        service("dns", vec![frontend("10.96.0.2:53", Protocol::UDP, &["10.244.0.1:53"])]),
        service("empty", vec![frontend("10.96.0.3:80", Protocol::TCP, &[])]),
    ]
}

#[test]
fn maps_outlive_the_agent_and_a_restart_writes_nothing() {
    node(|node| {
        let services = web();
        let mut dataplane = EbpfDataplane::open(&node.options()).expect("opens");
        let applied = dataplane.reconcile(&mut services.iter()).expect("reconciles");
        assert!(applied.writes > 0 && applied.failed.is_empty(), "{applied:?}");
        let stats = dataplane.stats();
        assert_eq!((stats.frontends4.used, stats.frontends6.used, stats.backends.used), (6, 2, 4));
        let before = dataplane.held().expect("reads");
        drop(dataplane);

        let mut dataplane = EbpfDataplane::open(&node.options()).expect("opens again");
        let applied = dataplane.reconcile(&mut services.iter()).expect("reconciles");
        assert_eq!(applied.writes, 0);
        assert_eq!(dataplane.stats(), stats);
        assert_eq!(dataplane.held().expect("reads").backends, before.backends);

        // A Service that went while no agent ran.
        drop(dataplane);
        let mut dataplane = EbpfDataplane::open(&node.options()).expect("opens again");
        dataplane.reconcile(&mut services[1..].iter()).expect("reconciles");
        let held = dataplane.held().expect("reads");
        let vip = addr("10.96.0.1");
        assert!(!held.frontends.iter().any(|(tuple, _)| tuple.addr == vip));
        let endpoint = Tuple { addr: addr("10.244.0.2"), port: 8080, protocol: 6 };
        assert!(!held.endpoints.iter().any(|(tuple, _)| *tuple == endpoint));
        assert_eq!(dataplane.counters().expect("reads")["forward"], 0);
    });
}

#[test]
fn a_full_map_is_named_and_others_go_on() {
    node(|node| {
        let mut options = node.options();
        options.capacities.slots = 3;
        let mut dataplane = EbpfDataplane::open(&options).expect("opens");
        let services = web();
        dataplane.apply(&services[0].key, Some(&services[0])).expect("fits");
        let started = Instant::now();
        match dataplane.apply(&services[1].key, Some(&services[1])) {
            Err(Error::Full { map: "SLOTS", capacity: 3, setting: "capacitySlots" }) => {}
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < Duration::from_millis(500), "nothing rests: no use waiting");
        dataplane.apply(&services[2].key, Some(&services[2])).expect("needs no slot");
        // What is given back rests for a second; a change that needs it waits rather than fails.
        dataplane.apply(&services[0].key, None).expect("removes");
        dataplane.apply(&services[1].key, Some(&services[1])).expect("fits after the rest");
        assert!(dataplane.problems().is_empty());
    });
}

#[test]
fn a_map_of_another_layout_is_refused_and_cleanup_removes_all() {
    node(|node| {
        let options = node.options();
        drop(EbpfDataplane::open(&options).expect("opens"));
        let maps = pins::maps_dir(&options.pin_dir);
        assert!(world::pins(&maps).contains(&"FRONTENDS4".to_owned()));
        std::fs::remove_file(maps.join("SLOTS")).expect("removes");
        std::fs::rename(maps.join("BACKENDS"), maps.join("SLOTS")).expect("renames");
        match EbpfDataplane::open(&options) {
            Err(error @ Error::Layout { .. }) => assert!(error.to_string().contains("SLOTS"), "{error}"),
            other => panic!("{other:?}"),
        }
        pins::remove_all(&options.pin_dir).expect("removes");
        assert!(!options.pin_dir.exists());
        pins::remove_all(&options.pin_dir).expect("nothing there is fine");
        drop(EbpfDataplane::open(&options).expect("starts afresh"));
    });
}

#[test]
fn a_pin_folder_off_bpffs_says_so() {
    node(|node| {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut options = node.options();
        options.pin_dir = folder.path().join("pins");
        let error = EbpfDataplane::open(&options).expect_err("not a bpffs");
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
        options.mount_bpffs = true;
        let mut dataplane = EbpfDataplane::open(&options).expect("mounts one");
        dataplane.apply(&key("none"), None).expect("works");
        drop(dataplane);
        nix::mount::umount(&options.pin_dir).expect("umount");
    });
}
