//! ClientIP affinity: how long it holds, for whom, and what ends it.

use eastwest_abi::backend_flags;
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, check, run};
use eastwest_packet::vectors::{spec, world};
use eastwest_packet::{Verdict, Via};

/// Opens a connection from `client` to the frontend that both backends stand behind: whether it got the one on this node.
fn opens(maps: &mut HostMaps, ipv6: bool, client: &str) -> bool {
    let asked = spec(&format!("tcp {client} > 10.96.0.6:80 S"), ipv6);
    let mut packet = HostPacket::new(&asked.bytes(), Hook::Xdp);
    packet.route = (Via::Stack, Default::default());
    assert_eq!(run(Program::PodIngress, maps, &mut packet), Verdict::Pass);
    let got = |backend: &str| {
        check(packet.bytes(), &spec(&format!("tcp {client} > {backend}:8080 S"), ipv6)).is_ok()
    };
    let (here, there) = (got("10.244.1.2"), got("10.244.2.2"));
    assert!(here != there, "one of the two");
    here
}

/// How often 64 connections of one client change over, `pause` apart.
fn changes(maps: &mut HostMaps, ipv6: bool, pause: u32) -> usize {
    let mut last = None;
    let mut changes = 0;
    for port in 0..64 {
        maps.clock += pause;
        let here = opens(maps, ipv6, &format!("10.244.1.9:{}", 40_000 + port));
        changes += usize::from(last.is_some_and(|last| last != here));
        last = Some(here);
    }
    changes
}

/// The world of the vectors; its affinity lasts 10,800 seconds; in units of its clock.
const LASTS: u32 = (10_800_u64 * 1_000_000_000).div_ceil(1 << 24) as u32;

#[test]
fn lasts_its_time_from_the_last_connection() {
    for ipv6 in [false, true] {
        for (pause, kept) in [(0, true), (LASTS - 1, true), (LASTS, false), (3 * LASTS, false)] {
            let found = changes(&mut world(ipv6), ipv6, pause);
            assert_eq!(found == 0, kept, "{found} changes, {pause} units apart");
        }
    }
}

#[test]
fn each_client_has_its_own() {
    for ipv6 in [false, true] {
        let mut maps = world(ipv6);
        let first: Vec<_> = (1..64).map(|n| opens(&mut maps, ipv6, &format!("10.244.3.{n}:40000"))).collect();
        assert!(first.contains(&true) && first.contains(&false), "clients spread");
        let second: Vec<_> =
            (1..64).map(|n| opens(&mut maps, ipv6, &format!("10.244.3.{n}:40001"))).collect();
        assert_eq!(first, second);
    }
}

#[test]
fn never_to_what_takes_no_new_flows() {
    for ipv6 in [false, true] {
        for (flags, generation) in [
            // It drains, its id is free, its id is another's.
            (backend_flags::LIVE | backend_flags::LOCAL, 1),
            (0, 1),
            (backend_flags::LIVE | backend_flags::USABLE, 2),
        ] {
            let mut maps = world(ipv6);
            let here = opens(&mut maps, ipv6, "10.244.1.9:40000");
            // Ids of the world's first and third backend.
            let (own, other) = if here { (1, 3) } else { (3, 1) };
            maps.backends[own].flags = flags;
            maps.backends[own].generation = generation;
            if generation == 2 {
                // Whoever has the id now is not behind this frontend.
                for slot in &mut maps.slots {
                    if *slot == own as u32 {
                        *slot = other;
                    }
                }
            }
            for port in 0..16 {
                let next = opens(&mut maps, ipv6, &format!("10.244.1.9:{}", 41_000 + port));
                assert_eq!(next, !here, "backend {own} with flags {flags}, generation {generation}");
            }
        }
    }
}
