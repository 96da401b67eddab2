//! DNS of the node in the kernel: answers that the programs give themselves, the sign that the agent lives, and who stands in
//! for it. The maps are this process's: they end with it, and then the programs ask the others.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, Pod};
use eastwest_abi::names::{Answer, NameCounts, Names, PEERS, Question, SERVERS, maps, programs, word};
use eastwest_abi::{Addr4, Addr6};

use super::tables::{Wire, failed};
use crate::{Error, Programs};

// SAFETY: the ABI's types are `repr(C)`, `Copy`, without padding and without invalid bit patterns (asserted there).
unsafe impl Pod for Wire<Question> {}
// SAFETY: as above.
unsafe impl Pod for Wire<Answer> {}
// SAFETY: as above.
unsafe impl Pod for Wire<Names> {}
// SAFETY: as above.
unsafe impl Pod for Wire<NameCounts> {}

/// The node's DNS as the programs at pods' devices know it. Clones share it.
#[derive(Clone)]
pub struct NodeNames(Arc<Mutex<Tables>>);

struct Tables {
    answers: HashMap<MapData, Wire<Question>, Wire<Answer>>,
    names: Array<MapData, Wire<Names>>,
    words: Array<MapData, u64>,
    counts: PerCpuArray<MapData, Wire<NameCounts>>,
    tc: ProgramArray<MapData>,
    xdp: ProgramArray<MapData>,
    places: Names,
    /// An answer may be wrong and could not be taken out: none is given any more.
    spoilt: bool,
}

/// What the programs have done for one of the node's addresses.
pub type NameCount = (IpAddr, NameCounts);

impl std::fmt::Debug for NodeNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeNames")
    }
}

