//! pod → ClusterIP beside pod → pod, both with eastwest and without, and beside the nftables rules that kube-proxy
//! writes. One lab has eastwest, the other the same topology and nothing; the ways take turns, so that what else the
//! machine does falls on all of them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eastwest_client::WriteOptions;
use eastwest_lab::{Lab, Nic, Options, PodSpec};
use eastwest_model::Service;
use serde::Serialize;
use serde_json::{Value, json};

use crate::report::{Report, median, number, percentile};

/// Address of the nftables Service; no route, so that only the rule leads on.
const NFT_VIP: &str = "10.96.200.1";

struct Way<'a> {
    name: &'static str,
    lab: &'a Lab,
    to: SocketAddr,
    /// Where the rules lead.
    backend: SocketAddr,
}

pub fn run(report: &mut Report) -> Result<()> {
    // The NIC of a lab is a veth, and native XDP takes segmentation offload from its peer, which no real NIC's does:
    // tc at the NIC leaves both labs the same wire.
    let options = |name: &str, bare| Options {
        name: name.into(),
        nodes: 2,
        nic: Some(Nic::Tc),
        bare,
        ..Options::default()
    };
    let (east, bare) = (Lab::up(options("bencheast", false))?, Lab::up(options("benchbare", true))?);
    for backend in ["node-2", "node-1"] {
        let place = if backend == "node-2" { "other node" } else { "same node" };
        let suffix = if backend == "node-2" { "far" } else { "near" };
        let client = "client-pod";
        for lab in [&east, &bare] {
            if backend == "node-2" {
                lab.run_pod(&idle(client, "node-1")?)?;
            }
            let iperf = ["iperf3", "-s", "-p", "5201"].map(String::from).to_vec();
            let spec =
                PodSpec::new(&format!("bulk-{suffix}"), backend)?.label("app", &format!("bulk-{suffix}"));
            lab.run_pod(&PodSpec { port: 5201, command: iperf, ..spec })?;
            lab.run_pod(
                &PodSpec::new(&format!("echo-{suffix}"), backend)?.label("app", &format!("echo-{suffix}")),
            )?;
        }
        let ways = |what: &str, port| ways(&east, &bare, &format!("{what}-{suffix}"), port);
        let (to_bulk, to_echo) = (ways("bulk", 5201)?, ways("echo", 8080)?);
        let quick = report.quick;
        let rounds = if quick { 2 } else { 5 };
        let bulk = measure(rounds, &to_bulk, |way| bulk(way, quick))?;
        let echo = measure(rounds, &to_echo, |way| connects(way, quick))?;
        tell(report, &format!("bulk TCP, {place}"), "Gbit/s", &bulk);
        tell(report, &format!("connections, {place}"), "/s", &echo);
        let times = measure(rounds, &to_echo, |way| answers(way, quick))?;
        let [p50, p99] = [0, 1].map(|at| which(&times, at));
        tell(report, &format!("answer, p50, {place}"), "µs", &p50);
        tell(report, &format!("answer, p99, {place}"), "µs", &p99);
        // Once the rules are many their loading takes the longest time, so the ways without them are done by now.
        let many =
            if backend == "node-2" { many_rules(&bare, &to_echo, rounds, quick)? } else { Value::Null };
        if many != Value::Null {
            let of = |name: &str| median(&numbers(&many[name]));
            report.ratio(
                format!("connections, {place}: pod → ClusterIP"),
                (of("cluster_ip"), "/s"),
                (of("nftables"), "/s (nftables map DNAT with 10,000 Services)"),
            );
        }
        report.save(
            &format!("path-{suffix}"),
            json!({"bulk_gbit_per_s": bulk, "connections_per_s": echo, "answer_us_p50": p50, "answer_us_p99": p99,
                   "connections_per_s_10000_rules": many}),
        )?;
    }
    east.down()?;
    bare.down()?;
    Ok(())
}

/// A pod that only gives its namespace.
fn idle(name: &str, node: &str) -> Result<PodSpec> {
    let command = ["sleep", "infinity"].map(String::from).to_vec();
    Ok(PodSpec { command, ..PodSpec::new(name, node)? })
}

/// A Service of the pods `app`, and all ways there.
fn ways<'a>(east: &'a Lab, bare: &'a Lab, app: &str, port: u16) -> Result<[Way<'a>; 4]> {
    let address =
        |lab: &Lab| -> Result<IpAddr> { lab.state()?.pods[&app.parse()?].ipv4().context("an IPv4 pod") };
    let spec = json!({"metadata": {"name": app, "namespace": "default"}, "spec": {"selector": {"app": app}, "ports": [{"port": port}]}});
    let service: Service = serde_json::from_value(spec)?;
    let options = WriteOptions { wait_programmed: Some(Duration::from_secs(10)), ..Default::default() };
    let service = east.request(|client| async move { Ok(client.create(&service, &options).await?) })?;
    let vip = service.cluster_ips().next().context("clusterIP")?;
    let backend = SocketAddr::new(address(bare)?, port);
    let way = |name, lab, ip| Way { name, lab, to: SocketAddr::new(ip, port), backend };
    Ok([
        way("cluster_ip", east, vip),
        way("direct", east, address(east)?),
        way("nftables", bare, NFT_VIP.parse()?),
        way("bare", bare, backend.ip()),
    ])
}

