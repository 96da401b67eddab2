//! The server over real sockets on loopback, with hickory's message types as the client, and upstreams that misbehave.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use eastwest_compile::{CompiledService, DnsEndpoint, DnsPort, DnsService, ServiceKey};
use eastwest_dns::{
    ForwardOptions, Forwarder, Index, IndexOptions, Metrics, Resolver, Server, ServerOptions,
};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

const WEB: &str = "web.default.svc.cluster.local.";
const MANY: &str = "many.default.svc.cluster.local.";

struct Running {
    addr: SocketAddr,
    v6: SocketAddr,
    index: Arc<Index>,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn put(index: &Index, name: &str, dns: DnsService) {
    let key = ServiceKey::new("default", name);
    index.apply(&key, Some(&CompiledService { key: key.clone(), frontends: Vec::new(), dns }));
}

async fn start(forward: ForwardOptions, options: ServerOptions, upstreams: Vec<SocketAddr>) -> Running {
    let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
    put(
        &index,
        "web",
        DnsService::ClusterIp {
            ips: vec!["10.96.0.1".parse().unwrap(), "fd00:10:96::1".parse().unwrap()],
            ports: Vec::new(),
            endpoints: Vec::new(),
        },
    );
    let ports: Arc<[DnsPort]> = Vec::new().into();
    let endpoints = (0..500u32).map(|i| DnsEndpoint {
        addr: std::net::Ipv4Addr::from(0x0af4_0000 + i).into(),
        hostname: None,
        ports: ports.clone(),
    });
    put(&index, "many", DnsService::Headless { endpoints: endpoints.collect() });
    put(&index, "away", DnsService::ExternalName { target: "www.example.test".into() });
    index.set_synced(true);
    let metrics = Metrics::new();
    let forwarder = Forwarder::new(forward, metrics.clone());
    let listen = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let server = {
        let resolver = Resolver::new(index.clone(), forwarder.clone(), metrics.clone());
        Server::bind(&listen, resolver, options).unwrap()
    };
    let (addr, v6) = (server.addresses()[0], server.addresses()[1]);
    forwarder.set_upstreams(upstreams);
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.run(stop.clone()));
    Running { addr, v6, index, forwarder, metrics, stop, task }
}

async fn started(upstreams: Vec<SocketAddr>) -> Running {
    start(quick(), ServerOptions { workers: 2, ..ServerOptions::default() }, upstreams).await
}

/// Time-outs that suit a test.
fn quick() -> ForwardOptions {
    ForwardOptions { timeout: Duration::from_millis(300), ..ForwardOptions::default() }
}

fn message(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(fastrand_id(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

fn fastrand_id() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, SeqCst) as u16
}

async fn client(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn udp(to: SocketAddr, query: &Message) -> Message {
    let socket = client(to).await;
    socket.send(&query.to_vec().unwrap()).await.unwrap();
    let mut buf = [0; 4096];
    let n = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buf))
        .await
        .expect("no answer")
        .unwrap();
    let response = Message::from_vec(&buf[..n]).unwrap();
    assert_eq!((response.metadata.id, response.queries.len()), (query.metadata.id, 1));
    response
}

async fn send_tcp(stream: &mut TcpStream, query: &Message) {
    let bytes = query.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

async fn recv_tcp(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(Message::from_vec(&bytes).unwrap())
}

#[tokio::test]
async fn both_families_and_both_transports() {
    let server = started(Vec::new()).await;
    for to in [server.addr, server.v6] {
        let answer = udp(to, &message(WEB, RecordType::AAAA)).await;
        assert_eq!(answer.answers[0].data.to_string(), "fd00:10:96::1");
        let cut = udp(to, &message(MANY, RecordType::A)).await;
        assert!(cut.metadata.truncation);
        let mut stream = TcpStream::connect(to).await.unwrap();
        send_tcp(&mut stream, &message(MANY, RecordType::A)).await;
        let whole = recv_tcp(&mut stream).await.unwrap();
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (500, false));
    }
    // A change is answered at once.
    server.index.apply(&ServiceKey::new("default", "web"), None);
    let gone = udp(server.addr, &message(WEB, RecordType::A)).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    server.stop.cancel();
    server.task.await.unwrap();
}

