//! A load that notices each packet that is lost. `eastwest-load` runs it wherever it is started, so that the sockets of a
//! node's process are that node's; a test holds it by its standard streams.
//!
//! For each target there are connections that stay open, on which every byte must come back, and new ones at a rate; with
//! UDP sockets that stay and sockets that are made for one question.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eastwest_lab::Lab;
use eastwest_lab::serve::Answer;
use serde::{Deserialize, Serialize};

use crate::{PATIENCE, connect};

/// What to ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub targets: Vec<Target>,
    /// Connections, or UDP sockets, that stay, for each target.
    pub held: u32,
    /// Between two questions of one socket, and between two new ones, milliseconds.
    pub pause_ms: u64,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Target {
    pub to: SocketAddr,
    pub udp: bool,
}

/// What was seen so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Answers on sockets that stay; the least that one of them had.
    pub held: u64,
    /// Questions on sockets of their own that were answered; the least that a target had.
    pub new: u64,
    /// The first few things that went wrong.
    pub failures: Vec<String>,
    /// The slowest answer, milliseconds.
    pub slowest_ms: u64,
    /// How many sockets and targets are still asked.
    pub asking: usize,
}

/// How far it is; one follows the other.
#[derive(Default)]
struct Phase(AtomicU8);

impl Phase {
    const QUIET: u8 = 1;
    const OVER: u8 = 2;

    fn is_before(&self, phase: u8) -> bool {
        self.0.load(Relaxed) < phase
    }

    fn begin(&self, phase: u8) {
        self.0.fetch_max(phase, Relaxed);
    }

