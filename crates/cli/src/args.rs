use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::lab::{LabCommand, ServeArgs};

/// Services, DNS and their state on every node of a cluster.
#[derive(Parser, Debug)]
#[command(name = "eastwest", version, max_term_width = 110)]
pub struct Args {
    /// Credentials and address of the controller; without it the one lab that is up, else what kubectl would take
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Talk to the controller of this lab
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "kubeconfig")]
    pub lab: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Build and use clusters of network namespaces on this machine
    Lab(LabCommand),
    #[command(hide = true)]
    LabServe(ServeArgs),
    /// Print a completion script for a shell
    Completion { shell: clap_complete::Shell },
    /// Print the version
    Version,
}
