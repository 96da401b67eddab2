//! CoreDNS' configuration file, as far as this server does the same: every plugin is followed, or named in an error with
//! its line and what to do instead. `docs/dns-plugins.md` has the table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::IndexOptions;
use crate::plan::Plan;

mod build;
mod forward;
mod plugins;
mod records;
mod syntax;

pub(crate) use syntax::Directive;

/// What is wrong with a Corefile, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}line {line}: {message}", .file.as_ref().map_or(String::new(), |f| format!("{}: ", f.display())))]
pub struct CorefileError {
    /// Of an imported file; absent: of the Corefile itself.
    pub file: Option<PathBuf>,
    pub line: usize,
    pub message: String,
}

impl CorefileError {
    pub(crate) fn new(line: usize, message: impl Into<String>) -> Self {
        Self { file: None, line, message: message.into() }
    }
}

/// What a Corefile is read for: what the node has set by other means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// This node's name, told as NSID and `hostname.bind`.
    pub node: String,
    /// Stands for `/etc/resolv.conf`: in CoreDNS' pod that is the node's own.
    pub resolv_conf: PathBuf,
    /// Addresses that are listened on.
    pub listen: Vec<IpAddr>,
    /// Addresses of `ns.dns.ZONE`.
    pub ns_addresses: Vec<IpAddr>,
    /// Ports of health, ready and metrics.
    pub health: u16,
    pub ready: u16,
    pub metrics: u16,
    /// Whether search lists of pods are walked for them also where no `autopath` is written.
    pub autopath: bool,
    /// Each how-many-th query is logged where `log` is written; 0 and 1: every one.
    pub log_sample: u32,
    /// For `{$NAME}`.
    pub variables: BTreeMap<String, String>,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            node: String::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            listen: Vec::new(),
            ns_addresses: Vec::new(),
            health: 8080,
            ready: 8181,
            metrics: 9153,
            autopath: true,
            log_sample: 1,
            variables: BTreeMap::new(),
        }
    }
}

/// A Corefile that has been read; what it means is worked out when it is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    blocks: Vec<syntax::Block>,
}

impl Corefile {
    /// Reads the text of a Corefile; `dir`: where imported files are.
    ///
    /// # Errors
    /// What is no Corefile.
    pub fn parse(text: &str, dir: &Path, environment: &Environment) -> Result<Self, CorefileError> {
        Ok(Self { blocks: syntax::parse(text, dir, &environment.variables)? })
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// As [`Corefile::parse`], and when the file cannot be read.
    pub fn read(path: &Path, environment: &Environment) -> Result<Self, CorefileError> {
        let text = std::fs::read_to_string(path).map_err(|e| CorefileError::new(0, e.to_string()))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("/")), environment)
    }

    /// Whether endpoints go by the names of their pods (`kubernetes { endpoint_pod_names }`).
    #[must_use]
    pub fn pod_names(&self) -> bool {
        let directives = self.blocks.iter().flat_map(|b| &b.directives);
        directives
            .filter(|d| d.name == "kubernetes")
            .flat_map(|d| &d.block)
            .any(|d| d.name == "endpoint_pod_names")
    }

    pub(crate) fn build(
        &self,
        environment: &Environment,
    ) -> Result<(Plan, Option<IndexOptions>), CorefileError> {
        build::build(&self.blocks, environment)
    }

    /// Says what could not be followed, without following it.
    ///
    /// # Errors
    /// The first such thing.
    pub fn check(&self, environment: &Environment) -> Result<(), CorefileError> {
        self.build(environment).map(drop)
    }
}

#[cfg(test)]
mod tests;
