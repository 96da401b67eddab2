//! Names under everything at once: pods ask at half of what the node can answer, while Services change, the Corefile is
//! another every 20 s and the agent is restarted every minute. Counts what was lost and what was wrong.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eastwest_client::{Client, WriteOptions};
use eastwest_integration::dns::query;
use eastwest_integration::peers::upstream;
use eastwest_lab::{Lab, Options, PodSpec, Role};
use eastwest_model::{EndpointSlice, Service};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::dns::NODE;
use crate::report::{Report, number, percentile};

const PODS: [&str; 2] = ["default/load-1", "default/load-2"];
/// Services with an address of their own, and headless ones whose endpoint moves.
const FIXED: usize = 500;
const MOVING: usize = 50;
const CHANGES_PER_SECOND: u32 = 100;
/// As a resolver asks again; after so many times an answer is lost.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: u32 = 4;
/// Questions of one pod on their way at once.
const WINDOW: usize = 64;
/// An answer may be as old as this, after a restart too.
const OLD: Duration = Duration::from_secs(5);

/// What an endpoint's address has been, and since when.
type History = Mutex<Vec<Vec<(Ipv4Addr, Instant)>>>;

/// A question on its way.
struct Open {
    what: What,
    bytes: Vec<u8>,
    first: Instant,
    last: Instant,
    tries: u32,
}

#[derive(Clone, Copy)]
enum What {
    Fixed(usize),
    Moving(usize),
    Missing,
    World,
}

/// What one pod has seen.
#[derive(Default)]
struct Seen {
    answered: u64,
    again: u64,
    lost: u64,
    wrong: Vec<String>,
    /// Seconds by which answers were older than the last acknowledged change.
    oldest: f64,
    micros: Vec<f64>,
}

pub fn run(report: &mut Report) -> Result<()> {
    let (length, restart, reload) = if report.quick { (60, 20, 7) } else { (600, 60, 20) };
    let [length, restart, reload] = [length, restart, reload].map(Duration::from_secs);
    let folder = tempfile::tempdir()?;
    let corefile = folder.path().join("Corefile");
    write_corefile(&corefile, 0)?;
    let agent_args = vec!["--corefile".into(), corefile.display().to_string()];
    let lab = Lab::up(Options { name: "benchsoak".into(), nodes: 2, agent_args, ..Options::default() })?;
    let _upstream = upstream(&lab, folder.path())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(Client::from_path(Some(&lab.kubeconfig()), None))?;
    let fixed = runtime.block_on(services(&client))?;
    let history: History = Mutex::new(vec![Vec::new(); MOVING]);
    for i in 0..MOVING {
        runtime.block_on(change(&client, &history, i, i as u32, true))?;
    }
    for pod in PODS {
        lab.run_pod(&PodSpec::new(pod, NODE)?)?;
    }
    let load = |pod: &'static str, rate: f64, end: &AtomicBool| -> Result<Seen> {
        lab.within(pod, || ask(&fixed, &history, rate, end))?
    };
    // What the node can do, without pause.
    let end = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let both = PODS.map(|pod| scope.spawn(|| load(pod, f64::INFINITY, &end)));
        std::thread::sleep(Duration::from_secs(3));
        end.store(true, Relaxed);
        both.into_iter().map(|t| Ok(joined(t)?.answered as f64 / 3.0)).sum::<Result<f64>>()
    })?;
    let rate = most / 2.0;
    end.store(false, Relaxed);
    let (seen, changes, restarts) = std::thread::scope(|scope| {
        let both = PODS.map(|pod| scope.spawn(|| load(pod, rate / PODS.len() as f64, &end)));
        let changing = scope.spawn(|| runtime.block_on(changing(&client, &history, &end)));
        let events = events(&lab, &corefile, length, restart, reload);
        end.store(true, Relaxed);
        let seen = both.into_iter().map(joined).collect::<Result<Vec<_>>>()?;
        anyhow::Ok((seen, joined(changing)?, events?))
    })?;
    let sum = |f: fn(&Seen) -> u64| seen.iter().map(f).sum::<u64>();
    let wrong: Vec<&String> = seen.iter().flat_map(|s| &s.wrong).collect();
    for line in wrong.iter().take(20) {
        eprintln!("wrong: {line}");
    }
    let micros: Vec<f64> = seen.iter().flat_map(|s| s.micros.iter().copied()).collect();
    let oldest = seen.iter().map(|s| s.oldest).fold(0.0, f64::max);
    let told = format!(
        "{} s at {} queries/s, {restarts} restarts, {changes} changes",
        length.as_secs(),
        number(rate)
    );
    report.plain(
        format!("names under load, {told}: answered, asked again after 1 s, lost, wrong"),
        format!("{}, {}, {}, {}", sum(|s| s.answered), sum(|s| s.again), sum(|s| s.lost), wrong.len()),
    );
    report.plain(
        "the same: p50, p99 and p99.9 of an answer, and how old one was at most",
        format!(
            "{}, {}, {} µs and {} s",
            number(percentile(&micros, 50.0)),
            number(percentile(&micros, 99.0)),
            number(percentile(&micros, 99.9)),
            number(oldest)
        ),
    );
    lab.down()?;
    report.save(
        "dns-soak",
        json!({"seconds": length.as_secs(), "rate": rate, "restarts": restarts, "changes": changes,
            "answered": sum(|s| s.answered), "again": sum(|s| s.again), "lost": sum(|s| s.lost), "wrong": wrong,
            "oldest_seconds": oldest}),
    )
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

