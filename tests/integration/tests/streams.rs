//! What TCP does besides talking, through virtual addresses: a port used again at once, connections that are closed on one
//! side alone, large packets. For pods and for a client outside; each pod hook, both families.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eastwest_integration::*;
use eastwest_lab::serve::Answer;
use eastwest_lab::{Lab, Options, PodHook};
use nix::sys::socket::{getsockopt, sockopt};
use serde_json::json;
use socket2::SockRef;

/// Ports of the Service behind which there are: the lab's server; one that answers when its client has ended; one that ends
/// first and reads on. Each is a node port as well.
const PORTS: [(u16, u16, u16); 3] = [(80, 8080, 30080), (91, 9100, 30091), (92, 9200, 30092)];
/// What goes one way, in pieces with pauses between: some seconds.
const PIECES: usize = 24;
const PIECE: usize = 48 * 1024;
const PAUSE: Duration = Duration::from_millis(120);

fn pieces(stream: &mut TcpStream) -> std::io::Result<()> {
    for _ in 0..PIECES {
        stream.write_all(&[7; PIECE])?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn read_all(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)
}

/// Serves on a port of a pod, for as long as the test's process lives.
fn serve(
    lab: &Lab,
    pod: &str,
    port: u16,
    one: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Result<()> {
    let listener = lab.within(pod, || TcpListener::bind(("::", port)))??;
    let one = Arc::new(one);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let one = one.clone();
            std::thread::spawn(move || one(&mut stream));
        }
    });
    Ok(())
}

/// Where a client finds the three servers.
struct Way<'a> {
    lab: &'a Lab,
    client: &'a str,
    ip: IpAddr,
    node_ports: bool,
    /// Bytes that the servers that end first have read.
    read: &'a AtomicU64,
}

impl Way<'_> {
    fn at(&self, server: usize) -> SocketAddr {
        let (port, _, node_port) = PORTS[server];
        (self.ip, if self.node_ports { node_port } else { port }).into()
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.lab.within(self.client, work)?
    }

    fn holds(&self) -> Result<()> {
        self.again(true).context("a port used again after RST")?;
        self.again(false).context("a port used again after FIN")?;
        self.client_ends_first().context("the client ends first")?;
        self.server_ends_first().context("the server ends first")?;
        let to = self.at(0);
        self.within(|| bulk(to, 16 << 20, |_| {})).context("bulk")
    }

    /// Connections one after the other from one port, each of which may get another backend.
    fn again(&self, reset: bool) -> Result<()> {
        let to = self.at(0);
        let port = if reset { 45_001 } else { 45_002 } + u16::from(self.node_ports) * 2;
        let seen = self.within(|| {
            (0..24)
                .map(|n| {
                    let mut stream = connect(to, port).with_context(|| format!("connection {n}"))?;
                    if reset {
                        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                    }
                    write!(
                        stream,
                        "GET /x HTTP/1.1\r\nHost: test\r\nConnection: {}\r\n\r\n",
                        if reset { "keep-alive" } else { "close" }
                    )?;
                    let mut text = String::new();
                    if reset {
                        while !text.ends_with('}') {
                            let mut byte = [0];
                            stream.read_exact(&mut byte).with_context(|| format!("answer {n}"))?;
                            text.push(char::from(byte[0]));
                        }
                    } else {
                        stream.read_to_string(&mut text).with_context(|| format!("answer {n}"))?;
                    }
                    let body = text.split_once("\r\n\r\n").context("an HTTP answer")?.1;
                    let answer: Answer = serde_json::from_str(body).with_context(|| format!("{body:?}"))?;
                    Ok(answer.pod)
                })
                .collect::<Result<BTreeSet<_>>>()
        })?;
        ensure!(seen.len() == 2, "from port {port} at {to}: {seen:?}");
        Ok(())
    }

    fn client_ends_first(&self) -> Result<()> {
        let to = self.at(1);
        self.within(|| {
            let mut stream = connect(to, 0)?;
            stream.write_all(b"that is all")?;
            stream.shutdown(Shutdown::Write)?;
            let length = read_all(&mut stream)?;
            ensure!(length == PIECES * PIECE, "{length} bytes came");
            Ok(())
        })
    }

    fn server_ends_first(&self) -> Result<()> {
        let to = self.at(2);
        let before = self.read.load(Ordering::Relaxed);
        self.within(|| {
            let mut stream = connect(to, 0)?;
            ensure!(read_all(&mut stream)? == 0, "nothing was to come");
            Ok(pieces(&mut stream)?)
        })?;
        eventually(|| {
            let read = self.read.load(Ordering::Relaxed) - before;
            ensure!(read == (PIECES * PIECE) as u64, "{read} bytes were read");
            Ok(())
        })
    }

    /// Segments are as long as the links allow.
    fn jumbo(&self) -> Result<()> {
        let to = self.at(0);
        self.within(|| {
            let stream = connect(to, 0)?;
            let mss = getsockopt(&stream, sockopt::TcpMaxSeg)?;
            ensure!(mss > 8000, "segments of {mss} bytes");
            bulk(to, 32 << 20, |_| {})
        })
    }
}

