//! What the integration tests share: a lab with a web Service in it, and small clients that say exactly what they saw.
//!
//! The tests need root and the binaries beside them (`make test` builds them); without, they fail and say so.

pub mod dns;
pub mod load;
pub mod peers;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use eastwest_lab::serve::Answer;
use eastwest_lab::{Error, Lab, Options, PodSpec};
use http::Method;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

/// Longer than anything here takes; shorter than a hang is borne.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A lab under a name of the test's own.
pub fn lab(name: &str, options: Options) -> Result<Lab> {
    Lab::up(Options { name: name.into(), ..options }).context("lab up")
}

/// Starts a serving pod with labels `app` and `version`.
pub fn pod(lab: &Lab, name: &str, node: &str, app: &str, version: &str) -> Result<eastwest_lab::Pod> {
    let spec = PodSpec::new(name, node)?.label("app", app).label("version", version);
    lab.run_pod(&spec).with_context(|| format!("pod {name}"))
}

/// Creates a Service in `default`; returns it as stored, programmed on every node.
pub fn service(lab: &Lab, name: &str, spec: Value) -> Result<Value> {
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let query = [("wait", "programmed"), ("timeout", "10s")];
    request(lab, Method::POST, SERVICES, &query, Some(&object)).with_context(|| format!("service {name}"))
}

/// Path of the Services of namespace `default`.
pub const SERVICES: &str = "/api/v1/namespaces/default/services";

/// One request to the lab's controller.
pub fn request(
    lab: &Lab,
    method: Method,
    path: &str,
    query: &[(&str, &str)],
    body: Option<&Value>,
) -> Result<Value, Error> {
    let query: Vec<_> = query.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    lab.request(|client| async move { Ok(client.json(method, path, &query, body).await?) })
}

/// Its virtual addresses, IPv4 before IPv6.
pub fn cluster_ips(service: &Value) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = service["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .collect();
    ips.sort();
    ips
}

/// A TCP connection, from `port` (0: any) of the given address family.
pub fn connect(to: SocketAddr, from_port: u16) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if from_port != 0 {
        socket.set_reuse_address(true)?;
        let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        socket.bind(&SocketAddr::new(any, from_port).into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// One HTTP request, one connection.
pub fn get(to: SocketAddr) -> Result<Answer> {
    let mut stream = connect(to, 0).with_context(|| format!("connect to {to}"))?;
    write!(stream, "GET /x HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("answer of {to}"))?;
    let body = text.split_once("\r\n\r\n").context("an HTTP answer")?.1;
    serde_json::from_str(body).with_context(|| format!("{body:?}"))
}

/// One datagram there and the answer back, from a connected socket: an answer from elsewhere is not taken.
pub fn ask_udp(to: SocketAddr) -> Result<Answer> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"?")?;
    let mut buffer = [0; 2048];
    let n = socket.recv(&mut buffer).with_context(|| format!("datagram from {to}"))?;
    Ok(serde_json::from_slice(&buffer[..n])?)
}

/// As [`ask_udp`], unconnected: checks that the answer comes from the address that was asked.
pub fn ask_udp_unconnected(to: SocketAddr) -> Result<Answer> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"?", to)?;
    let mut buffer = [0; 2048];
    let (n, from) = socket.recv_from(&mut buffer).with_context(|| format!("datagram from {to}"))?;
    ensure!(from == to, "asked {to}, answered by {from}");
    Ok(serde_json::from_slice(&buffer[..n])?)
}

/// Sends a line over a connection that echoes, and reads it back.
pub fn echo_line(stream: &mut TcpStream, line: &str) -> Result<()> {
    stream.write_all(line.as_bytes())?;
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back).with_context(|| format!("echo of {line:?}"))?;
    ensure!(back == line.as_bytes(), "sent {line:?}, got {:?}", String::from_utf8_lossy(&back));
    Ok(())
}

/// Sends `bytes` bytes of a pattern through an echo and compares each that comes back. Reading and writing go on side
/// by side. `progress` is called with the count read so far.
pub fn bulk(to: SocketAddr, bytes: u64, mut progress: impl FnMut(u64)) -> Result<()> {
    let pattern = |at: u64| (at.wrapping_mul(2_654_435_761) >> 13) as u8;
    let mut reader = connect(to, 0)?;
    let mut writer = reader.try_clone()?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> std::io::Result<()> {
            let mut at = 0;
            while at < bytes {
                let n = (bytes - at).min(128 * 1024);
                let chunk: Vec<u8> = (at..at + n).map(pattern).collect();
                writer.write_all(&chunk)?;
                at += n;
            }
            writer.shutdown(std::net::Shutdown::Write)
        });
        let mut buffer = vec![0; 256 * 1024];
        let mut at = 0;
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => bail!("after {at} of {bytes} bytes: {e}"),
            };
            for (i, byte) in buffer[..n].iter().enumerate() {
                ensure!(*byte == pattern(at + i as u64), "byte {} is wrong", at + i as u64);
            }
            at += n as u64;
            progress(at);
        }
        ensure!(at == bytes, "{at} of {bytes} bytes came back");
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        Ok(())
    })
}

/// How a connection attempt ended.
pub fn refusal(to: SocketAddr) -> Result<ErrorKind> {
    match connect(to, 0) {
        Ok(_) => bail!("{to} took the connection"),
        Err(e) => Ok(e.kind()),
    }
}

/// What a command printed; an error when it failed.
pub fn run(lab: &Lab, target: &str, argv: &[&str]) -> Result<String> {
    let output = lab.exec(target, argv)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{argv:?} in {target}: {} {stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(stdout)
}

/// Tries until it holds, for as long as [`PATIENCE`].
pub fn eventually<T>(check: impl FnMut() -> Result<T>) -> Result<T> {
    eventually_in(1, check)
}

/// Tries until it holds, for so many times [`PATIENCE`].
pub fn eventually_in<T>(times: u32, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let end = std::time::Instant::now() + times * PATIENCE;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(e) if std::time::Instant::now() > end => return Err(e.context("it did not come about")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
