//! A client for what [`serve`](crate::serve) serves, to be run inside a pod or a node: it resolves names as the pod's own
//! programs do, and counts what it sees.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Families;
use crate::serve::Answer;

/// Longer than any answer takes, and than one retransmission of a SYN (1 s).
const PATIENCE: Duration = Duration::from_secs(5);

/// What to ask, and how often.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Name or address; resolved once, before the first request.
    pub host: String,
    pub port: u16,
    /// Only addresses of this family.
    pub family: Option<Families>,
    /// Requests, each on a connection of its own. 0: until told to stop.
    pub count: u64,
    pub pause: Duration,
    /// Beside the requests keep one connection open, and send a line over it every 20 ms that must come back.
    pub hold: bool,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What the name led to, in the resolver's order.
    pub resolved: Vec<IpAddr>,
    /// The address that was asked.
    pub asked: Option<SocketAddr>,
    pub requests: u64,
    pub failed: u64,
    /// The first few, with what went wrong.
    pub failures: Vec<String>,
    /// Requests by the pod that answered.
    pub pods: BTreeMap<String, u64>,
    /// By the pod's label `version`.
    pub versions: BTreeMap<String, u64>,
    pub nodes: BTreeMap<String, u64>,
    /// By the client's address as the pod saw it.
    pub remotes: BTreeMap<String, u64>,
    /// The slowest answer, microseconds.
    pub slowest_us: u64,
    pub held: Option<Held>,
}

/// The connection that was kept open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// That came back as they were sent.
    pub lines: u64,
    /// Longest time between a line and its echo, microseconds.
    pub slowest_us: u64,
    pub error: Option<String>,
}

impl Report {
    fn count(&mut self, answer: io::Result<Answer>, took: Duration) {
        self.requests += 1;
        match answer {
            Ok(answer) => {
                let remote = answer.remote.parse::<SocketAddr>().map(|a| a.ip().to_string());
                *self.pods.entry(answer.pod).or_default() += 1;
                *self.versions.entry(answer.version).or_default() += 1;
                *self.nodes.entry(answer.node).or_default() += 1;
                *self.remotes.entry(remote.unwrap_or(answer.remote)).or_default() += 1;
                self.slowest_us = self.slowest_us.max(took.as_micros() as u64);
            }
            Err(e) => {
                self.failed += 1;
                if self.failures.len() < 5 {
                    self.failures.push(format!("request {}: {e}", self.requests));
                }
            }
        }
    }
}

/// Asks; `stop` ends it early.
pub fn run(ask: &Ask, stop: &AtomicBool) -> io::Result<Report> {
    let addresses: Vec<SocketAddr> = (ask.host.as_str(), ask.port)
        .to_socket_addrs()?
        .filter(|a| ask.family.is_none_or(|f| f == Families::of(a.ip())))
        .collect();
    let mut report = Report { resolved: addresses.iter().map(SocketAddr::ip).collect(), ..Report::default() };
    let to = *addresses
        .first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address of this family"))?;
    report.asked = Some(to);
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let until = move || stop.load(Ordering::Relaxed) || over.load(Ordering::Relaxed);
        let holder = ask.hold.then(|| scope.spawn(move || hold(to, until)));
        while !stop.load(Ordering::Relaxed) && (ask.count == 0 || report.requests < ask.count) {
            let started = Instant::now();
            let answer = get(to);
            report.count(answer, started.elapsed());
            std::thread::sleep(ask.pause);
        }
        over.store(true, Ordering::Relaxed);
        report.held = match holder.map(|h| h.join()) {
            None => None,
            Some(Ok(held)) => Some(held),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        };
    });
    Ok(report)
}

/// One request on a connection of its own.
pub fn get(to: SocketAddr) -> io::Result<Answer> {
    let mut stream = connect(to)?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, format!("not what a pod answers: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(garbled)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(garbled());
    }
    serde_json::from_str(body).map_err(|_| garbled())
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn hold(to: SocketAddr, over: impl Fn() -> bool) -> Held {
    let mut held = Held::default();
    if let Err(e) = hold_until(to, over, &mut held) {
        held.error = Some(format!("after {} lines: {e}", held.lines));
    }
    held
}

fn hold_until(to: SocketAddr, over: impl Fn() -> bool, held: &mut Held) -> io::Result<()> {
    let mut stream = connect(to)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut back = String::new();
    while !over() {
        let line = format!("line {}\n", held.lines);
        let sent = Instant::now();
        stream.write_all(line.as_bytes())?;
        back.clear();
        reader.read_line(&mut back)?;
        if back != line {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("sent {line:?}, got {back:?}")));
        }
        held.lines += 1;
        held.slowest_us = held.slowest_us.max(sent.elapsed().as_micros() as u64);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