/// Every link takes 9000 bytes.
fn widen(lab: &Lab) -> Result<()> {
    for place in ["fabric", "node-1", "node-2", "client", "near", "far", "asks"] {
        for line in run(lab, place, &["ip", "-o", "link"])?.lines() {
            let name = line.split([':', '@']).nth(1).context("a name")?.trim();
            if name != "lo" {
                run(lab, place, &["ip", "link", "set", name, "mtu", "9000"])?;
            }
        }
    }
    Ok(())
}

fn streams(name: &str, hook: PodHook) -> Result<()> {
    let lab = lab(name, Options { nodes: 2, pod_hook: hook, ..Options::default() })?;
    let read = Arc::new(AtomicU64::new(0));
    for (name, node, app) in [("near", "node-1", "web"), ("far", "node-2", "web"), ("asks", "node-1", "asks")]
    {
        pod(&lab, name, node, app, "v1")?;
        if app == "web" {
            serve(&lab, name, PORTS[1].1, |stream| {
                read_all(stream)?;
                pieces(stream)
            })?;
            let read = read.clone();
            serve(&lab, name, PORTS[2].1, move |stream| {
                stream.shutdown(Shutdown::Write)?;
                read.fetch_add(read_all(stream)? as u64, Ordering::Relaxed);
                Ok(())
            })?;
        }
    }
    let ports: Vec<_> = PORTS
        .iter()
        .map(|(port, target, node_port)| {
            json!({"name": format!("p{port}"), "port": port, "targetPort": target, "nodePort": node_port})
        })
        .collect();
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack", "ports": ports});
    let vips = cluster_ips(&service(&lab, "web", spec)?);
    let nodes: [IpAddr; 2] = ["172.31.0.1".parse()?, "fd00:172:31::1".parse()?];
    let all = || {
        let pods = vips.iter().map(|ip| ("asks", *ip, false));
        pods.chain(nodes.iter().map(|ip| ("client", *ip, true))).map(|(client, ip, node_ports)| Way {
            lab: &lab,
            client,
            ip,
            node_ports,
            read: &read,
        })
    };
    for way in all() {
        way.holds().with_context(|| format!("{} to {}", way.client, way.ip))?;
    }
    widen(&lab)?;
    for way in all() {
        way.jumbo().with_context(|| format!("{} to {} by links of 9000 bytes", way.client, way.ip))?;
    }
    Ok(())
}

#[test]
fn pods_hooked_by_tc() {
    streams("streamtc", PodHook::Tc).unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn pods_hooked_by_xdp() {
    streams("streamxdp", PodHook::Xdp).unwrap_or_else(|error| panic!("{error:?}"));
}