/// How an upstream of these tests answers.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Wrong id, wrong question, garbage, from a stranger's port; then the right answer.
    Lies,
    /// Nothing right ever.
    OnlyLies,
    Silent,
    ServFail,
    NxDomain,
    /// UDP answers are cut.
    Truncates,
    /// FORMERR to EDNS.
    Ancient,
    /// Answers in lower case.
    Lowers,
    Slow,
}

struct Upstream {
    addr: SocketAddr,
    asked: Arc<AtomicUsize>,
}

fn reply_to(query: &Message, address: [u8; 4]) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.add_query(query.queries[0].clone());
    reply.metadata.recursion_available = true;
    let record = Record::from_rdata(query.queries[0].name().clone(), 300, RData::A(A(address.into())));
    reply.add_answer(record);
    reply.set_edns(Edns::new());
    reply
}

async fn upstream(manner: Manner, address: [u8; 4]) -> Upstream {
    let (socket, listener) = loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // Somebody's connection may have that port.
        if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
            break (socket, listener);
        }
    };
    let addr = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let query = recv_tcp(&mut stream).await.unwrap();
            let mut reply = reply_to(&query, address);
            for i in 0..100 {
                let mut record = reply.answers[0].clone();
                record.data = RData::A(A::new(198, 51, 100, i));
                reply.add_answer(record);
            }
            send_tcp(&mut stream, &reply).await;
        }
    });
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut buf = [0; 4096];
        loop {
            let (n, peer) = socket.recv_from(&mut buf).await.unwrap();
            counted.fetch_add(1, SeqCst);
            let query = Message::from_vec(&buf[..n]).unwrap();
            let mut reply = reply_to(&query, address);
            let send = async |m: &Message| {
                socket.send_to(&m.to_vec().unwrap(), peer).await.unwrap();
            };
            match manner {
                Manner::Silent => {}
                Manner::Honest => send(&reply).await,
                Manner::Slow => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    send(&reply).await;
                }
                Manner::Lies | Manner::OnlyLies => {
                    let mut lie = reply_to(&query, [6, 6, 6, 6]);
                    lie.metadata.id ^= 1;
                    send(&lie).await;
                    let mut lie = reply_to(&query, [6, 6, 6, 6]);
                    lie.queries[0].set_name(Name::from_str("evil.test.").unwrap());
                    send(&lie).await;
                    lie = reply_to(&query, [6, 6, 6, 6]);
                    lie.queries[0].set_query_type(RecordType::AAAA);
                    send(&lie).await;
                    socket.send_to(&[0; 3], peer).await.unwrap();
                    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                    let forged = reply_to(&query, [6, 6, 6, 6]).to_vec().unwrap();
                    // The asker's socket is connected: the kernel keeps this out.
                    drop(stranger.send_to(&forged, peer).await);
                    if manner == Manner::Lies {
                        send(&reply).await;
                    }
                }
                Manner::ServFail => {
                    reply.answers.clear();
                    reply.metadata.response_code = ResponseCode::ServFail;
                    send(&reply).await;
                }
                Manner::NxDomain => {
                    reply.answers.clear();
                    reply.metadata.response_code = ResponseCode::NXDomain;
                    let zone = Name::from_str("test.").unwrap();
                    let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 20);
                    reply.add_authority(Record::from_rdata(zone, 20, RData::SOA(soa)));
                    send(&reply).await;
                }
                Manner::Truncates => {
                    reply.answers.clear();
                    reply.metadata.truncation = true;
                    send(&reply).await;
                }
                Manner::Lowers => {
                    let name = query.queries[0].name().to_lowercase();
                    reply.queries[0].set_name(name.clone());
                    reply.answers[0].name = name;
                    send(&reply).await;
                }
                Manner::Ancient => {
                    if query.edns.is_some() {
                        reply.answers.clear();
                        reply.metadata.response_code = ResponseCode::FormErr;
                    }
                    reply.edns = None;
                    send(&reply).await;
                }
            }
        }
    });
    Upstream { addr, asked }
}

