//! `tests/dns/cases.yaml`: what pods of a lab are answered, row by row, over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use eastwest_integration::dns::{Seen, ask_all, ask_tcp};
use eastwest_integration::peers::{repository, upstream};
use eastwest_integration::*;
use eastwest_lab::{Options, PodSpec};
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
    #[serde(default)]
    tcp: bool,
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
    ensure!(seen.question, "the question as it was asked");
    Ok(())
}

#[test]
fn every_row() {
    let result = (|| -> Result<()> {
        let read = |file: &str| std::fs::read_to_string(repository().join("tests/dns").join(file));
        let cases: Vec<Case> = serde_yaml_ng::from_str(&read("cases.yaml")?)?;
        let folder = tempfile::tempdir()?;
        let lab = lab("dnscases", Options { nodes: 1, ..Options::default() })?;
        let _upstream = upstream(&lab, folder.path())?;
        let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        eastwest_integration::request(&lab, Method::POST, "/api/v1/namespaces", &[], Some(&shop))?;
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
            eastwest_integration::request(&lab, Method::POST, &path, &query, Some(&object))
                .with_context(|| object["metadata"].to_string())?;
        }
        for pod in ["default/other", "shop/buyer"] {
            lab.run_pod(&PodSpec::new(pod, "node-1")?)?;
        }
        let server: SocketAddr = SERVER.parse()?;
        let mut wrong = Vec::new();
        for case in &cases {
            let request = request(case).with_context(|| case.ask.clone())?;
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
        ensure!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        println!("{} rows", cases.len());
        Ok(())
    })();
    if let Err(e) = result {
        panic!("{e:?}");
    }
}
