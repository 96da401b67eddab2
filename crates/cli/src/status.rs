use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use eastwest_client::ListOptions;
use eastwest_model::{DeviceState, List, Node, NodeState};
use serde_json::json;

use crate::args::To;
use crate::output::{Table, put, say};
use crate::server;

#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
}

pub async fn run(to: To, args: StatusArgs) -> Result<ExitCode> {
    let client = server::connect(&to).await?;
    let nodes = client.list::<Node>(None, &ListOptions::default()).await?;
    let states = client.list::<NodeState>(None, &ListOptions::default()).await?.items;
    match args.output {
        Some(Format::Json) => {
            let revision = &nodes.metadata.resource_version;
            let status = json!({"server": client.server(), "revision": revision, "nodes": states});
            say!("{}", serde_json::to_string_pretty(&status)?);
        }
        None => {
            say!("controller {} at revision {}", client.server(), nodes.metadata.resource_version);
            put(&describe(&nodes, &states));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(nodes: &List<Node>, states: &[NodeState]) -> String {
    let newest: u64 = nodes.metadata.resource_version.parse().unwrap_or(0);
    let mut table = Table::new(&[
        "NODE", "AGENT", "APPLIED", "BEHIND", "LATENCY", "SERVICES", "BACKENDS", "PODS", "NIC", "DROPPED",
    ]);
    let mut problems = Vec::new();
    for node in &nodes.items {
        let name = &node.metadata.name;
        let Some(s) = states.iter().find(|s| s.metadata.name == *name).map(|s| &s.status) else {
            let row = [name, "no report", "-", "-", "-", "-", "-", "-", "-", "-"];
            table.rows.push(row.map(str::to_owned).to_vec());
            continue;
        };
        let of = |role: &str| hooks(s.devices.iter().filter(|d| d.role == role));
        table.rows.push(vec![
            name.clone(),
            if s.connected { "connected".into() } else { "not connected".into() },
            s.applied_revision.to_string(),
            newest.saturating_sub(s.applied_revision.0).to_string(),
            latency(s.programming_latency_us),
            s.services.to_string(),
            s.backends.to_string(),
            of("pod"),
            of("nic"),
            lost(&s.counters).to_string(),
        ]);
        problems.extend(s.problems.iter().map(|p| format!("{name}: {p}")));
        let devices = s.devices.iter().filter_map(|d| d.error.as_ref().map(|e| (d, e)));
        problems.extend(devices.map(|(d, e)| format!("{name}: device {}: {e}", d.name)));
    }
    let mut text = table.to_string();
    if nodes.items.is_empty() {
        text = "no nodes: no agent has registered\n".into();
    }
    for problem in problems {
        text.push_str(&format!("problem: {problem}\n"));
    }
    text
}

/// `3 tc`, `1 xdp-native`, or both joined by a comma.
fn hooks<'a>(devices: impl Iterator<Item = &'a DeviceState>) -> String {
    let mut modes: BTreeMap<&str, usize> = BTreeMap::new();
    for device in devices {
        let mode = if device.mode.is_empty() { "not hooked" } else { &device.mode };
        *modes.entry(mode).or_default() += 1;
    }
    if modes.is_empty() {
        return "0".into();
    }
    modes.iter().map(|(mode, n)| format!("{n} {mode}")).collect::<Vec<_>>().join(",")
}

/// Packets that the kernel programs dropped or refused; the other counters are of what went well.
fn lost(counters: &BTreeMap<String, u64>) -> u64 {
    let bad = |name: &str| name.starts_with("dropped") || name.starts_with("refused");
    counters.iter().filter(|(name, _)| bad(name)).map(|(_, n)| n).sum()
}

fn latency(us: u64) -> String {
    match us {
        0..=999 => format!("{us}µs"),
        1_000..=999_999 => format!("{:.1}ms", us as f64 / 1e3),
        _ => format!("{:.1}s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eastwest_model::{ListMeta, ObjectMeta, Revision};

    #[test]
    fn nodes_with_and_without_a_report() {
        let named = |name: &str| ObjectMeta { name: name.into(), ..ObjectMeta::default() };
        let node = |name: &str| Node { metadata: named(name), ..Node::default() };
        let nodes = List {
            kind: "NodeList".into(),
            api_version: "v1".into(),
            metadata: ListMeta { resource_version: "12".into(), ..ListMeta::default() },
            items: vec![node("node-1"), node("node-2")],
        };
        let mut state = NodeState { metadata: named("node-1"), ..NodeState::default() };
        state.status.applied_revision = Revision(10);
        state.status.connected = true;
        state.status.programming_latency_us = 1500;
        let counters = [("forward", 1000), ("dropped_malformed", 2), ("refused_no_port", 3)];
        state.status.counters = counters.map(|(name, n)| (name.to_owned(), n)).into();
        let device = |name: &str, role: &str, mode: &str| DeviceState {
            name: name.into(),
            role: role.into(),
            mode: mode.into(),
            ..DeviceState::default()
        };
        state.status.devices = vec![device("veth1", "pod", "tc"), device("eth0", "nic", "xdp-native")];
        state.status.devices[0].error = Some("busy".into());
        let text = describe(&nodes, &[state]);
        let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            fields(lines[1]),
            ["node-1", "connected", "10", "2", "1.5ms", "0", "0", "1", "tc", "1", "xdp-native", "5"]
        );
        assert!(lines[2].starts_with("node-2   no report"), "{}", lines[2]);
        assert_eq!(lines[3], "problem: node-1: device veth1: busy");
    }
}
