//! Resolvers as they are in the wild, inside a pod: each finds the same addresses. `scripts/setup lab` installs them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use eastwest_integration::peers::{debian, repository, upstream};
use eastwest_integration::*;
use eastwest_lab::{Families, Lab, Options, Plan, PodSpec};
use http::Method;
use serde_json::{Value, json};

const POD: &str = "shop/buyer";
/// More than a datagram of 1232 bytes holds.
const MANY: u8 = 120;

/// Runs a compiler or the like on this machine.
fn make(program: &str, args: &[&str], extra: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args).envs(extra.iter().copied());
    let output = command.output().with_context(|| format!("{program}: run `scripts/setup lab`"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {args:?}: {said}");
    Ok(())
}

/// `NAME ADDRESS` of each line; addresses in one form, TTLs and the like left out.
fn lines(text: &str) -> Result<BTreeSet<(String, String)>> {
    let one = |line: &str| {
        let (name, rest) = line.split_once(' ').with_context(|| format!("{line:?}"))?;
        let text = rest.parse::<IpAddr>().map_or_else(|_| rest.to_owned(), |ip| ip.to_string());
        Ok((name.trim_end_matches('.').to_owned(), text))
    };
    text.lines().filter(|l| !l.is_empty()).map(one).collect()
}

fn objects(lab: &Lab) -> Result<Vec<IpAddr>> {
    let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    request(lab, Method::POST, "/api/v1/namespaces", &[], Some(&shop))?;
    let ports = json!([{"name": "http", "port": 80}]);
    let dual = json!("RequireDualStack");
    let web = service(lab, "web", json!({"ports": ports, "ipFamilyPolicy": dual}))?;
    service(lab, "many", json!({"ports": ports, "clusterIP": "None"}))?;
    let endpoints: Vec<Value> = (0..MANY)
        .map(|i| json!({"addresses": [format!("10.245.0.{}", i + 1)], "conditions": {"ready": true}}))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "many-1", "labels": {"kubernetes.io/service-name": "many"}},
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "endpoints": endpoints,
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    request(lab, Method::POST, path, &[("wait", "programmed"), ("timeout", "10s")], Some(&slice))?;
    Ok(cluster_ips(&web))
}

/// What each name is to give.
fn expected(names: &[&str], web: &[IpAddr]) -> BTreeSet<(String, String)> {
    let addresses = |name: &str| -> Vec<String> {
        if name.starts_with("web") {
            web.iter().map(IpAddr::to_string).collect()
        } else if name.starts_with("many") {
            (1..=MANY).map(|i| format!("10.245.0.{i}")).collect()
        } else if name.starts_with("www") {
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(str::to_owned).to_vec()
        } else {
            vec!["none".to_owned()]
        }
    };
    names.iter().flat_map(|n| addresses(n).into_iter().map(|a| ((*n).to_owned(), a))).collect()
}

