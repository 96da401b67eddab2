//! Serves a made-up cluster, for dig and dnsperf by hand:
//!
//! ```text
//! cargo run -p eastwest-dns --example serve -- --listen 127.0.0.1:5300 --services 1000 --queries /tmp/queries
//! dnsperf -s 127.0.0.1 -p 5300 -d /tmp/queries -l 10
//! ```

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use eastwest_compile::{CompiledService, DnsEndpoint, DnsPort, DnsService, ServiceKey};
use eastwest_dns::{
    Access, Corefile, Environment, ForwardOptions, Forwarder, Index, IndexOptions, Metrics, Resolver, Server,
    ServerOptions,
};
use eastwest_model::Protocol;
use tokio_util::sync::CancellationToken;

mod hickory;

/// Serve a made-up cluster's names.
#[derive(Parser)]
struct Args {
    /// Address to listen on; may be repeated.
    #[arg(long, default_value = "127.0.0.1:5300")]
    listen: Vec<SocketAddr>,
    /// Services svc-N.default with a virtual address each.
    #[arg(long, default_value_t = 1000)]
    services: u32,
    /// Headless Services db-N.default.
    #[arg(long, default_value_t = 10)]
    headless: u32,
    /// Endpoints of each headless Service.
    #[arg(long, default_value_t = 100)]
    endpoints: u32,
    /// Sockets and tasks for each address; 0: one a core.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Serve through hickory-server's sockets, to compare; only the cluster's names.
    #[arg(long)]
    hickory: bool,
    /// Upstreams; without it names outside cluster.local get SERVFAIL.
    #[arg(long)]
    resolv_conf: Option<PathBuf>,
    /// Certificate chain and key in PEM, for DNS over TLS on a port of its own.
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"])]
    tls: Vec<PathBuf>,
    /// Corefile to follow.
    #[arg(long)]
    corefile: Option<PathBuf>,
    /// Write dnsperf's input for the virtual addresses here.
    #[arg(long)]
    queries: Option<PathBuf>,
}

/// The made-up Service `name` in `default`.
fn service(name: String, dns: DnsService) -> CompiledService {
    CompiledService { key: ServiceKey::new("default", name), frontends: Vec::new(), dns }
}

fn fill(index: &Index, args: &Args) {
    let port = |name: &str, port| DnsPort { name: name.into(), protocol: Protocol::TCP, port };
    let address = |base: u32, i: u32| IpAddr::from(Ipv4Addr::from(base + i));
    index.update(|u| {
        for i in 0..args.services {
            let ips = vec![address(0x0a60_0000, i + 1)];
            let dns = DnsService::ClusterIp { ips, ports: vec![port("http", 80)], endpoints: vec![] };
            let s = service(format!("svc-{i}"), dns);
            u.apply(&s.key, Some(&s));
        }
        let ports: Arc<[DnsPort]> = vec![port("db", 5432)].into();
        for i in 0..args.headless {
            let endpoints = (0..args.endpoints)
                .map(|n| DnsEndpoint {
                    addr: address(0x0af4_0000, i * args.endpoints + n),
                    hostname: None,
                    ports: ports.clone(),
                })
                .collect();
            let s = service(format!("db-{i}"), DnsService::Headless { endpoints });
            u.apply(&s.key, Some(&s));
        }
        u.set_namespaces(["default", "kube-system"]);
        u.set_synced(true);
    });
}

/// Resident memory, KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Nothing per query: hickory-server logs each reply at info.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let args = Args::parse();
    if let Some(path) = &args.queries {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for i in 0..args.services {
            writeln!(file, "svc-{i}.default.svc.cluster.local A")?;
        }
        file.flush()?;
    }
    let index = Arc::new(Index::new(IndexOptions::default())?);
    let (before, begun) = (resident(), Instant::now());
    fill(&index, &args);
    let filled = begun.elapsed();
    println!("{:?} in {filled:?}, {} KiB", index.stats(), resident().saturating_sub(before));
    let one = service(
        "svc-0".into(),
        DnsService::ClusterIp { ips: vec![[10, 96, 0, 1].into()], ports: vec![], endpoints: vec![] },
    );
    let begun = Instant::now();
    for _ in 0..1000 {
        index.apply(&one.key, Some(&one));
    }
    println!("one Service changed in {:?}", begun.elapsed() / 1000);
    let stop = CancellationToken::new();
    let signal = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            signal.cancel();
        }
    });
    if args.hickory {
        println!("serving on {:?} by hickory-server", args.listen);
        return hickory::serve(&args.listen, index, stop).await;
    }
    let metrics = Metrics::new();
    let forwarder = Forwarder::new(ForwardOptions::default(), metrics.clone());
    if let Some(path) = args.resolv_conf.clone() {
        let forwarder = forwarder.clone();
        tokio::spawn(async move {
            eastwest_dns::follow_resolv_conf(&path, forwarder, Duration::from_secs(5)).await;
        });
    }
    let tls = match &args.tls[..] {
        [cert, key] => Some(eastwest_dns::tls_config(cert, key)?),
        _ => None,
    };
    let options = ServerOptions { workers: args.workers, tls, tls_port: 0, ..ServerOptions::default() };
    let resolver = Resolver::new(index, forwarder, metrics);
    if let Some(path) = &args.corefile {
        let environment = Environment::default();
        resolver.configure(Some(&Corefile::read(path, &environment)?), Access::open(), &environment)?;
    }
    let server = Server::bind(&args.listen, resolver, options)?;
    println!("serving on {:?}, by TLS on {:?}", server.addresses(), server.tls_addresses());
    server.run(stop).await;
    Ok(())
}
