//! Connections a second from one thread: connect, one line there and back, close.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::SockRef;

/// Opens connections one after the other for `time`; gives back how many it made a second. The close is a reset: with
/// an ordinary one the ports in TIME_WAIT, not the path, would be the limit.
pub fn open(to: SocketAddr, time: Duration) -> Result<f64> {
    let start = Instant::now();
    let mut count = 0u64;
    let mut back = [0; 5];
    while start.elapsed() < time {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))
            .with_context(|| format!("connection {count} to {to}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"echo\n")?;
        stream.read_exact(&mut back).with_context(|| format!("echo of connection {count}"))?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
