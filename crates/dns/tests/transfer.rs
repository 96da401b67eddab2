//! Zones handed over whole, over real sockets: who gets them, in how many messages, and what a client that has been here
//! before gets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use eastwest_compile::{CompiledService, DnsEndpoint, DnsPort, DnsService, ServiceKey};
use eastwest_dns::{
    Access, Corefile, Environment, ForwardOptions, Forwarder, Index, IndexOptions, Metrics, Resolver, Server,
    ServerOptions,
};
use eastwest_model::{DnsRecord, Protocol};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

const ZONE: &str = "cluster.local.";

fn index() -> Arc<Index> {
    let index = Index::new(IndexOptions::default()).unwrap();
    let port = |name: &str, port| DnsPort { name: name.into(), protocol: Protocol::TCP, port };
    let ports: Arc<[_]> = vec![port("sql", 5432), port("", 9)].into();
    let endpoint = |i: u32, hostname: Option<&str>| DnsEndpoint {
        addr: std::net::Ipv4Addr::from(0x0af4_0000 + i).into(),
        hostname: hostname.map(Into::into),
        ports: ports.clone(),
    };
    let mut services = vec![
        (
            "web",
            DnsService::ClusterIp {
                ips: vec!["10.96.0.1".parse().unwrap(), "fd00:10:96::1".parse().unwrap()],
                ports: vec![port("http", 80), port("", 9)],
                endpoints: vec![endpoint(1, None)],
            },
        ),
        ("db", DnsService::Headless { endpoints: vec![endpoint(2, Some("db-0")), endpoint(3, None)] }),
        ("out", DnsService::ExternalName { target: "www.example.test".into() }),
        ("none", DnsService::ExternalName { target: "192.0.2.1".into() }),
    ];
    let many = (10..1010).map(|i| endpoint(i, None)).collect();
    services.push(("many", DnsService::Headless { endpoints: many }));
    for (name, dns) in services {
        let key = ServiceKey::new("default", name);
        index.apply(&key, Some(&CompiledService { key: key.clone(), frontends: Vec::new(), dns }));
    }
    let long = "x".repeat(20_000);
    for (name, owner, rtype, value) in [
        ("printer", "printer.cluster.local", "A", "192.0.2.9"),
        ("long", "long.cluster.local", "TXT", long.as_str()),
        // The Service's own address stands before it.
        ("shadowed", "web.default.svc.cluster.local", "A", "192.0.2.66"),
        ("beside", "web.default.svc.cluster.local", "TXT", "told"),
    ] {
        let record: DnsRecord = serde_json::from_value(serde_json::json!({
            "apiVersion": "eastwest.dev/v1", "kind": "DnsRecord",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"name": owner, "type": rtype, "values": [value]},
        }))
        .unwrap();
        index.apply_record("default", name, Some(&record)).unwrap();
    }
    index.set_synced(true);
    Arc::new(index)
}

struct Served {
    addr: SocketAddr,
    metrics: Arc<Metrics>,
    _stop: tokio_util::sync::DropGuard,
}

async fn serve(index: Arc<Index>, transfer: &str) -> Served {
    serve_with(index, transfer, ServerOptions::default()).await
}

async fn serve_with(index: Arc<Index>, transfer: &str, options: ServerOptions) -> Served {
    let metrics = Metrics::new();
    let forwarder = Forwarder::new(ForwardOptions::default(), metrics.clone());
    let resolver = Resolver::new(index, forwarder, metrics.clone());
    let server = Server::bind(&["127.0.0.1:0".parse().unwrap()], resolver.clone(), options).unwrap();
    let addr = server.addresses()[0];
    let stop = CancellationToken::new();
    tokio::spawn(server.run(stop.clone()));
    let environment = Environment { ns_addresses: vec!["10.96.0.10".parse().unwrap()], ..Default::default() };
    let text = format!(". {{\n kubernetes cluster.local in-addr.arpa\n {transfer}\n}}");
    let corefile = Corefile::parse(&text, Path::new("/nonexistent"), &environment).unwrap();
    resolver.configure(Some(&corefile), Access::open(), &environment).unwrap();
    Served { addr, metrics, _stop: stop.drop_guard() }
}

