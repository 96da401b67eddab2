//! One question to one upstream: UDP from a socket of its own, TCP when the answer was cut or when told to, TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::cache::{CacheLimits, Question, Reply};
use crate::metrics::Metrics;
use crate::wire::{CLASS_IN, HEADER, rcode, rtype};

/// What our OPT offers upstreams: no fragment on any usual path (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
/// What is read of a datagram, bytes: of those that do not keep to it.
const LONGEST: usize = 4096;
/// Datagrams that answer something else before UDP is given up for TCP, which a blind forger cannot enter.
const MISMATCHES_MAX: usize = 16;
/// Connections to one upstream that wait for a next question.
const IDLE_MAX: usize = 32;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How an upstream is spoken to over TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// How upstreams of a group are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// UDP is not used.
    pub(crate) tcp: bool,
    /// Idle connections are kept for so long.
    pub(crate) expire: Duration,
    /// Letters of the question vary in case, and the answer must have them so: bits more for a forger to guess.
    pub(crate) mixed_case: bool,
}

/// A resolver that is asked.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<Tls>,
    /// Milliseconds after the group's start until which it is asked last.
    pub(crate) avoid_until: AtomicU64,
    /// Failures since it last answered.
    pub(crate) fails: AtomicU32,
    pub(crate) probed: AtomicBool,
    /// It does not keep the case of letters: its questions are plain.
    plain: AtomicBool,
    idle: Mutex<Vec<(Box<dyn Stream>, Instant)>>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.tls.is_some() { "tls://" } else { "" }, self.addr)
    }
}

