//! Services between pods: a node with veths to pods' namespaces, real sockets, both pod hooks, both families.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use eastwest_abi::{frontend_flags, maps};
use eastwest_compile::CompiledService;
use eastwest_dataplane::devices::{DeviceOptions, Follower, PodHook};
use eastwest_dataplane::{Dataplane, EbpfDataplane, pins};
use eastwest_model::Protocol::{TCP, UDP};

use crate::services::{frontend, service};
use crate::world::{Netns, Node, block_on, node, run};

const SOON: Duration = Duration::from_secs(5);

/// Pod number `n` has 10.244.0.n and fd00:10:244::n, point to point with the node.
pub fn pod(n: u8) -> Netns {
    let pod = Netns::new();
    let (host, inside) = (format!("02:00:00:00:01:{n:02x}"), format!("02:00:00:00:02:{n:02x}"));
    run(&format!(
        "ip link add veth-p{n} address {host} type veth peer name eth0 address {inside} netns {}",
        pod.thread_id
    ));
    run(&format!("ip link set veth-p{n} up"));
    run(&format!("ip addr add fe80::1/64 dev veth-p{n} nodad"));
    pod.run(move || {
        run("ip link set eth0 up");
        run(&format!("ip addr add 10.244.0.{n}/32 dev eth0"));
        run(&format!("ip -6 addr add fd00:10:244::{n}/128 dev eth0 nodad"));
        run(&format!("ip neigh add 169.254.1.1 lladdr {host} dev eth0 nud permanent"));
        run(&format!("ip neigh add fe80::1 lladdr {host} dev eth0 nud permanent"));
        run("ip route add 169.254.1.1 dev eth0 scope link");
        run("ip route add default via 169.254.1.1 dev eth0");
        run("ip -6 route add default via fe80::1 dev eth0");
    });
    for addr in [format!("10.244.0.{n}"), format!("fd00:10:244::{n}")] {
        run(&format!("ip route add {addr} dev veth-p{n}"));
        run(&format!("ip neigh add {addr} lladdr {inside} dev veth-p{n} nud permanent"));
    }
    pod
}

pub fn make_router() {
    for (file, value) in
        [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv4/conf/all/rp_filter", "0")]
    {
        std::fs::write(format!("/proc/sys/net/{file}"), value).expect(file);
    }
}

/// Serves in a pod on port 8080 of both families. TCP: a line `pod N sees ADDRESS`, then an echo until the end. UDP: the
/// line for any datagram.
pub fn serve(netns: &Netns, n: u8) {
    netns.run(move || {
        let listener = TcpListener::bind("[::]:8080").expect("binds");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let mut stream = stream.expect("accepts");
                    let peer = stream.peer_addr().expect("peer").ip().to_canonical();
                    let _ = writeln!(stream, "pod {n} sees {peer}");
                    let mut back = stream.try_clone().expect("clones");
                    let _ = std::io::copy(&mut stream, &mut back);
                });
            }
        });
        for bind in [format!("10.244.0.{n}:8080"), format!("[fd00:10:244::{n}]:8080")] {
            let socket = UdpSocket::bind(bind).expect("binds");
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("pod {n} sees {}", from.ip()).as_bytes(), from);
                }
            });
        }
    });
}

pub struct Conversation(TcpStream);

impl Conversation {
    pub fn open(to: &str) -> (Self, String) {
        let to = to.parse().expect("an address");
        let stream = TcpStream::connect_timeout(&to, SOON).unwrap_or_else(|error| panic!("{to}: {error}"));
        Self::begin(stream)
    }

    pub fn begin(stream: TcpStream) -> (Self, String) {
        stream.set_read_timeout(Some(SOON)).expect("sets");
        let mut conversation = Self(stream);
        let mut line = String::new();
        while !line.ends_with('\n') {
            let mut byte = [0];
            conversation.0.read_exact(&mut byte).expect("a line");
            line.push(char::from(byte[0]));
        }
        (conversation, line.trim_end().to_owned())
    }

