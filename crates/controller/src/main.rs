//! `eastwest-controller`: the API and the dashboard over a sled store. Wiring only.

mod announce;
mod cluster;
mod dashboard;
mod lease;
mod metrics;
mod peers;
mod pki;
mod review;
mod serve;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use eastwest_settings::{Flags, choice, settings};
use ipnet::IpNet;

choice! {
    /// Form of log lines.
    pub enum LogFormat { Text = "text", Json = "json" }
}

choice! {
    /// Where objects come from.
    pub enum Source {
        /// Clients write them through this API; they are kept on disk.
        Api = "api",
        /// All are mirrored from a Kubernetes API server, and kept in memory.
        Kubernetes = "kubernetes",
        /// Mirrored ones and, beside them, ones written here. For a single controller.
        Both = "both",
    }
}

settings! {
    /// Settings of the controller.
    pub struct Settings {
        /// Address of the API and the dashboard, TLS.
        listen: SocketAddr = SocketAddr::new(IpAddr::from([0u16; 8]), 7443),
        /// Address of metrics and health, plain HTTP.
        metrics_listen: SocketAddr = SocketAddr::new(IpAddr::from([0u16; 8]), 7480),
        /// Directory of the store, the CA and the kubeconfig files.
        data_dir: PathBuf = PathBuf::from("/var/lib/eastwest"),
        /// URL that the kubeconfig files name; empty: https://127.0.0.1 and the port of --listen.
        advertise_url: String = String::new(),
        /// More host names and addresses for the server's certificate.
        san: Vec<String> = Vec::new(),
        /// Ranges of ClusterIPs: one, or one of each family; the first is the default family.
        service_cidr: Vec<IpNet> = eastwest_api::Config::default().service_ranges,
        /// Addresses of the kube-dns Service.
        dns_service_ip: Vec<IpAddr> = eastwest_api::Config::default().dns_service_ips,
        /// DNS zone of cluster names.
        zone: String = eastwest_model::DEFAULT_ZONE.to_owned(),
        /// Where objects come from: this API, a Kubernetes API server, or both.
        source: Source = Source::Api,
        /// Kubeconfig of the Kubernetes API server; empty: the pod's service account.
        kubernetes_kubeconfig: Option<PathBuf> = None,
        /// URL of the Kubernetes API server, https://HOST:PORT; empty: as the kubeconfig or the pod's environment says.
        kubernetes_api_server: String = String::new(),
        /// Service account of the agents in Kubernetes, NAMESPACE:NAME; without a namespace, the controller's own.
        agent_service_account: String = "eastwest-agent".to_owned(),
        /// Log filter: a level, or tracing's directives.
        log_level: String = "info".to_owned(),
        /// Form of log lines.
        log_format: LogFormat = LogFormat::Text,
    }
}

/// Stores Services, endpoints and DNS records, and serves them over REST with Kubernetes' paths and objects.
#[derive(Parser)]
#[command(name = "eastwest-controller", version)]
struct Cli {
    #[command(flatten)]
    settings: Flags<Settings>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print the OpenAPI document.
    Openapi,
    /// Write what a damaged store still holds to a backup file, which `restore` takes.
    Salvage {
        /// The file to write.
        file: PathBuf,
    },
    /// Make the store anew from a backup; where one is, it must be moved aside first.
    Restore {
        /// A file of DATA_DIR/backup.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Openapi) => {
            print!("{}", eastwest_api::openapi_json());
            Ok(())
        }
        Some(Command::Restore { file }) => load(&cli.settings).and_then(|s| serve::restore(&s, &file)),
        Some(Command::Salvage { file }) => load(&cli.settings).and_then(|s| serve::salvage(&s, &file)),
        None => run(&cli.settings),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("eastwest-controller: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(flags: &Flags<Settings>) -> anyhow::Result<Settings> {
    Ok(flags.load(std::env::vars_os())?.settings)
}

fn run(flags: &Flags<Settings>) -> anyhow::Result<()> {
    let loaded = flags.load(std::env::vars_os())?;
    if flags.print_config() {
        print!("{}", loaded.print());
        return Ok(());
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider is already installed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let reload = flags.clone();
    runtime.block_on(serve::run(loaded.settings, move || {
        Ok(reload.load(std::env::vars_os())?.settings.log_level)
    }))
}
