//! Clients outside that send to a virtual address routed to the node: all NIC modes, both families, backends on the node
//! and elsewhere. No neighbour is known beforehand.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use eastwest_compile::{Backend, CompiledService, Frontend};
use eastwest_dataplane::devices::{DeviceOptions, Follower, NicMode};
use eastwest_dataplane::{Dataplane, EbpfDataplane, Options};
use eastwest_model::Protocol::{TCP, UDP};
use eastwest_packet::host::Spec;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::pods::{Conversation, any, ask_udp, make_router, pod, serve};
use crate::services::{addr, frontend, service};
use crate::world::{Netns, block_on, gettid, node, run};

/// A machine on the fabric with 10.0.0.n and fd00:10::n.
fn machine(fabric: &Netns, n: u8) -> Netns {
    let machine = Netns::new();
    plug(fabric, machine.thread_id, n, "eth0");
    machine.run(move || configure("eth0", n));
    machine
}

/// A veth from the fabric's bridge to a thread's namespace.
fn plug(fabric: &Netns, thread_id: i32, n: u8, name: &'static str) {
    fabric.run(move || {
        run(&format!("ip link add port{n} type veth peer name {name} netns {thread_id}"));
        run(&format!("ip link set port{n} master bridge up"));
    });
}

fn configure(device: &str, n: u8) {
    run(&format!("ip link set {device} up"));
    run(&format!("ip addr add 10.0.0.{n}/24 dev {device}"));
    run(&format!("ip -6 addr add fd00:10::{n}/64 dev {device} nodad"));
}

/// A VXLAN device between two machines of the fabric.
fn tunnel(device: &'static str, n: u8, other: u8) {
    run(&format!(
        "ip link add tun0 type vxlan id 7 dev {device} local 10.0.0.{n} remote 10.0.0.{other} dstport 8472"
    ));
    second("tun0", n);
}

/// Another network between two machines.
fn second(device: &'static str, n: u8) {
    run(&format!("ip link set {device} up"));
    run(&format!("ip addr add 10.9.0.{n}/24 dev {device}"));
    run(&format!("ip -6 addr add fd00:9::{n}/64 dev {device} nodad"));
}

/// VLAN devices on one another, the first on a NIC.
fn tag(devices: &[&str]) {
    run(&format!("ip link set {} up", devices[0]));
    for (pair, kind) in devices.windows(2).zip(["802.1ad", "802.1Q"].iter().skip(3 - devices.len())) {
        run(&format!("ip link add link {} name {} type vlan id 7 protocol {kind}", pair[0], pair[1]));
        run(&format!("ip link set {} up", pair[1]));
    }
}

/// The same at the fabric's end: the bridge sees packets without tags.
fn untag(devices: &[&str]) {
    run(&format!("ip link set {} nomaster", devices[0]));
    tag(devices);
    run("ip link set inside master bridge");
}

fn elsewhere(mut frontend: Frontend) -> Frontend {
    let remote = |backend: &Backend| Backend { local: false, ..*backend };
    for targets in [&mut frontend.inside, &mut frontend.outside] {
        targets.backends = targets.backends.iter().map(remote).collect();
    }
    frontend
}

/// `here` has pod 2 behind it, `there` pod 3's place: a machine of its own that serves as pod 9.
fn services() -> Vec<CompiledService> {
    let both = |make: &dyn Fn(&str, &str) -> [Frontend; 2], four: [&str; 2], six: [&str; 2]| {
        [make(four[0], four[1]), make(six[0], six[1])].into_iter().flatten().collect::<Vec<_>>()
    };
    let here = |vip: &str, to: &str| [frontend(vip, TCP, &[to]), frontend(vip, UDP, &[to])];
    let there = |vip: &str, to: &str| here(vip, to).map(elsewhere);
    vec![
        service(
            "here",
            both(&here, ["10.96.0.1:80", "10.244.0.2:8080"], ["[fd00:10:96::1]:80", "[fd00:10:244::2]:8080"]),
        ),
        service(
            "there",
            both(
                &there,
                ["10.96.0.2:80", "10.244.0.9:8080"],
                ["[fd00:10:96::2]:80", "[fd00:10:244::9]:8080"],
            ),
        ),
    ]
}

