//! A DNS client that sends any bytes, and answers in a form in which two of them can be compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Questions on their way at once.
const WINDOW: usize = 24;
/// After so long a question is sent again.
const AGAIN: Duration = Duration::from_secs(2);
const TRIES: u32 = 5;

/// A plain question, RD set, id 0.
///
/// # Panics
/// `name` is no DNS name.
pub fn query(name: &str, qtype: u16) -> Vec<u8> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::from(qtype)));
    message.to_vec().expect("a message")
}

/// Sends each request by UDP with an id of its own; gives the answers in the same order. An empty one: none came.
///
/// # Errors
/// Of the socket.
pub fn ask_all(server: SocketAddr, requests: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut answers = vec![Vec::new(); requests.len()];
    let mut next = 0;
    // Id, and which request it is; oldest first.
    let mut waiting: VecDeque<(u16, usize, Instant, u32)> = VecDeque::new();
    let mut id = 0u16;
    let mut buffer = [0; 65_535];
    let send = |i: usize, id: &mut u16| -> Result<u16> {
        *id = id.wrapping_add(1);
        let mut bytes = requests[i].clone();
        ensure!(bytes.len() >= 2, "request {i} has no id");
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        match socket.send(&bytes) {
            // What an earlier datagram met; this one may fare better.
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
            sent => drop(sent.context("send")?),
        }
        Ok(*id)
    };
    while next < requests.len() || !waiting.is_empty() {
        while next < requests.len() && waiting.len() < WINDOW {
            let sent = send(next, &mut id)?;
            waiting.push_back((sent, next, Instant::now(), 1));
            next += 1;
        }
        match socket.recv(&mut buffer) {
            Ok(n) if n >= 2 => {
                let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                if let Some(at) = waiting.iter().position(|w| w.0 == id)
                    && let Some((_, i, ..)) = waiting.remove(at)
                {
                    answers[i] = buffer[..n].to_vec();
                }
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => std::thread::sleep(AGAIN / 20),
            Err(e) => return Err(e.into()),
        }
        while waiting.front().is_some_and(|w| w.2.elapsed() > AGAIN) {
            let Some((_, i, _, tries)) = waiting.pop_front() else { break };
            if tries < TRIES {
                let sent = send(i, &mut id)?;
                waiting.push_back((sent, i, Instant::now(), tries + 1));
            }
        }
    }
    Ok(answers)
}

/// Asks one question over a TCP connection of its own.
///
/// # Errors
/// No connection, or no answer within [`crate::PATIENCE`].
pub fn ask_tcp(server: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    use std::io::{Read, Write};
    let mut stream = crate::connect(server, 0)?;
    stream.write_all(&[&(request.len() as u16).to_be_bytes()[..], request].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// An answer as sets: the same for two servers that say the same in another order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub rcode: String,
    /// By the names that dig has for them.
    pub flags: BTreeSet<&'static str>,
    /// `NAME TTL TYPE DATA`, lower case; serials of SOA left out.
    pub answer: BTreeSet<String>,
    pub authority: BTreeSet<String>,
    pub additional: BTreeSet<String>,
    /// Version, DO, and the codes of options.
    pub edns: Option<String>,
    /// The question came back to the letter.
    pub question: bool,
}

/// Names of the parts of [`Seen`] in which two differ.
pub const PARTS: [&str; 13] = [
    "rcode",
    "answer",
    "authority",
    "additional",
    "edns",
    "question",
    "qr",
    "aa",
    "tc",
    "rd",
    "ra",
    "ad",
    "cd",
];

impl Seen {
    /// Reads an answer to `request`; no bytes are silence.
    ///
    /// # Errors
    /// It is no DNS message.
    pub fn read(request: &[u8], bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self { rcode: "SILENCE".into(), ..Self::default() });
        }
        let message = Message::from_vec(bytes).with_context(|| format!("{bytes:02x?}"))?;
        let meta = &message.metadata;
        let flags = [
            ("qr", meta.message_type == MessageType::Response),
            ("aa", meta.authoritative),
            ("tc", meta.truncation),
            ("rd", meta.recursion_desired),
            ("ra", meta.recursion_available),
            ("ad", meta.authentic_data),
            ("cd", meta.checking_disabled),
        ];
        let set = |records: &[Record]| records.iter().map(line).collect::<BTreeSet<_>>();
        let edns = message.edns.as_ref().map(|e| {
            let mut options: Vec<u16> =
                e.options().as_ref().iter().map(|(code, _)| u16::from(*code)).collect();
            options.sort_unstable();
            format!("version {} do {} options {options:?}", e.version(), e.flags().dnssec_ok)
        });
        let end = question_end(request).unwrap_or(12);
        Ok(Self {
            rcode: rcode(u16::from(meta.response_code)),
            flags: flags.into_iter().filter(|f| f.1).map(|f| f.0).collect(),
            answer: set(&message.answers),
            authority: set(&message.authorities),
            additional: set(&message.additionals),
            edns,
            question: request.get(12..end) == bytes.get(12..end),
        })
    }

    /// Records of all sections.
    pub fn records(&self) -> impl Iterator<Item = &String> {
        self.answer.iter().chain(&self.authority).chain(&self.additional)
    }

    /// The parts in which it is not as the other one. Of a cut answer only code and flags count: how much is left in
    /// it is the server's choice.
    pub fn differs(&self, other: &Self) -> Vec<&'static str> {
        let cut = self.flags.contains("tc") && other.flags.contains("tc");
        let same = |part: &str| match part {
            "rcode" => self.rcode == other.rcode,
            "answer" => cut || self.answer == other.answer,
            "authority" => cut || self.authority == other.authority,
            "additional" => cut || self.additional == other.additional,
            "edns" => self.edns == other.edns,
            "question" => self.question == other.question,
            flag => self.flags.contains(flag) == other.flags.contains(flag),
        };
        PARTS.into_iter().filter(|part| !same(part)).collect()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags: Vec<_> = self.flags.iter().copied().collect();
        write!(f, "{} {}", self.rcode, flags.join(" "))?;
        for (section, records) in [("AN", &self.answer), ("NS", &self.authority), ("AR", &self.additional)] {
            for record in records {
                write!(f, "\n      {section} {record}")?;
            }
        }
        match &self.edns {
            Some(edns) => write!(f, "\n      EDNS {edns}"),
            None => Ok(()),
        }
    }
}

fn question_end(request: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match *request.get(at)? {
            0 => return Some(at + 5),
            n if n < 64 => at += 1 + usize::from(n),
            _ => return None,
        }
    }
}

fn rcode(code: u16) -> String {
    let known: BTreeMap<u16, &str> = [
        (0, "NOERROR"),
        (1, "FORMERR"),
        (2, "SERVFAIL"),
        (3, "NXDOMAIN"),
        (4, "NOTIMP"),
        (5, "REFUSED"),
        (16, "BADVERS"),
    ]
    .into();
    known.get(&code).map_or_else(|| code.to_string(), |k| (*k).to_owned())
}

fn line(record: &Record) -> String {
    let data = match &record.data {
        // The serial is a time.
        RData::SOA(soa) => format!(
            "{} {} SERIAL {} {} {} {}",
            soa.mname, soa.rname, soa.refresh, soa.retry, soa.expire, soa.minimum
        ),
        data => data.to_string(),
    };
    format!("{} {} {} {data}", record.name, record.ttl, record.record_type()).to_lowercase()
}
