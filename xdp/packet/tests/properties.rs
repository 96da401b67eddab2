//! What holds for any packet and any sequence of packets.

use std::collections::HashMap;
use std::net::SocketAddr;

use eastwest_packet::host::{Hook, HostMaps, HostPacket, Program, Spec, check, run};
use eastwest_packet::vectors::{spec, world};
use eastwest_packet::{Verdict, Via};
use proptest::prelude::*;

const HOOKS: [(Hook, bool); 4] = [
    (Hook::Xdp, false),
    (Hook::Xdp, true),
    (Hook::Tc { partial: false }, false),
    (Hook::Tc { partial: true }, true),
];

/// What the packets of `anything_may_come` are like.
const REAL: [&str; 4] = [
    "udp 10.244.1.9:40000 > 10.96.0.3:53 len=40",
    "udp 10.244.1.9:40000 > 10.96.0.3:53 len=40 cut=0..48 extensions=hdr",
    "ping 10.244.1.9:1 > 10.96.0.3:1 len=40",
    "udp 10.96.0.1:53 > 10.244.1.9:40000 len=40 error=port by=10.244.1.9",
];

fn pass(program: Program, maps: &mut HostMaps, spec: &Spec, hook: Hook) -> (Verdict, Vec<u8>) {
    let mut packet = HostPacket::new(&spec.bytes(), hook);
    packet.route = (Via::Stack, Default::default());
    let verdict = run(program, maps, &mut packet);
    (verdict, packet.bytes().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// The incremental checksum is the one of the whole packet, computed anew.
    #[test]
    fn checksums_hold(
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
        port in 1u16..,
        ipv6: bool,
        tcp: bool,
        seq: u32,
        which in 0usize..4,
    ) {
        let (hook, partial) = HOOKS[which];
        let (asked, wanted) = if tcp {
            ("tcp 10.244.1.9:40000 > 10.96.0.1:80 P.", "tcp 10.244.1.9:40000 > 10.244.1.2:8080 P.")
        } else {
            ("udp 10.244.1.9:40000 > 10.96.0.1:53", "udp 10.244.1.9:40000 > 10.244.1.2:5353")
        };
        let make = |words: &str| {
            let mut spec = spec(words, ipv6);
            spec.from.set_port(port);
            spec.payload.clone_from(&payload);
            spec.seq = seq;
            spec.partial = partial;
            spec
        };
        let (asked, wanted) = (make(asked), make(wanted));
        let (verdict, bytes) = pass(Program::PodIngress, &mut world(ipv6), &asked, hook);
        if verdict == Verdict::Handover {
            // Both kinds of checksum fit: once in 65,536.
            prop_assert_eq!(hook, Hook::Xdp);
            prop_assert_eq!(bytes, asked.bytes());
            let other = Spec { partial: !partial, ..asked.clone() };
            prop_assert_eq!(other.bytes(), asked.bytes());
        } else {
            prop_assert_eq!(verdict, Verdict::Pass);
            prop_assert_eq!(check(&bytes, &wanted), Ok(()));
        }
    }

    /// Whatever the bytes are, and wherever they end: no panic, and nothing is read that is not there.
    #[test]
    fn anything_may_come(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
        ipv6: bool,
        ip: bool,
        which in 0usize..4,
        length in 0usize..200,
    ) {
        if ip && bytes.len() > 14 {
            // Mostly an IP packet for a frontend.
            let real = spec(REAL[length % REAL.len()], ipv6).bytes();
            let keep = bytes.len() % 7 * 8;
            for (i, byte) in bytes.iter_mut().enumerate() {
                if i < 14 || i / 8 % 7 != keep / 8 {
                    *byte = real.get(i).copied().unwrap_or(*byte);
                }
            }
        }
        bytes.truncate(length);
        for program in [Program::PodIngress, Program::PodEgress, Program::NicIngress, Program::NicEgress] {
            let mut packet = HostPacket::new(&bytes, HOOKS[which].0);
            run(program, &mut world(ipv6), &mut packet);
        }
    }

    /// A packet for a frontend that is cut short is dropped and counted, or passed where its address cannot be read;
    /// it is never sent on.
    #[test]
    fn cut_packets_go_nowhere(cut in 0usize..90, ipv6: bool, tcp: bool, which in 0usize..4) {
        let words = if tcp { "tcp 10.244.1.9:40000 > 10.96.0.1:80 S len=20" } else { "udp 10.244.1.9:40000 > 10.96.0.1:53 len=30" };
        let whole = spec(words, ipv6).bytes();
        let mut maps = world(ipv6);
        let mut packet = HostPacket::new(&whole[..cut.min(whole.len() - 1)], HOOKS[which].0);
        let before = packet.bytes().to_vec();
        let verdict = run(Program::PodIngress, &mut maps, &mut packet);
        prop_assert_eq!(packet.bytes(), &before[..]);
        let readable = before.len() >= if ipv6 { 54 } else { 34 };
        prop_assert_eq!(verdict, if readable { Verdict::Drop } else { Verdict::Pass });
        prop_assert_eq!(maps.counter(eastwest_abi::counter::MALFORMED), u64::from(readable));
    }
}

/// A client's socket: who, from which port, to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Socket {
    from: SocketAddr,
    to: SocketAddr,
    tcp: bool,
}

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    /// A client sends.
    Send { client: usize, port: usize, target: usize, tcp: bool },
    /// A TCP connection ends from both sides.
    Close { client: usize, port: usize, target: usize },
    /// Time goes by, in units of `seen`.
    Wait(u32),
    /// The table loses a half.
    Evict(usize),
    /// A backend is replaced by another at the same address: its flows are to choose anew.
    Replace(usize),
}

