//! What the protocol's rules say of each odd request, and that no bytes whatever upset the engine.

use std::sync::Arc;

use eastwest_compile::{CompiledService, DnsEndpoint, DnsService, ServiceKey};
use eastwest_model::Protocol;
use hickory_proto::op::{Edns, MessageType, OpCode};
use hickory_proto::rr::{DNSClass, Name as HickoryName, RecordType};
use proptest::prelude::*;

use super::*;
use crate::index::tests::port;
use crate::{ForwardOptions, Forwarder, IndexOptions, Metrics};
use hickory_proto::op::ResponseCode;

const WEB: &str = "web.default.svc.cluster.local.";
const MANY: &str = "many.default.svc.cluster.local.";

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000);

fn worker(transport: Transport) -> Worker {
    let index = Index::new(IndexOptions::default()).unwrap();
    let http: Arc<[_]> = vec![port("http", Protocol::TCP, 80)].into();
    let endpoints = (0..500u32).map(|i| DnsEndpoint {
        addr: std::net::Ipv4Addr::from(0x0af4_0000 + i).into(),
        hostname: None,
        ports: http.clone(),
    });
    for (name, dns) in [
        (
            "web",
            DnsService::ClusterIp {
                ips: vec!["10.96.0.1".parse().unwrap()],
                ports: http.to_vec(),
                endpoints: Vec::new(),
            },
        ),
        ("many", DnsService::Headless { endpoints: endpoints.collect() }),
    ] {
        let key = ServiceKey::new("default", name);
        index.apply(&key, Some(&CompiledService { key: key.clone(), frontends: Vec::new(), dns }));
    }
    index.set_synced(true);
    let metrics = Metrics::new();
    let engine = Engine {
        resolver: Resolver::new(
            Arc::new(index),
            Forwarder::new(ForwardOptions::default(), metrics.clone()),
            metrics.clone(),
        ),
        limits: Limits { udp: 1232 },
        idle: 100,
    };
    let counters = metrics.worker("127.0.0.1:53".parse().unwrap(), transport);
    Worker::new(Arc::new(engine), transport, counters)
}

fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(hickory_proto::op::Query::query(HickoryName::from_ascii(name).unwrap(), rtype));
    message
}

fn with_edns(mut message: Message, payload: u16, version: u8, dnssec_ok: bool) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(version).set_dnssec_ok(dnssec_ok);
    message.set_edns(edns);
    message
}

/// The response's bytes; `None`: silence.
fn ask(worker: &mut Worker, request: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match worker.handle(request, CLIENT, &mut out) {
        Verdict::Reply => Some(out),
        Verdict::Silence => None,
        Verdict::Pending(pending) => Some(pending.refuse()),
    }
}

fn answer(worker: &mut Worker, message: &Message) -> (Message, usize) {
    let bytes = ask(worker, &message.to_vec().unwrap()).unwrap();
    (Message::from_vec(&bytes).unwrap(), bytes.len())
}

/// A client without TCP has what fits (musl before 1.2.4); additional records are no loss.
#[test]
fn an_answer_that_is_too_long_keeps_what_fits() {
    use hickory_proto::rr::{RData, Record, rdata::A};
    let asked = query(WEB, RecordType::A).to_vec().unwrap();
    let Request::Query(asked) = Request::parse(&asked) else { panic!("a query") };
    let record = |i: u8| {
        let ip = std::net::Ipv4Addr::new(192, 0, 2, i);
        Record::from_rdata(HickoryName::from_ascii(WEB).unwrap(), 30, RData::A(A(ip)))
    };
    for (answers, additional, left, truncated) in
        [(3, 0, (3, 0), false), (100, 0, (29, 0), true), (100, 5, (29, 0), true), (3, 100, (3, 26), false)]
    {
        let mut message = query(WEB, RecordType::A);
        message.metadata.message_type = MessageType::Response;
        message.answers = (0..answers).map(record).collect();
        message.additionals = (0..additional).map(record).collect();
        let mut out = message.to_vec().unwrap();
        fit(&mut out, &asked, Transport::Udp, Limits { udp: 1232 }, 0, asked.question_end);
        let seen = Message::from_vec(&out).unwrap();
        assert!(out.len() <= 512);
        assert_eq!((seen.answers.len(), seen.additionals.len()), left, "{answers} {additional}");
        assert_eq!(seen.metadata.truncation, truncated, "{answers} {additional}");
    }
}

