//! What ill will and ill luck send, over real sockets: each is counted, and the others are served as before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use eastwest_compile::{CompiledService, DnsService, ServiceKey};
use eastwest_dns::{
    CacheLimits, ForwardOptions, Forwarder, Index, IndexOptions, Metrics, Resolver, Server, ServerOptions,
};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

const WEB: &str = "web.default.svc.cluster.local.";

struct Running {
    addr: SocketAddr,
    metrics: Arc<Metrics>,
    _stop: tokio_util::sync::DropGuard,
}

async fn start(capacity: u64, options: ServerOptions, upstreams: Vec<SocketAddr>) -> Running {
    let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
    let key = ServiceKey::new("default", "web");
    let dns = DnsService::ClusterIp {
        ips: vec!["10.96.0.1".parse().unwrap()],
        ports: Vec::new(),
        endpoints: Vec::new(),
    };
    index.apply(&key, Some(&CompiledService { key: key.clone(), frontends: Vec::new(), dns }));
    index.set_synced(true);
    let metrics = Metrics::new();
    let cache = CacheLimits { capacity, ..CacheLimits::default() };
    let forward = ForwardOptions { cache, timeout: Duration::from_secs(1), ..ForwardOptions::default() };
    let forwarder = Forwarder::new(forward, metrics.clone());
    let resolver = Resolver::new(index, forwarder.clone(), metrics.clone());
    let server = Server::bind(&["127.0.0.1:0".parse().unwrap()], resolver, options).unwrap();
    let addr = server.addresses()[0];
    forwarder.set_upstreams(upstreams);
    let stop = CancellationToken::new();
    tokio::spawn(server.run(stop.clone()));
    Running { addr, metrics, _stop: stop.drop_guard() }
}

impl Running {
    /// The sum of a metric's values over labels; `part` must stand in the line.
    fn counted(&self, name: &str, part: &str) -> f64 {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines()
            .filter(|l| l.starts_with(name) && l.contains(part))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    fn dropped(&self, reason: &str) -> f64 {
        self.counted("eastwest_dns_dropped_total", &format!("reason=\"{reason}\""))
    }

    async fn is_well(&self) {
        assert_eq!(code(&ask(self.addr, WEB).await), ResponseCode::NoError);
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        assert_eq!(over(&mut stream).await.unwrap().answers.len(), 1);
    }
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

fn query(name: &str) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

/// What comes back of these bytes, sent by UDP; `None`: silence, as a good question sent after them is answered first.
async fn send(to: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut probe = query(WEB);
    probe.metadata.id = 0x4321;
    let mut buf = vec![0; 65_535];
    loop {
        socket.send(&probe.to_vec().unwrap()).await.unwrap();
        let Ok(got) = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buf)).await else {
            continue;
        };
        let got = &buf[..got.unwrap()];
        return (!got.starts_with(&[0x43, 0x21])).then(|| got.to_vec());
    }
}

async fn ask(to: SocketAddr, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    let mut buf = [0; 4096];
    loop {
        socket.send(&query(name).to_vec().unwrap()).await.unwrap();
        if let Ok(n) = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buf)).await {
            return Message::from_vec(&buf[..n.unwrap()]).unwrap();
        }
    }
}

/// One question over a connection.
async fn over(stream: &mut TcpStream) -> std::io::Result<Message> {
    let bytes = query(WEB).to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await?;
    stream.write_all(&bytes).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(Message::from_vec(&bytes).unwrap())
}

/// From another address of the loopback: another client.
async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::from(from), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// An upstream whose answers are what `answer` makes of a question; over TCP it is honest.
async fn upstream<F>(answer: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(&Message) -> Vec<Vec<u8>> + Send + 'static,
{
    let (socket, listener) = loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // Somebody's connection may have that port.
        if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
            break (socket, listener);
        }
    };
    let addr = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut buf = [0; 4096];
        loop {
            let (n, peer) = socket.recv_from(&mut buf).await.unwrap();
            counted.fetch_add(1, SeqCst);
            for bytes in answer(&Message::from_vec(&buf[..n]).unwrap()) {
                socket.send_to(&bytes, peer).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut bytes).await.unwrap();
            let reply = truth(&Message::from_vec(&bytes).unwrap()).to_vec().unwrap();
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    (addr, asked)
}

