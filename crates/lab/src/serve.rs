//! What a pod of a lab runs when it is given no command: on one port HTTP and echo over TCP, and over UDP the line that
//! HTTP answers with. It shows who asked and which address was asked, as the pod itself sees them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Who serves.
#[derive(Clone, Debug)]
pub struct Identity {
    pub pod: String,
    pub node: String,
    /// The pod's label `version`; empty without.
    pub version: String,
}

/// What every answer says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub pod: String,
    pub node: String,
    pub version: String,
    /// The client, `ip:port`.
    pub remote: String,
    /// The address it was received on, `ip:port`.
    pub local: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// Serves until the process ends; returns only when it cannot listen.
pub async fn run(identity: Identity, port: u16) -> io::Result<()> {
    let identity = Arc::new(identity);
    let mut tasks = JoinSet::new();
    for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        let listener = listen(SocketAddr::new(any, port))?;
        tasks.spawn(serve_tcp(listener, identity.clone()));
    }
    // A socket for each address: one for all would answer from the address the route prefers, which need not be the one
    // asked.
    for ip in addresses()? {
        let socket = UdpSocket::bind(SocketAddr::new(ip, port)).await?;
        tasks.spawn(serve_udp(socket, identity.clone()));
    }
    match tasks.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(e)) => Err(io::Error::other(e)),
        None => Ok(()),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// The addresses of this network namespace, but for link-local ones, which need a device beside them.
fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|i| {
            let address = i.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

impl Identity {
    fn answer(&self, remote: SocketAddr, local: SocketAddr, method: &str, path: &str) -> String {
        let answer = Answer {
            pod: self.pod.clone(),
            node: self.node.clone(),
            version: self.version.clone(),
            remote: remote.to_string(),
            local: local.to_string(),
            method: method.to_owned(),
            path: path.to_owned(),
        };
        let mut line = serde_json::to_string(&answer).unwrap_or_else(|e| e.to_string());
        line.push('\n');
        line
    }
}

async fn serve_udp(socket: UdpSocket, identity: Arc<Identity>) -> io::Result<()> {
    let local = socket.local_addr()?;
    let mut buffer = [0; 65536];
    loop {
        // An error is about an earlier answer, an ICMP message that came back; the socket goes on.
        if let Ok((_, remote)) = socket.recv_from(&mut buffer).await {
            let line = identity.answer(remote, local, "", "");
            let _peer_may_be_gone = socket.send_to(line.as_bytes(), remote).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, identity: Arc<Identity>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                tokio::spawn(connection(stream, remote, identity.clone()));
            }
            // Out of descriptors, or the peer is gone already.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, remote: SocketAddr, identity: Arc<Identity>) {
    let _nagle_may_stay = stream.set_nodelay(true);
    let (Ok(local), Ok(http)) = (stream.local_addr(), speaks_http(&stream).await) else { return };
    if http {
        let service = service_fn(|request: Request<Incoming>| {
            let line = identity.answer(remote, local, request.method().as_str(), request.uri().path());
            let response = Response::builder()
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(line)));
            async { response }
        });
        let _client_ended_it =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    } else {
        echo(stream).await;
    }
}

async fn echo(stream: TcpStream) {
    let (mut read, mut write) = stream.into_split();
    let mut read = tokio::io::BufReader::with_capacity(256 * 1024, &mut read);
    let _client_ended_it = tokio::io::copy_buf(&mut read, &mut write).await;
}

const METHODS: [&str; 9] =
    ["GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "TRACE ", "CONNECT "];

#[derive(Debug, PartialEq, Eq)]
enum Guess {
    Http,
    Echo,
    More,
}

fn guess(first: &[u8]) -> Guess {
    let is = |m: &str| first.starts_with(m.as_bytes());
    let may_become = |m: &str| m.as_bytes().starts_with(first);
    if METHODS.into_iter().any(is) {
        Guess::Http
    } else if METHODS.into_iter().any(may_become) {
        Guess::More
    } else {
        Guess::Echo
    }
}

/// Looks at what the client says first, and leaves it to be read. A client that stops inside a method's name for 200 ms
/// is not an HTTP client.
async fn speaks_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 8];
    let mut waited = Duration::ZERO;
    loop {
        let n = stream.peek(&mut first).await?;
        match guess(&first[..n]) {
            Guess::Http => return Ok(true),
            Guess::Echo => return Ok(false),
            // Nothing came, and nothing will.
            Guess::More if n == 0 || waited >= Duration::from_millis(200) => return Ok(false),
            Guess::More => {
                let pause = Duration::from_millis(5);
                tokio::time::sleep(pause).await;
                waited += pause;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn first_bytes() {
        for (bytes, want) in [
            (&b"GET / HTTP/1.1"[..], Guess::Http),
            (b"DELETE ", Guess::Http),
            (b"GE", Guess::More),
            (b"", Guess::More),
            (b"GETX", Guess::Echo),
            (b"hello", Guess::Echo),
            (b"\0\0\0", Guess::Echo),
        ] {
            assert_eq!(guess(bytes), want, "{bytes:?}");
        }
    }

    async fn served() -> SocketAddr {
        let identity = Arc::new(Identity { pod: "p".into(), node: "n".into(), version: "v1".into() });
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_tcp(listener, identity.clone()));
        let socket = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(serve_udp(socket, identity));
        address
    }

    #[tokio::test]
    async fn one_port_speaks_http_echo_and_udp() {
        let address = served().await;

        let mut http = TcpStream::connect(address).await.unwrap();
        http.write_all(b"GET /x?y HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).await.unwrap();
        let answer: Answer = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!((answer.pod.as_str(), answer.version.as_str(), answer.path.as_str()), ("p", "v1", "/x"));
        assert_eq!(answer.local, address.to_string());

        // Larger than every buffer on the way, so that reading and writing must go on side by side.
        let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let data = sent.clone();
        let writer = tokio::spawn(async move {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert!(received == sent);

        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        udp.send_to(b"?", address).await.unwrap();
        let mut buffer = [0; 512];
        let (n, from) = udp.recv_from(&mut buffer).await.unwrap();
        let answer: Answer = serde_json::from_slice(&buffer[..n]).unwrap();
        assert_eq!((from, answer.remote), (address, udp.local_addr().unwrap().to_string()));
    }
}