#[test]
fn headers() {
    let mut udp = worker(Transport::Udp);
    let plain = query(WEB, RecordType::A).to_vec().unwrap();
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change, Option<u16>); 15] = [
        ("as it is", |_| {}, Some(rcode::NOERROR)),
        ("empty", |m| m.clear(), None),
        ("cut in the header", |m| m.truncate(11), None),
        ("a response", |m| m[2] |= 0x80, None),
        ("NOTIFY", |m| m[2] |= 4 << 3, Some(rcode::NOTIMP)),
        ("UPDATE", |m| m[2] |= 5 << 3, Some(rcode::NOTIMP)),
        ("no question", |m| m[5] = 0, Some(rcode::FORMERR)),
        ("two questions", |m| m[5] = 2, Some(rcode::FORMERR)),
        ("only a header", |m| m.truncate(12), Some(rcode::FORMERR)),
        ("cut in the name", |m| m.truncate(20), Some(rcode::FORMERR)),
        ("cut in the type", |m| m.truncate(m.len() - 3), Some(rcode::FORMERR)),
        ("a pointer for a name", |m| m[12..14].copy_from_slice(&[0xc0, 12]), Some(rcode::FORMERR)),
        ("a label of 64", |m| m[12] = 64, Some(rcode::FORMERR)),
        ("class CH", |m| *m.last_mut().unwrap() = 3, Some(rcode::REFUSED)),
        ("additional records that are not there", |m| m[11] = 3, Some(rcode::FORMERR)),
    ];
    for (name, change, code) in cases {
        let mut request = plain.clone();
        change(&mut request);
        let response = ask(&mut udp, &request);
        assert_eq!(response.as_ref().map(|r| u16::from(r[3] & 15)), code, "{name}");
        if let Some(r) = response {
            assert_eq!(r[..2], request[..2], "{name}: id");
            assert_eq!(r[2] & 0x80, 0x80, "{name}: QR");
            assert_eq!(r[2] & 0x79, request[2] & 0x79, "{name}: opcode and RD");
        }
    }
}

#[test]
fn the_question_comes_back_as_it_was_asked() {
    let mut udp = worker(Transport::Udp);
    let (response, _) = answer(&mut udp, &query("wEB.dEfAult.SVC.cluster.LOCAL.", RecordType::A));
    assert_eq!(response.queries[0].name().to_ascii(), "wEB.dEfAult.SVC.cluster.LOCAL.");
    assert_eq!(response.answers[0].name.to_ascii(), "wEB.dEfAult.SVC.cluster.LOCAL.");
    assert!(response.metadata.authoritative && response.metadata.recursion_available);
    let (denied, _) = answer(&mut udp, &query("nOPE.CLUSTER.local.", RecordType::A));
    assert_eq!(denied.authorities[0].name.to_ascii(), "CLUSTER.local.");
}

