//! The table of packets on the host's engine.

use eastwest_packet::Via;
use eastwest_packet::host::{Hook, HostPacket, run};
use eastwest_packet::vectors::{CASES, Player, Run, hop, world};

#[test]
fn every_case_in_both_families_over_all_hooks_and_checksums() {
    const NIC: u32 = 7;
    let mut wrong = Vec::new();
    for case in CASES {
        for (ipv6, partial, hook) in [
            (false, false, Hook::Xdp),
            (false, true, Hook::Xdp),
            (false, false, Hook::Tc { partial: false }),
            (false, true, Hook::Tc { partial: true }),
            (true, false, Hook::Xdp),
            (true, true, Hook::Xdp),
            (true, false, Hook::Tc { partial: false }),
            (true, true, Hook::Tc { partial: true }),
        ] {
            let mut maps = world(ipv6);
            maps.config.flags |= case.flags;
            let mut player = Player::new(Run {
                ipv6,
                partial_in: partial,
                partial_out: partial,
                partial_nic: partial && hook != Hook::Xdp,
                nic: NIC,
            });
            for step in case.steps {
                let spec = player.packet(step);
                let hook = match hook {
                    Hook::Tc { .. } => Hook::Tc { partial: spec.partial },
                    Hook::Xdp => hook,
                };
                let mut packet = HostPacket::new(&spec.bytes(), hook);
                packet.route = (Via::Link, hop(NIC));
                let verdict = run(step.0, &mut maps, &mut packet);
                if let Err(error) = player.judge(step, verdict, packet.bytes()) {
                    wrong.push(format!(
                        "{} [{hook:?} ipv6={ipv6}] {:?} {}: {error}",
                        case.name, step.0, step.1
                    ));
                    break;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