fn request(zone: &str, rtype: RecordType, serial: Option<u32>) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let zone = Name::from_ascii(zone).unwrap();
    message.add_query(Query::query(zone.clone(), rtype));
    if let Some(serial) = serial {
        let soa = SOA::new(zone.clone(), zone.clone(), serial, 1, 1, 1, 1);
        message.add_authority(Record::from_rdata(zone, 0, RData::SOA(soa)));
    }
    message
}

async fn read(stream: &mut TcpStream) -> Message {
    let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

async fn ask(stream: &mut TcpStream, message: &Message) {
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

/// All messages up to the second SOA, or the one that is an error or has a SOA only.
async fn transfer(to: SocketAddr, message: &Message) -> Vec<Message> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    ask(&mut stream, message).await;
    let mut parts = Vec::new();
    let mut seen = 0;
    while seen < 2 {
        let part = read(&mut stream).await;
        assert_eq!((part.metadata.id, &part.queries), (7, &message.queries));
        seen += part.answers.iter().filter(|r| r.record_type() == RecordType::SOA).count();
        let end = part.answers.len() < 2 && parts.is_empty();
        parts.push(part);
        if end {
            break;
        }
    }
    // The connection goes on.
    ask(&mut stream, &request("web.default.svc.cluster.local.", RecordType::A, None)).await;
    assert_eq!(read(&mut stream).await.answers.len(), 1);
    parts
}

fn serial_of(parts: &[Message]) -> u32 {
    match &parts[0].answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_zone_is_what_its_names_say() {
    let index = index();
    let served = serve(index.clone(), "transfer {\n to *\n }").await;
    let parts = transfer(served.addr, &request(ZONE, RecordType::AXFR, None)).await;
    let all: Vec<&Record> = parts.iter().flat_map(|p| &p.answers).collect();
    assert!(parts.len() > 4, "{} messages", parts.len());
    assert!(parts.iter().all(|p| p.metadata.authoritative && !p.metadata.truncation));
    let (first, last) = (all[0], all[all.len() - 1]);
    assert_eq!((first, first.record_type()), (last, RecordType::SOA));

    // Some by hand.
    let lines: BTreeSet<String> =
        all.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect();
    for line in [
        "cluster.local. NS ns.dns.cluster.local.",
        "ns.dns.cluster.local. A 10.96.0.10",
        "dns-version.cluster.local. TXT 1.1.0",
        "web.default.svc.cluster.local. AAAA fd00:10:96::1",
        "web.default.svc.cluster.local. SRV 0 25 9 web.default.svc.cluster.local.",
        "_http._tcp.web.default.svc.cluster.local. SRV 0 50 80 web.default.svc.cluster.local.",
        "db.default.svc.cluster.local. A 10.244.0.3",
        "db-0.db.default.svc.cluster.local. A 10.244.0.2",
        "_sql._tcp.db.default.svc.cluster.local. SRV 0 50 5432 10-244-0-3.db.default.svc.cluster.local.",
        "out.default.svc.cluster.local. CNAME www.example.test.",
        "printer.cluster.local. A 192.0.2.9",
        "web.default.svc.cluster.local. TXT told",
    ] {
        assert!(lines.contains(line), "{line} is missing");
    }
    // Whatever is in it, a look-up gives too, and with that TTL.
    let is_of_many = |r: &Record| r.name.to_ascii().contains("many.");
    let (many, few): (Vec<&Record>, Vec<&Record>) = all[1..all.len() - 1].iter().partition(|r| is_of_many(r));
    // An answer with 1,000 ports does not fit a message.
    let fitting = many.into_iter().filter(|r| r.record_type() != RecordType::SRV).step_by(500);
    for record in few.into_iter().chain(fitting) {
        let answer = index.lookup(&record.name.to_ascii(), record.record_type()).unwrap();
        assert!(answer.answers.contains(record), "{record} is not what is answered: {:?}", answer.answers);
    }
    // 3 addresses, 3 SRV of two ports; 1,000 endpoints twice, and their port.
    let of = |name: &str| lines.iter().filter(|l| l.split(' ').next().unwrap().contains(name)).count();
    assert_eq!((of("web.default"), of("many.default")), (6, 3000));
    assert_eq!((of("none.default"), of("long.cluster")), (0, 1));
}

#[tokio::test]
async fn who_gets_what() {
    use RecordType::{AXFR, IXFR};
    let index = index();
    let granted = "transfer {\n to 192.0.2.7 127.0.0.1:53\n }";
    // Corefile, zone, type, serial from the present one on; code and whether all of it came.
    let refused = (ResponseCode::Refused, false);
    let failed = (ResponseCode::ServFail, false);
    for (corefile, zone, rtype, serial, wanted) in [
        (granted, ZONE, AXFR, None, (ResponseCode::NoError, true)),
        (granted, "CLUSTER.local.", AXFR, None, (ResponseCode::NoError, true)),
        (granted, ZONE, IXFR, Some(-1), (ResponseCode::NoError, true)),
        (granted, ZONE, IXFR, Some(i32::MIN + 1), (ResponseCode::NoError, true)),
        (granted, ZONE, IXFR, Some(0), (ResponseCode::NoError, false)),
        (granted, ZONE, IXFR, Some(5), (ResponseCode::NoError, false)),
        (granted, ZONE, IXFR, None, failed),
        // No zone, one that has no names of its own, and one that is not ours.
        (granted, "svc.cluster.local.", AXFR, None, refused),
        (granted, "in-addr.arpa.", AXFR, None, refused),
        (granted, "example.test.", AXFR, None, refused),
        ("transfer {\n to 192.0.2.7\n }", ZONE, AXFR, None, refused),
        ("transfer other.test {\n to *\n }", ZONE, AXFR, None, refused),
        // The longest zone counts.
        ("transfer {\n to *\n }\n transfer local {\n to 192.0.2.7\n }", ZONE, AXFR, None, refused),
        ("transfer {\n to *\n }\n acl {\n block type AXFR net *\n }", ZONE, AXFR, None, refused),
        ("errors", ZONE, AXFR, None, refused),
    ] {
        let served = serve(index.clone(), corefile).await;
        let now = match &index.lookup(ZONE, RecordType::SOA).unwrap().answers[0].data {
            RData::SOA(soa) => soa.serial,
            other => panic!("{other}"),
        };
        let serial = serial.map(|s: i32| now.wrapping_add_signed(s));
        let parts = transfer(served.addr, &request(zone, rtype, serial)).await;
        let whole = parts.len() > 1;
        assert_eq!((parts[0].metadata.response_code, whole), wanted, "{corefile} {zone} {rtype} {serial:?}");
        if wanted == (ResponseCode::NoError, false) {
            assert_eq!((parts[0].answers.len(), serial_of(&parts)), (1, now));
        }
    }
    let served = serve(index.clone(), granted).await;
    transfer(served.addr, &request(ZONE, AXFR, None)).await;
    // By UDP nothing is handed over.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&request(ZONE, AXFR, None).to_vec().unwrap(), served.addr).await.unwrap();
    let mut buf = [0; 512];
    let n = socket.recv(&mut buf).await.unwrap();
    assert_eq!(Message::from_vec(&buf[..n]).unwrap().metadata.response_code, ResponseCode::Refused);
    // Not before everything is known.
    index.set_synced(false);
    let parts = transfer(served.addr, &request(ZONE, AXFR, None)).await;
    assert_eq!(parts[0].metadata.response_code, ResponseCode::ServFail);

    let mut registry = prometheus_client::registry::Registry::default();
    served.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let counted = |rcode: &str| {
        let has = |l: &&str| l.contains("plugin=\"transfer\"") && l.contains(&format!("rcode=\"{rcode}\""));
        text.lines().filter(|l| l.starts_with("coredns_dns_responses_total")).find(has).is_some()
    };
    assert!(counted("NOERROR") && counted("SERVFAIL"), "{text}");
}

#[tokio::test]
async fn so_many_at_once() {
    let options = ServerOptions { transfers: 0, ..ServerOptions::default() };
    let served = serve_with(index(), "transfer {\n to *\n }", options).await;
    let parts = transfer(served.addr, &request(ZONE, RecordType::AXFR, None)).await;
    assert_eq!((parts.len(), parts[0].metadata.response_code), (1, ResponseCode::ServFail));
}
