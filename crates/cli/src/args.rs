use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::lab::{AskArgs, LabCommand, ServeArgs};
use crate::{apply, delete, demo, dns, flows, get, migrate, status, trace, wait};

/// Services, DNS and their state on every node of a cluster.
#[derive(Parser, Debug)]
#[command(name = "eastwest", version, max_term_width = 110)]
pub struct Args {
    #[command(flatten)]
    pub to: To,
    #[command(subcommand)]
    pub command: Command,
}

/// Which controller.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct To {
    /// Credentials and address of the controller; without it $KUBECONFIG, else the one lab that is up, else
    /// ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Talk to the controller of this lab
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "kubeconfig")]
    pub lab: Option<String>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make objects what manifests say
    Apply(apply::ApplyArgs),
    /// Show objects
    Get(get::GetArgs),
    /// Delete objects
    Delete(delete::DeleteArgs),
    /// Wait until objects are programmed on every node, gone, or have a condition
    Wait(wait::WaitArgs),
    /// Show what every node has programmed
    Status(status::StatusArgs),
    /// Show what a connection would get, and why
    Trace(trace::TraceArgs),
    /// Ask a node's DNS server
    Dns(dns::DnsArgs),
    /// Move a Kubernetes cluster from kube-proxy and CoreDNS to eastwest, node by node, and back
    Migrate(migrate::MigrateArgs),
    /// Show new connections through Services, and what is refused or dropped, as it happens
    Flows(flows::FlowsArgs),
    /// Build and use clusters of network namespaces on this machine
    Lab(LabCommand),
    /// Show in a lab of three nodes what Services do, and check each claim
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    LabServe(ServeArgs),
    #[command(hide = true)]
    LabAsk(AskArgs),
    /// Print a completion script for a shell
    Completion { shell: clap_complete::Shell },
    /// Print the version
    Version,
}

/// `30`, `30s`, `500ms`, `2m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a duration such as 500ms, 30s or 2m".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a duration such as 500ms, 30s or 2m".to_owned())?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| "a shorter duration".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("500ms", Some(500)),
            ("30", Some(30_000)),
            ("30s", Some(30_000)),
            ("2m", Some(120_000)),
            ("", None),
            ("s", None),
            ("3d", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text).ok().map(|d| d.as_millis()), want, "{text:?}");
        }
    }
}