    pub fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("writes");
        let mut back = vec![0; text.len()];
        self.0.read_exact(&mut back).expect("an echo");
        assert_eq!(back, text.as_bytes());
    }

    pub fn bulk(mut self, bytes: usize) {
        let mut writer = self.0.try_clone().expect("clones");
        let data = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_ne_bytes();
        // Before anybody waits for it: on an emulated machine this alone takes seconds.
        let block: Vec<u8> = (0..bytes / 8).flat_map(data).collect();
        let sent = std::thread::spawn(move || {
            writer.write_all(&block).expect("writes");
            writer.shutdown(std::net::Shutdown::Write).expect("ends");
        });
        let mut back = Vec::with_capacity(bytes);
        self.0.read_to_end(&mut back).expect("reads");
        sent.join().expect("sends");
        assert_eq!(back.len(), bytes / 8 * 8);
        assert!(back.chunks(8).enumerate().all(|(at, chunk)| chunk == data(at)), "data came back changed");
    }
}

pub fn ask_udp(socket: &UdpSocket, to: &str) -> (String, SocketAddr) {
    socket.set_read_timeout(Some(SOON)).expect("sets");
    socket.send_to(b"x", to).unwrap_or_else(|error| panic!("{to}: {error}"));
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{to}: {error}"));
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

pub fn any(to: &str) -> &'static str {
    if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }
}

fn services() -> Vec<CompiledService> {
    let four = ["10.244.0.2:8080", "10.244.0.3:8080"];
    let six = ["[fd00:10:244::2]:8080", "[fd00:10:244::3]:8080"];
    let both = |name: &str, n: u8, four: &[&str], six: &[&str]| {
        let (vip4, vip6) = (format!("10.96.0.{n}:80"), format!("[fd00:10:96::{n}]:80"));
        let frontends = vec![
            frontend(&vip4, TCP, four),
            frontend(&vip4, UDP, four),
            frontend(&vip6, TCP, six),
            frontend(&vip6, UDP, six),
        ];
        service(name, frontends)
    };
    vec![
        both("web", 1, &four, &six),
        both("empty", 2, &[], &[]),
        both("two", 3, &four[..1], &six[..1]),
        both("again-two", 4, &four[..1], &six[..1]),
    ]
}

const WEB: [(&str, &str); 2] = [("10.96.0.1:80", "10.244.0.1"), ("[fd00:10:96::1]:80", "fd00:10:244::1")];

pub struct Agent {
    dataplane: EbpfDataplane,
    _follower: Follower,
}

pub fn agent(node: &Node, hook: PodHook, services: &[CompiledService]) -> Agent {
    let mut dataplane = EbpfDataplane::open(&node.options()).expect("opens");
    let applied = dataplane.reconcile(&mut services.iter()).expect("reconciles");
    assert!(applied.failed.is_empty() && applied.problems.is_empty(), "{applied:?}");
    let options = DeviceOptions { pin_dir: node.pin_dir(), pod_hook: hook, ..DeviceOptions::default() };
    let (follower, states) = block_on(Follower::start(dataplane.programs(), options)).expect("starts");
    assert!(states.borrow().iter().all(|state| state.error.is_none()), "{:?}", states.borrow());
    Agent { dataplane, _follower: follower }
}

fn with_pods(hook: PodHook, test: impl FnOnce(&Node, &[Netns], Agent) + Send + 'static) {
    node(move |node| {
        make_router();
        let pods: Vec<Netns> = (1..=3).map(pod).collect();
        for (netns, n) in pods.iter().zip(1..) {
            serve(netns, n);
        }
        let agent = agent(node, hook, &services());
        test(node, &pods, agent);
    });
}

