//! The same packets through the same code twice: on the host, and in the kernel by BPF_PROG_TEST_RUN. Needs root.

#[path = "vectors/kernel.rs"]
mod kernel;

use eastwest_abi::counter;
use eastwest_packet::host::{Hook, HostPacket, Program, run};
use eastwest_packet::vectors::{CASES, Case, Player, Run, by_chance, hop, spec, world};
use eastwest_packet::{Verdict, Via};
use kernel::{Kernel, Kind, ip, network};

/// What the kernel runs at least: an Ethernet header, under tc with a network header.
fn shortest(kind: Kind, ipv6: bool) -> usize {
    match (kind, ipv6) {
        (Kind::Xdp, _) => 14,
        (Kind::Tc, false) => 14 + 20,
        (Kind::Tc, true) => 14 + 40,
    }
}

/// Kernel test-runs know no partial checksum under tc.
const RUNS: &[(Kind, bool)] = &[(Kind::Xdp, false), (Kind::Xdp, true), (Kind::Tc, false)];

fn hook(kind: Kind) -> Hook {
    match kind {
        Kind::Xdp => Hook::Xdp,
        Kind::Tc => Hook::Tc { partial: false },
    }
}

/// tc does what has no XDP program.
fn kind_for(program: Program, kind: Kind) -> Kind {
    match program {
        Program::PodIngress | Program::NicIngress => kind,
        Program::PodEgress | Program::NicEgress => Kind::Tc,
    }
}

