//! What CPUs keep of flows changes nothing but the time it takes.

use std::net::{IpAddr, SocketAddr};

use eastwest_abi::backend_flags::{LIVE, USABLE};
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, run};
use eastwest_packet::vectors::{hop, six, spec, world};
use eastwest_packet::wire::{PROTOCOL_TCP, PROTOCOL_UDP};
use eastwest_packet::{Verdict, Via};
use proptest::prelude::*;

const TO: [&str; 3] = ["10.96.1.1", "10.96.1.2", "10.244.3.1"];
const FROM: [&str; 2] = ["10.244.1.9", "10.244.3.2"];
const BACKENDS: [&str; 3] = ["10.244.3.1", "10.244.3.2", "10.244.3.3"];

fn ip(text: &str, ipv6: bool) -> IpAddr {
    let ip = text.parse().expect("an address");
    if ipv6 { six(ip) } else { ip }
}

/// Two Services with the same backends; ids of these, of TCP and of UDP.
fn tables(ipv6: bool, keeps: bool) -> (HostMaps, Vec<u32>) {
    let mut maps = world(ipv6);
    maps.keeps = keeps;
    let mut all = Vec::new();
    for (protocol, port) in [(PROTOCOL_TCP, 80), (PROTOCOL_UDP, 53)] {
        let add = |backend| {
            let at = SocketAddr::new(ip(backend, ipv6), port);
            maps.add_backend(at, protocol, eastwest_abi::backend_flags::LOCAL)
        };
        let backends: Vec<u32> = BACKENDS.iter().copied().map(add).collect();
        for to in &TO[..2] {
            maps.add_frontend(SocketAddr::new(ip(to, ipv6), port), protocol, 0, &backends);
        }
        all.extend(backends);
    }
    (maps, all)
}

fn send(maps: &mut HostMaps, program: Program, words: &str, ipv6: bool) -> (Verdict, Vec<u8>) {
    let mut packet = HostPacket::new(&spec(words, ipv6).bytes(), Hook::Xdp);
    packet.route = (Via::Link, hop(1));
    (run(program, maps, &mut packet), packet.bytes().to_vec())
}

/// Where a packet of a pod goes.
fn goes(maps: &mut HostMaps, words: &str, ipv6: bool) -> Vec<u8> {
    let (verdict, bytes) = send(maps, Program::PodIngress, words, ipv6);
    assert_eq!(verdict, Verdict::Pass, "{words}");
    bytes[if ipv6 { 38..54 } else { 30..34 }].to_vec()
}

