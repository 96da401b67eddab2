//! Connections (RFC 7766), TCP and TLS alike: who may come in is decided here, the rest is hickory's.
//!
//! hickory-server reads and writes messages, closes what stays silent, and asks a [`RequestHandler`]. Its `Server` is
//! not what accepts: that one takes any number of connections, spins while the process is out of file descriptors, and
//! drops answers still to come when the client ends its side, or when it is told to stop.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_server::net::tcp::TcpStream as MessageStream;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::SerialMessage;
use hickory_server::server::{Request, RequestHandler, TimeoutStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::handler::{Handler, Reply};
use crate::engine::{Verdict, Worker, is_asked};
use crate::metrics::{Counters, Drop};
use crate::wire;
use crate::writer::Transport;

/// Queries of one connection that may wait for upstreams at once; more are not read.
const PIPELINED: u32 = 64;
/// Answers are as long as a multiple of this, bytes (RFC 8467 §4.1).
const PADDED: usize = 468;
/// Time to hand the last answers to the kernel once nothing more is read.
const FLUSH: Duration = Duration::from_millis(50);

/// Open connections by client.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<(usize, HashMap<IpAddr, usize>)>);

struct Admitted {
    shared: Arc<Shared>,
    client: IpAddr,
}

impl Admitted {
    fn new(shared: &Arc<Shared>, client: IpAddr) -> Option<Self> {
        let mut open = shared.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_client) = &mut *open;
        let mine = by_client.get(&client).copied().unwrap_or(0);
        if *total >= shared.options.connections || mine >= shared.options.connections_per_client {
            return None;
        }
        *total += 1;
        by_client.insert(client, mine + 1);
        Some(Self { shared: shared.clone(), client })
    }
}

impl std::ops::Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.shared.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, by_client) = &mut *open;
        *total -= 1;
        if let Some(n) = by_client.get_mut(&self.client) {
            *n -= 1;
            if *n == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

/// Accepts on `listener` until `stop`; with `tls`, DNS over TLS (RFC 7858).
pub(super) async fn accept(
    listener: TcpListener,
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
    let counters = shared.metrics.worker(addr, transport);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // Out of file descriptors, or the peer has gone: either passes.
            Err(error) => {
                tracing::debug!(%error, "TCP accept");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Some(admitted) = Admitted::new(&shared, peer.ip()) else {
            counters.dropped(Drop::Connections);
            continue;
        };
        let connection = Connection {
            shared: shared.clone(),
            counters: counters.clone(),
            transport,
            peer,
            stop: stop.clone(),
        };
        let tls = tls.clone();
        shared.tasks.spawn(async move {
            connection.start(stream, tls).await;
            drop(admitted);
        });
    }
}

/// Where the answers of a connection wait to be written.
pub(super) type Replies = mpsc::Sender<SerialMessage>;

struct Connection {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    transport: Transport,
    peer: SocketAddr,
    stop: CancellationToken,
}

impl Connection {
    async fn start(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer = %self.peer, %error, "TCP connection");
            return;
        }
        let Some(tls) = tls else { return self.serve(stream).await };
        match timeout(self.shared.options.idle, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "TLS handshake"),
            Err(_) => self.counters.dropped(Drop::Slow),
        }
    }

    /// Serves one connection to its end.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static>(self, stream: S) {
        let Self { shared, counters, transport, peer, stop } = self;
        // Every answer that may be under way has a place to wait for the peer to read.
        let (mut replies, queue) = mpsc::channel(2 * PIPELINED as usize);
        let messages = MessageStream::from_stream_with_receiver(
            AsyncIoTokioAsStd(stream),
            peer,
            queue.fuse().peekable(),
        );
        let mut messages = TimeoutStream::new(messages, shared.options.idle);
        let waiting = Arc::new(Semaphore::new(PIPELINED as usize));
        let handler = Handler {
            shared: shared.clone(),
            counters: counters.clone(),
            transport,
            waiting: waiting.clone(),
        };
        let mut sound = true;
        loop {
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                message = messages.next() => message,
            };
            let message = match message {
                // The peer has ended its side; it still gets its answers.
                None => break,
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    if error.kind() == std::io::ErrorKind::TimedOut {
                        // Silent between queries, halfway through one, or not reading its answers.
                        counters.dropped(Drop::Slow);
                    }
                    tracing::debug!(%peer, %error, "TCP connection");
                    sound = false;
                    break;
                }
            };
            if !answer(message, &handler, &mut replies).await {
                // What is no query on a stream is followed by nothing that can be trusted.
                sound = false;
                break;
            }
            // Room for the next one that waits.
            drop(waiting.acquire().await);
        }
        if sound {
            drop(waiting.acquire_many(PIPELINED).await);
            // Polling writes first, and then reads what nobody waits for.
            let _ = timeout(FLUSH, messages.next()).await;
        }
    }
}

