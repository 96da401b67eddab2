//! The pin folder: `<pin_dir>/v<ABI>` with the maps, and `links` in it. It must be on a bpffs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use eastwest_abi as abi;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use crate::{Error, sys};

/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Where this version's maps are pinned.
pub fn maps_dir(pin_dir: &Path) -> PathBuf {
    version_dir(pin_dir, abi::VERSION)
}

/// Where a version's maps are pinned.
pub(crate) fn version_dir(pin_dir: &Path, version: u32) -> PathBuf {
    pin_dir.join(format!("v{version}"))
}

/// The version whose folder has this name.
fn version_of(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.parse().ok()
}

/// Where this version's links are pinned.
pub fn links_dir(pin_dir: &Path) -> PathBuf {
    maps_dir(pin_dir).join("links")
}

fn on_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path).map_err(io::Error::from)?.filesystem_type() == BPF_FS)
}

/// Makes the pin folder, on a bpffs that is mounted when allowed.
pub(crate) fn prepare(pin_dir: &Path, may_mount: bool) -> Result<(), Error> {
    let error = |what, source| Error::Pin { path: pin_dir.to_owned(), what, source };
    // sysfs has no mkdir: there only an existing mount point can take the bpffs.
    let made = std::fs::create_dir_all(pin_dir);
    let existing = pin_dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    if !on_bpffs(existing).map_err(|source| error("statfs", source))? {
        if !may_mount {
            let source = io::Error::other("not on a bpffs");
            return Err(error("mount one there: mount -t bpf bpf", source));
        }
        let point = if made.is_ok() { pin_dir } else { existing };
        if made.is_err() && point != Path::new("/sys/fs/bpf") {
            return Err(error("make the folder", made.err().unwrap_or_else(|| io::Error::other("?"))));
        }
        tracing::info!(path = %point.display(), "mounting bpffs");
        mount(Some("bpf"), point, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|errno| error("mount bpffs", errno.into()))?;
    }
    std::fs::create_dir_all(links_dir(pin_dir)).map_err(|source| error("make the folder", source))
}

/// Removes every pin below `pin_dir`, of all versions; what is attached detaches and what nobody else holds is freed.
/// Nothing there is no error.
///
/// # Errors
/// When a pin cannot be removed.
pub fn remove_all(pin_dir: &Path) -> Result<(), Error> {
    let error = |path: &Path, source| Error::Pin { path: path.to_owned(), what: "remove", source };
    let entries = match std::fs::read_dir(pin_dir) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(error(pin_dir, source)),
    };
    if !on_bpffs(pin_dir).map_err(|source| error(pin_dir, source))? {
        return Err(error(pin_dir, io::Error::other("not on a bpffs: left alone")));
    }
    for entry in entries {
        let entry = entry.map_err(|source| error(pin_dir, source))?;
        let name = entry.file_name();
        if name.to_str().and_then(version_of).is_some() {
            detach(&entry.path().join("links"))?;
            remove_version(&entry.path())?;
        }
    }
    // The folder itself may be a mount point or hold others' things.
    match std::fs::remove_dir(pin_dir) {
        Ok(()) => Ok(()),
        Err(source) if matches!(source.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY | libc::EPERM)) => {
            Ok(())
        }
        Err(source) => Err(error(pin_dir, source)),
    }
}

/// Detaches the links in a folder, so that nothing is translated any more when this returns: a connection that the
/// programs opened while the kernel takes its time would end with them.
fn detach(links: &Path) -> Result<(), Error> {
    for path in entries(links)? {
        let detached = match open_link(&path) {
            Ok(Some(link)) => sys::detach_link(link.as_fd()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match detached {
            // Its device or cgroup is gone, or this kind of link knows no other end than its holder's.
            Err(error)
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::ENOLINK | libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP)
                ) =>
            {
                return Err(Error::Pin { path, what: "detach", source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the pins in a version's folder, and the folder.
pub(crate) fn remove_version(folder: &Path) -> Result<(), Error> {
    let error = |path: &Path, source| Error::Pin { path: path.to_owned(), what: "remove", source };
    // Links first, so that no program runs on without its maps' pins for long.
    let links = folder.join("links");
    if links.is_dir() {
        std::fs::remove_dir_all(&links).map_err(|source| error(&links, source))?;
    }
    std::fs::remove_dir_all(folder).map_err(|source| error(folder, source))
}

/// Versions that have a folder, this one aside.
pub(crate) fn other_versions(pin_dir: &Path) -> Result<Vec<u32>, Error> {
    let names = entries(pin_dir)?.into_iter().filter_map(|path| version_of(path.file_name()?.to_str()?));
    let mut versions: Vec<u32> = names.filter(|version| *version != abi::VERSION).collect();
    versions.sort_unstable();
    Ok(versions)
}

/// What is in a folder; nothing when there is none.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = std::fs::read_dir(folder).and_then(|all| all.map(|entry| Ok(entry?.path())).collect());
    match list {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|source| Error::Pin { path: folder.to_owned(), what: "read", source }),
    }
}

/// Opens a pinned link; `None` when there is none.
pub(crate) fn open_link(path: &Path) -> io::Result<Option<OwnedFd>> {
    match sys::open_pin(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a pin; none there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
