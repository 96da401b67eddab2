//! The pin folder: `<pin_dir>/v<ABI>` with the maps, and `links` in it. It must be on a bpffs.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use eastwest_abi as abi;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use crate::{Error, sys};

/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Where this version's maps are pinned.
pub fn maps_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{}", abi::VERSION))
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
        let ours = name
            .to_str()
            .and_then(|name| name.strip_prefix('v'))
            .is_some_and(|rest| rest.parse::<u32>().is_ok());
        if ours {
            // Links first, so that no program runs on without its maps' pins for long.
            let links = entry.path().join("links");
            if links.is_dir() {
                std::fs::remove_dir_all(&links).map_err(|source| error(&links, source))?;
            }
            std::fs::remove_dir_all(entry.path()).map_err(|source| error(&entry.path(), source))?;
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
