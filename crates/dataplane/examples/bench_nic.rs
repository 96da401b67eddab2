//! UDP packets of 60 bytes from a client outside, by the node's NIC, to a backend on another node, with many Services:
//! packets a second that arrive, through native XDP and through the rules that kube-proxy writes for nftables and for
//! iptables. Prints JSON. Needs root: it makes namespaces of its own, which go with it.
//!
//! `cargo run -p eastwest-dataplane --release --example bench_nic [SERVICES] [ROUNDS]` (default 10000 12)
//!
//! The NICs are veths. A test-run of live frames in the client's namespace sends (`send_xdp`), and an XDP program behind
//! the backend's device counts and drops (`sink_xdp`), so that one CPU does all three: what is sent, carried and counted
//! costs the same on each way but for what carries it.

#[path = "../tests/kernel/services.rs"]
#[allow(dead_code)]
mod services;
#[path = "../tests/kernel/world.rs"]
#[allow(dead_code)]
mod world;

use std::fmt::Write;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use eastwest_abi::{globals, programs};
use eastwest_compile::Backend;
use eastwest_dataplane::devices::{DeviceOptions, Follower, NicMode};
use eastwest_dataplane::object::OBJECT;
use eastwest_dataplane::{Capacities, Dataplane, EbpfDataplane, Options};
use eastwest_model::Protocol;
use services::{addr, frontend, service};
use world::{Netns, Node, node, run};

/// Frames that the kernel makes at once.
const BATCH: u32 = 64;
/// One measurement, of which the best counts: whatever else the machine does only takes away.
const ROUND: Duration = Duration::from_millis(250);
const FLOWS: [u32; 2] = [1, 1000];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0x50];
const NIC: [u8; 6] = [2, 0, 0, 0, 0, 1];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Xdp,
    Nftables,
    Iptables,
}

/// Address of a Service; the packets go to the first.
fn vip(number: u32) -> String {
    format!("10.96.{}.{}", number / 250, 1 + number % 250)
}

/// Its endpoint; the first is there.
fn endpoint(number: u32) -> String {
    if number == 0 { "10.9.0.2".into() } else { format!("10.250.{}.{}", number / 250, 1 + number % 250) }
}

/// Ethernet, IPv4 and UDP as `send_xdp` wants them.
fn headers() -> [u32; 11] {
    let mut bytes = Vec::new();
    bytes.extend(NIC);
    bytes.extend(CLIENT);
    bytes.extend([8, 0]);
    let mut ip = [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 50, 10, 96, 0, 1];
    let sum = |bytes: &[u8]| {
        let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum: u32 = words.sum();
        !(((sum & 0xffff) + (sum >> 16)) as u16)
    };
    let checksum = sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(ip);
    // 18 bytes of zeros are the payload.
    let mut udp = [0, 0, 0, 80, 0, 26, 0, 0];
    let pseudo: Vec<u8> = ip[12..].iter().chain(&[0, 17, 0, 26]).chain(&udp).copied().collect();
    let checksum = sum(&pseudo);
    udp[6..].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(udp);
    bytes.extend([0, 0]);
    let mut words = [0; 11];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// Client, node and backend in a row.
struct Row {
    client: Netns,
    backend: Netns,
}

fn wire() -> Row {
    let (client, backend) = (Netns::new(), Netns::new());
    run(&format!(
        "ip link add nic0 address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:50 netns {}",
        client.thread_id
    ));
    run(&format!(
        "ip link add nic1 address 02:00:00:00:01:01 type veth peer name eth0 address 02:00:00:00:01:02 netns {}",
        backend.thread_id
    ));
    for (nic, address, neighbour, link) in [
        ("nic0", "10.0.0.1/24", "10.0.0.50", "02:00:00:00:00:50"),
        ("nic1", "10.9.0.1/24", "10.9.0.2", "02:00:00:00:01:02"),
    ] {
        run(&format!("ip link set {nic} up"));
        run(&format!("ip addr add {address} dev {nic}"));
        run(&format!("ip neigh add {neighbour} lladdr {link} dev {nic} nud permanent"));
        // A veth takes frames from XDP where its other end polls.
        run(&format!("ethtool -K {nic} gro on"));
    }
    run("sysctl -qw net.ipv4.conf.all.forwarding=1");
    client.run(|| run("ip link set eth0 up"));
    backend.run(|| {
        run("ip link set eth0 up");
        run("ip addr add 10.9.0.2/24 dev eth0");
    });
    Row { client, backend }
}

fn load(flows: u32) -> Ebpf {
    let mut loader = EbpfLoader::new();
    for name in eastwest_abi_maps() {
        loader.map_max_entries(name, 64);
    }
    let headers = headers();
    loader.override_global(globals::SEND, &headers, true);
    loader.override_global(globals::SEND_FLOWS, &flows, true);
    loader.load(OBJECT).expect("the object")
}

/// Maps that come with the object and are not used here.
fn eastwest_abi_maps() -> [&'static str; 15] {
    use eastwest_abi::maps::*;
    [
        FRONTENDS4, FRONTENDS6, BACKENDS, SLOTS, ENDPOINTS4, ENDPOINTS6, CONNTRACK4, CONNTRACK6, SOCKETS,
        AFFINITY4, AFFINITY6, SOURCES4, SOURCES6, FRAGMENTS4, FRAGMENTS6,
    ]
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    let program: &mut Xdp = ebpf.program_mut(name).expect(name).try_into().expect(name);
    program.load().expect(name);
    program
}

/// Packets that have come to the backend.
fn arrived(backend: &Netns) -> u64 {
    let text = backend.run(|| run("ip -s -j link show eth0"));
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON of ip");
    json[0]["stats64"]["rx"]["packets"].as_u64().expect("a number of packets")
}

/// How long this thread has run. What it sends is carried and counted in its time too.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    Duration::from_nanos(text.split(' ').next().and_then(|word| word.parse().ok()).expect("nanoseconds"))
}

