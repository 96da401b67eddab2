//! The kernel programs need a Rust compiler with a `core` for `bpfel-unknown-none` and a linker that writes BPF.
//!
//! Two compilers do. Debian's `rustc-web` with `libstd-rust-web-dev-bpf` has that `core` ready made. rustup's nightly
//! builds it from `rust-src`. Whichever is there is used, Debian's first as it builds nothing twice.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

const TARGET: &str = "bpfel-unknown-none";

/// A compiler that can make BPF.
enum Toolchain {
    /// A `rustc` that has `core` for the target.
    Ready { rustc: PathBuf, version: String },
    /// rustup's nightly; `core` is built on the way.
    Nightly,
}

/// Builds `xdp/programs` and leaves the object in `target/bpf/eastwest.bpf.o`. When nothing changed, cargo knows.
pub fn build(root: &Path) -> Result<()> {
    let linker = find_linker()?;
    let toolchain = find_toolchain()?;
    let build_dir = root.join("target/bpf-build");

    let mut command = match &toolchain {
        Toolchain::Ready { rustc, version } => {
            eprintln!("bpf: {version} at {}, linker {}", rustc.display(), linker.display());
            let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            // A released compiler takes the unstable features that aya-ebpf needs only so.
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").arg("build");
            command
        }
        Toolchain::Nightly => {
            eprintln!("bpf: rustup nightly with -Zbuild-std=core, linker {}", linker.display());
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]).env_remove("RUSTC");
            command
        }
    };
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Else copies and clearing of values are calls that go byte by byte, each with a stack frame of its own.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    let status = command
        .args(["--release", "--target", TARGET, "--target-dir"])
        .arg(&build_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // Set by the cargo that runs this task, and wrong for another toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .current_dir(root.join("xdp/programs"))
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("building xdp/programs failed ({status})");
    }

    let built = build_dir.join(TARGET).join("release/eastwest");
    let object = root.join("target/bpf/eastwest.bpf.o");
    copy_if_changed(&built, &object)
}

/// Leaves the time stamp alone when the bytes are the same, so that what embeds the object is not built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("no object at {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        eprintln!("bpf: {} is up to date", to.display());
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    // Renamed into place: a build that embeds it never sees half of it.
    let fresh = to.with_extension("new");
    fs::write(&fresh, &bytes)?;
    fs::rename(&fresh, to)?;
    eprintln!("bpf: wrote {} ({} bytes)", to.display(), bytes.len());
    Ok(())
}

fn find_toolchain() -> Result<Toolchain> {
    let mut candidates: Vec<PathBuf> =
        env::var_os("EASTWEST_BPF_RUSTC").map(PathBuf::from).into_iter().collect();
    candidates.push("/usr/bin/rustc".into());
    for rustc in candidates {
        if has_core(&rustc)
            && let Some(version) = output(Command::new(&rustc).arg("--version"))
        {
            return Ok(Toolchain::Ready { rustc, version });
        }
    }
    let nightly = output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]));
    if let Some(sysroot) = nightly
        && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
    {
        return Ok(Toolchain::Nightly);
    }
    bail!(
        "no compiler for {TARGET}. Install one of:\n  \
         Debian:    apt-get install rustc-web libstd-rust-web-dev-bpf\n  \
         elsewhere: rustup toolchain install nightly --component rust-src"
    )
}

/// Whether this compiler has a ready `core` for the target.
fn has_core(rustc: &Path) -> bool {
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", TARGET]);
    let Some(libdir) = output(&mut command) else { return false };
    let Ok(files) = fs::read_dir(libdir) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn find_linker() -> Result<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(cargo_home.map(|home| home.join("bin")));
    for folder in folders {
        let linker = folder.join("bpf-linker");
        if linker.is_file() {
            return Ok(linker);
        }
    }
    bail!(
        "bpf-linker is neither on PATH nor in ~/.cargo/bin. Install it: cargo install bpf-linker --version 0.10.3 --locked"
    )
}

/// The first line a command prints, if it ends well.
fn output(command: &mut Command) -> Option<String> {
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::null()).env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
