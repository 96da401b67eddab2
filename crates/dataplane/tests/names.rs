//! Questions for the node's DNS through the same code twice: on the host, and in the kernel by BPF_PROG_TEST_RUN. Needs root.
//! That the host's answers are the agent's to the byte is tested in `eastwest-dns`.

#[path = "vectors/kernel.rs"]
#[allow(dead_code, reason = "the tests of packets use the rest")]
mod kernel;

use std::net::SocketAddr;

use eastwest_abi::names::{Answer, Question, word};
use eastwest_abi::{Addr4, Addr6};
use eastwest_packet::Verdict;
use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, Spec, check, run};
use kernel::{Kernel, Kind, network};

const SERVERS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
const CLIENTS: [&str; 2] = ["10.244.1.9", "fd00:10:244::9"];

const WEB: &[u8] = b"\x03web\x07default\x03svc\x07cluster\x05local\x00";
const SOA: &[u8] = b"\xc0\x1c\0\x06\0\x01\0\0\0\x05\0\x25\x02ns\x03dns\xc0\x1c\x0ahostmaster\xc0\x1c\0\0\0\0\0\0\x1c\x20\0\0";

fn longest() -> Vec<u8> {
    let label = |n: usize| [&[n as u8][..], &vec![b'l'; n]].concat();
    [&label(63)[..], &label(62), &[0]].concat()
}

fn maps(answering: bool) -> HostMaps {
    let mut maps = HostMaps::default();
    maps.names.servers4[0] = Addr4(u32::from_ne_bytes([10, 96, 0, 10]));
    maps.names.servers6[3] = Addr6([0xfd00_0010_u32.to_be(), 0x0096_0000_u32.to_be(), 0, 10u32.to_be()]);
    maps.names.peers4[0] = Addr4(u32::from_ne_bytes([10, 0, 0, 2]));
    maps.names.peers6[0] = Addr6([0xfd00_0000_u32.to_be(), 0, 0, 2u32.to_be()]);
    (maps.names.count4, maps.names.count6, maps.names.port) = (1, 1, 10_253_u16.to_be_bytes());
    maps.config.flags |= eastwest_abi::config_flags::NAMES;
    maps.answering = answering;
    maps.words[word::BEAT as usize] = u64::from(maps.clock) << 24;
    maps.words[word::SERIAL as usize] = 0x6543_2123;
    let address = |n: u16| {
        [
            &b"\xc0\x0c\0"[..],
            &[if n == 4 { 1 } else { 28 }],
            b"\0\x01\0\0\0\x05\0",
            &[n as u8],
            &vec![7; n.into()],
        ]
        .concat()
    };
    for (name, qtype, counts, data, serial) in [
        (WEB, 1, [1, 0], address(4), None),
        (WEB, 28, [0, 1], SOA.to_vec(), Some(37)),
        (&longest()[..], 1, [1, 0], vec![1; 64], None),
        (&longest()[..], 28, [1, 0], address(16), None),
        (b"\0", 1, [1, 0], Vec::new(), None),
    ] {
        let answer = Answer::new(counts, &data, serial, 1232).expect("fits");
        maps.answers.insert(Question::new(name, qtype).expect("fits"), answer);
    }
    maps
}