/// Packets that arrive, of so many flows: in a second of the CPU, and in one of the clock; and how many are sent then.
fn rate(row: &Row, flows: u32) -> [f64; 3] {
    let send = move |time: Duration| {
        let mut ebpf = load(flows);
        let program = xdp(&mut ebpf, programs::SEND_XDP);
        let device = nix::net::if_::if_nametoindex("eth0").expect("eth0");
        let mut ctx = [0; 24];
        ctx[4..8].copy_from_slice(&60_u32.to_ne_bytes());
        ctx[12..16].copy_from_slice(&device.to_ne_bytes());
        let (started, busy) = (Instant::now(), on_cpu());
        let mut sent = 0_u64;
        while started.elapsed() < time {
            let options = TestRunOptions {
                data_in: Some(&[0; 60]),
                ctx_in: Some(&ctx),
                repeat: BATCH * 256,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            };
            program.test_run(options).expect("live frames");
            sent += u64::from(BATCH) * 256;
        }
        (sent, started.elapsed(), on_cpu() - busy)
    };
    // Connections are opened first.
    row.client.run(move || send(Duration::from_millis(50)));
    let before = arrived(&row.backend);
    let (sent, elapsed, busy) = row.client.run(move || send(ROUND));
    let arrived = arrived(&row.backend) - before;
    [
        arrived as f64 / busy.as_secs_f64(),
        arrived as f64 / elapsed.as_secs_f64(),
        sent as f64 / elapsed.as_secs_f64(),
    ]
}

/// As kube-proxy's nftables mode writes Services of one endpoint.
fn nftables(services: u32) -> String {
    let mut rules = "table ip kube-proxy {\n chain masq { meta mark set meta mark or 0x4000; }\n".to_owned();
    let mut elements = String::new();
    for number in 0..services {
        let (vip, endpoint) = (vip(number), endpoint(number));
        writeln!(
            rules,
            " chain e{number} {{ ip saddr {endpoint} jump masq; meta l4proto udp dnat to {endpoint}:80; }}\n chain s{number} \
             {{ ip daddr {vip} udp dport 80 ip saddr != 10.244.0.0/16 jump masq; numgen random mod 1 vmap {{ 0 : goto e{number} }}; }}"
        )
        .expect("a string");
        write!(elements, "{vip} . udp . 80 : goto s{number}, ").expect("a string");
    }
    write!(
        rules,
        " map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {elements} }}; }}
 chain prerouting {{ type nat hook prerouting priority dstnat; ip daddr . meta l4proto . th dport vmap @service-ips; }}
 chain postrouting {{ type nat hook postrouting priority srcnat; meta mark and 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }}
}}\n"
    )
    .expect("a string");
    rules
}