    /// Keeps what the caller has open.
    fn wait_for(&self, phase: u8) {
        while self.is_before(phase) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[derive(Default)]
struct Seen {
    asking: AtomicUsize,
    failures: Mutex<Vec<String>>,
    slowest_ms: AtomicU64,
    held: Vec<AtomicU64>,
    new: Vec<AtomicU64>,
}

impl Seen {
    fn failed(&self, what: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < 20 {
            failures.push(what);
        }
    }

    fn answered(&self, counter: &AtomicU64, asked: Instant) {
        counter.fetch_add(1, Relaxed);
        self.slowest_ms.fetch_max(u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    fn report(&self) -> Report {
        let least = |counters: &[AtomicU64]| counters.iter().map(|c| c.load(Relaxed)).min().unwrap_or(0);
        Report {
            held: least(&self.held),
            new: least(&self.new),
            failures: self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            slowest_ms: self.slowest_ms.load(Relaxed),
            asking: self.asking.load(Relaxed),
        }
    }
}

/// Asks until a line comes on standard input, and keeps its connections until that ends. Each line on standard output is
/// a [`Report`]; the last one is about everything.
pub fn serve(plan: &Plan) -> Result<()> {
    let counters = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let held = plan.held as usize;
    let seen = Seen {
        held: counters(plan.targets.len() * held),
        new: counters(plan.targets.len()),
        asking: AtomicUsize::new(plan.targets.len() * (held + 1)),
        ..Seen::default()
    };
    let (seen, phase) = (&seen, &Phase::default());
    let pause = Duration::from_millis(plan.pause_ms);
    std::thread::scope(|scope| -> Result<()> {
        for (i, target) in plan.targets.iter().enumerate() {
            for counter in &seen.held[i * held..(i + 1) * held] {
                scope.spawn(move || {
                    let result = if target.udp {
                        hold_udp(target.to, pause, phase, seen, counter)
                    } else {
                        hold_tcp(target.to, pause, phase, seen, counter)
                    };
                    if let Err(e) = result {
                        let so_far = counter.load(Relaxed);
                        seen.failed(format!("{target:?}, held, after {so_far} answers: {e:#}"));
                    }
                });
            }
            let counter = &seen.new[i];
            scope.spawn(move || {
                while phase.is_before(Phase::QUIET) {
                    let asked = Instant::now();
                    let ask = || if target.udp { crate::ask_udp(target.to) } else { crate::get(target.to) };
                    // A process's socket is closed when its endpoint has just been taken away: it is told, and asks anew.
                    let answer = ask().or_else(|e| if target.udp && was_closed(&e) { ask() } else { Err(e) });
                    match answer {
                        Ok(_) => seen.answered(counter, asked),
                        Err(e) => seen.failed(format!("{target:?}, new: {e:#}")),
                    }
                    std::thread::sleep(pause);
                }
                seen.asking.fetch_sub(1, Relaxed);
            });
        }
        scope.spawn(move || {
            let _line = io::stdin().read_line(&mut String::new());
            phase.begin(Phase::QUIET);
            let _end = io::stdin().read_to_end(&mut Vec::new());
            phase.begin(Phase::OVER);
        });
        while phase.is_before(Phase::OVER) {
            say(&seen.report())?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    })?;
    say(&seen.report())
}

fn was_closed(error: &anyhow::Error) -> bool {
    let error = error.root_cause().downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionAborted)
}

fn say(report: &Report) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    Ok(out.flush()?)
}

fn hold_tcp(to: SocketAddr, pause: Duration, phase: &Phase, seen: &Seen, counter: &AtomicU64) -> Result<()> {
    let mut stream = connect(to, 0)?;
    stream.set_nodelay(true)?;
    let mut sent = 0u64;
    while phase.is_before(Phase::QUIET) {
        // More than a segment, so that GSO has something to do.
        let block: Vec<u8> =
            (0..4000u64).map(|i| (sent + i).wrapping_mul(2_654_435_761).to_be_bytes()[4]).collect();
        let asked = Instant::now();
        stream.write_all(&block)?;
        let mut back = vec![0; block.len()];
        stream.read_exact(&mut back)?;
        ensure!(back == block, "what came back at byte {sent} is not what was sent");
        sent += block.len() as u64;
        seen.answered(counter, asked);
        std::thread::sleep(pause);
    }
    seen.asking.fetch_sub(1, Relaxed);
    phase.wait_for(Phase::OVER);
    Ok(())
}

fn hold_udp(to: SocketAddr, pause: Duration, phase: &Phase, seen: &Seen, counter: &AtomicU64) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    let mut pods = BTreeSet::new();
    let mut buffer = [0; 2048];
    while phase.is_before(Phase::QUIET) {
        let asked = Instant::now();
        socket.send(b"?")?;
        let length = match socket.recv(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => anyhow::bail!("no answer within {PATIENCE:?}"),
            other => other?,
        };
        pods.insert(serde_json::from_slice::<Answer>(&buffer[..length])?.pod);
        ensure!(pods.len() == 1, "an open flow went from one pod to another: {pods:?}");
        seen.answered(counter, asked);
        std::thread::sleep(pause);
    }
    seen.asking.fetch_sub(1, Relaxed);
    phase.wait_for(Phase::OVER);
    Ok(())
}

/// A load that runs.
pub struct Load {
    from: String,
    child: Child,
    input: Option<ChildStdin>,
    latest: Arc<Mutex<Report>>,
    reader: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts `program`, which is `eastwest-load`, in a place of the lab.
    pub fn start(lab: &Lab, program: &str, from: &str, plan: &Plan) -> Result<Self> {
        let mut command = lab.command(from, program)?;
        command.arg(serde_json::to_string(plan)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{program} in {from}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let latest = Arc::new(Mutex::new(Report::default()));
        let shown = latest.clone();
        let reader = std::thread::spawn(move || {
            for report in output.lines().map_while(Result::ok).filter_map(|l| serde_json::from_str(&l).ok()) {
                *shown.lock().unwrap_or_else(PoisonError::into_inner) = report;
            }
        });
        Ok(Self { from: from.to_owned(), child, input, latest, reader: Some(reader) })
    }

    fn latest(&self) -> Report {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until each socket that stays, and each target's new ones, have had so many more answers.
    ///
    /// # Errors
    /// When something was lost, or nothing comes any more.
    pub fn advance(&self, answers: u64) -> Result<()> {
        let from = self.latest();
        let end = Instant::now() + 12 * PATIENCE;
        loop {
            let now = self.latest();
            ensure!(now.failures.is_empty(), "from {}: {:#?}", self.from, now.failures);
            if now.held >= from.held + answers && now.new >= from.new + answers {
                return Ok(());
            }
            ensure!(Instant::now() < end, "from {}: it does not go on: {now:?}, before {from:?}", self.from);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks no more, and keeps its connections.
    pub fn quieten(&mut self) -> Result<()> {
        self.input.as_mut().context("it has ended")?.write_all(b"\n")?;
        crate::eventually_in(12, || {
            let now = self.latest();
            ensure!(now.failures.is_empty(), "from {}: {:#?}", self.from, now.failures);
            ensure!(now.asking == 0, "from {}: {} sockets are still asked", self.from, now.asking);
            Ok(())
        })
    }

    /// Ends it. What it saw, which is without failures.
    pub fn end(mut self) -> Result<Report> {
        self.input = None;
        let status = self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let report = self.latest();
        ensure!(status.success(), "from {}: {status}", self.from);
        ensure!(report.failures.is_empty(), "from {}: {:#?}", self.from, report.failures);
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if self.input.take().is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// That each segment with data which was sent on a connection to these ports has arrived. What was sent again counts in
/// both places, so it does not matter how late anything was; but the connections must be quiet.
pub fn none_lost(lab: &Lab, clients: &[&str], servers: &[&str], ports: &[u16]) -> Result<()> {
    let count = |places: &[&str], name: &str| -> Result<u64> {
        places.iter().map(|place| tcp_segments(lab, place, ports, name)).sum()
    };
    for (whose, from, to) in [("clients", clients, servers), ("servers", servers, clients)] {
        let (sent, arrived) = (count(from, "data_segs_out:")?, count(to, "data_segs_in:")?);
        ensure!(sent > 0, "the {whose} have no open connection");
        ensure!(sent == arrived, "of {sent} segments on open connections from the {whose} {arrived} arrived");
    }
    Ok(())
}

/// A counter of open connections from or to these ports, in all.
fn tcp_segments(lab: &Lab, target: &str, ports: &[u16], name: &str) -> Result<u64> {
    let ends = ports.iter().flat_map(|port| [format!("sport = :{port}"), format!("dport = :{port}")]);
    let filter = format!("( {} )", ends.collect::<Vec<_>>().join(" or "));
    let text = crate::run(lab, target, &["ss", "-tniOH", "state", "established", &filter])?;
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix(name));
    Ok(values.map(str::parse::<u64>).sum::<Result<_, _>>()?)
}

/// SYNs that were sent again from network namespaces, without those that had arrived the first time: then either side
/// meets a second SYN on an open connection (`syn_challenge` in net/ipv4/tcp_input.c).
pub fn lost_syns(lab: &Lab, clients: &[&str], servers: &[&str]) -> Result<u64> {
    let all = |places: &[&str], counter: &str| -> Result<u64> {
        places.iter().map(|place| tcp_counter(lab, place, counter)).sum()
    };
    let arrived = all(clients, "TCPSYNChallenge")? + all(servers, "TCPSYNChallenge")?;
    Ok(all(clients, "TCPSynRetrans")?.saturating_sub(arrived))
}

/// Of `TcpExt` in a network namespace.
fn tcp_counter(lab: &Lab, target: &str, counter: &str) -> Result<u64> {
    let text = crate::run(lab, target, &["cat", "/proc/net/netstat"])?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let mut all = names.split(' ').zip(values.split(' '));
    let (_, value) = all.find(|(name, _)| *name == counter).context("no such counter")?;
    Ok(value.parse()?)
}
