//! `tests/dns/cases.yaml`: what pods of a lab are answered, row by row, over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use eastwest_integration::dns::{Seen, ask_all, ask_tcp};
use eastwest_integration::peers::{repository, upstream};
use eastwest_integration::*;
use eastwest_lab::{Families, Lab, Options, Plan, PodSpec};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

const SERVER: &str = "10.96.0.10:53";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    ask: String,
    #[serde(default = "buyer")]
    from: String,
    /// Instead of the cluster's address.
    to: Option<String>,
    #[serde(default)]
    tcp: bool,
    #[serde(default)]
    opcode: u8,
    /// The question stands there two times.
    #[serde(default)]
    twice: bool,
    edns: Option<Edns>,
    #[serde(default = "noerror")]
    rcode: String,
    flags: Option<BTreeSet<String>>,
    #[serde(default)]
    answer: Records,
    #[serde(default)]
    authority: Records,
    #[serde(default)]
    additional: Records,
    /// As [`Seen::edns`].
    opt: Option<String>,
    /// Parts that are not looked at.
    #[serde(default)]
    loose: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edns {
    #[serde(default)]
    size: u16,
    #[serde(default)]
    version: u8,
    #[serde(default, rename = "do")]
    dnssec_ok: bool,
    /// Code and data in hexadecimal digits.
    #[serde(default)]
    options: BTreeMap<u16, String>,
}

/// A list, or `soa`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Records {
    Word(String),
    List(BTreeSet<String>),
}

impl Default for Records {
    fn default() -> Self {
        Self::List(BTreeSet::new())
    }
}

fn buyer() -> String {
    "shop/buyer".into()
}

fn noerror() -> String {
    "NOERROR".into()
}

impl Records {
    fn set(&self) -> Result<BTreeSet<String>> {
        const SOA: &str =
            "cluster.local. 5 soa ns.dns.cluster.local. hostmaster.cluster.local. serial 7200 1800 86400 5";
        match self {
            Self::List(list) => Ok(list.clone()),
            Self::Word(word) if word == "soa" => Ok([SOA.to_owned()].into()),
            Self::Word(word) => bail!("{word} is neither a list nor soa"),
        }
    }
}

fn request(case: &Case) -> Result<Vec<u8>> {
    let words: Vec<&str> = case.ask.split(' ').collect();
    let (name, qtype) = (words[0], *words.get(1).context("a type")?);
    // hickory does not know all words.
    let qtype = match qtype {
        "IXFR" => 251,
        other => u16::from(other.parse::<hickory_proto::rr::RecordType>()?),
    };
    let mut bytes = dns::query(name, qtype);
    let end = bytes.len();
    match words.get(2) {
        None => {}
        Some(&"CH") => bytes[end - 1] = 3,
        Some(&"HS") => bytes[end - 1] = 4,
        Some(other) => bail!("class {other}"),
    }
    bytes[2] |= case.opcode << 3;
    if case.twice {
        bytes[5] = 2;
        bytes.extend_from_within(12..);
    }
    if let Some(edns) = &case.edns {
        bytes[11] = 1;
        bytes.extend([0, 0, 41]);
        bytes.extend(edns.size.to_be_bytes());
        bytes.extend([0, edns.version, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
        let mut options = Vec::new();
        for (code, hex) in &edns.options {
            let data: Vec<u8> = (0..hex.len() / 2)
                .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16))
                .collect::<Result<_, _>>()?;
            options.extend(code.to_be_bytes());
            options.extend((data.len() as u16).to_be_bytes());
            options.extend(data);
        }
        bytes.extend((options.len() as u16).to_be_bytes());
        bytes.extend(options);
    }
    Ok(bytes)
}

fn check(case: &Case, seen: &Seen) -> Result<()> {
    let usual = || ["qr", "aa", "rd", "ra"].map(str::to_owned).into();
    let flags: BTreeSet<String> = seen.flags.iter().map(|f| (*f).to_owned()).collect();
    let wanted = case.flags.clone().unwrap_or_else(usual);
    let loose = |part: &str| case.loose.iter().any(|l| l == part);
    let without = |flags: &BTreeSet<String>| -> BTreeSet<String> {
        flags.iter().filter(|f| !loose(f)).cloned().collect()
    };
    ensure!(seen.rcode == case.rcode, "rcode {}", case.rcode);
    ensure!(without(&flags) == without(&wanted), "flags {wanted:?}");
    ensure!(loose("answer") || seen.answer == case.answer.set()?, "answer {:?}", case.answer);
    ensure!(loose("authority") || seen.authority == case.authority.set()?, "authority {:?}", case.authority);
    ensure!(loose("additional") || seen.additional == case.additional.set()?, "{:?}", case.additional);
    ensure!(seen.edns == case.opt, "EDNS {:?}", case.opt);
    ensure!(loose("question") || seen.question, "the question as it was asked");
    Ok(())
}

