//! From a write to its being programmed on the node, with 10, 1,000 and 10,000 Services in the cluster, and what the
//! agent and the controller weigh then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use eastwest_client::{Client, WriteOptions};
use eastwest_lab::{Lab, Options, Role};
use eastwest_model::{EndpointSlice, Service};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::report::{Report, median, number, percentile};

/// Endpoints of each Service.
pub const ENDPOINTS: usize = 10;

pub fn run(report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let lab = Lab::up(Options { name: "benchapply".into(), nodes: 1, ..Options::default() })?;
    let results = runtime.block_on(measure(report, &lab))?;
    lab.down()?;
    report.save("apply", results)
}

async fn measure(report: &mut Report, lab: &Lab) -> Result<Value> {
    let client = Client::from_path(Some(&lab.kubeconfig()), None).await?;
    let empty = memory(lab)?;
    let sizes: &[usize] = if report.quick { &[10, 100, 1000] } else { &[10, 1_000, 10_000] };
    let samples = if report.quick { 20 } else { 200 };
    let (mut have, mut all, mut latencies) = (0, Vec::new(), Vec::new());
    for &size in sizes {
        let start = Instant::now();
        fill(&client, have, size).await?;
        let filled = start.elapsed();
        have = size;
        // One more write that is waited for: all before it are programmed then.
        change(&client, 0, 0).await?;
        let mut millis = Vec::new();
        for i in 0..samples {
            millis.push(change(&client, i * 7919 % size, i).await?);
        }
        let memory = memory(lab)?;
        eprintln!(
            "{size} Services: written in {:.1} s; change to programmed p50 {} ms, p99 {} ms; agent {} MB, controller {} MB",
            filled.as_secs_f64(),
            number(median(&millis)),
            number(percentile(&millis, 99.0)),
            number(memory.0),
            number(memory.1),
        );
        latencies.push(median(&millis));
        all.push(
            json!({"services": size, "endpoints": size * ENDPOINTS, "fill_seconds": filled.as_secs_f64(),
            "millis": millis, "agent_rss_mb": memory.0, "controller_rss_mb": memory.1}),
        );
    }
    let (few, many) = (latencies[0], latencies[latencies.len() - 1]);
    let size = sizes[sizes.len() - 1];
    report.ratio(
        format!("change of one Service to programmed, p50, with {size} Services"),
        (many, "ms"),
        (few, &format!("ms (with {})", sizes[0])),
    );
    let now = memory(lab)?;
    report.ratio(
        format!("agent RSS, {size} Services with {} endpoints", size * ENDPOINTS),
        (now.0, "MB"),
        (empty.0, "MB (no Services)"),
    );
    report.plain("controller RSS, the same", format!("{} MB", number(now.1)));
    Ok(json!({"empty_agent_rss_mb": empty.0, "empty_controller_rss_mb": empty.1, "sizes": all}))
}

fn name(i: usize) -> String {
    format!("svc-{i:05}")
}

/// Services without selector, and their slices as another controller would write them.
pub async fn fill(client: &Client, from: usize, to: usize) -> Result<()> {
    let options = &WriteOptions::default();
    stream::iter(from..to)
        .map(|i| async move {
            let service: Service = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name(i), "namespace": "default"},
                "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
            }))?;
            client.create(&service, options).await?;
            client.create(&slice(i, 0)?, options).await?;
            Ok::<_, anyhow::Error>(())
        })
        .buffer_unordered(64)
        .try_collect::<()>()
        .await
}

/// Ten endpoints; `turn` decides the last one.
pub fn slice(i: usize, turn: usize) -> Result<EndpointSlice> {
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|e| {
            let n = i * ENDPOINTS + e;
            let last = if e == ENDPOINTS - 1 { turn % 2 * 128 } else { 0 };
            let address = format!("10.{}.{}.{}", 128 + n / 25_000, n / 100 % 250, 1 + n % 100 + last);
            json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": format!("node-{}", 2 + e)})
        })
        .collect();
    Ok(serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{}-1", name(i)), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": name(i)}},
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }))?)
}

/// Changes one endpoint of one Service; milliseconds until the node has programmed it.
async fn change(client: &Client, i: usize, turn: usize) -> Result<f64> {
    let options = WriteOptions { wait_programmed: Some(Duration::from_secs(30)), ..Default::default() };
    let slice = slice(i, turn + 1)?;
    let start = Instant::now();
    client.replace(&slice, &options).await?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Resident megabytes of the agent and of the controller.
fn memory(lab: &Lab) -> Result<(f64, f64)> {
    let state = lab.state()?;
    let rss = |role: Role| -> Result<f64> {
        let pid = state.processes.get(&role).context("a process")?.pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
    };
    Ok((rss(Role::Agent("node-1".into()))?, rss(Role::Controller)?))
}
