//! What runs inside a pod: connections a second from one thread (connect, one line there and back, close), the time of
//! an answer, many connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

/// Opens connections one after the other for `time`; gives back how many it made a second. The close is a reset: with
/// an ordinary one the ports in TIME_WAIT, not the path, would be the limit.
pub fn open(to: SocketAddr, time: Duration) -> Result<f64> {
    let start = Instant::now();
    let mut count = 0u64;
    while start.elapsed() < time {
        one(to).with_context(|| format!("connection {count} to {to}"))?;
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn one(to: SocketAddr) -> Result<()> {
    let mut stream = connect(to)?;
    echo(&mut stream)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn echo(stream: &mut TcpStream) -> Result<()> {
    let mut back = [0; 5];
    stream.write_all(b"echo\n")?;
    stream.read_exact(&mut back).context("echo")
}

/// Microseconds of each answer on one connection.
pub fn ask(to: SocketAddr, time: Duration) -> Result<Vec<f64>> {
    let mut stream = connect(to)?;
    let start = Instant::now();
    let mut micros = Vec::new();
    while start.elapsed() < time {
        let asked = Instant::now();
        echo(&mut stream)?;
        micros.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    Ok(micros)
}

/// What became of many connections.
#[derive(Default, Serialize, Deserialize)]
pub struct Many {
    pub failures: u64,
    /// The first ones' reasons.
    pub reasons: Vec<String>,
    /// Of each tenth.
    pub seconds: Vec<f64>,
}

/// Opens `count` connections one after the other; a failure does not end it.
pub fn many(to: SocketAddr, count: u64) -> Many {
    let mut all = Many::default();
    for tenth in 0..10 {
        let start = Instant::now();
        for _ in count * tenth / 10..count * (tenth + 1) / 10 {
            if let Err(error) = one(to) {
                all.failures += 1;
                if all.reasons.len() < 5 {
                    all.reasons.push(format!("{error:#}"));
                }
            }
        }
        all.seconds.push(start.elapsed().as_secs_f64());
    }
    all
}
