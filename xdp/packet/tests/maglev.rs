//! Clients outside, at an address that several nodes serve: each node picks the same backend for the same client.

use std::collections::HashMap;

use eastwest_abi::{backend_flags, frontend_flags};
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, run};
use eastwest_packet::vectors::{spec, world};
use eastwest_packet::wire::PROTOCOL_TCP;
use eastwest_packet::{Verdict, Via};

const BACKENDS: [&str; 3] = ["10.244.1.21", "10.244.1.22", "10.244.1.23"];

/// A node that has its chance begin at `random`, with a table for 203.0.113.9 over its backends; their ids.
fn node(ipv6: bool, random: u64) -> (HostMaps, Vec<u32>) {
    let mut maps = world(ipv6);
    maps.random = random;
    let at = |text: &str, port| spec(&format!("tcp {text}:1 > {text}:{port} S"), ipv6).to;
    let ids: Vec<u32> = BACKENDS
        .iter()
        .map(|backend| maps.add_backend(at(backend, 8080), PROTOCOL_TCP, backend_flags::LOCAL))
        .collect();
    let table: Vec<u32> = (0..251).map(|slot| ids[slot * 7 % 3]).collect();
    maps.add_split(at("203.0.113.9", 80), PROTOCOL_TCP, frontend_flags::MAGLEV, &ids, &table);
    (maps, ids)
}

/// The backend that a client's connection gets; its last byte.
fn backend(maps: &mut HostMaps, ipv6: bool, client: &str) -> u8 {
    let asked = spec(&format!("tcp {client} > 203.0.113.9:80 S"), ipv6);
    let mut packet = HostPacket::new(&asked.bytes(), Hook::Xdp);
    packet.route = (Via::Stack, Default::default());
    assert_eq!(run(Program::NicIngress, maps, &mut packet), Verdict::Pass, "{client}");
    packet.bytes()[if ipv6 { 53 } else { 33 }]
}

fn clients() -> impl Iterator<Item = String> {
    (1..=200).flat_map(|n| [40_000, 40_001].map(|port| format!("192.0.2.{n}:{port}")))
}

#[test]
fn nodes_agree_and_clients_spread() {
    for ipv6 in [false, true] {
        let ((mut one, _), (mut other, _)) = (node(ipv6, 1), node(ipv6, 0x1234_5678));
        let mut counts: HashMap<u8, usize> = HashMap::new();
        for client in clients() {
            let got = backend(&mut one, ipv6, &client);
            assert_eq!(got, backend(&mut other, ipv6, &client), "{client}");
            *counts.entry(got).or_default() += 1;
        }
        // 400 over 3: 133 each; further off than 60 is no spread.
        assert_eq!(counts.len(), 3, "{counts:?}");
        assert!(counts.values().all(|count| (73..=193).contains(count)), "{counts:?}");
    }
}

#[test]
fn a_backend_that_is_being_taken_away_gets_none() {
    for ipv6 in [false, true] {
        let (mut maps, ids) = node(ipv6, 1);
        let gone = backend(&mut node(ipv6, 1).0, ipv6, "192.0.2.7:40000");
        // 21, 22 or 23, in IPv6 with the same digits in base 16.
        let nth = if ipv6 { gone & 0xf } else { gone % 10 };
        let index = ids[usize::from(nth) - 1] as usize;
        maps.backends[index].flags &= !backend_flags::USABLE;
        for client in clients() {
            assert_ne!(backend(&mut maps, ipv6, &client), gone, "{client}");
        }
    }
}
