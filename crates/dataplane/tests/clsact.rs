//! Filters of a clsact qdisc, in a network namespace of the test's own. Needs root. Runs on every kernel; on one without
//! TCX it is what pods and NICs depend on.

use std::process::Command;

use aya::EbpfLoader;
use aya::programs::{SchedClassifier, tc::TcAttachType};
use eastwest_dataplane::{clsact, object};
use nix::sched::{CloneFlags, unshare};

const SIDES: [(&str, TcAttachType); 2] =
    [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)];

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().expect("iproute2 is installed");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Ids of the programs behind filters of this side, as `tc` shows them.
fn programs(device: &str, side: &str) -> Vec<u32> {
    let shown = run(&format!("tc filter show dev {device} {side}"));
    shown.lines().filter_map(|line| line.split(" id ").nth(1)?.split(' ').next()?.parse().ok()).collect()
}

/// As an agent does it: loads the object anew and attaches; everything it holds is gone at the end.
fn agent(device: &str) {
    let mut loader = EbpfLoader::new();
    for map in ["FRONTENDS4", "FRONTENDS6", "BACKENDS", "SLOTS", "ENDPOINTS4", "ENDPOINTS6"] {
        loader.map_max_entries(map, 16);
    }
    for map in ["CONNTRACK4", "CONNTRACK6", "SOCKETS"] {
        loader.map_max_entries(map, 1024);
    }
    let mut ebpf = loader.load(object::OBJECT).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut("empty_tc").unwrap().try_into().unwrap();
    program.load().unwrap();
    for (_, side) in SIDES {
        clsact::attach(program, device, side).unwrap();
    }
}

#[test]
fn filters_outlive_the_agent_are_replaced_in_place_and_found_again() {
    assert_eq!(
        nix::unistd::geteuid().as_raw(),
        0,
        "needs root: it loads programs and makes a network namespace"
    );
    // The namespace is this thread's and those it starts.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    run("ip link add veth0 type veth peer name veth1");
    run("tc qdisc add dev veth1 clsact");
    let other = ["filter", "add", "dev", "veth1", "ingress", "prio", "20", "bpf", "bytecode", "1,6 0 0 0"];
    assert!(Command::new("tc").args(other).status().unwrap().success());

    agent("veth0");
    let first: Vec<_> = SIDES.iter().flat_map(|(side, _)| programs("veth0", side)).collect();
    assert_eq!(first.len(), 2, "one filter on each side stays");

    agent("veth0");
    let second: Vec<_> = SIDES.iter().flat_map(|(side, _)| programs("veth0", side)).collect();
    assert_eq!(second.len(), 2, "the next agent adds none");
    assert!(second.iter().all(|id| !first.contains(id)), "and its program is the one that runs");

    // A qdisc and a filter of somebody else's stay.
    agent("veth1");
    for (_, side) in SIDES {
        clsact::detach("veth0", side).unwrap();
        clsact::detach("veth1", side).unwrap();
        clsact::detach("veth1", side).unwrap();
        clsact::detach("nowhere", side).unwrap();
    }
    for device in ["veth0", "veth1"] {
        for (side, _) in SIDES {
            assert_eq!(programs(device, side), [0; 0], "{device} {side}");
        }
    }
    assert!(run("tc filter show dev veth1 ingress").contains("pref 20 bpf"));
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let mut ebpf = EbpfLoader::new();
    for map in ["FRONTENDS4", "FRONTENDS6", "BACKENDS", "SLOTS", "ENDPOINTS4", "ENDPOINTS6", "CONNTRACK4"] {
        ebpf.map_max_entries(map, 1024);
    }
    let mut ebpf = ebpf.load(object::OBJECT).expect("needs root: it loads programs");
    let program: &mut SchedClassifier = ebpf.program_mut("empty_tc").unwrap().try_into().unwrap();
    program.load().unwrap();
    let error = clsact::attach(program, "nowhere0", TcAttachType::Ingress).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENODEV as i32), "{error}");
}
