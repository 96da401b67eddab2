//! Datagrams: read what has come, answer on the spot; only what needs an upstream becomes a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::batch::{BATCH, turn};
use crate::engine::{Pending, Verdict, Worker};
use crate::metrics::Drop;

/// Full batches before other tasks get a turn.
const TURNS: usize = 4;
/// After the stop: how long a silence means that all is answered, and the most it may take.
const QUIET: Duration = Duration::from_millis(10);
const LAST: Duration = Duration::from_millis(300);

pub(super) async fn serve(
    socket: UdpSocket,
    mut worker: Worker,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let v6 = socket.local_addr().is_ok_and(|a| a.is_ipv6());
    let socket = Arc::new(socket);
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
        for _ in 0..TURNS {
            let done = socket.try_io(Interest::READABLE, || {
                turn(&socket, v6, |request, peer, response| match worker.handle(request, peer, response) {
                    Verdict::Reply => true,
                    Verdict::Silence => false,
                    Verdict::Pending(pending) => {
                        wait(&socket, *pending, peer, &shared);
                        false
                    }
                })
            });
            match done {
                Ok(done) => {
                    for _ in 0..done.failed {
                        worker.counters.dropped(Drop::Send);
                    }
                    for (response, peer) in done.unsent {
                        send(&socket, &response, peer, &worker).await;
                    }
                    if done.received < BATCH {
                        break;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                // An ICMP error about an earlier answer, say: the next datagram is unaffected.
                Err(error) => tracing::debug!(%error, "UDP receive"),
            }
        }
    }
}

async fn send(socket: &UdpSocket, response: &[u8], peer: SocketAddr, worker: &Worker) {
    if let Err(error) = socket.send_to(response, peer).await {
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