const CLIENTS: [&str; 3] = ["10.244.1.9", "10.244.1.2", "10.244.1.4"];
const PORTS: [u16; 3] = [40000, 8080, 5353];
const TARGETS: [(&str, u16, u16); 4] =
    [("10.96.0.1", 80, 53), ("10.96.0.2", 80, 53), ("10.244.1.2", 8080, 5353), ("10.244.2.2", 8080, 5353)];

fn event() -> impl Strategy<Value = Event> {
    let socket = (0..CLIENTS.len(), 0..PORTS.len(), 0..TARGETS.len());
    prop_oneof![
        12 => (socket.clone(), any::<bool>())
            .prop_map(|((client, port, target), tcp)| Event::Send { client, port, target, tcp }),
        2 => socket.prop_map(|(client, port, target)| Event::Close { client, port, target }),
        2 => prop_oneof![Just(1), Just(100), Just(300)].prop_map(Event::Wait),
        1 => any::<usize>().prop_map(Event::Evict),
        1 => (1usize..5).prop_map(Event::Replace),
    ]
}

/// The network as the clients and backends see it.
struct Network {
    maps: HostMaps,
    ipv6: bool,
    hook: Hook,
    /// What each open socket's packets become: (source, destination) at the backend.
    open: HashMap<Socket, (SocketAddr, SocketAddr)>,
    /// When each socket last sent.
    sent: HashMap<Socket, u32>,
}

fn ends(bytes: &[u8], ipv6: bool) -> (SocketAddr, SocketAddr) {
    let ip = |at: usize| -> std::net::IpAddr {
        if ipv6 {
            let mut octets = [0; 16];
            octets.copy_from_slice(&bytes[at..at + 16]);
            octets.into()
        } else {
            [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]].into()
        }
    };
    let (s, d, l4) = if ipv6 { (22, 38, 54) } else { (26, 30, 34) };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    (SocketAddr::new(ip(s), port(l4)), SocketAddr::new(ip(d), port(l4 + 2)))
}

impl Network {
    fn socket(&self, client: usize, port: usize, target: usize, tcp: bool) -> Socket {
        let (address, tcp_port, udp_port) = TARGETS[target];
        let words = format!(
            "{} {}:{} > {}:{}",
            if tcp { "tcp" } else { "udp" },
            CLIENTS[client],
            PORTS[port],
            address,
            if tcp { tcp_port } else { udp_port }
        );
        let spec = spec(&words, self.ipv6);
        Socket { from: spec.from, to: spec.to, tcp }
    }

    fn packet(&self, from: SocketAddr, to: SocketAddr, tcp: bool, flags: u8) -> Spec {
        let words = format!("{} 10.0.0.1:1 > 10.0.0.1:1 len=5", if tcp { "tcp" } else { "udp" });
        Spec {
            from,
            to,
            flags: if tcp { flags } else { 0 },
            partial: matches!(self.hook, Hook::Tc { partial: true }),
            ..spec(&words, self.ipv6)
        }
    }

    /// Sends a packet of a socket and lets the answer come back.
    fn send(&mut self, socket: Socket, flags: u8) -> Result<(), TestCaseError> {
        let packet = self.packet(socket.from, socket.to, socket.tcp, flags);
        let (verdict, bytes) = pass(Program::PodIngress, &mut self.maps, &packet, self.hook);
        prop_assert!(matches!(verdict, Verdict::Pass | Verdict::Back), "{socket:?}: {verdict:?}");
        let seen = ends(&bytes, self.ipv6);
        for (other, theirs) in &self.open {
            // A pod that calls itself answers to an address that only it sees.
            prop_assert!(
                other == &socket || other.tcp != socket.tcp || *theirs != seen,
                "{socket:?} and {other:?} are both {seen:?}"
            );
        }
        self.open.insert(socket, seen);
        self.sent.insert(socket, self.maps.now);
        self.answer(socket, true)
    }

