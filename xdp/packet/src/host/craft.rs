//! Packets from words and back, by plain arithmetic of their own: nothing here shares code with what is under test.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    Tcp,
    Udp,
    /// With one chunk: INIT (`S`), INIT ACK (`S.`), ABORT (`R`), SHUTDOWN ACK (`F`), SACK (`.`), DATA.
    Sctp,
    /// An echo request; ports mean nothing.
    Ping,
    /// Its reply.
    Pong,
}

/// An ICMP error about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Type and code in IPv4, type and code in IPv6, last word of the header.
    pub message: ([u8; 2], [u8; 2], u32),
    /// Who sends it.
    pub by: IpAddr,
    /// Its own time to live.
    pub ttl: u8,
    /// Bytes of the transport header and payload that are quoted.
    pub quote: usize,
}

/// A packet in words: `tcp 10.0.0.1:40000 > 10.96.0.1:80 S`, or `udp`, `sctp`, `ping`, `pong`; then any of
/// `len=N` (payload bytes), `seq=N`, `ack=N`, `options=N` (bytes of IPv4 options), `extensions=hrd` (IPv6 hop-by-hop, routing
/// and destination options), `ttl=N`, `nosum` (UDP without checksum), `partial` (only the pseudo header is summed),
/// `cut=N..M` (the fragment with these bytes of the transport header and payload).
/// TCP flags: `S`yn, `F`in, `R`st, `P`ush, `.` for ack.
/// `error=port|expired|mtu by=ADDRESS` is an ICMP error about that packet, to its sender; `quote=N`: with so many bytes from
/// its transport header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub carries: Carries,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flags: u8,
    pub payload: Vec<u8>,
    pub seq: u32,
    pub ack: u32,
    pub options: usize,
    pub extensions: String,
    pub ttl: u8,
    pub nosum: bool,
    pub partial: bool,
    pub cut: Option<(usize, usize)>,
    pub error: Option<Complaint>,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let mut next = |what: &str| words.next().ok_or(format!("no {what} in {text:?}"));
        let carries = match next("protocol")? {
            "tcp" => Carries::Tcp,
            "udp" => Carries::Udp,
            "sctp" => Carries::Sctp,
            "ping" => Carries::Ping,
            "pong" => Carries::Pong,
            other => return Err(format!("no protocol {other:?}")),
        };
        let address =
            |word: &str| word.parse::<SocketAddr>().map_err(|error| format!("{word:?} in {text:?}: {error}"));
        let from = address(next("source")?)?;
        if next(">")? != ">" {
            return Err(format!("no > in {text:?}"));
        }
        let to = address(next("destination")?)?;
        let mut spec = Self {
            carries,
            from,
            to,
            flags: 0,
            payload: Vec::new(),
            seq: 0x1234_5678,
            ack: 0,
            options: 0,
            extensions: String::new(),
            ttl: 64,
            nosum: false,
            partial: false,
            cut: None,
            error: None,
        };
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let parse = |value: &str| value.parse::<u32>().map_err(|error| format!("{word:?}: {error}"));
            let number = || parse(value);
            let complaint =
                |spec: &mut Self| spec.error.ok_or(format!("{word:?} without an error in {text:?}"));
            match name {
                "len" => spec.payload = (0..number()?).map(|i| (i * 7 + 3) as u8).collect(),
                "seq" => spec.seq = number()?,
                "ack" => spec.ack = number()?,
                "options" => spec.options = number()? as usize,
                "extensions" => spec.extensions = value.to_owned(),
                "ttl" => spec.ttl = number()? as u8,
                "nosum" => spec.nosum = true,
                "partial" => spec.partial = true,
                "cut" => {
                    let (start, end) = value.split_once("..").ok_or(format!("{word:?}"))?;
                    spec.cut = Some((parse(start)? as usize, parse(end)? as usize));
                }
                "error" => {
                    let message = match value {
                        "port" => ([3, 3], [1, 4], 0),
                        "expired" => ([11, 0], [3, 0], 0),
                        "mtu" => ([3, 4], [2, 0], 1400),
                        _ => return Err(format!("{word:?} in {text:?}?")),
                    };
                    spec.error = Some(Complaint { message, by: to.ip(), ttl: 64, quote: 548 });
                }
                "by" => {
                    let by = value.parse().map_err(|error| format!("{word:?}: {error}"))?;
                    spec.error = Some(Complaint { by, ..complaint(&mut spec)? });
                }
                "quote" => {
                    let quote = number()? as usize;
                    spec.error = Some(Complaint { quote, ..complaint(&mut spec)? });
                }
                flags => {
                    for flag in flags.chars() {
                        spec.flags |= match flag {
                            'S' => 0x02,
                            'F' => 0x01,
                            'R' => 0x04,
                            'P' => 0x08,
                            '.' => 0x10,
                            _ => return Err(format!("{word:?} in {text:?}?")),
                        };
                    }
                }
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.carries {
            Carries::Tcp => "tcp",
            Carries::Udp => "udp",
            Carries::Sctp => "sctp",
            Carries::Ping => "ping",
            Carries::Pong => "pong",
        };
        write!(f, "{name} {} > {}", self.from, self.to)?;
        if matches!(self.carries, Carries::Tcp | Carries::Sctp) {
            write!(f, " ")?;
            for (bit, name) in [(0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x10, ".")] {
                if self.flags & bit != 0 {
                    write!(f, "{name}")?;
                }
            }
        }
        if let Some((start, end)) = self.cut {
            write!(f, " cut={start}..{end}")?;
        }
        if let Some(error) = self.error {
            write!(f, " error={:?} by={}", error.message.0, error.by)?;
        }
        Ok(())
    }
}

