//! Ports of masqueraded connections: one that was closed a moment ago is left alone while there are others.

use std::collections::HashSet;

use eastwest_abi::conntrack_state;
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, run};
use eastwest_packet::vectors::{spec, world};
use eastwest_packet::{Verdict, Via};

/// A client outside opens a connection to a backend on another node: the port it is given there.
fn opens(maps: &mut HostMaps, ipv6: bool, port: u16) -> Option<u16> {
    let asked = spec(&format!("tcp 192.0.2.7:{port} > 10.96.0.5:80 S"), ipv6);
    let mut packet = HostPacket::new(&asked.bytes(), Hook::Xdp);
    packet.route = (Via::Stack, Default::default());
    if run(Program::NicIngress, maps, &mut packet) != Verdict::Pass {
        return None;
    }
    let at = if ipv6 { 14 + 40 } else { 14 + 20 };
    Some(u16::from_be_bytes([packet.bytes()[at], packet.bytes()[at + 1]]))
}

fn end_all(maps: &mut HostMaps, state: u16) {
    maps.conntrack4.values_mut().for_each(|half| half.state |= state);
    maps.conntrack6.values_mut().for_each(|half| half.state |= state);
}

#[test]
fn the_ports_of_closed_connections_rest_while_there_are_others() {
    const FINS: u16 = conntrack_state::FIN_FORWARD | conntrack_state::FIN_REVERSE;
    for ipv6 in [false, true] {
        for (state, pause, rests) in
            [(FINS, 0, true), (FINS, 60, true), (FINS, 61, false), (conntrack_state::RESET, 0, false)]
        {
            let mut maps = world(ipv6);
            (maps.config.masquerade_from, maps.config.masquerade_to) = (20_000, 20_063);
            let first: HashSet<u16> = (0..16).filter_map(|n| opens(&mut maps, ipv6, 40_000 + n)).collect();
            assert_eq!(first.len(), 16);
            end_all(&mut maps, state);
            maps.now += pause;
            // With three of four ports free, four attempts find one nearly always.
            let next: Vec<u16> = (0..16).filter_map(|n| opens(&mut maps, ipv6, 41_000 + n)).collect();
            assert_eq!(next.len(), 16);
            let again = next.iter().filter(|port| first.contains(port)).count();
            assert_eq!(again <= 1, rests, "{again} ports again, state {state}, after {pause}");
        }
    }
}

#[test]
fn when_there_is_no_other_a_closed_one_is_taken() {
    for ipv6 in [false, true] {
        let mut maps = world(ipv6);
        (maps.config.masquerade_from, maps.config.masquerade_to) = (20_000, 20_000);
        assert_eq!(opens(&mut maps, ipv6, 40_000), Some(20_000));
        assert_eq!(opens(&mut maps, ipv6, 40_001), None, "it is open");
        end_all(&mut maps, conntrack_state::FIN_FORWARD | conntrack_state::FIN_REVERSE);
        assert_eq!(opens(&mut maps, ipv6, 40_001), Some(20_000));
    }
}
