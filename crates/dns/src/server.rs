//! Sockets: each address is bound by itself, so that a reply leaves from where the question went.
//!
//! Connections are served by hickory-server, behind our own door ([`stream`]); datagrams by ourselves, as hickory-server
//! spawns a task and boxes a future for each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Resolver;
use crate::engine::{Engine, Worker};
use crate::metrics::Metrics;
use crate::writer::{Limits, Transport};

mod batch;
mod handler;
mod sendmmsg;
mod stream;
mod udp;

/// Bounds of a [`Server`].
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// UDP sockets for each address, each served by its own task; the kernel spreads clients over them. 0: one a core.
    pub workers: usize,
    /// Largest UDP answer and the size our OPT offers, bytes, 512 to 4096.
    pub udp_payload: u16,
    /// Queries that may wait for upstreams at once; more are answered SERVFAIL.
    pub pending: usize,
    /// TCP connections, over all addresses.
    pub connections: usize,
    /// TCP connections of one client address.
    pub connections_per_client: usize,
    /// Zones on their way to clients at once; more are answered SERVFAIL.
    pub transfers: usize,
    /// A connection is closed when in this time neither a whole query has come in nor an answer been taken.
    pub idle: Duration,
    /// When stopping, queries that wait for upstreams get this long.
    pub drain: Duration,
    /// DNS over TLS (RFC 7858) is served besides, with this.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Its port. 0: a free one.
    pub tls_port: u16,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            workers: 0,
            udp_payload: 1232,
            pending: 8192,
            connections: 1024,
            connections_per_client: 128,
            transfers: 8,
            idle: Duration::from_secs(10),
            drain: Duration::from_secs(1),
            tls: None,
            tls_port: 853,
        }
    }
}

impl ServerOptions {
    pub(crate) fn udp_payload(&self) -> u16 {
        self.udp_payload.clamp(512, 4096)
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}/{proto}: {source}")]
pub struct BindError {
    pub addr: SocketAddr,
    /// `udp`, `tcp` or `tls`.
    pub proto: &'static str,
    pub source: io::Error,
}

/// Listeners that are bound and not yet served.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Listener {
    addr: SocketAddr,
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
    tls: Option<TcpListener>,
}

/// What the tasks of a server share.
#[derive(Debug)]
struct Shared {
    engine: Arc<Engine>,
    options: ServerOptions,
    metrics: Arc<Metrics>,
    pending: Arc<Semaphore>,
    connections: stream::Connections,
    transfers: Arc<Semaphore>,
    /// Answers being made; waited for when stopping.
    tasks: TaskTracker,
}

