//! What a Corefile makes of queries, over real sockets, with upstreams of our own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eastwest_compile::{CompiledService, DnsService, ServiceKey};
use eastwest_dns::{
    Access, Corefile, Environment, ForwardOptions, Forwarder, Index, IndexOptions, Metrics, Resolver, Server,
    ServerOptions,
};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;

/// A resolver that knows some names, each with a TTL of 300 s; it counts, and falls silent or fails when told to.
#[derive(Default)]
struct World {
    names: Mutex<HashMap<&'static str, [u8; 4]>>,
    ttl: AtomicUsize,
    asked: Mutex<Vec<String>>,
    silent: AtomicBool,
}

impl World {
    fn answer(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(bytes).unwrap();
        let question = &query.queries[0];
        let name = question.name().to_ascii().to_ascii_lowercase();
        self.asked.lock().unwrap().push(format!("{name} {}", question.query_type()));
        if self.silent.load(SeqCst) {
            return None;
        }
        let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        reply.add_query(question.clone());
        let ttl = self.ttl.load(SeqCst) as u32;
        let known = self.names.lock().unwrap().get(name.as_str()).copied();
        match known {
            Some(ip) if question.query_type() == RecordType::A => {
                reply.add_answer(Record::from_rdata(question.name().clone(), ttl, RData::A(A(ip.into()))));
            }
            known => {
                if known.is_none() {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                }
                let zone = Name::from_ascii("test.").unwrap();
                let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 20);
                reply.add_authority(Record::from_rdata(zone, 20, RData::SOA(soa)));
            }
        }
        Some(reply.to_vec().unwrap())
    }

    fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|a| a.contains(what)).count()
    }
}

async fn world(names: &[(&'static str, [u8; 4])]) -> (Arc<World>, SocketAddr) {
    let world = Arc::new(World {
        names: Mutex::new(names.iter().copied().collect()),
        ttl: 300.into(),
        ..World::default()
    });
    let (socket, listener) = loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
            break (socket, listener);
        }
    };
    let addr = socket.local_addr().unwrap();
    let (udp, tcp) = (world.clone(), world.clone());
    tokio::spawn(async move {
        let mut buf = [0; 4096];
        loop {
            let (n, peer) = socket.recv_from(&mut buf).await.unwrap();
            if let Some(reply) = udp.answer(&buf[..n]) {
                socket.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let world = tcp.clone();
            tokio::spawn(async move { serve_stream(stream, world, "tcp").await });
        }
    });
    (world, addr)
}

async fn serve_stream<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S, world: Arc<World>, how: &str) {
    while let Ok(n) = stream.read_u16().await {
        let mut bytes = vec![0; n.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        world.asked.lock().unwrap().push(how.to_owned());
        if let Some(reply) = world.answer(&bytes) {
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    }
}

struct Served {
    addr: SocketAddr,
    tls: Option<SocketAddr>,
    resolver: Arc<Resolver>,
    index: Arc<Index>,
    metrics: Arc<Metrics>,
    environment: Environment,
    _stop: tokio_util::sync::DropGuard,
}

impl Served {
    fn follow(&self, corefile: &str) {
        let corefile = Corefile::parse(corefile, Path::new("/nonexistent"), &self.environment).unwrap();
        self.resolver.configure(Some(&corefile), Access::open(), &self.environment).unwrap();
    }

    fn metric(&self, line: &str) -> bool {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().any(|l| l.starts_with(line))
    }
}

async fn serve(corefile: &str) -> Served {
    serve_with(corefile, ServerOptions { workers: 1, ..ServerOptions::default() }).await
}

async fn serve_with(corefile: &str, options: ServerOptions) -> Served {
    let index = Arc::new(Index::new(IndexOptions::default()).unwrap());
    let key = ServiceKey::new("default", "web");
    let dns =
        DnsService::ClusterIp { ips: vec!["10.96.0.1".parse().unwrap()], ports: vec![], endpoints: vec![] };
    index.update(|u| {
        u.apply(&key, Some(&CompiledService { key: key.clone(), frontends: Vec::new(), dns }));
        u.set_namespaces(["default", "shop"]);
        u.apply_pod("shop", "client", &["127.0.0.1".parse().unwrap()]);
        u.set_synced(true);
    });
    let metrics = Metrics::new();
    let forward = ForwardOptions { timeout: Duration::from_millis(200), ..ForwardOptions::default() };
    let forwarder = Forwarder::new(forward, metrics.clone());
    let resolver = Resolver::new(index.clone(), forwarder, metrics.clone());
    let server = Server::bind(&["127.0.0.1:0".parse().unwrap()], resolver.clone(), options).unwrap();
    let (addr, tls) = (server.addresses()[0], server.tls_addresses().first().copied());
    let stop = CancellationToken::new();
    tokio::spawn(server.run(stop.clone()));
    let environment =
        Environment { node: "node-7".into(), resolv_conf: "/nonexistent".into(), ..Environment::default() };
    let served = Served { addr, tls, resolver, index, metrics, environment, _stop: stop.drop_guard() };
    served.follow(corefile);
    served
}

fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

async fn send(to: SocketAddr, query: &Message) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(&query.to_vec().unwrap()).await.unwrap();
    let mut buf = [0; 4096];
    let n = tokio::time::timeout(Duration::from_secs(3), socket.recv(&mut buf)).await.ok()?.unwrap();
    let response = Message::from_vec(&buf[..n]).unwrap();
    assert_eq!(response.queries, query.queries, "the question as it was asked");
    Some(response)
}

/// `CODE: RECORD; RECORD`, records without TTL and class.
async fn ask(to: SocketAddr, name: &str, rtype: RecordType) -> String {
    let Some(answer) = send(to, &query(name, rtype)).await else { return "silence".into() };
    let records = answer.answers.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data));
    format!("{:?}: {}", answer.metadata.response_code, records.collect::<Vec<_>>().join("; "))
}

