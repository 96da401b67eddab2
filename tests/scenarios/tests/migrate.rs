//! A living cluster changes over: under steady traffic a node goes from kube-proxy and CoreDNS to eastwest, is upgraded, rolled
//! back, and goes back, and no request fails. `K8S_IMAGE` is the archive that `scripts/image` made.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eastwest_scenarios::k8s::{IMAGE, Kubernetes, serving};
use eastwest_scenarios::traffic::{Count, Plan, Report};
use serde_json::{Value, json};

/// The same programs under another name, as an upgrade.
const NEXT: &str = "localhost/eastwest:next";
/// More than the load keeps a connection open.
const DRAIN: &str = "--drain=20s";
/// How long traffic goes on between two steps, so that each has some to disturb.
const BETWEEN: Duration = Duration::from_secs(5);

/// Where there is traffic: its name, and what runs it.
struct Loads(Vec<(String, Child)>, Instant);

impl Loads {
    fn phase(&mut self, name: &str) -> Result<()> {
        println!("{:.1} s: {name}", self.1.elapsed().as_secs_f64());
        for (_, child) in &mut self.0 {
            writeln!(child.stdin.as_mut().context("stdin")?, "{name}")?;
        }
        std::thread::sleep(BETWEEN);
        Ok(())
    }

    fn end(self) -> Result<Vec<(String, Report)>> {
        let mut reports = Vec::new();
        for (name, mut child) in self.0 {
            drop(child.stdin.take());
            let output = child.wait_with_output()?;
            ensure!(output.status.success(), "the load of {name}: {}", output.status);
            reports.push((name, serde_json::from_slice(&output.stdout).context("a report")?));
        }
        Ok(reports)
    }
}

fn spawn(command: &mut Command, plan: &Plan) -> Result<Child> {
    command.arg(serde_json::to_string(plan)?);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// `eastwest` itself, where the API server is.
fn eastwest(cluster: &Kubernetes, args: &[&str]) -> Result<String> {
    let program =
        PathBuf::from(std::env::var("EASTWEST_BIN_DIR").context("EASTWEST_BIN_DIR")?).join("eastwest");
    let program = program.to_str().context("a path in UTF-8")?.to_owned();
    let config = cluster.admin_config();
    let text = cluster.run(&[&["exec", "cp", &program, "--kubeconfig", &config], args].concat(), None)?;
    print!("{text}");
    Ok(text)
}

fn rolled_out(cluster: &Kubernetes) -> Result<()> {
    for part in ["deployment/eastwest-controller", "daemonset/eastwest-agent"] {
        cluster.kubectl(&["-n", "kube-system", "rollout", "status", part, "--timeout=180s"], None)?;
    }
    Ok(())
}

fn set_image(cluster: &Kubernetes, image: &str) -> Result<()> {
    for (part, container) in
        [("deployment/eastwest-controller", "controller"), ("daemonset/eastwest-agent", "agent")]
    {
        let image = format!("{container}={image}");
        cluster.kubectl(&["-n", "kube-system", "set", "image", part, &image], None)?;
    }
    rolled_out(cluster)
}

/// Services that the traffic is for, their pods on both nodes, and who asks.
fn prepare(cluster: &Kubernetes) -> Result<Value> {
    for node in ["n1", "n2"] {
        cluster.run(&["exec", node, "ctr", "-n", "k8s.io", "images", "tag", "--force", IMAGE, NEXT], None)?;
    }
    let (web, asks) = (json!({"app": "web"}), json!({"app": "client"}));
    let pods =
        [("web-1", "n1", &web), ("web-2", "n2", &web), ("client-1", "n1", &asks), ("client-2", "n2", &asks)];
    for (name, node, labels) in pods {
        cluster.kubectl(&["create", "-f", "-"], Some(&serving(name, node, labels, 8080, "", false)))?;
    }
    for (name, ..) in pods {
        cluster.ready(name)?;
    }
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "selector": {"app": "web"}, "ipFamilyPolicy": "RequireDualStack",
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080},
                      {"name": "udp", "port": 80, "protocol": "UDP", "targetPort": "udp", "nodePort": 30080}]}});
    cluster.kubectl(&["create", "-f", "-"], Some(&service))?;
    cluster.get(&["service", "web"])
}