/// A Corefile and what is answered under it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Followed {
    corefile: String,
    cases: Vec<Case>,
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(repository().join("tests/dns").join(file)).with_context(|| file.to_owned())
}

/// Makes what cluster.yaml says, and the pods that ask.
fn populate(lab: &Lab) -> Result<()> {
    let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    eastwest_integration::request(lab, Method::POST, "/api/v1/namespaces", &[], Some(&shop))?;
    for document in serde_yaml_ng::Deserializer::from_str(&read("cluster.yaml")?) {
        let object = Value::deserialize(document)?;
        let (group, kind) = (object["apiVersion"].as_str(), object["kind"].as_str().context("a kind")?);
        let path = match group {
            Some("v1") => "/api/v1".to_owned(),
            Some(group) => format!("/apis/{group}"),
            None => bail!("no apiVersion"),
        };
        let path = format!("{path}/namespaces/default/{}s", kind.to_lowercase());
        let query = [("wait", "programmed"), ("timeout", "10s")];
        eastwest_integration::request(lab, Method::POST, &path, &query, Some(&object))
            .with_context(|| object["metadata"].to_string())?;
    }
    for pod in ["default/other", "shop/buyer"] {
        lab.run_pod(&PodSpec::new(pod, "node-1")?)?;
    }
    Ok(())
}

/// Asks each row; gives what was wrong.
fn ask(lab: &Lab, cases: &[Case]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for case in cases {
        let request = request(case).with_context(|| case.ask.clone())?;
        let server: SocketAddr = case.to.as_deref().unwrap_or(SERVER).parse()?;
        let bytes = lab.within(&case.from, || {
            if case.tcp {
                ask_tcp(server, &request)
            } else {
                Ok(ask_all(server, std::slice::from_ref(&request))?.remove(0))
            }
        })??;
        let seen = Seen::read(&request, &bytes)?;
        if let Err(e) = check(case, &seen) {
            wrong.push(format!("{} from {}: not {e}\n    but {seen}", case.ask, case.from));
        }
    }
    Ok(wrong)
}

#[test]
fn every_row() {
    let result = (|| -> Result<()> {
        let cases: Vec<Case> = serde_yaml_ng::from_str(&read("cases.yaml")?)?;
        let folder = tempfile::tempdir()?;
        let lab = lab("dnscases", Options { nodes: 1, ..Options::default() })?;
        let _upstream = upstream(&lab, folder.path())?;
        populate(&lab)?;
        let wrong = ask(&lab, &cases)?;
        ensure!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        println!("{} rows", cases.len());
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}

#[test]
fn every_corefile() {
    let result = (|| -> Result<()> {
        let upstream_ip = Plan::fabric_ip(Families::V4).to_string();
        let text = read("plans.yaml")?.replace("UPSTREAM", &upstream_ip);
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("Corefile");
        std::fs::write(&path, ". {\n chaos none us\n}\n")?;
        let agent_args = vec!["--corefile".into(), path.display().to_string()];
        let lab = lab("dnsplans", Options { nodes: 1, agent_args, ..Options::default() })?;
        let _upstream = upstream(&lab, folder.path())?;
        populate(&lab)?;
        let state = lab.state()?;
        let buyer = &state.pods.get(&"shop/buyer".parse()?).context("the pod")?.addresses;
        let buyer = buyer.iter().find(|ip| ip.is_ipv4()).context("its address")?.to_string();
        let text = text.replace("BUYERIP", &buyer).replace("BUYER", &buyer.replace('.', "-"));
        let plans: Vec<Followed> = serde_yaml_ng::from_str(&text)?;
        let mut wrong = Vec::new();
        for plan in &plans {
            std::fs::write(&path, &plan.corefile)?;
            let chaos = plan.corefile.lines().find_map(|l| l.trim().strip_prefix("chaos "));
            let name = chaos.and_then(|c| c.split(' ').next()).context("chaos with a name")?;
            let mut version = dns::query("version.bind.", 16);
            let class = version.len() - 1;
            version[class] = 3;
            eventually(|| {
                let server = SERVER.parse()?;
                let bytes =
                    lab.within("shop/buyer", || ask_all(server, std::slice::from_ref(&version)))??;
                let seen = Seen::read(&version, &bytes[0])?;
                ensure!(seen.answer.iter().any(|a| a.ends_with(name)), "{name} is not followed: {seen}");
                Ok(())
            })?;
            wrong.extend(ask(&lab, &plan.cases)?.into_iter().map(|w| format!("{name}: {w}")));
        }
        ensure!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
        println!("{} Corefiles, {} rows", plans.len(), plans.iter().map(|p| p.cases.len()).sum::<usize>());
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}
