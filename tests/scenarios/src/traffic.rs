//! Steady traffic from where it runs, with everything counted that went wrong. `eastwest-traffic` takes a [`Plan`] as JSON in its
//! one argument; each line of its standard input begins a phase of that name, its end ends it, and then it prints what it
//! counted, phase by phase.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Protocol;
use crate::probe::{self, Probe};

/// What to ask, all the time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Services: a new connection for each question, and a few connections that stay open for a while, which echo.
    pub tcp: Vec<SocketAddr>,
    /// Services: a new socket for each question.
    pub udp: Vec<SocketAddr>,
    /// Servers of names, asked for `name` from a new socket each time.
    pub dns: Vec<SocketAddr>,
    pub name: String,
    /// Between two questions of one asker, milliseconds.
    pub pause: u64,
}

/// Connections that stay open, for each address.
const OPEN: usize = 3;
/// A resolver's own patience with one server (resolv.conf's `timeout`), and its attempts.
const DNS_PATIENCE: Duration = Duration::from_secs(5);
const DNS_ATTEMPTS: u32 = 2;
/// How long a connection stays open, as clients that renew theirs have it.
const RENEWED: Duration = Duration::from_secs(10);
/// Longer than any silence that TCP gets over.
const PATIENCE: Duration = Duration::from_secs(15);
/// Examples that are kept.
const KEPT: usize = 5;

/// Of one kind of traffic in one phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub asked: u64,
    pub failed: u64,
    /// Datagrams that had to be sent again. TCP does that by itself: it is seen in `slowest`.
    pub again: u64,
    /// Of those that succeeded, milliseconds.
    pub slowest: u64,
    pub examples: Vec<String>,
}

/// By phase, in order; each by kind of traffic.
pub type Report = Vec<(String, BTreeMap<String, Count>)>;

struct Shared {
    report: Mutex<Report>,
    /// When the phase began.
    begun: Mutex<Instant>,
    ended: AtomicBool,
}

impl Shared {
    fn note(&self, kind: &str, begun: Instant, again: u64, outcome: io::Result<()>) {
        let mut report = self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some((_, counts)) = report.last_mut() else { return };
        let count = counts.entry(kind.to_owned()).or_default();
        count.asked += 1;
        count.again += again;
        match outcome {
            Ok(()) => count.slowest = count.slowest.max(begun.elapsed().as_millis() as u64),
            Err(e) => {
                count.failed += 1;
                if count.examples.len() < KEPT {
                    let phase =
                        self.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed();
                    count.examples.push(format!(
                        "after {} ms, {:.1} s into the phase: {e}",
                        begun.elapsed().as_millis(),
                        phase.as_secs_f64()
                    ));
                }
            }
        }
    }

    fn over(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Asks until standard input ends.
pub fn run(plan: &Plan) -> Report {
    let shared = Shared {
        report: Mutex::new(vec![("start".to_owned(), BTreeMap::new())]),
        begun: Instant::now().into(),
        ended: false.into(),
    };
    let pause = Duration::from_millis(plan.pause);
    std::thread::scope(|scope| {
        let shared = &shared;
        for to in &plan.tcp {
            scope.spawn(move || ask(shared, &format!("new TCP to {to}"), pause, *to, Protocol::TCP));
            for _ in 0..OPEN {
                scope.spawn(move || open(shared, &format!("open TCP to {to}"), pause, *to));
            }
        }
        for to in &plan.udp {
            scope.spawn(move || ask(shared, &format!("UDP to {to}"), pause, *to, Protocol::UDP));
        }
        for to in &plan.dns {
            let question = question(&plan.name);
            scope.spawn(move || names(shared, &format!("DNS at {to}"), pause, *to, &question));
        }
        for line in io::stdin().lines().map_while(Result::ok) {
            let mut report = shared.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            report.push((line, BTreeMap::new()));
            *shared.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        }
        shared.ended.store(true, Ordering::Relaxed);
    });
    shared.report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn ask(shared: &Shared, kind: &str, pause: Duration, to: SocketAddr, protocol: Protocol) {
    let probe = Probe { to, protocol, least: 1, pods: 0, most: 1, patience: 5_000 };
    while !shared.over() {
        let begun = Instant::now();
        shared.note(kind, begun, 0, probe::ask(&probe).map(drop));
        std::thread::sleep(pause);
    }
}

/// A connection that breaks counts once. Each is renewed after a while.
fn open(shared: &Shared, kind: &str, pause: Duration, to: SocketAddr) {
    let mut stream: Option<TcpStream> = None;
    let (mut sent, mut opened) = (0_u64, Instant::now());
    while !shared.over() {
        let begun = Instant::now();
        if opened.elapsed() > RENEWED {
            stream = None;
        }
        let outcome = (|| {
            let stream = match &mut stream {
                Some(stream) => stream,
                None => {
                    let new = TcpStream::connect_timeout(&to, PATIENCE)?;
                    new.set_nodelay(true)?;
                    new.set_read_timeout(Some(PATIENCE))?;
                    opened = Instant::now();
                    stream.insert(new)
                }
            };
            sent += 1;
            stream.write_all(&sent.to_be_bytes())?;
            let mut back = [0; 8];
            stream.read_exact(&mut back)?;
            if u64::from_be_bytes(back) != sent {
                return Err(io::Error::new(ErrorKind::InvalidData, "another number came back"));
            }
            Ok(())
        })();
        if outcome.is_err() {
            stream = None;
        }
        shared.note(kind, begun, 0, outcome);
        std::thread::sleep(pause);
    }
}

/// As a resolver asks: again after a while, and only then it has failed.
fn names(shared: &Shared, kind: &str, pause: Duration, to: SocketAddr, question: &[u8]) {
    while !shared.over() {
        let begun = Instant::now();
        let mut attempts = 0;
        let outcome = loop {
            attempts += 1;
            match one_name(to, question) {
                Err(_) if attempts < DNS_ATTEMPTS => {}
                other => break other,
            }
        };
        shared.note(kind, begun, u64::from(attempts - 1), outcome);
        std::thread::sleep(pause);
    }
}

fn one_name(to: SocketAddr, question: &[u8]) -> io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0u8; 4].into() } else { [0u8; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(DNS_PATIENCE))?;
    socket.connect(to)?;
    socket.send(question)?;
    let mut answer = [0; 1232];
    let length = socket.recv(&mut answer)?;
    // The header's code and its number of answers (RFC 1035 section 4.1.1).
    if length < 12 || answer[3] & 0x0f != 0 || answer[6..8] == [0, 0] {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("{:02x?}", &answer[..length.min(12)])));
    }
    Ok(())
}

/// For the addresses of a name, with recursion desired.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x65, 0x77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|l| !l.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
