//! Packets that are easy to get wrong, on real sockets and through virtual addresses: ICMP errors and path MTU discovery,
//! pings, fragments. For a pod with its backend on another node, for a client outside with its backend on the node that
//! translates, and on another one; each pod hook, both families.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eastwest_integration::*;
use eastwest_lab::{Lab, Options, PodHook};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

/// What the narrow link of a path takes.
const NARROW: usize = 1400;
/// A port of the Services whose target port nobody has.
const CLOSED: u16 = 81;
/// A port of the Services behind which datagrams come back as they are.
const ECHO: u16 = 90;

/// Sends datagrams back to where they came from, as long as it lives.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn in_pod(lab: &Lab, pod: &str) -> Result<Self> {
        let socket = lab.within(pod, || UdpSocket::bind("[::]:9000"))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                // An error is about an earlier answer.
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _gone = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client, a virtual address, and the one pod behind it.
struct Way<'a> {
    lab: &'a Lab,
    client: &'a str,
    vip: IpAddr,
    pod: &'a str,
    /// The node whose route to the pod is made narrow, and whose route back is.
    there: &'a str,
    back: &'a str,
    /// Routers on the way.
    routers: u32,
}

impl Way<'_> {
    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip, port)
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.lab.within(self.client, work)?
    }

    fn family(&self) -> &'static str {
        if self.vip.is_ipv4() { "-4" } else { "-6" }
    }

    /// A socket that talks to one port of the virtual address.
    fn udp(&self, port: u16) -> Result<UdpSocket> {
        let any = if self.vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let to = self.at(port);
        self.within(|| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            Ok(socket)
        })
    }

    /// Sends and receives until the error that the network is to tell of comes, which may be told at a limited rate.
    fn told(
        &self,
        port: u16,
        data: &[u8],
        prepare: impl Fn(&UdpSocket) -> Result<()>,
    ) -> Result<std::io::Error> {
        let socket = self.udp(port)?;
        prepare(&socket)?;
        let end = Instant::now() + 2 * PATIENCE;
        while Instant::now() < end {
            let heard = socket.send(data).and_then(|_| socket.recv(&mut [0; 65_536]));
            match heard {
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Ok(e),
                Ok(length) => bail!("{length} bytes came back from {}", self.at(port)),
            }
        }
        bail!("nothing was told about {}", self.at(port))
    }

    /// The address of the pod in this family.
    fn pod_address(&self) -> Result<IpAddr> {
        let state = self.lab.state()?;
        let pod = state.pods.get(&self.pod.parse()?).context("the pod")?;
        let found = pod.addresses.iter().find(|ip| ip.is_ipv4() == self.vip.is_ipv4());
        found.copied().context("an address of the family")
    }

    fn client_address(&self) -> Result<IpAddr> {
        let ip = self.at(80);
        let socket = self.udp(80)?;
        Ok(socket.local_addr().with_context(|| format!("to {ip}"))?.ip())
    }

    /// Gives a node's route to an address a smaller MTU, or again the device's.
    fn route(&self, node: &str, to: IpAddr, narrow: bool) -> Result<()> {
        let to = to.to_string();
        let get = run(self.lab, node, &["ip", self.family(), "route", "get", &to])?;
        let words: Vec<&str> = get.split_whitespace().collect();
        let word = |name: &str| {
            words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied()
        };
        let mut route = vec!["ip", self.family(), "route", "replace", &to];
        if let Some(via) = word("via") {
            route.extend(["via", via]);
        }
        route.extend(["dev", word("dev").context("a device")?]);
        let mtu = NARROW.to_string();
        if narrow {
            // Without the lock, bpf_fib_lookup takes the device's (ip_mtu_from_fib_result in net/ipv4/route.c).
            route.extend(["mtu", "lock", &mtu]);
        }
        run(self.lab, node, &route).map(drop)
    }

    fn ping(&self, size: &str) -> Result<()> {
        let vip = self.vip.to_string();
        let argv = ["ping", self.family(), "-n", "-c", "2", "-i", "0.2", "-W", "3", "-s", size, &vip];
        run(self.lab, self.client, &argv).map(drop)
    }

    fn holds(&self) -> Result<()> {
        self.ping("56").context("ping")?;
        self.ping("4000").context("a ping in fragments")?;

        let error = self.told(CLOSED, b"?", |_| Ok(())).context("port unreachable")?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "of a closed port: {error}");

        for routers in 1..=self.routers {
            let error = self.told(80, b"?", |socket| self.hops(socket, routers)).context("time exceeded")?;
            ensure!(
                error.raw_os_error() == Some(nix::errno::Errno::EHOSTUNREACH as i32),
                "of {routers} hops: {error}"
            );
        }
        let socket = self.udp(80)?;
        self.hops(&socket, self.routers + 1)?;
        eventually(|| {
            socket.send(b"?")?;
            socket.recv(&mut [0; 2048]).context("an answer, with as many hops as there are")
        })?;

        self.fragments(3000).context("fragments")?;
        self.fragments(20_000).context("many fragments")?;
        self.path_mtu()
    }

    /// Has a socket's packets live for so many hops, and tell of errors.
    fn hops(&self, socket: &UdpSocket, hops: u32) -> Result<()> {
        let socket2 = socket2::SockRef::from(socket);
        if self.vip.is_ipv4() {
            setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
            socket2.set_ttl_v4(hops)?;
        } else {
            setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
            socket2.set_unicast_hops_v6(hops)?;
        }
        Ok(())
    }

    /// A datagram there and back, both in fragments.
    fn fragments(&self, size: usize) -> Result<()> {
        let socket = self.udp(ECHO)?;
        let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let mut buffer = vec![0; 65_536];
        eventually(|| {
            socket.send(&data)?;
            let length = socket.recv(&mut buffer).with_context(|| format!("{size} bytes by {}", self.vip))?;
            ensure!(
                buffer[..length] == data,
                "{length} of {size} bytes came back by {}, or others",
                self.vip
            );
            Ok(())
        })
    }

    /// The path becomes narrow: who sends too much is told, in both directions.
    fn path_mtu(&self) -> Result<()> {
        let (pod, client) = (self.pod_address()?, self.client_address()?);
        self.route(self.there, pod, true)?;
        self.route(self.back, client, true)?;
        let error = self.told(CLOSED, &[7; NARROW + 20], |_| Ok(()));
        let error = error.context("a datagram that is too long")?;
        ensure!(
            error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32),
            "of a datagram too long: {error}"
        );
        let to = self.at(80);
        self.within(|| bulk(to, 2 << 20, |_| {})).context("TCP over a narrow path")?;
        // Now it is known, and the sender makes fragments.
        self.fragments(NARROW + 20).context("a datagram that is too long, once this is known")?;
        self.route(self.there, pod, false)?;
        self.route(self.back, client, false)
    }
}