/// The query as it is sent, with `id` first and the question's name spelled as `name`.
fn encode(question: &Question, name: &[u8], id: u16, edns: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 29);
    bytes.extend_from_slice(&id.to_be_bytes());
    // RD; CD as the asker has it.
    bytes.extend_from_slice(&[1, if question.checking_disabled { 0x10 } else { 0 }]);
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&question.qtype.to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    if edns {
        bytes.extend_from_slice(&[0, 0, rtype::OPT as u8]);
        bytes.extend_from_slice(&PAYLOAD.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, if question.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
    bytes
}

/// `name` with each letter in a case by chance (draft-vixie-dnsext-dns0x20).
fn mixed(name: &[u8]) -> Vec<u8> {
    let mut bits = 0u64;
    let mut left = 0;
    let mut flip = |b: &u8| {
        if !b.is_ascii_alphabetic() {
            return *b;
        }
        if left == 0 {
            (bits, left) = (rand::random(), 64);
        }
        left -= 1;
        bits >>= 1;
        if bits & 1 == 1 { b.to_ascii_uppercase() } else { *b }
    };
    name.iter().map(&mut flip).collect()
}

/// What came back by UDP.
enum Heard {
    Reply(Reply),
    /// An answer, were it not for the case of its letters: of an upstream that does not keep it, or forged. It is not
    /// taken, but asked for again.
    OtherCase,
    /// Nothing but strangers' answers, or one longer than was offered to take.
    Nothing,
}

impl Upstream {
    pub(crate) fn new(addr: SocketAddr, tls: Option<Tls>) -> Self {
        Self {
            addr,
            tls,
            avoid_until: 0.into(),
            fails: 0.into(),
            probed: false.into(),
            plain: false.into(),
            idle: Mutex::default(),
        }
    }

    /// Asks and waits up to `timeout` over all. The kernel picks the source port at random and takes datagrams from
    /// the upstream alone; id and question are checked here.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        timeout: Duration,
        manner: Manner,
        limits: CacheLimits,
        metrics: &Metrics,
    ) -> io::Result<Reply> {
        let exchange = async {
            if manner.tcp || self.tls.is_some() {
                return self.stream(question, manner, limits).await;
            }
            let mut edns = true;
            // Once more in plain letters, once more without EDNS, then by TCP.
            for _ in 0..3 {
                match self.udp(question, edns, manner, limits, metrics).await? {
                    Heard::OtherCase => self.plain.store(true, Relaxed),
                    // A server from before EDNS says FORMERR to it (RFC 6891 §7).
                    Heard::Reply(reply) if reply.rcode == rcode::FORMERR && edns => edns = false,
                    Heard::Reply(reply) if !reply.truncated => return Ok(reply),
                    Heard::Reply(_) | Heard::Nothing => break,
                }
            }
            self.stream(question, manner, limits).await
        };
        tokio::time::timeout(timeout, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn udp(
        &self,
        question: &Question,
        edns: bool,
        manner: Manner,
        limits: CacheLimits,
        metrics: &Metrics,
    ) -> io::Result<Heard> {
        let to = self.addr;
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(to).await?;
        let id = rand::random::<u16>();
        let mixes = manner.mixed_case && !self.plain.load(Relaxed);
        let name = if mixes { mixed(&question.name) } else { question.name.to_vec() };
        socket.send(&encode(question, &name, id, edns)).await?;
        let mut buf = vec![0; LONGEST];
        for _ in 0..MISMATCHES_MAX {
            let n = socket.recv(&mut buf).await?;
            let buf = &buf[..n];
            let asked = buf.get(HEADER..HEADER + name.len()).unwrap_or_default();
            let same = !mixes || asked == name;
            if same && let Some(reply) = Reply::parse(buf.to_vec(), id, question, limits) {
                return Ok(Heard::Reply(reply));
            }
            metrics.mismatch(to);
            // A part of an answer: the rest did not fit.
            if same && buf.len() == LONGEST && buf.starts_with(&id.to_be_bytes()) {
                return Ok(Heard::Nothing);
            }
            if !same && buf.starts_with(&id.to_be_bytes()) && asked.eq_ignore_ascii_case(&name) {
                return Ok(Heard::OtherCase);
            }
        }
        Ok(Heard::Nothing)
    }

    /// Over a connection that is at hand, or a new one.
    async fn stream(&self, question: &Question, manner: Manner, limits: CacheLimits) -> io::Result<Reply> {
        while let Some(mut stream) = self.at_hand(manner.expire) {
            // The upstream may have closed it meanwhile.
            if let Ok(reply) = exchange(&mut *stream, question, limits).await {
                self.keep(stream);
                return Ok(reply);
            }
        }
        let tcp = TcpStream::connect(self.addr).await?;
        tcp.set_nodelay(true)?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => Box::new(tls.connector.connect(tls.name.clone(), tcp).await?),
            None => Box::new(tcp),
        };
        let reply = exchange(&mut *stream, question, limits).await?;
        if !manner.expire.is_zero() {
            self.keep(stream);
        }
        Ok(reply)
    }

    fn at_hand(&self, expire: Duration) -> Option<Box<dyn Stream>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < expire);
        idle.pop().map(|(stream, _)| stream)
    }

    fn keep(&self, stream: Box<dyn Stream>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push((stream, Instant::now()));
        }
    }
}

async fn exchange(stream: &mut dyn Stream, question: &Question, limits: CacheLimits) -> io::Result<Reply> {
    let id = rand::random::<u16>();
    let query = encode(question, &question.name, id, true);
    let mut message = (query.len() as u16).to_be_bytes().to_vec();
    message.extend_from_slice(&query);
    stream.write_all(&message).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Reply::parse(bytes, id, question, limits)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not to the question"))
}

/// TLS to upstreams: certificates are checked against `authorities` in PEM, else against the system's.
///
/// # Errors
/// No authority can be read.
pub(crate) fn connector(authorities: Option<&std::path::Path>) -> io::Result<TlsConnector> {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
    /// Where distributions keep them: Debian, Fedora, openSUSE, Alpine.
    const SYSTEM: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let system = || SYSTEM.iter().map(std::path::Path::new).find(|p| p.exists());
    let Some(path) = authorities.or_else(system) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no file of certificate authorities is found"));
    };
    let failed = |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))? {
        // A system's bundle may have some that are not understood.
        let _ = roots.add(certificate.map_err(|e| failed(&e))?);
    }
    if roots.is_empty() {
        return Err(failed(&"no certificate authority in it"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}
