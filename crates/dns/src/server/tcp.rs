//! Connections (RFC 7766): pipelined queries, answers in the order they are ready, bounds on everything a peer can hold.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::engine::{Verdict, Worker};
use crate::metrics::Drop;
use crate::writer::Transport;

/// Queries of one connection that may wait for upstreams at once; more are not read.
const PIPELINED: usize = 64;
/// A query is shorter; what claims to be longer is not waited for.
const QUERY_MAX: usize = 16 << 10;

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

pub(super) async fn accept(
    listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let counters = shared.metrics.worker(addr, Transport::Tcp);
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
        let worker = Worker::new(shared.engine.clone(), Transport::Tcp, counters.clone());
        let stop = stop.clone();
        shared.tasks.spawn(async move {
            if let Err(error) = serve(stream, worker, &admitted.shared, stop).await {
                tracing::debug!(%peer, %error, "TCP connection");
            }
        });
    }
}

/// Answers that wait for upstreams.
type Waiting = FuturesUnordered<BoxFuture<'static, Vec<u8>>>;

/// Serves one connection to its end.
async fn serve(
    mut stream: TcpStream,
    mut worker: Worker,
    shared: &Shared,
    stop: CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let options = &shared.options;
    let mut input: Vec<u8> = Vec::new();
    let mut response = Vec::new();
    let mut waiting = Waiting::new();
    let mut deadline = Instant::now() + options.idle;
    let mut open = true;
    while open || !waiting.is_empty() {
        let answered = tokio::select! {
            biased;
            Some(answer) = waiting.next(), if !waiting.is_empty() => {
                write(&mut stream, &answer, options.message, &worker).await?;
                true
            }
            () = stop.cancelled(), if open => {
                open = false;
                false
            }
            read = stream.read_buf(&mut input), if open && waiting.len() < PIPELINED => {
                // The peer has ended its side; it still gets its answers.
                open = read? > 0;
                false
            }
            () = tokio::time::sleep_until(deadline), if open && waiting.is_empty() => {
                if !input.is_empty() {
                    worker.counters.dropped(Drop::Slow);
                }
                return Ok(());
            }
        };
        let before = input.len();
        answer_all(&mut stream, &mut input, &mut response, &mut worker, shared, &mut waiting).await?;
        // A query that is not whole must become so in time, and a trickle of octets gains it none.
        if answered || input.len() < before {
            deadline = Instant::now() + if input.is_empty() { options.idle } else { options.message };
        } else if !input.is_empty() {
            deadline = deadline.min(Instant::now() + options.message);
        }
    }
    stream.shutdown().await
}

/// Answers each whole query in `input` and removes it, as long as there is room to wait for upstreams.
async fn answer_all(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    response: &mut Vec<u8>,
    worker: &mut Worker,
    shared: &Shared,
    waiting: &mut Waiting,
) -> io::Result<()> {
    let limit = shared.options.message;
    let mut at = 0;
    while let Some(length) = input.get(at..at + 2).filter(|_| waiting.len() < PIPELINED) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length > QUERY_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a query of more than 16 KiB"));
        }
        let Some(request) = input.get(at + 2..at + 2 + length) else { break };
        match worker.handle(request, response) {
            Verdict::Reply => write(stream, response, limit, worker).await?,
            Verdict::Pending(pending) => match shared.pending.clone().try_acquire_owned() {
                Ok(permit) => waiting.push(Box::pin(async move {
                    let answer = pending.finish().await;
                    drop(permit);
                    answer
                })),
                Err(_) => write(stream, &pending.refuse(), limit, worker).await?,
            },
            // What is no query on a stream is followed by nothing that can be trusted.
            Verdict::Silence => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a query")),
        }
        at += 2 + length;
    }
    input.drain(..at);
    Ok(())
}

async fn write(stream: &mut TcpStream, answer: &[u8], limit: Duration, worker: &Worker) -> io::Result<()> {
    let mut message = Vec::with_capacity(answer.len() + 2);
    message.extend_from_slice(&(answer.len() as u16).to_be_bytes());
    message.extend_from_slice(answer);
    match timeout(limit, stream.write_all(&message)).await {
        Ok(result) => result,
        Err(_) => {
            worker.counters.dropped(Drop::Slow);
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}
