//! A node's agent is stopped, killed and held, and its pods' questions are answered: by another node's agent meanwhile, and by
//! their own again after.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eastwest_integration::dns::{ask_tcp, query};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options, PodHook, Role};
use hickory_proto::op::{Message, ResponseCode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// After so long a resolver asks again: longer than the programs need to see that an agent is gone.
const AGAIN: Duration = Duration::from_millis(1500);
const TRIES: u32 = 3;
const THREADS: usize = 4;

/// What became of the questions.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Answered at once.
    first: u64,
    /// Answered when they were sent again.
    again: u64,
    /// Not answered, or not rightly.
    lost: u64,
}

/// Questions whose answers come out of the kernel, and out of an agent.
const NAMES: [(&str, u16, bool); 4] = [
    ("web.default.svc.cluster.local.", 1, true),
    ("web.default.svc.cluster.local.", 28, true),
    ("ns.dns.cluster.local.", 1, true),
    ("nobody.default.svc.cluster.local.", 1, false),
];

/// Asks as resolvers do, a socket for each question, until `over`.
fn ask(servers: &[IpAddr], over: &AtomicBool, tally: &Mutex<Tally>, odd: &Mutex<BTreeMap<String, u64>>) {
    let lose = |why: String| {
        tally.lock().expect("nobody panics").lost += 1;
        *odd.lock().expect("nobody panics").entry(why).or_default() += 1;
    };
    for n in 0.. {
        if over.load(Relaxed) {
            return;
        }
        let server = SocketAddr::new(servers[n % servers.len()], 53);
        let (name, qtype, exists) = NAMES[n / servers.len() % NAMES.len()];
        let mut request = query(name, qtype);
        request[..2].copy_from_slice(&(n as u16).to_be_bytes());
        match answer(server, &request) {
            Ok((tries, bytes)) => {
                let wanted = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
                match Message::from_vec(&bytes) {
                    Ok(m) if m.metadata.response_code == wanted && exists != m.answers.is_empty() => {
                        let mut tally = tally.lock().expect("nobody panics");
                        if tries == 1 { tally.first += 1 } else { tally.again += 1 }
                    }
                    Ok(m) => {
                        lose(format!("{name} {qtype}: {} {}", m.metadata.response_code, m.answers.len()))
                    }
                    Err(e) => lose(format!("{name} {qtype}: {e}")),
                }
            }
            Err(e) => lose(format!("{server} {name} {qtype}: {e}")),
        }
    }
}

/// The answer, and how often it was asked for.
fn answer(server: SocketAddr, request: &[u8]) -> std::io::Result<(u32, Vec<u8>)> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(AGAIN))?;
    let mut buffer = [0; 2048];
    for tries in 1..=TRIES {
        socket.send(request)?;
        match socket.recv(&mut buffer) {
            Ok(n) => return Ok((tries, buffer[..n].to_vec())),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// Asks from the pod while `meanwhile` is done.
fn under_load(
    lab: &Lab,
    servers: &[IpAddr],
    meanwhile: impl FnOnce(&dyn Fn(u64) -> Result<()>) -> Result<()>,
) -> Result<Tally> {
    let (over, tally, odd) =
        (AtomicBool::new(false), Mutex::new(Tally::default()), Mutex::new(BTreeMap::new()));
    // Waits until so many more have been answered.
    let some = |more: u64| {
        let count = || {
            let tally = tally.lock().expect("nobody panics");
            tally.first + tally.again
        };
        let wanted = count() + more;
        eventually(|| {
            ensure!(count() >= wanted, "{more} more answers");
            Ok(())
        })
    };
    let result = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| lab.within("asks", || ask(servers, &over, &tally, &odd))))
            .collect();
        let result = some(20).and_then(|()| meanwhile(&some)).and_then(|()| some(200));
        over.store(true, Relaxed);
        for thread in threads {
            thread.join().expect("nobody panics")?;
        }
        result
    });
    let odd = odd.into_inner().expect("nobody panics");
    result.with_context(|| format!("{odd:?}"))?;
    let tally = tally.into_inner().expect("nobody panics");
    ensure!(tally.lost == 0, "{tally:?}: {odd:?}");
    Ok(tally)
}

