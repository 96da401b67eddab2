//! Namespaces of a test's own: a node with its bpffs, and pods. All of it goes with the threads that hold it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;

use eastwest_dataplane::{Capacities, Options};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// A node: the thread it is made in is in a network and a mount namespace of its own, with a bpffs.
pub struct Node {
    folder: tempfile::TempDir,
}

/// What is measured is measured alone: the kernel's lock for devices is one for all namespaces.
static ALONE: RwLock<()> = RwLock::new(());

/// Runs `test` as a node of its own.
pub fn node(test: impl FnOnce(&Node) + Send + 'static) {
    let _together = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    start(test);
}

/// As `node`, with no other test of this file at the same time.
pub fn node_alone(test: impl FnOnce(&Node) + Send + 'static) {
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    start(test);
}

fn start(test: impl FnOnce(&Node) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        assert_eq!(nix::unistd::geteuid().as_raw(), 0, "needs root: it makes namespaces and loads programs");
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        let folder = tempfile::tempdir().expect("temporary folder");
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), none).expect("bpffs");
        run("ip link set lo up");
        let node = Node { folder };
        test(&node);
        nix::mount::umount(node.folder.path()).expect("umount");
    });
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

impl Node {
    pub fn pin_dir(&self) -> PathBuf {
        self.folder.path().join("eastwest")
    }

    /// Small maps, and nothing attached to a cgroup.
    pub fn options(&self) -> Options {
        Options {
            pin_dir: self.pin_dir(),
            mount_bpffs: false,
            capacities: Capacities {
                frontends: 4096,
                backends: 4096,
                slots: 16_384,
                connections4: 16_384,
                connections6: 16_384,
                sockets: 1024,
                affinities: 1024,
                answers: 1024,
                fragments: 256,
            },
            ..Options::default()
        }
    }
}

/// Runs a command in this thread's namespaces.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a command");
    let output =
        Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

type Job = Box<dyn FnOnce() + Send>;

/// Another network namespace, with a thread in it that does what it is told.
pub struct Netns {
    jobs: Option<mpsc::Sender<Job>>,
    pub thread_id: i32,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    pub fn new() -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
            run("ip link set lo up");
            tell.send(nix::unistd::gettid().as_raw()).expect("waits");
            for job in todo {
                job();
            }
        });
        let thread_id = told.recv().expect("thread starts");
        Self { jobs: Some(jobs), thread_id, thread: Some(thread) }
    }

    /// Runs `work` inside and returns what it returns; a panic in it is the caller's.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = Box::new(move || {
            let _ = tell.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs.as_ref().expect("runs").send(job).expect("thread lives");
        match told.recv().expect("thread lives") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Names of pins below a folder.
pub fn pins(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// A tokio runtime on this thread.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}

/// This thread's id, by which `ip link set … netns` finds its namespace.
pub fn gettid() -> i32 {
    nix::unistd::gettid().as_raw()
}
