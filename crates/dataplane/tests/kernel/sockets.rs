//! Processes on the host: the test runs itself again as such a process, in a cgroup and a network namespace of its own.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use eastwest_dataplane::{Dataplane, EbpfDataplane};
use eastwest_model::Protocol::{TCP, UDP};
use nix::sched::{CloneFlags, unshare};

use crate::services::{addr, frontend, service};
use crate::world::{node, run};

/// Set in the process that plays the host's.
const HOST_PROCESS: &str = "EASTWEST_TEST_HOST_PROCESS";
const NAME: &str = "sockets::processes_on_the_host";

/// A folder in the cgroup2 hierarchy; it goes when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words.get(2) == Some(&"cgroup2"))
            .map(|words| words[1].to_owned())
            .expect("a cgroup2 mount");
        let path = Path::new(&root).join(format!("eastwest-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a cgroup");
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes a moment to let go of a process that has ended.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Answers with its own address, whatever it is sent.
fn serve(at: &str) {
    let at: SocketAddr = at.parse().expect("an address");
    let listener = TcpListener::bind(at).expect("binds");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(at.to_string().as_bytes()));
        }
    });
    let socket = UdpSocket::bind(at).expect("binds");
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(at.to_string().as_bytes(), from);
        }
    });
}

#[test]
fn processes_on_the_host() {
    if std::env::var_os(HOST_PROCESS).is_some() {
        return host_process();
    }
    node(|node| {
        let cgroup = Cgroup::new("sockets");
        for addr in ["10.1.0.1/32", "10.1.0.2/32", "fd00:1::1/128", "fd00:1::2/128"] {
            run(&format!("ip addr add {addr} dev lo nodad"));
        }
        for at in ["10.1.0.1:8080", "10.1.0.2:8080", "[fd00:1::1]:8080", "[fd00:1::2]:8080"] {
            serve(at);
        }
        let mut options = node.options();
        options.cgroup_root = Some(cgroup.0.clone());
        let mut dataplane = EbpfDataplane::open(&options).expect("opens");
        let both4 = ["10.1.0.1:8080", "10.1.0.2:8080"];
        let both6 = ["[fd00:1::1]:8080", "[fd00:1::2]:8080"];
        let mut services = [
            service(
                "web",
                vec![
                    frontend("10.96.0.1:80", TCP, &both4),
                    frontend("10.96.0.1:80", UDP, &both4),
                    frontend("[fd00:10:96::1]:80", TCP, &both6),
                    frontend("[fd00:10:96::1]:80", UDP, &both6),
                ],
            ),
            service("other", vec![frontend("10.96.0.2:80", UDP, &both4)]),
            service(
                "empty",
                vec![
                    frontend("10.96.0.3:80", TCP, &[]),
                    frontend("10.96.0.3:80", UDP, &[]),
                    frontend("[fd00:10:96::3]:80", TCP, &[]),
                ],
            ),
        ];
        dataplane.reconcile(&mut services.iter()).expect("reconciles");

        // The process starts in the cgroup and does what `host_process` says, step by step with us.
        let mut child = Command::new("sh")
            .args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&cgroup.0)
            .arg(std::env::current_exe().expect("this test"))
            .args(["--exact", NAME, "--nocapture"])
            .env(HOST_PROCESS, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut to_child = child.stdin.take().expect("piped");
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("text");
            match line.as_str() {
                "@remove 10.1.0.1" | "@remove 10.1.0.2" => {
                    let left = if line.ends_with(".1") { "10.1.0.2:8080" } else { "10.1.0.1:8080" };
                    services[0].frontends[1] = frontend("10.96.0.1:80", UDP, &[left]);
                    dataplane.apply(&services[0].key, Some(&services[0])).expect("applies");
                }
                "@restart" => {
                    drop(dataplane);
                    dataplane = EbpfDataplane::open(&options).expect("opens again");
                    dataplane.reconcile(&mut services.iter()).expect("reconciles");
                }
                "@detach" => {
                    drop(dataplane);
                    options.cgroup_root = None;
                    dataplane = EbpfDataplane::open(&options).expect("opens again");
                }
                other => {
                    println!("child: {other}");
                    continue;
                }
            }
            to_child.write_all(b"\n").expect("child waits");
        }
        assert!(child.wait().expect("ends").success(), "the host process failed; see above");
        let counters = dataplane.counters().expect("reads");
        assert!(counters["sockets"] >= 10, "{counters:?}");
        assert!(counters["refused_no_endpoints"] >= 3 && counters["refused_no_port"] >= 2, "{counters:?}");
    });
}