fn cluster(name: &str, hook: PodHook) -> Result<Lab> {
    let lab = lab(name, Options { nodes: 2, pod_hook: hook, ..Options::default() })?;
    for (pod_name, node, app) in
        [("here", "node-1", "here"), ("there", "node-2", "there"), ("client-1", "node-1", "client")]
    {
        pod(&lab, pod_name, node, app, "v1")?;
    }
    Ok(lab)
}

fn vips(lab: &Lab, app: &str) -> Result<Vec<IpAddr>> {
    let spec = json!({
        "selector": {"app": app},
        "ipFamilyPolicy": "PreferDualStack",
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080},
            {"name": "ask", "port": 80, "targetPort": 8080, "protocol": "UDP"},
            {"name": "closed", "port": CLOSED, "targetPort": 9999, "protocol": "UDP"},
            {"name": "echo", "port": ECHO, "targetPort": 9000, "protocol": "UDP"},
        ],
    });
    let vips = cluster_ips(&service(lab, app, spec)?);
    ensure!(vips.len() == 2, "one address of each family: {vips:?}");
    Ok(vips)
}

fn all(lab: &Lab) -> Result<()> {
    let (here, there) = (vips(lab, "here")?, vips(lab, "there")?);
    let _echoes = [Echo::in_pod(lab, "here")?, Echo::in_pod(lab, "there")?];
    for (here, there) in here.into_iter().zip(there) {
        for (client, vip, pod, back, routers) in [
            ("client-1", there, "there", "node-2", 2),
            ("client", here, "here", "node-1", 1),
            ("client", there, "there", "node-1", 2),
        ] {
            let way = Way { lab, client, vip, pod, there: "node-1", back, routers };
            way.holds().with_context(|| format!("{client} to {pod} by {vip}"))?;
        }
    }
    // An address that no Service has does not answer.
    for (family, unused) in [("-4", "10.96.200.200"), ("-6", "fd00:10:96::c8c8")] {
        for client in ["client-1", "client"] {
            let ping = lab.exec(client, &["ping", family, "-n", "-c", "1", "-W", "1", unused])?;
            ensure!(!ping.status.success(), "{unused} answers {client}");
        }
    }
    Ok(())
}

fn hard(name: &str, hook: PodHook) {
    if let Err(e) = cluster(name, hook).and_then(|lab| all(&lab)) {
        panic!("{e:?}");
    }
}

#[test]
fn pods_hooked_by_tc() {
    hard("hardtc", PodHook::Tc);
}

#[test]
fn pods_hooked_by_xdp() {
    hard("hardxdp", PodHook::Xdp);
}
