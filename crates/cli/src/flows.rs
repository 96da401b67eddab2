//! `eastwest flows`: who talks to whom through which Service, and who is refused, as the nodes' kernels tell of it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use eastwest_client::Client;
use eastwest_model::{Flow, FlowList, FlowSampling};
use http::Method;
use serde_json::json;

use crate::args::{To, duration};
use crate::output::say;
use crate::server;

const PATH: &str = "/v1/flows";
/// For how long nodes are asked to tell of flows, each time.
const ASKED: u32 = 60;

#[derive(clap::Args, Debug)]
pub struct FlowsArgs {
    /// Only flows of Services, clients or endpoints in this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only flows of this Service: NAME (with --namespace, else of default) or NAMESPACE/NAME
    #[arg(long)]
    service: Option<String>,
    /// Only flows that were opened, refused or dropped
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// Of so many flows each node tells of one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Go on until interrupted
    #[arg(short, long)]
    follow: bool,
    /// How long to listen, without --follow
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "5s", conflicts_with = "follow")]
    time: Duration,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One object a line
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verdict {
    Opened,
    Refused,
    Dropped,
}

pub async fn run(to: To, args: FlowsArgs) -> Result<ExitCode> {
    let client = server::connect(&to).await?;
    let mut query: Vec<(&str, String)> = vec![("wait", "true".into())];
    query.extend(args.namespace.clone().map(|ns| ("namespace", ns)));
    if let Some(service) = &args.service {
        let namespace = args.namespace.as_deref().unwrap_or("default");
        let name = if service.contains('/') { service.clone() } else { format!("{namespace}/{service}") };
        query.push(("service", name));
    }
    query.extend(args.verdict.map(|v| ("verdict", format!("{v:?}").to_lowercase())));
    // What came before is another's.
    let none = [("after", u64::MAX.to_string())];
    let mut next = client.json::<FlowList>(Method::GET, PATH, &none, None).await?.next;
    let end = Instant::now() + args.time;
    let mut asked: Option<Instant> = None;
    while args.follow || Instant::now() < end {
        if asked.is_none_or(|at| at.elapsed() > Duration::from_secs((ASKED / 2).into())) {
            ask(&client, args.sample).await?;
            asked = Some(Instant::now());
        }
        let mut query = query.clone();
        query.push(("after", next.to_string()));
        let list = client.json::<FlowList>(Method::GET, PATH, &query, None);
        let left = end.saturating_duration_since(Instant::now());
        let list = if args.follow {
            list.await?
        } else {
            match tokio::time::timeout(left, list).await {
                Ok(list) => list?,
                Err(_) => break,
            }
        };
        next = list.next;
        if list.missed > 0 {
            eprintln!("{} flows were told of faster than they were asked for: see --sample", list.missed);
        }
        for flow in &list.flows {
            match args.output {
                Some(Format::Json) => say!("{}", serde_json::to_string(flow)?),
                None => say!("{}", line(flow)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(client: &Client, sampling: u32) -> Result<()> {
    let body = json!({"sampling": sampling, "seconds": ASKED});
    client.json::<FlowSampling>(Method::PUT, PATH, &[], Some(&body)).await?;
    Ok(())
}

fn line(flow: &Flow) -> String {
    let named = |at: &str, name: &str| match (at, name) {
        ("", name) => name.to_owned(),
        (at, "") => at.to_owned(),
        (at, name) => format!("{name} ({at})"),
    };
    let client = match flow.from.as_str() {
        "host" => format!("process on {}", flow.node),
        "outside" if flow.client_name.is_empty() => format!("outside ({})", flow.client),
        _ => named(&flow.client, &flow.client_name),
    };
    let asked = named(&flow.asked, &flow.service);
    let end = match flow.verdict.as_str() {
        "opened" => format!("→ {}", named(&flow.backend, &flow.backend_name)),
        verdict => format!("{verdict}: {}", flow.reason.replace('_', " ")),
    };
    format!("{} {} {} {client} → {asked} {end}", flow.time, flow.node, flow.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let flow = Flow {
            time: "T".into(),
            node: "node-1".into(),
            from: "pod".into(),
            client: "10.244.1.2:40000".into(),
            client_name: "default/asks".into(),
            asked: "10.96.0.1:80".into(),
            protocol: "TCP".into(),
            service: "default/web".into(),
            backend: "10.244.2.2:8080".into(),
            verdict: "opened".into(),
            ..Flow::default()
        };
        assert_eq!(
            line(&flow),
            "T node-1 TCP default/asks (10.244.1.2:40000) → default/web (10.96.0.1:80) → 10.244.2.2:8080"
        );
        let refused = Flow {
            from: "outside".into(),
            client: "192.0.2.1:5".into(),
            client_name: String::new(),
            verdict: "refused".into(),
            reason: "no_endpoints".into(),
            ..flow.clone()
        };
        assert_eq!(
            line(&refused),
            "T node-1 TCP outside (192.0.2.1:5) → default/web (10.96.0.1:80) refused: no endpoints"
        );
        let process = Flow { from: "host".into(), client: String::new(), ..flow };
        assert!(line(&process).starts_with("T node-1 TCP process on node-1 → default/web"));
    }
}