#[test]
fn edns() {
    let mut udp = worker(Transport::Udp);
    let (response, _) = answer(&mut udp, &query(WEB, RecordType::A));
    assert!(response.edns.is_none(), "only for those who speak it");
    let (response, _) = answer(&mut udp, &with_edns(query(WEB, RecordType::A), 4096, 0, true));
    let edns = response.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.version(), edns.flags().dnssec_ok), (1232, 0, true));
    let (response, _) = answer(&mut udp, &with_edns(query(WEB, RecordType::A), 4096, 1, false));
    let edns = response.edns.unwrap();
    assert_eq!((edns.rcode_high(), edns.version(), edns.flags().dnssec_ok), (1, 0, false));
    assert_eq!((response.metadata.response_code.low(), response.answers.len()), (0, 0), "BADVERS is 16");
    // Two OPT records, one that is not at the root.
    let mut twice = with_edns(query(WEB, RecordType::A), 4096, 0, false).to_vec().unwrap();
    let opt = twice[twice.len() - 11..].to_vec();
    twice.extend_from_slice(&opt);
    twice[11] = 2;
    assert_eq!(ask(&mut udp, &twice).unwrap()[3] & 15, 1);
    let mut named = query(WEB, RecordType::A).to_vec().unwrap();
    named.extend_from_slice(&[1, b'x']);
    named.extend_from_slice(&opt);
    named[11] = 1;
    assert_eq!(ask(&mut udp, &named).unwrap()[3] & 15, 1);
    // An unknown option is passed over.
    let mut odd = with_edns(query(WEB, RecordType::A), 4096, 0, false).to_vec().unwrap();
    let n = odd.len();
    odd[n - 1] = 6;
    odd.extend_from_slice(&[0xff, 0xf0, 0, 2, 1, 2]);
    assert_eq!(ask(&mut udp, &odd).unwrap()[3] & 15, 0);
}

#[test]
fn sizes() {
    let mut udp = worker(Transport::Udp);
    let mut tcp = worker(Transport::Tcp);
    for (payload, limit) in [(None, 512), (Some(100), 512), (Some(800), 800), (Some(65_535), 1232)] {
        for rtype in [RecordType::A, RecordType::SRV] {
            let mut request = query(MANY, rtype);
            if let Some(payload) = payload {
                // hickory raises it to 512: written by hand.
                let mut bytes = with_edns(request, 512, 0, false).to_vec().unwrap();
                let at = bytes.len() - 8;
                bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(payload));
                let response = ask(&mut udp, &bytes).unwrap();
                let parsed = Message::from_vec(&response).unwrap();
                assert!(
                    response.len() <= limit && response.len() > limit - 120,
                    "{payload} {}",
                    response.len()
                );
                assert!(parsed.metadata.truncation && !parsed.answers.is_empty() && parsed.edns.is_some());
            } else {
                request.metadata.recursion_desired = false;
                let (response, n) = answer(&mut udp, &request);
                assert!(n <= limit && response.metadata.truncation && !response.metadata.recursion_desired);
            }
        }
    }
    let (response, _) = answer(&mut tcp, &query(MANY, RecordType::A));
    assert_eq!((response.answers.len(), response.metadata.truncation), (500, false));
    let (response, n) = answer(&mut tcp, &query(MANY, RecordType::SRV));
    assert_eq!((response.answers.len(), response.additionals.len()), (500, 500));
    assert!(n < 50_000, "owners of the additional records point at the targets: {n}");
}

#[test]
fn a_class_that_is_not_in_is_refused_even_of_any() {
    let mut udp = worker(Transport::Udp);
    for class in [DNSClass::CH, DNSClass::ANY, DNSClass::NONE] {
        let mut request = query(WEB, RecordType::A);
        request.queries[0].set_query_class(class);
        assert_eq!(answer(&mut udp, &request).0.metadata.response_code, ResponseCode::Refused, "{class}");
    }
}

#[test]
fn without_upstreams_the_asker_is_told_why() {
    let mut udp = worker(Transport::Udp);
    let request = with_edns(query("example.test.", RecordType::A), 1232, 0, false).to_vec().unwrap();
    let mut out = Vec::new();
    let Verdict::Pending(pending) = udp.handle(&request, CLIENT, &mut out) else { panic!("not forwarded") };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let response = runtime.block_on(pending.finish());
    assert_eq!(response[3] & 15, 2);
    let text = b"no upstream resolver is configured";
    assert!(response.windows(text.len()).any(|w| w == text), "extended error text");
}