impl Server {
    /// Binds UDP and TCP of each address; call it within a tokio runtime. An address need not be on an interface yet
    /// (`IP_FREEBIND`), and another process may still hold it (`SO_REUSEPORT`), so that an upgrade has no gap.
    /// Port 0 takes a free one, the same for both protocols.
    ///
    /// # Errors
    /// The first address that cannot be bound, and why.
    pub fn bind(
        addresses: &[SocketAddr],
        resolver: Arc<Resolver>,
        options: ServerOptions,
    ) -> Result<Self, BindError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = if options.workers == 0 { cores() } else { options.workers };
        let listeners =
            addresses.iter().map(|a| Listener::bind(*a, workers, &options)).collect::<Result<Vec<_>, _>>()?;
        resolver.forwarder.add_own(listeners.iter().map(|l| l.addr));
        let limits = Limits { udp: options.udp_payload() };
        let shared = Arc::new(Shared {
            metrics: resolver.metrics.clone(),
            engine: Arc::new(Engine { resolver, limits, idle: (options.idle.as_millis() / 100) as u16 }),
            pending: Arc::new(Semaphore::new(options.pending.min(Semaphore::MAX_PERMITS))),
            connections: stream::Connections::default(),
            transfers: Arc::new(Semaphore::new(options.transfers.min(Semaphore::MAX_PERMITS))),
            tasks: TaskTracker::new(),
            options,
        });
        Ok(Self { listeners, shared })
    }

    /// Where it listens, in the order given to [`Server::bind`].
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|l| l.addr).collect()
    }

    /// Where it listens for TLS, in the same order; empty without TLS.
    pub fn tls_addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.tls.as_ref()?.local_addr().ok()).collect()
    }

    /// Serves until `stop`; then answers what has come in, gives what waits for upstreams
    /// [`ServerOptions::drain`], and ends.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listeners, shared } = self;
        let loops = TaskTracker::new();
        let acceptor = shared.options.tls.clone().map(TlsAcceptor::from);
        for Listener { addr, udp, tcp, tls } in listeners {
            for socket in udp {
                let worker = shared.worker(addr, Transport::Udp);
                loops.spawn(udp::serve(socket, worker, shared.clone(), stop.clone()));
            }
            loops.spawn(stream::accept(tcp, addr, None, shared.clone(), stop.clone()));
            if let Some((tls, addr)) = tls.and_then(|tls| tls.local_addr().ok().map(|addr| (tls, addr))) {
                loops.spawn(stream::accept(tls, addr, acceptor.clone(), shared.clone(), stop.clone()));
            }
        }
        loops.close();
        stop.cancelled().await;
        let end = tokio::time::Instant::now() + shared.options.drain;
        loops.wait().await;
        shared.tasks.close();
        let drained = tokio::time::timeout_at(end, shared.tasks.wait()).await;
        if drained.is_err() {
            tracing::warn!(unanswered = shared.tasks.len(), "stopped with queries still at the upstreams");
        }
    }
}

impl Shared {
    fn worker(&self, addr: SocketAddr, transport: Transport) -> Worker {
        Worker::new(self.engine.clone(), transport, self.metrics.worker(addr, transport))
    }
}

impl Listener {
    fn bind(addr: SocketAddr, workers: usize, options: &ServerOptions) -> Result<Self, BindError> {
        // A free UDP port may be taken for TCP: try others.
        let mut tries = if addr.port() == 0 { 32 } else { 1 };
        loop {
            tries -= 1;
            match Self::bind_once(addr, workers, options) {
                Err(e) if tries > 0 && e.source.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
    }

    fn bind_once(addr: SocketAddr, workers: usize, options: &ServerOptions) -> Result<Self, BindError> {
        let failed = |proto| move |source| BindError { addr, proto, source };
        let first = udp_socket(addr).map_err(failed("udp"))?;
        let addr = first.local_addr().map_err(failed("udp"))?;
        let mut udp = vec![first];
        for _ in 1..workers {
            udp.push(udp_socket(addr).map_err(failed("udp"))?);
        }
        let tls = options.tls.as_ref().map(|_| tcp_listener(SocketAddr::new(addr.ip(), options.tls_port)));
        let tls = tls.transpose().map_err(failed("tls"))?;
        Ok(Self { addr, udp, tcp: tcp_listener(addr).map_err(failed("tcp"))?, tls })
    }
}

/// What [`ServerOptions::tls`] takes, from files in PEM.
///
/// # Errors
/// A file that cannot be read, or a key that is not the certificate's.
pub fn tls_config(
    certificate: &std::path::Path,
    key: &std::path::Path,
) -> io::Result<Arc<rustls::ServerConfig>> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let failed = |path: &std::path::Path, e: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed(certificate, &e))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|e| failed(certificate, &e))?;
    config.alpn_protocols = vec![b"dot".to_vec()];
    Ok(Arc::new(config))
}

fn socket(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn udp_socket(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(addr, Type::DGRAM, Protocol::UDP)?;
    // Room for a burst; the kernel grants what it allows.
    socket.set_recv_buffer_size(1 << 20)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

fn tcp_listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr, Type::STREAM, Protocol::TCP)?;
    socket.bind(&addr.into())?;
    socket.listen(256)?;
    TcpListener::from_std(socket.into())
}