fn address(name: &Name, ip: [u8; 4]) -> Record {
    Record::from_rdata(name.clone(), 300, RData::A(A(ip.into())))
}

/// 192.0.2.1 for every name.
fn truth(query: &Message) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.add_query(query.queries[0].clone());
    reply.add_answer(address(query.queries[0].name(), [192, 0, 2, 1]));
    reply
}

#[tokio::test]
async fn random_names_do_not_wash_out_good_ones() {
    const GOOD: usize = 20;
    const RANDOM: usize = 2000;
    let (up, asked) = upstream(|q| vec![truth(q).to_vec().unwrap()]).await;
    // Room for some hundred answers.
    let server = start(128 << 10, ServerOptions::default(), vec![up]).await;
    let good = |i: usize| format!("good-{i}.example.test.");
    for _ in 0..10 {
        for i in 0..GOOD {
            assert_eq!(code(&ask(server.addr, &good(i)).await), ResponseCode::NoError);
        }
    }
    assert_eq!(asked.load(SeqCst), GOOD, "each once");
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.addr).await.unwrap();
    let mut buf = [0; 512];
    for batch in 0..RANDOM / 20 {
        for i in 0..20 {
            let name = format!("{:016x}.example.test.", fastrand::u64(..));
            socket.send(&query(&name).to_vec().unwrap()).await.unwrap();
            // Who is asked often is asked in between.
            if i == 0 {
                ask(server.addr, &good(batch % GOOD)).await;
            }
        }
        for _ in 0..20 {
            // On a machine with much to do one may be lost.
            drop(tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut buf)).await);
        }
    }
    let before = asked.load(SeqCst);
    for i in 0..GOOD {
        ask(server.addr, &good(i)).await;
    }
    let again = asked.load(SeqCst) - before;
    assert!(again <= GOOD / 5, "{again} of {GOOD} had to be asked for again");
    assert!(server.counted("coredns_cache_evictions_total", "") > 0.0, "the flood has filled the cache");
    server.is_well().await;
}

#[tokio::test]
async fn connections_by_the_dozen_and_the_slow() {
    let options = ServerOptions {
        connections: 16,
        connections_per_client: 8,
        idle: Duration::from_secs(2),
        ..ServerOptions::default()
    };
    let server = start(1 << 20, options, Vec::new()).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut stream = connect([127, 0, 0, 2], server.addr).await;
        // The length of a question that never comes; who is not let in may have been told so already.
        drop(stream.write_all(&[0, 40, 1]).await);
        held.push(stream);
    }
    // Others are served, and he too by UDP.
    let mut other = connect([127, 0, 0, 3], server.addr).await;
    assert_eq!(over(&mut other).await.unwrap().answers.len(), 1);
    server.is_well().await;
    assert!(server.dropped("connections") >= 32.0, "{}", server.dropped("connections"));
    // Sooner or later he is shown the door.
    let mut byte = [0];
    for stream in &mut held {
        drop(stream.read(&mut byte).await);
    }
    assert!(server.dropped("slow") >= 8.0, "{}", server.dropped("slow"));
    let mut again = connect([127, 0, 0, 2], server.addr).await;
    assert_eq!(over(&mut again).await.unwrap().answers.len(), 1);
}