impl NodeNames {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        fn one<T: TryFrom<Map, Error = aya::maps::MapError>>(
            ebpf: &mut Ebpf,
            name: &'static str,
        ) -> Result<T, Error> {
            let map = ebpf.take_map(name).ok_or(Error::Missing(name))?;
            T::try_from(map).map_err(|error| failed(name, "open", error))
        }
        Ok(Self(Arc::new(Mutex::new(Tables {
            answers: one(ebpf, maps::ANSWERS)?,
            names: one(ebpf, maps::NAMES)?,
            words: one(ebpf, maps::NAMES_WORDS)?,
            counts: one(ebpf, maps::NAMES_COUNTS)?,
            tc: one(ebpf, maps::ANSWER_TC)?,
            xdp: one(ebpf, maps::ANSWER_XDP)?,
            places: Names::default(),
            spoilt: false,
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has pods' questions at port 53 of `servers` looked at from now on; those without room are left to the agent alone.
    /// While this process lives, that is said by [`beat`](Self::beat).
    ///
    /// # Errors
    /// When the kernel does not take a program, or refuses a write.
    pub fn serve(&self, all: &Programs, xdp: bool, servers: &[IpAddr]) -> Result<(), Error> {
        all.load(if xdp { &[programs::ANSWER_TC, programs::ANSWER_XDP] } else { &[programs::ANSWER_TC] })?;
        let ebpf = all.lock();
        let mut tables = self.lock();
        let mut call = |name: &'static str| -> Result<(), Error> {
            let error = |error: ProgramError| Error::Program { program: name, source: Box::new(error) };
            let program = ebpf.program(name).ok_or(Error::Missing(name))?;
            let fd = match program {
                Program::SchedClassifier(program) => program.fd(),
                Program::Xdp(program) => program.fd(),
                _ => return Err(Error::Missing(name)),
            };
            let array = if name == programs::ANSWER_XDP { &mut tables.xdp } else { &mut tables.tc };
            array.set(0, fd.map_err(error)?, 0).map_err(|error| failed(name, "update", error))
        };
        call(programs::ANSWER_TC)?;
        if xdp {
            call(programs::ANSWER_XDP)?;
        }
        drop(ebpf);
        let (mut n4, mut n6) = (0, 0);
        for server in servers {
            match server {
                IpAddr::V4(ip) if n4 < SERVERS => {
                    tables.places.servers4[n4] = addr4(*ip);
                    n4 += 1;
                }
                IpAddr::V6(ip) if n6 < SERVERS => {
                    tables.places.servers6[n6] = addr6(*ip);
                    n6 += 1;
                }
                _ => {
                    tracing::warn!(address = %server, "too many DNS addresses: the agent alone answers here")
                }
            }
        }
        tables.write_places()
    }

    /// Sends pods' questions to these nodes' agents, while this one is down. The first few of each family count.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_peers(&self, peers: &[IpAddr], port: u16) -> Result<(), Error> {
        let mut tables = self.lock();
        let places = &mut tables.places;
        (places.count4, places.count6, places.port) = (0, 0, port.to_be_bytes());
        for peer in peers {
            match peer {
                IpAddr::V4(ip) if (places.count4 as usize) < PEERS => {
                    places.peers4[places.count4 as usize] = addr4(*ip);
                    places.count4 += 1;
                }
                IpAddr::V6(ip) if (places.count6 as usize) < PEERS => {
                    places.peers6[places.count6 as usize] = addr6(*ip);
                    places.count6 += 1;
                }
                _ => {}
            }
        }
        tables.write_places()
    }

    /// The agent answers now. To be said again well within [`BEAT_MAX`](eastwest_abi::names::BEAT_MAX).
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn beat(&self) -> Result<(), Error> {
        let mut tables = self.lock();
        if tables.spoilt {
            return tables.set_word(word::BEAT, 0);
        }
        let now = u64::try_from(crate::sys::coarse_clock().as_nanos()).unwrap_or(u64::MAX);
        tables.set_word(word::BEAT, now)
    }

    /// The agent does not answer any more: the others are asked from the next question on.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn down(&self) -> Result<(), Error> {
        self.lock().set_word(word::BEAT, 0)
    }

    /// Answers a question. When there is no room it is left to the agent.
    pub fn put(&self, question: &Question, answer: &Answer) {
        let mut tables = self.lock();
        if let Err(error) = tables.answers.insert(Wire(*question), Wire(*answer), 0) {
            tracing::debug!(%error, "no room for an answer in the kernel");
            tables.remove(question);
        }
    }

    /// Leaves a question to the agent.
    pub fn remove(&self, question: &Question) {
        self.lock().remove(question);
    }

    /// Leaves all questions to the agent.
    pub fn clear(&self) {
        let mut tables = self.lock();
        loop {
            let keys: Vec<Wire<Question>> = tables.answers.keys().take(4096).filter_map(Result::ok).collect();
            if keys.is_empty() || tables.spoilt {
                return;
            }
            for Wire(question) in keys {
                tables.remove(&question);
            }
        }
    }

    /// The serial number in answers that have one.
    pub fn set_serial(&self, serial: u32) {
        let mut tables = self.lock();
        if let Err(error) = tables.set_word(word::SERIAL, serial.into()) {
            tables.spoil(&error.to_string());
        }
    }

    /// What was done for each of the node's addresses.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counts(&self) -> Result<Vec<NameCount>, Error> {
        let tables = self.lock();
        let v4 = tables.places.servers4.iter().map(|a| IpAddr::from(a.0.to_ne_bytes()));
        let v6 = tables.places.servers6.iter().map(|a| {
            let words = a.0.map(u32::to_ne_bytes);
            IpAddr::from(<[u8; 16]>::try_from(words.as_flattened()).unwrap_or_default())
        });
        let mut counts = Vec::new();
        for (index, server) in (0..).zip(v4.chain(v6)) {
            if server.is_unspecified() {
                continue;
            }
            let error = |error| failed(maps::NAMES_COUNTS, "read", error);
            let mut sum = NameCounts::default();
            for Wire(one) in tables.counts.get(&index, 0).map_err(error)?.iter() {
                sum.a += one.a;
                sum.aaaa += one.aaaa;
                sum.dnssec_ok += one.dnssec_ok;
                sum.request_bytes += one.request_bytes;
                sum.response_bytes += one.response_bytes;
                sum.request_100 += one.request_100;
                sum.response_100 += one.response_100;
                sum.response_200 += one.response_200;
                sum.elsewhere += one.elsewhere;
            }
            counts.push((server, sum));
        }
        Ok(counts)
    }
}

impl Tables {
    fn remove(&mut self, question: &Question) {
        match self.answers.remove(&Wire(*question)) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
            Err(aya::maps::MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => self.spoil(&error.to_string()),
        }
    }

    /// No answer is better than a wrong one.
    fn spoil(&mut self, error: &str) {
        tracing::error!(
            error,
            "an answer in the kernel may be wrong: other nodes are asked until the agent is restarted"
        );
        self.spoilt = true;
        let _ = self.set_word(word::BEAT, 0);
    }

    fn set_word(&mut self, index: u32, value: u64) -> Result<(), Error> {
        self.words.set(index, value, 0).map_err(|error| failed(maps::NAMES_WORDS, "update", error))
    }

    fn write_places(&mut self) -> Result<(), Error> {
        self.names.set(0, Wire(self.places), 0).map_err(|error| failed(maps::NAMES, "update", error))
    }
}

fn addr4(ip: std::net::Ipv4Addr) -> Addr4 {
    Addr4(u32::from_ne_bytes(ip.octets()))
}

fn addr6(ip: std::net::Ipv6Addr) -> Addr6 {
    let words = ip.octets();
    let (words, _) = words.as_chunks::<4>();
    Addr6(std::array::from_fn(|i| words.get(i).map_or(0, |word| u32::from_ne_bytes(*word))))
}
