//! The steps. Each checks a claim and returns what was seen, in words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eastwest_client::WriteOptions;
use eastwest_lab::ask::Report;
use eastwest_lab::{Lab, PodSpec, Role};
use serde_json::{Value, json};

use super::Stage;
use super::load::{Load, ask};

const CLIENT: &str = "client-pod";
const HOST_CLIENT: &str = "host-client";

pub fn all(stage: &mut Stage) {
    stage.step("pods of Service web: two versions, one on each node", pods);
    let mut vips = BTreeMap::new();
    stage.step("Services are stored, and every node has programmed them", |lab| services(lab, &mut vips));
    let (Some(&v4), Some(&v6)) = (vips.get("4"), vips.get("6")) else { return };
    stage.step("a pod resolves the name to the virtual addresses", |lab| name(lab, v4, v6));
    stage.step("requests spread over the pods on all nodes", spread);
    stage.step("the pods see the client's own address", source);
    stage.step("the same over IPv6", |lab| ipv6(lab, v6));
    stage.step("a headless Service names its pods", headless);
    stage.step("a process on a node's own network is a client like any other", host_client);
    stage.step("a pod that is not ready leaves the rotation, and no request fails", |lab| readiness(lab, v4));
    stage.step("controller and agent are killed, and traffic goes on", |lab| crash(lab, v4));
    stage.step("restarted, they take up where they were", |lab| restart(lab, v4));
}

pub fn cluster(lab: &Lab, took: Duration) -> Result<Vec<String>> {
    let status = lab.status()?;
    let mut lines = vec![format!("lab {} built in {:.1} s", lab.name(), took.as_secs_f64())];
    for node in &status.nodes {
        let state = node.state.as_ref().with_context(|| format!("{} has not reported", node.name))?;
        ensure!(state.status.connected, "{} is not connected", node.name);
        if let Some(problem) = state.status.problems.first() {
            lines.push(format!("{}: {problem}", node.name));
        }
        let addresses: Vec<_> = node.addresses.iter().map(IpAddr::to_string).collect();
        lines.push(format!("{}: {}, agent connected", node.name, addresses.join(" and ")));
    }
    Ok(lines)
}

/// Name, node, label `app`, label `version`. Those of `db` get names of their own from it.
const PODS: [(&str, &str, &str, Option<&str>); 6] = [
    ("web-1", "node-1", "web", Some("v1")),
    ("web-2", "node-2", "web", Some("v1")),
    ("web-3", "node-3", "web", Some("v2")),
    ("db-0", "node-2", "db", None),
    ("db-1", "node-3", "db", None),
    (CLIENT, "node-1", "client", None),
];

fn pods(lab: &Lab) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (name, node, app, version) in PODS {
        let mut spec = PodSpec::new(name, node)?.label("app", app);
        if let Some(version) = version {
            spec = spec.label("version", version);
        }
        spec.subdomain = (app == "db").then(|| app.to_owned());
        let pod = lab.run_pod(&spec)?;
        let addresses: Vec<_> = pod.addresses.iter().map(IpAddr::to_string).collect();
        let version = version.map(|v| format!(" {v}")).unwrap_or_default();
        lines.push(format!("{name}{version} on {node}: {}", addresses.join(" and ")));
    }
    let mut host = PodSpec::new(HOST_CLIENT, "node-2")?;
    host.host_network = true;
    host.command = vec!["sleep".into(), "infinity".into()];
    lab.run_pod(&host)?;
    lines.push(format!("{HOST_CLIENT} on node-2, on the node's own network"));
    Ok(lines)
}

fn services(lab: &Lab, vips: &mut BTreeMap<&'static str, IpAddr>) -> Result<Vec<String>> {
    let web = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {
            "selector": {"app": "web"}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    });
    let db = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
        "spec": {
            "selector": {"app": "db"}, "ipFamilyPolicy": "RequireDualStack", "clusterIP": "None",
            "ports": [{"name": "http", "port": 8080, "targetPort": "http"}],
        },
    });
    let options = WriteOptions {
        wait_programmed: Some(Duration::from_secs(10)),
        field_validation: Some("Strict".into()),
        ..WriteOptions::default()
    };
    let started = Instant::now();
    let stored: Value = lab.request(|client| async move {
        let web = client.apply(&web, None, &options).await?;
        client.apply(&db, None, &options).await?;
        Ok(web.object)
    })?;
    let took = started.elapsed();
    let ips: Vec<IpAddr> = stored["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .collect();
    for ip in &ips {
        vips.insert(if ip.is_ipv4() { "4" } else { "6" }, *ip);
    }
    ensure!(vips.len() == 2, "web has {ips:?}, not an address of each family");
    let ips: Vec<_> = ips.iter().map(IpAddr::to_string).collect();
    Ok(vec![
        format!("web: {}; db: headless", ips.join(" and ")),
        format!(
            "both written, flushed to disk and acknowledged by 3 nodes in {:.1} ms",
            took.as_secs_f64() * 1e3
        ),
    ])
}

