//! `eastwest dns NAME [TYPE]`: one question to a node's DNS server, with the search list of a pod.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use eastwest_lab::{Families, Plan, PodName};
use eastwest_model::{DEFAULT_ZONE, DNS_EXPLAIN};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, RecordType};

use crate::args::{To, duration};
use crate::output::say;
use crate::server;

#[derive(clap::Args, Debug)]
pub struct DnsArgs {
    name: String,
    /// A, AAAA, SRV, PTR, TXT, ANY, … [default: A, and AAAA]
    #[arg(value_name = "TYPE", value_parser = record_type)]
    type_: Option<RecordType>,
    /// Ask as a pod of this namespace would [default: that of --from, or default]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Node of the lab to ask from
    #[arg(long, default_value = "node-1", conflicts_with = "from")]
    node: String,
    /// Pod of the lab to ask from
    #[arg(long, value_name = "[pod/][NAMESPACE/]NAME", value_parser = pod)]
    from: Option<PodName>,
    /// Also say which names were tried, by whom each was answered, and what for the node takes the asker (over TCP)
    #[arg(long)]
    explain: bool,
    /// Server to ask, ADDRESS or ADDRESS:PORT [default: the lab's cluster DNS address, asked from the node]
    #[arg(long, value_parser = server_address)]
    server: Option<SocketAddr>,
    #[arg(long, default_value_t = DEFAULT_ZONE.to_owned())]
    zone: String,
    /// Ask over TCP
    #[arg(long)]
    tcp: bool,
    #[arg(long, default_value = "2s", value_parser = duration)]
    timeout: Duration,
}

fn pod(text: &str) -> Result<PodName, String> {
    text.strip_prefix("pod/").unwrap_or(text).parse().map_err(|e: eastwest_lab::Error| e.to_string())
}

fn record_type(text: &str) -> Result<RecordType, String> {
    RecordType::from_str(&text.to_ascii_uppercase()).map_err(|_| "a DNS record type".into())
}

fn server_address(text: &str) -> Result<SocketAddr, String> {
    let ip = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    text.parse()
        .or_else(|_| ip.map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| "an IP address, with :PORT where it is not 53".into())
}

pub fn run(to: To, args: DnsArgs) -> Result<ExitCode> {
    let lab = server::lab(&to)?;
    let (lab, server) = match (lab, args.server) {
        (None, None) => bail!("no lab is up: name a DNS server with --server"),
        (Some(lab), Some(server)) if to.lab.is_some() => (Some(lab), server),
        (_, Some(server)) => (None, server),
        (Some(lab), None) => {
            let family = lab.plan()?.families().first().copied().unwrap_or(Families::V4);
            let ip = Plan::dns_ip(family).parse::<IpAddr>().context("address of the lab's DNS")?;
            (Some(lab), SocketAddr::new(ip, 53))
        }
    };
    let ask = || resolve(&args, server);
    let from = args.from.as_ref().map_or_else(|| args.node.clone(), PodName::to_string);
    let answers = match &lab {
        Some(lab) => lab.within(&from, ask)??,
        None if args.from.is_some() => bail!("--from is for pods of a lab, and none is up"),
        None => ask()?,
    };
    let place = lab.as_ref().map(|lab| format!(" in {from} of lab {}", lab.name()));
    let mut code = ExitCode::FAILURE;
    for answer in &answers {
        let response = &answer.message;
        say!(
            ";; {} {} {}: {}, {} answers, {:.1} ms from {server}{}",
            answer.name,
            answer.type_,
            if response.metadata.authoritative { "authoritative" } else { "not authoritative" },
            response.metadata.response_code,
            response.answers.len(),
            answer.took.as_secs_f64() * 1e3,
            place.as_deref().unwrap_or_default()
        );
        for record in response.answers.iter().chain(&response.authorities) {
            say!("{record}");
        }
        if args.explain {
            match explanation(response) {
                Some(text) => text.lines().for_each(|line| say!(";;   {line}")),
                None => {
                    say!(";;   the server does not explain: it is no eastwest, or does not serve who asks")
                }
            }
        }
        if response.metadata.response_code == ResponseCode::NoError && !response.answers.is_empty() {
            code = ExitCode::SUCCESS;
        }
    }
    Ok(code)
}

struct Answer {
    name: Name,
    type_: RecordType,
    message: Message,
    took: Duration,
}