/// How the node is wired.
#[derive(Clone, Copy, PartialEq)]
enum Wiring {
    /// By its NIC.
    Plain,
    /// The NIC is the port of a bridge, which has the node's address.
    Bridge,
    /// The other machine's pods are behind a VXLAN device.
    Tunnel,
    /// The other machine's pods are behind a second NIC.
    TwoNics,
    /// The fabric tags the node's packets, and the node's address is on a VLAN device.
    Vlan,
    /// The same with two tags.
    TwoTags,
    /// The NIC is part of a bond, which has the node's address.
    Bond,
}

fn outside(mode: NicMode, wiring: Wiring) {
    node(move |node| {
        make_router();
        let fabric = Netns::new();
        fabric.run(|| run("ip link add bridge type bridge forward_delay 0"));
        fabric.run(|| run("ip link set bridge up"));
        plug(&fabric, gettid(), 1, "nic0");
        let nic = match wiring {
            Wiring::Plain | Wiring::Tunnel | Wiring::TwoNics => "nic0",
            _ => "up0",
        };
        match wiring {
            Wiring::Bridge => {
                run("ip link add up0 type bridge forward_delay 0");
                run("ip link set nic0 master up0 up");
            }
            Wiring::Bond => {
                run("ip link add up0 type bond mode active-backup");
                run("ip link set nic0 master up0");
            }
            Wiring::Vlan => {
                tag(&["nic0", "up0"]);
                fabric.run(|| untag(&["port1", "inside"]));
            }
            Wiring::TwoTags => {
                tag(&["nic0", "nic0.7", "up0"]);
                fabric.run(|| untag(&["port1", "port1.7", "inside"]));
            }
            _ => {}
        }
        configure(nic, 1);
        let client = machine(&fabric, 50);
        client.run(|| {
            run("ip route add 10.96.0.0/16 via 10.0.0.1");
            run("ip -6 route add fd00:10:96::/112 via fd00:10::1");
        });
        let remote = machine(&fabric, 2);
        remote.run(|| {
            run("ip addr add 10.244.0.9/32 dev lo");
            run("ip -6 addr add fd00:10:244::9/128 dev lo nodad");
        });
        serve(&remote, 9);
        match wiring {
            Wiring::Plain | Wiring::Bridge | Wiring::Vlan | Wiring::TwoTags | Wiring::Bond => {
                run("ip route add 10.244.0.9/32 via 10.0.0.2");
                run("ip -6 route add fd00:10:244::9/128 via fd00:10::2");
            }
            Wiring::Tunnel => {
                tunnel("nic0", 1, 2);
                remote.run(|| tunnel("eth0", 2, 1));
                run("ip route add 10.244.0.9/32 via 10.9.0.2");
                run("ip -6 route add fd00:10:244::9/128 via fd00:9::2");
            }
            Wiring::TwoNics => {
                run(&format!("ip link add nic1 type veth peer name eth1 netns {}", remote.thread_id));
                remote.run(|| second("eth1", 2));
                second("nic1", 1);
                run("ip route add 10.244.0.9/32 via 10.9.0.2");
                run("ip -6 route add fd00:10:244::9/128 via fd00:9::2");
            }
        }
        // A native XDP program sends into the fabric only where the other end of the NIC's veth polls.
        fabric.run(|| run("ethtool -K port1 gro on"));
        let local = pod(2);
        serve(&local, 2);
        run("ip route add blackhole 10.96.0.0/16");
        run("ip -6 route add blackhole fd00:10:96::/112");

        let node_addresses = vec![addr("10.0.0.1"), addr("fd00:10::1")];
        let options = Options { node_addresses: node_addresses.clone(), ..node.options() };
        let mut dataplane = EbpfDataplane::open(&options).expect("opens");
        let services = services();
        dataplane.reconcile(&mut services.iter()).expect("reconciles");
        let devices = DeviceOptions {
            pin_dir: node.pin_dir(),
            nic_mode: mode,
            nic_devices: vec![nic.into(), "nic1".into()],
            node_addresses,
            ..DeviceOptions::default()
        };
        let (_follower, states) = block_on(Follower::start(dataplane.programs(), devices)).expect("starts");
        assert!(states.borrow().iter().all(|state| state.error.is_none()), "{:?}", states.borrow());

        client.run(|| {
            for (vip, server, seen) in [
                ("10.96.0.1:80", 2, "10.0.0.50"),
                ("[fd00:10:96::1]:80", 2, "fd00:10::50"),
                ("10.96.0.2:80", 9, "10.0.0.1"),
                ("[fd00:10:96::2]:80", 9, "fd00:10::1"),
            ] {
                let wanted = format!("pod {server} sees {seen}");
                // UDP first: its first packet is not sent again.
                let socket = UdpSocket::bind(any(vip)).expect("binds");
                for _ in 0..3 {
                    let (line, from) = ask_udp(&socket, vip);
                    assert_eq!((line.as_str(), from), (wanted.as_str(), vip.parse().expect("an address")));
                }
                let (mut conversation, line) = Conversation::open(vip);
                assert_eq!(line, wanted);
                conversation.say("from outside");
                conversation.bulk(4 << 20);
            }
        });
        if wiring == Wiring::Plain {
            // Without a program at its other end a veth does not wake for what XDP sends there.
            priority_tagged(&client, mode != NicMode::XdpNative);
        }
        let counters = dataplane.counters().expect("reads");
        let dropped: u64 =
            counters.iter().filter(|(name, _)| name.starts_with("dropped")).map(|(_, count)| count).sum();
        assert_eq!(dropped, 0, "{counters:?}");
        assert!(counters["redirect"] > 0, "{counters:?}");
    });
}