#[tokio::test]
async fn upstreams_by_manner() {
    let good = upstream(Manner::Honest, [192, 0, 2, 2]).await.addr;
    let cases = [
        (Manner::Honest, vec![], ResponseCode::NoError, 1),
        (Manner::Lies, vec![], ResponseCode::NoError, 1),
        (Manner::OnlyLies, vec![], ResponseCode::ServFail, 0),
        (Manner::OnlyLies, vec![good], ResponseCode::NoError, 1),
        (Manner::Silent, vec![], ResponseCode::ServFail, 0),
        (Manner::Silent, vec![good], ResponseCode::NoError, 1),
        (Manner::ServFail, vec![], ResponseCode::ServFail, 0),
        (Manner::ServFail, vec![good], ResponseCode::NoError, 1),
        (Manner::NxDomain, vec![good], ResponseCode::NXDomain, 0),
        (Manner::Ancient, vec![], ResponseCode::NoError, 1),
        (Manner::Lowers, vec![], ResponseCode::NoError, 1),
        (Manner::Truncates, vec![], ResponseCode::NoError, 101),
    ];
    for (i, (manner, others, code, answers)) in cases.into_iter().enumerate() {
        let first = upstream(manner, [192, 0, 2, 1]).await;
        let mut all = vec![first.addr];
        all.extend(others);
        let server = started(all).await;
        let mut query = message("wWw.example.test.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        query.set_edns(edns);
        let mut answer = udp(server.addr, &query).await;
        if answer.metadata.truncation {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            send_tcp(&mut stream, &query).await;
            answer = recv_tcp(&mut stream).await.unwrap();
        }
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, answers), "case {i}");
        assert!(
            !answer.answers.iter().any(|r| r.data.to_string() == "6.6.6.6"),
            "case {i}: a lie got through"
        );
        assert_eq!(answer.queries[0].name().to_ascii(), "wWw.example.test.", "case {i}");
        assert!(answer.metadata.recursion_available && !answer.metadata.authoritative, "case {i}");
        assert!(answer.answers.iter().all(|r| r.ttl == 30), "case {i}: TTLs are capped");
        server.stop.cancel();
        server.task.await.unwrap();
    }
}

#[tokio::test]
async fn many_askers_one_question_and_then_the_cache() {
    let slow = upstream(Manner::Slow, [192, 0, 2, 1]).await;
    let server = started(vec![slow.addr]).await;
    let askers = (0..50).map(|_| {
        let to = server.addr;
        tokio::spawn(async move { udp(to, &message("once.example.test.", RecordType::A)).await })
    });
    for answer in futures::future::join_all(askers).await {
        assert_eq!(answer.unwrap().answers.len(), 1);
    }
    assert_eq!(slow.asked.load(SeqCst), 1);
    let again = Instant::now();
    udp(server.addr, &message("ONCE.example.test.", RecordType::A)).await;
    assert_eq!(slow.asked.load(SeqCst), 1);
    assert!(again.elapsed() < Duration::from_millis(90));
    let mut registry = prometheus_client::registry::Registry::default();
    server.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let server_label = format!("server=\"dns://{}\"", server.addr);
    for line in [
        format!(
            "coredns_dns_requests_total{{{server_label},zone=\".\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"}} 51"
        ),
        format!(
            "coredns_dns_responses_total{{{server_label},zone=\".\",view=\"\",rcode=\"NOERROR\",plugin=\"forward\"}} 50"
        ),
        format!(
            "coredns_dns_responses_total{{{server_label},zone=\".\",view=\"\",rcode=\"NOERROR\",plugin=\"cache\"}} 1"
        ),
        format!("coredns_cache_hits_total{{{server_label},type=\"success\",zones=\".\",view=\"\"}} 1"),
        format!("coredns_cache_misses_total{{{server_label},zones=\".\",view=\"\"}} 50"),
        format!("coredns_forward_requests_total{{to=\"{}\"}} 1", slow.addr),
        format!("coredns_dns_request_duration_seconds_count{{{server_label},zone=\".\",view=\"\"}} 51"),
    ] {
        assert!(text.contains(&line), "{line}\nnot in\n{text}");
    }
    // Other upstreams may see other names.
    let other = upstream(Manner::Honest, [192, 0, 2, 9]).await;
    server.forwarder.set_upstreams(vec![other.addr]);
    let fresh = udp(server.addr, &message("once.example.test.", RecordType::A)).await;
    assert_eq!(fresh.answers[0].data.to_string(), "192.0.2.9");
}