fn speaks(hook: PodHook) {
    with_pods(hook, |_, pods, agent| {
        pods[0].run(|| {
            for (vip, own) in WEB {
                // TCP: spread, the server sees the client itself, and what is sent comes back.
                let mut seen = HashSet::new();
                for _ in 0..30 {
                    let (mut conversation, line) = Conversation::open(vip);
                    assert_eq!(line.split(" sees ").nth(1), Some(own), "{line}");
                    conversation.say("hello");
                    seen.insert(line);
                }
                assert_eq!(seen.len(), 2, "{vip}: {seen:?}");
                Conversation::open(vip).0.bulk(16 << 20);
                // UDP: spread by socket, and a socket stays with its backend.
                let mut seen = HashSet::new();
                for _ in 0..30 {
                    let socket = UdpSocket::bind(any(vip)).expect("binds");
                    let answers: HashSet<_> = (0..3).map(|_| ask_udp(&socket, vip)).collect();
                    assert_eq!(answers.len(), 1, "{answers:?}");
                    let (line, from) = answers.into_iter().next().expect("one");
                    assert_eq!(from, vip.parse().expect("an address"));
                    assert_eq!(line.split(" sees ").nth(1), Some(own), "{line}");
                    seen.insert(line);
                }
                assert_eq!(seen.len(), 2, "{vip}: {seen:?}");
                // A datagram in several fragments' worth of GSO or none: large but whole.
                let socket = UdpSocket::bind(any(vip)).expect("binds");
                socket.set_read_timeout(Some(SOON)).expect("sets");
                socket.send_to(&[0; 1400], vip).expect("sends");
                socket.recv_from(&mut [0; 2048]).expect("an answer");
            }
            // A pod by its own address.
            for direct in ["10.244.0.2:8080", "[fd00:10:244::2]:8080"] {
                let (mut conversation, line) = Conversation::open(direct);
                assert!(line.starts_with("pod 2 sees "), "{line}");
                conversation.say("direct");
            }
        });
        let counters = agent.dataplane.counters().expect("reads");
        assert!(counters["new_connections"] >= 120 && counters["reverse"] > 0, "{counters:?}");
        let dropped: u64 =
            counters.iter().filter(|(name, _)| name.starts_with("dropped")).map(|(_, count)| count).sum();
        assert_eq!(dropped, 0, "{counters:?}");
    });
}

#[test]
fn pods_speak_through_tc() {
    speaks(PodHook::Tc);
}

#[test]
fn pods_speak_through_xdp() {
    speaks(PodHook::Xdp);
}

fn refuses(hook: PodHook) {
    with_pods(hook, |_, pods, agent| {
        pods[0].run(|| {
            for to in ["10.96.0.2:80", "[fd00:10:96::2]:80", "10.96.0.1:81", "[fd00:10:96::1]:81"] {
                let started = Instant::now();
                let address = to.parse().expect("an address");
                let error = TcpStream::connect_timeout(&address, SOON).expect_err("refused");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
                let socket = UdpSocket::bind(any(to)).expect("binds");
                socket.set_read_timeout(Some(SOON)).expect("sets");
                socket.connect(to).expect("connects");
                socket.send(b"x").expect("sends");
                let error = socket.recv(&mut [0; 10]).expect_err("refused");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
                assert!(started.elapsed() < Duration::from_millis(500), "{to}: {:?}", started.elapsed());
            }
        });
        let counters = agent.dataplane.counters().expect("reads");
        assert_eq!((counters["refused_no_endpoints"], counters["refused_no_port"]), (4, 4), "{counters:?}");
    });
}

#[test]
fn nobody_there_is_refused_at_once_through_tc() {
    refuses(PodHook::Tc);
}

#[test]
fn nobody_there_is_refused_at_once_through_xdp() {
    refuses(PodHook::Xdp);
}

fn calls_itself(hook: PodHook) {
    with_pods(hook, |_, pods, agent| {
        pods[1].run(|| {
            for vip in ["10.96.0.3:80", "[fd00:10:96::3]:80"] {
                let (mut conversation, line) = Conversation::open(vip);
                assert!(line.starts_with("pod 2 sees "), "{line}");
                conversation.say("myself");
                conversation.bulk(4 << 20);
                let socket = UdpSocket::bind(any(vip)).expect("binds");
                let (line, from) = ask_udp(&socket, vip);
                assert!(line.starts_with("pod 2 sees "), "{line}");
                assert_eq!(from, vip.parse().expect("an address"));
            }
        });
        assert!(agent.dataplane.counters().expect("reads")["hairpin"] >= 4);
    });
}

#[test]
fn a_pod_calls_itself_through_tc() {
    calls_itself(PodHook::Tc);
}

#[test]
fn a_pod_calls_itself_through_xdp() {
    calls_itself(PodHook::Xdp);
}

/// A TCP connection from a given local port.
fn connect_from(local: SocketAddr, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    setsockopt(&fd, sockopt::ReuseAddr, &true).expect("sets");
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local)).expect("binds");
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).unwrap_or_else(|error| panic!("{to}: {error}"));
    TcpStream::from(fd)
}

