//! What is read of Corefiles, and how errors speak.

use std::path::Path;

use super::*;
use crate::{CacheLimits, PodMode, Stale};

const KUBEADM: &str = "
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

fn environment() -> Environment {
    Environment {
        listen: vec!["169.254.20.10".parse().unwrap(), "10.96.0.10".parse().unwrap()],
        variables: [("UPSTREAM".to_owned(), "192.0.2.53".to_owned())].into(),
        resolv_conf: "/dev/null".into(),
        ..Environment::default()
    }
}

fn build(text: &str) -> Result<(Plan, Option<IndexOptions>), CorefileError> {
    let environment = environment();
    Corefile::parse(text, Path::new("/nonexistent"), &environment)?.build(&environment)
}

#[test]
fn kubeadm_as_it_is() {
    let (plan, options) = build(KUBEADM).unwrap();
    let options = options.unwrap();
    assert_eq!(options.zones, ["cluster.local"]);
    assert_eq!(options.reverse, ["in-addr.arpa", "ip6.arpa"]);
    assert_eq!((options.ttl, options.pods), (30, PodMode::Insecure));
    assert_eq!(plan.lameduck.as_secs(), 5);
    let block = &plan.blocks[0];
    let www = crate::wire::Name::parse("www.test").unwrap();
    assert!(block.is_plain(&www, 28) && block.kubernetes && block.loadbalance && block.autopath.is_some());
    let group = &block.groups[0].options;
    assert_eq!((group.max_concurrent, group.policy), (1000, crate::forward::Policy::Random));
    assert_eq!((group.cache.positive, group.cache.negative), (30, 30));
}

#[test]
fn common_config_maps() {
    // A stub domain, NodeLocal DNSCache, a rewrite, hosts, a template, an imported snippet.
    let texts = [
        "example.org:53 {\n errors\n cache 30\n forward . 10.0.0.53 10.0.0.54:5353\n}\n".to_owned() + KUBEADM,
        "cluster.local:53 {\n errors\n cache {\n  success 9984 30\n  denial 9984 5\n }\n reload\n loop\n \
         bind 169.254.20.10 10.96.0.10\n forward . 10.0.0.1 {\n  force_tcp\n }\n prometheus :9153\n \
         health 169.254.20.10:8080\n}\n.:53 {\n cache 30\n forward . {$UPSTREAM}\n}\n"
            .into(),
        ".:53 {\n rewrite name foo.example.com foo.default.svc.cluster.local\n \
         rewrite stop {\n  name regex (.*)\\.corp\\.example\\.$ {1}.default.svc.cluster.local\n  \
         answer name (.*)\\.default\\.svc\\.cluster\\.local {1}.corp.example\n }\n kubernetes cluster.local\n}\n"
            .into(),
        ".:53 {\n hosts {\n  10.0.0.1 db.corp.test\n  ttl 60\n  fallthrough\n }\n forward . tls://9.9.9.9 {\n  \
         tls_servername dns.quad9.net\n  health_check 5s\n  policy sequential\n  except a.test b.test\n }\n}\n"
            .into(),
        "(common) {\n errors\n cache {args.0}\n}\nexample.test {\n import common 60\n whoami\n}\n. {\n template IN A \
         example.com {\n  match \"^ip-(?P<a>[0-9]+)\\.example\\.com\\.$\"\n  answer \"{{ .Name }} 60 IN A \
         10.0.0.{{ .Group.a }}\"\n  fallthrough\n }\n}\n"
            .into(),
        ". {\n acl {\n  allow net 10.0.0.0/8\n  block type ANY AXFR net *\n  drop net 192.0.2.1\n }\n any\n dns64 {\n  \
         allow_ipv4\n }\n header {\n  response set ra\n  response clear aa\n }\n minimal\n nsid\n chaos v1 a b\n local\n \
         bufsize 1232\n log . {\n  class denial error\n }\n cancel 5s\n debug\n}\n"
            .into(),
        "10.0.0.0/22 {\n forward . 10.0.0.2\n}\n".into(),
        // One block without braces.
        ".\nforward . 192.0.2.1\ncache\n".into(),
    ];
    for text in texts {
        if let Err(e) = build(&text) {
            panic!("{e}\n{text}");
        }
    }
    let (plan, _) = build("10.0.0.0/22 {\n whoami\n}").unwrap();
    let zones: Vec<String> = plan.blocks[0].zones.iter().map(|z| format!("{z:?}")).collect();
    assert_eq!(zones[0], "0.0.10.in-addr.arpa.");
    assert_eq!(zones.len(), 4);
    let cache = ". {\n forward . 192.0.2.1\n cache 60 {\n  success 100 120 10\n  prefetch 5 1m 20%\n  serve_stale 1h verify\n  \
                 servfail 10s\n  keepttl\n }\n}";
    let (plan, _) = build(cache).unwrap();
    let limits: CacheLimits = plan.blocks[0].groups[0].options.cache;
    assert_eq!((limits.positive, limits.positive_min, limits.negative, limits.failure), (120, 10, 60, 10));
    assert_eq!(limits.stale, Some(Stale { longest: 3600, verify: true }));
    assert!(limits.keep_ttl && limits.prefetch.is_some_and(|p| p.hits == 5 && p.percent == 20));
}