/// The same in effect each time, and another text.
fn write_corefile(path: &Path, turn: usize) -> Result<()> {
    let text = format!(
        ". {{\n chaos turn-{turn} us\n kubernetes cluster.local in-addr.arpa ip6.arpa {{\n  pods insecure\n  \
         fallthrough in-addr.arpa ip6.arpa\n }}\n forward . /etc/resolv.conf\n cache 30\n loadbalance\n}}\n"
    );
    Ok(std::fs::write(path, text)?)
}

/// Restarts and reloads until the time is up; gives the number of restarts.
fn events(
    lab: &Lab,
    corefile: &Path,
    length: Duration,
    restart: Duration,
    reload: Duration,
) -> Result<usize> {
    let begun = Instant::now();
    let agent = Role::Agent(NODE.into());
    let (mut restarts, mut reloads) = (0, 0);
    while begun.elapsed() < length {
        std::thread::sleep(Duration::from_millis(100));
        if begun.elapsed() > reload * (reloads + 1) {
            reloads += 1;
            write_corefile(corefile, reloads as usize)?;
        }
        if begun.elapsed() > restart * (restarts + 1) {
            restarts += 1;
            lab.stop(&agent)?;
            lab.start(&agent)?;
        }
    }
    Ok(restarts as usize)
}

async fn services(client: &Client) -> Result<Vec<Ipv4Addr>> {
    let options = &WriteOptions::default();
    let make = |name: String, headless: bool| async move {
        let mut spec = json!({"ports": [{"name": "http", "port": 80}], "ipFamilies": ["IPv4"]});
        if headless {
            spec["clusterIP"] = json!("None");
        }
        let service: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        }))?;
        anyhow::Ok(client.create(&service, options).await?)
    };
    let moving = stream::iter(0..MOVING).map(|i| make(format!("move-{i}"), true));
    moving.buffered(16).try_collect::<Vec<_>>().await?;
    let made: Vec<Service> =
        stream::iter(0..FIXED).map(|i| make(format!("svc-{i}"), false)).buffered(16).try_collect().await?;
    made.iter().map(|s| Ok(s.spec.cluster_ip.to_string().parse()?)).collect()
}

/// Gives the endpoint of a moving Service the `n`th address.
async fn change(client: &Client, history: &History, i: usize, n: u32, first: bool) -> Result<()> {
    let ip = Ipv4Addr::from(0x0afb_0000 + n % 0x1_0000);
    let slice: EndpointSlice = serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("move-{i}-1"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": format!("move-{i}")}},
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }))?;
    // It may be answered before the write returns; old it is once it has.
    let place = {
        let mut all = history.lock().unwrap_or_else(PoisonError::into_inner);
        all[i].push((ip, Instant::now() + Duration::from_secs(3600)));
        all[i].len() - 1
    };
    let options = WriteOptions::default();
    if first {
        client.create(&slice, &options).await?;
    } else {
        client.replace(&slice, &options).await?;
    }
    history.lock().unwrap_or_else(PoisonError::into_inner)[i][place].1 = Instant::now();
    Ok(())
}