/// A client whose packets have a tag with a priority and no VLAN is served as all are.
fn priority_tagged(client: &Netns, elsewhere: bool) {
    let link = run("ip -o link show nic0");
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("an address");
    let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
    client.run(move || {
        for (from, vip, server, seen) in [
            ("10.0.0.50", "10.96.0.1:80", 2, "10.0.0.50"),
            ("[fd00:10::50]", "[fd00:10:96::1]:80", 2, "fd00:10::50"),
            ("10.0.0.50", "10.96.0.2:80", 9, "10.0.0.1"),
            ("[fd00:10::50]", "[fd00:10:96::2]:80", 9, "fd00:10::1"),
        ] {
            if server == 9 && !elsewhere {
                continue;
            }
            let socket = UdpSocket::bind(format!("{from}:0")).expect("binds");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
            let words = format!("udp {} > {vip} len=4", socket.local_addr().expect("bound"));
            let mut frame = words.parse::<Spec>().expect("words").bytes();
            frame[..6].copy_from_slice(&mac);
            frame.splice(12..12, [0x81, 0x00, 0x60, 0x00]);
            send_frame("eth0", &frame);
            let mut answer = [0; 256];
            let (length, by) =
                socket.recv_from(&mut answer).unwrap_or_else(|error| panic!("{words}: {error}"));
            let wanted = format!("pod {server} sees {seen}");
            assert_eq!((&answer[..length], by), (wanted.as_bytes(), vip.parse().expect("an address")));
        }
    });
}

/// Sends bytes out of a device as they are.
fn send_frame(device: &str, frame: &[u8]) {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).expect("a socket");
    let index = nix::net::if_::if_nametoindex(device).expect("a device");
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: both are as long as told.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

#[test]
fn clients_outside_are_served_by_native_xdp() {
    outside(NicMode::XdpNative, Wiring::Plain);
}

#[test]
fn clients_outside_are_served_by_generic_xdp() {
    outside(NicMode::XdpGeneric, Wiring::Plain);
}

#[test]
fn clients_outside_are_served_by_tc() {
    outside(NicMode::Tc, Wiring::Plain);
}

#[test]
fn an_uplink_that_is_a_bridge() {
    outside(NicMode::Auto, Wiring::Bridge);
}

/// This and the next two run where the kernel has such devices: tests/old-kernel does.
#[test]
#[ignore = "needs a kernel with 8021q"]
fn an_uplink_that_is_a_vlan() {
    for mode in [NicMode::Auto, NicMode::Tc] {
        outside(mode, Wiring::Vlan);
    }
}

#[test]
#[ignore = "needs a kernel with 8021q"]
fn an_uplink_with_two_tags() {
    outside(NicMode::Auto, Wiring::TwoTags);
}

#[test]
#[ignore = "needs a kernel with bonding"]
fn an_uplink_that_is_a_bond() {
    for mode in [NicMode::Auto, NicMode::Tc] {
        outside(mode, Wiring::Bond);
    }
}

#[test]
fn pods_behind_a_tunnel() {
    for mode in [NicMode::XdpNative, NicMode::XdpGeneric, NicMode::Tc] {
        outside(mode, Wiring::Tunnel);
    }
}

#[test]
fn pods_behind_another_nic() {
    for mode in [NicMode::XdpNative, NicMode::XdpGeneric, NicMode::Tc] {
        outside(mode, Wiring::TwoNics);
    }
}
