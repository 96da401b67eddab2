//! What a packet costs in each program, in ns by BPF_PROG_TEST_RUN, against an empty program of the same type in the
//! same run. Prints JSON. Needs root; the build profile does not matter, as the kernel does all that is measured. With
//! words: only the cases whose program, family and name hold all of them.

#[path = "../tests/vectors/kernel.rs"]
#[allow(dead_code)]
mod kernel;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aya::programs::TestRunOptions;
use eastwest_abi::programs;
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, run};
use eastwest_packet::vectors::{six, spec, world};
use eastwest_packet::wire::{PROTOCOL_TCP, PROTOCOL_UDP};
use kernel::{Kernel, network};

/// Runs in one measurement, and measurements of which the shortest counts: whatever else the machine does only adds.
const REPEAT: u32 = 200_000;
const ROUNDS: usize = 50;

/// Program, what it is compared with, the case, and the packet.
const CASES: &[(&str, &str, &str, &str)] = &[
    (
        programs::POD_INGRESS_TC,
        programs::EMPTY_TC,
        "established tcp",
        "tcp 10.244.1.9:40000 > 10.96.0.8:80 .",
    ),
    (programs::POD_INGRESS_TC, programs::EMPTY_TC, "established udp", "udp 10.244.1.9:40000 > 10.96.0.8:53"),
    (programs::POD_INGRESS_TC, programs::EMPTY_TC, "not a service", "udp 10.244.1.9:40000 > 10.244.1.3:53"),
    (programs::POD_EGRESS_TC, programs::EMPTY_TC, "established tcp", "tcp 10.96.0.8:80 > 10.244.1.9:40000 ."),
    (programs::POD_EGRESS_TC, programs::EMPTY_TC, "not a service", "tcp 10.244.1.3:80 > 10.244.1.9:40000 ."),
    (
        programs::POD_INGRESS_XDP,
        programs::EMPTY_XDP,
        "established tcp",
        "tcp 10.244.1.9:40000 > 10.96.0.8:80 .",
    ),
    (
        programs::POD_INGRESS_XDP,
        programs::EMPTY_XDP,
        "established udp",
        "udp 10.244.1.9:40000 > 10.96.0.8:53",
    ),
    (programs::POD_INGRESS_XDP, programs::EMPTY_XDP, "not a service", "udp 10.244.1.9:40000 > 10.244.1.3:53"),
    (programs::NIC_INGRESS_XDP, programs::EMPTY_XDP, "established udp", "udp 192.0.2.7:40000 > 10.96.0.8:53"),
    (programs::NIC_INGRESS_XDP, programs::EMPTY_XDP, "not a service", "udp 192.0.2.7:40000 > 10.244.1.3:53"),
    (programs::NIC_INGRESS_TC, programs::EMPTY_TC, "established udp", "udp 192.0.2.7:40000 > 10.96.0.8:53"),
    (programs::POD_INGRESS_XDP, programs::EMPTY_XDP, NOT_KEPT, "udp 10.244.1.9:40000 > 10.96.0.8:53"),
    (programs::POD_INGRESS_TC, programs::EMPTY_TC, NOT_KEPT, "udp 10.244.1.9:40000 > 10.96.0.8:53"),
];

/// Of a flow that another has just taken the place of.
const NOT_KEPT: &str = "established udp, not kept";

/// What the rest of an established flow's cost stands on, for both kinds of program.
const FLOORS: &[(&str, &str)] = &[
    (programs::FLOOR_PARSE_XDP, programs::EMPTY_XDP),
    (programs::FLOOR_LOOK_UP_XDP, programs::EMPTY_XDP),
    (programs::FLOOR_TRANSLATE_XDP, programs::EMPTY_XDP),
    (programs::FLOOR_PARSE_TC, programs::EMPTY_TC),
    (programs::FLOOR_LOOK_UP_TC, programs::EMPTY_TC),
    (programs::FLOOR_TRANSLATE_TC, programs::EMPTY_TC),
];

/// The first of two frontends that lead to each other.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 8);