#[test]
fn strangers_are_refused_and_told_so_only_so_often() {
    let mut udp = worker(Transport::Udp);
    let resolver = udp.engine.resolver.clone();
    resolver.index.update(|u| u.apply_pod("default", "p", &["172.16.0.5".parse().unwrap()]));
    let access = crate::Access::only(["10.244.0.0/16".parse().unwrap()]);
    resolver.configure(None, access, &crate::Environment::default()).unwrap();
    let request = with_edns(query(MANY, RecordType::A), 4096, 0, false).to_vec().unwrap();
    let mut out = Vec::new();
    for (client, code) in [("10.244.3.3", 0), ("172.16.0.5", 0), ("127.0.0.1", 0), ("192.0.2.1", 5)] {
        let client = SocketAddr::new(client.parse().unwrap(), 1234);
        assert!(matches!(udp.handle(&request, client, &mut out), Verdict::Reply), "{client}");
        assert_eq!(u16::from(out[3] & 15), code, "{client}");
        assert!(code == 0 || out.len() <= request.len(), "no amplification");
    }
    let stranger = SocketAddr::new("192.0.2.1".parse().unwrap(), 1234);
    let answered =
        (0..1000).filter(|_| matches!(udp.handle(&request, stranger, &mut out), Verdict::Reply)).count();
    assert!((100..500).contains(&answered), "{answered}");
    // A response from a stranger starts nothing.
    let mut response = request.clone();
    response[2] |= 0x80;
    assert!(matches!(udp.handle(&response, stranger, &mut out), Verdict::Silence));
}

#[test]
fn a_cookie_alone_is_answered_with_one() {
    let mut udp = worker(Transport::Udp);
    let mut request =
        vec![0x12, 0x34, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8];
    request.extend_from_slice(b"abcdefgh");
    let answer = ask(&mut udp, &request).unwrap();
    assert_eq!((answer[3] & 15, &answer[4..12]), (0, &[0, 0, 0, 0, 0, 0, 0, 1][..]));
    assert_eq!(answer.len(), 12 + 11 + 4 + 24);
    assert_eq!(&answer[27..35], b"abcdefgh");
}

#[test]
fn an_answer_allocates_nothing() {
    let mut udp = worker(Transport::Udp);
    let access = crate::Access::only(["127.0.0.0/8".parse().unwrap()]);
    udp.engine.resolver.configure(None, access, &crate::Environment::default()).unwrap();
    let mut out = Vec::with_capacity(4096);
    for (name, rtype) in [
        (WEB, RecordType::A),
        (WEB, RecordType::AAAA),
        (MANY, RecordType::A),
        ("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV),
        ("1.0.96.10.in-addr.arpa.", RecordType::PTR),
        ("nope.default.svc.cluster.local.", RecordType::A),
        ("www.example.com.cluster.local.", RecordType::A),
    ] {
        let request = with_edns(query(name, rtype), 1232, 0, false).to_vec().unwrap();
        // The first fills what is reused.
        udp.handle(&request, CLIENT, &mut out);
        let counted = allocation_counter::measure(|| {
            udp.handle(&request, CLIENT, &mut out);
        });
        assert_eq!(counted.count_total, 0, "{name} {rtype}");
    }
}

/// Every response must be one that a strict reader takes, to the right question, within its size.
fn sound(transport: Transport, request: &[u8]) -> Result<(), TestCaseError> {
    let Some(response) = ask(&mut worker_of(transport), request) else {
        prop_assert!(request.len() < 12 || request[2] & 0x80 != 0, "silence only to what is no query");
        return Ok(());
    };
    prop_assert_eq!(&response[..2], &request[..2]);
    let limit = if transport == Transport::Udp { 1232 } else { 65_535 };
    prop_assert!(response.len() <= limit);
    let parsed = Message::from_vec(&response);
    prop_assert!(parsed.is_ok(), "{:?}", parsed);
    Ok(())
}

/// One index for all cases of a property.
fn worker_of(transport: Transport) -> Worker {
    static SHARED: std::sync::OnceLock<(Arc<Engine>, Arc<Counters>)> = std::sync::OnceLock::new();
    let (engine, counters) = SHARED.get_or_init(|| {
        let w = worker(Transport::Udp);
        (w.engine, w.counters)
    });
    Worker::new(engine.clone(), transport, counters.clone())
}

fn any_transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)]
}