async fn changing(client: &Client, history: &History, end: &AtomicBool) -> Result<u32> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / CHANGES_PER_SECOND);
    let mut n = MOVING as u32;
    while !end.load(Relaxed) {
        tick.tick().await;
        change(client, history, n as usize % MOVING, n, false).await?;
        n += 1;
    }
    Ok(n - MOVING as u32)
}

/// Asks `rate` times a second until the end.
fn ask(fixed: &[Ipv4Addr], history: &History, rate: f64, end: &AtomicBool) -> Result<Seen> {
    let server: SocketAddr = "10.96.0.10:53".parse()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    let mut seen = Seen::default();
    // By id; ids in flight are few.
    let mut open: std::collections::HashMap<u16, Open> = std::collections::HashMap::new();
    let mut id = 0u16;
    let mut buffer = [0; 2048];
    let begun = Instant::now();
    let mut sent = 0u64;
    loop {
        let over = end.load(Relaxed);
        if over && open.is_empty() {
            return Ok(seen);
        }
        let due = if rate.is_finite() { (begun.elapsed().as_secs_f64() * rate) as u64 } else { u64::MAX };
        while !over && sent < due && open.len() < WINDOW {
            (id, sent) = (id.wrapping_add(1), sent + 1);
            let (what, name) = question();
            let mut bytes = query(&name, 1);
            bytes[..2].copy_from_slice(&id.to_be_bytes());
            // While nobody listens it is refused: as lost on the way.
            drop(socket.send(&bytes));
            let now = Instant::now();
            open.insert(id, Open { what, bytes, first: now, last: now, tries: 1 });
        }
        if let Ok(n) = socket.recv(&mut buffer)
            && n > 12
            && let Some(asked) = open.remove(&u16::from_be_bytes([buffer[0], buffer[1]]))
        {
            seen.answered += 1;
            if seen.answered.is_multiple_of(16) {
                seen.micros.push(asked.first.elapsed().as_secs_f64() * 1e6);
            }
            if let Err(e) = judge(&asked, &buffer[..n], fixed, history, &mut seen.oldest) {
                seen.wrong.push(format!("{e:#}"));
            }
            continue;
        }
        for asked in open.values_mut().filter(|o| o.last.elapsed() > AGAIN) {
            asked.tries += 1;
            asked.last = Instant::now();
            seen.again += 1;
            drop(socket.send(&asked.bytes));
        }
        let before = open.len();
        open.retain(|_, o| o.tries <= TRIES);
        seen.lost += (before - open.len()) as u64;
    }
}

fn question() -> (What, String) {
    match fastrand::u8(..20) {
        0..12 => {
            let i = fastrand::usize(..FIXED);
            (What::Fixed(i), format!("svc-{i}.default.svc.cluster.local."))
        }
        12..16 => {
            let i = fastrand::usize(..MOVING);
            (What::Moving(i), format!("move-{i}.default.svc.cluster.local."))
        }
        16..18 => (What::Missing, format!("gone-{}.default.svc.cluster.local.", fastrand::u16(..))),
        _ => (What::World, "www.example.test.".into()),
    }
}

fn judge(asked: &Open, answer: &[u8], fixed: &[Ipv4Addr], history: &History, oldest: &mut f64) -> Result<()> {
    let code = answer[3] & 15;
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let last = answer.last_chunk::<4>().map(|b| Ipv4Addr::from(*b)).context("an answer")?;
    match asked.what {
        What::Fixed(i) => {
            ensure!(
                code == 0 && count == 1 && last == fixed[i],
                "svc-{i}: code {code}, {count} records, {last}"
            );
        }
        What::Missing => ensure!(code == 3 && count == 0, "a missing name: code {code}, {count} records"),
        What::World => ensure!(code == 0 && count == 2, "www.example.test: code {code}, {count} records"),
        What::Moving(i) => {
            ensure!(code == 0 && count == 1, "move-{i}: code {code}, {count} records");
            let history = history.lock().unwrap_or_else(PoisonError::into_inner);
            let at = history[i].iter().rposition(|(ip, _)| *ip == last);
            let at = at.with_context(|| format!("move-{i}: {last} was never written"))?;
            if let Some((_, next)) = history[i].get(at + 1) {
                let age = asked.first.saturating_duration_since(*next);
                *oldest = oldest.max(age.as_secs_f64());
                ensure!(age < OLD, "move-{i}: {last} was another's for {age:?} when it was asked for");
            }
        }
    }
    Ok(())
}
