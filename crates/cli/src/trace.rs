//! `eastwest trace FROM TO`: what a connection would get, and why.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use eastwest_model::{Trace, TracePath, TraceVerdict};
use http::Method;

use crate::args::To;
use crate::output::{Table, put, say};
use crate::server;

#[derive(clap::Args, Debug)]
pub struct TraceArgs {
    /// pod/NAMESPACE/NAME, node/NAME for a process there, client or client/ADDRESS for one outside the cluster
    from: String,
    /// tcp://HOST:PORT (also udp, sctp): HOST is an address, a Service's name as a pod would ask for it, or a node
    #[arg(value_name = "TO")]
    target: String,
    /// Node where the packet of a client outside comes in [default: the first]
    #[arg(long)]
    node: Option<String>,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
}

pub async fn run(to: To, args: TraceArgs) -> Result<ExitCode> {
    let client = server::connect(&to).await?;
    let mut query = vec![("from", args.from), ("to", args.target)];
    query.extend(args.node.map(|node| ("node", node)));
    let trace: Trace = client.json(Method::GET, "/v1/trace", &query, None).await?;
    match args.output {
        Some(Format::Json) => say!("{}", serde_json::to_string_pretty(&trace)?),
        None => put(&describe(&trace)),
    }
    Ok(if trace.paths.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn describe(trace: &Trace) -> String {
    let from = &trace.from;
    let who = match from.place.as_str() {
        "outside" => format!("client outside, by node {}", from.node),
        "host" if from.name == from.node => format!("process on node {}", from.node),
        "host" => format!("pod {} on the network of node {}", from.name, from.node),
        place => format!("{place} {} on node {}", from.name, from.node),
    };
    let addresses =
        if from.addresses.is_empty() { String::new() } else { format!(" ({})", from.addresses.join(", ")) };
    let mut text = format!("from      {who}{addresses}\nto        {}\n", trace.to);
    for line in &trace.name {
        text += &format!("name      {line}\n");
    }
    for path in &trace.paths {
        text += &format!("\naddress   {}\n{}", path.address, describe_path(path));
    }
    if trace.paths.is_empty() {
        text += "result    no address to connect to\n";
    }
    text
}

fn describe_path(path: &TracePath) -> String {
    let mut text = String::new();
    if let Some(service) = &path.service {
        text += &format!("service   {service}\n");
    }
    if let Some(f) = &path.frontend {
        let port = if f.port.is_empty() { String::new() } else { format!(", port {}", f.port) };
        text += &format!("frontend  {}{port}, endpoints by policy {}\n", f.kind, f.policy);
        if !f.source_ranges.is_empty() {
            text += &format!("sources   {}\n", f.source_ranges.join(", "));
        }
        if f.affinity_seconds > 0 {
            text += &format!("affinity  to the backend a client had within {} s\n", f.affinity_seconds);
        }
    }
    if !path.backends.is_empty() {
        let mut table = Table::new(&["BACKEND", "TARGET", "NODE", "SHARE", "WHY", "SEES"]);
        for b in &path.backends {
            let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
            table.rows.push(vec![
                b.address.clone(),
                or_dash(&b.target),
                or_dash(&b.node),
                if b.share > 0.0 { format!("{:.1} %", b.share * 100.0) } else { "-".into() },
                b.reason.clone(),
                or_dash(&b.sees),
            ]);
        }
        for line in table.to_string().lines() {
            text += &format!("  {line}\n");
        }
    }
    for hook in &path.hooks {
        text += &format!("hook      {hook}\n");
    }
    let verdict = match path.verdict {
        TraceVerdict::Translated => "translated",
        TraceVerdict::Direct => "not translated",
        TraceVerdict::Refused => "refused",
        TraceVerdict::Dropped => "dropped",
    };
    text + &format!("result    {verdict}: {}\n", path.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eastwest_model::{TraceBackend, TraceFrom, TraceFrontend};

    #[test]
    fn a_trace_reads_from_top_to_bottom() {
        let backend = TraceBackend {
            address: "10.244.1.3:8080".into(),
            target: "Pod web-1".into(),
            share: 1.0,
            reason: "may be chosen".into(),
            sees: "10.244.1.9".into(),
            ..TraceBackend::default()
        };
        let trace = Trace {
            from: TraceFrom {
                place: "pod".into(),
                name: "default/client".into(),
                node: "node-1".into(),
                addresses: vec!["10.244.1.9".into()],
            },
            to: "tcp://web:80".into(),
            name: vec!["web.default.svc.cluster.local: 10.96.0.5".into()],
            paths: vec![TracePath {
                address: "10.96.0.5:80/TCP".into(),
                service: Some("default/web".into()),
                frontend: Some(TraceFrontend {
                    kind: "ClusterIp".into(),
                    policy: "Cluster".into(),
                    ..TraceFrontend::default()
                }),
                backends: vec![backend],
                verdict: TraceVerdict::Translated,
                reason: "to the one backend there is".into(),
                hooks: vec!["forward: tc on ingress of the pod's device on node-1".into()],
            }],
            ..Trace::default()
        };
        let text = describe(&trace);
        let first: Vec<&str> = text.lines().map(|l| l.split_whitespace().next().unwrap_or("")).collect();
        let wanted = [
            "from",
            "to",
            "name",
            "",
            "address",
            "service",
            "frontend",
            "BACKEND",
            "10.244.1.3:8080",
            "hook",
            "result",
        ];
        assert_eq!(first, wanted, "{text}");
        assert!(
            text.contains("100.0 %") && text.ends_with("translated: to the one backend there is\n"),
            "{text}"
        );
    }
}
