//! A cgroup2 subtree a node, so that programs attached to it see that node's processes alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Error;
use crate::error::Doing;
use crate::paths::Paths;

/// The cgroup2 mount of this machine: /sys/fs/cgroup, or beside version 1 /sys/fs/cgroup/unified.
fn root() -> Result<PathBuf, Error> {
    let mounts = fs::read_to_string("/proc/self/mounts").doing(|| "read /proc/self/mounts".into())?;
    mounts
        .lines()
        .map(|line| line.split(' '))
        .find_map(|mut f| match (f.next(), f.next(), f.next()) {
            (_, Some(path), Some("cgroup2")) => Some(PathBuf::from(path)),
            _ => None,
        })
        .ok_or(Error::NoCgroup2)
}

pub(crate) fn of_node(paths: &Paths, node: &str) -> Result<PathBuf, Error> {
    Ok(root()?.join(format!("{}{node}", paths.cgroup_prefix())))
}

pub(crate) fn create(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(e).doing(|| format!("make cgroup {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The lab's cgroups there are.
pub(crate) fn all(paths: &Paths) -> Vec<PathBuf> {
    let Ok(root) = root() else { return Vec::new() };
    let prefix = paths.cgroup_prefix();
    fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok())
        .filter(|e| {
            let name = e.file_name();
            let node = name.to_str().and_then(|n| n.strip_prefix(&prefix)?.strip_prefix("node-"));
            node.is_some_and(|n| n.parse::<u16>().is_ok())
        })
        .map(|e| e.path())
        .collect()
}

pub(crate) fn processes(path: &Path) -> Vec<i32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|l| l.parse().ok()).collect()
}

/// Removes the cgroup and those below it. Its processes have been killed; until the kernel has let go of the last, it
/// is busy.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match remove_tree(path) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if Instant::now() > deadline => {
                return Err(e).doing(|| format!("remove cgroup {}", path.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
