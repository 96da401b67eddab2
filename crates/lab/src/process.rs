use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::enter::Enter;
use crate::error::Doing;

/// A detached process, known again by when it started: a process id alone is used anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks after boot (`/proc/PID/stat`, field 22).
    pub started: u64,
}

impl Process {
    /// The process of this id as it is now; `None` when there is none, or only what its parent has not yet collected.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let (process, state) = Self::read(pid)?;
        // The first thread may have ended before the others: until they have too, what it listened on is taken.
        let others = || fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1);
        (!matches!(state, 'Z' | 'X') || others()).then_some(process)
    }

    /// The same whether it still runs or has ended uncollected, and its state.
    fn read(pid: i32) -> Option<(Self, char)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the state follows it.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        let started = fields.nth(18)?.parse().ok()?;
        Some((Self { pid, started }, state))
    }

    pub fn alive(&self) -> bool {
        Self::find(self.pid).as_ref() == Some(self)
    }

    /// Nothing happens when it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        if !self.alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(e) => Err(e).doing(|| format!("send {signal} to process {}", self.pid)),
        }
    }

    /// Whether it has ended within `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.alive() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// SIGTERM, and after five seconds SIGKILL.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        self.signal(Signal::SIGTERM)?;
        if !self.wait(Duration::from_secs(5)) {
            self.kill()?;
        }
        Ok(())
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(5));
        Ok(())
    }
}

/// A process that is to run on after the caller.
pub(crate) struct Spawn<'a> {
    pub command: Command,
    pub enter: Enter,
    pub log: &'a Path,
    pub stdin: Option<OwnedFd>,
}

impl Spawn<'_> {
    pub fn run(mut self) -> Result<Process, Error> {
        let log = OpenOptions::new().create(true).append(true).open(self.log);
        let log = log.doing(|| format!("open {}", self.log.display()))?;
        let errors = log.try_clone().doing(|| "duplicate a file".into())?;
        self.command.stdin(self.stdin.map_or_else(Stdio::null, Stdio::from)).stdout(log).stderr(errors);
        self.command.current_dir("/");
        self.enter.detach().apply(&mut self.command);
        let name = self.command.get_program().to_string_lossy().into_owned();
        let mut child = self.command.spawn().doing(|| format!("start {name}"))?;
        // It may have ended already; it is not collected before the reaper's turn, so it is there to be read.
        let process = Process::read(child.id() as i32).map(|(process, _)| process);
        let process = process.ok_or(io::ErrorKind::NotFound).doing(|| format!("read the state of {name}"))?;
        // Collected when it ends, or it would stay a zombie while the caller lives.
        let reaper = std::thread::Builder::new().name("reaper".into());
        reaper.spawn(move || child.wait()).doing(|| "start a thread".into())?;
        Ok(process)
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Processes inside one of these network namespaces, other than the caller.
pub(crate) fn inside(inodes: &std::collections::HashSet<u64>) -> Vec<Process> {
    let me = std::process::id() as i32;
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| pid != me && net_inode(pid).is_ok_and(|inode| inodes.contains(&inode)))
        .filter_map(Process::find)
        .collect()
}

fn net_inode(pid: i32) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(format!("/proc/{pid}/ns/net"))?.ino())
}

/// Beside the running executable, or one folder up (tests run from `deps`), unless EASTWEST_BIN_DIR names the place.
pub(crate) fn binary(name: &'static str) -> Result<PathBuf, Error> {
    let dirs: Vec<PathBuf> = match std::env::var_os("EASTWEST_BIN_DIR") {
        // Processes of a lab begin in /.
        Some(dir) => vec![std::path::absolute(dir).doing(|| "read EASTWEST_BIN_DIR".into())?],
        None => {
            let exe = std::env::current_exe().doing(|| "find the running executable".into())?;
            exe.ancestors().skip(1).take(2).map(Path::to_path_buf).collect()
        }
    };
    dirs.iter().map(|d| d.join(name)).find(|p| p.is_file()).ok_or_else(|| Error::NoBinary {
        name,
        dirs: dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(" or "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = Process::find(std::process::id() as i32).unwrap();
        assert!(me.alive());
        assert!(!Process { started: me.started + 1, ..me }.alive());
        assert!(Process::find(i32::MAX).is_none());
    }
}
