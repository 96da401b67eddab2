//! What the agent holds in memory for a cluster, without the kernel's tables: objects, names, and the process.
//! `cargo run --release -p eastwest-agent --example memory -- SERVICES ENDPOINTS_EACH` prints one JSON object.

use std::sync::Arc;
use std::time::Instant;

use eastwest_agent::metrics::resident;
use eastwest_compile::{Context, State};
use eastwest_dns::{Index, IndexOptions};
use eastwest_model::Kind;
use serde_json::json;

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u32>().unwrap_or(0));
    let services = args.next().unwrap_or(10_000);
    let endpoints = args.next().unwrap_or(10);
    let context = Context {
        node: "node-1".into(),
        service_cidrs: Vec::new(),
        node_port_addresses: Vec::new(),
        pod_names: false,
    };
    let Ok(index) = Index::new(IndexOptions::default()) else { return };
    let index = Arc::new(index);
    let empty = resident();
    let start = Instant::now();
    let mut state = State::new();
    for n in 0..services {
        let ip = format!("10.{}.{}.{}", 96 + n / 65_536, n / 256 % 256, n % 256);
        let service = json!({
            "metadata": {"namespace": format!("ns-{}", n % 100), "name": format!("service-{n}")},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80}]},
        });
        let all: Vec<_> = (0..endpoints)
            .map(|e| {
                let i = n * endpoints + e;
                json!({
                    "addresses": [format!("10.{}.{}.{}", 200 + i / 65_536, i / 256 % 256, i % 256)],
                    "nodeName": format!("node-{}", i % 1000), "conditions": {"ready": true},
                })
            })
            .collect();
        let slice = json!({
            "metadata": {"namespace": format!("ns-{}", n % 100), "name": format!("service-{n}-x"),
                         "labels": {"kubernetes.io/service-name": format!("service-{n}")}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": all,
        });
        for (kind, object) in [(Kind::Service, service), (Kind::EndpointSlice, slice)] {
            if let Ok(decoded) = context.decode(kind, &object.to_string()) {
                state.put(decoded);
            }
        }
    }
    let loaded = (resident(), start.elapsed());
    let start = Instant::now();
    let mut count = 0;
    index.update(|update| {
        for service in state.services().filter_map(|key| state.compile(&context, key)) {
            update.apply(&service.key, Some(&service));
            count += 1;
        }
    });
    let compiled = (resident(), start.elapsed());
    let start = Instant::now();
    let exported = state.export();
    let export = start.elapsed();
    let kib = |bytes: u64| bytes / 1024;
    println!(
        "{}",
        json!({
            "services": count, "endpoints": services * endpoints, "exported": exported.len(),
            "objectsKiB": kib(loaded.0.saturating_sub(empty)), "namesKiB": kib(compiled.0.saturating_sub(loaded.0)),
            "processKiB": kib(compiled.0), "decodeMs": loaded.1.as_millis() as u64,
            "compileAndIndexMs": compiled.1.as_millis() as u64, "exportUs": export.as_micros() as u64,
        })
    );
}
