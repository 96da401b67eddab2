//! Datagrams: read what has come, answer on the spot; only what needs an upstream becomes a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::engine::{Pending, Verdict, Worker};
use crate::metrics::Drop;

/// Longer queries do not exist in practice; cut, they are malformed.
const REQUEST_MAX: usize = 4096;
/// Datagrams answered before other tasks get a turn.
const BATCH: usize = 64;
/// After the stop: how long a silence means that all is answered, and the most it may take.
const QUIET: Duration = Duration::from_millis(10);
const LAST: Duration = Duration::from_millis(300);

pub(super) async fn serve(
    socket: UdpSocket,
    mut worker: Worker,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let socket = Arc::new(socket);
    let mut request = vec![0; REQUEST_MAX];
    let mut response = Vec::with_capacity(REQUEST_MAX);
    // Once told to stop, it still answers what had arrived: until nothing comes for a moment, and not for ever.
    let mut last = None;
    loop {
        let ready = match last {
            None => tokio::select! {
                biased;
                () = stop.cancelled() => {
                    last = Some(Instant::now() + LAST);
                    continue;
                }
                ready = socket.readable() => ready,
            },
            Some(end) => match timeout(QUIET, socket.readable()).await {
                Ok(ready) if Instant::now() < end => ready,
                _ => return,
            },
        };
        if let Err(error) = ready {
            tracing::error!(%error, "the UDP socket is gone");
            return;
        }
        for _ in 0..BATCH {
            let (n, peer) = match socket.try_recv_from(&mut request) {
                Ok(received) => received,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                // An ICMP error about an earlier answer, say: the next datagram is unaffected.
                Err(error) => {
                    tracing::debug!(%error, "UDP receive");
                    continue;
                }
            };
            match worker.handle(&request[..n], peer, &mut response) {
                Verdict::Silence => {}
                Verdict::Reply => send(&socket, &response, peer, &worker).await,
                Verdict::Pending(pending) => wait(&socket, *pending, peer, &shared),
            }
        }
    }
}

async fn send(socket: &UdpSocket, response: &[u8], peer: SocketAddr, worker: &Worker) {
    let sent = match socket.try_send_to(response, peer) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => socket.send_to(response, peer).await,
        sent => sent,
    };
    if let Err(error) = sent {
        tracing::debug!(%peer, %error, "UDP send");
        worker.counters.dropped(Drop::Send);
    }
}

fn wait(socket: &Arc<UdpSocket>, pending: Pending, peer: SocketAddr, shared: &Arc<Shared>) {
    let permit = shared.pending.clone().try_acquire_owned();
    let socket = socket.clone();
    shared.tasks.spawn(async move {
        let response = match &permit {
            Ok(_) => pending.finish().await,
            Err(_) => pending.refuse(),
        };
        if let Err(error) = socket.send_to(&response, peer).await {
            tracing::debug!(%peer, %error, "UDP send");
        }
    });
}