fn one_port_three_ways(hook: PodHook) {
    with_pods(hook, |_, pods, agent| {
        pods[0].run(|| {
            let families: [(&str, [&str; 3]); 2] = [
                ("10.244.0.1", ["10.96.0.3:80", "10.96.0.4:80", "10.244.0.2:8080"]),
                ("fd00:10:244::1", ["[fd00:10:96::3]:80", "[fd00:10:96::4]:80", "[fd00:10:244::2]:8080"]),
            ];
            let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
            for (family, (own, targets)) in families.into_iter().enumerate() {
                for (number, order) in orders.into_iter().enumerate() {
                    let port = 40_000 + u16::try_from(family * 10 + number).expect("small");
                    let local = SocketAddr::new(own.parse::<IpAddr>().expect("an address"), port);
                    let mut open: Vec<(usize, Conversation)> = order
                        .into_iter()
                        .map(|at| {
                            let stream = connect_from(local, targets[at].parse().expect("an address"));
                            let (conversation, line) = Conversation::begin(stream);
                            assert!(line.starts_with("pod 2 sees "), "{line}");
                            (at, conversation)
                        })
                        .collect();
                    for round in 0..3 {
                        for (at, conversation) in &mut open {
                            conversation.say(&format!("round {round} to {}", targets[*at]));
                        }
                    }
                }
            }
        });
        assert!(agent.dataplane.counters().expect("reads")["port_changed"] > 0);
    });
}

#[test]
fn one_source_port_three_ways_to_one_pod_through_tc() {
    one_port_three_ways(PodHook::Tc);
}

#[test]
fn one_source_port_three_ways_to_one_pod_through_xdp() {
    one_port_three_ways(PodHook::Xdp);
}

/// Makes the pins what an agent of ABI 1 left: the same maps and links, with frontends in the layout of then.
fn as_of_abi_1(node: &Node) {
    let (new, old) = (pins::maps_dir(&node.pin_dir()), node.pin_dir().join("v1"));
    std::fs::rename(&new, &old).expect("renames");
    for name in [maps::CONFIG, maps::COUNTERS, maps::SOURCES4, maps::SOURCES6] {
        std::fs::remove_file(old.join(name)).expect("removes");
    }
    rewrite_frontends::<8>(maps::FRONTENDS4, &old);
    rewrite_frontends::<20>(maps::FRONTENDS6, &old);
}

fn rewrite_frontends<const K: usize>(name: &str, folder: &Path) {
    const KIND: u32 = 1;
    const NO_PREALLOC: u32 = 1;
    let path = folder.join(name);
    let now = MapData::from_pin(&path).expect("opens");
    let now = HashMap::<_, [u8; K], [u32; 8]>::try_from(Map::HashMap(now)).expect("a hash map");
    let then = aya_obj::Map::new_from_params(KIND, K as u32, 24, 4096, NO_PREALLOC);
    let then = MapData::create(then, name, None).expect("makes");
    std::fs::remove_file(&path).expect("removes");
    then.pin(&path).expect("pins");
    let mut then = HashMap::<_, [u8; K], [u32; 6]>::try_from(Map::HashMap(then)).expect("a hash map");
    for entry in now.iter() {
        // Service, flags, affinity, padding, and the extents for clients inside and outside.
        let (key, [service, flags, affinity, _, slots, count, ..]) = entry.expect("reads");
        let flags = match flags {
            frontend_flags::ADDRESS => 1,
            0 => 0,
            other => panic!("flags {other:#x} are none of then"),
        };
        then.insert(key, [service, flags, slots, count, affinity, 0], 0).expect("writes");
    }
}