#[tokio::test]
async fn an_alias_is_followed_outside() {
    let good = upstream(Manner::Honest, [192, 0, 2, 2]).await;
    let server = started(vec![good.addr]).await;
    let name = "away.default.svc.cluster.local.";
    let answer = udp(server.addr, &message(name, RecordType::A)).await;
    let text: Vec<_> =
        answer.answers.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect();
    assert_eq!(text, [format!("{name} CNAME www.example.test."), "www.example.test. A 192.0.2.2".to_owned()]);
    let absent = upstream(Manner::NxDomain, [0; 4]).await;
    server.forwarder.set_upstreams(vec![absent.addr]);
    let answer = udp(server.addr, &message(name, RecordType::A)).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NXDomain, 1));
    server.forwarder.set_upstreams(Vec::new());
    let answer = udp(server.addr, &message(name, RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let answer = udp(server.addr, &message(name, RecordType::CNAME)).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
}

#[tokio::test]
async fn we_are_not_our_own_upstream() {
    let server = started(Vec::new()).await;
    server.forwarder.set_upstreams(vec![server.addr, server.v6]);
    let asked = Instant::now();
    let answer = udp(server.addr, &message("example.test.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(asked.elapsed() < Duration::from_millis(200), "at once, not after a time-out");
}

#[tokio::test]
async fn a_silent_upstream_is_asked_last() {
    let silent = upstream(Manner::Silent, [0; 4]).await;
    let good = upstream(Manner::Honest, [192, 0, 2, 2]).await;
    let server = started(vec![silent.addr, good.addr]).await;
    for name in ["a.test.", "b.test.", "c.test."] {
        assert_eq!(udp(server.addr, &message(name, RecordType::A)).await.answers.len(), 1);
    }
    assert_eq!((silent.asked.load(SeqCst), good.asked.load(SeqCst)), (1, 3));
}

#[tokio::test]
async fn tcp_pipelines_and_answers_out_of_order() {
    let slow = upstream(Manner::Slow, [192, 0, 2, 1]).await;
    let server = started(vec![slow.addr]).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let outside = message("example.test.", RecordType::A);
    send_tcp(&mut stream, &outside).await;
    let inside: Vec<_> = (0..200).map(|_| message(WEB, RecordType::A)).collect();
    for query in &inside {
        send_tcp(&mut stream, query).await;
    }
    stream.shutdown().await.unwrap();
    let mut ids = Vec::new();
    while let Ok(answer) = recv_tcp(&mut stream).await {
        assert_eq!(answer.answers.len(), 1);
        ids.push(answer.metadata.id);
    }
    assert_eq!(ids.len(), 201, "also after the client has shut its side");
    assert_eq!(ids.last(), Some(&outside.metadata.id), "the slow one comes last");
}

#[tokio::test]
async fn tcp_bounds() {
    let options = ServerOptions {
        workers: 1,
        connections: 4,
        connections_per_client: 3,
        idle: Duration::from_millis(300),
        ..ServerOptions::default()
    };
    let server = start(quick(), options, Vec::new()).await;
    // Idle.
    let begun = Instant::now();
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    assert!(recv_tcp(&mut idle).await.is_err());
    assert!(begun.elapsed() >= Duration::from_millis(290) && begun.elapsed() < Duration::from_secs(2));
    // A query that comes an octet at a time is not waited for.
    let mut slow = TcpStream::connect(server.addr).await.unwrap();
    let begun = Instant::now();
    let bytes = message(WEB, RecordType::A).to_vec().unwrap();
    let mut sent = 0;
    while slow
        .write_all(
            &[(0u8), bytes.len() as u8].iter().chain(&bytes).copied().skip(sent).take(1).collect::<Vec<_>>(),
        )
        .await
        .is_ok()
    {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(40)).await;
        if begun.elapsed() > Duration::from_secs(2) {
            panic!("still open after {sent} octets");
        }
    }
    // Garbage and what claims to be huge.
    for garbage in [&[0xff, 0xff, 1][..], &[0, 3, 1, 2, 3], &[0, 0]] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        assert!(recv_tcp(&mut stream).await.is_err());
    }
    // The fourth connection of one client.
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        send_tcp(&mut stream, &message(WEB, RecordType::A)).await;
        recv_tcp(&mut stream).await.unwrap();
        open.push(stream);
    }
    let mut fourth = TcpStream::connect(server.addr).await.unwrap();
    assert!(recv_tcp(&mut fourth).await.is_err());
    drop(open);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut again = TcpStream::connect(server.addr).await.unwrap();
    send_tcp(&mut again, &message(WEB, RecordType::A)).await;
    recv_tcp(&mut again).await.unwrap();
}

