//! Names of a large cluster on one node: what the agent weighs with 10,000 Services and 100,000 endpoints of headless ones,
//! how long a change takes to its answer then, and a start to the first right answer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eastwest_client::{Client, WriteOptions};
use eastwest_lab::{Lab, Options, Role};
use eastwest_model::{EndpointSlice, Service};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::dns::{NODE, asker, changes};
use crate::report::{Report, median, number, percentile};
use eastwest_integration::dns::query;

/// Endpoints of a slice, and slices of a headless Service.
const ENDPOINTS: usize = 100;
const SLICES: usize = 10;

pub fn run(report: &mut Report) -> Result<()> {
    let (services, headless, starts, samples) =
        if report.quick { (1_000, 10, 2, 20) } else { (10_000, 100, 10, 300) };
    let endpoints = headless * SLICES * ENDPOINTS;
    let lab = Lab::up(Options { name: "benchscale".into(), nodes: 1, ..Options::default() })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(Client::from_path(Some(&lab.kubeconfig()), None))?;
    let empty = memory(&lab)?;
    runtime.block_on(fill(&client, services, headless))?;
    let answered = runtime.block_on(changes(&lab, &client, samples))?;
    let filled = memory(&lab)?;
    let started = (0..starts).map(|_| start(&lab, headless - 1)).collect::<Result<Vec<_>>>()?;
    let restarted = memory(&lab)?;
    let cluster = format!("{services} Services, {endpoints} headless endpoints");
    report.ratio(
        format!("agent RSS, {cluster}"),
        (filled["VmRSS"], "MB"),
        (empty["VmRSS"], "MB (no Services)"),
    );
    report.plain(
        "of it the agent's own memory, and the kernel's maps and the program's file that are mapped",
        format!("{} and {} MB", number(filled["RssAnon"]), number(filled["RssFile"])),
    );
    report.plain(format!("agent RSS after a start, {cluster}"), format!("{} MB", number(restarted["VmRSS"])));
    report.plain(
        format!("change of a headless Service to its answer, p50 and p99, {cluster}"),
        format!("{} and {} ms", number(median(&answered)), number(percentile(&answered, 99.0))),
    );
    report.plain(
        format!("start of the agent to its first right answer, p50 and longest, {cluster}"),
        format!("{} and {} ms", number(median(&started)), number(percentile(&started, 100.0))),
    );
    lab.down()?;
    let results = json!({"services": services, "endpoints": endpoints, "empty_mb": empty, "filled_mb": filled,
        "restarted_mb": restarted, "change_to_answer_ms": answered, "start_to_answer_ms": started});
    report.save("dns-scale", results)
}

async fn fill(client: &Client, services: usize, headless: usize) -> Result<()> {
    let options = &WriteOptions::default();
    let service = |name: String, spec: Value| -> Result<Service> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        }))?)
    };
    stream::iter(0..services)
        .map(|i| async move {
            let spec = json!({"ports": [{"name": "http", "port": 80}]});
            client.create(&service(format!("svc-{i:05}"), spec)?, options).await?;
            Ok::<_, anyhow::Error>(())
        })
        .buffer_unordered(64)
        .try_collect::<()>()
        .await?;
    stream::iter(0..headless)
        .map(|i| async move {
            let spec = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]});
            client.create(&service(format!("head-{i:03}"), spec)?, options).await?;
            for n in 0..SLICES {
                client.create(&slice(i, n)?, options).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await
}

/// Each endpoint with a name of its own, as a StatefulSet's have.
fn slice(service: usize, n: usize) -> Result<EndpointSlice> {
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|e| {
            let at = n * ENDPOINTS + e;
            json!({"addresses": [address(service, at)], "hostname": format!("head-{at}"), "conditions": {"ready": true},
                   "nodeName": format!("node-{}", 2 + e)})
        })
        .collect();
    Ok(serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("head-{service:03}-{n}"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": format!("head-{service:03}")}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }))?)
}

fn address(service: usize, endpoint: usize) -> String {
    let n = service * SLICES * ENDPOINTS + endpoint;
    format!("10.{}.{}.{}", 128 + n / 25_000, n / 100 % 250, 1 + n % 100)
}

/// Milliseconds from the agent's start to the right answer for an endpoint of that Service.
fn start(lab: &Lab, service: usize) -> Result<f64> {
    let agent = Role::Agent(NODE.into());
    lab.stop(&agent)?;
    let socket = asker(lab)?;
    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
    let request = query(&format!("head-7.head-{service:03}.default.svc.cluster.local."), 1);
    let wanted: std::net::Ipv4Addr = address(service, 7).parse()?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| lab.start(&agent));
        let mut buffer = [0; 512];
        let millis = loop {
            // Until the address and the socket are there, sending or receiving fails.
            if socket.send(&request).is_ok()
                && let Ok(n) = socket.recv(&mut buffer)
                && buffer[..n].ends_with(&wanted.octets())
            {
                break begun.elapsed().as_secs_f64() * 1e3;
            }
            ensure!(begun.elapsed() < Duration::from_secs(60), "no right answer after the start");
        };
        starting.join().map_err(|_| anyhow::anyhow!("the start panicked"))??;
        Ok(millis)
    })
}

/// Megabytes of the agent: `VmRSS`, `RssAnon`, `RssFile`.
fn memory(lab: &Lab) -> Result<std::collections::BTreeMap<&'static str, f64>> {
    let state = lab.state()?;
    let pid = state.processes.get(&Role::Agent(NODE.into())).context("the agent")?.pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = |key: &'static str| -> Result<_> {
        let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).context(key)?;
        Ok((key, line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0))
    };
    ["VmRSS", "RssAnon", "RssFile"].into_iter().map(value).collect()
}
