use std::time::{Duration, Instant};

use eastwest_dataplane::devices::{DeviceOptions, Follower, NicMode, PodHook};
use eastwest_dataplane::{EbpfDataplane, pins};
use eastwest_model::DeviceState;
use tokio::sync::watch;

use crate::world::{self, Netns, Node, block_on, node, node_alone, run};

fn options(node: &Node) -> DeviceOptions {
    DeviceOptions { pin_dir: node.pin_dir(), ..DeviceOptions::default() }
}

fn links(node: &Node) -> Vec<String> {
    world::pins(&pins::links_dir(&node.pin_dir()))
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("device")
}

async fn until(
    states: &mut watch::Receiver<Vec<DeviceState>>,
    what: &str,
    wanted: impl Fn(&[DeviceState]) -> bool,
) -> Vec<DeviceState> {
    let found = tokio::time::timeout(Duration::from_secs(20), states.wait_for(|states| wanted(states)))
        .await
        .ok()
        .map(|found| found.expect("the follower runs").clone());
    found.unwrap_or_else(|| panic!("{what}: still {:?}", states.borrow().clone()))
}

async fn until_unpinned(node: &Node, index: u32) {
    let started = Instant::now();
    while links(node).iter().any(|pin| pin.starts_with(&format!("{index}-"))) {
        assert!(started.elapsed() < Duration::from_secs(5), "pins of {index} stay: {:?}", links(node));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn hooked(states: &[DeviceState], name: &str) -> bool {
    states.iter().any(|state| state.name == name && state.error.is_none() && !state.mode.is_empty())
}

#[test]
fn pods_are_hooked_as_they_come_and_forgotten_as_they_go() {
    node_alone(|node| {
        let pod = Netns::new();
        // There before the agent.
        run(&format!("ip link add veth-early type veth peer name eth0 netns {}", pod.thread_id));
        run("ip link add veth-here type veth peer name veth-there");
        let dataplane = EbpfDataplane::open(&node.options()).expect("opens");
        block_on(async {
            let (follower, mut states) =
                Follower::start(dataplane.programs(), options(node)).await.expect("starts");
            assert!(hooked(&states.borrow(), "veth-early"), "hooked before start returns");
            assert_eq!(
                states.borrow().len(),
                1,
                "a veth pair in one namespace is no pod's: {:?}",
                states.borrow()
            );
            let task = tokio::spawn(follower.run());

            // A new one: hooked within milliseconds, by the kernel's own account too.
            let mut taken = Vec::new();
            for round in 0..20 {
                let name = format!("veth-{round}");
                let command = format!(
                    "ip link add {name} type veth peer name eth{} netns {}",
                    round + 1,
                    pod.thread_id
                );
                run(&command);
                let made = Instant::now();
                until(&mut states, &name, |states| hooked(states, &name)).await;
                taken.push(made.elapsed());
            }
            taken.sort();
            let shown = until(&mut states, "all", |states| {
                states.iter().filter(|state| !state.mode.is_empty()).count() == 21
            })
            .await;
            let mut reported: Vec<u64> = shown.iter().map(|state| state.hook_latency_us).collect();
            reported.sort_unstable();
            println!("hooked {taken:?} after `ip link add` returned; by our account {reported:?} us");
            assert!(taken[taken.len() / 2] < Duration::from_millis(50), "{taken:?}");

            // The peer leaves later, as some CNI plugins do it; the host side's coming up is what is announced.
            run(&format!("ip link set veth-there netns {}", pod.thread_id));
            run("ip link set veth-here up");
            until(&mut states, "peer moved", |states| hooked(states, "veth-here")).await;
            // So does the host side, from the pod's namespace.
            let thread = world::gettid();
            pod.run(move || {
                run("ip link add veth-moved type veth peer name eth99");
                run(&format!("ip link set veth-moved netns {thread}"));
            });
            until(&mut states, "moved in", |states| hooked(states, "veth-moved")).await;

            let renamed = index("veth-0");
            run("ip link set veth-0 name veth-renamed");
            let shown = until(&mut states, "renamed", |states| hooked(states, "veth-renamed")).await;
            assert!(shown.iter().any(|state| state.index == renamed && state.name == "veth-renamed"));
            run("ip link set veth-renamed name other0");
            until(&mut states, "not ours by name", |states| {
                !states.iter().any(|state| state.index == renamed)
            })
            .await;
            until_unpinned(node, renamed).await;
            let started = Instant::now();
            while !programs_at("other0").is_empty() {
                assert!(started.elapsed() < Duration::from_secs(5), "still hooked");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }

            let gone = index("veth-1");
            run("ip link del veth-1");
            run(&format!("ip link add veth-1 type veth peer name again netns {}", pod.thread_id));
            until(&mut states, "same name again", |states| {
                hooked(states, "veth-1") && !states.iter().any(|state| state.index == gone)
            })
            .await;
            until_unpinned(node, gone).await;
            task.abort();
        });
    });
}

/// The kernel has TCX (Linux 6.6); else hooks are clsact filters.
fn tcx() -> bool {
    use aya::util::KernelVersion;
    KernelVersion::current().expect("a version") >= KernelVersion::new(6, 6, 0)
}

/// How a tc hook shows.
fn tc() -> &'static str {
    if tcx() { "tc" } else { "clsact" }
}

/// Ids of the programs that a packet meets at tc ingress.
fn programs_at(name: &str) -> Vec<u32> {
    use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
    if tcx() {
        let (_, programs) = SchedClassifier::query_tcx(name, TcAttachType::Ingress).expect("queries");
        return programs.iter().map(ProgramInfo::id).collect();
    }
    let shown = run(&format!("tc filter show dev {name} ingress"));
    shown.lines().filter_map(|line| line.split(" id ").nth(1)?.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn a_restart_replaces_programs_and_sweeps_what_is_gone() {
    node(|node| {
        let pod = Netns::new();
        for name in ["veth-a", "veth-b"] {
            run(&format!("ip link add {name} type veth peer name {name} netns {}", pod.thread_id));
        }
        let start = |hook| {
            let dataplane = EbpfDataplane::open(&node.options()).expect("opens");
            block_on(async {
                let options = DeviceOptions { pod_hook: hook, ..options(node) };
                let (_, states) = Follower::start(dataplane.programs(), options).await.expect("starts");
                states.borrow().clone()
            })
        };
        let gone = index("veth-b");
        start(PodHook::Tc);
        let first = programs_at("veth-a");
        assert_eq!(first.len(), 1, "the hook stays without an agent");
        run("ip link del veth-b");
        let states = start(PodHook::Tc);
        assert_eq!(states.len(), 1);
        let second = programs_at("veth-a");
        assert_eq!(second.len(), 1);
        assert_ne!(first, second, "the new agent's program");
        block_on(until_unpinned(node, gone));

        // Another setting: nothing of the old one is left.
        let states = start(PodHook::Xdp);
        assert_eq!(states[0].mode, "xdp-generic");
        let here = index("veth-a");
        let expected = ["pod_egress_tc", "pod_handover_tc", "pod_ingress_xdp-generic"];
        let expected = if tcx() { &expected[..] } else { &expected[2..] };
        assert_eq!(links(node), expected.iter().map(|name| format!("{here}-{name}")).collect::<Vec<_>>());
        assert!(run("ip -d link show dev veth-a").contains("xdpgeneric"));
        start(PodHook::Tc);
        assert!(!run("ip -d link show dev veth-a").contains("xdp"));
    });
}

#[test]
fn nics_are_found_and_fall_back_to_generic_mode() {
    node(|node| {
        let far = Netns::new();
        run(&format!("ip link add eth0 type veth peer name far0 netns {}", far.thread_id));
        run(&format!("ip link add veth-nic type veth peer name far1 netns {}", far.thread_id));
        // It has no native XDP. A veth has, but is not trusted to have it at both ends.
        run("ip link add big0 mtu 9000 type bridge");
        for (name, address) in
            [("eth0", "192.0.2.1/24"), ("veth-nic", "198.51.100.1/24"), ("big0", "203.0.113.1/24")]
        {
            run(&format!("ip link set {name} up"));
            run(&format!("ip addr add {address} dev {name}"));
        }
        far.run(|| {
            for name in ["far0", "far1"] {
                run(&format!("ip link set {name} up"));
            }
        });
        run("ip route add default via 192.0.2.2");
        let dataplane = EbpfDataplane::open(&node.options()).expect("opens");
        block_on(async {
            let node_addresses = vec![crate::services::addr("203.0.113.1")];
            let options = DeviceOptions { node_addresses, ..options(node) };
            let (follower, mut states) =
                Follower::start(dataplane.programs(), options).await.expect("starts");
            let modes = |states: &[DeviceState]| -> Vec<(String, String, String)> {
                states
                    .iter()
                    .map(|state| (state.name.clone(), state.role.clone(), state.mode.clone()))
                    .collect()
            };
            let row =
                |name: &str, role: &str, mode: &str| (name.to_owned(), role.to_owned(), mode.to_owned());
            let expected = [
                row("eth0", "nic", "xdp-generic"),
                row("veth-nic", "pod", tc()),
                row("big0", "nic", "xdp-generic"),
            ];
            assert_eq!(modes(&states.borrow()), expected);
            let task = tokio::spawn(follower.run());
            // A default route makes a NIC of what was taken for a pod's, and its going unmakes it.
            run("ip route add default via 198.51.100.2 metric 5");
            until(&mut states, "second NIC", |states| {
                modes(states).contains(&row("veth-nic", "nic", "xdp-generic"))
            })
            .await;
            run("ip route del default via 198.51.100.2 metric 5");
            until(&mut states, "a pod's again", |states| {
                modes(states).contains(&row("veth-nic", "pod", tc()))
            })
            .await;
            run("ip addr del 203.0.113.1/24 dev big0");
            until(&mut states, "no NIC any more", |states| states.len() == 2).await;
            task.abort();

            let options = DeviceOptions {
                pin_dir: node.pin_dir(),
                nic_mode: NicMode::Tc,
                nic_devices: vec!["eth?".into()],
                ..DeviceOptions::default()
            };
            let (_, states) = Follower::start(dataplane.programs(), options).await.expect("starts");
            assert_eq!(modes(&states.borrow()), [row("eth0", "nic", tc()), row("veth-nic", "pod", tc())]);
        });
    });
}

#[test]
fn a_failed_hook_says_why_and_is_tried_again() {
    node(|node| {
        let pod = Netns::new();
        run(&format!("ip link add veth-a type veth peer name eth0 netns {}", pod.thread_id));
        let dataplane = EbpfDataplane::open(&node.options()).expect("opens");
        let other = node.pin_dir().with_file_name("other");
        let mut theirs = node.options();
        theirs.pin_dir.clone_from(&other);
        let others = EbpfDataplane::open(&theirs).expect("opens");
        block_on(async {
            // Another's XDP program is on it already.
            let xdp = |pin_dir| DeviceOptions { pin_dir, pod_hook: PodHook::Xdp, ..DeviceOptions::default() };
            drop(Follower::start(others.programs(), xdp(other.clone())).await.expect("starts"));
            let (follower, mut states) =
                Follower::start(dataplane.programs(), xdp(node.pin_dir())).await.expect("starts");
            let error = states.borrow()[0].error.clone().expect("busy");
            assert!(error.contains("pod_ingress_xdp") && error.contains("veth-a"), "{error}");
            let task = tokio::spawn(follower.run());
            pins::remove_all(&other).expect("removes");
            until(&mut states, "tried again", |states| hooked(states, "veth-a")).await;
            task.abort();
        });
    });
}

#[test]
fn hundreds_of_devices_at_once() {
    node(|node| {
        let pod = Netns::new();
        let dataplane = EbpfDataplane::open(&node.options()).expect("opens");
        block_on(async {
            let (follower, mut states) =
                Follower::start(dataplane.programs(), options(node)).await.expect("starts");
            let task = tokio::spawn(follower.run());
            let batch: String = (0..100)
                .map(|number| {
                    format!("link add veth{number} type veth peer name p{number} netns {}\n", pod.thread_id)
                })
                .collect();
            let file = tempfile::NamedTempFile::new().expect("file");
            std::fs::write(file.path(), batch).expect("writes");
            run(&format!("ip -batch {}", file.path().display()));
            until(&mut states, "all", |states| {
                states.iter().filter(|state| !state.mode.is_empty()).count() == 100
            })
            .await;
            task.abort();
        });
    });
}