#[tokio::test]
async fn each_plugin_does_what_it_says() {
    let (_, up) = world(&[("www.example.test.", [192, 0, 2, 1]), ("other.test.", [192, 0, 2, 2])]).await;
    let (_, second) = world(&[("in.corp.test.", [192, 0, 2, 3])]).await;
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "192.0.2.50 file.test\n2001:db8::50 file.test\n").unwrap();
    let hosts = hosts.display();
    let forward = format!("forward . {up}");
    use RecordType::{A, AAAA, ANY, HINFO, MX, PTR, TXT};
    // Corefile, question, answer.
    let cases = [
        (forward.clone(), "www.example.test.", A, "NoError: www.example.test. A 192.0.2.1"),
        (forward.clone(), "none.test.", A, "NXDomain: "),
        // Cluster names only where kubernetes stands.
        (forward.clone(), "web.default.svc.cluster.local.", A, "NXDomain: "),
        (
            format!("kubernetes cluster.local\n{forward}"),
            "web.default.svc.cluster.local.",
            A,
            "NoError: web.default.svc.cluster.local. A 10.96.0.1",
        ),
        (
            format!("kubernetes cluster.local {{\n fallthrough\n}}\n{forward}"),
            "x.cluster.local.",
            A,
            "NXDomain: ",
        ),
        // The first forward whose zone fits; `except`.
        (
            format!("forward corp.test {second}\n{forward}"),
            "in.corp.test.",
            A,
            "NoError: in.corp.test. A 192.0.2.3",
        ),
        (format!("{forward} {{\n except corp.test\n}}"), "in.corp.test.", A, "ServFail: "),
        // rewrite: every kind, the answer under the asked name.
        (
            format!("rewrite name ask.me.test www.example.test\n{forward}"),
            "Ask.me.test.",
            A,
            "NoError: ask.me.test. A 192.0.2.1",
        ),
        (
            format!("rewrite name suffix .corp .example.test answer auto\n{forward}"),
            "www.corp.",
            A,
            "NoError: www.corp. A 192.0.2.1",
        ),
        (
            format!("rewrite stop name regex ^(.+)\\.short\\.$ {{1}}.example.test\n{forward}"),
            "www.short.",
            A,
            "NoError: www.short. A 192.0.2.1",
        ),
        (
            format!("rewrite type MX A\n{forward}"),
            "www.example.test.",
            MX,
            "NoError: www.example.test. A 192.0.2.1",
        ),
        (
            format!(
                "rewrite name web.shop.test web.default.svc.cluster.local\nkubernetes cluster.local\n{forward}"
            ),
            "web.shop.test.",
            A,
            "NoError: web.shop.test. A 10.96.0.1",
        ),
        // hosts
        (
            format!("hosts {hosts} {{\n fallthrough\n}}\n{forward}"),
            "FILE.test.",
            A,
            "NoError: FILE.test. A 192.0.2.50",
        ),
        (
            format!("hosts {hosts} {{\n fallthrough\n}}\n{forward}"),
            "file.test.",
            AAAA,
            "NoError: file.test. AAAA 2001:db8::50",
        ),
        (format!("hosts {hosts} {{\n fallthrough\n}}\n{forward}"), "file.test.", MX, "NoError: "),
        (
            format!("hosts {hosts} {{\n fallthrough\n}}\n{forward}"),
            "other.test.",
            A,
            "NoError: other.test. A 192.0.2.2",
        ),
        (format!("hosts {hosts}\n{forward}"), "other.test.", A, "ServFail: "),
        (
            format!("hosts {hosts}\n{forward}"),
            "50.2.0.192.in-addr.arpa.",
            PTR,
            "NoError: 50.2.0.192.in-addr.arpa. PTR file.test.",
        ),
        // template
        (
            format!(
                "template IN A ip.test {{\n match ^(?P<a>[0-9]+)\\.ip\\.test\\.$\n answer \"{{{{ .Name }}}} 60 IN A \
                  10.0.0.{{{{ .Group.a }}}}\"\n fallthrough\n}}\n{forward}"
            ),
            "9.ip.test.",
            A,
            "NoError: 9.ip.test. A 10.0.0.9",
        ),
        ("template IN ANY {\n rcode NXDOMAIN\n}".into(), "any.thing.", TXT, "NXDomain: "),
        // The rest.
        (
            format!("any\n{forward}"),
            "www.example.test.",
            ANY,
            "NoError: www.example.test. HINFO ANY obsoleted See RFC 8482",
        ),
        (format!("local\n{forward}"), "localhost.", A, "NoError: localhost. A 127.0.0.1"),
        (
            format!("local\n{forward}"),
            "1.0.0.127.in-addr.arpa.",
            PTR,
            "NoError: 1.0.0.127.in-addr.arpa. PTR localhost.",
        ),
        (
            format!(
                "acl {{\n block type HINFO\n filter type TXT net 127.0.0.0/8\n drop type MX\n}}\n{forward}"
            ),
            "www.example.test.",
            HINFO,
            "Refused: ",
        ),
        (
            format!(
                "acl {{\n block type HINFO\n filter type TXT net 127.0.0.0/8\n drop type MX\n}}\n{forward}"
            ),
            "www.example.test.",
            TXT,
            "NoError: ",
        ),
        (
            format!("dns64 {{\n allow_ipv4\n}}\n{forward}"),
            "www.example.test.",
            AAAA,
            "NoError: www.example.test. AAAA 64:ff9b::c000:201",
        ),
        (format!("dns64\n{forward}"), "www.example.test.", AAAA, "NoError: "),
        // By the namespace of the pod that asks.
        (
            format!("kubernetes cluster.local\n{forward}"),
            "www.example.test.shop.svc.cluster.local.",
            A,
            "NoError: www.example.test.shop.svc.cluster.local. CNAME www.example.test.; www.example.test. A 192.0.2.1",
        ),
        (
            format!("kubernetes cluster.local\n{forward}"),
            "web.default.shop.svc.cluster.local.",
            A,
            "NoError: web.default.shop.svc.cluster.local. CNAME web.default.svc.cluster.local.; \
             web.default.svc.cluster.local. A 10.96.0.1",
        ),
        (
            format!("kubernetes cluster.local\n{forward}"),
            "www.example.test.default.svc.cluster.local.",
            A,
            "NXDomain: ",
        ),
        (format!("kubernetes cluster.local\n{forward}"), "gone.shop.svc.cluster.local.", A, "NXDomain: "),
        (
            format!("kubernetes cluster.local\n{forward}"),
            "no.such.test.shop.svc.cluster.local.",
            A,
            "NXDomain: ",
        ),
    ];
    let server = serve(".:53 {\n whoami\n}").await;
    for (corefile, name, rtype, expected) in cases {
        server.follow(&format!(".:53 {{\n{corefile}\n}}"));
        let mut got = ask(server.addr, name, rtype).await;
        if name.starts_with("Ask") {
            got = got.to_ascii_lowercase().replace("noerror", "NoError").replace(" a ", " A ");
        }
        assert_eq!(got.trim(), expected.trim(), "{corefile}\n{name} {rtype}");
    }
    let who = send(server.addr, &query("x.test.", A)).await;
    assert!(who.is_some());
    server.follow(".:53 {\n whoami\n}");
    let who = send(server.addr, &query("x.test.", A)).await.unwrap();
    assert_eq!(who.additionals[0].data.to_string(), "127.0.0.1");
}