fn pid(lab: &Lab, node: &str) -> Result<Pid> {
    let state = lab.state()?;
    let process = state.processes.get(&Role::Agent(node.into())).context("the agent")?;
    Ok(Pid::from_raw(process.pid))
}

/// The sum of a metric of a node's DNS.
fn metric(lab: &Lab, node: &str, name: &str) -> Result<u64> {
    let text = run(lab, node, &["curl", "-sf", "http://127.0.0.1:9153/metrics"])?;
    let values = text
        .lines()
        .filter(|l| l.starts_with(name))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(values.sum())
}

fn answered_here_again(lab: &Lab, servers: &[IpAddr]) -> Result<()> {
    let before = metric(lab, "node-1", "eastwest_dns_kernel_answers_total")?;
    eventually(|| {
        let request = query(NAMES[0].0, 1);
        lab.within("asks", || answer(SocketAddr::new(servers[0], 53), &request))??;
        ensure!(metric(lab, "node-1", "eastwest_dns_kernel_answers_total")? > before, "not by this node");
        Ok(())
    })
}

fn away(name: &str, pod_hook: PodHook) -> Result<()> {
    let lab = lab(name, Options { nodes: 3, pod_hook, ..Options::default() })?;
    pod(&lab, "asks", "node-1", "asks", "v1")?;
    pod(&lab, "web-1", "node-2", "web", "v1")?;
    let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}],
                      "ipFamilyPolicy": "RequireDualStack"});
    service(&lab, "web", spec)?;
    let servers: Vec<IpAddr> = vec!["10.96.0.10".parse()?, "fd00:10:96::a".parse()?];
    let agent = Role::Agent("node-1".into());
    answered_here_again(&lab, &servers)?;

    // Told to end, and started again: nobody waits.
    let restarted = under_load(&lab, &servers, |some| {
        for _ in 0..2 {
            lab.stop(&agent)?;
            some(200)?;
            for server in &servers {
                let answer =
                    lab.within("asks", || ask_tcp(SocketAddr::new(*server, 53), &query(NAMES[0].0, 1)))??;
                ensure!(Message::from_vec(&answer)?.answers.len() == 1, "by TCP");
            }
            lab.start(&agent)?;
            some(50)?;
        }
        Ok(())
    })?;
    ensure!(restarted.again == 0, "asked again although the agent said that it ends: {restarted:?}");
    answered_here_again(&lab, &servers)?;

    // Killed: what lay in its sockets is asked again.
    let killed = under_load(&lab, &servers, |some| {
        lab.kill(&agent)?;
        some(200)?;
        lab.start(&agent)?;
        Ok(())
    })?;
    ensure!(killed.again <= THREADS as u64, "more than were on their way: {killed:?}");
    answered_here_again(&lab, &servers)?;

    // Held: what is asked until that is seen is asked again.
    let pid = pid(&lab, "node-1")?;
    let held = under_load(&lab, &servers, |some| {
        kill(pid, Signal::SIGSTOP)?;
        let away = some(2000);
        std::thread::sleep(Duration::from_secs(5));
        let there = some(200);
        kill(pid, Signal::SIGCONT)?;
        away.and(there)
    })?;
    answered_here_again(&lab, &servers)?;
    ensure!(
        metric(&lab, "node-1", "eastwest_dns_elsewhere_total")? > 1000,
        "nobody stood in for the held agent"
    );
    eprintln!("{pod_hook:?}: restarted {restarted:?}, killed {killed:?}, held {held:?}");
    Ok(())
}

#[test]
fn another_node_answers_while_the_agent_is_away() {
    if let Err(e) = away("dnsaway", PodHook::Tc) {
        panic!("{e:?}");
    }
}

#[test]
fn another_node_answers_while_the_agent_is_away_by_xdp() {
    if let Err(e) = away("dnsawayx", PodHook::Xdp) {
        panic!("{e:?}");
    }
}