#[test]
fn kernel_and_host_agree_on_every_case() {
    let wrong = network(|nic| {
        let mut kernel = Kernel::load();
        kernel.nic = nic;
        let mut wrong = Vec::new();
        for ipv6 in [false, true] {
            let mut tables = world(ipv6);
            let flags = tables.config.flags;
            kernel.fill(&tables);
            for case in CASES {
                tables.config.flags = flags | case.flags;
                kernel.configure(&tables);
                for &(kind, partial) in RUNS {
                    let run = Run { ipv6, partial_in: partial, partial_out: false, partial_nic: false, nic };
                    kernel.forget();
                    if let Err(error) = play(&kernel, case, kind, run) {
                        wrong.push(format!("{} [{kind:?} {run:?}]: {error}", case.name));
                    }
                }
            }
        }
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Plays a case on both engines.
fn play(kernel: &Kernel, case: &Case, kind: Kind, way: Run) -> Result<(), String> {
    let mut maps = world(way.ipv6);
    maps.config.flags |= case.flags;
    let (mut in_kernel, mut on_host) = (Player::new(way), Player::new(way));
    for step in case.steps {
        let kind = kind_for(step.0, kind);
        let (verdict, bytes) = kernel.run(step.0, kind, &in_kernel.packet(step).bytes());
        in_kernel
            .judge(step, verdict, &bytes)
            .map_err(|error| format!("{:?} {}: kernel: {error}", step.0, step.1))?;
        let mut packet = HostPacket::new(&on_host.packet(step).bytes(), hook(kind));
        packet.route = (Via::Link, hop(way.nic));
        let on_host_verdict = run(step.0, &mut maps, &mut packet);
        on_host
            .judge(step, on_host_verdict, packet.bytes())
            .map_err(|error| format!("{:?} {}: host: {error}", step.0, step.1))?;
        if !by_chance(step) && (verdict, &bytes[..]) != (on_host_verdict, packet.bytes()) {
            return Err(format!("{:?} {}: kernel and host differ", step.0, step.1));
        }
    }
    Ok(())
}

/// What the end of a packet may cut off, at every length that the kernel takes.
#[test]
fn kernel_and_host_agree_on_packets_cut_anywhere() {
    const PACKETS: &[(Program, &str)] = &[
        (Program::PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:80 S len=9"),
        (Program::PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:80 S options=40"),
        (Program::PodIngress, "udp 10.244.1.9:40000 > 10.96.0.1:53 len=9"),
        (Program::PodIngress, "udp 10.244.1.9:40000 > 10.96.0.3:53 len=9"),
        (Program::PodIngress, "tcp 10.244.1.9:40000 > 10.244.1.2:8080 S"),
        (Program::PodEgress, "tcp 10.244.1.2:8080 > 10.244.1.9:40000 S."),
        (Program::NicIngress, "tcp 192.0.2.7:40000 > 10.96.0.1:80 S"),
        (Program::NicIngress, "udp 192.0.2.7:40000 > 10.96.0.3:53"),
        (Program::NicEgress, "udp 10.244.1.2:5353 > 192.0.2.7:40000"),
        (Program::PodIngress, "ping 10.244.1.9:1 > 10.96.0.3:1 len=9 extensions=h"),
        (Program::PodIngress, "udp 10.96.0.1:53 > 10.244.1.9:40000 len=9 error=port by=10.244.1.9"),
        (Program::NicIngress, "udp 192.0.2.7:40000 > 10.96.0.3:53 len=60 cut=0..48 extensions=hdr options=8"),
    ];
    let wrong = network(|nic| {
        let mut kernel = Kernel::load();
        kernel.nic = nic;
        let mut wrong = Vec::new();
        for ipv6 in [false, true] {
            kernel.fill(&world(ipv6));
            for &(program, words) in PACKETS {
                let whole = spec(words, ipv6).bytes();
                for kind in [kind_for(program, Kind::Xdp), Kind::Tc] {
                    for length in shortest(kind, ipv6)..=whole.len() {
                        kernel.forget();
                        let packet = &whole[..length];
                        let got = kernel.run(program, kind, packet);
                        let mut copy = HostPacket::new(packet, hook(kind));
                        let verdict = run(program, &mut world(ipv6), &mut copy);
                        if got != (verdict, copy.bytes().to_vec()) {
                            wrong.push(format!(
                                "{program:?} {kind:?} {words} cut to {length}: {got:02x?}, not {verdict:?} {:02x?}",
                                copy.bytes()
                            ));
                        }
                        if length < whole.len() && !matches!(got.0, Verdict::Pass | Verdict::Drop) {
                            wrong.push(format!("{program:?} {kind:?} {words} cut to {length}: {:?}", got.0));
                        }
                    }
                }
            }
        }
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A full checksum that is the sum of the pseudo header too: XDP cannot know, and leaves it to tc as it came.
#[test]
fn an_ambiguous_checksum_is_handed_over_untouched() {
    network(|nic| {
        let mut kernel = Kernel::load();
        kernel.nic = nic;
        for ipv6 in [false, true] {
            kernel.fill(&world(ipv6));
            let packet = ambiguous(ipv6);
            let (verdict, bytes) = kernel.run(Program::PodIngress, Kind::Xdp, &packet);
            assert_eq!((verdict, &bytes), (Verdict::Handover, &packet));
            let (verdict, bytes) = kernel.run(Program::PodIngress, Kind::Tc, &packet);
            assert_eq!(verdict, Verdict::Pass);
            assert_ne!(bytes, packet);
        }
    });
}

/// XDP cannot resolve a neighbour: tc gets the packet as it came.
#[test]
fn an_unknown_neighbour_is_handed_over_untouched() {
    network(|nic| {
        let mut kernel = Kernel::load();
        kernel.nic = nic;
        for (ipv6, forget) in
            [(false, "ip neigh del 10.0.0.2 dev nic0"), (true, "ip -6 neigh del fd00::10:0:0:2 dev nic0")]
        {
            ip(forget);
            kernel.fill(&world(ipv6));
            let packet = spec("tcp 192.0.2.7:40000 > 10.96.0.5:80 S", ipv6).bytes();
            let before = kernel.counter(counter::NO_NEIGHBOUR);
            let (verdict, bytes) = kernel.run(Program::NicIngress, Kind::Xdp, &packet);
            assert_eq!((verdict, &bytes), (Verdict::Handover, &packet));
            assert_eq!(kernel.counter(counter::NO_NEIGHBOUR), before + 1);
        }
    });
}

/// A tag that says the priority alone is taken off before tc; a packet of a VLAN is left to its device.
#[test]
fn tagged_packets_are_handed_over_or_passed_untouched() {
    network(|nic| {
        let mut kernel = Kernel::load();
        kernel.nic = nic;
        for ipv6 in [false, true] {
            kernel.fill(&world(ipv6));
            for (program, words) in [
                (Program::PodIngress, "tcp 10.244.1.9:40000 > 10.96.0.1:80 S"),
                (Program::NicIngress, "tcp 192.0.2.7:40000 > 10.96.0.1:80 S"),
            ] {
                for (tag, verdict) in [
                    ([0x81, 0x00, 0x60, 0x00], Verdict::Handover),
                    ([0x88, 0xa8, 0x00, 0x00], Verdict::Handover),
                    ([0x81, 0x00, 0x60, 0x05], Verdict::Pass),
                    ([0x81, 0x00, 0x0f, 0xff], Verdict::Pass),
                ] {
                    let mut packet = spec(words, ipv6).bytes();
                    packet.splice(12..12, tag);
                    assert_eq!(
                        kernel.run(program, Kind::Xdp, &packet),
                        (verdict, packet),
                        "{program:?} {tag:?}"
                    );
                }
                let mut twice = spec(words, ipv6).bytes();
                twice.splice(12..12, [0x88, 0xa8, 0, 7, 0x81, 0, 0, 0]);
                assert_eq!(kernel.run(program, Kind::Xdp, &twice), (Verdict::Pass, twice));
            }
        }
    });
}

/// XDP takes the mark from a packet that a device is to complete its checksum: such a one is not sent on by it.
#[test]
fn a_partial_checksum_is_not_sent_on_by_xdp() {
    network(|nic| {
        let mut kernel = Kernel::load();
        kernel.nic = nic;
        for ipv6 in [false, true] {
            kernel.fill(&world(ipv6));
            let mut spec = spec("tcp 192.0.2.7:40000 > 10.96.0.5:80 S", ipv6);
            spec.partial = true;
            let packet = spec.bytes();
            let (verdict, bytes) = kernel.run(Program::NicIngress, Kind::Xdp, &packet);
            assert_eq!((verdict, &bytes), (Verdict::Handover, &packet));
        }
    });
}

/// A UDP datagram to a frontend whose last two bytes make its full checksum equal the pseudo header's sum.
fn ambiguous(ipv6: bool) -> Vec<u8> {
    let mut spec = spec("udp 10.244.1.9:40000 > 10.96.0.1:53 len=20", ipv6);
    spec.partial = true;
    let at = if ipv6 { 54 } else { 34 } + 6;
    let wanted = spec.bytes()[at..at + 2].to_vec();
    spec.partial = false;
    for word in 0..=u16::MAX {
        spec.payload[18..].copy_from_slice(&word.to_be_bytes());
        let bytes = spec.bytes();
        if bytes[at..at + 2] == wanted {
            return bytes;
        }
    }
    panic!("no such payload");
}
