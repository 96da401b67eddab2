//! Tells the controller what this node is and what it has programmed.

use std::time::Duration;

use eastwest_client::{Client, Following, WriteOptions};
use eastwest_model::{DeviceState, Kind, Node, NodeState, NodeStateStatus, ObjectMeta};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::core::Status;
use crate::node::Identity;
use crate::problems::Problems;

/// Time between two reports in the long run; after a pause, so many go at once.
const SPACING: Duration = Duration::from_millis(10);
const BURST: u32 = 100;
/// Counters alone are reported so often.
const HEARTBEAT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);
/// Problems in a report, at most.
const MOST_PROBLEMS: usize = 32;

/// Where a report is taken from.
#[derive(Clone)]
pub struct Sources {
    pub identity: Identity,
    /// RFC 3339.
    pub started_at: String,
    pub status: watch::Receiver<Status>,
    pub devices: watch::Receiver<Vec<DeviceState>>,
    pub following: watch::Receiver<Following>,
    pub problems: Problems,
}

impl Sources {
    /// The node's state as it is now.
    pub fn state(&self) -> NodeState {
        let status = self.status.borrow().clone();
        let mut problems = self.problems.list();
        problems.extend(status.problems);
        if problems.len() > MOST_PROBLEMS {
            let more = problems.len() - MOST_PROBLEMS;
            problems.truncate(MOST_PROBLEMS);
            problems.push(format!("and {more} more"));
        }
        let (store_id, applied_revision) =
            status.applied.map_or_else(Default::default, |p| (p.store_id, p.revision));
        NodeState {
            api_version: Kind::NodeState.api_version().into(),
            kind: Kind::NodeState.name().into(),
            metadata: ObjectMeta { name: self.identity.name.clone(), ..Default::default() },
            status: NodeStateStatus {
                store_id,
                applied_revision,
                programming_latency_us: status.latency_us,
                agent_version: env!("CARGO_PKG_VERSION").into(),
                started_at: self.started_at.clone(),
                devices: self.devices.borrow().clone(),
                services: status.services,
                backends: status.backends,
                counters: status.counters,
                problems,
                connected: false,
            },
        }
    }
}

/// When the next report may go. A writer that waits for each of its writes is not slowed down; a controller with many
/// agents under many writes hears of each a hundred times a second at most, and never of one twice at once.
#[derive(Debug)]
struct Pace {
    /// The moment at which all of the burst would be there again.
    full_at: Option<Instant>,
}

impl Pace {
    /// Earliest moment for a report.
    fn next(&self, now: Instant) -> Instant {
        let earliest = self.full_at.and_then(|at| at.checked_sub(SPACING * (BURST - 1)));
        earliest.unwrap_or(now).max(now)
    }

    fn sent(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.unwrap_or(now).max(now) + SPACING);
    }
}

/// Reports whenever something has changed and the controller is there, until `stop`.
pub async fn run(client: Client, mut sources: Sources, stop: CancellationToken) {
    let mut problems = sources.problems.subscribe();
    let mut registered = 0;
    let mut last: Option<NodeState> = None;
    let mut pace = Pace { full_at: None };
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut again = false;
    loop {
        let pause = tokio::time::sleep(RETRY);
        let mut beat = false;
        tokio::select! {
            () = stop.cancelled() => return,
            () = pause, if again => {}
            _ = heartbeat.tick() => beat = true,
            changed = sources.status.changed() => if changed.is_err() { return },
            changed = sources.devices.changed() => if changed.is_err() { return },
            changed = sources.following.changed() => if changed.is_err() { return },
            changed = problems.changed() => if changed.is_err() { return },
        }
        again = false;
        let following = sources.following.borrow().clone();
        if !following.connected {
            continue;
        }
        if following.connections != registered {
            match register(&client, &sources.identity).await {
                Ok(()) => {
                    registered = following.connections;
                    sources.problems.set("registration", None);
                    // The controller may be a new one: it knows nothing of what was reported before.
                    last = None;
                }
                Err(e) => {
                    sources
                        .problems
                        .set("registration", Some(format!("Node {}: {e}", sources.identity.name)));
                    again = true;
                    continue;
                }
            }
        }
        tokio::time::sleep_until(pace.next(Instant::now())).await;
        let state = sources.state();
        if last.as_ref().is_some_and(|reported| !beat && !differs(reported, &state)) {
            continue;
        }
        pace.sent(Instant::now());
        match client.replace(&state, &WriteOptions::default()).await {
            Ok::<NodeState, _>(_) => {
                sources.problems.set("report", None);
                last = Some(state);
            }
            Err(e) => {
                debug!(error = %e, "report");
                if e.code().is_some() {
                    // Refused, not lost: somebody should know.
                    sources.problems.set("report", Some(e.to_string()));
                }
                again = true;
            }
        }
    }
}

/// Whether something besides the counters has changed.
fn differs(a: &NodeState, b: &NodeState) -> bool {
    let strip = |s: &NodeState| NodeStateStatus { counters: Default::default(), ..s.status.clone() };
    strip(a) != strip(b)
}

/// Makes the controller's Node say what this node is.
async fn register(client: &Client, identity: &Identity) -> Result<(), eastwest_client::Error> {
    let options = WriteOptions::default();
    match client.get::<Node>("", &identity.name).await {
        // Kubernetes knows its nodes.
        Ok(old) if old.metadata.is_mirrored() => {}
        Ok(old) => {
            let new = identity.update(old.clone());
            if new.spec != old.spec || new.status != old.status {
                client.replace(&new, &options).await?;
                info!(node = identity.name, "node updated");
            }
        }
        Err(e) if e.is_not_found() => {
            client.create(&identity.update(Node::default()), &options).await?;
            info!(node = identity.name, "node registered");
        }
        Err(e) => return Err(e),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_at_once_then_a_hundred_a_second() {
        let start = Instant::now();
        let mut pace = Pace { full_at: None };
        let mut now = start;
        let mut sent = Vec::new();
        for _ in 0..120 {
            now = pace.next(now);
            pace.sent(now);
            sent.push((now - start).as_millis());
        }
        assert_eq!(sent[..100], [0; 100]);
        assert_eq!(sent[100..103], [10, 20, 30]);
        assert_eq!(sent[119], 200);
        // A pause brings the burst back, and no more than that.
        now += Duration::from_secs(60);
        for n in 0..105u32 {
            assert_eq!(pace.next(now) > now, n >= BURST, "{n}");
            pace.sent(now);
        }
    }
}