const SLOW: &str = ". {\n hosts {\n  10.0.0.1 a.test\n  fallthrough\n }\n rewrite name substring a b\n \
    rewrite name suffix .x .web.default.svc.cluster.local\n template IN TXT {\n  match .*\n  answer \"{{ .Name }} IN TXT x\"\n  \
    fallthrough\n }\n dns64\n local\n minimal\n header {\n  response set aa\n }\n kubernetes cluster.local\n}";

/// As [`worker_of`], where every answer is put together of records.
fn slow_worker() -> Worker {
    static SHARED: std::sync::OnceLock<(Arc<Engine>, Arc<Counters>)> = std::sync::OnceLock::new();
    let (engine, counters) = SHARED.get_or_init(|| {
        let w = worker(Transport::Udp);
        let environment = crate::Environment::default();
        let corefile = crate::Corefile::parse(SLOW, std::path::Path::new("/"), &environment).unwrap();
        w.engine.resolver.configure(Some(&corefile), crate::Access::open(), &environment).unwrap();
        (w.engine, w.counters)
    });
    Worker::new(engine.clone(), Transport::Udp, counters.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Names of any octets, through every plugin that makes records.
    #[test]
    fn odd_names_on_the_slow_way(
        labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8),
        ours in any::<bool>(),
        rtype in prop_oneof![Just(1u16), Just(28), Just(16), Just(33), Just(12), Just(255)],
    ) {
        let mut request = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in &labels {
            request.push(label.len() as u8);
            request.extend_from_slice(label);
        }
        request.extend_from_slice(if ours { b"\x07cluster\x05local\x00" } else { b"\x00" });
        request.extend_from_slice(&rtype.to_be_bytes());
        request.extend_from_slice(&[0, 1]);
        let mut out = Vec::new();
        let response = match slow_worker().handle(&request, CLIENT, &mut out) {
            Verdict::Reply => out,
            Verdict::Silence => return Err(TestCaseError::fail("silence")),
            Verdict::Pending(pending) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(pending.finish())
            }
        };
        prop_assert!(response.len() <= 512);
        prop_assert_eq!(&response[12..request.len()], &request[12..], "the question as it was asked");
        prop_assert!(Message::from_vec(&response).is_ok());
    }

    #[test]
    fn random_bytes(transport in any_transport(), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        sound(transport, &bytes)?;
    }

    #[test]
    fn mutated_queries(
        transport in any_transport(),
        name in prop_oneof![Just(WEB), Just(MANY), Just("_http._tcp.many.default.svc.cluster.local."),
            Just("1.0.96.10.in-addr.arpa."), Just("example.test."), Just(".")],
        rtype in any::<u16>(),
        common in any::<bool>(),
        edns in proptest::option::of((any::<u16>(), 0u8..2, any::<bool>())),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let rtype = if common { [1, 28, 33, 12][usize::from(rtype % 4)] } else { rtype };
        // OPT and TSIG as question types are no queries to hickory's encoder.
        prop_assume!(rtype != 41 && rtype != 250);
        let mut message = query(name, RecordType::from(rtype));
        if let Some((payload, version, dnssec_ok)) = edns {
            message = with_edns(message, payload, version, dnssec_ok);
        }
        let mut bytes = message.to_vec().unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        sound(transport, &bytes)?;
    }
}
