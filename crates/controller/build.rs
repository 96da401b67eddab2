//! Copies the built dashboard to where it is embedded from; a page that says how to build it stands in when it is not
//! there, so that the controller builds without Node.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const PLACEHOLDER: &str = "<!doctype html><meta charset=\"utf-8\"><title>eastwest</title>\
<p>The dashboard is not part of this build. Run <code>make web</code>, then build the controller again. \
The API is served all the same.</p>\n";

fn main() -> io::Result<()> {
    let source =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?).join("../../web/dist");
    let target = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("dashboard");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", source.display());
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::create_dir_all(&target)?;
    if source.join("index.html").exists() {
        copy(&source, &target)
    } else {
        fs::write(target.join("index.html"), PLACEHOLDER)
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