#[tokio::test]
async fn dropped_by_acl_is_silence_and_counted() {
    let server = serve(". {\n acl {\n  drop net 127.0.0.0/8\n }\n whoami\n}").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query("x.test.", RecordType::A).to_vec().unwrap(), server.addr).await.unwrap();
    let mut buf = [0; 512];
    assert!(tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut buf)).await.is_err());
    let line = format!(
        "eastwest_dns_dropped_total{{server=\"dns://{}\",proto=\"udp\",reason=\"acl\"}} 1",
        server.addr
    );
    assert!(server.metric(&line));
}

#[tokio::test]
async fn blocks_by_the_longest_zone() {
    let (_, a) = world(&[("x.a.test.", [192, 0, 2, 1])]).await;
    let (_, b) = world(&[("x.b.a.test.", [192, 0, 2, 2]), ("y.test.", [192, 0, 2, 9])]).await;
    let server = serve(&format!("a.test {{\n forward . {a}\n}}\nb.a.test:53 {{\n forward . {b}\n}}\n")).await;
    assert_eq!(ask(server.addr, "x.a.test.", RecordType::A).await, "NoError: x.a.test. A 192.0.2.1");
    assert_eq!(ask(server.addr, "x.b.a.test.", RecordType::A).await, "NoError: x.b.a.test. A 192.0.2.2");
    assert_eq!(ask(server.addr, "y.test.", RecordType::A).await, "Refused: ", "no block has it");
}

