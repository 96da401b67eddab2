//! The command line of eastwest. It talks to a controller by a kubeconfig, as kubectl does, and builds labs of network
//! namespaces. Exit codes: 0 done, 1 failed, 2 wrong usage.

mod args;
mod lab;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Args, Command};

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
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// No runtime yet: `lab exec` puts a command in this process's place, which a process with one thread does best.
fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Lab(command) => lab::run(command),
        Command::LabServe(serve) => lab::serve(serve),
        Command::Version => {
            println!("eastwest {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            use clap::CommandFactory;
            clap_complete::generate(shell, &mut Args::command(), "eastwest", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
