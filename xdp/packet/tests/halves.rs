//! A full table loses one half of a connection: it goes on by the other.

use std::net::IpAddr;

use eastwest_abi::direction;
use eastwest_packet::Verdict;
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, run};
use eastwest_packet::vectors::{six, spec, world};
use eastwest_packet::wire::PROTOCOL_TCP;

const CONNECTIONS: u16 = 32;

/// Tables with 24 backends behind 10.96.1.1:80.
fn tables(ipv6: bool) -> HostMaps {
    let mut maps = world(ipv6);
    let ip = |text: &str| {
        let ip: IpAddr = text.parse().expect("an address");
        if ipv6 { six(ip) } else { ip }
    };
    let backends: Vec<u32> = (1..=24)
        .map(|n| maps.add_backend((ip(&format!("10.244.3.{n}")), 8080).into(), PROTOCOL_TCP, 0))
        .collect();
    maps.add_frontend((ip("10.96.1.1"), 80).into(), PROTOCOL_TCP, 0, &backends);
    maps
}

/// A pod's packet to the frontend: the destination that it gets.
fn sends(maps: &mut HostMaps, ipv6: bool, port: u16, flags: &str) -> Vec<u8> {
    let asked = spec(&format!("tcp 10.244.1.9:{port} > 10.96.1.1:80 {flags}"), ipv6);
    let mut packet = HostPacket::new(&asked.bytes(), Hook::Xdp);
    assert_eq!(run(Program::PodIngress, maps, &mut packet), Verdict::Pass);
    let at = if ipv6 { 14 + 24..14 + 40 } else { 14 + 16..14 + 20 };
    packet.bytes()[at].to_vec()
}

/// Loses all halves of a direction.
fn lose(maps: &mut HostMaps, lost: u8) {
    maps.conntrack4.retain(|key, _| key.direction != lost);
    maps.conntrack6.retain(|key, _| key.direction != lost);
}

#[test]
fn the_forward_half_is_made_again_from_the_other() {
    for ipv6 in [false, true] {
        let mut maps = tables(ipv6);
        let ports = 40_000..40_000 + CONNECTIONS;
        let before: Vec<_> = ports.clone().map(|port| sends(&mut maps, ipv6, port, "S")).collect();
        lose(&mut maps, direction::FORWARD);
        let after: Vec<_> = ports.map(|port| sends(&mut maps, ipv6, port, "P.")).collect();
        assert_eq!(before, after, "ipv6={ipv6}");
        assert_eq!(maps.conntrack4.len() + maps.conntrack6.len(), usize::from(CONNECTIONS) * 2);
    }
}

#[test]
fn the_reverse_half_is_made_again_within_a_unit_of_time() {
    for ipv6 in [false, true] {
        let mut maps = tables(ipv6);
        let before = sends(&mut maps, ipv6, 40_000, "S");
        lose(&mut maps, direction::REVERSE);
        maps.now += 1;
        assert_eq!(sends(&mut maps, ipv6, 40_000, "."), before);
        assert_eq!(maps.conntrack4.len() + maps.conntrack6.len(), 2, "ipv6={ipv6}");
    }
}
