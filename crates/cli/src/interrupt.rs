//! Ctrl-C while a lab belongs to this program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// As long as this lives, SIGINT, SIGTERM and SIGHUP take the lab down before they end the program.
pub struct TakesDown {
    armed: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
}

impl TakesDown {
    /// The lab must not be up yet: one that somebody else made is not for us to take down.
    pub fn lab(name: &str) -> Result<Self> {
        if eastwest_lab::list().iter().any(|up| up == name) {
            return Err(eastwest_lab::Error::Exists(name.to_owned()).into());
        }
        let armed = Arc::new(AtomicBool::new(true));
        let interrupted = Arc::new(AtomicBool::new(false));
        let (name, still, now) = (name.to_owned(), armed.clone(), interrupted.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (set, ready) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("interrupt".into()).spawn(move || {
            runtime.block_on(async {
                let handlers = handlers();
                // The receiver waits for this and for nothing else.
                let (mut interrupt, mut terminate, mut hangup) = match handlers {
                    Ok(handlers) => {
                        let _waiting = set.send(Ok(()));
                        handlers
                    }
                    Err(e) => {
                        let _waiting = set.send(Err(e));
                        return;
                    }
                };
                let number = tokio::select! {
                    _ = interrupt.recv() => 2,
                    _ = terminate.recv() => 15,
                    _ = hangup.recv() => 1,
                };
                now.store(true, Ordering::SeqCst);
                if still.load(Ordering::SeqCst) {
                    eprintln!("\ninterrupted: taking lab {name} down");
                    if let Err(e) = eastwest_lab::down(&name) {
                        eprintln!("error: {e}");
                    }
                }
                // As a shell reports a program that a signal has ended.
                std::process::exit(128 + number);
            });
        })?;
        ready.recv().context("start of the signal thread")?.context("signal handlers")?;
        Ok(Self { armed, interrupted })
    }
}

type Handlers = (tokio::signal::unix::Signal, tokio::signal::unix::Signal, tokio::signal::unix::Signal);

fn handlers() -> std::io::Result<Handlers> {
    Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?))
}

impl Drop for TakesDown {
    fn drop(&mut self) {
        self.armed.store(false, Ordering::SeqCst);
        if self.interrupted.load(Ordering::SeqCst) {
            // What failed here failed because the lab is being taken down; the signal's thread ends the program.
            loop {
                std::thread::park();
            }
        }
    }
}