/// Any number, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Questions: plain ones, and ones with anything changed, cut off or added.
fn questions() -> Vec<Vec<u8>> {
    let mut random = Random(7);
    let mut out = Vec::new();
    for name in [WEB.to_vec(), longest(), vec![0], b"\x03wep\0".to_vec()] {
        for qtype in [1, 28, 16] {
            for edns in [None, Some(0), Some(0x80)] {
                let mut message = vec![0x12, 0x34, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
                message.extend(
                    name.iter().map(|b| if random.below(2) == 0 { b.to_ascii_uppercase() } else { *b }),
                );
                message.extend([0, qtype, 0, 1]);
                if let Some(dnssec_ok) = edns {
                    message.extend([0, 0, 41, 4, 208, 0, 0, dnssec_ok, 0, 0, 0]);
                }
                for _ in 0..12 {
                    let mut odd = message.clone();
                    match random.below(3) {
                        0 => odd.truncate(random.below(message.len())),
                        1 => odd.extend((0..=random.below(8)).map(|i| i as u8)),
                        _ => {
                            let at = random.below(message.len());
                            odd[at] = random.below(256) as u8;
                        }
                    }
                    out.push(odd);
                }
                out.push(message);
            }
        }
    }
    out
}

fn spec(ipv6: bool, message: &[u8], partial: bool, nosum: bool) -> Spec {
    let (from, to) = (CLIENTS[usize::from(ipv6)], SERVERS[usize::from(ipv6)]);
    let at = |ip: &str, port| SocketAddr::new(ip.parse().expect("an address"), port);
    let mut spec: Spec = format!("udp {} > {}", at(from, 40_000), at(to, 53)).parse().expect("a packet");
    (spec.payload, spec.partial, spec.nosum) = (message.to_vec(), partial, nosum);
    spec
}

#[test]
fn kernel_and_host_agree() {
    let (wrong, answered) = network(|_| {
        let mut kernel = Kernel::load();
        kernel.fill(&maps(true));
        kernel.fill_names(&maps(true));
        let (mut wrong, mut answered) = (Vec::new(), 0);
        for message in questions() {
            for ipv6 in [false, true] {
                for (partial, nosum) in [(false, false), (true, false), (false, !ipv6)] {
                    for (kind, hook) in [(Kind::Xdp, Hook::Xdp), (Kind::Tc, Hook::Tc { partial })] {
                        let question = spec(ipv6, &message, partial, nosum).bytes();
                        // A test-run is given nobody's word that the agent lives.
                        let mut host = maps(true);
                        let mut packet = HostPacket::new(&question, hook);
                        let on_host = run(Program::PodIngress, &mut host, &mut packet);
                        let (in_kernel, bytes) = kernel.run(Program::PodIngress, kind, &question);
                        answered += usize::from(on_host == Verdict::Back);
                        if (on_host, packet.bytes()) != (in_kernel, &bytes[..]) {
                            wrong.push(format!(
                                "{kind:?} {partial} {nosum} {message:02x?}: {on_host:?} {in_kernel:?}"
                            ));
                        }
                    }
                }
                // The agent is to be seen alive again in good time.
                kernel.beat();
            }
        }
        (wrong, answered)
    });
    assert!(wrong.is_empty(), "{} differ: {}", wrong.len(), wrong[0]);
    assert!(answered > 200, "{answered}");
}

/// Without the program that answers, or without a sign of life: to another node, there and back; TCP from its first packet on.
#[test]
fn another_node_stands_in() {
    network(|_| {
        let mut kernel = Kernel::load();
        for (answering, lives) in [(false, true), (true, false)] {
            let mut tables = maps(answering);
            if !lives {
                tables.words[word::BEAT as usize] = 0;
            }
            kernel.fill(&tables);
            kernel.fill_names(&tables);
            for ipv6 in [false, true] {
                let peer = if ipv6 { "[fd00::2]:10253" } else { "10.0.0.2:10253" };
                for kind in [Kind::Xdp, Kind::Tc] {
                    let question = spec(ipv6, WEB, false, false);
                    let sent = Spec { to: peer.parse().expect("an address"), ..question.clone() };
                    for _ in 0..2 {
                        let (verdict, bytes) = kernel.run(Program::PodIngress, kind, &question.bytes());
                        assert_eq!((verdict, check(&bytes, &sent)), (Verdict::Pass, Ok(())));
                        let mut packet = HostPacket::new(&question.bytes(), Hook::Xdp);
                        assert_eq!(run(Program::PodIngress, &mut tables, &mut packet), Verdict::Pass);
                        assert_eq!(check(packet.bytes(), &sent), Ok(()));
                    }
                    let reply = Spec { from: sent.to, to: sent.from, ..question.clone() };
                    let back = Spec { from: question.to, to: question.from, ..question.clone() };
                    let (verdict, bytes) = kernel.run(Program::PodEgress, Kind::Tc, &reply.bytes());
                    assert_eq!((verdict, check(&bytes, &back)), (Verdict::Pass, Ok(())));

                    // Its port is one of its own, as a connection stays where it began.
                    let (client, server) = (
                        SocketAddr::new(question.from.ip(), if kind == Kind::Tc { 1 } else { 2 }),
                        question.to,
                    );
                    for (flags, to) in [("S", sent.to), (".", sent.to)] {
                        let packet: Spec =
                            format!("tcp {client} > {server} {flags}").parse().expect("a packet");
                        let wanted = Spec { to, ..packet.clone() };
                        let (verdict, bytes) = kernel.run(Program::PodIngress, kind, &packet.bytes());
                        assert_eq!((verdict, check(&bytes, &wanted)), (Verdict::Pass, Ok(())), "{packet}");
                    }
                    // One that began here stays too: it is the node's own to refuse.
                    let other: Spec = format!("tcp {} > {server} .", SocketAddr::new(client.ip(), 3))
                        .parse()
                        .expect("a packet");
                    let (verdict, bytes) = kernel.run(Program::PodIngress, kind, &other.bytes());
                    assert_eq!((verdict, bytes), (Verdict::Pass, other.bytes()));
                }
            }
            // Back again: what went elsewhere stays here from the next packet on.
            kernel.fill_names(&maps(true));
            let question = spec(false, b"odd", false, false).bytes();
            assert_eq!(kernel.run(Program::PodIngress, Kind::Tc, &question), (Verdict::Pass, question));
        }
    });
}
