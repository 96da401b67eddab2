use std::str::FromStr;

use hickory_proto::op::{Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA, TXT};
use hickory_proto::rr::{Name as HickoryName, RData, Record as HickoryRecord, RecordType};
use proptest::prelude::*;

use super::*;
use crate::wire::Name;

const ASKED: &str = "www.example.test.";

fn question() -> Question {
    let name = Name::parse(ASKED).unwrap();
    Question { name: name.wire().into(), qtype: 1, dnssec_ok: false, checking_disabled: false }
}

fn name(text: &str) -> HickoryName {
    HickoryName::from_str(text).unwrap()
}

fn response() -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(HickoryQuery::query(name(ASKED), RecordType::A));
    message
}

fn a(owner: &str, ttl: u32) -> HickoryRecord {
    HickoryRecord::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn soa(ttl: u32, minimum: u32) -> HickoryRecord {
    let data = SOA::new(name("ns.example.test."), name("root.example.test."), 1, 2, 3, 4, minimum);
    HickoryRecord::from_rdata(name("example.test."), ttl, RData::SOA(data))
}

fn parse(message: &Message) -> Option<Reply> {
    Reply::parse(message.to_vec().unwrap(), 7, &question(), CacheLimits::default())
}

#[test]
fn lifetimes() {
    let cname =
        |ttl| HickoryRecord::from_rdata(name(ASKED), ttl, RData::CNAME(CNAME(name("a.example.test."))));
    type Build = Box<dyn Fn(&mut Message)>;
    let cases: Vec<(&str, Build, u64, bool)> = vec![
        (
            "an answer",
            Box::new(|m| {
                m.add_answer(a(ASKED, 9));
            }),
            9,
            false,
        ),
        (
            "capped",
            Box::new(|m| {
                m.add_answer(a(ASKED, 3600));
            }),
            30,
            false,
        ),
        (
            "TTL 0",
            Box::new(|m| {
                m.add_answer(a(ASKED, 0));
            }),
            0,
            false,
        ),
        (
            "a TTL over 2^31 counts as 0",
            Box::new(|m| {
                m.add_answer(a(ASKED, 0x8000_0001));
            }),
            0,
            false,
        ),
        (
            "the shortest of a chain",
            Box::new(move |m| {
                m.add_answer(cname(4)).add_answer(a("a.example.test.", 20));
            }),
            4,
            false,
        ),
        (
            "NODATA by the SOA's minimum",
            Box::new(|m| {
                m.add_authority(soa(60, 11));
            }),
            11,
            true,
        ),
        (
            "NODATA by the SOA's TTL",
            Box::new(|m| {
                m.add_authority(soa(6, 11));
            }),
            6,
            true,
        ),
        ("NODATA without SOA", Box::new(|_| {}), 0, true),
        (
            "NXDOMAIN",
            Box::new(|m| {
                m.metadata.response_code = ResponseCode::NXDomain;
                m.add_authority(soa(900, 900));
            }),
            30,
            true,
        ),
        ("SERVFAIL", Box::new(|m| m.metadata.response_code = ResponseCode::ServFail), 1, true),
        (
            "truncated",
            Box::new(|m| {
                m.metadata.truncation = true;
                m.add_answer(a(ASKED, 9));
            }),
            0,
            false,
        ),
    ];
    for (case, build, seconds, denial) in cases {
        let mut message = response();
        build(&mut message);
        let reply = parse(&message).unwrap_or_else(|| panic!("{case}: not parsed"));
        assert_eq!(reply.lifetime, Duration::from_secs(seconds), "{case}");
        assert_eq!(reply.is_denial(), denial, "{case}");
    }
}

#[test]
fn ttls_count_down_and_opt_is_gone() {
    let mut message = response();
    message.add_answer(a(ASKED, 3600)).add_answer(a(ASKED, 12));
    let text = RData::TXT(TXT::new(vec!["more".into()]));
    message.add_additional(HickoryRecord::from_rdata(name("x.example.test."), 8, text));
    message.set_edns(hickory_proto::op::Edns::new());
    let reply = parse(&message).unwrap();
    let mut out = Vec::new();
    for (age, ttls) in [(0, [30, 12, 8]), (5, [25, 7, 3]), (10, [20, 2, 0])] {
        reply.write(&mut out, reply.stored + Duration::from_secs(age));
        let got = Message::from_vec(&out).unwrap();
        assert!(got.edns.is_none());
        let got: Vec<u32> = got.answers.iter().chain(&got.additionals).map(|r| r.ttl).collect();
        assert_eq!(got, ttls, "after {age} s");
    }
}

#[test]
fn what_is_no_answer_to_the_question() {
    let mut good = response();
    good.add_answer(a(ASKED, 9));
    let bytes = good.to_vec().unwrap();
    let parses = |bytes: Vec<u8>| Reply::parse(bytes, 7, &question(), CacheLimits::default()).is_some();
    assert!(parses(bytes.clone()));
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change); 9] = [
        ("another id", |m| m[1] = 8),
        ("a query", |m| m[2] &= 0x7f),
        ("another opcode", |m| m[2] |= 0x20),
        ("no question", |m| m[5] = 0),
        ("another name", |m| m[13] = b'x'),
        ("another type", |m| m[30] = 28),
        ("another class", |m| m[32] = 3),
        ("cut", |m| m.truncate(m.len() - 1)),
        ("more records than there are", |m| m[7] = 2),
    ];
    for (case, change) in cases {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        assert!(!parses(bytes), "{case}");
    }
    let mut upper = bytes;
    upper[13..16].copy_from_slice(b"WWW");
    assert!(parses(upper), "letters' case does not matter");
}

