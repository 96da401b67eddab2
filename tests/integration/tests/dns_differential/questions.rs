//! Questions that hit, nearly hit and miss the names of a cluster, in every manner that a resolver may have.

use fastrand::Rng;

use super::cluster::Cluster;

const OUTSIDE: [&str; 16] = [
    "www.example.test.",
    "four.example.test.",
    "alias.example.test.",
    "far.example.test.",
    "lost.example.test.",
    "example.test.",
    "text.example.test.",
    "_sip._udp.example.test.",
    "b.c.example.test.",
    "a.b.c.example.test.",
    "gone.example.test.",
    "host.example.test.",
    "nothing.invalid.",
    "local.",
    "cluster.",
    ".",
];

/// Asked most, then anything.
const TYPES: [u16; 22] = [1, 1, 1, 1, 1, 28, 28, 28, 28, 33, 33, 33, 12, 12, 16, 6, 2, 5, 15, 255, 65, 257];

/// `n` requests, the same for the same seed.
pub fn make(cluster: &Cluster, seed: u64, n: usize) -> Vec<Vec<u8>> {
    let mut random = Rng::with_seed(seed);
    // Every name once by the type it is for, then by chance.
    let plain = |name: &String| [1, 28, 33].map(|t| (absolute(name, "cluster.local."), t));
    let reverse = |name: &String| [(name.clone(), 12)];
    let all: Vec<(String, u16)> =
        cluster.names.iter().flat_map(plain).chain(cluster.reverse.iter().flat_map(reverse)).collect();
    let mut requests: Vec<Vec<u8>> =
        all.iter().filter_map(|(name, qtype)| encode(name, *qtype, 1, 0x0100, None)).take(n / 2).collect();
    while requests.len() < n {
        let name = name(cluster, &mut random);
        let qtype = match random.u8(..20) {
            0 => random.u16(1..260),
            _ if name.ends_with(".arpa.") && random.bool() => 12,
            _ => TYPES[random.usize(..TYPES.len())],
        };
        let class = if random.u8(..50) == 0 { [3, 4, 254, 255][random.usize(..4)] } else { 1 };
        let mut flags = if random.u8(..8) == 0 { 0 } else { 0x0100 };
        for bit in [0x0010, 0x0020] {
            if random.u8(..10) == 0 {
                flags |= bit;
            }
        }
        let opt = (random.u8(..3) == 0).then(|| opt(&mut random));
        requests.extend(encode(&cased(&name, &mut random), qtype, class, flags, opt.as_deref()));
    }
    requests
}

fn absolute(name: &str, zone: &str) -> String {
    if name.is_empty() { zone.to_owned() } else { format!("{name}.{zone}") }
}

fn name(cluster: &Cluster, random: &mut Rng) -> String {
    match random.u8(..20) {
        0..=1 => return OUTSIDE[random.usize(..OUTSIDE.len())].to_owned(),
        2..=4 => {
            let name = cluster.reverse[random.usize(..cluster.reverse.len())].clone();
            return if random.u8(..4) == 0 { near(&name, random) } else { name };
        }
        _ => {}
    }
    let zone = match random.u8(..20) {
        0 => "other.test.",
        1 => "local.",
        2 => "default.svc.cluster.local.",
        _ => "cluster.local.",
    };
    let name = absolute(&cluster.names[random.usize(..cluster.names.len())], zone);
    if random.u8(..3) == 0 { near(&name, random) } else { name }
}

/// A name beside the one given: labels left out, added, exchanged or misspelt.
fn near(name: &str, random: &mut Rng) -> String {
    let mut labels: Vec<String> =
        name.trim_end_matches('.').split('.').filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if labels.is_empty() {
        return name.to_owned();
    }
    let at = random.usize(..labels.len());
    match random.u8(..9) {
        0..=1 => drop(labels.remove(0)),
        2 => drop(labels.remove(at)),
        3 => labels.insert(
            0,
            ["x", "www", "_tcp", "_http", "*", "any", "10-0-0-1", "h-1"][random.usize(..8)].to_owned(),
        ),
        4 => labels.insert(at, "x".to_owned()),
        5 => {
            let other = random.usize(..labels.len());
            labels.swap(at, other);
        }
        6 => labels[at].push('x'),
        7 => labels[at] = labels[at].trim_start_matches('_').to_owned(),
        _ => labels[at] = "-".to_owned(),
    }
    labels.retain(|l| !l.is_empty());
    labels.join(".") + "."
}

/// As resolvers send it that mix letters' case (0x20).
fn cased(name: &str, random: &mut Rng) -> String {
    if random.u8(..4) > 0 {
        return name.to_owned();
    }
    name.chars().map(|c| if random.bool() { c.to_ascii_uppercase() } else { c }).collect()
}

fn opt(random: &mut Rng) -> Vec<u8> {
    let size = [0u16, 512, 1232, 1400, 4096, 65_535][random.usize(..6)];
    let version = u8::from(random.u8(..30) == 0);
    let dnssec_ok = if random.u8(..4) == 0 { 0x80 } else { 0 };
    let options: &[u8] = match random.u8(..8) {
        0 => b"\x00\x03\x00\x00",                                 // NSID
        1 => b"\x00\x0a\x00\x08\x01\x02\x03\x04\x05\x06\x07\x08", // a cookie
        2 => b"\xfd\xe9\x00\x03abc",                              // one that nobody knows
        3 => b"\x00\x0c\x00\x04\x00\x00\x00\x00",                 // padding
        4 => b"\x00\x08\x00\x07\x00\x01\x18\x00\xc0\x00\x02",     // client subnet
        _ => b"",
    };
    let mut out = vec![0, 0, 41];
    out.extend(size.to_be_bytes());
    out.extend([0, version, dnssec_ok, 0]);
    out.extend((options.len() as u16).to_be_bytes());
    out.extend(options);
    out
}

/// `None`: no name that can be sent.
fn encode(name: &str, qtype: u16, class: u16, flags: u16, opt: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut out = vec![0, 0];
    out.extend(flags.to_be_bytes());
    out.extend([0, 1, 0, 0, 0, 0, 0, u8::from(opt.is_some())]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        if label.len() > 63 {
            return None;
        }
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    if out.len() - 12 > 255 {
        return None;
    }
    out.extend(qtype.to_be_bytes());
    out.extend(class.to_be_bytes());
    out.extend(opt.unwrap_or_default());
    Some(out)
}
