//! Puts a process where it belongs between fork and exec: cgroup, network namespace, and for pods a mount namespace with
//! the /etc files a kubelet would write and a host name.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::SigSet;

use crate::Error;
use crate::error::Doing;
use crate::netns;

/// Where to. Everything that can fail for want of memory or of a file is done when it is made, before the fork.
pub(crate) struct Enter {
    netns: File,
    cgroup: Option<File>,
    /// (file, over which one), bind-mounted in a mount namespace of its own.
    binds: Vec<(CString, CString)>,
    hostname: Option<String>,
    /// Away from the terminal and the process group of the caller.
    detach: bool,
}

impl Enter {
    pub fn netns(name: &str) -> Result<Self, Error> {
        Ok(Self { netns: netns::open(name)?, cgroup: None, binds: Vec::new(), hostname: None, detach: false })
    }

    pub fn cgroup(mut self, path: &Path) -> Result<Self, Error> {
        let procs = path.join("cgroup.procs");
        let file = OpenOptions::new().write(true).open(&procs);
        self.cgroup = Some(file.doing(|| format!("open {}", procs.display()))?);
        Ok(self)
    }

    /// Lays `file` over `target`, for this process alone.
    pub fn bind(mut self, file: &Path, target: &str) -> Result<Self, Error> {
        std::fs::metadata(target).doing(|| format!("lay a pod's own {target} over the machine's"))?;
        let file = CString::new(file.as_os_str().as_bytes()).map_err(io::Error::from);
        let target = CString::new(target).map_err(io::Error::from);
        self.binds.push((file.doing(|| "name a file".into())?, target.doing(|| "name a file".into())?));
        Ok(self)
    }

    /// The files by which names are resolved. A machine without nsswitch.conf resolves by /etc/hosts and DNS anyway.
    pub fn resolver(self, resolv_conf: &Path, nsswitch_conf: &Path) -> Result<Self, Error> {
        let enter = self.bind(resolv_conf, "/etc/resolv.conf")?;
        let there = Path::new("/etc/nsswitch.conf").exists();
        if there { enter.bind(nsswitch_conf, "/etc/nsswitch.conf") } else { Ok(enter) }
    }

    pub fn hostname(mut self, name: &str) -> Self {
        self.hostname = Some(name.to_owned());
        self
    }

    pub fn detach(mut self) -> Self {
        self.detach = true;
        self
    }

    /// The command will run there, whether it is spawned or takes this process's place.
    pub fn apply(self, command: &mut Command) {
        // SAFETY: `enter` runs between fork and exec, in a process with one thread, and makes only system calls: it
        // allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || self.enter()) };
    }

    fn enter(&self) -> io::Result<()> {
        // The caller may have blocked signals for itself; a process that is to be stopped must hear them.
        SigSet::empty().thread_set_mask()?;
        if self.detach {
            nix::unistd::setsid()?;
        }
        if let Some(cgroup) = &self.cgroup {
            // "0" is the process that writes.
            nix::unistd::write(cgroup, b"0")?;
        }
        setns(&self.netns, CloneFlags::CLONE_NEWNET)?;
        if let Some(name) = &self.hostname {
            unshare(CloneFlags::CLONE_NEWUTS)?;
            nix::unistd::sethostname(name)?;
        }
        if !self.binds.is_empty() {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
            let none: Option<&CStr> = None;
            // Slave: later mounts of the machine still come in, none of these go out.
            mount(none, c"/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
            for (file, target) in &self.binds {
                mount(Some(file.as_c_str()), target.as_c_str(), none, MsFlags::MS_BIND, none)?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Enter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enter").field("netns", &self.netns.as_raw_fd()).finish_non_exhaustive()
    }
}
