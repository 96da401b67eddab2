//! Builds that cargo alone cannot do. `cargo xtask bpf` makes `target/bpf/eastwest.bpf.o` from `xdp/programs`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

mod bpf;

fn main() -> Result<()> {
    match env::args().nth(1).as_deref() {
        Some("bpf") => bpf::build(&root()?),
        Some(other) => bail!("no task {other:?}; there is: bpf"),
        None => bail!("usage: cargo xtask bpf"),
    }
}

/// The repository: the folder above this crate's. cargo names it to what it runs; several copies of the repository may
/// share one target folder, and then this very file.
fn root() -> Result<PathBuf> {
    let here =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    Ok(here.parent().context("xtask has no folder above it")?.to_owned())
}
