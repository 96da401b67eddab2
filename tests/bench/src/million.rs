//! A million connections through one Service, from two pods at once: each is opened, asked once and reset. The table of
//! connections is far smaller.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eastwest_client::WriteOptions;
use eastwest_lab::{Lab, Options, PodSpec, Role};
use eastwest_model::Service;
use serde_json::json;

use crate::connections::Many;
use crate::report::{Report, number};

const CLIENTS: [&str; 2] = ["client-a", "client-b"];

pub fn run(report: &mut Report) -> Result<()> {
    let count: u64 = if report.quick { 100_000 } else { 1_000_000 };
    let lab = Lab::up(Options { name: "benchmillion".into(), nodes: 1, ..Options::default() })?;
    for client in CLIENTS {
        let command = ["sleep", "infinity"].map(String::from).to_vec();
        lab.run_pod(&PodSpec { command, ..PodSpec::new(client, "node-1")? })?;
    }
    lab.run_pod(&PodSpec::new("echo", "node-1")?.label("app", "echo"))?;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "echo", "namespace": "default"},
        "spec": {"selector": {"app": "echo"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }))?;
    let options = WriteOptions { wait_programmed: Some(Duration::from_secs(10)), ..Default::default() };
    let service = lab.request(|client| async move { Ok(client.create(&service, &options).await?) })?;
    let vip: IpAddr = service.cluster_ips().next().context("clusterIP")?;
    let before = agent_rss(&lab)?;
    let all = open(&lab, SocketAddr::new(vip, 80), count)?;
    let after = agent_rss(&lab)?;

    let failures: u64 = all.iter().map(|many| many.failures).sum();
    let tenth = |at: usize| {
        let rate = |many: &Many| many.seconds.get(at).map(|s| count as f64 / (10 * CLIENTS.len()) as f64 / s);
        all.iter().map(|many| rate(many).context("ten tenths")).sum::<Result<f64>>()
    };
    let (first, last) = (tenth(0)?, tenth(9)?);
    report.plain(format!("failures of {count} connections through one Service"), failures.to_string());
    report.ratio("connections, the last tenth of these", (last, "/s"), (first, "/s (the first tenth)"));
    report.ratio("agent RSS after these", (after, "MB"), (before, "MB (before)"));
    eprintln!("{count} connections: {failures} failures, {} /s, then {} /s", number(first), number(last));
    lab.down()?;
    report.save("million", json!({"connections": count, "clients": all, "agent_rss_mb": [before, after]}))
}

/// From all clients at once.
fn open(lab: &Lab, to: SocketAddr, count: u64) -> Result<Vec<Many>> {
    let me = std::env::current_exe()?.display().to_string();
    let (to, each) = (to.to_string(), (count / CLIENTS.len() as u64).to_string());
    let run = |client: &str| -> Result<Many> {
        let output = lab.exec(client, &[&me, "many", &to, &each])?;
        ensure!(output.status.success(), "{client}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = CLIENTS.iter().map(|client| scope.spawn(|| run(client))).collect();
        running
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn agent_rss(lab: &Lab) -> Result<f64> {
    let state = lab.state()?;
    let pid = state.processes.get(&Role::Agent("node-1".into())).context("the agent")?.pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
}
