//! What a CPU keeps of flows, in the kernel: a change that one CPU makes holds for the next packet on every other. The programs
//! run by BPF_PROG_TEST_RUN on the CPU that this thread is bound to. Needs root, and two CPUs.

#[path = "vectors/kernel.rs"]
#[allow(dead_code, reason = "the tests of packets use the rest")]
mod kernel;

use std::net::{IpAddr, SocketAddr};

use eastwest_abi::backend_flags::LOCAL;
use eastwest_abi::counter;
use eastwest_packet::Verdict;
use eastwest_packet::host::{HostMaps, Program};
use eastwest_packet::vectors::{six, spec, world};
use eastwest_packet::wire::{PROTOCOL_TCP, PROTOCOL_UDP};
use kernel::{Kernel, Kind, network};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

const TCP: &str = "tcp 10.244.1.9:40000 > 10.96.1.1:80";
const UDP: &str = "udp 10.244.1.9:40000 > 10.96.1.1:53";
/// Attempts: what is kept holds for some milliseconds only, and a machine at work may take longer between two packets.
const ROUNDS: usize = 10;

fn ip(text: &str, ipv6: bool) -> IpAddr {
    let ip = text.parse().expect("an address");
    if ipv6 { six(ip) } else { ip }
}

/// A Service with the backend 10.244.3.`number`, whose id is the same for all numbers.
fn service(ipv6: bool, number: u8, generation: u32) -> HostMaps {
    let mut maps = world(ipv6);
    for (protocol, port) in [(PROTOCOL_TCP, 80), (PROTOCOL_UDP, 53)] {
        let at = |text: &str| SocketAddr::new(ip(text, ipv6), port);
        let id = maps.add_backend(at(&format!("10.244.3.{number}")), protocol, LOCAL);
        maps.backends[id as usize].generation = generation;
        maps.add_frontend(at("10.96.1.1"), protocol, 0, &[id]);
    }
    maps
}

/// Binds this thread to a CPU.
fn on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &set).expect("two CPUs");
}

/// Sends a pod's packet on a CPU: the last byte of where it goes, or what became of it.
fn sends(kernel: &Kernel, kind: Kind, cpu: usize, words: &str, ipv6: bool) -> Result<u8, Verdict> {
    on(cpu);
    let (verdict, bytes) = kernel.run(Program::PodIngress, kind, &spec(words, ipv6).bytes());
    if verdict == Verdict::Pass { Ok(bytes[if ipv6 { 53 } else { 33 }]) } else { Err(verdict) }
}

fn each(test: impl Fn(&mut Kernel, Kind, bool) + Send + 'static) {
    network(move |nic| {
        let mut kernel = Kernel::load();
        kernel.nic = nic;
        for ipv6 in [false, true] {
            for kind in [Kind::Xdp, Kind::Tc] {
                test(&mut kernel, kind, ipv6);
            }
        }
    });
}

/// Has both CPUs keep a flow to backend 1.
fn kept(kernel: &mut Kernel, kind: Kind, words: &str, ipv6: bool) {
    kernel.fill(&service(ipv6, 1, 1));
    let tcp = words.starts_with("tcp");
    let (opens, goes_on) =
        if tcp { (format!("{words} S"), format!("{words} .")) } else { (words.into(), words.into()) };
    assert_eq!(sends(kernel, kind, 0, &opens, ipv6), Ok(1));
    for cpu in [0, 1] {
        for _ in 0..2 {
            assert_eq!(
                sends(kernel, kind, cpu, &goes_on, ipv6),
                Ok(1),
                "{kind:?} ipv6={ipv6} CPU {cpu} {goes_on}"
            );
        }
    }
}

/// The tests below would say nothing if nothing were kept.
#[test]
fn both_cpus_keep_a_flow() {
    each(|kernel, kind, ipv6| {
        let mut went_on = [false; 2];
        for _ in 0..ROUNDS {
            kept(kernel, kind, UDP, ipv6);
            kernel.lose();
            for cpu in [0, 1] {
                let before = kernel.counter(counter::NEW);
                assert_eq!(sends(kernel, kind, cpu, UDP, ipv6), Ok(1));
                went_on[cpu] |= kernel.counter(counter::NEW) == before;
                kernel.lose();
            }
            if went_on == [true; 2] {
                break;
            }
        }
        assert_eq!(went_on, [true; 2], "{kind:?} ipv6={ipv6}: without a new connection");
    });
}

#[test]
fn a_connection_opened_again_goes_to_its_own_backend_on_all_cpus() {
    each(|kernel, kind, ipv6| {
        for ends in ["F.", "R"] {
            for _ in 0..ROUNDS {
                kept(kernel, kind, TCP, ipv6);
                kernel.fill_services(&service(ipv6, 2, 2));
                assert_eq!(sends(kernel, kind, 0, &format!("{TCP} {ends}"), ipv6), Ok(1));
                assert_eq!(sends(kernel, kind, 0, &format!("{TCP} S"), ipv6), Ok(2));
                for cpu in [1, 0] {
                    let to = sends(kernel, kind, cpu, &format!("{TCP} ."), ipv6);
                    assert_eq!(to, Ok(2), "{kind:?} ipv6={ipv6} after {ends} CPU {cpu}");
                }
            }
        }
    });
}

#[test]
fn datagrams_leave_a_backend_that_is_gone_at_once() {
    each(|kernel, kind, ipv6| {
        for _ in 0..ROUNDS {
            kept(kernel, kind, UDP, ipv6);
            kernel.fill_services(&service(ipv6, 2, 2));
            for cpu in [1, 0] {
                assert_eq!(sends(kernel, kind, cpu, UDP, ipv6), Ok(2), "{kind:?} ipv6={ipv6} CPU {cpu}");
            }
        }
    });
}

#[test]
fn a_service_that_is_deleted_gets_no_more_datagrams() {
    each(|kernel, kind, ipv6| {
        for _ in 0..ROUNDS {
            kept(kernel, kind, UDP, ipv6);
            let mut none = service(ipv6, 1, 2);
            let last = none.backends.len() - 1;
            none.backends[last].flags = 0;
            none.frontends4.retain(|_, frontend| frontend.inside.count == 0);
            none.frontends6.retain(|_, frontend| frontend.inside.count == 0);
            kernel.fill_services(&none);
            for cpu in [1, 0] {
                let verdict = sends(kernel, kind, cpu, UDP, ipv6);
                assert!(verdict.is_err(), "{kind:?} ipv6={ipv6} CPU {cpu}: {verdict:?}");
            }
        }
    });
}

#[test]
fn a_flow_that_a_full_table_lost_is_opened_anew_on_all_cpus() {
    each(|kernel, kind, ipv6| {
        for _ in 0..ROUNDS {
            kept(kernel, kind, TCP, ipv6);
            kernel.fill_services(&service(ipv6, 2, 2));
            kernel.lose();
            assert_eq!(sends(kernel, kind, 0, &format!("{TCP} S"), ipv6), Ok(2));
            for cpu in [1, 0] {
                let to = sends(kernel, kind, cpu, &format!("{TCP} ."), ipv6);
                assert_eq!(to, Ok(2), "{kind:?} ipv6={ipv6} CPU {cpu}");
            }
        }
    });
}