    /// Lets a backend answer what it saw. It must get to the socket that asked; `surely`, or not to another at least.
    fn answer(&mut self, socket: Socket, surely: bool) -> Result<(), TestCaseError> {
        let (from, to) = self.open[&socket];
        if from.ip() == to.ip() && socket.from.ip() != to.ip() {
            return Ok(());
        }
        let hairpin = socket.from.ip() == to.ip() && from.ip() != to.ip();
        let answer = self.packet(to, from, socket.tcp, 0x10);
        let program = if hairpin { Program::PodIngress } else { Program::PodEgress };
        let mut maps = self.maps.clone();
        let (verdict, bytes) = pass(program, &mut maps, &answer, self.hook);
        let arrived = ends(&bytes, self.ipv6);
        if !surely && arrived == (to, from) {
            return Ok(());
        }
        prop_assert_eq!(verdict, if hairpin { Verdict::Back } else { Verdict::Pass });
        prop_assert_eq!(arrived, (socket.to, socket.from), "answer to {:?} by {:?}", socket, (from, to));
        Ok(())
    }

    /// Halves that no longer find each other.
    fn check_pairs(&self) -> Result<(), TestCaseError> {
        use eastwest_abi::direction::REVERSE;
        macro_rules! check {
            ($table:expr) => {
                for (key, value) in &$table {
                    let other = eastwest_abi::ConntrackKey {
                        saddr: value.daddr,
                        daddr: value.saddr,
                        sport: value.dport,
                        dport: value.sport,
                        direction: key.direction ^ 1,
                        ..*key
                    };
                    // A reverse half may outlive a flow that went on to another backend; never the other way round.
                    let Some(half) = $table.get(&other) else {
                        prop_assert!(key.direction == REVERSE, "{key:?} has no reverse half");
                        continue;
                    };
                    let found = (half.daddr, half.saddr, half.dport, half.sport);
                    prop_assert!(
                        key.direction == REVERSE || found == (key.saddr, key.daddr, key.sport, key.dport),
                        "{key:?} does not own its reverse half"
                    );
                }
            };
        }
        check!(self.maps.conntrack4);
        check!(self.maps.conntrack6);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Each answer goes to the socket that asked, whatever else happened before.
    #[test]
    fn every_answer_finds_its_socket(
        events in proptest::collection::vec(event(), 1..60),
        ipv6: bool,
        which in 0usize..4,
        seed in 1u64..,
    ) {
        let maps = HostMaps { random: seed, ..world(ipv6) };
        let hook = HOOKS[which].0;
        let mut net = Network { maps, ipv6, hook, open: HashMap::new(), sent: HashMap::new() };
        let mut evicted = false;
        for event in events {
            match event {
                Event::Send { client, port, target, tcp } => {
                    let socket = net.socket(client, port, target, tcp);
                    if socket.from == socket.to || socket.from.ip() == socket.to.ip() {
                        // Does not leave the pod.
                        continue;
                    }
                    let flags = if net.open.contains_key(&socket) { 0x10 } else { 0x02 };
                    net.send(socket, flags)?;
                }
                Event::Close { client, port, target } => {
                    let socket = net.socket(client, port, target, true);
                    if let Some(&(from, to)) = net.open.get(&socket) {
                        net.send(socket, 0x11)?;
                        let hairpin = socket.from.ip() == to.ip();
                        let fin = net.packet(to, from, true, 0x11);
                        let program = if hairpin { Program::PodIngress } else { Program::PodEgress };
                        pass(program, &mut net.maps, &fin, hook);
                        net.open.remove(&socket);
                    }
                }
                Event::Wait(units) => {
                    net.maps.now += units;
                    // An idle UDP flow may lose its tuple to another; a packet of it opens it again.
                    let (now, sent) = (net.maps.now, &net.sent);
                    net.open.retain(|socket, _| socket.tcp || now - sent[socket] <= 170);
                }
                Event::Evict(nth) => {
                    // The next packet of any flow is in another unit of time: only then halves look for each other.
                    net.maps.now += 1;
                    if ipv6 {
                        let mut keys: Vec<_> = net.maps.conntrack6.keys().copied().collect();
                        keys.sort_by_key(|key| (key.saddr.0, key.daddr.0, key.sport, key.dport, key.protocol, key.direction));
                        if !keys.is_empty() {
                            net.maps.conntrack6.remove(&keys[nth % keys.len()]);
                        }
                    } else {
                        let mut keys: Vec<_> = net.maps.conntrack4.keys().copied().collect();
                        keys.sort_by_key(|key| (key.saddr.0, key.daddr.0, key.sport, key.dport, key.protocol, key.direction));
                        if !keys.is_empty() {
                            net.maps.conntrack4.remove(&keys[nth % keys.len()]);
                        }
                    }
                    // What the table lost, its sockets may lose.
                    net.open.clear();
                    evicted = true;
                }
                Event::Replace(id) => {
                    net.maps.backends[id].generation += 1;
                    net.open.retain(|socket, _| socket.tcp);
                }
            }
            for socket in net.open.keys().copied().collect::<Vec<_>>() {
                net.answer(socket, !evicted)?;
            }
            if !evicted {
                net.check_pairs()?;
            }
        }
    }
}
