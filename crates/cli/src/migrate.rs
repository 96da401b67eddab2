//! `eastwest migrate`: from kube-proxy and CoreDNS to eastwest and back, node by node, in a cluster that goes on working.

mod check;
mod nodes;
mod snapshot;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::args::{To, duration};
use crate::output::{put, say};

#[derive(clap::Args, Debug)]
pub struct MigrateArgs {
    #[command(subcommand)]
    command: Command,
    /// Namespace that eastwest is installed in
    #[arg(short, long, global = true, default_value = "kube-system")]
    namespace: String,
    /// Name of kube-proxy's DaemonSet in kube-system
    #[arg(long, global = true, default_value = "kube-proxy", value_name = "NAME")]
    kube_proxy: String,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Say what eastwest would do differently in this cluster, and which settings it needs; changes nothing
    Check,
    /// Let eastwest take over on nodes, one after the other
    Over(NodeArgs),
    /// Give nodes back to kube-proxy and CoreDNS, one after the other
    Back(NodeArgs),
}

#[derive(clap::Args, Debug)]
struct NodeArgs {
    /// Names of nodes
    #[arg(required_unless_present = "all")]
    nodes: Vec<String>,
    /// All nodes with Linux
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
    /// How long connections that are open may go on after the change before they are ended
    #[arg(long, default_value = "1m", value_parser = duration)]
    drain: Duration,
    /// How long each step of a node may take otherwise
    #[arg(long, default_value = "5m", value_parser = duration)]
    timeout: Duration,
}

pub async fn run(to: To, args: MigrateArgs) -> Result<ExitCode> {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(to.lab.is_none(), "a lab is no Kubernetes cluster");
    let kubeconfig = eastwest_client::load_kubeconfig(to.kubeconfig.as_deref())?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config).context("API server")?;
    let (nodes, back) = match args.command {
        Command::Check => {
            let found = check::findings(&snapshot::take(&client, &args.kube_proxy).await?);
            put(&check::table(&found));
            let blocked = found.iter().filter(|f| f.level == check::Level::Stop).count();
            say!();
            if blocked > 0 {
                say!("{blocked} of these stand in the way.");
                return Ok(ExitCode::FAILURE);
            }
            say!("Nothing stands in the way.");
            return Ok(ExitCode::SUCCESS);
        }
        Command::Over(nodes) => (nodes, false),
        Command::Back(nodes) => (nodes, true),
    };
    let mover =
        nodes::Mover::new(client, args.namespace, args.kube_proxy, nodes.drain, nodes.timeout).await?;
    for node in mover.nodes(nodes.nodes, nodes.all).await? {
        if back { mover.back(&node).await } else { mover.over(&node).await }
            .with_context(|| format!("node {node}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