/// A test-run repeats on the packet it has written. Two frontends that lead to each other make it go back and forth, so
/// that each run translates.
fn mirrored(ipv6: bool, second: Ipv4Addr) -> HostMaps {
    let mut maps = world(ipv6);
    for (protocol, port) in [(PROTOCOL_TCP, 80), (PROTOCOL_UDP, 53)] {
        let [a, b] = [FIRST, second]
            .map(IpAddr::from)
            .map(|ip| SocketAddr::new(if ipv6 { six(ip) } else { ip }, port));
        let to_b = maps.add_backend(b, protocol, eastwest_abi::backend_flags::LOCAL);
        let to_a = maps.add_backend(a, protocol, eastwest_abi::backend_flags::LOCAL);
        maps.add_frontend(a, protocol, 0, &[to_b]);
        maps.add_frontend(b, protocol, 0, &[to_a]);
    }
    maps
}

/// A second frontend whose flow has the place of the first one's: each packet takes it from the other.
fn rival(ipv6: bool) -> Ipv4Addr {
    let place = |second: Ipv4Addr, to: Ipv4Addr| {
        let asked = spec(&format!("udp 10.244.1.9:40000 > {to}:53"), ipv6).bytes();
        let mut maps = mirrored(ipv6, second);
        // The packet that opens a flow is not kept, the next one is.
        for _ in 0..2 {
            run(Program::PodIngress, &mut maps, &mut HostPacket::new(&asked, Hook::Xdp));
        }
        let places: Vec<u32> = maps.kept4.keys().chain(maps.kept6.keys()).map(|(_, place)| *place).collect();
        assert_eq!(places.len(), 1);
        places[0]
    };
    let others =
        (0..u16::MAX).map(|low| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 97, 0, 0)) | u32::from(low)));
    let mut others = others.filter(|other| place(*other, FIRST) == place(*other, *other));
    others.next().expect("one in 4,096 has it")
}

/// The shortest round of each program. They take turns, as the machine is not the same from moment to moment.
fn nanoseconds<const N: usize>(kernel: &Kernel, programs: [&str; N], packet: &[u8]) -> [u128; N] {
    let mut shortest = [u128::MAX; N];
    for _ in 0..ROUNDS {
        for (program, shortest) in programs.iter().zip(&mut shortest) {
            let options = TestRunOptions { data_in: Some(packet), repeat: REPEAT, ..TestRunOptions::default() };
            let run = kernel.test_run(program, options).expect(program);
            *shortest = run.duration.as_nanos().min(*shortest);
        }
    }
    shortest
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rows = network(move |_| {
        let floors: Vec<&str> = FLOORS.iter().map(|(program, _)| *program).collect();
        let mut kernel = Kernel::load_with(&floors);
        let floors = FLOORS.iter().map(|&(program, empty)| {
            (program, empty, "established udp", "udp 10.244.1.9:40000 > 10.96.0.8:53")
        });
        let cases: Vec<_> = floors.chain(CASES.iter().copied()).collect();
        let mut rows = Vec::new();
        for ipv6 in [false, true] {
            for &(program, empty, case, packet) in &cases {
                let family = if ipv6 { "ipv6" } else { "ipv4" };
                let name = format!("{program} {family} {case}");
                if !words.iter().all(|word| name.contains(word)) {
                    continue;
                }
                let second = if case == NOT_KEPT { rival(ipv6) } else { Ipv4Addr::new(10, 96, 0, 9) };
                kernel.fill(&mirrored(ipv6, second));
                let packet = spec(packet, ipv6).bytes();
                // Both directions of both mirrored flows are tracked before anything is measured.
                for (protocol, to, port) in [
                    ("tcp", FIRST, "80 ."),
                    ("tcp", second, "80 ."),
                    ("udp", FIRST, "53"),
                    ("udp", second, "53"),
                ] {
                    let forward = programs::POD_INGRESS_TC;
                    let opened = program == programs::POD_EGRESS_TC || program.starts_with("floor");
                    if opened && case != "not a service" {
                        let text = format!("{protocol} 10.244.1.9:40000 > {to}:{port}");
                        let opening = spec(&text, ipv6).bytes();
                        let options = TestRunOptions { data_in: Some(&opening), ..TestRunOptions::default() };
                        kernel.test_run(forward, options).expect(forward);
                    }
                }
                let options =
                    TestRunOptions { data_in: Some(&packet), repeat: 4, ..TestRunOptions::default() };
                kernel.test_run(program, options).expect(program);
                let [base, cost] = nanoseconds(&kernel, [empty, program], &packet);
                rows.push(serde_json::json!({
                    "program": program,
                    "case": case,
                    "family": family,
                    "ns": cost,
                    "empty_ns": base,
                    "ratio": cost as f64 / base.max(1) as f64,
                }));
            }
        }
        rows
    });
    println!("{}", serde_json::to_string_pretty(&rows).expect("JSON"));
}
