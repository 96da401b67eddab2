//! The same questions to eastwest's DNS and to CoreDNS, which reads the same API: each difference is none, or stands in
//! `tests/dns/differences.yaml` with its reason.
//!
//! 10,000 questions; `make test-dns-diff` asks 100,000. `EASTWEST_DNS_QUERIES` and `EASTWEST_DNS_SEED` say otherwise.

mod cluster;
mod differences;
mod questions;
mod transfer;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use differences::Differences;
use eastwest_integration::dns::{Seen, ask_all};
use eastwest_integration::peers::{Peer, coredns, repository, upstream};
use eastwest_integration::*;
use eastwest_lab::{Families, Lab, Options, Plan, Role};

const NODE: &str = "node-1";
const OURS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)), 53);
const THEIRS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5300);

/// Options of `kubernetes` and what stands beside it, a round of questions each.
const VARIANTS: [(&str, &str, &str); 5] = [
    (
        "kubeadm",
        "  pods insecure\n  fallthrough in-addr.arpa ip6.arpa\n  ttl 30\n",
        " transfer {\n  to *\n }\n",
    ),
    ("strict", "  pods disabled\n  ttl 7\n  ignore empty_service\n  namespaces default shop\n", " minimal\n"),
    (
        "wide",
        "  pods insecure\n  fallthrough\n",
        " any\n transfer {\n  to *\n }\n hosts {\n  192.0.2.99 host.example.test\n  fallthrough\n }\n",
    ),
    ("bare", "  pods disabled\n  noendpoints\n  namespaces default hidden\n  fallthrough in-addr.arpa\n", ""),
    // Taken up at the agent's start.
    ("podnames", "  pods insecure\n  endpoint_pod_names\n  ttl 60\n", " transfer {\n  to *\n }\n"),
];

/// The same text for both, but for how CoreDNS reaches the API. `version.bind` says which one is followed.
fn corefile((name, kubernetes, more): (&str, &str, &str), kubeconfig: Option<&Path>) -> String {
    let kubeconfig = kubeconfig.map_or(String::new(), |p| format!("  kubeconfig {}\n", p.display()));
    let upstream = Plan::fabric_ip(Families::V4);
    format!(
        ". {{\n errors\n chaos {name} us\n kubernetes cluster.local other.test in-addr.arpa ip6.arpa {{\n\
         {kubeconfig}{kubernetes} }}\n{more} forward . {upstream}\n loadbalance\n}}\n"
    )
}

/// Waits until the server follows the plan of that name.
fn follows(lab: &Lab, server: SocketAddr, name: &str) -> Result<()> {
    let mut request = dns::query("version.bind.", 16);
    let class = request.len() - 1;
    request[class] = 3;
    let end = std::time::Instant::now() + PATIENCE * 6;
    loop {
        let answers = lab.within(NODE, || ask_all(server, std::slice::from_ref(&request)))??;
        let seen = Seen::read(&request, &answers[0]).map(|s| s.answer).unwrap_or_default();
        if seen.iter().any(|a| a.contains(name)) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < end, "{server} does not follow {name}: {seen:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Waits until the server knows the Service that was made last.
fn knows(lab: &Lab, server: SocketAddr, name: &str) -> Result<()> {
    let request = dns::query(name, 1);
    let end = std::time::Instant::now() + PATIENCE * 6;
    loop {
        let answers = lab.within(NODE, || ask_all(server, std::slice::from_ref(&request)))??;
        let seen = Seen::read(&request, &answers[0])?;
        if !seen.answer.is_empty() {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < end, "{server} does not know {name}: {seen:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn number(key: &str, default: u64) -> Result<u64> {
    match std::env::var(key) {
        Ok(text) => text.parse().with_context(|| format!("{key}={text}")),
        Err(_) => Ok(default),
    }
}

#[test]
fn as_coredns_but_for_what_is_listed() {
    if let Err(e) = compare() {
        panic!("{e:?}");
    }
}

fn compare() -> Result<()> {
    let queries = number("EASTWEST_DNS_QUERIES", 10_000)?;
    let seed = number("EASTWEST_DNS_SEED", 1)?;
    let list = repository().join("tests/dns/differences.yaml");
    let mut differences = Differences::read(&list)?;
    let coredns = coredns()?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let followed = at("Corefile.ours");
    std::fs::write(&followed, corefile(VARIANTS[0], None))?;

    let options = Options {
        nodes: 1,
        agent_args: vec!["--corefile".into(), followed.display().to_string()],
        ..Options::default()
    };
    let lab = lab("dnsdiff", options)?;
    let _upstream = upstream(&lab, folder.path())?;
    let cluster = cluster::make(&lab, seed)?;

    let kubeconfig = at("kubeconfig");
    let text = std::fs::read_to_string(lab.kubeconfig())?;
    let server = text.lines().find_map(|l| l.trim().strip_prefix("server: ")).context("a server")?;
    let inside = format!("https://{}:7443", Plan::controller_ip(Families::V4));
    std::fs::write(&kubeconfig, text.replace(server, &inside))?;

    let each = queries.div_ceil(VARIANTS.len() as u64);
    for (round, variant) in VARIANTS.into_iter().enumerate() {
        std::fs::write(&followed, corefile(variant, None))?;
        if variant.1.contains("endpoint_pod_names") {
            let agent = Role::Agent(NODE.into());
            lab.stop(&agent)?;
            lab.start(&agent)?;
        }
        let theirs = at(&format!("Corefile.{}", variant.0));
        std::fs::write(&theirs, corefile(variant, Some(&kubeconfig)))?;
        let theirs = theirs.display().to_string();
        let args = ["-conf", &theirs, "-dns.port", "5300"];
        let mut peer = Peer::start(&lab, NODE, &coredns, &args, at(&format!("{}.log", variant.0)))?;
        follows(&lab, THEIRS, variant.0).or_else(|e| peer.check().and(Err(e)))?;
        for server in [OURS, THEIRS] {
            follows(&lab, server, variant.0)?;
            knows(&lab, server, &cluster.last)?;
        }
        let requests = questions::make(&cluster, seed + round as u64, each as usize);
        let (ours, theirs) = std::thread::scope(|scope| {
            let both = [OURS, THEIRS].map(|server| {
                scope.spawn({
                    let (lab, requests) = (&lab, &requests);
                    move || lab.within(NODE, || ask_all(server, requests))
                })
            });
            let [ours, theirs] = both.map(|t| t.join().expect("no panic"));
            anyhow::Ok((ours??, theirs??))
        })?;
        for ((request, ours), theirs) in requests.iter().zip(&ours).zip(&theirs) {
            differences.judge(variant.0, request, ours, theirs)?;
        }
        if variant.2.contains("transfer") {
            let records = transfer::compare(&lab, NODE, OURS, THEIRS)?;
            println!("{}: {records} records of the zone handed over alike", variant.0);
        }
        peer.check()?;
    }
    println!("questions: {}", differences.summary());
    differences.verdict()
}