#[derive(Clone, Debug)]
enum Event {
    /// A packet: whose, from which port, to where, in which words.
    Send {
        cpu: usize,
        outside: bool,
        from: usize,
        port: u16,
        to: usize,
        flags: Option<&'static str>,
    },
    /// An answer of a backend.
    Answer {
        cpu: usize,
        outside: bool,
        by: usize,
        to: usize,
        port: u16,
        flags: Option<&'static str>,
    },
    /// A backend takes no new flows, is gone, or comes again.
    Backend {
        which: usize,
        flags: u32,
    },
    Time(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let flags =
        || prop_oneof![4 => Just("."), 2 => Just("S"), 1 => Just("F."), 1 => Just("R"), 1 => Just("S.")];
    let flags = move || prop_oneof![2 => flags().prop_map(Some), 1 => Just(None)];
    let port = || 40_000u16..40_002;
    prop_oneof![
        8 => (0usize..2, any::<bool>(), 0usize..2, port(), 0usize..3, flags())
            .prop_map(|(cpu, outside, from, port, to, flags)| Event::Send { cpu, outside, from, port, to, flags }),
        6 => (0usize..2, any::<bool>(), 0usize..3, 0usize..2, port(), flags())
            .prop_map(|(cpu, outside, by, to, port, flags)| Event::Answer { cpu, outside, by, to, port, flags }),
        1 => (0usize..6, prop_oneof![Just(LIVE), Just(0), Just(LIVE | USABLE)])
            .prop_map(|(which, flags)| Event::Backend { which, flags }),
        1 => (0u32..3).prop_map(Event::Time),
    ]
}

/// Plays an event; what came out.
fn play(maps: &mut HostMaps, backends: &[u32], event: &Event, ipv6: bool) -> Option<(Verdict, Vec<u8>)> {
    let words = |from: &str, from_port: u16, to: &str, to_port: u16, flags: &Option<&str>| match flags {
        Some(flags) => format!("tcp {from}:{from_port} > {to}:{to_port} {flags}"),
        None => format!("udp {from}:{from_port} > {to}:{to_port}"),
    };
    match event {
        Event::Send { cpu, outside, from, port, to, flags } => {
            maps.cpu = *cpu;
            let (program, from) = if *outside {
                (Program::NicIngress, "192.0.2.7")
            } else {
                (Program::PodIngress, FROM[*from])
            };
            let asked = if flags.is_some() { 80 } else { 53 };
            Some(send(maps, program, &words(from, *port, TO[*to], asked, flags), ipv6))
        }
        Event::Answer { cpu, outside, by, to, port, flags } => {
            maps.cpu = *cpu;
            let (program, to) =
                if *outside { (Program::NicEgress, "192.0.2.7") } else { (Program::PodEgress, FROM[*to]) };
            let asked = if flags.is_some() { 80 } else { 53 };
            Some(send(maps, program, &words(BACKENDS[*by], asked, to, *port, flags), ipv6))
        }
        Event::Backend { which, flags } => {
            let backend = &mut maps.backends[backends[*which] as usize];
            backend.generation += u32::from(*flags == 0);
            backend.flags = backend.flags & !(LIVE | USABLE) | flags;
            None
        }
        Event::Time(units) => {
            maps.now += units;
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Whatever comes, on whichever CPU: the same packets, the same tables and the same counters as without.
    #[test]
    fn nothing_differs(ipv6: bool, events in proptest::collection::vec(event(), 1..150)) {
        let (mut with, backends) = tables(ipv6, true);
        let (mut without, _) = tables(ipv6, false);
        for event in &events {
            let (one, other) = (play(&mut with, &backends, event, ipv6), play(&mut without, &backends, event, ipv6));
            prop_assert_eq!(one, other, "{:?}", event);
            prop_assert_eq!(&with.conntrack4, &without.conntrack4);
            prop_assert_eq!(&with.conntrack6, &without.conntrack6);
            prop_assert_eq!(with.counters, without.counters);
        }
    }
}

/// A CPU that has kept something goes by it, as long as it may.
#[test]
fn a_flow_that_the_table_has_lost_goes_on_for_a_moment() {
    for ipv6 in [false, true] {
        let (mut maps, _) = tables(ipv6, true);
        for words in ["tcp 10.244.1.9:40000 > 10.96.1.1:80", "udp 10.244.1.9:40000 > 10.96.1.1:53"] {
            let (opens, goes_on) = if words.starts_with("tcp") {
                (format!("{words} S"), format!("{words} ."))
            } else {
                (words.into(), words.into())
            };
            let before = goes(&mut maps, &opens, ipv6);
            assert_eq!(goes(&mut maps, &goes_on, ipv6), before);
            maps.conntrack4.clear();
            maps.conntrack6.clear();
            assert_eq!(goes(&mut maps, &goes_on, ipv6), before);
            assert_eq!(
                maps.conntrack4.len() + maps.conntrack6.len(),
                0,
                "ipv6={ipv6} {words}: the table was not looked at"
            );
            maps.now += 1;
            goes(&mut maps, &goes_on, ipv6);
            assert_eq!(maps.conntrack4.len() + maps.conntrack6.len(), 2, "ipv6={ipv6} {words}");
        }
    }
}

/// A flow that the table has lost and that is opened anew: no CPU goes on with what it had kept.
#[test]
fn a_flow_that_is_opened_anew_is_so_on_all_cpus() {
    for ipv6 in [false, true] {
        for round in 0..20 {
            let (mut maps, _) = tables(ipv6, true);
            maps.random = 0x9e37_79b9_7f4a_7c15 ^ round << 20;
            let words = "tcp 10.244.1.9:40000 > 10.96.1.1:80";
            goes(&mut maps, &format!("{words} S"), ipv6);
            for cpu in [0, 1] {
                maps.cpu = cpu;
                goes(&mut maps, &format!("{words} ."), ipv6);
            }
            maps.conntrack4.clear();
            maps.conntrack6.clear();
            let now = goes(&mut maps, &format!("{words} S"), ipv6);
            for cpu in [0, 1] {
                maps.cpu = cpu;
                assert_eq!(
                    goes(&mut maps, &format!("{words} ."), ipv6),
                    now,
                    "ipv6={ipv6} round {round} CPU {cpu}"
                );
            }
        }
    }
}

/// Closed flows are taken out of the table by user space, which counts nothing.
#[test]
fn nothing_is_kept_of_a_connection_that_has_ended() {
    for ipv6 in [false, true] {
        let (mut maps, _) = tables(ipv6, true);
        let words = "tcp 10.244.1.9:40000 > 10.96.1.1:80";
        let opened = goes(&mut maps, &format!("{words} S"), ipv6);
        let program = Program::PodEgress;
        let by = BACKENDS.iter().find(|by| match ip(by, ipv6) {
            IpAddr::V4(ip) => ip.octets()[..] == opened,
            IpAddr::V6(ip) => ip.octets()[..] == opened,
        });
        let back = format!("tcp {}:80 > 10.244.1.9:40000", by.expect("one of them"));
        for cpu in [0, 1] {
            maps.cpu = cpu;
            goes(&mut maps, &format!("{words} ."), ipv6);
            send(&mut maps, program, &format!("{back} ."), ipv6);
        }
        goes(&mut maps, &format!("{words} R"), ipv6);
        maps.conntrack4.clear();
        maps.conntrack6.clear();
        for cpu in [0, 1] {
            maps.cpu = cpu;
            let late = spec(&format!("{back} ."), ipv6).bytes();
            assert_eq!(
                send(&mut maps, program, &format!("{back} ."), ipv6),
                (Verdict::Pass, late),
                "ipv6={ipv6} CPU {cpu}"
            );
        }
    }
}
