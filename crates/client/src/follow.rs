use std::time::{Duration, Instant};

use eastwest_model::Revision;
use eastwest_model::stream::Message;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::Client;
use crate::lines::{Lines, MAX_LINE};
use crate::sync::{Event, Machine, Position, Step};

/// Follows a controller's stream for a node.
pub struct Follow {
    pub client: Client,
    pub node: String,
    pub machine: Machine,
    /// Where events go. Full: the stream waits, and the controller with it.
    pub events: mpsc::Sender<Received>,
    /// How it stands, for reports.
    pub status: watch::Sender<Following>,
}

/// An event and when it came in, to tell how long its programming takes.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub event: Event,
}

/// How the following stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// The controller has greeted, and the stream lives.
    pub connected: bool,
    /// Why not, when it is not.
    pub problem: Option<String>,
    /// Connections that were made.
    pub connections: u64,
    /// Attempts that failed and connections that were lost.
    pub failures: u64,
    /// The store's newest revision, as far as known.
    pub head: Revision,
}

/// Connects, follows, and connects again, for ever: whatever happens, the node keeps what it has. Ends when the
/// receiver of events is gone.
pub async fn follow(mut follow: Follow) {
    loop {
        match follow.machine.step(Instant::now()) {
            Step::Wait(until) => {
                tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => {}
                    () = follow.events.closed() => return,
                }
            }
            Step::Connect(position) => match follow.connection(position).await {
                Ok(()) => return,
                Err(reason) => follow.lost(reason),
            },
            Step::Drop(reason) => follow.lost(reason),
        }
    }
}

impl Follow {
    fn lost(&mut self, reason: String) {
        let outage = self.machine.closed(Instant::now(), reason.clone());
        self.status.send_modify(|s| {
            s.connected = false;
            s.problem = Some(reason);
            s.failures += 1;
        });
        if let Some(outage) = outage {
            let lasting = outage.lasting.as_secs();
            warn!(
                reason = outage.reason,
                attempts = outage.attempts,
                lasting_s = lasting,
                "no controller: serving what is known"
            );
        }
    }

    /// One connection. `Ok`: nobody wants events any more.
    async fn connection(&mut self, position: Option<Position>) -> Result<(), String> {
        let held = position.as_ref().map(|p| (p.store_id.as_str(), p.revision));
        let opening = self.client.agent_stream(&self.node, held);
        let mut response = tokio::select! {
            opened = tokio::time::timeout(crate::sync::CONNECT, opening) => match opened {
                Ok(opened) => opened.map_err(|e| e.to_string())?,
                Err(_) => return Err(format!("no answer for {} s", crate::sync::CONNECT.as_secs())),
            },
            () = self.events.closed() => return Ok(()),
        };
        self.machine.opened(Instant::now());
        let mut lines = Lines::new(MAX_LINE);
        loop {
            let deadline = match self.machine.step(Instant::now()) {
                Step::Wait(until) => until,
                // Time has passed while the receiver was busy, not while the peer was silent: what has arrived counts.
                Step::Drop(_) => Instant::now() + Duration::from_millis(100),
                Step::Connect(_) => return Err("connection lost".into()),
            };
            let chunk = tokio::select! {
                biased;
                chunk = response.chunk() => chunk,
                () = self.events.closed() => return Ok(()),
                () = tokio::time::sleep_until(deadline.into()) => {
                    return Err(format!("nothing heard for {} s", crate::sync::STALE.as_secs()));
                }
            };
            match chunk {
                Ok(Some(bytes)) => lines.push(&bytes),
                Ok(None) if lines.is_partial() => return Err("the stream broke off inside a message".into()),
                Ok(None) => return Err("the controller closed the stream".into()),
                Err(e) => return Err(crate::kubeconfig::chain(&e)),
            }
            while let Some(line) = lines.next_line().map_err(|e| e.to_string())? {
                let message: Message = serde_json::from_slice(&line)
                    .map_err(|e| format!("a message that cannot be read: {e}"))?;
                let at = Instant::now();
                let event = self.machine.message(at, message).map_err(|e| e.to_string())?;
                let Some(event) = event else { continue };
                self.note(&event);
                if self.events.send(Received { at, event }).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    fn note(&self, event: &Event) {
        let newest = match event {
            Event::Hello { store_id, head } => {
                info!(store_id, head = head.0, "connected to the controller");
                self.status.send_modify(|s| {
                    s.connected = true;
                    s.problem = None;
                    s.connections += 1;
                    s.head = *head;
                });
                return;
            }
            Event::Reset => return,
            Event::Put { revision, .. } | Event::Delete { revision, .. } | Event::Bookmark { revision } => {
                *revision
            }
            Event::Synced { position, .. } => position.revision,
        };
        // Nobody is woken for a number that is read when something else happens.
        self.status.send_if_modified(|s| {
            s.head = s.head.max(newest);
            false
        });
    }
}