/// Asks the parent for something and waits until it is done.
fn ask(what: &str) {
    // `println!` would be held back by the test harness' own prefix of the line.
    println!("\n@{what}");
    std::io::stdout().flush().expect("stdout");
    std::io::stdin().read_exact(&mut [0]).expect("the parent answers");
}

fn tcp(to: &str) -> (String, SocketAddr) {
    let mut stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    let peer = stream.peer_addr().expect("getpeername");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads");
    (text, peer)
}

fn udp(bind: &str) -> UdpSocket {
    let socket = UdpSocket::bind(bind).expect("binds");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("sets");
    socket
}

/// Sends to `to` unconnected; who answered, by its own word and by recvfrom.
fn exchange(socket: &UdpSocket, to: &str) -> (String, SocketAddr) {
    socket.send_to(b"x", to).unwrap_or_else(|error| panic!("{to}: {error}"));
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{to}: {error}"));
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

/// Asks by a connected socket.
fn said(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"x")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn host_process() {
    let sock = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let kind = |result: std::io::Result<TcpStream>| result.expect_err("refused").kind();

    // TCP: spread over both, and the peer is the virtual IP.
    for (vip, bind) in [("10.96.0.1:80", "10.1.0."), ("[fd00:10:96::1]:80", "[fd00:1::")] {
        let answers: HashSet<String> = (0..40)
            .map(|_| {
                let (text, peer) = tcp(vip);
                assert_eq!(peer, sock(vip));
                assert!(text.starts_with(bind), "{text}");
                text
            })
            .collect();
        assert_eq!(answers.len(), 2, "{answers:?}");
    }
    // An IPv6 socket that asks for an IPv4 address.
    let (text, peer) = tcp("[::ffff:10.96.0.1]:80");
    assert!(text.starts_with("10.1.0."), "{text}");
    assert_eq!(peer.ip().to_canonical(), addr("10.96.0.1"));

    // Refused at once: no endpoints, no such port; both families and protocols.
    for to in
        ["10.96.0.3:80", "10.96.0.1:81", "[fd00:10:96::3]:80", "[fd00:10:96::1]:81", "[::ffff:10.96.0.3]:80"]
    {
        assert_eq!(kind(TcpStream::connect(to)), ErrorKind::ConnectionRefused, "{to}");
    }
    for to in ["10.96.0.3:80", "10.96.0.1:81"] {
        let error = udp("0.0.0.0:0").connect(to).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
        let error = udp("0.0.0.0:0").send_to(b"x", to).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
    }

    // Connected UDP.
    for (vip, bind) in
        [("10.96.0.1:80", "0.0.0.0:0"), ("[fd00:10:96::1]:80", "[::]:0"), ("[::ffff:10.96.0.1]:80", "[::]:0")]
    {
        let socket = udp(bind);
        socket.connect(vip).expect("connects");
        assert_eq!(socket.peer_addr().expect("getpeername"), sock(vip));
        for _ in 0..3 {
            socket.send(b"x").expect("sends");
            let mut buffer = [0; 64];
            let (_, from) = socket.recv_from(&mut buffer).expect("an answer");
            assert_eq!(from, sock(vip));
        }
    }
    // Unconnected UDP: one socket keeps its backend; several spread.
    for (vip, bind) in
        [("10.96.0.1:80", "0.0.0.0:0"), ("[fd00:10:96::1]:80", "[::]:0"), ("[::ffff:10.96.0.1]:80", "[::]:0")]
    {
        let mut all = HashSet::new();
        for _ in 0..20 {
            let socket = udp(bind);
            let answers: HashSet<_> = (0..5).map(|_| exchange(&socket, vip)).collect();
            assert_eq!(answers.len(), 1, "{vip}: {answers:?}");
            let (text, from) = answers.into_iter().next().expect("one");
            assert_eq!(from, sock(vip));
            all.insert(text);
        }
        assert_eq!(all.len(), 2, "{vip}: {all:?}");
    }
    // One socket, two virtual IPs with the same backends: each answer shows whom it was asked of.
    for _ in 0..10 {
        let socket = udp("0.0.0.0:0");
        for vip in ["10.96.0.1:80", "10.96.0.2:80", "10.96.0.1:80"] {
            assert_eq!(exchange(&socket, vip).1, sock(vip));
        }
        // And a backend by its own address.
        for to in ["10.1.0.1:8080", "10.1.0.2:8080"] {
            assert_eq!(exchange(&socket, to), (to.to_owned(), sock(to)));
        }
    }

    // The agent restarts: sockets keep their backends.
    let socket = udp("0.0.0.0:0");
    let before = exchange(&socket, "10.96.0.1:80");
    ask("restart");
    assert_eq!(exchange(&socket, "10.96.0.1:80"), before);
    assert_eq!(tcp("10.96.0.1:80").1, sock("10.96.0.1:80"));
    // The backend goes: the same socket gets the other one.
    let backend = sock(&before.0).ip();
    let connected: Vec<_> = [("10.96.0.1:80", "0.0.0.0:0"), ("[::ffff:10.96.0.1]:80", "[::]:0")]
        .into_iter()
        .flat_map(|(vip, bind)| (0..10).map(move |_| (vip, udp(bind))))
        .map(|(vip, socket)| {
            socket.connect(vip).expect("connects");
            let answer = said(&socket).expect("an answer");
            (vip, socket, answer)
        })
        .collect();
    // Those that are not ours: connected to the backend itself, or by another Service, which keeps it.
    let others = [before.0.as_str(), "10.96.0.2:80"].map(|to| {
        let socket = udp("0.0.0.0:0");
        socket.connect(to).expect("connects");
        (said(&socket).expect("an answer"), socket)
    });
    ask(&format!("remove {backend}"));
    let (leave, stay): (Vec<_>, Vec<_>) = connected.into_iter().partition(|(.., answer)| *answer == before.0);
    assert!(leave.len() > 2 && stay.len() > 2, "both backends have some");
    for (vip, socket, answer) in leave {
        // Closed with an error for whoever waits; then it may ask again.
        let error = socket.recv(&mut [0; 64]).expect_err("nothing was asked");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED), "{vip}: {error}");
        socket.connect(vip).expect("connects again");
        assert_ne!(said(&socket).expect("an answer"), answer, "{vip}");
    }
    for (vip, socket, answer) in stay {
        assert_eq!(said(&socket).expect("an answer"), answer, "{vip}");
    }
    for (answer, socket) in others {
        assert_eq!(said(&socket).expect("an answer"), answer, "not ours to close");
    }
    let after = exchange(&socket, "10.96.0.1:80");
    assert_ne!(after.0, before.0);
    assert_eq!(after.1, sock("10.96.0.1:80"));

    // A process of a pod, in the same cgroup: not ours to translate.
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        let error = TcpStream::connect("10.96.0.3:80").expect_err("no network there");
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{error}");
    })
    .join()
    .expect("as expected");

    ask("detach");
    // The kernel lets go of a link a moment after its last pin.
    let started = Instant::now();
    loop {
        match TcpStream::connect("10.96.0.1:80") {
            Err(error) => break assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{error}"),
            Ok(_) => assert!(started.elapsed() < Duration::from_secs(5), "still translated"),
        }
    }
}
