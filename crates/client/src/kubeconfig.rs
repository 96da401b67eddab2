use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::Error;

/// Reads a kubeconfig: `path`, else the files of `KUBECONFIG`, else `~/.kube/config`, as kubectl does.
pub fn load(path: Option<&Path>) -> Result<Kubeconfig, Error> {
    let named = match path {
        Some(path) => Some(vec![path.to_owned()]),
        None => std::env::var_os("KUBECONFIG")
            .map(|paths| std::env::split_paths(&paths).filter(|p| p.exists()).collect::<Vec<_>>())
            .filter(|paths| !paths.is_empty()),
    };
    let paths = match named {
        Some(paths) => paths,
        None => {
            let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            let default = home.join(".kube/config");
            if !default.exists() {
                let text = "no kubeconfig: give --kubeconfig, or set KUBECONFIG, or make ~/.kube/config";
                return Err(Error::Kubeconfig(text.into()));
            }
            vec![default]
        }
    };
    let mut merged = Kubeconfig::default();
    for path in paths {
        let wrong =
            |e: &dyn std::fmt::Display| Error::Kubeconfig(format!("kubeconfig {}: {e}", path.display()));
        let next = Kubeconfig::read_from(&path).map_err(|e| wrong(&chain(&e)))?;
        merged = merged.merge(next).map_err(|e| wrong(&chain(&e)))?;
    }
    Ok(merged)
}

/// The connection that a kubeconfig's context describes.
pub(crate) async fn config(kubeconfig: Kubeconfig, context: Option<&str>) -> Result<kube::Config, Error> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
    kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|e| Error::Kubeconfig(format!("kubeconfig: {}", chain(&e))))
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
