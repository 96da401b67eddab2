//! Datagrams by the dozen: one system call reads what has come, one sends what is answered.
//!
//! The buffers belong to the thread, not to a socket: they are used between two waits only, and a node has many more
//! sockets than threads.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use socket2::SockAddr;
use tokio::net::UdpSocket;

use super::sendmmsg::sendmmsg;

/// Datagrams read at once.
pub(super) const BATCH: usize = 16;
/// Longer queries do not exist in practice; cut, they are malformed.
const REQUEST_MAX: usize = 4096;

struct Buffers {
    /// For IPv4 and IPv6: the kernel leaves the length of an address where it looks for the room for the next.
    headers: [MultiHeaders<SockaddrStorage>; 2],
    requests: Vec<Vec<u8>>,
    received: Vec<(usize, Option<SocketAddr>)>,
    responses: Vec<Vec<u8>>,
    peers: Vec<SockAddr>,
}

impl Buffers {
    fn new() -> Self {
        Self {
            headers: [MultiHeaders::preallocate(BATCH, None), MultiHeaders::preallocate(BATCH, None)],
            requests: vec![vec![0; REQUEST_MAX]; BATCH],
            received: Vec::with_capacity(BATCH),
            responses: vec![Vec::new(); BATCH],
            peers: Vec::with_capacity(BATCH),
        }
    }
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::new());
}

/// What a turn did.
pub(super) struct Turn {
    pub(super) received: usize,
    /// Answers that the socket has no room for now.
    pub(super) unsent: Vec<(Vec<u8>, SocketAddr)>,
    /// Answers that could not be sent at all.
    pub(super) failed: usize,
}

/// Reads up to [`BATCH`] datagrams of `socket`, which is of IPv6 or not as `v6` says; `answer` makes the response to one, and says whether there is one; sends them.
///
/// # Errors
/// `WouldBlock`: nothing has come. Others are of an earlier answer, and the next call is unaffected.
pub(super) fn turn(
    socket: &UdpSocket,
    v6: bool,
    mut answer: impl FnMut(&[u8], SocketAddr, &mut Vec<u8>) -> bool,
) -> io::Result<Turn> {
    BUFFERS.with_borrow_mut(|b| {
        let Buffers { headers, requests, received, responses, peers } = b;
        receive(socket, &mut headers[usize::from(v6)], requests, received)?;
        let mut count = 0;
        peers.clear();
        for ((length, peer), request) in received.iter().zip(&*requests) {
            let (Some(peer), Some(response)) = (peer, responses.get_mut(count)) else { continue };
            if answer(&request[..*length], *peer, response) {
                peers.push((*peer).into());
                count += 1;
            }
        }
        let mut turn = Turn { received: received.len(), unsent: Vec::new(), failed: 0 };
        send(socket, &responses[..count], peers, &mut turn);
        Ok(turn)
    })
}

fn receive(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrStorage>,
    requests: &mut [Vec<u8>],
    received: &mut Vec<(usize, Option<SocketAddr>)>,
) -> io::Result<()> {
    received.clear();
    let mut free = requests.iter_mut();
    let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
        std::array::from_fn(|_| [IoSliceMut::new(free.next().map_or(&mut [], |r| &mut r[..]))]);
    let got = recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
    received.extend(got.map(|m| (m.bytes, m.address.as_ref().and_then(address))));
    Ok(())
}

fn send(socket: &UdpSocket, responses: &[Vec<u8>], peers: &[SockAddr], turn: &mut Turn) {
    let mut done = 0;
    while done < responses.len() {
        let (responses, peers) = (&responses[done..], &peers[done..]);
        match sendmmsg(socket, responses, peers) {
            // The first that is left has its own reason, which the next call tells.
            Ok(sent) => done += sent.max(1),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let left = responses.iter().zip(peers);
                turn.unsent.extend(left.filter_map(|(r, p)| Some((r.clone(), p.as_socket()?))));
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "UDP send");
                turn.failed += 1;
                done += 1;
            }
        }
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|a| SocketAddr::V4(SocketAddrV4::new(a.ip(), a.port())));
    v4.or_else(|| {
        let a = storage.as_sockaddr_in6()?;
        Some(SocketAddrV6::new(a.ip(), a.port(), a.flowinfo(), a.scope_id()).into())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_gets_its_own_answer() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(any).await.unwrap();
            let to = server.local_addr().unwrap();
            let mut clients = Vec::new();
            for i in 0..40u8 {
                let client = UdpSocket::bind(any).await.unwrap();
                client.connect(to).await.unwrap();
                // Of different lengths, so that a mix-up shows.
                client.send(&vec![i; usize::from(i) + 1]).await.unwrap();
                clients.push(client);
            }
            let mut turns = Vec::new();
            while turns.iter().sum::<usize>() < 40 {
                server.readable().await.unwrap();
                let done = server.try_io(tokio::io::Interest::READABLE, || {
                    turn(&server, to.is_ipv6(), |request, _, out| {
                        out.clear();
                        out.extend_from_slice(request);
                        // Every fourth one is met with silence.
                        request[0] % 4 != 3
                    })
                });
                match done {
                    Ok(t) => {
                        assert!(t.unsent.is_empty() && t.failed == 0);
                        turns.push(t.received);
                    }
                    Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
                }
            }
            assert!(turns.len() < 10, "several at once: {turns:?}");
            for (i, client) in clients.iter().enumerate() {
                let mut buf = [0; 512];
                let got = tokio::time::timeout(Duration::from_millis(50), client.recv(&mut buf)).await;
                match i % 4 {
                    3 => assert!(got.is_err(), "{i}"),
                    _ => assert_eq!(&buf[..got.unwrap().unwrap()], vec![i as u8; i + 1]),
                }
            }
        }
    }
}