/// Rounds of every way in turn.
fn measure<T: Serialize>(rounds: usize, ways: &[Way; 4], take: impl Fn(&Way) -> Result<T>) -> Result<Value> {
    let mut values = ways.each_ref().map(|w| (w.name, Vec::new()));
    for round in 0..=rounds {
        for (way, (_, values)) in ways.iter().zip(&mut values) {
            // Without eastwest and without the rules: nf_conntrack must not be on the direct path.
            match way.name {
                "bare" => run_in(way.lab, "node-1", &["nft", "flush", "ruleset"]).map(|_| ())?,
                "nftables" => nft_rules(way, 1)?,
                _ => {}
            }
            let value = take(way)?;
            // The first round warms up.
            if round > 0 {
                values.push(value);
            }
        }
    }
    Ok(values.into_iter().map(|(name, values)| (name.to_owned(), json!(values))).collect())
}

/// Connections a second beside the rules of 10,000 Services.
fn many_rules(bare: &Lab, ways: &[Way; 4], rounds: usize, quick: bool) -> Result<Value> {
    let [ours, _, theirs, _] = ways;
    nft_rules(theirs, if quick { 1_000 } else { 10_000 })?;
    let mut values = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (way, values) in [ours, theirs].into_iter().zip(&mut values) {
            values.push(connects(way, quick)?);
        }
    }
    run_in(bare, "node-1", &["nft", "flush", "ruleset"])?;
    let [ours, theirs] = values;
    Ok(json!({"cluster_ip": ours, "nftables": theirs}))
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn tell(report: &mut Report, what: &str, unit: &str, values: &Value) {
    let of = |name: &str| median(&numbers(&values[name]));
    let ours = of("cluster_ip");
    for (name, label) in [
        ("direct", "pod → pod, same lab"),
        ("bare", "pod → pod, no eastwest"),
        ("nftables", "nftables map DNAT"),
    ] {
        report.ratio(
            format!("{what}: pod → ClusterIP"),
            (ours, unit),
            (of(name), &format!("{unit} ({label})")),
        );
        eprintln!("{what}: ClusterIP {} {unit}, {label} {} {unit}", number(ours), number(of(name)));
    }
}

/// What kube-proxy's nftables mode makes of so many Services with one endpoint, without its masquerade marks. The first
/// is the way's.
fn nft_rules(way: &Way, services: usize) -> Result<()> {
    let (mut chains, mut elements) = (String::new(), String::new());
    for i in 0..services {
        let (vip, backend) = if i == 0 {
            (NFT_VIP.to_owned(), way.backend)
        } else {
            let (high, low) = (i / 250, 1 + i % 250);
            (
                format!("10.97.{high}.{low}"),
                SocketAddr::new(IpAddr::from([10, 250, high as u8, low as u8]), 8080),
            )
        };
        write!(
            chains,
            "chain e{i} {{ meta l4proto tcp dnat to {backend}; }}
  chain s{i} {{ numgen random mod 1 vmap {{ 0 : goto e{i} }}; }}\n"
        )?;
        write!(elements, "{vip} . tcp . {} : goto s{i}, ", way.to.port())?;
    }
    let rules = format!(
        "flush ruleset
table ip kube-proxy {{
  {chains}
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {elements} }}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr . meta l4proto . th dport vmap @service-ips
  }}
}}
"
    );
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(rules.as_bytes())?;
    run_in(way.lab, "node-1", &["nft", "-f", &file.path().display().to_string()]).map(|_| ())
}

fn run_in(lab: &Lab, target: &str, argv: &[&str]) -> Result<String> {
    let output = lab.exec(target, argv)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{argv:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Gbit/s as the receiver counted.
fn bulk(way: &Way, quick: bool) -> Result<f64> {
    let (ip, port) = (way.to.ip().to_string(), way.to.port().to_string());
    let time = if quick { "1" } else { "2" };
    let text = run_in(way.lab, "client-pod", &["iperf3", "-c", &ip, "-p", &port, "-t", time, "-J"])?;
    let report: Value = serde_json::from_str(&text)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().context("bits_per_second")?;
    Ok(bits / 1e9)
}

/// Connections a second.
fn connects(way: &Way, quick: bool) -> Result<f64> {
    Ok(inside(way, "connect", if quick { "500" } else { "1500" })?.trim().parse()?)
}

/// The time of an answer on an open connection, p50 and p99.
fn answers(way: &Way, quick: bool) -> Result<[f64; 2]> {
    let micros: Vec<f64> = serde_json::from_str(&inside(way, "ask", if quick { "300" } else { "1000" })?)?;
    Ok([50.0, 99.0].map(|p| percentile(&micros, p)))
}

/// One of several figures of each round.
fn which(values: &Value, at: usize) -> Value {
    let each = |rounds: &Value| -> Value {
        rounds.as_array().into_iter().flatten().map(|round| round[at].clone()).collect()
    };
    values.as_object().into_iter().flatten().map(|(name, rounds)| (name.clone(), each(rounds))).collect()
}

/// What this program says in the client's pod.
fn inside(way: &Way, what: &str, milliseconds: &str) -> Result<String> {
    let me = std::env::current_exe()?.display().to_string();
    run_in(way.lab, "client-pod", &[&me, what, &way.to.to_string(), milliseconds])
}