#[test]
fn only_questions_that_a_plugin_is_for_leave_the_short_way() {
    let text = ". {\n hosts {\n  10.0.0.1 a.test\n  fallthrough\n }\n rewrite name b.test c.test\n template IN TXT t.test {\n  \
                rcode NXDOMAIN\n }\n dns64\n local\n kubernetes cluster.local\n}";
    let (plan, _) = build(text).unwrap();
    for (name, qtype, plain) in [
        ("web.default.svc.cluster.local", 1, true),
        ("web.default.svc.cluster.local", 28, false),
        ("a.test", 1, false),
        ("b.test", 1, false),
        ("c.test", 1, true),
        ("t.test", 16, false),
        ("t.test", 1, true),
        ("x.localhost", 1, false),
        (".", 2, true),
    ] {
        let name = crate::wire::Name::parse(name).unwrap();
        assert_eq!(plan.blocks[0].is_plain(&name, qtype), plain, "{name:?} {qtype}");
    }
}

#[test]
fn errors_name_the_line_and_what_to_do() {
    for (text, line, parts) in [
        ("", 1, "no server block"),
        (".:53 {\n errors\n", 2, "ends before a `}`"),
        (".:53 {\n erorrs\n}", 2, "erorrs: is no plugin of CoreDNS that is known here (is it errors?)"),
        (".:53 {\n errors\n errors\n}", 3, "stands in this block already, in line 2"),
        (".:5353 {\n errors\n}", 1, "port 53 is what is served here"),
        ("tls://. {\n errors\n}", 1, "--dns-tls-cert"),
        (".:53 {\n file db.example.org\n}", 2, "DnsRecord objects"),
        (".:53 {\n kubernetes cluster.local {\n  pod insecure\n }\n}", 3, "kubernetes: pod is no option"),
        (".:53 {\n kubernetes {\n  endpoint https://x\n }\n}", 3, "eastwest's controller"),
        (".:53 {\n prometheus :9253\n}", 2, "--dns-metrics-listen"),
        (".:53 {\n bind 192.0.2.1\n}", 2, "--cluster-dns"),
        (".:53 {\n forward . example.org\n}", 2, "an upstream is an IP address"),
        (".:53 {\n forward .\n}", 2, "at least one upstream"),
        (".:53 {\n forward . 192.0.2.1 {\n  policy best\n }\n}", 3, "random, round_robin or sequential"),
        (".:53 {\n template IN A {\n  answer \"{{ if .Name }}\"\n }\n}", 3, "{{ if .Name }} is not known"),
        (".:53 {\n rewrite name regex ( x\n}", 2, "unclosed group"),
        (".:53 {\n forward . {$NONE}\n}", 2, "no variable NONE"),
        (".:53 {\n cache x.test\n}", 2, "server block of their own"),
        (". {\n errors\n}\n. {\n errors\n}", 4, "has a server block already"),
        (".:53 { errors\n}", 1, "begin a new line"),
        (".:53 {\n errors }\n}", 2, "a brace must end its line"),
        (".:53 {\n import nothing.conf\n}", 2, "nothing.conf"),
        (".:53 {\n log \"x\n}", 2, "quotation mark"),
        (".:53 {\n cache {\n  servfail 10m\n }\n}", 3, "at most 5m"),
        (". {\n kubernetes cluster.local\n transfer {\n to 10.0.0.0/8\n }\n}", 4, "is no address"),
        (". {\n transfer cluster.local\n}", 2, "who may have"),
        (".:53 {\n reload 5 parsecs\n}", 2, "is not a duration"),
    ] {
        let error = build(text).map(drop).unwrap_err();
        assert!(error.line == line && error.to_string().contains(parts), "{text}\n{error}");
    }
}

