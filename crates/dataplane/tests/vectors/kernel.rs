//! The kernel's engine: the object's programs over BPF_PROG_TEST_RUN, with maps filled from tables in memory.

use std::net::IpAddr;
use std::process::Command;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray};
use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader};
use eastwest_abi::{
    Addr4, AffinityKey4, AffinityKey6, Config, Conntrack4, Conntrack6, ConntrackKey4, ConntrackKey6,
    FragmentKey4, FragmentKey6, Source, maps, names, programs,
};
use eastwest_dataplane::object::OBJECT;
use eastwest_packet::host::{HostMaps, Program};
use eastwest_packet::vectors::SENT_LINK;
use eastwest_packet::{Verdict, number};

/// What XDP puts before a packet that it hands over.
const MARK: [u8; 4] = 0x6577_6831_u32.to_ne_bytes();

/// Which kind of program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Xdp,
    Tc,
}

/// The loaded object.
pub struct Kernel {
    ebpf: Ebpf,
    /// Index of the NIC of [`network`].
    pub nic: u32,
}

impl Kernel {
    /// Loads the programs that packets meet.
    pub fn load() -> Self {
        Self::load_with(&[])
    }

    /// Loads others as well.
    pub fn load_with(others: &[&str]) -> Self {
        assert_eq!(nix::unistd::geteuid().as_raw(), 0, "needs root: it loads programs into the kernel");
        let mut loader = EbpfLoader::new();
        for (name, size) in [
            (maps::FRONTENDS4, 1024),
            (maps::FRONTENDS6, 1024),
            (maps::BACKENDS, 1024),
            (maps::SLOTS, 1024),
            (maps::ENDPOINTS4, 1024),
            (maps::ENDPOINTS6, 1024),
            (maps::CONNTRACK4, 16384),
            (maps::CONNTRACK6, 16384),
            (maps::SOCKETS, 1024),
            (maps::AFFINITY4, 1024),
            (maps::AFFINITY6, 1024),
            (maps::FRAGMENTS4, 1024),
            (maps::FRAGMENTS6, 1024),
        ] {
            loader.map_max_entries(name, size);
        }
        let mut ebpf = loader.load(OBJECT).expect("the object");
        let (xdp, tc): (Vec<&str>, Vec<&str>) = others.iter().partition(|name| name.ends_with("_xdp"));
        for name in [
            programs::POD_INGRESS_XDP,
            programs::NIC_INGRESS_XDP,
            programs::EMPTY_XDP,
            names::programs::ANSWER_XDP,
        ]
        .into_iter()
        .chain(xdp)
        {
            let program: &mut Xdp = ebpf.program_mut(name).expect(name).try_into().expect(name);
            program.load().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        for name in [
            programs::POD_INGRESS_TC,
            programs::POD_EGRESS_TC,
            programs::POD_HANDOVER_TC,
            programs::NIC_INGRESS_TC,
            programs::NIC_EGRESS_TC,
            programs::NIC_HANDOVER_TC,
            programs::EMPTY_TC,
            names::programs::ANSWER_TC,
        ]
        .into_iter()
        .chain(tc)
        {
            let program: &mut SchedClassifier = ebpf.program_mut(name).expect(name).try_into().expect(name);
            program.load().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
        Self { ebpf, nic: 0 }
    }

    /// Makes the maps hold what the tables do.
    pub fn fill(&mut self, from: &HostMaps) {
        self.fill_services(from);
        self.forget();
    }

    /// The same, and leaves the connection tables as they are.
    pub fn fill_services(&mut self, from: &HostMaps) {
        self.configure(from);
        let mut backends = Array::<_, [u8; 32]>::try_from(self.map(maps::BACKENDS)).expect("array");
        for (id, backend) in from.backends.iter().enumerate() {
            backends.set(id as u32, bytes(backend), 0).expect("set");
        }
        let mut slots = Array::<_, u32>::try_from(self.map(maps::SLOTS)).expect("array");
        for (index, id) in from.slots.iter().enumerate() {
            slots.set(index as u32, id, 0).expect("set");
        }
        self.replace::<8, 32>(maps::FRONTENDS4, from.frontends4.iter().map(|(k, v)| (bytes(k), bytes(v))));
        self.replace::<20, 32>(maps::FRONTENDS6, from.frontends6.iter().map(|(k, v)| (bytes(k), bytes(v))));
        self.replace::<8, 4>(maps::ENDPOINTS4, from.endpoints4.iter().map(|k| (bytes(k), [1, 0, 0, 0])));
        self.replace::<20, 4>(maps::ENDPOINTS6, from.endpoints6.iter().map(|k| (bytes(k), [1, 0, 0, 0])));
        self.list(from);
        let nic = self.nic;
        let mut nics = HashMap::<_, u32, u32>::try_from(self.map(maps::NICS)).expect("hash");
        nics.insert(nic, 1, 0).expect("insert");
    }

    /// Makes the maps of names hold what the tables do, and the programs that answer callable.
    #[allow(dead_code, reason = "the tests of packets ask no names")]
    pub fn fill_names(&mut self, from: &HostMaps) {
        use names::{maps, word};
        let mut places =
            Array::<_, [u8; size_of::<names::Names>()]>::try_from(self.map(maps::NAMES)).expect("array");
        places.set(0, bytes(&from.names), 0).expect("set");
        self.beat();
        let mut words = Array::<_, u64>::try_from(self.map(maps::NAMES_WORDS)).expect("array");
        if from.words[word::BEAT as usize] == 0 {
            words.set(word::BEAT, 0, 0).expect("set");
        }
        words.set(word::SERIAL, from.words[word::SERIAL as usize], 0).expect("set");
        self.replace::<{ size_of::<names::Question>() }, { size_of::<names::Answer>() }>(
            maps::ANSWERS,
            from.answers.iter().map(|(k, v)| (bytes(k), bytes(v))),
        );
        let calls =
            [(names::programs::ANSWER_TC, maps::ANSWER_TC), (names::programs::ANSWER_XDP, maps::ANSWER_XDP)];
        for (name, array) in calls {
            let fd = match self.ebpf.program(name).expect(name) {
                aya::programs::Program::Xdp(program) => program.fd(),
                aya::programs::Program::SchedClassifier(program) => program.fd(),
                _ => panic!("{name}"),
            };
            let fd = fd.expect(name).try_clone().expect("dup");
            let mut array = ProgramArray::try_from(self.map(array)).expect(name);
            if from.answering {
                array.set(0, &fd, 0).expect("set");
            } else {
                let _ = array.clear_index(&0);
            }
        }
    }

    /// Says again that the agent lives.
    #[allow(dead_code, reason = "the tests of packets ask no names")]
    pub fn beat(&mut self) {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes the one structure.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        let beat = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let mut words = Array::<_, u64>::try_from(self.map(names::maps::NAMES_WORDS)).expect("array");
        words.set(names::word::BEAT, beat, 0).expect("set");
    }

    /// Makes the configuration that of the tables.
    pub fn configure(&mut self, from: &HostMaps) {
        let mut config =
            Array::<_, [u8; size_of::<Config>()]>::try_from(self.map(maps::CONFIG)).expect("array");
        config.set(0, bytes(&from.config), 0).expect("set");
    }

    /// Makes the lists of clients those of the tables.
    fn list(&mut self, from: &HostMaps) {
        let mut v4 = LpmTrie::<_, [u8; 8], u32>::try_from(self.map(maps::SOURCES4)).expect("trie");
        for (list, addr, bits) in &from.sources {
            if let IpAddr::V4(addr) = addr {
                let source = Source { list: *list, addr: Addr4(u32::from_ne_bytes(addr.octets())) };
                v4.insert(&Key::new(32 + bits, bytes(&source)), 1, 0).expect("insert");
            }
        }
        let mut v6 = LpmTrie::<_, [u8; 20], u32>::try_from(self.map(maps::SOURCES6)).expect("trie");
        for (list, addr, bits) in &from.sources {
            if let IpAddr::V6(addr) = addr {
                let source = Source { list: *list, addr: addr.octets() };
                v6.insert(&Key::new(32 + bits, bytes(&source)), 1, 0).expect("insert");
            }
        }
    }

    /// Empties the connection tables, and what CPUs have kept of them.
    pub fn forget(&mut self) {
        let gone = self.lose();
        let mut changes = Array::<_, u32>::try_from(self.map(maps::CHANGES)).expect("array");
        for number in gone {
            let count: u32 = changes.get(&number, 0).expect("get");
            changes.set(number, count.wrapping_add(1), 0).expect("set");
        }
        self.replace::<{ size_of::<AffinityKey4>() }, 12>(maps::AFFINITY4, std::iter::empty());
        self.replace::<{ size_of::<AffinityKey6>() }, 12>(maps::AFFINITY6, std::iter::empty());
        self.replace::<{ size_of::<FragmentKey4>() }, 8>(maps::FRAGMENTS4, std::iter::empty());
        self.replace::<{ size_of::<FragmentKey6>() }, 8>(maps::FRAGMENTS6, std::iter::empty());
    }

    /// Empties the connection tables alone, as a full one loses flows. The numbers of the keys.
    pub fn lose(&mut self) -> Vec<u32> {
        const KEY4: usize = size_of::<ConntrackKey4>();
        const KEY6: usize = size_of::<ConntrackKey6>();
        let gone4 = self.replace::<KEY4, { size_of::<Conntrack4>() }>(maps::CONNTRACK4, std::iter::empty());
        let gone6 = self.replace::<KEY6, { size_of::<Conntrack6>() }>(maps::CONNTRACK6, std::iter::empty());
        let four = gone4.iter().map(|key| number(&value::<ConntrackKey4, _>(key)));
        four.chain(gone6.iter().map(|key| number(&value::<ConntrackKey6, _>(key)))).collect()
    }

    fn map(&mut self, name: &str) -> &mut aya::maps::Map {
        self.ebpf.map_mut(name).unwrap_or_else(|| panic!("no map {name}"))
    }

    fn replace<const K: usize, const V: usize>(
        &mut self,
        name: &str,
        entries: impl Iterator<Item = ([u8; K], [u8; V])>,
    ) -> Vec<[u8; K]> {
        let mut map = HashMap::<&mut MapData, [u8; K], [u8; V]>::try_from(self.map(name)).expect(name);
        let old: Vec<_> = map.keys().map(|key| key.expect(name)).collect();
        for key in &old {
            map.remove(key).expect(name);
        }
        for (key, value) in entries {
            map.insert(key, value, 0).expect(name);
        }
        old
    }

    /// A counter of `eastwest_abi::counter`, over all CPUs.
    pub fn counter(&mut self, index: u32) -> u64 {
        let counters = PerCpuArray::<_, u64>::try_from(self.map(maps::COUNTERS)).expect("per-CPU array");
        counters.get(&index, 0).expect("counter").iter().sum()
    }

    /// Runs a program by name.
    pub fn test_run(&self, name: &str, options: TestRunOptions<'_>) -> Result<TestRunResult, ProgramError> {
        let program = self.ebpf.program(name).unwrap_or_else(|| panic!("no program {name}"));
        if name.ends_with("_xdp") {
            let program: &Xdp = program.try_into().expect("xdp");
            return program.test_run(options);
        }
        let program: &SchedClassifier = program.try_into().expect("tc");
        program.test_run(options)
    }

    /// Runs a program over a packet.
    pub fn run(&self, program: Program, kind: Kind, packet: &[u8]) -> (Verdict, Vec<u8>) {
        let name = match (program, kind) {
            (Program::PodIngress, Kind::Xdp) => programs::POD_INGRESS_XDP,
            (Program::PodIngress, Kind::Tc) => programs::POD_INGRESS_TC,
            (Program::PodEgress, Kind::Tc) => programs::POD_EGRESS_TC,
            (Program::NicIngress, Kind::Xdp) => programs::NIC_INGRESS_XDP,
            (Program::NicIngress, Kind::Tc) => programs::NIC_INGRESS_TC,
            (Program::NicEgress, Kind::Tc) => programs::NIC_EGRESS_TC,
            (Program::PodEgress | Program::NicEgress, Kind::Xdp) => panic!("{program:?} has no XDP program"),
        };
        let mut out = vec![0; packet.len() + 256];
        let options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result =
            self.test_run(name, options).unwrap_or_else(|error| panic!("{name} {}: {error}", packet.len()));
        out.truncate(result.data_size_out as usize);
        let redirected = || match out.get(..12) {
            Some(link) if link == SENT_LINK => Verdict::Transmit(self.nic),
            _ => Verdict::Back,
        };
        let verdict = match (kind, result.return_value) {
            (Kind::Xdp, 2) if out.len() == packet.len() + MARK.len() && out.starts_with(&MARK) => {
                out.drain(..MARK.len());
                Verdict::Handover
            }
            (Kind::Xdp, 2) | (Kind::Tc, u32::MAX) => Verdict::Pass,
            (Kind::Xdp, 1) | (Kind::Tc, 2) => Verdict::Drop,
            (Kind::Xdp, 3) => Verdict::Back,
            (Kind::Xdp, 4) => Verdict::Transmit(self.nic),
            (Kind::Tc, 7) => redirected(),
            (_, other) => panic!("{name} returned {other}"),
        };
        (verdict, out)
    }
}

/// Runs `test` in a network namespace of its own, with a NIC and routes as the cases want them.
pub fn network<T: Send + 'static>(test: impl FnOnce(u32) -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        assert_eq!(nix::unistd::geteuid().as_raw(), 0, "needs root: it makes a network namespace");
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare");
        for command in [
            "ip link set lo up",
            "ip link add nic0 address 02:00:00:00:00:01 type veth peer name wire",
            "ip link set nic0 up",
            "ip link set wire up",
            "sysctl -qw net.ipv4.conf.all.forwarding=1",
            "sysctl -qw net.ipv6.conf.all.forwarding=1",
            "ip addr add 10.0.0.1/24 dev nic0",
            "ip addr add fd00::10:0:0:1/112 dev nic0 nodad",
            "ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:cc dev nic0 nud permanent",
            "ip neigh add fd00::10:0:0:2 lladdr 02:00:00:00:00:cc dev nic0 nud permanent",
            "ip route add 10.244.2.0/24 via 10.0.0.2",
            "ip route add 192.0.2.0/24 via 10.0.0.2",
            "ip route add fd00::10:244:2:0/112 via fd00::10:0:0:2",
            "ip route add fd00::192:0:2:0/112 via fd00::10:0:0:2",
        ] {
            ip(command);
        }
        test(nix::net::if_::if_nametoindex("nic0").expect("nic0"))
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs a command in this thread's network namespace.
pub fn ip(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).output().expect(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A map's key or value.
fn value<T: Copy, const N: usize>(bytes: &[u8; N]) -> T {
    assert_eq!(size_of::<T>(), N);
    // SAFETY: the types of `eastwest_abi` take any bytes, and the sizes are equal.
    unsafe { std::mem::transmute_copy(bytes) }
}

/// The bytes of a map's key or value.
fn bytes<T: Copy, const N: usize>(value: &T) -> [u8; N] {
    assert_eq!(size_of::<T>(), N);
    // SAFETY: the types of `eastwest_abi` have no padding, and the sizes are equal.
    unsafe { std::mem::transmute_copy(value) }
}