fn start(cluster: &Kubernetes, service: &Value) -> Result<Loads> {
    let program = env!("CARGO_BIN_EXE_eastwest-traffic");
    let ips = service["spec"]["clusterIPs"].as_array().context("clusterIPs")?;
    let ips: Vec<String> = ips.iter().filter_map(|ip| Some(format!("[{}]", ip.as_str()?))).collect();
    let services = ips.iter().map(|ip| {
        if ip.contains("::") { format!("{ip}:80") } else { format!("{}:80", ip.trim_matches(['[', ']'])) }
    });
    let services = services.map(|a| Ok(a.parse()?)).collect::<Result<Vec<_>>>()?;
    let name = "web.default.svc.cluster.local".to_owned();
    let inside =
        Plan { tcp: services.clone(), udp: services, dns: vec!["10.96.0.10:53".parse()?], name, pause: 50 };
    let node_ports = |node: &str| -> Result<Vec<_>> { Ok(vec![format!("{node}:30080").parse()?]) };
    let outside = Plan {
        tcp: node_ports("10.77.0.11")?,
        udp: node_ports("10.77.0.11")?,
        dns: vec![],
        ..inside.clone()
    };
    let mut loads = Vec::new();
    for client in ["client-1", "client-2"] {
        let pod = cluster.ready(client)?;
        let (node, pid) = (pod["spec"]["nodeName"].as_str().context("nodeName")?, cluster.pid(&pod)?);
        let mut command = cluster.command(&["exec", node, "nsenter", "-t", &pid, "--net", "--", program]);
        loads.push((format!("{client} on {node}"), spawn(&mut command, &inside)?));
    }
    let mut command = cluster.command(&["exec", "n1", program]);
    loads.push(("a process of n1".to_owned(), spawn(&mut command, &inside)?));
    let mut command = cluster.command(&["exec", "client", program]);
    loads.push(("outside, by n1".to_owned(), spawn(&mut command, &outside)?));
    Ok(Loads(loads, Instant::now()))
}

#[test]
fn no_request_fails() -> Result<()> {
    let image = std::env::var("K8S_IMAGE").context("K8S_IMAGE: the archive of eastwest's image")?;
    let cluster = Kubernetes::up("migrate", 2, &["--proxy", "nftables", "--dns", "coredns"], &image)?;
    let service = prepare(&cluster)?;
    cluster.until("the Service on both nodes", || {
        for node in ["n1", "n2"] {
            cluster.run(&["exec", node, "curl", "-fsm", "3", "http://127.0.0.1:10256/healthz"], None)?;
            let ip = service["spec"]["clusterIP"].as_str().context("clusterIP")?;
            cluster.run(&["exec", node, "curl", "-fsm", "3", &format!("http://{ip}/")], None)?;
        }
        Ok(Some(()))
    })?;
    let mut loads = start(&cluster, &service)?;
    let begun = loads.1;
    let moved = change_over(&cluster, &mut loads);
    let reports = loads.end()?;
    println!("{}\n{} s", table(&reports), begun.elapsed().as_secs());
    moved?;
    let failed: u64 = counts(&reports).map(|(.., c)| c.failed).sum();
    ensure!(failed == 0, "{failed} requests failed");
    for (client, report) in &reports {
        ensure!(report.iter().all(|(_, kinds)| !kinds.is_empty()), "{client} was silent in a phase");
    }
    Ok(())
}

fn change_over(cluster: &Kubernetes, loads: &mut Loads) -> Result<()> {
    loads.phase("kube-proxy and CoreDNS")?;
    eastwest(cluster, &["migrate", "check"])?;
    loads.phase("eastwest installed, on no node")?;
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/manifests/migrate");
    cluster.kubectl(&["apply", "-k", manifests], None)?;
    rolled_out(cluster)?;
    loads.phase("n1 over to eastwest")?;
    eastwest(cluster, &["migrate", "over", "n1", DRAIN])?;
    loads.phase("upgraded")?;
    set_image(cluster, NEXT)?;
    loads.phase("rolled back")?;
    set_image(cluster, IMAGE)?;
    loads.phase("n1 back to kube-proxy")?;
    eastwest(cluster, &["migrate", "back", "n1", DRAIN])?;
    loads.phase("kube-proxy and CoreDNS again")
}

fn counts(reports: &[(String, Report)]) -> impl Iterator<Item = (&str, &str, &str, &Count)> {
    reports.iter().flat_map(|(client, report)| {
        report.iter().flat_map(move |(phase, kinds)| {
            kinds.iter().map(move |(kind, count)| (client.as_str(), phase.as_str(), kind.as_str(), count))
        })
    })
}

fn table(reports: &[(String, Report)]) -> String {
    let mut text = String::new();
    for (client, phase, kind, c) in counts(reports) {
        let Count { asked, failed, again, slowest, examples } = c;
        text += &format!(
            "{client} | {phase} | {kind}: {asked} asked, {failed} failed, {again} again, slowest {slowest} ms"
        );
        text += &examples.iter().map(|e| format!("\n    {e}")).collect::<String>();
        text.push('\n');
    }
    text
}
