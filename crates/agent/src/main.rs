//! `eastwest-agent`: the agent of a node. Wiring only; see the library.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use eastwest_agent::logging;
use eastwest_agent::settings::Settings;
use eastwest_settings::Flags;
use tracing::warn;

/// Follows a controller and makes this node's kernel and DNS do what it says.
#[derive(Parser)]
#[command(name = "eastwest-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Flags<Settings>,
}

#[derive(Subcommand)]
enum Command {
    /// Remove everything that the agent has put into this node: hooks, maps, addresses, routes. Connections through
    /// virtual IPs end.
    Cleanup {
        /// Remove what a kube-proxy left instead: its tables of nftables, its chains of iptables, its device of IPVS. To be
        /// used when it has been stopped; the agent may run meanwhile, and connections that go through it stay.
        #[arg(long)]
        kube_proxy: bool,
        /// First leave new connections to others, and wait until those that are open have ended, at most so many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 0, conflicts_with = "kube_proxy")]
        drain: u64,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let loaded = match cli.settings.load(std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(e) => {
            eprintln!("eastwest-agent: {e}");
            return ExitCode::from(2);
        }
    };
    if cli.settings.print_config() {
        print!("{}", loaded.print());
        return ExitCode::SUCCESS;
    }
    match start(&cli, loaded.settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::debug!(error = format!("{e:#}"), "failed");
            eprintln!("eastwest-agent: {}", shortened(&format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}

/// The kernel's verifier explains a refusal in thousands of lines; what it was about stands at both ends.
fn shortened(text: &str) -> String {
    const HEAD: usize = 3;
    const TAIL: usize = 12;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= HEAD + TAIL {
        return text.to_owned();
    }
    let left_out = lines.len() - HEAD - TAIL;
    let note = format!("… {left_out} lines more; --log-level debug shows all …");
    let (head, tail) = (&lines[..HEAD], &lines[lines.len() - TAIL..]);
    head.iter().chain([&note.as_str()]).chain(tail).copied().collect::<Vec<_>>().join("\n")
}

fn start(cli: &Cli, settings: Settings) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider is installed already");
    }
    let level = logging::init(&settings.log_level, settings.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")?;
    let result = match cli.command {
        Some(Command::Cleanup { kube_proxy: true, .. }) => runtime.block_on(async {
            let done = eastwest_dataplane::kube_proxy::remove().await.context("cleanup is not complete")?;
            for what in &done.removed {
                println!("removed {what}");
            }
            anyhow::ensure!(done.left.is_empty(), "left: {}", done.left.join("; "));
            Ok(())
        }),
        Some(Command::Cleanup { kube_proxy: false, drain }) => runtime.block_on(async {
            eastwest_agent::drain::drain(&settings.pin_dir, std::time::Duration::from_secs(drain)).await?;
            eastwest_dataplane::cleanup(&settings.pin_dir).await.context("cleanup is not complete")
        }),
        None => {
            let reload = || {
                let reloaded = cli.settings.load(std::env::vars_os()).map_err(anyhow::Error::from);
                if let Err(e) = reloaded.and_then(|l| level.set(&l.settings.log_level)) {
                    warn!(error = %e, "settings stay as they were");
                }
            };
            runtime.block_on(eastwest_agent::run::run(settings, reload))
        }
    };
    // What still runs then has had its time.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
