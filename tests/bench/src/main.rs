//! The figures: `make bench`. Every one is a ratio against something measured in the same run; the raw values go to
//! `target/bench/NAME.json`, a table to standard output.
//!
//! All traffic stays inside network namespaces that the lab makes and removes.

mod apply;
mod connections;
mod dns;
mod dns_scale;
mod dns_soak;
mod load;
mod million;
mod nic;
mod path;
mod programs;
mod report;
mod size;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures eastwest beside its baselines.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Shorter and fewer runs: to see that a bench works, not for figures to keep.
    #[arg(long, global = true)]
    quick: bool,
    /// Folder for the JSON results.
    #[arg(long, global = true, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Subcommand, Clone)]
enum What {
    /// pod → ClusterIP against pod → pod and against an nftables map DNAT: bulk TCP and connections a second.
    Path,
    /// Cost of each kernel program by BPF_PROG_TEST_RUN, against an empty program.
    Programs,
    /// UDP packets of 60 bytes through a NIC with 10,000 Services, against kube-proxy's nftables and iptables rules.
    Nic,
    /// A node's tables filled with 100, 10,000 and 44,000 Services, one endpoint changed, memory.
    Load,
    /// A million connections through one Service: failures, the last tenth's rate, memory.
    Million,
    /// Apply-to-programmed latency with 10, 1,000 and 10,000 Services; memory with 100,000 endpoints.
    Apply,
    /// DNS on a node against CoreDNS, unbound and knot: queries a second and CPU of each, by dnsperf.
    Dns,
    /// Names of 10,000 Services and 100,000 headless endpoints: memory, change to answer, start to answer.
    DnsScale,
    /// Names under load, changes, reloads and restarts for ten minutes: what is lost and what is wrong.
    DnsSoak,
    /// 10,000 and 44,000 Services in a real Kubernetes, beside kube-proxy and CoreDNS; needs what `scripts/setup k8s` installs.
    Size {
        /// The archive that `scripts/image BIN_DIR localhost/eastwest:test` made.
        image: PathBuf,
    },
    #[command(hide = true)]
    SizeServe,
    #[command(hide = true)]
    SizeProbe {
        to: SocketAddr,
        #[arg(long)]
        name: bool,
    },
    #[command(hide = true)]
    SizeWrite { kubeconfig: PathBuf, from: usize, to: usize },
    #[command(hide = true)]
    SizeChange { kubeconfig: PathBuf, size: usize, turns: usize },
    /// Opens connections one after the other for some seconds and prints how many: runs inside a pod.
    #[command(hide = true)]
    Connect { to: SocketAddr, milliseconds: u64 },
    /// Asks on one connection for some milliseconds and prints the times of the answers, in µs: runs inside a pod.
    #[command(hide = true)]
    Ask { to: SocketAddr, milliseconds: u64 },
    /// Opens so many connections and prints each tenth's seconds: runs inside a pod.
    #[command(hide = true)]
    Many { to: SocketAddr, count: u64 },
}

fn main() -> Result<()> {
    let args = Args::parse();
    rustls::crypto::ring::default_provider().install_default().ok();
    let run = |future: std::pin::Pin<Box<dyn Future<Output = Result<()>>>>| {
        tokio::runtime::Runtime::new()?.block_on(future)
    };
    match &args.what {
        Some(What::Connect { to, milliseconds }) => {
            println!("{}", connections::open(*to, Duration::from_millis(*milliseconds))?);
            return Ok(());
        }
        Some(What::Ask { to, milliseconds }) => {
            let micros = connections::ask(*to, Duration::from_millis(*milliseconds))?;
            println!("{}", serde_json::to_string(&micros)?);
            return Ok(());
        }
        Some(What::Many { to, count }) => {
            println!("{}", serde_json::to_string(&connections::many(*to, *count))?);
            return Ok(());
        }
        Some(What::SizeServe) => return size::serve(),
        Some(What::SizeProbe { to, name }) => return size::probe(*to, *name),
        Some(What::SizeWrite { kubeconfig, from, to }) => {
            return run(Box::pin(size::write(kubeconfig, *from, *to)));
        }
        Some(What::SizeChange { kubeconfig, size, turns }) => {
            return run(Box::pin(size::change(kubeconfig, *size, *turns)));
        }
        _ => {}
    }
    std::fs::create_dir_all(&args.out)?;
    let mut report = report::Report::new(args.out, args.quick);
    let all = [
        What::Programs,
        What::Nic,
        What::Path,
        What::Load,
        What::Million,
        What::Apply,
        What::Dns,
        What::DnsScale,
    ];
    for what in args.what.map_or(all.to_vec(), |one| vec![one]) {
        match what {
            What::Path => path::run(&mut report)?,
            What::Programs => programs::run(&mut report)?,
            What::Nic => nic::run(&mut report)?,
            What::Load => load::run(&mut report)?,
            What::Million => million::run(&mut report)?,
            What::Apply => apply::run(&mut report)?,
            What::Dns => dns::run(&mut report)?,
            What::DnsScale => dns_scale::run(&mut report)?,
            What::DnsSoak => dns_soak::run(&mut report)?,
            What::Size { image } => size::run(&mut report, &image)?,
            // Done above: parts of the others.
            What::Connect { .. }
            | What::Ask { .. }
            | What::Many { .. }
            | What::SizeServe
            | What::SizeProbe { .. }
            | What::SizeWrite { .. }
            | What::SizeChange { .. } => {}
        }
    }
    report.print();
    Ok(())
}
