//! Packets from words and back, by plain arithmetic of their own: nothing here shares code with what is under test.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A TCP or UDP packet in words: `tcp 10.0.0.1:40000 > 10.96.0.1:80 S`, then any of
/// `len=N` (payload bytes), `seq=N`, `ack=N`, `options=N` (bytes of IPv4 options), `ttl=N`, `nosum` (UDP without
/// checksum), `partial` (only the pseudo header is summed), `fragment` (first of several).
/// TCP flags: `S`yn, `F`in, `R`st, `P`ush, `.` for ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub tcp: bool,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flags: u8,
    pub payload: Vec<u8>,
    pub seq: u32,
    pub ack: u32,
    pub options: usize,
    pub ttl: u8,
    pub nosum: bool,
    pub partial: bool,
    pub fragment: bool,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let mut next = |what: &str| words.next().ok_or(format!("no {what} in {text:?}"));
        let tcp = match next("protocol")? {
            "tcp" => true,
            "udp" => false,
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
            tcp,
            from,
            to,
            flags: 0,
            payload: Vec::new(),
            seq: 0x1234_5678,
            ack: 0,
            options: 0,
            ttl: 64,
            nosum: false,
            partial: false,
            fragment: false,
        };
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || value.parse::<u32>().map_err(|error| format!("{word:?}: {error}"));
            match name {
                "len" => spec.payload = (0..number()?).map(|i| (i * 7 + 3) as u8).collect(),
                "seq" => spec.seq = number()?,
                "ack" => spec.ack = number()?,
                "options" => spec.options = number()? as usize,
                "ttl" => spec.ttl = number()? as u8,
                "nosum" => spec.nosum = true,
                "partial" => spec.partial = true,
                "fragment" => spec.fragment = true,
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
        write!(f, "{} {} > {}", if self.tcp { "tcp" } else { "udp" }, self.from, self.to)?;
        if self.tcp {
            write!(f, " ")?;
            for (bit, name) in [(0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x10, ".")] {
                if self.flags & bit != 0 {
                    write!(f, "{name}")?;
                }
            }
        }
        Ok(())
    }
}

/// Link addresses of the packets made here: destination, source.
pub const LINK: [u8; 12] = [0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa];

impl Spec {
    /// The packet.
    pub fn bytes(&self) -> Vec<u8> {
        let mut l4 = Vec::new();
        l4.extend(self.from.port().to_be_bytes());
        l4.extend(self.to.port().to_be_bytes());
        if self.tcp {
            l4.extend(self.seq.to_be_bytes());
            l4.extend(self.ack.to_be_bytes());
            l4.extend([0x50, self.flags, 0x20, 0, 0, 0, 0, 0]);
        } else {
            l4.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            l4.extend([0, 0]);
        }
        l4.extend(&self.payload);
        let protocol = if self.tcp { 6 } else { 17 };
        let at = if self.tcp { 16 } else { 6 };
        let pseudo = pseudo(self.from.ip(), self.to.ip(), protocol, l4.len());
        let field = if self.nosum {
            0
        } else if self.partial {
            fold(&[&pseudo])
        } else {
            match !fold(&[&pseudo, &l4]) {
                0 if !self.tcp => 0xffff,
                sum => sum,
            }
        };
        l4[at..at + 2].copy_from_slice(&field.to_be_bytes());

        let mut packet = LINK.to_vec();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                packet.extend([0x08, 0x00]);
                let words = 5 + self.options / 4;
                let mut ip = vec![0x40 | words as u8, 0];
                ip.extend(((words * 4 + l4.len()) as u16).to_be_bytes());
                ip.extend([0xab, 0xcd, if self.fragment { 0x20 } else { 0x40 }, 0, self.ttl, protocol, 0, 0]);
                ip.extend(from.octets());
                ip.extend(to.octets());
                ip.resize(words * 4, 1);
                let sum = !fold(&[&ip]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                packet.extend(ip);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                packet.extend((l4.len() as u16).to_be_bytes());
                packet.extend([if self.fragment { 44 } else { protocol }, self.ttl]);
                packet.extend(from.octets());
                packet.extend(to.octets());
            }
            _ => {}
        }
        packet.extend(l4);
        packet
    }
}

/// Whether the packet is what the words say, with right lengths and checksums, `ttl` given by the words. The link
/// addresses are not looked at. Source port 0 in the words stands for any.
///
/// # Errors
/// What is different.
pub fn check(bytes: &[u8], wanted: &Spec) -> Result<(), String> {
    let mut wanted = wanted.clone();
    let at = 14 + if wanted.from.is_ipv4() { 20 + wanted.options } else { 40 };
    if wanted.from.port() == 0 {
        let port = bytes.get(at..at + 2).ok_or("too short")?;
        wanted.from.set_port(u16::from_be_bytes([port[0], port[1]]));
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
    let asked = spec.bytes();
    if spec.tcp {
        let acked = spec.flags & 0x10 != 0;
        let length =
            spec.payload.len() as u32 + u32::from(spec.flags & 2 != 0) + u32::from(spec.flags & 1 != 0);
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
            finish4(&mut bytes, spec.options);
        }
        turn(&mut bytes);
        return bytes;
    }
    let quoted = &asked[14..14 + if spec.from.is_ipv4() { 20 + spec.options + 8 } else { 48 }];
    let mut icmp = if spec.from.is_ipv4() { vec![3, 3] } else { vec![1, 4] };
    icmp.extend([0; 6]);
    icmp.extend(quoted);
    let mut bytes = LINK.to_vec();
    match (spec.from.ip(), spec.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let sum = !fold(&[&icmp]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            bytes.extend([0x08, 0x00, 0x45, 0]);
            bytes.extend(((20 + icmp.len()) as u16).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, 1, 0, 0]);
            bytes.extend(to.octets());
            bytes.extend(from.octets());
            finish4(&mut bytes, 0);
        }
        (from, to) => {
            let sum = !fold(&[&pseudo(to, from, 58, icmp.len()), &icmp]);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((icmp.len() as u16).to_be_bytes());
            bytes.extend([58, 64]);
            bytes.extend(octets(to));
            bytes.extend(octets(from));
        }
    }
    bytes.extend(icmp);
    turn(&mut bytes);
    bytes
}

fn finish4(bytes: &mut [u8], options: usize) {
    bytes[18..20].fill(0);
    bytes[24..26].fill(0);
    bytes[34..34 + options].fill(0);
    let sum = !fold(&[&bytes[14..34 + options]]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
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

/// RFC 1071 as written there: 16 bits at a time, in network order. Only the last part may be of odd length.
fn fold(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.concat().chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