/// What the server says of how it came to its answer.
fn explanation(message: &Message) -> Option<String> {
    let options = message.edns.as_ref()?.options();
    let found = options.as_ref().iter().find(|(code, _)| u16::from(*code) == DNS_EXPLAIN)?;
    let bytes: Vec<u8> = Vec::try_from(&found.1).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// For each type the first name of the search list that exists, else the last one tried; to explain, all that were tried.
fn resolve(args: &DnsArgs, server: SocketAddr) -> Result<Vec<Answer>> {
    let types = args.type_.map_or(vec![RecordType::A, RecordType::AAAA], |t| vec![t]);
    let names = match (args.type_, args.name.parse::<IpAddr>()) {
        (None | Some(RecordType::PTR), Ok(ip)) => {
            return Ok(vec![ask(args, server, Name::from(ip), RecordType::PTR)?]);
        }
        _ => candidates(&args.name, namespace(args), &args.zone),
    };
    let mut answers = Vec::new();
    for type_ in types {
        let mut last = None;
        for name in &names {
            let name = Name::from_ascii(name).with_context(|| format!("name {name:?}"))?;
            let answer = ask(args, server, name, type_)?;
            let exists = answer.message.metadata.response_code != ResponseCode::NXDomain;
            // The whole way there is what is to be explained.
            answers.extend(last.replace(answer).filter(|_| args.explain));
            if exists {
                break;
            }
        }
        answers.extend(last);
    }
    Ok(answers)
}

fn namespace(args: &DnsArgs) -> &str {
    let of_pod = args.from.as_ref().map(|pod| pod.namespace.as_str());
    args.namespace.as_deref().or(of_pod).unwrap_or("default")
}

/// The names a pod's resolver tries, in order: with `ndots:5`, one with fewer dots goes through the search list first.
fn candidates(name: &str, namespace: &str, zone: &str) -> Vec<String> {
    if name.ends_with('.') {
        return vec![name.to_owned()];
    }
    let search = [format!("{namespace}.svc.{zone}"), format!("svc.{zone}"), zone.to_owned()];
    let with_search = search.iter().map(|s| format!("{name}.{s}."));
    let itself = format!("{name}.");
    if name.matches('.').count() < 5 {
        with_search.chain([itself]).collect()
    } else {
        std::iter::once(itself).chain(with_search).collect()
    }
}

fn ask(args: &DnsArgs, server: SocketAddr, name: Name, type_: RecordType) -> Result<Answer> {
    let mut message = Message::query();
    message.metadata.id = rand::random();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), type_));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    if args.explain {
        edns.options_mut().insert(EdnsOption::Unknown(DNS_EXPLAIN, Vec::new()));
    }
    message.set_edns(edns);
    let question = message.to_vec()?;
    let started = std::time::Instant::now();
    let exchange = |tcp: bool| {
        let answer = if tcp {
            over_tcp(&question, server, args.timeout)
        } else {
            over_udp(&question, server, args.timeout)
        };
        answer.with_context(|| format!("ask {server} for {name} {type_}"))
    };
    let tcp = args.tcp || args.explain;
    let mut answer = Message::from_vec(&exchange(tcp)?)?;
    if answer.metadata.truncation && !tcp {
        answer = Message::from_vec(&exchange(true)?)?;
    }
    if answer.queries != message.queries {
        return Err(anyhow!("{server} answers another question than it was asked"));
    }
    Ok(Answer { name, type_, message: answer, took: started.elapsed() })
}

fn over_udp(question: &[u8], server: SocketAddr, timeout: Duration) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Connected: an ICMP refusal comes back as an error, and only the server's datagrams are read.
    socket.connect(server)?;
    socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    let mut buffer = vec![0; 65_535];
    for _ in 0..2 {
        socket.send(question)?;
        let length = match socket.recv(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            received => received?,
        };
        if length >= 2 && buffer[..2] == question[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
}

fn over_tcp(question: &[u8], server: SocketAddr, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, timeout.max(Duration::from_millis(1)))?;
    stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_lists() {
        for (name, first, count) in [
            ("web", "web.shop.svc.cluster.local.", 4),
            ("web.shop", "web.shop.shop.svc.cluster.local.", 4),
            ("example.com.", "example.com.", 1),
            ("a.b.c.d.e.f", "a.b.c.d.e.f.", 4),
        ] {
            let names = candidates(name, "shop", "cluster.local");
            assert_eq!((names[0].as_str(), names.len()), (first, count), "{name}");
        }
    }

    #[test]
    fn server_addresses() {
        for (text, want) in [
            ("10.96.0.10", Some("10.96.0.10:53")),
            ("10.96.0.10:5353", Some("10.96.0.10:5353")),
            ("fd00::a", Some("[fd00::a]:53")),
            ("[fd00::a]:5353", Some("[fd00::a]:5353")),
            ("dns", None),
        ] {
            assert_eq!(server_address(text).ok().map(|a| a.to_string()).as_deref(), want, "{text}");
        }
    }
}
