//! A thread that attaches. The kernel waits for an RCU grace period with each tcx link (`tcx_entry_sync` in
//! include/net/tcx.h), milliseconds in which the async runtime has DNS to answer and netlink to read.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

use super::{Hooks, Role};
use crate::Error;

pub(super) enum Job {
    /// Answered.
    Attach {
        role: Role,
        index: u32,
        name: String,
        kind: String,
    },
    Remove {
        index: u32,
    },
    /// Remove the pins of all devices but these, and say when.
    Sweep {
        present: HashSet<u32>,
        swept: oneshot::Sender<()>,
    },
}

type Answer = (u32, Result<&'static str, Error>);

/// Jobs are done one after the other, in the network namespace of the thread that started it.
pub(super) struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    answers: UnboundedReceiver<Answer>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub fn start(mut hooks: Hooks) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let (tell, answers) = unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("device-hooks".into()).spawn(move || {
            for job in todo {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                match job {
                    Job::Attach { role, index, name, kind } => {
                        let _ = tell.send((index, hooks.attach(role, index, &name, &kind)));
                    }
                    Job::Remove { index } => hooks.remove(index),
                    Job::Sweep { present, swept } => {
                        if let Err(error) = hooks.sweep(&present) {
                            tracing::warn!(%error, "links of devices that are gone not removed");
                        }
                        let _ = swept.send(());
                    }
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), answers, stop, thread: Some(thread) })
    }

    pub fn send(&self, job: Job) {
        // Without a receiver the thread has ended, which `done` tells.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }

    /// The next answer; `None` when the thread has ended.
    pub async fn done(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

impl Drop for Worker {
    /// Waits for the job under way, so that whoever comes next finds no one else at the pins.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
