//! Every row of the specification and the behaviours CoreDNS adds, as (name, type) → (code, sections).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use eastwest_compile::{CompiledService, DnsEndpoint, DnsPort, DnsService, ServiceKey};
use eastwest_model::{DnsRecord, DnsRecordType, Protocol};
use hickory_proto::op::ResponseCode::{self, NXDomain, NoError, Refused, ServFail};
use hickory_proto::rr::{Record, RecordType};
use proptest::prelude::*;

use super::*;
use crate::Next;

pub(crate) fn port(name: &str, protocol: Protocol, port: u16) -> DnsPort {
    DnsPort { name: name.into(), protocol, port }
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|i| i.parse().unwrap()).collect()
}

fn compiled(namespace: &str, name: &str, dns: DnsService) -> (ServiceKey, CompiledService) {
    let key = ServiceKey::new(namespace, name);
    (key.clone(), CompiledService { key, frontends: Vec::new(), dns })
}

fn put(index: &Index, namespace: &str, name: &str, dns: DnsService) {
    let (key, service) = compiled(namespace, name, dns);
    index.apply(&key, Some(&service));
}

fn endpoint(addr: &str, hostname: Option<&str>, ports: &Arc<[DnsPort]>) -> DnsEndpoint {
    DnsEndpoint { addr: addr.parse().unwrap(), hostname: hostname.map(Into::into), ports: ports.clone() }
}

fn record(name: &str, type_: DnsRecordType, values: &[&str]) -> DnsRecord {
    let mut record = DnsRecord::default();
    record.metadata.name = format!("{}-{type_:?}", name.to_lowercase());
    record.metadata.namespace = "default".into();
    record.spec.name = name.into();
    record.spec.type_ = type_;
    record.spec.values = values.iter().map(|v| (*v).to_owned()).collect();
    record
}

fn sample() -> Index {
    let index = Index::new(IndexOptions {
        ns_addresses: ips(&["10.96.0.10", "fd00:10:96::a"]),
        ..IndexOptions::default()
    })
    .unwrap();
    let web: Vec<_> = vec![
        port("http", Protocol::TCP, 80),
        port("https", Protocol::TCP, 443),
        port("dns", Protocol::UDP, 53),
    ];
    put(
        &index,
        "default",
        "web",
        DnsService::ClusterIp {
            ips: ips(&["10.96.0.1", "fd00:10:96::1"]),
            ports: web,
            endpoints: Vec::new(),
        },
    );
    put(
        &index,
        "default",
        "v4",
        DnsService::ClusterIp {
            ips: ips(&["10.96.0.2"]),
            ports: vec![port("", Protocol::TCP, 80)],
            endpoints: Vec::new(),
        },
    );
    let http: Arc<[DnsPort]> = vec![port("http", Protocol::TCP, 8080)].into();
    put(
        &index,
        "default",
        "db",
        DnsService::Headless {
            endpoints: vec![
                endpoint("10.244.1.1", Some("db-0"), &http),
                endpoint("10.244.1.2", Some("DB-1"), &http),
                endpoint("10.244.1.3", None, &http),
                endpoint("fd00:10:244::3", None, &http),
                endpoint("10.244.1.4", Some("twin"), &http),
                endpoint("10.244.1.5", Some("twin"), &http),
            ],
        },
    );
    let none: Arc<[DnsPort]> = Vec::new().into();
    put(
        &index,
        "default",
        "portless",
        DnsService::Headless { endpoints: vec![endpoint("10.244.2.1", None, &none)] },
    );
    put(&index, "default", "empty", DnsService::Headless { endpoints: Vec::new() });
    for (name, target) in [
        ("outside", "www.example.test"),
        ("inside", "web.default.svc.cluster.local"),
        ("loop-a", "loop-b.default.svc.cluster.local."),
        ("loop-b", "loop-a.default.svc.cluster.local"),
        ("selfish", "selfish.default.svc.cluster.local"),
        ("dangling", "gone.default.svc.cluster.local"),
        ("address", "192.0.2.1"),
    ] {
        put(&index, "default", name, DnsService::ExternalName { target: target.into() });
    }
    index.set_namespaces(["default", "bare"]);
    let refused = index.set_records(&[
        record("db.corp.cluster.local.", DnsRecordType::A, &["192.0.2.7", "192.0.2.8"]),
        record("Note.cluster.local", DnsRecordType::TXT, &["plain text", "\"two\" \"st\\\"r\\065\""]),
        record("alias.cluster.local", DnsRecordType::CNAME, &["web.default.svc.cluster.local"]),
        record("away.cluster.local", DnsRecordType::CNAME, &["www.example.test."]),
        record("*.wild.cluster.local", DnsRecordType::A, &["192.0.2.9"]),
        record("there.wild.cluster.local", DnsRecordType::AAAA, &["2001:db8::9"]),
        record("cluster.local", DnsRecordType::MX, &["10 mail.example.test"]),
        record("_x._tcp.corp.cluster.local", DnsRecordType::SRV, &["1 2 3 db.corp.cluster.local"]),
        record("7.2.0.192.in-addr.arpa", DnsRecordType::PTR, &["db.corp.cluster.local"]),
        record("web.default.svc.cluster.local", DnsRecordType::TXT, &["more"]),
    ]);
    assert_eq!(refused, []);
    index.set_synced(true);
    index
}

