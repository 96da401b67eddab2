//! Masqueraded connections. Of their ports one that was closed a moment ago is left alone while there are others.

use std::collections::HashSet;

use eastwest_abi::{conntrack_state, frontend_flags};
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, check, run};
use eastwest_packet::vectors::{SENT_LINK, hop, spec, world};
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

/// A packet at a program of tc.
fn at(maps: &mut HostMaps, program: Program, words: &str, ipv6: bool) -> (Verdict, Vec<u8>) {
    let mut packet = HostPacket::new(&spec(words, ipv6).bytes(), Hook::Tc { partial: false });
    packet.route = (Via::Link, hop(7));
    (run(program, maps, &mut packet), packet.bytes().to_vec())
}

/// The packet's words, one hop later.
fn sent(words: &str, ipv6: bool) -> Vec<u8> {
    let mut wanted = spec(words, ipv6);
    wanted.ttl -= 1;
    let mut bytes = wanted.bytes();
    bytes[..12].copy_from_slice(&SENT_LINK);
    bytes
}

/// A frontend that wants it has the node in place of a client wherever client and backend are, and what they send is sent
/// on at once both ways.
#[test]
fn a_frontend_masquerades_whoever_asks() {
    use Program::{NicIngress, PodIngress};
    const TO: Verdict = Verdict::Transmit(7);
    for ipv6 in [false, true] {
        let mut maps = world(ipv6);
        (maps.config.masquerade_from, maps.config.masquerade_to) = (20_000, 20_000);
        maps.frontends4.values_mut().for_each(|f| f.flags |= frontend_flags::MASQUERADE);
        maps.frontends6.values_mut().for_each(|f| f.flags |= frontend_flags::MASQUERADE);
        for (client, enters, service, backend, answers) in [
            ("10.244.1.9", PodIngress, "10.96.0.1", "10.244.1.2", PodIngress),
            ("10.244.1.9", PodIngress, "10.96.0.5", "10.244.2.2", NicIngress),
            ("192.0.2.7", NicIngress, "10.96.0.1", "10.244.1.2", PodIngress),
            ("192.0.2.7", NicIngress, "10.96.0.5", "10.244.2.2", NicIngress),
        ] {
            (maps.conntrack4, maps.conntrack6) = Default::default();
            for (program, came, leaves) in [
                (
                    enters,
                    format!("{client}:40000 > {service}:80 S"),
                    format!("10.0.0.1:20000 > {backend}:8080 S"),
                ),
                (
                    answers,
                    format!("{backend}:8080 > 10.0.0.1:20000 S."),
                    format!("{service}:80 > {client}:40000 S."),
                ),
                (
                    enters,
                    format!("{client}:40000 > {service}:80 . len=9"),
                    format!("10.0.0.1:20000 > {backend}:8080 . len=9"),
                ),
            ] {
                let got = at(&mut maps, program, &format!("tcp {came}"), ipv6);
                assert_eq!(got, (TO, sent(&format!("tcp {leaves}"), ipv6)), "{program:?} {came}");
            }
            // What the backend says of a packet that it does not like.
            let came = format!("tcp 10.0.0.1:20000 > {backend}:8080 . error=port by={backend}");
            let leaves = format!("tcp {client}:40000 > {service}:80 . error=port by={service}");
            let (verdict, bytes) = at(&mut maps, answers, &came, ipv6);
            assert_eq!(verdict, TO, "{came}");
            let mut wanted = spec(&leaves, ipv6);
            wanted.error.as_mut().expect("an error").ttl -= 1;
            check(&bytes, &wanted).unwrap_or_else(|error| panic!("{came}: {error}"));
        }
        // A pod's packet that XDP meets is tc's.
        (maps.conntrack4, maps.conntrack6) = Default::default();
        let asked = spec("tcp 10.244.1.9:40000 > 10.96.0.1:80 S", ipv6).bytes();
        let mut packet = HostPacket::new(&asked, Hook::Xdp);
        assert_eq!(run(PodIngress, &mut maps, &mut packet), Verdict::Handover);
        assert_eq!(packet.bytes(), asked);
        // A pod that asks itself, and the node as its own backend, cannot have the node's address.
        let (verdict, bytes) = at(&mut maps, PodIngress, "tcp 10.244.1.2:40001 > 10.96.0.1:80 S", ipv6);
        assert_eq!(verdict, Verdict::Back);
        check(&bytes, &spec("tcp 169.254.20.1:40001 > 10.244.1.2:8080 S", ipv6)).expect("hairpin");
        for backend in &mut maps.backends {
            if ipv6 {
                backend.addr = maps.config.node6;
            } else {
                backend.addr[..4].copy_from_slice(&maps.config.node4);
            }
        }
        let (verdict, bytes) = at(&mut maps, PodIngress, "tcp 10.244.1.9:40002 > 10.96.0.1:80 S", ipv6);
        assert_eq!(verdict, Verdict::Pass);
        check(&bytes, &spec("tcp 10.244.1.9:40002 > 10.0.0.1:8080 S", ipv6)).expect("the client's own");
        // A port of the node at which nobody is stood in for.
        let own = "tcp 10.244.1.9:40003 > 10.0.0.1:20000 .";
        (maps.conntrack4, maps.conntrack6) = Default::default();
        assert_eq!(at(&mut maps, PodIngress, own, ipv6), (Verdict::Pass, spec(own, ipv6).bytes()));
    }
}