/// What the C library of a pod makes of a name.
fn resolved(lab: &Lab, from: &str, name: &str) -> Result<Vec<IpAddr>> {
    let output = lab.exec(from, &["getent", "ahosts", name])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut ips: Vec<IpAddr> =
        text.lines().filter_map(|l| l.split_whitespace().next()?.parse().ok()).collect();
    ips.sort();
    ips.dedup();
    ensure!(!ips.is_empty(), "{from} cannot resolve {name}: {output:?}");
    Ok(ips)
}

fn text(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ")
}

fn name(lab: &Lab, v4: IpAddr, v6: IpAddr) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in ["web", "web.default", "web.default.svc.cluster.local"] {
        let ips = resolved(lab, CLIENT, name)?;
        ensure!(ips == [v4, v6], "{name} is {}, not {}", text(&ips), text(&[v4, v6]));
        lines.push(format!("{name} → {}", text(&ips)));
    }
    Ok(lines)
}

fn counts(of: &BTreeMap<String, u64>) -> String {
    of.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}

fn no_failure(report: &Report) -> Result<()> {
    match report.failures.first() {
        None => Ok(()),
        Some(first) => bail!("{} of {} requests failed: {first}", report.failed, report.requests),
    }
}

/// 90 requests over 3 pods: 30 each on average with a standard deviation of 4.5, so 8 or fewer comes less than once in
/// 100,000 runs.
fn spread(lab: &Lab) -> Result<Vec<String>> {
    let report = ask(lab, CLIENT, "web", 80, 90, Some("ipv4"))?;
    no_failure(&report)?;
    let few = report.pods.values().any(|n| *n <= 8);
    ensure!(report.pods.len() == 3 && !few, "90 requests to http://web went to {}", counts(&report.pods));
    ensure!(report.nodes.len() == 3, "only nodes {} answered", counts(&report.nodes));
    Ok(vec![
        format!("{} requests to http://web: {}; none failed", report.requests, counts(&report.pods)),
        format!("by version: {}; by node: {}", counts(&report.versions), counts(&report.nodes)),
    ])
}

fn only_remote(report: &Report, own: IpAddr) -> Result<()> {
    let seen: Vec<_> = report.remotes.keys().cloned().collect();
    ensure!(seen == [own.to_string()], "the pods saw {}, not {own}", seen.join(", "));
    Ok(())
}

fn own_address(lab: &Lab, pod: &str, v6: bool) -> Result<IpAddr> {
    let state = lab.state()?;
    let pod = state.pods.get(&pod.parse()?).with_context(|| format!("pod {pod}"))?;
    let ip = if v6 { pod.ipv6() } else { pod.ipv4() };
    ip.context("address of the pod")
}

fn source(lab: &Lab) -> Result<Vec<String>> {
    let report = ask(lab, CLIENT, "web", 80, 30, Some("ipv4"))?;
    no_failure(&report)?;
    let own = own_address(lab, CLIENT, false)?;
    only_remote(&report, own)?;
    Ok(vec![format!(
        "{CLIENT} is {own}; {} pods on {} nodes saw {own}",
        report.pods.len(),
        report.nodes.len()
    )])
}

fn ipv6(lab: &Lab, vip: IpAddr) -> Result<Vec<String>> {
    let report = ask(lab, CLIENT, "web", 80, 60, Some("ipv6"))?;
    no_failure(&report)?;
    ensure!(report.asked.map(|a| a.ip()) == Some(vip), "asked {:?}, not {vip}", report.asked);
    ensure!(report.pods.len() == 3, "only {} answered", counts(&report.pods));
    only_remote(&report, own_address(lab, CLIENT, true)?)?;
    Ok(vec![format!(
        "{} requests to [{vip}]:80: {}; the pods saw {}",
        report.requests,
        counts(&report.pods),
        report.remotes.keys().cloned().collect::<Vec<_>>().join(", ")
    )])
}

fn headless(lab: &Lab) -> Result<Vec<String>> {
    let state = lab.state()?;
    let mut lines = Vec::new();
    let mut wanted = Vec::new();
    for name in ["db-0", "db-1"] {
        let pod = state.pods.get(&name.parse()?).context("pods of db")?;
        wanted.extend(pod.addresses.iter().copied());
        let ips = resolved(lab, CLIENT, &format!("{name}.db"))?;
        ensure!(ips == pod.addresses, "{name}.db is {}, not {}", text(&ips), text(&pod.addresses));
        lines.push(format!("{name}.db → {}", text(&ips)));
        let report = ask(lab, CLIENT, &format!("{name}.db"), 8080, 1, None)?;
        no_failure(&report)?;
        ensure!(report.pods.contains_key(name), "{name}.db is served by {}", counts(&report.pods));
    }
    wanted.sort();
    let ips = resolved(lab, CLIENT, "db")?;
    ensure!(ips == wanted, "db is {}, not {}", text(&ips), text(&wanted));
    lines.insert(0, format!("db → {}", text(&ips)));
    Ok(lines)
}

