//! pod → ClusterIP beside pod → pod, both with eastwest and without, and beside the nftables rules that kube-proxy
//! writes. One lab has eastwest, the other the same topology and nothing; the ways take turns, so that what else the
//! machine does falls on all of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eastwest_client::WriteOptions;
use eastwest_lab::{Lab, Nic, Options, PodSpec};
use eastwest_model::Service;
use serde_json::{Value, json};

use crate::report::{Report, median, number};

/// Address of the nftables Service; no route, so that only the rule leads on.
const NFT_VIP: &str = "10.96.200.1";

struct Way<'a> {
    name: &'static str,
    lab: &'a Lab,
    to: IpAddr,
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
        let measured = [("bulk", 5201u16), ("echo", 8080u16)]
            .map(|(what, port)| measure(report.quick, &east, &bare, &format!("{what}-{suffix}"), port));
        let [bulk, echo] = measured;
        let (bulk, echo) = (bulk?, echo?);
        tell(report, &format!("bulk TCP, {place}"), "Gbit/s", &bulk);
        tell(report, &format!("connections, {place}"), "/s", &echo);
        report
            .save(&format!("path-{suffix}"), json!({"bulk_gbit_per_s": bulk, "connections_per_s": echo}))?;
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

/// Rounds of every way in turn.
fn measure(quick: bool, east: &Lab, bare: &Lab, app: &str, port: u16) -> Result<Value> {
    let address =
        |lab: &Lab| -> Result<IpAddr> { lab.state()?.pods[&app.parse()?].ipv4().context("an IPv4 pod") };
    let spec = json!({"metadata": {"name": app, "namespace": "default"}, "spec": {"selector": {"app": app}, "ports": [{"port": port}]}});
    let service: Service = serde_json::from_value(spec)?;
    let options = WriteOptions { wait_programmed: Some(Duration::from_secs(10)), ..Default::default() };
    let service = east.request(|client| async move { Ok(client.create(&service, &options).await?) })?;
    let vip = service.cluster_ips().next().context("clusterIP")?;
    nft_rules(bare, address(bare)?, port)?;
    let ways = [
        Way { name: "cluster_ip", lab: east, to: vip },
        Way { name: "direct", lab: east, to: address(east)? },
        Way { name: "nftables", lab: bare, to: NFT_VIP.parse()? },
        Way { name: "bare", lab: bare, to: address(bare)? },
    ];
    let rounds = if quick { 2 } else { 7 };
    let mut values = ways.each_ref().map(|w| (w.name, Vec::new()));
    for round in 0..=rounds {
        for (way, (_, values)) in ways.iter().zip(&mut values) {
            // Without eastwest and without the rules: nf_conntrack must not be on the direct path.
            if way.name == "bare" {
                run_in(way.lab, "node-1", &["nft", "flush", "ruleset"])?;
            }
            let to = SocketAddr::new(way.to, port);
            let value = if app.starts_with("bulk") {
                bulk(way.lab, to, quick)?
            } else {
                connects(way.lab, to, quick)?
            };
            if way.name == "bare" {
                nft_rules(bare, address(bare)?, port)?;
            }
            // The first round warms up.
            if round > 0 {
                values.push(value);
            }
        }
    }
    Ok(values.into_iter().map(|(name, values)| (name.to_owned(), json!(values))).collect())
}

fn tell(report: &mut Report, what: &str, unit: &str, values: &Value) {
    let of = |name: &str| {
        median(&values[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>())
    };
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

/// What kube-proxy's nftables mode makes of one Service with one endpoint, without its masquerade marks.
fn nft_rules(lab: &Lab, backend: IpAddr, port: u16) -> Result<()> {
    let rules = format!(
        "flush ruleset
table ip kube-proxy {{
  chain endpoint {{
    meta l4proto tcp dnat to {backend}:{port}
  }}
  chain service {{
    numgen random mod 1 vmap {{ 0 : goto endpoint }}
  }}
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {NFT_VIP} . tcp . {port} : goto service }}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr . meta l4proto . th dport vmap @service-ips
  }}
}}
"
    );
    let file = std::env::temp_dir().join(format!("eastwest-bench-{}.nft", std::process::id()));
    std::fs::write(&file, rules)?;
    let result = run_in(lab, "node-1", &["nft", "-f", &file.display().to_string()]);
    std::fs::remove_file(&file)?;
    result.map(|_| ())
}

fn run_in(lab: &Lab, target: &str, argv: &[&str]) -> Result<String> {
    let output = lab.exec(target, argv)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{argv:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Gbit/s as the receiver counted.
fn bulk(lab: &Lab, to: SocketAddr, quick: bool) -> Result<f64> {
    let (ip, port, time) = (to.ip().to_string(), to.port().to_string(), if quick { "1" } else { "3" });
    let text = run_in(lab, "client-pod", &["iperf3", "-c", &ip, "-p", &port, "-t", time, "-J"])?;
    let report: Value = serde_json::from_str(&text)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().context("bits_per_second")?;
    Ok(bits / 1e9)
}

fn connects(lab: &Lab, to: SocketAddr, quick: bool) -> Result<f64> {
    let me = std::env::current_exe()?.display().to_string();
    let time = if quick { "500" } else { "2000" };
    let text = run_in(lab, "client-pod", &[&me, "connect", &to.to_string(), time])?;
    Ok(text.trim().parse()?)
}
