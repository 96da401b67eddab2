//! What a client sees: the part that runs where the client is. `eastwest-probe` takes a [`Probe`] as JSON in its one argument and
//! prints what it [`Seen`].

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::Protocol;

/// What to ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    pub to: SocketAddr,
    pub protocol: Protocol,
    /// Asks at least so often, each time from a socket of its own…
    pub least: u32,
    /// … and goes on until so many pods have answered, or one question was not answered; 0: none need to…
    pub pods: usize,
    /// … but not more often than this.
    pub most: u32,
    /// How long to wait for an answer, milliseconds.
    pub patience: u64,
}

/// How one question ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// By a pod, which saw this client.
    Answered {
        pod: String,
        remote: IpAddr,
    },
    Refused,
    /// Nothing within the time.
    Silent,
    /// Anything else, as the system calls it.
    Failed(String),
}

/// What serves in a pod says this, among other things.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pod: String,
    remote: SocketAddr,
}

/// Asks, one after the other.
pub fn run(probe: &Probe) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut pods = BTreeSet::new();
    while (seen.len() as u32) < probe.most && ((seen.len() as u32) < probe.least || pods.len() < probe.pods) {
        let one = match ask(probe) {
            Ok(answer) => Seen::Answered { pod: answer.pod, remote: answer.remote.ip().to_canonical() },
            Err(e) => match e.kind() {
                ErrorKind::ConnectionRefused => Seen::Refused,
                // A receive that waits for its time ends with WouldBlock.
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Seen::Silent,
                _ => Seen::Failed(e.to_string()),
            },
        };
        if let Seen::Answered { pod, .. } = &one {
            pods.insert(pod.clone());
        }
        let answered = matches!(one, Seen::Answered { .. });
        seen.push(one);
        if !answered && probe.pods > 0 {
            break;
        }
    }
    seen
}

pub(crate) fn ask(probe: &Probe) -> io::Result<Answer> {
    let patience = Duration::from_millis(probe.patience);
    let text = match probe.protocol {
        Protocol::TCP => {
            let socket = Socket::new(Domain::for_address(probe.to), Type::STREAM, None)?;
            socket.connect_timeout(&probe.to.into(), patience)?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
        }
        Protocol::UDP => {
            let any = if probe.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(patience))?;
            socket.connect(probe.to)?;
            socket.send(b"?")?;
            let mut buffer = [0; 2048];
            let n = socket.recv(&mut buffer)?;
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        }
    };
    serde_json::from_str(&text).map_err(|e| io::Error::new(ErrorKind::InvalidData, format!("{text:?}: {e}")))
}