#[test]
fn each_finds_the_same() {
    let result = (|| -> Result<()> {
        let folder = tempfile::tempdir()?;
        let sources = repository().join("tests/dns/resolvers");
        let source = |name: &str| sources.join(name).display().to_string();
        let built = |name: &str| folder.path().join(name).display().to_string();
        let c = source("getaddrinfo.c");
        make("cc", &["-o", &built("glibc"), &c], &[])?;
        make("musl-gcc", &["-static", "-o", &built("musl"), &c], &[])?;
        let cache = [("CGO_ENABLED", "0"), ("GOFLAGS", "-buildvcs=false")];
        make("go", &["build", "-o", &built("go"), &source("lookup.go")], &cache)?;
        make("javac", &["-d", &folder.path().display().to_string(), &source("Lookup.java")], &[])?;
        let (certificate, key) = certificate(folder.path())?;

        let words = |p: &Path| p.display().to_string();
        let tls = ["--dns-tls-cert", &words(&certificate), "--dns-tls-key", &words(&key)].map(str::to_owned);
        let lab = lab("resolvers", Options { nodes: 1, agent_args: tls.to_vec(), ..Options::default() })?;
        let _upstream = upstream(&lab, folder.path())?;
        let web = objects(&lab)?;
        lab.run_pod(&PodSpec::new(POD, "node-1")?)?;
        let dns = Plan::dns_ip(Families::V4);

        // With the search list, which is walked for them, and without.
        let short = ["web.default", "many.default", "www.example.test", "gone.default", "gone.example.test"];
        let whole = [
            "web.default.svc.cluster.local",
            "many.default.svc.cluster.local",
            "www.example.test",
            "gone.default.svc.cluster.local",
            "gone.example.test",
        ];
        let node = source("lookup.js");
        let classes = words(folder.path());
        let [glibc, musl, go] = ["glibc", "musl", "go"].map(built);
        let (resolved, unpacked) = (source("resolved"), words(&debian(&["systemd-resolved"])?));
        let dns_text = dns.to_string();
        let beside = [resolved.as_str(), &unpacked, &dns_text];
        let resolvers: &[(&str, Vec<&str>, &[&str])] = &[
            ("glibc", vec![&glibc], &short),
            ("glibc, whole names", vec![&glibc], &whole),
            ("musl", vec![&musl], &short),
            ("musl, whole names", vec![&musl], &whole),
            ("Go", vec![&go], &short),
            ("Go, whole names", vec![&go], &whole),
            ("Node.js", vec!["node", &node], &whole),
            ("glibc, systemd-resolved's stub", [&beside[..], &[&glibc]].concat(), &short),
            ("Node.js, systemd-resolved's stub", [&beside[..], &["node", &node]].concat(), &whole),
            ("Java", vec!["java", "-cp", &classes, "Lookup"], &whole),
        ];
        let mut wrong = Vec::new();
        for (who, argv, names) in resolvers {
            let argv: Vec<&str> = argv.iter().chain(*names).copied().collect();
            let seen = lines(&run(&lab, POD, &argv)?)?;
            let mut wanted = expected(names, &web);
            // musl before 1.2.4 does not ask again by TCP, and each takes 48 addresses at most: some will do.
            if who.starts_with("musl") {
                let many = seen.iter().filter(|s| s.0.starts_with("many") && wanted.contains(s)).count();
                ensure!(many >= 20, "{who}: {many} addresses of the {MANY}");
                wanted.retain(|w| !w.0.starts_with("many") || seen.contains(w));
            }
            if seen != wanted {
                let only = |a: &BTreeSet<_>, b: &BTreeSet<_>| a.difference(b).cloned().collect::<Vec<_>>();
                wrong.push(format!(
                    "{who}: finds {:?}, not {:?}",
                    only(&seen, &wanted),
                    only(&wanted, &seen)
                ));
            }
        }
        let server = format!("@{dns}");
        let ca = format!("+tls-ca={}", words(&certificate));
        let stub = [&beside[..], &["dig", "@127.0.0.53", "+short"]].concat();
        for (who, argv) in [
            ("dig, systemd-resolved's stub", stub.clone()),
            ("dig +tcp, systemd-resolved's stub", [&stub[..], &["+tcp"]].concat()),
            ("dig", vec!["dig", &server, "+short"]),
            ("dig +tcp", vec!["dig", &server, "+short", "+tcp"]),
            ("dig +bufsize=512", vec!["dig", &server, "+short", "+bufsize=512"]),
            ("kdig", vec!["kdig", &server, "+short"]),
            ("kdig +tcp", vec!["kdig", &server, "+short", "+tcp"]),
            ("kdig +tls", vec!["kdig", &server, "+short", &ca, "+tls-hostname=dns.test"]),
        ] {
            for (name, count) in [(whole[0], 1), (whole[1], usize::from(MANY)), (whole[2], 2), (whole[3], 0)]
            {
                let text = run(&lab, POD, &[&argv[..], &[name]].concat())?;
                let seen = text.lines().filter(|l| l.parse::<IpAddr>().is_ok()).count();
                if seen != count {
                    wrong.push(format!("{who} {name}: {seen} addresses in place of {count}: {text}"));
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}

/// A certificate of its own for `dns.test`, and its key.
fn certificate(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let (c, k) = (certificate.display().to_string(), key.display().to_string());
    let args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let names = ["-days", "1", "-subj", "/CN=dns.test", "-addext", "subjectAltName=DNS:dns.test"];
    make("openssl", &[&args[..], &names[..], &["-out", &c, "-keyout", &k]].concat(), &[])?;
    Ok((certificate, key))
}