/// Link addresses of the packets made here: destination, source.
pub const LINK: [u8; 12] = [0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa];

/// Identification of fragments, and of all IPv4 packets that are no ICMP errors.
const ID: [u8; 2] = [0xab, 0xcd];

impl Spec {
    /// The packet.
    pub fn bytes(&self) -> Vec<u8> {
        let packet = self.packet();
        let bytes = match self.error {
            None => packet,
            Some(error) => {
                let quoted = packet.len().min(self.header() + error.quote);
                complain(
                    &error,
                    self.from.ip(),
                    &packet[..quoted],
                    self.is_completed().then(|| self.checksum()),
                )
            }
        };
        let mut frame = LINK.to_vec();
        frame.extend(if self.from.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(bytes);
        frame
    }

    /// The source port of a packet that is like this one.
    pub fn source_port(&self, bytes: &[u8]) -> Option<u16> {
        let at = 14 + self.header();
        bytes.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]))
    }

    /// Length of the network header with all that belongs to it.
    fn header(&self) -> usize {
        if self.from.is_ipv4() {
            return 20 + self.options;
        }
        let fragment = if self.cut.is_some() { 8 } else { 0 };
        40 + fragment + self.extensions.chars().map(|kind| extension(kind, 0).1.len()).sum::<usize>()
    }

    /// Whether a device is to complete a checksum of 16 bits.
    fn is_completed(&self) -> bool {
        self.partial && self.carries != Carries::Sctp
    }

    /// Where the transport header begins in the packet, and where its checksum lies.
    fn checksum(&self) -> (usize, usize) {
        let l4 = self.header();
        (l4, l4 + if self.carries == Carries::Tcp { 16 } else { 6 })
    }

    fn protocol(&self) -> u8 {
        match self.carries {
            Carries::Tcp => 6,
            Carries::Udp => 17,
            Carries::Sctp => 132,
            Carries::Ping | Carries::Pong if self.from.is_ipv4() => 1,
            Carries::Ping | Carries::Pong => 58,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut l4 = Vec::new();
        let protocol = self.protocol();
        if matches!(self.carries, Carries::Ping | Carries::Pong) {
            let kind = match (self.carries, self.from.is_ipv4()) {
                (Carries::Ping, true) => 8,
                (_, true) => 0,
                (Carries::Ping, false) => 128,
                (_, false) => 129,
            };
            l4.extend([kind, 0, 0, 0, 0x77, 0x77, 0, 1]);
            l4.extend(&self.payload);
            let pseudo = pseudo(self.from.ip(), self.to.ip(), protocol, l4.len());
            let sum = if self.from.is_ipv4() { !fold(&[&l4]) } else { !fold(&[&pseudo, &l4]) };
            l4[2..4].copy_from_slice(&sum.to_be_bytes());
            return l4;
        }
        l4.extend(self.from.port().to_be_bytes());
        l4.extend(self.to.port().to_be_bytes());
        if self.carries == Carries::Sctp {
            let chunk = match self.flags {
                0x02 => 1,
                0x12 => 2,
                0x10 => 3,
                0x04 => 6,
                0x01 => 8,
                _ => 0,
            };
            l4.extend(self.seq.to_be_bytes());
            l4.extend([0; 4]);
            l4.extend([chunk, 0]);
            l4.extend(((4 + self.payload.len()) as u16).to_be_bytes());
            l4.extend(&self.payload);
            if !self.partial {
                let sum = crc32c(&l4);
                l4[8..12].copy_from_slice(&sum.to_le_bytes());
            }
            return l4;
        }
        let tcp = self.carries == Carries::Tcp;
        if tcp {
            l4.extend(self.seq.to_be_bytes());
            l4.extend(self.ack.to_be_bytes());
            l4.extend([0x50, self.flags, 0x20, 0, 0, 0, 0, 0]);
        } else {
            l4.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            l4.extend([0, 0]);
        }
        l4.extend(&self.payload);
        let at = if tcp { 16 } else { 6 };
        let pseudo = pseudo(self.from.ip(), self.to.ip(), protocol, l4.len());
        let field = if self.nosum {
            0
        } else if self.partial {
            fold(&[&pseudo])
        } else {
            match !fold(&[&pseudo, &l4]) {
                0 if !tcp => 0xffff,
                sum => sum,
            }
        };
        l4[at..at + 2].copy_from_slice(&field.to_be_bytes());
        l4
    }

    /// Without an Ethernet header, and without the error about it.
    fn packet(&self) -> Vec<u8> {
        let l4 = self.transport();
        let (start, end) = self.cut.unwrap_or((0, l4.len()));
        let more = end < l4.len();
        let part = &l4[start..end];
        let protocol = self.protocol();
        let mut packet = Vec::new();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let words = 5 + self.options / 4;
                packet.extend([0x40 | words as u8, 0]);
                packet.extend(((words * 4 + part.len()) as u16).to_be_bytes());
                packet.extend(ID);
                let flags = if more { 0x2000 } else { 0 } | if self.cut.is_none() { 0x4000 } else { 0 };
                packet.extend((flags | (start / 8) as u16).to_be_bytes());
                packet.extend([self.ttl, protocol, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.resize(words * 4, 1);
                let sum = !fold(&[&packet]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (from, to) => {
                let mut next = protocol;
                let mut headers = Vec::new();
                if self.cut.is_some() {
                    let mut header = vec![next, 0];
                    header.extend((start as u16 | u16::from(more)).to_be_bytes());
                    header.extend([0, 0]);
                    header.extend(ID);
                    headers.splice(0..0, header);
                    next = 44;
                }
                for kind in self.extensions.chars().rev() {
                    let (this, header) = extension(kind, next);
                    headers.splice(0..0, header);
                    next = this;
                }
                packet.extend([0x60, 0, 0, 0]);
                packet.extend(((headers.len() + part.len()) as u16).to_be_bytes());
                packet.extend([next, self.ttl]);
                packet.extend(octets(from));
                packet.extend(octets(to));
                packet.extend(headers);
            }
        }
        packet.extend(part);
        packet
    }
}

/// An IPv6 extension header and its number.
fn extension(kind: char, next: u8) -> (u8, Vec<u8>) {
    match kind {
        'h' => (0, vec![next, 0, 1, 4, 0, 0, 0, 0]),
        // A routing header that is at its end.
        'r' => (43, vec![next, 0, 4, 0, 0, 0, 0, 0]),
        _ => (60, vec![next, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    }
}

/// An ICMP error to `to` about a packet. The sum of one whose own checksum is `partial` is right once that is completed.
fn complain(error: &Complaint, to: IpAddr, quoted: &[u8], partial: Option<(usize, usize)>) -> Vec<u8> {
    let (four, six, rest) = error.message;
    let mut icmp = if to.is_ipv4() { four.to_vec() } else { six.to_vec() };
    icmp.extend([0; 2]);
    icmp.extend(rest.to_be_bytes());
    icmp.extend(quoted);
    let mut summed = icmp.clone();
    if let Some((l4, at)) = partial {
        let completed = !fold(&[&icmp[8 + l4..]]);
        summed[8 + at..10 + at].copy_from_slice(&completed.to_be_bytes());
    }
    let mut bytes = Vec::new();
    match (error.by, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let sum = !fold(&[&summed]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            bytes.extend([0x45, 0]);
            bytes.extend(((20 + icmp.len()) as u16).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, error.ttl, 1, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            let sum = !fold(&[&bytes]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (from, to) => {
            let sum = !fold(&[&pseudo(from, to, 58, icmp.len()), &summed]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((icmp.len() as u16).to_be_bytes());
            bytes.extend([58, error.ttl]);
            bytes.extend(octets(from));
            bytes.extend(octets(to));
        }
    }
    bytes.extend(icmp);
    bytes
}

/// Whether the packet is what the words say, with right lengths and checksums, `ttl` given by the words. The link
/// addresses are not looked at. Source port 0 in the words stands for any.
///
/// # Errors
/// What is different.
pub fn check(bytes: &[u8], wanted: &Spec) -> Result<(), String> {
    let mut wanted = wanted.clone();
    if wanted.from.port() == 0 {
        wanted.from.set_port(wanted.source_port(bytes).ok_or("too short")?);
    }
    let made = wanted.bytes();
    if bytes.len() != made.len() {
        return Err(format!("{} bytes, not {} of {wanted}", bytes.len(), made.len()));
    }
    let mut different = Vec::new();
    for (i, (is, want)) in bytes.iter().zip(&made).enumerate().skip(12) {
        if is != want {
            different.push(format!("byte {i} is {is:#04x}, not {want:#04x}"));
        }
    }
    if different.is_empty() { Ok(()) } else { Err(format!("not {wanted}: {}", different.join(", "))) }
}

/// The refusal that a packet must get: RST (RFC 9293, 3.10.7.1), or ICMP port unreachable.
pub fn reply_to(spec: &Spec) -> Vec<u8> {
    if spec.carries != Carries::Tcp {
        let message = ([3, 3], [1, 4], 0);
        let error = Complaint {
            message,
            by: spec.to.ip(),
            ttl: 64,
            quote: if spec.carries == Carries::Sctp { 20 } else { 8 },
        };
        let mut bytes = Spec { error: Some(error), ..spec.clone() }.bytes();
        turn(&mut bytes);
        return bytes;
    }
    let acked = spec.flags & 0x10 != 0;
    let length = spec.payload.len() as u32 + u32::from(spec.flags & 2 != 0) + u32::from(spec.flags & 1 != 0);
    let answer = Spec {
        from: spec.to,
        to: spec.from,
        flags: if acked { 0x04 } else { 0x14 },
        payload: Vec::new(),
        seq: if acked { spec.ack } else { 0 },
        ack: if acked { 0 } else { spec.seq.wrapping_add(length) },
        ttl: 64,
        ..spec.clone()
    };
    let mut bytes = answer.bytes();
    let l4 = bytes.len() - 20;
    // No window, no identification, and padding where the options were.
    bytes[l4 + 14..l4 + 16].fill(0);
    bytes[l4 + 16..l4 + 18].fill(0);
    let pseudo = pseudo(answer.from.ip(), answer.to.ip(), 6, 20);
    let sum = if spec.partial { fold(&[&pseudo]) } else { !fold(&[&pseudo, &bytes[l4..]]) };
    bytes[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());
    if spec.from.is_ipv4() {
        bytes[18..20].fill(0);
        bytes[24..26].fill(0);
        bytes[34..l4].fill(0);
        let sum = !fold(&[&bytes[14..l4]]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    } else if l4 > 54 {
        bytes[20] = 60;
        bytes[54..l4].fill(0);
        let (words, padding) = (((l4 - 54) / 8) as u8 - 1, (l4 - 58) as u8);
        bytes[54..58].copy_from_slice(&[6, words, 1, padding]);
    }
    turn(&mut bytes);
    bytes
}

fn turn(bytes: &mut [u8]) {
    bytes[..6].copy_from_slice(&LINK[6..]);
    bytes[6..12].copy_from_slice(&LINK[..6]);
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = octets(from);
    bytes.extend(octets(to));
    bytes.extend([0, protocol]);
    bytes.extend((length as u32).to_be_bytes());
    bytes
}

/// RFC 9260, appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// RFC 1071 as written there: 16 bits at a time, in network order. Only the last part may be of odd length.
fn fold(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
