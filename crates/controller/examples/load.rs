//! Fills a running controller: `load KUBECONFIG SERVICES WORKLOADS_PER_SERVICE [WRITERS]`. Prints writes per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let path = args.first().context("usage: load KUBECONFIG SERVICES WORKLOADS_PER_SERVICE [WRITERS]")?;
    let (services, each, writers) = (number(1, 1000)?, number(2, 10)?, number(3, 64)?);
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;

    fill(&client, "v1", "Service", services, writers, |i| {
        json!({"metadata": {"name": format!("load-{i}")}, "spec": {"selector": {"app": format!("load-{i}")},
            "ports": [{"port": 80, "targetPort": 8080}]}})
    })
    .await?;
    fill(&client, "eastwest.dev/v1", "Workload", services * each, writers, move |i| {
        let (a, b, c) = (i >> 16 & 255, i >> 8 & 255, i & 255);
        json!({"metadata": {"name": format!("load-{i}"), "labels": {"app": format!("load-{}", i / each.max(1))}},
            "spec": {"addresses": [format!("10.{}.{b}.{c}", a + 100)], "node": format!("node-{}", i % 100)}})
    })
    .await
}

async fn fill(
    client: &Client,
    api_version: &str,
    kind: &str,
    count: usize,
    writers: usize,
    object: impl Fn(usize) -> serde_json::Value + Send + Sync + 'static,
) -> Result<()> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let (next, object) = (Arc::new(AtomicUsize::new(0)), Arc::new(object));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writers {
        let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
        let (next, object) = (next.clone(), object.clone());
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok::<_, anyhow::Error>(());
                }
                let mut value = object(i);
                value["apiVersion"] = api_version.as_str().into();
                value["kind"] = kind.as_str().into();
                api.create(&PostParams::default(), &serde_json::from_value(value)?).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{count} of {kind}: {seconds:.1} s, {:.0}/s", count as f64 / seconds);
    Ok(())
}
