//! Brings the kernel programs' object to where the crate embeds it from.

use std::path::PathBuf;
use std::{env, fs};

const OVERRIDE: &str = "EASTWEST_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let (Some(crate_dir), Some(out)) = (env::var_os("CARGO_MANIFEST_DIR"), env::var_os("OUT_DIR")) else {
        println!("cargo::error=CARGO_MANIFEST_DIR and OUT_DIR are not set: this is for cargo to run");
        return;
    };
    let object = env::var_os(OVERRIDE)
        .map_or_else(|| PathBuf::from(crate_dir).join("../../target/bpf/eastwest.bpf.o"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    if let Err(error) = fs::copy(&object, PathBuf::from(out).join("eastwest.bpf.o")) {
        println!(
            "cargo::error=no kernel programs at {}: {error}. Build them first: cargo xtask bpf (or name an object in {OVERRIDE})",
            object.display()
        );
    }
}