fn host_client(lab: &Lab) -> Result<Vec<String>> {
    let report = ask(lab, HOST_CLIENT, "web", 80, 60, Some("ipv4"))?;
    no_failure(&report)?;
    ensure!(report.pods.len() == 3, "only {} answered", counts(&report.pods));
    Ok(vec![
        format!(
            "{} requests to http://web from node-2 itself: {}; none failed",
            report.requests,
            counts(&report.pods)
        ),
        format!("the pods saw {}", counts(&report.remotes)),
    ])
}

fn load_held(report: &Report) -> Result<String> {
    no_failure(report)?;
    let held = report.held.as_ref().context("the load held no connection")?;
    if let Some(error) = &held.error {
        bail!("the open connection broke {error}");
    }
    ensure!(report.requests > 0 && held.lines > 0, "the load did nothing: {report:?}");
    Ok(format!(
        "{} requests, none failed, slowest {:.0} ms; one connection stayed open: {} lines there and back, slowest {:.0} ms",
        report.requests,
        report.slowest_us as f64 / 1e3,
        held.lines,
        held.slowest_us as f64 / 1e3
    ))
}

fn readiness(lab: &Lab, vip: IpAddr) -> Result<Vec<String>> {
    let leaving = "web-2".parse()?;
    let load = Load::start(lab, CLIENT, &vip.to_string(), 80)?;
    let started = Instant::now();
    lab.set_ready(&leaving, false)?;
    let took = started.elapsed();
    let after = ask(lab, CLIENT, &vip.to_string(), 80, 200, None)?;
    let (during, _) = load.stop()?;
    no_failure(&after)?;
    ensure!(
        !after.pods.contains_key("web-2"),
        "after the acknowledgement web-2 still got {} of 200 requests",
        after.pods.get("web-2").copied().unwrap_or(0)
    );
    let load = load_held(&during)?;
    lab.set_ready(&leaving, true)?;
    let back = ask(lab, CLIENT, &vip.to_string(), 80, 90, None)?;
    no_failure(&back)?;
    ensure!(back.pods.contains_key("web-2"), "ready again, web-2 got none of 90 requests");
    Ok(vec![
        format!("web-2 not ready: acknowledged by 3 nodes after {:.1} ms", took.as_secs_f64() * 1e3),
        format!("200 requests after that: {}", counts(&after.pods)),
        format!("meanwhile, from before to after: {load}"),
        format!("ready again, 90 requests: {}", counts(&back.pods)),
    ])
}

fn crash(lab: &Lab, vip: IpAddr) -> Result<Vec<String>> {
    let load = Load::start(lab, CLIENT, &vip.to_string(), 80)?;
    lab.kill(&Role::Controller)?;
    lab.kill(&Role::Agent("node-1".into()))?;
    std::thread::sleep(Duration::from_millis(1500));
    let status = lab.status()?;
    let running = |p: &Option<eastwest_lab::ProcessStatus>| p.as_ref().is_some_and(|p| p.running);
    ensure!(!running(&status.controller), "the controller still runs");
    ensure!(!running(&status.nodes[0].agent), "the agent still runs");
    let (report, ran) = load.stop()?;
    Ok(vec![
        "SIGKILL to the controller, and to the agent of the client's node".into(),
        format!("{:.1} s across it: {}", ran.as_secs_f64(), load_held(&report)?),
        format!("answered by {}", counts(&report.pods)),
    ])
}

fn restart(lab: &Lab, vip: IpAddr) -> Result<Vec<String>> {
    let load = Load::start(lab, CLIENT, &vip.to_string(), 80)?;
    let started = Instant::now();
    lab.start(&Role::Controller)?;
    lab.start(&Role::Agent("node-1".into()))?;
    let took = started.elapsed();
    let spec = PodSpec::new("web-4", "node-1")?.label("app", "web").label("version", "v2");
    lab.run_pod(&spec)?;
    let after = ask(lab, CLIENT, "web", 80, 120, Some("ipv4"))?;
    let (report, _) = load.stop()?;
    no_failure(&after)?;
    ensure!(
        after.pods.contains_key("web-4"),
        "the new pod got none of 120 requests: {}",
        counts(&after.pods)
    );
    Ok(vec![
        format!("both back after {:.1} s, with what they knew", took.as_secs_f64()),
        format!("across it: {}", load_held(&report)?),
        format!("a new pod, web-4, joins: {}", counts(&after.pods)),
    ])
}