/// As its iptables mode does.
fn iptables(services: u32) -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    for number in 0..services {
        let (vip, endpoint) = (vip(number), endpoint(number));
        writeln!(chains, ":KUBE-SVC-{number} - [0:0]\n:KUBE-SEP-{number} - [0:0]").expect("a string");
        writeln!(
            rules,
            "-A KUBE-SERVICES -d {vip}/32 -p udp -m udp --dport 80 -j KUBE-SVC-{number}
-A KUBE-SVC-{number} ! -s 10.244.0.0/16 -d {vip}/32 -p udp -m udp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-{number} -j KUBE-SEP-{number}
-A KUBE-SEP-{number} -s {endpoint}/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-{number} -p udp -m udp -j DNAT --to-destination {endpoint}:80"
        )
        .expect("a string");
    }
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n{chains}-A PREROUTING -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
{rules}COMMIT\n"
    )
}

/// Gives a command its input.
fn feed(command: &str, argument: &[&str], input: &str) {
    let mut child = Command::new(command).args(argument).stdin(Stdio::piped()).spawn().expect(command);
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect(command);
    assert!(child.wait().expect(command).success(), "{command} refuses the rules");
}

/// Measures one way on a node of its own.
fn measure(way: Way, services: u32, rounds: u32, tell: &Sender<serde_json::Value>) {
    let tell = tell.clone();
    node(move |node| {
        let row = wire();
        row.backend.run(|| {
            let mut ebpf = load(1);
            xdp(&mut ebpf, programs::SINK_XDP).attach("eth0", XdpMode::Driver).expect("the sink");
            // Until the namespace goes.
            std::mem::forget(ebpf);
        });
        let started = Instant::now();
        let _held = match way {
            Way::Xdp => Some(eastwest(node, services)),
            Way::Nftables => {
                feed("nft", &["-f", "-"], &nftables(services));
                None
            }
            Way::Iptables => {
                feed("iptables-restore", &[], &iptables(services));
                None
            }
        };
        let loaded = started.elapsed();
        for flows in FLOWS {
            let rates: Vec<[f64; 3]> = (0..rounds).map(|_| rate(&row, flows)).collect();
            let best = rates.iter().copied().max_by(|a, b| a[0].total_cmp(&b[0])).expect("a round");
            let row = serde_json::json!({
                "way": format!("{way:?}").to_lowercase(), "services": services, "flows": flows,
                "load_seconds": loaded.as_secs_f64(), "delivered_per_cpu_s": best[0], "delivered_per_s": best[1], "sent_per_s": best[2],
                "rounds": rates.iter().map(|rate| rate[0]).collect::<Vec<_>>(),
            });
            tell.send(row).expect("main waits");
        }
    });
}

/// The node's programs and tables; they work as long as this lives.
fn eastwest(node: &Node, services: u32) -> (EbpfDataplane, Follower, tokio::runtime::Runtime) {
    let node_addresses = vec![addr("10.0.0.1")];
    let options = Options {
        node_addresses: node_addresses.clone(),
        capacities: Capacities::default(),
        ..node.options()
    };
    let mut dataplane = EbpfDataplane::open(&options).expect("opens");
    let services: Vec<_> = (0..services)
        .map(|number| {
            let mut frontend = frontend(
                &format!("{}:80", vip(number)),
                Protocol::UDP,
                &[&format!("{}:80", endpoint(number))],
            );
            for targets in [&mut frontend.inside, &mut frontend.outside] {
                targets.backends =
                    targets.backends.iter().map(|backend| Backend { local: false, ..*backend }).collect();
            }
            service(&format!("service-{number}"), vec![frontend])
        })
        .collect();
    dataplane.reconcile(&mut services.iter()).expect("reconciles");
    let devices = DeviceOptions {
        pin_dir: node.pin_dir(),
        nic_mode: NicMode::XdpNative,
        nic_devices: vec!["nic0".into(), "nic1".into()],
        node_addresses,
        ..DeviceOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let (follower, states) =
        runtime.block_on(Follower::start(dataplane.programs(), devices)).expect("starts");
    assert!(states.borrow().iter().all(|state| state.error.is_none()), "{:?}", states.borrow());
    (dataplane, follower, runtime)
}

fn main() {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u32>().expect("a number"));
    let services = words.next().unwrap_or(10_000);
    let rounds = words.next().unwrap_or(12);
    let (tell, told) = std::sync::mpsc::channel();
    for way in [Way::Xdp, Way::Nftables, Way::Iptables] {
        measure(way, services, rounds, &tell);
    }
    drop(tell);
    let rows: Vec<serde_json::Value> = told.iter().collect();
    println!("{}", serde_json::to_string_pretty(&rows).expect("JSON"));
}
