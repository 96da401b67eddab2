//! Named network namespaces: what `ip netns` shows, entered by setns. `ip netns exec` is not used: it mounts a new
//! /sys, and pinned objects are out of sight there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};

use crate::Error;
use crate::enter::Enter;
use crate::error::Doing;
use crate::paths::NETNS_DIR;

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

pub(crate) fn open(name: &str) -> Result<File, Error> {
    File::open(path(name)).doing(|| format!("open network namespace {name}"))
}

/// The namespaces of labs there are, each with its lab's name.
pub(crate) fn of_labs() -> Vec<(String, String)> {
    fs::read_dir(NETNS_DIR)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some((lab_of(&name)?.to_owned(), name)))
        .collect()
}

/// The lab that a namespace of this name belongs to: others may have names that begin as ours do.
fn lab_of(name: &str) -> Option<&str> {
    let (lab, part) = name.strip_prefix("ew-")?.split_once('-')?;
    let node = part.strip_prefix("node-").is_some_and(|n| n.parse::<u16>().is_ok());
    let ours = node || part.starts_with("pod-") || matches!(part, "fabric" | "client" | "ctl");
    ours.then_some(lab)
}

/// Identities of namespaces, as /proc/PID/ns/net shows them.
pub(crate) fn inodes(names: &[String]) -> HashSet<u64> {
    names.iter().filter_map(|n| Some(fs::metadata(path(n)).ok()?.ino())).collect()
}

/// Runs `f` in a thread inside the namespace.
pub(crate) fn within<T: Send>(name: &str, f: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let ns = open(name)?;
    let run = || {
        setns(&ns, CloneFlags::CLONE_NEWNET).doing(|| format!("enter network namespace {name}"))?;
        f()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, run);
        match thread.doing(|| "start a thread".into())?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Lines for `ip -batch`, run in one go; the first that fails ends it.
#[derive(Default)]
pub(crate) struct Batch {
    lines: String,
}

impl Batch {
    pub fn add(&mut self, line: impl AsRef<str>) -> &mut Self {
        self.lines.push_str(line.as_ref());
        self.lines.push('\n');
        self
    }

    /// `netns`: the namespace they run in; `None`: the machine's, for `netns add` and `netns delete` alone.
    pub fn run(&self, netns: Option<&str>) -> Result<(), Error> {
        run("ip", netns, &self.lines)
    }

    /// The same for `bridge`.
    pub fn run_bridge(&self, netns: &str) -> Result<(), Error> {
        run("bridge", Some(netns), &self.lines)
    }
}

fn run(program: &str, netns: Option<&str>, lines: &str) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut command = Command::new(program);
    // Not `-n`: it mounts a new /sys as `ip netns exec` does.
    if let Some(ns) = netns {
        Enter::netns(ns)?.apply(&mut command);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.spawn().and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(lines.as_bytes()) {
                // It ended at a line that fails: its own message says more.
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
                _ => {}
            }
        }
        child.wait_with_output()
    });
    let output = output.doing(|| format!("run {program} (Debian's iproute2)"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let failed = stderr.rsplit_once("-:").and_then(|(_, n)| n.trim().parse::<usize>().ok());
    let line = failed.and_then(|n| lines.lines().nth(n - 1)).unwrap_or("-batch");
    let within = netns.map(|n| format!(" -n {n}")).unwrap_or_default();
    Err(Error::Command { command: format!("{program}{within} {line}"), stderr })
}

/// Sets sysctls below /proc/sys/net; to be called inside the namespace.
pub(crate) fn sysctls(settings: &[(&str, &str)]) -> Result<(), Error> {
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value).doing(|| format!("write {value} to {path} of the namespace"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::lab_of;

    #[test]
    fn names_of_labs() {
        for (name, lab) in [
            ("ew-lab-fabric", Some("lab")),
            ("ew-lab-node-12", Some("lab")),
            ("ew-t_1-pod-default.web-1", Some("t_1")),
            ("ew-lab-node-x", None),
            ("ew-test-4711", None),
            ("cni-lab-fabric", None),
        ] {
            assert_eq!(lab_of(name), lab, "{name}");
        }
    }
}