#[tokio::test]
async fn stopping_answers_what_has_come_in() {
    let slow = upstream(Manner::Slow, [192, 0, 2, 1]).await;
    let server = started(vec![slow.addr]).await;
    let (here, there) = (client(server.addr).await, client(server.addr).await);
    there.send(&message("example.test.", RecordType::A).to_vec().unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    for _ in 0..100 {
        here.send(&message(WEB, RecordType::A).to_vec().unwrap()).await.unwrap();
    }
    server.stop.cancel();
    server.task.await.unwrap();
    let mut buf = [0; 512];
    for _ in 0..100 {
        let answered = tokio::time::timeout(Duration::from_millis(200), here.recv(&mut buf)).await;
        answered.expect("a query that had arrived is answered").unwrap();
    }
    tokio::time::timeout(Duration::from_millis(200), there.recv(&mut buf)).await.expect("drained").unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let metrics = Metrics::new();
    let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
    let forwarder = Forwarder::new(ForwardOptions::default(), metrics.clone());
    let error = Server::bind(&[addr], Resolver::new(index, forwarder, metrics), ServerOptions::default())
        .unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {addr}/udp: ")), "{error}");
}

#[tokio::test]
async fn resolv_conf_is_followed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
    let forwarder = Forwarder::new(ForwardOptions::default(), Metrics::new());
    let (path, followed) = (file.path().to_owned(), forwarder.clone());
    let task = tokio::spawn(async move {
        eastwest_dns::follow_resolv_conf(&path, followed, Duration::from_millis(10)).await;
    });
    for (text, expected) in [
        (None, vec!["192.0.2.1:53"]),
        (Some("nameserver 192.0.2.2\nnameserver 2001:db8::2\n"), vec!["192.0.2.2:53", "[2001:db8::2]:53"]),
        (Some("# none\n"), vec![]),
    ] {
        if let Some(text) = text {
            std::fs::write(file.path(), text).unwrap();
        }
        let expected: Vec<SocketAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
        let deadline = Instant::now() + Duration::from_secs(2);
        while forwarder.upstreams() != expected {
            assert!(Instant::now() < deadline, "{:?}", forwarder.upstreams());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    task.abort();
}