#[tokio::test]
async fn upstreams_that_lie() {
    let evil = [6, 6, 6, 6];
    let victim = || Name::from_ascii("victim.example.test.").unwrap();
    type Lie = Box<dyn Fn(&Message) -> Vec<Vec<u8>> + Send>;
    let with = |change: fn(&mut Message)| -> Lie {
        Box::new(move |q| {
            let mut lie = truth(q);
            lie.answers[0].data = RData::A(A([6, 6, 6, 6].into()));
            change(&mut lie);
            vec![lie.to_vec().unwrap()]
        })
    };
    // What is said; whether the truth is found nonetheless, by TCP.
    let lies: Vec<(&str, Lie, bool)> = vec![
        ("another id", with(|m| m.metadata.id ^= 1), false),
        (
            "another name",
            with(|m| {
                m.queries[0].set_name(Name::from_ascii("x.test.").unwrap());
            }),
            false,
        ),
        (
            "another type",
            with(|m| {
                m.queries[0].set_query_type(RecordType::AAAA);
            }),
            false,
        ),
        ("a question", with(|m| m.metadata.message_type = MessageType::Query), false),
        ("no question", with(|m| m.queries.clear()), false),
        ("nothing", Box::new(|_| vec![Vec::new(), vec![0; 3]]), false),
        (
            "more than was asked for",
            Box::new(|q| {
                let mut reply = truth(q);
                for i in 0..500 {
                    reply.add_answer(address(q.queries[0].name(), [6, 6, (i / 250) as u8, (i % 250) as u8]));
                }
                vec![reply.to_vec().unwrap()]
            }),
            true,
        ),
        (
            "a name that points at itself",
            Box::new(|q| {
                let mut bytes = truth(q).to_vec().unwrap();
                let end = bytes.len();
                // The record's owner: a pointer to itself.
                let at = end - 16;
                bytes[at..at + 2].copy_from_slice(&(0xc000 | at as u16).to_be_bytes());
                vec![bytes]
            }),
            false,
        ),
        (
            "a name that goes round by another record",
            Box::new(|q| {
                let mut reply = truth(q);
                reply.answers.clear();
                let mut bytes = reply.to_vec().unwrap();
                // TXT data that is a pointer to itself, and a record whose owner is there.
                let data = (bytes.len() + 12) as u16;
                let pointer = (0xc000 | data).to_be_bytes();
                bytes.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 9, 0, 2]);
                bytes.extend(pointer);
                bytes.extend(pointer);
                bytes.extend([0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 6, 6, 6, 6]);
                bytes[7] = 2;
                vec![bytes]
            }),
            false,
        ),
        (
            "an alias that goes round",
            Box::new(|q| {
                let mut reply = truth(q);
                reply.answers.clear();
                let mut bytes = reply.to_vec().unwrap();
                let pointer = (0xc000 | (bytes.len() + 12) as u16).to_be_bytes();
                bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2]);
                bytes.extend(pointer);
                bytes[7] = 1;
                vec![bytes]
            }),
            false,
        ),
    ];
    for (what, lie, found) in lies {
        let (up, _) = upstream(lie).await;
        let server = start(1 << 20, ServerOptions::default(), vec![up]).await;
        let answer = ask(server.addr, "www.example.test.").await;
        let wanted = if found { ResponseCode::NoError } else { ResponseCode::ServFail };
        assert_eq!(code(&answer), wanted, "{what}: {answer}");
        assert!(!answer.answers.iter().any(|r| r.data == RData::A(A(evil.into()))), "{what}");
        let mismatches = server.counted("eastwest_dns_upstream_mismatches_total", "");
        assert!(mismatches > 0.0, "{what} is not counted");
        server.is_well().await;
    }

    // What an answer says of other names is not believed of them.
    let (up, asked) = upstream(move |q| {
        let mut reply = truth(q);
        if *q.queries[0].name() != victim() {
            reply.add_answer(address(&victim(), evil));
            reply.add_authority(address(&victim(), evil));
            reply.add_additional(address(&victim(), evil));
            let web = Name::from_ascii(WEB).unwrap();
            reply.add_answer(Record::from_rdata(web.clone(), 300, RData::CNAME(CNAME(victim()))));
            reply.add_additional(address(&web, evil));
        }
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let server = start(1 << 20, ServerOptions::default(), vec![up]).await;
    assert_eq!(code(&ask(server.addr, "www.example.test.").await), ResponseCode::NoError);
    let answer = ask(server.addr, "victim.example.test.").await;
    assert_eq!(answer.answers[0].data, RData::A(A([192, 0, 2, 1].into())));
    assert_eq!(asked.load(SeqCst), 2, "the other name was asked for itself");
    assert_eq!(ask(server.addr, WEB).await.answers[0].data, RData::A(A([10, 96, 0, 1].into())));
}

#[tokio::test]
async fn what_no_client_should_send() {
    let server = start(1 << 20, ServerOptions::default(), Vec::new()).await;
    let good = query(WEB).to_vec().unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut request = good.clone();
        request[at..at + bytes.len()].copy_from_slice(bytes);
        request
    };
    let end = good.len();
    let added = |section: usize, bytes: &[u8]| {
        let mut request = good.clone();
        request[section + 1] = 1;
        request.extend(bytes);
        request
    };
    const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    // Bytes, and the code that comes back; `None`: silence.
    let cases: Vec<(&str, Vec<u8>, Option<u8>)> = vec![
        ("a good one", good.clone(), Some(0)),
        ("nothing", Vec::new(), None),
        ("less than a header", good[..11].to_vec(), None),
        ("an answer", with(2, &[0x81]), None),
        ("a header alone", good[..12].to_vec(), Some(1)),
        ("no question", with(4, &[0, 0]), Some(1)),
        ("two questions", [&with(4, &[0, 2])[..], &good[12..]].concat(), Some(1)),
        ("65,535 questions", with(4, &[0xff, 0xff]), Some(1)),
        ("half a question", good[..end - 3].to_vec(), Some(1)),
        ("a question that points at itself", with(12, &[0xc0, 12]), Some(1)),
        ("a question that points ahead", with(12, &[0xc0, 40]), Some(1)),
        ("a label of 64", with(12, &[64]), Some(1)),
        ("a label beyond the end", with(12, &[63]), Some(1)),
        ("a status request", with(2, &[0x11]), Some(4)),
        ("a notify", with(2, &[0x21]), Some(4)),
        ("an update", with(2, &[0x29]), Some(4)),
        ("class HS", with(end - 1, &[4]), Some(5)),
        ("class ANY", with(end - 1, &[255]), Some(5)),
        ("OPT twice", [&with(11, &[2])[..], &OPT, &OPT].concat(), Some(1)),
        ("bytes after the end", [&good[..], &OPT].concat(), Some(0)),
        ("OPT with a name", added(10, &[1, b'x', 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]), Some(1)),
        (
            "an option beyond OPT's end",
            added(10, &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 10, 0, 8]),
            Some(1),
        ),
        ("a record that is not there", added(6, &[]), Some(1)),
        (
            "a record that points at itself",
            added(6, &[0xc0, end as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]),
            Some(1),
        ),
        ("EDNS of tomorrow", added(10, &[0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0]), Some(0)),
    ];
    for (what, bytes, wanted) in cases {
        let answer = send(server.addr, &bytes).await;
        assert_eq!(answer.as_ref().map(|a| a[3] & 15), wanted, "{what}");
        // Little is gained by lying about who asks.
        let most = answer.map_or(0, |a| a.len());
        assert!(most <= bytes.len().max(12) * 4, "{what}: {most} bytes for {}", bytes.len());
    }
    assert!(server.dropped("not_a_query") >= 2.0);
    assert!(server.counted("coredns_dns_responses_total", "rcode=\"FORMERR\"") >= 13.0);
    assert!(server.counted("coredns_dns_responses_total", "rcode=\"NOTIMP\"") >= 3.0);
    server.is_well().await;
}