#[tokio::test]
async fn cookies_nsid_and_who_we_are() {
    let server = serve(". {\n nsid\n whoami\n}").await;
    let with = |option: (u16, &[u8])| {
        let mut message = query("x.test.", RecordType::A);
        let mut edns = Edns::new();
        edns.options_mut().insert(EdnsOption::Unknown(option.0, option.1.to_vec()));
        message.set_edns(edns);
        message
    };
    let option = |m: &Message, code: u16| -> Option<Vec<u8>> {
        let options = m.edns.as_ref()?.options();
        let found = options.as_ref().iter().find(|(c, _)| u16::from(*c) == code)?;
        Vec::<u8>::try_from(&found.1).ok()
    };
    let first = send(server.addr, &with((10, b"12345678"))).await.unwrap();
    let cookie = option(&first, 10).unwrap();
    assert_eq!((cookie.len(), &cookie[..8]), (24, &b"12345678"[..]));
    let second = send(server.addr, &with((10, &cookie))).await.unwrap();
    assert_eq!(option(&second, 10).unwrap(), cookie, "a good one comes back");
    let mut forged = cookie.clone();
    forged[23] ^= 1;
    let third = send(server.addr, &with((10, &forged))).await.unwrap();
    assert_ne!(option(&third, 10).unwrap(), forged, "a forged one is replaced");
    for wrong in [&b"1234567"[..], b"123456789", &[0; 41]] {
        let answer = send(server.addr, &with((10, wrong))).await.unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr, "{}", wrong.len());
    }
    let nsid = send(server.addr, &with((3, b""))).await.unwrap();
    assert_eq!(option(&nsid, 3).unwrap(), b"node-7");
    // Over a connection: how long it may be idle, and nothing by UDP.
    assert_eq!(option(&send(server.addr, &with((11, b""))).await.unwrap(), 11), None);
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    for (asked, told) in [(11, Some(vec![0, 100])), (65_000, None)] {
        let bytes = with((asked, b"")).to_vec().unwrap();
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(option(&Message::from_vec(&bytes).unwrap(), 11), told);
    }
    let odd = send(server.addr, &with((65_000, b"xyz"))).await.unwrap();
    assert_eq!((odd.metadata.response_code, option(&odd, 65_000)), (ResponseCode::NoError, None));
    for (name, text) in
        [("version.bind.", Some("eastwest-")), ("id.server.", Some("node-7")), ("x.bind.", None)]
    {
        let mut message = query(name, RecordType::TXT);
        message.queries[0].set_query_class(DNSClass::CH);
        let answer = send(server.addr, &message).await.unwrap();
        match text {
            Some(text) => {
                assert!(answer.answers[0].data.to_string().contains(text), "{name}");
                assert_eq!(answer.answers[0].dns_class, DNSClass::CH);
            }
            None => assert_eq!(answer.metadata.response_code, ResponseCode::Refused),
        }
    }
}