/// An agent finds the pins of ABI 1: connections and backends stay, and nothing is programmed again.
fn is_upgraded(hook: PodHook) {
    with_pods(hook, move |node, pods, running| {
        let open: Vec<_> = WEB.map(|(vip, _)| pods[0].run(move || Conversation::open(vip))).into();
        let udp = WEB.map(|(vip, _)| {
            let socket = pods[0].run(move || UdpSocket::bind(any(vip)).expect("binds"));
            let line = ask_udp(&socket, vip).0;
            (vip, socket, line)
        });
        drop(running);
        as_of_abi_1(node);
        let mut dataplane = EbpfDataplane::open(&node.options()).expect("opens");
        assert!(!node.pin_dir().join("v1").exists(), "the old folder is gone");
        // The hooks are the new programs' before any device is looked at: they find the connections and the backends.
        for (mut conversation, _) in open {
            conversation.say("after the upgrade");
        }
        for (vip, socket, line) in udp {
            assert_eq!(ask_udp(&socket, vip).0, line, "{vip}");
            pods[0].run(move || Conversation::open(vip).0.say("new"));
        }
        assert!(dataplane.counters().expect("reads")["forward"] > 0, "by the new programs");
        let applied = dataplane.reconcile(&mut services().iter()).expect("reconciles");
        assert_eq!(applied.writes, 0);
        let options = DeviceOptions { pin_dir: node.pin_dir(), pod_hook: hook, ..DeviceOptions::default() };
        let (_follower, states) = block_on(Follower::start(dataplane.programs(), options)).expect("starts");
        assert!(states.borrow().iter().all(|state| state.error.is_none()), "{:?}", states.borrow());
        // Pins of an ABI to come are replaced.
        drop(dataplane);
        std::fs::rename(pins::maps_dir(&node.pin_dir()), node.pin_dir().join("v999")).expect("renames");
        let again = agent(node, hook, &services());
        assert!(!node.pin_dir().join("v999").exists(), "the other folder is gone");
        for (vip, _) in WEB {
            pods[0].run(move || Conversation::open(vip).0.say("replaced"));
        }
        assert!(again.dataplane.counters().expect("reads")["forward"] > 0, "by these programs");
    });
}

#[test]
fn pins_of_another_abi_are_taken_over_through_tc() {
    is_upgraded(PodHook::Tc);
}

#[test]
fn pins_of_another_abi_are_taken_over_through_xdp() {
    is_upgraded(PodHook::Xdp);
}

fn survives(hook: PodHook) {
    with_pods(hook, move |node, pods, mut running| {
        for (vip, _) in WEB {
            let (mut tcp, tcp_line) = pods[0].run(move || Conversation::open(vip));
            let udp = pods[0].run(move || UdpSocket::bind(any(vip)).expect("binds"));
            let udp_line = ask_udp(&udp, vip).0;
            drop(running);
            // Without an agent all goes on, new connections too.
            tcp.say("alone");
            assert_eq!(ask_udp(&udp, vip).0, udp_line);
            pods[0].run(move || Conversation::open(vip).0.say("new"));
            running = agent(node, hook, &services());
            tcp.say("with the next agent");
            assert_eq!(ask_udp(&udp, vip).0, udp_line);

            // Its backends leave the Service: TCP lives on, UDP goes to the other one at once, new ones never there.
            for (line, is_tcp) in [(&tcp_line, true), (&udp_line, false)] {
                let gone = &line[..5];
                let mut changed = services().remove(0);
                for frontend in &mut changed.frontends {
                    let left: Vec<_> = frontend
                        .inside
                        .backends
                        .iter()
                        .filter(|backend| !backend.addr.to_string().ends_with(&gone[4..]))
                        .copied()
                        .collect();
                    assert_eq!(left.len(), 1);
                    frontend.inside.backends = left.into();
                    frontend.outside = frontend.inside.clone();
                }
                running.dataplane.apply(&changed.key, Some(&changed)).expect("applies");
                if is_tcp {
                    tcp.say("still here");
                } else {
                    let line = ask_udp(&udp, vip).0;
                    assert!(!line.starts_with(gone), "{line} though {gone} left");
                }
                for _ in 0..8 {
                    let line = pods[0].run(move || Conversation::open(vip).1);
                    assert!(!line.starts_with(gone), "{line} though {gone} left");
                }
            }
            running.dataplane.reconcile(&mut services().iter()).expect("reconciles");
        }
    });
}

#[test]
fn restarts_and_changes_keep_connections_through_tc() {
    survives(PodHook::Tc);
}

#[test]
fn restarts_and_changes_keep_connections_through_xdp() {
    survives(PodHook::Xdp);
}