#[test]
fn bounded_and_counted() {
    let metrics = Metrics::new();
    let limits = CacheLimits { capacity: 100_000, ..CacheLimits::default() };
    let cache = Cache::new(limits, metrics.clone());
    let mut message = response();
    message.add_answer(a(ASKED, 30));
    let reply = Arc::new(parse(&message).unwrap());
    let hot = Key::new(b"\x03hot\x00", 1, false, false);
    cache.put(&hot, Ok(reply.clone()));
    for i in 0..20_000u32 {
        assert!(cache.get(&hot).is_some() || i > 0);
        let mut name = vec![8];
        name.extend_from_slice(format!("{i:08}").as_bytes());
        name.push(0);
        cache.put(&Key::new(&name, 1, false, false), Ok(reply.clone()));
    }
    let (entries, bytes) = cache.settle();
    assert!(bytes <= 100_000 && entries > 100, "{entries} entries, {bytes} bytes");
    assert_eq!(metrics.cache_entries[0].load(Relaxed), entries);
    assert!(cache.get(&hot).is_some(), "names asked once do not wash out one asked often");
    let other = Key::new(b"\x03hot\x00", 1, true, false);
    assert!(cache.get(&other).is_none(), "DO is part of the question");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever an upstream sends is refused or can be passed on.
    #[test]
    fn mutated_answers(changes in proptest::collection::vec((12usize..120, any::<u8>()), 0..5), cut in 0usize..120) {
        let mut message = response();
        message.add_answer(a(ASKED, 3600)).add_answer(a("other.example.test.", 12)).add_authority(soa(5, 5));
        message.set_edns(hickory_proto::op::Edns::new());
        let mut bytes = message.to_vec().unwrap();
        for (at, value) in changes {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = value;
            }
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()) / 10);
        if let Some(reply) = Reply::parse(bytes, 7, &question(), CacheLimits::default()) {
            let mut out = Vec::new();
            reply.write(&mut out, reply.stored + Duration::from_secs(3));
            reply.rotate(&mut out);
            prop_assert_eq!(out.len(), reply.bytes.len());
        }
    }
}
