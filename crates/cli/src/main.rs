//! The command line of eastwest. It talks to a controller by a kubeconfig, as kubectl does, and builds labs of network
//! namespaces. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod apply;
mod args;
mod delete;
mod demo;
mod dns;
mod flows;
mod get;
mod interrupt;
mod kinds;
mod lab;
mod manifest;
mod migrate;
mod output;
mod server;
mod status;
mod trace;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use args::{Args, Command};
use output::{put, say};

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .without_time()
        .init();
    match run(args) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {}", output::chain(&e));
            ExitCode::FAILURE
        }
    }
}

/// No runtime yet: `lab exec` puts a command in this process's place, which a process with one thread does best.
fn run(args: Args) -> Result<ExitCode> {
    let to = args.to;
    match args.command {
        Command::Lab(command) => lab::run(command),
        Command::Demo(args) => demo::run(args),
        Command::LabServe(serve) => lab::serve(serve),
        Command::LabAsk(ask) => lab::ask(ask),
        Command::Apply(args) => block_on(apply::run(to, args)),
        Command::Get(args) => block_on(get::run(to, args)),
        Command::Delete(args) => block_on(delete::run(to, args)),
        Command::Wait(args) => block_on(wait::run(to, args)),
        Command::Status(args) => block_on(status::run(to, args)),
        Command::Trace(args) => block_on(trace::run(to, args)),
        Command::Migrate(args) => block_on(migrate::run(to, args)),
        Command::Dns(args) => dns::run(to, args),
        Command::Flows(args) => block_on(flows::run(to, args)),
        Command::Version => {
            say!("eastwest {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "eastwest", &mut script);
            put(&String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn block_on(f: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(f)
}