#[tokio::test]
async fn old_answers_while_upstreams_are_silent() {
    let (w, up) = world(&[("www.test.", [192, 0, 2, 1])]).await;
    w.ttl.store(1, SeqCst);
    let cache = "cache {\n success 100 60 0\n serve_stale 1h verify\n}";
    let server = serve(&format!(". {{\n forward . {up}\n{cache}\n}}")).await;
    let right = "NoError: www.test. A 192.0.2.1";
    assert_eq!(ask(server.addr, "www.test.", RecordType::A).await, right);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    w.silent.store(true, SeqCst);
    let answer = send(server.addr, &query("www.test.", RecordType::A)).await.unwrap();
    assert_eq!((answer.answers.len(), answer.answers[0].ttl), (1, 30), "past its end, with RFC 8767's TTL");
    let begun = Instant::now();
    assert_eq!(ask(server.addr, "www.test.", RecordType::A).await, right);
    assert!(begun.elapsed() < Duration::from_millis(100), "the next ones do not wait again");
    assert!(server.metric("coredns_cache_served_stale_total"));
    assert_eq!(ask(server.addr, "never.test.", RecordType::A).await, "ServFail: ");
}

#[tokio::test]
async fn what_is_asked_often_is_renewed_before_its_end() {
    let (w, up) = world(&[("www.test.", [192, 0, 2, 1])]).await;
    w.ttl.store(2, SeqCst);
    let server =
        serve(&format!(". {{\n forward . {up}\n cache {{\n  success 100 60 0\n  prefetch 3 1m 90%\n }}\n}}"))
            .await;
    for _ in 0..3 {
        ask(server.addr, "www.test.", RecordType::A).await;
    }
    assert_eq!(w.asked("www.test."), 1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    ask(server.addr, "www.test.", RecordType::A).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(w.asked("www.test."), 2, "behind the asker's back");
}

#[tokio::test]
async fn caching_as_it_is_written() {
    let (w, up) = world(&[("www.test.", [192, 0, 2, 1])]).await;
    for (cache, name, times) in [
        ("", "www.test.", 3),
        ("cache", "www.test.", 1),
        ("cache", "none.test.", 1),
        ("cache {\n disable success\n}", "www.test.", 3),
        ("cache {\n disable denial test\n}", "none.test.", 3),
        ("cache {\n disable denial other\n}", "none.test.", 1),
    ] {
        let server = serve(&format!(". {{\n forward . {up}\n{cache}\n}}")).await;
        let before = w.asked(name);
        for _ in 0..3 {
            ask(server.addr, name, RecordType::A).await;
        }
        assert_eq!(w.asked(name) - before, times, "{cache} {name}");
    }
}

#[tokio::test]
async fn policies_probes_tcp_and_bounds() {
    let (a, first) = world(&[("www.test.", [192, 0, 2, 1])]).await;
    let (b, second) = world(&[("www.test.", [192, 0, 2, 1])]).await;
    let server = serve(&format!(". {{\n forward . {first} {second} {{\n  policy round_robin\n }}\n}}")).await;
    for _ in 0..10 {
        ask(server.addr, "www.test.", RecordType::A).await;
    }
    assert_eq!((a.asked("www.test."), b.asked("www.test.")), (5, 5));
    server.follow(&format!(
        ". {{\n forward . {first} {second} {{\n  policy sequential\n  health_check 100ms\n }}\n}}"
    ));
    a.silent.store(true, SeqCst);
    for _ in 0..5 {
        assert_eq!(ask(server.addr, "www.test.", RecordType::A).await, "NoError: www.test. A 192.0.2.1");
    }
    assert!(a.asked("www.test.") <= 6, "one that is silent is asked last");
    a.silent.store(false, SeqCst);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(a.asked(". NS") > 0, "probed");
    let before = a.asked("www.test.");
    ask(server.addr, "www.test.", RecordType::A).await;
    assert_eq!(a.asked("www.test."), before + 1, "and asked again once it answers");
    // force_tcp keeps one connection for several questions.
    server.follow(&format!(". {{\n forward . {second} {{\n  force_tcp\n }}\n}}"));
    for name in ["a.test.", "b.test.", "c.test."] {
        assert_eq!(ask(server.addr, name, RecordType::A).await, "NXDomain: ");
    }
    assert_eq!(b.asked("tcp"), 3);
    // max_concurrent.
    a.silent.store(true, SeqCst);
    server.follow(&format!(". {{\n forward . {first} {{\n  max_concurrent 2\n }}\n}}"));
    let waiting: Vec<_> = (0..2)
        .map(|i| {
            let addr = server.addr;
            tokio::spawn(async move { ask(addr, &format!("w{i}.test."), RecordType::A).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    assert_eq!(ask(server.addr, "third.test.", RecordType::A).await, "ServFail: ");
    assert!(begun.elapsed() < Duration::from_millis(100), "at once");
    for w in waiting {
        w.await.unwrap();
    }
}

#[tokio::test]
async fn another_corefile_loses_no_query() {
    let (_, up) = world(&[("www.test.", [192, 0, 2, 1])]).await;
    let text = |ttl: u32| format!(". {{\n kubernetes cluster.local\n forward . {up}\n cache {ttl}\n}}");
    let server = Arc::new(serve(&text(1)).await);
    let done = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..4)
        .map(|i| {
            let (addr, done) = (server.addr, done.clone());
            tokio::spawn(async move {
                let (name, right) = match i % 2 {
                    0 => ("www.test.", "NoError: www.test. A 192.0.2.1"),
                    _ => (
                        "web.default.svc.cluster.local.",
                        "NoError: web.default.svc.cluster.local. A 10.96.0.1",
                    ),
                };
                let mut n = 0;
                while !done.load(SeqCst) {
                    assert_eq!(ask(addr, name, RecordType::A).await, right);
                    n += 1;
                }
                n
            })
        })
        .collect();
    for i in 0..50 {
        server.follow(&text(i % 5 + 1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done.store(true, SeqCst);
    for asker in askers {
        assert!(asker.await.unwrap() > 10);
    }
    assert!(server.index.synced());
}

fn certificate(names: &[&str], dir: &Path) -> Arc<rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
        .unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    eastwest_dns::tls_config(&cert, &key).unwrap()
}

#[tokio::test]
async fn tls_to_clients_and_to_upstreams() {
    let dir = tempfile::tempdir().unwrap();
    let config = certificate(&["dns.test"], dir.path());
    let cert = dir.path().join("cert.pem");
    // An upstream that speaks TLS.
    let (w, _) = world(&[("www.test.", [192, 0, 2, 1])]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
    let served = w.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, world) = (acceptor.clone(), served.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_stream(stream, world, "tls").await;
                }
            });
        }
    });
    let options = ServerOptions { workers: 1, tls: Some(config), tls_port: 0, ..ServerOptions::default() };
    let forward = |name: &str| {
        let cert = cert.display();
        format!(". {{\n forward . tls://{up} {{\n  tls {cert}\n  tls_servername {name}\n }}\n}}")
    };
    let server = serve_with(&forward("dns.test"), options).await;
    assert_eq!(ask(server.addr, "www.test.", RecordType::A).await, "NoError: www.test. A 192.0.2.1");
    assert_eq!(w.asked("tls"), 1);
    server.follow(&forward("evil.test"));
    assert_eq!(
        ask(server.addr, "www.test.", RecordType::A).await,
        "ServFail: ",
        "not by the name it should have"
    );
    server.follow(&forward("dns.test"));
    // A client that speaks TLS, and asks for padding.
    let roots = {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
        roots
    };
    let client =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let tcp = TcpStream::connect(server.tls.unwrap()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut stream = connector.connect("dns.test".try_into().unwrap(), tcp).await.unwrap();
    for padded in [false, true] {
        let mut message = query("www.test.", RecordType::A);
        let mut edns = Edns::new();
        if padded {
            edns.options_mut().insert(EdnsOption::Unknown(12, vec![0; 4]));
        }
        message.set_edns(edns);
        let bytes = message.to_vec().unwrap();
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let n = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; n.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!((answer.answers.len(), n == 468), (1, padded));
    }
    assert!(server.metric(&format!("coredns_dns_requests_total{{server=\"tls://{}\"", server.tls.unwrap())));
}
