//! Runs the core: events in, status and snapshots out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eastwest_client::Received;
use eastwest_dataplane::{Connections, Dataplane, Level};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::core::{Core, Status};
use crate::health::Health;
use crate::metrics::SyncMetrics;
use crate::problems::Problems;
use crate::snapshot::Snapshots;

/// Events programmed together.
const BATCH: usize = 1024;
/// Shortest time between two snapshots.
const SNAPSHOT: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two readings of all Service ports' connections.
const CONNECTIONS: u64 = 10;

/// Says whether this agent answers names.
#[derive(Debug)]
pub struct ServesNames {
    pub serves: bool,
    /// Told when that is programmed.
    pub done: oneshot::Sender<()>,
}

/// The core on a thread of its own: it makes system calls, and DNS shall not wait for them.
pub struct Worker<D: Dataplane> {
    pub core: Core<D>,
    /// Gives the dataplane when it is open, and what is dropped when it holds what is known.
    pub opened: oneshot::Receiver<(D, oneshot::Sender<()>)>,
    pub received: mpsc::Receiver<Received>,
    /// Addresses of the node that serve NodePorts.
    pub node_ports: watch::Receiver<Vec<IpAddr>>,
    /// Whether this agent answers names from now on, and at which addresses.
    pub serves_names: mpsc::UnboundedReceiver<ServesNames>,
    pub dns_addresses: Vec<IpAddr>,
    pub status: watch::Sender<Status>,
    pub levels: watch::Sender<Vec<(&'static str, Level)>>,
    /// Connections opened, by Service port, every ten seconds.
    pub connections: watch::Sender<Vec<Connections>>,
    pub snapshots: Snapshots,
    pub metrics: Arc<SyncMetrics>,
    pub health: Arc<Health>,
    pub problems: Problems,
    pub stop: CancellationToken,
}

/// Fill levels by the tables' names in metrics.
pub fn levels_of<D: Dataplane>(core: &Core<D>) -> Vec<(&'static str, Level)> {
    let stats = core.stats();
    vec![
        ("frontends4", stats.frontends4),
        ("frontends6", stats.frontends6),
        ("backends", stats.backends),
        ("endpoints4", stats.endpoints4),
        ("endpoints6", stats.endpoints6),
        ("slots", stats.slots),
    ]
}

impl<D: Dataplane + 'static> Worker<D> {
    /// The receiver hears of the end, whatever kind of end it is. Must be called within a tokio runtime.
    pub fn start(self) -> std::io::Result<oneshot::Receiver<()>> {
        let (done, ended) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Handle::current();
        let body = move || {
            let _done = done;
            runtime.block_on(self.run());
        };
        std::thread::Builder::new().name("core".into()).spawn(body)?;
        Ok(ended)
    }

    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        let mut saving: Option<JoinHandle<std::io::Result<()>>> = None;
        let mut saved: Option<Instant> = None;
        let mut open = true;
        let mut opening = true;
        let mut ticks = 0u64;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                // Before the events: a flood of them shall not keep retries and counters waiting.
                _ = tick.tick() => {
                    self.health.busy();
                    self.core.tick();
                    self.health.idle();
                    self.levels.send_replace(levels_of(&self.core));
                    if ticks.is_multiple_of(CONNECTIONS) {
                        self.connections.send_replace(self.core.connections());
                    }
                    ticks += 1;
                }
                opened = &mut self.opened, if opening => {
                    opening = false;
                    if let Ok((dataplane, _programmed)) = opened {
                        self.health.busy();
                        self.core.set_dataplane(dataplane);
                        self.health.idle();
                    }
                }
                Ok(()) = self.node_ports.changed() => {
                    let addresses = self.node_ports.borrow_and_update().clone();
                    self.health.busy();
                    self.core.set_node_port_addresses(addresses);
                    self.health.idle();
                }
                Some(ServesNames { serves, done }) = self.serves_names.recv() => {
                    self.health.busy();
                    self.core.set_serves_names(&self.dns_addresses, serves);
                    self.health.idle();
                    let _nobody_may_wait_for_it = done.send(());
                }
                count = self.received.recv_many(&mut batch, BATCH), if open => {
                    open = count > 0;
                    self.metrics.received();
                    self.health.busy();
                    self.core.batch(batch.drain(..));
                    self.health.idle();
                }
            }
            self.health.set_leaving(self.core.leaving());
            let status = self.core.status();
            self.status.send_if_modified(|old| {
                let changed = *old != status;
                *old = status;
                changed
            });
            if let Some(finished) = saving.take_if(|s| s.is_finished()) {
                self.saved(finished.await);
            }
            if saving.is_none()
                && saved.is_none_or(|at| at.elapsed() >= SNAPSHOT)
                && let Some(snapshot) = self.core.take_snapshot()
            {
                let snapshots = self.snapshots.clone();
                saving = Some(tokio::task::spawn_blocking(move || snapshots.write(&snapshot)));
                saved = Some(Instant::now());
            }
        }
        // However it ends: others answer names from here on.
        self.core.set_serves_names(&self.dns_addresses, false);
        if let Some(finishing) = saving {
            self.saved(finishing.await);
        }
        if let Some(snapshot) = self.core.take_snapshot()
            && let Err(e) = self.snapshots.write(&snapshot)
        {
            error!(error = %e, "the last snapshot was not written");
        }
    }

    fn saved(&mut self, result: Result<std::io::Result<()>, tokio::task::JoinError>) {
        let problem = match result {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(e.to_string()),
            Err(e) => Some(e.to_string()),
        };
        if problem.is_some() {
            self.core.snapshot_failed();
        }
        let path = self.snapshots.path();
        self.problems.set("snapshot", problem.map(|e| format!("{}: {e}", path.display())));
    }
}
