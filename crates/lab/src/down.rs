use std::collections::BTreeSet;
use std::fs;
use std::io;

use crate::error::Doing;
use crate::netns::{self, Batch};
use crate::paths::{Paths, RUN_DIR};
use crate::{Error, Process, cgroup, process};

/// Takes a lab down: processes, namespaces, cgroups, pins, files. Works from what the state file says and from what is
/// there, so also after a crash, or half-way through `up`. Says whether there was anything.
pub fn down(name: &str) -> Result<bool, Error> {
    let paths = Paths::new(name)?;
    let lock = paths.locked()?;
    let found = clear(&paths)?;
    let path = paths.lock();
    fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
    drop(lock);
    Ok(found)
}

/// Every lab of which there is a trace. Their names.
pub fn down_all() -> Result<Vec<String>, Error> {
    let folders = fs::read_dir(RUN_DIR).into_iter().flatten().filter_map(|e| {
        let name = e.ok()?.file_name().into_string().ok()?;
        Some(name.strip_suffix(".lock").unwrap_or(&name).to_owned())
    });
    let namespaces = netns::of_labs().into_iter().map(|(lab, _)| lab);
    let labs: BTreeSet<String> = folders.chain(namespaces).filter(|lab| Paths::new(lab).is_ok()).collect();
    let mut gone = Vec::new();
    for lab in labs {
        if down(&lab)? {
            gone.push(lab);
        }
    }
    Ok(gone)
}

/// The same with the lock held.
pub(crate) fn clear(paths: &Paths) -> Result<bool, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot(nix::unistd::geteuid().as_raw()));
    }
    let namespaces: Vec<String> =
        netns::of_labs().into_iter().filter(|(lab, _)| *lab == paths.lab).map(|(_, ns)| ns).collect();
    let cgroups = cgroup::all(paths);
    let dir = paths.dir();
    let found = dir.exists() || !namespaces.is_empty() || !cgroups.is_empty();

    let inodes = netns::inodes(&namespaces);
    // A process that is killed may just have made another.
    for _ in 0..10 {
        let mut processes = process::inside(&inodes);
        let me = std::process::id() as i32;
        let of_cgroups = cgroups.iter().flat_map(|c| cgroup::processes(c)).filter(|&pid| pid != me);
        processes.extend(of_cgroups.filter_map(Process::find));
        if let Ok(state) = paths.load() {
            let pods = state.pods.into_values().filter_map(|p| p.process);
            processes.extend(state.processes.into_values().chain(pods).filter(Process::alive));
        }
        if processes.is_empty() {
            break;
        }
        for process in &processes {
            process.signal(nix::sys::signal::Signal::SIGKILL)?;
        }
        for process in &processes {
            process.wait(std::time::Duration::from_secs(2));
        }
    }

    let mut batch = Batch::default();
    for ns in &namespaces {
        batch.add(format!("netns delete {ns}"));
    }
    batch.run(None)?;
    for path in cgroups {
        cgroup::remove(&path)?;
    }
    for path in [paths.pins(), dir] {
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).doing(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(found)
}