#[test]
fn every_refused_plugin_says_what_to_do_instead() {
    for name in [
        "auto",
        "file",
        "secondary",
        "dnssec",
        "sign",
        "etcd",
        "route53",
        "azure",
        "clouddns",
        "grpc",
        "https",
        "quic",
        "k8s_external",
        "tls",
        "timeouts",
        "dnstap",
        "erratic",
        "geoip",
        "view",
        "pprof",
        "trace",
        "tsig",
        "nomad",
        "on",
    ] {
        let error = build(&format!(". {{\n {name}\n}}")).map(drop).unwrap_err();
        assert!(!error.message.contains("is no plugin"), "{name}: {error}");
    }
}

#[test]
fn imports() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.server"), "a.test {\n forward . 192.0.2.1\n}\n").unwrap();
    std::fs::write(dir.path().join("b.server"), "b.test {\n nonsense\n}\n").unwrap();
    std::fs::write(dir.path().join("c.override"), "log\ncache 20\n").unwrap();
    let environment = environment();
    let read = |text: &str| {
        let corefile = Corefile::parse(text, dir.path(), &environment)?;
        corefile.build(&environment).map(|(plan, _)| plan.blocks.len())
    };
    assert_eq!(read(". {\n import *.override\n}\nimport a.server\n"), Ok(2));
    assert_eq!(read(". {\n errors\n}\nimport *.nothing\n"), Ok(1));
    let error = read(". {\n errors\n}\nimport *.server\n").unwrap_err();
    assert_eq!(error.line, 2, "{error}");
    std::fs::write(dir.path().join("self"), "import self\n").unwrap();
    assert!(read("import self\n").unwrap_err().message.contains("nested too deep"));
}

/// Of which files that nobody meant are made.
const WORDS: [&str; 48] = [
    "\n",
    "\n",
    "\n",
    "{\n",
    "{\n",
    "}\n",
    "}\n",
    "{",
    "}",
    "\"",
    "`",
    "#",
    ",",
    ".",
    ".:53",
    "10.0.0.0/33",
    "::/0",
    "kubernetes",
    "cluster.local",
    "fallthrough",
    "pods",
    "verified",
    "forward",
    "tls://1.1.1.1%x",
    "/dev/null",
    "192.0.2.1:99999",
    "cache",
    "success",
    "prefetch",
    "18446744073709551616",
    "-1",
    "5s",
    "1e999h",
    "serve_stale",
    "rewrite",
    "name",
    "regex",
    "(((",
    "template",
    "IN",
    "ANY",
    "answer",
    "{{ .Name }}",
    "{{",
    "acl",
    "net",
    "hosts",
    "import",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(500))]

    #[test]
    fn no_words_upset_the_reader(words in proptest::collection::vec(0usize..WORDS.len(), 0..60)) {
        let text: String = words.iter().map(|w| WORDS[*w]).collect::<Vec<_>>().join(" ");
        for text in [text.clone(), format!(". {{\n{text}\n}}\n")] {
            if let Err(e) = build(&text) {
                proptest::prop_assert!(e.line <= text.lines().count() + 1 && !e.message.is_empty());
            }
        }
    }

    #[test]
    fn no_text_upsets_the_reader(
        cut in 0usize..600,
        changes in proptest::collection::vec((0usize..600, "[ -~\\n{}]"), 0..6),
    ) {
        let mut text: Vec<char> = KUBEADM.chars().collect();
        for (at, with) in changes {
            if let (Some(slot), Some(c)) = (text.get_mut(at), with.chars().next()) {
                *slot = c;
            }
        }
        text.truncate(cut.max(1));
        let text: String = text.into_iter().collect();
        if let Err(e) = build(&text) {
            proptest::prop_assert!(e.line <= text.lines().count() + 1 && !e.message.is_empty());
        }
    }
}
