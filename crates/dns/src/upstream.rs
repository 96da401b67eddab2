//! One question to one upstream: UDP from a socket of its own, TCP when the answer was cut.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::cache::{CacheLimits, Question, Reply};
use crate::metrics::Metrics;
use crate::wire::{CLASS_IN, rtype};

/// What our OPT offers upstreams: no fragment on any usual path (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
/// Datagrams that answer something else before UDP is given up for TCP, which a blind forger cannot enter.
const MISMATCHES_MAX: usize = 16;

/// The query as it is sent, with `id` first.
fn encode(question: &Question, id: u16, edns: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(question.name.len() + 29);
    bytes.extend_from_slice(&id.to_be_bytes());
    // RD; CD as the asker has it.
    bytes.extend_from_slice(&[1, if question.checking_disabled { 0x10 } else { 0 }]);
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    bytes.extend_from_slice(&question.name);
    bytes.extend_from_slice(&question.qtype.to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    if edns {
        bytes.extend_from_slice(&[0, 0, rtype::OPT as u8]);
        bytes.extend_from_slice(&PAYLOAD.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, if question.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
    bytes
}

/// Asks `to` and waits up to `timeout` over all. The kernel picks the source port at random and takes datagrams from
/// `to` alone; id and question are checked here.
pub(crate) async fn ask(
    to: SocketAddr,
    question: &Question,
    timeout: Duration,
    limits: CacheLimits,
    metrics: &Metrics,
) -> io::Result<Reply> {
    let exchange = async {
        let reply = match udp(to, question, true, limits, metrics).await? {
            // A server from before EDNS says FORMERR to it (RFC 6891 §7).
            Some(reply) if reply.rcode == crate::wire::rcode::FORMERR => {
                udp(to, question, false, limits, metrics).await?
            }
            reply => reply,
        };
        match reply {
            Some(reply) if !reply.truncated => Ok(reply),
            _ => tcp(to, question, limits).await,
        }
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// `None`: nothing but strangers' answers.
async fn udp(
    to: SocketAddr,
    question: &Question,
    edns: bool,
    limits: CacheLimits,
    metrics: &Metrics,
) -> io::Result<Option<Reply>> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    let id = rand::random::<u16>();
    socket.send(&encode(question, id, edns)).await?;
    let mut buf = vec![0; 4096];
    for _ in 0..MISMATCHES_MAX {
        let n = socket.recv(&mut buf).await?;
        if let Some(reply) = Reply::parse(buf[..n].to_vec(), id, question, limits) {
            return Ok(Some(reply));
        }
        metrics.mismatch(to);
    }
    Ok(None)
}

async fn tcp(to: SocketAddr, question: &Question, limits: CacheLimits) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(to).await?;
    let id = rand::random::<u16>();
    let query = encode(question, id, true);
    let mut message = (query.len() as u16).to_be_bytes().to_vec();
    message.extend_from_slice(&query);
    stream.write_all(&message).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Reply::parse(bytes, id, question, limits)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not to the question"))
}