fn wants_padding(request: &[u8]) -> bool {
    matches!(wire::Request::parse(request), wire::Request::Query(q) if q.edns.is_some_and(|e| e.padding))
}

/// `false`: the message is no query.
async fn answer(message: SerialMessage, handler: &Handler, replies: &mut Replies) -> bool {
    let (bytes, peer) = message.into_parts();
    if is_asked(&bytes)
        && let Some(sent) = transfer(&bytes, peer, handler, replies)
    {
        return sent;
    }
    // To hickory a connection is one of TCP: what TLS changes is known to the handler.
    match Request::from_bytes(bytes.clone(), peer, Protocol::Tcp) {
        Ok(request) if bytes[2] & 0x80 == 0 => {
            let asked = handler.transport == Transport::Tls && wants_padding(&bytes);
            let padded = asked.then_some(PADDED);
            let reply = Reply { handle: replies.clone(), peer, padded };
            handler.handle_request::<_, TokioTime>(&request, reply).await;
            true
        }
        Ok(_) => {
            handler.counters.dropped(Drop::NotAQuery);
            false
        }
        // What hickory cannot read has an answer nonetheless.
        Err(_) => {
            let mut out = Vec::new();
            let engine = handler.shared.engine.clone();
            let mut worker = Worker::new(engine, handler.transport, handler.counters.clone());
            match worker.handle(&bytes, peer, &mut out) {
                Verdict::Reply => replies.try_send(SerialMessage::new(out, peer)).is_ok(),
                Verdict::Pending(pending) => {
                    replies.try_send(SerialMessage::new(pending.refuse(), peer)).is_ok()
                }
                Verdict::Silence => false,
            }
        }
    }
}

/// Begins to send a whole zone; `None`: there is none for this client. `false`: nothing can be sent any more.
fn transfer(bytes: &[u8], peer: SocketAddr, handler: &Handler, replies: &mut Replies) -> Option<bool> {
    let Handler { shared, counters, transport, waiting } = handler;
    let mut worker = Worker::new(shared.engine.clone(), *transport, counters.clone());
    let transfer = match worker.transfer(bytes, peer)? {
        Ok(transfer) => transfer,
        Err(answer) => return Some(replies.try_send(SerialMessage::new(answer, peer)).is_ok()),
    };
    let places = (shared.transfers.clone().try_acquire_owned(), waiting.clone().try_acquire_owned());
    let (Ok(room), Ok(place)) = places else {
        return Some(replies.try_send(SerialMessage::new(transfer.refuse(), peer)).is_ok());
    };
    let (mut replies, idle) = (replies.clone(), shared.options.idle);
    shared.tasks.spawn(async move {
        for part in transfer.parts() {
            let sent = timeout(idle, replies.send(SerialMessage::new(part, peer))).await;
            if !matches!(sent, Ok(Ok(()))) {
                tracing::debug!(%peer, "a transfer was not taken to its end");
                break;
            }
        }
        drop((room, place));
    });
    Some(true)
}