fn text(records: &[Record]) -> Vec<String> {
    let mut text: Vec<_> = records
        .iter()
        .filter(|r| r.record_type() != RecordType::SOA)
        .map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data))
        .collect();
    text.sort();
    text
}

type Case = (&'static str, RecordType, ResponseCode, &'static [&'static str], &'static [&'static str]);

const C: &str = ".cluster.local.";

/// Names ending in a dot are as they are; to the others `.cluster.local.` is added, also within records for `@`.
fn check(index: &Index, (name, rtype, code, answers, additional): Case) {
    let full = |n: &str| if n.ends_with('.') { n.to_owned() } else { format!("{n}{C}") };
    let expand = |list: &[&str]| {
        let mut list: Vec<_> = list.iter().map(|r| r.replace('@', C)).collect();
        list.sort();
        list
    };
    let name = full(name);
    let got = index.lookup(&name, rtype).unwrap();
    assert_eq!(got.rcode, code, "{name} {rtype}");
    assert_eq!(text(&got.answers), expand(answers), "{name} {rtype}");
    assert_eq!(text(&got.additional), expand(additional), "{name} {rtype} additional");
    let negative = code == NXDomain || (code == NoError && answers.is_empty());
    let soa = got.authority.iter().filter(|r| r.record_type() == RecordType::SOA).count();
    if got.next == Next::Complete && negative {
        assert_eq!(soa, 1, "{name} {rtype}: a denial carries the SOA");
    }
}

#[test]
fn specification() {
    use RecordType::{A, AAAA, ANY, AXFR, CNAME, HTTPS, MX, NS, PTR, SRV, TXT};
    let index = sample();
    let web_a = &["web.default.svc@ 5 A 10.96.0.1"];
    let web_both = &["web.default.svc@ 5 A 10.96.0.1", "web.default.svc@ 5 AAAA fd00:10:96::1"];
    let cases: &[Case] = &[
        // 2.2 schema version
        ("dns-version", TXT, NoError, &["dns-version@ 28800 TXT 1.1.0"], &[]),
        ("dns-version", A, NoError, &[], &[]),
        ("x.dns-version", TXT, NXDomain, &[], &[]),
        // 2.3.1 ClusterIP
        ("web.default.svc", A, NoError, web_a, &[]),
        ("web.default.svc", AAAA, NoError, &["web.default.svc@ 5 AAAA fd00:10:96::1"], &[]),
        ("v4.default.svc", AAAA, NoError, &[], &[]),
        ("web.default.svc", HTTPS, NoError, &[], &[]),
        ("web.default.svc", ANY, NoError, &[], &[]),
        ("web.default.svc", CNAME, NoError, &[], &[]),
        ("web.default.svc", PTR, NoError, &[], &[]),
        ("web.default.svc", NS, NoError, &[], &[]),
        ("web.default.svc", AXFR, Refused, &[], &[]),
        // 2.3.2 SRV
        (
            "_http._tcp.web.default.svc",
            SRV,
            NoError,
            &["_http._tcp.web.default.svc@ 5 SRV 0 50 80 web.default.svc@"],
            web_both,
        ),
        (
            "_dns._udp.web.default.svc",
            SRV,
            NoError,
            &["_dns._udp.web.default.svc@ 5 SRV 0 50 53 web.default.svc@"],
            web_both,
        ),
        ("_http._udp.web.default.svc", SRV, NXDomain, &[], &[]),
        ("_nope._tcp.web.default.svc", SRV, NXDomain, &[], &[]),
        ("_http._sctp.web.default.svc", SRV, NXDomain, &[], &[]),
        ("_80._tcp.v4.default.svc", SRV, NXDomain, &[], &[]),
        (
            "web.default.svc",
            SRV,
            NoError,
            &[
                "web.default.svc@ 5 SRV 0 16 80 web.default.svc@",
                "web.default.svc@ 5 SRV 0 16 443 web.default.svc@",
                "web.default.svc@ 5 SRV 0 16 53 web.default.svc@",
            ],
            web_both,
        ),
        ("_http._tcp.web.default.svc", A, NoError, &["_http._tcp.web.default.svc@ 5 A 10.96.0.1"], &[]),
        ("_tcp.web.default.svc", SRV, NoError, &[], &[]),
        ("_udp.web.default.svc", A, NoError, &[], &[]),
        ("_sctp.web.default.svc", SRV, NXDomain, &[], &[]),
        ("_tcp.v4.default.svc", SRV, NXDomain, &[], &[]),
        // 2.3.3 PTR
        ("1.0.96.10.in-addr.arpa.", PTR, NoError, &["1.0.96.10.in-addr.arpa. 5 PTR web.default.svc@"], &[]),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            NoError,
            &[
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa. 5 PTR web.default.svc@",
            ],
            &[],
        ),
        ("1.0.96.10.in-addr.arpa.", A, NoError, &[], &[]),
        ("9.9.96.10.in-addr.arpa.", PTR, NoError, &[], &[]),
        // 2.4.1 headless
        (
            "db.default.svc",
            A,
            NoError,
            &[
                "db.default.svc@ 5 A 10.244.1.1",
                "db.default.svc@ 5 A 10.244.1.2",
                "db.default.svc@ 5 A 10.244.1.3",
                "db.default.svc@ 5 A 10.244.1.4",
                "db.default.svc@ 5 A 10.244.1.5",
            ],
            &[],
        ),
        ("db.default.svc", AAAA, NoError, &["db.default.svc@ 5 AAAA fd00:10:244::3"], &[]),
        ("portless.default.svc", A, NoError, &["portless.default.svc@ 5 A 10.244.2.1"], &[]),
        ("portless.default.svc", AAAA, NoError, &[], &[]),
        ("portless.default.svc", SRV, NoError, &[], &[]),
        ("empty.default.svc", A, NXDomain, &[], &[]),
        ("db-0.db.default.svc", A, NoError, &["db-0.db.default.svc@ 5 A 10.244.1.1"], &[]),
        ("db-0.db.default.svc", AAAA, NoError, &[], &[]),
        (
            "twin.db.default.svc",
            A,
            NoError,
            &["twin.db.default.svc@ 5 A 10.244.1.4", "twin.db.default.svc@ 5 A 10.244.1.5"],
            &[],
        ),
        ("10-244-1-3.db.default.svc", A, NoError, &["10-244-1-3.db.default.svc@ 5 A 10.244.1.3"], &[]),
        (
            "fd00-10-244--3.db.default.svc",
            AAAA,
            NoError,
            &["fd00-10-244--3.db.default.svc@ 5 AAAA fd00:10:244::3"],
            &[],
        ),
        ("fd00-10-244-0-0-0-0-3.db.default.svc", AAAA, NXDomain, &[], &[]),
        ("10-244-1-1.db.default.svc", A, NXDomain, &[], &[]),
        ("10-244-1-9.db.default.svc", A, NXDomain, &[], &[]),
        ("db-9.db.default.svc", A, NXDomain, &[], &[]),
        ("x.db-0.db.default.svc", A, NXDomain, &[], &[]),
        ("db-0.web.default.svc", A, NXDomain, &[], &[]),
        // 2.4.2 headless SRV
        (
            "_http._tcp.db.default.svc",
            SRV,
            NoError,
            &[
                "_http._tcp.db.default.svc@ 5 SRV 0 16 8080 db-0.db.default.svc@",
                "_http._tcp.db.default.svc@ 5 SRV 0 16 8080 db-1.db.default.svc@",
                "_http._tcp.db.default.svc@ 5 SRV 0 16 8080 10-244-1-3.db.default.svc@",
                "_http._tcp.db.default.svc@ 5 SRV 0 16 8080 fd00-10-244--3.db.default.svc@",
                "_http._tcp.db.default.svc@ 5 SRV 0 16 8080 twin.db.default.svc@",
            ],
            &[
                "db-0.db.default.svc@ 5 A 10.244.1.1",
                "db-1.db.default.svc@ 5 A 10.244.1.2",
                "10-244-1-3.db.default.svc@ 5 A 10.244.1.3",
                "fd00-10-244--3.db.default.svc@ 5 AAAA fd00:10:244::3",
                "twin.db.default.svc@ 5 A 10.244.1.4",
                "twin.db.default.svc@ 5 A 10.244.1.5",
            ],
        ),
        (
            "db-0.db.default.svc",
            SRV,
            NoError,
            &["db-0.db.default.svc@ 5 SRV 0 100 8080 db-0.db.default.svc@"],
            &["db-0.db.default.svc@ 5 A 10.244.1.1"],
        ),
        ("_tcp.db.default.svc", SRV, NoError, &[], &[]),
        ("_udp.db.default.svc", SRV, NXDomain, &[], &[]),
        ("_other._tcp.db.default.svc", SRV, NXDomain, &[], &[]),
        ("_http._tcp.portless.default.svc", SRV, NXDomain, &[], &[]),
        // 2.4.3 headless PTR
        (
            "1.1.244.10.in-addr.arpa.",
            PTR,
            NoError,
            &["1.1.244.10.in-addr.arpa. 5 PTR db-0.db.default.svc@"],
            &[],
        ),
        (
            "3.1.244.10.in-addr.arpa.",
            PTR,
            NoError,
            &["3.1.244.10.in-addr.arpa. 5 PTR 10-244-1-3.db.default.svc@"],
            &[],
        ),
        // 2.5 ExternalName
        ("outside.default.svc", A, NoError, &["outside.default.svc@ 5 CNAME www.example.test."], &[]),
        ("outside.default.svc", CNAME, NoError, &["outside.default.svc@ 5 CNAME www.example.test."], &[]),
        (
            "inside.default.svc",
            A,
            NoError,
            &["inside.default.svc@ 5 CNAME web.default.svc@", "web.default.svc@ 5 A 10.96.0.1"],
            &[],
        ),
        ("dangling.default.svc", A, NXDomain, &["dangling.default.svc@ 5 CNAME gone.default.svc@"], &[]),
        ("selfish.default.svc", A, NoError, &["selfish.default.svc@ 5 CNAME selfish.default.svc@"], &[]),
        ("address.default.svc", A, NXDomain, &[], &[]),
        ("x.outside.default.svc", CNAME, NXDomain, &[], &[]),
        // 2.6 pods, as kubeadm sets it up
        ("10-0-0-1.default.pod", A, NoError, &["10-0-0-1.default.pod@ 5 A 10.0.0.1"], &[]),
        ("10-0-0-1.default.pod", AAAA, NoError, &[], &[]),
        ("fd00--1.bare.pod", AAAA, NoError, &["fd00--1.bare.pod@ 5 AAAA fd00::1"], &[]),
        ("10-0-0-1.nope.pod", A, NXDomain, &[], &[]),
        ("10-0-0-256.default.pod", A, NXDomain, &[], &[]),
        ("x.10-0-0-1.default.pod", A, NXDomain, &[], &[]),
        // names in between
        ("svc", A, NoError, &[], &[]),
        ("pod", A, NoError, &[], &[]),
        ("default.svc", A, NoError, &[], &[]),
        ("default.pod", A, NoError, &[], &[]),
        ("bare.svc", A, NoError, &[], &[]),
        ("nope.svc", A, NXDomain, &[], &[]),
        ("nope.default.svc", TXT, NXDomain, &[], &[]),
        ("web.nope.svc", A, NXDomain, &[], &[]),
        ("a.b.c.web.default.svc", A, NXDomain, &[], &[]),
        ("dns", A, NoError, &[], &[]),
        ("nope", A, NXDomain, &[], &[]),
        // apex
        ("cluster.local.", A, NoError, &[], &[]),
        (
            "cluster.local.",
            NS,
            NoError,
            &["cluster.local. 5 NS ns.dns@"],
            &["ns.dns@ 5 A 10.96.0.10", "ns.dns@ 5 AAAA fd00:10:96::a"],
        ),
        ("ns.dns", A, NoError, &["ns.dns@ 5 A 10.96.0.10"], &[]),
        ("ns.dns", AAAA, NoError, &["ns.dns@ 5 AAAA fd00:10:96::a"], &[]),
        ("ns.dns", TXT, NoError, &[], &[]),
        ("cluster.local.", MX, NoError, &["cluster.local. 5 MX 10 mail.example.test."], &[]),
        // DnsRecord objects
        ("db.corp", A, NoError, &["db.corp@ 5 A 192.0.2.7", "db.corp@ 5 A 192.0.2.8"], &[]),
        ("db.corp", AAAA, NoError, &[], &[]),
        ("corp", A, NoError, &[], &[]),
        ("x.corp", A, NXDomain, &[], &[]),
        ("note", TXT, NoError, &["note@ 5 TXT plain text", "note@ 5 TXT twost\"rA"], &[]),
        ("alias", A, NoError, &["alias@ 5 CNAME web.default.svc@", "web.default.svc@ 5 A 10.96.0.1"], &[]),
        ("alias", CNAME, NoError, &["alias@ 5 CNAME web.default.svc@"], &[]),
        ("away", A, NoError, &["away@ 5 CNAME www.example.test."], &[]),
        ("a.b.wild", A, NoError, &["a.b.wild@ 5 A 192.0.2.9"], &[]),
        ("x.wild", AAAA, NoError, &[], &[]),
        ("there.wild", A, NoError, &[], &[]),
        ("x.there.wild", A, NXDomain, &[], &[]),
        ("_x._tcp.corp", SRV, NoError, &["_x._tcp.corp@ 5 SRV 1 2 3 db.corp@"], &[]),
        ("7.2.0.192.in-addr.arpa.", PTR, NoError, &["7.2.0.192.in-addr.arpa. 5 PTR db.corp@"], &[]),
        ("web.default.svc", TXT, NoError, &["web.default.svc@ 5 TXT more"], &[]),
        // outside
        ("example.test.", A, NoError, &[], &[]),
        ("local.", A, NoError, &[], &[]),
        ("xcluster.local.", A, NoError, &[], &[]),
        (".", NS, NoError, &[], &[]),
    ];
    for case in cases {
        check(&index, *case);
    }
    // A loop ends.
    let looped = index.lookup("loop-a.default.svc.cluster.local", A).unwrap();
    assert_eq!((looped.rcode, looped.answers.len()), (NoError, 8));
    for name in ["example.test.", "local.", "xcluster.local.", ".", "9.9.96.10.in-addr.arpa."] {
        assert_eq!(index.lookup(name, PTR).unwrap().next, Next::Forward, "{name}");
    }
    let chased = index.lookup("outside.default.svc.cluster.local.", AAAA).unwrap();
    assert_eq!(chased.next, Next::Chase("www.example.test.".parse().unwrap()));
}

#[test]
fn the_soa_is_coredns_one() {
    let index = sample();
    for (name, owner) in
        [("nope.cluster.local", "cluster.local."), ("1.0.96.10.in-addr.arpa.", "in-addr.arpa.")]
    {
        let answer = index.lookup(name, RecordType::A).unwrap();
        let soa = &answer.authority[0];
        let serial = index.state().serial;
        assert!(serial > 1_700_000_000, "the time of the last change");
        assert_eq!(
            format!("{} {} {}", soa.name, soa.ttl, soa.data),
            format!("{owner} 5 ns.dns.{owner} hostmaster.{owner} {serial} 7200 1800 86400 5"),
        );
    }
    let apex = index.lookup("cluster.local", RecordType::SOA).unwrap();
    assert_eq!((apex.answers.len(), apex.authority.len()), (1, 0));
}

#[test]
fn before_the_first_sync_nothing_is_denied() {
    let index = sample();
    index.set_synced(false);
    for (name, code) in [
        ("web.default.svc.cluster.local", NoError),
        ("nope.default.svc.cluster.local", ServFail),
        ("nope.svc.cluster.local", ServFail),
        ("empty.default.svc.cluster.local", ServFail),
        ("svc.cluster.local", NoError),
    ] {
        assert_eq!(index.lookup(name, RecordType::A).unwrap().rcode, code, "{name}");
    }
}

#[test]
fn wrong_options_and_names() {
    let zones = |z: &str| IndexOptions { zones: vec![z.to_owned()], ..IndexOptions::default() };
    assert_eq!(Index::new(zones("a..b")).unwrap_err(), IndexError::Zone("a..b".into()));
    assert_eq!(Index::new(zones(".")).unwrap_err(), IndexError::Zone(".".into()));
    let none = IndexOptions { zones: Vec::new(), ..IndexOptions::default() };
    assert_eq!(Index::new(none).unwrap_err(), IndexError::NoZone);
    let index = sample();
    assert!(index.lookup(&"a".repeat(64), RecordType::A).is_err());
    // A Service whose name is no label is left out.
    put(
        &index,
        "default",
        "a.b",
        DnsService::ClusterIp { ips: ips(&["10.96.3.3"]), ports: Vec::new(), endpoints: Vec::new() },
    );
    assert_eq!(index.lookup("3.3.96.10.in-addr.arpa", RecordType::PTR).unwrap().next, Next::Forward);
}

#[test]
fn records_that_cannot_be_served_say_why() {
    let index = sample();
    let put = |r: &DnsRecord| index.apply_record("default", &r.metadata.name, Some(r));
    let outside = put(&record("www.example.test", DnsRecordType::A, &["192.0.2.1"])).unwrap_err();
    assert_eq!(
        outside.to_string(),
        "spec.name: www.example.test. is in none of the zones served here (cluster.local., in-addr.arpa., ip6.arpa.); \
         put it in one of them"
    );
    for (t, value) in [
        (DnsRecordType::A, "2001:db8::1"),
        (DnsRecordType::AAAA, "x"),
        (DnsRecordType::CNAME, "a..b"),
        (DnsRecordType::MX, "70000 a"),
        (DnsRecordType::SRV, "1 2 a"),
        (DnsRecordType::TXT, "\"open"),
        (DnsRecordType::TXT, "\"\\300\""),
        (DnsRecordType::TXT, "\"a\" b"),
    ] {
        assert!(
            matches!(put(&record("x.cluster.local", t, &[value])), Err(RecordError::Value { .. })),
            "{value}"
        );
    }
}

#[test]
fn records_come_and_go_with_the_names_above_them() {
    let index = sample();
    let code = |n: &str| index.lookup(n, RecordType::A).unwrap().rcode;
    let deep = record("a.b.c.cluster.local", DnsRecordType::A, &["192.0.2.1"]);
    index.apply_record("default", "deep", Some(&deep)).unwrap();
    index.apply_record("default", "deep2", Some(&deep)).unwrap();
    assert_eq!((code("c.cluster.local"), code("b.c.cluster.local")), (NoError, NoError));
    index.apply_record("default", "deep", None).unwrap();
    assert_eq!(code("b.c.cluster.local"), NoError);
    index.apply_record("default", "deep2", None).unwrap();
    assert_eq!((code("c.cluster.local"), code("a.b.c.cluster.local")), (NXDomain, NXDomain));
    index.apply_record("default", "never-was", None).unwrap();
}

#[test]
fn addresses_come_in_turns() {
    let index = sample();
    let mut first = HashMap::new();
    for _ in 0..500 {
        let answer = index.lookup("db.default.svc.cluster.local", RecordType::A).unwrap();
        *first.entry(answer.answers[0].data.to_string()).or_insert(0) += 1;
    }
    assert_eq!(first.len(), 5, "{first:?}");
    assert!(first.values().all(|n| *n > 50), "{first:?}");
}

#[test]
fn an_address_of_two_services_is_told_of_both() {
    let index = sample();
    let ports: Arc<[DnsPort]> = Vec::new().into();
    put(
        &index,
        "bare",
        "other",
        DnsService::Headless { endpoints: vec![endpoint("10.244.1.1", Some("x"), &ports)] },
    );
    let ptr = |n: &str| text(&index.lookup(n, RecordType::PTR).unwrap().answers);
    assert_eq!(ptr("1.1.244.10.in-addr.arpa.").len(), 2);
    index.apply(&ServiceKey::new("bare", "other"), None);
    assert_eq!(
        ptr("1.1.244.10.in-addr.arpa."),
        ["1.1.244.10.in-addr.arpa. 5 PTR db-0.db.default.svc.cluster.local."]
    );
    index.apply(&ServiceKey::new("default", "db"), None);
    assert_eq!(ptr("1.1.244.10.in-addr.arpa."), [""; 0]);
}

/// Services of a small world, so that names, addresses and kinds collide often.
fn any_service() -> impl Strategy<Value = (u8, Option<DnsService>)> {
    let ip = (0u8..12).prop_map(|n| IpAddr::from([10, 0, 0, n]));
    let cluster = proptest::collection::vec(ip.clone(), 0..3).prop_map(|ips| DnsService::ClusterIp {
        ips,
        ports: Vec::new(),
        endpoints: Vec::new(),
    });
    let headless = proptest::collection::vec((ip, proptest::option::of(0u8..3)), 0..6).prop_map(|list| {
        let ports: Arc<[DnsPort]> = Vec::new().into();
        let endpoints = list
            .into_iter()
            .map(|(addr, h)| DnsEndpoint {
                addr,
                hostname: h.map(|h| format!("h{h}").into()),
                ports: ports.clone(),
            })
            .collect();
        DnsService::Headless { endpoints }
    });
    (0u8..5, proptest::option::of(prop_oneof![cluster, headless]))
}

proptest! {
    /// After any changes the index answers as one that was given the end state at once.
    #[test]
    fn changes_leave_no_trace(steps in proptest::collection::vec(any_service(), 0..40)) {
        let changed = Index::new(IndexOptions::default()).unwrap();
        let mut model = HashMap::new();
        for (name, dns) in steps {
            let key = ServiceKey::new("default", format!("s{name}"));
            let service = dns.map(|dns| CompiledService { key: key.clone(), frontends: Vec::new(), dns });
            changed.apply(&key, service.as_ref());
            match service {
                Some(s) => drop(model.insert(key, s)),
                None => drop(model.remove(&key)),
            }
        }
        let fresh = Index::new(IndexOptions::default()).unwrap();
        fresh.update(|u| model.iter().for_each(|(k, s)| u.apply(k, Some(s))));
        prop_assert_eq!(changed.stats(), fresh.stats());
        let mut names: Vec<_> = (0..12).map(|n| (format!("{n}.0.0.10.in-addr.arpa"), RecordType::PTR)).collect();
        names.push(("default.svc.cluster.local".into(), RecordType::A));
        for s in 0..5 {
            names.push((format!("s{s}.default.svc.cluster.local"), RecordType::A));
            names.push((format!("h1.s{s}.default.svc.cluster.local"), RecordType::A));
        }
        for index in [&changed, &fresh] {
            index.set_synced(true);
        }
        for (name, rtype) in names {
            let (a, b) = (changed.lookup(&name, rtype).unwrap(), fresh.lookup(&name, rtype).unwrap());
            prop_assert_eq!((a.rcode, text(&a.answers), a.next), (b.rcode, text(&b.answers), b.next), "{}", name);
        }
    }
}

fn shown(index: &Index, name: &str, rtype: RecordType) -> String {
    let answer = index.lookup(name, rtype).unwrap();
    let what = match answer.next {
        Next::Complete => format!("{:?}", answer.rcode),
        _ => "Outside".to_owned(),
    };
    let mut data: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
    data.sort();
    format!("{what} {}", data.join(" ")).trim_end().to_owned()
}

#[test]
fn endpoints_behind_a_virtual_address_have_names() {
    let index = sample();
    let http: Arc<[DnsPort]> = vec![port("http", Protocol::TCP, 8080)].into();
    let endpoints = vec![endpoint("10.244.5.1", None, &http), endpoint("10.244.5.2", Some("b-0"), &http)];
    let dns = |endpoints| DnsService::ClusterIp {
        ips: ips(&["10.96.5.5"]),
        ports: vec![port("http", Protocol::TCP, 80)],
        endpoints,
    };
    put(&index, "default", "back", dns(endpoints));
    for (name, rtype, expected) in [
        ("back.default.svc.cluster.local", RecordType::A, "NoError 10.96.5.5"),
        ("10-244-5-1.back.default.svc.cluster.local", RecordType::A, "NoError 10.244.5.1"),
        ("10-244-5-1.back.default.svc.cluster.local", RecordType::AAAA, "NoError"),
        ("b-0.back.default.svc.cluster.local", RecordType::A, "NoError 10.244.5.2"),
        ("10-244-5-2.back.default.svc.cluster.local", RecordType::A, "NXDomain"),
        (
            "_http._tcp.back.default.svc.cluster.local",
            RecordType::SRV,
            "NoError 0 100 80 back.default.svc.cluster.local.",
        ),
        ("1.5.244.10.in-addr.arpa", RecordType::PTR, "NoError 10-244-5-1.back.default.svc.cluster.local."),
        ("2.5.244.10.in-addr.arpa", RecordType::PTR, "NoError b-0.back.default.svc.cluster.local."),
        ("5.5.96.10.in-addr.arpa", RecordType::PTR, "NoError back.default.svc.cluster.local."),
        ("9.5.244.10.in-addr.arpa", RecordType::PTR, "Outside"),
    ] {
        assert_eq!(shown(&index, name, rtype), expected, "{name} {rtype}");
    }
    put(&index, "default", "back", dns(Vec::new()));
    assert_eq!(shown(&index, "1.5.244.10.in-addr.arpa", RecordType::PTR), "Outside");
    let ignore = IndexOptions { ignore_empty: true, ..IndexOptions::default() };
    index.configure(&ignore).unwrap();
    assert_eq!(shown(&index, "back.default.svc.cluster.local", RecordType::A), "NXDomain");
}

#[test]
fn options_of_the_kubernetes_plugin() {
    let index = sample();
    index.update(|u| u.apply_pod("default", "p", &ips(&["10.244.1.9", "fd00:10:244::9"])));
    let one = |zone: &str| vec![zone.to_owned()];
    let verified = IndexOptions { pods: PodMode::Verified, ..IndexOptions::default() };
    let disabled = IndexOptions { pods: PodMode::Disabled, ..IndexOptions::default() };
    let bare = IndexOptions { namespaces: one("bare"), ..IndexOptions::default() };
    let through = IndexOptions { fallthrough: one("."), ..IndexOptions::default() };
    let claimed = IndexOptions { fallthrough: Vec::new(), ..IndexOptions::default() };
    let forward_only = IndexOptions { reverse: Vec::new(), ..IndexOptions::default() };
    let (web, gone) = ("web.default.svc.cluster.local", "gone.default.svc.cluster.local");
    let (pod, other) = ("10-244-1-9.default.pod.cluster.local", "10-244-1-8.default.pod.cluster.local");
    let (ptr, no_ptr) = ("1.0.96.10.in-addr.arpa", "1.2.3.4.in-addr.arpa");
    for (options, name, rtype, expected) in [
        (&verified, pod, RecordType::A, "NoError 10.244.1.9"),
        (&verified, other, RecordType::A, "NXDomain"),
        (&verified, "10-244-1-9.bare.pod.cluster.local", RecordType::A, "NXDomain"),
        (&verified, "fd00-10-244--9.default.pod.cluster.local", RecordType::AAAA, "NoError fd00:10:244::9"),
        (&disabled, pod, RecordType::A, "NXDomain"),
        (&bare, "v4.default.svc.cluster.local", RecordType::A, "NXDomain"),
        (&bare, "default.pod.cluster.local", RecordType::A, "NXDomain"),
        (&bare, "bare.pod.cluster.local", RecordType::A, "NoError"),
        (&bare, ptr, RecordType::PTR, "Outside"),
        (&through, gone, RecordType::A, "Outside"),
        (&through, web, RecordType::A, "NoError 10.96.0.1"),
        (&claimed, no_ptr, RecordType::PTR, "NXDomain"),
        (&claimed, ptr, RecordType::PTR, "NoError web.default.svc.cluster.local."),
        (&forward_only, ptr, RecordType::PTR, "Outside"),
    ] {
        index.configure(options).unwrap();
        assert_eq!(shown(&index, name, rtype), expected, "{name} {rtype} {options:?}");
    }
    // An address that has gone to another pod stays with that one.
    index.update(|u| {
        u.apply_pod("bare", "q", &ips(&["10.244.1.9"]));
        u.apply_pod("default", "p", &[]);
    });
    assert_eq!(index.state().pod_namespace("10.244.1.9".parse().unwrap()), Some(&b"\x04bare"[..]));
    assert_eq!(index.state().pod_namespace("fd00:10:244::9".parse().unwrap()), None);
}
