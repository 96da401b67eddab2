//! What fuzz targets call (`crates/dns/fuzz`): bytes as they come in by the network, texts as they come in by files.
//! Each function panics when something that must always hold does not.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use eastwest_compile::{CompiledService, DnsEndpoint, DnsPort, DnsService, ServiceKey};
use eastwest_model::Protocol;
use hickory_proto::op::Message;

use crate::cache::{Question, Reply};
use crate::engine::{Engine, Verdict, Worker};
use crate::wire::{CLASS_IN, HEADER, Name, Request, u16_at};
use crate::writer::{Limits, Transport};
use crate::{
    CacheLimits, Corefile, Environment, ForwardOptions, Forwarder, Index, IndexOptions, Metrics, Resolver,
};

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
const LIMIT: u16 = 1232;

fn index() -> Index {
    let index = Index::new(IndexOptions::default()).expect("the usual options");
    let port = DnsPort { name: "http".into(), protocol: Protocol::TCP, port: 80 };
    let ports: Arc<[_]> = vec![port.clone()].into();
    let endpoint = |i: u32| DnsEndpoint {
        addr: Ipv4Addr::from(0x0af4_0000 + i).into(),
        hostname: i.is_multiple_of(2).then(|| format!("h{i}").into()),
        ports: ports.clone(),
    };
    for (name, dns) in [
        (
            "web",
            DnsService::ClusterIp {
                ips: vec![Ipv4Addr::new(10, 96, 0, 1).into()],
                ports: vec![port],
                endpoints: (0..3).map(endpoint).collect(),
            },
        ),
        ("many", DnsService::Headless { endpoints: (0..300).map(endpoint).collect() }),
        ("out", DnsService::ExternalName { target: "www.example.test".into() }),
        ("in", DnsService::ExternalName { target: "web.default.svc.cluster.local".into() }),
    ] {
        let key = ServiceKey::new("default", name);
        index.apply(&key, Some(&CompiledService { key: key.clone(), frontends: Vec::new(), dns }));
    }
    index.set_synced(true);
    index
}

fn worker(transport: Transport) -> Worker {
    let metrics = Metrics::new();
    let forwarder = Forwarder::new(ForwardOptions::default(), metrics.clone());
    let resolver = Resolver::new(Arc::new(index()), forwarder, metrics.clone());
    let engine = Engine { resolver, limits: Limits { udp: LIMIT }, idle: 100 };
    let counters = metrics.worker(SocketAddr::new(CLIENT.ip(), 53), transport);
    Worker::new(Arc::new(engine), transport, counters)
}

thread_local! {
    static WORKERS: RefCell<[Worker; 2]> = RefCell::new([worker(Transport::Udp), worker(Transport::Tcp)]);
}

/// A request by UDP and by TCP: silence, or a response that can be read, is to this request, and is no longer than
/// its way allows.
///
/// # Panics
/// When it is not.
pub fn request(bytes: &[u8]) {
    WORKERS.with_borrow_mut(|workers| {
        for (worker, limit) in workers.iter_mut().zip([usize::from(LIMIT), 65_535]) {
            let mut out = Vec::new();
            match worker.handle(bytes, CLIENT, &mut out) {
                Verdict::Silence => continue,
                Verdict::Reply => {}
                Verdict::Pending(pending) => out = pending.refuse(),
            }
            assert_eq!(out[..2], bytes[..2], "the id");
            assert!(out[2] & 0x80 != 0, "QR");
            assert!(out.len() <= limit.max(512), "{} bytes", out.len());
            Message::from_vec(&out).expect("a response that can be read");
        }
    });
}

/// What an upstream says, taken as the answer to the question it has itself.
///
/// # Panics
/// When a reply that was taken cannot be written again.
pub fn reply(bytes: &[u8]) {
    let Some((name, end)) = Name::read(bytes, HEADER.min(bytes.len())) else { return };
    let (Some(id), Some(qtype)) = (u16_at(bytes, 0), u16_at(bytes, end)) else { return };
    // The query that such an answer would be to.
    let mut asked = vec![bytes[0], bytes[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    asked.extend(name.wire());
    asked.extend(qtype.to_be_bytes());
    asked.extend(CLASS_IN.to_be_bytes());
    let Request::Query(query) = Request::parse(&asked) else { return };
    let Some(reply) = Reply::parse(bytes.to_vec(), id, &Question::of(&query), CacheLimits::default()) else {
        return;
    };
    let mut out = Vec::new();
    reply.write(&mut out, std::time::Instant::now());
    let length = out.len();
    reply.rotate(&mut out);
    assert_eq!(out.len(), length);
    crate::engine::joined(&asked, &query, &reply);
}

/// A Corefile: a plan, or an error. Files that it names are read: not those of devices and processes.
pub fn corefile(text: &str) {
    if ["/dev", "/proc", "/sys", ".."].iter().any(|f| text.contains(f)) {
        return;
    }
    let environment =
        Environment { variables: [("A".to_owned(), "b".to_owned())].into(), ..Environment::default() };
    match Corefile::parse(text, Path::new("/nonexistent"), &environment) {
        Ok(corefile) => {
            let _ = corefile.pod_names();
            if let Err(e) = corefile.check(&environment) {
                assert!(!e.to_string().is_empty());
            }
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}
